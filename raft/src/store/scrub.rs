//! Reading snapshots, old segments of the log and the archive again, slowly, before they are needed: now and then, and
//! when asked.

use std::{
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use super::{Inner, Started, Store, compact::Wish};
use crate::{
    archive::Archive,
    snapshot::{SnapshotError, Snapshots},
    wal::ClosedSegment,
};

/// A reader that is ahead of its rate rests in pieces of this length, so that it notices a store that closes.
const REST: Duration = Duration::from_millis(50);
/// Rows of the archive that are read at once.
const PAGE_ROWS: usize = 1000;
/// After damage was found the next check comes sooner: a snapshot may have made the damaged file unneeded.
const AFTER_DAMAGE: Duration = Duration::from_secs(600);

/// How far a check of a node's files is, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Files that were read, and how many there are to read; the archive counts as one.
    pub files: u64,
    pub of_files: u64,
    pub bytes: u64,
    pub of_bytes: u64,
    /// The damage, which names file and place.
    pub damaged: Vec<String>,
    /// Why finished history cannot be read.
    pub archive: Option<String>,
}

impl Scrubbed {
    /// Whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.archive.is_none()
    }
}

/// What was damaged is not needed to run, and there is another way to get it.
const ARCHIVE_DAMAGED: &str = "Nothing else needs it: stop the node, move `archive` out of its data directory and start it \
     again, and it fills a new one from a peer";

/// Why files were not checked, or not all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrubError {
    #[error("this node belongs to no cluster")]
    NotStarted,
    #[error("this node's files are being checked already: ask again when that check is done")]
    Busy,
    #[error("the check was given up: the node stops, or nobody waits for it")]
    GivenUp,
    #[error("this node's files cannot be checked: {0}")]
    Failed(String),
}

pub(super) async fn run(inner: Weak<Inner>) {
    let mut damaged = false;
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let every = strong.limits.scrub_every;
        drop(strong);
        let wait = match damaged {
            true => every.min(AFTER_DAMAGE),
            false => every,
        };
        // Nodes that started together do not read together.
        sleep(wait.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        if strong.fatal.get().is_some() {
            return;
        }
        let (told, _so_far) = watch::channel(Scrubbed::default());
        match strong.scrub(started, told).await {
            Ok(found) => damaged = !found.is_whole(),
            Err(why) => tracing::info!(%why, "files were not checked"),
        }
    }
}

/// Reads at a rate, and says how far it is.
struct Reader {
    inner: Arc<Inner>,
    since: Instant,
    told: watch::Sender<Scrubbed>,
    given_up: bool,
}

impl Reader {
    /// False once the store is closed or nobody waits any more. Blocks.
    fn keep(&mut self, bytes: usize) -> bool {
        self.told
            .send_modify(|so_far| so_far.bytes = so_far.bytes.saturating_add(bytes as u64));
        let (read, per_second) = (
            self.told.borrow().bytes,
            self.inner.limits.scrub_bytes_per_second,
        );
        let due = Duration::from_secs_f64(read as f64 / per_second.max(1) as f64);
        loop {
            if *self.inner.closed.borrow() || self.told.is_closed() {
                self.given_up = true;
                return false;
            }
            // Simulated time stands while this thread works.
            if self.inner.host.world().is_some() {
                return true;
            }
            let ahead = due.saturating_sub(self.since.elapsed());
            if ahead.is_zero() {
                return true;
            }
            std::thread::sleep(ahead.min(REST));
        }
    }

    /// One file more, of which `before` bytes had been read before it. False when the check is over.
    fn done(&mut self, before: u64, length: u64, checked: Result<(), String>) -> bool {
        if self.given_up {
            return false;
        }
        self.told.send_modify(|so_far| {
            so_far.files += 1;
            match checked {
                // Headers and trailers are not counted one by one.
                Ok(()) => so_far.bytes = before.saturating_add(length),
                Err(damage) => so_far.damaged.push(damage),
            }
        });
        true
    }

    /// Reads all rows: sled checks each page that it has not in memory.
    fn read_archive(&mut self, archive: &Archive) -> Result<(), String> {
        let mut after = None;
        loop {
            let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let reading =
                AssertUnwindSafe(|| archive.range((from, Bound::Unbounded), false, PAGE_ROWS));
            // sled panics on some kinds of damage.
            let rows = match catch_unwind(reading) {
                Ok(rows) => rows.map_err(|error| error.to_string())?,
                Err(_) => return Err("sled panicked while reading it".to_owned()),
            };
            let bytes = rows.iter().map(|(key, value)| key.len() + value.len());
            if !self.keep(bytes.sum()) || rows.len() < PAGE_ROWS {
                return Ok(());
            }
            after = rows.last().map(|(key, _)| key.clone());
        }
    }

    /// Blocks.
    fn read(
        mut self,
        segments: &[ClosedSegment],
        snapshots: &Snapshots,
        archive: &Archive,
    ) -> Result<Scrubbed, ScrubError> {
        let failed = |error: std::io::Error| ScrubError::Failed(error.to_string());
        let at = self.inner.data_dir.join("archive");
        let archived = self.inner.disk.taken(&at).map_err(failed)?;
        let mut files = Vec::new();
        let paths = snapshots.list();
        for path in paths.map_err(|error| ScrubError::Failed(error.to_string()))? {
            match snapshots.open_file(&path) {
                // One that a newer snapshot made unneeded meanwhile.
                Err(error) if error.is_missing() => {}
                opened => files.push(opened),
            }
        }
        let whole = files
            .iter()
            .filter_map(|file| Some(file.as_ref().ok()?.bytes()));
        let bytes = segments.iter().map(ClosedSegment::bytes).chain(whole);
        let bytes = bytes.chain([archived]).sum();
        self.told.send_modify(|so_far| {
            so_far.of_files = (segments.len() + files.len() + 1) as u64;
            so_far.of_bytes = bytes;
        });
        for segment in segments {
            let before = self.told.borrow().bytes;
            let checked = segment.verify(|bytes| self.keep(bytes));
            let checked = checked.map_err(|error| error.to_string());
            if !self.done(before, segment.bytes(), checked) {
                return Err(ScrubError::GivenUp);
            }
        }
        for file in files {
            let before = self.told.borrow().bytes;
            let (length, checked) = match file {
                Ok(file) => (file.bytes(), file.verify(|bytes| self.keep(bytes))),
                Err(error) => (0, Err(error)),
            };
            let checked = checked.map_err(|error: SnapshotError| error.to_string());
            if !self.done(before, length, checked) {
                return Err(ScrubError::GivenUp);
            }
        }
        let before = self.told.borrow().bytes;
        let damage = self.read_archive(archive).err();
        if !self.done(before, archived, Ok(())) {
            return Err(ScrubError::GivenUp);
        }
        let damage =
            damage.map(|why| format!("the archive cannot be read: {why}. {ARCHIVE_DAMAGED}"));
        self.told.send_modify(|so_far| so_far.archive = damage);
        let found = self.told.borrow().clone();
        Ok(found)
    }
}

impl Inner {
    /// Checks what lies on disk; an alarm is raised of what is damaged.
    async fn scrub(
        &self,
        started: &Started,
        told: watch::Sender<Scrubbed>,
    ) -> Result<Scrubbed, ScrubError> {
        let only = Arc::clone(&started.scrubbing).try_lock_owned();
        let only = only.map_err(|_| ScrubError::Busy)?;
        let inner = self.weak.upgrade().ok_or(ScrubError::GivenUp)?;
        let segments = started.ring.wal.closed_segments();
        let snapshots = started.snapshots.clone();
        let archive = Arc::clone(&self.archive);
        let checking = self.host.blocking(move || {
            let reader = Reader {
                inner,
                since: Instant::now(),
                told,
                given_up: false,
            };
            // Held by the one that reads, should nobody wait for it any more.
            (reader.read(&segments, &snapshots, &archive), only)
        });
        let checked = checking.await;
        let (checked, _only) = checked.map_err(|error| ScrubError::Failed(error.to_string()))?;
        let found = checked?;
        let key = format!("corruption/node-{}", self.node_id);
        if found.is_whole() {
            if self.published.view().alarm(&key).is_some() {
                self.set_alarm(&key, None).await;
            }
            return Ok(found);
        }
        for damage in found.damaged.iter().chain(&found.archive) {
            tracing::error!(damage, "a file on disk is damaged");
        }
        if let (true, Some(damage)) = (found.damaged.is_empty(), &found.archive) {
            let message = format!("node {} found damage on its disk: {damage}", self.node_id);
            self.set_alarm(&key, Some(message)).await;
            return Ok(found);
        }
        let message = format!(
            "node {} found damage on its disk: {}. It still runs, and what it has in memory is good. Do not restart it: \
             replace it under a new id with `trireme cluster replace`, and check its disk. The alarm goes if newer snapshots \
             make the damaged file unneeded",
            self.node_id,
            found
                .damaged
                .iter()
                .chain(&found.archive)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("; ")
        );
        self.set_alarm(&key, Some(message)).await;
        // Newer snapshots are written from memory, and what they cover is removed.
        if let Err(why) = self.compact(started, Wish::Asked).await {
            tracing::warn!(why, "no snapshot was written in place of what is damaged");
        }
        Ok(found)
    }
}

impl Store {
    /// Checks the kept snapshots, the closed segments of the log and the archive now, at the usual rate. An alarm tells of what is
    /// damaged as well.
    ///
    /// # Errors
    /// [`ScrubError::Busy`] while another check is under way.
    pub async fn scrub(&self) -> Result<Scrubbed, ScrubError> {
        let (told, _so_far) = watch::channel(Scrubbed::default());
        self.scrub_telling(told).await
    }

    /// [`Self::scrub`] that says how far it is, and is given up when nobody listens any more.
    ///
    /// # Errors
    /// See there.
    pub async fn scrub_telling(
        &self,
        told: watch::Sender<Scrubbed>,
    ) -> Result<Scrubbed, ScrubError> {
        let started = self.inner.started().ok_or(ScrubError::NotStarted)?;
        self.inner.scrub(started, told).await
    }
}
