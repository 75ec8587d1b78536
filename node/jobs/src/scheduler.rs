//! Jobs to agents, under the limits of the jobs, of their queues and of the agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::time::{Instant, sleep_until};
use trireme_api::LeaseRenewals as _;
use trireme_config::Config;
use trireme_office::{ConfigFeed, Controller, ControllerError, Office, OfficeError, RunningConfig};
use trireme_proto::state::{
    Agent, FinishJob, Job, JobState, LeaseJob, ReleaseLease, SetAgent, TriggerJob, command::Body,
};
use trireme_prowjob::record;
use trireme_raft::{Changes, Watch, WatchError};
use trireme_state::{BUILD_ID_MARK, Change, State};

use crate::{
    Leases,
    unfit::{self, Unfit},
    waiting::{Answer, Limits, Waiting},
};

/// Leases granted, and jobs triggered, in one pass before the view is read again.
const MAX_GRANTS: usize = 64;
/// A job whose lease was refused is not tried again before this, so that it neither fills the log with refusals nor
/// keeps others from their turn.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// Between two looks at the clock for silent agents.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// Leases triggered jobs to agents that have room and were heard of under this office, oldest first, and takes back
/// the leases of agents that fell silent. Jobs that wait for a cluster to be chosen get theirs before (EXE-020).
pub struct Scheduler {
    leases: Leases,
    config: ConfigFeed,
}

impl Scheduler {
    #[must_use]
    pub fn new(leases: Leases, config: ConfigFeed) -> Self {
        Self { leases, config }
    }
}

/// What the configuration says about running a job; nothing while there is none.
fn lease_command(config: Option<&Config>, job: &Job, grant: &Grant) -> LeaseJob {
    LeaseJob {
        id: grant.job.clone(),
        agent_id: grant.agent.clone(),
        incarnation: grant.incarnation,
        url: config
            .and_then(|config| url(config, job))
            .unwrap_or_default(),
        max_running: overall_limit(config).unwrap_or_default(),
        queue_capacity: queue_limit(config, job),
    }
}

/// EXE-063: the link to the run's page. The build id comes with the lease.
fn url(config: &Config, job: &Job) -> Option<String> {
    let mut prow_job = record::prow_job(job).ok()?;
    if prow_job.status.build_id.is_empty() {
        BUILD_ID_MARK.clone_into(&mut prow_job.status.build_id);
    }
    match config.prow.plank.job_link(&prow_job) {
        Ok(url) => Some(url),
        Err(why) => {
            tracing::warn!(job = job.id, %why, "the run gets no link");
            None
        }
    }
}

/// A job and the agent that gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    job: String,
    agent: String,
    incarnation: u64,
}

/// EXE-042: the capacity of the job's queue. In a queue that the configuration does not know nothing starts; what waits in
/// one ends (see [`unfit`]).
fn queue_limit(config: Option<&Config>, job: &Job) -> Option<u32> {
    if job.queue.is_empty() {
        return None;
    }
    let capacities = &config?.prow.plank.job_queue_capacities;
    match capacities.get(&job.queue) {
        Some(capacity) => u32::try_from(*capacity).ok(),
        None => Some(0),
    }
}

/// EXE-040: 0 is no limit.
fn overall_limit(config: Option<&Config>) -> Option<u32> {
    let limit = config?.prow.plank.controller.max_concurrency;
    u32::try_from(limit).ok().filter(|limit| *limit > 0)
}

/// EXE-040..042: oldest job first; a job whose own limit is reached does not hold up the others. The agent with the
/// most free slots gets it, by name where equal.
fn grants(
    state: &State,
    config: Option<&Config>,
    waiting: &Waiting,
    alive: impl Fn(&Agent) -> bool,
    held_back: impl Fn(&Job) -> bool,
) -> Vec<Grant> {
    if waiting.is_empty() {
        return Vec::new();
    }
    let mut free: BTreeMap<&str, (u32, &Agent)> = state
        .agents()
        .filter(|agent| !agent.draining && !agent.lost && alive(agent))
        .map(|agent| {
            let room = agent.capacity.saturating_sub(state.lease_count(&agent.id));
            (agent.id.as_str(), (room, &**agent))
        })
        .filter(|(_, (room, _))| *room > 0)
        .collect();
    let pending = state.state_count(JobState::Pending) as usize;
    let most = overall_limit(config).map_or(MAX_GRANTS, |limit| {
        (limit as usize).saturating_sub(pending).min(MAX_GRANTS)
    });
    let clusters: BTreeSet<&str> = free
        .values()
        .flat_map(|(_, agent)| agent.clusters.iter().map(String::as_str))
        .collect();
    let limits = |job: &Job| Limits {
        of_name: Some(job.max_concurrency).filter(|limit| *limit > 0),
        of_queue: queue_limit(config, job),
    };
    let mut grants = Vec::new();
    waiting.offer(clusters.into_iter(), limits, |job, ahead| {
        if grants.len() >= most || free.is_empty() {
            return Answer::Enough;
        }
        let reached = |limit: Option<u32>, running: u32, ahead: u32| {
            limit.is_some_and(|limit| running.saturating_add(ahead) >= limit)
        };
        let limits = limits(job);
        if reached(limits.of_name, state.running_count(&job.job), ahead.of_name)
            || reached(
                limits.of_queue,
                state.queue_counts(&job.queue).0,
                ahead.of_queue,
            )
        {
            return Answer::SkipGroup;
        }
        // What is known of those that wait may be older or newer than the view.
        let waits = state
            .job(&job.id)
            .is_some_and(|job| job.state() == JobState::Triggered && job.completed_ms == 0);
        if !waits || held_back(job) {
            return Answer::Next;
        }
        let Some((slots, agent)) = free
            .values_mut()
            .filter(|(_, agent)| agent.clusters.contains(&job.cluster))
            .max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.id.cmp(&a.1.id)))
        else {
            return Answer::SkipGroup;
        };
        grants.push(Grant {
            job: job.id.clone(),
            agent: agent.id.clone(),
            incarnation: agent.incarnation,
        });
        *slots -= 1;
        if *slots == 0 {
            let full = agent.id.as_str();
            free.remove(full);
        }
        Answer::Next
    });
    grants
}

/// EXE-021, EXE-022: the cluster stays, or is the one that it fails over to.
fn cluster_for(config: Option<&Config>, job: &Job) -> String {
    config
        .and_then(|config| config.prow.scheduler.failover.as_ref())
        .and_then(|failover| failover.mappings.get(&job.cluster))
        .unwrap_or(&job.cluster)
        .clone()
}

#[async_trait]
impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        self.leases.take_office();
        // Also when the office ends in the middle of something.
        let _in_office = LeavesOffice(&self.leases);
        Ok(self.schedule(&office).await?)
    }
}

struct LeavesOffice<'a>(&'a Leases);

impl Drop for LeavesOffice<'_> {
    fn drop(&mut self) {
        self.0.leave_office();
    }
}

/// Whether a change may free a place or want one.
fn matters(change: &Change) -> bool {
    matches!(
        change,
        Change::Job(_) | Change::Agent(_) | Change::Removed(_)
    )
}

type Batch = Result<Arc<Changes>, WatchError>;

/// Takes in a batch and all that are there behind it: one look at the view is enough for them. True when something in
/// them matters.
fn follow(batch: Batch, watch: &mut Watch, waiting: &mut Waiting) -> Result<bool, WatchError> {
    let batch = batch?;
    let first = heed(&batch, waiting);
    Ok(follow_ready(watch, waiting)? || first)
}

fn follow_ready(watch: &mut Watch, waiting: &mut Waiting) -> Result<bool, WatchError> {
    let mut matter = false;
    while let Some(batch) = watch.next().now_or_never() {
        let batch = batch?;
        matter |= heed(&batch, waiting);
    }
    Ok(matter)
}

fn heed(batch: &Changes, waiting: &mut Waiting) -> bool {
    for change in &batch.changes {
        if let Change::Job(job) = change {
            waiting.update(job);
        }
    }
    batch.changes.iter().any(matters)
}

impl Scheduler {
    async fn schedule(&self, office: &Office) -> Result<(), OfficeError> {
        let resigned = office.resigned();
        let mut feed = self.config.clone();
        let mut view = office.view();
        let mut watch = office.watch(view.revision);
        let mut waiting = Waiting::of(&view);
        // Until when jobs are not tried again.
        let mut refused: BTreeMap<String, Instant> = BTreeMap::new();
        while !resigned.is_cancelled() {
            let running = feed.borrow_and_update().clone();
            let config = running.as_ref().map(|running| &*running.config);
            for agent in view.agents() {
                self.leases.know(&agent.id, agent.incarnation);
            }
            self.leases.keep_only(|id| view.agent(id).is_some());
            self.take_back(office, &view).await?;
            let now = Instant::now();
            refused.retain(|_, until| *until > now);
            let triggered = trigger(office, &view, config).await?;
            let (ended, next_end) = end_unfit(office, &view, running.as_deref(), &waiting).await?;
            let tried = self
                .grant(office, &view, config, &waiting, &mut refused)
                .await?;
            if triggered || ended || tried {
                // Each changed what is free, or is held back now. The changes are there already: a proposal returns
                // once it is applied here.
                if follow_ready(&mut watch, &mut waiting).is_err() {
                    let now = office.view();
                    watch = office.watch(now.revision);
                    waiting = Waiting::of(&now);
                }
                view = office.view();
                continue;
            }
            let wake = refused
                .values()
                .copied()
                .chain([self.next_expiry(&view)])
                .chain(next_end)
                .min()
                .unwrap_or(now)
                .max(now + MIN_WAIT);
            loop {
                tokio::select! {
                    () = resigned.cancelled() => return Ok(()),
                    Ok(()) = feed.changed() => break,
                    batch = watch.next() => match follow(batch, &mut watch, &mut waiting) {
                        Ok(false) => {}
                        Ok(true) => break,
                        Err(_) => {
                            let now = office.view();
                            watch = office.watch(now.revision);
                            waiting = Waiting::of(&now);
                            break;
                        }
                    },
                    () = self.leases.heard_anew() => break,
                    () = sleep_until(wake) => break,
                }
            }
            view = office.view();
        }
        Ok(())
    }

    /// False when there was nothing to try.
    async fn grant(
        &self,
        office: &Office,
        state: &State,
        config: Option<&Config>,
        waiting: &Waiting,
        refused: &mut BTreeMap<String, Instant>,
    ) -> Result<bool, OfficeError> {
        let alive = |agent: &Agent| self.leases.is_heard(&agent.id, agent.incarnation);
        let grants = grants(state, config, waiting, alive, |job| {
            refused.contains_key(&job.id)
        });
        for grant in &grants {
            let Some(job) = state.job(&grant.job) else {
                continue;
            };
            let command = lease_command(config, job, grant);
            match office.propose(Body::LeaseJob(command)).await {
                Ok(done) => {
                    tracing::info!(
                        job = grant.job,
                        agent = grant.agent,
                        build_id = done.build_id,
                        "leased"
                    );
                }
                // Mostly finished, aborted or leased since the view was taken. Whatever it is, others may be leased.
                Err(why @ OfficeError::Rejected { .. }) => {
                    if why.is_conflict() {
                        tracing::debug!(job = grant.job, %why, "not leased");
                    } else {
                        tracing::warn!(job = grant.job, %why, "cannot be leased");
                    }
                    refused.insert(grant.job.clone(), Instant::now() + AFTER_REFUSAL);
                }
                Err(why) => return Err(why),
            }
        }
        Ok(!grants.is_empty())
    }

    /// Jobs of agents that were silent for a whole period go back to be leased again, or end by their policy.
    async fn take_back(&self, office: &Office, state: &State) -> Result<(), OfficeError> {
        let now = Instant::now();
        for agent in state.agents().filter(|agent| !agent.lost) {
            let silent = self
                .leases
                .holds_until(&agent.id)
                .is_some_and(|until| until <= now);
            if !silent {
                continue;
            }
            tracing::warn!(
                agent = agent.id,
                name = agent.name,
                period = ?self.leases.period(),
                "agent is silent, its leases are taken back"
            );
            for job in state.leases_of_agent(&agent.id) {
                self.release(office, job, agent).await?;
            }
            let lost = Body::SetAgent(SetAgent {
                id: agent.id.clone(),
                incarnation: agent.incarnation,
                draining: agent.draining,
                lost: true,
                node_id: 0,
            });
            match office.propose(lost).await {
                Err(why) if !why.is_conflict() => return Err(why),
                _ => {}
            }
        }
        Ok(())
    }

    async fn release(&self, office: &Office, job: &Job, agent: &Agent) -> Result<(), OfficeError> {
        let body = Body::ReleaseLease(ReleaseLease {
            id: job.id.clone(),
            fence: job.lease.as_ref().map_or(0, |lease| lease.fence),
            reason: format!(
                "Agent {} was not heard of for {} s.",
                agent.name,
                self.leases.period().as_secs()
            ),
            unstarted: false,
        });
        match office.propose(body).await {
            Err(why) if !why.is_conflict() => Err(why),
            _ => Ok(()),
        }
    }

    fn next_expiry(&self, state: &State) -> Instant {
        state
            .agents()
            .filter(|agent| !agent.lost)
            .filter_map(|agent| self.leases.holds_until(&agent.id))
            .min()
            .unwrap_or_else(|| Instant::now() + self.leases.period())
    }
}

/// Whether a configuration is the state's newest: that one is parsed after its commit, and jobs of it may be there before.
fn is_in_force(running: &RunningConfig, state: &State) -> bool {
    state
        .config()
        .is_none_or(|version| version.number == running.version)
}

/// EXE-052: jobs whose cluster or queue is gone end in error. Whether any did, and when to look again by the clock.
async fn end_unfit(
    office: &Office,
    state: &State,
    running: Option<&RunningConfig>,
    waiting: &Waiting,
) -> Result<(bool, Option<Instant>), OfficeError> {
    let Some(running) = running.filter(|running| is_in_force(running, state)) else {
        return Ok((false, None));
    };
    let now_ms = office.now_ms();
    let found = unfit::find(state, &running.config, waiting, now_ms, MAX_GRANTS);
    let mut any = false;
    for Unfit { id, why } in found.unfit {
        tracing::warn!(job = id, why, "cannot start any more, ends in error");
        let body = Body::FinishJob(FinishJob {
            id,
            state: JobState::Error.into(),
            description: why,
            ..FinishJob::default()
        });
        match office.propose(body).await {
            Ok(_) => any = true,
            // Leased or ended since the view was taken; the next look tells.
            Err(why @ OfficeError::Rejected { .. }) => tracing::debug!(%why, "not ended"),
            Err(why) => return Err(why),
        }
    }
    let until = |next_ms: i64| {
        let millis = u64::try_from(next_ms.saturating_sub(now_ms)).unwrap_or_default();
        Instant::now() + Duration::from_millis(millis)
    };
    Ok((any, found.next_ms.map(until)))
}

/// EXE-020: jobs that wait for a cluster get it and may start. False when there were none.
async fn trigger(
    office: &Office,
    state: &State,
    config: Option<&Config>,
) -> Result<bool, OfficeError> {
    let waiting = state.live_jobs_in(JobState::Scheduling).take(MAX_GRANTS);
    let mut any = false;
    for job in waiting {
        let body = Body::TriggerJob(TriggerJob {
            id: job.id.clone(),
            cluster: cluster_for(config, job),
        });
        match office.propose(body).await {
            // Aborted since the view was taken.
            Err(why) if !why.is_conflict() => return Err(why),
            _ => any = true,
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{Batch, Command, CreateJobs, NewJob, RegisterAgent};

    use trireme_config::{FileSet, Layout, LoadOptions};

    use super::*;

    struct Book {
        state: State,
        index: u64,
    }

    impl Book {
        fn new() -> Self {
            Self {
                state: State::new(),
                index: 0,
            }
        }

        fn apply(&mut self, body: Body) {
            self.index += 1;
            let command = Command {
                min_level: 1,
                principal: "test".to_owned(),
                body: Some(body),
                ..Command::default()
            };
            let batch = Batch {
                stamp_ms: i64::try_from(self.index).unwrap() * 1000,
                commands: vec![command],
            };
            let applied = self.state.apply(self.index, batch);
            for outcome in applied.outcomes {
                assert!(
                    matches!(
                        outcome.result,
                        Some(trireme_proto::state::outcome::Result::Done(_))
                    ),
                    "{outcome:?}"
                );
            }
        }

        fn agent(mut self, id: &str, clusters: &[&str], capacity: u32) -> Self {
            self.apply(Body::RegisterAgent(RegisterAgent {
                agent: Some(Agent {
                    id: id.to_owned(),
                    name: id.to_owned(),
                    clusters: clusters.iter().map(|name| (*name).to_owned()).collect(),
                    capacity,
                    node_id: 1,
                    ..Agent::default()
                }),
            }));
            self
        }

        fn job(self, id: &str, name: &str, cluster: &str, max_concurrency: u32) -> Self {
            self.job_with(id, name, cluster, |job| {
                job.max_concurrency = max_concurrency
            })
        }

        fn job_with(
            mut self,
            id: &str,
            name: &str,
            cluster: &str,
            change: impl FnOnce(&mut Job),
        ) -> Self {
            let mut job = Job {
                id: id.to_owned(),
                job: name.to_owned(),
                r#type: trireme_proto::state::JobType::Periodic.into(),
                agent: "kubernetes".to_owned(),
                cluster: cluster.to_owned(),
                state: JobState::Triggered.into(),
                prowjob: bytes::Bytes::from_static(b"{}"),
                ..Job::default()
            };
            change(&mut job);
            self.apply(Body::CreateJobs(CreateJobs {
                jobs: vec![NewJob {
                    job: Some(Box::new(job)),
                    ..NewJob::default()
                }],
                cursors: Vec::new(),
            }));
            self
        }

        /// What ends under a configuration this long after the last command, and when to look again.
        fn unfit_under(
            &self,
            config: &str,
            later: Duration,
        ) -> (Vec<(String, String)>, Option<i64>) {
            let now_ms = i64::try_from(self.index).unwrap() * 1000;
            let now_ms = now_ms + i64::try_from(later.as_millis()).unwrap();
            let waiting = Waiting::of(&self.state);
            let found = unfit::find(&self.state, &parsed(config), &waiting, now_ms, MAX_GRANTS);
            let unfit = found.unfit.into_iter();
            (
                unfit.map(|unfit| (unfit.id, unfit.why)).collect(),
                found.next_ms,
            )
        }

        fn granted(&self) -> Vec<(String, String)> {
            self.granted_under("{}")
        }

        fn granted_under(&self, config: &str) -> Vec<(String, String)> {
            let config = parsed(config);
            let waiting = Waiting::of(&self.state);
            grants(&self.state, Some(&config), &waiting, |_| true, |_| false)
                .into_iter()
                .map(|grant| (grant.job, grant.agent))
                .collect()
        }
    }

    fn parsed(config: &str) -> Arc<Config> {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        files.insert("config.yaml", config.as_bytes().to_vec());
        let loaded = Config::load(&files, LoadOptions::default());
        loaded.accepted().unwrap().0
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(job, agent)| ((*job).to_owned(), (*agent).to_owned()))
            .collect()
    }

    #[test]
    fn the_oldest_job_goes_to_the_agent_with_most_room() {
        let book = Book::new()
            .agent("a", &["default"], 1)
            .agent("b", &["default"], 2)
            .job("1", "x", "default", 0)
            .job("2", "x", "default", 0)
            .job("3", "x", "default", 0)
            .job("4", "x", "default", 0);
        assert_eq!(book.granted(), pairs(&[("1", "b"), ("2", "a"), ("3", "b")]));
    }

    /// EXE-041: a job at its own limit does not hold up others.
    #[test]
    fn a_jobs_own_limit_holds_up_only_itself() {
        let book = Book::new()
            .agent("a", &["default"], 5)
            .job("1", "x", "default", 1)
            .job("2", "x", "default", 1)
            .job("3", "y", "default", 0);
        assert_eq!(book.granted(), pairs(&[("1", "a"), ("3", "a")]));
    }

    /// EXE-041: a run that waits takes the place of later ones of its name, or a cluster without agents would be
    /// overtaken for ever.
    #[test]
    fn who_came_first_is_served_first() {
        let book = Book::new()
            .agent("a", &["default"], 5)
            .job("1", "x", "gpu", 1)
            .job("2", "x", "default", 1)
            .job("3", "y", "default", 1);
        assert_eq!(book.granted(), pairs(&[("3", "a")]));
    }

    /// EXE-042
    #[test]
    fn a_queue_holds_as_many_as_its_capacity() {
        let queued = |queue: &'static str| move |job: &mut Job| job.queue = queue.to_owned();
        let book = Book::new()
            .agent("a", &["default"], 9)
            .job_with("1", "x", "default", queued("two"))
            .job_with("2", "y", "default", queued("two"))
            .job_with("3", "z", "default", queued("two"))
            .job_with("4", "x", "default", queued("none"))
            .job_with("5", "x", "default", queued("free"))
            .job_with("6", "x", "default", queued("unknown"));
        let config = "plank: {job_queue_capacities: {two: 2, none: 0, free: -1}}";
        assert_eq!(
            book.granted_under(config),
            pairs(&[("1", "a"), ("2", "a"), ("5", "a")])
        );
    }

    /// EXE-040
    #[test]
    fn the_limit_over_all_is_for_the_oldest() {
        let book = Book::new()
            .agent("a", &["default"], 9)
            .job("1", "x", "default", 0)
            .job("2", "y", "default", 0)
            .job("3", "z", "default", 0);
        assert_eq!(
            book.granted_under("plank: {max_concurrency: 2}"),
            pairs(&[("1", "a"), ("2", "a")])
        );
    }

    /// EXE-042, EXE-052: a version without the queue, or without the cluster, ends what waits for it, with a reason.
    #[test]
    fn what_waits_for_something_that_is_gone_ends_in_error() {
        let queued = |queue: &'static str| move |job: &mut Job| job.queue = queue.to_owned();
        let book = Book::new()
            .agent("a", &["default", "old"], 9)
            .job_with("1", "x", "default", queued("kept"))
            .job_with("2", "y", "default", queued("gone"))
            .job("3", "z", "old", 0);
        let config = "plank: {job_queue_capacities: {kept: 0, gone: 1}}";
        let (grace, later) = (Duration::from_secs(290), Duration::from_secs(300));
        assert_eq!(book.unfit_under(config, later), (vec![], None));
        let config = "disabled_clusters: [old]\nplank: {job_queue_capacities: {kept: 0}}";
        assert_eq!(
            book.unfit_under(config, grace),
            (vec![], Some(3000 + 300_000)),
            "it may be a mistake that the next version takes back"
        );
        assert_eq!(
            book.unfit_under(config, later).0,
            pairs(&[
                (
                    "2",
                    "Terminal error: job queue \"gone\" is not in plank.job_queue_capacities any more, for 300s."
                ),
                (
                    "3",
                    "Terminal error: cluster \"old\" is disabled by the configuration, for 300s."
                ),
            ])
        );
    }

    /// EXE-057: a cluster that nobody knows is not one whose agents are away.
    #[test]
    fn exe_057_unknown_clusters_end_what_waits_for_them_and_silent_ones_do_not() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let book = Book::new().job("1", "x", "gpu", 0);
        // No agent was ever set up.
        assert_eq!(book.unfit_under("{}", minutes(600)), (vec![], None));
        let mut book = book.agent("a", &["default"], 1);
        let (unfit, next_ms) = book.unfit_under("{}", minutes(4));
        assert_eq!((unfit, next_ms), (vec![], Some(1000 + 300_000)));
        assert_eq!(
            book.unfit_under("{}", minutes(5)).0,
            pairs(&[(
                "1",
                "Terminal error: unknown cluster alias \"gpu\": no agent serves it, and none came within 300s."
            )])
        );
        let patient = "plank: {pod_unscheduled_timeout: 1h}";
        assert_eq!(book.unfit_under(patient, minutes(5)).0, vec![]);
        book = book.agent("g", &["gpu"], 1);
        book.apply(Body::SetAgent(SetAgent {
            id: "g".to_owned(),
            incarnation: book.state.agent("g").unwrap().incarnation,
            lost: true,
            ..SetAgent::default()
        }));
        assert!(book.state.agent("g").unwrap().lost);
        assert_eq!(book.unfit_under("{}", minutes(600)), (vec![], None));
    }

    /// EXE-033
    #[test]
    fn what_other_systems_run_is_left_to_them() {
        let book = Book::new()
            .agent("a", &["default"], 9)
            .job_with("1", "x", "default", |job| {
                job.agent = "tekton-pipeline".to_owned();
            });
        assert_eq!(book.granted(), []);
    }

    #[test]
    fn jobs_wait_for_an_agent_of_their_cluster() {
        let book = Book::new()
            .agent("a", &["default"], 5)
            .job("1", "x", "gpu", 0);
        assert_eq!(book.granted(), []);
        let book = book.agent("g", &["gpu", "arm"], 1);
        assert_eq!(book.granted(), pairs(&[("1", "g")]));
        assert!(
            grants(
                &book.state,
                None,
                &Waiting::of(&book.state),
                |agent| agent.id != "g",
                |_| false
            )
            .is_empty(),
            "a silent agent gets nothing"
        );
    }
}
