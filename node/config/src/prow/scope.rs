//! What the settings of a file reach (CFG-059): all repositories, or the orgs and repositories that it names.

use std::collections::BTreeSet;

use super::ProwConfig;

/// The reach of a file, for checking that a shard stands where its settings belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Something holds for all repositories.
    pub global: bool,
    pub orgs: BTreeSet<String>,
    /// As `org/repo`.
    pub repos: BTreeSet<String>,
}

impl Scope {
    /// Adds an org or a repository, told apart by the slash.
    pub(crate) fn add(&mut self, org_or_repo: &str) {
        let set = if org_or_repo.contains('/') {
            &mut self.repos
        } else {
            &mut self.orgs
        };
        set.insert(org_or_repo.to_owned());
    }
}

impl ProwConfig {
    /// CFG-059. Meant for a file as it was read: defaulting sets what holds for all.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let protection = &self.branch_protection;
        let flags = [
            protection.protect_tested_repos,
            protection.allow_disabled_policies,
            protection.allow_disabled_job_policies,
            protection.protect_repos_with_optional_jobs,
        ];
        let mut scope = Scope {
            global: flags.iter().any(Option::is_some)
                || protection.policy.is_set()
                || self.slack_reporter_configs.contains_key("*")
                || !self.is_mergeable(),
            ..Scope::default()
        };
        for (org, of_org) in &protection.orgs {
            if of_org.policy.is_set() {
                scope.orgs.insert(org.clone());
            }
            let repos = of_org.repos.keys().map(|repo| format!("{org}/{repo}"));
            scope.repos.extend(repos);
        }
        let methods = self.tide.merge_methods.keys();
        let slack = self.slack_reporter_configs.keys().filter(|key| *key != "*");
        methods.chain(slack).for_each(|key| scope.add(key));
        for query in &self.tide.queries {
            scope.orgs.extend(query.orgs.iter().cloned());
            scope.repos.extend(query.repos.iter().cloned());
        }
        scope
    }
}
