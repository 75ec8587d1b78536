//! A replica that differs from the others is found, stops, and comes back with their state.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use trireme_proto::state::{Command, RaiseFeatureLevel, command::Body, outcome};
use trireme_raft::{FatalKind, StoreConfig, Tamper};
use trireme_state::FEATURE_LEVEL;

use crate::support::{Cluster, PATIENCE, archive, eventually, is_archived, read, write};

/// Writes another value under `poison` on the node named, as failing memory would.
fn tampering(victim: &Arc<AtomicU64>) -> impl Fn(&mut StoreConfig) + 'static {
    let victim = Arc::clone(victim);
    move |config| {
        let (me, victim) = (config.node_id, Arc::clone(&victim));
        config.tamper = Some(Tamper(Arc::new(move |_, batch| {
            if victim.load(Ordering::SeqCst) != me {
                return;
            }
            for command in &mut batch.commands {
                if let Some(Body::PutCursor(put)) = &mut command.body {
                    for cursor in put.cursors.iter_mut().filter(|it| it.key == "poison") {
                        cursor.value = "other".to_owned();
                    }
                }
            }
        })));
        config.timing.hello_interval = Duration::from_millis(100);
        config.limits.audit_every = Duration::from_secs(3600);
        config.limits.wal.segment_bytes = 16 << 10;
        config.limits.keep_entries = 5;
        config.limits.keep_bytes = 0;
    }
}

async fn raise_level(cluster: &Cluster) {
    let store = cluster.stores.values().next().unwrap();
    // Until every member has said that it knows the level.
    eventually("a higher feature level", async || {
        let raise = Command {
            principal: "test".to_owned(),
            body: Some(Body::RaiseFeatureLevel(RaiseFeatureLevel {
                level: FEATURE_LEVEL,
            })),
            ..Command::default()
        };
        let applied = store.propose(raise).await.ok()?;
        matches!(applied.outcome.result, Some(outcome::Result::Done(_))).then_some(())
    })
    .await;
}

async fn is_found_and_comes_back(leads: bool, snapshot: bool) {
    let victim = Arc::new(AtomicU64::new(0));
    let mut cluster = Cluster::tuned(3, tampering(&victim)).await;
    raise_level(&cluster).await;
    let bad = match leads {
        true => cluster.leader().await,
        false => cluster.follower().await,
    };
    let good = (1..=3).find(|id| *id != bad).unwrap();
    for n in 0..5 {
        archive(&cluster.stores[&good], &format!("guid-{n}")).await;
    }
    victim.store(bad, Ordering::SeqCst);
    write(&cluster.stores[&good], "poison", "right").await;
    cluster.stores[&bad].linearize().await.unwrap();
    victim.store(0, Ordering::SeqCst);
    assert_eq!(
        read(&cluster.stores[&bad], "poison").as_deref(),
        Some("other")
    );
    if snapshot {
        // What is wrong is on disk as well, and the log before it is gone.
        for n in 0..2 {
            cluster.stores[&bad].trigger_snapshot().await.unwrap();
            for m in 0..20 {
                write(
                    &cluster.stores[&good],
                    &format!("key-{n}-{m}"),
                    &"x".repeat(1000),
                )
                .await;
            }
        }
    }

    cluster.stores[&good].begin_audit().await.unwrap();
    let fatal = tokio::time::timeout(PATIENCE, cluster.stores[&bad].fatal());
    let fatal = fatal.await.unwrap();
    assert_eq!(fatal.kind, FatalKind::Diverged, "{fatal}");
    let key = format!("diverged/node-{bad}");
    let alarm = eventually("an alarm", async || {
        cluster.stores[&good].view().alarm(&key).cloned()
    })
    .await;
    assert_eq!(alarm.node_id, bad);
    let marker = cluster.data_dir(bad).join("DIVERGED");
    assert!(marker.exists());
    cluster.stores[&bad].shutdown().await;
    cluster.kill(bad).await;
    // The others go on.
    cluster.leader().await;
    write(&cluster.stores[&good], "meanwhile", "1").await;

    cluster.start(bad).await;
    assert!(!marker.exists());
    let back = &cluster.stores[&bad];
    back.recovered().await;
    cluster.converged().await;
    assert_eq!(read(back, "poison").as_deref(), Some("right"));
    assert_eq!(read(back, "meanwhile").as_deref(), Some("1"));
    for n in 0..5 {
        assert!(is_archived(back, &format!("guid-{n}")).await);
    }
    let audit = cluster.stores[&good].begin_audit().await.unwrap();
    eventually("an audit that finds all equal", async || {
        let view = cluster.stores[&good].view();
        let audit = view.audit(audit)?;
        (audit.reports.len() == 3 && view.alarm(&key).is_none()).then(|| {
            assert!(audit.diverged.is_empty(), "{audit:?}");
        })
    })
    .await;
    // It votes and leads as before, and what it has survives a restart.
    cluster.stores[&good].transfer_leader(bad).await.unwrap();
    write(&cluster.stores[&good], "led by it", "1").await;
    cluster.kill(bad).await;
    cluster.start(bad).await;
    cluster.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_differs_fetches_the_state_anew() {
    is_found_and_comes_back(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_with_wrong_snapshots_and_a_purged_log_does_too() {
    is_found_and_comes_back(false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_differs_hands_over_first() {
    is_found_and_comes_back(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hears_of_it_late_says_what_it_had_before_it_stops() {
    let victim = Arc::new(AtomicU64::new(0));
    let cluster = Cluster::tuned(3, tampering(&victim)).await;
    raise_level(&cluster).await;
    let bad = cluster.follower().await;
    let good = (1..=3).find(|id| *id != bad).unwrap();
    victim.store(bad, Ordering::SeqCst);
    write(&cluster.stores[&good], "poison", "right").await;
    cluster.stores[&bad].linearize().await.unwrap();
    victim.store(0, Ordering::SeqCst);

    cluster.cut(bad);
    let store = &cluster.stores[&good];
    let index = store.begin_audit().await.unwrap();
    eventually("the others' agreement", async || {
        let view = store.view();
        (!view.audit(index)?.agreed.is_empty()).then_some(())
    })
    .await;
    cluster.heal(bad);
    let fatal = tokio::time::timeout(PATIENCE, cluster.stores[&bad].fatal());
    assert_eq!(fatal.await.unwrap().kind, FatalKind::Diverged);
    eventually("its report", async || {
        let view = store.view();
        let audit = view.audit(index)?;
        let alarm = view.alarm(&format!("diverged/node-{bad}")).is_some();
        (audit.diverged == [bad] && alarm).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_replicas_find_nothing_and_rounds_come_by_themselves() {
    let cluster = Cluster::tuned(3, |config| {
        config.timing.hello_interval = Duration::from_millis(100);
        config.limits.audit_every = Duration::from_millis(200);
    })
    .await;
    raise_level(&cluster).await;
    let store = &cluster.stores[&1];
    eventually("three rounds that all answered", async || {
        let view = store.view();
        let whole = view.audits().filter(|audit| audit.reports.len() == 3);
        (whole.count() >= 3).then_some(())
    })
    .await;
    let view = store.view();
    assert!(view.audits().all(|audit| audit.diverged.is_empty()));
    // The machine's disk may be full enough for an alarm of its own.
    let alarms = view
        .alarms()
        .filter(|alarm| !alarm.key.starts_with("disk/"));
    assert_eq!(alarms.count(), 0);
}
