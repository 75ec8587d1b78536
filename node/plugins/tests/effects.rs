//! What becomes of the effects of a plan: those that depend on others, those that waited too long, and deliveries that
//! are sent on to plugins elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap"
)]

mod stage;

use std::time::Duration;

use async_trait::async_trait;
use axum::{Router, body::Bytes, extract::State as Shared, http::HeaderMap, routing::post};
use jiff::{SignedDuration, Timestamp};
use stage::{Setup, Stage};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use trireme_forge::webhook::Event;
use trireme_plugins::decision::{Decision, Outcome, Target, Text};
use trireme_plugins::help::{HelpScope, PluginHelp};
use trireme_plugins::{Configured, EventKind, PlanError, Planning, Plugin, Plugins};
use trireme_proto::state::EffectState;
use trireme_sandbox::{
    Clock, FileChange, Logged,
    faults::{CallEffect, CallMatch, Times},
    forge::{IssueChange, Permission},
    world::World,
};

/// Assigns whom a comment names, and says whom the forge would not have.
struct Assigner;

#[async_trait]
impl Plugin for Assigner {
    fn name(&self) -> &'static str {
        "assigner"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        let comment = event.generic_comment();
        comment.is_some_and(|comment| comment.body.starts_with("assign "))
    }

    async fn plan(&self, _: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let comment = event.generic_comment().unwrap();
        let on = Target::new(&comment.repo, comment.number);
        let names = comment.body.split(' ').skip(1).map(str::to_owned);
        let mut decision = Decision::nothing();
        let assigned = decision.push(on.assign(names.collect()));
        let not = Text::from("Not: ").and_result(assigned).and(".");
        decision.push_if(assigned, &[Outcome::Partly], on.comment(not));
        decision.push_if(assigned, &[Outcome::Ok], on.comment("All."));
        decision.push_if(assigned, &[Outcome::Refused], on.comment("None."));
        Ok(decision)
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp::default()
    }
}

/// Fails for good, each time.
struct Clumsy;

#[async_trait]
impl Plugin for Clumsy {
    fn name(&self) -> &'static str {
        "clumsy"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        let comment = event.generic_comment();
        comment.is_some_and(|comment| comment.body.starts_with("/hold"))
    }

    async fn plan(&self, _: &Planning<'_>, _: &Event) -> Result<Decision, PlanError> {
        panic!("it fell over")
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp::default()
    }
}

/// HOOK-017: one that panics stands in nobody's way, and is told of; unlike in Prow it is tried again, then given up.
#[tokio::test]
async fn hook_017_a_plugin_that_panics_stops_no_other() {
    let stage = Stage::new(Setup {
        plugins: "plugins: {acme/widget: {plugins: [clumsy, hold]}}".to_owned(),
        built_in: Plugins::built_in().with(Clumsy),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.world.comment("author", &pr, "/hold").await;
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), ["do-not-merge/hold"]);
    let dead = stage.dead();
    let told = (dead.len(), dead[0].plugin.as_str(), dead[0].error.as_str());
    assert_eq!(told, (1, "clumsy", "the plugin panicked"));
    assert_eq!(dead[0].failures, trireme_plugins::MAX_TRIES);
}

fn calls(method: &str, path: &str) -> CallMatch {
    CallMatch {
        method: Some(method.to_owned()),
        ..CallMatch::path(path)
    }
}

#[tokio::test]
async fn what_is_said_depends_on_what_the_forge_answered() {
    let stage = Stage::new(Setup {
        plugins: "plugins: {acme/widget: {plugins: [assigner]}}".to_owned(),
        built_in: Plugins::built_in().with(Assigner),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage
        .world
        .comment("author", &pr, "assign nobody reviewer somebody")
        .await;
    stage.settled().await;
    stage.world.comment("author", &pr, "assign reviewer").await;
    stage.settled().await;
    let refuse = CallEffect::Status { code: 403 };
    let assigning = calls("POST", "/repos/*/issues/*/assignees");
    let faults = stage.world.sandbox().faults();
    faults.on_call(assigning, refuse, Some(1)).unwrap();
    stage.world.comment("author", &pr, "assign reviewer").await;
    stage.settled().await;
    assert_eq!(stage.said(&pr), ["Not: nobody, somebody.", "All.", "None."]);
    assert_eq!(stage.dead().len(), 0);
}

/// A fault on writing labels, gone when the story says so.
fn labels_fail(stage: &Stage, times: Times) -> u64 {
    let labels = calls("POST", "/repos/*/issues/*/labels");
    let faults = stage.world.sandbox().faults();
    let down = CallEffect::Status { code: 502 };
    faults.on_call(labels, down, times).unwrap()
}

fn clock_ahead() -> Clock {
    Clock::manual(Timestamp::now() + SignedDuration::from_secs(60))
}

async fn until_tried(stage: &Stage, plugin: &str) {
    stage
        .until("a first try in vain", |state| {
            let (plan, ordinal) = state
                .open_effects()
                .find(|(plan, _)| plan.plugin == plugin)?;
            (!plan.effects[ordinal as usize].error.is_empty()).then_some(())
        })
        .await;
}

#[tokio::test]
async fn what_a_person_has_changed_meanwhile_stays() {
    let clock = clock_ahead();
    let stage = Stage::new(Setup {
        world: World::builder().clock(clock.clone()).member("lead"),
        plugins: "plugins: {acme/widget: {plugins: [hold]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    let fault = labels_fail(&stage, None);
    stage.world.comment("author", &pr, "/hold").await;
    until_tried(&stage, "hold").await;
    clock.advance(SignedDuration::from_secs(1));
    let label = "do-not-merge/hold";
    stage.world.grant("lead", Permission::Triage);
    stage.world.label("lead", &pr, label).await;
    stage.world.unlabel("lead", &pr, label).await;
    stage.world.sandbox().faults().clear(fault);
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    let view = stage.store().view();
    let mut plans = view
        .deliveries_newest_first(None)
        .filter_map(|delivery| view.plan(&delivery.guid, "hold"));
    let effect = plans.next().unwrap().effects[0].clone();
    assert_eq!(effect.state(), EffectState::Skipped);
    assert_eq!(
        effect.error,
        "do-not-merge/hold was taken off by lead since it was decided"
    );
}

/// As above, for what is overwritten rather than put on: the forge's record tells who changed it last.
#[tokio::test]
async fn what_a_person_has_named_or_taken_off_meanwhile_stays() {
    let clock = clock_ahead();
    let stage = Stage::new(Setup {
        world: World::builder().clock(clock.clone()).member("lead"),
        plugins: "plugins: {acme/widget: {plugins: [retitle, assign]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    let faults = stage.world.sandbox().faults();
    let down = || CallEffect::Status { code: 502 };
    let issues = calls("PATCH", "/repos/*/issues/*");
    let naming = faults.on_call(issues, down(), None).unwrap();
    let assignees = calls("POST", "/repos/*/issues/*/assignees");
    let assigning = faults.on_call(assignees, down(), None).unwrap();
    let lead = stage.world.user("lead");
    stage.world.grant("lead", Permission::Write);
    stage.world.comment("lead", &pr, "/retitle Late").await;
    stage
        .world
        .comment("lead", &pr, "/assign reviewer lead")
        .await;
    until_tried(&stage, "retitle").await;
    until_tried(&stage, "assign").await;
    clock.advance(SignedDuration::from_secs(1));
    stage.world.retitle("author", &pr, "Meanwhile").await;
    let (repo, reviewer) = (stage.world.repo(), ["reviewer".to_owned()]);
    lead.assign(repo, pr.number, &reviewer).unwrap();
    lead.unassign(repo, pr.number, &reviewer).unwrap();
    for fault in [naming, assigning] {
        faults.clear(fault);
    }
    stage.settled().await;
    let title = stage.world.pull(&pr, |_, issue, _| issue.title.clone());
    assert_eq!(title, "Meanwhile");
    assert_eq!(stage.world.assignees(&pr), ["lead"]);
    let view = stage.store().view();
    let left_out: Vec<String> = view
        .deliveries_newest_first(None)
        .filter_map(|delivery| view.plan(&delivery.guid, "retitle"))
        .flat_map(|plan| plan.effects.clone())
        .filter(|effect| effect.state() == EffectState::Skipped)
        .map(|effect| effect.error)
        .collect();
    assert_eq!(
        left_out,
        ["it was renamed to \"Meanwhile\" by author since it was decided"]
    );
}

#[tokio::test]
async fn what_was_decided_for_another_head_is_left_out() {
    let stage = Stage::new(Setup {
        plugins: "plugins: {acme/widget: {plugins: [lgtm]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    let fault = labels_fail(&stage, None);
    stage.world.comment("reviewer", &pr, "/lgtm").await;
    until_tried(&stage, "lgtm").await;
    stage
        .world
        .push_fix(&pr, vec![FileChange::write("more.txt", "x")])
        .await;
    stage.world.sandbox().faults().clear(fault);
    stage.settled().await;
    assert_eq!(stage.world.labels(&pr), Vec::<String>::new());
    let view = stage.store().view();
    let skipped = view
        .deliveries_newest_first(None)
        .filter_map(|delivery| view.plan(&delivery.guid, "lgtm"))
        .flat_map(|plan| plan.effects.clone())
        .filter(|effect| effect.state() == EffectState::Skipped)
        .count();
    assert!(skipped > 0);
}

/// PLG-RELEASENOTE-007
#[tokio::test]
async fn what_a_person_has_written_meanwhile_stays() {
    let stage = Stage::new(Setup {
        world: World::builder().member("lead"),
        plugins: "plugins: {acme/widget: {plugins: [release-note]}}".to_owned(),
        ..Setup::default()
    })
    .await;
    let body = "Text\n```release-note\nNONE\n```\n";
    let pr = stage.world.pr("fix").body(body).opened_by("author").await;
    stage.settled().await;
    let issues = calls("PATCH", "/repos/*/issues/*");
    let faults = stage.world.sandbox().faults();
    let down = CallEffect::Status { code: 502 };
    let fault = faults.on_call(issues, down, None).unwrap();
    let edit = "/release-note-edit\r\n```release-note\r\nA new flag\r\n```";
    stage.world.comment("lead", &pr, edit).await;
    until_tried(&stage, "release-note").await;
    let since = "Better text\n```release-note\nNONE\n```\n";
    let change = IssueChange {
        body: Some(since.to_owned()),
        ..IssueChange::default()
    };
    let author = stage.world.user("author");
    author
        .edit_issue(stage.world.repo(), pr.number, change)
        .unwrap();
    faults.clear(fault);
    stage.settled().await;
    let now = stage.world.pull(&pr, |_, issue, _| issue.body.clone());
    assert_eq!(now.as_deref(), Some(since));
    let view = stage.store().view();
    let plans = view
        .deliveries_newest_first(None)
        .filter_map(|delivery| view.plan(&delivery.guid, "release-note"));
    let skipped: Vec<String> = plans
        .flat_map(|plan| plan.effects.clone())
        .filter(|effect| effect.state() == EffectState::Skipped)
        .map(|effect| effect.error)
        .collect();
    assert_eq!(skipped, ["the text was changed since it was decided"]);
}

type Received = (HeaderMap, Bytes);

/// A plugin elsewhere that answers with each of these, then with 200.
async fn elsewhere(answers: &'static [u16]) -> (String, mpsc::UnboundedReceiver<Received>) {
    let (tell, told) = mpsc::unbounded_channel();
    let take = async move |Shared(tell): Shared<
        mpsc::UnboundedSender<(HeaderMap, Bytes, tokio::sync::oneshot::Sender<u16>)>,
    >,
                           headers: HeaderMap,
                           body: Bytes| {
        let (answer, code) = tokio::sync::oneshot::channel();
        tell.send((headers, body, answer)).unwrap();
        axum::http::StatusCode::from_u16(code.await.unwrap()).unwrap()
    };
    let (asks, mut asked) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().route("/", post(take)).with_state(asks);
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::spawn(async move {
        let mut answers = answers.iter();
        while let Some((headers, body, answer)) = asked.recv().await {
            tell.send((headers, body)).unwrap();
            answer.send(answers.next().copied().unwrap_or(200)).unwrap();
        }
    });
    (url, told)
}

async fn next(told: &mut mpsc::UnboundedReceiver<Received>) -> Received {
    timeout(Duration::from_secs(20), told.recv())
        .await
        .unwrap()
        .unwrap()
}

/// HOOK-030, HOOK-031, HOOK-033
#[tokio::test]
async fn a_plugin_elsewhere_gets_the_delivery_as_it_came() {
    let (url, mut told) = elsewhere(&[500, 429, 500, 503]).await;
    let stage = Stage::new(Setup {
        plugins: format!(
            "plugins: {{acme: {{plugins: [hold], excluded_repos: [widget]}}}}\n\
             external_plugins: {{acme: [{{name: far, endpoint: '{url}', events: [pull_request]}}]}}"
        ),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    let (headers, body) = next(&mut told).await;
    assert_eq!(headers["user-agent"], "ProwHook");
    assert_eq!(headers["x-github-event"], "pull_request");
    assert!(headers.contains_key("x-hub-signature-256"));
    let payload: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(payload["pull_request"]["number"], pr.number);
    // What was refused is sent again, the same.
    for _ in 0..4 {
        let (again, same) = next(&mut told).await;
        assert_eq!(again["x-github-delivery"], headers["x-github-delivery"]);
        assert_eq!(same, body);
    }
    // One that is away is tried on, but what is known of it is not recorded again.
    let guid = headers["x-github-delivery"].to_str().unwrap();
    let plan = stage.store().view().plan(guid, "external:far").cloned();
    let effect = plan.unwrap().effects[0].clone();
    assert_eq!((effect.state(), effect.attempts), (EffectState::Done, 2));
    // No event that it did not ask for.
    stage.world.comment("author", &pr, "/hold").await;
    stage.settled().await;
    assert!(told.try_recv().is_err());
    assert_eq!(stage.dead().len(), 0);
}

/// HOOK-032, HOOK-033: what it will not take is given up visibly.
#[tokio::test]
async fn what_a_plugin_elsewhere_refuses_is_given_up_after_five_tries() {
    let (url, mut told) = elsewhere(&[400, 400, 400, 400, 400]).await;
    let stage = Stage::new(Setup {
        plugins: format!("external_plugins: {{acme/widget: [{{name: far, endpoint: '{url}', events: [pull_request]}}]}}"),
        ..Setup::default()
    })
    .await;
    stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    for _ in 0..5 {
        next(&mut told).await;
    }
    let dead = stage.dead();
    assert_eq!((dead.len(), dead[0].plugin.as_str()), (1, "external:far"));
    assert_eq!(
        dead[0].effects[0].error,
        format!("{url}: 400 Bad Request: ")
    );
}

/// HOOK-030: two that share a name are two; HOOK-054: what is on only as an external plugin is none of `plugins`.
#[tokio::test]
async fn plugins_elsewhere_of_one_name_each_get_the_delivery() {
    let (first, mut told_first) = elsewhere(&[]).await;
    let (second, mut told_second) = elsewhere(&[]).await;
    let stage = Stage::new(Setup {
        plugins: format!(
            "plugins: {{acme: {{plugins: [refresh, of-a-fork]}}}}\n\
             external_plugins: {{acme: [{{name: far, endpoint: '{first}', events: [issue_comment]}}, {{name: far, endpoint: '{second}', events: [issue_comment]}}]}}"
        ),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.world.comment("author", &pr, "/refresh").await;
    stage.settled().await;
    let (of_first, body) = next(&mut told_first).await;
    let (of_second, same) = next(&mut told_second).await;
    assert_eq!(
        of_first["x-github-delivery"],
        of_second["x-github-delivery"]
    );
    assert_eq!(body, same);
    assert!(told_first.try_recv().is_err() && told_second.try_recv().is_err());
    let view = stage.store().view();
    let plugins = view.deliveries_newest_first(None);
    let plugins: Vec<_> = plugins.flat_map(|delivery| &delivery.plugins).collect();
    assert!(
        plugins.iter().any(|name| name.starts_with("external:far@")),
        "{plugins:?}"
    );
    for off in ["refresh", "of-a-fork"] {
        assert!(!plugins.contains(&&off.to_owned()), "{plugins:?}");
    }
}

/// HOOK-030, PLG-NEEDSREBASE-002: what is built in runs here, or elsewhere after all, and never both.
#[tokio::test]
async fn a_plugin_that_is_built_in_may_run_elsewhere_after_all() {
    let (url, mut told) = elsewhere(&[]).await;
    let name = ["needs-rebase".to_owned()];
    let mut found = Vec::new();
    for built_in in [Plugins::built_in(), Plugins::built_in().elsewhere(&name)] {
        let stage = Stage::new(Setup {
            plugins: format!("external_plugins: {{acme: [{{name: needs-rebase, endpoint: '{url}', events: [pull_request]}}]}}"),
            built_in,
            ..Setup::default()
        })
        .await;
        stage.world.pr("fix").opened_by("author").await;
        stage.settled().await;
        let view = stage.store().view();
        let plugins: Vec<_> = (view.deliveries_newest_first(None))
            .filter(|delivery| delivery.event == "pull_request")
            .flat_map(|delivery| delivery.plugins.clone())
            .filter(|plugin| plugin.contains("needs-rebase"))
            .collect();
        let looked = view.cursor("plugins/needs-rebase").is_some();
        found.push((plugins.join(" "), told.try_recv().is_ok(), looked));
    }
    let here = ("needs-rebase".to_owned(), false, true);
    let there = ("external:needs-rebase".to_owned(), true, false);
    assert_eq!(found, [here, there]);
}

/// What kubernetes has on for most of its repositories.
const KUBERNETES: &str = "approve, assign, blunderbuss, help, hold, label, lgtm, lifecycle, milestone, milestonestatus, \
    override, owners-label, release-note, retitle, shrug, skip, stage, trigger, verify-owners, welcome, wip";

/// A comment that no plugin reacts to causes no call at all.
#[tokio::test]
async fn a_comment_that_concerns_nobody_costs_no_call() {
    let stage = Stage::new(Setup {
        plugins: format!("plugins: {{acme/widget: {{plugins: [{KUBERNETES}]}}}}"),
        ..Setup::default()
    })
    .await;
    let pr = stage.world.pr("fix").opened_by("author").await;
    stage.settled().await;
    let calls = |stage: &Stage| {
        let log = stage.world.sandbox().log_after(0);
        let calls = log
            .iter()
            .filter(|entry| matches!(entry.what, Logged::Call { .. }));
        calls.count()
    };
    let before = calls(&stage);
    assert!(before > 0);
    for text in [
        "Thanks!",
        "What about /etc/hosts?",
        "> /lgtm\n\nNot yet.",
        "/unknown",
    ] {
        stage.world.comment("author", &pr, text).await;
    }
    stage.settled().await;
    assert_eq!(calls(&stage), before);
}
