//! Contexts whose job a newer configuration does not have any more: they are not waited for, whatever they show.
//!
//! Prow's status-reconciler retires such a context on the forge; until somebody does, it would keep red or pending for ever
//! what the configuration does not ask for.

use trireme_config::{job::Presubmit, tide::ContextPolicy};
use trireme_forge::StatusState;
use trireme_proto::state::JobType;
use trireme_state::{GITHUB_REPORTER, State};

use crate::pull::Pull;

/// Takes out contexts that runs of ours told GitHub about this head and no presubmit reports now. What the configuration
/// names by itself (`required-contexts`, branch protection) stays, and so does what others report. Runs are remembered for
/// `sinker.max_prowjob_age`; what is older only the status-reconciler sees to.
pub(crate) fn drop_retired(
    state: &State,
    pull: &mut Pull,
    presubmits: &[&Presubmit],
    policy: &ContextPolicy,
) {
    let is_named = |context: &String| {
        policy.required_contexts.contains(context)
            || policy.required_if_present_contexts.contains(context)
    };
    let (org, repo, number) = (pull.org.clone(), pull.repo.clone(), pull.number);
    let head = pull.head_sha.clone();
    let ours = |context: &str| {
        state.jobs_of_pull(&org, &repo, number).any(|job| {
            job.r#type() == JobType::Presubmit
                && job.context == context
                && job.pulls.iter().any(|pull| pull.head_sha == head)
                && job.reporters.iter().any(|name| name == GITHUB_REPORTER)
        })
    };
    pull.contexts.retain(|context| {
        context.state == StatusState::Success
            || presubmits
                .iter()
                .any(|job| job.reporter.context == context.name)
            || is_named(&context.name)
            || !ours(&context.name)
    });
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{
        Batch, Command, CreateJobs, Job, JobState, NewJob, Pull as JobPull, command::Body,
    };

    use super::*;
    use crate::pull::{Context, SearchOnly};

    /// Runs by context, head and reporter.
    fn state_with(runs: &[(&str, &str, &str)]) -> State {
        let new = |(context, head, reporter): &(&str, &str, &str)| NewJob {
            job: Some(Box::new(Job {
                id: format!("run-of-{context}"),
                job: (*context).to_owned(),
                context: (*context).to_owned(),
                r#type: JobType::Presubmit.into(),
                org: "acme".to_owned(),
                repo: "widget".to_owned(),
                base_ref: "main".to_owned(),
                pulls: vec![JobPull {
                    number: 1,
                    head_sha: (*head).to_owned(),
                    ..JobPull::default()
                }],
                state: JobState::Triggered.into(),
                reporters: vec![(*reporter).to_owned()],
                prowjob: bytes::Bytes::from_static(b"{}"),
                ..Job::default()
            })),
            ..NewJob::default()
        };
        let mut state = State::new();
        let body = Body::CreateJobs(CreateJobs {
            jobs: runs.iter().map(new).collect(),
            cursors: Vec::new(),
        });
        let command = Command {
            principal: "test".to_owned(),
            body: Some(body),
            ..Command::default()
        };
        state.apply(
            1,
            Batch {
                stamp_ms: 1,
                commands: vec![command],
            },
        );
        assert_eq!(state.jobs_of_pull("acme", "widget", 1).count(), runs.len());
        state
    }

    /// What ADM-094 is for: a version that removes a job.
    #[test]
    fn a_context_whose_job_is_gone_is_not_waited_for() {
        let state = state_with(&[
            ("kept", "h", GITHUB_REPORTER),
            ("gone", "h", GITHUB_REPORTER),
            ("gone-but-named", "h", GITHUB_REPORTER),
            ("gone-and-green", "h", GITHUB_REPORTER),
            ("of-a-former-head", "g", GITHUB_REPORTER),
            ("told-elsewhere", "h", "slack-reporter"),
        ]);
        let mirror = trireme_proto::state::PullRequest {
            org: "acme".to_owned(),
            repo: "widget".to_owned(),
            number: 1,
            head_sha: "h".to_owned(),
            ..Default::default()
        };
        let mut pull = Pull::from_mirror(&mirror, &SearchOnly::default());
        let mut show = |name: &str, state| {
            pull.contexts.push(Context {
                name: name.to_owned(),
                state,
                description: String::new(),
            });
        };
        show("kept", StatusState::Failure);
        show("gone", StatusState::Failure);
        show("gone-but-named", StatusState::Pending);
        show("gone-and-green", StatusState::Success);
        show("of-another-system", StatusState::Failure);
        show("of-a-former-head", StatusState::Failure);
        show("told-elsewhere", StatusState::Failure);
        let mut kept = Presubmit::default();
        kept.reporter.context = "kept".to_owned();
        let policy = ContextPolicy {
            required_contexts: vec!["gone-but-named".to_owned()],
            ..ContextPolicy::default()
        };
        drop_retired(&state, &mut pull, &[&kept], &policy);
        let left: Vec<&str> = pull
            .contexts
            .iter()
            .map(|context| context.name.as_str())
            .collect();
        assert_eq!(
            left,
            [
                "kept",
                "gone-but-named",
                "gone-and-green",
                "of-another-system",
                "of-a-former-head",
                "told-elsewhere"
            ]
        );
        let blocking: Vec<String> = pull
            .unsuccessful(&policy)
            .into_iter()
            .map(|context| context.name)
            .collect();
        assert_eq!(
            blocking,
            [
                "kept",
                "gone-but-named",
                "of-another-system",
                "of-a-former-head",
                "told-elsewhere"
            ]
        );
    }
}
