//! One attachment to one node.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use trireme_api::client::Client;
use trireme_proto::{
    api::{
        AgentBeat, AgentHello, AgentMessage, JobFinished, JobStarted, NodeMessage, RegisterRequest,
        RunningJob, agent_message, node_message,
    },
    state::JobState,
};

use super::{
    AgentOptions,
    runs::{Event, Runs},
    tail,
};

/// Signs of life per lease period: a few may get lost.
const BEATS_PER_LEASE: u32 = 6;
/// Messages to the node that wait to be sent.
const OUTBOUND: usize = 256;
/// A call to a node that takes longer is given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How an attachment ended.
pub(super) enum Ended {
    /// The agent is to stop.
    Stopped,
    /// What it runs is no longer its own.
    Fenced(String),
    /// The node is gone or does not answer.
    Lost { was_attached: bool, why: String },
}

pub(super) struct Session<'a> {
    pub(super) options: &'a AgentOptions,
    pub(super) agent_id: &'a str,
    pub(super) address: &'a str,
}

/// Learnt at registration; held across attachments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registration {
    incarnation: u64,
    lease: Duration,
    /// Until when the leases hold unless renewed.
    until: Instant,
}

fn lost(was_attached: bool, why: impl ToString) -> Ended {
    Ended::Lost {
        was_attached,
        why: why.to_string(),
    }
}

fn refused(was_attached: bool, status: &Status) -> Ended {
    match status.code() {
        // The node says that another registration took over.
        Code::Aborted => Ended::Fenced(status.message().to_owned()),
        _ => lost(was_attached, status.message()),
    }
}

impl Session<'_> {
    pub(super) async fn run(
        &self,
        registration: &mut Option<Registration>,
        runs: &mut Runs,
        stop: &CancellationToken,
    ) -> Ended {
        let until = registration.map(|known| known.until);
        let connected = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            ended = expire(until) => return ended,
            connected = timeout(CALL_TIMEOUT, self.attach(registration)) => connected,
        };
        let (outbound, mut inbound) = match connected {
            Ok(Ok(streams)) => streams,
            Ok(Err(status)) => return refused(false, &status),
            Err(_) => return lost(false, "no answer in time"),
        };
        let Some(known) = registration.as_mut() else {
            return lost(false, "not registered");
        };
        tracing::info!(
            node = self.address,
            incarnation = known.incarnation,
            "attached"
        );
        for message in runs.owed() {
            if outbound.try_send(say(message)).is_err() {
                return lost(true, "the node does not keep up");
            }
        }
        let mut beat = interval(known.lease / BEATS_PER_LEASE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let said = tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                () = sleep_until(known.until) => {
                    return Ended::Fenced("no renewal for a whole lease period".to_owned());
                }
                _ = beat.tick() => Some(agent_message::Message::Beat(AgentBeat { running: runs.running() })),
                event = runs.next_event() => Some(report(event)),
                message = inbound.next() => match message {
                    None => return lost(true, "the node ended the attachment"),
                    Some(Err(status)) => return refused(true, &status),
                    Some(Ok(message)) => self.heed(message, known, runs, &outbound),
                },
            };
            if let Some(message) = said
                && outbound.send(say(message)).await.is_err()
            {
                return lost(true, "the node ended the attachment");
            }
        }
    }

    async fn attach(
        &self,
        registration: &mut Option<Registration>,
    ) -> Result<(mpsc::Sender<AgentMessage>, tonic::Streaming<NodeMessage>), Status> {
        let client = Client::connect(self.address)
            .await
            .map_err(|why| Status::unavailable(why.to_string()))?;
        let known = match *registration {
            Some(known) => known,
            None => {
                let known = self.register(&client).await?;
                *registration = Some(known);
                known
            }
        };
        let (outbound, receiver) = mpsc::channel(OUTBOUND);
        let hello = agent_message::Message::Hello(AgentHello {
            agent_id: self.agent_id.to_owned(),
            incarnation: known.incarnation,
        });
        outbound
            .send(say(hello))
            .await
            .map_err(|_| Status::internal("the stream ended before it began"))?;
        let inbound = client
            .agents()
            .attach(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok((outbound, inbound))
    }

    async fn register(&self, client: &Client) -> Result<Registration, Status> {
        let before = Instant::now();
        let answer = client
            .agents()
            .register(RegisterRequest {
                name: self.options.name.clone(),
                clusters: self.options.clusters.clone(),
                capacity: self.options.capacity,
                version: self.options.version.clone(),
                agent_id: self.agent_id.to_owned(),
            })
            .await?
            .into_inner();
        let lease = Duration::from_secs(u64::from(answer.lease_seconds.max(1)));
        Ok(Registration {
            incarnation: answer.incarnation,
            lease,
            until: before + lease,
        })
    }

    /// Does what the node says; returns what there is to answer at once.
    fn heed(
        &self,
        message: NodeMessage,
        known: &mut Registration,
        runs: &mut Runs,
        outbound: &mpsc::Sender<AgentMessage>,
    ) -> Option<agent_message::Message> {
        match message.message? {
            node_message::Message::Start(start) => {
                let job = start.job?;
                runs.start(job, start.storage);
                None
            }
            node_message::Message::Stop(stop) => {
                if runs.stop(&stop.job_id, stop.fence, &stop.reason) {
                    return None;
                }
                // Never started here: it is over as far as this agent is concerned.
                Some(agent_message::Message::Finished(JobFinished {
                    job_id: stop.job_id,
                    fence: stop.fence,
                    state: JobState::Aborted.into(),
                    description: stop.reason,
                }))
            }
            node_message::Message::Settled(settled) => {
                runs.settle(&settled.job_id, settled.fence);
                None
            }
            node_message::Message::Renewed(renewed) => {
                let granted = Duration::from_millis(u64::from(renewed.lease_millis));
                // The grant counts from when it was asked for, at most one beat ago.
                let granted = granted.saturating_sub(known.lease / BEATS_PER_LEASE);
                known.until = known.until.max(Instant::now() + granted);
                None
            }
            node_message::Message::LogWanted(wanted) => {
                tail::heed(runs, wanted, outbound);
                None
            }
        }
    }
}

/// While not attached, leases run out.
async fn expire(until: Option<Instant>) -> Ended {
    match until {
        Some(until) => {
            sleep_until(until).await;
            Ended::Fenced("no renewal for a whole lease period".to_owned())
        }
        None => std::future::pending().await,
    }
}

fn say(message: agent_message::Message) -> AgentMessage {
    AgentMessage {
        message: Some(message),
    }
}

pub(super) fn report(event: Event) -> agent_message::Message {
    match event {
        Event::Started { job_id, fence } => {
            agent_message::Message::Started(JobStarted { job_id, fence })
        }
        Event::Finished {
            job_id,
            fence,
            state,
            description,
        } => agent_message::Message::Finished(JobFinished {
            job_id,
            fence,
            state: state.into(),
            description,
        }),
    }
}

pub(super) fn running(job_id: &str, fence: u64) -> RunningJob {
    RunningJob {
        job_id: job_id.to_owned(),
        fence,
    }
}
