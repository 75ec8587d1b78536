//! What a forge can do, one trait per capability. Each method is one request of the product's, each failure a
//! [`ForgeError`](crate::ForgeError); retrying, paging, limits and credentials are the implementation's.
//!
//! A controller takes an `Arc<dyn Forge>`; a function that needs little takes `&dyn Comments` and the like, which an
//! `&dyn Forge` coerces to.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::delivery::{DeliveredRequest, DeliveryPage, Hook, HookDelivery, HookOwner, HookScope};
use crate::drafts::{
    CloseReason, HookSpec, IssueEdit, NewCheckRun, NewIssue, NewPullRequest, NewReview, Reaction,
    TransferredIssue,
};
use crate::error::{ForgeError, Result};
use crate::merge::{MergeError, MergeRequest, Merged};
use crate::mergeable::Mergeability;
use crate::search::{
    FoundIssues, MAX_SEARCH_PAGES, SEARCH_LIMIT, SearchPage, SearchRequest, SearchResult,
    SearchedIssue, SearchedPullRequest,
};
use crate::types::{
    Account, BotUser, ChangedFile, CheckRun, CombinedStatus, Commit, CommitStatus, Comparison,
    DirectoryEntry, Issue, IssueComment, Label, Milestone, Permission, PullRequest, RecordedChange,
    RepoId, Repository, Review, ReviewComment, Team, WorkflowRun,
};

/// How long a new fork is waited for (GHC-019).
pub const FORK_TIMEOUT: Duration = Duration::from_secs(6 * 60);

/// The wait before a new fork is looked for again; doubled each time, up to [`FORK_LONGEST_WAIT`].
const FORK_FIRST_WAIT: Duration = Duration::from_secs(1);

const FORK_LONGEST_WAIT: Duration = Duration::from_secs(30);

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
    + IssueMoves
    + Milestones
    + Branches
    + Forks
    + Actions
    + Teams
    + People
    + Hooks
    + Reactions
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
        + IssueMoves
        + Milestones
        + Branches
        + Forks
        + Actions
        + Teams
        + People
        + Hooks
        + Reactions
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
    /// Where the forge cannot, [`ForgeError::state_cannot_be_changed`] has its reason.
    async fn reopen_pull_request(&self, repo: &RepoId, number: u64) -> Result<()>;
    /// Not idempotent, but GitHub refuses a second one between the same branches (422).
    async fn create_pull_request(&self, repo: &RepoId, new: &NewPullRequest)
    -> Result<PullRequest>;
    /// Those from the branch `owner:branch`, open or not, newest first.
    async fn pull_requests_from(
        &self,
        repo: &RepoId,
        owner: &str,
        branch: &str,
    ) -> Result<Vec<PullRequest>>;
    /// Not idempotent: see [`ForgeError::maybe_sent`](crate::ForgeError::maybe_sent).
    async fn create_review(&self, repo: &RepoId, number: u64, new: &NewReview) -> Result<Review>;
    /// Changes the text of a comment on a line.
    async fn edit_review_comment(
        &self,
        repo: &RepoId,
        id: u64,
        body: &str,
    ) -> Result<ReviewComment>;

    /// Whether `head_sha` would merge cleanly. Takes up to nine seconds beside the calls (GHC-019).
    async fn mergeability(
        &self,
        repo: &RepoId,
        number: u64,
        head_sha: &str,
    ) -> Result<Mergeability>;
}

#[async_trait]
pub trait Search: Send + Sync {
    async fn search_pull_requests(
        &self,
        request: &SearchRequest,
    ) -> Result<SearchPage<SearchedPullRequest>>;
    async fn search_issues(&self, request: &SearchRequest) -> Result<SearchPage<SearchedIssue>>;
    /// Issues and pull requests by a text in the forge's search language; at most `limit`, and never more than
    /// [`SEARCH_LIMIT`]. `limit` 0 only counts. Under a GitHub App `org` says as whose installation to search.
    async fn find_issues(
        &self,
        query: &str,
        org: Option<&str>,
        limit: usize,
    ) -> Result<FoundIssues>;

    /// Open pull requests whose head is that commit. Searches lag behind by seconds: a head just pushed may be missing.
    async fn open_pull_requests_with_head(
        &self,
        repo: &RepoId,
        sha: &str,
    ) -> Result<Vec<SearchedPullRequest>> {
        let query = format!("{sha} repo:{repo} type:pr state:open");
        let found = self
            .search_all_pull_requests(&query, Some(&repo.org))
            .await?;
        // The search also finds who merely mentions the commit.
        let pulls = found.nodes.into_iter();
        Ok(pulls.filter(|pull| pull.head_sha == sha).collect())
    }

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
    /// Not idempotent: see [`ForgeError::maybe_sent`](crate::ForgeError::maybe_sent).
    async fn create_issue(&self, repo: &RepoId, new: &NewIssue) -> Result<Issue>;
    /// Changes title or body, of pull requests too.
    async fn edit_issue(&self, repo: &RepoId, number: u64, edit: &IssueEdit) -> Result<Issue>;
    /// As completed.
    async fn close_issue(&self, repo: &RepoId, number: u64) -> Result<()>;
    async fn close_issue_as(&self, repo: &RepoId, number: u64, reason: CloseReason) -> Result<()>;
    /// Where the forge cannot, [`ForgeError::state_cannot_be_changed`] has its reason.
    async fn reopen_issue(&self, repo: &RepoId, number: u64) -> Result<()>;
    /// What was done to it, oldest first.
    async fn record(&self, repo: &RepoId, number: u64) -> Result<Vec<RecordedChange>>;
}

/// Where an issue stands. `node_id` is [`Issue::node_id`]; pull requests can neither be moved nor pinned.
#[async_trait]
pub trait IssueMoves: Send + Sync {
    /// `to` must be of the same owner. Not idempotent, but an issue that was moved is not found again.
    async fn transfer_issue(
        &self,
        repo: &RepoId,
        node_id: &str,
        to: &RepoId,
    ) -> Result<TransferredIssue>;
    /// GitHub pins three issues of a repository at most and refuses a fourth.
    async fn pin_issue(&self, repo: &RepoId, node_id: &str) -> Result<()>;
    async fn unpin_issue(&self, repo: &RepoId, node_id: &str) -> Result<()>;
}

#[async_trait]
pub trait Milestones: Send + Sync {
    /// The open ones.
    async fn milestones(&self, repo: &RepoId) -> Result<Vec<Milestone>>;
    /// Of an issue or pull request; `None` clears it.
    async fn set_milestone(&self, repo: &RepoId, number: u64, milestone: Option<u64>)
    -> Result<()>;
}

/// Comments in the conversation of an issue or pull request.
#[async_trait]
pub trait Comments: Send + Sync {
    /// Oldest first.
    async fn comments(&self, repo: &RepoId, number: u64) -> Result<Vec<IssueComment>>;
    /// One of an issue or pull request, as it is now.
    async fn comment(&self, repo: &RepoId, id: u64) -> Result<IssueComment>;
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
}

#[async_trait]
pub trait Statuses: Send + Sync {
    async fn create_status(&self, repo: &RepoId, sha: &str, status: &CommitStatus) -> Result<()>;
    /// All contexts of a commit, all pages.
    async fn combined_status(&self, repo: &RepoId, sha: &str) -> Result<CombinedStatus>;
    /// Every status ever set on a commit, newest first.
    async fn status_history(&self, repo: &RepoId, sha: &str) -> Result<Vec<CommitStatus>>;
    /// The latest of each name and app.
    async fn check_runs(&self, repo: &RepoId, sha: &str) -> Result<Vec<CheckRun>>;
    /// `Forbidden` unless we are a GitHub App.
    async fn create_check_run(&self, repo: &RepoId, new: &NewCheckRun) -> Result<()>;
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
    /// All repositories of an organisation, or of a user, that we see (HOOK-084).
    async fn owner_repositories(&self, owner: &str) -> Result<Vec<Repository>>;
    /// `base` and `head` are shas, branches or tags. See [`Comparison::is_cut`].
    async fn compare(&self, repo: &RepoId, base: &str, head: &str) -> Result<Comparison>;
}

#[async_trait]
pub trait Branches: Send + Sync {
    /// Deleting what is already gone succeeds.
    async fn delete_branch(&self, repo: &RepoId, branch: &str) -> Result<()>;
    /// Contexts that the forge wants to see before it merges into the branch; none if it is not protected (GHC-018).
    async fn required_contexts(&self, repo: &RepoId, branch: &str) -> Result<Vec<String>>;
}

#[async_trait]
pub trait Forks: Repositories {
    /// Forks the repository into our own account and says how the fork is called; an existing fork is left as it is.
    /// `Forbidden` for a GitHub App, which owns nothing. The fork may not be there yet.
    async fn create_fork(&self, repo: &RepoId) -> Result<RepoId>;

    /// As [`Self::create_fork`], and waits until the fork is there: [`FORK_TIMEOUT`] at most, then `Unavailable`
    /// (GHC-019).
    async fn ensure_fork(&self, repo: &RepoId) -> Result<RepoId> {
        let fork = self.create_fork(repo).await?;
        let deadline = Instant::now() + FORK_TIMEOUT;
        let mut wait = FORK_FIRST_WAIT;
        loop {
            match self.repository(&fork).await {
                Ok(_) => return Ok(fork),
                Err(error) if !error.is_not_found() => return Err(error),
                Err(_) if Instant::now() + wait > deadline => {
                    return Err(ForgeError::Unavailable {
                        request: format!("fork {repo} to {fork}"),
                        reason: format!("not there after {FORK_TIMEOUT:?}"),
                        maybe_sent: false,
                    });
                }
                // Forks are made in the background, and no event tells when one is there.
                Err(_) => sleep(wait).await,
            }
            wait = (wait * 2).min(FORK_LONGEST_WAIT);
        }
    }
}

/// GitHub Actions.
#[async_trait]
pub trait Actions: Send + Sync {
    /// Newest first.
    async fn workflow_runs(
        &self,
        repo: &RepoId,
        head_branch: &str,
        head_sha: &str,
    ) -> Result<Vec<WorkflowRun>>;
    /// `Forbidden` while the run is not over.
    async fn rerun_failed_jobs(&self, repo: &RepoId, run: u64) -> Result<()>;
    /// `NotFound` if it needs no approval any more, `Forbidden` if we may not give it.
    async fn approve_workflow_run(&self, repo: &RepoId, run: u64) -> Result<()>;
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
    /// Whom we act as on the forge where this org lives; asked once and remembered.
    async fn bot_user(&self, org: &str) -> Result<BotUser>;
    /// Whether a search finds only what lies in the org that it names: an app sees an org through its installation there,
    /// and orgs may live on different hosts.
    fn sees_by_org(&self) -> bool;
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

#[async_trait]
pub trait Teams: Send + Sync {
    /// Those that we see.
    async fn teams(&self, org: &str) -> Result<Vec<Team>>;
    async fn team(&self, org: &str, slug: &str) -> Result<Team>;
    /// Logins of the members, children included; for configurations that name a team by its number.
    async fn team_members_by_id(&self, org: &str, id: u64) -> Result<Vec<String>>;
    /// Also by a child team; an invitation does not count. `false` if there is no such team.
    async fn is_team_member(&self, org: &str, slug: &str, login: &str) -> Result<bool>;
}

#[async_trait]
pub trait People: Send + Sync {
    /// `org` is whose installation asks.
    async fn account(&self, org: &str, login: &str) -> Result<Account>;
    /// Whether somebody set themselves "busy" (PLG-BLUNDERBUSS-006).
    async fn has_limited_availability(&self, org: &str, login: &str) -> Result<bool>;
}

/// Setting webhooks up (HOOK-041). Listing them is of [`Deliveries`].
#[async_trait]
pub trait Hooks: Deliveries {
    /// GitHub refuses a second one to the same URL (422).
    async fn create_hook(&self, owner: &HookOwner, spec: &HookSpec) -> Result<Hook>;
    /// Without a secret the old one goes.
    async fn edit_hook(&self, owner: &HookOwner, id: u64, spec: &HookSpec) -> Result<Hook>;
    /// Deleting what is already gone succeeds.
    async fn delete_hook(&self, owner: &HookOwner, id: u64) -> Result<()>;

    async fn hooks(&self, owner: &HookOwner) -> Result<Vec<Hook>> {
        match owner {
            HookOwner::Repo(repo) => self.repo_hooks(repo).await,
            HookOwner::Org(org) => self.org_hooks(org).await,
        }
    }
}

#[async_trait]
pub trait Reactions: Send + Sync {
    async fn react_to_issue(&self, repo: &RepoId, number: u64, reaction: Reaction) -> Result<()>;
    /// A comment in the conversation.
    async fn react_to_comment(&self, repo: &RepoId, id: u64, reaction: Reaction) -> Result<()>;
}
