//! What can go wrong, in words for whoever must act.

use std::{io, time::Duration};

use crate::{
    directory::DirectoryError, fatal::Fatal, snapshot::SnapshotError, transport::ListenError,
    wal::WalError,
};

/// Why the log was not turned into a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CompactionError(pub(super) String);

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("node_id must be at least 1")]
    NodeId,
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What is on disk does not make a state.
    #[error(
        "this node's state cannot be rebuilt: {reason}. Keep the data directory for inspection, and replace the node under a \
         new id with `trireme cluster replace`, or restore its data directory from a backup"
    )]
    Unrecoverable { reason: String },
    #[error("the archive cannot be opened: {0}")]
    Archive(io::Error),
    /// This node's state was found to differ from the majority's, and no peer gave it another yet.
    #[error(
        "this node's state differed from the majority's and is to be fetched anew, but no peer gave it within {}s (last: \
         {last}). Let the other nodes run and reach each other, then start this one again",
        waited.as_secs()
    )]
    Resync { waited: Duration, last: String },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the ring's runtime does not start: {0}")]
    Runtime(io::Error),
    #[error("consensus does not start: {0}")]
    Consensus(String),
    /// What was found while the log was replayed.
    #[error(transparent)]
    Stopped(#[from] Fatal),
}

/// Why a node does not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{0}")]
    Refused(String),
    /// None of the addresses answered usefully in time.
    #[error("no node of a cluster was reached within {}s (last: {last}): check the addresses and that the nodes run", waited.as_secs())]
    Unreachable { waited: Duration, last: String },
    #[error(
        "the data directory is empty, but node {node} belongs to cluster {cluster_id} already: node ids are never reused. \
         If this node lost its disk, give it a new id and use `trireme cluster replace`"
    )]
    AlreadyFormed { node: u64, cluster_id: String },
    #[error("the members of a new cluster must name this node (id {0}) and no id twice")]
    Members(u64),
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a command was not applied, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not applied.
    #[error("no leader is known: a quorum of the cluster may be down")]
    NoLeader,
    #[error("no answer in time{}", if *.maybe_applied { "; the command may have been applied" } else { "; the command was not applied" })]
    Timeout { maybe_applied: bool },
    /// Certainly not applied.
    #[error("too many commands are waiting: try again later")]
    Overloaded,
    /// Certainly not applied: the disks are full, and the command would make the state larger.
    #[error("{0}")]
    NoSpace(String),
    /// Certainly not applied.
    #[error("the command has {bytes} bytes, the limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// Certainly not applied: the cluster cannot hold such a command yet.
    #[error("the command cannot be proposed: {0}")]
    Rejected(String),
    #[error("this node belongs to no cluster")]
    NotStarted,
    /// The command may have been applied.
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

/// Why a linearizable read is not possible now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no leader is known: a quorum of the cluster may be down")]
    NoLeader,
    #[error("no quorum answers the leader")]
    NoQuorum,
    #[error("no answer in time")]
    Timeout,
    #[error("this node belongs to no cluster")]
    NotStarted,
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    #[error("{0}")]
    Refused(String),
    #[error("no leader is known: a quorum of the cluster may be down")]
    NoLeader,
    #[error("no answer in time: look at the cluster's status before trying again")]
    Timeout,
    #[error("this node belongs to no cluster")]
    NotStarted,
    #[error("this node has stopped: {0}")]
    Stopped(String),
}
