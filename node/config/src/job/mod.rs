//! Jobs as they stand in configuration files (JOB-001…007).

pub(crate) mod clashes;
mod decide;
mod defaults;
pub mod explain;
pub(crate) mod expressions;
mod filter;
mod pod;
mod preset;
pub(crate) mod shared;
mod spec;
pub(crate) mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use trireme_prowjob::reporting::{JenkinsSpec, TektonPipelineRunSpec};
use trireme_prowjob::{
    DecorationConfig, GoDuration, ProwJobDefault, ProwJobType, Refs, ReporterConfig,
    RerunAuthConfig,
};

pub use decide::{BranchRule, ChangeRule, Decision, Requirements};
pub use defaults::DEFAULT_CLUSTER;
pub(crate) use defaults::Defaults;
pub use filter::{Asked, AvailableTests, Choice, Command, Contexts, Filter};
pub use pod::PodSpec;
pub use preset::Preset;
pub use shared::MAX_EXPRESSIONS;
pub(crate) use shared::Shared;
pub use spec::{batch_spec, new_presubmit, periodic_spec, postsubmit_spec, presubmit_spec};

use crate::decode::{Cx, Decode, Empty};
use crate::go_regex::GoRegex;
use crate::yaml::Node;

/// Objects of Kubernetes that are handed on as they came, in the form that Go's types would give them.
macro_rules! carried {
    ($($(#[$meta:meta])* $name:ident;)*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
            #[serde(transparent)]
            pub struct $name(pub Value);

            impl Decode for $name {
                fn decode<'n>(node: &'n Node, cx: &mut Cx<'n>) -> Self {
                    Self(cx.object(stringify!($name), node))
                }
            }

            impl crate::decode::Describe for $name {
                fn describe(into: &mut crate::decode::Definitions) -> Value {
                    crate::decode::describe_object(stringify!($name), into)
                }
            }

            impl Empty for $name {
                fn is_empty(&self) -> bool {
                    false
                }
            }

            impl $name {
                /// The value of a text field, empty if there is none.
                #[must_use]
                pub fn text(&self, field: &str) -> &str {
                    self.0.get(field).and_then(Value::as_str).unwrap_or_default()
                }
            }
        )*
    };
}

carried! {
    EnvVar;
    Volume;
    VolumeMount;
    Toleration;
}

/// Where a job is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Path of the file as the loader was given it.
    pub file: Arc<str>,
    /// 1-based; 0 if unknown.
    pub line: u32,
    /// 1-based; 0 if unknown.
    pub column: u32,
    /// The list that it stands in, as in `presubmits["org/repo"]`, and its place there.
    pub list: Arc<str>,
    pub index: u32,
}

impl Source {
    /// The job's field of the file, or one of its own fields; empty if unknown.
    pub(crate) fn field(&self, of_job: &str) -> String {
        match (self.list.as_ref(), of_job) {
            ("", of_job) => of_job.to_owned(),
            (list, "") => format!("{list}[{}]", self.index),
            (list, of_job) => format!("{list}[{}].{of_job}", self.index),
        }
    }
}

object! {
    /// What all kinds of jobs have.
    pub struct JobBase {
        [always "name"] name: String,
        /// Also select presets.
        [omit "labels"] labels: BTreeMap<String, String>,
        /// 0 = no limit.
        [omit "max_concurrency"] max_concurrency: i64,
        /// `kubernetes`, `jenkins`, `tekton-pipeline`; others run nowhere.
        [omit "agent"] agent: String,
        /// Alias of the build cluster.
        [omit "cluster"] cluster: String,
        [omit "namespace"] namespace: Option<String>,
        [omit "error_on_eviction"] error_on_eviction: bool,
        [derived] source: Source,
        [omit "spec"] spec: Option<PodSpec>,
        [omit "pipeline_run_spec"] pipeline_run_spec: Option<Value>,
        [omit "tekton_pipeline_run_spec"] tekton_pipeline_run_spec: Option<TektonPipelineRunSpec>,
        [omit "annotations"] annotations: BTreeMap<String, String>,
        [omit "reporter_config"] reporter_config: Option<ReporterConfig>,
        [omit "rerun_auth_config"] rerun_auth_config: Option<RerunAuthConfig>,
        [omit "hidden"] hidden: bool,
        [omit "prowjob_defaults"] prowjob_defaults: Option<Arc<ProwJobDefault>>,
        [omit "job_queue_name"] job_queue_name: String,
        [embed] utility: UtilityConfig,
    }
}

object! {
    /// How a job is decorated and what it clones.
    pub struct UtilityConfig {
        /// Set after loading.
        [omit "decorate"] decorate: Option<bool>,
        [omit "path_alias"] path_alias: String,
        [omit "clone_uri"] clone_uri: String,
        [omit "skip_submodules"] skip_submodules: bool,
        /// 0 = everything.
        [omit "clone_depth"] clone_depth: i64,
        [omit "skip_fetch_head"] skip_fetch_head: bool,
        [omit "extra_refs"] extra_refs: Vec<Refs>,
        /// Presence decides whether a job is decorated (CFG-103).
        [omit "decoration_config"] decoration_config: Option<Arc<DecorationConfig>>,
    }
}

object! {
    /// On which branches a job runs.
    pub struct Brancher {
        [omit "skip_branches"] skip_branches: Vec<String>,
        [omit "branches"] branches: Vec<String>,
        [derived] re: Option<GoRegex>,
        [derived] re_skip: Option<GoRegex>,
    }
}

object! {
    /// For which changes a job runs.
    pub struct ChangeMatcher {
        [omit "run_if_changed"] run_if_changed: String,
        [omit "skip_if_only_changed"] skip_if_only_changed: String,
        [derived] re: Option<GoRegex>,
    }
}

object! {
    /// How a job reports.
    pub struct Reporter {
        /// Status context; the name if unset.
        [omit "context"] context: String,
        [omit "skip_report"] skip_report: bool,
    }
}

object! {
    /// A job for unmerged changes.
    pub struct Presubmit {
        [embed] base: JobBase,
        [always "always_run"] always_run: bool,
        [omit "optional"] optional: bool,
        [omit "trigger"] trigger: String,
        [omit "rerun_command"] rerun_command: String,
        [omit "run_before_merge"] run_before_merge: bool,
        [embed] brancher: Brancher,
        [embed] changes: ChangeMatcher,
        [embed] reporter: Reporter,
        [omit "jenkins_spec"] jenkins_spec: Option<JenkinsSpec>,
        [derived] trigger_re: Option<GoRegex>,
    }
}

object! {
    /// A job for pushed commits.
    pub struct Postsubmit {
        [embed] base: JobBase,
        /// Unset = yes.
        [omit "always_run"] always_run: Option<bool>,
        [embed] changes: ChangeMatcher,
        [embed] brancher: Brancher,
        [embed] reporter: Reporter,
        [omit "jenkins_spec"] jenkins_spec: Option<JenkinsSpec>,
    }
}

object! {
    /// Repetition of a periodic's run.
    pub struct Retry {
        /// Repeat whatever the result.
        [omit "run_all"] run_all: bool,
        [omit "attempts"] attempts: i64,
        [omit "interval"] interval: String,
        /// From `interval`, once validated.
        [derived] wait: GoDuration,
    }
}

object! {
    /// A job that the clock starts.
    pub struct Periodic {
        [embed] base: JobBase,
        /// From the start of the last run.
        [omit "interval"] interval: String,
        /// From the end of the last run.
        [omit "minimum_interval"] minimum_interval: String,
        [omit "cron"] cron: String,
        [omit "tags"] tags: Vec<String>,
        [omit "retry"] retry: Option<Retry>,
        /// From `interval`, once validated; 0 if unset. A retry does not replace it (JOB-023).
        [derived] every: GoDuration,
        /// From `minimum_interval`, once validated; 0 if unset.
        [derived] at_least_every: GoDuration,
    }
}

impl JobBase {
    /// The pipeline of a Tekton job; the newer of its two fields wins.
    #[must_use]
    pub fn tekton_spec(&self) -> Option<&Value> {
        let newer = self
            .tekton_pipeline_run_spec
            .as_ref()
            .and_then(|spec| spec.v1beta1.as_ref());
        newer.or(self.pipeline_run_spec.as_ref())
    }

    /// The decoration, if the job is decorated.
    #[must_use]
    pub fn decoration(&self) -> Option<&DecorationConfig> {
        self.utility.decoration_config.as_deref()
    }

    /// `org/repo` of the first extra repository; a periodic takes defaults for it (CFG-062).
    #[must_use]
    pub fn first_extra_repo(&self) -> Option<String> {
        self.utility
            .extra_refs
            .first()
            .map(|refs| format!("{}/{}", refs.org, refs.repo))
    }
}

/// A job of any kind from a configuration.
#[derive(Clone, Copy, Debug)]
pub enum AnyJob<'a> {
    Presubmit(&'a Presubmit),
    Postsubmit(&'a Postsubmit),
    Periodic(&'a Periodic),
}

impl<'a> AnyJob<'a> {
    #[must_use]
    pub fn base(self) -> &'a JobBase {
        match self {
            Self::Presubmit(job) => &job.base,
            Self::Postsubmit(job) => &job.base,
            Self::Periodic(job) => &job.base,
        }
    }

    #[must_use]
    pub fn job_type(self) -> ProwJobType {
        match self {
            Self::Presubmit(_) => ProwJobType::Presubmit,
            Self::Postsubmit(_) => ProwJobType::Postsubmit,
            Self::Periodic(_) => ProwJobType::Periodic,
        }
    }
}
