//! Agents: worker processes that lease jobs. The scheduler on the leader grants leases; the node an agent is attached
//! to tells it what they are and carries back how they end.

mod reports;
mod session;

use std::{pin::Pin, time::Duration};

use futures::Stream;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use trireme_proto::{
    api::{
        AgentLoad, AgentMessage, ListAgentsRequest, ListAgentsResponse, NodeMessage,
        RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, agent_message,
        agent_service_server::AgentService,
    },
    state::{Agent, RegisterAgent, command::Body},
};
use uuid::Uuid;

pub(crate) use self::reports::renew_here;
use self::session::Session;
use super::{Services, caller};
use crate::{attachments::AGENT_QUEUE, auth::Who, flow::too_many};

/// How long an agent may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Feature level from which on an agent belongs to whoever registered it.
const OWNERS_LEVEL: u32 = 2;
/// Bounds of what an agent may say of itself.
const MAX_NAME: usize = 200;
const MAX_CLUSTERS: usize = 100;
const MAX_CAPACITY: u32 = 1000;

pub(crate) struct Door(pub(crate) Services);

#[async_trait]
impl AgentService for Door {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let who = caller(&request);
        let asked = request.into_inner();
        if asked.name.is_empty() || asked.name.len() > MAX_NAME {
            return Err(Status::invalid_argument(format!(
                "name: 1 to {MAX_NAME} bytes"
            )));
        }
        if asked.clusters.is_empty() || asked.clusters.len() > MAX_CLUSTERS {
            return Err(Status::invalid_argument(format!(
                "clusters: 1 to {MAX_CLUSTERS}"
            )));
        }
        if asked.capacity == 0 || asked.capacity > MAX_CAPACITY {
            return Err(Status::invalid_argument(format!(
                "capacity: 1 to {MAX_CAPACITY}"
            )));
        }
        let agent_id = if asked.agent_id.is_empty() {
            Uuid::new_v4().to_string()
        } else {
            asked.agent_id
        };
        let view = self.0.store.view();
        if let Some(known) = view.agent(&agent_id) {
            own(&who, known)?;
        }
        let body = Body::RegisterAgent(RegisterAgent {
            agent: Some(Agent {
                id: agent_id.clone(),
                name: asked.name,
                clusters: asked.clusters,
                capacity: asked.capacity,
                version: asked.version,
                node_id: self.0.store.node_id(),
                principal: if view.feature_level() >= OWNERS_LEVEL {
                    who.owner().to_owned()
                } else {
                    String::new()
                },
                ..Agent::default()
            }),
        });
        let (_, done) = self.0.propose(&who, "", body).await?;
        Ok(Response::new(RegisterResponse {
            agent_id,
            incarnation: done.token,
            lease_seconds: seconds(self.0.leases.period()),
        }))
    }

    type AttachStream = Pin<Box<dyn Stream<Item = Result<NodeMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let slot = self.0.flow.agents.take();
        let slot = slot.ok_or_else(|| too_many("attached agents"))?;
        let who = caller(&request);
        let mut inbound = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello in time"))??
            .and_then(|message| message.message);
        let Some(agent_message::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message of an attachment is a hello",
            ));
        };
        let (outbound, receiver) = mpsc::channel(AGENT_QUEUE);
        who.about(format!("agent {}", hello.agent_id));
        let session = Session {
            services: self.0.clone(),
            agent_id: hello.agent_id,
            incarnation: hello.incarnation,
            who,
        };
        session.begin().await?;
        let gauge = self.0.flow.gauge("agent_messages", &outbound);
        tokio::spawn(async move {
            let _held = (slot, gauge);
            session.run(inbound, outbound).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let view = self.0.view(request.get_ref().read.as_ref()).await?;
        let agents: Vec<Agent> = view.agents().map(|agent| Agent::clone(agent)).collect();
        Ok(Response::new(ListAgentsResponse {
            load: agents
                .iter()
                .map(|agent| AgentLoad {
                    agent_id: agent.id.clone(),
                    running: view.lease_count(&agent.id),
                })
                .collect(),
            agents,
            revision: view.revision,
        }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let asked = request.get_ref();
        if let Some(known) = self.0.store.view().agent(&asked.agent_id) {
            own(&caller(&request), known)?;
        }
        Ok(Response::new(RenewResponse {
            lease_millis: reports::renew_here(
                &self.0,
                &asked.agent_id,
                asked.incarnation,
                &asked.running,
            ),
        }))
    }
}

/// Nobody speaks for an agent that somebody else registered.
fn own(who: &Who, agent: &Agent) -> Result<(), Status> {
    if who.owns(&agent.principal) {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "agent {} was registered by {}, not by {who}: use its token, or an empty --directory for an agent of your own",
        agent.id, agent.principal
    )))
}

/// Rounded up, as a period of no seconds would never hold.
fn seconds(period: Duration) -> u32 {
    u32::try_from(period.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}
