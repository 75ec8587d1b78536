//! Runs that somebody does not want any more.

use trireme_proto::{
    api::AbortJobRequest,
    state::{AbortJob, AbortJobs, JobState, command::Body},
};

use crate::{
    fake_agent::{FakeAgent, brief, register},
    stage::{Gate, Repository, Stage, decorated, plain},
};

/// EXE-011, EXE-062
#[tokio::test]
async fn an_aborted_run_may_clean_up_and_is_complete_once() {
    let stage = Stage::new().await;
    let repository = Repository::new(&stage);
    let agent = stage.agent("agent");
    let (ready, gone) = (Gate::new(&stage, "ready"), Gate::new(&stage, "gone"));
    let script = format!(
        "trap 'echo bye; {}; exit 0' TERM; trap '' INT; {}; while :; do sleep 0.02; done",
        gone.say("bye"),
        ready.say("ready")
    );
    let id = stage.create(decorated("long", &script, &repository)).await;
    ready.said().await;
    let request = AbortJobRequest {
        id: id.clone(),
        ..AbortJobRequest::default()
    };
    let client = stage.client().await;
    client.jobs().abort_job(request).await.unwrap();
    let job = stage.complete(&id).await;
    assert_eq!(job.state(), JobState::Aborted);
    assert_eq!(gone.said().await, "bye");
    assert_eq!(
        stage.history(&id),
        ["triggered 0", "pending 1", "aborted 1", "aborted! 1"]
    );
    assert!(stage.stored(&job, "build-log.txt").contains("bye\n"));
    assert!(stage.stored(&job, "finished.json").contains("ABORTED"));
    agent.stop().await;
}

#[tokio::test]
async fn a_run_that_nobody_has_is_complete_at_once() {
    let stage = Stage::new().await;
    let id = stage.create(plain("waits", "true")).await;
    abort(&stage, &id).await;
    let job = stage.complete(&id).await;
    assert_eq!((job.state(), job.attempt), (JobState::Aborted, 0));
}

#[tokio::test]
async fn an_agent_that_never_heard_of_the_start_is_told_only_to_stop() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let deaf = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let id = stage.create(plain("unwanted", "true")).await;
    let fence = stage
        .until("the lease", |state| {
            Some(state.job(&id)?.lease.as_ref()?.fence)
        })
        .await;
    drop(deaf);
    abort(&stage, &id).await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    assert_eq!(brief(&agent.told().await), format!("stop {id} {fence}"));
    agent.finishes(&id, fence, JobState::Aborted).await;
    assert_eq!(brief(&agent.told().await), format!("settled {id} {fence}"));
    assert_eq!(stage.complete(&id).await.state(), JobState::Aborted);
}

/// The real agent answers for a run that it never started.
#[tokio::test]
async fn a_stop_before_the_start_ends_the_run() {
    let mut stage = Stage::new().await;
    let agent = stage.agent("agent");
    let first = stage.create(plain("first", "true")).await;
    stage.complete(&first).await;
    agent.stop().await;
    // The record of the agent is still there and takes the lease.
    let second = stage.create(plain("second", "true")).await;
    stage
        .until("the lease", |state| state.job(&second)?.lease.clone())
        .await;
    abort(&stage, &second).await;
    // Its return releases what it held.
    let agent = stage.agent("agent");
    let job = stage.complete(&second).await;
    assert_eq!((job.state(), job.attempt), (JobState::Aborted, 1));
    agent.stop().await;
    stage.end_term().await;
}

async fn abort(stage: &Stage, id: &str) {
    stage
        .propose(Body::AbortJobs(AbortJobs {
            jobs: vec![AbortJob {
                id: id.to_owned(),
                reason: "Not wanted.".to_owned(),
            }],
        }))
        .await;
}
