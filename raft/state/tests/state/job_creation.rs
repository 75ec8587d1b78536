//! Making jobs: derived ids, `unless_exists`, and the presubmits that a newer one replaces.

use trireme_proto::state::{self as pb, JobState, JobType, Rejection, command::Body};
use trireme_state::{EFFECTS_LEVEL, JobFilter, is_complete, min_level_of};

use crate::replica::{
    MINUTE_MS, Replica, START_MS, abort, code, command, create, finish, lease, periodic, presubmit,
    register, take_office,
};

/// Makes a good job a bad one.
type Spoil = fn(&mut pb::Job);

fn unless_exists(job: pb::Job) -> Body {
    Body::CreateJobs(pb::CreateJobs {
        jobs: vec![pb::NewJob {
            job: Some(Box::new(job)),
            unless_exists: true,
            supersede: false,
            cause: String::new(),
        }],
        cursors: vec![],
    })
}

fn superseding(job: pb::Job) -> Body {
    Body::CreateJobs(pb::CreateJobs {
        jobs: vec![pb::NewJob {
            job: Some(Box::new(job)),
            unless_exists: false,
            supersede: true,
            cause: String::new(),
        }],
        cursors: vec![],
    })
}

fn run_to(replica: &mut Replica, id: &str, result: JobState) {
    let incarnation = replica.done(register("agent", 0)).token;
    let fence = replica
        .done(Body::LeaseJob(lease(id, "agent", incarnation)))
        .token;
    replica.done(finish(id, fence, result));
}

/// EXE-006
#[test]
fn a_new_job_is_triggered_or_scheduling_with_times_of_the_entry() {
    let mut replica = Replica::new();
    let mut scheduling = presubmit("b", "lint", 1, "head");
    scheduling.set_state(JobState::Scheduling);
    let mut asked = presubmit("a", "unit", 1, "head");
    asked.build_id = "7".into();
    asked.attempt = 3;
    asked.completed_ms = 5;
    let done = replica.done(create([asked, scheduling]));
    assert_eq!(done.created, ["a", "b"]);
    let job = replica.job("a");
    assert_eq!(job.state(), JobState::Triggered);
    assert_eq!((job.created_ms, job.completed_ms), (START_MS, 0));
    assert_eq!((job.build_id.as_str(), job.attempt), ("", 0));
    assert_eq!(job.created_revision, replica.index());
    assert_eq!(replica.job("b").state(), JobState::Scheduling);
    let newest_first: Vec<_> = replica
        .state
        .jobs_newest_first(JobFilter::default())
        .map(|job| job.id.clone())
        .collect();
    assert_eq!(newest_first, ["b", "a"]);
}

#[test]
fn a_known_id_is_named_and_left_alone() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    let done = replica.done(create([
        presubmit("a", "other", 2, "other"),
        presubmit("b", "unit", 2, "head"),
    ]));
    assert_eq!(
        (done.existing, done.created),
        (vec!["a".into()], vec!["b".into()])
    );
    assert_eq!(replica.job("a").job, "unit");
    assert!(
        replica
            .done(create([presubmit("a", "unit", 1, "head")]))
            .duplicate
    );
}

/// JOB-054: id, name and type are there, and nobody makes a job that runs already.
#[test]
fn malformed_jobs_are_refused_with_the_whole_command() {
    let mut replica = Replica::new();
    let good = presubmit("good", "unit", 1, "head");
    let broken: [(&str, Spoil); 9] = [
        ("no id", |job| job.id.clear()),
        ("no name", |job| job.job.clear()),
        ("no type", |job| job.r#type = 0),
        ("a type from the future", |job| job.r#type = 99),
        ("no pull request", |job| job.pulls.clear()),
        ("a running one", |job| job.set_state(JobState::Pending)),
        ("a control character", |job| job.context = "a\0b".into()),
        ("a reporter twice", |job| {
            job.reporters = vec!["x".into(), "x".into()]
        }),
        ("a huge ProwJob", |job| {
            job.prowjob = vec![0; (256 << 10) + 1].into()
        }),
    ];
    for (what, spoil) in broken {
        let mut bad = presubmit("bad", "unit", 1, "head");
        spoil(&mut bad);
        assert_eq!(
            replica.refused(create([good.clone(), bad])),
            Rejection::Invalid,
            "{what}"
        );
    }
    assert_eq!(replica.state.counts().jobs, 0);
}

/// PLG-OVERRIDE-005: who is in office may store what no run had: it is complete at once, its reporters are told, and
/// what runs goes on.
#[test]
fn plg_override_005_a_job_may_be_finished_from_the_start() {
    let mut replica = Replica::new();
    let mut vouched = presubmit("b", "unit", 1, "head");
    vouched.set_state(JobState::Success);
    vouched.description = "Overridden by alice".into();
    vouched.url = "https://forge/comment".into();
    let store = create([vouched]);
    assert_eq!(min_level_of(&command(store.clone())), EFFECTS_LEVEL);
    let epoch = replica.done(take_office(1, 1)).token;
    assert_eq!(
        code(replica.run_at(epoch, store.clone())),
        Rejection::Conflict
    );
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: EFFECTS_LEVEL,
    }));
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    assert_eq!(replica.refused(store.clone()), Rejection::Invalid);
    replica.pass(MINUTE_MS);
    replica.run_at(epoch, store).unwrap();
    let job = replica.job("b");
    let at = START_MS + MINUTE_MS;
    assert_eq!(job.state(), JobState::Success);
    assert_eq!(
        (job.created_ms, job.pending_ms, job.completed_ms),
        (at, 0, at)
    );
    assert_eq!(job.description, "Overridden by alice");
    assert_eq!(job.url, "https://forge/comment");
    let owed: Vec<_> = replica.state.reports_of("b").collect();
    assert_eq!(owed[0].owed(), JobState::Success);
    assert!(!is_complete(replica.job("a")));
    let twin = replica.done(unless_exists(presubmit("c", "unit", 1, "head")));
    assert_eq!(twin.existing, ["b"]);
}

#[test]
fn unless_exists_sees_incomplete_and_successful_runs_of_the_same_heads() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    let again = |replica: &mut Replica, id: &str, head: &str| {
        replica.done(unless_exists(presubmit(id, "unit", 1, head)))
    };
    assert_eq!(again(&mut replica, "b", "head").existing, ["a"]);
    assert_eq!(again(&mut replica, "c", "other head").created, ["c"]);
    run_to(&mut replica, "a", JobState::Success);
    assert_eq!(again(&mut replica, "d", "head").existing, ["a"]);
    run_to(&mut replica, "c", JobState::Failure);
    assert_eq!(again(&mut replica, "e", "other head").created, ["e"]);
    replica.done(abort(&["e"]));
    assert_eq!(again(&mut replica, "f", "other head").created, ["f"]);
}

#[test]
fn unless_exists_tells_contexts_branches_and_pull_requests_apart() {
    let mut replica = Replica::new();
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    let mut branch = presubmit("b", "unit", 1, "head");
    branch.base_ref = "release".into();
    for other in [
        presubmit("c", "lint", 1, "head"),
        presubmit("d", "unit", 2, "head"),
        branch,
    ] {
        let id = other.id.clone();
        assert_eq!(replica.done(unless_exists(other)).created, [id]);
    }
    // For a presubmit the base does not count, for what tests the base it does.
    let mut moved = presubmit("e", "unit", 1, "head");
    moved.base_sha = "moved".into();
    assert_eq!(replica.done(unless_exists(moved)).existing, ["a"]);
    let postsubmit = |id: &str, base: &str| pb::Job {
        r#type: JobType::Postsubmit.into(),
        pulls: vec![],
        base_sha: base.into(),
        ..presubmit(id, "publish", 1, "head")
    };
    assert_eq!(
        replica.done(unless_exists(postsubmit("p", "1"))).created,
        ["p"]
    );
    assert_eq!(
        replica.done(unless_exists(postsubmit("q", "1"))).existing,
        ["p"]
    );
    assert_eq!(
        replica.done(unless_exists(postsubmit("r", "2"))).created,
        ["r"]
    );
}

/// PLG-TRIGGER-032: what was found for a base that has moved since is to be found anew; what still runs is not started
/// again.
#[test]
fn unless_exists_counts_a_success_for_its_base_from_its_level_on() {
    let mut replica = Replica::new();
    let on = |id: &str, base: &str| {
        let mut job = presubmit(id, "unit", 1, "head");
        job.base_sha = base.into();
        unless_exists(job)
    };
    replica.done(on("a", "old"));
    run_to(&mut replica, "a", JobState::Success);
    assert_eq!(replica.done(on("b", "new")).existing, ["a"]);
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel {
        level: EFFECTS_LEVEL,
    }));
    assert_eq!(replica.done(on("b", "new")).created, ["b"]);
    assert_eq!(
        replica.done(on("c", "newer")).existing,
        ["b"],
        "it still runs"
    );
    assert_eq!(replica.done(on("d", "old")).existing, ["b"], "the newest");
    run_to(&mut replica, "b", JobState::Success);
    assert_eq!(replica.done(on("e", "new")).existing, ["b"]);
    assert_eq!(replica.done(on("f", "old")).existing, ["a"]);
}

#[test]
fn a_periodic_exists_only_while_it_runs() {
    let mut replica = Replica::new();
    assert_eq!(
        replica.done(unless_exists(periodic("a", "tick"))).created,
        ["a"]
    );
    assert_eq!(
        replica.done(unless_exists(periodic("b", "tick"))).existing,
        ["a"]
    );
    run_to(&mut replica, "a", JobState::Success);
    assert_eq!(
        replica.done(unless_exists(periodic("b", "tick"))).created,
        ["b"]
    );
}

#[test]
fn one_command_does_not_make_twins() {
    let mut replica = Replica::new();
    let new = |id: &str| pb::NewJob {
        job: Some(Box::new(presubmit(id, "unit", 1, "head"))),
        unless_exists: true,
        supersede: false,
        cause: String::new(),
    };
    let done = replica.done(Body::CreateJobs(pb::CreateJobs {
        jobs: vec![new("a"), new("b")],
        cursors: vec![],
    }));
    assert_eq!(
        (done.created, done.existing),
        (vec!["a".into()], vec!["a".into()])
    );
}

/// EXE-060, EXE-066
#[test]
fn a_newer_presubmit_replaces_older_ones_and_github_is_not_told() {
    let mut replica = Replica::new();
    let mut waiting = presubmit("waiting", "unit", 1, "old");
    waiting.reporters.push("gcs".into());
    replica.done(create([waiting, presubmit("running", "unit", 1, "older")]));
    let incarnation = replica.done(register("agent", 0)).token;
    replica.done(Body::LeaseJob(lease("running", "agent", incarnation)));
    replica.pass(MINUTE_MS);

    let mut done = replica.done(superseding(presubmit("new", "unit", 1, "new")));
    done.aborted.sort_unstable();
    assert_eq!(done.aborted, ["running", "waiting"]);
    let waiting = replica.job("waiting");
    assert_eq!(waiting.state(), JobState::Aborted);
    assert_ne!(waiting.completed_ms, 0);
    assert_eq!(waiting.prev_report_states["github-reporter"], "aborted");
    insta::assert_snapshot!(waiting.abort_reason, @"Superseded by run new.");
    assert_eq!(replica.job("running").completed_ms, 0);
    let owed: Vec<_> = replica
        .state
        .reports_owed()
        .map(|report| (report.job_id.as_str(), report.reporter.as_str()))
        .collect();
    assert_eq!(owed, [("new", "github-reporter"), ("waiting", "gcs")]);
}

/// EXE-061
#[test]
fn others_are_not_replaced() {
    let mut replica = Replica::new();
    let mut branch = presubmit("branch", "unit", 1, "head");
    branch.base_ref = "release".into();
    let mut batch = presubmit("batch", "unit", 1, "head");
    batch.set_type(JobType::Batch);
    replica.done(create([
        branch,
        batch,
        presubmit("job", "lint", 1, "head"),
        presubmit("pull", "unit", 2, "head"),
        periodic("tick", "unit"),
        presubmit("complete", "unit", 1, "head"),
    ]));
    run_to(&mut replica, "complete", JobState::Failure);
    let done = replica.done(superseding(presubmit("new", "unit", 1, "new")));
    assert_eq!(done.aborted, Vec::<String>::new());
    let mut other = presubmit("batch 2", "unit", 1, "new");
    other.set_type(JobType::Batch);
    assert_eq!(
        replica.done(superseding(other)).aborted,
        Vec::<String>::new()
    );
}

/// EXE-061: the order of pull requests does not matter.
#[test]
fn pull_requests_in_another_order_are_the_same_work() {
    let mut replica = Replica::new();
    let pulls = |numbers: [u64; 2]| {
        numbers.map(|number| pb::Pull {
            number,
            author: String::new(),
            head_sha: format!("head {number}"),
        })
    };
    let job = |id: &str, numbers| pb::Job {
        pulls: pulls(numbers).to_vec(),
        ..presubmit(id, "unit", 1, "head")
    };
    replica.done(create([job("a", [1, 2])]));
    assert_eq!(
        replica.done(unless_exists(job("b", [2, 1]))).existing,
        ["a"]
    );
    assert_eq!(replica.done(superseding(job("c", [2, 1]))).aborted, ["a"]);
}

#[test]
fn cursors_move_with_the_jobs_that_they_count() {
    let mut replica = Replica::new();
    let with_cursor = |id: &str, at_ms| {
        Body::CreateJobs(pb::CreateJobs {
            jobs: vec![pb::NewJob {
                job: Some(Box::new(periodic(id, "tick"))),
                ..pb::NewJob::default()
            }],
            cursors: vec![pb::Cursor {
                key: "periodic/tick".into(),
                at_ms,
                ..pb::Cursor::default()
            }],
        })
    };
    replica.done(with_cursor("a", 5));
    assert_eq!(replica.state.cursor("periodic/tick").unwrap().at_ms, 5);
    assert_eq!(replica.refused(with_cursor("", 6)), Rejection::Invalid);
    assert_eq!(replica.state.cursor("periodic/tick").unwrap().at_ms, 5);
}

#[test]
fn listings_are_newest_first_and_filtered() {
    let mut replica = Replica::new();
    replica.done(create([
        presubmit("a", "unit", 1, "head"),
        presubmit("b", "unit", 2, "head"),
    ]));
    replica.done(create([
        presubmit("c", "lint", 1, "head"),
        periodic("d", "tick"),
    ]));
    let list = |filter: trireme_state::JobFilter| -> Vec<String> {
        replica
            .state
            .jobs_newest_first(filter)
            .map(|job| job.id.clone())
            .collect()
    };
    let all = trireme_state::JobFilter::default;
    assert_eq!(list(all()), ["d", "c", "b", "a"]);
    let before = Some(trireme_state::seq_of(replica.job("c")));
    assert_eq!(
        list(trireme_state::JobFilter { before, ..all() }),
        ["b", "a"]
    );
    let pull = trireme_state::JobFilter {
        org: "org".into(),
        repo: "repo".into(),
        pull: 1,
        ..all()
    };
    assert_eq!(list(pull.clone()), ["c", "a"]);
    assert_eq!(list(trireme_state::JobFilter { before, ..pull }), ["a"]);
    assert_eq!(
        list(trireme_state::JobFilter {
            job: "unit".into(),
            ..all()
        }),
        ["b", "a"]
    );
    assert_eq!(
        list(trireme_state::JobFilter {
            author: "author".into(),
            pull: 2,
            ..all()
        }),
        ["b"]
    );
    let periodics = trireme_state::JobFilter {
        job_type: Some(JobType::Periodic),
        ..all()
    };
    assert_eq!(list(periodics), ["d"]);
    let of_head: Vec<_> = replica
        .state
        .jobs_of_head("org", "repo", 1, "head", "ci/lint")
        .collect();
    assert_eq!(of_head.len(), 1);
    assert_eq!(replica.state.jobs_of_pull("org", "repo", 1).count(), 2);
}
