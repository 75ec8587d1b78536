//! One quick scenario and one quick run with real processes in every test run; `cargo run -p chaos-tests --bin chaos --
//! --scenario all` and `-- --minutes 10` do all of it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that does not get what it needs has failed"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// With the arguments of one line.
fn chaos(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    command.args(arguments.split_whitespace());
    command
}

/// What it said, and what it said went wrong.
fn told(output: &Output) -> (String, String) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Fails unless it exited with this code. The verdict says where the history is: it then outlives the test.
fn exited_with(code: i32, output: &Output, directory: tempfile::TempDir) -> tempfile::TempDir {
    if output.status.code() == Some(code) {
        return directory;
    }
    let (told, why) = told(output);
    let kept = directory.keep();
    panic!("{}: {}\n{told}{why}", kept.display(), output.status);
}

fn verdict(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("verdict.json")).unwrap()).unwrap()
}

#[test]
fn no_acknowledged_webhook_is_lost_when_the_leader_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let output = chaos("--scenario leader-killed-during-ingestion --rounds 1 --directory")
        .arg(directory.path())
        .output()
        .unwrap();
    let _directory = exited_with(0, &output, directory);
    let (told, _) = told(&output);
    assert!(
        told.contains("passed  leader-killed-during-ingestion"),
        "{told}"
    );
}

/// The seed makes both come soon, and neither last long.
#[test]
fn a_run_passes_and_leaves_its_history_and_its_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let output =
        chaos("--minutes 0.15 --nemesis kill,one-way --network loopback --seed 1513 --directory")
            .arg(directory.path())
            .output()
            .unwrap();
    let directory = exited_with(0, &output, directory);
    let (told, _) = told(&output);
    assert!(told.contains("\npassed  3 nodes in "), "{told}");
    let verdict = verdict(directory.path());
    assert_eq!(verdict["verdict"], "passed");
    assert_eq!(verdict["seed"], 1513);
    for nemesis in ["kill", "one-way"] {
        assert!(
            verdict["nemeses"][nemesis]["times"].as_u64() >= Some(1),
            "{verdict}"
        );
    }
    for verb in ["create", "read"] {
        assert!(
            verdict["operations"][verb]["done"].as_u64() > Some(0),
            "{verdict}"
        );
    }
    assert!(verdict["counts"]["merges"].as_u64() > Some(0), "{verdict}");
    let history = directory.path().join("history");
    for name in [
        "watch-1.jsonl",
        "watch-3.pb",
        "forge.jsonl",
        "operations.jsonl",
        "digests.jsonl",
        "last.txt",
        "node-1.log",
    ] {
        let bytes = fs::metadata(history.join(name)).map(|about| about.len());
        assert!(
            bytes.as_ref().is_ok_and(|bytes| *bytes > 0),
            "{name}: {bytes:?}"
        );
    }
}

/// Here `mount` refuses, as it does without the right to it, and two nodes have nothing to bridge.
#[test]
fn what_the_machine_does_not_allow_is_skipped_and_is_no_pass() {
    let tools = tempfile::tempdir().unwrap();
    let mount = tools.path().join("mount");
    fs::write(
        &mount,
        "#!/bin/sh\necho 'mount: only root can do that' >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&mount, fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = tools.path().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let directory = tempfile::tempdir().unwrap();
    let output =
        chaos("--minutes 0.01 --nemesis bridge,disk-full --nodes 2 --network loopback --directory")
            .arg(directory.path())
            .env("PATH", path)
            .output()
            .unwrap();
    let directory = exited_with(3, &output, directory);
    let (told, _) = told(&output);
    for line in [
        "\nINCOMPLETE  2 nodes in ",
        "bridge           SKIPPED: a bridge needs three nodes\n",
        "disk-full        SKIPPED: mount: mount: only root can do that\n",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(verdict(directory.path())["verdict"], "INCOMPLETE");
}

#[test]
fn a_scenario_that_does_not_exist_is_wrong_usage() {
    let output = chaos("--scenario sunshine").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let (_, why) = told(&output);
    assert!(
        why.contains("--scenario sunshine: there is no such scenario"),
        "{why}"
    );
}

#[test]
fn a_nemesis_that_does_not_exist_is_wrong_usage() {
    let output = chaos("--minutes 1 --nemesis flood --network loopback")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let (_, why) = told(&output);
    assert!(
        why.contains("--nemesis flood: there is no such nemesis"),
        "{why}"
    );
}
