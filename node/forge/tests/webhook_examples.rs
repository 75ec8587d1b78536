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

    check_fields(example, event, &say);
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

/// What plugins read beyond the comment-like part.
fn check_fields(example: &Value, event: &Event, say: &str) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match event {
        Event::PullRequest(event) => {
            let pull = &example["pull_request"];
            let slugs: Vec<String> = pull["requested_teams"]
                .as_array()
                .map(|teams| {
                    teams
                        .iter()
                        .filter_map(|team| text(&team["slug"]))
                        .collect()
                })
                .unwrap_or_default();
            assert_eq!(event.pull_request.requested_teams, slugs, "{say}");
            assert_eq!(
                event.pull_request.auto_merge,
                pull["auto_merge"].is_object(),
                "{say}"
            );
            assert_eq!(
                event.changes.title,
                text(&example["changes"]["title"]["from"]),
                "{say}"
            );
            assert_eq!(
                event.changes.body,
                text(&example["changes"]["body"]["from"]),
                "{say}"
            );
            assert_eq!(
                event.label.as_ref().map(|label| label.name.clone()),
                text(&example["label"]["name"]),
                "{say}"
            );
            assert_eq!(
                event
                    .requested_reviewer
                    .as_ref()
                    .map(|asked| asked.login.clone()),
                text(&example["requested_reviewer"]["login"]),
                "{say}"
            );
            assert_eq!(
                event.requested_team,
                text(&example["requested_team"]["slug"]),
                "{say}"
            );
            assert_eq!(event.before, text(&example["before"]), "{say}");
        }
        Event::Issue(event) => {
            assert_eq!(
                event.label.as_ref().map(|label| label.name.clone()),
                text(&example["label"]["name"]),
                "{say}"
            );
            assert_eq!(
                event.changes.title,
                text(&example["changes"]["title"]["from"]),
                "{say}"
            );
            assert_eq!(
                event.changes.body,
                text(&example["changes"]["body"]["from"]),
                "{say}"
            );
        }
        Event::Push(event) => {
            assert_eq!(
                (event.created, event.deleted, event.forced),
                (
                    example["created"] == true,
                    example["deleted"] == true,
                    example["forced"] == true
                ),
                "{say}"
            );
            assert_eq!(Some(&*event.compare_url), example["compare"].as_str());
            assert_eq!(Some(&*event.pusher), example["pusher"]["name"].as_str());
            assert_eq!(
                event.head_commit.as_ref().map(|head| head.id.clone()),
                text(&example["head_commit"]["id"]),
                "{say}"
            );
            let told = example["commits"].as_array().unwrap();
            assert_eq!(event.commits.len(), told.len(), "{say}");
            for (commit, told) in event.commits.iter().zip(told) {
                assert_eq!(commit.distinct, told["distinct"] == true, "{say}");
                let list = |key: &str| -> Vec<String> {
                    let paths = told[key].as_array().unwrap();
                    paths.iter().filter_map(text).collect()
                };
                assert_eq!(commit.added, list("added"), "{say}");
                assert_eq!(commit.removed, list("removed"), "{say}");
                assert_eq!(commit.modified, list("modified"), "{say}");
            }
        }
        Event::Status(event) => {
            assert_eq!(Some(event.id), example["id"].as_u64(), "{say}");
            assert_eq!(
                Some(event.status.state.as_str()),
                example["state"].as_str(),
                "{say}"
            );
            assert_eq!(
                event.status.description,
                text(&example["description"]).unwrap_or_default(),
                "{say}"
            );
            let branches = example["branches"].as_array().unwrap();
            let names: Vec<String> = branches
                .iter()
                .filter_map(|branch| text(&branch["name"]))
                .collect();
            assert_eq!(event.branches, names, "{say}");
        }
        _ => {}
    }
}
