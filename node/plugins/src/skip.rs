//! `/skip`: takes statuses of jobs out of the way that need not pass.

use std::collections::BTreeSet;

use async_trait::async_trait;
use trireme_config::job::{Filter, Presubmit};
use trireme_forge::webhook::{Event, GenericComment};
use trireme_forge::{CombinedStatus, ForgeError, PullRequest, StatusState};
use trireme_proto::state::{Context, ContextState};

use crate::decision::{Decision, Ordinal, Outcome, Target, Text};
use crate::facts::{Facts, Missing, contexts, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin, outage};
use crate::respond::answer;
use crate::text::{commands, drop_code_blocks};
use crate::trigger;

commands! {
    SKIP = r"(?mi)^/skip\s*$";
}

pub(crate) struct Skip;

#[async_trait]
impl Plugin for Skip {
    fn name(&self) -> &'static str {
        "skip"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        event
            .generic_comment()
            .is_some_and(|comment| asks(&comment))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(comment) = event.generic_comment().filter(asks) else {
            return Ok(Decision::nothing());
        };
        let (repo, number) = (&comment.repo, comment.number);
        let on = Target::new(repo, number);
        let pr = match cx.forge.pull_request(repo, number).await {
            Ok(pr) => pr,
            Err(error) => {
                let what = format!("Cannot get PR #{number} in {repo}");
                return refusal(&comment, &what, error);
            }
        };
        let combined = match cx.forge.combined_status(repo, &pr.head.sha).await {
            Ok(combined) => combined,
            Err(error) => {
                let what =
                    format!("Cannot get combined commit statuses for PR #{number} in {repo}");
                return refusal(&comment, &what, error);
            }
        };
        if combined.state == StatusState::Success {
            return Ok(Decision::nothing());
        }
        let mut facts = Facts::default();
        let own = trigger::own_jobs(cx, &pr, &mut facts).await?;
        let mut jobs = cx.presubmits(repo);
        jobs.extend(&own.presubmits);
        let honored = trigger::honors_ok_to_test(cx.running, repo);
        let decide = |facts: &Facts| decide(&comment, &pr, &combined, &jobs, honored, facts);
        let decision = gather(cx, &on, facts, decide).await?;
        Ok(decision.for_head(&pr.head.sha))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The skip plugin allows users to clean up GitHub stale commit statuses for non-blocking jobs on a PR.".to_owned(),
            commands: vec![Command {
                usage: "/skip",
                featured: false,
                description: "Cleans up GitHub stale commit statuses for non-blocking jobs on a PR.",
                examples: &["/skip"],
                who_can_use: "Anyone can trigger this command on a PR.",
            }],
            ..PluginHelp::default()
        }
    }
}

fn asks(comment: &GenericComment) -> bool {
    comment.is_new_on_open_pull_request() && SKIP.is_match(&comment.body)
}

/// What cannot be read is told; an outage passes.
fn refusal(comment: &GenericComment, what: &str, error: ForgeError) -> Result<Decision, PlanError> {
    match outage(&error) {
        Some(_) => Err(error.into()),
        None => Ok(vec![answer(comment, format!("{what}: {error}"))].into()),
    }
}

fn decide(
    comment: &GenericComment,
    pr: &PullRequest,
    combined: &CombinedStatus,
    jobs: &[&Presubmit],
    honors_ok_to_test: bool,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let branch = &pr.base.branch;
    let waits = |context: &str| {
        let mut of_context = combined
            .statuses
            .iter()
            .filter(|status| status.context == context);
        of_context.clone().next().is_some()
            && !of_context.any(|status| status.state == StatusState::Success)
    };
    let stale = jobs
        .iter()
        .filter(|job| waits(&job.reporter.context) && !job.context_required());
    // A job of the same context may be required on this branch, whatever that of another one is.
    let is_required = |context: &str| {
        let mut required = jobs.iter().filter(|job| job.context_required());
        required.any(|job| job.reporter.context == context && job.could_run(branch))
    };
    let stale: Vec<&&Presubmit> = stale
        .filter(|job| !is_required(&job.reporter.context))
        .collect();
    if stale.is_empty() {
        return Ok(Decision::nothing());
    }
    // What `trigger` starts for the same text is not skipped.
    let text = drop_code_blocks(&comment.body);
    let filter = Filter::for_comment(&text, honors_ok_to_test, &contexts(combined));
    let files = match filter.wants_changed_files(branch, jobs.iter().copied()) {
        true => facts.files()?,
        false => &[],
    };
    // A job may have variants of one name for several branches: what one of them runs the others do not undo.
    let name = |job: &&Presubmit| (job.base.name.clone(), job.reporter.context.clone());
    let runs = jobs
        .iter()
        .copied()
        .filter(|job| filter.decide(branch, files, job).runs());
    let runs: BTreeSet<(String, String)> = runs.map(|job| name(&job)).collect();
    let on = Target::new(&pr.repo, pr.number);
    let mut decision = Decision::nothing();
    let mut skipped = Vec::new();
    let mut last: Option<Ordinal> = None;
    for job in stale {
        let context = &job.reporter.context;
        if skipped.contains(&context) || runs.contains(&name(job)) {
            continue;
        }
        skipped.push(context);
        let status = on.status(
            &pr.head.sha,
            Context {
                context: context.clone(),
                state: ContextState::Success.into(),
                description: "Skipped".to_owned(),
                ..Context::default()
            },
        );
        // The first that cannot be set is told, and ends it.
        let set = match last {
            Some(last) => decision.push_if(last, &[Outcome::Ok], status),
            None => decision.push(status),
        };
        let why = Text::from(format!("Cannot update PR status for context {context}: "));
        let told = answer(comment, why.and_result(set));
        decision.push_if(set, &[Outcome::Refused], told);
        last = Some(set);
    }
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use trireme_forge::{CommitStatus, State};

    use super::*;
    use crate::testing::{comment, config, pull_request};

    const JOBS: &str = r"
presubmits:
  org/repo:
  - name: unit
    always_run: true
    spec: {containers: [{image: alpine}]}
  - name: lint
    optional: true
    spec: {containers: [{image: alpine}]}
  - name: quiet
    skip_report: true
    always_run: true
    spec: {containers: [{image: alpine}]}
  - name: docs
    optional: true
    run_if_changed: ^docs/
    spec: {containers: [{image: alpine}]}
  - name: e2e-main
    context: e2e
    branches: [main]
    always_run: true
    spec: {containers: [{image: alpine}]}
  - name: e2e-release
    context: e2e
    optional: true
    branches: [release]
    spec: {containers: [{image: alpine}]}
  - name: fuzz
    optional: true
    branches: [main]
    spec: {containers: [{image: alpine}]}
  - name: fuzz
    optional: true
    branches: [release]
    spec: {containers: [{image: alpine}]}
";

    fn told(body: &str, statuses: &[(&str, StatusState)]) -> String {
        let config = config(JOBS);
        let jobs: Vec<&Presubmit> = config.presubmits("org/repo").collect();
        let status = |(context, state): &(&str, StatusState)| CommitStatus {
            context: (*context).to_owned(),
            state: *state,
            description: String::new(),
            target_url: String::new(),
        };
        let combined = CombinedStatus {
            sha: "a".repeat(40),
            state: StatusState::Failure,
            statuses: statuses.iter().map(status).collect(),
        };
        let facts = Facts {
            files: Some(vec!["docs/a.md".into()]),
            ..Facts::default()
        };
        let decision = decide(
            &comment("a", body),
            &pull_request(),
            &combined,
            &jobs,
            true,
            &facts,
        );
        let told = decision
            .unwrap()
            .to_string()
            .replace(&"a".repeat(40), "head");
        let lines = told.lines().filter(|line| {
            !line.starts_with(['>', '<']) && !line.is_empty() && !line.starts_with("In")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn plg_skip_001_what_need_not_pass_is_skipped() {
        use StatusState::{Error, Failure, Pending, Success};
        insta::assert_snapshot!(told("/skip", &[("unit", Failure), ("lint", Failure), ("quiet", Pending), ("docs", Success), ("unknown", Error)]), @r"
        status lint on head: success, Skipped
        if 0 is refused: comment: @a: Cannot update PR status for context lint: {0}
        if 0 is done: status quiet on head: success, Skipped
        if 2 is refused: comment: @a: Cannot update PR status for context quiet: {2}
        ");
        assert_eq!(
            told("/skip", &[("unit", Failure), ("lint", Success)]),
            "nothing"
        );
        // What is required on this branch stays, although the same context is optional on another one.
        assert_eq!(told("/skip", &[("e2e", Failure)]), "nothing");
    }

    #[test]
    fn plg_skip_001_what_the_same_text_starts_is_not_skipped() {
        use StatusState::Failure;
        let statuses = [("lint", Failure), ("docs", Failure)];
        let first = |body: &str| {
            told(body, &statuses)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        insta::assert_snapshot!(first("/skip\n/test lint"), @"status docs on head: success, Skipped");
        insta::assert_snapshot!(first("/test all\n/skip"), @"status lint on head: success, Skipped");
        assert!(!told("/test all\n/skip", &statuses).contains("docs"));
        assert_eq!(told("/retest\n/skip", &statuses), "nothing");
        // Its variant for another branch has the same name and context.
        assert_eq!(told("/skip\n/test fuzz", &[("fuzz", Failure)]), "nothing");
        assert!(
            told("/skip", &[("fuzz", Failure)])
                .starts_with("status fuzz on head: success, Skipped")
        );
    }

    #[test]
    fn plg_skip_001_on_open_pull_requests() {
        assert!(asks(&comment("a", "x\n/SKIP \r\n")));
        assert!(!asks(&comment("a", "/skip lint")));
        let mut closed = comment("a", "/skip");
        closed.issue_state = State::Closed;
        assert!(!asks(&closed));
        let mut issue = comment("a", "/skip");
        issue.is_pr = false;
        assert!(!asks(&issue));
    }

    #[test]
    fn plg_skip_001_what_cannot_be_read_is_told_and_an_outage_passes() {
        let gone = ForgeError::NotFound {
            request: "GET /x".into(),
            message: "gone".into(),
        };
        let told = refusal(&comment("a", "/skip"), "Cannot get PR #5 in org/repo", gone);
        let told = told.unwrap().to_string();
        assert!(
            told.starts_with("comment: @a: Cannot get PR #5 in org/repo: "),
            "{told}"
        );
        let down = ForgeError::Unavailable {
            request: "GET /x".into(),
            reason: "502".into(),
            maybe_sent: false,
        };
        assert!(matches!(
            refusal(&comment("a", "/skip"), "x", down),
            Err(PlanError::Outage { .. })
        ));
    }
}
