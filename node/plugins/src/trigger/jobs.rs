//! The runs that a decision makes, as records.

use std::collections::BTreeMap;

use trireme_config::Config;
use trireme_config::job::{Postsubmit, Presubmit, new_presubmit, postsubmit_spec};
use trireme_forge::PullRequest;
use trireme_forge::webhook::PushEvent;
use trireme_proto::state::NewJob;
use trireme_prowjob::new_job::GitHubPull;
use trireme_prowjob::record::{Source, new_record};
use trireme_prowjob::{ProwJob, Refs, labels, new_prow_job};
use trireme_state::{GITHUB_REPORTER, ids::job_id};

use super::NAME;
use crate::plugin::{PlanError, Planning};

/// Presubmits to run on a pull request.
#[derive(Debug, Clone)]
pub(super) struct Runs<'j> {
    pub(super) pull_request: PullRequest,
    pub(super) base_sha: String,
    /// With their places among the repository's presubmits, from which their ids derive.
    pub(super) jobs: Vec<(usize, &'j Presubmit)>,
    /// Asked for by `/retest`.
    pub(super) retest: bool,
    /// Not where the same work is under way or was done for this head.
    pub(super) unless_exists: bool,
    /// What the event does not say of itself: the command, the label. Begins the history of each run (JOB-075).
    pub(super) cause: String,
}

impl Runs<'_> {
    pub(super) fn records(&self, cx: &Planning<'_>) -> Result<Vec<NewJob>, PlanError> {
        let pr = &self.pull_request;
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
        let mut additional = BTreeMap::new();
        if self.retest {
            additional.insert(labels::RETEST.to_owned(), "true".to_owned());
        }
        let mut records = Vec::with_capacity(self.jobs.len());
        for (place, job) in &self.jobs {
            let id = id(cx.guid, *place);
            let made = new_presubmit(job, pull, &self.base_sha, cx.guid, &additional, id, cx.now);
            records.push(NewJob {
                job: Some(Box::new(record(made, cx)?)),
                unless_exists: self.unless_exists,
                supersede: true,
                cause: self.cause.clone(),
            });
        }
        Ok(records)
    }
}

/// The base repository's page.
pub(super) fn repo_page(pr: &PullRequest) -> String {
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

/// Postsubmits to run for a push, each with its place among the repository's (PLG-TRIGGER-041).
pub(super) fn postsubmits(
    event: &PushEvent,
    jobs: &[(usize, &Postsubmit)],
    cx: &Planning<'_>,
) -> Result<Vec<NewJob>, PlanError> {
    let refs = Refs {
        org: event.repository.id.org.clone(),
        repo: event.repository.id.repo.clone(),
        repo_link: event.repository.html_url.clone(),
        base_ref: event.branch().to_owned(),
        base_sha: event.after.clone(),
        base_link: event.compare_url.clone(),
        ..Refs::default()
    };
    let mut records = Vec::with_capacity(jobs.len());
    for (place, job) in jobs {
        let mut own = job.base.labels.clone();
        own.insert(labels::EVENT_GUID.to_owned(), cx.guid.to_owned());
        let spec = postsubmit_spec(job, refs.clone());
        let id = id(cx.guid, *place);
        let made = new_prow_job(spec, &own, &job.base.annotations, id, cx.now);
        records.push(NewJob {
            job: Some(Box::new(record(made, cx)?)),
            unless_exists: false,
            supersede: false,
            ..NewJob::default()
        });
    }
    Ok(records)
}

fn id(guid: &str, place: usize) -> String {
    job_id(guid, NAME, u32::try_from(place).unwrap_or(u32::MAX))
}

fn record(job: ProwJob, cx: &Planning<'_>) -> Result<trireme_proto::state::Job, PlanError> {
    let config = &cx.running.config;
    let job = job.requiring_scheduling(config.prow.scheduler.enabled);
    let source = Source {
        origin: cx.guid.to_owned(),
        config_version: cx.running.version,
        reporters: reporters(&job, config),
        rerun_of: String::new(),
    };
    let mut record = new_record(&job, source)
        .map_err(|error| PlanError::Failed(format!("job {}: {error}", job.spec.job)))?;
    record.retries_left = config
        .prow
        .plank
        .max_revivals
        .and_then(|revivals| u32::try_from(revivals).ok())
        .unwrap_or_default();
    Ok(record)
}

/// Who is told about the run: GitHub, if the job reports and its type is one of those to be reported.
fn reporters(job: &ProwJob, config: &Config) -> Vec<String> {
    let to_github = job.spec.report
        && config.prow.github_reporter.reports(job.spec.r#type)
        && !job
            .metadata
            .labels
            .contains_key(labels::GERRIT_REPORT_LABEL);
    if to_github {
        vec![GITHUB_REPORTER.to_owned()]
    } else {
        vec![]
    }
}
