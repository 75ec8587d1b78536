//! Repositories: their owners', branches, comparisons, protection; statuses' history; webhooks.

use trireme_forge::{
    CommitStatus, ForgeError, HookOwner, HookSpec, NewCheckRun, RepoId, StatusState,
};
use trireme_sandbox::FileChange;
use trireme_sandbox::forge::RepoName;
use trireme_sandbox::world::{BOT, ORG};

use crate::scene::Scene;

/// HOOK-084
#[tokio::test]
async fn repositories_of_organisations_and_users_are_listed() {
    let scene = Scene::new().await;
    let forge = &scene.forge;
    for name in [RepoName::new(ORG, "gadget"), RepoName::new("author", "own")] {
        scene
            .world
            .add_repo(&name, vec![FileChange::write("a", "b")])
            .await;
    }
    let names = async |owner: &str| {
        let repos = forge.owner_repositories(owner).await.unwrap();
        repos
            .into_iter()
            .map(|repo| repo.id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(ORG).await, ["acme/gadget", "acme/widget"]);
    assert_eq!(names("author").await, ["author/own"]);
    let error = forge.owner_repositories("nobody-at-all").await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    scene.done();
}

/// PLG-BRANCHCLEANER-001
#[tokio::test]
async fn a_branch_is_deleted_once_or_twice() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    scene
        .world
        .push(BOT, "feature/x", vec![FileChange::write("a", "b")])
        .await;
    forge.delete_branch(repo, "feature/x").await.unwrap();
    forge.delete_branch(repo, "feature/x").await.unwrap();
    assert!(
        forge
            .branch_head(repo, "feature/x")
            .await
            .unwrap_err()
            .is_not_found()
    );
    let nowhere = RepoId::new(ORG, "nowhere");
    assert!(
        forge
            .delete_branch(&nowhere, "x")
            .await
            .unwrap_err()
            .is_not_found()
    );
    scene.done();
}

/// GHC-018
#[tokio::test]
async fn a_branch_that_is_not_protected_requires_nothing() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let required = async |branch: &str| forge.required_contexts(repo, branch).await;
    assert!(required("main").await.unwrap().is_empty());
    scene.world.protect("main");
    assert!(required("main").await.unwrap().is_empty());
    scene.world.require_context("main", "unit");
    scene.world.require_context("main", "e2e");
    assert_eq!(required("main").await.unwrap(), ["e2e", "unit"]);
    // Another 404 is a failure.
    let error = required("no-such-branch").await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    scene.done();
}

/// GHC-025
#[tokio::test]
async fn a_comparison_says_when_it_is_cut() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let base = forge.branch_head(repo, "main").await.unwrap();
    for n in 0..2 {
        let file = FileChange::write("more.txt", format!("{n}\n"));
        scene.world.push(BOT, "main", vec![file]).await;
    }
    let compared = forge.compare(repo, &base, "main").await.unwrap();
    assert_eq!(compared.merge_base_sha, base);
    assert_eq!(
        (
            compared.ahead_by,
            compared.behind_by,
            compared.total_commits
        ),
        (2, 0, 2)
    );
    assert_eq!((compared.commits.len(), compared.files.len()), (2, 1));
    assert_eq!(compared.files[0].path, "more.txt");
    assert!(!compared.is_cut());
    let back = forge.compare(repo, "main", &base).await.unwrap();
    assert_eq!((back.ahead_by, back.behind_by), (0, 2));

    let many = (0..301).map(|n| FileChange::write(format!("many/{n}.txt"), "x"));
    scene.world.push(BOT, "main", many.collect()).await;
    let compared = forge.compare(repo, &base, "main").await.unwrap();
    assert_eq!(compared.files.len(), 300);
    assert!(compared.is_cut());
    let error = forge
        .compare(repo, &base, "no-such-branch")
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    scene.done();
}

/// GHC-025
#[tokio::test]
async fn github_tells_three_thousand_files_of_a_pull_request() {
    let scene = Scene::new().await;
    let pr = scene
        .world
        .pr("huge")
        .many_files("huge", 3001)
        .opened_by("author")
        .await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let files = forge.changed_files(repo, pr.number).await.unwrap();
    assert_eq!(files.len(), 3000);
    scene.done();
}

/// PLG-OVERRIDE-003
#[tokio::test]
async fn the_history_of_statuses_is_told_newest_first() {
    let scene = Scene::new().await;
    let (pr, _) = scene.pr().await;
    let (forge, repo, sha) = (&scene.forge, &scene.repo, scene.world.head(&pr));
    let status = |state| CommitStatus {
        context: "unit".into(),
        state,
        description: "x".into(),
        target_url: String::new(),
    };
    for state in [
        StatusState::Pending,
        StatusState::Failure,
        StatusState::Success,
    ] {
        forge
            .create_status(repo, &sha, &status(state))
            .await
            .unwrap();
    }
    let history = forge.status_history(repo, &sha).await.unwrap();
    let states: Vec<StatusState> = history.iter().map(|status| status.state).collect();
    assert_eq!(
        states,
        [
            StatusState::Success,
            StatusState::Failure,
            StatusState::Pending
        ]
    );
    scene.done();
}

/// PLG-OVERRIDE-006
#[tokio::test]
async fn an_app_overrides_a_check_run() {
    let scene = Scene::new().await;
    let (pr, _) = scene.pr().await;
    let (forge, repo, sha) = (&scene.forge, &scene.repo, scene.world.head(&pr));
    scene.world.check_run(&pr, "lint", Some("failure"));
    let new = NewCheckRun {
        name: "lint".into(),
        head_sha: sha.clone(),
        conclusion: "success".into(),
        details_url: String::new(),
        title: "Prow override - lint".into(),
        summary: "Prow has received an override command for lint.".into(),
    };
    forge.create_check_run(repo, &new).await.unwrap();
    let runs = forge.check_runs(repo, &sha).await.unwrap();
    let seen: Vec<_> = runs
        .iter()
        .map(|run| (run.conclusion.as_str(), run.app.as_str()))
        .collect();
    assert_eq!(seen, [("FAILURE", ""), ("SUCCESS", BOT)]);
    let unknown = NewCheckRun {
        conclusion: "splendid".into(),
        ..new
    };
    let error = forge.create_check_run(repo, &unknown).await.unwrap_err();
    assert!(
        matches!(error, ForgeError::Refused { status: 422, .. }),
        "{error}"
    );
    // The description has no such conclusion either; the rest is judged.
}

/// HOOK-041
#[tokio::test]
async fn webhooks_are_made_changed_and_removed() {
    let scene = Scene::new().await;
    let forge = &scene.forge;
    let spec = HookSpec {
        url: "http://127.0.0.1:9/hook".into(),
        secret: Some("s".into()),
        events: vec!["*".into()],
        active: true,
    };
    for owner in [
        HookOwner::Repo(scene.repo.clone()),
        HookOwner::Org(ORG.into()),
    ] {
        let hook = forge.create_hook(&owner, &spec).await.unwrap();
        assert_eq!(
            (hook.url.as_str(), hook.active),
            (&*spec.url, true),
            "{owner}"
        );
        assert_eq!(
            forge.hooks(&owner).await.unwrap(),
            std::slice::from_ref(&hook)
        );
        let sent = scene.world.sandbox().deliveries(hook.id);
        assert_eq!(sent[0].event, "ping", "{owner}");
        let error = forge.create_hook(&owner, &spec).await.unwrap_err();
        assert!(
            matches!(error, ForgeError::Refused { status: 422, .. }),
            "{error}"
        );

        let other = HookSpec {
            url: "http://127.0.0.1:9/other".into(),
            events: vec!["push".into(), "status".into()],
            active: false,
            ..spec.clone()
        };
        let edited = forge.edit_hook(&owner, hook.id, &other).await.unwrap();
        assert_eq!(
            (edited.id, edited.url, edited.active),
            (hook.id, other.url, false)
        );
        assert_eq!(edited.events, other.events);
        forge.delete_hook(&owner, hook.id).await.unwrap();
        forge.delete_hook(&owner, hook.id).await.unwrap();
        assert!(forge.hooks(&owner).await.unwrap().is_empty(), "{owner}");
    }
    scene.done();
}
