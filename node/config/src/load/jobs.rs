//! Jobs of one file after defaulting, and what only shows when the jobs of all files stand together.

use std::sync::Arc;

use super::file::{JobFile, of_job};
use crate::config::JobConfig;
use crate::diagnostic::Diagnostic;
use crate::job::{self, Periodic, Postsubmit, Presubmit, validate};

/// By repository.
pub(super) type ByRepo<J> = Vec<(String, Vec<Arc<J>>)>;

/// A file's jobs as they will run.
#[derive(Clone, Debug, Default)]
pub(super) struct DefaultedFile {
    pub(super) presubmits: ByRepo<Presubmit>,
    pub(super) postsubmits: ByRepo<Postsubmit>,
    pub(super) periodics: Vec<Arc<Periodic>>,
    pub(super) found: Vec<Diagnostic>,
}

impl DefaultedFile {
    /// Jobs that nobody else holds are changed in place.
    pub(super) fn new(jobs: JobConfig, defaults: &job::Defaults<'_>) -> Self {
        let mut file = Self {
            presubmits: jobs.presubmits.into_iter().collect(),
            postsubmits: jobs.postsubmits.into_iter().collect(),
            periodics: jobs.periodics,
            found: Vec::new(),
        };
        for (repo, jobs) in &mut file.presubmits {
            for job in jobs {
                let job = Arc::make_mut(job);
                let wrong = defaults.presubmit(job, repo).into_iter().map(whole);
                let wrong = wrong.chain(validate::presubmit(defaults.prow, job));
                file.found
                    .extend(wrong.map(|(field, e)| of_job(&job.base, field, e)));
            }
        }
        for (repo, jobs) in &mut file.postsubmits {
            for job in jobs {
                let job = Arc::make_mut(job);
                let wrong = defaults.postsubmit(job, repo).into_iter().map(whole);
                let wrong = wrong.chain(validate::postsubmit(defaults.prow, job));
                file.found
                    .extend(wrong.map(|(field, e)| of_job(&job.base, field, e)));
            }
        }
        for job in &mut file.periodics {
            let job = Arc::make_mut(job);
            let wrong = defaults.periodic(job).into_iter().map(whole);
            let wrong: Vec<_> = wrong
                .chain(validate::periodic(defaults.prow, job))
                .collect();
            file.found.extend(
                wrong
                    .into_iter()
                    .map(|(field, e)| of_job(&job.base, field, e)),
            );
        }
        file
    }
}

fn whole(message: String) -> validate::Problem {
    ("", message)
}

/// JOB-030 for the presubmits of one repository.
pub(super) fn presubmit_clashes(jobs: &[Arc<Presubmit>]) -> Vec<Diagnostic> {
    let jobs: Vec<&Presubmit> = jobs.iter().map(Arc::as_ref).collect();
    let wrong = validate::presubmit_clashes(&jobs).into_iter();
    wrong
        .map(|found| of_job(&jobs[found.index].base, found.field, found.message))
        .collect()
}

/// JOB-030 for the postsubmits of one repository.
pub(super) fn postsubmit_clashes(jobs: &[Arc<Postsubmit>]) -> Vec<Diagnostic> {
    let jobs: Vec<&Postsubmit> = jobs.iter().map(Arc::as_ref).collect();
    let wrong = validate::postsubmit_clashes(&jobs).into_iter();
    wrong
        .map(|found| of_job(&jobs[found.index].base, found.field, found.message))
        .collect()
}

/// JOB-030 for all periodics.
pub(super) fn periodic_clashes(jobs: &[Arc<Periodic>]) -> Vec<Diagnostic> {
    let wrong = validate::periodic_clashes(jobs.iter().map(Arc::as_ref)).into_iter();
    wrong
        .map(|found| of_job(&jobs[found.index].base, found.field, found.message))
        .collect()
}

/// What a file became, or has still to become.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// As it was written; gone if it was not to be kept.
    pub(super) written: Arc<JobFile>,
    /// With the defaults of this generation.
    pub(super) defaulted: Option<(u64, Arc<DefaultedFile>)>,
}
