//! What the state knows about the pull requests of a pool, as the deciding wants it.

use std::collections::BTreeMap;

use trireme_forge::StatusState;
use trireme_proto::state::{self, Job, JobState, JobType};
use trireme_state::{GITHUB_REPORTER, State, is_complete, is_owed};

use crate::{
    pool::{PoolKey, Run},
    pull::{Context, Pull, SearchOnly},
};

/// How the origin of Tide's own jobs begins.
pub(crate) const ORIGIN: &str = "tide ";

/// The mirrored pull request, its contexts no better than what our own runs say.
#[must_use]
pub(crate) fn pull(state: &State, mirror: &state::PullRequest, more: &SearchOnly) -> Pull {
    let mut pull = Pull::from_mirror(mirror, more);
    let mut newest: BTreeMap<&str, &Job> = BTreeMap::new();
    for job in state.jobs_of_pull(&mirror.org, &mirror.repo, mirror.number) {
        let on_head = job.r#type() == JobType::Presubmit
            && job
                .pulls
                .first()
                .is_some_and(|pull| pull.head_sha == mirror.head_sha);
        if on_head && job.reporters.iter().any(|name| name == GITHUB_REPORTER) {
            newest.insert(&job.context, job);
        }
    }
    for (name, job) in newest {
        let told = !state
            .report(&job.id, GITHUB_REPORTER)
            .is_some_and(|report| is_owed(report));
        overlay(&mut pull.contexts, name, job, told);
    }
    pull
}

/// GitHub shows a context later than we know it. What we know to be worse counts at once, or a run that just failed
/// would be started again; what we know to be better waits until GitHub, who has the last word at the merge, knows too.
fn overlay(contexts: &mut Vec<Context>, name: &str, job: &Job, told: bool) {
    let bad = is_complete(job) && job.state() != JobState::Success;
    let shown = contexts.iter_mut().find(|context| context.name == name);
    let state = match (&shown, is_complete(job)) {
        (None, false) => StatusState::Pending,
        (Some(shown), false) if !told && shown.state == StatusState::Success => {
            StatusState::Pending
        }
        (Some(shown), true) if bad && shown.state == StatusState::Pending => StatusState::Failure,
        (Some(shown), true) if bad && !told && shown.state == StatusState::Success => {
            StatusState::Failure
        }
        _ => return,
    };
    match shown {
        Some(shown) => shown.state = state,
        None => contexts.push(Context {
            name: name.to_owned(),
            state,
            description: String::new(),
        }),
    }
}

/// Presubmit and batch runs of these pull requests on the pool's branch, each once.
#[must_use]
pub(crate) fn runs<'a>(
    state: &State,
    key: &PoolKey,
    numbers: impl Iterator<Item = &'a u64>,
) -> Vec<Run> {
    let mut found: BTreeMap<&str, &Job> = BTreeMap::new();
    for number in numbers {
        for job in state.jobs_of_pull(&key.org, &key.repo, *number) {
            if job.base_ref == key.branch {
                found.insert(&job.id, job);
            }
        }
    }
    let kinds = [JobType::Presubmit, JobType::Batch];
    found
        .into_values()
        .filter(|job| kinds.contains(&job.r#type()))
        .map(|job| Run {
            batch: job.r#type() == JobType::Batch,
            job: job.job.clone(),
            context: job.context.clone(),
            state: job.state(),
            base_sha: job.base_sha.clone(),
            pulls: job
                .pulls
                .iter()
                .map(|pull| (pull.number, pull.head_sha.clone()))
                .collect(),
            created_by_tide: job.origin.starts_with(ORIGIN),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(state: Option<StatusState>, job: JobState, told: bool) -> Option<StatusState> {
        let mut contexts: Vec<Context> = state
            .into_iter()
            .map(|state| Context {
                name: "unit".into(),
                state,
                description: String::new(),
            })
            .collect();
        let complete = !matches!(job, JobState::Triggered | JobState::Pending);
        let job = Job {
            state: job.into(),
            completed_ms: complete.into(),
            ..Job::default()
        };
        overlay(&mut contexts, "unit", &job, told);
        contexts.first().map(|context| context.state)
    }

    #[test]
    fn what_we_know_to_be_worse_counts_at_once() {
        use StatusState::{Failure, Pending, Success};
        for (github, ours, told, expected) in [
            (Some(Pending), JobState::Failure, true, Some(Failure)),
            (Some(Pending), JobState::Aborted, false, Some(Failure)),
            (Some(Success), JobState::Triggered, false, Some(Pending)),
            (Some(Success), JobState::Failure, false, Some(Failure)),
            (None, JobState::Triggered, true, Some(Pending)),
            // Somebody overrode the failure, or GitHub has yet to hear of a new run.
            (Some(Success), JobState::Failure, true, Some(Success)),
            // GitHub must know before we merge.
            (Some(Pending), JobState::Success, false, Some(Pending)),
            (Some(Failure), JobState::Success, false, Some(Failure)),
            (None, JobState::Success, false, None),
        ] {
            assert_eq!(
                shown(github, ours, told),
                expected,
                "{github:?} {ours:?} {told}"
            );
        }
    }
}
