//! The records of the forge: what GitHub remembers, without how it is shown or stored.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// GitHub's numeric ids. One counter serves every kind of record, so an id names one thing only.
pub type Id = u64;

/// `owner/name`, as displayed. Compared without regard to case, as GitHub does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RepoName {
    /// Login of the user or organization.
    pub owner: String,
    /// Name of the repository.
    pub name: String,
}

impl RepoName {
    /// Names a repository; nothing is checked.
    pub fn new(owner: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            name: name.into(),
        }
    }

    pub(crate) fn key(&self) -> (String, String) {
        (self.owner.to_lowercase(), self.name.to_lowercase())
    }
}

impl std::fmt::Display for RepoName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl std::str::FromStr for RepoName {
    type Err = super::Refusal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((owner, name)) if !owner.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(owner, name))
            }
            _ => Err(super::Refusal::invalid(format!(
                "{text:?} is not a repository: write owner/name"
            ))),
        }
    }
}

/// What somebody may do in a repository, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Sees nothing of a private repository.
    None,
    /// Reads, comments, opens pull requests from forks.
    Read,
    /// Also labels, assigns and closes.
    Triage,
    /// Also pushes, merges, sets statuses.
    Write,
    /// Also manages the repository without what is destructive.
    Maintain,
    /// Everything.
    Admin,
}

impl Permission {
    /// The role's name (`role_name`).
    pub fn role(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Triage => "triage",
            Self::Write => "write",
            Self::Maintain => "maintain",
            Self::Admin => "admin",
        }
    }

    /// The older four-valued name (`permission`), which knows neither triage nor maintain.
    pub fn legacy(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read | Self::Triage => "read",
            Self::Write | Self::Maintain => "write",
            Self::Admin => "admin",
        }
    }
}

/// User, bot or organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountKind {
    User,
    Bot,
    Organization,
}

#[derive(Debug, Clone)]
pub struct Account {
    pub id: Id,
    pub login: String,
    pub name: Option<String>,
    pub email: String,
    pub kind: AccountKind,
    /// Says of itself that it has little time.
    pub busy: bool,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Org {
    /// Lower-cased logins; the value is true for owners.
    pub members: BTreeMap<String, bool>,
    /// What every member may do in every repository of the organization.
    pub base_permission: Permission,
    /// By slug.
    pub teams: BTreeMap<String, Team>,
}

#[derive(Debug, Clone)]
pub struct Team {
    pub id: Id,
    pub name: String,
    pub slug: String,
    pub description: String,
    /// Lower-cased logins.
    pub members: BTreeSet<String>,
    /// By lower-cased repository name.
    pub repos: BTreeMap<String, Permission>,
}

#[derive(Debug, Clone)]
pub struct Label {
    pub id: Id,
    pub name: String,
    pub color: String,
    pub description: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Milestone {
    pub id: Id,
    pub number: u64,
    pub title: String,
    pub state: OpenState,
    pub creator: String,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenState {
    Open,
    Closed,
}

impl OpenState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// What an issue and a pull request have in common; both are numbered from one sequence.
#[derive(Debug, Clone)]
pub struct Issue {
    pub id: Id,
    pub number: u64,
    pub title: String,
    pub body: Option<String>,
    pub author: String,
    pub state: OpenState,
    pub state_reason: Option<String>,
    pub locked: bool,
    /// Names in the repository's label set, in the order they were added.
    pub labels: Vec<String>,
    pub assignees: Vec<String>,
    pub milestone: Option<u64>,
    pub comments: Vec<Id>,
    pub reactions: Vec<Reaction>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub closed_by: Option<String>,
    /// What was done to it, oldest first; at most [`MAX_ISSUE_EVENTS`], the newest.
    pub events: Vec<IssueEvent>,
    /// Present for a pull request.
    pub pull: Option<Pull>,
}

/// Issues that a repository can pin, as GitHub's.
pub const MAX_PINNED: usize = 3;

/// Events remembered per issue.
pub const MAX_ISSUE_EVENTS: usize = 1000;

/// One line of an issue's history.
#[derive(Debug, Clone)]
pub struct IssueEvent {
    pub id: Id,
    pub at: Timestamp,
    pub actor: String,
    pub what: IssueEventKind,
}

#[derive(Debug, Clone)]
pub enum IssueEventKind {
    Labeled(Label),
    Unlabeled(Label),
    Assigned(String),
    Unassigned(String),
    Closed,
    Reopened,
    Merged {
        commit: String,
    },
    /// Titles of milestones.
    Milestoned(String),
    Demilestoned(String),
    Pinned,
    Unpinned,
    Renamed {
        from: String,
        to: String,
    },
    /// Logins.
    ReviewRequested(String),
    ReviewRequestRemoved(String),
}

/// A sign under an issue or comment; one of a kind per account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    pub id: Id,
    pub user: String,
    /// `+1`, `heart`, …
    pub content: String,
    pub created_at: Timestamp,
}

/// A run of GitHub Actions.
#[derive(Debug, Clone)]
pub struct WorkflowRun {
    pub id: Id,
    pub name: String,
    /// `pull_request`, `push`, …
    pub event: String,
    pub head_branch: String,
    pub head_sha: String,
    /// `queued`, `in_progress`, `completed`, `action_required`.
    pub status: String,
    pub conclusion: Option<String>,
    /// How often it was run again.
    pub reruns: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a pull request has beyond an issue.
#[derive(Debug, Clone)]
pub struct Pull {
    pub id: Id,
    pub draft: bool,
    /// Branch of the repository that the pull request is in.
    pub base_branch: String,
    /// Tip of the base branch when the head was last set.
    pub base_sha: String,
    /// Where the head branch lives: the same repository or a fork.
    pub head_repo: RepoName,
    pub head_branch: String,
    pub head_sha: String,
    pub head: HeadFacts,
    /// Known only once computed against the current base tip.
    pub mergeability: Option<Mergeability>,
    /// So many reads over REST find mergeability not computed yet, as GitHub's first ones after a push often do.
    pub unknown_reads: u32,
    pub merged: Option<Merged>,
    pub requested_reviewers: Vec<String>,
    /// Slugs of teams of the repository's owner.
    pub requested_teams: Vec<String>,
    pub reviews: Vec<Review>,
    pub review_comments: Vec<ReviewComment>,
    pub maintainer_can_modify: bool,
}

/// What git says about a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadFacts {
    /// What the head has and the base lacks, oldest first, at most 250 as GitHub lists.
    pub commits: Vec<Commit>,
    pub additions: u64,
    pub deletions: u64,
    pub changed_files: u64,
}

/// The answer of a trial merge, valid for exactly these two tips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mergeability {
    pub base_sha: String,
    pub head_sha: String,
    /// The trial merge commit (`refs/pull/N/merge`); none when there are conflicts.
    pub merge_commit: Option<String>,
    pub rebaseable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub at: Timestamp,
    pub by: String,
    pub commit: String,
}

#[derive(Debug, Clone)]
pub struct Comment {
    pub id: Id,
    pub issue: u64,
    pub author: String,
    pub body: String,
    pub reactions: Vec<Reaction>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReviewState {
    Approved,
    ChangesRequested,
    Commented,
    Dismissed,
    Pending,
}

impl ReviewState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "APPROVED",
            Self::ChangesRequested => "CHANGES_REQUESTED",
            Self::Commented => "COMMENTED",
            Self::Dismissed => "DISMISSED",
            Self::Pending => "PENDING",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Review {
    pub id: Id,
    pub author: String,
    pub state: ReviewState,
    pub body: String,
    pub commit: String,
    pub submitted_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct ReviewComment {
    pub id: Id,
    pub review: Id,
    pub author: String,
    pub path: String,
    pub line: u64,
    /// Lines below the first `@@` of the file's patch.
    pub position: u64,
    pub diff_hunk: String,
    pub commit: String,
    pub body: String,
    pub in_reply_to: Option<Id>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatusState {
    Success,
    Pending,
    Failure,
    Error,
}

impl StatusState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Pending => "pending",
            Self::Failure => "failure",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Status {
    pub id: Id,
    pub sha: String,
    pub context: String,
    pub state: StatusState,
    pub description: Option<String>,
    pub target_url: Option<String>,
    pub creator: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone)]
pub struct CheckRun {
    pub id: Id,
    pub sha: String,
    pub name: String,
    /// `queued`, `in_progress` or `completed`.
    pub status: String,
    pub conclusion: Option<String>,
    /// Slug of the app that made it.
    pub app: Option<String>,
    /// Title and summary of its output.
    pub output: Option<(String, String)>,
    pub details_url: Option<String>,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
}

/// A commit as git describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub sha: String,
    pub tree: String,
    pub parents: Vec<String>,
    pub author: Signature,
    pub committer: Signature,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub name: String,
    pub email: String,
    pub at: Timestamp,
}

/// A commit in a push event: with the paths it touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedCommit {
    pub commit: Commit,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub modified: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeMethod {
    Merge,
    Squash,
    Rebase,
}

impl MergeMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Squash => "squash",
            Self::Rebase => "rebase",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Repo {
    pub id: Id,
    pub name: RepoName,
    pub description: Option<String>,
    pub private: bool,
    pub archived: bool,
    pub default_branch: String,
    /// Branch tips, kept in step with git.
    pub branches: BTreeMap<String, String>,
    /// Objects that tags name (for annotated ones the tag itself), kept in step with git.
    pub tags: BTreeMap<String, String>,
    /// Contexts that must be successful before a merge into the branch.
    pub required_contexts: BTreeMap<String, BTreeSet<String>>,
    pub fork_of: Option<RepoName>,
    pub allowed_methods: Vec<MergeMethod>,
    /// By lower-cased login.
    pub collaborators: BTreeMap<String, Permission>,
    /// By lower-cased name.
    pub labels: BTreeMap<String, Label>,
    pub milestones: BTreeMap<u64, Milestone>,
    pub issues: BTreeMap<u64, Issue>,
    /// Where issues of these numbers were transferred to.
    pub moved: BTreeMap<u64, (RepoName, u64)>,
    /// Numbers of pinned issues, at most [`MAX_PINNED`].
    pub pinned: Vec<u64>,
    pub workflow_runs: BTreeMap<Id, WorkflowRun>,
    pub comments: BTreeMap<Id, Comment>,
    /// By commit; every status ever set, oldest first.
    pub statuses: BTreeMap<String, Vec<Status>>,
    pub check_runs: BTreeMap<String, Vec<CheckRun>>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub pushed_at: Timestamp,
    pub(crate) next_number: u64,
}
