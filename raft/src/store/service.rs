//! The gRPC service for peers.

use std::sync::Arc;

use futures::{StreamExt as _, stream, stream::BoxStream};
use prost::Message as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};
use trireme_proto::{
    raft::{self as proto, raft_transport_server::RaftTransport},
    state::Command,
};

use super::{
    Inner, MembershipError, Started,
    callers::{Call, caller},
    held,
    propose::{NO_SPACE, NOT_KNOWN, Proposed, REFUSAL},
};
use crate::{
    consensus::{Pages, ReadIndexError, WITHOUT_ARCHIVE_LEVEL},
    sealed::{Sealed, Unknown},
};

pub(super) struct PeerService(pub(super) Arc<Inner>);

impl PeerService {
    fn started(&self) -> Result<&Started, Status> {
        if let Some(fatal) = self.0.fatal.get() {
            return Err(Status::unavailable(fatal.message));
        }
        self.0
            .started()
            .ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))
    }

    fn member(&self, cluster_id: &str) -> Result<&Started, Status> {
        let started = self.started()?;
        if cluster_id != started.cluster_id {
            return Err(Status::failed_precondition(format!(
                "this node belongs to cluster {}, the request is for cluster {cluster_id}",
                started.cluster_id
            )));
        }
        Ok(started)
    }

    fn not_leader(&self, started: &Started) -> proto::NotLeader {
        let leader = started.ring.seen().leader.unwrap_or(0);
        proto::NotLeader {
            leader_id: leader,
            peer_address: self.0.peer_address(started, leader).unwrap_or_default(),
        }
    }
}

#[tonic::async_trait]
impl RaftTransport for PeerService {
    type StreamAppendStream = ReceiverStream<Result<proto::AppendResponse, Status>>;
    type FetchSnapshotStream = BoxStream<'static, Result<proto::SnapshotChunk, Status>>;
    type FetchArchiveStream = BoxStream<'static, Result<proto::FetchArchiveResponse, Status>>;
    type AskDoorStream = BoxStream<'static, Result<proto::AskDoorResponse, Status>>;

    async fn append(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.0
            .allows(caller, Call::of_vote(request.vote.as_ref()))?;
        let ring = &self.started()?.ring;
        Ok(Response::new(ring.receive_append(request).await?))
    }

    async fn stream_append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let caller = caller(&request)?;
        let ring = &self.started()?.ring;
        let inner = Arc::clone(&self.0);
        // Each request, not the stream alone: it may outlive its sender's membership.
        let allows = move |request: &proto::AppendRequest| {
            inner.allows(caller, Call::of_vote(request.vote.as_ref()))
        };
        Ok(Response::new(
            ring.receive_appends(request.into_inner(), allows),
        ))
    }

    async fn vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.0
            .allows(caller, Call::of_vote(request.vote.as_ref()))?;
        let ring = &self.started()?.ring;
        Ok(Response::new(ring.receive_vote(request).await?))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.0
            .allows(caller, Call::of_vote(request.vote.as_ref()))?;
        let ring = &self.started()?.ring;
        Ok(Response::new(ring.receive_pre_vote(request).await?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        let caller = caller(&request)?;
        let ring = &self.started()?.ring;
        let allows = |first: &proto::SnapshotChunk| {
            self.0.allows(caller, Call::of_vote(first.vote.as_ref()))
        };
        Ok(Response::new(
            Box::pin(ring.receive_snapshot(request.into_inner(), allows)).await?,
        ))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.0
            .allows(caller, Call::of_vote(request.from.as_ref()))?;
        let ring = &self.started()?.ring;
        ring.receive_transfer_leader(request).await?;
        Ok(Response::new(proto::TransferLeaderResponse {}))
    }

    /// Only a leader answers; it never forwards, so that no request goes in circles.
    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        self.0.allows(caller(&request)?, Call::Member)?;
        let request = request.into_inner();
        let started = self.member(&request.cluster_id)?;
        if started.ring.seen().leader != Some(self.0.node_id) {
            return Ok(Response::new(proto::ProposeResponse {
                applied: Vec::new(),
                not_leader: Some(self.not_leader(started)),
            }));
        }
        let mut commands = Vec::with_capacity(request.commands.len());
        for bytes in request.commands {
            let command = Command::decode(bytes)
                .map_err(|why| Status::invalid_argument(format!("a command: {why}")))?;
            let sealed = Sealed::of(command);
            commands.push(sealed.map_err(|Unknown| Status::failed_precondition(NOT_KNOWN))?);
        }
        let submitted = commands
            .into_iter()
            .map(|command| started.proposer.submit(command));
        let mut response = proto::ProposeResponse::default();
        for proposed in futures::future::join_all(submitted).await {
            match proposed {
                Proposed::Applied(applied) => {
                    response.applied.push(proto::propose_response::Applied {
                        revision: applied.revision,
                        outcome: Some(applied.outcome),
                    });
                }
                Proposed::NotAppended => {
                    return Err(Status::aborted("this node does not lead any more"));
                }
                Proposed::Unknown => {
                    return Err(Status::unknown("the command may or may not be applied"));
                }
                Proposed::Overloaded => {
                    return Err(Status::resource_exhausted("too many commands are waiting"));
                }
                Proposed::NoSpace(reason) => {
                    let mut status = Status::resource_exhausted(reason);
                    let no_space = MetadataValue::from_static(NO_SPACE);
                    status.metadata_mut().insert(REFUSAL, no_space);
                    return Err(status);
                }
                Proposed::Rejected(reason) => return Err(Status::failed_precondition(reason)),
                Proposed::Stopped => return Err(Status::unknown("this node is stopping")),
            }
        }
        Ok(Response::new(response))
    }

    async fn read_index(
        &self,
        request: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexResponse>, Status> {
        self.0.allows(caller(&request)?, Call::Member)?;
        let started = self.member(&request.into_inner().cluster_id)?;
        match started.ring.read_index().await {
            Ok(revision) => Ok(Response::new(proto::ReadIndexResponse {
                revision,
                not_leader: None,
            })),
            Err(ReadIndexError::NotLeader) => Ok(Response::new(proto::ReadIndexResponse {
                revision: 0,
                not_leader: Some(self.not_leader(started)),
            })),
            Err(ReadIndexError::NoQuorum) => {
                Err(Status::unavailable("no quorum answers this node"))
            }
            Err(ReadIndexError::Stopped) => Err(Status::unavailable(self.0.stop_reason())),
        }
    }

    async fn change_membership(
        &self,
        request: Request<proto::ChangeMembershipRequest>,
    ) -> Result<Response<proto::ChangeMembershipResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.0.allows(caller, Call::of_change(&request))?;
        let started = self.member(&request.cluster_id)?;
        let change = request
            .change
            .ok_or_else(|| Status::invalid_argument("a membership change without a change"))?;
        let mut response = proto::ChangeMembershipResponse::default();
        match self.0.change_here(started, change).await {
            Ok(()) => response.membership = Some(started.ring.pulse().membership),
            Err(MembershipError::NoLeader) => {
                response.not_leader = Some(self.not_leader(started));
            }
            Err(MembershipError::Refused(reason)) => response.refused = reason,
            Err(MembershipError::Timeout) => {
                return Err(Status::deadline_exceeded(
                    MembershipError::Timeout.to_string(),
                ));
            }
            Err(error) => return Err(Status::unavailable(error.to_string())),
        }
        Ok(Response::new(response))
    }

    async fn hello(
        &self,
        request: Request<proto::HelloRequest>,
    ) -> Result<Response<proto::HelloResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        self.0.allows(caller, Call::Hello(request.node_id))?;
        let mut response = proto::HelloResponse {
            node_id: self.0.node_id,
            feature_level: self.0.knows_level,
            clock_ms: self.0.host.wall_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..proto::HelloResponse::default()
        };
        let Some(started) = self.0.started() else {
            return Ok(Response::new(response));
        };
        response.cluster_id = started.cluster_id.clone();
        let leader = self.not_leader(started);
        response.leader_id = leader.leader_id;
        response.leader_peer_address = leader.peer_address;
        if let Some(disk) = started.disk.get() {
            response.disk_total_bytes = disk.total;
            response.disk_available_bytes = disk.available;
            response.disk_used_permille = disk.used_permille;
        }
        if request.cluster_id == started.cluster_id {
            // Whoever was removed while it was down hears it from nobody else.
            response.refused = self.0.removal_of(request.node_id).unwrap_or_default();
        }
        if request.about > 0 {
            response.about_is_member = self.0.knows_member(request.about);
            // Who hears no leader may not have heard of a member either.
            response.about_is_known = self.0.hears_leader(started);
        }
        if !request.bootstrap_instance.is_empty() {
            match self
                .0
                .admit(request.node_id, request.bootstrap_instance)
                .await
            {
                Ok(()) => response.admitted = true,
                Err(reason) => response.refused = reason,
            }
        }
        Ok(Response::new(response))
    }

    async fn fetch_archive(
        &self,
        request: Request<proto::FetchArchiveRequest>,
    ) -> Result<Response<Self::FetchArchiveStream>, Status> {
        self.0.allows(caller(&request)?, Call::Member)?;
        let request = request.into_inner();
        self.member(&request.cluster_id)?;
        let reached = self.0.published.view().revision;
        if reached < request.at_least {
            return Err(Status::unavailable(format!(
                "this node has applied {reached}, less than {}",
                request.at_least
            )));
        }
        // Before the rows: what is complete now is so for all of them.
        let incomplete = self.0.archive.missing().is_some();
        if incomplete && request.at_least == 0 {
            // An older version, which would take what there is for all.
            return Err(Status::unavailable("this node's own archive is incomplete"));
        }
        let about = proto::FetchArchiveResponse {
            incomplete,
            ..proto::FetchArchiveResponse::default()
        };
        let pages = Pages::new(Arc::clone(&self.0.archive));
        let rows = stream::try_unfold(pages, |mut pages| async move {
            let page = pages.next().await.map_err(|error| {
                Status::internal(format!("the archive cannot be read: {error}"))
            })?;
            let page = page.map(|rows| proto::FetchArchiveResponse {
                rows,
                ..proto::FetchArchiveResponse::default()
            });
            Ok(page.map(|page| (page, pages)))
        });
        let all = stream::iter([Ok(about)]).chain(rows);
        Ok(Response::new(all.boxed()))
    }

    async fn fetch_snapshot(
        &self,
        request: Request<proto::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        self.0.allows(caller(&request)?, Call::Member)?;
        let request = request.into_inner();
        let started = self.member(&request.cluster_id)?;
        let level = self.0.published.view().feature_level();
        if self.0.archive.missing().is_some() && level < WITHOUT_ARCHIVE_LEVEL {
            return Err(Status::unavailable("this node's own archive is incomplete"));
        }
        let giving = self.0.give_snapshot(started, request.at_least).await;
        Ok(Response::new(giving.map_err(Status::unavailable)?))
    }

    async fn ask_door(
        &self,
        request: Request<proto::AskDoorRequest>,
    ) -> Result<Response<Self::AskDoorStream>, Status> {
        self.0.allows(caller(&request)?, Call::Member)?;
        let request = request.into_inner();
        self.member(&request.cluster_id)?;
        let door = held(&self.0.door)
            .clone()
            .ok_or_else(|| Status::unavailable("this node's door is not open yet"))?;
        let answers = door
            .answer(&request.method, request.request)
            .map(|answer| answer.map(|response| proto::AskDoorResponse { response }));
        Ok(Response::new(answers.boxed()))
    }
}
