//! Merge intents: one open per pull request, none for a head that was merged, settled once.

use trireme_proto::state::{self as pb, IntentState, Rejection, command::Body};

use crate::replica::{DAY_MS, Replica, intent, open, settle_intent, take_office};

#[test]
fn at_most_one_is_open_per_pull_request() {
    let mut replica = Replica::new();
    assert_eq!(replica.done(open(intent("a", 1, "head"))).created, ["a"]);
    assert_eq!(
        replica.refused(open(intent("b", 1, "head"))),
        Rejection::Conflict
    );
    assert_eq!(
        replica.refused(open(intent("b", 1, "other"))),
        Rejection::Conflict
    );
    replica.done(open(intent("c", 2, "head")));
    assert_eq!(replica.state.open_intents().count(), 2);
    assert_eq!(replica.state.open_intent("org", "repo", 1).unwrap().id, "a");
    replica.done(settle_intent("a", IntentState::Refused));
    replica.done(open(intent("b", 1, "head")));
    let ids: Vec<_> = replica
        .state
        .intents_of("org", "repo", 1)
        .map(|intent| &intent.id)
        .collect();
    assert_eq!(ids, ["a", "b"]);
}

/// TIDE-151: whoever asks, one merge at a time is under way on a branch.
#[test]
fn at_most_one_is_open_per_branch() {
    let mut replica = Replica::new();
    let on = |id: &str, number, branch: &str| {
        open(pb::MergeIntent {
            branch: branch.into(),
            ..intent(id, number, "head")
        })
    };
    // As long as an older build may be among the members, all replicas still take two.
    replica.done(on("a", 1, "main"));
    replica.done(on("b", 2, "main"));
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level: 3 }));
    assert_eq!(replica.refused(on("c", 3, "main")), Rejection::Conflict);
    replica.done(settle_intent("a", IntentState::Merged));
    assert_eq!(replica.refused(on("c", 3, "main")), Rejection::Conflict);
    // Other branches are none of its business, however they are spelt.
    replica.done(on("d", 4, "mai"));
    replica.done(on("e", 5, "main-2"));
    let elsewhere = pb::MergeIntent {
        repo: "repo-2".into(),
        branch: "main".into(),
        ..intent("f", 3, "head")
    };
    replica.done(open(elsewhere));
    replica.done(settle_intent("b", IntentState::Withdrawn));
    replica.done(on("c", 3, "main"));
    assert_eq!(replica.refused(on("g", 6, "main")), Rejection::Conflict);
    // Asking again is no second one.
    assert!(replica.done(on("c", 3, "main")).duplicate);
}

#[test]
fn a_merged_head_is_not_merged_again() {
    for merged in [IntentState::Merged, IntentState::Observed] {
        let mut replica = Replica::new();
        replica.done(open(intent("a", 1, "head")));
        replica.done(settle_intent("a", merged));
        assert_eq!(
            replica.refused(open(intent("b", 1, "head"))),
            Rejection::Conflict
        );
        replica.done(open(intent("b", 1, "other head")));
    }
}

#[test]
fn opening_again_under_the_same_office_is_a_repetition() {
    let mut replica = Replica::new();
    let epoch = replica.done(take_office(1, 1)).token;
    replica.run_at(epoch, open(intent("a", 1, "head"))).unwrap();
    assert!(
        replica
            .run_at(epoch, open(intent("a", 1, "head")))
            .unwrap()
            .duplicate
    );
    // A new office did not open it: it must observe first.
    let next = replica.done(take_office(2, 2)).token;
    let other = replica.run_at(next, open(intent("a", 1, "head")));
    assert_eq!(crate::replica::code(other), Rejection::AlreadyExists);
    replica
        .run_at(next, settle_intent("a", IntentState::Observed))
        .unwrap();
    let settled = replica.state.intent("a").unwrap();
    assert_eq!((settled.opened_epoch, settled.settled_epoch), (epoch, next));
}

#[test]
fn a_settled_intent_is_final() {
    let mut replica = Replica::new();
    replica.done(open(intent("a", 1, "head")));
    let merged = pb::SettleIntent {
        id: "a".into(),
        state: IntentState::Merged.into(),
        merge_sha: "merge".into(),
        ..pb::SettleIntent::default()
    };
    replica.done(Body::SettleIntent(merged));
    let stored = replica.state.intent("a").unwrap();
    assert_eq!(
        (stored.merge_sha.as_str(), stored.settled_ms),
        ("merge", replica.now_ms)
    );
    assert!(
        replica
            .done(settle_intent("a", IntentState::Merged))
            .duplicate
    );
    for other in [
        IntentState::Refused,
        IntentState::Withdrawn,
        IntentState::Observed,
    ] {
        assert_eq!(
            replica.refused(settle_intent("a", other)),
            Rejection::Conflict
        );
    }
    for none in [IntentState::Unspecified, IntentState::Open] {
        assert_eq!(
            replica.refused(settle_intent("a", none)),
            Rejection::Invalid
        );
    }
    assert_eq!(
        replica.refused(settle_intent("x", IntentState::Merged)),
        Rejection::NotFound
    );
}

#[test]
fn settled_ones_move_to_the_archive_after_a_week() {
    let mut replica = Replica::new();
    replica.done(open(intent("a", 1, "head")));
    replica.done(open(intent("b", 2, "head")));
    replica.done(settle_intent("a", IntentState::Merged));
    replica.pass(7 * DAY_MS + 1);
    replica.entry(vec![]);
    assert!(replica.state.intent("a").is_none());
    assert!(replica.state.intent("b").is_some(), "an open one stays");
    assert_eq!(replica.archive.len(), 1);
}

#[test]
fn malformed_intents_are_refused() {
    let mut replica = Replica::new();
    for bad in [
        intent("", 1, "head"),
        intent("a", 0, "head"),
        intent("a", 1, ""),
    ] {
        assert_eq!(replica.refused(open(bad)), Rejection::Invalid);
    }
}
