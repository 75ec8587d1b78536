//! The nodes: started, killed, cut from their power, started again from what their disks kept.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, serve::Listener};
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trireme_api::{
    Anonymous, Artifact, AuthConfig, Candidate, Checked, ConfigCheck, DebugSource, DoorConfig,
    Doors, HookSecrets, RunStore,
};
use trireme_jobs::Leases;
use trireme_office::Keeper;
use trireme_proto::{api::DebugFile, state::Job};
use trireme_raft::{
    Host, Node, PeerListener, Pipe, Store, StoreConfig, archive::MemoryHome, disk::MemoryDisk,
};

use super::{
    Plant,
    chance::Chance,
    chronicle::Chronicle,
    furnishing::Furnishing,
    network::Network,
    trace::Trace,
    world::{Hardware, Life, door_address, peer_address},
};

pub(crate) const WEBHOOK_SECRET: &str = "simulated";

/// A node that stops by itself is started again after this.
const SERVICE_RESTART_MS: (u64, u64) = (200, 2000);
/// An orderly stop takes no longer; then the process is killed.
const STOP: Duration = Duration::from_secs(10);
/// Simulated connections have no addresses; whoever looks at one sees a process on the same host.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Of so many revisions one is not shown where that is planted.
const SKIPPED_ONE_IN: u64 = 32;

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is killed: what it wrote is with the operating system.
    Killed,
    /// The machine is without power: of what was not synced, any sector may be missing.
    PowerCut,
}

/// Clones are the same cluster.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Shared>);

struct Shared {
    network: Network,
    chance: Chance,
    trace: Trace,
    chronicle: Chronicle,
    began: Instant,
    seats: BTreeMap<u64, Mutex<Seat>>,
    hardware: BTreeMap<u64, Arc<Hardware>>,
    furnishing: Furnishing,
    /// From now on disks say that they synced and do not.
    lying_disks: AtomicBool,
}

/// What remains of a node over its lives, and the present one.
struct Seat {
    disk: MemoryDisk,
    archive: Arc<MemoryHome>,
    /// One that has not come so far as to be present.
    starting: Option<Arc<Life>>,
    present: Option<Present>,
    lives: u64,
}

struct Present {
    store: Store,
    life: Arc<Life>,
    gone: CancellationToken,
    /// What is aborted with it.
    tasks: JoinSet<()>,
}

/// A node that runs, for who is connected to it.
#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) store: Store,
    /// Cancelled when this life of the node is over.
    pub(crate) gone: CancellationToken,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) fn new(
        nodes: u64,
        network: Network,
        chance: Chance,
        trace: Trace,
        chronicle: Chronicle,
        furnishing: Furnishing,
    ) -> Self {
        let seat = |_| {
            Mutex::new(Seat {
                disk: MemoryDisk::new(),
                archive: Arc::default(),
                starting: None,
                present: None,
                lives: 0,
            })
        };
        Self(Arc::new(Shared {
            network,
            chance,
            trace,
            chronicle,
            began: Instant::now(),
            seats: (1..=nodes).map(|id| (id, seat(id))).collect(),
            hardware: (1..=nodes).map(|id| (id, Arc::default())).collect(),
            furnishing,
            lying_disks: AtomicBool::new(false),
        }))
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.0.seats.keys().copied().collect()
    }

    pub(crate) fn network(&self) -> &Network {
        &self.0.network
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.0.trace
    }

    pub(crate) fn chronicle(&self) -> &Chronicle {
        &self.0.chronicle
    }

    pub(crate) fn hardware(&self, id: u64) -> Arc<Hardware> {
        self.0.hardware.get(&id).cloned().unwrap_or_default()
    }

    fn seat(&self, id: u64) -> Option<MutexGuard<'_, Seat>> {
        self.0.seats.get(&id).map(held)
    }

    /// The node, if it runs.
    pub(crate) fn up(&self, id: u64) -> Option<Up> {
        let seat = self.seat(id)?;
        let present = seat.present.as_ref()?;
        Some(Up {
            store: present.store.clone(),
            gone: present.gone.clone(),
        })
    }

    /// The planted bug.
    pub(crate) fn let_disks_lie(&self) {
        self.0.lying_disks.store(true, Ordering::SeqCst);
        for id in self.ids() {
            if let Some(disk) = self.disk(id) {
                disk.lie_about_syncs(true);
            }
        }
    }

    /// The disk of a node that runs.
    pub(crate) fn disk(&self, id: u64) -> Option<MemoryDisk> {
        let seat = self.seat(id)?;
        seat.present.as_ref()?;
        Some(seat.disk.clone())
    }

    fn members(&self) -> Vec<Node> {
        let node = |id: u64| Node {
            id,
            peer_address: peer_address(id),
            api_address: door_address(id),
            instance: String::new(),
        };
        self.ids().into_iter().map(node).collect()
    }

    /// Starts a node that does not run. One that does not open is a broken promise.
    pub(crate) async fn start(&self, id: u64) {
        let shared = &self.0;
        let (disk, archive, lives, life) = {
            let Some(mut seat) = self.seat(id) else {
                return;
            };
            if seat.present.is_some() || seat.starting.is_some() {
                return;
            }
            seat.lives += 1;
            let life = Arc::new(Life {
                node: id,
                network: shared.network.clone(),
                chance: shared.chance.clone(),
                hardware: self.hardware(id),
                began: shared.began,
                over: AtomicBool::new(false),
            });
            seat.starting = Some(Arc::clone(&life));
            (
                seat.disk.clone(),
                Arc::clone(&seat.archive),
                seat.lives,
                life,
            )
        };
        disk.lie_about_syncs(shared.lying_disks.load(Ordering::SeqCst));
        shared.network.light(id);
        shared.trace.line(id, format_args!("starts, life {lives}"));
        let mut config = StoreConfig::new(PathBuf::from("/data"), id, NOWHERE);
        config.peer_listener = PeerListener::World;
        config.peer_address = peer_address(id);
        config.api_address = door_address(id);
        config.disk = Arc::new(disk.clone());
        config.archive = Some(archive);
        config.host = Host::Simulated(Arc::clone(&life) as Arc<_>);
        (shared.furnishing.tune)(&mut config);
        let opened = Store::open(config).await;
        {
            let Some(mut seat) = self.seat(id) else {
                return;
            };
            if life.over.load(Ordering::SeqCst) {
                // It ended while it started.
                if let Ok(store) = opened {
                    tokio::spawn(async move { store.stop().await });
                }
                return;
            }
            seat.starting = None;
        }
        let store = match opened {
            Ok(store) => store,
            Err(why) => {
                shared
                    .chronicle
                    .broken(format!("node {id} does not open: {why}"));
                return;
            }
        };
        let gone = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let furnishing = &shared.furnishing;
        let chronicle = shared.chronicle.clone();
        tasks.spawn(observe(id, store.clone(), chronicle, furnishing.look));
        let skips = id == 1 && furnishing.plant == Some(Plant::SkippedChanges);
        if furnishing.keeps_changes {
            let chronicle = shared.chronicle.clone();
            tasks.spawn(follow(id, store.clone(), chronicle, skips));
        }
        let leases = Leases::default();
        tasks.spawn(serve(
            store.clone(),
            leases.clone(),
            Arriving(shared.network.listen(id, &door_address(id))),
            gone.clone(),
        ));
        let controllers = (furnishing.crew)(&life, leases);
        let keeper = Keeper::new(store.clone(), controllers);
        let keeping = gone.clone();
        tasks.spawn(async move { keeper.run(keeping).await });
        let (cluster, members, joining) = (self.clone(), self.members(), store.clone());
        tasks.spawn(async move {
            if let Err(why) = joining.bootstrap(members).await {
                // As the program does: it ends, and is started again.
                cluster.0.trace.line(id, format_args!("cannot join: {why}"));
                cluster.end_later(id, lives);
            }
        });
        let (cluster, fatal) = (self.clone(), store.clone());
        tasks.spawn(async move {
            let fatal = fatal.fatal().await;
            cluster
                .0
                .trace
                .line(id, format_args!("must stop: {:?} {fatal}", fatal.kind));
            cluster
                .0
                .chronicle
                .stopped_itself(id, fatal.kind, &fatal.message);
            cluster.end_later(id, lives);
        });
        if let Some(mut seat) = self.seat(id) {
            seat.present = Some(Present {
                store,
                life,
                gone,
                tasks,
            });
        }
    }

    /// Ends a node that noticed itself that it must, and starts it again, as a service manager does.
    fn end_later(&self, id: u64, life: u64) {
        let cluster = self.clone();
        tokio::spawn(async move {
            let same = cluster.seat(id).is_some_and(|seat| seat.lives == life);
            if same {
                cluster.end(id, End::Killed);
            }
            let (least, most) = SERVICE_RESTART_MS;
            sleep(cluster.0.chance.millis(least, most)).await;
            cluster.start(id).await;
        });
    }

    /// Ends a node at once; false when it did not run.
    pub(crate) fn end(&self, id: u64, how: End) -> bool {
        let shared = &self.0;
        let Some(mut seat) = self.seat(id) else {
            return false;
        };
        let present = seat.present.take();
        let life = present.as_ref().map(|present| Arc::clone(&present.life));
        let Some(life) = life.or_else(|| seat.starting.take()) else {
            return false;
        };
        shared.trace.line(id, format_args!("ends: {how:?}"));
        life.over.store(true, Ordering::SeqCst);
        match how {
            End::Killed => shared.network.kill(id),
            End::PowerCut => shared.network.darken(id),
        }
        // What the former life still writes, it writes to a disk that nobody will look at.
        let chance = &shared.chance;
        seat.disk = match how {
            End::Killed => seat.disk.after_power_cut(|| true),
            End::PowerCut => {
                // Mostly all or nothing is lost; now and then anything between.
                let odds = [1, 2, 8][chance.below(3) as usize];
                seat.disk.after_power_cut(|| chance.one_in(odds))
            }
        };
        let odds = 1 + chance.below(4);
        seat.archive = Arc::new(seat.archive.after_power_cut(|| chance.one_in(odds)));
        if let Some(mut present) = present {
            present.gone.cancel();
            present.tasks.abort_all();
            let store = present.store;
            tokio::spawn(async move { store.stop().await });
        }
        true
    }

    /// Stops a node as an operator does.
    pub(crate) async fn stop(&self, id: u64, up: Up) {
        self.0.trace.line(id, "is asked to stop");
        let stopped = timeout(STOP, up.store.shutdown()).await.is_ok();
        self.0
            .trace
            .line(id, format_args!("stopped in time: {stopped}"));
        drop(up);
        self.end(id, End::Killed);
    }

    /// Starts everybody who does not run, on a network and disks without faults.
    pub(crate) async fn heal(&self) {
        self.0.network.set_cut(std::collections::BTreeSet::new());
        self.0.network.set_weather(super::network::Weather::FAIR);
        for (id, hardware) in &self.0.hardware {
            hardware.slowness.store(1, Ordering::SeqCst);
            if let Some(disk) = self.disk(*id) {
                disk.fail_syncs_after(u64::MAX);
                disk.fail_writes_after(u64::MAX);
                disk.set_capacity(u64::MAX);
            }
        }
        for id in self.ids() {
            self.start(id).await;
        }
    }

    /// A connection to a node's door.
    pub(crate) async fn knock(&self, from: u64, node: u64) -> io::Result<Pipe> {
        self.0.network.connect(from, &door_address(node)).await
    }
}

/// Looks at every state that a node shows.
async fn observe(id: u64, store: Store, chronicle: Chronicle, every: Duration) {
    let mut next = 0;
    let mut looked: Option<Instant> = None;
    loop {
        let view = store.at_least(next).await;
        chronicle.digest(id, view.revision, &view.state.digest());
        if looked.is_none_or(|looked| looked.elapsed() >= every) {
            looked = Some(Instant::now());
            if let Err(broken) = view.state.check_invariants() {
                chronicle.broken(format!(
                    "node {id}: the state at {} does not hold together: {broken}",
                    view.revision
                ));
            }
        }
        next = view.revision + 1;
    }
}

/// Keeps every change that a node shows; those of some revisions are lost on the way where that is planted.
async fn follow(id: u64, store: Store, chronicle: Chronicle, skips: bool) {
    let mut watch = store.watch(None);
    let mut after = store.view().revision;
    loop {
        match watch.next().await {
            Ok(changes) if skips && changes.revision.is_multiple_of(SKIPPED_ONE_IN) => {}
            Ok(changes) => {
                let batch = trireme_state::change_batch(
                    changes.revision,
                    changes.stamp_ms,
                    &changes.changes,
                );
                chronicle.shown(id, after, batch);
                after = changes.revision;
            }
            Err(trireme_raft::WatchError::Closed) => return,
            // A snapshot took the place of the entries.
            Err(_) => {
                watch = store.watch(None);
                after = store.view().revision;
            }
        }
    }
}

async fn serve(store: Store, leases: Leases, arriving: Arriving, stop: CancellationToken) {
    let config = DoorConfig {
        webhook_path: "/hook".to_owned(),
        secrets: HookSecrets::single(WEBHOOK_SECRET),
        storage: "file:///nowhere".to_owned(),
        config: Arc::new(AnyConfig),
        config_health: trireme_api::ConfigHealth::default(),
        runs: Arc::new(NoRuns),
        leases: Arc::new(leases),
        auth: AuthConfig {
            anonymous: Anonymous::Operator,
            operator_token_file: None,
        },
        tls: None,
        debug: Arc::new(NoDebug),
        metrics: Box::new(|_| ()),
        pages: Box::new(|_| Router::new()),
    };
    match Doors::new(store, config).await {
        Ok(doors) => {
            if let Err(why) = doors.serve_on(arriving, stop).await {
                tracing::error!(%why, "the door is closed");
            }
        }
        Err(why) => tracing::error!(%why, "there is no door"),
    }
}

/// Connections to a door.
struct Arriving(mpsc::UnboundedReceiver<Pipe>);

impl Listener for Arriving {
    type Io = Pipe;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Pipe, SocketAddr) {
        match self.0.recv().await {
            Some(pipe) => (pipe, NOWHERE),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }
}

/// No configuration is uploaded in a simulation.
struct AnyConfig;

#[async_trait]
impl ConfigCheck for AnyConfig {
    async fn check(&self, _: Candidate) -> Checked {
        Checked::default()
    }
}

/// Nobody asks for what helps to find what is wrong: a seed shows it again.
struct NoDebug;

impl DebugSource for NoDebug {
    fn files(&self) -> Vec<DebugFile> {
        Vec::new()
    }
}

/// Simulated runs leave nothing.
struct NoRuns;

#[async_trait]
impl RunStore for NoRuns {
    async fn read(&self, _: &Job, _: &str, _: u64, _: usize) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    async fn list(&self, _: &Job) -> io::Result<Vec<Artifact>> {
        Ok(Vec::new())
    }
}
