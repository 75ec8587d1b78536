//! Prow's configuration files: parse, merge, default, validate. A pure library: files come in as bytes, a configuration
//! and a list of diagnostics come out.
//!
//! Here stand Prow's YAML dialect, the types of `config.yaml`, of job files and of `plugins.yaml`, what Prow derives from
//! them (which job runs when, Tide's queries, who must pass) and the ProwJobs made from them. Network, store and
//! the plugins' own sections never do: a plugin registers how its section is read. One function, [`files::read`],
//! touches a disk.

#[macro_use]
mod decode;

pub mod changes;
pub mod check;
mod config;
mod cron;
mod diagnostic;
pub mod files;
pub mod gerrit;
mod go_regex;
mod go_url;
pub mod in_repo;
pub mod job;
pub mod json_schema;
mod kube_names;
mod load;
pub mod origins;
mod parallel;
pub mod plugins;
pub mod prow;
mod prow_job;
mod quantity;
pub mod suggest;
mod template;
pub mod tide;
pub mod yaml;

pub use config::{Config, JobConfig, JobList};
pub use cron::{CronError, CronSchedule};
pub use diagnostic::{Diagnostic, Rule, Severity};
pub use files::{FileSet, Layout};
pub use go_regex::{GoRegex, RegexError};
pub use job::{
    Periodic, Postsubmit, Presubmit, batch_spec, new_presubmit, periodic_spec, postsubmit_spec,
    presubmit_spec,
};
pub use load::{ConfigCache, LoadOptions, Loaded};
pub use plugins::PluginConfig;
pub use prow::ProwConfig;
pub use prow_job::read_prow_job;
pub use template::{Template, TemplateError, TemplatePull};
