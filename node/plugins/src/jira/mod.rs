//! `jira`: links texts to the Jira issues that they name, and these back to the pull request or issue (PLG-JIRA).

mod directory;
mod links;

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::{Event, GenericAction, GenericComment};
use trireme_outside::service::ServiceError;

use crate::decision::{Decision, Target, link_from_jira};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

pub(crate) use directory::JiraDirectory;

pub(crate) struct Jira;

/// Keys of a text beyond these are left alone.
const MAX_KEYS: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// Beginnings of keys, whatever their case.
    disabled_jira_projects: Vec<String>,
}

#[async_trait]
impl Plugin for Jira {
    fn name(&self) -> &'static str {
        "jira"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        event.generic_comment().is_some_and(|text| {
            let settings = cx.section::<Settings>("jira");
            let disabled = settings.map(|settings| settings.disabled_jira_projects.as_slice());
            text.action != GenericAction::Deleted
                && !candidates(&text, disabled.unwrap_or_default()).is_empty()
        })
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Some(text) = event.generic_comment() else {
            return Ok(Decision::nothing());
        };
        let settings: &Settings = cx.section("jira")?;
        let named = candidates(&text, &settings.disabled_jira_projects);
        if text.action == GenericAction::Deleted || named.is_empty() {
            return Ok(Decision::nothing());
        }
        let Some(jira) = cx.jira else {
            return Err(PlanError::Failed(
                "the jira plugin is on, but jira.endpoint is missing: set it in each node's settings"
                    .to_owned(),
            ));
        };
        let mut known = Vec::new();
        for key in named {
            let project = key.split('-').next().unwrap_or_default().to_lowercase();
            if jira.has_project(&project).await? && told(&key, jira.client().has_issue(&key).await)?
            {
                known.push(key);
            }
        }
        let url = jira.client().url();
        let mut now = None;
        // A review comment's id is none of a comment's, whose text alone can be replaced.
        let has_place = !matches!(event, Event::ReviewComment(_));
        if has_place && links::insert(&text.body, &known, url) != text.body {
            // Jira may have kept us waiting, and people may have written since.
            cx.as_of.settle();
            let read = match text.comment_id {
                Some(id) => {
                    let comment = cx.forge.comment(&text.repo, id).await;
                    comment.map(|comment| comment.body)
                }
                None => {
                    let issue = cx.forge.issue(&text.repo, text.number).await;
                    issue.map(|issue| issue.body)
                }
            };
            now = match read {
                Err(error) if error.is_not_found() => None,
                read => Some(read?),
            };
        }
        Ok(decide(&text, &known, now.as_deref(), url))
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The Jira plugin links Pull Requests and Issues to Jira issues".to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new("jira", |_: &mut Settings| vec![]))
    }
}

impl From<ServiceError> for PlanError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Unavailable(reason, retry_after) => Self::Outage {
                reason,
                retry_after,
            },
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Keys that the text or the title could name, without those of disabled projects.
fn candidates(text: &GenericComment, disabled: &[String]) -> BTreeSet<String> {
    let disabled: Vec<String> = disabled.iter().map(|name| name.to_lowercase()).collect();
    let is_disabled = |key: &str| {
        let key = key.to_lowercase();
        disabled.iter().any(|start| key.starts_with(start))
    };
    let found = links::keys(&text.body).chain(links::keys(&text.issue_title));
    found
        .filter(|key| !is_disabled(key))
        .take(MAX_KEYS)
        .collect()
}

/// Whether there is such an issue, as Jira says. An outage waits; whatever else Jira will not tell is about this key
/// alone.
fn told(key: &str, answer: Result<bool, ServiceError>) -> Result<bool, PlanError> {
    match answer {
        Ok(is_there) => Ok(is_there),
        Err(error @ ServiceError::Unavailable(..)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(key, %error, "jira will not tell of an issue: it is left alone");
            Ok(false)
        }
    }
}

/// `now`: what is to get links, as it is now: the comment, or else the text of the issue or pull request. The edit
/// comes first, so that it waits for no link.
fn decide(text: &GenericComment, known: &[String], now: Option<&str>, url: &str) -> Decision {
    let mut decision = Decision::nothing();
    let on = Target::new(&text.repo, text.number);
    if let Some(now) = now {
        let linked = links::insert(now, known, url);
        if linked != now {
            decision.push(match text.comment_id {
                Some(id) => on.rewrite_comment(id, now, linked),
                None => on.rewrite_body(now, linked),
            });
        }
    }
    let page = text.html_url.split('#').next().unwrap_or_default();
    let title = format!("{}#{}: {}", text.repo, text.number, text.issue_title);
    for key in known {
        decision.push(link_from_jira(key, page, title.clone()));
    }
    decision
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::effect::Action;

    use super::*;
    use crate::decision::sha256_of;
    use crate::testing::comment;

    fn known(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    /// PLG-JIRA-001
    #[test]
    fn plg_jira_001_keys_of_text_and_title_without_disabled_projects() {
        let mut text = comment("ann", "ABC-1, abc-2: (Enterprise-4) [X-9] y-8.");
        text.issue_title = "OPS-7: fix".into();
        let found = candidates(&text, &["enterprise".into()]);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["OPS-7", "X-9", "abc-2"]);
        assert!(!crate::testing::concerns(
            &Jira,
            &crate::testing::comment_event("ann", "nothing of note")
        ));
        assert!(crate::testing::concerns(
            &Jira,
            &crate::testing::comment_event("ann", "see ABC-1")
        ));
    }

    /// PLG-JIRA-002, PLG-JIRA-003
    #[test]
    fn plg_jira_002_issues_link_back_and_texts_are_edited_in_place() {
        let text = comment("ann", "see ABC-1");
        insta::assert_snapshot!(decide(&text, &known(&["ABC-1"]), Some("see ABC-1"), "https://jira"), @r"
        edit 9: see [ABC-1](https://jira/browse/ABC-1)
        link ABC-1 to https://github.com/org/repo/pull/5: org/repo#5: Fix it
        ");
        assert!(decide(&text, &[], None, "https://jira").is_idle());
        let mut opened = text;
        opened.comment_id = None;
        insta::assert_snapshot!(decide(&opened, &known(&["ABC-1"]), Some("see ABC-1"), "https://jira"), @r"
        body: see [ABC-1](https://jira/browse/ABC-1)
        link ABC-1 to https://github.com/org/repo/pull/5: org/repo#5: Fix it
        ");
    }

    /// PLG-JIRA-003: what a person wrote while Jira kept us waiting gets the links, and only if it still names a key.
    #[test]
    fn plg_jira_003_links_go_into_the_text_as_it_is_now() {
        let link = "link ABC-1 to https://github.com/org/repo/pull/5: org/repo#5: Fix it";
        for (now, expected) in [
            (
                Some("see ABC-1, please"),
                "edit 9: see [ABC-1](https://jira/browse/ABC-1), please\n",
            ),
            (Some("never mind"), ""),
            (Some("see [ABC-1](https://jira/browse/ABC-1)"), ""),
            (None, ""),
        ] {
            let text = comment("ann", "see ABC-1");
            let decision = decide(&text, &known(&["ABC-1"]), now, "https://jira");
            assert_eq!(decision.to_string(), format!("{expected}{link}"), "{now:?}");
            for effect in &decision.effects {
                assert_eq!(effect.condition, None);
                if let Some(Action::EditComment(edit)) = &effect.action {
                    assert_eq!(edit.was_sha256, sha256_of(now.unwrap()));
                }
            }
        }
    }

    /// PLG-JIRA-001: a key that Jira refuses spoils no other; an outage waits.
    #[test]
    fn plg_jira_001_a_refusal_is_about_one_key() {
        let refused = |status: &str| Err(ServiceError::Refused(status.to_owned()));
        for (answer, expected) in [
            (Ok(true), Ok(true)),
            (Ok(false), Ok(false)),
            (refused("400"), Ok(false)),
            (refused("401"), Ok(false)),
            (refused("403"), Ok(false)),
            (
                Err(ServiceError::Unavailable("503".to_owned(), None)),
                Err(PlanError::Outage {
                    reason: "503".to_owned(),
                    retry_after: None,
                }),
            ),
        ] {
            let what = format!("{answer:?}");
            assert_eq!(told("ABC-1", answer), expected, "{what}");
        }
    }
}
