//! A dead letter as an operator meets it: found, looked at, tried again; and what plugins say about themselves.

use reqwest::StatusCode;
use serde_json::Value;
use trireme_sandbox::{
    faults::{CallEffect, CallMatch},
    world::World,
};

use crate::scene::{Nodes, Scene, http, until};

async fn page(nodes: &Nodes, path: &str) -> String {
    let url = format!("{}{path}", nodes.url(1));
    let response = http().get(url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_found_looked_at_and_tried_again() {
    let scene = Scene::start(World::builder(), "").await;
    let nodes = &scene.nodes;
    let pr = scene.world.pr("change").opened_by("author").await;
    let labels = CallMatch {
        method: Some("POST".to_owned()),
        ..CallMatch::path("/repos/*/issues/*/labels")
    };
    let faults = scene.world.sandbox().faults();
    let refuse = CallEffect::Status { code: 422 };
    faults.on_call(labels, refuse, Some(5)).unwrap();
    scene.world.comment("author", &pr, "/hold").await;
    let list = async |more: &[&str]| {
        let command = [&["get", "deliveries", "-o", "json"], more].concat();
        nodes.run(&command).await.done().json()["items"].clone()
    };
    let dead = until("a dead letter", async || {
        let items = list(&["--dead"]).await;
        items.as_array()?.first().cloned()
    })
    .await;
    let guid = dead["guid"].as_str().unwrap();
    let number = pr.number.to_string();
    let about = ["--repo", "acme/widget", "--pr", &number];
    let found = list(&[&["--dead", "--plugin", "hold"], &about[..]].concat()).await;
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    for other in [["--plugin", "lgtm"], ["--repo", "acme/other"]] {
        let found = list(&[&["--dead"], &other[..]].concat()).await;
        assert_eq!(found, Value::Array(Vec::new()), "{other:?}");
    }

    let told = nodes.run(&["get", "delivery", guid]).await.done().out;
    for line in [
        "   0  dead after 5 tries: add label do-not-merge/hold to acme/widget#1",
        &format!("try again: trireme deliveries redrive {guid} --plugin hold --effect 0"),
        "lgtm: nothing to do",
        "  x-hub-signature-256: (hidden)",
        "    \"action\": \"created\",",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let payload = nodes.run(&["get", "delivery", guid, "--payload"]).await;
    assert_eq!(payload.done().json()["comment"]["body"], "/hold");
    let shown = page(nodes, "/deliveries?show=dead").await;
    assert!(shown.contains(&format!("/deliveries/{guid}")), "{shown}");
    let shown = page(nodes, &format!("/deliveries/{guid}")).await;
    let command = format!("trireme deliveries redrive {guid} --plugin hold --effect 0");
    assert!(shown.contains(&command), "{shown}");

    let all = ["deliveries", "redrive", "--all-dead"];
    let dry = nodes.run(&[&all[..], &["--dry-run"]].concat()).await.done();
    assert!(dry.out.contains("1 would be tried again"), "{}", dry.out);
    assert_eq!(list(&["--dead"]).await.as_array().unwrap().len(), 1);
    let done = nodes.run(&all).await.done();
    assert!(done.out.contains("1 is tried again"), "{}", done.out);
    until("the label", async || {
        let labels = scene.world.labels(&pr);
        labels
            .contains(&"do-not-merge/hold".to_owned())
            .then_some(())
    })
    .await;
    until("no dead letter", async || {
        let items = list(&["--dead"]).await;
        items.as_array()?.is_empty().then_some(())
    })
    .await;
    let nothing = nodes.run(&["deliveries", "redrive", guid]).await;
    assert_eq!(nothing.code, 4, "{nothing:?}");
    assert!(nothing.err.contains("has nothing dead"), "{nothing:?}");
    assert_eq!(nodes.run(&all).await.done().out, "nothing is dead\n");
    scene.stop().await;
}

/// HOOK-080, HOOK-084, DECK-033, DECK-075, DECK-076
#[tokio::test(flavor = "multi_thread")]
async fn hook_080_plugins_say_what_they_are_to_programs_and_people() {
    let scene = Scene::start(World::builder(), "").await;
    let nodes = &scene.nodes;
    scene.edit("plugins.yaml", |text| {
        text.replace("trigger, wip]", "trigger, wip, rifle]")
    });
    scene.apply().await;
    let help: Value = until("the new configuration", async || {
        let help: Value = serde_json::from_str(&page(nodes, "/plugin-help").await).unwrap();
        help["RepoPlugins"]["acme"]
            .to_string()
            .contains("rifle")
            .then_some(help)
    })
    .await;
    assert_eq!(help["AllRepos"], serde_json::json!(["acme/widget"]));
    assert!(help["PluginHelp"]["hold"]["Commands"].is_array());
    assert!(help["PluginHelp"].get("rifle").is_none());
    let url = format!("{}/plugin-help", nodes.url(1));
    let posted = http().post(&url).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    let browsed = http().get(&url).header("accept", "text/html,*/*");
    let browsed = browsed.send().await.unwrap();
    assert_eq!(browsed.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(browsed.headers()["location"], "/command-help");
    let script = page(nodes, "/plugin-help.js?var=allHelp").await;
    assert!(
        script.starts_with("var allHelp = {\"AllRepos\":[\"acme/widget\"]"),
        "{script}"
    );
    let commands = page(nodes, "/command-help?repo=acme/widget&q=hold").await;
    assert!(
        commands.contains("/[remove-][un]hold [cancel]"),
        "{commands}"
    );
    assert!(!commands.contains("/lgtm cancel"), "{commands}");
    let plugins = page(nodes, "/plugins?repo=acme/widget").await;
    assert!(plugins.contains("not built yet"), "{plugins}");
    scene.stop().await;
}
