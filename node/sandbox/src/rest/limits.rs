//! Rate limits and conditional requests: every answer says what is left, one that has not changed costs nothing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use jiff::SignedDuration;
use sha2::{Digest, Sha256};

use super::{Answer, answer_refusal};
use crate::engine::{Engine, Rate};
use crate::forge::Refusal;
use crate::server::Caller;

/// Counts the call, tags what is read, and answers 304 when the caller has it already.
pub(super) async fn count_and_tag(
    State(engine): State<Arc<Engine>>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Answer {
    let login = caller.0.as_deref();
    let free = request.uri().path() == "/rate_limit";
    let resource = if request.uri().path().starts_with("/search/") {
        "search"
    } else {
        "core"
    };
    let (rate, _) = engine.spend(login, resource, 0);
    if rate.remaining() == 0 && !free {
        let reset = rate.reset.duration_since(engine.clock.now()).as_secs();
        let seconds = u64::try_from(reset).unwrap_or(0);
        return Ok(primary_limit(&engine, login, seconds));
    }
    let is_get = request.method() == Method::GET;
    let had = request.headers().get(header::IF_NONE_MATCH).cloned();
    let mut response = next.run(request).await;
    if is_get && response.status() == StatusCode::OK {
        response = tag(response, had.as_ref()).await?;
    }
    let cost = u64::from(!free && response.status() != StatusCode::NOT_MODIFIED);
    let (rate, _) = engine.spend(login, resource, cost);
    tell(&mut response, rate, resource);
    Ok(response)
}

/// Adds an `ETag`, or turns the answer into a 304.
async fn tag(response: Response<Body>, had: Option<&HeaderValue>) -> Answer {
    let (mut parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| Refusal::internal(format!("an answer broke off: {error}")))?
        .to_bytes();
    let tag = format!("W/\"{}\"", hex::encode(Sha256::digest(&body)));
    let same = had.and_then(|had| had.to_str().ok()).is_some_and(|had| {
        had.split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag.trim_start_matches("W/"))
    });
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    let cache = HeaderValue::from_static("private, max-age=60, s-maxage=60");
    parts.headers.insert(header::CACHE_CONTROL, cache);
    if same {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Adds the `X-RateLimit-*` headers.
pub(crate) fn tell(response: &mut Response<Body>, rate: Rate, resource: &'static str) {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(rate.limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(rate.remaining()));
    headers.insert("x-ratelimit-used", HeaderValue::from(rate.used));
    headers.insert(
        "x-ratelimit-reset",
        HeaderValue::from(rate.reset.as_second()),
    );
    headers.insert("x-ratelimit-resource", HeaderValue::from_static(resource));
    headers.insert(
        "x-github-media-type",
        HeaderValue::from_static("github.v3; format=json"),
    );
}

/// GitHub's answer to a burst.
pub(crate) fn secondary_limit(retry_after_seconds: u64) -> Response<Body> {
    let mut response = answer_refusal(&Refusal::forbidden(
        "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. If you reach out \
         to GitHub Support for help, please include the request ID and timestamp.",
    ));
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    response
}

/// GitHub's answer when the hour's budget is used up.
pub(crate) fn primary_limit(
    engine: &Engine,
    actor: Option<&str>,
    reset_in_seconds: u64,
) -> Response<Body> {
    let (rate, _) = engine.spend(actor, "core", 0);
    let seconds = SignedDuration::from_secs(i64::try_from(reset_in_seconds).unwrap_or(i64::MAX));
    let now = engine.clock.now();
    let rate = Rate {
        used: rate.limit,
        reset: now.saturating_add(seconds).unwrap_or(now),
        ..rate
    };
    let message = match actor.and_then(|login| {
        engine.read(|forge| forge.account(login).ok().map(|account| account.id))
    }) {
        Some(id) => format!("API rate limit exceeded for user ID {id}."),
        None => "API rate limit exceeded for 127.0.0.1. (But here's the good news: Authenticated requests get a \
                 higher rate limit. Check out the documentation for more details.)"
            .to_owned(),
    };
    let mut response = answer_refusal(&Refusal::forbidden(message));
    tell(&mut response, rate, "core");
    response
}
