//! How services with an API over HTTP fail, told apart by what the caller can do about it.

use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, header};

use crate::{OutsideAnswer, OutsideError};

/// Bytes of an answer that are told.
const MAX_TOLD: usize = 1000;

/// Asked at each use, so that a secret that was replaced counts at once.
pub type Secret = Arc<dyn Fn() -> String + Send + Sync>;

/// Why a service did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Passes by itself: no answer, a 5xx, or too many requests. What was asked may have been done.
    #[error("{0}")]
    Unavailable(String, Option<Duration>),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// For good.
    #[error("{0}")]
    Refused(String),
}

impl From<OutsideError> for ServiceError {
    fn from(error: OutsideError) -> Self {
        match error {
            OutsideError::Impossible(why) => Self::Refused(why),
            OutsideError::Unreachable(why) => Self::Unavailable(why, None),
        }
    }
}

/// The answer if it is one of success.
pub(crate) fn taken(what: &str, answer: OutsideAnswer) -> Result<OutsideAnswer, ServiceError> {
    let status = answer.status;
    if status.is_success() {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let text = &text[..text.floor_char_boundary(MAX_TOLD)];
    let why = format!("{what}: {status}: {text}");
    let seconds = answer.headers.get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
    Err(match status {
        StatusCode::NOT_FOUND => ServiceError::NotFound(why),
        StatusCode::TOO_MANY_REQUESTS => {
            ServiceError::Unavailable(why, seconds.map(Duration::from_secs))
        }
        status if status.is_server_error() => ServiceError::Unavailable(why, None),
        _ => ServiceError::Refused(why),
    })
}
