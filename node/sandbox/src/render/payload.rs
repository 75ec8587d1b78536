//! Webhook payloads.

use serde_json::{Value, json};

use super::{Render, extend, time};
use crate::forge::{
    CommentAction, Commit, Event, Happening, IssueAction, PullAction, Push, Refusal, Repo, Status,
};
use crate::git::ZERO;

/// Branches listed in a status event, as GitHub cuts it.
const MAX_BRANCHES: usize = 10;

impl Render<'_> {
    /// The body of the webhook that tells `event`, from the state right after it.
    pub(crate) fn payload(&self, event: &Event) -> Result<Value, Refusal> {
        let repo = self.forge.repo(&event.repo)?;
        let mut body = match &event.what {
            Happening::PullRequest { number, action } => self.pull_event(repo, *number, action)?,
            Happening::Issue { number, action } => self.issue_told(repo, *number, action)?,
            Happening::Comment { comment, action } => {
                let (_, issue) = self.forge.issue(&event.repo, comment.issue)?;
                let mut body = json!({
                    "action": event.what.action(),
                    "issue": self.issue(repo, issue),
                    "comment": self.comment(repo, comment),
                });
                if let CommentAction::Edited { from } = action {
                    body["changes"] = json!({"body": {"from": from}});
                }
                body
            }
            Happening::Review { number, review, .. } => {
                let (_, issue, pull) = self.forge.pull(&event.repo, *number)?;
                let mut shown = self.review(repo, *number, review);
                // Payloads, unlike REST answers, write the state in lower case.
                shown["state"] = json!(review.state.as_str().to_lowercase());
                shown["updated_at"] = shown["submitted_at"].clone();
                json!({
                    "action": event.what.action(),
                    "review": shown,
                    "pull_request": self.pull_simple(repo, issue, pull),
                })
            }
            Happening::ReviewComment {
                number,
                comment,
                edited,
            } => {
                let (_, issue, pull) = self.forge.pull(&event.repo, *number)?;
                let comment = pull
                    .review_comments
                    .iter()
                    .find(|c| c.id == *comment)
                    .ok_or_else(Refusal::not_found)?;
                let mut body = json!({
                    "action": event.what.action(),
                    "comment": self.review_comment(repo, *number, comment),
                    "pull_request": self.pull_simple(repo, issue, pull),
                });
                if let Some(from) = edited {
                    body["changes"] = json!({"body": {"from": from}});
                }
                body
            }
            Happening::Push(push) => self.push_event(repo, push, &event.actor),
            Happening::Status { status, commit } => self.status_event(repo, status, commit),
        };
        let repository = if matches!(event.what, Happening::Push(_)) {
            self.push_repository(repo)
        } else {
            self.repo(repo)
        };
        body["repository"] = repository;
        if let Some(organization) = self.organization(&repo.name.owner) {
            body["organization"] = organization;
        }
        body["sender"] = self.user(&event.actor);
        Ok(body)
    }

    fn pull_event(&self, repo: &Repo, number: u64, action: &PullAction) -> Result<Value, Refusal> {
        let (_, issue, pull) = self.forge.pull(&repo.name, number)?;
        let mut body = json!({
            "action": action.name(),
            "number": number,
            "pull_request": self.pull(repo, issue, pull),
        });
        match action {
            PullAction::Synchronize { before, after } => {
                body["before"] = json!(before);
                body["after"] = json!(after);
            }
            PullAction::Edited { changes } => body["changes"] = changes.clone(),
            PullAction::Labeled(label) | PullAction::Unlabeled(label) => {
                body["label"] = self.label(&repo.name, label);
            }
            PullAction::Assigned(login) | PullAction::Unassigned(login) => {
                body["assignee"] = self.user(login);
            }
            PullAction::ReviewRequested(login) | PullAction::ReviewRequestRemoved(login) => {
                body["requested_reviewer"] = self.user(login);
            }
            PullAction::TeamReviewRequested(slug) | PullAction::TeamReviewRequestRemoved(slug) => {
                let account = self.forge.account(&repo.name.owner)?;
                let team = self.forge.org(&repo.name.owner)?.teams.get(slug);
                let team = team.ok_or_else(Refusal::not_found)?;
                body["requested_team"] = self.team(account, team);
            }
            PullAction::Milestoned(milestone) | PullAction::Demilestoned(milestone) => {
                body["milestone"] = self.milestone(repo, milestone);
            }
            PullAction::Opened
            | PullAction::Reopened
            | PullAction::Closed
            | PullAction::ReadyForReview
            | PullAction::ConvertedToDraft => {}
        }
        Ok(body)
    }

    fn issue_told(&self, repo: &Repo, number: u64, action: &IssueAction) -> Result<Value, Refusal> {
        if let IssueAction::Transferred { issue, to, number } = action {
            let (target, moved) = self.forge.issue(to, *number)?;
            return Ok(json!({
                "action": action.name(),
                "issue": self.issue(repo, issue),
                "changes": {
                    "new_issue": self.issue(target, moved),
                    "new_repository": self.repo(target),
                },
            }));
        }
        let (_, issue) = self.forge.issue(&repo.name, number)?;
        let mut body = json!({"action": action.name(), "issue": self.issue(repo, issue)});
        match action {
            IssueAction::Arrived { from, issue } => {
                let from = self.forge.repo(from)?;
                body["changes"] = json!({
                    "old_issue": self.issue(from, issue),
                    "old_repository": self.repo(from),
                });
            }
            IssueAction::Milestoned(milestone) | IssueAction::Demilestoned(milestone) => {
                body["milestone"] = self.milestone(repo, milestone);
            }
            IssueAction::Edited { changes } => body["changes"] = changes.clone(),
            IssueAction::Labeled(label) | IssueAction::Unlabeled(label) => {
                body["label"] = self.label(&repo.name, label);
            }
            IssueAction::Assigned(login) | IssueAction::Unassigned(login) => {
                body["assignee"] = self.user(login);
            }
            IssueAction::Opened
            | IssueAction::Reopened
            | IssueAction::Closed
            | IssueAction::Pinned
            | IssueAction::Unpinned
            | IssueAction::Transferred { .. } => {}
        }
        Ok(body)
    }

    fn push_event(&self, repo: &Repo, push: &Push, pusher: &str) -> Value {
        let html = self.html_url(&repo.name);
        let short = |sha: &str| sha.chars().take(12).collect::<String>();
        let compare = if push.before == ZERO {
            format!("{html}/compare/{}", push.branch)
        } else {
            format!(
                "{html}/compare/{}...{}",
                short(&push.before),
                short(&push.after)
            )
        };
        let commits: Vec<Value> = push
            .commits
            .iter()
            .map(|commit| self.pushed_commit(&repo.name, commit))
            .collect();
        let head = push
            .head
            .as_ref()
            .map_or(Value::Null, |head| self.pushed_commit(&repo.name, head));
        let email = self.forge.account(pusher).map_or("", |a| a.email.as_str());
        json!({
            "ref": format!("refs/{}/{}", if push.is_tag { "tags" } else { "heads" }, push.branch),
            "before": push.before,
            "after": push.after,
            "pusher": {"name": pusher, "email": email},
            "created": push.before == ZERO,
            "deleted": push.after == ZERO,
            "forced": push.forced,
            "base_ref": null,
            "compare": compare,
            "commits": commits,
            "head_commit": head,
        })
    }

    /// In push payloads a repository's times are numbers and its owner has a name.
    fn push_repository(&self, repo: &Repo) -> Value {
        let mut value = self.repo(repo);
        let owner = self.forge.account(&repo.name.owner);
        value["owner"]["name"] = json!(repo.name.owner);
        value["owner"]["email"] = owner.map_or(Value::Null, |a| json!(a.email));
        let more = json!({
            "created_at": repo.created_at.as_second(),
            "pushed_at": repo.pushed_at.as_second(),
            "url": self.html_url(&repo.name),
            "stargazers": 0,
            "master_branch": repo.default_branch,
        });
        extend(&mut value, more);
        if self.forge.is_org(&repo.name.owner) {
            value["organization"] = json!(repo.name.owner);
        }
        value
    }

    fn status_event(&self, repo: &Repo, status: &Status, commit: &Commit) -> Value {
        let repo_url = self.repo_url(&repo.name);
        let tips = repo.branches.iter().filter(|(_, tip)| **tip == status.sha);
        let branches: Vec<Value> = tips
            .take(MAX_BRANCHES)
            .map(|(name, sha)| {
                let commit = json!({"sha": sha, "url": format!("{repo_url}/commits/{sha}")});
                json!({"name": name, "commit": commit, "protected": repo.required_contexts.contains_key(name)})
            })
            .collect();
        json!({
            "id": status.id,
            "sha": status.sha,
            "name": repo.name.to_string(),
            "target_url": status.target_url,
            "avatar_url": format!("{}/avatars/{}", self.base, status.creator),
            "context": status.context,
            "description": status.description,
            "state": status.state.as_str(),
            "commit": self.commit(&repo.name, commit),
            "branches": branches,
            "created_at": time(status.created_at),
            "updated_at": time(status.updated_at),
        })
    }
}
