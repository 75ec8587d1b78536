//! The [`Store`]: what everyone else uses of the ring.
//!
//! A store runs consensus and its peer listener on a runtime of its own, so that nothing else on the node starves them.
//! Its handle may be used from any tokio runtime. In a simulation all of it runs where the store was opened, see [`Host`].

mod alarm;
mod audit;
mod callers;
mod clock;
mod compact;
mod doors;
mod error;
mod health;
mod history;
mod join;
mod lead;
mod membership;
mod peers;
mod propose;
mod quotas;
mod read;
mod recover;
mod refill;
mod resync;
mod save;
mod scrub;
mod service;
mod skew;
mod space;
mod start;
mod status;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    runtime::{Handle, Runtime},
    sync::{Semaphore, oneshot, watch},
};
use trireme_proto::raft as proto;
use trireme_state::Digest;

pub use doors::DoorCalls;
pub use error::{CompactionError, JoinError, MembershipError, OpenError, ProposeError, ReadError};
pub use lead::Leadership;
pub use membership::Handover;
pub use propose::Applied;
#[cfg(test)]
pub(crate) use recover::tests::newer_state;
pub(crate) use recover::{check_log, newest_snapshot, too_new};
pub use save::{SaveError, Saving};
pub use scrub::{ScrubError, Scrubbed};
pub use space::DiskUse;
pub use status::{MemberStatus, Status};

use self::{
    callers::Hearsay,
    clock::Clock,
    compact::Compactor,
    health::Delay,
    peers::Peers,
    propose::{PERMIT_BYTES, Proposer, queue_permits},
    read::Readers,
    service::PeerService,
    space::{Gate, OwnDisk},
    start::{open_files, own_runtime},
};
use crate::{
    archive::{Archive, ArchiveReader},
    config::{Limits, StoreConfig, Tamper, Timing},
    consensus::Ring,
    costs::{Cost, Stage},
    directory::{DataDirectory, DirectoryError},
    disk::{Disk, Reserve},
    fatal::{Fatal, FatalCell},
    feed::Watch,
    host::Host,
    queues::{QueueDepth, Queues},
    snapshot::Snapshots,
    tls::{PeerIdentity, Reloading},
    transport::{Dialer, serve},
    view::{Published, View},
};

/// How long tasks of a closed store may take to notice.
const STOPPING: Duration = Duration::from_secs(5);

/// A node's replicated store. Clones are handles to the same one; it closes with the last, or on [`Store::shutdown`].
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Closes the store with the last handle; tasks of the store hold only `inner`.
    _closer: Arc<Closer>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("node_id", &self.inner.node_id)
            .finish_non_exhaustive()
    }
}

struct Inner {
    node_id: u64,
    instance: String,
    peer_address: String,
    api_address: String,
    timing: Timing,
    limits: Limits,
    host: Host,
    disk: Arc<dyn Disk>,
    reserve: Arc<Reserve>,
    data_dir: PathBuf,
    tamper: Option<Tamper>,
    queues: Queues,
    /// Bytes of commands that wait here for their answer.
    pending: Semaphore,
    runtime: Handle,
    directory: Mutex<Option<DataDirectory>>,
    dialer: Dialer,
    tls: Option<Arc<Reloading<PeerIdentity>>>,
    raises_level: bool,
    knows_level: u32,
    calls_refused: AtomicU64,
    hearsay: Hearsay,
    /// Until the store closes: the door holds handles of it.
    door: Mutex<Option<Arc<dyn DoorCalls>>>,
    fatal: FatalCell,
    published: Arc<Published>,
    archive: Arc<Archive>,
    started: OnceLock<Started>,
    leadership: watch::Sender<Leadership>,
    recovered: watch::Sender<bool>,
    /// Set when the store closes: nothing is answered any more.
    closed: watch::Sender<bool>,
    joining: tokio::sync::Mutex<()>,
    admitting: tokio::sync::Mutex<()>,
    delay: Delay,
    weak: Weak<Inner>,
}

/// What exists once the node belongs to a cluster.
struct Started {
    cluster_id: String,
    ring: Arc<Ring>,
    proposer: Proposer,
    readers: Readers,
    clock: Arc<Clock>,
    peers: Arc<Peers>,
    compactor: Compactor,
    snapshots: Snapshots,
    /// The newest audit that this process applied.
    audited: watch::Receiver<Option<(u64, Digest)>>,
    disk: OwnDisk,
    gate: Arc<Gate>,
    /// Held while files are checked.
    scrubbing: Arc<tokio::sync::Mutex<()>>,
}

struct Closer {
    runtime: Mutex<Option<Runtime>>,
    stop_listening: Mutex<Option<oneshot::Sender<()>>>,
    inner: Arc<Inner>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens a data directory and takes part in its cluster; an empty one waits for [`Store::bootstrap`] or
    /// [`Store::join`].
    ///
    /// # Errors
    /// If anything on disk is damaged, foreign or in use, with what to do.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        if config.node_id == 0 {
            return Err(OpenError::NodeId);
        }
        let runtime = match config.host {
            Host::Machine => Some(own_runtime(&config.limits).map_err(OpenError::Runtime)?),
            Host::Simulated(_) => None,
        };
        let handle = runtime
            .as_ref()
            .map_or_else(Handle::current, |runtime| runtime.handle().clone());
        let opening = handle.spawn({
            let (host, handle) = (config.host.clone(), handle.clone());
            async move { host.blocking(move || open_files(config, handle)).await }
        });
        let opened = match opening.await {
            Ok(opened) => opened.unwrap_or_else(|error| Err(OpenError::Runtime(error))),
            Err(error) => Err(OpenError::Runtime(io::Error::other(error))),
        };
        let (inner, listener) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if let Some(runtime) = runtime {
                    runtime.shutdown_background();
                }
                return Err(error);
            }
        };
        let (stop_listening, stopped) = oneshot::channel();
        let store = Self {
            inner: Arc::clone(&inner),
            _closer: Arc::new(Closer {
                runtime: Mutex::new(runtime),
                stop_listening: Mutex::new(Some(stop_listening)),
                inner: Arc::clone(&inner),
            }),
        };
        let has_identity = inner.directory(|directory| Ok(directory.identity().is_some()))?;
        let starting = handle.spawn(async move {
            serve(
                listener,
                inner.tls.clone(),
                PeerService(Arc::clone(&inner)),
                stopped,
            )?;
            tokio::spawn(health::beat(Arc::downgrade(&inner)));
            if has_identity {
                inner.start_here().await?;
            }
            Ok(())
        });
        match starting.await {
            Ok(Ok(())) => Ok(store),
            Ok(Err(error)) => {
                store.stop().await;
                Err(error)
            }
            Err(error) => {
                store.stop().await;
                Err(OpenError::Runtime(io::Error::other(error)))
            }
        }
    }

    pub fn node_id(&self) -> u64 {
        self.inner.node_id
    }

    /// On the leader: the clock that stamps the log, which no jump of the wall clock moves; never below the view's stamp.
    pub fn now_ms(&self) -> i64 {
        let floor = self.view().last_stamp_ms();
        match self.inner.started() {
            Some(started) => started.clock.now_ms(floor),
            None => self.inner.host.wall_ms().max(floor),
        }
    }

    /// What this node runs on: whoever acts for it does what blocks there, and reads its clock.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// None while the node belongs to no cluster.
    pub fn cluster_id(&self) -> Option<&str> {
        Some(&self.inner.started()?.cluster_id)
    }

    /// The newest view that this node has applied. Free. Until [`Store::recovered`] it may be older than one shown
    /// before the node was restarted.
    pub fn view(&self) -> Arc<View> {
        self.inner.published.view()
    }

    /// Where the ring's time goes since the node started.
    pub fn costs(&self) -> Vec<(Stage, Cost)> {
        let costs = self.inner.started().map(|started| started.ring.wal.costs());
        let of = |stage| costs.map_or(Cost::default(), |costs| costs.of(stage));
        Stage::ALL
            .into_iter()
            .map(|stage| (stage, of(stage)))
            .collect()
    }

    /// Waits until this node has applied `revision`; for ever if the store closes before.
    pub async fn at_least(&self, revision: u64) -> Arc<View> {
        self.inner.published.at_least(revision).await
    }

    /// Whether reads are as new as before the last restart; false as well while the node belongs to no cluster.
    pub fn is_recovered(&self) -> bool {
        *self.inner.recovered.borrow()
    }

    /// Waits for [`Store::is_recovered`]; this takes a quorum.
    pub async fn recovered(&self) {
        let mut recovered = self.inner.recovered.subscribe();
        // The sender lives as long as the store.
        let _ = recovered.wait_for(|recovered| *recovered).await;
    }

    /// Follows the changes after a revision; None = from now on.
    pub fn watch(&self, after: Option<u64>) -> Watch {
        self.inner.published.feed.watch(after)
    }

    /// Who leads, now and from now on.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// Whether this node leads and holds the lease at this very moment.
    pub fn holds_lease(&self) -> bool {
        self.inner
            .started()
            .is_some_and(|started| self.inner.observe(started).confirmed)
    }

    /// Finished history.
    pub fn archive(&self) -> ArchiveReader {
        ArchiveReader(Arc::clone(&self.inner.archive))
    }

    /// Where owners of bounded queues register them.
    pub fn queues(&self) -> &Queues {
        &self.inner.queues
    }

    /// How full the queues of this node are: the store's own, and the registered ones.
    pub fn queue_depths(&self) -> Vec<QueueDepth> {
        let inner = &self.inner;
        let depth = |name, (depth, capacity)| QueueDepth {
            name,
            depth,
            capacity,
        };
        let all = (queue_permits(&inner.limits) * PERMIT_BYTES) as u64;
        let free = (inner.pending.available_permits() * PERMIT_BYTES) as u64;
        let mut depths = vec![
            depth("pending_bytes", (all.saturating_sub(free), all)),
            depth("archive_bytes", inner.archive.queued_bytes()),
            depth("feed_bytes", inner.published.feed.kept_bytes()),
        ];
        if let Some(started) = inner.started() {
            depths.extend(started.proposer.depths());
            depths.push(started.readers.depth());
            depths.push(depth("wal_bytes", started.ring.wal.queued_bytes()));
        }
        depths.extend(inner.queues.depths());
        depths
    }

    /// The reason why this node must stop, once there is one.
    pub async fn fatal(&self) -> Fatal {
        self.inner.fatal.wait().await
    }

    /// Hands over the lead if this node has it, leaves consensus, writes what was accepted, and lets go of the data
    /// directory. Other handles get errors from then on.
    pub async fn shutdown(&self) {
        if let Some(other) = self.inner.successor()
            && let Err(error) = self.transfer_leader(other).await
        {
            // The others find a leader by themselves, only later.
            tracing::info!(%error, "the lead was not handed over");
        }
        if let Some(started) = self.inner.started() {
            let ring = Arc::clone(&started.ring);
            // On its own runtime: this future may be dropped.
            let _ = self
                .inner
                .runtime
                .spawn(async move { ring.shutdown().await })
                .await;
        }
        self.stop().await;
    }

    /// Ends at once, as a kill would: nothing is said to peers, nothing is finished.
    pub async fn stop(&self) {
        let closer = Arc::clone(&self._closer);
        if self.inner.host.world().is_some() {
            closer.close();
            self.inner.end_tasks().await;
            return;
        }
        let _ = tokio::task::spawn_blocking(move || closer.close()).await;
    }
}

impl Closer {
    /// Blocks, but in a simulation: there, [`Inner::end_tasks`] remains to be done.
    fn close(&self) {
        self.inner.closed.send_replace(true);
        held(&self.stop_listening).take();
        let door = held(&self.inner.door).take();
        // What it holds may lead back here.
        drop(door);
        if let Some(runtime) = held(&self.runtime).take() {
            runtime.shutdown_timeout(STOPPING);
        }
        if let Some(started) = self.inner.started() {
            started.ring.wal.close();
        }
        self.inner.archive.close();
        // Only now may another store open the directory.
        held(&self.inner.directory).take();
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        if self.inner.host.world().is_some() {
            if !self.inner.closed.send_replace(true) {
                self.close();
                let inner = Arc::clone(&self.inner);
                self.inner
                    .runtime
                    .spawn(async move { inner.end_tasks().await });
            }
            return;
        }
        if held(&self.runtime).is_none() {
            return;
        }
        // The last handle may go on a runtime's thread, where blocking is not allowed.
        let taken = Closer {
            runtime: Mutex::new(held(&self.runtime).take()),
            stop_listening: Mutex::new(held(&self.stop_listening).take()),
            inner: Arc::clone(&self.inner),
        };
        let closing = std::thread::Builder::new()
            .name("trireme-close".to_owned())
            .spawn(move || taken.close());
        if let Err(error) = closing {
            tracing::error!(%error, "the store is not closed cleanly");
        }
    }
}

impl Inner {
    fn started(&self) -> Option<&Started> {
        self.started.get()
    }

    /// Ends the tasks of a closed store that shares its runtime with others.
    async fn end_tasks(&self) {
        if let Some(started) = self.started()
            && tokio::time::timeout(STOPPING, started.ring.shutdown())
                .await
                .is_err()
        {
            tracing::error!("the consensus core of a closed store does not stop");
        }
    }

    fn directory<T>(
        &self,
        with: impl FnOnce(&mut DataDirectory) -> Result<T, DirectoryError>,
    ) -> Result<T, DirectoryError> {
        match held(&self.directory).as_mut() {
            Some(directory) => with(directory),
            None => Err(DirectoryError::Io {
                doing: "using",
                path: self.data_dir.clone(),
                source: io::Error::new(io::ErrorKind::BrokenPipe, "the store is closed"),
            }),
        }
    }

    /// Runs what needs the ring; None if the store closes before it is done.
    async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => None,
            done = work => Some(done),
        }
    }

    fn stop_reason(&self) -> String {
        self.fatal
            .get()
            .map_or_else(|| "the store is closed".to_owned(), |fatal| fatal.message)
    }

    /// Where a member's peer listener is.
    fn peer_address(&self, started: &Started, id: u64) -> Option<String> {
        let of = |nodes: &[proto::Node]| {
            nodes
                .iter()
                .find(|node| node.id == id)
                .map(|node| node.peer_address.clone())
        };
        // What is applied is cheap to look at; what is not yet applied counts as well.
        of(self.published.view().nodes()).or_else(|| of(&started.ring.pulse().membership.nodes))
    }
}
