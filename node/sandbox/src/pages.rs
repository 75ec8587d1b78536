//! Pages for people who look at the sandbox in a browser: repositories, pull requests, a form to comment. No script.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Form, Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Router, http::HeaderMap};
use http::{HeaderValue, header};
use serde::Deserialize;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::forge::{AccountKind, Forge, Issue, OpenState, Refusal, Repo, RepoName};
use crate::git::ChangedFile;

pub(crate) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/", get(index))
        .route("/avatars/{login}", get(avatar))
        .route("/{owner}/{name}", get(repo))
        .route("/{owner}/{name}/pull/{number}", get(conversation))
        .route("/{owner}/{name}/issues/{number}", get(conversation))
        .route("/{owner}/{name}/pull/{number}/comment", post(comment))
        .route("/{owner}/{name}/issues/{number}/comment", post(comment))
}

struct RepoLine {
    name: String,
    open: usize,
    clone: String,
}

struct Item {
    number: u64,
    title: String,
    author: String,
    state: &'static str,
    /// `pull` or `issues`, as in the path.
    kind: &'static str,
    labels: Vec<String>,
}

struct StatusLine {
    context: String,
    state: &'static str,
    description: String,
    url: Option<String>,
}

struct Said {
    id: Option<u64>,
    author: String,
    at: String,
    body: String,
}

struct FileLine {
    path: String,
    status: &'static str,
    additions: u64,
    deletions: u64,
    patch: String,
}

#[derive(Template)]
#[template(path = "index.html")]
struct IndexPage {
    repos: Vec<RepoLine>,
}

#[derive(Template)]
#[template(path = "repo.html")]
struct RepoPage {
    name: String,
    clone: String,
    items: Vec<Item>,
    branches: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "conversation.html")]
struct ConversationPage {
    name: String,
    item: Item,
    /// Head, base and head commit of a pull request.
    branches: Option<(String, String, String)>,
    statuses: Vec<StatusLine>,
    comments: Vec<Said>,
    logins: Vec<String>,
    files: Vec<FileLine>,
}

fn page(template: &impl Template) -> Result<Response, Refusal> {
    let text = template.render();
    let text = text.map_err(|error| Refusal::internal(format!("a page: {error}")))?;
    Ok(Html(text).into_response())
}

fn item(issue: &Issue) -> Item {
    let merged = issue.pull.as_ref().is_some_and(|p| p.merged.is_some());
    Item {
        number: issue.number,
        title: issue.title.clone(),
        author: issue.author.clone(),
        state: if merged {
            "merged"
        } else {
            issue.state.as_str()
        },
        kind: if issue.pull.is_some() {
            "pull"
        } else {
            "issues"
        },
        labels: issue.labels.clone(),
    }
}

async fn index(State(engine): State<Arc<Engine>>) -> Result<Response, Refusal> {
    let repos = engine.read(|forge| {
        let lines = forge.repos().map(|repo| {
            let pulls = repo.issues.values();
            let open = pulls.filter(|i| i.pull.is_some() && i.state == OpenState::Open);
            RepoLine {
                name: repo.name.to_string(),
                open: open.count(),
                clone: format!("{}/{}.git", engine.base, repo.name),
            }
        });
        lines.collect()
    });
    page(&IndexPage { repos })
}

async fn repo(
    State(engine): State<Arc<Engine>>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let name = RepoName::new(owner, name);
    let shown = engine.read(|forge| {
        let repo = forge.repo(&name)?;
        let branches = repo.branches.iter();
        Ok::<_, Refusal>(RepoPage {
            name: repo.name.to_string(),
            clone: format!("{}/{}.git", engine.base, repo.name),
            items: repo.issues.values().rev().map(item).collect(),
            branches: branches.map(|(b, sha)| (b.clone(), sha.clone())).collect(),
        })
    })?;
    page(&shown)
}

async fn conversation(
    State(engine): State<Arc<Engine>>,
    Path((owner, name, number)): Path<(String, String, u64)>,
) -> Result<Response, Refusal> {
    let name = RepoName::new(owner, name);
    let ends = engine.read(|forge| {
        let (_, issue) = forge.issue(&name, number)?;
        let pull = issue.pull.as_ref();
        Ok::<_, Refusal>(pull.map(|p| (p.base_sha.clone(), p.head_sha.clone())))
    })?;
    let files = match ends {
        Some((base, head)) => {
            let git = engine.git.repo(&name.owner, &name.name);
            git.changed_files(&base, &head).await?
        }
        None => Arc::default(),
    };
    let files = files.iter().cloned().map(file_line).collect();
    let shown = engine.read(|forge| {
        let (repo, issue) = forge.issue(&name, number)?;
        Ok::<_, Refusal>(conversation_page(forge, repo, issue, files))
    })?;
    page(&shown)
}

fn file_line(file: ChangedFile) -> FileLine {
    FileLine {
        path: file.path,
        status: file.status,
        additions: file.additions,
        deletions: file.deletions,
        patch: file.patch.unwrap_or_default(),
    }
}

fn conversation_page(
    forge: &Forge,
    repo: &Repo,
    issue: &Issue,
    files: Vec<FileLine>,
) -> ConversationPage {
    let pull = issue.pull.as_ref();
    let statuses = pull.map(|p| forge.current_statuses(&repo.name, &p.head_sha));
    let statuses = statuses.into_iter().flatten().map(|status| StatusLine {
        context: status.context.clone(),
        state: status.state.as_str(),
        description: status.description.clone().unwrap_or_default(),
        // Only what a browser opens harmlessly is made a link.
        url: status.target_url.clone().filter(|u| u.starts_with("http")),
    });
    let first = Said {
        id: None,
        author: issue.author.clone(),
        at: issue.created_at.to_string(),
        body: issue.body.clone().unwrap_or_default(),
    };
    let comments = issue.comments.iter().filter_map(|id| repo.comments.get(id));
    let comments = comments.map(|comment| Said {
        id: Some(comment.id),
        author: comment.author.clone(),
        at: comment.created_at.to_string(),
        body: comment.body.clone(),
    });
    let people = forge.accounts().filter(|a| a.kind == AccountKind::User);
    ConversationPage {
        name: repo.name.to_string(),
        item: item(issue),
        branches: pull.map(|p| {
            let head = format!("{}:{}", p.head_repo.owner, p.head_branch);
            (head, p.base_branch.clone(), p.head_sha.clone())
        }),
        statuses: statuses.collect(),
        comments: std::iter::once(first).chain(comments).collect(),
        logins: people.map(|a| a.login.clone()).collect(),
        files,
    }
}

#[derive(Deserialize)]
struct CommentForm {
    login: String,
    body: String,
}

async fn comment(
    State(engine): State<Arc<Engine>>,
    Path((owner, name, number)): Path<(String, String, u64)>,
    headers: HeaderMap,
    Form(form): Form<CommentForm>,
) -> Result<Redirect, Refusal> {
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(Refusal::forbidden("Forms are taken from these pages only."));
    }
    let name = RepoName::new(owner, name);
    let login = engine.read(|forge| forge.account(&form.login).map(|a| a.login.clone()))?;
    let actor = Actor { engine, login };
    let id = actor.comment(&name, number, &form.body)?;
    let kind = actor.engine.read(|forge| {
        let (_, issue) = forge.issue(&name, number)?;
        Ok::<_, Refusal>(item(issue).kind)
    })?;
    Ok(Redirect::to(&format!(
        "/{name}/{kind}/{number}#issuecomment-{id}"
    )))
}

/// A letter in a circle.
async fn avatar(Path(login): Path<String>) -> Response {
    let letter = login.chars().find(|c| c.is_ascii_alphanumeric());
    let letter = letter.unwrap_or('?').to_ascii_uppercase();
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 40 40\"><circle cx=\"20\" cy=\"20\" r=\"20\" \
         fill=\"#57606a\"/><text x=\"20\" y=\"27\" font-family=\"sans-serif\" font-size=\"20\" fill=\"#fff\" \
         text-anchor=\"middle\">{letter}</text></svg>"
    );
    let kind = HeaderValue::from_static("image/svg+xml");
    ([(header::CONTENT_TYPE, kind)], svg).into_response()
}
