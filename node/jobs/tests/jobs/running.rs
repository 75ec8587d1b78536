//! From a record to its result.

use serde_json::{Value, json};
use trireme_proto::state::JobState;

use crate::stage::{Gate, Repository, Stage, decorated, plain};

#[tokio::test]
async fn a_plain_run_ends_as_its_process_does() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let good = stage.create(plain("good", "echo fine")).await;
    let bad = stage.create(plain("bad", "exit 3")).await;
    let (good, bad) = (stage.complete(&good).await, stage.complete(&bad).await);
    assert_eq!(
        (good.state(), good.description.as_str(), good.attempt),
        (JobState::Success, "Job succeeded.", 1)
    );
    assert_eq!(
        (bad.state(), bad.description.as_str()),
        (JobState::Failure, "Job failed.")
    );
    assert_eq!(
        stage.history(&good.id),
        ["triggered 0", "pending 1", "success! 1"]
    );
    agent.stop().await;
}

/// EXE-050, EXE-063, CRI-061
#[tokio::test]
async fn a_decorated_run_clones_runs_and_leaves_prows_files() {
    let stage = Stage::new().await;
    stage.configure(
        "plank: {job_url_prefix_config: {'*': 'https://deck.example.com/view/'}}",
        "{}",
    );
    let repository = Repository::new(&stage);
    let agent = stage.agent("agent");
    let script = "cat cargo.txt; echo junit > $ARTIFACTS/junit.xml; echo $JOB_NAME $BUILD_ID";
    let id = stage.create(decorated("unit", script, &repository)).await;
    let job = stage.complete(&id).await;
    assert_eq!(
        (job.state(), job.description.as_str()),
        (JobState::Success, "Job succeeded.")
    );
    let log = stage.stored(&job, "build-log.txt");
    assert_eq!(log, format!("grain\nunit {}\n", job.build_id));
    assert_eq!(stage.stored(&job, "artifacts/junit.xml"), "junit\n");
    let json = |name| serde_json::from_str::<Value>(&stage.stored(&job, name)).unwrap();
    assert_eq!(
        json("started.json")["repos"]["fleet/harbor"],
        format!("main:{}", repository.sha)
    );
    assert_eq!(json("finished.json")["result"], "SUCCESS");
    let recorded = json("prowjob.json");
    assert_eq!(recorded["metadata"]["name"], id);
    assert_eq!(recorded["status"]["state"], "success");
    assert_eq!(recorded["status"]["build_id"], job.build_id);
    assert_eq!(
        job.url,
        format!(
            "https://deck.example.com/view/gs/artifacts/logs/unit/{}",
            job.build_id
        )
    );
    agent.stop().await;
}

/// XPL-031
#[tokio::test]
async fn what_a_plain_process_cannot_give_is_refused_or_said() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let mut elsewhere = plain("elsewhere", "true");
    elsewhere["spec"]["pod_spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let mut shut_in = plain("shut-in", "true");
    shut_in["spec"]["pod_spec"]["securityContext"] = json!({"runAsUser": 1000});
    let (elsewhere, shut_in) = (stage.create(elsewhere).await, stage.create(shut_in).await);
    let said = |job: trireme_proto::state::Job| format!("{:?}: {}", job.state(), job.description);
    insta::assert_snapshot!(said(stage.complete(&elsewhere).await), @"Error: Pod can not be created: pod_spec.nodeSelector cannot be honoured by a plain process");
    insta::assert_snapshot!(said(stage.complete(&shut_in).await), @"Success: Job succeeded. Not honoured by a plain process: securityContext.");
    agent.stop().await;
}

/// EXE-041, EXE-044: the next begins as soon as the one before it ends.
#[tokio::test]
async fn only_as_many_run_as_may_run_at_once() {
    let stage = Stage::new().await;
    let agent = stage.agent("agent");
    let gate = Gate::new(&stage, "first");
    let mut first = plain("narrow", &gate.wait());
    first["spec"]["max_concurrency"] = 1.into();
    let mut second = plain("narrow", "true");
    second["spec"]["max_concurrency"] = 1.into();
    let (first, second) = (stage.create(first).await, stage.create(second).await);
    stage.started(&first).await;
    // Another job is not held up by them, and was created after both.
    let other = stage.create(plain("wide", "true")).await;
    stage.complete(&other).await;
    assert_eq!(stage.history(&second), ["triggered 0"]);
    gate.open();
    let (first, second) = (stage.complete(&first).await, stage.complete(&second).await);
    assert!(second.pending_ms >= first.completed_ms);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_runs_no_more_than_its_capacity() {
    let stage = Stage::new().await;
    let agent = stage.agent_at("agent", stage.door, 1);
    let gate = Gate::new(&stage, "first");
    let first = stage.create(plain("a", &gate.wait())).await;
    let second = stage.create(plain("b", "true")).await;
    stage.started(&first).await;
    assert_eq!(stage.history(&second), ["triggered 0"]);
    gate.open();
    assert_eq!(stage.complete(&second).await.state(), JobState::Success);
    agent.stop().await;
}

/// EXE-020, EXE-022
#[tokio::test]
async fn a_run_that_waits_for_a_cluster_fails_over_to_a_known_one() {
    let stage = Stage::new().await;
    stage.configure(
        "scheduler: {enabled: true, failover: {mappings: {sunk: default}}}",
        "{}",
    );
    let agent = stage.agent("agent");
    let id = stage
        .create_with(plain("a", "true"), |job| {
            job.set_state(JobState::Scheduling);
            job.cluster = "sunk".to_owned();
        })
        .await;
    let job = stage.complete(&id).await;
    assert_eq!(
        (job.state(), job.cluster.as_str()),
        (JobState::Success, "default")
    );
    agent.stop().await;
}
