//! Room on the disk.
//!
//! Each node looks at its disk every few seconds, says in its hellos how full it is, and raises an alarm when it is. A
//! leader whose disk is full hands over to a voter with room. Where a majority of the voters has none, or the leader
//! itself cannot hand over, what would make the state larger is refused; what ends or removes goes on, and so do
//! snapshots and the purge of the log. A majority, not all: a leader with room would else write its followers full, and
//! with them the quorum would be gone.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::time::{Instant, sleep};
use trireme_proto::raft::change_membership_request::Change;

use super::{Inner, Started, compact::Wish, membership::voters};

/// With less than this left the reserve goes at once: the archive writes past our own files.
const LOW_WATER_BYTES: u64 = 16 << 20;
/// Between snapshots that are written only to shorten the log.
const FORCED_EVERY: Duration = Duration::from_secs(60);
/// The reserve is taken again when this many times its size is free.
const ROOM_FOR_RESERVE: u64 = 2;

/// A node's disk at its last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUse {
    /// Bytes of the file system, or of the data directory's budget.
    pub total: u64,
    pub available: u64,
    pub used_permille: u32,
}

impl std::fmt::Display for DiskUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{} % full, {} MiB of {} MiB are left",
            self.used_permille / 10,
            self.used_permille % 10,
            self.available >> 20,
            self.total >> 20
        )
    }
}

/// What this node last saw of its own disk.
#[derive(Debug, Default)]
pub(super) struct OwnDisk(Mutex<Option<DiskUse>>);

impl OwnDisk {
    pub(super) fn get(&self) -> Option<DiskUse> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, disk: DiskUse) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(disk);
    }
}

/// Why a leader takes nothing new, if it does not.
#[derive(Debug, Default)]
pub(super) struct Gate(ArcSwapOption<String>);

impl Gate {
    pub(super) fn refusal(&self) -> Option<String> {
        self.0.load().as_ref().map(|reason| String::clone(reason))
    }

    fn set(&self, refusal: Option<String>) {
        let before = self.0.swap(refusal.clone().map(Arc::new));
        match (before.is_some(), refusal) {
            (false, Some(reason)) => tracing::error!(reason, "nothing new is taken"),
            (true, None) => tracing::info!("new things are taken again"),
            _ => {}
        }
    }
}

/// Share of `all` that is used, in thousandths, rounded down.
fn permille(used: u64, all: u64) -> u32 {
    let share = u128::from(used) * 1000;
    let share = share.checked_div(u128::from(all)).unwrap_or(1000);
    u32::try_from(share).unwrap_or(u32::MAX).min(1000)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Filling,
    Full,
}

#[derive(Default)]
struct Looker {
    full: bool,
    told: Option<Severity>,
    forced: Option<Instant>,
}

/// Looks after the disk until the store is closed.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut looker = Looker::default();
    let mut spent = false;
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        if strong.fatal.get().is_some() {
            return;
        }
        looker.look(&strong, started, spent).await;
        let (reserve, period) = (Arc::clone(&strong.reserve), strong.limits.space.look);
        drop(strong);
        spent = tokio::select! {
            () = reserve.spent() => true,
            () = sleep(period) => false,
        };
    }
}

impl Looker {
    async fn look(&mut self, inner: &Inner, started: &Started, spent: bool) {
        let disk = match measure(inner).await {
            Ok(disk) => disk,
            Err(why) => {
                tracing::warn!(%why, path = %inner.data_dir.display(), "the disk's room cannot be seen");
                return;
            }
        };
        started.disk.set(disk);
        let options = &inner.limits.space;
        let bound = match self.full {
            true => options.resume_permille,
            false => options.refuse_permille,
        };
        self.full = disk.used_permille >= bound;
        self.guard(inner, started).await;
        self.tell(inner, disk).await;
        self.make_room(inner, started, disk, spent).await;
    }

    /// Shortens the log when there is no room, and takes the reserve again when there is.
    async fn make_room(&mut self, inner: &Inner, started: &Started, disk: DiskUse, spent: bool) {
        if disk.available < LOW_WATER_BYTES {
            let reserve = Arc::clone(&inner.reserve);
            let _ = inner.host.blocking(move || reserve.give()).await;
        }
        let lately = self.forced.is_some_and(|at| at.elapsed() < FORCED_EVERY);
        if spent || (self.full && !lately) {
            self.forced = Some(Instant::now());
            if let Err(why) = inner.compact(started, Wish::Room).await {
                tracing::error!(why, "the log was not shortened");
            }
        }
        let reserve = Arc::clone(&inner.reserve);
        let wanted = reserve.bytes().saturating_mul(ROOM_FOR_RESERVE);
        if !self.full && !reserve.is_held() && disk.available > wanted {
            match inner.host.blocking(move || reserve.take()).await {
                Ok(Ok(_)) => {}
                Ok(Err(why)) | Err(why) => tracing::warn!(%why, "the reserve is not set aside"),
            }
        }
    }

    async fn tell(&mut self, inner: &Inner, disk: DiskUse) {
        let options = &inner.limits.space;
        let node = inner.node_id;
        let key = format!("disk/node-{node}");
        let raised = inner.published.view().alarm(&key).is_some();
        if !raised {
            self.told = None;
        }
        let severity = if self.full {
            Some(Severity::Full)
        } else if disk.used_permille >= options.alarm_permille {
            Some(Severity::Filling)
        } else {
            None
        };
        let Some(severity) = severity else {
            if raised && disk.used_permille < options.clear_permille {
                inner.set_alarm(&key, None).await;
            }
            return;
        };
        if self.told == Some(severity) {
            return;
        }
        let what = match severity {
            Severity::Filling => format!(
                "From {}.{} % on nothing new is taken: free space on it or give the node a larger disk",
                options.refuse_permille / 10,
                options.refuse_permille % 10
            ),
            Severity::Full => "Nothing new is taken where a majority of the nodes is full; what ends or removes goes on, and \
                 the log is shortened. Free space on it or give the node a larger disk"
                .to_owned(),
        };
        let message = format!("the disk of node {node} is {disk}. {what}");
        if inner.set_alarm(&key, Some(message)).await {
            self.told = Some(severity);
        }
    }

    /// As leader: hands over to a voter with room, or refuses what would need more.
    async fn guard(&self, inner: &Inner, started: &Started) {
        let pulse = started.ring.pulse();
        if pulse.seen.leader != Some(inner.node_id) {
            started.gate.set(None);
            return;
        }
        let voters = voters(&pulse);
        let of = |id: u64| match id == inner.node_id {
            true => started.disk.get(),
            false => started.peers.about(id).and_then(|about| about.disk),
        };
        // A node that has not said anything counts as one with room.
        let is_full = |id: u64| match id == inner.node_id {
            true => self.full,
            false => {
                of(id).is_some_and(|disk| disk.used_permille >= inner.limits.space.refuse_permille)
            }
        };
        let (full, roomy): (Vec<u64>, Vec<u64>) = voters.iter().partition(|id| is_full(**id));
        let majority = roomy.len() > voters.len() / 2;
        if majority && !self.full {
            started.gate.set(None);
            return;
        }
        if majority {
            let ready = roomy
                .iter()
                .filter(|id| inner.caught_up(&pulse, **id).is_ok())
                .max_by_key(|id| pulse.matched.get(id).copied().flatten());
            if let Some(to) = ready {
                tracing::warn!(to, "the disk is full here: handing over the lead");
                match inner
                    .change_here(started, Change::TransferLeader(*to))
                    .await
                {
                    Ok(()) => {
                        started.gate.set(None);
                        return;
                    }
                    Err(why) => tracing::warn!(%why, to, "the lead was not handed over"),
                }
            }
        }
        let mut shown: Vec<String> = Vec::new();
        for id in full {
            if let Some(disk) = of(id) {
                shown.push(format!("the disk of node {id} is {disk}"));
            }
        }
        started.gate.set(Some(format!(
            "nothing new is taken for want of room: {}. Free space or give the nodes larger disks, then try again; what \
             ends or removes goes on",
            shown.join("; ")
        )));
    }
}

pub(super) async fn measure(inner: &Inner) -> std::io::Result<DiskUse> {
    let (disk, dir) = (Arc::clone(&inner.disk), inner.data_dir.clone());
    let budget = inner.limits.space.budget_bytes;
    let measuring = inner.host.io(move || {
        let space = disk.space(&dir)?;
        let mut found = DiskUse {
            total: space.total,
            available: space.available,
            // As df has it: what is kept from this process by a reserve or a quota is neither used nor free.
            used_permille: permille(space.used, space.used.saturating_add(space.available)),
        };
        if let Some(budget) = budget {
            let taken = disk.taken(&dir)?;
            let left = budget.saturating_sub(taken);
            // A file system that is full before the budget is reached counts as well.
            if left <= found.available || permille(taken, budget) >= found.used_permille {
                found = DiskUse {
                    total: budget,
                    available: left.min(found.available),
                    used_permille: permille(taken, budget).max(found.used_permille),
                };
            }
        }
        Ok(found)
    });
    measuring.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_down_and_nothing_of_nothing_is_full() {
        assert_eq!(permille(1, 3), 333);
        assert_eq!(permille(999_999, 1_000_000), 999);
        assert_eq!(permille(u64::MAX, u64::MAX), 1000);
        assert_eq!(permille(0, 0), 1000);
        assert_eq!(permille(5, 4), 1000);
    }

    #[test]
    fn figures_are_told_in_words() {
        let disk = DiskUse {
            total: 10 << 30,
            available: 412 << 20,
            used_permille: 959,
        };
        insta::assert_snapshot!(disk, @"95.9 % full, 412 MiB of 10240 MiB are left");
    }
}
