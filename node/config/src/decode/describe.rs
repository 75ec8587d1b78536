//! The types of configuration files as JSON Schema: what [`super::Decode`] reads without an error or a warning, described
//! for editors. The same declarations that read a file describe it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use trireme_prowjob::{GoDuration, MetaDuration};

use super::hints;

/// Go's text form of a duration (CFG-027).
pub(crate) const GO_DURATION: &str = r"^[-+]?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*)$";

/// A type that can be described.
pub(crate) trait Describe {
    fn describe(into: &mut Definitions) -> Value;
}

/// A struct with named fields: what the macro makes.
pub(crate) trait DescribeObject {
    const NAME: &'static str;
    /// Its doc comment, as attributes in text.
    const DOC: &'static [&'static str];

    fn properties(into: &mut Properties<'_>);
}

/// Objects by their names, for `$defs`.
#[derive(Default)]
pub(crate) struct Definitions {
    objects: BTreeMap<String, Value>,
    /// Whether a string may be written as another scalar here (CFG-021).
    coerce: bool,
}

impl Definitions {
    pub(crate) fn new(coerce: bool) -> Self {
        Self {
            objects: BTreeMap::new(),
            coerce,
        }
    }

    pub(crate) fn into_objects(self) -> Map<String, Value> {
        self.objects.into_iter().collect()
    }

    pub(crate) fn string(&self) -> Value {
        if self.coerce {
            json!({"type": ["string", "number", "boolean", "null"]})
        } else {
            json!({"type": ["string", "null"]})
        }
    }

    /// What lies behind an embedded struct: there Go's converter makes no strings of other scalars.
    pub(crate) fn embedded<T>(&mut self, describe: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.coerce, false);
        let described = describe(self);
        self.coerce = before;
        described
    }

    /// A reference to an object, which is described when it is first met.
    pub(crate) fn object(
        &mut self,
        name: &str,
        describe: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let key = if self.coerce {
            format!("{name}-lenient")
        } else {
            name.to_owned()
        };
        if !self.objects.contains_key(&key) {
            // It may be met again within itself.
            self.objects.insert(key.clone(), Value::Null);
            let described = describe(self);
            self.objects.insert(key.clone(), described);
        }
        json!({"$ref": format!("#/$defs/{key}")})
    }
}

/// The fields of one object, those of embedded structs among them.
pub(crate) struct Properties<'a> {
    definitions: &'a mut Definitions,
    owner: &'static str,
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

impl Properties<'_> {
    pub(crate) fn field<T: Describe>(&mut self, name: &'static str, doc: &[&str]) {
        let mut schema = T::describe(self.definitions);
        if let Some(hint) = hints::of(self.owner, name) {
            hint.apply(&mut schema);
            if matches!(hint, hints::Hint::Name(_)) {
                self.required.push(name);
            }
        }
        describe_with(&mut schema, &text_of(doc));
        self.properties.insert(name.to_owned(), schema);
    }

    pub(crate) fn embed<T: DescribeObject>(&mut self) {
        let owner = std::mem::replace(&mut self.owner, T::NAME);
        let coerce = std::mem::replace(&mut self.definitions.coerce, false);
        T::properties(self);
        self.definitions.coerce = coerce;
        self.owner = owner;
    }
}

/// The schema of a struct, as a reference.
pub(crate) fn object<T: DescribeObject>(into: &mut Definitions) -> Value {
    into.object(T::NAME, |definitions| {
        let mut all = Properties {
            definitions,
            owner: T::NAME,
            properties: Map::new(),
            required: Vec::new(),
        };
        T::properties(&mut all);
        let mut schema = closed(all.properties);
        if !all.required.is_empty() {
            schema["required"] = json!(all.required);
        }
        describe_with(&mut schema, &text_of(T::DOC));
        schema
    })
}

/// An object that has no other properties. Go reads names without case: another spelling is no mistake, but it is not
/// what an editor proposes, and what stands under it is not described.
pub(crate) fn closed(properties: Map<String, Value>) -> Value {
    let any_case = |name: &String| -> String {
        let letter = |c: char| match (c.to_ascii_lowercase(), c.to_ascii_uppercase()) {
            (lower, upper) if lower != upper => format!("[{lower}{upper}]"),
            _ => c.to_string(),
        };
        name.chars().map(letter).collect()
    };
    let names: Vec<String> = properties.keys().map(any_case).collect();
    let mut schema = json!({"type": ["object", "null"], "additionalProperties": false});
    if !names.is_empty() {
        schema["patternProperties"] = json!({format!("^({})$", names.join("|")): true});
    }
    schema["properties"] = properties.into();
    schema
}

pub(crate) fn describe_with(schema: &mut Value, text: &str) {
    if text.is_empty() {
        return;
    }
    if !schema.is_object() {
        // `true` describes anything.
        *schema = json!({});
    }
    if let Value::Object(schema) = schema {
        schema.insert("description".to_owned(), text.into());
    }
}

/// A doc comment from its attributes in text: `doc = r" A word."`.
pub(crate) fn text_of(attributes: &[&str]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let rest = attribute.strip_prefix("doc")?.trim_start();
        let literal = rest.strip_prefix('=')?.trim();
        let raw = literal.starts_with('r');
        let inner = literal
            .trim_start_matches('r')
            .trim_matches('#')
            .strip_prefix('"')?
            .strip_suffix('"')?;
        let text = if raw {
            inner.to_owned()
        } else {
            inner.replace("\\\"", "\"").replace("\\\\", "\\")
        };
        Some(text.trim().to_owned())
    });
    let text = lines.collect::<Vec<_>>().join(" ");
    // Links of ours lead nowhere in an editor.
    text.replace("[`", "`").replace("`]", "`").trim().to_owned()
}

impl Describe for String {
    fn describe(into: &mut Definitions) -> Value {
        into.string()
    }
}

impl Describe for bool {
    fn describe(_: &mut Definitions) -> Value {
        json!({"type": ["boolean", "null"]})
    }
}

impl Describe for i64 {
    fn describe(_: &mut Definitions) -> Value {
        json!({"type": ["integer", "null"]})
    }
}

impl Describe for Value {
    fn describe(_: &mut Definitions) -> Value {
        Value::Bool(true)
    }
}

impl Describe for GoDuration {
    fn describe(_: &mut Definitions) -> Value {
        duration()
    }
}

impl Describe for MetaDuration {
    fn describe(_: &mut Definitions) -> Value {
        duration()
    }
}

pub(crate) fn duration() -> Value {
    json!({"type": ["string", "null"], "format": "go-duration", "pattern": GO_DURATION})
}

impl<T: Describe> Describe for Option<T> {
    fn describe(into: &mut Definitions) -> Value {
        T::describe(into)
    }
}

impl<T: Describe> Describe for Arc<T> {
    fn describe(into: &mut Definitions) -> Value {
        T::describe(into)
    }
}

impl<T: DescribeObject> DescribeObject for Arc<T> {
    const NAME: &'static str = T::NAME;
    const DOC: &'static [&'static str] = T::DOC;

    fn properties(into: &mut Properties<'_>) {
        T::properties(into);
    }
}

impl<T: Describe> Describe for Vec<T> {
    fn describe(into: &mut Definitions) -> Value {
        json!({"type": ["array", "null"], "items": T::describe(into)})
    }
}

impl<T: Describe> Describe for BTreeMap<String, T> {
    fn describe(into: &mut Definitions) -> Value {
        json!({"type": ["object", "null"], "additionalProperties": T::describe(into)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_comments_become_descriptions() {
        assert_eq!(text_of(&[r#"doc = r" By `org/repo`.""#]), "By `org/repo`.");
        assert_eq!(
            text_of(&[r#"doc = " Two""#, r#"doc = " lines, see [`Approve`].""#]),
            "Two lines, see `Approve`."
        );
        assert_eq!(
            text_of(&[r##"doc = r#" a "quoted" word"#"##]),
            "a \"quoted\" word"
        );
        assert_eq!(text_of(&["allow(dead_code)"]), "");
    }
}
