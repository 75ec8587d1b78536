//! What becomes of an override, from what was asked and what stands on the head.

use std::collections::{BTreeMap, BTreeSet};

use trireme_config::job::Presubmit;
use trireme_forge::webhook::GenericComment;
use trireme_forge::{CheckRun, CommitStatus, StatusState};
use trireme_office::description::{SKIP_RETEST, with_base_sha};
use trireme_proto::state::{Context, ContextState, effect::Action};

use super::asked::Ask;
use crate::decision::{Decision, Ordinal, Outcome, Target, Text};
use crate::respond::answer;

/// Begins the description of what was overridden.
pub(super) const OVERRIDDEN: &str = "Overridden by";

/// What was found out, each part only as far as the ones before it give reason to: an `Err` is what to answer.
pub(super) struct Known<'j> {
    /// `Err` also where somebody may not override: see [`unauthorized`].
    pub(super) head: Result<Head, Denied>,
    pub(super) targets: Result<Targets<'j>, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denied {
    /// Who may, in words.
    Unauthorized(String),
    Failed(String),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub(super) sha: String,
    /// The newest of each context (PLG-OVERRIDE-009).
    pub(super) statuses: Vec<CommitStatus>,
    /// Empty unless we are a GitHub App.
    pub(super) checks: Vec<CheckRun>,
    /// Slug of the app that we are.
    pub(super) app: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Targets<'j> {
    pub(super) presubmits: Vec<&'j Presubmit>,
    /// By the protection of the base branch.
    pub(super) required: Vec<String>,
    /// Where the base branch is, or what to answer.
    pub(super) base_sha: Option<Result<String, String>>,
    pub(super) branch: String,
}

impl<'j> Targets<'j> {
    /// The job that reports to a context, one that runs on the branch before others.
    fn job_for(&self, context: &str) -> Option<&'j Presubmit> {
        let mut of_context = self
            .presubmits
            .iter()
            .copied()
            .filter(|job| job.reporter.context == context);
        let on_branch = of_context
            .clone()
            .find(|job| job.brancher.should_run(&self.branch));
        on_branch.or_else(|| of_context.next())
    }
}

/// What is to be done, before its jobs are made into records.
#[derive(Debug, Default)]
pub(super) struct Verdict<'j> {
    pub(super) decision: Decision,
    /// Jobs to store as passed, with their descriptions (PLG-OVERRIDE-005).
    pub(super) passed: Vec<(&'j Presubmit, String)>,
    /// Contexts whose stored jobs count no more, with the description of those that take their place.
    pub(super) reverted: Vec<(String, String)>,
}

/// The statuses, check runs and jobs that a person can name (PLG-OVERRIDE-003).
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    names: BTreeSet<String>,
    statuses: Vec<CommitStatus>,
}

fn named(head: &Head, checks: &BTreeMap<&str, &str>, targets: &Targets<'_>) -> Named {
    let mut named = Named::default();
    for status in &head.statuses {
        if status.state == StatusState::Success {
            continue;
        }
        named.names.insert(status.context.clone());
        if let Some(job) = targets.job_for(&status.context) {
            named.names.insert(job.base.name.clone());
        }
        named.statuses.push(status.clone());
    }
    let failed = checks
        .iter()
        .filter(|(_, state)| !matches!(**state, "SUCCESS" | "PENDING"));
    named
        .names
        .extend(failed.map(|(name, _)| (*name).to_owned()));
    for context in &targets.required {
        if named.names.insert(context.clone()) {
            let shown = head.statuses.iter().find(|had| had.context == *context);
            named.statuses.push(CommitStatus {
                context: context.clone(),
                state: StatusState::Expected,
                description: String::new(),
                target_url: shown.map_or_else(String::new, |had| had.target_url.clone()),
            });
        }
    }
    named.statuses.sort_by(|a, b| a.context.cmp(&b.context));
    named
}

/// By name the best state of the check runs (PLG-OVERRIDE-004).
fn best(runs: &[CheckRun]) -> BTreeMap<&str, &str> {
    let mut best = BTreeMap::new();
    for run in runs.iter().filter(|run| !run.name.is_empty()) {
        let state = match (run.status.as_str(), run.conclusion.as_str()) {
            ("COMPLETED", "NEUTRAL") => "SUCCESS",
            ("COMPLETED", conclusion) => conclusion,
            _ => "PENDING",
        };
        best.entry(run.name.as_str())
            .and_modify(|former| {
                let better = match (*former, state) {
                    (_, "SUCCESS") => true,
                    (former, "PENDING") => matches!(former, "ERROR" | "FAILURE" | "EXPECTED"),
                    ("EXPECTED", state) => matches!(state, "ERROR" | "FAILURE"),
                    _ => false,
                };
                if better {
                    *former = state;
                }
            })
            .or_insert(state);
    }
    best
}

/// Whether all that is asked for can be overridden, so that it matters where the base branch is.
pub(super) fn all_known(asks: &[Ask], head: &Head, targets: &Targets<'_>) -> bool {
    let known = named(head, &best(&head.checks), targets).names;
    asks.iter().any(|ask| match ask {
        Ask::Force {
            names: Some(names), ..
        } => names.is_subset(&known),
        _ => false,
    })
}

pub(super) fn decide<'j>(comment: &GenericComment, asks: &[Ask], known: &Known<'j>) -> Verdict<'j> {
    let mut work = Work {
        on: Target::new(&comment.repo, comment.number),
        comment,
        head: known.head.as_ref().ok().cloned().unwrap_or_default(),
        forced: BTreeSet::new(),
        verdict: Verdict::default(),
    };
    for ask in asks {
        if ask.is_bare() {
            let command = ask.command();
            work.say(&format!(
                "{command} requires failed status contexts to operate on, but none was given"
            ));
            continue;
        }
        match (&known.head, ask) {
            (Err(Denied::Failed(answer)), _) => work.say(answer),
            (Err(Denied::Unauthorized(who)), _) => {
                let (user, command) = (&comment.user.login, ask.command());
                work.say(&format!(
                    "{user} unauthorized: {command} is restricted to {who}"
                ));
            }
            (Ok(_), Ask::Cancel(names)) => work.cancel(names.as_ref()),
            (Ok(_), Ask::Force { sticky, names }) => match &known.targets {
                Err(answer) => work.say(answer),
                Ok(targets) => work.force(*sticky, names.as_ref(), ask.command(), targets),
            },
        }
    }
    work.verdict
}

struct Work<'a, 'j> {
    on: Target,
    comment: &'a GenericComment,
    /// As the former commands of the text leave it.
    head: Head,
    /// What they overrode.
    forced: BTreeSet<String>,
    verdict: Verdict<'j>,
}

impl<'j> Work<'_, 'j> {
    fn answer(&self, message: &str) -> Action {
        answer(self.comment, message)
    }

    fn say(&mut self, message: &str) {
        let answer = self.answer(message);
        self.verdict.decision.push(answer);
    }

    fn force(
        &mut self,
        sticky: bool,
        asked: Option<&BTreeSet<String>>,
        command: &str,
        targets: &Targets<'j>,
    ) {
        let Some(asked) = asked else { return };
        let head = self.head.clone();
        let checks = best(&head.checks);
        let named = named(&head, &checks, targets);
        let known = &named.names | &self.forced;
        let unknown: Vec<&String> = asked.difference(&known).collect();
        if !unknown.is_empty() {
            let unknown = list(unknown);
            let names = list(&named.names);
            return self.say(&format!("{command} requires failed status contexts, check run or a prowjob name to operate on.\nThe following unknown contexts/checkruns were given:\n{unknown}\n\nOnly the following failed contexts/checkruns were expected:\n{names}\n\nIf you are trying to override a checkrun that has a space in it, you must put a double quote on the context.\n"));
        }
        let base_sha = match &targets.base_sha {
            Some(Ok(sha)) => sha,
            Some(Err(answer)) => return self.say(answer),
            None => return,
        };
        let user = &self.comment.user.login;
        let description = match sticky {
            true => format!("{OVERRIDDEN} {user} {SKIP_RETEST}"),
            false => format!("{OVERRIDDEN} {user}"),
        };
        let mut chain = Chain::default();
        for status in &named.statuses {
            let job = targets.job_for(&status.context);
            let by_job = job.is_some_and(|job| asked.contains(&job.base.name));
            if !asked.contains(&status.context) && !by_job {
                continue;
            }
            if let Some(job) = job {
                self.verdict.passed.push((job, description.clone()));
                self.forced.insert(job.base.name.clone());
            }
            self.forced.insert(status.context.clone());
            let described = with_base_sha(&description, base_sha);
            self.set_status(&mut chain, status, ContextState::Success, &described);
        }
        for name in checks.keys().filter(|name| asked.contains(**name)) {
            let run = self.on.check_run(
                &head.sha,
                name,
                "success",
                &format!("Prow override - {name}"),
                &format!("Prow has received override command for the {name} checkrun."),
            );
            self.make_check_run(&mut chain, name, run);
            self.forced.insert((*name).to_owned());
        }
        let persists = match sticky {
            true => {
                "\n\nThese overrides will persist across retests on the current HEAD SHA. Pushing a new commit will clear them. Use `/override-cancel` to remove them."
            }
            false => "",
        };
        let message = format!("Overrode contexts on behalf of {user}: ");
        self.tell(chain, &message, persists);
    }

    /// PLG-OVERRIDE-008, PLG-OVERRIDE-009
    fn cancel(&mut self, asked: Option<&BTreeSet<String>>) {
        let user = &self.comment.user.login;
        let is_asked = |name: &String| asked.is_none_or(|asked| asked.contains(name));
        let description = format!("Override cancelled by {user}");
        let head = self.head.clone();
        let mut chain = Chain::default();
        let overridden = head
            .statuses
            .iter()
            .filter(|status| status.description.contains(OVERRIDDEN) && is_asked(&status.context));
        for status in overridden {
            self.set_status(&mut chain, status, ContextState::Failure, &description);
            let context = status.context.clone();
            self.verdict.reverted.push((context, description.clone()));
        }
        // We make no other check runs than these.
        let ours = head
            .checks
            .iter()
            .filter(|run| run.app == head.app && run.conclusion == "SUCCESS");
        for run in ours.filter(|run| is_asked(&run.name)) {
            let name = &run.name;
            let action = self.on.check_run(
                &head.sha,
                name,
                "failure",
                &format!("Prow override cancelled - {name}"),
                &format!("Prow has received override-cancel command for the {name} checkrun."),
            );
            self.make_check_run(&mut chain, name, action);
        }
        if chain.done.is_empty() {
            return self.say("No overrides found to cancel");
        }
        let message = format!("Cancelled overrides on behalf of {user}: ");
        self.tell(chain, &message, "");
    }

    fn set_status(
        &mut self,
        chain: &mut Chain,
        status: &CommitStatus,
        state: ContextState,
        description: &str,
    ) {
        let name = &status.context;
        let context = Context {
            context: name.clone(),
            state: state.into(),
            description: description.to_owned(),
            target_url: status.target_url.clone(),
            ..Context::default()
        };
        let action = self.on.status(&self.head.sha, context);
        let answer = self.answer(&format!("Cannot update PR status for context {name}"));
        chain.add(&mut self.verdict.decision, name, action, answer);
        let state = match state {
            ContextState::Success => StatusState::Success,
            _ => StatusState::Failure,
        };
        let mut statuses = self.head.statuses.iter_mut();
        if let Some(now) = statuses.find(|now| now.context == *name) {
            now.state = state;
            description.clone_into(&mut now.description);
        }
    }

    fn make_check_run(&mut self, chain: &mut Chain, name: &str, run: Action) {
        let answer = self.answer(&format!("cannot create prow-override CheckRun {name}"));
        chain.add(&mut self.verdict.decision, name, run, answer);
    }

    /// PLG-OVERRIDE-007: what was done is told, also if a later one failed.
    fn tell(&mut self, chain: Chain, before: &str, after: &str) {
        let Some((first, _)) = chain.done.first().cloned() else {
            return;
        };
        let mut done = chain.done;
        done.sort_by(|(_, a), (_, b)| a.cmp(b));
        done.dedup_by(|(_, a), (_, b)| a == b);
        let text = Text::from(before).and_those_done(done, ", ").and(after);
        let answer = answer(self.comment, text);
        let decision = &mut self.verdict.decision;
        decision.push_if(first, &[Outcome::Ok], answer);
    }
}

/// Effects of which each is for nothing unless the one before it was done.
#[derive(Default)]
struct Chain {
    /// With the names that are told.
    done: Vec<(Ordinal, String)>,
}

impl Chain {
    fn add(&mut self, to: &mut Decision, name: &str, action: Action, if_refused: Action) {
        let at = match self.done.last() {
            None => to.push(action),
            Some((former, _)) => to.push_if(*former, &[Outcome::Ok], action),
        };
        to.push_if(at, &[Outcome::Refused], if_refused);
        self.done.push((at, name.to_owned()));
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let lines = names.into_iter().map(|name| format!(" - `{name}`"));
    lines.collect::<Vec<_>>().join("\n")
}
