//! From a caller's command to its outcome.
//!
//! On the leader one task packs the commands that wait into entries, stamps them, and hands them to the log; several
//! entries are on their way at once. Elsewhere a command is forwarded. It is tried again only where it certainly was not
//! appended, or where the state knows it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use trireme_proto::{
    raft as proto,
    state::{Command, Outcome},
};
use trireme_state::limits;

use super::{Inner, ProposeError, Started, Store, clock::Clock, peers::Peers, space::Gate};
use crate::{
    config::Limits,
    consensus::{Ring, Written},
    costs::Stage,
    queues::QueueDepth,
    sealed::{Sealed, Unknown, encode_batch},
    transport::never_sent,
    view::{Published, View},
};

/// Between attempts, doubled each time, half of it at random.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LAST_BACKOFF: Duration = Duration::from_millis(200);
/// Commands on their way that keep no other from going, too.
const FREE_COMMANDS: usize = 4;
/// Beside more of them an entry goes only with so many times as many.
const TIMES_ON_THEIR_WAY: usize = 2;
/// One permit of a queue stands for this many bytes.
pub(super) const PERMIT_BYTES: usize = 1024;
/// One part in so many of a queue is left to what does not make the state larger.
const RESERVED_SHARE: usize = 4;

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
    /// The disks are full and it would make the state larger.
    NoSpace(String),
    Rejected(String),
    Stopped,
}

/// Tells a full disk from a full queue between nodes.
pub(super) const REFUSAL: &str = "trireme-refusal";
pub(super) const NO_SPACE: &str = "no-space";
/// What a command is told that this build does not know.
pub(super) const NOT_KNOWN: &str = "this node's version does not know it";

struct Waiting {
    command: Sealed,
    permits: u32,
    since: Instant,
    answer: oneshot::Sender<Proposed>,
}

/// The leader's end.
#[derive(Debug, Clone)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    room_permits: usize,
    in_flight: InFlight,
    most_in_flight: usize,
    gate: Arc<Gate>,
}

impl Proposer {
    /// Starts the packing task on the present runtime.
    pub(super) fn start(
        ring: Arc<Ring>,
        published: Arc<Published>,
        clock: Arc<Clock>,
        peers: Arc<Peers>,
        gate: Arc<Gate>,
        limits: &Limits,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(limits.queue_commands.max(1));
        let room_permits = queue_permits(limits);
        let room = Arc::new(Semaphore::new(room_permits));
        let most_in_flight = limits.entries_in_flight.max(1);
        let in_flight = InFlight::default();
        let packer = Packer {
            peers,
            ring,
            published,
            clock,
            room: Arc::clone(&room),
            in_flight: in_flight.clone(),
            most_in_flight,
        };
        tokio::spawn(packer.run(waiting));
        Self {
            queue,
            room,
            room_permits,
            in_flight,
            most_in_flight,
            gate,
        }
    }

    pub(super) fn depths(&self) -> [QueueDepth; 3] {
        let depth = |name, free: usize, all: usize, unit: usize| QueueDepth {
            name,
            depth: (all.saturating_sub(free) * unit) as u64,
            capacity: (all * unit) as u64,
        };
        let queue = &self.queue;
        let (room, flight) = (&self.room, &self.in_flight);
        [
            depth(
                "propose_commands",
                queue.capacity(),
                queue.max_capacity(),
                1,
            ),
            depth(
                "propose_bytes",
                room.available_permits(),
                self.room_permits,
                PERMIT_BYTES,
            ),
            depth(
                "entries_in_flight",
                self.most_in_flight.saturating_sub(flight.entries()),
                self.most_in_flight,
                1,
            ),
        ]
    }

    pub(super) async fn submit(&self, command: Sealed) -> Proposed {
        if command.growing
            && let Some(reason) = self.gate.refusal()
        {
            return Proposed::NoSpace(reason);
        }
        let permits = permits_of(command.bytes.len());
        let Some(room) = room_for(&self.room, self.room_permits, permits, command.growing) else {
            return Proposed::Overloaded;
        };
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            command,
            permits,
            since: Instant::now(),
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

/// Permits of a queue of commands.
pub(super) fn queue_permits(limits: &Limits) -> usize {
    (limits.queue_bytes / PERMIT_BYTES).max(RESERVED_SHARE)
}

fn permits_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES).max(1)).unwrap_or(u32::MAX)
}

/// Room for a command, if there is. What makes the state larger leaves a share to what ends or removes, and to the node's
/// own commands: an office that cannot be taken for all the new work would never do any of it.
fn room_for(
    room: &Semaphore,
    all: usize,
    permits: u32,
    growing: bool,
) -> Option<SemaphorePermit<'_>> {
    let reserved = match growing {
        true => all / RESERVED_SHARE,
        false => 0,
    };
    if room.available_permits() < reserved.saturating_add(permits as usize) {
        return None;
    }
    room.try_acquire_many(permits).ok()
}

struct Packer {
    peers: Arc<Peers>,
    ring: Arc<Ring>,
    published: Arc<Published>,
    clock: Arc<Clock>,
    room: Arc<Semaphore>,
    in_flight: InFlight,
    most_in_flight: usize,
}

/// Entries on their way.
#[derive(Debug, Clone, Default)]
struct InFlight(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    entries: AtomicUsize,
    commands: AtomicUsize,
    ended: Notify,
}

/// One of them, until it is dropped.
struct Flight {
    of: InFlight,
    commands: usize,
}

impl InFlight {
    fn start(&self, commands: usize) -> Flight {
        self.0.entries.fetch_add(1, Ordering::AcqRel);
        self.0.commands.fetch_add(commands, Ordering::AcqRel);
        Flight {
            of: self.clone(),
            commands,
        }
    }

    fn entries(&self) -> usize {
        self.0.entries.load(Ordering::Acquire)
    }

    fn commands(&self) -> usize {
        self.0.commands.load(Ordering::Acquire)
    }

    /// Waits until one has ended, now or since the last call.
    async fn ended(&self) {
        self.0.ended.notified().await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let counts = &self.of.0;
        counts.commands.fetch_sub(self.commands, Ordering::AcqRel);
        counts.entries.fetch_sub(1, Ordering::AcqRel);
        counts.ended.notify_one();
    }
}

/// How many commands the next entry must hold to be worth its own write, sync and round, which cost as much as dozens of
/// commands. Few clients do not wait for each other; many share few entries, so that each of them is answered sooner.
fn worth_an_entry(on_their_way: usize) -> usize {
    if on_their_way <= FREE_COMMANDS {
        return 0;
    }
    on_their_way
        .saturating_mul(TIMES_ON_THEIR_WAY)
        .min(limits::MAX_BATCH_COMMANDS)
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
            let mut bytes = first.command.bytes.len();
            let mut packed = vec![first];
            while packed.len() < limits::MAX_BATCH_COMMANDS {
                let Some(more) = self.more(packed.len(), &mut waiting).await else {
                    break;
                };
                if bytes + more.command.bytes.len() > limits::MAX_BATCH_BYTES {
                    next = Some(more);
                    break;
                }
                bytes += more.command.bytes.len();
                packed.push(more);
            }
            while self.in_flight.entries() >= self.most_in_flight {
                self.in_flight.ended().await;
            }
            let view = self.published.view();
            packed = self.admitted(packed, &view);
            if packed.is_empty() {
                continue;
            }
            let flight = self.in_flight.start(packed.len());
            let mut answers = Vec::with_capacity(packed.len());
            let mut commands = Vec::with_capacity(packed.len());
            let costs = self.ring.wal.costs();
            for waiting in packed {
                costs.add(Stage::Queue, waiting.since.elapsed());
                commands.push(waiting.command.bytes);
                answers.push((waiting.answer, waiting.permits));
            }
            let stamp_ms = self.clock.stamp(view.last_stamp_ms());
            // Held on, it would keep alive what is replaced in the state meanwhile.
            drop(view);
            let encoded = costs.timed(Stage::Encode, || encode_batch(stamp_ms, commands));
            let writing = self.ring.write(encoded).await;
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

    /// Another command for an entry that holds so many; None once it is worth its way as it is. While the log is busy
    /// more commands come together.
    async fn more(&self, packed: usize, waiting: &mut mpsc::Receiver<Waiting>) -> Option<Waiting> {
        loop {
            if let Ok(more) = waiting.try_recv() {
                return Some(more);
            }
            let full = self.in_flight.entries() >= self.most_in_flight;
            if !full && packed >= worth_an_entry(self.in_flight.commands()) {
                return None;
            }
            tokio::select! {
                more = waiting.recv() => return more,
                () = self.in_flight.ended() => {}
            }
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

    fn is_level_right(&self, command: &Sealed, view: &View) -> Result<(), String> {
        let (needed, level) = (command.needs, view.feature_level());
        if needed > level {
            return Err(format!(
                "it needs feature level {needed}, the cluster is at {level}: raise it once every member runs a version that \
                 knows it"
            ));
        }
        if let Some(raised) = command.raises {
            let members: Vec<u64> = view.nodes().iter().map(|node| node.id).collect();
            let known = self.peers.all_know(&members, raised);
            return known.map_err(|id| {
                format!(
                    "node {id} has not said that it knows feature level {raised}: upgrade it, or wait until it answers"
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
    pub fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Applied, ProposeError>> + Send + use<'_> {
        self.inner.propose(command)
    }
}

impl Inner {
    /// Sealed before anything is waited for: a future that held the command would be some kilobytes large, at each of its
    /// callers again.
    pub(super) fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Applied, ProposeError>> + Send + use<'_> {
        let sealed = Sealed::of(command);
        async move {
            match sealed {
                Ok(command) => self.propose_sealed(command).await,
                Err(Unknown) => Err(ProposeError::Rejected(NOT_KNOWN.to_owned())),
            }
        }
    }

    async fn propose_sealed(&self, command: Sealed) -> Result<Applied, ProposeError> {
        let started = self.started().ok_or(ProposeError::NotStarted)?;
        if let Some(fatal) = self.fatal.get() {
            return Err(ProposeError::Stopped(fatal.message));
        }
        let bytes = command.bytes.len();
        if bytes > limits::MAX_ENTRY_BYTES {
            return Err(ProposeError::TooLarge {
                bytes,
                limit: limits::MAX_ENTRY_BYTES,
            });
        }
        // Whether it waits for a leader, for a majority or for another node's answer, it is kept in memory here.
        let all = queue_permits(&self.limits);
        let Some(_room) = room_for(&self.pending, all, permits_of(bytes), command.growing) else {
            return Err(ProposeError::Overloaded);
        };
        let deadline = Instant::now() + self.timing.propose;
        let proposing = async {
            let applied = self.propose_until(started, command, deadline).await?;
            match timeout_at(deadline, self.published.at_least(applied.revision)).await {
                Ok(_) => Ok(applied),
                Err(_) => Err(ProposeError::Timeout {
                    maybe_applied: true,
                }),
            }
        };
        match self.unless_closed(proposing).await {
            Some(proposed) => proposed,
            None => Err(ProposeError::Stopped(self.stop_reason())),
        }
    }

    async fn propose_until(
        &self,
        started: &Started,
        command: Sealed,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let mut backoff = Backoff::until(deadline);
        let mut maybe_applied = false;
        loop {
            let attempt = timeout_at(deadline, self.attempt(started, &command)).await;
            // Says nothing of an attempt before.
            let refused = |why| match maybe_applied {
                true => Err(ProposeError::Timeout { maybe_applied }),
                false => Err(why),
            };
            let unknown = match attempt {
                Ok(Some(Proposed::Applied(applied))) => return Ok(applied),
                Ok(Some(Proposed::Overloaded)) => return refused(ProposeError::Overloaded),
                Ok(Some(Proposed::NoSpace(reason))) => {
                    return refused(ProposeError::NoSpace(reason));
                }
                Ok(Some(Proposed::Rejected(reason))) => {
                    return refused(ProposeError::Rejected(reason));
                }
                Ok(Some(Proposed::Stopped)) => {
                    let reason = self.stop_reason();
                    return Err(ProposeError::Stopped(reason));
                }
                Ok(Some(Proposed::NotAppended)) => false,
                Ok(None) => {
                    if !backoff.wait(self).await {
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
            if unknown && !command.repeatable {
                return Err(ProposeError::Timeout { maybe_applied });
            }
            if !backoff.wait(self).await {
                return Err(ProposeError::Timeout { maybe_applied });
            }
        }
    }

    /// None: nobody leads.
    async fn attempt(&self, started: &Started, command: &Sealed) -> Option<Proposed> {
        let leader = started.ring.seen().leader?;
        if leader == self.node_id {
            return Some(started.proposer.submit(command.clone()).await);
        }
        let address = self.peer_address(started, leader)?;
        let mut client = self.dialer.shared(&address, Some(leader)).ok()?;
        let request = proto::ProposeRequest {
            cluster_id: started.cluster_id.clone(),
            commands: vec![command.bytes.clone()],
        };
        // Boxed, for it is many times as large as all the rest, which is moved about on each command's way.
        Some(match Box::pin(client.propose(request)).await {
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
                tonic::Code::ResourceExhausted => match status.metadata().get(REFUSAL) {
                    Some(refusal) if refusal == NO_SPACE => {
                        Proposed::NoSpace(status.message().to_owned())
                    }
                    _ => Proposed::Overloaded,
                },
                tonic::Code::FailedPrecondition => Proposed::Rejected(status.message().to_owned()),
                // Aborted is the leader's own word for it; it may also not know this node yet, or not any more.
                tonic::Code::Aborted | tonic::Code::PermissionDenied => Proposed::NotAppended,
                _ if never_sent(&status) => Proposed::NotAppended,
                _ => Proposed::Unknown,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_leaves_room_for_what_ends() {
        let room = Semaphore::new(100);
        let begun = room_for(&room, 100, 75, true).unwrap();
        assert!(room_for(&room, 100, 1, true).is_none());
        let ended = room_for(&room, 100, 25, false).unwrap();
        assert!(room_for(&room, 100, 1, false).is_none());
        drop((begun, ended));
        assert!(room_for(&room, 100, 76, true).is_none());
        assert!(room_for(&room, 100, 100, false).is_some());
    }

    #[test]
    fn entries_grow_with_what_is_on_its_way() {
        assert_eq!(worth_an_entry(0), 0);
        assert_eq!(worth_an_entry(FREE_COMMANDS), 0);
        assert_eq!(worth_an_entry(7), 14);
        assert_eq!(worth_an_entry(100_000), limits::MAX_BATCH_COMMANDS);
    }

    #[tokio::test]
    async fn an_entry_that_ends_is_heard_of_even_before_somebody_listens() {
        let in_flight = InFlight::default();
        let (first, second) = (in_flight.start(3), in_flight.start(4));
        assert_eq!((in_flight.entries(), in_flight.commands()), (2, 7));
        drop(first);
        in_flight.ended().await;
        assert_eq!((in_flight.entries(), in_flight.commands()), (1, 4));
        let mut waiting = Box::pin(in_flight.ended());
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(second);
        waiting.await;
    }
}
