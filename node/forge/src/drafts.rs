//! What a forge is asked to make: issues, pull requests, reviews, check runs, webhooks. Data only.

use std::fmt;

use crate::types::RepoId;

/// An issue to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewIssue {
    pub title: String,
    pub body: String,
    /// Dropped without a word by GitHub if we may not triage there.
    pub labels: Vec<String>,
    /// Who cannot be assigned makes GitHub refuse the issue.
    pub assignees: Vec<String>,
}

/// What to change of an issue or pull request; `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IssueEdit {
    pub title: Option<String>,
    pub body: Option<String>,
}

/// Why an issue is closed. Pull requests know no reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    Completed,
    NotPlanned,
}

impl CloseReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::NotPlanned => "not_planned",
        }
    }
}

/// An issue as it is called after a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferredIssue {
    pub repo: RepoId,
    pub number: u64,
    pub html_url: String,
}

/// A pull request to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewPullRequest {
    pub title: String,
    /// `owner:branch`, or `branch` of the same repository.
    pub head: String,
    /// The branch to merge into.
    pub base: String,
    pub body: String,
    /// Whether those who may push to the base repository may also push to the head branch.
    pub maintainer_can_modify: bool,
}

/// A review to submit as a comment, neither approving nor requesting changes (GitHub's event `COMMENT`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewReview {
    /// The commit that the positions are meant for; GitHub refuses one that is not of the pull request.
    pub commit_sha: String,
    /// May not be empty.
    pub body: String,
    pub comments: Vec<NewReviewComment>,
}

/// A comment on a line of a diff.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewReviewComment {
    pub path: String,
    /// Lines below the first `@@` of the file's patch, which is 0; further `@@` lines count.
    pub position: u64,
    pub body: String,
}

/// A check run that has ended already. Only GitHub Apps may make one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewCheckRun {
    pub name: String,
    pub head_sha: String,
    /// `success`, `failure`, `neutral`, `skipped`, …
    pub conclusion: String,
    /// Empty for none.
    pub details_url: String,
    pub title: String,
    /// Markdown; GitHub demands one wherever there is a title.
    pub summary: String,
}

/// A sign under a comment, issue or pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reaction {
    ThumbsUp,
    ThumbsDown,
    Laugh,
    Confused,
    Heart,
    Hooray,
    Rocket,
    Eyes,
}

impl Reaction {
    /// GitHub's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ThumbsUp => "+1",
            Self::ThumbsDown => "-1",
            Self::Laugh => "laugh",
            Self::Confused => "confused",
            Self::Heart => "heart",
            Self::Hooray => "hooray",
            Self::Rocket => "rocket",
            Self::Eyes => "eyes",
        }
    }

    /// The reaction that the forge calls so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::ThumbsUp,
            Self::ThumbsDown,
            Self::Laugh,
            Self::Confused,
            Self::Heart,
            Self::Hooray,
            Self::Rocket,
            Self::Eyes,
        ];
        all.into_iter().find(|reaction| reaction.as_str() == name)
    }
}

/// A webhook as it should be. Payloads are always JSON (HOOK-041).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HookSpec {
    pub url: String,
    /// Signs the payloads; `None` leaves them unsigned.
    pub secret: Option<String>,
    /// `*` for all.
    pub events: Vec<String>,
    pub active: bool,
}

impl fmt::Debug for HookSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookSpec")
            .field("url", &self.url)
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("events", &self.events)
            .field("active", &self.active)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhooks_secret_is_not_printed() {
        let spec = HookSpec {
            url: "https://example.com/hook".into(),
            secret: Some("hunter2".into()),
            events: vec!["*".into()],
            active: true,
        };
        insta::assert_snapshot!(
            format!("{spec:?}"),
            @r#"HookSpec { url: "https://example.com/hook", secret: Some("…"), events: ["*"], active: true }"#
        );
    }
}
