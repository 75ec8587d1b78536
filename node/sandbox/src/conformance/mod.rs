//! Judging what crosses the sandbox's door by GitHub's own descriptions: its OpenAPI for REST and webhooks, its schema
//! for GraphQL. For tests of the sandbox and of clients that talk to it; the descriptions are read, never contained.
//!
//! A client's test starts a sandbox with `record_exchanges`, lets the client work, and asserts that
//! [`Descriptions::judge`] finds nothing in [`crate::Sandbox::exchanges`].

mod schema;

use std::io::Read;
use std::path::{Path, PathBuf};

use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::exchange::Exchange;
use schema::Schemas;

/// GitHub's published descriptions.
#[derive(Debug)]
pub struct Descriptions {
    rest: Value,
    rest_schemas: Schemas,
    webhooks: Value,
    webhook_schemas: Schemas,
    graphql: Valid<Schema>,
}

/// The descriptions are there but cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct Unreadable {
    pub file: PathBuf,
    pub reason: String,
}

/// Paths of the API that GitHub serves but does not describe there.
const UNDESCRIBED: [&str; 1] = ["/graphql"];

impl Descriptions {
    /// Reads `api.github.com.openapi.json.gz`, `webhooks.openapi.json.gz` and `schema.graphql` from a directory; none
    /// when there is no such directory.
    ///
    /// # Errors
    /// When a file is missing or does not parse.
    pub fn load(dir: &Path) -> Result<Option<Self>, Unreadable> {
        if !dir.is_dir() {
            return Ok(None);
        }
        let rest = read_gzipped(&dir.join("api.github.com.openapi.json.gz"))?;
        let webhooks = read_gzipped(&dir.join("webhooks.openapi.json.gz"))?;
        let graphql = read_schema(&dir.join("schema.graphql"))?;
        Ok(Some(Self {
            rest_schemas: Schemas::of(&rest),
            rest,
            webhook_schemas: Schemas::of(&webhooks),
            webhooks,
            graphql,
        }))
    }

    /// What is wrong with these exchanges: requests that GitHub does not describe, answers that it would not give.
    /// Paths outside of the API (git, pages, controls) are passed over.
    pub fn judge(&self, exchanges: &[Exchange]) -> Vec<String> {
        let mut found = Vec::new();
        for exchange in exchanges {
            let line = format!(
                "{} {} → {}",
                exchange.method, exchange.path, exchange.status
            );
            let wrong = self.judge_one(exchange);
            found.extend(wrong.into_iter().map(|wrong| format!("{line}: {wrong}")));
        }
        found
    }

    fn judge_one(&self, exchange: &Exchange) -> Vec<String> {
        if UNDESCRIBED.contains(&exchange.path.as_str()) {
            return self.judge_graphql(&exchange.request_body);
        }
        let api = [
            "/repos/",
            "/orgs/",
            "/teams/",
            "/user",
            "/rate_limit",
            "/search/",
            "/app",
        ];
        if !api.iter().any(|prefix| exchange.path.starts_with(prefix)) {
            return Vec::new();
        }
        let Some((template, operation)) = self.operation(&exchange.method, &exchange.path) else {
            return vec!["GitHub describes no such operation".into()];
        };
        let key = format!("{} {template}", exchange.method);
        let mut found = self.judge_query(template, operation, exchange.query.as_deref());
        found.extend(self.judge_request_body(&key, operation, exchange));
        found.extend(self.judge_answer(&key, operation, exchange));
        found
    }

    /// The described operation with the most literal path.
    fn operation(&self, method: &str, path: &str) -> Option<(&str, &Value)> {
        let method = method.to_lowercase();
        let paths = self.rest.get("paths")?.as_object()?;
        let mut best: Option<(usize, &str, &Value)> = None;
        for (template, item) in paths {
            let Some(operation) = item.get(&method) else {
                continue;
            };
            let literal = template.split('/').filter(|s| !s.starts_with('{')).count();
            if best.is_none_or(|(most, ..)| literal > most) && fits(template, path) {
                best = Some((literal, template, operation));
            }
        }
        best.map(|(_, template, operation)| (template, operation))
    }

    fn resolve<'v>(&'v self, value: &'v Value) -> &'v Value {
        value
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| self.rest.pointer(reference.trim_start_matches('#')))
            .unwrap_or(value)
    }

    fn judge_query(&self, template: &str, operation: &Value, query: Option<&str>) -> Vec<String> {
        let parameters = operation.get("parameters").and_then(Value::as_array);
        let parameters: Vec<&Value> = parameters
            .into_iter()
            .flatten()
            .map(|parameter| self.resolve(parameter))
            .collect();
        let mut found = Vec::new();
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        for (name, value) in pairs {
            let described = parameters.iter().find(|p| {
                p.get("in").and_then(Value::as_str) == Some("query")
                    && p.get("name").and_then(Value::as_str) == Some(&name)
            });
            let Some(described) = described else {
                found.push(format!("query parameter {name:?} is not described"));
                continue;
            };
            let schema = described.get("schema").unwrap_or(&Value::Null);
            // What is a number or truth value in the schema is text in a URL.
            let instance = serde_json::from_str::<Value>(&value)
                .ok()
                .filter(|v| v.is_number() || v.is_boolean())
                .filter(|_| schema.get("type").and_then(Value::as_str) != Some("string"))
                .unwrap_or_else(|| Value::String(value.into_owned()));
            let key = format!("{template}?{name}");
            let wrong = self.rest_schemas.judge(&key, schema, &instance);
            found.extend(
                wrong
                    .into_iter()
                    .map(|w| format!("query parameter {name:?}: {w}")),
            );
        }
        found
    }

    fn judge_request_body(&self, key: &str, operation: &Value, exchange: &Exchange) -> Vec<String> {
        let body = &exchange.request_body;
        let described = operation.get("requestBody").map(|body| self.resolve(body));
        let schema = described.and_then(|d| d.pointer("/content/application~1json/schema"));
        let Some(schema) = schema else {
            // GitHub ignores a body that an operation does not have; clients send empty objects.
            let empty = body.is_empty() || body.as_ref() == b"{}" || body.as_ref() == b"null";
            return if empty {
                Vec::new()
            } else {
                vec!["sends a body where none is described".into()]
            };
        };
        if body.is_empty() {
            let required = described.and_then(|d| d.get("required"));
            return if required == Some(&Value::Bool(true)) {
                vec!["sends no body where one is required".into()]
            } else {
                Vec::new()
            };
        }
        match serde_json::from_slice(body) {
            Ok(instance) => {
                let key = format!("{key} request");
                let wrong = self.rest_schemas.judge(&key, schema, &instance);
                wrong
                    .into_iter()
                    .map(|w| format!("request body {w}"))
                    .collect()
            }
            Err(error) => vec![format!("request body is no JSON: {error}")],
        }
    }

    fn judge_answer(&self, key: &str, operation: &Value, exchange: &Exchange) -> Vec<String> {
        let status = exchange.status.to_string();
        let responses = operation.get("responses");
        let described = responses.and_then(|r| r.get(&status));
        let described = match described.map(|response| self.resolve(response)) {
            Some(described) => described,
            // Every operation may be refused; not every one says so.
            None if exchange.status >= 400 || exchange.status == 304 => &Value::Null,
            None => return vec![format!("status {status} is not described")],
        };
        let schema = described.pointer("/content/application~1json/schema");
        let error = Value::from_iter([("$ref", "#/components/schemas/basic-error")]);
        let schema = match schema {
            Some(schema) => schema,
            None if exchange.status >= 400 => &error,
            None => {
                // Some answers without a described body have one, such as the empty object of 202.
                return Vec::new();
            }
        };
        match serde_json::from_slice(&exchange.response_body) {
            Ok(instance) => {
                let key = format!("{key} {status}");
                self.rest_schemas.judge(&key, schema, &instance)
            }
            Err(error) => vec![format!("the answer is no JSON: {error}")],
        }
    }

    fn judge_graphql(&self, body: &[u8]) -> Vec<String> {
        match serde_json::from_slice::<Value>(body) {
            Ok(request) => match request.get("query").and_then(Value::as_str) {
                Some(query) => self.judge_graphql_query(query),
                None => vec!["the request has no query".into()],
            },
            Err(error) => vec![format!("request body is no JSON: {error}")],
        }
    }

    /// What is wrong with a GraphQL document by GitHub's schema.
    pub fn judge_graphql_query(&self, query: &str) -> Vec<String> {
        match ExecutableDocument::parse_and_validate(&self.graphql, query, "query.graphql") {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.errors.iter().map(|e| e.to_string()).collect(),
        }
    }

    /// GitHub's whole GraphQL schema.
    pub fn graphql_schema(&self) -> &Valid<Schema> {
        &self.graphql
    }

    /// What is wrong with a webhook's payload.
    pub fn judge_webhook(&self, event: &str, payload: &Value) -> Vec<String> {
        let action = payload.get("action").and_then(Value::as_str);
        let name = match action {
            // The one whose name does not repeat the action.
            Some("review_requested") => "pull-request-review-requested".to_owned(),
            Some("review_request_removed") => "pull-request-review-request-removed".to_owned(),
            Some(action) => format!("{event}-{action}").replace('_', "-"),
            None => event.replace('_', "-"),
        };
        let pointer = format!("/webhooks/{name}/post/requestBody/content/application~1json/schema");
        match self.webhooks.pointer(&pointer) {
            Some(schema) => self.webhook_schemas.judge(&name, schema, payload),
            None => vec![format!("GitHub describes no webhook {name}")],
        }
    }
}

/// Does the path fit the template? A parameter may stand for several segments: GitHub's names of branches and files do.
fn fits(template: &str, path: &str) -> bool {
    fn rest(template: &[&str], path: &[&str]) -> bool {
        match template.split_first() {
            None => path.is_empty(),
            Some((name, after)) if name.starts_with('{') => {
                let multi = ["{path}", "{ref}", "{branch}", "{basehead}"].contains(name);
                let least = usize::from(*name != "{path}");
                let most = if multi { path.len() } else { path.len().min(1) };
                (least..=most).any(|n| rest(after, &path[n..]))
            }
            Some((literal, after)) => match path.split_first() {
                Some((first, others)) => first == literal && rest(after, others),
                None => false,
            },
        }
    }
    let split = |text: &'_ str| -> Vec<String> {
        let segments = text.trim_matches('/').split('/');
        segments.map(str::to_owned).collect()
    };
    let (template, path) = (split(template), split(path));
    let template: Vec<&str> = template.iter().map(String::as_str).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    rest(&template, &path)
}

/// GitHub's schema defines a few fields twice, which the specification forbids; the first definitions are taken.
fn read_schema(file: &Path) -> Result<Valid<Schema>, Unreadable> {
    let unreadable = |reason: String| Unreadable {
        file: file.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
    match Schema::parse(text, file) {
        Ok(schema) => Ok(Valid::assume_valid(schema)),
        Err(found) => {
            let mut errors = found.errors.iter().map(|e| e.error.to_string());
            match errors.find(|e| !e.contains("duplicate definitions")) {
                Some(error) => Err(unreadable(error)),
                None => Ok(Valid::assume_valid(found.partial)),
            }
        }
    }
}

fn read_gzipped(file: &Path) -> Result<Value, Unreadable> {
    let unreadable = |reason: String| Unreadable {
        file: file.to_owned(),
        reason,
    };
    let bytes = std::fs::read(file).map_err(|e| unreadable(e.to_string()))?;
    let mut text = String::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_string(&mut text)
        .map_err(|e| unreadable(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_branch_or_file_may_have_slashes() {
        for (template, path, expected) in [
            ("/repos/{owner}/{repo}", "/repos/o/r", true),
            ("/repos/{owner}/{repo}", "/repos/o/r/pulls", false),
            (
                "/repos/{owner}/{repo}/contents/{path}",
                "/repos/o/r/contents/a/b",
                true,
            ),
            (
                "/repos/{owner}/{repo}/commits/{ref}/status",
                "/repos/o/r/commits/a/b/status",
                true,
            ),
            (
                "/repos/{owner}/{repo}/commits/{ref}/status",
                "/repos/o/r/commits/a/b",
                false,
            ),
        ] {
            assert_eq!(fits(template, path), expected, "{template} {path}");
        }
    }
}
