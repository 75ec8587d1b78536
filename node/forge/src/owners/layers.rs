//! Sets in layers: who is closest to a file comes first.

use std::collections::BTreeSet;

/// Layer 0 is the closest. A member is in one layer only, the closest it was inserted into (OWN-013).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayeredSet {
    layers: Vec<BTreeSet<String>>,
}

impl LayeredSet {
    /// Layers may be empty.
    #[must_use]
    pub fn layers(&self) -> &[BTreeSet<String>] {
        &self.layers
    }

    /// Members that are in a layer already stay there.
    pub fn insert<S: Into<String>>(&mut self, layer: usize, members: impl IntoIterator<Item = S>) {
        while self.layers.len() <= layer {
            self.layers.push(BTreeSet::new());
        }
        for member in members {
            let member = member.into();
            if !self.contains(&member) {
                self.layers[layer].insert(member);
            }
        }
    }

    #[must_use]
    pub fn contains(&self, member: &str) -> bool {
        self.layers.iter().any(|layer| layer.contains(member))
    }

    pub fn remove(&mut self, member: &str) {
        for layer in &mut self.layers {
            layer.remove(member);
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.iter().map(BTreeSet::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(BTreeSet::is_empty)
    }

    /// The closest first, by name within a layer.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().flatten().map(String::as_str)
    }

    #[must_use]
    pub fn to_set(&self) -> BTreeSet<String> {
        self.layers.iter().flatten().cloned().collect()
    }

    /// Without the members of `other`, in the same layers.
    #[must_use]
    pub fn difference(&self, other: &BTreeSet<String>) -> Self {
        let layers = self.layers.iter();
        Self {
            layers: layers
                .map(|layer| layer.difference(other).cloned().collect())
                .collect(),
        }
    }

    /// With the members of `other` in their layers there, unless they are here already.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        for (n, layer) in other.layers.iter().enumerate() {
            union.insert(n, layer.iter().cloned());
        }
        union
    }

    /// Takes one out of the closest layer that has any, at random: each of them is as likely (OWN-020).
    pub fn pop_random(&mut self, draw: &mut Draw) -> Option<String> {
        self.pop(|of| draw.below(of))
    }

    /// Takes one out of the closest layer that has any. `choose` is given how many there are and returns which of them,
    /// counted by name from 0 (OWN-020).
    pub fn pop(&mut self, choose: impl FnOnce(usize) -> usize) -> Option<String> {
        let layer = self.layers.iter().find(|layer| !layer.is_empty())?;
        let chosen = choose(layer.len()).min(layer.len() - 1);
        let member = layer.iter().nth(chosen)?.clone();
        self.remove(&member);
        Some(member)
    }
}

/// Numbers that look random and are the same for the same seed: a plan that is made again picks the same people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    state: u64,
}

impl Draw {
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// For what is picked once for each text: a delivery decided about again picks the same.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mix = |seed: u64, byte: u8| Self::seeded(seed ^ u64::from(byte)).number();
        Self::seeded(text.bytes().fold(0, mix))
    }

    /// Fixed here (splitmix64), because what is picked must survive upgrades of any library.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of the numbers below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(layers: &[&[&str]]) -> LayeredSet {
        let mut set = LayeredSet::default();
        for (n, layer) in layers.iter().enumerate() {
            set.insert(n, layer.iter().copied());
        }
        set
    }

    #[test]
    fn one_text_picks_the_same_again_and_others_pick_otherwise() {
        let picks = |text: &str| -> Vec<usize> {
            let mut draw = Draw::of(text);
            (0..20).map(|_| draw.below(5)).collect()
        };
        assert_eq!(picks("a"), picks("a"));
        assert_ne!(picks("a"), picks("b"));
        assert!((0..5).all(|pick| picks("a").contains(&pick)));
        assert_eq!(Draw::of("a").below(0), 0);
    }

    /// OWN-013, OWN-020
    #[test]
    fn a_member_keeps_its_closest_layer() {
        let layered = set(&[&["b"], &["a", "b"], &["c"]]);
        assert_eq!(layered.iter().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert_eq!(layered.len(), 3);

        let union = set(&[&["x"], &["b"]]).union(&layered);
        assert_eq!(union, set(&[&["x"], &["a", "b"], &["c"]]));

        let without_b = layered.difference(&BTreeSet::from(["b".to_owned()]));
        assert_eq!(without_b, set(&[&[], &["a"], &["c"]]));
    }

    /// OWN-020
    #[test]
    fn the_pick_is_from_the_lowest_layer_that_has_any() {
        let mut layered = set(&[&[], &["a", "b"], &["c"]]);
        assert_eq!(layered.pop(|of| of - 1).as_deref(), Some("b"));
        assert_eq!(layered.pop(|_| 0).as_deref(), Some("a"));
        assert_eq!(layered.pop(|_| 99).as_deref(), Some("c"));
        assert_eq!(layered.pop(|_| 0), None);
    }

    /// OWN-020
    #[test]
    fn a_seeded_pick_is_fair_and_can_be_repeated() {
        let people = set(&[&["a", "b", "c", "d"], &["z"]]);
        let picks = |seed| {
            let (mut people, mut draw) = (people.clone(), Draw::seeded(seed));
            let mut picks = Vec::new();
            while let Some(pick) = people.pop_random(&mut draw) {
                picks.push(pick);
            }
            picks.concat()
        };
        assert_eq!(picks(5), picks(5));
        let mut first = std::collections::BTreeMap::new();
        for seed in 0..4000 {
            let picks = picks(seed);
            assert!(picks.len() == 5 && picks.ends_with('z'), "{picks}");
            *first.entry(picks[..1].to_owned()).or_insert(0) += 1;
        }
        assert!(
            first.len() == 4 && first.values().all(|n| (850..1150).contains(n)),
            "{first:?}"
        );
        // Pinned: who was asked once is asked again after an upgrade.
        assert_eq!([picks(1), picks(2)], ["bcadz", "cdbaz"]);
    }
}
