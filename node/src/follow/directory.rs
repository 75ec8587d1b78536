//! The watched paths as a sequence of whole states: each is handed out once it has stood still, and never in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use notify::{EventKind, RecursiveMode, Watcher as _, event::AccessKind, event::AccessMode};
use rand::RngExt as _;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};
use trireme_config::{Diagnostic, FileSet, Layout, files};

use super::look::Look;

/// Directories that the system is asked to watch; what lies in others is found by looking.
const MAX_WATCHES: usize = 10_000;

/// The waits of a watched directory, all by the monotonic clock.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    /// Nothing may have changed for so long before a change is read.
    pub(super) quiet: Duration,
    /// What never stands still is read after this nevertheless.
    pub(super) quiet_at_most: Duration,
    /// Between two looks while the system tells of changes by itself: it tells of none on some network file systems.
    pub(super) look: Duration,
    /// The same where it does not.
    pub(super) look_blind: Duration,
    /// Before a state in the middle of an update is looked at again.
    pub(super) half: Duration,
    /// For so long such a state is nothing to tell of.
    pub(super) half_at_most: Duration,
    /// Before what failed is tried again although nothing changed, up to a quarter more (CFG-092: at least each minute).
    pub(super) retry: Duration,
    /// Before the content is read again although nothing changed (CFG-091).
    pub(super) reread: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(1),
            quiet_at_most: Duration::from_secs(5),
            look: Duration::from_secs(10),
            look_blind: Duration::from_secs(2),
            half: Duration::from_millis(200),
            half_at_most: Duration::from_secs(10),
            retry: Duration::from_secs(40),
            reread: Duration::from_secs(600),
        }
    }
}

/// Why the watched paths hold no whole state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It has been half updated for longer than an update takes.
    Half(Vec<String>),
    /// Files are missing or cannot be read.
    Unreadable(Vec<Diagnostic>),
    /// The look itself failed.
    Look(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Half(places) => {
                let more = places.len().saturating_sub(1);
                let first = places.first().map(String::as_str).unwrap_or_default();
                write!(f, "the directory is half updated: {first}")?;
                if more > 0 {
                    write!(f, " (and {more} more)")?;
                }
                f.write_str("; it is looked at again until it is whole")
            }
            Self::Unreadable(found) => {
                let first = found.first().map(ToString::to_string).unwrap_or_default();
                match found.len() {
                    0 | 1 => f.write_str(&first),
                    errors => write!(f, "{errors} errors, the first: {first}"),
                }
            }
            Self::Look(why) => f.write_str(why),
        }
    }
}

/// Tells of changes in directories, where the system can.
struct Watches {
    watcher: Option<notify::RecommendedWatcher>,
    /// With the inode: a directory that was made anew is another one.
    watched: BTreeMap<PathBuf, u64>,
    changed: Arc<Notify>,
    /// Whether some directory is not watched.
    blind: bool,
}

/// Reading is no change; everything else may be one.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

impl Watches {
    fn new() -> Self {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error means that something may have been missed.
            if event.map_or(true, |event| is_change(event.kind)) {
                told.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|why| {
                tracing::warn!(%why, "the system tells of no changes, the configuration's files are looked at instead");
            })
            .ok();
        Self {
            blind: watcher.is_none(),
            watcher,
            watched: BTreeMap::new(),
            changed,
        }
    }

    /// Tells of nothing.
    fn none() -> Self {
        Self {
            watcher: None,
            watched: BTreeMap::new(),
            changed: Arc::new(Notify::new()),
            blind: true,
        }
    }

    /// Watches these directories and no others.
    fn watch(&mut self, directories: &BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let inode = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.ino());
        self.watched.retain(|path, watched| {
            let wanted = directories.contains(path) && inode(path) == *watched;
            if !wanted {
                // Mostly gone, and the watch with it.
                let _gone = watcher.unwatch(path);
            }
            wanted
        });
        let mut blind = directories.len() > MAX_WATCHES;
        let was_blind = self.blind;
        for path in directories.iter().take(MAX_WATCHES) {
            if self.watched.contains_key(path) {
                continue;
            }
            let inode = inode(path);
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone(), inode);
                }
                // Gone since it was looked at, or there are as many watches as the system allows.
                Err(why) => {
                    if !was_blind && !blind {
                        tracing::warn!(path = %path.display(), %why, "not watched, looked at instead, more often");
                    }
                    blind = true;
                }
            }
        }
        self.blind = blind;
    }
}

/// The files of a layout, followed.
pub(super) struct Directory {
    layout: Layout,
    timing: Timing,
    watches: Watches,
    /// What was last handed out, as content or as trouble.
    seen: Option<Look>,
    read_at: Instant,
    took: Duration,
}

impl Directory {
    pub(super) fn new(layout: Layout, timing: Timing) -> Self {
        Self {
            layout,
            timing,
            watches: Watches::new(),
            seen: None,
            read_at: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// How long the last read took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// The next whole state: the first time what is there, then when something changed, either once it stands still;
    /// and the same again where the last `failed`, or after a while.
    pub(super) async fn next(&mut self, failed: bool) -> Result<FileSet, Trouble> {
        let again = if failed {
            let jitter = rand::rng().random_range(0.0..=0.25);
            Instant::now() + self.timing.retry.mul_f64(1.0 + jitter)
        } else {
            self.read_at + self.timing.reread
        };
        let mut is_first = self.seen.is_none() && !failed;
        loop {
            if !std::mem::take(&mut is_first) {
                self.wait(again).await;
            }
            let mut before = self.look().await?;
            self.watch(&before).await;
            if self.seen.as_ref() == Some(&before) {
                if Instant::now() < again {
                    continue;
                }
            } else {
                before = self.stand_still(before).await?;
            }
            return self.read(before).await;
        }
    }

    /// The look that is the same twice, or the last one when that takes too long.
    async fn stand_still(&mut self, mut look: Look) -> Result<Look, Trouble> {
        let at_most = Instant::now() + self.timing.quiet_at_most;
        loop {
            sleep(self.timing.quiet).await;
            let next = self.look().await?;
            self.watch(&next).await;
            if next == look || Instant::now() >= at_most {
                return Ok(next);
            }
            look = next;
        }
    }

    /// The content, of which nothing changed while it was read.
    async fn read(&mut self, mut before: Look) -> Result<FileSet, Trouble> {
        let at_most = Instant::now() + self.timing.half_at_most;
        loop {
            let mut read = None;
            let started = Instant::now();
            if before.half.is_empty() {
                let layout = self.layout.clone();
                read = Some(spawn_blocking(move || files::read(layout)).await);
            }
            let after = self.look().await?;
            let settled = after == before;
            if let Some(read) = read
                && settled
            {
                self.read_at = Instant::now();
                self.took = started.elapsed();
                self.seen = Some(after);
                return match read {
                    Ok(Ok(files)) => Ok(files),
                    Ok(Err(found)) => Err(Trouble::Unreadable(found)),
                    Err(why) => Err(Trouble::Look(why.to_string())),
                };
            }
            if Instant::now() >= at_most {
                let mut places = after.half.clone();
                if places.is_empty() {
                    places.push("files change faster than they can be read".to_owned());
                }
                self.seen = Some(after);
                return Err(Trouble::Half(places));
            }
            sleep(self.timing.half).await;
            before = self.look().await?;
        }
    }

    /// Watches what a look found. Thousands of calls of the system: not for a thread that others wait for.
    async fn watch(&mut self, look: &Look) {
        let mut watches = std::mem::replace(&mut self.watches, Watches::none());
        let directories = look.directories.clone();
        let watching = spawn_blocking(move || {
            watches.watch(&directories);
            watches
        });
        match watching.await {
            Ok(watches) => self.watches = watches,
            Err(why) => {
                tracing::error!(%why, "the watches are lost, the configuration's files are looked at instead");
            }
        }
    }

    async fn look(&self) -> Result<Look, Trouble> {
        let layout = self.layout.clone();
        match spawn_blocking(move || Look::take(&layout)).await {
            Ok(look) => look.map_err(Trouble::Look),
            Err(why) => Err(Trouble::Look(why.to_string())),
        }
    }

    /// Until something may have changed, until the next look is due, or until `again`.
    async fn wait(&self, again: Instant) {
        let look = if self.watches.blind {
            self.timing.look_blind
        } else {
            self.timing.look
        };
        let due = (Instant::now() + look).min(again);
        let told = self.watches.changed.notified();
        // Whether it was told or is due, a look says what is true.
        let _either = timeout_at(due, told).await;
    }
}

#[cfg(test)]
impl Directory {
    /// As on a file system that tells nothing.
    pub(super) fn deaf(mut self) -> Self {
        self.watches.watcher = None;
        self.watches.blind = true;
        self
    }
}
