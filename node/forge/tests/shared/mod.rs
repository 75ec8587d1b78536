//! The reference material beside the project, where present.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;

/// `None`, with a printed line, if it is not there.
pub(crate) fn dir() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: no reference material at {}", dir.display());
    None
}

pub(crate) fn gunzip(path: &str) -> Option<String> {
    let path = dir()?.join(path);
    let Ok(file) = std::fs::File::open(&path) else {
        println!("skipped: no {}", path.display());
        return None;
    };
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    Some(text)
}

/// The lines of one of upstream's answer files.
#[allow(dead_code, reason = "each test program uses its part of this module")]
pub(crate) fn oracle(name: &str) -> Option<Vec<Value>> {
    let text = gunzip(&format!("oracle/{name}"))?;
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}
