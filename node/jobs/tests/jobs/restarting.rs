//! Agents that end and come back.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{sleep, timeout};
use trireme_jobs::agent::AgentError;
use trireme_proto::state::JobState;

use crate::{
    AGENT_DIRECTORY, AGENT_NODE,
    stage::{BOUND, Gate, Stage, agent_options, is_gone, plain},
};

/// A killed process loses its environment, by which it is known, a moment before the table says that it is dead.
async fn gone(pid: &str) {
    let watching = async {
        while !is_gone(pid) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, watching).await.unwrap();
}

/// An agent in a process of its own.
struct Killable(Child);

impl Killable {
    fn start(stage: &Stage, directory: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "agent_process", "--nocapture"])
            .env(AGENT_DIRECTORY, stage.directory(directory))
            .env(AGENT_NODE, stage.door.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// No last words, and what it runs lives on.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A run that says where it is and waits; the second time it ends.
fn script(first: &Gate, second: &Gate) -> String {
    let path = first.say("$$$$");
    format!(
        "if mkdir \"$TMPDIR/../../../began\" 2>/dev/null; then {path}; while :; do sleep 0.02; done; else {}; fi",
        second.say("again")
    )
}

#[tokio::test]
async fn a_killed_agents_run_is_run_again_when_it_comes_back() {
    let stage = Stage::new().await;
    let agent = Killable::start(&stage, "agent");
    let (first, second) = (Gate::new(&stage, "first"), Gate::new(&stage, "second"));
    let id = stage
        .create_with(plain("again", &script(&first, &second)), |job| {
            job.retries_left = 1;
        })
        .await;
    let pid = first.said().await;
    let before = stage.started(&id).await;
    agent.kill();
    assert!(!is_gone(&pid), "it outlives its agent");

    let agent = stage.agent("agent");
    let job = stage.complete(&id).await;
    assert_eq!(second.said().await, "again");
    // The agent knows it by its environment, which it loses when it is killed.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    assert!(
        environment.is_empty(),
        "it was killed before the job was run again"
    );
    assert_eq!(job.build_id, before.build_id);
    assert_eq!(
        stage.history(&id),
        [
            "triggered 0",
            "pending 1",
            "triggered 1",
            "pending 2",
            "success! 2"
        ]
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_run_that_may_not_be_repeated_ends_in_error() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let ready = Gate::new(&stage, "ready");
    let script = format!("{}; while :; do sleep 0.02; done", ready.say("$$$$"));
    let id = stage.create(plain("once", &script)).await;
    let pid = ready.said().await;
    stage.started(&id).await;
    agent.die().await;
    let agent = stage.agent("agent");
    let job = stage.complete(&id).await;
    assert_eq!(
        (job.state(), job.description.as_str()),
        (JobState::Error, "The agent was restarted.")
    );
    gone(&pid).await;
    assert_eq!(stage.history(&id), ["triggered 0", "pending 1", "error! 1"]);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_stopped_leaves_no_process() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let ready = Gate::new(&stage, "ready");
    let script = format!(
        "setsid sh -c '{}; while :; do sleep 0.02; done' & while :; do sleep 0.02; done",
        ready.say("$$$$")
    );
    stage.create(plain("stubborn", &script)).await;
    let pid = ready.said().await;
    agent.stop().await;
    gone(&pid).await;
}

#[tokio::test]
async fn the_cluster_says_why_it_does_not_take_an_agent() {
    let stage = Stage::new().await;
    let mut options = agent_options(stage.directory("agent"), stage.door.to_string(), 0);
    let refused = trireme_jobs::agent::run(options.clone(), Default::default()).await;
    insta::assert_snapshot!(refused.unwrap_err(), @"the cluster does not take this agent: capacity: 1 to 1000");
    options.nodes.clear();
    let refused = trireme_jobs::agent::run(options, Default::default()).await;
    assert!(matches!(refused, Err(AgentError::NoNodes)));
}

#[tokio::test]
async fn a_node_that_restarts_finds_its_agents_runs_going_on() {
    let mut stage = Stage::new().await;
    let agent = stage.agent("agent");
    let (ready, gate) = (Gate::new(&stage, "ready"), Gate::new(&stage, "gate"));
    let script = format!("{}; {}", ready.say("ready"), gate.wait());
    let id = stage.create(plain("steady", &script)).await;
    ready.said().await;
    let before = stage.started(&id).await;
    stage.restart().await;
    let scheduler = stage.scheduler();
    stage.begin_term(vec![scheduler]);
    gate.open();
    let job = stage.complete(&id).await;
    assert_eq!(
        (job.state(), job.attempt, job.build_id),
        (JobState::Success, 1, before.build_id)
    );
    agent.stop().await;
}
