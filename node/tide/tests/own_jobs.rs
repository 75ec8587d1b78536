//! Repositories whose jobs stand in themselves, on their way to the main branch: over the sandbox forge with real git.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

#[path = "../../report/tests/scene/mod.rs"]
mod scene;

use std::{sync::Arc, time::Duration};

use scene::Scene;
use trireme_in_repo::{CacheLimits, InRepo, InRepoMetrics};
use trireme_proto::state::{CreateJobs, Job, JobState, JobType, NewJob, Pull, command::Body};
use trireme_sandbox::{
    FileChange,
    forge::{NewStatus, StatusState},
    world::{BOT, ORG, Pr, REPO},
};
use trireme_tide::{Tide, Timing};

const CONFIG: &str = "
in_repo_config: {enabled: {acme/widget: true}}
tide:
  sync_period: 300ms
  queries:
  - repos: [acme/widget]
    labels: [lgtm]
";

const NO_JOBS: &str = "presubmits: {}\n";

const OWN: &str =
    "presubmits: [{name: own, always_run: true, spec: {containers: [{image: alpine}]}}]\n";

async fn serve(scene: &mut Scene) {
    let mirrors = scene.mirrors().await;
    let metrics = InRepoMetrics::default();
    let in_repo = InRepo::new(mirrors.clone(), CacheLimits::default(), metrics);
    let forge = Arc::clone(&scene.forge);
    let tide = Tide::new(forge, mirrors, in_repo, scene.feed.clone());
    let quick = Timing {
        debounce: Duration::from_millis(10),
        merge_pause: Duration::from_millis(10),
        base_look: Duration::from_millis(50),
        ..Timing::default()
    };
    scene
        .begin_term(vec![Arc::new(tide.with_timing(quick))])
        .await;
}

/// A repository with these files on its main branch.
async fn with(files: &[(&str, &str)]) -> Scene {
    let scene = Scene::new(CONFIG, NO_JOBS).await;
    if !files.is_empty() {
        let files = files.iter();
        let files = files.map(|(path, content)| FileChange::write(*path, *content));
        scene.world.push(BOT, "main", files.collect()).await;
    }
    scene
}

async fn ready(scene: &Scene, branch: &str, files: &[(&str, &str)]) -> Pr {
    let mut pr = scene.world.pr(branch).file(branch, "1");
    for (path, content) in files {
        pr = pr.file(path, *content);
    }
    let pr = pr.opened_by("author").await;
    scene.world.label(BOT, &pr, "lgtm").await;
    pr
}

/// As trigger does, which is not part of these stories: a run for the head.
async fn create_run(scene: &Scene, pr: &Pr, name: &str) {
    let job = Job {
        id: format!("run-of-{name}"),
        job: name.to_owned(),
        context: name.to_owned(),
        r#type: JobType::Presubmit.into(),
        org: ORG.to_owned(),
        repo: REPO.to_owned(),
        base_ref: "main".to_owned(),
        pulls: vec![Pull {
            number: pr.number,
            head_sha: scene.world.head(pr),
            ..Pull::default()
        }],
        state: JobState::Triggered.into(),
        reporters: vec![trireme_state::GITHUB_REPORTER.to_owned()],
        prowjob: bytes::Bytes::from_static(b"{}"),
        ..Job::default()
    };
    let new = NewJob {
        job: Some(Box::new(job)),
        ..NewJob::default()
    };
    let create = CreateJobs {
        jobs: vec![new],
        ..CreateJobs::default()
    };
    scene.propose(Body::CreateJobs(create)).await;
    scene
        .run_job(&format!("run-of-{name}"), JobState::Failure)
        .await;
}

/// As our reporter does, which is not part of these stories.
async fn set_status(scene: &Scene, pr: &Pr, context: &str, state: StatusState) {
    let status = NewStatus {
        context: context.to_owned(),
        state,
        description: Some("told".to_owned()),
        target_url: None,
    };
    let head = scene.world.head(pr);
    let bot = scene.world.user(BOT);
    bot.set_status(&pr.repo, &head, status).await.unwrap();
}

async fn until_job(scene: &Scene, what: &str, is: impl Fn(&Job) -> bool) -> Job {
    scene
        .until(what, |state| {
            let live = state.live_jobs().find(|job| is(job));
            live.map(|job| (**job).clone())
        })
        .await
}

async fn until_told(scene: &Scene, pr: &Pr, wanted: &str) -> String {
    scene
        .world
        .until_pr(pr, wanted, |forge, repo, _, pull| {
            let statuses = forge.current_statuses(&repo.name, &pull.head_sha);
            let texts = statuses.into_iter().filter_map(|s| s.description.clone());
            texts.into_iter().find(|text| text.contains(wanted))
        })
        .await
        .unwrap()
}

fn numbers(job: &Job) -> Vec<u64> {
    job.pulls.iter().map(|pull| pull.number).collect()
}

/// TIDE-022, TIDE-081: an own presubmit is required, run again on the newest base, and then merged by.
#[tokio::test]
async fn tide_022_an_own_presubmit_must_pass_before_the_merge() {
    let mut scene = with(&[(".prow.yaml", OWN)]).await;
    serve(&mut scene).await;
    let pr = ready(&scene, "feature", &[]).await;
    assert_eq!(
        until_told(&scene, &pr, "not succeeded").await,
        "Not mergeable. Job own has not succeeded."
    );
    // Passed once, on whatever base.
    set_status(&scene, &pr, "own", StatusState::Success).await;
    let job = until_job(&scene, "the retest", |_| true).await;
    assert_eq!(
        (job.job.as_str(), job.r#type(), numbers(&job)),
        ("own", JobType::Presubmit, vec![pr.number])
    );
    assert!(!scene.world.is_merged(&pr));
    scene.run_job(&job.id, JobState::Success).await;
    scene.world.expect_merged(&pr).await;
}

/// TIDE-022: what a pull request adds binds it, and no other.
#[tokio::test]
async fn tide_022_a_job_that_a_pull_request_adds_binds_it_alone() {
    let mut scene = with(&[]).await;
    serve(&mut scene).await;
    let adding = ready(&scene, "adding", &[(".prow.yaml", OWN)]).await;
    let other = ready(&scene, "other", &[]).await;
    scene.world.expect_merged(&other).await;
    until_told(&scene, &adding, "Job own has not succeeded.").await;
    assert!(!scene.world.is_merged(&adding));
}

/// TIDE-022, TIDE-043: an own job that is required where it ran holds up with its failure, though the configuration
/// knows no job that reports it.
#[tokio::test]
async fn tide_022_a_failed_own_job_that_need_not_run_holds_up() {
    let docs = OWN.replace("always_run: true", "run_if_changed: ^docs/");
    let mut scene = with(&[(".prow.yaml", &docs)]).await;
    let pr = ready(&scene, "feature", &[]).await;
    create_run(&scene, &pr, "own").await;
    set_status(&scene, &pr, "own", StatusState::Failure).await;
    let other = ready(&scene, "other", &[]).await;
    serve(&mut scene).await;
    scene.world.expect_merged(&other).await;
    until_told(&scene, &pr, "Job own has not succeeded.").await;
    assert!(!scene.world.is_merged(&pr));
}

/// TIDE-024, CFG-088: broken files keep out whoever brings them, say why, and nobody else.
#[tokio::test]
async fn tide_024_broken_files_keep_one_pull_request_out_of_the_pool() {
    let mut scene = with(&[]).await;
    serve(&mut scene).await;
    let broken = "presubmits: [{name: own, cluster: far, spec: {containers: [{image: a}]}}]\n";
    let broken = ready(&scene, "broken", &[(".prow.yaml", broken)]).await;
    let other = ready(&scene, "other", &[]).await;
    scene.world.expect_merged(&other).await;
    insta::assert_snapshot!(until_told(&scene, &broken, "In-repo").await, @r#"Not mergeable. In-repo configuration: .prow.yaml:1:14: presubmits[0].cluster: cluster "far" is not allowed for repository "acme/widget""#);
    assert!(!scene.world.is_merged(&broken));
}

/// TIDE-071, TIDE-073: a batch is tested by the jobs that stand in all its heads together.
#[tokio::test]
async fn tide_071_a_batch_is_tested_by_own_jobs() {
    let mut scene = with(&[(".prow.yaml", OWN)]).await;
    let mut prs = Vec::new();
    for branch in ["a", "b"] {
        let pr = ready(&scene, branch, &[]).await;
        set_status(&scene, &pr, "own", StatusState::Success).await;
        prs.push(pr);
    }
    serve(&mut scene).await;
    let batch = until_job(&scene, "the batch", |job| job.r#type() == JobType::Batch).await;
    assert_eq!(batch.job, "own");
    assert_eq!(numbers(&batch), [prs[0].number, prs[1].number]);
    scene.run_job(&batch.id, JobState::Success).await;
    for pr in &prs {
        scene.world.expect_merged(pr).await;
    }
}

/// TIDE-075: files that are good one by one and clash together make no batch, and the first of them still merges.
#[tokio::test]
async fn tide_075_files_that_clash_make_no_batch() {
    let mut scene = with(&[(".prow/own.yaml", OWN)]).await;
    let twin = OWN.replace("own", "twin");
    let mut prs = Vec::new();
    for branch in ["a", "b"] {
        let file = format!(".prow/{branch}.yaml");
        let pr = ready(&scene, branch, &[(&file, &twin)]).await;
        for context in ["own", "twin"] {
            set_status(&scene, &pr, context, StatusState::Success).await;
        }
        prs.push(pr);
    }
    serve(&mut scene).await;
    let first = prs[0].number;
    for name in ["own", "twin"] {
        let job = until_job(&scene, name, |job| job.job == name).await;
        assert_eq!(
            (job.r#type(), numbers(&job)),
            (JobType::Presubmit, vec![first])
        );
        scene.run_job(&job.id, JobState::Success).await;
    }
    scene.world.expect_merged(&prs[0]).await;
    // Now the second one is broken by itself.
    let told = until_told(&scene, &prs[1], "duplicated presubmit jobs").await;
    assert!(
        told.starts_with("Not mergeable. In-repo configuration: .prow/b.yaml:1:14"),
        "{told}"
    );
    let view = scene.store.view();
    let batches = view
        .jobs_of_pull(ORG, REPO, prs[1].number)
        .filter(|job| job.r#type() == JobType::Batch);
    assert_eq!(batches.count(), 0);
}

/// TIDE-075: one that clashes is left out of the batch, wherever it stands, and the others are tested together.
#[tokio::test]
async fn tide_075_one_that_clashes_is_left_out_of_the_batch() {
    let mut scene = with(&[(".prow/own.yaml", OWN)]).await;
    let twin = OWN.replace("own", "twin");
    let mut prs = Vec::new();
    for branch in ["a", "b", "c", "d"] {
        let file = format!(".prow/{branch}.yaml");
        // The first two clash.
        let files: &[(&str, &str)] = match branch {
            "a" | "b" => &[(&file, &twin)],
            _ => &[],
        };
        let pr = ready(&scene, branch, files).await;
        for context in ["own", "twin"] {
            set_status(&scene, &pr, context, StatusState::Success).await;
        }
        prs.push(pr);
    }
    serve(&mut scene).await;
    let together = [&prs[0], &prs[2], &prs[3]];
    let wanted = together.map(|pr| pr.number);
    for name in ["own", "twin"] {
        let batch = until_job(&scene, name, |job| job.job == name).await;
        assert_eq!(
            (batch.r#type(), numbers(&batch)),
            (JobType::Batch, wanted.to_vec())
        );
        scene.run_job(&batch.id, JobState::Success).await;
    }
    for pr in together {
        scene.world.expect_merged(pr).await;
    }
    until_told(&scene, &prs[1], "duplicated presubmit jobs").await;
}

/// CFG-088: what the status of a head says is about a former base, and Tide looks at the newest.
#[tokio::test]
async fn an_old_status_about_own_jobs_holds_nothing_up() {
    let mut scene = with(&[]).await;
    let pr = ready(&scene, "feature", &[]).await;
    set_status(&scene, &pr, "in-repo-config", StatusState::Failure).await;
    serve(&mut scene).await;
    scene.world.expect_merged(&pr).await;
}
