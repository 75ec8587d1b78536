//! openraft's view of the other nodes.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    Stream, StreamExt as _,
    future::{BoxFuture, ready},
    stream::{self, BoxStream},
};
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
        StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
        VoteResponse,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use trireme_proto::raft as proto;

use super::{
    commits::hold_commits,
    state_machine::{ARCHIVE_LOST, SnapshotData},
    types::{
        Peer, Types, Vote, entry_to_proto, log_id_from_proto, log_id_to_proto, vote_from_proto,
        vote_to_proto,
    },
};
use crate::{
    archive::Archive,
    config::Timing,
    costs::{Costs, Stage},
    fatal::{FatalCell, FatalKind},
    host::Host,
    snapshot::SnapshotFile,
    transport::{Client, Dialer},
    view::Published,
};

/// Hot bytes or archive rows in one message of a snapshot.
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Messages of a snapshot made ready ahead of the wire.
pub(crate) const SNAPSHOT_CHUNKS_AHEAD: usize = 2;
/// Archive rows read at once.
const ARCHIVE_PAGE_ROWS: usize = 512;
/// Waits between attempts to reach a node: short, so that one that comes back is soon up to date.
const BACKOFF_MS: [u64; 4] = [50, 100, 200, 400];

#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(crate) me: u64,
    pub(crate) cluster_id: String,
    pub(crate) dialer: Dialer,
    pub(crate) timing: Timing,
    pub(crate) archive: Arc<Archive>,
    pub(crate) costs: Arc<Costs>,
    pub(crate) fatal: FatalCell,
    pub(crate) published: Arc<Published>,
}

impl Links {
    fn link(&self, target: u64, peer: &Peer) -> Link {
        Link {
            links: self.clone(),
            target,
            address: peer.peer_address.clone(),
            client: None,
            single: None,
        }
    }
}

// Three connections per peer: neither a large batch nor a snapshot holds up a heartbeat.
impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Link {
        self.link(target, peer)
    }
}

/// One connection to one peer.
#[derive(Debug)]
pub(crate) struct Link {
    links: Links,
    target: u64,
    address: String,
    client: Option<Client>,
    single: Option<Single>,
}

/// An open append stream on which each request is answered before the next one goes. A stream of its own for each
/// heartbeat, and so for each round of reads, would cost many times as much as the heartbeat.
#[derive(Debug)]
struct Single {
    requests: mpsc::Sender<proto::AppendRequest>,
    answers: tonic::Streaming<proto::AppendResponse>,
}

fn unreachable(error: impl std::fmt::Display) -> Unreachable<Types> {
    Unreachable::from_string(error)
}

impl Link {
    fn client(&mut self) -> Result<Client, Unreachable<Types>> {
        if self.client.is_none() {
            let client = self.links.dialer.connect(&self.address, Some(self.target));
            self.client = Some(client.map_err(unreachable)?);
        }
        match &self.client {
            Some(client) => Ok(client.clone()),
            None => Err(unreachable("not connected")),
        }
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<Types> {
        Timeout {
            action,
            id: self.links.me,
            target: self.target,
            timeout,
        }
    }

    fn append_request(
        &self,
    ) -> impl Fn(AppendEntriesRequest<Types>) -> proto::AppendRequest + use<> {
        let (cluster_id, target) = (self.links.cluster_id.clone(), self.target);
        move |request| proto::AppendRequest {
            vote: Some(vote_to_proto(&request.vote)),
            prev_log_id: request.prev_log_id.as_ref().map(log_id_to_proto),
            entries: request.entries.into_iter().map(entry_to_proto).collect(),
            leader_commit: request.leader_commit.as_ref().map(log_id_to_proto),
            cluster_id: cluster_id.clone(),
            target,
        }
    }

    /// One request and its answer. A stream on which one was given up is not used again: no answer is taken for another's.
    async fn append_within(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        limit: Duration,
    ) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
        let request = self.append_request()(rpc);
        let client = self.client()?;
        if let Some((mut client, request)) = self.again(&client, &request) {
            tokio::spawn(async move { client.append(request).await });
        }
        let mut single = self.single.take();
        let appending = append_one(client, &mut single, request);
        let response = self.call(RPCTypes::AppendEntries, limit, appending).await?;
        self.single = single;
        Ok(append_result(response).map_err(NetworkError::from_string)?)
    }

    fn vote_request(&self, request: &VoteRequest<Types>) -> proto::VoteRequest {
        proto::VoteRequest {
            vote: Some(vote_to_proto(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(log_id_to_proto),
            cluster_id: self.links.cluster_id.clone(),
            leadership_transfer: request.leadership_transfer,
            target: self.target,
        }
    }

    /// For a simulated network that brings a request twice.
    fn again<R: Clone>(&self, client: &Client, request: &R) -> Option<(Client, R)> {
        let repeats = self.links.archive.host().repeats();
        repeats.then(|| (client.clone(), request.clone()))
    }

    async fn call<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, RPCError<Types>> {
        match timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(RPCError::Unreachable(unreachable(status))),
            Err(_) => Err(RPCError::Timeout(self.timeout(action, limit))),
        }
    }
}

impl Single {
    async fn append(
        &mut self,
        request: proto::AppendRequest,
    ) -> Result<tonic::Response<proto::AppendResponse>, tonic::Status> {
        let ended = || tonic::Status::unavailable("the peer ended the stream");
        self.requests.send(request).await.map_err(|_| ended())?;
        let answer = self.answers.message().await?.ok_or_else(ended)?;
        Ok(tonic::Response::new(answer))
    }

    /// After a refusal the peer ends the stream.
    fn kept_after(self, answer: &proto::AppendResponse) -> Option<Self> {
        matches!(
            answer.result,
            Some(proto::append_response::Result::Success(_))
        )
        .then_some(self)
    }
}

/// Appends on the open stream, or on a new one; leaves in `open` what the next can go on.
async fn append_one(
    mut client: Client,
    open: &mut Option<Single>,
    request: proto::AppendRequest,
) -> Result<tonic::Response<proto::AppendResponse>, tonic::Status> {
    if let Some(mut single) = open.take()
        && let Ok(answer) = single.append(request.clone()).await
    {
        *open = single.kept_after(answer.get_ref());
        return Ok(answer);
    }
    // The first, or the peer went away and may be back: to ask twice is harmless.
    let (requests, sending) = mpsc::channel(1);
    let opened = client.stream_append(ReceiverStream::new(sending)).await?;
    let answers = opened.into_inner();
    let mut single = Single { requests, answers };
    let answer = single.append(request).await?;
    *open = single.kept_after(answer.get_ref());
    Ok(answer)
}

/// Requests of one stream on their way; answers come in their order.
/// As many as consensus lets be on their way.
#[derive(Debug, Default)]
struct Outstanding(Mutex<VecDeque<Instant>>);

impl Outstanding {
    fn held(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) {
        self.held().push_back(Instant::now());
    }

    fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    /// How long the oldest took.
    fn answered(&self) -> Option<Duration> {
        Some(self.held().pop_front()?.elapsed())
    }
}

/// What a peer's answer to an append request means.
fn append_result(response: proto::AppendResponse) -> Result<StreamAppendResult<Types>, String> {
    use proto::append_response::Result as Answer;
    let matched = response.matched.as_ref().map(log_id_from_proto);
    match response.result {
        Some(Answer::Success(_)) => Ok(Ok(matched)),
        Some(Answer::PartialSuccess(id)) => Ok(Ok(Some(log_id_from_proto(&id)))),
        Some(Answer::Conflict(_)) => match matched {
            Some(id) => Ok(Err(StreamAppendError::Conflict(id))),
            None => Err("a conflict that names no log id".to_owned()),
        },
        Some(Answer::HigherVote(vote)) => {
            Ok(Err(StreamAppendError::HigherVote(vote_from_proto(&vote))))
        }
        None => Err("an append answer of a kind that this version does not know".to_owned()),
    }
}

fn vote_response(response: proto::VoteResponse) -> VoteResponse<Types> {
    VoteResponse {
        vote: vote_from_proto(&response.vote.unwrap_or_default()),
        vote_granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_from_proto),
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Ok(self.append_within(rpc, option.hard_ttl()).await?.into())
    }

    /// Entries are sent as they come, news of commits with them; a peer that answers none for [`Timing::append_stall`] ends
    /// the stream. A heartbeat is a stream of one request.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut input = input.peekable();
            // Consensus waits out the backoff where a request is taken from it: taken before the stream is opened, or a
            // peer that refuses connections would be dialed without a pause.
            if Pin::new(&mut input).peek().await.is_none() {
                return Ok(stream::empty().boxed());
            }
            if input.size_hint() == (1, Some(1))
                && let Some(only) = input.next().await
            {
                let result = self.append_within(only, option.hard_ttl()).await?;
                return Ok(stream::once(ready(Ok(result))).boxed());
            }
            let mut client = self.client()?;
            let stall = self.links.timing.append_stall;
            let outstanding = Arc::new(Outstanding::default());
            let (counted, encode) = (Arc::clone(&outstanding), self.append_request());
            let requests = hold_commits(input).map(move |request| {
                counted.sent();
                encode(request)
            });
            let costs = Arc::clone(&self.links.costs);
            let opening = client.stream_append(requests);
            let responses = self.call(RPCTypes::AppendEntries, stall, opening).await?;
            let stalled = self.timeout(RPCTypes::AppendEntries, stall);
            let answers = stream::unfold(Some(responses), move |responses| {
                let (outstanding, stalled) = (Arc::clone(&outstanding), stalled.clone());
                let costs = Arc::clone(&costs);
                async move {
                    let mut responses = responses?;
                    let next = loop {
                        let nothing_outstanding = outstanding.is_empty();
                        match timeout(stall, responses.message()).await {
                            Ok(next) => break next,
                            // The stream just waits for entries.
                            Err(_) if nothing_outstanding => {}
                            Err(_) => return Some((Err(RPCError::Timeout(stalled)), None)),
                        }
                    };
                    match next {
                        Ok(None) => None,
                        Ok(Some(response)) => match append_result(response) {
                            Ok(result) => {
                                if let Some(took) = outstanding.answered() {
                                    costs.add(Stage::Replicate, took);
                                }
                                let rest = result.is_ok().then_some(responses);
                                Some((Ok(result), rest))
                            }
                            Err(what) => Some((Err(NetworkError::from_string(what).into()), None)),
                        },
                        Err(status) => Some((Err(unreachable(status).into()), None)),
                    }
                }
            });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client()?;
        let request = self.vote_request(&rpc);
        if let Some((mut client, request)) = self.again(&client, &request) {
            tokio::spawn(async move { client.vote(request).await });
        }
        let call = client.vote(request);
        let response = self.call(RPCTypes::Vote, option.hard_ttl(), call).await?;
        Ok(vote_response(response))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client()?;
        let request = self.vote_request(&rpc);
        if let Some((mut client, request)) = self.again(&client, &request) {
            tokio::spawn(async move { client.pre_vote(request).await });
        }
        let call = client.pre_vote(request);
        let response = self.call(RPCTypes::Vote, option.hard_ttl(), call).await?;
        Ok(vote_response(response))
    }

    /// The hot file, then the archive's rows. The archive may run ahead of the file.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let level = self.links.published.view().feature_level();
        if self.links.archive.missing().is_some() && level < WITHOUT_ARCHIVE_LEVEL {
            let why =
                "the archive to send is incomplete, and a member may not know what that means";
            return Err(unreachable(tonic::Status::unavailable(why)).into());
        }
        let mut client = self.client()?;
        let timing = self.links.timing.clone();
        let (chunks, sending) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        let call = client.install_snapshot(ReceiverStream::new(sending));
        let feeding = feed_snapshot(
            chunks,
            proto::SnapshotChunk {
                vote: Some(vote_to_proto(&vote)),
                cluster_id: self.links.cluster_id.clone(),
                target: self.target,
                ..proto::SnapshotChunk::default()
            },
            snapshot.snapshot.file.clone(),
            Arc::clone(&self.links.archive),
            self.links.fatal.clone(),
            timing.snapshot_chunk,
        );
        let sent = snapshot.snapshot.file;
        let transfer = async {
            tokio::pin!(call);
            // The peer may refuse before it has read everything.
            tokio::select! {
                response = &mut call => return response,
                fed = feeding => fed?,
            }
            match timeout(timing.snapshot_install, call).await {
                Ok(response) => response,
                Err(_) => Err(tonic::Status::deadline_exceeded(
                    "the peer does not finish installing the snapshot",
                )),
            }
        };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            response = transfer => match response {
                Ok(response) => {
                    let vote = response.into_inner().vote.unwrap_or_default();
                    Ok(SnapshotResponse::new(vote_from_proto(&vote)))
                }
                Err(status) => {
                    // Damaged on the wire, or here: one of the two must not be tried for ever.
                    if status.code() == tonic::Code::DataLoss {
                        check_sent(self.links.archive.host(), sent, &self.links.fatal).await;
                    }
                    Err(unreachable(status).into())
                }
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let mut client = self.client()?;
        let call = client.transfer_leader(proto::TransferLeaderRequest {
            from: Some(vote_to_proto(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(log_id_to_proto),
            cluster_id: self.links.cluster_id.clone(),
        });
        self.call(RPCTypes::TransferLeader, option.hard_ttl(), call)
            .await?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let longest = BACKOFF_MS[BACKOFF_MS.len() - 1];
        let waits = BACKOFF_MS.into_iter().chain(std::iter::repeat(longest));
        // Nodes that lost the same peer do not knock in step.
        Some(Backoff::new(waits.map(|wait| {
            Duration::from_millis(rand::random_range(wait / 2..=wait))
        })))
    }
}

/// From this feature level on every member keeps its own archive when a snapshot comes without one.
pub(crate) const WITHOUT_ARCHIVE_LEVEL: u32 = 3;

/// What to do when a snapshot in use is found damaged or unreadable.
pub(crate) const SNAPSHOT_LOST: &str = "Start the node again: it sets the file aside, and goes on from the snapshot before \
     it and the log. If that does not suffice it says so; then replace the node under a new id with `trireme cluster replace`";

/// A peer found what this node sent damaged: stops the node if its file is.
async fn check_sent(host: &Host, file: SnapshotFile, fatal: &FatalCell) {
    let checking = host.blocking(move || file.verify(|_| true));
    if let Ok(Err(error)) = checking.await {
        fatal.set(FatalKind::Corruption, format!("{error}. {SNAPSHOT_LOST}"));
    }
}

/// Sends all messages of a snapshot, each within `limit`. A file that cannot be read stops the node.
pub(crate) async fn feed_snapshot(
    chunks: mpsc::Sender<proto::SnapshotChunk>,
    mut first: proto::SnapshotChunk,
    file: SnapshotFile,
    archive: Arc<Archive>,
    fatal: FatalCell,
    limit: Duration,
) -> Result<(), tonic::Status> {
    let rows = |error: std::io::Error| {
        let message = format!("the archive to send cannot be read: {error}. {ARCHIVE_LOST}");
        fatal.set(FatalKind::Archive, message.clone());
        tonic::Status::internal(message)
    };
    let path = file.path().to_owned();
    let read = |error: std::io::Error| {
        let message = format!(
            "{} cannot be read: {error}. {SNAPSHOT_LOST}",
            path.display()
        );
        fatal.set(FatalKind::Disk, message.clone());
        tonic::Status::internal(message)
    };
    let send = async |chunk| match timeout(limit, chunks.send(chunk)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(tonic::Status::unavailable("the peer closed the transfer")),
        Err(_) => Err(tonic::Status::deadline_exceeded(
            "the peer does not take the snapshot's next chunk",
        )),
    };
    // What is not complete must not take the place of what may be.
    first.without_archive = archive.missing().is_some();
    let without_archive = first.without_archive;
    let mut meta = file.header().meta.clone().unwrap_or_default();
    meta.hot_bytes = file.bytes();
    first.meta = Some(meta);
    send(first).await?;
    let mut at = 0;
    while at < file.bytes() {
        let source = file.clone();
        let hot = archive
            .host()
            .io(move || source.read(at, SNAPSHOT_CHUNK_BYTES));
        let hot = hot.await.map_err(read)?;
        at += hot.len() as u64;
        send(proto::SnapshotChunk {
            hot,
            ..proto::SnapshotChunk::default()
        })
        .await?;
    }
    if without_archive {
        return Ok(());
    }
    let mut pages = Pages::new(archive);
    while let Some(page) = pages.next().await.map_err(rows)? {
        send(proto::SnapshotChunk {
            archive: page,
            ..proto::SnapshotChunk::default()
        })
        .await?;
    }
    Ok(())
}

/// All rows of an archive, in messages of about [`SNAPSHOT_CHUNK_BYTES`].
pub(crate) struct Pages {
    archive: Arc<Archive>,
    after: Option<bytes::Bytes>,
    read: std::collections::VecDeque<proto::ArchiveRow>,
    done: bool,
}

impl Pages {
    pub(crate) fn new(archive: Arc<Archive>) -> Self {
        Self {
            archive,
            after: None,
            read: std::collections::VecDeque::new(),
            done: false,
        }
    }

    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Vec<proto::ArchiveRow>>> {
        use std::ops::Bound;
        if self.read.is_empty() && !self.done {
            let (archive, after) = (Arc::clone(&self.archive), self.after.clone());
            let reading = self.archive.host().io(move || {
                let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                archive.range((from, Bound::Unbounded), false, ARCHIVE_PAGE_ROWS)
            });
            let rows = reading.await?;
            self.done = rows.len() < ARCHIVE_PAGE_ROWS;
            self.after = rows
                .last()
                .map(|(key, _)| key.clone())
                .or(self.after.take());
            self.read = rows
                .into_iter()
                .map(|(key, value)| proto::ArchiveRow { key, value })
                .collect();
        }
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some(row) = self.read.pop_front() {
            bytes += row.key.len() + row.value.len();
            page.push(row);
            if bytes >= SNAPSHOT_CHUNK_BYTES {
                break;
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }
}
