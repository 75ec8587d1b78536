//! Keys of the archive, for those who write and those who read it.
//!
//! A key is one byte for the kind, then its parts. Names end with a zero byte (they hold no control characters),
//! numbers are big-endian, and where ranges are read newest first they are inverted. A record is cut into chunks of at
//! most [`MAX_ARCHIVE_VALUE`] bytes: each key ends with the chunk's number (two bytes), each value begins with the
//! count of chunks (two bytes). A record is whole when as many chunks are there. Written again with fewer chunks it keeps
//! the last ones of before: those do not count.

use bytes::{BufMut as _, Bytes, BytesMut};
use trireme_proto::state::Job;

use crate::{jobs::seq_of, limits::MAX_ARCHIVE_VALUE, table::Seq};

/// `Job` by id.
pub const JOB: u8 = b'J';
/// `RunSummary` of all jobs, newest first.
pub const RUN: u8 = b'R';
/// `RunSummary` by job name, newest first.
pub const RUN_OF_JOB: u8 = b'H';
/// `RunSummary` by pull request, newest first.
pub const RUN_OF_PULL: u8 = b'P';
/// `Delivery` by guid, with its payload unless that is a blob.
pub const DELIVERY: u8 = b'D';
/// `Delivery` without payload, newest first.
pub const DELIVERY_IN_ORDER: u8 = b'E';
/// `Plan` by (guid, plugin).
pub const PLAN: u8 = b'L';
/// `MergeIntent` by (org, repo, number), newest first.
pub const INTENT: u8 = b'I';
/// `ConfigVersion` by number, newest first.
pub const CONFIG: u8 = b'C';
/// `ConfigPage` by sha256.
pub const CONFIG_PAGE: u8 = b'G';
/// A blob's pieces in order, by sha256: as its door put them, to be joined.
pub const BLOB: u8 = b'X';

/// Bytes of the count that begins each value.
const COUNT_BYTES: usize = 2;
/// Payload of one value.
const PIECE: usize = MAX_ARCHIVE_VALUE - COUNT_BYTES;

/// A key, or the prefix of a range, under construction.
#[derive(Clone, Debug)]
pub struct Key(BytesMut);

impl Key {
    pub fn new(kind: u8) -> Self {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u8(kind);
        Self(bytes)
    }

    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.0.put_slice(name.as_bytes());
        self.0.put_u8(0);
        self
    }

    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.put_u64(number);
        self
    }

    /// Orders larger numbers first.
    #[must_use]
    pub fn newest_first(mut self, number: u64) -> Self {
        self.0.put_u64(!number);
        self
    }

    /// Orders later places first.
    #[must_use]
    pub fn latest_first(mut self, seq: Seq) -> Self {
        self.0.put_u64(!seq.revision);
        self.0.put_u32(!seq.ordinal);
        self
    }

    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.put_slice(bytes);
        self
    }

    /// The key of which this is [`Self::prefix`].
    #[must_use]
    pub fn of_prefix(prefix: &[u8]) -> Self {
        Self(BytesMut::from(prefix))
    }

    /// What all chunks of the record have in common.
    pub fn prefix(self) -> Bytes {
        self.0.freeze()
    }
}

pub fn job(id: &str) -> Key {
    Key::new(JOB).name(id)
}

pub fn run(seq: Seq) -> Key {
    Key::new(RUN).latest_first(seq)
}

pub fn run_of_job(job: &Job) -> Key {
    runs_of_job(&job.job).latest_first(seq_of(job))
}

/// Prefix of a job's history.
pub fn runs_of_job(job_name: &str) -> Key {
    Key::new(RUN_OF_JOB).name(job_name)
}

/// Prefix of a pull request's history.
pub fn runs_of_pull(org: &str, repo: &str, number: u64) -> Key {
    Key::new(RUN_OF_PULL).name(org).name(repo).number(number)
}

pub fn delivery(guid: &str) -> Key {
    Key::new(DELIVERY).name(guid)
}

pub fn delivery_in_order(seq: Seq) -> Key {
    Key::new(DELIVERY_IN_ORDER).latest_first(seq)
}

/// Prefix of a delivery's plans.
pub fn plans_of(guid: &str) -> Key {
    Key::new(PLAN).name(guid)
}

/// Prefix of a pull request's intents.
pub fn intents_of(org: &str, repo: &str, number: u64) -> Key {
    Key::new(INTENT).name(org).name(repo).number(number)
}

pub fn config(number: u64) -> Key {
    Key::new(CONFIG).newest_first(number)
}

pub fn config_page(sha256: &[u8]) -> Key {
    Key::new(CONFIG_PAGE).raw(sha256)
}

pub fn blob(sha256: &[u8]) -> Key {
    Key::new(BLOB).raw(sha256)
}

/// The rows of one record: `(key, value)`.
pub fn chunked(key: &Key, record: &[u8]) -> Vec<(Bytes, Bytes)> {
    let pieces = record.chunks(PIECE);
    // An empty record is one empty piece.
    let count = pieces.len().max(1);
    let pieces = pieces.chain(record.is_empty().then_some(record));
    (0..u16::MAX)
        .zip(pieces)
        .map(|(at, piece)| {
            let mut row_key = key.0.clone();
            row_key.put_u16(at);
            let mut value = BytesMut::with_capacity(piece.len() + COUNT_BYTES);
            value.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
            value.put_slice(piece);
            (row_key.freeze(), value.freeze())
        })
        .collect()
}

/// A row that is none of ours, or chunks that do not make a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveReadError {
    #[error("archive key {key:?} or its value is too short to be a chunk")]
    TooShort { key: Bytes },
    #[error("archive record {prefix:?} has chunk {found} where {expected} belongs")]
    Gap {
        prefix: Bytes,
        expected: u16,
        found: u16,
    },
    #[error("archive record {prefix:?} has {found} of {count} chunks")]
    Incomplete {
        prefix: Bytes,
        found: u16,
        count: u16,
    },
}

/// One row, split into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The record's key.
    pub prefix: &'a [u8],
    /// Which chunk of the record.
    pub at: u16,
    /// How many it has.
    pub count: u16,
    pub piece: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// # Errors
    /// If the row is shorter than a chunk's can be.
    pub fn split(key: &'a [u8], value: &'a [u8]) -> Result<Self, ArchiveReadError> {
        let short = || ArchiveReadError::TooShort {
            key: Bytes::copy_from_slice(key),
        };
        let (prefix, at) = key.split_last_chunk::<2>().ok_or_else(short)?;
        let (count, piece) = value.split_first_chunk::<COUNT_BYTES>().ok_or_else(short)?;
        Ok(Self {
            prefix,
            at: u16::from_be_bytes(*at),
            count: u16::from_be_bytes(*count),
            piece,
        })
    }
}

/// Joins rows that come in key order into records: `(prefix, record)`.
///
/// # Errors
/// If a record is not whole.
pub fn join<'a>(
    rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Vec<(Bytes, Bytes)>, ArchiveReadError> {
    struct Part {
        prefix: Bytes,
        next: u16,
        count: u16,
        record: BytesMut,
    }
    impl Part {
        fn whole(self) -> Result<(Bytes, Bytes), ArchiveReadError> {
            if self.next == self.count {
                Ok((self.prefix, self.record.freeze()))
            } else {
                Err(ArchiveReadError::Incomplete {
                    prefix: self.prefix,
                    found: self.next,
                    count: self.count,
                })
            }
        }
    }
    let mut records = Vec::new();
    let mut open: Option<Part> = None;
    for (key, value) in rows {
        let Chunk {
            prefix,
            at,
            count,
            piece,
        } = Chunk::split(key, value)?;
        let mut part = match open.take() {
            Some(part) if part.prefix == prefix => part,
            former => {
                records.extend(former.map(Part::whole).transpose()?);
                Part {
                    prefix: Bytes::copy_from_slice(prefix),
                    next: 0,
                    count,
                    record: BytesMut::new(),
                }
            }
        };
        // Left from when the record was larger.
        if part.next == part.count && at >= part.count {
            open = Some(part);
            continue;
        }
        if at != part.next {
            return Err(ArchiveReadError::Gap {
                prefix: part.prefix,
                expected: part.next,
                found: at,
            });
        }
        part.next = part.next.saturating_add(1);
        part.record.put_slice(piece);
        open = Some(part);
    }
    records.extend(open.map(Part::whole).transpose()?);
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[(Bytes, Bytes)]) -> Vec<(&[u8], &[u8])> {
        list.iter()
            .map(|(key, value)| (&key[..], &value[..]))
            .collect()
    }

    #[test]
    fn large_records_are_cut_and_joined() {
        let record: Vec<u8> = (0..3 * MAX_ARCHIVE_VALUE)
            .map(|at| (at % 251) as u8)
            .collect();
        let cut = chunked(&job("a"), &record);
        assert_eq!(cut.len(), 4);
        assert!(
            cut.iter()
                .all(|(_, value)| value.len() <= MAX_ARCHIVE_VALUE)
        );
        let joined = join(rows(&cut)).unwrap();
        assert_eq!(joined, [(job("a").prefix(), Bytes::from(record))]);
        assert!(matches!(
            join(rows(&cut[..2])),
            Err(ArchiveReadError::Incomplete {
                found: 2,
                count: 4,
                ..
            })
        ));
        assert!(matches!(
            join(rows(&cut[1..])),
            Err(ArchiveReadError::Gap {
                expected: 0,
                found: 1,
                ..
            })
        ));
    }

    #[test]
    fn a_record_that_is_written_again_with_fewer_chunks_is_read_without_the_old_ones() {
        let cut = |pieces: usize, byte| chunked(&blob(b"name"), &vec![byte; pieces * PIECE]);
        let mut kept: std::collections::BTreeMap<_, _> = cut(4, b'a').into_iter().collect();
        kept.extend(cut(2, b'b'));
        kept.extend(chunked(&blob(b"next"), b"c"));
        let kept: Vec<_> = kept.into_iter().collect();
        assert_eq!(kept.len(), 5);
        let joined = join(rows(&kept)).unwrap();
        let records: Vec<_> = joined.iter().map(|(_, record)| record.len()).collect();
        assert_eq!(records, [2 * PIECE, 1]);
        assert!(joined[0].1.iter().all(|byte| *byte == b'b'));
        // Without its first chunks it is not whole.
        assert!(join(rows(&kept[1..])).is_err());
        // Larger again, it is what was written last.
        let mut kept: std::collections::BTreeMap<_, _> = kept.into_iter().collect();
        kept.extend(cut(5, b'd'));
        let kept: Vec<_> = kept.into_iter().collect();
        assert_eq!(join(rows(&kept)).unwrap()[0].1.len(), 5 * PIECE);
    }

    #[test]
    fn empty_records_are_one_row() {
        let cut = chunked(&job("a"), b"");
        assert_eq!(cut.len(), 1);
        assert_eq!(
            join(rows(&cut)).unwrap(),
            [(job("a").prefix(), Bytes::new())]
        );
    }

    #[test]
    fn newest_runs_come_first_and_names_do_not_mix() {
        let at = |name: &str, revision| {
            runs_of_job(name)
                .latest_first(Seq {
                    revision,
                    ordinal: 0,
                })
                .prefix()
        };
        assert!(at("a", 2) < at("a", 1));
        assert!(!at("ab", 1).starts_with(&runs_of_job("a").prefix()));
    }
}
