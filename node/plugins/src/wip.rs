//! `wip`: a label on drafts and on titles that begin with WIP.

use async_trait::async_trait;
use trireme_forge::Label;
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::label_names::WORK_IN_PROGRESS;
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;

commands! {
    TITLE = r"(?i)^\W?WIP\W";
}

pub(crate) struct Wip;

#[async_trait]
impl Plugin for Wip {
    fn name(&self) -> &'static str {
        "wip"
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
        let labels = cx.forge.labels(&pr.repo, pr.number).await?;
        let on = Target::new(&pr.repo, pr.number);
        if cx.is_late(pr.updated_at) || cx.newer(pr).is_some() {
            let now = cx.forge.pull_request(&pr.repo, pr.number).await?;
            return Ok(decide(&on, &now.title, now.draft, &labels));
        }
        Ok(decide(&on, &pr.title, pr.draft, &labels))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The wip (Work In Progress) plugin applies the 'do-not-merge/work-in-progress' Label to pull requests whose title starts with 'WIP' or are in the 'draft' stage, and removes it from pull requests when they remove the title prefix or become ready for review. The 'do-not-merge/work-in-progress' Label is typically used to block a pull request from merging while it is still in progress.".to_owned(),
            ..PluginHelp::default()
        }
    }
}

/// Whether the title or the draft state may be another than before.
fn may_change(event: &PullRequestEvent) -> bool {
    matches!(
        event.action,
        PullRequestAction::Opened
            | PullRequestAction::Reopened
            | PullRequestAction::Edited
            | PullRequestAction::ReadyForReview
            | PullRequestAction::ConvertedToDraft
    )
}

fn decide(on: &Target, title: &str, draft: bool, labels: &[Label]) -> Decision {
    let needed = draft || TITLE.is_match(title);
    // Prow compares this label exactly.
    let labelled = labels.iter().any(|label| label.name == WORK_IN_PROGRESS);
    match (needed, labelled) {
        (true, false) => vec![on.add_label(WORK_IN_PROGRESS)].into(),
        (false, true) => vec![on.remove_label(WORK_IN_PROGRESS)].into(),
        _ => Decision::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use trireme_forge::RepoId;

    use super::*;
    use crate::testing::{labels, pull_request_event};

    #[test]
    fn plg_wip_001_drafts_and_wip_titles_are_labelled() {
        for (title, draft, labelled, expected) in [
            ("WIP: fix", false, false, "+do-not-merge/work-in-progress"),
            ("[wip] fix", false, false, "+do-not-merge/work-in-progress"),
            ("wip fix", false, false, "+do-not-merge/work-in-progress"),
            ("WIP", false, false, "nothing"),
            ("wiping the disk", false, false, "nothing"),
            ("fix WIP: no", false, false, "nothing"),
            ("([WIP] x", false, false, "nothing"),
            ("fix", true, false, "+do-not-merge/work-in-progress"),
            ("fix", false, true, "-do-not-merge/work-in-progress"),
            ("WIP: fix", false, true, "nothing"),
            ("fix", true, true, "nothing"),
        ] {
            let had = if labelled {
                labels(&[WORK_IN_PROGRESS])
            } else {
                vec![]
            };
            let on = Target::new(&RepoId::new("org", "repo"), 5);
            let told = decide(&on, title, draft, &had).to_string();
            assert_eq!(told, expected, "{title:?}");
        }
    }

    #[test]
    fn plg_wip_001_only_some_actions_can_change_it() {
        for (action, expected) in [
            ("opened", true),
            ("reopened", true),
            ("edited", true),
            ("ready_for_review", true),
            ("converted_to_draft", true),
            ("synchronize", false),
            ("labeled", false),
            ("closed", false),
        ] {
            assert_eq!(
                may_change(&pull_request_event(action)),
                expected,
                "{action}"
            );
        }
    }
}
