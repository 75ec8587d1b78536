//! `shrug`: a label for those who do not know either.

use async_trait::async_trait;
use trireme_forge::Label;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    SHRUG = r"(?mi)^/shrug\s*$";
    UNSHRUG = r"(?mi)^/unshrug\s*$";
}

const LABEL: &str = r"¯\_(ツ)_/¯";
/// The same in Markdown.
const TOLD: &str = r"¯\\\_(ツ)\_/¯";

pub(crate) struct Shrug;

#[async_trait]
impl Plugin for Shrug {
    fn name(&self) -> &'static str {
        "shrug"
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
        let asked = event.generic_comment();
        let Some(comment) = asked.filter(|comment| wanted(comment).is_some()) else {
            return Ok(Decision::nothing());
        };
        let labels = cx.forge.labels(&comment.repo, comment.number).await?;
        Ok(decide(&comment, &labels))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: LABEL.to_owned(),
            commands: vec![Command {
                usage: "/[un]shrug",
                featured: false,
                description: LABEL,
                examples: &["/shrug", "/unshrug"],
                who_can_use: r"Anyone, ¯\_(ツ)_/¯",
            }],
            ..PluginHelp::default()
        }
    }
}

/// Whether a new text asks for the label (`true`) or asks it away.
fn wanted(comment: &GenericComment) -> Option<bool> {
    if comment.action != GenericAction::Created {
        None
    } else if SHRUG.is_match(&comment.body) {
        Some(true)
    } else {
        UNSHRUG.is_match(&comment.body).then_some(false)
    }
}

fn decide(comment: &GenericComment, labels: &[Label]) -> Decision {
    let on = Target::new(&comment.repo, comment.number);
    let is_set = labels.iter().any(|label| label.name == LABEL);
    match (wanted(comment), is_set) {
        (Some(true), false) => vec![on.add_label(LABEL)].into(),
        (Some(false), true) => vec![answer(comment, TOLD), on.remove_label(LABEL)].into(),
        _ => Decision::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, labels};

    #[test]
    fn plg_fun_005_who_knows() {
        let told = |body: &str, set: &[&str]| decide(&comment("a", body), &labels(set)).to_string();
        insta::assert_snapshot!(told("/shrug\r\n", &[]), @r"+¯\_(ツ)_/¯");
        assert_eq!(told("/SHRUG", &[LABEL]), "nothing");
        assert_eq!(told("/unshrug", &[]), "nothing");
        assert_eq!(told("/shrugs", &[]), "nothing");
        let told = told("/unshrug", &[LABEL]);
        let mut lines = told.lines();
        insta::assert_snapshot!(lines.next().unwrap(), @r"comment: @a: ¯\\\_(ツ)\_/¯");
        insta::assert_snapshot!(lines.next_back().unwrap(), @r"-¯\_(ツ)_/¯");
    }
}
