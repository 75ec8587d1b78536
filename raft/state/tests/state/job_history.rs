//! JOB-075: what happened to a job, when, why and by whom, is read from the job itself.

use prost::Message as _;
use trireme_proto::state::{self as pb, JobState, Rejection, command::Body};
use trireme_state::{FEATURE_LEVEL, HISTORY_LEVEL, archive_keys as keys, limits, state_name};

use crate::replica::{
    MINUTE_MS, Replica, START_MS, abort, accept, chunk, code, command, commit, config, create,
    finish, lease, plan, presubmit, release, start,
};

fn raise(replica: &mut Replica, level: u32) {
    replica.done(Body::RaiseFeatureLevel(pb::RaiseFeatureLevel { level }));
}

fn at_present() -> Replica {
    let mut replica = Replica::new();
    raise(&mut replica, FEATURE_LEVEL);
    replica
}

/// Registers `agent-7f3a`, called builder-1.
fn builder(replica: &mut Replica) -> u64 {
    let agent = pb::Agent {
        id: "agent-7f3a".into(),
        name: "builder-1".into(),
        ..pb::Agent::default()
    };
    let register = Body::RegisterAgent(pb::RegisterAgent { agent: Some(agent) });
    replica.done(register).token
}

fn by(replica: &mut Replica, principal: &str, body: Body) -> pb::Done {
    let asked = pb::Command {
        principal: principal.into(),
        ..command(body)
    };
    replica.run_command(asked).expect("was refused")
}

fn leased(replica: &mut Replica, id: &str, incarnation: u64) -> u64 {
    let asked = Body::LeaseJob(lease(id, "agent-7f3a", incarnation));
    by(replica, "controller:scheduler@1", asked).token
}

/// A row a line: seconds since the first, state, actor, cause.
fn told(job: &pb::Job) -> String {
    let from = job.history.first().map_or(0, |event| event.at_ms);
    let row = |event: &pb::JobEvent| {
        format!(
            "{:>3}s {} by {}: {}",
            (event.at_ms - from) / 1000,
            state_name(event.state()),
            event.actor,
            event.cause
        )
    };
    job.history.iter().map(row).collect::<Vec<_>>().join("\n")
}

#[test]
fn job_075_attempts_are_told_from_the_first_to_the_result() {
    let mut replica = at_present();
    let mut job = presubmit("a", "unit", 1, "head");
    job.retries_left = 2;
    job.origin = "periodic unit due 5".into();
    job.set_state(JobState::Scheduling);
    by(&mut replica, "controller:horologium@1", create([job]));
    let trigger = Body::TriggerJob(pb::TriggerJob {
        id: "a".into(),
        cluster: "arm".into(),
    });
    by(&mut replica, "controller:scheduler@1", trigger);
    let incarnation = builder(&mut replica);

    replica.pass(1000);
    let fence = leased(&mut replica, "a", incarnation);
    by(&mut replica, "agent:agent-7f3a", release("a", fence, true));
    let fence = leased(&mut replica, "a", incarnation);
    replica.pass(2000);
    by(&mut replica, "agent:agent-7f3a", start("a", fence));
    replica.pass(MINUTE_MS);
    let lost = Body::ReleaseLease(pb::ReleaseLease {
        id: "a".into(),
        fence,
        reason: "Agent builder-1 was not heard of for 30 s.".into(),
        unstarted: false,
    });
    by(&mut replica, "controller:scheduler@2", lost);
    leased(&mut replica, "a", incarnation);
    replica.pass(1000);
    // Its leases are lost with its former life.
    let incarnation = builder(&mut replica);
    let fence = leased(&mut replica, "a", incarnation);
    replica.pass(5000);
    by(
        &mut replica,
        "agent:agent-7f3a",
        finish("a", fence, JobState::Failure),
    );

    insta::assert_snapshot!(told(replica.job("a")), @r"
      0s scheduling by controller:horologium@1: periodic unit due 5
      0s triggered by controller:scheduler@1: cluster arm chosen
      1s pending by controller:scheduler@1: attempt 1 leased to agent builder-1 (agent-7f3a)
      1s triggered by agent:agent-7f3a: lost attempt 1 on agent builder-1 (agent-7f3a), nothing had started, waits to be leased again: lease expired
      1s pending by controller:scheduler@1: attempt 1 leased to agent builder-1 (agent-7f3a)
      3s pending by agent:agent-7f3a: attempt 1: the first process runs
     63s triggered by controller:scheduler@2: lost attempt 1 on agent builder-1 (agent-7f3a), waits to be leased again, 1 more may be lost: Agent builder-1 was not heard of for 30 s.
     63s pending by controller:scheduler@1: attempt 2 leased to agent builder-1 (agent-7f3a)
     64s triggered by node:1: lost attempt 2 on agent builder-1 (agent-7f3a), waits to be leased again, 0 more may be lost: The agent was restarted.
     64s pending by controller:scheduler@1: attempt 3 leased to agent builder-1 (agent-7f3a)
     69s failure by agent:agent-7f3a: attempt 3: Job done.
    ");
}

#[test]
fn job_075_aborts_say_who_wanted_them_and_what_led_to_them() {
    let mut replica = at_present();
    let incarnation = builder(&mut replica);
    let jobs = ["asked", "replaced", "pushed", "unfit"].map(|id| presubmit(id, id, 1, "old"));
    replica.done(create(jobs));

    // Somebody; what runs is stopped first.
    let fence = leased(&mut replica, "asked", incarnation);
    let asked = Body::AbortJobs(pb::AbortJobs {
        jobs: vec![pb::AbortJob {
            id: "asked".into(),
            reason: "Aborted by token:alice.".into(),
        }],
    });
    by(&mut replica, "token:alice", asked);
    replica.pass(3000);
    by(
        &mut replica,
        "agent:agent-7f3a",
        finish("asked", fence, JobState::Aborted),
    );
    insta::assert_snapshot!(told(replica.job("asked")), @r"
      0s triggered by node:1: 
      0s pending by controller:scheduler@1: attempt 1 leased to agent builder-1 (agent-7f3a)
      0s aborted by token:alice: Aborted by token:alice.
      3s aborted by agent:agent-7f3a: attempt 1 is stopped: Job done.
    ");

    // A newer run of the same, made for a webhook, and a push.
    let delivery = pb::Delivery {
        guid: "72d3162e".into(),
        event: "pull_request".into(),
        action: "synchronize".into(),
        org: "org".into(),
        repo: "repo".into(),
        number: 1,
        r#ref: "main".into(),
        sender: "bob".into(),
        ..pb::Delivery::default()
    };
    replica.done(Body::AcceptDelivery(pb::AcceptDelivery {
        delivery: Some(delivery),
    }));
    let new = |id: &str, job: &str, cause: &str| pb::NewJob {
        job: Some(Box::new(presubmit(id, job, 1, "new"))),
        supersede: true,
        cause: cause.into(),
        ..pb::NewJob::default()
    };
    let body = pb::PlanBody {
        jobs: vec![
            new("newer", "replaced", ""),
            new("again", "lint", "/test lint"),
        ],
        abort: vec![pb::AbortJob {
            id: "pushed".into(),
            reason: "Aborted by trigger plugin.".into(),
        }],
        ..plan("trigger", vec![])
    };
    let commit = Body::CommitPlans(commit("72d3162e", &["trigger"], vec![body], &[]));
    by(&mut replica, "controller:plugins@1", commit);
    let last = |id: &str| {
        let told = told(replica.job(id));
        told.lines().last().unwrap_or_default().trim().to_owned()
    };
    insta::assert_snapshot!(last("replaced"), @"3s aborted by controller:plugins@1: newer run of the same job on the same pull request: newer");
    insta::assert_snapshot!(last("pushed"), @"3s aborted by controller:plugins@1: Aborted by trigger plugin. (trigger: pull_request.synchronize on org/repo#1 by bob, delivery 72d3162e)");
    insta::assert_snapshot!(last("newer"), @"0s triggered by controller:plugins@1: trigger: pull_request.synchronize on org/repo#1 by bob, delivery 72d3162e");
    insta::assert_snapshot!(last("again"), @"0s triggered by controller:plugins@1: /test lint (trigger: pull_request.synchronize on org/repo#1 by bob, delivery 72d3162e)");

    // What can never start, and by which configuration.
    replica.done(chunk(1, 0, 1, b"a"));
    replica.done(Body::PutConfig(config(1)));
    let office = replica.done(crate::replica::take_office(1, 1)).token;
    let end = pb::Command {
        epoch: office,
        principal: "controller:scheduler@1".into(),
        ..command(Body::FinishJob(pb::FinishJob {
            id: "unfit".into(),
            state: JobState::Error.into(),
            description: "No agent runs jobs of cluster arm.".into(),
            ..pb::FinishJob::default()
        }))
    };
    replica.run_command(end).unwrap();
    let unfit = told(replica.job("unfit"));
    insta::assert_snapshot!(unfit.lines().last().unwrap().trim(), @"3s error by controller:scheduler@1: No agent runs jobs of cluster arm. (under configuration 1)");
}

#[test]
fn job_075_a_rerun_says_of_what_and_past_a_deadline_nothing_is_tried_again() {
    let mut replica = at_present();
    let incarnation = builder(&mut replica);
    let again = pb::Job {
        rerun_of: "first".into(),
        origin: "token:alice request 7".into(),
        retries_left: 3,
        deadline_ms: START_MS + 1000,
        ..presubmit("a", "unit", 1, "head")
    };
    by(&mut replica, "token:alice", create([again]));
    let fence = leased(&mut replica, "a", incarnation);
    replica.pass(1000);
    replica.done(release("a", fence, false));
    insta::assert_snapshot!(told(replica.job("a")), @r"
      0s triggered by token:alice: rerun of first
      0s pending by controller:scheduler@1: attempt 1 leased to agent builder-1 (agent-7f3a)
      1s error by node:1: lost attempt 1 on agent builder-1 (agent-7f3a), past its deadline: lease expired
    ");
}

/// Below the level other builds would not write it, and their states would differ.
#[test]
fn job_075_history_begins_at_its_feature_level() {
    let mut replica = Replica::new();
    raise(&mut replica, HISTORY_LEVEL - 1);
    let history = vec![pb::JobEvent {
        cause: "made up".into(),
        ..pb::JobEvent::default()
    }];
    let made_up = pb::Job {
        history,
        history_dropped: 7,
        ..presubmit("a", "unit", 1, "head")
    };
    replica.done(create([made_up.clone()]));
    let incarnation = builder(&mut replica);
    let fence = leased(&mut replica, "a", incarnation);
    replica.done(accept("g"));
    assert_eq!(replica.job("a").history, []);
    assert_eq!(replica.job("a").history_dropped, 0);

    raise(&mut replica, HISTORY_LEVEL);
    replica.done(finish("a", fence, JobState::Success));
    assert_eq!(
        told(replica.job("a")),
        "  0s success by node:1: attempt 1: Job done."
    );
    let made_up = pb::Job {
        id: "b".into(),
        ..made_up
    };
    replica.done(create([made_up]));
    assert_eq!(told(replica.job("b")), "  0s triggered by node:1: ");
}

#[test]
fn job_075_rows_and_their_texts_are_bounded() {
    let mut replica = at_present();
    let incarnation = builder(&mut replica);
    replica.done(create([presubmit("a", "unit", 1, "head")]));
    for _ in 0..40 {
        let fence = leased(&mut replica, "a", incarnation);
        replica.done(release("a", fence, true));
    }
    let reason = "\u{e9}".repeat(limits::MAX_TEXT_BYTES);
    let who = "x".repeat(1000);
    let asked = Body::AbortJobs(pb::AbortJobs {
        jobs: vec![pb::AbortJob {
            id: "a".into(),
            reason,
        }],
    });
    by(&mut replica, &who, asked);
    let job = replica.job("a");
    assert_eq!(job.history.len(), limits::MAX_JOB_EVENTS);
    assert_eq!(job.history.len() + job.history_dropped as usize, 1 + 80 + 1);
    let last = job.history.last().unwrap();
    assert_eq!(last.cause.len(), limits::MAX_CAUSE_BYTES);
    assert_eq!(last.actor.len(), limits::MAX_ACTOR_BYTES);
    assert!(last.encoded_len() <= limits::MAX_JOB_EVENT_BYTES);
    assert_eq!(job.history[0].state(), JobState::Triggered);
}

#[test]
fn job_075_a_record_has_room_for_its_history() {
    let pull = pb::Pull {
        number: 1,
        head_sha: "s".repeat(limits::MAX_NAME_BYTES),
        ..pb::Pull::default()
    };
    let large = |pulls: usize| pb::Job {
        r#type: pb::JobType::Batch.into(),
        pulls: vec![pull.clone(); pulls],
        reporters: vec![],
        ..presubmit("a", "unit", 1, "head")
    };
    let reserved = limits::MAX_JOB_EVENTS * limits::MAX_JOB_EVENT_BYTES;
    let whole = (1..)
        .take_while(|pulls| large(*pulls).encoded_len() <= limits::MAX_RECORD_BYTES)
        .last()
        .unwrap();
    assert!(large(whole).encoded_len() > limits::MAX_RECORD_BYTES - reserved);
    let mut replica = at_present();
    let refused = replica.run(create([large(whole)]));
    assert_eq!(code(refused), Rejection::Invalid);
    replica.done(create([large(whole - 1 - reserved / 1024)]));
    // As it was before jobs had one.
    let mut before = Replica::new();
    before.done(create([large(whole)]));
}

#[test]
fn job_075_history_is_archived_with_the_job() {
    let mut replica = at_present();
    let job = pb::Job {
        reporters: vec![],
        ..presubmit("a", "unit", 1, "head")
    };
    replica.done(create([job]));
    by(&mut replica, "token:alice", abort(&["a"]));
    let expected = replica.job("a").history.clone();
    replica.done(Body::SweepJobs(pb::SweepJobs {
        ids: vec!["a".into()],
    }));
    let prefix = keys::job("a").prefix();
    let (_, value) = replica
        .archive
        .range(prefix.to_vec()..)
        .next()
        .expect("archived");
    let stored = pb::Job::decode(&value[2..]).unwrap();
    assert_eq!(stored.history, expected);
    assert_eq!(expected.last().unwrap().actor, "token:alice");
}
