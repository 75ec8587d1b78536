//! How a store comes up: its files, then consensus on top of them.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64},
};

use tokio::{
    runtime::{Handle, Runtime},
    sync::{Semaphore, watch},
};

use super::{
    Inner, OpenError, Started, audit,
    callers::Hearsay,
    clock::Clock,
    compact::{self, Compactor},
    health::{self, Delay},
    history, lead,
    peers::{self, Peers},
    propose::{Proposer, queue_permits},
    quotas,
    read::Readers,
    recover, refill, scrub, skew,
    space::{self, Gate, OwnDisk},
};
use crate::{
    archive::{Archive, SledHome},
    config::{Limits, StoreConfig},
    consensus::{Links, Machine, Ring},
    directory::{DataDirectory, DirectoryError},
    disk::{Disk, Reserve, ReservingDisk},
    fatal::FatalCell,
    feed::Feed,
    queues::Queues,
    snapshot::Snapshots,
    transport::{Dialer, ListenError, Listener},
    view::Published,
    wal::{Owner, Wal},
};

/// Threads for what reads and writes files: snapshots, old log entries, the archive.
const BLOCKING_THREADS: usize = 8;

pub(super) fn own_runtime(limits: &Limits) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits.ring_threads.max(1))
        .thread_name("trireme-ring")
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
}

pub(super) type OpenedFiles = (Arc<Inner>, Listener);

/// Blocks.
pub(super) fn open_files(config: StoreConfig, runtime: Handle) -> Result<OpenedFiles, OpenError> {
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
        knows_level: config.knows_level,
        calls_refused: AtomicU64::default(),
        hearsay: Hearsay::default(),
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
    /// Recovers what is on disk and starts consensus, on the ring's runtime whatever the caller's.
    pub(super) async fn start_here(&self) -> Result<&Started, OpenError> {
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

    pub(super) async fn start(&self) -> Result<(), OpenError> {
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
        let had_log = self.directory(|directory| directory.has_log())?;
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
            let snapshots = Snapshots::open(Arc::clone(&disk), &dir.join("snapshots"))?;
            let log = dir.join("wal");
            recover::check_log(&*disk, &log, had_log, &snapshots)?;
            let wal = Wal::open_on(host, disk, &log, owner, &options)?;
            Ok::<_, OpenError>((wal, snapshots))
        });
        let (wal, snapshots) = recovering.await.map_err(OpenError::Runtime)??;
        if !had_log {
            self.directory(|directory| directory.set_has_log())?;
        }
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
        // A checkpoint precedes each snapshot: less means that rows are gone, as in place of an archive that was lost.
        if archived < snapshot_index {
            // Before anything is written: afterwards nothing else tells.
            let marking = self.archive.begin_fill(snapshot_index).await;
            marking.map_err(OpenError::Archive)?;
        }
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
            published: Arc::clone(&self.published),
        };
        let ring = Box::pin(Ring::start(links, wal, machine)).await;
        let stopped = |why| match self.fatal.get() {
            Some(fatal) => OpenError::Stopped(fatal),
            None => OpenError::Consensus(why),
        };
        let ring = Arc::new(ring.map_err(stopped)?);
        let clock = Arc::new(Clock::new(self.host.clone()));
        let peers = Arc::new(Peers::new(self.node_id, self.knows_level));
        let gate = Arc::new(Gate::default());
        let started = Started {
            cluster_id,
            proposer: Proposer::start(
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
            scrubbing: Arc::default(),
            ring,
        };
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
        tokio::spawn(lead::run(self.weak.clone()));
        tokio::spawn(health::run(self.weak.clone()));
        tokio::spawn(peers::run(self.weak.clone()));
        tokio::spawn(compact::run(self.weak.clone()));
        tokio::spawn(space::run(self.weak.clone()));
        tokio::spawn(quotas::run(self.weak.clone()));
        tokio::spawn(skew::run(self.weak.clone()));
        tokio::spawn(audit::run(self.weak.clone()));
        tokio::spawn(scrub::run(self.weak.clone()));
        tokio::spawn(history::run(self.weak.clone()));
        tokio::spawn(refill::run(self.weak.clone()));
        Ok(())
    }
}
