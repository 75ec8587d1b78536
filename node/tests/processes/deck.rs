//! Pages, probes and the API's own description, from a real node.

use reqwest::{Response, StatusCode};
use serde_json::Value;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use trireme_proto::state::JobState;
use trireme_sandbox::world::World;

use crate::scene::{Nodes, Scene, http};

const JOBS: &str = r#"
presubmits:
  acme/widget:
  - name: unit
    always_run: true
    decorate: true
    spec:
      containers:
      - image: debian:stable
        command: ["sh", "-c", "echo '<script>alert(1)</script>'; while [ ! -e GATES/open ]; do sleep 0.05; done; echo the end; echo kept > $ARTIFACTS/kept.txt"]
"#;

async fn get(nodes: &Nodes, path: &str) -> Response {
    let url = format!("{}{path}", nodes.url(1));
    http().get(url).send().await.unwrap()
}

async fn text(nodes: &Nodes, path: &str) -> String {
    let response = get(nodes, path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.text().await.unwrap()
}

/// A page for people: whole, never cached, running nothing from elsewhere (DECK-007).
async fn page(nodes: &Nodes, path: &str) -> String {
    let response = get(nodes, path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let headers = response.headers();
    assert_eq!(
        headers["content-type"], "text/html; charset=utf-8",
        "{path}"
    );
    assert_eq!(
        headers["cache-control"], "no-store, must-revalidate",
        "{path}"
    );
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = response.text().await.unwrap();
    assert!(text.starts_with("<!DOCTYPE html>"), "{path}: {text}");
    assert!(text.trim_end().ends_with("</html>"), "{path}: {text}");
    text
}

/// DECK-008, DECK-009, DECK-021 and the four pages, while a run goes on and after it.
#[tokio::test(flavor = "multi_thread")]
async fn pages_show_a_run_while_it_goes_on_and_when_it_is_over() {
    let scene = Scene::start(World::builder(), JOBS).await;
    let nodes = &scene.nodes;
    let pr = scene.world.pr("change").opened_by("author").await;
    let job = scene
        .until_run("unit to run", |job| {
            job.job == "unit" && job.state() == JobState::Pending
        })
        .await;
    let run = format!("/run/{}", job.id);
    let link = format!("<a href=\"{run}\">unit</a>");

    assert!(page(nodes, "/").await.contains(&link));
    for (filter, fits) in [
        ("repo=acme/widget", true),
        ("repo=acme/other", false),
        ("type=presubmit", true),
        ("type=periodic", false),
        ("state=pending", true),
        ("state=success", false),
        ("author=author", true),
        ("author=nobody", false),
        (
            "repo=acme%2Fwidget&type=presubmit&state=pending&author=author",
            true,
        ),
        ("state=no-such-state", false),
    ] {
        let found = page(nodes, &format!("/?{filter}")).await;
        assert_eq!(found.contains(&link), fits, "{filter}");
        assert_eq!(found.contains("fit this filter"), !fits, "{filter}");
    }

    // The log follows the run until its end, as events and as text.
    let events = get(nodes, &format!("{run}/log/stream")).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let log = get(nodes, &format!("{run}/log")).await;
    assert_eq!(log.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(log.headers()["x-content-type-options"], "nosniff");
    scene.open_gate("open");
    let (events, log) = tokio::join!(events.text(), log.text());
    let whole = "<script>alert(1)</script>\nthe end\n";
    assert_eq!(log.unwrap(), whole);
    let events = events.unwrap();
    let told: String = events
        .split("\n\n")
        .filter(|event| !event.contains("event: end"))
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| serde_json::from_str::<String>(data.trim_start()).unwrap())
        .collect();
    assert_eq!(told, whole, "{events}");
    assert!(events.contains("event: end"), "{events}");

    let done = scene
        .until_run("the end of unit", |seen| {
            seen.id == job.id && seen.completed_ms > 0
        })
        .await;
    let shown = page(nodes, &run).await;
    assert!(shown.contains("id=\"state\">success</span>"), "{shown}");
    // JOB-075: who did what to it, and why.
    for told in [
        "What happened",
        "<td>controller:plugins@1</td><td>trigger: pull_request.opened on acme/widget#",
        "<td>controller:scheduler@1</td><td>attempt 1 leased to agent ",
        "<td>attempt 1: Job succeeded.</td>",
    ] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
    assert!(
        !shown.contains("<script>alert"),
        "a job's output runs as a script: {shown}"
    );
    assert!(
        shown.contains("alert(1)") && shown.contains("the end"),
        "{shown}"
    );
    assert!(shown.contains("artifacts/artifacts/kept.txt"), "{shown}");
    let kept = get(nodes, &format!("{run}/artifacts/artifacts/kept.txt")).await;
    assert_eq!(kept.headers()["content-security-policy"], "sandbox");
    assert_eq!(kept.text().await.unwrap(), "kept\n");
    for outside in ["..%2f..%2fhmac", "%2fetc%2fpasswd", "none.txt"] {
        let answer = get(nodes, &format!("{run}/artifacts/{outside}")).await;
        assert!(!answer.status().is_success(), "{outside}");
    }
    // Where the status on the pull request leads.
    let path = done
        .url
        .strip_prefix(&nodes.url(1))
        .unwrap_or_else(|| panic!("{}", done.url));
    let linked = get(nodes, path).await;
    assert_eq!(linked.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(linked.headers()["location"], run);

    let list: Value = serde_json::from_str(&text(nodes, "/prowjobs.js").await).unwrap();
    let item = &list["items"][0];
    assert_eq!(
        (&item["metadata"]["name"], &item["status"]["state"]),
        (&Value::from(job.id.as_str()), &Value::from("success"))
    );
    assert_eq!(item["spec"]["refs"]["pulls"][0]["number"], pr.number);
    let script = text(
        nodes,
        "/prowjobs.js?var=allBuilds&omit=annotations,labels,decoration_config,pod_spec",
    )
    .await;
    let json = script
        .strip_prefix("var allBuilds = ")
        .unwrap()
        .strip_suffix(';')
        .unwrap();
    let omitted: Value = serde_json::from_str(json).unwrap();
    assert!(
        omitted["items"][0]["metadata"].get("labels").is_none(),
        "{omitted}"
    );
    assert_eq!(
        omitted["items"][0]["spec"]["pod_spec"]["containers"],
        serde_json::json!([{}])
    );
    let bad = get(nodes, "/prowjobs.js?var=a;alert(1)").await;
    assert_eq!(bad.status(), StatusCode::BAD_REQUEST);

    assert!(page(nodes, "/tide").await.contains("<h1>Tide pools</h1>"));
    let cluster = page(nodes, "/cluster").await;
    assert!(
        cluster.contains("agent-1") && cluster.contains("<td>leader</td>"),
        "{cluster}"
    );
    for missing in [
        "/run/none",
        "/run/none/log",
        "/run/none/artifacts/x",
        "/view/none/1",
    ] {
        assert_eq!(
            get(nodes, missing).await.status(),
            StatusCode::NOT_FOUND,
            "{missing}"
        );
    }
    for asset in ["/static/deck.css", "/static/follow.js"] {
        assert!(!text(nodes, asset).await.is_empty());
    }
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_metrics_health_and_reflection_answer() {
    let mut nodes = Nodes::start(1).await;
    assert_eq!(text(&nodes, "/healthz").await, "OK");
    assert_eq!(text(&nodes, "/readyz").await, "OK");
    let metrics = text(&nodes, "/metrics").await;
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    for sample in samples.clone() {
        let value = sample.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{sample}");
    }
    assert!(
        samples.clone().any(|sample| sample.starts_with("trireme_")),
        "{metrics}"
    );

    let channel = tonic::transport::Endpoint::from_shared(nodes.url(1))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let health = HealthClient::new(channel.clone())
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(asked))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = listed
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for service in [
        "Job", "Pool", "Config", "Delivery", "Cluster", "Watch", "Agent",
    ] {
        let name = format!("trireme.api.v1.{service}Service");
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    nodes.cluster.stop().await.unwrap();
}

/// Neither a browser nor a load balancer should take a mistyped path for a page.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_nowhere_is_not_found() {
    let mut nodes = Nodes::start(1).await;
    let answer = reqwest::get(format!("{}/no/such/page", nodes.url(1)));
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.text().await.unwrap(), "404 page not found\n");
    // A client of a newer version hears what a gRPC client understands.
    let answer = reqwest::Client::new()
        .post(format!("{}/trireme.api.v9.JobService/Fly", nodes.url(1)))
        .header("content-type", "application/grpc")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["grpc-status"]),
        (200, &"12".parse().unwrap())
    );
    nodes.cluster.stop().await.unwrap();
}
