//! Finished history, larger than memory: rows by key, off the path of acknowledgements.
//!
//! Apply hands over idempotent writes; one thread (in a simulation, a task) performs them in batches, each with the log index it reaches. Until
//! then they are read from an overlay of bounded size, which makes apply wait when it is full. A [`checkpoint`] makes
//! everything up to an index durable; a snapshot at that index counts only afterwards. The archive may run ahead of the
//! snapshot: writing the same rows again changes nothing. Live state never depends on it.
//!
//! [`checkpoint`]: Archive::checkpoint

mod memory;
mod reader;
mod saving;
mod sled_home;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockWriteGuard},
    thread::JoinHandle,
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use trireme_state::ArchiveOp;

use crate::host::{Host, World};

pub use memory::MemoryHome;
pub use reader::ArchiveReader;
pub(crate) use saving::SavedRows;
pub use sled_home::SledHome;

/// Operations performed in one batch.
const MAX_BATCH_OPS: usize = 2000;
/// Bytes of one batch; a single operation may be longer.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Requests waiting for the thread, beside their bytes.
const QUEUE_REQUESTS: usize = 4096;
const PERMIT_BYTES: usize = 1024;

/// A row: key and value.
pub type Row = (Bytes, Bytes);

/// Where rows lie. All calls block.
pub trait ArchiveStore: fmt::Debug + Send + Sync + 'static {
    /// Log index up to which all writes were performed.
    fn applied(&self) -> io::Result<u64>;
    /// The cluster whose history it is, once [`ArchiveStore::set_owner`] has said so.
    fn owner(&self) -> io::Result<Option<String>>;
    fn set_owner(&self, cluster_id: &str) -> io::Result<()>;
    /// The log index up to which rows may be missing, if some may.
    fn missing(&self) -> io::Result<Option<u64>>;
    /// Returns once this would survive a power cut, as does everything written before.
    fn set_missing(&self, upto: Option<u64>) -> io::Result<()>;
    /// Performs `ops` and moves [`ArchiveStore::applied`] to `applied`, both or neither.
    fn write(&self, ops: &[ArchiveOp], applied: u64) -> io::Result<()>;
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;
    /// Up to `limit` rows with keys in `range`, in order, or in reverse.
    fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>>;
    /// Returns once all writes so far would survive a power cut.
    fn checkpoint(&self) -> io::Result<()>;
}

/// Opens and replaces stores.
pub trait ArchiveHome: fmt::Debug + Send + Sync + 'static {
    /// The present store; a new, empty one if there is none, or if it is damaged: then it is set aside.
    ///
    /// # Errors
    /// If the system refuses it, or something else has it open. Nothing is changed then.
    fn open(&self) -> io::Result<Opened>;
    /// An empty store beside the present one, and its number.
    fn begin(&self) -> io::Result<(u64, Arc<dyn ArchiveStore>)>;
    /// Makes the store of this number the present one; answers with the number of the former, which stays until it is
    /// discarded.
    fn finish(&self, number: u64) -> io::Result<u64>;
    /// Removes a store that is not the present one. What cannot be removed is when the home is opened next.
    fn discard(&self, number: u64);
}

/// A store beside the present one, until it is in place of it. Goes away with its owner otherwise.
#[derive(Debug)]
pub(crate) struct Replacement {
    home: Arc<dyn ArchiveHome>,
    number: u64,
    store: Option<Arc<dyn ArchiveStore>>,
}

impl Replacement {
    pub(crate) fn store(&self) -> io::Result<&Arc<dyn ArchiveStore>> {
        self.store.as_ref().ok_or_else(closed)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.store.take().is_some() {
            self.home.discard(self.number);
        }
    }
}

/// What [`ArchiveHome::open`] found.
#[derive(Debug)]
pub struct Opened {
    pub store: Arc<dyn ArchiveStore>,
    /// Why the former store was set aside, if it was.
    pub lost: Option<String>,
}

/// Sizes of the archive's memory.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// Bytes of rows that wait to be written; more makes apply wait.
    pub overlay_bytes: usize,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            overlay_bytes: 64 << 20,
        }
    }
}

/// The archive of one node.
pub struct Archive {
    host: Host,
    home: Arc<dyn ArchiveHome>,
    shared: Arc<Shared>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lost: Option<String>,
    owner: OnceLock<String>,
}

struct Shared {
    /// None once the archive is closed.
    store: RwLock<Option<Arc<dyn ArchiveStore>>>,
    overlay: Mutex<Overlay>,
    /// Set while somebody reads for a saved snapshot. Held by the thread while it writes.
    saving: Mutex<Option<saving::Notes>>,
    /// As [`ArchiveStore::missing`]; changed by the thread.
    missing: watch::Sender<Option<u64>>,
    room: Semaphore,
    permits: u32,
}

/// Rows that are not in the store yet.
#[derive(Default)]
struct Overlay {
    rows: BTreeMap<Bytes, Waiting>,
    next_ticket: u64,
    /// Index of the last write that was submitted.
    submitted: u64,
    failed: Option<String>,
}

struct Waiting {
    /// None = deleted.
    value: Option<Bytes>,
    ticket: u64,
}

enum Request {
    Write {
        index: u64,
        ops: Vec<ArchiveOp>,
        /// Of the last of `ops`; the others' precede it.
        ticket: u64,
        permits: u32,
    },
    Checkpoint {
        index: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Everything before was meant for the former store.
    Replace {
        store: Arc<dyn ArchiveStore>,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Removes rows without regard to the log.
    Prune {
        ops: Vec<ArchiveOp>,
        done: oneshot::Sender<io::Result<()>>,
    },
    Fill {
        rows: Vec<Row>,
        done: oneshot::Sender<io::Result<()>>,
    },
    BeginFill {
        upto: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
    EndFill {
        upto: u64,
        done: oneshot::Sender<io::Result<()>>,
    },
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("home", &self.home).finish()
    }
}

impl Archive {
    /// Blocks while opening the store.
    pub fn open(home: Arc<dyn ArchiveHome>, options: &ArchiveOptions) -> io::Result<Self> {
        Self::open_on(Host::Machine, home, options)
    }

    /// [`Archive::open`] on any host. On a simulated one this must be called on its runtime.
    pub(crate) fn open_on(
        host: Host,
        home: Arc<dyn ArchiveHome>,
        options: &ArchiveOptions,
    ) -> io::Result<Self> {
        let Opened { store, lost } = home.open()?;
        let missing = store.missing()?;
        let permits = u32::try_from((options.overlay_bytes / PERMIT_BYTES).max(1))
            .unwrap_or(u32::MAX)
            .min((Semaphore::MAX_PERMITS / 2) as u32);
        let shared = Arc::new(Shared {
            store: RwLock::new(Some(store)),
            overlay: Mutex::new(Overlay::default()),
            saving: Mutex::default(),
            missing: watch::Sender::new(missing),
            room: Semaphore::new(permits as usize),
            permits,
        });
        let (requests, received) = mpsc::channel(QUEUE_REQUESTS);
        let worker = Arc::clone(&shared);
        let thread = match host.world().cloned() {
            None => {
                let thread = std::thread::Builder::new().name("trireme-archive".to_owned());
                Some(thread.spawn(move || worker.run(received))?)
            }
            Some(world) => {
                tokio::spawn(async move { worker.run_in(&*world, received).await });
                None
            }
        };
        Ok(Self {
            host,
            home,
            shared,
            requests: Mutex::new(Some(requests)),
            thread: Mutex::new(thread),
            lost,
            owner: OnceLock::new(),
        })
    }

    /// Where to do what blocks.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Why the store was set aside at opening; it wants to be refilled from a peer then.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Makes the store, and those that replace it, this cluster's; answers with the id of the cluster whose it is
    /// already, if that is another. Blocks.
    pub(crate) fn adopt(&self, cluster_id: &str) -> io::Result<Option<String>> {
        let store = self.shared.store()?;
        match store.owner()? {
            Some(owner) if owner != cluster_id => return Ok(Some(owner)),
            Some(_) => {}
            None => store.set_owner(cluster_id)?,
        }
        self.owner.get_or_init(|| cluster_id.to_owned());
        Ok(None)
    }

    /// Bytes of rows that wait to be written, and how many may.
    pub fn queued_bytes(&self) -> (u64, u64) {
        let free = self.shared.room.available_permits() as u64;
        let (all, bytes) = (u64::from(self.shared.permits), PERMIT_BYTES as u64);
        (all.saturating_sub(free) * bytes, all * bytes)
    }

    /// Log index that the store itself has reached.
    pub fn applied(&self) -> io::Result<u64> {
        self.shared.store()?.applied()
    }

    /// Hands over the writes of one log entry. Waits while the overlay is full.
    pub async fn submit(&self, index: u64, ops: Vec<ArchiveOp>) -> io::Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        let bytes: usize = ops.iter().map(size_of).sum();
        let permits = (bytes.div_ceil(PERMIT_BYTES) as u32).clamp(1, self.shared.permits);
        match self.shared.room.acquire_many(permits).await {
            Ok(room) => room.forget(),
            Err(_) => return Err(closed()),
        }
        let ticket = {
            let mut overlay = self.shared.overlay();
            if let Some(reason) = &overlay.failed {
                return Err(io::Error::other(reason.clone()));
            }
            for op in &ops {
                let (key, value) = match op {
                    ArchiveOp::Put { key, value } => (key, Some(value.clone())),
                    ArchiveOp::Delete { key } => (key, None),
                };
                let ticket = overlay.next_ticket;
                overlay.next_ticket += 1;
                overlay.rows.insert(key.clone(), Waiting { value, ticket });
            }
            overlay.submitted = overlay.submitted.max(index);
            overlay.next_ticket - 1
        };
        self.send(Request::Write {
            index,
            ops,
            ticket,
            permits,
        })
        .await
    }

    /// Returns once everything submitted before would survive a power cut; the store then says it reached `index`.
    pub async fn checkpoint(&self, index: u64) -> io::Result<()> {
        let (done, answered) = oneshot::channel();
        self.send(Request::Checkpoint { index, done }).await?;
        answered.await.map_err(|_| closed())?
    }

    /// Blocks while the store reads from disk.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        if let Some(waiting) = self.shared.overlay().rows.get(key) {
            return Ok(waiting.value.clone());
        }
        self.shared.store()?.get(key)
    }

    /// Up to `limit` rows with keys in `range`, in order of their keys, or in reverse. Blocks while reading.
    pub fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        if is_empty(range) || limit == 0 {
            return Ok(Vec::new());
        }
        // First the overlay, then the store: what moves meanwhile is seen twice, never missed.
        let mut merged: BTreeMap<Bytes, Option<Bytes>> = {
            let overlay = self.shared.overlay();
            let within = overlay.rows.range::<[u8], _>(range);
            within
                .map(|(key, waiting)| (key.clone(), waiting.value.clone()))
                .collect()
        };
        // A row that the overlay hides does not count.
        let hidden = merged.values().filter(|value| value.is_none()).count();
        for (key, value) in
            self.shared
                .store()?
                .range(range, reverse, limit.saturating_add(hidden))?
        {
            merged.entry(key).or_insert(Some(value));
        }
        let live = merged
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        Ok(if reverse {
            live.rev().take(limit).collect()
        } else {
            live.take(limit).collect()
        })
    }

    /// Puts rows of a peer's archive where this one has none, in place of those that are missing.
    pub(crate) async fn fill(&self, rows: Vec<Row>) -> io::Result<()> {
        let (done, answered) = oneshot::channel();
        self.send(Request::Fill { rows, done }).await?;
        answered.await.map_err(|_| closed())?
    }

    /// Removes rows that are too old to be kept. They must not be written any more.
    pub(crate) async fn prune(&self, ops: Vec<ArchiveOp>) -> io::Result<()> {
        let (done, answered) = oneshot::channel();
        self.send(Request::Prune { ops, done }).await?;
        answered.await.map_err(|_| closed())?
    }

    /// The log index up to which rows may be missing here; None when all are there.
    pub(crate) fn missing(&self) -> Option<u64> {
        *self.shared.missing.borrow()
    }

    pub(crate) fn missing_changes(&self) -> watch::Receiver<Option<u64>> {
        self.shared.missing.subscribe()
    }

    /// Says that rows up to a log index may be missing, until [`Archive::end_fill`], whatever happens meanwhile.
    pub(crate) async fn begin_fill(&self, upto: u64) -> io::Result<()> {
        let (done, answered) = oneshot::channel();
        self.send(Request::BeginFill { upto, done }).await?;
        answered.await.map_err(|_| closed())?
    }

    /// Says that everything up to a log index is there.
    pub(crate) async fn end_fill(&self, upto: u64) -> io::Result<()> {
        let (done, answered) = oneshot::channel();
        self.send(Request::EndFill { upto, done }).await?;
        answered.await.map_err(|_| closed())?
    }

    /// An empty store beside the present one, to be filled from a snapshot's rows. Blocks.
    pub(crate) fn begin_replacement(&self) -> io::Result<Replacement> {
        let (number, store) = self.home.begin()?;
        let replacement = Replacement {
            home: Arc::clone(&self.home),
            number,
            store: Some(store),
        };
        if let Some(owner) = self.owner.get() {
            replacement.store()?.set_owner(owner)?;
        }
        Ok(replacement)
    }

    /// Makes a filled replacement, which lacks nothing, the archive.
    pub(crate) async fn replace(&self, mut replacement: Replacement) -> io::Result<()> {
        let (home, number) = (Arc::clone(&self.home), replacement.number);
        let former = self.host.io(move || home.finish(number)).await?;
        let store = replacement.store.take().ok_or_else(closed)?;
        let (done, answered) = oneshot::channel();
        self.send(Request::Replace { store, done }).await?;
        answered.await.map_err(|_| closed())??;
        // Only now is nothing written to it any more.
        self.home.discard(former);
        Ok(())
    }

    /// What a snapshot at `index` came with: a store with all rows, or none, because its sender's own lacks some. Goes before
    /// the snapshot: the archive may run ahead of the state, never behind it.
    pub(crate) async fn install(
        &self,
        replacement: Option<Replacement>,
        index: u64,
    ) -> io::Result<()> {
        let Some(replacement) = replacement else {
            return self.begin_fill(index).await;
        };
        let filled = Arc::clone(replacement.store()?);
        self.host
            .io(move || {
                filled.write(&[], index)?;
                filled.checkpoint()
            })
            .await?;
        self.replace(replacement).await
    }

    async fn send(&self, request: Request) -> io::Result<()> {
        let requests = held(&self.requests).clone();
        match requests {
            Some(requests) => requests.send(request).await.map_err(|_| closed()),
            None => Err(closed()),
        }
    }

    /// Accepts nothing more, waits until what was submitted is written, and lets go of the store: another may open it,
    /// whoever still holds this. Blocks, but in a simulation, where the store stays.
    pub(crate) fn close(&self) {
        held(&self.requests).take();
        let Some(thread) = held(&self.thread).take() else {
            return;
        };
        if thread.join().is_err() {
            tracing::error!("the archive's thread panicked");
        }
        let store = self.shared.present_mut().take();
        drop(store);
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.close();
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the archive is closed")
}

fn size_of(op: &ArchiveOp) -> usize {
    match op {
        ArchiveOp::Put { key, value } => key.len() + value.len(),
        ArchiveOp::Delete { key } => key.len(),
    }
}

fn is_empty(range: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        _ => false,
    }
}

impl Shared {
    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        held(&self.overlay)
    }

    fn store(&self) -> io::Result<Arc<dyn ArchiveStore>> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.clone().ok_or_else(closed)
    }

    fn present_mut(&self) -> RwLockWriteGuard<'_, Option<Arc<dyn ArchiveStore>>> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = None;
        while let Some(request) = waiting.take().or_else(|| requests.blocking_recv()) {
            waiting = self.perform(request, &mut requests);
        }
    }

    /// [`Shared::run`] as a task, for which each round takes time.
    async fn run_in(&self, world: &dyn World, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = None;
        loop {
            let request = match waiting.take() {
                Some(request) => request,
                None => match requests.recv().await {
                    Some(request) => request,
                    None => return,
                },
            };
            tokio::time::sleep(world.disk_wait()).await;
            waiting = self.perform(request, &mut requests);
        }
    }

    /// Answers with the next request if it was taken out but not performed.
    fn perform(&self, request: Request, requests: &mut mpsc::Receiver<Request>) -> Option<Request> {
        match request {
            Request::Write {
                index,
                ops,
                ticket,
                permits,
            } => {
                let mut waiting = None;
                let mut batch = Batch {
                    index,
                    bytes: ops.iter().map(size_of).sum(),
                    entries: vec![(index, ops.len())],
                    ops,
                    ticket,
                    permits: permits as usize,
                };
                while batch.ops.len() < MAX_BATCH_OPS && batch.bytes < MAX_BATCH_BYTES {
                    match requests.try_recv() {
                        Ok(Request::Write {
                            index,
                            ops,
                            ticket,
                            permits,
                        }) => {
                            batch.index = index;
                            batch.bytes += ops.iter().map(size_of).sum::<usize>();
                            batch.ops.extend(ops);
                            batch.entries.push((index, batch.ops.len()));
                            batch.ticket = ticket;
                            batch.permits += permits as usize;
                        }
                        Ok(other) => {
                            waiting = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                self.write(batch);
                return waiting;
            }
            Request::Checkpoint { index, done } => {
                let _ = done.send(self.checkpoint(index));
            }
            Request::Replace { store, done } => {
                self.break_saving();
                *self.present_mut() = Some(store);
                self.overlay().rows.clear();
                self.missing.send_replace(None);
                let _ = done.send(Ok(()));
            }
            Request::Prune { ops, done } => {
                let pruned = self
                    .store()
                    .and_then(|store| store.write(&ops, store.applied()?));
                let _ = done.send(pruned);
            }
            Request::Fill { rows, done } => {
                let _ = done.send(self.fill(rows));
            }
            Request::BeginFill { upto, done } => {
                let _ = done.send(self.begin_fill(upto));
            }
            Request::EndFill { upto, done } => {
                let _ = done.send(self.end_fill(upto));
            }
        }
        None
    }

    fn write(&self, batch: Batch) {
        // The overlay stays readable, and apply goes on, while the store writes.
        let failed = self.overlay().failed.clone();
        let written = match failed {
            None => self
                .store()
                .and_then(|store| self.write_noted(&*store, &batch)),
            Some(reason) => Err(io::Error::other(reason)),
        };
        let mut overlay = self.overlay();
        match written {
            Ok(()) => {
                for op in &batch.ops {
                    let (ArchiveOp::Put { key, .. } | ArchiveOp::Delete { key }) = op;
                    if overlay
                        .rows
                        .get(key)
                        .is_some_and(|row| row.ticket <= batch.ticket)
                    {
                        overlay.rows.remove(key);
                    }
                }
            }
            // Apply finds out with its next write; nothing may be dropped silently.
            Err(error) => {
                overlay.failed.get_or_insert_with(|| {
                    tracing::error!(%error, "the archive failed");
                    format!("writing to the archive failed: {error}")
                });
            }
        }
        drop(overlay);
        self.room.add_permits(batch.permits);
    }

    fn checkpoint(&self, index: u64) -> io::Result<()> {
        if let Some(reason) = &self.overlay().failed {
            return Err(io::Error::other(reason.clone()));
        }
        let store = self.store()?;
        let reached = store.applied()?.max(index);
        store.write(&[], reached)?;
        store.checkpoint()
    }

    fn begin_fill(&self, upto: u64) -> io::Result<()> {
        let former = *self.missing.borrow();
        let upto = former.map_or(upto, |missing| missing.max(upto));
        self.store()?.set_missing(Some(upto))?;
        self.missing.send_replace(Some(upto));
        Ok(())
    }

    /// Nothing happens if more has become missing meanwhile.
    fn end_fill(&self, upto: u64) -> io::Result<()> {
        if (*self.missing.borrow()).is_none_or(|missing| missing > upto) {
            return Ok(());
        }
        let store = self.store()?;
        // It may come from rows alone, and must not be taken for one that is behind.
        store.write(&[], store.applied()?.max(upto))?;
        store.set_missing(None)?;
        self.missing.send_replace(None);
        Ok(())
    }

    fn fill(&self, rows: Vec<Row>) -> io::Result<()> {
        let store = self.store()?;
        let mut ops = Vec::new();
        for (key, value) in rows {
            // What is here is never older than what a peer has.
            if store.get(&key)?.is_none() {
                ops.push(ArchiveOp::Put { key, value });
            }
        }
        store.write(&ops, store.applied()?)
    }
}

struct Batch {
    /// Of the last entry.
    index: u64,
    ops: Vec<ArchiveOp>,
    /// The entries in it: index, and how many of the ops are its and those before it.
    entries: Vec<(u64, usize)>,
    bytes: usize,
    ticket: u64,
    permits: usize,
}
