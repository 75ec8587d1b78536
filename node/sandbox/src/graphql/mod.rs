//! GraphQL: queries are parsed, validated and executed by the specification against the part of GitHub's schema that
//! stands in `schema.graphql`; errors have GitHub's shape.

mod errors;
mod mutations;
mod objects;
mod record;
mod search;

use std::sync::{Arc, OnceLock};

use apollo_compiler::resolvers::{
    AsyncObjectValue, AsyncResolvedValue, Execution, FieldError, ResolveInfo,
};
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::actor::ensure_mergeability;
use crate::engine::{Engine, Rate};
use crate::forge::{AccountKind, Permission, Refusal, RepoName};
use crate::render::{Render, time};
use crate::rest::{answer_refusal, tell};
use crate::server::Caller;
use mutations::Mutations;
use objects::Objects;
use record::{Cut, Record, typed};
pub(crate) use search::Search;

/// Points that a query costs.
const COST: u64 = 1;

pub(crate) const SCHEMA: &str = include_str!("schema.graphql");

pub(crate) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/graphql", post(query))
        .route("/api/graphql", post(query))
}

fn schema() -> Result<&'static Valid<Schema>, Refusal> {
    static PARSED: OnceLock<Result<Valid<Schema>, String>> = OnceLock::new();
    let parsed = PARSED.get_or_init(|| {
        Schema::parse_and_validate(SCHEMA, "schema.graphql").map_err(|e| e.to_string())
    });
    parsed
        .as_ref()
        .map_err(|error| Refusal::internal(format!("the sandbox's GraphQL schema: {error}")))
}

#[derive(Deserialize)]
struct Asked {
    query: Option<String>,
    #[serde(default)]
    variables: Option<JsonMap>,
    #[serde(default, rename = "operationName")]
    operation_name: Option<String>,
}

async fn query(
    State(engine): State<Arc<Engine>>,
    Caller(caller): Caller,
    body: Bytes,
) -> Response<Body> {
    let Some(login) = caller else {
        return answer_refusal(&Refusal {
            message: "This endpoint requires you to be authenticated.".into(),
            ..Refusal::requires_authentication()
        });
    };
    let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
        return answer_refusal(&Refusal::bad_request("Problems parsing JSON"));
    };
    let (rate, enough) = engine.spend(Some(&login), "graphql", COST);
    let answer = if enough {
        // The executor's futures stay on one thread.
        let runtime = tokio::runtime::Handle::current();
        let (engine, login) = (engine.clone(), login.clone());
        let execution = move || runtime.block_on(execute(&engine, &login, rate, asked));
        match tokio::task::spawn_blocking(execution).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => return answer_refusal(&refusal),
            Err(error) => return answer_refusal(&Refusal::internal(error.to_string())),
        }
    } else {
        let id = engine.read(|forge| forge.account(&login).map_or(0, |a| a.id));
        let message = format!("API rate limit exceeded for user ID {id}.");
        json!({"errors": [{"type": "RATE_LIMITED", "message": message}]})
    };
    let mut response = Response::new(Body::from(answer.to_string()));
    *response.status_mut() = StatusCode::OK;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    tell(&mut response, rate, "graphql");
    response
}

async fn execute(
    engine: &Arc<Engine>,
    login: &str,
    rate: Rate,
    asked: Asked,
) -> Result<Value, Refusal> {
    let schema = schema()?;
    let Some(text) = asked.query.filter(|q| !q.trim().is_empty()) else {
        let message = "A query attribute must be specified and must be a string.";
        return Ok(json!({"errors": [{"message": message}]}));
    };
    let document = match ExecutableDocument::parse_and_validate(schema, &text, "query.graphql") {
        Ok(document) => document,
        Err(invalid) => return Ok(errors::invalid(&invalid)),
    };
    let variables = asked.variables.unwrap_or_default();
    let root = Root {
        engine: engine.clone(),
        login: login.to_owned(),
        rate,
        // A trial merge costs git some work: only for who asks.
        wants_merge: ["mergeable", "canBeRebased", "mergeStateStatus"]
            .iter()
            .any(|field| text.contains(field)),
    };
    let operation = document.operations.get(asked.operation_name.as_deref());
    let mutates = operation.is_ok_and(|operation| operation.is_mutation());
    let execution =
        match Execution::new(schema, &document).operation_name(asked.operation_name.as_deref()) {
            Ok(execution) => execution.raw_variable_values(&variables),
            Err(error) => return Ok(json!({"errors": [{"message": error.message().to_string()}]})),
        };
    let executed = if mutates {
        execution.execute_async(&Mutations(root)).await
    } else {
        execution.execute_async(&root).await
    };
    match executed {
        Ok(response) => errors::executed(response),
        Err(error) => Ok(json!({"errors": [{"message": error.message().to_string()}]})),
    }
}

/// The query type.
struct Root {
    engine: Arc<Engine>,
    login: String,
    rate: Rate,
    wants_merge: bool,
}

impl AsyncObjectValue for Root {
    fn type_name(&self) -> &str {
        "Query"
    }

    fn resolve_field<'a>(
        &'a self,
        info: &'a ResolveInfo<'a>,
    ) -> BoxFuture<'a, Result<AsyncResolvedValue<'a>, FieldError>> {
        Box::pin(async move {
            let record = match info.field_name() {
                "rateLimit" => Some(self.rate_limit()),
                "user" => Some(self.user(info.arguments())?),
                "viewer" => self.show(|objects| objects.viewer(&self.login)),
                "repository" => Some(self.repository(info.arguments())?),
                "search" => Some(self.search(info.arguments()).await?),
                _ => return Err(self.unknown_field_error(info)),
            };
            Ok(AsyncResolvedValue::nullable_object(record))
        })
    }
}

impl Root {
    fn show<R>(&self, f: impl FnOnce(Objects<'_>) -> R) -> R {
        self.engine.show(|render: Render<'_>| f(Objects { render }))
    }

    fn user(&self, args: &JsonMap) -> Result<Record, FieldError> {
        let login = args.get("login").and_then(JsonValue::as_str);
        let login = login.unwrap_or_default();
        let user = self.show(|objects| {
            let account = objects.render.forge.account(login).ok()?;
            (account.kind == AccountKind::User).then(|| objects.account(login))?
        });
        user.ok_or_else(|| {
            typed(
                "NOT_FOUND",
                format!("Could not resolve to a User with the login of '{login}'."),
            )
        })
    }

    fn rate_limit(&self) -> Record {
        Record::new("RateLimit")
            .with("cost", json!(COST))
            .with("limit", json!(self.rate.limit))
            .with("nodeCount", json!(0))
            .with("remaining", json!(self.rate.remaining()))
            .with("resetAt", time(self.rate.reset))
            .with("used", json!(self.rate.used))
    }

    fn repository(&self, args: &JsonMap) -> Result<Record, FieldError> {
        let text = |name: &str| {
            args.get(name)
                .and_then(JsonValue::as_str)
                .unwrap_or_default()
        };
        let name = RepoName::new(text("owner"), text("name"));
        self.show(|objects| {
            let forge = objects.render.forge;
            let seen = forge.require(&name, Some(&self.login), Permission::Read);
            match seen.and_then(|()| forge.repo(&name)) {
                Ok(repo) => Ok(objects.repo(repo)),
                Err(_) => Err(typed(
                    "NOT_FOUND",
                    format!("Could not resolve to a Repository with the name '{name}'."),
                )),
            }
        })
    }

    async fn search(&self, args: &JsonMap) -> Result<Record, FieldError> {
        let text = |name: &str| {
            args.get(name)
                .and_then(JsonValue::as_str)
                .unwrap_or_default()
        };
        let search = Search::parse(text("query"));
        let issues = text("type") == "ISSUE";
        let (total, cut, page) = self.engine.read(|forge| {
            let found = if issues {
                search.run(forge, Some(&self.login))
            } else {
                Vec::new()
            };
            let cut = Cut::of("search", args, found.len())?;
            let page = found.get(cut.range()).unwrap_or_default();
            let page: Vec<(RepoName, u64)> = page
                .iter()
                .map(|(repo, issue)| (repo.name.clone(), issue.number))
                .collect();
            Ok::<_, FieldError>((found.len(), cut, page))
        })?;
        if self.wants_merge {
            self.try_merges(&page).await?;
        }
        let nodes = self.show(|objects| {
            let found = page.iter().filter_map(|(repo, number)| {
                let (repo, issue) = objects.render.forge.issue(repo, *number).ok()?;
                Some(objects.item(repo, issue))
            });
            found.collect()
        });
        Ok(cut.connection("SearchResultItemConnection", nodes, ("issueCount", total)))
    }

    async fn try_merges(&self, page: &[(RepoName, u64)]) -> Result<(), FieldError> {
        let pulls: Vec<(RepoName, u64)> = self.engine.read(|forge| {
            let pulls = page.iter().filter(|(repo, n)| forge.pull(repo, *n).is_ok());
            pulls.cloned().collect()
        });
        for (repo, number) in pulls {
            let tried = ensure_mergeability(&self.engine, &repo, number).await;
            tried.map_err(|error| typed("INTERNAL", error))?;
        }
        Ok(())
    }
}
