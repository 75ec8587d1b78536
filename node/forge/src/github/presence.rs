//! Whether a GitHub is there at all. While it is not, nobody asks it but one probe for everybody: its return is noticed
//! within [`PROBE_LONGEST`], and whoever waited is told at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;

/// Calls in a row that reached nobody, or something broken, before a GitHub counts as away. One broken page among others
/// that answer is not enough.
pub(super) const AWAY_AFTER: u32 = 10;
/// The wait before the first probe; doubled for each further one, with ±25 % jitter.
pub(super) const PROBE_FIRST: Duration = Duration::from_secs(1);
/// The longest wait between two probes, jitter apart.
pub(super) const PROBE_LONGEST: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Presence {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In a row.
    failures: u32,
    away: bool,
    /// Probes since a call was last answered: one that is there for probes alone is soon away again, and then for longer.
    probes: u32,
}

impl Presence {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_away(&self) -> bool {
        self.inner().away
    }

    /// A call was answered, be it with a refusal. One that was sent before it went away tells nothing of its return.
    pub(super) fn answered(&self) {
        let mut inner = self.inner();
        if !inner.away {
            *inner = Inner::default();
        }
    }

    /// A call was not; true if it counts as away from now on, so that somebody has to begin with probes.
    pub(super) fn failed(&self) -> bool {
        let mut inner = self.inner();
        if inner.away {
            return false;
        }
        inner.failures = inner.failures.saturating_add(1);
        let is_on_trial = inner.probes > 0;
        inner.away = is_on_trial || inner.failures >= AWAY_AFTER;
        inner.away
    }

    /// How long to wait before the next probe.
    pub(super) fn next_probe(&self) -> Duration {
        let mut inner = self.inner();
        let doublings = inner.probes.min(16);
        inner.probes = inner.probes.saturating_add(1);
        let wait = PROBE_FIRST
            .saturating_mul(1 << doublings)
            .min(PROBE_LONGEST);
        wait.mul_f64(rand::rng().random_range(0.75..=1.25))
    }

    /// A probe was answered.
    pub(super) fn returned(&self) {
        let mut inner = self.inner();
        inner.away = false;
        inner.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_away_after_failures_in_a_row_and_until_a_probe_is_answered() {
        let presence = Presence::default();
        for _ in 1..AWAY_AFTER {
            assert!(!presence.failed());
        }
        presence.answered();
        for _ in 1..AWAY_AFTER {
            assert!(!presence.failed());
        }
        assert!(presence.failed() && presence.is_away());
        // Somebody probes already.
        assert!(!presence.failed());
        // Sent before it went away.
        presence.answered();
        assert!(presence.is_away());
        presence.next_probe();
        presence.returned();
        assert!(!presence.is_away());
    }

    #[test]
    fn one_that_answers_probes_alone_is_away_at_once_and_for_longer() {
        let presence = Presence::default();
        let mut waits = Vec::new();
        for _ in 0..AWAY_AFTER {
            presence.failed();
        }
        for _ in 0..6 {
            waits.push(presence.next_probe().as_secs_f64());
            presence.returned();
            assert!(presence.failed());
        }
        for (wait, expected) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 15.0, 15.0]) {
            assert!((0.75..=1.25).contains(&(wait / expected)), "{waits:?}");
        }
        presence.next_probe();
        presence.returned();
        presence.answered();
        assert!(!presence.failed());
        assert!(presence.next_probe() < PROBE_FIRST.mul_f64(1.26));
    }
}
