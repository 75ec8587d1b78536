//! The configuration that a command speaks of, from files by Prow's flags or from the cluster, and the jobs of a name in
//! it.

use std::{path::Path, sync::Arc};

use clap::{ArgMatches, Args, FromArgMatches, error::ErrorKind, parser::ValueSource};
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::Code;
use trireme_api::client::Client;
use trireme_config::{
    Config, Diagnostic, FileSet, PluginConfig,
    in_repo::{InRepoJobs, ProwYaml},
    job::AnyJob,
    suggest::near,
};
use trireme_prowjob::ProwJobType;

use super::{
    connect_options,
    files::{self, FileArgs},
    own_files,
};
use crate::{
    cli::Access,
    configuration::{file_set, load},
    exit::{CONFIG, NOT_FOUND, USAGE, coded},
    serve::registry,
};

/// Files asked for at once.
const FILES_AT_ONCE: usize = 16;
/// Errors of a configuration that are told at most.
const MAX_ERRORS: usize = 10;
/// Names that are suggested at most, and jobs that are listed.
const MAX_NEAR_NAMES: usize = 5;

/// Where the configuration is: in files if --config-path is given, else in the cluster.
#[derive(Debug, Clone, Args)]
pub struct Configured {
    #[command(flatten)]
    pub files: PerhapsFiles,
    /// Doors of the cluster's nodes, comma-separated; the first that answers is used.
    #[arg(
        long,
        env = "TRIREME_SERVER",
        default_value = "127.0.0.1:8888",
        value_name = "[https://]HOST:PORT,..."
    )]
    pub server: String,
    #[command(flatten)]
    pub access: Access,
}

/// Prow's flags about files, or none of them.
#[derive(Debug, Clone)]
pub struct PerhapsFiles(pub Option<FileArgs>);

impl FromArgMatches for PerhapsFiles {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = FileArgs::augment_args(clap::Command::new("files"));
        let given = |flag: &clap::Arg| {
            matches!(
                matches.value_source(flag.get_id().as_str()),
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
        };
        let any = flags.get_arguments().any(given);
        let main = matches.try_get_one::<String>("config_path").ok().flatten();
        if any && main.is_none_or(String::is_empty) {
            return Err(clap::Error::raw(
                ErrorKind::MissingRequiredArgument,
                "files are read from disk only with --config-path <FILE>; without any flag about files the cluster's configuration is taken",
            ));
        }
        any.then(|| FileArgs::from_arg_matches(matches))
            .transpose()
            .map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for PerhapsFiles {
    /// What an update does not ask for is not required.
    fn augment_args(command: clap::Command) -> clap::Command {
        FileArgs::augment_args_for_update(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        FileArgs::augment_args_for_update(command)
    }
}

/// A configuration without errors.
pub struct InForce {
    /// As the loader was given them.
    pub files: FileSet,
    pub config: Arc<Config>,
    pub plugins: Arc<PluginConfig>,
    /// Where it is from, for people.
    pub whence: String,
}

impl Configured {
    /// # Errors
    /// When files cannot be read, the cluster does not answer or has no configuration, or the configuration has errors.
    pub async fn load(&self) -> anyhow::Result<InForce> {
        let (set, whence) = match &self.files.0 {
            Some(args) => {
                let set = files::read(args).map_err(|found| refused(&found))?;
                let whence = set.layout.config.clone();
                (set, whence)
            }
            None => self.download().await?,
        };
        let loaded = load(&set, &registry());
        let (config, plugins) = loaded.accepted().map_err(|found| refused(&found))?;
        Ok(InForce {
            files: set,
            config,
            plugins,
            whence,
        })
    }

    /// # Errors
    /// When no node answers.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect_with(&self.server, &connect_options(&self.access)).await?)
    }

    /// The files of the version in force.
    async fn download(&self) -> anyhow::Result<(FileSet, String)> {
        let client = self.client().await?;
        let (version, files) = client.config_version(0).await.map_err(|status| {
            match status.code() {
                Code::NotFound => coded(
                    NOT_FOUND,
                    "the cluster has no configuration; apply one with `trireme config apply`, or name files with --config-path",
                ),
                _ => status.into(),
            }
        })?;
        let number = version.number;
        let files: Vec<(String, String, bytes::Bytes)> = futures::stream::iter(files)
            .map(|file| {
                let client = &client;
                async move {
                    let content = client
                        .config_content(&file.blob.unwrap_or_default())
                        .await?;
                    Ok::<_, tonic::Status>((file.role, file.path, content))
                }
            })
            .buffered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        let set = file_set(
            files
                .iter()
                .map(|(role, path, content)| (role.as_str(), path.as_str(), &content[..])),
        );
        Ok((set, format!("version {number} of the cluster")))
    }
}

fn refused(found: &[Diagnostic]) -> anyhow::Error {
    let shown = found.iter().take(MAX_ERRORS);
    let mut lines: Vec<String> = shown.map(ToString::to_string).collect();
    if found.len() > MAX_ERRORS {
        lines.push(format!(
            "and {} more; `trireme checkconfig` shows all, with their lines",
            found.len() - MAX_ERRORS
        ));
    }
    coded(CONFIG, lines.join("\n"))
}

/// Which of the jobs of one name is meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// Of this repository, where several have a job of the name.
    #[arg(long, value_name = "ORG/REPO")]
    pub repo: Option<String>,
    /// presubmit, postsubmit or periodic, where jobs of several types have the name.
    #[arg(long = "type", value_parser = job_type, value_name = "TYPE")]
    pub kind: Option<ProwJobType>,
}

fn job_type(word: &str) -> Result<ProwJobType, String> {
    match ProwJobType::from_word(word) {
        Some(kind @ (ProwJobType::Presubmit | ProwJobType::Postsubmit | ProwJobType::Periodic)) => {
            Ok(kind)
        }
        _ => Err("one of presubmit, postsubmit, periodic".to_owned()),
    }
}

/// A job, and the repository under which it stands; none for periodics.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    pub repo: Option<&'a str>,
    pub job: AnyJob<'a>,
}

impl Found<'_> {
    /// For people: `presubmit of org/repo (jobs/a.yaml:3)`.
    #[must_use]
    pub fn told(&self) -> String {
        let source = &self.job.base().source;
        let of = self
            .repo
            .map(|repo| format!(" of {repo}"))
            .unwrap_or_default();
        format!(
            "{}{of} ({}:{})",
            self.job.job_type(),
            source.file,
            source.line
        )
    }
}

/// The jobs of a name: presubmits before postsubmits before periodics (ADM-183). `own` are the jobs that
/// stand in a repository itself; they come after those that the configuration has for it (CFG-081).
///
/// # Errors
/// When there is none; names that are close are then suggested.
pub fn find<'a>(
    config: &'a Config,
    own: Option<(&'a str, &'a InRepoJobs)>,
    name: &str,
    which: &Which,
) -> anyhow::Result<Vec<Found<'a>>> {
    let mut all: Vec<Found<'a>> = config
        .all_jobs()
        .map(|(repo, job)| Found { repo, job })
        .collect();
    if let Some((repo, jobs)) = own {
        for job in &jobs.presubmits {
            all.push(Found {
                repo: Some(repo),
                job: AnyJob::Presubmit(job),
            });
        }
        for job in &jobs.postsubmits {
            all.push(Found {
                repo: Some(repo),
                job: AnyJob::Postsubmit(job),
            });
        }
    }
    let meant = |found: &Found<'_>| {
        which
            .repo
            .as_deref()
            .is_none_or(|repo| found.repo == Some(repo))
            && which.kind.is_none_or(|kind| found.job.job_type() == kind)
    };
    let mut found: Vec<Found<'a>> = all
        .iter()
        .filter(|found| found.job.base().name == name && meant(found))
        .copied()
        .collect();
    found.sort_by_key(|found| found.job.job_type());
    if found.is_empty() {
        let mut message = format!("Job {name} not found.");
        let mut elsewhere: Vec<String> = all
            .iter()
            .filter(|found| found.job.base().name == name)
            .map(Found::told)
            .collect();
        let count = elsewhere.len();
        if count > MAX_NEAR_NAMES {
            elsewhere.truncate(MAX_NEAR_NAMES);
            elsewhere.push(format!("and {} more", count - MAX_NEAR_NAMES));
        }
        if elsewhere.is_empty() {
            let names = all.iter().map(|found| found.job.base().name.as_str());
            let near = near(name, names, MAX_NEAR_NAMES);
            if !near.is_empty() {
                message += &format!(" Did you mean {}?", near.join(", "));
            }
        } else {
            let are = if count == 1 {
                "There is one"
            } else {
                "There are others"
            };
            message += &format!(" {are} of that name: {}.", elsewhere.join(", "));
        }
        return Err(coded(NOT_FOUND, message));
    }
    Ok(found)
}

/// The one job that is meant; `flags` say which.
///
/// # Errors
/// When several are; they are then listed.
pub fn only<'a>(found: &[Found<'a>], name: &str, flags: &str) -> anyhow::Result<Found<'a>> {
    match found {
        [only] => Ok(*only),
        several => {
            let told: Vec<String> = several
                .iter()
                .map(|found| format!("  {}", found.told()))
                .collect();
            Err(coded(
                USAGE,
                format!(
                    "{} jobs are called {name}; say which with {flags}:\n{}",
                    several.len(),
                    told.join("\n")
                ),
            ))
        }
    }
}

/// The jobs that stand in a checkout of a repository on this disk (CFG-078).
///
/// # Errors
/// When its files cannot be read or its jobs are refused.
pub fn in_checkout(config: &Config, repo: &str, checkout: &Path) -> anyhow::Result<InRepoJobs> {
    let files = own_files::read(checkout).map_err(|found| refused(&[found]))?;
    if files.files.is_empty() && !files.has_dir {
        return Err(coded(
            NOT_FOUND,
            format!(
                "{}: neither .prow.yaml nor .prow/ is there",
                checkout.display()
            ),
        ));
    }
    let mut found = Vec::new();
    let own = ProwYaml::read(&files, &mut found);
    if found.iter().any(Diagnostic::is_error) {
        return Err(refused(&found));
    }
    config
        .in_repo_jobs(own, repo)
        .map_err(|found| refused(&found))
}
