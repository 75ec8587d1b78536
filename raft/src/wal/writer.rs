//! The one thread that writes: drain the queue, one write, one sync, then the answers in order. In a simulation, a task.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use trireme_proto::raft as proto;

use super::{
    Failure,
    log::{Log, Place, Segment},
    record::{
        Kind, LogId, MAX_PAYLOAD_BYTES, Owner, Record, SEGMENT_HEADER_BYTES, committed_after_cut,
        segment_header,
    },
};
use crate::{
    costs::{Costs, Stage},
    disk::{Disk, DiskFile, is_full},
    host::World,
};

/// One write is not made longer than this once it holds a request.
const MAX_WRITE_BYTES: usize = 4 << 20;
/// Zeros written behind the records that reach where no zeros are yet. What is only set aside costs every sync a commit of
/// the file system's metadata, what was written once does not.
const ZEROS_AHEAD_BYTES: u64 = 256 << 10;
/// A buffer of a write no larger than this is used again: fresh memory costs more than what is copied into it.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// On a disk with little room a smaller segment is set aside, down to this and what is written first.
const LEAST_SEGMENT_BYTES: u64 = 1 << 20;
/// A segment takes one part in so many of what is left at most: the snapshot that lets the log be shortened needs room, too.
const PART_OF_ROOM: u64 = 2;

/// Called on the writer's thread, in the order of the requests. Must not block.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub(super) struct Request {
    pub(super) records: Vec<Record>,
    /// Tickets of the entries among the records, in order.
    pub(super) tickets: Vec<u64>,
    /// Whether it must be on disk before the answer.
    pub(super) sync: bool,
    pub(super) done: Option<Done>,
    /// Permits of the queue to give back.
    pub(super) permits: u32,
}

/// What the next segment starts with.
#[derive(Debug, Default, Clone)]
pub(super) struct Marks {
    pub(super) vote: Option<proto::Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
}

impl Marks {
    pub(super) fn record(&self) -> Record {
        let marks = proto::LogMarks {
            vote: self.vote,
            committed: self.committed.map(Into::into),
            purged: self.purged.map(Into::into),
            last: self.last.map(Into::into),
        };
        Record {
            kind: Kind::Marks,
            id: self.last,
            payload: marks.encode_to_vec().into(),
        }
    }

    fn follow(&mut self, record: &Record) {
        match record.kind {
            Kind::Marks => {}
            Kind::Entry => self.last = record.id,
            // What was encoded a moment ago decodes.
            Kind::Vote => self.vote = proto::Vote::decode(&*record.payload).ok(),
            Kind::Committed => self.committed = record.id,
            Kind::Truncate => {
                self.committed = committed_after_cut(self.committed, record.id);
                self.last = record.id.or(self.purged);
            }
            Kind::Purge => {
                let index = |id: Option<LogId>| id.map(|id| id.index);
                if index(self.purged) < index(record.id) {
                    self.purged = record.id;
                }
                if index(self.last) <= index(self.purged) {
                    self.last = self.purged;
                }
            }
        }
    }
}

pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) costs: Arc<Costs>,
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) owner: Owner,
    pub(super) log: Arc<Mutex<Log>>,
    pub(super) failure: Arc<Failure>,
    pub(super) queue: Arc<Semaphore>,
    pub(super) marks: Marks,
    pub(super) segment: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Where the next record goes.
    pub(super) end: u64,
    /// Everything before is on disk.
    pub(super) synced: u64,
    /// Everything before was written once.
    pub(super) zeroed: u64,
    /// What is set aside for the segment; `segment_bytes` where there was room.
    pub(super) room: u64,
    /// Empty between writes.
    pub(super) buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = None;
        while let Some(first) = waiting.take().or_else(|| requests.blocking_recv()) {
            let mut batch = gather(first, &mut requests, &mut waiting);
            let written = self.write(&mut batch);
            let written = written.and_then(|written| self.settle(written));
            self.answer(batch, written);
        }
    }

    /// [`Writer::run`] as a task, for which a write and a sync take time each: whoever cuts the power may do so between.
    pub(super) async fn run_in(mut self, world: &dyn World, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = None;
        loop {
            let first = match waiting.take() {
                Some(first) => first,
                None => match requests.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let mut batch = gather(first, &mut requests, &mut waiting);
            tokio::time::sleep(world.disk_wait()).await;
            let written = self.write(&mut batch);
            if written.as_ref().is_ok_and(|written| written.sync) {
                tokio::time::sleep(world.disk_wait()).await;
            }
            let written = written.and_then(|written| self.settle(written));
            self.answer(batch, written);
        }
    }

    fn answer(&self, batch: Vec<Request>, written: Result<(), Fault>) {
        let written = written.map_err(|fault| match fault {
            Fault::Former(error) => error,
            Fault::New(doing, path, error) => {
                let what_to_do = match is_full(&error) {
                    true => {
                        "The disk is full and the reserve used up: free space on it or give it more, then start the node \
                         again; nothing acknowledged is lost"
                    }
                    false => "The log accepts nothing more; check the disk, then restart the node",
                };
                self.failure.set(format!(
                    "{doing} {} failed: {error}. {what_to_do}",
                    path.display()
                ))
            }
        });
        for request in batch {
            self.queue.add_permits(request.permits as usize);
            if let Some(done) = request.done {
                done(match &written {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                });
            }
        }
    }

    fn write(&mut self, batch: &mut [Request]) -> Result<Written, Fault> {
        self.failure.check().map_err(Fault::Former)?;
        let bytes: usize = batch.iter().map(size_of).sum();
        let records = self.end > SEGMENT_HEADER_BYTES as u64;
        if records && self.end + bytes as u64 > self.room {
            self.start_segment(bytes as u64)?;
        }
        let started = Instant::now();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.reserve(bytes);
        let mut places = Vec::new();
        let mut max_index = None;
        let mut purge = false;
        for request in batch.iter_mut() {
            let mut tickets = request.tickets.iter();
            for record in std::mem::take(&mut request.records) {
                let at = record.write(self.segment, self.synced as u32, &mut buffer);
                self.marks.follow(&record);
                purge |= record.kind == Kind::Purge;
                if record.kind == Kind::Entry
                    && let (Some(ticket), Some(LogId { index, .. })) = (tickets.next(), record.id)
                {
                    let place = Place {
                        segment: self.segment,
                        offset: self.end + at as u64,
                        length: record.payload.len() as u32,
                    };
                    places.push((index, *ticket, place));
                    max_index = max_index.max(Some(index));
                }
            }
        }
        let end = self.end + buffer.len() as u64;
        if end > self.zeroed {
            let zeroed = (end + ZEROS_AHEAD_BYTES).min(self.room.max(end));
            buffer.resize((zeroed - self.end) as usize, 0);
            self.zeroed = zeroed;
        }
        self.file
            .write_at(self.end, &buffer)
            .map_err(|error| Fault::New("writing to", self.path.clone(), error))?;
        self.end = end;
        if buffer.capacity() <= KEPT_BUFFER_BYTES {
            buffer.clear();
            self.buffer = buffer;
        }
        self.costs.add(Stage::LogWrite, started.elapsed());
        Ok(Written {
            places,
            max_index,
            purge,
            // A committed mark alone may be lost: it only spares a restarted node some waiting.
            sync: batch.iter().any(|request| request.sync),
        })
    }

    /// Makes durable what was written, and lets readers find it.
    fn settle(&mut self, written: Written) -> Result<(), Fault> {
        let Written {
            places,
            max_index,
            purge,
            sync,
        } = written;
        if sync {
            self.costs
                .timed(Stage::LogSync, || self.file.sync_data())
                .map_err(|error| Fault::New("syncing", self.path.clone(), error))?;
            self.synced = self.end;
        }
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            for (index, ticket, place) in places {
                log.placed(index, ticket, place);
            }
            if let Some(segment) = log.segments.get_mut(&self.segment) {
                segment.max_index = segment.max_index.max(max_index);
            }
            log.evict();
        }
        if purge {
            self.unlink_purged()?;
        }
        Ok(())
    }

    /// `first` bytes of records will be written first.
    fn start_segment(&mut self, first: u64) -> Result<(), Fault> {
        if self.synced < self.end {
            self.file
                .sync_data()
                .map_err(|error| Fault::New("syncing", self.path.clone(), error))?;
        }
        let number = self.segment + 1;
        let path = segment_path(&self.dir, number);
        let least = (LEAST_SEGMENT_BYTES + first).min(self.segment_bytes);
        // What cannot be seen is tried.
        let left = self
            .disk
            .space(&self.dir)
            .map_or(u64::MAX, |space| space.available);
        let mut room = (left / PART_OF_ROOM).clamp(least, self.segment_bytes);
        let (file, end) = loop {
            let created = create_segment(
                &*self.disk,
                &self.dir,
                &path,
                number,
                self.end,
                room,
                &self.marks,
                &self.owner,
            );
            match created {
                Ok(created) => break created,
                // Somebody else was faster.
                Err(error) if is_full(&error) && room > least => room = least,
                Err(error) => return Err(Fault::New("creating", path, error)),
            }
        };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = log.segments.get_mut(&self.segment) {
            former.end = Some(self.end);
        }
        log.segments.insert(
            number,
            Segment {
                path: path.clone(),
                file: Arc::clone(&file),
                max_index: None,
                end: None,
            },
        );
        drop(log);
        self.segment = number;
        self.path = path;
        self.file = file;
        self.end = end;
        self.synced = end;
        self.zeroed = end;
        self.room = room;
        Ok(())
    }

    /// Oldest first, so that what is left always starts with the marks of what went.
    fn unlink_purged(&mut self) -> Result<(), Fault> {
        let Some(purged) = self.marks.purged else {
            return Ok(());
        };
        let gone: Vec<Segment> = {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let mut gone = Vec::new();
            while let Some(first) = log.segments.first_entry() {
                let unneeded = first.get().max_index.is_none_or(|max| max <= purged.index);
                if *first.key() == self.segment || !unneeded {
                    break;
                }
                gone.push(first.remove());
            }
            gone
        };
        for segment in &gone {
            // One by one: a gap between the segments that are left would look like a loss.
            self.disk
                .unlink(&segment.path)
                .and_then(|()| self.disk.sync_dir(&self.dir))
                .map_err(|error| Fault::New("removing", segment.path.clone(), error))?;
        }
        Ok(())
    }
}

/// Why a batch is not on disk.
enum Fault {
    /// The log failed before.
    Former(io::Error),
    New(&'static str, PathBuf, io::Error),
}

/// A batch in the file, perhaps not on the disk.
struct Written {
    places: Vec<(u64, u64, Place)>,
    max_index: Option<u64>,
    purge: bool,
    sync: bool,
}

/// What one write takes along; what is too much goes to `waiting`.
fn gather(
    first: Request,
    requests: &mut mpsc::Receiver<Request>,
    waiting: &mut Option<Request>,
) -> Vec<Request> {
    let mut bytes = size_of(&first);
    let mut batch = vec![first];
    while let Ok(next) = requests.try_recv() {
        bytes += size_of(&next);
        if bytes > MAX_WRITE_BYTES {
            *waiting = Some(next);
            break;
        }
        batch.push(next);
    }
    batch
}

fn size_of(request: &Request) -> usize {
    request.records.iter().map(Record::size).sum()
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.wal"))
}

/// Creates a segment that holds only `marks`; answers where its next record goes.
#[allow(
    clippy::too_many_arguments,
    reason = "each says another thing about one file"
)]
pub(super) fn create_segment(
    disk: &dyn Disk,
    dir: &Path,
    path: &Path,
    number: u64,
    former_end: u64,
    bytes: u64,
    marks: &Marks,
    owner: &Owner,
) -> io::Result<(Arc<dyn DiskFile>, u64)> {
    let file = disk.create(path, bytes)?;
    let mut start = segment_header(number, former_end, owner);
    marks.record().write(number, 0, &mut start);
    let written = file
        .write_at(0, &start)
        .and_then(|()| file.sync_data())
        .and_then(|()| disk.sync_dir(dir));
    if let Err(error) = written {
        // Its name would stand in the way of the next attempt; at a start it is taken for what it is.
        if let Err(why) = disk.unlink(path) {
            tracing::warn!(%why, path = %path.display(), "a segment that was not begun stays");
        }
        return Err(error);
    }
    Ok((file, start.len() as u64))
}

const _: () = assert!(MAX_PAYLOAD_BYTES < u32::MAX as usize);
