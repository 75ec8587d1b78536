//! One agent process.

use std::{io, path::PathBuf};

use crate::process::{Executable, Process};

/// What an agent is told.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    pub name: String,
    /// Addresses of the nodes' doors.
    pub nodes: Vec<String>,
    pub capacity: u32,
    /// Its spool and the jobs' working directories.
    pub directory: PathBuf,
}

/// Killed when dropped.
#[derive(Debug)]
pub struct AgentProcess {
    executable: Executable,
    settings: AgentSettings,
    process: Process,
}

impl AgentProcess {
    /// # Errors
    /// When the executable does not start.
    pub fn start(executable: &Executable, settings: AgentSettings) -> io::Result<Self> {
        std::fs::create_dir_all(&settings.directory)?;
        let process = spawn(executable, &settings)?;
        Ok(Self {
            executable: executable.clone(),
            settings,
            process,
        })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    /// Runs this build from the next start on.
    pub fn install(&mut self, executable: &Executable) {
        self.executable = executable.clone();
    }

    /// Starts it again with the same directory.
    ///
    /// # Errors
    /// When the executable does not start.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.process.kill().await?;
        self.process = spawn(&self.executable, &self.settings)?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn stop(&mut self) -> io::Result<()> {
        if self.process.exited().is_none() {
            self.process.terminate()?;
        }
        self.process.wait().await?;
        Ok(())
    }
}

fn spawn(executable: &Executable, settings: &AgentSettings) -> io::Result<Process> {
    let arguments = [
        "agent".to_owned(),
        "--server".to_owned(),
        settings.nodes.join(","),
        "--name".to_owned(),
        settings.name.clone(),
        "--capacity".to_owned(),
        settings.capacity.to_string(),
        "--directory".to_owned(),
        settings.directory.display().to_string(),
    ];
    let log = settings.directory.join("agent.log");
    Process::spawn(executable, &arguments, &log)
}
