//! What the cache and the reading tell Prometheus, under Prow's names (CFG-084).

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use trireme_forge::RepoId;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    org: String,
    repo: String,
}

impl From<&RepoId> for Labels {
    fn from(repo: &RepoId) -> Self {
        Self {
            org: repo.org.clone(),
            repo: repo.repo.clone(),
        }
    }
}

type Times = Family<Labels, Histogram, fn() -> Histogram>;

/// Counters and times by org and repo. Clones share them.
#[derive(Clone)]
pub struct InRepoMetrics {
    lookups: Family<Labels, Counter>,
    hits: Family<Labels, Counter>,
    misses: Family<Labels, Counter>,
    evictions_forced: Family<Labels, Counter>,
    evictions_manual: Family<Labels, Counter>,
    size: Family<Labels, Gauge>,
    duration: Times,
    git_client: Times,
    git_other: Times,
}

impl fmt::Debug for InRepoMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InRepoMetrics").finish_non_exhaustive()
    }
}

/// What happens to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheEvent {
    Hit,
    Miss,
    /// It was put in.
    Kept,
    /// It had to go: there were too many, or it was too old.
    Evicted,
    /// It never came to be.
    Failed,
}

// Prow's buckets begin where a clone does; ours rarely takes as long.
const SECONDS: [f64; 18] = [
    0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0,
    300.0, 600.0,
];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

impl Default for InRepoMetrics {
    fn default() -> Self {
        let times = || Times::new_with_constructor(seconds);
        Self {
            lookups: Family::default(),
            hits: Family::default(),
            misses: Family::default(),
            evictions_forced: Family::default(),
            evictions_manual: Family::default(),
            size: Family::default(),
            duration: times(),
            git_client: times(),
            git_other: times(),
        }
    }
}

impl InRepoMetrics {
    /// Makes them part of what a node tells.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            (
                "inRepoConfigCache_lookups",
                "Lookups in the cache of in-repo configuration",
                &self.lookups,
            ),
            (
                "inRepoConfigCache_hits",
                "Lookups that found an entry, or somebody at work on it",
                &self.hits,
            ),
            (
                "inRepoConfigCache_misses",
                "Lookups that had to read the repository",
                &self.misses,
            ),
            (
                "inRepoConfigCache_evictions_forced",
                "Entries that had to make room",
                &self.evictions_forced,
            ),
            (
                "inRepoConfigCache_evictions_manual",
                "Entries that were not kept because reading failed",
                &self.evictions_manual,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "inRepoConfigCache_cache_usage_size",
            "Entries of the cache of in-repo configuration",
            self.size.clone(),
        );
        for (name, help, times) in [
            (
                "inRepoConfigCache_GetProwYAML_duration",
                "Seconds until in-repo configuration was there, from the cache or not",
                &self.duration,
            ),
            (
                "inrepoconfig_git_client_acquisition_duration",
                "Seconds of fetching commits, 0 if all were there",
                &self.git_client,
            ),
            (
                "inrepoconfig_git_other_duration",
                "Seconds of merging, reading and parsing",
                &self.git_other,
            ),
        ] {
            registry.register(name, help, times.clone());
        }
    }

    pub(crate) fn count(&self, repo: &RepoId, event: CacheEvent) {
        let labels = Labels::from(repo);
        let inc = |counter: &Family<Labels, Counter>| {
            counter.get_or_create(&labels).inc();
        };
        match event {
            CacheEvent::Hit => {
                inc(&self.lookups);
                inc(&self.hits);
            }
            CacheEvent::Miss => {
                inc(&self.lookups);
                inc(&self.misses);
            }
            CacheEvent::Kept => {
                self.size.get_or_create(&labels).inc();
            }
            CacheEvent::Evicted => {
                inc(&self.evictions_forced);
                self.size.get_or_create(&labels).dec();
            }
            CacheEvent::Failed => inc(&self.evictions_manual),
        }
    }

    pub(crate) fn took(&self, repo: &RepoId, time: Duration) {
        observe(&self.duration, repo, time);
    }

    pub(crate) fn fetched(&self, repo: &RepoId, time: Duration) {
        observe(&self.git_client, repo, time);
    }

    pub(crate) fn read(&self, repo: &RepoId, time: Duration) {
        observe(&self.git_other, repo, time);
    }
}

fn observe(times: &Times, repo: &RepoId, time: Duration) {
    times
        .get_or_create(&Labels::from(repo))
        .observe(time.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_084_the_names_are_prows() {
        let metrics = InRepoMetrics::default();
        let repo = RepoId::new("org", "repo");
        for event in [
            CacheEvent::Miss,
            CacheEvent::Kept,
            CacheEvent::Hit,
            CacheEvent::Miss,
            CacheEvent::Failed,
            CacheEvent::Miss,
            CacheEvent::Kept,
            CacheEvent::Evicted,
        ] {
            metrics.count(&repo, event);
        }
        metrics.fetched(&repo, Duration::from_millis(1));
        metrics.read(&repo, Duration::from_millis(2));
        metrics.took(&repo, Duration::from_millis(3));
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let told: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket"))
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        inRepoConfigCache_lookups_total{org="org",repo="repo"} 4
        inRepoConfigCache_hits_total{org="org",repo="repo"} 1
        inRepoConfigCache_misses_total{org="org",repo="repo"} 3
        inRepoConfigCache_evictions_forced_total{org="org",repo="repo"} 1
        inRepoConfigCache_evictions_manual_total{org="org",repo="repo"} 1
        inRepoConfigCache_cache_usage_size{org="org",repo="repo"} 1
        inRepoConfigCache_GetProwYAML_duration_sum{org="org",repo="repo"} 0.003
        inRepoConfigCache_GetProwYAML_duration_count{org="org",repo="repo"} 1
        inrepoconfig_git_client_acquisition_duration_sum{org="org",repo="repo"} 0.001
        inrepoconfig_git_client_acquisition_duration_count{org="org",repo="repo"} 1
        inrepoconfig_git_other_duration_sum{org="org",repo="repo"} 0.002
        inrepoconfig_git_other_duration_count{org="org",repo="repo"} 1
        "#);
    }
}
