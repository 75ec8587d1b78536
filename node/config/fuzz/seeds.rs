//! Fills `corpus/TARGET` beside this file from a directory of Prow configurations: `cargo run --bin seeds -- DIR`.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use trireme_config::yaml::{self, Node, NodeValue};

/// Larger files teach the fuzzer little and cost it much.
const MAX_SEED_BYTES: usize = 64 << 10;

type Seeds = BTreeSet<(&'static str, Vec<u8>)>;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(dir) = env::args_os().nth(1) else {
        return Err("usage: seeds DIR, a directory with Prow configurations".into());
    };
    let mut seeds = Seeds::new();
    walk(Path::new(&dir), &mut seeds)?;
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (n, (target, bytes)) in seeds.iter().enumerate() {
        let of_target = corpus.join(target);
        fs::create_dir_all(&of_target)?;
        fs::write(of_target.join(format!("seed-{n:06}")), bytes)?;
    }
    println!("{} seeds in {}", seeds.len(), corpus.display());
    Ok(())
}

fn walk(dir: &Path, seeds: &mut Seeds) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, seeds)?;
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            let bytes = fs::read(&path)?;
            if bytes.len() > MAX_SEED_BYTES {
                continue;
            }
            if let Ok(document) = yaml::parse(&bytes) {
                scalars("", &document.root, seeds);
                let file = match ["presubmits", "postsubmits", "periodics"]
                    .iter()
                    .any(|key| document.root.get(key).is_some())
                {
                    true => [b"=====\n".as_slice(), &bytes].concat(),
                    false if document.root.get("plugins").is_some() => {
                        [b"=====\n=====\n".as_slice(), &bytes].concat()
                    }
                    false => bytes.clone(),
                };
                seeds.insert(("load", file));
            }
            seeds.insert(("yaml", bytes));
        }
    }
    Ok(())
}

/// The texts of a file by what they are.
fn scalars(key: &str, node: &Node, seeds: &mut Seeds) {
    match &node.value {
        NodeValue::Mapping(entries) => {
            for entry in entries {
                // Maps by repository hold what their own key says.
                let key = if entry.key.contains('/') || entry.key == "*" {
                    key
                } else {
                    &entry.key
                };
                scalars(key, &entry.value, seeds);
            }
        }
        NodeValue::Sequence(items) => items.iter().for_each(|item| scalars(key, item, seeds)),
        NodeValue::String(text) => {
            let target = match key {
                "cron" => "cron",
                "interval" | "minimum_interval" | "timeout" | "grace_period" => "duration",
                "branches"
                | "skip_branches"
                | "run_if_changed"
                | "skip_if_only_changed"
                | "trigger" => "regex",
                _ if text.contains("{{") => "template",
                _ => return,
            };
            seeds.insert((target, text.clone().into_bytes()));
        }
        _ => {}
    }
}
