//! Upstream's own answers, where they are at hand: durations and ProwJobs with everything derived from them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail the test and say what they skip"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use trireme_prowjob::gcs_paths::{self, PathStrategy, RepoPath};
use trireme_prowjob::new_job::{self, GitHubPull};
use trireme_prowjob::{
    GoDuration, JobSpec, MetaDuration, ProwJob, ProwJobState, Started, go_json, job_spec, job_url,
    labels, new_prow_job,
};

fn oracle(name: &str) -> Option<Vec<String>> {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/oracle"
    ))
    .join(name);
    let Ok(file) = fs::File::open(&path) else {
        println!("skipped: no {name} beside the project");
        return None;
    };
    let reader: Box<dyn Read> = if name.ends_with(".gz") {
        Box::new(flate2::read::GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Some(BufReader::new(reader).lines().map(Result::unwrap).collect())
}

#[test]
fn durations() {
    let Some(lines) = oracle("durations.jsonl") else {
        return;
    };
    let mut checked = 0;
    for line in &lines {
        let row: Value = serde_json::from_str(line).unwrap();
        let Some(text) = row["text"].as_str() else {
            continue;
        };
        let parsed: Result<GoDuration, _> = text.parse();
        match parsed {
            Ok(d) => {
                assert_eq!(row["valid"], true, "{line}");
                assert_eq!(row["ns"], d.as_nanos().to_string(), "{line}");
                assert_eq!(row["string"], d.to_string(), "{line}");
            }
            Err(e) => assert_eq!(row["error"], e.to_string(), "{line}"),
        }
        checked += 1;
    }
    assert!(checked > 150, "only {checked} durations");
}

#[test]
fn duration_fields_given_as_json_scalars() {
    let Some(lines) = oracle("durations.jsonl") else {
        return;
    };
    for line in &lines {
        let row: Value = serde_json::from_str(line).unwrap();
        let Some(scalar) = row["yaml_value"].as_str() else {
            continue;
        };
        // Only those whose YAML is JSON as well; the rest is for the reader of YAML.
        let Ok(value) = serde_json::from_str::<Value>(scalar) else {
            continue;
        };
        if value.is_number() && scalar.contains('e') {
            continue;
        }
        let own: Result<Option<GoDuration>, _> = serde_json::from_value(value.clone());
        let meta: Result<Option<MetaDuration>, _> = serde_json::from_value(value);
        let outcome = |r: Result<Option<String>, serde_json::Error>| {
            r.map_or(Value::from("error"), Value::from)
        };
        let expected = |key: &str| row.get(key).cloned().unwrap_or(Value::from("error"));
        assert_eq!(
            outcome(own.map(|d| d.map(|d| d.to_string()))),
            expected("decoration_duration"),
            "{line}"
        );
        assert_eq!(
            outcome(meta.map(|d| d.map(|d| d.to_string()))),
            expected("meta_duration"),
            "{line}"
        );
    }
}

#[derive(Deserialize)]
struct Row {
    build_id: String,
    env: BTreeMap<String, String>,
    fields: Option<Value>,
    gcs: BTreeMap<String, Value>,
    input: Value,
    job_url: String,
    n: u64,
    prowjob: Value,
    refs_string: Option<String>,
    revision: String,
    started: Value,
}

fn prow_jobs() -> Vec<Row> {
    oracle("prowjobs.jsonl.gz")
        .unwrap_or_default()
        .iter()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// The row's job, and the same with its build id as everything derived from it sees it.
fn job_of(row: &Row) -> (ProwJob, ProwJob) {
    let job: ProwJob = serde_json::from_value(row.prowjob.clone()).unwrap();
    let mut built = job.clone();
    built.status.build_id.clone_from(&row.build_id);
    (job, built)
}

/// A key that the expectation's newer library leaves out.
fn without_null_creation(mut job: Value) -> Value {
    let metadata = job["metadata"].as_object_mut().unwrap();
    if metadata
        .get("creationTimestamp")
        .is_some_and(Value::is_null)
    {
        metadata.remove("creationTimestamp");
    }
    job
}

/// JOB-050, JOB-051, JOB-052, JOB-062, JOB-069, JOB-070
#[test]
fn exe_002_003_004_jobs_survive_reading_and_writing() {
    for row in prow_jobs() {
        let (job, _) = job_of(&row);
        assert_eq!(
            serde_json::to_value(&job).unwrap(),
            without_null_creation(row.prowjob),
            "row {}",
            row.n
        );
    }
}

#[test]
fn pod_020_environment_text_for_text() {
    for row in prow_jobs() {
        let (_, built) = job_of(&row);
        let env = JobSpec::from(&built).env(&built.spec.agent).unwrap();
        assert_eq!(env, row.env, "row {}", row.n);
        let mut names = job_spec::env_names(built.spec.r#type);
        names.sort_unstable();
        let given: Vec<&str> = env.keys().map(String::as_str).collect();
        assert!(
            given.iter().all(|name| names.contains(name)),
            "row {}",
            row.n
        );
        let back = JobSpec::from_env_value(row.env.get("JOB_SPEC").map(String::as_str)).unwrap();
        assert_eq!(back, JobSpec::from(&built), "row {}", row.n);
    }
}

/// JOB-063, JOB-067
#[test]
fn exe_012_refs_and_log_fields() {
    for row in prow_jobs() {
        let (_, built) = job_of(&row);
        assert_eq!(
            built.spec.refs.as_ref().map(ToString::to_string),
            row.refs_string,
            "row {}",
            row.n
        );
        if let Some(fields) = row.fields {
            assert_eq!(
                serde_json::to_value(built.log_fields()).unwrap(),
                fields,
                "row {}",
                row.n
            );
        }
    }
}

/// JOB-064
#[test]
fn pod_052_started_json_and_revision() {
    for row in prow_jobs() {
        let (_, built) = job_of(&row);
        assert_eq!(
            JobSpec::from(&built).revision(),
            row.revision,
            "row {}",
            row.n
        );
        let started = serde_json::to_value(Started::for_job(&built, &[])).unwrap();
        assert_eq!(started, row.started, "row {}", row.n);
    }
}

#[test]
fn pod_100_101_storage_paths() {
    let strategies = [
        ("explicit", RepoPath::new(PathStrategy::Explicit, "", "")),
        (
            "legacy(kubernetes,kubernetes)",
            RepoPath::new(PathStrategy::Legacy, "kubernetes", "kubernetes"),
        ),
        (
            "single(kubernetes,kubernetes)",
            RepoPath::new(PathStrategy::Single, "kubernetes", "kubernetes"),
        ),
    ];
    for row in prow_jobs() {
        let (_, built) = job_of(&row);
        let spec = JobSpec::from(&built);
        let (org, repo) = spec.refs.as_ref().map_or(("", ""), |r| (&r.org, &r.repo));
        let own = [
            (
                "legacy(own org, other)",
                RepoPath::new(PathStrategy::Legacy, org, "other"),
            ),
            (
                "single(own org, own repo)",
                RepoPath::new(PathStrategy::Single, org, repo),
            ),
        ];
        for (name, repo_path) in strategies.iter().chain(&own) {
            let path = gcs_paths::run_directory(&spec, repo_path).unwrap();
            assert_eq!(
                row.gcs[&format!("path {name}")],
                path,
                "row {} {name}",
                row.n
            );
            let latest = gcs_paths::latest_build(&spec, Some(repo_path)).unwrap();
            assert_eq!(
                row.gcs[&format!("latest {name}")],
                Value::from(latest),
                "row {} {name}",
                row.n
            );
        }
        assert_eq!(
            row.gcs["alias"],
            gcs_paths::alias(&spec).unwrap_or_default(),
            "row {}",
            row.n
        );
        assert_eq!(
            row.gcs["root"],
            gcs_paths::root(&spec).unwrap(),
            "row {}",
            row.n
        );
        let latest = gcs_paths::latest_build(&spec, None).unwrap();
        assert_eq!(
            row.gcs["latest_no_builder"],
            Value::from(latest),
            "row {}",
            row.n
        );
        if let Some(config) = spec
            .decoration_config
            .as_ref()
            .and_then(|d| d.gcs_configuration.as_ref())
        {
            let paths = gcs_paths::for_job(config, &spec, "").unwrap();
            assert_eq!(row.gcs["job_base_path"], paths.base, "row {}", row.n);
            let paths = gcs_paths::for_job(config, &spec, "sub/dir").unwrap();
            assert_eq!(row.gcs["job_path_with_subdir"], paths.run, "row {}", row.n);
        }
    }
}

/// JOB-065
#[test]
fn exe_063_job_urls_below_their_prefix() {
    let mut checked = 0;
    for row in prow_jobs() {
        let (_, built) = job_of(&row);
        let spec = JobSpec::from(&built);
        let Some(config) = spec
            .decoration_config
            .as_ref()
            .and_then(|d| d.gcs_configuration.as_ref())
        else {
            continue;
        };
        // The prefix comes from the configuration, which is not read here: take it off the expected link.
        let bucket = gcs_paths::StoragePath::parse(&config.bucket).unwrap();
        let Some(at) = row
            .job_url
            .find(&format!("/{}/{}/", bucket.provider, bucket.full_path()))
        else {
            continue;
        };
        let url = job_url::job_url(&row.job_url[..at], false, config, &spec).unwrap();
        // Links from the template may end in a slash.
        assert_eq!(url, row.job_url.trim_end_matches('/'), "row {}", row.n);
        checked += 1;
    }
    assert!(
        checked > 100 || prow_jobs().is_empty(),
        "only {checked} links"
    );
}

fn text_map(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value::<Option<BTreeMap<String, String>>>(value.clone())
        .unwrap()
        .unwrap_or_default()
}

/// JOB-057, JOB-058, JOB-059. Jobs whose constructor puts nothing of the job's configuration into the labels can be made again from their spec.
#[test]
fn exe_006_015_constructor_and_labels() {
    let mut checked = 0;
    for row in prow_jobs() {
        let (job, _) = job_of(&row);
        let mut extra_labels = text_map(&row.input["extra_labels"]);
        let mut annotations = text_map(&row.input["extra_annotations"]);
        // What the job's configuration added is not in the input: take it from the outcome.
        let derived = [
            labels::JOB,
            labels::CONTEXT,
            labels::TYPE,
            labels::CREATED_BY_PROW,
        ];
        for (key, value) in &job.metadata.labels {
            if !derived.contains(&key.as_str()) && !key.starts_with("prow.k8s.io/refs.") {
                extra_labels
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            }
        }
        for (key, value) in &job.metadata.annotations {
            annotations
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        let start = *job.status.start_time.unwrap();
        let made = new_prow_job(
            job.spec.clone(),
            &extra_labels,
            &annotations,
            job.metadata.name.clone(),
            start,
        )
        .requiring_scheduling(job.status.state == ProwJobState::Scheduling);
        assert_eq!(made, job, "row {}", row.n);
        checked += 1;
    }
    assert!(
        checked > 800 || prow_jobs().is_empty(),
        "only {checked} jobs"
    );
}

/// JOB-060, JOB-061
#[test]
fn exe_009_refs_of_a_github_pull_request() {
    for row in prow_jobs() {
        let pr = &row.input["pr"];
        if pr.is_null() {
            continue;
        }
        let text = |key: &str| pr[key].as_str().unwrap();
        let refs = new_job::github_refs(
            GitHubPull {
                org: text("org"),
                repo: text("repo"),
                repo_html_url: text("repo_html_url"),
                base_ref: text("base_ref"),
                number: pr["number"].as_i64().unwrap(),
                author: text("user"),
                author_html_url: text("user_html_url"),
                head_sha: text("head_sha"),
                head_ref: text("head_ref"),
                title: text("title"),
                html_url: text("html_url"),
            },
            row.input["base_sha"].as_str().unwrap(),
        );
        let (job, _) = job_of(&row);
        let want = job.spec.refs.unwrap();
        // The job's own clone settings come on top of these.
        let job_settings = new_job::CloneOverrides {
            path_alias: &want.path_alias,
            clone_uri: &want.clone_uri,
            skip_submodules: want.skip_submodules,
            clone_depth: want.clone_depth,
            skip_fetch_head: want.skip_fetch_head,
        };
        let got =
            new_job::complete_primary_refs(refs, job_settings, job.spec.decoration_config.as_ref());
        assert_eq!(got, want, "row {}", row.n);
    }
}

#[test]
fn go_json_escapes_in_job_spec_are_kept() {
    let rows = prow_jobs();
    if !rows.is_empty() {
        assert!(rows.iter().any(
            |r| r.env["JOB_SPEC"].contains("\\u003c") || r.env["JOB_SPEC"].contains("\\u0026")
        ));
    }
    assert_eq!(go_json::to_string("a&b").unwrap(), "\"a\\u0026b\"");
}
