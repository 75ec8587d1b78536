//! Whole jobs as plain processes: from a repository with pull requests to the files that a run leaves.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use trireme_podutils::local::{LocalRun, Outcome, UtilityProgram, kill_leftovers};
use trireme_prowjob::{ProwJob, ProwJobState};

/// A repository with a base commit, a pull request and one that conflicts with it.
fn upstream(dir: &Path) -> BTreeMap<&'static str, String> {
    fs::create_dir_all(dir).unwrap();
    let commit = |branch: &str, file: &str| {
        fs::write(dir.join(file), format!("{branch}\n")).unwrap();
        git(dir, &["add", file]);
        git(dir, &["commit", "-q", "-m", branch]);
        git(dir, &["rev-parse", "HEAD"])
    };
    git(dir, &["init", "-q", "-b", "main"]);
    let mut shas = BTreeMap::from([("main", commit("main", "base.txt"))]);
    for branch in ["one", "clash"] {
        git(dir, &["checkout", "-q", "-b", branch, "main"]);
        shas.insert(branch, commit(branch, "change.txt"));
    }
    shas
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(dir).args(args).stdin(Stdio::null());
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "abc")
            .env(format!("GIT_{who}_EMAIL"), "d@e.f");
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A presubmit for the pulls of these branches that runs a shell script.
struct World {
    dir: tempfile::TempDir,
    run: LocalRun,
    log: Arc<Mutex<Vec<u8>>>,
}

impl World {
    fn new(script: &str, pulls: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("upstream");
        let shas = upstream(&repo);
        let pulls: Vec<Value> = pulls
            .iter()
            .enumerate()
            .map(|(i, branch)| json!({"number": i + 1, "author": "a", "sha": shas[branch]}))
            .collect();
        let build_id =
            format!("{}", dir.path().display()).replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let job: ProwJob = serde_json::from_value(json!({
            "apiVersion": "prow.k8s.io/v1", "kind": "ProwJob",
            "metadata": {"name": "run"},
            "spec": {
                "type": "presubmit", "agent": "kubernetes", "job": "pull-test",
                "refs": {
                    "org": "o", "repo": "r", "base_ref": "main", "base_sha": shas["main"], "pulls": pulls,
                    "clone_uri": repo,
                },
                "decoration_config": {
                    "timeout": "1m", "grace_period": "8s",
                    "gcs_configuration": {"bucket": "gs://somewhere", "path_strategy": "explicit"},
                    "gcs_credentials_secret": "unused",
                },
                "pod_spec": {"containers": [{
                    "image": "busybox", "command": ["sh", "-c"], "args": [script, "$(GREETING)"],
                    "env": [{"name": "GREETING", "value": "hello"}],
                    "resources": {"requests": {"cpu": "1"}},
                }]},
            },
            "status": {"startTime": "2026-02-03T04:05:06Z", "state": "triggered", "build_id": build_id},
        }))
        .unwrap();
        let run = LocalRun {
            job,
            dir: dir.path().join("run"),
            storage: Some(dir.path().join("store").display().to_string()),
            utilities: UtilityProgram {
                executable: env!("CARGO_BIN_EXE_trireme-podutils").into(),
                prefix_args: Vec::new(),
            },
            host_env: BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]),
            running_timeout: None,
        };
        Self {
            dir,
            run,
            log: Arc::default(),
        }
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut job = serde_json::to_value(&self.run.job).unwrap();
        edit(&mut job);
        self.run.job = serde_json::from_value(job).unwrap();
    }

    async fn run(&self) -> Outcome {
        self.run_until(std::future::pending()).await
    }

    async fn run_until(&self, cancel: impl Future<Output = String>) -> Outcome {
        let log = Arc::clone(&self.log);
        self.run
            .run(cancel, move |bytes| {
                log.lock().unwrap().extend_from_slice(bytes)
            })
            .await
    }

    fn log(&self) -> String {
        String::from_utf8(self.log.lock().unwrap().clone()).unwrap()
    }

    fn build_id(&self) -> &str {
        &self.run.job.status.build_id
    }

    fn run_dir(&self) -> PathBuf {
        self.dir
            .path()
            .join("store/pr-logs/pull/o_r/1/pull-test")
            .join(self.build_id())
    }

    fn stored(&self, name: &str) -> String {
        fs::read_to_string(self.run_dir().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn finished(&self) -> Value {
        serde_json::from_str(&self.stored("finished.json")).unwrap()
    }

    /// Names of stored files.
    fn listing(&self) -> String {
        let store = self.dir.path().join("store");
        let name = |path: &Path| path.display().to_string().replace(self.build_id(), "BUILD");
        let (mut found, mut open) = (Vec::new(), vec![store.clone()]);
        while let Some(path) = open.pop() {
            match fs::read_dir(&path) {
                Ok(entries) => open.extend(entries.map(|e| e.unwrap().path())),
                Err(_) => found.push(name(path.strip_prefix(&store).unwrap())),
            }
        }
        found.sort();
        found.join("\n")
    }

    /// Resolves with this text when the test has said so.
    fn when_said(
        &self,
        word: &'static str,
        reason: &'static str,
    ) -> (impl Future<Output = String>, LogWatch) {
        let (tell, told) = oneshot::channel();
        let watch = LogWatch {
            log: Arc::clone(&self.log),
            word,
            tell: Some(tell),
        };
        (
            async move {
                told.await
                    .map_or_else(|_| "lost".to_owned(), |()| reason.to_owned())
            },
            watch,
        )
    }

    async fn cancel_when_said(&self, word: &'static str, reason: &'static str) -> Outcome {
        let (cancel, mut watch) = self.when_said(word, reason);
        self.run.run(cancel, move |bytes| watch.feed(bytes)).await
    }
}

struct LogWatch {
    log: Arc<Mutex<Vec<u8>>>,
    word: &'static str,
    tell: Option<oneshot::Sender<()>>,
}

impl LogWatch {
    fn feed(&mut self, bytes: &[u8]) {
        let mut log = self.log.lock().unwrap();
        log.extend_from_slice(bytes);
        if String::from_utf8_lossy(&log).contains(self.word)
            && let Some(tell) = self.tell.take()
        {
            let _ = tell.send(());
        }
    }
}

fn outcome(state: ProwJobState, description: &str) -> Outcome {
    Outcome {
        state,
        description: description.to_owned(),
    }
}

/// A killed process may take a moment to be gone.
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

#[tokio::test]
async fn a_passing_job_runs_in_its_merged_code_and_leaves_prows_files() {
    let script = r#"echo "$0 $PULL_NUMBER $JOB_NAME"; cat change.txt; pwd | sed 's/.*\/code/CODE/'; echo "$GOPATH" | sed 's/.*\//.../'
        echo 1 > "$ARTIFACTS/a.txt"; echo '{"k": "v"}' > "$ARTIFACTS/metadata.json"; echo $TRIREME_SECRET_OF_HOST"#;
    let world = World::new(script, &["one"]);
    assert_eq!(
        world.run().await,
        outcome(ProwJobState::Success, "Job succeeded.")
    );
    insta::assert_snapshot!(world.log(), @r"
    hello 1 pull-test
    one
    CODE/src/github.com/o/r
    ...code
    ");
    assert_eq!(world.stored("build-log.txt"), world.log());
    assert_eq!(
        fs::read_to_string(world.run.build_log()).unwrap(),
        world.log()
    );
    insta::assert_snapshot!(world.listing(), @r"
    pr-logs/directory/pull-test/BUILD.txt
    pr-logs/directory/pull-test/latest-build.txt
    pr-logs/pull/o_r/1/pull-test/BUILD/artifacts/a.txt
    pr-logs/pull/o_r/1/pull-test/BUILD/artifacts/metadata.json
    pr-logs/pull/o_r/1/pull-test/BUILD/build-log.txt
    pr-logs/pull/o_r/1/pull-test/BUILD/clone-log.txt
    pr-logs/pull/o_r/1/pull-test/BUILD/clone-records.json
    pr-logs/pull/o_r/1/pull-test/BUILD/finished.json
    pr-logs/pull/o_r/1/pull-test/BUILD/sidecar-logs.json
    pr-logs/pull/o_r/1/pull-test/BUILD/started.json
    pr-logs/pull/o_r/1/pull-test/latest-build.txt
    ");
    let finished = world.finished();
    assert_eq!(
        (&finished["result"], &finished["metadata"]),
        (&json!("SUCCESS"), &json!({"k": "v"}))
    );
    // started.json names the merged commit, finished.json the pull's.
    let records: Value = serde_json::from_str(&world.stored("clone-records.json")).unwrap();
    let started: Value = serde_json::from_str(&world.stored("started.json")).unwrap();
    assert_eq!(started["repo-commit"], records[1]["final_sha"]);
    assert_eq!(finished["revision"], records[1]["refs"]["pulls"][0]["sha"]);
}

#[tokio::test]
async fn a_failing_job_fails() {
    let world = World::new("echo no; exit 3", &["one"]);
    assert_eq!(
        world.run().await,
        outcome(ProwJobState::Failure, "Job failed.")
    );
    assert_eq!(world.finished()["result"], "FAILURE");
    assert!(world.stored("build-log.txt").starts_with("no\n"));
}

#[tokio::test]
async fn a_conflict_fails_the_job_with_the_clone_log_as_its_log() {
    let world = World::new("echo never", &["one", "clash"]);
    assert_eq!(
        world.run().await,
        outcome(ProwJobState::Failure, "Job failed.")
    );
    assert!(
        world
            .log()
            .contains("CONFLICT (add/add): Merge conflict in change.txt"),
        "{}",
        world.log()
    );
    assert_eq!(world.stored("build-log.txt"), world.log());
    assert_eq!(world.finished()["result"], "FAILURE");
    assert!(!world.run.build_log().exists());
}

#[tokio::test]
async fn the_decorations_timeout_fails_the_job() {
    let mut world = World::new("while :; do sleep 0.05; done", &["one"]);
    world.edit(|job| job["spec"]["decoration_config"]["timeout"] = "300ms".into());
    assert_eq!(
        world.run().await,
        outcome(ProwJobState::Failure, "Job failed.")
    );
    assert!(
        world
            .log()
            .contains("Process did not finish before 300ms timeout"),
        "{}",
        world.log()
    );
    assert_eq!(world.finished()["result"], "FAILURE");
}

#[tokio::test]
async fn a_cancelled_job_may_clean_up_and_is_stored_as_aborted() {
    let world = World::new(
        "trap 'echo bye; exit 0' TERM; trap '' INT; echo ready; while :; do sleep 0.05; done",
        &["one"],
    );
    let ended = world
        .cancel_when_said("ready", "Aborted by trigger plugin.")
        .await;
    assert_eq!(
        ended,
        outcome(ProwJobState::Aborted, "Aborted by trigger plugin.")
    );
    let log = world.stored("build-log.txt");
    assert!(
        log.contains("\"msg\":\"Entrypoint received interrupt: terminated\"")
            && log.contains("bye\n"),
        "{log}"
    );
    assert_eq!(world.finished()["result"], "ABORTED");
}

/// On a busy machine the sidecar may begin long after the test.
#[tokio::test]
async fn a_cancel_before_the_sidecar_heeds_signals_loses_no_log() {
    let mut world = World::new(
        "trap 'echo bye; exit 0' TERM; trap '' INT; echo ready; while :; do sleep 0.05; done",
        &["one"],
    );
    let real = std::mem::replace(&mut world.run.utilities.executable, "sh".into());
    let slow = "[ \"$1\" != sidecar ] || sleep 1; exec \"$0\" \"$@\"";
    world.run.utilities.prefix_args = vec!["-c".into(), slow.into(), real.into()];
    let ended = world
        .cancel_when_said("ready", "Aborted by trigger plugin.")
        .await;
    assert_eq!(
        ended,
        outcome(ProwJobState::Aborted, "Aborted by trigger plugin.")
    );
    let log = world.stored("build-log.txt");
    assert!(log.contains("bye\n"), "{log}");
    assert_eq!(world.finished()["result"], "ABORTED");
}

#[tokio::test]
async fn nothing_of_a_run_outlives_it() {
    // One stays in the background, one leaves group, session and parent.
    let script = "(trap '' INT TERM HUP; while :; do sleep 0.05; done) >/dev/null 2>&1 & echo $!; \
                  setsid sh -c 'echo $$$$; exec >/dev/null 2>&1; while :; do sleep 0.05; done' & echo done";
    let world = World::new(script, &["one"]);
    assert_eq!(world.run().await.state, ProwJobState::Success);
    let log = world.log();
    let pids: Vec<&str> = log.lines().filter(|l| l.parse::<i32>().is_ok()).collect();
    assert_eq!(pids.len(), 2, "{log}");
    for pid in pids {
        assert!(is_gone(pid), "{pid} is alive");
    }
    assert_eq!(kill_leftovers(&world.run.dir), 0);
}

#[tokio::test]
async fn a_job_that_will_not_end_is_killed_after_its_grace() {
    let mut world = World::new(
        "trap '' INT TERM; echo $$$$; echo ready; while :; do sleep 0.05; done",
        &["one"],
    );
    // Entrypoint waits longer than the pod may take: the whole run is killed first.
    world.edit(|job| job["spec"]["decoration_config"]["grace_period"] = "1s".into());
    let ended = world.cancel_when_said("ready", "Stop.").await;
    assert_eq!(ended, outcome(ProwJobState::Aborted, "Stop."));
    let pid = world.log().lines().next().unwrap().to_owned();
    assert!(is_gone(&pid));
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_aborted() {
    let mut world = World::new("echo ready; while :; do sleep 0.05; done", &["one"]);
    world.run.running_timeout = Some(Duration::from_secs(60));
    world.edit(|job| job["spec"]["decoration_config"]["pod_running_timeout"] = "700ms".into());
    assert_eq!(
        world.run().await,
        outcome(ProwJobState::Aborted, "Pod running timeout.")
    );
}

#[tokio::test]
async fn dropping_a_run_kills_it() {
    let world = World::new(
        "echo $$$$; echo ready; while :; do sleep 0.05; done",
        &["one"],
    );
    let (said, mut watch) = world.when_said("ready", "");
    tokio::select! {
        ended = world.run.run(std::future::pending(), move |bytes| watch.feed(bytes)) => panic!("{ended:?}"),
        _ = said => {}
    }
    let pid = world.log().lines().next().unwrap().to_owned();
    assert!(is_gone(&pid));
}

#[tokio::test]
async fn an_entrypoint_that_is_killed_is_an_error_and_still_stored() {
    let world = World::new(
        "echo before; until grep -q before $ARTIFACTS/../process-log.txt; do sleep 0.02; done; kill -9 $PPID; while :; do sleep 0.05; done",
        &["one"],
    );
    let ended = world.run().await;
    assert_eq!(
        ended,
        outcome(
            ProwJobState::Error,
            "entrypoint ended without leaving an exit code (signal: killed)"
        )
    );
    assert_eq!(world.stored("build-log.txt"), "before\n");
    assert_eq!(world.finished()["result"], "FAILURE");
}

#[tokio::test]
async fn a_periodic_without_code_starts_in_an_empty_directory() {
    let mut world = World::new("ls | wc -l; echo $JOB_TYPE", &[]);
    world.edit(|job| {
        job["spec"]["type"] = "periodic".into();
        job["spec"].as_object_mut().unwrap().remove("refs");
    });
    assert_eq!(world.run().await.state, ProwJobState::Success);
    assert_eq!(
        world.log().split_whitespace().collect::<Vec<_>>(),
        ["0", "periodic"]
    );
    assert!(
        world
            .dir
            .path()
            .join("store/logs/pull-test")
            .join(world.build_id())
            .join("finished.json")
            .is_file()
    );
}

#[tokio::test]
async fn an_undecorated_job_only_runs() {
    let mut world = World::new("echo $CI; exit 2", &["one"]);
    world.edit(|job| {
        drop(
            job["spec"]
                .as_object_mut()
                .unwrap()
                .remove("decoration_config"),
        )
    });
    assert_eq!(
        world.run().await,
        outcome(ProwJobState::Failure, "Job failed.")
    );
    assert_eq!(world.log().lines().next(), Some("true"));
    assert!(!world.dir.path().join("store").exists());
}

#[tokio::test]
async fn what_cannot_run_here_is_refused_with_the_reason() {
    let refusal = async |edit: fn(&mut Value)| {
        let mut world = World::new("true", &["one"]);
        world.edit(edit);
        let ended = world.run().await;
        assert_eq!(ended.state, ProwJobState::Error);
        assert!(!world.dir.path().join("store").exists());
        ended.description
    };
    let mut refusals = vec![
        refusal(|job| job["status"]["build_id"] = "".into()).await,
        refusal(|job| drop(job["spec"].as_object_mut().unwrap().remove("pod_spec"))).await,
        refusal(|job| job["spec"]["pod_spec"]["containers"] = json!([{}, {}])).await,
        refusal(|job| job["spec"]["pod_spec"]["containers"] = json!([{"image": "x"}])).await,
        refusal(|job| job["spec"]["pod_spec"]["initContainers"] = json!([{"name": "i"}])).await,
        refusal(|job| {
            job["spec"]["pod_spec"]["containers"][0]["env"][0]["valueFrom"] =
                json!({"fieldRef": {}})
        })
        .await,
        refusal(|job| {
            job["spec"]["pod_spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v"}])
        })
        .await,
    ];
    let mut world = World::new("true", &["one"]);
    world.run.storage = None;
    refusals.push(world.run().await.description);
    let mut world = World::new("true", &["one"]);
    world.run.utilities.executable = "/no/such/program".into();
    refusals.push(world.run().await.description);
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    Pod can not be created: prowjob "run" has no build id
    Pod can not be created: prowjob "run" lacks a pod spec
    Pod can not be created: pod_spec.containers: 2 containers, but a plain process stands for exactly one
    Pod can not be created: pod_spec.containers[0]: neither command nor args, and there is no image whose entrypoint would do
    Pod can not be created: pod_spec.initContainers (i) cannot be honoured by a plain process
    Pod can not be created: pod_spec.containers[0].env[GREETING].valueFrom cannot be honoured by a plain process
    Pod can not be created: pod_spec.containers[0].volumeMounts (v) cannot be honoured by a plain process
    Pod can not be created: UNIMPLEMENTED: storage "gs://somewhere" needs provider "gs", which is not built in yet: use a local directory (/dir or file:///dir) or Prow's own utility images
    Pod can not be created: clonerefs: fork/exec /no/such/program: no such file or directory
    "#);
}
