//! What a door asks before it lets a configuration in.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use trireme_api::{Candidate, Checked, ConfigCheck, Retired};
use trireme_config::{Config, Diagnostic, changes};
use trireme_office::{ConfigFeed, RunningConfig};
use trireme_proto::{
    api,
    state::{Job, JobType},
};
use trireme_prowjob::ProwJob;
use trireme_state::State;

use super::{Versions, admission};

/// The largest number of findings a check answers with.
const MAX_DIAGNOSTICS: usize = 1000;

/// Checks candidates as controllers will read them.
pub struct Check {
    versions: Arc<Versions>,
    /// What is in force, parsed already.
    feed: ConfigFeed,
    /// One is checked after the other: each takes all processors, and a check whose asker has gone still ends.
    turn: Arc<Semaphore>,
    /// Whether the cluster of a job that somebody makes must be one that an agent serves.
    known_clusters: bool,
}

impl Check {
    #[must_use]
    pub fn new(versions: Arc<Versions>, feed: ConfigFeed, known_clusters: bool) -> Self {
        Self {
            versions,
            feed,
            turn: Arc::new(Semaphore::new(1)),
            known_clusters,
        }
    }
}

#[async_trait]
impl ConfigCheck for Check {
    async fn check(&self, candidate: Candidate) -> Checked {
        // Whoever goes away while it waits leaves nothing behind.
        let turn = match Arc::clone(&self.turn).acquire_owned().await {
            Ok(turn) => turn,
            Err(why) => return failed(format!("the check itself failed: {why}")),
        };
        let versions = Arc::clone(&self.versions);
        let running = self.feed.borrow().clone();
        // A large configuration takes seconds; other requests go on meanwhile.
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let in_force = candidate.view.config().map(|version| {
                let parsed = running.filter(|running| running.version == version.number);
                match parsed {
                    Some(running) => Ok(Arc::clone(&running.config)),
                    None => in_force(&candidate, &versions),
                }
            });
            check(&candidate, &versions, in_force)
        })
        .await;
        checked.unwrap_or_else(|why| failed(format!("the check itself failed: {why}")))
    }

    fn admit(&self, job: &mut ProwJob, state: &State) -> Result<(), String> {
        let running = self.feed.borrow().clone();
        let config = running.as_ref().map(|running| &*running.config);
        let served = || {
            let clusters = state.agents().flat_map(|agent| &agent.clusters);
            clusters.map(String::as_str).collect()
        };
        let served: Option<BTreeSet<&str>> = self.known_clusters.then(served);
        admission::admit(config, served.as_ref(), job)
    }

    fn gone(&self, job: &Job) -> Option<String> {
        let running = self.feed.borrow().clone();
        running.and_then(|running| gone(&running, job))
    }
}

/// Why a run may not be repeated: nothing configures its job any more. What stands in repositories themselves is not known
/// here, and not refused.
fn gone(running: &RunningConfig, job: &Job) -> Option<String> {
    let config = &running.config;
    let repo = format!("{}/{}", job.org, job.repo);
    let (there, of) = match job.r#type() {
        JobType::Periodic => (config.periodic(&job.job).is_some(), String::new()),
        _ if config.prow.in_repo_config_enabled(&repo) => return None,
        JobType::Postsubmit => {
            let mut jobs = config.postsubmits(&repo);
            let there = jobs.any(|known| known.base.name == job.job);
            (there, format!(" of {repo}"))
        }
        JobType::Presubmit | JobType::Batch => {
            let mut jobs = config.presubmits(&repo);
            let there = jobs.any(|known| known.base.name == job.job);
            (there, format!(" of {repo}"))
        }
        JobType::Unspecified => return None,
    };
    (!there).then(|| {
        format!(
            "{}{of} is not configured any more (version {}), so it is not run again; `trireme config history` tells who changed it",
            job.job, running.version
        )
    })
}

fn failed(message: String) -> Checked {
    Checked {
        accepted: false,
        diagnostics: vec![diagnostic("error", message)],
        ..Checked::default()
    }
}

fn diagnostic(severity: &str, message: String) -> api::Diagnostic {
    api::Diagnostic {
        severity: severity.to_owned(),
        message,
        ..api::Diagnostic::default()
    }
}

/// For a node that has not parsed it yet.
fn in_force(candidate: &Candidate, versions: &Versions) -> anyhow::Result<Arc<Config>> {
    let version = candidate
        .view
        .config()
        .ok_or_else(|| anyhow::anyhow!("there is none"))?;
    let files = candidate
        .view
        .config_files(version)
        .ok_or_else(|| anyhow::anyhow!("it misses a page"))?;
    let loaded = versions.load(&candidate.view, &files)?;
    let (config, _) = loaded
        .accepted()
        .map_err(|errors| anyhow::anyhow!("it has {} errors", errors.len()))?;
    Ok(config)
}

fn check(
    candidate: &Candidate,
    versions: &Versions,
    in_force: Option<anyhow::Result<Arc<Config>>>,
) -> Checked {
    let loaded = match versions.load(&candidate.view, &candidate.files) {
        Ok(loaded) => loaded,
        Err(why) => return failed(format!("{why:#}")),
    };
    let diagnostics: Vec<_> = loaded
        .errors
        .iter()
        .chain(&loaded.warnings)
        .take(MAX_DIAGNOSTICS)
        .map(finding)
        .collect();
    let retired = in_force.map(|in_force| match in_force {
        Ok(config) => Ok(retired(&config, &loaded.config)),
        Err(why) => Err(format!("{why:#}")),
    });
    let (presubmits, postsubmits, periodics) = loaded.config.job_counts();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Checked {
        accepted: loaded.errors.is_empty(),
        presubmits: count(presubmits),
        postsubmits: count(postsubmits),
        periodics: count(periodics),
        diagnostics,
        // What is not whole would seem to retire the rest.
        retired: retired.filter(|_| loaded.errors.is_empty()),
    }
}

fn retired(before: &Config, after: &Config) -> Retired {
    let found = changes::retired(before, after);
    let context = |(repo, context): &(String, String)| format!("{repo}: {context}");
    Retired {
        contexts: found.contexts.iter().map(context).collect(),
        contexts_before: found.contexts_before,
        jobs: found.jobs.iter().map(ToString::to_string).collect(),
        jobs_before: found.jobs_before,
    }
}

fn finding(found: &Diagnostic) -> api::Diagnostic {
    api::Diagnostic {
        severity: match found.severity {
            trireme_config::Severity::Error => "error".to_owned(),
            trireme_config::Severity::Warning => "warning".to_owned(),
            trireme_config::Severity::Note => "note".to_owned(),
        },
        file: found.file.clone(),
        line: found.line,
        column: found.column,
        field: found.field.clone(),
        message: found.advice(),
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::ConfigFile;

    use super::*;
    use crate::{configuration::testing::alone, serve::registry};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_in_force_that_cannot_be_read_is_not_like_none() {
        let store = alone().await;
        let (name, chunks) = trireme_api::blob::chunks(b"prowjob_namespace: first\n").unwrap();
        for chunk in chunks {
            let command = trireme_proto::state::Command {
                body: Some(trireme_proto::state::command::Body::PutBlobChunk(chunk)),
                ..Default::default()
            };
            store.propose(command).await.unwrap();
        }
        let candidate = Candidate {
            files: vec![ConfigFile {
                role: "main".to_owned(),
                path: "config.yaml".to_owned(),
                blob: Some(name),
            }],
            view: store.view(),
        };
        let versions = Versions::new(Arc::new(registry()));
        let none = check(&candidate, &versions, None);
        assert!(none.accepted && none.retired.is_none());
        let unread = check(&candidate, &versions, Some(Err(anyhow::anyhow!("no page"))));
        assert_eq!(unread.retired, Some(Err("no page".to_owned())));
        store.shutdown().await;
    }
}
