//! What Tide asks a forge's search for, and what one page of it brings (TIDE-014).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::{CheckRun, CommitStatus, Label, RepoId, State, User};

/// How many pull requests Prow asks for at once: more would exceed GitHub's limit of nodes per query (TIDE-013).
pub const PAGE_SIZE: u32 = 37;

/// GitHub ends any search here, whatever the number of matches (TIDE-017).
pub const SEARCH_LIMIT: u64 = 1000;

/// Pages that are followed; far more than [`SEARCH_LIMIT`] allows.
pub const MAX_SEARCH_PAGES: usize = 200;

/// The commits of each pull request that a search brings along (TIDE-026).
pub const LAST_COMMITS: u32 = 4;

/// One page of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchRequest {
    /// In the forge's search language, for example `is:pr state:open repo:"kubernetes/test-infra"`. Sorting is part of
    /// it: `sort:updated-asc`.
    pub query: String,
    /// Whose installation to search as. Needed under a GitHub App, which sees one organisation at a time (TIDE-010).
    pub org: Option<String>,
    /// At most 100; 0 means [`PAGE_SIZE`].
    pub page_size: u32,
    /// [`SearchPage::next`] of the page before.
    pub after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPage<T> {
    pub nodes: Vec<T>,
    /// How many match; the forge hands out at most [`SEARCH_LIMIT`].
    pub total: u64,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<String>,
    /// What this page cost, and what is left of the budget.
    pub cost: u64,
    pub remaining: u64,
    /// The forge complained although it answered: nodes may be missing. Its sentences.
    pub incomplete: Option<String>,
}

/// All pages of a search that could be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchResult<T> {
    pub nodes: Vec<T>,
    /// How many match, by the last page that came.
    pub total: u64,
    pub cost: u64,
    pub remaining: u64,
    /// Why `nodes` may not be all: a page failed after others came (TIDE-013), or more match than [`SEARCH_LIMIT`]
    /// (TIDE-017).
    pub incomplete: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mergeable {
    Mergeable,
    Conflicting,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MergeState {
    Behind,
    Blocked,
    Clean,
    Dirty,
    Draft,
    HasHooks,
    Unstable,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReviewDecision {
    Approved,
    ChangesRequested,
    #[serde(other)]
    ReviewRequired,
}

/// A pull request as a search returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedPullRequest {
    pub repo: RepoId,
    pub number: u64,
    pub title: String,
    pub body: String,
    /// Empty login if the account was deleted.
    pub author: User,
    /// Without `refs/heads/`.
    pub base_branch: String,
    /// `refs/heads/`, as told; empty if the branch is gone.
    pub base_prefix: String,
    pub head_branch: String,
    pub head_sha: String,
    pub draft: bool,
    pub mergeable: Mergeable,
    pub merge_state: MergeState,
    pub can_be_rebased: bool,
    /// `None` where no review is required.
    pub review_decision: Option<ReviewDecision>,
    /// The first 100 names.
    pub labels: Vec<String>,
    pub milestone: Option<String>,
    pub updated_at: Timestamp,
    /// The last [`LAST_COMMITS`] by author date: the head is not always among them (TIDE-026).
    pub last_commits: Vec<SearchedCommit>,
}

impl SearchedPullRequest {
    /// The head commit, if the search brought it along.
    #[must_use]
    pub fn head_commit(&self) -> Option<&SearchedCommit> {
        self.last_commits
            .iter()
            .find(|commit| commit.sha == self.head_sha)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedCommit {
    pub sha: String,
    /// `target_url` is not asked for and empty.
    pub statuses: Vec<CommitStatus>,
    /// The last 100.
    pub check_runs: Vec<CheckRun>,
}

/// An issue as a search returns it (TIDE's merge blockers).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedIssue {
    pub repo: RepoId,
    pub number: u64,
    pub title: String,
    pub url: String,
}

/// An issue or pull request as a search by text finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundIssue {
    pub repo: RepoId,
    pub number: u64,
    pub title: String,
    /// Empty if the forge has none.
    pub body: String,
    pub author: User,
    pub state: State,
    pub is_pull_request: bool,
    pub labels: Vec<Label>,
    pub html_url: String,
    pub created_at: Timestamp,
}

/// What a search by text brings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundIssues {
    /// The best matches, as many as were asked for and the forge hands out.
    pub issues: Vec<FoundIssue>,
    /// How many match.
    pub total: u64,
    /// The forge ran out of time while it searched: there may be more.
    pub incomplete: bool,
}
