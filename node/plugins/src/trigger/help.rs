//! When `trigger` answers with help instead of jobs, and what that help says (PLG-TRIGGER-018 … 020, 024).

use std::collections::BTreeSet;

use trireme_config::job::{AvailableTests, Command};
use trireme_forge::RepoId;

// The notes at the head of a reply are read by machines, the line end included.
pub(super) const TEST_WITHOUT_TARGET: &str = "The `/test` command needs one or more targets.\n";
pub(super) const RETEST_WITH_TARGET: &str = "The `/retest` command does not accept any targets.\n";
pub(super) const TARGET_NOT_FOUND: &str = "The specified target(s) for `/test` were not found.\n";
pub(super) const NO_TEST_ALL_JOBS: &str = "No jobs can be run with `/test all`.\n";
const AVAILABLE_REQUIRED: &str = "The following commands are available to trigger required jobs:";
const AVAILABLE_OPTIONAL: &str = "The following commands are available to trigger optional jobs:";

/// Whether a text (without code blocks) holds any command of this plugin; jobs' own triggers are asked apart.
pub(super) fn has_command(text: &str) -> bool {
    [
        Command::Retest,
        Command::RetestRequired,
        Command::TestManualRequired,
        Command::OkToTest,
        Command::OkToTestCancel,
        Command::TestAll,
        Command::EmptyTest,
        Command::RetestWithTarget,
        Command::TestWithAnyTarget,
        Command::TestHelp,
    ]
    .iter()
    .any(|command| command.is_in(text))
}

/// Whether the answer is help instead of jobs, and under which note.
pub(super) fn note(text: &str, jobs_chosen: usize) -> Option<&'static str> {
    if Command::TestHelp.is_in(text) {
        Some("")
    } else if Command::EmptyTest.is_in(text) {
        Some(TEST_WITHOUT_TARGET)
    } else if Command::RetestWithTarget.is_in(text) {
        Some(RETEST_WITH_TARGET)
    } else if jobs_chosen == 0 && Command::TestAll.is_in(text) {
        Some(NO_TEST_ALL_JOBS)
    } else if jobs_chosen == 0 && Command::TestWithAnyTarget.is_in(text) {
        Some(TARGET_NOT_FOUND)
    } else {
        None
    }
}

/// Whether a comment is a help reply: obsolete once a test command worked.
pub(super) fn is_help(body: &str) -> bool {
    [
        TEST_WITHOUT_TARGET,
        RETEST_WITH_TARGET,
        TARGET_NOT_FOUND,
        NO_TEST_ALL_JOBS,
        AVAILABLE_REQUIRED,
        AVAILABLE_OPTIONAL,
    ]
    .iter()
    .any(|part| body.contains(part))
}

/// The reply's message.
pub(super) fn message(
    repo: &RepoId,
    branch: &str,
    note: &str,
    available: &AvailableTests,
) -> String {
    let AvailableTests {
        run_with_test_all,
        optional_commands,
        required_commands,
    } = available;
    let commands = optional_commands.len() + required_commands.len();
    if run_with_test_all.len() + commands == 0 {
        return format!("No presubmit jobs available for {repo}@{branch}");
    }
    let mut message = note.to_owned();
    if !required_commands.is_empty() {
        message.push_str(&format!(
            "{AVAILABLE_REQUIRED}{}\n\n",
            blocks(required_commands)
        ));
    }
    if !optional_commands.is_empty() {
        message.push_str(&format!(
            "{AVAILABLE_OPTIONAL}{}\n\n",
            blocks(optional_commands)
        ));
    }
    if run_with_test_all.len() == commands {
        message.push_str("Use `/test all` to run all jobs.\n");
    } else if !run_with_test_all.is_empty() {
        message.push_str(&format!(
            "Use `/test all` to run the following jobs that were automatically triggered:{}\n\n",
            blocks(run_with_test_all)
        ));
    }
    message
}

/// A code block for each.
fn blocks(names: &BTreeSet<String>) -> String {
    names
        .iter()
        .map(|name| format!("\n```\n{name}\n```"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plg_trigger_018_the_first_reason_for_help_counts() {
        for (text, chosen, expected) in [
            ("/test ?", 3, Some("")),
            ("/test", 3, Some(TEST_WITHOUT_TARGET)),
            ("/retest foo", 3, Some(RETEST_WITH_TARGET)),
            ("/test all", 0, Some(NO_TEST_ALL_JOBS)),
            ("/test all", 1, None),
            ("/test foo", 0, Some(TARGET_NOT_FOUND)),
            ("/test foo", 1, None),
            ("/retest", 0, None),
            ("/ok-to-test", 0, None),
        ] {
            assert_eq!(note(text, chosen), expected, "{text:?}");
        }
    }

    #[test]
    fn plg_trigger_020_help_replies_are_recognised() {
        assert!(is_help(&format!("@a: {TARGET_NOT_FOUND}")));
        assert!(is_help(&format!("@a: {AVAILABLE_OPTIONAL}\n```")));
        // The end of the line belongs to the note.
        assert!(!is_help("The `/test` command needs one or more targets."));
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn plg_trigger_019_help_lists_commands_sorted_and_apart() {
        let repo = RepoId::new("org", "repo");
        let available = AvailableTests {
            run_with_test_all: set(&["unit"]),
            optional_commands: set(&["/test lint"]),
            required_commands: set(&["/test unit", "/test e2e"]),
        };
        insta::assert_snapshot!(message(&repo, "main", TARGET_NOT_FOUND, &available), @r"
        The specified target(s) for `/test` were not found.
        The following commands are available to trigger required jobs:
        ```
        /test e2e
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
        unit
        ```
        ");
        let all = AvailableTests {
            run_with_test_all: set(&["unit"]),
            required_commands: set(&["/test unit"]),
            ..AvailableTests::default()
        };
        insta::assert_snapshot!(message(&repo, "main", "", &all), @r"
        The following commands are available to trigger required jobs:
        ```
        /test unit
        ```

        Use `/test all` to run all jobs.
        ");
        let manual = AvailableTests {
            optional_commands: set(&["/test lint"]),
            ..AvailableTests::default()
        };
        insta::assert_snapshot!(message(&repo, "main", "", &manual), @r"
        The following commands are available to trigger optional jobs:
        ```
        /test lint
        ```
        ");
        insta::assert_snapshot!(message(&repo, "main", "note\n", &AvailableTests::default()), @"No presubmit jobs available for org/repo@main");
    }
}
