//! Tables of one record kind: the records by key, each with its hash, which the state's digest sums up.
//! Indexes do not live here but beside the record kinds, in their own modules.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::digest::{Sum, sha256};

/// Names and ids inside indexes.
pub(crate) type Name = Arc<str>;

/// Where a record stands in the order of creation: log index, then place within the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq {
    /// Log index of the entry that made it.
    pub revision: u64,
    /// Place within that entry.
    pub ordinal: u32,
}

impl Seq {
    pub(crate) const MIN: Self = Self {
        revision: 0,
        ordinal: 0,
    };
    pub(crate) const MAX: Self = Self {
        revision: u64::MAX,
        ordinal: u32::MAX,
    };
}

/// A kind of record. Indexes and keys follow from the record alone, so that a snapshot needs only records.
pub(crate) trait Record: prost::Message + Clone + PartialEq + Default {
    /// Part of the hash; never reused.
    const KIND: u8;
    type Key: Ord + Clone + Debug;
    fn key(&self) -> Self::Key;

    /// The record's large constant part: hashed once, however often the record changes.
    const BULK: Option<Bulk<Self>> = None;
}

/// Where a record keeps its large constant part.
pub(crate) struct Bulk<R> {
    pub(crate) read: fn(&R) -> &Bytes,
    pub(crate) write: fn(&mut R) -> &mut Bytes,
}

#[derive(Clone, Debug, PartialEq)]
struct Row<R> {
    record: Arc<R>,
    hash: Sum,
    /// Of the bulk, if there is any.
    bulk_hash: Option<[u8; 32]>,
    /// Encoded.
    bytes: u64,
}

impl<R: Record> Row<R> {
    /// Best of a record that nobody else holds yet: it is copied otherwise.
    fn new(mut record: Arc<R>, former: Option<&Self>) -> Self {
        let Some(place) = R::BULK.filter(|place| !(place.read)(&record).is_empty()) else {
            let encoded = record.encode_to_vec();
            return Self {
                record,
                hash: Sum::of(R::KIND, &[&encoded]),
                bulk_hash: None,
                bytes: encoded.len() as u64,
            };
        };
        let own = Arc::make_mut(&mut record);
        let bulk = std::mem::take((place.write)(own));
        let encoded = own.encode_to_vec();
        let known = former.and_then(|row| {
            let former = (place.read)(&row.record);
            let same = former.as_ptr() == bulk.as_ptr() && former.len() == bulk.len();
            row.bulk_hash.filter(|_| same)
        });
        let bulk_hash = known.unwrap_or_else(|| sha256(&[&bulk]));
        let bytes = (encoded.len() as u64).saturating_add(bulk.len() as u64);
        *(place.write)(own) = bulk;
        Self {
            record,
            hash: Sum::of(R::KIND, &[&encoded, &bulk_hash]),
            bulk_hash: Some(bulk_hash),
            bytes,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table<R: Record> {
    rows: OrdMap<R::Key, Row<R>>,
    bytes: u64,
}

impl<R: Record> Default for Table<R> {
    fn default() -> Self {
        Self {
            rows: OrdMap::new(),
            bytes: 0,
        }
    }
}

impl<R: Record> Table<R> {
    /// Of all records, encoded.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<&Arc<R>>
    where
        Q: Ord + ?Sized,
        R::Key: std::borrow::Borrow<Q>,
    {
        self.rows.get(key).map(|row| &row.record)
    }

    /// Puts a record and returns the one that it replaced.
    pub(crate) fn put(&mut self, digest: &mut Sum, record: Arc<R>) -> Option<Arc<R>> {
        self.put_shared(digest, record).1
    }

    /// The same; also returns the record as it is kept. For records with a [`Record::BULK`], which are not held by anybody
    /// else before.
    pub(crate) fn put_shared(
        &mut self,
        digest: &mut Sum,
        record: Arc<R>,
    ) -> (Arc<R>, Option<Arc<R>>) {
        let former = self.rows.get(&record.key());
        let row = Row::new(record, former);
        self.keep(digest, row)
    }

    fn keep(&mut self, digest: &mut Sum, row: Row<R>) -> (Arc<R>, Option<Arc<R>>) {
        let (key, kept) = (row.record.key(), Arc::clone(&row.record));
        digest.add(&row.hash);
        self.bytes = self.bytes.saturating_add(row.bytes);
        let former = self.rows.insert(key, row);
        if let Some(former) = &former {
            digest.sub(&former.hash);
            self.bytes = self.bytes.saturating_sub(former.bytes);
        }
        (kept, former.map(|former| former.record))
    }

    /// Adds a record whose key is not there yet; returns it as it is kept.
    pub(crate) fn add(&mut self, digest: &mut Sum, record: Arc<R>) -> Arc<R> {
        let (kept, former) = self.keep(digest, Row::new(record, None));
        debug_assert!(former.is_none(), "the key is there");
        kept
    }

    pub(crate) fn remove(&mut self, digest: &mut Sum, key: &R::Key) -> Option<Arc<R>> {
        let former = self.rows.remove(key)?;
        digest.sub(&former.hash);
        self.bytes = self.bytes.saturating_sub(former.bytes);
        Some(former.record)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<R>> {
        self.rows.values().map(|row| &row.record)
    }

    pub(crate) fn range<'a>(
        &'a self,
        range: impl std::ops::RangeBounds<R::Key> + 'a,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<R>> + 'a {
        self.rows.range(range).map(|(_, row)| &row.record)
    }
}

/// Rows in groups: `(group, member)`, ordered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Groups<G: Ord, M: Ord>(OrdSet<(G, M)>);

impl<G: Ord, M: Ord> Default for Groups<G, M> {
    fn default() -> Self {
        Self(OrdSet::new())
    }
}

/// The ends of a group's range.
pub(crate) trait Ends {
    fn least() -> Self;
    fn greatest() -> Self;
}

impl Ends for Seq {
    fn least() -> Self {
        Self::MIN
    }
    fn greatest() -> Self {
        Self::MAX
    }
}

impl Ends for (i64, Seq) {
    fn least() -> Self {
        (i64::MIN, Seq::MIN)
    }
    fn greatest() -> Self {
        (i64::MAX, Seq::MAX)
    }
}

impl<G: Ord + Clone, M: Ord + Clone + Ends> Groups<G, M> {
    pub(crate) fn insert(&mut self, group: G, member: M) {
        self.0.insert((group, member));
    }

    pub(crate) fn remove(&mut self, group: G, member: M) {
        self.0.remove(&(group, member));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// By group.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &M> {
        self.0.iter().map(|(_, member)| member)
    }

    pub(crate) fn of(&self, group: G) -> impl DoubleEndedIterator<Item = &M> {
        self.0
            .range((group.clone(), M::least())..=(group, M::greatest()))
            .map(|(_, member)| member)
    }
}

/// How many records share a key; keys without any are gone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tally<K: Ord>(OrdMap<K, u32>);

impl<K: Ord> Default for Tally<K> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone> Tally<K> {
    pub(crate) fn up(&mut self, key: K) {
        let count = self.0.entry(key).or_insert(0);
        *count = count.saturating_add(1);
    }

    pub(crate) fn down<Q>(&mut self, key: &Q)
    where
        Q: Ord + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        match self.0.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.0.remove(key);
            }
            None => {}
        }
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> u32
    where
        Q: Ord + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        self.0.get(key).copied().unwrap_or(0)
    }
}
