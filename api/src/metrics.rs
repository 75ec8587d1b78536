//! What a node tells Prometheus.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use trireme_proto::state::JobState;
use trireme_raft::Store;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    event_type: String,
    response_code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

/// Event types that GitHub sends are few; what else a header claims is counted as `other`.
const EVENTS: [&str; 9] = [
    "ping",
    "issues",
    "issue_comment",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "push",
    "status",
    "unknown",
];

/// The registry of one node. Gauges are set when it is scraped.
pub struct Metrics {
    registry: Registry,
    webhooks: Family<WebhookLabels, Counter>,
    jobs: Family<StateLabels, Gauge>,
    records: Family<KindLabels, Gauge>,
    applied: Gauge,
    last_log: Gauge,
    term: Gauge,
    is_leader: Gauge,
    office_changes: Gauge,
    alarms: Gauge,
    blob_bytes: Gauge,
    stage_seconds: Family<StageLabels, Counter<f64, AtomicU64>>,
    stage_count: Family<StageLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let webhooks = Family::default();
        let (jobs, records) = (Family::default(), Family::default());
        let (applied, last_log, term) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (is_leader, office_changes, alarms) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register(
            "prow_webhook_counter_with_response",
            "Webhooks by event type and the code they were answered with",
            webhooks.clone(),
        );
        registry.register("prowjobs", "Live ProwJobs by state", jobs.clone());
        registry.register(
            "trireme_records",
            "Records held in memory by kind",
            records.clone(),
        );
        registry.register(
            "trireme_raft_applied_index",
            "Log index applied",
            applied.clone(),
        );
        registry.register(
            "trireme_raft_last_log_index",
            "Log index stored",
            last_log.clone(),
        );
        registry.register("trireme_raft_term", "Raft term", term.clone());
        registry.register(
            "trireme_raft_is_leader",
            "1 on the leader",
            is_leader.clone(),
        );
        registry.register(
            "trireme_office_changes",
            "How often the office changed hands",
            office_changes.clone(),
        );
        registry.register(
            "trireme_alarms",
            "Alarms raised and not cleared",
            alarms.clone(),
        );
        let blob_bytes = Gauge::default();
        registry.register(
            "trireme_blob_bytes",
            "Bytes of blob chunks in memory",
            blob_bytes.clone(),
        );
        let (stage_seconds, stage_count) = (Family::default(), Family::default());
        registry.register(
            "trireme_ring_stage_seconds",
            "Time that entries spent in each stage of the ring; stages that run side by side count each",
            stage_seconds.clone(),
        );
        registry.register(
            "trireme_ring_stage_operations",
            "Pieces of work in each stage of the ring",
            stage_count.clone(),
        );
        Self {
            registry,
            webhooks,
            jobs,
            records,
            applied,
            last_log,
            term,
            is_leader,
            office_changes,
            alarms,
            blob_bytes,
            stage_seconds,
            stage_count,
        }
    }

    pub(crate) fn webhook(&self, event: &str, code: u16) {
        let event = EVENTS
            .iter()
            .find(|known| **known == event)
            .unwrap_or(&"other");
        self.webhooks
            .get_or_create(&WebhookLabels {
                event_type: (*event).to_owned(),
                response_code: code,
            })
            .inc();
    }

    /// The whole registry in the OpenMetrics text format.
    ///
    /// # Errors
    /// When formatting fails.
    pub fn encode(&self, store: &Store) -> Result<String, fmt::Error> {
        let view = store.view();
        let status = store.status();
        self.applied.set(clamp(view.revision));
        self.last_log
            .set(clamp(status.last_log.unwrap_or_default()));
        self.term.set(clamp(status.term));
        self.is_leader
            .set(i64::from(store.leadership().borrow().is_me));
        self.office_changes.set(clamp(view.office().changes));
        self.alarms.set(clamp(view.alarms().count() as u64));
        for state in [
            JobState::Scheduling,
            JobState::Triggered,
            JobState::Pending,
            JobState::Success,
            JobState::Failure,
            JobState::Aborted,
            JobState::Error,
        ] {
            let name = state
                .as_str_name()
                .trim_start_matches("JOB_STATE_")
                .to_lowercase();
            self.jobs
                .get_or_create(&StateLabels { state: name })
                .set(i64::from(view.state_count(state)));
        }
        let counts = view.counts();
        for (kind, count) in [
            ("job", counts.jobs),
            ("live_job", counts.live_jobs),
            ("report", counts.reports),
            ("report_owed", counts.reports_owed),
            ("delivery", counts.deliveries),
            ("open_delivery", counts.open_deliveries),
            ("seen_delivery", counts.seen_deliveries),
            ("plan", counts.plans),
            ("pull_request", counts.pull_requests),
            ("pool", counts.pools),
            ("intent", counts.intents),
            ("open_intent", counts.open_intents),
            ("config", counts.configs),
            ("blob", counts.blobs),
            ("agent", counts.agents),
            ("remembered_request", counts.remembered_requests),
            ("dead_letter", counts.dead_letters),
        ] {
            self.records
                .get_or_create(&KindLabels { kind })
                .set(clamp(count as u64));
        }
        self.blob_bytes.set(clamp(counts.blob_bytes));
        for (stage, cost) in store.costs() {
            let labels = StageLabels {
                stage: stage.name(),
            };
            let seconds = self.stage_seconds.get_or_create(&labels);
            let bits = cost.time.as_secs_f64().to_bits();
            seconds.inner().store(bits, Ordering::Relaxed);
            let count = self.stage_count.get_or_create(&labels);
            count.inner().store(cost.count, Ordering::Relaxed);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
