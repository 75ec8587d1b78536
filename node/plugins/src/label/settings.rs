//! The `label` section of `plugins.yaml`, and what it says about one repository.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use trireme_config::plugins::Section;
use trireme_forge::RepoId;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// What `/label` takes besides restricted labels.
    pub(super) additional_labels: Vec<String>,
    /// By `*`, `org` and `org/repo`.
    restricted_labels: BTreeMap<String, Vec<RestrictedLabel>>,
}

/// A label that only some people may set and remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct RestrictedLabel {
    label: String,
    /// Slugs of teams of the repository's org.
    pub(super) allowed_teams: Vec<String>,
    pub(super) allowed_users: Vec<String>,
    /// Labels of pull requests that get the allowed users assigned.
    assign_on: Vec<AssignOn>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct AssignOn {
    label: String,
}

impl RestrictedLabel {
    /// Whether setting that label has the allowed users assigned (PLG-LABEL-006).
    pub(super) fn assigns_on(&self, label: &str) -> bool {
        let label = label.to_lowercase();
        self.assign_on
            .iter()
            .any(|on| on.label.to_lowercase() == label)
    }

    fn unite(&mut self, other: &Self) {
        let unite = |all: &mut Vec<String>, more: &[String]| {
            let united: BTreeSet<String> = all.drain(..).chain(more.iter().cloned()).collect();
            all.extend(united);
        };
        unite(&mut self.allowed_teams, &other.allowed_teams);
        unite(&mut self.allowed_users, &other.allowed_users);
        for on in &other.assign_on {
            if !self.assign_on.contains(on) {
                self.assign_on.push(on.clone());
            }
        }
    }
}

impl Settings {
    /// What is restricted in a repository, by label in lower case (HOOK-063).
    pub(super) fn restricted_in(&self, repo: &RepoId) -> BTreeMap<String, RestrictedLabel> {
        let mut all: BTreeMap<String, RestrictedLabel> = BTreeMap::new();
        for key in ["*".to_owned(), repo.org.clone(), repo.to_string()] {
            for restricted in self.restricted_labels.get(&key).into_iter().flatten() {
                all.entry(restricted.label.to_lowercase())
                    .and_modify(|had| had.unite(restricted))
                    .or_insert_with(|| restricted.clone());
            }
        }
        all
    }
}

/// What is odd about it is told by checkconfig's `validate-label`, which knows the whole configuration.
pub(super) fn section() -> Section {
    Section::new("label", |_: &mut Settings| Vec::new())
}

#[cfg(test)]
pub(super) fn settings(json: serde_json::Value) -> Settings {
    serde_json::from_value(json).expect("settings of a test")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hook_063_restrictions_of_everywhere_the_org_and_the_repository_are_united() {
        let settings = settings(json!({"restricted_labels": {
            "*": [{"label": "Release", "allowed_users": ["zoe", "bob"], "assign_on": [{"label": "a"}]}],
            "org": [{"label": "release", "allowed_teams": ["leads"], "allowed_users": ["alice", "bob"], "assign_on": [{"label": "a"}, {"label": "b"}]}],
            "org/repo": [{"label": "other"}],
            "org/else": [{"label": "nothing"}],
        }}));
        let restricted = settings.restricted_in(&RepoId::new("org", "repo"));
        let keys: Vec<&String> = restricted.keys().collect();
        assert_eq!(keys, ["other", "release"]);
        let release = &restricted["release"];
        assert_eq!(release.allowed_users, ["alice", "bob", "zoe"]);
        assert_eq!(release.allowed_teams, ["leads"]);
        assert_eq!(release.assign_on.len(), 2);
        assert!(release.assigns_on("B") && !release.assigns_on("c"));
        let elsewhere = settings.restricted_in(&RepoId::new("kubernetes", "x"));
        assert_eq!(elsewhere["release"].allowed_users, ["zoe", "bob"]);
    }
}
