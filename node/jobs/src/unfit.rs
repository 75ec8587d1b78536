//! Waiting jobs that can never start, because what they wait for is gone: they end in error instead of waiting without end
//! (EXE-052).
//!
//! A queue or a cluster that the configuration has no more may come back with the next version, where the last one was a
//! mistake, and a cluster that no agent is remembered for may be one whose first agent is being set up: each is given
//! `plank.pod_unscheduled_timeout` from the job's creation, or from the version's where that is later. A cluster whose
//! agents are silent is only away (EXE-057): its agents are remembered for a day, and so long its jobs wait.

use std::{collections::BTreeSet, time::Duration};

use trireme_config::Config;
use trireme_proto::state::Job;
use trireme_state::State;

use crate::waiting::Waiting;

/// `plank.pod_unscheduled_timeout` if it is not set.
const UNSCHEDULED_TIMEOUT: Duration = Duration::from_secs(300);

/// A job that cannot start, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) id: String,
    pub(crate) why: String,
}

/// What is to end now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) unfit: Vec<Unfit>,
    /// When the next one is, unless something changes; in milliseconds, by the clock of the log.
    pub(crate) next_ms: Option<i64>,
}

impl Found {
    fn add(&mut self, job: &Job, why: String) {
        self.unfit.push(Unfit {
            id: job.id.clone(),
            why: format!("Terminal error: {why}."),
        });
    }

    fn look_at(&mut self, due_ms: i64) {
        self.next_ms = Some(self.next_ms.map_or(due_ms, |next| next.min(due_ms)));
    }
}

/// At most `most` of them. `config` is the version in force in `state`.
pub(crate) fn find(
    state: &State,
    config: &Config,
    waiting: &Waiting,
    now_ms: i64,
    most: usize,
) -> Found {
    let mut found = Found::default();
    let plank = &config.prow.plank;
    let timeout = plank
        .pod_unscheduled_timeout
        .map_or(UNSCHEDULED_TIMEOUT, |timeout| timeout.get().to_std());
    let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    let version_ms = state.config().map_or(0, |version| version.created_ms);
    let due_ms = |job: &Job| job.created_ms.max(version_ms).saturating_add(timeout_ms);
    for queue in waiting.queues() {
        if plank.job_queue_capacities.contains_key(queue) {
            continue;
        }
        for job in waiting.of_queue(queue).take(most) {
            let due_ms = due_ms(job);
            if due_ms > now_ms {
                found.look_at(due_ms);
                // Those behind it are younger.
                break;
            }
            found.add(
                job,
                format!(
                    "job queue {queue:?} is not in plank.job_queue_capacities any more, for {timeout:?}"
                ),
            );
        }
    }
    let served: BTreeSet<&str> = state
        .agents()
        .flat_map(|agent| agent.clusters.iter().map(String::as_str))
        .collect();
    for cluster in waiting.clusters() {
        let disabled = &config.prow.disabled_clusters;
        let why = if disabled.iter().any(|name| name == cluster) {
            format!("cluster {cluster:?} is disabled by the configuration, for {timeout:?}")
        } else if served.is_empty() || served.contains(cluster) {
            // Where there is no agent at all, none was set up yet.
            continue;
        } else {
            format!(
                "unknown cluster alias {cluster:?}: no agent serves it, and none came within {timeout:?}"
            )
        };
        for job in waiting.of_cluster(cluster) {
            let due_ms = due_ms(job);
            if due_ms > now_ms {
                found.look_at(due_ms);
            } else if found.unfit.len() < most {
                found.add(job, why.clone());
            }
        }
    }
    found.unfit.truncate(most);
    found
}
