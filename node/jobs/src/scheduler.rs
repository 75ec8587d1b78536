//! Jobs to agents, under the limits of the jobs and of the agents.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use trireme_api::LeaseRenewals as _;
use trireme_config::Config;
use trireme_office::{ConfigFeed, Controller, ControllerError, Office, OfficeError};
use trireme_proto::state::{Agent, Job, JobState, LeaseJob, ReleaseLease, SetAgent, command::Body};
use trireme_prowjob::record;
use trireme_state::{BUILD_ID_MARK, State};

use crate::Leases;

/// Leases granted in one pass before the view is read again.
const MAX_GRANTS: usize = 64;

/// Leases triggered jobs to agents that have room, oldest first, and takes back the leases of agents that fell
/// silent.
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
    let plank = config.map(|config| &config.prow.plank);
    LeaseJob {
        id: grant.job.clone(),
        agent_id: grant.agent.clone(),
        incarnation: grant.incarnation,
        url: config
            .and_then(|config| url(config, job))
            .unwrap_or_default(),
        // EXE-040: 0 is no limit.
        max_running: plank
            .and_then(|plank| u32::try_from(plank.controller.max_concurrency).ok())
            .unwrap_or_default(),
        // EXE-042: below 0 is no limit.
        queue_capacity: plank
            .and_then(|plank| plank.job_queue_capacities.get(&job.queue))
            .and_then(|capacity| u32::try_from(*capacity).ok()),
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

/// EXE-040..: oldest job first; a job whose own limit is reached does not hold up the others. The agent with the most
/// free slots gets it, by name where equal.
fn grants(state: &State, alive: impl Fn(&Agent) -> bool) -> Vec<Grant> {
    let mut free: BTreeMap<&str, (u32, &Agent)> = state
        .agents()
        .filter(|agent| !agent.draining && !agent.lost && alive(agent))
        .map(|agent| {
            let room = agent.capacity.saturating_sub(state.lease_count(&agent.id));
            (agent.id.as_str(), (room, &**agent))
        })
        .collect();
    let mut granted_of: BTreeMap<&str, u32> = BTreeMap::new();
    let mut grants = Vec::new();
    for job in state.jobs_in_state(JobState::Triggered) {
        if job.completed_ms > 0 {
            continue;
        }
        if grants.len() == MAX_GRANTS || free.values().all(|(slots, _)| *slots == 0) {
            break;
        }
        let granted = granted_of.get(job.job.as_str()).copied().unwrap_or(0);
        if job.max_concurrency > 0 && state.running_count(&job.job) + granted >= job.max_concurrency
        {
            continue;
        }
        let Some((slots, agent)) = free
            .values_mut()
            .filter(|(slots, agent)| *slots > 0 && agent.clusters.contains(&job.cluster))
            .max_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.id.cmp(&a.1.id)))
        else {
            continue;
        };
        *slots -= 1;
        *granted_of.entry(job.job.as_str()).or_default() += 1;
        grants.push(Grant {
            job: job.id.clone(),
            agent: agent.id.clone(),
            incarnation: agent.incarnation,
        });
    }
    grants
}

#[async_trait]
impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        self.leases.take_office();
        let result = self.schedule(&office).await;
        self.leases.leave_office();
        Ok(result?)
    }
}

impl Scheduler {
    async fn schedule(&self, office: &Office) -> Result<(), OfficeError> {
        let resigned = office.resigned();
        let mut view = office.view();
        let mut watch = office.watch(view.revision);
        loop {
            for agent in view.agents() {
                self.leases.know(&agent.id, agent.incarnation);
            }
            self.leases.keep_only(|id| view.agent(id).is_some());
            self.take_back(office, &view).await?;
            let granted = self.grant(office, &view).await?;
            if granted {
                // Each grant changed what is free.
                view = office.view();
                continue;
            }
            let wake = self.next_expiry(&view);
            tokio::select! {
                () = resigned.cancelled() => return Ok(()),
                batch = watch.next() => if batch.is_err() {
                    watch = office.watch(office.view().revision);
                },
                () = sleep_until(wake) => {}
            }
            view = office.view();
        }
    }

    async fn grant(&self, office: &Office, state: &State) -> Result<bool, OfficeError> {
        let now = Instant::now();
        let config = self.config.borrow().clone();
        let alive = |agent: &Agent| {
            self.leases
                .holds_until(&agent.id)
                .is_some_and(|until| until > now)
        };
        let mut any = false;
        for grant in grants(state, alive) {
            let Some(job) = state.job(&grant.job) else {
                continue;
            };
            let command = lease_command(config.as_ref().map(|config| &*config.config), job, &grant);
            match office.propose(Body::LeaseJob(command)).await {
                Ok(done) => {
                    any = true;
                    tracing::info!(
                        job = grant.job,
                        agent = grant.agent,
                        build_id = done.build_id,
                        "leased"
                    );
                }
                // Finished, aborted or leased since the view was taken.
                Err(why) if why.is_conflict() => {
                    tracing::debug!(job = grant.job, %why, "not leased")
                }
                Err(why) => return Err(why),
            }
        }
        Ok(any)
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
            // A renewal on the way moves it; no need to look more often than this.
            .max(Instant::now() + std::time::Duration::from_millis(100))
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{Batch, Command, CreateJobs, NewJob, RegisterAgent};

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
            let applied = self.state.apply(self.index, &batch);
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

        fn job(mut self, id: &str, name: &str, cluster: &str, max_concurrency: u32) -> Self {
            let job = Job {
                id: id.to_owned(),
                job: name.to_owned(),
                r#type: trireme_proto::state::JobType::Periodic.into(),
                agent: "kubernetes".to_owned(),
                cluster: cluster.to_owned(),
                state: JobState::Triggered.into(),
                prowjob: bytes::Bytes::from_static(b"{}"),
                max_concurrency,
                ..Job::default()
            };
            self.apply(Body::CreateJobs(CreateJobs {
                jobs: vec![NewJob {
                    job: Some(job),
                    ..NewJob::default()
                }],
                cursors: Vec::new(),
            }));
            self
        }

        fn granted(&self) -> Vec<(String, String)> {
            grants(&self.state, |_| true)
                .into_iter()
                .map(|grant| (grant.job, grant.agent))
                .collect()
        }
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

    #[test]
    fn jobs_wait_for_an_agent_of_their_cluster() {
        let book = Book::new()
            .agent("a", &["default"], 5)
            .job("1", "x", "gpu", 0);
        assert_eq!(book.granted(), []);
        let book = book.agent("g", &["gpu", "arm"], 1);
        assert_eq!(book.granted(), pairs(&[("1", "g")]));
        assert!(
            grants(&book.state, |agent| agent.id != "g").is_empty(),
            "a silent agent gets nothing"
        );
    }
}
