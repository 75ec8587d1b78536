//! Pull requests on their way to the main branch, told over the sandbox forge and a real store.

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
use trireme_proto::state::{
    IntentState, Job, JobState, JobType, MergeIntent, MergePool, PoolAction,
};
use trireme_sandbox::{
    FileChange,
    faults::{CallEffect, CallMatch},
    forge::{NewStatus, StatusState},
    world::{BOT, ORG, Pr, REPO},
};
use trireme_state::{State, is_complete};
use trireme_tide::{Tide, Timing};

const CONFIG: &str = "
tide:
  sync_period: 300ms
  queries:
  - repos: [acme/widget]
    labels: [lgtm]
    missingLabels: [do-not-merge/hold]
  merge_commit_template:
    acme/widget: {title: '{{ .Title }} (#{{ .Number }})'}
";

const JOBS: &str = "
presubmits:
  acme/widget:
  - {name: unit, always_run: true, spec: {containers: [{}]}}
";

const NO_JOBS: &str = "presubmits: {}\n";

fn quick() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        debounce: ms(10),
        merge_pause: ms(10),
        base_changed: vec![ms(10), ms(20)],
        base_look: ms(50),
        in_flight: ms(1_500),
        observe: ms(100),
        ..Timing::default()
    }
}

async fn serve(scene: &mut Scene) {
    let mirrors = scene.mirrors().await;
    let metrics = InRepoMetrics::default();
    let in_repo = InRepo::new(mirrors.clone(), CacheLimits::default(), metrics);
    let forge = Arc::clone(&scene.forge);
    let tide = Tide::new(forge, mirrors, in_repo, scene.feed.clone());
    scene
        .begin_term(vec![Arc::new(tide.with_timing(quick()))])
        .await;
}

async fn tide(config: &str, jobs: &str) -> Scene {
    let mut scene = Scene::new(config, jobs).await;
    serve(&mut scene).await;
    scene
}

async fn pr(scene: &Scene, branch: &str) -> Pr {
    let builder = scene.world.pr(branch).title(&format!("Add {branch}"));
    builder.file(branch, "1").opened_by("author").await
}

async fn ready(scene: &Scene, branch: &str) -> Pr {
    let pr = pr(scene, branch).await;
    scene.world.label(BOT, &pr, "lgtm").await;
    pr
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
    let repo = &pr.repo;
    let said = scene.world.user(BOT).set_status(repo, &head, status).await;
    said.unwrap();
}

async fn until_job(scene: &Scene, what: &str, is: impl Fn(&Job) -> bool) -> Job {
    scene
        .until(what, |state| {
            let live = state.live_jobs().find(|job| is(job));
            live.map(|job| (**job).clone())
        })
        .await
}

async fn until_pool(scene: &Scene, what: &str, is: impl Fn(&MergePool) -> bool) -> MergePool {
    scene
        .until(what, |state| {
            let pool = state.pool(ORG, REPO, "main").filter(|pool| is(pool))?;
            Some((**pool).clone())
        })
        .await
}

fn intents(state: &State, pr: &Pr) -> Vec<MergeIntent> {
    let intents = state.intents_of(ORG, REPO, pr.number);
    intents.map(|intent| (**intent).clone()).collect()
}

fn numbers(job: &Job) -> Vec<u64> {
    job.pulls.iter().map(|pull| pull.number).collect()
}

/// TIDE-096, TIDE-152, TIDE-003
#[tokio::test]
async fn what_is_ready_merges_once_under_an_intent() {
    let scene = tide(CONFIG, NO_JOBS).await;
    let pr = ready(&scene, "feature").await;
    let head = scene.world.head(&pr);
    let sha = scene.world.expect_merged(&pr).await;
    let [intent] = scene
        .until("the outcome", |state| {
            let intents = intents(state, &pr);
            let settled = intents.iter().all(|i| i.state() == IntentState::Merged);
            (!intents.is_empty() && settled).then_some(intents)
        })
        .await
        .try_into()
        .unwrap();
    assert_eq!((intent.merge_sha, intent.head_sha), (sha, head.clone()));
    assert_eq!(intent.commit_title, format!("Add feature (#{})", pr.number));
    assert_eq!(scene.world.sandbox().merges_of(&head), 1);
    let (_, description) = &scene.world.statuses(&pr)["tide"];
    assert!(["", "In merge pool."].contains(&description.as_str()));
    scene
        .until("the pool to end", |state| {
            state.pool(ORG, REPO, "main").is_none().then_some(())
        })
        .await;
}

/// TIDE-112, TIDE-115, TIDE-167
#[tokio::test]
async fn the_status_tells_what_is_missing_and_a_hold_holds() {
    let scene = tide(CONFIG, NO_JOBS).await;
    let pr = pr(&scene, "feature").await;
    let told = scene
        .world
        .expect_status(&pr, "tide", StatusState::Pending)
        .await;
    assert_eq!(told, "Not mergeable. Needs lgtm label.");
    scene.world.label(BOT, &pr, "do-not-merge/hold").await;
    scene.world.label(BOT, &pr, "lgtm").await;
    let told = scene
        .world
        .until_pr(&pr, "the hold in the status", |forge, repo, _, pull| {
            let statuses = forge.current_statuses(&repo.name, &pull.head_sha);
            let texts = statuses.into_iter().filter_map(|s| s.description.clone());
            texts.into_iter().find(|text| text.contains("hold"))
        })
        .await
        .unwrap();
    assert_eq!(
        told,
        "Not mergeable. Should not have do-not-merge/hold label."
    );
    assert!(!scene.world.is_merged(&pr));
    scene.world.unlabel(BOT, &pr, "do-not-merge/hold").await;
    scene.world.expect_merged(&pr).await;
}

/// TIDE-062, TIDE-080, TIDE-081, TIDE-155
#[tokio::test]
async fn what_was_tested_on_an_older_base_is_tested_again_before_it_merges() {
    let scene = tide(CONFIG, JOBS).await;
    let pr = ready(&scene, "feature").await;
    set_status(&scene, &pr, "unit", StatusState::Success).await;
    let job = until_job(&scene, "the retest", |_| true).await;
    assert_eq!(
        (job.r#type(), numbers(&job)),
        (JobType::Presubmit, vec![pr.number])
    );
    let prowjob = trireme_prowjob::record::prow_job(&job).unwrap();
    assert_eq!(prowjob.metadata.labels["created-by-tide"], "true");
    let pool = until_pool(&scene, "the pool to wait", |pool| !pool.pending.is_empty()).await;
    assert_eq!(pool.base_sha, job.base_sha);
    let told = scene
        .world
        .expect_status(&pr, "tide", StatusState::Pending)
        .await;
    assert_eq!(told, "Not mergeable. Retesting: unit");
    scene.run_job(&job.id, JobState::Success).await;
    scene.world.expect_merged(&pr).await;
    assert_eq!(scene.store.view().counts().jobs, 1);
}

/// A failed retest is not started again by itself.
#[tokio::test]
async fn a_failed_retest_takes_it_out_of_the_pool() {
    let scene = tide(CONFIG, JOBS).await;
    let pr = ready(&scene, "feature").await;
    set_status(&scene, &pr, "unit", StatusState::Success).await;
    let job = until_job(&scene, "the retest", |_| true).await;
    set_status(&scene, &pr, "unit", StatusState::Pending).await;
    scene.run_job(&job.id, JobState::Failure).await;
    let told = scene
        .world
        .until_pr(&pr, "the failure in the status", |forge, repo, _, pull| {
            let statuses = forge.current_statuses(&repo.name, &pull.head_sha);
            let texts = statuses.into_iter().filter_map(|s| s.description.clone());
            texts
                .into_iter()
                .find(|text| text.contains("not succeeded"))
        })
        .await
        .unwrap();
    assert_eq!(told, "Not mergeable. Job unit has not succeeded.");
    assert_eq!(scene.store.view().counts().jobs, 1);
    assert!(!scene.world.is_merged(&pr));
}

/// TIDE-073 … TIDE-077, TIDE-080, TIDE-090: a batch is formed of what goes together, tested as one and merged one
/// after the other.
#[tokio::test]
async fn a_green_batch_merges_one_after_the_other() {
    let mut scene = Scene::new(CONFIG, JOBS).await;
    let mut prs = Vec::new();
    for branch in ["a", "b", "c"] {
        let pr = pr(&scene, branch).await;
        set_status(&scene, &pr, "unit", StatusState::Success).await;
        prs.push(pr);
    }
    // Conflicts with the first.
    let clash = scene.world.pr("clash").file("a", "other");
    let clash = clash.opened_by("author").await;
    set_status(&scene, &clash, "unit", StatusState::Success).await;
    for pr in prs.iter().chain([&clash]) {
        scene.world.label(BOT, pr, "lgtm").await;
    }
    serve(&mut scene).await;
    let batch = until_job(&scene, "the batch", |job| job.r#type() == JobType::Batch).await;
    let members: Vec<u64> = prs.iter().map(|pr| pr.number).collect();
    assert_eq!(numbers(&batch), members);
    scene.run_job(&batch.id, JobState::Success).await;
    for pr in &prs {
        scene.world.expect_merged(pr).await;
        assert_eq!(scene.world.sandbox().merges_of(&scene.world.head(pr)), 1);
    }
    scene
        .until("the intents of the batch", |state| {
            let of_batch = |pr: &Pr| {
                let intents = intents(state, pr);
                matches!(&intents[..], [i] if i.state() == IntentState::Merged && i.batch == members)
            };
            prs.iter().all(of_batch).then_some(())
        })
        .await;
    assert!(!scene.world.is_merged(&clash));
}

/// TIDE-095: somebody pushes while a batch merges.
#[tokio::test]
async fn a_push_in_between_sends_the_rest_of_a_batch_back() {
    let mut scene = Scene::new(CONFIG, JOBS).await;
    let mut prs = Vec::new();
    for branch in ["a", "b"] {
        let pr = ready(&scene, branch).await;
        set_status(&scene, &pr, "unit", StatusState::Success).await;
        prs.push(pr);
    }
    serve(&mut scene).await;
    let batch = until_job(&scene, "the batch", |job| job.r#type() == JobType::Batch).await;
    let faults = scene.world.sandbox().faults().clone();
    let held = faults.hold_merge_answers("merge", Some(1)).unwrap();
    scene.run_job(&batch.id, JobState::Success).await;
    held.arrived(1).await;
    scene
        .world
        .push(BOT, "main", vec![FileChange::write("z", "1")])
        .await;
    held.release();
    scene.world.expect_merged(&prs[0]).await;
    let retest = until_job(&scene, "the retest of the second", |job| {
        job.r#type() == JobType::Presubmit && numbers(job) == [prs[1].number]
    });
    let retest = retest.await;
    assert_ne!(retest.base_sha, batch.base_sha);
    assert!(!scene.world.is_merged(&prs[1]));
}

/// TIDE-153: the answer was lost, the merge was not.
#[tokio::test]
async fn a_merge_whose_answer_was_lost_is_observed() {
    let scene = Scene::new(CONFIG, NO_JOBS).await;
    let faults = scene.world.sandbox().faults().clone();
    let lost = CallEffect::AnswerLost;
    faults.on_call(CallMatch::merges(), lost, Some(1)).unwrap();
    let mut scene = scene;
    serve(&mut scene).await;
    let pr = ready(&scene, "feature").await;
    let sha = scene.world.expect_merged(&pr).await;
    let intents = scene
        .until("the outcome", |state| {
            let intents = intents(state, &pr);
            let settled = intents.iter().all(|i| i.state() != IntentState::Open);
            (!intents.is_empty() && settled).then_some(intents)
        })
        .await;
    assert_eq!(intents.len(), 1);
    assert_eq!(
        (intents[0].state(), &intents[0].merge_sha),
        (IntentState::Merged, &sha)
    );
    assert_eq!(scene.world.sandbox().merges_of(&scene.world.head(&pr)), 1);
}

/// TIDE-150, TIDE-153: whoever takes office next finds the merge and does not ask for it again.
#[tokio::test]
async fn an_inherited_merge_is_observed_and_not_sent_again() {
    let mut scene = Scene::new(CONFIG, NO_JOBS).await;
    let faults = scene.world.sandbox().faults().clone();
    let held = faults.hold_merge_answers("merge", Some(1)).unwrap();
    serve(&mut scene).await;
    let pr = ready(&scene, "feature").await;
    held.arrived(1).await;
    scene.restart().await;
    assert_eq!(
        intents(&scene.store.view(), &pr)[0].state(),
        IntentState::Open
    );
    serve(&mut scene).await;
    let intent = scene
        .until("the intent to be observed", |state| {
            let mut intents = intents(state, &pr);
            intents.pop().filter(|i| i.state() == IntentState::Observed)
        })
        .await;
    assert_ne!(intent.opened_epoch, intent.settled_epoch);
    assert!(scene.world.is_merged(&pr));
    assert_eq!(intents(&scene.store.view(), &pr).len(), 1);
}

/// TIDE-153: an intent whose call never reached the forge is withdrawn once it cannot be under way any more.
#[tokio::test]
async fn an_inherited_merge_that_never_arrived_is_decided_anew() {
    let mut scene = Scene::new(CONFIG, NO_JOBS).await;
    let faults = scene.world.sandbox().faults().clone();
    let late = CallEffect::Latency { millis: 60_000 };
    let fault = faults.on_call(CallMatch::merges(), late, None).unwrap();
    serve(&mut scene).await;
    let pr = ready(&scene, "feature").await;
    scene
        .until("the intent", |state| intents(state, &pr).pop())
        .await;
    scene.restart().await;
    faults.clear(fault);
    serve(&mut scene).await;
    scene.world.expect_merged(&pr).await;
    let states = scene
        .until("both intents to be settled", |state| {
            let states: Vec<IntentState> =
                intents(state, &pr).iter().map(MergeIntent::state).collect();
            let open = states.contains(&IntentState::Open);
            (states.len() == 2 && !open).then_some(states)
        })
        .await;
    assert_eq!(states, [IntentState::Withdrawn, IntentState::Merged]);
    assert_eq!(scene.world.sandbox().merges_of(&scene.world.head(&pr)), 1);
}

/// The first complaint of Tide's users: one pull request that cannot merge starves the others.
#[tokio::test]
async fn a_refused_merge_is_not_repeated_and_the_next_one_is_taken() {
    let mut scene = Scene::new(CONFIG, NO_JOBS).await;
    let faults = scene.world.sandbox().faults().clone();
    let bad = ready(&scene, "bad").await;
    let on = CallMatch::path(&format!("/repos/*/pulls/{}/merge", bad.number));
    let refused = faults
        .on_call(on, CallEffect::Status { code: 405 }, None)
        .unwrap();
    let good = ready(&scene, "good").await;
    serve(&mut scene).await;
    scene.world.expect_merged(&good).await;
    let pool = until_pool(&scene, "the reason in the pool", |pool| {
        let first = pool.success.first();
        first.is_some_and(|pull| pull.reason.starts_with("Merge refused: "))
    })
    .await;
    assert_eq!(pool.success[0].number, bad.number);
    // Several sync periods later it has not been asked for again on the same base.
    let asked = |scene: &Scene| intents(&scene.store.view(), &bad).len();
    let before = asked(&scene);
    let searches = || scene.world.sandbox().calls("POST", "/graphql");
    let (seen, mut tick) = (searches(), tokio::time::interval(Duration::from_millis(50)));
    while searches() < seen + 6 {
        tick.tick().await;
    }
    assert_eq!(asked(&scene), before);
    // Once something changes it is.
    faults.clear(refused);
    scene.world.label(BOT, &bad, "kind/bug").await;
    scene.world.expect_merged(&bad).await;
}

/// TIDE-100, TIDE-101
#[tokio::test]
async fn a_blocker_issue_holds_up_its_branch() {
    let config = format!("{CONFIG}  blocker_label: tide/merge-blocker\n");
    let mut scene = Scene::new(&config, NO_JOBS).await;
    let repo = scene.world.repo().clone();
    let approver = scene.world.user(BOT);
    let labels = ["tide/merge-blocker".to_owned()];
    let issue = approver
        .open_issue(&repo, "The tree is closed branch:main", None, &labels)
        .unwrap();
    let pr = ready(&scene, "feature").await;
    serve(&mut scene).await;
    let pool = until_pool(&scene, "the block", |pool| {
        pool.action() == PoolAction::Blocked
    })
    .await;
    assert_eq!(pool.blockers, [format!("#{issue} The tree is closed ")]);
    assert!(!scene.world.is_merged(&pr));
}

/// TIDE-016: what webhooks never told is found by searching, and what they told wrongly by asking.
#[tokio::test]
async fn the_mirror_repairs_itself() {
    let scene = tide(CONFIG, JOBS).await;
    let pr = ready(&scene, "feature").await;
    scene
        .until("the pull request in the mirror", |state| {
            let pull = state.pull_request(ORG, REPO, pr.number)?;
            (pull.open && pull.labels == ["lgtm"]).then_some(())
        })
        .await;
    set_status(&scene, &pr, "unit", StatusState::Failure).await;
    scene
        .until("its status in the mirror", |state| {
            let pull = state.pull_request(ORG, REPO, pr.number)?;
            pull.contexts.get("unit").map(drop)
        })
        .await;
    assert!(scene.store.view().live_jobs().all(|job| !is_complete(job)));
}
