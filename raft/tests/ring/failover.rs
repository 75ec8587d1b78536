//! The leader goes; nothing that was acknowledged does.

use std::time::{Duration, Instant};

use crate::support::{Cluster, PATIENCE, eventually, put, read, write};
use trireme_raft::{Leadership, ProposeError};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let old = cluster.leader().await;
    for n in 0..20 {
        write(&cluster.stores[&old], &format!("before-{n}"), "x").await;
    }
    let survivor = cluster.follower().await;
    cluster.kill(old).await;

    let killed = Instant::now();
    write(&cluster.stores[&survivor], "after", "y").await;
    // How fast is for `compare-etcd --kills` to say.
    println!(
        "leader killed, next write acknowledged after {:?}",
        killed.elapsed()
    );
    for store in cluster.stores.values() {
        store.linearize().await.unwrap();
        for n in 0..20 {
            assert_eq!(read(store, &format!("before-{n}")).as_deref(), Some("x"));
        }
    }

    let back = cluster.start(old).await;
    back.recovered().await;
    cluster.converged().await;
    assert_eq!(read(&cluster.stores[&old], "after").as_deref(), Some("y"));
}

/// A node that nobody answers says so, and does not name a leader that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_quorum_names_no_leader() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let orphan = cluster.follower().await;
    let other = (1..=3).find(|id| ![leader, orphan].contains(id)).unwrap();
    let mut seen = cluster.stores[&orphan].leadership();
    assert_eq!(seen.borrow_and_update().leader, Some(leader));
    cluster.kill(other).await;
    cluster.kill(leader).await;
    tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.leader.is_none()))
        .await
        .expect("the loss is told in time")
        .unwrap();
    assert_eq!(cluster.stores[&orphan].status().leader, None);
    assert!(!cluster.stores[&orphan].holds_lease());

    cluster.start(other).await;
    let next = cluster.leader_among(&[orphan, other]).await;
    // The same on the leader's side: it leads nobody any more.
    let mut seen = cluster.stores[&next].leadership();
    cluster
        .kill(if next == orphan { other } else { orphan })
        .await;
    tokio::time::timeout(PATIENCE, seen.wait_for(|seen| seen.leader.is_none()))
        .await
        .expect("a leader finds out in time")
        .unwrap();
}

/// Consensus waits between its attempts, also when it has something to send all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_not_dialed_without_a_pause() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let dead = cluster.follower().await;
    cluster.kill(dead).await;
    let (before, started) = (cluster.knocks(dead), Instant::now());
    let mut writes = 0;
    while started.elapsed() < Duration::from_secs(1) {
        writes += 1;
        write(&cluster.stores[&leader], &format!("key-{writes}"), "x").await;
    }
    // Heartbeats of 75 ms from their own connection, appends after 25 ms and more, hellos.
    let knocks = cluster.knocks(dead) - before;
    println!("{writes} writes, {knocks} connections to the dead node");
    assert!(knocks < 60, "{knocks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_tried_again_is_applied_once() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let store = cluster.stores[&follower].clone();
    let command = |n: u32| {
        let mut command = put("counter", &n.to_string());
        command.request_id = format!("request-{n}");
        command
    };
    // Many are on their way when the leader goes; their callers see one answer each.
    let asked: Vec<_> = (0..50)
        .map(|n| {
            let (store, command) = (store.clone(), command(n));
            tokio::spawn(async move { store.propose(command).await })
        })
        .collect();
    cluster.kill(leader).await;
    for (n, asked) in asked.into_iter().enumerate() {
        let applied = asked.await.unwrap().unwrap();
        let again = store.propose(command(n as u32)).await.unwrap();
        let done = |outcome: trireme_proto::state::Outcome| match outcome.result {
            Some(trireme_proto::state::outcome::Result::Done(done)) => done,
            other => panic!("{other:?}"),
        };
        assert!(done(again.outcome).duplicate, "{applied:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_acknowledged() {
    let mut cluster = Cluster::tuned(3, |config| {
        config.timing.propose = Duration::from_millis(1500);
    })
    .await;
    let leader = cluster.leader().await;
    for id in [1, 2, 3] {
        if id != leader {
            cluster.kill(id).await;
        }
    }
    let store = &cluster.stores[&leader];
    let error = store.propose(put("a", "1")).await.unwrap_err();
    assert!(
        matches!(error, ProposeError::Timeout { .. } | ProposeError::NoLeader),
        "{error}"
    );
    store.linearize().await.unwrap_err();
    assert!(!store.holds_lease());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_is_handed_over_on_request() {
    let cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let mut leadership = cluster.stores[&follower].leadership();
    write(&cluster.stores[&follower], "a", "1").await;
    cluster.stores[&follower]
        .transfer_leader(follower)
        .await
        .unwrap();
    let led = leadership
        .wait_for(|leadership| leadership.is_me && leadership.confirmed)
        .await
        .unwrap();
    assert_eq!(led.leader, Some(follower));
    drop(led);
    write(&cluster.stores[&follower], "b", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_knows_it_within_its_lease() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    let store = &cluster.stores[&leader];
    let mut leadership = store.leadership();
    leadership
        .wait_for(|leadership: &Leadership| leadership.confirmed)
        .await
        .unwrap();
    for id in &others {
        cluster.cut(*id);
    }
    leadership
        .wait_for(|leadership: &Leadership| !leadership.confirmed)
        .await
        .unwrap();
    assert!(!store.holds_lease());
    for id in &others {
        cluster.heal(*id);
    }
    eventually("a leader again", async || {
        cluster
            .stores
            .values()
            .any(trireme_raft::Store::holds_lease)
            .then_some(())
    })
    .await;
}
