//! What becomes of the rest where the forge, up as it is, refuses one thing: whatever Prow does without.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use stage::{Setup, Stage};
use trireme_plugins::{CherrypickerOptions, PluginOptions};
use trireme_sandbox::{
    FileChange, MergeSpec, PullRequestSpec,
    faults::{CallEffect, CallMatch},
    forge::{NewStatus, Permission, StatusState},
    world::{BOT, Pr, World},
};

async fn with(plugins: &str) -> Stage {
    Stage::new(Setup {
        plugins: plugins.to_owned(),
        ..Setup::default()
    })
    .await
}

async fn opened(stage: &Stage) -> Pr {
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    pr
}

async fn says(stage: &Stage, login: &str, pr: &Pr, body: &str) {
    stage.world.comment(login, pr, body).await;
    stage.settled().await;
}

/// From now on, for good.
fn refuse(stage: &Stage, method: &str, path: &str) {
    let call = CallMatch {
        method: Some(method.to_owned()),
        ..CallMatch::path(path)
    };
    let forbidden = CallEffect::Status { code: 403 };
    let faults = stage.world.sandbox().faults();
    faults.on_call(call, forbidden, None).unwrap();
}

/// What was said, without what answers quote.
fn said(stage: &Stage, pr: &Pr) -> Vec<String> {
    let said = stage.said(pr).into_iter();
    said.map(|text| text.split("\n\n").next().unwrap().to_owned())
        .collect()
}

const STICKY: &str = "plugins: {acme: {plugins: [lgtm]}}\n\
    lgtm: [{repos: [acme], trusted_team_for_sticky_lgtm: 'Core (EU)'}]";

async fn approved_and_pushed(stage: &Stage, pr: &Pr) -> Vec<String> {
    says(stage, "reviewer", pr, "/lgtm").await;
    assert_eq!(stage.world.labels(pr), ["lgtm"]);
    let change = vec![FileChange::write("more.txt", "x")];
    stage.world.push_fix(pr, change).await;
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    stage.world.labels(pr)
}

/// PLG-LGTM-009: a team that cannot be read keeps no label.
#[tokio::test]
async fn plg_lgtm_009_a_team_that_may_not_be_seen_keeps_no_label() {
    let stage = with(STICKY).await;
    stage.world.team("Core (EU)", &["author"]);
    let pr = opened(&stage).await;
    refuse(&stage, "GET", "/orgs/acme/teams*");
    let labels = approved_and_pushed(&stage, &pr).await;
    assert_eq!(labels, Vec::<String>::new());
    let told = said(&stage, &pr).remove(0);
    assert!(told.starts_with("New changes are detected."), "{told}");
}

/// PLG-LGTM-009: a team whose name reads alike is another team.
#[tokio::test]
async fn plg_lgtm_009_a_team_is_taken_for_no_other() {
    let stage = with(STICKY).await;
    // It has the slug that GitHub would give one called "Core (EU)".
    stage.world.team("Core EU", &["author"]);
    stage.world.team("Core (EU)", &["approver"]);
    let pr = opened(&stage).await;
    let labels = approved_and_pushed(&stage, &pr).await;
    assert_eq!(labels, Vec::<String>::new());
}

/// PLG-LGTM-008: a head that cannot be read is not what was approved of.
#[tokio::test]
async fn plg_lgtm_008_a_head_that_is_not_told_takes_the_label_away() {
    let stage =
        with("plugins: {acme: {plugins: [lgtm]}}\nlgtm: [{repos: [acme], store_tree_hash: true}]")
            .await;
    let pr = opened(&stage).await;
    says(&stage, "reviewer", &pr, "/lgtm").await;
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
    refuse(&stage, "GET", "/repos/*/commits/*");
    refuse(&stage, "GET", "/repos/*/git/commits/*");
    let change = vec![FileChange::write("more.txt", "x")];
    stage.world.push_fix(&pr, change).await;
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
}

/// PLG-LABEL-005: a label whose team cannot be read is left alone, and all else that was asked for is done and answered.
#[tokio::test]
async fn plg_label_005_a_team_that_may_not_be_seen_stops_its_label_alone() {
    let stage = with(
        "plugins: {acme: {plugins: [label]}}\n\
                  label: {restricted_labels: {acme: [\
                  {label: lead-ok, allowed_teams: [leads]}, {label: other-ok, allowed_teams: [others]}]}}",
    )
    .await;
    let labels = ["lead-ok", "other-ok", "area/prow", "triage/accepted"];
    stage.world.repo_labels(&labels);
    stage.world.team("others", &["reviewer"]);
    let pr = opened(&stage).await;
    refuse(&stage, "GET", "/orgs/acme/teams/leads/*");
    refuse(&stage, "GET", "/orgs/acme/members/*");
    let body = "/label lead-ok\n/triage accepted\n/label other-ok\n/area prow nowhere";
    says(&stage, "reviewer", &pr, body).await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(stage.world.labels(&pr), ["area/prow", "other-ok"]);
    assert_eq!(
        said(&stage, &pr),
        [
            "@reviewer: The label(s) `area/nowhere` cannot be applied, because the repository doesn't have them."
        ]
    );
}

/// PLG-CHERRYPICK-009: the new pull request is told of, whatever becomes of its labels and assignees.
#[tokio::test]
async fn plg_cherrypick_009_a_pick_without_its_labels_is_told() {
    let stage = Stage::new(Setup {
        world: World::builder().file("a.txt", "one\n"),
        plugins: "external_plugins: {acme: [{name: cherrypicker}]}".to_owned(),
        options: PluginOptions {
            cherrypicker: CherrypickerOptions {
                labels: vec!["backport".to_owned()],
                ..CherrypickerOptions::default()
            },
            ..PluginOptions::default()
        },
        ..Setup::default()
    })
    .await;
    stage.world.grant("approver", Permission::Write);
    let release = vec![FileChange::write("RELEASE", "1\n")];
    stage.world.push("approver", "release-1", release).await;
    let fix = stage.world.pr("fix").file("a.txt", "two\n");
    let pr = fix.opened_by("author").await;
    let approver = stage.world.user("approver");
    let merged = approver.merge(&pr.repo, pr.number, MergeSpec::default());
    merged.await.unwrap();
    stage.settled().await;
    refuse(&stage, "POST", "/repos/*/issues/2/labels");
    says(&stage, "author", &pr, "/cherrypick release-1").await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(said(&stage, &pr), ["@author: new pull request created: #2"]);
    let pick = stage.world.pr_number(2);
    assert_eq!(stage.world.labels(&pick), Vec::<String>::new());
    assert_eq!(stage.world.assignees(&pick), ["author"]);
}

/// PLG-SIGMENTION-001: an org that hides its members does not keep mentions from becoming labels.
#[tokio::test]
async fn plg_sigmention_001_mentions_count_in_an_org_that_hides_its_members() {
    let stage = with("plugins: {acme: {plugins: [sigmention]}}").await;
    stage.world.repo_labels(&["sig/node", "kind/bug"]);
    let pr = opened(&stage).await;
    refuse(&stage, "GET", "/orgs/acme/members/*");
    says(&stage, "reviewer", &pr, "See @kubernetes/sig-node-bugs").await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(stage.world.labels(&pr), ["kind/bug", "sig/node"]);
    let told = said(&stage, &pr).remove(0);
    assert!(
        told.starts_with("@reviewer: Reiterating the mentions"),
        "{told}"
    );
}

/// PLG-BLUNDERBUSS-003: of several pull requests with one head, one that cannot be read keeps nobody from reviewing the
/// others.
#[tokio::test]
async fn plg_blunderbuss_003_reviews_of_what_can_be_read_are_asked_for() {
    let stage = Stage::new(Setup {
        world: World::builder().file("OWNERS", "reviewers: [reviewer]\n"),
        plugins: "plugins: {acme: {plugins: [blunderbuss]}}\n\
                  blunderbuss: {request_count: 1, wait_for_status: {context: tide}}"
            .to_owned(),
        ..Setup::default()
    })
    .await;
    stage.world.grant("author", Permission::Write);
    stage.world.grant("approver", Permission::Write);
    let release = vec![FileChange::write("RELEASE", "1\n")];
    stage.world.push("approver", "release-1", release).await;
    let unreadable = opened(&stage).await;
    let spec = PullRequestSpec {
        title: "fix".to_owned(),
        body: None,
        head: "fix".to_owned(),
        base: "release-1".to_owned(),
        draft: false,
        maintainer_can_modify: true,
    };
    let repo = stage.world.repo();
    let number = stage.world.user("author").open_pull(repo, spec).await;
    let other = stage.world.pr_number(number.unwrap());
    stage.settled().await;
    refuse(&stage, "GET", "/repos/*/pulls/1");
    let head = stage.world.head(&other);
    assert_eq!(stage.world.head(&unreadable), head);
    let status = NewStatus {
        state: StatusState::Pending,
        context: "tide".to_owned(),
        description: Some("Not mergeable. Needs lgtm label.".to_owned()),
        target_url: None,
    };
    let bot = stage.world.user(BOT);
    bot.set_status(repo, &head, status).await.unwrap();
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(stage.world.requested_reviewers(&other), ["reviewer"]);
}

/// PLG-RELEASENOTE-005: a parent that is gone is not missed.
#[tokio::test]
async fn plg_releasenote_005_a_parent_that_is_gone_is_not_missed() {
    let stage = with("plugins: {acme: {plugins: [release-note]}}").await;
    stage.world.grant("approver", Permission::Write);
    let release = vec![FileChange::write("RELEASE", "1\n")];
    stage.world.push("approver", "release-1.2", release).await;
    let gone = CallEffect::Status { code: 410 };
    let faults = stage.world.sandbox().faults();
    let labels = CallMatch::path("/repos/*/issues/77/labels");
    faults.on_call(labels, gone, None).unwrap();
    let pick = stage.world.pr("pick").base("release-1.2");
    let pick = pick.body("Cherry pick of #77 on release-1.2.");
    let pr = pick.opened_by("author").await;
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0, "{:?}", stage.dead());
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
}
