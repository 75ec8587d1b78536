//! The changes of the newest entries, for watchers.
//!
//! The changes of one log entry are one batch, never split; revisions strictly increase. A bounded ring holds the
//! newest; who asks for older ones, or was left behind, lists again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prost::Message as _;
use tokio::sync::watch;
use trireme_state::Change;

/// Memory that a batch takes beyond its records, roughly.
const BATCH_OVERHEAD: usize = 128;
/// Memory that a change takes beyond its record, roughly.
const CHANGE_OVERHEAD: usize = 48;

/// Bounds of the ring.
#[derive(Debug, Clone)]
pub struct FeedOptions {
    pub ring_bytes: usize,
    pub ring_batches: usize,
    /// A watcher that had caught up and then is this many bytes behind is closed. More than what is published at once.
    pub lag_bytes: u64,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 64 << 20,
            ring_batches: 100_000,
            lag_bytes: 32 << 20,
        }
    }
}

/// What one log entry changed.
#[derive(Debug, PartialEq)]
pub struct Changes {
    pub revision: u64,
    /// Milliseconds since the Unix epoch.
    pub stamp_ms: i64,
    /// One per record; never empty.
    pub changes: Vec<Change>,
    bytes: usize,
}

impl Changes {
    pub(crate) fn new(revision: u64, stamp_ms: i64, changes: Vec<Change>) -> Self {
        let bytes = changes
            .iter()
            .map(|change| CHANGE_OVERHEAD + record_bytes(change))
            .sum::<usize>()
            + BATCH_OVERHEAD;
        Self {
            revision,
            stamp_ms,
            changes,
            bytes,
        }
    }
}

fn record_bytes(change: &Change) -> usize {
    match change {
        Change::Job(record) => record.encoded_len(),
        Change::PullRequest(record) => record.encoded_len(),
        Change::Pool(record) => record.encoded_len(),
        Change::Intent(record) => record.encoded_len(),
        Change::Delivery(record) => record.encoded_len(),
        Change::Plan(record) => record.encoded_len(),
        Change::Report(record) => record.encoded_len(),
        Change::Config(record) => record.encoded_len(),
        Change::Agent(record) => record.encoded_len(),
        Change::Office(record) => record.encoded_len(),
        Change::Timer(record) => record.encoded_len(),
        Change::Cursor(record) => record.encoded_len(),
        Change::Alarm(record) => record.encoded_len(),
        Change::Audit(record) => record.encoded_len(),
        Change::Token(record) => record.encoded_len(),
        Change::FeatureLevel(_) | Change::Removed(_) => CHANGE_OVERHEAD,
    }
}

/// Why a watch ended. The watcher lists again and starts a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    #[error("changes after this revision are no longer kept: list again")]
    Compacted,
    #[error("the watcher is too far behind: list again")]
    Lagging,
    #[error("the store is closed")]
    Closed,
}

#[derive(Debug)]
pub(crate) struct Feed {
    ring: Arc<Mutex<Ring>>,
    /// Bumped with every batch; closing it ends the watches.
    head: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    batches: VecDeque<Arc<Changes>>,
    bytes: usize,
    /// Position of the first of `batches` among all ever pushed.
    first: u64,
    /// Bytes ever pushed.
    pushed_bytes: u64,
    /// Changes up to this revision are not in the ring.
    compacted: u64,
    /// Changed when a snapshot replaces the state.
    generation: u64,
    options: FeedOptions,
}

impl Feed {
    /// Holds what comes after `revision`.
    pub(crate) fn new(revision: u64, options: FeedOptions) -> Self {
        Self {
            ring: Arc::new(Mutex::new(Ring {
                batches: VecDeque::new(),
                bytes: 0,
                first: 0,
                pushed_bytes: 0,
                compacted: revision,
                generation: 0,
                options,
            })),
            head: watch::Sender::new(0),
        }
    }

    pub(crate) fn push(&self, batches: impl IntoIterator<Item = Changes>) {
        let mut ring = held(&self.ring);
        let before = ring.pushed_bytes;
        for batch in batches {
            ring.bytes += batch.bytes;
            ring.pushed_bytes += batch.bytes as u64;
            ring.batches.push_back(Arc::new(batch));
        }
        while ring.bytes > ring.options.ring_bytes || ring.batches.len() > ring.options.ring_batches
        {
            let Some(gone) = ring.batches.pop_front() else {
                break;
            };
            ring.bytes -= gone.bytes;
            ring.first += 1;
            ring.compacted = gone.revision;
        }
        let changed = ring.pushed_bytes != before;
        let head = ring.head();
        drop(ring);
        if changed {
            self.head.send_replace(head);
        }
    }

    /// A snapshot replaced the state: what lies between is unknown.
    pub(crate) fn reset(&self, revision: u64) {
        let mut ring = held(&self.ring);
        ring.first += ring.batches.len() as u64;
        ring.batches.clear();
        ring.bytes = 0;
        ring.compacted = revision;
        ring.generation += 1;
        let head = ring.head();
        drop(ring);
        self.head.send_replace(head);
    }

    /// Bytes of changes kept, and how many may be.
    pub(crate) fn kept_bytes(&self) -> (u64, u64) {
        let ring = held(&self.ring);
        (ring.bytes as u64, ring.options.ring_bytes as u64)
    }

    /// Changes after `after`; None = from now on.
    pub(crate) fn watch(&self, after: Option<u64>) -> Watch {
        let head = self.head.subscribe();
        let ring = held(&self.ring);
        let next = match after {
            None => ring.head(),
            // Next to nothing is behind position 0: the first call finds out.
            Some(after) if after < ring.compacted => 0,
            Some(after) => {
                ring.first
                    + ring
                        .batches
                        .partition_point(|batch| batch.revision <= after)
                        as u64
            }
        };
        Watch {
            compacted: after.is_some_and(|after| after < ring.compacted),
            ring: Arc::clone(&self.ring),
            head,
            next,
            after: after.unwrap_or(0),
            generation: ring.generation,
            caught_up_bytes: None,
        }
    }
}

impl Ring {
    fn head(&self) -> u64 {
        self.first + self.batches.len() as u64
    }
}

fn held(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows the changes. Dropping it costs nothing.
#[derive(Debug)]
pub struct Watch {
    ring: Arc<Mutex<Ring>>,
    head: watch::Receiver<u64>,
    next: u64,
    after: u64,
    generation: u64,
    compacted: bool,
    /// Bytes pushed when this watcher last had everything.
    caught_up_bytes: Option<u64>,
}

impl Watch {
    /// The next batch; waits for one. After an error the watch stays ended. Safe to cancel.
    pub async fn next(&mut self) -> Result<Arc<Changes>, WatchError> {
        loop {
            if let Some(batch) = self.take()? {
                return Ok(batch);
            }
            if self.head.changed().await.is_err() {
                // What was pushed before the end is still delivered.
                return self.take()?.ok_or(WatchError::Closed);
            }
        }
    }

    /// Revision of the last batch delivered, or the one that the watch started after.
    pub fn revision(&self) -> u64 {
        self.after
    }

    fn take(&mut self) -> Result<Option<Arc<Changes>>, WatchError> {
        self.head.borrow_and_update();
        let ring = held(&self.ring);
        if self.compacted || ring.generation != self.generation || self.next < ring.first {
            self.compacted = true;
            return Err(WatchError::Compacted);
        }
        while let Some(batch) = ring.batches.get((self.next - ring.first) as usize) {
            if let Some(had) = self.caught_up_bytes
                && ring.pushed_bytes - had > ring.options.lag_bytes
            {
                return Err(WatchError::Lagging);
            }
            self.next += 1;
            // A resume from a revision that this node had not reached yet.
            if batch.revision <= self.after {
                continue;
            }
            if let Some(had) = &mut self.caught_up_bytes {
                *had += batch.bytes as u64;
            }
            self.after = batch.revision;
            return Ok(Some(Arc::clone(batch)));
        }
        self.caught_up_bytes = Some(ring.pushed_bytes);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64) -> Changes {
        Changes::new(revision, 0, vec![Change::FeatureLevel(1)])
    }

    fn feed(revision: u64, ring_batches: usize) -> Feed {
        Feed::new(
            revision,
            FeedOptions {
                ring_batches,
                ..FeedOptions::default()
            },
        )
    }

    async fn revision(watch: &mut Watch) -> Result<u64, WatchError> {
        watch.next().await.map(|batch| batch.revision)
    }

    #[tokio::test]
    async fn a_watch_resumes_where_it_was() {
        let feed = feed(10, 100);
        feed.push([batch(12), batch(15), batch(16)]);
        let mut watch = feed.watch(Some(12));
        assert_eq!(revision(&mut watch).await, Ok(15));
        assert_eq!(revision(&mut watch).await, Ok(16));
        let mut from_now = feed.watch(None);
        feed.push([batch(20)]);
        assert_eq!(revision(&mut watch).await, Ok(20));
        assert_eq!(revision(&mut from_now).await, Ok(20));
        // A node that is behind its client waits.
        let mut ahead = feed.watch(Some(30));
        feed.push([batch(25), batch(31)]);
        assert_eq!(revision(&mut ahead).await, Ok(31));
    }

    #[tokio::test]
    async fn what_left_the_ring_is_compacted() {
        let feed = feed(10, 2);
        assert_eq!(
            revision(&mut feed.watch(Some(9))).await,
            Err(WatchError::Compacted)
        );
        let mut slow = feed.watch(Some(10));
        feed.push([batch(11), batch(12), batch(13)]);
        assert_eq!(revision(&mut slow).await, Err(WatchError::Compacted));
        assert_eq!(revision(&mut slow).await, Err(WatchError::Compacted));
        assert_eq!(revision(&mut feed.watch(Some(11))).await, Ok(12));
        let mut open = feed.watch(None);
        feed.reset(40);
        assert_eq!(revision(&mut open).await, Err(WatchError::Compacted));
        assert_eq!(
            revision(&mut feed.watch(Some(39))).await,
            Err(WatchError::Compacted)
        );
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_is_closed_but_not_one_that_catches_up() {
        let one = batch(0).bytes as u64;
        let feed = Feed::new(
            0,
            FeedOptions {
                lag_bytes: one * 2,
                ..FeedOptions::default()
            },
        );
        feed.push((1..=9).map(batch));
        let mut late = feed.watch(Some(0));
        for expected in 1..=9 {
            assert_eq!(revision(&mut late).await, Ok(expected));
        }
        feed.push([batch(10), batch(11)]);
        assert_eq!(revision(&mut late).await, Ok(10));
        assert_eq!(revision(&mut late).await, Ok(11));
        // Only now it notices that it has everything.
        let mut waiting = Box::pin(late.next());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        feed.push((12..=14).map(batch));
        assert_eq!(revision(&mut late).await, Err(WatchError::Lagging));
    }

    #[tokio::test]
    async fn closing_the_store_ends_the_watch_after_the_last_batch() {
        let feed = feed(0, 10);
        let mut watch = feed.watch(Some(0));
        feed.push([batch(1)]);
        drop(feed);
        assert_eq!(revision(&mut watch).await, Ok(1));
        assert_eq!(revision(&mut watch).await, Err(WatchError::Closed));
    }
}
