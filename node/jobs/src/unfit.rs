//! Waiting jobs that can never start, because what they wait for is gone: they end in error instead of waiting without end
//! (EXE-052).
//!
//! A queue or a cluster that the configuration has no more is gone at once. A cluster whose agents are silent is only away
//! (EXE-057): its agents are remembered for a day, and so long its jobs wait. One that no agent is remembered for may be one
//! whose first agent is being set up: that is given `plank.pod_unscheduled_timeout`.

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
}

/// At most `most` of them.
pub(crate) fn find(
    state: &State,
    config: &Config,
    waiting: &Waiting,
    now_ms: i64,
    most: usize,
) -> Found {
    let mut found = Found::default();
    let plank = &config.prow.plank;
    for queue in waiting.queues() {
        if plank.job_queue_capacities.contains_key(queue) {
            continue;
        }
        for job in waiting.of_queue(queue).take(most) {
            found.add(
                job,
                format!("job queue {queue:?} is not in plank.job_queue_capacities any more"),
            );
        }
    }
    let served: BTreeSet<&str> = state
        .agents()
        .flat_map(|agent| agent.clusters.iter().map(String::as_str))
        .collect();
    let timeout = plank
        .pod_unscheduled_timeout
        .map_or(UNSCHEDULED_TIMEOUT, |timeout| timeout.get().to_std());
    for cluster in waiting.clusters() {
        let disabled = &config.prow.disabled_clusters;
        if disabled.iter().any(|name| name == cluster) {
            for job in waiting.of_cluster(cluster).take(most) {
                found.add(
                    job,
                    format!("cluster {cluster:?} is disabled by the configuration"),
                );
            }
            continue;
        }
        // Where there is no agent at all, none was set up yet.
        if served.is_empty() || served.contains(cluster) {
            continue;
        }
        let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
        for job in waiting.of_cluster(cluster) {
            let due_ms = job.created_ms.saturating_add(timeout_ms);
            if due_ms > now_ms {
                found.next_ms = Some(found.next_ms.map_or(due_ms, |next| next.min(due_ms)));
            } else if found.unfit.len() < most {
                found.add(
                    job,
                    format!(
                        "unknown cluster alias {cluster:?}: no agent serves it, and none came within {timeout:?}"
                    ),
                );
            }
        }
    }
    found.unfit.truncate(most);
    found
}
