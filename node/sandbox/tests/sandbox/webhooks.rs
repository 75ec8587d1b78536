//! Webhooks: what is sent when, how it is signed, and what becomes of it.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use trireme_sandbox::forge::{NewStatus, RepoName, ReviewState, StatusState};
use trireme_sandbox::world::{BOT, WEBHOOK_SECRET, World};
use trireme_sandbox::{FileChange, MergeSpec};

use crate::support::{Api, Receiver, descriptions, judge};

#[tokio::test]
async fn every_event_is_told_in_githubs_shape() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    world.hook_to(&[&receiver.url]);
    let bot = world.user(BOT);
    let repo = world.repo();
    let pr = world.pr("fix").opened_by("author").await;
    let n = pr.number;
    let comment = world.comment("reviewer", &pr, "/lgtm").await;
    bot.edit_comment(repo, comment, "/lgtm cancel").unwrap();
    bot.delete_comment(repo, comment).unwrap();
    world.label(BOT, &pr, "lgtm").await;
    world.unlabel(BOT, &pr, "lgtm").await;
    bot.assign(repo, n, &["reviewer".into()]).unwrap();
    bot.unassign(repo, n, &["reviewer".into()]).unwrap();
    bot.request_reviewers(repo, n, &["approver".into()])
        .unwrap();
    bot.unrequest_reviewers(repo, n, &["approver".into()])
        .unwrap();
    let lines = [("fix.txt".to_owned(), 1, "hm".to_owned())];
    let review = bot
        .review(repo, n, ReviewState::ChangesRequested, "no", &lines)
        .unwrap();
    bot.dismiss_review(repo, n, review).unwrap();
    world.retitle("author", &pr, "Better").await;
    world.set_draft("author", &pr, true).await;
    world.set_draft("author", &pr, false).await;
    world
        .push_fix(&pr, vec![FileChange::write("fix.txt", "2\n")])
        .await;
    world.close("author", &pr).await;
    world.reopen("author", &pr).await;
    let status = NewStatus {
        state: StatusState::Pending,
        context: "ci/x".into(),
        description: None,
        target_url: None,
    };
    bot.set_status(repo, &world.head(&pr), status)
        .await
        .unwrap();
    bot.merge(repo, n, MergeSpec::default()).await.unwrap();
    let issue = bot
        .open_issue(repo, "Broken", Some("it is"), &["bug".into()])
        .unwrap();
    bot.comment(repo, issue, "closing").unwrap();
    let close = trireme_sandbox::forge::IssueChange {
        state: Some(trireme_sandbox::forge::OpenState::Closed),
        ..Default::default()
    };
    bot.edit_issue(repo, issue, close).unwrap();
    world.expect_delivered().await;

    let received = receiver.drain();
    let about = |number: u64| {
        let mine = received.iter().filter(|r| {
            let payload = r.payload();
            let of = |key: &str| payload[key]["number"].as_u64();
            of("pull_request").or(of("issue")) == Some(number)
        });
        mine.map(super::support::Received::name)
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(about(n), @r"
    pull_request.opened
    issue_comment.created
    issue_comment.edited
    issue_comment.deleted
    pull_request.labeled
    pull_request.unlabeled
    pull_request.assigned
    pull_request.unassigned
    pull_request.review_requested
    pull_request.review_request_removed
    pull_request_review.submitted
    pull_request_review_comment.created
    pull_request_review.dismissed
    pull_request.edited
    pull_request.converted_to_draft
    pull_request.ready_for_review
    pull_request.synchronize
    pull_request.closed
    pull_request.reopened
    pull_request.closed
    ");
    insta::assert_snapshot!(about(issue), @r"
    issues.opened
    issues.labeled
    issue_comment.created
    issues.closed
    ");
    let others: Vec<_> = received
        .iter()
        .filter(|r| matches!(r.event(), "push" | "status"))
        .map(super::support::Received::name)
        .collect();
    // The author's fork has no hook: its pushes are told by the pull request alone.
    assert_eq!(others, ["status", "push"]);

    if let Some(descriptions) = descriptions() {
        let mut wrong = Vec::new();
        for one in &received {
            let found = descriptions.judge_webhook(one.event(), &one.payload());
            wrong.extend(found.into_iter().map(|w| format!("{}: {w}", one.name())));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[tokio::test]
async fn a_push_is_told_with_its_commits() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    world.hook_to(&[&receiver.url]);
    let files = vec![
        FileChange::write("a", "1\n"),
        FileChange::delete("README.md"),
    ];
    let tip = world.push(BOT, "topic", files).await;
    let payload = receiver.next().await.payload();
    assert_eq!(payload["ref"], "refs/heads/topic");
    assert_eq!(
        (&payload["created"], &payload["after"]),
        (&json!(true), &json!(tip))
    );
    assert_eq!(payload["head_commit"]["added"], json!(["a"]));
    assert_eq!(payload["commits"][0]["removed"], json!(["README.md"]));
    let bot = world.user(BOT);
    bot.delete_branch(world.repo(), "topic").await.unwrap();
    let payload = receiver.next().await.payload();
    assert_eq!(
        (&payload["deleted"], &payload["head_commit"]),
        (&json!(true), &Value::Null)
    );
    if let Some(descriptions) = descriptions() {
        assert_eq!(
            descriptions.judge_webhook("push", &payload),
            Vec::<String>::new()
        );
    }
}

#[tokio::test]
async fn a_webhook_is_signed_and_says_who_it_is() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    let hook = world.hook_to(&[&receiver.url]);
    let pr = world.pr("fix").opened_by("author").await;
    world.comment("author", &pr, "x").await;
    let received = receiver.next().await;
    let mut mac = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes()).unwrap();
    mac.update(&received.body);
    let expected = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    assert_eq!(received.header("x-hub-signature-256"), expected);
    assert!(received.header("x-hub-signature").starts_with("sha1="));
    assert!(
        received
            .header("user-agent")
            .starts_with("GitHub-Hookshot/")
    );
    assert_eq!(received.header("content-type"), "application/json");
    assert_eq!(received.header("x-github-hook-id"), hook.to_string());
    let guid = received.header("x-github-delivery");
    assert!(uuid::Uuid::parse_str(guid).is_ok());
    assert_ne!(guid, receiver.next().await.header("x-github-delivery"));
}

#[tokio::test]
async fn a_lost_delivery_is_sent_again_only_when_asked_and_under_its_guid() {
    let world = World::start().await;
    let hook = world.hook_to(&["http://127.0.0.1:1/hook"]);
    world.pr("fix").opened_by("author").await;
    world.expect_delivered().await;
    let sandbox = world.sandbox();
    let failed = sandbox.deliveries(hook);
    assert_eq!(failed.len(), 1);
    let answer = failed[0].answer.as_ref().unwrap();
    assert_eq!(
        (answer.status_code, answer.status.as_str()),
        (502, "failed to connect to host")
    );

    let mut receiver = Receiver::start().await;
    sandbox
        .set_hook_targets(hook, vec![receiver.url.parse().unwrap()])
        .unwrap();
    let api = Api::of(&world, BOT);
    let list = format!("/repos/acme/widget/hooks/{hook}/deliveries?status=failure");
    let listed = api.get(&list).await.expect(200);
    assert_eq!(listed[0]["guid"], failed[0].guid.as_str());
    let again = format!(
        "/repos/acme/widget/hooks/{hook}/deliveries/{}/attempts",
        listed[0]["id"]
    );
    api.post(&again, json!({})).await.expect(202);
    assert_eq!(
        receiver.next().await.header("x-github-delivery"),
        failed[0].guid
    );
    world.expect_delivered().await;
    let both = sandbox.deliveries(hook);
    assert_eq!((both.len(), both[1].redelivery), (2, true));
    assert_eq!(both[0].guid, both[1].guid);
}

#[tokio::test]
async fn the_first_door_that_accepts_gets_the_webhook() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    world.hook_to(&["http://127.0.0.1:1/hook", &receiver.url]);
    world.pr("fix").opened_by("author").await;
    assert_eq!(receiver.next().await.name(), "pull_request.opened");
}

#[tokio::test]
async fn a_door_that_answers_an_error_is_not_asked_twice() {
    let world = World::start().await;
    let mut busy = Receiver::answering(503).await;
    let mut other = Receiver::start().await;
    let hook = world.hook_to(&[&busy.url, &other.url]);
    world.pr("fix").opened_by("author").await;
    busy.next().await;
    world.expect_delivered().await;
    let delivery = world.sandbox().deliveries(hook).remove(0);
    assert_eq!(
        delivery.answer.unwrap().status,
        "Invalid HTTP Response: 503"
    );
    assert!(other.drain().is_empty());
}

#[tokio::test]
async fn doors_take_turns() {
    let world = World::start().await;
    let mut doors = [Receiver::start().await, Receiver::start().await];
    let hook = world.hook_to(&[&doors[0].url, &doors[1].url]);
    world
        .sandbox()
        .change(|forge| {
            forge.hook_mut(hook)?.config.policy = trireme_sandbox::forge::HookPolicy::RoundRobin;
            Ok(())
        })
        .unwrap();
    let pr = world.pr("fix").opened_by("author").await;
    for n in 0..3 {
        world.comment("author", &pr, &n.to_string()).await;
    }
    world.expect_delivered().await;
    assert_eq!(doors.each_mut().map(|d| d.drain().len()), [2, 2]);
}

#[tokio::test]
async fn an_organizations_hook_hears_all_of_its_repositories() {
    let world = World::builder().recorded().start().await.unwrap();
    let mut receiver = Receiver::start().await;
    let control = Api::anonymous(&world);
    let config = json!({
        "scope": {"org": "acme"}, "targets": [receiver.url], "policy": "round_robin", "secret": "s",
        "events": ["pull_request"],
    });
    let hook = control.post("/_sandbox/hooks", config).await.expect(201);
    let other = RepoName::new("acme", "gadget");
    let files = vec![FileChange::write("README.md", "x\n")];
    world.add_repo(&other, files).await;
    let pr = world.at(other).pr("fix").opened_by("author").await;
    world.comment("author", &pr, "not heard").await;
    let payload = receiver.next().await.payload();
    assert_eq!(payload["repository"]["full_name"], "acme/gadget");
    assert_eq!(payload["organization"]["login"], "acme");
    world.expect_delivered().await;
    assert!(receiver.drain().is_empty());
    let api = Api::of(&world, BOT);
    let path = format!("/orgs/acme/hooks/{}", hook["id"]);
    api.get("/orgs/acme/hooks").await.expect(200);
    api.get(&path).await.expect(200);
    let listed = api.get(&format!("{path}/deliveries")).await.expect(200);
    let delivery = format!("{path}/deliveries/{}", listed[0]["id"]);
    api.get(&delivery).await.expect(200);
    api.post(&format!("{delivery}/attempts"), json!({}))
        .await
        .expect(202);
    assert_eq!(receiver.next().await.name(), "pull_request.opened");
    Api::of(&world, "author")
        .get("/orgs/acme/hooks")
        .await
        .expect(404);
    judge(&world, &[]);
}

#[tokio::test]
async fn milestones_pins_moves_and_teams_are_told_in_githubs_shape() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    world.hook_to(&[&receiver.url]);
    let gadget = RepoName::new("acme", "gadget");
    world
        .add_repo(&gadget, vec![FileChange::write("a", "b")])
        .await;
    world.at(gadget.clone()).hook_to(&[&receiver.url]);
    world.team("owners", &["approver"]);
    let (first, second) = (world.milestone("v1"), world.milestone("v2"));

    let pr = world.pr("fix").opened_by("author").await;
    world.set_milestone(BOT, &pr, Some(first)).await;
    world.set_milestone(BOT, &pr, Some(second)).await;
    world.set_milestone(BOT, &pr, None).await;
    world.request_review(BOT, &pr, &["acme/owners"]).await;
    let bot = world.user(BOT);
    bot.unrequest_reviews(world.repo(), pr.number, &[], &["owners".into()])
        .unwrap();
    let line = world.review_line("reviewer", &pr, "fix.txt", 1, "hm").await;
    assert!(line > 0);
    let comment = world.pull(&pr, |_, _, pull| pull.review_comments[0].id);
    bot.edit_review_comment(world.repo(), comment, "hmm")
        .unwrap();

    let issue = world
        .issue("Broken")
        .body("it is")
        .label("bug")
        .opened_by(BOT)
        .await;
    world.set_milestone(BOT, &issue, Some(first)).await;
    bot.pin_issue(world.repo(), issue.number, true).unwrap();
    bot.pin_issue(world.repo(), issue.number, false).unwrap();
    world.retitle("author", &pr, "Better").await;
    world.comment("author", &issue, "indeed").await;
    let moved = bot
        .transfer_issue(world.repo(), issue.number, &gadget)
        .unwrap();
    world.expect_delivered().await;

    let received = receiver.drain();
    let told = |event: &str| {
        let names = received.iter().filter(|one| one.event() == event);
        names
            .map(super::support::Received::name)
            .collect::<Vec<_>>()
            .join("\n")
    };
    insta::assert_snapshot!(told("pull_request"), @r"
    pull_request.opened
    pull_request.milestoned
    pull_request.demilestoned
    pull_request.milestoned
    pull_request.demilestoned
    pull_request.review_requested
    pull_request.review_request_removed
    pull_request.edited
    ");
    insta::assert_snapshot!(told("pull_request_review_comment"), @r"
    pull_request_review_comment.created
    pull_request_review_comment.edited
    ");
    // Two repositories' lanes: the issue arrives in the one before or after it left the other.
    let mut issues: Vec<_> = received
        .iter()
        .filter(|one| one.event() == "issues")
        .map(|one| {
            let repo = one.payload()["repository"]["name"].clone();
            format!("{} {}", repo.as_str().unwrap(), one.name())
        })
        .collect();
    issues.sort_by_key(|line| line.starts_with("widget"));
    insta::assert_snapshot!(issues.join("\n"), @r"
    gadget issues.opened
    widget issues.opened
    widget issues.labeled
    widget issues.milestoned
    widget issues.pinned
    widget issues.unpinned
    widget issues.transferred
    ");
    let transferred = received
        .iter()
        .find(|one| one.name() == "issues.transferred")
        .unwrap()
        .payload();
    assert_eq!(transferred["changes"]["new_issue"]["number"], moved);
    assert_eq!(
        transferred["changes"]["new_repository"]["full_name"],
        "acme/gadget"
    );
    if let Some(descriptions) = descriptions() {
        let mut wrong = Vec::new();
        for one in &received {
            let found = descriptions.judge_webhook(one.event(), &one.payload());
            wrong.extend(found.into_iter().map(|w| format!("{}: {w}", one.name())));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// PLG-TRIGGER-043
#[tokio::test]
async fn a_pushed_tag_lists_no_commits() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    world.hook_to(&[&receiver.url]);
    let tip = world
        .push(BOT, "main", vec![FileChange::write("a", "1")])
        .await;
    assert_eq!(receiver.next().await.payload()["ref"], "refs/heads/main");
    world.push_tag(BOT, "v1.0", &tip).await;
    let made = receiver.next().await.payload();
    assert_eq!(
        (&made["ref"], &made["created"], &made["commits"]),
        (&json!("refs/tags/v1.0"), &json!(true), &json!([]))
    );
    assert_eq!(
        (&made["after"], &made["head_commit"]["id"]),
        (&json!(tip), &json!(tip))
    );
    world.delete_tag(BOT, "v1.0").await;
    let gone = receiver.next().await.payload();
    assert_eq!(
        (&gone["ref"], &gone["deleted"], &gone["head_commit"]),
        (&json!("refs/tags/v1.0"), &json!(true), &Value::Null)
    );
    if let Some(descriptions) = descriptions() {
        for payload in [made, gone] {
            let wrong = descriptions.judge_webhook("push", &payload);
            assert_eq!(wrong, Vec::<String>::new());
        }
    }
}

/// HOOK-041
#[tokio::test]
async fn a_new_webhook_is_greeted() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    let api = Api::of(&world, BOT);
    let hook = json!({
        "name": "web", "active": true, "events": ["*"],
        "config": {"url": receiver.url, "content_type": "json", "secret": "s"},
    });
    for path in ["/repos/acme/widget/hooks", "/orgs/acme/hooks"] {
        let made = api.post(path, hook.clone()).await.expect(201);
        let greeting = receiver.next().await;
        assert_eq!(greeting.event(), "ping");
        assert!(
            greeting
                .header("x-hub-signature-256")
                .starts_with("sha256=")
        );
        assert_eq!(greeting.payload()["hook_id"], made["id"]);
        if let Some(descriptions) = descriptions() {
            let wrong = descriptions.judge_webhook("ping", &greeting.payload());
            assert_eq!(wrong, Vec::<String>::new());
        }
    }
    let mut bad = hook;
    bad["config"]["url"] = json!("not a url");
    api.post("/repos/acme/widget/hooks", bad).await.expect(422);
    let stranger = Api::of(&world, "author");
    stranger.get("/repos/acme/widget/hooks").await.expect(404);
}
