//! Upstream's answers, beside the project where they are present; tests that need them pass without. Tests of other
//! crates take this file in by its path.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// The objects of a packed file with one per line.
pub(crate) fn lines(name: &str) -> Vec<Value> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut places = above.map(|place| place.join("shared/oracle").join(name));
    let Some(Ok(file)) = places.find(|path| path.exists()).map(std::fs::File::open) else {
        println!("skipped: no {name} beside the project");
        return Vec::new();
    };
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    lines
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}
