//! One quick scenario with real processes in every test run; `cargo run -p chaos-tests --bin chaos -- --scenario all`
//! runs them all.

use std::process::Command;

#[test]
fn no_acknowledged_webhook_is_lost_when_the_leader_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--scenario", "leader-killed-during-ingestion"])
        .args(["--rounds", "1"])
        .arg("--directory")
        .arg(directory.path())
        .output()
        .unwrap();
    let (told, why) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if !output.status.success() {
        // The verdict says where the history is: it must outlive the test.
        let kept = directory.keep();
        panic!("{}\n{told}{why}", kept.display());
    }
    assert!(
        told.contains("passed  leader-killed-during-ingestion"),
        "{told}"
    );
}

#[test]
fn a_scenario_that_does_not_exist_is_wrong_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--scenario", "sunshine"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        why.contains("--scenario sunshine: there is no such scenario"),
        "{why}"
    );
}

#[test]
fn a_nemesis_that_does_not_exist_is_wrong_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args([
            "--minutes",
            "1",
            "--nemesis",
            "flood",
            "--network",
            "loopback",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(
        why.contains("--nemesis flood: there is no such nemesis"),
        "{why}"
    );
}
