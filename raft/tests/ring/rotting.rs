//! Files that rot or fail while a node runs: it hands over and stops, or tells before it matters.

use std::{
    fs, io,
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::watch;
use trireme_raft::{
    FatalKind, ScrubError, Scrubbed, StoreConfig,
    archive::{ArchiveHome, ArchiveStore, MemoryHome, Opened, Row},
    disk::MemoryDisk,
};
use trireme_state::ArchiveOp;

use crate::support::{Cluster, PATIENCE, archive, eventually, files, put, write};

fn small(config: &mut StoreConfig) {
    config.limits.wal.segment_bytes = 16 << 10;
    config.limits.wal.cache_bytes = 0;
    config.limits.keep_entries = 5;
    config.limits.keep_bytes = 0;
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// In the first third of what was written.
fn rot(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    flip(path, end / 3);
}

async fn fill(cluster: &Cluster, id: u64, entries: usize) {
    let value = "x".repeat(1000);
    for n in 0..entries {
        write(&cluster.stores[&id], &format!("key-{n}"), &value).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_reads_a_rotten_log_stops_and_another_leads() {
    let cluster = Cluster::tuned(3, small).await;
    let lagging = cluster.follower().await;
    cluster.cut(lagging);
    let others: Vec<u64> = (1..=3).filter(|id| *id != lagging).collect();
    let leader = cluster.leader_among(&others).await;
    // More than one request: the first was read already and waits to be sent.
    fill(&cluster, leader, 350).await;
    for segment in files(&cluster.data_dir(leader).join("wal"), ".wal") {
        rot(&segment);
    }
    cluster.heal(lagging);
    let fatal = tokio::time::timeout(PATIENCE, cluster.stores[&leader].fatal());
    let fatal = fatal.await.unwrap();
    assert_eq!(fatal.kind, FatalKind::Corruption, "{fatal}");
    for part in [
        "the log is damaged",
        "wal/",
        "the checksum does not match",
        "trireme cluster replace",
    ] {
        assert!(fatal.message.contains(part), "{fatal}");
    }
    let left: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let next = cluster.leader_among(&left).await;
    write(&cluster.stores[&next], "later", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_snapshot_is_rotten_when_it_is_sent_stops() {
    let cluster = Cluster::tuned(3, small).await;
    let lagging = cluster.follower().await;
    cluster.cut(lagging);
    let others: Vec<u64> = (1..=3).filter(|id| *id != lagging).collect();
    let leader = cluster.leader_among(&others).await;
    fill(&cluster, leader, 40).await;
    let store = &cluster.stores[&leader];
    for _ in 0..2 {
        store.trigger_snapshot().await.unwrap();
        fill(&cluster, leader, 10).await;
    }
    eventually("a purged log", async || store.status().purged.map(drop)).await;
    for snapshot in files(&cluster.data_dir(leader).join("snapshots"), ".snap") {
        rot(&snapshot);
    }
    cluster.heal(lagging);
    let fatal = tokio::time::timeout(PATIENCE, store.fatal()).await.unwrap();
    assert_eq!(fatal.kind, FatalKind::Corruption, "{fatal}");
    for part in [".snap is damaged at byte", "Start the node again"] {
        assert!(fatal.message.contains(part), "{fatal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_sync_fails_is_followed_by_another() {
    let disk = MemoryDisk::new();
    let first = disk.clone();
    let cluster = Cluster::tuned(3, move |config| {
        if config.node_id == 1 {
            config.disk = Arc::new(first.clone());
            config.archive = Some(Arc::new(MemoryHome::default()));
        }
    })
    .await;
    if cluster.leader().await != 1 {
        cluster.stores[&2].transfer_leader(1).await.unwrap();
    }
    cluster.leader().await;
    disk.fail_syncs_after(0);
    // Its own copy is lost to it, the others' are not.
    let _ = cluster.stores[&1].propose(put("key", "1")).await;
    let fatal = tokio::time::timeout(PATIENCE, cluster.stores[&1].fatal());
    assert_eq!(fatal.await.unwrap().kind, FatalKind::Disk);
    let next = cluster.leader_among(&[2, 3]).await;
    write(&cluster.stores[&next], "later", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_unread_is_found_by_reading_it_now_and_then() {
    let cluster = Cluster::tuned(1, small).await;
    let store = &cluster.stores[&1];
    fill(&cluster, 1, 40).await;
    store.trigger_snapshot().await.unwrap();
    fill(&cluster, 1, 20).await;
    let whole = store.scrub().await.unwrap();
    assert!(whole.is_whole(), "{whole:?}");
    assert!(
        whole.files > 2 && whole.files == whole.of_files,
        "{whole:?}"
    );
    assert!(
        whole.bytes > 20_000 && whole.bytes == whole.of_bytes,
        "{whole:?}"
    );
    let segment = files(&cluster.data_dir(1).join("wal"), ".wal").remove(0);
    let snapshot = files(&cluster.data_dir(1).join("snapshots"), ".snap").remove(0);
    rot(&segment);
    rot(&snapshot);
    let found = store.scrub().await.unwrap();
    assert_eq!(found.damaged.len(), 2, "{found:?}");
    assert_eq!(
        found.files, found.of_files,
        "the others were read: {found:?}"
    );
    let alarm = store.view().alarm("corruption/node-1").cloned().unwrap();
    for part in [
        segment.to_str().unwrap(),
        snapshot.to_str().unwrap(),
        "Do not restart it: replace it under a new id with `trireme cluster replace`",
    ] {
        assert!(alarm.message.contains(part), "{alarm:?}");
    }
    // Two newer snapshots make both unneeded.
    for _ in 0..2 {
        fill(&cluster, 1, 20).await;
        store.trigger_snapshot().await.unwrap();
    }
    eventually("files that are whole again", async || {
        let found = store.scrub().await.unwrap();
        found.damaged.is_empty().then_some(())
    })
    .await;
    assert!(store.view().alarm("corruption/node-1").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_checked_once_at_a_time_and_for_as_long_as_somebody_waits() {
    let cluster = Cluster::tuned(1, |config| {
        small(config);
        // Far more than a minute for what is there.
        config.limits.scrub_bytes_per_second = 512;
    })
    .await;
    let store = &cluster.stores[&1];
    fill(&cluster, 1, 40).await;
    let (told, mut so_far) = watch::channel(Scrubbed::default());
    let first = tokio::spawn({
        let store = store.clone();
        async move { store.scrub_telling(told).await }
    });
    let seen = so_far.wait_for(|seen| seen.bytes > 0);
    let seen = tokio::time::timeout(PATIENCE, seen).await.unwrap();
    let seen = seen.unwrap().clone();
    assert!(
        seen.files < seen.of_files && seen.bytes < seen.of_bytes,
        "{seen:?}"
    );
    let second = store.scrub().await.unwrap_err();
    assert!(matches!(second, ScrubError::Busy), "{second}");

    drop(so_far);
    let first = tokio::time::timeout(PATIENCE, first).await.unwrap();
    assert!(matches!(first.unwrap(), Err(ScrubError::GivenUp)));
    // The place is free again.
    let (told, so_far) = watch::channel(Scrubbed::default());
    drop(so_far);
    let third = store.scrub_telling(told).await;
    assert!(matches!(third, Err(ScrubError::GivenUp)), "{third:?}");
}

/// An archive that fails on demand, as sled does on a bad disk.
#[derive(Debug, Clone)]
struct Failing {
    home: Arc<MemoryHome>,
    store: Option<Arc<dyn ArchiveStore>>,
    fails: Arc<AtomicBool>,
}

impl Failing {
    fn present(&self) -> io::Result<&Arc<dyn ArchiveStore>> {
        match (&self.store, self.fails.load(Ordering::SeqCst)) {
            (Some(store), false) => Ok(store),
            _ => Err(io::Error::other("a page's checksum does not match")),
        }
    }
}

impl ArchiveHome for Failing {
    fn open(&self) -> io::Result<Opened> {
        let Opened { store, lost } = self.home.open()?;
        let store = Arc::new(Self {
            store: Some(store),
            ..self.clone()
        });
        Ok(Opened { store, lost })
    }

    fn begin(&self) -> io::Result<(u64, Arc<dyn ArchiveStore>)> {
        self.home.begin()
    }

    fn finish(&self, number: u64) -> io::Result<u64> {
        self.home.finish(number)
    }

    fn discard(&self, number: u64) {
        self.home.discard(number);
    }
}

impl ArchiveStore for Failing {
    fn applied(&self) -> io::Result<u64> {
        self.present()?.applied()
    }

    fn owner(&self) -> io::Result<Option<String>> {
        self.present()?.owner()
    }

    fn set_owner(&self, cluster_id: &str) -> io::Result<()> {
        self.present()?.set_owner(cluster_id)
    }

    fn missing(&self) -> io::Result<Option<u64>> {
        self.present()?.missing()
    }

    fn set_missing(&self, upto: Option<u64>) -> io::Result<()> {
        self.present()?.set_missing(upto)
    }

    fn write(&self, ops: &[ArchiveOp], applied: u64) -> io::Result<()> {
        self.present()?.write(ops, applied)
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        self.present()?.get(key)
    }

    fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        self.present()?.range(range, reverse, limit)
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.present()?.checkpoint()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_that_rots_is_found_as_well() {
    let fails = Arc::<AtomicBool>::default();
    let home = Failing {
        home: Arc::default(),
        store: None,
        fails: Arc::clone(&fails),
    };
    let cluster = Cluster::tuned(1, move |config| {
        config.archive = Some(Arc::new(home.clone()));
    })
    .await;
    let store = &cluster.stores[&1];
    archive(store, "before").await;
    store.trigger_snapshot().await.unwrap();
    let whole = store.scrub().await.unwrap();
    assert!(whole.is_whole(), "{whole:?}");
    fails.store(true, Ordering::SeqCst);
    let found = store.scrub().await.unwrap();
    assert_eq!(found.files, found.of_files);
    let told = found.archive.unwrap();
    let alarm = store.view().alarm("corruption/node-1").cloned().unwrap();
    assert!(alarm.message.contains(&told), "{alarm:?}");
    insta::assert_snapshot!(told, @"the archive cannot be read: a page's checksum does not match. Nothing else needs it: stop the node, move `archive` out of its data directory and start it again, and it fills a new one from a peer");
    fails.store(false, Ordering::SeqCst);
    assert!(store.scrub().await.unwrap().is_whole());
    assert!(store.view().alarm("corruption/node-1").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_archive_fails_hands_over_and_says_how_to_get_another() {
    let fails = Arc::<AtomicBool>::default();
    let home = Failing {
        home: Arc::default(),
        store: None,
        fails: Arc::clone(&fails),
    };
    let cluster = Cluster::tuned(3, move |config| {
        if config.node_id == 1 {
            config.archive = Some(Arc::new(home.clone()));
        }
    })
    .await;
    if cluster.leader().await != 1 {
        cluster.stores[&2].transfer_leader(1).await.unwrap();
    }
    cluster.leader().await;
    archive(&cluster.stores[&2], "before").await;
    fails.store(true, Ordering::SeqCst);
    // Noticed at the latest when a snapshot needs it.
    let _ = cluster.stores[&1].trigger_snapshot().await;
    let fatal = tokio::time::timeout(PATIENCE, cluster.stores[&1].fatal());
    let fatal = fatal.await.unwrap();
    assert_eq!(fatal.kind, FatalKind::Archive, "{fatal}");
    insta::assert_snapshot!(fatal, @"the archive cannot be written: a page's checksum does not match. Check the disk and how full it is, then start the node again; if it fails again, move `archive` out of the data directory: the node fills a new one from a peer");
    let next = cluster.leader_among(&[2, 3]).await;
    archive(&cluster.stores[&next], "after").await;
}
