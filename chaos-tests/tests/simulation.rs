//! The simulator keeps its own promises: seeds pass, a seed means one run, and a planted bug is found.

#![allow(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs has failed"
)]

use std::process::{Command, Output};

/// Long enough for a few crashes and partitions, short enough for two dozen seeds in a debug build.
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

#[test]
fn seeds_keep_every_promise() {
    let output = sim(&["--seeds", "24"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("24 seeds: every promise was kept"));
}

#[test]
fn a_seed_means_one_run() {
    let output = sim(&["--from", "4", "--seeds", "2", "--twice"]);
    assert!(output.status.success(), "{}", told(&output));
}

/// Whoever acknowledges what is not on disk is caught, and the command that shows it again is named.
#[test]
fn disks_that_lie_are_found() {
    let output = sim(&["--seeds", "6", "--plant", "lying-disks"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("see it again with: "), "{told}");
    assert!(told.contains("--plant lying-disks"), "{told}");
}
