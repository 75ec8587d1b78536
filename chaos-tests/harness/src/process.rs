//! One child process.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use tokio::process::{Child, Command};

/// The program under test and what comes before its verbs.
#[derive(Debug, Clone, Default)]
pub struct Executable {
    pub program: PathBuf,
    pub prefix: Vec<String>,
    /// Added to the environment.
    pub variables: Vec<(String, String)>,
}

impl Executable {
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            ..Self::default()
        }
    }
}

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

impl Process {
    /// Output is appended to `log`. The child dies with this process (`--exit-with-parent`), even if that is killed.
    pub(crate) fn spawn(
        executable: &Executable,
        arguments: &[String],
        log: &Path,
    ) -> io::Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(&executable.program)
            .args(&executable.prefix)
            .args(arguments)
            .envs(executable.variables.iter().map(|(key, value)| (key, value)))
            .arg("--exit-with-parent")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the process ended before it was looked at"))?;
        Ok(Self { child, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGKILL, and waits for the end.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        // Already gone is as good.
        let _gone = self.child.start_kill();
        self.child.wait().await
    }

    /// SIGTERM; whoever asks waits with [`Self::wait`].
    pub(crate) fn terminate(&self) -> io::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .ok_or_else(|| io::Error::other("not a process id"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}
