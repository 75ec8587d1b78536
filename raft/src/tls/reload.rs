//! Something made of files, made anew when they change.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::TlsError;

/// How the files of a listener do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsHealth {
    /// When the certificate in use ends, in seconds since the Unix epoch.
    pub expires: i64,
    /// How often changed files were taken.
    pub reloads: u64,
    /// How often changed files were unusable, and what was in use was kept.
    pub failed_reloads: u64,
    /// Connections that did not get through their handshake.
    pub refused: u64,
}

/// Time of change, size and inode.
type Stamp = Option<(SystemTime, u64, u64)>;
type Load<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// What the files make, as of their last usable content.
pub struct Reloading<T> {
    files: Vec<PathBuf>,
    load: Load<T>,
    expires: fn(&T) -> i64,
    held: Mutex<Held<T>>,
    reloads: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

struct Held<T> {
    stamps: Vec<Stamp>,
    good: Arc<T>,
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<T> Reloading<T> {
    pub(super) fn open(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
        expires: fn(&T) -> i64,
    ) -> Result<Self, TlsError> {
        // Before they are read: what is written meanwhile is read again.
        let stamps = stamps(&files);
        let good = Arc::new(load()?);
        Ok(Self {
            files,
            load: Box::new(load),
            expires,
            held: Mutex::new(Held { stamps, good }),
            reloads: AtomicU64::default(),
            failed: AtomicU64::default(),
            refused: AtomicU64::default(),
        })
    }

    /// Looks at the files; a few microseconds unless they changed. Unusable ones change nothing.
    pub fn current(&self) -> Arc<T> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now != held.stamps {
            // Also when it fails: one warning per change.
            held.stamps = now;
            match (self.load)() {
                Ok(good) => {
                    tracing::info!(files = ?self.files, "certificates were read again");
                    held.good = Arc::new(good);
                    self.reloads.fetch_add(1, Ordering::Relaxed);
                }
                Err(why) => {
                    tracing::warn!(%why, "the new certificates are unusable, the former ones stay in use");
                    self.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Arc::clone(&held.good)
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at the files, too, so that a scrape shows a bad rotation before a connection does.
    pub fn health(&self) -> TlsHealth {
        TlsHealth {
            expires: (self.expires)(&self.current()),
            reloads: self.reloads.load(Ordering::Relaxed),
            failed_reloads: self.failed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    files
        .iter()
        .map(|file| {
            let found = std::fs::metadata(file).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_read_again_and_what_is_unusable_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        // Replaced as careful writers do: the inode tells, whatever the clock says.
        let write = |text: &str| {
            let new = dir.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        write("one");
        let path = file.clone();
        let load = move || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            match text.as_str() {
                "" => Err(TlsError::Content {
                    path: path.clone(),
                    what: "empty".to_owned(),
                }),
                text => Ok(text.to_owned()),
            }
        };
        let reloading = Reloading::open(vec![file.clone()], load, |_| 7).unwrap();
        assert_eq!(*reloading.current(), "one");
        write("two");
        assert_eq!(*reloading.current(), "two");
        write("");
        assert_eq!(*reloading.current(), "two");
        assert_eq!(*reloading.current(), "two");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(*reloading.current(), "two");
        let health = TlsHealth {
            expires: 7,
            reloads: 1,
            failed_reloads: 2,
            refused: 0,
        };
        assert_eq!(reloading.health(), health);
        write("three");
        assert_eq!(*reloading.current(), "three");
    }
}
