//! Whether all members hold the same state, and whether their disks still hold what was written: asked, found, cured.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use trireme_proto::{
    raft::{FetchSnapshotRequest, raft_transport_client::RaftTransportClient},
    state::{SnapshotRow, change::Record, snapshot_row::Row},
};
use trireme_raft::{
    disk::RealDisk,
    snapshot::{SnapshotFile, Snapshots},
};
use trireme_state::{SnapshotError, State};

use crate::{
    command::{Answer, text},
    scene::{Nodes, until},
};

/// Of the command line (`trireme --help`).
const NOT_FOUND: i32 = 4;
const CANNOT_BE_TRUSTED: i32 = 74;
const DIFFERS: i32 = 75;

async fn configured() -> Nodes {
    let nodes = Nodes::start(3).await;
    let config = nodes.directory.path().join("config.yaml");
    std::fs::write(&config, "prowjob_namespace: trireme\n").unwrap();
    let apply = ["config", "apply", "-m", "right", "--config-path"];
    nodes
        .run(&[apply.as_slice(), &[text(&config)]].concat())
        .await
        .done();
    nodes
}

/// Has a node write a snapshot of all that it has now, by asking it for one as a peer that needs it.
async fn write_snapshot(nodes: &Nodes, id: u64) {
    let status = nodes.cluster.status(id).await.unwrap();
    let peer = format!("http://{}", nodes.cluster.member(id).unwrap().peer);
    let mut peer = RaftTransportClient::connect(peer).await.unwrap();
    let request = FetchSnapshotRequest {
        cluster_id: status.cluster_id,
        node_id: 0,
        at_least: status.applied_index,
    };
    let mut chunks = peer.fetch_snapshot(request).await.unwrap().into_inner();
    while chunks.message().await.unwrap().is_some() {}
}

fn only_snapshot(snapshots: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(snapshots)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "snap"))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Changes one byte of one record in the newest snapshot, as failing memory would have when it was written: every
/// checksum is that of the changed rows.
fn change_a_byte(snapshots: &Path) {
    let files = Snapshots::open(Arc::new(RealDisk), snapshots).unwrap();
    let path = files.list().unwrap().remove(0);
    let file = SnapshotFile::open(&RealDisk, &path).unwrap();
    let mut reader = file.rows();
    let mut rows: Vec<SnapshotRow> = Vec::new();
    while let Some(row) = reader.next_row().unwrap() {
        rows.push(row);
    }
    let mut changed = 0;
    for row in &mut rows {
        if let Some(Row::Record(change)) = &mut row.row
            && let Some(Record::Config(config)) = &mut change.record
        {
            assert_eq!(config.message, "right");
            config.message = "eight".to_owned();
            changed += 1;
        }
    }
    assert_eq!(changed, 1);
    // The library says what the digest of these rows is by refusing the former one.
    let digest = match State::from_snapshot_rows(rows.clone()) {
        Err(SnapshotError::Digest { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    for row in &mut rows {
        if let Some(Row::Counters(counters)) = &mut row.row {
            counters.digest = digest.to_vec().into();
        }
    }
    let written = files.write(file.header(), rows.into_iter(), &digest);
    assert_eq!(written.unwrap().path(), path, "in the place of the former");
}

fn answer_of(compared: &Value, id: u64) -> Value {
    let nodes = compared["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["id"] == id).unwrap();
    node["answer"].clone()
}

fn failed(answer: &Answer, code: i32, why: &str) {
    assert_eq!(answer.code, code, "{answer:?}");
    assert!(answer.err.contains(why), "{why}: {answer:?}");
}

/// All but those of the disk: how full the host's is, is not the test's.
fn alarms(status: &str) -> Vec<&str> {
    let alarms = status.lines().filter(|line| line.starts_with("ALARM "));
    alarms
        .filter(|line| !line.starts_with("ALARM disk/"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_state_differs_is_found_ends_and_comes_back_by_itself() {
    let mut nodes = configured().await;
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    let bad = (1..=3).find(|id| *id != leader).unwrap();
    let equal = nodes.run(&["cluster", "compare"]).await.done();
    assert!(
        equal.out.ends_with("all 3 members hold the same state\n"),
        "{equal:?}"
    );

    nodes.cluster.wait_until_caught_up(bad).await.unwrap();
    write_snapshot(&nodes, bad).await;
    nodes.cluster.terminate(bad).await.unwrap();
    let data = nodes.cluster.member(bad).unwrap().data();
    change_a_byte(&data.join("snapshots"));
    nodes.cluster.restart(bad).unwrap();
    nodes.cluster.wait_until_caught_up(bad).await.unwrap();
    // It starts from there and takes part as if nothing were.
    let history: &[&str] = &["config", "history"];
    let told = nodes.run_at(bad, history).await.done();
    assert!(told.out.contains("eight"), "{told:?}");

    // Even the one that differs says so when it is asked.
    let found = nodes
        .run_at(bad, &["cluster", "compare", "-o", "json"])
        .await;
    failed(
        &found,
        DIFFERS,
        &format!("node {bad} does not hold the state that the majority holds"),
    );
    assert!(
        found
            .err
            .contains(&format!("`trireme cluster replace {bad} <new>`")),
        "{found:?}"
    );
    let compared = found.json();
    assert_eq!(compared["verdict"], "differs");
    for id in 1..=3 {
        let said = if id == bad { "differs" } else { "equal" };
        assert_eq!(answer_of(&compared, id), said, "{compared}");
    }
    let ended = until("the node that differs to end", async || {
        nodes.cluster.take_ended(bad).unwrap()
    })
    .await;
    assert_eq!(ended.status, format!("exit status: {DIFFERS}"));
    assert!(
        ended
            .words
            .contains("this node's state differed from the majority's at entry"),
        "{}",
        ended.words
    );
    let marker = data.join("DIVERGED");
    assert!(marker.exists());
    // The others go on, and say why it is gone.
    let alarm = format!("ALARM diverged/node-{bad}: ");
    let status = nodes.run_at(leader, &["cluster", "status"]).await.done();
    assert!(status.out.contains(&alarm), "{status:?}");

    nodes.cluster.restart(bad).unwrap();
    nodes.cluster.wait_until_caught_up(bad).await.unwrap();
    assert!(!marker.exists());
    let told = nodes.run_at(bad, history).await.done();
    assert!(told.out.contains("right"), "{told:?}");
    let equal = nodes.run_at(bad, &["cluster", "compare"]).await.done();
    assert!(
        equal.out.ends_with("all 3 members hold the same state\n"),
        "{equal:?}"
    );
    let status = nodes.run_at(leader, &["cluster", "status"]).await.done();
    assert_eq!(alarms(&status.out), [""; 0], "{status:?}");
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_a_disk_is_found_when_asked_and_a_silent_member_is_named() {
    let mut nodes = configured().await;
    write_snapshot(&nodes, 2).await;
    let scrub: &[&str] = &["cluster", "scrub", "-o", "json"];
    let whole = nodes.run(scrub).await.done().json();
    assert_eq!(whole["problem"], Value::Null);
    for node in whole["nodes"].as_array().unwrap() {
        assert_eq!(node["damaged"], json!([]), "{whole}");
        // The archive, and the snapshot that one of them has.
        let files = 1 + u64::from(node["id"] == 2);
        assert_eq!(node["files"], files, "{whole}");
    }

    let snapshots = nodes.cluster.member(2).unwrap().data().join("snapshots");
    let damaged = only_snapshot(&snapshots);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let found = nodes.run(&["cluster", "scrub"]).await;
    failed(&found, CANNOT_BE_TRUSTED, "node 2 found damage on disk");
    assert!(
        found.out.contains(&format!(
            "DAMAGED node 2: {} is damaged at byte ",
            text(&damaged)
        )),
        "{found:?}"
    );
    let status = nodes.run(&["cluster", "status"]).await.done();
    assert!(
        status.out.contains("ALARM corruption/node-2: "),
        "{status:?}"
    );
    // Each answer left a newer snapshot behind; the second makes the damaged one unneeded.
    let again: &[&str] = &["cluster", "scrub", "--node", "2"];
    let cured = until("a disk without damage", async || {
        let answer = nodes.run(again).await;
        (answer.code != CANNOT_BE_TRUSTED).then_some(answer)
    })
    .await
    .done();
    assert!(
        cured.out.starts_with("NODE  FILES  READ"),
        "no progress for programs: {cured:?}"
    );
    assert!(!damaged.exists());
    let status = nodes.run(&["cluster", "status"]).await.done();
    assert_eq!(alarms(&status.out), [""; 0], "{status:?}");
    let unknown = nodes.run(&["cluster", "scrub", "--node", "9"]).await;
    failed(&unknown, NOT_FOUND, "node 9 is no member");

    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    let silent = (1..=3).find(|id| *id != leader).unwrap();
    nodes.cluster.kill(silent).await.unwrap();
    let compared = nodes.run(&["cluster", "compare", "-o", "json"]).await;
    failed(
        &compared,
        1,
        &format!("node {silent} gave no answer within 10 s"),
    );
    let compared = compared.json();
    assert_eq!(compared["verdict"], "incomplete");
    assert_eq!(answer_of(&compared, silent), Value::Null);
    assert_eq!(answer_of(&compared, leader), "equal");
    let unchecked = nodes.run(&["cluster", "scrub"]).await;
    failed(&unchecked, 1, &format!("node {silent}: not checked"));
    nodes.cluster.stop().await.unwrap();
}
