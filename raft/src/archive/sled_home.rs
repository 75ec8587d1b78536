//! The archive on sled 0.34.
//!
//! ```text
//! CURRENT        what wrote it and which directory is the present one: `sled-0.34 1 db-3`
//! db-<n>/        one sled database
//! broken-<n>/    a database that was found damaged, kept for inspection
//! ```
//! What the system refuses (a lock, a full disk, a permission) says nothing about what is on the disk: then nothing is set
//! aside, and the node does not start.
//!
//! One tree, keyed by a prefix: `m` marks, `r` rows. Values are at most 64 KiB, which apply sees to: sled puts larger
//! ones into files of their own. sled's own flush is no fsync on Linux, so a checkpoint syncs its file as well. sled 1.0
//! opens a 0.34 directory silently empty: hence the marker.

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use trireme_state::ArchiveOp;

use super::{ArchiveHome, ArchiveStore, Opened, Row};
use crate::disk::{RealDisk, replace_file};

const MARKER: &str = "sled-0.34 1";
const APPLIED: &[u8] = b"mapplied";
const OWNER: &[u8] = b"mcluster";
const MISSING: &[u8] = b"mmissing";
/// Memory of sled's page cache.
const CACHE_BYTES: u64 = 32 << 20;
/// Most recent databases that were found damaged.
const BROKEN_KEPT: u64 = 2;
/// How long a database may still be open where it was used before: sled ends with the last of its own threads.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// A directory with sled databases, one of them present.
#[derive(Debug)]
pub struct SledHome {
    root: PathBuf,
    /// Number of the present database. Held while that is changed, or another database made.
    present: Mutex<u64>,
    lock_wait: Duration,
}

impl SledHome {
    /// `root` must exist.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            present: Mutex::new(0),
            lock_wait: LOCK_WAIT,
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(mut self, at_most: Duration) -> Self {
        self.lock_wait = at_most;
        self
    }

    fn present(&self) -> MutexGuard<'_, u64> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.root.join(format!("db-{number}"))
    }

    fn mark(&self, number: u64) -> io::Result<()> {
        replace_file(
            &RealDisk,
            &self.root.join("CURRENT"),
            format!("{MARKER} db-{number}\n").as_bytes(),
        )
    }

    /// Databases and set-aside ones found: numbers by prefix.
    fn found(&self, prefix: &str) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            if let Some(number) = name
                .to_str()
                .and_then(|name| name.strip_prefix(prefix)?.parse().ok())
            {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn current(&self) -> io::Result<Option<Result<u64, String>>> {
        let text = match fs::read_to_string(self.root.join("CURRENT")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let number = text
            .trim()
            .strip_prefix(MARKER)
            .and_then(|rest| rest.trim().strip_prefix("db-")?.parse().ok());
        Ok(Some(number.ok_or_else(|| {
            format!("CURRENT says `{}`, expected `{MARKER} db-<n>`", text.trim())
        })))
    }

    fn set_aside(&self, number: u64) -> io::Result<()> {
        let mut broken = self.found("broken-")?;
        let next = broken.last().map_or(1, |last| last + 1);
        if self.path(number).exists() {
            fs::rename(self.path(number), self.root.join(format!("broken-{next}")))?;
            broken.push(next);
        }
        for old in broken.iter().filter(|old| **old + BROKEN_KEPT <= next) {
            fs::remove_dir_all(self.root.join(format!("broken-{old}")))?;
        }
        Ok(())
    }
}

impl ArchiveHome for SledHome {
    fn open(&self) -> io::Result<Opened> {
        let (current, mut lost) = match self.current()? {
            None => (None, None),
            Some(Ok(number)) => (Some(number), None),
            Some(Err(reason)) => (None, Some(reason)),
        };
        let mut opened = None;
        if let Some(number) = current {
            match SledStore::open(&self.path(number), self.lock_wait) {
                Ok(store) => opened = Some((number, store)),
                Err(Unopened::Damaged(reason)) => lost = Some(reason),
                Err(Unopened::Refused(error)) => return Err(error),
            }
        }
        let (number, store) = match opened {
            Some(opened) => opened,
            None => {
                if let Some(reason) = &lost {
                    tracing::error!(
                        reason,
                        path = %self.root.display(),
                        "the archive is damaged: setting it aside"
                    );
                }
                let all = self.found("db-")?;
                for number in &all {
                    self.set_aside(*number)?;
                }
                let number = all.last().map_or(1, |last| last + 1);
                let store = SledStore::open(&self.path(number), self.lock_wait)?;
                self.mark(number)?;
                (number, store)
            }
        };
        // A replacement that was never finished.
        for other in self.found("db-")? {
            if other != number {
                fs::remove_dir_all(self.path(other))?;
            }
        }
        *self.present() = number;
        Ok(Opened {
            store: Arc::new(store),
            lost,
        })
    }

    fn begin(&self) -> io::Result<(u64, Arc<dyn ArchiveStore>)> {
        // One at a time: the next number follows those that are there.
        let _alone = self.present();
        let number = self.found("db-")?.last().map_or(1, |last| last + 1);
        let store = SledStore::open(&self.path(number), self.lock_wait)?;
        Ok((number, Arc::new(store)))
    }

    fn finish(&self, number: u64) -> io::Result<u64> {
        let mut present = self.present();
        // Given up by a future that was dropped meanwhile.
        fs::metadata(self.path(number))?;
        self.mark(number)?;
        Ok(std::mem::replace(&mut *present, number))
    }

    /// In the background: it may be large.
    fn discard(&self, number: u64) {
        let present = self.present();
        if *present == number {
            return;
        }
        let path = self.path(number);
        let told = path.display().to_string();
        let removing = thread::Builder::new()
            .name("trireme-archive-remove".to_owned())
            .spawn(move || {
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(%error, path = %path.display(), "a former archive stays until the next start");
                }
            });
        if let Err(error) = removing {
            tracing::warn!(%error, path = told, "a former archive stays until the next start");
        }
    }
}

#[derive(Debug)]
struct SledStore {
    db: sled::Db,
    file: PathBuf,
}

/// Why a database does not open.
#[derive(Debug)]
enum Unopened {
    /// By what lies in its files.
    Damaged(String),
    /// By the system, whatever lies in its files.
    Refused(io::Error),
}

impl Unopened {
    fn new(path: &Path, error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if is_lock(&error) => Self::Refused(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!(
                    "{} is open elsewhere, and nothing in it was changed: end whatever uses it (`fuser {0}/db` names it), \
                     then start again",
                    path.display()
                ),
            )),
            // A device that cannot read a block has lost it.
            sled::Error::Io(error)
                if error
                    .raw_os_error()
                    .is_some_and(|code| code != rustix::io::Errno::IO.raw_os_error()) =>
            {
                Self::Refused(io::Error::new(
                    error.kind(),
                    format!(
                        "{}: {error}; nothing in it was changed: mend that, then start again",
                        path.display()
                    ),
                ))
            }
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<Unopened> for io::Error {
    fn from(why: Unopened) -> Self {
        match why {
            Unopened::Damaged(reason) => Self::other(reason),
            Unopened::Refused(error) => error,
        }
    }
}

/// sled says it by words alone.
fn is_lock(error: &io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

impl SledStore {
    /// Waits up to `lock_wait` for whoever has it open still.
    fn open(path: &Path, lock_wait: Duration) -> Result<Self, Unopened> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let deadline = Instant::now() + lock_wait;
        // sled panics on some kinds of damage.
        let opening = thread::Builder::new()
            .name("trireme-archive-open".to_owned())
            .spawn(move || {
                loop {
                    match config.open() {
                        Err(sled::Error::Io(error))
                            if is_lock(&error) && Instant::now() < deadline =>
                        {
                            thread::sleep(LOCK_LOOK);
                        }
                        other => return other,
                    }
                }
            })
            .map_err(Unopened::Refused)?;
        let db = match opening.join() {
            Ok(opened) => opened.map_err(|error| Unopened::new(path, error))?,
            Err(_) => {
                return Err(Unopened::Damaged(
                    "sled panicked while opening its files".to_owned(),
                ));
            }
        };
        Ok(Self {
            db,
            file: path.join("db"),
        })
    }
}

impl SledStore {
    /// A mark.
    fn number(&self, key: &[u8]) -> io::Result<Option<u64>> {
        let value = self.db.get(key).map_err(io::Error::other)?;
        let number = value.map(|value| value.as_ref().try_into().map(u64::from_be_bytes));
        number
            .transpose()
            .map_err(|_| io::Error::other("a mark of the archive is no number"))
    }
}

impl ArchiveStore for SledStore {
    fn applied(&self) -> io::Result<u64> {
        Ok(self.number(APPLIED)?.unwrap_or(0))
    }

    fn owner(&self) -> io::Result<Option<String>> {
        let value = self.db.get(OWNER).map_err(io::Error::other)?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    fn set_owner(&self, cluster_id: &str) -> io::Result<()> {
        self.db
            .insert(OWNER, cluster_id.as_bytes())
            .map_err(io::Error::other)?;
        self.checkpoint()
    }

    fn missing(&self) -> io::Result<Option<u64>> {
        self.number(MISSING)
    }

    fn set_missing(&self, upto: Option<u64>) -> io::Result<()> {
        let set = match upto {
            Some(upto) => self.db.insert(MISSING, &upto.to_be_bytes()),
            None => self.db.remove(MISSING),
        };
        set.map_err(io::Error::other)?;
        self.checkpoint()
    }

    fn write(&self, ops: &[ArchiveOp], applied: u64) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for op in ops {
            match op {
                ArchiveOp::Put { key, value } => {
                    batch.insert(row_key(key), value.as_ref());
                }
                ArchiveOp::Delete { key } => {
                    batch.remove(row_key(key));
                }
            }
        }
        batch.insert(APPLIED, &applied.to_be_bytes());
        self.db.apply_batch(batch).map_err(io::Error::other)
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value = self.db.get(row_key(key)).map_err(io::Error::other)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        let from = match range.0 {
            Bound::Included(key) => Bound::Included(row_key(key)),
            Bound::Excluded(key) => Bound::Excluded(row_key(key)),
            Bound::Unbounded => Bound::Included(vec![b'r']),
        };
        let to = match range.1 {
            Bound::Included(key) => Bound::Included(row_key(key)),
            Bound::Excluded(key) => Bound::Excluded(row_key(key)),
            Bound::Unbounded => Bound::Excluded(vec![b'r' + 1]),
        };
        let rows = self.db.range((from, to));
        let read = |row: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = row.map_err(io::Error::other)?;
            Ok((
                Bytes::copy_from_slice(&key[1..]),
                Bytes::copy_from_slice(&value),
            ))
        };
        if reverse {
            rows.rev().take(limit).map(read).collect()
        } else {
            rows.take(limit).map(read).collect()
        }
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.db.flush().map_err(io::Error::other)?;
        File::open(&self.file)?.sync_data()
    }
}

fn row_key(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(b'r');
    row.extend_from_slice(key);
    row
}
