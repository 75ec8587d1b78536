//! What is told in order: all that one reporter owes about one pull request.

use std::sync::Arc;

use trireme_proto::state::{Job, Report};
use trireme_prowjob::record;
use trireme_state::{State, is_owed};

use crate::reporter::Owed;

/// Key of the outbox's queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    reporter: String,
    org: String,
    repo: String,
    subject: Subject,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Pull(u64),
    /// Without a pull request, or with several: nothing else is told about the same thing.
    Job(String),
}

impl Lane {
    #[must_use]
    pub fn of(reporter: &str, job: &Job) -> Self {
        let subject = match job.pulls.as_slice() {
            [pull] => Subject::Pull(pull.number),
            _ => Subject::Job(job.id.clone()),
        };
        Self {
            reporter: reporter.to_owned(),
            org: job.org.clone(),
            repo: job.repo.clone(),
            subject,
        }
    }

    #[must_use]
    pub fn reporter(&self) -> &str {
        &self.reporter
    }

    /// What is owed, longest first, then in the order of creation.
    #[must_use]
    pub fn owed(&self, state: &State) -> Vec<Owed> {
        let jobs: Vec<&Arc<Job>> = match &self.subject {
            Subject::Pull(number) => state
                .jobs_of_pull(&self.org, &self.repo, *number)
                .filter(|job| job.pulls.len() == 1)
                .collect(),
            Subject::Job(id) => state.job(id).into_iter().collect(),
        };
        let mut owed: Vec<Owed> = jobs
            .into_iter()
            .filter_map(|record| {
                let report = state.report(&record.id, &self.reporter)?;
                is_owed(report).then(|| owed(report, record)).flatten()
            })
            .collect();
        // Stable: jobs come in the order of creation.
        owed.sort_by_key(|owed| owed.report.owed_since_ms);
        owed
    }
}

fn owed(report: &Arc<Report>, record: &Arc<Job>) -> Option<Owed> {
    match record::prow_job(record) {
        Ok(job) => Some(Owed {
            report: Arc::clone(report),
            record: Arc::clone(record),
            job,
        }),
        Err(why) => {
            tracing::error!(job = record.id, %why, "the record holds no ProwJob, its state cannot be told");
            None
        }
    }
}
