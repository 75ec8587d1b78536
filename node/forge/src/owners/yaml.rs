//! As much of YAML as OWNERS files need, read the way go-yaml does: lists and mappings of scalars, YAML 1.1's idea of
//! which unquoted words are no strings, keys without regard to case, the first document only.
//!
//! The full reader is node/config's; forges know nothing of configuration, so this small one stands here.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, StrInput};

/// Deeper nesting is refused.
const MAX_DEPTH: usize = 50;

/// More values than this are refused, aliases counted as often as they are used.
const MAX_VALUES: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    String(String),
    List(Vec<Value>),
    /// In the order of the file, keys as text.
    Map(Vec<(String, Value)>),
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    /// The value that Go would decode into a field: case does not matter, and of several the one whose spelling sorts
    /// last counts.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else {
            return None;
        };
        entries
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .max_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(_, value)| value)
    }
}

/// The first document; null if there is none.
///
/// # Errors
/// The text is no YAML, with line and reason.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, as_libyaml()),
        anchors: HashMap::new(),
        values: 0,
    };
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(Value::Null),
            Event::StreamStart | Event::DocumentStart(..) => {}
            Event::DocumentEnd => return Ok(Value::Null),
            event => {
                let value = reader.value(event, 0)?;
                // What follows must still end the document: `a: b` and then `- c` is an error.
                return match reader.next()? {
                    Event::DocumentEnd | Event::StreamEnd => Ok(value),
                    _ => Err("did not find expected <document start>".to_owned()),
                };
            }
        }
    }
}

/// Lines of flow collections and quoted scalars may stand anywhere, as libyaml takes them.
fn as_libyaml() -> Options {
    let mut options = granit_parser::options! {
        strict_indentation: false,
        block_scalar_eof_without_line_feed: true,
    };
    options.set_emit_comments(false);
    options
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, (Value, usize)>,
    values: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
            None => Ok(Event::StreamEnd),
        }
    }

    fn count(&mut self, values: usize) -> Result<(), String> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        Ok(())
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} deep"));
        }
        self.count(1)?;
        let before = self.values;
        let (anchor, value) = match event {
            Event::Alias(id) => {
                let known = self.anchors.get(&id).cloned();
                let (value, size) = known.ok_or("an alias inside its own anchor")?;
                self.count(size)?;
                return Ok(value);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_string = tag.as_ref().is_some_and(|tag| tag.suffix() == "str");
                let value = if style == ScalarStyle::Plain && !is_string {
                    plain(&text)
                } else {
                    Value::String(text.into_owned())
                };
                (anchor, value)
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Value::List(self.list(depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Value::Map(self.map(depth)?)),
            event => return Err(format!("unexpected {event:?}")),
        };
        if anchor > 0 {
            let size = self.values - before + 1;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value>, String> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(list),
                event => list.push(self.value(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(String, Value)>, String> {
        let mut map: Vec<(String, Value)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let is_merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = match self.value(event, depth + 1)? {
                Value::String(text) | Value::Number(text) => text,
                Value::Bool(value) => value.to_string(),
                Value::Null => "null".to_owned(),
                other => return Err(format!("a {} cannot be a key", other.kind())),
            };
            let event = self.next()?;
            let value = self.value(event, depth + 1)?;
            match value {
                Value::Map(entries) if is_merge => merged.extend(entries),
                Value::List(maps) if is_merge => {
                    for map in maps {
                        let Value::Map(entries) = map else {
                            return Err("map merge requires map or sequence of maps as the value"
                                .to_owned());
                        };
                        merged.extend(entries);
                    }
                }
                _ if is_merge => {
                    return Err(
                        "map merge requires map or sequence of maps as the value".to_owned()
                    );
                }
                // Of equal keys the last counts.
                value => match map.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, slot)) => *slot = value,
                    None => map.push((key, value)),
                },
            }
        }
        for (key, value) in merged {
            if !map.iter().any(|(known, _)| *known == key) {
                map.push((key, value));
            }
        }
        Ok(map)
    }
}

/// What an unquoted scalar is by YAML 1.1 as go-yaml v2 knows it.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => Value::Number(text.to_owned()),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::String(text.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    let first = text.bytes().next();
    if !first.is_some_and(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte)) {
        return false;
    }
    let plain = text.replace('_', "");
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let all =
        |digits: &str, radix: u32| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    let prefixed = |prefix: &str, radix: u32| {
        let head = unsigned
            .get(..2)
            .filter(|head| head.eq_ignore_ascii_case(prefix));
        head.is_some_and(|_| all(&unsigned[2..], radix))
    };
    all(unsigned, 10)
        || prefixed("0x", 16)
        || prefixed("0o", 8)
        || prefixed("0b", 2)
        || is_float(unsigned)
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(part)
        && !(whole.is_empty() && part.is_empty())
        && exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_they_are_in_yaml_1_1() {
        for number in [
            "1", "-1", "0x1F", "0b1", "1_000", "1.5", ".5", "1e3", "1.e-3", "010",
        ] {
            assert_eq!(plain(number), Value::Number(number.into()), "{number}");
        }
        for text in [
            "1a",
            "0x",
            "e3",
            ".",
            "-",
            "1.2.3",
            "yES",
            "nul",
            "x1",
            "2024-01-02",
        ] {
            assert_eq!(plain(text), Value::String(text.into()), "{text}");
        }
        assert_eq!(plain("y"), Value::Bool(true));
        assert_eq!(plain("~"), Value::Null);
    }

    #[test]
    fn keys_anchors_merges_and_documents() {
        let value = parse("a: &x {k: v}\nb: {<<: *x, l: 'y'}\nA: 1\na: 2\n---\nbroken: [").unwrap();
        assert_eq!(
            value.field("b").unwrap().field("K"),
            Some(&Value::String("v".into()))
        );
        assert_eq!(
            value.field("b").unwrap().field("l"),
            Some(&Value::String("y".into()))
        );
        assert_eq!(value.field("a"), Some(&Value::Number("2".into())));
        assert_eq!(parse("").unwrap(), Value::Null);
        assert_eq!(parse("# nothing\n").unwrap(), Value::Null);
        insta::assert_snapshot!(parse("a: [\n").unwrap_err(), @"line 1: unclosed bracket '['");
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 0..8 {
            let (from, to) = (char::from(b'a' + n), char::from(b'b' + n));
            let list = vec![format!("*{from}"); 10].join(",");
            text.push_str(&format!("{to}: &{to} [{list}]\n"));
        }
        insta::assert_snapshot!(parse(&text).unwrap_err(), @"more than 100000 values");
        assert!(parse(&"[".repeat(1000)).is_err());
    }
}
