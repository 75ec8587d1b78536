//! Stories over the sandbox forge: webhooks in at the door, real jobs on a real agent, answers on the pull request.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use trireme_proto::state::{JobState, JobType};
use trireme_sandbox::{
    FileChange,
    forge::StatusState,
    world::{BOT, Pr, World},
};

use crate::{
    command,
    scene::{Scene, until},
};

/// One job that always runs, one that only runs when asked for, one that waits for a gate.
const JOBS: &str = r#"
presubmits:
  acme/widget:
  - name: unit
    always_run: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["sh", "test.sh"]
  - name: docs
    always_run: false
    optional: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["sh", "-c", "echo documented"]
  - name: gated
    always_run: false
    optional: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["sh", "-c", "echo before the gate; while [ ! -e GATES/open ]; do sleep 0.05; done; echo behind the gate"]
"#;

const TEST: &str = "echo testing $PULL_NUMBER; echo tested > $ARTIFACTS/result.txt\n";

fn head_of(job: &trireme_proto::state::Job) -> &str {
    &job.pulls[0].head_sha
}

async fn until_success(scene: &Scene, name: &str, pr: &Pr) -> trireme_proto::state::Job {
    let what = format!("{name} to pass on #{}", pr.number);
    scene
        .until_run(&what, |job| {
            job.job == name
                && job.pulls.iter().any(|pull| pull.number == pr.number)
                && job.state() == JobState::Success
                && job.completed_ms > 0
        })
        .await
}

fn read_json(path: &Path) -> Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{}: {why}\n{text}", path.display()))
}

/// PLG-TRIGGER-031, PLG-TRIGGER-032, CRI-011; what the run leaves stands where Prow's readers look for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_draft_waits_and_is_tested_when_ready_with_results_in_prows_layout() {
    let scene = Scene::start(World::builder().file("test.sh", TEST), JOBS).await;
    let world = &scene.world;
    let pr = world.pr("draft").draft().opened_by("author").await;
    world
        .expect_comment(&pr, "Skipping CI for Draft Pull Request.")
        .await;
    world
        .expect_label(&pr, "do-not-merge/work-in-progress")
        .await;
    assert_eq!(scene.runs().await, Vec::<Value>::new());

    world.set_draft("author", &pr, false).await;
    world
        .expect_no_label(&pr, "do-not-merge/work-in-progress")
        .await;
    let job = until_success(&scene, "unit", &pr).await;
    assert_eq!(
        (job.r#type(), head_of(&job)),
        (JobType::Presubmit, world.head(&pr).as_str())
    );

    let description = world.expect_status(&pr, "unit", StatusState::Success).await;
    let suffix = format!(" BaseSHA:{}", job.base_sha);
    let text = description
        .strip_suffix(&suffix)
        .unwrap_or_else(|| panic!("{description:?}"));
    assert_eq!(text.trim_end_matches('\u{2001}'), "Job succeeded.");
    let missing = 140 - "Job succeeded.".len() - suffix.len();
    assert_eq!(text.matches('\u{2001}').count(), missing.div_ceil(4));

    let pull = scene
        .storage()
        .join("pr-logs/pull/acme_widget")
        .join(pr.number.to_string());
    let run = pull.join("unit").join(&job.build_id);
    let started = until("started.json", async || {
        run.join("started.json")
            .is_file()
            .then(|| read_json(&run.join("started.json")))
    })
    .await;
    assert!(
        started["timestamp"].as_i64().unwrap() > 1_700_000_000,
        "{started}"
    );
    assert_eq!(started["pull"], pr.number.to_string());
    assert_eq!(
        started["repos"],
        json!({"acme/widget": format!("main:{},{}:{}", job.base_sha, pr.number, world.head(&pr))})
    );
    let finished = read_json(&run.join("finished.json"));
    assert_eq!(
        (&finished["passed"], &finished["result"]),
        (&json!(true), &json!("SUCCESS"))
    );
    assert_eq!(finished["revision"], world.head(&pr));
    assert!(finished["timestamp"].as_i64() >= started["timestamp"].as_i64());
    let log = std::fs::read_to_string(run.join("build-log.txt")).unwrap();
    assert_eq!(log, format!("testing {}\n", pr.number));
    let artifact = std::fs::read_to_string(run.join("artifacts/result.txt")).unwrap();
    assert_eq!(artifact, "tested\n");
    let prow_job = read_json(&run.join("prowjob.json"));
    assert_eq!(
        (&prow_job["kind"], &prow_job["metadata"]["name"]),
        (&json!("ProwJob"), &json!(job.id))
    );
    assert_eq!(prow_job["spec"]["job"], "unit");
    assert_eq!(prow_job["spec"]["refs"]["pulls"][0]["sha"], world.head(&pr));
    assert_eq!(prow_job["status"]["build_id"], json!(job.build_id));
    let latest = std::fs::read_to_string(pull.join("unit/latest-build.txt")).unwrap();
    assert_eq!(latest, job.build_id);
    scene.stop().await;
}

/// PLG-TRIGGER-018, PLG-TRIGGER-019, PLG-TRIGGER-024, PLG-HOLD-001, PLG-WIP-001
#[tokio::test(flavor = "multi_thread")]
async fn comments_and_titles_are_answered() {
    let scene = Scene::start(World::builder().file("test.sh", TEST), JOBS).await;
    let world = &scene.world;
    let pr = world.pr("change").opened_by("author").await;
    until_success(&scene, "unit", &pr).await;

    world.comment("author", &pr, "/test ?").await;
    let help = world
        .expect_comment(&pr, "available to trigger required jobs")
        .await;
    assert_eq!(help.author, BOT);
    let help = help.body.split("<details>").next().unwrap().to_owned();
    insta::assert_snapshot!(help.replace("```", "~~~"), @r"
    @author: The following commands are available to trigger required jobs:
    ~~~
    /test unit
    ~~~

    The following commands are available to trigger optional jobs:
    ~~~
    /test docs
    ~~~
    ~~~
    /test gated
    ~~~

    Use `/test all` to run the following jobs that were automatically triggered:
    ~~~
    unit
    ~~~
    ");

    world.comment("author", &pr, "/test nonsense").await;
    world
        .expect_comment(&pr, "The specified target(s) for `/test` were not found.")
        .await;

    world.comment("author", &pr, "/test docs").await;
    until_success(&scene, "docs", &pr).await;
    // PLG-TRIGGER-020: the help has served.
    let gone = |comments: Vec<trireme_sandbox::world::CommentText>| {
        !comments
            .iter()
            .any(|comment| comment.body.contains("available to trigger required jobs"))
    };
    until("the help to be pruned", async || {
        gone(world.comments(&pr)).then_some(())
    })
    .await;

    world.comment("reviewer", &pr, "/hold until Friday").await;
    world.expect_label(&pr, "do-not-merge/hold").await;
    world.comment("reviewer", &pr, "/unhold").await;
    world.expect_no_label(&pr, "do-not-merge/hold").await;
    world.retitle("author", &pr, "WIP: change").await;
    world
        .expect_label(&pr, "do-not-merge/work-in-progress")
        .await;
    world.retitle("author", &pr, "Change").await;
    world
        .expect_no_label(&pr, "do-not-merge/work-in-progress")
        .await;
    assert!(!world.is_merged(&pr));
    scene.stop().await;
}

/// PLG-APPROVE-009, PLG-APPROVE-015, OWN-002: the root's approver counts nowhere below `no_parent_owners`; an alias
/// stands for its people.
#[tokio::test(flavor = "multi_thread")]
async fn approval_needs_the_owners_of_every_file_and_then_tide_merges() {
    let world = World::builder()
        .file("test.sh", TEST)
        .file("OWNERS", "approvers:\n- approver\nreviewers:\n- reviewer\n")
        .file(
            "OWNERS_ALIASES",
            "aliases:\n  vault-keepers:\n  - reviewer\n",
        )
        .file(
            "vault/OWNERS",
            "options:\n  no_parent_owners: true\napprovers:\n- vault-keepers\n",
        )
        .file("vault/gold", "1\n");
    let scene = Scene::start(world, JOBS).await;
    let world = &scene.world;
    let pr = world
        .pr("gold")
        .file("vault/gold", "2\n")
        .file("notes", "gold\n")
        .opened_by("author")
        .await;
    let notice = world
        .expect_comment(&pr, "[APPROVALNOTIFIER] This PR is **NOT APPROVED**")
        .await;
    assert!(
        notice.body.contains("- **[vault/OWNERS]("),
        "{}",
        notice.body
    );

    world.comment("approver", &pr, "/approve").await;
    // The root's file is approved, the vault's is not.
    let partly = world.expect_comment(&pr, "~~[OWNERS](").await;
    assert!(partly.body.contains("**NOT APPROVED**"), "{}", partly.body);
    assert!(
        partly.body.contains("- **[vault/OWNERS]("),
        "{}",
        partly.body
    );
    assert!(!world.labels(&pr).contains(&"approved".to_owned()));

    world.comment("reviewer", &pr, "/approve\n/lgtm").await;
    world.expect_label(&pr, "approved").await;
    world.expect_label(&pr, "lgtm").await;
    let notice = world
        .expect_comment(&pr, "[APPROVALNOTIFIER] This PR is **APPROVED**")
        .await;
    assert!(notice.body.contains("~~[vault/OWNERS]("), "{}", notice.body);
    world.expect_merged(&pr).await;
    scene.stop().await;
}

/// PLG-TRIGGER-033, EXE-011: a follower of the log sees it grow and end; a closed pull request takes its runs along.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_followed_aborted_rerun_and_ends_with_its_pull_request() {
    let scene = Scene::start(World::builder().file("test.sh", TEST), JOBS).await;
    let (world, nodes) = (&scene.world, &scene.nodes);
    let pr = world.pr("change").opened_by("author").await;
    world.comment("author", &pr, "/test gated").await;
    let first = scene
        .until_run("gated to run", |job| {
            job.job == "gated" && job.state() == JobState::Pending
        })
        .await;
    assert_eq!(read_line(&scene, &first.id).await, "before the gate\n");

    let aborted = nodes.run(&["abort", &first.id]).await.done();
    assert_eq!(aborted.out, format!("{} is being aborted\n", first.id));
    scene
        .until_run("the abort", |job| {
            job.id == first.id && job.state() == JobState::Aborted && job.completed_ms > 0
        })
        .await;
    let again = nodes.run(&["abort", &first.id]).await.done();
    assert_eq!(again.out, format!("{} was complete already\n", first.id));

    let rerun = nodes
        .run(&["rerun", &first.id, "-o", "json"])
        .await
        .done()
        .json();
    let second = rerun["id"].as_str().unwrap();
    assert_ne!(second, first.id);
    scene
        .until_run("the rerun to start", |job| {
            job.id == second && job.state() == JobState::Pending
        })
        .await;
    let mut follower = command::start(&nodes.server(), &["logs", "-f", second]);
    let mut lines = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).await.unwrap();
    assert_eq!(line, "before the gate\n");
    scene.open_gate("open");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "behind the gate\n");
    command::end(follower).await.done();
    scene
        .until_run("the rerun to pass", |job| {
            job.id == second && job.state() == JobState::Success
        })
        .await;
    std::fs::remove_file(gate(&scene)).unwrap();

    world.comment("author", &pr, "/test gated").await;
    let third = scene
        .until_run("the third run", |job| {
            job.job == "gated"
                && job.state() == JobState::Pending
                && ![&first.id, second].contains(&job.id.as_str())
        })
        .await;
    world.close("author", &pr).await;
    let ended = scene
        .until_run("the end of the third run", |job| {
            job.id == third.id && job.completed_ms > 0
        })
        .await;
    assert_eq!(ended.state(), JobState::Aborted);
    for command in [
        &["get", "job", "none"][..],
        &["logs", "none"],
        &["abort", "none"],
        &["rerun", "none"],
    ] {
        let missing = nodes.run(command).await;
        assert_eq!(missing.code, 4, "{command:?}: {missing:?}");
    }
    scene.stop().await;
}

fn gate(scene: &Scene) -> PathBuf {
    scene.nodes.directory.path().join("gates/open")
}

/// The first line of a run's log, once there is one.
async fn read_line(scene: &Scene, id: &str) -> String {
    let mut follower = command::start(&scene.nodes.server(), &["logs", "-f", id]);
    let mut line = String::new();
    BufReader::new(follower.stdout.take().unwrap())
        .read_line(&mut line)
        .await
        .unwrap();
    line
}

/// A push replaces what is being tested: runs of the old head end, the new head is tested.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_aborts_runs_of_the_old_head() {
    let jobs = JOBS.replacen("always_run: false\n    optional: true\n    decorate: true\n    spec:\n      containers:\n      - image: debian:stable\n        command: [\"sh\", \"-c\", \"echo before", "always_run: true\n    optional: true\n    decorate: true\n    spec:\n      containers:\n      - image: debian:stable\n        command: [\"sh\", \"-c\", \"echo before", 1);
    let scene = Scene::start(World::builder().file("test.sh", TEST), &jobs).await;
    let world = &scene.world;
    let pr = world.pr("change").opened_by("author").await;
    let old = scene
        .until_run("gated to run", |job| {
            job.job == "gated" && job.state() == JobState::Pending
        })
        .await;
    let head = world
        .push_fix(&pr, vec![FileChange::write("more", "more\n")])
        .await;
    scene
        .until_run("the old run to end", |job| {
            job.id == old.id && job.state() == JobState::Aborted && job.completed_ms > 0
        })
        .await;
    scene.open_gate("open");
    scene
        .until_run("the new head to pass", |job| {
            job.job == "gated" && head_of(job) == head && job.state() == JobState::Success
        })
        .await;
    scene.stop().await;
}
