//! The office and its epochs, and the feature level.

use trireme_proto::state::{self as pb, Rejection, command::Body};
use trireme_state::{BASE_LEVEL, FEATURE_LEVEL, is_known, min_level_of};

use crate::replica::{Replica, code, command, create, presubmit, take_office};

#[test]
fn the_epoch_is_the_log_index() {
    let mut replica = Replica::new();
    assert_eq!(replica.state.office().epoch, 0);
    let done = replica.done(take_office(1, 3));
    assert_eq!(done.token, replica.index());
    let office = replica.state.office();
    assert_eq!(
        (office.epoch, office.node_id, office.term),
        (done.token, 1, 3)
    );
    assert_eq!((office.since_ms, office.changes), (replica.now_ms, 0));
}

#[test]
fn only_a_later_term_takes_over() {
    let mut replica = Replica::new();
    let first = replica.done(take_office(1, 3)).token;
    let again = replica.done(take_office(1, 3));
    assert_eq!((again.token, again.duplicate), (first, true));
    assert_eq!(replica.refused(take_office(2, 3)), Rejection::Conflict);
    assert_eq!(replica.refused(take_office(1, 2)), Rejection::Conflict);
    let second = replica.done(take_office(2, 4)).token;
    assert!(second > first);
    assert_eq!(replica.refused(take_office(1, 3)), Rejection::Conflict);
    assert_eq!(replica.state.office().changes, 1);
    // The same node in a later term: a new epoch, but the office did not change hands.
    assert!(replica.done(take_office(2, 5)).token > second);
    assert_eq!(replica.state.office().changes, 1);
    assert_eq!(replica.refused(take_office(0, 9)), Rejection::Invalid);
}

#[test]
fn a_former_office_speaks_no_more() {
    let mut replica = Replica::new();
    let job = || create([presubmit("a", "unit", 1, "head")]);
    assert_eq!(code(replica.run_at(5, job())), Rejection::NotInOffice);
    let first = replica.done(take_office(1, 1)).token;
    let second = replica.done(take_office(2, 2)).token;
    assert_eq!(code(replica.run_at(first, job())), Rejection::NotInOffice);
    replica.run_at(second, job()).unwrap();
    // A door speaks in nobody's name.
    replica.done(create([presubmit("b", "unit", 1, "head")]));
}

#[test]
fn within_one_entry_the_office_changes_at_its_command() {
    let mut replica = Replica::new();
    let first = replica.done(take_office(1, 1)).token;
    let at_first = |id: &str| pb::Command {
        epoch: first,
        ..command(create([presubmit(id, "unit", 1, "head")]))
    };
    let outcomes = replica.entry(vec![
        at_first("a"),
        command(take_office(2, 2)),
        at_first("b"),
    ]);
    assert!(crate::replica::answer(&outcomes[0]).is_ok());
    assert_eq!(
        code(crate::replica::answer(&outcomes[2])),
        Rejection::NotInOffice
    );
}

#[test]
fn the_feature_level_only_rises() {
    let mut replica = Replica::new();
    let raise = |level| Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level });
    assert_eq!(replica.state.feature_level(), 1);
    assert!(replica.done(raise(1)).duplicate);
    replica.done(raise(3));
    assert_eq!(replica.state.feature_level(), 3);
    assert_eq!(replica.refused(raise(2)), Rejection::Conflict);
}

#[test]
fn a_command_above_the_level_is_refused() {
    let mut replica = Replica::new();
    let above = pb::Command {
        min_level: FEATURE_LEVEL + 1,
        ..command(create([]))
    };
    assert_eq!(
        code(replica.run_command(above.clone())),
        Rejection::Conflict
    );
    assert_eq!(min_level_of(&above), FEATURE_LEVEL + 1);
    assert!(!is_known(&above), "this build stops before it");
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: FEATURE_LEVEL + 1,
    }));
    replica.run_command(above).unwrap();
}

#[test]
fn a_command_without_body_is_invalid_and_unknown() {
    let mut replica = Replica::new();
    let empty = pb::Command::default();
    assert!(!is_known(&empty));
    assert!(is_known(&command(create([]))));
    assert_eq!(min_level_of(&command(create([]))), BASE_LEVEL);
    assert_eq!(code(replica.run_command(empty)), Rejection::Invalid);
}

#[test]
fn entries_are_applied_once_and_blank_ones_move_the_index() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    let mut state = replica.state.clone();
    let batch = pb::Batch {
        stamp_ms: 0,
        commands: vec![command(create([presubmit("b", "unit", 1, "head")]))],
    };
    let applied = state.apply(replica.index(), batch.clone());
    assert_eq!(
        code(crate::replica::answer(&applied.outcomes[0])),
        Rejection::Invalid
    );
    assert_eq!(state, replica.state);
    state.apply_blank(replica.index() + 5);
    assert_eq!(state.last_index(), replica.index() + 5);
    // A stamp from before the last one does not turn the clock back.
    state.apply(replica.index() + 6, batch);
    assert_eq!(state.last_stamp_ms(), replica.now_ms);
    assert_eq!(state.job("b").unwrap().created_ms, replica.now_ms);
}
