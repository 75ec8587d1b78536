//! Issues and pull requests by a text: the search that GraphQL has too.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Desk, Page, json_bytes};
use crate::engine::Engine;
use crate::forge::Refusal;
use crate::graphql::Search;

pub(super) fn router() -> Router<Arc<Engine>> {
    Router::new().route("/search/issues", get(issues))
}

#[derive(Deserialize)]
struct SearchQuery {
    #[serde(default)]
    q: String,
    sort: Option<String>,
    order: Option<String>,
}

async fn issues(desk: Desk, Asked(asked): Asked<SearchQuery>) -> Answer {
    if asked.q.trim().is_empty() {
        return Err(Refusal::validation("Search", "q", "missing"));
    }
    let mut query = asked.q;
    if let Some(sort @ ("created" | "updated")) = asked.sort.as_deref() {
        let order = asked.order.as_deref().unwrap_or("desc");
        query.push_str(&format!(" sort:{sort}-{order}"));
    }
    let search = Search::parse(&query);
    let page = Page::of(&desk.uri);
    let (items, total) = desk.engine.show(|render| {
        let found = search.run(render.forge, desk.caller.as_deref());
        let total = found.len();
        let shown = page.cut(found).into_iter();
        let items = shown.map(|(repo, issue)| render.found(repo, issue));
        (items.collect::<Vec<Value>>(), total)
    });
    let shown = json!({
        "total_count": total, "incomplete_results": false, "search_type": "lexical", "items": items,
    });
    let mut response = json_bytes(http::StatusCode::OK, shown.to_string());
    desk.link(&mut response, page, total);
    Ok(response)
}
