//! What plugins call beside the core of REST: who may, and GitHub's codes and words for who may not.

use serde_json::{Value, json};
use trireme_sandbox::FileChange;
use trireme_sandbox::forge::RepoName;
use trireme_sandbox::world::{BOT, World};

use crate::support::{Api, judge};

const REPO: &str = "/repos/acme/widget";

async fn recorded() -> World {
    World::builder().recorded().start().await.unwrap()
}

fn message(body: &Value) -> &str {
    body["message"].as_str().unwrap()
}

#[tokio::test]
async fn who_may_not_triage_opens_a_bare_issue() {
    let world = recorded().await;
    world.milestone("v1");
    let new = json!({
        "title": "Broken", "body": "it is", "labels": ["bug"], "assignees": ["reviewer"], "milestone": 1,
    });
    let outsider = Api::of(&world, "outsider");
    let bare = outsider
        .post(&format!("{REPO}/issues"), new.clone())
        .await
        .expect(201);
    assert_eq!(
        (&bare["labels"], &bare["assignees"], &bare["milestone"]),
        (&json!([]), &json!([]), &Value::Null)
    );
    let bot = Api::of(&world, BOT);
    let full = bot.post(&format!("{REPO}/issues"), new).await.expect(201);
    assert_eq!(full["labels"][0]["name"], "bug");
    assert_eq!(full["assignees"][0]["login"], "reviewer");
    assert_eq!(full["milestone"]["title"], "v1");
    let stranger = json!({"title": "x", "assignees": ["stranger"]});
    let refused = bot
        .post(&format!("{REPO}/issues"), stranger)
        .await
        .expect(422);
    assert_eq!(refused["errors"][0]["field"], "assignees");
    judge(&world, &[]);
}

#[tokio::test]
async fn a_transferred_issue_leaves_its_address_behind() {
    let world = recorded().await;
    let gadget = RepoName::new("acme", "gadget");
    world
        .add_repo(&gadget, vec![FileChange::write("a", "b")])
        .await;
    world.at(gadget.clone()).repo_labels(&["bug"]);
    world.milestone("v1");
    world.at(gadget.clone()).milestone("v0");
    world.at(gadget.clone()).milestone("v1");
    let issue = world
        .issue("Broken")
        .label("bug")
        .label("only-here")
        .assignee("reviewer")
        .opened_by(BOT)
        .await;
    world.set_milestone(BOT, &issue, Some(1)).await;
    world.comment("author", &issue, "indeed").await;
    let moved = world
        .user(BOT)
        .transfer_issue(world.repo(), issue.number, &gadget)
        .unwrap();
    let there = world.at(gadget).pr_number(moved);
    assert_eq!(world.labels(&there), ["bug"]);
    assert_eq!(world.assignees(&there), ["reviewer"]);
    assert_eq!(world.milestone_of(&there).as_deref(), Some("v1"));
    assert_eq!(world.comments(&there)[0].body, "indeed");

    let bot = Api::of(&world, BOT);
    let old = bot
        .try_get_plain(&format!("{REPO}/issues/{}", issue.number))
        .await;
    let location = old.header("location").to_owned();
    old.expect(301);
    assert!(location.ends_with(&format!("/repos/acme/gadget/issues/{moved}")));
    let error = world
        .user("author")
        .transfer_issue(&there.repo, moved, world.repo())
        .unwrap_err();
    assert_eq!(error.status, 403);
    judge(&world, &[]);
}

#[tokio::test]
async fn a_team_reviews_where_it_has_access() {
    let world = recorded().await;
    let pr = world.pr("fix").opened_by("author").await;
    world
        .sandbox()
        .set_team("acme", "locked-out", &["reviewer"])
        .unwrap();
    world.team("owners", &["approver"]);
    let bot = Api::of(&world, BOT);
    let path = format!("{REPO}/pulls/{}/requested_reviewers", pr.number);
    let ask = |team: &str| json!({"team_reviewers": [team]});
    let refused = bot.post(&path, ask("locked-out")).await.expect(422);
    assert!(message(&refused).contains("not a collaborator"));
    let asked = bot.post(&path, ask("owners")).await.expect(201);
    assert_eq!(asked["requested_teams"][0]["slug"], "owners");
    let listed = bot.get(&path).await.expect(200);
    assert_eq!(listed["teams"][0]["name"], "owners");
    judge(&world, &[]);
}

#[tokio::test]
async fn only_apps_make_check_runs() {
    let world = recorded().await;
    let pr = world.pr("fix").opened_by("author").await;
    let path = format!("{REPO}/check-runs");
    let run = json!({"name": "lint", "head_sha": world.head(&pr), "conclusion": "success"});
    let refused = Api::of(&world, "author")
        .post(&path, run.clone())
        .await
        .expect(403);
    assert_eq!(message(&refused), "You must authenticate via a GitHub App.");
    let bot = Api::of(&world, BOT);
    let made = bot.post(&path, run).await.expect(201);
    assert_eq!(
        (&made["status"], &made["app"]["slug"]),
        (&json!("completed"), &json!(BOT))
    );
    let nowhere = json!({"name": "lint", "head_sha": "0".repeat(40), "conclusion": "success"});
    bot.post(&path, nowhere).await.expect(422);
    judge(&world, &[]);
}

#[tokio::test]
async fn protection_is_shown_to_admins() {
    let world = recorded().await;
    world.require_context("main", "unit");
    let path = format!("{REPO}/branches/main/protection");
    let bot = Api::of(&world, BOT);
    let shown = bot.get(&path).await.expect(200);
    assert_eq!(shown["required_status_checks"]["contexts"], json!(["unit"]));
    Api::of(&world, "author").get(&path).await.expect(404);
    world
        .push(BOT, "free", vec![FileChange::write("a", "b")])
        .await;
    let free = bot
        .get(&format!("{REPO}/branches/free/protection"))
        .await
        .expect(404);
    assert_eq!(message(&free), "Branch not protected");
    let none = bot
        .get(&format!("{REPO}/branches/none/protection"))
        .await
        .expect(404);
    assert_eq!(message(&none), "Branch not found");
    judge(&world, &[]);
}

#[tokio::test]
async fn references_are_deleted_by_writers() {
    let world = recorded().await;
    let tip = world
        .push(BOT, "topic/x", vec![FileChange::write("a", "b")])
        .await;
    world.push_tag(BOT, "v1", &tip).await;
    let bot = Api::of(&world, BOT);
    let branch = format!("{REPO}/git/refs/heads/topic/x");
    Api::of(&world, "author").delete(&branch).await.expect(403);
    bot.delete(&branch).await.expect(204);
    bot.delete(&format!("{REPO}/git/refs/tags/v1"))
        .await
        .expect(204);
    let gone = bot.delete(&branch).await.expect(422);
    assert_eq!(message(&gone), "Reference does not exist");
    judge(&world, &[]);
}

#[tokio::test]
async fn a_search_is_paged_and_counts_against_its_own_budget() {
    let world = recorded().await;
    for n in 0..3 {
        world.issue(&format!("flake {n}")).opened_by("author").await;
    }
    let bot = Api::of(&world, BOT);
    let path = "/search/issues?q=repo%3Aacme%2Fwidget+flake&sort=created&order=asc&per_page=2";
    let page = bot.get(path).await;
    assert_eq!(page.header("x-ratelimit-resource"), "search");
    assert!(page.header("link").contains("rel=\"next\""));
    let page = page.expect(200);
    assert_eq!(page["total_count"], 3);
    let titles: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["title"].as_str().unwrap())
        .collect();
    assert_eq!(titles, ["flake 0", "flake 1"]);
    bot.get("/search/issues?q=").await.expect(422);
    judge(&world, &[]);
}

#[tokio::test]
async fn a_review_needs_words_and_a_place() {
    let world = recorded().await;
    let pr = world
        .pr("fix")
        .file("README.md", "# widget\nmore\n")
        .opened_by("author")
        .await;
    let reviewer = Api::of(&world, "reviewer");
    let path = format!("{REPO}/pulls/{}/reviews", pr.number);
    let empty = json!({"event": "COMMENT", "body": ""});
    reviewer.post(&path, empty).await.expect(422);
    let at = |comment: Value| json!({"event": "COMMENT", "body": "x", "comments": [comment]});
    let wrong_path = at(json!({"path": "none", "position": 1, "body": "x"}));
    let refused = reviewer.post(&path, wrong_path).await.expect(422);
    assert_eq!(refused["errors"], json!(["Path could not be resolved"]));
    let right = at(json!({"path": "README.md", "position": 2, "body": "why?"}));
    reviewer.post(&path, right).await.expect(200);
    let said = reviewer
        .get(&format!("{REPO}/pulls/{}/comments", pr.number))
        .await
        .expect(200);
    assert_eq!(
        (&said[0]["position"], &said[0]["line"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(said[0]["diff_hunk"], "@@ -1 +1,2 @@\n # widget\n+more");
    judge(&world, &[]);
}

#[tokio::test]
async fn a_fork_is_opened_from_even_by_a_writer() {
    let world = recorded().await;
    let pr = world.pr("fix").from_fork().opened_by(BOT).await;
    let head = world.pull(&pr, |_, _, pull| pull.head_repo.to_string());
    assert_eq!(head, format!("{BOT}/widget"));
    let message = world.pull(&pr, |_, _, pull| pull.head.commits[0].message.clone());
    assert_eq!(message, "fix");
    let signed = world
        .pr("signed")
        .message("fix\n\nSigned-off-by: A <a@example.com>")
        .opened_by("author")
        .await;
    let message = world.pull(&signed, |_, _, pull| pull.head.commits[0].message.clone());
    assert!(message.ends_with("Signed-off-by: A <a@example.com>"));
}

/// GHC-019
#[tokio::test]
async fn mergeability_may_not_be_known_at_first() {
    let world = recorded().await;
    let pr = world.pr("fix").opened_by("author").await;
    world.forget_mergeability(&pr, 2);
    let bot = Api::of(&world, BOT);
    let path = format!("{REPO}/pulls/{}", pr.number);
    for expected in [Value::Null, Value::Null, json!(true)] {
        let seen = bot.get(&path).await.expect(200);
        assert_eq!(seen["mergeable"], expected);
    }
    judge(&world, &[]);
}
