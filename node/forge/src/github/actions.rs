//! Runs of GitHub Actions (PLG-TRIGGER-023).

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;

use super::client::{Call, Effect};
use super::credentials::Behalf;
use super::wire::nullable;
use super::{GitHub, at, segment};
use crate::error::Result;
use crate::forge::Actions;
use crate::types::{RepoId, WorkflowRun};

#[derive(Deserialize)]
struct WireRuns {
    #[serde(default, deserialize_with = "nullable")]
    workflow_runs: Vec<WireRun>,
}

#[derive(Deserialize)]
struct WireRun {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    event: String,
    #[serde(default, deserialize_with = "nullable")]
    status: String,
    #[serde(default, deserialize_with = "nullable")]
    conclusion: String,
    #[serde(default, deserialize_with = "nullable")]
    head_branch: String,
    #[serde(default, deserialize_with = "nullable")]
    head_sha: String,
    #[serde(default, deserialize_with = "nullable")]
    html_url: String,
}

impl From<WireRun> for WorkflowRun {
    fn from(wire: WireRun) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            event: wire.event,
            status: wire.status,
            conclusion: wire.conclusion,
            head_branch: wire.head_branch,
            head_sha: wire.head_sha,
            html_url: wire.html_url,
        }
    }
}

#[async_trait]
impl Actions for GitHub {
    async fn workflow_runs(
        &self,
        repo: &RepoId,
        head_branch: &str,
        head_sha: &str,
    ) -> Result<Vec<WorkflowRun>> {
        let path = format!(
            "/actions/runs?branch={}&head_sha={}",
            segment(head_branch),
            segment(head_sha)
        );
        let call = Call::read(at(repo, &path), Behalf::Org(&repo.org));
        let runs = self
            .client
            .pages(call, |page: WireRuns| page.workflow_runs)
            .await?;
        Ok(runs.into_iter().map(Into::into).collect())
    }

    async fn rerun_failed_jobs(&self, repo: &RepoId, run: u64) -> Result<()> {
        // A second one would be refused as long as the first runs, and run everything again after that.
        self.act_on_run(repo, run, "rerun-failed-jobs", Effect::Once)
            .await
    }

    async fn approve_workflow_run(&self, repo: &RepoId, run: u64) -> Result<()> {
        self.act_on_run(repo, run, "approve", Effect::Idempotent)
            .await
    }
}

impl GitHub {
    async fn act_on_run(&self, repo: &RepoId, run: u64, verb: &str, effect: Effect) -> Result<()> {
        let call = Call::change(
            Method::POST,
            at(repo, &format!("/actions/runs/{run}/{verb}")),
            Behalf::Org(&repo.org),
            effect,
            None,
        );
        self.client.call(&call).await.map(|_| ())
    }
}
