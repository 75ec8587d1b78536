//! The WAL as openraft's log store.

use std::{fmt, io, ops::RangeBounds, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use std::ops::Bound;

use super::types::{
    Entry, LogId, Types, Vote, entry_from_proto, entry_to_proto, log_id_from_wal, log_id_to_wal,
    vote_from_proto, vote_to_proto,
};
use crate::{
    fatal::{FatalCell, FatalKind},
    wal::Wal,
};

/// Entries of one replication request.
const MAX_READ_BYTES: usize = 4 << 20;
/// Entries read ahead of apply.
const APPLY_READ_BYTES: usize = 4 << 20;

/// Shared by the appender and any number of readers.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    pub(crate) wal: Arc<Wal>,
    pub(crate) fatal: FatalCell,
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl LogStore {
    async fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let read = self.wal.read(start..end, max_bytes).await;
        let entries = read.and_then(|entries| entries.into_iter().map(entry_from_proto).collect());
        entries.inspect_err(|error| {
            let (kind, what) = match error.kind() {
                io::ErrorKind::InvalidData => (FatalKind::Corruption, "is damaged"),
                _ => (FatalKind::Disk, "cannot be read"),
            };
            self.fatal.set(
                kind,
                format!(
                    "the log {what}: {error}. Keep the data directory for inspection, and replace the node under a new id \
                     with `trireme cluster replace`, or restore its data directory from a backup"
                ),
            );
        })
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, MAX_READ_BYTES).await
    }

    /// In pieces: a node that catches up applies a long range.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let store = self.clone();
        stream::unfold(Some(start), move |next| {
            let store = store.clone();
            async move {
                let start = next.filter(|start| *start < end)?;
                match store.read(start, end, APPLY_READ_BYTES).await {
                    Ok(entries) => {
                        let next = entries.last().map(|entry| entry.log_id.index + 1);
                        let items: Vec<_> = entries.into_iter().map(Ok).collect();
                        Some((stream::iter(items), next))
                    }
                    Err(error) => Some((stream::iter(vec![Err(error)]), None)),
                }
            }
        })
        .flatten()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.wal.state().vote.as_ref().map(vote_from_proto))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let state = self.wal.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id_from_wal),
            last_log_id: state.last.map(log_id_from_wal),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.wal.save_vote(vote_to_proto(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.wal
            .save_committed(committed.as_ref().map(log_id_to_wal))
            .await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.state().committed.map(log_id_from_wal))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(entry_to_proto).collect();
        let done = Box::new(move |written| callback.io_completed(written));
        self.wal.append(entries, done).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.wal
            .truncate_after(last_log_id.as_ref().map(log_id_to_wal))
            .await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.wal.purge(log_id_to_wal(&log_id)).await
    }
}
