//! `stage`: how far a feature has come, as a label.

use async_trait::async_trait;
use trireme_forge::Label;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};
use trireme_proto::state::effect::Action;

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;

commands! {
    STAGE = r"(?mi)^/(remove-)?stage (alpha|beta|stable)\s*$";
}

const ALL: [&str; 3] = ["stage/alpha", "stage/beta", "stage/stable"];

pub(crate) struct Stage;

#[async_trait]
impl Plugin for Stage {
    fn name(&self) -> &'static str {
        "stage"
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
        let labels = cx.forge.labels(&comment.repo, comment.number).await?;
        Ok(decide(&comment, &labels))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "Label the stage of an issue as alpha/beta/stable".to_owned(),
            commands: vec![Command {
                usage: "/[remove-]stage <alpha|beta|stable>",
                featured: false,
                description: "Labels the stage of an issue as alpha/beta/stable",
                examples: &["/stage alpha", "/remove-stage alpha"],
                who_can_use: "Anyone can trigger this command.",
            }],
            ..PluginHelp::default()
        }
    }
}

fn asks(comment: &GenericComment) -> bool {
    comment.action == GenericAction::Created && STAGE.is_match(&comment.body)
}

fn decide(comment: &GenericComment, labels: &[Label]) -> Decision {
    let on = Target::new(&comment.repo, comment.number);
    let commands = STAGE
        .captures_iter(&comment.body)
        .map(|found| (found.get(1).is_some(), format!("stage/{}", &found[2])));
    one_of(&on, &ALL, commands, labels).into()
}

/// Carries out commands (whether to remove, which label) over labels of which one at most is to be set: each on what
/// those before it leave, whatever the case.
pub(crate) fn one_of(
    on: &Target,
    all: &[&str],
    commands: impl IntoIterator<Item = (bool, String)>,
    labels: &[Label],
) -> Vec<Action> {
    let mut effects = Vec::new();
    let mut set: Vec<String> = labels
        .iter()
        .map(|label| label.name.to_lowercase())
        .collect();
    for (remove, label) in commands {
        let lower = label.to_lowercase();
        match (remove, set.contains(&lower)) {
            (true, true) => {
                effects.push(on.remove_label(&label));
                set.retain(|had| *had != lower);
            }
            (false, false) => {
                for other in all
                    .iter()
                    .filter(|other| set.iter().any(|had| had == *other))
                {
                    effects.push(on.remove_label(other));
                }
                set.retain(|had| !all.contains(&had.as_str()));
                effects.push(on.add_label(&label));
                set.push(lower);
            }
            _ => {}
        }
    }
    effects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment, labels};

    #[test]
    fn plg_stage_001_one_label_of_three() {
        for (body, set, expected) in [
            ("/stage alpha", &[][..], "+stage/alpha"),
            (
                "/stage beta\r\n",
                &["stage/alpha", "x"],
                "-stage/alpha\n+stage/beta",
            ),
            ("/stage beta", &["Stage/Beta"], "nothing"),
            ("/remove-stage beta", &["stage/beta"], "-stage/beta"),
            ("/remove-stage beta", &["stage/alpha"], "nothing"),
            (
                "/stage alpha\n/STAGE stable",
                &[],
                "+stage/alpha\n-stage/alpha\n+stage/stable",
            ),
            ("/stage gamma", &[], "nothing"),
        ] {
            let told = decide(&comment("a", body), &labels(set)).to_string();
            assert_eq!(told, expected, "{body:?}");
        }
        let mut edited = comment("a", "/stage alpha");
        edited.action = GenericAction::Edited;
        assert!(!asks(&edited));
    }
}
