//! From OpenAPI to JSON Schema, one schema at a time with just the components it reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::{Map, Value, json};

/// Violations reported of one document, so that a wrong shape does not drown its cause.
const MAX_REPORTED: usize = 8;

/// The components of a description, and the validators made from it so far.
#[derive(Debug)]
pub(super) struct Schemas {
    components: Map<String, Value>,
    made: Mutex<BTreeMap<String, Arc<Validator>>>,
}

impl Schemas {
    /// Takes `components.schemas` of a description.
    pub(super) fn of(description: &Value) -> Self {
        let components = description.pointer("/components/schemas");
        let components = components.and_then(Value::as_object).cloned();
        Self {
            components: components.unwrap_or_default(),
            made: Mutex::default(),
        }
    }

    /// How `instance` departs from `schema`; `key` names the schema among those judged before.
    pub(super) fn judge(&self, key: &str, schema: &Value, instance: &Value) -> Vec<String> {
        let validator = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            match made.get(key) {
                Some(validator) => validator.clone(),
                None => match self.build(schema) {
                    Ok(validator) => {
                        let validator = Arc::new(validator);
                        made.insert(key.to_owned(), validator.clone());
                        validator
                    }
                    Err(error) => return vec![format!("{key}: the schema is unusable: {error}")],
                },
            }
        };
        let mut found = Vec::new();
        for error in validator.iter_errors(instance) {
            explain(&error, &mut found);
        }
        found.truncate(MAX_REPORTED);
        found
    }

    fn build(&self, schema: &Value) -> Result<Validator, String> {
        let mut reached = BTreeSet::new();
        self.reach(schema, &mut reached);
        let mut definitions = Map::new();
        for name in reached {
            let component = self.components.get(&name).unwrap_or(&Value::Null);
            definitions.insert(name, plain(component));
        }
        let mut root = plain(schema);
        root["components"] = json!({"schemas": definitions});
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .should_ignore_unknown_formats(true)
            .build(&root)
            .map_err(|error| error.to_string())
    }

    fn reach(&self, schema: &Value, reached: &mut BTreeSet<String>) {
        match schema {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let name = value
                        .as_str()
                        .filter(|_| key == "$ref")
                        .and_then(|r| r.strip_prefix("#/components/schemas/"));
                    if let Some(name) = name {
                        if reached.insert(name.to_owned())
                            && let Some(component) = self.components.get(name)
                        {
                            self.reach(component, reached);
                        }
                    } else {
                        self.reach(value, reached);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.reach(item, reached)),
            _ => {}
        }
    }
}

/// Turns OpenAPI 3.0's `nullable` into JSON Schema and leaves out what is no schema (examples, extensions).
fn plain(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let mut out = Map::new();
    for (key, value) in fields {
        let value = match key.as_str() {
            "nullable" | "example" | "examples" | "discriminator" | "xml" | "externalDocs"
            | "deprecated" => continue,
            key if key.starts_with("x-") => continue,
            "properties" | "patternProperties" => match value {
                Value::Object(properties) => {
                    let properties = properties.iter();
                    Value::Object(properties.map(|(k, v)| (k.clone(), plain(v))).collect())
                }
                other => other.clone(),
            },
            "items" | "additionalProperties" | "not" => plain(value),
            "allOf" | "anyOf" | "oneOf" => match value {
                Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
                other => other.clone(),
            },
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if fields.get("nullable") == Some(&Value::Bool(true)) {
        return json!({"anyOf": [{"type": "null"}, Value::Object(out)]});
    }
    Value::Object(out)
}

/// Says what is wrong and where; of alternatives, the one that comes closest.
fn explain(error: &ValidationError<'_>, found: &mut Vec<String>) {
    let branches = match error.kind() {
        ValidationErrorKind::AnyOf { context } => context,
        ValidationErrorKind::OneOfNotValid { context } => context,
        _ => {
            let mut text = error.to_string();
            // What is wrong stands at the end.
            if text.chars().count() > 400 {
                let start: String = text.chars().take(200).collect();
                let end: Vec<char> = text.chars().rev().take(200).collect();
                text = format!("{start} … {}", end.iter().rev().collect::<String>());
            }
            let path = error.instance_path().to_string();
            let place = if path.is_empty() { "/" } else { &path };
            found.push(format!("{place}: {text}"));
            return;
        }
    };
    // The closest alternative is the one that fails deepest inside of the document, not at its very type.
    let depth = |branch: &Vec<ValidationError<'_>>| {
        let depths = branch.iter();
        let least = depths
            .map(|e| e.instance_path().to_string().matches('/').count())
            .min();
        (least.unwrap_or(0), std::cmp::Reverse(branch.len()))
    };
    // That it is not null is seldom what is wrong with it.
    let is_null = |branch: &Vec<ValidationError<'_>>| match &branch[..] {
        [only] => only.to_string().ends_with("is not of type \"null\""),
        _ => false,
    };
    let closest = branches
        .iter()
        .max_by_key(|branch| (!is_null(branch), depth(branch)));
    match closest {
        Some(branch) => branch.iter().for_each(|inner| explain(inner, found)),
        None => found.push(error.to_string()),
    }
}
