//! What peers ask of this node's consensus.

use std::{
    io,
    pin::pin,
    sync::{Arc, OnceLock},
};

use futures::{StreamExt as _, future::ready};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use trireme_proto::raft as proto;
use trireme_state::ArchiveOp;

use super::{
    ring::Ring,
    state_machine::{Received, SnapshotData},
    types::{
        Types, entry_from_proto, log_id_from_proto, log_id_to_proto, log_id_to_wal,
        snapshot_meta_from_proto, vote_from_proto, vote_to_proto,
    },
};

use crate::{
    archive::{Archive, ArchiveStore, Replacement},
    disk::DiskFile,
    snapshot::{Part, Snapshots},
    store::too_new,
};

/// Answers on one append stream that wait for the wire.
const ANSWERS_AHEAD: usize = 64;

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus has stopped here: {error}"))
}

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Where a snapshot is received aside: its file and, if rows come with it, a store for them. Blocks.
pub(crate) fn begin_receiving(
    snapshots: &Snapshots,
    archive: &Archive,
    whole: bool,
) -> io::Result<(Part, Option<Replacement>)> {
    let replacement = whole.then(|| archive.begin_replacement()).transpose()?;
    Ok((snapshots.new_part()?, replacement))
}

/// Takes a snapshot's messages.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    file: Arc<dyn DiskFile>,
    store: Option<Arc<dyn ArchiveStore>>,
}

impl Sink {
    pub(crate) fn new(part: &Part, replacement: Option<&Replacement>) -> io::Result<Self> {
        let store = replacement.map(|replacement| replacement.store().cloned());
        Ok(Self {
            file: Arc::clone(&part.file),
            store: store.transpose()?,
        })
    }

    /// Writes one message, whose hot bytes begin at `offset`. Blocks.
    pub(crate) fn keep(&self, offset: u64, chunk: proto::SnapshotChunk) -> io::Result<()> {
        self.file.write_at(offset, &chunk.hot)?;
        let rows = chunk.archive.into_iter().map(|row| ArchiveOp::Put {
            key: row.key,
            value: row.value,
        });
        let ops: Vec<ArchiveOp> = rows.collect();
        match &self.store {
            Some(store) if !ops.is_empty() => store.write(&ops, 0),
            _ => Ok(()),
        }
    }
}

/// Refuses what is meant for another cluster or node: an address may have been given to somebody else.
fn admit(me: u64, my_cluster: &str, cluster_id: &str, target: u64) -> Result<(), Status> {
    if cluster_id != my_cluster {
        return Err(Status::failed_precondition(format!(
            "this node belongs to cluster {my_cluster}, the request is for cluster {cluster_id}"
        )));
    }
    if target != me {
        return Err(Status::failed_precondition(format!(
            "this is node {me}, the request is for node {target}"
        )));
    }
    Ok(())
}

fn append_request(request: proto::AppendRequest) -> Result<AppendEntriesRequest<Types>, Status> {
    Ok(AppendEntriesRequest {
        vote: vote_from_proto(&request.vote.unwrap_or_default()),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_from_proto),
        entries: request
            .entries
            .into_iter()
            .map(entry_from_proto)
            .collect::<io::Result<_>>()
            .map_err(malformed)?,
        leader_commit: request.leader_commit.as_ref().map(log_id_from_proto),
    })
}

fn append_response(result: StreamAppendResult<Types>) -> proto::AppendResponse {
    use proto::append_response::Result as Answer;
    let (answer, matched) = match result {
        Ok(matched) => (Answer::Success(proto::Blank {}), matched),
        Err(StreamAppendError::Conflict(id)) => (Answer::Conflict(proto::Blank {}), Some(id)),
        Err(StreamAppendError::HigherVote(vote)) => {
            (Answer::HigherVote(vote_to_proto(&vote)), None)
        }
    };
    proto::AppendResponse {
        result: Some(answer),
        partial_is_none: false,
        matched: matched.as_ref().map(log_id_to_proto),
    }
}

fn vote_request(request: proto::VoteRequest) -> VoteRequest<Types> {
    VoteRequest {
        vote: vote_from_proto(&request.vote.unwrap_or_default()),
        last_log_id: request.last_log_id.as_ref().map(log_id_from_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

fn vote_response(response: VoteResponse<Types>) -> proto::VoteResponse {
    proto::VoteResponse {
        vote: Some(vote_to_proto(&response.vote)),
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_proto),
    }
}

/// Whether an append came from the leader of a term that this node is in.
fn is_of_leader(result: &StreamAppendResult<Types>) -> bool {
    !matches!(result, Err(StreamAppendError::HigherVote(_)))
}

impl Ring {
    fn heed(&self, result: &StreamAppendResult<Types>) {
        if is_of_leader(result) {
            self.heard.now();
        }
    }

    pub(crate) async fn receive_append(
        &self,
        request: proto::AppendRequest,
    ) -> Result<proto::AppendResponse, Status> {
        admit(
            self.me,
            &self.cluster_id,
            &request.cluster_id,
            request.target,
        )?;
        let prev = request.prev_log_id;
        let last = request
            .entries
            .last()
            .and_then(|entry| entry.log_id)
            .or(prev);
        let request = append_request(request)?;
        let response = self.raft.append_entries(request).await.map_err(stopped)?;
        let result = response.into_stream_result(
            prev.as_ref().map(log_id_from_proto),
            last.as_ref().map(log_id_from_proto),
        );
        self.heed(&result);
        Ok(append_response(result))
    }

    /// Answers in the order of the requests; the first refusal ends the stream.
    pub(crate) fn receive_appends(
        &self,
        requests: Streaming<proto::AppendRequest>,
        allows: impl Fn(&proto::AppendRequest) -> Result<(), Status> + Send + 'static,
    ) -> ReceiverStream<Result<proto::AppendResponse, Status>> {
        let refusal = Arc::new(OnceLock::new());
        let (me, cluster_id) = (self.me, self.cluster_id.clone());
        let refused = Arc::clone(&refusal);
        let admitted = requests
            .map(move |request| {
                let request = request?;
                allows(&request)?;
                admit(me, &cluster_id, &request.cluster_id, request.target)?;
                append_request(request)
            })
            .scan((), move |(), request| {
                ready(match request {
                    Ok(request) => Some(request),
                    Err(status) => {
                        // The first counts, and there is no second.
                        let _ = refused.set(status);
                        None
                    }
                })
            });
        let (raft, heard) = (self.raft.clone(), Arc::clone(&self.heard));
        let (answers, receiver) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(async move {
            let mut results = pin!(raft.stream_append(admitted));
            while let Some(result) = results.next().await {
                if result.as_ref().is_ok_and(is_of_leader) {
                    heard.now();
                }
                let answer = result.map(append_response).map_err(stopped);
                // A leader that went away ends the requests as well.
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
            if let Some(refusal) = refusal.get() {
                let _ = answers.send(Err(refusal.clone())).await;
            }
        });
        ReceiverStream::new(receiver)
    }

    pub(crate) async fn receive_vote(
        &self,
        request: proto::VoteRequest,
    ) -> Result<proto::VoteResponse, Status> {
        admit(
            self.me,
            &self.cluster_id,
            &request.cluster_id,
            request.target,
        )?;
        let answered = self.raft.vote(vote_request(request)).await;
        answered.map(vote_response).map_err(stopped)
    }

    pub(crate) async fn receive_pre_vote(
        &self,
        request: proto::VoteRequest,
    ) -> Result<proto::VoteResponse, Status> {
        admit(
            self.me,
            &self.cluster_id,
            &request.cluster_id,
            request.target,
        )?;
        let answered = self.raft.pre_vote(vote_request(request)).await;
        answered.map(vote_response).map_err(stopped)
    }

    pub(crate) async fn receive_transfer_leader(
        &self,
        request: proto::TransferLeaderRequest,
    ) -> Result<(), Status> {
        admit(self.me, &self.cluster_id, &request.cluster_id, self.me)?;
        let request = TransferLeaderRequest::new(
            vote_from_proto(&request.from.unwrap_or_default()),
            request.to,
            request.last_log_id.as_ref().map(log_id_from_proto),
        );
        match self.raft.handle_transfer_leader(request).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(Status::failed_precondition(refused.to_string())),
            Err(fatal) => Err(stopped(fatal)),
        }
    }

    /// Receives a snapshot aside, verifies all of it, and only then lets it replace the state.
    pub(crate) async fn receive_snapshot(
        &self,
        mut chunks: Streaming<proto::SnapshotChunk>,
        allows: impl FnOnce(&proto::SnapshotChunk) -> Result<(), Status>,
    ) -> Result<proto::SnapshotResponse, Status> {
        let limit = self.timing.snapshot_chunk;
        let late = |_| Status::deadline_exceeded("the snapshot's next chunk does not come");
        let busy = |_| Status::resource_exhausted("another snapshot is being received");
        let first = timeout(limit, chunks.message()).await.map_err(late)??;
        let first = first.ok_or_else(|| malformed("an empty snapshot transfer"))?;
        allows(&first)?;
        admit(self.me, &self.cluster_id, &first.cluster_id, first.target)?;
        let waiting = Arc::clone(&self.receiving).lock_owned();
        let alone = timeout(limit, waiting).await.map_err(busy)?;
        let vote = vote_from_proto(&first.vote.unwrap_or_default());
        let meta = first
            .meta
            .ok_or_else(|| malformed("a snapshot without its meta"))?;
        let hot_bytes = meta.hot_bytes;
        let meta = snapshot_meta_from_proto(meta).map_err(malformed)?;
        tracing::info!(%meta, hot_bytes, "receiving a snapshot");

        let failed = |error: io::Error| {
            Status::internal(format!("the snapshot cannot be stored here: {error}"))
        };
        let snapshots = self.snapshots.clone();
        let archive = Arc::clone(&self.archive);
        let host = self.archive.host();
        let whole = !first.without_archive;
        let beginning = host.io(move || begin_receiving(&snapshots, &archive, whole));
        let (part, replacement) = beginning.await.map_err(failed)?;
        let sink = Sink::new(&part, replacement.as_ref()).map_err(failed)?;
        let mut at = 0;
        while let Some(chunk) = timeout(limit, chunks.message()).await.map_err(late)?? {
            self.heard.now();
            let (sink, offset) = (sink.clone(), at);
            at += chunk.hot.len() as u64;
            if at > hot_bytes {
                return Err(malformed("more bytes than the snapshot's meta says"));
            }
            host.io(move || sink.keep(offset, chunk))
                .await
                .map_err(failed)?;
        }
        if at != hot_bytes {
            return Err(malformed(format!(
                "{at} of {hot_bytes} bytes of the snapshot came"
            )));
        }
        let (snapshots, path) = (self.snapshots.clone(), part.path.clone());
        let loaded = host.io(move || {
            let file = snapshots.open_file(&path)?;
            let state = file.load()?;
            Ok((file, state))
        });
        let (file, state) = loaded
            .await
            .map_err(|error| Status::data_loss(format!("the snapshot came damaged: {error}")))?;
        if let Some(fatal) = too_new(&state) {
            let told = Status::failed_precondition(fatal.message.clone());
            self.fatal.set(fatal.kind, fatal.message);
            return Err(told);
        }
        if file.last() != meta.last_log_id.as_ref().map(log_id_to_wal)
            || file.header().cluster_id != self.cluster_id
        {
            return Err(malformed("the snapshot is not the one that was announced"));
        }
        let snapshot = Snapshot {
            meta,
            snapshot: SnapshotData {
                file,
                received: Some(Received {
                    part,
                    state,
                    archive: replacement,
                    _alone: alone,
                }),
            },
        };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(stopped)?;
        Ok(proto::SnapshotResponse {
            vote: Some(vote_to_proto(&response.vote)),
        })
    }
}
