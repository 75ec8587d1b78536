//! What a node tells Prometheus.

mod cluster;
mod config;

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tonic::Code;
use trireme_proto::state::JobState;
use trireme_raft::{Status, Store, View, tls::TlsHealth};

use self::{cluster::Cluster, config::Config};
use crate::{ConfigHealth, DoorCertificates};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    response_code: u16,
}

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlarmLabels {
    /// What the key begins with: disk, quota, corruption, diverged, ...
    kind: String,
    key: String,
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
    // Gauges that only grow: the library ends a counter's name in _total, and these are asked for by Prow's names.
    webhooks_taken: Family<EventLabels, Gauge>,
    webhook_codes: Family<CodeLabels, Gauge>,
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
    health: Health,
    cluster: Cluster,
    config: Config,
    config_health: ConfigHealth,
    refused: Family<ReasonLabels, Counter>,
    expires: Family<ListenerLabels, Gauge>,
    reloads: Family<ListenerLabels, Gauge>,
    failed_reloads: Family<ListenerLabels, Gauge>,
    refused_connections: Family<ListenerLabels, Gauge>,
    refused_peer_calls: Gauge,
    door: Option<DoorCertificates>,
}

/// Room, bounds and alarms.
struct Health {
    record_limits: Family<KindLabels, Gauge>,
    queue_depth: Family<QueueLabels, Gauge>,
    queue_capacity: Family<QueueLabels, Gauge>,
    alarm: Family<AlarmLabels, Gauge>,
    disk_total: Gauge,
    disk_available: Gauge,
    disk_used: Gauge<f64, AtomicU64>,
    disk_refuses: Gauge,
    wal_segments: Gauge,
    snapshot: Gauge,
    purged: Gauge,
    audit: Gauge,
    audit_reports: Gauge,
    audit_diverged: Gauge,
}

impl Health {
    fn new(registry: &mut Registry) -> Self {
        let new = Self {
            record_limits: Family::default(),
            queue_depth: Family::default(),
            queue_capacity: Family::default(),
            alarm: Family::default(),
            disk_total: Gauge::default(),
            disk_available: Gauge::default(),
            disk_used: Gauge::default(),
            disk_refuses: Gauge::default(),
            wal_segments: Gauge::default(),
            snapshot: Gauge::default(),
            purged: Gauge::default(),
            audit: Gauge::default(),
            audit_reports: Gauge::default(),
            audit_diverged: Gauge::default(),
        };
        registry.register(
            "trireme_record_limit",
            "Bound of trireme_records by kind; at the bound new ones are refused",
            new.record_limits.clone(),
        );
        registry.register(
            "trireme_queue_depth",
            "What waits in a queue, or is taken of what there is a number of; bytes where the name says so",
            new.queue_depth.clone(),
        );
        registry.register(
            "trireme_queue_capacity",
            "Bound of trireme_queue_depth",
            new.queue_capacity.clone(),
        );
        registry.register(
            "trireme_alarm",
            "1 for each alarm that is raised",
            new.alarm.clone(),
        );
        for (name, help, gauge) in [
            (
                "trireme_disk_total_bytes",
                "Size of the data directory's file system, or its budget",
                &new.disk_total,
            ),
            (
                "trireme_disk_available_bytes",
                "What is left of it",
                &new.disk_available,
            ),
            (
                "trireme_disk_refuses",
                "1 on a leader that takes nothing new for want of room",
                &new.disk_refuses,
            ),
            (
                "trireme_wal_segments",
                "Segment files of the log",
                &new.wal_segments,
            ),
            (
                "trireme_raft_snapshot_index",
                "Log index of the newest snapshot",
                &new.snapshot,
            ),
            (
                "trireme_raft_purged_index",
                "Log index up to which the log is gone",
                &new.purged,
            ),
            (
                "trireme_audit_index",
                "Log index of the last comparison of all replicas that a majority has answered",
                &new.audit,
            ),
            (
                "trireme_audit_reports",
                "Nodes that answered in it",
                &new.audit_reports,
            ),
            (
                "trireme_audit_diverged",
                "Nodes that it found to differ from the majority",
                &new.audit_diverged,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "trireme_disk_used_ratio",
            "Share of the file system, or of the budget, that is used",
            new.disk_used.clone(),
        );
        new
    }

    fn set(&self, store: &Store, view: &View, status: &Status) {
        for queue in store.queue_depths() {
            let labels = QueueLabels { queue: queue.name };
            self.queue_depth
                .get_or_create(&labels)
                .set(clamp(queue.depth));
            self.queue_capacity
                .get_or_create(&labels)
                .set(clamp(queue.capacity));
        }
        self.alarm.clear();
        for alarm in view.alarms() {
            let kind = alarm.key.split('/').next().unwrap_or_default();
            let labels = AlarmLabels {
                kind: kind.to_owned(),
                key: alarm.key.clone(),
            };
            self.alarm.get_or_create(&labels).set(1);
        }
        if let Some(disk) = status.disk {
            self.disk_total.set(clamp(disk.total));
            self.disk_available.set(clamp(disk.available));
            self.disk_used.set(f64::from(disk.used_permille) / 1000.0);
        }
        self.disk_refuses.set(i64::from(status.refusal.is_some()));
        self.wal_segments.set(clamp(status.wal_segments as u64));
        self.snapshot
            .set(clamp(status.snapshot.unwrap_or_default()));
        self.purged.set(clamp(status.purged.unwrap_or_default()));
        let answered = view.audits().rev().find(|audit| !audit.agreed.is_empty());
        if let Some(audit) = answered {
            self.audit.set(clamp(audit.index));
            self.audit_reports.set(clamp(audit.reports.len() as u64));
            self.audit_diverged.set(clamp(audit.diverged.len() as u64));
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(None, ConfigHealth::default(), |_| ())
    }
}

impl Metrics {
    /// `more` adds what others have to tell.
    #[must_use]
    pub fn new(
        door: Option<DoorCertificates>,
        config_health: ConfigHealth,
        more: impl FnOnce(&mut Registry),
    ) -> Self {
        let mut registry = Registry::default();
        more(&mut registry);
        let webhooks = Family::default();
        let (webhooks_taken, webhook_codes) = (Family::default(), Family::default());
        registry.register(
            "prow_webhook_counter",
            "Webhooks taken, by event type",
            webhooks_taken.clone(),
        );
        registry.register(
            "prow_webhook_response_codes",
            "Webhooks by the code they were answered with",
            webhook_codes.clone(),
        );
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
        let health = Health::new(&mut registry);
        let cluster = Cluster::new(&mut registry);
        let config = Config::new(&mut registry);
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
            health,
            cluster,
            config,
            config_health,
            registry,
            webhooks,
            webhooks_taken,
            webhook_codes,
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
        let labels = CodeLabels {
            response_code: code,
        };
        self.webhook_codes.get_or_create(&labels).inc();
        if (200..300).contains(&code) {
            let event_type = (*event).to_owned();
            let labels = EventLabels { event_type };
            self.webhooks_taken.get_or_create(&labels).inc();
        }
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
        for quota in view.quotas() {
            let labels = KindLabels { kind: quota.kind };
            self.records.get_or_create(&labels).set(clamp(quota.used));
            self.health
                .record_limits
                .get_or_create(&labels)
                .set(clamp(quota.limit));
        }
        self.health.set(store, &view, &status);
        self.cluster.set(&view, &status);
        self.config.set(&self.config_health.get());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use regex::Regex;
    use serde_json::Value;
    use trireme_proto::state::{Alarm, Command, SetAlarm, command::Body};

    use super::*;
    use crate::{
        flow::Flow,
        trio::{Trio, eventually},
    };

    /// A scrape of a leader, in which every metric has a sample.
    async fn scrape() -> String {
        let trio = Trio::start().await;
        let store = trio.store(trio.leader_at(1).await);
        eventually("leader that knows the others", || {
            let status = store.status();
            let mut members = status.members.iter();
            let known =
                members.all(|member| member.answers == Some(true) && member.matched.is_some());
            (known && status.clock_skew_ms.is_some()).then_some(())
        })
        .await;
        let _flow = Flow::new(store.queues());
        let alarm = Body::SetAlarm(SetAlarm {
            alarm: Some(Alarm {
                key: "disk/node-1".to_owned(),
                ..Alarm::default()
            }),
            clear: false,
        });
        let command = Command {
            principal: "test".to_owned(),
            body: Some(alarm),
            ..Command::default()
        };
        store.propose(command).await.unwrap();
        let health = ConfigHealth::default();
        health.in_force(1, "sha", Duration::ZERO);
        health.followed(Some("broken"), Duration::ZERO);
        let metrics = Metrics::new(None, health, |_| ());
        metrics.webhook("ping", 503);
        metrics
            .refused
            .get_or_create(&ReasonLabels { reason: "no_token" })
            .inc();
        let door = ListenerLabels { listener: "door" };
        for of_tls in [
            &metrics.expires,
            &metrics.reloads,
            &metrics.failed_reloads,
            &metrics.refused_connections,
        ] {
            of_tls.get_or_create(&door).set(0);
        }
        metrics.encode(store).unwrap()
    }

    /// How many metrics the queries name; fails for one that no node has.
    fn named<'a>(scrape: &str, queries: impl IntoIterator<Item = &'a str>) -> usize {
        let sample = Regex::new(r"(?m)^([a-z_]+)[ {]").unwrap();
        let there: BTreeSet<&str> = sample
            .captures_iter(scrape)
            .filter_map(|found| Some(found.get(1)?.as_str()))
            .collect();
        let name = Regex::new(r"\b(?:trireme_|prow_|prowjobs)[a-z_]*").unwrap();
        let mut named = 0;
        for query in queries {
            for metric in name.find_iter(query) {
                named += 1;
                assert!(
                    there.contains(metric.as_str()),
                    "{} in {query}",
                    metric.as_str()
                );
            }
        }
        named
    }

    fn deployed(name: &str) -> String {
        let path = format!("{}/../deploy/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    /// HOOK-018: under Prow's names; what was refused is no delivery.
    #[tokio::test(flavor = "multi_thread")]
    async fn hook_018_webhooks_are_counted_by_event_and_by_code() {
        let store = crate::trio::alone(|_| ()).await;
        let metrics = Metrics::new(None, ConfigHealth::default(), |_| ());
        for (event, code) in [
            ("push", 200),
            ("push", 200),
            ("status", 403),
            ("made-up", 200),
        ] {
            metrics.webhook(event, code);
        }
        let text = metrics.encode(&store).unwrap();
        let mut told: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("prow_webhook_") && !line.contains("with_response"))
            .collect();
        told.sort_unstable();
        insta::assert_snapshot!(told.join("\n"), @r#"
        prow_webhook_counter{event_type="other"} 1
        prow_webhook_counter{event_type="push"} 2
        prow_webhook_response_codes{response_code="200"} 3
        prow_webhook_response_codes{response_code="403"} 1
        "#);
        store.shutdown().await;
    }

    /// A rule about a metric that no node has would never fire.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_metric_that_an_alert_names_is_there() {
        let text = scrape().await;
        let rules = deployed("alerts/trireme.rules.yaml");
        let exprs = rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expr: "));
        let named = named(&text, exprs);
        assert!(named >= 10, "{named}");
        assert!(
            text.contains("trireme_alarm{kind=\"disk\",key=\"disk/node-1\"} 1"),
            "{text}"
        );
        for queue in ["propose_bytes", "wal_bytes", "watchers", "webhook_bytes"] {
            assert!(
                text.contains(&format!("trireme_queue_depth{{queue=\"{queue}\"}}")),
                "{text}"
            );
        }
    }

    #[test]
    fn every_alert_that_the_readme_explains_is_there() {
        let (rules, readme) = (
            deployed("alerts/trireme.rules.yaml"),
            deployed("../README.md"),
        );
        let name = Regex::new("`(Trireme[A-Za-z]+)`").unwrap();
        let explained: Vec<&str> = name
            .captures_iter(&readme)
            .filter_map(|found| Some(found.get(1)?.as_str()))
            .collect();
        assert!(explained.len() >= 6, "{explained:?}");
        for alert in explained {
            assert!(rules.contains(&format!("- alert: {alert}\n")), "{alert}");
        }
    }

    fn strings<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        Value::String(text) if name == key => found.push(text),
                        field => strings(field, key, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| strings(item, key, found)),
            _ => {}
        }
    }

    /// A panel about a metric that no node has would stay empty, and nobody would know why.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_metric_that_the_dashboard_names_is_there() {
        let text = scrape().await;
        let dashboard: Value = serde_json::from_str(&deployed("dashboards/trireme.json")).unwrap();
        let mut exprs = Vec::new();
        strings(&dashboard, "expr", &mut exprs);
        assert!(exprs.iter().all(|expr| expr.contains("job=\"$job\"")));
        let named = named(&text, exprs);
        assert!(named >= 40, "{named}");

        let panels = dashboard["panels"].as_array().unwrap();
        let mut places = BTreeSet::new();
        for panel in panels {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for (x, y) in (at("x")..at("x") + at("w"))
                .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
            {
                assert!(
                    x < 24 && places.insert((x, y)),
                    "{} overlaps",
                    panel["title"]
                );
            }
        }
        // What is counted by label is asked for by labels that there are.
        for state in ["log_sync", "replicate", "publish"] {
            assert!(text.contains(&format!("{{stage=\"{state}\"}}")), "{state}");
        }
        for kind in ["open_delivery", "report_owed", "open_intent", "dead_letter"] {
            assert!(
                text.contains(&format!("trireme_records{{kind=\"{kind}\"}}")),
                "{kind}"
            );
        }
    }
}
