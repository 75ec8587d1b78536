//! A delivery's body out of the record, and what former deliveries say.

use std::io::Read as _;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use trireme_forge::RepoId;
use trireme_forge::webhook::GenericComment;
use trireme_proto::state::Delivery;
use trireme_state::State;
use trireme_state::limits::MAX_DELIVERY;

/// Deliveries that are looked through for pushes, newest first.
const MAX_LOOKED_THROUGH: usize = 100_000;
/// How far the forge's clock may be ahead of ours.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// A payload that cannot be read; the delivery is then nobody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the payload's blob is not in the state")]
    NoBlob,
    #[error("the payload does not decompress: {0}")]
    Compressed(String),
    #[error("the payload has more than {MAX_DELIVERY} bytes")]
    TooLarge,
    #[error("{0}")]
    Event(String),
    #[error("what reads it panicked")]
    Panicked,
}

/// The body as the forge sent it.
pub(crate) fn payload(state: &State, delivery: &Delivery) -> Result<Bytes, Unreadable> {
    let packed = match &delivery.blob {
        Some(blob) => state.blob(&blob.sha256).ok_or(Unreadable::NoBlob)?,
        None => vec![delivery.payload_zstd.clone()],
    };
    let packed = packed.concat();
    let broken = |error: std::io::Error| Unreadable::Compressed(error.to_string());
    let mut body = Vec::new();
    zstd::stream::Decoder::new(packed.as_slice())
        .map_err(broken)?
        .take(MAX_DELIVERY + 1)
        .read_to_end(&mut body)
        .map_err(broken)?;
    if body.len() as u64 > MAX_DELIVERY {
        return Err(Unreadable::TooLarge);
    }
    Ok(body.into())
}

/// What of a push to a pull request matters here.
#[derive(Deserialize)]
struct Push {
    before: String,
    pull_request: Moved,
}

#[derive(Deserialize)]
struct Moved {
    updated_at: Timestamp,
}

/// The head that a comment was written on, if pushes since are known.
pub(crate) fn head_then(state: &State, comment: &GenericComment) -> Option<String> {
    let (repo, number, written) = (&comment.repo, comment.number, comment.written?);
    let known = state.pull_request(&repo.org, &repo.repo, number)?;
    // Nothing is known of it since: so are no pushes.
    if known.updated_ms <= written.as_millisecond() {
        return None;
    }
    head_at(state, repo, number, written)
}

/// The head that a pull request had at a time, if webhooks of later pushes are known: what the first of them replaced.
fn head_at(state: &State, repo: &RepoId, number: u64, at: Timestamp) -> Option<String> {
    let from = at.saturating_sub(CLOCK_SLACK).unwrap_or(at);
    let pushes = state
        .deliveries_newest_first(None)
        .take(MAX_LOOKED_THROUGH)
        .take_while(|delivery| delivery.received_ms >= from.as_millisecond())
        .filter(|delivery| {
            delivery.event == "pull_request"
                && delivery.action == "synchronize"
                && (
                    delivery.org.as_str(),
                    delivery.repo.as_str(),
                    delivery.number,
                ) == (repo.org.as_str(), repo.repo.as_str(), number)
        })
        .filter_map(|delivery| {
            let body = payload(state, delivery).ok()?;
            serde_json::from_slice::<Push>(&body).ok()
        })
        .filter(|push| push.pull_request.updated_at > at);
    pushes
        .min_by_key(|push| push.pull_request.updated_at)
        .map(|push| push.before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(guid: &str, body: &[u8]) -> Delivery {
        Delivery {
            guid: guid.to_owned(),
            payload_zstd: zstd::bulk::compress(body, 1).unwrap().into(),
            ..Delivery::default()
        }
    }

    #[test]
    fn payloads_come_out_of_the_record_within_bounds() {
        let state = State::new();
        assert_eq!(payload(&state, &delivery("a", b"{}")).unwrap(), "{}");
        let torn = Delivery {
            payload_zstd: Bytes::from_static(b"no zstd"),
            ..Delivery::default()
        };
        assert!(matches!(
            payload(&state, &torn),
            Err(Unreadable::Compressed(_))
        ));
        let huge = vec![b' '; usize::try_from(MAX_DELIVERY).unwrap() + 1];
        assert_eq!(
            payload(&state, &delivery("a", &huge)),
            Err(Unreadable::TooLarge)
        );
        let lost = Delivery {
            blob: Some(trireme_proto::state::BlobRef::default()),
            ..Delivery::default()
        };
        assert_eq!(payload(&state, &lost), Err(Unreadable::NoBlob));
    }
}
