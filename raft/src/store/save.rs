//! Saving state and archive as one file while everything goes on.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use trireme_proto::raft as proto;

use super::{Inner, Started, Store};
use crate::{archive::SavedRows, offline::write_saved, view::View};

/// Pieces of a file that wait for whoever takes them.
const PIECES_AHEAD: usize = 4;

/// How long a piece may wait for whoever takes it: nobody else can save meanwhile.
const TAKING: Duration = Duration::from_secs(60);
/// How long what is on its way may take to be applied.
const APPLYING: Duration = Duration::from_secs(10);

/// Why no snapshot is saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("{0}")]
    Refused(String),
    #[error("the archive cannot be read: {0}")]
    Archive(io::Error),
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

/// A saved snapshot on its way.
#[derive(Debug)]
pub struct Saving {
    pub cluster_id: String,
    pub node_id: u64,
    /// Log index of the state in it.
    pub revision: u64,
    /// A quorum confirmed that everything acknowledged before the call is in it.
    pub current: bool,
    /// The file's bytes, in order; it is whole once they end without an error.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Store {
    /// The state at one revision and the archive as it was then, for [`crate::offline::restore`]. Works on any node; of
    /// one that is cut off it is what that node had. One at a time.
    pub async fn save_snapshot(&self) -> Result<Saving, SaveError> {
        // Best effort: without a quorum a snapshot is wanted all the more.
        let current = self.linearize().await.is_ok();
        let inner = Arc::clone(&self.inner);
        // On the ring's runtime: this future may be dropped.
        let saving = self
            .inner
            .runtime
            .spawn(async move { inner.save(current).await });
        match saving.await {
            Ok(saving) => saving,
            Err(_) => Err(SaveError::Stopped(self.inner.stop_reason())),
        }
    }
}

impl Inner {
    async fn save(&self, current: bool) -> Result<Saving, SaveError> {
        let refused = |reason: &str| Err(SaveError::Refused(reason.to_owned()));
        if let Some(fatal) = self.fatal.get() {
            return Err(SaveError::Stopped(fatal.message));
        }
        let Some(started) = self.started() else {
            return refused("this node belongs to no cluster");
        };
        if self.archive.missing().is_some() {
            return refused(
                "this node's own archive is incomplete: ask another node, or wait until it is filled from a peer",
            );
        }
        let archive = Arc::clone(&self.archive);
        let begun = self.host.blocking(move || archive.begin_save()).await;
        let Some(rows) = begun.map_err(SaveError::Archive)? else {
            return refused(
                "another snapshot is being saved on this node: wait for it, or ask another node",
            );
        };
        // What was handed to the archive before is applied a moment later.
        let Ok(view) = timeout(APPLYING, self.published.at_least(rows.floor)).await else {
            return refused(
                "this node does not apply what it has: look at its log, or ask another node",
            );
        };
        // A snapshot that was installed meanwhile may have come without rows.
        if self.archive.missing().is_some() {
            return refused("this node's archive became incomplete meanwhile: ask another node");
        }
        self.archive
            .checkpoint(view.revision)
            .await
            .map_err(SaveError::Archive)?;
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        let saving = Saving {
            cluster_id: started.cluster_id.clone(),
            node_id: self.node_id,
            revision: view.revision,
            current,
            pieces: receiver,
        };
        let header = self.saved_header(started, &view);
        tokio::task::spawn_blocking(move || send(header, &view, rows, &pieces));
        Ok(saving)
    }

    fn saved_header(&self, started: &Started, view: &View) -> proto::SnapshotHeader {
        proto::SnapshotHeader {
            cluster_id: started.cluster_id.clone(),
            meta: Some(proto::SnapshotMeta {
                last_log_id: view.applied.map(Into::into),
                last_membership: Some((*view.membership).clone()),
                ..proto::SnapshotMeta::default()
            }),
            used_node_ids: view.used_node_ids.iter().copied().collect(),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            created_ms: self.host.wall_ms(),
            feature_level: view.state.feature_level(),
            node_id: self.node_id,
            ..proto::SnapshotHeader::default()
        }
    }
}

/// Blocks while nobody takes the pieces.
fn send(
    header: proto::SnapshotHeader,
    view: &View,
    mut rows: SavedRows,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
) {
    let handle = Handle::current();
    let give = |piece| {
        let given = handle.block_on(async { timeout(TAKING, pieces.send(piece)).await });
        match given {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "nobody takes the snapshot any more",
            )),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the snapshot's next piece is not taken",
            )),
        }
    };
    let written = write_saved(
        header,
        &view.state,
        || rows.next(view.revision),
        |piece| give(Ok(piece)),
    );
    if let Err(error) = written {
        tracing::warn!(%error, "a snapshot was not saved to its end");
        // Whoever went away wants no answer.
        let _ = give(Err(error));
    }
}
