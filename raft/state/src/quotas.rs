//! Quotas: how much of each kind there may be, and how much there is. Counts are enforced where a record is made, bytes
//! here for all kinds.

use trireme_proto::state::command::Body;

use crate::{
    State,
    level::{EFFECTS_LEVEL, HISTORY_LEVEL},
    limits::{
        DELIVERY_MEMORY, MAX_AGENTS, MAX_AGENTS_BYTES, MAX_ALARMS, MAX_BLOBS_BYTES,
        MAX_CONFIG_PAGES, MAX_CONFIG_PAGES_BYTES, MAX_CURSORS, MAX_CURSORS_BYTES, MAX_DELIVERIES,
        MAX_DELIVERIES_BYTES, MAX_INTENTS_BYTES, MAX_JOB_EVENT_BYTES, MAX_JOBS, MAX_JOBS_BYTES,
        MAX_OPEN_INTENTS, MAX_PLANS_BYTES, MAX_POOLS, MAX_POOLS_BYTES, MAX_PULL_REQUESTS,
        MAX_PULL_REQUESTS_BYTES, MAX_TIMERS, MAX_TIMERS_BYTES, MAX_TOKENS,
    },
    reject::{Verdict, full},
};

/// The level from which bytes are bounded: all replicas must refuse the same.
const BYTES_LEVEL: u32 = 2;

/// How much of one kind there is, and may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// As in metrics and alarms: a kind of record, or its bytes.
    pub kind: &'static str,
    pub used: u64,
    pub limit: u64,
}

impl Quota {
    /// Rounded down.
    pub fn percent(&self) -> u64 {
        self.used
            .saturating_mul(100)
            .checked_div(self.limit)
            .unwrap_or(100)
    }
}

impl State {
    /// All quotas, in a fixed order.
    pub fn quotas(&self) -> Vec<Quota> {
        let count = |kind, used: usize, limit: usize| Quota {
            kind,
            used: used as u64,
            limit: limit as u64,
        };
        let bytes = |kind, used, limit| Quota { kind, used, limit };
        vec![
            count("job", self.jobs.len(), MAX_JOBS),
            count("delivery", self.deliveries.len(), MAX_DELIVERIES),
            count("seen_delivery", self.deliveries.seen_len(), DELIVERY_MEMORY),
            count("pull_request", self.pulls.len(), MAX_PULL_REQUESTS),
            count("pool", self.pools.len(), MAX_POOLS),
            count("open_intent", self.intents.open_len(), MAX_OPEN_INTENTS),
            count("agent", self.agents.len(), MAX_AGENTS),
            count("cursor", self.cursors.len(), MAX_CURSORS),
            count("timer", self.timers.len(), MAX_TIMERS),
            count("alarm", self.alarms.len(), MAX_ALARMS),
            count("token", self.tokens.len(), MAX_TOKENS),
            bytes("job_bytes", self.jobs.bytes(), MAX_JOBS_BYTES),
            bytes(
                "delivery_bytes",
                self.deliveries.bytes(),
                MAX_DELIVERIES_BYTES,
            ),
            bytes("plan_bytes", self.plans.bytes(), MAX_PLANS_BYTES),
            bytes(
                "pull_request_bytes",
                self.pulls.bytes(),
                MAX_PULL_REQUESTS_BYTES,
            ),
            bytes("pool_bytes", self.pools.bytes(), MAX_POOLS_BYTES),
            bytes("intent_bytes", self.intents.bytes(), MAX_INTENTS_BYTES),
            bytes("cursor_bytes", self.cursors.bytes(), MAX_CURSORS_BYTES),
            bytes("timer_bytes", self.timers.bytes(), MAX_TIMERS_BYTES),
            bytes("agent_bytes", self.agents.bytes(), MAX_AGENTS_BYTES),
            count("config_page", self.config_pages.len(), MAX_CONFIG_PAGES),
            bytes(
                "config_page_bytes",
                self.config_pages.bytes(),
                MAX_CONFIG_PAGES_BYTES,
            ),
            bytes("blob_bytes", self.blobs.bytes(), MAX_BLOBS_BYTES),
            bytes(
                "unreferenced_blob_bytes",
                self.blobs.unreferenced_bytes(),
                self.max_unreferenced_blob_bytes(),
            ),
        ]
    }

    /// What apply adds to jobs that a command makes.
    fn first_rows_bytes(&self, body: &Body) -> u64 {
        let jobs = match body {
            _ if self.feature_level() < HISTORY_LEVEL => 0,
            Body::CreateJobs(body) => body.jobs.len(),
            Body::CommitPlans(body) => body.plans.iter().map(|plan| plan.jobs.len()).sum(),
            _ => 0,
        };
        jobs.saturating_mul(MAX_JOB_EVENT_BYTES) as u64
    }

    /// Refuses what would put a kind beyond its bytes. A command counts with its own size: never less than what it adds,
    /// a little more when it replaces something.
    pub(crate) fn check_quotas(&self, body: &Body) -> Verdict<()> {
        if self.feature_level() < BYTES_LEVEL {
            return Ok(());
        }
        let rows = self.first_rows_bytes(body);
        let within = |what: &str, used: u64, limit: u64| {
            let added = (body.encoded_len() as u64).saturating_add(rows);
            match used.saturating_add(added) > limit {
                true => Err(full(what, used, limit)),
                false => Ok(()),
            }
        };
        match body {
            Body::CreateJobs(body) => {
                if !body.cursors.is_empty() {
                    within("cursors", self.cursors.bytes(), MAX_CURSORS_BYTES)?;
                }
                within("jobs", self.jobs.bytes(), MAX_JOBS_BYTES)
            }
            Body::CommitPlans(body) if !body.plans.is_empty() => {
                // From here on only what a plan makes has to have room.
                let all = self.feature_level() < EFFECTS_LEVEL;
                if all || body.plans.iter().any(|plan| !plan.jobs.is_empty()) {
                    within("jobs", self.jobs.bytes(), MAX_JOBS_BYTES)?;
                }
                if all || body.plans.iter().any(|plan| !plan.pull_requests.is_empty()) {
                    within("pull requests", self.pulls.bytes(), MAX_PULL_REQUESTS_BYTES)?;
                }
                within("plans", self.plans.bytes(), MAX_PLANS_BYTES)
            }
            Body::AcceptDelivery(_) => {
                within("deliveries", self.deliveries.bytes(), MAX_DELIVERIES_BYTES)
            }
            Body::PutConfigPage(_) => within(
                "configuration pages",
                self.config_pages.bytes(),
                MAX_CONFIG_PAGES_BYTES,
            ),
            Body::PutBlobChunk(_) => within("blobs", self.blobs.bytes(), MAX_BLOBS_BYTES),
            Body::PutPullRequests(_) => {
                within("pull requests", self.pulls.bytes(), MAX_PULL_REQUESTS_BYTES)
            }
            Body::PutPool(body) if !body.remove => {
                within("pools", self.pools.bytes(), MAX_POOLS_BYTES)
            }
            Body::OpenIntent(_) => within("intents", self.intents.bytes(), MAX_INTENTS_BYTES),
            Body::PutCursor(_) => within("cursors", self.cursors.bytes(), MAX_CURSORS_BYTES),
            Body::PutTimer(_) => within("timers", self.timers.bytes(), MAX_TIMERS_BYTES),
            Body::RegisterAgent(_) => within("agents", self.agents.bytes(), MAX_AGENTS_BYTES),
            // Configurations are blobs; the rest makes nothing, or what time removes.
            _ => Ok(()),
        }
    }
}
