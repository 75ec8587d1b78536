//! From files to a validated configuration, beside upstream's own loader: `cargo bench -p trireme-config`.
//!
//! Each row is a process of its own, so that its memory is its own. The upstream figures are of one core of a machine of
//! this kind. The large configuration lies below `TRIREME_BENCH_DIR`, or where temporary files lie.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people"
)]

mod large;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use trireme_config::job::MAX_EXPRESSIONS;
use trireme_config::{Config, ConfigCache, FileSet, Layout, LoadOptions, Loaded, files};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Named by the parent for the row that a child measures.
const ROW: &str = "TRIREME_BENCH_ROW";
const ROOT: &str = "TRIREME_BENCH_ROOT";

/// What upstream's `Load` needs: seconds and MB.
const UPSTREAM_KUBERNETES: (f64, f64) = (1.1, 210.0);
const UPSTREAM_LARGE: (f64, f64) = (24.0, 2400.0);

fn main() {
    if let Ok(row) = std::env::var(ROW) {
        let root = PathBuf::from(std::env::var(ROOT).unwrap());
        return match row.as_str() {
            "generate" => large::write(&root, large::Scale::WHOLE).unwrap(),
            "kubernetes" => kubernetes(&root),
            "large" => whole(&root),
            _ => changes(&root),
        };
    }
    let home = match std::env::var_os("TRIREME_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    }
    .unwrap();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    if shared.exists() {
        child("kubernetes", &shared);
    } else {
        println!("skipped: {} is not present", shared.display());
    }
    for row in ["generate", "large", "changes"] {
        child(row, home.path());
    }
}

fn child(row: &str, root: &Path) {
    let done = Command::new(std::env::current_exe().unwrap())
        .env(ROW, row)
        .env(ROOT, root)
        .status()
        .unwrap();
    assert!(done.success());
}

fn load(layout: &Layout) -> (Loaded, Duration) {
    let start = Instant::now();
    let files = files::read(layout.clone()).unwrap();
    let loaded = Config::load(&files, LoadOptions::default());
    assert!(loaded.errors.is_empty(), "{}", loaded.errors[0]);
    (loaded, start.elapsed())
}

/// Seconds of processors that this process has used.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    // Ticks of 10 ms, in user and in system mode.
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

/// The most memory that this process ever had, in MB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1000.0
}

fn row(what: &str, loaded: &Loaded, took: Duration, upstream: (f64, f64)) {
    let (presubmits, postsubmits, periodics) = loaded.config.job_counts();
    let (seconds, memory) = (took.as_secs_f64(), peak());
    println!(
        "{what}: {} jobs in {:.0} ms ({:.2} s of processors), {:.1} x as fast as upstream; {memory:.0} MB, {:.2} x upstream's",
        presubmits + postsubmits + periodics,
        seconds * 1000.0,
        processor(),
        upstream.0 / seconds,
        memory / upstream.1
    );
    let bytes = loaded.config.bytes_of_expressions();
    println!(
        "{what}: its expressions take {} MB at most, of {} MB that are allowed",
        bytes >> 20,
        MAX_EXPRESSIONS >> 20
    );
}

fn kubernetes(corpus: &Path) {
    let at = |path: &str| {
        corpus
            .join("kubernetes/test-infra")
            .join(path)
            .display()
            .to_string()
    };
    let (loaded, took) = load(&Layout {
        config: at("config/prow/config.yaml"),
        plugins: Some(at("config/prow/plugins.yaml")),
        jobs: Some(at("config/jobs")),
        ..Layout::default()
    });
    row("kubernetes", &loaded, took, UPSTREAM_KUBERNETES);
}

fn large_layout(root: &Path) -> Layout {
    let paths = large::Paths::below(root);
    let shards = vec![paths.shards.display().to_string()];
    Layout {
        config: paths.config.display().to_string(),
        plugins: Some(paths.plugins.display().to_string()),
        jobs: Some(paths.jobs.display().to_string()),
        supplemental_dirs: shards.clone(),
        plugin_supplemental_dirs: shards,
        ..Layout::default()
    }
}

fn whole(root: &Path) {
    let (loaded, took) = load(&large_layout(root));
    row("large", &loaded, took, UPSTREAM_LARGE);
}

/// What a node does that serves one configuration after the other.
fn changes(root: &Path) {
    let layout = large_layout(root);
    let mut cache = ConfigCache::new();
    let files = files::read(layout.clone()).unwrap();
    let loaded = cache.load(&files, LoadOptions::default());
    println!("large, with what the next one needs: {:.0} MB", peak());

    let at = |suffix: &str| {
        let found = files.iter().find(|(path, _)| path.ends_with(suffix));
        found.unwrap().0.to_owned()
    };
    for (what, path) in [
        ("one job file", at("-presubmits.yaml")),
        ("one shard of the configuration", at("/_prowconfig.yaml")),
        ("one shard of the plugins", at("/_pluginconfig.yaml")),
        ("the main file", layout.config.clone()),
    ] {
        let mut took: Vec<_> = (0..5)
            .map(|n| change(&mut cache, &files, &path, n))
            .collect();
        took.sort();
        println!("a change of {what}: {:.1} ms, median of 5", millis(took[2]));
    }

    let config = loaded.config;
    let repo = "org-07/component-0122";
    let mut took: Vec<_> = (0..5).map(|_| decide(&config, repo)).collect();
    println!(
        "presubmits of one pull request: {:.3} ms at first, {:.3} ms then",
        millis(took.remove(0)),
        millis(took.into_iter().min().unwrap())
    );
}

fn change(cache: &mut ConfigCache, files: &FileSet, path: &str, n: usize) -> Duration {
    // As a version names its files: by their hashes, bytes only of what is new.
    let mut next = FileSet::new(files.layout.clone());
    for (other, _) in files.iter() {
        next.insert_known(other, *files.content(other).unwrap().id(), None);
    }
    let mut bytes = files.get(path).unwrap().to_vec();
    bytes.extend(format!("# {n}\n").bytes());
    next.insert(path, bytes);
    // A change before this one may have been of another file, which is as it was again.
    for path in cache.missing(&next) {
        next.insert(path.as_str(), files.get(&path).unwrap().clone());
    }
    let start = Instant::now();
    let loaded = cache.load(&next, LoadOptions::default());
    assert!(loaded.errors.is_empty(), "{}", loaded.errors[0]);
    start.elapsed()
}

fn decide(config: &Config, repo: &str) -> Duration {
    let start = Instant::now();
    let files = ["docs/a.md", "pkg/b.go"];
    let running = config
        .presubmits(repo)
        .filter(|job| job.should_run("release-4.14", &files, false, false))
        .count();
    assert!(running > 0);
    start.elapsed()
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}
