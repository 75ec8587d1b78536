//! The simulator keeps its own promises: seeds pass while everything goes wrong that can, a seed means one run, and
//! planted bugs are found and shown again.

#![allow(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs has failed"
)]

use std::{
    collections::BTreeMap,
    process::{Command, Output},
};

/// Long enough for a few crashes and partitions, short enough for three dozen seeds in a debug build.
const MINUTES: &str = "0.1";

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--minutes-of-simulated-time", MINUTES])
        .args(arguments)
        .output()
        .unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// How often each thing happened, in all seeds together.
fn together(told: &str) -> BTreeMap<&str, u64> {
    let line = told.lines().find_map(|line| line.strip_prefix("together "));
    let each = line.unwrap().split(", ");
    each.map(|one| {
        let (count, name) = one.split_once(' ').unwrap();
        (name, count.parse().unwrap())
    })
    .collect()
}

#[test]
fn seeds_keep_every_promise_while_everything_goes_wrong() {
    let output = sim(&["--seeds", "36"]);
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("36 seeds: every promise was kept"), "{told}");
    let together = together(&told);
    println!("{together:#?}");
    for name in [
        "kills",
        "partitions",
        "webhooks",
        "periodic runs",
        "swept jobs",
    ] {
        assert!(together.contains_key(name), "{name}: {told}");
    }
    for (name, count) in together {
        assert!(count > 0, "no {name}: {told}");
    }
}

#[test]
fn a_seed_means_one_run() {
    let output = sim(&["--from", "4", "--seeds", "2", "--twice"]);
    assert!(output.status.success(), "{}", told(&output));
}

/// What is told of the first seed that failed, and the command that is said to show it again.
fn first_failed(told: &str) -> (&str, &str) {
    let (verdict, rest) = told.split_once("\n  see it again with: ").unwrap();
    let began = verdict.rfind("\nseed ").map_or(0, |before| before + 1);
    (&verdict[began..], rest.lines().next().unwrap())
}

/// Some of the seeds fail, in these words; the command that is printed fails in the same way, to the last line of its
/// trace.
fn is_found(plant: &str, seeds: &str, words: &str) {
    let output = sim(&["--seeds", seeds, "--plant", plant]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(words), "{told}");
    let (verdict, command) = first_failed(&told);
    let directory = tempfile::tempdir().unwrap();
    let again = Command::new("sh")
        .args(["-c", command])
        .current_dir(&directory)
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1), "{command}");
    assert_eq!(
        String::from_utf8_lossy(&again.stdout).trim_end(),
        verdict,
        "{command}"
    );
    let trace = command.split(' ').next_back().unwrap();
    let trace = std::fs::read_to_string(directory.path().join(trace)).unwrap();
    let lines = format!("; trace of {} lines ", trace.lines().count());
    assert!(verdict.contains(&lines), "{lines}{verdict}");
}

/// Whoever acknowledges what is not on disk is caught.
#[test]
fn disks_that_lie_are_found() {
    is_found("lying-disks", "4", "does not open: the log is damaged");
}

#[test]
fn a_watch_that_skips_changes_is_found() {
    is_found("skipped-changes", "1", "and did not show");
}

#[test]
fn an_outbox_that_forgets_reports_is_found() {
    is_found("forgotten-reports", "4", "nobody was told that job");
}
