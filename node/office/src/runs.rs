//! Runs as they come to be recorded: what a record says besides its ProwJob follows from the configuration.

use std::collections::BTreeMap;

use jiff::Timestamp;
use trireme_config::job::{Presubmit, new_presubmit};
use trireme_forge::PullRequest;
use trireme_proto::state::Job;
use trireme_prowjob::{
    ProwJob, labels,
    new_job::GitHubPull,
    record::{Source, new_record},
};
use trireme_state::GITHUB_REPORTER;

use crate::RunningConfig;

/// A ProwJob that could not be made into a record.
#[derive(Debug, thiserror::Error)]
#[error("job {job}: {source}")]
pub struct RecordError {
    pub job: String,
    source: serde_json::Error,
}

/// What a new run of a presubmit is about.
#[derive(Debug, Clone, Copy)]
pub struct PullRun<'a> {
    pub pull_request: &'a PullRequest,
    /// Tip of the base branch.
    pub base_sha: &'a str,
    /// Of the event that asked for it; `none` without one.
    pub guid: &'a str,
    /// Besides those of the job.
    pub labels: &'a BTreeMap<String, String>,
    pub now: Timestamp,
}

impl PullRun<'_> {
    /// The ProwJob of one job.
    #[must_use]
    pub fn prow_job(&self, job: &Presubmit, id: String) -> ProwJob {
        let pr = self.pull_request;
        let repo_html_url = repo_page(pr);
        let pull = GitHubPull {
            org: &pr.repo.org,
            repo: &pr.repo.repo,
            repo_html_url: &repo_html_url,
            base_ref: &pr.base.branch,
            number: i64::try_from(pr.number).unwrap_or_default(),
            author: &pr.author.login,
            author_html_url: &pr.author.html_url,
            head_sha: &pr.head.sha,
            head_ref: &pr.head.branch,
            title: &pr.title,
            html_url: &pr.html_url,
        };
        new_presubmit(
            job,
            pull,
            self.base_sha,
            self.guid,
            self.labels,
            id,
            self.now,
        )
    }
}

/// The base repository's page.
#[must_use]
pub fn repo_page(pr: &PullRequest) -> String {
    if pr.base.repo_html_url.is_empty() {
        let tail = format!("/pull/{}", pr.number);
        pr.html_url
            .strip_suffix(&tail)
            .unwrap_or_default()
            .to_owned()
    } else {
        pr.base.repo_html_url.clone()
    }
}

/// The record of a new run; `origin` is what its id derives from.
///
/// # Errors
/// When the ProwJob does not serialise.
pub fn run_record(running: &RunningConfig, job: ProwJob, origin: &str) -> Result<Job, RecordError> {
    let prow = &running.config.prow;
    let job = job.requiring_scheduling(prow.scheduler.enabled);
    let source = Source {
        origin: origin.to_owned(),
        config_version: running.version,
        reporters: reporters(running, &job),
        rerun_of: String::new(),
    };
    let mut record = new_record(&job, source).map_err(|source| RecordError {
        job: job.spec.job.clone(),
        source,
    })?;
    let revivals = prow.plank.max_revivals;
    record.retries_left = revivals
        .and_then(|revivals| u32::try_from(revivals).ok())
        .unwrap_or_default();
    Ok(record)
}

/// Who is told about the run: GitHub, if the job reports and its type is one of those to be reported.
fn reporters(running: &RunningConfig, job: &ProwJob) -> Vec<String> {
    let to_github = job.spec.report
        && running.config.prow.github_reporter.reports(job.spec.r#type)
        && !job
            .metadata
            .labels
            .contains_key(labels::GERRIT_REPORT_LABEL);
    to_github
        .then(|| GITHUB_REPORTER.to_owned())
        .into_iter()
        .collect()
}
