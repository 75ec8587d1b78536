//! Pools, cursors, timers, alarms.

use trireme_proto::state::{self as pb, MergePool, Rejection, command::Body};

use crate::replica::{MINUTE_MS, Replica, START_MS};

fn pool(branch: &str, batches: u64) -> MergePool {
    MergePool {
        org: "org".into(),
        repo: "repo".into(),
        branch: branch.into(),
        batches,
        ..MergePool::default()
    }
}

fn put_pool(pool: MergePool, remove: bool) -> Body {
    Body::PutPool(pb::PutPool {
        pool: Some(pool),
        remove,
    })
}

#[test]
fn pools_come_change_and_go() {
    let mut replica = Replica::new();
    replica.done(put_pool(pool("main", 2), false));
    replica.pass(MINUTE_MS);
    assert!(
        replica.done(put_pool(pool("main", 2), false)).duplicate,
        "nothing new: no change for watchers"
    );
    let stored = replica.state.pool("org", "repo", "main").unwrap();
    assert_eq!((stored.updated_ms, stored.batches), (START_MS, 2));
    // Batches are counted up only: ids derive from the count.
    let changed = MergePool {
        base_sha: "x".into(),
        ..pool("main", 1)
    };
    replica.done(put_pool(changed, false));
    let stored = replica.state.pool("org", "repo", "main").unwrap();
    assert_eq!((stored.updated_ms, stored.batches), (replica.now_ms, 2));
    replica.done(put_pool(pool("release", 0), false));
    assert_eq!(replica.state.pools().count(), 2);
    replica.done(put_pool(pool("main", 0), true));
    assert!(replica.done(put_pool(pool("main", 0), true)).duplicate);
    assert_eq!(
        replica.refused(put_pool(pool("", 0), false)),
        Rejection::Invalid
    );
}

#[test]
fn cursors_are_put_and_emptied() {
    let mut replica = Replica::new();
    let put = |cursors: &[(&str, i64, &str)]| {
        let cursors = cursors.iter().map(|(key, at_ms, value)| pb::Cursor {
            key: (*key).into(),
            at_ms: *at_ms,
            value: (*value).into(),
            version: 0,
        });
        Body::PutCursor(pb::PutCursor {
            cursors: cursors.collect(),
        })
    };
    replica.done(put(&[
        ("hook/a", 1, "x"),
        ("hook/b", 2, ""),
        ("periodic/c", 3, ""),
    ]));
    assert!(replica.done(put(&[("hook/a", 1, "x")])).duplicate);
    assert_eq!(replica.state.cursors_with_prefix("hook/").count(), 2);
    replica.done(put(&[("hook/a", 0, "")]));
    assert!(replica.state.cursor("hook/a").is_none());
    assert!(replica.done(put(&[("hook/a", 0, "")])).duplicate);
    assert_eq!(
        replica.refused(put(&[("ok", 1, ""), ("", 1, "")])),
        Rejection::Invalid
    );
}

#[test]
fn timers_are_due_in_order() {
    let mut replica = Replica::new();
    let put = |key: &str, due_ms| {
        Body::PutTimer(pb::PutTimer {
            timer: Some(pb::Timer {
                key: key.into(),
                due_ms,
                version: 0,
            }),
        })
    };
    for (key, due_ms) in [("late", 30), ("soon", 10), ("middle", 20)] {
        replica.done(put(key, due_ms));
    }
    let due = |replica: &Replica, now_ms| -> Vec<String> {
        replica
            .state
            .timers_due(now_ms)
            .map(|timer| timer.key.clone())
            .collect()
    };
    assert_eq!(due(&replica, 20), ["soon", "middle"]);
    replica.done(put("late", 5));
    assert!(replica.done(put("late", 5)).duplicate);
    assert_eq!(due(&replica, 10), ["late", "soon"]);
    let drop = || Body::DropTimer(pb::DropTimer { key: "soon".into() });
    replica.done(drop());
    assert!(replica.done(drop()).duplicate);
    assert_eq!(replica.state.timers().count(), 2);
}

#[test]
fn alarms_keep_the_time_they_were_first_raised() {
    let mut replica = Replica::new();
    let set = |message: &str, clear| {
        let alarm = pb::Alarm {
            key: "clock/2".into(),
            message: message.into(),
            node_id: 2,
            raised_ms: 0,
        };
        Body::SetAlarm(pb::SetAlarm {
            alarm: Some(alarm),
            clear,
        })
    };
    replica.done(set("3 s off", false));
    replica.pass(MINUTE_MS);
    assert!(replica.done(set("3 s off", false)).duplicate);
    replica.done(set("4 s off", false));
    let alarm = replica.state.alarm("clock/2").unwrap();
    assert_eq!(
        (alarm.raised_ms, alarm.message.as_str()),
        (START_MS, "4 s off")
    );
    replica.done(set("", true));
    assert!(replica.done(set("", true)).duplicate);
    assert_eq!(replica.state.alarms().count(), 0);
}
