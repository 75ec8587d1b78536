//! An operator's verbs on real processes: snapshots, recovery, handing over, looking closely.

use std::{io::Read as _, path::Path};

use serde_json::Value;

use crate::{
    command::{Answer, run, text},
    scene::{Nodes, until},
};

/// Of the command line (`trireme --help`).
const WRONG_COMMAND_LINE: i32 = 2;
const CANNOT_BE_TRUSTED: i32 = 74;

async fn configured(nodes: u64) -> Nodes {
    let nodes = Nodes::start(nodes).await;
    let config = nodes.directory.path().join("config.yaml");
    for number in 0..3 {
        std::fs::write(&config, format!("prowjob_namespace: n{number}\n")).unwrap();
        nodes
            .run(&["config", "apply", "--config-path", text(&config)])
            .await
            .done();
    }
    nodes
}

fn failed(answer: &Answer, code: i32, why: &str) {
    assert_eq!(answer.code, code, "{answer:?}");
    assert!(answer.err.contains(why), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_saved_inspected_and_never_replaces_a_file() {
    let mut nodes = configured(1).await;
    let file = nodes.directory.path().join("saved.snapshot");
    let saved = nodes.run(&["snapshot", "save", text(&file)]).await.done();
    assert!(
        saved
            .out
            .starts_with(&format!("saved {}: revision ", text(&file))),
        "{saved:?}"
    );
    assert_eq!(saved.err, "", "no progress for programs");
    let again = nodes.run(&["snapshot", "save", text(&file)]).await;
    failed(&again, 1, "is there already");
    let left: Vec<_> = std::fs::read_dir(nodes.directory.path())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().contains(".part")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let inspect = ["snapshot", "inspect", text(&file), "-o", "json"];
    let found = run("", &inspect).await.done().json();
    assert_eq!(found["records"]["configuration versions"], 3);
    assert_eq!(found["used_node_ids"], serde_json::json!([1]));
    let readable = run("", &inspect[..3]).await.done();
    let counted = readable.out.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words == ["configuration", "versions", "3"]
    });
    assert!(counted, "{readable:?}");

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = nodes.directory.path().join("damaged");
    std::fs::write(&damaged, bytes).unwrap();
    let answer = run("", &["snapshot", "inspect", text(&damaged)]).await;
    failed(&answer, CANNOT_BE_TRUSTED, "is damaged at byte ");
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn recovering_asks_first_and_changes_nothing_without_an_answer() {
    let mut nodes = configured(3).await;
    let data = nodes.cluster.member(2).unwrap().directory.join("data");
    let recover = |more: &'static [&'static str]| {
        let data = data.clone();
        async move {
            let mut arguments = vec!["recover", "--data-dir", text(&data)];
            arguments.extend(more);
            run("", &arguments).await
        }
    };
    failed(
        &recover(&["--force-new-cluster", "--yes"]).await,
        CANNOT_BE_TRUSTED,
        "is in use by another process",
    );
    nodes.cluster.stop().await.unwrap();
    let identity = || std::fs::read_to_string(data.join("IDENTITY")).unwrap();
    let before = identity();
    failed(
        &recover(&[]).await,
        WRONG_COMMAND_LINE,
        "say --force-new-cluster",
    );
    let asked = recover(&["--force-new-cluster"]).await;
    failed(&asked, WRONG_COMMAND_LINE, "nothing was changed");
    for said in [
        "node 2 of cluster",
        "these members are dropped for good: 1 (",
        "under the new id 4",
        "before-recover-",
    ] {
        assert!(asked.out.contains(said), "{said}: {asked:?}");
    }
    assert_eq!(identity(), before);
    let used = recover(&["--force-new-cluster", "--yes", "--node-id", "3"]).await;
    failed(&used, 1, "node id 3 was used in the former cluster");
    assert_eq!(identity(), before);

    let made = recover(&["--force-new-cluster", "--yes", "-o", "json"])
        .await
        .done()
        .json();
    assert_eq!(
        (&made["node"], identity() == before),
        (&Value::from(4), false)
    );
    let kept = Path::new(made["kept"].as_str().unwrap());
    assert_eq!(
        std::fs::read_to_string(kept.join("IDENTITY")).unwrap(),
        before
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_are_asked_and_the_silent_ones_named() {
    let mut nodes = configured(3).await;
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    let all = until("all to have applied the same and all of it", async || {
        let all = nodes
            .run(&["cluster", "status", "--all", "-o", "json"])
            .await;
        let all = all.done().json();
        let nodes = all["nodes"].as_array().unwrap();
        nodes
            .iter()
            .all(|node| node["state"] == "same" && node["lag"] == 0)
            .then_some(all)
    })
    .await;
    assert_eq!(all["leader"], leader);
    for node in all["nodes"].as_array().unwrap() {
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(node["archive_incomplete"], Value::Null);
    }

    let silent = (1..=3).find(|id| *id != leader).unwrap();
    nodes.cluster.kill(silent).await.unwrap();
    let readable = nodes.run(&["cluster", "status", "--all"]).await.done();
    assert!(
        readable
            .out
            .contains(&format!("node {silent} gave no answer: ")),
        "{readable:?}"
    );

    // The bundle has the others, says who is missing, and holds no secret.
    let file = nodes.directory.path().join("bundle.tar.gz");
    let made = nodes
        .run(&["debug", "bundle", text(&file), "-o", "json"])
        .await
        .done()
        .json();
    assert_eq!(made["unreachable"], serde_json::json!([silent]));
    let mut names = Vec::new();
    let packed = flate2::read::GzDecoder::new(std::fs::File::open(&file).unwrap());
    let mut archive = tar::Archive::new(packed);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert!(
            !content.contains(trireme_sandbox::world::WEBHOOK_SECRET),
            "{name} holds a secret"
        );
        if name.ends_with(&format!("node-{leader}/log.txt")) {
            assert!(content.contains("serving"), "{content}");
        }
        names.push(name);
    }
    for name in [
        "README.txt".to_owned(),
        "unreachable.txt".to_owned(),
        format!("node-{leader}/status.json"),
        format!("node-{leader}/settings.toml"),
        format!("node-{leader}/memberships.txt"),
        format!("node-{leader}/metrics.txt"),
    ] {
        assert!(
            names.contains(&format!("trireme-debug/{name}")),
            "{name} of {names:?}"
        );
    }
    nodes.cluster.restart(silent).unwrap();
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_steps_down_when_any_node_is_asked() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    let asked = (1..=3).find(|id| *id != leader).unwrap();
    let next = until("the lead to be handed over", async || {
        let answer = nodes
            .run_at(asked, &["cluster", "step-down", "-o", "json"])
            .await;
        (answer.code == 0).then(|| answer.json())
    })
    .await;
    assert_eq!(next["former_leader"], leader);
    assert_ne!(next["leader"], leader);
    let status = nodes
        .run_at(asked, &["cluster", "status", "-o", "json"])
        .await;
    assert_eq!(status.json()["leader"], next["leader"]);
    nodes.cluster.stop().await.unwrap();

    let mut alone = Nodes::start(1).await;
    let answer = alone.run(&["cluster", "step-down"]).await;
    failed(
        &answer,
        1,
        "node 1 is the only voting member: nobody else can lead",
    );
    alone.cluster.stop().await.unwrap();
}
