//! `entrypoint`: runs the test process, bounds its time, passes signals on and writes down how it ended.
//!
//! Differs from Prow's on purpose: the process gets its own process group, which is signalled as a whole and of which
//! nothing is left behind; output of processes that outlive it is awaited for one grace period, not until the timeout;
//! death by a signal is code 128 + signal (POD-065).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;
use trireme_prowjob::GoDuration;
use trireme_prowjob::go_json::null_as_zero;

use crate::go_flags::{self, FlagError, Kind};
use crate::go_process;
use crate::marker;
use crate::utility_log::UtilityLog;
use crate::wrapper::WrapperOptions;

/// Variable that holds the options as JSON.
pub const OPTIONS_ENV: &str = "ENTRYPOINT_OPTIONS";
/// Marker of a process that could not be run, or ran into its timeout.
pub const INTERNAL_ERROR_CODE: i64 = 127;
/// Marker of a process that was interrupted.
pub const ABORTED_ERROR_CODE: i64 = 130;
/// Marker of a process that was not run because an earlier one had failed.
pub const PREVIOUS_ERROR_CODE: i64 = 1130;

const DEFAULT_TIMEOUT: GoDuration = GoDuration::from_secs(2 * 60 * 60);
const DEFAULT_GRACE_PERIOD: GoDuration = GoDuration::from_secs(15);
const DEFAULT_COPY_DESTINATION: &str = "/tools/entrypoint";
/// After everything is killed: how long its last output and its end are awaited.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Options of the program (POD-060).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EntrypointOptions {
    /// Nanoseconds until SIGINT; 0 = 2h.
    #[serde(deserialize_with = "null_as_zero")]
    pub timeout: i64,
    /// Nanoseconds from SIGINT to SIGKILL; 0 = 15s.
    #[serde(deserialize_with = "null_as_zero")]
    pub grace_period: i64,
    /// Made before the process starts.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub artifact_dir: String,
    /// Awaited first; the process runs only if it holds 0.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub previous_marker: String,
    /// Exit 0 whatever the marker says.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_zero")]
    pub always_zero: bool,
    /// After timeout or interrupt use the process's own code.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_zero")]
    pub propagate_error_code: bool,
    /// Only copy this program.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "null_as_zero")]
    pub copy_mode_only: bool,
    /// To here.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub copy_dst: String,
    /// The process and its files.
    #[serde(flatten)]
    pub wrapper: WrapperOptions,
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// How a process ended.
struct Ended {
    code: i64,
    error: Option<String>,
}

impl Ended {
    fn internal(error: String) -> Self {
        Self {
            code: INTERNAL_ERROR_CODE,
            error: Some(error),
        }
    }
}

impl EntrypointOptions {
    /// # Errors
    /// The first thing that is missing or contradicts another (POD-066).
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.wrapper.args.is_empty() {
            return Err("no process to wrap specified");
        }
        if self.propagate_error_code && self.always_zero {
            return Err("cannot propagate error code and always exit zero");
        }
        self.wrapper.validate()
    }

    /// From flags, as the program takes them when [`OPTIONS_ENV`] is not set.
    pub(crate) fn from_flags(args: &[String]) -> Result<Self, FlagError> {
        let (flags, rest) = go_flags::parse(args, |name| match name {
            "copy-mode-only" | "propagate-error-code" => Some(Kind::Bool),
            "timeout" | "grace-period" | "artifact-dir" | "copy-destination" | "process-log"
            | "marker-file" | "metadata-file" => Some(Kind::Value),
            _ => None,
        })?;
        let mut options = Self {
            timeout: DEFAULT_TIMEOUT.as_nanos(),
            grace_period: DEFAULT_GRACE_PERIOD.as_nanos(),
            copy_dst: DEFAULT_COPY_DESTINATION.to_owned(),
            ..Self::default()
        };
        options.wrapper.args = rest;
        for (name, value) in flags {
            let duration = || {
                value
                    .parse::<GoDuration>()
                    .map(GoDuration::as_nanos)
                    .map_err(|e| go_flags::invalid(&name, &value, e))
            };
            match name.as_str() {
                "timeout" => options.timeout = duration()?,
                "grace-period" => options.grace_period = duration()?,
                "copy-mode-only" => options.copy_mode_only = go_flags::parse_bool(&name, &value)?,
                "propagate-error-code" => {
                    options.propagate_error_code = go_flags::parse_bool(&name, &value)?
                }
                "artifact-dir" => options.artifact_dir = value,
                "copy-destination" => options.copy_dst = value,
                "process-log" => options.wrapper.process_log = value,
                "marker-file" => options.wrapper.marker_file = value,
                _ => options.wrapper.metadata_file = value,
            }
        }
        Ok(options)
    }

    /// Copies this program to where the test containers find it (POD-064).
    ///
    /// # Errors
    /// When it cannot be written there.
    pub fn copy_program(&self) -> io::Result<()> {
        let to = Path::new(if self.copy_dst.is_empty() {
            DEFAULT_COPY_DESTINATION
        } else {
            &self.copy_dst
        });
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::copy(std::env::current_exe()?, to).map(|_| ())
    }

    /// Runs the process to its end and writes the marker. Returns the exit code for this program.
    pub async fn run(&self) -> i64 {
        let log = UtilityLog::new("entrypoint", vec![Box::new(io::stdout())]);
        let ended = self.execute(&log).await;
        log.redirect(vec![Box::new(io::stdout())]);
        if let Some(error) = ended.error {
            log.error("Error executing test process", &[("error", error.into())]);
        }
        if let Err(error) = marker::write(Path::new(&self.wrapper.marker_file), ended.code) {
            log.error(
                "Error writing exit code to marker file",
                &[("error", error.to_string().into())],
            );
            return INTERNAL_ERROR_CODE;
        }
        if self.always_zero { 0 } else { ended.code }
    }

    async fn execute(&self, log: &UtilityLog) -> Ended {
        if !self.artifact_dir.is_empty()
            && let Err(error) = fs::create_dir_all(&self.artifact_dir)
        {
            let why = go_process::os_error(&error);
            return Ended::internal(format!(
                "could not create artifact directory({}): {why}",
                self.artifact_dir
            ));
        }
        let process_log = &self.wrapper.process_log;
        let opened = File::create(process_log)
            .and_then(|file| Ok((file.try_clone()?, file.try_clone()?, file)));
        let (mut for_output, mut for_errors, for_log) = match opened {
            Ok(files) => files,
            Err(error) => {
                let why = go_process::os_error(&error);
                return Ended::internal(format!(
                    "could not create process logfile({process_log}): {why}"
                ));
            }
        };
        log.redirect(vec![Box::new(io::stdout()), Box::new(for_log)]);
        let mut interrupts = match Interrupts::install() {
            Ok(interrupts) => interrupts,
            Err(error) => return Ended::internal(format!("could not listen for signals: {error}")),
        };
        if !self.previous_marker.is_empty() {
            match self.previous(&mut interrupts, log).await {
                Ok(0) => {}
                Ok(code) => {
                    log.info(&format!("Skipping as previous step exited {code}"), &[]);
                    return Ended {
                        code: PREVIOUS_ERROR_CODE,
                        error: None,
                    };
                }
                Err(why) => {
                    return Ended::internal(format!(
                        "wait for previous marker {}: {why}",
                        self.previous_marker
                    ));
                }
            }
        }
        match self.start() {
            Ok((child, reader)) => {
                let output = copy_output(reader, move |bytes| for_output.write_all(bytes));
                self.follow(child, output, &mut interrupts, log).await
            }
            Err(why) => {
                let why = format!("could not start the process: {why}");
                let written = for_errors.write_all(why.as_bytes());
                let also = written
                    .err()
                    .map(|e| format!(", and could not say so in the log: {e}"))
                    .unwrap_or_default();
                Ended::internal(why + &also)
            }
        }
    }

    async fn previous(&self, interrupts: &mut Interrupts, log: &UtilityLog) -> marker::Marker {
        let paths = [self.previous_marker.clone()];
        tokio::select! {
            mut found = marker::wait_for(&paths) => {
                found.remove(&self.previous_marker).unwrap_or_else(|| Err("no marker".to_owned()))
            }
            stop = interrupts.next() => {
                log.error(&format!("Received interrupt {}, cancelling...", stop.name()), &[]);
                Err("cancelled: context canceled".to_owned())
            }
        }
    }

    fn start(&self) -> Result<(Child, io::PipeReader), String> {
        let args = &self.wrapper.args;
        let program = args.first().map(String::as_str).unwrap_or_default();
        let started = || -> io::Result<(Child, io::PipeReader)> {
            let (reader, writer) = io::pipe()?;
            let mut command = Command::new(program);
            command
                .args(args.iter().skip(1))
                .process_group(0)
                .stdin(Stdio::null());
            command.stdout(writer.try_clone()?).stderr(writer);
            Ok((command.spawn()?, reader))
        };
        started().map_err(|e| go_process::start_error(program, &e))
    }

    async fn follow(
        &self,
        mut child: Child,
        mut output: oneshot::Receiver<()>,
        interrupts: &mut Interrupts,
        log: &UtilityLog,
    ) -> Ended {
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let limit = or_default(self.timeout, DEFAULT_TIMEOUT);
        let grace = or_default(self.grace_period, DEFAULT_GRACE_PERIOD);

        let stop = tokio::select! {
            status = child.wait() => {
                // Processes that it left behind may still be writing.
                let ended = timeout(grace.to_std(), &mut output).await.is_ok();
                if !ended {
                    log.warn("Process left others behind that kept its output open", &[]);
                }
                kill_group(group, log);
                if !ended {
                    let _ = timeout(AFTER_KILL, output).await;
                }
                return finished(status);
            }
            () = tokio::time::sleep(limit.to_std()) => {
                log.error(&format!("Process did not finish before {limit} timeout"), &[]);
                None
            }
            stop = interrupts.next() => {
                log.error(&format!("Entrypoint received interrupt: {}", stop.name()), &[]);
                Some(stop)
            }
        };

        signal_group(group, Signal::INT, log);
        if let Some(stop) = stop {
            signal_group(group, stop.signal(), log);
        }
        let status = if let Ok(status) = timeout(grace.to_std(), child.wait()).await {
            log.error(
                &format!("Process gracefully exited before {grace} grace period"),
                &[],
            );
            kill_group(group, log);
            Some(status)
        } else {
            log.error(
                &format!("Process did not exit before {grace} grace period"),
                &[],
            );
            kill_group(group, log);
            timeout(AFTER_KILL, child.wait()).await.ok()
        };
        let _ = timeout(AFTER_KILL, output).await;

        let (code, error) = match stop {
            Some(_) => (ABORTED_ERROR_CODE, "process aborted"),
            None => (INTERNAL_ERROR_CODE, "process timed out"),
        };
        let own_code = status.and_then(Result::ok).map(exit_code);
        let code = if self.propagate_error_code {
            own_code.unwrap_or(code)
        } else {
            code
        };
        Ended {
            code,
            error: Some(error.to_owned()),
        }
    }
}

fn finished(status: io::Result<ExitStatus>) -> Ended {
    match status {
        Ok(status) if status.success() => Ended {
            code: 0,
            error: None,
        },
        Ok(status) => {
            let why = go_process::exit_text(status);
            Ended {
                code: exit_code(status),
                error: Some(format!("wrapped process failed: {why}")),
            }
        }
        Err(error) => Ended {
            code: 1,
            error: Some(format!("wrapped process failed: {error}")),
        },
    }
}

fn exit_code(status: ExitStatus) -> i64 {
    status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .map_or(1, i64::from)
}

fn or_default(nanos: i64, default: GoDuration) -> GoDuration {
    if nanos == 0 {
        default
    } else {
        GoDuration(nanos)
    }
}

fn signal_group(group: Option<Pid>, signal: Signal, log: &UtilityLog) {
    if let Some(group) = group
        && let Err(error) = kill_process_group(group, signal)
    {
        log.error(
            "Could not signal process",
            &[("error", error.to_string().into())],
        );
    }
}

/// What is left of the group; that nothing is left is the usual case.
fn kill_group(group: Option<Pid>, log: &UtilityLog) {
    if let Some(group) = group
        && let Err(error) = kill_process_group(group, Signal::KILL)
        && error != rustix::io::Errno::SRCH
    {
        log.error(
            "Could not kill process",
            &[("error", error.to_string().into())],
        );
    }
}

/// Copies the process's output to standard output and `also`, on a thread of its own because both may block. The
/// receiver resolves when the output has ended.
fn copy_output(
    mut reader: io::PipeReader,
    mut also: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
) -> oneshot::Receiver<()> {
    let (done, ended) = oneshot::channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        let mut stdout_open = true;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let bytes = &buffer[..n];
                    let mut stdout = io::stdout();
                    stdout_open = stdout_open
                        && stdout
                            .write_all(bytes)
                            .and_then(|()| stdout.flush())
                            .is_ok();
                    if also(bytes).is_err() && !stdout_open {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = done.send(());
    });
    ended
}

/// A request to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    Interrupt,
    Terminate,
}

impl Stop {
    /// Go's word for the signal.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminated",
        }
    }

    const fn signal(self) -> Signal {
        match self {
            Self::Interrupt => Signal::INT,
            Self::Terminate => Signal::TERM,
        }
    }
}

/// SIGINT and SIGTERM to this program; from installation on they no longer end it.
pub(crate) struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_060_066_options() {
        let options: EntrypointOptions = serde_json::from_str(
            r#"{"timeout":7200000000000,"grace_period":15000000000,"artifact_dir":"/logs/artifacts","args":["a"],"container_name":"test","process_log":"/p","marker_file":"/m","metadata_file":"/d","new_key":1}"#,
        )
        .unwrap();
        insta::assert_snapshot!(serde_json::to_string(&options).unwrap(), @r#"{"timeout":7200000000000,"grace_period":15000000000,"artifact_dir":"/logs/artifacts","args":["a"],"container_name":"test","process_log":"/p","marker_file":"/m","metadata_file":"/d"}"#);
        let refusal = |change: fn(&mut EntrypointOptions)| {
            let mut changed = options.clone();
            change(&mut changed);
            changed.validate().unwrap_err()
        };
        let refusals = [
            refusal(|o| o.wrapper.args.clear()),
            refusal(|o| o.wrapper.process_log.clear()),
            refusal(|o| o.wrapper.marker_file.clear()),
            refusal(|o| (o.always_zero, o.propagate_error_code) = (true, true)),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r"
        no process to wrap specified
        no log file specified with --process-log
        no marker file specified with --marker-file
        cannot propagate error code and always exit zero
        ");
    }

    #[test]
    fn flags() {
        let args = [
            "--timeout=1m",
            "-grace-period",
            "1s",
            "--process-log",
            "/p",
            "--marker-file=/m",
            "--",
            "sh",
            "-c",
            "x",
        ];
        let options = EntrypointOptions::from_flags(&args.map(str::to_owned)).unwrap();
        assert_eq!(
            (options.timeout, options.grace_period),
            (60_000_000_000, 1_000_000_000)
        );
        assert_eq!(options.wrapper.args, ["sh", "-c", "x"]);
        let copy = EntrypointOptions::from_flags(&["--copy-mode-only".to_owned()]).unwrap();
        assert_eq!(
            (copy.copy_mode_only, copy.copy_dst.as_str()),
            (true, "/tools/entrypoint")
        );
    }
}
