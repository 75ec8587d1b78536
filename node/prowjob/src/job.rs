//! The ProwJob: metadata, spec and status of one run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::decoration::DecorationConfig;
use crate::go::OmitEmpty;
use crate::go_time::Time;
use crate::refs::Refs;
use crate::reporting::{
    JenkinsSpec, ProwJobDefault, ReportStates, ReporterConfig, RerunAuthConfig,
    TektonPipelineRunSpec,
};

/// `apiVersion` of a ProwJob.
pub const API_VERSION: &str = "prow.k8s.io/v1";
/// `kind` of a ProwJob.
pub const KIND: &str = "ProwJob";
/// Kind of a list of them.
pub const LIST_KIND: &str = "ProwJobList";
/// What an empty `spec.cluster` means.
pub const DEFAULT_CLUSTER_ALIAS: &str = "default";

/// Declares an enum of words with an `Unset` member that stands for Go's empty string.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            /// Empty in Go; left out of JSON.
            #[default]
            #[serde(rename = "")]
            Unset,
            $($(#[$vmeta])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every member but `Unset`.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word in JSON.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::Unset => "",
                    $(Self::$variant => $word,)*
                }
            }

            /// The member for a word, `None` for an unknown one.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    "" => Some(Self::Unset),
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl OmitEmpty for $name {
            fn is_empty(&self) -> bool {
                *self == Self::Unset
            }
        }
    };
}

words! {
    /// What causes a job to run.
    pub enum ProwJobType {
        /// An unmerged pull request.
        Presubmit = "presubmit",
        /// A pushed commit.
        Postsubmit = "postsubmit",
        /// The clock.
        Periodic = "periodic",
        /// Several unmerged pull requests together.
        Batch = "batch",
    }
}

words! {
    /// Where a run stands.
    pub enum ProwJobState {
        /// No cluster chosen yet.
        Scheduling = "scheduling",
        /// May start, no workload yet.
        Triggered = "triggered",
        /// A workload exists.
        Pending = "pending",
        /// Ended with exit code 0.
        Success = "success",
        /// Ended otherwise.
        Failure = "failure",
        /// Killed early.
        Aborted = "aborted",
        /// Could not run.
        Error = "error",
    }
}

impl ProwJobState {
    /// True for success, failure, aborted and error. An aborted run may still be winding down, see [`ProwJob::complete`].
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Success | Self::Failure | Self::Aborted | Self::Error
        )
    }
}

/// Which executor runs a job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProwJobAgent {
    /// A pod.
    Kubernetes,
    /// A Jenkins build.
    Jenkins,
    /// A Tekton PipelineRun.
    TektonPipeline,
    /// Anything else: carried, not run (EXE-005). Empty means not set.
    Other(String),
}

impl ProwJobAgent {
    /// The word in JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Jenkins => "jenkins",
            Self::TektonPipeline => "tekton-pipeline",
            Self::Other(word) => word,
        }
    }
}

impl From<&str> for ProwJobAgent {
    fn from(word: &str) -> Self {
        match word {
            "kubernetes" => Self::Kubernetes,
            "jenkins" => Self::Jenkins,
            "tekton-pipeline" => Self::TektonPipeline,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl Default for ProwJobAgent {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl fmt::Display for ProwJobAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl OmitEmpty for ProwJobAgent {
    fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
}

impl Serialize for ProwJobAgent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ProwJobAgent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::from(word.as_str()))
    }
}

go_struct! {
    /// Kubernetes' metadata of an object; what Prow itself does not look at is carried as it came.
    pub struct ObjectMeta {
        "name" => name: String,
        "generateName" => generate_name: String,
        "namespace" => namespace: String,
        "selfLink" => self_link: String,
        "uid" => uid: String,
        "resourceVersion" => resource_version: String,
        "generation" => generation: i64,
        "creationTimestamp" => creation_timestamp: Option<Time>,
        "deletionTimestamp" => deletion_timestamp: Option<Time>,
        "deletionGracePeriodSeconds" => deletion_grace_period_seconds: Option<i64>,
        "labels" => labels: BTreeMap<String, String>,
        "annotations" => annotations: BTreeMap<String, String>,
        "ownerReferences" => owner_references: Vec<Value>,
        "finalizers" => finalizers: Vec<String>,
        "managedFields" => managed_fields: Vec<Value>,
    }
}

/// One run of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProwJob {
    /// [`KIND`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// [`API_VERSION`].
    #[serde(rename = "apiVersion", skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Name, labels, annotations.
    #[serde(deserialize_with = "crate::go::null_as_zero")]
    pub metadata: ObjectMeta,
    /// What to run.
    #[serde(deserialize_with = "crate::go::null_as_zero")]
    pub spec: ProwJobSpec,
    /// How it went so far.
    #[serde(deserialize_with = "crate::go::null_as_zero")]
    pub status: ProwJobStatus,
}

/// Runs as the Kubernetes API and its clients list them (JOB-050).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProwJobList {
    /// [`LIST_KIND`].
    pub kind: String,
    /// [`API_VERSION`].
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Kubernetes' metadata of a list, carried as it came.
    pub metadata: Value,
    pub items: Vec<ProwJob>,
}

impl ProwJobList {
    #[must_use]
    pub fn new(items: Vec<ProwJob>) -> Self {
        Self {
            kind: LIST_KIND.to_owned(),
            api_version: API_VERSION.to_owned(),
            metadata: Value::Object(serde_json::Map::new()),
            items,
        }
    }
}

go_struct! {
    /// What to run (EXE-003).
    pub struct ProwJobSpec {
        "type" => r#type: ProwJobType,
        "agent" => agent: ProwJobAgent,
        "cluster" => cluster: String,
        "namespace" => namespace: String,
        "job" => job: String,
        /// The code under test; none for periodics.
        "refs" => refs: Option<Refs>,
        /// Further repositories to clone.
        "extra_refs" => extra_refs: Vec<Refs>,
        "report" => report: bool,
        "context" => context: String,
        "rerun_command" => rerun_command: String,
        /// 0 = no limit.
        "max_concurrency" => max_concurrency: i64,
        "error_on_eviction" => error_on_eviction: bool,
        /// Kubernetes' PodSpec.
        "pod_spec" => pod_spec: Option<Value>,
        "jenkins_spec" => jenkins_spec: Option<JenkinsSpec>,
        "pipeline_run_spec" => pipeline_run_spec: Option<Value>,
        "tekton_pipeline_run_spec" => tekton_pipeline_run_spec: Option<TektonPipelineRunSpec>,
        "decoration_config" => decoration_config: Option<DecorationConfig>,
        "reporter_config" => reporter_config: Option<ReporterConfig>,
        "rerun_auth_config" => rerun_auth_config: Option<RerunAuthConfig>,
        "hidden" => hidden: bool,
        "prowjob_defaults" => prowjob_defaults: Option<ProwJobDefault>,
        "job_queue_name" => job_queue_name: String,
    }
}

go_struct! {
    /// How a run went so far (EXE-002).
    pub struct ProwJobStatus {
        always {
            /// When the run was created; `null` in JSON when unknown.
            "startTime" => start_time: Option<Time>,
        }
        "pendingTime" => pending_time: Option<Time>,
        "completionTime" => completion_time: Option<Time>,
        "state" => state: ProwJobState,
        "description" => description: String,
        "url" => url: String,
        "pod_revival_count" => pod_revival_count: i64,
        "pod_name" => pod_name: String,
        "build_id" => build_id: String,
        "jenkins_build_id" => jenkins_build_id: String,
        "prev_report_states" => prev_report_states: ReportStates,
    }
}

impl ProwJobSpec {
    /// The refs that labels, prefixes and the like go by: the job's own, else the first extra ones.
    pub fn refs_or_first_extra(&self) -> Option<&Refs> {
        self.refs.as_ref().or_else(|| self.extra_refs.first())
    }

    /// Tekton's spec, from either place.
    pub fn pipeline_run_spec(&self) -> Option<&Value> {
        let tekton = self.tekton_pipeline_run_spec.as_ref();
        tekton
            .and_then(|t| t.v1beta1.as_ref())
            .or(self.pipeline_run_spec.as_ref())
    }
}

impl ProwJob {
    /// A run is over once it has a completion time, whatever its state says (EXE-001).
    pub fn complete(&self) -> bool {
        self.status.completion_time.is_some()
    }

    /// The cluster it runs in; an empty one means [`DEFAULT_CLUSTER_ALIAS`].
    pub fn cluster_alias(&self) -> &str {
        if self.spec.cluster.is_empty() {
            DEFAULT_CLUSTER_ALIAS
        } else {
            &self.spec.cluster
        }
    }

    /// What log lines about this run carry.
    pub fn log_fields(&self) -> BTreeMap<&'static str, Value> {
        let mut fields = BTreeMap::from([
            ("name", Value::from(self.metadata.name.as_str())),
            ("job", Value::from(self.spec.job.as_str())),
            ("type", Value::from(self.spec.r#type.as_str())),
            ("state", Value::from(self.status.state.as_str())),
        ]);
        if let Some(guid) = self
            .metadata
            .labels
            .get(crate::labels::EVENT_GUID)
            .filter(|g| !g.is_empty())
        {
            fields.insert(crate::labels::EVENT_GUID, Value::from(guid.as_str()));
        }
        if let Some(refs) = &self.spec.refs
            && let [pull] = refs.pulls.as_slice()
        {
            fields.insert("pr", Value::from(pull.number));
            fields.insert("repo", Value::from(refs.repo.as_str()));
            fields.insert("org", Value::from(refs.org.as_str()));
        }
        if let Some(jenkins) = &self.spec.jenkins_spec {
            fields.insert(
                "github_based_job",
                Value::from(jenkins.github_branch_source_job),
            );
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_job_is_written_as_go_writes_it() {
        insta::assert_snapshot!(serde_json::to_string(&ProwJob::default()).unwrap(), @r#"{"metadata":{},"spec":{},"status":{"startTime":null}}"#);
    }

    #[test]
    fn exe_005_unknown_agents_are_carried() {
        let spec: ProwJobSpec = serde_json::from_str(r#"{"agent":"mine","type":"batch"}"#).unwrap();
        assert_eq!(spec.agent, ProwJobAgent::Other("mine".into()));
        assert_eq!(
            serde_json::to_string(&spec).unwrap(),
            r#"{"type":"batch","agent":"mine"}"#
        );
    }

    #[test]
    fn unknown_states_and_types_are_refused_by_name() {
        let error = serde_json::from_str::<ProwJobStatus>(r#"{"state":"done"}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown variant `done`"), "{error}");
    }
}
