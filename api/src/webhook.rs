//! The webhook door: a delivery gets its 200 when the cluster has committed it, not before.
//!
//! Checks, status codes and texts are those of Prow's hook (HOOK-003 to HOOK-007). Beyond Prow: a body is at most
//! 25 MiB (413, HOOK-012), a node that cannot commit answers 503 in time so that the forge shows the delivery as failed
//! and it can be sent again (HOOK-010, HOOK-044), and a delivery id is taken once (HOOK-011).

mod payload;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::State,
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::BodyExt as _;
use sha2::Sha256;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use trireme_proto::state::{
    AcceptDelivery, Command, Delivery, Header, Rejection, command::Body as CommandBody, outcome,
};
use trireme_raft::{Applied, ProposeError, Store};
use trireme_state::{
    EFFECTS_LEVEL,
    limits::{MAX_HEADER_BYTES as MAX_KEPT_HEADER_BYTES, MAX_HEADERS},
};

use self::payload::Payload;
use crate::{
    Metrics, blob,
    flow::{Flow, Slot},
};

/// GitHub's own bound.
pub const MAX_WEBHOOK_BYTES: usize = 25 * 1024 * 1024;
/// Compressed payloads up to this size travel inside the command that accepts them.
const INLINE_BYTES: usize = 256 * 1024;
/// Payloads up to this size are checked in place.
const CHECK_IN_PLACE_BYTES: usize = 256 * 1024;
/// For the body to come in: GitHub gives up after as long.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Room for a body is taken in steps of so much, as it comes in: what is only announced takes none from others.
const ROOM_STEP: usize = 64 * 1024;
/// For a whole delivery, from its body being there to its answer, however many commands it takes (HOOK-044). GitHub gives
/// up after 10 s and does not say it again by itself.
const COMMIT_WITHIN: Duration = Duration::from_millis(4500);
/// Before a command whose fate is unknown is said again, half of it more or less.
const SAY_AGAIN: Duration = Duration::from_millis(50);
/// Bounds of what is taken from headers into a record.
const MAX_HEADER_BYTES: usize = 200;

/// Tokens by scope: `org/repo`, `org` or `*`. Several of one scope are all good, so that they can be rotated.
pub type HookTokens = BTreeMap<String, Vec<String>>;

/// Webhook secrets (HOOK-006), asked for at each delivery, so that a changed file is honoured without a restart (CFG-099).
#[derive(Clone)]
pub struct HookSecrets {
    tokens: Arc<dyn Fn() -> Arc<HookTokens> + Send + Sync>,
}

impl fmt::Debug for HookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookSecrets(…)")
    }
}

impl Default for HookSecrets {
    /// None: every delivery is refused.
    fn default() -> Self {
        Self::new([])
    }
}

impl HookSecrets {
    /// One secret for everything, for good.
    #[must_use]
    pub fn single(secret: &str) -> Self {
        Self::new([("*".to_owned(), vec![secret.trim().to_owned()])])
    }

    /// Secrets per scope, for good.
    pub fn new(scopes: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let tokens: Arc<HookTokens> = Arc::new(scopes.into_iter().collect());
        Self::asked(move || Arc::clone(&tokens))
    }

    /// Whatever they are when a delivery comes in.
    #[must_use]
    pub fn asked(tokens: impl Fn() -> Arc<HookTokens> + Send + Sync + 'static) -> Self {
        Self {
            tokens: Arc::new(tokens),
        }
    }

    /// HOOK-007: only the most specific scope counts; a mismatch there never falls through to a wider one.
    fn of(&self, full_name: &str) -> Option<Vec<String>> {
        let org = full_name.split('/').next().unwrap_or_default();
        let tokens = (self.tokens)();
        [full_name, org, "*"]
            .into_iter()
            .filter(|scope| !scope.is_empty())
            .find_map(|scope| tokens.get(scope).cloned())
    }
}

/// What the route needs.
pub(crate) struct HookDoor {
    store: Store,
    secrets: Arc<HookSecrets>,
    flow: Arc<Flow>,
    metrics: Arc<Metrics>,
}

impl HookDoor {
    pub(crate) fn new(
        store: Store,
        secrets: Arc<HookSecrets>,
        metrics: Arc<Metrics>,
        flow: Arc<Flow>,
    ) -> Self {
        Self {
            store,
            secrets,
            flow,
            metrics,
        }
    }
}

/// A refusal in the words of Go's `http.Error`, which Prow's hook uses.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (
            self.0,
            [
                (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ],
            self.1 + "\n",
        )
            .into_response();
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
        }
        response
    }
}

pub(crate) async fn receive(State(door): State<Arc<HookDoor>>, request: Request<Body>) -> Response {
    match door.accept(request).await {
        Ok(event) => {
            door.metrics.webhook(&event, StatusCode::OK.as_u16());
            (StatusCode::OK, "Event received. Have a nice day.").into_response()
        }
        Err((event, refusal)) => {
            door.metrics.webhook(&event, refusal.0.as_u16());
            tracing::info!(%event, status = refusal.0.as_u16(), why = %refusal.1, "webhook refused");
            refusal.into_response()
        }
    }
}

impl HookDoor {
    /// When the leader is lost on the way, the command may have been applied or not. To say it again does no harm:
    /// a delivery is taken once by its id, a chunk by its sum. The forge would not say it again by itself.
    async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        loop {
            match self.store.propose(command.clone()).await {
                Err(ProposeError::Timeout {
                    maybe_applied: true,
                }) => sleep(SAY_AGAIN.mul_f64(0.5 + rand::random::<f64>())).await,
                told => return told,
            }
        }
    }

    async fn accept(&self, request: Request<Body>) -> Result<String, (String, Refusal)> {
        let (parts, body) = request.into_parts();
        let checked = check_headers(&parts.method, &parts.headers);
        let (event, guid, signature) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return Err(("unknown".to_owned(), refusal)),
        };
        let named = |refusal| (event.clone(), refusal);
        let busy = || {
            Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "503 Service Unavailable: too many deliveries are being taken, send this one again"
                    .to_owned(),
            )
        };
        let body = self.read_body(body, busy);
        let late = || {
            named(Refusal(
                StatusCode::REQUEST_TIMEOUT,
                format!("408 Request Timeout: the body did not come in within {BODY_WITHIN:?}"),
            ))
        };
        let body = timeout(BODY_WITHIN, body).await.map_err(|_| late())?;
        let (payload, _room) = body.map_err(named)?;
        let deadline = Instant::now() + COMMIT_WITHIN;
        let _slot = self.flow.webhooks.take().ok_or_else(|| named(busy()))?;
        let read = self.check(payload.clone(), signature).await;
        let mut delivery = describe(&event, &guid, read.map_err(named)?);
        // A cluster with members of an earlier version does not keep them.
        if self.store.view().feature_level() >= EFFECTS_LEVEL {
            delivery.headers = kept(&parts.headers);
        }
        let committed = timeout_at(deadline, self.commit(delivery, payload)).await;
        // What was put until then is found again by the next attempt: a chunk by its sum, the delivery by its id.
        let late = |_| Err(unavailable(format!("no answer within {COMMIT_WITHIN:?}")));
        committed.unwrap_or_else(late).map_err(named)?;
        Ok(event)
    }

    /// The body, and the room that it takes.
    async fn read_body(
        &self,
        mut body: Body,
        busy: impl Fn() -> Refusal,
    ) -> Result<(Bytes, Option<Slot>), Refusal> {
        let too_large = || {
            Refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                "413 Request Entity Too Large: a delivery is at most 25 MiB".to_owned(),
            )
        };
        if body.size_hint().lower() > MAX_WEBHOOK_BYTES as u64 {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        let (mut room, mut taken): (Option<Slot>, usize) = (None, 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                Refusal(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "500 Internal Server Error: Failed to read request body".to_owned(),
                )
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let bytes = whole.len() + data.len();
            if bytes > MAX_WEBHOOK_BYTES {
                return Err(too_large());
            }
            if bytes > taken {
                let step = (bytes - taken).next_multiple_of(ROOM_STEP);
                let more = self.flow.webhook_bytes.take_bytes(step).ok_or_else(&busy)?;
                taken += step;
                match &mut room {
                    Some(room) => room.merge(more),
                    None => room = Some(more),
                }
            }
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), room))
    }

    /// Reads what a payload is about and checks that its sender knows the secret.
    async fn check(&self, payload: Bytes, signature: String) -> Result<Payload, Refusal> {
        let secrets = Arc::clone(&self.secrets);
        if payload.len() <= CHECK_IN_PLACE_BYTES {
            return check_payload(&payload, &signature, &secrets);
        }
        let checking = move || check_payload(&payload, &signature, &secrets);
        let checked = self.store.host().blocking(checking).await;
        checked.map_err(|why| unavailable(why.to_string()))?
    }

    async fn commit(&self, mut delivery: Delivery, payload: Bytes) -> Result<(), Refusal> {
        let principal = format!("hook:{}/{}", delivery.org, delivery.repo);
        let propose = async |body: CommandBody| {
            let command = Command {
                min_level: 1,
                principal: principal.clone(),
                body: Some(body),
                ..Command::default()
            };
            match self.propose(command).await {
                Err(why) => Err(unavailable(why.to_string())),
                Ok(applied) => match applied.outcome.result {
                    Some(outcome::Result::Rejected(rejected)) => match rejected.code() {
                        Rejection::Invalid => Err(Refusal(
                            StatusCode::BAD_REQUEST,
                            format!("400 Bad Request: {}", rejected.message),
                        )),
                        _ => Err(unavailable(rejected.message)),
                    },
                    _ => Ok(()),
                },
            }
        };
        // Compressing megabytes takes longer than the ring's other work may wait.
        let compressing = self.store.host().blocking(move || -> std::io::Result<_> {
            let data = blob::compress(&payload)?;
            if data.len() <= INLINE_BYTES {
                return Ok((Some(data), None));
            }
            Ok((None, Some(blob::chunks(&payload)?)))
        });
        let (inline, blobs) = compressing
            .await
            .map_err(|why| unavailable(why.to_string()))?
            .map_err(|why| unavailable(why.to_string()))?;
        if let Some(data) = inline {
            delivery.payload_zstd = data;
        }
        if let Some((name, chunks)) = blobs {
            for chunk in chunks {
                propose(CommandBody::PutBlobChunk(chunk)).await?;
            }
            delivery.blob = Some(name);
        }
        delivery.node_id = self.store.node_id();
        propose(CommandBody::AcceptDelivery(AcceptDelivery {
            delivery: Some(delivery),
        }))
        .await
    }
}

fn unavailable(why: String) -> Refusal {
    Refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("503 Service Unavailable: the delivery could not be stored, send it again: {why}"),
    )
}

fn check_headers(
    method: &Method,
    headers: &HeaderMap,
) -> Result<(String, String, String), Refusal> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty() && value.len() <= MAX_HEADER_BYTES)
            .map(str::to_owned)
    };
    let bad = |what: &str| Refusal(StatusCode::BAD_REQUEST, format!("400 Bad Request: {what}"));
    if method != Method::POST {
        return Err(Refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "405 Method not allowed".to_owned(),
        ));
    }
    let event = text("x-github-event").ok_or_else(|| bad("Missing X-GitHub-Event Header"))?;
    let guid = text("x-github-delivery").ok_or_else(|| bad("Missing X-GitHub-Delivery Header"))?;
    let signature = text("x-hub-signature-256").ok_or_else(|| {
        Refusal(
            StatusCode::FORBIDDEN,
            "403 Forbidden: Missing X-Hub-Signature-256".to_owned(),
        )
    })?;
    if text("content-type").as_deref() != Some("application/json") {
        return Err(bad(
            "Hook only accepts content-type: application/json - please reconfigure this hook on GitHub",
        ));
    }
    Ok((event, guid, signature))
}

/// The headers that plugins elsewhere get with the delivery (HOOK-031): all, and if that is more than a record holds
/// those that GitHub's own are about first.
fn kept(headers: &HeaderMap) -> Vec<Header> {
    let is_githubs = |name: &str| name.starts_with("x-github-") || name.starts_with("x-hub-");
    let is_first = |name: &str| is_githubs(name) || matches!(name, "content-type" | "accept");
    let (first, rest): (Vec<_>, Vec<_>) = headers
        .iter()
        .partition(|(name, _)| is_first(name.as_str()));
    let mut bytes = 0;
    let mut kept = Vec::new();
    for (name, value) in first.into_iter().chain(rest) {
        let size = name.as_str().len() + value.len();
        if kept.len() < MAX_HEADERS && bytes + size <= MAX_KEPT_HEADER_BYTES {
            bytes += size;
            kept.push(Header {
                name: name.as_str().to_owned(),
                value: Bytes::copy_from_slice(value.as_bytes()),
            });
        }
    }
    kept
}

fn check_payload(
    payload: &[u8],
    signature: &str,
    secrets: &HookSecrets,
) -> Result<Payload, Refusal> {
    let invalid = |reason: &str| {
        Refusal(
            StatusCode::FORBIDDEN,
            format!("403 Forbidden: Invalid X-Hub-Signature-256 - {reason}"),
        )
    };
    let read = Payload::read(payload).map_err(|_| invalid("invalid payload"))?;
    let sent = signature
        .strip_prefix("sha256=")
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or_else(|| invalid("invalid signature"))?;
    let scope = match read.repository.0.full_name.0.as_str() {
        "" => read.organization.0.login.0.as_str(),
        full_name => full_name,
    };
    let tokens = secrets
        .of(scope)
        .ok_or_else(|| invalid("failed to get an appropriate hmac secret"))?;
    let good = tokens.iter().any(|token| {
        Hmac::<Sha256>::new_from_slice(token.as_bytes())
            // Compares in constant time.
            .is_ok_and(|mac| mac.chain_update(payload).verify_slice(&sent).is_ok())
    });
    if good {
        Ok(read)
    } else {
        Err(invalid(&format!(
            "misconfigured webhook secret from organization/repo: {scope}"
        )))
    }
}

/// What the record says of a payload, for lanes and for people; what is not there stays empty.
fn describe(event: &str, guid: &str, payload: Payload) -> Delivery {
    let repository = payload.repository.0;
    let owner = repository.owner.0;
    // Push events name their owner only so; and what is about an org has no repository (HOOK-034).
    let org = [owner.login, owner.name, payload.organization.0.login];
    let org = org.into_iter().find(|login| !login.0.is_empty());
    let number = payload.pull_request.0.number.0;
    Delivery {
        guid: guid.to_owned(),
        event: event.to_owned(),
        action: payload.action.0,
        org: org.unwrap_or_default().0,
        repo: repository.name.0,
        number: number
            .or(payload.issue.0.number.0)
            .or(payload.number.0)
            .unwrap_or_default(),
        r#ref: payload.git_ref.0,
        sender: payload.sender.0.login.0,
        ..Delivery::default()
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::PutBlobChunk;

    use super::*;
    use crate::trio::Trio;

    fn payload(value: &serde_json::Value) -> Payload {
        Payload::read(value.to_string().as_bytes()).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn sign(payload: &[u8], secret: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        format!(
            "sha256={}",
            hex::encode(mac.chain_update(payload).finalize().into_bytes())
        )
    }

    /// HOOK-003, GHC-020: the checks come in this order, with these codes and words.
    #[test]
    fn headers_are_checked_in_prows_order() {
        let all = [
            ("x-github-event", "ping"),
            ("x-github-delivery", "guid"),
            ("x-hub-signature-256", "sha256=00"),
            ("content-type", "application/json"),
        ];
        let refused = |method: Method, pairs: &[(&'static str, &str)]| {
            let refusal = check_headers(&method, &headers(pairs)).unwrap_err();
            (refusal.0.as_u16(), refusal.1)
        };
        assert_eq!(
            refused(Method::GET, &all),
            (405, "405 Method not allowed".into())
        );
        assert_eq!(
            refused(Method::POST, &all[1..]),
            (400, "400 Bad Request: Missing X-GitHub-Event Header".into())
        );
        assert_eq!(
            refused(Method::POST, &[all[0]]),
            (
                400,
                "400 Bad Request: Missing X-GitHub-Delivery Header".into()
            )
        );
        assert_eq!(
            refused(Method::POST, &all[..2]),
            (403, "403 Forbidden: Missing X-Hub-Signature-256".into())
        );
        let (code, text) = refused(
            Method::POST,
            &[
                all[0],
                all[1],
                all[2],
                ("content-type", "application/json; charset=utf-8"),
            ],
        );
        assert_eq!(code, 400);
        assert_eq!(
            text,
            "400 Bad Request: Hook only accepts content-type: application/json - please reconfigure this hook on GitHub"
        );
        assert!(check_headers(&Method::POST, &headers(&all)).is_ok());
    }

    /// HOOK-004, HOOK-007, GHC-020: reasons, and the most specific scope alone.
    #[test]
    fn signatures_are_checked_against_the_most_specific_secret() {
        let payload = br#"{"repository":{"full_name":"org/repo"}}"#;
        let secrets = HookSecrets::new([
            (
                "org/repo".to_owned(),
                vec!["old".to_owned(), "new".to_owned()],
            ),
            ("org".to_owned(), vec!["wide".to_owned()]),
        ]);
        let reason = |payload: &[u8], signature: &str| {
            check_payload(payload, signature, &secrets).map_err(|refusal| {
                assert_eq!(refusal.0, StatusCode::FORBIDDEN);
                refusal.1.rsplit(" - ").next().unwrap().to_owned()
            })
        };
        assert!(reason(payload, &sign(payload, "new")).is_ok());
        assert!(reason(payload, &sign(payload, "old")).is_ok());
        assert_eq!(
            reason(payload, &sign(payload, "wide")).unwrap_err(),
            "misconfigured webhook secret from organization/repo: org/repo"
        );
        assert_eq!(reason(b"{", "sha256=00").unwrap_err(), "invalid payload");
        assert_eq!(reason(payload, "sha1=00").unwrap_err(), "invalid signature");
        assert_eq!(
            reason(payload, "sha256=zz").unwrap_err(),
            "invalid signature"
        );
        let other = br#"{"organization":{"login":"else"}}"#;
        assert_eq!(
            reason(other, &sign(other, "wide")).unwrap_err(),
            "failed to get an appropriate hmac secret"
        );
        let other = br#"{"organization":{"login":"org"}}"#;
        assert!(reason(other, &sign(other, "wide")).is_ok());
    }

    #[test]
    fn hook_031_headers_are_kept_githubs_own_first() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "x".repeat(7000).parse().unwrap());
        headers.insert("x-custom", "y".repeat(2000).parse().unwrap());
        headers.insert("x-github-event", "push".parse().unwrap());
        headers.insert("x-hub-signature-256", "sha256=00".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        let names: Vec<String> = kept(&headers)
            .into_iter()
            .map(|header| header.name)
            .collect();
        assert_eq!(
            names,
            [
                "x-github-event",
                "x-hub-signature-256",
                "content-type",
                "cookie"
            ]
        );
    }

    #[test]
    fn a_delivery_is_described_by_its_payload() {
        let push = serde_json::json!({
            "ref": "refs/heads/main", "sender": {"login": "ann"},
            "repository": {"name": "repo", "owner": {"name": "org"}},
        });
        let delivery = describe("push", "g", payload(&push));
        assert_eq!(
            (
                delivery.org.as_str(),
                delivery.repo.as_str(),
                delivery.r#ref.as_str(),
                delivery.sender.as_str()
            ),
            ("org", "repo", "refs/heads/main", "ann")
        );
        let comment = serde_json::json!({"action": "created", "issue": {"number": 7}});
        let delivery = describe("issue_comment", "g", payload(&comment));
        assert_eq!((delivery.number, delivery.action.as_str()), (7, "created"));
    }

    /// HOOK-034: an event without a repository is its org's.
    #[test]
    fn hook_034_what_is_about_an_org_is_the_orgs() {
        let member = serde_json::json!({
            "action": "member_added", "organization": {"login": "org"}, "sender": {"login": "ann"},
        });
        let delivery = describe("organization", "g", payload(&member));
        assert_eq!((delivery.org.as_str(), delivery.repo.as_str()), ("org", ""));
        let of_repo = serde_json::json!({
            "organization": {"login": "other"}, "repository": {"name": "repo", "owner": {"login": "org"}},
        });
        assert_eq!(describe("issues", "g", payload(&of_repo)).org, "org");
    }

    /// A delivery whose payload takes several commands: zstd takes away half of such digits, not more.
    fn large() -> (Bytes, Vec<PutBlobChunk>) {
        let mut state = 1_u64;
        let noise: String = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            format!("{state:016x}")
        })
        .take((3 << 20) / 16)
        .collect();
        let payload = Bytes::from(format!("{{\"zen\":\"{noise}\"}}"));
        let (_, chunks) = blob::chunks(&payload).unwrap();
        assert!(chunks.len() > 2, "{}", chunks.len());
        (payload, chunks)
    }

    /// Code, `Retry-After` and text of the answer.
    async fn deliver(door: &Arc<HookDoor>, payload: &Bytes) -> (u16, Option<String>, String) {
        deliver_as(door, payload, "GitHub-Hookshot/1").await
    }

    async fn deliver_as(
        door: &Arc<HookDoor>,
        payload: &Bytes,
        user_agent: &str,
    ) -> (u16, Option<String>, String) {
        let request = Request::post("/hook")
            .header("user-agent", user_agent)
            .header("x-github-event", "ping")
            .header("x-github-delivery", "guid")
            .header("x-hub-signature-256", sign(payload, "secret"))
            .header("content-type", "application/json")
            .body(Body::from(payload.clone()))
            .unwrap();
        let response = receive(State(Arc::clone(door)), request).await;
        let code = response.status().as_u16();
        let retry = response.headers().get(header::RETRY_AFTER);
        let retry = retry.map(|seconds| seconds.to_str().unwrap().to_owned());
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (code, retry, String::from_utf8(text.to_vec()).unwrap())
    }

    /// HOOK-042, HOOK-035: what a hook of Prow's forwards has GitHub's headers, the signature among them, and another user
    /// agent. Whichever way it comes first counts.
    #[tokio::test(flavor = "multi_thread")]
    async fn hook_042_a_delivery_that_prow_forwards_is_githubs_own_and_counts_once() {
        let store = crate::trio::alone(|_| ()).await;
        let flow = Arc::new(Flow::new(store.queues()));
        let secrets = Arc::new(HookSecrets::single("secret"));
        let door = HookDoor::new(store.clone(), secrets, Arc::default(), flow);
        let door = Arc::new(door);
        let payload = Bytes::from_static(
            br#"{"repository":{"full_name":"org/repo","name":"repo","owner":{"login":"org"}}}"#,
        );
        let thanks = (200, None, "Event received. Have a nice day.".to_owned());
        assert_eq!(deliver_as(&door, &payload, "ProwHook").await, thanks);
        assert_eq!(deliver(&door, &payload).await, thanks);
        assert_eq!(deliver_as(&door, &payload, "ProwHook").await, thanks);
        let view = store.view();
        assert_eq!(view.counts().deliveries, 1);
        let delivery = view.delivery("guid").unwrap();
        assert_eq!(
            (delivery.org.as_str(), delivery.repo.as_str()),
            ("org", "repo")
        );
        // What is forwarded proves where it is from as anything else does.
        let mut forged = payload.to_vec();
        forged.push(b' ');
        let request = Request::post("/hook")
            .header("user-agent", "ProwHook")
            .header("x-github-event", "ping")
            .header("x-github-delivery", "other")
            .header("x-hub-signature-256", sign(&payload, "secret"))
            .header("content-type", "application/json")
            .body(Body::from(forged))
            .unwrap();
        let response = receive(State(Arc::clone(&door)), request).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        store.shutdown().await;
    }

    /// HOOK-044: whoever announces a large body and sends nothing keeps nobody out, and is answered in the end.
    #[tokio::test(flavor = "multi_thread")]
    async fn hook_044_bodies_that_do_not_come_in_keep_nobody_out() {
        let store = crate::trio::alone(|_| ()).await;
        let flow = Arc::new(Flow::new(store.queues()));
        let secrets = Arc::new(HookSecrets::single("secret"));
        let door = HookDoor::new(store.clone(), secrets, Arc::default(), flow);
        let door = Arc::new(door);
        let mut idle = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let nothing = futures::stream::pending::<std::io::Result<Bytes>>();
            let request = Request::post("/hook")
                .header("x-github-event", "ping")
                .header("x-github-delivery", "idle")
                .header("x-hub-signature-256", "sha256=00")
                .header("content-type", "application/json")
                .body(Body::from_stream(nothing))
                .unwrap();
            idle.spawn(receive(State(Arc::clone(&door)), request));
        }
        let payload = Bytes::from_static(br#"{"zen":"Design for failure."}"#);
        let (code, _, text) = deliver(&door, &payload).await;
        assert_eq!(code, 200, "{text}");
        let answered = idle.join_next().await.unwrap().unwrap();
        assert_eq!(answered.status(), StatusCode::REQUEST_TIMEOUT);
        while idle.join_next().await.is_some() {}
        store.shutdown().await;
    }

    /// The quorum goes after the first of several chunks, and comes back for the redelivery.
    async fn refused_in_time_then_taken(mut trio: Trio, at: u64) {
        let store = trio.store(at).clone();
        let flow = Arc::new(Flow::new(store.queues()));
        let secrets = Arc::new(HookSecrets::single("secret"));
        let door = HookDoor::new(store.clone(), secrets, Arc::default(), flow);
        let door = Arc::new(door);
        let (payload, chunks) = large();
        let name = chunks[0].blob.clone().unwrap();
        let first = Command {
            min_level: 1,
            principal: "hook:".to_owned(),
            body: Some(CommandBody::PutBlobChunk(chunks[0].clone())),
            ..Command::default()
        };
        store.propose(first).await.unwrap();
        for other in Trio::others(at) {
            trio.kill(other).await;
        }

        let asked = Instant::now();
        let refused = deliver(&door, &payload).await;
        let waited = asked.elapsed();
        let text = "503 Service Unavailable: the delivery could not be stored, send it again: no answer within 4.5s\n";
        assert_eq!(refused, (503, Some("1".to_owned()), text.to_owned()));
        assert!(waited < Duration::from_secs(5), "{waited:?}");
        let view = store.view();
        assert!(!view.is_delivery_seen("guid") && !view.has_blob(&name.sha256));

        for other in Trio::others(at) {
            trio.open(other).await;
        }
        trio.leader_at(at).await;
        let thanks = (200, None, "Event received. Have a nice day.".to_owned());
        assert_eq!(deliver(&door, &payload).await, thanks);
        let view = store.view();
        let delivery = view.delivery("guid").unwrap();
        assert_eq!(delivery.blob.as_ref(), Some(&name));
        assert_eq!(blob::read(&view, &name).unwrap(), payload);
        assert_eq!(deliver(&door, &payload).await, thanks);
        assert_eq!(store.view().counts().deliveries, 1);
    }

    /// HOOK-044, HOOK-010: what such a node appends to its own log is committed when a majority is back, or never.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_leader_without_a_quorum_refuses_a_delivery_of_many_chunks_in_time() {
        let trio = Trio::start().await;
        let leader = trio.leader_at(1).await;
        refused_in_time_then_taken(trio, leader).await;
    }

    /// HOOK-044, HOOK-010: such a node has nobody to forward it to.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_follower_without_a_quorum_refuses_a_delivery_of_many_chunks_in_time() {
        let trio = Trio::start().await;
        let leader = trio.leader_at(1).await;
        let follower = Trio::others(leader).next().unwrap();
        refused_in_time_then_taken(trio, follower).await;
    }
}
