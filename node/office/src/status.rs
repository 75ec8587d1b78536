//! The commit status that shows a run's state.

use trireme_config::prow::GitHubReporter;
use trireme_forge::{CommitStatus, StatusState};
use trireme_prowjob::{ProwJob, ProwJobState, ProwJobType};

use crate::description::with_base_sha;

/// A status and the commit it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedStatus {
    pub sha: String,
    pub status: CommitStatus,
}

/// A state that no status shows: `scheduling`, or none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Unknown prowjob state: {0}")]
pub struct UnknownState(pub ProwJobState);

/// Those of `github_reporter.job_types_to_report` that there are.
#[must_use]
pub fn job_types(configured: &GitHubReporter) -> Vec<ProwJobType> {
    let all = ProwJobType::ALL.iter().copied();
    all.filter(|kind| configured.reports(*kind)).collect()
}

/// Whether the forge is to hear of this job at all; `types` are those configured.
#[must_use]
pub fn is_reported(job: &ProwJob, types: &[ProwJobType]) -> bool {
    job.spec.report && types.contains(&job.spec.r#type)
}

/// On the head of the job's pull request, or on the base commit if it has none; nothing for several (CRI-010).
///
/// # Errors
/// [`UnknownState`] when a status is owed, but not in this state.
pub fn owed_status(
    job: &ProwJob,
    types: &[ProwJobType],
) -> Result<Option<OwedStatus>, UnknownState> {
    let Some(refs) = &job.spec.refs else {
        return Ok(None);
    };
    if !is_reported(job, types) || refs.pulls.len() > 1 {
        return Ok(None);
    }
    let sha = refs.pulls.first().map_or(&refs.base_sha, |pull| &pull.sha);
    Ok(Some(OwedStatus {
        sha: sha.clone(),
        status: CommitStatus {
            context: job.spec.context.clone(),
            state: status_state(job.status.state)?,
            description: with_base_sha(&job.status.description, &refs.base_sha),
            target_url: job.status.url.clone(),
        },
    }))
}

fn status_state(state: ProwJobState) -> Result<StatusState, UnknownState> {
    match state {
        ProwJobState::Triggered | ProwJobState::Pending => Ok(StatusState::Pending),
        ProwJobState::Success => Ok(StatusState::Success),
        ProwJobState::Error => Ok(StatusState::Error),
        ProwJobState::Failure | ProwJobState::Aborted => Ok(StatusState::Failure),
        ProwJobState::Unset | ProwJobState::Scheduling => Err(UnknownState(state)),
    }
}
