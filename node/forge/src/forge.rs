//! What a forge can do, one trait per capability. Each method is one request of the product's, each failure a
//! [`ForgeError`](crate::ForgeError); retrying, paging, limits and credentials are the implementation's.
//!
//! A controller takes an `Arc<dyn Forge>`; a function that needs little takes `&dyn Comments` and the like, which an
//! `&dyn Forge` coerces to.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::delivery::{DeliveredRequest, DeliveryPage, Hook, HookDelivery, HookScope};
use crate::error::Result;
use crate::merge::{MergeError, MergeRequest, Merged};
use crate::search::{
    MAX_SEARCH_PAGES, SEARCH_LIMIT, SearchPage, SearchRequest, SearchResult, SearchedIssue,
    SearchedPullRequest,
};
use crate::types::{
    BotUser, ChangedFile, CheckRun, CombinedStatus, Commit, CommitStatus, DirectoryEntry, Issue,
    IssueComment, Label, LabelEvent, Permission, PullRequest, RepoId, Repository, Review,
    ReviewComment,
};

/// Everything: what a controller is given.
pub trait Forge:
    PullRequests
    + Search
    + Issues
    + Comments
    + Labels
    + Statuses
    + Membership
    + Merges
    + Repositories
    + Contents
    + Deliveries
    + Identity
    + Assignees
    + Reviewers
{
}

impl<T> Forge for T where
    T: PullRequests
        + Search
        + Issues
        + Comments
        + Labels
        + Statuses
        + Membership
        + Merges
        + Repositories
        + Contents
        + Deliveries
        + Identity
        + Assignees
        + Reviewers
{
}

#[async_trait]
pub trait PullRequests: Send + Sync {
    async fn pull_request(&self, repo: &RepoId, number: u64) -> Result<PullRequest>;
    async fn open_pull_requests(&self, repo: &RepoId) -> Result<Vec<PullRequest>>;
    /// Against the merge base. GitHub tells at most 3000.
    async fn changed_files(&self, repo: &RepoId, number: u64) -> Result<Vec<ChangedFile>>;
    /// Oldest first. GitHub tells at most 250.
    async fn pull_request_commits(&self, repo: &RepoId, number: u64) -> Result<Vec<Commit>>;
    /// Oldest first.
    async fn reviews(&self, repo: &RepoId, number: u64) -> Result<Vec<Review>>;
    async fn review_comments(&self, repo: &RepoId, number: u64) -> Result<Vec<ReviewComment>>;
    async fn close_pull_request(&self, repo: &RepoId, number: u64) -> Result<()>;
    async fn reopen_pull_request(&self, repo: &RepoId, number: u64) -> Result<()>;
}

#[async_trait]
pub trait Search: Send + Sync {
    async fn search_pull_requests(
        &self,
        request: &SearchRequest,
    ) -> Result<SearchPage<SearchedPullRequest>>;
    async fn search_issues(&self, request: &SearchRequest) -> Result<SearchPage<SearchedIssue>>;

    /// Follows the pages to the end. An error after pages that came makes the result incomplete, not an error
    /// (TIDE-013).
    async fn search_all_pull_requests(
        &self,
        query: &str,
        org: Option<&str>,
    ) -> Result<SearchResult<SearchedPullRequest>> {
        let mut request = SearchRequest {
            query: query.to_owned(),
            org: org.map(str::to_owned),
            ..Default::default()
        };
        let mut all = SearchResult {
            nodes: Vec::new(),
            total: 0,
            cost: 0,
            remaining: 0,
            incomplete: None,
        };
        for _ in 0..MAX_SEARCH_PAGES {
            match self.search_pull_requests(&request).await {
                Ok(page) => {
                    all.nodes.extend(page.nodes);
                    all.total = page.total;
                    all.cost += page.cost;
                    all.remaining = page.remaining;
                    all.incomplete = all.incomplete.or(page.incomplete);
                    // A forge that repeats its cursor would have us turn forever.
                    if page.next.is_none() || page.next == request.after {
                        break;
                    }
                    request.after = page.next;
                }
                Err(error) if request.after.is_some() => {
                    all.incomplete = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if all.incomplete.is_none() && all.total > SEARCH_LIMIT {
            all.incomplete = Some(format!(
                "{} match, a search returns at most {SEARCH_LIMIT}",
                all.total
            ));
        }
        Ok(all)
    }
}

#[async_trait]
pub trait Issues: Send + Sync {
    /// Pull requests are issues too.
    async fn issue(&self, repo: &RepoId, number: u64) -> Result<Issue>;
    async fn close_issue(&self, repo: &RepoId, number: u64) -> Result<()>;
    async fn reopen_issue(&self, repo: &RepoId, number: u64) -> Result<()>;
}

/// Comments in the conversation of an issue or pull request.
#[async_trait]
pub trait Comments: Send + Sync {
    /// Oldest first.
    async fn comments(&self, repo: &RepoId, number: u64) -> Result<Vec<IssueComment>>;
    /// Not idempotent: see [`ForgeError::maybe_sent`](crate::ForgeError::maybe_sent).
    async fn create_comment(&self, repo: &RepoId, number: u64, body: &str) -> Result<IssueComment>;
    async fn edit_comment(&self, repo: &RepoId, id: u64, body: &str) -> Result<IssueComment>;
    /// Deleting what is already gone succeeds.
    async fn delete_comment(&self, repo: &RepoId, id: u64) -> Result<()>;
}

#[async_trait]
pub trait Labels: Send + Sync {
    async fn labels(&self, repo: &RepoId, number: u64) -> Result<Vec<Label>>;
    /// The labels that the repository has.
    async fn repo_labels(&self, repo: &RepoId) -> Result<Vec<Label>>;
    /// GitHub creates labels that the repository does not have.
    async fn add_labels(&self, repo: &RepoId, number: u64, labels: &[&str]) -> Result<()>;
    /// Removing what is not there succeeds.
    async fn remove_label(&self, repo: &RepoId, number: u64, label: &str) -> Result<()>;
    /// Every time a label was set or removed, oldest first.
    async fn label_events(&self, repo: &RepoId, number: u64) -> Result<Vec<LabelEvent>>;
}

#[async_trait]
pub trait Statuses: Send + Sync {
    async fn create_status(&self, repo: &RepoId, sha: &str, status: &CommitStatus) -> Result<()>;
    /// All contexts of a commit, all pages.
    async fn combined_status(&self, repo: &RepoId, sha: &str) -> Result<CombinedStatus>;
    async fn check_runs(&self, repo: &RepoId, sha: &str) -> Result<Vec<CheckRun>>;
}

#[async_trait]
pub trait Membership: Send + Sync {
    /// An account is a member of itself.
    async fn is_org_member(&self, org: &str, login: &str) -> Result<bool>;
    /// The account that owns a repository is a collaborator.
    async fn is_collaborator(&self, repo: &RepoId, login: &str) -> Result<bool>;
    async fn collaborators(&self, repo: &RepoId) -> Result<Vec<String>>;
    async fn permission(&self, repo: &RepoId, login: &str) -> Result<Permission>;
    /// Logins of the members of a team, children included.
    async fn team_members(&self, org: &str, slug: &str) -> Result<Vec<String>>;
}

#[async_trait]
pub trait Merges: Send + Sync {
    /// Not idempotent: see [`MergeError::maybe_sent`].
    async fn merge(
        &self,
        repo: &RepoId,
        number: u64,
        request: &MergeRequest,
    ) -> std::result::Result<Merged, MergeError>;
}

/// Repositories, their branches and commits.
#[async_trait]
pub trait Repositories: Send + Sync {
    async fn repository(&self, repo: &RepoId) -> Result<Repository>;
    /// The commit that a branch (without `refs/heads/`) points at.
    async fn branch_head(&self, repo: &RepoId, branch: &str) -> Result<String>;
    /// `reference` is a sha, branch or tag.
    async fn commit(&self, repo: &RepoId, reference: &str) -> Result<Commit>;
}

#[async_trait]
pub trait Contents: Send + Sync {
    /// A file's bytes at a sha, branch or tag. `NotFound` if there is none; `Decode` above 1 MiB, which GitHub does not
    /// hand out this way.
    async fn file(&self, repo: &RepoId, path: &str, reference: &str) -> Result<Vec<u8>>;
    async fn directory(
        &self,
        repo: &RepoId,
        path: &str,
        reference: &str,
    ) -> Result<Vec<DirectoryEntry>>;
}

#[async_trait]
pub trait Deliveries: Send + Sync {
    async fn repo_hooks(&self, repo: &RepoId) -> Result<Vec<Hook>>;
    async fn org_hooks(&self, org: &str) -> Result<Vec<Hook>>;
    /// Newest first; `cursor` is [`DeliveryPage::next`].
    async fn hook_deliveries(
        &self,
        scope: &HookScope,
        cursor: Option<&str>,
    ) -> Result<DeliveryPage>;
    async fn delivered_request(&self, scope: &HookScope, id: u64) -> Result<DeliveredRequest>;
    /// Asks the forge to send that event again, under the same GUID.
    async fn redeliver(&self, scope: &HookScope, id: u64) -> Result<()>;

    /// Every attempt since `since`, oldest first; at most `limit` of the newest. The flag is true if older ones were
    /// cut off.
    async fn hook_deliveries_since(
        &self,
        scope: &HookScope,
        since: Timestamp,
        limit: usize,
    ) -> Result<(Vec<HookDelivery>, bool)> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.hook_deliveries(scope, cursor.as_deref()).await?;
            let told = page.deliveries.len();
            let before = found.len();
            found.extend(
                page.deliveries
                    .into_iter()
                    .take_while(|delivery| delivery.delivered_at >= since),
            );
            let reached_older = found.len() - before < told;
            if found.len() > limit {
                found.truncate(limit);
                found.reverse();
                return Ok((found, true));
            }
            if reached_older || page.next.is_none() || page.next == cursor {
                found.reverse();
                return Ok((found, false));
            }
            cursor = page.next;
        }
    }
}

#[async_trait]
pub trait Identity: Send + Sync {
    /// Whom we act as; asked once and remembered.
    async fn bot_user(&self) -> Result<BotUser>;
}

#[async_trait]
pub trait Assignees: Send + Sync {
    /// Returns the logins that the forge would not assign.
    async fn assign(&self, repo: &RepoId, number: u64, logins: &[&str]) -> Result<Vec<String>>;
    /// Returns the logins that are still assigned.
    async fn unassign(&self, repo: &RepoId, number: u64, logins: &[&str]) -> Result<Vec<String>>;
}

#[async_trait]
pub trait Reviewers: Send + Sync {
    /// A login, or `org/team`. Returns those whose review could not be requested.
    async fn request_review(
        &self,
        repo: &RepoId,
        number: u64,
        logins: &[&str],
    ) -> Result<Vec<String>>;
    /// Returns the logins whose review is still requested.
    async fn unrequest_review(
        &self,
        repo: &RepoId,
        number: u64,
        logins: &[&str],
    ) -> Result<Vec<String>>;
}
