//! The log as readers see it: where each entry lies, and the newest of them in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use trireme_proto::raft as proto;

use super::record::{LogId, RECORD_HEADER_BYTES, committed_after_cut, decode_entry, find};
use crate::disk::{DiskFile, read_exact_at};

/// Memory that an entry takes beyond its bytes, roughly.
const ENTRY_OVERHEAD: usize = 160;

/// Everything under the WAL's lock.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) vote: Option<proto::Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    /// Index of the first of `slots`.
    first: u64,
    slots: VecDeque<Slot>,
    cached_bytes: usize,
    cache_limit: usize,
    /// Slots before this one hold no entry in memory.
    cached_from: u64,
    next_ticket: u64,
    pub(super) segments: BTreeMap<u64, Segment>,
}

#[derive(Debug)]
struct Slot {
    /// Tells an entry from another that took its index after a truncation.
    ticket: u64,
    id: LogId,
    /// None until it is on disk.
    place: Option<Place>,
    /// None once it is read from disk instead.
    entry: Option<proto::Entry>,
    bytes: usize,
}

/// Where an entry's payload lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Greatest index of an entry ever written to it.
    pub(super) max_index: Option<u64>,
    /// Where its records end; None while it is written to.
    pub(super) end: Option<u64>,
}

/// What a reader has to fetch once it let go of the lock.
#[derive(Debug)]
pub(super) enum Piece {
    Cached(proto::Entry),
    OnDisk {
        id: LogId,
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        place: Place,
    },
}

impl Log {
    pub(super) fn new(cache_limit: usize) -> Self {
        Self {
            vote: None,
            committed: None,
            purged: None,
            last: None,
            first: 0,
            slots: VecDeque::new(),
            cached_bytes: 0,
            cache_limit,
            cached_from: 0,
            next_ticket: 0,
            segments: BTreeMap::new(),
        }
    }

    /// Index that the next entry must have; None = any.
    pub(super) fn expected(&self) -> Option<u64> {
        self.last.map(|last| last.index + 1)
    }

    /// Adds an entry behind the last; `place` is None while it is only in memory. Answers its ticket.
    pub(super) fn push(
        &mut self,
        id: LogId,
        entry: proto::Entry,
        bytes: usize,
        place: Option<Place>,
    ) -> io::Result<u64> {
        if let Some(expected) = self.expected()
            && expected != id.index
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("entry {id} would leave a hole: the log goes on at {expected}"),
            ));
        }
        if self.slots.is_empty() {
            self.first = id.index;
            self.cached_from = id.index;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let bytes = bytes + ENTRY_OVERHEAD;
        self.cached_bytes += bytes;
        self.slots.push_back(Slot {
            ticket,
            id,
            place,
            entry: Some(entry),
            bytes,
        });
        self.last = Some(id);
        if place.is_some() {
            self.evict();
        }
        Ok(ticket)
    }

    /// The entry with `ticket` is on disk, if it is still part of the log.
    pub(super) fn placed(&mut self, index: u64, ticket: u64, place: Place) {
        let slot = index
            .checked_sub(self.first)
            .and_then(|at| self.slots.get_mut(at as usize));
        if let Some(slot) = slot
            && slot.ticket == ticket
        {
            slot.place = Some(place);
        }
    }

    /// Lets go of the oldest entries in memory that are on disk, down to the limit.
    pub(super) fn evict(&mut self) {
        while self.cached_bytes > self.cache_limit {
            let at = (self.cached_from - self.first) as usize;
            let Some(slot) = self.slots.get_mut(at) else {
                return;
            };
            if slot.place.is_none() {
                return;
            }
            if slot.entry.take().is_some() {
                self.cached_bytes -= slot.bytes;
            }
            self.cached_from += 1;
        }
    }

    /// Ends the log after `after`; None empties it.
    pub(super) fn truncate(&mut self, after: Option<LogId>) {
        let keep = match after {
            Some(after) => (after.index + 1).saturating_sub(self.first) as usize,
            None => 0,
        };
        while self.slots.len() > keep {
            if let Some(slot) = self.slots.pop_back()
                && slot.entry.is_some()
            {
                self.cached_bytes -= slot.bytes;
            }
        }
        self.cached_from = self.cached_from.min(self.first + self.slots.len() as u64);
        // Without slots `after` is the purge mark, or, while reading the log back, an entry of a segment that is gone.
        self.committed = committed_after_cut(self.committed, after);
        self.last = self
            .slots
            .back()
            .map(|slot| slot.id)
            .or(after)
            .or(self.purged);
    }

    /// Drops entries up to `upto`, which may lie beyond the last.
    pub(super) fn purge(&mut self, upto: LogId) {
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.id.index <= upto.index)
        {
            if let Some(slot) = self.slots.pop_front() {
                self.first = slot.id.index + 1;
                if slot.entry.is_some() {
                    self.cached_bytes -= slot.bytes;
                }
            }
        }
        self.cached_from = self.cached_from.max(self.first);
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
        }
        if self.slots.is_empty() {
            self.last = self
                .last
                .filter(|last| last.index > upto.index)
                .or(self.purged);
        }
    }

    /// Index of the first entry, if there is one.
    pub(super) fn first(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.id.index)
    }

    /// Index of the first of the newest entries that together have at most `bytes`.
    pub(super) fn first_within(&self, bytes: u64) -> Option<u64> {
        let mut sum: u64 = 0;
        let mut first = None;
        for slot in self.slots.iter().rev() {
            sum = sum.saturating_add(slot.bytes as u64);
            if sum > bytes {
                break;
            }
            first = Some(slot.id.index);
        }
        first
    }

    /// The id of an entry that is still there.
    pub(super) fn id_at(&self, index: u64) -> Option<LogId> {
        let at = index.checked_sub(self.first)?;
        self.slots.get(at as usize).map(|slot| slot.id)
    }

    /// Entries in `start..end` that exist, up to `max_bytes` (but at least one).
    pub(super) fn pieces(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Piece>> {
        let from = start.max(self.first) - self.first;
        let to = end.saturating_sub(self.first).min(self.slots.len() as u64);
        let mut pieces = Vec::new();
        let mut bytes = 0;
        for slot in self.slots.range(from.min(to) as usize..to as usize) {
            bytes += slot.bytes;
            if bytes > max_bytes && !pieces.is_empty() {
                break;
            }
            pieces.push(match (&slot.entry, slot.place) {
                (Some(entry), _) => Piece::Cached(entry.clone()),
                (None, Some(place)) => {
                    let segment = self.segments.get(&place.segment).ok_or_else(|| {
                        io::Error::other(format!(
                            "entry {} lies in segment {}, which is gone",
                            slot.id, place.segment
                        ))
                    })?;
                    Piece::OnDisk {
                        id: slot.id,
                        file: Arc::clone(&segment.file),
                        path: segment.path.clone(),
                        place,
                    }
                }
                (None, None) => {
                    return Err(io::Error::other(format!("entry {} is nowhere", slot.id)));
                }
            });
        }
        Ok(pieces)
    }
}

impl Piece {
    pub(super) fn is_cached(&self) -> bool {
        matches!(self, Self::Cached(_))
    }

    /// Blocks while reading.
    pub(super) fn fetch(self) -> io::Result<proto::Entry> {
        match self {
            Self::Cached(entry) => Ok(entry),
            Self::OnDisk {
                id,
                file,
                path,
                place,
            } => {
                let start = place.offset - RECORD_HEADER_BYTES as u64;
                let mut record = vec![0; RECORD_HEADER_BYTES + place.length as usize];
                let found = read_exact_at(&*file, start, &mut record).and_then(|()| {
                    // What was good when it was written may have rotted since.
                    let found = find(place.segment, &Bytes::from(record), 0).ok_or_else(|| {
                        io::Error::new(io::ErrorKind::InvalidData, "the checksum does not match")
                    })?;
                    decode_entry(id.index, found.payload)
                });
                match found {
                    Ok((found, entry)) if found == id => Ok(entry),
                    Ok((found, _)) => Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{}: {found} where {id} was written", path.display()),
                    )),
                    Err(error) => Err(io::Error::new(
                        error.kind(),
                        format!(
                            "{}: entry {id} at byte {}: {error}",
                            path.display(),
                            place.offset
                        ),
                    )),
                }
            }
        }
    }
}
