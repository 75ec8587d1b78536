//! What approve costs besides the network, on a pull request of 3,000 files in a repository with as many OWNERS as
//! kubernetes has: `cargo bench -p trireme-plugins --features cost`.
//!
//! Times are of the processor, so that they mean the same on a machine that is busy: the median of some runs, and the
//! worst of them. The last rows are all that the handler does, from the answers of the forge and a mirror on disk to the
//! decision, and what git takes to read the same OWNERS files, in real time.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people"
)]

#[path = "approve/handler.rs"]
mod handler;

use std::time::Duration;

use trireme_forge::owners::{OwnersOptions, RepoOwners};
use trireme_plugins::cost::Scene;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILES: usize = 3000;
const OWNERS: usize = 600;
const ALIASES: usize = 100;
/// Times that a row is run.
const RUNS: usize = 20;
/// What issue an event may take besides the network.
const BAR: Duration = Duration::from_millis(100);

/// Which directories have OWNERS.
#[derive(Clone, Copy)]
enum Shape {
    /// As kubernetes': directories in directories, four deep, most with parents that stand in for them.
    Nested,
    /// All beside each other: each must approve, and nobody stands in.
    Flat,
    /// Beside each other, each with people of its own: as many must be asked as there are directories.
    Strangers,
    /// As `Nested`, with filters by file name.
    Filters,
}

fn main() {
    for (what, shape) in [
        ("nested", Shape::Nested),
        ("flat", Shape::Flat),
        ("strangers", Shape::Strangers),
        ("filters", Shape::Filters),
    ] {
        row(what, shape);
    }
    let files = owners_files(Shape::Nested);
    handler::rows(&files, &changed(Shape::Nested));
}

/// The paths of a pull request.
fn changed(shape: Shape) -> Vec<String> {
    (0..FILES)
        .map(|n| {
            format!(
                "{}/file{n}.{}",
                directory(shape, n % OWNERS),
                ["go", "md", "yaml"][n % 3]
            )
        })
        .collect()
}

fn row(what: &str, shape: Shape) {
    let files = owners_files(shape);
    let (parsed, owners) = timed(RUNS, || {
        let files = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_bytes()));
        RepoOwners::from_files(files, &OwnersOptions::default())
    });
    assert!(owners.problems().is_empty());
    let comments = [("alias1-user1", "/approve"), ("somebody", "looks good")];
    let scene = Scene::new(changed(shape), owners, &comments);
    let (decided, told) = timed(RUNS, || scene.decide().unwrap());
    let needed = told.lines().filter(|line| line.starts_with("- ")).count();
    let asked = told.rsplit("META=").next().unwrap().matches(',').count() + 1;
    println!(
        "{what}: {OWNERS} OWNERS files parsed in {parsed}; {FILES} files decided in {decided}: {needed} OWNERS needed, {asked} people to ask"
    );
}

/// Median and worst.
struct Times(Duration, Duration);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.1 <= BAR {
            ""
        } else {
            " (MORE THAN 100 ms)"
        };
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        write!(
            f,
            "{:.1} ms, at worst {:.1} ms{verdict}",
            ms(self.0),
            ms(self.1)
        )
    }
}

fn timed<T>(runs: usize, mut work: impl FnMut() -> T) -> (Times, T) {
    let mut times = Vec::with_capacity(runs);
    let result = loop {
        let start = processor();
        let result = work();
        times.push(processor() - start);
        if times.len() == runs {
            break result;
        }
    };
    times.sort();
    (Times(times[runs / 2], times[runs - 1]), result)
}

/// What all threads have used so far, but for that of the forge.
fn processor() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let used = threads.map(|thread| {
        let dir = thread.unwrap().path();
        // One may end while it is looked at.
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let told = read("schedstat");
        let nanoseconds: u64 = told.split(' ').next().unwrap().parse().unwrap_or(0);
        if read("comm").trim() == handler::FORGE {
            0
        } else {
            nanoseconds
        }
    });
    Duration::from_nanos(used.sum())
}

fn directory(shape: Shape, n: usize) -> String {
    match shape {
        Shape::Flat | Shape::Strangers => format!("dir{n}"),
        Shape::Nested | Shape::Filters => format!("d{}/e{}/f{}/g{n}", n % 10, n % 40, n % 150),
    }
}

fn owners_files(shape: Shape) -> Vec<(String, String)> {
    let mut aliases = "aliases:\n".to_owned();
    for alias in 0..ALIASES {
        aliases.push_str(&format!("  alias{alias}:\n"));
        for user in 0..3 + alias % 10 {
            // People are in several groups.
            aliases.push_str(&format!("  - alias{}-user{user}\n", alias / 2));
        }
    }
    let top = "approvers: [top0, top1, alias0]\nreviewers: [alias1]\n".to_owned();
    let mut files = vec![
        ("OWNERS_ALIASES".to_owned(), aliases),
        ("OWNERS".to_owned(), top),
    ];
    for n in 0..OWNERS {
        let directory = directory(shape, n);
        let (one, two) = (n % ALIASES, n * 7 % ALIASES);
        let list = match shape {
            Shape::Strangers => format!("approvers: [own{n}, other{n}]\nreviewers: [own{n}]\n"),
            _ => format!(
                "approvers: [alias{one}, alias{two}, person{n}]\nreviewers: [alias{two}, reviewer{n}]\nlabels: [area/{one}]\n"
            ),
        };
        let text = match shape {
            Shape::Filters => format!(
                "filters:\n  '.*':\n    approvers: [alias{one}]\n  '\\.go$':\n    approvers: [alias{two}]\n  '\\.ya?ml$':\n    approvers: [person{n}]\n"
            ),
            _ if n % 20 == 0 => format!("{list}options:\n  no_parent_owners: true\n"),
            _ => list,
        };
        files.push((format!("{directory}/OWNERS"), text));
    }
    files
}
