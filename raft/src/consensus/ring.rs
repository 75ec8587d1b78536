//! A running openraft node, in our own terms.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    ChangeMembers, Config, Instant as _, Raft, ReadPolicy, ServerState, SnapshotPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{
        ChangeMembershipError, ClientWriteError, Fatal, ForwardToLeader, InitializeError,
        LinearizableReadError, RaftError,
    },
    impls::ProgressResponder,
    raft::ClientWriteResult,
};
use tokio::{
    sync::{Mutex, oneshot},
    time::{Instant, timeout},
};
use trireme_proto::{raft as proto, state::Outcome};

use super::{
    log_storage::LogStore,
    network::Links,
    state_machine::Machine,
    types::{Commands, LogId, Membership, Peer, Types, membership_to_proto},
};
use crate::{archive::Archive, config::Timing, fatal::FatalCell, snapshot::Snapshots, wal::Wal};

/// Entries in one replication request.
const MAX_PAYLOAD_ENTRIES: u64 = 300;
/// A snapshot that does not come is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Entries merged into one append to the log.
const MAX_APPEND_ENTRIES: u64 = 512;
/// Requests waiting for the core.
const CORE_QUEUE: u64 = 4096;
/// State machine commands waiting.
const MACHINE_QUEUE: u64 = 1024;

/// What role a node has at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    #[default]
    Learner,
    Follower,
    Candidate,
    Leader,
    /// It has stopped.
    Stopped,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Stopped => "stopped",
        })
    }
}

/// Who leads, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
}

/// A node's numbers at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse {
    pub(crate) role: Role,
    pub(crate) seen: Seen,
    pub(crate) last_log: Option<u64>,
    pub(crate) committed: Option<u64>,
    pub(crate) applied: Option<u64>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) purged: Option<u64>,
    /// On a leader: since a quorum last answered.
    pub(crate) quorum_ack: Option<Duration>,
    pub(crate) membership: proto::Membership,
    /// On a leader: last entry known to be on each other node.
    pub(crate) matched: BTreeMap<u64, Option<u64>>,
    /// On a leader: since each other node last answered.
    pub(crate) heard: BTreeMap<u64, Option<Duration>>,
}

/// What became of an entry.
#[derive(Debug)]
pub(crate) enum Written {
    Applied {
        index: u64,
        outcomes: Vec<Outcome>,
    },
    /// It is certainly not in the log.
    NotAppended,
    /// It may be, and may still be applied.
    Unknown,
    Stopped,
}

/// An entry on its way.
pub(crate) struct Writing(oneshot::Receiver<ClientWriteResult<Types>>);

impl Writing {
    pub(crate) async fn done(self) -> Written {
        match self.0.await {
            Ok(Ok(response)) => Written::Applied {
                index: response.log_id.index,
                outcomes: response.data.outcomes,
            },
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Written::NotAppended,
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Written::Unknown,
            // Of membership changes alone.
            Ok(Err(
                ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            )) => Written::NotAppended,
            Err(_) => Written::Stopped,
        }
    }
}

/// Why a read cannot be made linearizable now.
#[derive(Debug)]
pub(crate) enum ReadIndexError {
    NotLeader,
    NoQuorum,
    Stopped,
}

/// Why a membership change was not made.
#[derive(Debug)]
pub(crate) enum ChangeError {
    NotLeader,
    Refused(String),
    /// It may be in the log, or half done.
    Unknown,
    Stopped,
}

pub(crate) struct Ring {
    pub(super) raft: Raft<Types, Machine>,
    pub(super) me: u64,
    pub(super) cluster_id: String,
    pub(super) timing: Timing,
    pub(super) snapshots: Snapshots,
    pub(super) archive: Arc<Archive>,
    pub(super) fatal: FatalCell,
    /// Held by whoever receives or installs a snapshot: one at a time.
    pub(super) receiving: Arc<Mutex<()>>,
    /// When the present leader was last heard.
    pub(super) heard: Arc<Heard>,
    pub(crate) wal: Arc<Wal>,
}

/// When something that only a leader sends was last taken from one.
pub(super) struct Heard {
    since: Instant,
    /// Milliseconds after `since`, plus one; 0 = never.
    at: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            at: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) {
        let at = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.at.store(at + 1, Ordering::Relaxed);
    }

    fn ago(&self) -> Option<Duration> {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed).checked_sub(1)?);
        Some(self.since.elapsed().saturating_sub(at))
    }
}

impl Ring {
    /// On a follower: since the leader was last heard; None before it first was.
    pub(crate) fn since_leader_heard(&self) -> Option<Duration> {
        self.heard.ago()
    }

    /// Recovers what is on disk and starts to take part.
    pub(crate) async fn start(
        links: Links,
        wal: Arc<Wal>,
        machine: Machine,
    ) -> Result<Self, String> {
        let millis = |duration: Duration| duration.as_millis() as u64;
        let timing = links.timing.clone();
        let config = Config {
            cluster_name: links.cluster_id.clone(),
            heartbeat_interval: millis(timing.heartbeat),
            election_timeout_min: millis(timing.election_min),
            election_timeout_max: millis(timing.election_max),
            install_snapshot_timeout: millis(timing.snapshot_install),
            max_payload_entries: MAX_PAYLOAD_ENTRIES,
            max_append_entries: Some(MAX_APPEND_ENTRIES),
            // Our compactor decides when a snapshot is due and what is purged. It purges well behind what is applied:
            // openraft panics when a purge overtakes an apply that is still queued (databendlabs/openraft#2116).
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_pre_vote: Some(true),
            // A leader that is heard but hears no quorum must fall silent, or nobody else would ever be elected: for a
            // lease and two elections.
            quorum_loss_probe_interval: Some(3 * millis(timing.election_max)),
            // A follower whose disk lost what it had acknowledged is sent it again. Else the leader would wait for ever for
            // an answer that cannot come, and a debug build of openraft panic.
            allow_log_reversion: Some(true),
            // A leader that restarts asks for votes like anybody else.
            enable_leader_restore: Some(false),
            api_channel_size: Some(CORE_QUEUE),
            notification_channel_size: Some(CORE_QUEUE),
            state_machine_channel_size: Some(MACHINE_QUEUE),
            ..Config::default()
        };
        let config = config.validate().map_err(|error| error.to_string())?;
        let (me, cluster_id) = (links.me, links.cluster_id.clone());
        let (snapshots, archive) = (machine.snapshots.clone(), Arc::clone(&machine.archive));
        let fatal = machine.fatal.clone();
        let log = LogStore {
            wal: Arc::clone(&wal),
            fatal: machine.fatal.clone(),
        };
        let raft = Box::pin(Raft::new(me, Arc::new(config), links, log, machine))
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            raft,
            me,
            cluster_id,
            timing,
            snapshots,
            archive,
            fatal,
            receiving: Arc::default(),
            heard: Arc::new(Heard::new()),
            wal,
        })
    }

    /// Hands an entry to the leader's log, if this node leads. Entries keep the order of the calls.
    pub(crate) async fn write(&self, batch: Bytes) -> Result<Writing, Written> {
        let (responder, answer) = ProgressResponder::complete_only();
        let written = self.raft.write(Commands(batch)).responder(responder).await;
        match written {
            Ok(()) => Ok(Writing(answer)),
            Err(_) => Err(Written::Stopped),
        }
    }

    /// The index that a linearizable read must wait for; a quorum has just confirmed that this node leads.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadIndexError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(ReadIndexError::NotLeader)
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadIndexError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ReadIndexError::Stopped),
        }
    }

    /// The first membership of a new cluster; nothing happens if there is one already.
    pub(crate) async fn initialize(&self, members: Vec<proto::Node>) -> Result<(), String> {
        let members: BTreeMap<u64, Peer> = members
            .into_iter()
            .map(|node| (node.id, node.into()))
            .collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) async fn add_learner(&self, node: proto::Node) -> Result<(), ChangeError> {
        let (id, peer) = (node.id, Peer::from(node));
        self.changed(self.raft.add_learner(id, peer, false).await.map(drop))
    }

    /// Changes what is known of a member, except its id and peer address: two addresses of one id could vote twice.
    pub(crate) async fn set_node(&self, node: proto::Node) -> Result<(), ChangeError> {
        let change = ChangeMembers::SetNodes(BTreeMap::from([(node.id, Peer::from(node))]));
        self.changed(self.raft.change_membership(change, true).await.map(drop))
    }

    /// Makes a learner a voter.
    pub(crate) async fn promote(&self, id: u64) -> Result<(), ChangeError> {
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.changed(self.raft.change_membership(change, true).await.map(drop))
    }

    /// Takes a node out of the membership, voter or not.
    pub(crate) async fn remove(&self, id: u64) -> Result<(), ChangeError> {
        let voter = self.membership().voter_ids().any(|voter| voter == id);
        let change = if voter {
            ChangeMembers::RemoveVoters(BTreeSet::from([id]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([id]))
        };
        self.changed(self.raft.change_membership(change, false).await.map(drop))
    }

    /// A learner votes in place of another node, in one change.
    pub(crate) async fn replace(&self, old: u64, new: u64) -> Result<(), ChangeError> {
        let change = ChangeMembers::Batch(vec![
            ChangeMembers::AddVoterIds(BTreeSet::from([new])),
            ChangeMembers::RemoveVoters(BTreeSet::from([old])),
        ]);
        self.changed(self.raft.change_membership(change, false).await.map(drop))
    }

    fn changed(
        &self,
        result: Result<(), RaftError<Types, ClientWriteError<Types>>>,
    ) -> Result<(), ChangeError> {
        match result {
            Ok(()) => Ok(()),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
            Err(RaftError::APIError(error)) => Err(match error {
                ClientWriteError::ForwardToLeader(ForwardToLeader { .. }) => ChangeError::NotLeader,
                ClientWriteError::LogEntryDiscarded(_) => ChangeError::Unknown,
                ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)) => {
                    ChangeError::Refused(
                        "another membership change is in progress: wait for it, then try again"
                            .to_owned(),
                    )
                }
                other => ChangeError::Refused(other.to_string()),
            }),
        }
    }

    /// Asks `to` to campaign; it leads some time later, or not.
    pub(crate) async fn transfer_leader(&self, to: u64) -> Result<(), ChangeError> {
        let asked = self.raft.trigger().transfer_leader(to).await;
        asked.map_err(|_| ChangeError::Stopped)
    }

    /// Starts an election, unless somebody leads.
    pub(crate) async fn elect(&self) {
        // A core that has stopped is noticed elsewhere.
        let _ = self.raft.trigger().elect(true).await;
    }

    /// Forgets log entries up to `upto`, as far as a snapshot covers them and followers do not need them this moment.
    pub(crate) async fn purge(&self, upto: u64) {
        let _ = self.raft.trigger().purge_log(upto).await;
    }

    /// Has a snapshot written that reaches `index`, unless there is one; false if consensus stops before.
    pub(crate) async fn snapshot_reaching(&self, index: u64) -> bool {
        let mut progress = self.raft.watch_snapshot_progress();
        loop {
            if progress.get().is_some_and(|id: LogId| id.index >= index) {
                return true;
            }
            // Consensus drops the wish while a snapshot is being written, one that may not reach so far or be overtaken by
            // one from the leader.
            if self.raft.trigger().snapshot().await.is_err() {
                return false;
            }
            match timeout(ASK_AGAIN, progress.changed()).await {
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(_)) => return false,
            }
        }
    }

    /// Waits until everything that this node may have shown before it was restarted is applied again.
    pub(crate) async fn recovered(&self) -> bool {
        self.raft.wait_for_recovery(None).await.is_ok()
    }

    fn membership(&self) -> Membership {
        let metrics = self.raft.metrics();
        let stored = Arc::clone(&metrics.borrow_watched().membership_config);
        stored.membership().clone()
    }

    pub(crate) fn seen(&self) -> Seen {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        Seen {
            leader: metrics.current_leader,
            term: metrics.vote.leader_id.term,
        }
    }

    /// Waits for a change of leader, term, role or membership; false once consensus has stopped.
    pub(crate) fn changes(&self) -> impl Future<Output = bool> + Send + use<> {
        let mut metrics = self.raft.server_metrics();
        // What is there now counts as seen.
        let _ = metrics.borrow_and_update();
        async move { metrics.changed().await.is_ok() }
    }

    pub(crate) fn pulse(&self) -> Pulse {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let index = |id: Option<LogId>| id.map(|id| id.index);
        // A sole voter is its own quorum; openraft counts only answers of others.
        let alone = metrics.state == ServerState::Leader
            && metrics
                .membership_config
                .membership()
                .voter_ids()
                .eq([metrics.id]);
        Pulse {
            role: match metrics.state {
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Shutdown => Role::Stopped,
            },
            seen: Seen {
                leader: metrics.current_leader,
                term: metrics.current_term,
            },
            last_log: metrics.last_log_index,
            committed: index(metrics.cluster_committed),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            quorum_ack: if alone {
                Some(Duration::ZERO)
            } else {
                metrics.last_quorum_acked.map(|at| at.elapsed())
            },
            membership: membership_to_proto(metrics.membership_config.membership()),
            matched: metrics
                .replication
                .unwrap_or_default()
                .into_iter()
                .map(|(id, matched)| (id, index(matched)))
                .collect(),
            heard: metrics
                .heartbeat
                .unwrap_or_default()
                .into_iter()
                .map(|(id, at)| (id, at.map(|at| at.elapsed())))
                .collect(),
        }
    }

    /// Waits until consensus has stopped; the reason, unless it was asked to.
    pub(crate) async fn stopped(&self) -> Option<String> {
        // Not the metrics that change with each entry: whoever waits for those is woken by each.
        let mut ended = self.raft.server_metrics();
        while ended.changed().await.is_ok() {}
        let metrics = self.raft.metrics();
        let state = metrics.borrow_watched().running_state.clone();
        match state {
            Err(Fatal::StorageError(error)) => Some(error.to_string()),
            Err(Fatal::Stopped) => None,
            // It ended without a word.
            Err(Fatal::Panicked) | Ok(()) => Some("the consensus core panicked".to_owned()),
        }
    }

    /// Ends consensus, even if the caller does not wait for it.
    pub(crate) async fn shutdown(&self) {
        // On a task of its own: openraft panics in whoever asks next if the first to wait for the core's end is dropped.
        let raft = self.raft.clone();
        let ending = tokio::spawn(async move { raft.shutdown().await });
        match ending.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "the consensus core did not shut down cleanly");
            }
        }
    }
}
