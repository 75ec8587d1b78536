//! Disks that fill up: the lead moves, then nothing new is taken, then the reserve goes, then the node stops.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use trireme_proto::state::{Command, DropTimer, command::Body, outcome};
use trireme_raft::{
    FatalKind, Node, ProposeError, Store, StoreConfig, archive::MemoryHome, disk::Disk as _,
    disk::MemoryDisk,
};

use crate::support::{Cluster, PATIENCE, eventually, put, write};

const MIB: u64 = 1 << 20;

/// Disks by node, kept over restarts.
type Disks = Arc<Mutex<BTreeMap<u64, (MemoryDisk, Arc<MemoryHome>)>>>;

fn on_memory(disks: &Disks) -> impl Fn(&mut StoreConfig) + 'static {
    let disks = Arc::clone(disks);
    move |config| {
        let mut disks = disks.lock().unwrap();
        let (disk, home) = disks.entry(config.node_id).or_insert_with(|| {
            let disk = MemoryDisk::new();
            // So that a share of the disk is more than a few records.
            disk.create(Path::new("/ballast"), 16 * MIB).unwrap();
            (disk, Arc::default())
        });
        config.disk = Arc::new(disk.clone());
        config.archive = Some(home.clone());
        config.limits.space.look = Duration::from_millis(50);
        config.timing.hello_interval = Duration::from_millis(100);
    }
}

/// Leaves a disk filled to `permille`.
fn fill(disks: &Disks, id: u64, permille: u64) {
    let disk = &disks.lock().unwrap()[&id].0;
    disk.set_capacity(disk.taken_bytes() * 1000 / permille);
}

fn finish() -> Command {
    Command {
        principal: "test".to_owned(),
        body: Some(Body::DropTimer(DropTimer {
            key: "none".to_owned(),
        })),
        ..Command::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_moves_off_a_full_disk_and_where_most_are_full_things_only_end() {
    let disks = Disks::default();
    let cluster = Cluster::tuned(3, on_memory(&disks)).await;
    let first = cluster.leader().await;
    fill(&disks, first, 870);
    let alarm = |id: u64| format!("disk/node-{id}");
    let witness = &cluster.stores[&cluster.follower().await];
    let raised = eventually("an alarm of the filling disk", async || {
        witness.view().alarm(&alarm(first)).cloned()
    })
    .await;
    let words = format!("the disk of node {first} is 87.0 % full");
    assert!(raised.message.starts_with(&words), "{raised:?}");

    fill(&disks, first, 960);
    let second = eventually("another leader", async || {
        let leader = witness.leadership().borrow().leader?;
        (leader != first).then_some(leader)
    })
    .await;
    write(&cluster.stores[&first], "with room elsewhere", "1").await;

    let third = (1..=3).find(|id| ![first, second].contains(id)).unwrap();
    fill(&disks, third, 960);
    for id in 1..=3 {
        let store = &cluster.stores[&id];
        let refused = eventually("a refusal", async || {
            match store.propose(put("key", "1")).await {
                Err(ProposeError::NoSpace(why)) => Some(why),
                _ => None,
            }
        })
        .await;
        for said in [first, third] {
            let words = format!("the disk of node {said} is 96.");
            assert!(refused.contains(&words), "{refused}");
        }
        let ended = store.propose(finish()).await.unwrap().outcome;
        assert!(
            matches!(ended.result, Some(outcome::Result::Done(_))),
            "{ended:?}"
        );
    }
    let leader = &cluster.stores[&cluster.leader().await];
    assert!(leader.status().refusal.is_some());
    leader.trigger_snapshot().await.unwrap();

    for id in [first, third] {
        fill(&disks, id, 100);
    }
    eventually("room again", async || {
        leader.propose(put("key", "2")).await.ok()
    })
    .await;
    eventually("no alarm", async || {
        let view = leader.view();
        (view.alarms().count() == 0).then_some(())
    })
    .await;
}

fn alone(disk: &MemoryDisk, reserve_bytes: u64) -> StoreConfig {
    let mut config = StoreConfig::new("/data".into(), 1, "127.0.0.1:0".parse().unwrap());
    config.peer_address = String::new();
    config.disk = Arc::new(disk.clone());
    config.archive = Some(Arc::new(MemoryHome::default()));
    config.limits.wal.segment_bytes = 64 << 10;
    config.limits.keep_entries = 5;
    config.limits.keep_bytes = 0;
    config.limits.space.reserve_bytes = reserve_bytes;
    // Only what must be done without waiting is done.
    config.limits.space.look = Duration::from_secs(3600);
    config
}

async fn start(config: StoreConfig) -> Store {
    let store = Store::open(config).await.unwrap();
    let me = Node {
        id: 1,
        peer_address: "127.0.0.1:1".to_owned(),
        ..Node::default()
    };
    store.bootstrap(vec![me]).await.unwrap();
    // The next is an hour away: what a test does to the disk afterwards is found by writing to it.
    eventually("the first look at the disk", async || {
        store.status().disk.map(drop)
    })
    .await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_lets_a_node_shorten_its_log_on_a_full_disk() {
    let disk = MemoryDisk::new();
    let store = start(alone(&disk, MIB)).await;
    let reserve = || {
        disk.list(Path::new("/data"))
            .unwrap()
            .contains(&"RESERVE".to_owned())
    };
    assert!(reserve());
    disk.set_capacity(disk.taken_bytes() + (100 << 10));
    let value = "x".repeat(1000);
    eventually("the reserve to be used", async || {
        write(&store, "key", &value).await;
        (!reserve()).then_some(())
    })
    .await;
    // Twice: the log reaches back to the older of two snapshots. The log needs room only where it is not shortened.
    for _ in 0..2 {
        write(&store, "key", &value).await;
        let compacting = tokio::time::timeout(PATIENCE, store.trigger_snapshot());
        compacting.await.expect("a snapshot in time").unwrap();
    }
    eventually("a purged log", async || store.status().purged.map(drop)).await;
    for _ in 0..200 {
        write(&store, "key", &value).await;
    }
    let closing = tokio::time::timeout(PATIENCE, store.shutdown());
    closing.await.expect("the end in time");

    disk.set_capacity(u64::MAX);
    let store = Store::open(alone(&disk, MIB)).await.unwrap();
    let recovering = tokio::time::timeout(PATIENCE, store.recovered());
    recovering.await.expect("all applied again in time");
    assert!(reserve());
}

/// On a disk that is much smaller than the log may grow on a large one.
#[tokio::test(flavor = "multi_thread")]
async fn with_little_room_the_log_is_shortened_early() {
    let disk = MemoryDisk::new();
    disk.set_capacity(20 * MIB);
    let mut config = alone(&disk, 0);
    config.limits.wal.segment_bytes = MIB;
    config.limits.keep_bytes = 64 * MIB;
    let store = start(config).await;
    let value = "x".repeat(1000);
    let keys: Vec<String> = (0..200).map(|key| format!("key-{key}")).collect();
    let mut written: u64 = 0;
    while written < 25 * MIB {
        let before = store.status().snapshot;
        // What the log may take between two looks at it.
        let mut wave: u64 = 0;
        while wave < 5 * MIB {
            futures::future::join_all(keys.iter().map(|key| write(&store, key, &value))).await;
            wave += (keys.len() * value.len()) as u64;
        }
        written += wave;
        eventually("a snapshot", async || {
            (store.status().snapshot > before).then_some(())
        })
        .await;
    }
    store.shutdown().await;
}

/// What cannot be shortened is no reason to stop: there may be room again before the log needs any.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_a_snapshot_the_older_one_goes_and_then_none_is_written() {
    let disk = MemoryDisk::new();
    let mut config = alone(&disk, 0);
    config.limits.wal.segment_bytes = MIB;
    // What the log lets go of would make room at some time or other.
    config.limits.keep_entries = 1_000_000;
    let store = start(config).await;
    let value = "x".repeat(1000);
    let mut last = 0;
    let mut grow = async |keys: std::ops::Range<u64>| {
        let keys: Vec<String> = keys.map(|key| format!("key-{key}")).collect();
        let written = keys.iter().map(|key| write(&store, key, &value));
        for written in futures::future::join_all(written).await {
            last = last.max(written.revision);
        }
        last
    };
    let snapshots = || {
        let names = disk.list(Path::new("/data/snapshots")).unwrap();
        names.len()
    };
    grow(0..2000).await;
    store.trigger_snapshot().await.unwrap();
    grow(0..1).await;
    store.trigger_snapshot().await.unwrap();
    assert_eq!(snapshots(), 2);

    disk.set_capacity(disk.taken_bytes() + MIB);
    let last = grow(0..1).await;
    assert!(store.trigger_snapshot().await.unwrap() >= last);
    assert_eq!(snapshots(), 1);

    // More than the last one took.
    disk.set_capacity(u64::MAX);
    grow(2000..6000).await;
    disk.set_capacity(disk.taken_bytes() + 3 * MIB);
    let error = store.trigger_snapshot().await.unwrap_err();
    insta::assert_snapshot!(error, @"there is no room for a snapshot: free space on the disk or give the node a larger one");
    assert_eq!(snapshots(), 1);
    disk.set_capacity(disk.taken_bytes());
    grow(0..1).await;
    let error = store.trigger_snapshot().await.unwrap_err();
    insta::assert_snapshot!(error, @"there is no room for a snapshot: free space on the disk or give the node a larger one");
    assert_eq!(snapshots(), 1);

    disk.set_capacity(u64::MAX);
    let last = grow(0..1).await;
    assert!(store.trigger_snapshot().await.unwrap() >= last);
    store.shutdown().await;
}

/// Consensus drops the wish for a snapshot while one is being written, which may end before what the next one is to hold.
#[tokio::test(flavor = "multi_thread")]
async fn each_snapshot_that_is_asked_for_comes() {
    let store = start(alone(&MemoryDisk::new(), 0)).await;
    // Large enough to be written for longer than a command takes.
    let value = "x".repeat(1000);
    let keys: Vec<String> = (0..2000).map(|key| format!("key-{key}")).collect();
    futures::future::join_all(keys.iter().map(|key| write(&store, key, &value))).await;
    for round in 0..50 {
        let written = write(&store, "key", &format!("{round}")).await;
        for _ in 0..2 {
            let asked = tokio::time::timeout(PATIENCE, store.trigger_snapshot());
            let reached = asked.await.expect("a snapshot in time").unwrap();
            assert!(reached >= written.revision);
        }
    }
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_any_room_stops_and_says_why() {
    let disk = MemoryDisk::new();
    let store = start(alone(&disk, 0)).await;
    write(&store, "key", "before").await;
    disk.set_capacity(disk.taken_bytes());
    let value = "x".repeat(10_000);
    let writing = async { while store.propose(put("other", &value)).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, writing).await.unwrap();
    let fatal = tokio::time::timeout(PATIENCE, store.fatal()).await.unwrap();
    assert_eq!(fatal.kind, FatalKind::Disk);
    insta::assert_snapshot!(fatal, @"creating /data/wal/00000000000000000002.wal failed: no storage space. The disk is full and the reserve used up: free space on it or give it more, then start the node again; nothing acknowledged is lost");
    assert!(!store.holds_lease());
    store.shutdown().await;
    disk.set_capacity(u64::MAX);
    let store = Store::open(alone(&disk, 0)).await.unwrap();
    store.recovered().await;
    assert!(store.view().cursor("key").is_some());
}
