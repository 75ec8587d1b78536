//! What tests of the doors stand on: three nodes in this process that form a cluster, over real sockets and files, or one
//! alone in memory.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tempfile::TempDir;
use tokio::time::timeout;
use trireme_raft::{Node, PeerListener, Store, StoreConfig, archive::MemoryHome, disk::MemoryDisk};

/// Nothing in these tests takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const IDS: [u64; 3] = [1, 2, 3];

/// A node alone, which has applied its first entry.
pub(crate) async fn alone(tune: impl FnOnce(&mut StoreConfig)) -> Store {
    let mut config = StoreConfig::new("/data".into(), 1, "127.0.0.1:0".parse().unwrap());
    config.disk = Arc::new(MemoryDisk::new());
    config.archive = Some(Arc::new(MemoryHome::default()));
    tune(&mut config);
    let store = Store::open(config).await.unwrap();
    let me = Node {
        id: 1,
        peer_address: "127.0.0.1:1".to_owned(),
        ..Node::default()
    };
    store.bootstrap(vec![me]).await.unwrap();
    store.at_least(1).await;
    store
}

pub(crate) struct Trio {
    dir: TempDir,
    /// By id. Held while a node is down: its port stays its own, and who connects meanwhile gets no answer.
    listeners: BTreeMap<u64, TcpListener>,
    stores: BTreeMap<u64, Store>,
}

impl Trio {
    pub(crate) async fn start() -> Self {
        let listener = |id| (id, TcpListener::bind("127.0.0.1:0").unwrap());
        let mut trio = Self {
            dir: TempDir::new().unwrap(),
            listeners: IDS.map(listener).into(),
            stores: BTreeMap::new(),
        };
        let members: Vec<Node> = trio
            .listeners
            .keys()
            .map(|id| Node {
                id: *id,
                peer_address: trio.address(*id),
                ..Node::default()
            })
            .collect();
        for id in IDS {
            trio.open(id).await;
        }
        let stores = trio.stores.values();
        let forming = stores.map(|store| store.bootstrap(members.clone()));
        for formed in join_all(forming).await {
            formed.unwrap();
        }
        trio
    }

    pub(crate) fn store(&self, id: u64) -> &Store {
        &self.stores[&id]
    }

    /// Starts a node, or starts it again.
    pub(crate) async fn open(&mut self, id: u64) {
        let listener = self.listeners[&id].try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = StoreConfig::new(self.data_dir(id), id, address);
        config.peer_listener = PeerListener::Bound(listener);
        let store = Store::open(config).await.unwrap();
        self.stores.insert(id, store);
    }

    /// Another node, which joins as a learner.
    pub(crate) async fn join(&mut self, id: u64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.listeners.insert(id, listener);
        self.open(id).await;
        // Until a leader has committed the first membership no other one is taken.
        let leader = self.leader_at(IDS[0]).await;
        let mut leadership = self.store(leader).leadership();
        let confirmed = timeout(PATIENCE, leadership.wait_for(|seen| seen.confirmed)).await;
        confirmed.expect("a leader in time").unwrap();
        let seeds = IDS.map(|seed| self.address(seed));
        self.store(id).join(&seeds).await.unwrap();
    }

    fn address(&self, id: u64) -> String {
        self.listeners[&id].local_addr().unwrap().to_string()
    }

    pub(crate) fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub(crate) async fn kill(&mut self, id: u64) {
        self.stores.remove(&id).unwrap().stop().await;
    }

    pub(crate) fn others(id: u64) -> impl Iterator<Item = u64> {
        IDS.into_iter().filter(move |other| *other != id)
    }

    /// Whom `id` follows, once it hears somebody.
    pub(crate) async fn leader_at(&self, id: u64) -> u64 {
        let mut leadership = self.store(id).leadership();
        let heard = leadership.wait_for(|seen| seen.leader.is_some());
        let heard = timeout(PATIENCE, heard).await.expect("a leader in time");
        heard.unwrap().leader.unwrap()
    }
}

/// Polls until there is an answer: for what makes no event of its own.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
