//! Against upstream's command lists where they are at hand, and against real repositories.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::clone::{Clone, Step};

fn oracle(kind: &str) -> Vec<Value> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/oracle/clone.jsonl.gz"
    );
    let Ok(file) = fs::File::open(path) else {
        println!("skipped: no clone.jsonl.gz beside the project");
        return Vec::new();
    };
    BufReader::new(flate2::read::GzDecoder::new(file))
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .filter(|row| row["kind"] == kind)
        .collect()
}

fn step_json(step: &Step) -> Value {
    let mut value =
        json!({"dir": step.dir, "command": step.program, "args": step.args, "text": step.text()});
    if !step.env.is_empty() {
        value["env"] = json!(step.env);
    }
    if step.retried {
        value["retries_ms"] = FETCH_RETRIES.iter().map(|d| d.as_millis() as u64).collect();
    }
    value
}

#[test]
fn pod_035_036_037_038_commands() {
    for row in oracle("commands") {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let refs: Refs = serde_json::from_value(row["refs"].clone()).unwrap();
        let env: Option<Vec<String>> = serde_json::from_value(row["env"].clone()).unwrap();
        let env = env.unwrap_or_default();
        let credentials = Credentials {
            user: text("user"),
            token: text("token"),
        };
        let settings = CloneSettings {
            src_root: text("dir"),
            user_name: text("git_user_name"),
            user_email: text("git_user_email"),
            cookie_file: text("cookie_path"),
            env: &env,
            credentials,
            fetch_retries: &FETCH_RETRIES,
        };
        let clone = Clone::new(&refs, text("dir"), &env, credentials);
        assert_eq!(clone.dir, text("path_for_refs"), "{row}");
        assert_eq!(clone.remote, text("repository_uri"), "{row}");
        let base: Vec<Value> = clone
            .base_steps(&refs, &settings)
            .iter()
            .map(step_json)
            .collect();
        assert_eq!(Value::from(base), row["base_commands"], "{row}");
        let pulls: Vec<Value> = clone
            .pull_steps(&refs, row["head_timestamp"].as_i64().unwrap())
            .iter()
            .map(step_json)
            .collect();
        let expected = if row["pull_commands"].is_null() {
            json!([])
        } else {
            row["pull_commands"].clone()
        };
        assert_eq!(Value::from(pulls), expected, "{row}");
        assert_eq!(refs.to_string(), text("refs_string"));
    }
}

#[test]
fn pod_031_refs_in_text_form() {
    for row in oracle("parse_refs") {
        match parse_refs(row["value"].as_str().unwrap()) {
            Ok(refs) => {
                assert_eq!(row["error"], Value::Null, "{row}");
                assert_eq!(serde_json::to_value(&refs).unwrap(), row["refs"], "{row}");
                assert_eq!(row["refs_string"], refs.to_string(), "{row}");
            }
            Err(error) => assert_eq!(row["error"], error.to_string(), "{row}"),
        }
    }
}

#[test]
fn pod_032_033_lists_of_refs() {
    for row in oracle("refs_list") {
        let refs: Option<Vec<Refs>> = serde_json::from_value(row["refs"].clone()).unwrap();
        let refs = refs.unwrap_or_default();
        assert_eq!(
            json!(work_dir("/home/prow/go", &refs)),
            row["work_dir"],
            "{row}"
        );
        let revision = trireme_prowjob::refs::main_revision(None, &refs);
        assert_eq!(row["main_revision_as_extra_refs"], revision, "{row}");
        let options = CloneRefsOptions {
            src_root: "/go".into(),
            log: "/l".into(),
            refs,
            ..CloneRefsOptions::default()
        };
        let error = options.validate().err().map(|e| e.to_string());
        assert_eq!(json!(error), row["options_validate_error"], "{row}");
    }
}

#[test]
fn pod_030_033_options() {
    for row in oracle("options") {
        let options: CloneRefsOptions = serde_json::from_value(row["options"].clone()).unwrap();
        let error = options.validate().err().map(|e| e.to_string());
        assert_eq!(json!(error), row["validate_error"], "{row}");
        if !row["options"]["refs"].is_null() {
            assert_eq!(
                serde_json::to_value(&options).unwrap(),
                row["options"],
                "{row}"
            );
        }
    }
}

#[test]
fn pod_043_flags_with_templates() {
    let args = [
        "--src-root=/go",
        "-log",
        "/l",
        "--repo",
        "o,r=main:b,1:c",
        "--clone-alias",
        "x/{{.Org}}/{{.Repo}}",
        "--uri-prefix=file:///{{.Repo}}",
        "--fail",
    ];
    let options = CloneRefsOptions::from_flags(&args.map(str::to_owned)).unwrap();
    insta::assert_snapshot!(go_json::to_string(&options).unwrap(), @r#"{"src_root":"/go","log":"/l","git_user_name":"ci-robot","git_user_email":"ci-robot@k8s.io","refs":[{"org":"o","repo":"r","base_ref":"main","base_sha":"b","pulls":[{"number":1,"author":"","sha":"c"}],"path_alias":"x/o/r","clone_uri":"file:///r"}],"fail":true}"#);
}

/// A repository with a base commit, two pulls that merge and one that conflicts with the first.
struct Upstream {
    dir: tempfile::TempDir,
}

impl Upstream {
    fn new() -> Self {
        let upstream = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        upstream.git(&["init", "-q", "-b", "main"]);
        upstream.commit("base", "base.txt", "base\n");
        for (branch, file) in [("one", "one.txt"), ("two", "two.txt"), ("clash", "one.txt")] {
            upstream.git(&["checkout", "-q", "-b", branch, "main"]);
            upstream.commit(branch, file, &format!("{branch}\n"));
        }
        upstream.git(&["update-ref", "refs/pull/1/head", "one"]);
        upstream.git(&["checkout", "-q", "main"]);
        upstream
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn git(&self, args: &[&str]) -> String {
        git(self.path(), args)
    }

    fn commit(&self, message: &str, file: &str, content: &str) {
        fs::write(self.path().join(file), content).unwrap();
        self.git(&["add", file]);
        self.git(&["commit", "-q", "-m", message]);
    }

    fn sha(&self, branch: &str) -> String {
        self.git(&["rev-parse", branch])
    }

    fn refs(&self, pulls: &[(i64, &str)]) -> Refs {
        Refs {
            org: "o".into(),
            repo: "r".into(),
            base_ref: "main".into(),
            base_sha: self.sha("main"),
            clone_uri: self.path().display().to_string(),
            pulls: pulls
                .iter()
                .map(|(number, branch)| Pull {
                    number: *number,
                    sha: self.sha(branch),
                    ..Pull::default()
                })
                .collect(),
            ..Refs::default()
        }
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(dir).args(args);
    for (who, at) in [
        ("AUTHOR", "1652963696 +0000"),
        ("COMMITTER", "1652963696 +0000"),
    ] {
        command
            .env(format!("GIT_{who}_NAME"), "abc")
            .env(format!("GIT_{who}_EMAIL"), "d@e.f");
        command.env(format!("GIT_{who}_DATE"), at);
    }
    let (output, result) = go_process::combined_output(&mut command);
    assert_eq!(result, Ok(()), "git {args:?}: {output}");
    output.trim().to_owned()
}

fn clone_with(options: &mut CloneRefsOptions) -> (tempfile::TempDir, Vec<CloneRecord>) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    options.src_root = at("go");
    options.log = at("clone.json");
    options.git_user_name = DEFAULT_GIT_USER_NAME.to_owned();
    options.git_user_email = DEFAULT_GIT_USER_EMAIL.to_owned();
    let silent = UtilityLog::new("clonerefs", Vec::new());
    let outcome = options.run_logged(&[Duration::ZERO], &silent);
    let records: Vec<CloneRecord> =
        serde_json::from_str(&fs::read_to_string(&options.log).unwrap()).unwrap();
    assert_eq!(
        outcome.is_err(),
        options.fail && records.iter().any(|r| r.failed)
    );
    (dir, records)
}

fn clone(refs: Vec<Refs>) -> (tempfile::TempDir, Vec<CloneRecord>) {
    clone_with(&mut CloneRefsOptions {
        refs,
        ..CloneRefsOptions::default()
    })
}

#[test]
fn pod_037_merges_are_reproducible_and_seconds_after_the_base() {
    let upstream = Upstream::new();
    let refs = upstream.refs(&[(1, "one"), (2, "two")]);
    let (dir, records) = clone(vec![refs.clone()]);
    let (_other, again) = clone(vec![refs]);
    let record = &records[1];
    assert!(!record.failed, "{record:?}");
    assert_eq!(record.final_sha, again[1].final_sha);

    let tree: PathBuf = dir.path().join("go/src/github.com/o/r");
    assert_eq!(record.final_sha, git(&tree, &["rev-parse", "HEAD"]));
    assert_eq!(git(&tree, &["rev-parse", "--abbrev-ref", "HEAD"]), "main");
    for file in ["base.txt", "one.txt", "two.txt"] {
        assert!(tree.join(file).is_file(), "{file}");
    }
    let log = git(
        &tree,
        &["log", "--first-parent", "--format=%ct %cn <%ce> %s"],
    );
    insta::assert_snapshot!(log.replace(&upstream.sha("one"), "ONE").replace(&upstream.sha("two"), "TWO"), @r"
    1652963698 ci-robot <ci-robot@k8s.io> Merge commit 'TWO'
    1652963697 ci-robot <ci-robot@k8s.io> Merge commit 'ONE'
    1652963696 abc <d@e.f> base
    ");
}

#[test]
fn pod_045_records_begin_with_the_environment_and_show_every_command() {
    let upstream = Upstream::new();
    let (dir, records) = clone(vec![upstream.refs(&[])]);
    assert_eq!(records[0], CloneRecord::default());
    let text: Vec<String> = records[1]
        .commands
        .iter()
        .map(|c| {
            assert!(c.duration > 0);
            c.command
                .replace(&dir.path().display().to_string(), "DIR")
                .replace(&upstream.path().display().to_string(), "UPSTREAM")
                .replace(&upstream.sha("main"), "BASE")
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    PWD=/  mkdir -p DIR/go/src/github.com/o/r
    PWD=DIR/go/src/github.com/o/r  git init
    PWD=DIR/go/src/github.com/o/r  git config user.name ci-robot
    PWD=DIR/go/src/github.com/o/r  git config user.email ci-robot@k8s.io
    PWD=DIR/go/src/github.com/o/r  git fetch UPSTREAM --tags --prune
    PWD=DIR/go/src/github.com/o/r  git fetch UPSTREAM BASE
    PWD=DIR/go/src/github.com/o/r  git checkout BASE
    PWD=DIR/go/src/github.com/o/r  git branch --force main BASE
    PWD=DIR/go/src/github.com/o/r  git checkout main
    PWD=DIR/go/src/github.com/o/r  git submodule update --init --recursive
    ");
    assert!(records[1].duration > 0);
}

#[test]
fn pod_037_a_conflict_fails_the_clone_and_only_fail_makes_it_an_error() {
    let upstream = Upstream::new();
    let mut options = CloneRefsOptions {
        refs: vec![upstream.refs(&[(1, "one"), (3, "clash")])],
        ..CloneRefsOptions::default()
    };
    let (_dir, records) = clone_with(&mut options);
    let record = &records[1];
    assert!(record.failed);
    assert_eq!((record.final_sha.as_str(), record.duration), ("", 0));
    let last = record.commands.last().unwrap();
    assert!(last.command.contains(" git merge --no-ff "), "{last:?}");
    assert!(
        last.output
            .contains("CONFLICT (add/add): Merge conflict in one.txt"),
        "{last:?}"
    );
    assert_eq!(last.error, "exit status 1");

    options.fail = true;
    clone_with(&mut options);
}

#[test]
fn pod_037_a_pull_without_commit_is_fetched_by_its_number() {
    let upstream = Upstream::new();
    let mut refs = upstream.refs(&[(1, "one")]);
    refs.pulls[0].sha = String::new();
    refs.base_sha = String::new();
    let (dir, records) = clone(vec![refs]);
    assert!(!records[1].failed, "{:?}", records[1]);
    assert!(dir.path().join("go/src/github.com/o/r/one.txt").is_file());
}

#[test]
fn pod_040_all_refs_are_cloned_and_recorded_in_order() {
    let upstream = Upstream::new();
    let named = |repo: &str| Refs {
        repo: repo.into(),
        ..upstream.refs(&[])
    };
    let gone = Refs {
        clone_uri: "/no/such/repository".into(),
        ..named("gone")
    };
    let mut options = CloneRefsOptions {
        refs: vec![named("a"), gone, named("b")],
        max_parallel_workers: 2,
        ..CloneRefsOptions::default()
    };
    let (_dir, records) = clone_with(&mut options);
    let seen: Vec<(&str, bool)> = records
        .iter()
        .map(|r| (r.refs.repo.as_str(), r.failed))
        .collect();
    assert_eq!(
        seen,
        [("", false), ("a", false), ("gone", true), ("b", false)]
    );
}

#[test]
fn pod_042_no_token_means_a_failed_record_not_a_job_without_code() {
    let upstream = Upstream::new();
    let mut options = CloneRefsOptions {
        refs: vec![upstream.refs(&[])],
        oauth_token_file: "/no/such/token".into(),
        ..CloneRefsOptions::default()
    };
    let (_dir, records) = clone_with(&mut options);
    assert!(records.len() == 1 && records[0].failed);
    assert_eq!(
        records[0].commands[0].error,
        "read oauth token /no/such/token: no such file or directory"
    );
}

#[test]
fn pod_036_sparse_checkout_has_only_the_listed_files() {
    let upstream = Upstream::new();
    upstream.git(&["config", "uploadpack.allowFilter", "true"]);
    upstream.git(&["checkout", "-q", "one"]);
    fs::create_dir_all(upstream.path().join("sub")).unwrap();
    upstream.commit("sub", "sub/file", "x");
    let mut refs = upstream.refs(&[]);
    refs.base_sha = upstream.sha("one");
    refs.clone_uri = format!("file://{}", refs.clone_uri);
    refs.sparse_checkout_files = vec!["sub".into()];
    let (dir, records) = clone(vec![refs]);
    assert!(!records[1].failed, "{:?}", records[1]);
    let tree = dir.path().join("go/src/github.com/o/r");
    assert!(tree.join("sub/file").is_file());
    assert!(!tree.join("sub/base.txt").exists());
}
