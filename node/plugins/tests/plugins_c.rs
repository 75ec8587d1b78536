//! What cherrypicker, needs-rebase, issue-management, slackevents, jira and refresh do for people, told over the sandbox
//! forge.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::State as Shared,
    http::{Method, Uri},
};
use jiff::{SignedDuration, Timestamp};
use stage::{Setup, Stage};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use trireme_outside::jira::JiraAuth;
use trireme_plugins::{
    CherrypickerOptions, JiraOptions, NeedsRebaseOptions, PluginOptions, SlackOptions,
};
use trireme_proto::state::{Report, SettleReport, command::Body};
use trireme_sandbox::{
    Clock, FileChange, MergeSpec,
    faults::{CallEffect, CallMatch},
    forge::{Permission, RepoName},
    world::{ORG, Pr, REPO, World},
};

use trireme_state::GITHUB_REPORTER;

/// A story in which `approver` may push.
async fn staged(setup: Setup) -> Stage {
    let stage = Stage::new(setup).await;
    stage.world.grant("approver", Permission::Write);
    stage
}

async fn merge(stage: &Stage, pr: &Pr) {
    let by = stage.world.user("approver");
    let merged = by.merge(&pr.repo, pr.number, MergeSpec::default()).await;
    merged.unwrap();
}

/// What was said, without what answers quote.
fn said(stage: &Stage, pr: &Pr) -> Vec<String> {
    let said = stage.said(pr).into_iter();
    said.map(|text| text.split("\n\n<details>").next().unwrap().to_owned())
        .collect()
}

fn cherrypicker(options: CherrypickerOptions) -> Setup {
    Setup {
        world: World::builder().file("a.txt", "one\n"),
        plugins: "external_plugins: {acme: [{name: cherrypicker, events: [issue_comment, pull_request]}]}"
            .to_owned(),
        options: PluginOptions {
            cherrypicker: options,
            ..PluginOptions::default()
        },
        ..Setup::default()
    }
}

/// PLG-CHERRYPICK-003, PLG-CHERRYPICK-005, PLG-CHERRYPICK-007, PLG-CHERRYPICK-009, PLG-CHERRYPICK-010
#[tokio::test]
async fn plg_cherrypick_010_what_was_asked_for_is_picked_once_it_is_merged() {
    let mut setup = cherrypicker(CherrypickerOptions {
        labels: vec!["backport".to_owned()],
        ..CherrypickerOptions::default()
    });
    let behind = Timestamp::now() - SignedDuration::from_secs(60);
    setup.world = setup.world.clock(Clock::manual(behind));
    let stage = staged(setup).await;
    let release = vec![FileChange::write("RELEASE", "1\n")];
    stage.world.push("approver", "release-1", release).await;
    let fix = stage.world.pr("fix").file("a.txt", "two\n");
    let pr = fix.title("Fix a").opened_by("author").await;
    stage
        .world
        .comment("author", &pr, "/cherrypick release-1")
        .await;
    stage.settled().await;
    assert_eq!(
        said(&stage, &pr),
        [
            "@author: once the present PR merges, I will cherry-pick it on top of `release-1` in a new PR and assign it to you."
        ]
    );
    merge(&stage, &pr).await;
    stage.settled().await;
    assert_eq!(
        said(&stage, &pr)[1..],
        ["@author: new pull request created: #2"]
    );
    let pick = stage.world.pr_number(2);
    stage.world.pull(&pick, |_, issue, pull| {
        assert_eq!(issue.title, "[release-1] Fix a");
        assert_eq!(pull.base_branch, "release-1");
        assert_eq!(pull.head_branch, "cherry-pick-1-to-release-1");
        assert_eq!(
            issue.body.as_deref(),
            Some("This is an automated cherry-pick of #1\n\n/assign author")
        );
    });
    assert_eq!(stage.world.labels(&pick), ["backport"]);
    assert_eq!(stage.world.assignees(&pick), ["author"]);
    // Once is enough, and it is found where it was made: before the second request, by the forge's clock.
    stage
        .world
        .comment("author", &pr, "/cherrypick release-1")
        .await;
    stage.settled().await;
    let last = said(&stage, &pr).pop().unwrap();
    assert!(
        last.starts_with("@author: Looks like #1 has already been cherry picked in http"),
        "{last}"
    );
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-CHERRYPICK-007, PLG-CHERRYPICK-009: what fails is told, and the next target is picked all the same.
/// GHC-003: what is picked is signed with the key that is configured, and git believes it.
#[tokio::test]
async fn ghc_003_picked_commits_are_signed() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "robot", "-f"])
        .arg(&key)
        .status();
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no ssh-keygen on this machine");
            return;
        }
        made => assert!(made.unwrap().success()),
    }
    let mut setup = cherrypicker(CherrypickerOptions::default());
    setup.options.git_signing_key = Some(key.clone());
    let stage = staged(setup).await;
    let release = vec![FileChange::write("RELEASE", "1\n")];
    stage.world.push("approver", "release-1", release).await;
    let fix = stage.world.pr("fix").file("a.txt", "two\n");
    let pr = fix.opened_by("author").await;
    merge(&stage, &pr).await;
    let asked = "/cherrypick release-1";
    stage.world.comment("author", &pr, asked).await;
    stage.settled().await;
    let head = stage.world.head(&stage.world.pr_number(2));
    let believed = dir.path().join("believed");
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    std::fs::write(&believed, format!("robot {public}")).unwrap();
    let clone = dir.path().join("clone");
    let url = format!("{}/{ORG}/{REPO}", stage.world.sandbox().url());
    // The sandbox runs in the same thread.
    let git = async |args: &[&str]| {
        let run = tokio::process::Command::new("git").args(args).output();
        let output = run.await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    };
    let clone = clone.to_str().unwrap();
    git(&["init", "-q", "--bare", clone]).await;
    git(&["-C", clone, "fetch", "-q", &url, "refs/pull/2/head"]).await;
    let believed = format!("gpg.ssh.allowedSignersFile={}", believed.display());
    let said = git(&["-C", clone, "-c", &believed, "verify-commit", &head]).await;
    assert!(said.contains("Good \"git\" signature for robot"), "{said}");
}

#[tokio::test]
async fn plg_cherrypick_009_what_does_not_fit_is_told_and_an_issue_opened() {
    let stage = staged(cherrypicker(CherrypickerOptions {
        create_issue_on_conflict: true,
        ..CherrypickerOptions::default()
    }))
    .await;
    let other = vec![FileChange::write("a.txt", "another\n")];
    stage.world.push("approver", "old", other).await;
    let fix = stage.world.pr("fix").file("a.txt", "two\n");
    let pr = fix.title("Fix a").opened_by("author").await;
    merge(&stage, &pr).await;
    stage.settled().await;
    let asked = "/cherrypick old\n/cherrypick none";
    stage.world.comment("author", &pr, asked).await;
    stage.settled().await;
    let said = said(&stage, &pr);
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].starts_with("@author: cannot checkout `none`: "),
        "{}",
        said[0]
    );
    assert!(
        said[1].starts_with("@author: #1 failed to apply on top of branch \"old\":\n```\n"),
        "{}",
        said[1]
    );
    assert!(said[1].contains("a.txt"), "{}", said[1]);
    assert_eq!(
        said[2],
        "@author: new issue created for failed cherrypick: #2"
    );
    stage
        .world
        .issue_seen(&stage.world.pr_number(2), |_, issue| {
            assert_eq!(issue.title, "[old] Fix a");
            let body = issue.body.clone().unwrap_or_default();
            assert!(
                body.starts_with("Manual cherrypick required.\n\n#1 failed to apply"),
                "{body}"
            );
            assert!(body.contains("a.txt"), "{body}");
        });
    assert_eq!(stage.dead().len(), 0);
}

fn needs_rebase() -> Setup {
    Setup {
        world: World::builder().file("a.txt", "one\n"),
        plugins: "external_plugins: {acme: [{name: needs-rebase, events: [pull_request]}]}"
            .to_owned(),
        options: PluginOptions {
            needs_rebase: NeedsRebaseOptions {
                update_period: Duration::from_millis(200),
                ..NeedsRebaseOptions::default()
            },
            ..PluginOptions::default()
        },
        repairing_every: Duration::from_millis(250),
        ..Setup::default()
    }
}

/// PLG-NEEDSREBASE-001, PLG-NEEDSREBASE-002
#[tokio::test]
async fn plg_needsrebase_002_conflicts_that_others_make_are_found() {
    let stage = staged(needs_rebase()).await;
    let first = stage.world.pr("first").file("a.txt", "first\n");
    let first = first.opened_by("author").await;
    let second = stage.world.pr("second").file("a.txt", "second\n");
    let second = second.opened_by("author").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&second), Vec::<String>::new());
    merge(&stage, &first).await;
    stage.world.expect_label(&second, "needs-rebase").await;
    assert_eq!(said(&stage, &second), ["PR needs rebase."]);
    let rebased = vec![FileChange::write("b.txt", "second\n")];
    stage.world.force_push(&second, rebased).await;
    stage.world.expect_no_label(&second, "needs-rebase").await;
    assert_eq!(said(&stage, &second), Vec::<String>::new());
    stage.settled().await;
}

/// PLG-ISSUEMGMT-001, PLG-ISSUEMGMT-002, HOOK-064
#[tokio::test]
async fn plg_issuemgmt_001_issues_are_moved_linked_and_pinned() {
    let stage = staged(Setup {
        world: World::builder().file("OWNERS", "approvers: [approver]\n"),
        plugins: "plugins: {acme: {plugins: [issue-management, transfer-issue]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let other = RepoName::new(ORG, "gadget");
    stage
        .world
        .add_repo(&other, vec![FileChange::write("README", "x")])
        .await;
    let stays = stage.world.issue("Stays").opened_by("author").await;
    let pr = stage
        .world
        .pr("fix")
        .body("A fix")
        .opened_by("author")
        .await;
    stage.world.comment("author", &pr, "/link-issue 1 7").await;
    stage.world.comment("approver", &stays, "/pin-issue").await;
    stage
        .world
        .comment("outsider", &stays, "/transfer gadget")
        .await;
    stage.settled().await;
    let body = stage.world.pull(&pr, |_, issue, _| issue.body.clone());
    assert_eq!(body.as_deref(), Some("A fix\n\nFixes #1"));
    assert_eq!(
        said(&stage, &pr),
        [
            "@author: Updated the `Fixes` line in the pull request body.\n\nHowever, there are one or more errors with issue references provided. Please cross check and retry.\n* Issue **#7** in repository **acme/widget** does not exist.\n"
        ]
    );
    assert_eq!(
        said(&stage, &stays),
        [
            "@approver: Issue #1 has been pinned to the repository.",
            "@outsider: You must be an org member to transfer this issue."
        ]
    );
    let goes = stage.world.issue("Goes").opened_by("author").await;
    stage
        .world
        .comment("author", &goes, "/transfer gadget")
        .await;
    stage.settled().await;
    let there = stage.world.at(other);
    let moved = there.pr_number(1);
    there.issue_seen(&moved, |_, issue| assert_eq!(issue.title, "Goes"));
    assert_eq!(stage.dead().len(), 0);
}

type Call = (Method, Uri, String);

/// A service elsewhere: answers as told, and tells what it was asked.
async fn service(
    answer: fn(&Method, &str) -> &'static str,
) -> (String, mpsc::UnboundedReceiver<Call>) {
    let (tell, told) = mpsc::unbounded_channel();
    let take = async move |Shared(tell): Shared<mpsc::UnboundedSender<Call>>,
                           method: Method,
                           uri: Uri,
                           body: Bytes| {
        let text = answer(&method, uri.path());
        tell.send((method, uri, String::from_utf8(body.to_vec()).unwrap()))
            .unwrap();
        match text {
            "" => (axum::http::StatusCode::NOT_FOUND, "{}"),
            text => (axum::http::StatusCode::OK, text),
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(take).with_state(tell);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, told)
}

async fn next(told: &mut mpsc::UnboundedReceiver<Call>) -> Call {
    let next = timeout(Duration::from_secs(20), told.recv()).await;
    next.unwrap().unwrap()
}

const SLACK: &str = "plugins: {acme: {plugins: [slackevents]}}\nslack: {mergewarnings: [{repos: [acme], channels: [ops, dev]}]}";

/// PLG-SLACKEVENTS-001
#[tokio::test]
async fn plg_slackevents_001_channels_are_told_of_a_push_by_hand() {
    let (api, mut told) = service(|_, _| r#"{"ok": true}"#).await;
    let stage = staged(Setup {
        plugins: SLACK.to_owned(),
        options: PluginOptions {
            slack: Some(SlackOptions {
                api,
                token: Arc::new(|| "xoxb-secret\n".to_owned()),
            }),
            ..PluginOptions::default()
        },
        ..Setup::default()
    })
    .await;
    let change = vec![FileChange::write("a.txt", "by hand")];
    stage.world.push("approver", "main", change).await;
    stage.settled().await;
    for channel in ["ops", "dev"] {
        let (method, uri, body) = next(&mut told).await;
        assert_eq!((method, uri.path()), (Method::POST, "/chat.postMessage"));
        let fields: Vec<(String, String)> = url::form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect();
        let field = |name: &str| {
            fields
                .iter()
                .find(|(key, _)| key == name)
                .unwrap()
                .1
                .as_str()
        };
        assert_eq!(field("channel"), channel);
        assert_eq!(field("token"), "xoxb-secret");
        assert_eq!((field("username"), field("icon_emoji")), ("prow", ":prow:"));
        let text = field("text");
        let start = "*Warning:* approver (<@approver>) manually merged 1 commit(s) into main: http";
        assert!(text.starts_with(start), "{text}");
    }
    assert_eq!(stage.dead().len(), 0);
}

/// HOOK-002
#[tokio::test]
async fn hook_002_without_a_token_nobody_is_told_and_nothing_is_wrong() {
    let stage = staged(Setup {
        plugins: SLACK.to_owned(),
        ..Setup::default()
    })
    .await;
    let change = vec![FileChange::write("a.txt", "by hand")];
    stage.world.push("approver", "main", change).await;
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0);
}

fn jira(method: &Method, path: &str) -> &'static str {
    match (method.as_str(), path) {
        ("GET", "/rest/api/2/project") => r#"[{"key": "ABC"}]"#,
        ("GET", "/rest/api/2/issue/ABC-1") => r#"{"key": "ABC-1"}"#,
        ("GET", "/rest/api/2/issue/ABC-1/remotelink") => "[]",
        ("POST", "/rest/api/2/issue/ABC-1/remotelink") => r#"{"id": 1}"#,
        _ => "",
    }
}

/// PLG-JIRA-001, PLG-JIRA-002
#[tokio::test]
async fn plg_jira_002_a_comment_and_the_issue_it_names_link_to_each_other() {
    let (url, mut told) = service(jira).await;
    let stage = staged(Setup {
        plugins: "plugins: {acme: {plugins: [jira]}}".to_owned(),
        options: PluginOptions {
            jira: Some(JiraOptions {
                url: url.clone(),
                auth: JiraAuth::Anonymous,
                dry_run: false,
            }),
            ..PluginOptions::default()
        },
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").title("Fix").opened_by("author").await;
    let text = "see ABC-1 ABC-2 and XYZ-3";
    stage.world.comment("author", &pr, text).await;
    stage.settled().await;
    let linked = stage.world.comments(&pr).pop().unwrap().body;
    assert_eq!(
        linked,
        text.replace("ABC-1", &format!("[ABC-1]({url}/browse/ABC-1)"))
    );
    let mut calls = Vec::new();
    while let Ok((method, uri, body)) = told.try_recv() {
        if method == Method::POST {
            let link: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(link["object"]["title"], "acme/widget#1: Fix");
            assert_eq!(link["object"]["icon"]["title"], "GitHub");
        }
        calls.push(format!("{method} {}", uri.path()));
    }
    // The edit is an event as well, and looked at.
    assert_eq!(
        calls[..5],
        [
            "GET /rest/api/2/project",
            "GET /rest/api/2/issue/ABC-1",
            "GET /rest/api/2/issue/ABC-2",
            "GET /rest/api/2/issue/ABC-1/remotelink",
            "POST /rest/api/2/issue/ABC-1/remotelink"
        ]
    );
}

/// A refusal by the forge is told, once.
#[tokio::test]
async fn plg_issuemgmt_004_what_github_refuses_is_told() {
    let stage = staged(Setup {
        world: World::builder().file("OWNERS", "approvers: [approver]\n"),
        plugins: "plugins: {acme/widget: {plugins: [issue-management]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let issue = stage.world.issue("Bug").opened_by("author").await;
    stage.settled().await;
    // Pins are written through GraphQL, which the plugin does not ask otherwise.
    let graphql = CallMatch {
        method: Some("POST".to_owned()),
        ..CallMatch::path("/graphql")
    };
    let faults = stage.world.sandbox().faults();
    faults
        .on_call(graphql, CallEffect::Status { code: 403 }, Some(1))
        .unwrap();
    stage.world.comment("approver", &issue, "/pin-issue").await;
    stage.settled().await;
    assert_eq!(
        said(&stage, &issue),
        ["@approver: Unable to pin issue #1. Please try again later."]
    );
    assert_eq!(stage.dead().len(), 0);
}

const SCHEDULED: &str = r"
scheduler: {enabled: true}
postsubmits:
  acme/widget:
  - name: publish
    labels: {team: a}
    annotations: {note: b}
    spec: {containers: [{image: alpine}]}
  - name: notify
    spec: {containers: [{image: alpine}]}
";

/// PLG-TRIGGER-022, PLG-TRIGGER-041: all that a push starts is made in one entry of the log, so that none is missing.
#[tokio::test]
async fn plg_trigger_041_the_jobs_of_a_push_are_of_what_was_pushed() {
    let stage = staged(Setup {
        config: SCHEDULED,
        plugins: "plugins: {acme/widget: {plugins: [trigger]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let change = vec![FileChange::write("a.txt", "by hand")];
    let sha = stage.world.push("approver", "main", change).await;
    stage.settled().await;
    let view = stage.store().view();
    let delivery = view.deliveries_newest_first(None).next().unwrap();
    let jobs: Vec<_> = view.live_jobs().map(|job| (**job).clone()).collect();
    assert_eq!(jobs.len(), 2);
    for record in &jobs {
        assert_eq!(
            stage::describe(record),
            format!("{} scheduling", record.job)
        );
        let job = trireme_prowjob::record::prow_job(record).unwrap();
        let refs = job.spec.refs.unwrap();
        assert_eq!((refs.org.as_str(), refs.repo.as_str()), (ORG, REPO));
        assert_eq!((refs.base_ref.as_str(), &refs.base_sha), ("main", &sha));
        assert!(
            refs.repo_link.ends_with("/acme/widget"),
            "{}",
            refs.repo_link
        );
        assert!(refs.base_link.contains("/compare/"), "{}", refs.base_link);
        assert_eq!(job.metadata.labels["event-GUID"], delivery.guid);
        if record.job == "publish" {
            assert_eq!(job.metadata.labels["team"], "a");
            assert_eq!(job.metadata.annotations["note"], "b");
        }
    }
}

/// PLG-TRIGGER-023
#[tokio::test]
async fn plg_trigger_023_what_failed_among_githubs_workflows_runs_again() {
    let stage = staged(Setup {
        config: "presubmits: {acme/widget: [{name: unit, always_run: true, spec: {containers: [{image: alpine}]}}]}",
        plugins: "plugins: {acme/widget: {plugins: [trigger]}}\ntriggers: [{repos: [acme], trigger_github_workflows: true}]"
            .to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    let failed = stage.world.workflow_run(&pr, "CI", Some("failure"));
    let passed = stage.world.workflow_run(&pr, "Lint", Some("success"));
    stage.world.comment("author", &pr, "/test all").await;
    stage.settled().await;
    assert_eq!(stage.world.workflow_run_seen(failed).2, 1);
    assert_eq!(stage.world.workflow_run_seen(passed).2, 0);
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-REFRESH-001
#[tokio::test]
async fn plg_refresh_001_what_was_told_is_owed_again() {
    let stage = staged(Setup {
        config: "presubmits: {acme/widget: [{name: unit, always_run: true, spec: {containers: [{image: alpine}]}}]}",
        plugins: "plugins: {acme/widget: {plugins: [trigger]}}\nexternal_plugins: {acme: [{name: refresh, events: [issue_comment]}]}"
            .to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    let owed = || -> Vec<Report> {
        let view = stage.store().view();
        let owed = view
            .reports_owed()
            .filter(|report| report.reporter == GITHUB_REPORTER);
        owed.map(|report| Report::clone(report)).collect()
    };
    let told = owed();
    assert_eq!(told.len(), 1);
    stage
        .propose(Body::SettleReport(SettleReport {
            job_id: told[0].job_id.clone(),
            reporter: told[0].reporter.clone(),
            state: told[0].owed,
            ..SettleReport::default()
        }))
        .await;
    assert_eq!(owed(), []);
    stage.world.comment("author", &pr, "/refresh").await;
    stage.settled().await;
    assert_eq!(owed()[0].job_id, told[0].job_id);
    assert_eq!(stage.dead().len(), 0);
}
