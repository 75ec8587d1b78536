//! The listener: faults, rate of answers, cut connections, and the record of calls. What is served stands in
//! `rest`, `graphql`, `smart_http`, `pages` and `admin`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::response::IntoResponse;
use axum::{BoxError, Router};
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::engine::Engine;
use crate::exchange::{Exchange, MAX_RECORDED_BODY};
use crate::faults::CallEffect;
use crate::forge::Refusal;
use crate::log::Logged;
use crate::rest::{answer_refusal, primary_limit, secondary_limit};

/// Bytes of a request's body: packs of pushes are the largest.
const MAX_REQUEST_BODY: usize = 64 << 20;
/// Path of the sandbox's own controls, beyond faults and log.
pub(crate) const ADMIN: &str = "/_sandbox";

/// Who signed in with the request, if anybody.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Option<String>);

/// The connection is cut instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cut by a fault")]
pub struct Cut;

/// Everything that is served.
pub(crate) fn router(engine: &Arc<Engine>) -> Router {
    Router::new()
        .merge(crate::rest::router(engine))
        .merge(crate::graphql::router())
        .merge(crate::smart_http::router())
        .merge(crate::admin::router())
        .merge(crate::pages::router())
        .fallback(|| async { Refusal::not_found() })
        .with_state(engine.clone())
}

/// Accepts connections until told to stop; those open then are dropped.
pub(crate) async fn serve(listener: TcpListener, engine: Arc<Engine>, stop: CancellationToken) {
    let router = router(&engine);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely; the next accept may do.
                tracing::warn!(%error, "the sandbox cannot accept a connection");
                tokio::task::yield_now().await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (engine, router, stop) = (engine.clone(), router.clone(), stop.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                handle(engine.clone(), router.clone(), request)
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::trace!(error = %error, "a connection ended with an error");
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

pub(crate) async fn handle<B>(
    engine: Arc<Engine>,
    router: Router,
    request: Request<B>,
) -> Result<Response<Body>, Cut>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // What a call does is not undone by the caller hanging up.
    let task = tokio::spawn(answer(engine, router, request));
    task.await.unwrap_or(Err(Cut))
}

async fn answer<B>(
    engine: Arc<Engine>,
    router: Router,
    request: Request<B>,
) -> Result<Response<Body>, Cut>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().map(str::to_owned);
    let path = path.strip_prefix("/api/v3").unwrap_or(&path).to_owned();
    let caller = sign_in(&engine, request.headers());
    let actor = caller.as_ref().ok().cloned().flatten();
    let admin = path.starts_with(ADMIN);
    let effect = if admin {
        None
    } else {
        engine.faults.for_call(&method, &path, actor.as_deref())
    };
    if let Some(effect) = &effect {
        engine.log(Logged::Fault {
            effect: format!("{effect:?}"),
            on: format!("{method} {path}"),
        });
    }
    let called = |status: u16| {
        if !admin {
            engine.log(Logged::Call {
                method: method.clone(),
                path: path.clone(),
                actor: actor.clone(),
                status,
            });
        }
    };
    match &effect {
        Some(CallEffect::Latency { millis }) => {
            tokio::time::sleep(CallEffect::delay(*millis)).await
        }
        Some(CallEffect::Refused) => {
            called(0);
            return Err(Cut);
        }
        Some(CallEffect::Status { code }) => {
            called(*code);
            return Ok(failure(*code));
        }
        Some(CallEffect::SecondaryRateLimit {
            retry_after_seconds,
        }) => {
            called(403);
            return Ok(secondary_limit(*retry_after_seconds));
        }
        Some(CallEffect::PrimaryRateLimit { reset_in_seconds }) => {
            called(403);
            return Ok(primary_limit(&engine, actor.as_deref(), *reset_in_seconds));
        }
        _ => {}
    }
    let response = match caller {
        Ok(actor) => run(&engine, router, request, &path, query, Caller(actor)).await,
        Err(refusal) => answer_refusal(&refusal),
    };
    match effect {
        Some(CallEffect::AnswerLost) => {
            called(0);
            return Err(Cut);
        }
        Some(CallEffect::AnswerDelayed { millis }) => {
            tokio::time::sleep(CallEffect::delay(millis)).await;
        }
        Some(CallEffect::AnswerHeld { barrier }) => engine.faults.barrier(&barrier).hold().await,
        _ => {}
    }
    called(response.status().as_u16());
    Ok(response)
}

async fn run<B>(
    engine: &Arc<Engine>,
    router: Router,
    request: Request<B>,
    path: &str,
    query: Option<String>,
    caller: Caller,
) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    let limited = http_body_util::Limited::new(body, MAX_REQUEST_BODY);
    let body = match limited.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let refusal = Refusal::bad_request(format!("Problems reading the request: {error}"));
            return answer_refusal(&refusal);
        }
    };
    let exchange = engine
        .record_exchanges
        .then(|| half_exchange(&parts, path, query.clone(), &body));
    let target = match &query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if let Ok(uri) = target.parse() {
        parts.uri = uri;
    }
    parts.extensions.insert(caller);
    let request = Request::from_parts(parts, Body::from(body));
    let response: Result<_, Infallible> = router.oneshot(request).await;
    let response = response.into_response();
    match exchange {
        None => response,
        Some(exchange) => whole_exchange(engine, exchange, response).await,
    }
}

fn half_exchange(
    parts: &http::request::Parts,
    path: &str,
    query: Option<String>,
    body: &Bytes,
) -> Exchange {
    Exchange {
        method: parts.method.as_str().to_owned(),
        path: path.to_owned(),
        query,
        request_headers: pairs(&parts.headers),
        request_body: if body.len() > MAX_RECORDED_BODY {
            Bytes::new()
        } else {
            body.clone()
        },
        status: 0,
        response_headers: Vec::new(),
        response_body: Bytes::new(),
    }
}

async fn whole_exchange(
    engine: &Engine,
    mut exchange: Exchange,
    response: Response<Body>,
) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            tracing::warn!(%error, "an answer broke off while it was recorded");
            return Response::from_parts(parts, Body::empty());
        }
    };
    exchange.status = parts.status.as_u16();
    exchange.response_headers = pairs(&parts.headers);
    if body.len() <= MAX_RECORDED_BODY {
        exchange.response_body = body.clone();
    }
    engine.record_exchange(exchange);
    Response::from_parts(parts, Body::from(body))
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| *name != header::AUTHORIZATION)
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

/// `Authorization: token …`, `Bearer …` or, as git does, `Basic` with the token as password.
fn sign_in(engine: &Engine, headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| Refusal::bad_credentials())?;
    let (scheme, credentials) = value.split_once(' ').ok_or_else(Refusal::bad_credentials)?;
    let token = match scheme.to_ascii_lowercase().as_str() {
        "token" | "bearer" => credentials.trim().to_owned(),
        "basic" => base64::engine::general_purpose::STANDARD
            .decode(credentials.trim())
            .ok()
            .and_then(|pair| String::from_utf8(pair).ok())
            .and_then(|pair| {
                pair.split_once(':')
                    .map(|(_, password)| password.to_owned())
            })
            .ok_or_else(Refusal::bad_credentials)?,
        _ => return Err(Refusal::bad_credentials()),
    };
    match engine.login_of(&token) {
        Some(login) => Ok(Some(login)),
        None => Err(Refusal::bad_credentials()),
    }
}

/// A failure of GitHub's own, as its edge answers it.
fn failure(code: u16) -> Response<Body> {
    let refusal = Refusal {
        status: code,
        message: match code {
            502 => "Server Error",
            503 => "Service unavailable",
            504 => "We couldn't respond to your request in time. Sorry about that.",
            _ => "Server Error",
        }
        .into(),
        errors: Vec::new(),
    };
    answer_refusal(&refusal)
}
