//! YAML as Go's `sigs.k8s.io/yaml` reads it: YAML 1.1 scalars, merge keys, the first document of a file only,
//! the last of equal keys. A document becomes a tree of [`Node`]s that know their line and column.
//!
//! What a scalar *means* is decided here; what a field *wants* is decided in [`crate::decode`].

mod compose;
mod scalar;
mod write;

pub use compose::{Document, Notice, YamlError, parse};
pub use scalar::Number;
pub use write::{YamlWriteError, to_string, to_string_with_comments};

use std::sync::Arc;

/// Where a node or key starts: 1-based line and column, counted in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// A value of a document, with its place in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub value: NodeValue,
    pub at: Position,
}

/// What a node holds. Aliases are already followed: both places share one node, and so one position.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeValue {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Sequence(Vec<Arc<Node>>),
    Mapping(Vec<Entry>),
}

/// A key with its value; keys of one mapping are unique, in the order of their first mention.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_at: Position,
    pub value: Arc<Node>,
}

impl Node {
    /// The kind in the words of Go's JSON decoder, as upstream's errors use them.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            NodeValue::Null => "null",
            NodeValue::Bool(_) => "bool",
            NodeValue::Number(_) => "number",
            NodeValue::String(_) => "string",
            NodeValue::Sequence(_) => "array",
            NodeValue::Mapping(_) => "object",
        }
    }

    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value, NodeValue::Null)
    }

    /// The value under a key, by its exact name.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Arc<Node>> {
        match &self.value {
            NodeValue::Mapping(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// The JSON that upstream makes of the node.
    ///
    /// # Errors
    /// The position and text of a number that JSON cannot hold (infinite or not a number).
    pub fn to_json(&self) -> Result<serde_json::Value, (Position, String)> {
        use serde_json::Value;
        Ok(match &self.value {
            NodeValue::Null => Value::Null,
            NodeValue::Bool(b) => Value::Bool(*b),
            NodeValue::Number(n) => n.to_json().ok_or_else(|| {
                (
                    self.at,
                    format!("json: unsupported value: {}", n.as_string()),
                )
            })?,
            NodeValue::String(s) => Value::String(s.clone()),
            NodeValue::Sequence(items) => Value::Array(
                items
                    .iter()
                    .map(|n| n.to_json())
                    .collect::<Result<_, _>>()?,
            ),
            NodeValue::Mapping(entries) => Value::Object(
                entries
                    .iter()
                    .map(|e| Ok((e.key.clone(), e.value.to_json()?)))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }
}
