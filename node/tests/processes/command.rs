//! The command line: what a command printed and how it ended.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::process::{Child, Command};
use trireme_harness::Executable;

/// No command here takes longer, the check of a large configuration in a debug build included.
const BOUND: Duration = Duration::from_secs(120);

/// What a command left.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    /// Fails the test unless the command did what it was asked.
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

pub(crate) fn executable() -> Executable {
    Executable::new(env!("CARGO_BIN_EXE_trireme"))
}

/// Starts it; whoever asks reads its output.
pub(crate) fn start(server: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_trireme"))
        .args(arguments)
        .env("TRIREME_SERVER", server)
        .env_remove("TRIREME_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// How a started command ends.
pub(crate) async fn end(child: Child) -> Answer {
    let output = tokio::time::timeout(BOUND, child.wait_with_output())
        .await
        .expect("the command ends in time")
        .unwrap();
    Answer {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command to its end.
pub(crate) async fn run(server: &str, arguments: &[&str]) -> Answer {
    end(start(server, arguments)).await
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
