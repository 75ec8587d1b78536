//! The cluster as a node sees it, and changes of its membership.

use std::{future::ready, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        AddNodeRequest, ClusterStatusRequest, ClusterStatusResponse, CollectDebugRequest,
        CollectDebugResponse, CompareReplicasRequest, CompareReplicasResponse, InspectNodeRequest,
        InspectNodeResponse, MembershipResponse, NodeRequest, NodeStatus, ReplaceNodeRequest,
        SaveSnapshotRequest, SaveSnapshotResponse, SavedSnapshot, ScrubNodeRequest,
        ScrubNodeResponse, StepDownRequest, StepDownResponse,
        cluster_service_server::ClusterService,
    },
    raft::Node,
    state::{Alarm, Office},
};

use super::{Services, caller, compare, debug, scrub};

pub(crate) struct Door(pub(crate) Services);

impl Door {
    fn nodes(&self) -> Vec<NodeStatus> {
        let status = self.0.store.status();
        status
            .members
            .iter()
            .map(|member| NodeStatus {
                id: member.node.id,
                peer_address: member.node.peer_address.clone(),
                web_address: format!("{}://{}", self.0.scheme, member.node.api_address),
                api_address: member.node.api_address.clone(),
                voter: member.voter,
                has_matched: member.matched.is_some(),
                matched_index: member.matched.unwrap_or_default(),
                lag: member.matched.map_or(0, |matched| {
                    status.last_log.unwrap_or_default().saturating_sub(matched)
                }),
            })
            .collect()
    }

    fn told(&self) -> ClusterStatusResponse {
        let status = self.0.store.status();
        let view = self.0.store.view();
        ClusterStatusResponse {
            cluster_id: status.cluster_id,
            node_id: self.0.store.node_id(),
            role: status.role.to_string(),
            leader_id: status.leader.unwrap_or_default(),
            term: status.term,
            last_log_index: status.last_log.unwrap_or_default(),
            // The digest is of this one.
            applied_index: status.revision,
            snapshot_index: status.snapshot.unwrap_or_default(),
            purged_index: status.purged.unwrap_or_default(),
            nodes: self.nodes(),
            office: Some(Office::clone(view.office())),
            feature_level: view.feature_level(),
            alarms: view.alarms().map(|alarm| Alarm::clone(alarm)).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            digest: status.digest,
            millis_since_quorum_ack: status
                .millis_since_quorum_ack
                .map_or(-1, |millis| i64::try_from(millis).unwrap_or(i64::MAX)),
            config: Some(self.0.config_health.get().to_proto()),
        }
    }

    fn membership(
        &self,
        result: Result<(), trireme_raft::MembershipError>,
    ) -> Result<Response<MembershipResponse>, Status> {
        result.map_err(|why| Status::failed_precondition(why.to_string()))?;
        Ok(Response::new(MembershipResponse {
            nodes: self.nodes(),
        }))
    }
}

#[async_trait]
impl ClusterService for Door {
    type SaveSnapshotStream = BoxStream<'static, Result<SaveSnapshotResponse, Status>>;
    type ScrubNodeStream = BoxStream<'static, Result<ScrubNodeResponse, Status>>;

    async fn status(
        &self,
        _: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        Ok(Response::new(self.told()))
    }

    async fn add_node(
        &self,
        request: Request<AddNodeRequest>,
    ) -> Result<Response<MembershipResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        who.about(format!("node {}", asked.node_id));
        let node = Node {
            id: asked.node_id,
            peer_address: asked.peer_address,
            api_address: asked.api_address,
            ..Node::default()
        };
        let result = self.0.store.add_learner(node).await;
        self.membership(result)
    }

    async fn promote_node(
        &self,
        request: Request<NodeRequest>,
    ) -> Result<Response<MembershipResponse>, Status> {
        let id = request.get_ref().node_id;
        caller(&request).about(format!("node {id}"));
        let result = self.0.store.promote(id).await;
        self.membership(result)
    }

    async fn remove_node(
        &self,
        request: Request<NodeRequest>,
    ) -> Result<Response<MembershipResponse>, Status> {
        let id = request.get_ref().node_id;
        caller(&request).about(format!("node {id}"));
        let result = self.0.store.remove(id).await;
        self.membership(result)
    }

    async fn replace_node(
        &self,
        request: Request<ReplaceNodeRequest>,
    ) -> Result<Response<MembershipResponse>, Status> {
        let asked = request.get_ref();
        caller(&request).about(format!("node {} for {}", asked.new_id, asked.old_id));
        let node = self
            .0
            .store
            .status()
            .members
            .into_iter()
            .find(|member| member.node.id == asked.new_id)
            .map(|member| member.node)
            .ok_or_else(|| {
                Status::not_found(format!(
                    "node {} is no member: start it with cluster.join first, it then joins as a learner",
                    asked.new_id
                ))
            })?;
        let result = self.0.store.replace(asked.old_id, node).await;
        self.membership(result)
    }

    async fn transfer_leader(
        &self,
        request: Request<NodeRequest>,
    ) -> Result<Response<MembershipResponse>, Status> {
        let id = request.get_ref().node_id;
        caller(&request).about(format!("node {id}"));
        let result = self.0.store.transfer_leader(id).await;
        self.membership(result)
    }

    async fn step_down(
        &self,
        _: Request<StepDownRequest>,
    ) -> Result<Response<StepDownResponse>, Status> {
        let handover = self.0.store.step_down().await;
        let handover = handover.map_err(|why| Status::failed_precondition(why.to_string()))?;
        Ok(Response::new(StepDownResponse {
            former_leader_id: handover.from.unwrap_or_default(),
            leader_id: handover.to,
            nodes: self.nodes(),
        }))
    }

    async fn save_snapshot(
        &self,
        _: Request<SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let saving = self.0.store.save_snapshot().await;
        let saving = saving.map_err(|why| Status::failed_precondition(why.to_string()))?;
        let first = SaveSnapshotResponse {
            snapshot: Some(SavedSnapshot {
                cluster_id: saving.cluster_id,
                node_id: saving.node_id,
                revision: saving.revision,
                current: saving.current,
            }),
            data: Bytes::new(),
        };
        let pieces = ReceiverStream::new(saving.pieces).map(|piece| match piece {
            Ok(data) => Ok(SaveSnapshotResponse {
                snapshot: None,
                data,
            }),
            Err(why) => Err(Status::aborted(format!(
                "the snapshot was not saved: {why}"
            ))),
        });
        let stream = stream::once(ready(Ok(first))).chain(pieces);
        Ok(Response::new(stream.boxed()))
    }

    async fn inspect_node(
        &self,
        _: Request<InspectNodeRequest>,
    ) -> Result<Response<InspectNodeResponse>, Status> {
        let status = self.0.store.status();
        Ok(Response::new(InspectNodeResponse {
            status: Some(self.told()),
            has_clock_skew: status.clock_skew_ms.is_some(),
            clock_skew_ms: status.clock_skew_ms.unwrap_or_default(),
            archive_incomplete: status.archive_lost.unwrap_or_default(),
            ring_delay_micros: u64::try_from(status.ring_delay.as_micros()).unwrap_or(u64::MAX),
            wal_segments: status.wal_segments as u64,
            build_level: trireme_state::FEATURE_LEVEL,
        }))
    }

    async fn collect_debug(
        &self,
        _: Request<CollectDebugRequest>,
    ) -> Result<Response<CollectDebugResponse>, Status> {
        let (store, metrics) = (self.0.store.clone(), Arc::clone(&self.0.metrics));
        let debug = Arc::clone(&self.0.debug);
        let told = self.told();
        // It reads files and walks the state.
        let host = self.0.store.host().clone();
        let files = host.blocking(move || {
            let mut files = debug::files(&store, &metrics, &told)?;
            files.extend(debug.files());
            Ok::<_, std::fmt::Error>(debug::bounded(files))
        });
        let files = files
            .await
            .map_err(|why| Status::internal(why.to_string()))?
            .map_err(|why| Status::internal(why.to_string()))?;
        Ok(Response::new(CollectDebugResponse { files }))
    }

    async fn compare_replicas(
        &self,
        request: Request<CompareReplicasRequest>,
    ) -> Result<Response<CompareReplicasResponse>, Status> {
        let who = caller(&request);
        let answer = compare::compare(&self.0.store).await?;
        who.about(format!("audit {}", answer.audit_index));
        who.at(answer.audit_index);
        Ok(Response::new(answer))
    }

    async fn scrub_node(
        &self,
        request: Request<ScrubNodeRequest>,
    ) -> Result<Response<Self::ScrubNodeStream>, Status> {
        let (asked, me) = (request.get_ref().node_id, self.0.store.node_id());
        caller(&request).about(format!("node {me}"));
        if asked != 0 && asked != me {
            return Err(Status::failed_precondition(format!(
                "this is node {me}, not node {asked}: the address of a door is wrong, or its node was replaced"
            )));
        }
        Ok(Response::new(scrub::scrub(self.0.store.clone()).boxed()))
    }
}
