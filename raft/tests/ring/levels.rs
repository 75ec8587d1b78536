//! What a cluster may hold follows from what all its members understand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use trireme_proto::state::{Command, RaiseFeatureLevel, command::Body};
use trireme_raft::{ProposeError, Store};
use trireme_state::{BASE_LEVEL, FEATURE_LEVEL};

use crate::support::{Cluster, put, write};

async fn refused(store: &Store, command: Command) -> String {
    match store.propose(command).await.unwrap_err() {
        ProposeError::Rejected(why) => why,
        other => panic!("{other}"),
    }
}

/// One member runs an older build, and is upgraded last.
#[tokio::test(flavor = "multi_thread")]
async fn the_feature_level_is_raised_when_the_last_member_knows_it_and_not_before() {
    let upgraded = Arc::new(AtomicBool::new(false));
    let mut cluster = Cluster::tuned(3, {
        let upgraded = Arc::clone(&upgraded);
        move |config| {
            config.timing.hello_interval = Duration::from_millis(100);
            if config.node_id == 3 && !upgraded.load(Ordering::SeqCst) {
                config.knows_level = BASE_LEVEL;
            }
        }
    })
    .await;
    let store = &cluster.stores[&1];
    let raise = Command {
        principal: "test".to_owned(),
        body: Some(Body::RaiseFeatureLevel(RaiseFeatureLevel {
            level: FEATURE_LEVEL,
        })),
        ..Command::default()
    };
    insta::assert_snapshot!(refused(store, raise.clone()).await, @"node 3 has not said that it knows feature level 6: upgrade it, or wait until it answers");
    let mut newer = put("key", "x");
    newer.min_level = FEATURE_LEVEL;
    insta::assert_snapshot!(refused(store, newer.clone()).await, @"it needs feature level 6, the cluster is at 1: raise it once every member runs a version that knows it");

    // Nobody takes it that a node which is away knows more by now.
    cluster.kill(3).await;
    let store = &cluster.stores[&1];
    write(store, "meanwhile", "x").await;
    assert!(
        refused(store, raise)
            .await
            .starts_with("node 3 has not said")
    );

    upgraded.store(true, Ordering::SeqCst);
    cluster.start(3).await;
    cluster.at_level(FEATURE_LEVEL).await;
    cluster.stores[&1].propose(newer).await.unwrap();
    cluster.converged().await;
}
