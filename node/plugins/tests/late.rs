//! Webhooks that come late: lost and brought again, or overtaken. What happened since stands.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use jiff::{SignedDuration, Timestamp};
use stage::{Setup, Stage};
use trireme_sandbox::{
    Clock, FileChange,
    faults::{HookEffect, HookMatch},
    forge::{OpenState, Permission, ReviewState},
    world::{Pr, World},
};

/// The forge's clock, so far behind that all that happens there is told late.
fn long_ago() -> Clock {
    Clock::manual(Timestamp::now() - SignedDuration::from_secs(3600))
}

async fn stage(clock: &Clock, plugins: &str) -> Stage {
    Stage::new(Setup {
        world: World::builder().clock(clock.clone()),
        plugins: format!("plugins: {{acme/widget: {{plugins: [{plugins}]}}}}"),
        ..Setup::default()
    })
    .await
}

/// A pull request, and all about it told.
async fn opened(clock: &Clock, plugins: &str) -> (Stage, Pr) {
    let stage = stage(clock, plugins).await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    (stage, pr)
}

/// The next webhook of this kind comes so much later.
fn delayed(stage: &Stage, event: &str, action: &str, millis: u64) {
    let on = HookMatch {
        action: Some(action.to_owned()),
        ..HookMatch::event(event)
    };
    let faults = stage.world.sandbox().faults();
    let late = HookEffect::Delayed { millis };
    faults.on_hook(on, late, Some(1)).unwrap();
}

/// The next webhook of this kind comes after those that follow it.
fn overtaken(stage: &Stage, event: &str, action: &str) {
    delayed(stage, event, action, 2_000);
}

fn a_minute_later(clock: &Clock) {
    clock.advance(SignedDuration::from_secs(60));
}

async fn push(stage: &Stage, pr: &Pr) {
    let change = FileChange::write("more.txt", "x");
    stage.world.push_fix(pr, vec![change]).await;
}

/// PLG-LGTM-006: what a reviewer approved of is the head that was there when they wrote.
#[tokio::test]
async fn plg_lgtm_006_a_late_lgtm_is_not_for_what_was_pushed_since() {
    let clock = long_ago();
    let (stage, pr) = opened(&clock, "lgtm").await;
    overtaken(&stage, "issue_comment", "created");
    a_minute_later(&clock);
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    a_minute_later(&clock);
    push(&stage, &pr).await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), [""; 0]);
    let said = stage.said(&pr);
    let again = "@reviewer: new commits were pushed after this comment. Comment again if it holds for them too.";
    assert!(said.len() == 1 && said[0].starts_with(again), "{said:?}");
    // Said again, it counts.
    a_minute_later(&clock);
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
}

/// PLG-LGTM-008: both were lost and are brought again, in their order.
#[tokio::test]
async fn plg_lgtm_008_a_push_that_comes_as_late_as_the_lgtm_before_it() {
    let clock = long_ago();
    let stage = Stage::new(Setup {
        world: World::builder().clock(clock.clone()),
        plugins: "plugins: {acme/widget: {plugins: [lgtm]}}\nlgtm: [{repos: [acme], store_tree_hash: true}]".to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    delayed(&stage, "issue_comment", "created", 1_000);
    // After the comment has waited for what was lost with it.
    delayed(&stage, "pull_request", "synchronize", 6_000);
    a_minute_later(&clock);
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    a_minute_later(&clock);
    push(&stage, &pr).await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), [""; 0]);
    let said = stage.said(&pr);
    assert!(
        said.len() == 1 && said[0].contains("new commits were pushed"),
        "{said:?}"
    );
}

/// PLG-LGTM-008: a push that is told late takes away no lgtm that was given after it.
#[tokio::test]
async fn plg_lgtm_008_a_late_push_leaves_what_was_approved_since() {
    let clock = long_ago();
    let (stage, pr) = opened(&clock, "lgtm").await;
    overtaken(&stage, "pull_request", "synchronize");
    a_minute_later(&clock);
    push(&stage, &pr).await;
    a_minute_later(&clock);
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
    // The next takes it away: nobody has approved of that.
    a_minute_later(&clock);
    push(&stage, &pr).await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), [""; 0]);
}

/// PLG-HOLD-001: the last word counts, not the last that was heard.
#[tokio::test]
async fn plg_hold_001_a_late_command_undoes_no_later_one() {
    let clock = long_ago();
    let (stage, pr) = opened(&clock, "hold").await;
    stage.world.comment("author", &pr, "/hold").await;
    stage.settled().await;
    overtaken(&stage, "issue_comment", "created");
    for text in ["/hold cancel", "/hold", "not so fast"] {
        a_minute_later(&clock);
        stage.world.comment("author", &pr, text).await;
    }
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["do-not-merge/hold"]);
    // Nothing is said after it: it counts, late as it is.
    a_minute_later(&clock);
    stage.world.comment("author", &pr, "/hold cancel").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), [""; 0]);
}

/// PLG-HOLD-001: the later word may have been said in a review.
#[tokio::test]
async fn plg_hold_001_a_late_command_undoes_no_later_review() {
    let clock = long_ago();
    let (stage, pr) = opened(&clock, "hold").await;
    stage.world.comment("author", &pr, "/hold").await;
    stage.settled().await;
    overtaken(&stage, "issue_comment", "created");
    a_minute_later(&clock);
    stage.world.comment("author", &pr, "/hold cancel").await;
    a_minute_later(&clock);
    let words = ReviewState::Commented;
    stage.world.review("reviewer", &pr, words, "/hold").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["do-not-merge/hold"]);
}

/// PLG-WIP-001
#[tokio::test]
async fn plg_wip_001_a_late_title_is_not_the_title() {
    let clock = long_ago();
    let stage = stage(&clock, "wip").await;
    overtaken(&stage, "pull_request", "opened");
    let pr = stage
        .world
        .pr("fix")
        .title("WIP: fix")
        .opened_by("author")
        .await;
    a_minute_later(&clock);
    stage.world.retitle("author", &pr, "Fix").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), [""; 0]);
}

/// What a person did by hand after a command that was not heard in time stays.
#[tokio::test]
async fn plg_label_001_a_late_command_undoes_nothing_that_was_done_by_hand() {
    let clock = long_ago();
    let stage = stage(&clock, "label, lifecycle").await;
    stage.world.repo_labels(&["kind/bug"]);
    stage.world.grant("reviewer", Permission::Triage);
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    for text in ["/kind bug", "/close"] {
        overtaken(&stage, "issue_comment", "created");
        a_minute_later(&clock);
        stage.world.comment("author", &pr, text).await;
        a_minute_later(&clock);
        match text {
            "/close" => {
                stage.world.close("author", &pr).await;
                stage.world.reopen("author", &pr).await;
            }
            _ => {
                stage.world.label("reviewer", &pr, "kind/bug").await;
                stage.world.unlabel("reviewer", &pr, "kind/bug").await;
            }
        }
        stage.settled().await;
    }
    assert_eq!(stage.world.labels(&pr), [""; 0]);
    let is_open = stage
        .world
        .pull(&pr, |_, issue, _| issue.state == OpenState::Open);
    assert!(is_open);
}

/// PLG-OVERRIDE-009: who overrides a check has looked at what failed, and at no later head.
#[tokio::test]
async fn plg_override_009_a_late_override_is_not_for_what_was_pushed_since() {
    let clock = long_ago();
    let stage = stage(&clock, "override").await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.world.grant("reviewer", Permission::Admin);
    stage.settled().await;
    overtaken(&stage, "issue_comment", "created");
    a_minute_later(&clock);
    let override_it = "/override ci/foreign";
    stage.world.comment("reviewer", &pr, override_it).await;
    a_minute_later(&clock);
    push(&stage, &pr).await;
    stage.settled().await;
    let said = stage.said(&pr);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with(
        "@reviewer: new commits were pushed after this comment. Comment again if it holds for them too."
    ));
    assert!(stage.world.statuses(&pr).is_empty());
}
