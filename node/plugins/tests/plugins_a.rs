//! What people get from the plugins that assign, label, close, pick reviewers and set milestones: told over the sandbox
//! forge.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use stage::{Setup, Stage};
use trireme_sandbox::{
    MergeSpec,
    faults::{CallEffect, CallMatch},
    forge::{NewStatus, OpenState, Permission, StatusState},
    world::{BOT, ORG, Pr, World, WorldBuilder},
};

fn on(world: WorldBuilder, plugins: &str) -> Setup {
    Setup {
        world,
        plugins: plugins.to_owned(),
        ..Setup::default()
    }
}

/// Labels that the repository has, beyond GitHub's own.
fn create_labels(stage: &Stage, names: &[&str]) {
    let repo = stage.world.repo();
    for name in names {
        let create = |forge: &mut trireme_sandbox::forge::Forge| {
            forge.create_label(BOT, repo, name, "ededed", None)
        };
        stage.world.sandbox().change(create).unwrap();
    }
}

async fn opened(stage: &Stage, login: &str) -> Pr {
    let pr = stage.world.pr("fix").opened_by(login).await;
    stage.settled().await;
    pr
}

fn issue(stage: &Stage, login: &str) -> Pr {
    let repo = stage.world.repo();
    let user = stage.world.user(login);
    let number = user.open_issue(repo, "It breaks", None, &[]).unwrap();
    stage.world.pr_number(number)
}

async fn says(stage: &Stage, login: &str, pr: &Pr, body: &str) {
    stage.world.comment(login, pr, body).await;
    stage.settled().await;
}

/// What the bot said, each without what folds away.
fn told(stage: &Stage, pr: &Pr) -> Vec<String> {
    let said = stage.said(pr).into_iter();
    said.map(|text| text.split("\n\n").next().unwrap_or_default().to_owned())
        .collect()
}

fn look<R>(stage: &Stage, pr: &Pr, f: impl FnOnce(&trireme_sandbox::forge::Issue) -> R) -> R {
    let found = |forge: &trireme_sandbox::forge::Forge| {
        let (_, issue) = forge.issue(stage.world.repo(), pr.number).unwrap();
        f(issue)
    };
    stage.world.sandbox().read(found)
}

#[tokio::test]
async fn plg_assign_003_who_cannot_be_assigned_or_asked_is_named() {
    let stage = Stage::new(on(World::builder(), "plugins: {acme: {plugins: [assign]}}")).await;
    let pr = opened(&stage, "author").await;
    says(
        &stage,
        "author",
        &pr,
        "/assign reviewer nobody\n/cc @approver author",
    )
    .await;
    assert_eq!(
        look(&stage, &pr, |issue| issue.assignees.clone()),
        ["reviewer"]
    );
    let requested = |stage: &Stage| {
        stage
            .world
            .pull(&pr, |_, _, pull| pull.requested_reviewers.clone())
    };
    assert_eq!(requested(&stage), ["approver"]);
    assert_eq!(
        told(&stage, &pr),
        [
            "@author: GitHub didn't allow me to assign the following users: nobody.",
            "@author: GitHub didn't allow me to request PR reviews from the following users: author.",
        ]
    );
    says(&stage, "reviewer", &pr, "/unassign\n/uncc approver\n/cc").await;
    assert_eq!(look(&stage, &pr, |issue| issue.assignees.len()), 0);
    assert_eq!(requested(&stage), ["reviewer"]);
    assert_eq!(stage.said(&pr).len(), 2);
    assert_eq!(stage.dead().len(), 0);
}

#[tokio::test]
async fn plg_label_002_labels_follow_what_is_said_and_configured() {
    let stage = Stage::new(on(
        World::builder(),
        "plugins: {acme: {plugins: [label, stage, shrug]}}\n\
         label: {additional_labels: [flaky], restricted_labels: {acme: [\n\
         {label: release-ok, allowed_teams: [leads], allowed_users: [approver], assign_on: [{label: area/api}]}]}}",
    ))
    .await;
    let sandbox = stage.world.sandbox();
    sandbox.set_team(ORG, "leads", &["reviewer"]).unwrap();
    stage.world.grant("approver", Permission::Triage);
    let names = ["area/api", "kind/bug", "needs-kind", "flaky", "release-ok"];
    create_labels(&stage, &names);
    let pr = opened(&stage, "author").await;
    says(
        &stage,
        "outsider",
        &pr,
        "/area API nowhere\n/kind bug\n/label flaky\n/stage beta\n/shrug",
    )
    .await;
    let mut labels = stage.world.labels(&pr);
    labels.sort();
    assert_eq!(
        labels,
        ["area/api", "flaky", "kind/bug", "stage/beta", r"¯\_(ツ)_/¯"]
    );
    assert_eq!(
        look(&stage, &pr, |issue| issue.assignees.clone()),
        ["approver"]
    );
    says(&stage, "outsider", &pr, "/label release-ok").await;
    says(
        &stage,
        "reviewer",
        &pr,
        "/label release-ok\n/remove-kind bug",
    )
    .await;
    assert_eq!(
        told(&stage, &pr),
        [
            "@outsider: The label(s) `area/nowhere` cannot be applied, because the repository doesn't have them.",
            "@outsider: The label(s) `release-ok` cannot be applied or removed, because you are not in one of the allowed teams and are not an allowed user. Must be a member of one of these teams: leads",
        ]
    );
    let labels = stage.world.labels(&pr);
    assert!(labels.contains(&"release-ok".to_owned()), "{labels:?}");
    assert!(labels.contains(&"needs-kind".to_owned()), "{labels:?}");
    assert!(!labels.contains(&"kind/bug".to_owned()), "{labels:?}");
    assert_eq!(stage.dead().len(), 0);
}

#[tokio::test]
async fn plg_lifecycle_003_what_is_closed_is_reopened_while_the_forge_can() {
    let stage = Stage::new(on(
        World::builder(),
        "plugins: {acme: {plugins: [lifecycle, help, retitle]}}",
    ))
    .await;
    let about = issue(&stage, "author");
    says(&stage, "outsider", &about, "/close").await;
    assert_eq!(look(&stage, &about, |issue| issue.state), OpenState::Open);
    says(
        &stage,
        "outsider",
        &about,
        "/lifecycle rotten\n/retitle Mine",
    )
    .await;
    says(&stage, "outsider", &about, "/close not-planned").await;
    let reason = look(&stage, &about, |issue| issue.state_reason.clone());
    assert_eq!(reason.as_deref(), Some("not_planned"));
    says(&stage, "author", &about, "/reopen\n/lifecycle frozen").await;
    says(
        &stage,
        "author",
        &about,
        "/good-first-issue\n/retitle It breaks often",
    )
    .await;
    assert_eq!(
        look(&stage, &about, |issue| issue.title.clone()),
        "It breaks often"
    );
    assert_eq!(
        look(&stage, &about, |issue| issue.labels.clone()),
        ["lifecycle/frozen", "good first issue", "help wanted"]
    );
    let told_of_issue = told(&stage, &about);
    insta::assert_snapshot!(told_of_issue.join("\n"), @r#"
    @outsider: You can't close an active issue/PR unless you authored it or you are a collaborator.
    @outsider: Re-titling can only be requested by trusted users, like repository collaborators.
    @outsider: Closing this issue, marking it as "Not Planned".
    @author: Reopened this issue.
    @author: 
    	This request has been marked as suitable for new contributors.
    "#);
    says(&stage, "reviewer", &about, "/remove-help").await;
    assert_eq!(
        look(&stage, &about, |issue| issue.labels.clone()),
        ["lifecycle/frozen"]
    );
    assert_eq!(told(&stage, &about).len(), 4);

    let pr = opened(&stage, "author").await;
    says(&stage, "author", &pr, "/close").await;
    // A pull request without its branch cannot come back.
    let (repo, branch) = stage.world.pull(&pr, |_, _, pull| {
        (pull.head_repo.clone(), pull.head_branch.clone())
    });
    let author = stage.world.user("author");
    author.delete_branch(&repo, &branch).await.unwrap();
    says(&stage, "author", &pr, "/reopen").await;
    let said = told(&stage, &pr);
    assert_eq!(said[0], "@author: Closed this PR.");
    assert!(
        said[1].starts_with("@author: Failed to re-open PR: "),
        "{said:?}"
    );
    assert_eq!(said.len(), 2);
    assert_eq!(stage.dead().len(), 0);
}

#[tokio::test]
async fn plg_blunderbuss_001_a_new_pull_request_gets_its_size_labels_and_reviewers() {
    let stage = Stage::new(on(
        World::builder()
            .file("OWNERS", "approvers: [approver]\n")
            .file(
                "docs/OWNERS",
                "reviewers: [reviewer, author]\nlabels: [kind/docs]\n",
            )
            .file(".generated_files", "file-prefix gen_\n")
            .file(".gitattributes", "*.lock linguist-generated=true\n"),
        "plugins: {acme/widget: {plugins: [size, owners-label, blunderbuss]}}",
    ))
    .await;
    create_labels(&stage, &["kind/docs"]);
    for login in ["approver", "reviewer"] {
        stage.world.grant(login, Permission::Write);
    }
    let pr = stage
        .world
        .pr("fix")
        .file("docs/a.md", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n")
        .file("docs/gen_b.md", "x\n".repeat(1000))
        .file("docs/c.lock", "x\n".repeat(1000))
        .opened_by("author")
        .await;
    stage.settled().await;
    let mut labels = stage.world.labels(&pr);
    labels.sort();
    assert_eq!(labels, ["kind/docs", "size/S"]);
    let mut requested = stage
        .world
        .pull(&pr, |_, _, pull| pull.requested_reviewers.clone());
    requested.sort();
    assert_eq!(requested, ["approver", "reviewer"]);
    // What a repository says of its files is read out of git.
    let sandbox = stage.world.sandbox();
    assert_eq!(sandbox.calls("GET", "/repos/{}/{}/contents/{}"), 0);
    stage
        .world
        .push_fix(
            &pr,
            vec![trireme_sandbox::FileChange::write("docs/a.md", "1\n")],
        )
        .await;
    stage.settled().await;
    let mut labels = stage.world.labels(&pr);
    labels.sort();
    assert_eq!(labels, ["kind/docs", "size/XS"]);
    assert_eq!(stage.dead().len(), 0);
}

#[tokio::test]
async fn plg_blunderbuss_003_reviews_are_asked_for_once_tests_have_passed() {
    let stage = Stage::new(on(
        World::builder().file("OWNERS", "approvers: [approver]\n"),
        "plugins: {acme/widget: {plugins: [blunderbuss]}}\n\
         blunderbuss: {request_count: 1, wait_for_status: {}}",
    ))
    .await;
    stage.world.grant("approver", Permission::Write);
    let pr = opened(&stage, "author").await;
    let requested = |stage: &Stage| {
        stage
            .world
            .pull(&pr, |_, _, pull| pull.requested_reviewers.clone())
    };
    assert_eq!(requested(&stage), Vec::<String>::new());
    let bot = stage.world.user(BOT);
    for (description, expected) in [
        ("Not mergeable. Job unit has not succeeded.", &[][..]),
        ("Not mergeable. Needs approved, lgtm labels.", &["approver"]),
    ] {
        let status = NewStatus {
            state: StatusState::Pending,
            context: "tide".to_owned(),
            description: Some(description.to_owned()),
            target_url: None,
        };
        let head = stage.world.head(&pr);
        bot.set_status(stage.world.repo(), &head, status)
            .await
            .unwrap();
        stage.settled().await;
        assert_eq!(requested(&stage), expected, "{description}");
    }
    assert_eq!(stage.dead().len(), 0);
}

#[tokio::test]
async fn plg_milestone_001_leads_set_milestones_and_merges_get_theirs() {
    let stage = Stage::new(on(
        World::builder(),
        "plugins: {acme: {plugins: [milestone, milestonestatus, milestoneapplier, branchcleaner]}}\n\
         repo_milestone: {'': {maintainers_team: leads}}\n\
         milestone_applier: {acme/widget: {main: v2}}\n\
         branch_cleaner: {preserved_branches: {acme: [release-.*]}}",
    ))
    .await;
    let sandbox = stage.world.sandbox();
    sandbox.set_team(ORG, "leads", &["approver"]).unwrap();
    let repo = stage.world.repo();
    for title in ["v1", "v2"] {
        let now = sandbox.now();
        let create = |forge: &mut trireme_sandbox::forge::Forge| {
            forge.create_milestone(now, BOT, repo, title)
        };
        sandbox.change(create).unwrap();
    }
    // From the repository itself.
    stage.world.grant("author", Permission::Write);
    let pr = opened(&stage, "author").await;
    let milestone = || look(&stage, &pr, |issue| issue.milestone);
    says(&stage, "author", &pr, "/milestone v1\n/status in-review").await;
    assert_eq!(milestone(), None);
    says(&stage, "approver", &pr, "/milestone v1\n/status in-review").await;
    assert_eq!(milestone(), Some(1));
    assert_eq!(stage.world.labels(&pr), ["status/in-review"]);
    says(&stage, "approver", &pr, "/milestone v3").await;
    let mut said = told(&stage, &pr);
    said.sort();
    insta::assert_snapshot!(said.join("\n"), @"
    @approver: The provided milestone is not valid for this repository. Milestones in this repository: [`v1`, `v2`]
    @author: You must be a member of the [acme/leads](https://github.com/orgs/acme/teams/leads/members) GitHub team to set the milestone. If you believe you should be able to issue the /milestone command, please contact your SIG Chairs/TLs and have them propose you as an additional delegate for this responsibility.
    You must be a member of the [acme/leads](https://github.com/orgs/acme/teams/leads/members) GitHub team to add status labels. If you believe you should be able to issue the /status command, please contact your SIG Chairs/TLs and have them propose you as an additional delegate for this responsibility.
    ");
    says(&stage, "approver", &pr, "/milestone clear").await;
    assert_eq!(milestone(), None);

    let bot = stage.world.user(BOT);
    bot.merge(repo, pr.number, MergeSpec::default())
        .await
        .unwrap();
    stage.settled().await;
    assert_eq!(milestone(), Some(2));
    let branches = |stage: &Stage| -> Vec<String> {
        let repo = stage.world.repo();
        let sandbox = stage.world.sandbox();
        sandbox.read(|forge| forge.repo(repo).unwrap().branches.keys().cloned().collect())
    };
    assert_eq!(branches(&stage), ["main"]);
    let kept = stage.world.pr("release-1").opened_by("author").await;
    bot.merge(repo, kept.number, MergeSpec::default())
        .await
        .unwrap();
    stage.settled().await;
    assert_eq!(branches(&stage), ["main", "release-1"]);
    assert_eq!(stage.dead().len(), 0);
}

const JOBS: &str = r"
presubmits:
  acme/widget:
  - name: unit
    always_run: true
    spec: {containers: [{image: alpine}]}
  - name: lint
    optional: true
    spec: {containers: [{image: alpine}]}
";

#[tokio::test]
async fn plg_skip_001_a_newcomer_is_greeted_and_a_stale_status_goes() {
    let stage = Stage::new(Setup {
        config: JOBS,
        ..on(
            World::builder(),
            "plugins: {acme: {plugins: [skip, welcome]}}",
        )
    })
    .await;
    let members = opened(&stage, "author").await;
    assert_eq!(stage.said(&members), Vec::<String>::new());
    let pr = opened(&stage, "outsider").await;
    let greeting = "Welcome @outsider! It looks like this is your first PR to acme/widget 🎉";
    assert_eq!(stage.said(&pr), [greeting]);
    let second = stage.world.pr("more").opened_by("outsider").await;
    stage.settled().await;
    assert_eq!(stage.said(&second), Vec::<String>::new());

    let bot = stage.world.user(BOT);
    let head = stage.world.head(&pr);
    for context in ["lint", "unit"] {
        let status = NewStatus {
            state: StatusState::Failure,
            context: context.to_owned(),
            description: None,
            target_url: None,
        };
        let set = bot.set_status(stage.world.repo(), &head, status);
        set.await.unwrap();
    }
    stage.settled().await;
    // What the forge refuses is told.
    let setting = CallMatch {
        method: Some("POST".to_owned()),
        ..CallMatch::path("/repos/*/statuses/*")
    };
    let refuse = CallEffect::Status { code: 403 };
    let faults = stage.world.sandbox().faults();
    faults.on_call(setting, refuse, Some(1)).unwrap();
    says(&stage, "outsider", &pr, "/skip").await;
    assert!(
        told(&stage, &pr)[1].starts_with("@outsider: Cannot update PR status for context lint: ")
    );
    says(&stage, "outsider", &pr, "/skip").await;
    let statuses = stage.world.statuses(&pr);
    assert_eq!(
        statuses["lint"],
        (StatusState::Success, "Skipped".to_owned())
    );
    assert_eq!(statuses["unit"].0, StatusState::Failure);
    assert_eq!(stage.dead().len(), 0);
}

#[tokio::test]
async fn plg_milestoneapplier_001_an_unknown_title_is_an_error_that_operators_see() {
    let stage = Stage::new(on(
        World::builder(),
        "plugins: {acme: {plugins: [milestoneapplier]}}\n\
         milestone_applier: {acme/widget: {main: v9}}",
    ))
    .await;
    let pr = opened(&stage, "author").await;
    let bot = stage.world.user(BOT);
    let repo = stage.world.repo();
    bot.merge(repo, pr.number, MergeSpec::default())
        .await
        .unwrap();
    stage.settled().await;
    let dead = stage.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        dead[0].error,
        "The configured milestone v9 for main branch does not exist in the acme/widget repo"
    );
    assert_eq!(look(&stage, &pr, |issue| issue.milestone), None);
}
