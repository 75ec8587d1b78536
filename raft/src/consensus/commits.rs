//! Fewer append messages: news of a commit rides on the next entries.
//!
//! openraft sends entries, and, once they are committed, a request without entries that says so: half of all messages in
//! a steady stream of writes. Such a one is held for a moment; entries that follow within it carry the same news, and one
//! message less is written, read, decoded, looked at by consensus and answered on both sides. What it costs: a follower
//! applies up to [`COMMIT_HELD`] later what nothing follows. Leaders and their answers wait for nothing.
//!
//! To leave a request out is safe: what it says is a subset of what the later one says, and openraft counts what was
//! acknowledged by log position, not by the number of answers.

use std::{pin::Pin, time::Duration};

use futures::{
    Stream, StreamExt as _,
    stream::{self, Peekable},
};
use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, timeout_at};

use super::types::Types;

/// The longest that news of a commit waits for entries to ride on.
pub(super) const COMMIT_HELD: Duration = Duration::from_millis(2);

type Request = AppendEntriesRequest<Types>;

/// Whether `later` says all that `held`, which has no entries, says.
fn covers(later: &Request, held: &Request) -> bool {
    later.vote == held.vote
        && later.prev_log_id == held.prev_log_id
        && later.leader_commit >= held.leader_commit
}

/// Passes requests on in order, without those that are covered by one which follows within [`COMMIT_HELD`].
///
/// The first request is never held: without entries it asks a follower where its log ends.
pub(super) fn hold_commits<S>(input: Peekable<S>) -> impl Stream<Item = Request>
where
    S: Stream<Item = Request> + Unpin,
{
    stream::unfold((input, true), |(mut input, first)| async move {
        let mut request = input.next().await?;
        // Fixed: a commit after a commit does not put it off.
        let until = Instant::now() + COMMIT_HELD;
        while !first && request.entries.is_empty() {
            let covering = Pin::new(&mut input).next_if(|later| covers(later, &request));
            match timeout_at(until, covering).await {
                Ok(Some(later)) => request = later,
                // Something else comes next, or the end, or nothing for so long.
                Ok(None) | Err(_) => break,
            }
        }
        Some((request, (input, false)))
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use openraft::EntryPayload;
    use tokio::{sync::mpsc, time::advance};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::{
        super::types::{Entry, Vote, log_id_from_wal},
        *,
    };
    use crate::wal::LogId;

    fn id(index: u64) -> super::super::types::LogId {
        log_id_from_wal(LogId {
            term: 1,
            node_id: 1,
            index,
        })
    }

    /// Entries after `prev` up to and with `last`.
    fn request(prev: u64, last: u64, commit: u64) -> Request {
        Request {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(id(prev)),
            entries: (prev + 1..=last)
                .map(|index| Entry {
                    log_id: id(index),
                    payload: EntryPayload::Blank,
                })
                .collect(),
            leader_commit: Some(id(commit)),
        }
    }

    struct Pipe {
        to: Option<mpsc::UnboundedSender<Request>>,
        from: stream::BoxStream<'static, Request>,
    }

    impl Pipe {
        /// After a first request, which is passed on at once.
        fn new() -> Self {
            let (to, from) = mpsc::unbounded_channel();
            let mut pipe = Self {
                to: Some(to),
                from: hold_commits(UnboundedReceiverStream::new(from).peekable()).boxed(),
            };
            pipe.send(request(4, 4, 3));
            assert_eq!(pipe.now(), "4..4 commits 3");
            pipe
        }

        fn send(&self, request: Request) {
            self.to.as_ref().unwrap().send(request).unwrap();
        }

        /// What comes without time passing.
        fn now(&mut self) -> String {
            match self.from.next().now_or_never() {
                None => "nothing".to_owned(),
                Some(None) => "the end".to_owned(),
                Some(Some(request)) => {
                    let prev = request.prev_log_id.unwrap().index;
                    let last = prev + request.entries.len() as u64;
                    let commit = request.leader_commit.unwrap().index;
                    format!("{prev}..{last} commits {commit}")
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_are_never_held() {
        let mut pipe = Pipe::new();
        pipe.send(request(4, 6, 4));
        assert_eq!(pipe.now(), "4..6 commits 4");
        pipe.send(request(6, 7, 4));
        assert_eq!(pipe.now(), "6..7 commits 4");
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_rides_on_the_entries_that_follow() {
        let mut pipe = Pipe::new();
        pipe.send(request(4, 4, 4));
        assert_eq!(pipe.now(), "nothing");
        pipe.send(request(4, 5, 4));
        assert_eq!(pipe.now(), "4..5 commits 4");
        advance(COMMIT_HELD * 2).await;
        assert_eq!(pipe.now(), "nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_nothing_follows_is_told_after_a_moment_that_others_do_not_put_off() {
        let mut pipe = Pipe::new();
        pipe.send(request(9, 9, 7));
        assert_eq!(pipe.now(), "nothing");
        advance(COMMIT_HELD * 3 / 4).await;
        pipe.send(request(9, 9, 8));
        assert_eq!(pipe.now(), "nothing");
        advance(COMMIT_HELD * 3 / 4).await;
        assert_eq!(pipe.now(), "9..9 commits 8");
        assert_eq!(pipe.now(), "nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_next_request_does_not_say_is_sent_before_it() {
        for next in [
            request(5, 6, 4),
            request(4, 5, 3),
            Request {
                vote: Vote::new_committed(2, 2),
                ..request(4, 5, 4)
            },
        ] {
            let mut pipe = Pipe::new();
            pipe.send(request(4, 4, 4));
            assert_eq!(pipe.now(), "nothing");
            pipe.send(next.clone());
            assert_eq!(pipe.now(), "4..4 commits 4");
            let prev = next.prev_log_id.unwrap().index;
            assert!(pipe.now().starts_with(&format!("{prev}..{} ", prev + 1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_holds_nothing_back() {
        let mut pipe = Pipe::new();
        pipe.send(request(4, 4, 4));
        assert_eq!(pipe.now(), "nothing");
        pipe.to = None;
        assert_eq!(pipe.now(), "4..4 commits 4");
        assert_eq!(pipe.now(), "the end");
    }
}
