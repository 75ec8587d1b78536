//! How the forge says no: GitHub's status codes and messages.

use serde_json::{Value, json};

/// A request that GitHub would refuse, in its own words. Nothing was changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{status} {message}")]
pub struct Refusal {
    /// HTTP status code.
    pub status: u16,
    /// GitHub's `message`.
    pub message: String,
    /// GitHub's `errors`, empty for most.
    pub errors: Vec<Value>,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            errors: Vec::new(),
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub fn bad_credentials() -> Self {
        Self::new(401, "Bad credentials")
    }

    pub fn requires_authentication() -> Self {
        Self::new(401, "Requires authentication")
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }

    /// What GitHub answers to those who lack triage or write access.
    pub fn must_have_rights() -> Self {
        Self::new(403, "Must have admin rights to Repository.")
    }

    /// Also for what exists but may not be seen.
    pub fn not_found() -> Self {
        Self::new(404, "Not Found")
    }

    pub fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(405, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    /// 422 with a message of its own.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, message)
    }

    /// 422 `Validation Failed` that names the field.
    pub fn validation(resource: &str, field: &str, code: &str) -> Self {
        Self {
            status: 422,
            message: "Validation Failed".into(),
            errors: vec![json!({"resource": resource, "field": field, "code": code})],
        }
    }

    /// The same, with the value that is not taken.
    pub fn validation_value(resource: &str, field: &str, code: &str, value: &str) -> Self {
        Self {
            status: 422,
            message: "Validation Failed".into(),
            errors: vec![
                json!({"value": value, "resource": resource, "field": field, "code": code}),
            ],
        }
    }

    /// 422 `Unprocessable Entity` with sentences.
    pub fn unprocessable(sentence: &str) -> Self {
        Self {
            status: 422,
            message: "Unprocessable Entity".into(),
            errors: vec![json!(sentence)],
        }
    }

    /// 422 `Validation Failed` with a custom message.
    pub fn validation_custom(resource: &str, message: &str) -> Self {
        Self {
            status: 422,
            message: "Validation Failed".into(),
            errors: vec![json!({"resource": resource, "code": "custom", "message": message})],
        }
    }

    /// The sandbox itself failed (git, disk): 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// GitHub's error body.
    pub fn body(&self) -> Value {
        let mut body = json!({"message": self.message});
        if !self.errors.is_empty() {
            body["errors"] = Value::Array(self.errors.clone());
        }
        body["documentation_url"] = json!("https://docs.github.com/rest");
        body["status"] = json!(self.status.to_string());
        body
    }
}
