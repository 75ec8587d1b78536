//! Objects that are carried as JSON and handed on: pod specs, refs, decoration. A table of their types tells wrong
//! types and unknown fields, and gives the JSON the shape that Go's types give it.
//!
//! The notation, one type per paragraph: `Type: field kind, …`. A kind is a scalar, another type, `[]kind` or
//! `{}kind`. Marks on a field: `!` is written even when empty, `=` is a struct that is written even when empty, `*` is a
//! pointer (zero is a value), `~` sits in an embedded struct.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::describe::{Definitions, closed, describe_with, duration, text_of};
use super::{Cx, doc, free, hints};
use crate::diagnostic::Rule;
use crate::quantity;
use crate::yaml::{Entry, Node, NodeValue};

/// Kubernetes' quantities, with the spaces around them that are cut off.
const QUANTITY: &str =
    r"^\s*[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?\s*$";

#[derive(Clone, Debug)]
enum Kind {
    Bool,
    String,
    Int32,
    Int64,
    Quantity,
    IntOrString,
    Duration,
    /// Prow's own durations also take an integer number of nanoseconds (CFG-027).
    DurationOrNanoseconds,
    Raw,
    List(Box<Self>),
    Map(Box<Self>),
    Object(&'static str),
}

struct Field {
    name: &'static str,
    kind: Kind,
    always: bool,
    by_value: bool,
    pointer: bool,
    embedded: bool,
}

struct Type {
    fields: Vec<Field>,
    /// How many of them are written whether set or not.
    always: usize,
    /// Whether the JSON is what Go writes after reading; else it is what was written, under the proper names.
    go_form: bool,
}

static TYPES: LazyLock<HashMap<&'static str, Type>> = LazyLock::new(|| {
    let mut types = HashMap::new();
    for (text, go_form) in [
        (include_str!("kubernetes.types"), true),
        (include_str!("prow.types"), false),
    ] {
        for (name, fields) in paragraphs(text) {
            let always = fields.iter().filter(|f| f.always || f.by_value).count();
            types.insert(
                name,
                Type {
                    fields,
                    always,
                    go_form,
                },
            );
        }
    }
    types
});

/// A tiny reader for a text of ours; a mistake in it shows in the test below.
fn paragraphs(text: &'static str) -> Vec<(&'static str, Vec<Field>)> {
    let mut types: Vec<(&'static str, Vec<Field>)> = Vec::new();
    let mut words = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .peekable();
    while let Some(word) = words.next() {
        if let Some(name) = word.strip_suffix(':') {
            types.push((name, Vec::new()));
            continue;
        }
        let kind = words.next().unwrap_or_default().trim_end_matches(',');
        let name = word.trim_end_matches(['!', '=', '*', '~']);
        let marks = &word[name.len()..];
        if let Some((_, fields)) = types.last_mut() {
            fields.push(Field {
                name,
                kind: parse_kind(kind),
                always: marks.contains('!'),
                by_value: marks.contains('='),
                pointer: marks.contains('*'),
                embedded: marks.contains('~'),
            });
        }
    }
    types
}

fn parse_kind(text: &'static str) -> Kind {
    if let Some(of) = text.strip_prefix("[]") {
        return Kind::List(Box::new(parse_kind(of)));
    }
    if let Some(of) = text.strip_prefix("{}") {
        return Kind::Map(Box::new(parse_kind(of)));
    }
    match text {
        "bool" => Kind::Bool,
        "string" => Kind::String,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "quantity" => Kind::Quantity,
        "int-or-string" => Kind::IntOrString,
        "duration" => Kind::Duration,
        "duration-or-nanoseconds" => Kind::DurationOrNanoseconds,
        "raw" => Kind::Raw,
        name => Kind::Object(name),
    }
}

#[cfg(test)]
pub(super) fn names(type_name: &str) -> Vec<&'static str> {
    let fields = TYPES.get(type_name).into_iter().flat_map(|of| &of.fields);
    fields.map(|field| field.name).collect()
}

/// Reads a node as an object of a type of the tables; an unknown type is carried as it is.
pub(super) fn decode<'n>(type_name: &str, node: &'n Node, cx: &mut Cx<'n>) -> Value {
    match TYPES.get(type_name) {
        Some(of) => object(of, node, cx),
        None => cx.json(node),
    }
}

/// A type of the tables for editors, with the doc comments of the Rust types that some of them have.
pub(crate) fn describe(name: &str, into: &mut Definitions) -> Value {
    let Some(of) = TYPES.get(name) else {
        return Value::Bool(true);
    };
    into.object(name, |into| {
        let mut properties = Map::new();
        for field in &of.fields {
            let mut schema = if field.embedded {
                into.embedded(|into| describe_kind(&field.kind, into))
            } else {
                describe_kind(&field.kind, into)
            };
            if let Some(hint) = hints::of(name, field.name) {
                hint.apply(&mut schema);
            }
            describe_with(&mut schema, &text_of(doc::field(name, field.name)));
            properties.insert(field.name.to_owned(), schema);
        }
        let mut schema = closed(properties);
        describe_with(&mut schema, &text_of(doc::of(name)));
        schema
    })
}

fn describe_kind(kind: &Kind, into: &mut Definitions) -> Value {
    match kind {
        Kind::Bool => json!({"type": ["boolean", "null"]}),
        Kind::String => into.string(),
        Kind::Int32 => {
            json!({"type": ["integer", "null"], "minimum": i32::MIN, "maximum": i32::MAX})
        }
        Kind::Int64 => json!({"type": ["integer", "null"]}),
        Kind::Quantity => json!({"type": ["string", "number", "null"], "pattern": QUANTITY}),
        Kind::IntOrString => json!({"type": ["integer", "string", "null"]}),
        Kind::Duration => duration(),
        Kind::DurationOrNanoseconds => {
            let mut schema = duration();
            schema["type"] = json!(["string", "integer", "null"]);
            schema
        }
        Kind::Raw => Value::Bool(true),
        Kind::List(of) => json!({"type": ["array", "null"], "items": describe_kind(of, into)}),
        Kind::Map(of) => {
            json!({"type": ["object", "null"], "additionalProperties": describe_kind(of, into)})
        }
        Kind::Object(name) => describe(name, into),
    }
}

/// Brings the fields of an object into the order of its type, and those of the objects in it, so many levels of them in all.
pub(crate) fn in_field_order(type_name: &str, value: &mut Value, levels: usize) {
    let Some(of) = TYPES.get(type_name) else {
        return;
    };
    let Value::Object(map) = value else { return };
    let Some(below) = levels.checked_sub(1) else {
        return;
    };
    let place = |name: &str| of.fields.iter().position(|field| field.name == name);
    let mut fields: Vec<_> = std::mem::take(map)
        .into_iter()
        .map(|(name, value)| (place(&name).unwrap_or(usize::MAX), name, value))
        .collect();
    fields.sort_by_key(|(place, ..)| *place);
    for (place, name, mut value) in fields {
        if let Some(field) = of.fields.get(place) {
            order_within(&field.kind, &mut value, below);
        }
        map.insert(name, value);
    }
}

fn order_within(kind: &Kind, value: &mut Value, levels: usize) {
    match (kind, value) {
        (Kind::Object(name), value) => in_field_order(name, value, levels),
        (Kind::List(of), Value::Array(items)) => items
            .iter_mut()
            .for_each(|item| order_within(of, item, levels)),
        (Kind::Map(of), Value::Object(map)) => map
            .values_mut()
            .for_each(|value| order_within(of, value, levels)),
        _ => {}
    }
}

fn object<'n>(of: &Type, node: &'n Node, cx: &mut Cx<'n>) -> Value {
    let entries = cx.entries(node, "a mapping");
    // Few of the fields that a type has are set: places of fields with their entries, in the order of the type.
    let mut found: Vec<(usize, &'n Entry)> = Vec::with_capacity(entries.len());
    let mut unknown = Vec::new();
    for entry in entries {
        let exact = of.fields.iter().position(|f| f.name == entry.key);
        let at = exact.or_else(|| {
            of.fields
                .iter()
                .position(|f| f.name.eq_ignore_ascii_case(&entry.key))
        });
        let Some(at) = at else {
            unknown.push(entry);
            continue;
        };
        match found.iter_mut().find(|(other, _)| *other == at) {
            Some(known) if exact.is_some() => known.1 = entry,
            Some(_) => {}
            None => found.push((at, entry)),
        }
    }
    found.sort_unstable_by_key(|(at, _)| *at);
    let mut found = found.into_iter().peekable();
    let mut map = Map::with_capacity(found.len() + of.always);
    for (at, field) in of.fields.iter().enumerate() {
        let value = found
            .next_if(|(other, _)| *other == at)
            .filter(|(_, entry)| !entry.value.is_null())
            .map(|(_, entry)| {
                cx.under(&entry.key, |cx| {
                    if field.embedded {
                        cx.embedded(|cx| value(&field.kind, &entry.value, cx))
                    } else {
                        value(&field.kind, &entry.value, cx)
                    }
                })
            });
        let value = match value {
            Some(value) if !of.go_form || field.always || field.by_value || field.pointer => value,
            Some(value) if !leaves_out(&field.kind, &value) => value,
            None if of.go_form && (field.always || field.by_value) => zero(&field.kind),
            _ => continue,
        };
        map.insert(field.name.to_owned(), value);
    }
    // Fields newer than the table are handed on all the same (JOB-077).
    let free = if unknown.is_empty() {
        Vec::new()
    } else {
        free(of.fields.iter().map(|field| field.name), entries)
    };
    for entry in unknown {
        cx.unknown_field(entry, &free);
        let value = cx.under(&entry.key, |cx| cx.json(&entry.value));
        map.insert(entry.key.clone(), value);
    }
    Value::Object(map)
}

fn value<'n>(kind: &Kind, node: &'n Node, cx: &mut Cx<'n>) -> Value {
    match kind {
        Kind::Bool => cx.boolean(node).unwrap_or_default().into(),
        Kind::String => cx.string(node).unwrap_or_default().into(),
        Kind::Int64 => cx.integer(node).unwrap_or_default().into(),
        Kind::Int32 => {
            let integer = cx.integer(node).unwrap_or_default();
            if i32::try_from(integer).is_err() {
                cx.error(
                    node.at,
                    Rule::Type,
                    format!("{integer} is no integer of 32 bits"),
                );
            }
            integer.into()
        }
        Kind::Quantity => decode_quantity(node, cx),
        Kind::IntOrString => match &node.value {
            NodeValue::String(s) => s.clone().into(),
            _ => cx.integer(node).unwrap_or_default().into(),
        },
        Kind::Duration => cx.duration(node).unwrap_or_default().to_string().into(),
        Kind::DurationOrNanoseconds => match &node.value {
            NodeValue::Number(_) => cx.integer(node).unwrap_or_default().into(),
            _ => cx.duration(node).unwrap_or_default().to_string().into(),
        },
        Kind::Raw => cx.json(node),
        Kind::List(of) => {
            let items = cx.items(node);
            let decode = |(n, item): (usize, &'n std::sync::Arc<Node>)| {
                cx.item(n, |cx| {
                    if item.is_null() {
                        zero(of)
                    } else {
                        value(of, item, cx)
                    }
                })
            };
            items.iter().enumerate().map(decode).collect()
        }
        Kind::Map(of) => {
            let entries = cx.entries(node, "a mapping");
            let decode = |entry: &'n crate::yaml::Entry| {
                let decoded = cx.under(&entry.key, |cx| {
                    if entry.value.is_null() {
                        zero(of)
                    } else {
                        value(of, &entry.value, cx)
                    }
                });
                (entry.key.clone(), decoded)
            };
            let mut decoded: Vec<_> = entries.iter().map(decode).collect();
            // Go writes maps by their keys.
            decoded.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(decoded.into_iter().collect())
        }
        Kind::Object(name) => decode(name, node, cx),
    }
}

fn decode_quantity<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Value {
    let text = match &node.value {
        NodeValue::String(s) => s.clone(),
        NodeValue::Number(n) => n.json_text(),
        _ => {
            cx.wrong_type(node, "a quantity; write it as in \"100m\" or \"2Gi\"");
            return Value::Null;
        }
    };
    match quantity::spelling(text.trim()) {
        Some(text) => text.into(),
        None => {
            cx.error(
                node.at,
                Rule::Type,
                format!("{text:?} is no quantity; write it as in \"100m\" or \"2Gi\""),
            );
            Value::Null
        }
    }
}

/// What Go's `omitempty` leaves out for a field that is no pointer.
fn leaves_out(kind: &Kind, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => matches!(kind, Kind::Map(_)) && map.is_empty(),
    }
}

/// What Go writes for a field that nobody set.
fn zero(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => false.into(),
        Kind::String => "".into(),
        Kind::Int32 | Kind::Int64 | Kind::IntOrString => 0.into(),
        Kind::Quantity => "0".into(),
        Kind::Duration | Kind::DurationOrNanoseconds => "0s".into(),
        Kind::Raw | Kind::List(_) | Kind::Map(_) => Value::Null,
        Kind::Object(name) => {
            let fields = TYPES
                .get(name)
                .map_or(&[][..], |of| if of.go_form { &of.fields } else { &[] });
            let always = fields.iter().filter(|f| f.always || f.by_value);
            Value::Object(always.map(|f| (f.name.to_owned(), zero(&f.kind))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_a_field_names_is_in_the_tables() {
        fn name(kind: &Kind) -> Option<&'static str> {
            match kind {
                Kind::Object(name) => Some(name),
                Kind::List(of) | Kind::Map(of) => name(of),
                _ => None,
            }
        }
        for (owner, of) in TYPES.iter() {
            for field in &of.fields {
                if let Some(name) = name(&field.kind) {
                    assert!(
                        TYPES.contains_key(name),
                        "{owner}.{} is of unknown type {name}",
                        field.name
                    );
                }
            }
        }
        assert!(TYPES.len() > 100);
    }

    fn pod(text: &str) -> (String, Vec<String>) {
        let document = crate::yaml::parse(text.as_bytes()).unwrap();
        let mut cx = Cx::new("jobs.yaml", false);
        let value = decode("PodSpec", &document.root, &mut cx);
        (
            value.to_string(),
            cx.diagnostics.iter().map(ToString::to_string).collect(),
        )
    }

    /// CFG-023: names without case. JOB-077: what is unknown stays.
    #[test]
    fn job_077_a_pod_spec_takes_the_form_that_go_gives_it() {
        let (json, found) = pod(
            "serviceaccountName: x\nfuture: {a: 1}\nterminationGracePeriodSeconds: 0\ncontainers:\n- image: i\n  env: []\n  resources:\n    limits: {cpu: 0.5, memory: 1.5Gi}\n",
        );
        insta::assert_snapshot!(json, @r#"{"containers":[{"name":"","image":"i","resources":{"limits":{"cpu":"500m","memory":"1536Mi"}}}],"terminationGracePeriodSeconds":0,"serviceAccountName":"x","future":{"a":1}}"#);
        insta::assert_snapshot!(found.join("\n"), @r#"jobs.yaml:2:1: future: unknown field "future""#);
    }

    #[test]
    fn cfg_021_scalars_of_another_kind_are_errors() {
        let (_, found) = pod(
            "containers:\n- env:\n  - name: A\n    value: true\n  stdin: 'yes'\npriority: 3000000000\n",
        );
        insta::assert_snapshot!(found.join("\n"), @r"
        jobs.yaml:4:12: containers[0].env[0].value: cannot use a boolean as a string; put it in quotes
        jobs.yaml:5:10: containers[0].stdin: cannot use a string as a boolean
        jobs.yaml:6:11: priority: 3000000000 is no integer of 32 bits
        ");
    }
}
