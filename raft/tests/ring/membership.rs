//! Nodes come and go; ids do not come back.

use std::fs;

use crate::support::{Cluster, archive, eventually, is_archived, read, write};
use trireme_raft::{JoinError, MembershipError, Store};

async fn join(cluster: &mut Cluster, id: u64) -> Result<(), JoinError> {
    let seeds: Vec<String> = cluster
        .stores
        .keys()
        .map(|id| cluster.node(*id).peer_address)
        .collect();
    cluster.start(id).await.clone().join(&seeds).await
}

async fn promoted(store: &Store, id: u64) {
    eventually("a promoted learner", async || store.promote(id).await.ok()).await;
}

fn voters(store: &Store) -> Vec<u64> {
    let members = store.status().members;
    let voters = members.iter().filter(|member| member.voter);
    voters.map(|member| member.node.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_joins_is_filled_and_votes() {
    let mut cluster = Cluster::of(1).await;
    for n in 0..50 {
        write(&cluster.stores[&1], &format!("key-{n}"), "x").await;
    }
    join(&mut cluster, 2).await.unwrap();
    join(&mut cluster, 3).await.unwrap();
    // Again changes nothing.
    cluster.stores[&2].join(&[]).await.unwrap();
    // Asked of a follower, done by the leader.
    promoted(&cluster.stores[&2], 2).await;
    promoted(&cluster.stores[&2], 3).await;
    cluster.converged().await;
    assert_eq!(voters(&cluster.stores[&3]), [1, 2, 3]);
    assert_eq!(read(&cluster.stores[&3], "key-49").as_deref(), Some("x"));
    assert_eq!(
        cluster.stores[&3].cluster_id(),
        cluster.stores[&1].cluster_id()
    );
    // The two carry on alone.
    cluster.kill(1).await;
    write(&cluster.stores[&3], "without", "1").await;
    let members = cluster.stores[&3].status().members;
    assert_eq!(members.len(), 3);
    assert_eq!(members[1].node.api_address, "api-2");
}

/// `cluster add` keeps an id and an address; who comes first with them has them for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_added_before_it_started_joins_once() {
    let mut cluster = Cluster::of(1).await;
    write(&cluster.stores[&1], "a", "1").await;
    // The seat has an address, the node is not there yet.
    drop(cluster.config(2));
    let expected = trireme_raft::Node {
        api_address: "api-2".to_owned(),
        ..cluster.node(2)
    };
    let store = cluster.stores[&1].clone();
    store.add_learner(expected.clone()).await.unwrap();
    store.add_learner(expected.clone()).await.unwrap();
    let elsewhere = store
        .add_learner(trireme_raft::Node {
            peer_address: "127.0.0.1:1".to_owned(),
            instance: "another".to_owned(),
            ..expected
        })
        .await
        .unwrap_err()
        .to_string();
    let address = cluster.node(2).peer_address;
    insta::assert_snapshot!(elsewhere.replace(&address, "ADDRESS"), @"node 2 was added with the peer address ADDRESS, not 127.0.0.1:1: give the node that address, or `trireme cluster remove 2` and add it under a new id");
    let silent = store.promote(2).await.unwrap_err();
    assert_eq!(silent.to_string(), "node 2 does not answer");

    join(&mut cluster, 2).await.unwrap();
    promoted(&store, 2).await;
    cluster.converged().await;
    assert_eq!(voters(&store), [1, 2]);
    assert_eq!(read(&cluster.stores[&2], "a").as_deref(), Some("1"));

    // Its directory is the only one.
    cluster.kill(2).await;
    fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    let seeds = [cluster.node(1).peer_address];
    let wiped = cluster.start(2).await.clone();
    let error = wiped.join(&seeds).await.unwrap_err().to_string();
    assert!(error.contains("node ids are never reused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_is_replaced_under_a_new_id() {
    let mut cluster = Cluster::of(3).await;
    let lost = cluster.follower().await;
    write(&cluster.stores[&lost], "a", "1").await;
    archive(&cluster.stores[&lost], "guid").await;
    cluster.kill(lost).await;
    fs::remove_dir_all(cluster.data_dir(lost)).unwrap();

    // Under its old id it is let in neither way.
    let members = [1, 2, 3].map(|id| cluster.node(id)).to_vec();
    let wiped = cluster.start(lost).await.clone();
    let error = match wiped.bootstrap(members).await.unwrap_err() {
        JoinError::Refused(reason) => reason,
        JoinError::AlreadyFormed { .. } => "node ids are never reused".to_owned(),
        other => panic!("{other}"),
    };
    assert!(error.contains("node ids are never reused"), "{error}");
    let seeds: Vec<String> = [1, 2, 3]
        .into_iter()
        .filter(|id| *id != lost)
        .map(|id| cluster.node(id).peer_address)
        .collect();
    let error = wiped.join(&seeds).await.unwrap_err().to_string();
    assert!(error.contains("node ids are never reused"), "{error}");
    assert!(!wiped.is_member());
    drop(wiped);
    cluster.kill(lost).await;

    join(&mut cluster, 4).await.unwrap();
    let survivor = *cluster.stores.keys().next().unwrap();
    let new = cluster.node(4);
    cluster.stores[&survivor].replace(lost, new).await.unwrap();
    cluster.converged().await;
    let mut expected = vec![1, 2, 3, 4];
    expected.retain(|id| *id != lost);
    assert_eq!(voters(&cluster.stores[&4]), expected);
    assert_eq!(read(&cluster.stores[&4], "a").as_deref(), Some("1"));
    assert!(is_archived(&cluster.stores[&4], "guid").await);

    // The old id stays used up, for any directory.
    let error = cluster.stores[&survivor]
        .add_learner(trireme_raft::Node {
            id: lost,
            peer_address: "127.0.0.1:1".to_owned(),
            ..trireme_raft::Node::default()
        })
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("belonged to a former member"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_would_cost_the_quorum_is_refused() {
    let mut cluster = Cluster::of(3).await;
    let down = cluster.follower().await;
    // A slip of the pen must not cost a voter.
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| ![leader, down].contains(id)).unwrap();
    let node = cluster.node(other);
    let error = cluster.stores[&leader]
        .replace(down, node)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("votes already"), "{error}");
    assert_eq!(voters(&cluster.stores[&leader]), [1, 2, 3]);
    cluster.kill(down).await;
    let leader = eventually("silence of the node that is down", async || {
        let mut running = cluster.stores.iter();
        let (leader, store) = running.find(|(_, store)| store.holds_lease())?;
        let members = store.status().members;
        let silent = members.iter().find(|member| member.node.id == down)?;
        // A node that took the lead after the kill has never heard of it.
        let silent = silent.millis_since_heard.is_none_or(|ago| ago > 1500);
        let heard = members.iter().filter(|member| member.node.id != *leader);
        let heard = heard.filter(|member| member.millis_since_heard.is_some_and(|ago| ago < 500));
        (silent && heard.count() == 1).then_some(*leader)
    })
    .await;
    let other = *cluster.stores.keys().find(|id| **id != leader).unwrap();
    let store = &cluster.stores[&leader];
    let refused = |result: Result<(), MembershipError>| match result.unwrap_err() {
        MembershipError::Refused(reason) => reason,
        other => panic!("{other}"),
    };
    let reason = refused(store.remove(other).await);
    assert!(reason.contains("there would be no quorum"), "{reason}");
    let reason = refused(store.promote(9).await);
    assert!(reason.contains("node 9 is no member"), "{reason}");
    let reason = refused(store.transfer_leader(down).await);
    assert!(reason.contains("does not answer"), "{reason}");
    // Taking out the one that is down makes the rest safer.
    store.remove(down).await.unwrap();
    assert_eq!(voters(store).len(), 2);
    write(store, "a", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_not_taken_into_this_one() {
    let one = Cluster::of(1).await;
    let mut other = Cluster::of(1).await;
    write(&other.stores[&1], "other", "1").await;
    let seed = one.node(1).peer_address;
    // It stays what it is, whatever it is told.
    other.stores[&1].join(&[seed]).await.unwrap();
    assert_ne!(other.stores[&1].cluster_id(), one.stores[&1].cluster_id());
    other.kill(1).await;
    let mut config = other.config(1);
    config.node_id = 2;
    let error = Store::open(config).await.unwrap_err().to_string();
    assert!(error.contains("belongs to node 1"), "{error}");
}
