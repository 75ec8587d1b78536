//! Upstream's answers, beside the project where they are present; tests that need them pass without.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use serde_json::Value;
use trireme_config::{Config, LoadOptions, Loaded};

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
    difference_but(expected, found, path, &[])
}

/// The same, but that fields of these names may be found in addition.
pub(crate) fn difference_but(
    expected: &Value,
    found: &Value,
    path: &str,
    more: &[&str],
) -> Option<String> {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) if same_number(a, b) => None,
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(n, (a, b))| difference_but(a, b, &format!("{path}[{n}]"), more)),
        (Value::Object(a), Value::Object(b)) => a
            .iter()
            .find_map(|(key, value)| {
                difference_but(
                    value,
                    b.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                    more,
                )
            })
            .or_else(|| {
                let extra = b
                    .keys()
                    .find(|key| !a.contains_key(*key) && !more.contains(&key.as_str()))?;
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

/// A configuration of the oracle: the files of the corpus under the paths that upstream was given.
pub(crate) fn instance(name: &str) -> Option<trireme_config::FileSet> {
    use trireme_config::{FileSet, Layout};
    let corpus = corpus()?;
    let prefix = format!("{}/", corpus.display());
    let table = std::fs::read_to_string(corpus.join("INSTANCES.tsv")).unwrap();
    let listed = name
        .trim_end_matches("-defaults")
        .trim_end_matches("-unique");
    let row: Vec<&str> = table
        .lines()
        .map(|l| l.split('\t').collect::<Vec<_>>())
        .find(|row| row[0] == listed)
        .unwrap();
    let at = |path: &str| (path != "-").then(|| format!("{prefix}{path}"));
    let own_main = shared()
        .join("oracle/eks-main-config.yaml")
        .display()
        .to_string();
    let main = if name.ends_with("-defaults") {
        Some(own_main.clone())
    } else {
        at(row[1])
    };
    let empty = tempfile::NamedTempFile::new().unwrap();
    let main = main.unwrap_or_else(|| empty.path().display().to_string());
    let plugins = if name == "tidb-ci-unique" {
        None
    } else {
        at(row[2])
    };
    let layout = Layout {
        config: main.clone(),
        jobs: at(row[3]),
        plugins,
        ..Layout::default()
    };
    let read = trireme_config::files::read(layout).unwrap();
    let plain = |path: &str| match path.strip_prefix(&prefix) {
        Some(path) => path.to_owned(),
        None if path == own_main => "eks-main-config.yaml".to_owned(),
        None => "<empty main config>".to_owned(),
    };
    let mut files = FileSet::new(Layout {
        config: plain(&main),
        jobs: read.layout.jobs.as_deref().map(plain),
        plugins: read.layout.plugins.as_deref().map(plain),
        ..Layout::default()
    });
    let mut names = std::collections::BTreeMap::<String, usize>::new();
    for (path, bytes) in read.iter() {
        let mut path = plain(path);
        if name == "tidb-ci-unique" && path.starts_with("tidb/ci/") {
            // Unique names that keep the order of the walk.
            let base = path.rsplit('/').next().unwrap().to_owned();
            let n = names.entry(base).or_default();
            *n += 1;
            if *n > 1 {
                let stem = path.trim_end_matches(".yaml").to_owned();
                path = format!("{stem}.{n:03}.yaml");
            }
        }
        files.insert(path, bytes.clone());
    }
    Some(files)
}

/// A loaded configuration of the oracle; each is loaded once.
pub(crate) fn loaded(name: &str) -> Option<Arc<Loaded>> {
    type Slot = Arc<OnceLock<Option<Arc<Loaded>>>>;
    static LOADED: Mutex<BTreeMap<String, Slot>> = Mutex::new(BTreeMap::new());
    let slot = LOADED
        .lock()
        .unwrap()
        .entry(name.to_owned())
        .or_default()
        .clone();
    let load = || {
        let files = instance(name)?;
        let now = Some("2026-08-21T00:00:00Z".parse().unwrap());
        let started = Instant::now();
        let loaded = Config::load(
            &files,
            LoadOptions {
                now,
                ..LoadOptions::default()
            },
        );
        println!(
            "{name}: loaded in {:?}, {} errors, {} warnings",
            started.elapsed(),
            loaded.errors.len(),
            loaded.warnings.len()
        );
        Some(Arc::new(loaded))
    };
    slot.get_or_init(load).clone()
}

/// Every instance of the oracle.
pub(crate) const INSTANCES: [&str; 23] = [
    "kubernetes",
    "istio-gcp",
    "istio-aws",
    "knative",
    "kyma",
    "metal3",
    "tidb",
    "tidb-ci",
    "oss-test-infra",
    "kubernetes-sigs",
    "nephio",
    "kubesphere",
    "jenkins-x",
    "prometheus",
    "feast",
    "aks-engine",
    "compute-image-tools",
    "kubeedge",
    "eks-distro",
    "eks-anywhere",
    "tidb-ci-unique",
    "eks-distro-defaults",
    "eks-anywhere-defaults",
];

/// Takes fields of these names out, wherever they are.
pub(crate) fn without(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !names.contains(&key.as_str()));
            map.values_mut().for_each(|value| without(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| without(value, names)),
        _ => {}
    }
}

/// The organisation of an instance, by the folder that it stands in.
pub(crate) fn organisation(name: &str) -> Option<String> {
    let table = std::fs::read_to_string(corpus()?.join("INSTANCES.tsv")).unwrap();
    let row: Vec<&str> = table
        .lines()
        .map(|l| l.split('\t').collect::<Vec<_>>())
        .find(|row| row[0] == name)?;
    let path = row[1..].iter().rfind(|path| **path != "-")?;
    path.split('/').next().map(str::to_owned)
}
