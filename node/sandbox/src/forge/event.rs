//! What happened, as GitHub would tell it by webhook. Each carries what its payload needs and the state may no
//! longer have (a deleted comment, a removed label, the text before an edit).

use jiff::Timestamp;
use serde_json::Value;

use super::model::{
    Comment, Commit, Id, Issue, Label, Milestone, PushedCommit, RepoName, Review, Status,
};

/// One thing that happened in a repository.
#[derive(Debug, Clone)]
pub struct Event {
    pub at: Timestamp,
    /// Login of who did it.
    pub actor: String,
    pub repo: RepoName,
    pub what: Happening,
}

#[derive(Debug, Clone)]
pub enum Happening {
    PullRequest {
        number: u64,
        action: PullAction,
    },
    Issue {
        number: u64,
        action: IssueAction,
    },
    Comment {
        comment: Comment,
        action: CommentAction,
    },
    Review {
        number: u64,
        review: Review,
        dismissed: bool,
    },
    ReviewComment {
        number: u64,
        comment: Id,
        /// The text before, if it was edited.
        edited: Option<String>,
    },
    Push(Box<Push>),
    Status {
        status: Status,
        commit: Box<Commit>,
    },
}

#[derive(Debug, Clone)]
pub enum PullAction {
    Opened,
    Reopened,
    Closed,
    Synchronize {
        before: String,
        after: String,
    },
    Edited {
        changes: Value,
    },
    Labeled(Label),
    Unlabeled(Label),
    Assigned(String),
    Unassigned(String),
    ReviewRequested(String),
    ReviewRequestRemoved(String),
    /// The team's slug.
    TeamReviewRequested(String),
    TeamReviewRequestRemoved(String),
    ReadyForReview,
    ConvertedToDraft,
    Milestoned(Milestone),
    Demilestoned(Milestone),
}

impl PullAction {
    /// The payload's `action`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reopened => "reopened",
            Self::Closed => "closed",
            Self::Synchronize { .. } => "synchronize",
            Self::Edited { .. } => "edited",
            Self::Labeled(_) => "labeled",
            Self::Unlabeled(_) => "unlabeled",
            Self::Assigned(_) => "assigned",
            Self::Unassigned(_) => "unassigned",
            Self::ReviewRequested(_) | Self::TeamReviewRequested(_) => "review_requested",
            Self::ReviewRequestRemoved(_) | Self::TeamReviewRequestRemoved(_) => {
                "review_request_removed"
            }
            Self::Milestoned(_) => "milestoned",
            Self::Demilestoned(_) => "demilestoned",
            Self::ReadyForReview => "ready_for_review",
            Self::ConvertedToDraft => "converted_to_draft",
        }
    }
}

#[derive(Debug, Clone)]
pub enum IssueAction {
    Opened,
    /// Came from another repository, where it was this issue.
    Arrived {
        from: RepoName,
        issue: Box<Issue>,
    },
    /// Is no more in this repository; this is how it looked here.
    Transferred {
        issue: Box<Issue>,
        to: RepoName,
        number: u64,
    },
    Milestoned(Milestone),
    Demilestoned(Milestone),
    Pinned,
    Unpinned,
    Reopened,
    Closed,
    Edited {
        changes: Value,
    },
    Labeled(Label),
    Unlabeled(Label),
    Assigned(String),
    Unassigned(String),
}

impl IssueAction {
    /// The payload's `action`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened | Self::Arrived { .. } => "opened",
            Self::Transferred { .. } => "transferred",
            Self::Milestoned(_) => "milestoned",
            Self::Demilestoned(_) => "demilestoned",
            Self::Pinned => "pinned",
            Self::Unpinned => "unpinned",
            Self::Reopened => "reopened",
            Self::Closed => "closed",
            Self::Edited { .. } => "edited",
            Self::Labeled(_) => "labeled",
            Self::Unlabeled(_) => "unlabeled",
            Self::Assigned(_) => "assigned",
            Self::Unassigned(_) => "unassigned",
        }
    }
}

#[derive(Debug, Clone)]
pub enum CommentAction {
    Created,
    Edited { from: String },
    Deleted,
}

/// A branch or tag moved.
#[derive(Debug, Clone)]
pub struct Push {
    /// Branch or tag, without `refs/heads/` and `refs/tags/`.
    pub branch: String,
    pub is_tag: bool,
    /// Forty zeros when the branch is new.
    pub before: String,
    /// Forty zeros when the branch is gone.
    pub after: String,
    /// The tip before is no ancestor of the tip after.
    pub forced: bool,
    /// At most 20, oldest first.
    pub commits: Vec<PushedCommit>,
    /// The commit of `after`, unless the branch is gone.
    pub head: Option<PushedCommit>,
}

impl Happening {
    /// The `X-GitHub-Event` it is told by.
    pub fn event_name(&self) -> &'static str {
        match self {
            Self::PullRequest { .. } => "pull_request",
            Self::Issue { .. } => "issues",
            Self::Comment { .. } => "issue_comment",
            Self::Review { .. } => "pull_request_review",
            Self::ReviewComment { .. } => "pull_request_review_comment",
            Self::Push(_) => "push",
            Self::Status { .. } => "status",
        }
    }

    /// The payload's `action`, for events that have one.
    pub fn action(&self) -> Option<&'static str> {
        Some(match self {
            Self::PullRequest { action, .. } => action.name(),
            Self::Issue { action, .. } => action.name(),
            Self::Comment { action, .. } => match action {
                CommentAction::Created => "created",
                CommentAction::Edited { .. } => "edited",
                CommentAction::Deleted => "deleted",
            },
            Self::Review { dismissed, .. } => {
                if *dismissed {
                    "dismissed"
                } else {
                    "submitted"
                }
            }
            Self::ReviewComment { edited, .. } => {
                if edited.is_some() {
                    "edited"
                } else {
                    "created"
                }
            }
            Self::Push(_) | Self::Status { .. } => return None,
        })
    }

    /// The issue or pull request concerned.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::PullRequest { number, .. }
            | Self::Issue { number, .. }
            | Self::Review { number, .. }
            | Self::ReviewComment { number, .. } => Some(*number),
            Self::Comment { comment, .. } => Some(comment.issue),
            Self::Push(_) | Self::Status { .. } => None,
        }
    }
}
