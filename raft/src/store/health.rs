//! Whether this node may go on, and how late the ring runs its tasks.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Inner;
use crate::{consensus::Ring, fatal::FatalKind};

/// Period of the ring's pulse, from which its delay is measured.
const PULSE: Duration = Duration::from_millis(100);
/// Pulses over which the longest delay is kept.
const PULSES_KEPT: u32 = 100;

/// Longest delay of the ring's runtime lately.
#[derive(Debug, Default)]
pub(super) struct Delay(AtomicU64);

impl Delay {
    pub(super) fn longest(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Turns what stopped consensus into the reason why the node must stop, takes the node out of consensus for any other
/// reason, and says when reads are safe.
pub(super) async fn run(inner: Weak<Inner>) {
    let (ring, fatal, recovered) = {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(started) = strong.started() else {
            return;
        };
        let ring = Arc::clone(&started.ring);
        (ring, strong.fatal.clone(), strong.recovered.clone())
    };
    let recovering = async {
        recovered.send_replace(ring.recovered().await);
        std::future::pending::<()>().await;
    };
    let stopped = tokio::select! {
        stopped = ring.stopped() => stopped,
        () = recovering => None,
        _ = fatal.wait() => {
            step_down(&inner, &ring).await;
            return;
        }
    };
    match (ring.wal.failed(), stopped) {
        (Some(failed), _) => fatal.set(FatalKind::Disk, failed),
        // The runtime of a store that is closed drops consensus as it is.
        (None, Some(reason)) if !inner.upgrade().is_none_or(|inner| *inner.closed.borrow()) => {
            fatal.set(FatalKind::Consensus, reason);
        }
        (None, _) => {}
    }
}

/// A node that must stop hands over the lead while it still can, and takes part no more.
async fn step_down(inner: &Weak<Inner>, ring: &Ring) {
    let handing_over = async {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let Some(to) = strong.successor() else {
            return;
        };
        let patience = strong.timing.election_max * 2;
        let mut leadership = strong.leadership.subscribe();
        drop(strong);
        if ring.transfer_leader(to).await.is_ok() {
            // The others elect one by themselves, only later.
            let left = leadership.wait_for(|leadership| !leadership.is_me);
            let _ = tokio::time::timeout(patience, left).await;
        }
    };
    handing_over.await;
    ring.shutdown().await;
}

/// Measures how late the ring's runtime runs its tasks.
pub(super) async fn beat(inner: Weak<Inner>) {
    let mut ticks = interval(PULSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut longest, mut pulses) = (Duration::ZERO, 0);
    loop {
        let due = ticks.tick().await;
        let late = Instant::now().saturating_duration_since(due);
        let Some(inner) = inner.upgrade() else {
            return;
        };
        pulses += 1;
        if pulses >= PULSES_KEPT {
            (longest, pulses) = (Duration::ZERO, 0);
        }
        longest = longest.max(late);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        inner.delay.0.store(micros, Ordering::Relaxed);
    }
}
