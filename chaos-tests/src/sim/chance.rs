//! Chance that a seed decides. Each purpose draws from a sequence of its own, so that a change in one leaves the others.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};

#[derive(Debug, Clone)]
pub(crate) struct Chance(Arc<Mutex<StdRng>>);

/// The generator that a seed and a purpose make.
pub fn generator(seed: u64, purpose: &str) -> StdRng {
    let sum = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(purpose)
        .finalize();
    StdRng::from_seed(sum.into())
}

impl Chance {
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        Self(Arc::new(Mutex::new(generator(seed, purpose))))
    }

    /// Less than `limit`, which must not be 0.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rng.random_range(0..limit)
    }

    pub(crate) fn one_in(&self, times: u64) -> bool {
        self.below(times.max(1)) == 0
    }

    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_nanos();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        least + Duration::from_nanos(self.below(span.saturating_add(1).max(1)))
    }

    pub(crate) fn millis(&self, least: u64, most: u64) -> Duration {
        self.between(Duration::from_millis(least), Duration::from_millis(most))
    }

    pub(crate) fn pick<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        among.get(self.below(among.len().max(1) as u64) as usize)
    }

    /// Some of them, in any order.
    pub(crate) fn shuffled<T: Clone>(&self, all: &[T]) -> Vec<T> {
        let mut left = all.to_vec();
        let mut shuffled = Vec::with_capacity(left.len());
        while !left.is_empty() {
            shuffled.push(left.swap_remove(self.below(left.len() as u64) as usize));
        }
        shuffled
    }
}
