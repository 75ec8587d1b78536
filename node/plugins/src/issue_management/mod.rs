//! `issue-management`: links issues to pull requests, pins issues and moves them to other repositories (PLG-ISSUEMGMT).

mod link;
mod pin;
mod transfer;

use async_trait::async_trait;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};

use crate::decision::Decision;
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    LINK = r"(?mi)^/link-issue\s+(.+)$";
    UNLINK = r"(?mi)^/unlink-issue\s+(.+)$";
    PIN = r"(?mi)^/pin-issue\s*$";
    UNPIN = r"(?mi)^/unpin-issue\s*$";
    TRANSFER = r"(?mi)^/transfer(?:-issue)?(?: +(.*))?$";
}

pub(crate) struct IssueManagement;

pub(crate) const NAME: &str = "issue-management";

/// What a text asks for: one kind of thing (PLG-ISSUEMGMT-003).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Link {
        link: Vec<String>,
        unlink: Vec<String>,
    },
    Pin,
    Unpin,
    /// What stands behind each use.
    Transfer(Vec<String>),
}

fn asked(text: &GenericComment) -> Option<Asked> {
    let words = |command: &regex::Regex| -> Vec<String> {
        let uses = command.captures_iter(&text.body);
        let each = uses.flat_map(|found| {
            let words = found[1].split_whitespace().map(str::to_owned);
            words.collect::<Vec<_>>()
        });
        each.collect()
    };
    let (link, unlink) = (words(&LINK), words(&UNLINK));
    if !link.is_empty() || !unlink.is_empty() {
        Some(Asked::Link { link, unlink })
    } else if PIN.is_match(&text.body) {
        Some(Asked::Pin)
    } else if UNPIN.is_match(&text.body) {
        Some(Asked::Unpin)
    } else {
        asked_to_transfer(text)
    }
}

pub(crate) fn asked_to_transfer(text: &GenericComment) -> Option<Asked> {
    let uses = TRANSFER.captures_iter(&text.body);
    let to: Vec<String> = uses
        .map(|found| found.get(1).map_or("", |to| to.as_str()).to_owned())
        .collect();
    (!to.is_empty()).then_some(Asked::Transfer(to))
}

/// Prow answers `/transfer` and `/pin-issue` on pull requests whatever happened to the text; deleting and editing one is no
/// reason to be told again.
pub(crate) fn concerns(event: &Event, asked: impl Fn(&GenericComment) -> Option<Asked>) -> bool {
    let text = event.generic_comment();
    text.is_some_and(|text| text.action == GenericAction::Created && asked(&text).is_some())
}

pub(crate) async fn plan(
    cx: &Planning<'_>,
    event: &Event,
    asked: impl Fn(&GenericComment) -> Option<Asked>,
) -> Result<Decision, PlanError> {
    let Some(text) = event.generic_comment() else {
        return Ok(Decision::nothing());
    };
    if text.action != GenericAction::Created {
        return Ok(Decision::nothing());
    }
    match asked(&text) {
        None => Ok(Decision::nothing()),
        Some(Asked::Link { link, unlink }) => link::plan(cx, &text, &link, &unlink).await,
        Some(Asked::Pin) => pin::plan(cx, event, &text, true).await,
        Some(Asked::Unpin) => pin::plan(cx, event, &text, false).await,
        Some(Asked::Transfer(to)) => transfer::plan(cx, &text, &to).await,
    }
}

fn say(text: &GenericComment, message: &str) -> Decision {
    vec![answer(text, message)].into()
}

pub(crate) const TRANSFER_HELP: Command = Command {
    usage: "/transfer[-issue] <destination repo in same org>",
    featured: true,
    description: "Transfers an issue to a different repo in the same org.",
    examples: &["/transfer-issue kubectl", "/transfer test-infra"],
    who_can_use: "Org members.",
};

#[async_trait]
impl Plugin for IssueManagement {
    fn name(&self) -> &'static str {
        NAME
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        concerns(event, asked)
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        plan(cx, event, asked).await
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        let command = |usage, description, examples, who_can_use| Command {
            usage,
            featured: false,
            description,
            examples,
            who_can_use,
        };
        PluginHelp {
            description:
                "The issue management plugin provides commands for managing issues in a repository."
                    .to_owned(),
            commands: vec![
                command(
                    "/link-issue <issue(s)>",
                    "Links issue(s) to a PR in the same or different repo.",
                    &["/link-issue 1234", "/link-issue org/repo#789"],
                    "Org members",
                ),
                command(
                    "/unlink-issue <issue(s)>",
                    "Unlinks issue(s) from a PR in the same or different repo.",
                    &["/unlink-issue 1234", "/unlink-issue org/repo#789"],
                    "Org members",
                ),
                command(
                    "/pin-issue",
                    "Pins an issue to the repository",
                    &["/pin-issue"],
                    "Approvers from the top-level OWNERS file",
                ),
                command(
                    "/unpin-issue",
                    "Unpins an issue from the repository",
                    &["/unpin-issue"],
                    "Approvers from the top-level OWNERS file",
                ),
                TRANSFER_HELP,
            ],
            ..PluginHelp::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, comment_event};

    /// PLG-ISSUEMGMT-003
    #[test]
    fn plg_issuemgmt_003_one_kind_of_thing_is_done_per_text() {
        let told = |body| match asked(&comment("ann", body)) {
            None => "nothing".to_owned(),
            Some(asked) => format!("{asked:?}"),
        };
        for (body, expected) in [
            (
                "/link-issue 1 o/r#2\r\n/unlink-issue 3",
                r#"Link { link: ["1", "o/r#2"], unlink: ["3"] }"#,
            ),
            (
                "/transfer x\n/unpin-issue\n/pin-issue\n/unlink-issue 3",
                r#"Link { link: [], unlink: ["3"] }"#,
            ),
            ("/transfer x\n/unpin-issue\n/Pin-Issue", "Pin"),
            ("/transfer x\n/unpin-issue", "Unpin"),
            ("/transfer x", r#"Transfer(["x"])"#),
            ("/link-issue", "nothing"),
            ("/pin-issue now", "nothing"),
            ("/transferring", "nothing"),
        ] {
            assert_eq!(told(body), expected, "{body:?}");
        }
        assert!(crate::testing::concerns(
            &IssueManagement,
            &comment_event("ann", "/pin-issue")
        ));
        assert!(!crate::testing::concerns(
            &IssueManagement,
            &comment_event("ann", "/pin")
        ));
    }
}
