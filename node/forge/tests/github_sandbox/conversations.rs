//! Issues: opening, editing, closing with a reason, moving, pinning, milestones, reactions; searches by text.

use trireme_forge::{CloseReason, ForgeError, IssueEdit, NewIssue, Reaction, RepoId, State};
use trireme_sandbox::FileChange;
use trireme_sandbox::forge::RepoName;
use trireme_sandbox::world::{BOT, ORG};

use crate::scene::Scene;

#[tokio::test]
async fn an_issue_is_opened_with_labels_and_assignees() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let new = NewIssue {
        title: "[release-1.0] Fix".into(),
        body: "This is a cherry-pick.".into(),
        labels: vec!["kind/bug".into()],
        assignees: vec!["author".into()],
    };
    let issue = forge.create_issue(repo, &new).await.unwrap();
    assert_eq!(
        (issue.title.as_str(), issue.state),
        (&*new.title, State::Open)
    );
    let seen = forge.issue(repo, issue.number).await.unwrap();
    assert_eq!(seen.labels[0].name, "kind/bug");
    assert!(seen.assignees[0].is("author") && !seen.is_pull_request);

    let nobody = NewIssue {
        assignees: vec!["nobody-at-all".into()],
        ..new
    };
    let error = forge.create_issue(repo, &nobody).await.unwrap_err();
    assert!(
        matches!(error, ForgeError::Refused { status: 422, .. }),
        "{error}"
    );
    scene.done();
}

#[tokio::test]
async fn title_and_body_are_edited_of_issues_and_pull_requests() {
    let scene = Scene::new().await;
    let (_, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let retitle = IssueEdit {
        title: Some("Better".into()),
        body: None,
    };
    forge.edit_issue(repo, number, &retitle).await.unwrap();
    let rewrite = IssueEdit {
        title: None,
        body: Some("Fixes #1".into()),
    };
    let edited = forge.edit_issue(repo, number, &rewrite).await.unwrap();
    assert!(edited.is_pull_request);
    let pull = forge.pull_request(repo, number).await.unwrap();
    assert_eq!(
        (pull.title.as_str(), pull.body.as_str()),
        ("Better", "Fixes #1")
    );
    scene.done();
}

/// PLG-LIFECYCLE-002, PLG-LIFECYCLE-003
#[tokio::test]
async fn what_cannot_be_reopened_says_why() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let issue = scene.world.issue("Broken").opened_by("outsider").await;
    forge
        .close_issue_as(repo, issue.number, CloseReason::NotPlanned)
        .await
        .unwrap();
    let reason = || {
        scene
            .world
            .issue_seen(&issue, |_, issue| issue.state_reason.clone())
    };
    assert_eq!(reason().as_deref(), Some("not_planned"));
    forge.reopen_issue(repo, issue.number).await.unwrap();
    forge
        .close_issue_as(repo, issue.number, CloseReason::Completed)
        .await
        .unwrap();
    assert_eq!(reason().as_deref(), Some("completed"));

    let gone = scene.world.pr("gone").opened_by(BOT).await;
    forge.close_pull_request(repo, gone.number).await.unwrap();
    forge.delete_branch(repo, "gone").await.unwrap();
    let error = forge
        .reopen_pull_request(repo, gone.number)
        .await
        .unwrap_err();
    assert_eq!(
        error.state_cannot_be_changed(),
        Some("state cannot be changed. The gone branch has been deleted.")
    );

    let twice = scene.world.pr("twice").opened_by("author").await;
    forge.close_pull_request(repo, twice.number).await.unwrap();
    scene
        .world
        .user("author")
        .open_pull(
            scene.world.repo(),
            trireme_sandbox::PullRequestSpec {
                title: "Again".into(),
                head: "author:twice".into(),
                base: "main".into(),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    let error = forge.reopen_issue(repo, twice.number).await.unwrap_err();
    assert_eq!(
        error.state_cannot_be_changed(),
        Some(
            "state cannot be changed. There is already an open pull request from author:twice to acme:main."
        )
    );

    let rewritten = scene.world.pr("rewritten").opened_by("author").await;
    forge
        .close_pull_request(repo, rewritten.number)
        .await
        .unwrap();
    scene
        .world
        .force_push(&rewritten, vec![FileChange::write("other.txt", "x")])
        .await;
    let error = forge
        .reopen_pull_request(repo, rewritten.number)
        .await
        .unwrap_err();
    assert_eq!(
        error.state_cannot_be_changed(),
        Some("state cannot be changed. The rewritten branch was force-pushed or recreated.")
    );
    scene.done();
}

/// PLG-ISSUEMGMT-001, GHC-035
#[tokio::test]
async fn an_issue_moves_with_its_comments() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let to = RepoId::new(ORG, "gadget");
    scene
        .world
        .add_repo(
            &RepoName::new(ORG, "gadget"),
            vec![FileChange::write("a", "b")],
        )
        .await;
    let issue = scene.world.issue("Broken").opened_by("outsider").await;
    scene.world.comment("author", &issue, "It is.").await;
    let node = forge.issue(repo, issue.number).await.unwrap().node_id;

    let nowhere = RepoId::new(ORG, "nowhere");
    let error = forge
        .transfer_issue(repo, &node, &nowhere)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");

    let moved = forge.transfer_issue(repo, &node, &to).await.unwrap();
    assert_eq!((moved.repo.clone(), moved.number), (to.clone(), 1));
    assert!(moved.html_url.ends_with("/acme/gadget/issues/1"));
    let comments = forge.comments(&to, moved.number).await.unwrap();
    assert_eq!(comments[0].body, "It is.");
    // GitHub leads from the old place to the new one.
    let seen = forge.issue(repo, issue.number).await.unwrap();
    assert_eq!(seen.number, moved.number);

    let (_, pull) = scene.pr().await;
    let node = forge.issue(repo, pull).await.unwrap().node_id;
    let error = forge.transfer_issue(repo, &node, &to).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    scene.done();
}

/// PLG-ISSUEMGMT-004, GHC-035
#[tokio::test]
async fn three_issues_are_pinned_at_most() {
    let scene = Scene::new().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let mut nodes = Vec::new();
    for title in ["one", "two", "three", "four"] {
        let issue = scene.world.issue(title).opened_by("author").await;
        nodes.push(forge.issue(repo, issue.number).await.unwrap().node_id);
    }
    for node in &nodes[..3] {
        forge.pin_issue(repo, node).await.unwrap();
    }
    let error = forge.pin_issue(repo, &nodes[3]).await.unwrap_err();
    insta::assert_snapshot!(
        error,
        @"POST /graphql (pin an issue): refused with status 200: Maximum 3 pinned issues per repository"
    );
    forge.unpin_issue(repo, &nodes[0]).await.unwrap();
    forge.pin_issue(repo, &nodes[3]).await.unwrap();
    let pinned = scene
        .world
        .sandbox()
        .read(|forge| forge.repo(scene.world.repo()).unwrap().pinned.clone());
    assert_eq!(pinned, [2, 3, 4]);

    let org = ORG.to_owned();
    let demoted = scene.world.sandbox().change(|forge| {
        forge.set_member(&org, BOT, false)?;
        forge.set_base_permission(&org, trireme_sandbox::forge::Permission::Read)
    });
    demoted.unwrap();
    let error = forge.unpin_issue(repo, &nodes[3]).await.unwrap_err();
    assert!(matches!(error, ForgeError::Forbidden { .. }), "{error}");
    scene.done();
}

/// PLG-MILESTONE-001, PLG-MILESTONEAPPLIER-001
#[tokio::test]
async fn milestones_are_listed_set_and_cleared() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    for n in 1..=102 {
        scene.world.milestone(&format!("v{n}"));
    }
    scene.world.close_milestone(1);
    let milestones = forge.milestones(repo).await.unwrap();
    assert_eq!(milestones.len(), 101);
    assert!(milestones.iter().all(|milestone| milestone.title != "v1"));
    let last = milestones.iter().find(|m| m.title == "v101").unwrap();
    forge
        .set_milestone(repo, number, Some(last.number))
        .await
        .unwrap();
    assert_eq!(scene.world.milestone_of(&pr).as_deref(), Some("v101"));
    let seen = forge.pull_request(repo, number).await.unwrap().milestone;
    assert_eq!(seen.as_ref(), Some(last));
    forge.set_milestone(repo, number, None).await.unwrap();
    assert_eq!(scene.world.milestone_of(&pr), None);
    let error = forge
        .set_milestone(repo, number, Some(999))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ForgeError::Refused { status: 422, .. }),
        "{error}"
    );
    scene.done();
}

/// PLG-HEART-001
#[tokio::test]
async fn a_reaction_is_given_once() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    let comment = scene.world.comment("author", &pr, "thanks").await;
    for _ in 0..2 {
        forge
            .react_to_comment(repo, comment, Reaction::Heart)
            .await
            .unwrap();
        forge
            .react_to_issue(repo, number, Reaction::Hooray)
            .await
            .unwrap();
    }
    let seen = scene.world.issue_seen(&pr, |repo, issue| {
        let signs = |reactions: &[trireme_sandbox::forge::Reaction]| {
            let signs = reactions.iter().map(|sign| sign.content.clone());
            signs.collect::<Vec<_>>()
        };
        (
            signs(&issue.reactions),
            signs(&repo.comments[&comment].reactions),
        )
    });
    assert_eq!(seen, (vec!["hooray".to_owned()], vec!["heart".to_owned()]));
    scene.done();
}

/// PLG-WELCOME-001, PLG-TRIGGER-037
#[tokio::test]
async fn issues_and_pull_requests_are_found_by_text() {
    let scene = Scene::new().await;
    let (_, number) = scene.pr().await;
    let (forge, repo) = (&scene.forge, &scene.repo);
    forge.add_labels(repo, number, &["lgtm"]).await.unwrap();
    for n in 0..3 {
        scene
            .world
            .issue(&format!("issue {n}"))
            .opened_by("author")
            .await;
    }
    let query = format!("repo:{repo} author:author");
    let all = forge.find_issues(&query, Some(ORG), 1000).await.unwrap();
    assert_eq!((all.total, all.issues.len(), all.incomplete), (4, 4, false));
    let pull = all
        .issues
        .iter()
        .find(|found| found.number == number)
        .unwrap();
    assert!(pull.is_pull_request && pull.author.is("author"));
    assert_eq!((pull.repo.clone(), pull.state), (repo.clone(), State::Open));
    assert_eq!(pull.labels[0].name, "lgtm");
    let some = forge.find_issues(&query, Some(ORG), 2).await.unwrap();
    assert_eq!((some.total, some.issues.len()), (4, 2));
    let counted = forge
        .find_issues(&format!("is:pr {query}"), None, 0)
        .await
        .unwrap();
    assert_eq!((counted.total, counted.issues.len()), (1, 0));
    scene.done();
}

/// PLG-CLA-001, PLG-BLUNDERBUSS-003
#[tokio::test]
async fn open_pull_requests_are_found_by_their_head() {
    let scene = Scene::new().await;
    let (pr, number) = scene.pr().await;
    let (forge, repo, old) = (&scene.forge, &scene.repo, scene.world.head(&pr));
    let found = forge
        .open_pull_requests_with_head(repo, &old)
        .await
        .unwrap();
    assert_eq!(
        found.iter().map(|pull| pull.number).collect::<Vec<_>>(),
        [number]
    );
    let head = scene
        .world
        .push_fix(&pr, vec![FileChange::write("more.txt", "x")])
        .await;
    // The former head is a commit of the pull request still.
    let found = forge
        .open_pull_requests_with_head(repo, &old)
        .await
        .unwrap();
    assert!(found.is_empty());
    let found = forge
        .open_pull_requests_with_head(repo, &head)
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    scene.done();
}
