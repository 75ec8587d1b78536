//! `heart`: celebrates what some people say, and new OWNERS (PLG-HEART-001).

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::ChangedFile;
use trireme_forge::owners::Draw;
use trireme_forge::webhook::{Event, IssueCommentEvent, PullRequestAction};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

const SECTION: &str = "heart";
const REACTIONS: [&str; 3] = ["+1", "heart", "hooray"];

pub(crate) struct Heart;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// Logins.
    adorees: Vec<String>,
    commentregexp: String,
    #[serde(skip)]
    compiled: Option<GoRegex>,
}

impl Settings {
    /// HOOK-061
    fn complete(&mut self) -> Vec<Problem> {
        if self.commentregexp.is_empty() {
            return vec![];
        }
        match GoRegex::new(&self.commentregexp) {
            Ok(regex) => {
                self.compiled = Some(regex);
                vec![]
            }
            Err(why) => vec![Problem::error("commentregexp", why.to_string())],
        }
    }

    fn adores(&self, event: &IssueCommentEvent) -> bool {
        let regex = self.compiled.as_ref();
        self.adorees.contains(&event.comment.author.login)
            && regex.is_some_and(|regex| regex.is_match(&event.comment.body))
    }
}

#[async_trait]
impl Plugin for Heart {
    fn name(&self) -> &'static str {
        "heart"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::IssueComment, EventKind::PullRequest]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        match event {
            Event::IssueComment(event) => {
                let settings = cx.section::<Settings>(SECTION);
                is_new(event) && settings.is_none_or(|settings| settings.adores(event))
            }
            Event::PullRequest(event) => event.action == PullRequestAction::Opened,
            _ => false,
        }
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let reaction = REACTIONS[Draw::of(cx.guid).below(REACTIONS.len())];
        match event {
            Event::IssueComment(event) => {
                let settings: &Settings = cx.section(SECTION)?;
                if !is_new(event) || !settings.adores(event) {
                    return Ok(Decision::nothing());
                }
                let on = Target::new(&event.issue.repo, event.issue.number);
                Ok(vec![on.react(Some(event.comment.id), reaction)].into())
            }
            Event::PullRequest(event) if event.action == PullRequestAction::Opened => {
                let pr = &event.pull_request;
                let files = cx.forge.changed_files(&pr.repo, pr.number).await?;
                let plugins = &cx.running.plugins;
                let names = plugins.owners_filenames(&pr.repo.org, &pr.repo.repo);
                if !adds_owners(&files, [&names.owners, &names.owners_aliases]) {
                    return Ok(Decision::nothing());
                }
                let on = Target::new(&pr.repo, pr.number);
                Ok(vec![on.react(None, reaction)].into())
            }
            _ => Ok(Decision::nothing()),
        }
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let told = settings.map(|settings| {
            let told = format!(
                "The heart plugin is configured to react to comments,  satisfying the regular expression {}, left by the following GitHub users: {}.",
                settings.commentregexp,
                settings.adorees.join(", ")
            );
            BTreeMap::from([(String::new(), told)])
        });
        PluginHelp {
            description: "The heart plugin celebrates certain GitHub actions with the reaction emojis. Emojis are added to pull requests that make additions to OWNERS or OWNERS_ALIASES files and to comments left by specified \"adorees\".".to_owned(),
            config: told,
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, Settings::complete))
    }
}

fn is_new(event: &IssueCommentEvent) -> bool {
    event.action == "created" && event.issue.is_pull_request
}

fn adds_owners(files: &[ChangedFile], names: [&String; 2]) -> bool {
    files.iter().any(|file| {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        file.additions > 0 && names.iter().any(|owners| *owners == name)
    })
}

#[cfg(test)]
mod tests {
    use trireme_forge::FileStatus;

    use super::*;
    use crate::testing::{comment_event, plugins_yaml, pull_request_event};

    fn settings(yaml: &str) -> Result<Settings, String> {
        let plugins = plugins_yaml(&format!("heart: {{{yaml}}}"))?;
        Ok(plugins.section::<Settings>(SECTION).unwrap().clone())
    }

    #[test]
    fn plg_heart_001_comments_of_the_adored_are_celebrated() {
        for (yaml, login, body, expected) in [
            ("adorees: [ann], commentregexp: '^/'", "ann", "/lgtm", true),
            ("adorees: [ann], commentregexp: '^/'", "ann", "lgtm", false),
            ("adorees: [ann], commentregexp: '^/'", "bob", "/lgtm", false),
            ("adorees: [ann]", "ann", "/lgtm", false),
            ("commentregexp: '.*'", "ann", "/lgtm", false),
        ] {
            let Event::IssueComment(event) = comment_event(login, body) else {
                panic!("a comment");
            };
            let adored = settings(yaml).unwrap().adores(&event);
            assert_eq!(adored, expected, "{yaml} {login} {body}");
        }
        let Event::IssueComment(mut event) = comment_event("ann", "/lgtm") else {
            panic!("a comment");
        };
        let yaml = "heart: {adorees: [ann], commentregexp: '^/'}";
        let adored = |event: &IssueCommentEvent| {
            crate::testing::concerns_under(
                yaml,
                &Heart,
                &Event::IssueComment(Box::new(event.clone())),
            )
        };
        assert!(adored(&event));
        assert!(!crate::testing::concerns(
            &Heart,
            &Event::IssueComment(event.clone())
        ));
        event.issue.is_pull_request = false;
        assert!(!adored(&event));
    }

    #[test]
    fn plg_heart_001_new_owners_are_celebrated() {
        let names = ["OWNERS".to_owned(), "OWNERS_ALIASES".to_owned()];
        for (path, additions, expected) in [
            ("OWNERS", 1, true),
            ("a/b/OWNERS", 1, true),
            ("OWNERS_ALIASES", 1, true),
            ("OWNERS", 0, false),
            ("OWNERS/README", 1, false),
            ("MYOWNERS", 1, false),
        ] {
            let file = ChangedFile {
                path: path.to_owned(),
                previous_path: None,
                status: FileStatus::Modified,
                additions,
                deletions: 1,
                patch: None,
                blob_url: String::new(),
            };
            assert_eq!(
                adds_owners(&[file], [&names[0], &names[1]]),
                expected,
                "{path}"
            );
        }
        let event = |action| Event::PullRequest(Box::new(pull_request_event(action)));
        assert!(crate::testing::concerns(&Heart, &event("opened")));
        assert!(!crate::testing::concerns(&Heart, &event("edited")));
    }

    /// HOOK-061
    #[test]
    fn an_expression_that_does_not_compile_is_refused() {
        let refused = settings("commentregexp: '('").unwrap_err();
        assert!(refused.contains("error parsing regexp"), "{refused}");
    }
}
