//! A state goes through its snapshot unchanged; a snapshot that lost or changed anything is refused.

use trireme_proto::state::{self as pb, command::Body, snapshot_row::Row};
use trireme_state::{SnapshotError, State};

use crate::replica::{
    Replica, accept, chunk, command, comment, commit, config, create, intent, lease, open,
    periodic, plan, presubmit, pull_request, put_pulls, register, take_office,
};

fn furnished() -> Replica {
    let mut replica = Replica::new();
    replica.done(take_office(1, 1));
    replica.done(chunk(1, 0, 2, b"a"));
    replica.done(chunk(1, 1, 2, b"b"));
    replica.done(Body::PutConfig(config(1)));
    let request = pb::Command {
        request_id: "1".into(),
        ..command(create([periodic("p", "tick")]))
    };
    replica.run_command(request).expect("created");
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    let incarnation = replica.done(register("agent", 0)).token;
    replica.done(Body::LeaseJob(lease("a", "agent", incarnation)));
    replica.done(accept("g"));
    let plans = vec![plan("lgtm", vec![comment("x")])];
    replica.done(Body::CommitPlans(commit("g", &["lgtm"], plans, &[])));
    replica.done(put_pulls([pull_request(1, "head", 1)]));
    replica.done(open(intent("i", 1, "head")));
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level: 2 }));
    replica.done(Body::PutToken(pb::PutToken {
        token: Some(pb::ApiToken {
            id: "token".into(),
            name: "ci".into(),
            role: pb::Role::Viewer.into(),
            sha256: vec![7; 32].into(),
            expires_ms: replica.now_ms + 1,
            ..Default::default()
        }),
    }));
    replica.done(Body::PutTimer(pb::PutTimer {
        timer: Some(pb::Timer {
            key: "t".into(),
            due_ms: 1,
            version: 0,
        }),
    }));
    replica
}

#[test]
fn a_snapshot_gives_the_same_state_back_in_any_order() {
    let replica = furnished();
    let mut rows: Vec<_> = replica.state.snapshot_rows().collect();
    assert!(matches!(rows[0].row, Some(Row::Counters(_))));
    assert_eq!(
        State::from_snapshot_rows(rows.clone()).unwrap(),
        replica.state
    );
    rows.reverse();
    let mut restored = State::from_snapshot_rows(rows).unwrap();
    assert_eq!(restored, replica.state);
    let batch = pb::Batch {
        stamp_ms: replica.now_ms,
        commands: vec![command(create([periodic("q", "tick")]))],
    };
    let mut original = replica.state.clone();
    let index = replica.index() + 1;
    assert_eq!(
        restored.apply(index, batch.clone()),
        original.apply(index, batch)
    );
    assert_eq!(restored.digest(), original.digest());
}

#[test]
fn an_empty_state_has_a_snapshot_too() {
    let empty = State::new();
    assert_eq!(
        State::from_snapshot_rows(empty.snapshot_rows()).unwrap(),
        empty
    );
}

#[test]
fn every_lost_or_doubled_row_is_noticed() {
    let rows: Vec<_> = furnished().state.snapshot_rows().collect();
    for at in 0..rows.len() {
        let mut lost = rows.clone();
        lost.remove(at);
        assert!(
            State::from_snapshot_rows(lost).is_err(),
            "row {at} lost: {:?}",
            rows[at]
        );
        let mut doubled = rows.clone();
        doubled.push(rows[at].clone());
        assert!(
            State::from_snapshot_rows(doubled).is_err(),
            "row {at} doubled: {:?}",
            rows[at]
        );
    }
}

#[test]
fn a_changed_row_is_noticed() {
    let mut rows: Vec<_> = furnished().state.snapshot_rows().collect();
    let job = rows.iter_mut().find_map(|row| match &mut row.row {
        Some(Row::Record(pb::Change {
            record: Some(pb::change::Record::Job(job)),
            ..
        })) => Some(job),
        _ => None,
    });
    job.unwrap().prowjob = vec![1].into();
    assert!(matches!(
        State::from_snapshot_rows(rows),
        Err(SnapshotError::Digest { .. })
    ));
}

#[test]
fn errors_say_what_is_wrong() {
    let message =
        |rows: Vec<pb::SnapshotRow>| State::from_snapshot_rows(rows).unwrap_err().to_string();
    insta::assert_snapshot!(message(vec![]), @"the snapshot has no counters: it was cut off or is no snapshot");
    insta::assert_snapshot!(
        message(vec![pb::SnapshotRow { row: None }]),
        @"snapshot row 0 is empty, or of a kind that this version does not know"
    );
}

/// What a cluster that begins from a file or from the last disk of another one takes over, and what it forgets.
#[test]
fn a_new_cluster_keeps_everything_but_the_office_and_the_alarms_of_former_nodes() {
    let mut replica = furnished();
    for (key, node_id) in [("clock", 1), ("deliveries", 0)] {
        replica.done(Body::SetAlarm(pb::SetAlarm {
            alarm: Some(pb::Alarm {
                key: key.into(),
                message: "look".into(),
                node_id,
                ..pb::Alarm::default()
            }),
            clear: false,
        }));
    }
    let before = &replica.state;
    let mut anew = before.for_new_cluster(1_000_000);
    anew.check_invariants().unwrap();
    assert_eq!(anew.last_index(), 1_000_000);
    assert_eq!(anew.last_stamp_ms(), before.last_stamp_ms());
    assert_eq!(anew.office().epoch, 0);
    let alarms: Vec<_> = anew.alarms().map(|alarm| alarm.key.as_str()).collect();
    assert_eq!(alarms, ["deliveries"]);
    assert_eq!(anew.job("a"), before.job("a"));
    assert_eq!(anew.feature_level(), before.feature_level());
    assert_eq!(anew.counts().agents, before.counts().agents);
    assert_ne!(anew.digest(), before.digest());
    // Never back in time.
    assert_eq!(before.for_new_cluster(1).last_index(), before.last_index());
    // Terms begin anew, and the first of them may take the office.
    let batch = pb::Batch {
        stamp_ms: 0,
        commands: vec![command(take_office(9, 1))],
    };
    let applied = anew.apply(1_000_001, batch);
    assert!(matches!(
        applied.outcomes[0].result,
        Some(pb::outcome::Result::Done(_))
    ));
    assert_eq!(anew.office().epoch, 1_000_001);
}
