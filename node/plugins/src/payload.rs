//! A delivery's body out of the record, and what former deliveries say.

use std::io::Read as _;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use trireme_forge::webhook::GenericComment;
use trireme_forge::{PullRequest, RepoId};
use trireme_proto::state::Delivery;
use trireme_state::State;
use trireme_state::limits::MAX_DELIVERY;

use crate::plugin::{PlanError, Planning};

/// Deliveries that are looked through for pushes, newest first.
const MAX_LOOKED_THROUGH: usize = 100_000;
/// How far the forge's clock may be ahead of ours.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);
/// For so long deliveries are in memory, handled ones included.
const KEPT: SignedDuration = SignedDuration::from_hours(20);
/// What is answered to a command that was meant for a former head.
const PUSHED_SINCE: &str =
    "new commits were pushed after this comment. Comment again if it holds for them too.";
/// What is answered to one for which that cannot be told any more.
const TOO_LATE: &str = "this came to be known too late to tell which commits it was meant for. Comment again if it holds for the present ones.";

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

/// The head that a text was written on, as far as can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum HeadThen {
    /// This one.
    Told(String),
    /// No push since is known: that of now.
    Now,
    /// It is so long ago that the webhooks of pushes since may be gone.
    Forgotten,
}

/// What a text says of the head that it was written on, or the webhooks of pushes since.
///
/// # Errors
/// [`PlanError::NotYet`] if it came late and only now: what was lost with it may come yet.
fn head_then(cx: &Planning<'_>, comment: &GenericComment) -> Result<HeadThen, PlanError> {
    if let Some(head) = &comment.head {
        return Ok(HeadThen::Told(head.clone()));
    }
    let Some(written) = comment.written else {
        return Ok(HeadThen::Now);
    };
    if cx.is_late(written) {
        cx.settled_for(cx.round)?;
    }
    if cx.now.duration_since(written) > KEPT {
        return Ok(HeadThen::Forgotten);
    }
    Ok(head_at(cx.state, &comment.repo, comment.number, written))
}

/// What to answer to a command that is not meant for the head of now; `None` if it is. The pull request is read if it is
/// not `read` yet.
///
/// # Errors
/// The forge could not tell, or [`PlanError::NotYet`] while webhooks may come that tell of a push.
pub(crate) async fn not_for_now(
    cx: &Planning<'_>,
    comment: &GenericComment,
    read: &mut Option<PullRequest>,
) -> Result<Option<&'static str>, PlanError> {
    let then = head_then(cx, comment)?;
    if then == HeadThen::Forgotten {
        return Ok(Some(TOO_LATE));
    }
    let (repo, number) = (&comment.repo, comment.number);
    let pr = match read.take() {
        Some(pr) => pr,
        None => cx.forge.pull_request(repo, number).await?,
    };
    let now = &read.insert(pr).head.sha;
    if let HeadThen::Told(then) = then {
        return Ok((then != *now).then_some(PUSHED_SINCE));
    }
    let known = cx.state.pull_request(&repo.org, &repo.repo, number);
    if known.is_none_or(|known| known.head_sha == *now) {
        return Ok(None);
    }
    // The forge shows a push of which no webhook has told yet: before the text or after it.
    cx.settled_for(cx.round)?;
    Ok(Some(PUSHED_SINCE))
}

/// The head that a pull request had at a time: what the first of the later pushes replaced.
fn head_at(state: &State, repo: &RepoId, number: u64, at: Timestamp) -> HeadThen {
    let from = at.saturating_sub(AHEAD).unwrap_or(at);
    let (mut looked_through, mut first) = (0, None::<Push>);
    let since = state
        .deliveries_newest_first(None)
        .take_while(|delivery| delivery.received_ms >= from.as_millisecond());
    for delivery in since {
        looked_through += 1;
        if looked_through > MAX_LOOKED_THROUGH {
            return HeadThen::Forgotten;
        }
        if let Some(push) = push(state, delivery, repo, number)
            && push.pull_request.updated_at > at
            && first
                .as_ref()
                .is_none_or(|first| push.pull_request.updated_at < first.pull_request.updated_at)
        {
            first = Some(push);
        }
    }
    first.map_or(HeadThen::Now, |push| HeadThen::Told(push.before))
}

fn push(state: &State, delivery: &Delivery, repo: &RepoId, number: u64) -> Option<Push> {
    let is_push = delivery.event == "pull_request"
        && delivery.action == "synchronize"
        && delivery.number == number
        && delivery.org == repo.org
        && delivery.repo == repo.repo;
    if !is_push {
        return None;
    }
    serde_json::from_slice(&payload(state, delivery).ok()?).ok()
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
