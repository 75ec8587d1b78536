//! The replicated state as openraft's state machine.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures::{Stream, StreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot},
};
use tokio::sync::{OwnedMutexGuard, watch};
use trireme_proto::{
    raft as proto,
    state::{Command, command::Body},
};
use trireme_state::{Digest, State, is_known};

use super::types::{
    Answer, LogId, SnapshotMeta, StoredMembership, Types, log_id_to_proto, log_id_to_wal,
    snapshot_meta_from_proto, stored_membership_to_proto,
};
use crate::{
    archive::{Archive, Replacement},
    config::Tamper,
    costs::{Costs, Stage},
    disk::is_full,
    fatal::{FatalCell, FatalKind},
    feed::Changes,
    sealed::decode_batch,
    snapshot::{Part, SNAPSHOT_FORMAT, SnapshotFile, Snapshots},
    view::{Published, View},
};

/// A node that catches up publishes at least every so many entries.
const ENTRIES_PER_VIEW: usize = 1024;

/// What to do about an archive that fails.
pub(crate) const ARCHIVE_LOST: &str = "Check the disk and how full it is, then start the node again; if it fails again, \
     move `archive` out of the data directory: the node fills a new one from a peer";

/// A snapshot as it moves between the state machine and the network.
#[derive(Debug)]
pub(crate) struct SnapshotData {
    pub(crate) file: SnapshotFile,
    /// Set on the receiving side.
    pub(crate) received: Option<Received>,
}

/// A snapshot that was received and found whole.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) part: Part,
    pub(crate) state: State,
    /// None when the sender's lacks rows.
    pub(crate) archive: Option<Replacement>,
    /// Until it is installed, or given up, whoever sent it waits or not.
    pub(crate) _alone: OwnedMutexGuard<()>,
}

type CurrentSnapshot = Arc<Mutex<Option<SnapshotFile>>>;

pub(crate) struct Machine {
    pub(crate) cluster_id: String,
    pub(crate) state: State,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// The same as views show it: made once, not for every view.
    shown_membership: Arc<proto::StoredMembership>,
    pub(crate) used_node_ids: Arc<BTreeSet<u64>>,
    pub(crate) published: Arc<Published>,
    pub(crate) snapshots: Snapshots,
    pub(crate) archive: Arc<Archive>,
    pub(crate) fatal: FatalCell,
    costs: Arc<Costs>,
    /// The newest audit that was applied: its log index, and what the state was before it.
    pub(crate) audited: watch::Sender<Option<(u64, Digest)>>,
    pub(crate) tamper: Option<Tamper>,
    current: CurrentSnapshot,
}

impl Machine {
    /// Starts from `newest`, already loaded as `state`; from nothing without it.
    pub(crate) fn new(
        cluster_id: String,
        newest: Option<(SnapshotFile, State)>,
        snapshots: Snapshots,
        archive: Arc<Archive>,
        fatal: FatalCell,
        published: Arc<Published>,
        costs: Arc<Costs>,
    ) -> io::Result<Self> {
        let (current, state) = newest.unzip();
        let header = current
            .as_ref()
            .map(|file| file.header().clone())
            .unwrap_or_default();
        let meta = snapshot_meta_from_proto(header.meta.unwrap_or_default())?;
        let machine = Self {
            cluster_id,
            applied: meta.last_log_id,
            shown_membership: Arc::new(stored_membership_to_proto(&meta.last_membership)),
            membership: meta.last_membership,
            used_node_ids: Arc::new(header.used_node_ids.into_iter().collect()),
            published,
            state: state.unwrap_or_default(),
            snapshots,
            archive,
            fatal,
            costs,
            audited: watch::Sender::default(),
            tamper: None,
            current: Arc::new(Mutex::new(current)),
        };
        machine.remember_membership();
        if let Some(applied) = machine.applied {
            machine.published.publish(machine.view());
            machine.published.feed.reset(applied.index);
        }
        Ok(machine)
    }

    fn remember_membership(&self) {
        self.published
            .remember_membership(&stored_membership_to_proto(&self.membership));
    }

    fn view(&self) -> View {
        View {
            revision: self.applied.as_ref().map_or(0, |applied| applied.index),
            state: self.state.clone(),
            applied: self.applied.as_ref().map(log_id_to_wal),
            membership: Arc::clone(&self.shown_membership),
            used_node_ids: Arc::clone(&self.used_node_ids),
        }
    }

    fn set_membership(&mut self, membership: StoredMembership) {
        self.shown_membership = Arc::new(stored_membership_to_proto(&membership));
        self.membership = membership;
    }

    fn publish(
        &self,
        changes: &mut Vec<Changes>,
        answers: &mut Vec<(ApplyResponder<Types>, Answer)>,
    ) {
        let started = Instant::now();
        self.published.publish(self.view());
        self.published.feed.push(changes.drain(..));
        // Whoever gets an answer can read what it says.
        for (responder, answer) in answers.drain(..) {
            responder.send(answer);
        }
        self.costs.add(Stage::Publish, started.elapsed());
    }

    async fn apply_batch(
        &mut self,
        index: u64,
        bytes: bytes::Bytes,
        changes: &mut Vec<Changes>,
    ) -> io::Result<Answer> {
        let started = Instant::now();
        let mut batch = decode_batch(bytes).map_err(|error| {
            let message = format!("committed entry {index} cannot be decoded: {error}");
            self.fatal.set(FatalKind::Corruption, message.clone());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        if let Some(tamper) = &self.tamper {
            (tamper.0)(index, &mut batch);
        }
        if let Some(unknown) = batch.commands.iter().position(|command| !is_known(command)) {
            let message = format!(
                "committed entry {index} holds a command (number {unknown}) that this version does not know: it was proposed \
                 by a newer version. Nothing of it was applied; start that version on this data directory"
            );
            self.fatal.set(FatalKind::UnknownCommand, message.clone());
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        let audits = |command: &Command| matches!(command.body, Some(Body::BeginAudit(_)));
        if batch.commands.iter().any(audits) {
            self.audited
                .send_replace(Some((index, self.state.digest())));
        }
        let applied = self.state.apply(index, batch);
        self.costs.add(Stage::Apply, started.elapsed());
        if let Err(error) = self.archive.submit(index, applied.archive).await {
            let message = format!("{error}. {ARCHIVE_LOST}");
            self.fatal.set(FatalKind::Archive, message);
            return Err(error);
        }
        if !applied.changes.is_empty() {
            changes.push(Changes::new(
                index,
                self.state.last_stamp_ms(),
                applied.changes,
            ));
        }
        Ok(Answer {
            outcomes: applied.outcomes,
        })
    }

    fn builder(&self) -> Builder {
        Builder {
            state: self.state.clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            cluster_id: self.cluster_id.clone(),
            used_node_ids: Arc::clone(&self.used_node_ids),
            snapshots: self.snapshots.clone(),
            archive: Arc::clone(&self.archive),
            fatal: self.fatal.clone(),
            current: Arc::clone(&self.current),
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut changes = Vec::new();
        let mut answers = Vec::new();
        let mut unpublished = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next.inspect_err(|error| {
                self.fatal.set(
                    FatalKind::Corruption,
                    format!("a committed entry cannot be read back: {error}"),
                );
            })?;
            let index = entry.log_id.index;
            let answer = match entry.payload {
                EntryPayload::Blank => {
                    self.state.apply_blank(index);
                    Answer::default()
                }
                EntryPayload::Membership(membership) => {
                    self.state.apply_blank(index);
                    let ids = membership.nodes().map(|(id, _)| *id);
                    Arc::make_mut(&mut self.used_node_ids).extend(ids);
                    self.set_membership(StoredMembership::new(Some(entry.log_id), membership));
                    self.remember_membership();
                    Answer::default()
                }
                EntryPayload::Normal(commands) => {
                    self.apply_batch(index, commands.0, &mut changes).await?
                }
            };
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                answers.push((responder, answer));
            }
            unpublished += 1;
            if unpublished >= ENTRIES_PER_VIEW {
                unpublished = 0;
                self.publish(&mut changes, &mut answers);
            }
        }
        self.publish(&mut changes, &mut answers);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let SnapshotData { file, received } = snapshot;
        let used_node_ids = file.header().used_node_ids.iter().copied().collect();
        let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
        let last = meta.last_log_id.as_ref().map(log_id_to_wal);
        let snapshots = self.snapshots.clone();
        let host = self.archive.host();
        let installing = async {
            let (part, state, _alone) = match received {
                Some(Received {
                    part,
                    state,
                    archive,
                    _alone,
                }) => {
                    self.archive.install(archive, index).await?;
                    (Some(part), state, Some(_alone))
                }
                None => {
                    let source = file.clone();
                    let state = host.io(move || Ok(source.load()?)).await?;
                    (None, state, None)
                }
            };
            let current = host
                .io(move || match part {
                    Some(part) => Ok(snapshots.finish(&part, last)?),
                    None => Ok(snapshots.copy(&file, last)?),
                })
                .await?;
            io::Result::Ok((state, current))
        };
        let (state, current) = installing.await.inspect_err(|error| {
            self.fatal.set(
                FatalKind::Disk,
                format!(
                    "a snapshot cannot be installed: {error}. Check the disk and how full it is, then start the node again: \
                     the leader sends the snapshot once more"
                ),
            );
        })?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(current);
        self.state = state;
        self.applied = meta.last_log_id;
        self.set_membership(meta.last_membership.clone());
        self.used_node_ids = Arc::new(used_node_ids);
        self.remember_membership();
        self.published.publish(self.view());
        self.published.feed.reset(index);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::alias::SnapshotOf<Types, SnapshotData>>> {
        let current = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        current.map(snapshot_of).transpose()
    }
}

fn snapshot_of(file: SnapshotFile) -> io::Result<openraft::alias::SnapshotOf<Types, SnapshotData>> {
    let meta = snapshot_meta_from_proto(file.header().meta.clone().unwrap_or_default())?;
    Ok(Snapshot {
        meta,
        snapshot: SnapshotData {
            file,
            received: None,
        },
    })
}

/// A view that becomes a file.
pub(crate) struct Builder {
    state: State,
    meta: SnapshotMeta,
    cluster_id: String,
    used_node_ids: Arc<BTreeSet<u64>>,
    snapshots: Snapshots,
    archive: Arc<Archive>,
    fatal: FatalCell,
    current: CurrentSnapshot,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(
        &mut self,
    ) -> io::Result<openraft::alias::SnapshotOf<Types, SnapshotData>> {
        let index = self.meta.last_log_id.as_ref().map_or(0, |id| id.index);
        // Consensus stops on an error here, and would say no more than that it did.
        self.archive.checkpoint(index).await.inspect_err(|error| {
            // A store that is closed does not stop for it.
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.fatal.set(
                    FatalKind::Archive,
                    format!("the archive cannot be written: {error}. {ARCHIVE_LOST}"),
                );
            }
        })?;
        let header = proto::SnapshotHeader {
            format: SNAPSHOT_FORMAT,
            cluster_id: self.cluster_id.clone(),
            meta: Some(proto::SnapshotMeta {
                last_log_id: self.meta.last_log_id.as_ref().map(log_id_to_proto),
                last_membership: Some(stored_membership_to_proto(&self.meta.last_membership)),
                snapshot_id: String::new(),
                hot_bytes: 0,
            }),
            used_node_ids: self.used_node_ids.iter().copied().collect(),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            ..proto::SnapshotHeader::default()
        };
        let (state, snapshots) = (self.state.clone(), self.snapshots.clone());
        let written = self
            .archive
            .host()
            .io(move || {
                let digest = state.digest();
                Ok(snapshots.write(&header, state.snapshot_rows(), &digest)?)
            })
            .await;
        let file = match written {
            Ok(file) => file,
            Err(error) => {
                let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                if is_full(&error)
                    && let Some(kept) = current.clone()
                {
                    // The log is not shortened this time, no more; consensus takes an older one for none.
                    tracing::error!(%error, "there is no room for a snapshot: free space on the disk");
                    self.snapshots.tell_full();
                    return snapshot_of(kept);
                }
                self.fatal.set(
                    FatalKind::Disk,
                    format!(
                        "a snapshot cannot be written: {error}. Nothing acknowledged is lost: check the disk and how full it \
                         is, then start the node again"
                    ),
                );
                return Err(error);
            }
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was received meanwhile is newer.
        if current
            .as_ref()
            .is_none_or(|current| current.last() < file.last())
        {
            *current = Some(file.clone());
        }
        drop(current);
        snapshot_of(file)
    }
}
