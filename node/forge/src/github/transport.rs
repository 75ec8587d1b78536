//! One request, one answer: octocrab's client underneath, a bound on time and size around it, and the question that
//! matters after a failure: can GitHub have received it?

use std::error::Error as _;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower::{BoxError, Service};
use url::Url;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer we read. A page of 100 changed files with patches stays well below.
const MAX_ANSWER: usize = 32 << 20;

/// The version of GitHub's REST API that we were written against; the same as Prow's.
const API_VERSION: &str = "2022-11-28";

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Nothing usable came back.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) reason: String,
    /// GitHub may have received the request.
    pub(super) maybe_sent: bool,
    /// An answer came, but is larger than [`MAX_ANSWER`].
    pub(super) too_large: bool,
}

/// What carries requests to GitHub. Clones share it.
#[derive(Debug, Clone)]
pub struct Transport {
    octocrab: Octocrab,
}

/// A connection that was not used for this long is closed; GitHub closes it after a minute.
const IDLE_FOR: Duration = Duration::from_secs(50);

/// How often a connection of HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

fn keeping_connections() -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(super::MAX_IN_FLIGHT)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT);
    builder
}

fn connecting<C>(connector: C) -> Transport
where
    C: Connect + Clone + Send + Sync + 'static,
{
    Transport::over(keeping_connections().build::<_, OctoBody>(connector))
}

impl Transport {
    /// Over something else than connections of our own: a GitHub in the same process. An [`std::io::Error`] of
    /// [`std::io::ErrorKind::ConnectionRefused`] says that a request was not received, any other error that it may have
    /// been. Must be called within a Tokio runtime.
    pub fn over<S, B>(service: S) -> Self
    where
        S: Service<Request<OctoBody>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        match OctocrabBuilder::new_empty()
            .with_service(service)
            .with_auth(AuthState::None)
            .build()
        {
            Ok(octocrab) => Self { octocrab },
            Err(never) => match never {},
        }
    }

    /// `https` needs the machine's root certificates, `http` (a sandbox, a proxy in the same cluster) does without.
    /// Connections are kept; over TLS they are HTTP/2 where the other side speaks it.
    pub(super) fn new(tls: bool) -> std::io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        if !tls {
            return Ok(connecting(connector));
        }
        connector.enforce_http(false);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)?
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        Ok(connecting(connector))
    }

    /// Sends to an absolute URL. `headers` bring the authorization; the rest of what GitHub wants is added here.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        agent: &str,
        body: Option<&str>,
        within: Duration,
    ) -> Result<Answer, Lost> {
        let request = build(method, url, headers, agent, body)
            .map_err(|error| Lost::never(error.to_string()))?;
        match tokio::time::timeout(within, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Lost {
                reason: format!("no answer within {} ms", within.as_millis()),
                maybe_sent: true,
                too_large: false,
            }),
        }
    }

    async fn exchange(&self, request: Request<OctoBody>) -> Result<Answer, Lost> {
        let response = self.octocrab.send(request).await.map_err(|error| Lost {
            reason: deepest(&error),
            maybe_sent: !failed_to_connect(&error),
            too_large: false,
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| {
                let too_large = error.is::<LengthLimitError>();
                Lost {
                    reason: if too_large {
                        format!("the answer is larger than {} MiB", MAX_ANSWER >> 20)
                    } else {
                        format!("the answer broke off: {error}")
                    },
                    maybe_sent: true,
                    too_large,
                }
            })?;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

impl Lost {
    fn never(reason: String) -> Self {
        Self {
            reason,
            maybe_sent: false,
            too_large: false,
        }
    }
}

fn build(
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    agent: &str,
    body: Option<&str>,
) -> Result<Request<OctoBody>, http::Error> {
    let mut builder = Request::builder()
        .method(method)
        .uri(url.as_str())
        .header("x-github-api-version", API_VERSION)
        .header(header::USER_AGENT, agent);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    match body {
        Some(body) => builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_owned().into()),
        None => builder
            .header(header::CONTENT_LENGTH, "0")
            .body(OctoBody::empty()),
    }
}

/// The connection was never made, so nothing can have arrived.
fn failed_to_connect(error: &octocrab::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// octocrab's own sentences carry stack traces; the innermost cause says what happened.
fn deepest(error: &octocrab::Error) -> String {
    let mut text = "no connection".to_owned();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}
