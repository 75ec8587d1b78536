//! The payloads as they come, and what they mean.

use serde::Deserialize;

use super::{
    Changes, IssueCommentEvent, IssueEvent, PullRequestAction, PullRequestEvent, PushEvent,
    PushedCommit, ReviewCommentEvent, ReviewEvent, StatusEvent,
};
use crate::github::wire::{
    WireComment, WireIssue, WireLabel, WirePullRequest, WireRepo, WireReview, WireReviewComment,
    WireTeam, WireUser, nullable, status_state, user,
};
use crate::types::CommitStatus;

#[derive(Deserialize)]
pub(super) struct WirePullRequestEvent {
    action: PullRequestAction,
    pull_request: WirePullRequest,
    repository: WireRepo,
    #[serde(default)]
    label: Option<WireLabel>,
    #[serde(default)]
    sender: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    changes: WireChanges,
    #[serde(default)]
    requested_reviewer: Option<WireUser>,
    #[serde(default)]
    requested_team: Option<WireTeam>,
    #[serde(default)]
    before: Option<String>,
}

#[derive(Default, Deserialize)]
pub(super) struct WireChanges {
    #[serde(default)]
    title: Option<WireFrom>,
    #[serde(default)]
    body: Option<WireFrom>,
    #[serde(default)]
    base: Option<WireBaseChange>,
}

#[derive(Deserialize)]
pub(super) struct WireFrom {
    #[serde(default, deserialize_with = "nullable")]
    from: String,
}

#[derive(Deserialize)]
pub(super) struct WireBaseChange {
    #[serde(rename = "ref", default)]
    branch: Option<WireFrom>,
    #[serde(default)]
    sha: Option<WireFrom>,
}

impl From<WireChanges> for Changes {
    fn from(wire: WireChanges) -> Self {
        let (base_branch, base_sha) = wire
            .base
            .map_or((None, None), |base| (base.branch, base.sha));
        let from = |change: Option<WireFrom>| change.map(|change| change.from);
        Self {
            title: from(wire.title),
            body: from(wire.body),
            base_branch: from(base_branch),
            base_sha: from(base_sha),
        }
    }
}

impl From<WirePullRequestEvent> for PullRequestEvent {
    fn from(wire: WirePullRequestEvent) -> Self {
        Self {
            action: wire.action,
            pull_request: wire.pull_request.into_pull_request(&wire.repository.id()),
            repository: wire.repository.into(),
            label: wire.label.map(Into::into),
            sender: user(wire.sender),
            changes: wire.changes.into(),
            requested_reviewer: wire.requested_reviewer.map(|asked| user(Some(asked))),
            requested_team: wire.requested_team.map(|team| team.slug),
            before: wire.before,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireIssueEvent {
    action: String,
    issue: WireIssue,
    repository: WireRepo,
    #[serde(default)]
    label: Option<WireLabel>,
    #[serde(default)]
    sender: Option<WireUser>,
    #[serde(default, deserialize_with = "nullable")]
    changes: WireChanges,
}

impl From<WireIssueEvent> for IssueEvent {
    fn from(wire: WireIssueEvent) -> Self {
        Self {
            action: wire.action,
            issue: wire.issue.into_issue(&wire.repository.id()),
            repository: wire.repository.into(),
            label: wire.label.map(Into::into),
            sender: user(wire.sender),
            changes: wire.changes.into(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireIssueCommentEvent {
    action: String,
    issue: WireIssue,
    comment: WireComment,
    repository: WireRepo,
    #[serde(default)]
    sender: Option<WireUser>,
}

impl From<WireIssueCommentEvent> for IssueCommentEvent {
    fn from(wire: WireIssueCommentEvent) -> Self {
        Self {
            action: wire.action,
            issue: wire.issue.into_issue(&wire.repository.id()),
            comment: wire.comment.into(),
            repository: wire.repository.into(),
            sender: user(wire.sender),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireReviewEvent {
    action: String,
    pull_request: WirePullRequest,
    review: WireReview,
    repository: WireRepo,
    #[serde(default)]
    sender: Option<WireUser>,
}

impl From<WireReviewEvent> for ReviewEvent {
    fn from(wire: WireReviewEvent) -> Self {
        Self {
            action: wire.action,
            pull_request: wire.pull_request.into_pull_request(&wire.repository.id()),
            review: wire.review.into(),
            repository: wire.repository.into(),
            sender: user(wire.sender),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireReviewCommentEvent {
    action: String,
    pull_request: WirePullRequest,
    comment: WireReviewComment,
    repository: WireRepo,
    #[serde(default)]
    sender: Option<WireUser>,
}

impl From<WireReviewCommentEvent> for ReviewCommentEvent {
    fn from(wire: WireReviewCommentEvent) -> Self {
        Self {
            action: wire.action,
            pull_request: wire.pull_request.into_pull_request(&wire.repository.id()),
            comment: wire.comment.into(),
            repository: wire.repository.into(),
            sender: user(wire.sender),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WirePushEvent {
    #[serde(rename = "ref")]
    git_ref: String,
    before: String,
    after: String,
    #[serde(default, deserialize_with = "nullable")]
    created: bool,
    #[serde(default, deserialize_with = "nullable")]
    deleted: bool,
    #[serde(default, deserialize_with = "nullable")]
    forced: bool,
    #[serde(default, deserialize_with = "nullable")]
    compare: String,
    #[serde(default, deserialize_with = "nullable")]
    commits: Vec<PushedCommit>,
    #[serde(default)]
    head_commit: Option<PushedCommit>,
    #[serde(default)]
    pusher: Option<WireUser>,
    #[serde(default)]
    sender: Option<WireUser>,
    repository: WireRepo,
}

impl From<WirePushEvent> for PushEvent {
    fn from(wire: WirePushEvent) -> Self {
        Self {
            git_ref: wire.git_ref,
            before: wire.before,
            after: wire.after,
            created: wire.created,
            deleted: wire.deleted,
            forced: wire.forced,
            compare_url: wire.compare,
            commits: wire.commits,
            head_commit: wire.head_commit,
            pusher: wire.pusher.map(|pusher| pusher.name).unwrap_or_default(),
            sender: user(wire.sender),
            repository: wire.repository.into(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireStatusEvent {
    #[serde(default, deserialize_with = "nullable")]
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    branches: Vec<WireBranch>,
    sha: String,
    state: String,
    context: String,
    #[serde(default, deserialize_with = "nullable")]
    description: String,
    #[serde(default, deserialize_with = "nullable")]
    target_url: String,
    repository: WireRepo,
    #[serde(default)]
    sender: Option<WireUser>,
}

#[derive(Deserialize)]
struct WireBranch {
    #[serde(default, deserialize_with = "nullable")]
    name: String,
}

impl From<WireStatusEvent> for StatusEvent {
    fn from(wire: WireStatusEvent) -> Self {
        Self {
            id: wire.id,
            branches: wire
                .branches
                .into_iter()
                .map(|branch| branch.name)
                .collect(),
            sha: wire.sha,
            status: CommitStatus {
                context: wire.context,
                state: status_state(&wire.state),
                description: wire.description,
                target_url: wire.target_url,
            },
            repository: wire.repository.into(),
            sender: user(wire.sender),
        }
    }
}
