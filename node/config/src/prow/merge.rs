//! Supplemental files merged into the main one (CFG-056…059).

use super::branch_protection::{BranchProtection, Policy};
use super::{ProwConfig, insert_new};
use crate::tide::Tide;

impl ProwConfig {
    /// Adds what a supplemental file may set; everything else in it is an error, and so is what both set.
    /// `mergeable` is what [`Self::is_mergeable`] says of it.
    pub(crate) fn merge(&mut self, additional: Self, mergeable: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        if !mergeable {
            wrong.push(
                "only 'branch-protection', 'slack_reporter_configs', 'tide.merge_method' and 'tide.queries' may be \
                 set via additional config, all other fields have no merging logic yet"
                    .to_owned(),
            );
        }
        wrong.extend(
            merge_branch_protection(&mut self.branch_protection, additional.branch_protection)
                .into_iter()
                .map(|e| format!("failed to merge branch protection config: {e}")),
        );
        self.tide.queries.extend(additional.tide.queries);
        for (key, method) in additional.tide.merge_methods {
            wrong.extend(
                insert_new(&mut self.tide.merge_methods, key, method)
                    .map(|key| format!("failed to merge tide config: config for org or repo {key} passed more than once")),
            );
        }
        for (key, reporter) in additional.slack_reporter_configs {
            wrong.extend(insert_new(&mut self.slack_reporter_configs, key, reporter).map(|key| {
                format!("failed to merge slack-reporter config: config for org or repo {key} passed more than once")
            }));
        }
        wrong
    }

    /// Whether only fields are set that a supplemental file may set.
    pub(crate) fn is_mergeable(&self) -> bool {
        let rest = Self {
            branch_protection: BranchProtection::default(),
            slack_reporter_configs: std::collections::BTreeMap::default(),
            tide: Tide {
                merge_methods: std::collections::BTreeMap::default(),
                queries: Vec::new(),
                ..self.tide.clone()
            },
            ..self.clone()
        };
        serde_json::to_value(&rest).ok() == serde_json::to_value(Self::default()).ok()
    }
}

fn merge_branch_protection(
    into: &mut BranchProtection,
    additional: BranchProtection,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut policy = |into: &mut Policy, from: Policy, clash: String| {
        if into.is_set() && from.is_set() {
            wrong.push(clash);
        } else if from.is_set() {
            *into = from;
        }
    };
    policy(
        &mut into.policy,
        additional.policy,
        "both brachprotection configs set a top-level policy".to_owned(),
    );
    for (org, from) in additional.orgs {
        let known = into.orgs.entry(org.clone()).or_default();
        let clash =
            |what: String| format!("both branchprotection configs define a policy for {what}");
        policy(&mut known.policy, from.policy, clash(format!("org {org}")));
        for (repo, from) in from.repos {
            let known = known.repos.entry(repo.clone()).or_default();
            policy(
                &mut known.policy,
                from.policy,
                clash(format!("repo {org}/{repo}")),
            );
            for (branch, from) in from.branches {
                let known = known.branches.entry(branch.clone()).or_default();
                policy(
                    &mut known.policy,
                    from.policy,
                    clash(format!("branch {branch} in repo {org}/{repo}")),
                );
            }
        }
    }
    let flags = [
        (
            &mut into.protect_tested_repos,
            additional.protect_tested_repos,
            "protect-tested-repos",
        ),
        (
            &mut into.allow_disabled_policies,
            additional.allow_disabled_policies,
            "allow_disabled_policies",
        ),
        (
            &mut into.allow_disabled_job_policies,
            additional.allow_disabled_job_policies,
            "allow_disabled_job_policies",
        ),
        (
            &mut into.protect_repos_with_optional_jobs,
            additional.protect_repos_with_optional_jobs,
            "protect_repos_with_optional_jobs",
        ),
    ];
    for (into, from, name) in flags {
        if into.is_some() && from.is_some() {
            wrong.push(format!("both branchprotection configs set {name}"));
        } else if from.is_some() {
            *into = from;
        }
    }
    wrong
}
