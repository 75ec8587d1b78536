//! The configuration of this node, in numbers (CFG-095).

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::clamp;
use crate::{Load, config_health::ConfigState};

/// Characters of an error that become a label.
const MAX_LABEL: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    config_version_sha: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    /// `version`: what the cluster committed, parsed here. `directory`: what this node follows for the cluster.
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    source: &'static str,
    error: String,
}

pub(super) struct Config {
    version: Gauge,
    info: Family<VersionLabels, Gauge>,
    good: Family<SourceLabels, Gauge>,
    at: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    took: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    good_at: Family<SourceLabels, Gauge<f64, AtomicU64>>,
    failures: Family<SourceLabels, Gauge>,
    error: Family<ErrorLabels, Gauge>,
}

impl Config {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self {
            version: Gauge::default(),
            info: Family::default(),
            good: Family::default(),
            at: Family::default(),
            took: Family::default(),
            good_at: Family::default(),
            failures: Family::default(),
            error: Family::default(),
        };
        registry.register(
            "trireme_config_version",
            "Configuration version that this node plans with; 0 = none yet",
            new.version.clone(),
        );
        registry.register(
            "trireme_config_info",
            "1 for the config_version_sha of that version",
            new.info.clone(),
        );
        registry.register(
            "trireme_config_load_good",
            "1 if the last load of the configuration was good, 0 if the former one stays in force; by where it comes from",
            new.good.clone(),
        );
        registry.register(
            "trireme_config_load_timestamp_seconds",
            "When it ended, in seconds since the Unix epoch",
            new.at.clone(),
        );
        registry.register(
            "trireme_config_load_duration_seconds",
            "How long it took",
            new.took.clone(),
        );
        registry.register(
            "trireme_config_load_last_good_timestamp_seconds",
            "When one was good last, in seconds since the Unix epoch; 0 = never since the node started",
            new.good_at.clone(),
        );
        registry.register(
            "trireme_config_load_failures",
            "Loads that failed since the node started",
            new.failures.clone(),
        );
        registry.register(
            "trireme_config_load_error",
            "1 for the beginning of what was wrong with it",
            new.error.clone(),
        );
        new
    }

    pub(super) fn set(&self, state: &ConfigState) {
        self.version.set(clamp(state.version));
        self.info.clear();
        if state.version > 0 {
            let labels = VersionLabels {
                config_version_sha: state.version_sha.trim().chars().take(MAX_LABEL).collect(),
            };
            self.info.get_or_create(&labels).set(1);
        }
        self.good.clear();
        self.at.clear();
        self.took.clear();
        self.good_at.clear();
        self.failures.clear();
        self.error.clear();
        self.load("version", state.parsed.as_ref());
        self.load("directory", state.followed.as_ref());
    }

    fn load(&self, source: &'static str, load: Option<&Load>) {
        let Some(load) = load else { return };
        let labels = SourceLabels { source };
        let good = self.good.get_or_create(&labels);
        good.set(i64::from(load.error.is_none()));
        let at = self.at.get_or_create(&labels);
        at.set(load.at_ms as f64 / 1000.0);
        let took = self.took.get_or_create(&labels);
        took.set(load.took.as_secs_f64());
        let good_at = self.good_at.get_or_create(&labels);
        good_at.set(load.good_ms as f64 / 1000.0);
        self.failures
            .get_or_create(&labels)
            .set(clamp(load.failures));
        if let Some(error) = &load.error {
            let labels = ErrorLabels {
                source,
                error: error.chars().take(MAX_LABEL).collect(),
            };
            self.error.get_or_create(&labels).set(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::ConfigHealth;

    /// CFG-095, HOOK-052
    #[test]
    fn cfg_095_result_duration_version_and_last_error_are_metrics() {
        let mut registry = Registry::default();
        let metrics = Config::new(&mut registry);
        let health = ConfigHealth::default();
        let scrape = || {
            metrics.set(&health.get());
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        assert!(!scrape().contains("source="), "nothing was loaded yet");
        health.in_force(4, "v4\n", Duration::from_millis(1500));
        health.followed(Some("jobs.yaml:4:17: bad"), Duration::from_millis(20));
        let text = scrape();
        for line in [
            "trireme_config_version 4",
            "trireme_config_info{config_version_sha=\"v4\"} 1",
            "trireme_config_load_good{source=\"version\"} 1",
            "trireme_config_load_good{source=\"directory\"} 0",
            "trireme_config_load_duration_seconds{source=\"version\"} 1.5",
            "trireme_config_load_last_good_timestamp_seconds{source=\"directory\"} 0.0",
            "trireme_config_load_failures{source=\"directory\"} 1",
            "trireme_config_load_failures{source=\"version\"} 0",
            "trireme_config_load_error{source=\"directory\",error=\"jobs.yaml:4:17: bad\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        health.followed(None, Duration::ZERO);
        let text = scrape();
        assert!(text.contains("trireme_config_load_good{source=\"directory\"} 1\n"));
        assert!(!text.contains("trireme_config_load_error{"), "{text}");
    }
}
