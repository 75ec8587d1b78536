//! Deck: pages for people and Prow's JSON for programs, rendered on the node that was asked from the state it has.
//!
//! Pages are whole without JavaScript; one script lets a log follow its run. Nothing comes from elsewhere: style and
//! script are served from the binary. Pages only read: what changes something they give as the command to type.

mod budgets;
mod cluster;
mod deliveries;
mod jobs;
pub mod plugin_help;
mod prowjobs;
mod run;
mod tide;

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{any, get},
};
pub use budgets::{BudgetLeft, Budgets};
use plugin_help::HelpSource;
use trireme_api::{ConfigHealth, RunLogs, RunStore};
use trireme_raft::Store;

/// What pages read.
#[derive(Clone)]
pub(crate) struct Deck {
    store: Store,
    logs: RunLogs,
    runs: Arc<dyn RunStore>,
    config: ConfigHealth,
    help: Arc<dyn HelpSource>,
    budgets: Budgets,
}

/// The routes of all pages.
///
/// HOOK-001: Prow's hook answers everything it does not know with 200 and nothing, for health checks that ask `/`. Here
/// `/` is a page, `/healthz` and `/readyz` tell how the node is, and what is not there is 404: a mistyped webhook address
/// must not look as if deliveries arrived. Below `webhook_path` a hook of Prow's that forwards to it finds help (HOOK-035).
pub fn pages(
    store: Store,
    runs: Arc<dyn RunStore>,
    config: ConfigHealth,
    help: Arc<dyn HelpSource>,
    webhook_path: &str,
    budgets: Budgets,
    logs: RunLogs,
) -> Router {
    let external_help = plugin_help::external::path(webhook_path);
    Router::new()
        .route(&external_help, any(plugin_help::external::answer))
        .route("/", get(jobs::page))
        .route("/deliveries", get(deliveries::page))
        .route("/deliveries/{guid}", get(deliveries::one))
        .route("/plugin-help", any(plugin_help::hook))
        .route("/plugin-help.js", get(plugin_help::script))
        .route("/command-help", get(plugin_help::commands))
        .route("/plugins", get(plugin_help::cards))
        .route("/prowjobs.js", get(prowjobs::list))
        .route("/run/{id}", get(run::page))
        .route("/run/{id}/log", get(run::log))
        .route("/run/{id}/log/stream", get(run::stream))
        .route("/run/{id}/artifacts/{*path}", get(run::artifact))
        .route("/view/{*path}", get(run::by_url))
        .route("/tide", get(tide::page))
        .route("/cluster", get(cluster::page))
        .route("/static/deck.css", get(style))
        .route("/static/follow.js", get(script))
        .with_state(Deck {
            store,
            logs,
            runs,
            config,
            help,
            budgets,
        })
}

/// Assets do not change while the binary runs, but an upgrade changes them.
const ASSET_CACHE: &str = "public, max-age=300";

async fn style() -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, "text/css; charset=utf-8"),
            (header::CACHE_CONTROL, ASSET_CACHE),
        ],
        include_str!("../static/deck.css"),
    )
}

async fn script() -> impl IntoResponse {
    (
        [
            (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
            (header::CACHE_CONTROL, ASSET_CACHE),
        ],
        include_str!("../static/follow.js"),
    )
}

/// A page, never cached (DECK-007).
fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (
            [
                (header::CACHE_CONTROL, "no-store, must-revalidate"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (
                    header::CONTENT_SECURITY_POLICY,
                    "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
                ),
            ],
            Html(text),
        )
            .into_response(),
        Err(why) => {
            tracing::error!(%why, "a page did not render");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page did not render.").into_response()
        }
    }
}

/// `2026-11-23T18:14:20Z`; empty for a time that has not come.
fn instant(millis: i64) -> String {
    if millis <= 0 {
        return String::new();
    }
    jiff::Timestamp::from_second(millis / 1000)
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// `1m 5s`.
fn duration(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

/// Wall clock: ages on pages are for people.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn short(sha: &str) -> String {
    sha.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(instant(1_000), "1970-01-01T00:00:01Z");
        assert_eq!(instant(0), "");
        assert_eq!(
            [5_000, 65_000, 3_720_000].map(duration),
            ["5s", "1m 5s", "1h 2m"]
        );
    }
}
