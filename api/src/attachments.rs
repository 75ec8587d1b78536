//! The agents attached to this node, and the live logs that somebody reads from them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use trireme_proto::api::{LogSegment, LogWanted, NodeMessage, node_message};
use trireme_raft::Host;

use crate::client::{Client, ConnectError};

/// What one agent hears: messages, and why its attachment ends.
pub(crate) type Heard = Result<NodeMessage, Status>;

/// Messages to one agent that wait to be sent.
pub(crate) const AGENT_QUEUE: usize = 64;
/// Segments of one tail that wait to be read: the one asked for, and an empty one that says there is none yet.
const TAIL_QUEUE: usize = 2;
/// Tails read through this node at once.
const MAX_TAILS: usize = 1000;

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Attachments {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    agents: Mutex<BTreeMap<String, Attached>>,
    tails: Mutex<BTreeMap<u64, Reading>>,
    next: AtomicU64,
    closing: CancellationToken,
    /// Shared by all agents of this node for their renewals; the address tells whose it is.
    leader: tokio::sync::Mutex<Option<(String, Client)>>,
}

struct Attached {
    /// Tells two attachments of one agent apart.
    serial: u64,
    sender: mpsc::Sender<Heard>,
    replaced: CancellationToken,
}

/// The node's end of a tail.
struct Reading {
    /// The attachment that it reads from.
    serial: u64,
    sender: mpsc::Sender<LogSegment>,
}

/// A live log being read, one segment at a time, so that a slow reader costs nobody else anything. The agent forgets it
/// when it is dropped.
pub(crate) struct Tail {
    segments: mpsc::Receiver<LogSegment>,
    agent: mpsc::Sender<Heard>,
    id: u64,
    job_id: String,
    /// A segment is on its way.
    asked: bool,
    attachments: Attachments,
}

impl Tail {
    /// The segment from `offset` on. One without data says that there is no more for now; the one asked for follows
    /// when the log grows. None when the agent is no longer attached here.
    pub(crate) async fn next(&mut self, offset: u64) -> Option<LogSegment> {
        if !self.asked {
            self.agent
                .send(say(wanted(&self.job_id, self.id, offset)))
                .await
                .ok()?;
            self.asked = true;
        }
        let segment = self.segments.recv().await?;
        self.asked = segment.data.is_empty();
        Some(segment)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        lock(&self.attachments.inner.tails).remove(&self.id);
        // When its queue is full the agent is told with the next segment that nobody reads.
        let _full = self.agent.try_send(say(unwanted(&self.job_id, self.id)));
    }
}

fn say(message: node_message::Message) -> Heard {
    Ok(NodeMessage {
        message: Some(message),
    })
}

fn wanted(job_id: &str, tail: u64, offset: u64) -> node_message::Message {
    node_message::Message::LogWanted(LogWanted {
        job_id: job_id.to_owned(),
        offset,
        tail,
        stop: false,
    })
}

/// Says that nobody reads this tail.
pub(crate) fn unwanted(job_id: &str, tail: u64) -> node_message::Message {
    node_message::Message::LogWanted(LogWanted {
        job_id: job_id.to_owned(),
        tail,
        stop: true,
        ..LogWanted::default()
    })
}

/// Held by the stream of one attachment; its tails end with it.
pub(crate) struct Attachment {
    agent_id: String,
    serial: u64,
    replaced: CancellationToken,
    attachments: Attachments,
}

impl Attachment {
    /// Cancelled when the agent is attached anew.
    pub(crate) fn replaced(&self) -> &CancellationToken {
        &self.replaced
    }

    /// Hands a segment to its reader. False when there is none, or when this agent was not asked for it.
    pub(crate) fn deliver(&self, segment: LogSegment) -> bool {
        let mut tails = lock(&self.attachments.inner.tails);
        let id = segment.tail;
        let Some(reading) = tails
            .get(&id)
            .filter(|reading| reading.serial == self.serial)
        else {
            return false;
        };
        let delivered = reading.sender.try_send(segment).is_ok();
        if !delivered {
            tails.remove(&id);
        }
        delivered
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut agents = lock(&self.attachments.inner.agents);
        if agents
            .get(&self.agent_id)
            .is_some_and(|attached| attached.serial == self.serial)
        {
            agents.remove(&self.agent_id);
        }
        drop(agents);
        lock(&self.attachments.inner.tails).retain(|_, reading| reading.serial != self.serial);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attachments {
    /// A newer attachment of the same agent takes the place of an older one, which is told so.
    pub(crate) fn attach(&self, agent_id: &str, sender: mpsc::Sender<Heard>) -> Attachment {
        let serial = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let replaced = CancellationToken::new();
        let attached = Attached {
            serial,
            sender,
            replaced: replaced.clone(),
        };
        if let Some(former) = lock(&self.inner.agents).insert(agent_id.to_owned(), attached) {
            former.replaced.cancel();
        }
        Attachment {
            agent_id: agent_id.to_owned(),
            serial,
            replaced,
            attachments: self.clone(),
        }
    }

    /// A reader of the live log of a job; `None` when the agent is not attached here or too much is being read.
    pub(crate) fn tail(&self, agent_id: &str, job_id: &str) -> Option<Tail> {
        let (serial, agent) = {
            let agents = lock(&self.inner.agents);
            let attached = agents.get(agent_id)?;
            (attached.serial, attached.sender.clone())
        };
        let (sender, segments) = mpsc::channel(TAIL_QUEUE);
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut tails = lock(&self.inner.tails);
            if tails.len() >= MAX_TAILS {
                tracing::warn!(MAX_TAILS, "too many live logs are being read");
                return None;
            }
            tails.insert(id, Reading { serial, sender });
        }
        let tail = Tail {
            segments,
            agent,
            id,
            job_id: job_id.to_owned(),
            asked: false,
            attachments: self.clone(),
        };
        // The attachment may have ended before the tail was known to be its own.
        let still = lock(&self.inner.agents)
            .get(agent_id)
            .is_some_and(|attached| attached.serial == serial);
        still.then_some(tail)
    }

    /// The connection to the leader at this address, made once for all who renew.
    pub(crate) async fn leader(&self, host: &Host, address: &str) -> Result<Client, ConnectError> {
        let mut leader = self.inner.leader.lock().await;
        if let Some((known, client)) = &*leader
            && known == address
        {
            return Ok(client.clone());
        }
        let client = Client::connect_from(host, address).await?;
        *leader = Some((address.to_owned(), client.clone()));
        Ok(client)
    }

    /// Ends all attachments and tails.
    pub(crate) fn close(&self) {
        self.inner.closing.cancel();
        lock(&self.inner.agents).clear();
        lock(&self.inner.tails).clear();
    }

    pub(crate) fn closing(&self) -> CancellationToken {
        self.inner.closing.clone()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    async fn heard(messages: &mut mpsc::Receiver<Heard>) -> LogWanted {
        match messages.recv().await.unwrap().unwrap().message {
            Some(node_message::Message::LogWanted(wanted)) => wanted,
            other => panic!("not about a log: {other:?}"),
        }
    }

    fn segment(tail: u64, offset: u64, data: &'static str) -> LogSegment {
        LogSegment {
            tail,
            offset,
            data: Bytes::from_static(data.as_bytes()),
            ..LogSegment::default()
        }
    }

    #[tokio::test]
    async fn a_newer_attachment_takes_over_and_the_older_ones_end_does_not_detach_it() {
        let attachments = Attachments::default();
        let (old_sender, _old) = mpsc::channel(1);
        let old = attachments.attach("a", old_sender);
        let (sender, _messages) = mpsc::channel(4);
        let new = attachments.attach("a", sender);
        assert!(old.replaced().is_cancelled());
        drop(old);
        assert!(!new.replaced().is_cancelled());
        assert!(attachments.tail("a", "job").is_some());
        assert!(attachments.tail("b", "job").is_none());
        drop(new);
        assert!(attachments.tail("a", "job").is_none());
    }

    #[tokio::test]
    async fn a_tail_asks_for_one_segment_at_a_time() {
        let attachments = Attachments::default();
        let (sender, mut messages) = mpsc::channel(4);
        let attachment = attachments.attach("a", sender);
        let mut tail = attachments.tail("a", "job").unwrap();
        let id = tail.id;
        assert!(attachment.deliver(segment(id, 5, "")));
        assert!(attachment.deliver(segment(id, 5, "x")));
        assert_eq!(tail.next(5).await, Some(segment(id, 5, "")));
        assert_eq!(tail.next(5).await, Some(segment(id, 5, "x")));
        assert_eq!(heard(&mut messages).await.offset, 5);
        assert!(messages.try_recv().is_err(), "asked once");

        assert!(attachment.deliver(segment(id, 6, "y")));
        assert_eq!(tail.next(6).await, Some(segment(id, 6, "y")));
        assert_eq!(heard(&mut messages).await.offset, 6);
        drop(tail);
        let stopped = heard(&mut messages).await;
        assert_eq!((stopped.tail, stopped.stop), (id, true));
        assert!(!attachment.deliver(segment(id, 7, "z")));
    }

    #[tokio::test]
    async fn a_tail_ends_with_its_attachment_and_takes_from_no_other() {
        let attachments = Attachments::default();
        let (sender, _messages) = mpsc::channel(4);
        let attachment = attachments.attach("a", sender);
        let (sender, _others) = mpsc::channel(4);
        let other = attachments.attach("b", sender);
        let mut tail = attachments.tail("a", "job").unwrap();
        assert!(!other.deliver(segment(tail.id, 0, "forged")));
        drop(attachment);
        assert_eq!(tail.next(0).await, None);
    }
}
