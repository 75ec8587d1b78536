//! How many jobs may run at once: per job, per queue, over all; first come, first served.

use trireme_proto::state::{self as pb, JobState, Rejection, command::Body};

use crate::replica::{
    MINUTE_MS, Replica, abort, command, create, finish, lease, periodic, presubmit, register,
    release,
};

struct World {
    replica: Replica,
    incarnation: u64,
}

impl World {
    fn new() -> Self {
        let mut replica = Replica::new();
        let incarnation = replica.done(register("agent", 0)).token;
        Self {
            replica,
            incarnation,
        }
    }

    fn triggered(&mut self, id: &str, max_concurrency: u32) {
        let job = pb::Job {
            max_concurrency,
            queue: "gpu".into(),
            ..periodic(id, "limited")
        };
        self.replica.done(create([job]));
        self.replica.pass(MINUTE_MS);
    }

    fn lease(&mut self, id: &str) -> Result<u64, Rejection> {
        self.lease_with(lease(id, "agent", self.incarnation))
    }

    fn lease_with(&mut self, asked: pb::LeaseJob) -> Result<u64, Rejection> {
        self.replica
            .run(Body::LeaseJob(asked))
            .map(|done| done.token)
            .map_err(|(code, _)| code)
    }
}

/// EXE-041
#[test]
fn a_job_waits_for_pending_ones_and_for_older_triggered_ones() {
    let mut world = World::new();
    for id in ["1", "2", "3"] {
        world.triggered(id, 2);
    }
    // Both places belong to the older ones.
    assert_eq!(world.lease("3"), Err(Rejection::Conflict));
    let fence = world.lease("2").unwrap();
    assert_eq!(world.lease("3"), Err(Rejection::Conflict));
    world.lease("1").unwrap();
    assert_eq!(world.lease("3"), Err(Rejection::Conflict));
    assert_eq!(world.replica.state.running_count("limited"), 2);
    world.replica.done(finish("2", fence, JobState::Success));
    world.lease("3").unwrap();
}

/// EXE-041: newer triggered runs and finished ones do not count, nor do those created at the same time.
#[test]
fn equal_and_newer_ones_do_not_block() {
    let mut world = World::new();
    let job = |id: &str| pb::Job {
        max_concurrency: 1,
        ..periodic(id, "limited")
    };
    world.replica.done(create([job("a"), job("b")]));
    world.replica.pass(MINUTE_MS);
    world.replica.done(create([job("c")]));
    let fence = world.lease("b").unwrap();
    assert_eq!(world.lease("a"), Err(Rejection::Conflict));
    world.replica.done(finish("b", fence, JobState::Success));
    world.lease("a").unwrap();
}

/// EXE-043: the decision is taken where the count is.
#[test]
fn two_deciders_do_not_both_take_the_last_place() {
    let mut world = World::new();
    let job = |id: &str| pb::Job {
        max_concurrency: 1,
        ..periodic(id, "limited")
    };
    world.replica.done(create([job("a"), job("b")]));
    let ask = |id: &str| command(Body::LeaseJob(lease(id, "agent", world.incarnation)));
    let outcomes = world.replica.entry(vec![ask("a"), ask("b")]);
    let refused = outcomes
        .iter()
        .filter(|outcome| crate::replica::answer(outcome).is_err());
    assert_eq!(refused.count(), 1);
}

/// An aborted run that is still being killed has left its place, as in Prow.
#[test]
fn only_pending_ones_hold_a_place() {
    let mut world = World::new();
    world.triggered("1", 1);
    world.triggered("2", 1);
    world.lease("1").unwrap();
    world.replica.done(abort(&["1"]));
    assert_eq!(world.replica.job("1").completed_ms, 0);
    world.lease("2").unwrap();
}

#[test]
fn a_run_that_lost_its_lease_keeps_its_turn() {
    let mut world = World::new();
    world.triggered("1", 1);
    world.triggered("2", 1);
    let fence = world.lease("1").unwrap();
    world.replica.done(release("1", fence, true));
    assert_eq!(world.lease("2"), Err(Rejection::Conflict));
    world.lease("1").unwrap();
}

/// EXE-042
#[test]
fn a_queue_has_a_capacity() {
    let mut world = World::new();
    for id in ["1", "2", "3"] {
        world.triggered(id, 0);
    }
    let ask = |world: &World, id: &str, capacity: u32| pb::LeaseJob {
        queue_capacity: Some(capacity),
        ..lease(id, "agent", world.incarnation)
    };
    assert_eq!(world.replica.state.queue_counts("gpu"), (0, 3));
    let never = ask(&world, "1", 0);
    assert_eq!(world.lease_with(never), Err(Rejection::Conflict));
    let third = ask(&world, "3", 2);
    assert_eq!(world.lease_with(third.clone()), Err(Rejection::Conflict));
    let first = ask(&world, "1", 2);
    world.lease_with(first).unwrap();
    let second = ask(&world, "2", 2);
    world.lease_with(second).unwrap();
    assert_eq!(world.replica.state.queue_counts("gpu"), (2, 1));
    assert_eq!(world.lease_with(third), Err(Rejection::Conflict));
    // Without a capacity the queue is unlimited.
    world.lease("3").unwrap();
}

/// EXE-040
#[test]
fn there_is_a_limit_over_all() {
    let mut world = World::new();
    world.replica.done(create([
        presubmit("a", "unit", 1, "head"),
        presubmit("b", "lint", 1, "head"),
    ]));
    let ask = |world: &World, id: &str| pb::LeaseJob {
        max_running: 1,
        ..lease(id, "agent", world.incarnation)
    };
    let first = ask(&world, "a");
    world.lease_with(first).unwrap();
    let second = ask(&world, "b");
    assert_eq!(world.lease_with(second), Err(Rejection::Conflict));
    assert_eq!(world.replica.state.state_count(JobState::Pending), 1);
    assert_eq!(
        world
            .replica
            .state
            .live_jobs_in(JobState::Triggered)
            .count(),
        1
    );
}
