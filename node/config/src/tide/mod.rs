//! Tide's section and what it means: queries, required contexts, merge methods, limits.

mod context;
mod merge_method;
mod query;

use std::collections::BTreeMap;

use trireme_prowjob::MetaDuration;

pub use context::ContextPolicy;
pub use merge_method::{MergeMethod, OrgMergeMethod, RepoMergeMethod};
pub(crate) use query::fold as fold_queries;
pub use query::{OrgExceptions, TideQuery};

use crate::prow::{GerritOrgRepos, narrowest};
use crate::template::Template;

object! {
    pub struct Tide {
        [omit "gerrit"] gerrit: Option<TideGerrit>,
        [omit "sync_period"] sync_period: Option<MetaDuration>,
        [omit "max_goroutines"] max_goroutines: i64,
        /// By `org/repo`, `org` or `*`.
        [omit "batch_size_limit"] batch_size_limits: BTreeMap<String, i64>,
        [omit "prioritize_existing_batches"] prioritize_existing_batches: BTreeMap<String, bool>,
        [omit "github_merge_blocks_policy"] github_merge_blocks_policies: BTreeMap<String, String>,
        [omit "status_update_period"] status_update_period: Option<MetaDuration>,
        [omit "queries"] queries: Vec<TideQuery>,
        /// By `org`, `org/repo` or `org/repo@branch`.
        [omit "merge_method"] merge_methods: BTreeMap<String, OrgMergeMethod>,
        /// By `org/repo` or `org`.
        [omit "merge_commit_template"] merge_templates: BTreeMap<String, MergeCommitTemplate>,
        [omit "target_url"] target_url: String,
        [omit "target_urls"] target_urls: BTreeMap<String, String>,
        [omit "pr_status_base_url"] pr_status_base_url: String,
        [omit "pr_status_base_urls"] pr_status_base_urls: BTreeMap<String, String>,
        /// Label of issues that block merges.
        [omit "blocker_label"] blocker_label: String,
        [omit "squash_label"] squash_label: String,
        [omit "rebase_label"] rebase_label: String,
        [omit "merge_label"] merge_label: String,
        [omit "context_options"] context_options: ContextPolicyOptions,
        /// Labels of pull requests that go first, in this order.
        [omit "priority"] priority: Vec<TidePriority>,
        [omit "display_all_tide_queries_in_status"] display_all_queries_in_status: bool,
    }
}

object! {
    pub struct TideGerrit {
        [always "queries"] queries: Option<Vec<GerritOrgRepos>>,
        [omit "ratelimit"] rate_limit: i64,
    }
}

object! {
    /// Go templates on the pull request for title and body of a merge commit.
    pub struct MergeCommitTemplate {
        [omit "title"] title: String,
        [omit "body"] body: String,
        [derived] title_template: Option<Template>,
        [derived] body_template: Option<Template>,
    }
}

object! {
    pub struct TidePriority {
        [omit "labels"] labels: Vec<String>,
    }
}

object! {
    /// Context policies: for all, by org, by repository in it, by branch in that.
    pub struct ContextPolicyOptions {
        [embed] policy: ContextPolicy,
        [omit "orgs"] orgs: BTreeMap<String, OrgContextPolicy>,
    }
}

object! {
    pub struct OrgContextPolicy {
        [embed] policy: ContextPolicy,
        [omit "repos"] repos: BTreeMap<String, RepoContextPolicy>,
    }
}

object! {
    pub struct RepoContextPolicy {
        [embed] policy: ContextPolicy,
        [omit "branches"] branches: BTreeMap<String, ContextPolicy>,
    }
}

/// What open issues with the blocker label do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeBlocksPolicy {
    /// They are not looked for.
    Ignore,
    /// They block, and pull requests that would have to wait may still merge by hand.
    Permit,
    /// They block.
    Block,
}

impl MergeBlocksPolicy {
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "ignore" => Some(Self::Ignore),
            "permit" => Some(Self::Permit),
            "block" => Some(Self::Block),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Permit => "permit",
            Self::Block => "block",
        }
    }
}

impl Tide {
    /// Pull requests per batch: 0 = no limit, below 0 = no batches.
    #[must_use]
    pub fn batch_size_limit(&self, org: &str, repo: &str) -> i64 {
        narrowest(&self.batch_size_limits, org, repo)
            .copied()
            .unwrap_or(0)
    }

    #[must_use]
    pub fn prioritizes_existing_batches(&self, org: &str, repo: &str) -> bool {
        narrowest(&self.prioritize_existing_batches, org, repo)
            .copied()
            .unwrap_or(true)
    }

    #[must_use]
    pub fn merge_blocks_policy(&self, org: &str, repo: &str) -> MergeBlocksPolicy {
        let word = narrowest(&self.github_merge_blocks_policies, org, repo);
        word.and_then(|word| MergeBlocksPolicy::from_word(word))
            .unwrap_or(MergeBlocksPolicy::Permit)
    }

    #[must_use]
    pub fn merge_commit_template(&self, org: &str, repo: &str) -> Option<&MergeCommitTemplate> {
        self.merge_templates
            .get(&format!("{org}/{repo}"))
            .or_else(|| self.merge_templates.get(org))
    }

    /// The page with a pull request's state; empty if there is none.
    #[must_use]
    pub fn pr_status_base_url(&self, org: &str, repo: &str) -> &str {
        narrowest(&self.pr_status_base_urls, org, repo).map_or("", String::as_str)
    }

    /// The link of the `tide` status; empty if there is none.
    #[must_use]
    pub fn target_url(&self, org: &str, repo: &str) -> &str {
        narrowest(&self.target_urls, org, repo).map_or("", String::as_str)
    }

    /// The queries that cover a repository.
    pub fn queries_for<'a>(
        &'a self,
        org: &'a str,
        repo: &'a str,
    ) -> impl Iterator<Item = &'a TideQuery> {
        self.queries
            .iter()
            .filter(move |query| query.covers(org, repo))
    }
}
