//! The ProwJob as an object that other tools read: its JSON, what is made of a job and its refs (section 10 of the
//! checklist of configuration and jobs).

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_prowjob::new_job::{CloneOverrides, GitHubPull, complete_primary_refs, github_refs};
use trireme_prowjob::refs::main_revision;
use trireme_prowjob::{
    DecorationConfig, JobSpec, ProwJob, ProwJobList, ProwJobSpec, ProwJobState, Pull, Refs,
    new_prow_job,
};

fn job(spec: Value, labels: &[(&str, &str)]) -> ProwJob {
    let spec: ProwJobSpec = serde_json::from_value(spec).unwrap();
    let labels: BTreeMap<String, String> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let start: Timestamp = "2026-01-01T00:00:00.7Z".parse().unwrap();
    new_prow_job(spec, &labels, &BTreeMap::new(), "some-id", start)
}

/// JOB-050, JOB-052, JOB-069: field names, casing and order as they are stored, with all of the status.
#[test]
fn job_050_052_069_the_stored_form() {
    let written = json!({
        "kind": "ProwJob",
        "apiVersion": "prow.k8s.io/v1",
        "metadata": {
            "name": "id", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"a": "b"}, "annotations": {"c": "d"},
        },
        "spec": {"type": "presubmit", "job": "unit"},
        "status": {
            "startTime": "2026-01-01T00:00:00Z", "pendingTime": "2026-01-01T00:00:01Z",
            "completionTime": "2026-01-01T00:00:02Z", "state": "success", "description": "Job succeeded.",
            "url": "https://x", "pod_revival_count": 1, "pod_name": "id", "build_id": "7", "jenkins_build_id": "8",
            "prev_report_states": {"github-reporter": "success"},
        },
    });
    let read: ProwJob = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), written);
    assert!(read.complete());
    // Whole seconds, and a start that is always there.
    let made = job(json!({"type": "periodic", "job": "j"}), &[]);
    let status = serde_json::to_value(&made).unwrap()["status"].clone();
    assert_eq!(
        status,
        json!({"startTime": "2026-01-01T00:00:00Z", "state": "triggered"})
    );
    let list = ProwJobList::new(vec![made]);
    let list = serde_json::to_value(&list).unwrap();
    assert_eq!(
        (&list["kind"], &list["apiVersion"], &list["metadata"]),
        (&json!("ProwJobList"), &json!("prow.k8s.io/v1"), &json!({}))
    );
    assert_eq!(list["items"][0]["metadata"]["name"], "some-id");
}

/// JOB-053: the states, and what makes a job complete.
#[test]
fn job_053_states_and_completion() {
    for state in [
        "scheduling",
        "triggered",
        "pending",
        "success",
        "failure",
        "aborted",
        "error",
    ] {
        let read: ProwJobState = serde_json::from_value(json!(state)).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), state);
    }
    assert!(serde_json::from_value::<ProwJobState>(json!("done")).is_err());
    // An abort that is asked for is none that has happened.
    let mut asked: ProwJob =
        serde_json::from_value(json!({"status": {"state": "aborted"}})).unwrap();
    assert!(!asked.complete());
    asked.status.completion_time =
        Some("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().into());
    assert!(asked.complete());
}

/// JOB-058, JOB-059: labels and annotations of every kind of job.
#[test]
fn job_058_059_labels_and_annotations() {
    let long = format!("{}-._x", "a".repeat(60));
    let presubmit = job(
        json!({
            "type": "presubmit", "job": long, "context": "a/b/repo",
            "refs": {"org": "https://host.com", "repo": "r", "base_ref": "release-1/23", "pulls": [{"number": 7}, {"number": 8}]},
        }),
        &[
            ("own", "x"),
            ("prow.k8s.io/refs.repo", "mine"),
            ("bad", "not a value!"),
            ("event-GUID", "guid"),
        ],
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(&presubmit.metadata.labels).unwrap(), @r#"
    {
      "created-by-prow": "true",
      "event-GUID": "guid",
      "own": "x",
      "prow.k8s.io/context": "repo",
      "prow.k8s.io/job": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
      "prow.k8s.io/refs.base_ref": "23",
      "prow.k8s.io/refs.org": "host.com",
      "prow.k8s.io/refs.pull": "7",
      "prow.k8s.io/refs.repo": "mine",
      "prow.k8s.io/type": "presubmit"
    }
    "#);
    assert_eq!(presubmit.metadata.annotations["prow.k8s.io/job"], long);
    assert_eq!(
        presubmit.metadata.annotations["prow.k8s.io/context"],
        "a/b/repo"
    );
    let periodic = job(
        json!({"type": "periodic", "job": "p", "extra_refs": [{"org": "o", "repo": "r", "base_ref": "m"}]}),
        &[],
    );
    assert_eq!(periodic.metadata.labels["prow.k8s.io/context"], "");
    assert_eq!(periodic.metadata.annotations["prow.k8s.io/context"], "");
    assert_eq!(periodic.metadata.labels["prow.k8s.io/refs.org"], "o");
}

fn pull_request() -> GitHubPull<'static> {
    GitHubPull {
        org: "o",
        repo: "r",
        repo_html_url: "https://github.com/o/r",
        base_ref: "main",
        number: 7,
        author: "al",
        author_html_url: "https://github.com/al",
        head_sha: "cafe",
        head_ref: "topic",
        title: "A change",
        html_url: "https://github.com/o/r/pull/7",
    }
}

/// JOB-060, JOB-062, JOB-070: refs of a pull request, and which fields are there when they are empty.
#[test]
fn job_060_062_070_refs_of_a_pull_request() {
    let refs = github_refs(pull_request(), "beef");
    assert_eq!(
        serde_json::to_value(&refs).unwrap(),
        json!({
            "org": "o", "repo": "r", "repo_link": "https://github.com/o/r", "base_ref": "main", "base_sha": "beef",
            "base_link": "https://github.com/o/r/commit/beef",
            "pulls": [{
                "number": 7, "author": "al", "sha": "cafe", "title": "A change", "head_ref": "topic",
                "link": "https://github.com/o/r/pull/7", "commit_link": "https://github.com/o/r/pull/7/commits/cafe",
                "author_link": "https://github.com/al",
            }],
        })
    );
    let all = json!({
        "org": "o", "repo": "r", "repo_link": "l", "base_ref": "m", "base_sha": "s", "base_link": "b",
        "pulls": [{"number": 1, "author": "a", "sha": "s", "title": "t", "ref": "refs/changes/1", "head_ref": "h", "link": "l", "commit_link": "c", "author_link": "x"}],
        "path_alias": "p", "workdir": true, "auxiliary": true, "clone_uri": "u", "skip_submodules": true,
        "clone_depth": 2, "skip_fetch_head": true, "blobless_fetch": false, "sparse_checkout_files": ["f"],
    });
    let read: Refs = serde_json::from_value(all.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), all);
    let empty = Refs {
        pulls: vec![Pull::default()],
        ..Refs::default()
    };
    assert_eq!(
        serde_json::to_value(&empty).unwrap(),
        json!({"org": "", "repo": "", "pulls": [{"number": 0, "author": "", "sha": ""}]})
    );
}

/// JOB-061: a job's settings over those of the refs where they are set, the decoration's where neither says anything.
#[test]
fn job_061_clone_settings() {
    let refs: Refs = serde_json::from_value(json!({"org": "o", "repo": "r", "path_alias": "refs", "clone_depth": 9, "skip_submodules": true})).unwrap();
    let decoration: DecorationConfig =
        serde_json::from_value(json!({"blobless_fetch": true, "sparse_checkout_files": ["f"]}))
            .unwrap();
    let own = CloneOverrides {
        path_alias: "job",
        clone_uri: "uri",
        skip_fetch_head: true,
        ..CloneOverrides::default()
    };
    let done = complete_primary_refs(refs.clone(), own, Some(&decoration));
    assert_eq!(
        serde_json::to_value(&done).unwrap(),
        json!({
            "org": "o", "repo": "r", "path_alias": "job", "clone_uri": "uri", "skip_submodules": true, "clone_depth": 9,
            "skip_fetch_head": true, "blobless_fetch": true, "sparse_checkout_files": ["f"],
        })
    );
    let untouched = complete_primary_refs(refs.clone(), CloneOverrides::default(), None);
    assert_eq!(untouched, refs);
}

/// JOB-063, JOB-064: the text of refs, and the revision that a job is about.
#[test]
fn job_063_064_text_and_revision() {
    let refs = |value: Value| serde_json::from_value::<Refs>(value).unwrap();
    let pull = refs(
        json!({"base_ref": "m", "base_sha": "s", "pulls": [{"number": 1, "sha": "a"}, {"number": 2, "sha": "b", "ref": "refs/x"}]}),
    );
    let (commit, branch) = (
        refs(json!({"base_ref": "m", "base_sha": "s"})),
        refs(json!({"base_ref": "m"})),
    );
    assert_eq!(
        [pull.to_string(), commit.to_string(), branch.to_string()],
        ["m:s,1:a,2:b:refs/x", "m:s", "m"]
    );
    let auxiliary = refs(json!({"base_ref": "tools", "auxiliary": true}));
    assert_eq!(
        main_revision(Some(&pull), std::slice::from_ref(&branch)),
        "a"
    );
    assert_eq!(main_revision(Some(&commit), &[]), "s");
    assert_eq!(main_revision(Some(&branch), &[]), "m");
    assert_eq!(main_revision(None, &[auxiliary.clone(), commit]), "s");
    assert_eq!(main_revision(None, &[auxiliary]), "");
}

/// JOB-067: what log lines carry.
#[test]
fn job_067_log_fields() {
    let fields = |pulls: Value| {
        let job = job(
            json!({"type": "batch", "job": "j", "refs": {"org": "o", "repo": "r", "pulls": pulls}}),
            &[("event-GUID", "guid")],
        );
        serde_json::to_value(job.log_fields()).unwrap()
    };
    let common = json!({"name": "some-id", "job": "j", "type": "batch", "state": "triggered", "event-GUID": "guid"});
    assert_eq!(fields(json!([{"number": 1}, {"number": 2}])), common);
    let mut one = common;
    for (key, value) in [("org", json!("o")), ("repo", json!("r")), ("pr", json!(7))] {
        one[key] = value;
    }
    assert_eq!(fields(json!([{"number": 7}])), one);
}

/// JOB-051: what the environment says of a job is what the job says.
#[test]
fn job_051_the_job_spec_of_a_job() {
    let mut made = job(
        json!({"type": "postsubmit", "job": "j", "refs": {"org": "o", "repo": "r", "base_ref": "m", "base_sha": "s"}}),
        &[],
    );
    made.status.build_id = "9".to_owned();
    let env = JobSpec::from(&made).env(&made.spec.agent).unwrap();
    for (name, value) in [
        ("JOB_NAME", "j"),
        ("BUILD_ID", "9"),
        ("REPO_OWNER", "o"),
        ("PULL_REFS", "m:s"),
        ("PROW_JOB_ID", "some-id"),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
}
