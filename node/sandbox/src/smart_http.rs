//! Git over HTTP: `git upload-pack` and `git receive-pack` behind the two services of the smart protocol. After a push
//! the core learns which branches moved.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::Bytes;
use flate2::read::GzDecoder;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::forge::{Permission, Refusal, RepoName};
use crate::git::{Git, ZERO};
use crate::server::Caller;

/// Bytes of a request after decompression.
const MAX_INFLATED: u64 = 256 << 20;

pub(crate) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/{owner}/{name}/info/refs", get(info_refs))
        .route("/{owner}/{name}/git-upload-pack", post(upload_pack))
        .route("/{owner}/{name}/git-receive-pack", post(receive_pack))
}

/// A refusal as git shows it: plain text.
struct PlainRefusal(Refusal);

impl From<Refusal> for PlainRefusal {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for PlainRefusal {
    fn into_response(self) -> Response<Body> {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, format!("{}\n", self.0.message)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"GitHub\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn repo_name(owner: String, name: &str) -> RepoName {
    RepoName::new(owner, name.strip_suffix(".git").unwrap_or(name))
}

/// May the caller read, or write? Who may not and is not signed in is asked to.
fn check(
    engine: &Engine,
    repo: &RepoName,
    caller: &Caller,
    write: bool,
) -> Result<(), PlainRefusal> {
    let least = if write {
        Permission::Write
    } else {
        Permission::Read
    };
    let known = engine.read(|forge| forge.require(repo, caller.0.as_deref(), least));
    match known {
        Ok(()) => Ok(()),
        Err(_) if caller.0.is_none() => Err(PlainRefusal(Refusal::requires_authentication())),
        Err(refusal) if write && refusal.status == 403 => {
            let me = caller.0.as_deref().unwrap_or_default();
            let message = format!("Permission to {repo}.git denied to {me}.");
            Err(PlainRefusal(Refusal::forbidden(message)))
        }
        Err(refusal) => Err(PlainRefusal(refusal)),
    }
}

#[derive(Deserialize)]
struct Service {
    service: Option<String>,
}

async fn info_refs(
    State(engine): State<Arc<Engine>>,
    caller: Caller,
    Path((owner, name)): Path<(String, String)>,
    Query(asked): Query<Service>,
    headers: HeaderMap,
) -> Result<Response<Body>, PlainRefusal> {
    let repo = repo_name(owner, &name);
    let command = match asked.service.as_deref() {
        Some("git-upload-pack") => "upload-pack",
        Some("git-receive-pack") => "receive-pack",
        _ => {
            let message = "Please upgrade your git client: only smart HTTP is served.";
            return Err(PlainRefusal(Refusal::forbidden(message)));
        }
    };
    check(&engine, &repo, &caller, command == "receive-pack")?;
    let git = engine.git.repo(&repo.owner, &repo.name);
    let args = [command, "--stateless-rpc", "--http-backend-info-refs", "."];
    let refs = git
        .run(&args, &protocol(&headers), b"")
        .await
        .map_err(Refusal::from)?;
    let mut body = pkt_line(&format!("# service=git-{command}\n"));
    body.extend_from_slice(b"0000");
    body.extend_from_slice(&refs);
    let kind = format!("application/x-git-{command}-advertisement");
    Ok(git_response(&kind, Body::from(body)))
}

fn protocol(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let version = headers.get("git-protocol").and_then(|v| v.to_str().ok());
    version
        .map(|v| ("GIT_PROTOCOL", v.to_owned()))
        .into_iter()
        .collect()
}

fn pkt_line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

fn git_response(kind: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    let never = HeaderValue::from_static("no-cache, max-age=0, must-revalidate");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

/// Git compresses large requests.
fn inflate(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Refusal> {
    use std::io::Read;
    let gzipped = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|v| v == "gzip" || v == "x-gzip");
    if !gzipped {
        return Ok(body);
    }
    let mut plain = Vec::new();
    let mut reader = GzDecoder::new(body.as_ref()).take(MAX_INFLATED + 1);
    reader
        .read_to_end(&mut plain)
        .map_err(|error| Refusal::bad_request(format!("Problems reading gzip: {error}")))?;
    if plain.len() as u64 > MAX_INFLATED {
        return Err(Refusal::bad_request("The request is too large"));
    }
    Ok(Bytes::from(plain))
}

async fn upload_pack(
    State(engine): State<Arc<Engine>>,
    caller: Caller,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, PlainRefusal> {
    let repo = repo_name(owner, &name);
    check(&engine, &repo, &caller, false)?;
    let git = engine.git.repo(&repo.owner, &repo.name);
    let body = inflate(&headers, body)?;
    let pack = stream_upload_pack(&git, &headers, body)?;
    Ok(git_response("application/x-git-upload-pack-result", pack))
}

/// Packs may be large, so they are streamed. The process ends with its answer, or is killed with the connection.
fn stream_upload_pack(git: &Git, headers: &HeaderMap, body: Bytes) -> Result<Body, Refusal> {
    let failed = |error: std::io::Error| Refusal::internal(format!("git upload-pack: {error}"));
    let mut command = git.command();
    command
        .args(["upload-pack", "--stateless-rpc", "."])
        .envs(protocol(headers))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Refusal::internal("git upload-pack has no pipes"));
    };
    tokio::spawn(async move {
        if let Err(error) = stdin.write_all(&body).await {
            tracing::debug!(%error, "git upload-pack stopped reading");
        }
    });
    // The child lives in the stream, so that it is killed when the stream is dropped.
    let stream = ReaderStream::new(stdout).map(move |chunk| {
        let _alive = &child;
        chunk
    });
    Ok(Body::from_stream(stream))
}

async fn receive_pack(
    State(engine): State<Arc<Engine>>,
    caller: Caller,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, PlainRefusal> {
    let repo = repo_name(owner, &name);
    check(&engine, &repo, &caller, true)?;
    let Some(login) = caller.0 else {
        return Err(PlainRefusal(Refusal::requires_authentication()));
    };
    let body = inflate(&headers, body)?;
    let _turn = engine.git_turn.lock().await;
    let git = engine.git.repo(&repo.owner, &repo.name);
    let args = ["receive-pack", "--stateless-rpc", "."];
    let report = git
        .run(&args, &protocol(&headers), &body)
        .await
        .map_err(Refusal::from)?;
    let branches = git.branches().await.map_err(Refusal::from)?;
    let tags = git.tags().await.map_err(Refusal::from)?;
    let (branches, tags) = engine.read(|forge| {
        let record = forge.repo(&repo)?;
        Ok::<_, Refusal>((
            moved(&record.branches, &branches),
            moved(&record.tags, &tags),
        ))
    })?;
    let actor = Actor {
        engine: engine.clone(),
        login,
    };
    actor.branches_moved(&repo, branches).await?;
    actor.tags_moved(&repo, tags).await?;
    Ok(git_response(
        "application/x-git-receive-pack-result",
        Body::from(report),
    ))
}

/// Which refs are elsewhere now than before: name, before, after ([`ZERO`] for none).
fn moved(
    before: &BTreeMap<String, String>,
    now: &[(String, String)],
) -> Vec<(String, String, String)> {
    let mut moved = Vec::new();
    for (name, after) in now {
        let before = before.get(name).map_or(ZERO, String::as_str);
        if before != after {
            moved.push((name.clone(), before.to_owned(), after.clone()));
        }
    }
    for (name, before) in before {
        if !now.iter().any(|(known, _)| known == name) {
            moved.push((name.clone(), before.clone(), ZERO.to_owned()));
        }
    }
    moved
}
