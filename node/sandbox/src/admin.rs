//! The sandbox's own controls over HTTP, for who runs it as a process of its own: faults, barriers, log, users, hooks,
//! clock. Nobody is asked who they are: the sandbox trusts whoever reaches it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post, put};
use http::StatusCode;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::engine::Engine;
use crate::faults::{CallEffect, CallMatch, HookEffect, HookMatch, TooMany};
use crate::forge::{HookConfig, Id, Refusal};
use crate::log::Entry;

/// The longest that a barrier may be waited for in one call.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub(crate) fn router() -> Router<Arc<Engine>> {
    let at = |path: &str| format!("{}{path}", crate::server::ADMIN);
    Router::new()
        .route(&at("/faults"), post(set_fault).delete(clear_faults))
        .route(&at("/faults/{id}"), delete(clear_fault))
        .route(&at("/barriers/{name}"), get(barrier))
        .route(&at("/barriers/{name}/release"), post(release))
        .route(&at("/log"), get(log))
        .route(&at("/merges"), get(merges))
        .route(&at("/calls"), get(calls))
        .route(&at("/tokens/{login}"), post(token))
        .route(&at("/hooks"), post(add_hook))
        .route(&at("/hooks/{id}/targets"), put(set_targets))
        .route(&at("/clock/advance"), post(advance))
}

/// `{"call": {"method": …, "path": …, "actor": …}, "effect": …, "times": n}` or the same with `"hook"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum FaultBody {
    Call {
        call: CallMatch,
        effect: CallEffect,
        times: Option<u64>,
    },
    Hook {
        hook: HookMatch,
        effect: HookEffect,
        times: Option<u64>,
    },
}

async fn set_fault(State(engine): State<Arc<Engine>>, Json(body): Json<FaultBody>) -> Response {
    let set: Result<u64, TooMany> = match body {
        FaultBody::Call {
            call,
            effect,
            times,
        } => engine.faults.on_call(call, effect, times),
        FaultBody::Hook {
            hook,
            effect,
            times,
        } => engine.faults.on_hook(hook, effect, times),
    };
    match set {
        Ok(id) => (StatusCode::CREATED, Json(json!({"id": id}))).into_response(),
        Err(error) => Refusal::invalid(error.to_string()).into_response(),
    }
}

async fn clear_faults(State(engine): State<Arc<Engine>>) -> StatusCode {
    engine.faults.clear_all();
    StatusCode::NO_CONTENT
}

async fn clear_fault(State(engine): State<Arc<Engine>>, Path(id): Path<u64>) -> StatusCode {
    engine.faults.clear(id);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct Wait {
    /// Answer when so many calls have come, or after a minute.
    arrived: Option<u64>,
}

async fn barrier(
    State(engine): State<Arc<Engine>>,
    Path(name): Path<String>,
    Query(wait): Query<Wait>,
) -> Response {
    let barrier = engine.faults.barrier(&name);
    if let Some(calls) = wait.arrived {
        // Running out is an answer too: the count says so.
        let _ = tokio::time::timeout(MAX_WAIT, barrier.arrived(calls)).await;
    }
    Json(json!({"arrived": barrier.count()})).into_response()
}

async fn release(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> StatusCode {
    engine.faults.barrier(&name).release();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn log(State(engine): State<Arc<Engine>>, Query(after): Query<After>) -> Json<Vec<Entry>> {
    Json(engine.read_log(|log| log.after(after.after)))
}

async fn merges(State(engine): State<Arc<Engine>>) -> Response {
    Json(engine.read_log(|log| json!(log.merges()))).into_response()
}

async fn calls(State(engine): State<Arc<Engine>>) -> Response {
    let calls = engine.read_log(|log| {
        let calls = log.calls().iter();
        let shown = calls.map(|((method, shape), count)| (format!("{method} {shape}"), *count));
        shown.collect::<std::collections::BTreeMap<_, _>>()
    });
    Json(calls).into_response()
}

async fn token(State(engine): State<Arc<Engine>>, Path(login): Path<String>) -> Response {
    Json(json!({"login": login, "token": engine.token_for(&login)})).into_response()
}

async fn add_hook(
    State(engine): State<Arc<Engine>>,
    Json(config): Json<HookConfig>,
) -> Result<Response, Refusal> {
    let id = engine.act(|forge, now| forge.add_hook(now, config))?;
    Ok((StatusCode::CREATED, Json(json!({"id": id}))).into_response())
}

async fn set_targets(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<Id>,
    Json(targets): Json<Vec<Url>>,
) -> Result<StatusCode, Refusal> {
    engine.act(|forge, _| {
        forge.hook_mut(id)?.config.targets = targets;
        Ok::<_, Refusal>(())
    })?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Advance {
    seconds: i64,
}

async fn advance(State(engine): State<Arc<Engine>>, Json(by): Json<Advance>) -> Response {
    engine.clock.advance(SignedDuration::from_secs(by.seconds));
    Json(json!({"now": engine.clock.now()})).into_response()
}
