//! JSON bytes as Go's `encoding/json` writes them: `<`, `>`, `&`, U+2028 and U+2029 escaped, floats in Go's notation.
//!
//! Map keys come out sorted only if the value holds them sorted; use [`sorted`] for free-form values.

use std::io;

pub use crate::go::null_as_zero;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Like Go's `json.Marshal`.
///
/// # Errors
/// Only what the value's own `Serialize` reports.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    write(value, CompactFormatter)
}

/// Like Go's `json.MarshalIndent(value, "", "\t")`.
///
/// # Errors
/// Only what the value's own `Serialize` reports.
pub fn to_string_tabs<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    write(value, PrettyFormatter::with_indent(b"\t"))
}

/// The value with object keys sorted at every depth and numbers as Go's `float64`, which is what Go makes of a
/// free-form value that it read and writes again.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Number(n) => n
            .as_f64()
            .and_then(serde_json::Number::from_f64)
            .map_or_else(|| value.clone(), Value::Number),
        other => other.clone(),
    }
}

fn write<T: Serialize + ?Sized, F: Formatter>(
    value: &T,
    inner: F,
) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, Go { inner }))?;
    String::from_utf8(out).map_err(|e| serde::ser::Error::custom(e.utf8_error()))
}

struct Go<F> {
    inner: F,
}

impl<F: Formatter> Formatter for Go<F> {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let magnitude = value.abs();
        if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
            let text = format!("{value:e}");
            let text = match text.split_once('e') {
                Some((digits, exponent)) if !exponent.starts_with('-') => {
                    format!("{digits}e+{exponent}")
                }
                _ => text,
            };
            writer.write_all(text.as_bytes())
        } else {
            write!(writer, "{value}")
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, c) in fragment.char_indices() {
            let escaped = match c {
                '<' => "\\u003c",
                '>' => "\\u003e",
                '&' => "\\u0026",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            writer.write_all(&fragment.as_bytes()[plain_from..at])?;
            writer.write_all(escaped.as_bytes())?;
            plain_from = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain_from..])
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_array(writer)
    }
    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array(writer)
    }
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.inner.begin_array_value(writer, first)
    }
    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_array_value(writer)
    }
    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object(writer)
    }
    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object(writer)
    }
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.inner.begin_object_key(writer, first)
    }
    fn end_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_key(writer)
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.begin_object_value(writer)
    }
    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.inner.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn escapes_what_go_escapes() {
        let v = json!({"t": "a<b>&c \u{2028}\u{2029} \"q\" \u{1} é \t"});
        insta::assert_snapshot!(to_string(&v).unwrap(), @r#"{"t":"a\u003cb\u003e\u0026c \u2028\u2029 \"q\" \u0001 é \t"}"#);
    }

    #[test]
    fn indents_with_tabs() {
        let v = json!({"a": [], "b": {}, "c": [1, {"d": "x"}]});
        let text = to_string_tabs(&v).unwrap();
        assert_eq!(
            text,
            "{\n\t\"a\": [],\n\t\"b\": {},\n\t\"c\": [\n\t\t1,\n\t\t{\n\t\t\t\"d\": \"x\"\n\t\t}\n\t]\n}"
        );
    }

    #[test]
    fn free_form_values_come_out_as_go_floats_with_sorted_keys() {
        let v: Value = serde_json::from_str(r#"{"z": 1.0, "a": {"y": 1e21, "b": 12345678901234567890, "c": 1e-7, "d": 0.5, "e": -3}}"#).unwrap();
        insta::assert_snapshot!(to_string(&sorted(&v)).unwrap(), @r#"{"a":{"b":12345678901234567000,"c":1e-7,"d":0.5,"e":-3,"y":1e+21},"z":1}"#);
    }
}
