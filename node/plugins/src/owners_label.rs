//! `owners-label`: labels that OWNERS files give to what a pull request changes.

use std::collections::BTreeSet;

use async_trait::async_trait;
use trireme_forge::webhook::Event;

use crate::decision::{Decision, Target};
use crate::facts::{Facts, Missing, gather};
use crate::help::{HelpScope, PluginHelp};
use crate::plugin::{Configured, EventKind, PlanError, Planning, Plugin};

pub(crate) struct OwnersLabel;

#[async_trait]
impl Plugin for OwnersLabel {
    fn name(&self) -> &'static str {
        "owners-label"
    }

    fn events(&self) -> &'static [EventKind] {
        &[EventKind::PullRequest]
    }

    fn concerns(&self, _: &Configured<'_>, event: &Event) -> bool {
        matches!(event, Event::PullRequest(event) if event.action.brings_commits())
    }

    async fn plan(&self, cx: &Planning<'_>, event: &Event) -> Result<Decision, PlanError> {
        let Event::PullRequest(event) = event else {
            return Ok(Decision::nothing());
        };
        if !event.action.brings_commits() {
            return Ok(Decision::nothing());
        }
        let pr = &event.pull_request;
        let on = Target::new(&pr.repo, pr.number);
        let branch = &pr.base.branch;
        gather(cx, &on, Facts::default(), |facts| {
            decide(&on, branch, facts)
        })
        .await
    }

    fn help(&self, _: &HelpScope<'_>) -> PluginHelp {
        PluginHelp {
            description: "The owners-label plugin automatically adds labels to PRs based on the files they touch. Specifically, the 'labels' sections of OWNERS files are used to determine which labels apply to the changes.".to_owned(),
            ..PluginHelp::default()
        }
    }
}

/// Whether it may touch other files than before.
/// Labels are compared with their case here, as in Prow.
fn decide(on: &Target, branch: &str, facts: &Facts) -> Result<Decision, Missing> {
    let owners = facts.owners(branch)?;
    let files = facts.files()?.iter();
    let wanted: BTreeSet<String> = files.flat_map(|path| owners.labels(path)).collect();
    if wanted.is_empty() {
        return Ok(Decision::nothing());
    }
    let in_repo = facts.repo_labels()?;
    let set = facts.labels()?;
    let is_among =
        |labels: &[trireme_forge::Label], name: &str| labels.iter().any(|label| label.name == name);
    let missing = wanted.iter().filter(|label| !is_among(set, label));
    let (known, unknown): (Vec<_>, Vec<_>) = missing.partition(|label| is_among(in_repo, label));
    if !unknown.is_empty() {
        let repo = &on.repo;
        tracing::warn!(%repo, ?unknown, "OWNERS files name labels that the repository does not have");
    }
    let effects: Vec<_> = known.iter().map(|label| on.add_label(label)).collect();
    Ok(effects.into())
}

#[cfg(test)]
mod tests {
    use trireme_forge::RepoId;

    use super::*;
    use crate::testing::{labels, owners, pull_request_event};

    fn told(files: &[&str], set: &[&str]) -> String {
        let owners = owners(&[
            ("OWNERS", "approvers: [boss]\n"),
            ("docs/OWNERS", "labels: [kind/docs, Sig/docs]\n"),
            ("docs/api/OWNERS", "labels: [area/api, area/unknown]\n"),
        ]);
        let facts = Facts {
            owners: [("main".to_owned(), owners)].into(),
            files: Some(files.iter().map(|path| (*path).to_owned()).collect()),
            repo_labels: Some(labels(&["kind/docs", "sig/docs", "area/api"])),
            labels: Some(labels(set)),
            ..Facts::default()
        };
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        decide(&on, "main", &facts).unwrap().to_string()
    }

    #[test]
    fn plg_ownerslabel_001_files_bring_labels() {
        assert_eq!(told(&["main.go"], &[]), "nothing");
        // The repository writes sig/docs otherwise.
        assert_eq!(told(&["docs/a.md"], &["area/api"]), "+kind/docs");
        assert_eq!(
            told(&["docs/api/x", "docs/y"], &[]),
            "+area/api\n+kind/docs"
        );
        assert_eq!(told(&["docs/api/x"], &["kind/docs"]), "+area/api");
        assert_eq!(told(&["docs/a.md"], &["KIND/docs"]), "+kind/docs");
    }

    #[test]
    fn plg_ownerslabel_001_labels_are_read_only_where_owners_name_some() {
        let facts = Facts {
            owners: [("main".to_owned(), owners(&[("OWNERS", "approvers: [a]")]))].into(),
            files: Some(vec!["x".into()]),
            ..Facts::default()
        };
        let on = Target::new(&RepoId::new("org", "repo"), 5);
        assert_eq!(decide(&on, "main", &facts), Ok(Decision::nothing()));
        for (action, expected) in [
            ("opened", true),
            ("reopened", true),
            ("synchronize", true),
            ("edited", false),
        ] {
            assert_eq!(pull_request_event(action).action.brings_commits(), expected);
        }
    }
}
