//! New clusters from a saved snapshot and from the last disk of a former one.

use std::{fs, path::PathBuf};

use tokio::sync::mpsc;
use trireme_raft::{
    Fatal, FatalKind, Node, PeerListener, Store, StoreConfig,
    offline::{self, Founded, RecoverOptions, Recovery, RestoreOptions},
};

use crate::support::{Cluster, PATIENCE, archive, eventually, is_archived, read, write};

async fn save(store: &Store, file: &std::path::Path) -> u64 {
    let mut saving = store.save_snapshot().await.unwrap();
    assert!(saving.current);
    let mut bytes = Vec::new();
    while let Some(piece) = saving.pieces.recv().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    fs::write(file, bytes).unwrap();
    saving.revision
}

async fn restore(options: RestoreOptions) -> Result<Founded, offline::OfflineError> {
    tokio::task::spawn_blocking(move || offline::restore(&options))
        .await
        .unwrap()
}

fn listener() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Opens a store in `data_dir`.
async fn open(data_dir: PathBuf, id: u64, at: (std::net::TcpListener, String)) -> Store {
    let (listener, address) = at;
    let address = address.parse().unwrap();
    let mut config = StoreConfig::new(data_dir, id, address);
    config.peer_listener = PeerListener::Bound(listener);
    Store::open(config).await.unwrap()
}

async fn stopped(store: &Store) -> Fatal {
    tokio::time::timeout(PATIENCE, store.fatal())
        .await
        .expect("the node hears that it was removed")
}

async fn leads(store: &Store) {
    eventually("a leader", async || store.holds_lease().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_snapshot_begins_a_new_cluster_that_others_join() {
    let cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let store = &cluster.stores[&follower];
    for n in 0..20 {
        write(store, &format!("key-{n}"), "x").await;
    }
    archive(store, "before").await;
    let file = cluster.dir.path().join("saved");
    let revision = save(store, &file).await;
    // What comes later is not in it.
    archive(store, "after").await;
    let later = write(store, "key-0", "y").await.revision;

    let found = offline::inspect(&file).unwrap();
    assert_eq!((found.revision, found.header.node_id), (revision, follower));
    assert_eq!(found.records["cursors"], 20);
    assert_eq!(found.archive["deliveries"], 1);
    assert_eq!(found.header.used_node_ids, [1, 2, 3]);

    let data_dir = cluster.dir.path().join("restored");
    let at = listener();
    let address = at.1.clone();
    let options = |node_id| RestoreOptions {
        file: file.clone(),
        data_dir: data_dir.clone(),
        node_id,
        peer_address: address.clone(),
        api_address: "api".to_owned(),
    };
    let error = restore(options(2)).await.unwrap_err().to_string();
    assert!(error.starts_with("node id 2 was used"), "{error}");
    assert!(!data_dir.exists());
    let founded = restore(options(4)).await.unwrap();
    let again = restore(options(5)).await.unwrap_err().to_string();
    assert!(again.contains("is not empty"), "{again}");
    assert_eq!((founded.former_revision, founded.node.id), (revision, 4));
    assert!(founded.archive_rows > 0);

    let restored = open(data_dir.clone(), 4, at).await;
    leads(&restored).await;
    assert_eq!(restored.cluster_id(), Some(founded.cluster_id.as_str()));
    assert_ne!(restored.cluster_id(), store.cluster_id());
    assert_eq!(read(&restored, "key-0").as_deref(), Some("x"));
    assert!(is_archived(&restored, "before").await);
    assert!(!is_archived(&restored, "after").await);
    // Nothing that the former cluster gave away as an epoch or a fence is given again.
    assert!(write(&restored, "new", "1").await.revision > later + 1_000_000);

    // Another joins with an empty directory; an id of the former cluster is refused.
    let old_id = open(cluster.dir.path().join("joins-3"), 3, listener()).await;
    let error = old_id
        .join(std::slice::from_ref(&address))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("belonged to a former member"),
        "{error}"
    );
    let joins = open(cluster.dir.path().join("joins-5"), 5, listener()).await;
    joins.join(&[address]).await.unwrap();
    eventually("a promoted learner", async || joins.promote(5).await.ok()).await;
    eventually("the state of the first", async || read(&joins, "new")).await;
    assert!(is_archived(&joins, "before").await);
    restored.shutdown().await;
}

/// A save that runs while the cluster writes and archives holds one revision, and whoever stops taking it stops it.
#[tokio::test(flavor = "multi_thread")]
async fn one_snapshot_at_a_time_is_saved_while_writing_goes_on() {
    let cluster = Cluster::of(1).await;
    let store = &cluster.stores[&1];
    // More than the pieces that wait hold, so that the first save cannot end by itself.
    for n in 0..40 {
        write(store, &format!("big-{n}"), &"v".repeat(60_000)).await;
    }
    let saving = store.save_snapshot().await.unwrap();
    let error = store.save_snapshot().await.unwrap_err().to_string();
    assert!(error.contains("another snapshot is being saved"), "{error}");
    write(store, "meanwhile", "1").await;
    drop(saving);
    let second = eventually("the end of the first", async || {
        store.save_snapshot().await.ok()
    })
    .await;
    let mut pieces: mpsc::Receiver<_> = second.pieces;
    let mut bytes = 0;
    while let Some(piece) = pieces.recv().await {
        bytes += piece.unwrap().len();
    }
    assert!(bytes > 40 * 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_disk_of_a_cluster_begins_a_new_one() {
    let mut cluster = Cluster::of(3).await;
    let survivor = cluster.follower().await;
    archive(&cluster.stores[&survivor], "guid").await;
    for n in 0..20 {
        write(&cluster.stores[&survivor], &format!("key-{n}"), "x").await;
    }
    let former = cluster.stores[&survivor].cluster_id().map(str::to_owned);
    let revision = cluster.stores[&survivor].status().revision;
    let dir = cluster.data_dir(survivor);
    let in_use = Recovery::open(&dir).unwrap_err().to_string();
    assert!(in_use.contains("is in use"), "{in_use}");
    for id in [1, 2, 3] {
        cluster.kill(id).await;
    }

    let path = dir.clone();
    let at = listener();
    let address = at.1.clone();
    let peer_address = Some(address.clone());
    let founded = tokio::task::spawn_blocking(move || {
        let recovery = Recovery::open(&path).unwrap();
        assert!(recovery.found().revision >= revision);
        let options = RecoverOptions {
            data_dir: path,
            peer_address,
            ..RecoverOptions::default()
        };
        drop(recovery);
        // What is known to be wrong is no foundation, unless there is nothing else.
        let marker = options.data_dir.join("DIVERGED");
        fs::write(&marker, "audit = 7\npeer = 127.0.0.1:1\n").unwrap();
        let recovery = Recovery::open(&options.data_dir).unwrap();
        let refused = recovery.plan(&options, "then").unwrap_err().to_string();
        insta::assert_snapshot!(refused, @"this node's state was found to differ from the majority's at entry 7 (DIVERGED in its data directory): recover from another node's disk, or restore a saved snapshot. If there is neither, --accept-diverged goes on with what is here");
        let accepting = RecoverOptions {
            accept_diverged: true,
            ..options.clone()
        };
        recovery.plan(&accepting, "then").unwrap();
        drop(recovery);
        fs::remove_file(marker).unwrap();
        let recovery = Recovery::open(&options.data_dir).unwrap();
        let plan = recovery.plan(&options, "then").unwrap();
        assert_eq!((plan.node.id, plan.dropped.len()), (4, 2));
        recovery.carry_out(plan).unwrap()
    })
    .await
    .unwrap();
    assert_eq!(Some(founded.former_cluster_id.clone()), former);
    let kept = founded.kept.clone().unwrap();
    let held = fs::read_to_string(kept.join("IDENTITY")).unwrap();
    assert!(held.contains(&founded.former_cluster_id), "{held}");

    let store = open(dir, 4, at).await;
    leads(&store).await;
    assert_eq!(read(&store, "key-19").as_deref(), Some("x"));
    assert!(is_archived(&store, "guid").await);
    write(&store, "after", "1").await;
    let joins = open(cluster.dir.path().join("joins"), 5, listener()).await;
    joins.join(&[address]).await.unwrap();
    eventually("the state of the first", async || read(&joins, "after")).await;
    assert!(is_archived(&joins, "guid").await);
    // The former node's directory still opens as what it was, and is no member of the new cluster.
    let old = open(kept, survivor, listener()).await;
    assert_eq!(old.cluster_id().map(str::to_owned), former);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_steps_down_for_the_best_voter_whoever_is_asked() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    write(&cluster.stores[&follower], "a", "1").await;
    let handover = eventually("a handover", async || {
        cluster.stores[&follower].step_down().await.ok()
    })
    .await;
    assert_eq!(handover.from, Some(leader));
    assert_ne!(handover.to, leader);
    assert_eq!(cluster.leader().await, handover.to);
    write(&cluster.stores[&leader], "b", "1").await;

    let alone = Cluster::of(1).await;
    let error = alone.stores[&1].step_down().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "node 1 is the only voting member: nobody else can lead"
    );
}

/// A node that was taken out hears of it and stops, whether it runs at that time or comes back later.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_stops_and_says_why() {
    let mut cluster = Cluster::tuned(3, |config| {
        config.timing.hello_interval = std::time::Duration::from_millis(200);
    })
    .await;
    let (running, absent) = {
        let leader = cluster.leader().await;
        let mut others = [1, 2, 3].into_iter().filter(|id| *id != leader);
        (others.next().unwrap(), others.next().unwrap())
    };
    // Whom to ask later is in the log.
    write(&cluster.stores[&absent], "before", "1").await;
    cluster.converged().await;
    cluster.kill(absent).await;
    let leader = cluster.leader().await;
    let remove = async |id: u64| {
        eventually("a removal", async || {
            cluster.stores[&leader].remove(id).await.ok()
        })
        .await;
    };
    remove(absent).await;
    remove(running).await;
    let fatal = stopped(&cluster.stores[&running]).await;
    assert_eq!(fatal.kind, FatalKind::Removed);
    assert_eq!(
        fatal.message,
        format!(
            "node {running} was removed from the cluster: do not start it again. Its data directory can be deleted; to let \
             this machine join again, give it an empty data directory and a node id that was never used"
        )
    );
    cluster.start(absent).await;
    let fatal = stopped(&cluster.stores[&absent]).await;
    assert_eq!(fatal.kind, FatalKind::Removed);
    // And again after every restart.
    cluster.kill(running).await;
    cluster.start(running).await;
    assert_eq!(
        stopped(&cluster.stores[&running]).await.kind,
        FatalKind::Removed
    );
    write(&cluster.stores[&leader], "alone", "1").await;
    let memberships = cluster.stores[&leader].memberships();
    let last: Vec<u64> = memberships
        .last()
        .unwrap()
        .1
        .nodes
        .iter()
        .map(|n: &Node| n.id)
        .collect();
    assert_eq!(last, [leader]);
    assert_eq!(cluster.stores[&leader].used_node_ids(), [1, 2, 3]);
}

/// A learner counts for nothing until it has caught up.
#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_is_behind_is_not_promoted() {
    let mut cluster = Cluster::of(1).await;
    for n in 0..300 {
        write(&cluster.stores[&1], &format!("key-{n}"), "x").await;
    }
    let seeds = [cluster.node(1).peer_address];
    cluster.start(2).await.clone().join(&seeds).await.unwrap();
    cluster.kill(2).await;
    let behind = eventually("silence", async || {
        let error = cluster.stores[&1].promote(2).await.err()?;
        error
            .to_string()
            .contains("does not answer")
            .then_some(error)
    })
    .await;
    assert_eq!(behind.to_string(), "node 2 does not answer");
    let members = cluster.stores[&1].status().members;
    assert!(!members[1].voter);
    // The cluster goes on: the learner's absence costs no quorum.
    write(&cluster.stores[&1], "more", "x").await;
    cluster.start(2).await;
    eventually("a promoted learner", async || {
        cluster.stores[&1].promote(2).await.ok()
    })
    .await;
    cluster.converged().await;
}
