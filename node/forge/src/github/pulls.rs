//! Pull requests, their reviews, reviewers and merging.

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::wire::{
    WireCommit, WireFile, WirePullRequest, WireReview, WireReviewComment, WireSha, WireTeam,
    WireUser,
};
use super::{GitHub, at, segment};
use crate::drafts::{NewPullRequest, NewReview};
use crate::error::{ForgeError, Result};
use crate::forge::{Merges, PullRequests, Reviewers};
use crate::merge::{MergeError, MergeRefused, MergeRequest, Merged, Refusal};
use crate::mergeable::{FIRST_WAIT, Mergeability, mergeability};
use crate::types::{ChangedFile, Commit, PullRequest, RepoId, Review, ReviewComment, norm_login};

fn of(repo: &RepoId) -> Behalf<'_> {
    Behalf::Org(&repo.org)
}

#[async_trait]
impl PullRequests for GitHub {
    async fn pull_request(&self, repo: &RepoId, number: u64) -> Result<PullRequest> {
        let call = Call::read_new(at(repo, &format!("/pulls/{number}")), of(repo));
        let wire: WirePullRequest = self.client.json(&call).await?;
        Ok(wire.into_pull_request(repo))
    }

    async fn mergeability(
        &self,
        repo: &RepoId,
        number: u64,
        head_sha: &str,
    ) -> Result<Mergeability> {
        // What was told before the wait is no answer after it, however new it is for the event.
        let anew = Self {
            client: self.client.anew(),
        };
        let mut handles = std::iter::once(self).chain(std::iter::repeat(&anew));
        mergeability(head_sha, FIRST_WAIT, || {
            let forge = handles.next().unwrap_or(&anew);
            forge.pull_request(repo, number)
        })
        .await
    }

    async fn open_pull_requests(&self, repo: &RepoId) -> Result<Vec<PullRequest>> {
        let call = Call::read(at(repo, "/pulls?state=open"), of(repo));
        let wire: Vec<WirePullRequest> = self.client.all(call).await?;
        Ok(wire
            .into_iter()
            .map(|wire| wire.into_pull_request(repo))
            .collect())
    }

    async fn changed_files(&self, repo: &RepoId, number: u64) -> Result<Vec<ChangedFile>> {
        let call = Call::read_new(at(repo, &format!("/pulls/{number}/files")), of(repo));
        let wire: Vec<WireFile> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn pull_request_commits(&self, repo: &RepoId, number: u64) -> Result<Vec<Commit>> {
        let call = Call::read_new(at(repo, &format!("/pulls/{number}/commits")), of(repo));
        let wire: Vec<WireCommit> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn reviews(&self, repo: &RepoId, number: u64) -> Result<Vec<Review>> {
        let call = Call::read_new(at(repo, &format!("/pulls/{number}/reviews")), of(repo));
        let wire: Vec<WireReview> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn review_comments(&self, repo: &RepoId, number: u64) -> Result<Vec<ReviewComment>> {
        let call = Call::read_new(at(repo, &format!("/pulls/{number}/comments")), of(repo));
        let wire: Vec<WireReviewComment> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn close_pull_request(&self, repo: &RepoId, number: u64) -> Result<()> {
        self.set_pull_request_state(repo, number, "closed").await
    }

    async fn reopen_pull_request(&self, repo: &RepoId, number: u64) -> Result<()> {
        self.set_pull_request_state(repo, number, "open").await
    }

    async fn create_pull_request(
        &self,
        repo: &RepoId,
        new: &NewPullRequest,
    ) -> Result<PullRequest> {
        let call = Call::change(
            Method::POST,
            at(repo, "/pulls"),
            of(repo),
            Effect::Once,
            Some(&json!({
                "title": new.title,
                "head": new.head,
                "base": new.base,
                "body": new.body,
                "maintainer_can_modify": new.maintainer_can_modify,
            })),
        );
        let wire: WirePullRequest = self.client.json(&call).await?;
        Ok(wire.into_pull_request(repo))
    }

    async fn pull_requests_from(
        &self,
        repo: &RepoId,
        owner: &str,
        branch: &str,
    ) -> Result<Vec<PullRequest>> {
        let head = segment(&format!("{owner}:{branch}"));
        let call = Call::read(at(repo, &format!("/pulls?state=all&head={head}")), of(repo));
        let wire: Vec<WirePullRequest> = self.client.all(call).await?;
        Ok(wire
            .into_iter()
            .map(|wire| wire.into_pull_request(repo))
            .collect())
    }

    async fn create_review(&self, repo: &RepoId, number: u64, new: &NewReview) -> Result<Review> {
        let comments = new.comments.iter().map(|comment| {
            json!({ "path": comment.path, "position": comment.position, "body": comment.body })
        });
        let call = Call::change(
            Method::POST,
            at(repo, &format!("/pulls/{number}/reviews")),
            of(repo),
            Effect::Once,
            Some(&json!({
                "event": "COMMENT",
                "commit_id": new.commit_sha,
                "body": new.body,
                "comments": comments.collect::<Vec<_>>(),
            })),
        );
        let wire: WireReview = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn edit_review_comment(
        &self,
        repo: &RepoId,
        id: u64,
        body: &str,
    ) -> Result<ReviewComment> {
        let call = Call::change(
            Method::PATCH,
            at(repo, &format!("/pulls/comments/{id}")),
            of(repo),
            Effect::Idempotent,
            Some(&json!({ "body": body })),
        );
        let wire: WireReviewComment = self.client.json(&call).await?;
        Ok(wire.into())
    }
}

impl GitHub {
    async fn set_pull_request_state(&self, repo: &RepoId, number: u64, state: &str) -> Result<()> {
        let call = Call::change(
            Method::PATCH,
            at(repo, &format!("/pulls/{number}")),
            of(repo),
            Effect::Idempotent,
            Some(&json!({ "state": state })),
        );
        self.client.call(&call).await.map(|_| ())
    }
}

#[async_trait]
impl Merges for GitHub {
    async fn merge(
        &self,
        repo: &RepoId,
        number: u64,
        request: &MergeRequest,
    ) -> std::result::Result<Merged, MergeError> {
        let mut body = json!({
            "sha": request.expected_head_sha,
            "merge_method": request.method.as_str(),
        });
        if let Some(title) = &request.title {
            body["commit_title"] = json!(title);
        }
        if let Some(message) = &request.message {
            body["commit_message"] = json!(message);
        }
        let call = Call::change(
            Method::PUT,
            at(repo, &format!("/pulls/{number}/merge")),
            of(repo),
            Effect::Once,
            Some(&body),
        );
        match self.client.json::<WireSha>(&call).await {
            Ok(merged) => Ok(Merged { sha: merged.sha }),
            Err(ForgeError::Refused {
                status: status @ (405 | 409),
                message,
                ..
            }) => Err(MergeRefused {
                kind: refusal(status, &message),
                message,
            }
            .into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Told apart by GitHub's sentences, as Prow does.
fn refusal(status: u16, message: &str) -> Refusal {
    if status == 409 {
        Refusal::ModifiedHead
    } else if message.contains("Base branch was modified") {
        Refusal::BaseChanged
    } else if message.contains("You're not authorized to push to this branch") {
        Refusal::UnauthorizedToPush
    } else if message.contains("Merge commits are not allowed on this repository") {
        Refusal::MergeCommitsForbidden
    } else {
        Refusal::Unmergeable
    }
}

#[derive(Deserialize)]
struct WireRequested {
    #[serde(default)]
    requested_reviewers: Vec<WireUser>,
    #[serde(default)]
    requested_teams: Vec<WireTeam>,
}

impl WireRequested {
    /// Those of `logins` that are still asked for, spelled as there.
    fn left<'l>(&self, repo: &RepoId, logins: &[&'l str]) -> Vec<&'l str> {
        let users = self.requested_reviewers.iter();
        let mut asked: Vec<String> = users.map(|user| norm_login(&user.login)).collect();
        let teams = self.requested_teams.iter();
        asked.extend(teams.map(|team| norm_login(&format!("{}/{}", repo.org, team.slug))));
        let gone = logins.iter().copied();
        gone.filter(|login| asked.contains(&norm_login(login)))
            .collect()
    }
}

#[async_trait]
impl Reviewers for GitHub {
    async fn request_review(
        &self,
        repo: &RepoId,
        number: u64,
        logins: &[&str],
    ) -> Result<Vec<String>> {
        if logins.is_empty() {
            return Ok(Vec::new());
        }
        match self.try_request_review(repo, number, logins).await {
            // One login that cannot review makes GitHub refuse them all, without saying which.
            Err(ForgeError::Refused { status: 422, .. }) => {}
            outcome => return outcome.map(|()| Vec::new()),
        }
        let mut missing = Vec::new();
        for login in logins {
            match self.try_request_review(repo, number, &[login]).await {
                Ok(()) => {}
                Err(ForgeError::Refused { status: 422, .. }) => missing.push((*login).to_owned()),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    async fn unrequest_review(
        &self,
        repo: &RepoId,
        number: u64,
        logins: &[&str],
    ) -> Result<Vec<String>> {
        let Some(body) =
            reviewers_body(repo, logins).or_else(|| reviewers_body(repo, &own(repo, logins)))
        else {
            return Ok(Vec::new());
        };
        let call = Call::change(
            Method::DELETE,
            at(repo, &format!("/pulls/{number}/requested_reviewers")),
            of(repo),
            Effect::Idempotent,
            Some(&body),
        );
        let answer: WireRequested = self.client.json(&call).await?;
        let left = answer.left(repo, logins);
        Ok(left.into_iter().map(str::to_owned).collect())
    }
}

impl GitHub {
    async fn try_request_review(&self, repo: &RepoId, number: u64, logins: &[&str]) -> Result<()> {
        let path = at(repo, &format!("/pulls/{number}/requested_reviewers"));
        let Some(body) = reviewers_body(repo, logins) else {
            return Err(ForgeError::Refused {
                request: format!("POST {path}"),
                status: 422,
                message: format!(
                    "a team of another organisation than {} cannot review",
                    repo.org
                ),
                errors: Vec::new(),
            });
        };
        let call = Call::change(
            Method::POST,
            path,
            of(repo),
            Effect::Idempotent,
            Some(&body),
        );
        self.client.call(&call).await.map(|_| ())
    }
}

/// Logins without teams of other organisations.
fn own<'a>(repo: &RepoId, logins: &[&'a str]) -> Vec<&'a str> {
    logins
        .iter()
        .copied()
        .filter(|login| login.split_once('/').is_none_or(|(org, _)| org == repo.org))
        .collect()
}

/// `org/team` goes among the teams; `None` if there is nobody, or a team of another organisation.
fn reviewers_body(repo: &RepoId, logins: &[&str]) -> Option<serde_json::Value> {
    let (mut users, mut teams) = (Vec::new(), Vec::new());
    for login in logins {
        match login.split_once('/') {
            None => users.push(*login),
            Some((org, team)) if org == repo.org => teams.push(team),
            Some(_) => return None,
        }
    }
    let mut body = serde_json::Map::new();
    if !users.is_empty() {
        body.insert("reviewers".to_owned(), json!(users));
    }
    if !teams.is_empty() {
        body.insert("team_reviewers".to_owned(), json!(teams));
    }
    (!body.is_empty()).then(|| body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GHC-016
    #[test]
    fn refusals_are_told_apart_by_githubs_sentences() {
        let kind = |message: &str| refusal(405, message);
        assert_eq!(
            refusal(409, "Head branch was modified."),
            Refusal::ModifiedHead
        );
        assert_eq!(
            kind("Base branch was modified. Review and try the merge again."),
            Refusal::BaseChanged
        );
        assert_eq!(
            kind("You're not authorized to push to this branch. Visit …"),
            Refusal::UnauthorizedToPush
        );
        assert_eq!(
            kind("Merge commits are not allowed on this repository."),
            Refusal::MergeCommitsForbidden
        );
        assert_eq!(
            kind("Squash merges are not allowed on this repository."),
            Refusal::Unmergeable
        );
        assert_eq!(kind("Pull Request is not mergeable"), Refusal::Unmergeable);
    }

    #[test]
    fn reviewers_are_users_and_teams_of_the_organisation() {
        let repo = RepoId::new("org", "repo");
        assert_eq!(
            reviewers_body(&repo, &["a", "org/t", "b"]),
            Some(json!({"reviewers": ["a", "b"], "team_reviewers": ["t"]}))
        );
        assert_eq!(reviewers_body(&repo, &["a", "other/t"]), None);
        assert_eq!(reviewers_body(&repo, &[]), None);
        assert_eq!(own(&repo, &["a", "other/t", "org/t"]), ["a", "org/t"]);
    }
}
