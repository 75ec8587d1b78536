//! The configuration as a whole, after defaulting: what every other part of the system looks things up in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::gerrit;
use crate::job::expressions::Expressions;
use crate::job::{AnyJob, Periodic, Postsubmit, Preset, Presubmit};
use crate::prow::ProwConfig;
use crate::tide::ContextPolicy;

/// Jobs of one kind and repository. Each of them, and a list in which nothing changed, is shared by the configurations that
/// have it.
pub type JobList<J> = Arc<Vec<Arc<J>>>;

object! {
    /// The jobs of a file, or of all of them.
    pub struct JobConfig {
        [omit "presets"] presets: Vec<Preset>,
        /// By `org/repo`.
        [omit "presubmits"] presubmits: BTreeMap<String, JobList<Presubmit>>,
        /// By `org/repo`.
        [omit "postsubmits"] postsubmits: BTreeMap<String, JobList<Postsubmit>>,
        [omit "periodics"] periodics: Vec<Arc<Periodic>>,
        /// Repositories with jobs or in a Tide query.
        [derived] all_repos: BTreeSet<String>,
        /// Names of the buckets that some job or default uploads to (CFG-101).
        [derived] known_buckets: BTreeSet<String>,
        [omit "decorate_all_jobs"] decorate_all_jobs: bool,
        /// Anything people like to keep beside their jobs.
        [omit "prow_ignored"] prow_ignored: Option<Value>,
    }
}

object! {
    /// A configuration; immutable once loaded. Jobs that stay the same from one version to the next are shared.
    pub struct Config {
        [embed] jobs: JobConfig,
        [embed] prow: Arc<ProwConfig>,
    }
}

impl JobConfig {
    /// Numbers of presubmits, postsubmits and periodics.
    fn counts(&self) -> (usize, usize, usize) {
        (
            self.presubmits.values().map(|jobs| jobs.len()).sum(),
            self.postsubmits.values().map(|jobs| jobs.len()).sum(),
            self.periodics.len(),
        )
    }

    /// All jobs with the repository under which they stand; none for periodics.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Option<&str>, AnyJob<'_>)> {
        let presubmits = self.presubmits.iter();
        let presubmits = presubmits
            .flat_map(|(repo, jobs)| jobs.iter().map(move |j| (repo, AnyJob::Presubmit(j))));
        let postsubmits = self.postsubmits.iter();
        let postsubmits = postsubmits
            .flat_map(|(repo, jobs)| jobs.iter().map(move |j| (repo, AnyJob::Postsubmit(j))));
        let periodics = self.periodics.iter().map(|j| (None, AnyJob::Periodic(j)));
        presubmits
            .chain(postsubmits)
            .map(|(repo, job)| (Some(repo.as_str()), job))
            .chain(periodics)
    }

    /// Jobs of all kinds.
    pub(crate) fn count(&self) -> usize {
        let (presubmits, postsubmits, periodics) = self.counts();
        presubmits + postsubmits + periodics
    }
}

impl Config {
    /// The presubmits of a repository that stand in the configuration itself. Gerrit repositories may be written
    /// with or without scheme.
    pub fn presubmits(&self, repo: &str) -> impl Iterator<Item = &Presubmit> {
        spellings(repo)
            .into_iter()
            .filter_map(|key| self.jobs.presubmits.get(key))
            .flat_map(|jobs| jobs.iter())
            .map(Arc::as_ref)
    }

    /// The postsubmits of a repository that stand in the configuration itself.
    pub fn postsubmits(&self, repo: &str) -> impl Iterator<Item = &Postsubmit> {
        spellings(repo)
            .into_iter()
            .filter_map(|key| self.jobs.postsubmits.get(key))
            .flat_map(|jobs| jobs.iter())
            .map(Arc::as_ref)
    }

    /// The periodic of a name.
    #[must_use]
    pub fn periodic(&self, name: &str) -> Option<&Periodic> {
        let mut periodics = self.jobs.periodics.iter();
        periodics.find(|job| job.base.name == name).map(Arc::as_ref)
    }

    /// CFG-049: whether pages may show files of a bucket.
    #[must_use]
    pub fn allows_bucket(&self, bucket: &str) -> bool {
        let deck = &self.prow.deck;
        if deck.skip_storage_path_validation.unwrap_or(true) {
            return true;
        }
        let aliases = &deck.spyglass.bucket_aliases;
        let bucket = aliases.get(bucket).map_or(bucket, String::as_str);
        self.jobs.known_buckets.contains(bucket)
    }

    /// All jobs with the repository under which they stand; none for periodics.
    pub fn all_jobs(&self) -> impl Iterator<Item = (Option<&str>, AnyJob<'_>)> {
        self.jobs.all()
    }

    /// Numbers of presubmits, postsubmits and periodics.
    #[must_use]
    pub fn job_counts(&self) -> (usize, usize, usize) {
        self.jobs.counts()
    }

    /// Bytes that the expressions of all jobs take once all of them are compiled; an estimate, rather too high.
    #[must_use]
    pub fn bytes_of_expressions(&self) -> u64 {
        let mut all = Expressions::default();
        // What is too much was refused when this was loaded.
        let _ = self.all_jobs().try_for_each(|(_, job)| all.add(job));
        all.bytes()
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
