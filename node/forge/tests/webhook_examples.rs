//! GitHub's own examples of the payloads that we consume are read, and mean what they say (HOOK-009, HOOK-014).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

mod shared;

use serde_json::Value;
use trireme_forge::webhook::{Event, GenericAction};

const CONSUMED: [&str; 8] = [
    "pull_request",
    "issues",
    "issue_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "push",
    "status",
    "ping",
];

#[test]
fn githubs_examples_are_read() {
    let Some(text) = shared::gunzip("github/webhook-examples.json.gz") else {
        return;
    };
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut read = 0;
    for event in &events {
        let name = event["name"].as_str().unwrap();
        for example in event["examples"].as_array().unwrap() {
            let payload = serde_json::to_vec(example).unwrap();
            let parsed = Event::parse(name, &payload).unwrap();
            if !CONSUMED.contains(&name) {
                assert_eq!(parsed, Event::Other, "{name}");
                continue;
            }
            read += 1;
            check(name, example, &parsed);
        }
    }
    println!("{read} examples");
    assert!(read > 50);
}

fn check(name: &str, example: &Value, event: &Event) {
    let say = format!("{name} {}", example["action"]);
    if name == "ping" {
        assert_eq!(*event, Event::Ping);
        return;
    }
    let repo = event.repo().unwrap().to_string();
    assert_eq!(
        repo,
        example["repository"]["full_name"].as_str().unwrap(),
        "{say}"
    );
    assert_eq!(event.action(), example["action"].as_str(), "{say}");
    let about = ["pull_request", "issue"]
        .iter()
        .find_map(|key| example.get(*key));
    assert_eq!(
        event.number(),
        about.and_then(|about| about["number"].as_u64()),
        "{say}"
    );

    let expected = match example["action"].as_str() {
        Some("created" | "opened" | "submitted") => Some(GenericAction::Created),
        Some("edited") => Some(GenericAction::Edited),
        Some("deleted" | "dismissed") => Some(GenericAction::Deleted),
        _ => None,
    };
    let generic = event.generic_comment();
    assert_eq!(
        generic.as_ref().map(|generic| generic.action),
        expected,
        "{say}"
    );
    let Some(generic) = generic else { return };
    let written = ["comment", "review"]
        .iter()
        .find_map(|key| example.get(*key))
        .or(about)
        .unwrap();
    assert_eq!(
        generic.body,
        written["body"].as_str().unwrap_or_default(),
        "{say}"
    );
    assert_eq!(
        generic.html_url,
        written["html_url"].as_str().unwrap(),
        "{say}"
    );
    assert_eq!(
        generic.user.login,
        written["user"]["login"].as_str().unwrap(),
        "{say}"
    );
    let about = about.unwrap();
    assert_eq!(
        generic.issue_author.login,
        about["user"]["login"].as_str().unwrap(),
        "{say}"
    );
    assert_eq!(
        generic.issue_title,
        about["title"].as_str().unwrap(),
        "{say}"
    );
    let commented = example
        .get("comment")
        .and_then(|comment| comment["id"].as_u64());
    assert_eq!(generic.comment_id, commented, "{say}");
    let is_pr = example.get("pull_request").is_some() || about.get("pull_request").is_some();
    assert_eq!(generic.is_pr, is_pr, "{say}");
}
