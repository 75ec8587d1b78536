//! Upstream's answers, beside the project where they are present; tests that need them pass without.

use std::io::{BufRead, BufReader};

use serde_json::Value;

/// The objects of a packed file with one per line.
pub(crate) fn lines(name: &str) -> Vec<Value> {
    let path = format!(
        "{}/../../../shared/oracle/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    let Ok(file) = std::fs::File::open(path) else {
        println!("skipped: no {name} beside the project");
        return Vec::new();
    };
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}
