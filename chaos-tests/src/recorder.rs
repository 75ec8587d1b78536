//! Follows the cluster through several nodes at once, resuming at the next node where a stream broke off, and asks it
//! for everything in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trireme_api::client::Client;
use trireme_harness::Cluster;
use trireme_proto::{
    api::{
        Freshness, ListDeliveriesRequest, ListIntentsRequest, ListJobsRequest, ReadOptions,
        WatchRequest,
    },
    state::{
        Agent, ChangeBatch, Delivery, DeliveryState, IntentState, Job, JobState, MergeIntent,
        Office, Plan, Report, change::Record,
    },
};

use crate::history::{DigestAt, Last, Watched, strip};

/// Before any change that a watch can show: everything is seen, also what came before the first look.
const FIRST_REVISION: u64 = 1;
/// Between two tries to reach a node.
const RECONNECT: Duration = Duration::from_millis(50);
/// Followers and nodes agree within this once nothing happens any more.
const CONVERGE: Duration = Duration::from_secs(20);
/// Records of one page.
const PAGE: u32 = 1000;
/// Pages of one list; more is a list that does not end.
const MAX_PAGES: usize = 1000;

/// The newest of every record seen by the first follower.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub revision: u64,
    pub jobs: BTreeMap<String, Job>,
    pub deliveries: BTreeMap<String, Delivery>,
    pub plans: BTreeMap<(String, String), Plan>,
    pub intents: BTreeMap<String, MergeIntent>,
    pub reports: BTreeMap<(String, String), Report>,
    pub agents: BTreeMap<String, Agent>,
    pub office: Option<Office>,
    /// Keys of what controllers remember.
    pub cursors: BTreeSet<String>,
}

impl Known {
    fn see(&mut self, batch: &ChangeBatch) {
        self.revision = batch.revision;
        for change in &batch.changes {
            let Some(record) = change.record.clone() else {
                continue;
            };
            let removed = change.removed;
            match record {
                Record::Job(job) => put(&mut self.jobs, job.id.clone(), job, removed),
                Record::Delivery(delivery) => {
                    put(
                        &mut self.deliveries,
                        delivery.guid.clone(),
                        delivery,
                        removed,
                    );
                }
                Record::Plan(plan) => {
                    let key = (plan.guid.clone(), plan.plugin.clone());
                    put(&mut self.plans, key, plan, removed);
                }
                Record::Intent(intent) => {
                    put(&mut self.intents, intent.id.clone(), intent, removed);
                }
                Record::Report(report) => {
                    let key = (report.job_id.clone(), report.reporter.clone());
                    put(&mut self.reports, key, report, removed);
                }
                Record::Agent(agent) => put(&mut self.agents, agent.id.clone(), agent, removed),
                Record::Office(office) => self.office = Some(office),
                Record::Cursor(cursor) => {
                    self.cursors.insert(cursor.key);
                }
                _ => {}
            }
        }
    }

    /// What is still under way; none when everything has come to rest.
    #[must_use]
    pub fn unrest(&self) -> Option<String> {
        let delivery = self
            .deliveries
            .values()
            .find(|delivery| delivery.state() != DeliveryState::Handled)
            .map(|delivery| {
                format!(
                    "delivery {} ({}) is {:?}",
                    delivery.guid,
                    delivery.event,
                    delivery.state()
                )
            });
        let job = || {
            let open = self.jobs.values().find(|job| job.completed_ms == 0);
            open.map(|job| format!("job {} ({}) is {:?}", job.id, job.job, job.state()))
        };
        let report = || {
            self.reports
                .values()
                .find(|report| report.owed != report.reported && !report.dead)
                .map(|report| {
                    format!(
                        "{} owes {:?} of job {}: {}",
                        report.reporter,
                        report.owed(),
                        report.job_id,
                        report.error
                    )
                })
        };
        let intent = || {
            self.intents
                .values()
                .find(|intent| intent.state() == IntentState::Open)
                .map(|intent| format!("the merge of #{} is open", intent.number))
        };
        delivery.or_else(job).or_else(report).or_else(intent)
    }

    /// Runs on a pull request, at any head.
    pub fn runs_on(&self, pull: u64) -> impl Iterator<Item = &Job> {
        self.jobs
            .values()
            .filter(move |job| job.pulls.iter().any(|found| found.number == pull))
    }

    /// Does some run on the pull request have that state?
    #[must_use]
    pub fn has_run(&self, pull: u64, state: JobState) -> bool {
        self.runs_on(pull).any(|job| job.state() == state)
    }
}

fn put<K: Ord, V>(records: &mut BTreeMap<K, V>, key: K, record: V, removed: bool) {
    if removed {
        records.remove(&key);
    } else {
        records.insert(key, record);
    }
}

/// Follows until it is stopped.
#[derive(Debug)]
pub struct Recorder {
    known: watch::Sender<Known>,
    followers: Vec<Arc<Follower>>,
    addresses: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    running: JoinSet<()>,
}

#[derive(Debug)]
struct Follower {
    watched: Mutex<Watched>,
    /// The last revision seen.
    revision: watch::Sender<u64>,
}

impl Follower {
    fn with<R>(&self, f: impl FnOnce(&mut Watched) -> R) -> R {
        f(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Recorder {
    /// Starts one follower per address; each begins at another node.
    #[must_use]
    pub fn start(addresses: Vec<String>) -> Self {
        let count = addresses.len();
        let addresses = Arc::new(Mutex::new(addresses));
        let known = watch::Sender::new(Known::default());
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let mut followers = Vec::new();
        for first in 0..count {
            let follower = Arc::new(Follower {
                watched: Mutex::new(Watched {
                    name: (first + 1).to_string(),
                    ..Watched::default()
                }),
                revision: watch::Sender::new(FIRST_REVISION),
            });
            followers.push(Arc::clone(&follower));
            let known = (first == 0).then(|| known.clone());
            let follow = follow(follower, Arc::clone(&addresses), first, known);
            let stop = stop.clone();
            running.spawn(async move {
                stop.run_until_cancelled(follow).await;
            });
        }
        Self {
            known,
            followers,
            addresses,
            stop,
            running,
        }
    }

    /// The doors to follow through from now on.
    pub fn lead_to(&self, addresses: Vec<String>) {
        *self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    #[must_use]
    pub fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Waits until `found` gives something.
    ///
    /// # Errors
    /// When it gives nothing within `bound`.
    pub async fn until<R>(
        &self,
        what: &str,
        bound: Duration,
        mut found: impl FnMut(&Known) -> Option<R>,
    ) -> anyhow::Result<R> {
        let mut known = self.known.subscribe();
        let search = async {
            loop {
                if let Some(result) = found(&known.borrow_and_update()) {
                    return Some(result);
                }
                known.changed().await.ok()?;
            }
        };
        match timeout(bound, search).await {
            Ok(Some(result)) => Ok(result),
            _ => bail!("waited {bound:?} in vain for {what}"),
        }
    }

    /// Waits until every follower has come as far as `revision`.
    ///
    /// # Errors
    /// Naming the first that did not within 20 s.
    pub async fn caught_up(&self, revision: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + CONVERGE;
        for follower in &self.followers {
            let mut at = follower.revision.subscribe();
            let there = tokio::time::timeout_at(deadline, at.wait_for(|at| *at >= revision)).await;
            if there.is_err() {
                let (name, breaks) = follower.with(|seen| (seen.name.clone(), seen.breaks.clone()));
                bail!(
                    "follower {name} has seen revision {} and not {revision}; its streams ended: {breaks:?}",
                    *follower.revision.borrow()
                );
            }
        }
        Ok(())
    }

    /// Ends following and gives what was seen.
    pub async fn stop(mut self) -> Vec<Watched> {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
        let followers = self.followers.iter();
        followers.map(|one| one.with(std::mem::take)).collect()
    }
}

async fn follow(
    follower: Arc<Follower>,
    addresses: Arc<Mutex<Vec<String>>>,
    first: usize,
    known: Option<watch::Sender<Known>>,
) {
    for turn in first.. {
        let address = {
            let addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            addresses.get(turn % addresses.len().max(1)).cloned()
        };
        if let Some(address) = address
            && let Err(reason) = follow_one(&follower, &address, known.as_ref()).await
        {
            let at = *follower.revision.borrow();
            follower.with(|seen| seen.breaks.push(format!("after {at}: {address}: {reason}")));
        }
        sleep(RECONNECT).await;
    }
}

/// Ends when its stream does, with why; a node that does not answer had none.
async fn follow_one(
    follower: &Follower,
    address: &str,
    known: Option<&watch::Sender<Known>>,
) -> Result<(), tonic::Status> {
    let Ok(client) = Client::connect(address).await else {
        return Ok(());
    };
    let request = WatchRequest {
        after_revision: *follower.revision.borrow(),
        ..WatchRequest::default()
    };
    let mut stream = client.watch().watch(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let Some(mut batch) = message.batch else {
            continue;
        };
        strip(&mut batch);
        if let Some(known) = known {
            known.send_modify(|known| known.see(&batch));
        }
        let revision = batch.revision;
        follower.with(|seen| seen.batches.push(batch));
        follower.revision.send_replace(revision);
    }
    Err(tonic::Status::unavailable("the node ended the stream"))
}

fn linearizable() -> Option<ReadOptions> {
    Some(ReadOptions {
        freshness: Freshness::Linearizable.into(),
        at_least_revision: 0,
    })
}

/// Asks the cluster for everything.
///
/// # Errors
/// When it does not answer, or a list does not end.
pub(crate) async fn read_all(cluster: &Cluster) -> anyhow::Result<Last> {
    let client = cluster.client().await?;
    let mut last = Last::default();
    let mut token = String::new();
    for page in 0.. {
        anyhow::ensure!(page < MAX_PAGES, "the list of jobs does not end");
        let request = ListJobsRequest {
            read: linearizable(),
            page_size: PAGE,
            page_token: token,
            ..ListJobsRequest::default()
        };
        let answer = client.jobs().list_jobs(request).await;
        let answer = answer.context("listing jobs")?.into_inner();
        last.jobs.extend(answer.jobs.into_iter().map(|mut job| {
            // As of what is watched.
            job.prowjob.clear();
            job
        }));
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    for page in 0.. {
        anyhow::ensure!(page < MAX_PAGES, "the list of deliveries does not end");
        let request = ListDeliveriesRequest {
            read: linearizable(),
            page_size: PAGE,
            page_token: token,
            ..ListDeliveriesRequest::default()
        };
        let answer = client.deliveries().list_deliveries(request).await;
        let answer = answer.context("listing deliveries")?.into_inner();
        last.deliveries.extend(answer.deliveries);
        last.plans.extend(answer.plans);
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let request = ListIntentsRequest {
        read: linearizable(),
    };
    let answer = client.pools().list_intents(request).await;
    last.intents = answer.context("listing intents")?.into_inner().intents;
    Ok(last)
}

/// Samples the digests of all running nodes until they stand at one revision.
///
/// # Errors
/// When a node does not answer, or they do not meet within 20 s.
pub(crate) async fn digests(cluster: &Cluster) -> anyhow::Result<Vec<DigestAt>> {
    let deadline = Instant::now() + CONVERGE;
    let mut samples = Vec::new();
    loop {
        let mut round = BTreeSet::new();
        let members = cluster
            .members()
            .iter()
            .filter(|member| member.is_running());
        for member in members {
            let before = cluster.status(member.id).await?;
            let after = cluster.status(member.id).await?;
            // A digest belongs to its revision for sure only when nothing was applied while it was read.
            if before.applied_index == after.applied_index {
                round.insert(after.applied_index);
                samples.push(DigestAt {
                    node: member.id,
                    revision: after.applied_index,
                    digest: after.digest,
                });
            } else {
                round.insert(0);
                round.insert(after.applied_index);
            }
        }
        if round.len() == 1 {
            return Ok(samples);
        }
        if Instant::now() >= deadline {
            bail!("the nodes do not meet at one revision within {CONVERGE:?}: {round:?}");
        }
        sleep(RECONNECT).await;
    }
}
