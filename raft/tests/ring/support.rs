//! Nodes in this process, over real loopback sockets and real files.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use trireme_proto::state::{
    AcceptDelivery, Command, CommitPlans, Cursor, Delivery, PutCursor, SweepDeliveries,
    command::Body, outcome,
};
use trireme_raft::{Applied, Node, PeerListener, Store, StoreConfig, wal::WalOptions};
use trireme_state::FEATURE_LEVEL;

/// Nothing in these tests takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes by id; each reached through a proxy that can be cut.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) stores: BTreeMap<u64, Store>,
    pub(crate) seats: BTreeMap<u64, Seat>,
    /// What all nodes know that were started so far.
    level: u32,
    tune: Box<dyn Fn(&mut StoreConfig)>,
}

/// What a node keeps over restarts.
pub(crate) struct Seat {
    proxy: Proxy,
}

impl Cluster {
    /// `count` nodes that made a cluster together.
    pub(crate) async fn of(count: u64) -> Self {
        Self::tuned(count, |_| {}).await
    }

    pub(crate) async fn tuned(count: u64, tune: impl Fn(&mut StoreConfig) + 'static) -> Self {
        Self::prepared(count, tune, |_| {}).await
    }

    /// With files that must be there before the nodes start.
    pub(crate) async fn prepared(
        count: u64,
        tune: impl Fn(&mut StoreConfig) + 'static,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        // RUST_LOG=trireme_raft=debug,openraft=info shows what the nodes did. Another test may have set it up.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let mut cluster = Self {
            dir: TempDir::new().unwrap(),
            stores: BTreeMap::new(),
            seats: BTreeMap::new(),
            level: FEATURE_LEVEL,
            tune: Box::new(tune),
        };
        prepare(cluster.dir.path());
        for id in 1..=count {
            cluster.start(id).await;
        }
        let members = cluster.members();
        let making = cluster
            .stores
            .values()
            .map(|store| store.bootstrap(members.clone()));
        for made in futures::future::join_all(making).await {
            made.unwrap();
        }
        cluster.leader().await;
        // The last thing that a new cluster writes by itself.
        cluster.at_level(cluster.level).await;
        cluster
    }

    /// Waits until the cluster's feature level is this.
    pub(crate) async fn at_level(&self, level: u32) {
        eventually("the feature level", async || {
            let mut stores = self.stores.values();
            stores
                .all(|store| store.view().feature_level() == level)
                .then_some(())
        })
        .await;
    }

    fn members(&self) -> Vec<Node> {
        self.seats.keys().map(|id| self.node(*id)).collect()
    }

    pub(crate) fn node(&self, id: u64) -> Node {
        Node {
            id,
            peer_address: self.seats[&id].proxy.address.to_string(),
            api_address: format!("api-{id}"),
            instance: String::new(),
        }
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub(crate) fn config(&mut self, id: u64) -> StoreConfig {
        let data_dir = self.data_dir(id);
        let seat = self.seats.entry(id).or_insert_with(Seat::new);
        // A new port at every start: the former may have been taken by somebody else while the node was down.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inner = listener.local_addr().unwrap();
        *seat.proxy.target.lock().unwrap() = inner;
        let mut config = StoreConfig::new(data_dir, id, inner);
        config.peer_listener = PeerListener::Bound(listener);
        config.peer_address = seat.proxy.address.to_string();
        config.api_address = format!("api-{id}");
        config.limits.wal = WalOptions {
            segment_bytes: 256 << 10,
            ..WalOptions::default()
        };
        (self.tune)(&mut config);
        self.level = self.level.min(config.knows_level);
        config
    }

    pub(crate) async fn start(&mut self, id: u64) -> &Store {
        let config = self.config(id);
        let store = Store::open(config).await.unwrap();
        self.stores.insert(id, store);
        &self.stores[&id]
    }

    pub(crate) async fn kill(&mut self, id: u64) {
        self.stores.remove(&id).unwrap().stop().await;
    }

    pub(crate) fn cut(&self, id: u64) {
        self.seats[&id].proxy.cut.store(true, Ordering::SeqCst);
        self.seats[&id].proxy.changed.notify_waiters();
    }

    pub(crate) fn heal(&self, id: u64) {
        self.seats[&id].proxy.cut.store(false, Ordering::SeqCst);
    }

    /// How often anybody has dialed a node.
    pub(crate) fn knocks(&self, id: u64) -> u64 {
        self.seats[&id].proxy.knocks.load(Ordering::SeqCst)
    }

    /// The node that all running ones agree on.
    pub(crate) async fn leader(&self) -> u64 {
        let ids: Vec<u64> = self.stores.keys().copied().collect();
        self.leader_among(&ids).await
    }

    /// The node that all of `ids` agree on, which is one of them.
    pub(crate) async fn leader_among(&self, ids: &[u64]) -> u64 {
        eventually("a leader that all see", async || {
            let seen: Vec<_> = ids
                .iter()
                .map(|id| *self.stores[id].leadership().borrow())
                .collect();
            let leader = seen[0].leader?;
            let agreed = seen.iter().all(|seen| seen.leader == Some(leader));
            let led = self.stores.get(&leader)?.holds_lease();
            (agreed && led && ids.contains(&leader)).then_some(leader)
        })
        .await
    }

    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.stores.keys().find(|id| **id != leader).unwrap()
    }

    /// Waits until all running nodes have applied the same.
    pub(crate) async fn converged(&self) {
        eventually("the same state everywhere", async || {
            let mut statuses = self.stores.values().map(Store::status);
            let first = statuses.next()?;
            statuses
                .all(|other| (other.revision, &other.digest) == (first.revision, &first.digest))
                .then_some(())
        })
        .await;
    }
}

impl Seat {
    fn new() -> Self {
        Self {
            proxy: Proxy::new(),
        }
    }
}

/// Forwards connections, until it is cut.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    cut: Arc<AtomicBool>,
    changed: Arc<tokio::sync::Notify>,
    /// Connections that came in.
    knocks: Arc<AtomicU64>,
}

impl Proxy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Nowhere yet; whoever sits behind it says where.
        let target = Arc::new(Mutex::new(address));
        let leads_to = Arc::clone(&target);
        listener.set_nonblocking(true).unwrap();
        let (cut, changed) = (
            Arc::<AtomicBool>::default(),
            Arc::<tokio::sync::Notify>::default(),
        );
        let (is_cut, on_change) = (Arc::clone(&cut), Arc::clone(&changed));
        let knocks = Arc::<AtomicU64>::default();
        let knocked = Arc::clone(&knocks);
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                knocked.fetch_add(1, Ordering::SeqCst);
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let on_change = Arc::clone(&on_change);
                let target = *leads_to.lock().unwrap();
                tokio::spawn(async move {
                    let Ok(mut to) = tokio::net::TcpStream::connect(target).await else {
                        return;
                    };
                    from.set_nodelay(true).unwrap();
                    to.set_nodelay(true).unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => {}
                        () = on_change.notified() => {}
                    }
                });
            }
        });
        Self {
            address,
            target,
            cut,
            changed,
            knocks,
        }
    }
}

/// A command that leaves a trace under `key`.
pub(crate) fn put(key: &str, value: &str) -> Command {
    Command {
        principal: "test".to_owned(),
        body: Some(Body::PutCursor(PutCursor {
            cursors: vec![Cursor {
                key: key.to_owned(),
                value: value.to_owned(),
                ..Cursor::default()
            }],
        })),
        ..Command::default()
    }
}

/// With a request id, so that it survives a change of leader.
pub(crate) async fn write(store: &Store, key: &str, value: &str) -> Applied {
    let mut command = put(key, value);
    command.request_id = uuid::Uuid::new_v4().to_string();
    let applied = store.propose(command).await.unwrap();
    let done = matches!(applied.outcome.result, Some(outcome::Result::Done(_)));
    assert!(done, "{applied:?}");
    applied
}

/// A delivery that was handled and left memory for the archive.
pub(crate) async fn archive(store: &Store, guid: &str) -> Applied {
    let mut last = None;
    for body in [
        Body::AcceptDelivery(AcceptDelivery {
            delivery: Some(Delivery {
                guid: guid.to_owned(),
                event: "ping".to_owned(),
                ..Delivery::default()
            }),
        }),
        Body::CommitPlans(CommitPlans {
            guid: guid.to_owned(),
            ..CommitPlans::default()
        }),
        Body::SweepDeliveries(SweepDeliveries {
            guids: vec![guid.to_owned()],
        }),
    ] {
        let command = Command {
            principal: "test".to_owned(),
            body: Some(body),
            ..Command::default()
        };
        let applied = store.propose(command).await.unwrap();
        let done = matches!(applied.outcome.result, Some(outcome::Result::Done(_)));
        assert!(done, "{applied:?}");
        last = Some(applied);
    }
    last.unwrap()
}

/// Whether the archive has the delivery.
pub(crate) async fn is_archived(store: &Store, guid: &str) -> bool {
    let prefix = trireme_state::archive_keys::delivery(guid).prefix();
    let range = (Bound::Included(prefix.clone()), Bound::Unbounded);
    let rows = store.archive().range(range, false, 1).await.unwrap();
    rows.iter().any(|(key, _)| key.starts_with(&prefix))
}

pub(crate) fn read(store: &Store, key: &str) -> Option<String> {
    let view = store.view();
    Some(view.cursor(key)?.value.clone())
}

/// Polls until there is an answer: for what makes no event of its own.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .collect();
    found.sort();
    found
}
