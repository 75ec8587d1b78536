//! `trireme cluster` on real processes.

use serde_json::Value;
use trireme_harness::Address;

use crate::scene::{Nodes, until};

fn node(members: &Value, id: u64) -> Option<&Value> {
    members
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["id"] == id)
}

/// The settings of a node that joins later, and its addresses.
fn joining(nodes: &Nodes, id: u64) -> (std::path::PathBuf, Address, Address) {
    let (peer, api) = (Address::claim().unwrap(), Address::claim().unwrap());
    let directory = nodes.directory.path().join(format!("joining-{id}"));
    std::fs::create_dir(&directory).unwrap();
    let join: Vec<&str> = nodes
        .cluster
        .members()
        .iter()
        .map(|member| member.peer.as_str())
        .collect();
    let text = format!(
        "node_id = {id}\ndata_dir = {:?}\nlisten = \"{api}\"\n[peer]\nlisten = \"{peer}\"\n[cluster]\njoin = {join:?}\n",
        directory.join("data")
    );
    let path = directory.join("trireme.toml");
    std::fs::write(&path, text).unwrap();
    (path, peer, api)
}

/// A node joins as a learner, is promoted, leads, and is removed; each step is asked for on the command line.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_is_promoted_leads_and_is_removed() {
    let mut nodes = Nodes::start(1).await;
    let status = nodes.run(&["cluster", "status"]).await.done();
    assert!(
        status.out.contains("asked    node 1 (leader)"),
        "{status:?}"
    );

    // Its place is kept before it is there; a node that was not announced joins as well, as the README has it.
    let (path, peer, api) = joining(&nodes, 2);
    let added = nodes
        .run(&[
            "cluster",
            "add",
            "2",
            "--peer",
            peer.as_str(),
            "--api",
            api.as_str(),
            "-o",
            "json",
        ])
        .await
        .json();
    assert_eq!(node(&added, 2).unwrap()["voter"], false);
    let absent = nodes.run(&["cluster", "promote", "2"]).await;
    assert!(absent.err.contains("node 2 does not answer"), "{absent:?}");
    let serve = || {
        let path = crate::command::text(&path);
        crate::command::start("", &["serve", "--config", path, "--exit-with-parent"])
    };
    let second = serve();
    let joined = until("node 2 to join", async || {
        let status = nodes.run(&["cluster", "status", "-o", "json"]).await.json();
        node(&status["nodes"], 2).cloned()
    })
    .await;
    assert_eq!(
        (&joined["voter"], &joined["api"]),
        (&Value::from(false), &Value::from(api.as_str()))
    );

    // Refused while it has not caught up; how far it is is the leader's to say.
    let promoted = until("node 2 to have caught up", async || {
        let answer = nodes.run(&["cluster", "promote", "2", "-o", "json"]).await;
        (answer.code == 0).then(|| answer.json())
    })
    .await;
    assert_eq!(node(&promoted, 2).unwrap()["voter"], true);

    let unknown = nodes.run(&["cluster", "promote", "9"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown
            .err
            .contains("node 9 is no member: let it join first"),
        "{unknown:?}"
    );

    let both = format!("{},{api}", nodes.server());
    nodes.run(&["cluster", "transfer-leader", "2"]).await.done();
    let status = crate::command::run(api.as_str(), &["cluster", "status", "-o", "json"])
        .await
        .done()
        .json();
    assert_eq!(
        (&status["leader"], &status["role"]),
        (&Value::from(2), &Value::from("leader"))
    );
    crate::command::run(&both, &["cluster", "transfer-leader", "1"])
        .await
        .done();
    let left = nodes
        .run(&["cluster", "remove", "2", "-o", "json"])
        .await
        .done()
        .json();
    assert!(node(&left, 2).is_none(), "{left}");

    // It hears of it, says so, and ends; another start ends the same.
    let (first, again) = (crate::command::end(second).await, serve());
    for ended in [first, crate::command::end(again).await] {
        assert_eq!(ended.code, 77, "{ended:?}");
        let last = ended.err.lines().last().unwrap();
        assert!(
            last.starts_with(
                "trireme: node 2 was removed from the cluster: do not start it again."
            ),
            "{last}"
        );
    }

    // DESIGN §4: ids are never used again.
    let again = nodes
        .run(&[
            "cluster",
            "add",
            "2",
            "--peer",
            "127.0.0.1:1",
            "--api",
            "127.0.0.1:2",
        ])
        .await;
    assert_eq!(again.code, 1, "{again:?}");
    assert!(
        again.err.contains("node id 2 belonged to a former member"),
        "{again:?}"
    );
    nodes.cluster.stop().await.unwrap();
}

/// A killed node comes back from its disk with the state of the others; one whose disk is lost is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_catches_up_and_a_lost_one_is_replaced() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    nodes.cluster.kill(leader).await.unwrap();
    let next = nodes.cluster.wait_for_leader().await.unwrap();
    assert_ne!(next, leader);
    let config = nodes.directory.path().join("config.yaml");
    for number in 0..5 {
        std::fs::write(&config, format!("prowjob_namespace: n{number}\n")).unwrap();
        let apply = [
            "config",
            "apply",
            "--config-path",
            crate::command::text(&config),
        ];
        nodes.run_at(next, &apply).await.done();
    }
    nodes.cluster.restart(leader).unwrap();
    nodes.cluster.wait_until_caught_up(leader).await.unwrap();
    same_digest(&nodes, leader, next).await;

    let lost = (1..=3).find(|id| ![leader, next].contains(id)).unwrap();
    let new = nodes.cluster.replace(lost).await.unwrap();
    nodes.cluster.wait_until_caught_up(new).await.unwrap();
    same_digest(&nodes, new, next).await;
    let status = nodes
        .run(&["cluster", "status", "-o", "json"])
        .await
        .done()
        .json();
    assert!(node(&status["nodes"], lost).is_none(), "{status}");
    assert_eq!(node(&status["nodes"], new).unwrap()["voter"], true);
    nodes.cluster.stop().await.unwrap();
}

/// A node that lost the others is taken out of the load balancer, and says so to whoever asks it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_is_not_ready_and_names_no_leader() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    let orphan = (1..=3).find(|id| *id != leader).unwrap();
    let ready = format!("{}/readyz", nodes.url(orphan));
    let answer = async || {
        let answer = reqwest::get(&ready).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    };
    until("the node to be ready", async || {
        (answer().await?.0 == 200).then_some(())
    })
    .await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != orphan).collect();
    for id in &others {
        nodes.cluster.kill(*id).await.unwrap();
    }
    let said = until("the node to miss the others", async || {
        answer().await.filter(|(code, _)| *code == 503)
    })
    .await;
    assert_eq!(
        said.1,
        "no leader is heard: a majority of the voting nodes must run and reach each other"
    );
    let status = nodes.run_at(orphan, &["cluster", "status"]).await.done();
    assert!(status.out.contains("leader   none known"), "{status:?}");
    for id in &others {
        nodes.cluster.restart(*id).unwrap();
    }
    until("the node to be ready again", async || {
        (answer().await?.0 == 200).then_some(())
    })
    .await;
    nodes.cluster.stop().await.unwrap();
}

async fn same_digest(nodes: &Nodes, a: u64, b: u64) {
    until("both nodes to have the same state", async || {
        let a = nodes.cluster.status(a).await.ok()?;
        let b = nodes.cluster.status(b).await.ok()?;
        assert!(!a.digest.is_empty());
        (a.applied_index == b.applied_index).then(|| assert_eq!(a.digest, b.digest))
    })
    .await;
}
