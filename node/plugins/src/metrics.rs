//! What plugins tell Prometheus, under Prow's names (HOOK-018).

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use trireme_proto::state::Delivery;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    event_type: String,
    /// `none` for events without one (push, status).
    action: String,
    plugin: String,
    /// Whether the plugin decided to do something.
    took_action: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConfigMap {
    name: String,
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Forwarded {
    plugin: String,
    result: String,
}

type Times = Family<Labels, Histogram, fn() -> Histogram>;

/// Prow's buckets.
const SECONDS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0,
    640.0,
];

/// Clones share them.
#[derive(Clone)]
pub struct PluginMetrics {
    durations: Times,
    /// A gauge that only grows: the library ends a counter's name in `_total`, and Prow's does not.
    errors: Family<Labels, Gauge>,
    forwarded: Family<Forwarded, Counter>,
    config_maps: Family<ConfigMap, Gauge>,
}

impl fmt::Debug for PluginMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginMetrics").finish_non_exhaustive()
    }
}

impl Default for PluginMetrics {
    fn default() -> Self {
        Self {
            durations: Times::new_with_constructor(|| Histogram::new(SECONDS)),
            errors: Family::default(),
            forwarded: Family::default(),
            config_maps: Family::default(),
        }
    }
}

impl PluginMetrics {
    /// Makes them part of what a node tells.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "prow_plugin_handle_duration_seconds",
            "How long a plugin took to decide about an event",
            self.durations.clone(),
        );
        registry.register(
            "prow_plugin_handle_errors",
            "Events that a plugin failed to decide about, each try counted",
            self.errors.clone(),
        );
        registry.register(
            "trireme_plugin_deliveries_forwarded",
            "Deliveries sent to plugins that run elsewhere, by what came of it",
            self.forwarded.clone(),
        );
        registry.register(
            "prow_configmap_size_bytes",
            "What the values of a ConfigMap took after config-updater wrote it",
            self.config_maps.clone(),
        );
    }

    pub(crate) fn decided(
        &self,
        delivery: &Delivery,
        plugin: &str,
        took_action: bool,
        took: Duration,
        failed: bool,
    ) {
        let labels = Labels {
            event_type: delivery.event.clone(),
            action: match delivery.action.as_str() {
                "" => "none".to_owned(),
                action => action.to_owned(),
            },
            plugin: plugin.to_owned(),
            took_action: took_action.to_string(),
        };
        self.durations
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
        if failed {
            self.errors.get_or_create(&labels).inc();
        }
    }

    pub(crate) fn config_map(&self, name: &str, namespace: &str, bytes: u64) {
        let labels = ConfigMap {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        };
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.config_maps.get_or_create(&labels).set(bytes);
    }

    pub(crate) fn forwarded(&self, plugin: &str, result: &str) {
        let labels = Forwarded {
            plugin: plugin.to_owned(),
            result: result.to_owned(),
        };
        self.forwarded.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HOOK-018: names, labels and buckets are Prow's.
    #[test]
    fn hook_018_plugins_are_timed_and_their_failures_counted() {
        let metrics = PluginMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let push = Delivery {
            event: "push".to_owned(),
            ..Delivery::default()
        };
        metrics.decided(&push, "trigger", true, Duration::from_millis(30), true);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let labels = r#"event_type="push",action="none",plugin="trigger",took_action="true""#;
        for told in [
            format!("prow_plugin_handle_errors{{{labels}}} 1\n"),
            format!("prow_plugin_handle_duration_seconds_count{{{labels}}} 1\n"),
            format!("prow_plugin_handle_duration_seconds_bucket{{le=\"0.025\",{labels}}} 0\n"),
            format!("prow_plugin_handle_duration_seconds_bucket{{le=\"0.05\",{labels}}} 1\n"),
            format!("prow_plugin_handle_duration_seconds_bucket{{le=\"640.0\",{labels}}} 1\n"),
        ] {
            assert!(text.contains(&told), "{told}: {text}");
        }
    }
}
