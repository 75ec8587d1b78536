//! GitHub's own examples of webhooks, through every plugin: none may fail by a fault of ours.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

mod stage;

use std::{collections::BTreeSet, io::Read as _, path::Path, time::Duration};

use axum::body::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;
use stage::{Setup, Stage};
use trireme_outside::Outside;
use trireme_plugins::Plugins;
use trireme_proto::state::EffectState;
use trireme_sandbox::world::World;

/// Examples on their way at once.
const PORTION: usize = 16;

fn examples() -> Option<Vec<(String, Value)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/github/webhook-examples.json.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        println!("skipped: no {}", path.display());
        return None;
    };
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut examples = Vec::new();
    for event in events {
        for example in event["examples"].as_array().unwrap() {
            examples.push((event["name"].as_str().unwrap().to_owned(), example.clone()));
        }
    }
    Some(examples)
}

/// The payload, about commits and a branch that this world has: what is not there is asked for five times.
fn moved_here(payload: &Value, head: &str) -> Vec<u8> {
    let sha = regex::Regex::new("\"[0-9a-f]{40}\"").unwrap();
    let text = payload.to_string();
    let text = sha.replace_all(&text, format!("\"{head}\""));
    text.replace("\"master\"", "\"main\"")
        .replace("\"refs/heads/master\"", "\"refs/heads/main\"")
        .into_bytes()
}

/// What the forge says to a plugin that asks for what its example names and this world has not.
fn is_the_forges(error: &str) -> bool {
    ["not found", "refused with status", "forbidden", "no commit"]
        .iter()
        .any(|words| error.contains(words))
}

#[tokio::test]
async fn githubs_examples_go_through_every_plugin() {
    let Some(examples) = examples() else {
        return;
    };
    let built_in = Plugins::built_in();
    let (mut names, mut external) = (Vec::new(), Vec::new());
    for name in built_in.names() {
        match built_in.external(name) {
            Some(_) => external.push(format!("{{name: {name}}}")),
            None => names.push(name),
        }
    }
    let (names, external) = (names.join(", "), external.join(", "));
    let stage = Stage::new(Setup {
        world: World::builder().repo("Codertocat", "Hello-World"),
        plugins: format!(
            "plugins: {{Codertocat: {{plugins: [{names}]}}}}\nexternal_plugins: {{Codertocat: [{external}]}}"
        ),
        ..Setup::default()
    })
    .await;
    stage
        .world
        .issue("Spelling error")
        .opened_by("author")
        .await;
    let pr = stage.world.pr("changes").opened_by("author").await;
    let head = stage.world.head(&pr);
    stage.settled().await;
    let outside = Outside::new().unwrap();
    for (n, (name, payload)) in examples.iter().enumerate() {
        let mut headers = http::HeaderMap::new();
        for (key, value) in [
            ("x-github-event", name.clone()),
            ("x-github-delivery", format!("example-{n}")),
            ("content-type", "application/json".to_owned()),
        ] {
            headers.insert(key, value.parse().unwrap());
        }
        let body = Bytes::from(moved_here(payload, &head));
        let within = Duration::from_secs(20);
        let answer = outside
            .send(http::Method::POST, stage.hook_url(), headers, body, within)
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{name} {payload}");
        if n % PORTION == PORTION - 1 {
            stage.settled().await;
        }
    }
    stage.settled().await;

    let view = stage.store().view();
    let mut ours = BTreeSet::new();
    let mut planned = 0;
    for n in 0..examples.len() {
        let delivery = view.delivery(&format!("example-{n}")).unwrap();
        planned += delivery.plugins.len();
        for plan in view.plans_of(&delivery.guid) {
            let effects = plan.effects.iter();
            let dead = effects.filter(|effect| effect.state() == EffectState::Dead);
            let errors = dead.map(|effect| &effect.error);
            for error in errors.chain(plan.dead.then_some(&plan.error)) {
                if !is_the_forges(error) {
                    ours.insert(format!("{} {}: {error}", delivery.event, plan.plugin));
                }
            }
        }
    }
    println!("{} examples, {planned} times a plugin", examples.len());
    assert!(planned > 2000);
    assert_eq!(ours, BTreeSet::new());
}
