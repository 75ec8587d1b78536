//! What people see when they open pull requests, talk and push: told over the sandbox forge, its webhooks and a real
//! store.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use stage::{Setup, Stage, describe};
use trireme_plugins::{Enablement, MIRROR};
use trireme_proto::state::{
    ContextState, Cursor, DeliveryState, JobType, PutCursor, Redrive, command::Body,
};
use trireme_sandbox::{
    Clock, FileChange,
    faults::{CallEffect, CallMatch, HookEffect, HookMatch},
    forge::{NewStatus, Permission, ReviewState, StatusState},
    world::{ORG, Pr, REPO, World},
};

const CONFIG: &str = r"
presubmits:
  acme/widget:
  - name: unit
    always_run: true
    spec: {containers: [{image: alpine}]}
  - name: docs
    run_if_changed: ^docs/
    spec: {containers: [{image: alpine}]}
  - name: lint
    optional: true
    spec: {containers: [{image: alpine}]}
postsubmits:
  acme/widget:
  - name: publish
    branches: [main]
    spec: {containers: [{image: alpine}]}
";

fn plugins(names: &'static str) -> Setup {
    Setup {
        config: CONFIG,
        plugins: names.to_owned(),
        ..Setup::default()
    }
}

const TRIGGER: &str = "plugins: {acme/widget: {plugins: [trigger]}}";
const LGTM: &str = "plugins: {acme: {plugins: [lgtm]}}";
const APPROVE: &str = "plugins: {acme/widget: {plugins: [approve]}}";
const HOLD: &str = "plugins: {acme/widget: {plugins: [hold, wip]}}";

async fn opened(stage: &Stage, login: &str) -> Pr {
    let pr = stage.world.pr("fix").opened_by(login).await;
    stage.settled().await;
    pr
}

fn status(context: &str, state: StatusState) -> NewStatus {
    NewStatus {
        state,
        context: context.to_owned(),
        description: None,
        target_url: None,
    }
}

async fn says(stage: &Stage, login: &str, pr: &Pr, body: &str) {
    stage.world.comment(login, pr, body).await;
    stage.settled().await;
}

#[tokio::test]
async fn plg_trigger_031_a_members_pull_request_is_tested_and_mirrored() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    let pr = opened(&stage, "author").await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
    let view = stage.store().view();
    let job = view.jobs_of_pull(ORG, REPO, pr.number).next().unwrap();
    assert_eq!(job.pulls[0].head_sha, stage.world.head(&pr));
    assert_eq!(job.reporters, ["github-reporter"]);
    assert_eq!((job.context.as_str(), job.retries_left), ("unit", 3));
    let mirrored = view.pull_request(ORG, REPO, pr.number).unwrap();
    assert_eq!((mirrored.author.as_str(), mirrored.open), ("author", true));
    assert_eq!(mirrored.head_sha, stage.world.head(&pr));
    let delivery = view
        .deliveries_newest_first(None)
        .find(|delivery| delivery.action == "opened");
    assert_eq!(delivery.unwrap().plugins, [MIRROR, "trigger"]);
}

#[tokio::test]
async fn plg_trigger_014_a_strangers_pull_request_waits_for_ok_to_test() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    let pr = opened(&stage, "outsider").await;
    assert_eq!(stage.jobs(&pr), Vec::<String>::new());
    assert_eq!(stage.world.labels(&pr), ["needs-ok-to-test"]);
    assert!(stage.said(&pr)[0].starts_with("Hi @outsider. Thanks for your PR."));

    says(&stage, "outsider", &pr, "/test all").await;
    assert_eq!(stage.jobs(&pr), Vec::<String>::new());
    assert!(
        stage.said(&pr)[1].starts_with("@outsider: Cannot trigger testing until a trusted user")
    );

    says(&stage, "reviewer", &pr, "/ok-to-test").await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
    assert_eq!(stage.world.labels(&pr), ["ok-to-test"]);
}

#[tokio::test]
async fn plg_trigger_035_a_push_replaces_runs_and_closing_ends_them() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    let pr = opened(&stage, "author").await;
    says(&stage, "author", &pr, "/test lint").await;
    assert_eq!(stage.jobs(&pr), ["unit triggered", "lint triggered"]);
    stage
        .world
        .push_fix(&pr, vec![FileChange::write("docs/a.md", "x")])
        .await;
    stage.settled().await;
    assert_eq!(
        stage.jobs(&pr),
        [
            "unit aborted, complete",
            "lint aborted, complete",
            "unit triggered",
            "docs triggered"
        ]
    );
    stage.world.close("author", &pr).await;
    stage.settled().await;
    assert!(
        stage
            .jobs(&pr)
            .iter()
            .all(|job| job.ends_with("aborted, complete"))
    );
    let view = stage.store().view();
    assert!(!view.pull_request(ORG, REPO, pr.number).unwrap().open);
}

#[tokio::test]
async fn plg_trigger_018_help_is_tidied_up_by_the_command_that_works() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    let pr = opened(&stage, "author").await;
    says(&stage, "author", &pr, "/test nothing").await;
    assert!(stage.said(&pr)[0].contains("The specified target(s) for `/test` were not found."));
    says(&stage, "author", &pr, "/test lint").await;
    assert_eq!(stage.said(&pr), Vec::<String>::new());
    assert_eq!(stage.jobs(&pr), ["unit triggered", "lint triggered"]);
}

#[tokio::test]
async fn plg_trigger_016_retest_runs_what_failed() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    let pr = opened(&stage, "author").await;
    let head = stage.world.head(&pr);
    let bot = stage.world.user(trireme_sandbox::world::BOT);
    for (context, state) in [
        ("lint", StatusState::Failure),
        ("unit", StatusState::Success),
    ] {
        let status = status(context, state);
        bot.set_status(stage.world.repo(), &head, status)
            .await
            .unwrap();
    }
    stage.settled().await;
    let view = stage.store().view();
    let mirrored = view.pull_request(ORG, REPO, pr.number).unwrap();
    assert_eq!(mirrored.contexts["lint"].state(), ContextState::Failure);
    assert!(mirrored.contexts["unit"].updated_ms > 0);

    says(&stage, "author", &pr, "/retest").await;
    assert_eq!(stage.jobs(&pr), ["unit triggered", "lint triggered"]);
    let view = stage.store().view();
    let job = view.jobs_of_pull(ORG, REPO, pr.number).next_back().unwrap();
    let prowjob: serde_json::Value = serde_json::from_slice(&job.prowjob).unwrap();
    let labels = &prowjob["metadata"]["labels"];
    assert_eq!(labels["prow.k8s.io/retest"], "true");
    assert_eq!(labels["prow.k8s.io/is-optional"], "true");
    assert_eq!(labels["event-GUID"], job.origin);
    assert!(view.delivery(&job.origin).is_some());
    let refs = &prowjob["spec"]["refs"];
    let page = format!("{}/{ORG}/{REPO}", stage.world.sandbox().url());
    assert_eq!(refs["repo_link"], page);
    assert_eq!(
        refs["pulls"][0]["link"],
        format!("{page}/pull/{}", pr.number)
    );
    assert_eq!(refs["base_sha"], job.base_sha);
}

#[tokio::test]
async fn plg_trigger_040_a_push_to_the_branch_runs_postsubmits() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    stage.world.grant("approver", Permission::Write);
    let sha = stage
        .world
        .push("approver", "main", vec![FileChange::write("x", "1")])
        .await;
    stage.settled().await;
    let view = stage.store().view();
    let jobs: Vec<_> = view.live_jobs().collect();
    assert_eq!(
        jobs.iter().map(|job| describe(job)).collect::<Vec<_>>(),
        ["publish triggered"]
    );
    assert_eq!(
        (jobs[0].base_sha.as_str(), jobs[0].r#type()),
        (sha.as_str(), JobType::Postsubmit)
    );
}

#[tokio::test]
async fn plg_lgtm_004_a_review_in_words_labels_and_assigns_until_the_next_push() {
    let stage = Stage::new(plugins(LGTM)).await;
    stage.world.grant("reviewer", Permission::Write);
    let pr = opened(&stage, "author").await;
    says(&stage, "author", &pr, "/lgtm").await;
    assert!(stage.said(&pr)[0].starts_with("@author: you cannot LGTM your own PR."));
    says(&stage, "outsider", &pr, "/lgtm").await;
    assert!(
        stage.said(&pr)[1].starts_with("@outsider: changing LGTM is restricted to collaborators")
    );
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());

    says(&stage, "reviewer", &pr, "/lgtm").await;
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
    let assignees = stage.world.pull(&pr, |_, issue, _| issue.assignees.clone());
    assert!(assignees.contains(&"reviewer".to_owned()));

    stage
        .world
        .push_fix(&pr, vec![FileChange::write("x", "1")])
        .await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    assert_eq!(
        stage.said(&pr)[2],
        "New changes are detected. LGTM label has been removed."
    );
    says(&stage, "reviewer", &pr, "/lgtm").await;
    assert_eq!(stage.said(&pr).len(), 2);
}

#[tokio::test]
async fn plg_approve_014_the_notification_follows_what_owners_say() {
    let clock = Clock::manual(Timestamp::now());
    let world = World::builder()
        .clock(clock.clone())
        .file("OWNERS", "approvers: [approver]\n")
        .file("docs/OWNERS", "approvers: [reviewer]\n");
    let stage = Stage::new(Setup {
        world,
        ..plugins(APPROVE)
    })
    .await;
    for login in ["approver", "reviewer"] {
        stage.world.grant(login, Permission::Write);
    }
    let pr = stage
        .world
        .pr("fix")
        .file("docs/a.md", "x")
        .file("b", "y")
        .opened_by("author")
        .await;
    stage.settled().await;
    let said = stage.said(&pr);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("[APPROVALNOTIFIER] This PR is **NOT APPROVED**"),
        "{}",
        said[0]
    );
    // The root's owners stand in for everybody below.
    assert!(
        said[0].contains("please assign [approver](https://github.com/approver) for approval"),
        "{}",
        said[0]
    );

    says(&stage, "reviewer", &pr, "/approve").await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    assert_eq!(stage.said(&pr).len(), 1);
    stage
        .world
        .review("approver", &pr, ReviewState::Approved, "")
        .await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["approved"]);
    let said = stage.said(&pr);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("[APPROVALNOTIFIER] This PR is **APPROVED**"),
        "{}",
        said[0]
    );

    // Of two words in the same second the order is not told.
    clock.advance(SignedDuration::from_secs(1));
    says(&stage, "approver", &pr, "/approve cancel").await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    assert!(stage.said(&pr)[0].contains("**NOT APPROVED**"));
}

#[tokio::test]
async fn plg_hold_001_and_plg_wip_001_keep_from_merging() {
    let stage = Stage::new(plugins(HOLD)).await;
    let pr = stage
        .world
        .pr("wip")
        .title("WIP: fix")
        .opened_by("author")
        .await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["do-not-merge/work-in-progress"]);
    says(&stage, "outsider", &pr, "/hold for now").await;
    stage.world.retitle("author", &pr, "Fix").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["do-not-merge/hold"]);
    says(&stage, "outsider", &pr, "/unhold").await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
}

fn calls(method: &str, path: &str) -> CallMatch {
    CallMatch {
        method: Some(method.to_owned()),
        path: Some(path.to_owned()),
        actor: None,
    }
}

/// HOOK-028: what may have been said is looked for before it is said again.
#[tokio::test]
async fn a_comment_whose_answer_is_lost_is_made_once() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    let lost = calls("POST", "/repos/*/issues/*/comments");
    stage
        .world
        .sandbox()
        .faults()
        .on_call(lost, CallEffect::AnswerLost, Some(1))
        .unwrap();
    let pr = opened(&stage, "outsider").await;
    assert_eq!(stage.said(&pr).len(), 1);
    assert_eq!(stage.dead().len(), 0);
}

/// HOOK-028: outages use up no tries.
#[tokio::test]
async fn an_outage_delays_a_lane_and_loses_nothing() {
    let stage = Stage::new(plugins(TRIGGER)).await;
    let down = calls("POST", "/repos/*/issues/*/labels");
    let broken = CallEffect::Status { code: 502 };
    stage
        .world
        .sandbox()
        .faults()
        .on_call(down, broken, Some(3))
        .unwrap();
    let pr = opened(&stage, "outsider").await;
    assert_eq!(stage.world.labels(&pr), ["needs-ok-to-test"]);
    assert_eq!(stage.said(&pr).len(), 1);
    assert_eq!(stage.dead().len(), 0);
}

/// HOOK-013: what is not enabled is taken, and is nobody's.
#[tokio::test]
async fn hook_013_what_is_not_enabled_is_nobodys() {
    let disabled = [format!("{ORG}/{REPO}")];
    let stage = Stage::new(Setup {
        only: Enablement::new(&[], &[], &[], &disabled).unwrap(),
        ..plugins(
            "plugins: {acme/widget: {plugins: [hold]}}\nexternal_plugins: {acme: [{name: x}]}",
        )
    })
    .await;
    let pr = opened(&stage, "author").await;
    says(&stage, "author", &pr, "/hold").await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    let view = stage.store().view();
    let taken: Vec<_> = view.deliveries_newest_first(None).collect();
    assert!(!taken.is_empty());
    for delivery in taken {
        assert_eq!(delivery.state(), DeliveryState::Handled);
        assert_eq!(delivery.plugins, Vec::<String>::new(), "{}", delivery.event);
    }
}

/// What is refused for good is given up visibly, and the lane goes on.
#[tokio::test]
async fn a_refused_write_is_given_up_after_five_tries() {
    let stage = Stage::new(plugins(HOLD)).await;
    let pr = opened(&stage, "author").await;
    let refused = calls("POST", "/repos/*/issues/*/labels");
    let faults = stage.world.sandbox().faults();
    faults
        .on_call(refused, CallEffect::Status { code: 422 }, Some(5))
        .unwrap();
    says(&stage, "author", &pr, "/hold").await;
    let dead = stage.dead();
    assert_eq!(
        (
            dead.len(),
            dead[0].plugin.as_str(),
            dead[0].effects[0].attempts
        ),
        (1, "hold", 5)
    );
    assert!(
        dead[0].effects[0].error.contains("422"),
        "{}",
        dead[0].effects[0].error
    );
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    says(&stage, "author", &pr, "/hold").await;
    assert_eq!(stage.world.labels(&pr), ["do-not-merge/hold"]);

    // An operator may have it tried again.
    says(&stage, "author", &pr, "/unhold").await;
    let redrive = Redrive {
        guid: dead[0].guid.clone(),
        plugin: dead[0].plugin.clone(),
        ..Redrive::default()
    };
    stage.propose(Body::Redrive(redrive)).await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["do-not-merge/hold"]);
    assert_eq!(stage.dead().len(), 0);
}

/// HOOK-019, HOOK-010: a node that dies while it comments leaves one comment behind, and its successor finds it: nothing
/// has to be waited for when a node stops.
#[tokio::test]
async fn a_new_office_finds_what_the_former_one_had_sent() {
    let mut stage = Stage::new(plugins(TRIGGER)).await;
    let held = CallEffect::AnswerHeld {
        barrier: "comment".to_owned(),
    };
    let faults = stage.world.sandbox().faults();
    faults
        .on_call(calls("POST", "/repos/*/issues/*/comments"), held, Some(1))
        .unwrap();
    let barrier = faults.barrier("comment");
    let pr = stage.world.pr("fix").opened_by("outsider").await;
    barrier.arrived(1).await;
    stage.restart().await;
    barrier.release();
    stage.settled().await;
    assert_eq!(stage.said(&pr).len(), 1);
}

/// HOOK-010: what was accepted while nobody was in office is handled by who comes next.
#[tokio::test]
async fn deliveries_wait_for_an_office() {
    let mut stage = Stage::new(plugins(TRIGGER)).await;
    stage.end_term().await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.world.expect_delivered().await;
    assert_eq!(stage.jobs(&pr), Vec::<String>::new());
    stage.begin_term();
    stage.settled().await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
}

#[tokio::test]
async fn hook_043_lost_webhooks_are_asked_for_again() {
    // A minute ago by the forge's clock: attempts of the last seconds may still be under way.
    let past = Timestamp::now() - SignedDuration::from_secs(60);
    let mut stage = Stage::new(Setup {
        world: World::builder().clock(Clock::manual(past)),
        repairing_every: Duration::from_millis(200),
        redelivery: true,
        ..plugins(TRIGGER)
    })
    .await;
    let cursor = stage
        .until("a first look at the webhook", |state| {
            state.cursors_with_prefix("plugins/hook/").next().cloned()
        })
        .await;
    let earlier = Cursor {
        at_ms: cursor.at_ms - 3_600_000,
        ..(*cursor).clone()
    };
    stage.end_term().await;
    stage.door.shut(true);
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.world.expect_delivered().await;
    stage.door.shut(false);
    let cursors = vec![earlier];
    stage.propose(Body::PutCursor(PutCursor { cursors })).await;
    stage.begin_term();
    stage
        .until("the pull request's job", |state| {
            state.jobs_of_pull(ORG, REPO, pr.number).next().map(|_| ())
        })
        .await;
    stage.settled().await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
}

/// A stage that has looked at its webhook once, out of office, its door shut; and a pull request nobody heard of.
async fn deaf(settling_after: Duration) -> (Stage, trireme_sandbox::world::Pr) {
    let mut stage = Stage::new(Setup {
        redelivery: true,
        settling_after,
        ..plugins(TRIGGER)
    })
    .await;
    stage
        .until("a first look at the webhook", |state| {
            state
                .cursors_with_prefix("plugins/hook/")
                .next()
                .map(|_| ())
        })
        .await;
    stage.end_term().await;
    stage.door.shut(true);
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.world.expect_delivered().await;
    (stage, pr)
}

/// HOOK-043: a loss of the last seconds is not left until the next round of repairs.
#[tokio::test]
async fn hook_043_a_webhook_lost_just_before_taking_office_is_soon_asked_for() {
    let (mut stage, pr) = deaf(Duration::from_secs(1)).await;
    stage.door.shut(false);
    stage.begin_term();
    stage
        .until("the pull request's job", |state| {
            state.jobs_of_pull(ORG, REPO, pr.number).next().map(|_| ())
        })
        .await;
    stage.settled().await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
}

/// HOOK-043: the second attempt fails as the first did; a later one does not.
#[tokio::test]
async fn hook_043_a_redelivery_that_fails_is_asked_for_again() {
    let (mut stage, pr) = deaf(Duration::from_millis(200)).await;
    let turned_away = stage.door.turned_away();
    stage.begin_term();
    stage.door.until_turned_away(turned_away + 2).await;
    stage.door.shut(false);
    stage
        .until("the pull request's job", |state| {
            state.jobs_of_pull(ORG, REPO, pr.number).next().map(|_| ())
        })
        .await;
    stage.settled().await;
    assert_eq!(stage.jobs(&pr), ["unit triggered"]);
}

/// HOOK-043: what cannot be had is not asked for for ever, and somebody is told.
#[tokio::test]
async fn hook_043_an_event_that_never_comes_home_raises_an_alarm() {
    let (mut stage, _) = deaf(Duration::from_millis(50)).await;
    stage.begin_term();
    let message = stage
        .until("an alarm", |state| {
            let alarm = state.alarm("plugins/lost-deliveries")?;
            Some(alarm.message.clone())
        })
        .await;
    assert!(
        message.contains("could not be had again in 5 tries")
            && message.contains("redeliver them there"),
        "{message}"
    );
}

#[tokio::test]
async fn the_mirror_is_repaired_without_webhooks() {
    let stage = Stage::new(Setup {
        repairing_every: Duration::from_millis(200),
        ..plugins(TRIGGER)
    })
    .await;
    let faults = stage.world.sandbox().faults();
    faults
        .on_hook(HookMatch::default(), HookEffect::Lost, None)
        .unwrap();
    let pr = stage.world.pr("fix").opened_by("author").await;
    let head = stage.world.head(&pr);
    let bot = stage.world.user(trireme_sandbox::world::BOT);
    let status = status("ci", StatusState::Success);
    bot.set_status(stage.world.repo(), &head, status)
        .await
        .unwrap();
    let mirrored = |state: &trireme_state::State| state.pull_request(ORG, REPO, pr.number).cloned();
    let found = stage.until("the mirror", mirrored).await;
    assert_eq!((found.head_sha.as_str(), found.open), (head.as_str(), true));
    stage.world.grant("approver", Permission::Write);
    stage.world.label("approver", &pr, "lgtm").await;
    stage
        .until("the label", |state| {
            mirrored(state).filter(|pull| pull.labels == ["lgtm"])
        })
        .await;
    stage.world.close("author", &pr).await;
    stage
        .until("the end", |state| mirrored(state).filter(|pull| !pull.open))
        .await;
}
