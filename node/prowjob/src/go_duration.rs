//! Go's durations: `time.ParseDuration` and `Duration.String`, in nanoseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::go::OmitEmpty;

/// A signed length of time in nanoseconds, at most about 292 years either way.
///
/// Its JSON is the text form (`"2h0m0s"`); it is read from that or from an integer number of nanoseconds, as Prow's
/// own duration fields are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub i64);

/// A duration in fields that read text only, as Kubernetes' `metav1.Duration` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MetaDuration(pub GoDuration);

/// Why a text is no duration; the wording is Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a number followed by a unit, or out of range.
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    /// A number without unit.
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    /// A unit other than ns, us, µs, ms, s, m, h.
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit {
        /// What stood where a unit belongs.
        unit: String,
        /// The whole text.
        text: String,
    },
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// Magnitude of the most negative duration.
const LIMIT: u64 = 1 << 63;

impl GoDuration {
    /// Whole seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// For waiting: a negative duration is no wait at all.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<Duration> for GoDuration {
    /// Saturates at the longest Go duration.
    fn from(d: Duration) -> Self {
        Self(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl MetaDuration {
    /// The duration itself.
    pub const fn get(self) -> GoDuration {
        self.0
    }
}

impl From<GoDuration> for MetaDuration {
    fn from(d: GoDuration) -> Self {
        Self(d)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match n {
            0 => f.write_str("0s"),
            1..MICROSECOND => write!(f, "{n}ns"),
            MICROSECOND..MILLISECOND => write_decimal(f, n, MICROSECOND, "µs"),
            MILLISECOND..SECOND => write_decimal(f, n, MILLISECOND, "ms"),
            _ => {
                let (hours, minutes) = (n / HOUR, n % HOUR / MINUTE);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if n >= MINUTE {
                    write!(f, "{minutes}m")?;
                }
                write_decimal(f, n % MINUTE, SECOND, "s")
            }
        }
    }
}

impl fmt::Display for MetaDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `n / unit` with as many decimals as there are, then the unit's name.
fn write_decimal(f: &mut fmt::Formatter<'_>, n: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", n / unit)?;
    let rest = n % unit;
    if rest > 0 {
        let digits = unit.ilog10() as usize;
        let text = format!("{rest:0digits$}");
        write!(f, ".{}", text.trim_end_matches('0'))?;
    }
    f.write_str(name)
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (term, after) = parse_term(rest, text)?;
            total = total
                .checked_add(term)
                .filter(|t| *t <= LIMIT)
                .ok_or_else(invalid)?;
            rest = after;
        }
        if negative {
            return Ok(Self((total as i64).wrapping_neg()));
        }
        i64::try_from(total).map(Self).map_err(|_| invalid())
    }
}

/// One `number unit` pair at the start of `s`, and what follows it.
fn parse_term<'a>(s: &'a str, whole: &str) -> Result<(u64, &'a str), DurationError> {
    let invalid = || DurationError::Invalid(whole.to_owned());
    let digits_end = |s: &str| {
        s.bytes()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(s.len())
    };

    let (int_digits, rest) = s.split_at(digits_end(s));
    let mut value: u64 = 0;
    for d in int_digits.bytes() {
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(u64::from(d - b'0')))
            .filter(|v| *v <= LIMIT)
            .ok_or_else(invalid)?;
    }

    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => after.split_at(digits_end(after)),
        None => ("", rest),
    };
    if int_digits.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }

    let unit_end = rest
        .bytes()
        .position(|b| b == b'.' || b.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit_name, rest) = rest.split_at(unit_end);
    let unit = match unit_name {
        "" => return Err(DurationError::MissingUnit(whole.to_owned())),
        "ns" => 1,
        "us" | "µs" | "μs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        other => {
            return Err(DurationError::UnknownUnit {
                unit: other.to_owned(),
                text: whole.to_owned(),
            });
        }
    };

    value = value
        .checked_mul(unit)
        .filter(|v| *v <= LIMIT)
        .ok_or_else(invalid)?;
    let (numerator, scale) = leading_fraction(fraction);
    if numerator > 0 {
        // Go computes this in floating point; the result must agree to the nanosecond.
        let part = (numerator as f64 * (unit as f64 / scale)) as u64;
        value = value
            .checked_add(part)
            .filter(|v| *v <= LIMIT)
            .ok_or_else(invalid)?;
    }
    Ok((value, rest))
}

/// Digits after the point as `numerator / scale`; digits that no longer fit are dropped.
fn leading_fraction(digits: &str) -> (u64, f64) {
    let mut numerator: u64 = 0;
    let mut scale = 1.0;
    for d in digits.bytes() {
        if numerator > (LIMIT - 1) / 10 {
            break;
        }
        let next = numerator * 10 + u64::from(d - b'0');
        if next > LIMIT {
            break;
        }
        numerator = next;
        scale *= 10.0;
    }
    (numerator, scale)
}

/// Go's quoting inside duration errors: every byte outside printable ASCII as `\xNN`.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for b in text.bytes() {
        match b {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(b));
            }
            b' '..=b'~' | 0x7f => out.push(char::from(b)),
            _ => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out.push('"');
    out
}

impl OmitEmpty for GoDuration {
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl OmitEmpty for MetaDuration {
    fn is_empty(&self) -> bool {
        false
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct TextOrNanos {
    nanos: bool,
}

impl Visitor<'_> for TextOrNanos {
    type Value = GoDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.nanos {
            "a duration such as \"1h30m\" or an integer number of nanoseconds"
        } else {
            "a duration such as \"1h30m\""
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<GoDuration, E> {
        if self.nanos {
            Ok(GoDuration(n))
        } else {
            Err(E::invalid_type(de::Unexpected::Signed(n), &self))
        }
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<GoDuration, E> {
        match i64::try_from(n) {
            Ok(n) if self.nanos => Ok(GoDuration(n)),
            _ => Err(E::invalid_type(de::Unexpected::Unsigned(n), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNanos { nanos: true })
    }
}

impl<'de> Deserialize<'de> for MetaDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(TextOrNanos { nanos: false })
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go() {
        let text: Vec<String> = [
            0,
            1,
            1100,
            2_200_000,
            3_300_000_000,
            245_000_000_000,
            245_001_000_000,
            18_367_001_000_000,
            i64::MAX,
            i64::MIN,
        ]
        .into_iter()
        .map(|n| GoDuration(n).to_string())
        .collect();
        insta::assert_snapshot!(text.join(" "), @"0s 1ns 1.1µs 2.2ms 3.3s 4m5s 4m5.001s 5h6m7.001s 2562047h47m16.854775807s -2562047h47m16.854775808s");
    }

    #[test]
    fn refuses_with_gos_words() {
        let errors: Vec<String> = [
            "",
            "1",
            "1d",
            "x",
            ".s",
            "1h 30m",
            "9223372036854775808ns",
            "1µ",
        ]
        .into_iter()
        .map(|t| t.parse::<GoDuration>().unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        time: invalid duration ""
        time: missing unit in duration "1"
        time: unknown unit "d" in duration "1d"
        time: invalid duration "x"
        time: invalid duration ".s"
        time: unknown unit "h " in duration "1h 30m"
        time: invalid duration "9223372036854775808ns"
        time: unknown unit "\xc2\xb5" in duration "1\xc2\xb5"
        "#);
        assert_eq!("-9223372036854775808ns".parse(), Ok(GoDuration(i64::MIN)));
    }

    #[test]
    fn only_prows_own_duration_reads_numbers() {
        assert_eq!(
            serde_json::from_str::<GoDuration>("5").unwrap(),
            GoDuration(5)
        );
        assert!(serde_json::from_str::<GoDuration>("1.5").is_err());
        assert!(serde_json::from_str::<MetaDuration>("5").is_err());
        assert_eq!(
            serde_json::from_str::<MetaDuration>("\"5s\"")
                .unwrap()
                .get(),
            GoDuration::from_secs(5)
        );
    }
}
