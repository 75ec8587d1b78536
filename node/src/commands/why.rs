//! `config why`: by which rule a job runs, or does not run, for a pull request.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use trireme_config::{
    gerrit,
    job::{
        AnyJob, Contexts, Filter, Periodic,
        explain::{self, Explanation, Step},
    },
};
use trireme_forge::{PullRequests as _, RepoId, Statuses as _};
use trireme_plugins::{Standstill, asking};

use super::{
    configured::{Configured, Found, InForce, Which, find, in_checkout},
    github::{Client, GitHubArgs},
};
use crate::{
    exit::{USAGE, coded},
    output::{Format, print, print_json},
};

/// Say by which rule a job runs, or does not run, for a pull request.
///
/// Without --comment: for an event of the pull request, when all that runs by itself is started. The pull request is asked
/// of GitHub, or described by flags:
///
///   trireme config why unit --pr org/repo#12
///   trireme config why unit --pr org/repo#12 --comment '/test unit'
///   trireme config why unit --repo org/repo --base main --changed go.mod --changed docs/a.md
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct WhyArgs {
    /// Name of the job.
    pub job: String,
    /// The pull request.
    #[arg(long, value_parser = pull_request, value_name = "ORG/REPO#N")]
    pub pr: Option<(String, u64)>,
    /// Instead of --pr: the branch that a pull request asks to be merged into.
    #[arg(long, conflicts_with = "pr", value_name = "BRANCH")]
    pub base: Option<String>,
    /// With --base: a changed file; may be given several times.
    #[arg(long, num_args = 1.., conflicts_with = "pr", value_name = "FILE")]
    pub changed: Vec<String>,
    /// With --base: it is a draft.
    #[arg(long, conflicts_with = "pr")]
    pub draft: bool,
    /// With --base: its labels, comma-separated.
    #[arg(
        long,
        value_delimiter = ',',
        conflicts_with = "pr",
        value_name = "LABEL,..."
    )]
    pub labels: Vec<String>,
    /// With --base: a context that failed, for /retest; may be given several times.
    #[arg(long, conflicts_with = "pr", value_name = "CONTEXT")]
    pub failed: Vec<String>,
    /// With --base: another context that has a status; may be given several times.
    #[arg(long, conflicts_with = "pr", value_name = "CONTEXT")]
    pub reported: Vec<String>,
    /// What somebody comments.
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    #[command(flatten)]
    pub which: Which,
    /// Also look among the jobs of this checkout of the repository (.prow.yaml or .prow/).
    #[arg(long, value_name = "DIR")]
    pub in_repo_checkout: Option<PathBuf>,
    #[command(flatten)]
    pub configured: Configured,
    #[command(flatten)]
    pub github: GitHubArgs,
    /// text for people, json for programs.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

fn pull_request(text: &str) -> Result<(String, u64), String> {
    let wrong = || "write it as ORG/REPO#NUMBER".to_owned();
    let (repo, number) = text.split_once('#').ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    repo.parse::<RepoId>().map_err(|_| wrong())?;
    Ok((repo.to_owned(), number))
}

/// A pull request as far as rules look at it.
#[derive(Debug, Default)]
struct Situation {
    /// None where flags do not say.
    repo: Option<String>,
    number: Option<u64>,
    base: String,
    files: Vec<String>,
    draft: bool,
    /// None while the forge has not computed it.
    mergeable: Option<bool>,
    labels: Vec<String>,
    contexts: Contexts,
    comment: Option<String>,
}

/// # Errors
/// When the configuration or the pull request cannot be had, or there is no such job.
pub async fn run(args: &WhyArgs) -> anyhow::Result<()> {
    if args.pr.is_none() && args.base.is_none() {
        let message = "say for which pull request: one on GitHub with --pr ORG/REPO#N, or describe one with --base BRANCH";
        return Err(coded(USAGE, message));
    }
    let github = args.github.client()?;
    let in_force = args.configured.load().await?;
    let situation = situation(args, &github).await?;
    let which = Which {
        repo: situation.repo.clone(),
        kind: args.which.kind,
    };
    let own = match (&args.in_repo_checkout, &which.repo) {
        (Some(checkout), Some(repo)) => Some((
            repo.as_str(),
            in_checkout(&in_force.config, repo, checkout)?,
        )),
        (Some(_), None) => {
            return Err(coded(
                USAGE,
                "--in-repo-checkout: say of which repository with --repo",
            ));
        }
        _ => None,
    };
    let own = own.as_ref().map(|(repo, jobs)| (*repo, jobs));
    let found = find(&in_force.config, own, &args.job, &which).map_err(|why| {
        let on = which
            .repo
            .as_deref()
            .filter(|repo| in_force.config.prow.in_repo_config_enabled(repo));
        match on {
            Some(repo) if own.is_none() => coded(
                crate::exit::NOT_FOUND,
                format!(
                    "{why} {repo} may have jobs in its own files: name a checkout of it with --in-repo-checkout"
                ),
            ),
            _ => why,
        }
    })?;
    // Jobs of one name and repository differ by branch: each tells its own, those that run first.
    let mut explained: Vec<(Found<'_>, Explanation)> = found
        .iter()
        .map(|found| (*found, explain(*found, &situation, &in_force)))
        .collect();
    explained.sort_by_key(|(_, explained)| !explained.runs);
    match args.output {
        Format::Json => {
            let jobs: Vec<_> = explained
                .iter()
                .map(|(found, explained)| {
                    let source = &found.job.base().source;
                    json!({
                        "name": args.job, "type": found.job.job_type(), "repo": found.repo,
                        "file": &*source.file, "line": source.line,
                        "runs": explained.runs, "rules": explained.rules,
                    })
                })
                .collect();
            print_json(&json!({
                "configuration": in_force.whence,
                "pull_request": {
                    "repo": situation.repo, "number": situation.number, "base": situation.base,
                    "changed_files": situation.files.len(), "draft": situation.draft, "labels": situation.labels,
                },
                "comment": situation.comment,
                "jobs": jobs,
            }))
        }
        Format::Text => {
            let mut text = String::new();
            for (found, explained) in &explained {
                if !text.is_empty() {
                    text.push('\n');
                }
                write!(text, "{}", told(&args.job, *found, explained, &situation))?;
            }
            Ok(print(&text)?)
        }
    }
}

async fn situation(args: &WhyArgs, github: &Client) -> anyhow::Result<Situation> {
    let comment = args.comment.clone();
    let asks_for_contexts = comment.as_deref().is_some_and(asking::wants_contexts);
    let Some((repo, number)) = &args.pr else {
        let failed: std::collections::BTreeSet<String> = args.failed.iter().cloned().collect();
        let all = failed.iter().chain(&args.reported).cloned().collect();
        return Ok(Situation {
            repo: args.which.repo.clone(),
            base: args.base.clone().unwrap_or_default(),
            files: args.changed.clone(),
            draft: args.draft,
            labels: args.labels.clone(),
            contexts: Contexts { failed, all },
            comment,
            ..Situation::default()
        });
    };
    let id: RepoId = repo.parse()?;
    let asked = || format!("asking GitHub about {repo}#{number}");
    let pr = github
        .ask(async |github| github.pull_request(&id, *number).await)
        .await
        .map_err(|why| github.failed(why))
        .with_context(asked)?;
    let changed = github
        .ask(async |github| github.changed_files(&id, *number).await)
        .await
        .map_err(|why| github.failed(why))
        .with_context(asked)?;
    let contexts = if asks_for_contexts {
        let statuses = github
            .ask(async |github| github.combined_status(&id, &pr.head.sha).await)
            .await
            .map_err(|why| github.failed(why))
            .with_context(asked)?;
        asking::contexts(&statuses)
    } else {
        Contexts::default()
    };
    Ok(Situation {
        repo: Some(repo.clone()),
        number: Some(*number),
        base: pr.base.branch,
        files: changed.into_iter().map(|file| file.path).collect(),
        draft: pr.draft,
        mergeable: pr.mergeable,
        labels: pr.labels.into_iter().map(|label| label.name).collect(),
        contexts,
        comment,
    })
}

fn explain(found: Found<'_>, situation: &Situation, in_force: &InForce) -> Explanation {
    let repo = situation.repo.as_deref().or(found.repo).unwrap_or_default();
    let (base, files) = (situation.base.as_str(), situation.files.as_slice());
    let mut explained = match found.job {
        AnyJob::Periodic(job) => return periodic(job),
        AnyJob::Postsubmit(job) => explain::postsubmit(job, base, files),
        AnyJob::Presubmit(job) => {
            let split = gerrit::split_repo(repo);
            let ignore_ok_to_test = split.as_ref().is_some_and(|(org, repo)| {
                in_force.plugins.trigger_for(org, repo).ignore_ok_to_test
            });
            let filter = match &situation.comment {
                None => Filter::TestAll,
                Some(comment) => {
                    asking::filter_for(comment, ignore_ok_to_test, &situation.contexts)
                }
            };
            let mut explained = explain::presubmit(job, &filter, base, files);
            explained.overrule(trust(situation));
            explained.overrule(standstill(situation));
            explained
        }
    };
    if in_force.files.layout.plugins.is_some() {
        explained.overrule(plugin(repo, in_force));
    }
    explained.overrule(in_repo(found, repo, in_force));
    explained
}

fn periodic(job: &Periodic) -> Explanation {
    let clock = [
        ("interval", &job.interval),
        ("minimum_interval", &job.minimum_interval),
        ("cron", &job.cron),
    ];
    let clock: Vec<String> = clock
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(field, value)| format!("{field} {value}"))
        .collect();
    let text = format!(
        "a periodic is started by the clock ({}), never by a pull request",
        clock.join(", ")
    );
    Explanation {
        runs: false,
        rules: vec![Step::new("type", text).deciding(false)],
    }
}

/// Whom trigger trusts, as far as the labels tell.
fn trust(situation: &Situation) -> Step {
    let has = |name: &str| {
        situation
            .labels
            .iter()
            .any(|label| label.eq_ignore_ascii_case(name))
    };
    let untrusted = has(asking::NEEDS_OK_TO_TEST) && !has(asking::OK_TO_TEST);
    match (&situation.comment, untrusted) {
        (None, true) => Step::new(
            "trust",
            format!(
                "the label {} is set: nothing starts by itself until somebody trusted says /ok-to-test",
                asking::NEEDS_OK_TO_TEST
            ),
        )
        .deciding(false),
        (None, false) => Step::new("trust", "no label says that the author is not trusted"),
        (Some(_), true) => Step::new(
            "trust",
            "the pull request is not trusted yet: whoever comments has to be",
        ),
        (Some(_), false) => Step::new("trust", "whoever comments, or the author, has to be trusted"),
    }
}

fn standstill(situation: &Situation) -> Step {
    let found = if situation.comment.is_some() {
        Standstill::of_command(situation.mergeable)
    } else {
        Standstill::of_event(situation.draft, situation.mergeable)
    };
    match found {
        Some(Standstill::Draft) => {
            Step::new("draft", "it is a draft: nothing starts by itself").deciding(false)
        }
        Some(Standstill::Conflict) => Step::new(
            "mergeable",
            "it conflicts with its base branch: nothing starts",
        )
        .deciding(false),
        None if situation.draft => {
            Step::new("draft", "it is a draft, which does not matter for commands")
        }
        None => Step::new("draft", "it is no draft, and no conflict is known"),
    }
}

fn plugin(repo: &str, in_force: &InForce) -> Step {
    let on = gerrit::split_repo(repo)
        .is_some_and(|(org, name)| in_force.plugins.is_enabled("trigger", &org, &name));
    if on {
        Step::new("plugin", format!("the plugin trigger is on for {repo}"))
    } else {
        let text = format!("the plugin trigger is not on for {repo}: nobody starts its jobs");
        Step::new("plugin", text).deciding(false)
    }
}

fn in_repo(found: Found<'_>, repo: &str, in_force: &InForce) -> Step {
    let source = &found.job.base().source;
    let place = format!("{}:{}", source.file, source.line);
    let on = in_force.config.prow.in_repo_config_enabled(repo);
    if in_force.files.get(&source.file).is_none() {
        // In the repository's own files.
        let step = Step::new("in_repo_config", format!("in {repo} itself, {place}"));
        if on {
            return step;
        }
        let text = format!("in {repo} itself, {place}; in_repo_config is not enabled for it");
        return Step::new("in_repo_config", text).deciding(false);
    }
    let word = if on { "enabled" } else { "not enabled" };
    let text = format!("in the configuration, {place}; in_repo_config is {word} for {repo}");
    Step::new("in_repo_config", text)
}

fn told(name: &str, found: Found<'_>, explained: &Explanation, situation: &Situation) -> String {
    let runs = if explained.runs {
        "runs"
    } else {
        "does not run"
    };
    let of = match (&situation.repo, situation.number) {
        (Some(repo), Some(number)) => format!("{repo}#{number}"),
        (Some(repo), None) => format!("a pull request of {repo}"),
        _ => "a pull request".to_owned(),
    };
    let files = match situation.files.len() {
        1 => "1 changed file".to_owned(),
        n => format!("{n} changed files"),
    };
    let mut text = format!(
        "{name}, {}: {runs} for {of} ({}, {files})\n",
        found.told(),
        situation.base
    );
    let width = explained
        .rules
        .iter()
        .map(|rule| rule.rule.len())
        .max()
        .unwrap_or_default();
    for rule in &explained.rules {
        let mark = if rule.decides { "=>" } else { "  " };
        text += &format!("{mark} {:width$}  {}\n", rule.rule, rule.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_requests_are_written_as_github_writes_them() {
        assert_eq!(pull_request("org/repo#12"), Ok(("org/repo".to_owned(), 12)));
        for wrong in ["org/repo", "repo#1", "org/repo#x", "#1", "a/b/c#1"] {
            assert!(pull_request(wrong).is_err(), "{wrong}");
        }
    }
}
