//! Real git: bare repositories on disk, moved and read by the `git` program. What a commit *means* for pull requests
//! is decided elsewhere.

mod diffs;
mod merge;
mod read;
mod write;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

use diffs::Diffs;
pub(crate) use merge::{MergeWords, Outcome};
pub(crate) use read::{ChangedFile, Entry};
pub(crate) use write::Edit;

/// Commits listed in one push event, as GitHub cuts it.
pub(crate) const MAX_PUSHED_COMMITS: usize = 20;
/// Git processes at once, so that a burst of merges does not starve the machine.
const MAX_PROCESSES: usize = 8;
/// After this a git process is taken for hung and killed.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(60);

/// The id that stands for "no commit" in push events and ref updates.
pub(crate) const ZERO: &str = "0000000000000000000000000000000000000000";

/// Git failed, or could not be started.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program did not start or its pipes broke: is `git` 2.38 or newer on PATH?
    #[error("cannot run git {command} (is git 2.38 or newer on PATH?): {source}")]
    Start {
        command: String,
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("git {command} in {dir} ended with {status}: {stderr}")]
    Failed {
        command: String,
        dir: PathBuf,
        status: String,
        stderr: String,
    },
    /// It printed what cannot be read.
    #[error("git {command} answered something unexpected: {answer:?}")]
    Unexpected { command: String, answer: String },
    /// It ran longer than a minute.
    #[error("git {command} in {dir} did not end within a minute")]
    Hung { command: String, dir: PathBuf },
}

/// What a git process printed.
pub(crate) struct Output {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// The directory of all repositories.
#[derive(Debug, Clone)]
pub(crate) struct GitStore {
    root: PathBuf,
    processes: Arc<Semaphore>,
    diffs: Arc<Diffs>,
}

/// One bare repository.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    dir: PathBuf,
    home: PathBuf,
    processes: Arc<Semaphore>,
    diffs: Arc<Diffs>,
}

impl GitStore {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            processes: Arc::new(Semaphore::new(MAX_PROCESSES)),
            diffs: Arc::default(),
        }
    }

    /// The repository; whether it exists on disk is not looked at.
    pub(crate) fn repo(&self, owner: &str, name: &str) -> Git {
        let dir = self
            .root
            .join(owner.to_lowercase())
            .join(format!("{}.git", name.to_lowercase()));
        Git {
            dir,
            home: self.root.clone(),
            processes: self.processes.clone(),
            diffs: self.diffs.clone(),
        }
    }
}

impl Git {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A `git` that sees nothing of this machine's or user's configuration and runs in the repository.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
            .env("HOME", &self.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir(&self.dir)
            .kill_on_drop(true);
        command
    }

    /// Runs git to its end with `stdin`; any exit status is an answer.
    pub(crate) async fn output<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        env: &[(&str, String)],
        stdin: &[u8],
    ) -> Result<Output, GitError> {
        let name = args
            .first()
            .map(|a| a.as_ref().to_string_lossy().into_owned())
            .unwrap_or_default();
        let start = |source| GitError::Start {
            command: name.clone(),
            source,
        };
        let _permit = self
            .processes
            .acquire()
            .await
            .map_err(|e| start(std::io::Error::other(e)))?;
        let mut command = self.command();
        command.args(args).envs(env.iter().map(|(k, v)| (k, v)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(start)?;
        let pipe = child.stdin.take();
        let feed = async {
            if let Some(mut pipe) = pipe {
                // A process that has read enough closes its end; its exit status says whether that was an error.
                if let Err(error) = pipe.write_all(stdin).await
                    && error.kind() != std::io::ErrorKind::BrokenPipe
                {
                    return Err(error);
                }
            }
            Ok(())
        };
        let run = async { tokio::join!(feed, child.wait_with_output()) };
        let (fed, output) = tokio::time::timeout(PROCESS_TIMEOUT, run)
            .await
            .map_err(|_| GitError::Hung {
                command: name.clone(),
                dir: self.dir.clone(),
            })?;
        fed.map_err(start)?;
        let output = output.map_err(start)?;
        Ok(Output {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    /// Runs git and takes what it printed; a non-zero exit status is an error.
    pub(crate) async fn run<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        env: &[(&str, String)],
        stdin: &[u8],
    ) -> Result<Vec<u8>, GitError> {
        let output = self.output(args, env, stdin).await?;
        if output.status == 0 {
            return Ok(output.stdout);
        }
        Err(GitError::Failed {
            command: args
                .iter()
                .map(|a| a.as_ref().to_string_lossy())
                .collect::<Vec<_>>()
                .join(" "),
            dir: self.dir.clone(),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// As [`Git::run`], as trimmed text.
    pub(crate) async fn text<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String, GitError> {
        let stdout = self.run(args, &[], b"").await?;
        Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
    }
}
