//! The sidecar program beside markers and files on disk: what it stores, when, and what it does when interrupted.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_trireme-podutils");
const RUN: &str = "store/pr-logs/pull/o_r/3/job/7";

/// A running sidecar in a directory of its own.
struct Sidecar {
    dir: tempfile::TempDir,
    child: Child,
    stderr: BufReader<ChildStderr>,
}

/// The directory before the sidecar starts: log and artifacts of one container.
fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "logs/process-log.txt", "the log\n");
    write(dir.path(), "logs/artifacts/junit.xml", "<x/>");
    write(dir.path(), "logs/artifacts/sub/a#b.txt.gz", "zipped");
    write(
        dir.path(),
        "logs/artifacts/metadata.json",
        r#"{"version": "v1", "n": 1}"#,
    );
    dir
}

fn write(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn entry(dir: &Path, prefix: &str) -> Value {
    let at = |name: &str| dir.join("logs").join(name).display().to_string();
    json!({
        "args": ["sh", "-c", "x"], "container_name": prefix, "process_log": at(&format!("{prefix}-log.txt")),
        "marker_file": at(&format!("{prefix}-marker.txt")), "metadata_file": at("artifacts/metadata.json"),
    })
}

impl Sidecar {
    fn start(dir: tempfile::TempDir, changes: Value) -> Self {
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut entry = entry(dir.path(), "test");
        entry["process_log"] = at("logs/process-log.txt").into();
        entry["marker_file"] = at("logs/marker-file.txt").into();
        let mut options = json!({
            "gcs_options": {
                "items": [at("logs/artifacts")], "bucket": at("store"), "path_strategy": "explicit", "dry_run": false,
            },
            "entries": [entry],
            "censoring_options": {},
        });
        for (key, value) in changes.as_object().unwrap() {
            options[key] = value.clone();
        }
        let spec = json!({
            "type": "presubmit", "job": "job", "buildid": "7", "prowjobid": "id",
            "refs": {"org": "o", "repo": "r", "base_ref": "main", "base_sha": "base", "pulls": [{"number": 3, "author": "a", "sha": "head"}]},
        });
        let mut command = Command::new(PROGRAM);
        command
            .arg("sidecar")
            .env("SIDECAR_OPTIONS", options.to_string())
            .env("JOB_SPEC", spec.to_string());
        let mut child = command
            .env("TMPDIR", dir.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { dir, child, stderr }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The process ended: entrypoint renames its marker into place.
    fn mark(&self, code: &str) {
        write(self.path(), "logs/.marker", code);
        fs::rename(
            self.path().join("logs/.marker"),
            self.path().join("logs/marker-file.txt"),
        )
        .unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads its log up to a message.
    fn until(&mut self, message: &str) {
        let mut seen = String::new();
        while !seen.contains(&format!("\"msg\":\"{message}")) {
            assert!(
                self.stderr.read_line(&mut seen).unwrap() > 0,
                "no {message:?} in {seen}"
            );
        }
    }

    fn end(&mut self) -> Option<i32> {
        std::io::copy(&mut self.stderr, &mut std::io::sink()).unwrap();
        self.child.wait().unwrap().code()
    }

    fn finished(&self) -> Value {
        serde_json::from_str(
            &fs::read_to_string(self.path().join(RUN).join("finished.json")).unwrap(),
        )
        .unwrap()
    }
}

/// Paths of all files below a directory.
fn listing(dir: &Path) -> String {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        match fs::read_dir(&path) {
            Ok(entries) => open.extend(entries.map(|e| e.unwrap().path())),
            Err(_) => found.push(path.strip_prefix(dir).unwrap().to_owned()),
        }
    }
    found.sort();
    found
        .iter()
        .map(|p: &PathBuf| p.display().to_string())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn pod_083_084_everything_lies_where_prow_puts_it() {
    let mut sidecar = Sidecar::start(prepared(), json!({}));
    sidecar.mark("0");
    assert_eq!(sidecar.end(), Some(0));
    let store = sidecar.path().join("store");
    insta::assert_snapshot!(listing(&store), @r"
    pr-logs/directory/job/7.txt
    pr-logs/directory/job/latest-build.txt
    pr-logs/pull/o_r/3/job/7/artifacts/junit.xml
    pr-logs/pull/o_r/3/job/7/artifacts/metadata.json
    pr-logs/pull/o_r/3/job/7/artifacts/sub/a%23b.txt
    pr-logs/pull/o_r/3/job/7/build-log.txt
    pr-logs/pull/o_r/3/job/7/finished.json
    pr-logs/pull/o_r/3/job/7/sidecar-logs.json
    pr-logs/pull/o_r/3/job/latest-build.txt
    ");
    let read = |name: &str| fs::read_to_string(sidecar.path().join(RUN).join(name)).unwrap();
    assert_eq!(read("build-log.txt"), "the log\n");
    assert_eq!(read("artifacts/sub/a%23b.txt"), "zipped");
    assert!(
        read("sidecar-logs.json")
            .lines()
            .all(|l| l.starts_with(r#"{"component":"sidecar","#))
    );
    let timestamp = sidecar.finished()["timestamp"].as_i64().unwrap();
    let text = read("finished.json").replace(&timestamp.to_string(), "T");
    insta::assert_snapshot!(text, @r#"{"timestamp":T,"passed":true,"metadata":{"n":1,"version":"v1"},"result":"SUCCESS","revision":"head"}"#);
    let alias = fs::read_to_string(store.join("pr-logs/directory/job/7.txt")).unwrap();
    assert_eq!(
        alias,
        format!("file://{}/pr-logs/pull/o_r/3/job/7", store.display())
    );
}

#[test]
fn pod_081_a_failed_process_is_a_failure_and_only_entry_error_makes_it_an_error() {
    for (options, code) in [
        (json!({}), Some(0)),
        (json!({"entry_error": true}), Some(1)),
    ] {
        let mut sidecar = Sidecar::start(prepared(), options);
        sidecar.mark("1");
        assert_eq!(sidecar.end(), code);
        let finished = sidecar.finished();
        assert_eq!(
            (&finished["passed"], &finished["result"]),
            (&json!(false), &json!("FAILURE"))
        );
    }
}

#[test]
fn pod_082_093_an_interrupt_uploads_at_once_and_the_end_replaces_it() {
    let mut sidecar = Sidecar::start(prepared(), json!({}));
    sidecar.until("Waiting for the test processes to end");
    sidecar.signal(Signal::TERM);
    sidecar.until("Best-effort upload was successful");
    assert_eq!(sidecar.finished()["result"], "ABORTED");
    write(sidecar.path(), "logs/process-log.txt", "the log\nits end\n");
    sidecar.mark("0");
    assert_eq!(sidecar.end(), Some(0));
    assert_eq!(sidecar.finished()["result"], "SUCCESS");
    let log = fs::read_to_string(sidecar.path().join(RUN).join("build-log.txt")).unwrap();
    assert_eq!(log, "the log\nits end\n");
}

#[test]
fn pod_082_interrupts_are_ignored_when_told_so() {
    let mut sidecar = Sidecar::start(prepared(), json!({"ignore_interrupts": true}));
    sidecar.until("Waiting for the test processes to end");
    sidecar.signal(Signal::TERM);
    sidecar.until("Received an interrupt: terminated, ignoring...");
    assert!(!sidecar.path().join("store").exists());
    sidecar.mark("130");
    assert_eq!(sidecar.end(), Some(0));
    assert_eq!(sidecar.finished()["result"], "ABORTED");
}

#[test]
fn pod_083_several_containers_and_a_log_that_is_not_there() {
    let dir = prepared();
    write(dir.path(), "logs/one-log.txt", "one\n");
    write(dir.path(), "logs/one-marker.txt", "0");
    write(dir.path(), "logs/two-marker.txt", "0");
    let entries = json!([entry(dir.path(), "one"), entry(dir.path(), "two")]);
    let mut sidecar = Sidecar::start(dir, json!({"entries": entries}));
    assert_eq!(sidecar.end(), Some(0));
    let read = |name: &str| fs::read_to_string(sidecar.path().join(RUN).join(name)).unwrap();
    assert_eq!(read("one-build-log.txt"), "one\n");
    let text = read("two-build-log.txt").replace(&sidecar.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text, @"Failed to open DIR/logs/two-log.txt: open DIR/logs/two-log.txt: no such file or directory");
    assert_eq!(sidecar.finished()["result"], "SUCCESS");
}

#[test]
fn pod_085_088_secrets_are_not_in_anything_that_is_stored() {
    let dir = prepared();
    write(dir.path(), "secrets/token", "hunter2\n");
    write(dir.path(), "logs/process-log.txt", "using hunter2\n");
    write(
        dir.path(),
        "logs/artifacts/metadata.json",
        r#"{"leak": "hunter2"}"#,
    );
    let secrets = dir.path().join("secrets");
    let mut sidecar = Sidecar::start(
        dir,
        json!({"censoring_options": {"secret_directories": [secrets]}}),
    );
    sidecar.mark("0");
    assert_eq!(sidecar.end(), Some(0));
    let read = |name: &str| fs::read_to_string(sidecar.path().join(RUN).join(name)).unwrap();
    assert_eq!(read("build-log.txt"), "using XXXXXXX\n");
    assert_eq!(sidecar.finished()["metadata"]["leak"], "XXXXXXX");
    assert_eq!(read("artifacts/metadata.json"), r#"{"leak": "XXXXXXX"}"#);

    // Nothing but the verdict when the secrets cannot be read.
    let dir = prepared();
    let mut sidecar = Sidecar::start(
        dir,
        json!({"censoring_options": {"secret_directories": ["/no/such/secrets"]}}),
    );
    sidecar.mark("0");
    assert_eq!(sidecar.end(), Some(0));
    insta::assert_snapshot!(listing(&sidecar.path().join(RUN)), @r"
    build-log.txt
    finished.json
    ");
    assert_eq!(sidecar.finished()["result"], "SUCCESS");
    let log = fs::read_to_string(sidecar.path().join(RUN).join("build-log.txt")).unwrap();
    insta::assert_snapshot!(log, @"Not uploaded because secrets in it could not be censored: could not load secrets: /no/such/secrets: No such file or directory (os error 2)");
}

#[test]
fn pod_106_a_local_output_directory_gets_the_files_without_the_buckets_path() {
    let dir = prepared();
    let out = dir.path().join("out");
    let items = dir.path().join("logs/artifacts");
    let mut sidecar = Sidecar::start(
        dir,
        json!({"gcs_options": {"items": [items], "local_output_dir": out}}),
    );
    sidecar.mark("0");
    assert_eq!(sidecar.end(), Some(0));
    insta::assert_snapshot!(listing(&out), @r"
    artifacts/junit.xml
    artifacts/metadata.json
    artifacts/sub/a%23b.txt
    build-log.txt
    finished.json
    sidecar-logs.json
    ");
}

#[test]
fn pod_102_storage_that_is_not_built_in_is_said_not_skipped() {
    let dir = prepared();
    let mut sidecar = Sidecar::start(
        dir,
        json!({"gcs_options": {"bucket": "gs://b", "path_strategy": "explicit"}}),
    );
    sidecar.mark("0");
    sidecar.until("Failed to report job status");
    assert_eq!(sidecar.end(), Some(0));
}
