//! Runs of GitHub Actions.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, At, Desk, Page, created, json_bytes};
use crate::engine::Engine;
use crate::forge::{Id, Refusal, RepoName, WorkflowRun};

pub(super) fn router() -> Router<Arc<Engine>> {
    let runs = "/repos/{owner}/{name}/actions/runs";
    Router::new()
        .route(runs, get(list))
        .route(&format!("{runs}/{{id}}/rerun-failed-jobs"), post(rerun))
        .route(&format!("{runs}/{{id}}/approve"), post(approve))
}

#[derive(Deserialize)]
struct ListQuery {
    branch: Option<String>,
    head_sha: Option<String>,
    event: Option<String>,
    /// A status or a conclusion.
    status: Option<String>,
}

impl ListQuery {
    fn matches(&self, run: &WorkflowRun) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        let status =
            |wanted: &String| *wanted == run.status || Some(wanted) == run.conclusion.as_ref();
        same(&self.branch, &run.head_branch)
            && same(&self.head_sha, &run.head_sha)
            && same(&self.event, &run.event)
            && self.status.as_ref().is_none_or(status)
    }
}

async fn list(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Asked(asked): Asked<ListQuery>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let page = Page::of(&desk.uri);
    let (runs, total) = desk.engine.read(|forge| {
        let runs = forge.repo(&name)?.workflow_runs.values().rev();
        let runs: Vec<WorkflowRun> = runs.filter(|run| asked.matches(run)).cloned().collect();
        let total = runs.len();
        Ok::<_, Refusal>((page.cut(runs), total))
    })?;
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let mut shown: Vec<Value> = Vec::new();
    for run in &runs {
        let head = match git.resolve(&run.head_sha).await? {
            Some(sha) => Some(git.commit(&sha).await?),
            None => None,
        };
        let run = desk.engine.show(|render| {
            let repo = render.forge.repo(&name)?;
            Ok::<_, Refusal>(render.workflow_run(repo, run, head.as_ref()))
        })?;
        shown.push(run);
    }
    let shown = json!({"total_count": total, "workflow_runs": shown});
    let mut response = json_bytes(http::StatusCode::OK, shown.to_string());
    desk.link(&mut response, page, total);
    Ok(response)
}

async fn rerun(desk: Desk, At((owner, name, id)): At<(String, String, Id)>) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    desk.engine
        .act(|forge, now| forge.rerun_failed_jobs(now, &actor.login, &name, id))?;
    created(&json!({}))
}

async fn approve(desk: Desk, At((owner, name, id)): At<(String, String, Id)>) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    desk.engine
        .act(|forge, now| forge.approve_workflow_run(now, &actor.login, &name, id))?;
    created(&json!({}))
}
