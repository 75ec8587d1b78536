//! The archive as it was at one log index, read while it goes on.
//!
//! sled keeps no versions. So while somebody reads for a saved snapshot, the thread that writes notes what each row was
//! before it touched it, and the reader puts that back where the write came later than the index it wants.

use std::{collections::BTreeMap, io, ops::Bound, sync::Arc};

use bytes::Bytes;
use trireme_state::ArchiveOp;

use super::{Archive, ArchiveStore, Batch, Row, Shared, held};

/// Rows read at once.
const PAGE_ROWS: usize = 1000;
/// Bytes of rows, keys included, that may be noted while one reader reads; more ends the reading.
const MAX_NOTED_BYTES: usize = 64 << 20;

/// What rows were before they were touched.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// By key: index of the write, and the row before it. In the order of the writes.
    rows: BTreeMap<Bytes, Vec<(u64, Option<Bytes>)>>,
    bytes: usize,
    /// Why the rows cannot be read any more.
    broken: Option<String>,
}

impl Notes {
    fn note(&mut self, key: &Bytes, index: u64, before: Option<Bytes>) {
        self.bytes += key.len() + before.as_ref().map_or(0, Bytes::len) + size_of::<Row>();
        if self.bytes > MAX_NOTED_BYTES {
            self.rows.clear();
            self.broken.get_or_insert_with(|| {
                "too much history was written meanwhile: save again when less is going on"
                    .to_owned()
            });
            return;
        }
        self.rows
            .entry(key.clone())
            .or_default()
            .push((index, before));
    }
}

impl Shared {
    fn notes(&self) -> std::sync::MutexGuard<'_, Option<Notes>> {
        held(&self.saving)
    }

    /// Performs a batch, having noted what it touches if somebody reads.
    pub(super) fn write_noted(&self, store: &dyn ArchiveStore, batch: &Batch) -> io::Result<()> {
        // Held over the write: a reader that begins sees either all of it or none.
        let mut notes = self.notes();
        if let Some(notes) = notes.as_mut().filter(|notes| notes.broken.is_none())
            && let Err(error) = note_batch(notes, store, batch)
        {
            notes.broken = Some(format!("the archive cannot be read: {error}"));
        }
        store.write(&batch.ops, batch.index)
    }

    /// The store is being replaced: what a reader has read so far is of another one.
    pub(super) fn break_saving(&self) {
        if let Some(notes) = self.notes().as_mut() {
            notes.broken.get_or_insert_with(|| {
                "this node was brought up to date with a snapshot meanwhile: save again".to_owned()
            });
        }
    }
}

fn note_batch(notes: &mut Notes, store: &dyn ArchiveStore, batch: &Batch) -> io::Result<()> {
    // What earlier entries of the batch leave for later ones.
    let mut left: BTreeMap<&Bytes, Option<Bytes>> = BTreeMap::new();
    let mut from = 0;
    for (index, to) in batch.entries.iter().copied() {
        for op in batch.ops.get(from..to).unwrap_or_default() {
            let (key, after) = match op {
                ArchiveOp::Put { key, value } => (key, Some(value.clone())),
                ArchiveOp::Delete { key } => (key, None),
            };
            let before = match left.insert(key, after) {
                Some(before) => before,
                None => store.get(key)?,
            };
            notes.note(key, index, before);
        }
        from = to;
    }
    Ok(())
}

/// All rows as they were at one index, in order of their keys. One reader at a time.
#[derive(Debug)]
pub(crate) struct SavedRows {
    archive: Arc<Archive>,
    /// What was submitted before cannot be told apart: the index that is read must not be before this one.
    pub(crate) floor: u64,
    after: Option<Bytes>,
    done: bool,
}

impl Archive {
    /// From now on rows are noted before they are touched; None while another reader is at it. Blocks while a batch is
    /// written.
    pub(crate) fn begin_save(self: &Arc<Self>) -> Option<SavedRows> {
        let mut notes = self.shared.notes();
        if notes.is_some() {
            return None;
        }
        *notes = Some(Notes::default());
        drop(notes);
        let floor = self.shared.overlay().submitted;
        Some(SavedRows {
            archive: Arc::clone(self),
            floor,
            after: None,
            done: false,
        })
    }
}

impl SavedRows {
    /// The next rows; None after the last. `index` is at least [`SavedRows::floor`], the same in every call, and
    /// everything up to it has been performed ([`Archive::checkpoint`]). Blocks.
    pub(crate) fn next(&mut self, index: u64) -> io::Result<Option<Vec<Row>>> {
        while !self.done {
            let from = self.after.as_deref();
            let from = from.map_or(Bound::Unbounded, Bound::Excluded);
            let read =
                self.archive
                    .shared
                    .store()?
                    .range((from, Bound::Unbounded), false, PAGE_ROWS)?;
            let end = (read.len() == PAGE_ROWS)
                .then(|| read.last().map(|(key, _)| key.clone()))
                .flatten();
            let mut rows: BTreeMap<Bytes, Bytes> = read.into_iter().collect();
            {
                // After the rows were read: what was touched before is noted by now.
                let notes = self.archive.shared.notes();
                let notes = notes.as_ref();
                if let Some(broken) = notes.and_then(|notes| notes.broken.as_ref()) {
                    return Err(io::Error::other(broken.clone()));
                }
                let to = end.as_deref().map_or(Bound::Unbounded, Bound::Included);
                let touched = notes
                    .into_iter()
                    .flat_map(|notes| notes.rows.range::<[u8], _>((from, to)));
                for (key, touches) in touched {
                    match touches.iter().find(|(at, _)| *at > index) {
                        Some((_, Some(before))) => {
                            rows.insert(key.clone(), before.clone());
                        }
                        Some((_, None)) => {
                            rows.remove(key);
                        }
                        None => {}
                    }
                }
            }
            self.done = end.is_none();
            self.after = end;
            if !rows.is_empty() {
                return Ok(Some(rows.into_iter().collect()));
            }
        }
        Ok(None)
    }
}

impl Drop for SavedRows {
    fn drop(&mut self) {
        *self.archive.shared.notes() = None;
    }
}
