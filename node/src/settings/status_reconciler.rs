//! `[status_reconciler]`: contexts of jobs that are no more.

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use trireme_admin::status_reconciler::Options;

/// Prow's `status-reconciler`; the keys are its flags (ADM-102). Its `--status-path` is the cluster itself.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusReconcilerSettings {
    /// Only log and count what would be done (ADM-001).
    pub dry_run: bool,
    pub continue_on_error: bool,
    /// `org` or `org/repo`.
    pub denylist: Vec<String>,
    /// `org` or `org/repo`.
    pub denylist_all: Vec<String>,
}

impl Default for StatusReconcilerSettings {
    fn default() -> Self {
        let Options {
            dry_run,
            continue_on_error,
            denylist,
            denylist_all,
        } = Options::default();
        Self {
            dry_run,
            continue_on_error,
            denylist,
            denylist_all,
        }
    }
}

impl StatusReconcilerSettings {
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            dry_run: self.dry_run,
            continue_on_error: self.continue_on_error,
            denylist: self.denylist.clone(),
            denylist_all: self.denylist_all.clone(),
        }
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        for (key, list) in [
            ("denylist", &self.denylist),
            ("denylist_all", &self.denylist_all),
        ] {
            for name in list {
                let parts: Vec<&str> = name.split('/').collect();
                ensure!(
                    parts.len() <= 2 && parts.iter().all(|part| !part.trim().is_empty()),
                    "status_reconciler.{key}: {name:?} names nothing; write an org, or a repository as \"org/repo\""
                );
            }
        }
        Ok(())
    }
}
