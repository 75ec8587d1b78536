//! A saved snapshot: state and archive of a cluster at one log index, in one file that is kept elsewhere.
//!
//! ```text
//! file = magic 8, frame(header), frame(rows)*, frame(trailer), frame(archive rows)*, frame(closing header)
//! ```
//! Frames and the first three kinds are those of the node's own snapshot files ([`crate::snapshot`]). Archive rows are
//! length-delimited `ArchiveRow`s in the order of their keys. The closing header repeats the first, with the counts of
//! what the file holds and the sha256 of all bytes before: a frame that was lost, doubled or exchanged is noticed as
//! well as a changed byte.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use trireme_proto::{
    raft as proto,
    state::{SnapshotRow, change::Record, snapshot_row::Row},
};
use trireme_state::{State, archive_keys as keys};

use crate::{
    archive::Row as ArchivedRow,
    disk::{DiskFile, read_exact_at},
    snapshot::{
        FRAME_BYTES, FrameReader, HEADER, MAGIC as OWN_MAGIC, ROWS, Rows, SNAPSHOT_FORMAT,
        SnapshotError, TRAILER, push_frame,
    },
};

/// Version of the format of saved snapshots.
pub const SAVED_FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"TRIRSAVE";
const ARCHIVE: u8 = 4;
const CLOSING: u8 = 5;
/// Bytes hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// Writes a saved snapshot piece by piece into `out`; each piece is at most one frame, a little over 256 KiB and one row.
pub(crate) fn write_saved(
    mut header: proto::SnapshotHeader,
    state: &State,
    mut archive: impl FnMut() -> io::Result<Option<Vec<ArchivedRow>>>,
    mut out: impl FnMut(Bytes) -> io::Result<()>,
) -> io::Result<()> {
    header.format = SAVED_FORMAT;
    let mut hasher = Sha256::new();
    let mut send = |bytes: Vec<u8>| {
        hasher.update(&bytes);
        out(Bytes::from(bytes))
    };
    let framed = |kind: u8, payload: &[u8]| {
        let mut frame = Vec::with_capacity(payload.len() + 16);
        push_frame(&mut frame, kind, payload);
        frame
    };
    send(MAGIC.to_vec())?;
    send(framed(HEADER, &header.encode_to_vec()))?;
    let (mut payload, mut blocks) = (Vec::new(), 0);
    for row in state.snapshot_rows() {
        header.hot_rows += 1;
        row.encode_length_delimited(&mut payload)
            .map_err(io::Error::other)?;
        if payload.len() >= FRAME_BYTES {
            blocks += 1;
            send(framed(ROWS, &payload))?;
            payload.clear();
        }
    }
    if !payload.is_empty() {
        blocks += 1;
        send(framed(ROWS, &payload))?;
        payload.clear();
    }
    let trailer = proto::SnapshotTrailer {
        rows: header.hot_rows,
        blocks,
        digest: Bytes::copy_from_slice(&state.digest()),
    };
    send(framed(TRAILER, &trailer.encode_to_vec()))?;
    while let Some(rows) = archive()? {
        for (key, value) in rows {
            header.archive_rows += 1;
            proto::ArchiveRow { key, value }
                .encode_length_delimited(&mut payload)
                .map_err(io::Error::other)?;
            if payload.len() >= FRAME_BYTES {
                send(framed(ARCHIVE, &payload))?;
                payload.clear();
            }
        }
    }
    if !payload.is_empty() {
        send(framed(ARCHIVE, &payload))?;
    }
    header.sha256 = Bytes::copy_from_slice(&hasher.finalize());
    out(Bytes::from(framed(CLOSING, &header.encode_to_vec())))
}

/// What a snapshot file holds, found by reading all of it.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// True for a file of `snapshot save`, false for one that a node wrote for itself.
    pub saved: bool,
    pub header: proto::SnapshotHeader,
    pub bytes: u64,
    /// Log index of the state.
    pub revision: u64,
    /// The state's digest at that revision, in hexadecimal.
    pub digest: String,
    /// How many records of each kind, by kind.
    pub records: BTreeMap<&'static str, u64>,
    /// How many rows of the archive, by kind.
    pub archive: BTreeMap<&'static str, u64>,
}

/// Reads a snapshot file of either kind and verifies every checksum, the counts and the state's digest. Blocks.
///
/// # Errors
/// Naming the offset of what is damaged.
pub fn inspect(path: &Path) -> Result<Inspection, SnapshotError> {
    let file = ReadOnly::open(path)?;
    let bytes = file.length().map_err(SnapshotError::io("reading", path))?;
    let mut magic = [0; 8];
    // A file that is too short for one is refused below.
    let known = bytes >= 8 && read_exact_at(&file, 0, &mut magic).is_ok();
    let mut records = BTreeMap::new();
    if known && magic == OWN_MAGIC {
        let mut reader = FrameReader {
            path,
            file: &file,
            at: 0,
            end: bytes,
        };
        reader.magic(OWN_MAGIC, "this is no snapshot")?;
        let header = header_of(&mut reader, SNAPSHOT_FORMAT)?;
        let mut rows = Rows::within(reader);
        let state = rows.load(|row| count(&mut records, kind_of(row)))?;
        let (_, reader) = rows.into_rest();
        if reader.at != reader.end {
            return Err(reader.damaged("something follows the trailer"));
        }
        return Ok(Inspection {
            saved: false,
            bytes,
            revision: state.last_index(),
            digest: hex::encode(state.digest()),
            records,
            archive: BTreeMap::new(),
            header,
        });
    }
    let saved = SavedSnapshot {
        path: path.to_owned(),
        file,
        bytes,
    };
    let mut archive = BTreeMap::new();
    let (state, header) = saved.read(
        |row| count(&mut records, kind_of(row)),
        |rows| {
            for row in rows {
                count(&mut archive, archived_kind(&row.key));
            }
            Ok(())
        },
    )?;
    Ok(Inspection {
        saved: true,
        bytes,
        revision: state.last_index(),
        digest: hex::encode(state.digest()),
        records,
        archive,
        header,
    })
}

fn count(counts: &mut BTreeMap<&'static str, u64>, kind: &'static str) {
    *counts.entry(kind).or_default() += 1;
}

fn header_of(
    reader: &mut FrameReader<'_>,
    format: u32,
) -> Result<proto::SnapshotHeader, SnapshotError> {
    let (kind, payload) = reader.frame()?;
    if kind != HEADER {
        return Err(reader.damaged("the first frame is no header"));
    }
    let header = proto::SnapshotHeader::decode(payload)
        .map_err(|error| reader.damaged(&error.to_string()))?;
    if header.format != format {
        return Err(SnapshotError::Format {
            path: reader.path.to_owned(),
            found: header.format,
        });
    }
    Ok(header)
}

/// A file of `snapshot save`.
#[derive(Debug)]
pub(crate) struct SavedSnapshot {
    path: PathBuf,
    file: ReadOnly,
    bytes: u64,
}

impl SavedSnapshot {
    pub(crate) fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = ReadOnly::open(path)?;
        let bytes = file.length().map_err(SnapshotError::io("reading", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    /// Reads all of it, verifying everything; answers the state and the closing header. What `see_archive` was given
    /// before an error is worth nothing.
    pub(crate) fn read(
        &self,
        see: impl FnMut(&SnapshotRow),
        mut see_archive: impl FnMut(Vec<proto::ArchiveRow>) -> io::Result<()>,
    ) -> Result<(State, proto::SnapshotHeader), SnapshotError> {
        let mut reader = FrameReader {
            path: &self.path,
            file: &self.file,
            at: 0,
            end: self.bytes,
        };
        reader.magic(
            MAGIC,
            "this is no snapshot: give a file that `trireme snapshot save` wrote",
        )?;
        let header = header_of(&mut reader, SAVED_FORMAT)?;
        let mut rows = Rows::within(reader);
        let state = rows.load(see)?;
        let (hot_rows, mut reader) = rows.into_rest();
        let mut archive_rows = 0;
        loop {
            let frame_at = reader.at;
            let (kind, mut payload) = reader.frame()?;
            match kind {
                ARCHIVE => {
                    let mut rows = Vec::new();
                    while payload.has_remaining() {
                        let row = proto::ArchiveRow::decode_length_delimited(&mut payload)
                            .map_err(|error| reader.damaged(&error.to_string()))?;
                        rows.push(row);
                    }
                    archive_rows += rows.len() as u64;
                    see_archive(rows).map_err(SnapshotError::io("copying from", &self.path))?;
                }
                CLOSING => {
                    let closing = proto::SnapshotHeader::decode(payload)
                        .map_err(|error| reader.damaged(&error.to_string()))?;
                    if reader.at != reader.end {
                        return Err(reader.damaged("something follows the end of the snapshot"));
                    }
                    if (closing.hot_rows, closing.archive_rows) != (hot_rows, archive_rows) {
                        return Err(reader.damaged(&format!(
                            "{hot_rows} rows and {archive_rows} of the archive, the end counts {} and {}",
                            closing.hot_rows, closing.archive_rows
                        )));
                    }
                    let expected = proto::SnapshotHeader {
                        hot_rows,
                        archive_rows,
                        sha256: closing.sha256.clone(),
                        ..header
                    };
                    if closing != expected {
                        return Err(reader.damaged("the end belongs to another snapshot"));
                    }
                    if self.sha256(frame_at)? != closing.sha256 {
                        return Err(reader.damaged("the checksum of the whole does not match"));
                    }
                    let last = closing.meta.as_ref().and_then(|meta| meta.last_log_id);
                    if last.map(|last| last.index) != Some(state.last_index()) {
                        return Err(
                            reader.damaged("the state is not the one that the header names")
                        );
                    }
                    return Ok((state, closing));
                }
                _ => return Err(reader.damaged("unknown kind of frame")),
            }
        }
    }

    fn sha256(&self, end: u64) -> Result<Bytes, SnapshotError> {
        let mut hasher = Sha256::new();
        let (mut at, mut piece) = (0, vec![0; HASH_BYTES]);
        while at < end {
            let length = HASH_BYTES.min(usize::try_from(end - at).unwrap_or(HASH_BYTES));
            read_exact_at(&self.file, at, &mut piece[..length])
                .map_err(SnapshotError::io("reading", &self.path))?;
            hasher.update(&piece[..length]);
            at += length as u64;
        }
        Ok(Bytes::copy_from_slice(&hasher.finalize()))
    }
}

/// A file that may be anybody's: opened for reading alone.
#[derive(Debug)]
struct ReadOnly(File);

impl ReadOnly {
    fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(SnapshotError::io("opening", path))?;
        Ok(Self(file))
    }
}

impl DiskFile for ReadOnly {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn cut(&self, _length: u64, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// What a row of a snapshot is, in the words of the command line.
fn kind_of(row: &SnapshotRow) -> &'static str {
    match &row.row {
        Some(Row::Counters(_)) => "counters",
        Some(Row::BlobChunk(_)) => "blob chunks",
        Some(Row::Remembered(_)) => "remembered requests",
        Some(Row::Seen(_)) => "seen deliveries",
        Some(Row::Record(change)) => match &change.record {
            Some(Record::Job(_)) => "jobs",
            Some(Record::Report(_)) => "reports",
            Some(Record::Delivery(_)) => "deliveries",
            Some(Record::Plan(_)) => "plans",
            Some(Record::PullRequest(_)) => "pull requests",
            Some(Record::Pool(_)) => "pools",
            Some(Record::Intent(_)) => "merge intents",
            Some(Record::Config(_)) => "configuration versions",
            Some(Record::Agent(_)) => "agents",
            Some(Record::Cursor(_)) => "cursors",
            Some(Record::Timer(_)) => "timers",
            Some(Record::Alarm(_)) => "alarms",
            Some(Record::Audit(_)) => "comparisons of the replicas",
            Some(Record::Token(_)) => "tokens",
            Some(Record::Office(_)) => "office",
            Some(Record::FeatureLevel(_)) => "feature level",
            None => "unknown",
        },
        Some(Row::ConfigPage(_)) => "pages of configurations",
        None => "unknown",
    }
}

fn archived_kind(key: &[u8]) -> &'static str {
    match key.first().copied() {
        Some(keys::JOB) => "jobs",
        Some(keys::RUN) => "runs",
        Some(keys::RUN_OF_JOB) => "runs by job",
        Some(keys::RUN_OF_PULL) => "runs by pull request",
        Some(keys::DELIVERY) => "deliveries",
        Some(keys::DELIVERY_IN_ORDER) => "deliveries in order",
        Some(keys::PLAN) => "plans",
        Some(keys::INTENT) => "merge intents",
        Some(keys::CONFIG) => "configuration versions",
        Some(keys::CONFIG_PAGE) => "pages of configurations",
        Some(keys::BLOB) => "blobs",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use trireme_proto::state::{Batch, Command, Cursor, PutCursor, command::Body};

    use super::*;

    fn saved() -> Vec<u8> {
        let mut state = State::new();
        let cursors = (0..20).map(|n| Cursor {
            key: format!("key-{n}"),
            value: "v".repeat(40),
            ..Cursor::default()
        });
        let command = Command {
            body: Some(Body::PutCursor(PutCursor {
                cursors: cursors.collect(),
            })),
            ..Command::default()
        };
        state.apply(
            7,
            Batch {
                stamp_ms: 1,
                commands: vec![command],
            },
        );
        let header = proto::SnapshotHeader {
            cluster_id: "c".to_owned(),
            meta: Some(proto::SnapshotMeta {
                last_log_id: Some(proto::LogId {
                    leader: None,
                    index: 7,
                }),
                ..proto::SnapshotMeta::default()
            }),
            ..proto::SnapshotHeader::default()
        };
        let mut pages = vec![
            vec![
                (Bytes::from_static(b"Ja\0"), Bytes::from_static(b"1")),
                (Bytes::from_static(b"Zb"), Bytes::from_static(b"2")),
            ];
            1
        ];
        let mut bytes = Vec::new();
        write_saved(
            header,
            &state,
            || Ok(pages.pop()),
            |piece| {
                bytes.extend_from_slice(&piece);
                Ok(())
            },
        )
        .unwrap();
        bytes
    }

    fn inspected(bytes: &[u8]) -> Result<Inspection, SnapshotError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        inspect(file.path())
    }

    #[test]
    fn what_is_saved_is_found_again() {
        let found = inspected(&saved()).unwrap();
        assert!(found.saved);
        assert_eq!((found.revision, found.header.hot_rows), (7, 21));
        assert_eq!(
            found.records,
            BTreeMap::from([("counters", 1), ("cursors", 20)])
        );
        assert_eq!(found.archive, BTreeMap::from([("jobs", 1), ("other", 1)]));
        let error = inspected(b"something").unwrap_err().to_string();
        assert!(
            error.ends_with("is damaged at byte 0: this is no snapshot: give a file that `trireme snapshot save` wrote"),
            "{error}"
        );
    }

    #[test]
    fn a_lost_frame_is_noticed() {
        let bytes = saved();
        // The archive's frame: everything that follows is whole.
        let header =
            |at: usize| u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize + 12;
        let (mut at, mut frames) = (8, Vec::new());
        while at < bytes.len() {
            frames.push((at, header(at)));
            at += header(at);
        }
        let archive = frames.iter().find(|(at, _)| bytes[*at] == ARCHIVE);
        let (at, length) = *archive.unwrap();
        let mut cut = bytes.clone();
        cut.drain(at..at + length);
        let error = inspected(&cut).unwrap_err().to_string();
        assert!(error.contains("the end counts 21 and 2"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_changed_or_missing_byte_is_noticed(position: prop::sample::Index, bit in 0..8u8, cut: bool) {
            let mut bytes = saved();
            let at = position.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << bit;
            }
            let found = inspected(&bytes);
            prop_assert!(matches!(found, Err(SnapshotError::Damaged { .. })), "{found:?}");
        }
    }
}
