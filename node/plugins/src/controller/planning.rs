//! Deciding: a plugin's decision about a delivery becomes its plan, once.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use jiff::Timestamp;
use prost::Message as _;
use trireme_forge::github::AsOf;
use trireme_office::{OfficeError, RunningConfig, Work};
use trireme_proto::state::command::Body;
use trireme_proto::state::{
    CommitPlans, CreateJobs, Delivery, NewJob, PlanBody, Rejection, SettlePlan,
};
use trireme_raft::ProposeError;

use trireme_state::{EFFECTS_LEVEL, FEATURE_LEVEL};

use super::inbox::Parsed;
use super::lanes::Lane;
use super::{MAX_TRIES, Session, not_recorded};
use crate::decision::Decision;
use crate::plugin::{PlanError, Planning};

/// A decision reads a handful of pages and perhaps a repository for the first time.
const PLAN_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Bytes of jobs in one command: an entry of the log holds 1 MiB.
const MAX_JOB_BYTES: usize = 640 << 10;

impl Session {
    /// Makes the plugin decide and commits what it decided; a failure is counted in the state.
    pub(super) async fn decide(&self, lane: &Lane, delivery: &Delivery) -> Result<(), Work> {
        // Without its configuration a decision waits: `follow_config` wakes it.
        let (Some(running), view) = self.running() else {
            return Err(Work::Done);
        };
        let failures = view
            .plan(&delivery.guid, &lane.plugin)
            .map_or(0, |plan| plan.failures);
        let last_try = failures.saturating_add(1) >= MAX_TRIES;
        let started = Instant::now();
        let planned = match self.events.get(&view, delivery) {
            Ok(parsed) => self.plan(lane, delivery, &running, &parsed, last_try).await,
            Err(why) => Err(PlanError::Failed(why.to_string())),
        };
        if !matches!(planned, Err(PlanError::NotYet(_))) {
            let acts = planned.as_ref().is_ok_and(|decision| !decision.is_idle());
            let (took, failed) = (started.elapsed(), planned.is_err());
            let metrics = &self.tools.metrics;
            metrics.decided(delivery, &lane.plugin, acts, took, failed);
        }
        let error = match planned {
            Ok(decision) => match self.commit(lane, delivery, &running, decision).await {
                Ok(()) => return Ok(()),
                Err(OfficeError::Rejected { message, .. })
                    if view.feature_level() < FEATURE_LEVEL =>
                {
                    // While versions are mixed, older members hold back what they do not know.
                    return Err(Work::Outage(message, None));
                }
                // There is no room: that passes.
                Err(
                    error @ OfficeError::Rejected {
                        code: Rejection::ResourceExhausted,
                        ..
                    },
                ) => return Err(not_recorded(error)),
                Err(OfficeError::Rejected { code, message }) => {
                    format!("the plan was rejected ({code:?}): {message}")
                }
                // So it will be the next time.
                Err(OfficeError::Store(error @ ProposeError::TooLarge { .. })) => {
                    format!("the plan cannot be recorded: {error}")
                }
                Err(error) => return Err(not_recorded(error)),
            },
            Err(PlanError::Outage {
                reason,
                retry_after,
            }) => return Err(Work::Outage(reason, retry_after)),
            Err(PlanError::NotYet(wait)) => return Err(Work::After(wait)),
            Err(PlanError::Failed(error)) => error,
        };
        let dead = last_try;
        tracing::warn!(
            guid = delivery.guid,
            plugin = lane.plugin,
            dead,
            error,
            "no decision"
        );
        let settle = SettlePlan {
            guid: delivery.guid.clone(),
            plugin: lane.plugin.clone(),
            error: error.clone(),
            dead,
        };
        let settled = self.office.propose(Body::SettlePlan(settle)).await;
        settled.map_err(not_recorded)?;
        if dead {
            Ok(())
        } else {
            Err(Work::Retry(error))
        }
    }

    async fn plan(
        &self,
        lane: &Lane,
        delivery: &Delivery,
        running: &RunningConfig,
        parsed: &Parsed,
        last_try: bool,
    ) -> Result<Decision, PlanError> {
        // A plugin that was there when the delivery came and is not any more has nothing to say.
        let Some(plugin) = self.tools.plugins.get(&lane.plugin) else {
            return Ok(Decision::nothing());
        };
        let as_of = AsOf::new(parsed.at);
        let forge = self.tools.forges.of_decision(&lane.plugin, &as_of);
        let bot = forge.bot_user(&delivery.org).await?;
        let view = self.office.view();
        let now = Timestamp::from_millisecond(self.office.now_ms());
        let cx = Planning {
            guid: &delivery.guid,
            now: now.unwrap_or(Timestamp::UNIX_EPOCH),
            received: Timestamp::from_millisecond(delivery.received_ms)
                .unwrap_or(Timestamp::UNIX_EPOCH),
            forge: forge.as_ref(),
            as_of: &as_of,
            bot: &bot,
            running,
            state: &view,
            owners: &self.tools.owners,
            in_repo: &self.tools.in_repo,
            mirrors: &self.tools.mirrors,
            options: &self.tools.options,
            jira: self.tools.jira.as_deref(),
            outside: &self.tools.outside,
            checked: &self.tools.checked,
            has_clusters: self.tools.config_maps.is_some(),
            last_try,
            round: self.tools.round,
        };
        let planning = AssertUnwindSafe(plugin.plan(&cx, &parsed.event)).catch_unwind();
        match tokio::time::timeout(PLAN_TIMEOUT, planning).await {
            Ok(Ok(decided)) => decided,
            Ok(Err(_)) => Err(PlanError::Failed("the plugin panicked".to_owned())),
            Err(_) => Err(PlanError::Failed(format!(
                "no decision within {} s",
                PLAN_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn commit(
        &self,
        lane: &Lane,
        delivery: &Delivery,
        running: &RunningConfig,
        decision: Decision,
    ) -> Result<(), OfficeError> {
        let mut commit = CommitPlans {
            guid: delivery.guid.clone(),
            config_version: running.version,
            plugins: delivery.plugins.clone(),
            ..CommitPlans::default()
        };
        if decision.is_idle() {
            commit.idle.push(lane.plugin.clone());
        } else {
            let mut plan = decision.into_plan(&lane.plugin);
            if self.office.view().feature_level() < EFFECTS_LEVEL {
                // While versions are mixed: older ones do not look at it.
                plan.head_sha.clear();
                for effect in &mut plan.effects {
                    effect.head_sha.clear();
                }
            }
            for jobs in overflow(&mut plan, MAX_JOB_BYTES) {
                let create = CreateJobs {
                    jobs,
                    ..CreateJobs::default()
                };
                self.office.propose(Body::CreateJobs(create)).await?;
            }
            commit.plans.push(plan);
        }
        self.office.propose(Body::CommitPlans(commit)).await?;
        Ok(())
    }
}

/// Takes out of the plan what does not fit beside it, in portions that fit an entry each.
///
/// These are created before the plan is committed: their ids derive from the delivery, so that a second try finds them,
/// while jobs after the plan could be lost.
fn overflow(plan: &mut PlanBody, max_bytes: usize) -> Vec<Vec<NewJob>> {
    let mut portions: Vec<Vec<NewJob>> = vec![Vec::new()];
    let mut bytes = 0;
    for job in std::mem::take(&mut plan.jobs) {
        let size = job.encoded_len();
        if bytes > 0 && bytes + size > max_bytes {
            portions.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(portion) = portions.last_mut() {
            portion.push(job);
        }
    }
    plan.jobs = portions.remove(0);
    portions
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::Job;

    use super::*;

    #[test]
    fn a_plan_with_too_many_jobs_is_cut_into_entries() {
        let job = |id: &str| NewJob {
            job: Some(Box::new(Job {
                id: id.to_owned(),
                prowjob: vec![b'x'; 100].into(),
                ..Job::default()
            })),
            ..NewJob::default()
        };
        let ids = |jobs: &[NewJob]| -> Vec<String> {
            jobs.iter().map(|new| new.job.clone().unwrap().id).collect()
        };
        let mut plan = PlanBody {
            jobs: ["a", "b", "c", "d", "e"].map(job).to_vec(),
            ..PlanBody::default()
        };
        let rest = overflow(&mut plan, 250);
        assert_eq!(ids(&plan.jobs), ["a", "b"]);
        assert_eq!(
            rest.iter().map(|jobs| ids(jobs)).collect::<Vec<_>>(),
            [vec!["c", "d"], vec!["e"]]
        );
        let mut small = PlanBody {
            jobs: vec![job("a")],
            ..PlanBody::default()
        };
        assert_eq!(overflow(&mut small, 10), Vec::<Vec<NewJob>>::new());
        assert_eq!(ids(&small.jobs), ["a"]);
        assert_eq!(
            overflow(&mut PlanBody::default(), 10),
            Vec::<Vec<NewJob>>::new()
        );
    }
}
