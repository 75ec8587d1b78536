//! Prow's own JSON object types, exactly as Prow writes and reads them.
//!
//! Here stand: the ProwJob and everything inside it, Go's JSON and duration formats that give those bytes their
//! shape, the labels and environment derived from a job, the layout of a run's files in storage and the small files
//! (`started.json`, `finished.json`, clone records) found there.
//!
//! Never here: configuration files (`trireme-config` builds specs and hands them over), clocks, randomness, network,
//! disk. Names and times come from the caller. Pod and pipeline specs are carried as JSON values, untouched.

#[macro_use]
mod go;

pub mod decoration;
mod decoration_defaults;
pub mod gcs_paths;
pub mod go_duration;
pub mod go_json;
pub mod go_time;
pub mod job;
pub mod job_spec;
pub mod job_url;
pub mod labels;
pub mod new_job;
#[cfg(feature = "record")]
pub mod record;
pub mod refs;
pub mod reporting;
pub mod run_files;

pub use decoration::{
    CensoringOptions, DecorationConfig, GcsConfiguration, Resources, SchedulingOptions, SecretKey,
    UtilityImages,
};
pub use go_duration::{GoDuration, MetaDuration};
pub use go_time::Time;
pub use job::{
    ObjectMeta, ProwJob, ProwJobAgent, ProwJobList, ProwJobSpec, ProwJobState, ProwJobStatus,
    ProwJobType,
};
pub use job_spec::JobSpec;
pub use new_job::new_prow_job;
pub use refs::{Pull, Refs};
pub use reporting::{ProwJobDefault, ReporterConfig, RerunAuthConfig, SlackReporterConfig};
pub use run_files::{CloneCommand, CloneRecord, Finished, Started};
