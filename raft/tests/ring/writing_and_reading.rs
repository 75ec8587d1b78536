//! One node and three: what is proposed anywhere is read everywhere.

use crate::support::{Cluster, read, write};

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_a_cluster() {
    let cluster = Cluster::of(1).await;
    let store = &cluster.stores[&1];
    let applied = write(store, "a", "1").await;
    assert_eq!(read(store, "a").as_deref(), Some("1"));
    assert!(store.view().revision >= applied.revision);
    assert!(store.linearize().await.unwrap() >= applied.revision);
    store.recovered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_forwards_and_reads_its_own_write() {
    let cluster = Cluster::of(3).await;
    let follower = cluster.follower().await;
    let applied = write(&cluster.stores[&follower], "a", "1").await;
    assert_eq!(read(&cluster.stores[&follower], "a").as_deref(), Some("1"));
    for store in cluster.stores.values() {
        let revision = store.linearize().await.unwrap();
        assert!(revision >= applied.revision);
        assert_eq!(read(store, "a").as_deref(), Some("1"));
    }
    cluster.converged().await;
}
