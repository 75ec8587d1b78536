//! Pull requests and their reviews: opening, finding by branch, comments on lines, teams as reviewers.

use trireme_forge::{
    ForgeError, Mergeability, NewPullRequest, NewReview, NewReviewComment, ReviewState, State,
};
use trireme_sandbox::FileChange;
use trireme_sandbox::faults::{CallEffect, CallMatch};
use trireme_sandbox::world::{BOT, ORG};

use crate::scene::Scene;

/// PLG-CHERRYPICK-007, PLG-CHERRYPICK-010
#[tokio::test]
async fn a_pull_request_is_opened_from_our_fork_and_found_by_its_branch() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let fork = forge.ensure_fork(repo).await.unwrap();
    assert_eq!(fork.to_string(), format!("{BOT}/widget"));
    assert_eq!(forge.ensure_fork(repo).await.unwrap(), fork);
    scene
        .world
        .at(trireme_sandbox::forge::RepoName::new(BOT, "widget"))
        .push(
            BOT,
            "cherry-pick-1-to-main",
            vec![FileChange::write("a", "b")],
        )
        .await;
    let new = NewPullRequest {
        title: "[main] Fix".into(),
        head: format!("{BOT}:cherry-pick-1-to-main"),
        base: "main".into(),
        body: "This is an automated cherry-pick of #1".into(),
        maintainer_can_modify: true,
    };
    let pull = forge.create_pull_request(repo, &new).await.unwrap();
    assert_eq!(
        (pull.title.as_str(), pull.body.as_str()),
        (&*new.title, &*new.body)
    );
    assert_eq!(pull.head.repo.as_ref(), Some(&fork));
    let error = forge.create_pull_request(repo, &new).await.unwrap_err();
    assert!(
        matches!(error, ForgeError::Refused { status: 422, .. }),
        "{error}"
    );

    let found = async || {
        let found = forge
            .pull_requests_from(repo, BOT, "cherry-pick-1-to-main")
            .await
            .unwrap();
        found
            .into_iter()
            .map(|pull| (pull.number, pull.state))
            .collect::<Vec<_>>()
    };
    assert_eq!(found().await, [(pull.number, State::Open)]);
    forge.close_pull_request(repo, pull.number).await.unwrap();
    assert_eq!(found().await, [(pull.number, State::Closed)]);
    let other = forge.pull_requests_from(repo, ORG, "cherry-pick-1-to-main");
    assert!(other.await.unwrap().is_empty());
    scene.done();
}

/// PLG-VERIFYOWNERS-005
#[tokio::test]
async fn a_review_comments_at_positions_of_the_diff() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let comment = |position| NewReviewComment {
        path: "docs/a b.md".into(),
        position,
        body: "Cannot parse file".into(),
    };
    let new = NewReview {
        commit_sha: scene.world.head(&pr),
        body: "1 invalid OWNERS file".into(),
        comments: vec![comment(1)],
    };
    let review = forge.create_review(repo, number, &new).await.unwrap();
    assert_eq!(
        (review.state, &review.body),
        (ReviewState::Commented, &new.body)
    );
    let said = forge.review_comments(repo, number).await.unwrap();
    assert_eq!(said[0].review_id, Some(review.id));
    assert_eq!(
        (said[0].path.as_str(), said[0].body.as_str()),
        ("docs/a b.md", "Cannot parse file")
    );
    let edited = forge
        .edit_review_comment(repo, said[0].id, "Fine")
        .await
        .unwrap();
    assert_eq!((edited.id, edited.body.as_str()), (said[0].id, "Fine"));

    let outside = NewReview {
        comments: vec![comment(7)],
        ..new.clone()
    };
    let error = forge
        .create_review(repo, number, &outside)
        .await
        .unwrap_err();
    insta::assert_snapshot!(
        error,
        @"POST /repos/acme/widget/pulls/1/reviews: refused with status 422: Unprocessable Entity (Position could not be resolved)"
    );
    let elsewhere = NewReview {
        commit_sha: "0".repeat(40),
        ..new
    };
    let error = forge
        .create_review(repo, number, &elsewhere)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ForgeError::Refused { status: 422, .. }),
        "{error}"
    );
    scene.done();
}

/// GHC-017, PLG-ASSIGN-003
#[tokio::test]
async fn a_team_of_the_organisation_is_asked_for_a_review() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    scene.world.team("Release Managers", &["approver"]);
    let team = format!("{ORG}/release-managers");
    let missing = forge
        .request_review(
            repo,
            number,
            &["reviewer", &team, "other/team", "acme/nobody"],
        )
        .await
        .unwrap();
    assert_eq!(missing, ["other/team", "acme/nobody"]);
    assert_eq!(
        scene.world.requested_reviewers(&pr),
        ["reviewer".to_owned(), team.clone()]
    );
    let pull = forge.pull_request(repo, number).await.unwrap();
    assert_eq!(pull.requested_teams, ["release-managers"]);
    let left = forge
        .unrequest_review(repo, number, &["reviewer", &team])
        .await
        .unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(scene.world.requested_reviewers(&pr).is_empty());
    scene.done();
}

/// GHC-019
#[tokio::test]
async fn a_conflict_makes_a_head_unmergeable() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let change = |text: &str| FileChange::write("README.md", text.to_owned());
    let pr = scene
        .world
        .pr("ours")
        .file("README.md", "ours\n")
        .opened_by("author")
        .await;
    let head = scene.world.head(&pr);
    let now = async || forge.mergeability(repo, pr.number, &head).await.unwrap();
    assert_eq!(now().await, Mergeability::Mergeable);
    scene
        .world
        .push(BOT, "main", vec![change("theirs\n")])
        .await;
    assert_eq!(now().await, Mergeability::Conflicting);
    let next = scene.world.force_push(&pr, vec![change("both\n")]).await;
    assert_eq!(now().await, Mergeability::HeadMoved(next));
    scene.done();
}

/// GHC-019
#[tokio::test]
async fn a_fork_is_waited_for() {
    let scene = Scene::new().await;
    let fork = format!("/repos/{BOT}/widget");
    let faults = scene.world.sandbox().faults();
    faults
        .on_call(
            CallMatch::path(&fork),
            CallEffect::Status { code: 404 },
            Some(1),
        )
        .unwrap();
    let made = scene.forge.ensure_fork(&scene.repo).await.unwrap();
    assert_eq!(made.org, BOT);
    assert_eq!(scene.world.sandbox().calls("GET", "/repos/{}/{}"), 2);
    scene.done();
}
