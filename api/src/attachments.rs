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
use trireme_proto::api::{LogSegment, LogWanted, NodeMessage, node_message};

/// Messages to one agent that wait to be sent.
pub(crate) const AGENT_QUEUE: usize = 1024;
/// Segments of one tail that wait to be read; the agent sends at most 1 MiB each.
const TAIL_QUEUE: usize = 16;
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
    tails: Mutex<BTreeMap<u64, mpsc::Sender<LogSegment>>>,
    next: AtomicU64,
    closing: CancellationToken,
}

struct Attached {
    /// Tells two attachments of one agent apart.
    serial: u64,
    sender: mpsc::Sender<NodeMessage>,
}

/// A live log being read; the agent stops sending when it is dropped.
pub(crate) struct Tail {
    pub(crate) segments: mpsc::Receiver<LogSegment>,
    id: u64,
    job_id: String,
    agent_id: String,
    attachments: Attachments,
}

impl Drop for Tail {
    fn drop(&mut self) {
        lock(&self.attachments.inner.tails).remove(&self.id);
        self.attachments.send(
            &self.agent_id,
            node_message::Message::LogWanted(LogWanted {
                job_id: self.job_id.clone(),
                tail: self.id,
                stop: true,
                ..LogWanted::default()
            }),
        );
    }
}

/// Held by the stream of one attachment.
pub(crate) struct Attachment {
    agent_id: String,
    serial: u64,
    attachments: Attachments,
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
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attachments {
    /// A newer attachment of the same agent takes the place of an older one.
    pub(crate) fn attach(&self, agent_id: &str, sender: mpsc::Sender<NodeMessage>) -> Attachment {
        let serial = self.inner.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.inner.agents).insert(agent_id.to_owned(), Attached { serial, sender });
        Attachment {
            agent_id: agent_id.to_owned(),
            serial,
            attachments: self.clone(),
        }
    }

    pub(crate) fn is_current(&self, attachment: &Attachment) -> bool {
        lock(&self.inner.agents)
            .get(&attachment.agent_id)
            .is_some_and(|attached| attached.serial == attachment.serial)
    }

    /// False when the agent is not attached here or does not keep up.
    pub(crate) fn send(&self, agent_id: &str, message: node_message::Message) -> bool {
        lock(&self.inner.agents)
            .get(agent_id)
            .is_some_and(|attached| {
                attached
                    .sender
                    .try_send(NodeMessage {
                        message: Some(message),
                    })
                    .is_ok()
            })
    }

    /// Asks the agent for the log of a job from `offset` on.
    pub(crate) fn tail(&self, agent_id: &str, job_id: &str, offset: u64) -> Option<Tail> {
        let (sender, segments) = mpsc::channel(TAIL_QUEUE);
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut tails = lock(&self.inner.tails);
            if tails.len() >= MAX_TAILS {
                return None;
            }
            tails.insert(id, sender);
        }
        let tail = Tail {
            segments,
            id,
            job_id: job_id.to_owned(),
            agent_id: agent_id.to_owned(),
            attachments: self.clone(),
        };
        self.send(
            agent_id,
            node_message::Message::LogWanted(LogWanted {
                job_id: job_id.to_owned(),
                offset,
                tail: id,
                stop: false,
            }),
        )
        .then_some(tail)
    }

    /// A reader that does not keep up loses its tail, never the agent's stream.
    pub(crate) fn deliver(&self, segment: LogSegment) {
        let mut tails = lock(&self.inner.tails);
        let id = segment.tail;
        if let Some(sender) = tails.get(&id)
            && sender.try_send(segment).is_err()
        {
            tails.remove(&id);
        }
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
    use super::*;

    #[tokio::test]
    async fn a_newer_attachment_takes_over_and_the_older_ones_end_does_not_detach_it() {
        let attachments = Attachments::default();
        let (old_sender, _old) = mpsc::channel(1);
        let old = attachments.attach("a", old_sender);
        let (sender, mut messages) = mpsc::channel(4);
        let new = attachments.attach("a", sender);
        assert!(!attachments.is_current(&old));
        drop(old);
        assert!(attachments.is_current(&new));
        let tail = attachments.tail("a", "job", 5).unwrap();
        let Some(node_message::Message::LogWanted(wanted)) = messages.recv().await.unwrap().message
        else {
            panic!("the agent was not asked");
        };
        assert_eq!((wanted.offset, wanted.stop), (5, false));
        drop(tail);
        let Some(node_message::Message::LogWanted(stopped)) =
            messages.recv().await.unwrap().message
        else {
            panic!("the agent was not told to stop");
        };
        assert_eq!((stopped.tail, stopped.stop), (wanted.tail, true));
        assert!(attachments.tail("b", "job", 0).is_none());
    }
}
