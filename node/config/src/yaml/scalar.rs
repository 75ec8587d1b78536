//! What a YAML 1.1 scalar means, by the rules of go-yaml v2, and how Go prints the numbers among them.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::NodeValue;

/// A number as go-yaml keeps it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    Uint(u64),
    Float(f64),
}

impl Number {
    /// The JSON number; none for infinities and NaN, which JSON cannot hold.
    #[must_use]
    pub fn to_json(self) -> Option<serde_json::Value> {
        match self {
            Self::Int(i) => Some(i.into()),
            Self::Uint(u) => Some(u.into()),
            Self::Float(f) => {
                if let Some(i) = integral(f) {
                    return Some(i.into());
                }
                serde_json::Number::from_f64(f).map(serde_json::Value::Number)
            }
        }
    }

    /// The value for an integer field: integral floats are accepted, as their JSON text has no point.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(i),
            Self::Uint(u) => i64::try_from(u).ok(),
            Self::Float(f) => integral(f),
        }
    }

    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(i) => i as f64,
            Self::Uint(u) => u as f64,
            Self::Float(f) => f,
        }
    }

    /// The text that a string field gets where upstream turns scalars into strings: floats with the shortest
    /// digits of a 32-bit float.
    #[must_use]
    pub fn as_string(self) -> String {
        match self {
            Self::Int(i) => i.to_string(),
            Self::Uint(u) => u.to_string(),
            Self::Float(f) => format_g32(f),
        }
    }

    /// The text of the number in JSON as Go writes it.
    #[must_use]
    pub fn json_text(self) -> String {
        match self {
            Self::Int(i) => i.to_string(),
            Self::Uint(u) => u.to_string(),
            Self::Float(f) => {
                let magnitude = f.abs();
                if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
                    let text = format!("{f:e}");
                    match text.split_once('e') {
                        Some((mantissa, exponent)) if !exponent.starts_with('-') => {
                            format!("{mantissa}e+{exponent}")
                        }
                        _ => text,
                    }
                } else {
                    format!("{f}")
                }
            }
        }
    }
}

/// The integer that a float stands for, if Go's JSON writes it without a point and an int64 holds it.
fn integral(f: f64) -> Option<i64> {
    // The bound itself, 2^63, is one too many for an i64.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&f);
    // Minus zero prints as "-0", which an integer field takes as zero.
    (fits && f.fract() == 0.0).then_some(f as i64)
}

/// Go's `strconv.FormatFloat(f, 'g', -1, 32)`.
fn format_g32(f: f64) -> String {
    let narrow = f as f32;
    if narrow.is_nan() {
        return "NaN".to_owned();
    }
    if narrow.is_infinite() {
        return if narrow > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{narrow:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // With the shortest digits, Go decides for an exponent as if the precision were six.
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{narrow}")
}

static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(
        clippy::expect_used,
        reason = "a constant pattern, compiled by the tests"
    )]
    Regex::new(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$").expect("constant pattern")
});

/// The meaning of a plain scalar without a tag.
pub(super) fn resolve_plain<'a>(text: impl Into<Cow<'a, str>>) -> NodeValue {
    let text = text.into();
    special(&text).unwrap_or_else(|| NodeValue::String(text.into_owned()))
}

/// What is not a text.
fn special(text: &str) -> Option<NodeValue> {
    let Some(first) = text.bytes().next() else {
        return Some(NodeValue::Null);
    };
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' => named(text),
        b'.' => named(text).or_else(|| float(text).map(NodeValue::Number)),
        b'+' | b'-' | b'0'..=b'9' => named(text).or_else(|| number(text).map(NodeValue::Number)),
        _ => None,
    }
}

fn named(text: &str) -> Option<NodeValue> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            NodeValue::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            NodeValue::Bool(false)
        }
        "~" | "null" | "Null" | "NULL" => NodeValue::Null,
        ".nan" | ".NaN" | ".NAN" => NodeValue::Number(Number::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            NodeValue::Number(Number::Float(f64::INFINITY))
        }
        "-.inf" | "-.Inf" | "-.INF" => NodeValue::Number(Number::Float(f64::NEG_INFINITY)),
        _ => return None,
    })
}

fn number(text: &str) -> Option<Number> {
    let plain = text.replace('_', "");
    integer(&plain).or_else(|| float(&plain))
}

fn float(text: &str) -> Option<Number> {
    if !FLOAT.is_match(text) {
        return None;
    }
    // Go calls an overflow an error, and the scalar stays a string.
    text.parse::<f64>()
        .ok()
        .filter(|f| f.is_finite())
        .map(Number::Float)
}

/// Go's integer syntax with base prefix: `0x`, `0o`, `0b` and the bare `0` of octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = unsigned.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, &unsigned[2..]),
        Some("0o") => (8, &unsigned[2..]),
        Some("0b") => (2, &unsigned[2..]),
        _ if unsigned.len() > 1 && unsigned.starts_with('0') => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        // 2^63 has no positive i64, its negative does.
        return 0i64.checked_sub_unsigned(magnitude).map(Number::Int);
    }
    // A leading plus is allowed for signed integers only.
    match i64::try_from(magnitude) {
        Ok(i) => Some(Number::Int(i)),
        Err(_) if text.starts_with('+') => None,
        Err(_) => Some(Number::Uint(magnitude)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-020: YAML 1.1 scalars.
    #[test]
    fn cfg_020_octal_and_words() {
        assert_eq!(resolve_plain("0400"), NodeValue::Number(Number::Int(256)));
        assert_eq!(resolve_plain("yes"), NodeValue::Bool(true));
        assert_eq!(resolve_plain("Off"), NodeValue::Bool(false));
        assert_eq!(resolve_plain("yEs"), NodeValue::String("yEs".into()));
        assert_eq!(resolve_plain("08"), NodeValue::Number(Number::Float(8.0)));
        assert_eq!(
            resolve_plain("-9223372036854775808"),
            NodeValue::Number(Number::Int(i64::MIN))
        );
        assert_eq!(resolve_plain("1:30"), NodeValue::String("1:30".into()));
        assert_eq!(resolve_plain("0x-1"), NodeValue::String("0x-1".into()));
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        let text = |f: f64| Number::Float(f).as_string();
        assert_eq!(text(1.1), "1.1");
        assert_eq!(text(1e20), "1e+20");
        assert_eq!(text(1e21), "1e+21");
        assert_eq!(text(1e-7), "1e-07");
        assert_eq!(text(1000.0), "1000");
        assert_eq!(text(123_456_789.123_456_79), "1.2345679e+08");
        assert_eq!(text(-0.0), "-0");
        assert_eq!(Number::Float(1e21).json_text(), "1e+21");
        assert_eq!(Number::Float(0.5).json_text(), "0.5");
    }
}
