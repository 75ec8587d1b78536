//! Another state for a node whose own differed from the majority's.
//!
//! Such a node stopped and left `DIVERGED` in its data directory. At the next start, before consensus is started, its
//! snapshots are set aside, and a peer that was part of the majority gives a snapshot that reaches at least to the audit
//! which found the difference; consensus then starts from it as from any other.
//!
//! Why this is safe: what a node promised is its vote and the entries it acknowledged. Both lie in its log, which stays.
//! Only the state, which follows from the log, is made anew. The snapshot ends at an entry S that its giver has applied, so
//! S is committed. If the log has S, it goes on behind it as before. If it ends before S, or has another entry in the
//! place of S, then what it has up to there is committed (and in the snapshot), or never was and never will be; it goes,
//! exactly as when a leader installs a snapshot on a follower. The last log id never becomes smaller than that of
//! anything that was committed. S is never before the point up to which the log was purged, so nothing is missing between.
//! While no peer gives a snapshot the node does not take part; it cannot vote, which is no worse than being down.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future::ready, stream, stream::BoxStream};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trireme_proto::raft as proto;

use super::{Inner, OpenError, Started, compact::Wish};
use crate::{
    consensus::{SNAPSHOT_CHUNKS_AHEAD, Sink, begin_receiving, feed_snapshot},
    directory::Diverged,
    host::Host,
    snapshot::{SnapshotFile, Snapshots},
    wal::{LogId, Wal},
};

/// How long peers are asked before the start is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between rounds over all peers.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a peer may take to write a snapshot.
const WRITING: Duration = Duration::from_secs(60);

impl Inner {
    /// Replaces snapshots and archive by a peer's, and cuts the log where it does not go on from there.
    pub(super) async fn resync(
        &self,
        marker: &Diverged,
        cluster_id: &str,
        wal: &Wal,
        snapshots: &Snapshots,
    ) -> Result<(), OpenError> {
        let purged = wal.state().purged.map_or(0, |purged| purged.index);
        let at_least = marker.audit.max(purged);
        tracing::warn!(
            audit = marker.audit,
            at_least,
            "this node's state differed from the majority's: fetching another"
        );
        for path in snapshots.list()? {
            snapshots.set_aside(&path)?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut last = "DIVERGED names no peer".to_owned();
        let file = 'fetched: loop {
            for peer in &marker.peers {
                match self.fetch(peer, cluster_id, at_least, snapshots).await {
                    Ok(file) => break 'fetched file,
                    Err(why) => {
                        tracing::warn!(why, peer, "no snapshot was fetched");
                        last = format!("{peer}: {why}");
                    }
                }
            }
            if Instant::now() + PAUSE > deadline {
                return Err(OpenError::Resync {
                    waited: PATIENCE,
                    last,
                });
            }
            sleep(PAUSE).await;
        };
        if let Some(covered) = file.last() {
            let cut = cut_what_differs(wal, covered).await;
            cut.map_err(|error| OpenError::Consensus(format!("the log cannot be cut: {error}")))?;
        }
        Ok(())
    }

    async fn fetch(
        &self,
        peer: &str,
        cluster_id: &str,
        at_least: u64,
        snapshots: &Snapshots,
    ) -> Result<SnapshotFile, String> {
        let host = &self.host;
        let client = self.dialer.shared(peer, None);
        let mut client = client.map_err(|error| error.to_string())?;
        let request = proto::FetchSnapshotRequest {
            cluster_id: cluster_id.to_owned(),
            node_id: self.node_id,
            at_least,
        };
        let late = |_| "it does not answer".to_owned();
        let said = |status: Status| status.message().to_owned();
        let opening = timeout(WRITING, client.fetch_snapshot(request));
        let mut chunks = opening.await.map_err(late)?.map_err(said)?.into_inner();
        let limit = self.timing.snapshot_chunk;
        let first = timeout(limit, chunks.message()).await.map_err(late)?;
        let first = first.map_err(said)?.ok_or("it sent nothing")?;
        let meta = first.meta.ok_or("it sent a snapshot without its meta")?;
        let (parts, archive) = (snapshots.clone(), Arc::clone(&self.archive));
        let whole = !first.without_archive;
        let (part, replacement) = blocking(host, move || {
            begin_receiving(&parts, &archive, whole).map_err(|error| error.to_string())
        })
        .await?;
        let sink = Sink::new(&part, replacement.as_ref()).map_err(|error| error.to_string())?;
        let mut at: u64 = 0;
        while let Some(chunk) = timeout(limit, chunks.message())
            .await
            .map_err(late)?
            .map_err(said)?
        {
            let (sink, offset) = (sink.clone(), at);
            at = at.saturating_add(chunk.hot.len() as u64);
            if at > meta.hot_bytes {
                return Err("it sent more than it had announced".to_owned());
            }
            blocking(host, move || {
                let kept = sink.keep(offset, chunk);
                kept.map_err(|error| format!("what came cannot be written: {error}"))
            })
            .await?;
        }
        if at != meta.hot_bytes {
            return Err(format!("{at} of {} bytes came", meta.hot_bytes));
        }
        let (parts, id) = (snapshots.clone(), cluster_id.to_owned());
        let (part, last) = blocking(host, move || {
            let file = parts.open_file(&part.path).and_then(|file| {
                file.load()?;
                Ok(file)
            });
            let file = file.map_err(|error| format!("it came damaged: {error}"))?;
            if file.header().cluster_id != id {
                return Err("it is another cluster's".to_owned());
            }
            match file.last() {
                Some(last) if last.index >= at_least => Ok((part, last)),
                _ => Err(format!("it does not reach entry {at_least}")),
            }
        })
        .await?;
        let archived = self.archive.install(replacement, last.index).await;
        archived.map_err(|error| error.to_string())?;
        let parts = snapshots.clone();
        blocking(host, move || {
            let finished = parts.finish(&part, Some(last));
            finished.map_err(|error| error.to_string())
        })
        .await
    }

    /// A snapshot that covers `at_least`, with the archive, as a peer's own state; a new one is written if need be.
    pub(super) async fn give_snapshot(
        &self,
        started: &Started,
        at_least: u64,
    ) -> Result<BoxStream<'static, Result<proto::SnapshotChunk, Status>>, String> {
        let reaches = |file: &SnapshotFile| file.last().is_some_and(|last| last.index >= at_least);
        let mut file = self.newest_snapshot(started).await?.filter(reaches);
        if file.is_none() {
            self.compact(started, Wish::Asked).await?;
            file = self.newest_snapshot(started).await?.filter(reaches);
        }
        let file = file.ok_or_else(|| format!("this node has not applied entry {at_least} yet"))?;
        let (chunks, sending) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        let (failed, failure) = oneshot::channel();
        let feeding = feed_snapshot(
            chunks,
            proto::SnapshotChunk {
                cluster_id: started.cluster_id.clone(),
                ..proto::SnapshotChunk::default()
            },
            file,
            Arc::clone(&self.archive),
            self.fatal.clone(),
            self.timing.snapshot_chunk,
        );
        tokio::spawn(async move {
            if let Err(status) = feeding.await {
                // A peer that went away needs no answer.
                let _ = failed.send(status);
            }
        });
        let end = stream::once(failure).filter_map(|status| ready(status.ok().map(Err)));
        Ok(ReceiverStream::new(sending).map(Ok).chain(end).boxed())
    }

    async fn newest_snapshot(&self, started: &Started) -> Result<Option<SnapshotFile>, String> {
        let (host, snapshots) = (&self.host, started.snapshots.clone());
        blocking(host, move || {
            let paths = snapshots.list().map_err(|error| error.to_string())?;
            let newest = paths.first().map(|path| snapshots.open_file(path));
            newest.transpose().map_err(|error| error.to_string())
        })
        .await
    }
}

/// Ends the log at `covered`, which is committed, if it has another entry in its place: what follows that one never was
/// committed. Where the log ends before it, consensus itself lets it begin there.
async fn cut_what_differs(wal: &Wal, covered: LogId) -> std::io::Result<()> {
    let differs = wal.id_at(covered.index).is_some_and(|own| own != covered);
    if !differs {
        return Ok(());
    }
    let before = covered.index.checked_sub(1).and_then(|at| wal.id_at(at));
    wal.truncate_after(before.or(wal.state().purged)).await?;
    wal.purge(covered).await?;
    // Both are only queued. A vote is on the disk when it is answered, and so is what came before it.
    match wal.state().vote {
        Some(vote) => wal.save_vote(vote).await,
        None => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    host: &Host,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = host.blocking(work).await;
    done.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        disk::MemoryDisk,
        wal::{Owner, WalOptions},
    };

    fn id(term: u64, index: u64) -> LogId {
        LogId {
            term,
            node_id: 1,
            index,
        }
    }

    fn open(disk: &MemoryDisk) -> Wal {
        let owner = Owner {
            cluster_id: "c".to_owned(),
            node_id: 1,
        };
        let options = WalOptions {
            segment_bytes: 4096,
            ..WalOptions::default()
        };
        Wal::open(Arc::new(disk.clone()), Path::new("/wal"), owner, &options).unwrap()
    }

    /// What a log holds after the cut, and after a restart on it: purged, last.
    async fn cut(covered: LogId) -> (Option<LogId>, Option<LogId>) {
        let disk = MemoryDisk::new();
        let wal = open(&disk);
        let vote = proto::Vote {
            leader: Some(proto::LeaderId {
                term: 9,
                node_id: 1,
            }),
            committed: true,
        };
        wal.save_vote(vote).await.unwrap();
        let entries = (1..=5).map(|index| proto::Entry {
            log_id: Some(id(1, index).into()),
            payload: Some(proto::entry::Payload::Blank(proto::Blank {})),
        });
        wal.append(entries.collect(), Box::new(|_| {}))
            .await
            .unwrap();
        cut_what_differs(&wal, covered).await.unwrap();
        let before = wal.state();
        wal.close();
        drop(wal);
        let after = open(&disk.after_power_cut(|| false)).state();
        assert_eq!(after.vote, Some(vote), "what was promised stays");
        assert_eq!((after.purged, after.last), (before.purged, before.last));
        (after.purged, after.last)
    }

    #[tokio::test]
    async fn a_log_is_cut_only_where_it_differs_from_what_is_committed() {
        assert_eq!(cut(id(1, 3)).await, (None, Some(id(1, 5))), "it goes on");
        assert_eq!(
            cut(id(2, 8)).await,
            (None, Some(id(1, 5))),
            "it ends before"
        );
        let covered = id(2, 4);
        assert_eq!(cut(covered).await, (Some(covered), Some(covered)));
        let covered = id(2, 1);
        assert_eq!(cut(covered).await, (Some(covered), Some(covered)));
    }
}
