//! Runs of GitHub Actions: recorded by whoever sets the world up, run again and approved by users.

use jiff::Timestamp;

use super::{Forge, Id, Permission, Refusal, RepoName, WorkflowRun};

/// A run to record.
#[derive(Debug, Clone, Default)]
pub struct NewWorkflowRun {
    pub name: String,
    /// `pull_request`, `push`, …
    pub event: String,
    pub head_branch: String,
    pub head_sha: String,
    /// `queued`, `in_progress`, `completed`.
    pub status: String,
    /// `success`, `failure`, `action_required`, …
    pub conclusion: Option<String>,
}

impl Forge {
    /// Records a run and gives its id.
    ///
    /// # Errors
    /// 404 when the repository does not exist.
    pub fn add_workflow_run(
        &mut self,
        now: Timestamp,
        repo: &RepoName,
        new: NewWorkflowRun,
    ) -> Result<Id, Refusal> {
        self.repo(repo)?;
        let id = self.next_id();
        let run = WorkflowRun {
            id,
            name: new.name,
            event: new.event,
            head_branch: new.head_branch,
            head_sha: new.head_sha,
            status: new.status,
            conclusion: new.conclusion,
            reruns: 0,
            created_at: now,
            updated_at: now,
        };
        self.repo_mut(repo)?.workflow_runs.insert(id, run);
        Ok(id)
    }

    fn run_mut(
        &mut self,
        actor: &str,
        repo: &RepoName,
        run: Id,
    ) -> Result<&mut WorkflowRun, Refusal> {
        self.require(repo, Some(actor), Permission::Write)?;
        let run = self.repo_mut(repo)?.workflow_runs.get_mut(&run);
        run.ok_or_else(Refusal::not_found)
    }

    /// Queues the failed jobs of a run again.
    ///
    /// # Errors
    /// 403 without write access, while it runs, or when none of its jobs failed; 404.
    pub fn rerun_failed_jobs(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        run: Id,
    ) -> Result<(), Refusal> {
        let run = self.run_mut(actor, repo, run)?;
        if run.status != "completed" {
            return Err(Refusal::forbidden("This workflow is already running"));
        }
        if run.conclusion.as_deref() == Some("success") {
            return Err(Refusal::forbidden(
                "The workflow run cannot be retried: it has no failed jobs.",
            ));
        }
        run.status = "queued".into();
        run.conclusion = None;
        run.reruns += 1;
        run.updated_at = now;
        Ok(())
    }

    /// Lets a run start that waits for approval.
    ///
    /// # Errors
    /// 403 without write access, 404 when it waits for none.
    pub fn approve_workflow_run(
        &mut self,
        now: Timestamp,
        actor: &str,
        repo: &RepoName,
        run: Id,
    ) -> Result<(), Refusal> {
        let run = self.run_mut(actor, repo, run)?;
        if run.conclusion.as_deref() != Some("action_required") {
            return Err(Refusal::not_found());
        }
        run.status = "queued".into();
        run.conclusion = None;
        run.updated_at = now;
        Ok(())
    }
}
