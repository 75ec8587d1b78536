//! The write-ahead log: entries, votes, committed marks, truncations and purges in one stream of records.
//!
//! Segments of [`WalOptions::segment_bytes`], smaller ones on a short disk, are set aside in advance. One thread writes: it
//! drains its queue, makes one write and one fdatasync, then answers in order; so votes and entries never overtake each
//! other. What is appended can be read at once; the newest entries stay in memory, older ones are read from disk. Purging
//! removes whole segments. In a simulation the writer is a task.
//!
//! After a crash the torn end of the last write is cut off. Any other broken record stops the node with an error that
//! names file and offset. Once a write or a sync failed nothing is accepted any more: what such a disk holds is unknown.

mod log;
mod record;
mod recovery;
mod scrub;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64, atomic::Ordering},
    thread::JoinHandle,
};

use tokio::sync::{Semaphore, mpsc};
use trireme_proto::raft as proto;

pub use record::{LogId, Owner};
pub(crate) use scrub::ClosedSegment;
pub use writer::Done;

use self::{
    log::{Log, Piece},
    record::{Kind, MAX_PAYLOAD_BYTES, Record, entry_id},
    writer::{Request, Writer},
};
use crate::{costs::Costs, disk::Disk, host::Host};

/// Requests waiting for the writer, beside their bytes.
const QUEUE_REQUESTS: usize = 1024;
/// One permit of the queue stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// Sizes of the log.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// A new segment starts when this many bytes are full, or fewer on a disk with little room. At least 4 KiB.
    pub segment_bytes: u64,
    /// Bytes that may wait for the disk; more makes the appender wait.
    pub queue_bytes: usize,
    /// Bytes of the newest entries kept in memory, beside those not yet written.
    pub cache_bytes: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            // For followers close behind; who is further behind is read to from the disk.
            cache_bytes: 16 << 20,
        }
    }
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("{doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "the log is damaged: {} at byte {offset}: {what}. Entries that were acknowledged may be lost here, so this node \
         must not go on with them: keep the directory for inspection, and replace the node under a new id with \
         `trireme cluster replace`, or restore its data directory from a backup",
        file.display()
    )]
    Damaged {
        file: PathBuf,
        offset: u64,
        what: String,
    },
    #[error(
        "{} has log format {format}, this version writes format {}: start the version that wrote it",
        file.display(), record::FORMAT
    )]
    Format { file: PathBuf, format: u32 },
    #[error(
        "{} belongs to {found}, but this data directory to {expected}: a log was put into the wrong directory. Put back the \
         right one; if it is lost, move the data directory away and replace the node under a new id with \
         `trireme cluster replace`",
        file.display()
    )]
    Foreign {
        file: PathBuf,
        found: Owner,
        expected: Owner,
    },
    /// A log was begun in this data directory, and is not there.
    #[error(
        "the log is gone: there is no segment in {}, though one was begun there. If it is on a volume of its own, mount that, \
         then start again. Otherwise entries that were acknowledged may be lost here, so this node must not go on: replace it \
         under a new id with `trireme cluster replace`, or restore its data directory from a backup",
        dir.display()
    )]
    Gone { dir: PathBuf },
    #[error("the log's writer thread does not start: {0}")]
    Thread(io::Error),
}

impl WalError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// What the log holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogState {
    pub vote: Option<proto::Vote>,
    pub committed: Option<LogId>,
    /// Everything up to here is gone.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` if there is none.
    pub last: Option<LogId>,
}

/// An open log. The directory must have no other user.
pub struct Wal {
    log: Arc<Mutex<Log>>,
    failure: Arc<Failure>,
    queue: Arc<Semaphore>,
    queue_permits: u32,
    host: Host,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    appended: AtomicU64,
    costs: Arc<Costs>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("state", &self.state()).finish()
    }
}

impl Wal {
    /// Opens or starts the log of `owner` in `dir`, which must exist. Blocks while reading it.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        owner: Owner,
        options: &WalOptions,
    ) -> Result<Self, WalError> {
        Self::open_on(Host::Machine, disk, dir, owner, options)
    }

    /// [`Wal::open`] on any host. On a simulated one this must be called on its runtime.
    pub(crate) fn open_on(
        host: Host,
        disk: Arc<dyn Disk>,
        dir: &Path,
        owner: Owner,
        options: &WalOptions,
    ) -> Result<Self, WalError> {
        let segment_bytes = options.segment_bytes.clamp(4096, u64::from(u32::MAX / 2));
        let found = recovery::recover(&*disk, dir, segment_bytes, options.cache_bytes, &owner)?;
        let log = Arc::new(Mutex::new(found.log));
        let failure = Arc::new(Failure::default());
        let queue_permits = u32::try_from((options.queue_bytes / PERMIT_BYTES).max(1))
            .unwrap_or(u32::MAX)
            .min((Semaphore::MAX_PERMITS / 2) as u32);
        let queue = Arc::new(Semaphore::new(queue_permits as usize));
        let (requests, received) = mpsc::channel(QUEUE_REQUESTS);
        let costs = Arc::new(Costs::default());
        let writer = Writer {
            disk,
            costs: Arc::clone(&costs),
            dir: dir.to_owned(),
            segment_bytes,
            owner,
            log: Arc::clone(&log),
            failure: Arc::clone(&failure),
            queue: Arc::clone(&queue),
            marks: found.marks,
            segment: found.segment,
            path: found.path,
            file: found.file,
            end: found.end,
            synced: found.end,
            zeroed: found.end,
            room: found.room,
            buffer: Vec::new(),
        };
        let writer = match host.world().cloned() {
            None => {
                let thread = std::thread::Builder::new().name("trireme-wal".to_owned());
                let started = thread.spawn(move || writer.run(received));
                Some(started.map_err(WalError::Thread)?)
            }
            Some(world) => {
                tokio::spawn(async move { writer.run_in(&*world, received).await });
                None
            }
        };
        Ok(Self {
            log,
            failure,
            queue,
            queue_permits,
            host,
            requests: Mutex::new(Some(requests)),
            writer: Mutex::new(writer),
            appended: AtomicU64::new(found.bytes),
            costs,
        })
    }

    /// Whether a log was begun in `dir`.
    pub(crate) fn is_in(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
        let names = disk.list(dir).map_err(WalError::io("listing", dir))?;
        Ok(names.iter().any(|name| name.ends_with(".wal")))
    }

    /// Where time goes, for all of the ring.
    pub(crate) fn costs(&self) -> &Arc<Costs> {
        &self.costs
    }

    /// What the log holds, including what is still on its way to disk.
    pub fn state(&self) -> LogState {
        let log = self.held();
        LogState {
            vote: log.vote,
            committed: log.committed,
            purged: log.purged,
            last: log.last,
        }
    }

    /// Bytes of records found at opening or appended since; only ever grows.
    pub fn appended_bytes(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// Segment files of the log.
    pub fn segments(&self) -> usize {
        self.held().segments.len()
    }

    /// Bytes that wait for the disk, and how many may.
    pub fn queued_bytes(&self) -> (u64, u64) {
        let free = self.queue.available_permits() as u64;
        let all = u64::from(self.queue_permits);
        let bytes = PERMIT_BYTES as u64;
        (all.saturating_sub(free) * bytes, all * bytes)
    }

    /// Index of the first of the newest entries that together have at most `bytes`.
    pub(crate) fn first_within(&self, bytes: u64) -> Option<u64> {
        self.held().first_within(bytes)
    }

    /// The segments that are not written to any more.
    pub(crate) fn closed_segments(&self) -> Vec<ClosedSegment> {
        let log = self.held();
        let closed = log.segments.iter().filter_map(|(number, segment)| {
            Some(ClosedSegment::new(*number, segment, segment.end?))
        });
        closed.collect()
    }

    /// The id of the entry at `index`, if it is there.
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        self.held().id_at(index)
    }

    /// Adds entries behind the last. They can be read once this returns; `done` is called when they are on disk.
    ///
    /// Waits while the queue is full. Fails if the entries would leave a hole, one is over the record limit, or the log
    /// has failed before.
    pub async fn append(&self, entries: Vec<proto::Entry>, done: Done) -> io::Result<()> {
        let mut records = Vec::with_capacity(entries.len());
        let mut ids = Vec::with_capacity(entries.len());
        for entry in &entries {
            let id = entry_id(entry)?;
            let record = Record::of_entry(id, entry);
            if record.payload.len() > MAX_PAYLOAD_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!(
                        "entry {id} has {} bytes, the limit is {MAX_PAYLOAD_BYTES}",
                        record.payload.len()
                    ),
                ));
            }
            ids.push(id);
            records.push(record);
        }
        let permits = self.wait_for_room(&records).await?;
        let mut tickets = Vec::with_capacity(entries.len());
        let pushed = {
            let mut log = self.held();
            let mut added = ids.into_iter().zip(entries).zip(&records);
            added.try_for_each(|((id, entry), record)| {
                tickets.push(log.push(id, entry, record.payload.len(), None)?);
                Ok(())
            })
        };
        if let Err(error) = pushed {
            self.queue.add_permits(permits as usize);
            return Err(error);
        }
        self.send(Request {
            records,
            tickets,
            sync: true,
            done: Some(done),
            permits,
        })
        .await
    }

    /// Returns once the vote is on disk.
    pub(crate) async fn save_vote(&self, vote: proto::Vote) -> io::Result<()> {
        let record = Record::of_vote(&vote);
        let permits = self.wait_for_room(std::slice::from_ref(&record)).await?;
        self.held().vote = Some(vote);
        let (done, answered) = tokio::sync::oneshot::channel();
        self.send(Request {
            records: vec![record],
            tickets: Vec::new(),
            sync: true,
            done: Some(Box::new(move |result| {
                // A caller that went away needs no answer.
                let _ = done.send(result);
            })),
            permits,
        })
        .await?;
        answered.await.map_err(|_| self.failure.closed())?
    }

    /// Remembers how far entries are committed, on disk some time later. Written at once, not with what follows: a node that
    /// is killed right after a commit would show less when it is started again than it showed before.
    pub(crate) async fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        self.mark(Kind::Committed, committed, false, |log| {
            log.committed = committed;
        })
        .await
    }

    /// Ends the log after `after`; None empties it. Ordered with appends; on disk some time later.
    pub(crate) async fn truncate_after(&self, after: Option<LogId>) -> io::Result<()> {
        self.mark(Kind::Truncate, after, true, |log| log.truncate(after))
            .await
    }

    /// Forgets entries up to `upto`, which may lie beyond the last. Files are removed some time later.
    pub(crate) async fn purge(&self, upto: LogId) -> io::Result<()> {
        self.mark(Kind::Purge, Some(upto), true, |log| log.purge(upto))
            .await
    }

    /// Entries of `range` that the log has, without holes; at most `max_bytes` of them, but at least one.
    pub(crate) async fn read(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> io::Result<Vec<proto::Entry>> {
        let pieces = self.held().pieces(range.start, range.end, max_bytes)?;
        if pieces.iter().all(Piece::is_cached) {
            return pieces.into_iter().map(Piece::fetch).collect();
        }
        let reading = move || pieces.into_iter().map(Piece::fetch).collect();
        self.host.io(reading).await
    }

    /// The same on a thread that may block.
    pub(crate) fn read_blocking(
        &self,
        range: Range<u64>,
        max_bytes: usize,
    ) -> io::Result<Vec<proto::Entry>> {
        let pieces = self.held().pieces(range.start, range.end, max_bytes)?;
        pieces.into_iter().map(Piece::fetch).collect()
    }

    /// The reason why the log accepts nothing any more, if it does not.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failure.0.get().cloned()
    }

    async fn mark(
        &self,
        kind: Kind,
        id: Option<LogId>,
        sync: bool,
        change: impl FnOnce(&mut Log),
    ) -> io::Result<()> {
        let record = Record::of_mark(kind, id);
        let permits = self.wait_for_room(std::slice::from_ref(&record)).await?;
        change(&mut self.held());
        self.send(Request {
            records: vec![record],
            tickets: Vec::new(),
            sync,
            done: None,
            permits,
        })
        .await
    }

    async fn wait_for_room(&self, records: &[Record]) -> io::Result<u32> {
        self.failure.check()?;
        let bytes: usize = records.iter().map(Record::size).sum();
        self.appended.fetch_add(bytes as u64, Ordering::Relaxed);
        let permits = (bytes.div_ceil(PERMIT_BYTES) as u32).clamp(1, self.queue_permits);
        match self.queue.acquire_many(permits).await {
            Ok(held) => held.forget(),
            Err(_) => return Err(self.failure.closed()),
        }
        Ok(permits)
    }

    async fn send(&self, request: Request) -> io::Result<()> {
        let requests = locked(&self.requests).clone();
        let Some(requests) = requests else {
            return Err(self.failure.closed());
        };
        requests
            .send(request)
            .await
            .map_err(|_| self.failure.closed())
    }

    /// Accepts nothing more, and waits until everything accepted is written. Blocks, but in a simulation, where what is
    /// accepted is written later.
    pub fn close(&self) {
        locked(&self.requests).take();
        if let Some(writer) = locked(&self.writer).take()
            && writer.join().is_err()
        {
            tracing::error!("the log's writer thread panicked");
        }
    }

    fn held(&self) -> MutexGuard<'_, Log> {
        locked(&self.log)
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Set once, for ever.
#[derive(Debug, Default)]
struct Failure(OnceLock<String>);

impl Failure {
    fn set(&self, reason: String) -> io::Error {
        let reason = self.0.get_or_init(|| {
            tracing::error!(reason, "the log failed");
            reason
        });
        io::Error::other(reason.clone())
    }

    fn check(&self) -> io::Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(reason) => Err(io::Error::other(reason.clone())),
        }
    }

    fn closed(&self) -> io::Error {
        match self.0.get() {
            Some(reason) => io::Error::other(reason.clone()),
            None => io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed"),
        }
    }
}
