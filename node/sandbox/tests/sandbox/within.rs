//! A sandbox without a socket: called directly, its webhooks brought by whoever simulates the way, under paused time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use trireme_sandbox::forge::{AccountKind, HookConfig, HookPolicy, HookScope, RepoName};
use trireme_sandbox::{
    Clock, Courier, Cut, Receipt, Sandbox, SandboxConfig, Unbrought,
    faults::{CallEffect, CallMatch},
};
use url::Url;

/// Takes what comes to the second target; nobody is at the first.
#[derive(Debug, Clone, Default)]
struct Second(Arc<Mutex<Vec<(String, Bytes)>>>);

impl Courier for Second {
    fn post<'a>(
        &'a self,
        target: &'a Url,
        headers: &'a [(String, String)],
        payload: Bytes,
    ) -> BoxFuture<'a, Result<Receipt, Unbrought>> {
        Box::pin(async move {
            if target.host_str() == Some("first") {
                return Err(Unbrought::Refused("nobody is there".to_owned()));
            }
            let signed = headers
                .iter()
                .any(|(name, _)| name == "X-Hub-Signature-256");
            assert!(signed, "{headers:?}");
            let event = headers.iter().find(|(name, _)| name == "X-GitHub-Event");
            self.0
                .lock()
                .unwrap()
                .push((event.unwrap().1.clone(), payload));
            Ok(Receipt {
                status_code: 200,
                headers: Vec::new(),
                body: Bytes::new(),
            })
        })
    }
}

async fn call(
    sandbox: &Sandbox,
    method: &str,
    path: &str,
    body: &'static str,
) -> Result<(u16, Value), Cut> {
    let token = sandbox.token_for("owner");
    let request = Request::builder()
        .method(method)
        .uri(format!("http://forge.test{path}"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let response = sandbox.call(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_without_sockets_answers_and_tells() {
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let courier = Second::default();
    let sandbox = Sandbox::within(
        SandboxConfig {
            clock: Clock::Simulated {
                at,
                since: Instant::now(),
            },
            ..SandboxConfig::default()
        },
        &"http://forge.test/".parse().unwrap(),
        Arc::new(courier.clone()),
    );
    let repo = RepoName::new("owner", "repo");
    sandbox
        .change(|forge| {
            forge.ensure_account(at, "owner", AccountKind::User);
            forge.create_repo(at, &repo, "main", None).map(|_| ())
        })
        .unwrap();
    let hook = sandbox.add_hook(HookConfig {
        scope: HookScope::Repo(repo.clone()),
        targets: ["http://first/hook", "http://second/hook"]
            .map(|url| url.parse().unwrap())
            .to_vec(),
        policy: HookPolicy::FirstThatAccepts,
        secret: Some("s".to_owned()),
        events: vec!["*".to_owned()],
    });
    tokio::time::advance(Duration::from_secs(90)).await;
    let opened = call(
        &sandbox,
        "POST",
        "/repos/owner/repo/issues",
        r#"{"title":"Help"}"#,
    )
    .await;
    let (status, issue) = opened.unwrap();
    assert_eq!(status, 201, "{issue}");
    assert_eq!(issue["created_at"], "2027-01-15T08:01:30Z");
    assert_eq!(issue["url"], "http://forge.test/repos/owner/repo/issues/1");
    let mut changes = sandbox.changes();
    let hook = hook.unwrap();
    let delivered = |sandbox: &Sandbox| {
        let deliveries = sandbox.deliveries(hook);
        deliveries.iter().all(|delivery| delivery.answer.is_some())
    };
    while !delivered(&sandbox) {
        changes.changed().await.unwrap();
    }
    let answer = sandbox.deliveries(hook)[0].answer.clone().unwrap();
    assert_eq!(
        (answer.status_code, answer.url.as_str()),
        (200, "http://second/hook")
    );
    let brought = courier.0.lock().unwrap().clone();
    assert_eq!(brought.len(), 1);
    assert_eq!(brought[0].0, "issues");
    let payload: Value = serde_json::from_slice(&brought[0].1).unwrap();
    assert_eq!(payload["issue"]["title"], "Help");
    let faults = sandbox.faults();
    faults
        .on_call(CallMatch::default(), CallEffect::Refused, Some(1))
        .unwrap();
    assert_eq!(call(&sandbox, "GET", "/user", "").await, Err(Cut));
}
