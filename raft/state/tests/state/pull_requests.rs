//! The mirror of pull requests: late reports, new heads, contexts, and when closed ones leave.

use trireme_proto::state::{
    self as pb, ContextState, Mergeable, PullRequest, Rejection, command::Body,
};

use crate::replica::{DAY_MS, Replica, accept, commit, plan, pull_request, put_pulls};

fn context(name: &str, state: ContextState, updated_ms: i64) -> pb::Context {
    pb::Context {
        context: name.into(),
        state: state.into(),
        updated_ms,
        ..pb::Context::default()
    }
}

fn report(sha: &str, context: pb::Context) -> Body {
    Body::PutPullRequests(pb::PutPullRequests {
        pull_requests: vec![],
        contexts: vec![pb::HeadContext {
            org: "org".into(),
            repo: "repo".into(),
            sha: sha.into(),
            context: Some(context),
        }],
    })
}

fn mirrored(replica: &Replica, number: u64) -> PullRequest {
    let pull = replica.state.pull_request("org", "repo", number);
    (**pull.expect("mirrored")).clone()
}

#[test]
fn a_late_report_never_overwrites_a_newer_one() {
    let mut replica = Replica::new();
    replica.done(put_pulls([pull_request(1, "new", 10)]));
    assert!(
        replica
            .done(put_pulls([pull_request(1, "old", 9)]))
            .duplicate
    );
    assert_eq!(mirrored(&replica, 1).head_sha, "new");
    // GitHub's clock has seconds: the later of two equal ones counts.
    replica.done(put_pulls([pull_request(1, "newer", 10)]));
    assert_eq!(mirrored(&replica, 1).head_sha, "newer");
    assert!(
        replica
            .done(put_pulls([pull_request(1, "newer", 10)]))
            .duplicate
    );
    assert!(replica.last.changes.is_empty());
}

#[test]
fn contexts_belong_to_a_head() {
    let mut replica = Replica::new();
    replica.done(put_pulls([
        pull_request(1, "a", 1),
        pull_request(2, "a", 1),
        pull_request(3, "b", 1),
    ]));
    replica.done(report("a", context("ci/unit", ContextState::Pending, 5)));
    replica.done(report("a", context("ci/lint", ContextState::Success, 5)));
    assert_eq!(mirrored(&replica, 1).contexts.len(), 2);
    assert_eq!(mirrored(&replica, 2).contexts.len(), 2);
    assert!(mirrored(&replica, 3).contexts.is_empty());

    // An older status does not undo a newer one.
    assert!(
        replica
            .done(report("a", context("ci/unit", ContextState::Failure, 4)))
            .duplicate
    );
    replica.done(report("a", context("ci/unit", ContextState::Success, 6)));
    assert_eq!(
        mirrored(&replica, 1).contexts["ci/unit"].state(),
        ContextState::Success
    );

    // The same head keeps them, a new head clears them.
    replica.done(put_pulls([PullRequest {
        title: "x".into(),
        ..pull_request(1, "a", 7)
    }]));
    assert_eq!(mirrored(&replica, 1).contexts.len(), 2);
    replica.done(put_pulls([pull_request(1, "c", 8)]));
    assert!(mirrored(&replica, 1).contexts.is_empty());
    assert!(
        replica
            .done(report("a", context("ci/unit", ContextState::Success, 6)))
            .duplicate
    );
}

#[test]
fn heads_find_their_pull_requests() {
    let mut replica = Replica::new();
    let closed = PullRequest {
        open: false,
        ..pull_request(3, "a", 1)
    };
    replica.done(put_pulls([
        pull_request(1, "a", 1),
        pull_request(2, "b", 1),
        closed,
    ]));
    let numbers = |sha: &str| -> Vec<u64> {
        replica
            .state
            .pulls_with_head(sha)
            .map(|pull| pull.number)
            .collect()
    };
    assert_eq!(numbers("a"), [1, 3]);
    assert_eq!(numbers("b"), [2]);
    assert_eq!(numbers("c"), Vec::<u64>::new());
    assert_eq!(replica.state.pull_requests("org", "repo").count(), 3);
    assert_eq!(replica.state.pull_requests("org", "rep").count(), 0);
    assert_eq!(replica.state.open_pull_requests().count(), 2);
}

#[test]
fn a_webhook_does_not_erase_what_it_does_not_know() {
    let mut replica = Replica::new();
    let mut known = pull_request(1, "a", 1);
    known.review_decision = "APPROVED".into();
    known.ready_since_ms = 42;
    known.set_mergeable(Mergeable::Yes);
    replica.done(put_pulls([known]));
    let webhook = |replica: &mut Replica, guid: &str, pull: PullRequest| {
        replica.done(accept(guid));
        let body = pb::PlanBody {
            pull_requests: vec![pull],
            ..plan("trigger", vec![])
        };
        replica.done(Body::CommitPlans(commit(
            guid,
            &["trigger"],
            vec![body],
            &[],
        )));
    };
    webhook(&mut replica, "g", pull_request(1, "a", 2));
    let kept = mirrored(&replica, 1);
    assert_eq!(
        (kept.review_decision.as_str(), kept.ready_since_ms),
        ("APPROVED", 42)
    );
    assert_eq!(kept.mergeable(), Mergeable::Yes);
    webhook(&mut replica, "h", pull_request(1, "b", 3));
    assert_eq!(mirrored(&replica, 1).mergeable(), Mergeable::Unknown);
    // Tide knows: what it leaves empty is empty.
    replica.done(put_pulls([pull_request(1, "b", 4)]));
    assert_eq!(mirrored(&replica, 1).ready_since_ms, 0);
}

#[test]
fn closed_ones_stay_a_week() {
    let mut replica = Replica::new();
    replica.done(put_pulls([
        pull_request(1, "a", 1),
        pull_request(2, "b", 1),
    ]));
    replica.done(put_pulls([PullRequest {
        open: false,
        ..pull_request(1, "a", 2)
    }]));
    assert_eq!(mirrored(&replica, 1).closed_ms, replica.now_ms);
    replica.pass(7 * DAY_MS);
    // A late update of a closed one does not prolong its stay.
    replica.done(put_pulls([PullRequest {
        open: false,
        title: "x".into(),
        ..pull_request(1, "a", 3)
    }]));
    assert!(replica.state.pull_request("org", "repo", 1).is_some());
    replica.pass(1);
    replica.entry(vec![]);
    assert!(replica.state.pull_request("org", "repo", 1).is_none());
    assert!(replica.state.pull_request("org", "repo", 2).is_some());
}

#[test]
fn a_reopened_one_stays() {
    let mut replica = Replica::new();
    replica.done(put_pulls([PullRequest {
        open: false,
        ..pull_request(1, "a", 1)
    }]));
    replica.done(put_pulls([pull_request(1, "a", 2)]));
    assert_eq!(mirrored(&replica, 1).closed_ms, 0);
    replica.pass(30 * DAY_MS);
    replica.entry(vec![]);
    assert!(replica.state.pull_request("org", "repo", 1).is_some());
}

#[test]
fn malformed_ones_are_refused_with_the_whole_command() {
    let mut replica = Replica::new();
    let good = pull_request(1, "a", 1);
    let nameless = PullRequest {
        repo: String::new(),
        ..good.clone()
    };
    let numberless = PullRequest {
        number: 0,
        ..good.clone()
    };
    let mut crossed = good.clone();
    crossed
        .contexts
        .insert("a".into(), context("b", ContextState::Success, 1));
    for bad in [nameless, numberless, crossed] {
        assert_eq!(
            replica.refused(put_pulls([good.clone(), bad])),
            Rejection::Invalid
        );
    }
    assert_eq!(
        replica.refused(report("", context("x", ContextState::Success, 1))),
        Rejection::Invalid
    );
    assert_eq!(replica.state.counts().pull_requests, 0);
}
