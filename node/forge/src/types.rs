//! What a forge knows about repositories, people, pull requests and commits, in the product's words.
//!
//! Only data. How GitHub spells it on the wire is private to `github`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A repository: `org/repo`. `org` may be a user's account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RepoId {
    pub org: String,
    pub repo: String,
}

impl RepoId {
    pub fn new(org: impl Into<String>, repo: impl Into<String>) -> Self {
        Self {
            org: org.into(),
            repo: repo.into(),
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.repo)
    }
}

/// A text that is not `org/repo`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a repository: expected org/repo")]
pub struct NotARepo(pub String);

impl FromStr for RepoId {
    type Err = NotARepo;

    fn from_str(text: &str) -> Result<Self, NotARepo> {
        match text.split_once('/') {
            Some((org, repo)) if !org.is_empty() && !repo.is_empty() && !repo.contains('/') => {
                Ok(Self::new(org, repo))
            }
            _ => Err(NotARepo(text.to_owned())),
        }
    }
}

/// A login as it is compared: lower case, without a leading `@` (HOOK-025).
#[must_use]
pub fn norm_login(login: &str) -> String {
    let lower = login.to_lowercase();
    lower
        .strip_prefix('@')
        .map_or_else(|| lower.clone(), str::to_owned)
}

/// An account that wrote or did something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct User {
    /// Empty if the account was deleted.
    pub login: String,
    pub kind: UserKind,
    /// The account's page; empty where the forge does not tell (searches).
    pub html_url: String,
}

impl User {
    /// An ordinary account.
    pub fn new(login: impl Into<String>) -> Self {
        Self {
            login: login.into(),
            ..Self::default()
        }
    }

    /// Whether this is the account of that login; case and a leading `@` do not matter.
    #[must_use]
    pub fn is(&self, login: &str) -> bool {
        norm_login(&self.login) == norm_login(login)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum UserKind {
    #[default]
    User,
    /// A GitHub App's own account.
    Bot,
    Organization,
    /// Anything else the forge may say (mannequins, enterprise accounts).
    Other,
}

/// A repository's settings, as far as the product reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub id: RepoId,
    pub html_url: String,
    pub default_branch: String,
    pub archived: bool,
    pub private: bool,
    pub fork: bool,
    /// What the repository's settings allow. Forges show these only to identities that may push; an absent value is
    /// `false`, as in Prow.
    pub allow_merge_commit: bool,
    pub allow_squash_merge: bool,
    pub allow_rebase_merge: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Open,
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Label {
    pub name: String,
    pub description: String,
    /// Six hexadecimal digits without `#`.
    pub color: String,
}

/// One line of the forge's record of an issue or pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedChange {
    pub change: Change,
    /// Who did it; empty login if the account was deleted.
    pub actor: User,
    /// GitHub's is in whole seconds.
    pub at: Timestamp,
}

/// What can be done to an issue or pull request. People are given by their logins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Labeled(String),
    Unlabeled(String),
    Assigned(String),
    Unassigned(String),
    ReviewRequested(String),
    ReviewRequestRemoved(String),
    /// To this title.
    Renamed(String),
    /// The milestone's title.
    Milestoned(String),
    Demilestoned(String),
    Closed,
    Reopened,
    Pinned,
    Unpinned,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Milestone {
    pub number: u64,
    pub title: String,
}

/// One end of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PullRequestEnd {
    /// The branch's name, without `refs/heads/`.
    pub branch: String,
    pub sha: String,
    /// `None` if the repository (usually the fork) was deleted.
    pub repo: Option<RepoId>,
    /// The repository's page; empty if it was deleted.
    pub repo_html_url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// The repository that the pull request asks to be merged into.
    pub repo: RepoId,
    pub number: u64,
    pub node_id: String,
    pub html_url: String,
    pub title: String,
    /// Empty if the forge has none.
    pub body: String,
    pub author: User,
    /// `OWNER`, `MEMBER`, `COLLABORATOR`, `CONTRIBUTOR`, `FIRST_TIME_CONTRIBUTOR`, `FIRST_TIMER`, `MANNEQUIN`, `NONE`;
    /// empty if not told.
    pub author_association: String,
    pub state: State,
    pub draft: bool,
    pub merged: bool,
    /// The merge or squash commit if `merged`, else the forge's test merge.
    pub merge_commit_sha: Option<String>,
    /// `None` while the forge has not computed it; lists never tell.
    pub mergeable: Option<bool>,
    pub base: PullRequestEnd,
    pub head: PullRequestEnd,
    pub labels: Vec<Label>,
    pub assignees: Vec<User>,
    pub requested_reviewers: Vec<User>,
    /// Slugs of the teams whose review is requested.
    #[serde(default)]
    pub requested_teams: Vec<String>,
    /// Whether the forge itself will merge it once its rules are met.
    #[serde(default)]
    pub auto_merge: bool,
    pub milestone: Option<Milestone>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// How many commits it has; `None` where the forge does not tell (lists).
    pub commits: Option<u64>,
}

impl PullRequest {
    /// Whether the label is set; GitHub's labels do not differ by case alone.
    #[must_use]
    pub fn has_label(&self, name: &str) -> bool {
        has_label(&self.labels, name)
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }
}

/// Whether a label of that name is among `labels`, whatever its case.
#[must_use]
pub fn has_label(labels: &[Label], name: &str) -> bool {
    let name = name.to_lowercase();
    labels.iter().any(|label| label.name.to_lowercase() == name)
}

/// An issue, or the issue side of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    pub repo: RepoId,
    pub number: u64,
    pub node_id: String,
    pub html_url: String,
    pub title: String,
    /// Empty if the forge has none.
    pub body: String,
    pub author: User,
    pub state: State,
    pub is_pull_request: bool,
    pub labels: Vec<Label>,
    pub assignees: Vec<User>,
    pub milestone: Option<Milestone>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    Added,
    Removed,
    Modified,
    Renamed,
    Copied,
    /// Mode or type changed, or a word this version does not know.
    Changed,
    Unchanged,
}

/// A file that differs between a pull request's merge base and its head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedFile {
    pub path: String,
    /// Where it was before, if it was renamed or copied.
    pub previous_path: Option<String>,
    pub status: FileStatus,
    pub additions: u64,
    pub deletions: u64,
    /// The unified diff of this file without headers; `None` for binary and very large files.
    pub patch: Option<String>,
    pub blob_url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueComment {
    pub id: u64,
    pub html_url: String,
    pub author: User,
    pub body: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewState {
    Approved,
    ChangesRequested,
    Commented,
    Dismissed,
    Pending,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    pub id: u64,
    pub node_id: String,
    pub html_url: String,
    pub author: User,
    /// Empty if the reviewer wrote nothing.
    pub body: String,
    pub state: ReviewState,
    /// `None` while pending.
    pub submitted_at: Option<Timestamp>,
    /// The head it was written on; `None` if that commit is gone.
    pub commit_id: Option<String>,
}

/// A comment on a line of a pull request's diff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewComment {
    pub id: u64,
    pub node_id: String,
    /// `None` for comments that belong to no review.
    pub review_id: Option<u64>,
    pub html_url: String,
    pub author: User,
    pub body: String,
    pub path: String,
    pub commit_id: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The state of a commit status. Spelled in lower case as in REST; [`StatusState::as_upper`] for GraphQL's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusState {
    /// Required but not yet reported; only searches tell this.
    Expected,
    Error,
    Failure,
    Pending,
    Success,
}

impl StatusState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Error => "error",
            Self::Failure => "failure",
            Self::Pending => "pending",
            Self::Success => "success",
        }
    }

    #[must_use]
    pub const fn as_upper(self) -> &'static str {
        match self {
            Self::Expected => "EXPECTED",
            Self::Error => "ERROR",
            Self::Failure => "FAILURE",
            Self::Pending => "PENDING",
            Self::Success => "SUCCESS",
        }
    }
}

/// One context on one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitStatus {
    pub context: String,
    pub state: StatusState,
    /// GitHub refuses more than 140 characters.
    pub description: String,
    /// Empty for none.
    pub target_url: String,
}

/// The newest status of each context of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CombinedStatus {
    pub sha: String,
    /// The forge's own summary.
    pub state: StatusState,
    pub statuses: Vec<CommitStatus>,
}

/// A check run, as far as merging and overriding look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckRun {
    pub name: String,
    /// Upper case as GraphQL spells it: `QUEUED`, `IN_PROGRESS`, `COMPLETED`, …
    pub status: String,
    /// Upper case: `SUCCESS`, `NEUTRAL`, `SKIPPED`, `FAILURE`, …; empty unless completed.
    pub conclusion: String,
    /// Slug of the app that made it; empty where the forge does not tell (searches).
    #[serde(default)]
    pub app: String,
}

/// A run of GitHub Actions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowRun {
    pub id: u64,
    pub name: String,
    /// `pull_request`, `push`, …
    pub event: String,
    /// `queued`, `in_progress`, `completed`, …
    pub status: String,
    /// `success`, `failure`, `action_required`, …; empty unless completed.
    pub conclusion: String,
    pub head_branch: String,
    pub head_sha: String,
    pub html_url: String,
}

impl WorkflowRun {
    /// A pull request's, which has ended, and neither passed nor was it skipped (PLG-TRIGGER-023). What a push, a clock
    /// or a person started on the same head is none of a pull request's: it may deploy.
    #[must_use]
    pub fn failed(&self) -> bool {
        matches!(
            self.event.as_str(),
            "pull_request" | "pull_request_target" | "workflow_call"
        ) && self.status == "completed"
            && !matches!(self.conclusion.as_str(), "success" | "skipped")
    }

    /// A pull request's that somebody must allow to run, as for a first-time contributor (PLG-TRIGGER-023).
    #[must_use]
    pub fn awaits_approval(&self) -> bool {
        matches!(self.event.as_str(), "pull_request" | "pull_request_target")
            && (self.conclusion == "action_required" || self.status == "action_required")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub sha: String,
    pub tree_sha: String,
    pub parents: Vec<String>,
    pub message: String,
    /// As written in the commit: not an account.
    pub author: Signature,
    pub committer: Signature,
    /// The account the forge attributes it to, if any.
    pub author_login: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signature {
    pub name: String,
    pub email: String,
    pub at: Option<Timestamp>,
}

/// What lies between two commits, as far as the forge tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    pub merge_base_sha: String,
    pub ahead_by: u64,
    pub behind_by: u64,
    /// How many commits the head has and the base lacks.
    pub total_commits: u64,
    /// Oldest first; GitHub tells at most [`COMPARED_COMMITS`].
    pub commits: Vec<Commit>,
    /// Against the merge base; GitHub tells at most [`COMPARED_FILES`].
    pub files: Vec<ChangedFile>,
}

/// Commits that GitHub tells of a comparison.
pub const COMPARED_COMMITS: usize = 250;

/// Files that GitHub tells of a comparison.
pub const COMPARED_FILES: usize = 300;

impl Comparison {
    /// There may be more files or commits than are told: ask git instead of judging a part (GHC-025).
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.files.len() >= COMPARED_FILES
            || u64::try_from(self.commits.len()).is_ok_and(|told| told < self.total_commits)
    }
}

/// A team of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Team {
    pub id: u64,
    /// As displayed.
    pub name: String,
    /// As it stands in URLs.
    pub slug: String,
}

/// An account with what it shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub user: User,
    /// The person's name; empty if the account shows none.
    pub name: String,
    /// Empty if the account shows none.
    pub email: String,
}

/// What an account may do in a repository, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    None,
    Read,
    Triage,
    Write,
    Maintain,
    Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeMethod {
    Merge,
    Squash,
    Rebase,
}

impl MergeMethod {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Squash => "squash",
            Self::Rebase => "rebase",
        }
    }
}

/// The account the product acts as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotUser {
    /// Under a GitHub App: the app's slug, without `[bot]`.
    pub login: String,
    /// Empty if the account shows none.
    pub email: String,
    /// Whether we authenticate as a GitHub App.
    pub app: bool,
}

impl BotUser {
    /// Whether `candidate` is us (HOOK-022): the same login exactly; under an app, `[bot]` at its end does not count.
    #[must_use]
    pub fn is(&self, candidate: &str) -> bool {
        let candidate = if self.app {
            candidate.strip_suffix("[bot]").unwrap_or(candidate)
        } else {
            candidate
        };
        candidate == self.login
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    pub name: String,
    pub path: String,
    pub kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Submodule,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_org_slash_repo() {
        assert_eq!(
            "kubernetes/test-infra".parse(),
            Ok(RepoId::new("kubernetes", "test-infra"))
        );
        for bad in ["", "kubernetes", "/x", "x/", "a/b/c"] {
            assert_eq!(bad.parse::<RepoId>(), Err(NotARepo(bad.into())));
        }
        insta::assert_snapshot!(NotARepo("x".into()), @r#""x" is not a repository: expected org/repo"#);
    }

    /// HOOK-022
    #[test]
    fn an_app_is_itself_with_or_without_its_suffix() {
        let app = BotUser {
            login: "k8s-ci-robot".into(),
            email: String::new(),
            app: true,
        };
        assert!(app.is("k8s-ci-robot[bot]") && app.is("k8s-ci-robot") && !app.is("K8s-ci-robot"));
        let user = BotUser { app: false, ..app };
        assert!(!user.is("k8s-ci-robot[bot]") && user.is("k8s-ci-robot"));
    }

    /// HOOK-025
    #[test]
    fn logins_compare_without_case_and_at() {
        assert_eq!(norm_login("@Alice"), "alice");
        assert_eq!(norm_login("@@Alice"), "@alice");
        assert!(User::new("Alice").is("@aLICE"));
    }
}
