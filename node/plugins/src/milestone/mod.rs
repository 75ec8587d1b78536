//! `milestone`: `/milestone`, for the people of one team; and who they are, for `/status` too.

mod maintainers;

use async_trait::async_trait;
use trireme_config::plugins::Section;
use trireme_forge::Milestone as OfRepo;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;
pub(crate) use maintainers::{Maintainers, per_repo};

commands! {
    MILESTONE = r"(?m)^/milestone\s+(.+?)\s*$";
}

const CLEAR: &str = "clear";

pub(crate) struct Milestone;

#[async_trait]
impl Plugin for Milestone {
    fn name(&self) -> &'static str {
        "milestone"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        event
            .generic_comment()
            .is_some_and(|comment| wanted(&comment).is_some())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(comment) = event.generic_comment() else {
            return Ok(Decision::nothing());
        };
        let Some(title) = wanted(&comment) else {
            return Ok(Decision::nothing());
        };
        let maintainers = Maintainers::of(cx, &comment.repo)?;
        if !maintainers.include(cx, &comment).await? {
            let why = maintainers.only_they_may("set the milestone", "/milestone");
            return Ok(vec![answer(&comment, why)].into());
        }
        let milestones = match title.as_str() {
            CLEAR => Vec::new(),
            _ => cx.forge.milestones(&comment.repo).await?,
        };
        Ok(decide(&comment, &title, &milestones))
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let told = |team: &str, id: i64| {
            format!("The milestone maintainers team is the GitHub team {team:?} with ID: {id}.")
        };
        PluginHelp {
            description: "The milestone plugin allows members of a configurable GitHub team to set the milestone on an issue or pull request.".to_owned(),
            config: Some(per_repo(scope, told)),
            commands: vec![Command {
                usage: "/milestone <version> or /milestone clear",
                featured: false,
                description: "Updates the milestone for an issue or PR",
                examples: &["/milestone v1.10", "/milestone v1.9", "/milestone clear"],
                who_can_use: "Members of the milestone maintainers GitHub team can use the '/milestone' command.",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(maintainers::section())
    }
}

/// The title that a new text asks for.
fn wanted(comment: &GenericComment) -> Option<String> {
    let found = MILESTONE.captures(&comment.body)?;
    (comment.action == GenericAction::Created).then(|| found[1].to_owned())
}

/// What becomes of it if its author may.
fn decide(comment: &GenericComment, title: &str, milestones: &[OfRepo]) -> Decision {
    let on = Target::new(&comment.repo, comment.number);
    if title == CLEAR {
        return vec![on.milestone(None)].into();
    }
    // Of several with one title Prow takes the last that it reads.
    let found = milestones.iter().rev().find(|known| known.title == title);
    if found.is_some() {
        return vec![on.milestone(found)].into();
    }
    let mut titles: Vec<String> = milestones
        .iter()
        .map(|known| format!("`{}`", known.title))
        .collect();
    titles.sort();
    titles.dedup();
    let why = format!(
        "The provided milestone is not valid for this repository. Milestones in this repository: [{}]\n\nUse `/milestone {CLEAR}` to clear the milestone.",
        titles.join(", ")
    );
    vec![answer(comment, why)].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::comment;

    fn told(body: &str) -> String {
        let comment = comment("lead", body);
        let Some(title) = wanted(&comment) else {
            return "not asked".to_owned();
        };
        let milestones = ["v1.10", "v1.9", "next one"].map(str::to_owned);
        let milestones: Vec<OfRepo> = (1..)
            .zip(milestones)
            .map(|(number, title)| OfRepo { number, title })
            .collect();
        let told = decide(&comment, &title, &milestones).to_string();
        told.split("\n\n<details>").next().unwrap().to_owned()
    }

    #[test]
    fn plg_milestone_001_titles_are_exact() {
        for (body, expected) in [
            ("/milestone v1.10", "milestone v1.10"),
            ("text\n/milestone   next one \r\nmore", "milestone next one"),
            ("/milestone v1.9\n/milestone v1.10", "milestone v1.9"),
            ("/milestone clear", "no milestone"),
            ("/Milestone v1.9", "not asked"),
            ("/milestone", "not asked"),
            ("/milestones v1.9", "not asked"),
        ] {
            assert_eq!(told(body), expected, "{body:?}");
        }
        insta::assert_snapshot!(told("/milestone v1"), @r"
        comment: @lead: The provided milestone is not valid for this repository. Milestones in this repository: [`next one`, `v1.10`, `v1.9`]

        Use `/milestone clear` to clear the milestone.
        ");
        let mut edited = comment("lead", "/milestone v1.9");
        edited.action = GenericAction::Edited;
        assert_eq!(wanted(&edited), None);
    }
}
