//! What a node tells Prometheus.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tonic::Code;
use trireme_proto::state::JobState;
use trireme_raft::{Store, tls::TlsHealth};

use crate::DoorCertificates;

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
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
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
    refused: Family<ReasonLabels, Counter>,
    expires: Family<ListenerLabels, Gauge>,
    reloads: Family<ListenerLabels, Gauge>,
    failed_reloads: Family<ListenerLabels, Gauge>,
    refused_connections: Family<ListenerLabels, Gauge>,
    refused_peer_calls: Gauge,
    door: Option<DoorCertificates>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Metrics {
    #[must_use]
    pub fn new(door: Option<DoorCertificates>) -> Self {
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
        let (refused, refused_peer_calls) = (Family::default(), Gauge::default());
        registry.register(
            "trireme_auth_refused",
            "Calls at the client door refused, by reason",
            refused.clone(),
        );
        registry.register(
            "trireme_peer_calls_refused",
            "Calls at the peer listener refused by whose they were, since the start",
            refused_peer_calls.clone(),
        );
        let (expires, reloads) = (Family::default(), Family::default());
        let (failed_reloads, refused_connections) = (Family::default(), Family::default());
        registry.register(
            "trireme_certificate_expiry_seconds",
            "When the certificate in use ends, in seconds since the Unix epoch",
            expires.clone(),
        );
        registry.register(
            "trireme_certificate_reloads",
            "Changed certificate files that were taken, since the start",
            reloads.clone(),
        );
        registry.register(
            "trireme_certificate_reload_failures",
            "Changed certificate files that were unusable, since the start; the former stay in use",
            failed_reloads.clone(),
        );
        registry.register(
            "trireme_tls_refused_connections",
            "Connections that did not get through their handshake, since the start",
            refused_connections.clone(),
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
            refused,
            expires,
            reloads,
            failed_reloads,
            refused_connections,
            refused_peer_calls,
            door,
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

    /// Somebody was not let in.
    pub(crate) fn refused(&self, code: Code) {
        let reason = match code {
            Code::PermissionDenied => "permission_denied",
            _ => "unauthenticated",
        };
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    fn set_tls(&self, listener: &'static str, health: TlsHealth) {
        let labels = ListenerLabels { listener };
        self.expires.get_or_create(&labels).set(health.expires);
        self.reloads
            .get_or_create(&labels)
            .set(clamp(health.reloads));
        self.failed_reloads
            .get_or_create(&labels)
            .set(clamp(health.failed_reloads));
        self.refused_connections
            .get_or_create(&labels)
            .set(clamp(health.refused));
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
        if let Some(health) = status.peer_tls {
            self.set_tls("peer", health);
        }
        if let Some(door) = &self.door {
            self.set_tls("door", door.health());
        }
        self.refused_peer_calls
            .set(clamp(status.peer_calls_refused));
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
            ("token", counts.tokens),
            ("remembered_request", counts.remembered_requests),
            ("dead_letter", counts.dead_letters),
        ] {
            self.records
                .get_or_create(&KindLabels { kind })
                .set(clamp(count as u64));
        }
        self.blob_bytes.set(clamp(counts.blob_bytes));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
