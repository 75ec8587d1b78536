//! Signs under issues, pull requests and comments.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;

use super::{Answer, At, Desk, Given, json_bytes};
use crate::engine::Engine;
use crate::forge::{Id, Reaction, RepoName};

pub(super) fn router() -> Router<Arc<Engine>> {
    let issues = "/repos/{owner}/{name}/issues";
    Router::new()
        .route(&format!("{issues}/{{number}}/reactions"), post(to_issue))
        .route(
            &format!("{issues}/comments/{{id}}/reactions"),
            post(to_comment),
        )
}

#[derive(Deserialize)]
struct ReactionBody {
    #[serde(default)]
    content: String,
}

/// One that was there already is answered by 200.
fn show(desk: &Desk, (reaction, new): (Reaction, bool)) -> Answer {
    let shown = desk.engine.show(|render| render.reaction(&reaction));
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(json_bytes(status, shown.to_string()))
}

async fn to_issue(
    desk: Desk,
    At((owner, name, number)): At<(String, String, u64)>,
    Given(body): Given<ReactionBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let put = desk
        .engine
        .act(|forge, now| forge.react_to_issue(now, &actor.login, &name, number, &body.content))?;
    show(&desk, put)
}

async fn to_comment(
    desk: Desk,
    At((owner, name, id)): At<(String, String, Id)>,
    Given(body): Given<ReactionBody>,
) -> Answer {
    let name = RepoName::new(owner, name);
    let actor = desk.writer(&name)?;
    let put = desk
        .engine
        .act(|forge, now| forge.react_to_comment(now, &actor.login, &name, id, &body.content))?;
    show(&desk, put)
}
