//! What one record looks like on disk.
//!
//! ```text
//! segment  = header, record, record, ... , zeros
//! header   = magic 8, format u32, unused u32, segment number u64, end of the former segment u64, node id u64,
//!            cluster id 40 (zeros behind it), crc u32, unused u32
//! record   = crc u32, payload length u32, index u64, synced u32, kind u8, unused 3, payload, zeros to 8 bytes
//! ```
//! All numbers are little-endian. A checksum starts from the segment's number and covers all that follows it.
//! `synced` is how much of the segment was already safe when the record was written: a broken record before that offset
//! is damage, one after it may be the torn end of the last write.

use std::io;

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::raft as proto;

/// Written by this version; another is refused.
pub(super) const FORMAT: u32 = 2;
pub(super) const MAGIC: [u8; 8] = *b"TRIREWAL";
pub(super) const SEGMENT_HEADER_BYTES: usize = 88;
/// A cluster id is a UUID in its usual form; longer names of tests are cut.
const CLUSTER_BYTES: usize = 40;
const CRC_AT: usize = SEGMENT_HEADER_BYTES - 8;
pub(super) const RECORD_HEADER_BYTES: usize = 24;
const ALIGN: usize = 8;
/// No record is longer: an entry is at most 1 MiB, and 16 of it leave room.
pub(super) const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Where an entry stands in the log, and who put it there.
///
/// Ordered by leader first: of two logs, the one with the greater last id is the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub term: u64,
    pub node_id: u64,
    pub index: u64,
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}.{}", self.term, self.node_id, self.index)
    }
}

/// What is left of a committed mark when the log is cut after `after`. Consensus never cuts what is committed; a mark for
/// entries that are gone must not stand for others that take their place.
pub(super) fn committed_after_cut(committed: Option<LogId>, after: Option<LogId>) -> Option<LogId> {
    committed.filter(|committed| after.is_some_and(|after| committed.index <= after.index))
}

impl From<LogId> for proto::LogId {
    fn from(id: LogId) -> Self {
        proto::LogId {
            leader: Some(proto::LeaderId {
                term: id.term,
                node_id: id.node_id,
            }),
            index: id.index,
        }
    }
}

impl From<&proto::LogId> for LogId {
    fn from(id: &proto::LogId) -> Self {
        let leader = id.leader.unwrap_or_default();
        LogId {
            term: leader.term,
            node_id: leader.node_id,
            index: id.index,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The marks of all segments before; the first record of each segment.
    Marks = 1,
    Entry = 2,
    Vote = 3,
    Committed = 4,
    /// The log ends after `index`; without a payload it is empty.
    Truncate = 5,
    Purge = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Marks,
            Self::Entry,
            Self::Vote,
            Self::Committed,
            Self::Truncate,
            Self::Purge,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A record on its way to disk.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// The entry's own id, or the one that a mark names.
    pub(super) id: Option<LogId>,
    pub(super) payload: Bytes,
}

impl Record {
    pub(super) fn of_entry(id: LogId, entry: &proto::Entry) -> Self {
        Self {
            kind: Kind::Entry,
            id: Some(id),
            payload: entry.encode_to_vec().into(),
        }
    }

    pub(super) fn of_vote(vote: &proto::Vote) -> Self {
        Self {
            kind: Kind::Vote,
            id: None,
            payload: vote.encode_to_vec().into(),
        }
    }

    pub(super) fn of_mark(kind: Kind, id: Option<LogId>) -> Self {
        let payload = id.map(|id| proto::LogId::from(id).encode_to_vec());
        Self {
            kind,
            id,
            payload: payload.unwrap_or_default().into(),
        }
    }

    pub(super) fn size(&self) -> usize {
        size(self.payload.len())
    }

    /// Appends the record; answers where its payload lies in `into`.
    pub(super) fn write(&self, segment: u64, synced: u32, into: &mut Vec<u8>) -> usize {
        let start = into.len();
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        into.extend_from_slice(&self.id.map_or(0, |id| id.index).to_le_bytes());
        into.extend_from_slice(&synced.to_le_bytes());
        into.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        let payload = into.len();
        into.extend_from_slice(&self.payload);
        let crc = checksum(segment, &into[start + 4..]);
        into[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        into.resize(start + self.size(), 0);
        payload
    }
}

/// Bytes that a record with `payload` bytes takes.
fn size(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(ALIGN)
}

/// A record found in a segment.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) index: u64,
    pub(super) synced: u32,
    /// Offset of the payload in the segment.
    pub(super) payload_at: usize,
    pub(super) payload: Bytes,
    /// Offset of the next record.
    pub(super) next: usize,
}

/// The record at `at`, or None if there is no whole one.
pub(super) fn find(segment: u64, bytes: &Bytes, at: usize) -> Option<Found> {
    let header = bytes.get(at..at + RECORD_HEADER_BYTES)?;
    let length = u32_at(header, 4) as usize;
    let kind = Kind::from_byte(header[20])?;
    if length > MAX_PAYLOAD_BYTES {
        return None;
    }
    let payload_at = at + RECORD_HEADER_BYTES;
    let covered = bytes.get(at + 4..payload_at + length)?;
    if checksum(segment, covered) != u32_at(header, 0) {
        return None;
    }
    Some(Found {
        kind,
        index: u64_at(header, 8),
        synced: u32_at(header, 16),
        payload_at,
        payload: bytes.slice(payload_at..payload_at + length),
        next: at + size(length),
    })
}

/// Offset of a whole record after `from` that was written when more than `from` bytes were safe already.
pub(super) fn later_write(segment: u64, bytes: &Bytes, from: usize) -> Option<usize> {
    (from + ALIGN..bytes.len())
        .step_by(ALIGN)
        .find(|at| find(segment, bytes, *at).is_some_and(|found| found.synced as usize > from))
}

/// Whose log it is. Votes and entries of another node, or of another cluster, must never be taken for one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub cluster_id: String,
    pub node_id: u64,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of cluster {}", self.node_id, self.cluster_id)
    }
}

impl Owner {
    fn cluster_field(&self) -> [u8; CLUSTER_BYTES] {
        let mut field = [0; CLUSTER_BYTES];
        let id = self.cluster_id.as_bytes();
        let length = id.len().min(CLUSTER_BYTES);
        field[..length].copy_from_slice(&id[..length]);
        field
    }

    pub(super) fn wrote(&self, header: &Header) -> bool {
        self.node_id == header.owner.node_id && self.cluster_field() == header.owner.cluster_field()
    }
}

/// What a segment's first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) owner: Owner,
    /// Where the records of the segment before end, 0 if there is none.
    pub(super) former_end: u64,
}

/// One segment's first bytes. `former_end` is where the records of the segment before end, 0 if there is none.
pub(super) fn segment_header(segment: u64, former_end: u64, owner: &Owner) -> Vec<u8> {
    let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&segment.to_le_bytes());
    header.extend_from_slice(&former_end.to_le_bytes());
    header.extend_from_slice(&owner.node_id.to_le_bytes());
    header.extend_from_slice(&owner.cluster_field());
    let crc = checksum(segment, &header);
    header.extend_from_slice(&crc.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Broken,
    /// Whole, but of another version.
    Format(u32),
}

/// Reads [`segment_header`].
pub(super) fn read_segment_header(segment: u64, bytes: &[u8]) -> Result<Header, HeaderError> {
    let header = bytes
        .get(..SEGMENT_HEADER_BYTES)
        .ok_or(HeaderError::Broken)?;
    if header[..8] != MAGIC
        || u64_at(header, 16) != segment
        || checksum(segment, &header[..CRC_AT]) != u32_at(header, CRC_AT)
    {
        return Err(HeaderError::Broken);
    }
    match u32_at(header, 8) {
        FORMAT => {
            let field = &header[CRC_AT - CLUSTER_BYTES..CRC_AT];
            let end = field.iter().position(|byte| *byte == 0);
            let cluster_id = &field[..end.unwrap_or(CLUSTER_BYTES)];
            Ok(Header {
                former_end: u64_at(header, 24),
                owner: Owner {
                    node_id: u64_at(header, 32),
                    cluster_id: String::from_utf8_lossy(cluster_id).into_owned(),
                },
            })
        }
        other => Err(HeaderError::Format(other)),
    }
}

fn checksum(segment: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

/// An entry read back, checked against the index it was asked for by.
pub(super) fn decode_entry(index: u64, payload: Bytes) -> io::Result<(LogId, proto::Entry)> {
    let entry = proto::Entry::decode(payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let id = entry_id(&entry)?;
    if id.index != index {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("entry {} found where entry {index} was written", id.index),
        ));
    }
    Ok((id, entry))
}

pub(super) fn entry_id(entry: &proto::Entry) -> io::Result<LogId> {
    match &entry.log_id {
        Some(id) => Ok(id.into()),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an entry without a log id",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(payload: Vec<u8>) -> Record {
        Record {
            kind: Kind::Entry,
            id: Some(LogId {
                term: 1,
                node_id: 1,
                index: 7,
            }),
            payload: payload.into(),
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(payload in proptest::collection::vec(any::<u8>(), 0..200), segment: u64, synced: u32) {
            let mut bytes = Vec::new();
            let at = record(payload.clone()).write(segment, synced, &mut bytes);
            let size = bytes.len();
            bytes.extend_from_slice(&[0; 64]);
            let found = find(segment, &bytes.into(), 0).unwrap();
            prop_assert_eq!((found.index, found.synced, found.payload_at, found.next), (7, synced, at, size));
            prop_assert_eq!(&found.payload[..], &payload[..]);
        }

        #[test]
        fn any_changed_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 1..64), position: prop::sample::Index, bit in 0..8u8) {
            let mut bytes = Vec::new();
            record(payload.clone()).write(3, 0, &mut bytes);
            let covered = RECORD_HEADER_BYTES + payload.len();
            bytes[position.index(covered)] ^= 1 << bit;
            prop_assert!(find(3, &bytes.into(), 0).is_none());
        }
    }

    #[test]
    fn a_record_of_another_segment_is_none_of_ours() {
        let mut bytes = Vec::new();
        record(vec![1]).write(3, 0, &mut bytes);
        assert!(find(4, &bytes.into(), 0).is_none());
    }

    #[test]
    fn a_header_of_another_format_is_named() {
        let owner = Owner {
            cluster_id: uuid::Uuid::from_u128(7).to_string(),
            node_id: 3,
        };
        let header = segment_header(5, 99, &owner);
        assert_eq!(header.len(), SEGMENT_HEADER_BYTES);
        let read = read_segment_header(5, &header).unwrap();
        assert_eq!((read.former_end, &read.owner), (99, &owner));
        assert!(owner.wrote(&read));
        assert_eq!(read_segment_header(6, &header), Err(HeaderError::Broken));
        let mut other = segment_header(5, 0, &owner);
        other[8] = 9;
        let crc = checksum(5, &other[..CRC_AT]);
        other[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_segment_header(5, &other), Err(HeaderError::Format(9)));
    }
}
