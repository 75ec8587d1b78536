//! Reviews of pull requests, with comments on lines, and what they amount to.

use jiff::Timestamp;

use super::issues::check_text;
use super::{
    Forge, Happening, Id, Permission, Refusal, RepoName, Review, ReviewComment, ReviewState,
};

/// A review to submit.
#[derive(Debug, Clone)]
pub struct NewReview {
    pub state: ReviewState,
    pub body: String,
    /// The commit it is about; none is the head.
    pub commit: Option<String>,
    pub comments: Vec<LineComment>,
}

/// A comment on a line of the diff.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineComment {
    pub path: String,
    /// Line of the file as the head has it.
    pub line: u64,
    /// Lines below the first `@@` of the file's patch.
    pub position: u64,
    pub diff_hunk: String,
    pub body: String,
}

impl Forge {
    /// Submits a review and gives its id.
    ///
    /// # Errors
    /// 404; 422 for approving one's own pull request, saying nothing, or a commit that is not of the pull request.
    pub fn review(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        new: NewReview,
    ) -> Result<Id, Refusal> {
        self.require(repo, Some(actor), Permission::Read)?;
        check_text("PullRequestReview", None, Some(&new.body))?;
        let state = new.state;
        let (_, issue, pull) = self.pull(repo, number)?;
        let own = issue.author.eq_ignore_ascii_case(actor);
        if own && matches!(state, ReviewState::Approved | ReviewState::ChangesRequested) {
            return Err(Refusal::unprocessable(if state == ReviewState::Approved {
                "Can not approve your own pull request"
            } else {
                "Can not request changes on your own pull request"
            }));
        }
        let says_nothing = new.body.trim().is_empty() && new.comments.is_empty();
        if says_nothing && state == ReviewState::Commented {
            return Err(Refusal::unprocessable(
                "Review body can't be blank and must have at least one comment",
            ));
        }
        let commit = match new.commit {
            None => pull.head_sha.clone(),
            Some(sha) if pull.head.commits.iter().any(|commit| commit.sha == sha) => sha,
            Some(_) => {
                return Err(Refusal::unprocessable(
                    "The commit_id is not part of the pull request",
                ));
            }
        };
        let author = self.account(actor)?.login.clone();
        let id = self.next_id();
        let review = Review {
            id,
            author: author.clone(),
            state,
            body: new.body,
            commit: commit.clone(),
            submitted_at: now,
        };
        let mut inline = Vec::new();
        for comment in new.comments {
            inline.push(ReviewComment {
                id: self.next_id(),
                review: id,
                author: author.clone(),
                path: comment.path,
                line: comment.line,
                position: comment.position,
                diff_hunk: comment.diff_hunk,
                commit: commit.clone(),
                body: comment.body,
                in_reply_to: None,
                created_at: now,
                updated_at: now,
            });
        }
        let pull = self.pull_mut(repo, number)?;
        pull.reviews.push(review.clone());
        pull.review_comments.extend(inline.iter().cloned());
        pull.requested_reviewers
            .retain(|r| !r.eq_ignore_ascii_case(actor));
        self.issue_mut(repo, number)?.updated_at = now;
        let what = Happening::Review {
            number,
            review,
            dismissed: false,
        };
        self.emit(now, actor, repo, what);
        for comment in inline {
            let what = Happening::ReviewComment {
                number,
                comment: comment.id,
                edited: None,
            };
            self.emit(now, actor, repo, what);
        }
        Ok(id)
    }

    /// Changes the text of a comment on a line; gives the pull request's number.
    ///
    /// # Errors
    /// 403 for who is neither the author nor a writer, 404, 422 for a blank or too long text.
    pub fn edit_review_comment(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        id: Id,
        body: &str,
    ) -> Result<u64, Refusal> {
        let issues = self.repo(repo)?.issues.values();
        let (number, author) = issues
            .filter_map(|issue| Some((issue.number, issue.pull.as_ref()?)))
            .find_map(|(number, pull)| {
                let comment = pull.review_comments.iter().find(|c| c.id == id)?;
                Some((number, comment.author.clone()))
            })
            .ok_or_else(Refusal::not_found)?;
        if !author.eq_ignore_ascii_case(actor) {
            self.require(repo, Some(actor), Permission::Write)?;
        }
        if body.trim().is_empty() {
            return Err(Refusal::validation_custom(
                "PullRequestReviewComment",
                "Body can't be blank",
            ));
        }
        check_text("PullRequestReviewComment", None, Some(body))?;
        let pull = self.pull_mut(repo, number)?;
        let comment = pull.review_comments.iter_mut().find(|c| c.id == id);
        let comment = comment.ok_or_else(Refusal::not_found)?;
        let from = std::mem::replace(&mut comment.body, body.to_owned());
        comment.updated_at = now;
        let what = Happening::ReviewComment {
            number,
            comment: id,
            edited: Some(from),
        };
        self.emit(now, actor, repo, what);
        Ok(number)
    }

    /// Withdraws a review's weight.
    ///
    /// # Errors
    /// 403, 404.
    pub fn dismiss_review(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        number: u64,
        review: Id,
    ) -> Result<(), Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        let pull = self.pull_mut(repo, number)?;
        let record = pull
            .reviews
            .iter_mut()
            .find(|r| r.id == review)
            .ok_or_else(Refusal::not_found)?;
        record.state = ReviewState::Dismissed;
        let review = record.clone();
        let what = Happening::Review {
            number,
            review,
            dismissed: true,
        };
        self.emit(now, actor, repo, what);
        Ok(())
    }

    /// `reviewDecision`: what the newest weighty review of each reviewer with write access amounts to.
    pub fn review_decision(&self, repo: &RepoName, number: u64) -> Option<&'static str> {
        let (_, _, pull) = self.pull(repo, number).ok()?;
        let mut newest = std::collections::BTreeMap::new();
        for review in &pull.reviews {
            let weighty = matches!(
                review.state,
                ReviewState::Approved | ReviewState::ChangesRequested | ReviewState::Dismissed
            );
            let writer = self.permission(repo, Some(&review.author)).ok()? >= Permission::Write;
            if weighty && writer {
                newest.insert(review.author.to_lowercase(), review.state);
            }
        }
        if newest.values().any(|s| *s == ReviewState::ChangesRequested) {
            Some("CHANGES_REQUESTED")
        } else if newest.values().any(|s| *s == ReviewState::Approved) {
            Some("APPROVED")
        } else {
            None
        }
    }
}
