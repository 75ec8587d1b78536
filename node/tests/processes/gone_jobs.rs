//! What becomes of runs and pools when a version has their job no more.

use trireme_proto::{
    api::ListJobsRequest,
    state::{Job, JobState},
};
use trireme_sandbox::world::{Pr, World};

use crate::scene::Scene;

const OWNERS: &str = "approvers:\n- approver\nreviewers:\n- reviewer\n";

/// One that passes, one that is required and waits for a gate, one in a queue in which nothing starts, one by the clock.
const JOBS: &str = r#"
presubmits:
  acme/widget:
  - name: unit
    always_run: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["true"]
"#;
const GOING: &str = r#"  - name: gated
    always_run: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["sh", "-c", "while [ ! -e GATES/open ]; do sleep 0.05; done; echo as it was made"]
  - name: queued
    always_run: false
    optional: true
    job_queue_name: closed
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["true"]
periodics:
- name: often
  interval: 1s
  decorate: true
  spec:
    containers:
    - image: debian:stable
      command: ["true"]
"#;
const QUEUES: &str = "plank:\n  job_queue_capacities: {closed: 0}\n";

fn on(job: &Job, pr: &Pr) -> bool {
    job.pulls.iter().any(|pull| pull.number == pr.number)
}

/// EXE-052, TIDE-022, HOR-004: what runs goes on as it was made, what waits for a queue that is gone ends with a reason,
/// a periodic is not started again, Tide asks for what the new version asks for, and what is gone is not run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_without_a_job_leaves_what_runs_and_asks_for_it_no_more() {
    let builder = World::builder().file("OWNERS", OWNERS);
    let scene = Scene::start(builder, JOBS).await;
    let gates = scene.nodes.directory.path().join("gates");
    let going = GOING.replace("GATES", gates.to_str().unwrap());
    scene.edit("config.yaml", |config| config.replace("plank:\n", QUEUES));
    scene.edit("jobs.yaml", |jobs| format!("{jobs}{going}"));
    scene.apply().await;
    let (world, nodes) = (&scene.world, &scene.nodes);

    let pr = world.pr("change").opened_by("author").await;
    let other = world.pr("other").opened_by("author").await;
    world.comment("author", &other, "/test queued").await;
    let gated = scene
        .until_run("gated to run", |job| {
            job.job == "gated" && on(job, &pr) && job.state() == JobState::Pending
        })
        .await;
    let going_on = scene
        .until_run("gated to run on the other", |job| {
            job.job == "gated" && on(job, &other) && job.state() == JobState::Pending
        })
        .await;
    let queued = scene
        .until_run("queued to wait", |job| {
            job.job == "queued" && job.state() == JobState::Triggered
        })
        .await;
    scene
        .until_run("unit to pass", |job| {
            job.job == "unit" && on(job, &pr) && job.state() == JobState::Success
        })
        .await;
    scene
        .until_run("the periodic", |job| {
            job.job == "often" && job.state() == JobState::Success
        })
        .await;
    world.comment("approver", &pr, "/approve\n/lgtm").await;
    world.expect_label(&pr, "approved").await;
    world.expect_label(&pr, "lgtm").await;
    assert!(
        !world.is_merged(&pr),
        "gated is required and has not passed"
    );

    // Version 3 has them no more.
    scene.edit("config.yaml", |config| {
        config.replace(QUEUES, "plank:\n  pod_unscheduled_timeout: 1s\n")
    });
    scene.edit("jobs.yaml", |jobs| jobs.replace(&going, ""));
    scene.apply().await;

    let ended = scene
        .until_run("queued to end", |job| {
            job.id == queued.id && job.completed_ms > 0
        })
        .await;
    assert_eq!(ended.state(), JobState::Error);
    insta::assert_snapshot!(ended.description, @r#"Terminal error: job queue "closed" is not in plank.job_queue_capacities any more, for 1s."#);

    // Nobody waits for what still runs; its pull request is closed now, and takes it along.
    world.expect_merged(&pr).await;
    let aborted = scene
        .until_run("gated to be aborted", |job| {
            job.id == gated.id && job.completed_ms > 0
        })
        .await;
    assert_eq!(aborted.state(), JobState::Aborted);

    // Where nothing was merged it goes on.
    let view = nodes
        .run(&["get", "jobs", "-o", "json"])
        .await
        .done()
        .json();
    let still = view["items"].as_array().unwrap().iter();
    let still = still
        .clone()
        .find(|job| job["metadata"]["name"] == going_on.id.as_str());
    assert_eq!(still.unwrap()["status"]["state"], "pending", "{view}");
    scene.open_gate("open");
    let passed = scene
        .until_run("gated to end", |job| {
            job.id == going_on.id && job.completed_ms > 0
        })
        .await;
    assert_eq!(
        (passed.state(), passed.config_version),
        (JobState::Success, 2)
    );
    let log = nodes.run(&["logs", &going_on.id]).await.done();
    assert_eq!(log.out, "as it was made\n");

    for id in [&going_on.id, &queued.id] {
        let refused = nodes.run(&["rerun", id]).await;
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(
            refused.err.contains(
                "of acme/widget is not configured any more (version 3), so it is not run again"
            ),
            "{refused:?}"
        );
    }
    let client = nodes.cluster.client().await.unwrap();
    let asked = ListJobsRequest {
        job: "often".to_owned(),
        page_size: 1000,
        ..ListJobsRequest::default()
    };
    let often = client.jobs().list_jobs(asked).await.unwrap().into_inner();
    assert!(!often.jobs.is_empty());
    assert!(often.jobs.iter().all(|job| job.config_version == 2));
    scene.stop().await;
}
