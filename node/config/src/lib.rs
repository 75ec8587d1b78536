//! Prow's configuration files: parse, merge, default, validate. A pure library: files come in as bytes, a configuration
//! and a list of diagnostics come out.
//!
//! Here stand Prow's YAML dialect, the types of `config.yaml`, of job files and of `plugins.yaml`, what Prow derives from
//! them (which job runs when, Tide's queries, who must pass) and the ProwJobs made from them. Network, store and
//! the plugins' own sections never do: a plugin registers how its section is read.

mod cron;
#[macro_use]
mod decode;
mod diagnostic;
mod go_regex;
mod quantity;
pub mod yaml;

pub use cron::{CronError, CronSchedule};
pub use diagnostic::{Diagnostic, Rule, Severity};
pub use go_regex::{GoRegex, RegexError};
