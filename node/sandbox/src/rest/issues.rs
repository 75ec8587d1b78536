//! Issues, and what pull requests share with them.

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{Answer, Asked, At, Desk, Given, created, empty, json_bytes, ok};
use crate::engine::Engine;
use crate::forge::{Id, IssueChange, NewIssue, OpenState, Refusal, RepoName};

pub(super) fn router() -> Router<Arc<Engine>> {
    let repo = "/repos/{owner}/{name}";
    let at = |path: &str| format!("{repo}{path}");
    Router::new()
        .route(&at("/issues"), get(list).post(open))
        .route(&at("/issues/{number}"), get(issue).patch(edit))
        .route(
            &at("/issues/{number}/comments"),
            get(comments).post(comment),
        )
        .route(
            &at("/issues/comments/{id}"),
            get(one_comment).patch(edit_comment).delete(delete_comment),
        )
        .route(
            &at("/issues/{number}/labels"),
            get(labels)
                .post(add_labels)
                .put(set_labels)
                .delete(clear_labels),
        )
        .route(&at("/issues/{number}/events"), get(events))
        .route(&at("/issues/{number}/labels/{label}"), delete(remove_label))
        .route(
            &at("/issues/{number}/assignees"),
            post(assign).delete(unassign),
        )
}

type Numbered = At<(String, String, u64)>;

fn show_issue(desk: &Desk, repo: &RepoName, number: u64) -> Result<Value, Refusal> {
    desk.engine.show(|render| {
        let (repo, issue) = render.forge.issue(repo, number)?;
        Ok(render.issue(repo, issue))
    })
}

fn show_labels(desk: &Desk, repo: &RepoName, number: u64) -> Result<Vec<Value>, Refusal> {
    desk.engine.show(|render| {
        let (repo, issue) = render.forge.issue(repo, number)?;
        Ok(render.labels(repo, issue))
    })
}

#[derive(Deserialize)]
struct ListQuery {
    state: Option<String>,
    labels: Option<String>,
    creator: Option<String>,
}

async fn list(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Asked(asked): Asked<ListQuery>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let state = asked.state.as_deref().unwrap_or("open");
    let wanted: Vec<&str> = asked
        .labels
        .as_deref()
        .unwrap_or_default()
        .split(',')
        .filter(|label| !label.is_empty())
        .collect();
    let shown = desk.engine.show(|render| {
        let repo = render.forge.repo(&name)?;
        let issues = repo.issues.values().rev().filter(|issue| {
            (state == "all" || issue.state.as_str() == state)
                && wanted
                    .iter()
                    .all(|w| issue.labels.iter().any(|l| l.eq_ignore_ascii_case(w)))
                && asked
                    .creator
                    .as_ref()
                    .is_none_or(|c| issue.author.eq_ignore_ascii_case(c))
        });
        let shown = issues.map(|issue| render.issue(repo, issue));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct OpenBody {
    title: String,
    body: Option<String>,
    #[serde(default)]
    labels: Vec<LabelName>,
    #[serde(default)]
    assignees: Vec<String>,
    milestone: Option<u64>,
}

async fn open(
    desk: Desk,
    At((owner, name)): At<(String, String)>,
    Given(body): Given<OpenBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let new = NewIssue {
        title: body.title,
        body: body.body,
        labels: body.labels.into_iter().map(LabelName::into_name).collect(),
        assignees: body.assignees,
        milestone: body.milestone,
    };
    let number = actor.open_issue_as(&name, new)?;
    created(&show_issue(&desk, &name, number)?)
}

async fn issue(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let moved = desk
        .engine
        .read(|forge| Ok::<_, Refusal>(forge.repo(&name)?.moved.get(&number).cloned()))?;
    if let Some((repo, number)) = moved {
        return moved_permanently(&desk, &repo, number);
    }
    ok(&show_issue(&desk, &name, number)?)
}

/// Where an issue was transferred to.
fn moved_permanently(desk: &Desk, repo: &RepoName, number: u64) -> Answer {
    let url = format!("{}/repos/{repo}/issues/{number}", desk.engine.base);
    let body = json!({
        "message": "Moved Permanently",
        "url": url,
        "documentation_url": "https://docs.github.com/rest",
    });
    let mut response = json_bytes(StatusCode::MOVED_PERMANENTLY, body.to_string());
    if let Ok(url) = HeaderValue::from_str(&url) {
        response.headers_mut().insert(header::LOCATION, url);
    }
    Ok(response)
}

#[derive(Deserialize)]
struct EditBody {
    title: Option<String>,
    body: Option<String>,
    state: Option<OpenState>,
    state_reason: Option<String>,
    labels: Option<Vec<LabelName>>,
    assignees: Option<Vec<String>>,
    /// Null clears the milestone, absence keeps it.
    #[serde(default, deserialize_with = "present")]
    milestone: Option<Option<u64>>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(Some)
}

async fn edit(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<EditBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let names = |labels: Vec<LabelName>| labels.into_iter().map(LabelName::into_name).collect();
    let change = IssueChange {
        title: body.title,
        body: body.body,
        state: body.state,
        state_reason: body.state_reason,
        labels: body.labels.map(names),
        assignees: body.assignees,
        milestone: body.milestone,
    };
    actor.edit_issue(&name, number, change)?;
    ok(&show_issue(&desk, &name, number)?)
}

async fn comments(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (repo, issue) = render.forge.issue(&name, number)?;
        let comments = issue.comments.iter().filter_map(|id| repo.comments.get(id));
        let shown = comments.map(|comment| render.comment(repo, comment));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

async fn events(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    let shown = desk.engine.show(|render| {
        let (repo, issue) = render.forge.issue(&name, number)?;
        let events = issue.events.iter();
        let shown = events.map(|event| render.issue_event(&repo.name, event));
        Ok::<Vec<Value>, Refusal>(shown.collect())
    })?;
    desk.page(shown)
}

#[derive(Deserialize)]
struct CommentBody {
    #[serde(default)]
    body: String,
}

fn show_comment(desk: &Desk, repo: &RepoName, id: Id) -> Result<Value, Refusal> {
    desk.engine.show(|render| {
        let comment = render.forge.comment_by_id(repo, id)?;
        Ok(render.comment(render.forge.repo(repo)?, comment))
    })
}

async fn comment(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<CommentBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let id = desk.writer(&name)?.comment(&name, number, &body.body)?;
    created(&show_comment(&desk, &name, id)?)
}

async fn one_comment(desk: Desk, At((owner, name, id)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    ok(&show_comment(&desk, &name, id)?)
}

async fn edit_comment(
    desk: Desk,
    At((owner, name, id)): Numbered,
    Given(body): Given<CommentBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.writer(&name)?.edit_comment(&name, id, &body.body)?;
    ok(&show_comment(&desk, &name, id)?)
}

async fn delete_comment(desk: Desk, At((owner, name, id)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.writer(&name)?.delete_comment(&name, id)?;
    empty(StatusCode::NO_CONTENT)
}

/// Labels come as names or as objects with a name.
#[derive(Deserialize)]
#[serde(untagged)]
enum LabelName {
    Name(String),
    Object { name: String },
}

impl LabelName {
    fn into_name(self) -> String {
        match self {
            Self::Name(name) | Self::Object { name } => name,
        }
    }
}

/// A list of labels comes bare or under `labels`.
#[derive(Deserialize)]
#[serde(untagged)]
enum LabelsBody {
    Bare(Vec<LabelName>),
    Under {
        #[serde(default)]
        labels: Vec<LabelName>,
    },
}

impl LabelsBody {
    fn into_names(self) -> Vec<String> {
        let labels = match self {
            Self::Bare(labels) | Self::Under { labels } => labels,
        };
        labels.into_iter().map(LabelName::into_name).collect()
    }
}

async fn labels(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.may_read(&name)?;
    desk.page(show_labels(&desk, &name, number)?)
}

async fn add_labels(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<LabelsBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    actor.add_labels(&name, number, &body.into_names())?;
    ok(&Value::Array(show_labels(&desk, &name, number)?))
}

async fn set_labels(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<LabelsBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    actor.set_labels(&name, number, &body.into_names())?;
    ok(&Value::Array(show_labels(&desk, &name, number)?))
}

async fn clear_labels(desk: Desk, At((owner, name, number)): Numbered) -> Answer {
    let name = RepoName::new(owner, name);
    desk.writer(&name)?.set_labels(&name, number, &[])?;
    empty(StatusCode::NO_CONTENT)
}

async fn remove_label(
    desk: Desk,
    At((owner, name, number, label)): At<(String, String, u64, String)>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.writer(&name)?.remove_label(&name, number, &label)?;
    ok(&Value::Array(show_labels(&desk, &name, number)?))
}

#[derive(Deserialize)]
struct AssigneesBody {
    #[serde(default)]
    assignees: Vec<String>,
}

async fn assign(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<AssigneesBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.writer(&name)?.assign(&name, number, &body.assignees)?;
    created(&show_issue(&desk, &name, number)?)
}

async fn unassign(
    desk: Desk,
    At((owner, name, number)): Numbered,
    Given(body): Given<AssigneesBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    desk.writer(&name)?
        .unassign(&name, number, &body.assignees)?;
    ok(&show_issue(&desk, &name, number)?)
}
