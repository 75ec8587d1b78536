//! REST: exactly what the product calls, in GitHub's paths, codes and shapes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Response, header};

use crate::engine::Engine;
use crate::forge::Refusal;

pub(crate) fn router() -> Router<Arc<Engine>> {
    Router::new().route("/healthz", get(|| async { "ok" }))
}

/// An error as GitHub answers it.
pub(crate) fn answer_refusal(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::from(refusal.body().to_string()));
    *response.status_mut() = http::StatusCode::from_u16(refusal.status)
        .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let json = header::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

pub(crate) fn secondary_limit(_retry_after_seconds: u64) -> Response<Body> {
    answer_refusal(&Refusal::forbidden(""))
}

pub(crate) fn primary_limit(
    _engine: &Engine,
    _actor: Option<&str>,
    _reset_in_seconds: u64,
) -> Response<Body> {
    answer_refusal(&Refusal::forbidden(""))
}
