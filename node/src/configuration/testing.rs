//! A store for tests: one node, in memory.

use std::sync::Arc;

use trireme_raft::{Node, Store, StoreConfig, archive::MemoryHome, disk::MemoryDisk};

/// A cluster of one that has its first entry.
pub(super) async fn alone() -> Store {
    let mut config = StoreConfig::new("/data".into(), 1, "127.0.0.1:0".parse().unwrap());
    config.disk = Arc::new(MemoryDisk::new());
    config.archive = Some(Arc::new(MemoryHome::default()));
    let store = Box::pin(Store::open(config)).await.unwrap();
    let me = Node {
        id: 1,
        peer_address: "127.0.0.1:1".to_owned(),
        ..Node::default()
    };
    store.bootstrap(vec![me]).await.unwrap();
    store.at_least(1).await;
    store
}
