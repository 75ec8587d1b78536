//! One attachment of one agent: what the state asks of it is said, what it says is recorded.
//!
//! The agent is told from the state alone, and everything anew on each attachment, so a lost message costs nothing.
//! Nothing here waits for an agent that does not read: what it is owed is a queue whose job part is made again from
//! every newer view, and an agent that floods is no longer listened to until it reads.

use std::collections::{BTreeMap, VecDeque};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Fuse, FusedFuture as _},
    stream::FuturesUnordered,
};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Status, Streaming};
use trireme_proto::{
    api::{
        AgentBeat, AgentMessage, BeatWanted, LogSegment, NodeMessage, RenewRequest, Renewed,
        RunningJob, SettledAssignment, StartAssignment, StopAssignment, agent_message,
        node_message,
    },
    state::{Job, JobState, SetAgent, command::Body},
};
use trireme_raft::{Store, View, WatchError};
use trireme_state::{Change, State};

use super::{
    MAX_CAPACITY, own,
    reports::{Settled, finished, record, renew, started},
};
use crate::{
    attachments::{Attachment, Heard, unwanted},
    auth::Who,
    services::{READ_TIMEOUT, Services},
};

/// Reports of one agent that are being recorded; at this number it is not listened to.
const MAX_REPORTS: usize = 64;
/// Answers to one agent that wait to be sent; at this number it is not listened to.
const MAX_ANSWERS: usize = 256;
/// Signs of life that wait for the answer to the one before; an agent that sends more is not one of ours.
const MAX_BEATS: usize = 16;

/// One attachment of one agent.
pub(super) struct Session {
    pub(super) services: Services,
    pub(super) agent_id: String,
    pub(super) incarnation: u64,
    pub(super) who: Who,
}

/// A new scheduler gives work only to agents that it has heard of.
fn is_new_office(change: &Change) -> bool {
    matches!(change, Change::Office(_))
}

/// What is going on for the agent beside the listening.
struct Business {
    duties: Duties,
    reports: FuturesUnordered<BoxFuture<'static, Option<Settled>>>,
    /// Each is answered, in order: the agent counts the grant from when it asked.
    beats: VecDeque<AgentBeat>,
    renewal: Fuse<BoxFuture<'static, u32>>,
}

impl Business {
    fn listens(&self) -> bool {
        self.reports.len() < MAX_REPORTS && self.duties.answers < MAX_ANSWERS
    }
}

/// The agent was fenced: another registration took over, or its leases were taken back.
fn fenced() -> Status {
    Status::aborted(
        "this agent was registered anew or given up: stop what it runs and register again",
    )
}

impl Session {
    fn store(&self) -> &Store {
        &self.services.store
    }

    fn principal(&self) -> String {
        format!("agent:{}", self.agent_id)
    }

    fn is_current(&self, state: &State) -> bool {
        state
            .agent(&self.agent_id)
            .is_some_and(|agent| agent.incarnation == self.incarnation && !agent.lost)
    }

    /// Only the newest incarnation of an agent may attach; the record then says where it is.
    pub(super) async fn begin(&self) -> Result<(), Status> {
        // Another node may have registered it a moment ago.
        let newest = async {
            let index = self.store().linearize().await;
            let index = index.map_err(|why| Status::unavailable(why.to_string()))?;
            Ok::<_, Status>(self.store().at_least(index).await)
        };
        let view = timeout(READ_TIMEOUT, newest)
            .await
            .map_err(|_| Status::unavailable("no quorum answered in time"))??;
        let known = view
            .agent(&self.agent_id)
            .filter(|_| self.is_current(&view));
        let Some(agent) = known else {
            return Err(fenced());
        };
        own(&self.who, agent)?;
        if agent.node_id != self.store().node_id() {
            let body = Body::SetAgent(SetAgent {
                id: self.agent_id.clone(),
                incarnation: self.incarnation,
                draining: agent.draining,
                lost: false,
                node_id: self.store().node_id(),
            });
            self.services
                .propose(&Who::part(self.principal()), "", body)
                .await?;
        }
        Ok(())
    }

    /// Runs until either end is gone.
    pub(super) async fn run(
        self,
        mut inbound: Streaming<AgentMessage>,
        outbound: mpsc::Sender<Heard>,
    ) {
        let attachment = self
            .services
            .attachments
            .attach(&self.agent_id, outbound.clone());
        let closing = self.services.attachments.closing();
        let mut business = Business {
            duties: Duties::default(),
            reports: FuturesUnordered::new(),
            beats: VecDeque::new(),
            renewal: Fuse::terminated(),
        };
        let mut view = self.store().view();
        let mut watch = self.store().watch(Some(view.revision));
        loop {
            if !self.is_current(&view) {
                tracing::warn!(agent = self.agent_id, "the agent is fenced");
                // One that does not read finds out when it is back.
                let _full = outbound.try_send(Err(fenced()));
                break;
            }
            if let Err(why) = self.who.is_still_good(&view) {
                tracing::warn!(agent = self.agent_id, %why, "the agent is not let in any more");
                let _full = outbound.try_send(Err(why));
                break;
            }
            self.review(&view, &mut business.duties);
            let ended = loop {
                tokio::select! {
                    changed = watch.next() => match changed {
                        Ok(batch) => {
                            if batch.changes.iter().any(is_new_office) {
                                business.duties.answer(node_message::Message::BeatWanted(BeatWanted {}));
                            }
                            if self.concerns(&batch.changes) {
                                break false;
                            }
                        }
                        Err(WatchError::Closed) => break true,
                        // The view has everything.
                        Err(WatchError::Compacted | WatchError::Lagging) => {
                            watch = self.store().watch(Some(self.store().view().revision));
                            break false;
                        }
                    },
                    permit = outbound.reserve(), if !business.duties.is_empty() => {
                        let (Ok(permit), Some(message)) = (permit, business.duties.pop()) else {
                            break true;
                        };
                        permit.send(Ok(message));
                    }
                    message = inbound.message(), if business.listens() => match message {
                        Ok(Some(message)) => if !self.hear(message, &attachment, &mut business) {
                            break true;
                        },
                        Ok(None) => break true,
                        Err(why) => {
                            tracing::info!(agent = self.agent_id, %why, "the agent is gone");
                            break true;
                        }
                    },
                    Some(settled) = business.reports.next(), if !business.reports.is_empty() => {
                        if let Some(settled) = settled {
                            business.duties.settle(&settled);
                        }
                    }
                    lease_millis = &mut business.renewal, if !business.renewal.is_terminated() => {
                        business.duties.answer(node_message::Message::Renewed(Renewed { lease_millis }));
                        self.renew_next(&mut business);
                    }
                    () = outbound.closed() => break true,
                    () = closing.cancelled() => break true,
                    () = attachment.replaced().cancelled() => break true,
                }
            };
            if ended {
                break;
            }
            view = self.store().view();
        }
        tracing::info!(agent = self.agent_id, "attachment ended");
    }

    /// Whether these changes may ask something of the agent.
    fn concerns(&self, changes: &[Change]) -> bool {
        changes.iter().any(|change| match change {
            Change::Job(_) | Change::Removed(_) => true,
            Change::Agent(agent) => agent.id == self.agent_id,
            _ => false,
        })
    }

    /// What the agent's leases ask of it and it was not told on this attachment.
    fn review(&self, state: &View, duties: &mut Duties) {
        let leases = state
            .leases_of_agent(&self.agent_id)
            .filter_map(|job| Some((&**job, job.lease.as_ref()?.fence)));
        duties.review(leases, &self.services.storage);
    }

    /// False when the agent breaks the protocol.
    fn hear(
        &self,
        message: AgentMessage,
        attachment: &Attachment,
        business: &mut Business,
    ) -> bool {
        match message.message {
            Some(agent_message::Message::Beat(beat)) => {
                if business.beats.len() >= MAX_BEATS {
                    tracing::warn!(agent = self.agent_id, "the agent sends too many beats");
                    return false;
                }
                // Revocation is a change, and looked at then; nothing else says that time has passed.
                if self.who.is_still_good(&self.store().view()).is_err() {
                    return false;
                }
                self.settle_strays(&beat.running, &mut business.duties);
                business.beats.push_back(beat);
                if business.renewal.is_terminated() {
                    self.renew_next(business);
                }
            }
            Some(agent_message::Message::Started(said)) => {
                let body = started(said.job_id, said.fence);
                let recorded = record(self.services.clone(), self.principal(), body);
                business.reports.push(recorded.map(|()| None).boxed());
            }
            Some(agent_message::Message::Finished(said)) => {
                let settled = Settled {
                    job_id: said.job_id.clone(),
                    fence: said.fence,
                };
                let recorded = record(self.services.clone(), self.principal(), finished(said));
                business
                    .reports
                    .push(recorded.map(|()| Some(settled)).boxed());
            }
            Some(agent_message::Message::Log(segment)) => {
                let LogSegment {
                    job_id, tail, end, ..
                } = &segment;
                let stop = (!end).then(|| unwanted(job_id, *tail));
                if !attachment.deliver(segment)
                    && let Some(stop) = stop
                {
                    business.duties.answer(stop);
                }
            }
            Some(agent_message::Message::Hello(_)) | None => {}
        }
        true
    }

    fn renew_next(&self, business: &mut Business) {
        if let Some(beat) = business.beats.pop_front() {
            let asked = RenewRequest {
                agent_id: self.agent_id.clone(),
                incarnation: self.incarnation,
                running: beat.running,
            };
            business.renewal = renew(self.services.clone(), asked).boxed().fuse();
        }
    }

    /// Whatever the agent runs under a lease that it no longer holds must end. This node's view is at least as new as
    /// anything the agent was told: that was asked of the quorum when it attached.
    fn settle_strays(&self, running: &[RunningJob], duties: &mut Duties) {
        let view = self.store().view();
        for run in running.iter().take(MAX_CAPACITY as usize) {
            let held = view
                .job(&run.job_id)
                .and_then(|job| job.lease.as_ref())
                .is_some_and(|lease| lease.fence == run.fence && lease.agent_id == self.agent_id);
            if !held {
                tracing::info!(
                    agent = self.agent_id,
                    job = run.job_id,
                    fence = run.fence,
                    "runs without a lease"
                );
                duties.settle(&Settled {
                    job_id: run.job_id.clone(),
                    fence: run.fence,
                });
            }
        }
    }
}

/// What an agent was told about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    fence: u64,
    stop: bool,
}

/// What the agent is still to be told.
#[derive(Debug, Default)]
struct Duties {
    /// What it was told on this attachment, by job.
    told: BTreeMap<String, Told>,
    waiting: VecDeque<Duty>,
    /// How many of them do not follow from the state.
    answers: usize,
}

#[derive(Debug)]
enum Duty {
    /// Follows from the state; made anew from each view.
    Lease {
        job_id: String,
        /// None when the lease is over.
        told: Option<Told>,
        message: node_message::Message,
    },
    Answer(node_message::Message),
}

impl Duties {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn review<'a>(&mut self, leases: impl Iterator<Item = (&'a Job, u64)>, storage: &str) {
        self.waiting.retain(|duty| matches!(duty, Duty::Answer(_)));
        let mut over = self.told.clone();
        for (job, fence) in leases {
            let stop = job.state() == JobState::Aborted;
            let now = Told { fence, stop };
            let before = over.get(&job.id).copied();
            if before.is_some_and(|before| before.fence == fence) {
                over.remove(&job.id);
            }
            if before == Some(now) {
                continue;
            }
            let message = if stop {
                stop_message(job, fence)
            } else {
                node_message::Message::Start(StartAssignment {
                    job: Some(job.clone()),
                    storage: storage.to_owned(),
                })
            };
            self.waiting.push_back(Duty::Lease {
                job_id: job.id.clone(),
                told: Some(now),
                message,
            });
        }
        // Whatever still runs under these must end, and does before the same job begins again.
        for (job_id, before) in over {
            let message = settled_message(&job_id, before.fence);
            self.waiting.push_front(Duty::Lease {
                job_id,
                told: None,
                message,
            });
        }
    }

    fn answer(&mut self, message: node_message::Message) {
        self.answers += 1;
        self.waiting.push_back(Duty::Answer(message));
    }

    /// The agent may forget the lease. It stays told of it: were the lease still held, it must not begin again.
    fn settle(&mut self, settled: &Settled) {
        self.answer(settled_message(&settled.job_id, settled.fence));
    }

    fn pop(&mut self) -> Option<NodeMessage> {
        let message = match self.waiting.pop_front()? {
            Duty::Answer(message) => {
                self.answers -= 1;
                message
            }
            Duty::Lease {
                job_id,
                told: Some(now),
                message,
            } => {
                self.told.insert(job_id, now);
                message
            }
            Duty::Lease {
                job_id,
                told: None,
                message,
            } => {
                self.told.remove(&job_id);
                message
            }
        };
        Some(NodeMessage {
            message: Some(message),
        })
    }
}

fn stop_message(job: &Job, fence: u64) -> node_message::Message {
    node_message::Message::Stop(StopAssignment {
        job_id: job.id.clone(),
        fence,
        reason: job.abort_reason.clone(),
    })
}

fn settled_message(job_id: &str, fence: u64) -> node_message::Message {
    node_message::Message::Settled(SettledAssignment {
        job_id: job_id.to_owned(),
        fence,
    })
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::Lease;

    use super::*;

    fn job(id: &str, fence: u64, state: JobState) -> Job {
        Job {
            id: id.to_owned(),
            state: state.into(),
            abort_reason: "no longer wanted".to_owned(),
            lease: Some(Box::new(Lease {
                fence,
                ..Lease::default()
            })),
            ..Job::default()
        }
    }

    fn review(duties: &mut Duties, jobs: &[Job]) {
        let leases = jobs
            .iter()
            .map(|job| (job, job.lease.as_ref().unwrap().fence));
        duties.review(leases, "");
    }

    fn said(duties: &mut Duties) -> Vec<String> {
        std::iter::from_fn(|| duties.pop())
            .map(|message| match message.message.unwrap() {
                node_message::Message::Start(start) => {
                    let job = start.job.unwrap();
                    format!("start {} {}", job.id, job.lease.unwrap().fence)
                }
                node_message::Message::Stop(stop) => format!("stop {} {}", stop.job_id, stop.fence),
                node_message::Message::Settled(settled) => {
                    format!("settled {} {}", settled.job_id, settled.fence)
                }
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn each_lease_is_told_once_and_until_it_is_sent_it_follows_the_state() {
        let mut duties = Duties::default();
        review(&mut duties, &[job("a", 1, JobState::Pending)]);
        review(
            &mut duties,
            &[
                job("a", 1, JobState::Pending),
                job("b", 2, JobState::Pending),
            ],
        );
        assert_eq!(said(&mut duties), ["start a 1", "start b 2"]);
        let aborted = [
            job("a", 1, JobState::Aborted),
            job("b", 2, JobState::Pending),
        ];
        review(&mut duties, &aborted);
        review(&mut duties, &aborted);
        assert_eq!(said(&mut duties), ["stop a 1"]);
        review(&mut duties, &[job("b", 2, JobState::Pending)]);
        assert_eq!(said(&mut duties), ["settled a 1"]);
        review(&mut duties, &[job("b", 2, JobState::Pending)]);
        assert!(duties.is_empty());
    }

    #[test]
    fn what_was_not_sent_in_time_is_not_sent() {
        let mut duties = Duties::default();
        review(&mut duties, &[job("a", 1, JobState::Pending)]);
        review(&mut duties, &[job("a", 1, JobState::Aborted)]);
        assert_eq!(said(&mut duties), ["stop a 1"], "a stop before the start");
        let mut duties = Duties::default();
        review(&mut duties, &[job("a", 1, JobState::Pending)]);
        review(&mut duties, &[]);
        assert!(duties.is_empty());
    }

    #[test]
    fn the_lease_before_is_over_before_the_job_begins_again() {
        let mut duties = Duties::default();
        review(&mut duties, &[job("a", 1, JobState::Pending)]);
        duties.pop();
        review(&mut duties, &[job("a", 5, JobState::Pending)]);
        assert_eq!(said(&mut duties), ["settled a 1", "start a 5"]);
        // A late word about the first changes nothing about the second.
        duties.settle(&Settled {
            job_id: "a".to_owned(),
            fence: 1,
        });
        review(&mut duties, &[job("a", 5, JobState::Pending)]);
        assert_eq!(said(&mut duties), ["settled a 1"]);
    }

    #[test]
    fn a_lease_that_its_agent_may_forget_is_not_told_again() {
        let mut duties = Duties::default();
        review(&mut duties, &[job("a", 1, JobState::Pending)]);
        duties.pop();
        duties.settle(&Settled {
            job_id: "a".to_owned(),
            fence: 1,
        });
        review(&mut duties, &[job("a", 1, JobState::Pending)]);
        assert_eq!(said(&mut duties), ["settled a 1"]);
    }
}
