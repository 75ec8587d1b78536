//! Nodes asking each other on behalf of clients: over the peer listener, where a node proves who it is. A door never
//! has to trust another node's address, nor a client to lend its token.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use tonic::Status;
use trireme_proto::raft as proto;

use super::{Inner, Store, held};

/// What a node's door answers other nodes.
pub trait DoorCalls: Send + Sync + 'static {
    /// Called on the ring's runtime: work of more than a moment belongs elsewhere.
    fn answer(&self, method: &str, request: Bytes) -> BoxStream<'static, Result<Bytes, Status>>;
}

impl Store {
    /// Answers other nodes from now on. The first counts.
    pub fn answer_doors(&self, door: Arc<dyn DoorCalls>) {
        let mut known = held(&self.inner.door);
        if *self.inner.closed.borrow() {
            return;
        }
        if known.is_some() {
            tracing::warn!("the door answers already");
            return;
        }
        *known = Some(door);
    }

    /// Asks the door of the member `node`; `method` and the messages are the doors' business.
    ///
    /// # Errors
    /// When the node is no member or does not answer.
    pub async fn ask_door(
        &self,
        node: u64,
        method: &str,
        request: Bytes,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let inner = Arc::clone(&self.inner);
        let method = method.to_owned();
        // Connections live on the ring's runtime.
        let asking = self
            .inner
            .runtime
            .spawn(async move { ask(&inner, node, method, request).await });
        match asking.await {
            Ok(answer) => answer,
            Err(_) => Err(Status::unavailable("the store is closed")),
        }
    }
}

async fn ask(
    inner: &Inner,
    node: u64,
    method: String,
    request: Bytes,
) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
    let started = inner
        .started()
        .ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))?;
    let address = inner
        .peer_address(started, node)
        .ok_or_else(|| Status::unavailable(format!("node {node} is no member")))?;
    let mut client = inner
        .dialer
        .shared(&address, Some(node))
        .map_err(|why| Status::unavailable(why.to_string()))?;
    let request = proto::AskDoorRequest {
        cluster_id: started.cluster_id.clone(),
        method,
        request,
    };
    let answers = client.ask_door(request).await?.into_inner();
    Ok(answers
        .map(|answer| answer.map(|answer| answer.response))
        .boxed())
}
