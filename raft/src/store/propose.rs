//! From a caller's command to its outcome.
//!
//! On the leader one task packs the commands that wait into entries, stamps them, and hands them to the log; several
//! entries are on their way at once. Elsewhere a command is forwarded. It is tried again only where it certainly was not
//! appended, or where the state remembers its request id.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use trireme_proto::{
    raft as proto,
    state::{Batch, Command, Outcome, command::Body},
};
use trireme_state::{is_known, limits, min_level_of};

use super::{Inner, ProposeError, Started, Store, clock::Clock, peers::Peers};
use crate::{
    config::Limits,
    consensus::{Ring, Written},
    transport::never_sent,
    view::{Published, View},
};

/// Between attempts, doubled each time, half of it at random.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LAST_BACKOFF: Duration = Duration::from_millis(200);
const PERMIT_BYTES: usize = 1024;

/// A command that was applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Log index of its entry.
    pub revision: u64,
    pub outcome: Outcome,
}

/// What became of a command on the leader.
#[derive(Debug)]
pub(super) enum Proposed {
    Applied(Applied),
    /// Certainly not in the log; this node does not lead.
    NotAppended,
    Unknown,
    Overloaded,
    Rejected(String),
    Stopped,
}

struct Waiting {
    command: Command,
    bytes: usize,
    permits: u32,
    answer: oneshot::Sender<Proposed>,
}

/// The leader's end.
#[derive(Debug, Clone)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

impl Proposer {
    /// Starts the packing task on the present runtime.
    pub(super) fn start(
        me: u64,
        ring: Arc<Ring>,
        published: Arc<Published>,
        clock: Arc<Clock>,
        peers: Arc<Peers>,
        limits: &Limits,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(limits.queue_commands.max(1));
        let room = Arc::new(Semaphore::new((limits.queue_bytes / PERMIT_BYTES).max(1)));
        let packer = Packer {
            me,
            peers,
            ring,
            published,
            clock,
            room: Arc::clone(&room),
            in_flight: Arc::new(Semaphore::new(limits.entries_in_flight.max(1))),
        };
        tokio::spawn(packer.run(waiting));
        Self { queue, room }
    }

    pub(super) async fn submit(&self, command: Command) -> Proposed {
        let bytes = command.encoded_len();
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let Ok(room) = self.room.try_acquire_many(permits) else {
            return Proposed::Overloaded;
        };
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            command,
            bytes,
            permits,
            answer,
        };
        match self.queue.try_send(waiting) {
            Ok(()) => room.forget(),
            Err(mpsc::error::TrySendError::Full(_)) => return Proposed::Overloaded,
            Err(mpsc::error::TrySendError::Closed(_)) => return Proposed::Stopped,
        }
        answered.await.unwrap_or(Proposed::Stopped)
    }
}

struct Packer {
    me: u64,
    peers: Arc<Peers>,
    ring: Arc<Ring>,
    published: Arc<Published>,
    clock: Arc<Clock>,
    room: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
}

impl Packer {
    async fn run(self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(first) => first,
                None => match waiting.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            // While the log is busy more commands come together.
            let Ok(flight) = Arc::clone(&self.in_flight).acquire_owned().await else {
                return;
            };
            let mut bytes = first.bytes;
            let mut packed = vec![first];
            while packed.len() < limits::MAX_BATCH_COMMANDS {
                let Ok(more) = waiting.try_recv() else {
                    break;
                };
                if bytes + more.bytes > limits::MAX_BATCH_BYTES {
                    next = Some(more);
                    break;
                }
                bytes += more.bytes;
                packed.push(more);
            }
            let view = self.published.view();
            packed = self.admitted(packed, &view);
            if packed.is_empty() {
                continue;
            }
            let mut answers = Vec::with_capacity(packed.len());
            let mut commands = Vec::with_capacity(packed.len());
            for waiting in packed {
                commands.push(waiting.command);
                answers.push((waiting.answer, waiting.permits));
            }
            let batch = Batch {
                stamp_ms: self.clock.stamp(view.last_stamp_ms()),
                commands,
            };
            let writing = self.ring.write(batch.encode_to_vec().into()).await;
            let room = Arc::clone(&self.room);
            tokio::spawn(async move {
                let written = match writing {
                    Ok(writing) => writing.done().await,
                    Err(written) => written,
                };
                drop(flight);
                answer(written, answers, &room);
            });
        }
    }

    /// Answers those that the cluster cannot hold.
    fn admitted(&self, packed: Vec<Waiting>, view: &View) -> Vec<Waiting> {
        let mut admitted = Vec::with_capacity(packed.len());
        for waiting in packed {
            let Err(reason) = self.is_level_right(&waiting.command, view) else {
                admitted.push(waiting);
                continue;
            };
            self.room.add_permits(waiting.permits as usize);
            // A caller that went away needs no answer; so also below.
            let _ = waiting.answer.send(Proposed::Rejected(reason));
        }
        admitted
    }

    fn is_level_right(&self, command: &Command, view: &View) -> Result<(), String> {
        let (needed, level) = (min_level_of(command), view.feature_level());
        if needed > level {
            return Err(format!(
                "it needs feature level {needed}, the cluster is at {level}: raise it once every member runs a version that \
                 knows it"
            ));
        }
        if let Some(Body::RaiseFeatureLevel(raise)) = &command.body {
            let members: Vec<u64> = view.nodes().iter().map(|node| node.id).collect();
            let known = self.peers.all_know(&members, self.me, raise.level);
            return known.map_err(|id| {
                format!(
                    "node {id} has not said that it knows feature level {}: upgrade it, or wait until it answers",
                    raise.level
                )
            });
        }
        Ok(())
    }
}

fn answer(written: Written, answers: Vec<(oneshot::Sender<Proposed>, u32)>, room: &Semaphore) {
    let permits = answers.iter().map(|(_, permits)| *permits as usize).sum();
    room.add_permits(permits);
    match written {
        Written::Applied { index, outcomes } => {
            for ((answer, _), outcome) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(Proposed::Applied(Applied {
                    revision: index,
                    outcome,
                }));
            }
        }
        Written::NotAppended => each(answers, || Proposed::NotAppended),
        Written::Unknown => each(answers, || Proposed::Unknown),
        Written::Stopped => each(answers, || Proposed::Stopped),
    }
}

fn each(answers: Vec<(oneshot::Sender<Proposed>, u32)>, proposed: impl Fn() -> Proposed) {
    for (answer, _) in answers {
        let _ = answer.send(proposed());
    }
}

/// Waits longer each time, and ends with the deadline.
pub(super) struct Backoff {
    next: Duration,
    deadline: Instant,
}

impl Backoff {
    pub(super) fn until(deadline: Instant) -> Self {
        Self {
            next: FIRST_BACKOFF,
            deadline,
        }
    }

    /// False once the deadline has passed. Returns early when who leads changes.
    pub(super) async fn wait(&mut self, inner: &Inner) -> bool {
        let mut leadership = inner.leadership.subscribe();
        leadership.mark_unchanged();
        let half = self.next / 2;
        let wait = half + half.mul_f64(rand::random::<f64>());
        self.next = (self.next * 2).min(LAST_BACKOFF);
        tokio::select! {
            () = sleep_until((Instant::now() + wait).min(self.deadline)) => {}
            _ = leadership.changed() => {}
        }
        Instant::now() < self.deadline
    }
}

impl Store {
    /// Replicates and applies a command; returns once it is applied on this node as well, so that what is read here
    /// next holds it. Works on any node; bounded by [`crate::Timing::propose`].
    ///
    /// # Errors
    /// [`ProposeError::Timeout`] says whether the command may have been applied; after [`ProposeError::Stopped`] it may.
    /// Everything else means that it was not.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let started = self.inner.started().ok_or(ProposeError::NotStarted)?;
        if let Some(fatal) = self.inner.fatal.get() {
            return Err(ProposeError::Stopped(fatal.message));
        }
        let bytes = command.encoded_len();
        if bytes > limits::MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge {
                bytes,
                limit: limits::MAX_ENTRY_BYTES,
            });
        }
        if !is_known(&command) {
            return Err(ProposeError::Rejected(
                "this node's version does not know it".to_owned(),
            ));
        }
        let deadline = Instant::now() + self.inner.timing.propose;
        let proposing = async {
            let applied = self.propose_until(started, command, deadline).await?;
            match timeout_at(deadline, self.inner.published.at_least(applied.revision)).await {
                Ok(_) => Ok(applied),
                Err(_) => Err(ProposeError::Timeout {
                    maybe_applied: true,
                }),
            }
        };
        match self.inner.unless_closed(proposing).await {
            Some(proposed) => proposed,
            None => Err(ProposeError::Stopped(self.inner.stop_reason())),
        }
    }

    async fn propose_until(
        &self,
        started: &Started,
        command: Command,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let mut backoff = Backoff::until(deadline);
        let mut maybe_applied = false;
        loop {
            let attempt = timeout_at(deadline, self.attempt(started, &command)).await;
            let unknown = match attempt {
                Ok(Some(Proposed::Applied(applied))) => return Ok(applied),
                Ok(Some(Proposed::Overloaded)) => return Err(ProposeError::Overloaded),
                Ok(Some(Proposed::Rejected(reason))) => {
                    return Err(ProposeError::Rejected(reason));
                }
                Ok(Some(Proposed::Stopped)) => {
                    let reason = self.inner.stop_reason();
                    return Err(ProposeError::Stopped(reason));
                }
                Ok(Some(Proposed::NotAppended)) => false,
                Ok(None) => {
                    if !backoff.wait(&self.inner).await {
                        return Err(if maybe_applied {
                            ProposeError::Timeout { maybe_applied }
                        } else {
                            ProposeError::NoLeader
                        });
                    }
                    continue;
                }
                Ok(Some(Proposed::Unknown)) => true,
                Err(_) => {
                    return Err(ProposeError::Timeout {
                        maybe_applied: true,
                    });
                }
            };
            maybe_applied |= unknown;
            // Twice applied is worse than an honest answer.
            if unknown && command.request_id.is_empty() {
                return Err(ProposeError::Timeout { maybe_applied });
            }
            if !backoff.wait(&self.inner).await {
                return Err(ProposeError::Timeout { maybe_applied });
            }
        }
    }

    /// None: nobody leads.
    async fn attempt(&self, started: &Started, command: &Command) -> Option<Proposed> {
        let leader = started.ring.seen().leader?;
        if leader == self.inner.node_id {
            return Some(started.proposer.submit(command.clone()).await);
        }
        let address = self.inner.peer_address(started, leader)?;
        let mut client = self.inner.dialer.shared(&address, Some(leader)).ok()?;
        let request = proto::ProposeRequest {
            cluster_id: started.cluster_id.clone(),
            commands: vec![command.clone()],
        };
        Some(match client.propose(request).await {
            Ok(response) => {
                let mut response = response.into_inner();
                match (response.not_leader, response.applied.pop()) {
                    (Some(_), _) => Proposed::NotAppended,
                    (None, Some(applied)) => Proposed::Applied(Applied {
                        revision: applied.revision,
                        outcome: applied.outcome.unwrap_or_default(),
                    }),
                    (None, None) => Proposed::Unknown,
                }
            }
            Err(status) => match status.code() {
                tonic::Code::ResourceExhausted => Proposed::Overloaded,
                tonic::Code::FailedPrecondition => Proposed::Rejected(status.message().to_owned()),
                // Aborted is the leader's own word for it; it may also not know this node yet, or not any more.
                tonic::Code::Aborted | tonic::Code::PermissionDenied => Proposed::NotAppended,
                _ if never_sent(&status) => Proposed::NotAppended,
                _ => Proposed::Unknown,
            },
        })
    }
}
