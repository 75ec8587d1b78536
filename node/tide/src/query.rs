//! Tide's queries: judged here against the mirror as GitHub's search would, and written out as searches.

use trireme_forge::search::ReviewDecision;

use crate::pull::Pull;

/// One entry of `tide.queries`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub author: String,
    /// Each may name alternatives, separated by commas.
    pub labels: Vec<String>,
    pub missing_labels: Vec<String>,
    pub excluded_branches: Vec<String>,
    pub included_branches: Vec<String>,
    pub milestone: String,
    pub review_approved_required: bool,
    pub orgs: Vec<String>,
    /// `org/repo`
    pub repos: Vec<String>,
    /// `org/repo`
    pub excluded_repos: Vec<String>,
}

impl Query {
    /// TIDE-015
    #[must_use]
    pub fn covers(&self, org: &str, repo: &str) -> bool {
        let full = format!("{org}/{repo}");
        if self.orgs.iter().any(|listed| listed == org) {
            !self.excluded_repos.contains(&full)
        } else {
            self.repos.contains(&full)
        }
    }

    /// What GitHub's search answers, from the mirror (TIDE-016). As there, case does not matter in names of labels,
    /// milestones, people.
    #[must_use]
    pub fn matches(&self, pull: &Pull) -> bool {
        let labelled = |name: &str| pull.labels.iter().any(|label| same(label, name));
        self.covers(&pull.org, &pull.repo)
            && (self.author.is_empty() || same(login(&self.author), login(&pull.author)))
            && !self.excluded_branches.contains(&pull.base_ref)
            && (self.included_branches.is_empty()
                || self.included_branches.contains(&pull.base_ref))
            && self.labels.iter().all(|any| any.split(',').any(labelled))
            && !self.missing_labels.iter().any(|label| labelled(label))
            && (self.milestone.is_empty()
                || pull
                    .milestone
                    .as_ref()
                    .is_some_and(|title| same(title, &self.milestone)))
            && (!self.review_approved_required || pull.review == Some(ReviewDecision::Approved))
    }
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

/// Searches name apps as `app/x` or `x[bot]`, pull requests may carry either or the bare name.
fn login(name: &str) -> &str {
    let name = name.strip_prefix('@').unwrap_or(name);
    let name = name.strip_prefix("app/").unwrap_or(name);
    name.strip_suffix("[bot]").unwrap_or(name)
}
