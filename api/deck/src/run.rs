//! One run: its facts, artifacts and log.

use std::{convert::Infallible, sync::Arc};

use askama::Template;
use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{
        IntoResponse, Redirect, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use trireme_api::{Artifact, BUILD_LOG, LogChunk};
use trireme_proto::state::Job;
use trireme_prowjob::record;
use trireme_state::{JobFilter, limits::FIRST_JOB_EVENTS};

use crate::{Deck, duration, html, instant, now_ms};

/// Bytes of log on the page itself.
const SHOWN: usize = 256 * 1024;
/// Bytes of an artifact read at once.
const CHUNK: usize = 256 * 1024;

#[derive(Template)]
#[template(path = "run.html")]
struct Page {
    page: &'static str,
    revision: u64,
    node: u64,
    id: String,
    job: String,
    state: String,
    complete: bool,
    facts: Vec<(&'static str, String)>,
    history: Vec<Happened>,
    history_dropped: u32,
    artifacts: Vec<Artifact>,
    log: String,
    log_end: u64,
    truncated: bool,
}

/// A row of the job's history (JOB-075).
struct Happened {
    at: String,
    state: String,
    actor: String,
    cause: String,
    /// Others stood before it.
    after_gap: bool,
}

fn history(job: &Job) -> Vec<Happened> {
    let rows = job.history.iter().enumerate();
    rows.map(|(at, event)| Happened {
        at: instant(event.at_ms),
        state: record::prow_state(event.state()).to_string(),
        actor: event.actor.clone(),
        cause: event.cause.clone(),
        after_gap: at == FIRST_JOB_EVENTS && job.history_dropped > 0,
    })
    .collect()
}

fn missing(id: &str) -> Response {
    (
        StatusCode::NOT_FOUND,
        format!("There is no run {id:?} in memory. Old runs leave it after a week.\n"),
    )
        .into_response()
}

fn facts(job: &Job, now_ms: i64) -> Vec<(&'static str, String)> {
    let pulls: Vec<String> = job
        .pulls
        .iter()
        .map(|pull| {
            format!(
                "#{} by {} at {}",
                pull.number,
                pull.author,
                crate::short(&pull.head_sha)
            )
        })
        .collect();
    let end = if job.completed_ms > 0 {
        job.completed_ms
    } else {
        now_ms
    };
    let mut facts = vec![
        ("Type", record::prow_type(job.r#type()).to_string()),
        ("Description", job.description.clone()),
        (
            "Repository",
            if job.org.is_empty() {
                String::new()
            } else {
                format!(
                    "{}/{} {} {}",
                    job.org,
                    job.repo,
                    job.base_ref,
                    crate::short(&job.base_sha)
                )
            },
        ),
        ("Pull requests", pulls.join(", ")),
        ("Started", instant(job.created_ms)),
        ("Finished", instant(job.completed_ms)),
        ("Took", duration(end - job.created_ms)),
        ("Build", job.build_id.clone()),
        ("Attempt", job.attempt.to_string()),
        ("Because of", job.origin.clone()),
        ("Run", job.id.clone()),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

pub(crate) async fn page(State(deck): State<Deck>, Path(id): Path<String>) -> Response {
    let view = deck.store.view();
    let Some(job) = view.job(&id) else {
        return missing(&id);
    };
    let complete = job.completed_ms > 0;
    let (log, log_end, truncated) = shown_log(&deck, &id).await;
    let artifacts = match deck.runs.list(job).await {
        Ok(mut artifacts) => {
            artifacts.retain(|artifact| artifact.path != BUILD_LOG);
            artifacts
        }
        Err(why) => {
            tracing::warn!(run = id, %why, "artifacts could not be listed");
            Vec::new()
        }
    };
    html(&Page {
        page: "",
        revision: view.revision,
        node: deck.store.node_id(),
        job: job.job.clone(),
        state: record::prow_state(job.state()).to_string(),
        facts: facts(job, now_ms()),
        history: history(job),
        history_dropped: job.history_dropped,
        complete,
        artifacts,
        log,
        log_end,
        truncated,
        id,
    })
}

/// The end of what there is of the log now, from the start of a line.
async fn shown_log(deck: &Deck, id: &str) -> (String, u64, bool) {
    let mut chunks = deck.logs.read(id.to_owned(), 0, false);
    let (mut data, mut end) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => {
                end = chunk.offset + chunk.data.len() as u64;
                data.extend_from_slice(&chunk.data);
                if data.len() > 4 * SHOWN {
                    data.drain(..data.len() - SHOWN);
                }
            }
            Err(why) if data.is_empty() => return (why.message().to_owned(), end, false),
            Err(_) => break,
        }
    }
    let truncated = data.len() > SHOWN;
    if truncated {
        let from = data.len() - SHOWN;
        let line = data[from..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(from, |at| from + at + 1);
        data.drain(..line);
    }
    (String::from_utf8_lossy(&data).into_owned(), end, truncated)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct From {
    offset: u64,
}

/// The whole log as plain text; it ends when the run does.
pub(crate) async fn log(
    State(deck): State<Deck>,
    Path(id): Path<String>,
    Query(from): Query<From>,
) -> Response {
    if deck.store.view().job(&id).is_none() {
        return missing(&id);
    }
    let mut chunks = deck.logs.read(id, from.offset, true);
    let first = match chunks.next().await {
        Some(Err(why)) => {
            return (StatusCode::NOT_FOUND, why.message().to_owned() + "\n").into_response();
        }
        Some(Ok(first)) => Some(first),
        None => None,
    };
    let body = stream::iter(first.map(Ok))
        .chain(chunks)
        .map_ok(|LogChunk { data, .. }| data)
        .map_err(std::io::Error::other);
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
        Body::from_stream(body),
    )
        .into_response()
}

/// The log as server-sent events, each a JSON string; `end` when the run is complete.
pub(crate) async fn stream(
    State(deck): State<Deck>,
    Path(id): Path<String>,
    Query(from): Query<From>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = deck.logs.read(id, from.offset, true).map(|chunk| {
        Ok(match chunk {
            Ok(chunk) => {
                let text = String::from_utf8_lossy(&chunk.data).into_owned();
                Event::default().data(serde_json::Value::from(text).to_string())
            }
            Err(why) => Event::default().comment(why.message().replace('\n', " ")),
        })
    });
    let end = stream::once(async { Ok(Event::default().event("end").data("")) });
    Sse::new(events.chain(end)).keep_alive(KeepAlive::default())
}

/// Artifacts come from jobs, so nothing in them may run in this origin.
pub(crate) async fn artifact(
    State(deck): State<Deck>,
    Path((id, path)): Path<(String, String)>,
) -> Response {
    let view = deck.store.view();
    let Some(job) = view.job(&id).map(Arc::clone) else {
        return missing(&id);
    };
    let first = match deck.runs.read(&job, &path, 0, CHUNK).await {
        Ok(Some(first)) => first,
        Ok(None) => {
            return (StatusCode::NOT_FOUND, format!("The run left no {path}.\n")).into_response();
        }
        Err(why) => {
            return (
                StatusCode::BAD_GATEWAY,
                format!("{path} could not be read: {why}\n"),
            )
                .into_response();
        }
    };
    let runs = Arc::clone(&deck.runs);
    let offset = first.len() as u64;
    let rest = stream::try_unfold(offset, move |offset| {
        let (runs, job, path) = (Arc::clone(&runs), Arc::clone(&job), path.clone());
        async move {
            let chunk = runs
                .read(&job, &path, offset, CHUNK)
                .await?
                .unwrap_or_default();
            let next = offset + chunk.len() as u64;
            Ok::<_, std::io::Error>((!chunk.is_empty()).then_some((chunk, next)))
        }
    });
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, "sandbox"),
        ],
        Body::from_stream(stream::once(async { Ok(first) }).chain(rest)),
    )
        .into_response()
}

/// Where Prow's links to a run lead: found by the end of its URL.
pub(crate) async fn by_url(State(deck): State<Deck>, Path(path): Path<String>) -> Response {
    let path = path.trim_end_matches('/');
    let view = deck.store.view();
    let found = path.rsplit('/').next().and_then(|build| {
        view.jobs_newest_first(JobFilter::default()).find(|job| {
            !job.build_id.is_empty()
                && job.build_id == build
                && job.url.trim_end_matches('/').ends_with(path)
        })
    });
    match found {
        Some(job) => Redirect::temporary(&format!("/run/{}", job.id)).into_response(),
        None => missing(path),
    }
}
