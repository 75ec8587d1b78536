//! `release-note`: a pull request says what its users should know, in a block of its text.

mod command;
mod note;
mod pull_request;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::Event;

use crate::decision::{Decision, Target};
use crate::facts::{Facts, gather};
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin, outage};
use pull_request::Parents;

const SECTION: &str = "release_note";
const GUIDELINES: &str = "https://git.k8s.io/community/contributors/guide/release-notes.md";

pub(crate) struct ReleaseNote;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    guidelines_url: String,
}

#[async_trait]
impl Plugin for ReleaseNote {
    fn name(&self) -> &'static str {
        "release-note"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::IssueComment, EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::PullRequest(event) => pull_request::counts(event),
            Event::IssueComment(event) => command::asked(event).is_some(),
            _ => false,
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        match event {
            Event::PullRequest(event) if pull_request::counts(event) => {
                let settings: &Settings = cx.section(SECTION)?;
                let pr = &event.pull_request;
                let on = Target::new(&pr.repo, pr.number);
                let mut parents = Parents::default();
                for number in pull_request::parents(pr) {
                    match cx.forge.labels(&pr.repo, number).await {
                        Ok(labels) => parents.add(number, Some(&labels)),
                        Err(error) if outage(&error).is_some() => return Err(error.into()),
                        Err(error) => {
                            let repo = &pr.repo;
                            tracing::warn!(%error, %repo, number, "cannot see the labels of a parent");
                            parents.add(number, None);
                        }
                    }
                }
                let url = &settings.guidelines_url;
                let decide =
                    |facts: &Facts| pull_request::decide(event, url, &parents, cx.bot, facts);
                gather(cx, &on, Facts::default(), decide).await
            }
            Event::IssueComment(event) => {
                let Some(asked) = command::asked(event) else {
                    return Ok(Decision::nothing());
                };
                let on = Target::new(&event.issue.repo, event.issue.number);
                let decide = |facts: &Facts| command::decide(event, asked, facts);
                gather(cx, &on, Facts::default(), decide).await
            }
            _ => Ok(Decision::nothing()),
        }
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: HELP.to_owned(),
            commands: vec![
                Command {
                    usage: "/release-note-none",
                    featured: false,
                    description: "Adds the 'release-note-none' label to indicate that the PR does not warrant a release note. This is deprecated and ideally <a href=\"https://git.k8s.io/community/contributors/guide/release-notes.md\">the release note process</a> should be followed in the PR body instead.",
                    examples: &["/release-note-none"],
                    who_can_use: "PR Authors and Org Members.",
                },
                Command {
                    usage: "/release-note-edit",
                    featured: false,
                    description: "Replaces the release note block in the top level comment with the provided one.",
                    examples: &[
                        "/release-note-edit\r\n```release-note\r\nThe new release note\r\n```",
                    ],
                    who_can_use: "Org Members.",
                },
            ],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, |settings: &mut Settings| {
            if settings.guidelines_url.is_empty() {
                GUIDELINES.clone_into(&mut settings.guidelines_url);
            }
            vec![]
        }))
    }
}

const HELP: &str = "The releasenote plugin implements a release note process that uses a markdown 'release-note' code block to associate a release note with a pull request. Until the 'release-note' block in the pull request body is populated the PR will be assigned the 'do-not-merge/release-note-label-needed' label.
<br>There are three valid types of release notes that can replace this label:
<ol><li>PRs with a normal release note in the 'release-note' block are given the label 'release-note'.</li>
<li>PRs that have a release note of 'none' in the block are given the label 'release-note-none' to indicate that the PR does not warrant a release note.</li>
<li>PRs that contain 'action required' in their 'release-note' block are given the label 'release-note-action-required' to indicate that the PR introduces potentially breaking changes that necessitate user action before upgrading to the release.</li></ol>
To use the plugin, in the pull request body text:

```release-note
<release note content>
```";
