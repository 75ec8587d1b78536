//! `config expand`: a job after all defaulting, and where each of its fields comes from.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};
use trireme_config::{job::AnyJob, origins::origins, yaml};

use super::configured::{Configured, Found, Which, find, in_checkout, only};
use crate::output::{Notation, print, print_json};

/// Show a job as it is after all defaulting.
///
/// What the job does not say itself is marked with the place it comes from: presets, decoration defaults, Prow's own
/// defaults. With -o json every field has its origin.
///
///   trireme config expand unit                                     of the configuration in force
///   trireme config expand unit --config-path config.yaml --job-config-path jobs/
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ExpandArgs {
    /// Name of the job.
    pub job: String,
    #[command(flatten)]
    pub which: Which,
    /// Also look among the jobs of this checkout of --repo (.prow.yaml or .prow/).
    #[arg(long, requires = "repo", value_name = "DIR")]
    pub in_repo_checkout: Option<PathBuf>,
    /// Of several jobs of the repository the one that runs on this branch.
    #[arg(long, value_name = "BRANCH")]
    pub branch: Option<String>,
    #[command(flatten)]
    pub configured: Configured,
    /// How the job is written.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Notation,
}

/// # Errors
/// When the configuration cannot be had or there is no such job.
pub async fn run(args: &ExpandArgs) -> anyhow::Result<()> {
    let in_force = args.configured.load().await?;
    let config = &in_force.config;
    let own = match (&args.in_repo_checkout, &args.which.repo) {
        (Some(checkout), Some(repo)) => Some((repo.as_str(), in_checkout(config, repo, checkout)?)),
        _ => None,
    };
    let own = own.as_ref().map(|(repo, jobs)| (*repo, jobs));
    let found = find(config, own, &args.job, &args.which)?;
    let runs = |found: &Found<'_>| match (found.job, &args.branch) {
        (AnyJob::Presubmit(job), Some(branch)) => job.could_run(branch),
        (AnyJob::Postsubmit(job), Some(branch)) => job.could_run(branch),
        _ => true,
    };
    let meant: Vec<Found<'_>> = found.iter().filter(|found| runs(found)).copied().collect();
    let meant = if meant.is_empty() { &found } else { &meant };
    let found = only(meant, &args.job, flags(meant))?;
    let from = origins(&in_force.files, config, found.repo, found.job)?;
    let job = written(found.job)?;
    match args.output {
        Notation::Json => {
            let source = &found.job.base().source;
            print_json(&json!({
                "name": args.job, "type": found.job.job_type(), "repo": found.repo, "configuration": in_force.whence,
                "file": &*source.file, "line": source.line, "job": job, "origins": from,
            }))
        }
        Notation::Yaml => {
            let inherited: BTreeMap<&str, &str> = from
                .iter()
                .filter(|origin| !origin.own)
                .map(|origin| (origin.field.as_str(), origin.from.as_str()))
                .collect();
            let body = yaml::to_string_with_comments(&job, &|path| {
                inherited.get(path).map(|from| (*from).to_owned())
            })?;
            let head = format!("# {}, {}; {}\n", args.job, found.told(), in_force.whence);
            Ok(print(&(head + &body))?)
        }
    }
}

/// The flags that tell jobs apart.
fn flags(found: &[Found<'_>]) -> &'static str {
    let first = found.first();
    let of_one_repo = found
        .iter()
        .all(|other| Some(other.repo) == first.map(|first| first.repo));
    let of_one_type = found
        .iter()
        .all(|other| Some(other.job.job_type()) == first.map(|first| first.job.job_type()));
    match (of_one_repo, of_one_type) {
        (true, true) => "--branch",
        (true, false) => "--type",
        (false, true) => "--repo",
        (false, false) => "--repo or --type",
    }
}

fn written(job: AnyJob<'_>) -> Result<Value, serde_json::Error> {
    match job {
        AnyJob::Presubmit(job) => serde_json::to_value(job),
        AnyJob::Postsubmit(job) => serde_json::to_value(job),
        AnyJob::Periodic(job) => serde_json::to_value(job),
    }
}
