//! Faults on demand: in calls, in webhooks, in answers.

use std::time::Duration;

use serde_json::json;
use trireme_sandbox::faults::{CallEffect, CallMatch, HookEffect, HookMatch};
use trireme_sandbox::world::{BOT, World};

use crate::support::{Api, Receiver};

const REPO: &str = "/repos/acme/widget";

#[tokio::test]
async fn calls_fail_as_often_as_told_and_change_nothing() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    let faults = world.sandbox().faults();
    let comments = CallMatch::path("/repos/*/comments");
    faults
        .on_call(comments, CallEffect::Status { code: 502 }, Some(2))
        .unwrap();
    let api = Api::of(&world, BOT);
    let path = format!("{REPO}/issues/{}/comments", pr.number);
    let body = json!({"body": "hello"});
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(api.post(&path, body.clone()).await.status);
    }
    assert_eq!(codes, [502, 502, 201]);
    assert_eq!(world.comments(&pr).len(), 1);
    assert_eq!(
        world
            .sandbox()
            .calls("POST", "/repos/{}/{}/issues/{}/comments"),
        3
    );
}

#[tokio::test]
async fn limits_are_told_as_github_tells_them() {
    let world = World::start().await;
    let faults = world.sandbox().faults();
    let on = CallMatch::path("/user");
    let secondary = CallEffect::SecondaryRateLimit {
        retry_after_seconds: 7,
    };
    faults.on_call(on.clone(), secondary, Some(1)).unwrap();
    faults
        .on_call(
            on,
            CallEffect::PrimaryRateLimit {
                reset_in_seconds: 60,
            },
            Some(1),
        )
        .unwrap();
    let api = Api::of(&world, BOT);
    let secondary = api.get("/user").await;
    assert_eq!(
        (secondary.status, secondary.header("retry-after")),
        (403, "7")
    );
    let message = secondary.body["message"].as_str().unwrap();
    assert!(
        message.starts_with("You have exceeded a secondary rate limit"),
        "{message}"
    );
    let primary = api.get("/user").await;
    assert_eq!(
        (primary.status, primary.header("x-ratelimit-remaining")),
        (403, "0")
    );
    api.get("/user").await.expect(200);
}

#[tokio::test]
async fn a_merge_takes_effect_though_its_answer_is_lost() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    let faults = world.sandbox().faults();
    faults
        .on_call(CallMatch::merges(), CallEffect::AnswerLost, Some(1))
        .unwrap();
    let api = Api::of(&world, BOT);
    let path = format!("{REPO}/pulls/{}/merge", pr.number);
    let cut = api.try_send("PUT", &path, Some(json!({})), &[]).await;
    assert!(cut.is_err());
    world.expect_merged(&pr).await;
    let again = api.put(&path, json!({})).await;
    assert_eq!(again.status, 405);
    assert_eq!(world.sandbox().merges_of(&world.head(&pr)), 1);
}

#[tokio::test]
async fn a_refused_connection_changes_nothing() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    let faults = world.sandbox().faults();
    faults
        .on_call(CallMatch::merges(), CallEffect::Refused, Some(1))
        .unwrap();
    let path = format!("{REPO}/pulls/{}/merge", pr.number);
    let cut = Api::of(&world, BOT)
        .try_send("PUT", &path, Some(json!({})), &[])
        .await;
    assert!(cut.is_err());
    assert!(!world.is_merged(&pr));
}

#[tokio::test]
async fn a_held_answer_comes_when_it_is_released() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    let barrier = world
        .sandbox()
        .faults()
        .hold_merge_answers("merge", Some(1))
        .unwrap();
    let api = Api::of(&world, BOT);
    let path = format!("{REPO}/pulls/{}/merge", pr.number);
    let call = tokio::spawn(async move { api.put(&path, json!({})).await.status });
    barrier.arrived(1).await;
    assert!(world.is_merged(&pr));
    assert!(!call.is_finished());
    barrier.release();
    assert_eq!(call.await.unwrap(), 200);
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_undo_its_call() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    let barrier = world
        .sandbox()
        .faults()
        .hold_merge_answers("merge", Some(1))
        .unwrap();
    let api = Api::of(&world, BOT);
    let path = format!("{REPO}/pulls/{}/merge", pr.number);
    let call = tokio::spawn(async move { api.put(&path, json!({})).await.status });
    barrier.arrived(1).await;
    call.abort();
    world.expect_merged(&pr).await;
    barrier.release();
}

#[tokio::test]
async fn webhooks_are_lost_doubled_and_overtaken() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    let hook = world.hook_to(&[&receiver.url]);
    let pr = world.pr("fix").opened_by("author").await;
    let faults = world.sandbox().faults();
    let comments = || HookMatch::event("issue_comment");
    faults
        .on_hook(comments(), HookEffect::Lost, Some(1))
        .unwrap();
    faults
        .on_hook(comments(), HookEffect::Duplicated { extra: 1 }, Some(1))
        .unwrap();
    faults
        .on_hook(comments(), HookEffect::Reordered, Some(1))
        .unwrap();
    for text in ["lost", "double", "late", "early"] {
        world.comment("author", &pr, text).await;
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        let received = receiver.next().await;
        let body = received.payload()["comment"]["body"]
            .as_str()
            .map(str::to_owned);
        seen.push((
            body.unwrap_or_default(),
            received.header("x-github-delivery").to_owned(),
        ));
    }
    let texts: Vec<&str> = seen.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["", "double", "double", "early", "late"]);
    assert_eq!(seen[1].1, seen[2].1);
    world.expect_delivered().await;
    let lost = world.sandbox().deliveries(hook).remove(1);
    assert_eq!(lost.answer.unwrap().status, "lost");
}

#[tokio::test]
async fn faults_are_set_and_watched_over_http() {
    let world = World::start().await;
    let pr = world.pr("fix").opened_by("author").await;
    let control = Api::anonymous(&world);
    let hold = json!({
        "call": {"method": "PUT", "path": "/repos/*/merge"}, "effect": {"answer_held": {"barrier": "b"}}, "times": 1,
    });
    control.post("/_sandbox/faults", hold).await.expect(201);
    let lose = json!({"hook": {"event": "push"}, "effect": "lost"});
    control.post("/_sandbox/faults", lose).await.expect(201);
    let api = Api::of(&world, BOT);
    let path = format!("{REPO}/pulls/{}/merge", pr.number);
    let call = tokio::spawn(async move { api.put(&path, json!({})).await.status });
    let arrived = control
        .get("/_sandbox/barriers/b?arrived=1")
        .await
        .expect(200);
    assert_eq!(arrived["arrived"], 1);
    control
        .post("/_sandbox/barriers/b/release", json!({}))
        .await
        .expect(204);
    assert_eq!(call.await.unwrap(), 200);
    let merges = control.get("/_sandbox/merges").await.expect(200);
    assert_eq!(merges[world.head(&pr)], 1);
    let calls = control.get("/_sandbox/calls").await.expect(200);
    assert_eq!(calls["PUT /repos/{}/{}/pulls/{}/merge"], 1);
    let log = control.get("/_sandbox/log").await.expect(200);
    assert!(
        log.as_array()
            .unwrap()
            .iter()
            .any(|e| e["kind"] == "merged")
    );
    control.delete("/_sandbox/faults").await.expect(204);
    assert_eq!(world.sandbox().faults().count(), 0);
    let token = control
        .post("/_sandbox/tokens/newcomer", json!({}))
        .await
        .expect(200);
    let me = Api::anonymous(&world).with_token(token["token"].as_str().unwrap());
    assert_eq!(me.get("/user").await.expect(200)["login"], "newcomer");
}

#[tokio::test]
async fn latency_and_delays_hold_a_call_up() {
    let world = World::start().await;
    let faults = world.sandbox().faults();
    let slow = CallEffect::Latency { millis: 40 };
    faults
        .on_call(CallMatch::path("/user"), slow, Some(1))
        .unwrap();
    let late = CallEffect::AnswerDelayed { millis: 40 };
    faults
        .on_call(CallMatch::path("/user"), late, Some(1))
        .unwrap();
    let api = Api::of(&world, BOT);
    let started = std::time::Instant::now();
    api.get("/user").await.expect(200);
    api.get("/user").await.expect(200);
    assert!(started.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_delayed_webhook_is_overtaken_by_what_comes_later() {
    let world = World::start().await;
    let mut receiver = Receiver::start().await;
    world.hook_to(&[&receiver.url]);
    let faults = world.sandbox().faults();
    let opened = HookMatch {
        action: Some("opened".into()),
        ..HookMatch::event("pull_request")
    };
    let late = HookEffect::Delayed { millis: 2_000 };
    faults.on_hook(opened, late, Some(1)).unwrap();
    let pr = world.pr("fix").opened_by("author").await;
    world.comment("author", &pr, "first?").await;
    assert_eq!(receiver.next().await.name(), "issue_comment.created");
    assert_eq!(receiver.next().await.name(), "pull_request.opened");
}
