//! Linearizable reads: one round to a quorum for all readers that wait.

use std::sync::Weak;

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use trireme_proto::raft as proto;

use super::{Inner, ReadError, Store, propose::Backoff};
use crate::{consensus::ReadIndexError, queues::QueueDepth};

/// Readers waiting for the next round.
const QUEUE_READERS: usize = 65_536;

type Answer = oneshot::Sender<Result<u64, ReadError>>;

/// Gathers readers: those that come while a round is under way share the next.
#[derive(Debug, Clone)]
pub(super) struct Readers(mpsc::Sender<Answer>);

impl Readers {
    /// Starts the task that makes the rounds, on the present runtime.
    pub(super) fn start(inner: Weak<Inner>) -> Self {
        let (readers, mut waiting) = mpsc::channel::<Answer>(QUEUE_READERS);
        tokio::spawn(async move {
            let mut round = Vec::new();
            while waiting.recv_many(&mut round, QUEUE_READERS).await > 0 {
                let Some(inner) = inner.upgrade() else {
                    return;
                };
                let index = inner.read_index().await;
                for reader in round.drain(..) {
                    // A reader that went away needs no answer.
                    let _ = reader.send(index.clone());
                }
            }
        });
        Self(readers)
    }

    pub(super) fn depth(&self) -> QueueDepth {
        QueueDepth {
            name: "readers",
            depth: (self.0.max_capacity() - self.0.capacity()) as u64,
            capacity: self.0.max_capacity() as u64,
        }
    }

    async fn index(&self) -> Result<u64, ReadError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || ReadError::Stopped("the store is closed".to_owned());
        self.0.send(answer).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Inner {
    async fn read_index(&self) -> Result<u64, ReadError> {
        let started = self.started().ok_or(ReadError::NotStarted)?;
        let deadline = Instant::now() + self.timing.propose;
        let mut backoff = Backoff::until(deadline);
        let mut last;
        loop {
            last = match started.ring.seen().leader {
                None => ReadError::NoLeader,
                Some(leader) if leader == self.node_id => match started.ring.read_index().await {
                    Ok(index) => return Ok(index),
                    Err(ReadIndexError::NotLeader) => ReadError::NoLeader,
                    Err(ReadIndexError::NoQuorum) => ReadError::NoQuorum,
                    Err(ReadIndexError::Stopped) => {
                        return Err(ReadError::Stopped(self.stop_reason()));
                    }
                },
                Some(leader) => match self.ask_index(leader, deadline).await {
                    Some(index) => return Ok(index),
                    None => ReadError::NoLeader,
                },
            };
            if !backoff.wait(self).await {
                return Err(last);
            }
        }
    }

    async fn ask_index(&self, leader: u64, deadline: Instant) -> Option<u64> {
        let started = self.started()?;
        let address = self.peer_address(started, leader)?;
        let mut client = self.dialer.shared(&address, Some(leader)).ok()?;
        let call = client.read_index(proto::ReadIndexRequest {
            cluster_id: started.cluster_id.clone(),
        });
        // A leader that does not answer may be none any more.
        let deadline = deadline.min(Instant::now() + self.timing.election_max * 2);
        let response = timeout_at(deadline, call).await.ok()?.ok()?.into_inner();
        response.not_leader.is_none().then_some(response.revision)
    }
}

impl Store {
    /// A revision that holds everything that was acknowledged anywhere before this call; this node has applied it.
    /// Bounded by [`crate::Timing::propose`].
    pub async fn linearize(&self) -> Result<u64, ReadError> {
        let started = self.inner.started().ok_or(ReadError::NotStarted)?;
        if let Some(fatal) = self.inner.fatal.get() {
            return Err(ReadError::Stopped(fatal.message));
        }
        let deadline = Instant::now() + self.inner.timing.propose;
        let reading = async {
            let index = timeout_at(deadline, started.readers.index());
            let index = index.await.map_err(|_| ReadError::Timeout)??;
            let applied = timeout_at(deadline, self.inner.published.at_least(index)).await;
            applied.map_err(|_| ReadError::Timeout)?;
            Ok(index)
        };
        match self.inner.unless_closed(reading).await {
            Some(read) => read,
            None => Err(ReadError::Stopped(self.inner.stop_reason())),
        }
    }
}
