//! What a pull request's author sees of its runs, told over the sandbox forge and a real store.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

mod scene;

use std::sync::Arc;

use scene::Scene;
use trireme_proto::state::{CreateJobs, JobState, NewJob, Report, command::Body};
use trireme_prowjob::{
    ProwJobSpec, ProwJobType, Pull, Refs, labels, new_prow_job,
    record::{Source, new_record},
};
use trireme_report::{GitHubReporter, Outbox, description};
use trireme_sandbox::{
    faults::{CallEffect, CallMatch},
    forge::StatusState,
    world::{ORG, Pr, REPO},
};
use trireme_state::GITHUB_REPORTER;

const CONFIG: &str = "plank: {report_template: 'See {{.Spec.Refs.Org}}/{{.Spec.Refs.Repo}}.'}\n";

async fn scene() -> (Scene, Pr) {
    let scene = Scene::new(CONFIG, "presubmits: {}\n").await;
    let pr = scene
        .world
        .pr("fix")
        .file("x", "1")
        .opened_by("author")
        .await;
    (scene, pr)
}

async fn report(scene: &mut Scene) {
    let reporter = GitHubReporter::new(Arc::clone(&scene.forge), scene.feed.clone());
    let outbox = Outbox::new(vec![Arc::new(reporter)]);
    scene.begin_term(vec![Arc::new(outbox)]).await;
}

fn base() -> String {
    "1".repeat(40)
}

async fn start(scene: &Scene, pr: &Pr, context: &str) -> String {
    let id = format!("{context}-{}", scene.store.view().counts().jobs);
    let spec = ProwJobSpec {
        r#type: ProwJobType::Presubmit,
        job: format!("job-{context}"),
        report: true,
        context: context.to_owned(),
        rerun_command: format!("/test {context}"),
        refs: Some(Refs {
            org: ORG.into(),
            repo: REPO.into(),
            base_ref: "main".into(),
            base_sha: base(),
            pulls: vec![Pull {
                number: pr.number.try_into().unwrap(),
                author: "author".into(),
                sha: scene.world.head(pr),
                ..Pull::default()
            }],
            ..Refs::default()
        }),
        ..ProwJobSpec::default()
    };
    let own = [(labels::IS_OPTIONAL.to_owned(), "false".to_owned())].into();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let job = new_prow_job(spec, &own, &[].into(), &id, now);
    let source = Source {
        reporters: vec![GITHUB_REPORTER.to_owned()],
        ..Source::default()
    };
    let new = NewJob {
        job: Some(Box::new(new_record(&job, source).unwrap())),
        ..NewJob::default()
    };
    scene
        .propose(Body::CreateJobs(CreateJobs {
            jobs: vec![new],
            cursors: vec![],
        }))
        .await;
    id
}

async fn until_report(scene: &Scene, id: &str, what: &str, is: impl Fn(&Report) -> bool) -> Report {
    scene
        .until(&format!("{what} of {id}"), |state| {
            let report = state.report(id, GITHUB_REPORTER)?;
            is(report).then(|| (**report).clone())
        })
        .await
}

async fn until_told(scene: &Scene, id: &str, state: JobState) -> Report {
    let told = |report: &Report| report.reported() == state;
    until_report(scene, id, &format!("{state:?} to be told"), told).await
}

/// CRI-001, CRI-010, CRI-011
#[tokio::test]
async fn every_state_becomes_a_status_with_the_base_it_is_for() {
    let (mut scene, pr) = scene().await;
    report(&mut scene).await;
    let id = start(&scene, &pr, "unit").await;
    until_told(&scene, &id, JobState::Triggered).await;
    scene.run_job(&id, JobState::Success).await;
    let text = scene
        .world
        .expect_status(&pr, "unit", StatusState::Success)
        .await;
    assert_eq!(description::base_sha_of(&text), Some(base().as_str()));
    assert!(text.starts_with("Job done."), "{text}");
    until_told(&scene, &id, JobState::Success).await;
    let job = scene.store.view().job(&id).unwrap().clone();
    assert_eq!(job.prev_report_states[GITHUB_REPORTER], "success");
    assert!(scene.world.comments(&pr).is_empty());
}

/// CRI-013, CRI-014, CRI-015, CRI-022
#[tokio::test]
async fn failures_stand_in_one_comment_that_follows_the_results() {
    let (mut scene, pr) = scene().await;
    report(&mut scene).await;
    let unit = start(&scene, &pr, "unit").await;
    let e2e = start(&scene, &pr, "e2e").await;
    scene.run_job(&unit, JobState::Failure).await;
    let told = until_told(&scene, &unit, JobState::Failure).await;
    assert_ne!(told.comment_id, 0);
    scene.run_job(&e2e, JobState::Failure).await;
    until_told(&scene, &e2e, JobState::Failure).await;
    let [comment] = scene.world.comments(&pr).try_into().unwrap();
    let body = comment.body.replace(&scene.world.head(&pr), "<head>");
    insta::assert_snapshot!(body, @"
    @author: The following tests **failed**, say `/retest` to rerun all failed tests or `/retest-required` to rerun all mandatory failed tests:

    Test name | Commit | Details | Required | Rerun command
    --- | --- | --- | --- | ---
    unit | <head> | [link](https://prow.example.com/view/unit-0) | true | `/test unit`
    e2e | <head> | [link](https://prow.example.com/view/e2e-1) | true | `/test e2e`

    See acme/widget.

    <details>

    Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository. I understand the commands that are listed [here](https://go.k8s.io/bot-commands).
    </details>
    <!-- test report -->
    ");
    for context in ["unit", "e2e"] {
        let again = start(&scene, &pr, context).await;
        scene.run_job(&again, JobState::Success).await;
        until_told(&scene, &again, JobState::Success).await;
        let comments = scene.world.comments(&pr);
        let still_red = comments
            .iter()
            .filter(|comment| comment.body.contains("| `/test e2e`"));
        assert_eq!(still_red.count(), usize::from(context == "unit"));
    }
    assert!(scene.world.comments(&pr).is_empty());
}

/// CRI-005: an outage costs no tries, and what was owed meanwhile is told as it stands then.
#[tokio::test]
async fn an_outage_delays_and_loses_nothing() {
    let (mut scene, pr) = scene().await;
    let faults = scene.world.sandbox().faults().clone();
    let on = CallMatch::path("/repos/*/statuses/*");
    faults
        .on_call(on, CallEffect::Status { code: 502 }, Some(5))
        .unwrap();
    report(&mut scene).await;
    let id = start(&scene, &pr, "unit").await;
    scene.run_job(&id, JobState::Failure).await;
    let told = until_told(&scene, &id, JobState::Failure).await;
    assert_eq!((told.attempts, told.dead), (0, false));
    assert_eq!(scene.world.comments(&pr).len(), 1);
}

/// A refusal is counted, given up after five tries, and holds up nothing else.
#[tokio::test]
async fn what_is_refused_for_good_ends_as_a_dead_letter() {
    let (mut scene, pr) = scene().await;
    let faults = scene.world.sandbox().faults().clone();
    let head = scene.world.head(&pr);
    let on = CallMatch::path(&format!("/repos/*/statuses/{head}"));
    let refused = faults
        .on_call(on, CallEffect::Status { code: 422 }, None)
        .unwrap();
    report(&mut scene).await;
    let id = start(&scene, &pr, "unit").await;
    let dead = until_report(&scene, &id, "the end", |report| report.dead).await;
    assert_eq!(dead.attempts, trireme_report::MAX_TRIES);
    assert!(dead.error.contains("422"), "{}", dead.error);
    faults.clear(refused);
    let other = start(&scene, &pr, "e2e").await;
    until_told(&scene, &other, JobState::Triggered).await;
    // A new state is new work.
    scene.run_job(&id, JobState::Success).await;
    until_told(&scene, &id, JobState::Success).await;
}

/// CRI-012: a commit that is gone is nobody's fault.
#[tokio::test]
async fn a_status_without_a_commit_counts_as_told() {
    let (mut scene, pr) = scene().await;
    let faults = scene.world.sandbox().faults().clone();
    let on = CallMatch::path("/repos/*/statuses/*");
    faults
        .on_call(on, CallEffect::Status { code: 404 }, None)
        .unwrap();
    report(&mut scene).await;
    let id = start(&scene, &pr, "unit").await;
    scene.run_job(&id, JobState::Failure).await;
    until_told(&scene, &id, JobState::Failure).await;
    assert!(scene.world.comments(&pr).is_empty());
}

/// The answer to a comment was lost: the next look finds it and makes no second one.
#[tokio::test]
async fn a_comment_whose_answer_was_lost_is_not_made_twice() {
    let (mut scene, pr) = scene().await;
    let faults = scene.world.sandbox().faults().clone();
    let on = CallMatch {
        method: Some("POST".into()),
        ..CallMatch::path("/repos/*/issues/*/comments")
    };
    faults.on_call(on, CallEffect::AnswerLost, Some(1)).unwrap();
    let id = start(&scene, &pr, "unit").await;
    scene.run_job(&id, JobState::Failure).await;
    report(&mut scene).await;
    scene.world.expect_comment(&pr, "unit").await;
    // A new holder of the office looks first, too.
    scene.restart().await;
    report(&mut scene).await;
    until_told(&scene, &id, JobState::Failure).await;
    assert_eq!(scene.world.comments(&pr).len(), 1);
}
