//! A cluster that lost its quorum for good goes on as another one, from one node's disk.
//!
//! What that node has in its log counts, committed or not: who could tell is gone. What only the lost nodes had is lost.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use trireme_proto::raft::{self as proto, Node, entry::Payload};
use trireme_state::{State, is_known};

use super::{
    COPY_ROWS, Founded, Founding, OfflineError, RECOVER_GAP, archive_home, beside, forget,
    new_cluster_id, put, refused, sync_parent, sync_tree,
};
use crate::{
    archive::{ArchiveHome, ArchiveStore},
    directory::{DataDirectory, Identity, identity_of},
    disk::{Disk, RealDisk},
    sealed::decode_batch,
    snapshot::Snapshots,
    store::{OpenError, check_log, newest_snapshot},
    wal::{Owner, Wal, WalOptions},
};

/// Bytes of log read at once.
const READ_BYTES: usize = 4 << 20;

/// What `recover` is told.
#[derive(Debug, Clone, Default)]
pub struct RecoverOptions {
    pub data_dir: PathBuf,
    /// The next that was never used when None.
    pub node_id: Option<u64>,
    /// As the former cluster knew this node when None.
    pub peer_address: Option<String>,
    pub api_address: Option<String>,
    /// Goes on with a state that was found to differ from the majority's.
    pub accept_diverged: bool,
}

/// What a data directory holds.
#[derive(Debug, Clone)]
pub struct Found {
    pub cluster_id: String,
    pub node_id: u64,
    /// Log index of the snapshot that the log was replayed from, if there was one.
    pub snapshot: Option<u64>,
    /// Index and term of the last entry.
    pub revision: u64,
    pub term: u64,
    /// Up to here this node knew the entries to be committed.
    pub committed: Option<u64>,
    /// Entries after that, which count as well.
    pub beyond_committed: u64,
    pub members: Vec<Node>,
    pub used_node_ids: Vec<u64>,
    pub live_jobs: usize,
    /// The state's digest at `revision`, in hexadecimal.
    pub digest: String,
    /// Log index of the audit that found this node's state to differ from the majority's, if one did.
    pub diverged: Option<u64>,
}

/// What will be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Id of the new cluster.
    pub cluster_id: String,
    pub node: Node,
    /// Members of the former cluster other than this node.
    pub dropped: Vec<Node>,
    /// Where the present directory will be.
    pub kept: PathBuf,
}

/// A data directory whose node does not run, locked and read.
#[derive(Debug)]
pub struct Recovery {
    data_dir: PathBuf,
    identity: Identity,
    /// Held until the new directory is in its place.
    _directory: DataDirectory,
    wal: Wal,
    base: State,
    state: State,
    term: u64,
    members: Vec<Node>,
    used_node_ids: BTreeSet<u64>,
    found: Found,
}

impl Recovery {
    /// Locks and reads a directory; changes no more in it than a start of the node would.
    ///
    /// # Errors
    /// When it is in use, damaged, or holds nothing.
    pub fn open(data_dir: &Path) -> Result<Self, OfflineError> {
        Self::open_on(Arc::new(RealDisk), data_dir)
    }

    fn open_on(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<Self, OfflineError> {
        let Some(identity) = identity_of(&*disk, data_dir)? else {
            return refused(format!(
                "{} is no data directory of a cluster's node (there is no IDENTITY in it): check --data-dir",
                data_dir.display()
            ));
        };
        let directory = DataDirectory::open(Arc::clone(&disk), data_dir, identity.node_id)?;
        let owner = Owner {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
        };
        let snapshots = Snapshots::open(Arc::clone(&disk), &data_dir.join("snapshots"))?;
        check_log(
            &*disk,
            &data_dir.join("wal"),
            directory.has_log()?,
            &snapshots,
        )?;
        let wal = Wal::open(
            Arc::clone(&disk),
            &data_dir.join("wal"),
            owner,
            &WalOptions::default(),
        )
        .map_err(|error| OfflineError::Open(error.into()))?;
        let log = wal.state();
        let newest = newest_snapshot(&snapshots, &identity.cluster_id, &log)?;
        let (header, base) = match &newest {
            Some((file, state)) => (file.header().clone(), state.clone()),
            None => (proto::SnapshotHeader::default(), State::new()),
        };
        let snapshot = newest.is_some().then(|| base.last_index());
        let meta = header.meta.unwrap_or_default();
        let mut replay = Replay {
            state: base.clone(),
            membership: meta
                .last_membership
                .and_then(|stored| stored.membership)
                .unwrap_or_default(),
            used_node_ids: header.used_node_ids.into_iter().collect(),
            term: meta
                .last_log_id
                .and_then(|last| last.leader)
                .map_or(0, |leader| leader.term),
        };
        replay.run(&wal, &mut |_| Ok(()))?;
        if replay.state.last_index() == 0 {
            return refused(format!(
                "{} holds no entries: there is nothing to recover. Recover the node of the former cluster whose disk has \
                 the most",
                data_dir.display()
            ));
        }
        let voted = log.vote.and_then(|vote| vote.leader);
        let revision = replay.state.last_index();
        let committed = log.committed.map(|committed| committed.index);
        let committed = committed.max(snapshot);
        let found = Found {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            snapshot,
            revision,
            term: replay.term,
            committed,
            beyond_committed: revision.saturating_sub(committed.unwrap_or(0)),
            members: replay.membership.nodes.clone(),
            used_node_ids: replay.used_node_ids.iter().copied().collect(),
            live_jobs: replay.state.counts().live_jobs,
            digest: hex::encode(replay.state.digest()),
            diverged: directory.diverged()?.map(|diverged| diverged.audit),
        };
        replay.used_node_ids.insert(identity.node_id);
        Ok(Self {
            data_dir: data_dir.to_owned(),
            identity,
            _directory: directory,
            wal,
            base,
            state: replay.state,
            term: replay.term.max(voted.map_or(0, |leader| leader.term)),
            members: replay.membership.nodes,
            used_node_ids: replay.used_node_ids,
            found,
        })
    }

    pub fn found(&self) -> &Found {
        &self.found
    }

    fn founding(&self) -> Founding {
        Founding::new(
            self.identity.cluster_id.clone(),
            self.state.clone(),
            self.term,
            self.members.clone(),
            self.used_node_ids.clone(),
            RECOVER_GAP,
        )
    }

    /// What [`Recovery::carry_out`] will do. `stamp` names the directory that is kept.
    ///
    /// # Errors
    /// When the node id was used before, an address is missing, or the state is of a newer version or known to be wrong.
    pub fn plan(&self, options: &RecoverOptions, stamp: &str) -> Result<Plan, OfflineError> {
        if let Some(audit) = self.found.diverged
            && !options.accept_diverged
        {
            return refused(format!(
                "this node's state was found to differ from the majority's at entry {audit} (DIVERGED in its data \
                 directory): recover from another node's disk, or restore a saved snapshot. If there is neither, \
                 --accept-diverged goes on with what is here"
            ));
        }
        let founding = self.founding();
        let me = |node: &&Node| node.id == self.identity.node_id;
        let known = founding
            .members
            .iter()
            .find(me)
            .cloned()
            .unwrap_or_default();
        let node = Node {
            id: options.node_id.unwrap_or_else(|| founding.next_node_id()),
            peer_address: options.peer_address.clone().unwrap_or(known.peer_address),
            api_address: options.api_address.clone().unwrap_or(known.api_address),
            ..Node::default()
        };
        founding.check(&node)?;
        let kept = beside(&self.data_dir, &format!("before-recover-{stamp}"))?;
        if kept.exists() {
            return refused(format!(
                "{} is there already: move it away first",
                kept.display()
            ));
        }
        let others = founding.members.iter();
        Ok(Plan {
            cluster_id: new_cluster_id(),
            node,
            dropped: others
                .filter(|node| node.id != self.identity.node_id)
                .cloned()
                .collect(),
            kept,
        })
    }

    /// Writes the new directory aside, then exchanges it with the old one, which stays beside it.
    ///
    /// # Errors
    /// When a write fails; then the old directory is as it was.
    pub fn carry_out(self, plan: Plan) -> Result<Founded, OfflineError> {
        let aside = beside(
            &self.data_dir,
            &format!("recovering-{}", uuid::Uuid::new_v4()),
        )?;
        let (from, to) = (archive_home(&self.data_dir)?, archive_home(&aside)?);
        let written = self.write(Arc::new(RealDisk), &aside, &*from, to, &plan);
        let mut founded = written
            .and_then(|founded| {
                sync_tree(&aside).map_err(OfflineError::io("syncing", &aside))?;
                Ok(founded)
            })
            .inspect_err(|_| forget(&aside))?;
        exchange(&self.data_dir, &aside, &plan.kept)
            .map_err(OfflineError::io("renaming", &self.data_dir))?;
        founded.kept = Some(plan.kept);
        Ok(founded)
    }

    fn write(
        &self,
        disk: Arc<dyn Disk>,
        aside: &Path,
        from: &dyn ArchiveHome,
        to: Arc<dyn ArchiveHome>,
        plan: &Plan,
    ) -> Result<Founded, OfflineError> {
        let (cluster_id, node) = (plan.cluster_id.clone(), plan.node.clone());
        let mut fill = |store: &dyn ArchiveStore| {
            let archived = |error: io::Error| OfflineError::Open(OpenError::Archive(error));
            let former = from.open().map_err(archived)?;
            if let Some(lost) = &former.lost {
                tracing::warn!(
                    lost,
                    "the archive does not open: finished history is missing"
                );
            }
            if former.store.missing().map_err(archived)?.is_some() {
                tracing::warn!(
                    "this node's archive was still being filled from a peer: some finished history is missing"
                );
            }
            let mut rows = copy(&*former.store, store).map_err(archived)?;
            // What the log holds may not have reached the archive.
            let mut replay = Replay {
                state: self.base.clone(),
                ..Replay::default()
            };
            replay.run(&self.wal, &mut |ops| {
                rows += ops.len() as u64;
                store.write(&ops, 0)
            })?;
            Ok(rows)
        };
        self.founding()
            .write(disk, aside, to, cluster_id, node, &mut fill)
    }
}

/// A log on its way into a state.
#[derive(Debug, Default)]
struct Replay {
    state: State,
    membership: proto::Membership,
    used_node_ids: BTreeSet<u64>,
    term: u64,
}

impl Replay {
    /// Applies what the log holds beyond the state; hands over what goes into the archive.
    fn run(
        &mut self,
        wal: &Wal,
        archive: &mut dyn FnMut(Vec<trireme_state::ArchiveOp>) -> io::Result<()>,
    ) -> Result<(), OfflineError> {
        let unreadable = |error: io::Error| {
            OfflineError::Open(OpenError::Unrecoverable {
                reason: error.to_string(),
            })
        };
        loop {
            let next = self.state.last_index() + 1;
            // The first entry of all has index 0: a blank one, or the first membership.
            let from = if next == 1 { 0 } else { next };
            let entries = wal
                .read_blocking(from..u64::MAX, READ_BYTES)
                .map_err(unreadable)?;
            let before = self.state.last_index();
            for entry in entries {
                let ops = self.entry(entry)?;
                if !ops.is_empty() {
                    archive(ops).map_err(|error| OfflineError::Open(OpenError::Archive(error)))?;
                }
            }
            if self.state.last_index() == before {
                return Ok(());
            }
        }
    }

    fn entry(
        &mut self,
        entry: proto::Entry,
    ) -> Result<Vec<trireme_state::ArchiveOp>, OfflineError> {
        let id = entry.log_id.unwrap_or_default();
        self.term = self.term.max(id.leader.map_or(0, |leader| leader.term));
        let unreadable = |what: &dyn std::fmt::Display| {
            OfflineError::Open(OpenError::Unrecoverable {
                reason: format!("entry {} cannot be decoded: {what}", id.index),
            })
        };
        match entry.payload {
            Some(Payload::Blank(_)) => self.state.apply_blank(id.index),
            Some(Payload::Membership(membership)) => {
                self.state.apply_blank(id.index);
                let ids = membership.nodes.iter().map(|node| node.id);
                self.used_node_ids.extend(ids);
                self.membership = membership;
            }
            Some(Payload::Batch(bytes)) => {
                let batch = decode_batch(bytes).map_err(|error| unreadable(&error))?;
                if !batch.commands.iter().all(is_known) {
                    return Err(OfflineError::TooNew(format!(
                        "entry {} holds a command of a newer version: recover with that version",
                        id.index
                    )));
                }
                return Ok(self.state.apply(id.index, batch).archive);
            }
            None => {
                return Err(unreadable(
                    &"it is of a kind that this version does not know",
                ));
            }
        }
        Ok(Vec::new())
    }
}

fn copy(from: &dyn ArchiveStore, to: &dyn ArchiveStore) -> io::Result<u64> {
    let (mut copied, mut after) = (0, None::<bytes::Bytes>);
    loop {
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = from.range((start, Bound::Unbounded), false, COPY_ROWS)?;
        let Some((last, _)) = rows.last() else {
            return Ok(copied);
        };
        after = Some(last.clone());
        copied += rows.len() as u64;
        put(to, rows.into_iter())?;
    }
}

/// Puts `new` in the place of `dir`, which is then called `kept`.
fn exchange(dir: &Path, new: &Path, kept: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, dir, CWD, new, RenameFlags::EXCHANGE) {
        Ok(()) => fs::rename(new, kept)?,
        // A file system that cannot exchange two names: between the two renames neither is called `dir`.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::rename(dir, kept)?;
            fs::rename(new, dir)?;
        }
        Err(error) => return Err(error.into()),
    }
    sync_parent(dir)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use trireme_proto::state::{
        AcceptDelivery, Batch, Command, CommitPlans, Cursor, Delivery, PutCursor, SweepDeliveries,
        command::Body,
    };

    use super::*;
    use crate::{archive::MemoryHome, disk::MemoryDisk, wal::LogId};

    const DIR: &str = "/data/node";

    fn entry(index: u64, payload: Payload) -> proto::Entry {
        proto::Entry {
            log_id: Some(
                LogId {
                    term: 3,
                    node_id: 1,
                    index,
                }
                .into(),
            ),
            payload: Some(payload),
        }
    }

    fn batch(bodies: Vec<Body>) -> Payload {
        let commands = bodies.into_iter().map(|body| Command {
            body: Some(body),
            ..Command::default()
        });
        let batch = Batch {
            stamp_ms: 1,
            commands: commands.collect(),
        };
        Payload::Batch(batch.encode_to_vec().into())
    }

    /// A log of five entries, three of which this node knew to be committed.
    fn disk(entries: Vec<Payload>) -> MemoryDisk {
        let disk = MemoryDisk::new();
        let dir = Path::new(DIR);
        let mut directory = DataDirectory::open(Arc::new(disk.clone()), dir, 2).unwrap();
        directory.adopt("former", 2).unwrap();
        let owner = Owner {
            cluster_id: "former".to_owned(),
            node_id: 2,
        };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let wal = Wal::open(shared, &dir.join("wal"), owner, &WalOptions::default()).unwrap();
        let entries = entries.into_iter().enumerate();
        let entries = entries.map(|(index, payload)| entry(index as u64, payload));
        futures::executor::block_on(async {
            wal.append(entries.collect(), Box::new(|written| written.unwrap()))
                .await
                .unwrap();
            let committed = LogId {
                term: 3,
                node_id: 1,
                index: 2,
            };
            wal.save_committed(Some(committed)).await.unwrap();
        });
        wal.close();
        disk
    }

    fn log() -> Vec<Payload> {
        let nodes = (1..=3).map(|id| Node {
            id,
            peer_address: format!("peer-{id}"),
            api_address: format!("api-{id}"),
            ..Node::default()
        });
        vec![
            Payload::Membership(proto::Membership {
                configs: vec![proto::VoterSet {
                    node_ids: vec![1, 2, 3],
                }],
                nodes: nodes.collect(),
            }),
            Payload::Blank(proto::Blank {}),
            batch(vec![Body::AcceptDelivery(AcceptDelivery {
                delivery: Some(Delivery {
                    guid: "guid".to_owned(),
                    event: "ping".to_owned(),
                    ..Delivery::default()
                }),
            })]),
            batch(vec![
                Body::CommitPlans(CommitPlans {
                    guid: "guid".to_owned(),
                    ..CommitPlans::default()
                }),
                Body::SweepDeliveries(SweepDeliveries {
                    guids: vec!["guid".to_owned()],
                }),
            ]),
            batch(vec![Body::PutCursor(PutCursor {
                cursors: vec![Cursor {
                    key: "last".to_owned(),
                    value: "word".to_owned(),
                    ..Cursor::default()
                }],
            })]),
        ]
    }

    #[test]
    fn everything_in_the_log_counts_and_history_goes_along() {
        let disk = disk(log());
        let recovery = Recovery::open_on(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
        let found = recovery.found();
        assert_eq!((found.revision, found.term, found.snapshot), (4, 3, None));
        assert_eq!((found.committed, found.beyond_committed), (Some(2), 2));
        let plan = recovery
            .plan(&RecoverOptions::default(), "2026-01-02")
            .unwrap();
        assert_eq!((plan.node.id, &*plan.node.peer_address), (4, "peer-2"));
        let dropped: Vec<u64> = plan.dropped.iter().map(|node| node.id).collect();
        assert_eq!(dropped, [1, 3]);
        assert_eq!(plan.kept, Path::new("/data/node.before-recover-2026-01-02"));
        let again = RecoverOptions {
            node_id: Some(3),
            ..RecoverOptions::default()
        };
        let error = recovery.plan(&again, "x").unwrap_err().to_string();
        assert!(error.starts_with("node id 3 was used"), "{error}");

        let (from, to) = (MemoryHome::default(), Arc::new(MemoryHome::default()));
        let old = (Bytes::from_static(b"old"), Bytes::from_static(b"row"));
        put(&*from.open().unwrap().store, std::iter::once(old)).unwrap();
        let aside = Path::new("/data/aside");
        let founded = recovery
            .write(
                Arc::new(disk.clone()),
                aside,
                &from,
                Arc::clone(&to) as Arc<dyn ArchiveHome>,
                &plan,
            )
            .unwrap();
        assert_eq!(founded.revision, 4 + RECOVER_GAP);
        let archive = to.open().unwrap().store;
        assert!(archive.get(b"old").unwrap().is_some());
        let prefix = trireme_state::archive_keys::delivery("guid").prefix();
        let rows = archive
            .range((Bound::Included(&prefix), Bound::Unbounded), false, 1)
            .unwrap();
        assert!(rows[0].0.starts_with(&prefix));

        // The old directory is still whole, the new one is another cluster's.
        drop(recovery);
        Recovery::open_on(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
        let new = Recovery::open_on(Arc::new(disk), aside).unwrap();
        assert_eq!(new.found().cluster_id, founded.cluster_id);
        assert_eq!(new.state.cursor("last").unwrap().value, "word");
        assert_eq!(new.found().used_node_ids, [1, 2, 3, 4]);
    }

    #[test]
    fn a_directory_in_use_or_without_a_cluster_is_refused() {
        let disk = disk(log());
        let held = Recovery::open_on(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
        let error = Recovery::open_on(Arc::new(disk.clone()), Path::new(DIR)).unwrap_err();
        assert!(error.to_string().contains("is in use"), "{error}");
        drop(held);
        let error = Recovery::open_on(Arc::new(disk), Path::new("/data/none")).unwrap_err();
        insta::assert_snapshot!(error, @"/data/none is no data directory of a cluster's node (there is no IDENTITY in it): check --data-dir");
    }

    #[test]
    fn an_entry_of_a_newer_version_is_refused() {
        let mut entries = log();
        let unknown = Batch {
            commands: vec![Command::default()],
            ..Batch::default()
        };
        entries.push(Payload::Batch(unknown.encode_to_vec().into()));
        let error = Recovery::open_on(Arc::new(disk(entries)), Path::new(DIR)).unwrap_err();
        insta::assert_snapshot!(error, @"entry 5 holds a command of a newer version: recover with that version");
    }

    #[test]
    fn directories_change_places_at_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["old", "new"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("who"), name).unwrap();
        }
        exchange(&at("old"), &at("new"), &at("kept")).unwrap();
        assert_eq!(fs::read_to_string(at("old/who")).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("kept/who")).unwrap(), "old");
        assert!(!at("new").exists());
    }
}
