//! File access of the WAL, snapshots and the data directory, behind a trait.
//!
//! [`RealDisk`] is the operating system's; [`MemoryDisk`] lies in memory and can tear, fail and lose writes, so that a
//! test or a simulation sees what a power cut leaves behind. Nothing here knows a file format.
//!
//! All calls block. A file's content is durable after [`DiskFile::sync_data`]; its name after [`Disk::sync_dir`].

mod memory;
mod real;
mod reserve;

use std::{fmt, io, path::Path, sync::Arc};

pub use memory::MemoryDisk;
pub use real::RealDisk;
pub(crate) use reserve::{Reserve, ReservingDisk, is_full};

/// The file system that a path lies on, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    pub total: u64,
    /// By anybody's files.
    pub used: u64,
    /// What this process may still take.
    pub available: u64,
}

/// A directory tree of which one node is the only user.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates `path` and its missing parents.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist, with `bytes` of zeros set aside for it (0 = empty).
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Replaces `to` if it exists.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in `path`, sorted; directories are not listed.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Takes the exclusive lock `path`, held until the answer is dropped or the process ends.
    ///
    /// Fails with [`io::ErrorKind::WouldBlock`] while another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Bytes that the files below `path` take, all the way down.
    fn taken(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. Reads and writes name their offset, so one handle serves many readers.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`, growing the file if need be.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns once all former writes would survive a power cut.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes, including what is only set aside.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file at `length`, then sets zeros aside up to `bytes`.
    fn cut(&self, length: u64, bytes: u64) -> io::Result<()>;
}

/// An exclusive lock; dropping it lets go.
pub trait DiskLock: fmt::Debug + Send + Sync + 'static {}

/// Reads exactly `buffer.len()` bytes.
pub(crate) fn read_exact_at(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let read = file.read_at(offset + filled as u64, &mut buffer[filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
    }
    Ok(())
}

/// Writes `bytes` to `path` so that after a crash the file holds either its old content or the new.
pub(crate) fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    let staged = path.with_extension("new");
    match disk.unlink(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&staged, 0)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&staged, path)?;
    disk.sync_dir(parent)
}

/// The whole file.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    read_exact_at(&*file, 0, &mut bytes)?;
    Ok(bytes)
}
