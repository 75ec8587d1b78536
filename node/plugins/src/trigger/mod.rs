//! `trigger`: starts jobs for pull requests and pushes, and aborts what nobody waits for any more.

pub mod asking;
mod comment;
mod help;
mod jobs;
mod own;
mod pull_request;
mod push;
mod texts;
mod trust;

use async_trait::async_trait;
use trireme_forge::RepoId;
use trireme_forge::webhook::Event;
use trireme_proto::state::effect::Action;
use trireme_proto::state::{AbortJob, Job, JobType};
use trireme_state::is_complete;

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use jobs::Runs;
use own::Standing;
pub use pull_request::Standstill;
use trireme_office::RunningConfig;

pub(crate) const NAME: &str = "trigger";

/// The part of the `triggers` section that concerns a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Logins of apps, without `[bot]`.
    pub(crate) trusted_apps: Vec<String>,
    /// A second organisation whose members are trusted; empty = none.
    pub(crate) trusted_org: String,
    /// Empty = the organisation's list of people.
    pub(crate) join_org_url: String,
    pub(crate) only_org_members: bool,
    pub(crate) ignore_ok_to_test: bool,
    /// Whether GitHub's own workflows are run again and approved, too.
    pub(crate) workflows: bool,
    pub(crate) prominent: Prominent,
}

/// When and how authors who come often are asked to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prominent {
    pub(crate) disabled: bool,
    /// Merged pull requests in the organisation.
    pub(crate) merged_threshold: u64,
    /// Empty = Prow's own.
    pub(crate) message: String,
}

impl Default for Prominent {
    fn default() -> Self {
        Self {
            disabled: false,
            merged_threshold: 3,
            message: String::new(),
        }
    }
}

/// A decision before its jobs are made into records.
#[derive(Debug, Default)]
struct Verdict<'j> {
    effects: Vec<Action>,
    runs: Option<Runs<'j>>,
    aborts: Vec<AbortJob>,
}

impl std::fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decision = Decision {
            aborts: self.aborts.clone(),
            ..self.effects.clone().into()
        };
        let mut lines = Vec::new();
        if !decision.is_idle() {
            lines.push(decision.to_string());
        }
        if let Some(runs) = &self.runs {
            let names: Vec<&str> = runs
                .jobs
                .iter()
                .map(|(_, job)| job.base.name.as_str())
                .collect();
            let retest = if runs.retest { ", a retest" } else { "" };
            let once = if runs.unless_exists { " once" } else { "" };
            lines.push(format!("run {}{once}{retest}", names.join(" ")));
        }
        f.write_str(&if lines.is_empty() {
            "nothing".to_owned()
        } else {
            lines.join("\n")
        })
    }
}

impl Verdict<'_> {
    fn effects(effects: Vec<Action>) -> Self {
        Self {
            effects,
            ..Self::default()
        }
    }
}

pub(crate) struct Trigger;

fn options(running: &RunningConfig, repo: &RepoId) -> Options {
    let section = running.plugins.trigger_for(&repo.org, &repo.repo);
    let prominent = section.org_invite.and_then(|invite| invite.prominent);
    let prominent = prominent.map_or_else(Prominent::default, |configured| Prominent {
        disabled: configured.disabled,
        merged_threshold: configured
            .merged_pr_threshold
            .map_or(Prominent::default().merged_threshold, |threshold| {
                u64::try_from(threshold).unwrap_or_default()
            }),
        message: configured.message,
    });
    Options {
        trusted_apps: section.trusted_apps,
        trusted_org: section.trusted_org,
        join_org_url: section.join_org_url,
        only_org_members: section.only_org_members,
        ignore_ok_to_test: section.ignore_ok_to_test,
        workflows: section.trigger_github_workflows,
        prominent,
    }
}

/// Whether a repository's `triggers` make somebody trusted (PLG-TRIGGER-010), for other plugins that ask.
pub(crate) fn trusts(
    running: &RunningConfig,
    repo: &RepoId,
    login: &str,
    bot: &trireme_forge::BotUser,
    facts: &Facts,
) -> Result<bool, crate::facts::Missing> {
    trust::is_trusted(login, repo, &options(running, repo), bot, facts)
}

/// Whether `/ok-to-test` has an effect in a repository.
pub(crate) fn honors_ok_to_test(running: &RunningConfig, repo: &RepoId) -> bool {
    !options(running, repo).ignore_ok_to_test
}

/// The jobs that stand in the tested repository itself, for other plugins that ask; none where they cannot be known.
pub(crate) async fn own_jobs(
    cx: &Planning<'_>,
    pr: &trireme_forge::PullRequest,
    facts: &mut Facts,
) -> Result<std::sync::Arc<trireme_config::in_repo::InRepoJobs>, PlanError> {
    Ok(own::of_pull_request(cx, pr, facts).await?.jobs())
}

fn into_decision(verdict: Verdict<'_>, cx: &Planning<'_>) -> Result<Decision, PlanError> {
    let jobs = match &verdict.runs {
        Some(runs) => runs.records(cx)?,
        None => Vec::new(),
    };
    Ok(Decision {
        jobs,
        aborts: verdict.aborts,
        ..verdict.effects.into()
    })
}

/// Whether jobs after a push are configured, or may stand in the repository itself.
fn may_have_postsubmits(running: &RunningConfig, repo: &RepoId) -> bool {
    let (config, repo) = (&running.config, repo.to_string());
    config.postsubmits(&repo).next().is_some() || config.prow.in_repo_config_enabled(&repo)
}

#[async_trait]
impl Plugin for Trigger {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest, EventKind::Push, EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::Push(event) => {
                push::counts(event) && may_have_postsubmits(cx.running, &event.repository.id)
            }
            Event::PullRequest(event) if pull_request::may_matter(event) => true,
            _ => event
                .generic_comment()
                .is_some_and(|comment| comment::may_matter(&comment)),
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(repo) = event.repo() else {
            return Ok(Decision::nothing());
        };
        if let Event::Push(event) = event {
            if !push::counts(event) {
                return Ok(Decision::nothing());
            }
            let standing = own::at(cx, repo, &event.after, &[]).await?;
            let own = standing.jobs();
            let mut postsubmits = cx.postsubmits(repo);
            postsubmits.extend(&own.postsubmits);
            let files = push::files(cx, event, &postsubmits).await?;
            let chosen = push::choose(event, &postsubmits, &files);
            return Ok(Decision {
                jobs: jobs::postsubmits(event, &chosen, cx)?,
                ..own::notice_of_push(&standing, event, cx).into()
            });
        }
        let options = options(cx.running, repo);
        let mut decision = Decision::nothing();
        if let Event::PullRequest(event) = event
            && pull_request::counts(event, cx.bot)
        {
            let pr = &event.pull_request;
            let on = Target::new(repo, pr.number);
            let mut facts = Facts::default();
            let standing = if pull_request::may_start(event) {
                own::of_pull_request(cx, pr, &mut facts).await?
            } else {
                Standing::Unasked
            };
            let own = standing.jobs();
            let mut jobs = cx.presubmits(repo);
            jobs.extend(&own.presubmits);
            let live = live_presubmits(cx, &on);
            let shown = own::shown(cx, pr);
            let moved = pull_request::moves(event);
            let newer = cx.newer(pr);
            // An event that comes late must not tell about files that nobody sees any more.
            let newest = newer.is_none_or(|known| known.head_sha == pr.head.sha);
            let decide = |facts: &Facts| {
                let mut verdict =
                    pull_request::decide(event, newer, &options, cx.bot, &jobs, &live, facts)?;
                if newest {
                    let notice = own::notice(&standing, pr, moved, shown, cx.bot, facts)?;
                    verdict.effects.extend(notice);
                }
                Ok(verdict)
            };
            let verdict = gather(cx, &on, facts, decide).await?;
            decision = into_decision(verdict, cx)?;
        }
        if let Some(comment) = event.generic_comment()
            && comment::counts(&comment, cx.bot)
        {
            let mut facts = Facts::default();
            let standing = own::of_comment(cx, &comment, &mut facts).await?;
            let own = standing.jobs();
            let mut jobs = cx.presubmits(repo);
            jobs.extend(&own.presubmits);
            if !comment::is_relevant(&comment.body, jobs.iter().copied()) {
                return Ok(decision);
            }
            let on = Target::new(&comment.repo, comment.number);
            let pr = facts.pull_request.clone();
            let shown = pr.as_ref().and_then(|pr| own::shown(cx, pr));
            let decide = |facts: &Facts| {
                let mut verdict = comment::decide(&comment, &options, cx.bot, &jobs, facts)?;
                if let Some(pr) = &pr {
                    let notice = own::notice(&standing, pr, false, shown, cx.bot, facts)?;
                    verdict.effects.extend(notice);
                }
                Ok(verdict)
            };
            let verdict = gather(cx, &on, facts, decide).await?;
            decision = decision.and(into_decision(verdict, cx)?);
        }
        Ok(decision)
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let config = scope.per_repo(|repo| {
            let section = scope.plugins.trigger_for(&repo.org, &repo.repo);
            let org = if section.trusted_org.is_empty() {
                &repo.org
            } else {
                &section.trusted_org
            };
            Some(format!(
                "The trusted GitHub organization for this repository is {org:?}."
            ))
        });
        PluginHelp {
            description: texts::ABOUT.to_owned(),
            config,
            commands: COMMANDS.to_vec(),
            ..PluginHelp::default()
        }
    }
}

fn live_presubmits<'a>(cx: &Planning<'a>, on: &Target) -> Vec<&'a Job> {
    cx.state
        .jobs_of_pull(&on.repo.org, &on.repo.repo, on.number)
        .map(AsRef::as_ref)
        .filter(|job: &&Job| job.r#type() == JobType::Presubmit && !is_complete(job))
        .collect()
}

const COMMANDS: [Command; 6] = [
    Command {
        usage: "/ok-to-test",
        featured: false,
        description: "Marks a PR as 'trusted' and starts tests.",
        examples: &["/ok-to-test"],
        who_can_use: "Members of the trusted organization for the repo.",
    },
    Command {
        usage: "/ok-to-test cancel",
        featured: false,
        description: "Revokes trusted status previously granted by '/ok-to-test', removing the 'ok-to-test' label and restoring 'needs-ok-to-test'.",
        examples: &["/ok-to-test cancel"],
        who_can_use: "Members of the trusted organization for the repo.",
    },
    Command {
        usage: "/test [<job name>|all]",
        featured: true,
        description: "Manually starts a/all automatically triggered test job(s). Lists all possible job(s) when no jobs/an invalid job are specified.",
        examples: &["/test all", "/test pull-bazel-test"],
        who_can_use: ANYONE,
    },
    Command {
        usage: "/retest",
        featured: true,
        description: "Rerun test jobs that have failed.",
        examples: &["/retest"],
        who_can_use: ANYONE,
    },
    Command {
        usage: "/test-manual-required",
        featured: true,
        description: "Manually starts required presubmit jobs that require an explicit trigger and do not use file change conditions.",
        examples: &["/test-manual-required"],
        who_can_use: ANYONE,
    },
    Command {
        usage: "/test ?",
        featured: true,
        description: "List available test job(s) for a trusted PR.",
        examples: &["/test ?"],
        who_can_use: ANYONE,
    },
];

const ANYONE: &str = "Anyone can trigger this command on a trusted PR.";
