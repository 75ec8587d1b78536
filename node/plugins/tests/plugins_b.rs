//! Stories of plugins that keep pull requests from merging, and of those that let them: over the sandbox forge, its
//! webhooks and a real store.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use stage::{Setup, Stage};
use trireme_sandbox::{
    FileChange, MergeSpec, NewCommit,
    faults::{CallEffect, CallMatch},
    forge::{IssueChange, NewStatus, Permission, ReviewState, StatusState},
    world::{BOT, ORG, Pr, REPO, World},
};

const CONFIG: &str = r"
presubmits:
  acme/widget:
  - name: unit
    spec: {containers: [{image: alpine}]}
";

async fn with(plugins: &str) -> Stage {
    Stage::new(Setup {
        config: CONFIG,
        plugins: plugins.to_owned(),
        ..Setup::default()
    })
    .await
}

async fn opened(stage: &Stage, login: &str) -> Pr {
    let pr = stage.world.pr("fix").opened_by(login).await;
    stage.settled().await;
    pr
}

async fn says(stage: &Stage, login: &str, pr: &Pr, body: &str) {
    stage.world.comment(login, pr, body).await;
    stage.settled().await;
}

async fn status(stage: &Stage, pr: &Pr, context: &str, state: StatusState) {
    let status = NewStatus {
        state,
        context: context.to_owned(),
        description: None,
        target_url: None,
    };
    let head = stage.world.head(pr);
    let bot = stage.world.user(BOT);
    bot.set_status(stage.world.repo(), &head, status)
        .await
        .unwrap();
    stage.settled().await;
}

/// What a commit shows: context, state, what a person reads of the description.
fn shown(stage: &Stage, pr: &Pr) -> Vec<String> {
    let statuses = stage.world.statuses(pr).into_iter();
    let statuses = statuses.map(|(context, (state, description))| {
        let read = description.split('\u{2001}').next().unwrap_or_default();
        format!("{context} {state:?}: {read}")
    });
    statuses.collect()
}

/// The first line of each thing the bot said.
fn said(stage: &Stage, pr: &Pr) -> Vec<String> {
    let said = stage.said(pr).into_iter();
    said.map(|body| body.lines().next().unwrap_or_default().to_owned())
        .collect()
}

/// PLG-OVERRIDE-002, PLG-OVERRIDE-005, PLG-OVERRIDE-006, PLG-OVERRIDE-008, PLG-OVERRIDE-009
#[tokio::test]
async fn plg_override_005_an_admin_vouches_for_a_job_and_takes_it_back() {
    let stage = with("plugins: {acme/widget: {plugins: [override]}}").await;
    stage.world.grant("approver", Permission::Admin);
    stage.world.grant("reviewer", Permission::Write);
    let pr = opened(&stage, "author").await;
    status(&stage, &pr, "unit", StatusState::Failure).await;
    says(&stage, "reviewer", &pr, "/override unit").await;
    assert_eq!(
        said(&stage, &pr),
        ["@reviewer: reviewer unauthorized: /override is restricted to Repo administrators."]
    );
    assert_eq!(stage.jobs(&pr), Vec::<String>::new());

    says(&stage, "approver", &pr, "/override unit").await;
    assert_eq!(stage.jobs(&pr), ["unit success, complete"]);
    assert_eq!(shown(&stage, &pr), ["unit Success: Overridden by approver"]);
    assert_eq!(
        said(&stage, &pr)[1],
        "@approver: Overrode contexts on behalf of approver: unit"
    );
    let view = stage.store().view();
    let job = view.jobs_of_pull(ORG, REPO, pr.number).next().unwrap();
    assert_eq!(job.description, "Overridden by approver");
    assert!(job.url.contains("#issuecomment-"), "{}", job.url);
    assert_eq!(job.pulls[0].head_sha, stage.world.head(&pr));
    assert_eq!(job.created_ms, job.completed_ms);

    says(&stage, "approver", &pr, "/override-cancel").await;
    assert_eq!(
        stage.jobs(&pr),
        ["unit success, complete", "unit failure, complete"]
    );
    assert_eq!(
        shown(&stage, &pr),
        ["unit Failure: Override cancelled by approver"]
    );
    assert_eq!(
        said(&stage, &pr)[2],
        "@approver: Cancelled overrides on behalf of approver: unit"
    );
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-OVERRIDE-007: what the forge refuses is told, and so is what was done before.
#[tokio::test]
async fn plg_override_007_a_refused_status_is_told() {
    let stage = with("plugins: {acme/widget: {plugins: [override]}}").await;
    stage.world.grant("approver", Permission::Admin);
    let pr = opened(&stage, "author").await;
    for context in ["a", "b", "c"] {
        status(&stage, &pr, context, StatusState::Failure).await;
    }
    let refused = CallMatch {
        method: Some("POST".to_owned()),
        path: Some("/repos/*/statuses/*".to_owned()),
        actor: None,
    };
    let faults = stage.world.sandbox().faults();
    let effect = CallEffect::Status { code: 422 };
    faults.on_call(refused, effect, Some(1)).unwrap();
    says(&stage, "approver", &pr, "/override a b").await;
    assert_eq!(
        said(&stage, &pr),
        ["@approver: Cannot update PR status for context a"]
    );
    says(&stage, "approver", &pr, "/override b c").await;
    assert_eq!(
        said(&stage, &pr)[1],
        "@approver: Overrode contexts on behalf of approver: b, c"
    );
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-RELEASENOTE-003, PLG-RELEASENOTE-007
#[tokio::test]
async fn plg_releasenote_003_a_note_is_asked_for_until_it_is_there() {
    let stage = with("plugins: {acme/widget: {plugins: [release-note]}}").await;
    let body = "Text\n```release-note\n\n```\n";
    let pr = stage.world.pr("fix").body(body).opened_by("author").await;
    stage.settled().await;
    assert_eq!(
        stage.world.labels(&pr),
        ["do-not-merge/release-note-label-needed"]
    );
    assert!(
        said(&stage, &pr)[0].starts_with(
            "Adding the \"do-not-merge/release-note-label-needed\" label because no release-note block was detected"
        )
    );
    let edit = "/release-note-edit\r\n```release-note\r\nA new flag\r\n```";
    says(&stage, "outsider", &pr, edit).await;
    assert_eq!(
        said(&stage, &pr)[1],
        "@outsider: You must be an org member to edit the release note."
    );
    says(&stage, "reviewer", &pr, edit).await;
    // The edit is an event of its own.
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["release-note"]);
    let body = stage.world.pull(&pr, |_, issue, _| issue.body.clone());
    assert!(format!("{body:?}").contains("A new flag"), "{body:?}");
    assert_eq!(said(&stage, &pr).len(), 1);
    let author = stage.world.user("author");
    let none = IssueChange {
        body: Some("```release-note\nNONE\n```".to_owned()),
        ..IssueChange::default()
    };
    author
        .edit_issue(stage.world.repo(), pr.number, none)
        .unwrap();
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["release-note-none"]);
}

/// PLG-REQUIRELABEL-003: the grace period is waited for in the state, so that a restart does not lose it.
#[tokio::test]
async fn plg_requirelabel_003_a_restart_does_not_lose_the_grace_period() {
    let mut stage = with(
        "plugins: {acme/widget: {plugins: [require-matching-label]}}\n\
         require_matching_label: [{org: acme, prs: true, regexp: ^kind/, missing_label: needs-kind, missing_comment: Say the kind., grace_period: 1500ms}]",
    )
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.world.expect_delivered().await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    stage.restart().await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["needs-kind"]);
    assert_eq!(said(&stage, &pr), ["Say the kind."]);
    stage.world.grant("approver", Permission::Write);
    stage.world.label("approver", &pr, "kind/bug").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["kind/bug"]);
    assert_eq!(said(&stage, &pr), Vec::<String>::new());
}

/// PLG-VERIFYOWNERS-002, PLG-VERIFYOWNERS-005, PLG-VERIFYOWNERS-007, PLG-VERIFYOWNERS-009
#[tokio::test]
async fn plg_verifyowners_007_strangers_become_no_owners() {
    let stage = Stage::new(Setup {
        world: World::builder()
            .file("OWNERS", "approvers: [approver]\n")
            .outsider("stranger"),
        plugins: "plugins: {acme/widget: {plugins: [verify-owners]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage
        .world
        .pr("fix")
        .file("OWNERS", "approvers: [approver, stranger]\n")
        .file("docs/OWNERS", "approvers: reviewer\n")
        .opened_by("author")
        .await;
    stage.settled().await;
    let label = ["do-not-merge/invalid-owners-file"];
    assert_eq!(stage.world.labels(&pr), label);
    let comment = stage.said(&pr).remove(0);
    assert!(
        comment.starts_with("The OWNERS file contains untrusted users, which makes it INVALID."),
        "{comment}"
    );
    let listed: Vec<&str> = comment.lines().skip(1).collect();
    assert_eq!(
        listed,
        [
            "- stranger",
            "  - User is not a member of the org. User is not a collaborator. Satisfy at least one of these conditions to make the user trusted.",
            "  - OWNERS"
        ]
    );
    let reviews = |stage: &Stage| stage.world.pull(&pr, |_, _, pull| pull.reviews.len());
    assert_eq!(reviews(&stage), 1);

    // A push that changes nothing about it says nothing again.
    stage
        .world
        .push_fix(&pr, vec![FileChange::write("x", "1")])
        .await;
    stage.settled().await;
    assert_eq!(stage.said(&pr).len(), 1);
    assert_eq!(reviews(&stage), 1);

    stage
        .world
        .push_fix(
            &pr,
            vec![
                FileChange::write("OWNERS", "approvers: [approver, reviewer]\n"),
                FileChange::write("docs/OWNERS", "approvers: [reviewer]\n"),
            ],
        )
        .await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    assert_eq!(stage.said(&pr), Vec::<String>::new());

    // What does not merge is not looked at.
    stage.world.grant("approver", Permission::Write);
    let owners = vec![FileChange::write("OWNERS", "approvers: [maintainer]\n")];
    stage.world.push("approver", "main", owners).await;
    let bad = vec![FileChange::write("docs/OWNERS", "approvers: reviewer\n")];
    stage.world.push_fix(&pr, bad).await;
    says(&stage, "author", &pr, "/verify-owners").await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-BLOCKADE-002, PLG-INVALIDCOMMIT-001, PLG-DCO-002, PLG-MERGEMETHOD-001
#[tokio::test]
async fn plg_blockade_002_what_must_not_be_merged_is_marked_until_it_is_gone() {
    let stage = with(
        "plugins: {acme/widget: {plugins: [blockade, invalidcommitmsg, dco, merge-method-comment]}}\n\
         blockades: [{repos: [acme], blockregexps: [^secret/], explanation: Secrets}]",
    )
    .await;
    let pr = stage
        .world
        .pr("fix")
        .title("fixup! Fix #1")
        .file("secret/a", "x")
        .opened_by("author")
        .await;
    stage.settled().await;
    let labels = stage.world.labels(&pr);
    assert_eq!(
        labels,
        [
            "dco-signoff: no",
            "do-not-merge/blocked-paths",
            "do-not-merge/invalid-commit-message"
        ]
    );
    assert_eq!(
        shown(&stage, &pr),
        ["dco Failure: Commits in PR missing Signed-off-by"]
    );
    assert_eq!(stage.said(&pr).len(), 3);
    assert!(
        stage
            .said(&pr)
            .iter()
            .any(|body| body.contains("[Secrets]\n- [secret/a]("))
    );

    // Two commits that are as they should be take the place of the one.
    stage.world.retitle("author", &pr, "Right").await;
    let author = stage.world.user("author");
    let fork = stage.world.pull(&pr, |_, _, pull| pull.head_repo.clone());
    let base = stage
        .world
        .pull(&pr, |repo, _, _| repo.branches["main"].clone());
    for (parent, path) in [(Some(base), "a"), (None, "b")] {
        let commit = NewCommit {
            branch: "fix".to_owned(),
            message: "Right\n\nSigned-off-by: A <a@example.com>".to_owned(),
            files: vec![FileChange::write(path, "x")],
            parent,
        };
        author.push_files(&fork, commit).await.unwrap();
    }
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["dco-signoff: yes"]);
    assert_eq!(
        shown(&stage, &pr),
        ["dco Success: All commits have Signed-off-by"]
    );
    assert_eq!(
        said(&stage, &pr),
        ["This PR has multiple commits, and the default merge method is: merge."]
    );
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-MERGECOMMIT-001
#[tokio::test]
async fn plg_mergecommit_001_merge_commits_are_seen_by_git() {
    let stage = with("plugins: {acme/widget: {plugins: [mergecommitblocker]}}").await;
    stage.world.grant("approver", Permission::Write);
    let pr = opened(&stage, "approver").await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    let first = stage.world.head(&pr);
    let inner = stage
        .world
        .pr("inner")
        .base("fix")
        .opened_by("approver")
        .await;
    let approver = stage.world.user("approver");
    approver
        .merge(stage.world.repo(), inner.number, MergeSpec::default())
        .await
        .unwrap();
    stage.settled().await;
    assert_eq!(
        stage.world.labels(&pr),
        ["do-not-merge/contains-merge-commits"]
    );
    assert!(said(&stage, &pr)[0].starts_with("Adding label `do-not-merge/contains-merge-commits`"));
    approver
        .set_branch(stage.world.repo(), "fix", &first)
        .await
        .unwrap();
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    assert_eq!(said(&stage, &pr), Vec::<String>::new());
}

/// PLG-CPUNAPPROVED-001, PLG-CPAPPROVED-001, PLG-CLA-001, PLG-CLA-003
#[tokio::test]
async fn plg_cpapproved_001_a_cherry_pick_waits_for_its_approvers() {
    let stage = with(
        "plugins: {acme/widget: {plugins: [cherry-pick-unapproved, cherry-pick-approved, cla]}}\n\
         cherry_pick_approved: [{org: acme, repo: widget, approvers: [reviewer], allow_missing_lgtm_label: true, allow_missing_approved_label: true}]",
    )
    .await;
    stage.world.grant("approver", Permission::Write);
    stage.world.grant("reviewer", Permission::Write);
    stage
        .world
        .push("approver", "release-1", vec![FileChange::write("r", "1")])
        .await;
    let pr = stage
        .world
        .pr("pick")
        .base("release-1")
        .opened_by("author")
        .await;
    stage.settled().await;
    let unapproved = "do-not-merge/cherry-pick-not-approved";
    assert_eq!(stage.world.labels(&pr), [unapproved]);
    assert_eq!(stage.said(&pr).len(), 1);

    // The agreement is not signed: that stands in the way.
    status(&stage, &pr, "EasyCLA", StatusState::Failure).await;
    assert_eq!(stage.world.labels(&pr), ["cncf-cla: no", unapproved]);
    stage
        .world
        .review("reviewer", &pr, ReviewState::Approved, "")
        .await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["cncf-cla: no", unapproved]);

    status(&stage, &pr, "EasyCLA", StatusState::Success).await;
    stage
        .world
        .review("reviewer", &pr, ReviewState::Approved, "")
        .await;
    stage.settled().await;
    let labels = stage.world.labels(&pr);
    assert_eq!(labels, ["cherry-pick-approved", "cncf-cla: yes"]);
    assert_eq!(stage.said(&pr), Vec::<String>::new());
    assert_eq!(stage.dead().len(), 0);
}
