//! A node that cannot be trusted any more stops, with the reason.

use std::sync::Arc;

use crate::support::{Cluster, PATIENCE, put, write};
use trireme_raft::{
    FatalKind, OpenError, PeerListener, Store, StoreConfig, archive::MemoryHome, disk::MemoryDisk,
};

fn config(disk: &MemoryDisk) -> StoreConfig {
    let mut config = StoreConfig::new("/data".into(), 1, "127.0.0.1:0".parse().unwrap());
    config.peer_address = String::new();
    config.disk = Arc::new(disk.clone());
    config.archive = Some(Arc::new(MemoryHome::default()));
    config.limits.wal.segment_bytes = 64 << 10;
    config
}

async fn alone(disk: &MemoryDisk) -> Store {
    let store = Store::open(config(disk)).await.unwrap();
    let me = trireme_raft::Node {
        id: 1,
        peer_address: "127.0.0.1:1".to_owned(),
        ..trireme_raft::Node::default()
    };
    store.bootstrap(vec![me]).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_stops_the_node_for_ever() {
    let disk = MemoryDisk::new();
    let store = alone(&disk).await;
    write(&store, "a", "1").await;
    disk.fail_syncs_after(0);
    store.propose(put("b", "1")).await.unwrap_err();
    let fatal = tokio::time::timeout(PATIENCE, store.fatal()).await.unwrap();
    assert_eq!(fatal.kind, FatalKind::Disk);
    insta::assert_snapshot!(fatal, @"syncing /data/wal/00000000000000000001.wal failed: injected fault. The log accepts nothing more; check the disk, then restart the node");
    disk.fail_syncs_after(u64::MAX);
    store.propose(put("c", "1")).await.unwrap_err();
    assert!(!store.holds_lease());
    store.shutdown().await;

    // What was acknowledged is there once the disk is.
    let disk = disk.after_power_cut(|| false);
    let store = Store::open(config(&disk)).await.unwrap();
    store.recovered().await;
    assert!(store.view().cursor("a").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_listener_beyond_loopback_needs_certificates() {
    let mut config = config(&MemoryDisk::new());
    config.peer_listener = PeerListener::Address("0.0.0.0:0".parse().unwrap());
    let error = Store::open(config).await.unwrap_err();
    assert!(matches!(error, OpenError::Listen(_)), "{error}");
    assert!(
        error.to_string().contains("no peer certificates"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_no_node_could_hold_are_refused() {
    let cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let store = &cluster.stores[&follower];
    let before = store.linearize().await.unwrap();
    let large = put("a", &"x".repeat(2 << 20));
    let error = store.propose(large).await.unwrap_err().to_string();
    assert!(error.contains("the limit is 1048576"), "{error}");
    let mut future = put("a", "1");
    future.min_level = 1000;
    let error = store.propose(future).await.unwrap_err().to_string();
    assert!(error.contains("does not know it"), "{error}");
    assert_eq!(store.linearize().await.unwrap(), before);
}
