//! Watches follow every node's changes and resume on any.

use crate::support::{Cluster, archive, write};
use trireme_raft::{Store, WatchError};
use trireme_state::Change;

async fn next_keys(watch: &mut trireme_raft::Watch) -> (u64, Vec<String>) {
    let batch = watch.next().await.unwrap();
    let keys = batch.changes.iter().filter_map(|change| match change {
        Change::Cursor(cursor) => Some(cursor.key.clone()),
        _ => None,
    });
    (batch.revision, keys.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_on_another_node() {
    let cluster = Cluster::of(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let before = cluster.stores[&leader].view().revision;
    let first = write(&cluster.stores[&leader], "a", "1").await;
    let second = write(&cluster.stores[&leader], "b", "1").await;
    let mut watch = cluster.stores[&leader].watch(Some(before));
    assert_eq!(
        next_keys(&mut watch).await,
        (first.revision, vec!["a".to_owned()])
    );
    let mut resumed = cluster.stores[&follower].watch(Some(watch.revision()));
    assert_eq!(
        next_keys(&mut resumed).await,
        (second.revision, vec!["b".to_owned()])
    );
    // What is delivered can be read.
    assert!(cluster.stores[&follower].view().revision >= second.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_no_longer_kept_are_refused() {
    let cluster = Cluster::tuned(1, |config| config.limits.feed.ring_batches = 3).await;
    let store = &cluster.stores[&1];
    let old = write(store, "old", "1").await;
    for n in 0..10 {
        write(store, &format!("key-{n}"), "1").await;
    }
    let mut late = store.watch(Some(old.revision));
    assert_eq!(late.next().await.unwrap_err(), WatchError::Compacted);
    archive(store, "guid").await;
    assert_eq!(late.next().await.unwrap_err(), WatchError::Compacted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_compacts_what_came_before() {
    let mut cluster = Cluster::of(1).await;
    let applied = write(&cluster.stores[&1], "a", "1").await;
    cluster.stores[&1].trigger_snapshot().await.unwrap();
    cluster.kill(1).await;
    let store: Store = cluster.start(1).await.clone();
    store.recovered().await;
    let mut watch = store.watch(Some(applied.revision - 1));
    assert_eq!(watch.next().await.unwrap_err(), WatchError::Compacted);
    let mut watch = store.watch(Some(store.view().revision));
    let later = write(&store, "b", "1").await;
    assert_eq!(watch.next().await.unwrap().revision, later.revision);
}
