//! Stories of the status-reconciler, over the sandbox forge with real git and a cluster of one node.

#![allow(clippy::unwrap_used, reason = "tests fail by unwrap")]

#[path = "../../report/tests/scene/mod.rs"]
mod scene;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use scene::Scene;
use trireme_admin::status_reconciler::{Metrics, Options, StatusReconciler};
use trireme_in_repo::{CacheLimits, InRepo, InRepoMetrics};
use trireme_office::{ConfigVersions, RunningConfig, VersionError};
use trireme_proto::state::{
    Alarm, CreateJobs, Cursor, Job, JobState, JobType, NewJob, Pull, PutCursor, SettleReport,
    command::Body,
};
use trireme_prowjob::{labels, record::prow_job};
use trireme_sandbox::{
    FileChange,
    faults::{CallEffect, CallMatch},
    forge::{NewStatus, StatusState},
    world::{BOT, OUTSIDER, Pr},
};
use trireme_state::{GITHUB_REPORTER, State};

const CONFIG: &str = "{}\n";
const CURSOR: &str = "config/status-reconciler";
const RETIRED: &str = "Context retired without replacement.";

const UNIT: &str = "name: unit, always_run: true";
const LINT: &str = "name: lint, always_run: true";

/// A job file for the repository.
fn jobs(jobs: &[&str]) -> String {
    let mut text = "presubmits:\n  acme/widget:\n".to_owned();
    for job in jobs {
        text += &format!("  - {{spec: {{containers: [{{image: alpine}}]}}, {job}}}\n");
    }
    text
}

/// What has been in force, as the archive keeps it.
#[derive(Default)]
struct History(Mutex<BTreeMap<u64, Arc<RunningConfig>>>);

#[async_trait]
impl ConfigVersions for History {
    async fn version(&self, number: u64) -> Result<Arc<RunningConfig>, VersionError> {
        let found = self.0.lock().unwrap().get(&number).cloned();
        found.ok_or_else(|| VersionError::Lost("the archive was lost".to_owned()))
    }
}

struct Story {
    scene: Scene,
    config: &'static str,
    history: Arc<History>,
    options: Options,
}

/// Does what it says.
fn in_earnest() -> Options {
    Options {
        dry_run: false,
        ..Options::default()
    }
}

impl Story {
    /// With a first version of these jobs, and nobody at work.
    async fn new(first: &[&str], options: Options) -> Self {
        let story = Self {
            scene: Scene::new(CONFIG, &jobs(first)).await,
            config: CONFIG,
            history: Arc::default(),
            options,
        };
        story.remember();
        story
    }

    fn remember(&self) -> u64 {
        let running = self.scene.feed.borrow().clone().unwrap();
        let version = running.version;
        self.history.0.lock().unwrap().insert(version, running);
        version
    }

    async fn configure(&self, list: &[&str]) -> u64 {
        self.scene.configure(self.config, &jobs(list)).await;
        self.remember()
    }

    /// Somebody takes office.
    async fn begin(&mut self) {
        let mirrors = self.scene.mirrors().await;
        let in_repo = InRepo::new(mirrors, CacheLimits::default(), InRepoMetrics::default());
        let reconciler = StatusReconciler::new(
            Arc::clone(&self.scene.forge),
            in_repo,
            self.scene.feed.clone(),
            Arc::clone(&self.history) as Arc<dyn ConfigVersions>,
            self.options.clone(),
            Metrics::default(),
        );
        let reconciler = reconciler.looking_again_after(Duration::from_millis(20));
        self.scene.begin_term(vec![Arc::new(reconciler)]).await;
    }

    /// The first version, seen: what comes later is a change.
    async fn begun(first: &[&str], options: Options) -> Self {
        let mut story = Self::new(first, options).await;
        story.begin().await;
        story.in_line(1).await;
        story
    }

    /// Waits until everything is in line with a version.
    async fn in_line(&self, version: u64) {
        let what = format!("version {version} to be worked off");
        let version = version.to_string();
        self.scene
            .until(&what, |state| {
                let seen = state.cursor(CURSOR)?.value == version;
                (seen && rows(state).is_empty()).then_some(())
            })
            .await;
    }

    async fn change_to(&self, list: &[&str]) {
        let version = self.configure(list).await;
        self.in_line(version).await;
    }

    async fn pr(&self, branch: &str) -> Pr {
        self.scene.world.pr(branch).opened_by("author").await
    }

    async fn set_status(&self, pr: &Pr, context: &str, state: StatusState) {
        let status = NewStatus {
            context: context.to_owned(),
            state,
            description: Some("as told".to_owned()),
            target_url: Some("http://ci.example.com/1".to_owned()),
        };
        let head = self.scene.world.head(pr);
        let bot = self.scene.world.user(BOT);
        bot.set_status(&pr.repo, &head, status).await.unwrap();
    }

    /// As `trigger` does, which is not part of these stories.
    async fn create_run(&self, pr: &Pr, id: &str, job: &str, reporters: &[&str], version: u64) {
        let run = Job {
            id: id.to_owned(),
            job: job.to_owned(),
            context: job.to_owned(),
            r#type: JobType::Presubmit.into(),
            org: pr.repo.owner.clone(),
            repo: pr.repo.name.clone(),
            pulls: vec![Pull {
                number: pr.number,
                head_sha: self.scene.world.head(pr),
                ..Pull::default()
            }],
            reporters: reporters.iter().map(|it| (*it).to_owned()).collect(),
            config_version: version,
            prowjob: Bytes::from_static(b"{}"),
            ..Job::default()
        };
        let new = NewJob {
            job: Some(Box::new(run)),
            ..NewJob::default()
        };
        let create = CreateJobs {
            jobs: vec![new],
            ..CreateJobs::default()
        };
        self.scene.propose(Body::CreateJobs(create)).await;
    }

    /// All runs of a pull request, with the name of the job.
    fn runs(&self, pr: &Pr) -> Vec<Job> {
        let view = self.scene.store.view();
        let runs = view.jobs_of_pull(&pr.repo.owner, &pr.repo.name, pr.number);
        runs.map(|run| (**run).clone()).collect()
    }

    fn names(&self, pr: &Pr) -> Vec<String> {
        self.runs(pr).into_iter().map(|run| run.job).collect()
    }

    /// Contexts of a head: state, description and link.
    fn contexts(&self, pr: &Pr) -> Vec<String> {
        let head = self.scene.world.head(pr);
        self.scene.world.sandbox().read(|forge| {
            let statuses = forge.current_statuses(&pr.repo, &head).into_iter();
            let mut told: Vec<String> = statuses
                .map(|status| {
                    let description = status.description.as_deref().unwrap_or_default();
                    let url = status.target_url.as_deref().unwrap_or("no link");
                    format!(
                        "{}: {:?}, {description} ({url})",
                        status.context, status.state
                    )
                })
                .collect();
            told.sort();
            told
        })
    }

    async fn until_alarm(&self, key: &str) -> Alarm {
        self.scene
            .until(key, |state| state.alarm(key).map(|alarm| (**alarm).clone()))
            .await
    }
}

fn rows(state: &State) -> Vec<String> {
    let rows = state.cursors_with_prefix("status-reconciler/");
    rows.map(|row| format!("{} {}", row.key, row.value))
        .collect()
}

/// ADM-090, ADM-091, ADM-093: whoever is trusted and can merge gets the newly required job, once, as if nobody had asked.
#[tokio::test]
async fn adm_093_a_newly_required_job_is_started_where_it_applies() {
    let story = Story::begun(&[UNIT], in_earnest()).await;
    let world = &story.scene.world;
    let pr = story.pr("fix").await;
    let docs = world
        .pr("docs")
        .file("docs/a.md", "a\n")
        .opened_by("author")
        .await;
    let draft = world.pr("draft").draft().opened_by("author").await;
    let conflicting = world
        .pr("old")
        .file("README.md", "mine\n")
        .opened_by("author")
        .await;
    let stranger = world.pr("theirs").opened_by(OUTSIDER).await;
    let vouched = world.pr("vouched").opened_by(OUTSIDER).await;
    world.label(BOT, &vouched, "ok-to-test").await;
    let readme = FileChange::write("README.md", "ours\n");
    world.push(BOT, "main", vec![readme]).await;
    world
        .push(BOT, "release", vec![FileChange::write("r", "r")])
        .await;
    let other = world
        .pr("backport")
        .base("release")
        .opened_by("author")
        .await;

    story
        .change_to(&[
            UNIT,
            "name: lint, always_run: true, skip_branches: [release]",
            "name: docs, run_if_changed: ^docs/",
            "name: by-hand, always_run: false",
            "name: hint, always_run: true, optional: true",
        ])
        .await;
    assert_eq!(story.names(&pr), ["lint"]);
    assert_eq!(story.names(&docs), ["lint", "docs"]);
    assert_eq!(story.names(&vouched), ["lint"]);
    for left in [&draft, &conflicting, &stranger, &other] {
        assert_eq!(story.names(left), Vec::<String>::new(), "#{}", left.number);
    }
    let run = &story.runs(&pr)[0];
    assert_eq!(run.pulls[0].head_sha, world.head(&pr));
    assert_eq!(run.reporters, [GITHUB_REPORTER]);
    assert_eq!(run.config_version, 2);
    let made = prow_job(run).unwrap();
    assert_eq!(made.metadata.labels[labels::EVENT_GUID], "none");
}

/// ADM-092, ADM-094, ADM-095
#[tokio::test]
async fn adm_094_adm_095_contexts_are_retired_and_moved_where_they_are() {
    let release = "name: nightly, always_run: true, branches: [release]";
    let story = Story::begun(&[UNIT, LINT, release], in_earnest()).await;
    let world = &story.scene.world;
    world
        .push(BOT, "release", vec![FileChange::write("r", "r")])
        .await;
    let pr = world.pr("fix").draft().opened_by("author").await;
    let bare = story.pr("bare").await;
    let both = story.pr("both").await;
    let backport = world
        .pr("backport")
        .base("release")
        .opened_by("author")
        .await;
    for (context, state) in [
        ("unit", StatusState::Failure),
        ("lint", StatusState::Failure),
        ("nightly", StatusState::Failure),
        ("other-ci", StatusState::Pending),
    ] {
        story.set_status(&pr, context, state).await;
    }
    story.set_status(&both, "lint", StatusState::Failure).await;
    story
        .set_status(&both, "ci/lint", StatusState::Success)
        .await;
    story
        .set_status(&backport, "nightly", StatusState::Error)
        .await;

    let renamed = "name: lint, always_run: true, context: ci/lint";
    story.change_to(&[renamed]).await;
    insta::assert_snapshot!(story.contexts(&pr).join("\n"), @r#"
    ci/lint: Failure, as told (http://ci.example.com/1)
    lint: Success, Context retired. Status moved to "ci/lint". (no link)
    nightly: Failure, as told (http://ci.example.com/1)
    other-ci: Pending, as told (http://ci.example.com/1)
    unit: Success, Context retired without replacement. (no link)
    "#);
    assert_eq!(story.contexts(&bare), Vec::<String>::new());
    insta::assert_snapshot!(story.contexts(&both).join("\n"), @"
    ci/lint: Success, as told (http://ci.example.com/1)
    lint: Failure, as told (http://ci.example.com/1)
    ");
    insta::assert_snapshot!(story.contexts(&backport).join("\n"), @"nightly: Success, Context retired without replacement. (no link)");
}

/// A job may move into the repository itself: what it reports there is not called green.
#[tokio::test]
async fn a_context_that_the_repository_reports_itself_is_left_to_it() {
    let mut story = Story::begun(&[UNIT, LINT], in_earnest()).await;
    story.config = "in_repo_config: {enabled: {acme/widget: true}}\n";
    let own = "presubmits: [{name: own, context: unit, always_run: true, spec: {containers: [{image: alpine}]}}]\n";
    let own = vec![FileChange::write(".prow.yaml", own)];
    story.scene.world.push(BOT, "main", own).await;
    let pr = story.pr("fix").await;
    for context in ["unit", "lint"] {
        story.set_status(&pr, context, StatusState::Failure).await;
    }
    story.change_to(&["name: rest, always_run: true"]).await;
    insta::assert_snapshot!(story.contexts(&pr).join("\n"), @"
    lint: Success, Context retired without replacement. (no link)
    unit: Failure, as told (http://ci.example.com/1)
    ");
}

/// ADM-096
#[tokio::test]
async fn adm_096_a_denylist_keeps_from_starting_and_the_other_from_everything() {
    for (options, retired) in [
        (
            Options {
                denylist: vec!["acme/widget".to_owned()],
                ..in_earnest()
            },
            true,
        ),
        (
            Options {
                denylist_all: vec!["acme".to_owned()],
                ..in_earnest()
            },
            false,
        ),
    ] {
        let story = Story::begun(&[UNIT], options).await;
        let pr = story.pr("fix").await;
        story.set_status(&pr, "unit", StatusState::Failure).await;
        story.change_to(&[LINT]).await;
        assert_eq!(story.names(&pr), Vec::<String>::new());
        let said = story.contexts(&pr).join("\n");
        assert_eq!(said.contains(RETIRED), retired, "{said}");
    }
}

/// ADM-001, ADM-002: nothing is changed, and what was looked at is not looked at again.
#[tokio::test]
async fn adm_002_a_dry_run_changes_nothing_and_goes_on() {
    let mut story = Story::begun(&[UNIT], Options::default()).await;
    let pr = story.pr("fix").await;
    story.set_status(&pr, "unit", StatusState::Failure).await;
    let before = story.contexts(&pr);
    story.change_to(&[LINT]).await;
    assert_eq!(story.names(&pr), Vec::<String>::new());
    assert_eq!(story.contexts(&pr), before);

    story.scene.end_term().await;
    story.options = in_earnest();
    story.begin().await;
    story
        .change_to(&[LINT, "name: docs, always_run: true"])
        .await;
    assert_eq!(story.names(&pr), ["docs"]);
    assert_eq!(story.contexts(&pr), before);
}

/// CFG-094, ADM-098: what changed while nobody was in office is found, in one step.
#[tokio::test]
async fn adm_098_changes_while_nobody_looked_are_worked_off() {
    let mut story = Story::begun(&[UNIT], in_earnest()).await;
    let pr = story.pr("fix").await;
    story.set_status(&pr, "unit", StatusState::Failure).await;
    story.scene.end_term().await;
    story
        .configure(&[UNIT, "name: brief, always_run: true"])
        .await;
    story.configure(&[LINT]).await;
    let newest = story.configure(&[LINT]).await;
    story.scene.restart().await;
    story.begin().await;
    story.in_line(newest).await;
    assert_eq!(story.names(&pr), ["lint"], "one step from 1 to 4");
    assert_eq!(story.scene.world.statuses(&pr)["unit"].1, RETIRED);
}

/// CFG-093, ADM-098: the very first version is where it begins.
#[tokio::test]
async fn cfg_093_the_first_version_changes_nothing() {
    let mut story = Story::new(&[UNIT], in_earnest()).await;
    let pr = story.pr("fix").await;
    story.begin().await;
    story.in_line(1).await;
    assert_eq!(story.names(&pr), Vec::<String>::new());
}

/// ADM-099: a leader that ends in the middle leaves what is not done to the next, which does not do twice what is.
#[tokio::test]
async fn adm_099_what_one_leader_began_the_next_ends_once() {
    let mut story = Story::begun(&[UNIT], in_earnest()).await;
    let (first, second) = (story.pr("first").await, story.pr("second").await);
    for pr in [&first, &second] {
        story.set_status(pr, "unit", StatusState::Failure).await;
    }
    // The first pull request's status is set, but its answer never comes; the jobs are there by then.
    let faults = story.scene.world.sandbox().faults();
    let set = CallMatch {
        method: Some("POST".into()),
        ..CallMatch::path("/repos/acme/widget/statuses/*")
    };
    let held = CallEffect::AnswerHeld {
        barrier: "status".into(),
    };
    faults.on_call(set, held, Some(1)).unwrap();
    let version = story.configure(&[LINT]).await;
    let barrier = faults.barrier("status");
    let arrived = tokio::time::timeout(Duration::from_secs(20), barrier.arrived(1));
    arrived.await.expect("the status is set");
    assert_eq!(story.scene.world.statuses(&first)["unit"].1, RETIRED);
    assert_eq!(story.scene.world.statuses(&second)["unit"].1, "as told");
    story.scene.restart().await;
    barrier.release();
    assert_eq!(
        rows(&story.scene.store.view()),
        ["status-reconciler/acme/widget 1"]
    );

    story.begin().await;
    story.in_line(version).await;
    let sandbox = story.scene.world.sandbox();
    for pr in [&first, &second] {
        assert_eq!(story.names(pr), ["lint"], "#{}", pr.number);
        let head = story.scene.world.head(pr);
        let written = sandbox.read(|forge| {
            let all = forge.repo(&pr.repo).unwrap().statuses.get(&head).unwrap();
            let ours = all
                .iter()
                .filter(|s| s.description.as_deref() == Some(RETIRED));
            ours.count()
        });
        assert_eq!(written, 1, "#{}", pr.number);
    }
}

/// CFG-094: what cannot be compared is told, and is not made up.
#[tokio::test]
async fn cfg_094_a_version_that_is_lost_is_an_alarm() {
    let mut story = Story::begun(&[UNIT], in_earnest()).await;
    let pr = story.pr("fix").await;
    story.scene.end_term().await;
    story.history.0.lock().unwrap().clear();
    story.configure(&[LINT]).await;
    story.begin().await;
    story.in_line(2).await;
    let alarm = story.until_alarm(CURSOR).await;
    insta::assert_snapshot!(alarm.message, @"status-reconciler: configuration 1, which it handled last, cannot be read any more (the archive was lost); what changed up to configuration 2 is not looked at: look at `trireme config diff` and do by hand what is needed");
    assert_eq!(story.names(&pr), Vec::<String>::new());
    // The next step is whole again.
    story.change_to(&[LINT, UNIT]).await;
    assert_eq!(story.names(&pr), ["unit"]);
    assert!(story.scene.store.view().alarm(CURSOR).is_none());
}

/// A run whose job is gone writes its context once more: after that it is retired for good, or moved with its result.
#[tokio::test]
async fn a_run_under_way_has_its_say_before_its_context_goes() {
    let story = Story::begun(&[UNIT], in_earnest()).await;
    let pr = story.pr("fix").await;
    story
        .change_to(&[UNIT, LINT, "name: docs, always_run: true"])
        .await;
    assert_eq!(story.names(&pr), ["lint", "docs"]);
    for context in ["lint", "docs"] {
        story.set_status(&pr, context, StatusState::Pending).await;
    }
    let version = story
        .configure(&[UNIT, "name: docs, always_run: true, context: ci/docs"])
        .await;
    story
        .scene
        .world
        .until_pr(&pr, "lint to be retired", |forge, repo, _, pull| {
            let statuses = forge.current_statuses(&repo.name, &pull.head_sha);
            let mut lint = statuses
                .into_iter()
                .filter(|status| status.context == "lint");
            lint.find(|status| status.state == StatusState::Success)
                .map(|_| ())
        })
        .await
        .unwrap();
    assert_eq!(
        rows(&story.scene.store.view()),
        ["status-reconciler/acme/widget 2"]
    );
    // They end, and the reporter tells it, which is not part of this story.
    for run in story.runs(&pr) {
        story.scene.run_job(&run.id, JobState::Failure).await;
        story
            .set_status(&pr, &run.context, StatusState::Failure)
            .await;
        let settled = SettleReport {
            job_id: run.id,
            reporter: GITHUB_REPORTER.to_owned(),
            state: JobState::Failure.into(),
            ..SettleReport::default()
        };
        story.scene.propose(Body::SettleReport(settled)).await;
    }
    story.in_line(version).await;
    insta::assert_snapshot!(story.contexts(&pr).join("\n"), @r#"
    ci/docs: Failure, as told (http://ci.example.com/1)
    docs: Success, Context retired. Status moved to "ci/docs". (no link)
    lint: Success, Context retired without replacement. (no link)
    "#);
}

/// ADM-091: a job that ran and told nobody is run again for those who wait for its context.
#[tokio::test]
async fn adm_091_a_job_that_reports_now_is_run_though_it_ran_in_silence() {
    let story = Story::begun(&[UNIT], in_earnest()).await;
    let pr = story.pr("fix").await;
    story.change_to(&[UNIT, LINT]).await;
    let spoken = story.runs(&pr).remove(0);
    story.scene.run_job(&spoken.id, JobState::Success).await;
    let silent = "name: lint, always_run: true, skip_report: true";
    story.change_to(&[UNIT, silent]).await;
    story.change_to(&[UNIT, LINT]).await;
    assert_eq!(story.names(&pr), ["lint"], "what it said counts");

    let quiet = "name: quiet, always_run: true, skip_report: true";
    story.change_to(&[UNIT, LINT, quiet]).await;
    story.create_run(&pr, "silent-run", "quiet", &[], 3).await;
    story.scene.run_job("silent-run", JobState::Success).await;
    story
        .change_to(&[UNIT, LINT, "name: quiet, always_run: true"])
        .await;
    assert_eq!(story.names(&pr), ["lint", "quiet", "quiet"]);
}

/// A pull request that moved when the newest version was in force has had its run, whatever came of it.
#[tokio::test]
async fn what_an_event_started_meanwhile_is_not_started_again() {
    let mut story = Story::begun(&[UNIT], in_earnest()).await;
    let (told, other) = (story.pr("told").await, story.pr("other").await);
    story.scene.end_term().await;
    let version = story.configure(&[UNIT, LINT]).await;
    for (pr, made_with) in [(&told, version), (&other, 1)] {
        let id = format!("run-on-{}", pr.number);
        story
            .create_run(pr, &id, "lint", &[GITHUB_REPORTER], made_with)
            .await;
        story.scene.run_job(&id, JobState::Failure).await;
    }
    story.begin().await;
    story.in_line(version).await;
    assert_eq!(story.names(&told), ["lint"]);
    assert_eq!(story.names(&other), ["lint", "lint"]);
}

/// ADM-097: what is refused for good keeps no other pull request back if so asked, is tried again, and then is an alarm.
#[tokio::test]
async fn adm_097_refusals_are_tried_again_and_then_told() {
    for continue_on_error in [false, true] {
        let options = Options {
            continue_on_error,
            ..in_earnest()
        };
        let story = Story::begun(&[UNIT], options).await;
        let (first, second) = (story.pr("first").await, story.pr("second").await);
        for pr in [&first, &second] {
            story.set_status(pr, "unit", StatusState::Failure).await;
        }
        let faults = story.scene.world.sandbox().faults();
        let head = story.scene.world.head(&first);
        let forbidden = CallMatch::path(&format!("/repos/acme/widget/statuses/{head}"));
        faults
            .on_call(forbidden, CallEffect::Status { code: 422 }, None)
            .unwrap();
        story.configure(&[LINT]).await;
        let key = "status-reconciler/acme/widget";
        let alarm = story.until_alarm(key).await;
        assert!(
            alarm.message.starts_with(
                "pull requests of acme/widget are not in line with the configuration: POST /repos/acme/widget/statuses/"
            ) && alarm.message.contains("Tried 5 times, and again in 60 minutes"),
            "{}",
            alarm.message
        );
        let second_is = &story.scene.world.statuses(&second)["unit"].1;
        assert_eq!(second_is == RETIRED, continue_on_error, "{second_is}");
        assert_eq!(story.names(&first), ["lint"], "once, and before");

        // The next version that concerns the repository tries at once.
        faults.clear_all();
        story
            .change_to(&[LINT, "name: docs, always_run: true"])
            .await;
        for pr in [&first, &second] {
            assert_eq!(story.scene.world.statuses(pr)["unit"].1, RETIRED);
            assert_eq!(story.names(pr), ["lint", "docs"]);
        }
        let lowered = story.scene.until("the alarm to go", |state| {
            state.alarm(key).is_none().then_some(())
        });
        lowered.await;
    }
}

/// A cursor that is no version is an error that somebody sees, and nothing is done.
#[tokio::test]
async fn a_damaged_cursor_is_not_guessed_at() {
    let mut story = Story::new(&[UNIT], in_earnest()).await;
    let pr = story.pr("fix").await;
    let cursors = vec![Cursor {
        key: "status-reconciler/acme/widget".to_owned(),
        at_ms: 1,
        value: "x".to_owned(),
        ..Cursor::default()
    }];
    story
        .scene
        .propose(Body::PutCursor(PutCursor { cursors }))
        .await;
    story.begin().await;
    let alarm = story.until_alarm("status-reconciler/acme/widget").await;
    assert!(
        alarm.message.contains("stood at configuration x"),
        "{}",
        alarm.message
    );
    assert_eq!(story.names(&pr), Vec::<String>::new());
}
