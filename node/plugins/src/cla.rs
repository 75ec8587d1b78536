//! `cla`: labels that say whether the contributors' agreement is signed, from the status of who checks that.

use async_trait::async_trait;
use serde::Deserialize;
use std::time::Duration;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::{Event, GenericComment, StatusEvent};
use trireme_forge::{CombinedStatus, Label, StatusState};

use crate::decision::{Decision, Target};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::label_names::{CLA_NO, CLA_YES};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::text::commands;

commands! {
    CHECK = r"(?mi)^/check-cla\s*$";
}

const SECTION: &str = "cla";
const CONTEXT: &str = "EasyCLA";
/// A status may come before we are told of the pull request; later than this we ask for it.
const KNOWN_BY: Duration = Duration::from_secs(10);

pub(crate) struct Cla;

/// Prow has these fixed (PLG-CLA-003).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    context: String,
    yes_label: String,
    no_label: String,
}

impl Settings {
    fn complete(&mut self) -> Vec<Problem> {
        for (field, default) in [
            (&mut self.context, CONTEXT),
            (&mut self.yes_label, CLA_YES),
            (&mut self.no_label, CLA_NO),
        ] {
            if field.is_empty() {
                default.clone_into(field);
            }
        }
        if self.yes_label.eq_ignore_ascii_case(&self.no_label) {
            let why = "the same as yes_label: choose another";
            return vec![Problem::error("no_label", why)];
        }
        vec![]
    }
}

#[async_trait]
impl Plugin for Cla {
    fn name(&self) -> &'static str {
        "cla"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Status, EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::Status(event) => {
                let context = cx
                    .section(SECTION)
                    .map(|settings: &Settings| &settings.context);
                is_decided(event.status.state)
                    && context.is_none_or(|context| *context == event.status.context)
            }
            _ => event
                .generic_comment()
                .is_some_and(|comment| is_check(&comment)),
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let settings: &Settings = cx.section(SECTION)?;
        if let Event::Status(event) = event {
            let state = event.status.state;
            if event.status.context != settings.context || !is_decided(state) {
                return Ok(Decision::nothing());
            }
            let mut decision = Decision::nothing();
            for on in with_head(cx, event).await? {
                let labels = cx.forge.labels(&on.repo, on.number).await?;
                decision = decision.and(decide(&on, settings, state, &labels));
            }
            return Ok(decision);
        }
        let Some(comment) = event.generic_comment().filter(is_check) else {
            return Ok(Decision::nothing());
        };
        let (repo, number) = (&comment.repo, comment.number);
        let known = cx.state.pull_request(&repo.org, &repo.repo, number);
        let head = match known.map(|pr| pr.head_sha.clone()) {
            Some(head) => head,
            None => cx.forge.pull_request(repo, number).await?.head.sha,
        };
        let statuses = cx.forge.combined_status(repo, &head).await?;
        let Some(state) = shown(&statuses, &settings.context) else {
            return Ok(Decision::nothing());
        };
        let labels = cx.forge.labels(repo, number).await?;
        let on = Target::new(repo, number);
        Ok(decide(&on, settings, state, &labels).for_head(&head))
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let context = settings.map_or(CONTEXT, |settings| settings.context.as_str());
        PluginHelp {
            description: format!(
                "The cla plugin manages the application and removal of the 'cncf-cla' prefixed labels on pull requests as a reaction to the {context} github status context. It is also responsible for warning unauthorized PR authors that they need to sign the CNCF CLA before their PR will be merged."
            ),
            snippet: SNIPPET.to_owned(),
            commands: vec![Command {
                usage: "/check-cla",
                featured: true,
                description: "Forces rechecking of the CLA status.",
                examples: &["/check-cla"],
                who_can_use: "Anyone",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, Settings::complete))
    }
}

const fn is_decided(state: StatusState) -> bool {
    !matches!(state, StatusState::Pending | StatusState::Expected)
}

fn is_check(comment: &GenericComment) -> bool {
    comment.is_new_on_open_pull_request() && CHECK.is_match(&comment.body)
}

/// The open pull requests whose head has that status (PLG-CLA-003): those that are known, else the forge is asked.
async fn with_head(cx: &Planning<'_>, event: &StatusEvent) -> Result<Vec<Target>, PlanError> {
    let repo = &event.repository.id;
    let known = cx
        .state
        .pulls_with_head(&event.sha)
        .filter(|pr| pr.open && pr.org == repo.org && pr.repo == repo.repo);
    let known: Vec<Target> = known.map(|pr| Target::new(repo, pr.number)).collect();
    if !known.is_empty() {
        return Ok(known);
    }
    cx.settled_for(KNOWN_BY)?;
    let found = cx
        .forge
        .open_pull_requests_with_head(repo, &event.sha)
        .await?;
    let found = found.iter().map(|pr| Target::new(repo, pr.number));
    Ok(found.collect())
}

/// What is shown of the agreement, as far as it decides anything (PLG-CLA-002).
fn shown(statuses: &CombinedStatus, context: &str) -> Option<StatusState> {
    let mut statuses = statuses.statuses.iter();
    let state = statuses.find(|status| status.context == context)?.state;
    matches!(state, StatusState::Success | StatusState::Failure).then_some(state)
}

fn decide(on: &Target, settings: &Settings, state: StatusState, labels: &[Label]) -> Decision {
    let (wanted, other) = match state {
        StatusState::Success => (&settings.yes_label, &settings.no_label),
        _ => (&settings.no_label, &settings.yes_label),
    };
    let has = |name: &String| labels.iter().any(|label| label.name == *name);
    let mut effects = Vec::new();
    if has(other) {
        effects.push(on.remove_label(other));
    }
    if !has(wanted) {
        effects.push(on.add_label(wanted));
    }
    effects.into()
}

const SNIPPET: &str = "\
cla:
    # The status that tells whether the agreement is signed.
    context: EasyCLA
    yes_label: 'cncf-cla: yes'
    no_label: 'cncf-cla: no'
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, labels, plugins_yaml};
    use trireme_forge::{CommitStatus, RepoId};

    fn told(settings: &Settings, state: StatusState, had: &[&str]) -> String {
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        decide(&on, settings, state, &labels(had)).to_string()
    }

    #[test]
    fn plg_cla_001_the_labels_follow_the_status() {
        let config = plugins_yaml("{}").unwrap();
        let settings = config.section::<Settings>(SECTION).unwrap();
        for (state, had, expected) in [
            (StatusState::Success, &[][..], "+cncf-cla: yes"),
            (
                StatusState::Success,
                &[CLA_NO],
                "-cncf-cla: no\n+cncf-cla: yes",
            ),
            (StatusState::Success, &[CLA_YES], "nothing"),
            (StatusState::Failure, &[], "+cncf-cla: no"),
            (
                StatusState::Error,
                &[CLA_YES],
                "-cncf-cla: yes\n+cncf-cla: no",
            ),
            (StatusState::Error, &[CLA_NO], "nothing"),
        ] {
            assert_eq!(told(settings, state, had), expected, "{state:?} {had:?}");
        }
        assert!(!is_decided(StatusState::Pending) && is_decided(StatusState::Error));
    }

    #[test]
    fn plg_cla_002_a_command_looks_at_the_status_again() {
        for (body, expected) in [
            ("/check-cla", true),
            ("thanks\n/CHECK-CLA \r\n", true),
            ("/check-cla now", false),
            ("check-cla", false),
        ] {
            assert_eq!(
                crate::testing::concerns(&Cla, &comment_event("a", body)),
                expected,
                "{body:?}"
            );
        }
        let statuses = |state| CombinedStatus {
            sha: String::new(),
            state,
            statuses: vec![CommitStatus {
                context: CONTEXT.into(),
                state,
                description: String::new(),
                target_url: String::new(),
            }],
        };
        let shown = |state, context| shown(&statuses(state), context);
        assert_eq!(
            shown(StatusState::Success, CONTEXT),
            Some(StatusState::Success)
        );
        assert_eq!(
            shown(StatusState::Failure, CONTEXT),
            Some(StatusState::Failure)
        );
        assert_eq!(shown(StatusState::Error, CONTEXT), None);
        assert_eq!(shown(StatusState::Pending, CONTEXT), None);
        assert_eq!(shown(StatusState::Success, "other"), None);
    }

    #[test]
    fn plg_cla_003_context_and_labels_can_be_others() {
        let yaml = "cla: {context: our-cla, yes_label: signed, no_label: unsigned}";
        let config = plugins_yaml(yaml).unwrap();
        let settings = config.section::<Settings>(SECTION).unwrap();
        assert_eq!(settings.context, "our-cla");
        assert_eq!(
            told(settings, StatusState::Success, &["unsigned"]),
            "-unsigned\n+signed"
        );
        let bad = plugins_yaml("cla: {yes_label: a, no_label: A}").unwrap_err();
        assert!(bad.contains("the same as yes_label"), "{bad}");
    }
}
