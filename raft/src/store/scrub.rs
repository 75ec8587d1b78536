//! Reading snapshots and old segments of the log again, slowly, before they are needed.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Inner, OpenError, Started, Store};

/// A reader that is ahead of its rate rests in pieces of this length, so that it notices a store that closes.
const REST: Duration = Duration::from_millis(50);
/// After damage was found the next check comes sooner: a snapshot may have made the damaged file unneeded.
const AFTER_DAMAGE: Duration = Duration::from_secs(600);

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
        match strong.scrub(started).await {
            Ok(found) => damaged = !found.is_empty(),
            Err(why) => tracing::warn!(why, "files were not checked"),
        }
    }
}

/// Keeps a reader to a rate.
struct Pace {
    inner: Arc<Inner>,
    per_second: u64,
    since: Instant,
    read: u64,
}

impl Pace {
    /// False once the store is closed. Blocks.
    fn keep(&mut self, bytes: usize) -> bool {
        self.read = self.read.saturating_add(bytes as u64);
        let due = Duration::from_secs_f64(self.read as f64 / self.per_second.max(1) as f64);
        loop {
            if *self.inner.closed.borrow() {
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
}

impl Inner {
    /// Checks what lies on disk; answers with what is damaged, of which an alarm is raised.
    async fn scrub(&self, started: &Started) -> Result<Vec<String>, String> {
        let Some(inner) = self.weak.upgrade() else {
            return Ok(Vec::new());
        };
        let segments = started.ring.wal.closed_segments();
        let snapshots = started.snapshots.clone();
        let checking = self.host.blocking(move || {
            let mut pace = Pace {
                per_second: inner.limits.scrub_bytes_per_second,
                inner,
                since: Instant::now(),
                read: 0,
            };
            let mut found = Vec::new();
            for segment in segments {
                if let Err(error) = segment.verify(|bytes| pace.keep(bytes)) {
                    found.push(error.to_string());
                }
            }
            for path in snapshots.list().map_err(|error| error.to_string())? {
                let checked = snapshots
                    .open_file(&path)
                    .and_then(|file| file.verify(|bytes| pace.keep(bytes)));
                match checked {
                    Ok(()) => {}
                    // One that a newer snapshot made unneeded meanwhile.
                    Err(error) if error.is_missing() => {}
                    Err(error) => found.push(error.to_string()),
                }
            }
            Ok::<_, String>(found)
        });
        let found = checking.await.map_err(|error| error.to_string())??;
        let key = format!("corruption/node-{}", self.node_id);
        if found.is_empty() {
            if self.published.view().alarm(&key).is_some() {
                self.set_alarm(&key, None).await;
            }
            return Ok(found);
        }
        for damage in &found {
            tracing::error!(damage, "a file on disk is damaged");
        }
        let message = format!(
            "node {} found damage on its disk: {}. It still runs, and what it has in memory is good. Do not restart it: \
             replace it under a new id with `trireme cluster replace`, and check its disk. The alarm goes if newer snapshots \
             make the damaged file unneeded",
            self.node_id,
            found.join("; ")
        );
        self.set_alarm(&key, Some(message)).await;
        // Newer snapshots are written from memory, and what they cover is removed.
        if let Err(why) = self.compact(started, false).await {
            tracing::warn!(why, "no snapshot was written in place of what is damaged");
        }
        Ok(found)
    }
}

impl Store {
    /// Checks the kept snapshots and the closed segments of the log now, at the usual rate; answers with what is damaged.
    /// An alarm tells of it as well.
    pub async fn scrub(&self) -> Result<Vec<String>, OpenError> {
        let unstarted = || OpenError::Consensus("this node belongs to no cluster".to_owned());
        let started = self.inner.started().ok_or_else(unstarted)?;
        let scrubbed = self.inner.scrub(started).await;
        scrubbed.map_err(OpenError::Consensus)
    }
}
