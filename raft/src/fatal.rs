//! Why a node must stop.

use std::fmt;

use tokio::sync::watch;

/// Kinds of reasons; a program gives each its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FatalKind {
    /// A write or a sync failed: what is on disk is unknown.
    Disk,
    /// What was read is not what was written.
    Corruption,
    /// A committed entry holds a command that this version does not know.
    UnknownCommand,
    /// The archive cannot be written.
    Archive,
    /// This node's state differs from the majority's. Started again, it fetches the state from another node.
    Diverged,
    /// Consensus stopped for another reason.
    Consensus,
    /// The node is no member any more, and never will be again.
    Removed,
}

/// The first reason why this node stopped. It serves nothing any more; a new process may try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    pub kind: FatalKind,
    pub message: String,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fatal {}

/// Set once; the first reason counts.
#[derive(Debug, Clone)]
pub(crate) struct FatalCell(watch::Sender<Option<Fatal>>);

impl Default for FatalCell {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl FatalCell {
    pub(crate) fn set(&self, kind: FatalKind, message: String) {
        self.0.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                tracing::error!(?kind, message, "this node must stop");
                *fatal = Some(Fatal { kind, message });
            }
            first
        });
    }

    pub(crate) fn get(&self) -> Option<Fatal> {
        self.0.borrow().clone()
    }

    /// Never resolves while nothing is wrong.
    pub(crate) async fn wait(&self) -> Fatal {
        let mut changes = self.0.subscribe();
        loop {
            if let Some(fatal) = changes.borrow_and_update().clone() {
                return fatal;
            }
            // The sender lives in self.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
