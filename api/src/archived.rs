//! Records that left memory for this node's archive.

use std::ops::Bound;

use bytes::Bytes;
use tonic::Status;
use trireme_raft::ArchiveReader;
use trireme_state::archive_keys::{self as keys, Chunk, Key};

/// Rows that are read at once.
const ROWS: usize = 128;

/// The record with this key, if it is there.
///
/// # Errors
/// If the archive cannot be read, or holds only a part of it.
pub(crate) async fn record(archive: &ArchiveReader, key: Key) -> Result<Option<Bytes>, Status> {
    let failed = |why: &dyn std::fmt::Display| Status::unavailable(format!("archive: {why}"));
    let prefix = key.prefix();
    let mut from = Bound::Included(prefix.clone());
    let mut found = Vec::new();
    loop {
        let range = (from, Bound::Unbounded);
        let rows = archive
            .range(range, false, ROWS)
            .await
            .map_err(|why| failed(&why))?;
        let read = rows.len();
        let mine =
            |row: &(Bytes, Bytes)| row.0.starts_with(&prefix) && row.0.len() == prefix.len() + 2;
        let ours = rows.into_iter().take_while(mine);
        let before = found.len();
        found.extend(ours);
        // What follows is left from when it was larger.
        let first = found.first().map(|(key, value)| Chunk::split(key, value));
        let count = first.transpose().map_err(|why| failed(&why))?;
        if count.is_some_and(|first| found.len() >= usize::from(first.count)) {
            break;
        }
        match found.last() {
            Some((last, _)) if found.len() - before == ROWS && read == ROWS => {
                from = Bound::Excluded(last.clone());
            }
            _ => break,
        }
    }
    let rows = found.iter().map(|(key, value)| (&key[..], &value[..]));
    let joined = keys::join(rows).map_err(|why| failed(&why))?;
    Ok(joined.into_iter().next().map(|(_, record)| record))
}

/// # Errors
/// If it is no such record.
pub(crate) fn decode<M: prost::Message + Default>(record: &Bytes) -> Result<M, Status> {
    M::decode(record.clone()).map_err(|why| Status::data_loss(format!("archive: {why}")))
}
