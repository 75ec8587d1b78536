//! Every capability against the sandbox forge; each request judged by GitHub's published descriptions, where present.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

mod actions;
mod conversations;
mod endpoints;
mod people;
mod repositories;
mod reviews;
mod scene;
#[path = "../shared/mod.rs"]
mod shared;

use std::sync::Arc;
use std::time::Duration;

use trireme_forge::git::{GitCredentials, MirrorLimits, Mirrors, MirrorsOptions};
use trireme_forge::{
    CommitStatus, EntryKind, FileStatus, HookScope, MergeError, MergeMethod, MergeRequest,
    Permission, Refusal, RepoId, ReviewState, SearchRequest, State, StatusState, UserKind,
};
use trireme_sandbox::faults::{CallEffect, CallMatch};
use trireme_sandbox::forge::ReviewState as SandboxReview;
use trireme_sandbox::world::{BOT, ORG, REPO};

use scene::Scene;

#[tokio::test]
async fn a_pull_request_is_what_it_is() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);

    let pull = forge.pull_request(repo, number).await.unwrap();
    assert_eq!(
        (pull.title.as_str(), pull.body.as_str()),
        ("Fix the widget", "please")
    );
    assert!(pull.author.is("Author") && pull.author.kind == UserKind::User);
    assert!(pull.is_open() && !pull.draft && !pull.merged);
    assert_eq!(pull.mergeable, Some(true));
    assert_eq!(
        (pull.repo.clone(), pull.base.branch.as_str()),
        (repo.clone(), "main")
    );
    assert_eq!(pull.head.sha, scene.world.head(&pr));
    assert_eq!(pull.commits, Some(1));
    assert!(
        pull.html_url
            .ends_with(&format!("/{ORG}/{REPO}/pull/{number}"))
    );

    let open = forge.open_pull_requests(repo).await.unwrap();
    assert_eq!(
        open.iter().map(|pull| pull.number).collect::<Vec<_>>(),
        [number]
    );
    let files = forge.changed_files(repo, number).await.unwrap();
    assert_eq!(
        (files[0].path.as_str(), files[0].status),
        ("docs/a b.md", FileStatus::Added)
    );
    let commits = forge.pull_request_commits(repo, number).await.unwrap();
    assert_eq!(commits.last().unwrap().sha, pull.head.sha);

    let commit = forge.commit(repo, &pull.head.sha).await.unwrap();
    assert_eq!(commit.parents, std::slice::from_ref(&pull.base.sha));
    assert_eq!(
        forge.branch_head(repo, "main").await.unwrap(),
        pull.base.sha
    );
    assert!(
        forge
            .branch_head(repo, "no/such")
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        forge
            .pull_request(repo, 99)
            .await
            .unwrap_err()
            .is_not_found()
    );

    forge.close_pull_request(repo, number).await.unwrap();
    assert_eq!(
        forge.pull_request(repo, number).await.unwrap().state,
        State::Closed
    );
    forge.reopen_pull_request(repo, number).await.unwrap();
    let issue = forge.issue(repo, number).await.unwrap();
    assert!(issue.is_pull_request && issue.state == State::Open);
    scene.done();
}

#[tokio::test]
async fn comments_come_change_and_go() {
    let scene = Scene::new().await;
    let (_, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let made = forge.create_comment(repo, number, "first").await.unwrap();
    forge.create_comment(repo, number, "second").await.unwrap();
    let edited = forge.edit_comment(repo, made.id, "changed").await.unwrap();
    assert_eq!((edited.id, edited.body.as_str()), (made.id, "changed"));
    let bodies = async || {
        let comments = forge.comments(repo, number).await.unwrap();
        comments
            .into_iter()
            .map(|comment| comment.body)
            .collect::<Vec<_>>()
    };
    assert_eq!(bodies().await, ["changed", "second"]);
    forge.delete_comment(repo, made.id).await.unwrap();
    forge.delete_comment(repo, made.id).await.unwrap();
    assert_eq!(bodies().await, ["second"]);
    assert!(forge.bot_user(ORG).await.unwrap().is(&made.author.login));
    scene.done();
}

/// HOOK-025, GHC-017, GHC-023
#[tokio::test]
async fn labels_and_assignees_are_set_and_removed() {
    let scene = Scene::new().await;
    let (_, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let names = async || {
        let labels = forge.labels(repo, number).await.unwrap();
        labels
            .into_iter()
            .map(|label| label.name)
            .collect::<Vec<_>>()
    };
    forge
        .add_labels(repo, number, &["lgtm", "do-not-merge/hold"])
        .await
        .unwrap();
    forge.add_labels(repo, number, &["lgtm"]).await.unwrap();
    assert_eq!(names().await.len(), 2);
    forge
        .remove_label(repo, number, "do-not-merge/hold")
        .await
        .unwrap();
    forge
        .remove_label(repo, number, "do-not-merge/hold")
        .await
        .unwrap();
    assert_eq!(names().await, ["lgtm"]);
    assert!(
        forge
            .pull_request(repo, number)
            .await
            .unwrap()
            .has_label("LGTM")
    );
    assert!(
        forge
            .repo_labels(repo)
            .await
            .unwrap()
            .iter()
            .any(|label| label.name == "lgtm")
    );
    assert!(
        forge
            .remove_label(repo, 99, "lgtm")
            .await
            .unwrap_err()
            .is_not_found()
    );

    assert!(
        forge
            .assign(repo, number, &["reviewer", "nobody-at-all"])
            .await
            .unwrap()
            .contains(&"nobody-at-all".to_owned())
    );
    let assignees = forge.pull_request(repo, number).await.unwrap().assignees;
    assert!(assignees.iter().any(|user| user.is("reviewer")));
    assert!(
        forge
            .unassign(repo, number, &["reviewer"])
            .await
            .unwrap()
            .is_empty()
    );

    scene.done();
}

/// GHC-017
#[tokio::test]
async fn reviews_are_requested_of_those_who_can() {
    let scene = Scene::new().await;
    let (_, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    assert_eq!(
        forge
            .request_review(repo, number, &["reviewer", "nobody-at-all"])
            .await
            .unwrap(),
        ["nobody-at-all"]
    );
    let requested = forge
        .pull_request(repo, number)
        .await
        .unwrap()
        .requested_reviewers;
    assert!(requested.iter().any(|user| user.is("reviewer")));
    assert!(
        forge
            .unrequest_review(repo, number, &["reviewer"])
            .await
            .unwrap()
            .is_empty()
    );
    scene.done();
}

#[tokio::test]
async fn reviews_are_read() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    scene
        .world
        .review("reviewer", &pr, SandboxReview::Approved, "fine")
        .await;
    let reviews = scene.forge.reviews(&scene.repo, number).await.unwrap();
    assert_eq!(
        (reviews[0].state, reviews[0].body.as_str()),
        (ReviewState::Approved, "fine")
    );
    assert!(reviews[0].submitted_at.is_some());
    assert!(
        scene
            .forge
            .review_comments(&scene.repo, number)
            .await
            .unwrap()
            .is_empty()
    );
    scene.done();
}

#[tokio::test]
async fn statuses_are_set_and_combined() {
    let scene = Scene::new().await;
    let (pr, _) = scene.pr().await;
    let (forge, repo, sha) = (&scene.forge, &scene.repo, scene.world.head(&pr));
    let status = |context: String, state| CommitStatus {
        context,
        state,
        description: "x".into(),
        target_url: "https://example.com/".into(),
    };
    // More than a page, the last of each context counts.
    for n in 0..101 {
        forge
            .create_status(
                repo,
                &sha,
                &status(format!("job-{n}"), StatusState::Pending),
            )
            .await
            .unwrap();
    }
    forge
        .create_status(repo, &sha, &status("job-0".into(), StatusState::Success))
        .await
        .unwrap();
    let combined = forge.combined_status(repo, &sha).await.unwrap();
    assert_eq!(combined.statuses.len(), 101);
    assert_eq!(combined.state, StatusState::Pending);
    let first = combined
        .statuses
        .iter()
        .find(|status| status.context == "job-0")
        .unwrap();
    assert_eq!(*first, status("job-0".into(), StatusState::Success));

    let sandbox = scene.world.sandbox();
    sandbox
        .set_check_run(
            scene.world.repo(),
            &sha,
            "lint",
            "completed",
            Some("neutral"),
        )
        .unwrap();
    let runs = forge.check_runs(repo, &sha).await.unwrap();
    assert_eq!(
        (
            runs[0].name.as_str(),
            runs[0].status.as_str(),
            runs[0].conclusion.as_str()
        ),
        ("lint", "COMPLETED", "NEUTRAL")
    );
    scene.done();
}

#[tokio::test]
async fn people_are_known() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    assert!(forge.is_org_member(ORG, "author").await.unwrap());
    assert!(!forge.is_org_member(ORG, "outsider").await.unwrap());
    assert!(!forge.is_collaborator(repo, "outsider").await.unwrap());
    assert!(forge.is_collaborator(repo, BOT).await.unwrap());
    assert_eq!(
        forge.permission(repo, BOT).await.unwrap(),
        Permission::Admin
    );
    assert!(forge.permission(repo, "outsider").await.unwrap() <= Permission::Read);
    assert!(
        forge
            .collaborators(repo)
            .await
            .unwrap()
            .contains(&BOT.to_owned())
    );
    scene
        .world
        .sandbox()
        .set_team(ORG, "owners", &["approver"])
        .unwrap();
    assert_eq!(
        forge.team_members(ORG, "owners").await.unwrap(),
        ["approver"]
    );
    let bot = forge.bot_user(ORG).await.unwrap();
    assert_eq!((bot.login.as_str(), bot.app), (BOT, false));
    scene.done();
}

/// GHC-018
#[tokio::test]
async fn files_are_handed_out() {
    let scene = Scene::new().await;
    let (pr, _) = scene.pr().await;
    let (forge, repo, sha) = (&scene.forge, &scene.repo, scene.world.head(&pr));
    assert_eq!(
        forge.file(repo, "docs/a b.md", &sha).await.unwrap(),
        b"hello\n"
    );
    assert!(
        forge
            .file(repo, "docs/a b.md", "main")
            .await
            .unwrap_err()
            .is_not_found()
    );
    let entries = forge.directory(repo, "docs", &sha).await.unwrap();
    assert_eq!(
        (entries[0].path.as_str(), entries[0].kind),
        ("docs/a b.md", EntryKind::File)
    );
    let repository = forge.repository(repo).await.unwrap();
    assert_eq!(
        (repository.id, repository.default_branch.as_str()),
        (repo.clone(), "main")
    );
    assert!(
        repository.allow_merge_commit
            && repository.allow_squash_merge
            && repository.allow_rebase_merge
    );
    scene.done();
}

/// GHC-016
#[tokio::test]
async fn a_merge_needs_the_head_it_was_decided_on() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let mut request = scene.merge_of(&pr, MergeMethod::Squash);
    request.title = Some("Fix (#1)".into());
    let stale = MergeRequest {
        expected_head_sha: "0".repeat(40),
        ..request.clone()
    };
    let Err(MergeError::Refused(refused)) = forge.merge(repo, number, &stale).await else {
        panic!("merged a head that nobody has seen");
    };
    assert_eq!(refused.kind, Refusal::ModifiedHead);

    let merged = forge.merge(repo, number, &request).await.unwrap();
    assert_eq!(forge.branch_head(repo, "main").await.unwrap(), merged.sha);
    let commit = forge.commit(repo, "main").await.unwrap();
    assert!(commit.message.starts_with("Fix (#1)"));
    let pull = forge.pull_request(repo, number).await.unwrap();
    assert!(pull.merged);
    assert_eq!(pull.merge_commit_sha, Some(merged.sha));

    let Err(MergeError::Refused(refused)) = forge.merge(repo, number, &request).await else {
        panic!("merged twice");
    };
    assert_eq!(refused.kind, Refusal::Unmergeable);
    scene.done();
}

#[tokio::test]
async fn a_merge_whose_answer_is_lost_is_in_doubt_and_sent_once() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let request = scene.merge_of(&pr, MergeMethod::Merge);
    let faults = scene.world.sandbox().faults();
    faults
        .on_call(CallMatch::merges(), CallEffect::AnswerLost, Some(1))
        .unwrap();
    let error = scene
        .forge
        .merge(&scene.repo, number, &request)
        .await
        .unwrap_err();
    assert!(error.maybe_sent() && error.is_outage(), "{error}");
    assert!(
        scene
            .forge
            .pull_request(&scene.repo, number)
            .await
            .unwrap()
            .merged
    );
    assert_eq!(
        scene.world.sandbox().merges_of(&request.expected_head_sha),
        1
    );
    scene.done();
}

#[tokio::test]
async fn trouble_that_passes_is_not_noticed() {
    let scene = Scene::new().await;
    let (_, number) = scene.pr().await;
    let faults = scene.world.sandbox().faults();
    for effect in [
        CallEffect::Status { code: 503 },
        CallEffect::Refused,
        CallEffect::AnswerLost,
    ] {
        faults
            .on_call(CallMatch::path("/repos/*/labels"), effect, Some(1))
            .unwrap();
    }
    scene
        .forge
        .add_labels(&scene.repo, number, &["lgtm"])
        .await
        .unwrap();
    faults
        .on_call(
            CallMatch::default(),
            CallEffect::SecondaryRateLimit {
                retry_after_seconds: 60,
            },
            Some(1),
        )
        .unwrap();
    let error = scene.forge.labels(&scene.repo, number).await.unwrap_err();
    assert!(error.is_outage() && error.retry_at().is_some(), "{error}");
    scene.done();
}

#[tokio::test]
async fn a_lost_webhook_is_found_and_sent_again() {
    let scene = Scene::new().await;
    let target = "http://127.0.0.1:9/hook";
    let hook = scene.world.hook_to(&[target]);
    let (forge, repo) = (&scene.forge, &scene.repo);
    let before = scene.world.sandbox().now();
    scene.pr().await;
    scene
        .world
        .sandbox()
        .until_delivered(Duration::from_secs(10))
        .await
        .unwrap();

    let hooks = [
        forge.repo_hooks(repo).await.unwrap(),
        forge.org_hooks(ORG).await.unwrap(),
    ]
    .concat();
    let found = hooks.iter().find(|found| found.url == target).unwrap();
    let scope = match forge.repo_hooks(repo).await.unwrap().is_empty() {
        true => HookScope::Org {
            org: ORG.to_owned(),
            hook: found.id,
        },
        false => HookScope::Repo {
            repo: repo.clone(),
            hook: found.id,
        },
    };
    let (deliveries, cut) = forge
        .hook_deliveries_since(&scope, before, 1000)
        .await
        .unwrap();
    assert!(!cut);
    assert!(deliveries.is_sorted_by_key(|delivery| delivery.delivered_at));
    let opened = deliveries
        .iter()
        .find(|delivery| delivery.event == "pull_request")
        .unwrap();
    assert!(!opened.accepted() && opened.action.as_deref() == Some("opened"));
    let sent = forge.delivered_request(&scope, opened.id).await.unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&sent.payload).unwrap();
    assert_eq!(payload["action"], "opened");

    forge.redeliver(&scope, opened.id).await.unwrap();
    scene
        .world
        .sandbox()
        .until_delivered(Duration::from_secs(10))
        .await
        .unwrap();
    let again = scene.world.sandbox().deliveries(hook);
    assert_eq!(
        again
            .iter()
            .filter(|delivery| delivery.guid == opened.guid)
            .count(),
        2
    );
    scene.done();
}

/// TIDE-013, TIDE-014
#[tokio::test]
async fn a_search_tells_what_tide_asks() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo, sha) = (&scene.forge, &scene.repo, scene.world.head(&pr));
    forge.add_labels(repo, number, &["lgtm"]).await.unwrap();
    let status = CommitStatus {
        context: "unit".into(),
        state: StatusState::Success,
        description: "ok".into(),
        target_url: String::new(),
    };
    forge.create_status(repo, &sha, &status).await.unwrap();
    scene
        .world
        .sandbox()
        .set_check_run(
            scene.world.repo(),
            &sha,
            "lint",
            "completed",
            Some("success"),
        )
        .unwrap();
    let query = format!("is:pr state:open archived:false label:\"lgtm\" repo:\"{repo}\"");
    let found = forge.search_all_pull_requests(&query, None).await.unwrap();
    assert_eq!(
        (found.nodes.len(), found.total, found.incomplete),
        (1, 1, None)
    );
    let pull = &found.nodes[0];
    assert_eq!(
        (pull.repo.clone(), pull.number, pull.title.as_str()),
        (repo.clone(), number, "Fix the widget")
    );
    assert_eq!(
        (pull.base_branch.as_str(), pull.head_sha.as_str()),
        ("main", sha.as_str())
    );
    assert!(pull.author.is("author") && !pull.draft);
    assert_eq!(pull.labels, ["lgtm"]);
    let head = pull.head_commit().unwrap();
    assert_eq!(head.statuses, [status]);
    assert_eq!(head.check_runs[0].name, "lint");

    let none = forge
        .search_all_pull_requests("is:pr label:\"nothing\"", None)
        .await
        .unwrap();
    assert!(none.nodes.is_empty());
    let request = SearchRequest {
        query: format!("is:issue repo:\"{repo}\""),
        ..Default::default()
    };
    assert!(
        forge
            .search_issues(&request)
            .await
            .unwrap()
            .nodes
            .is_empty()
    );
    scene.done();
}

#[tokio::test]
async fn mirrors_fetch_over_http_with_the_forges_credentials() {
    let scene = Scene::new().await;
    let (pr, _) = scene.pr().await;
    let cache = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::open(MirrorsOptions {
        dir: cache.path().to_owned(),
        remote: scene.world.sandbox().url().parse().unwrap(),
        credentials: Some(Arc::clone(&scene.github) as Arc<dyn GitCredentials>),
        limits: MirrorLimits::default(),
    })
    .await
    .unwrap();
    let (repo, head) = (&scene.repo, scene.world.head(&pr));
    let base = scene.forge.branch_head(repo, "main").await.unwrap();
    mirrors.ensure(repo, &[&base, &head]).await.unwrap();
    let changed = mirrors.changed_files(repo, &base, &head).await.unwrap();
    assert_eq!(changed[0].path, "docs/a b.md");
    let tree = scene.forge.commit(repo, &head).await.unwrap().tree_sha;
    assert_eq!(mirrors.tree_of(repo, &head).await.unwrap(), tree);
    let nowhere = RepoId::new(ORG, "nowhere");
    let error = mirrors.ensure(&nowhere, &[&head]).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    scene.done();
}
