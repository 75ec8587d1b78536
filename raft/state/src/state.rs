//! The state as a whole: its tables, its position in the log, and its digest.

use std::sync::Arc;

use trireme_proto::state as pb;

use crate::{
    agents::Agents,
    alarms::Alarms,
    audits::Audits,
    blobs::Blobs,
    config_pages::ConfigPages,
    configs::Configs,
    cursors::Cursors,
    deliveries::Deliveries,
    digest::{Digest, Sum},
    intents::Intents,
    jobs::Jobs,
    level::BASE_LEVEL,
    plans::Plans,
    pools::Pools,
    pulls::Pulls,
    reports::Reports,
    requests::Requests,
    timers::Timers,
    tokens::Tokens,
};

/// The replicated state at one log index. Cloning shares everything: a clone is a view that never changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(crate) last_index: u64,
    pub(crate) last_stamp_ms: i64,
    /// The last build id given.
    pub(crate) build_id: u64,
    pub(crate) digest: Sum,
    pub(crate) jobs: Jobs,
    pub(crate) reports: Reports,
    pub(crate) deliveries: Deliveries,
    pub(crate) plans: Plans,
    pub(crate) pulls: Pulls,
    pub(crate) pools: Pools,
    pub(crate) intents: Intents,
    pub(crate) configs: Configs,
    pub(crate) config_pages: ConfigPages,
    pub(crate) blobs: Blobs,
    pub(crate) agents: Agents,
    pub(crate) cursors: Cursors,
    pub(crate) timers: Timers,
    pub(crate) alarms: Alarms,
    pub(crate) audits: Audits,
    pub(crate) tokens: Tokens,
    pub(crate) requests: Requests,
    pub(crate) office: Arc<pb::Office>,
    /// 0 = never raised.
    pub(crate) feature_level: u32,
}

/// How many records of each kind are in memory: for metrics and quotas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub jobs: usize,
    pub live_jobs: usize,
    pub reports: usize,
    pub reports_owed: usize,
    pub deliveries: usize,
    pub open_deliveries: usize,
    pub seen_deliveries: usize,
    pub plans: usize,
    pub pull_requests: usize,
    pub pools: usize,
    pub intents: usize,
    pub open_intents: usize,
    pub configs: usize,
    pub config_pages: usize,
    pub blobs: usize,
    pub blob_bytes: u64,
    pub agents: usize,
    pub cursors: usize,
    pub timers: usize,
    pub alarms: usize,
    pub tokens: usize,
    pub remembered_requests: usize,
    pub dead_letters: usize,
}

impl State {
    pub fn new() -> Self {
        Self::default()
    }

    /// Log index of the last entry applied.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Stamp of the last batch applied, milliseconds since the Unix epoch; never decreases.
    pub fn last_stamp_ms(&self) -> i64 {
        self.last_stamp_ms
    }

    /// Equal on all replicas at the same index.
    pub fn digest(&self) -> Digest {
        self.digest.seal(&[
            self.last_index,
            self.last_stamp_ms.cast_unsigned(),
            self.build_id,
            self.configs.last_number(),
        ])
    }

    /// Feature level of the cluster: commands above it are refused.
    pub fn feature_level(&self) -> u32 {
        self.feature_level.max(BASE_LEVEL)
    }

    pub fn counts(&self) -> Counts {
        Counts {
            jobs: self.jobs.len(),
            live_jobs: self.jobs.live_len(),
            reports: self.reports.len(),
            reports_owed: self.reports.owed_len(),
            deliveries: self.deliveries.len(),
            open_deliveries: self.deliveries.open_len(),
            seen_deliveries: self.deliveries.seen_len(),
            plans: self.plans.len(),
            pull_requests: self.pulls.len(),
            pools: self.pools.len(),
            intents: self.intents.len(),
            open_intents: self.intents.open_len(),
            configs: self.configs.len(),
            config_pages: self.config_pages.len(),
            blobs: self.blobs.len(),
            blob_bytes: self.blobs.bytes(),
            agents: self.agents.len(),
            cursors: self.cursors.len(),
            timers: self.timers.len(),
            alarms: self.alarms.len(),
            tokens: self.tokens.len(),
            remembered_requests: self.requests.len(),
            dead_letters: self
                .reports
                .dead_len()
                .saturating_add(self.plans.dead_len()),
        }
    }
}
