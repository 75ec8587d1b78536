//! What the controller tells Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is done to a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Trigger,
    Retire,
    Migrate,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Planned,
    Applied,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    action: &'static str,
    outcome: &'static str,
}

/// Counters of changes. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    changes: Family<Labels, Counter>,
    failures: Counter,
    behind: Gauge,
    version: Gauge,
}

impl Metrics {
    /// Makes them part of what a node tells.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "trireme_status_reconciler_changes",
            "Runs started, contexts retired and contexts moved; planned ones of a dry run too",
            self.changes.clone(),
        );
        registry.register(
            "trireme_status_reconciler_failures",
            "Passes over a repository's pull requests that failed and are tried again",
            self.failures.clone(),
        );
        registry.register(
            "trireme_status_reconciler_repositories_behind",
            "Repositories whose pull requests are not yet in line with the configuration",
            self.behind.clone(),
        );
        registry.register(
            "trireme_status_reconciler_config_version",
            "The version of the configuration that was compared last",
            self.version.clone(),
        );
    }

    pub(super) fn count(&self, action: Action, outcome: Outcome, changes: usize) {
        let labels = Labels {
            action: match action {
                Action::Trigger => "trigger",
                Action::Retire => "retire",
                Action::Migrate => "migrate",
            },
            outcome: match outcome {
                Outcome::Planned => "planned",
                Outcome::Applied => "applied",
            },
        };
        self.changes
            .get_or_create(&labels)
            .inc_by(u64::try_from(changes).unwrap_or(u64::MAX));
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn stands(&self, behind: usize, version: u64) {
        self.behind.set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
    }
}
