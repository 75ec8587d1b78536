//! GitHub's JSON as it comes over the wire, in REST answers and in webhook payloads, and what it means in the
//! product's words. Lenient as Prow is: a key that is absent or null is empty.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::types::{
    ChangedFile, CheckRun, Commit, CommitStatus, DirectoryEntry, EntryKind, FileStatus, Issue,
    IssueComment, Label, Milestone, PullRequest, PullRequestEnd, RepoId, Repository, Review,
    ReviewComment, ReviewState, Signature, State, StatusState, Team, User, UserKind,
};

/// An absent key and a null mean the type's empty value.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireUser {
    /// Push events name their people here.
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) login: String,
    #[serde(rename = "type", default, deserialize_with = "nullable")]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) html_url: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) email: String,
}

pub(crate) fn user(wire: Option<WireUser>) -> User {
    wire.map_or_else(User::default, |wire| User {
        login: wire.login,
        kind: user_kind(&wire.kind),
        html_url: wire.html_url,
    })
}

pub(crate) fn user_kind(word: &str) -> UserKind {
    match word {
        "User" | "" => UserKind::User,
        "Bot" => UserKind::Bot,
        "Organization" => UserKind::Organization,
        _ => UserKind::Other,
    }
}

fn users(wire: Vec<WireUser>) -> Vec<User> {
    wire.into_iter().map(|wire| user(Some(wire))).collect()
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireRepo {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) full_name: String,
    #[serde(default)]
    pub(crate) owner: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    html_url: String,
    #[serde(default, deserialize_with = "nullable")]
    default_branch: String,
    #[serde(default, deserialize_with = "nullable")]
    archived: bool,
    #[serde(default, deserialize_with = "nullable")]
    private: bool,
    #[serde(default, deserialize_with = "nullable")]
    fork: bool,
    #[serde(default, deserialize_with = "nullable")]
    allow_merge_commit: bool,
    #[serde(default, deserialize_with = "nullable")]
    allow_squash_merge: bool,
    #[serde(default, deserialize_with = "nullable")]
    allow_rebase_merge: bool,
}

impl WireRepo {
    /// The owner's login (`name` in push events), or else the part of `full_name` before the slash.
    pub(crate) fn id(&self) -> RepoId {
        let (org, repo) = self.full_name.split_once('/').unwrap_or_default();
        let owner = self.owner.as_ref().map_or("", |owner| {
            if owner.login.is_empty() {
                &owner.name
            } else {
                &owner.login
            }
        });
        RepoId::new(
            if owner.is_empty() { org } else { owner },
            if self.name.is_empty() {
                repo
            } else {
                &self.name
            },
        )
    }
}

impl From<WireRepo> for Repository {
    fn from(wire: WireRepo) -> Self {
        Self {
            id: wire.id(),
            html_url: wire.html_url,
            default_branch: wire.default_branch,
            archived: wire.archived,
            private: wire.private,
            fork: wire.fork,
            allow_merge_commit: wire.allow_merge_commit,
            allow_squash_merge: wire.allow_squash_merge,
            allow_rebase_merge: wire.allow_rebase_merge,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireLabel {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "nullable")]
    description: String,
    #[serde(default, deserialize_with = "nullable")]
    color: String,
}

impl From<WireLabel> for Label {
    fn from(wire: WireLabel) -> Self {
        Self {
            name: wire.name,
            description: wire.description,
            color: wire.color,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireTeam {
    #[serde(default, deserialize_with = "nullable")]
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) slug: String,
}

impl From<WireTeam> for Team {
    fn from(wire: WireTeam) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            slug: wire.slug,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireMilestone {
    #[serde(default)]
    number: u64,
    #[serde(default, deserialize_with = "nullable")]
    title: String,
}

impl From<WireMilestone> for Milestone {
    fn from(wire: WireMilestone) -> Self {
        Self {
            number: wire.number,
            title: wire.title,
        }
    }
}

fn state(word: &str) -> State {
    if word == "closed" {
        State::Closed
    } else {
        State::Open
    }
}

#[derive(Debug, Deserialize)]
struct WireEnd {
    #[serde(rename = "ref", default, deserialize_with = "nullable")]
    branch: String,
    #[serde(default, deserialize_with = "nullable")]
    sha: String,
    #[serde(default)]
    repo: Option<WireRepo>,
}

impl From<WireEnd> for PullRequestEnd {
    fn from(wire: WireEnd) -> Self {
        Self {
            branch: wire.branch,
            sha: wire.sha,
            repo: wire.repo.as_ref().map(WireRepo::id),
            repo_html_url: wire.repo.map(|repo| repo.html_url).unwrap_or_default(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WirePullRequest {
    number: u64,
    #[serde(default, deserialize_with = "nullable")]
    node_id: String,
    #[serde(default, deserialize_with = "nullable")]
    html_url: String,
    #[serde(default, deserialize_with = "nullable")]
    title: String,
    #[serde(default, deserialize_with = "nullable")]
    body: String,
    user: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    author_association: String,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default, deserialize_with = "nullable")]
    draft: bool,
    #[serde(default)]
    merged: Option<bool>,
    #[serde(default)]
    merged_at: Option<Timestamp>,
    #[serde(default)]
    merge_commit_sha: Option<String>,
    #[serde(default)]
    mergeable: Option<bool>,
    base: WireEnd,
    head: WireEnd,
    #[serde(default, deserialize_with = "nullable")]
    labels: Vec<WireLabel>,
    #[serde(default, deserialize_with = "nullable")]
    assignees: Vec<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    requested_reviewers: Vec<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    requested_teams: Vec<WireTeam>,
    #[serde(default)]
    auto_merge: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    milestone: Option<WireMilestone>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(default)]
    commits: Option<u64>,
}

impl WirePullRequest {
    /// `repo` is where it was asked for; the base repository's own word goes first.
    pub(crate) fn into_pull_request(self, repo: &RepoId) -> PullRequest {
        let base = PullRequestEnd::from(self.base);
        PullRequest {
            repo: base.repo.clone().unwrap_or_else(|| repo.clone()),
            number: self.number,
            node_id: self.node_id,
            html_url: self.html_url,
            title: self.title,
            body: self.body,
            author: user(self.user),
            author_association: self.author_association,
            state: state(&self.state),
            draft: self.draft,
            merged: self.merged.unwrap_or(self.merged_at.is_some()),
            merge_commit_sha: self.merge_commit_sha,
            mergeable: self.mergeable,
            base,
            head: self.head.into(),
            labels: self.labels.into_iter().map(Into::into).collect(),
            assignees: users(self.assignees),
            requested_reviewers: users(self.requested_reviewers),
            requested_teams: self
                .requested_teams
                .into_iter()
                .map(|team| team.slug)
                .collect(),
            auto_merge: self.auto_merge.is_some(),
            milestone: self.milestone.map(Into::into),
            created_at: self.created_at,
            updated_at: self.updated_at,
            commits: self.commits,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireIssue {
    number: u64,
    #[serde(default, deserialize_with = "nullable")]
    node_id: String,
    #[serde(default, deserialize_with = "nullable")]
    html_url: String,
    #[serde(default, deserialize_with = "nullable")]
    title: String,
    #[serde(default, deserialize_with = "nullable")]
    body: String,
    user: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default)]
    pull_request: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "nullable")]
    labels: Vec<WireLabel>,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) assignees: Vec<WireUser>,
    #[serde(default)]
    milestone: Option<WireMilestone>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl WireIssue {
    pub(crate) fn into_issue(self, repo: &RepoId) -> Issue {
        Issue {
            repo: repo.clone(),
            number: self.number,
            node_id: self.node_id,
            html_url: self.html_url,
            title: self.title,
            body: self.body,
            author: user(self.user),
            state: state(&self.state),
            is_pull_request: self.pull_request.is_some(),
            labels: self.labels.into_iter().map(Into::into).collect(),
            assignees: users(self.assignees),
            milestone: self.milestone.map(Into::into),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireFile {
    filename: String,
    #[serde(default)]
    previous_filename: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    status: String,
    #[serde(default, deserialize_with = "nullable")]
    additions: u64,
    #[serde(default, deserialize_with = "nullable")]
    deletions: u64,
    #[serde(default)]
    patch: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    blob_url: String,
}

impl From<WireFile> for ChangedFile {
    fn from(wire: WireFile) -> Self {
        Self {
            path: wire.filename,
            previous_path: wire.previous_filename,
            status: match wire.status.as_str() {
                "added" => FileStatus::Added,
                "removed" => FileStatus::Removed,
                "modified" => FileStatus::Modified,
                "renamed" => FileStatus::Renamed,
                "copied" => FileStatus::Copied,
                "unchanged" => FileStatus::Unchanged,
                _ => FileStatus::Changed,
            },
            additions: wire.additions,
            deletions: wire.deletions,
            patch: wire.patch,
            blob_url: wire.blob_url,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireComment {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    html_url: String,
    user: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    body: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<WireComment> for IssueComment {
    fn from(wire: WireComment) -> Self {
        Self {
            id: wire.id,
            html_url: wire.html_url,
            author: user(wire.user),
            body: wire.body,
            created_at: wire.created_at,
            updated_at: wire.updated_at,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireReview {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    node_id: String,
    #[serde(default, deserialize_with = "nullable")]
    html_url: String,
    user: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    body: String,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default)]
    submitted_at: Option<Timestamp>,
    #[serde(default)]
    commit_id: Option<String>,
}

impl From<WireReview> for Review {
    fn from(wire: WireReview) -> Self {
        Self {
            id: wire.id,
            node_id: wire.node_id,
            html_url: wire.html_url,
            author: user(wire.user),
            body: wire.body,
            // REST shouts, webhooks whisper.
            state: match wire.state.to_ascii_uppercase().as_str() {
                "APPROVED" => ReviewState::Approved,
                "CHANGES_REQUESTED" => ReviewState::ChangesRequested,
                "DISMISSED" => ReviewState::Dismissed,
                "PENDING" => ReviewState::Pending,
                _ => ReviewState::Commented,
            },
            submitted_at: wire.submitted_at,
            commit_id: wire.commit_id,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireReviewComment {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    node_id: String,
    #[serde(default)]
    pull_request_review_id: Option<u64>,
    #[serde(default, deserialize_with = "nullable")]
    html_url: String,
    user: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    body: String,
    #[serde(default, deserialize_with = "nullable")]
    path: String,
    #[serde(default, deserialize_with = "nullable")]
    commit_id: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<WireReviewComment> for ReviewComment {
    fn from(wire: WireReviewComment) -> Self {
        Self {
            id: wire.id,
            node_id: wire.node_id,
            review_id: wire.pull_request_review_id,
            html_url: wire.html_url,
            author: user(wire.user),
            body: wire.body,
            path: wire.path,
            commit_id: wire.commit_id,
            created_at: wire.created_at,
            updated_at: wire.updated_at,
        }
    }
}

/// The four states of REST and the five of GraphQL, in either case; an unknown word counts as pending, which merges
/// nothing.
pub(crate) fn status_state(word: &str) -> StatusState {
    match word.to_ascii_lowercase().as_str() {
        "expected" => StatusState::Expected,
        "error" => StatusState::Error,
        "failure" => StatusState::Failure,
        "success" => StatusState::Success,
        _ => StatusState::Pending,
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireStatus {
    #[serde(default, deserialize_with = "nullable")]
    context: String,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default, deserialize_with = "nullable")]
    description: String,
    #[serde(default, deserialize_with = "nullable")]
    target_url: String,
}

impl From<WireStatus> for CommitStatus {
    fn from(wire: WireStatus) -> Self {
        Self {
            state: status_state(&wire.state),
            context: wire.context,
            description: wire.description,
            target_url: wire.target_url,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireCombinedStatus {
    pub(crate) sha: String,
    pub(crate) state: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) statuses: Vec<WireStatus>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireCheckRuns {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) check_runs: Vec<WireCheckRun>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireCheckRun {
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    status: String,
    #[serde(default, deserialize_with = "nullable")]
    conclusion: String,
    #[serde(default)]
    app: Option<WireApp>,
}

#[derive(Debug, Deserialize)]
struct WireApp {
    #[serde(default, deserialize_with = "nullable")]
    slug: String,
}

impl From<WireCheckRun> for CheckRun {
    fn from(wire: WireCheckRun) -> Self {
        Self {
            app: wire.app.map(|app| app.slug).unwrap_or_default(),
            name: wire.name,
            status: wire.status.to_ascii_uppercase(),
            conclusion: wire.conclusion.to_ascii_uppercase(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireSha {
    pub(crate) sha: String,
}

#[derive(Debug, Default, Deserialize)]
struct WireSignature {
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    email: String,
    #[serde(default)]
    date: Option<Timestamp>,
}

impl From<WireSignature> for Signature {
    fn from(wire: WireSignature) -> Self {
        Self {
            name: wire.name,
            email: wire.email,
            at: wire.date,
        }
    }
}

#[derive(Debug, Deserialize)]
struct WireGitCommit {
    #[serde(default, deserialize_with = "nullable")]
    message: String,
    #[serde(default, deserialize_with = "nullable")]
    author: WireSignature,
    #[serde(default, deserialize_with = "nullable")]
    committer: WireSignature,
    tree: WireSha,
}

/// A null, an empty object or an account: GitHub says "nobody" in the first two ways.
#[derive(Debug, Deserialize)]
pub(crate) struct WireCommit {
    pub(crate) sha: String,
    commit: WireGitCommit,
    #[serde(default)]
    author: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    parents: Vec<WireSha>,
}

impl From<WireCommit> for Commit {
    fn from(wire: WireCommit) -> Self {
        Self {
            sha: wire.sha,
            tree_sha: wire.commit.tree.sha,
            parents: wire.parents.into_iter().map(|parent| parent.sha).collect(),
            message: wire.commit.message,
            author: wire.commit.author.into(),
            committer: wire.commit.committer.into(),
            author_login: wire
                .author
                .map(|author| author.login)
                .filter(|login| !login.is_empty()),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct WireEntry {
    name: String,
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl From<WireEntry> for DirectoryEntry {
    fn from(wire: WireEntry) -> Self {
        Self {
            name: wire.name,
            path: wire.path,
            kind: match wire.kind.as_str() {
                "dir" => EntryKind::Directory,
                "symlink" => EntryKind::Symlink,
                "submodule" => EntryKind::Submodule,
                _ => EntryKind::File,
            },
        }
    }
}
