//! Chance for what Prow picks at random. Seeded by the delivery: deciding again about one event picks the same.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Picks one of so many, counted from 0.
pub(crate) struct Dice(StdRng);

impl Dice {
    pub(crate) fn of(guid: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        guid.hash(&mut hasher);
        Self(StdRng::seed_from_u64(hasher.finish()))
    }

    /// One of `count`; 0 if there is nothing to pick from.
    pub(crate) fn one_of(&mut self, count: usize) -> usize {
        match count {
            0 | 1 => 0,
            _ => self.0.random_range(0..count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_delivery_picks_the_same_again_and_others_pick_otherwise() {
        let picks = |guid: &str| -> Vec<usize> {
            let mut dice = Dice::of(guid);
            (0..20).map(|_| dice.one_of(5)).collect()
        };
        assert_eq!(picks("a"), picks("a"));
        assert_ne!(picks("a"), picks("b"));
        assert!((0..5).all(|pick| picks("a").contains(&pick)));
        assert_eq!(Dice::of("a").one_of(0), 0);
    }
}
