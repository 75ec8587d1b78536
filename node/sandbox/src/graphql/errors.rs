//! GraphQL errors in GitHub's shape.

use apollo_compiler::ExecutableDocument;
use apollo_compiler::response::ExecutionResponse;
use apollo_compiler::validation::WithErrors;
use serde_json::{Value, json};

use crate::forge::Refusal;

/// A document that does not parse or fit the schema: errors, no data.
pub(super) fn invalid(found: &WithErrors<ExecutableDocument>) -> Value {
    let mut errors = Vec::new();
    for diagnostic in found.errors.iter() {
        let mut error = diagnostic.to_json();
        let message = error.message.clone();
        let mut value = match undefined_field(&message) {
            Some((kind, field)) => json!({
                "path": ["query"],
                "extensions": {"code": "undefinedField", "typeName": kind, "fieldName": field},
                "message": format!("Field '{field}' doesn't exist on type '{kind}'"),
            }),
            None => json!({"message": message}),
        };
        error.locations.truncate(1);
        if let Some(location) = error.locations.first() {
            value["locations"] = json!([{"line": location.line, "column": location.column}]);
        }
        errors.push(value);
    }
    json!({"errors": errors})
}

/// What execution gave; errors get the `type` that resolvers put before their message.
pub(super) fn executed(response: ExecutionResponse) -> Result<Value, Refusal> {
    let unreadable =
        |error: serde_json::Error| Refusal::internal(format!("a GraphQL answer: {error}"));
    let mut errors = Vec::new();
    for error in response.errors {
        let text = error.message.strip_prefix("resolver error: ");
        let text = text.unwrap_or(&error.message);
        let (kind, message) = match text.split_once('\u{0}') {
            Some((kind, message)) => (Some(kind), message),
            None => (None, text),
        };
        let mut value = json!({});
        if let Some(kind) = kind {
            value["type"] = json!(kind);
        }
        value["path"] = serde_json::to_value(&error.path).map_err(unreadable)?;
        let locations = error.locations.iter();
        let locations = locations.map(|at| json!({"line": at.line, "column": at.column}));
        value["locations"] = locations.collect();
        value["message"] = json!(message);
        errors.push(value);
    }
    let data = serde_json::to_value(&response.data).map_err(unreadable)?;
    let mut answer = json!({"data": data});
    if !errors.is_empty() {
        answer["errors"] = Value::Array(errors);
    }
    Ok(answer)
}

/// Type and field, when the compiler says that the one lacks the other: GitHub has its own words for that.
fn undefined_field(message: &str) -> Option<(&str, &str)> {
    let rest = message.strip_prefix("type `")?;
    let (kind, rest) = rest.split_once('`')?;
    let field = rest.strip_prefix(" does not have a field `")?;
    Some((kind, field.strip_suffix('`')?))
}
