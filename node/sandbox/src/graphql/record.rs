//! Objects that GraphQL execution walks: materialized fields, connections that are cut by their arguments.

use apollo_compiler::resolvers::{AsyncObjectValue, AsyncResolvedValue, FieldError, ResolveInfo};
use apollo_compiler::response::{JsonMap, JsonValue};
use base64::Engine as _;
use futures::future::BoxFuture;

/// Most nodes that one page of a connection has, as GitHub's.
const MAX_PAGE: i64 = 100;

/// What a field holds.
#[derive(Debug, Clone)]
pub(super) enum Field {
    Leaf(JsonValue),
    Object(Option<Box<Record>>),
    List(Vec<Record>),
    /// Type of the connection, and all of its nodes.
    Connection(&'static str, Vec<Record>),
}

impl From<serde_json::Value> for Field {
    fn from(value: serde_json::Value) -> Self {
        Self::Leaf(value.into())
    }
}

impl From<Record> for Field {
    fn from(record: Record) -> Self {
        Self::Object(Some(Box::new(record)))
    }
}

impl From<Option<Record>> for Field {
    fn from(record: Option<Record>) -> Self {
        Self::Object(record.map(Box::new))
    }
}

/// An object of a type of the schema.
#[derive(Debug, Clone)]
pub(super) struct Record {
    kind: &'static str,
    fields: Vec<(&'static str, Field)>,
}

impl Record {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            fields: Vec::new(),
        }
    }

    /// Adds a field.
    pub(super) fn with(mut self, name: &'static str, field: impl Into<Field>) -> Self {
        self.fields.push((name, field.into()));
        self
    }
}

impl AsyncObjectValue for Record {
    fn type_name(&self) -> &str {
        self.kind
    }

    fn resolve_field<'a>(
        &'a self,
        info: &'a ResolveInfo<'a>,
    ) -> BoxFuture<'a, Result<AsyncResolvedValue<'a>, FieldError>> {
        Box::pin(async move {
            let name = info.field_name();
            let field = self.fields.iter().find(|(field, _)| *field == name);
            let Some((_, field)) = field else {
                return Err(self.unknown_field_error(info));
            };
            match field {
                Field::Leaf(value) => Ok(AsyncResolvedValue::Leaf(value.clone())),
                Field::Object(object) => Ok(AsyncResolvedValue::nullable_object(
                    object.as_deref().cloned(),
                )),
                Field::List(items) => Ok(list(items.clone())),
                Field::Connection(kind, nodes) => {
                    let total = nodes.len();
                    let cut = Cut::of(name, info.arguments(), total)?;
                    let count = ("totalCount", total);
                    let connection = cut.connection(kind, nodes.clone(), count);
                    Ok(AsyncResolvedValue::object(connection))
                }
            }
        })
    }
}

fn list<'a>(items: Vec<Record>) -> AsyncResolvedValue<'a> {
    AsyncResolvedValue::list(items.into_iter().map(AsyncResolvedValue::object))
}

/// GitHub's error `type` travels before its message; [`super::errors`] takes them apart.
pub(super) fn typed(kind: &str, message: impl std::fmt::Display) -> FieldError {
    FieldError {
        message: format!("{kind}\u{0}{message}"),
    }
}

/// The part of a connection that its arguments ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    start: usize,
    end: usize,
    total: usize,
}

impl Cut {
    /// # Errors
    /// In GitHub's words, when neither `first` nor `last` is given, or too much.
    pub(super) fn of(field: &str, args: &JsonMap, total: usize) -> Result<Self, FieldError> {
        let number = |name: &str| args.get(name).and_then(JsonValue::as_i64);
        let (name, wanted) = match (number("first"), number("last")) {
            (Some(first), _) => ("first", first),
            (None, Some(last)) => ("last", last),
            (None, None) => {
                return Err(typed(
                    "MISSING_PAGINATION_BOUNDARIES",
                    format!(
                        "You must provide a `first` or `last` value to properly paginate the `{field}` connection."
                    ),
                ));
            }
        };
        if !(0..=MAX_PAGE).contains(&wanted) {
            return Err(typed(
                "EXCESSIVE_PAGINATION",
                format!(
                    "Requesting {wanted} records on the `{field}` connection exceeds the `{name}` limit of {MAX_PAGE} \
                     records."
                ),
            ));
        }
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let place = |name: &str| match args.get(name).and_then(JsonValue::as_str) {
            None => Ok(None),
            Some(cursor) => match read_cursor(cursor) {
                Some(place) => Ok(Some(place)),
                None => Err(typed(
                    "INVALID_CURSOR_ARGUMENTS",
                    format!("`{cursor}` does not appear to be a valid cursor."),
                )),
            },
        };
        let low = place("after")?.unwrap_or(0).min(total);
        let high = place("before")?.map_or(total, |n| n.saturating_sub(1).min(total));
        let high = high.max(low);
        let (start, end) = if name == "first" {
            (low, (low + wanted).min(high))
        } else {
            (high.saturating_sub(wanted).max(low), high)
        };
        Ok(Self { start, end, total })
    }

    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.start..self.end
    }

    /// The connection, given all nodes or those of [`Cut::range`] alone.
    pub(super) fn connection(
        self,
        kind: &'static str,
        nodes: Vec<Record>,
        count: (&'static str, usize),
    ) -> Record {
        let nodes: Vec<Record> = if nodes.len() == self.end - self.start {
            nodes
        } else {
            let skipped = nodes.into_iter().skip(self.start);
            skipped.take(self.end - self.start).collect()
        };
        let edges = nodes.iter().enumerate().map(|(at, node)| {
            Record::new(edge_kind(kind))
                .with(
                    "cursor",
                    serde_json::Value::from(cursor(self.start + at + 1)),
                )
                .with("node", node.clone())
        });
        let edges = Field::List(edges.collect());
        let end =
            |place: Option<usize>| place.map_or(serde_json::Value::Null, |n| cursor(n).into());
        let some = self.end > self.start;
        let page = Record::new("PageInfo")
            .with("startCursor", end(some.then_some(self.start + 1)))
            .with("endCursor", end(some.then_some(self.end)))
            .with(
                "hasNextPage",
                serde_json::Value::from(self.end < self.total),
            )
            .with("hasPreviousPage", serde_json::Value::from(self.start > 0));
        Record::new(kind)
            .with("edges", edges)
            .with("nodes", Field::List(nodes))
            .with("pageInfo", page)
            .with(count.0, serde_json::Value::from(count.1))
    }
}

fn edge_kind(connection: &'static str) -> &'static str {
    match connection {
        "SearchResultItemConnection" => "SearchResultItemEdge",
        "PullRequestCommitConnection" => "PullRequestCommitEdge",
        "StatusCheckRollupContextConnection" => "StatusCheckRollupContextEdge",
        "LabelConnection" => "LabelEdge",
        _ => "UserEdge",
    }
}

/// The cursor of the n-th node, counted from one.
fn cursor(place: usize) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("cursor:{place}"))
}

fn read_cursor(cursor: &str) -> Option<usize> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(cursor)
        .ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.strip_prefix("cursor:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(json: serde_json::Value) -> JsonMap {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn first_last_and_cursors_cut_a_connection() {
        use serde_json::json;
        for (arguments, expected) in [
            (json!({"first": 2}), 0..2),
            (json!({"first": 2, "after": cursor(2)}), 2..4),
            (json!({"first": 9, "after": cursor(4)}), 4..5),
            (json!({"last": 2}), 3..5),
            (json!({"last": 2, "before": cursor(4)}), 1..3),
            (json!({"first": 2, "after": null}), 0..2),
        ] {
            let cut = Cut::of("nodes", &args(arguments.clone()), 5).ok().unwrap();
            assert_eq!(cut.range(), expected, "{arguments}");
        }
        assert!(Cut::of("nodes", &args(json!({})), 5).is_err());
        assert!(Cut::of("nodes", &args(json!({"first": 101})), 5).is_err());
    }
}
