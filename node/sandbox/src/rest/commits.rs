//! Commits, their statuses and check runs. A commit may be named by a branch with slashes, so what follows
//! `/commits/` is split here.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, At, Desk, Given, Page, created, json_bytes, ok};
use crate::engine::Engine;
use crate::forge::{NewCheckRun, NewStatus, Refusal, RepoName, StatusState};
use crate::render::Comparison;

/// Files that a comparison shows, as GitHub's.
const MAX_COMPARED_FILES: usize = 300;

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/repos/{owner}/{name}/commits/{*rest}", get(commit_or_more))
        .route(
            "/repos/{owner}/{name}/statuses/{sha}",
            get(history).post(set_status),
        )
        .route("/repos/{owner}/{name}/check-runs", post(create_check_run))
        .route("/repos/{owner}/{name}/compare/{*basehead}", get(compare))
}

async fn commit_or_more(
    desk: Desk,
    At((owner, name, rest)): At<(String, String, String)>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let (reference, what) = match rest.rsplit_once('/') {
        Some((reference, what @ ("status" | "statuses" | "check-runs"))) => (reference, what),
        _ => (rest.as_str(), "commit"),
    };
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let short = reference
        .trim_start_matches("refs/")
        .trim_start_matches("heads/");
    let Some(sha) = git.resolve(short).await? else {
        return Err(Refusal::invalid(format!(
            "No commit found for SHA: {reference}"
        )));
    };
    match what {
        "status" => combined(&desk, &name, &sha),
        "statuses" => statuses(&desk, &name, &sha),
        "check-runs" => check_runs(&desk, &name, &sha),
        _ => {
            let commit = git.commit(&sha).await?;
            let files = match commit.parents.first() {
                Some(parent) => git.changed_files(parent, &sha).await?,
                None => Arc::default(),
            };
            let shown = desk
                .engine
                .show(|render| render.full_commit(&name, &commit, &files));
            ok(&shown)
        }
    }
}

fn combined(desk: &Desk, name: &RepoName, sha: &str) -> Answer {
    let page = Page::of(&desk.uri);
    let (shown, total) = desk.engine.show(|render| {
        let repo = render.forge.repo(name)?;
        let all = render.forge.current_statuses(name, sha);
        let shown = render.combined_status(repo, sha, &all, &page.cut(all.clone()));
        Ok::<_, Refusal>((shown, all.len()))
    })?;
    let mut response = json_bytes(http::StatusCode::OK, shown.to_string());
    desk.link(&mut response, page, total);
    Ok(response)
}

/// Every status ever set, newest first.
fn statuses(desk: &Desk, name: &RepoName, sha: &str) -> Answer {
    let shown = desk.engine.show(|render| {
        let statuses = render.forge.repo(name)?.statuses.get(sha);
        let newest_first = statuses.into_iter().flatten().rev();
        let shown = newest_first.map(|status| render.status(name, status));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

/// The older address of [`statuses`].
async fn history(desk: Desk, At((owner, name, sha)): At<(String, String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    statuses(&desk, &name, &sha)
}

async fn compare(desk: Desk, At((owner, name, basehead)): At<(String, String, String)>) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let (base, head) = basehead.split_once("...").ok_or_else(Refusal::not_found)?;
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let missing = || Refusal {
        message: format!("No common ancestor between {base} and {head}."),
        ..Refusal::not_found()
    };
    let (Some(base), Some(head)) = (git.resolve(base).await?, git.resolve(head).await?) else {
        return Err(Refusal::not_found());
    };
    let merge_base = git.merge_base(&base, &head).await?.ok_or_else(missing)?;
    let all = git.changed_files(&base, &head).await?;
    let files = all.iter().take(MAX_COMPARED_FILES).cloned().collect();
    let found = Comparison {
        ahead_by: git.count_between(&base, &head).await?,
        behind_by: git.count_between(&head, &base).await?,
        commits: git.commits_between(&base, &head).await?,
        base: git.commit(&base).await?,
        merge_base: git.commit(&merge_base).await?,
        head_sha: head,
        files,
    };
    let shown = desk.engine.show(|render| render.comparison(&name, &found));
    ok(&shown)
}

#[derive(Deserialize)]
struct CheckRunBody {
    name: String,
    head_sha: String,
    status: Option<String>,
    conclusion: Option<String>,
    details_url: Option<String>,
    output: Option<OutputBody>,
}

#[derive(Deserialize)]
struct OutputBody {
    title: String,
    summary: String,
}

async fn create_check_run(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Given(body): Given<CheckRunBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let git = desk.engine.git.repo(&name.owner, &name.name);
    if git.resolve(&body.head_sha).await?.as_ref() != Some(&body.head_sha) {
        let message = format!("No commit found for SHA: {}", body.head_sha);
        return Err(Refusal::invalid(message));
    }
    // A conclusion completes it, whatever the status says.
    let status = match &body.conclusion {
        Some(_) => "completed".to_owned(),
        None => body.status.unwrap_or_else(|| "queued".to_owned()),
    };
    let new = NewCheckRun {
        name: body.name,
        sha: body.head_sha,
        status,
        conclusion: body.conclusion,
        details_url: body.details_url,
        output: body.output.map(|output| (output.title, output.summary)),
    };
    let run = desk
        .engine
        .act(|forge, now| forge.create_check_run(now, &actor.login, &name, new))?;
    created(&desk.engine.show(|render| render.check_run(&name, &run)))
}

fn check_runs(desk: &Desk, name: &RepoName, sha: &str) -> Answer {
    let page = Page::of(&desk.uri);
    let (runs, total) = desk.engine.show(|render| {
        let runs = render.forge.repo(name)?.check_runs.get(sha);
        let runs: Vec<Value> = runs
            .into_iter()
            .flatten()
            .map(|run| render.check_run(name, run))
            .collect();
        let total = runs.len();
        Ok::<_, Refusal>((page.cut(runs), total))
    })?;
    let shown = json!({"total_count": total, "check_runs": runs});
    let mut response = json_bytes(http::StatusCode::OK, shown.to_string());
    desk.link(&mut response, page, total);
    Ok(response)
}

#[derive(Deserialize)]
struct StatusBody {
    state: Option<String>,
    context: Option<String>,
    description: Option<String>,
    target_url: Option<String>,
}

async fn set_status(
    desk: Desk,
    At((owner, name, sha)): At<(String, String, String)>,
    Given(body): Given<StatusBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let state = match body.state.as_deref() {
        Some("success") => StatusState::Success,
        Some("pending") => StatusState::Pending,
        Some("failure") => StatusState::Failure,
        Some("error") => StatusState::Error,
        _ => {
            return Err(Refusal::validation_custom(
                "Status",
                "state is not included in the list",
            ));
        }
    };
    let new = NewStatus {
        state,
        context: body
            .context
            .filter(|c| !c.is_empty())
            .unwrap_or_else(|| "default".into()),
        description: body.description,
        target_url: body.target_url,
    };
    let status = actor.set_status(&name, &sha, new).await?;
    let shown = desk.engine.show(|render| render.status(&name, &status));
    created(&shown)
}
