//! Agents: worker processes that lease jobs. The scheduler on the leader grants leases; the node an agent is attached
//! to tells it what they are and carries back how they end.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use trireme_proto::{
    api::{
        AgentLoad, AgentMessage, ListAgentsRequest, ListAgentsResponse, NodeMessage,
        RegisterRequest, RegisterResponse, RenewRequest, RenewResponse, Renewed, RunningJob,
        SettledAssignment, StartAssignment, StopAssignment, agent_message,
        agent_service_server::AgentService, node_message,
    },
    state::{
        Agent, Command, FinishJob, Job, RegisterAgent, Rejection, SetAgent, StartJob,
        command::Body, outcome,
    },
};
use trireme_raft::{Store, WatchError};
use uuid::Uuid;

use super::{Services, principal};
use crate::{attachments::AGENT_QUEUE, attachments::Attachments, client::Client};

/// Between two tries to record what an agent said while there is no quorum.
const RETRY: Duration = Duration::from_millis(200);
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
        let who = principal(&request);
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
        let body = Body::RegisterAgent(RegisterAgent {
            agent: Some(Agent {
                id: agent_id.clone(),
                name: asked.name,
                clusters: asked.clusters,
                capacity: asked.capacity,
                version: asked.version,
                node_id: self.0.store.node_id(),
                ..Agent::default()
            }),
        });
        let (_, done) = self.0.propose(who, "", body).await?;
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
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|message| message.message);
        let Some(agent_message::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message of an attachment is a hello",
            ));
        };
        let (outbound, receiver) = mpsc::channel(AGENT_QUEUE);
        let session = Session {
            services: self.0.clone(),
            agent_id: hello.agent_id,
            incarnation: hello.incarnation,
        };
        session.begin().await?;
        tokio::spawn(session.run(inbound, outbound));
        let stream = tokio_stream::StreamExt::map(ReceiverStream::new(receiver), Ok);
        Ok(Response::new(Box::pin(stream)))
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
        let granted = self
            .0
            .leases
            .renew(&asked.agent_id, asked.incarnation, &asked.running);
        Ok(Response::new(RenewResponse {
            lease_millis: granted.map_or(0, millis),
        }))
    }
}

/// Rounded up, as a period of no seconds would never hold.
fn seconds(period: Duration) -> u32 {
    u32::try_from(period.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

fn millis(period: Duration) -> u32 {
    u32::try_from(period.as_millis()).unwrap_or(u32::MAX)
}

/// One attachment of one agent.
struct Session {
    services: Services,
    agent_id: String,
    incarnation: u64,
}

impl Session {
    fn store(&self) -> &Store {
        &self.services.store
    }

    fn attachments(&self) -> &Attachments {
        &self.services.attachments
    }

    fn principal(&self) -> String {
        format!("agent:{}", self.agent_id)
    }

    /// Only the newest incarnation of an agent may attach; the record then says where it is.
    async fn begin(&self) -> Result<(), Status> {
        // Another node may have registered it a moment ago.
        let index = self
            .store()
            .linearize()
            .await
            .map_err(|why| Status::unavailable(why.to_string()))?;
        let view = self.store().at_least(index).await;
        let known = view
            .agent(&self.agent_id)
            .filter(|agent| agent.incarnation == self.incarnation && !agent.lost);
        let Some(agent) = known else {
            return Err(Status::aborted(
                "this agent was registered anew or given up: stop what it runs and register again",
            ));
        };
        if agent.node_id != self.store().node_id() {
            let body = Body::SetAgent(SetAgent {
                id: self.agent_id.clone(),
                incarnation: self.incarnation,
                draining: agent.draining,
                lost: false,
                node_id: self.store().node_id(),
            });
            self.services.propose(self.principal(), "", body).await?;
        }
        Ok(())
    }

    async fn run(self, mut inbound: Streaming<AgentMessage>, outbound: mpsc::Sender<NodeMessage>) {
        let attachment = self.attachments().attach(&self.agent_id, outbound.clone());
        let closing = self.attachments().closing();
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        let mut view = self.store().view();
        let mut watch = self.store().watch(Some(view.revision));
        self.tell(&view, &mut told);
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(message)) => self.hear(message),
                    Ok(None) => break,
                    Err(why) => {
                        tracing::info!(agent = self.agent_id, %why, "agent detached");
                        break;
                    }
                },
                batch = watch.next() => {
                    match batch {
                        Ok(_) => {}
                        Err(WatchError::Closed) => break,
                        // Compacted: the view has everything.
                        Err(_) => watch = self.store().watch(Some(view.revision)),
                    }
                    view = self.store().view();
                    self.tell(&view, &mut told);
                }
                () = outbound.closed() => break,
                () = closing.cancelled() => break,
            }
            if !self.attachments().is_current(&attachment) {
                break;
            }
        }
        tracing::info!(agent = self.agent_id, "attachment ended");
    }

    /// What the agent's leases ask of it and it was not told on this attachment.
    fn tell(&self, state: &trireme_state::State, told: &mut BTreeMap<String, Told>) {
        let mut gone: BTreeMap<String, Told> = std::mem::take(told);
        for job in state.leases_of_agent(&self.agent_id) {
            let Some(lease) = &job.lease else { continue };
            let before = gone
                .remove(&job.id)
                .filter(|before| before.fence == lease.fence);
            let aborted = job.state() == trireme_proto::state::JobState::Aborted;
            let now = Told {
                fence: lease.fence,
                stop: aborted,
            };
            let message = match &before {
                Some(before) if before.stop == aborted => None,
                _ if aborted => Some(self.stop(job, lease.fence)),
                _ => Some(node_message::Message::Start(StartAssignment {
                    job: Some(Job::clone(job)),
                    storage: self.services.storage.clone(),
                })),
            };
            if message.is_none_or(|message| self.attachments().send(&self.agent_id, message)) {
                told.insert(job.id.clone(), now);
            }
        }
        for (job_id, before) in gone {
            // The lease is over: whatever still runs under it must end.
            self.attachments().send(
                &self.agent_id,
                node_message::Message::Settled(SettledAssignment {
                    job_id,
                    fence: before.fence,
                }),
            );
        }
    }

    fn stop(&self, job: &Job, fence: u64) -> node_message::Message {
        node_message::Message::Stop(StopAssignment {
            job_id: job.id.clone(),
            fence,
            reason: job.abort_reason.clone(),
        })
    }

    fn hear(&self, message: AgentMessage) {
        match message.message {
            Some(agent_message::Message::Beat(beat)) => {
                tokio::spawn(renew(
                    self.services.clone(),
                    self.agent_id.clone(),
                    self.incarnation,
                    beat.running,
                ));
            }
            Some(agent_message::Message::Started(started)) => {
                let body = Body::StartJob(StartJob {
                    id: started.job_id,
                    fence: started.fence,
                });
                tokio::spawn(record(self.services.clone(), self.principal(), body));
            }
            Some(agent_message::Message::Finished(finished)) => {
                let settled = SettledAssignment {
                    job_id: finished.job_id.clone(),
                    fence: finished.fence,
                };
                let body = Body::FinishJob(FinishJob {
                    id: finished.job_id,
                    fence: finished.fence,
                    state: finished.state,
                    description: finished.description,
                    url: String::new(),
                });
                let (services, principal, agent_id) = (
                    self.services.clone(),
                    self.principal(),
                    self.agent_id.clone(),
                );
                tokio::spawn(async move {
                    if record(services.clone(), principal, body).await {
                        services
                            .attachments
                            .send(&agent_id, node_message::Message::Settled(settled));
                    }
                });
            }
            Some(agent_message::Message::Log(segment)) => self.attachments().deliver(segment),
            Some(agent_message::Message::Hello(_)) | None => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Told {
    fence: u64,
    stop: bool,
}

/// Records what an agent said; true when it is recorded or void. The agent says it again on its next attachment, so
/// an end of trying loses nothing.
async fn record(services: Services, principal: String, body: Body) -> bool {
    for _ in 0..(services.leases.period().as_millis() / RETRY.as_millis()) {
        let command = Command {
            min_level: 1,
            principal: principal.clone(),
            body: Some(body.clone()),
            ..Command::default()
        };
        match services.store.propose(command).await {
            Ok(applied) => {
                if let Some(outcome::Result::Rejected(rejected)) = applied.outcome.result {
                    let level_is_info = matches!(
                        rejected.code(),
                        Rejection::Fenced | Rejection::Conflict | Rejection::NotFound
                    );
                    if level_is_info {
                        tracing::info!(
                            who = principal,
                            why = rejected.message,
                            "an agent's report is void"
                        );
                    } else {
                        tracing::warn!(
                            who = principal,
                            why = rejected.message,
                            "an agent's report was refused"
                        );
                    }
                }
                return true;
            }
            Err(why) => tracing::debug!(%why, "an agent's report is not recorded yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
    false
}

/// To the leader, which keeps renewals; the agent learns how long its leases hold.
async fn renew(services: Services, agent_id: String, incarnation: u64, running: Vec<RunningJob>) {
    let leader = services.store.leadership().borrow().leader;
    let granted = if leader == Some(services.store.node_id()) {
        services
            .leases
            .renew(&agent_id, incarnation, &running)
            .map_or(0, millis)
    } else {
        let status = services.store.status();
        let address = status
            .members
            .iter()
            .find(|member| Some(member.node.id) == leader)
            .map(|member| member.node.api_address.clone());
        let Some(address) = address else { return };
        let asked = RenewRequest {
            agent_id: agent_id.clone(),
            incarnation,
            running,
        };
        match forward(&address, asked).await {
            Ok(granted) => granted,
            Err(why) => {
                tracing::debug!(%why, "a renewal did not reach the leader");
                return;
            }
        }
    };
    if granted > 0 {
        services.attachments.send(
            &agent_id,
            node_message::Message::Renewed(Renewed {
                lease_millis: granted,
            }),
        );
    }
}

async fn forward(address: &str, asked: RenewRequest) -> Result<u32, Status> {
    let client = Client::connect(&format!("http://{address}"))
        .await
        .map_err(|why| Status::unavailable(why.to_string()))?;
    Ok(client
        .agents()
        .renew(asked)
        .await?
        .into_inner()
        .lease_millis)
}
