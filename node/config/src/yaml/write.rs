//! Values → YAML that Go's `sigs.k8s.io/yaml` reads as the same values: whatever YAML 1.1 or go-yaml would take for a
//! boolean, a number, a date or nothing at all is quoted. Keys are sorted, as Go sorts them.

use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::{Commented, DoubleQuoted};

use super::NodeValue;
use super::scalar::resolve_plain;

/// Why a value could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write as YAML: {0}")]
pub struct YamlWriteError(String);

/// One document, ending in a line break.
///
/// # Errors
/// What the value's own `Serialize` reports.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, YamlWriteError> {
    let value = serde_json::to_value(value).map_err(|e| YamlWriteError(e.to_string()))?;
    to_string_with_comments(&value, &|_| None)
}

/// The same, with what `comment` says of the scalar or empty value at a path behind it. A path is written as in
/// `spec.containers[0].image`.
///
/// # Errors
/// See [`to_string`].
pub fn to_string_with_comments(
    value: &Value,
    comment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, YamlWriteError> {
    let options = serde_saphyr::ser_options! {
        // Long lines stay as they are; only what has several lines is written in several.
        folded_wrap_chars: usize::MAX,
    };
    let shown = Shown {
        value,
        path: String::new(),
        comment,
    };
    serde_saphyr::to_string_with_options(&shown, options).map_err(|e| YamlWriteError(e.to_string()))
}

/// A value at its path.
struct Shown<'a> {
    value: &'a Value,
    path: String,
    comment: &'a dyn Fn(&str) -> Option<String>,
}

impl Shown<'_> {
    fn scalar<S: Serializer, T: Serialize>(&self, value: T, to: S) -> Result<S::Ok, S::Error> {
        match (self.comment)(&self.path) {
            Some(comment) => Commented(value, comment).serialize(to),
            None => value.serialize(to),
        }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let below = |value, path| Shown {
            value,
            path,
            comment: self.comment,
        };
        match self.value {
            Value::Object(map) if !map.is_empty() => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                let mut out = to.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    let path = if self.path.is_empty() {
                        key.clone()
                    } else {
                        format!("{}.{key}", self.path)
                    };
                    let value = below(value, path);
                    if is_plain(key) {
                        out.serialize_entry(key, &value)?;
                    } else {
                        out.serialize_entry(&DoubleQuoted(key.as_str()), &value)?;
                    }
                }
                out.end()
            }
            Value::Array(items) if !items.is_empty() => to.collect_seq(
                items
                    .iter()
                    .enumerate()
                    .map(|(n, item)| below(item, format!("{}[{n}]", self.path))),
            ),
            Value::String(text) if is_plain(text) || text.contains('\n') => self.scalar(text, to),
            Value::String(text) => self.scalar(DoubleQuoted(text.as_str()), to),
            Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(n), ..) => self.scalar(n, to),
                (_, Some(n), _) => self.scalar(n, to),
                (.., Some(n)) => self.scalar(n, to),
                _ => Err(S::Error::custom(format!("{n} is no number"))),
            },
            other => self.scalar(other, to),
        }
    }
}

/// Whether our own reader, which reads as Go's does, takes the text for itself.
fn is_plain(text: &str) -> bool {
    matches!(resolve_plain(text), NodeValue::String(same) if same == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        let document =
            crate::yaml::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(document.notices.is_empty(), "{text}");
        document.root.to_json().unwrap()
    }

    /// ADM-182: words that YAML 1.1 reads as something else are quoted, lines stay lines.
    #[test]
    fn adm_182_what_would_be_read_as_something_else_is_quoted() {
        let value = json!({
            "z": ["yes", "0400", "1e3", "null", "~", "", "2020-01-01", "0o17", "1_000", "<<", "a: b", "-", "on"],
            "command": ["sh", "-c", "set -e\nmake test\n"],
            "yes": "no quotes needed",
            "empty": {}, "none": [], "nothing": null, "n": 2.5, "big": 1e21, "plain": true,
            "long": "word ".repeat(30).trim_end(),
        });
        insta::assert_snapshot!(to_string(&value).unwrap(), @r#"
        big: 1.0e+21
        command:
        - sh
        - -c
        - |
          set -e
          make test
        empty: {}
        long: word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word
        "n": 2.5
        none: []
        nothing: null
        plain: true
        "yes": no quotes needed
        z:
        - "yes"
        - "0400"
        - "1e3"
        - "null"
        - "~"
        - ""
        - "2020-01-01"
        - "0o17"
        - "1_000"
        - "<<"
        - "a: b"
        - '-'
        - "on"
        "#);
        assert_eq!(read(&to_string(&value).unwrap()), value);
    }

    #[test]
    fn comments_stand_behind_what_they_are_about() {
        let value = json!({"a": {"b": ["x", "y"]}, "c": "1"});
        let text = to_string_with_comments(&value, &|path| {
            matches!(path, "a.b[1]" | "c").then(|| format!("from {path}"))
        });
        insta::assert_snapshot!(text.unwrap(), @r#"
        a:
          b:
          - x
          - "y" # from a.b[1]
        c: "1" # from c
        "#);
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            "[-+.:_0-9eExXoObBa-f]{0,8}",
            "[a-zA-Z~]{0,5}",
            "[ \\t\\n\\r#:'\"\\[\\]{}>|*&!%@`,?<=\\\\a\\-]{0,12}",
            "\\PC{0,10}",
            any::<String>(),
            prop::sample::select(vec![
                "yes",
                "No",
                "ON",
                "y",
                "N",
                "null",
                "Null",
                "~",
                ".inf",
                "-.Inf",
                ".NaN",
                "=",
                "<<",
                "---",
                "...",
                "0x1F",
                "0o17",
                "0b11",
                "017",
                "08",
                "1:30",
                "190:20:30",
                "2001-12-14t21:59:43.10-05:00",
                "1_000",
                "+1",
                "1.",
                ".5",
                "1e3",
                "0x-1",
                "\u{feff}",
                "\u{85}",
                "\u{2028}",
                "\u{fffe}",
                "- a",
                "? a",
                "a #b",
                " a",
                "a ",
                "\n",
                "\na",
                "a\n\n",
                "  a\n b",
                "\ta\nb",
                "a\n\tb\n ",
                "# a\nb",
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            texts().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(texts(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Go's reader makes an integer of a float without fraction.
    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => {
                a.as_f64() == b.as_f64() && (a.is_f64() || a == b)
            }
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
            }
            (a, b) => a == b,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn what_is_written_reads_as_the_same(value in values()) {
            let text = to_string(&value).unwrap();
            let back = read(&text);
            prop_assert!(same(&value, &back), "{value}\n{text}\n{back}");
        }
    }
}
