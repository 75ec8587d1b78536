//! What the client tells Prometheus: under Prow's and ghproxy's names what those tell, under ours the rest.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::limits::Quota;

/// Seconds, as Prow counts them.
const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sent {
    host: String,
    plugin: String,
    api: &'static str,
    method: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Took {
    token_hash: String,
    path: String,
    status: String,
    user_agent: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cached {
    mode: &'static str,
    path: String,
    user_agent: String,
    token_hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    token_hash: String,
    api_version: &'static str,
    ratelimit_resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spender {
    token_hash: String,
    plugin: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failing {
    host: String,
    org: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Away {
    host: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    why: &'static str,
}

/// How the cache answered; ghproxy's words, and two of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheMode {
    /// It could not have changed: nothing was asked.
    Hit,
    /// Somebody was asking already.
    Coalesced,
    /// GitHub said that it is the same: free.
    Revalidated,
    /// GitHub said that it is not.
    Changed,
    Miss,
    /// GitHub was broken; an old answer stood in.
    Stale,
    /// An answer that cannot be kept.
    NoStore,
    /// No question, or none of a kind that is kept.
    Skip,
}

impl CacheMode {
    fn word(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Coalesced => "COALESCED",
            Self::Revalidated => "REVALIDATED",
            Self::Changed => "CHANGED",
            Self::Miss => "MISS",
            Self::Stale => "STALE",
            Self::NoStore => "NO-STORE",
            Self::Skip => "SKIP",
        }
    }
}

/// Who asks, for the labels of metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) host: &'a str,
    pub(super) plugin: &'a str,
    pub(super) agent: &'a str,
    /// The name of the budget; never a token or a hash of one.
    pub(super) budget: &'a str,
}

/// Counters, gauges and times of all clients that share it. Clones are the same.
#[derive(Clone)]
pub struct GitHubMetrics {
    sent: Family<Sent, Counter>,
    took: Family<Took, Histogram, fn() -> Histogram>,
    cached: Family<Cached, Counter>,
    cache_bytes: Gauge,
    remaining: Family<Resource, Gauge>,
    limit: Family<Resource, Gauge>,
    reset: Family<Resource, Gauge>,
    cost: Family<Spender, Counter>,
    failing: Family<Failing, Gauge>,
    waited: Family<Waited, Counter<f64, std::sync::atomic::AtomicU64>>,
    away: Family<Away, Gauge>,
}

impl fmt::Debug for GitHubMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitHubMetrics").finish_non_exhaustive()
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for GitHubMetrics {
    fn default() -> Self {
        Self {
            sent: Family::default(),
            took: Family::new_with_constructor(seconds),
            cached: Family::default(),
            cache_bytes: Gauge::default(),
            remaining: Family::default(),
            limit: Family::default(),
            reset: Family::default(),
            cost: Family::default(),
            failing: Family::default(),
            waited: Family::default(),
            away: Family::default(),
        }
    }
}

impl GitHubMetrics {
    /// Makes them part of what a node tells.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "trireme_github_requests",
            "Requests that left for GitHub, by plugin and status; 0: no answer came",
            self.sent.clone(),
        );
        registry.register(
            "github_request_duration",
            "Seconds until GitHub answered",
            self.took.clone(),
        );
        registry.register(
            "ghcache_responses",
            "How reads were answered: HIT and COALESCED without a request, REVALIDATED for free, STALE while GitHub was broken",
            self.cached.clone(),
        );
        registry.register(
            "trireme_github_cache_bytes",
            "Bytes of answers that are kept",
            self.cache_bytes.clone(),
        );
        for (name, help, gauge) in [
            (
                "github_token_usage",
                "What is left of the hour's requests; of points for GraphQL",
                &self.remaining,
            ),
            (
                "trireme_github_token_limit",
                "The hour's requests; points for GraphQL",
                &self.limit,
            ),
            (
                "github_token_reset",
                "Nanoseconds until the hour is over, when it was last told",
                &self.reset,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "trireme_github_graphql_cost",
            "Points that GraphQL queries cost, as GitHub tells it",
            self.cost.clone(),
        );
        registry.register(
            "trireme_github_org_failing",
            "1 for an organisation whose installation is missing, suspended or lacks a right",
            self.failing.clone(),
        );
        registry.register(
            "trireme_github_waited_seconds",
            "Seconds that requests waited for a throttle, a limit, a retry or a free slot",
            self.waited.clone(),
        );
        registry.register(
            "trireme_github_away",
            "1 while a GitHub does not answer and is only probed",
            self.away.clone(),
        );
    }

    pub(super) fn sent(
        &self,
        asker: Asker<'_>,
        api: &'static str,
        method: &http::Method,
        path: &str,
        status: u16,
        took: Duration,
    ) {
        let status = status.to_string();
        let sent = Sent {
            host: asker.host.to_owned(),
            plugin: asker.plugin.to_owned(),
            api,
            method: method.to_string(),
            status: status.clone(),
        };
        self.sent.get_or_create(&sent).inc();
        let took_labels = Took {
            token_hash: asker.budget.to_owned(),
            path: super::freshness::simple(path),
            status,
            user_agent: asker.agent.to_owned(),
        };
        self.took
            .get_or_create(&took_labels)
            .observe(took.as_secs_f64());
    }

    pub(super) fn cached(&self, asker: Asker<'_>, path: &str, mode: CacheMode) {
        let labels = Cached {
            mode: mode.word(),
            path: super::freshness::simple(path),
            user_agent: asker.agent.to_owned(),
            token_hash: asker.budget.to_owned(),
        };
        self.cached.get_or_create(&labels).inc();
    }

    pub(super) fn cache_is(&self, bytes: usize) {
        self.cache_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn quota(&self, budget: &str, api: super::call::Api, quota: Quota, now: Timestamp) {
        let labels = Resource {
            token_hash: budget.to_owned(),
            api_version: api.version(),
            ratelimit_resource: api.resource(),
        };
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.remaining
            .get_or_create(&labels)
            .set(number(quota.remaining));
        self.limit.get_or_create(&labels).set(number(quota.limit));
        let left = quota.reset.duration_since(now);
        self.reset
            .get_or_create(&labels)
            .set(i64::try_from(left.as_nanos()).unwrap_or_default());
    }

    pub(super) fn cost(&self, asker: Asker<'_>, points: u64) {
        let labels = Spender {
            token_hash: asker.budget.to_owned(),
            plugin: asker.plugin.to_owned(),
        };
        self.cost.get_or_create(&labels).inc_by(points);
    }

    pub(super) fn failing(&self, host: &str, org: &str, reason: &'static str) {
        self.failing
            .get_or_create(&failing(host, org, reason))
            .set(1);
    }

    pub(super) fn works(&self, host: &str, org: &str, reason: &'static str) {
        self.failing.remove(&failing(host, org, reason));
    }

    pub(super) fn away(&self, host: &str, away: bool) {
        let host = host.to_owned();
        self.away.get_or_create(&Away { host }).set(away.into());
    }

    pub(super) fn waited(&self, why: &'static str, wait: Duration) {
        self.waited
            .get_or_create(&Waited { why })
            .inc_by(wait.as_secs_f64());
    }
}

fn failing(host: &str, org: &str, reason: &'static str) -> Failing {
    Failing {
        host: host.to_owned(),
        org: org.to_owned(),
        reason,
    }
}
