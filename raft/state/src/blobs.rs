//! Blobs: values too large for one command, put in chunks under the sha256 of the whole, then named by a command.
//! What nothing names is swept after an hour. Apply neither decompresses nor checks the hash: doors do, on both ends.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use trireme_proto::state::{BlobChunkRow, BlobRef, Done, PutBlobChunk, SweepBlobs};

use crate::{
    PAGES_LEVEL, State,
    apply::Entry,
    archive, config_pages,
    digest::{Sum, sha256},
    limits::{
        BLOB_CHUNK, BLOB_GRACE_MS, MAX_BLOB_BYTES, MAX_BLOB_CHUNKS, MAX_SWEEP,
        MAX_UNREFERENCED_BLOB_BYTES, MAX_UNREFERENCED_BLOB_BYTES_BEFORE_PAGES,
    },
    reject::{Verdict, at_most, conflict, invalid, not_found},
};

type Sha = [u8; 32];

/// A chunk's hash as part of the digest.
const KIND: u8 = 10;

#[derive(Clone, Debug, PartialEq)]
struct Chunk {
    data: Bytes,
    hash: Sum,
    put_ms: i64,
}

/// What is known of a blob beside its data.
#[derive(Clone, Debug, PartialEq)]
struct Blob {
    size: u64,
    count: u32,
    chunks: OrdMap<u32, Chunk>,
    /// Bytes as stored.
    stored: u64,
    last_put_ms: i64,
}

impl Blob {
    fn is_complete(&self) -> bool {
        self.chunks.len() == self.count as usize
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Blobs {
    rows: OrdMap<Sha, Arc<Blob>>,
    /// How many records name a blob.
    references: OrdMap<Sha, u32>,
    unreferenced: OrdSet<(i64, Sha)>,
    unreferenced_bytes: u64,
    bytes: u64,
}

fn sha_of(bytes: &Bytes) -> Option<Sha> {
    bytes.as_ref().try_into().ok()
}

impl Blobs {
    /// Puts a chunk that fits its blob. Also the way back from a snapshot.
    fn put(&mut self, digest: &mut Sum, sha: Sha, row: BlobChunkRow) {
        self.shelve(&sha, false);
        let size = row.blob.map_or(0, |blob| blob.size);
        let mut blob = self.rows.get(&sha).map_or_else(
            || Blob {
                size,
                count: row.count,
                chunks: OrdMap::new(),
                stored: 0,
                last_put_ms: 0,
            },
            |blob| (**blob).clone(),
        );
        let hash = Sum::of(
            KIND,
            &[
                &sha,
                &size.to_be_bytes(),
                &row.count.to_be_bytes(),
                &row.index.to_be_bytes(),
                &row.put_ms.to_be_bytes(),
                &sha256(&[&row.data]),
            ],
        );
        digest.add(&hash);
        blob.stored = blob.stored.saturating_add(row.data.len() as u64);
        blob.last_put_ms = blob.last_put_ms.max(row.put_ms);
        let chunk = Chunk {
            data: row.data,
            hash,
            put_ms: row.put_ms,
        };
        blob.chunks.insert(row.index, chunk);
        self.rows.insert(sha, Arc::new(blob));
        self.shelve(&sha, true);
    }

    fn remove(&mut self, digest: &mut Sum, sha: &Sha) {
        self.shelve(sha, false);
        if let Some(blob) = self.rows.remove(sha) {
            for chunk in blob.chunks.values() {
                digest.sub(&chunk.hash);
            }
        }
    }

    /// Counts a blob's bytes, and puts it among the unreferenced if it is; or undoes both.
    fn shelve(&mut self, sha: &Sha, add: bool) {
        let Some(blob) = self.rows.get(sha) else {
            return;
        };
        let unreferenced = !self.references.contains_key(sha);
        if add {
            self.bytes = self.bytes.saturating_add(blob.stored);
        } else {
            self.bytes = self.bytes.saturating_sub(blob.stored);
        }
        if unreferenced {
            let place = (blob.last_put_ms, *sha);
            if add {
                self.unreferenced.insert(place);
                self.unreferenced_bytes = self.unreferenced_bytes.saturating_add(blob.stored);
            } else {
                self.unreferenced.remove(&place);
                self.unreferenced_bytes = self.unreferenced_bytes.saturating_sub(blob.stored);
            }
        }
    }

    /// A record names the blob.
    pub(crate) fn refer(&mut self, sha256: &Bytes) {
        let Some(sha) = sha_of(sha256) else { return };
        self.shelve(&sha, false);
        let count = self.references.get(&sha).copied().unwrap_or(0);
        self.references.insert(sha, count.saturating_add(1));
        self.shelve(&sha, true);
    }

    /// A record names it no longer. Whether it was the last.
    fn release(&mut self, sha: &Sha) -> bool {
        let count = self.references.get(sha).copied().unwrap_or(0);
        if count > 1 {
            self.references.insert(*sha, count - 1);
            return false;
        }
        self.shelve(sha, false);
        self.references.remove(sha);
        self.shelve(sha, true);
        count == 1
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn unreferenced_bytes(&self) -> u64 {
        self.unreferenced_bytes
    }

    pub(crate) fn chunk_rows(&self) -> impl Iterator<Item = BlobChunkRow> {
        self.rows.iter().flat_map(|(sha, blob)| {
            blob.chunks.iter().map(|(index, chunk)| BlobChunkRow {
                blob: Some(BlobRef {
                    sha256: Bytes::copy_from_slice(sha),
                    size: blob.size,
                }),
                index: *index,
                count: blob.count,
                data: chunk.data.clone(),
                put_ms: chunk.put_ms,
            })
        })
    }

    /// Whether the row fitted: false for a row that no state would have written.
    pub(crate) fn restore(&mut self, digest: &mut Sum, row: BlobChunkRow) -> bool {
        let sha = row.blob.as_ref().and_then(|blob| sha_of(&blob.sha256));
        let (Some(sha), Some(blob)) = (sha, &row.blob) else {
            return false;
        };
        let fits = row.index < row.count
            && self.rows.get(&sha).is_none_or(|former| {
                former.size == blob.size
                    && former.count == row.count
                    && !former.chunks.contains_key(&row.index)
            });
        if fits {
            self.put(digest, sha, row);
        }
        fits
    }
}

pub(crate) fn put_chunk(state: &mut State, entry: &mut Entry, command: &PutBlobChunk) -> Verdict {
    let Some(asked) = &command.blob else {
        return Err(invalid("no blob"));
    };
    let Some(sha) = sha_of(&asked.sha256) else {
        return Err(invalid(format!(
            "a blob's sha256 has 32 bytes, not {}",
            asked.sha256.len()
        )));
    };
    if asked.size > MAX_BLOB_BYTES {
        return Err(invalid(format!(
            "a blob of {} bytes, at most {MAX_BLOB_BYTES} are allowed",
            asked.size
        )));
    }
    if command.count == 0 || command.count > MAX_BLOB_CHUNKS || command.index >= command.count {
        return Err(invalid(format!(
            "chunk {} of {}, at most {MAX_BLOB_CHUNKS} are allowed",
            command.index, command.count
        )));
    }
    if command.data.len() > BLOB_CHUNK {
        return Err(invalid(format!(
            "a chunk of {} bytes, at most {BLOB_CHUNK} are allowed",
            command.data.len()
        )));
    }
    let mut freed = 0;
    let mut starts_over = false;
    if let Some(former) = state.blobs.rows.get(&sha) {
        let alike = former.size == asked.size && former.count == command.count;
        let chunk = former.chunks.get(&command.index);
        if alike && chunk.is_some_and(|chunk| chunk.data == command.data) {
            // Still wanted: its hour begins anew. Chunks of a named blob do not expire.
            let named = state.blobs.references.contains_key(&sha);
            let index = command.index;
            let touched = !named
                && state
                    .blobs
                    .touch(&mut state.digest, &sha, index, entry.stamp_ms);
            return Ok(Done {
                duplicate: !touched,
                ..Done::default()
            });
        }
        if state.blobs.references.contains_key(&sha) {
            return Ok(Done {
                duplicate: true,
                ..Done::default()
            });
        }
        // Another compression of the same value: chunks of the two must never mix.
        if !alike || chunk.is_some() {
            starts_over = true;
            freed = former.stored;
        }
    }
    let unreferenced = state.blobs.unreferenced_bytes.saturating_sub(freed);
    let bound = state.max_unreferenced_blob_bytes();
    if unreferenced.saturating_add(command.data.len() as u64) > bound {
        return Err(crate::reject::exhausted(
            "bytes of blobs that nothing names",
            usize::try_from(bound).unwrap_or(usize::MAX),
        ));
    }
    if starts_over {
        state.blobs.remove(&mut state.digest, &sha);
    }
    let row = BlobChunkRow {
        blob: Some(asked.clone()),
        index: command.index,
        count: command.count,
        data: command.data.clone(),
        put_ms: entry.stamp_ms,
    };
    state.blobs.put(&mut state.digest, sha, row);
    Ok(Done::default())
}

/// Removes blobs and pages that nothing names and that nobody has put for an hour; others stay.
pub(crate) fn sweep(state: &mut State, entry: &mut Entry, command: &SweepBlobs) -> Verdict {
    at_most("blobs to sweep", command.sha256.len(), MAX_SWEEP)?;
    at_most("pages to sweep", command.config_pages.len(), MAX_SWEEP)?;
    let before = entry.stamp_ms.saturating_sub(BLOB_GRACE_MS);
    let mut swept = false;
    for sha256 in &command.config_pages {
        swept |= config_pages::sweep(state, entry, sha256, before);
    }
    for sha in command.sha256.iter().filter_map(sha_of) {
        let expired = state
            .blobs
            .rows
            .get(&sha)
            .is_some_and(|blob| blob.last_put_ms < before);
        if expired && !state.blobs.references.contains_key(&sha) {
            state.blobs.remove(&mut state.digest, &sha);
            swept = true;
        }
    }
    Ok(Done {
        duplicate: !swept,
        ..Done::default()
    })
}

impl Blobs {
    /// Whether the chunk is younger now.
    fn touch(&mut self, digest: &mut Sum, sha: &Sha, index: u32, put_ms: i64) -> bool {
        let Some(blob) = self.rows.get(sha) else {
            return false;
        };
        let (size, count) = (blob.size, blob.count);
        let Some(chunk) = blob.chunks.get(&index).cloned() else {
            return false;
        };
        if chunk.put_ms >= put_ms {
            return false;
        }
        self.shelve(sha, false);
        digest.sub(&chunk.hash);
        if let Some(blob) = self.rows.get_mut(sha) {
            let blob = Arc::make_mut(blob);
            blob.chunks.remove(&index);
            blob.stored = blob.stored.saturating_sub(chunk.data.len() as u64);
        }
        self.shelve(sha, true);
        let blob = Some(BlobRef {
            sha256: Bytes::copy_from_slice(sha),
            size,
        });
        self.put(
            digest,
            *sha,
            BlobChunkRow {
                blob,
                index,
                count,
                data: chunk.data,
                put_ms,
            },
        );
        true
    }
}

impl State {
    /// A command may name a blob once all its chunks are there.
    pub(crate) fn check_blob(&self, asked: &BlobRef) -> Verdict<()> {
        let Some(sha) = sha_of(&asked.sha256) else {
            return Err(invalid(format!(
                "a blob's sha256 has 32 bytes, not {}",
                asked.sha256.len()
            )));
        };
        let Some(blob) = self.blobs.rows.get(&sha) else {
            return Err(not_found("blob", &hex(&sha)));
        };
        if !blob.is_complete() {
            return Err(conflict(format!(
                "blob {} has {} of {} chunks",
                hex(&sha),
                blob.chunks.len(),
                blob.count
            )));
        }
        if blob.size != asked.size {
            return Err(invalid(format!(
                "blob {} has {} bytes, not {}",
                hex(&sha),
                blob.size,
                asked.size
            )));
        }
        Ok(())
    }

    /// A record that named the blob has left. What was the last one's goes with it into the archive; the copy in
    /// memory is swept later.
    pub(crate) fn release_blob(&mut self, entry: &mut Entry, sha256: &Bytes) {
        let Some(sha) = sha_of(sha256) else { return };
        if self.blobs.release(&sha)
            && let Some(chunks) = self.blob(&sha)
        {
            archive::blob(entry, &sha, &chunks);
        }
    }

    /// The chunks of a complete blob in their order, as its door put them.
    pub fn blob(&self, sha256: &[u8]) -> Option<Vec<Bytes>> {
        let sha: Sha = sha256.try_into().ok()?;
        let blob = self
            .blobs
            .rows
            .get(&sha)
            .filter(|blob| blob.is_complete())?;
        Some(
            blob.chunks
                .values()
                .map(|chunk| chunk.data.clone())
                .collect(),
        )
    }

    /// Whether all chunks of the blob are there.
    pub fn has_blob(&self, sha256: &[u8]) -> bool {
        Sha::try_from(sha256).is_ok_and(|sha| {
            self.blobs
                .rows
                .get(&sha)
                .is_some_and(|blob| blob.is_complete())
        })
    }

    /// Whether the blob is there and stays long enough to be named: else it is to be put again.
    pub fn keeps_blob(&self, sha256: &[u8], now_ms: i64) -> bool {
        let Ok(sha) = Sha::try_from(sha256) else {
            return false;
        };
        let young = now_ms.saturating_sub(BLOB_GRACE_MS / 2);
        self.blobs.rows.get(&sha).is_some_and(|blob| {
            let named = self.blobs.references.contains_key(&sha);
            blob.is_complete() && (named || blob.last_put_ms >= young)
        })
    }

    pub(crate) fn max_unreferenced_blob_bytes(&self) -> u64 {
        if self.feature_level() < PAGES_LEVEL {
            MAX_UNREFERENCED_BLOB_BYTES_BEFORE_PAGES
        } else {
            MAX_UNREFERENCED_BLOB_BYTES
        }
    }

    /// Blobs that `SweepBlobs` would remove at this time, oldest first.
    pub fn expired_blobs(&self, now_ms: i64) -> impl Iterator<Item = &[u8; 32]> {
        let before = now_ms.saturating_sub(BLOB_GRACE_MS);
        self.blobs
            .unreferenced
            .range(..(before, [0; 32]))
            .map(|(_, sha)| sha)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
