//! Agents that run nothing: they lease, start, finish and stop jobs as real ones do, over the simulated network, and take
//! some simulated time for it.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use trireme_proto::{
    api::{
        AgentBeat, AgentHello, AgentMessage, JobFinished, JobStarted, NodeMessage, RegisterRequest,
        RunningJob, agent_message::Message as Said, agent_service_client::AgentServiceClient,
        node_message::Message as Told,
    },
    state::JobState,
};

use super::{chance::Chance, clients::door, cluster::Cluster};

const FIRST_HOST: u64 = 200;
const CAPACITY: u32 = 3;
const BEATS_PER_LEASE: u32 = 6;
/// Messages on their way to the node.
const OUTBOUND: usize = 64;
const CALL: Duration = Duration::from_secs(10);
const RUN_MS: (u64, u64) = (50, 4000);
const REATTACH_MS: (u64, u64) = (50, 1000);

pub(crate) struct Agent {
    pub(crate) number: u64,
    pub(crate) cluster: Cluster,
    pub(crate) chance: Chance,
}

/// One job on this agent.
struct Run {
    fence: u64,
    done: Instant,
    /// Once it is over.
    result: Option<JobState>,
}

#[derive(Default)]
struct Held {
    /// 0 = not registered.
    incarnation: u64,
    lease: Duration,
    until: Option<Instant>,
    /// By job.
    runs: BTreeMap<String, Run>,
}

impl Agent {
    fn id(&self) -> String {
        format!("agent-{}", self.number)
    }

    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut held = Held::default();
        while !stop.is_cancelled() {
            let node = {
                let ids = self.cluster.ids();
                self.chance.pick(&ids).copied().unwrap_or(1)
            };
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ended = self.attach(node, &mut held) => ended,
            };
            self.cluster.trace().line(
                self.id(),
                format_args!("at {node}: {:?} {}", ended.code(), ended.message()),
            );
            let expired = held.until.is_some_and(|until| until <= Instant::now());
            if ended.code() == Code::Aborted || expired {
                // Somebody else may run them now.
                held = Held::default();
            }
            sleep(self.chance.millis(REATTACH_MS.0, REATTACH_MS.1)).await;
        }
    }

    async fn attach(&self, node: u64, held: &mut Held) -> Status {
        match self.attached(node, held).await {
            Ok(()) => Status::unavailable("the stream ended"),
            Err(status) => status,
        }
    }

    async fn attached(&self, node: u64, held: &mut Held) -> Result<(), Status> {
        let late = |_| Status::deadline_exceeded("no answer");
        let mut service =
            AgentServiceClient::new(door(&self.cluster, FIRST_HOST + self.number, node));
        if held.incarnation == 0 {
            let register = service.register(RegisterRequest {
                name: self.id(),
                clusters: vec!["default".to_owned()],
                capacity: CAPACITY,
                version: "simulated".to_owned(),
                agent_id: self.id(),
            });
            let registered = timeout(CALL, register).await.map_err(late)??.into_inner();
            held.incarnation = registered.incarnation;
            held.lease = Duration::from_secs(u64::from(registered.lease_seconds));
            held.until = Some(Instant::now() + held.lease);
        }
        let (said, saying) = mpsc::channel(OUTBOUND);
        let say = Saying(said);
        say.say(Said::Hello(AgentHello {
            agent_id: self.id(),
            incarnation: held.incarnation,
        }))
        .await?;
        let opening = service.attach(ReceiverStream::new(saying));
        let mut told: Streaming<NodeMessage> =
            timeout(CALL, opening).await.map_err(late)??.into_inner();
        for (id, run) in &held.runs {
            if let Some(state) = run.result {
                say.say(finished(id, run.fence, state)).await?;
            }
        }
        let mut beat = Instant::now();
        let mut beaten = beat;
        loop {
            let next = held
                .runs
                .values()
                .filter(|run| run.result.is_none())
                .map(|run| run.done)
                .min()
                .unwrap_or(beat);
            let until = held.until.unwrap_or(beat);
            tokio::select! {
                biased;
                message = told.message() => match message?.and_then(|message| message.message) {
                    None => return Ok(()),
                    Some(Told::Renewed(renewed)) => {
                        let lease = Duration::from_millis(u64::from(renewed.lease_millis));
                        held.until = Some(beaten + lease);
                    }
                    Some(Told::BeatWanted(_)) => beat = Instant::now(),
                    Some(message) => self.heed(message, held, &say).await?,
                },
                () = sleep_until(next.min(beat).min(until)) => {
                    let now = Instant::now();
                    if until <= now {
                        return Err(Status::aborted("the leases ran out"));
                    }
                    for (id, run) in &mut held.runs {
                        if run.result.is_none() && run.done <= now {
                            let state = match self.chance.below(4) {
                                0 => JobState::Failure,
                                _ => JobState::Success,
                            };
                            run.result = Some(state);
                            say.say(finished(id, run.fence, state)).await?;
                        }
                    }
                    if beat <= now {
                        beaten = now;
                        beat = now + held.lease / BEATS_PER_LEASE;
                        let running = held.runs.iter().map(|(id, run)| RunningJob {
                            job_id: id.clone(),
                            fence: run.fence,
                        });
                        let running = running.collect();
                        say.say(Said::Beat(AgentBeat { running })).await?;
                    }
                }
            }
        }
    }

    async fn heed(&self, message: Told, held: &mut Held, say: &Saying) -> Result<(), Status> {
        match message {
            Told::Start(start) => {
                let job = start.job.unwrap_or_default();
                let fence = job.lease.as_ref().map_or(0, |lease| lease.fence);
                let known = held.runs.get(&job.id);
                if known.is_some_and(|run| run.fence >= fence) {
                    return Ok(());
                }
                let done = Instant::now() + self.chance.millis(RUN_MS.0, RUN_MS.1);
                self.cluster
                    .trace()
                    .line(self.id(), format_args!("starts {} under {fence}", job.id));
                let run = Run {
                    fence,
                    done,
                    result: None,
                };
                held.runs.insert(job.id.clone(), run);
                say.say(Said::Started(JobStarted {
                    job_id: job.id,
                    fence,
                }))
                .await
            }
            Told::Stop(stop) => match held.runs.get_mut(&stop.job_id) {
                Some(run) if run.fence == stop.fence => {
                    let state = *run.result.get_or_insert(JobState::Aborted);
                    say.say(finished(&stop.job_id, stop.fence, state)).await
                }
                _ => {
                    say.say(finished(&stop.job_id, stop.fence, JobState::Aborted))
                        .await
                }
            },
            Told::Settled(settled) => {
                if held
                    .runs
                    .get(&settled.job_id)
                    .is_some_and(|run| run.fence == settled.fence)
                {
                    held.runs.remove(&settled.job_id);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The way to the node.
struct Saying(mpsc::Sender<AgentMessage>);

impl Saying {
    async fn say(&self, message: Said) -> Result<(), Status> {
        let message = AgentMessage {
            message: Some(message),
        };
        match timeout(CALL, self.0.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::unavailable("the stream is closed")),
            Err(_) => Err(Status::deadline_exceeded("the node takes nothing")),
        }
    }
}

fn finished(id: &str, fence: u64, state: JobState) -> Said {
    Said::Finished(JobFinished {
        job_id: id.to_owned(),
        fence,
        state: state.into(),
        description: "Simulated.".to_owned(),
    })
}
