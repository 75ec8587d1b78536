//! What the inbox takes: webhooks at a fixed rate, whether they are taken or not, the forge away for a while, and in the
//! end the account. Every delivery that got its 200 must be handled, once, in the order of arrival within its pull
//! request; what was refused must have been refused with 503.
//!
//! Comments say `/hold` and `/unhold` in turn, so that the forge's own record of the label tells in which order they were
//! handled, and whether one was handled twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trireme_api::client::Client;
use trireme_harness::{ConfigText, Executable, Ground, Stage, StageSettings};
use trireme_proto::{
    api::WatchRequest,
    state::{DeliveryState, change::Record},
};
use trireme_sandbox::{
    faults::{CallEffect, CallMatch},
    forge::IssueEventKind,
    world::{BOT, ORG, Pr, REPO, WEBHOOK_SECRET, World},
};

use crate::load::Latency;

/// A door that answers later than this counts as silent; GitHub gives up after as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Webhooks are sent in bursts this far apart: timers are not finer than milliseconds.
const BEAT: Duration = Duration::from_millis(10);
/// Requests at once; what would be more is not sent, and told as such.
const MAX_FLYING: usize = 4000;
/// How long the backlog may take to be handled after the last webhook.
const DRAIN: Duration = Duration::from_secs(3600);
const RECONNECT: Duration = Duration::from_millis(50);
/// The longest latency that is told apart.
const LONGEST_US: u64 = 60_000_000;
const LABEL: &str = "do-not-merge/hold";

/// What is offered.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// Webhooks a second.
    pub rate: u64,
    pub lasting: Duration,
    /// Pull requests that they are about, in turn.
    pub pulls: u64,
    pub nodes: u64,
    /// From when on, and for how long, the forge answers every call with 503.
    pub away: Option<(Duration, Duration)>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Account {
    pub offered: u64,
    pub offered_per_second: f64,
    pub accepted: u64,
    pub accepted_per_second: f64,
    /// With 503.
    pub refused: u64,
    /// No answer, or another one.
    pub unanswered: u64,
    /// Not even sent: too many were on their way.
    pub held_back: u64,
    /// Of those that were accepted.
    pub latency_us: Latency,
    pub handled: u64,
    /// From the first webhook until the last delivery was handled.
    pub handled_within_s: f64,
    pub handled_per_second: f64,
    pub largest_backlog: u64,
    pub label_changes: u64,
    /// Calls, changes and webhooks that the forge wrote down.
    pub forge_log: u64,
    /// What must never be: accepted and not handled, handled out of order, or twice.
    pub broken: Vec<String>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        writeln!(
            f,
            "offered   {} webhooks, {:.0}/s\naccepted  {} with 200, {:.0}/s, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            self.offered,
            self.offered_per_second,
            self.accepted,
            self.accepted_per_second,
            ms(self.latency_us.p50),
            ms(self.latency_us.p99),
            ms(self.latency_us.max),
        )?;
        writeln!(
            f,
            "refused   {} with 503; {} without an answer, {} not sent",
            self.refused, self.unanswered, self.held_back
        )?;
        writeln!(
            f,
            "handled   {} within {:.1} s, {:.0}/s; {} waited at most, {} label changes, {} lines of the forge's log",
            self.handled,
            self.handled_within_s,
            self.handled_per_second,
            self.largest_backlog,
            self.label_changes,
            self.forge_log,
        )?;
        match self.broken.as_slice() {
            [] => write!(f, "every accepted webhook was handled, once, in order"),
            broken => write!(f, "BROKEN\n{}", broken.join("\n")),
        }
    }
}

const CONFIG: &str = "prowjob_namespace: default\npod_namespace: test-pods\n";
const PLUGINS: &str = "plugins:\n  acme:\n    plugins: [hold]\n";

/// Starts nodes and a forge below `directory`, offers, and waits until all is handled. `tell` hears how it goes.
///
/// # Errors
/// When the cluster does not start, or does not come to rest.
pub async fn offer(
    executable: Executable,
    directory: &Path,
    offer: Offer,
    mut tell: impl FnMut(String),
) -> anyhow::Result<Account> {
    let settings = StageSettings {
        executable,
        directory: directory.to_owned(),
        nodes: offer.nodes,
        agents: 0,
        agent_capacity: 1,
        ground: Ground::default(),
    };
    let mut stage = Stage::set(World::builder(), settings).await?;
    let text = |role, path, text: &str| ConfigText {
        role,
        path,
        text: text.to_owned(),
    };
    let files = vec![
        text("main", "config.yaml", CONFIG),
        text("plugins", "plugins.yaml", PLUGINS),
    ];
    stage.configure(files, "to be flooded", "inbox").await?;
    let mut pulls = Vec::new();
    for number in 0..offer.pulls {
        let pr = stage.world.pr(&format!("change-{number}"));
        pulls.push(pr.opened_by("author").await);
    }
    stage.world.expect_delivered().await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let stop = CancellationToken::new();
    let following = tokio::spawn({
        let (seen, stop) = (Arc::clone(&seen), stop.clone());
        let address = stage.cluster.addresses()[0].clone();
        async move { stop.run_until_cancelled(follow(&address, &seen)).await }
    });
    tell(format!(
        "{} pull requests on {} nodes",
        pulls.len(),
        offer.nodes
    ));

    let began = Instant::now();
    let sent = send(&stage, &pulls, offer, &mut tell).await?;
    let lasted = began.elapsed();
    let (handled, within) = drain(&sent, &seen, began, &mut tell).await?;
    stop.cancel();
    let _ = following.await;

    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let mut broken = Vec::new();
    let mut label_changes = 0;
    for pr in &pulls {
        let (changes, wrong) = judge(&stage, pr, &seen);
        label_changes += changes;
        broken.extend(wrong);
    }
    let log = stage.sandbox().log_after(0);
    let forge_log = log.last().map_or(0, |entry| entry.seq);
    stage.strike().await?;
    Ok(Account {
        offered: sent.offered,
        offered_per_second: sent.offered as f64 / lasted.as_secs_f64(),
        accepted: sent.accepted.len() as u64,
        accepted_per_second: sent.accepted.len() as f64 / lasted.as_secs_f64(),
        refused: sent.refused,
        unanswered: sent.unanswered,
        held_back: sent.held_back,
        latency_us: Latency::of(&sent.latency),
        handled,
        handled_within_s: within.as_secs_f64(),
        handled_per_second: handled as f64 / within.as_secs_f64(),
        largest_backlog: seen.largest_backlog,
        label_changes,
        forge_log,
        broken,
    })
}

/// What the watch showed of deliveries.
#[derive(Debug, Default)]
struct Seen {
    revision: u64,
    /// Of every delivery of ours: its pull request and place of arrival.
    arrived: BTreeMap<(u64, u64, u32), String>,
    handled: BTreeSet<String>,
    open: u64,
    largest_backlog: u64,
}

async fn follow(address: &str, seen: &Mutex<Seen>) {
    loop {
        // Whatever breaks off is followed again from where it was.
        let _ = follow_once(address, seen).await;
        sleep(RECONNECT).await;
    }
}

async fn follow_once(address: &str, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let client = Client::connect(address).await?;
    let after = || {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.revision.max(1)
    };
    let request = WatchRequest {
        after_revision: after(),
        kinds: vec!["delivery".to_owned()],
        ..WatchRequest::default()
    };
    let mut stream = client.watch().watch(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let Some(batch) = message.batch else { continue };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.revision = batch.revision;
        for change in batch.changes {
            let Some(Record::Delivery(delivery)) = change.record else {
                continue;
            };
            if change.removed || !delivery.guid.starts_with(GUID) {
                continue;
            }
            let arrival = (delivery.number, delivery.revision, delivery.ordinal);
            if seen
                .arrived
                .insert(arrival, delivery.guid.clone())
                .is_none()
            {
                seen.open += 1;
                seen.largest_backlog = seen.largest_backlog.max(seen.open);
            }
            if delivery.state() == DeliveryState::Handled && seen.handled.insert(delivery.guid) {
                seen.open -= 1;
            }
        }
    }
    bail!("the node ended the stream")
}

const GUID: &str = "inbox-";

struct Sent {
    offered: u64,
    accepted: Vec<String>,
    refused: u64,
    unanswered: u64,
    held_back: u64,
    latency: Histogram<u64>,
}

/// The command of the `turn`-th comment on a pull request.
fn command(turn: u64) -> &'static str {
    match turn % 2 {
        0 => "/hold",
        _ => "/unhold",
    }
}

/// Guids tell what they were about: the pull request and the turn.
fn guid(pull: u64, turn: u64) -> String {
    format!("{GUID}{pull}-{turn}")
}

fn turn_of(guid: &str) -> Option<u64> {
    guid.rsplit('-').next()?.parse().ok()
}

fn payload(pr: &Pr, turn: u64) -> String {
    let base = format!("https://forge.example/{ORG}/{REPO}");
    let user = |login: &str| json!({"login": login, "type": "User", "html_url": format!("https://forge.example/{login}")});
    let at = "2026-01-01T00:00:00Z";
    let (number, id) = (pr.number, pr.number * 1_000_000 + turn);
    json!({
        "action": "created",
        "issue": {
            "number": number, "id": number, "node_id": format!("I_{number}"), "title": "Change", "body": "", "state": "open",
            "html_url": format!("{base}/pull/{number}"), "user": user("author"), "labels": [], "assignees": [],
            "pull_request": {"url": format!("{base}/pulls/{number}")}, "created_at": at, "updated_at": at,
        },
        "comment": {
            "id": id, "body": command(turn), "user": user("author"), "html_url": format!("{base}/pull/{number}#issuecomment-{id}"),
            "created_at": at, "updated_at": at,
        },
        "repository": {
            "id": 1, "name": REPO, "full_name": format!("{ORG}/{REPO}"), "html_url": base, "default_branch": "main",
            "owner": user(ORG),
        },
        "sender": user("author"),
    })
    .to_string()
}

async fn send(
    stage: &Stage,
    pulls: &[Pr],
    offer: Offer,
    tell: &mut impl FnMut(String),
) -> anyhow::Result<Sent> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()?;
    let members = stage.cluster.members().iter();
    let doors: Vec<String> = members
        .map(|member| format!("{}/hook", member.url()))
        .collect();
    let mut sent = Sent {
        offered: 0,
        accepted: Vec::new(),
        refused: 0,
        unanswered: 0,
        held_back: 0,
        latency: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
    };
    let mut flying: JoinSet<(String, u16, Duration)> = JoinSet::new();
    let began = Instant::now();
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fault = None;
    let mut told = 0;
    while began.elapsed() < offer.lasting {
        tokio::select! {
            biased;
            Some(answer) = flying.join_next() => {
                sent.count(answer?);
                continue;
            }
            _ = ticks.tick() => {}
        }
        if let Some((from, lasting)) = offer.away {
            let away = began.elapsed() >= from && began.elapsed() < from + lasting;
            let faults = stage.sandbox().faults();
            match fault {
                None if away => {
                    let down = CallEffect::Status { code: 503 };
                    fault = Some(faults.on_call(CallMatch::default(), down, None)?);
                    tell("the forge is away".to_owned());
                }
                Some(id) if !away => {
                    faults.clear(id);
                    fault = None;
                    tell("the forge is back".to_owned());
                }
                _ => {}
            }
        }
        let due = (began.elapsed().as_secs_f64() * offer.rate as f64) as u64;
        while sent.offered < due {
            let index = sent.offered;
            sent.offered += 1;
            if flying.len() >= MAX_FLYING {
                sent.held_back += 1;
                continue;
            }
            let count = pulls.len() as u64;
            let pull = usize::try_from(index % count)?;
            let (pr, turn) = (&pulls[pull], index / count);
            let door = &doors[usize::try_from(index)? % doors.len()];
            let (guid, body) = (guid(pr.number, turn), payload(pr, turn));
            flying.spawn(knock(client.clone(), door.clone(), guid, body));
        }
        let seconds = began.elapsed().as_secs();
        if seconds >= told + 10 {
            told = seconds;
            tell(format!(
                "{seconds} s: {} offered, {} accepted, {} refused",
                sent.offered,
                sent.accepted.len(),
                sent.refused
            ));
        }
    }
    if let Some(id) = fault {
        stage.sandbox().faults().clear(id);
        tell("the forge is back".to_owned());
    }
    while let Some(answer) = flying.join_next().await {
        sent.count(answer?);
    }
    Ok(sent)
}

impl Sent {
    fn count(&mut self, (guid, status, took): (String, u16, Duration)) {
        match status {
            200 => {
                self.accepted.push(guid);
                let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
                self.latency.saturating_record(us);
            }
            503 => self.refused += 1,
            _ => self.unanswered += 1,
        }
    }
}

async fn knock(
    client: reqwest::Client,
    door: String,
    guid: String,
    body: String,
) -> (String, u16, Duration) {
    let signature = Hmac::<sha2::Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes())
        .map(|mac| hex::encode(mac.chain_update(&body).finalize().into_bytes()))
        .unwrap_or_default();
    let began = Instant::now();
    let answer = client
        .post(door)
        .header("X-GitHub-Event", "issue_comment")
        .header("X-GitHub-Delivery", &guid)
        .header("X-Hub-Signature-256", format!("sha256={signature}"))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await;
    let status = answer.map_or(0, |answer| answer.status().as_u16());
    (guid, status, began.elapsed())
}

/// Waits until everything that arrived is handled, and all that was accepted has arrived.
async fn drain(
    sent: &Sent,
    seen: &Mutex<Seen>,
    began: Instant,
    tell: &mut impl FnMut(String),
) -> anyhow::Result<(u64, Duration)> {
    let mut ticks = interval(Duration::from_millis(100));
    let mut told = 0;
    let draining = async {
        loop {
            ticks.tick().await;
            let (open, handled) = {
                let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                (seen.open, seen.handled.len() as u64)
            };
            if open == 0 && handled >= sent.accepted.len() as u64 {
                return handled;
            }
            let seconds = began.elapsed().as_secs();
            if seconds >= told + 10 {
                told = seconds;
                tell(format!("{seconds} s: {handled} handled, {open} wait"));
            }
        }
    };
    let handled = timeout(DRAIN, draining)
        .await
        .context("the inbox is not worked off")?;
    let within = began.elapsed();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for guid in &sent.accepted {
        ensure!(
            seen.handled.contains(guid),
            "{guid} got its 200 and was forgotten"
        );
    }
    Ok((handled, within))
}

/// What the label went through, compared with what the comments ask for in their order of arrival.
fn judge(stage: &Stage, pr: &Pr, seen: &Seen) -> (u64, Option<String>) {
    let of_pull = seen.arrived.range((pr.number, 0, 0)..(pr.number + 1, 0, 0));
    let mut expected = Vec::new();
    let mut held = false;
    for (_, guid) in of_pull {
        let wanted = turn_of(guid).is_some_and(|turn| command(turn) == "/hold");
        if wanted != held {
            held = wanted;
            expected.push(wanted);
        }
    }
    let happened: Vec<bool> = stage.world.pull(pr, |_, issue, _| {
        let by_bot = issue.events.iter().filter(|event| event.actor == BOT);
        by_bot
            .filter_map(|event| match &event.what {
                IssueEventKind::Labeled(label) if label.name == LABEL => Some(true),
                IssueEventKind::Unlabeled(label) if label.name == LABEL => Some(false),
                _ => None,
            })
            .collect()
    });
    let changes = happened.len() as u64;
    let kept = expected.len().saturating_sub(happened.len());
    // The forge remembers the newest of many events.
    let wrong = match expected.get(kept..) {
        Some(newest) if newest == happened && (kept == 0 || happened.len() > 400) => None,
        _ => Some(format!(
            "#{}: {} label changes were asked for in order of arrival, {} happened",
            pr.number,
            expected.len(),
            happened.len()
        )),
    };
    (changes, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_tell_what_they_were_about() {
        assert_eq!(turn_of(&guid(7, 12)), Some(12));
        assert_eq!((command(0), command(1)), ("/hold", "/unhold"));
        assert_eq!(turn_of("nonsense"), None);
    }
}
