//! `help`: labels issues that wait for somebody to take them, and tells what that asks of them.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};
use trireme_forge::{BotUser, IssueComment, State, has_label};
use trireme_proto::state::effect::Action;

use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::reply_to;
use crate::text::commands;

commands! {
    HELP = r"(?mi)^/help\s*$";
    REMOVE_HELP = r"(?mi)^/remove-help\s*$";
    GOOD_FIRST_ISSUE = r"(?mi)^/good-first-issue\s*$";
    REMOVE_GOOD_FIRST_ISSUE = r"(?mi)^/remove-good-first-issue\s*$";
}

const SECTION: &str = "help";
const HELP_WANTED_LABEL: &str = "help wanted";
const GOOD_FIRST_ISSUE_LABEL: &str = "good first issue";
// Comments that hold these are taken away with the label.
const NEEDS_HELP: &str = "This request has been marked as needing help from a contributor.";
const SUITS_NEWCOMERS: &str = "This request has been marked as suitable for new contributors.";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    help_guidelines_url: String,
    help_guidelines_summary: String,
}

impl Settings {
    fn set_defaults(&mut self) {
        if self.help_guidelines_url.is_empty() {
            "https://git.k8s.io/community/contributors/guide/help-wanted.md"
                .clone_into(&mut self.help_guidelines_url);
        }
    }

    /// What a label asks of the issue.
    fn message(&self, marked: &str, anchor: &str, remove: &str) -> String {
        let (url, summary) = (&self.help_guidelines_url, &self.help_guidelines_summary);
        let requirements = match summary.as_str() {
            "" => format!(
                "Please ensure the request meets the requirements listed [here]({url}{anchor})."
            ),
            summary => format!(
                "### Guidelines\n{summary}\n\nFor more details on the requirements of such an issue, please see [here]({url}{anchor}) and ensure that they are met."
            ),
        };
        format!(
            "\n\t{marked}\n\n{requirements}\n\nIf this request no longer meets these requirements, the label can be removed\nby commenting with the `{remove}` command.\n"
        )
    }
}

pub(crate) struct HelpWanted;

#[async_trait]
impl Plugin for HelpWanted {
    fn name(&self) -> &'static str {
        "help"
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
        let settings: &Settings = cx.section(SECTION)?;
        let on = Target::new(&comment.repo, comment.number);
        gather(cx, &on, Facts::default(), |facts| {
            decide(&comment, settings, cx.bot, facts)
        })
        .await
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The help plugin provides commands that add or remove the 'help wanted' and the 'good first issue' labels from issues.".to_owned(),
            commands: vec![Command {
                usage: "/[remove-](help|good-first-issue)",
                featured: false,
                description: "Applies or removes the 'help wanted' and 'good first issue' labels to an issue.",
                examples: &["/help", "/remove-help", "/good-first-issue", "/remove-good-first-issue"],
                who_can_use: "Anyone can trigger this command on a PR.",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |settings: &mut Settings| {
            settings.set_defaults();
            Vec::new()
        }))
    }
}

fn asks(comment: &GenericComment) -> bool {
    let commands = [
        &HELP,
        &REMOVE_HELP,
        &GOOD_FIRST_ISSUE,
        &REMOVE_GOOD_FIRST_ISSUE,
    ];
    !comment.is_pr
        && comment.issue_state == State::Open
        && comment.action == GenericAction::Created
        && commands
            .iter()
            .any(|command| command.is_match(&comment.body))
}

/// One thing per text, the first that there is to do.
fn decide(
    comment: &GenericComment,
    settings: &Settings,
    bot: &BotUser,
    facts: &Facts,
) -> Result<Decision, Missing> {
    let on = Target::new(&comment.repo, comment.number);
    let labels = facts.labels()?;
    let wants_help = has_label(labels, HELP_WANTED_LABEL);
    let suits_newcomers = has_label(labels, GOOD_FIRST_ISSUE_LABEL);
    let asks = |command: &regex::Regex| command.is_match(&comment.body);
    // As Prow does it, the answer links to the issue.
    let answer = |message: &str| {
        let (url, login) = (&comment.issue_html_url, &comment.user.login);
        on.comment(reply_to(&comment.body, url, login, message))
    };
    let mut effects = Vec::new();
    if wants_help && asks(&REMOVE_HELP) {
        let comments = facts.comments()?;
        effects.push(on.remove_label(HELP_WANTED_LABEL));
        effects.extend(prune(&on, comments, bot, NEEDS_HELP));
        if suits_newcomers {
            effects.push(on.remove_label(GOOD_FIRST_ISSUE_LABEL));
            effects.extend(prune(&on, comments, bot, SUITS_NEWCOMERS));
        }
    } else if !suits_newcomers && asks(&GOOD_FIRST_ISSUE) {
        let remove = "/remove-good-first-issue";
        effects.push(answer(&settings.message(
            SUITS_NEWCOMERS,
            "#good-first-issue",
            remove,
        )));
        effects.push(on.add_label(GOOD_FIRST_ISSUE_LABEL));
        if !wants_help {
            effects.push(on.add_label(HELP_WANTED_LABEL));
        }
    } else if !wants_help && asks(&HELP) {
        effects.push(answer(&settings.message(NEEDS_HELP, "", "/remove-help")));
        effects.push(on.add_label(HELP_WANTED_LABEL));
    } else if suits_newcomers && asks(&REMOVE_GOOD_FIRST_ISSUE) {
        effects.push(on.remove_label(GOOD_FIRST_ISSUE_LABEL));
        effects.extend(prune(&on, facts.comments()?, bot, SUITS_NEWCOMERS));
    }
    Ok(effects.into())
}

fn prune(on: &Target, comments: &[IssueComment], bot: &BotUser, text: &str) -> Option<Action> {
    let ours = comments
        .iter()
        .filter(|comment| bot.is(&comment.author.login) && comment.body.contains(text));
    on.prune(ours.map(|comment| comment.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bot, bot_comment, comment, labels};

    fn on_issue(body: &str) -> GenericComment {
        GenericComment {
            is_pr: false,
            issue_html_url: "https://github.com/org/repo/issues/5".into(),
            ..comment("alice", body)
        }
    }

    fn settings(summary: &str) -> Settings {
        let mut settings = Settings {
            help_guidelines_summary: summary.to_owned(),
            ..Settings::default()
        };
        settings.set_defaults();
        settings
    }

    fn full(body: &str, set: &[&str], summary: &str) -> String {
        let mut quoted = bot_comment(3, NEEDS_HELP);
        quoted.author.login = "alice".into();
        let facts = Facts {
            labels: Some(labels(set)),
            comments: Some(vec![
                bot_comment(1, &format!("@bob: \n\t{NEEDS_HELP}")),
                bot_comment(2, SUITS_NEWCOMERS),
                quoted,
            ]),
            ..Facts::default()
        };
        let decision = decide(&on_issue(body), &settings(summary), &bot(), &facts);
        decision.unwrap().to_string()
    }

    fn told(body: &str, set: &[&str]) -> String {
        let full = full(body, set, "");
        let starts = ['+', '-', 'd', 'n'];
        let lines = full.lines().filter(|line| line.starts_with(starts));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn plg_help_001_one_thing_per_text() {
        let (help, first) = (HELP_WANTED_LABEL, GOOD_FIRST_ISSUE_LABEL);
        for (body, set, expected) in [
            ("/help", &[][..], "+help wanted"),
            ("/help", &["Help Wanted"], "nothing"),
            (
                "/good-first-issue\r\n",
                &[],
                "+good first issue\n+help wanted",
            ),
            ("/good-first-issue", &[help], "+good first issue"),
            ("/remove-help", &[help], "-help wanted\ndelete [1]"),
            (
                "/remove-help",
                &[help, first],
                "-help wanted\ndelete [1]\n-good first issue\ndelete [2]",
            ),
            ("/remove-help", &[first], "nothing"),
            (
                "/remove-good-first-issue",
                &[help, first],
                "-good first issue\ndelete [2]",
            ),
            ("/help\n/remove-help", &[help], "-help wanted\ndelete [1]"),
            ("/help\n/remove-help", &[], "+help wanted"),
            (
                "/help\n/good-first-issue",
                &[],
                "+good first issue\n+help wanted",
            ),
            ("/help me", &[], "nothing"),
        ] {
            assert_eq!(told(body, set), expected, "{body:?} {set:?}");
        }
        assert!(asks(&on_issue("/HELP")));
        assert!(!asks(&comment("alice", "/help")));
        let mut closed = on_issue("/help");
        closed.issue_state = State::Closed;
        assert!(!asks(&closed));
        let mut edited = on_issue("/help");
        edited.action = GenericAction::Edited;
        assert!(!asks(&edited));
    }

    #[test]
    fn plg_help_002_the_reply_tells_the_guidelines() {
        let head = |told: String| {
            let end = told.find("\n\n<details>").unwrap();
            let url = told.contains("[this](https://github.com/org/repo/issues/5)");
            assert!(url, "{told}");
            told[..end].to_owned()
        };
        assert_eq!(
            head(full("/help", &[], "")),
            "comment: @alice: \n\tThis request has been marked as needing help from a contributor.\n\nPlease ensure the request meets the requirements listed [here](https://git.k8s.io/community/contributors/guide/help-wanted.md).\n\nIf this request no longer meets these requirements, the label can be removed\nby commenting with the `/remove-help` command.\n"
        );
        assert_eq!(
            head(full("/help", &[], "Be kind.")),
            "comment: @alice: \n\tThis request has been marked as needing help from a contributor.\n\n### Guidelines\nBe kind.\n\nFor more details on the requirements of such an issue, please see [here](https://git.k8s.io/community/contributors/guide/help-wanted.md) and ensure that they are met.\n\nIf this request no longer meets these requirements, the label can be removed\nby commenting with the `/remove-help` command.\n"
        );
        assert_eq!(
            head(full("/good-first-issue", &[], "")),
            "comment: @alice: \n\tThis request has been marked as suitable for new contributors.\n\nPlease ensure the request meets the requirements listed [here](https://git.k8s.io/community/contributors/guide/help-wanted.md#good-first-issue).\n\nIf this request no longer meets these requirements, the label can be removed\nby commenting with the `/remove-good-first-issue` command.\n"
        );
        assert_eq!(
            head(full("/good-first-issue", &[], "Be kind.")),
            "comment: @alice: \n\tThis request has been marked as suitable for new contributors.\n\n### Guidelines\nBe kind.\n\nFor more details on the requirements of such an issue, please see [here](https://git.k8s.io/community/contributors/guide/help-wanted.md#good-first-issue) and ensure that they are met.\n\nIf this request no longer meets these requirements, the label can be removed\nby commenting with the `/remove-good-first-issue` command.\n"
        );
    }
}
