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
use crate::types::{Issue, IssueComment, Label, LabelEvent, RepoId, norm_login};

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

#[derive(Deserialize)]
struct WireIssueEvent {
    #[serde(default)]
    event: String,
    actor: Option<WireUser>,
    created_at: Timestamp,
    #[serde(default)]
    label: Option<WireLabel>,
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

    async fn label_events(&self, repo: &RepoId, number: u64) -> Result<Vec<LabelEvent>> {
        let call = Call::read_new(at(repo, &format!("/issues/{number}/events")), of(repo));
        let wire: Vec<WireIssueEvent> = self.client.all(call).await?;
        Ok(wire
            .into_iter()
            .filter_map(|event| {
                let added = match event.event.as_str() {
                    "labeled" => true,
                    "unlabeled" => false,
                    _ => return None,
                };
                Some(LabelEvent {
                    label: event.label?.name,
                    added,
                    actor: user(event.actor),
                    at: event.created_at,
                })
            })
            .collect())
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
