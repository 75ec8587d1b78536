//! openraft's types as we use them, and the way to and from the messages on the wire and on disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use bytes::Bytes;
use openraft::{EntryPayload, vote::RaftLeaderId};
use trireme_proto::{raft as proto, state::Outcome};

use crate::wal;

openraft::declare_raft_types!(
    /// One leader per (term, node): the higher node wins a term that two candidates share.
    pub(crate) Types:
        D = Commands,
        R = Answer,
        NodeId = u64,
        Node = Peer,
);

pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// An encoded `trireme.state.v1.Batch`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Commands(pub(crate) Bytes);

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commands({} bytes)", self.0.len())
    }
}

impl fmt::Display for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying one entry answered, one outcome per command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) outcomes: Vec<Outcome>,
}

/// Where a member listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) peer_address: String,
    pub(crate) api_address: String,
    pub(crate) instance: String,
}

impl Peer {
    pub(crate) fn to_node(&self, id: u64) -> proto::Node {
        proto::Node {
            id,
            peer_address: self.peer_address.clone(),
            api_address: self.api_address.clone(),
            instance: self.instance.clone(),
        }
    }
}

impl From<proto::Node> for Peer {
    fn from(node: proto::Node) -> Self {
        Self {
            peer_address: node.peer_address,
            api_address: node.api_address,
            instance: node.instance,
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

pub(crate) fn log_id_to_proto(id: &LogId) -> proto::LogId {
    proto::LogId {
        leader: Some(leader_to_proto(&id.leader_id)),
        index: id.index,
    }
}

pub(crate) fn log_id_from_proto(id: &proto::LogId) -> LogId {
    LogId::new(leader_from_proto(id.leader), id.index)
}

pub(crate) fn log_id_to_wal(id: &LogId) -> wal::LogId {
    wal::LogId {
        term: id.leader_id.term,
        node_id: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn log_id_from_wal(id: wal::LogId) -> LogId {
    LogId::new(LeaderId::new(id.term, id.node_id), id.index)
}

fn leader_to_proto(leader: &LeaderId) -> proto::LeaderId {
    proto::LeaderId {
        term: leader.term,
        node_id: leader.node_id,
    }
}

fn leader_from_proto(leader: Option<proto::LeaderId>) -> LeaderId {
    let leader = leader.unwrap_or_default();
    LeaderId::new(leader.term, leader.node_id)
}

pub(crate) fn vote_to_proto(vote: &Vote) -> proto::Vote {
    proto::Vote {
        leader: Some(leader_to_proto(&vote.leader_id)),
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_proto(vote: &proto::Vote) -> Vote {
    let leader = leader_from_proto(vote.leader);
    if vote.committed {
        Vote::new_committed(leader.term, leader.node_id)
    } else {
        Vote::new(leader.term, leader.node_id)
    }
}

pub(crate) fn membership_to_proto(membership: &Membership) -> proto::Membership {
    proto::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| proto::VoterSet {
                node_ids: voters.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, peer)| peer.to_node(*id))
            .collect(),
    }
}

pub(crate) fn membership_from_proto(membership: proto::Membership) -> io::Result<Membership> {
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|voters| voters.node_ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, Peer> = membership
        .nodes
        .into_iter()
        .map(|node| (node.id, node.into()))
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes)
        .map_err(|error| invalid(&format!("impossible membership: {error}")))
}

pub(crate) fn stored_membership_to_proto(stored: &StoredMembership) -> proto::StoredMembership {
    proto::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_proto(
    stored: proto::StoredMembership,
) -> io::Result<StoredMembership> {
    Ok(StoredMembership::new(
        stored.log_id.as_ref().map(log_id_from_proto),
        membership_from_proto(stored.membership.unwrap_or_default())?,
    ))
}

pub(crate) fn snapshot_meta_from_proto(meta: proto::SnapshotMeta) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_from_proto),
        last_membership: stored_membership_from_proto(meta.last_membership.unwrap_or_default())?,
    })
}

pub(crate) fn entry_to_proto(entry: Entry) -> proto::Entry {
    use proto::entry::Payload;
    proto::Entry {
        log_id: Some(log_id_to_proto(&entry.log_id)),
        payload: Some(match entry.payload {
            EntryPayload::Blank => Payload::Blank(proto::Blank {}),
            EntryPayload::Normal(Commands(bytes)) => Payload::Batch(bytes),
            EntryPayload::Membership(membership) => {
                Payload::Membership(membership_to_proto(&membership))
            }
        }),
    }
}

pub(crate) fn entry_from_proto(entry: proto::Entry) -> io::Result<Entry> {
    use proto::entry::Payload;
    let log_id = entry
        .log_id
        .ok_or_else(|| invalid("an entry without a log id"))?;
    let payload = match entry.payload {
        Some(Payload::Blank(_)) => EntryPayload::Blank,
        Some(Payload::Batch(bytes)) => EntryPayload::Normal(Commands(bytes)),
        Some(Payload::Membership(membership)) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
        None => {
            return Err(invalid(
                "an entry of a kind that this version does not know",
            ));
        }
    };
    Ok(Entry {
        log_id: log_id_from_proto(&log_id),
        payload,
    })
}
