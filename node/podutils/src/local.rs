//! One job as plain processes on this host: the pod utilities around the first container's command, without containers.
//!
//! The utilities run as child processes of the given program, with the options a pod would carry. What a pod gives and
//! a host does not (images, volumes, resources, users) is not here: [`LocalRun::check`] refuses jobs that depend on it,
//! as far as their pod spec says so. The image itself is ignored.

mod leftovers;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use trireme_prowjob::job_spec::JOB_SPEC_ENV;
use trireme_prowjob::{GcsConfiguration, JobSpec, ProwJob, ProwJobState, go_json};

pub use leftovers::kill_leftovers;

use crate::clonerefs::CloneRefsOptions;
use crate::command_line::Utility;
use crate::decorate::{self, Container, DecorateError, Layout, PodParts};
use crate::entrypoint::EntrypointOptions;
use crate::initupload::InitUploadOptions;
use crate::sidecar::{READY, SAY_READY_ENV, SidecarOptions};
use crate::storage::{Storage, StorageError};
use crate::{go_process, initupload, marker};
use leftovers::Leftovers;

/// How long a cancelled job may take to end when its decoration does not say (Kubernetes' default).
const DEFAULT_TERMINATION_GRACE: Duration = Duration::from_secs(30);
/// After SIGKILL.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Bytes of log handed over at once.
const LOG_CHUNK: usize = 64 * 1024;
/// Exit code of a process that was killed.
const KILLED_CODE: i64 = 137;
/// What the utilities say about themselves, in the run's log directory.
const UTILITIES_LOG: &str = "utilities.log";

/// The program that holds the utilities: `executable prefix_args... <utility>` runs one.
#[derive(Debug, Clone)]
pub struct UtilityProgram {
    /// Path of the program.
    pub executable: PathBuf,
    /// Arguments before the utility's name, e.g. a hidden subcommand.
    pub prefix_args: Vec<OsString>,
}

/// Everything needed to run a job here.
#[derive(Debug, Clone)]
pub struct LocalRun {
    /// The job; its build id must be set.
    pub job: ProwJob,
    /// This run's own directory; made if missing. It is not removed.
    pub dir: PathBuf,
    /// Bucket or directory to store files in instead of the configured bucket.
    pub storage: Option<String>,
    /// The pod utilities.
    pub utilities: UtilityProgram,
    /// Variables of the host that the job sees, usually `PATH`. `HOME` and `TMPDIR` are the run's own unless given.
    pub host_env: BTreeMap<String, String>,
    /// The run is aborted when it takes longer. The job's own `pod_running_timeout` comes first.
    pub running_timeout: Option<Duration>,
}

/// How a run ended, in the words of a ProwJob's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Always a final state.
    pub state: ProwJobState,
    /// For people.
    pub description: String,
}

impl Outcome {
    fn new(state: ProwJobState, description: impl Into<String>) -> Self {
        Self {
            state,
            description: description.into(),
        }
    }

    fn succeeded() -> Self {
        Self::new(ProwJobState::Success, "Job succeeded.")
    }

    fn failed() -> Self {
        Self::new(ProwJobState::Failure, "Job failed.")
    }

    fn not_started(error: impl std::fmt::Display) -> Self {
        Self::new(
            ProwJobState::Error,
            format!("Pod can not be created: {error}"),
        )
    }
}

/// Why a job cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Without it there is no place for files.
    #[error("prowjob {0:?} has no build id")]
    NoBuildId(String),
    /// Decoration failed.
    #[error(transparent)]
    Decorate(#[from] DecorateError),
    /// There must be exactly one container.
    #[error("pod_spec.containers: {0} containers, but a plain process stands for exactly one")]
    Containers(usize),
    /// Nothing to run.
    #[error(
        "pod_spec.containers[0]: neither command nor args, and there is no image whose entrypoint would do"
    )]
    NoCommand,
    /// The pod spec asks for what only a container can give.
    #[error("pod_spec.{0} cannot be honoured by a plain process")]
    Unsupported(String),
    /// Storage is not usable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The run's directory is not usable.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A utility could not be started.
    #[error("{utility}: {why}")]
    Start {
        /// Which.
        utility: &'static str,
        /// What the system said.
        why: String,
    },
    /// Options could not be written as JSON.
    #[error("encode options: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Why a run is stopped from outside.
enum Stop {
    Cancelled(String),
    TimedOut,
}

impl Stop {
    fn outcome(self) -> Outcome {
        match self {
            Self::Cancelled(reason) => Outcome::new(ProwJobState::Aborted, reason),
            Self::TimedOut => Outcome::new(ProwJobState::Aborted, "Pod running timeout."),
        }
    }
}

impl LocalRun {
    /// # Errors
    /// The first thing in the pod spec that a plain process cannot honour (XPL-031).
    pub fn check(job: &ProwJob) -> Result<(), LocalError> {
        let pod = PodParts::of(job)?;
        let [container] = pod.containers.as_slice() else {
            return Err(LocalError::Containers(pod.containers.len()));
        };
        if container.command.is_empty() && container.args.is_empty() {
            return Err(LocalError::NoCommand);
        }
        let unsupported = |what: String| Err(LocalError::Unsupported(what));
        if let Some(init) = pod.init_containers.first() {
            return unsupported(format!("initContainers ({})", init.name));
        }
        if !container.env_from.is_empty() {
            return unsupported("containers[0].envFrom".to_owned());
        }
        if let Some(var) = container.env.iter().find(|v| v.value_from.is_some()) {
            return unsupported(format!("containers[0].env[{}].valueFrom", var.name));
        }
        if let Some(mount) = container.volume_mounts.first() {
            return unsupported(format!("containers[0].volumeMounts ({})", mount.name));
        }
        Ok(())
    }

    /// The log of the test process; it grows while that runs.
    pub fn build_log(&self) -> PathBuf {
        self.logs().join("process-log.txt")
    }

    fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Runs the job to its end. `on_log` gets the build log as it comes. When `cancel` resolves, the job is told to
    /// end and, after its grace period, killed; the text is the outcome's description. Dropping the future kills
    /// everything at once.
    pub async fn run(
        &self,
        cancel: impl Future<Output = String>,
        on_log: impl FnMut(&[u8]),
    ) -> Outcome {
        self.run_observed(cancel, || {}, on_log).await
    }

    /// [`Self::run`], and `on_start` when the run's first process was spawned.
    pub async fn run_observed(
        &self,
        cancel: impl Future<Output = String>,
        on_start: impl FnOnce(),
        mut on_log: impl FnMut(&[u8]),
    ) -> Outcome {
        let mut on_start = Some(on_start);
        let mut started = || {
            if let Some(on_start) = on_start.take() {
                on_start();
            }
        };
        let prepared = match self.prepare() {
            Ok(prepared) => prepared,
            Err(error) => return Outcome::not_started(error),
        };
        let leftovers = Leftovers::of(&self.dir);
        let limit = self.time_limit();
        let stop = async {
            tokio::select! {
                reason = cancel => Stop::Cancelled(reason),
                () = tokio::time::sleep(limit.unwrap_or_default()), if limit.is_some() => Stop::TimedOut,
            }
        };
        tokio::pin!(stop);
        let ended = self
            .steps(&prepared, &leftovers, stop, &mut started, &mut on_log)
            .await;
        ended.unwrap_or_else(Outcome::not_started)
    }

    fn time_limit(&self) -> Option<Duration> {
        let decoration = self.job.spec.decoration_config.as_ref();
        decoration
            .and_then(|d| d.pod_running_timeout)
            .map(|d| d.get().to_std())
            .or(self.running_timeout)
    }

    fn termination_grace(&self) -> Duration {
        let decoration = self.job.spec.decoration_config.as_ref();
        let seconds = decoration.and_then(decorate::termination_grace_seconds);
        seconds
            .and_then(|s| u64::try_from(s).ok())
            .map_or(DEFAULT_TERMINATION_GRACE, Duration::from_secs)
    }

    fn prepare(&self) -> Result<Prepared, LocalError> {
        if self.job.status.build_id.is_empty() {
            return Err(LocalError::NoBuildId(self.job.metadata.name.clone()));
        }
        Self::check(&self.job)?;
        let dir = |name: &str| {
            let path = self.dir.join(name);
            let made = fs::create_dir_all(&path).and_then(|()| fs::canonicalize(&path));
            made.map_err(|source| LocalError::Directory { path, source })
        };
        let (logs, code, work, home, tmp) = (
            dir("logs")?,
            dir("code")?,
            dir("work")?,
            dir("home")?,
            dir("tmp")?,
        );

        let mut host_env = self.host_env.clone();
        for (name, path) in [("HOME", home), ("TMPDIR", tmp)] {
            host_env
                .entry(name.to_owned())
                .or_insert_with(|| path.display().to_string());
        }
        // Nobody is there to type a password.
        host_env
            .entry("GIT_TERMINAL_PROMPT".to_owned())
            .or_insert_with(|| "0".to_owned());
        let (cookie_name, cookie) = leftovers::cookie(&self.dir);
        host_env.insert(cookie_name.to_owned(), cookie);

        let layout = Layout {
            logs: logs.display().to_string(),
            code: code.display().to_string(),
            output: None,
        };
        let container = PodParts::of(&self.job)?
            .containers
            .into_iter()
            .next()
            .ok_or(LocalError::NoCommand)?;
        let start_dir = if container.working_dir.is_empty() {
            work
        } else {
            PathBuf::from(&container.working_dir)
        };
        let Some(options) = decorate::utility_options(&self.job, &layout)? else {
            return self.prepare_undecorated(&layout, container, host_env, start_dir);
        };

        let (mut initupload, mut sidecar) = (options.initupload, options.sidecar);
        for upload in [&mut initupload.upload, &mut sidecar.gcs_options] {
            self.redirect(&mut upload.gcs);
            if upload.gcs.local_output_dir.is_empty() {
                // Better refused now than found out when there is a result to store.
                Storage::open(&upload.gcs.bucket)?;
            }
        }
        let entrypoint = options
            .entrypoints
            .into_iter()
            .next()
            .ok_or(LocalError::NoCommand)?;
        let test_env = variables::of_container(&container, &options.env);
        Ok(Prepared {
            job_spec: options.env.get(JOB_SPEC_ENV).cloned().unwrap_or_default(),
            clonerefs: options.clonerefs,
            upload: Some((initupload, sidecar)),
            entrypoint: with_expanded_args(entrypoint, &test_env),
            test_env,
            host_env,
            start_dir: options.work_dir.map_or(start_dir, PathBuf::from),
            clone_log: PathBuf::from(layout.clone_log()),
        })
    }

    /// Without decoration nothing is cloned or stored (POD-002); entrypoint still keeps log and exit code.
    fn prepare_undecorated(
        &self,
        layout: &Layout,
        container: Container,
        host_env: BTreeMap<String, String>,
        start_dir: PathBuf,
    ) -> Result<Prepared, LocalError> {
        let env = JobSpec::from(&self.job)
            .env(&self.job.spec.agent)
            .map_err(DecorateError::from)?;
        let test_env = variables::of_container(&container, &env);
        let entrypoint = EntrypointOptions {
            timeout: i64::MAX,
            wrapper: layout.wrapper(&container, true),
            ..Default::default()
        };
        Ok(Prepared {
            job_spec: String::new(),
            clonerefs: None,
            upload: None,
            entrypoint: with_expanded_args(entrypoint, &test_env),
            test_env,
            host_env,
            start_dir,
            clone_log: PathBuf::from(layout.clone_log()),
        })
    }

    fn redirect(&self, gcs: &mut GcsConfiguration) {
        if let Some(storage) = &self.storage {
            gcs.bucket.clone_from(storage);
            gcs.local_output_dir.clear();
        }
        if gcs.path_strategy.is_empty() {
            "explicit".clone_into(&mut gcs.path_strategy);
        }
    }

    async fn steps(
        &self,
        prepared: &Prepared,
        leftovers: &Leftovers,
        mut stop: impl Future<Output = Stop> + Unpin,
        started: &mut impl FnMut(),
        on_log: &mut impl FnMut(&[u8]),
    ) -> Result<Outcome, LocalError> {
        if let Some(options) = &prepared.clonerefs {
            let child = self.spawn(prepared, Utility::CloneRefs, options, Stdio::null())?;
            started();
            match self.wait_or_stop(child, &mut stop).await {
                Ok(status) if status.success() => {}
                Ok(_) => return Ok(Outcome::failed()),
                Err(stop) => return Ok(stop.outcome()),
            }
        }
        if let Some((options, _)) = &prepared.upload {
            let child = self.spawn(prepared, Utility::InitUpload, options, Stdio::null())?;
            started();
            match self.wait_or_stop(child, &mut stop).await {
                Ok(status) if status.success() => {}
                Ok(_) => {
                    // The build log of a run whose code could not be cloned is its clone log, here as in storage.
                    on_log(initupload::rendered_clone_log(&prepared.clone_log).as_bytes());
                    return Ok(Outcome::failed());
                }
                Err(stop) => return Ok(stop.outcome()),
            }
        }
        let sidecar = match &prepared.upload {
            Some((_, options)) => {
                Some(self.spawn(prepared, Utility::Sidecar, options, Stdio::piped())?)
            }
            None => None,
        };
        let test = self.spawn(
            prepared,
            Utility::Entrypoint,
            &prepared.entrypoint,
            Stdio::piped(),
        )?;
        started();
        Ok(self
            .follow_test(prepared, test, sidecar, leftovers, stop, on_log)
            .await)
    }

    /// Entrypoint and sidecar side by side, as in a pod.
    async fn follow_test(
        &self,
        prepared: &Prepared,
        mut test: Child,
        mut sidecar: Option<Child>,
        leftovers: &Leftovers,
        stop: impl Future<Output = Stop> + Unpin,
        on_log: &mut impl FnMut(&[u8]),
    ) -> Outcome {
        let groups = [group_of(&test), sidecar.as_ref().and_then(group_of)];
        let readiness = sidecar.as_mut().and_then(|sidecar| sidecar.stdout.take());
        let ended = async {
            if let Some(output) = test.stdout.take() {
                follow(output, on_log).await;
            }
            let status = test.wait().await;
            let marker_file = Path::new(&prepared.entrypoint.wrapper.marker_file);
            let code = marker::read(marker_file);
            if code.is_none() && sidecar.is_some() {
                // Only when entrypoint itself was killed. The sidecar waits for its marker and must not wait for ever.
                if let Err(error) = marker::write(marker_file, KILLED_CODE) {
                    tracing::warn!(file = %marker_file.display(), %error, "cannot mark a killed entrypoint");
                    signal(&groups[1..], Signal::TERM);
                }
            }
            let stored = match &mut sidecar {
                Some(sidecar) => Some(sidecar.wait().await),
                None => None,
            };
            verdict(status, code, stored)
        };
        tokio::pin!(ended);
        let stopped = tokio::select! {
            outcome = &mut ended => return outcome,
            stopped = stop => stopped,
        };
        signal(&groups[..1], Signal::TERM);
        // A sidecar that has only just been started would die of it and store nothing.
        let ending = async {
            tokio::select! {
                _ = &mut ended => return,
                () = ready(readiness) => signal(&groups[1..], Signal::TERM),
            }
            ended.as_mut().await;
        };
        if timeout(self.termination_grace(), ending).await.is_err() {
            signal(&groups, Signal::KILL);
            leftovers.kill();
            let _ = timeout(AFTER_KILL, ended).await;
        }
        stopped.outcome()
    }

    async fn wait_or_stop(
        &self,
        mut child: Child,
        stop: &mut (impl Future<Output = Stop> + Unpin),
    ) -> Result<ExitStatus, Stop> {
        let group = [group_of(&child)];
        let stopped = tokio::select! {
            // A child that cannot be waited for counts as one that failed.
            status = child.wait() => return Ok(status.unwrap_or_else(|_| ExitStatus::from_raw(1))),
            stopped = stop => stopped,
        };
        signal(&group, Signal::TERM);
        if timeout(self.termination_grace(), child.wait())
            .await
            .is_err()
        {
            signal(&group, Signal::KILL);
            let _ = timeout(AFTER_KILL, child.wait()).await;
        }
        Err(stopped)
    }

    fn spawn<T: Serialize>(
        &self,
        prepared: &Prepared,
        utility: Utility,
        options: &T,
        stdout: Stdio,
    ) -> Result<Child, LocalError> {
        let mut command = Command::new(&self.utilities.executable);
        command
            .args(&self.utilities.prefix_args)
            .arg(utility.name());
        command.env_clear().envs(&prepared.host_env);
        match utility {
            Utility::Entrypoint => {
                command
                    .envs(&prepared.test_env)
                    .current_dir(&prepared.start_dir)
                    .stdout(stdout);
            }
            _ => {
                command
                    .env(JOB_SPEC_ENV, &prepared.job_spec)
                    .env(SAY_READY_ENV, "1")
                    .current_dir(&self.dir)
                    .stdout(stdout);
            }
        }
        command.env(utility.options_env(), go_json::to_string(options)?);
        let start = |why: &io::Error| LocalError::Start {
            utility: utility.name(),
            why: go_process::start_error(&self.utilities.executable.display().to_string(), why),
        };
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.logs().join(UTILITIES_LOG));
        command
            .stdin(Stdio::null())
            .stderr(log.map_err(|e| start(&e))?);
        command
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| start(&e))
    }
}

/// A run that may start.
struct Prepared {
    job_spec: String,
    clonerefs: Option<CloneRefsOptions>,
    upload: Option<(InitUploadOptions, SidecarOptions)>,
    entrypoint: EntrypointOptions,
    test_env: BTreeMap<String, String>,
    host_env: BTreeMap<String, String>,
    start_dir: PathBuf,
    clone_log: PathBuf,
}

fn with_expanded_args(
    mut entrypoint: EntrypointOptions,
    env: &BTreeMap<String, String>,
) -> EntrypointOptions {
    for arg in &mut entrypoint.wrapper.args {
        *arg = variables::expand(arg, env);
    }
    entrypoint
}

fn verdict(
    status: io::Result<ExitStatus>,
    code: Option<marker::Marker>,
    stored: Option<io::Result<ExitStatus>>,
) -> Outcome {
    let stored = stored.is_none_or(|status| status.is_ok_and(|s| s.success()));
    match code {
        Some(Ok(0)) if stored => Outcome::succeeded(),
        Some(_) => Outcome::failed(),
        None => {
            let how = status.map_or_else(|e| e.to_string(), go_process::exit_text);
            Outcome::new(
                ProwJobState::Error,
                format!("entrypoint ended without leaving an exit code ({how})"),
            )
        }
    }
}

async fn follow(mut output: ChildStdout, on_log: &mut impl FnMut(&[u8])) {
    let mut buffer = vec![0; LOG_CHUNK];
    // An error ends the log as the end of the stream does; the process itself is waited for elsewhere.
    while let Ok(n @ 1..) = output.read(&mut buffer).await {
        on_log(&buffer[..n]);
    }
}

/// Waits until the sidecar heeds signals, or has ended.
async fn ready(output: Option<ChildStdout>) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output).lines();
    // An error ends the output as its end does.
    while let Ok(Some(line)) = lines.next_line().await {
        if line == READY {
            return;
        }
    }
}

fn group_of(child: &Child) -> Option<Pid> {
    child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
}

/// A group that is gone already needs no signal.
fn signal(groups: &[Option<Pid>], signal: Signal) {
    for group in groups.iter().flatten() {
        let _ = kill_process_group(*group, signal);
    }
}
