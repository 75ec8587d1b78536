//! A disk in memory that forgets, tears and fails on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{Disk, DiskFile, DiskLock, Space};

/// What a device writes in one piece.
const SECTOR: usize = 512;

/// A disk whose content lives as long as the process. Clones share it.
///
/// What was synced survives [`MemoryDisk::after_power_cut`]; of the rest, each sector and each directory change
/// survives or not as the caller's chooser says.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree>>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Tree {
    /// Names as a reader sees them now.
    names: BTreeMap<PathBuf, Arc<MemoryFile>>,
    /// Names that would survive a power cut.
    durable: BTreeMap<PathBuf, Arc<MemoryFile>>,
    locks: BTreeSet<PathBuf>,
}

#[derive(Debug, Default)]
struct Faults {
    /// Writes still to succeed; `u64::MAX` = all.
    writes_left: Counter,
    syncs_left: Counter,
    /// Reads answer with an error.
    reads_fail: AtomicBool,
    /// Syncs succeed and do nothing.
    syncs_lie: AtomicBool,
    /// Bytes that all files may take; `u64::MAX` = any.
    capacity: Counter,
    /// Bytes that they take.
    taken: AtomicU64,
}

impl Faults {
    /// Counts a change of a file's length, or says that there is no room for it.
    fn resize(&self, from: usize, to: usize) -> io::Result<()> {
        let capacity = self.capacity.0.load(Ordering::SeqCst);
        let resized = self
            .taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                let after = taken.saturating_sub(from as u64) + to as u64;
                (to <= from || after <= capacity).then_some(after)
            });
        match resized {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

#[derive(Debug)]
struct Counter(AtomicU64);

impl Default for Counter {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Counter {
    fn take(&self) -> io::Result<()> {
        let taken = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
                u64::MAX => Some(u64::MAX),
                left => left.checked_sub(1),
            });
        match taken {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other("injected fault")),
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    content: Mutex<Content>,
    faults: Arc<Faults>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `writes` more writes succeed, then fails each.
    pub fn fail_writes_after(&self, writes: u64) {
        self.faults.writes_left.0.store(writes, Ordering::SeqCst);
    }

    /// Lets `syncs` more syncs succeed, then fails each. A failed sync makes nothing durable.
    pub fn fail_syncs_after(&self, syncs: u64) {
        self.faults.syncs_left.0.store(syncs, Ordering::SeqCst);
    }

    /// Makes every sync of a file say that it is done and do nothing, or be honest again.
    pub fn lie_about_syncs(&self, lie: bool) {
        self.faults.syncs_lie.store(lie, Ordering::SeqCst);
    }

    /// Lets all files together take `bytes`; what they take already stays.
    pub fn set_capacity(&self, bytes: u64) {
        self.faults.capacity.0.store(bytes, Ordering::SeqCst);
    }

    /// Bytes that all files take.
    pub fn taken_bytes(&self) -> u64 {
        self.faults.taken.load(Ordering::SeqCst)
    }

    /// Makes every read fail, or succeed again.
    pub fn fail_reads(&self, fail: bool) {
        self.faults.reads_fail.store(fail, Ordering::SeqCst);
    }

    /// What is found after the power went: a new disk without faults. `survives` is asked once per unsynced sector and
    /// per unsynced directory change.
    pub fn after_power_cut(&self, mut survives: impl FnMut() -> bool) -> Self {
        let found = Self::default();
        let tree = held(&self.tree);
        let mut names = tree.durable.clone();
        let changed: BTreeSet<&PathBuf> = tree.names.keys().chain(tree.durable.keys()).collect();
        for path in changed {
            let (now, before) = (tree.names.get(path), tree.durable.get(path));
            let same = match (now, before) {
                (Some(now), Some(before)) => Arc::ptr_eq(now, before),
                (None, None) => true,
                _ => false,
            };
            if same || !survives() {
                continue;
            }
            match now {
                Some(file) => names.insert(path.clone(), Arc::clone(file)),
                None => names.remove(path),
            };
        }
        {
            let mut into = held(&found.tree);
            for (path, file) in names {
                let content = held(&file.content).clone();
                let mut bytes = content.durable;
                bytes.resize(content.now.len().max(bytes.len()), 0);
                for sector in content.dirty {
                    let start = sector * SECTOR;
                    let end = (start + SECTOR).min(content.now.len());
                    if start < end && survives() {
                        bytes[start..end].copy_from_slice(&content.now[start..end]);
                    }
                }
                found
                    .faults
                    .taken
                    .fetch_add(bytes.len() as u64, Ordering::SeqCst);
                let file = Arc::new(MemoryFile {
                    content: Mutex::new(Content {
                        now: bytes.clone(),
                        durable: bytes,
                        dirty: BTreeSet::new(),
                    }),
                    faults: Arc::clone(&found.faults),
                });
                into.names.insert(path.clone(), Arc::clone(&file));
                into.durable.insert(path, file);
            }
        }
        found
    }

    /// Changes bytes behind the owner's back, durably.
    pub fn corrupt(&self, path: &Path, offset: u64, change: impl FnOnce(&mut [u8])) {
        let tree = held(&self.tree);
        if let Some(file) = tree.names.get(path) {
            let mut content = held(&file.content);
            let start = (offset as usize).min(content.now.len());
            change(&mut content.now[start..]);
            content.durable = content.now.clone();
            content.dirty.clear();
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.writes_left.take()?;
        let mut tree = held(&self.tree);
        if tree.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.faults.resize(0, bytes as usize)?;
        let file = Arc::new(MemoryFile {
            content: Mutex::new(Content {
                now: vec![0; bytes as usize],
                ..Content::default()
            }),
            faults: Arc::clone(&self.faults),
        });
        tree.names.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        match held(&self.tree).names.get(path) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn DiskFile>),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.writes_left.take()?;
        let mut tree = held(&self.tree);
        let file = tree
            .names
            .remove(from)
            .ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        match tree.names.insert(to.to_owned(), file) {
            Some(replaced) => self.faults.resize(held(&replaced.content).now.len(), 0),
            None => Ok(()),
        }
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut tree = held(&self.tree);
        match tree.names.remove(path) {
            Some(file) => self.faults.resize(held(&file.content).now.len(), 0),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.syncs_left.take()?;
        let mut tree = held(&self.tree);
        let Tree { names, durable, .. } = &mut *tree;
        durable.retain(|name, _| name.parent() != Some(path));
        for (name, file) in names.iter().filter(|(name, _)| name.parent() == Some(path)) {
            durable.insert(name.clone(), Arc::clone(file));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let tree = held(&self.tree);
        let names = tree.names.keys().filter(|name| name.parent() == Some(path));
        Ok(names
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        if !held(&self.tree).locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock {
            tree: Arc::clone(&self.tree),
            path: path.to_owned(),
        }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let total = self.faults.capacity.0.load(Ordering::SeqCst);
        let used = self.taken_bytes();
        Ok(Space {
            total,
            used,
            available: total.saturating_sub(used),
        })
    }

    fn taken(&self, path: &Path) -> io::Result<u64> {
        let tree = held(&self.tree);
        let files = tree.names.iter().filter(|(name, _)| name.starts_with(path));
        Ok(files
            .map(|(_, file)| held(&file.content).now.len() as u64)
            .sum())
    }
}

impl MemoryFile {
    fn write(content: &mut Content, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            content.dirty.extend(offset / SECTOR..=(end - 1) / SECTOR);
        }
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.faults.reads_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected fault"));
        }
        let content = held(&self.content);
        let start = (offset as usize).min(content.now.len());
        let read = buffer.len().min(content.now.len() - start);
        buffer[..read].copy_from_slice(&content.now[start..start + read]);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.writes_left.take()?;
        let mut content = held(&self.content);
        let length = content.now.len();
        let end = length.max(offset as usize + bytes.len());
        self.faults.resize(length, end)?;
        Self::write(&mut content, offset as usize, bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.syncs_left.take()?;
        if self.faults.syncs_lie.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut content = held(&self.content);
        content.durable = content.now.clone();
        content.dirty.clear();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(held(&self.content).now.len() as u64)
    }

    fn cut(&self, length: u64, bytes: u64) -> io::Result<()> {
        self.faults.writes_left.take()?;
        let mut content = held(&self.content);
        let was = content.now.len();
        let end = was.min(length as usize).max(bytes as usize);
        self.faults.resize(was, end)?;
        content.now.truncate(length as usize);
        content.now.resize(end, 0);
        content
            .dirty
            .extend(length as usize / SECTOR..=was.max(end) / SECTOR);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    tree: Arc<Mutex<Tree>>,
    path: PathBuf,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        held(&self.tree).locks.remove(&self.path);
    }
}
