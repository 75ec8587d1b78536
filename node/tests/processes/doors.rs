//! The webhook door of real nodes: what is refused changes nothing, what is taken is committed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, Response, StatusCode};
use trireme_proto::state::change::Record;
use trireme_sandbox::world::WEBHOOK_SECRET;

use crate::scene::{Nodes, http, until_record};

const PING: &[u8] = br#"{"zen":"Speak like a human."}"#;

pub(crate) fn sign(body: &[u8], secret: &str) -> String {
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    format!(
        "sha256={}",
        hex::encode(mac.chain_update(body).finalize().into_bytes())
    )
}

/// A webhook as GitHub sends it, to be spoilt.
struct Hook {
    method: Method,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Hook {
    fn ping(guid: &str) -> Self {
        Self::new(guid, PING)
    }

    fn new(guid: &str, body: &[u8]) -> Self {
        Self {
            method: Method::POST,
            headers: vec![
                ("x-github-event", "ping".to_owned()),
                ("x-github-delivery", guid.to_owned()),
                ("x-hub-signature-256", sign(body, WEBHOOK_SECRET)),
                ("content-type", "application/json".to_owned()),
            ],
            body: body.to_vec(),
        }
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(header, _)| *header != name);
        self
    }

    fn with(self, name: &'static str, value: &str) -> Self {
        let mut hook = self.without(name);
        hook.headers.push((name, value.to_owned()));
        hook
    }

    async fn send(self, url: &str) -> Response {
        let mut request = http().request(self.method, format!("{url}/hook"));
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        request.body(self.body).send().await.unwrap()
    }

    async fn answer(self, url: &str) -> (u16, String) {
        let response = self.send(url).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

async fn deliveries(nodes: &Nodes, id: u64) -> Vec<String> {
    let listed = nodes
        .run_at(id, &["get", "deliveries", "-o", "json"])
        .await
        .done()
        .json();
    let items = listed["items"].as_array().unwrap().iter();
    items
        .map(|item| item["guid"].as_str().unwrap().to_owned())
        .collect()
}

/// HOOK-003, HOOK-004, HOOK-012: codes and texts are Prow's, word for word, and nothing is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_webhook_is_refused_in_prows_words_and_changes_nothing() {
    let mut nodes = Nodes::start(1).await;
    let url = nodes.url(1);
    until_record(&nodes.cluster, "the office", |record| {
        matches!(record, Record::Office(_)).then_some(())
    })
    .await;
    // The last that a new cluster does by itself.
    until_record(&nodes.cluster, "a comparison of the replicas", |record| {
        matches!(record, Record::Audit(audit) if !audit.reports.is_empty()).then_some(())
    })
    .await;
    let before = nodes.cluster.status(1).await.unwrap();
    let good = || Hook::ping("refused");
    let header = "x-hub-signature-256";
    let cases = [
        (good().method(Method::GET), 405, "405 Method not allowed\n"),
        (
            good().without("x-github-event"),
            400,
            "400 Bad Request: Missing X-GitHub-Event Header\n",
        ),
        (
            good().without("x-github-delivery"),
            400,
            "400 Bad Request: Missing X-GitHub-Delivery Header\n",
        ),
        (
            good().without(header),
            403,
            "403 Forbidden: Missing X-Hub-Signature-256\n",
        ),
        (
            good().with("content-type", "application/json; charset=utf-8"),
            400,
            "400 Bad Request: Hook only accepts content-type: application/json - please reconfigure this hook on GitHub\n",
        ),
        (
            Hook::new("refused", b"{\"zen\":"),
            403,
            "403 Forbidden: Invalid X-Hub-Signature-256 - invalid payload\n",
        ),
        (
            good().with(header, "sha1=00"),
            403,
            "403 Forbidden: Invalid X-Hub-Signature-256 - invalid signature\n",
        ),
        (
            good().with(header, &sign(PING, "another secret")),
            403,
            "403 Forbidden: Invalid X-Hub-Signature-256 - misconfigured webhook secret from organization/repo: \n",
        ),
        (
            Hook::new("refused", br#"{"repository":{"full_name":"acme/widget"}}"#)
                .with(header, &sign(b"something else", WEBHOOK_SECRET)),
            403,
            "403 Forbidden: Invalid X-Hub-Signature-256 - misconfigured webhook secret from organization/repo: acme/widget\n",
        ),
    ];
    for (hook, code, text) in cases {
        assert_eq!(hook.answer(&url).await, (code, text.to_owned()));
    }
    // SHA-1 alone was never good enough.
    let old = good().without(header).with("x-hub-signature", "sha1=00");
    assert_eq!(old.answer(&url).await.0, 403);

    let mut large = b"{\"zen\":\"".to_vec();
    large.resize(26 * 1024 * 1024, b'a');
    large.extend_from_slice(b"\"}");
    let large = Hook::new("refused", &large).answer(&url).await;
    assert_eq!(
        large,
        (
            413,
            "413 Request Entity Too Large: a delivery is at most 25 MiB\n".to_owned()
        )
    );

    let after = nodes.cluster.status(1).await.unwrap();
    assert_eq!(
        (after.applied_index, after.last_log_index, after.digest),
        (before.applied_index, before.last_log_index, before.digest)
    );
    assert_eq!(deliveries(&nodes, 1).await, Vec::<String>::new());
    nodes.cluster.stop().await.unwrap();
}

/// HOOK-005, HOOK-010, HOOK-011: the 200 comes after the commit; a delivery id is recorded once, whichever node it
/// reaches. Without a quorum the answer is 503, and the node still tells how things are.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_committed_before_its_200_once_on_all_nodes_and_503_without_a_quorum() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    let follower = leader % 3 + 1;
    let taken = (200, "Event received. Have a nice day.".to_owned());
    assert_eq!(Hook::ping("once").answer(&nodes.url(follower)).await, taken);
    // Read linearizably right after the answer, on each node.
    for id in 1..=3 {
        assert_eq!(deliveries(&nodes, id).await, ["once"], "node {id}");
    }
    assert_eq!(Hook::ping("once").answer(&nodes.url(leader)).await, taken);
    assert_eq!(
        Hook::ping("unknown-event")
            .with("x-github-event", "cat_fed")
            .answer(&nodes.url(leader))
            .await,
        taken
    );
    for id in 1..=3 {
        let mut found = deliveries(&nodes, id).await;
        found.sort();
        assert_eq!(found, ["once", "unknown-event"], "node {id}");
    }

    let others: Vec<u64> = (1..=3).filter(|id| *id != follower).collect();
    for id in &others {
        nodes.cluster.kill(*id).await.unwrap();
    }
    let response = Hook::ping("lost").send(&nodes.url(follower)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    let text = response.text().await.unwrap();
    assert!(
        text.starts_with(
            "503 Service Unavailable: the delivery could not be stored, send it again: "
        ),
        "{text}"
    );
    let status = nodes.run_at(follower, &["cluster", "status"]).await.done();
    assert!(
        status.out.contains(&format!("asked    node {follower} (")),
        "{status:?}"
    );
    for id in others {
        nodes.cluster.restart(id).unwrap();
    }
    nodes.cluster.wait_for_leader().await.unwrap();
    assert_eq!(Hook::ping("lost").answer(&nodes.url(follower)).await, taken);
    nodes.cluster.stop().await.unwrap();
}
