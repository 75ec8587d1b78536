//! `refresh`: has the results of a pull request's jobs reported again, for when the forge has lost some (PLG-REFRESH).
//!
//! The reporter does it, as it did before: first the statuses, then the comment with the failures.

use std::collections::BTreeMap;

use async_trait::async_trait;
use trireme_forge::webhook::{Event, IssueCommentEvent};
use trireme_forge::{RepoId, State};
use trireme_office::status::{job_types, owed_status};
use trireme_proto::state::{Job, JobType};
use trireme_prowjob::ProwJobType;
use trireme_prowjob::record::prow_job;
use trireme_state::GITHUB_REPORTER;

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;

commands! {
    COMMAND = r"(?mi)^/refresh\s*$";
}

pub(crate) struct Refresh;

#[async_trait]
impl Plugin for Refresh {
    fn name(&self) -> &'static str {
        "refresh"
    }

    fn external_names(&self) -> &'static [&'static str] {
        &["refresh"]
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::IssueComment]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::IssueComment(event) if is_command(event))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::IssueComment(event) = event else {
            return Ok(Decision::nothing());
        };
        if !is_command(event) {
            return Ok(Decision::nothing());
        }
        let (repo, number) = (&event.repository.id, event.issue.number);
        // Asked by org, repository and number, where Prow looks through all jobs and minds the number alone.
        let jobs: Vec<&Job> = cx
            .state
            .jobs_of_pull(&repo.org, &repo.repo, number)
            .map(AsRef::as_ref)
            .collect();
        if jobs.is_empty() {
            return Ok(Decision::nothing());
        }
        let head = cx.forge.pull_request(repo, number).await?.head.sha;
        let types = job_types(&cx.running.config.prow.github_reporter);
        Ok(decide(&Target::new(repo, number), &head, &jobs, &types))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The refresh plugin is used for refreshing status contexts in PRs. Useful in case GitHub breaks down.".to_owned(),
            commands: vec![Command {
                usage: "/refresh",
                featured: false,
                description: "Refresh status contexts on a PR.",
                examples: &["/refresh"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }
}

fn is_command(event: &IssueCommentEvent) -> bool {
    event.issue.is_pull_request
        && event.action == "created"
        && event.issue.state == State::Open
        && COMMAND.is_match(&event.comment.body)
}

/// The newest run of each job on the head; `jobs` oldest first.
fn decide(on: &Target, head: &str, jobs: &[&Job], types: &[ProwJobType]) -> Decision {
    let on_head = |job: &&&Job| {
        let [pull] = job.pulls.as_slice() else {
            return false;
        };
        job.r#type() == JobType::Presubmit && pull.head_sha == head
    };
    let mut newest: BTreeMap<&str, &Job> = BTreeMap::new();
    for job in jobs.iter().filter(on_head) {
        newest.insert(&job.job, job);
    }
    let told = newest.values().filter(|job| is_told(job, on, types));
    let ids: Vec<String> = told.map(|job| job.id.clone()).collect();
    let mut decision = Decision::nothing();
    if !ids.is_empty() {
        decision.push(on.report_again(GITHUB_REPORTER, ids));
    }
    decision.for_head(head)
}

/// Whether its result is told on the pull request. What cannot be told is no reason to leave the others out.
fn is_told(job: &Job, on: &Target, types: &[ProwJobType]) -> bool {
    let RepoId { org, repo } = &on.repo;
    let told = prow_job(job)
        .map_err(|error| error.to_string())
        .and_then(|job| owed_status(&job, types).map_err(|error| error.to_string()));
    let has_status = told.unwrap_or_else(|error| {
        tracing::warn!(job = job.id, org, repo, error, "no status to refresh");
        None
    });
    has_status.is_some() && job.reporters.iter().any(|name| name == GITHUB_REPORTER)
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{JobState, Pull};
    use trireme_prowjob::{ProwJob, ProwJobSpec, Refs};

    use super::*;
    use crate::testing::comment_event;

    fn job(name: &str, sha: &str, state: JobState, report: bool) -> Job {
        let pull = trireme_prowjob::Pull {
            number: 5,
            sha: sha.to_owned(),
            ..trireme_prowjob::Pull::default()
        };
        let made = ProwJob {
            spec: ProwJobSpec {
                r#type: ProwJobType::Presubmit,
                job: name.to_owned(),
                context: format!("ci/{name}"),
                report,
                refs: Some(Refs {
                    org: "org".into(),
                    repo: "repo".into(),
                    pulls: vec![pull],
                    ..Refs::default()
                }),
                ..ProwJobSpec::default()
            },
            ..ProwJob::default()
        };
        Job {
            id: format!("{name} {}", state.as_str_name()),
            reporters: vec![GITHUB_REPORTER.to_owned()],
            job: name.to_owned(),
            r#type: JobType::Presubmit.into(),
            state: state.into(),
            description: "Told.".into(),
            pulls: vec![Pull {
                number: 5,
                head_sha: sha.to_owned(),
                ..Pull::default()
            }],
            prowjob: serde_json::to_vec(&made).unwrap().into(),
            ..Job::default()
        }
    }

    /// PLG-REFRESH-001, PLG-REFRESH-002
    #[test]
    fn plg_refresh_001_the_newest_run_of_each_job_on_the_head_is_told_again() {
        let jobs = [
            job("unit", "head", JobState::Failure, true),
            job("unit", "head", JobState::Success, true),
            job("lint", "head", JobState::Pending, true),
            job("quiet", "head", JobState::Success, false),
            job("old", "before", JobState::Success, true),
        ];
        let mut elsewhere = job("elsewhere", "head", JobState::Success, true);
        elsewhere.reporters = vec!["gcsreporter".to_owned()];
        let jobs: Vec<&Job> = jobs.iter().chain([&elsewhere]).collect();
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        let decision = decide(&on, "head", &jobs, &[ProwJobType::Presubmit]);
        insta::assert_snapshot!(decision, @"report again: lint JOB_STATE_PENDING, unit JOB_STATE_SUCCESS");
        assert_eq!(decision.head, "head");
        assert!(decide(&on, "head", &jobs, &[]).is_idle());
    }

    #[test]
    fn plg_refresh_001_only_the_command_concerns_it() {
        assert!(crate::testing::concerns(
            &Refresh,
            &comment_event("ann", "x\n/Refresh \r\n")
        ));
        assert!(!crate::testing::concerns(
            &Refresh,
            &comment_event("ann", "/refresh all")
        ));
    }
}
