//! Settings for running jobs, and the layers of decoration defaults (CFG-060…067).

use std::collections::BTreeMap;

use trireme_prowjob::job_url::{JobUrlError, job_url};
use trireme_prowjob::{DecorationConfig, JobSpec, MetaDuration, ProwJob, ProwJobSpec};

use super::narrowest;
use crate::template::{Template, TemplateError};

object! {
    /// What every controller that runs jobs has.
    pub struct Controller {
        /// Go template on the ProwJob, for jobs that are not decorated.
        [omit "job_url_template"] job_url_template: String,
        /// Shorthand for the key `*` of the next one.
        [omit "report_template"] report_template: String,
        /// Go templates on the ProwJob, by `org/repo`, `org` or `*`.
        [omit "report_templates"] report_templates: Option<BTreeMap<String, String>>,
        /// 0 = no limit.
        [omit "max_concurrency"] max_concurrency: i64,
        [omit "max_goroutines"] max_goroutines: i64,
        [derived] job_url: Option<Template>,
        [derived] reports: BTreeMap<String, Template>,
    }
}

/// Why a job has no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobLinkError {
    #[error(transparent)]
    Storage(#[from] JobUrlError),
    #[error("error executing URL template: {0}")]
    Template(#[from] TemplateError),
}

impl Controller {
    /// The text below the results of a repository's jobs; none if nothing is configured for it.
    ///
    /// # Errors
    /// A template that does not fit the job.
    pub fn report_text(
        &self,
        org: &str,
        repo: &str,
        job: &ProwJob,
    ) -> Result<Option<String>, TemplateError> {
        narrowest(&self.reports, org, repo)
            .map(|template| template.for_job(job))
            .transpose()
    }

    /// The template for the comment about a repository's jobs; without a repository the general one.
    #[must_use]
    pub fn report_template_for(&self, org_repo: Option<(&str, &str)>) -> Option<&str> {
        let templates = self.report_templates.as_ref()?;
        match org_repo {
            Some((org, repo)) => narrowest(templates, org, repo),
            None => templates.get("*"),
        }
        .map(String::as_str)
    }
}

object! {
    pub struct Plank {
        [embed] controller: Controller,
        [omit "pod_pending_timeout"] pod_pending_timeout: Option<MetaDuration>,
        [omit "pod_running_timeout"] pod_running_timeout: Option<MetaDuration>,
        [omit "pod_unscheduled_timeout"] pod_unscheduled_timeout: Option<MetaDuration>,
        [omit "max_revivals"] max_revivals: Option<i64>,
        /// The entries in force, from whichever of the two forms below is used.
        [derived] decoration_defaults: Vec<DefaultDecorationEntry>,
        [omit "default_decoration_configs"] default_decoration_configs: BTreeMap<String, Option<DecorationConfig>>,
        [omit "default_decoration_config_entries"]
        default_decoration_config_entries: Vec<Option<DefaultDecorationEntry>>,
        /// By `org/repo`, `org` or `*`.
        [omit "job_url_prefix_config"] job_url_prefix_config: BTreeMap<String, String>,
        [omit "jobURLPrefixDisableAppendStorageProvider"] job_url_prefix_disable_append_storage_provider: bool,
        [omit "build_cluster_status_file"] build_cluster_status_file: String,
        /// Queue to limit: 0 blocks all, below 0 is no limit.
        [omit "job_queue_capacities"] job_queue_capacities: BTreeMap<String, i64>,
    }
}

object! {
    /// Decoration defaults for jobs of some repositories and clusters.
    pub struct DefaultDecorationEntry {
        [omit "repo"] repo: String,
        [omit "cluster"] cluster: String,
        [omit "config"] config: Option<DecorationConfig>,
    }
}

/// CFG-061: whether an entry for (repo, cluster) is meant for a job of (repo, cluster). No regexes.
#[must_use]
pub fn matches(entry_repo: &str, entry_cluster: &str, repo: &str, cluster: &str) -> bool {
    if !matches!(entry_cluster, "" | "*") && entry_cluster != cluster {
        return false;
    }
    if matches!(entry_repo, "" | "*") || entry_repo == repo {
        return true;
    }
    let repo = crate::gerrit::code_url(repo);
    let repo = repo.strip_prefix("https://").unwrap_or(&repo);
    let repo = repo.strip_prefix("http://").unwrap_or(repo);
    entry_repo == repo || Some(entry_repo) == repo.split('/').next()
}

impl Plank {
    /// CFG-060: either form of the defaults as entries, from general to narrow.
    ///
    /// # Errors
    /// When both forms are used.
    pub(crate) fn finalize_decoration_defaults(&mut self) -> Result<(), String> {
        let (map, entries) = (
            &self.default_decoration_configs,
            &self.default_decoration_config_entries,
        );
        if !map.is_empty() && !entries.is_empty() {
            return Err("plank.default_decoration_configs and plank.default_decoration_config_entries are mutually \
                        exclusive, please use one or the other"
                .to_owned());
        }
        if map.is_empty() {
            self.decoration_defaults = entries.iter().flatten().cloned().collect();
            return Ok(());
        }
        let rank = |key: &str| {
            if key == "*" {
                0
            } else {
                1 + usize::from(key.contains('/'))
            }
        };
        let mut keyed: Vec<_> = map.iter().collect();
        keyed.sort_by_key(|(key, _)| rank(key));
        self.decoration_defaults = keyed
            .into_iter()
            .map(|(repo, config)| DefaultDecorationEntry {
                repo: repo.clone(),
                cluster: String::new(),
                config: config.clone(),
            })
            .collect();
        Ok(())
    }

    /// CFG-063: all matching entries in their order, the job's own settings over all.
    #[must_use]
    pub fn decoration_for(
        &self,
        repo: &str,
        cluster: &str,
        own: Option<&DecorationConfig>,
    ) -> DecorationConfig {
        let mut merged: Option<DecorationConfig> = None;
        for entry in &self.decoration_defaults {
            if matches(&entry.repo, &entry.cluster, repo, cluster) {
                merged = DecorationConfig::apply_default(entry.config.as_ref(), merged.as_ref());
            }
        }
        DecorationConfig::apply_default(own, merged.as_ref()).unwrap_or_default()
    }

    /// The link to a job's page (JOB-065): below the prefix if it is decorated and there is one, else by the template.
    ///
    /// # Errors
    /// A prefix or bucket that is no URL, or a template that does not fit the job; Prow then uses no link.
    pub fn job_link(&self, job: &ProwJob) -> Result<String, JobLinkError> {
        let prefix = self.job_url_prefix(&job.spec);
        if let Some(decoration) = &job.spec.decoration_config
            && !prefix.is_empty()
        {
            let gcs = decoration.gcs_configuration.clone().unwrap_or_default();
            let spec = JobSpec::new(&job.spec, &job.status.build_id, &job.metadata.name);
            return Ok(job_url(
                prefix,
                self.job_url_prefix_disable_append_storage_provider,
                &gcs,
                &spec,
            )?);
        }
        Ok(self
            .controller
            .job_url
            .as_ref()
            .map(|template| template.for_job(job))
            .transpose()?
            .unwrap_or_default())
    }

    /// The prefix of a job's page (JOB-065), empty if there is none.
    #[must_use]
    pub fn job_url_prefix<'a>(&'a self, spec: &'a ProwJobSpec) -> &'a str {
        let own = spec
            .decoration_config
            .as_ref()
            .and_then(|d| d.gcs_configuration.as_ref());
        if let Some(own) = own
            && !own.job_url_prefix.is_empty()
        {
            return &own.job_url_prefix;
        }
        let prefixes = &self.job_url_prefix_config;
        let get = |key: &str| prefixes.get(key).map(String::as_str).unwrap_or_default();
        let refs = spec.refs.as_ref().or(spec.extra_refs.first());
        let Some(refs) = refs.filter(|refs| !refs.org.is_empty()) else {
            return get("*");
        };
        let keys = [format!("{}/{}", refs.org, refs.repo), refs.org.clone()];
        keys.iter()
            .map(|key| get(key))
            .find(|prefix| !prefix.is_empty())
            .unwrap_or_else(|| get("*"))
    }
}
