//! From the hash of an id to its record's place: sorted runs that never change, merged as they become many.
//!
//! Hashes come in no order. In a tree each new one lies in another leaf, and since the state before is a view that somebody
//! may hold, the whole path to that leaf is copied, with a count taken on each neighbour: a fifth of what a new job cost.
//! Here the newest hashes are a short sorted list. When it is full it becomes a run; of [`FAN`] runs of about one size one
//! is made, and one of all when those behind the first are together as long as it. So each pair is copied a few times in
//! its life, and what was removed takes no more room than what is there. A single insertion may copy everything: some
//! milliseconds at the most that the state may hold. What a view holds is shared and stays as it was.

use std::sync::Arc;

use crate::{digest::IdHash, table::Seq};

/// Pairs in the list of the newest: copied once for each entry that adds to it.
const YOUNG: usize = 128;
/// Runs of one level that are merged into one.
const FAN: usize = 4;
/// A run is asked for what it does not hold far more often than for what it does: its filter says so, wrongly in one case
/// of fifty.
const BITS_PER_ID: usize = 10;
const WORDS_PER_BLOCK: usize = 8;
const PROBES: u32 = 4;

/// The place of what was removed; log indexes end far below.
const GONE: Seq = Seq::MAX;

/// A hash as a number of the same order, and the place.
type Pair = (u128, Seq);

#[derive(Clone, Debug, Default)]
pub(crate) struct IdIndex {
    young: Arc<Vec<Pair>>,
    /// The oldest first; sizes only fall.
    runs: Arc<Vec<Arc<Run>>>,
}

/// By hash, no hash twice.
#[derive(Debug)]
struct Run {
    pairs: Vec<Pair>,
    filter: Filter,
}

impl IdIndex {
    pub(crate) fn get(&self, id: IdHash) -> Option<Seq> {
        let id = u128::from_be_bytes(id);
        let runs = self.runs.iter().rev();
        let seq = find(&self.young, id).or_else(|| {
            runs.filter(|run| run.filter.may_hold(id))
                .find_map(|run| find(&run.pairs, id))
        })?;
        (seq != GONE).then_some(seq)
    }

    /// Also in place of another.
    pub(crate) fn insert(&mut self, id: IdHash, seq: Seq) {
        let id = u128::from_be_bytes(id);
        let young = match Arc::get_mut(&mut self.young) {
            Some(young) => young,
            None => {
                let mut own = Vec::with_capacity(YOUNG);
                own.extend_from_slice(&self.young);
                self.young = Arc::new(own);
                // Nobody else has seen it yet.
                Arc::make_mut(&mut self.young)
            }
        };
        match young.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => young[at].1 = seq,
            Err(at) => young.insert(at, (id, seq)),
        }
        if young.len() >= YOUNG {
            let full = std::mem::take(young);
            self.settle(full);
        }
    }

    pub(crate) fn remove(&mut self, id: IdHash) -> Option<Seq> {
        let seq = self.get(id)?;
        self.insert(id, GONE);
        Some(seq)
    }

    fn settle(&mut self, pairs: Vec<Pair>) {
        let runs = Arc::make_mut(&mut self.runs);
        runs.extend(Run::of(pairs));
        while let Some(from) = due(runs) {
            let mut merged = Vec::new();
            for run in runs.drain(from..) {
                merged = merge(&merged, &run.pairs);
            }
            if from == 0 {
                // Nothing older is left that it would hide.
                merged.retain(|(_, seq)| *seq != GONE);
            }
            runs.extend(Run::of(merged));
        }
    }

    /// All that is there, by hash.
    fn content(&self) -> Vec<Pair> {
        let mut all = self
            .runs
            .iter()
            .fold(Vec::new(), |all, run| merge(&all, &run.pairs));
        all = merge(&all, &self.young);
        all.retain(|(_, seq)| *seq != GONE);
        all
    }
}

/// How it came about does not count.
impl PartialEq for IdIndex {
    fn eq(&self, other: &Self) -> bool {
        self.content() == other.content()
    }
}

/// The first of the runs that are to become one now.
fn due(runs: &[Arc<Run>]) -> Option<usize> {
    let (first, rest) = runs.split_first()?;
    let behind: usize = rest.iter().map(|run| run.pairs.len()).sum();
    if behind >= first.pairs.len() {
        return Some(0);
    }
    let from = runs.len().checked_sub(FAN)?;
    (runs[from].level() == runs[from + FAN - 1].level()).then_some(from)
}

impl Run {
    /// None of nothing.
    fn of(pairs: Vec<Pair>) -> Option<Arc<Self>> {
        (!pairs.is_empty()).then(|| {
            let filter = Filter::of(&pairs);
            Arc::new(Self { pairs, filter })
        })
    }

    /// Runs of one level are of about one size.
    fn level(&self) -> u32 {
        (self.pairs.len() / YOUNG).max(1).ilog(FAN)
    }
}

fn find(pairs: &[Pair], id: u128) -> Option<Seq> {
    let at = pairs.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    pairs.get(at).map(|(_, seq)| *seq)
}

/// Of a hash that is in both the newer place counts.
fn merge(older: &[Pair], newer: &[Pair]) -> Vec<Pair> {
    let mut merged = Vec::with_capacity(older.len() + newer.len());
    let (mut old, mut new) = (older, newer);
    while let (Some((one, rest_old)), Some((two, rest_new))) =
        (old.split_first(), new.split_first())
    {
        if one.0 < two.0 {
            merged.push(*one);
            old = rest_old;
            continue;
        }
        merged.push(*two);
        new = rest_new;
        if one.0 == two.0 {
            old = rest_old;
        }
    }
    merged.extend_from_slice(old);
    merged.extend_from_slice(new);
    merged
}

/// A Bloom filter, of which an id touches one line of the cache. The ids are hashes: their own bits serve.
#[derive(Debug)]
struct Filter(Vec<Block>);

#[derive(Debug, Clone, Default)]
#[repr(align(64))]
struct Block([u64; WORDS_PER_BLOCK]);

impl Filter {
    fn of(pairs: &[Pair]) -> Self {
        let bits = pairs.len().saturating_mul(BITS_PER_ID);
        let blocks = bits.div_ceil(WORDS_PER_BLOCK * u64::BITS as usize).max(1);
        let mut filter = Self(vec![Block::default(); blocks]);
        for (id, _) in pairs {
            let block = filter.block_of(*id);
            for (word, bit) in probes(*id) {
                filter.0[block].0[word] |= bit;
            }
        }
        filter
    }

    /// The upper half of the id, scaled to the number of blocks.
    fn block_of(&self, id: u128) -> usize {
        let upper = id >> u64::BITS;
        ((upper * self.0.len() as u128) >> u64::BITS) as usize
    }

    fn may_hold(&self, id: u128) -> bool {
        let Block(block) = &self.0[self.block_of(id)];
        probes(id).all(|(word, bit)| block[word] & bit != 0)
    }
}

/// Words and their bits in a block, from the lower half of the id.
fn probes(id: u128) -> impl Iterator<Item = (usize, u64)> {
    (0..PROBES).map(move |probe| {
        let part = (id >> (probe * 9)) as usize & 0x1FF;
        (part / u64::BITS as usize, 1 << (part % u64::BITS as usize))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::digest::id_hash;

    fn id(number: u16) -> IdHash {
        id_hash(&[&number.to_string()])
    }

    fn seq(revision: u64) -> Seq {
        Seq {
            revision,
            ordinal: 0,
        }
    }

    fn is(index: &IdIndex, model: &BTreeMap<u16, u64>, ids: u16) -> bool {
        (0..ids).all(|number| index.get(id(number)) == model.get(&number).copied().map(seq))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_says_what_a_map_would_say_and_views_stay_as_they_were(
            changes in proptest::collection::vec((0..900u16, 0..4u8), 0..6000),
        ) {
            let (mut index, mut model) = (IdIndex::default(), BTreeMap::new());
            let mut view = (index.clone(), model.clone());
            for (at, (number, what)) in changes.into_iter().enumerate() {
                if what == 0 {
                    let removed = index.remove(id(number));
                    prop_assert_eq!(removed, model.remove(&number).map(seq));
                } else {
                    index.insert(id(number), seq(at as u64));
                    model.insert(number, at as u64);
                }
                if at % 1000 == 999 {
                    prop_assert!(is(&view.0, &view.1, 900));
                    view = (index.clone(), model.clone());
                }
            }
            prop_assert!(is(&index, &model, 900) && is(&view.0, &view.1, 900));
            let mut anew = IdIndex::default();
            for (number, revision) in &model {
                anew.insert(id(*number), seq(*revision));
            }
            prop_assert_eq!(&anew, &index);
            anew.insert(id(1000), seq(1));
            prop_assert_ne!(&anew, &index);
        }
    }

    #[test]
    fn runs_stay_few_and_what_is_removed_goes() {
        let mut index = IdIndex::default();
        for number in 0..50_000 {
            index.insert(id(number), seq(number.into()));
            assert!(index.runs.len() <= 1 + (FAN - 1) * 5, "{number}");
        }
        let kept = |index: &IdIndex| -> usize {
            let runs = index.runs.iter().map(|run| run.pairs.len());
            runs.sum::<usize>() + index.young.len()
        };
        assert_eq!(kept(&index), 50_000);
        let wrong = (50_000..u16::MAX).filter(|number| {
            let id = u128::from_be_bytes(id(*number));
            index.runs.iter().any(|run| run.filter.may_hold(id))
        });
        let wrong = wrong.count();
        assert!(
            wrong < 15_000 / 5,
            "{wrong} of 15,000 are looked for in some run"
        );
        for number in 0..50_000 {
            index.remove(id(number));
        }
        // One more life of each.
        for number in 0..50_000 {
            index.insert(id(number), seq(1));
            index.remove(id(number));
        }
        assert!(kept(&index) <= 4 * YOUNG, "{}", kept(&index));
        assert_eq!(index.content(), []);
    }
}
