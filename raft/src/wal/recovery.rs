//! Reading the log back: what a crash may have left is repaired, everything else is an error.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::raft as proto;

use super::{
    WalError,
    log::{Log, Place, Segment},
    record::{
        Found, HeaderError, Kind, LogId, Owner, SEGMENT_HEADER_BYTES, committed_after_cut,
        decode_entry, find, later_write, read_segment_header,
    },
    writer::{Marks, create_segment, segment_path},
};
use crate::disk::{Disk, DiskFile, read_exact_at};

/// Zeros are skipped in pieces of this size.
const BLOCK: usize = 4096;

/// The log, and where writing goes on.
pub(super) struct Recovered {
    pub(super) log: Log,
    pub(super) segment: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) end: u64,
    /// What is set aside for it.
    pub(super) room: u64,
    pub(super) marks: Marks,
    /// Bytes of records found.
    pub(super) bytes: u64,
}

struct Raw {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: u64,
    cache_bytes: usize,
    owner: &Owner,
) -> Result<Recovered, WalError> {
    let mut numbers = segment_numbers(disk, dir)?;
    drop_unborn(disk, dir, &mut numbers)?;
    let mut log = Log::new(cache_bytes);
    let Some(last) = numbers.last().copied() else {
        return fresh(disk, dir, segment_bytes, log, owner);
    };
    let mut replay = Replay::default();
    let mut former_end = None;
    let mut found_bytes = 0;
    for (position, number) in numbers.iter().copied().enumerate() {
        let path = segment_path(dir, number);
        let file = disk.open(&path).map_err(WalError::io("opening", &path))?;
        let raw = Raw {
            number,
            path: path.clone(),
            file: Arc::clone(&file),
        };
        let bytes = read_all(&raw)?;
        let header = read_segment_header(number, &bytes).map_err(|error| match error {
            HeaderError::Format(format) => WalError::Format {
                file: path.clone(),
                format,
            },
            HeaderError::Broken => raw.damaged(0, "the segment's header is broken".to_owned()),
        })?;
        if !owner.wrote(&header) {
            return Err(WalError::Foreign {
                file: path,
                found: header.owner,
                expected: owner.clone(),
            });
        }
        let claimed = header.former_end;
        if let Some(end) = former_end
            && claimed != end
        {
            return Err(raw.damaged(
                0,
                format!("the former segment ends at byte {end}, not at byte {claimed}"),
            ));
        }
        // The header of the next segment says where this one's records end.
        let end = match numbers.get(position + 1) {
            Some(next) => Some(claimed_end(disk, dir, *next)?),
            None => None,
        };
        log.segments.insert(
            number,
            Segment {
                path: path.clone(),
                file: Arc::clone(&file),
                max_index: None,
                end: None,
            },
        );
        let reached = replay.segment(&raw, &bytes, end, &mut log)?;
        found_bytes += (reached - SEGMENT_HEADER_BYTES) as u64;
        if number != last
            && let Some(segment) = log.segments.get_mut(&number)
        {
            segment.end = Some(reached as u64);
        }
        former_end = Some(reached as u64);
        if number == last {
            let length = file.length().map_err(WalError::io("reading", &path))?;
            let room = length.min(segment_bytes);
            // Leftovers of a torn write must not come back behind what is written next.
            if bytes[reached..].chunks(BLOCK).any(|block| !is_zero(block)) {
                tracing::warn!(file = %path.display(), at = reached, "cutting the torn end of the log");
                file.cut(reached as u64, room)
                    .map_err(WalError::io("cutting", &path))?;
            }
            // What a killed process wrote but did not sync was read all the same: make it true.
            file.sync_data()
                .and_then(|()| disk.sync_dir(dir))
                .map_err(WalError::io("syncing", &path))?;
            let marks = replay.finish(&raw, &mut log)?;
            return Ok(Recovered {
                log,
                segment: number,
                path,
                file,
                end: reached as u64,
                room,
                marks,
                bytes: found_bytes,
            });
        }
    }
    // The loop ends with the last segment; there is at least one.
    fresh(disk, dir, segment_bytes, Log::new(cache_bytes), owner)
}

fn fresh(
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: u64,
    mut log: Log,
    owner: &Owner,
) -> Result<Recovered, WalError> {
    let (number, marks) = (1, Marks::default());
    let path = segment_path(dir, number);
    let (file, end) = create_segment(disk, dir, &path, number, 0, segment_bytes, &marks, owner)
        .map_err(WalError::io("creating", &path))?;
    log.segments.insert(
        number,
        Segment {
            path: path.clone(),
            file: Arc::clone(&file),
            max_index: None,
            end: None,
        },
    );
    Ok(Recovered {
        log,
        segment: number,
        path,
        file,
        end,
        room: segment_bytes,
        marks,
        bytes: 0,
    })
}

fn segment_numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, WalError> {
    let names = disk.list(dir).map_err(WalError::io("listing", dir))?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".wal")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(WalError::Damaged {
                file: segment_path(dir, pair[0] + 1),
                offset: 0,
                what: "the segment is missing, though older and newer ones are there".to_owned(),
            });
        }
    }
    Ok(numbers)
}

/// Removes a newest segment whose creation was cut short: nothing was ever written to it but its start.
fn drop_unborn(disk: &dyn Disk, dir: &Path, numbers: &mut Vec<u64>) -> Result<(), WalError> {
    let Some(number) = numbers.last().copied() else {
        return Ok(());
    };
    let path = segment_path(dir, number);
    let file = disk.open(&path).map_err(WalError::io("opening", &path))?;
    let raw = Raw {
        number,
        path: path.clone(),
        file,
    };
    let bytes = read_all(&raw)?;
    let broken = read_segment_header(number, &bytes) == Err(HeaderError::Broken);
    let marks = find(number, &bytes, SEGMENT_HEADER_BYTES);
    if !broken && marks.is_some() {
        return Ok(());
    }
    if later_write(number, &bytes, 0).is_some() {
        return Err(raw.damaged(0, "the segment's start is broken".to_owned()));
    }
    tracing::warn!(file = %path.display(), "removing a log segment whose creation was cut short");
    disk.unlink(&path)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(WalError::io("removing", &path))?;
    numbers.pop();
    Ok(())
}

/// Where the segment before `next` ends, by the header of `next`.
fn claimed_end(disk: &dyn Disk, dir: &Path, next: u64) -> Result<usize, WalError> {
    let path = segment_path(dir, next);
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let file = disk.open(&path).map_err(WalError::io("opening", &path))?;
    let damaged = |what: &str| WalError::Damaged {
        file: path.clone(),
        offset: 0,
        what: what.to_owned(),
    };
    match read_exact_at(&*file, 0, &mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(damaged("the segment's header is cut off"));
        }
        other => other.map_err(WalError::io("reading", &path))?,
    }
    let header = read_segment_header(next, &header)
        .map_err(|_| damaged("the segment's header is broken"))?;
    usize::try_from(header.former_end).map_err(|_| damaged("the segment's header is broken"))
}

fn read_all(raw: &Raw) -> Result<Bytes, WalError> {
    let reading = || {
        let length = usize::try_from(raw.file.length()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        read_exact_at(&*raw.file, 0, &mut bytes)?;
        // Zeros set aside are not worth keeping.
        let used = bytes
            .chunks(BLOCK)
            .rposition(|block| !is_zero(block))
            .map_or(0, |block| (block + 1) * BLOCK);
        bytes.truncate(used);
        Ok(Bytes::from(bytes))
    };
    reading().map_err(WalError::io("reading", &raw.path))
}

fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    *block == ZEROS[..block.len()]
}

impl Raw {
    fn damaged(&self, offset: usize, what: String) -> WalError {
        WalError::Damaged {
            file: self.path.clone(),
            offset: offset as u64,
            what,
        }
    }
}

/// The log's state so far.
#[derive(Default)]
struct Replay {
    vote: Option<proto::Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl Replay {
    /// Answers where the records end. `end` is known for all segments but the newest.
    fn segment(
        &mut self,
        raw: &Raw,
        bytes: &Bytes,
        end: Option<usize>,
        log: &mut Log,
    ) -> Result<usize, WalError> {
        let mut at = SEGMENT_HEADER_BYTES;
        let mut first = true;
        loop {
            if end == Some(at) {
                return Ok(at);
            }
            let Some(found) = find(raw.number, bytes, at) else {
                return match end {
                    Some(end) => Err(raw.damaged(
                        at,
                        format!("no valid record, though the records go on to byte {end}"),
                    )),
                    None => match later_write(raw.number, bytes, at) {
                        Some(later) => Err(raw.damaged(
                            at,
                            format!(
                                "no valid record, though the one at byte {later} was written after this place was safe"
                            ),
                        )),
                        None => Ok(at),
                    },
                };
            };
            if end.is_some_and(|end| found.next > end) {
                return Err(raw.damaged(at, "the record overlaps the segment's end".to_owned()));
            }
            if first != (found.kind == Kind::Marks) {
                return Err(raw.damaged(
                    at,
                    "marks belong to the start of a segment, and only there".to_owned(),
                ));
            }
            first = false;
            let next = found.next;
            self.record(raw, at, found, log)?;
            at = next;
        }
    }

    fn record(
        &mut self,
        raw: &Raw,
        at: usize,
        found: Found,
        log: &mut Log,
    ) -> Result<(), WalError> {
        let undecodable =
            |error: &dyn std::fmt::Display| raw.damaged(at, format!("unreadable record: {error}"));
        let mark = |payload: &Bytes| -> Result<Option<LogId>, WalError> {
            if payload.is_empty() {
                return Ok(None);
            }
            let id = proto::LogId::decode(payload.clone()).map_err(|error| undecodable(&error))?;
            Ok(Some(LogId::from(&id)))
        };
        match found.kind {
            Kind::Marks => {
                let marks =
                    proto::LogMarks::decode(found.payload).map_err(|error| undecodable(&error))?;
                self.vote = marks.vote;
                self.committed = marks.committed.as_ref().map(LogId::from);
                self.purged = marks.purged.as_ref().map(LogId::from);
                // Entries of segments that are gone: the purge mark that follows covers them.
                let last = marks.last.as_ref().map(LogId::from);
                if log.first().is_none() {
                    log.last = last;
                } else if log.last != last {
                    return Err(raw.damaged(
                        at,
                        format!(
                            "the former segments end with {}, not with {}",
                            shown(log.last),
                            shown(last)
                        ),
                    ));
                }
            }
            Kind::Entry => {
                let place = Place {
                    segment: raw.number,
                    offset: found.payload_at as u64,
                    length: found.payload.len() as u32,
                };
                let bytes = found.payload.len();
                let (id, entry) = decode_entry(found.index, found.payload)
                    .map_err(|error| undecodable(&error))?;
                log.push(id, entry, bytes, Some(place))
                    .map_err(|error| undecodable(&error))?;
                if let Some(segment) = log.segments.get_mut(&raw.number) {
                    segment.max_index = segment.max_index.max(Some(found.index));
                }
            }
            Kind::Vote => {
                let vote =
                    proto::Vote::decode(found.payload).map_err(|error| undecodable(&error))?;
                self.vote = Some(vote);
            }
            Kind::Committed => self.committed = mark(&found.payload)?,
            Kind::Truncate => {
                let after = mark(&found.payload)?;
                self.committed = committed_after_cut(self.committed, after);
                log.purged = self.purged;
                log.truncate(after);
            }
            Kind::Purge => {
                if let Some(upto) = mark(&found.payload)? {
                    log.purge(upto);
                    self.purged = log.purged;
                }
            }
        }
        log.purged = self.purged;
        Ok(())
    }

    fn finish(self, raw: &Raw, log: &mut Log) -> Result<Marks, WalError> {
        log.vote = self.vote;
        log.purged = self.purged;
        if let (Some(first), Some(purged)) = (log.first(), self.purged)
            && first > purged.index + 1
        {
            return Err(raw.damaged(
                0,
                format!("entries {}..{first} are missing", purged.index + 1),
            ));
        }
        if let Some(purged) = self.purged {
            log.purge(purged);
        }
        if log.first().is_none() && log.last != self.purged {
            return Err(raw.damaged(
                0,
                format!(
                    "the log should end with {}, but its entries are missing",
                    shown(log.last)
                ),
            ));
        }
        // A mark beyond the log says nothing about the entries that are left.
        log.committed = self
            .committed
            .filter(|committed| log.last.is_some_and(|last| committed.index <= last.index));
        Ok(Marks {
            vote: log.vote,
            committed: log.committed,
            purged: log.purged,
            last: log.last,
        })
    }
}

fn shown(id: Option<LogId>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
}
