//! What this node's door does for another node's client, and asks of others for its own: over the peer listener, where
//! each proves which node it is, so that nobody lends a client's token.

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream, stream::BoxStream};
use prost::Message as _;
use tokio::runtime::Handle;
use tonic::Status;
use trireme_proto::api::{ReadLogRequest, ReadLogResponse, RenewRequest, RenewResponse};
use trireme_raft::{DoorCalls, Store};

use crate::{
    LogChunk, RunLogs,
    services::{Services, agents::renew_here},
};

/// The methods that nodes ask of each other; their messages are the client door's.
const RENEW: &str = "/trireme.api.v1.AgentService/Renew";
const READ_LOG: &str = "/trireme.api.v1.JobService/ReadLog";

fn malformed(why: prost::DecodeError) -> Status {
    Status::invalid_argument(why.to_string())
}

/// Answers other nodes.
pub(crate) struct Neighbours {
    services: Services,
    /// Peers call on the ring's runtime; the work is done on the doors'.
    runtime: Handle,
}

impl Neighbours {
    /// Must be called on the runtime of the doors.
    pub(crate) fn new(services: Services) -> Self {
        Self {
            services,
            runtime: Handle::current(),
        }
    }

    fn renew(&self, request: Bytes) -> Result<Bytes, Status> {
        let asked = RenewRequest::decode(request).map_err(malformed)?;
        let answer = RenewResponse {
            lease_millis: renew_here(
                &self.services,
                &asked.agent_id,
                asked.incarnation,
                &asked.running,
            ),
        };
        Ok(answer.encode_to_vec().into())
    }

    fn read_log(
        &self,
        request: Bytes,
    ) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
        let asked = ReadLogRequest::decode(request).map_err(malformed)?;
        let _doors = self.runtime.enter();
        let logs = RunLogs::new(self.services.clone());
        // From here and nobody beyond: two nodes that each believe the agent at the other must not ask each other for ever.
        let chunks = logs.read_attached(asked.id, asked.offset, asked.follow);
        Ok(chunks
            .map(|chunk| {
                chunk.map(|LogChunk { offset, data }| {
                    Bytes::from(ReadLogResponse { offset, data }.encode_to_vec())
                })
            })
            .boxed())
    }
}

impl DoorCalls for Neighbours {
    fn answer(&self, method: &str, request: Bytes) -> BoxStream<'static, Result<Bytes, Status>> {
        let answers = match method {
            RENEW => Ok(stream::once(std::future::ready(self.renew(request))).boxed()),
            READ_LOG => self.read_log(request),
            _ => Err(Status::unimplemented(format!(
                "nodes do not ask each other for {method}"
            ))),
        };
        answers.unwrap_or_else(|why| std::future::ready(Err(why)).into_stream().boxed())
    }
}

/// Asks the leader to renew an agent's leases; milliseconds that they hold.
pub(crate) async fn renew(store: &Store, leader: u64, asked: &RenewRequest) -> Result<u32, Status> {
    let request = asked.encode_to_vec().into();
    let mut answers = store.ask_door(leader, RENEW, request).await?;
    let answer = answers
        .next()
        .await
        .ok_or_else(|| Status::unavailable("the leader said nothing"))??;
    let answer = RenewResponse::decode(answer).map_err(malformed)?;
    Ok(answer.lease_millis)
}

/// A log from the node that the agent is attached to.
pub(crate) async fn read_log(
    store: &Store,
    node: u64,
    asked: &ReadLogRequest,
) -> Result<BoxStream<'static, Result<ReadLogResponse, Status>>, Status> {
    let request = asked.encode_to_vec().into();
    let answers = store.ask_door(node, READ_LOG, request).await?;
    Ok(answers
        .map(|answer| ReadLogResponse::decode(answer?).map_err(malformed))
        .boxed())
}
