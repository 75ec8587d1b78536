//! Agents: incarnations, and what becomes of leases when one is restarted, lost or draining.

use trireme_proto::state::{self as pb, JobState, Rejection, command::Body};

use crate::replica::{
    DAY_MS, Replica, abort, command, create, finish, lease, presubmit, register, start,
};

fn set(id: &str, incarnation: u64, draining: bool, lost: bool) -> Body {
    Body::SetAgent(pb::SetAgent {
        id: id.into(),
        incarnation,
        draining,
        lost,
        node_id: 0,
    })
}

/// Jobs `a` with a retry and `b` without, held by `agent`; its incarnation.
fn holding_two() -> (Replica, u64) {
    let mut replica = Replica::new();
    let incarnation = replica.done(register("agent", 2)).token;
    let mut job = presubmit("a", "unit", 1, "head");
    job.retries_left = 1;
    replica.done(create([
        job,
        presubmit("b", "lint", 1, "head"),
        presubmit("c", "e2e", 1, "head"),
    ]));
    for id in ["a", "b"] {
        replica.done(Body::LeaseJob(lease(id, "agent", incarnation)));
    }
    (replica, incarnation)
}

#[test]
fn the_incarnation_is_the_log_index_of_the_registration() {
    let mut replica = Replica::new();
    let done = replica.done(register("agent", 1));
    assert_eq!(done.token, replica.index());
    let agent = replica.state.agent("agent").unwrap();
    assert_eq!(
        (agent.incarnation, agent.registered_ms),
        (done.token, replica.now_ms)
    );
    let twice = replica.entry(vec![command(register("b", 1)), command(register("b", 1))]);
    assert!(crate::replica::answer(&twice[1]).is_err());
}

#[test]
fn registering_again_loses_the_leases_of_the_older_process() {
    let (mut replica, old) = holding_two();
    let (fence_a, fence_b) = (replica.fence("a"), replica.fence("b"));
    let new = replica.done(register("agent", 2)).token;
    assert!(new > old);
    assert_eq!(replica.job("a").state(), JobState::Triggered);
    assert_eq!(replica.job("b").state(), JobState::Error);
    insta::assert_snapshot!(replica.job("b").description, @"The agent was restarted.");
    assert_eq!(replica.refused(start("a", fence_a)), Rejection::Fenced);
    assert_eq!(
        replica.refused(finish("b", fence_b, JobState::Success)),
        Rejection::Fenced
    );
    assert_eq!(
        replica.refused(Body::LeaseJob(lease("c", "agent", old))),
        Rejection::Fenced
    );
    replica.done(Body::LeaseJob(lease("c", "agent", new)));
}

#[test]
fn a_lost_agent_loses_its_leases_and_gets_no_more() {
    let (mut replica, incarnation) = holding_two();
    replica.done(abort(&["b"]));
    replica.done(set("agent", incarnation, false, true));
    assert_eq!(replica.job("a").state(), JobState::Triggered);
    let aborted = replica.job("b");
    assert_eq!(
        (aborted.state(), aborted.completed_ms),
        (JobState::Aborted, replica.now_ms)
    );
    assert_eq!(replica.state.leases_of_agent("agent").count(), 0);
    assert_eq!(
        replica.refused(Body::LeaseJob(lease("c", "agent", incarnation))),
        Rejection::Fenced
    );
    // Only a registration brings it back.
    replica.done(set("agent", incarnation, true, false));
    assert!(replica.state.agent("agent").unwrap().lost);
    let next = replica.done(register("agent", 2)).token;
    replica.done(Body::LeaseJob(lease("c", "agent", next)));
}

#[test]
fn a_draining_agent_keeps_what_it_has() {
    let (mut replica, incarnation) = holding_two();
    let fence = replica.fence("a");
    replica.done(finish("b", replica.fence("b"), JobState::Success));
    replica.done(set("agent", incarnation, true, false));
    assert!(
        replica
            .done(set("agent", incarnation, true, false))
            .duplicate
    );
    assert_eq!(
        replica.refused(Body::LeaseJob(lease("c", "agent", incarnation))),
        Rejection::Conflict
    );
    replica.done(finish("a", fence, JobState::Success));
}

#[test]
fn capacity_bounds_the_leases() {
    let (mut replica, incarnation) = holding_two();
    assert_eq!(replica.state.lease_count("agent"), 2);
    let held: Vec<_> = replica
        .state
        .leases_of_agent("agent")
        .map(|job| job.id.clone())
        .collect();
    assert_eq!(held, ["a", "b"]);
    assert_eq!(
        replica.refused(Body::LeaseJob(lease("c", "agent", incarnation))),
        Rejection::Conflict
    );
    replica.done(finish("a", replica.fence("a"), JobState::Success));
    replica.done(Body::LeaseJob(lease("c", "agent", incarnation)));
}

#[test]
fn unknown_agents_and_old_incarnations_are_refused() {
    let (mut replica, incarnation) = holding_two();
    assert_eq!(
        replica.refused(Body::LeaseJob(lease("c", "other", 1))),
        Rejection::NotFound
    );
    assert_eq!(
        replica.refused(set("other", 1, true, false)),
        Rejection::NotFound
    );
    assert_eq!(
        replica.refused(set("agent", incarnation - 1, true, false)),
        Rejection::Fenced
    );
    assert_eq!(replica.refused(register("", 1)), Rejection::Invalid);
}

#[test]
fn a_lost_agent_is_forgotten_after_a_day() {
    let mut replica = Replica::new();
    let incarnation = replica.done(register("agent", 1)).token;
    replica.done(register("other", 1));
    replica.done(set("agent", incarnation, false, true));
    replica.pass(DAY_MS);
    replica.entry(vec![]);
    assert_eq!(replica.state.agents().count(), 2);
    replica.pass(1);
    replica.entry(vec![]);
    let left: Vec<_> = replica
        .state
        .agents()
        .map(|agent| agent.id.clone())
        .collect();
    assert_eq!(left, ["other"]);
}

#[test]
fn an_agent_may_move_to_another_node() {
    let (mut replica, incarnation) = holding_two();
    let moved = |node_id| {
        Body::SetAgent(pb::SetAgent {
            id: "agent".into(),
            incarnation,
            node_id,
            ..pb::SetAgent::default()
        })
    };
    replica.done(moved(3));
    assert!(replica.done(moved(0)).duplicate);
    assert_eq!(replica.state.agent("agent").unwrap().node_id, 3);
    assert_eq!(replica.state.lease_count("agent"), 2);
}
