//! `branchcleaner`: deletes the branch of a pull request that was merged within one repository.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::Deserialize;
use trireme_config::GoRegex;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::webhook::{Event, PullRequestAction, PullRequestEvent};

use crate::decision::{Decision, Target};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

const SECTION: &str = "branch_cleaner";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Settings {
    /// Names or expressions, by `org` or `org/repo`.
    preserved_branches: BTreeMap<String, Vec<String>>,
    #[serde(skip)]
    matchers: BTreeMap<String, Vec<GoRegex>>,
}

impl Settings {
    /// As in Prow, what is no expression is a name all the same.
    fn compile(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (key, branches) in &self.preserved_branches {
            for (n, branch) in branches.iter().enumerate() {
                match GoRegex::new(branch) {
                    Ok(matcher) => self.matchers.entry(key.clone()).or_default().push(matcher),
                    Err(error) => problems.push(Problem {
                        help: "it only preserves the branch of exactly that name".to_owned(),
                        ..Problem::advice(
                            format!("preserved_branches.{key}.{n}"),
                            error.to_string(),
                        )
                    }),
                }
            }
        }
        problems
    }

    fn preserves(&self, event: &PullRequestEvent) -> bool {
        let pr = &event.pull_request;
        let branch = &pr.head.branch;
        [pr.repo.to_string(), pr.repo.org.clone()]
            .iter()
            .any(|key| {
                let names = self.preserved_branches.get(key);
                let mut matchers = self.matchers.get(key).into_iter().flatten();
                names.is_some_and(|names| names.contains(branch))
                    || matchers.any(|matcher| matcher.is_match(branch))
            })
    }
}

pub(crate) struct BranchCleaner;

#[async_trait]
impl Plugin for BranchCleaner {
    fn name(&self) -> &'static str {
        "branchcleaner"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, cx: &Configured<'_>, event: &Event) -> bool {
        let settings = cx.section::<Settings>(SECTION);
        matches!(event, Event::PullRequest(event)
            if is_merged_within(event) && settings.is_none_or(|settings| !decide(event, settings).is_idle()))
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        match event {
            Event::PullRequest(event) => Ok(decide(event, cx.section(SECTION)?)),
            _ => Ok(Decision::nothing()),
        }
    }

    fn help(&self, scope: &HelpScope<'_>) -> PluginHelp {
        let settings = scope.plugins.section::<Settings>(SECTION);
        let config = scope.per_repo(|repo| {
            let repo = repo.to_string();
            let preserved = settings?.preserved_branches.get(&repo)?.join(" ");
            Some(format!(
                "The preserved branches for repo {repo} is [{preserved}]"
            ))
        });
        PluginHelp {
            description: "The branchcleaner plugin automatically deletes source branches for merged PRs between two branches on the same repository. This is helpful to keep repos that don't allow forking clean.".to_owned(),
            config,
            snippet: "branch_cleaner:\n  preserved_branches:\n    kubernetes-sigs:\n    - master\n    kubernetes/kubernetes:\n    - master\n".to_owned(),
            ..PluginHelp::default()
        }
    }

    fn section(&self) -> Option<Section> {
        Some(Section::new(SECTION, Settings::compile))
    }
}

fn is_merged_within(event: &PullRequestEvent) -> bool {
    let pr = &event.pull_request;
    event.action == PullRequestAction::Closed
        && pr.merged
        && pr.head.repo.as_ref() == Some(&pr.repo)
}

fn decide(event: &PullRequestEvent, settings: &Settings) -> Decision {
    let pr = &event.pull_request;
    if !is_merged_within(event) || settings.preserves(event) {
        return Decision::nothing();
    }
    vec![Target::new(&pr.repo, pr.number).delete_branch(&pr.head.branch)].into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trireme_config::plugins::ProblemKind;
    use trireme_forge::RepoId;

    use super::*;
    use crate::testing::pull_request_event;

    #[test]
    fn plg_branchcleaner_001_branches_of_the_repository_go_unless_preserved() {
        let mut settings: Settings = serde_json::from_value(json!({"preserved_branches": {
            "org": ["main", "^release-", "*bad"],
            "org/repo": ["staging"],
            "org/other": ["fix"],
        }}))
        .unwrap();
        let problems = settings.compile();
        assert_eq!((problems.len(), problems[0].kind), (1, ProblemKind::Advice));
        assert_eq!(problems[0].path, "preserved_branches.org.2");
        let merged = |branch: &str| {
            let mut event = pull_request_event("closed");
            event.pull_request.merged = true;
            event.pull_request.head.branch = branch.to_owned();
            event.pull_request.head.repo = Some(RepoId::new("org", "repo"));
            event
        };
        for (branch, expected) in [
            ("fix", "delete branch fix"),
            ("main", "nothing"),
            // Unanchored.
            ("not-main-at-all", "nothing"),
            ("release-1", "nothing"),
            ("my-release-1", "delete branch my-release-1"),
            ("my-staging", "nothing"),
            ("*bad", "nothing"),
        ] {
            assert_eq!(decide(&merged(branch), &settings).to_string(), expected);
        }
        let mut other = merged("fix");
        other.pull_request.head.repo = Some(RepoId::new("author", "repo"));
        assert!(decide(&other, &settings).is_idle());
        other.pull_request.head.repo = None;
        assert!(decide(&other, &settings).is_idle());
        let mut closed = merged("fix");
        closed.pull_request.merged = false;
        assert!(decide(&closed, &settings).is_idle());
    }
}
