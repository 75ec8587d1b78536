//! The git program as a child process: few at a time, polite to the rest of the machine, and gone with its descendants
//! when nobody waits for it any more.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::GitSecret;

/// Children at once; the rest wait.
const MAX_CHILDREN: usize = 4;

/// Yields to everything that is not as nice.
const NICE: i32 = 10;

/// Of what a child writes, this much is read; it is killed if it writes more.
const MAX_OUTPUT: u64 = 16 << 20;

/// Of its complaints, this much is kept.
const MAX_COMPLAINT: usize = 4096;

/// Prow's identity for merges nobody sees (TIDE-075).
const IDENTITY: &str = "prow";
const IDENTITY_EMAIL: &str = "prow@localhost";

/// What came of a child that ran to its end.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    /// The end of what it complained.
    pub(super) stderr: String,
}

impl Output {
    pub(super) fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The first word of what it printed: an object id.
    pub(super) fn id(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.stdout).ok()?;
        text.split_whitespace().next().map(str::to_owned)
    }
}

/// A child that never ended by itself.
#[derive(Debug)]
pub(super) enum Died {
    /// It could not even start.
    NoStart(String),
    TimedOut(Duration),
    /// It was cut off because it wrote too much, or its pipes broke.
    Output(String),
}

#[derive(Debug, Clone)]
pub(super) struct Git {
    children: Arc<Semaphore>,
}

impl Git {
    pub(super) fn new() -> Self {
        Self {
            children: Arc::new(Semaphore::new(MAX_CHILDREN)),
        }
    }

    /// Children that run, and how many may.
    pub(super) fn children(&self) -> (usize, usize) {
        let free = self.children.available_permits();
        (MAX_CHILDREN.saturating_sub(free), MAX_CHILDREN)
    }

    /// Runs `git <args>` in a directory. The clock starts once it is this child's turn. The user's own git
    /// configuration does not apply; environment variables (proxies, certificates) do.
    pub(super) async fn run(
        &self,
        dir: &Path,
        args: &[&str],
        secret: Option<&GitSecret>,
        within: Duration,
    ) -> Result<Output, Died> {
        let mut command = Command::new("git");
        command.args(args);
        environment(&mut command, dir, secret);
        let mut output = self.child(command, dir, &[], within).await?;
        output.stderr = censored(output.stderr, secret);
        Ok(output)
    }

    /// Has ssh-keygen sign bytes with a key, as git does (GHC-062). The key must not need a passphrase.
    pub(super) async fn sign(
        &self,
        dir: &Path,
        key: &Path,
        bytes: &[u8],
        within: Duration,
    ) -> Result<Output, Died> {
        let mut command = Command::new("ssh-keygen");
        command.args(["-Y", "sign", "-n", "git", "-f"]).arg(key);
        // It would ask whoever sits at the terminal or the screen.
        command
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env_remove("DISPLAY");
        self.child(command, dir, bytes, within).await
    }

    /// Runs a program that reads `input`, in its turn.
    async fn child(
        &self,
        mut command: Command,
        dir: &Path,
        input: &[u8],
        within: Duration,
    ) -> Result<Output, Died> {
        let _turn = self
            .children
            .acquire()
            .await
            .map_err(|error| Died::NoStart(error.to_string()))?;
        let program = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        command
            .current_dir(dir)
            .stdin(if input.is_empty() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| Died::NoStart(format!("cannot run {program}: {error}")))?;
        // Dropped before `child`, so that the group is killed while its leader is still unreaped and owns its number.
        let group = Group::of(child.id());
        let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take())
        else {
            return Err(Died::NoStart(format!("{program} has no pipes")));
        };
        let stdin = child.stdin.take();
        let work = async {
            let mut out = Vec::new();
            let read_out = async {
                (&mut stdout)
                    .take(MAX_OUTPUT + 1)
                    .read_to_end(&mut out)
                    .await
                    .map_err(|error| Died::Output(error.to_string()))?;
                if out.len() as u64 > MAX_OUTPUT {
                    return Err(Died::Output(format!(
                        "{program} wrote more than {MAX_OUTPUT} bytes"
                    )));
                }
                Ok(())
            };
            let write_in = async {
                if let Some(mut stdin) = stdin
                    && let Err(error) = stdin.write_all(input).await
                {
                    // It ended without reading all: its own complaint says why.
                    tracing::debug!(%error, program, "a child did not read its input");
                }
                Ok(())
            };
            let ((), (), complaint) = tokio::try_join!(write_in, read_out, async {
                Ok(read_tail(&mut stderr).await)
            })?;
            let status = child
                .wait()
                .await
                .map_err(|error| Died::Output(error.to_string()))?;
            Ok(Output {
                code: status.code(),
                stdout: out,
                stderr: complaint,
            })
        };
        let outcome = match tokio::time::timeout(within, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Died::TimedOut(within)),
        };
        if outcome.is_ok() {
            group.ended();
        }
        outcome
    }
}

/// The last of a stream; reads it to the end so that the child is never blocked.
async fn read_tail(stream: &mut tokio::process::ChildStderr) -> String {
    let mut tail = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..n]);
        if tail.len() > 2 * MAX_COMPLAINT {
            tail.drain(..tail.len() - MAX_COMPLAINT);
        }
    }
    let start = tail.len().saturating_sub(MAX_COMPLAINT);
    String::from_utf8_lossy(&tail[start..]).trim().to_owned()
}

/// A server or a proxy may say the secret back.
fn censored(text: String, secret: Option<&GitSecret>) -> String {
    match secret {
        Some(secret) if !secret.password.is_empty() => text.replace(&secret.password, "CENSORED"),
        _ => text,
    }
}

fn environment(command: &mut Command, dir: &Path, secret: Option<&GitSecret>) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(&name);
        }
    }
    let mut config = vec![
        ("gc.auto", "0"),
        ("maintenance.auto", "false"),
        ("commit.gpgSign", "false"),
        // A server that says nothing for a minute has hung.
        ("http.lowSpeedLimit", "1000"),
        ("http.lowSpeedTime", "60"),
        // Whatever helpers the machine has: an empty entry forgets them.
        ("credential.helper", ""),
    ];
    if secret.is_some() {
        config.push((
            "credential.helper",
            r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$TRIREME_GIT_USERNAME" "$TRIREME_GIT_PASSWORD"; }; f"#,
        ));
    }
    command
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ALLOW_PROTOCOL", "file:http:https:ssh")
        .env("GIT_OPTIONAL_LOCKS", "0")
        // Whatever repository the cache happens to lie in is not ours to look at.
        .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir))
        .env("GIT_CONFIG_COUNT", config.len().to_string());
    for (n, (key, value)) in config.into_iter().enumerate() {
        command
            .env(format!("GIT_CONFIG_KEY_{n}"), key)
            .env(format!("GIT_CONFIG_VALUE_{n}"), value);
    }
    if let Some(secret) = secret {
        command
            .env("TRIREME_GIT_USERNAME", &secret.username)
            .env("TRIREME_GIT_PASSWORD", &secret.password);
    }
    // Fixed, so that the same merge of the same commits is the same commit.
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), IDENTITY)
            .env(format!("GIT_{role}_EMAIL"), IDENTITY_EMAIL)
            .env(format!("GIT_{role}_DATE"), "@0 +0000");
    }
}

/// git's own children (transports, pack indexers) are in its process group; killing git alone would leave them.
struct Group(Option<Pid>);

impl Group {
    fn of(child: Option<u32>) -> Self {
        let pid = child
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // A courtesy: children it starts from now on inherit it, and if it fails they are merely less nice.
            if let Err(error) = setpriority_process(Some(pid), NICE) {
                tracing::debug!(%error, "git runs at normal priority");
            }
        }
        Self(pid)
    }

    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Fails only if all have ended, which is what is wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_that_takes_too_long_dies_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("slow.sh");
        let marker = dir.path().join("pid");
        let text = format!("sleep 60 & echo $! > {}; wait", marker.display());
        std::fs::write(&script, text).unwrap();
        let alias = format!("alias.slow=!sh {}", script.display());
        let died = Git::new()
            .run(
                dir.path(),
                &["-c", &alias, "slow"],
                None,
                Duration::from_millis(500),
            )
            .await
            .unwrap_err();
        assert!(matches!(died, Died::TimedOut(_)));
        let pid: i32 = std::fs::read_to_string(marker)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        // Killed, but perhaps not yet reaped by whoever adopted it.
        for _ in 0..500 {
            if rustix::process::test_kill_process(pid).is_err() || is_zombie(pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the grandchild is alive");
    }

    fn is_zombie(pid: Pid) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            .is_ok_and(|stat| stat.contains(") Z "))
    }

    /// GHC-066, GHC-067
    #[tokio::test]
    async fn secrets_go_through_the_environment_only() {
        let dir = tempfile::tempdir().unwrap();
        let secret = GitSecret {
            username: "x-access-token".into(),
            password: "it's $ecret".into(),
        };
        let script = dir.path().join("fill.sh");
        let text = "printf 'protocol=https\\nhost=example.com\\n\\n' | git credential fill";
        std::fs::write(&script, text).unwrap();
        let alias = format!("alias.fill=!sh {}", script.display());
        let output = Git::new()
            .run(
                dir.path(),
                &["-c", &alias, "fill"],
                Some(&secret),
                Duration::from_secs(10),
            )
            .await
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(
            told.contains("password=it's $ecret\n"),
            "{told} {}",
            output.stderr
        );
        assert!(!format!("{secret:?}").contains("ecret\""));

        // Nor does it come back in what git or the server complains.
        let script = dir.path().join("say.sh");
        std::fs::write(&script, "echo no \"$TRIREME_GIT_PASSWORD\" >&2; exit 1").unwrap();
        let alias = format!("alias.say=!sh {}", script.display());
        let args = ["-c", &alias, "say"];
        let output = Git::new()
            .run(dir.path(), &args, Some(&secret), Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(output.stderr, "no CENSORED");
    }
}
