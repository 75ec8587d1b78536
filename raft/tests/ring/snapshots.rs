//! The log is turned into snapshots; who lags too far is filled with one.

use std::{fs, sync::Arc};

use crate::support::{Cluster, archive, eventually, files, is_archived, read, write};
use trireme_raft::{
    FatalKind, OpenError, Store, StoreConfig, WatchError, archive::MemoryHome, disk::MemoryDisk,
};

fn small(config: &mut StoreConfig) {
    config.limits.wal.segment_bytes = 16 << 10;
    config.limits.keep_entries = 5;
}

async fn fill(store: &Store, from: usize, to: usize) {
    let value = "x".repeat(500);
    let writes =
        (from..to).map(|n| store.propose(crate::support::put(&format!("key-{n}"), &value)));
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
}

/// Twice: the log reaches back to the older of two snapshots.
async fn compact(store: &Store) {
    store.trigger_snapshot().await.unwrap();
    write(store, "between", "snapshots").await;
    write(store, "between", "two snapshots").await;
    store.trigger_snapshot().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_restarts_from_a_snapshot_and_the_log_behind_it() {
    let mut cluster = Cluster::tuned(1, small).await;
    let store = &cluster.stores[&1];
    for round in 0..5 {
        fill(store, round * 100, round * 100 + 100).await;
    }
    archive(store, "guid").await;
    let before = store.status().wal_segments;
    compact(store).await;
    eventually("a shorter log", async || {
        (store.status().wal_segments < before).then_some(())
    })
    .await;
    write(store, "later", "1").await;
    let status = store.status();
    assert!(
        status.purged.is_some() && status.snapshot.is_some(),
        "{status:?}"
    );
    cluster.kill(1).await;

    cluster.start(1).await;
    let store = &cluster.stores[&1];
    store.recovered().await;
    assert_eq!(read(store, "later").as_deref(), Some("1"));
    assert!(read(store, "key-499").is_some());
    assert!(is_archived(store, "guid").await);
    let again = store.status();
    assert!(again.revision >= status.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_lags_too_far_is_filled_by_a_snapshot_with_the_archive() {
    let mut cluster = Cluster::tuned(3, small).await;
    let lagging = cluster.follower().await;
    let mut watch = cluster.stores[&lagging].watch(None);
    cluster.cut(lagging);
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != lagging).collect();
    let leader = cluster.leader_among(&others).await;
    let store = &cluster.stores[&leader];
    for round in 0..3 {
        fill(store, round * 100, round * 100 + 100).await;
    }
    for n in 0..10 {
        archive(store, &format!("guid-{n}")).await;
    }
    // Both: the lead may change meanwhile.
    for id in &others {
        let store = &cluster.stores[id];
        compact(store).await;
        eventually("a purged log", async || store.status().purged.map(drop)).await;
    }
    cluster.heal(lagging);
    cluster.converged().await;
    let store = &cluster.stores[&lagging];
    assert!(store.status().snapshot.is_some());
    assert!(read(store, "key-299").is_some());
    for n in 0..10 {
        assert!(is_archived(store, &format!("guid-{n}")).await);
    }
    // What was skipped cannot be told in changes.
    let ended = loop {
        if let Err(ended) = watch.next().await {
            break ended;
        }
    };
    assert_eq!(ended, WatchError::Compacted);

    // And it survives a restart on what it was sent.
    cluster.kill(lagging).await;
    cluster.start(lagging).await;
    cluster.stores[&lagging].recovered().await;
    cluster.converged().await;
    assert!(is_archived(&cluster.stores[&lagging], "guid-9").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_falls_back_only_where_the_log_reaches() {
    let mut cluster = Cluster::tuned(1, small).await;
    fill(&cluster.stores[&1], 0, 200).await;
    compact(&cluster.stores[&1]).await;
    write(&cluster.stores[&1], "later", "1").await;
    cluster.kill(1).await;
    let dir = cluster.data_dir(1).join("snapshots");
    let damage = |path: &std::path::Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let snapshots = files(&dir, ".snap");
    assert_eq!(snapshots.len(), 2);
    damage(&snapshots[1]);
    cluster.start(1).await;
    let store = &cluster.stores[&1];
    store.recovered().await;
    assert_eq!(read(store, "later").as_deref(), Some("1"));
    assert!(read(store, "key-199").is_some());
    assert_eq!(files(&dir, ".damaged").len(), 1);
    cluster.kill(1).await;

    damage(&snapshots[0]);
    let error = Store::open(cluster.config(1)).await.unwrap_err();
    assert!(matches!(error, OpenError::Unrecoverable { .. }), "{error}");
    let error = error.to_string();
    for part in [
        "the log begins only after entry",
        "is damaged at byte",
        "trireme cluster replace",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_compacted_without_being_asked() {
    let cluster = Cluster::tuned(1, |config| {
        small(config);
        config.limits.compact_entries = 100;
    })
    .await;
    let store = &cluster.stores[&1];
    eventually("a purged log", async || {
        for n in 0..20 {
            write(store, "key", &n.to_string()).await;
        }
        store.status().purged.map(drop)
    })
    .await;
}

/// Found by simulation: the node said that consensus had stopped, not that its disk is broken.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_written_is_the_disks_fault() {
    let disk = MemoryDisk::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = StoreConfig::new("/data".into(), 1, address);
    config.peer_listener = trireme_raft::PeerListener::Bound(listener);
    config.limits.wal.segment_bytes = 64 << 10;
    config.disk = Arc::new(disk.clone());
    config.archive = Some(Arc::new(MemoryHome::default()));
    let store = Store::open(config).await.unwrap();
    let me = trireme_raft::Node {
        id: 1,
        peer_address: address.to_string(),
        ..trireme_raft::Node::default()
    };
    store.bootstrap(vec![me]).await.unwrap();
    write(&store, "key", "value").await;
    disk.fail_syncs_after(0);
    store.trigger_snapshot().await.unwrap_err();
    let fatal = store.fatal().await;
    assert_eq!(fatal.kind, FatalKind::Disk);
    assert!(
        fatal.message.starts_with("a snapshot cannot be written: "),
        "{fatal}"
    );
    store.stop().await;
}
