//! The leader goes; nothing that was acknowledged does.

use std::time::{Duration, Instant};

use crate::support::{Cluster, eventually, put, read, write};
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
    let failover = killed.elapsed();
    println!("leader killed, next write acknowledged after {failover:?}");
    assert!(failover < Duration::from_secs(4), "{failover:?}");
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
