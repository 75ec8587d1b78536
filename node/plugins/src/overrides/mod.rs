//! `override`: forces contexts of a pull request to pass, and takes that back.

mod asked;
mod decide;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::job::Presubmit;
use trireme_config::plugins::Section;
use trireme_forge::git::GitError;
use trireme_forge::webhook::{Event, GenericComment};
use trireme_forge::{ForgeError, Permission, PullRequest, RepoId, norm_login};
use trireme_in_repo::{Commits, InRepoError, Own};
use trireme_office::{PullRun, run_record};
use trireme_proto::state::{JobState, NewJob};
use trireme_state::{ids::job_id, is_complete};

use crate::decision::Decision;
use crate::help::{Command, HelpScope, PluginHelp};
use crate::payload::not_for_now;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin, outage};
use asked::Ask;
use decide::{Denied, Head, Known, OVERRIDDEN, Targets, Verdict};

const NAME: &str = "override";

pub(crate) struct Override;

/// The section of the same name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// Whether approvers of the root's OWNERS file may override.
    allow_top_level_owners: bool,
    /// Slugs of teams whose members may, by `org` or `org/repo`.
    allowed_github_teams: BTreeMap<String, Vec<String>>,
}

impl Settings {
    fn teams(&self, repo: &RepoId) -> impl Iterator<Item = &String> {
        let keys = [repo.to_string(), repo.org.clone()];
        keys.into_iter()
            .filter_map(|key| self.allowed_github_teams.get(&key))
            .flatten()
    }

    /// In words; without a repository for all of them.
    fn who_can_use(&self, repo: Option<&RepoId>) -> String {
        let owners = match self.allow_top_level_owners {
            true => ", approvers in top level OWNERS file",
            false => "",
        };
        let mut words = format!("Repo administrators{owners}");
        if !self.allowed_github_teams.is_empty() {
            let concerns =
                |key: &str| repo.is_none_or(|repo| key == repo.org || key == repo.to_string());
            let teams = self
                .allowed_github_teams
                .iter()
                .filter(|(key, _)| concerns(key))
                .map(|(key, teams)| format!("{key}: {}", teams.join(" ")));
            let mut teams: Vec<String> = teams.collect();
            teams.sort();
            words.push_str(", and the following github teams:");
            words.push_str(&teams.join(", "));
        }
        words.push('.');
        words
    }
}

#[async_trait]
impl Plugin for Override {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        event
            .generic_comment()
            .is_some_and(|comment| counts(&comment) && !asked::asked(&comment.body).is_empty())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(comment) = event.generic_comment().filter(counts) else {
            return Ok(Decision::nothing());
        };
        let asks = asked::asked(&comment.body);
        if asks.iter().all(Ask::is_bare) {
            let known = Known {
                head: Ok(Head::default()),
                targets: Ok(Targets::default()),
            };
            return Ok(decide::decide(&comment, &asks, &known).decision);
        }
        let number = comment.number;
        let repo = &comment.repo;
        let found = cx.forge.pull_request(repo, number).await;
        let pr = match answered(found, &format!("Cannot get PR #{number} in {repo}"))? {
            Ok(pr) => pr,
            Err(answer) => {
                let known = Known {
                    head: Err(Denied::Failed(answer)),
                    targets: Ok(Targets::default()),
                };
                return Ok(decide::decide(&comment, &asks, &known).decision);
            }
        };
        // Whoever overrides a check has looked at what failed.
        let forces = asks.iter().any(|ask| matches!(ask, Ask::Force { .. }));
        let refusal = match forces {
            true => not_for_now(cx, &comment, &mut Some(pr.clone())).await?,
            false => None,
        };
        let head = match refusal {
            Some(refusal) => Err(Denied::Failed(refusal.to_owned())),
            None => head(cx, &comment, &pr).await?,
        };
        let own = match &head {
            Ok(_) if asks.iter().any(|ask| matches!(ask, Ask::Force { .. })) => {
                own_jobs(cx, &pr).await?
            }
            _ => Ok((Own::default(), None)),
        };
        let mut jobs = cx.presubmits(repo);
        if let Ok((own, _)) = &own {
            jobs.extend(&own.jobs.presubmits);
        }
        let targets = match (&head, &own) {
            (Ok(head), Ok((_, base_sha))) => {
                targets(cx, &asks, &pr, head, jobs, base_sha.as_deref()).await?
            }
            (_, Err(answer)) => Err(answer.clone()),
            (Err(_), Ok(_)) => Ok(Targets::default()),
        };
        let known = Known { head, targets };
        let verdict = decide::decide(&comment, &asks, &known);
        let base_sha = match &known.targets {
            Ok(targets) => targets.base_sha.clone().and_then(Result::ok),
            Err(_) => None,
        };
        records(cx, &comment, &pr, &base_sha.unwrap_or_default(), verdict)
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(NAME);
        let who = settings.map(|settings| settings.who_can_use(None));
        let who = who.map(|who| format!("The commands can be used by: {who}"));
        PluginHelp {
            description:
                "The override plugin allows repo admins to force a github status context to pass"
                    .to_owned(),
            config: who.map(|who| [(String::new(), who)].into()),
            snippet: SNIPPET.to_owned(),
            commands: COMMANDS.to_vec(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(NAME, |_: &mut Settings| vec![]))
    }
}

const WHO: &str = "Repo administrators, and who else is configured.";

const COMMANDS: [Command; 3] = [
    Command {
        usage: "/override [context1] [context2]",
        featured: false,
        description: "Forces github status contexts to green (multiple can be given). If the desired context has spaces, it must be quoted. Overrides expire when the base branch moves.",
        examples: &[
            "/override pull-repo-whatever",
            "/override \"test / Unit Tests\"",
            "/override ci/circleci",
            "/override deleted-job other-job",
        ],
        who_can_use: WHO,
    },
    Command {
        usage: "/override-sticky [context1] [context2]",
        featured: false,
        description: "Like /override, but the override persists across retests on the current HEAD SHA even when the base branch moves. Pushing a new commit clears them. Use /override-cancel to remove.",
        examples: &[
            "/override-sticky pull-repo-whatever",
            "/override-sticky \"test / Unit Tests\"",
        ],
        who_can_use: WHO,
    },
    Command {
        usage: "/override-cancel [context]",
        featured: false,
        description: "Removes overrides by setting the status back to failure. Works on both regular and sticky overrides. If a context is given, only that override is removed. If no context is given, all overrides on the PR are removed.",
        examples: &["/override-cancel pull-repo-whatever", "/override-cancel"],
        who_can_use: WHO,
    },
];

const SNIPPET: &str = "\
override:
    # Whether approvers of the root's OWNERS file may override, too.
    allow_top_level_owners: true
    # Slugs of teams whose members may, by org or org/repo.
    allowed_github_teams:
        kubernetes/kubernetes:
            - team1
            - team2
";

fn counts(comment: &GenericComment) -> bool {
    comment.is_new_on_open_pull_request()
}

/// What the forge said, or what to answer because it refused.
///
/// # Errors
/// Outages: nothing is answered then, the question waits.
fn answered<T>(said: Result<T, ForgeError>, answer: &str) -> Result<Result<T, String>, PlanError> {
    match said {
        Ok(value) => Ok(Ok(value)),
        Err(error) if outage(&error).is_some() => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, answer, "an override is refused");
            Ok(Err(answer.to_owned()))
        }
    }
}

/// PLG-OVERRIDE-002: what the forge will not tell means no.
async fn is_authorized(
    cx: &Planning<'_>,
    settings: &Settings,
    login: &str,
    pr: &PullRequest,
) -> Result<bool, PlanError> {
    let repo = &pr.repo;
    let permission = cx.forge.permission(repo, login).await;
    if answered(permission, "cannot determine whether they are an admin")? == Ok(Permission::Admin)
    {
        return Ok(true);
    }
    let slugs: Vec<&String> = settings.teams(repo).collect();
    for slug in slugs {
        let members = cx.forge.team_members(&repo.org, slug).await;
        let members = answered(members, "cannot find the members of a team")?;
        if members.is_ok_and(|members| members.iter().any(|member| member == login)) {
            return Ok(true);
        }
    }
    if !settings.allow_top_level_owners {
        return Ok(false);
    }
    match cx.owners(repo, &pr.base.branch).await {
        Ok(owners) => Ok(owners.top_level_approvers().contains(&norm_login(login))),
        Err(PlanError::Failed(error)) => {
            tracing::warn!(error, %repo, login, "cannot determine whether they are a top level owner");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn head(
    cx: &Planning<'_>,
    comment: &GenericComment,
    pr: &PullRequest,
) -> Result<Result<Head, Denied>, PlanError> {
    let settings: &Settings = cx.section(NAME)?;
    let (repo, sha, number) = (&pr.repo, &pr.head.sha, pr.number);
    if !is_authorized(cx, settings, &comment.user.login, pr).await? {
        let who = settings.who_can_use(Some(repo));
        return Ok(Err(Denied::Unauthorized(who)));
    }
    let combined = cx.forge.combined_status(repo, sha).await;
    let answer = format!("Cannot get commit statuses for PR #{number} in {repo}");
    let statuses = match answered(combined, &answer)? {
        Ok(combined) => combined.statuses,
        Err(answer) => return Ok(Err(Denied::Failed(answer))),
    };
    let mut checks = Vec::new();
    if cx.bot.app {
        let runs = cx.forge.check_runs(repo, sha).await;
        let answer = format!("Cannot get commit checkruns for PR #{number} in {repo}");
        match answered(runs, &answer)? {
            Ok(runs) => checks = runs,
            Err(answer) => return Ok(Err(Denied::Failed(answer))),
        }
    }
    Ok(Ok(Head {
        sha: sha.clone(),
        statuses,
        checks,
        app: cx.bot.login.clone(),
    }))
}

/// Jobs in the repository itself, and the tip of the base branch if it had to be known for them.
async fn own_jobs(
    cx: &Planning<'_>,
    pr: &PullRequest,
) -> Result<Result<(Own, Option<String>), String>, PlanError> {
    let identifier = pr.repo.to_string();
    let config = &cx.running.config;
    if !config.prow.in_repo_config_enabled(&identifier) {
        return Ok(Ok((Own::default(), None)));
    }
    let answer = "Failed to get presubmits";
    let tip = cx.forge.branch_head(&pr.repo, &pr.base.branch).await;
    let base = match answered(tip, answer)? {
        Ok(base) => base,
        Err(answer) => return Ok(Err(answer)),
    };
    let heads = [pr.head.sha.as_str()];
    let commits = Commits {
        base: &base,
        heads: &heads,
    };
    match cx.in_repo.jobs(config, &identifier, commits).await {
        Ok(own) => Ok(Ok((own, Some(base)))),
        Err(InRepoError::Git(error)) if is_passing(cx, &error) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, identifier, "an override is refused");
            Ok(Err(answer.to_owned()))
        }
    }
}

fn is_passing(cx: &Planning<'_>, error: &GitError) -> bool {
    error.is_outage() || !cx.last_try
}

async fn targets<'j>(
    cx: &Planning<'_>,
    asks: &[Ask],
    pr: &PullRequest,
    head: &Head,
    presubmits: Vec<&'j Presubmit>,
    base_sha: Option<&str>,
) -> Result<Result<Targets<'j>, String>, PlanError> {
    if !asks.iter().any(|ask| matches!(ask, Ask::Force { .. })) {
        return Ok(Ok(Targets::default()));
    }
    let (repo, branch) = (&pr.repo, &pr.base.branch);
    let required = cx.forge.required_contexts(repo, branch).await;
    let answer = format!("Cannot get branch protection for branch {branch} in {repo}");
    let required = match answered(required, &answer)? {
        Ok(required) => required,
        Err(answer) => return Ok(Err(answer)),
    };
    let mut targets = Targets {
        presubmits,
        required,
        base_sha: base_sha.map(|sha| Ok(sha.to_owned())),
        branch: branch.clone(),
    };
    if targets.base_sha.is_none() && decide::all_known(asks, head, &targets) {
        let tip = cx.forge.branch_head(repo, branch).await;
        targets.base_sha = Some(answered(tip, "Cannot get base ref of PR")?);
    }
    Ok(Ok(targets))
}

/// The jobs that a verdict stores, as records: those that it takes back first.
fn records(
    cx: &Planning<'_>,
    comment: &GenericComment,
    pr: &PullRequest,
    base_sha: &str,
    verdict: Verdict<'_>,
) -> Result<Decision, PlanError> {
    let mut decision = verdict.decision;
    let mut place = 0;
    let mut next_id = || {
        place += 1;
        job_id(cx.guid, NAME, place - 1)
    };
    let told = |job: &mut trireme_proto::state::Job, state: JobState, description: String| {
        job.set_state(state);
        job.description = description;
        job.url.clone_from(&comment.html_url);
    };
    for (context, description) in verdict.reverted {
        let newest = cx
            .state
            .jobs_of_pull(&pr.repo.org, &pr.repo.repo, pr.number)
            .rfind(|job| {
                job.context == context
                    && is_complete(job)
                    && job.pulls.iter().any(|pull| pull.head_sha == pr.head.sha)
            });
        let Some(stored) = newest.filter(|job| {
            job.state() == JobState::Success && job.description.starts_with(OVERRIDDEN)
        }) else {
            continue;
        };
        let mut job = trireme_proto::state::Job::clone(stored);
        job.id = next_id();
        cx.guid.clone_into(&mut job.origin);
        told(&mut job, JobState::Failure, description);
        decision.jobs.push(NewJob {
            job: Some(Box::new(job)),
            cause: "/override-cancel".to_owned(),
            ..NewJob::default()
        });
    }
    let none = BTreeMap::new();
    let run = PullRun {
        pull_request: pr,
        base_sha,
        guid: cx.guid,
        labels: &none,
        now: cx.now,
    };
    let mut made = BTreeSet::new();
    for (presubmit, description) in verdict.passed {
        if !made.insert(presubmit.reporter.context.clone()) {
            continue;
        }
        let job = run.prow_job(presubmit, next_id());
        let job = run_record(cx.running, job, cx.guid);
        let mut job = job.map_err(|why| PlanError::Failed(why.to_string()))?;
        told(&mut job, JobState::Success, description);
        decision.jobs.push(NewJob {
            job: Some(Box::new(job)),
            cause: "/override".to_owned(),
            ..NewJob::default()
        });
    }
    Ok(decision)
}
