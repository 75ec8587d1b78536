//! Stories and pages.

use std::time::Duration;

use serde_json::json;
use trireme_sandbox::Logged;
use trireme_sandbox::forge::StatusState;
use trireme_sandbox::world::{BOT, World};

use crate::support::Api;

#[tokio::test]
async fn a_story_is_told_and_its_outcome_awaited() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("outsider").await;
    let bot = Api::of(&world, BOT);
    let watched = world.clone();
    let told = pr.clone();
    // Stands for the product: reacts to the story over the API.
    let product = tokio::spawn(async move {
        watched.expect_comment(&told, "/lgtm").await;
        let issue = format!("/repos/acme/widget/issues/{}", told.number);
        bot.post(&format!("{issue}/labels"), json!({"labels": ["lgtm"]}))
            .await
            .expect(200);
        let head = watched.head(&told);
        let status =
            json!({"state": "success", "context": "tide", "description": "In merge pool."});
        bot.post(&format!("/repos/acme/widget/statuses/{head}"), status)
            .await
            .expect(201);
        let merge = json!({"sha": head});
        bot.put(
            &format!("/repos/acme/widget/pulls/{}/merge", told.number),
            merge,
        )
        .await
        .expect(200);
    });
    world.comment("reviewer", &pr, "/lgtm").await;
    world.expect_label(&pr, "lgtm").await;
    let text = world.expect_status(&pr, "tide", StatusState::Success).await;
    assert_eq!(text, "In merge pool.");
    world.expect_merged(&pr).await;
    product.await.unwrap();
    insta::assert_snapshot!(world.describe(&pr), @r#"
    acme/widget#1 "fix" by outsider (merged)
      labels: lgtm
      status tide: success (In merge pool.)
      reviewer: /lgtm
    "#);
}

#[tokio::test]
async fn an_expectation_in_vain_says_what_it_saw() {
    let world = World::builder()
        .bound(Duration::from_millis(20))
        .start()
        .await
        .unwrap();
    let pr = world.pr("fix").opened_by("author").await;
    let unmet = world.until_label(&pr, "lgtm").await.unwrap_err();
    insta::assert_snapshot!(unmet.to_string().trim_end(), @r#"
    waited 20ms in vain for label "lgtm" on acme/widget#1; it stands thus: acme/widget#1 "fix" by author (open)
      labels:
    "#);
}

#[tokio::test]
async fn the_log_tells_who_did_what() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    world.comment("reviewer", &pr, "hello").await;
    let by_reviewer = |line: &Logged| matches!(line, Logged::Happened { event, actor, .. } if event == "issue_comment" && actor == "reviewer");
    let bound = Duration::from_secs(5);
    world
        .sandbox()
        .until_logged("the comment", 0, bound, by_reviewer)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_person_reads_a_pull_request_and_comments_in_a_browser() {
    let world = World::start().await;
    let pr = world
        .pr("fix")
        .title("Fix <b>it</b>")
        .opened_by("author")
        .await;
    world.comment("reviewer", &pr, "nice & good").await;
    let browser = Api::anonymous(&world);
    let text = async |path: &str| {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.body.as_str().unwrap().to_owned()
    };
    assert!(
        text("/")
            .await
            .contains("<a href=\"/acme/widget\">acme/widget</a>")
    );
    assert!(text("/acme/widget").await.contains("/acme/widget/pull/1"));
    let page = text("/acme/widget/pull/1").await;
    assert!(page.contains("Fix &#60;b&#62;it&#60;/b&#62;"), "{page}");
    assert!(page.contains("nice &#38; good"));
    let form = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/acme/widget/pull/1/comment", world.sandbox().url());
    let body = "login=approver&body=%2Fapprove";
    let kind = "application/x-www-form-urlencoded";
    let sent = form
        .post(&url)
        .header("content-type", kind)
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
    let comment = world.expect_comment(&pr, "/approve").await;
    assert_eq!(comment.author, "approver");
    let foreign = form
        .post(&url)
        .header("content-type", kind)
        .header("sec-fetch-site", "cross-site")
        .body(body);
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    browser.get("/acme/none").await.expect(404);
}
