//! A client that asks again under the same request id gets the same answer.

use trireme_proto::state::{self as pb, JobState, Rejection, command::Body};

use crate::replica::{
    MINUTE_MS, Replica, abort, code, command, create, finish, lease, presubmit, register,
};

fn asked(principal: &str, request_id: &str, body: Body) -> pb::Command {
    pb::Command {
        principal: principal.into(),
        request_id: request_id.into(),
        ..command(body)
    }
}

#[test]
fn a_repeated_request_gets_its_first_answer() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    let first = replica
        .run_command(asked("ann", "1", abort(&["a"])))
        .unwrap();
    assert_eq!(
        (first.aborted.as_slice(), first.duplicate),
        (["a".to_owned()].as_slice(), false)
    );
    let again = replica
        .run_command(asked("ann", "1", abort(&["a"])))
        .unwrap();
    assert_eq!((again.aborted, again.duplicate), (first.aborted, true));
    let kept = replica.state.request("ann", "1").unwrap();
    assert_eq!(kept.revision, replica.index() - 1);
}

#[test]
fn within_one_entry_too() {
    let mut replica = Replica::new();
    let job = |id: &str| create([presubmit(id, "unit", 1, "head")]);
    let outcomes = replica.entry(vec![
        asked("ann", "1", job("a")),
        asked("ann", "1", job("b")),
    ]);
    assert_eq!(crate::replica::answer(&outcomes[1]).unwrap().created, ["a"]);
    assert_eq!(replica.state.counts().jobs, 1);
}

#[test]
fn ids_of_different_principals_do_not_meet() {
    let mut replica = Replica::new();
    let job = |id: &str| create([presubmit(id, "unit", 1, "head")]);
    replica.run_command(asked("ann", "1", job("a"))).unwrap();
    assert_eq!(
        replica
            .run_command(asked("bob", "1", job("b")))
            .unwrap()
            .created,
        ["b"]
    );
}

#[test]
fn a_refusal_is_not_remembered() {
    let mut replica = Replica::new();
    assert_eq!(
        code(replica.run_command(asked("ann", "1", abort(&["a"])))),
        Rejection::NotFound
    );
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    assert_eq!(
        replica
            .run_command(asked("ann", "1", abort(&["a"])))
            .unwrap()
            .aborted,
        ["a"]
    );
}

#[test]
fn an_answer_is_kept_for_ten_minutes() {
    let mut replica = Replica::new();
    let job = || create([presubmit("a", "unit", 1, "head")]);
    replica.run_command(asked("ann", "1", job())).unwrap();
    replica.pass(10 * MINUTE_MS);
    assert_eq!(
        replica
            .run_command(asked("ann", "1", job()))
            .unwrap()
            .created,
        ["a"]
    );
    replica.pass(1);
    assert_eq!(
        replica
            .run_command(asked("ann", "1", job()))
            .unwrap()
            .existing,
        ["a"]
    );
    assert_eq!(replica.state.counts().remembered_requests, 1);
}

#[test]
fn a_lease_asked_for_twice_is_granted_once() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    let incarnation = replica.done(register("agent", 0)).token;
    let ask = || {
        asked(
            "agent:agent",
            "1",
            Body::LeaseJob(lease("a", "agent", incarnation)),
        )
    };
    let fence = replica.run_command(ask()).unwrap().token;
    assert_eq!(replica.run_command(ask()).unwrap().token, fence);
    replica.done(finish("a", fence, JobState::Success));
}

#[test]
fn a_request_id_is_bounded() {
    let mut replica = Replica::new();
    let long = "x".repeat(129);
    assert_eq!(
        code(replica.run_command(asked("ann", &long, create([])))),
        Rejection::Invalid
    );
}
