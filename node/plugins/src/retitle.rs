//! `/retitle`: for those who may not edit the title themselves.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::State;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;
use crate::trigger;

commands! {
    RETITLE = r"(?mi)^/retitle\s*(.*)$";
    /// Words by which GitHub closes an issue when a commit or a pull request with them is merged.
    CLOSES_ISSUE = r"((?i)(clos(?:e[sd]?))|(fix(?:(es|ed)?))|(resolv(?:e[sd]?)))[\s:]+(\w+/\w+)?#(\d+)";
}

const SECTION: &str = "retitle";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    allow_closed_issues: bool,
}

pub(crate) struct Retitle;

#[async_trait]
impl Plugin for Retitle {
    fn name(&self) -> &'static str {
        "retitle"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        event
            .generic_comment()
            .is_some_and(|comment| title(&comment).is_some())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let settings: &Settings = cx.section(SECTION)?;
        let asked = event.generic_comment().filter(|comment| {
            let is_open = comment.issue_state == State::Open;
            title(comment).is_some() && (is_open || settings.allow_closed_issues)
        });
        let Some(comment) = asked else {
            return Ok(Decision::nothing());
        };
        let on = Target::new(&comment.repo, comment.number);
        gather(cx, &on, Facts::default(), |facts| {
            let login = &comment.user.login;
            let trusted = trigger::trusts(cx.running, &comment.repo, login, cx.bot, facts)?;
            Ok(decide(&comment, trusted))
        })
        .await
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let closed = match settings.is_some_and(|it| it.allow_closed_issues) {
            true => "The retitle plugin also allows retitling closed/merged issues and PRs.",
            false => "The retitle plugin does not allow retitling closed/merged issues and PRs.",
        };
        PluginHelp {
            description: "The retitle plugin allows users to re-title pull requests and issues where GitHub permissions don't allow them to.".to_owned(),
            config: Some([(String::new(), closed.to_owned())].into()),
            snippet: "retitle:\n  allow_closed_issues: true\n".to_owned(),
            commands: vec![Command {
                usage: "/retitle <title>",
                featured: true,
                description: "Edits the pull request or issue title.",
                examples: &["/retitle New Title"],
                who_can_use: "Collaborators on the repository.",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |_: &mut Settings| Vec::new()))
    }
}

/// The title that a new text asks for; empty if it names none.
fn title(comment: &GenericComment) -> Option<String> {
    let found = RETITLE.captures(&comment.body)?;
    (comment.action == GenericAction::Created).then(|| found[1].trim().to_owned())
}

fn decide(comment: &GenericComment, trusted: bool) -> Decision {
    let Some(title) = title(comment) else {
        return Decision::nothing();
    };
    let refusal = if !trusted {
        "Re-titling can only be requested by trusted users, like repository collaborators."
    } else if title.is_empty() {
        "Titles may not be empty."
    } else if CLOSES_ISSUE.is_match(&title) {
        "Titles may not contain [keywords](https://help.github.com/articles/closing-issues-using-keywords) which can automatically close issues."
    } else {
        let on = Target::new(&comment.repo, comment.number);
        return vec![on.set_title(title)].into();
    };
    vec![answer(comment, refusal)].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, comment_event};

    #[test]
    fn plg_retitle_001_trusted_users_set_titles() {
        for (body, trusted, expected) in [
            ("/retitle New  title \r\n", true, "title: New  title"),
            ("text\n/RETITLE Fix bug 12\nmore", true, "title: Fix bug 12"),
            ("/retitle a\n/retitle b", true, "title: a"),
            ("/retitle Fixes 12", true, "title: Fixes 12"),
            ("/retitle Reopens #12", true, "title: Reopens #12"),
            (
                "/retitle",
                true,
                "comment: @alice: Titles may not be empty.",
            ),
            (
                "/retitle Fixes: #12",
                true,
                "comment: @alice: Titles may not contain [keywords](https://help.github.com/articles/closing-issues-using-keywords) which can automatically close issues.",
            ),
            (
                "/retitle x RESOLVED org/repo#7",
                true,
                "comment: @alice: Titles may not contain [keywords](https://help.github.com/articles/closing-issues-using-keywords) which can automatically close issues.",
            ),
            (
                "/retitle x",
                false,
                "comment: @alice: Re-titling can only be requested by trusted users, like repository collaborators.",
            ),
            (
                "/retitle",
                false,
                "comment: @alice: Re-titling can only be requested by trusted users, like repository collaborators.",
            ),
            ("please /retitle x", true, "nothing"),
        ] {
            let told = decide(&comment("alice", body), trusted).to_string();
            let told = told.split("\n\n<details>").next().unwrap();
            assert_eq!(told, expected, "{body:?}");
        }
        assert!(crate::testing::concerns(
            &Retitle,
            &comment_event("a", "/retitle x")
        ));
        assert!(!crate::testing::concerns(
            &Retitle,
            &comment_event("a", "retitle x")
        ));
        let mut edited = comment("alice", "/retitle x");
        edited.action = GenericAction::Edited;
        assert_eq!(title(&edited), None);
    }
}
