//! Runs of GitHub Actions.

use serde_json::{Value, json};

use super::{Render, node_id, time};
use crate::forge::{Commit, Repo, WorkflowRun};

impl Render<'_> {
    /// `head` is the commit that was run, where git has it.
    pub(crate) fn workflow_run(
        &self,
        repo: &Repo,
        run: &WorkflowRun,
        head: Option<&Commit>,
    ) -> Value {
        let repo_url = self.repo_url(&repo.name);
        let url = format!("{repo_url}/actions/runs/{}", run.id);
        let html = format!("{}/actions/runs/{}", self.html_url(&repo.name), run.id);
        let head = head.map_or(Value::Null, |head| {
            json!({
                "id": head.sha,
                "tree_id": head.tree,
                "message": head.message,
                "timestamp": time(head.committer.at),
                "author": {"name": head.author.name, "email": head.author.email},
                "committer": {"name": head.committer.name, "email": head.committer.email},
            })
        });
        let repository = self.repo(repo);
        json!({
            "id": run.id,
            "name": run.name,
            "node_id": node_id("WorkflowRun", run.id),
            "check_suite_id": run.id,
            "check_suite_node_id": node_id("CheckSuite", run.id),
            "head_branch": run.head_branch,
            "head_sha": run.head_sha,
            "path": ".github/workflows/ci.yml",
            "run_number": 1,
            "run_attempt": run.reruns + 1,
            "event": run.event,
            "display_title": run.name,
            "status": run.status,
            "conclusion": run.conclusion,
            "workflow_id": run.id,
            "url": url,
            "html_url": html,
            "pull_requests": [],
            "created_at": time(run.created_at),
            "updated_at": time(run.updated_at),
            "run_started_at": time(run.created_at),
            "jobs_url": format!("{url}/jobs"),
            "logs_url": format!("{url}/logs"),
            "check_suite_url": format!("{repo_url}/check-suites/{}", run.id),
            "artifacts_url": format!("{url}/artifacts"),
            "cancel_url": format!("{url}/cancel"),
            "rerun_url": format!("{url}/rerun"),
            "previous_attempt_url": null,
            "workflow_url": format!("{repo_url}/actions/workflows/{}", run.id),
            "head_commit": head,
            "repository": repository,
            "head_repository": repository,
        })
    }
}
