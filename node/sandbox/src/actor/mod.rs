//! What a user does on the forge, whichever door they come through: REST, a form, git, or a test. Access is checked
//! by the core; here git and core are moved in step.

mod branches;
mod pulls;

use std::sync::Arc;

use crate::engine::Engine;
use crate::forge::{
    Forge, Id, IssueChange, LineComment, NewIssue, NewReview, NewStatus, Refusal, RepoName,
    ReviewState, Signature, Status,
};
use crate::git::{Git, GitError};

pub use branches::{FileChange, NewCommit};
pub(crate) use pulls::ensure_mergeability;
pub use pulls::{MergeSpec, PullRequestSpec};

/// Name and address under which GitHub itself commits.
const FORGE_NAME: &str = "GitHub";
const FORGE_EMAIL: &str = "noreply@github.com";

/// A signed-in user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Actor {
    pub(crate) engine: Arc<Engine>,
    pub(crate) login: String,
}

impl From<GitError> for Refusal {
    fn from(error: GitError) -> Self {
        tracing::error!(%error, "git failed in the sandbox");
        Self::internal(error.to_string())
    }
}

impl Actor {
    /// Who acts.
    pub fn login(&self) -> &str {
        &self.login
    }

    /// The user's token, for REST, GraphQL and git.
    pub fn token(&self) -> String {
        self.engine.token_for(&self.login)
    }

    fn act<R>(
        &self,
        f: impl FnOnce(&mut Forge, jiff::Timestamp, &str) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.engine.act(|forge, now| f(forge, now, &self.login))
    }

    pub(crate) fn git(&self, repo: &RepoName) -> Git {
        self.engine.git.repo(&repo.owner, &repo.name)
    }

    fn signature(&self, login: &str) -> Signature {
        let at = self.engine.clock.now();
        self.engine.read(|forge| match forge.account(login) {
            Ok(account) => Signature {
                name: account
                    .name
                    .clone()
                    .unwrap_or_else(|| account.login.clone()),
                email: account.email.clone(),
                at,
            },
            Err(_) => forge_signature(at),
        })
    }

    /// Opens an issue and gives its number.
    ///
    /// # Errors
    /// As [`Forge::open_issue`].
    pub fn open_issue(
        &self,
        repo: &RepoName,
        title: &str,
        body: Option<&str>,
        labels: &[String],
    ) -> Result<u64, Refusal> {
        let new = NewIssue {
            title: title.to_owned(),
            body: body.map(str::to_owned),
            labels: labels.to_vec(),
            ..NewIssue::default()
        };
        self.open_issue_as(repo, new)
    }

    /// As [`Actor::open_issue`], with all that it can have.
    ///
    /// # Errors
    /// As [`Forge::open_issue`].
    pub fn open_issue_as(&self, repo: &RepoName, new: NewIssue) -> Result<u64, Refusal> {
        self.act(|forge, now, me| forge.open_issue(now, me, repo, new))
    }

    /// # Errors
    /// As [`Forge::transfer_issue`].
    pub fn transfer_issue(
        &self,
        repo: &RepoName,
        number: u64,
        to: &RepoName,
    ) -> Result<u64, Refusal> {
        self.act(|forge, now, me| forge.transfer_issue(now, me, repo, number, to))
    }

    /// # Errors
    /// As [`Forge::pin_issue`] and [`Forge::unpin_issue`].
    pub fn pin_issue(&self, repo: &RepoName, number: u64, pinned: bool) -> Result<(), Refusal> {
        self.act(|forge, now, me| {
            if pinned {
                forge.pin_issue(now, me, repo, number)
            } else {
                forge.unpin_issue(now, me, repo, number)
            }
        })
    }

    /// # Errors
    /// As [`Forge::set_milestone`].
    pub fn set_milestone(
        &self,
        repo: &RepoName,
        number: u64,
        milestone: Option<u64>,
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.set_milestone(now, me, repo, number, milestone))
    }

    /// # Errors
    /// As [`Forge::edit_review_comment`].
    pub fn edit_review_comment(&self, repo: &RepoName, id: Id, body: &str) -> Result<u64, Refusal> {
        self.act(|forge, now, me| forge.edit_review_comment(now, me, repo, id, body))
    }

    /// Comments and gives the comment's id.
    ///
    /// # Errors
    /// As [`Forge::comment`].
    pub fn comment(&self, repo: &RepoName, number: u64, body: &str) -> Result<Id, Refusal> {
        self.act(|forge, now, me| forge.comment(now, me, repo, number, body))
    }

    /// # Errors
    /// As [`Forge::edit_comment`].
    pub fn edit_comment(&self, repo: &RepoName, id: Id, body: &str) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.edit_comment(now, me, repo, id, body))
    }

    /// # Errors
    /// As [`Forge::delete_comment`].
    pub fn delete_comment(&self, repo: &RepoName, id: Id) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.delete_comment(now, me, repo, id))
    }

    /// # Errors
    /// As [`Forge::edit_issue`].
    pub fn edit_issue(
        &self,
        repo: &RepoName,
        number: u64,
        change: IssueChange,
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.edit_issue(now, me, repo, number, change))
    }

    /// # Errors
    /// As [`Forge::add_labels`].
    pub fn add_labels(
        &self,
        repo: &RepoName,
        number: u64,
        names: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.add_labels(now, me, repo, number, names))
    }

    /// # Errors
    /// As [`Forge::remove_label`].
    pub fn remove_label(&self, repo: &RepoName, number: u64, name: &str) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.remove_label(now, me, repo, number, name))
    }

    /// # Errors
    /// As [`Forge::set_labels`].
    pub fn set_labels(
        &self,
        repo: &RepoName,
        number: u64,
        names: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.set_labels(now, me, repo, number, names))
    }

    /// # Errors
    /// As [`Forge::assign`].
    pub fn assign(&self, repo: &RepoName, number: u64, logins: &[String]) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.assign(now, me, repo, number, logins))
    }

    /// # Errors
    /// As [`Forge::unassign`].
    pub fn unassign(&self, repo: &RepoName, number: u64, logins: &[String]) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.unassign(now, me, repo, number, logins))
    }

    /// # Errors
    /// As [`Forge::request_reviewers`].
    pub fn request_reviewers(
        &self,
        repo: &RepoName,
        number: u64,
        logins: &[String],
    ) -> Result<(), Refusal> {
        self.request_reviews(repo, number, logins, &[])
    }

    /// Also of teams, by slug.
    ///
    /// # Errors
    /// As [`Forge::request_reviewers`].
    pub fn request_reviews(
        &self,
        repo: &RepoName,
        number: u64,
        logins: &[String],
        teams: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.request_reviewers(now, me, repo, number, logins, teams))
    }

    /// # Errors
    /// As [`Forge::unrequest_reviewers`].
    pub fn unrequest_reviewers(
        &self,
        repo: &RepoName,
        number: u64,
        logins: &[String],
    ) -> Result<(), Refusal> {
        self.unrequest_reviews(repo, number, logins, &[])
    }

    /// Also of teams, by slug.
    ///
    /// # Errors
    /// As [`Forge::unrequest_reviewers`].
    pub fn unrequest_reviews(
        &self,
        repo: &RepoName,
        number: u64,
        logins: &[String],
        teams: &[String],
    ) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.unrequest_reviewers(now, me, repo, number, logins, teams))
    }

    /// Submits a review of the head; `comments` are (path, line, text) on new files, where a line is also its position.
    /// Gives its id.
    ///
    /// # Errors
    /// As [`Forge::review`].
    pub fn review(
        &self,
        repo: &RepoName,
        number: u64,
        state: ReviewState,
        body: &str,
        comments: &[(String, u64, String)],
    ) -> Result<Id, Refusal> {
        let comments = comments.iter().map(|(path, line, body)| LineComment {
            path: path.clone(),
            line: *line,
            position: *line,
            diff_hunk: format!("@@ -{line},1 +{line},1 @@"),
            body: body.clone(),
        });
        let new = NewReview {
            state,
            body: body.to_owned(),
            commit: None,
            comments: comments.collect(),
        };
        self.submit_review(repo, number, new)
    }

    /// # Errors
    /// As [`Forge::review`].
    pub fn submit_review(
        &self,
        repo: &RepoName,
        number: u64,
        new: NewReview,
    ) -> Result<Id, Refusal> {
        self.act(|forge, now, me| forge.review(now, me, repo, number, new))
    }

    /// # Errors
    /// As [`Forge::dismiss_review`].
    pub fn dismiss_review(&self, repo: &RepoName, number: u64, review: Id) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.dismiss_review(now, me, repo, number, review))
    }

    /// # Errors
    /// As [`Forge::set_draft`].
    pub fn set_draft(&self, repo: &RepoName, number: u64, draft: bool) -> Result<(), Refusal> {
        self.act(|forge, now, me| forge.set_draft(now, me, repo, number, draft))
    }

    /// Sets a commit status.
    ///
    /// # Errors
    /// As [`Forge::set_status`]; 422 when the repository has no such commit.
    pub async fn set_status(
        &self,
        repo: &RepoName,
        sha: &str,
        new: NewStatus,
    ) -> Result<Status, Refusal> {
        self.engine.read(|forge| forge.repo(repo).map(|_| ()))?;
        let git = self.git(repo);
        let known = git.resolve(sha).await?.filter(|found| found == sha);
        let Some(sha) = known else {
            let message = format!("No commit found for SHA: {sha}");
            return Err(Refusal::invalid(message));
        };
        let commit = git.commit(&sha).await?;
        self.act(|forge, now, me| forge.set_status(now, me, repo, commit, new))
    }
}

fn forge_signature(at: jiff::Timestamp) -> Signature {
    Signature {
        name: FORGE_NAME.into(),
        email: FORGE_EMAIL.into(),
        at,
    }
}
