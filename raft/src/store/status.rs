//! What a node says about itself and its cluster.

use std::{sync::atomic::Ordering, time::Duration};

use trireme_proto::raft::{Membership, Node};

use super::Store;
use crate::{consensus::Role, tls::TlsHealth};

/// A node's view of its cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub node_id: u64,
    /// Empty while the node belongs to no cluster.
    pub cluster_id: String,
    pub role: Role,
    pub term: u64,
    /// See [`super::Leadership::leader`].
    pub leader: Option<u64>,
    /// Index of the last entry in this node's log.
    pub last_log: Option<u64>,
    /// Committed, as far as this node heard.
    pub committed: Option<u64>,
    /// Applied and visible in views.
    pub revision: u64,
    pub snapshot: Option<u64>,
    /// Gone from the log up to here.
    pub purged: Option<u64>,
    /// Hash of the replicated state at `revision`; equal on all nodes at the same revision.
    pub digest: String,
    pub members: Vec<MemberStatus>,
    /// On a leader: milliseconds since a quorum last answered.
    pub millis_since_quorum_ack: Option<u64>,
    /// This node's clock against the median of the voters', in milliseconds; None unless a majority was heard.
    pub clock_skew_ms: Option<i64>,
    /// Longest delay of the ring's own runtime in the last seconds.
    pub ring_delay: Duration,
    /// Segment files of the log.
    pub wal_segments: usize,
    /// This node's disk; None until it was looked at.
    pub disk: Option<super::DiskUse>,
    /// Why nothing new is taken, on a leader whose cluster has no room.
    pub refusal: Option<String>,
    /// Why the archive was set aside, until it is filled again.
    pub archive_lost: Option<String>,
    /// The peer listener's certificates; None without.
    pub peer_tls: Option<TlsHealth>,
    /// Calls of peers that were refused by whose they were.
    pub peer_calls_refused: u64,
}

/// One member.
#[derive(Debug, Clone, Default)]
pub struct MemberStatus {
    pub node: Node,
    pub voter: bool,
    /// On a leader: last entry known to be on the node.
    pub matched: Option<u64>,
    /// On a leader: milliseconds since the node last answered; None as well if it has not since this one leads.
    pub millis_since_heard: Option<u64>,
    /// On a leader: whether the node answered so lately that a change of the members counts on it.
    pub answers: Option<bool>,
    /// What the node said when it was last asked.
    pub feature_level: Option<u32>,
    pub version: Option<String>,
}

impl Store {
    /// The last memberships that this node has applied since it was started, at most 64, by log index.
    pub fn memberships(&self) -> Vec<(u64, Membership)> {
        self.inner.published.memberships()
    }

    /// Every id that a member ever had, in order.
    pub fn used_node_ids(&self) -> Vec<u64> {
        let view = self.inner.published.view();
        view.used_node_ids.iter().copied().collect()
    }

    /// Cheap but for the digest; does not ask other nodes.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let view = inner.published.view();
        let mut status = Status {
            node_id: inner.node_id,
            revision: view.revision,
            digest: hex::encode(view.state.digest()),
            ring_delay: inner.delay.longest(),
            peer_tls: inner.tls.as_ref().map(|tls| tls.health()),
            peer_calls_refused: inner.calls_refused.load(Ordering::Relaxed),
            ..Status::default()
        };
        let Some(started) = inner.started() else {
            return status;
        };
        let pulse = started.ring.pulse();
        let voters: Vec<u64> = pulse
            .membership
            .configs
            .iter()
            .flat_map(|voters| voters.node_ids.iter().copied())
            .collect();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let leads = pulse.role == Role::Leader;
        status.members = pulse
            .membership
            .nodes
            .iter()
            .map(|node| (node, started.peers.about(node.id)))
            .map(|(node, about)| MemberStatus {
                feature_level: match node.id == inner.node_id {
                    true => Some(inner.knows_level),
                    false => about.as_ref().map(|about| about.feature_level),
                },
                version: match node.id == inner.node_id {
                    true => Some(env!("CARGO_PKG_VERSION").to_owned()),
                    false => about.map(|about| about.version),
                },
                voter: voters.contains(&node.id),
                matched: match node.id == inner.node_id {
                    true => pulse.last_log,
                    false => pulse.matched.get(&node.id).copied().flatten(),
                },
                answers: leads.then(|| inner.answers(&pulse, node.id)),
                millis_since_heard: pulse.heard.get(&node.id).copied().flatten().map(millis),
                node: node.clone(),
            })
            .collect();
        status.cluster_id = started.cluster_id.clone();
        status.role = pulse.role;
        status.term = pulse.seen.term;
        status.leader = inner.vouched(started, &pulse);
        status.last_log = pulse.last_log;
        status.committed = pulse.committed;
        status.snapshot = pulse.snapshot;
        status.purged = pulse.purged;
        status.millis_since_quorum_ack = pulse.quorum_ack.map(millis);
        status.clock_skew_ms = started
            .clock
            .skew_ms(inner.node_id, &voters, view.last_stamp_ms());
        status.wal_segments = started.ring.wal.segments();
        status.disk = started.disk.get();
        status.refusal = started.gate.refusal();
        status.archive_lost = inner
            .archive
            .missing()
            .map(|_| inner.archive.lost().unwrap_or("it is behind").to_owned());
        status
    }
}
