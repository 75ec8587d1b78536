//! The entrypoint program around real processes: exit codes, markers, logs, timeouts and signals.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trireme-podutils");
const SECOND: i64 = 1_000_000_000;

/// A running entrypoint in a directory of its own.
struct Entrypoint {
    dir: tempfile::TempDir,
    child: Child,
    stdout: BufReader<ChildStdout>,
    seen: String,
}

struct Ended {
    code: Option<i32>,
    marker: Option<String>,
    log: String,
    stdout: String,
}

impl Entrypoint {
    fn start(script: &str, changes: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, json!(["sh", "-c", script]), changes)
    }

    fn start_in(dir: tempfile::TempDir, args: Value, changes: Value) -> Self {
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut options = json!({
            "timeout": 0, "grace_period": 10 * SECOND, "artifact_dir": at("artifacts"), "args": args,
            "container_name": "test", "process_log": at("process-log.txt"), "marker_file": at("marker-file.txt"),
            "metadata_file": at("artifacts/metadata.json"),
        });
        for (key, value) in changes.as_object().unwrap() {
            options[key] = value.clone();
        }
        let mut command = Command::new(PROGRAM);
        command
            .arg("entrypoint")
            .env("ENTRYPOINT_OPTIONS", options.to_string())
            .env("SEEN_BY_CHILD", "yes");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            dir,
            child,
            stdout,
            seen: String::new(),
        }
    }

    /// Reads standard output up to a line.
    fn until(&mut self, wanted: &str) {
        loop {
            let mut line = String::new();
            assert!(
                self.stdout.read_line(&mut line).unwrap() > 0,
                "no {wanted:?} in {:?}",
                self.seen
            );
            self.seen.push_str(&line);
            if line.trim_end() == wanted {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> (Ended, tempfile::TempDir) {
        self.stdout.read_to_string(&mut self.seen).unwrap();
        let code = self.child.wait().unwrap().code();
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).ok();
        let ended = Ended {
            code,
            marker: read("marker-file.txt"),
            log: read("process-log.txt").unwrap_or_default(),
            stdout: self.seen,
        };
        (ended, self.dir)
    }
}

fn run(script: &str, changes: Value) -> Ended {
    Entrypoint::start(script, changes).end().0
}

/// Messages of the program's own lines.
fn messages(log: &str) -> Vec<String> {
    let lines = log
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(&l[l.find('{')?..]).ok());
    lines
        .map(|l| {
            format!(
                "{}: {}",
                l["level"].as_str().unwrap(),
                l["msg"].as_str().unwrap()
            )
        })
        .collect()
}

fn is_gone(pid: &str) -> bool {
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let zombie =
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
        if zombie || test_kill_process(pid).is_err() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn pod_060_061_a_process_ends_with_its_own_code_and_a_whole_log() {
    let ended = run(
        "echo out; echo err >&2; echo $SEEN_BY_CHILD; test -d \"$0\" ; exit 3",
        json!({}),
    );
    assert_eq!((ended.code, ended.marker.as_deref()), (Some(3), Some("3")));
    assert_eq!(ended.log, "out\nerr\nyes\n");
    assert!(ended.stdout.starts_with(&ended.log), "{}", ended.stdout);
    insta::assert_snapshot!(messages(&ended.stdout).join("\n"), @"error: Error executing test process");
    assert!(
        ended
            .stdout
            .contains(r#""error":"wrapped process failed: exit status 3""#)
    );

    let (ended, dir) = Entrypoint::start("true", json!({})).end();
    assert_eq!(
        (ended.code, ended.marker.as_deref(), ended.log.as_str()),
        (Some(0), Some("0"), "")
    );
    assert!(dir.path().join("artifacts").is_dir());
}

#[test]
fn pod_062_067_timeout_interrupts_and_marks_127() {
    let script = "trap 'echo got INT; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let ended = run(script, json!({"timeout": SECOND / 5}));
    assert_eq!(
        (ended.code, ended.marker.as_deref()),
        (Some(127), Some("127"))
    );
    assert!(
        ended.log.contains("ready\n") && ended.log.contains("got INT\n"),
        "{}",
        ended.log
    );
    insta::assert_snapshot!(messages(&ended.log).join("\n"), @r"
    error: Process did not finish before 200ms timeout
    error: Process gracefully exited before 10s grace period
    ");
    assert!(ended.stdout.contains(r#""error":"process timed out""#));

    let ended = run(
        script,
        json!({"timeout": SECOND / 5, "propagate_error_code": true}),
    );
    assert_eq!((ended.code, ended.marker.as_deref()), (Some(9), Some("9")));
}

#[test]
fn pod_062_after_the_grace_period_everything_is_killed() {
    let script = "trap '' INT TERM; (trap '' INT TERM; while :; do sleep 0.05; done) & echo $!; wait; while :; do sleep 0.05; done";
    let ended = run(
        script,
        json!({"timeout": SECOND / 5, "grace_period": SECOND / 5}),
    );
    assert_eq!(ended.marker.as_deref(), Some("127"));
    insta::assert_snapshot!(messages(&ended.log).join("\n"), @r"
    error: Process did not finish before 200ms timeout
    error: Process did not exit before 200ms grace period
    ");
    assert!(
        is_gone(ended.log.lines().next().unwrap()),
        "the grandchild lives on"
    );
}

#[test]
fn pod_062_065_signals_reach_the_whole_group_and_mark_130() {
    // The shell itself ignores SIGTERM until its child has seen it, which it only does as a member of the group.
    let script = "trap 'echo int' INT; trap 'wait; echo term; exit 7' TERM; \
                  (trap 'exit 0' INT; trap 'echo child term; exit 0' TERM; echo ready; while :; do sleep 0.05; done) & \
                  wait; wait; wait";
    let mut entrypoint = Entrypoint::start(script, json!({}));
    entrypoint.until("ready");
    entrypoint.signal(Signal::TERM);
    let (ended, _dir) = entrypoint.end();
    assert_eq!(
        (ended.code, ended.marker.as_deref()),
        (Some(130), Some("130")),
        "{}",
        ended.log
    );
    assert_eq!(
        messages(&ended.log)[0],
        "error: Entrypoint received interrupt: terminated"
    );
    assert!(ended.stdout.contains(r#""error":"process aborted""#));

    let mut entrypoint = Entrypoint::start(
        "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done",
        json!({"propagate_error_code": true}),
    );
    entrypoint.until("ready");
    entrypoint.signal(Signal::INT);
    let (ended, _dir) = entrypoint.end();
    assert_eq!((ended.code, ended.marker.as_deref()), (Some(5), Some("5")));
    assert_eq!(
        messages(&ended.log)[0],
        "error: Entrypoint received interrupt: interrupt"
    );
}

#[test]
fn pod_065_death_by_a_signal_is_128_and_the_signal() {
    let ended = run("kill -9 $$", json!({}));
    assert_eq!(
        (ended.code, ended.marker.as_deref()),
        (Some(137), Some("137"))
    );
    assert!(
        ended
            .stdout
            .contains("wrapped process failed: signal: killed"),
        "{}",
        ended.stdout
    );
}

#[test]
fn pod_065_processes_left_behind_are_waited_for_and_then_killed() {
    // Its last words are kept ...
    let ended = run("(sleep 0.2; echo last words) & exit 0", json!({}));
    assert_eq!(
        (ended.marker.as_deref(), ended.log.as_str()),
        (Some("0"), "last words\n")
    );
    // ... but it does not keep the job.
    let ended = run(
        "(while :; do sleep 0.05; done) & echo $!; exit 4",
        json!({"grace_period": SECOND / 5}),
    );
    assert_eq!(ended.marker.as_deref(), Some("4"));
    assert!(is_gone(ended.log.lines().next().unwrap()));
    assert_eq!(
        messages(&ended.log),
        ["warning: Process left others behind that kept its output open"]
    );
}

#[test]
fn pod_060_what_cannot_start_is_127_and_says_so_in_the_log() {
    let start = |args: Value| {
        Entrypoint::start_in(tempfile::tempdir().unwrap(), args, json!({}))
            .end()
            .0
    };
    let ended = start(json!(["/no/such/program"]));
    assert_eq!(
        (ended.code, ended.marker.as_deref()),
        (Some(127), Some("127"))
    );
    insta::assert_snapshot!(ended.log, @"could not start the process: fork/exec /no/such/program: no such file or directory");
    let ended = start(json!(["no-such-program"]));
    insta::assert_snapshot!(ended.log, @r#"could not start the process: exec: "no-such-program": executable file not found in $PATH"#);

    let ended = run("true", json!({"process_log": "/no/such/dir/log"}));
    assert_eq!(ended.marker.as_deref(), Some("127"));
    let ended = run("true", json!({"artifact_dir": "/dev/null/x"}));
    assert_eq!(ended.marker.as_deref(), Some("127"));
}

#[test]
fn pod_063_always_zero_keeps_the_code_in_the_marker() {
    let ended = run("exit 3", json!({"always_zero": true}));
    assert_eq!((ended.code, ended.marker.as_deref()), (Some(0), Some("3")));
    let ended = run(
        "exit 0",
        json!({"always_zero": true, "marker_file": "/no/such/dir/marker"}),
    );
    assert_eq!((ended.code, ended.marker), (Some(127), None));
}

#[test]
fn pod_063_a_previous_marker_decides_whether_args_run() {
    let with_previous = |content: &str| {
        let dir = tempfile::tempdir().unwrap();
        let previous = dir.path().join("previous");
        fs::write(&previous, content).unwrap();
        Entrypoint::start_in(
            dir,
            json!(["echo", "ran"]),
            json!({"previous_marker": previous}),
        )
        .end()
        .0
    };
    let ended = with_previous("0");
    assert_eq!(
        (ended.marker.as_deref(), ended.log.as_str()),
        (Some("0"), "ran\n")
    );
    let ended = with_previous("2");
    assert_eq!(
        (ended.code, ended.marker.as_deref()),
        (Some(1130 % 256), Some("1130"))
    );
    insta::assert_snapshot!(messages(&ended.log).join("\n"), @"info: Skipping as previous step exited 2");
    assert_eq!(with_previous("x").marker.as_deref(), Some("127"));
}

#[test]
fn pod_066_bad_options_exit_1_and_leave_no_marker() {
    let ended = run("true", json!({"args": []}));
    assert_eq!((ended.code, ended.marker), (Some(1), None));
}

#[test]
fn pod_064_a_copy_named_entrypoint_is_the_entrypoint() {
    let dir = tempfile::tempdir().unwrap();
    let tools = dir.path().join("tools/entrypoint");
    let copy = format!("--copy-destination={}", tools.display());
    let status = Command::new(PROGRAM)
        .args(["entrypoint", "--copy-mode-only", &copy])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(
        fs::metadata(&tools).unwrap().permissions().mode() & 0o111,
        0o111
    );

    let flag = |name: &str| format!("--{name}={}", Path::new(dir.path()).join(name).display());
    let mut wrapped = Command::new(&tools);
    wrapped.args([
        &flag("process-log"),
        &flag("marker-file"),
        "--",
        "sh",
        "-c",
        "exit 6",
    ]);
    assert_eq!(
        wrapped.stdout(Stdio::null()).status().unwrap().code(),
        Some(6)
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("marker-file")).unwrap(),
        "6"
    );
}
