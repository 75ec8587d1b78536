//! A node's data directory: whose it is, and that nobody else uses it.
//!
//! ```text
//! LOCK       exclusive while a node runs
//! IDENTITY   format version, cluster id, node id; absent until the node belongs to a cluster
//! PENDING    the random mark of a directory that belongs to no cluster yet
//! ADMITTED   on the node that bootstraps a cluster: which directories it let in
//! LOG        a log was begun in wal/
//! DIVERGED   this node's state was found to differ from the majority's: it is fetched anew at the next start
//! RESERVE    space that is let go of when the disk is full
//! wal/ snapshots/ archive/
//! ```
//! Node ids are never reused: a directory names its node for ever, and one of another cluster, node or format is
//! refused with an error that says what to do.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use crate::disk::{Disk, DiskLock, read_file, replace_file};

/// Version of the directory's layout.
pub const DIRECTORY_FORMAT: u32 = 1;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: u64,
    /// Random, made when the directory was: tells a wiped node from the one that had its id before.
    pub instance: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is in use by another process (its LOCK is held): stop that node first, or give this one its own data directory",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "{} has data directory format {found}, this version reads format {DIRECTORY_FORMAT}: start the version that wrote \
         it, or give this node an empty data directory and let it join under a new id",
        path.display()
    )]
    Format { path: PathBuf, found: String },
    #[error("{}: line {line}: {what}. The file is written by the node itself: restore it from a backup, or replace the node under a new id with `trireme cluster replace`", path.display())]
    Unreadable {
        path: PathBuf,
        line: usize,
        what: String,
    },
    #[error(
        "{} holds a log but no IDENTITY: it cannot be told whose it is. Restore IDENTITY from a backup, or move the \
         directory away and let the node join under a new id with `trireme cluster replace`",
        path.display()
    )]
    NoIdentity { path: PathBuf },
    #[error(
        "{} belongs to node {found}, but this node is configured as {configured}: correct node_id, or give node \
         {configured} its own data directory",
        path.display()
    )]
    OtherNode {
        path: PathBuf,
        found: u64,
        configured: u64,
    },
    #[error(
        "{} belongs to cluster {found}, not to {expected}: point data_dir at the right directory; a node never changes \
         clusters",
        path.display()
    )]
    OtherCluster {
        path: PathBuf,
        found: String,
        expected: String,
    },
}

impl DirectoryError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// Why the state in a directory is not to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diverged {
    /// Log index of the audit that found it.
    pub audit: u64,
    /// Peer addresses of nodes that had the majority's state.
    pub peers: Vec<String>,
}

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct DataDirectory {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    identity: Option<Identity>,
    instance: String,
    _lock: Box<dyn DiskLock>,
}

impl DataDirectory {
    /// Opens or creates `root` for the node `node_id`.
    pub fn open(disk: Arc<dyn Disk>, root: &Path, node_id: u64) -> Result<Self, DirectoryError> {
        for dir in [
            root.to_owned(),
            root.join("wal"),
            root.join("snapshots"),
            root.join("archive"),
        ] {
            disk.create_dir(&dir)
                .map_err(DirectoryError::io("creating", &dir))?;
        }
        let lock_path = root.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                DirectoryError::InUse {
                    path: root.to_owned(),
                }
            } else {
                DirectoryError::io("locking", &lock_path)(error)
            }
        })?;
        let identity = match fields(&*disk, &root.join("IDENTITY"))? {
            Some(fields) => Some(read_identity(
                &root.join("IDENTITY"),
                &fields,
                root,
                node_id,
            )?),
            None => None,
        };
        let instance = match &identity {
            Some(identity) => identity.instance.clone(),
            None => {
                let wal = root.join("wal");
                let log = disk
                    .list(&wal)
                    .map_err(DirectoryError::io("listing", &wal))?;
                if !log.is_empty() {
                    return Err(DirectoryError::NoIdentity {
                        path: root.to_owned(),
                    });
                }
                pending_instance(&*disk, root)?
            }
        };
        Ok(Self {
            disk,
            root: root.to_owned(),
            identity,
            instance,
            _lock: lock,
        })
    }

    /// None while the directory belongs to no cluster.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The directory's random mark.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory that of `node_id` in `cluster_id`, for ever.
    pub fn adopt(&mut self, cluster_id: &str, node_id: u64) -> Result<Identity, DirectoryError> {
        if let Some(identity) = &self.identity {
            if identity.cluster_id != cluster_id {
                return Err(DirectoryError::OtherCluster {
                    path: self.root.clone(),
                    found: identity.cluster_id.clone(),
                    expected: cluster_id.to_owned(),
                });
            }
            return Ok(identity.clone());
        }
        let identity = Identity {
            cluster_id: cluster_id.to_owned(),
            node_id,
            instance: self.instance.clone(),
        };
        let path = self.root.join("IDENTITY");
        let text = format!(
            "# Whose data directory this is. Do not edit, and do not copy the directory to another node.\n\
             format = {DIRECTORY_FORMAT}\ncluster_id = {}\nnode_id = {}\ninstance = {}\n",
            identity.cluster_id, identity.node_id, identity.instance
        );
        replace_file(&*self.disk, &path, text.as_bytes())
            .map_err(DirectoryError::io("writing", &path))?;
        // The directory's own name; its parent may not be ours to open.
        if let Some(parent) = self.root.parent()
            && let Err(error) = self.disk.sync_dir(parent)
        {
            tracing::warn!(%error, path = %parent.display(), "cannot sync the parent of the data directory");
        }
        let pending = self.root.join("PENDING");
        match self.disk.unlink(&pending) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DirectoryError::io("removing", &pending)(error));
            }
            _ => {}
        }
        self.identity = Some(identity.clone());
        Ok(identity)
    }

    /// Which directory stands behind each id that this node let into the cluster while bootstrapping it.
    pub fn admitted(&self) -> Result<BTreeMap<u64, String>, DirectoryError> {
        let path = self.root.join("ADMITTED");
        let mut admitted = BTreeMap::new();
        for (line, (key, value)) in fields(&*self.disk, &path)?.unwrap_or_default() {
            let id = key.parse().map_err(|_| DirectoryError::Unreadable {
                path: path.clone(),
                line,
                what: format!("{key} is no node id"),
            })?;
            admitted.insert(id, value);
        }
        Ok(admitted)
    }

    pub fn set_admitted(&self, admitted: &BTreeMap<u64, String>) -> Result<(), DirectoryError> {
        let path = self.root.join("ADMITTED");
        let text: String = admitted
            .iter()
            .map(|(id, instance)| format!("{id} = {instance}\n"))
            .collect();
        replace_file(&*self.disk, &path, text.as_bytes())
            .map_err(DirectoryError::io("writing", &path))
    }
}

impl DataDirectory {
    /// Whether a log was begun here. It lies in a directory of its own, which may be missing one day.
    pub fn has_log(&self) -> Result<bool, DirectoryError> {
        let path = self.root.join("LOG");
        Ok(fields(&*self.disk, &path)?.is_some())
    }

    /// Says, durably, that a log was begun.
    pub fn set_has_log(&self) -> Result<(), DirectoryError> {
        let path = self.root.join("LOG");
        let text = "# A log was begun in `wal`: without it this node must not go on.\n";
        replace_file(&*self.disk, &path, text.as_bytes())
            .map_err(DirectoryError::io("writing", &path))
    }

    /// Set when this node's state was found to differ from the majority's.
    pub fn diverged(&self) -> Result<Option<Diverged>, DirectoryError> {
        let path = self.root.join("DIVERGED");
        let Some(fields) = fields(&*self.disk, &path)? else {
            return Ok(None);
        };
        let mut found = Diverged {
            audit: 0,
            peers: Vec::new(),
        };
        for (line, (key, value)) in fields {
            match key.as_str() {
                "audit" => {
                    found.audit = value.parse().map_err(|_| DirectoryError::Unreadable {
                        path: path.clone(),
                        line,
                        what: format!("audit {value} is no number"),
                    })?;
                }
                "peer" => found.peers.push(value),
                _ => {}
            }
        }
        Ok(Some(found))
    }

    /// Says, durably, that the state in here is not to be used again.
    pub fn set_diverged(&self, diverged: &Diverged) -> Result<(), DirectoryError> {
        let path = self.root.join("DIVERGED");
        let mut text = format!(
            "# This node's state differed from the majority's. At the next start it is fetched from one of these peers.\n\
             audit = {}\n",
            diverged.audit
        );
        for peer in &diverged.peers {
            text.push_str(&format!("peer = {peer}\n"));
        }
        replace_file(&*self.disk, &path, text.as_bytes())
            .map_err(DirectoryError::io("writing", &path))
    }

    /// The state was fetched.
    pub fn clear_diverged(&self) -> Result<(), DirectoryError> {
        let path = self.root.join("DIVERGED");
        self.disk
            .unlink(&path)
            .and_then(|()| self.disk.sync_dir(&self.root))
            .map_err(DirectoryError::io("removing", &path))
    }
}

/// Whose directory `root` is; None if it is nobody's, or no directory at all. Takes no lock and changes nothing.
pub(crate) fn identity_of(
    disk: &dyn Disk,
    root: &Path,
) -> Result<Option<Identity>, DirectoryError> {
    let path = root.join("IDENTITY");
    let Some(fields) = fields(disk, &path)? else {
        return Ok(None);
    };
    let node_id = fields
        .iter()
        .find(|(_, (key, _))| key == "node_id")
        .and_then(|(_, (_, id))| id.parse().ok())
        // Not one that could be asked for: what is wrong is said below.
        .unwrap_or(0);
    read_identity(&path, &fields, root, node_id).map(Some)
}

fn pending_instance(disk: &dyn Disk, root: &Path) -> Result<String, DirectoryError> {
    let path = root.join("PENDING");
    if let Some(fields) = fields(disk, &path)?
        && let Some((_, (_, instance))) = fields.into_iter().find(|(_, (key, _))| key == "instance")
    {
        return Ok(instance);
    }
    let instance = Uuid::new_v4().to_string();
    replace_file(disk, &path, format!("instance = {instance}\n").as_bytes())
        .map_err(DirectoryError::io("writing", &path))?;
    Ok(instance)
}

/// Line number, key, value.
type Fields = Vec<(usize, (String, String))>;

fn fields(disk: &dyn Disk, path: &Path) -> Result<Option<Fields>, DirectoryError> {
    let bytes = match read_file(disk, path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DirectoryError::io("reading", path)(error)),
    };
    let unreadable = |line: usize, what: &str| DirectoryError::Unreadable {
        path: path.to_owned(),
        line,
        what: what.to_owned(),
    };
    let text = String::from_utf8(bytes).map_err(|_| unreadable(1, "this is no text"))?;
    let mut fields = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| unreadable(number + 1, "expected `key = value`"))?;
        fields.push((number + 1, (key.trim().to_owned(), value.trim().to_owned())));
    }
    Ok(Some(fields))
}

fn read_identity(
    path: &Path,
    fields: &Fields,
    root: &Path,
    node_id: u64,
) -> Result<Identity, DirectoryError> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(_, (key, _))| key == name)
            .map(|(line, (_, value))| (*line, value.clone()))
            .ok_or_else(|| DirectoryError::Unreadable {
                path: path.to_owned(),
                line: fields.len() + 1,
                what: format!("{name} is missing"),
            })
    };
    let (_, format) = field("format")?;
    if format != DIRECTORY_FORMAT.to_string() {
        return Err(DirectoryError::Format {
            path: root.to_owned(),
            found: format,
        });
    }
    let (line, found) = field("node_id")?;
    let found = found.parse().map_err(|_| DirectoryError::Unreadable {
        path: path.to_owned(),
        line,
        what: format!("node_id {found} is no number"),
    })?;
    if found != node_id {
        return Err(DirectoryError::OtherNode {
            path: root.to_owned(),
            found,
            configured: node_id,
        });
    }
    Ok(Identity {
        cluster_id: field("cluster_id")?.1,
        node_id: found,
        instance: field("instance")?.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    const ROOT: &str = "/data";

    fn open(disk: &MemoryDisk, node_id: u64) -> Result<DataDirectory, DirectoryError> {
        DataDirectory::open(Arc::new(disk.clone()), Path::new(ROOT), node_id)
    }

    #[test]
    fn a_directory_names_its_node_for_ever() {
        let disk = MemoryDisk::new();
        let mut fresh = open(&disk, 2).unwrap();
        assert_eq!(fresh.identity(), None);
        let instance = fresh.instance().to_owned();
        let identity = fresh.adopt("c-1", 2).unwrap();
        drop(fresh);
        let again = open(&disk.after_power_cut(|| false), 2).unwrap();
        assert_eq!(again.identity(), Some(&identity));
        assert_eq!(again.instance(), instance);
        drop(again);
        insta::assert_snapshot!(open(&disk, 3).unwrap_err(), @"/data belongs to node 2, but this node is configured as 3: correct node_id, or give node 3 its own data directory");
        let mut other = open(&disk, 2).unwrap();
        insta::assert_snapshot!(other.adopt("c-2", 2).unwrap_err(), @"/data belongs to cluster c-1, not to c-2: point data_dir at the right directory; a node never changes clusters");
    }

    #[test]
    fn a_mark_stays_the_same_until_a_cluster_is_joined() {
        let disk = MemoryDisk::new();
        let instance = open(&disk, 1).unwrap().instance().to_owned();
        assert_eq!(open(&disk, 1).unwrap().instance(), instance);
    }

    #[test]
    fn only_one_process_uses_it() {
        let disk = MemoryDisk::new();
        let _held = open(&disk, 1).unwrap();
        insta::assert_snapshot!(open(&disk, 1).unwrap_err(), @"/data is in use by another process (its LOCK is held): stop that node first, or give this one its own data directory");
    }

    #[test]
    fn another_format_and_a_log_without_an_owner_are_refused() {
        let disk = MemoryDisk::new();
        replace_file(&disk, &Path::new(ROOT).join("IDENTITY"), b"format = 7\n").unwrap();
        insta::assert_snapshot!(open(&disk, 1).unwrap_err(), @"/data has data directory format 7, this version reads format 1: start the version that wrote it, or give this node an empty data directory and let it join under a new id");
        let disk = MemoryDisk::new();
        disk.create(&Path::new(ROOT).join("wal/1.wal"), 0).unwrap();
        insta::assert_snapshot!(open(&disk, 1).unwrap_err(), @"/data holds a log but no IDENTITY: it cannot be told whose it is. Restore IDENTITY from a backup, or move the directory away and let the node join under a new id with `trireme cluster replace`");
    }

    #[test]
    fn admitted_directories_are_remembered() {
        let disk = MemoryDisk::new();
        let directory = open(&disk, 1).unwrap();
        assert!(directory.admitted().unwrap().is_empty());
        let admitted = BTreeMap::from([(2, "x".to_owned()), (3, "y".to_owned())]);
        directory.set_admitted(&admitted).unwrap();
        assert_eq!(directory.admitted().unwrap(), admitted);
    }
}
