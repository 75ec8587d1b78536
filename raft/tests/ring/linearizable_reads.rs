//! A leader that does not know yet that it was replaced serves no stale read.

use std::time::Duration;

use crate::support::{Cluster, read, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_off_leader_refuses_linearizable_reads_while_the_others_go_on() {
    let cluster = Cluster::tuned(3, |config| {
        config.timing.propose = Duration::from_secs(4);
    })
    .await;
    let old = cluster.leader().await;
    let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != old).collect();
    write(&cluster.stores[&old], "key", "old").await;
    for id in &others {
        cluster.stores[id].linearize().await.unwrap();
    }
    // Nobody reaches the leader, and it reaches nobody: its connections go through the others' proxies.
    cluster.cut(old);
    for id in &others {
        cluster.cut(*id);
    }
    let stale = {
        let store = cluster.stores[&old].clone();
        tokio::spawn(async move { store.linearize().await })
    };
    stale.await.unwrap().unwrap_err();
    for id in &others {
        cluster.heal(*id);
    }
    cluster.heal(old);
    let leader = cluster.leader().await;
    let applied = write(&cluster.stores[&leader], "key", "new").await;
    for store in cluster.stores.values() {
        assert!(store.linearize().await.unwrap() >= applied.revision);
        assert_eq!(read(store, "key").as_deref(), Some("new"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_share_a_round() {
    let cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let applied = write(&cluster.stores[&follower], "key", "1").await;
    let readers = (0..200).map(|_| cluster.stores[&follower].linearize());
    for read in futures::future::join_all(readers).await {
        assert!(read.unwrap() >= applied.revision);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_came_back_confirms_reads_again() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let followers: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
    let [gone, back] = followers[..] else {
        panic!("{followers:?}");
    };
    cluster.stores[&leader].linearize().await.unwrap();
    cluster.kill(back).await;
    cluster.start(back).await;
    cluster.converged().await;
    // From here on the leader needs the one that came back.
    cluster.kill(gone).await;
    let applied = write(&cluster.stores[&leader], "key", "1").await;
    for _ in 0..10 {
        let read = cluster.stores[&leader].linearize().await.unwrap();
        assert!(read >= applied.revision);
    }
}
