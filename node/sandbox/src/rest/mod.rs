//! REST: exactly what the product calls, in GitHub's paths, codes and shapes. Handlers read the request, act through
//! [`Actor`] and show the result; the rules are the core's.

mod actions;
mod apps;
mod commits;
mod hooks;
mod issues;
mod limits;
mod people;
mod pulls;
mod reactions;
mod repos;
mod search;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::IntoResponse;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::forge::{Permission, Refusal, RepoName};
use crate::server::Caller;

pub(crate) use limits::{primary_limit, secondary_limit, tell};

/// GitHub's page size when none is asked for, and at most.
const DEFAULT_PER_PAGE: usize = 30;
const MAX_PER_PAGE: usize = 100;

pub(crate) fn router(engine: &Arc<Engine>) -> Router<Arc<Engine>> {
    Router::new()
        .merge(actions::router())
        .merge(apps::router())
        .merge(people::router())
        .merge(reactions::router())
        .merge(search::router())
        .merge(repos::router())
        .merge(commits::router())
        .merge(issues::router())
        .merge(pulls::router())
        .merge(hooks::router())
        .layer(axum::middleware::from_fn_with_state(
            engine.clone(),
            limits::count_and_tag,
        ))
}

pub(crate) type Answer = Result<Response<Body>, Refusal>;

/// An error as GitHub answers it.
pub(crate) fn answer_refusal(refusal: &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_bytes(status, refusal.body().to_string())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        answer_refusal(&self)
    }
}

fn json_bytes(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn ok(value: &Value) -> Answer {
    Ok(json_bytes(StatusCode::OK, value.to_string()))
}

fn created(value: &Value) -> Answer {
    Ok(json_bytes(StatusCode::CREATED, value.to_string()))
}

fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}

/// Path parameters; what does not parse is not found.
struct At<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(Refusal::not_found()),
        }
    }
}

/// Query parameters; what does not parse is a bad request.
struct Asked<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(Refusal::bad_request(error.body_text())),
        }
    }
}

/// A JSON body. No body at all reads as an empty object, as GitHub reads it.
struct Given<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Refusal::bad_request(error.body_text()))?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|_| Refusal::bad_request("Problems parsing JSON"))?;
        match serde_json::from_value(value) {
            Ok(given) => Ok(Self(given)),
            Err(error) => Err(Refusal::invalid(format!("Invalid request.\n\n{error}"))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Refusal::internal("the request did not come through the server"))
    }
}

/// Who calls, and what is needed to answer them.
struct Desk {
    engine: Arc<Engine>,
    caller: Option<String>,
    uri: Uri,
}

impl FromRequestParts<Arc<Engine>> for Desk {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Engine>) -> Result<Self, Refusal> {
        let Caller(caller) = Caller::from_request_parts(parts, state).await?;
        Ok(Self {
            engine: state.clone(),
            caller,
            uri: parts.uri.clone(),
        })
    }
}

impl Desk {
    /// 404 unless the caller may read the repository.
    fn may_read(&self, repo: &RepoName) -> Result<(), Refusal> {
        self.engine
            .read(|forge| forge.require(repo, self.caller.as_deref(), Permission::Read))
    }

    /// Whoever is signed in.
    fn actor(&self) -> Result<Actor, Refusal> {
        let login = self.caller.clone();
        Ok(Actor {
            engine: self.engine.clone(),
            login: login.ok_or_else(Refusal::requires_authentication)?,
        })
    }

    /// The signed-in user, about to change something in the repository.
    fn writer(&self, repo: &RepoName) -> Result<Actor, Refusal> {
        self.may_read(repo)?;
        let actor = self.actor()?;
        if self
            .engine
            .read(|forge| forge.repo(repo).map(|r| r.archived))?
        {
            return Err(Refusal::forbidden(
                "Repository was archived so is read-only.",
            ));
        }
        Ok(actor)
    }

    /// One page of a list, with the `Link` header that leads to the others.
    fn page(&self, items: Vec<Value>) -> Answer {
        let page = Page::of(&self.uri);
        self.one_page(page, items.len(), page.cut(items))
    }

    /// One page of many items, of which no more are shown than it has.
    fn page_of<T>(&self, items: &[T], show: impl FnMut(&T) -> Value) -> Answer {
        let page = Page::of(&self.uri);
        let shown = page.cut(items.iter().collect());
        self.one_page(page, items.len(), shown.into_iter().map(show).collect())
    }

    fn one_page(&self, page: Page, total: usize, shown: Vec<Value>) -> Answer {
        let mut response = json_bytes(StatusCode::OK, Value::Array(shown).to_string());
        self.link(&mut response, page, total);
        Ok(response)
    }

    fn link(&self, response: &mut Response<Body>, page: Page, total: usize) {
        let links = page.links(&self.engine.base, &self.uri, total);
        if let Some(value) = links.and_then(|links| HeaderValue::from_str(&links).ok()) {
            response.headers_mut().insert(header::LINK, value);
        }
    }
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Page {
    number: usize,
    size: usize,
}

impl Page {
    fn of(uri: &Uri) -> Self {
        #[derive(Deserialize)]
        struct Asked {
            page: Option<String>,
            per_page: Option<String>,
        }
        let asked = Query::<Asked>::try_from_uri(uri).ok();
        // GitHub takes nonsense for nothing.
        let number = |text: Option<&String>| text.and_then(|t| t.parse::<usize>().ok());
        let page = asked.as_ref().and_then(|q| number(q.page.as_ref()));
        let size = asked.as_ref().and_then(|q| number(q.per_page.as_ref()));
        Self {
            number: page.filter(|n| *n > 0).unwrap_or(1),
            size: size
                .filter(|n| *n > 0)
                .unwrap_or(DEFAULT_PER_PAGE)
                .min(MAX_PER_PAGE),
        }
    }

    fn cut<T>(self, items: Vec<T>) -> Vec<T> {
        let skip = (self.number - 1).saturating_mul(self.size);
        items.into_iter().skip(skip).take(self.size).collect()
    }

    fn links(self, base: &str, uri: &Uri, total: usize) -> Option<String> {
        let last = total.div_ceil(self.size).max(1);
        let mut links = Vec::new();
        let mut add = |number: usize, rel: &str| {
            let kept = uri
                .query()
                .unwrap_or_default()
                .split('&')
                .filter(|pair| !pair.is_empty() && !pair.starts_with("page="));
            let mut query: Vec<String> = kept.map(str::to_owned).collect();
            query.push(format!("page={number}"));
            let url = format!("{base}{}?{}", uri.path(), query.join("&"));
            links.push(format!("<{url}>; rel=\"{rel}\""));
        };
        if self.number > 1 {
            add(self.number - 1, "prev");
        }
        if self.number < last {
            add(self.number + 1, "next");
            add(last, "last");
        }
        if self.number > 1 {
            add(1, "first");
        }
        (!links.is_empty()).then(|| links.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_neighbours_and_the_ends() {
        let uri: Uri = "/repos/o/r/pulls?state=all&per_page=2&page=2"
            .parse()
            .unwrap();
        let page = Page::of(&uri);
        assert_eq!(page, Page { number: 2, size: 2 });
        assert_eq!(page.cut(vec![1, 2, 3, 4, 5]), [3, 4]);
        insta::assert_snapshot!(
            page.links("http://h", &uri, 5).unwrap().replace(", ", ",\n"),
            @r#"
        <http://h/repos/o/r/pulls?state=all&per_page=2&page=1>; rel="prev",
        <http://h/repos/o/r/pulls?state=all&per_page=2&page=3>; rel="next",
        <http://h/repos/o/r/pulls?state=all&per_page=2&page=3>; rel="last",
        <http://h/repos/o/r/pulls?state=all&per_page=2&page=1>; rel="first"
        "#
        );
    }

    #[test]
    fn a_page_is_at_most_a_hundred_and_nonsense_is_the_default() {
        let uri: Uri = "/x?per_page=1000&page=zero".parse().unwrap();
        let page = Page {
            number: 1,
            size: 100,
        };
        assert_eq!(Page::of(&uri), page);
        assert_eq!(page.links("", &uri, 100), None);
    }
}
