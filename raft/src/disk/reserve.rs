//! A file that takes space until it is needed.
//!
//! A log that runs into a full disk could neither be compacted nor shortened: both write before they remove. So a node
//! keeps a file of some size in its data directory. When a write finds the disk full the file goes, the write is made
//! again, and whoever waits for [`Reserve::spent`] makes room. A sync that fails is never made again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{Disk, DiskFile, DiskLock, Space};

/// Whether a write failed because there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The file, there or not.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// 0 = no reserve is kept.
    bytes: u64,
    held: Mutex<bool>,
    given: Notify,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, bytes: u64) -> Self {
        Self {
            disk,
            path,
            bytes,
            held: Mutex::new(false),
            given: Notify::new(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_held(&self) -> bool {
        *self.lock()
    }

    /// Sets the space aside; false if there is not enough. Blocks.
    pub(crate) fn take(&self) -> io::Result<bool> {
        let mut held = self.lock();
        if *held || self.bytes == 0 {
            return Ok(*held);
        }
        match self.disk.open(&self.path).and_then(|file| file.length()) {
            Ok(length) if length == self.bytes => {
                *held = true;
                return Ok(true);
            }
            // Of another setting, or of a start that was cut short.
            Ok(_) => self.disk.unlink(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.disk.create(&self.path, self.bytes) {
            Ok(_) => {
                *held = true;
                Ok(true)
            }
            Err(error) if is_full(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets go of the space; false if there was none. Blocks.
    pub(crate) fn give(&self) -> bool {
        let mut held = self.lock();
        if !*held {
            return false;
        }
        if let Err(error) = self.disk.unlink(&self.path) {
            tracing::error!(%error, path = %self.path.display(), "the reserve cannot be let go of");
            return false;
        }
        *held = false;
        drop(held);
        tracing::warn!(
            path = %self.path.display(),
            bytes = self.bytes,
            "the disk is full: the reserve was let go of"
        );
        self.given.notify_one();
        true
    }

    /// Resolves once for each time that the reserve went.
    pub(crate) async fn spent(&self) {
        self.given.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match work() {
            Err(error) if is_full(&error) && self.give() => work(),
            done => done,
        }
    }
}

/// A disk whose writes fall back on a reserve.
#[derive(Debug)]
pub(crate) struct ReservingDisk {
    inner: Arc<dyn Disk>,
    reserve: Arc<Reserve>,
}

impl ReservingDisk {
    pub(crate) fn new(inner: Arc<dyn Disk>, reserve: Arc<Reserve>) -> Self {
        Self { inner, reserve }
    }

    fn file(&self, inner: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(ReservingFile {
            inner,
            reserve: Arc::clone(&self.reserve),
        })
    }
}

impl Disk for ReservingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.reserve.with(|| self.inner.create_dir(path))
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.reserve.with(|| self.inner.create(path, bytes))?;
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.inner.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.reserve.with(|| self.inner.rename(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.inner.unlink(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.inner.lock(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.inner.space(path)
    }

    fn taken(&self, path: &Path) -> io::Result<u64> {
        self.inner.taken(path)
    }
}

#[derive(Debug)]
struct ReservingFile {
    inner: Arc<dyn DiskFile>,
    reserve: Arc<Reserve>,
}

impl DiskFile for ReservingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.reserve.with(|| self.inner.write_at(offset, bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn cut(&self, length: u64, bytes: u64) -> io::Result<()> {
        self.reserve.with(|| self.inner.cut(length, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_write_that_finds_the_disk_full_is_made_once_more_without_the_reserve() {
        let raw = MemoryDisk::new();
        raw.set_capacity(10 * MIB);
        let reserve = Reserve::new(Arc::new(raw.clone()), "/d/RESERVE".into(), 4 * MIB);
        let reserve = Arc::new(reserve);
        assert!(reserve.take().unwrap() && reserve.take().unwrap());
        let disk = ReservingDisk::new(Arc::new(raw.clone()), Arc::clone(&reserve));
        let space = disk.space("/d".as_ref()).unwrap();
        assert_eq!((space.total, space.available), (10 * MIB, 6 * MIB));
        let file = disk.create("/d/a".as_ref(), 5 * MIB).unwrap();
        assert!(reserve.is_held());
        file.write_at(5 * MIB, &vec![1; 3 << 20]).unwrap();
        assert!(!reserve.is_held());
        assert!(!reserve.take().unwrap(), "there is no room for it");
        let error = disk.create("/d/b".as_ref(), 4 * MIB).unwrap_err();
        assert!(is_full(&error), "{error}");
        disk.unlink("/d/a".as_ref()).unwrap();
        assert!(reserve.take().unwrap());
    }

    #[test]
    fn a_reserve_of_another_size_is_made_anew_and_one_of_the_right_size_kept() {
        let raw = MemoryDisk::new();
        let reserve = |bytes| Reserve::new(Arc::new(raw.clone()), "/d/RESERVE".into(), bytes);
        assert!(reserve(MIB).take().unwrap());
        assert!(reserve(2 * MIB).take().unwrap());
        assert!(reserve(2 * MIB).take().unwrap());
        assert_eq!(raw.taken("/d".as_ref()).unwrap(), 2 * MIB);
        assert!(!reserve(0).take().unwrap(), "none is wanted");
    }
}
