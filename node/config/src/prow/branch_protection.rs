//! Branch protection: policies by org, repository and branch, and what follows for one branch.

use std::collections::{BTreeMap, BTreeSet};

use crate::job::{Presubmit, Requirements};

object! {
    /// How a branch is protected; unset leaves the wider level in force.
    pub struct Policy {
        [omit "unmanaged"] unmanaged: Option<bool>,
        [omit "protect"] protect: Option<bool>,
        [omit "required_status_checks"] required_status_checks: Option<StatusChecks>,
        [omit "enforce_admins"] enforce_admins: Option<bool>,
        [omit "restrictions"] restrictions: Option<Restrictions>,
        [omit "require_manually_triggered_jobs"] require_manually_triggered_jobs: Option<bool>,
        [omit "required_pull_request_reviews"] required_pull_request_reviews: Option<ReviewPolicy>,
        [omit "required_linear_history"] required_linear_history: Option<bool>,
        [omit "allow_force_pushes"] allow_force_pushes: Option<bool>,
        [omit "allow_deletions"] allow_deletions: Option<bool>,
        [omit "require_signed_commits"] require_signed_commits: Option<bool>,
        /// Expressions of branches that no policy touches.
        [omit "exclude"] exclude: Option<Vec<String>>,
        [omit "include"] include: Option<Vec<String>>,
    }
}

object! {
    pub struct StatusChecks {
        [omit "contexts"] contexts: Option<Vec<String>>,
        /// Whether the branch must be up to date.
        [omit "strict"] strict: Option<bool>,
    }
}

object! {
    pub struct ReviewPolicy {
        [omit "dismissal_restrictions"] dismissal_restrictions: Option<People>,
        [omit "dismiss_stale_reviews"] dismiss_stale_reviews: Option<bool>,
        [omit "require_code_owner_reviews"] require_code_owner_reviews: Option<bool>,
        [omit "required_approving_review_count"] required_approving_review_count: Option<i64>,
        [omit "bypass_pull_request_allowances"] bypass_pull_request_allowances: Option<People>,
    }
}

object! {
    pub struct People {
        [omit "users"] users: Option<Vec<String>>,
        [omit "teams"] teams: Option<Vec<String>>,
    }
}

object! {
    /// Who may push.
    pub struct Restrictions {
        [omit "apps"] apps: Option<Vec<String>>,
        [omit "users"] users: Option<Vec<String>>,
        [omit "teams"] teams: Option<Vec<String>>,
    }
}

object! {
    pub struct BranchProtection {
        [embed] policy: Policy,
        [omit "protect-tested-repos"] protect_tested_repos: Option<bool>,
        [omit "orgs"] orgs: BTreeMap<String, ProtectedOrg>,
        [omit "allow_disabled_policies"] allow_disabled_policies: Option<bool>,
        [omit "allow_disabled_job_policies"] allow_disabled_job_policies: Option<bool>,
        [omit "protect_repos_with_optional_jobs"] protect_repos_with_optional_jobs: Option<bool>,
    }
}

object! {
    pub struct ProtectedOrg {
        [embed] policy: Policy,
        [omit "repos"] repos: BTreeMap<String, ProtectedRepo>,
    }
}

object! {
    pub struct ProtectedRepo {
        [embed] policy: Policy,
        [omit "branches"] branches: BTreeMap<String, ProtectedBranch>,
    }
}

object! {
    pub struct ProtectedBranch {
        [embed] policy: Policy,
    }
}

type List = Option<Vec<String>>;

fn union(parent: &List, child: &List) -> List {
    match (parent, child) {
        (Some(parent), Some(child)) => Some(
            parent
                .iter()
                .chain(child)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .cloned()
                .collect(),
        ),
        (one, other) => other.as_ref().or(one.as_ref()).cloned(),
    }
}

/// Both merged, or the one that is set.
fn either<T: Clone>(
    parent: &Option<T>,
    child: &Option<T>,
    merge: impl FnOnce(&T, &T) -> T,
) -> Option<T> {
    match (parent, child) {
        (Some(parent), Some(child)) => Some(merge(parent, child)),
        (one, other) => other.as_ref().or(one.as_ref()).cloned(),
    }
}

fn people(parent: &People, child: &People) -> People {
    People {
        users: union(&parent.users, &child.users),
        teams: union(&parent.teams, &child.teams),
    }
}

impl Policy {
    /// Whether anything but management, inclusion and exclusion is set.
    #[must_use]
    pub fn is_defined(&self) -> bool {
        self.protect.is_some() || self.defines_more_than_protect()
    }

    fn defines_more_than_protect(&self) -> bool {
        self.required_status_checks.is_some()
            || self.enforce_admins.is_some()
            || self.restrictions.is_some()
            || self.require_manually_triggered_jobs.is_some()
            || self.required_pull_request_reviews.is_some()
            || self.required_linear_history.is_some()
            || self.allow_force_pushes.is_some()
            || self.allow_deletions.is_some()
            || self.require_signed_commits.is_some()
    }

    /// Whether anything at all is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        let any = |list: &List| list.as_ref().is_some_and(|list| !list.is_empty());
        self.is_defined() || self.unmanaged.is_some() || any(&self.exclude) || any(&self.include)
    }

    /// This policy with a narrower one over it: switches of the narrower win, lists are united.
    #[must_use]
    pub fn with(&self, child: &Self) -> Self {
        Self {
            unmanaged: child.unmanaged.or(self.unmanaged),
            protect: child.protect.or(self.protect),
            required_status_checks: either(
                &self.required_status_checks,
                &child.required_status_checks,
                |parent, child| StatusChecks {
                    contexts: union(&parent.contexts, &child.contexts),
                    strict: child.strict.or(parent.strict),
                },
            ),
            enforce_admins: child.enforce_admins.or(self.enforce_admins),
            restrictions: either(&self.restrictions, &child.restrictions, |parent, child| {
                Restrictions {
                    apps: union(&parent.apps, &child.apps),
                    users: union(&parent.users, &child.users),
                    teams: union(&parent.teams, &child.teams),
                }
            }),
            require_manually_triggered_jobs: child
                .require_manually_triggered_jobs
                .or(self.require_manually_triggered_jobs),
            required_pull_request_reviews: either(
                &self.required_pull_request_reviews,
                &child.required_pull_request_reviews,
                |parent, child| ReviewPolicy {
                    dismissal_restrictions: either(
                        &parent.dismissal_restrictions,
                        &child.dismissal_restrictions,
                        people,
                    ),
                    dismiss_stale_reviews: child
                        .dismiss_stale_reviews
                        .or(parent.dismiss_stale_reviews),
                    require_code_owner_reviews: child
                        .require_code_owner_reviews
                        .or(parent.require_code_owner_reviews),
                    required_approving_review_count: child
                        .required_approving_review_count
                        .or(parent.required_approving_review_count),
                    bypass_pull_request_allowances: either(
                        &parent.bypass_pull_request_allowances,
                        &child.bypass_pull_request_allowances,
                        people,
                    ),
                },
            ),
            required_linear_history: child
                .required_linear_history
                .or(self.required_linear_history),
            allow_force_pushes: child.allow_force_pushes.or(self.allow_force_pushes),
            allow_deletions: child.allow_deletions.or(self.allow_deletions),
            require_signed_commits: child.require_signed_commits.or(self.require_signed_commits),
            exclude: union(&self.exclude, &child.exclude),
            include: union(&self.include, &child.include),
        }
    }
}

impl BranchProtection {
    /// The policy that all levels together give a branch, without regard to jobs; none if the org is not named.
    ///
    /// # Errors
    /// A branch that is named but neither protected nor unmanaged.
    pub fn layered(&self, org: &str, repo: &str, branch: &str) -> Result<Option<Policy>, String> {
        let Some(org) = self.orgs.get(org) else {
            return Ok(None);
        };
        let mut policy = self.policy.with(&org.policy);
        let Some(repo) = org.repos.get(repo) else {
            return Ok(Some(policy));
        };
        policy = policy.with(&repo.policy);
        let Some(branch) = repo.branches.get(branch) else {
            return Ok(Some(policy));
        };
        policy = policy.with(&branch.policy);
        if policy.protect.is_none() && policy.unmanaged != Some(true) {
            return Err("defined branch policies must set protect or unmanaged=true".to_owned());
        }
        Ok(Some(policy))
    }

    /// The policy of a branch, with the contexts of its jobs; none if it has none.
    ///
    /// # Errors
    /// A policy that contradicts itself or its jobs.
    pub fn for_branch(
        &self,
        org: &str,
        repo: &str,
        branch: &str,
        presubmits: &[&Presubmit],
    ) -> Result<Option<Policy>, String> {
        let Some(mut policy) = self.layered(org, repo, branch)? else {
            return Ok(None);
        };
        let manual = policy.require_manually_triggered_jobs == Some(true);
        let jobs = Requirements::of(branch, presubmits.iter().copied(), manual);
        let others = !jobs.required_if_present.is_empty() || !jobs.optional.is_empty();
        if !jobs.required.is_empty()
            || (self.protect_repos_with_optional_jobs == Some(true) && others)
        {
            if policy.protect == Some(false) {
                return match self.allow_disabled_job_policies {
                    Some(true) => Ok(None),
                    _ => Err("required prow jobs require branch protection".to_owned()),
                };
            }
            // An empty list stands for nil in Go, and a union with nil keeps the order.
            let contexts = (!jobs.required.is_empty()).then_some(jobs.required);
            let of_jobs = Policy {
                required_status_checks: Some(StatusChecks {
                    contexts,
                    strict: None,
                }),
                protect: (self.protect_tested_repos == Some(true)).then_some(true),
                ..Policy::default()
            };
            policy = policy.with(&of_jobs);
        }
        if policy.protect == Some(false)
            && policy.defines_more_than_protect()
            && self.allow_disabled_policies != Some(true)
        {
            return Err(format!(
                "{org}/{repo}={branch} defines a policy, which requires protect: true"
            ));
        }
        Ok(policy.is_defined().then_some(policy))
    }
}
