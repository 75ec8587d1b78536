//! `milestonestatus`: `/status`, labels on the way to a milestone.

use async_trait::async_trait;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::milestone::{Maintainers, per_repo};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;

commands! {
    STATUS = r"(?m)^/status\s+(.+)$";
}

const WORDS: [&str; 3] = ["approved-for-milestone", "in-progress", "in-review"];

pub(crate) struct MilestoneStatus;

#[async_trait]
impl Plugin for MilestoneStatus {
    fn name(&self) -> &'static str {
        "milestonestatus"
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
        let maintainers = Maintainers::of(cx, &comment.repo)?;
        if maintainers.include(cx, &comment).await? {
            return Ok(decide(&comment));
        }
        // As Prow says it: quoting nothing.
        let on = Target::new(&comment.repo, comment.number);
        let why = maintainers.only_they_may("add status labels", "/status");
        Ok(vec![on.comment(why)].into())
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let told =
            |team: &str, _| format!("The milestone maintainers team is the GitHub team {team:?}");
        PluginHelp {
            description: "The milestonestatus plugin allows members of the milestone maintainers GitHub team to specify the 'status/*' label that should apply to a pull request.".to_owned(),
            config: Some(per_repo(scope, told)),
            commands: vec![Command {
                usage: "/status (approved-for-milestone|in-progress|in-review)",
                featured: false,
                description: "Applies the 'status/' label to a PR.",
                examples: &["/status approved-for-milestone", "/status in-progress", "/status in-review"],
                who_can_use: "Members of the milestone maintainers GitHub team can use the '/status' command. This team is specified in the config by providing the GitHub team's ID.",
            }],
            ..PluginHelp::default()
        }
    }
}

fn asks(comment: &GenericComment) -> bool {
    comment.action == GenericAction::Created && STATUS.is_match(&comment.body)
}

/// What becomes of it if its author may.
fn decide(comment: &GenericComment) -> Decision {
    let on = Target::new(&comment.repo, comment.number);
    let asked = STATUS.captures_iter(&comment.body);
    let mut words: Vec<&str> = asked
        .filter_map(|found| {
            let word = found.get(1)?.as_str().trim();
            WORDS.into_iter().find(|known| *known == word)
        })
        .collect();
    let mut seen = Vec::new();
    words.retain(|word| {
        !seen.contains(word) && {
            seen.push(*word);
            true
        }
    });
    let labels = words
        .iter()
        .map(|word| on.add_label(&format!("status/{word}")));
    labels.collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::comment;

    #[test]
    fn plg_milestonestatus_001_known_words_are_labels() {
        for (body, expected) in [
            ("/status in-progress", "+status/in-progress"),
            (
                "/status  in-review \r\n/status approved-for-milestone",
                "+status/in-review\n+status/approved-for-milestone",
            ),
            ("/status in-review\n/status in-review", "+status/in-review"),
            ("/status great", "nothing"),
            ("/Status in-review", "nothing"),
        ] {
            assert_eq!(
                decide(&comment("lead", body)).to_string(),
                expected,
                "{body:?}"
            );
        }
        // Others are turned away whatever they ask for.
        assert!(asks(&comment("a", "/status great")));
        assert!(!asks(&comment("a", "/status")));
        let mut edited = comment("a", "/status in-review");
        edited.action = GenericAction::Edited;
        assert!(!asks(&edited));
    }
}
