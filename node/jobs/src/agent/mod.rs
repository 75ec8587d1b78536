//! The worker process: it registers with a node, is told what its leases are, runs the jobs as processes around the
//! pod utilities, and says how they ended until the cluster has recorded it.
//!
//! A lease's log index is its fence: every word about a run carries it. An agent that hears nothing of its leases for
//! a whole period kills what it runs, because somebody else may be running it by then; so does one whose registration
//! was taken over.

mod fitness;
mod runs;
mod session;
mod tail;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use trireme_api::client::ConnectOptions;
use trireme_office::Backoff;

pub use runs::Utility;

use self::{
    runs::Runs,
    session::{Ended, Session},
};

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Doors of the cluster's nodes.
    pub nodes: Vec<String>,
    pub name: String,
    pub clusters: Vec<String>,
    /// Runs at once.
    pub capacity: u32,
    /// Its identity, working directories and logs.
    pub directory: PathBuf,
    /// How to start the pod utilities.
    pub utility: Utility,
    pub version: String,
    /// How it proves itself to the nodes, and they to it.
    pub connect: ConnectOptions,
}

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("{path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("{path} is in use by another agent; give each its own directory")]
    InUse { path: PathBuf },
    #[error("no address of a node was given")]
    NoNodes,
    #[error("the cluster does not take this agent: {0}")]
    Refused(String),
}

/// Between two tries to find a node that answers.
const RECONNECT: Backoff = Backoff {
    base: Duration::from_millis(50),
    max: Duration::from_secs(2),
    jitter: 0.5,
};

/// The same directory is the same agent, whatever it was killed by.
fn identity(directory: &Path) -> io::Result<String> {
    let path = directory.join("agent-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if uuid::Uuid::parse_str(id.trim()).is_ok() => Ok(id.trim().to_owned()),
        Ok(_) => Err(io::Error::other(
            "agent-id is not a UUID; remove it to make this a new agent",
        )),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            let id = uuid::Uuid::new_v4().to_string();
            std::fs::write(&path, &id)?;
            Ok(id)
        }
        Err(why) => Err(why),
    }
}

/// Two processes of one identity would fence each other for ever. The lock ends with the process.
fn lock(directory: &Path) -> Result<File, AgentError> {
    let in_directory = |source| AgentError::Directory {
        path: directory.to_owned(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(in_directory)?;
    let file = File::create(directory.join("lock")).map_err(in_directory)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AgentError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(why)) => Err(in_directory(why)),
    }
}

/// Works until `stop`, then kills what still runs; its leases run out by themselves. Dropping the future kills, too.
///
/// # Errors
/// When its directory cannot be used, or the cluster does not take such an agent.
pub async fn run(options: AgentOptions, stop: CancellationToken) -> Result<(), AgentError> {
    if options.nodes.is_empty() {
        return Err(AgentError::NoNodes);
    }
    let in_directory = |source| AgentError::Directory {
        path: options.directory.clone(),
        source,
    };
    let _lock = lock(&options.directory)?;
    let agent_id = identity(&options.directory).map_err(in_directory)?;
    let mut runs = Runs::open(&options).map_err(in_directory)?;
    let ended = attach_again(&options, &agent_id, &mut runs, &stop).await;
    runs.kill_all().await;
    ended
}

async fn attach_again(
    options: &AgentOptions,
    agent_id: &str,
    runs: &mut Runs,
    stop: &CancellationToken,
) -> Result<(), AgentError> {
    // Anywhere, so that the agents of a cluster spread over its nodes.
    let mut node = rand::random_range(0..options.nodes.len());
    let (mut registration, mut failures) = (None, 0_u32);
    while !stop.is_cancelled() {
        let address = &options.nodes[node % options.nodes.len()];
        let session = Session {
            options,
            agent_id,
            address,
        };
        match session.run(&mut registration, runs, stop).await {
            Ended::Stopped => break,
            Ended::Refused(why) => return Err(AgentError::Refused(why)),
            Ended::Fenced(why) => {
                tracing::warn!(why, "fenced: everything it runs is killed");
                runs.kill_all().await;
                registration = None;
            }
            Ended::Lost { lasted, why } => {
                tracing::info!(node = address, why, "no attachment");
                // A node that lets agents in and drops them at once must not be asked twenty times a second.
                if lasted > RECONNECT.max {
                    failures = 0;
                }
            }
        }
        node += 1;
        failures = failures.saturating_add(1);
        // What runs goes on meanwhile, as long as its leases hold.
        tokio::select! {
            () = stop.cancelled() => {}
            () = session::expired(registration.as_ref()) => {}
            () = tokio::time::sleep(RECONNECT.after(failures)) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_directory_is_the_same_agent() {
        let directory = tempfile::tempdir().unwrap();
        let id = identity(directory.path()).unwrap();
        assert_eq!(identity(directory.path()).unwrap(), id);
        std::fs::write(directory.path().join("agent-id"), "x").unwrap();
        assert!(
            identity(directory.path())
                .unwrap_err()
                .to_string()
                .contains("remove it")
        );
    }

    #[test]
    fn a_directory_is_one_agents_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = lock(directory.path()).unwrap();
        assert!(matches!(
            lock(directory.path()),
            Err(AgentError::InUse { .. })
        ));
        drop(held);
        lock(directory.path()).unwrap();
    }
}
