//! `golint`: says that there is no such linter here (PLG-GOLINT-002). Its authors froze it years ago.

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::webhook::Event;

use crate::decision::Decision;
use crate::help::{Command, HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};
use crate::respond::answer;
use crate::text::commands;

commands! {
    LINT = r"(?mi)^/lint\s*$";
}

const NOT_HERE: &str = "golint is not available: its authors have frozen and deprecated it, and Trireme does not run it. Lint in a presubmit job, as with `go vet` or `staticcheck`; its failure is shown on the pull request.";

pub(crate) struct Golint;

/// Read, and of no effect.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    #[serde(rename = "minimum_confidence")]
    _minimum_confidence: Option<f64>,
}

#[async_trait]
impl Plugin for Golint {
    fn name(&self) -> &'static str {
        "golint"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::Generic]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        is_asked(event)
    }

    async fn plan(&self, _: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let asked = event.generic_comment().filter(|_| is_asked(event));
        Ok(match asked {
            Some(comment) => vec![answer(&comment, NOT_HERE)].into(),
            None => Decision::nothing(),
        })
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The golint plugin of Prow runs golint on changes made to *.go files in a PR. Trireme does not run it: asked to, it says so.".to_owned(),
            commands: vec![Command {
                usage: "/lint",
                featured: false,
                description: "Tells that golint is not available",
                examples: &["/lint"],
                who_can_use: "Anyone can trigger this command on a PR.",
            }],
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new("golint", |_: &mut Settings| vec![]))
    }
}

fn is_asked(event: &Event) -> bool {
    event.generic_comment().is_some_and(|comment| {
        comment.is_new_on_open_pull_request() && LINT.is_match(&comment.body)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{comment_event, concerns, plugins_yaml};

    #[test]
    fn plg_golint_002_who_asks_is_told_that_there_is_none() {
        assert!(concerns(&Golint, &comment_event("ann", "/lint\r\n")));
        assert!(!concerns(&Golint, &comment_event("ann", "/lint all")));
        assert!(plugins_yaml("golint: {minimum_confidence: 0.8}").is_ok());
        assert!(NOT_HERE.starts_with("golint is not available"));
    }
}
