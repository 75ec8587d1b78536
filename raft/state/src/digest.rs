//! The state's digest: an order-free sum of the hashes of its records, kept up to date by every put and removal.

use sha2::{Digest as _, Sha256};

/// What two replicas compare at the same log index.
pub type Digest = [u8; 32];

/// A sum of record hashes: four lanes that wrap, so that adding and taking away commute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    pub(crate) fn add(&mut self, hash: &Sum) {
        for (lane, other) in self.0.iter_mut().zip(hash.0) {
            *lane = lane.wrapping_add(other);
        }
    }

    pub(crate) fn sub(&mut self, hash: &Sum) {
        for (lane, other) in self.0.iter_mut().zip(hash.0) {
            *lane = lane.wrapping_sub(other);
        }
    }

    /// The hash of one record: its kind, then its parts, each with its length.
    pub(crate) fn of(kind: u8, parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([kind]);
        update_parts(&mut hasher, parts.iter().copied());
        let bytes: [u8; 32] = hasher.finalize().into();
        let (lanes, _) = bytes.as_chunks::<8>();
        let mut sum = Self::default();
        for (lane, chunk) in sum.0.iter_mut().zip(lanes) {
            *lane = u64::from_be_bytes(*chunk);
        }
        sum
    }

    /// The sum and the counters beside the records, as one value.
    pub(crate) fn seal(&self, counters: &[u64]) -> Digest {
        let mut hasher = Sha256::new();
        for value in self.0.iter().chain(counters) {
            hasher.update(value.to_be_bytes());
        }
        hasher.finalize().into()
    }
}

/// Each with its length, so that they do not run into each other.
fn update_parts<'a>(hasher: &mut Sha256, parts: impl Iterator<Item = &'a [u8]>) {
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
}

/// The hash of an id, for indexes that grow large: small plain values are copied with a tree's node at no cost, and
/// compared without following a pointer.
pub(crate) type IdHash = [u8; 16];

pub(crate) fn id_hash(parts: &[&str]) -> IdHash {
    let mut hasher = IdHasher::default();
    for part in parts {
        hasher.text(part);
    }
    hasher.finish()
}

/// An [`IdHash`] of several parts.
#[derive(Default)]
pub(crate) struct IdHasher(Sha256);

impl IdHasher {
    pub(crate) fn text(&mut self, text: &str) {
        update_parts(&mut self.0, std::iter::once(text.as_bytes()));
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    pub(crate) fn finish(self) -> IdHash {
        let mut hash = IdHash::default();
        for (byte, hashed) in hash.iter_mut().zip(self.0.finalize()) {
            *byte = hashed;
        }
        hash
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (a, b) = (Sum::of(1, &[b"a"]), Sum::of(1, &[b"b"]));
        let mut left = Sum::default();
        left.add(&a);
        left.add(&b);
        let mut right = Sum::default();
        right.add(&b);
        right.add(&a);
        assert_eq!(left, right);
        left.sub(&a);
        left.sub(&b);
        assert_eq!(left, Sum::default());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Sum::of(1, &[b"ab", b"c"]), Sum::of(1, &[b"a", b"bc"]));
        assert_ne!(Sum::of(1, &[b"a"]), Sum::of(2, &[b"a"]));
        assert_ne!(id_hash(&["ab", "c"]), id_hash(&["a", "bc"]));
    }
}
