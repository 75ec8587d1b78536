//! Pull requests.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, At, Desk, Given, created, json_bytes, ok};
use crate::actor::{MergeSpec, PullRequestSpec, ensure_mergeability};
use crate::engine::Engine;
use crate::forge::{
    Issue, MergeMethod, OpenState, Pull, PullChange, Refusal, RepoName, ReviewState,
};

pub(super) fn router() -> Router<Arc<Engine>> {
    let repo = "/repos/{owner}/{name}";
    let at = |path: &str| format!("{repo}{path}");
    Router::new()
        .route(&at("/pulls"), get(list).post(open))
        .route(&at("/pulls/{number}"), get(one).patch(edit))
        .route(&at("/pulls/{number}/files"), get(files))
        .route(&at("/pulls/{number}/commits"), get(commits))
        .route(&at("/pulls/{number}/reviews"), get(reviews).post(review))
        .route(&at("/pulls/{number}/comments"), get(review_comments))
        .route(&at("/pulls/{number}/merge"), put(merge).get(is_merged))
        .route(
            &at("/pulls/{number}/requested_reviewers"),
            post(request_reviewers).delete(unrequest_reviewers),
        )
}

type Numbered = At<(String, String, u64)>;

async fn show(desk: &Desk, repo: &RepoName, number: u64) -> Result<Value, Refusal> {
    ensure_mergeability(&desk.engine, repo, number).await?;
    desk.engine.show(|render| {
        let (repo, issue, pull) = render.forge.pull(repo, number)?;
        Ok(render.pull(repo, issue, pull))
    })
}

#[derive(Deserialize)]
struct ListQuery {
    state: Option<String>,
    base: Option<String>,
    head: Option<String>,
    sort: Option<String>,
    direction: Option<String>,
}

async fn list(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Asked(asked): Asked<ListQuery>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let state = asked.state.as_deref().unwrap_or("open");
    let shown = desk.engine.show(|render| {
        let repo = render.forge.repo(&name)?;
        let mut found: Vec<(&Issue, &Pull)> = repo
            .issues
            .values()
            .filter_map(|issue| Some((issue, issue.pull.as_ref()?)))
            .filter(|(issue, pull)| {
                (state == "all" || issue.state.as_str() == state)
                    && asked.base.as_ref().is_none_or(|b| *b == pull.base_branch)
                    && asked.head.as_ref().is_none_or(|h| {
                        *h == format!("{}:{}", pull.head_repo.owner, pull.head_branch)
                    })
            })
            .collect();
        if asked.sort.as_deref() == Some("updated") {
            found.sort_by_key(|(issue, _)| issue.updated_at);
        }
        // By creation, GitHub shows the newest first unless told otherwise.
        if asked.direction.as_deref() != Some("asc") {
            found.reverse();
        }
        let shown = found
            .into_iter()
            .map(|(issue, pull)| render.pull_simple(repo, issue, pull));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct OpenBody {
    title: String,
    body: Option<String>,
    head: String,
    base: String,
    #[serde(default)]
    draft: bool,
}

async fn open(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Given(body): Given<OpenBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let spec = PullRequestSpec {
        title: body.title,
        body: body.body,
        head: body.head,
        base: body.base,
        draft: body.draft,
    };
    let number = desk.writer(&name)?.open_pull(&name, spec).await?;
    created(&show(&desk, &name, number).await?)
}

async fn one(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    ok(&show(&desk, &name, number).await?)
}

#[derive(Deserialize)]
struct EditBody {
    title: Option<String>,
    body: Option<String>,
    state: Option<OpenState>,
    base: Option<String>,
}

async fn edit(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<EditBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let change = PullChange {
        title: body.title,
        body: body.body,
        state: body.state,
        base: body.base,
    };
    desk.writer(&name)?.edit_pull(&name, number, change).await?;
    ok(&show(&desk, &name, number).await?)
}

/// Base (as it was when the head was set) and head of a pull request.
fn ends(desk: &Desk, repo: &RepoName, number: u64) -> Result<(String, String), Refusal> {
    desk.may_read(repo)?;
    desk.engine.read(|forge| {
        let (_, _, pull) = forge.pull(repo, number)?;
        Ok((pull.base_sha.clone(), pull.head_sha.clone()))
    })
}

async fn files(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    let (base, head) = ends(&desk, &name, number)?;
    let git = desk.engine.git.repo(&name.owner, &name.name);
    let files = git.changed_files(&base, &head).await?;
    let shown = desk.engine.show(|render| {
        let files = files.iter().map(|file| render.file(&name, &head, file));
        files.collect()
    });
    desk.page(shown)
}

async fn commits(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (_, _, pull) = render.forge.pull(&name, number)?;
        let commits = pull.head.commits.iter();
        let shown = commits.map(|commit| render.commit(&name, commit));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

async fn reviews(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (repo, _, pull) = render.forge.pull(&name, number)?;
        let reviews = pull.reviews.iter();
        let shown = reviews.map(|review| render.review(repo, number, review));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct ReviewBody {
    event: Option<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    comments: Vec<ReviewLine>,
}

#[derive(Deserialize)]
struct ReviewLine {
    path: String,
    line: Option<u64>,
    position: Option<u64>,
    body: String,
}

async fn review(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<ReviewBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let state = match body.event.as_deref() {
        Some("APPROVE") => ReviewState::Approved,
        Some("REQUEST_CHANGES") => ReviewState::ChangesRequested,
        Some("COMMENT") => ReviewState::Commented,
        _ => {
            return Err(Refusal::invalid(
                "Unprocessable Entity: a review needs an event, pending ones are not kept",
            ));
        }
    };
    let comments: Vec<(String, u64, String)> = body
        .comments
        .into_iter()
        .map(|c| (c.path, c.line.or(c.position).unwrap_or(1), c.body))
        .collect();
    let id = actor.review(&name, number, state, &body.body, &comments)?;
    let shown = desk.engine.show(|render| {
        let (repo, _, pull) = render.forge.pull(&name, number)?;
        let review = pull.reviews.iter().find(|r| r.id == id);
        Ok::<_, Refusal>(render.review(repo, number, review.ok_or_else(Refusal::not_found)?))
    })?;
    ok(&shown)
}

async fn review_comments(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (repo, _, pull) = render.forge.pull(&name, number)?;
        let comments = pull.review_comments.iter();
        let shown = comments.map(|comment| render.review_comment(repo, number, comment));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct MergeBody {
    sha: Option<String>,
    merge_method: Option<MergeMethod>,
    commit_title: Option<String>,
    commit_message: Option<String>,
}

async fn merge(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<MergeBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    // Absent and empty words both mean GitHub's own.
    let some = |text: Option<String>| text.filter(|t| !t.is_empty());
    let spec = MergeSpec {
        sha: some(body.sha),
        method: body.merge_method.unwrap_or(MergeMethod::Merge),
        title: some(body.commit_title),
        message: some(body.commit_message),
    };
    let sha = desk.writer(&name)?.merge(&name, number, spec).await?;
    ok(&json!({"sha": sha, "merged": true, "message": "Pull Request successfully merged"}))
}

async fn is_merged(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let merged = desk.engine.read(|forge| {
        let (_, _, pull) = forge.pull(&name, number)?;
        Ok::<_, Refusal>(pull.merged.is_some())
    })?;
    if merged {
        super::empty(http::StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::not_found())
    }
}

#[derive(Deserialize)]
struct ReviewersBody {
    #[serde(default)]
    reviewers: Vec<String>,
}

fn show_simple(desk: &Desk, repo: &RepoName, number: u64) -> Result<Value, Refusal> {
    desk.engine.show(|render| {
        let (repo, issue, pull) = render.forge.pull(repo, number)?;
        Ok(render.pull_simple(repo, issue, pull))
    })
}

async fn request_reviewers(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<ReviewersBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    actor.request_reviewers(&name, number, &body.reviewers)?;
    created(&show_simple(&desk, &name, number)?)
}

async fn unrequest_reviewers(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<ReviewersBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    actor.unrequest_reviewers(&name, number, &body.reviewers)?;
    let shown = show_simple(&desk, &name, number)?;
    Ok(json_bytes(http::StatusCode::OK, shown.to_string()))
}
