//! The small JSON files beside a run's log: `started.json`, `finished.json`, clone records.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::go_json;
use crate::job::{ProwJob, ProwJobState};
use crate::job_spec::JobSpec;
use crate::refs::{self, Refs};

/// Name of the file written when a run starts.
pub const STARTED_FILE: &str = "started.json";
/// Name of the file written when a run ends.
pub const FINISHED_FILE: &str = "finished.json";
/// Name of the file that holds the whole ProwJob.
pub const PROW_JOB_FILE: &str = "prowjob.json";
/// Name of the file that holds the clone records.
pub const CLONE_RECORDS_FILE: &str = "clone-records.json";

/// Free-form values of a run.
pub type Metadata = BTreeMap<String, Value>;

/// `started.json` (POD-052).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Started {
    /// Seconds since 1970.
    #[serde(deserialize_with = "crate::go::null_as_zero")]
    pub timestamp: i64,
    /// Machine that ran it.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub node: String,
    /// Number of the first pull request.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub pull: String,
    /// `org/repo` to text form of its refs.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub repos: BTreeMap<String, String>,
    /// What is tested.
    #[serde(
        rename = "repo-commit",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub repo_commit: String,
    /// Deprecated in favour of the one in `finished.json`.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "as_go_metadata",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub metadata: Metadata,
    /// Deprecated.
    #[serde(
        rename = "job-version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub job_version: String,
    /// Deprecated; equals `repo_commit`.
    #[serde(
        rename = "repo-version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub repo_version: String,
}

/// `finished.json` (POD-084).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finished {
    /// Seconds since 1970; none while the run is incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Whether it succeeded; `null` when unknown.
    pub passed: Option<bool>,
    /// Values that the job left in its metadata files.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "as_go_metadata",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub metadata: Metadata,
    /// `SUCCESS`, `FAILURE`, `ABORTED`, or the run's state when the reporter wrote the file.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub result: String,
    /// Deprecated.
    #[serde(
        rename = "job-version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub job_version: String,
    /// What was tested.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub revision: String,
    /// Deprecated.
    #[serde(
        rename = "repo-version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "crate::go::null_as_zero"
    )]
    pub repo_version: String,
}

fn as_go_metadata<S: Serializer>(metadata: &Metadata, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        metadata
            .iter()
            .map(|(key, value)| (key, go_json::sorted(value))),
    )
}

go_struct! {
    /// What was done to bring one repository to its refs.
    pub struct CloneRecord {
        always {
            "refs" => refs: Refs,
        }
        "commands" => commands: Vec<CloneCommand>,
        "failed" => failed: bool,
        "final_sha" => final_sha: String,
        /// Nanoseconds.
        "duration" => duration: i64,
    }
}

go_struct! {
    /// One command of a clone.
    pub struct CloneCommand {
        always {
            "command" => command: String,
        }
        "output" => output: String,
        "error" => error: String,
        /// Nanoseconds.
        "duration" => duration: i64,
    }
}

impl Started {
    /// What a pod writes when it starts at `now`.
    pub fn for_spec(spec: &JobSpec, clones: &[CloneRecord], now: Timestamp) -> Self {
        Self::for_refs(
            spec.refs.as_ref(),
            &spec.extra_refs,
            clones,
            now.as_second(),
        )
    }

    /// What the reporter writes for a run; its start is the run's creation.
    pub fn for_job(job: &ProwJob, clones: &[CloneRecord]) -> Self {
        let start = job.status.start_time.map_or(0, |t| t.unix());
        Self::for_refs(job.spec.refs.as_ref(), &job.spec.extra_refs, clones, start)
    }

    fn for_refs(
        refs: Option<&Refs>,
        extra: &[Refs],
        clones: &[CloneRecord],
        timestamp: i64,
    ) -> Self {
        let cloned = refs::main_refs(refs, extra)
            .and_then(|main| clones.iter().find(|c| c.refs == *main))
            .map(|c| c.final_sha.as_str())
            .filter(|sha| !sha.is_empty());
        let version = cloned
            .unwrap_or_else(|| refs::main_revision(refs, extra))
            .to_owned();
        let pull = refs
            .and_then(|r| r.pulls.first())
            .map(|p| p.number.to_string())
            .unwrap_or_default();
        let repos = refs
            .into_iter()
            .chain(extra)
            .map(|r| (format!("{}/{}", r.org, r.repo), r.to_string()))
            .collect();
        Self {
            timestamp,
            pull,
            repos,
            repo_commit: version.clone(),
            repo_version: version,
            ..Self::default()
        }
    }
}

impl Finished {
    /// What the reporter writes for a run that is over and has no such file yet (CRI-062); `None` while it is not over.
    pub fn for_job(job: &ProwJob) -> Option<Self> {
        let completion = job.status.completion_time?;
        Some(Self {
            timestamp: Some(completion.unix()),
            passed: Some(job.status.state == ProwJobState::Success),
            metadata: Metadata::from([("uploader".to_owned(), "crier".into())]),
            result: job.status.state.to_string(),
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refs(repo: &str, sha: &str) -> Refs {
        Refs {
            org: "o".into(),
            repo: repo.into(),
            base_ref: "main".into(),
            base_sha: sha.into(),
            ..Refs::default()
        }
    }

    #[test]
    fn pod_053_the_cloned_commit_counts_when_known() {
        let spec = JobSpec {
            refs: Some(refs("r", "b")),
            extra_refs: vec![refs("x", "")],
            ..JobSpec::default()
        };
        let clone = CloneRecord {
            refs: refs("r", "b"),
            final_sha: "merged".into(),
            ..CloneRecord::default()
        };
        let now = Timestamp::from_second(7).unwrap();
        let started = |clones: &[CloneRecord]| {
            go_json::to_string(&Started::for_spec(&spec, clones, now)).unwrap()
        };
        insta::assert_snapshot!(started(&[clone]), @r#"{"timestamp":7,"repos":{"o/r":"main:b","o/x":"main"},"repo-commit":"merged","repo-version":"merged"}"#);
        insta::assert_snapshot!(started(&[]), @r#"{"timestamp":7,"repos":{"o/r":"main:b","o/x":"main"},"repo-commit":"b","repo-version":"b"}"#);
    }

    #[test]
    fn pod_084_finished_as_go_writes_it() {
        let metadata = Metadata::from([
            ("b".to_owned(), json!({"z": 2.0, "a": "<"})),
            ("a".to_owned(), json!(1)),
        ]);
        let finished = Finished {
            timestamp: Some(5),
            passed: Some(true),
            metadata,
            result: "SUCCESS".into(),
            revision: "abc".into(),
            ..Finished::default()
        };
        insta::assert_snapshot!(go_json::to_string(&finished).unwrap(), @r#"{"timestamp":5,"passed":true,"metadata":{"a":1,"b":{"a":"\u003c","z":2}},"result":"SUCCESS","revision":"abc"}"#);
        insta::assert_snapshot!(go_json::to_string(&Finished::default()).unwrap(), @r#"{"passed":null}"#);
    }
}
