//! Sending webhooks: signed, in order per pull request, ten seconds, never retried by itself. As GitHub does it, but
//! for the choice between several URLs, which stands for a load balancer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use url::Url;

use crate::courier::{Courier, Receipt, Unbrought};
use crate::engine::Engine;
use crate::faults::HookEffect;
use crate::forge::{Answer, Delivery, Hook, HookScope, Id, RepoName};
use crate::log::Logged;

/// GitHub's patience with a receiver.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Deliveries in flight at once.
const MAX_IN_FLIGHT: usize = 16;
/// What waits to be overtaken is sent after so long, overtaken or not.
const MAX_HELD: Duration = Duration::from_secs(5);
/// Bytes of a receiver's answer that are kept.
const MAX_ANSWER_BODY: usize = 64 << 10;

/// An attempt to send one recorded delivery.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) hook: Id,
    pub(crate) delivery: Id,
    pub(crate) repo: Option<RepoName>,
    pub(crate) number: Option<u64>,
    pub(crate) event: String,
    pub(crate) action: Option<String>,
}

/// Attempts of one lane are sent one after another.
type Lane = (Id, Option<RepoName>, Option<u64>);

impl Attempt {
    fn lane(&self) -> Lane {
        (self.hook, self.repo.clone(), self.number)
    }
}

/// Sends what is queued until the engine is gone.
pub(crate) async fn run(
    engine: Weak<Engine>,
    mut queue: mpsc::Receiver<Attempt>,
    courier: Arc<dyn Courier>,
) {
    let mut deliverer = Deliverer {
        engine,
        courier,
        lanes: BTreeMap::new(),
        ready: VecDeque::new(),
        running: JoinSet::new(),
        busy: 0,
        held: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            attempt = queue.recv() => match attempt {
                Some(attempt) => deliverer.take(attempt),
                None => break,
            },
            Some(ended) = deliverer.running.join_next() => match ended {
                Ok(ended) => deliverer.ended(ended),
                Err(error) => tracing::error!(%error, "a delivery ended abnormally"),
            },
        }
        deliverer.start_ready();
    }
}

/// What came to its end.
enum Ended {
    /// The lane may go on with its next attempt.
    Sent(Lane),
    /// A delayed attempt, outside of all lanes.
    Delayed,
    /// The patience with what waits to be overtaken in that hook.
    Held(Id),
}

struct Deliverer {
    engine: Weak<Engine>,
    courier: Arc<dyn Courier>,
    /// Waiting attempts of every lane that is ready or running. Bounded with the queue.
    lanes: BTreeMap<Lane, VecDeque<Attempt>>,
    ready: VecDeque<Lane>,
    running: JoinSet<Ended>,
    /// Lanes that are sending.
    busy: usize,
    /// Per hook, what waits to be overtaken by the next.
    held: BTreeMap<Id, Vec<Attempt>>,
}

impl Deliverer {
    /// Queues an attempt, or what the faults make of it.
    fn take(&mut self, attempt: Attempt) {
        let Some(engine) = self.engine.upgrade() else {
            return;
        };
        let effect =
            engine
                .faults
                .for_hook(&attempt.event, attempt.action.as_deref(), attempt.number);
        if let Some(effect) = &effect {
            engine.log(Logged::Fault {
                effect: format!("{effect:?}"),
                on: format!("webhook {}", attempt.event),
            });
        }
        let lane = attempt.lane();
        match effect {
            None => self.push(lane.clone(), attempt.clone()),
            Some(HookEffect::Lost) => {
                let answer = no_answer(0, "lost", "", Instant::now());
                engine.answered(&attempt, answer);
            }
            Some(HookEffect::Duplicated { extra }) => {
                for _ in 0..=extra {
                    self.push(lane.clone(), attempt.clone());
                }
            }
            Some(HookEffect::Delayed { millis }) => {
                let (engine, courier) = (self.engine.clone(), Arc::clone(&self.courier));
                self.running.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    send(&engine, courier.as_ref(), &attempt).await;
                    Ended::Delayed
                });
                return;
            }
            Some(HookEffect::Reordered) => {
                let hook = attempt.hook;
                self.held.entry(hook).or_default().push(attempt);
                self.running.spawn(async move {
                    tokio::time::sleep(MAX_HELD).await;
                    Ended::Held(hook)
                });
                return;
            }
        }
        for overtaken in self.held.remove(&attempt.hook).into_iter().flatten() {
            self.push(lane.clone(), overtaken);
        }
    }

    fn push(&mut self, lane: Lane, attempt: Attempt) {
        if let Some(waiting) = self.lanes.get_mut(&lane) {
            waiting.push_back(attempt);
        } else {
            self.lanes.insert(lane.clone(), VecDeque::from([attempt]));
            self.ready.push_back(lane);
        }
    }

    fn ended(&mut self, ended: Ended) {
        let lane = match ended {
            Ended::Sent(lane) => lane,
            Ended::Delayed => return,
            Ended::Held(hook) => {
                for attempt in self.held.remove(&hook).into_iter().flatten() {
                    self.push(attempt.lane(), attempt);
                }
                return;
            }
        };
        self.busy -= 1;
        if self.lanes.get(&lane).is_some_and(|w| !w.is_empty()) {
            self.ready.push_back(lane);
        } else {
            self.lanes.remove(&lane);
        }
    }

    fn start_ready(&mut self) {
        while self.busy < MAX_IN_FLIGHT {
            let Some(lane) = self.ready.pop_front() else {
                return;
            };
            let Some(attempt) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
                self.lanes.remove(&lane);
                continue;
            };
            let (engine, courier) = (self.engine.clone(), Arc::clone(&self.courier));
            self.busy += 1;
            self.running.spawn(async move {
                send(&engine, courier.as_ref(), &attempt).await;
                Ended::Sent(lane)
            });
        }
    }
}

async fn send(engine: &Weak<Engine>, courier: &dyn Courier, attempt: &Attempt) {
    let Some(prepared) = engine.upgrade().and_then(|e| prepare(&e, attempt)) else {
        return;
    };
    let answer = post(courier, prepared).await;
    if let Some(engine) = engine.upgrade() {
        engine.answered(attempt, answer);
    }
}

struct Prepared {
    targets: Vec<Url>,
    headers: Vec<(String, String)>,
    payload: Bytes,
}

fn prepare(engine: &Arc<Engine>, attempt: &Attempt) -> Option<Prepared> {
    engine.with_hooks(|forge| {
        let target = forge.hook(attempt.hook).ok().map(|hook| {
            let id = match &hook.config.scope {
                HookScope::Repo(repo) => forge.repo(repo).map_or(0, |r| r.id),
                HookScope::Org(org) => forge.account(org).map_or(0, |a| a.id),
            };
            (hook.config.scope.clone(), id)
        })?;
        let hook = forge.hook_mut(attempt.hook).ok()?;
        let targets = hook.next_targets();
        let at = hook
            .deliveries
            .iter()
            .rposition(|d| d.id == attempt.delivery)?;
        let headers = headers(hook, hook.deliveries.get(at)?, &target);
        let delivery = hook.deliveries.get_mut(at)?;
        delivery.request_headers.clone_from(&headers);
        let payload = delivery.payload.clone();
        Some(Prepared {
            targets,
            headers,
            payload,
        })
    })
}

fn headers(hook: &Hook, delivery: &Delivery, target: &(HookScope, Id)) -> Vec<(String, String)> {
    let mut headers: Vec<(&str, String)> = vec![
        ("Accept", "*/*".into()),
        ("Content-Type", "application/json".into()),
        ("User-Agent", "GitHub-Hookshot/5a1db0c".into()),
        ("X-GitHub-Delivery", delivery.guid.clone()),
        ("X-GitHub-Event", delivery.event.clone()),
        ("X-GitHub-Hook-ID", hook.id.to_string()),
        ("X-GitHub-Hook-Installation-Target-ID", target.1.to_string()),
        (
            "X-GitHub-Hook-Installation-Target-Type",
            match target.0 {
                HookScope::Repo(_) => "repository",
                HookScope::Org(_) => "organization",
            }
            .into(),
        ),
    ];
    if let Some(secret) = &hook.config.secret {
        let payload = &delivery.payload;
        headers.push((
            "X-Hub-Signature",
            format!("sha1={}", sha1_mac(secret, payload)),
        ));
        headers.push((
            "X-Hub-Signature-256",
            format!("sha256={}", sha256_mac(secret, payload)),
        ));
    }
    headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn sha1_mac(secret: &str, payload: &[u8]) -> String {
    // HMAC takes keys of every length.
    Hmac::<Sha1>::new_from_slice(secret.as_bytes()).map_or_else(
        |_| String::new(),
        |mac| hex::encode(mac.chain_update(payload).finalize().into_bytes()),
    )
}

fn sha256_mac(secret: &str, payload: &[u8]) -> String {
    Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_or_else(
        |_| String::new(),
        |mac| hex::encode(mac.chain_update(payload).finalize().into_bytes()),
    )
}

/// Posts to the first target that accepts the connection.
async fn post(courier: &dyn Courier, prepared: Prepared) -> Answer {
    let started = Instant::now();
    let mut refused = String::new();
    for target in &prepared.targets {
        let posting = courier.post(target, &prepared.headers, prepared.payload.clone());
        match tokio::time::timeout(DELIVERY_TIMEOUT, posting).await {
            Ok(Ok(receipt)) => return answer(receipt, target, started),
            Ok(Err(error @ Unbrought::Refused(_))) => {
                tracing::debug!(%target, %error, "webhook target does not accept connections");
                refused = target.to_string();
            }
            Ok(Err(error @ Unbrought::BrokenOff(_))) => {
                tracing::debug!(%target, %error, "webhook target broke off");
                return no_answer(502, "failed to read the response", target.as_str(), started);
            }
            Err(_) => return no_answer(504, "timed out", target.as_str(), started),
        }
    }
    no_answer(502, "failed to connect to host", &refused, started)
}

fn answer(receipt: Receipt, target: &Url, started: Instant) -> Answer {
    let Receipt {
        status_code,
        headers,
        body,
    } = receipt;
    let body = body.get(..MAX_ANSWER_BODY).unwrap_or(&body);
    Answer {
        status_code,
        status: if (200..300).contains(&status_code) {
            "OK".into()
        } else {
            format!("Invalid HTTP Response: {status_code}")
        },
        url: target.to_string(),
        duration: started.elapsed(),
        headers,
        body: String::from_utf8_lossy(body).into_owned(),
    }
}

fn no_answer(status_code: u16, status: &str, url: &str, started: Instant) -> Answer {
    Answer {
        status_code,
        status: status.to_owned(),
        url: url.to_owned(),
        duration: started.elapsed(),
        headers: Vec::new(),
        body: String::new(),
    }
}
