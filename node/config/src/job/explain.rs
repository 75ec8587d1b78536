//! Why a job runs or does not: the rules that the decision went through, in words. The decision itself is
//! [`Filter::decide`] and [`Postsubmit::decide`]; here it is only told.

use serde::Serialize;

use super::{
    Asked, BranchRule, Brancher, ChangeMatcher, ChangeRule, Choice, Decision, Filter, Postsubmit,
    Presubmit,
};
use crate::go_regex::GoRegex;

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// The job runs.
    Runs,
    /// It does not.
    DoesNotRun,
    /// Later rules decide, or it only informs.
    Open,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// A word for it: `branch`, `always_run`, `run_if_changed`, …
    pub rule: &'static str,
    pub says: Says,
    /// Whether this is the rule by which it is decided.
    pub decides: bool,
    /// For people.
    pub text: String,
}

impl Step {
    #[must_use]
    pub fn new(rule: &'static str, text: impl Into<String>) -> Self {
        Self {
            rule,
            says: Says::Open,
            decides: false,
            text: text.into(),
        }
    }

    /// The rule that decides.
    #[must_use]
    pub fn deciding(self, runs: bool) -> Self {
        Self {
            says: if runs { Says::Runs } else { Says::DoesNotRun },
            decides: true,
            ..self
        }
    }
}

/// A decision and the rules that lead to it, in their order; at most one of them decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub runs: bool,
    pub rules: Vec<Step>,
}

impl Explanation {
    /// Puts a rule before all others: one that comes before what the job itself says. If it decides, the others do not.
    pub fn overrule(&mut self, rule: Step) {
        if rule.decides {
            self.runs = rule.says == Says::Runs;
            for other in &mut self.rules {
                other.decides = false;
            }
        }
        self.rules.insert(0, rule);
    }
}

/// Why a filter picks a presubmit or not.
#[must_use]
pub fn presubmit<S: AsRef<str>>(
    job: &Presubmit,
    filter: &Filter,
    branch: &str,
    files: &[S],
) -> Explanation {
    let choice = filter.decide(branch, files, job);
    let asked = match choice {
        Choice::NotAsked => Step::new("asked", not_asked(job, filter)).deciding(false),
        Choice::Asked(by, _) => Step::new("asked", told_asked(job, by)),
    };
    let mut rules = vec![asked];
    let decision = match choice {
        Choice::NotAsked => None,
        Choice::Asked(_, decision) => Some(decision),
    };
    rules.push(branch_step(&job.brancher, branch, decision));
    let always = Step::new("always_run", job.always_run.to_string());
    rules.push(match decision {
        Some(Decision::AlwaysRun) => always.deciding(true),
        _ => always,
    });
    match decision {
        Some(Decision::Forced | Decision::Default) => {
            let text = "asked for so firmly that it does not matter what changed";
            rules.push(Step::new("forced", text).deciding(true));
        }
        Some(Decision::OnDemand) => {
            rules.push(on_demand(&job.rerun_command).deciding(false));
        }
        _ => {}
    }
    rules.extend(change_step(&job.changes, files, decision));
    rules.push(Step::new("tide", required(job)));
    Explanation {
        runs: choice.runs(),
        rules,
    }
}

/// Why a postsubmit runs for a push to a branch or not.
#[must_use]
pub fn postsubmit<S: AsRef<str>>(job: &Postsubmit, branch: &str, files: &[S]) -> Explanation {
    let decision = job.decide(branch, files);
    let mut rules = vec![
        Step::new("type", "a postsubmit runs for pushes: when this is merged"),
        branch_step(&job.brancher, branch, Some(decision)),
    ];
    rules.extend(change_step(&job.changes, files, Some(decision)));
    let text = match job.always_run {
        None => "unset, which means yes".to_owned(),
        Some(always) => always.to_string(),
    };
    let always = Step::new("always_run", text);
    rules.push(match decision {
        Decision::AlwaysRun => always.deciding(true),
        Decision::OnDemand => always.deciding(false),
        _ => always,
    });
    Explanation {
        runs: decision.runs(),
        rules,
    }
}

fn told_asked(job: &Presubmit, by: Asked) -> String {
    match by {
        Asked::Trigger => format!("the comment matches the job's trigger '{}'", job.trigger),
        Asked::TestAll => "everything that runs by itself is asked for".to_owned(),
        Asked::RetestFailed => format!(
            "a retest is asked for, and the context {:?} failed",
            job.reporter.context
        ),
        Asked::RetestMissing => format!(
            "a retest is asked for, and the context {:?} has no status",
            job.reporter.context
        ),
        Asked::TestManualRequired => {
            "required jobs that wait for a command are asked for".to_owned()
        }
    }
}

fn not_asked(job: &Presubmit, filter: &Filter) -> String {
    match filter {
        Filter::TestAll => format!(
            "everything that runs by itself is asked for; this job runs only on a command: {}",
            job.rerun_command
        ),
        _ => format!(
            "the comment does not match the job's trigger '{}', nor asks for it otherwise; {} does",
            job.trigger, job.rerun_command
        ),
    }
}

fn on_demand(command: &str) -> Step {
    Step::new(
        "on_demand",
        format!("neither always_run nor a rule about changes: it waits for {command}"),
    )
}

/// The expression of a list that matches alone; the list as it is put together otherwise.
fn matching<'a>(list: &'a [String], branch: &str) -> Option<&'a str> {
    list.iter()
        .find(|re| GoRegex::new(re).is_ok_and(|re| re.is_match(branch)))
        .map(String::as_str)
}

/// As they stand in the file, nothing escaped.
fn quoted(expressions: &[String]) -> String {
    let quoted: Vec<String> = expressions.iter().map(|re| format!("'{re}'")).collect();
    quoted.join(", ")
}

fn branch_step(brancher: &Brancher, branch: &str, decision: Option<Decision>) -> Step {
    let rule = brancher.decide(branch);
    let told = |list: &[String]| {
        matching(list, branch)
            .map_or_else(|| format!("'{}'", list.join("|")), |re| format!("'{re}'"))
    };
    let text = match rule {
        BranchRule::Skipped => format!(
            "skip_branches: {} matches the branch {branch:?}",
            told(&brancher.skip_branches)
        ),
        BranchRule::Any if brancher.skip_branches.is_empty() => {
            format!("any branch, so {branch:?} too")
        }
        BranchRule::Any => format!(
            "skip_branches: none of [{}] matches the branch {branch:?}",
            quoted(&brancher.skip_branches)
        ),
        BranchRule::Listed => format!(
            "branches: {} matches the branch {branch:?}",
            told(&brancher.branches)
        ),
        BranchRule::Unlisted => format!(
            "branches: none of [{}] matches the branch {branch:?}",
            quoted(&brancher.branches)
        ),
    };
    let step = Step::new("branch", text);
    match decision {
        Some(Decision::Branch(rule)) => step.deciding(rule.allows()),
        _ => step,
    }
}

fn change_step<S: AsRef<str>>(
    changes: &ChangeMatcher,
    files: &[S],
    decision: Option<Decision>,
) -> Option<Step> {
    if !changes.is_set() {
        return None;
    }
    let (field, re, wanted) = if changes.run_if_changed.is_empty() {
        (
            "skip_if_only_changed",
            &changes.skip_if_only_changed,
            "does not match",
        )
    } else {
        ("run_if_changed", &changes.run_if_changed, "matches")
    };
    let rule = match decision {
        Some(Decision::Changes(rule)) => rule,
        _ => changes.decide(files),
    };
    let text = match rule {
        ChangeRule::Wanted(index) => {
            let file = files.get(index).map_or("", AsRef::as_ref);
            format!("'{re}' {wanted} the changed file {file:?}")
        }
        ChangeRule::Unwanted => match files.len() {
            0 => format!("'{re}', and no file is changed"),
            1 => format!("'{re}', and the one changed file wants no run"),
            n => format!("'{re}', and none of the {n} changed files wants a run"),
        },
    };
    let step = Step::new(field, text);
    Some(match decision {
        Some(decision @ Decision::Changes(_)) => step.deciding(decision.runs()),
        _ => step,
    })
}

fn required(job: &Presubmit) -> String {
    let context = &job.reporter.context;
    if job.optional {
        format!("optional: Tide does not wait for the context {context:?}")
    } else if job.reporter.skip_report {
        format!("skip_report: it has no context, so that Tide does not wait for {context:?}")
    } else if job.triggers_conditionally() {
        format!("Tide wants the context {context:?} to succeed if it is there")
    } else {
        format!("Tide wants the context {context:?} to succeed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::files::{FileSet, Layout};
    use crate::load::LoadOptions;

    const JOBS: &str = r"
presubmits:
  org/repo:
  - {name: always, always_run: true, branches: [^release-, main], spec: {containers: [{image: a}]}}
  - {name: docs, run_if_changed: '\.md$', optional: true, spec: {containers: [{image: a}]}}
  - {name: code, skip_if_only_changed: '\.md$', skip_branches: [old], spec: {containers: [{image: a}]}}
  - {name: manual, spec: {containers: [{image: a}]}}
postsubmits:
  org/repo:
  - {name: publish, run_if_changed: ^src/, spec: {containers: [{image: a}]}}
  - {name: announce, always_run: false, spec: {containers: [{image: a}]}}
";

    fn told(explanation: &Explanation) -> String {
        let mut lines = vec![format!("runs: {}", explanation.runs)];
        for step in &explanation.rules {
            let mark = if step.decides { "=> " } else { "   " };
            lines.push(format!("{mark}{}: {}", step.rule, step.text));
        }
        lines.join("\n")
    }

    fn config() -> std::sync::Arc<Config> {
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        set.insert("config.yaml", JOBS.as_bytes());
        let (config, _) = Config::load(&set, LoadOptions::default())
            .accepted()
            .unwrap();
        config
    }

    fn why(name: &str, filter: &Filter, branch: &str, files: &[&str]) -> String {
        let config = config();
        let job = config
            .presubmits("org/repo")
            .find(|job| job.base.name == name)
            .unwrap();
        let explained = presubmit(job, filter, branch, files);
        let selected = filter.select(branch, files, config.presubmits("org/repo"));
        let runs = selected.iter().any(|job| job.base.name == name);
        assert_eq!(explained.runs, runs);
        told(&explained)
    }

    #[test]
    fn job_013_the_branch_rule_is_named_with_the_expression() {
        insta::assert_snapshot!(why("always", &Filter::TestAll, "release-2", &[]), @r#"
        runs: true
           asked: everything that runs by itself is asked for
           branch: branches: '^release-' matches the branch "release-2"
        => always_run: true
           tide: Tide wants the context "always" to succeed
        "#);
        insta::assert_snapshot!(why("always", &Filter::TestAll, "dev", &[]), @r#"
        runs: false
           asked: everything that runs by itself is asked for
        => branch: branches: none of ['^release-', 'main'] matches the branch "dev"
           always_run: true
           tide: Tide wants the context "always" to succeed
        "#);
        insta::assert_snapshot!(why("code", &Filter::TestAll, "older", &["a.go"]), @r#"
        runs: false
           asked: everything that runs by itself is asked for
        => branch: skip_branches: 'old' matches the branch "older"
           always_run: false
           skip_if_only_changed: '\.md$' does not match the changed file "a.go"
           tide: Tide wants the context "code" to succeed if it is there
        "#);
    }

    #[test]
    fn job_014_the_first_file_that_decides_is_named() {
        insta::assert_snapshot!(why("docs", &Filter::TestAll, "main", &["a.go", "b.md", "c.md"]), @r#"
        runs: true
           asked: everything that runs by itself is asked for
           branch: any branch, so "main" too
           always_run: false
        => run_if_changed: '\.md$' matches the changed file "b.md"
           tide: optional: Tide does not wait for the context "docs"
        "#);
        insta::assert_snapshot!(why("code", &Filter::TestAll, "main", &["b.md", "c.md"]), @r#"
        runs: false
           asked: everything that runs by itself is asked for
           branch: skip_branches: none of ['old'] matches the branch "main"
           always_run: false
        => skip_if_only_changed: '\.md$', and none of the 2 changed files wants a run
           tide: Tide wants the context "code" to succeed if it is there
        "#);
    }

    #[test]
    fn job_018_comments_that_ask_or_do_not() {
        let comment = |body: &str| Filter::for_comment(body, true, &Default::default());
        insta::assert_snapshot!(why("manual", &Filter::TestAll, "main", &[]), @r#"
        runs: false
        => asked: everything that runs by itself is asked for; this job runs only on a command: /test manual
           branch: any branch, so "main" too
           always_run: false
           tide: Tide wants the context "manual" to succeed if it is there
        "#);
        insta::assert_snapshot!(why("manual", &comment("/test manual"), "main", &[]), @r#"
        runs: true
           asked: the comment matches the job's trigger '(?m)^/test( | .* )manual,?($|\s.*)'
           branch: any branch, so "main" too
           always_run: false
        => forced: asked for so firmly that it does not matter what changed
           tide: Tide wants the context "manual" to succeed if it is there
        "#);
        insta::assert_snapshot!(why("docs", &comment("/test manual"), "main", &["a.md"]), @r#"
        runs: false
        => asked: the comment does not match the job's trigger '(?m)^/test( | .* )docs,?($|\s.*)', nor asks for it otherwise; /test docs does
           branch: any branch, so "main" too
           always_run: false
           run_if_changed: '\.md$' matches the changed file "a.md"
           tide: optional: Tide does not wait for the context "docs"
        "#);
        insta::assert_snapshot!(why("docs", &comment("/retest"), "main", &["a.md"]), @r#"
        runs: true
           asked: a retest is asked for, and the context "docs" has no status
           branch: any branch, so "main" too
           always_run: false
        => run_if_changed: '\.md$' matches the changed file "a.md"
           tide: optional: Tide does not wait for the context "docs"
        "#);
    }

    #[test]
    fn job_016_postsubmits() {
        let config = config();
        let why = |name: &str, files: &[&str]| {
            let job = config
                .postsubmits("org/repo")
                .find(|job| job.base.name == name)
                .unwrap();
            told(&postsubmit(job, "main", files))
        };
        insta::assert_snapshot!(why("publish", &["src/a"]), @r#"
        runs: true
           type: a postsubmit runs for pushes: when this is merged
           branch: any branch, so "main" too
        => run_if_changed: '^src/' matches the changed file "src/a"
           always_run: unset, which means yes
        "#);
        insta::assert_snapshot!(why("announce", &[]), @r#"
        runs: false
           type: a postsubmit runs for pushes: when this is merged
           branch: any branch, so "main" too
        => always_run: false
        "#);
    }

    #[test]
    fn a_rule_before_all_others_takes_the_decision() {
        let config = config();
        let job = config.presubmits("org/repo").next().unwrap();
        let mut explained = presubmit(job, &Filter::TestAll, "main", &[""; 0]);
        assert!(explained.runs);
        explained.overrule(Step::new("draft", "it is a draft").deciding(false));
        assert!(!explained.runs);
        assert_eq!(
            explained.rules.iter().filter(|rule| rule.decides).count(),
            1
        );
    }
}
