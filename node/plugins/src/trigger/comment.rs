//! What a text on a pull request starts (PLG-TRIGGER-003 … 021).

use trireme_config::job::{AvailableTests, Command, Contexts, Filter, Presubmit};
use trireme_forge::webhook::GenericComment;
use trireme_forge::{BotUser, has_label};

use super::jobs::Runs;
use super::pull_request::Standstill;
use super::trust::{is_trusted, is_trusted_pull_request};
use super::{Options, Verdict, help, texts};
use crate::decision::Target;
use crate::facts::{Facts, Missing};
use crate::label_names::{NEEDS_OK_TO_TEST, OK_TO_TEST};
use crate::respond::reply_to;
use crate::text::drop_code_blocks;

/// Whether the text alone allows any decision: a job may listen to anything, so its words do not tell.
pub(super) fn may_matter(comment: &GenericComment) -> bool {
    comment.is_new_on_open_pull_request() && !comment.body.is_empty()
}

/// Whether the text can matter: new, on an open pull request, not our own (PLG-TRIGGER-003).
pub(super) fn counts(comment: &GenericComment, bot: &BotUser) -> bool {
    comment.is_new_on_open_pull_request() && !bot.is(&comment.user.login)
}

/// Whether the text holds a command or what some job listens to (PLG-TRIGGER-005).
pub(super) fn is_relevant<'j>(body: &str, mut jobs: impl Iterator<Item = &'j Presubmit>) -> bool {
    let text = drop_code_blocks(body);
    help::has_command(&text) || jobs.any(|job| job.trigger_matches(&text))
}

pub(super) fn decide<'j>(
    comment: &GenericComment,
    options: &Options,
    bot: &BotUser,
    jobs: &[&'j Presubmit],
    facts: &Facts,
) -> Result<Verdict<'j>, Missing> {
    let text = drop_code_blocks(&comment.body);
    if !counts(comment, bot) || !is_relevant(&comment.body, jobs.iter().copied()) {
        return Ok(Verdict::default());
    }
    let on = Target::new(&comment.repo, comment.number);
    let author = &comment.user.login;
    let reply =
        |message: &str| on.comment(reply_to(&comment.body, &comment.html_url, author, message));

    let trusted = is_trusted(author, &comment.repo, options, bot, facts)?;
    if !trusted {
        let issue_author = &comment.issue_author.login;
        if !is_trusted_pull_request(issue_author, &comment.repo, options, bot, facts)? {
            let message = if options.ignore_ok_to_test {
                texts::NEVER_TRUSTED
            } else {
                texts::NOT_TRUSTED
            };
            return Ok(Verdict::effects(vec![reply(message)]));
        }
    }

    let mut effects = Vec::new();
    let honored = !options.ignore_ok_to_test;
    let labels = facts.labels()?;
    let ok = honored && Command::OkToTest.is_in(&text);
    let was_ok = has_label(labels, OK_TO_TEST);
    if ok && !was_ok {
        effects.push(on.add_label(OK_TO_TEST));
    }
    if (ok || was_ok) && has_label(labels, NEEDS_OK_TO_TEST) {
        effects.push(on.remove_label(NEEDS_OK_TO_TEST));
    }
    if honored && Command::OkToTestCancel.is_in(&text) {
        if !trusted {
            effects.push(reply(texts::ONLY_TRUSTED_REVOKE));
            return Ok(Verdict::effects(effects));
        }
        if was_ok {
            effects.push(on.remove_label(OK_TO_TEST));
        }
        if !has_label(labels, NEEDS_OK_TO_TEST) {
            effects.push(on.add_label(NEEDS_OK_TO_TEST));
        }
        return Ok(Verdict::effects(effects));
    }

    let pr = facts.pull_request()?;
    if !pr.is_open() {
        // Closed since.
        return Ok(Verdict::effects(effects));
    }
    let branch = &pr.base.branch;
    if ok && options.workflows {
        let runs = facts.workflow_runs(&pr.head.branch, &pr.head.sha)?;
        let waiting = runs.iter().filter(|run| run.awaits_approval());
        effects.extend(waiting.map(|run| on.approve_workflow(run.id)));
    }
    let none = Contexts::default();
    let contexts = if Filter::wants_contexts(&text) {
        facts.contexts(&pr.head.sha)?
    } else {
        &none
    };
    // The text without code blocks, here too: what is quoted starts nothing (PLG-TRIGGER-004).
    let filter = Filter::for_comment(&text, honored, contexts);
    let chosen = choose(&filter, branch, jobs, facts)?;
    if let Some(note) = help::note(&text, chosen.len()) {
        let files = files(&Filter::TestAll, branch, jobs, facts)?;
        let available = AvailableTests::of(branch, files, jobs);
        effects.push(reply(&help::message(
            &comment.repo,
            branch,
            note,
            &available,
        )));
        return Ok(Verdict::effects(effects));
    }
    if options.workflows && (Command::Retest.is_in(&text) || Command::TestAll.is_in(&text)) {
        let runs = facts.workflow_runs(&pr.head.branch, &pr.head.sha)?;
        let failed = runs.iter().filter(|run| run.failed());
        effects.extend(failed.map(|run| on.rerun_failed_workflow_jobs(run.id)));
    }
    if Command::AnyTest.is_in(&text) {
        let obsolete = facts
            .comments()?
            .iter()
            .filter(|comment| bot.is(&comment.author.login) && help::is_help(&comment.body))
            .map(|comment| comment.id);
        effects.extend(on.prune(obsolete.collect()));
    }
    let mut verdict = Verdict::effects(effects);
    if !chosen.is_empty() && Standstill::of_command(pr.mergeable).is_none() {
        verdict.runs = Some(Runs {
            pull_request: pr.clone(),
            base_sha: facts.branch_head(branch)?.to_owned(),
            jobs: chosen,
            retest: Filter::wants_contexts(&text),
            unless_exists: false,
            cause: commands(&text),
        });
    }
    Ok(verdict)
}

/// Characters of the commands that a run's history names.
const MAX_COMMANDS: usize = 80;

/// The commands of a text, as the cause of what they start; empty where a job listens to other words.
fn commands(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let commands: Vec<&str> = lines.filter(|line| line.starts_with('/')).collect();
    let all = commands.join(", ");
    all.chars().take(MAX_COMMANDS).collect()
}

/// The jobs that a filter picks, with their places.
pub(super) fn choose<'j>(
    filter: &Filter,
    branch: &str,
    jobs: &[&'j Presubmit],
    facts: &Facts,
) -> Result<Vec<(usize, &'j Presubmit)>, Missing> {
    let files = files(filter, branch, jobs, facts)?;
    let picked = jobs.iter().enumerate().filter(|(_, job)| {
        let one: [&Presubmit; 1] = [job];
        !filter.select(branch, files, one).is_empty()
    });
    Ok(picked.map(|(place, job)| (place, *job)).collect())
}

/// The changed files, asked for only if a job's rules look at them.
fn files<'f>(
    filter: &Filter,
    branch: &str,
    jobs: &[&Presubmit],
    facts: &'f Facts,
) -> Result<&'f [String], Missing> {
    if filter.wants_changed_files(branch, jobs.iter().copied()) {
        facts.files()
    } else {
        Ok(&[])
    }
}

#[cfg(test)]
mod tests {
    use trireme_config::Config;
    use trireme_forge::State;
    use trireme_forge::webhook::GenericAction;

    use super::*;
    use crate::testing::{PRESUBMITS, bot, bot_comment, comment, config, labels, pull_request};

    /// "member" is a member of the organisation, nobody else is trusted.
    fn facts(names: &[&str]) -> Facts {
        let people = ["member", "stranger", "author"];
        Facts {
            members: people
                .map(|login| (("org".to_owned(), login.to_owned()), login == "member"))
                .into(),
            collaborators: people.map(|login| (login.to_owned(), false)).into(),
            labels: Some(labels(names)),
            pull_request: Some(pull_request()),
            files: Some(vec!["docs/a.md".into()]),
            comments: Some(vec![]),
            branch_heads: [("main".to_owned(), "base".to_owned())].into(),
            ..Facts::default()
        }
    }

    struct World {
        config: std::sync::Arc<Config>,
        options: Options,
        facts: Facts,
    }

    impl World {
        fn new(labels: &[&str]) -> Self {
            Self {
                config: config(PRESUBMITS),
                options: Options::default(),
                facts: facts(labels),
            }
        }

        fn says(&self, login: &str, body: &str) -> String {
            let jobs: Vec<&Presubmit> = self.config.presubmits("org/repo").collect();
            let comment = comment(login, body);
            match decide(&comment, &self.options, &bot(), &jobs, &self.facts) {
                Ok(verdict) => verdict.to_string(),
                Err(missing) => format!("asks for {missing}"),
            }
        }

        /// The message of the reply alone.
        fn replies(&self, login: &str, body: &str) -> String {
            let told = self.says(login, body);
            let told = told.split("\n\n<details>").next().unwrap_or_default();
            told.to_owned()
        }
    }

    #[test]
    fn job_075_runs_are_remembered_with_the_commands_that_started_them() {
        let world = World::new(&[]);
        let jobs: Vec<&Presubmit> = world.config.presubmits("org/repo").collect();
        let cause = |text: &str| {
            let comment = comment("member", text);
            let verdict = decide(&comment, &world.options, &bot(), &jobs, &world.facts).unwrap();
            verdict.runs.unwrap().cause
        };
        assert_eq!(
            cause("Once more, please.\n/test unit\r\n/test lint"),
            "/test unit, /test lint"
        );
        let long = format!("/test unit {}", "x".repeat(100));
        assert_eq!(cause(&long).len(), MAX_COMMANDS);
    }

    #[test]
    fn plg_trigger_001_the_commands() {
        let world = World::new(&[]);
        let matters = |body: &str| is_relevant(body, world.config.presubmits("org/repo"));
        for body in [
            "/ok-to-test",
            "/ok-to-test  cancel \r",
            "hi\n/retest\t",
            "/retest-required",
            "/test-manual-required",
            "/test all",
            "/test all, please",
            "/test\t?",
            "/test",
            "/test nothing",
            "/retest nothing",
            "/test x unit",
        ] {
            assert!(matters(body), "{body:?}");
        }
        for body in [
            "/OK-to-test",
            " /retest",
            "/ok-to-test please",
            "/testing",
            "please /test all",
            "/retest-required now",
            "```\n/test all\n```",
        ] {
            assert!(!matters(body), "{body:?}");
        }
    }

    #[test]
    fn plg_trigger_002_one_line_starts_several_jobs() {
        let world = World::new(&[]);
        assert_eq!(world.says("member", "/test lint docs"), "run docs lint");
        assert_eq!(
            world.says("member", "/test unit, please\n/test lint"),
            "run unit lint"
        );
    }

    #[test]
    fn plg_trigger_017_changed_files_are_asked_for_once_and_only_if_a_job_looks_at_them() {
        let mut world = World::new(&[]);
        world.facts.files = None;
        assert_eq!(world.says("member", "/test unit"), "run unit");
        assert_eq!(world.says("member", "/test all"), "asks for Files");
        world.facts.files = Some(vec!["main.go".into()]);
        assert_eq!(world.says("member", "/test all"), "run unit");
        world.facts.files = Some(vec!["docs/a.md".into()]);
        assert_eq!(world.says("member", "/test all"), "run unit docs");
        // Forced, whatever changed; but never on a branch that is not its own.
        world.facts.files = Some(vec![]);
        assert_eq!(world.says("member", "/test docs"), "run docs");
        assert!(
            world
                .replies("member", "/test e2e")
                .contains("were not found")
        );
    }

    #[test]
    fn plg_trigger_023_workflows_of_github_are_approved_and_run_again() {
        let run = |id, event: &str, status: &str, conclusion: &str| trireme_forge::WorkflowRun {
            id,
            name: "CI".into(),
            event: event.into(),
            status: status.into(),
            conclusion: conclusion.into(),
            head_branch: "fix".into(),
            head_sha: "a".repeat(40),
            html_url: String::new(),
        };
        let mut world = World::new(&["ok-to-test"]);
        let contexts = trireme_config::job::Contexts::default();
        world.facts.contexts = [("a".repeat(40), contexts)].into();
        assert!(!world.says("member", "/test all").contains("workflow"));
        world.options.workflows = true;
        assert!(
            world
                .says("member", "/test all")
                .starts_with("asks for WorkflowRuns")
        );
        assert_eq!(world.says("member", "/test unit"), "run unit");
        let key = ("fix".to_owned(), "a".repeat(40));
        let runs = vec![
            run(1, "pull_request", "completed", "failure"),
            run(2, "pull_request", "completed", "success"),
            run(3, "pull_request", "completed", "skipped"),
            run(4, "pull_request", "in_progress", ""),
            run(5, "pull_request", "queued", "action_required"),
            run(6, "pull_request_target", "completed", "cancelled"),
            run(7, "workflow_call", "completed", "neutral"),
            // Others than the pull request started these: a deployment is not to be repeated.
            run(8, "push", "completed", "failure"),
            run(9, "schedule", "completed", "failure"),
            run(10, "workflow_dispatch", "completed", "failure"),
            run(11, "workflow_call", "queued", "action_required"),
            run(12, "push", "queued", "action_required"),
        ];
        world.facts.workflow_runs = [(key, runs)].into();
        let again = [1, 6, 7].map(|run| format!("rerun the failed jobs of workflow run {run}"));
        let again = format!("{}\nrun ", again.join("\n"));
        let all = world.says("member", "/test all");
        assert!(all.starts_with(&again), "{all}");
        let retest = world.says("member", "/retest");
        assert!(retest.starts_with(&again), "{retest}");
        let allowed = world.says("member", "/ok-to-test");
        assert!(
            allowed.starts_with("approve workflow run 5\nrun "),
            "{allowed}"
        );
    }

    #[test]
    fn plg_trigger_003_only_new_texts_of_others_on_open_pull_requests() {
        let bot = bot();
        assert!(counts(&comment("member", "/test all"), &bot));
        assert!(!counts(&comment("k8s-ci-robot", "/test all"), &bot));
        let mut edited = comment("member", "/test all");
        edited.action = GenericAction::Edited;
        assert!(!counts(&edited, &bot));
        let mut closed = comment("member", "/test all");
        closed.issue_state = State::Closed;
        assert!(!counts(&closed, &bot));
        let mut issue = comment("member", "/test all");
        issue.is_pr = false;
        assert!(!counts(&issue, &bot));
    }

    #[test]
    fn plg_trigger_004_code_blocks_start_nothing() {
        let world = World::new(&[]);
        assert_eq!(world.says("member", "```\n/test unit\n```"), "nothing");
        assert_eq!(
            world.says("member", "```\n/test lint\n```\n/test unit"),
            "run unit"
        );
    }

    #[test]
    fn plg_trigger_005_other_texts_need_no_facts() {
        let mut world = World::new(&[]);
        world.facts = Facts::default();
        assert_eq!(world.says("stranger", "nice work"), "nothing");
        assert_eq!(world.says("stranger", "/lgtm"), "nothing");
    }

    #[test]
    fn plg_trigger_013_strangers_on_strangers_pull_requests_are_refused() {
        let mut world = World::new(&[]);
        insta::assert_snapshot!(world.replies("stranger", "/test all"), @"comment: @stranger: Cannot trigger testing until a trusted user reviews the PR and leaves an `/ok-to-test` message.");
        assert_eq!(
            world.replies("stranger", "/ok-to-test"),
            world.replies("stranger", "/test all")
        );
        world.options.ignore_ok_to_test = true;
        insta::assert_snapshot!(world.replies("stranger", "/test all"), @"comment: @stranger: PRs from untrusted users cannot be marked as trusted with `/ok-to-test` in this repo meaning untrusted PR authors can never trigger tests themselves. Collaborators can still trigger tests on the PR using `/test`.");
    }

    #[test]
    fn plg_trigger_014_ok_to_test_labels_and_tests() {
        assert_eq!(
            World::new(&["needs-ok-to-test"]).says("member", "/ok-to-test"),
            "+ok-to-test\n-needs-ok-to-test\nrun unit docs"
        );
        assert_eq!(
            World::new(&["ok-to-test"]).says("member", "/ok-to-test"),
            "run unit docs"
        );
        // Any command tidies up.
        assert_eq!(
            World::new(&["ok-to-test", "needs-ok-to-test"]).says("stranger", "/test lint"),
            "-needs-ok-to-test\nrun lint"
        );
        let mut ignoring = World::new(&["needs-ok-to-test"]);
        ignoring.options.ignore_ok_to_test = true;
        assert_eq!(ignoring.says("member", "/ok-to-test"), "nothing");
    }

    #[test]
    fn plg_trigger_015_ok_to_test_can_be_revoked() {
        let world = World::new(&["ok-to-test"]);
        assert_eq!(
            world.says("member", "/ok-to-test cancel"),
            "-ok-to-test\n+needs-ok-to-test"
        );
        insta::assert_snapshot!(world.replies("stranger", "/ok-to-test cancel"), @"comment: @stranger: Only trusted users can revoke `/ok-to-test`.");
        assert_eq!(
            World::new(&[]).says("member", "/ok-to-test cancel"),
            "+needs-ok-to-test"
        );
        let mut ignoring = World::new(&["ok-to-test"]);
        ignoring.options.ignore_ok_to_test = true;
        assert_eq!(ignoring.says("member", "/ok-to-test cancel"), "nothing");
    }

    #[test]
    fn plg_trigger_016_what_commands_choose() {
        let mut world = World::new(&[]);
        let sha = pull_request().head.sha;
        let contexts = Contexts {
            failed: ["lint".to_owned()].into(),
            all: ["lint".to_owned(), "unit".to_owned()].into(),
        };
        assert_eq!(
            world.says("member", "/retest"),
            format!("asks for Contexts {{ sha: {sha:?} }}")
        );
        world.facts.contexts.insert(sha, contexts);
        for (body, expected) in [
            ("/test unit", "run unit"),
            ("/test unit lint", "run unit lint"),
            ("/test docs", "run docs"),
            ("/test all", "run unit docs"),
            ("/test all\n/test lint", "run unit docs lint"),
            // lint failed; docs applies and never reported.
            ("/retest", "run docs lint, a retest"),
            ("/retest-required", "run docs, a retest"),
            ("/test-manual-required", "nothing"),
        ] {
            assert_eq!(world.says("member", body), expected, "{body:?}");
        }
        world.facts.files = Some(vec!["main.go".into()]);
        assert_eq!(world.says("member", "/test all"), "run unit");
        assert_eq!(world.says("member", "/test docs"), "run docs");
        world.facts.files = None;
        assert_eq!(world.says("member", "/test docs"), "run docs");
        assert_eq!(world.says("member", "/test all"), "asks for Files");
    }

    #[test]
    fn plg_trigger_018_help_instead_of_jobs() {
        let world = World::new(&[]);
        insta::assert_snapshot!(world.replies("member", "/test ?"), @r"
        comment: @member: The following commands are available to trigger required jobs:
        ```
        /test docs
        ```
        ```
        /test unit
        ```

        The following commands are available to trigger optional jobs:
        ```
        /test lint
        ```

        Use `/test all` to run the following jobs that were automatically triggered:
        ```
        docs
        ```
        ```
        unit
        ```
        ");
        let head = |body| {
            world
                .replies("member", body)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        assert_eq!(
            head("/test"),
            "comment: @member: The `/test` command needs one or more targets."
        );
        assert_eq!(
            head("/retest unit"),
            "comment: @member: The `/retest` command does not accept any targets."
        );
        assert_eq!(
            head("/test e2e"),
            "comment: @member: The specified target(s) for `/test` were not found."
        );
        let mut empty = World::new(&[]);
        empty.facts.pull_request.as_mut().unwrap().base.branch = "old".into();
        empty.config = config(
            "presubmits: {org/repo: [{name: e2e, branches: [release], always_run: true, spec: {containers: [{image: a}]}}]}",
        );
        insta::assert_snapshot!(empty.replies("member", "/test all"), @"comment: @member: No presubmit jobs available for org/repo@old");
    }

    #[test]
    fn plg_trigger_020_a_test_command_that_worked_tidies_help_up() {
        let mut world = World::new(&[]);
        world.facts.comments = Some(vec![
            bot_comment(1, &format!("@a: {}", help::TARGET_NOT_FOUND)),
            bot_comment(2, "something else"),
        ]);
        assert_eq!(world.says("member", "/test unit"), "delete [1]\nrun unit");
        assert_eq!(
            world.says("member", "/ok-to-test"),
            "+ok-to-test\nrun unit docs"
        );
    }

    #[test]
    fn plg_trigger_021_nothing_runs_on_conflicts() {
        let mut world = World::new(&[]);
        world.facts.pull_request.as_mut().unwrap().mergeable = Some(false);
        assert_eq!(world.says("member", "/test unit"), "nothing");
        world.facts.pull_request.as_mut().unwrap().mergeable = Some(true);
        assert_eq!(world.says("member", "/test unit"), "run unit");
    }
}
