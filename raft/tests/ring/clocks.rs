//! A node whose clock is wrong is told to the operator, and no longer once it is right.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, future::join_all, stream, stream::BoxStream};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use trireme_raft::{
    Host, Node, PeerListener, Pipe, Store, StoreConfig, View, World, archive::MemoryHome,
    disk::MemoryDisk,
};

/// What all clocks say at the beginning.
const BEGINNING_MS: i64 = 1_800_000_000_000;
/// In simulated time: several rounds in which the nodes ask each other for their clocks.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes on their way through one pipe.
const PIPE_BYTES: usize = 256 << 10;
/// Connections that were made and not yet taken.
const BACKLOG: usize = 64;

type Listeners = Arc<Mutex<BTreeMap<String, mpsc::Sender<Pipe>>>>;

/// What one node runs on: a clock that can be put wrong, and pipes to the others.
#[derive(Debug)]
struct Machine {
    address: String,
    listeners: Listeners,
    began: Instant,
    ahead_ms: AtomicI64,
}

impl World for Machine {
    fn wall_ms(&self) -> i64 {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        BEGINNING_MS + passed + self.ahead_ms.load(Ordering::SeqCst)
    }

    fn disk_wait(&self) -> Duration {
        Duration::from_micros(100)
    }

    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Pipe>> {
        let listener = self.listeners.lock().unwrap().get(address).cloned();
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let (here, there) = tokio::io::duplex(PIPE_BYTES);
            let listener = listener.ok_or_else(refused)?;
            let sent = listener.try_send(Pipe::new(there));
            sent.map_err(|_| refused())?;
            Ok(Pipe::new(here))
        })
    }

    fn listen(&self) -> BoxStream<'static, io::Result<Pipe>> {
        let (sender, arriving) = mpsc::channel(BACKLOG);
        let mut listeners = self.listeners.lock().unwrap();
        listeners.insert(self.address.clone(), sender);
        stream::unfold(arriving, async |mut arriving| {
            let pipe = arriving.recv().await?;
            Some((Ok(pipe), arriving))
        })
        .boxed()
    }
}

/// Three nodes on this thread, by id, and what they run on.
struct Cluster {
    stores: BTreeMap<u64, Store>,
    machines: BTreeMap<u64, Arc<Machine>>,
}

impl Cluster {
    async fn start() -> Self {
        let (listeners, began) = (Listeners::default(), Instant::now());
        let ids = 1..=3;
        let address = |id| format!("{id}:7");
        let mut cluster = Self {
            stores: BTreeMap::new(),
            machines: BTreeMap::new(),
        };
        for id in ids.clone() {
            let machine = Arc::new(Machine {
                address: address(id),
                listeners: Arc::clone(&listeners),
                began,
                ahead_ms: AtomicI64::new(0),
            });
            let mut config = StoreConfig::new("/data".into(), id, "127.0.0.1:0".parse().unwrap());
            config.peer_listener = PeerListener::World;
            config.peer_address = address(id);
            config.disk = Arc::new(MemoryDisk::new());
            config.archive = Some(Arc::new(MemoryHome::default()));
            config.host = Host::Simulated(Arc::clone(&machine) as Arc<dyn World>);
            let store = Store::open(config).await.unwrap();
            cluster.stores.insert(id, store);
            cluster.machines.insert(id, machine);
        }
        let members: Vec<Node> = ids
            .map(|id| Node {
                id,
                peer_address: address(id),
                ..Node::default()
            })
            .collect();
        let stores = cluster.stores.values();
        let forming = stores.map(|store| store.bootstrap(members.clone()));
        for formed in join_all(forming).await {
            formed.unwrap();
        }
        cluster
    }

    async fn leader(&self) -> u64 {
        let mut leadership = self.stores[&1].leadership();
        let heard = leadership.wait_for(|seen| seen.leader.is_some());
        let heard = timeout(PATIENCE, heard).await.expect("a leader in time");
        heard.unwrap().leader.unwrap()
    }

    fn set_clock(&self, id: u64, ahead_ms: i64) {
        let clock = &self.machines[&id].ahead_ms;
        clock.store(ahead_ms, Ordering::SeqCst);
    }

    /// Waits until the state, as `at` sees it, is so.
    async fn until<T>(&self, at: u64, what: &str, so: impl Fn(&View) -> Option<T>) -> T {
        let store = &self.stores[&at];
        let looking = async {
            let mut view = store.view();
            loop {
                if let Some(found) = so(&view) {
                    return found;
                }
                view = store.at_least(view.revision + 1).await;
            }
        };
        let found = timeout(PATIENCE, looking).await;
        found.unwrap_or_else(|_| panic!("no {what} within {PATIENCE:?}"))
    }

    /// The message of the alarm about a node's clock, once there is one.
    async fn alarm(&self, at: u64, of: u64) -> String {
        let key = format!("clock/node-{of}");
        let raised = |view: &View| Some(view.alarm(&key)?.message.clone());
        self.until(at, &key, raised).await
    }

    /// Waits until there is no alarm.
    async fn calm(&self, at: u64) {
        let none = |view: &View| view.alarms().next().is_none().then_some(());
        self.until(at, "calm", none).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_raises_an_alarm_until_it_is_right() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let [follower, witness] = others[..] else {
        panic!("three nodes")
    };
    cluster.set_clock(follower, 5000);
    let message = cluster.alarm(witness, follower).await;
    let said = format!("the clock of node {follower} is ");
    assert!(message.starts_with(&said), "{message}");
    assert!(message.contains("s ahead of the median"), "{message}");
    cluster.set_clock(follower, -800);
    cluster.calm(witness).await;

    // Of the leader's own as well, which stamps by the others' and goes on.
    cluster.set_clock(leader, -3_600_000);
    let message = cluster.alarm(witness, leader).await;
    assert!(message.contains("s behind the median"), "{message}");
    cluster.set_clock(leader, 0);
    cluster.calm(witness).await;
    assert_eq!(cluster.leader().await, leader);
}

#[tokio::test(start_paused = true)]
async fn the_alarm_about_a_clock_goes_with_its_node() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.set_clock(follower, 5000);
    cluster.alarm(leader, follower).await;
    cluster.stores[&leader].remove(follower).await.unwrap();
    cluster.calm(leader).await;
}
