//! Calls to others than the forge: plugins elsewhere, and services that are told or asked something. Bounded in time and
//! size, without redirects.
//!
//! Here stand the client ([`Outside`]) and what is known of single services ([`slack`], [`jira`]). Here never stand when
//! or what to tell, nor trying again.

pub mod jira;
pub mod service;
pub mod slack;

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const MAX_ANSWER: usize = 8 << 20;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
#[error("no HTTPS client: {0}")]
pub struct NoClient(String);

/// A connection pool. Clones share it.
#[derive(Debug, Clone)]
pub struct Outside {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Nothing usable came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutsideError {
    /// It can never be sent: the address or a header is none.
    #[error("{0}")]
    Impossible(String),
    /// No answer, or none that can be read; it may have been received.
    #[error("{0}")]
    Unreachable(String),
}

impl Outside {
    /// # Errors
    /// [`NoClient`] if the system has no root certificates.
    pub fn new() -> Result<Self, NoClient> {
        let provider = rustls::crypto::ring::default_provider();
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|error| NoClient(error.to_string()))?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = tls.https_or_http().enable_http1().wrap_connector(http);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Sends one request and reads the answer, whatever its status.
    ///
    /// # Errors
    /// [`OutsideError`] without an answer within `within`.
    pub async fn send(
        &self,
        method: Method,
        address: &str,
        headers: HeaderMap,
        body: Bytes,
        within: Duration,
    ) -> Result<OutsideAnswer, OutsideError> {
        let impossible = |why: String| OutsideError::Impossible(format!("{address}: {why}"));
        let uri: Uri = address
            .parse()
            .map_err(|error: http::uri::InvalidUri| impossible(error.to_string()))?;
        let is_web = |scheme: &str| scheme == "http" || scheme == "https";
        if !uri.scheme_str().is_some_and(is_web) || uri.host().is_none() {
            return Err(impossible(
                "expected http:// or https:// and a host".to_owned(),
            ));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let exchange = async {
            let unreachable = |why: String| OutsideError::Unreachable(format!("{address}: {why}"));
            let answer = self.client.request(request).await.map_err(|error| {
                let cause = error.source().map(ToString::to_string);
                unreachable(cause.unwrap_or_else(|| error.to_string()))
            })?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| unreachable(format!("the answer: {error}")))?;
            Ok(OutsideAnswer {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(OutsideError::Unreachable(format!(
                "{address}: no answer within {} s",
                within.as_secs()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_address_is_never_sent_to() {
        let outside = Outside::new().unwrap();
        for (address, expected) in [
            (
                "cherrypicker",
                "cherrypicker: expected http:// or https:// and a host",
            ),
            (
                "ftp://x/",
                "ftp://x/: expected http:// or https:// and a host",
            ),
            ("http://a b/", "http://a b/: invalid uri character"),
        ] {
            let second = Duration::from_secs(1);
            let sent = outside.send(
                Method::POST,
                address,
                HeaderMap::new(),
                Bytes::new(),
                second,
            );
            assert_eq!(sent.await.unwrap_err().to_string(), expected);
        }
    }
}
