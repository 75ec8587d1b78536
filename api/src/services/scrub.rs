//! Whether what a node has on its disk is still what was written, on demand.

use std::time::Duration;

use futures::{Stream, stream};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};
use tonic::Status;
use trireme_proto::api::ScrubNodeResponse;
use trireme_raft::{ScrubError, Scrubbed, Store};

/// How often whoever waits for a check of files hears how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// A check that somebody waits for.
struct Waiting {
    so_far: watch::Receiver<Scrubbed>,
    checking: JoinHandle<Result<Scrubbed, ScrubError>>,
    ticks: Interval,
}

/// Begins a check of the node's files. Whoever drops the stream ends it.
pub(super) fn scrub(store: Store) -> impl Stream<Item = Result<ScrubNodeResponse, Status>> {
    let (told, so_far) = watch::channel(Scrubbed::default());
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waiting = Waiting {
        so_far,
        // In a task of its own: a client that is slow to read does not hold up the check.
        checking: tokio::spawn(async move { store.scrub_telling(told).await }),
        ticks,
    };
    stream::unfold(Some(waiting), |waiting| async {
        let mut waiting = waiting?;
        tokio::select! {
            biased;
            checked = &mut waiting.checking => {
                let checked = checked.map_err(|why| Status::internal(why.to_string()));
                let last = checked.and_then(|checked| {
                    checked.map(|found| told_of(found, true)).map_err(refused)
                });
                Some((last, None))
            }
            _now = waiting.ticks.tick() => {
                let so_far = waiting.so_far.borrow().clone();
                Some((Ok(told_of(so_far, false)), Some(waiting)))
            }
        }
    })
}

fn told_of(found: Scrubbed, done: bool) -> ScrubNodeResponse {
    ScrubNodeResponse {
        files: found.files,
        of_files: found.of_files,
        bytes: found.bytes,
        of_bytes: found.of_bytes,
        damaged: found.damaged,
        archive_damaged: found.archive.unwrap_or_default(),
        done,
    }
}

fn refused(why: ScrubError) -> Status {
    let message = why.to_string();
    match why {
        ScrubError::NotStarted | ScrubError::Busy => Status::failed_precondition(message),
        ScrubError::GivenUp => Status::unavailable(message),
        ScrubError::Failed(_) => Status::internal(message),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tonic::Code;

    use super::*;
    use crate::trio::alone;

    #[tokio::test(flavor = "multi_thread")]
    async fn files_are_read_and_the_end_is_told() {
        let store = alone(|_| {}).await;
        store.trigger_snapshot().await.unwrap();
        let told: Vec<_> = scrub(store.clone()).collect().await;
        let last = told.last().unwrap().as_ref().unwrap();
        assert!(last.done && last.damaged.is_empty(), "{last:?}");
        // The snapshot and the archive.
        assert_eq!((last.files, last.of_files), (2, 2));
        assert!(last.bytes > 0 && last.bytes == last.of_bytes, "{last:?}");
        // What is not over says so.
        let before = &told[..told.len() - 1];
        assert!(before.iter().flatten().all(|so_far| !so_far.done));
        store.shutdown().await;
        let stopped: Vec<_> = scrub(store).collect().await;
        let refused = stopped.last().unwrap().as_ref().unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
}
