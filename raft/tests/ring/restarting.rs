//! Nodes come back from their disks.

use std::{fs, sync::Arc};

use crate::support::{Cluster, archive, eventually, files, is_archived, read, write};
use trireme_raft::{FatalKind, OpenError, Store, Tamper};

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_stop_and_come_back() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    for n in 0..30 {
        write(&cluster.stores[&leader], &format!("key-{n}"), "x").await;
    }
    archive(&cluster.stores[&leader], "guid").await;
    let cluster_id = cluster.stores[&1].cluster_id().unwrap().to_owned();
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    cluster.leader().await;
    for store in cluster.stores.values() {
        store.recovered().await;
        assert_eq!(store.cluster_id(), Some(&*cluster_id));
        for n in 0..30 {
            assert_eq!(read(store, &format!("key-{n}")).as_deref(), Some("x"));
        }
        assert!(is_archived(store, "guid").await);
    }
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_lets_go_of_its_directory_and_answers_with_errors() {
    let mut cluster = Cluster::of(1).await;
    let store = cluster.stores[&1].clone();
    write(&store, "a", "1").await;
    store.shutdown().await;
    store
        .propose(crate::support::put("b", "1"))
        .await
        .unwrap_err();
    store.linearize().await.unwrap_err();
    let again = cluster.start(1).await;
    again.recovered().await;
    assert_eq!(read(again, "a").as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_cannot_use_one_directory() {
    let mut cluster = Cluster::of(1).await;
    let mut config = cluster.config(1);
    config.peer_listener = trireme_raft::PeerListener::Address("127.0.0.1:0".parse().unwrap());
    let error = Store::open(config).await.unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_log_is_cut_and_the_node_catches_up() {
    let mut cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    for n in 0..20 {
        write(&cluster.stores[&follower], &format!("key-{n}"), "x").await;
    }
    cluster.kill(follower).await;
    // As if the power had gone within the last write.
    let segment = files(&cluster.data_dir(follower).join("wal"), ".wal")
        .pop()
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 20..=end].fill(0);
    fs::write(&segment, bytes).unwrap();

    let back = cluster.start(follower).await;
    back.recovered().await;
    cluster.converged().await;
    assert_eq!(
        read(&cluster.stores[&follower], "key-19").as_deref(),
        Some("x")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_too_old_for_its_log_says_so_when_it_is_started() {
    let mut cluster = Cluster::of(1).await;
    write(&cluster.stores[&1], "key", "x").await;
    cluster.kill(1).await;
    let mut config = cluster.config(1);
    // As an older build would read it.
    config.tamper = Some(Tamper(Arc::new(|_, batch| {
        for command in &mut batch.commands {
            command.min_level = 1000;
        }
    })));
    let fatal = match Store::open(config).await {
        Err(OpenError::Stopped(fatal)) => fatal,
        // Nothing was known to be committed before it led.
        Ok(store) => store.fatal().await,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(fatal.kind, FatalKind::UnknownCommand, "{fatal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_damaged_in_the_middle_stops_the_node_and_says_what_to_do() {
    let mut cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    for n in 0..20 {
        write(&cluster.stores[&follower], &format!("key-{n}"), "x").await;
    }
    cluster.kill(follower).await;
    let segment = files(&cluster.data_dir(follower).join("wal"), ".wal").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    // Not one of the zeros between records, which say nothing.
    let middle = (end / 2..end).find(|at| bytes[*at] != 0).unwrap();
    bytes[middle] ^= 0x10;
    fs::write(&segment, &bytes).unwrap();

    let config = cluster.config(follower);
    let error = Store::open(config).await.unwrap_err();
    assert!(matches!(error, OpenError::Wal(_)), "{error}");
    let error = error.to_string();
    for part in [
        segment.to_str().unwrap(),
        "at byte",
        "trireme cluster replace",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(fs::read(&segment).unwrap(), bytes, "nothing was changed");
    cluster.leader().await;
}

/// Votes, entries and history of one cluster must never be taken for another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_put_together_from_two_clusters_is_refused() {
    let mut ours = Cluster::of(1).await;
    let mut theirs = Cluster::of(1).await;
    for cluster in [&ours, &theirs] {
        archive(&cluster.stores[&1], "guid").await;
        cluster.stores[&1].trigger_snapshot().await.unwrap();
    }
    let our_id = ours.stores[&1].cluster_id().unwrap().to_owned();
    let their_id = theirs.stores[&1].cluster_id().unwrap().to_owned();
    ours.kill(1).await;
    theirs.kill(1).await;
    for part in ["wal", "snapshots", "archive"] {
        let (own, foreign) = (ours.data_dir(1).join(part), theirs.data_dir(1).join(part));
        let aside = ours.data_dir(1).join("aside");
        fs::rename(&own, &aside).unwrap();
        fs::rename(&foreign, &own).unwrap();
        let error = Store::open(ours.config(1)).await.unwrap_err().to_string();
        for said in [own.to_str().unwrap(), &our_id, &their_id] {
            assert!(error.contains(said), "{part}: {error}");
        }
        fs::rename(&own, &foreign).unwrap();
        fs::rename(&aside, &own).unwrap();
    }
    // Put right again, both go on.
    for cluster in [&mut ours, &mut theirs] {
        let store = cluster.start(1).await;
        store.recovered().await;
        assert!(is_archived(store, "guid").await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_set_aside_and_filled_from_a_peer() {
    let mut cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    for n in 0..5 {
        archive(&cluster.stores[&follower], &format!("guid-{n}")).await;
    }
    cluster.stores[&follower].trigger_snapshot().await.unwrap();
    cluster.kill(follower).await;
    let archive_dir = cluster.data_dir(follower).join("archive");
    fs::write(archive_dir.join("CURRENT"), "sled-1.0 1 db-1\n").unwrap();

    cluster.start(follower).await;
    let store = &cluster.stores[&follower];
    store.recovered().await;
    eventually("an archive that is complete again", async || {
        store.status().archive_lost.is_none().then_some(())
    })
    .await;
    for n in 0..5 {
        assert!(is_archived(store, &format!("guid-{n}")).await);
    }
}
