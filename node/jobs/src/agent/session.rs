//! One attachment to one node.

use std::{collections::VecDeque, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use trireme_api::client::Client;
use trireme_proto::{
    api::{
        AgentBeat, AgentHello, AgentMessage, JobFinished, JobStarted, NodeMessage, RegisterRequest,
        agent_message, node_message,
    },
    state::JobState,
};

use super::{
    AgentOptions,
    runs::{Event, Runs},
    tail::Tails,
};

/// Signs of life per lease period: a few may get lost.
const BEATS_PER_LEASE: u32 = 6;
/// Of a lease period: the agent takes its leases for over this much earlier than the leader does, which is the time it
/// has to kill what it runs.
const MARGIN: u32 = 6;
/// Messages on their way to the node, logs aside.
const OUTBOUND: usize = 16;
/// Segments of logs on their way to the node.
const LOGS: usize = 4;
/// Messages that wait for room on that way. Two per run and an answer each; a node that takes nothing for so long, or
/// asks so much, is given up.
const MAX_PENDING: usize = 4096;
/// A call to a node that takes longer is given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How an attachment ended.
pub(super) enum Ended {
    /// The agent is to stop.
    Stopped,
    /// The cluster never takes such an agent.
    Refused(String),
    /// What it runs is no longer its own.
    Fenced(String),
    /// The node is gone or does not answer.
    Lost { lasted: Duration, why: String },
}

pub(super) struct Session<'a> {
    pub(super) options: &'a AgentOptions,
    pub(super) agent_id: &'a str,
    pub(super) address: &'a str,
}

/// Learnt when it registers; held across attachments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registration {
    incarnation: u64,
    lease: Duration,
    /// Until when the leases hold unless renewed.
    until: Instant,
}

/// Resolves when the leases have run out; never while there is no registration.
pub(super) async fn expired(registration: Option<&Registration>) {
    match registration {
        Some(known) => sleep_until(known.until).await,
        None => std::future::pending().await,
    }
}

fn holds(granted: Duration) -> Duration {
    granted - granted / MARGIN
}

/// The ways to and from a node.
struct Attached {
    control: mpsc::Sender<AgentMessage>,
    logs: mpsc::Sender<AgentMessage>,
    inbound: Streaming<NodeMessage>,
}

/// What the agent has to say on this attachment.
struct Talk {
    pending: VecDeque<agent_message::Message>,
    /// When the beats were made that the node has not answered. It answers each, in order.
    beats: VecDeque<Instant>,
    tails: Tails,
}

fn expiry() -> Ended {
    Ended::Fenced("no renewal for a whole lease period".to_owned())
}

fn refused(status: &Status, lasted: Duration) -> Ended {
    let why = status.message().to_owned();
    match status.code() {
        // Another registration took over, or the leases were taken back.
        Code::Aborted => Ended::Fenced(why),
        Code::InvalidArgument | Code::PermissionDenied => Ended::Refused(why),
        _ => Ended::Lost { lasted, why },
    }
}

impl Session<'_> {
    pub(super) async fn run(
        &self,
        registration: &mut Option<Registration>,
        runs: &mut Runs,
        stop: &CancellationToken,
    ) -> Ended {
        let began = Instant::now();
        let lost = |why: &str| Ended::Lost {
            lasted: began.elapsed(),
            why: why.to_owned(),
        };
        let held = *registration;
        let attached = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            () = expired(held.as_ref()) => return expiry(),
            attached = timeout(CALL_TIMEOUT, self.attach(registration)) => attached,
        };
        let mut attached = match attached {
            Ok(Ok(attached)) => attached,
            Ok(Err(status)) => return refused(&status, Duration::ZERO),
            Err(_) => return lost("no answer in time"),
        };
        let Some(known) = registration.as_mut() else {
            return lost("not registered");
        };
        tracing::info!(
            node = self.address,
            incarnation = known.incarnation,
            "attached"
        );
        let mut talk = Talk {
            pending: runs.owed().into(),
            beats: VecDeque::new(),
            tails: Tails::new(attached.logs.clone()),
        };
        let mut beat = interval(known.lease / BEATS_PER_LEASE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                () = sleep_until(known.until) => return expiry(),
                permit = attached.control.reserve(), if !talk.pending.is_empty() => match permit {
                    Ok(permit) => if let Some(message) = talk.pending.pop_front() {
                        permit.send(say(message));
                    },
                    Err(_) => return lost("the node ended the attachment"),
                },
                // One that cannot be sent now would only pile up.
                _ = beat.tick(), if talk.pending.is_empty() => {
                    talk.beats.push_back(Instant::now());
                    let running = runs.running();
                    talk.pending.push_back(agent_message::Message::Beat(AgentBeat { running }));
                }
                event = runs.next_event() => talk.pending.push_back(report(event)),
                message = attached.inbound.next() => match message {
                    None => return lost("the node ended the attachment"),
                    Some(Err(status)) => return refused(&status, began.elapsed()),
                    Some(Ok(message)) => if heed(message, known, runs, &mut talk) {
                        beat.reset_immediately();
                    },
                },
            }
            if talk.pending.len() > MAX_PENDING {
                return lost("the node does not keep up");
            }
        }
    }

    async fn attach(&self, registration: &mut Option<Registration>) -> Result<Attached, Status> {
        let client = Client::connect_with(self.address, &self.options.connect)
            .await
            .map_err(|why| Status::unavailable(why.to_string()))?;
        let known = match *registration {
            Some(known) => known,
            None => *registration.insert(self.register(&client).await?),
        };
        let (control, said) = mpsc::channel(OUTBOUND);
        let (logs, segments) = mpsc::channel(LOGS);
        let hello = agent_message::Message::Hello(AgentHello {
            agent_id: self.agent_id.to_owned(),
            incarnation: known.incarnation,
        });
        control
            .send(say(hello))
            .await
            .map_err(|_| Status::internal("the stream ended before it began"))?;
        // Logs give way to everything else.
        let outbound = stream::select_with_strategy(
            ReceiverStream::new(said),
            ReceiverStream::new(segments),
            |_: &mut ()| stream::PollNext::Left,
        );
        let inbound = client.agents().attach(outbound).await?.into_inner();
        Ok(Attached {
            control,
            logs,
            inbound,
        })
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
            until: before + holds(lease),
        })
    }
}

/// Does what the node says. True when it wants a sign of life now.
fn heed(message: NodeMessage, known: &mut Registration, runs: &mut Runs, talk: &mut Talk) -> bool {
    let Some(message) = message.message else {
        return false;
    };
    match message {
        node_message::Message::Start(start) => {
            if let Some(job) = start.job {
                runs.start(job, start.storage);
            }
        }
        node_message::Message::Stop(stop) => {
            if !runs.stop(&stop.job_id, stop.fence, &stop.reason) {
                // Never started here: it is over as far as this agent is concerned.
                let finished = JobFinished {
                    job_id: stop.job_id,
                    fence: stop.fence,
                    state: JobState::Aborted.into(),
                    description: stop.reason,
                };
                talk.pending
                    .push_back(agent_message::Message::Finished(finished));
            }
        }
        node_message::Message::Settled(settled) => runs.settle(&settled.job_id, settled.fence),
        node_message::Message::Renewed(renewed) => {
            // The leader counts from when it heard the beat, which is later.
            if let Some(asked) = talk.beats.pop_front() {
                let granted = Duration::from_millis(u64::from(renewed.lease_millis));
                known.until = known.until.max(asked + holds(granted));
            }
        }
        node_message::Message::LogWanted(wanted) => talk.tails.heed(wanted, runs),
        node_message::Message::BeatWanted(_) => return true,
    }
    false
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
