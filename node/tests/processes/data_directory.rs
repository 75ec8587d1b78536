//! A data directory that cannot be trusted stops its node, which says what to do.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message as _;
use trireme_proto::{
    raft::{Entry, entry::Payload},
    state::{Batch, Command},
};
use trireme_raft::{
    disk::RealDisk,
    wal::{Owner, Wal, WalOptions},
};

use crate::{
    command::{Answer, run, text},
    scene::Nodes,
};

/// Of the command line (`trireme --help`).
const CANNOT_BE_TRUSTED: i32 = 74;
const TOO_OLD: i32 = 70;

struct Stopped {
    nodes: Nodes,
    data: PathBuf,
    settings: PathBuf,
}

/// A node that has run, written something and stopped.
async fn stopped() -> Stopped {
    let mut nodes = Nodes::start(1).await;
    let config = nodes.directory.path().join("config.yaml");
    for number in 0..5 {
        std::fs::write(&config, format!("prowjob_namespace: n{number}\n")).unwrap();
        nodes
            .run(&["config", "apply", "--config-path", text(&config)])
            .await
            .done();
    }
    nodes.cluster.stop().await.unwrap();
    let directory = nodes.cluster.member(1).unwrap().directory.clone();
    Stopped {
        data: directory.join("data"),
        settings: directory.join("trireme.toml"),
        nodes,
    }
}

impl Stopped {
    async fn serve(&self, more: &[&str]) -> Answer {
        serve(&self.settings, more).await
    }
}

async fn serve(settings: &Path, more: &[&str]) -> Answer {
    let mut arguments = vec!["serve", "--exit-with-parent", "--config", text(settings)];
    arguments.extend(more);
    run("", &arguments).await
}

fn refused(answer: &Answer, reason: &str, what_to_do: &str) {
    assert_eq!(answer.code, CANNOT_BE_TRUSTED, "{answer:?}");
    let last = answer.err.lines().last().unwrap();
    assert!(last.starts_with("trireme: "), "{answer:?}");
    assert!(last.contains(reason), "{last}");
    assert!(last.contains(what_to_do), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused_to_a_second_process() {
    let mut nodes = Nodes::start(1).await;
    let settings = nodes
        .cluster
        .member(1)
        .unwrap()
        .directory
        .join("trireme.toml");
    let second = serve(
        &settings,
        &["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"],
    )
    .await;
    refused(
        &second,
        "is in use by another process",
        "stop that node first",
    );
    // The first goes on undisturbed.
    nodes.cluster.check_alive().unwrap();
    nodes.run(&["cluster", "status"]).await.done();
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_stops_the_node_which_names_the_place_and_the_way_out() {
    let stopped = stopped().await;
    let wal = stopped.data.join("wal");
    let mut segments: Vec<PathBuf> = std::fs::read_dir(&wal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.sort();
    let segment = &segments[0];
    let good = std::fs::read(segment).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    let mut bad = good.clone();
    // In the middle: synced long before the last record. A zero there may be padding, which carries nothing.
    let at = (used / 2..used).find(|at| good[*at] != 0).unwrap();
    bad[at] ^= 0xff;
    std::fs::write(segment, &bad).unwrap();
    let answer = stopped.serve(&[]).await;
    refused(
        &answer,
        &format!("the log is damaged: {} at byte ", segment.display()),
        "`trireme cluster replace`",
    );
    // Nothing was repaired behind anybody's back.
    assert_eq!(std::fs::read(segment).unwrap(), bad);

    std::fs::write(segment, good).unwrap();
    let mut nodes = stopped.nodes;
    nodes.cluster.restart(1).unwrap();
    nodes.cluster.wait_for_leader().await.unwrap();
    nodes.run(&["config", "history"]).await.done();
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_node_or_without_a_good_identity_is_refused() {
    let stopped = stopped().await;
    let other = stopped.serve(&["--node-id", "7"]).await;
    // The settings name node 1 as the cluster's only one.
    assert_ne!(other.code, 0, "{other:?}");

    let identity = stopped.data.join("IDENTITY");
    let good = std::fs::read_to_string(&identity).unwrap();
    for (bad, reason, what_to_do) in [
        (
            good.replace("node_id = 1", "node_id = 2"),
            "belongs to node 2, but this node is configured as 1",
            "correct node_id",
        ),
        (
            good.replace("format = 1", "format = 9"),
            "has data directory format 9, this version reads format 1",
            "start the version that wrote it",
        ),
        (
            good.replace("node_id = 1", "node_id one"),
            "expected `key = value`",
            "restore it from a backup",
        ),
        (
            "\u{0}\u{0}\u{0}".to_owned(),
            "IDENTITY: line 1: ",
            "replace the node under a new id",
        ),
    ] {
        assert_ne!(bad, good);
        std::fs::write(&identity, bad).unwrap();
        refused(&stopped.serve(&[]).await, reason, what_to_do);
    }
    std::fs::remove_file(&identity).unwrap();
    refused(
        &stopped.serve(&[]).await,
        "holds a log but no IDENTITY",
        "Restore IDENTITY from a backup",
    );
}

/// A command of a later version in the log ends the node before it is applied, with a code of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_newer_version_ends_the_node_before_it_is_applied() {
    let stopped = stopped().await;
    let identity = std::fs::read_to_string(stopped.data.join("IDENTITY")).unwrap();
    let cluster_id = identity
        .lines()
        .find_map(|line| line.strip_prefix("cluster_id = "))
        .unwrap();
    let owner = Owner {
        cluster_id: cluster_id.to_owned(),
        node_id: 1,
    };
    let options = WalOptions::default();
    let wal = Wal::open(
        Arc::new(RealDisk),
        &stopped.data.join("wal"),
        owner,
        &options,
    )
    .unwrap();
    let mut last = wal.state().last.unwrap();
    last.index += 1;
    let batch = Batch {
        commands: vec![Command {
            min_level: 1000,
            principal: "a later version".to_owned(),
            ..Command::default()
        }],
        ..Batch::default()
    };
    let entry = Entry {
        log_id: Some(last.into()),
        payload: Some(Payload::Batch(batch.encode_to_vec().into())),
    };
    let (written, done) = tokio::sync::oneshot::channel();
    let done_with = Box::new(move |result| written.send(result).unwrap());
    wal.append(vec![entry], done_with).await.unwrap();
    done.await.unwrap().unwrap();
    wal.close();
    drop(wal);

    // However often it is tried.
    for _ in 0..2 {
        let answer = stopped.serve(&[]).await;
        assert_eq!(answer.code, TOO_OLD, "{answer:?}");
        let told = answer.err.lines().last().unwrap();
        for part in [
            "that this version does not know: it was proposed by a newer version",
            "Nothing of it was applied; start that version on this data directory",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }
}
