//! What GitHub's webhooks say, typed: the events that have handlers (HOOK-009), and the comment-like thing that five
//! of them have in common (HOOK-014). Headers and signatures are checked by the door that receives them.

mod wire;

use serde::{Deserialize, Serialize};

use crate::github::wire::nullable;
use crate::types::{
    CommitStatus, Issue, IssueComment, Label, PullRequest, RepoId, Repository, Review,
    ReviewComment, State, User,
};
use jiff::Timestamp;

/// A payload that is not what its event type promises.
#[derive(Debug, thiserror::Error)]
#[error("{event} payload: {source}")]
pub struct PayloadError {
    pub event: String,
    #[source]
    pub source: serde_json::Error,
}

/// A webhook's content.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    PullRequest(Box<PullRequestEvent>),
    Issue(Box<IssueEvent>),
    IssueComment(Box<IssueCommentEvent>),
    Review(Box<ReviewEvent>),
    ReviewComment(Box<ReviewCommentEvent>),
    Push(Box<PushEvent>),
    Status(Box<StatusEvent>),
    /// GitHub's greeting to a new webhook.
    Ping,
    /// An event without a handler here; external plugins may want it.
    Other,
}

/// What a pull request event is about. Words of GitHub's; an unknown one is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum PullRequestAction {
    Opened,
    Edited,
    Closed,
    Reopened,
    Synchronize,
    Labeled,
    Unlabeled,
    Assigned,
    Unassigned,
    ReviewRequested,
    ReviewRequestRemoved,
    ReadyForReview,
    ConvertedToDraft,
    Locked,
    Unlocked,
    AutoMergeEnabled,
    AutoMergeDisabled,
    Other(String),
}

impl PullRequestAction {
    /// Whether the pull request may have other commits, or other files, than anybody has looked at.
    #[must_use]
    pub fn brings_commits(&self) -> bool {
        matches!(self, Self::Opened | Self::Reopened | Self::Synchronize)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Opened => "opened",
            Self::Edited => "edited",
            Self::Closed => "closed",
            Self::Reopened => "reopened",
            Self::Synchronize => "synchronize",
            Self::Labeled => "labeled",
            Self::Unlabeled => "unlabeled",
            Self::Assigned => "assigned",
            Self::Unassigned => "unassigned",
            Self::ReviewRequested => "review_requested",
            Self::ReviewRequestRemoved => "review_request_removed",
            Self::ReadyForReview => "ready_for_review",
            Self::ConvertedToDraft => "converted_to_draft",
            Self::Locked => "locked",
            Self::Unlocked => "unlocked",
            Self::AutoMergeEnabled => "auto_merge_enabled",
            Self::AutoMergeDisabled => "auto_merge_disabled",
            Self::Other(word) => word,
        }
    }
}

impl From<String> for PullRequestAction {
    fn from(word: String) -> Self {
        match word.as_str() {
            "opened" => Self::Opened,
            "edited" => Self::Edited,
            "closed" => Self::Closed,
            "reopened" => Self::Reopened,
            "synchronize" => Self::Synchronize,
            "labeled" => Self::Labeled,
            "unlabeled" => Self::Unlabeled,
            "assigned" => Self::Assigned,
            "unassigned" => Self::Unassigned,
            "review_requested" => Self::ReviewRequested,
            "review_request_removed" => Self::ReviewRequestRemoved,
            "ready_for_review" => Self::ReadyForReview,
            "converted_to_draft" => Self::ConvertedToDraft,
            "locked" => Self::Locked,
            "unlocked" => Self::Unlocked,
            "auto_merge_enabled" => Self::AutoMergeEnabled,
            "auto_merge_disabled" => Self::AutoMergeDisabled,
            _ => Self::Other(word),
        }
    }
}

impl From<PullRequestAction> for String {
    fn from(action: PullRequestAction) -> Self {
        action.as_str().to_owned()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct PullRequestEvent {
    pub action: PullRequestAction,
    pub pull_request: PullRequest,
    /// The base repository.
    pub repository: Repository,
    /// The label that was set or removed, for these two actions.
    pub label: Option<Label>,
    pub sender: User,
    /// What an edit replaced.
    pub changes: Changes,
    /// Whose review is asked for, or no more.
    pub requested_reviewer: Option<User>,
    /// The slug, if it is a team's.
    pub requested_team: Option<String>,
    /// The head before a `synchronize`.
    pub before: Option<String>,
}

/// The former values of what an edit changed; `None` for what it did not touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub title: Option<String>,
    pub body: Option<String>,
    pub base_branch: Option<String>,
    pub base_sha: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct IssueEvent {
    /// `opened`, `edited`, `labeled`, …
    pub action: String,
    pub issue: Issue,
    pub repository: Repository,
    pub label: Option<Label>,
    pub sender: User,
    /// What an edit replaced.
    pub changes: Changes,
}

#[derive(Debug, Clone, PartialEq)]
pub struct IssueCommentEvent {
    /// `created`, `edited`, `deleted`.
    pub action: String,
    pub issue: Issue,
    pub comment: IssueComment,
    pub repository: Repository,
    pub sender: User,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReviewEvent {
    /// `submitted`, `edited`, `dismissed`.
    pub action: String,
    pub pull_request: PullRequest,
    pub review: Review,
    pub repository: Repository,
    pub sender: User,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReviewCommentEvent {
    /// `created`, `edited`, `deleted`.
    pub action: String,
    pub pull_request: PullRequest,
    pub comment: ReviewComment,
    pub repository: Repository,
    pub sender: User,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PushEvent {
    /// `refs/heads/main`, `refs/tags/v1`.
    pub git_ref: String,
    /// Forty zeros if the ref is new.
    pub before: String,
    /// Forty zeros if it was deleted.
    pub after: String,
    pub created: bool,
    pub deleted: bool,
    pub forced: bool,
    /// The page that shows the difference.
    pub compare_url: String,
    /// At most 2048, oldest first.
    pub commits: Vec<PushedCommit>,
    /// The commit of `after`; `None` if the ref was deleted.
    pub head_commit: Option<PushedCommit>,
    /// The pusher's login.
    pub pusher: String,
    pub sender: User,
    pub repository: Repository,
}

impl PushEvent {
    /// The branch's or tag's name.
    #[must_use]
    pub fn branch(&self) -> &str {
        let name = self
            .git_ref
            .strip_prefix("refs/heads/")
            .unwrap_or(&self.git_ref);
        name.strip_prefix("refs/tags/").unwrap_or(name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct PushedCommit {
    pub id: String,
    /// Whether no earlier push brought it.
    #[serde(default, deserialize_with = "nullable")]
    pub distinct: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub message: String,
    #[serde(default, deserialize_with = "nullable")]
    pub added: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub removed: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub modified: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StatusEvent {
    /// Of the status.
    pub id: u64,
    pub sha: String,
    pub status: CommitStatus,
    /// Branches that have the commit; GitHub tells at most ten.
    pub branches: Vec<String>,
    pub repository: Repository,
    pub sender: User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenericAction {
    /// Something was written: a comment, a review, an opened issue or pull request.
    Created,
    Edited,
    /// A comment was deleted, a review dismissed.
    Deleted,
}

/// Text that somebody wrote, wherever they wrote it (HOOK-014, HOOK-015).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenericComment {
    pub is_pr: bool,
    pub action: GenericAction,
    pub body: String,
    /// The text's page.
    pub html_url: String,
    pub number: u64,
    pub repo: RepoId,
    /// Who wrote the text.
    pub user: User,
    pub issue_author: User,
    pub assignees: Vec<User>,
    pub issue_state: State,
    pub issue_title: String,
    pub issue_body: String,
    pub issue_html_url: String,
    /// Of the issue or pull request; for reviews and their comments, of these.
    pub node_id: String,
    /// Issue comments and review comments only.
    pub comment_id: Option<u64>,
    /// When the text was written, where the event tells it.
    pub written: Option<Timestamp>,
    /// The head of the pull request that it was written on; issue comments do not tell.
    pub head: Option<String>,
}

impl GenericComment {
    /// Whether somebody has just written it on an open pull request.
    #[must_use]
    pub fn is_new_on_open_pull_request(&self) -> bool {
        self.is_pr && self.issue_state == State::Open && self.action == GenericAction::Created
    }
}

impl Event {
    /// Reads a payload of the type that `X-GitHub-Event` names.
    ///
    /// # Errors
    /// The payload is not JSON, or lacks what every event of that type has.
    pub fn parse(event_type: &str, payload: &[u8]) -> Result<Self, PayloadError> {
        fn read<'a, T: Deserialize<'a>>(
            event_type: &str,
            payload: &'a [u8],
        ) -> Result<T, PayloadError> {
            serde_json::from_slice(payload).map_err(|source| PayloadError {
                event: event_type.to_owned(),
                source,
            })
        }
        Ok(match event_type {
            "pull_request" => {
                let wire: wire::WirePullRequestEvent = read(event_type, payload)?;
                Self::PullRequest(Box::new(wire.into()))
            }
            "issues" => {
                let wire: wire::WireIssueEvent = read(event_type, payload)?;
                Self::Issue(Box::new(wire.into()))
            }
            "issue_comment" => {
                let wire: wire::WireIssueCommentEvent = read(event_type, payload)?;
                Self::IssueComment(Box::new(wire.into()))
            }
            "pull_request_review" => {
                let wire: wire::WireReviewEvent = read(event_type, payload)?;
                Self::Review(Box::new(wire.into()))
            }
            "pull_request_review_comment" => {
                let wire: wire::WireReviewCommentEvent = read(event_type, payload)?;
                Self::ReviewComment(Box::new(wire.into()))
            }
            "push" => {
                let wire: wire::WirePushEvent = read(event_type, payload)?;
                Self::Push(Box::new(wire.into()))
            }
            "status" => {
                let wire: wire::WireStatusEvent = read(event_type, payload)?;
                Self::Status(Box::new(wire.into()))
            }
            "ping" => Self::Ping,
            _ => Self::Other,
        })
    }

    /// The repository whose plugins the event concerns (HOOK-016); `None` for events without a handler.
    #[must_use]
    pub fn repo(&self) -> Option<&RepoId> {
        match self {
            Self::PullRequest(event) => Some(&event.pull_request.repo),
            Self::Issue(event) => Some(&event.repository.id),
            Self::IssueComment(event) => Some(&event.repository.id),
            Self::Review(event) => Some(&event.pull_request.repo),
            Self::ReviewComment(event) => Some(&event.pull_request.repo),
            Self::Push(event) => Some(&event.repository.id),
            Self::Status(event) => Some(&event.repository.id),
            Self::Ping | Self::Other => None,
        }
    }

    /// The issue or pull request it concerns.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::PullRequest(event) => Some(event.pull_request.number),
            Self::Issue(event) => Some(event.issue.number),
            Self::IssueComment(event) => Some(event.issue.number),
            Self::Review(event) => Some(event.pull_request.number),
            Self::ReviewComment(event) => Some(event.pull_request.number),
            Self::Push(_) | Self::Status(_) | Self::Ping | Self::Other => None,
        }
    }

    /// The payload's `action`; `None` for events that have none.
    #[must_use]
    pub fn action(&self) -> Option<&str> {
        match self {
            Self::PullRequest(event) => Some(event.action.as_str()),
            Self::Issue(event) => Some(&event.action),
            Self::IssueComment(event) => Some(&event.action),
            Self::Review(event) => Some(&event.action),
            Self::ReviewComment(event) => Some(&event.action),
            Self::Push(_) | Self::Status(_) | Self::Ping | Self::Other => None,
        }
    }

    /// When that happened which it tells of, where the payload has it.
    #[must_use]
    pub fn happened(&self) -> Option<Timestamp> {
        match self {
            Self::PullRequest(event) => Some(event.pull_request.updated_at),
            Self::Issue(event) => Some(event.issue.updated_at),
            Self::IssueComment(event) if event.action != "deleted" => {
                Some(event.comment.updated_at)
            }
            // Drafted earlier, said with its review.
            Self::ReviewComment(event) if event.action != "deleted" => {
                Some(event.comment.updated_at.max(event.pull_request.updated_at))
            }
            Self::Review(event) if event.action == "submitted" => event.review.submitted_at,
            _ => None,
        }
    }

    /// The event as a piece of text, if its action is about text (HOOK-014).
    #[must_use]
    pub fn generic_comment(&self) -> Option<GenericComment> {
        let action = match self.action()? {
            "created" | "opened" | "submitted" => GenericAction::Created,
            "edited" => GenericAction::Edited,
            "deleted" | "dismissed" => GenericAction::Deleted,
            _ => return None,
        };
        match self {
            Self::PullRequest(event) => {
                let pr = &event.pull_request;
                let written = Written {
                    body: &pr.body,
                    html_url: &pr.html_url,
                    user: &pr.author,
                    node_id: &pr.node_id,
                    comment_id: None,
                    // The text of one that was just opened; later it is older than that.
                    at: (action == GenericAction::Created).then_some(pr.updated_at),
                };
                Some(written.on_pull_request(action, pr, &event.repository))
            }
            Self::Issue(event) => {
                let issue = &event.issue;
                let written = Written {
                    body: &issue.body,
                    html_url: &issue.html_url,
                    user: &issue.author,
                    node_id: &issue.node_id,
                    comment_id: None,
                    at: (action == GenericAction::Created).then_some(issue.updated_at),
                };
                Some(written.on_issue(action, issue, &event.repository))
            }
            Self::IssueComment(event) => {
                let comment = &event.comment;
                let written = Written {
                    body: &comment.body,
                    html_url: &comment.html_url,
                    user: &comment.author,
                    node_id: &event.issue.node_id,
                    comment_id: Some(comment.id),
                    at: Some(comment.created_at),
                };
                Some(written.on_issue(action, &event.issue, &event.repository))
            }
            Self::Review(event) => {
                let review = &event.review;
                let written = Written {
                    body: &review.body,
                    html_url: &review.html_url,
                    user: &review.author,
                    node_id: &review.node_id,
                    comment_id: None,
                    at: review.submitted_at,
                };
                Some(written.on_pull_request(action, &event.pull_request, &event.repository))
            }
            Self::ReviewComment(event) => {
                let comment = &event.comment;
                let written = Written {
                    body: &comment.body,
                    html_url: &comment.html_url,
                    user: &comment.author,
                    node_id: &comment.node_id,
                    comment_id: Some(comment.id),
                    // Drafted earlier, said with its review.
                    at: Some(comment.created_at.max(event.pull_request.updated_at)),
                };
                Some(written.on_pull_request(action, &event.pull_request, &event.repository))
            }
            Self::Push(_) | Self::Status(_) | Self::Ping | Self::Other => None,
        }
    }
}

/// The text itself, apart from what it was written on.
struct Written<'a> {
    body: &'a str,
    html_url: &'a str,
    user: &'a User,
    node_id: &'a str,
    comment_id: Option<u64>,
    at: Option<Timestamp>,
}

impl Written<'_> {
    fn on_pull_request(
        &self,
        action: GenericAction,
        pr: &PullRequest,
        repository: &Repository,
    ) -> GenericComment {
        GenericComment {
            is_pr: true,
            action,
            body: self.body.to_owned(),
            html_url: self.html_url.to_owned(),
            number: pr.number,
            repo: repository.id.clone(),
            user: self.user.clone(),
            issue_author: pr.author.clone(),
            assignees: pr.assignees.clone(),
            issue_state: pr.state,
            issue_title: pr.title.clone(),
            issue_body: pr.body.clone(),
            issue_html_url: pr.html_url.clone(),
            node_id: self.node_id.to_owned(),
            comment_id: self.comment_id,
            written: self.at,
            head: Some(pr.head.sha.clone()),
        }
    }

    fn on_issue(
        &self,
        action: GenericAction,
        issue: &Issue,
        repository: &Repository,
    ) -> GenericComment {
        GenericComment {
            is_pr: issue.is_pull_request,
            action,
            body: self.body.to_owned(),
            html_url: self.html_url.to_owned(),
            number: issue.number,
            repo: repository.id.clone(),
            user: self.user.clone(),
            issue_author: issue.author.clone(),
            assignees: issue.assignees.clone(),
            issue_state: issue.state,
            issue_title: issue.title.clone(),
            issue_body: issue.body.clone(),
            issue_html_url: issue.html_url.clone(),
            node_id: self.node_id.to_owned(),
            comment_id: self.comment_id,
            written: self.at,
            head: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HOOK-005: a payload that is not its type is told as such.
    #[test]
    fn a_payload_of_another_type_is_named() {
        let error = Event::parse("pull_request", b"{\"action\": \"opened\"}").unwrap_err();
        insta::assert_snapshot!(error, @"pull_request payload: missing field `pull_request` at line 1 column 20");
        assert!(Event::parse("push", b"not json").is_err());
        assert_eq!(Event::parse("gollum", b"{}").unwrap(), Event::Other);
    }

    #[test]
    fn unknown_actions_are_kept() {
        let action = PullRequestAction::from("enqueued".to_owned());
        assert_eq!(action, PullRequestAction::Other("enqueued".into()));
        assert_eq!(action.as_str(), "enqueued");
        for word in ["opened", "review_request_removed", "converted_to_draft"] {
            let action = PullRequestAction::from(word.to_owned());
            assert_eq!(action.as_str(), word);
            assert!(!matches!(action, PullRequestAction::Other(_)));
        }
    }

    #[test]
    fn a_push_names_its_branch_or_tag() {
        let push = |git_ref: &str| {
            let payload = format!(
                r#"{{"ref":"{git_ref}","before":"0","after":"1","repository":{{"name":"r","owner":{{"name":"o"}}}}}}"#
            );
            let Ok(Event::Push(push)) = Event::parse("push", payload.as_bytes()) else {
                panic!("not a push");
            };
            assert_eq!(push.repository.id, RepoId::new("o", "r"));
            push.branch().to_owned()
        };
        assert_eq!(push("refs/heads/release/1.0"), "release/1.0");
        assert_eq!(push("refs/tags/v1"), "v1");
    }
}
