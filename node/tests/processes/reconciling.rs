//! Open pull requests when a version adds, removes or renames their jobs, with real runs and a leader that is killed.

use trireme_proto::state::{Job, JobState};
use trireme_sandbox::{
    forge::StatusState,
    world::{Pr, World},
};

use crate::scene::{Scene, until};

const JOBS: &str = r#"
presubmits:
  acme/widget:
  - name: unit
    always_run: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["sh", "-c", "exit 1"]
"#;
/// Waits for a gate, then fails.
const GATED: &str = r#"  - name: gated
    always_run: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["sh", "-c", "while [ ! -e GATES/open ]; do sleep 0.05; done; exit 1"]
"#;
const LINT: &str = r#"  - name: lint
    always_run: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["true"]
"#;

/// Gives the node these settings too.
async fn settle(scene: &mut Scene, reconciler: &str) {
    let cluster = &mut scene.nodes.cluster;
    cluster.terminate(1).await.unwrap();
    let file = cluster.member(1).unwrap().directory.join("trireme.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let (kept, _) = settings
        .split_once("\n[status_reconciler]")
        .unwrap_or((&settings, ""));
    std::fs::write(file, format!("{kept}\n[status_reconciler]\n{reconciler}")).unwrap();
    cluster.restart(1).unwrap();
    cluster.wait_for_leader().await.unwrap();
}

/// What the metrics say of a version: how far it is compared, and how many repositories are behind.
async fn in_line(scene: &Scene, version: u64) {
    let url = format!("{}/metrics", scene.nodes.url(1));
    let compared = format!("trireme_status_reconciler_config_version {version}");
    until(&format!("version {version} to be worked off"), async || {
        let text = crate::scene::http().get(&url).send().await.ok()?;
        let text = text.text().await.ok()?;
        let has = |line: &str| text.lines().any(|it| it == line);
        (has(&compared) && has("trireme_status_reconciler_repositories_behind 0")).then_some(())
    })
    .await;
}

fn on(job: &Job, name: &str, pr: &Pr) -> bool {
    job.job == name && job.pulls.iter().any(|pull| pull.number == pr.number)
}

async fn until_told(scene: &Scene, context: &str, pr: &Pr, wanted: &str) {
    let world = &scene.world;
    world
        .until_pr(pr, wanted, |forge, repo, _, pull| {
            let statuses = forge.current_statuses(&repo.name, &pull.head_sha);
            let mut ours = statuses.into_iter().filter(|it| it.context == context);
            ours.find(|it| {
                it.description
                    .as_deref()
                    .is_some_and(|it| it.contains(wanted))
            })
            .map(|_| ())
        })
        .await
        .unwrap();
}

/// ADM-090, ADM-098, ADM-099: through the dry run, a change while the node is killed, and a run that outlives its job.
#[tokio::test(flavor = "multi_thread")]
async fn adm_090_open_pull_requests_follow_the_configuration() {
    let mut scene = Scene::start(World::builder(), JOBS).await;
    let gates = scene.nodes.directory.path().join("gates");
    let gated = GATED.replace("GATES", gates.to_str().unwrap());
    settle(&mut scene, "").await;
    in_line(&scene, 1).await;
    let pr = scene.world.pr("change").opened_by("author").await;
    scene
        .world
        .expect_status(&pr, "unit", StatusState::Failure)
        .await;

    // In a dry run nothing happens, and the version is done with.
    scene.edit("jobs.yaml", |jobs| format!("{jobs}{LINT}"));
    scene.apply().await;
    in_line(&scene, 2).await;
    assert!(!scene.world.statuses(&pr).contains_key("lint"));
    let url = format!("{}/metrics", scene.nodes.url(1));
    let metrics = crate::scene::http().get(&url).send().await.unwrap();
    let planned =
        "trireme_status_reconciler_changes_total{action=\"trigger\",outcome=\"planned\"} 1";
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.lines().any(|line| line == planned), "{metrics}");

    // In earnest, and killed as soon as the version is there: what is new is run once, what is renamed moves.
    settle(&mut scene, "dry_run = false\n").await;
    scene.edit("jobs.yaml", |jobs| {
        let jobs = jobs.replace("name: unit\n", "name: unit\n    context: ci/unit\n");
        format!("{jobs}{gated}")
    });
    scene.apply().await;
    scene.nodes.cluster.kill(1).await.unwrap();
    scene.nodes.cluster.restart(1).unwrap();
    scene.nodes.cluster.wait_for_leader().await.unwrap();
    in_line(&scene, 3).await;
    until_told(
        &scene,
        "unit",
        &pr,
        "Context retired. Status moved to \"ci/unit\".",
    )
    .await;
    scene
        .world
        .expect_status(&pr, "ci/unit", StatusState::Failure)
        .await;
    let running = scene
        .until_run("gated to run", |job| {
            on(job, "gated", &pr) && job.state() == JobState::Pending
        })
        .await;
    scene
        .world
        .expect_status(&pr, "gated", StatusState::Pending)
        .await;

    // Its job goes while it runs: green at once, and green again after it has failed.
    scene.edit("jobs.yaml", |jobs| jobs.replace(&gated, ""));
    scene.apply().await;
    until_told(&scene, "gated", &pr, "Context retired without replacement.").await;
    scene.open_gate("open");
    scene
        .until_run("gated to fail", |job| {
            job.id == running.id && job.state() == JobState::Failure && job.completed_ms > 0
        })
        .await;
    in_line(&scene, 4).await;
    let (state, description) = scene.world.statuses(&pr)["gated"].clone();
    assert_eq!(
        (state, description.as_str()),
        (StatusState::Success, "Context retired without replacement.")
    );
    let runs = scene.runs().await;
    let count = |name: &str| runs.iter().filter(|run| run["spec"]["job"] == name).count();
    assert_eq!((count("unit"), count("lint"), count("gated")), (1, 0, 1));
    scene.stop().await;
}
