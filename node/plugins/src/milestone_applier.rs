//! `milestoneapplier`: the milestone of a branch for what is merged into it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

const SECTION: &str = "milestone_applier";

/// Titles by branch, by `org/repo`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
struct Milestones(BTreeMap<String, BTreeMap<String, String>>);

pub(crate) struct MilestoneApplier;

#[async_trait]
impl Plugin for MilestoneApplier {
    fn name(&self) -> &'static str {
        "milestoneapplier"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let section = cx.section::<Milestones>(SECTION);
        matches!(event, Event::PullRequest(event)
            if is_time(event) && section.is_none_or(|section| wanted(event, section).is_some()))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        let Some(title) = wanted(event, cx.section(SECTION)?) else {
            return Ok(Decision::nothing());
        };
        let pr = &event.pull_request;
        let milestones = cx.forge.milestones(&pr.repo).await?;
        match milestones.iter().rev().find(|known| known.title == *title) {
            Some(found) => {
                let on = Target::new(&pr.repo, pr.number);
                Ok(vec![on.milestone(Some(found))].into())
            }
            None => Err(PlanError::Failed(format!(
                "The configured milestone {title} for {} branch does not exist in the {} repo",
                pr.base.branch, pr.repo
            ))),
        }
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let section = scope.plugins.section::<Milestones>(SECTION);
        let config = scope.per_repo(|repo| {
            let of_repo = section.and_then(|section| section.0.get(&repo.to_string()));
            let lines = of_repo.into_iter().flatten();
            let lines: Vec<String> = lines
                .map(|(branch, title)| format!("- `{branch}`: `{title}`"))
                .collect();
            Some(format!(
                "The configured branches and milestones for this repo are:\n{}",
                lines.join("\n")
            ))
        });
        PluginHelp {
            description: "The milestoneapplier plugin automatically applies the configured milestone for the base branch after a PR is merged. If a PR targets a non-default branch, it also adds the milestone when the PR is opened.".to_owned(),
            config,
            snippet: "milestone_applier:\n  kubernetes/kubernetes:\n    release-1.18: v1.18\n    release-1.19: v1.19\n".to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |_: &mut Milestones| Vec::new()))
    }
}

/// On merge; for other branches than the default one, from the beginning.
fn is_time(event: &PullRequestEvent) -> bool {
    let pr = &event.pull_request;
    match event.action {
        PullRequestAction::Closed => pr.merged,
        PullRequestAction::Opened => pr.base.branch != event.repository.default_branch,
        _ => false,
    }
}

/// The title that the pull request has to get.
fn wanted<'s>(event: &PullRequestEvent, section: &'s Milestones) -> Option<&'s String> {
    let pr = &event.pull_request;
    let title = section.0.get(&pr.repo.to_string())?.get(&pr.base.branch)?;
    let had = pr.milestone.as_ref();
    let has_it = had.is_some_and(|milestone| milestone.title == *title);
    (is_time(event) && !has_it).then_some(title)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_forge::Milestone;

    use super::*;
    use crate::testing::pull_request_event;

    #[test]
    fn plg_milestoneapplier_001_branches_have_milestones() {
        let section: Milestones = serde_json::from_value(json!({
            "org/repo": {"main": "next", "release": "v1"},
            "org/other": {"main": "x"},
        }))
        .unwrap();
        for (action, merged, branch, had, expected) in [
            ("closed", true, "main", None, Some("next")),
            ("closed", true, "main", Some("v1"), Some("next")),
            ("closed", true, "main", Some("next"), None),
            ("closed", false, "main", None, None),
            ("opened", false, "main", None, None),
            ("opened", false, "release", None, Some("v1")),
            ("reopened", false, "release", None, None),
            ("closed", true, "release", None, Some("v1")),
            ("closed", true, "dev", None, None),
        ] {
            let mut event = pull_request_event(action);
            event.pull_request.merged = merged;
            event.pull_request.base.branch = branch.to_owned();
            event.pull_request.milestone = had.map(|title| Milestone {
                number: 1,
                title: title.to_owned(),
            });
            let wanted = wanted(&event, &section).map(String::as_str);
            assert_eq!(wanted, expected, "{action} {branch} {had:?}");
        }
    }
}
