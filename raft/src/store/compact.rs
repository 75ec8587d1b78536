//! When the log is turned into a snapshot, and how much of it is then forgotten.

use std::{sync::Weak, time::Duration};

use futures::FutureExt as _;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{CompactionError, Inner, Started, Store, space::measure};

/// Between attempts that find no room.
const NO_ROOM: Duration = Duration::from_secs(30);
/// How often the log's size is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A snapshot that is not written by then is given up; the next look tries again.
const WRITING: Duration = Duration::from_secs(600);
/// On a disk with little room a snapshot is due after this part of what is left, ...
const PART_OF_ROOM: u64 = 4;
/// ... but not after less than this, nor after less than half of what it takes itself: it would be written without an end.
const LEAST_BYTES: u64 = 4 << 20;

/// After so long without a snapshot one is tried, whatever the last took: the state may have become smaller.
const TRY_ANYWAY: Duration = Duration::from_secs(600);

/// Why a snapshot is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is not, unless it is due.
    Due,
    /// The log must become shorter.
    Room,
    /// Somebody asks for one, and gets an attempt.
    Asked,
}

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
    /// Bytes of the newest on the disk; None until it was looked at.
    size: Option<u64>,
    /// After one that found no room none is written by itself until then.
    not_before: Option<Instant>,
}

impl Default for Compactor {
    fn default() -> Self {
        let last = Last {
            at_bytes: 0,
            at: Instant::now(),
            size: None,
            not_before: None,
        };
        Self {
            last: Mutex::new(last),
        }
    }
}

/// After how much log a snapshot is due, with `left` bytes of room and a `reserve`. A log may not fill the disk with what
/// nobody needs: a node without room for its next segment stops. So does one without room for its next snapshot, hence
/// none that would not fit is written early.
fn due_after(compact_bytes: u64, left: u64, reserve: u64, snapshot: u64) -> u64 {
    if left.saturating_add(reserve) <= snapshot {
        return compact_bytes;
    }
    (left / PART_OF_ROOM)
        .max(snapshot / 2)
        .max(LEAST_BYTES)
        .min(compact_bytes)
}

impl Inner {
    fn due_after(&self, started: &Started, last: &Last) -> u64 {
        let Some(disk) = started.disk.get() else {
            return self.limits.compact_bytes;
        };
        let size = last.size.unwrap_or_default();
        due_after(
            self.limits.compact_bytes,
            disk.available,
            self.reserved(),
            size,
        )
    }

    /// Bytes of the newest snapshot, which the next will need about as well; 0 without one. One that cannot be read is
    /// found by whoever needs it.
    async fn snapshot_size(&self, started: &Started) -> u64 {
        let snapshots = started.snapshots.clone();
        let looking = self.host.blocking(move || {
            let newest = snapshots.list().ok()?.into_iter().next()?;
            Some(snapshots.open_file(&newest).ok()?.bytes())
        });
        looking.await.ok().flatten().unwrap_or_default()
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
    pub(super) async fn compact(&self, started: &Started, wish: Wish) -> Result<u64, String> {
        let mut last = started.compactor.last.lock().await;
        if last.size.is_none() {
            last.size = Some(self.snapshot_size(started).await);
        }
        let applied = self.published.view().revision;
        let waits = last.not_before.is_some_and(|until| Instant::now() < until);
        if wish == Wish::Due && (waits || !self.is_due(started, &last)) {
            return Ok(applied);
        }
        last.not_before = None;
        // On a short disk first what can go without anything being written. Where the newest turns out damaged nothing goes,
        // and the next takes its place.
        if let Err(why) = self.forget(started, &last, applied).await {
            tracing::warn!(why, "nothing was let go of before the next snapshot");
        }
        // The first may become as large as the log.
        let size = match last.size.unwrap_or_default() {
            0 => started.ring.wal.appended_bytes(),
            size => size,
        };
        if wish != Wish::Asked
            && last.at.elapsed() < TRY_ANYWAY
            && let Some(room) = self.room().await
            && room.saturating_add(self.reserved()) <= size
        {
            last.not_before = Some(Instant::now() + NO_ROOM);
            return Err(format!(
                "there is no room for a snapshot: it may take {} MiB, and {} MiB are left. Free space on the disk or give the \
                 node a larger one",
                size >> 20,
                room >> 20
            ));
        }
        let at = Instant::now();
        let bytes = started.ring.wal.appended_bytes();
        // What was said before is of the one before.
        let _ = started.snapshots.told_full().now_or_never();
        tokio::select! {
            reached = timeout(WRITING, started.ring.snapshot_reaching(applied)) => match reached {
                Ok(true) => {}
                Ok(false) => return Err(self.stop_reason()),
                Err(_) => return Err("the snapshot is not written in time".to_owned()),
            },
            () = started.snapshots.told_full() => {
                last.not_before = Some(Instant::now() + NO_ROOM);
                return Err("there is no room for a snapshot: free space on the disk or give the node a larger one".to_owned());
            }
        }
        last.at_bytes = bytes;
        last.at = at;
        last.size = Some(self.snapshot_size(started).await);
        self.forget(started, &last, applied).await?;
        Ok(applied)
    }

    /// Bytes left on the disk now, if that can be seen.
    async fn room(&self) -> Option<u64> {
        Some(measure(self).await.ok()?.available)
    }

    fn reserved(&self) -> u64 {
        match self.reserve.is_held() {
            true => self.reserve.bytes(),
            false => 0,
        }
    }

    /// Lets go of the log that the older kept snapshot covers, should the newer turn out damaged. Where there is no room for
    /// a further snapshot the older one goes, too.
    async fn forget(&self, started: &Started, last: &Last, applied: u64) -> Result<(), String> {
        let size = last.size.unwrap_or_default();
        let short = self.room().await.is_some_and(|room| room <= size);
        let snapshots = started.snapshots.clone();
        let looking = self.host.blocking(move || match short {
            true => snapshots.keep_newest(),
            false => snapshots.fallback_index(),
        });
        let covered = looking
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        if let Some(covered) = covered {
            let keep_bytes = self.limits.keep_bytes.min(self.due_after(started, last));
            let within = started.ring.wal.first_within(keep_bytes);
            let keep = applied.saturating_sub(self.limits.keep_entries).max(
                within
                    .map_or(0, |first| first.saturating_sub(1))
                    .min(applied),
            );
            let upto = covered.min(keep);
            if upto > 0 {
                started.ring.purge(upto).await;
            }
        }
        Ok(())
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
            && let Err(error) = inner.compact(started, Wish::Due).await
        {
            tracing::warn!(error, "the log was not compacted");
        }
    }
}

impl Store {
    /// Writes a snapshot of what is applied now, unless there is one, and forgets the log that both kept snapshots cover.
    /// Returns its revision.
    pub async fn trigger_snapshot(&self) -> Result<u64, CompactionError> {
        let unstarted = || CompactionError("this node belongs to no cluster".to_owned());
        let started = self.inner.started().ok_or_else(unstarted)?;
        let compacted = self.inner.compact(started, Wish::Asked).await;
        compacted.map_err(CompactionError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn little_room_makes_a_snapshot_due_early() {
        let due = |left, snapshot| due_after(256 * MIB, left, 64 * MIB, snapshot);
        assert_eq!(due(100 << 30, 0), 256 * MIB);
        assert_eq!(due(200 * MIB, 0), 50 * MIB);
        assert_eq!(due(200 * MIB, 160 * MIB), 80 * MIB);
        assert_eq!(due(0, 0), LEAST_BYTES);
        assert_eq!(due(0, 60 * MIB), 30 * MIB);
        assert_eq!(due(0, 64 * MIB), 256 * MIB, "it would not fit");
        assert_eq!(due_after(MIB, 0, MIB, 0), MIB);
    }
}
