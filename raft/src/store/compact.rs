//! When the log is turned into a snapshot, and how much of it is then forgotten.

use std::{sync::Weak, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{Inner, OpenError, Started, Store};
use crate::snapshot::SnapshotError;

/// How often the log's size is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A snapshot that is not written by then is given up; the next look tries again.
const WRITING: Duration = Duration::from_secs(600);
/// On a disk with little room a snapshot is due after this part of what is left, ...
const PART_OF_ROOM: u64 = 4;
/// ... but not after less than this, nor after less than half of what it takes itself: it would be written without an end.
const LEAST_BYTES: u64 = 4 << 20;

/// The last snapshot of this process.
#[derive(Debug)]
pub(super) struct Compactor {
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    /// Bytes of log that had been appended when it began.
    at_bytes: u64,
    /// When it began, or the node started.
    at: Instant,
    /// What it takes; 0 if there was none.
    size: u64,
}

impl Default for Compactor {
    fn default() -> Self {
        let last = Last {
            at_bytes: 0,
            at: Instant::now(),
            size: 0,
        };
        Self {
            last: Mutex::new(last),
        }
    }
}

/// After how much log a snapshot is due, with `left` bytes of room. A log may not fill the disk with what nobody needs:
/// a node without room for its next segment stops.
fn due_after(compact_bytes: u64, left: Option<u64>, snapshot: u64) -> u64 {
    let left = left.unwrap_or(u64::MAX);
    (left / PART_OF_ROOM)
        .max(snapshot / 2)
        .max(LEAST_BYTES)
        .min(compact_bytes)
}

impl Inner {
    fn due_after(&self, started: &Started, last: &Last) -> u64 {
        let left = started.disk.get().map(|disk| disk.available);
        due_after(self.limits.compact_bytes, left, last.size)
    }

    fn is_due(&self, started: &Started, last: &Last) -> bool {
        let pulse = started.ring.pulse();
        let applied = pulse.applied.unwrap_or(0);
        let entries = applied.saturating_sub(pulse.snapshot.unwrap_or(0));
        let bytes = started
            .ring
            .wal
            .appended_bytes()
            .saturating_sub(last.at_bytes);
        // By age as well: what a quiet cluster removed would stay in its log for ever.
        entries >= self.limits.compact_entries
            || (bytes >= self.due_after(started, last) && entries > 0)
            || (last.at.elapsed() >= self.limits.compact_after && entries > 0)
    }

    /// Writes a snapshot of what is applied, then lets go of the log that the older kept snapshot covers as well.
    pub(super) async fn compact(
        &self,
        started: &Started,
        only_if_due: bool,
    ) -> Result<u64, String> {
        let mut last = started.compactor.last.lock().await;
        let applied = self.published.view().revision;
        if only_if_due && !self.is_due(started, &last) {
            return Ok(applied);
        }
        let at = Instant::now();
        let bytes = started.ring.wal.appended_bytes();
        match timeout(WRITING, started.ring.snapshot_reaching(applied)).await {
            Ok(true) => {}
            Ok(false) => return Err(self.stop_reason()),
            Err(_) => return Err("the snapshot is not written in time".to_owned()),
        }
        last.at_bytes = bytes;
        last.at = at;
        let snapshots = started.snapshots.clone();
        let looking = self.host.blocking(move || {
            let newest = snapshots.list()?.into_iter().next();
            let newest = newest.map(|path| snapshots.open_file(&path)).transpose()?;
            Ok((snapshots.fallback_index()?, newest.map(|file| file.bytes())))
        });
        let (fallback, size) = looking
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error: SnapshotError| error.to_string())?;
        last.size = size.unwrap_or_default();
        // The log reaches back to the older snapshot, should the newer turn out damaged.
        if let Some(older) = fallback {
            let wal = &started.ring.wal;
            let keep_bytes = self.limits.keep_bytes.min(self.due_after(started, &last));
            let within = wal.first_within(keep_bytes);
            let keep = applied.saturating_sub(self.limits.keep_entries).max(
                within
                    .map_or(0, |first| first.saturating_sub(1))
                    .min(applied),
            );
            let upto = older.min(keep);
            if upto > 0 {
                started.ring.purge(upto).await;
            }
        }
        Ok(applied)
    }
}

/// Looks after the log's size until the store is closed.
pub(super) async fn run(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        if let Some(started) = inner.started()
            && let Err(error) = inner.compact(started, true).await
        {
            tracing::warn!(error, "the log was not compacted");
        }
    }
}

impl Store {
    /// Writes a snapshot of what is applied now, unless there is one, and forgets the log that both kept snapshots cover.
    /// Returns its revision.
    pub async fn trigger_snapshot(&self) -> Result<u64, OpenError> {
        let unstarted = || OpenError::Consensus("this node belongs to no cluster".to_owned());
        let started = self.inner.started().ok_or_else(unstarted)?;
        let compacted = self.inner.compact(started, false).await;
        compacted.map_err(OpenError::Consensus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn little_room_makes_a_snapshot_due_early() {
        let due = |left, snapshot| due_after(256 * MIB, left, snapshot);
        assert_eq!(due(None, 0), 256 * MIB);
        assert_eq!(due(Some(100 << 30), 0), 256 * MIB);
        assert_eq!(due(Some(200 * MIB), 0), 50 * MIB);
        assert_eq!(due(Some(0), 0), LEAST_BYTES);
        assert_eq!(due(Some(0), 60 * MIB), 30 * MIB);
        assert_eq!(due(Some(0), 4 << 30), 256 * MIB);
        assert_eq!(due_after(MIB, Some(0), 0), MIB);
    }
}
