//! Issues and what pull requests share with them: comments, labels, assignees.

use async_trait::async_trait;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::wire::{WireComment, WireIssue, WireLabel, WireUser, user};
use super::{GitHub, at, segment};
use crate::drafts::{CloseReason, IssueEdit, NewIssue};
use crate::error::{ForgeError, Result};
use crate::forge::{Assignees, Comments, Issues, Labels};
use crate::types::{Change, Issue, IssueComment, Label, RecordedChange, RepoId, norm_login};

fn of(repo: &RepoId) -> Behalf<'_> {
    Behalf::Org(&repo.org)
}

#[async_trait]
impl Issues for GitHub {
    async fn issue(&self, repo: &RepoId, number: u64) -> Result<Issue> {
        let call = Call::read_new(at(repo, &format!("/issues/{number}")), of(repo));
        let wire: WireIssue = self.client.json(&call).await?;
        Ok(wire.into_issue(repo))
    }

    async fn create_issue(&self, repo: &RepoId, new: &NewIssue) -> Result<Issue> {
        let call = Call::change(
            Method::POST,
            at(repo, "/issues"),
            of(repo),
            Effect::Once,
            Some(&json!({
                "title": new.title,
                "body": new.body,
                "labels": new.labels,
                "assignees": new.assignees,
            })),
        );
        let wire: WireIssue = self.client.json(&call).await?;
        Ok(wire.into_issue(repo))
    }

    async fn edit_issue(&self, repo: &RepoId, number: u64, edit: &IssueEdit) -> Result<Issue> {
        let mut body = json!({});
        if let Some(title) = &edit.title {
            body["title"] = json!(title);
        }
        if let Some(text) = &edit.body {
            body["body"] = json!(text);
        }
        let wire: WireIssue = self.client.json(&change_issue(repo, number, &body)).await?;
        Ok(wire.into_issue(repo))
    }

    async fn close_issue(&self, repo: &RepoId, number: u64) -> Result<()> {
        self.patch_issue(repo, number, &json!({ "state": "closed" }))
            .await
    }

    async fn close_issue_as(&self, repo: &RepoId, number: u64, reason: CloseReason) -> Result<()> {
        let body = json!({ "state": "closed", "state_reason": reason.as_str() });
        self.patch_issue(repo, number, &body).await
    }

    async fn reopen_issue(&self, repo: &RepoId, number: u64) -> Result<()> {
        self.patch_issue(repo, number, &json!({ "state": "open" }))
            .await
    }

    async fn record(&self, repo: &RepoId, number: u64) -> Result<Vec<RecordedChange>> {
        let call = Call::read_new(at(repo, &format!("/issues/{number}/events")), of(repo));
        let wire: Vec<WireRecordedChange> = self.client.all(call).await?;
        let known = wire.into_iter().filter_map(WireRecordedChange::known);
        Ok(known.collect())
    }
}

#[derive(Debug, Deserialize)]
struct WireRecordedChange {
    #[serde(default)]
    event: String,
    actor: Option<WireUser>,
    created_at: Timestamp,
    label: Option<WireLabel>,
    assignee: Option<WireUser>,
    assigner: Option<WireUser>,
    requested_reviewer: Option<WireUser>,
    review_requester: Option<WireUser>,
    rename: Option<WireRename>,
    milestone: Option<WireTitle>,
}

#[derive(Debug, Deserialize)]
struct WireRename {
    #[serde(default)]
    to: String,
}

#[derive(Debug, Deserialize)]
struct WireTitle {
    #[serde(default)]
    title: String,
}

impl WireRecordedChange {
    /// None for what we do not tell apart: mentions, locks, projects, teams whose review is asked for, …
    fn known(self) -> Option<RecordedChange> {
        let change = match self.event.as_str() {
            "labeled" => Change::Labeled(self.label?.name),
            "unlabeled" => Change::Unlabeled(self.label?.name),
            "assigned" => Change::Assigned(self.assignee?.login),
            "unassigned" => Change::Unassigned(self.assignee?.login),
            "review_requested" => Change::ReviewRequested(self.requested_reviewer?.login),
            "review_request_removed" => {
                Change::ReviewRequestRemoved(self.requested_reviewer?.login)
            }
            "renamed" => Change::Renamed(self.rename?.to),
            "milestoned" => Change::Milestoned(self.milestone?.title),
            "demilestoned" => Change::Demilestoned(self.milestone?.title),
            "closed" => Change::Closed,
            "reopened" => Change::Reopened,
            "pinned" => Change::Pinned,
            "unpinned" => Change::Unpinned,
            _ => return None,
        };
        // Of some old events `actor` is who was assigned.
        let by = self.assigner.or(self.review_requester).or(self.actor);
        Some(RecordedChange {
            change,
            actor: user(by),
            at: self.created_at,
        })
    }
}

fn change_issue<'a>(repo: &'a RepoId, number: u64, body: &serde_json::Value) -> Call<'a> {
    Call::change(
        Method::PATCH,
        at(repo, &format!("/issues/{number}")),
        of(repo),
        Effect::Idempotent,
        Some(body),
    )
}

impl GitHub {
    /// Also for pull requests.
    pub(super) async fn patch_issue(
        &self,
        repo: &RepoId,
        number: u64,
        body: &serde_json::Value,
    ) -> Result<()> {
        let call = change_issue(repo, number, body);
        self.client.call(&call).await.map(|_| ())
    }
}

#[async_trait]
impl Comments for GitHub {
    async fn comments(&self, repo: &RepoId, number: u64) -> Result<Vec<IssueComment>> {
        let call = Call::read_new(at(repo, &format!("/issues/{number}/comments")), of(repo));
        let wire: Vec<WireComment> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn comment(&self, repo: &RepoId, id: u64) -> Result<IssueComment> {
        let call = Call::read_new(at(repo, &format!("/issues/comments/{id}")), of(repo));
        let wire: WireComment = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn create_comment(&self, repo: &RepoId, number: u64, body: &str) -> Result<IssueComment> {
        let call = Call::change(
            Method::POST,
            at(repo, &format!("/issues/{number}/comments")),
            of(repo),
            Effect::Once,
            Some(&json!({ "body": body })),
        );
        let wire: WireComment = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn edit_comment(&self, repo: &RepoId, id: u64, body: &str) -> Result<IssueComment> {
        let call = Call::change(
            Method::PATCH,
            at(repo, &format!("/issues/comments/{id}")),
            of(repo),
            Effect::Idempotent,
            Some(&json!({ "body": body })),
        );
        let wire: WireComment = self.client.json(&call).await?;
        Ok(wire.into())
    }

    async fn delete_comment(&self, repo: &RepoId, id: u64) -> Result<()> {
        let call = Call::change(
            Method::DELETE,
            at(repo, &format!("/issues/comments/{id}")),
            of(repo),
            Effect::Idempotent,
            None,
        );
        match self.client.call(&call).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Labels for GitHub {
    async fn labels(&self, repo: &RepoId, number: u64) -> Result<Vec<Label>> {
        let call = Call::read_new(at(repo, &format!("/issues/{number}/labels")), of(repo));
        let wire: Vec<WireLabel> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn repo_labels(&self, repo: &RepoId) -> Result<Vec<Label>> {
        let call = Call::read(at(repo, "/labels"), of(repo));
        let wire: Vec<WireLabel> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn add_labels(&self, repo: &RepoId, number: u64, labels: &[&str]) -> Result<()> {
        let call = Call::change(
            Method::POST,
            at(repo, &format!("/issues/{number}/labels")),
            of(repo),
            Effect::Idempotent,
            Some(&json!({ "labels": labels })),
        );
        self.client.call(&call).await.map(|_| ())
    }

    async fn remove_label(&self, repo: &RepoId, number: u64, label: &str) -> Result<()> {
        let path = format!("/issues/{number}/labels/{}", segment(label));
        let call = Call::change(
            Method::DELETE,
            at(repo, &path),
            of(repo),
            Effect::Idempotent,
            None,
        );
        match self.client.call(&call).await {
            // HOOK-025. Any other 404 is a missing issue or repository.
            Err(ForgeError::NotFound { message, .. }) if message == "Label does not exist" => {
                Ok(())
            }
            outcome => outcome.map(|_| ()),
        }
    }
}

#[async_trait]
impl Assignees for GitHub {
    async fn assign(&self, repo: &RepoId, number: u64, logins: &[&str]) -> Result<Vec<String>> {
        let now = self
            .change_assignees(Method::POST, repo, number, logins)
            .await?;
        Ok(logins
            .iter()
            .filter(|login| !now.contains(&norm_login(login)))
            .map(|login| (*login).to_owned())
            .collect())
    }

    async fn unassign(&self, repo: &RepoId, number: u64, logins: &[&str]) -> Result<Vec<String>> {
        let now = self
            .change_assignees(Method::DELETE, repo, number, logins)
            .await?;
        Ok(logins
            .iter()
            .filter(|login| now.contains(&norm_login(login)))
            .map(|login| (*login).to_owned())
            .collect())
    }
}

impl GitHub {
    /// The normalised logins of those who are assigned afterwards.
    async fn change_assignees(
        &self,
        method: Method,
        repo: &RepoId,
        number: u64,
        logins: &[&str],
    ) -> Result<Vec<String>> {
        let call = Call::change(
            method,
            at(repo, &format!("/issues/{number}/assignees")),
            of(repo),
            Effect::Idempotent,
            Some(&json!({ "assignees": logins })),
        );
        let issue: WireIssue = self.client.json(&call).await?;
        Ok(issue
            .assignees
            .iter()
            .map(|user| norm_login(&user.login))
            .collect())
    }
}
