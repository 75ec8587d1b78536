//! `invalidcommitmsg`: keeps words that close issues, and commits that are to be squashed, out of what is merged.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::{Problem, Section, narrowest};
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};
use trireme_forge::{BotUser, Commit, IssueComment, Label, has_label};

use crate::changes::{self, sha_list};
use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::label_names::INVALID_COMMIT_MESSAGE;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::{ABOUT_THIS_BOT, stale};
use crate::text::commands;

commands! {
    CLOSES = r"((?i)(clos(?:e[sd]?))|(fix(?:(es|ed)?))|(resolv(?:e[sd]?)))[\s:]+(\w+/\w+)?#(\d+)";
    FIXUP = r"^(fixup!|amend!|squash!)";
}

const SECTION: &str = "invalid_commit_msg";
const FIXUP_PREFIX: &str = "fixupPrefix";
const ISSUE_CLOSING_KEYWORDS: &str = "issueClosingKeywords";
const MARKER: &str = "<!-- [prow:invalid-commit-message] -->";
/// Of comments that earlier versions of Prow made.
const FORMER_MARKERS: [&str; 2] = [
    "**The list of commits with invalid commit messages**:",
    "not allowed in the title of a Pull Request",
];

pub(crate) struct InvalidCommitMsg;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// `org` or `org/repo`.
    repos: Vec<String>,
    checks: Vec<Check>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Check {
    name: String,
    disabled: bool,
}

impl Settings {
    fn checks(&self, name: &str) -> bool {
        !self
            .checks
            .iter()
            .any(|check| check.name == name && check.disabled)
    }
}

/// HOOK-057, HOOK-060
fn problems(all: &[Settings]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for (at, settings) in all.iter().enumerate() {
        for (place, repo) in settings.repos.iter().enumerate() {
            let path = format!("{at}.repos.{place}");
            if repo.trim().is_empty() {
                let why = format!("repo {repo:?} must be of form org or org/repo");
                problems.push(Problem::error(path, why));
            } else if seen.contains(&repo) {
                problems.push(Problem::error(path, format!("{repo:?} is there twice")));
            } else {
                seen.push(repo);
            }
        }
        for (place, check) in settings.checks.iter().enumerate() {
            let name = &check.name;
            let path = format!("{at}.checks.{place}.name");
            if name.trim().is_empty() {
                problems.push(Problem::error(path, "check name cannot be empty"));
            } else if ![FIXUP_PREFIX, ISSUE_CLOSING_KEYWORDS].contains(&name.as_str()) {
                let why = format!(
                    "unknown check name {name:?} (valid: [{FIXUP_PREFIX} {ISSUE_CLOSING_KEYWORDS}])"
                );
                problems.push(Problem::error(path, why));
            }
        }
    }
    problems
}

#[async_trait]
impl Plugin for InvalidCommitMsg {
    fn name(&self) -> &'static str {
        "invalidcommitmsg"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::PullRequest(event) if may_change(event))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        if !may_change(event) {
            return Ok(Decision::nothing());
        }
        let pr = &event.pull_request;
        let all: &Vec<Settings> = cx.section(SECTION)?;
        let settings = narrowest(all, |settings| &settings.repos, &pr.repo.org, &pr.repo.repo)
            .cloned()
            .unwrap_or_default();
        let labels = cx.forge.labels(&pr.repo, pr.number).await?;
        let commits = changes::commits(cx, pr).await?;
        let comments = cx.forge.comments(&pr.repo, pr.number).await?;
        Ok(decide(
            event, &settings, &labels, &commits, &comments, cx.bot,
        ))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        let config = "The plugin can be configured per-check using the 'checks' field. Each check can be individually disabled by setting 'disabled: true'. Available checks: 'fixupPrefix' (for fixup!/amend!/squash! commits) and 'issueClosingKeywords' (for issue-closing keywords in titles/commits).";
        PluginHelp {
            description: "The invalidcommitmsg plugin applies the 'do-not-merge/invalid-commit-message' label to pull requests whose commit messages and titles contain keywords which can automatically close issues or contain temporary commits such as fixup!, amend!, or squash!".to_owned(),
            config: Some([(String::new(), config.to_owned())].into()),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |all: &mut Vec<Settings>| {
            problems(all)
        }))
    }
}

fn may_change(event: &PullRequestEvent) -> bool {
    event.action.brings_commits() || event.action == PullRequestAction::Edited
}

fn decide(
    event: &PullRequestEvent,
    settings: &Settings,
    labels: &[Label],
    commits: &[Commit],
    comments: &[IssueComment],
    bot: &BotUser,
) -> Decision {
    let pr = &event.pull_request;
    let on = Target::new(&pr.repo, pr.number);
    let closing = |text: &str| settings.checks(ISSUE_CLOSING_KEYWORDS) && CLOSES.is_match(text);
    let fixup = |text: &str| settings.checks(FIXUP_PREFIX) && FIXUP.is_match(text);
    let chosen = |wrong: &dyn Fn(&str) -> bool| {
        let wrong: Vec<&Commit> = commits
            .iter()
            .filter(|commit| wrong(&commit.message))
            .collect();
        (!wrong.is_empty()).then(|| sha_list(&pr.repo, wrong))
    };
    let mut sections = Vec::new();
    if let Some(list) = chosen(&closing) {
        sections.push(format!("### Invalid commit messages\n\n[Keywords](https://help.github.com/articles/closing-issues-using-keywords) which can automatically close issues and hashtag(#) mentions are not allowed.\n\n{list}"));
    }
    if let Some(list) = chosen(&fixup) {
        sections.push(format!("### Fixup/amend/squash commits\n\nTemporary commits like fixup!, amend!, or squash! are not allowed.\n\nUse [git rebase --autosquash](https://git-scm.com/docs/git-rebase#Documentation/git-rebase.txt---autosquash) to fix them.\n\n{list}"));
    }
    if closing(&pr.title) {
        sections.push("### Invalid PR title\n\n[Keywords](https://help.github.com/articles/closing-issues-using-keywords) are not allowed in PR titles.\n\nUse `/retitle <new-title>` to fix it.".to_owned());
    }
    let mut effects = Vec::new();
    match (
        sections.is_empty(),
        has_label(labels, INVALID_COMMIT_MESSAGE),
    ) {
        (true, true) => effects.push(on.remove_label(INVALID_COMMIT_MESSAGE)),
        (false, false) => effects.push(on.add_label(INVALID_COMMIT_MESSAGE)),
        _ => {}
    }
    effects.extend(on.prune(stale(bot, comments, |body| {
        body.contains(MARKER) || FORMER_MARKERS.iter().any(|marker| body.contains(marker))
    })));
    if !sections.is_empty() {
        let sections = sections.join("\n\n");
        effects.push(on.comment(format!(
            "{MARKER}\n\nInvalid commit message issues detected\n\n{sections}\n\n{ABOUT_THIS_BOT}"
        )));
    }
    effects.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, bot_comment, commit, labels, plugins_yaml, pull_request_event};

    fn told(messages: &[&str], title: &str, settings: &Settings, labelled: bool) -> String {
        let mut event = pull_request_event("edited");
        title.clone_into(&mut event.pull_request.title);
        let commits: Vec<Commit> = messages.iter().map(|text| commit("abc", text)).collect();
        let had = match labelled {
            true => labels(&[INVALID_COMMIT_MESSAGE]),
            false => vec![],
        };
        decide(&event, settings, &had, &commits, &[], &bot()).to_string()
    }

    #[test]
    fn plg_invalidcommit_001_label_and_one_comment_follow_the_checks() {
        let all = Settings::default();
        assert_eq!(told(&["good"], "Good", &all, false), "nothing");
        assert_eq!(
            told(&["good"], "Good", &all, true),
            "-do-not-merge/invalid-commit-message"
        );
        insta::assert_snapshot!(told(&["Fix\n\nFixes #12", "fixup! Fix"], "Close: org/repo#4", &all, false), @r"
        +do-not-merge/invalid-commit-message
        comment: <!-- [prow:invalid-commit-message] -->

        Invalid commit message issues detected

        ### Invalid commit messages

        [Keywords](https://help.github.com/articles/closing-issues-using-keywords) which can automatically close issues and hashtag(#) mentions are not allowed.

        - [abc](https://github.com/org/repo/commits/abc) Fix

        ### Fixup/amend/squash commits

        Temporary commits like fixup!, amend!, or squash! are not allowed.

        Use [git rebase --autosquash](https://git-scm.com/docs/git-rebase#Documentation/git-rebase.txt---autosquash) to fix them.

        - [abc](https://github.com/org/repo/commits/abc) fixup! Fix

        ### Invalid PR title

        [Keywords](https://help.github.com/articles/closing-issues-using-keywords) are not allowed in PR titles.

        Use `/retitle <new-title>` to fix it.

        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository. I understand the commands that are listed [here](https://go.k8s.io/bot-commands).
        ");
        let event = pull_request_event("synchronize");
        let said = [
            bot_comment(1, &format!("{MARKER}\n\nold")),
            bot_comment(2, "Keywords are not allowed in the title of a Pull Request"),
            bot_comment(3, "hello"),
        ];
        let pruned = decide(&event, &all, &[], &[], &said, &bot());
        assert_eq!(pruned.to_string(), "delete [1, 2]");
        for (action, expected) in [
            ("opened", true),
            ("reopened", true),
            ("synchronize", true),
            ("edited", true),
            ("labeled", false),
            ("closed", false),
        ] {
            assert_eq!(may_change(&pull_request_event(action)), expected);
        }
    }

    #[test]
    fn plg_invalidcommit_002_words_that_close_and_prefixes() {
        for (text, expected) in [
            ("closes #1", true),
            ("CLOSED: #1", true),
            ("FIXES\t#1", true),
            ("Resolve org/repo#1", true),
            ("resolved : #1", true),
            ("prefix #1", true),
            ("fix 1", false),
            ("fix# 1", false),
            ("closing #1", false),
            ("see #1", false),
        ] {
            assert_eq!(CLOSES.is_match(text), expected, "{text:?}");
        }
        for (text, expected) in [
            ("squash! a", true),
            ("amend!", true),
            ("a fixup!", false),
            ("a\nfixup! b", false),
            ("Fixup! a", false),
        ] {
            assert_eq!(FIXUP.is_match(text), expected, "{text:?}");
        }
        let only = |disabled: &str| Settings {
            checks: vec![Check {
                name: disabled.to_owned(),
                disabled: true,
            }],
            ..Settings::default()
        };
        let (fixup, closing) = (only(FIXUP_PREFIX), only(ISSUE_CLOSING_KEYWORDS));
        assert_eq!(told(&["fixup! a"], "t", &fixup, false), "nothing");
        assert_ne!(told(&["fixup! a"], "t", &closing, false), "nothing");
        assert_eq!(told(&["fix #1"], "fix #1", &closing, false), "nothing");
        assert_ne!(told(&["fix #1"], "t", &fixup, false), "nothing");
    }

    /// HOOK-055, HOOK-057, HOOK-060
    #[test]
    fn hook_060_entries_are_checked_and_the_narrowest_counts() {
        let yaml = "invalid_commit_msg:\n- {repos: [org], checks: [{name: fixupPrefix, disabled: true}]}\n- {repos: [org/repo]}\n";
        let config = plugins_yaml(yaml).unwrap();
        let all = config.section::<Vec<Settings>>(SECTION).unwrap();
        let of = |org: &str, repo: &str| narrowest(all, |settings| &settings.repos, org, repo);
        let checks =
            |repo: &str| of("org", repo).is_some_and(|settings| settings.checks(FIXUP_PREFIX));
        assert!(checks("repo") && !checks("other"));
        assert!(of("else", "repo").is_none());
        for (entries, expected) in [
            ("{repos: [' ']}", "must be of form org or org/repo"),
            ("{repos: [a]}, {repos: [a]}", "is there twice"),
            (
                "{repos: [a], checks: [{name: ''}]}",
                "check name cannot be empty",
            ),
            (
                "{repos: [a], checks: [{name: x}]}",
                "unknown check name \"x\" (valid: [fixupPrefix issueClosingKeywords])",
            ),
        ] {
            let bad = plugins_yaml(&format!("invalid_commit_msg: [{entries}]")).unwrap_err();
            assert!(bad.contains(expected), "{bad}");
        }
    }
}
