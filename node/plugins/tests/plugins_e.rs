//! What holds for several plugins: what they cost where nothing is asked of them, what they take back, what they do about
//! failures; and those for fun.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State as Shared,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use stage::{Setup, Stage};
use tokio::net::TcpListener;
use trireme_outside::jira::JiraAuth;
use trireme_plugins::{FunOptions, JiraOptions, PluginOptions};
use trireme_proto::state::DeliveryState;
use trireme_sandbox::{
    FileChange, Logged,
    faults::{CallEffect, CallMatch},
    forge::{NewStatus, Permission, RepoName, ReviewState, StatusState},
    world::{BOT, ORG, Pr, World},
};
use trireme_state::Change;

fn plugins(names: &str, more: &str) -> Setup {
    Setup {
        plugins: format!("plugins: {{acme: {{plugins: [{names}]}}}}\n{more}"),
        ..Setup::default()
    }
}

async fn opened(stage: &Stage) -> Pr {
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    pr
}

/// Calls of the bot that the forge has answered, with this method and this end of the path.
fn calls(stage: &Stage, wanted: &str, end: &str) -> usize {
    let log = stage.world.sandbox().log_after(0);
    let calls = log.iter().filter(|entry| {
        matches!(&entry.what, Logged::Call { method, path, actor, .. }
            if method == wanted && path.ends_with(end) && actor.as_deref() == Some(BOT))
    });
    calls.count()
}

fn status(context: &str, state: StatusState, description: &str) -> NewStatus {
    NewStatus {
        state,
        context: context.to_owned(),
        description: Some(description.to_owned()),
        target_url: None,
    }
}

/// The states that deliveries went through since then, until all and at least as many as that are handled.
async fn steps(stage: &Stage, from: u64, events: usize) -> Vec<DeliveryState> {
    let mut watch = stage.store().watch(Some(from));
    let mut steps = Vec::new();
    let count =
        |steps: &[DeliveryState], wanted| steps.iter().filter(|step| **step == wanted).count();
    loop {
        let handled = count(&steps, DeliveryState::Handled);
        if handled >= events && handled == count(&steps, DeliveryState::Received) {
            return steps;
        }
        for change in &watch.next().await.unwrap().changes {
            if let Change::Delivery(delivery) = change {
                steps.push(delivery.state());
            }
        }
    }
}

/// What the configuration rules out costs one command, as if no plugin were on: labels that ask for nothing, statuses that
/// nobody waits for, reviews that count for nothing.
#[tokio::test]
async fn what_is_configured_for_nobody_costs_nothing() {
    let stage = Stage::new(plugins(
        "approve, blunderbuss, cherry-pick-unapproved, cla, label, lgtm, require-matching-label, slackevents",
        "external_plugins: {acme: [{name: cherrypicker}]}\n\
         approve: [{repos: [acme], ignore_review_state: true}]\n\
         label: {restricted_labels: {acme: [{label: x, assign_on: [{label: area/y}], allowed_users: [reviewer]}]}}\n\
         require_matching_label: [{org: other, prs: true, regexp: ^kind/, missing_label: needs-kind}]",
    ))
    .await;
    let pr = opened(&stage).await;
    stage.world.grant("approver", Permission::Triage);
    let head = stage.world.head(&pr);
    let bot = stage.world.user(BOT);
    let from = stage.store().view().revision;
    for label in ["area/x", "kind/bug", "lgtm"] {
        stage.world.label("approver", &pr, label).await;
    }
    for context in ["unit", "tide"] {
        let set = status(context, StatusState::Success, "Fine.");
        bot.set_status(stage.world.repo(), &head, set)
            .await
            .unwrap();
    }
    let state = ReviewState::Approved;
    stage.world.review("reviewer", &pr, state, "").await;
    stage.settled().await;
    // Received and handled, and nothing in between.
    let of_all = steps(&stage, from, 6).await;
    let received = of_all
        .iter()
        .filter(|step| **step == DeliveryState::Received);
    assert_eq!(of_all.len(), 2 * received.count(), "{of_all:?}");
    // What it does not rule out is decided about.
    let from = stage.store().view().revision;
    stage.world.label("approver", &pr, "area/y").await;
    stage.settled().await;
    let of_one = steps(&stage, from, 1).await;
    assert!(of_one.contains(&DeliveryState::Planned), "{of_one:?}");
    assert_eq!(stage.world.assignees(&pr), ["reviewer"]);
}

const NEW_CHANGES: &str = "New changes are detected. LGTM label has been removed.";

/// HOOK-021: comments are listed once, only the bot's that match go, and one that cannot be deleted stops nothing else.
#[tokio::test]
async fn hook_021_only_what_the_bot_said_is_pruned_after_one_look() {
    let stage = Stage::new(plugins(
        "lgtm",
        "lgtm: [{repos: [acme], store_tree_hash: true}]",
    ))
    .await;
    let pr = opened(&stage).await;
    let first = stage.world.comment(BOT, &pr, NEW_CHANGES).await;
    for (login, text) in [
        ("author", NEW_CHANGES),
        (BOT, "Something else."),
        (BOT, NEW_CHANGES),
    ] {
        stage.world.comment(login, &pr, text).await;
    }
    stage.settled().await;
    let deleting = CallMatch {
        method: Some("DELETE".to_owned()),
        ..CallMatch::path(&format!("/repos/*/issues/comments/{first}"))
    };
    let refuse = CallEffect::Status { code: 403 };
    let faults = stage.world.sandbox().faults();
    faults.on_call(deleting, refuse, None).unwrap();
    let end = format!("/issues/{}/comments", pr.number);
    let before = calls(&stage, "GET", &end);
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    stage.settled().await;
    assert_eq!(calls(&stage, "GET", &end), before + 1);
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
    let left: Vec<(String, String)> = stage
        .world
        .comments(&pr)
        .into_iter()
        .map(|comment| {
            (
                comment.author,
                comment.body.split(". ").next().unwrap().to_owned(),
            )
        })
        .collect();
    let told = |login: &str, text: &str| (login.to_owned(), text.to_owned());
    assert_eq!(
        left,
        [
            told(BOT, "New changes are detected"),
            told("author", "New changes are detected"),
            told(BOT, "Something else."),
            told("reviewer", "/lgtm"),
            told(BOT, "LGTM label has been added"),
        ]
    );
    // The first was refused five times and given up for somebody to see.
    assert_eq!(stage.dead().len(), 1);
}

/// PLG-LGTM-010: while labels cannot be read nothing is done; when the head cannot be read for good, nothing either.
#[tokio::test]
async fn plg_lgtm_010_what_cannot_be_read_changes_nothing() {
    let stage = Stage::new(plugins(
        "lgtm",
        "lgtm: [{repos: [acme], store_tree_hash: true}]",
    ))
    .await;
    let pr = opened(&stage).await;
    let reading = |path: &str| CallMatch {
        method: Some("GET".to_owned()),
        ..CallMatch::path(path)
    };
    let faults = stage.world.sandbox().faults();
    let labels = reading("/repos/*/issues/*/labels*");
    let down = CallEffect::Status { code: 502 };
    faults.on_call(labels, down, Some(3)).unwrap();
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    stage.settled().await;
    // Once they could be read.
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
    assert!(stage.said(&pr)[0].starts_with("LGTM label has been added."));
    assert_eq!(stage.dead().len(), 0);

    let other = stage.world.pr("other").opened_by("author").await;
    stage.settled().await;
    let refuse = || CallEffect::Status { code: 403 };
    faults
        .on_call(reading("/repos/*/commits/*"), refuse(), None)
        .unwrap();
    faults
        .on_call(reading("/repos/*/git/commits/*"), refuse(), None)
        .unwrap();
    stage.world.comment("reviewer", &other, "/lgtm").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&other), Vec::<String>::new());
    assert_eq!(stage.said(&other), Vec::<String>::new());
    assert_eq!(stage.dead().len(), 1);
}

/// PLG-LGTM-009: a team is known by its name, also where its slug is not the usual one.
#[tokio::test]
async fn plg_lgtm_009_a_team_of_another_slug_keeps_the_label() {
    // The sandbox gives it the slug core--eu-.
    let section = "lgtm: [{repos: [acme], trusted_team_for_sticky_lgtm: 'Core (EU)'}]";
    let stage = Stage::new(plugins("lgtm", section)).await;
    stage.world.team("Core (EU)", &["author"]);
    let pr = opened(&stage).await;
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
    let change = vec![FileChange::write("more.txt", "x")];
    stage.world.push_fix(&pr, change).await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["lgtm"]);
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-APPROVE-023: however many events come at once, there is one notification on each pull request, and its links lead
/// to its own repository.
#[tokio::test]
async fn plg_approve_023_events_at_once_leave_one_notification_with_links_of_its_own() {
    let stage = Stage::new(Setup {
        world: World::builder().file("OWNERS", "approvers: [approver]\n"),
        ..plugins("approve", "")
    })
    .await;
    let other = RepoName::new(ORG, "gadget");
    let owners = FileChange::write("OWNERS", "approvers: [reviewer]\n");
    stage.world.add_repo(&other, vec![owners]).await;
    let there = stage.world.at(other);
    there.hook_to(&[stage.hook_url()]);
    let (here, gone) = (
        stage.world.pr("fix").opened_by("author").await,
        there.pr("fix").opened_by("author").await,
    );
    for n in 0..4 {
        let text = format!("/approve no-issue\nround {n}");
        tokio::join!(
            stage.world.comment("author", &here, &text),
            there.comment("author", &gone, &text),
            stage.world.comment("outsider", &here, "/approve"),
            there.comment("outsider", &gone, "/approve"),
        );
    }
    there.expect_delivered().await;
    stage.settled().await;
    for (world, pr, repo, foreign) in [
        (&stage.world, &here, "acme/widget", "acme/gadget"),
        (&there, &gone, "acme/gadget", "acme/widget"),
    ] {
        let said = world.comments(pr).into_iter();
        let said: Vec<String> = said
            .filter(|comment| comment.author == BOT)
            .map(|comment| comment.body)
            .collect();
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(
            said[0].starts_with("[APPROVALNOTIFIER] This PR is **NOT APPROVED**"),
            "{}",
            said[0]
        );
        assert!(
            said[0].contains(&format!("/{repo}/blob/main/OWNERS")),
            "{}",
            said[0]
        );
        assert!(!said[0].contains(foreign), "{}", said[0]);
    }
}

type Asked = Arc<Mutex<Vec<(Method, String, Option<String>)>>>;

/// A service elsewhere that answers by path; it keeps what it was asked, with the key that came along.
async fn service(answer: fn(&str) -> (u16, &'static str)) -> (String, Asked) {
    let asked = Asked::default();
    let take = async move |Shared(asked): Shared<Asked>,
                           method: Method,
                           uri: Uri,
                           headers: HeaderMap|
                -> Response {
        let path = uri.path_and_query().unwrap().to_string();
        let (status, text) = answer(&path);
        let host = headers[header::HOST].to_str().unwrap();
        let text = text.replace("HERE", &format!("http://{host}"));
        let key = headers
            .get("x-api-key")
            .or(headers.get(header::AUTHORIZATION));
        let key = key.map(|key| key.to_str().unwrap().to_owned());
        asked.lock().unwrap().push((method, path, key));
        (StatusCode::from_u16(status).unwrap(), text).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(take).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

/// HOOK-020: Jira is not asked unless its plugin is on somewhere, and then only about what names it; without an address
/// nothing is wrong until it is on.
#[tokio::test]
async fn hook_020_jira_is_not_asked_where_its_plugin_is_off() {
    let (url, asked) = service(|_| (200, "[]")).await;
    let with_jira = |names: &str| Setup {
        options: PluginOptions {
            jira: Some(JiraOptions {
                url: url.clone(),
                auth: JiraAuth::Anonymous,
                dry_run: false,
            }),
            ..PluginOptions::default()
        },
        ..plugins(names, "")
    };
    for (names, expected) in [("hold", 0), ("hold, jira", 1)] {
        let stage = Stage::new(with_jira(names)).await;
        let pr = opened(&stage).await;
        stage.world.comment("author", &pr, "Nothing of note.").await;
        stage.settled().await;
        assert_eq!(asked.lock().unwrap().len(), 0, "{names}");
        stage
            .world
            .comment("author", &pr, "See ABC-1.\nABC-2 too")
            .await;
        stage.settled().await;
        let projects = asked.lock().unwrap().len();
        assert!(
            projects >= expected && (projects == 0) == (expected == 0),
            "{names}: {projects}"
        );
        assert_eq!(stage.dead().len(), 0);
    }
    let stage = Stage::new(plugins("hold", "")).await;
    let pr = opened(&stage).await;
    stage.world.comment("author", &pr, "ABC-2 too").await;
    stage.settled().await;
    assert_eq!(stage.dead().len(), 0);
}

fn fun(url: &str) -> Option<FunOptions> {
    let at = |path: &str| format!("{url}{path}");
    Some(FunOptions {
        jokes: at("/joke"),
        dogs: at("/dog"),
        fine_dogs: at("/fine/"),
        cats: at("/cat?format=json"),
        grumpy_cats: at("/grumpy/"),
        geese: at("/goose?query=goose"),
        ponies: at("/pony"),
    })
}

fn animals(path: &str) -> (u16, &'static str) {
    match path {
        "/joke" => (200, r#"{"joke": "I'm <here>."}"#),
        "/dog" => (200, r#"{"url": "HERE/rex.jpg"}"#),
        "/cat?format=json" => (200, r#"[{"url": "HERE/tom.gif"}]"#),
        "/cat?format=json&category=none" => (200, "[]"),
        "/goose?query=goose" => (200, r#"{"urls": {"small": "HERE/gus"}}"#),
        "/pony?q=Twilight" => (
            200,
            r#"{"pony": {"representations": {"small": "HERE/s", "full": "HERE/f"}}}"#,
        ),
        path if path.starts_with("/pony") => (404, ""),
        _ => (200, ""),
    }
}

const FUN: &str = "cat, dog, golint, goose, pony, sigmention, yuks";

/// What was said, without what answers quote.
fn said(stage: &Stage, pr: &Pr) -> Vec<String> {
    let said = stage.said(pr).into_iter();
    said.map(|text| text.split("\n\n<details>").next().unwrap().to_owned())
        .collect()
}

/// PLG-FUN-001, PLG-FUN-002, PLG-FUN-003, PLG-FUN-004
#[tokio::test]
async fn plg_fun_001_people_are_shown_animals_and_told_jokes() {
    let (url, asked) = service(animals).await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "s3cret\n").unwrap();
    let stage = Stage::new(Setup {
        options: PluginOptions {
            fun: fun(&url),
            ..PluginOptions::default()
        },
        ..plugins(
            FUN,
            &format!("cat: {{key_path: {key:?}}}\ngoose: {{key_path: {key:?}}}"),
        )
    })
    .await;
    let pr = opened(&stage).await;
    for text in [
        "/joke",
        "/woof",
        "/this-is-fine",
        "/meow",
        "/meow none",
        "/meow grumpy",
        "/honk",
        "/pony Twilight\n/pony nobody",
        "/pony nobody",
        "/lint",
    ] {
        stage.world.comment("author", &pr, text).await;
        stage.settled().await;
    }
    insta::assert_snapshot!(said(&stage, &pr).join("\n--\n").replace(&url, "URL"), @r"
    @author: I'm &#60;here&#62;.
    --
    @author: [![dog image](URL/rex.jpg)](URL/rex.jpg)
    --
    @author: [![dog image](URL/fine/this_is_fine.png)](URL/fine/this_is_fine.png)
    --
    @author: ![cat image](URL/tom.gif)
    --
    @author: Bad category. Please see https://api.thecatapi.com/api/categories/list
    --
    @author: ![cat image](URL/grumpy/Grumpy_Cat_by_Gage_Skidmore.jpg)
    --
    @author: 
    ![goose image](URL/gus)
    --
    @author: [![pony image](URL/s)](URL/f)

    --
    @author: Couldn't find a pony matching given tag(s).
    --
    @author: golint is not available: its authors have frozen and deprecated it, and Trireme does not run it. Lint in a presubmit job, as with `go vet` or `staticcheck`; its failure is shown on the pull request.
    ");
    assert_eq!(stage.dead().len(), 0);
    // Keys go to their service alone, and in no address.
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.iter().any(|(_, path, _)| path.contains("s3cret")));
    let with_key = asked
        .iter()
        .filter_map(|(_, path, key)| Some((path.as_str(), key.as_deref()?)));
    let with_key: Vec<_> = with_key.collect();
    assert_eq!(
        with_key,
        [
            ("/cat?format=json", "s3cret"),
            ("/cat?format=json&category=none", "s3cret"),
            ("/goose?query=goose", "Client-ID s3cret"),
        ]
    );
}

/// PLG-FUN-006: an operator turns it off, and nobody is asked.
#[tokio::test]
async fn plg_fun_006_where_fun_is_off_nobody_is_asked() {
    let (_, asked) = service(animals).await;
    let stage = Stage::new(plugins(FUN, "")).await;
    let pr = opened(&stage).await;
    let from = stage.store().view().revision;
    let text = "/joke\n/woof\n/meow\n/honk\n/pony";
    stage.world.comment("author", &pr, text).await;
    stage.settled().await;
    assert_eq!(said(&stage, &pr), Vec::<String>::new());
    assert_eq!(asked.lock().unwrap().len(), 0);
    assert_eq!(steps(&stage, from, 1).await.len(), 2, "it concerns nobody");
}

/// PLG-FUN-001, PLG-FUN-003: a service that is broken is asked again, five times in all, and then it is said.
#[tokio::test]
async fn plg_fun_003_a_broken_service_is_told_of() {
    let (url, asked) = service(|_| (500, "")).await;
    let stage = Stage::new(Setup {
        options: PluginOptions {
            fun: fun(&url),
            ..PluginOptions::default()
        },
        ..plugins(FUN, "")
    })
    .await;
    let pr = opened(&stage).await;
    stage.world.comment("author", &pr, "/honk\n/meow").await;
    stage.settled().await;
    let mut told = said(&stage, &pr);
    told.sort();
    assert_eq!(
        told,
        [
            "@author: Unable to find goose. Have you checked the garden?",
            "@author: https://thecatapi.com appears to be down",
        ]
    );
    assert_eq!(
        asked.lock().unwrap().len(),
        2 * trireme_plugins::MAX_TRIES as usize
    );
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-SIGMENTION-001: who cannot be told to be a member is none, once the forge answers at all; labels do not depend on it.
#[tokio::test]
async fn plg_sigmention_001_a_membership_that_is_not_told_is_none() {
    let stage = Stage::new(plugins("sigmention", "")).await;
    stage.world.repo_labels(&["sig/testing"]);
    let pr = opened(&stage).await;
    let faults = stage.world.sandbox().faults();
    let asking = || CallMatch {
        method: Some("GET".to_owned()),
        ..CallMatch::path("/orgs/*/members/*")
    };
    let answers = [(502, Some(2)), (403, None)];
    for (code, times) in answers {
        let refuse = CallEffect::Status { code };
        faults.on_call(asking(), refuse, times).unwrap();
    }
    stage
        .world
        .comment("reviewer", &pr, "cc @kubernetes/sig-testing-misc")
        .await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["sig/testing"]);
    assert_eq!(
        said(&stage, &pr),
        [
            "@reviewer: Reiterating the mentions to trigger a notification: \n@kubernetes/sig-testing-misc\n"
        ]
    );
    assert_eq!(stage.dead().len(), 0);
}

/// PLG-SIGMENTION-001
#[tokio::test]
async fn plg_sigmention_001_mentions_of_strangers_are_repeated() {
    let stage = Stage::new(plugins("sigmention", "")).await;
    stage.world.repo_labels(&["sig/testing", "kind/bug"]);
    let pr = opened(&stage).await;
    let text = "cc @kubernetes/sig-testing-bugs";
    stage.world.comment("outsider", &pr, text).await;
    stage.settled().await;
    let mut labels = stage.world.labels(&pr);
    labels.sort();
    assert_eq!(labels, ["kind/bug", "sig/testing"]);
    assert_eq!(
        said(&stage, &pr),
        [
            "@outsider: Reiterating the mentions to trigger a notification: \n@kubernetes/sig-testing-bugs\n"
        ]
    );
}
