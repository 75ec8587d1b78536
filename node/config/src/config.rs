//! The configuration as a whole, after defaulting: what every other part of the system looks things up in.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::gerrit;
use crate::job::{AnyJob, Periodic, Postsubmit, Preset, Presubmit};
use crate::prow::ProwConfig;
use crate::tide::ContextPolicy;

object! {
    /// The jobs of a file, or of all of them.
    pub struct JobConfig {
        [omit "presets"] presets: Vec<Preset>,
        /// By `org/repo`.
        [omit "presubmits"] presubmits: BTreeMap<String, Vec<Presubmit>>,
        /// By `org/repo`.
        [omit "postsubmits"] postsubmits: BTreeMap<String, Vec<Postsubmit>>,
        [omit "periodics"] periodics: Vec<Periodic>,
        /// Repositories with jobs or in a Tide query.
        [derived] all_repos: BTreeSet<String>,
        [omit "decorate_all_jobs"] decorate_all_jobs: bool,
        /// Anything people like to keep beside their jobs.
        [omit "prow_ignored"] prow_ignored: Option<Value>,
    }
}

object! {
    /// A configuration; immutable once loaded.
    pub struct Config {
        [embed] jobs: JobConfig,
        [embed] prow: ProwConfig,
    }
}

impl Config {
    /// The presubmits of a repository that stand in the configuration itself. Gerrit repositories may be written
    /// with or without scheme.
    pub fn presubmits(&self, repo: &str) -> impl Iterator<Item = &Presubmit> {
        spellings(repo)
            .into_iter()
            .filter_map(|key| self.jobs.presubmits.get(key))
            .flatten()
    }

    /// The postsubmits of a repository that stand in the configuration itself.
    pub fn postsubmits(&self, repo: &str) -> impl Iterator<Item = &Postsubmit> {
        spellings(repo)
            .into_iter()
            .filter_map(|key| self.jobs.postsubmits.get(key))
            .flatten()
    }

    /// The periodic of a name.
    #[must_use]
    pub fn periodic(&self, name: &str) -> Option<&Periodic> {
        self.jobs.periodics.iter().find(|job| job.base.name == name)
    }

    /// All jobs with the repository under which they stand; none for periodics.
    pub fn all_jobs(&self) -> impl Iterator<Item = (Option<&str>, AnyJob<'_>)> {
        let presubmits = self.jobs.presubmits.iter();
        let presubmits = presubmits
            .flat_map(|(repo, jobs)| jobs.iter().map(move |j| (repo, AnyJob::Presubmit(j))));
        let postsubmits = self.jobs.postsubmits.iter();
        let postsubmits = postsubmits
            .flat_map(|(repo, jobs)| jobs.iter().map(move |j| (repo, AnyJob::Postsubmit(j))));
        let periodics = self
            .jobs
            .periodics
            .iter()
            .map(|j| (None, AnyJob::Periodic(j)));
        presubmits
            .chain(postsubmits)
            .map(|(repo, job)| (Some(repo.as_str()), job))
            .chain(periodics)
    }

    /// Numbers of presubmits, postsubmits and periodics.
    #[must_use]
    pub fn job_counts(&self) -> (usize, usize, usize) {
        let count = |jobs: usize, more: usize| jobs + more;
        (
            self.jobs.presubmits.values().map(Vec::len).fold(0, count),
            self.jobs.postsubmits.values().map(Vec::len).fold(0, count),
            self.jobs.periodics.len(),
        )
    }

    /// The context policy of a branch from the configuration alone; see [`ProwConfig::context_policy`] for branches with
    /// in-repo jobs.
    ///
    /// # Errors
    /// A context that is required and optional at once.
    pub fn context_policy(
        &self,
        org: &str,
        repo: &str,
        branch: &str,
    ) -> Result<ContextPolicy, String> {
        let presubmits: Vec<_> = self.presubmits(&format!("{org}/{repo}")).collect();
        self.prow.context_policy(org, repo, branch, &presubmits)
    }
}

fn spellings(repo: &str) -> Vec<&str> {
    if gerrit::is_gerrit_org(repo) {
        vec![repo, gerrit::trim_scheme(repo)]
    } else {
        vec![repo]
    }
}
