//! The leader's clock: what entries are stamped with.
//!
//! A stamp is wall time read once, plus monotonic time since, plus an offset that is fixed on taking the lead: the
//! median of what the reachable majority's clocks say. Stamps never decrease. A node more than [`MAX_SKEW_MS`] off the
//! median must not lead.
//!
//! All clocks, this machine's too, are compared with that steady time: what was read of a peer's clock stays right when
//! ours jumps afterwards.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How far a leader's clock may be off its peers'.
pub(crate) const MAX_SKEW_MS: i64 = 2000;
/// A peer's clock that was read longer ago does not count.
const SAMPLE_AGE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Clock(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// When the wall clock was read for good.
    read_at: Instant,
    wall_ms: i64,
    offset_ms: i64,
    last_stamp_ms: i64,
    /// Peer's clock minus steady time, and when it was read.
    samples: BTreeMap<u64, (i64, Instant)>,
}

pub(crate) fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner {
            read_at: Instant::now(),
            wall_ms: wall_ms(),
            offset_ms: 0,
            last_stamp_ms: 0,
            samples: BTreeMap::new(),
        }))
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wall clock as it was read once, gone on steadily since.
    pub(crate) fn steady_ms(&self) -> i64 {
        self.held().steady_ms()
    }

    /// A peer's clock said `peer_ms` between `asked_ms`, in steady time, and now.
    pub(crate) fn sample(&self, node: u64, asked_ms: i64, peer_ms: i64) {
        let mut inner = self.held();
        let offset = peer_ms - i64::midpoint(asked_ms, inner.steady_ms());
        inner.samples.insert(node, (offset, Instant::now()));
    }

    /// Median of the voters' clocks minus ours; None unless a majority was read lately.
    pub(crate) fn skew_ms(&self, me: u64, voters: &[u64]) -> Option<i64> {
        self.held().skew_ms(wall_ms(), me, voters)
    }

    /// Fixes the offset for the time that this node leads.
    pub(crate) fn take_lead(&self, skew_ms: Option<i64>) {
        let mut inner = self.held();
        inner.take_lead(wall_ms(), skew_ms);
    }

    /// A stamp for the next entry, at least `floor_ms` and never below the one before.
    pub(crate) fn stamp(&self, floor_ms: i64) -> i64 {
        let mut inner = self.held();
        let now = inner.steady_ms() + inner.offset_ms;
        inner.last_stamp_ms = inner.last_stamp_ms.max(now).max(floor_ms);
        inner.last_stamp_ms
    }
}

impl Inner {
    fn steady_ms(&self) -> i64 {
        let passed = i64::try_from(self.read_at.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.wall_ms.saturating_add(passed)
    }

    fn skew_ms(&self, wall_ms: i64, me: u64, voters: &[u64]) -> Option<i64> {
        let own = wall_ms - self.steady_ms();
        let offsets = voters.iter().filter_map(|voter| {
            if *voter == me {
                return Some(own);
            }
            let (offset, at) = self.samples.get(voter)?;
            (at.elapsed() < SAMPLE_AGE).then_some(*offset)
        });
        Some(median(offsets, voters.len())? - own)
    }

    fn take_lead(&mut self, wall_ms: i64, skew_ms: Option<i64>) {
        self.offset_ms = wall_ms - self.steady_ms() + skew_ms.unwrap_or(0);
    }
}

fn median(offsets: impl Iterator<Item = i64>, voters: usize) -> Option<i64> {
    let mut offsets: Vec<i64> = offsets.collect();
    offsets.sort_unstable();
    (offsets.len() > voters / 2).then(|| offsets[(offsets.len() - 1) / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_never_decrease() {
        let clock = Clock::new();
        let first = clock.stamp(0);
        assert!((wall_ms() - first).abs() < 1000);
        assert_eq!(
            clock.stamp(first + 60_000),
            first + 60_000,
            "the log's last stamp is a floor"
        );
        assert_eq!(clock.stamp(0), first + 60_000);
        clock.take_lead(Some(-600_000));
        assert_eq!(
            clock.stamp(0),
            first + 60_000,
            "nor does a clock that was ahead go back"
        );
    }

    #[test]
    fn a_clock_that_is_off_alone_follows_the_majority() {
        let clock = Clock::new();
        let voters = [1, 2, 3];
        assert_eq!(clock.skew_ms(1, &voters), None, "a majority must be heard");
        let now = wall_ms();
        clock.sample(2, now, now + 5000);
        clock.sample(3, now, now + 5100);
        let skew = clock.skew_ms(1, &voters).unwrap();
        assert!((4900..5100).contains(&skew), "{skew}");
        assert_eq!(clock.skew_ms(1, &[1]), Some(0));
    }

    /// Found by `chaos --nemesis clock,kill`: stamps stood still for an hour, or jumped by one.
    #[test]
    fn a_clock_that_jumps_after_its_peers_were_read_moves_no_stamp() {
        let voters = [1, 2, 3];
        for jump_ms in [-3_600_000, 3_600_000] {
            let clock = Clock::new();
            let now = wall_ms();
            clock.sample(2, now, now);
            clock.sample(3, now, now + 10);
            let mut inner = clock.held();
            let skew = inner.skew_ms(wall_ms() + jump_ms, 1, &voters).unwrap();
            assert!((skew + jump_ms).abs() < 1000, "{skew}");
            inner.take_lead(wall_ms() + jump_ms, Some(skew));
            drop(inner);
            let off = clock.stamp(0) - wall_ms();
            assert!(off.abs() < 1000, "{off}");
        }
    }
}
