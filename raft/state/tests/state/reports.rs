//! The outbox: every change of a job's state is owed to its reporters in the same entry.

use trireme_proto::state::{self as pb, JobState, Rejection, command::Body};

use crate::replica::{
    Replica, abort, create, finish, lease, presubmit, register, release, settle_report,
};

fn with_job() -> Replica {
    let mut replica = Replica::new();
    let mut job = presubmit("a", "unit", 1, "head");
    job.reporters = vec!["github-reporter".into(), "gcs".into()];
    job.retries_left = 3;
    replica.done(create([job]));
    replica.done(register("agent", 0));
    replica
}

fn lease_a(replica: &mut Replica) -> u64 {
    let incarnation = replica
        .state
        .agent("agent")
        .expect("registered")
        .incarnation;
    replica
        .done(Body::LeaseJob(lease("a", "agent", incarnation)))
        .token
}

fn owed(replica: &Replica) -> Vec<(String, JobState)> {
    replica
        .state
        .reports_owed()
        .map(|report| (report.reporter.clone(), report.owed()))
        .collect()
}

#[test]
fn each_state_is_owed_and_the_newest_replaces_older_ones() {
    let mut replica = with_job();
    let all = |state| {
        vec![
            ("gcs".to_owned(), state),
            ("github-reporter".to_owned(), state),
        ]
    };
    assert_eq!(owed(&replica), all(JobState::Triggered));
    let fence = lease_a(&mut replica);
    assert_eq!(owed(&replica), all(JobState::Pending));
    replica.done(finish("a", fence, JobState::Success));
    assert_eq!(owed(&replica), all(JobState::Success));
    assert_eq!(replica.state.reports_of("a").count(), 2);
}

/// EXE-002: `prev_report_states` names what each reporter was told.
#[test]
fn a_delivered_state_is_owed_no_more() {
    let mut replica = with_job();
    let settled = pb::SettleReport {
        comment_id: 7,
        ..settle_report("a", "github-reporter", JobState::Triggered)
    };
    replica.done(Body::SettleReport(settled));
    assert_eq!(owed(&replica), [("gcs".to_owned(), JobState::Triggered)]);
    assert_eq!(
        replica.job("a").prev_report_states["github-reporter"],
        "triggered"
    );
    let report = replica.state.report("a", "github-reporter").unwrap();
    assert_eq!(
        (report.comment_id, report.reported()),
        (7, JobState::Triggered)
    );
    assert_eq!(report.reported_ms, replica.now_ms);
}

#[test]
fn an_older_delivered_state_leaves_the_newer_one_owed() {
    let mut replica = with_job();
    lease_a(&mut replica);
    replica.done(Body::SettleReport(settle_report(
        "a",
        "gcs",
        JobState::Triggered,
    )));
    assert_eq!(
        replica.state.report("a", "gcs").unwrap().owed(),
        JobState::Pending
    );
    assert!(owed(&replica).contains(&("gcs".to_owned(), JobState::Pending)));
}

#[test]
fn a_state_that_came_back_before_it_was_told_is_not_owed() {
    let mut replica = with_job();
    replica.done(Body::SettleReport(settle_report(
        "a",
        "gcs",
        JobState::Triggered,
    )));
    let fence = lease_a(&mut replica);
    replica.done(release("a", fence, true));
    assert_eq!(
        owed(&replica),
        [("github-reporter".to_owned(), JobState::Triggered)]
    );
}

#[test]
fn failures_are_counted_and_dead_letters_can_be_redriven() {
    let mut replica = with_job();
    let failed = |dead| {
        Body::SettleReport(pb::SettleReport {
            failed: true,
            dead,
            error: "422".into(),
            ..settle_report("a", "gcs", JobState::Triggered)
        })
    };
    replica.done(failed(false));
    replica.done(failed(true));
    let report = replica.state.report("a", "gcs").unwrap();
    assert_eq!(
        (report.attempts, report.error.as_str(), report.dead),
        (2, "422", true)
    );
    assert_eq!(replica.state.dead_reports().count(), 1);
    assert_eq!(owed(&replica).len(), 1);

    let redrive = Body::Redrive(pb::Redrive {
        job_id: "a".into(),
        reporter: "gcs".into(),
        ..pb::Redrive::default()
    });
    replica.done(redrive.clone());
    assert_eq!(owed(&replica).len(), 2);
    assert_eq!(replica.refused(redrive), Rejection::Conflict);
}

/// PLG-REFRESH-001
#[test]
fn what_was_delivered_can_be_owed_again() {
    let mut replica = with_job();
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: trireme_state::EFFECTS_LEVEL,
    }));
    let told = |state| Body::SettleReport(settle_report("a", "gcs", state));
    replica.done(told(JobState::Triggered));
    let owed_before = owed(&replica);
    let again = |again| {
        Body::Redrive(pb::Redrive {
            job_id: "a".into(),
            reporter: "gcs".into(),
            again,
            ..pb::Redrive::default()
        })
    };
    assert_eq!(replica.refused(again(false)), Rejection::Conflict);
    replica.done(again(true));
    assert_eq!(owed(&replica).len(), owed_before.len() + 1);
    assert!(owed(&replica).contains(&("gcs".to_owned(), JobState::Triggered)));
    // Owed already: nothing is lost by asking.
    replica.done(again(true));
    replica.done(told(JobState::Triggered));
    assert_eq!(owed(&replica), owed_before);
    let level = |body| trireme_state::min_level_of(&crate::replica::command(body));
    assert_eq!(level(again(true)), trireme_state::EFFECTS_LEVEL);
    assert_eq!(level(again(false)), trireme_state::BASE_LEVEL);
}

#[test]
fn a_new_state_revives_a_dead_report() {
    let mut replica = with_job();
    let dead = pb::SettleReport {
        dead: true,
        ..settle_report("a", "gcs", JobState::Triggered)
    };
    replica.done(Body::SettleReport(dead));
    replica.done(abort(&["a"]));
    assert!(owed(&replica).contains(&("gcs".to_owned(), JobState::Aborted)));
}

#[test]
fn a_failure_about_an_older_state_is_refused() {
    let mut replica = with_job();
    lease_a(&mut replica);
    let failed = |state| {
        Body::SettleReport(pb::SettleReport {
            failed: true,
            ..settle_report("a", "gcs", state)
        })
    };
    assert_eq!(
        replica.refused(failed(JobState::Triggered)),
        Rejection::Conflict
    );
    replica.done(Body::SettleReport(settle_report(
        "a",
        "gcs",
        JobState::Pending,
    )));
    assert_eq!(
        replica.refused(failed(JobState::Pending)),
        Rejection::Conflict
    );
}

#[test]
fn unknown_reports_are_refused() {
    let mut replica = with_job();
    let unknown = settle_report("a", "slack", JobState::Triggered);
    assert_eq!(
        replica.refused(Body::SettleReport(unknown)),
        Rejection::NotFound
    );
    let nothing = settle_report("a", "gcs", JobState::Unspecified);
    assert_eq!(
        replica.refused(Body::SettleReport(nothing)),
        Rejection::Invalid
    );
}

/// SNK-007: no run leaves before its reporters are done with it.
#[test]
fn a_run_is_swept_when_it_is_complete_and_reported() {
    let mut replica = with_job();
    let sweep = || {
        Body::SweepJobs(pb::SweepJobs {
            ids: vec!["a".into(), "unknown".into()],
        })
    };
    assert!(replica.done(sweep()).duplicate);
    let fence = lease_a(&mut replica);
    replica.done(finish("a", fence, JobState::Success));
    assert!(replica.done(sweep()).duplicate);
    replica.done(Body::SettleReport(settle_report(
        "a",
        "gcs",
        JobState::Success,
    )));
    assert!(replica.done(sweep()).duplicate);
    let dead = pb::SettleReport {
        dead: true,
        ..settle_report("a", "github-reporter", JobState::Success)
    };
    replica.done(Body::SettleReport(dead));
    assert_eq!(
        replica
            .state
            .jobs_finished_before(replica.now_ms + 1)
            .count(),
        1
    );
    assert!(!replica.done(sweep()).duplicate);
    let counts = replica.state.counts();
    assert_eq!((counts.jobs, counts.reports), (0, 0));
}
