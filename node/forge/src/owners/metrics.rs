//! What the reading of OWNERS tells Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::types::RepoId;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Branch {
    org: String,
    repo: String,
    branch: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    from: &'static str,
}

/// Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OwnersMetrics {
    loads: Family<From, Counter>,
    problems: Family<Branch, Gauge>,
}

impl OwnersMetrics {
    /// Makes them part of what a node tells.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "trireme_owners_loads",
            "Times that the owners of a tree were asked for, by where they came from: memory, or files that were parsed",
            self.loads.clone(),
        );
        registry.register(
            "trireme_owners_problems",
            "OWNERS and OWNERS_ALIASES files, and parts of them, that say nothing because they cannot be read",
            self.problems.clone(),
        );
    }

    pub(super) fn remembered(&self) {
        self.loads.get_or_create(&From { from: "memory" }).inc();
    }

    pub(super) fn read(&self) {
        self.loads.get_or_create(&From { from: "files" }).inc();
    }

    /// Branches without problems are not told.
    pub(super) fn problems(&self, repo: &RepoId, branch: &str, count: usize) {
        let branch = Branch {
            org: repo.org.clone(),
            repo: repo.repo.clone(),
            branch: branch.to_owned(),
        };
        if count == 0 {
            self.problems.remove(&branch);
        } else {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.problems.get_or_create(&branch).set(count);
        }
    }
}
