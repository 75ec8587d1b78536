//! `label`: sets and removes labels as comments say.

mod decide;
mod settings;

use async_trait::async_trait;
use trireme_config::plugins::Section;
use trireme_forge::owners::Draw;
use trireme_forge::webhook::{Event, PullRequestAction};

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather_up_to};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use decide::Asked;
use settings::Settings;

/// Its section of `plugins.yaml`.
const SECTION: &str = "label";
/// What a text may have to know: one may name every restricted label, and each has its teams.
const MAX_FACTS: usize = 500;
/// Allowed users that a refusal names.
const MAX_NAMED_USERS: usize = 20;

pub(crate) struct Label;

#[async_trait]
impl Plugin for Label {
    fn name(&self) -> &'static str {
        "label"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest, EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::PullRequest(event) if event.action == PullRequestAction::Labeled => cx
                .section::<Settings>(SECTION)
                .is_none_or(|settings| !decide::assign_on(event, settings).is_idle()),
            _ => event
                .generic_comment()
                .is_some_and(|comment| Asked::by(&comment).is_some()),
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let settings: &Settings = cx.section(SECTION)?;
        if let Event::PullRequest(event) = event
            && event.action == PullRequestAction::Labeled
        {
            return Ok(decide::assign_on(event, settings));
        }
        let Some(asked) = event.generic_comment().and_then(|it| Asked::by(&it)) else {
            return Ok(Decision::nothing());
        };
        let on = Target::new(&asked.comment.repo, asked.comment.number);
        gather_up_to(MAX_FACTS, cx, &on, Facts::default(), |facts| {
            let mut draw = Draw::of(cx.guid);
            decide::decide(&asked, settings, facts, &mut |count| draw.below(count))
        })
        .await
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let more = settings.iter().flat_map(|it| &it.additional_labels);
        let mut kinds: Vec<String> = ["kind", "priority", "area"].map(str::to_owned).to_vec();
        kinds.extend(more.cloned());
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("\"{kind}/*\"")).collect();
        let all = match kinds.split_last() {
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => String::new(),
        };
        let works_on = format!("The label plugin will work on {all} labels.");
        PluginHelp {
            description: "The label plugin provides commands that add or remove certain types of labels. Labels of the following types can be manipulated: 'area/*', 'committee/*', 'kind/*', 'language/*', 'priority/*', 'sig/*', 'triage/*', and 'wg/*'. More labels can be configured to be used via the /label command. Restricted labels are only able to be added by the teams and users present in their configuration, and those users can be automatically assigned when another label is added using the assign_on config.".to_owned(),
            config: Some([(String::new(), works_on)].into()),
            snippet: "label:\n  additional_labels:\n  - api-review\n  - community/discussion\n  restricted_labels:\n    '*':\n    - allowed_teams:\n      - authorized-team\n      allowed_users:\n      - alice\n      - bob\n      assign_on:\n      - label: other-label\n      label: restricted-label\n".to_owned(),
            commands: vec![Command {
                usage: "/[remove-](area|committee|kind|language|priority|sig|triage|wg|label) <target>",
                featured: false,
                description: "Applies or removes a label from one of the recognized types of labels.",
                examples: &["/kind bug", "/remove-area prow", "/sig testing", "/language zh", "/label foo-bar-baz"],
                who_can_use: "Anyone can trigger this command on issues and PRs. `triage/accepted` can only be added by org members. Restricted labels are only able to be added by teams and users in their configuration.",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(settings::section())
    }
}
