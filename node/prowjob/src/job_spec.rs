//! What a running job learns about itself: `JOB_SPEC` and the variables beside it.

use std::collections::BTreeMap;

use crate::decoration::DecorationConfig;
use crate::go_json;
use crate::job::{ProwJob, ProwJobAgent, ProwJobSpec, ProwJobType};
use crate::refs::{self, Refs};

/// Name of the variable that holds the whole [`JobSpec`].
pub const JOB_SPEC_ENV: &str = "JOB_SPEC";

const GITHUB_HOST: &str = "github.com";
const BASE_ENV: [&str; 7] = [
    "CI",
    "JOB_NAME",
    JOB_SPEC_ENV,
    "JOB_TYPE",
    "PROW_JOB_ID",
    "BUILD_ID",
    "BUILD_NUMBER",
];
const REFS_ENV: [&str; 7] = [
    "REPO_OWNER",
    "REPO_NAME",
    "SRC_BASE",
    "SRC_HOST",
    "PULL_BASE_REF",
    "PULL_BASE_SHA",
    "PULL_REFS",
];
const PULL_ENV: [&str; 4] = [
    "PULL_NUMBER",
    "PULL_PULL_SHA",
    "PULL_HEAD_REF",
    "PULL_TITLE",
];

go_struct! {
    /// The part of a run that its own processes and the pod utilities see (POD-020).
    pub struct JobSpec {
        "type" => r#type: ProwJobType,
        "job" => job: String,
        "buildid" => build_id: String,
        "prowjobid" => prow_job_id: String,
        "refs" => refs: Option<Refs>,
        "extra_refs" => extra_refs: Vec<Refs>,
        "decoration_config" => decoration_config: Option<DecorationConfig>,
    }
}

/// Why a job's variables cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum JobSpecError {
    /// The variable is missing.
    #[error("$JOB_SPEC unset")]
    Unset,
    /// The variable holds no job spec.
    #[error("malformed $JOB_SPEC: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A job of this type needs refs.
    #[error("{0} job {1:?} has no refs")]
    NoRefs(ProwJobType, String),
    /// A presubmit needs a pull request.
    #[error("presubmit job {0:?} has no pull request in its refs")]
    NoPull(String),
    /// Could not be written as JSON.
    #[error("failed to marshal job spec: {0}")]
    Marshal(#[source] serde_json::Error),
}

impl JobSpec {
    /// The view of a run with this build id and name.
    pub fn new(spec: &ProwJobSpec, build_id: &str, prow_job_id: &str) -> Self {
        Self {
            r#type: spec.r#type,
            job: spec.job.clone(),
            build_id: build_id.to_owned(),
            prow_job_id: prow_job_id.to_owned(),
            refs: spec.refs.clone(),
            extra_refs: spec.extra_refs.clone(),
            decoration_config: spec.decoration_config.clone(),
        }
    }

    /// Reads the value of `$JOB_SPEC`, given as found in the environment.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn from_env_value(value: Option<&str>) -> Result<Self, JobSpecError> {
        serde_json::from_str(value.ok_or(JobSpecError::Unset)?).map_err(JobSpecError::Malformed)
    }

    /// What the run tests, empty without refs.
    pub fn revision(&self) -> &str {
        refs::main_revision(self.refs.as_ref(), &self.extra_refs)
    }

    /// The value of `$JOB_SPEC`.
    ///
    /// # Errors
    /// When a carried value cannot be written.
    pub fn to_json(&self) -> Result<String, JobSpecError> {
        go_json::to_string(self).map_err(JobSpecError::Marshal)
    }

    /// All variables of the downward API (part 8 of the checklist), without those that decoration adds.
    /// `agent` decides on the deprecated `BUILD_NUMBER`.
    ///
    /// # Errors
    /// When the type asks for refs or a pull request that are not there.
    pub fn env(&self, agent: &ProwJobAgent) -> Result<BTreeMap<String, String>, JobSpecError> {
        let mut env = BTreeMap::new();
        let mut set = |key: &str, value: &str| env.insert(key.to_owned(), value.to_owned());
        set("CI", "true");
        set("JOB_NAME", &self.job);
        set("BUILD_ID", &self.build_id);
        set("PROW_JOB_ID", &self.prow_job_id);
        set("JOB_TYPE", self.r#type.as_str());
        if *agent == ProwJobAgent::Kubernetes {
            set("BUILD_NUMBER", &self.build_id);
        }
        set(JOB_SPEC_ENV, &self.to_json()?);
        if self.r#type == ProwJobType::Periodic {
            return Ok(env);
        }

        let refs = self
            .refs
            .as_ref()
            .ok_or_else(|| JobSpecError::NoRefs(self.r#type, self.job.clone()))?;
        set("REPO_OWNER", &refs.org);
        set("REPO_NAME", &refs.repo);
        let (host, base) = source_host_and_base(refs);
        set("SRC_HOST", &host);
        set("SRC_BASE", &base);
        set("PULL_BASE_REF", &refs.base_ref);
        set("PULL_BASE_SHA", &refs.base_sha);
        set("PULL_REFS", &refs.to_string());
        if matches!(self.r#type, ProwJobType::Postsubmit | ProwJobType::Batch) {
            return Ok(env);
        }

        let pull = refs
            .pulls
            .first()
            .ok_or_else(|| JobSpecError::NoPull(self.job.clone()))?;
        set("PULL_NUMBER", &pull.number.to_string());
        set("PULL_PULL_SHA", &pull.sha);
        set("PULL_HEAD_REF", &pull.head_ref);
        set("PULL_TITLE", &pull.title);
        Ok(env)
    }
}

impl From<&ProwJob> for JobSpec {
    fn from(job: &ProwJob) -> Self {
        Self::new(&job.spec, &job.status.build_id, &job.metadata.name)
    }
}

/// Names of the variables that jobs of this type get; jobs may not set them (POD-021).
pub fn env_names(r#type: ProwJobType) -> Vec<&'static str> {
    match r#type {
        ProwJobType::Unset => Vec::new(),
        ProwJobType::Periodic => BASE_ENV.to_vec(),
        ProwJobType::Postsubmit | ProwJobType::Batch => [BASE_ENV, REFS_ENV].concat(),
        ProwJobType::Presubmit => [&BASE_ENV[..], &REFS_ENV[..], &PULL_ENV[..]].concat(),
    }
}

fn source_host_and_base(refs: &Refs) -> (String, String) {
    let default_base = format!("{}/{}", refs.org, refs.repo);
    let location = if !refs.path_alias.is_empty() {
        refs.path_alias.as_str()
    } else if !refs.repo_link.is_empty() {
        refs.repo_link.rsplit("://").next().unwrap_or_default()
    } else {
        return (GITHUB_HOST.to_owned(), default_base);
    };
    match location.split_once('/') {
        Some((host, base)) => (host.to_owned(), base.to_owned()),
        None => (location.to_owned(), default_base),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_020_readers_refuse_an_unset_or_malformed_value() {
        let errors = [
            JobSpec::from_env_value(None).unwrap_err(),
            JobSpec::from_env_value(Some("{")).unwrap_err(),
        ];
        insta::assert_snapshot!(errors.map(|e| e.to_string()).join("\n"), @r"
        $JOB_SPEC unset
        malformed $JOB_SPEC: EOF while parsing an object at line 1 column 1
        ");
    }

    #[test]
    fn source_host_without_slash_replaces_only_the_host() {
        let refs = Refs {
            org: "o".into(),
            repo: "r".into(),
            path_alias: "x".into(),
            ..Refs::default()
        };
        assert_eq!(
            source_host_and_base(&refs),
            ("x".to_owned(), "o/r".to_owned())
        );
        let refs = Refs {
            path_alias: String::new(),
            repo_link: "https://h/a/b".into(),
            ..refs
        };
        assert_eq!(
            source_host_and_base(&refs),
            ("h".to_owned(), "a/b".to_owned())
        );
    }

    #[test]
    fn a_job_without_needed_refs_is_an_error_not_a_crash() {
        let spec = JobSpec {
            r#type: ProwJobType::Presubmit,
            job: "j".into(),
            ..JobSpec::default()
        };
        assert_eq!(
            spec.env(&ProwJobAgent::Kubernetes).unwrap_err().to_string(),
            "presubmit job \"j\" has no refs"
        );
    }
}
