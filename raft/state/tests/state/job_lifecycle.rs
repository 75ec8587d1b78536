//! What may happen to a job between its creation and its one result.

use trireme_proto::state::{self as pb, JobState, Rejection, command::Body};
use trireme_state::BUILD_ID_MARK;

use crate::replica::{
    HOUR_MS, MINUTE_MS, Replica, abort, code, command, create, finish, lease, presubmit, register,
    release, start, take_office,
};

/// A replica with one presubmit `a`, and the incarnation of an agent.
fn with_job(retries: u32) -> (Replica, u64) {
    let mut replica = Replica::new();
    let mut job = presubmit("a", "unit", 1, "head");
    job.retries_left = retries;
    replica.done(create([job]));
    let incarnation = replica.done(register("agent", 0)).token;
    (replica, incarnation)
}

fn leased(retries: u32) -> (Replica, u64) {
    let (mut replica, incarnation) = with_job(retries);
    let fence = replica
        .done(Body::LeaseJob(lease("a", "agent", incarnation)))
        .token;
    (replica, fence)
}

/// JOB-053, JOB-054
#[test]
fn a_run_goes_from_triggered_over_pending_to_its_result() {
    let (mut replica, incarnation) = with_job(0);
    let asked = pb::LeaseJob {
        url: "https://deck/a".into(),
        ..lease("a", "agent", incarnation)
    };
    let done = replica.done(Body::LeaseJob(asked));
    let job = replica.job("a");
    assert_eq!(job.state(), JobState::Pending);
    assert_eq!((job.attempt, job.pending_ms), (1, replica.now_ms));
    assert_eq!(
        (job.url.as_str(), &job.build_id),
        ("https://deck/a", &done.build_id)
    );
    let held = job.lease.clone().unwrap();
    assert_eq!(
        (held.agent_id.as_str(), held.fence),
        ("agent", replica.index())
    );
    assert_eq!(done.token, held.fence);

    replica.pass(500);
    replica.done(start("a", held.fence));
    assert_eq!(
        replica.job("a").lease.as_ref().unwrap().started_ms,
        replica.now_ms
    );
    assert!(replica.done(start("a", held.fence)).duplicate);

    replica.pass(MINUTE_MS);
    replica.done(finish("a", held.fence, JobState::Success));
    let job = replica.job("a");
    assert_eq!(
        (job.state(), job.completed_ms),
        (JobState::Success, replica.now_ms)
    );
    assert_eq!((job.description.as_str(), &job.lease), ("Job done.", &None));
}

/// EXE-050
#[test]
fn a_leased_run_is_described_and_placed_under_its_build_id() {
    let (mut replica, incarnation) = with_job(0);
    let asked = pb::LeaseJob {
        url: format!("https://deck/view/{BUILD_ID_MARK}"),
        ..lease("a", "agent", incarnation)
    };
    let build_id = replica.done(Body::LeaseJob(asked)).build_id;
    let job = replica.job("a");
    assert_eq!(job.url, format!("https://deck/view/{build_id}"));
    insta::assert_snapshot!(job.description, @"Job triggered.");
}

/// EXE-001
/// JOB-053
#[test]
fn a_complete_run_is_final() {
    let (mut replica, fence) = leased(3);
    replica.done(finish("a", fence, JobState::Failure));
    assert_eq!(
        replica.refused(finish("a", fence, JobState::Success)),
        Rejection::Fenced
    );
    assert_eq!(replica.refused(start("a", fence)), Rejection::Fenced);
    assert_eq!(
        replica.refused(release("a", fence, false)),
        Rejection::Fenced
    );
    assert_eq!(
        replica.refused(finish("a", 0, JobState::Error)),
        Rejection::Fenced
    );
    let url = Body::SetJobUrl(pb::SetJobUrl {
        id: "a".into(),
        url: "https://x".into(),
    });
    assert_eq!(replica.refused(url), Rejection::Conflict);
    let trigger = Body::TriggerJob(pb::TriggerJob {
        id: "a".into(),
        cluster: String::new(),
    });
    assert_eq!(replica.refused(trigger), Rejection::Conflict);
    assert!(replica.done(abort(&["a"])).duplicate);
    assert_eq!(replica.job("a").state(), JobState::Failure);
}

/// EXE-014, TIDE-162: a late result of a run that was given to somebody else changes nothing.
#[test]
fn only_the_present_fence_counts() {
    let (mut replica, first) = leased(1);
    for fence in [0, first - 1, first + 1] {
        assert_eq!(replica.refused(start("a", fence)), Rejection::Fenced);
        assert_eq!(
            replica.refused(release("a", fence, false)),
            Rejection::Fenced
        );
        assert_eq!(
            replica.refused(finish("a", fence, JobState::Success)),
            Rejection::Fenced
        );
    }
    replica.done(release("a", first, false));
    let incarnation = replica.state.agent("agent").unwrap().incarnation;
    let second = replica
        .done(Body::LeaseJob(lease("a", "agent", incarnation)))
        .token;
    assert_eq!(
        replica.refused(finish("a", first, JobState::Success)),
        Rejection::Fenced
    );
    replica.done(finish("a", second, JobState::Success));
}

/// EXE-056: the build id stays over attempts, the attempt counts.
#[test]
fn a_lost_lease_uses_up_an_attempt_until_none_is_left() {
    let (mut replica, fence) = leased(1);
    let build_id = replica.job("a").build_id.clone();
    replica.done(start("a", fence));
    // It did start, whatever the agent says.
    replica.done(release("a", fence, true));
    let job = replica.job("a");
    assert_eq!(
        (job.state(), job.retries_left, job.pending_ms),
        (JobState::Triggered, 0, 0)
    );

    let incarnation = replica.state.agent("agent").unwrap().incarnation;
    let fence = replica
        .done(Body::LeaseJob(lease("a", "agent", incarnation)))
        .token;
    assert_eq!(
        (replica.job("a").attempt, &replica.job("a").build_id),
        (2, &build_id)
    );
    replica.done(release("a", fence, false));
    let job = replica.job("a");
    assert_eq!(
        (job.state(), job.completed_ms),
        (JobState::Error, replica.now_ms)
    );
    assert_eq!(job.description, "lease expired");
}

#[test]
fn a_lease_given_back_unstarted_is_no_attempt() {
    let (mut replica, fence) = leased(0);
    replica.done(release("a", fence, true));
    let job = replica.job("a");
    assert_eq!(
        (job.state(), job.attempt, job.retries_left),
        (JobState::Triggered, 0, 0)
    );
}

/// EXE-011, EXE-062
/// JOB-053: until then it is asked for.
#[test]
fn an_aborted_run_completes_when_its_agent_confirms() {
    let (mut replica, fence) = leased(2);
    assert_eq!(replica.done(abort(&["a"])).aborted, ["a"]);
    let job = replica.job("a");
    assert_eq!((job.state(), job.completed_ms), (JobState::Aborted, 0));
    assert_eq!(job.description, "Aborted by trigger plugin.");
    assert_eq!(replica.state.aborting_jobs().count(), 1);
    assert!(replica.done(abort(&["a"])).duplicate);

    replica.pass(MINUTE_MS);
    replica.done(finish("a", fence, JobState::Success));
    let job = replica.job("a");
    assert_eq!(
        (job.state(), job.completed_ms),
        (JobState::Aborted, replica.now_ms)
    );
    assert_eq!(job.description, "Aborted by trigger plugin.");
}

#[test]
fn an_aborted_run_completes_when_its_lease_is_lost() {
    let (mut replica, fence) = leased(2);
    replica.done(abort(&["a"]));
    replica.done(release("a", fence, true));
    let job = replica.job("a");
    assert_eq!(
        (job.state(), job.completed_ms),
        (JobState::Aborted, replica.now_ms)
    );
}

#[test]
fn a_run_without_lease_is_aborted_at_once() {
    let (mut replica, incarnation) = with_job(0);
    replica.done(create([presubmit("b", "lint", 1, "head")]));
    assert_eq!(
        replica.done(abort(&["a", "unknown", "b"])).aborted,
        ["a", "b"]
    );
    assert_eq!(replica.job("a").completed_ms, replica.now_ms);
    let asked = Body::LeaseJob(lease("a", "agent", incarnation));
    assert_eq!(replica.refused(asked), Rejection::Conflict);
    assert_eq!(replica.refused(abort(&["unknown"])), Rejection::NotFound);
}

/// EXE-020
#[test]
fn scheduling_ends_with_a_cluster() {
    let mut replica = Replica::new();
    let mut job = presubmit("a", "unit", 1, "head");
    job.set_state(JobState::Scheduling);
    replica.done(create([job]));
    let incarnation = replica.done(register("agent", 0)).token;
    let asked = Body::LeaseJob(lease("a", "agent", incarnation));
    assert_eq!(replica.refused(asked), Rejection::Conflict);
    let trigger = Body::TriggerJob(pb::TriggerJob {
        id: "a".into(),
        cluster: "build01".into(),
    });
    replica.done(trigger.clone());
    let job = replica.job("a");
    assert_eq!(
        (job.state(), job.cluster.as_str()),
        (JobState::Triggered, "build01")
    );
    assert_eq!(replica.refused(trigger), Rejection::Conflict);
}

/// EXE-052
#[test]
fn a_controller_fails_what_can_never_start() {
    let (mut replica, incarnation) = with_job(0);
    let epoch = replica.done(take_office(1, 1)).token;
    assert_eq!(
        replica.refused(finish("a", 0, JobState::Error)),
        Rejection::Fenced
    );
    let success = replica.run_at(epoch, finish("a", 0, JobState::Success));
    assert_eq!(code(success), Rejection::Conflict);
    replica
        .run_at(epoch, finish("a", 0, JobState::Error))
        .unwrap();
    assert_eq!(replica.job("a").state(), JobState::Error);

    replica.done(create([presubmit("b", "unit", 1, "head")]));
    replica.done(Body::LeaseJob(lease("b", "agent", incarnation)));
    let held = replica.run_at(epoch, finish("b", 0, JobState::Error));
    assert_eq!(code(held), Rejection::Fenced);
}

#[test]
fn past_its_deadline_a_run_starts_no_more() {
    let mut replica = Replica::new();
    let mut job = presubmit("a", "unit", 1, "head");
    job.retries_left = 5;
    job.deadline_ms = replica.now_ms + HOUR_MS;
    replica.done(create([
        job.clone(),
        pb::Job {
            id: "b".into(),
            ..job
        },
    ]));
    let incarnation = replica.done(register("agent", 0)).token;
    let fence = replica
        .done(Body::LeaseJob(lease("a", "agent", incarnation)))
        .token;
    assert_eq!(replica.state.jobs_past_deadline(replica.now_ms).count(), 0);
    replica.pass(HOUR_MS);
    assert_eq!(replica.state.jobs_past_deadline(replica.now_ms).count(), 2);
    replica.done(release("a", fence, true));
    assert_eq!(replica.job("a").state(), JobState::Error);
    let asked = Body::LeaseJob(lease("b", "agent", incarnation));
    assert_eq!(replica.refused(asked), Rejection::Conflict);
    assert_eq!(replica.state.jobs_past_deadline(replica.now_ms).count(), 1);
}

/// EXE-065: as long as Prow's, ordered in time, never twice.
#[test]
fn build_ids_are_nineteen_digits_and_increase() {
    let mut replica = Replica::new();
    let incarnation = replica.done(register("agent", 0)).token;
    let mut ids = Vec::new();
    for round in 0..4 {
        let id = format!("job {round}");
        replica.done(create([presubmit(&id, "unit", round, "head")]));
        ids.push(
            replica
                .done(Body::LeaseJob(lease(&id, "agent", incarnation)))
                .build_id,
        );
    }
    assert!(ids.iter().all(|id| id.len() == 19), "{ids:?}");
    let numbers: Vec<u64> = ids.iter().map(|id| id.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{ids:?}");
    insta::assert_snapshot!(ids[0], @"2143981510456246272");
}

/// The fence is the log index, so one entry may not lease a job twice.
#[test]
fn one_entry_leases_a_job_once() {
    let (mut replica, incarnation) = with_job(3);
    let fence = replica.index() + 1;
    let outcomes = replica.entry(vec![
        command(Body::LeaseJob(lease("a", "agent", incarnation))),
        command(release("a", fence, true)),
        command(Body::LeaseJob(lease("a", "agent", incarnation))),
    ]);
    assert_eq!(
        code(crate::replica::answer(&outcomes[2])),
        Rejection::Conflict
    );
}

#[test]
fn commands_about_unknown_jobs_are_refused() {
    let mut replica = Replica::new();
    for body in [
        Body::LeaseJob(lease("x", "agent", 1)),
        start("x", 1),
        finish("x", 1, JobState::Success),
        release("x", 1, false),
        Body::SetJobUrl(pb::SetJobUrl {
            id: "x".into(),
            url: String::new(),
        }),
        Body::TriggerJob(pb::TriggerJob {
            id: "x".into(),
            cluster: String::new(),
        }),
    ] {
        assert_eq!(replica.refused(body), Rejection::NotFound);
    }
}

#[test]
fn a_job_finishes_only_with_a_result() {
    let (mut replica, fence) = leased(0);
    for state in [
        JobState::Unspecified,
        JobState::Triggered,
        JobState::Pending,
        JobState::Scheduling,
    ] {
        assert_eq!(
            replica.refused(finish("a", fence, state)),
            Rejection::Invalid
        );
    }
}

#[test]
fn the_url_may_change_while_it_runs() {
    let (mut replica, _) = leased(0);
    let url = Body::SetJobUrl(pb::SetJobUrl {
        id: "a".into(),
        url: "https://x".into(),
    });
    replica.done(url.clone());
    assert_eq!(replica.job("a").url, "https://x");
    assert!(replica.done(url).duplicate);
}
