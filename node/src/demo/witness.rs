//! Watches the cluster from outside, through whichever node answers, tells the timeline what happens, and keeps count:
//! what the demo's summary says comes from here and from the forge's own log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use serde_json::{Map, json};
use tokio::{
    sync::{RwLock, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use trireme_api::client::Client;
use trireme_proto::{
    api::WatchRequest,
    state::{
        Change, ChangeBatch, DeliveryState, IntentState, Job, JobState, MergeIntent, MergePool,
        PoolAction, Report, change::Record,
    },
};
use trireme_prowjob::record;

use super::timeline::{Kind, Timeline};

/// Between two tries to reach a node.
const RECONNECT: Duration = Duration::from_millis(50);

/// One run as seen from outside.
#[derive(Debug, Clone, Default)]
pub(super) struct SeenJob {
    /// As last seen, without its ProwJob.
    pub(super) record: Job,
    /// Results it was ever seen complete with.
    pub(super) results: BTreeSet<i32>,
    /// The leader's stamp when the agent had spawned the first process of the first attempt; 0 = not seen.
    pub(super) started_ms: i64,
}

impl SeenJob {
    pub(super) fn is_complete(&self) -> bool {
        self.record.completed_ms > 0
    }
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) revision: u64,
    pub(super) jobs: BTreeMap<String, SeenJob>,
    pub(super) deliveries: BTreeMap<String, DeliveryState>,
    /// The leader's stamp when a delivery was committed, just before its 200.
    pub(super) committed_ms: BTreeMap<String, i64>,
    pub(super) intents: BTreeMap<String, MergeIntent>,
    pub(super) pools: BTreeMap<String, MergePool>,
    pub(super) reports: BTreeMap<(String, String), Report>,
    /// (epoch, node) of every office seen.
    pub(super) offices: BTreeMap<u64, u64>,
    pub(super) agents: BTreeSet<String>,
    /// What must never be seen.
    pub(super) problems: Vec<String>,
}

impl Facts {
    /// Runs of a job for a pull request, at any head.
    pub(super) fn runs_of<'a>(
        &'a self,
        job: &'a str,
        pull: u64,
    ) -> impl Iterator<Item = &'a SeenJob> {
        self.jobs.values().filter(move |seen| {
            seen.record.job == job && seen.record.pulls.iter().any(|found| found.number == pull)
        })
    }

    /// What is still under way; none when everything has come to rest.
    pub(super) fn unrest(&self) -> Option<String> {
        if let Some((guid, state)) = self
            .deliveries
            .iter()
            .find(|(_, state)| **state != DeliveryState::Handled)
        {
            return Some(format!("delivery {guid} is {state:?}"));
        }
        if let Some(seen) = self.jobs.values().find(|seen| !seen.is_complete()) {
            return Some(format!(
                "{} is {}",
                name(&seen.record),
                word(seen.record.state())
            ));
        }
        if let Some(report) = self
            .reports
            .values()
            .find(|report| report.owed != report.reported && !report.dead)
        {
            return Some(format!(
                "{} owes {:?} of {}: {}",
                report.reporter,
                report.owed(),
                report.job_id,
                report.error
            ));
        }
        if let Some(intent) = self
            .intents
            .values()
            .find(|intent| intent.state() == IntentState::Open)
        {
            return Some(format!("the merge of #{} is open", intent.number));
        }
        None
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Witness {
    facts: watch::Sender<Facts>,
    /// Addresses of doors; they change when a node is replaced.
    addresses: Arc<RwLock<Vec<String>>>,
    timeline: Timeline,
}

impl Witness {
    pub(super) fn new(addresses: Vec<String>, timeline: Timeline) -> Self {
        // Revision 1 is the first membership: everything that follows is seen, also what came before the first look.
        let facts = Facts {
            revision: 1,
            ..Facts::default()
        };
        Self {
            facts: watch::Sender::new(facts),
            addresses: Arc::new(RwLock::new(addresses)),
            timeline,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// Waits until `found` gives something.
    pub(super) async fn until<R>(
        &self,
        what: &str,
        bound: Duration,
        mut found: impl FnMut(&Facts) -> Option<R>,
    ) -> anyhow::Result<R> {
        let mut facts = self.facts.subscribe();
        let search = async {
            loop {
                if let Some(result) = found(&facts.borrow_and_update()) {
                    return Some(result);
                }
                facts.changed().await.ok()?;
            }
        };
        match timeout(bound, search).await {
            Ok(Some(result)) => Ok(result),
            _ => bail!("waited {bound:?} in vain for {what}"),
        }
    }

    /// Follows until `stop`; a lost connection is taken up at the next node from the revision that was seen last.
    pub(super) async fn follow(self, stop: CancellationToken) {
        let mut turn = 0_usize;
        while !stop.is_cancelled() {
            let address = {
                let addresses = self.addresses.read().await;
                addresses
                    .get(turn % addresses.len().max(1))
                    .cloned()
                    .unwrap_or_default()
            };
            turn += 1;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.follow_one(&address) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(RECONNECT) => {}
            }
        }
    }

    async fn follow_one(&self, address: &str) {
        let Ok(client) = Client::connect(address).await else {
            return;
        };
        let request = WatchRequest {
            after_revision: self.facts.borrow().revision,
            ..WatchRequest::default()
        };
        let mut stream = match client.watch().watch(request).await {
            Ok(stream) => stream.into_inner(),
            Err(why) => return self.lost(&why),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if let Some(batch) = message.batch {
                        self.see(batch);
                    }
                }
                Ok(None) => return,
                Err(why) => return self.lost(&why),
            }
        }
    }

    fn lost(&self, why: &tonic::Status) {
        if why.code() == Code::OutOfRange {
            let problem = format!("the watch has a gap: {}", why.message());
            self.facts.send_modify(|facts| facts.problems.push(problem));
        }
    }

    fn see(&self, batch: ChangeBatch) {
        let mut lines = Vec::new();
        self.facts.send_modify(|facts| {
            if batch.revision <= facts.revision {
                facts.problems.push(format!(
                    "revision {} came after {}",
                    batch.revision, facts.revision
                ));
                return;
            }
            facts.revision = batch.revision;
            for change in batch.changes {
                if let Some(line) = see(facts, change) {
                    lines.push(line);
                }
            }
        });
        for (kind, text, mut fields) in lines {
            fields.insert("revision".to_owned(), json!(batch.revision));
            self.timeline.tell(kind, text, fields);
        }
    }
}

type Line = (Kind, String, Map<String, serde_json::Value>);

fn plain(kind: Kind, text: impl Into<String>) -> Option<Line> {
    Some((kind, text.into(), Map::new()))
}

fn see(facts: &mut Facts, change: Change) -> Option<Line> {
    if change.removed {
        if let Some(Record::Pool(pool)) = change.record {
            facts.pools.remove(&pool_name(&pool));
        }
        return None;
    }
    match change.record? {
        Record::Job(job) => see_job(facts, job),
        Record::Delivery(delivery) => {
            let state = delivery.state();
            let before = facts.deliveries.insert(delivery.guid.clone(), state);
            facts
                .committed_ms
                .entry(delivery.guid.clone())
                .or_insert(delivery.received_ms);
            if before.is_some_and(|before| before > state) {
                facts
                    .problems
                    .push(format!("delivery {} went back to {state:?}", delivery.guid));
            }
            if before.is_some() || delivery.event == "ping" {
                return None;
            }
            let action = if delivery.action.is_empty() {
                String::new()
            } else {
                format!(".{}", delivery.action)
            };
            let about = if delivery.number > 0 {
                format!(" #{}", delivery.number)
            } else {
                format!(" {}", delivery.r#ref)
            };
            let mut fields = Map::new();
            fields.insert("guid".to_owned(), json!(delivery.guid));
            Some((
                Kind::Webhook,
                format!(
                    "{}{action}{about} committed by node {}",
                    delivery.event, delivery.node_id
                ),
                fields,
            ))
        }
        Record::Plan(plan) => {
            let settled = plan.effects.iter().any(|effect| effect.attempts > 0);
            if settled || (plan.effects.is_empty() && plan.jobs.is_empty()) {
                return None;
            }
            plain(
                Kind::Plan,
                format!(
                    "{} plans {} jobs and {} writes to the forge",
                    plan.plugin,
                    plan.jobs.len(),
                    plan.effects.len()
                ),
            )
        }
        Record::Report(report) => {
            let key = (report.job_id.clone(), report.reporter.clone());
            let before = facts.reports.insert(key, report.clone());
            let told = report.reported() != JobState::Unspecified
                && before.is_none_or(|before| before.reported != report.reported);
            let job = facts.jobs.get(&report.job_id)?;
            (told && job.is_complete()).then(|| {
                plain(
                    Kind::Report,
                    format!(
                        "{}: {} reported",
                        name(&job.record),
                        word(report.reported())
                    ),
                )
            })?
        }
        Record::Intent(intent) => see_intent(facts, intent),
        Record::Pool(pool) => {
            let before = facts.pools.insert(pool_name(&pool), pool.clone());
            let target = numbers(pool.target.iter().map(|pull| pull.number));
            let same = before.is_some_and(|before| {
                before.action == pool.action
                    && numbers(before.target.iter().map(|pull| pull.number)) == target
            });
            let action = match pool.action() {
                PoolAction::Trigger => "tests",
                PoolAction::TriggerBatch => "tests a batch of",
                PoolAction::MergeBatch => "merges the batch",
                PoolAction::Merge => "merges",
                _ => return None,
            };
            if same {
                None
            } else {
                plain(Kind::Tide, format!("tide {action} {target}"))
            }
        }
        Record::Office(office) => {
            let new = facts.offices.insert(office.epoch, office.node_id).is_none();
            if new {
                plain(
                    Kind::Cluster,
                    format!(
                        "node {} takes office (epoch {})",
                        office.node_id, office.epoch
                    ),
                )
            } else {
                None
            }
        }
        Record::Agent(agent) => {
            if agent.lost {
                return plain(Kind::Cluster, format!("agent {} is given up", agent.name));
            }
            facts.agents.insert(agent.id).then(|| {
                plain(
                    Kind::Cluster,
                    format!("agent {} registers ({} slots)", agent.name, agent.capacity),
                )
            })?
        }
        Record::Config(config) => plain(
            Kind::Cluster,
            format!(
                "configuration version {}: {} presubmits, {} postsubmits, {} periodics",
                config.number, config.presubmits, config.postsubmits, config.periodics
            ),
        ),
        _ => None,
    }
}

fn pool_name(pool: &MergePool) -> String {
    format!("{}/{}:{}", pool.org, pool.repo, pool.branch)
}

fn numbers(numbers: impl Iterator<Item = u64>) -> String {
    numbers
        .map(|number| format!("#{number}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn name(job: &Job) -> String {
    let about = numbers(job.pulls.iter().map(|pull| pull.number));
    match (about.is_empty(), job.base_ref.is_empty()) {
        (false, _) => format!("{} {about}", job.job),
        (true, false) => format!("{} {}", job.job, job.base_ref),
        (true, true) => job.job.clone(),
    }
}

fn word(state: JobState) -> &'static str {
    record::prow_state(state).as_str()
}

fn see_job(facts: &mut Facts, mut job: Job) -> Option<Line> {
    job.prowjob = bytes::Bytes::new();
    let seen = facts.jobs.entry(job.id.clone()).or_default();
    let before = std::mem::replace(&mut seen.record, job.clone());
    if let Some(lease) = &job.lease
        && lease.started_ms > 0
        && seen.started_ms == 0
    {
        seen.started_ms = lease.started_ms;
    }
    if job.completed_ms > 0 {
        seen.results.insert(job.state);
        if seen.results.len() > 1 {
            facts
                .problems
                .push(format!("{} ({}) has two results", name(&job), job.id));
        }
    }
    let mut fields = Map::new();
    for (key, value) in [
        ("id", json!(job.id)),
        ("job", json!(job.job)),
        ("state", json!(word(job.state()))),
        ("attempt", json!(job.attempt)),
    ] {
        fields.insert(key.to_owned(), value);
    }
    let about = name(&job);
    let text = if before.id.is_empty() {
        format!("{about} created ({})", record::prow_type(job.r#type()))
    } else if job.completed_ms > 0 && before.completed_ms == 0 {
        let seconds = (job.completed_ms - job.created_ms) as f64 / 1000.0;
        format!(
            "{about} {} after {seconds:.1} s: {}",
            word(job.state()),
            job.description
        )
    } else if job.state() == JobState::Pending && before.state() != JobState::Pending {
        format!("{about} leased, build {}", job.build_id)
    } else if job.state() == JobState::Aborted && before.state() != JobState::Aborted {
        format!("{about} aborting: {}", job.abort_reason)
    } else if job.attempt == before.attempt
        && before.state() == JobState::Pending
        && job.state() == JobState::Triggered
    {
        format!("{about} goes back to be leased again")
    } else {
        return None;
    };
    Some((Kind::Job, text, fields))
}

fn see_intent(facts: &mut Facts, intent: MergeIntent) -> Option<Line> {
    let before = facts.intents.insert(intent.id.clone(), intent.clone());
    if before.is_some_and(|before| before.state == intent.state) {
        return None;
    }
    let number = intent.number;
    let commit: String = intent.merge_sha.chars().take(8).collect();
    plain(
        Kind::Tide,
        match intent.state() {
            IntentState::Open => {
                let batch = if intent.batch.len() > 1 {
                    format!(" (batch {})", numbers(intent.batch.iter().copied()))
                } else {
                    String::new()
                };
                format!("merge of #{number} intended{batch}")
            }
            IntentState::Merged => format!("#{number} merged as {commit}"),
            IntentState::Observed => {
                format!(
                    "#{number} was merged before its answer was heard: the intent is observed, not sent again ({commit})"
                )
            }
            IntentState::Refused => format!("merge of #{number} refused: {}", intent.message),
            IntentState::Withdrawn => format!("merge of #{number} withdrawn: {}", intent.message),
            IntentState::Unspecified => return None,
        },
    )
}
