//! Nodes → values, by the rules of Go's `encoding/json`: names match without case if not exactly, `null` leaves the
//! zero value, integral floats are integers. What nobody reads becomes a warning, a wrong type an error; both know
//! their place. Decoding never stops at the first problem.

pub(crate) mod describe;
mod doc;
mod hints;
#[cfg(test)]
mod meant;
#[macro_use]
mod object;
mod schema;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use trireme_prowjob::{GoDuration, MetaDuration};

pub(crate) use describe::{Definitions, Describe};
pub(crate) use hints::one_of;
pub(crate) use object::{Empty, Object, decode as decode_object};
pub(crate) use schema::{describe as describe_object, in_field_order};

use crate::diagnostic::{Diagnostic, Rule};
use crate::suggest;
use crate::yaml::{Entry, Node, NodeValue, Position};

/// Errors, and warnings, that are told of one file; there may be as many as there are values.
const MAX_FINDINGS: usize = 1000;
/// Bytes of a path or a name in a message, beyond which it is cut: keys may be as long as the file.
const MAX_NAME_BYTES: usize = 500;

/// One step from a value to a part of it.
#[derive(Clone, Copy, Debug)]
enum Step<'n> {
    Key(&'n str),
    Index(usize),
}

/// Where the decoder is, and what it found so far.
pub(crate) struct Cx<'n> {
    file: &'n str,
    path: Vec<Step<'n>>,
    /// Whether upstream turns other scalars into strings here (CFG-021). Its converter loses track of the target at
    /// every embedded struct, so this holds only where none lies on the path.
    coerce: bool,
    pub(crate) diagnostics: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl<'n> Cx<'n> {
    pub(crate) fn new(file: &'n str, coerce: bool) -> Self {
        Self {
            file,
            path: Vec::new(),
            coerce,
            diagnostics: Vec::new(),
            errors: 0,
            warnings: 0,
        }
    }

    /// The path as people write it: `presubmits["org/repo"][0].spec`.
    pub(crate) fn path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            if text.len() > MAX_NAME_BYTES {
                text.push('…');
                break;
            }
            match step {
                Step::Index(n) => text += &format!("[{n}]"),
                Step::Key(key) if is_plain(key) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text += &shortened(key);
                }
                Step::Key(key) => text += &format!("[{:?}]", shortened(key)),
            }
        }
        text
    }

    pub(crate) fn under<T>(&mut self, key: &'n str, decode: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Key(key));
        let value = decode(self);
        self.path.pop();
        value
    }

    pub(crate) fn item<T>(&mut self, index: usize, decode: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Index(index));
        let value = decode(self);
        self.path.pop();
        value
    }

    /// Decodes what stands behind an embedded struct.
    pub(crate) fn embedded<T>(&mut self, decode: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.coerce, false);
        let value = decode(self);
        self.coerce = before;
        value
    }

    pub(crate) fn error(&mut self, at: Position, rule: Rule, message: impl Into<String>) {
        let found = Diagnostic::error(rule, self.file, message)
            .at(at)
            .field(self.path());
        self.tell(found);
    }

    fn tell(&mut self, found: Diagnostic) {
        let (what, told) = if found.is_error() {
            ("errors", &mut self.errors)
        } else {
            ("warnings", &mut self.warnings)
        };
        *told += 1;
        if *told <= MAX_FINDINGS {
            self.diagnostics.push(found);
        } else if *told == MAX_FINDINGS + 1 {
            let message =
                format!("more than {MAX_FINDINGS} {what} in this file; the rest is not told");
            self.diagnostics.push(Diagnostic { message, ..found });
        }
    }

    pub(crate) fn wrong_type(&mut self, node: &Node, wanted: &str) {
        self.error(
            node.at,
            Rule::Type,
            format!("cannot use {} as {wanted}", with_article(node.kind())),
        );
    }

    /// `free` are the names that would be read here and that nothing has yet, see [`free`].
    pub(crate) fn unknown_field(&mut self, entry: &'n Entry, free: &[&str]) {
        let key = entry.key.as_str();
        let is_told = self.warnings < MAX_FINDINGS;
        let meant = if is_told {
            suggest::did_you_mean(key, free.iter().copied())
        } else {
            String::new()
        };
        self.path.push(Step::Key(key));
        let found = Diagnostic::error(
            Rule::UnknownField,
            self.file,
            format!("unknown field {:?}", shortened(key)),
        )
        .at(entry.key_at)
        .field(self.path())
        .help(meant)
        .warning();
        self.path.pop();
        self.tell(found);
    }

    /// A field that is written twice, in different cases.
    pub(crate) fn shadowed_field(&mut self, key: &'n str, by: &str, at: Position) {
        let message = format!("field {:?} has no effect beside {by:?}", shortened(key));
        let found = Diagnostic::error(Rule::DuplicateKey, self.file, message)
            .at(at)
            .field(self.path());
        self.tell(found.warning());
    }

    pub(crate) fn string(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            NodeValue::String(s) => Some(s.clone()),
            NodeValue::Number(n) if self.coerce => Some(n.as_string()),
            NodeValue::Bool(b) if self.coerce => Some(b.to_string()),
            NodeValue::Null => None,
            _ => {
                self.wrong_type(node, "a string; put it in quotes");
                None
            }
        }
    }

    pub(crate) fn integer(&mut self, node: &Node) -> Option<i64> {
        match &node.value {
            NodeValue::Number(n) => {
                let integer = n.as_i64();
                if integer.is_none() {
                    self.error(
                        node.at,
                        Rule::Type,
                        format!("{} is no integer of 64 bits", n.json_text()),
                    );
                }
                integer
            }
            NodeValue::Null => None,
            _ => {
                self.wrong_type(node, "an integer");
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            NodeValue::Bool(b) => Some(*b),
            NodeValue::Null => None,
            _ => {
                self.wrong_type(node, "a boolean");
                None
            }
        }
    }

    /// A duration in Go's text form (CFG-027).
    pub(crate) fn duration(&mut self, node: &Node) -> Option<GoDuration> {
        let text = match &node.value {
            NodeValue::String(text) => text,
            NodeValue::Null => return None,
            _ => {
                self.wrong_type(node, "a duration; write it as in \"1h30m\"");
                return None;
            }
        };
        match text.parse() {
            Ok(duration) => Some(duration),
            Err(e) => {
                self.error(node.at, Rule::Type, format!("{e}"));
                None
            }
        }
    }

    pub(crate) fn json(&mut self, node: &Node) -> Value {
        node.to_json().unwrap_or_else(|(at, message)| {
            self.error(at, Rule::Type, message);
            Value::Null
        })
    }

    pub(crate) fn entries(&mut self, node: &'n Node, wanted: &str) -> &'n [crate::yaml::Entry] {
        match &node.value {
            NodeValue::Mapping(entries) => entries,
            NodeValue::Null => &[],
            _ => {
                self.wrong_type(node, wanted);
                &[]
            }
        }
    }

    pub(crate) fn items(&mut self, node: &'n Node) -> &'n [Arc<Node>] {
        match &node.value {
            NodeValue::Sequence(items) => items,
            NodeValue::Null => &[],
            _ => {
                self.wrong_type(node, "a list");
                &[]
            }
        }
    }

    /// An object that is described by a schema, as its JSON.
    pub(crate) fn object(&mut self, type_name: &str, node: &'n Node) -> Value {
        schema::decode(type_name, node, self)
    }

    /// An object of Prow's API. After a problem inside, the rest of it still counts.
    pub(crate) fn prow_object<T: DeserializeOwned + Default>(
        &mut self,
        type_name: &str,
        node: &'n Node,
    ) -> T {
        let value = self.object(type_name, node);
        serde_json::from_value(value).unwrap_or_else(|e| {
            self.error(node.at, Rule::Type, e.to_string());
            T::default()
        })
    }
}

/// The names that no key of a mapping has yet: one of them may have been meant by a key that nobody reads.
pub(crate) fn free<'k>(
    names: impl IntoIterator<Item = &'k str>,
    entries: &[Entry],
) -> Vec<&'k str> {
    let is_free = |name: &&str| {
        !entries
            .iter()
            .any(|entry| entry.key.eq_ignore_ascii_case(name))
    };
    names.into_iter().filter(is_free).collect()
}

/// A key for a message, cut where it is very long.
fn shortened(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_NAME_BYTES {
        return key.into();
    }
    let end = key.floor_char_boundary(MAX_NAME_BYTES);
    format!("{}…", &key[..end]).into()
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn with_article(kind: &str) -> String {
    match kind {
        "array" => "a list".to_owned(),
        "object" => "a mapping".to_owned(),
        "bool" => "a boolean".to_owned(),
        kind => format!("a {kind}"),
    }
}

/// What can be read from a node. `null` reads as the zero value everywhere.
pub(crate) trait Decode: Default {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self;
}

impl Decode for String {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        cx.string(node).unwrap_or_default()
    }
}

impl Decode for bool {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        cx.boolean(node).unwrap_or_default()
    }
}

impl Decode for i64 {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        cx.integer(node).unwrap_or_default()
    }
}

impl Decode for Value {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        cx.json(node)
    }
}

impl Decode for GoDuration {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        cx.duration(node).unwrap_or_default()
    }
}

impl Decode for MetaDuration {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        cx.duration(node).unwrap_or_default().into()
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        (!node.is_null()).then(|| T::decode(node, cx))
    }
}

impl<T: Decode> Decode for Arc<T> {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        Self::new(T::decode(node, cx))
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        cx.items(node)
            .iter()
            .enumerate()
            .map(|(n, item)| cx.item(n, |cx| T::decode(item, cx)))
            .collect()
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
        let entries = cx.entries(node, "a mapping");
        entries
            .iter()
            .map(|e| {
                (
                    e.key.clone(),
                    cx.under(&e.key, |cx| T::decode(&e.value, cx)),
                )
            })
            .collect()
    }
}

/// Objects of Prow's API, by the name of their schema.
macro_rules! prow_objects {
    ($($ty:ty = $name:literal;)*) => {
        $(impl Decode for $ty {
            fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
                cx.prow_object($name, node)
            }
        }

        impl Describe for $ty {
            fn describe(into: &mut Definitions) -> Value {
                schema::describe($name, into)
            }
        }

        impl Empty for $ty {
            fn is_empty(&self) -> bool {
                false
            }
        })*
    };
}

prow_objects! {
    trireme_prowjob::Refs = "Refs";
    trireme_prowjob::DecorationConfig = "DecorationConfig";
    trireme_prowjob::ReporterConfig = "ReporterConfig";
    trireme_prowjob::RerunAuthConfig = "RerunAuthConfig";
    trireme_prowjob::ProwJobDefault = "ProwJobDefault";
    trireme_prowjob::reporting::JenkinsSpec = "JenkinsSpec";
    trireme_prowjob::reporting::TektonPipelineRunSpec = "TektonPipelineRunSpec";
}
