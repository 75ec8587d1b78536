//! Agents that are not heard of.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use trireme_proto::state::{JobState, TakeOffice, command::Body};

use crate::{
    fake_agent::{FakeAgent, brief, register},
    stage::{Gate, Stage, is_gone, plain},
};

const PERIOD: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_leases_of_a_silent_agent_are_taken_back_after_their_period() {
    let stage = Stage::with_period(PERIOD).await;
    let incarnation = register(&stage, "a").await;
    let mut silent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let again = stage
        .create_with(plain("again", "true"), |job| job.retries_left = 1)
        .await;
    let once = stage.create(plain("once", "true")).await;
    assert!(brief(&silent.told().await).starts_with("start"));
    // From its last sign of life.
    silent.beats(&[]).await;
    let heard = Instant::now();
    while silent.renewed().await == 0 {
        silent.beats(&[]).await;
    }
    let job = stage.complete(&once).await;
    assert!(heard.elapsed() >= PERIOD, "{:?}", heard.elapsed());
    assert_eq!(
        (job.state(), job.description.as_str()),
        (JobState::Error, "Agent a was not heard of for 1 s.")
    );
    assert_eq!(silent.ends().await, Code::Aborted, "it is told");
    // Another runs the job whose policy allows it.
    let agent = stage.agent("agent");
    let job = stage.complete(&again).await;
    assert_eq!((job.state(), job.attempt), (JobState::Success, 2));
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_given_up_kills_what_it_runs_and_works_again() {
    let mut stage = Stage::with_period(PERIOD).await;
    let agent = stage.agent("agent");
    let ready = Gate::new(&stage, "ready");
    let script = format!("{}; while :; do sleep 0.02; done", ready.say("$$$$"));
    let id = stage.create(plain("long", &script)).await;
    let pid = ready.said().await;
    stage.started(&id).await;
    // Nobody renews leases while the office is empty.
    stage.end_term().await;
    let gone = async {
        while !is_gone(&pid) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::stage::BOUND, gone)
        .await
        .expect("the agent takes its leases for lost");
    let scheduler = stage.scheduler();
    stage.begin_term(vec![scheduler]);
    assert_eq!(stage.complete(&id).await.state(), JobState::Error);
    let next = stage.create(plain("next", "true")).await;
    assert_eq!(stage.complete(&next).await.state(), JobState::Success);
    agent.stop().await;
}

/// An agent that died while nobody was in office would cost the job an attempt.
#[tokio::test]
async fn a_new_office_gives_work_only_to_agents_that_it_heard_of() {
    let mut stage = Stage::with_period(PERIOD).await;
    let incarnation = register(&stage, "a").await;
    let gone = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let before = stage.create(plain("before", "true")).await;
    let of_a =
        |job: &trireme_proto::state::Job| job.lease.as_ref().map(|lease| lease.agent_id.clone());
    stage
        .until("the lease of a", |state| of_a(state.job(&before)?))
        .await;
    stage.end_term().await;
    drop(gone);
    // Long enough ago that it may be gone for good.
    tokio::time::sleep(PERIOD).await;
    let id = stage.create(plain("job", "true")).await;
    let scheduler = stage.scheduler();
    stage.begin_term(vec![scheduler]);
    // By room and by name, a would come first.
    let agent = stage.agent_at("agent", stage.door, 1);
    let job = stage.complete(&id).await;
    assert_eq!((job.state(), job.attempt), (JobState::Success, 1));
    agent.stop().await;
}

/// An attached agent is asked for a sign of life as soon as somebody takes office.
#[tokio::test]
async fn a_new_office_need_not_wait_for_the_next_beat() {
    let mut stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    stage.end_term().await;
    let office = TakeOffice {
        node_id: 2,
        term: stage.store.view().office().term + 1,
    };
    stage.propose(Body::TakeOffice(office)).await;
    agent.beat_wanted().await;
}

#[tokio::test]
async fn a_new_office_grants_every_lease_a_whole_period() {
    let mut stage = Stage::with_period(PERIOD).await;
    let incarnation = register(&stage, "a").await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let id = stage.create(plain("job", "true")).await;
    assert!(brief(&agent.told().await).starts_with("start"));
    stage.end_term().await;
    tokio::time::sleep(PERIOD).await;
    let scheduler = stage.scheduler();
    stage.begin_term(vec![scheduler]);
    let fence = stage
        .store
        .view()
        .job(&id)
        .unwrap()
        .lease
        .as_ref()
        .unwrap()
        .fence;
    agent.beats(&[(&id, fence)]).await;
    while agent.renewed().await == 0 {
        agent.beats(&[(&id, fence)]).await;
    }
    agent.finishes(&id, fence, JobState::Success).await;
    assert_eq!(stage.complete(&id).await.state(), JobState::Success);
}
