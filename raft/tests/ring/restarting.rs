//! Nodes come back from their disks.

use std::{fs, sync::Arc};

use crate::support::{Cluster, archive, eventually, files, is_archived, read, write};
use trireme_raft::{FatalKind, OpenError, Store, Tamper, offline::Recovery};

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

/// What is missing stays missing over a restart, until a peer gave it.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_not_filled_before_a_restart_is_filled_after_it() {
    let mut cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != follower).collect();
    let before = archive(&cluster.stores[&leader], "before").await;
    cluster.stores[&follower].at_least(before.revision).await;
    cluster.stores[&follower].trigger_snapshot().await.unwrap();
    cluster.kill(follower).await;
    let archive_dir = cluster.data_dir(follower).join("archive");
    fs::write(archive_dir.join("CURRENT"), "sled-1.0 1 db-1\n").unwrap();

    // It hears the leader, and reaches nobody.
    for other in &others {
        cluster.cut(*other);
    }
    cluster.start(follower).await;
    let meanwhile = archive(&cluster.stores[&leader], "meanwhile").await;
    let store = &cluster.stores[&follower];
    store.at_least(meanwhile.revision).await;
    store.trigger_snapshot().await.unwrap();
    assert!(store.status().archive_lost.is_some());
    assert!(!is_archived(store, "before").await);
    cluster.kill(follower).await;
    for other in &others {
        cluster.heal(*other);
    }

    let store = cluster.start(follower).await;
    eventually("an archive that is complete again", async || {
        store.status().archive_lost.is_none().then_some(())
    })
    .await;
    assert!(is_archived(store, "before").await && is_archived(store, "meanwhile").await);
}

/// A leader that lost history must not take the others' from them.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_archives_lack_different_rows_complete_each_other() {
    let mut cluster = Cluster::tuned(1, |config| {
        config.limits.wal.segment_bytes = 16 << 10;
        config.limits.keep_entries = 5;
        config.limits.keep_bytes = 0;
    })
    .await;
    let seeds = [cluster.node(1).peer_address];
    archive(&cluster.stores[&1], "old").await;
    let second = cluster.start(2).await.clone();
    second.join(&seeds).await.unwrap();
    cluster.converged().await;
    assert!(is_archived(&second, "old").await);
    second.trigger_snapshot().await.unwrap();
    drop(second);
    cluster.kill(2).await;

    cluster.stores[&1].trigger_snapshot().await.unwrap();
    cluster.kill(1).await;
    let archive_dir = cluster.data_dir(1).join("archive");
    fs::write(archive_dir.join("CURRENT"), "sled-1.0 1 db-1\n").unwrap();
    let store = cluster.start(1).await.clone();
    store.recovered().await;
    archive(&store, "new").await;
    // The other node needs a snapshot by now.
    for _ in 0..2 {
        for n in 0..300 {
            write(&store, &format!("key-{n}"), "x").await;
        }
        store.trigger_snapshot().await.unwrap();
    }
    eventually("entries that are gone", async || {
        store.status().purged.filter(|purged| *purged > 300)
    })
    .await;
    assert!(store.status().archive_lost.is_some());
    assert!(!is_archived(&store, "old").await);

    cluster.start(2).await;
    cluster.converged().await;
    for store in cluster.stores.values() {
        eventually("an archive that is complete again", async || {
            store.status().archive_lost.is_none().then_some(())
        })
        .await;
        assert!(is_archived(store, "old").await && is_archived(store, "new").await);
    }
}

/// A log that begins anew would have forgotten what it promised.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_is_gone_does_not_start() {
    let mut cluster = Cluster::of(1).await;
    write(&cluster.stores[&1], "key", "x").await;
    cluster.kill(1).await;
    let (data, wal) = (cluster.data_dir(1), cluster.data_dir(1).join("wal"));
    let away = cluster.dir.path().join("away");
    let open = async |cluster: &mut Cluster| {
        let error = Store::open(cluster.config(1)).await.unwrap_err();
        error.to_string().replace(data.to_str().unwrap(), "DATA")
    };
    fs::rename(&wal, &away).unwrap();
    insta::assert_snapshot!(open(&mut cluster).await, @"the log is gone: there is no segment in DATA/wal, though one was begun there. If it is on a volume of its own, mount that, then start again. Otherwise entries that were acknowledged may be lost here, so this node must not go on: replace it under a new id with `trireme cluster replace`, or restore its data directory from a backup");
    // Looking at what could be recovered begins no log either.
    let recovering = Recovery::open(&data).unwrap_err().to_string();
    assert!(recovering.contains("the log is gone"), "{recovering}");
    assert!(open(&mut cluster).await.starts_with("the log is gone"));
    assert!(files(&wal, ".wal").is_empty());
    fs::remove_dir(&wal).unwrap();
    fs::rename(&away, &wal).unwrap();
    cluster.start(1).await.recovered().await;
    assert_eq!(read(&cluster.stores[&1], "key").as_deref(), Some("x"));

    // Written by a version that left no note of it: then a snapshot tells.
    cluster.stores[&1].trigger_snapshot().await.unwrap();
    cluster.kill(1).await;
    fs::remove_file(data.join("LOG")).unwrap();
    fs::remove_dir_all(&wal).unwrap();
    assert!(open(&mut cluster).await.starts_with("the log is gone"));
}
