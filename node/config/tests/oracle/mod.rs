//! Upstream's answers, beside the project where they are present; tests that need them pass without.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; each test file uses a part"
)]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn shared() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared")
}

/// The real configurations, if present.
pub(crate) fn corpus() -> Option<PathBuf> {
    present(shared().join("corpus"))
}

fn present(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not present", path.display());
    None
}

/// The bytes of an oracle file, unpacked.
pub(crate) fn bytes(name: &str) -> Option<Vec<u8>> {
    let path = present(shared().join("oracle").join(name))?;
    let raw = std::fs::read(&path).unwrap();
    if !name.ends_with(".gz") {
        return Some(raw);
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(raw.as_slice())
        .read_to_end(&mut unpacked)
        .unwrap();
    Some(unpacked)
}

/// The objects of a file with one per line.
pub(crate) fn lines(name: &str) -> Option<Vec<Value>> {
    let text = String::from_utf8(bytes(name)?).unwrap();
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

pub(crate) fn json(name: &str) -> Option<Value> {
    Some(serde_json::from_slice(&bytes(name)?).unwrap())
}

/// Equality of JSON values, numbers by value.
pub(crate) fn same_json(a: &Value, b: &Value) -> bool {
    difference(a, b, "").is_none()
}

/// The first difference between an expected and a found value, by path.
pub(crate) fn difference(expected: &Value, found: &Value, path: &str) -> Option<String> {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) if same_number(a, b) => None,
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(n, (a, b))| difference(a, b, &format!("{path}[{n}]"))),
        (Value::Object(a), Value::Object(b)) => a
            .iter()
            .find_map(|(key, value)| {
                difference(
                    value,
                    b.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                )
            })
            .or_else(|| {
                let extra = b.keys().find(|key| !a.contains_key(*key))?;
                Some(format!("{path}.{extra}: not expected, found {}", b[extra]))
            }),
        (a, b) if a == b => None,
        (a, b) => Some(format!("{path}: expected {a}, found {b}")),
    }
}

/// Within the last digit: serde_json reads long fractions by one unit in the last place.
fn same_number(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    match (a.as_i64(), b.as_i64(), a.as_f64(), b.as_f64()) {
        (Some(a), Some(b), ..) => a == b,
        (.., Some(a), Some(b)) => (a - b).abs() <= a.abs() * f64::EPSILON * 2.0,
        _ => a == b,
    }
}
