//! Records that left memory for this node's archive.

use std::ops::Bound;

use bytes::{BufMut as _, Bytes, BytesMut};
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

/// A record of a range.
pub(crate) struct Row {
    pub(crate) record: Bytes,
    /// Where the range goes on behind it.
    pub(crate) next: Bound<Bytes>,
}

/// The first records from `from` on whose keys begin with `prefix`; none if there are no more.
///
/// # Errors
/// If the archive cannot be read, or holds only a part of a record.
pub(crate) async fn records(
    archive: &ArchiveReader,
    prefix: &Bytes,
    from: Bound<Bytes>,
) -> Result<Vec<Row>, Status> {
    let failed = |why: &dyn std::fmt::Display| Status::unavailable(format!("archive: {why}"));
    let rows = archive
        .range((from, Bound::Unbounded), false, ROWS)
        .await
        .map_err(|why| failed(&why))?;
    let is_all = rows.len() < ROWS;
    let mut found: Vec<(Bytes, Vec<(Bytes, Bytes)>)> = Vec::new();
    let mine = rows.into_iter().take_while(|row| row.0.starts_with(prefix));
    for row in mine {
        let of = Chunk::split(&row.0, &row.1).map_err(|why| failed(&why))?;
        let of = Bytes::copy_from_slice(of.prefix);
        match found.last_mut() {
            Some((last, chunks)) if *last == of => chunks.push(row),
            _ => found.push((of, vec![row])),
        }
    }
    // Of the last one there may be more than was read; alone it is read by itself.
    if !is_all && found.len() > 1 {
        found.pop();
    }
    let is_cut = !is_all && found.len() == 1;
    let mut records = Vec::new();
    for (of, chunks) in found {
        // The chunk behind the last that a record can have.
        let mut behind = BytesMut::from(&of[..]);
        behind.put_u16(u16::MAX);
        let next = Bound::Included(behind.freeze());
        let rows = chunks.iter().map(|(key, value)| (&key[..], &value[..]));
        let record = match is_cut {
            true => record(archive, Key::of_prefix(&of)).await?,
            false => keys::join(rows)
                .map_err(|why| failed(&why))?
                .into_iter()
                .next()
                .map(|(_, record)| record),
        };
        records.extend(record.map(|record| Row { record, next }));
    }
    Ok(records)
}

/// # Errors
/// If it is no such record.
pub(crate) fn decode<M: prost::Message + Default>(record: &Bytes) -> Result<M, Status> {
    M::decode(record.clone()).map_err(|why| Status::data_loss(format!("archive: {why}")))
}
