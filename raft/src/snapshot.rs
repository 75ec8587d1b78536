//! Snapshot files: the hot state at one log index.
//!
//! ```text
//! file   = magic 8, frame(header), frame(rows)*, frame(trailer)
//! frame  = kind u8, unused 3, length u32, crc u32, payload
//! ```
//! Numbers are little-endian; a checksum covers the frame's header without itself, and the payload. Rows are
//! length-delimited `SnapshotRow`s. A file is written aside, synced, renamed; the two newest are kept, on a short disk only
//! the newest.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use tokio::sync::Notify;
use trireme_proto::{raft as proto, state::SnapshotRow};
use trireme_state::State;

use crate::{
    disk::{Disk, DiskFile, read_exact_at},
    wal::LogId,
};

/// Version of the file format.
pub const SNAPSHOT_FORMAT: u32 = 1;
/// Files that are kept: the newest, and one to fall back on.
pub const SNAPSHOTS_KEPT: usize = 2;
pub(crate) const MAGIC: [u8; 8] = *b"TRIRSNAP";
const FRAME_HEADER_BYTES: usize = 12;
/// Rows are gathered into frames of about this size.
pub(crate) const FRAME_BYTES: usize = 256 << 10;
/// A longer frame is damage: a row is at most a little over 1 MiB.
const MAX_FRAME_BYTES: usize = 16 << 20;

pub(crate) const HEADER: u8 = 1;
pub(crate) const ROWS: u8 = 2;
pub(crate) const TRAILER: u8 = 3;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: String,
    },
    #[error(
        "{} has snapshot format {found}, this version reads format {SNAPSHOT_FORMAT}: start the version that wrote it",
        path.display()
    )]
    Format { path: PathBuf, found: u32 },
    #[error("{} is of cluster {found}, not of {expected}", path.display())]
    OtherCluster {
        path: PathBuf,
        found: String,
        expected: String,
    },
}

impl SnapshotError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

impl SnapshotError {
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// A whole snapshot file. Keeps its content readable though the file's name may go.
#[derive(Debug, Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    header: proto::SnapshotHeader,
    rows_at: u64,
}

impl SnapshotFile {
    /// Opens a file and checks its first frame.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SnapshotError> {
        let file = disk
            .open(path)
            .map_err(SnapshotError::io("opening", path))?;
        let bytes = file.length().map_err(SnapshotError::io("reading", path))?;
        let mut reader = FrameReader {
            path,
            file: &*file,
            at: 0,
            end: bytes,
        };
        reader.magic(MAGIC, "this is no snapshot")?;
        let (kind, payload) = reader.frame()?;
        if kind != HEADER {
            return Err(reader.damaged("the first frame is no header"));
        }
        let header = proto::SnapshotHeader::decode(payload)
            .map_err(|error| reader.damaged(&error.to_string()))?;
        if header.format != SNAPSHOT_FORMAT {
            return Err(SnapshotError::Format {
                path: path.to_owned(),
                found: header.format,
            });
        }
        let rows_at = reader.at;
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            header,
            rows_at,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &proto::SnapshotHeader {
        &self.header
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last log id that it covers.
    pub fn last(&self) -> Option<LogId> {
        let meta = self.header.meta.as_ref()?;
        meta.last_log_id.as_ref().map(LogId::from)
    }

    /// Up to `length` bytes from `offset`, for sending.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let length = (self.bytes.saturating_sub(offset)).min(length as u64) as usize;
        let mut bytes = vec![0; length];
        read_exact_at(&*self.file, offset, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Reads the rows in order.
    pub fn rows(&self) -> Rows<'_> {
        Rows {
            reader: FrameReader {
                path: &self.path,
                file: &*self.file,
                at: self.rows_at,
                end: self.bytes,
            },
            frame: Bytes::new(),
            rows: 0,
            blocks: 0,
            closes_file: true,
            done: false,
        }
    }

    /// Checks every frame, without keeping what it holds. `pace` is told the bytes of each and ends the check with false.
    /// Blocks.
    pub(crate) fn verify(&self, mut pace: impl FnMut(usize) -> bool) -> Result<(), SnapshotError> {
        let mut rows = self.rows();
        let mut at = rows.reader.at;
        while rows.next_row()?.is_some() {
            let read = rows.reader.at - at;
            at = rows.reader.at;
            if read > 0 && !pace(read as usize) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The state that the file holds, every checksum verified.
    pub(crate) fn load(&self) -> Result<State, SnapshotError> {
        self.rows().load(|_| {})
    }
}

/// Rows of a snapshot file, one after the other.
#[derive(Debug)]
pub struct Rows<'a> {
    reader: FrameReader<'a>,
    frame: Bytes,
    rows: u64,
    blocks: u64,
    /// Whether nothing follows the trailer.
    closes_file: bool,
    done: bool,
}

impl<'a> Rows<'a> {
    /// The rows of a file that goes on behind them.
    pub(crate) fn within(reader: FrameReader<'a>) -> Self {
        Self {
            reader,
            frame: Bytes::new(),
            rows: 0,
            blocks: 0,
            closes_file: false,
            done: false,
        }
    }

    /// Rows read so far, and the reader behind them.
    pub(crate) fn into_rest(self) -> (u64, FrameReader<'a>) {
        (self.rows, self.reader)
    }

    /// The state that the rows make, every checksum verified, each row shown to `see`.
    pub(crate) fn load(
        &mut self,
        mut see: impl FnMut(&SnapshotRow),
    ) -> Result<State, SnapshotError> {
        let mut failure = None;
        let state = State::from_snapshot_rows(std::iter::from_fn(|| match self.next_row() {
            Ok(row) => row.inspect(&mut see),
            Err(error) => {
                failure = Some(error);
                None
            }
        }));
        if let Some(error) = failure {
            return Err(error);
        }
        state.map_err(|error| self.reader.damaged(&error.to_string()))
    }

    /// None once all rows were read and the trailer agrees with them.
    pub fn next_row(&mut self) -> Result<Option<SnapshotRow>, SnapshotError> {
        while !self.done && !self.frame.has_remaining() {
            let (kind, payload) = self.reader.frame()?;
            match kind {
                ROWS => {
                    self.blocks += 1;
                    self.frame = payload;
                }
                TRAILER => {
                    let trailer = proto::SnapshotTrailer::decode(payload)
                        .map_err(|error| self.reader.damaged(&error.to_string()))?;
                    if (trailer.rows, trailer.blocks) != (self.rows, self.blocks) {
                        return Err(self.reader.damaged(&format!(
                            "{} rows in {} frames, the trailer counts {} in {}",
                            self.rows, self.blocks, trailer.rows, trailer.blocks
                        )));
                    }
                    if self.closes_file && self.reader.at != self.reader.end {
                        return Err(self.reader.damaged("something follows the trailer"));
                    }
                    self.done = true;
                }
                _ => return Err(self.reader.damaged("unknown kind of frame")),
            }
        }
        if self.done {
            return Ok(None);
        }
        let row = SnapshotRow::decode_length_delimited(&mut self.frame)
            .map_err(|error| self.reader.damaged(&error.to_string()))?;
        self.rows += 1;
        Ok(Some(row))
    }
}

#[derive(Debug)]
pub(crate) struct FrameReader<'a> {
    pub(crate) path: &'a Path,
    pub(crate) file: &'a dyn DiskFile,
    pub(crate) at: u64,
    pub(crate) end: u64,
}

impl FrameReader<'_> {
    pub(crate) fn damaged(&self, what: &str) -> SnapshotError {
        SnapshotError::Damaged {
            path: self.path.to_owned(),
            offset: self.at,
            what: what.to_owned(),
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, SnapshotError> {
        if self.end.saturating_sub(self.at) < length as u64 {
            return Err(self.damaged("the file is cut off"));
        }
        let mut bytes = vec![0; length];
        read_exact_at(self.file, self.at, &mut bytes)
            .map_err(SnapshotError::io("reading", self.path))?;
        Ok(bytes)
    }

    pub(crate) fn magic(&mut self, magic: [u8; 8], if_not: &str) -> Result<(), SnapshotError> {
        if self.take(MAGIC.len())? != magic {
            return Err(self.damaged(if_not));
        }
        self.at += MAGIC.len() as u64;
        Ok(())
    }

    pub(crate) fn frame(&mut self) -> Result<(u8, Bytes), SnapshotError> {
        let header = self.take(FRAME_HEADER_BYTES)?;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let crc = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if length > MAX_FRAME_BYTES {
            return Err(self.damaged("the frame's length is impossible"));
        }
        let all = self.take(FRAME_HEADER_BYTES + length)?;
        let payload = &all[FRAME_HEADER_BYTES..];
        if frame_checksum(&header[..8], payload) != crc {
            return Err(self.damaged("the checksum does not match"));
        }
        self.at += all.len() as u64;
        Ok((header[0], Bytes::from(all).slice(FRAME_HEADER_BYTES..)))
    }
}

fn frame_checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

pub(crate) fn push_frame(into: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let mut header = vec![kind, 0, 0, 0];
    header.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = frame_checksum(&header, payload);
    into.extend_from_slice(&header);
    into.extend_from_slice(&crc.to_le_bytes());
    into.extend_from_slice(payload);
}

/// The directory with the snapshot files.
#[derive(Debug, Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// See [`Snapshots::tell_full`].
    full: Arc<Notify>,
}

impl Snapshots {
    /// Removes what an interrupted write or transfer left behind.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, SnapshotError> {
        let snapshots = Self {
            disk,
            dir: dir.to_owned(),
            full: Arc::default(),
        };
        for name in snapshots.names()? {
            if name.ends_with(".part") {
                snapshots.remove(&dir.join(name))?;
            }
        }
        Ok(snapshots)
    }

    /// Paths of the snapshot files, newest first.
    pub fn list(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut names = self.names()?;
        names.retain(|name| name.ends_with(".snap"));
        names.sort();
        names.reverse();
        Ok(names.iter().map(|name| self.dir.join(name)).collect())
    }

    /// Index of the older snapshot that is kept: the log must reach back to it.
    pub fn fallback_index(&self) -> Result<Option<u64>, SnapshotError> {
        let paths = self.list()?;
        Ok(paths.get(1).and_then(|path| index_of(path)))
    }

    /// Removes all but the newest for want of room, once that one was read and found whole. Its index, if there is one.
    /// Blocks.
    pub(crate) fn keep_newest(&self) -> Result<Option<u64>, SnapshotError> {
        let mut paths = self.list()?.into_iter();
        let Some(newest) = paths.next() else {
            return Ok(None);
        };
        let old: Vec<PathBuf> = paths.collect();
        if !old.is_empty() {
            self.open_file(&newest)?.verify(|_| true)?;
            for old in &old {
                tracing::warn!(path = %old.display(), "the disk is short: a snapshot to fall back on is removed");
                self.remove(old)?;
            }
            let synced = self.disk.sync_dir(&self.dir);
            synced.map_err(SnapshotError::io("syncing", &self.dir))?;
        }
        Ok(index_of(&newest))
    }

    /// There was no room to write one.
    pub(crate) fn tell_full(&self) {
        self.full.notify_one();
    }

    /// Resolves when [`Snapshots::tell_full`] was called, or has been since the last time.
    pub(crate) async fn told_full(&self) {
        self.full.notified().await;
    }

    /// Writes and syncs a file. Blocks.
    pub fn write(
        &self,
        header: &proto::SnapshotHeader,
        rows: impl Iterator<Item = SnapshotRow>,
        digest: &[u8],
    ) -> Result<SnapshotFile, SnapshotError> {
        let last = header
            .meta
            .as_ref()
            .and_then(|meta| meta.last_log_id.as_ref());
        let part = self.new_part()?;
        let mut at = 0;
        let mut out = MAGIC.to_vec();
        push_frame(&mut out, HEADER, &header.encode_to_vec());
        let (mut frame, mut counted, mut blocks) = (Vec::new(), 0, 0);
        let mut flush = |out: &mut Vec<u8>| {
            part.file
                .write_at(at, out)
                .map_err(SnapshotError::io("writing", &part.path))?;
            at += out.len() as u64;
            out.clear();
            Ok::<(), SnapshotError>(())
        };
        for row in rows {
            counted += 1;
            row.encode_length_delimited(&mut frame).map_err(|error| {
                SnapshotError::io("encoding a row of", &part.path)(io::Error::other(error))
            })?;
            if frame.len() >= FRAME_BYTES {
                blocks += 1;
                push_frame(&mut out, ROWS, &frame);
                frame.clear();
                flush(&mut out)?;
            }
        }
        if !frame.is_empty() {
            blocks += 1;
            push_frame(&mut out, ROWS, &frame);
        }
        let trailer = proto::SnapshotTrailer {
            rows: counted,
            blocks,
            digest: Bytes::copy_from_slice(digest),
        };
        push_frame(&mut out, TRAILER, &trailer.encode_to_vec());
        flush(&mut out)?;
        self.finish(&part, last.map(LogId::from))
    }

    /// A file for a snapshot that is being received.
    pub(crate) fn new_part(&self) -> Result<Part, SnapshotError> {
        let path = self.dir.join(format!("{}.part", uuid::Uuid::new_v4()));
        let file = self
            .disk
            .create(&path, 0)
            .map_err(SnapshotError::io("creating", &path))?;
        Ok(Part {
            path,
            file,
            disk: Arc::clone(&self.disk),
        })
    }

    /// Makes a complete part a snapshot, and removes all but the newest.
    pub(crate) fn finish(
        &self,
        part: &Part,
        last: Option<LogId>,
    ) -> Result<SnapshotFile, SnapshotError> {
        part.file
            .sync_data()
            .map_err(SnapshotError::io("syncing", &part.path))?;
        let last = last.unwrap_or(LogId {
            term: 0,
            node_id: 0,
            index: 0,
        });
        let path = self.dir.join(format!(
            "{:020}-{:010}-{}.snap",
            last.index, last.term, last.node_id
        ));
        self.disk
            .rename(&part.path, &path)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(SnapshotError::io("renaming", &part.path))?;
        let old: Vec<_> = self.list()?.into_iter().skip(SNAPSHOTS_KEPT).collect();
        for old in &old {
            self.remove(old)?;
        }
        if !old.is_empty() {
            let synced = self.disk.sync_dir(&self.dir);
            synced.map_err(SnapshotError::io("syncing", &self.dir))?;
        }
        SnapshotFile::open(&*self.disk, &path)
    }

    /// Takes over a file of another directory.
    pub(crate) fn copy(
        &self,
        from: &SnapshotFile,
        last: Option<LogId>,
    ) -> Result<SnapshotFile, SnapshotError> {
        let part = self.new_part()?;
        let mut at = 0;
        while at < from.bytes() {
            let bytes = from
                .read(at, FRAME_BYTES)
                .map_err(SnapshotError::io("reading", from.path()))?;
            part.file
                .write_at(at, &bytes)
                .map_err(SnapshotError::io("writing", &part.path))?;
            at += bytes.len() as u64;
        }
        self.finish(&part, last)
    }

    pub(crate) fn open_file(&self, path: &Path) -> Result<SnapshotFile, SnapshotError> {
        SnapshotFile::open(&*self.disk, path)
    }

    /// Keeps a damaged file for inspection, out of the way.
    pub(crate) fn set_aside(&self, path: &Path) -> Result<(), SnapshotError> {
        self.disk
            .rename(path, &path.with_extension("damaged"))
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(SnapshotError::io("renaming", path))
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), SnapshotError> {
        match self.disk.unlink(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::io("removing", path)(error))
            }
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        self.disk
            .list(&self.dir)
            .map_err(SnapshotError::io("listing", &self.dir))
    }
}

/// A snapshot file that is not whole yet. Goes away with its owner, unless it was finished.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    disk: Arc<dyn Disk>,
}

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed by then if all went well; what stays is removed when the directory is opened next.
        let _ = self.disk.unlink(&self.path);
    }
}

pub(crate) fn index_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trireme_proto::state::{BlobChunkRow, Counters, snapshot_row::Row};

    use super::*;
    use crate::disk::MemoryDisk;

    fn header(index: u64) -> proto::SnapshotHeader {
        proto::SnapshotHeader {
            format: SNAPSHOT_FORMAT,
            cluster_id: "c".to_owned(),
            meta: Some(proto::SnapshotMeta {
                last_log_id: Some(
                    LogId {
                        term: 1,
                        node_id: 1,
                        index,
                    }
                    .into(),
                ),
                ..proto::SnapshotMeta::default()
            }),
            ..proto::SnapshotHeader::default()
        }
    }

    fn rows(count: u64) -> Vec<SnapshotRow> {
        (0..count)
            .map(|n| SnapshotRow {
                row: Some(if n % 2 == 0 {
                    Row::Counters(Counters {
                        build_id: n,
                        ..Counters::default()
                    })
                } else {
                    Row::BlobChunk(BlobChunkRow {
                        data: vec![n as u8; 3000].into(),
                        ..BlobChunkRow::default()
                    })
                }),
            })
            .collect()
    }

    fn read(file: &SnapshotFile) -> Result<Vec<SnapshotRow>, SnapshotError> {
        let mut reader = file.rows();
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row()? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn rows_are_read_back_and_two_files_are_kept() {
        let disk = MemoryDisk::new();
        let snapshots = Snapshots::open(Arc::new(disk.clone()), Path::new("/s")).unwrap();
        for index in 1..=3 {
            snapshots
                .write(&header(index), rows(400).into_iter(), b"d")
                .unwrap();
        }
        let disk = disk.after_power_cut(|| false);
        let snapshots = Snapshots::open(Arc::new(disk), Path::new("/s")).unwrap();
        let kept: Vec<_> = snapshots
            .list()
            .unwrap()
            .iter()
            .filter_map(|path| index_of(path))
            .collect();
        assert_eq!(kept, [3, 2]);
        assert_eq!(snapshots.fallback_index().unwrap(), Some(2));
        let newest = snapshots.open_file(&snapshots.list().unwrap()[0]).unwrap();
        assert_eq!(read(&newest).unwrap(), rows(400));
    }

    #[test]
    fn what_an_interrupted_write_left_is_removed() {
        let disk = MemoryDisk::new();
        let snapshots = Snapshots::open(Arc::new(disk.clone()), Path::new("/s")).unwrap();
        std::mem::forget(snapshots.new_part().unwrap());
        Snapshots::open(Arc::new(disk.clone()), Path::new("/s")).unwrap();
        assert!(disk.list(Path::new("/s")).unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_changed_or_missing_byte_is_noticed(position: prop::sample::Index, bit in 0..8u8, cut: bool) {
            let disk = MemoryDisk::new();
            let snapshots = Snapshots::open(Arc::new(disk.clone()), Path::new("/s")).unwrap();
            let path = snapshots.write(&header(1), rows(9).into_iter(), b"d").unwrap().path().to_owned();
            let file = disk.open(&path).unwrap();
            let length = file.length().unwrap();
            let at = position.index(length as usize) as u64;
            if cut {
                file.cut(at, 0).unwrap();
            } else {
                disk.corrupt(&path, at, |bytes| bytes[0] ^= 1 << bit);
            }
            let found = snapshots.open_file(&path).and_then(|file| read(&file));
            prop_assert!(matches!(found, Err(SnapshotError::Damaged { .. })), "{found:?}");
        }
    }
}
