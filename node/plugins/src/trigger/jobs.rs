//! The runs that a decision makes, as records.

use std::collections::BTreeMap;

use trireme_config::job::{Postsubmit, Presubmit, postsubmit_spec};
use trireme_forge::PullRequest;
use trireme_forge::webhook::PushEvent;
use trireme_office::{PullRun, run_record};
use trireme_proto::state::NewJob;
use trireme_prowjob::{ProwJob, Refs, labels, new_prow_job};
use trireme_state::ids::job_id;

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
        let mut additional = BTreeMap::new();
        if self.retest {
            additional.insert(labels::RETEST.to_owned(), "true".to_owned());
        }
        let on = PullRun {
            pull_request: &self.pull_request,
            base_sha: &self.base_sha,
            guid: cx.guid,
            labels: &additional,
            now: cx.now,
        };
        let mut records = Vec::with_capacity(self.jobs.len());
        for (place, job) in &self.jobs {
            let made = on.prow_job(job, id(cx.guid, *place));
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
    run_record(cx.running, job, cx.guid).map_err(|why| PlanError::Failed(why.to_string()))
}
