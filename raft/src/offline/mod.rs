//! What is done to data directories while no node runs on them: a new cluster is founded from a saved snapshot
//! ([`restore`]), or from the last disk of a cluster that lost its quorum for good ([`Recovery`]).
//!
//! Both write a whole data directory aside, sync it, and put it in its place with one rename, so that an interruption
//! leaves what was there before or what is there afterwards. The new cluster has a new id and one voter; ids that nodes
//! of the former cluster had stay used; terms and log indexes go on behind all that the former cluster may have given
//! away as epochs, fences and incarnations.
//!
//! All calls block.

mod recover;
mod saved;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use trireme_proto::raft::{self as proto, Node};
use trireme_state::{ArchiveOp, FEATURE_LEVEL, State};
use uuid::Uuid;

pub use recover::{Found, Plan, RecoverOptions, Recovery};
pub(crate) use saved::write_saved;
pub use saved::{Inspection, SAVED_FORMAT, inspect};

use self::saved::SavedSnapshot;
use crate::{
    archive::{ArchiveHome, ArchiveStore, SledHome},
    directory::{DataDirectory, DirectoryError},
    disk::{Disk, RealDisk},
    snapshot::{SNAPSHOT_FORMAT, SnapshotError, Snapshots},
    store::OpenError,
    wal::{LogId, Owner, Wal, WalOptions},
};

/// How far behind the saved revision a restored cluster goes on: more than the former one can have written since. What
/// it gave away as epochs, fences and incarnations after the snapshot was saved is never given again.
const RESTORE_GAP: u64 = 1_000_000_000;
/// The same for a node's own log: more than the lost nodes can have had beyond it.
const RECOVER_GAP: u64 = 1_000_000;
/// Rows of the archive copied at once.
const COPY_ROWS: usize = 1000;

/// Why a directory was not made.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// What is on disk cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was made by a newer version.
    #[error("{0}")]
    TooNew(String),
    #[error("{0}")]
    Refused(String),
    #[error("{doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl OfflineError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

impl From<SnapshotError> for OfflineError {
    fn from(error: SnapshotError) -> Self {
        Self::Open(error.into())
    }
}

impl From<DirectoryError> for OfflineError {
    fn from(error: DirectoryError) -> Self {
        Self::Open(error.into())
    }
}

fn refused<T>(reason: String) -> Result<T, OfflineError> {
    Err(OfflineError::Refused(reason))
}

/// What `snapshot restore` is told.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    pub file: PathBuf,
    /// Absent or empty.
    pub data_dir: PathBuf,
    /// Never used in the cluster that the snapshot is of.
    pub node_id: u64,
    pub peer_address: String,
    pub api_address: String,
}

/// A data directory that begins a cluster.
#[derive(Debug, Clone)]
pub struct Founded {
    pub cluster_id: String,
    pub former_cluster_id: String,
    pub node: Node,
    /// Revision of the former cluster that the state is of.
    pub former_revision: u64,
    /// Log index with which the new cluster begins.
    pub revision: u64,
    pub archive_rows: u64,
    /// Ids that no node may have any more, in order.
    pub used_node_ids: Vec<u64>,
    /// Where the former directory is now, if there was one.
    pub kept: Option<PathBuf>,
}

/// Makes a data directory of a new cluster with the state and archive of a saved snapshot.
///
/// # Errors
/// When the file is damaged or of a newer version, the node id was used before, or the directory is not empty.
pub fn restore(options: &RestoreOptions) -> Result<Founded, OfflineError> {
    check_empty(&options.data_dir)?;
    // All of it, before anything is written.
    let file = SavedSnapshot::open(&options.file)?;
    let (state, header) = file.read(|_| {}, |_| Ok(()))?;
    let founding = Founding::after(&header, state, RESTORE_GAP);
    let node = Node {
        id: options.node_id,
        peer_address: options.peer_address.clone(),
        api_address: options.api_address.clone(),
        ..Node::default()
    };
    founding.check(&node)?;
    let aside = beside(&options.data_dir, &format!("restoring-{}", Uuid::new_v4()))?;
    let mut fill = |store: &dyn ArchiveStore| {
        let mut rows = 0;
        file.read(
            |_| {},
            |page| {
                rows += page.len() as u64;
                put(store, page.into_iter().map(|row| (row.key, row.value)))
            },
        )?;
        Ok(rows)
    };
    let made = archive_home(&aside).and_then(|home| {
        let disk = Arc::new(RealDisk);
        let founded = founding.write(disk, &aside, home, new_cluster_id(), node, &mut fill)?;
        sync_tree(&aside).map_err(OfflineError::io("syncing", &aside))?;
        // Replaces an empty directory.
        fs::rename(&aside, &options.data_dir).map_err(OfflineError::io("renaming", &aside))?;
        Ok(founded)
    });
    let founded = made.inspect_err(|_| forget(&aside))?;
    sync_parent(&options.data_dir).map_err(OfflineError::io("syncing", &options.data_dir))?;
    Ok(founded)
}

/// What was not finished is of no use to anybody.
fn forget(aside: &Path) {
    if let Err(error) = fs::remove_dir_all(aside)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %aside.display(), "an unfinished directory is left: remove it");
    }
}

fn new_cluster_id() -> String {
    Uuid::new_v4().to_string()
}

fn check_empty(dir: &Path) -> Result<(), OfflineError> {
    let first = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OfflineError::io("reading", dir)(error)),
    };
    match first {
        None => Ok(()),
        Some(_) => refused(format!(
            "{} is not empty: a snapshot is restored into a directory of its own; name another, or move this one away",
            dir.display()
        )),
    }
}

/// A name beside `dir`, on the same file system.
fn beside(dir: &Path, suffix: &str) -> Result<PathBuf, OfflineError> {
    let name = dir.file_name().and_then(|name| name.to_str());
    let Some(name) = name else {
        return refused(format!(
            "{} has no name of its own: give the data directory by its full path",
            dir.display()
        ));
    };
    Ok(dir.with_file_name(format!("{name}.{suffix}")))
}

fn archive_home(dir: &Path) -> Result<Arc<dyn ArchiveHome>, OfflineError> {
    let root = dir.join("archive");
    fs::create_dir_all(&root).map_err(OfflineError::io("creating", &root))?;
    Ok(Arc::new(SledHome::new(&root)))
}

fn put(
    store: &dyn ArchiveStore,
    rows: impl Iterator<Item = crate::archive::Row>,
) -> io::Result<()> {
    let ops: Vec<ArchiveOp> = rows
        .map(|(key, value)| ArchiveOp::Put { key, value })
        .collect();
    if ops.is_empty() {
        return Ok(());
    }
    store.write(&ops, 0)
}

/// What a new cluster begins with.
#[derive(Debug)]
struct Founding {
    former_cluster_id: String,
    former_revision: u64,
    /// At `last.index`.
    state: State,
    /// Stands for all that came before; its node id is the new node's once that is known.
    last: LogId,
    used_node_ids: BTreeSet<u64>,
    members: Vec<Node>,
}

impl Founding {
    /// From a state of the cluster of `header`, which names the membership and the last term.
    fn after(header: &proto::SnapshotHeader, state: State, gap: u64) -> Self {
        let meta = header.meta.clone().unwrap_or_default();
        let last = meta.last_log_id.as_ref().map(LogId::from);
        let membership = meta.last_membership.unwrap_or_default();
        let members = membership.membership.unwrap_or_default().nodes;
        Self::new(
            header.cluster_id.clone(),
            state,
            last.map_or(0, |last| last.term),
            members,
            header.used_node_ids.iter().copied().collect(),
            gap,
        )
    }

    fn new(
        former_cluster_id: String,
        state: State,
        term: u64,
        members: Vec<Node>,
        mut used_node_ids: BTreeSet<u64>,
        gap: u64,
    ) -> Self {
        used_node_ids.extend(members.iter().map(|node| node.id));
        let former_revision = state.last_index();
        let index = former_revision.saturating_add(gap);
        Self {
            former_cluster_id,
            former_revision,
            last: LogId {
                // Behind every term of the former cluster that is known here.
                term: term.max(state.office().term).saturating_add(1),
                node_id: 0,
                index,
            },
            state: state.for_new_cluster(index),
            used_node_ids,
            members,
        }
    }

    fn check(&self, node: &Node) -> Result<(), OfflineError> {
        let level = self.state.feature_level();
        if level > FEATURE_LEVEL {
            return Err(OfflineError::TooNew(format!(
                "the state is at feature level {level}, this version knows {FEATURE_LEVEL}: use the version that wrote it"
            )));
        }
        if node.id == 0 {
            return refused("a node needs an id of at least 1".to_owned());
        }
        if self.used_node_ids.contains(&node.id) {
            let used: Vec<String> = self.used_node_ids.iter().map(u64::to_string).collect();
            return refused(format!(
                "node id {} was used in the former cluster (used: {}): node ids are never reused, choose {} or more",
                node.id,
                used.join(", "),
                self.next_node_id()
            ));
        }
        if node.peer_address.is_empty() {
            return refused("the new node needs a peer address: give --peer host:port".to_owned());
        }
        Ok(())
    }

    fn next_node_id(&self) -> u64 {
        self.used_node_ids.last().map_or(1, |last| last + 1)
    }

    /// Writes the data directory of the new cluster's first node. `fill` puts rows into the archive and counts them.
    fn write(
        self,
        disk: Arc<dyn Disk>,
        dir: &Path,
        home: Arc<dyn ArchiveHome>,
        cluster_id: String,
        mut node: Node,
        fill: &mut dyn FnMut(&dyn ArchiveStore) -> Result<u64, OfflineError>,
    ) -> Result<Founded, OfflineError> {
        let mut directory = DataDirectory::open(Arc::clone(&disk), dir, node.id)?;
        node.instance = directory.adopt(&cluster_id, node.id)?.instance;
        let last = LogId {
            node_id: node.id,
            ..self.last
        };
        let archived = |error: io::Error| OfflineError::Open(OpenError::Archive(error));
        let store = home.open().map_err(archived)?.store;
        store.set_owner(&cluster_id).map_err(archived)?;
        let archive_rows = fill(&*store)?;
        store
            .write(&[], last.index)
            .and_then(|()| store.checkpoint())
            .map_err(archived)?;
        drop(store);

        let mut used_node_ids = self.used_node_ids;
        used_node_ids.insert(node.id);
        let membership = proto::Membership {
            configs: vec![proto::VoterSet {
                node_ids: vec![node.id],
            }],
            nodes: vec![node.clone()],
        };
        let header = proto::SnapshotHeader {
            format: SNAPSHOT_FORMAT,
            cluster_id: cluster_id.clone(),
            meta: Some(proto::SnapshotMeta {
                last_log_id: Some(last.into()),
                last_membership: Some(proto::StoredMembership {
                    log_id: Some(last.into()),
                    membership: Some(membership),
                }),
                ..proto::SnapshotMeta::default()
            }),
            used_node_ids: used_node_ids.iter().copied().collect(),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            ..proto::SnapshotHeader::default()
        };
        let snapshots = Snapshots::open(Arc::clone(&disk), &dir.join("snapshots"))?;
        snapshots.write(&header, self.state.snapshot_rows(), &self.state.digest())?;
        let owner = Owner {
            cluster_id: cluster_id.clone(),
            node_id: node.id,
        };
        let wal_dir = dir.join("wal");
        let wal = Wal::open(disk, &wal_dir, owner, &WalOptions::default())
            .map_err(|error| OfflineError::Open(error.into()))?;
        let begun = futures::executor::block_on(async {
            // The next term that is asked for is behind that of the last entry.
            let leader = proto::LeaderId {
                term: last.term,
                node_id: node.id,
            };
            wal.save_vote(proto::Vote {
                leader: Some(leader),
                committed: false,
            })
            .await?;
            wal.purge(last).await
        });
        wal.close();
        let begun = begun.and_then(|()| match wal.failed() {
            Some(reason) => Err(io::Error::other(reason)),
            None => Ok(()),
        });
        begun.map_err(OfflineError::io("writing", &wal_dir))?;
        Ok(Founded {
            cluster_id,
            former_cluster_id: self.former_cluster_id,
            node,
            former_revision: self.former_revision,
            revision: last.index,
            archive_rows,
            used_node_ids: used_node_ids.into_iter().collect(),
            kept: None,
        })
    }
}

/// Makes everything below `dir` durable, whoever wrote it.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        archive::MemoryHome,
        disk::MemoryDisk,
        snapshot::SnapshotFile,
        store::{newer_state, newest_snapshot},
    };

    fn founding() -> Founding {
        let mut state = State::new();
        state.apply_blank(40);
        let members = (1..=3).map(|id| Node {
            id,
            peer_address: format!("peer-{id}"),
            ..Node::default()
        });
        Founding::new(
            "former".to_owned(),
            state,
            5,
            members.collect(),
            BTreeSet::from([9]),
            100,
        )
    }

    fn node(id: u64) -> Node {
        Node {
            id,
            peer_address: "peer".to_owned(),
            ..Node::default()
        }
    }

    #[test]
    fn node_ids_of_the_former_cluster_stay_used() {
        let founding = founding();
        insta::assert_snapshot!(founding.check(&node(2)).unwrap_err(), @"node id 2 was used in the former cluster (used: 1, 2, 3, 9): node ids are never reused, choose 10 or more");
        insta::assert_snapshot!(founding.check(&node(0)).unwrap_err(), @"a node needs an id of at least 1");
        founding.check(&node(10)).unwrap();
    }

    #[test]
    fn a_founded_directory_survives_a_power_cut_and_goes_on_behind_the_former_cluster() {
        let disk = MemoryDisk::new();
        let dir = Path::new("/new");
        let home = Arc::new(MemoryHome::default());
        let founded = founding()
            .write(
                Arc::new(disk.clone()),
                dir,
                Arc::clone(&home) as Arc<dyn ArchiveHome>,
                new_cluster_id(),
                node(10),
                &mut |store| {
                    let row = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
                    put(store, std::iter::once(row)).unwrap();
                    Ok(1)
                },
            )
            .unwrap();
        assert_eq!((founded.former_revision, founded.revision), (40, 140));
        assert_eq!(founded.used_node_ids, [1, 2, 3, 9, 10]);
        let archive = home.open().unwrap().store;
        assert_eq!(archive.applied().unwrap(), 140);
        assert_eq!(archive.owner().unwrap(), Some(founded.cluster_id.clone()));

        let disk: Arc<dyn Disk> = Arc::new(disk.after_power_cut(|| false));
        let directory = DataDirectory::open(Arc::clone(&disk), dir, 10).unwrap();
        let identity = directory.identity().unwrap();
        assert_eq!(identity.cluster_id, founded.cluster_id);
        assert_eq!(identity.instance, founded.node.instance);
        let owner = Owner {
            cluster_id: founded.cluster_id.clone(),
            node_id: 10,
        };
        let wal = Wal::open(
            Arc::clone(&disk),
            &dir.join("wal"),
            owner,
            &WalOptions::default(),
        )
        .unwrap();
        let log = wal.state();
        let last = LogId {
            term: 6,
            node_id: 10,
            index: 140,
        };
        assert_eq!((log.last, log.purged), (Some(last), Some(last)));
        assert_eq!(log.vote.unwrap().leader.unwrap().term, 6);
        let snapshots = Snapshots::open(disk, &dir.join("snapshots")).unwrap();
        let (file, state): (SnapshotFile, State) =
            newest_snapshot(&snapshots, &founded.cluster_id, &log)
                .unwrap()
                .unwrap();
        assert_eq!((file.last(), state.last_index()), (Some(last), 140));
        assert_eq!(file.header().used_node_ids, [1, 2, 3, 9, 10]);
    }

    #[test]
    fn a_state_of_a_newer_version_is_refused() {
        let state = newer_state();
        let founding = Founding::new("c".to_owned(), state, 1, Vec::new(), BTreeSet::new(), 1);
        let error = founding.check(&node(1)).unwrap_err();
        assert!(matches!(error, OfflineError::TooNew(_)), "{error}");
    }
}
