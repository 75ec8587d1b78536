//! Commit statuses and check runs.

use async_trait::async_trait;
use http::Method;
use serde_json::json;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::wire::{WireCheckRuns, WireCombinedStatus, WireStatus, status_state};
use super::{GitHub, at, segments};
use crate::drafts::NewCheckRun;
use crate::error::Result;
use crate::forge::Statuses;
use crate::types::{CheckRun, CombinedStatus, CommitStatus, RepoId, StatusState};

#[async_trait]
impl Statuses for GitHub {
    async fn create_status(&self, repo: &RepoId, sha: &str, status: &CommitStatus) -> Result<()> {
        let mut body = json!({ "state": status.state.as_str(), "context": status.context });
        // Prow leaves empty ones out, and GitHub then shows none.
        if !status.description.is_empty() {
            body["description"] = json!(status.description);
        }
        if !status.target_url.is_empty() {
            body["target_url"] = json!(status.target_url);
        }
        let call = Call::change(
            Method::POST,
            at(repo, &format!("/statuses/{}", segments(sha))),
            Behalf::Org(&repo.org),
            // A second one replaces the first by the same.
            Effect::Idempotent,
            Some(&body),
        );
        self.client.call(&call).await.map(|_| ())
    }

    async fn combined_status(&self, repo: &RepoId, sha: &str) -> Result<CombinedStatus> {
        let call = Call::read(
            at(repo, &format!("/commits/{}/status", segments(sha))),
            Behalf::Org(&repo.org),
        );
        let mut combined = CombinedStatus {
            sha: sha.to_owned(),
            state: StatusState::Pending,
            statuses: Vec::new(),
        };
        let statuses = self
            .client
            .pages(call, |page: WireCombinedStatus| {
                combined.sha = page.sha;
                combined.state = status_state(&page.state);
                page.statuses
            })
            .await?;
        combined.statuses = statuses.into_iter().map(Into::into).collect();
        Ok(combined)
    }

    async fn check_runs(&self, repo: &RepoId, sha: &str) -> Result<Vec<CheckRun>> {
        let call = Call::read(
            at(repo, &format!("/commits/{}/check-runs", segments(sha))),
            Behalf::Org(&repo.org),
        );
        let runs = self
            .client
            .pages(call, |page: WireCheckRuns| page.check_runs)
            .await?;
        Ok(runs.into_iter().map(Into::into).collect())
    }

    async fn status_history(&self, repo: &RepoId, sha: &str) -> Result<Vec<CommitStatus>> {
        let call = Call::read(
            at(repo, &format!("/commits/{}/statuses", segments(sha))),
            Behalf::Org(&repo.org),
        );
        let wire: Vec<WireStatus> = self.client.all(call).await?;
        Ok(wire.into_iter().map(Into::into).collect())
    }

    async fn create_check_run(&self, repo: &RepoId, new: &NewCheckRun) -> Result<()> {
        let mut body = json!({
            "name": new.name,
            "head_sha": new.head_sha,
            "status": "completed",
            "conclusion": new.conclusion,
        });
        if !new.details_url.is_empty() {
            body["details_url"] = json!(new.details_url);
        }
        if !new.title.is_empty() {
            body["output"] = json!({ "title": new.title, "summary": new.summary });
        }
        let call = Call::change(
            Method::POST,
            at(repo, "/check-runs"),
            Behalf::Org(&repo.org),
            // A second one takes the place of the first wherever the latest count.
            Effect::Idempotent,
            Some(&body),
        );
        self.client.call(&call).await.map(|_| ())
    }
}
