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
mod history;
mod join;
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
mod space;
mod status;

use std::{
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::{Handle, Runtime},
    sync::{Semaphore, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use trireme_proto::raft as proto;
use trireme_state::Digest;

pub use doors::DoorCalls;
pub use error::{CompactionError, JoinError, MembershipError, OpenError, ProposeError, ReadError};
pub use membership::Handover;
pub use propose::Applied;
pub(crate) use recover::newest_snapshot;
pub use save::{SaveError, Saving};
pub use scrub::{ScrubError, Scrubbed};
pub use space::DiskUse;
pub use status::{MemberStatus, Status};

use self::{
    clock::{Clock, MAX_SKEW_MS},
    compact::Compactor,
    peers::Peers,
    propose::{PERMIT_BYTES, Proposer, queue_permits},
    read::Readers,
    service::PeerService,
    space::{Gate, OwnDisk},
};
use crate::{
    archive::{Archive, Row, SledHome},
    config::{Limits, StoreConfig, Tamper, Timing},
    consensus::{Links, Machine, Pulse, Ring},
    costs::{Cost, Stage},
    directory::{DataDirectory, DirectoryError},
    disk::{Disk, Reserve, ReservingDisk},
    fatal::{Fatal, FatalCell, FatalKind},
    feed::{Feed, Watch},
    host::Host,
    queues::{QueueDepth, Queues},
    snapshot::Snapshots,
    tls::{PeerIdentity, Reloading},
    transport::{Dialer, ListenError, Listener, serve},
    view::{Published, View},
    wal::{Owner, Wal},
};

/// Threads for what reads and writes files: snapshots, old log entries, the archive.
const BLOCKING_THREADS: usize = 8;
/// How long tasks of a closed store may take to notice.
const STOPPING: Duration = Duration::from_secs(5);
/// Period of the ring's pulse, from which its delay is measured.
const PULSE: Duration = Duration::from_millis(100);
/// Pulses over which the longest delay is kept.
const PULSES_KEPT: u32 = 100;

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

/// Who leads, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// None as well when the leader was not heard of, or no quorum answers it, for [`Timing::leader_silence`].
    pub leader: Option<u64>,
    pub term: u64,
    /// This node leads as far as it knows, which may be out of date; see `confirmed`.
    pub is_me: bool,
    /// This node leads, has applied an entry of its own term, and a quorum answered it within the lease.
    pub confirmed: bool,
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
    calls_refused: AtomicU64,
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
    filling: AtomicBool,
    /// Held while files are checked.
    scrubbing: Arc<tokio::sync::Mutex<()>>,
}

impl Started {
    /// Whether the archive still lacks rows that peers have.
    fn filling(&self) -> bool {
        self.filling.load(Ordering::Relaxed)
    }

    fn set_filling(&self, filling: bool) {
        self.filling.store(filling, Ordering::Relaxed);
    }
}

/// Longest delay of the ring's runtime lately.
#[derive(Debug, Default)]
struct Delay(AtomicU64);

impl Delay {
    fn longest(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
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
            tokio::spawn(beat(Arc::downgrade(&inner)));
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

fn own_runtime(limits: &Limits) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits.ring_threads.max(1))
        .thread_name("trireme-ring")
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
}

type OpenedFiles = (Arc<Inner>, Listener);

/// Blocks.
fn open_files(config: StoreConfig, runtime: Handle) -> Result<OpenedFiles, OpenError> {
    let listener = Listener::bind(config.peer_listener, config.tls.is_some(), &config.host)?;
    let tls = match config.tls {
        Some(tls) => Some(Arc::new(
            tls.open(config.node_id).map_err(ListenError::from)?,
        )),
        None => None,
    };
    let directory =
        DataDirectory::open(Arc::clone(&config.disk), &config.data_dir, config.node_id)?;
    let reserve = Arc::new(Reserve::new(
        Arc::clone(&config.disk),
        config.data_dir.join("RESERVE"),
        config.limits.space.reserve_bytes,
    ));
    if let Err(error) = reserve.take() {
        tracing::warn!(%error, "no reserve is set aside on the disk");
    }
    let disk: Arc<dyn Disk> = Arc::new(ReservingDisk::new(config.disk, Arc::clone(&reserve)));
    let home = match config.archive {
        Some(home) => home,
        None => Arc::new(SledHome::new(&config.data_dir.join("archive"))),
    };
    let archive = Archive::open_on(config.host.clone(), home, &config.limits.archive)
        .map_err(OpenError::Archive)?;
    let peer_address = match config.peer_address.as_str() {
        "" => listener.address.to_string(),
        address => address.to_owned(),
    };
    let feed = Feed::new(0, config.limits.feed.clone());
    let inner = Arc::new_cyclic(|weak| Inner {
        node_id: config.node_id,
        instance: directory.instance().to_owned(),
        peer_address,
        api_address: config.api_address,
        timing: config.timing,
        pending: Semaphore::new(queue_permits(&config.limits)),
        limits: config.limits,
        host: config.host.clone(),
        disk,
        reserve,
        tamper: config.tamper,
        queues: Queues::default(),
        data_dir: config.data_dir,
        runtime,
        directory: Mutex::new(Some(directory)),
        dialer: Dialer::new(tls.clone(), config.host),
        tls,
        raises_level: config.raises_feature_level,
        calls_refused: AtomicU64::default(),
        door: Mutex::default(),
        fatal: FatalCell::default(),
        published: Arc::new(Published::new(feed)),
        archive: Arc::new(archive),
        started: OnceLock::new(),
        leadership: watch::Sender::default(),
        recovered: watch::Sender::new(false),
        closed: watch::Sender::new(false),
        joining: tokio::sync::Mutex::default(),
        admitting: tokio::sync::Mutex::default(),
        delay: Delay::default(),
        weak: weak.clone(),
    });
    Ok((inner, listener))
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

    /// Recovers what is on disk and starts consensus, on the ring's runtime whatever the caller's.
    async fn start_here(&self) -> Result<&Started, OpenError> {
        if let Some(inner) = self.weak.upgrade() {
            let starting = self
                .runtime
                .spawn(Box::pin(async move { inner.start().await }));
            match starting.await {
                Ok(started) => started?,
                Err(error) => return Err(OpenError::Runtime(io::Error::other(error))),
            }
        }
        self.started
            .get()
            .ok_or_else(|| OpenError::Consensus("the store is closed".to_owned()))
    }

    async fn start(&self) -> Result<(), OpenError> {
        let identity = self.directory(|directory| Ok(directory.identity().cloned()))?;
        let identity =
            identity.ok_or_else(|| OpenError::Consensus("no cluster is known".to_owned()))?;
        let cluster_id = identity.cluster_id;
        let (disk, dir) = (Arc::clone(&self.disk), self.data_dir.clone());
        let (options, id) = (self.limits.wal.clone(), cluster_id.clone());
        let owner = Owner {
            cluster_id: cluster_id.clone(),
            node_id: self.node_id,
        };
        let diverged = self.directory(|directory| directory.diverged())?;
        let archive = Arc::clone(&self.archive);
        let host = self.host.clone();
        let recovering = self.host.blocking(move || {
            if let Some(found) = archive.adopt(&id).map_err(OpenError::Archive)? {
                return Err(OpenError::Directory(DirectoryError::OtherCluster {
                    path: dir.join("archive"),
                    found,
                    expected: id,
                }));
            }
            let wal = Wal::open_on(host, Arc::clone(&disk), &dir.join("wal"), owner, &options)?;
            let snapshots = Snapshots::open(disk, &dir.join("snapshots"))?;
            Ok::<_, OpenError>((wal, snapshots))
        });
        let (wal, snapshots) = recovering.await.map_err(OpenError::Runtime)??;
        if let Some(marker) = diverged {
            self.resync(&marker, &cluster_id, &wal, &snapshots).await?;
            self.directory(|directory| directory.clear_diverged())?;
        }
        let (files, id, log) = (snapshots.clone(), cluster_id.clone(), wal.state());
        let loading = self
            .host
            .blocking(move || recover::newest_snapshot(&files, &id, &log));
        let newest = loading.await.map_err(OpenError::Runtime)??;
        let snapshot_index = newest
            .as_ref()
            .and_then(|(file, _)| file.last())
            .map_or(0, |last| last.index);
        let archived = self.archive.applied().map_err(OpenError::Archive)?;
        // A checkpoint precedes each snapshot: less means that rows are gone.
        let filling = self.archive.lost().is_some() || archived < snapshot_index;
        let wal = Arc::new(wal);
        let mut machine = Machine::new(
            cluster_id.clone(),
            newest,
            snapshots.clone(),
            Arc::clone(&self.archive),
            self.fatal.clone(),
            Arc::clone(&self.published),
            Arc::clone(wal.costs()),
        )
        .map_err(|error| OpenError::Consensus(error.to_string()))?;
        machine.tamper.clone_from(&self.tamper);
        let audited = machine.audited.subscribe();
        let links = Links {
            fatal: self.fatal.clone(),
            me: self.node_id,
            cluster_id: cluster_id.clone(),
            dialer: self.dialer.clone(),
            timing: self.timing.clone(),
            archive: Arc::clone(&self.archive),
            costs: Arc::clone(wal.costs()),
        };
        let ring = Box::pin(Ring::start(links, wal, machine)).await;
        let stopped = |why| match self.fatal.get() {
            Some(fatal) => OpenError::Stopped(fatal),
            None => OpenError::Consensus(why),
        };
        let ring = Arc::new(ring.map_err(stopped)?);
        let clock = Arc::new(Clock::new(self.host.clone()));
        let peers = Arc::new(Peers::default());
        let gate = Arc::new(Gate::default());
        let started = Started {
            cluster_id,
            proposer: Proposer::start(
                self.node_id,
                Arc::clone(&ring),
                Arc::clone(&self.published),
                Arc::clone(&clock),
                Arc::clone(&peers),
                Arc::clone(&gate),
                &self.limits,
            ),
            gate,
            audited,
            disk: OwnDisk::default(),
            peers,
            readers: Readers::start(self.weak.clone()),
            clock,
            compactor: Compactor::default(),
            snapshots,
            filling: AtomicBool::new(filling),
            scrubbing: Arc::default(),
            ring,
        };
        if filling {
            self.archive.begin_fill();
        }
        if self.started.set(started).is_err() {
            return Err(OpenError::Consensus(
                "the store was started twice".to_owned(),
            ));
        }
        if let Some(started) = self.started() {
            let configs = started.ring.pulse().membership.configs;
            let voters = configs.iter().flat_map(|voters| &voters.node_ids);
            if voters.eq([&self.node_id]) {
                // Nobody else could lead: there is nothing to wait for.
                started.ring.elect().await;
            }
        }
        tokio::spawn(follow_leadership(self.weak.clone()));
        tokio::spawn(watch_health(self.weak.clone()));
        tokio::spawn(peers::run(self.weak.clone()));
        tokio::spawn(compact::run(self.weak.clone()));
        tokio::spawn(space::run(self.weak.clone()));
        tokio::spawn(quotas::run(self.weak.clone()));
        tokio::spawn(audit::run(self.weak.clone()));
        tokio::spawn(scrub::run(self.weak.clone()));
        tokio::spawn(history::run(self.weak.clone()));
        if filling {
            tokio::spawn(refill::run(self.weak.clone()));
        }
        Ok(())
    }

    fn observe(&self, started: &Started) -> Leadership {
        let pulse = started.ring.pulse();
        let leader = self.vouched(started, &pulse);
        let is_me = pulse.seen.leader == Some(self.node_id);
        let applied = self.published.view().applied;
        let own_entry = applied.is_some_and(|applied| {
            applied.term == pulse.seen.term && applied.node_id == self.node_id
        });
        let lease = pulse
            .quorum_ack
            .is_some_and(|since| since < self.timing.election_min);
        Leadership {
            leader,
            term: pulse.seen.term,
            is_me,
            confirmed: is_me && own_entry && lease && self.fatal.get().is_none(),
        }
    }
}

impl Inner {
    /// Who leads, unless nothing was heard of it for so long that the node cannot say. Consensus itself goes on naming
    /// a leader that died until another is elected; whom a command is forwarded to may be such a one.
    fn vouched(&self, started: &Started, pulse: &Pulse) -> Option<u64> {
        let leader = pulse.seen.leader?;
        let heard = if leader == self.node_id {
            // A leader that no quorum answers any more leads nobody.
            pulse.quorum_ack
        } else {
            started.ring.since_leader_heard()
        };
        heard
            .is_some_and(|ago| ago < self.timing.leader_silence())
            .then_some(leader)
    }
}

/// Publishes who leads, and fixes the clock when this node takes the lead.
async fn follow_leadership(inner: Weak<Inner>) {
    let mut led_term = None;
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        let changes = started.ring.changes();
        let leadership = strong.observe(started);
        if leadership.is_me
            && led_term != Some(leadership.term)
            && take_lead(&strong, started).await
        {
            led_term = Some(leadership.term);
        }
        if let Some(reason) = strong.removal() {
            strong.fatal.set(FatalKind::Removed, reason);
        }
        strong.leadership.send_if_modified(|known| {
            let changed = *known != leadership;
            *known = leadership;
            changed
        });
        let period = strong.timing.heartbeat;
        drop(strong);
        tokio::select! {
            alive = changes => if !alive { return },
            () = sleep(period) => {}
        }
    }
}

/// False while too few clocks are known.
async fn take_lead(inner: &Inner, started: &Started) -> bool {
    let view = inner.published.view();
    let voters: Vec<u64> = view.voters().into_iter().collect();
    let clock = &started.clock;
    let Some(skew) = clock.skew_ms(inner.node_id, &voters, view.last_stamp_ms()) else {
        return false;
    };
    clock.take_lead(skew, view.last_stamp_ms());
    if skew.abs() > MAX_SKEW_MS {
        tracing::error!(
            skew_ms = skew,
            "this node's clock is too far off its peers' to lead: correct it"
        );
        if let Some(other) = voters.iter().find(|voter| **voter != inner.node_id) {
            // The next election finds another leader if this one does not want to.
            let _ = started.ring.transfer_leader(*other).await;
        }
    }
    true
}

/// Turns what stopped consensus into the reason why the node must stop, takes the node out of consensus for any other
/// reason, and says when reads are safe.
async fn watch_health(inner: Weak<Inner>) {
    let (ring, fatal, recovered) = {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        let ring = Arc::clone(&started.ring);
        (ring, strong.fatal.clone(), strong.recovered.clone())
    };
    let recovering = async {
        recovered.send_replace(ring.recovered().await);
        std::future::pending::<()>().await;
    };
    let stopped = tokio::select! {
        stopped = ring.stopped() => stopped,
        () = recovering => None,
        _ = fatal.wait() => {
            step_down(&inner, &ring).await;
            return;
        }
    };
    match (ring.wal.failed(), stopped) {
        (Some(failed), _) => fatal.set(FatalKind::Disk, failed),
        // The runtime of a store that is closed drops consensus as it is.
        (None, Some(reason)) if !inner.upgrade().is_none_or(|inner| *inner.closed.borrow()) => {
            fatal.set(FatalKind::Consensus, reason);
        }
        (None, _) => {}
    }
}

/// A node that must stop hands over the lead while it still can, and takes part no more.
async fn step_down(inner: &Weak<Inner>, ring: &Ring) {
    let handing_over = async {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(to) = strong.successor() else {
            return;
        };
        let patience = strong.timing.election_max * 2;
        let mut leadership = strong.leadership.subscribe();
        drop(strong);
        if ring.transfer_leader(to).await.is_ok() {
            // The others elect one by themselves, only later.
            let left = leadership.wait_for(|leadership| !leadership.is_me);
            let _ = tokio::time::timeout(patience, left).await;
        }
    };
    handing_over.await;
    ring.shutdown().await;
}

/// Measures how late the ring's runtime runs its tasks.
async fn beat(inner: Weak<Inner>) {
    let mut ticks = interval(PULSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut longest, mut pulses) = (Duration::ZERO, 0);
    loop {
        let due = ticks.tick().await;
        let late = Instant::now().saturating_duration_since(due);
        let Some(inner) = inner.upgrade() else {
            return;
        };
        pulses += 1;
        if pulses >= PULSES_KEPT {
            (longest, pulses) = (Duration::ZERO, 0);
        }
        longest = longest.max(late);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        inner.delay.0.store(micros, Ordering::Relaxed);
    }
}

/// Reads finished history by key.
#[derive(Debug, Clone)]
pub struct ArchiveReader(Arc<Archive>);

impl ArchiveReader {
    pub async fn get(&self, key: Bytes) -> io::Result<Option<Bytes>> {
        let archive = Arc::clone(&self.0);
        self.0.host().io(move || archive.get(&key)).await
    }

    /// Up to `limit` rows with keys in `range`, in order of their keys, or in reverse.
    pub async fn range(
        &self,
        range: (Bound<Bytes>, Bound<Bytes>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        let archive = Arc::clone(&self.0);
        let reading = self.0.host().io(move || {
            let range = (
                range.0.as_ref().map(AsRef::as_ref),
                range.1.as_ref().map(AsRef::as_ref),
            );
            archive.range(range, reverse, limit)
        });
        reading.await
    }
}
