//! What holds between an agent and its node when the way between them does not, or one of them errs.

use tonic::Code;
use trireme_proto::{
    api::{JobStarted, LogSegment, agent_message, node_message},
    state::{JobState, ReleaseLease, command::Body},
};

use crate::{
    fake_agent::{FakeAgent, brief, register},
    proxy::Proxy,
    stage::{Gate, Stage, plain},
};

#[tokio::test]
async fn a_run_goes_on_while_its_node_is_out_of_reach_and_its_end_is_said_again() {
    let stage = Stage::new().await;
    let proxy = Proxy::to(stage.door).await;
    let agent = stage.agent_at("agent", proxy.address, 4);
    let (ready, gate, done) = (
        Gate::new(&stage, "ready"),
        Gate::new(&stage, "gate"),
        Gate::new(&stage, "done"),
    );
    let script = format!(
        "{}; {}; {}",
        ready.say("ready"),
        gate.wait(),
        done.say("done")
    );
    let id = stage.create(plain("steady", &script)).await;
    ready.said().await;
    stage.started(&id).await;
    let incarnation = |stage: &Stage| {
        let view = stage.store.view();
        let agent = view.agents().next().unwrap();
        agent.incarnation
    };
    let before = incarnation(&stage);
    proxy.cut();
    gate.open();
    done.said().await;
    assert_eq!(stage.history(&id).last().unwrap(), "pending 1");
    proxy.mend();
    let job = stage.complete(&id).await;
    assert_eq!(job.state(), JobState::Success);
    assert_eq!(
        incarnation(&stage),
        before,
        "it was the same agent all along"
    );
    assert_eq!(
        stage.history(&id),
        ["triggered 0", "pending 1", "success! 1"]
    );
    // It may forget the run, and does: its directory goes.
    let runs = stage.directory("agent").join("runs");
    let forgotten = async {
        while std::fs::read_dir(&runs).unwrap().next().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::stage::BOUND, forgotten)
        .await
        .unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn what_was_said_is_said_again_on_each_attachment() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let id = stage.create(plain("job", "true")).await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let told = brief(&agent.told().await);
    // The agent never got it.
    drop(agent);
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    assert_eq!(brief(&agent.told().await), told);
    let fence = stage
        .store
        .view()
        .job(&id)
        .unwrap()
        .lease
        .as_ref()
        .unwrap()
        .fence;
    let started = JobStarted {
        job_id: id.clone(),
        fence,
    };
    agent.says(agent_message::Message::Started(started)).await;
    assert!(stage.started(&id).await.lease.is_some());
    // Twice, as after an attachment that broke while the first was under way.
    for _ in 0..2 {
        agent.finishes(&id, fence, JobState::Failure).await;
    }
    for _ in 0..2 {
        assert_eq!(brief(&agent.told().await), format!("settled {id} {fence}"));
    }
    assert_eq!(
        stage.history(&id),
        ["triggered 0", "pending 1", "failure! 1"]
    );
}

#[tokio::test]
async fn the_report_of_a_lease_that_is_over_is_void() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let id = stage.create(plain("job", "true")).await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    assert!(brief(&agent.told().await).starts_with("start"));
    let fence = |stage: &Stage| {
        stage
            .store
            .view()
            .job(&id)
            .unwrap()
            .lease
            .as_ref()
            .unwrap()
            .fence
    };
    let first = fence(&stage);
    stage
        .propose(Body::ReleaseLease(ReleaseLease {
            id: id.clone(),
            fence: first,
            reason: "Taken back.".to_owned(),
            unstarted: true,
        }))
        .await;
    assert_eq!(brief(&agent.told().await), format!("settled {id} {first}"));
    let again = agent.told().await;
    let second = fence(&stage);
    assert_eq!(brief(&again), format!("start {id} {second}"));

    agent.finishes(&id, first, JobState::Failure).await;
    assert_eq!(brief(&agent.told().await), format!("settled {id} {first}"));
    assert_eq!(stage.history(&id).last().unwrap(), "pending 1");
    agent.finishes(&id, second, JobState::Success).await;
    assert_eq!(stage.complete(&id).await.state(), JobState::Success);
}

#[tokio::test]
async fn what_runs_without_a_lease_must_end() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    agent.beats(&[("stray", 7)]).await;
    assert_eq!(brief(&agent.told().await), "settled stray 7");
}

#[tokio::test]
async fn each_beat_is_answered() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    // The scheduler knows it before it renews.
    while {
        agent.beats(&[]).await;
        agent.renewed().await == 0
    } {}
    for _ in 0..3 {
        agent.beats(&[]).await;
    }
    for _ in 0..3 {
        assert_eq!(agent.renewed().await, 30_000);
    }
}

#[tokio::test]
async fn an_agent_that_registers_anew_fences_its_former_self() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let mut former = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let newer = register(&stage, "a").await;
    assert_eq!(former.ends().await, Code::Aborted);
    let refused = FakeAgent::attach(&stage, "a", incarnation).await;
    assert_eq!(refused.err().unwrap().code(), Code::Aborted);
    FakeAgent::attach(&stage, "a", newer).await.unwrap();
}

#[tokio::test]
async fn a_second_attachment_ends_the_first() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let mut first = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let _second = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    assert_eq!(first.ends().await, Code::Ok);
}

#[tokio::test]
async fn a_log_that_nobody_reads_is_not_sent_on() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let mut agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    agent
        .sends(LogSegment {
            job_id: "j".to_owned(),
            tail: 99,
            ..LogSegment::default()
        })
        .await;
    let node_message::Message::LogWanted(wanted) = agent.told().await else {
        panic!("not about the log")
    };
    assert_eq!((wanted.tail, wanted.stop), (99, true));
}

#[tokio::test]
async fn an_agent_that_does_not_read_costs_the_node_nothing() {
    let stage = Stage::new().await;
    let incarnation = register(&stage, "a").await;
    let agent = FakeAgent::attach(&stage, "a", incarnation).await.unwrap();
    let flood = async {
        loop {
            agent.finishes("no-such-job", 1, JobState::Success).await;
        }
    };
    // It is no longer listened to, long before memory or log would tell; others are.
    let id = stage.create(plain("job", "true")).await;
    let other = register(&stage, "b").await;
    tokio::select! {
        () = flood => {}
        () = async {
            let mut other = FakeAgent::attach(&stage, "b", other).await.unwrap();
            other.beats(&[]).await;
            other.renewed().await;
        } => {}
    }
    assert!(stage.store.view().job(&id).is_some());
}
