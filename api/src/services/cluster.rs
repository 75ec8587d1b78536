//! The cluster as a node sees it, and changes of its membership.

use tonic::{Request, Response, Status, async_trait};
use trireme_proto::{
    api::{
        AddNodeRequest, ClusterStatusRequest, ClusterStatusResponse, MembershipResponse,
        NodeRequest, NodeStatus, ReplaceNodeRequest, cluster_service_server::ClusterService,
    },
    raft::Node,
    state::{Alarm, Office},
};

use super::{Services, caller};

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
    async fn status(
        &self,
        _: Request<ClusterStatusRequest>,
    ) -> Result<Response<ClusterStatusResponse>, Status> {
        let status = self.0.store.status();
        let view = self.0.store.view();
        Ok(Response::new(ClusterStatusResponse {
            cluster_id: status.cluster_id,
            node_id: self.0.store.node_id(),
            role: status.role.to_string(),
            leader_id: status.leader.unwrap_or_default(),
            term: status.term,
            last_log_index: status.last_log.unwrap_or_default(),
            applied_index: view.revision,
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
        }))
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
}
