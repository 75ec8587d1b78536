//! A run's build log, wherever it is: with its agent while it runs, in storage when it is over.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, metadata::MetadataMap};
use trireme_proto::{api::ReadLogRequest, state::Job};
use trireme_raft::View;

use crate::{client::Client, services::Services};

/// The build log's name in a run's folder.
pub const BUILD_LOG: &str = "build-log.txt";
/// Chunks of one reader on their way to it.
const QUEUE: usize = 16;
/// Bytes of one chunk.
const CHUNK: usize = 256 * 1024;
/// Before a follower looks again for an agent that went away, doubled each time up to the latter.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Marks a request of another node, which asks the node that the agent is attached to and nobody beyond it: two nodes
/// that each believe it at the other must not ask each other for ever.
const FORWARDED: &str = "trireme-forwarded";

/// Whether another node asks in its reader's name.
pub(crate) fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    pub offset: u64,
    pub data: Bytes,
}

/// Reads logs through this node, whichever node the agent is attached to. Cheap to clone.
#[derive(Clone)]
pub struct RunLogs {
    services: Services,
}

impl RunLogs {
    pub(crate) fn new(services: Services) -> Self {
        Self { services }
    }

    /// The log from `offset`; with `follow`, until the run is complete. A run that begins again begins again at 0.
    #[must_use]
    pub fn read(
        &self,
        id: String,
        offset: u64,
        follow: bool,
    ) -> ReceiverStream<Result<LogChunk, Status>> {
        self.spawn(id, offset, follow, false)
    }

    /// For another node: what an agent attached here has, and no more.
    pub(crate) fn read_attached(
        &self,
        id: String,
        offset: u64,
        follow: bool,
    ) -> ReceiverStream<Result<LogChunk, Status>> {
        self.spawn(id, offset, follow, true)
    }

    fn spawn(
        &self,
        id: String,
        offset: u64,
        follow: bool,
        attached_only: bool,
    ) -> ReceiverStream<Result<LogChunk, Status>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let closing = self.services.attachments.closing();
        let reader = Reader {
            services: self.services.clone(),
            offset,
            sender: sender.clone(),
            id,
            follow,
            attempt: None,
        };
        let run = async move {
            if attached_only {
                reader.run_attached().await
            } else {
                reader.run().await
            }
        };
        tokio::spawn(async move {
            let result = tokio::select! {
                result = run => result,
                () = sender.closed() => Ok(()),
                () = closing.cancelled() => Err(Status::unavailable("the node is stopping")),
            };
            if let Err(why) = result {
                // Whoever is gone needs no reason.
                let _gone = sender.send(Err(why)).await;
            }
        });
        ReceiverStream::new(receiver)
    }
}

struct Reader {
    services: Services,
    id: String,
    offset: u64,
    follow: bool,
    /// The attempt that the offset belongs to, once one was seen.
    attempt: Option<u32>,
    sender: mpsc::Sender<Result<LogChunk, Status>>,
}

/// How reading from an agent ended.
enum Live {
    /// It has no more, and will not have.
    Ended,
    /// It is away, or this node cannot reach it now.
    Away,
}

impl Reader {
    async fn run(mut self) -> Result<(), Status> {
        let mut wait = FIRST_WAIT;
        loop {
            let (view, job) = self.look()?;
            if self.attempt.is_some_and(|attempt| attempt != job.attempt) {
                self.offset = 0;
            }
            self.attempt = Some(job.attempt).filter(|attempt| *attempt > 0);
            if job.completed_ms > 0 {
                return self.stored(&job).await;
            }
            let before = self.offset;
            let away = match &job.lease {
                Some(lease) => matches!(self.live(&view, &lease.agent_id).await?, Live::Away),
                None => false,
            };
            if !self.follow {
                return Ok(());
            }
            if self.offset > before {
                wait = FIRST_WAIT;
            }
            tokio::select! {
                () = self.changed(&job, view.revision) => {}
                () = tokio::time::sleep(wait), if away => wait = (wait * 2).min(MAX_WAIT),
            }
        }
    }

    async fn run_attached(mut self) -> Result<(), Status> {
        let (_, job) = self.look()?;
        match &job.lease {
            Some(lease) if job.completed_ms == 0 => {
                self.attached(&lease.agent_id).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&self) -> Result<(Arc<View>, Arc<Job>), Status> {
        let view = self.services.store.view();
        let job = view
            .job(&self.id)
            .cloned()
            .ok_or_else(|| Status::not_found(format!("no job {:?} in memory", self.id)))?;
        Ok((view, job))
    }

    async fn send(&mut self, data: Bytes) -> Result<(), Status> {
        let offset = self.offset;
        self.offset += data.len() as u64;
        self.sender
            .send(Ok(LogChunk { offset, data }))
            .await
            .map_err(|_| Status::cancelled("the reader is gone"))
    }

    async fn stored(&mut self, job: &Job) -> Result<(), Status> {
        loop {
            let chunk = self
                .services
                .runs
                .read(job, BUILD_LOG, self.offset, CHUNK)
                .await
                .map_err(|why| Status::unavailable(format!("the log could not be read: {why}")))?;
            match chunk {
                Some(data) if data.is_empty() => return Ok(()),
                Some(data) => self.send(data).await?,
                None if self.offset > 0 => return Ok(()),
                None => {
                    return Err(Status::not_found(format!(
                        "run {} left no log: {}",
                        self.id, job.description
                    )));
                }
            }
        }
    }

    /// Until the agent says that the log ends, or is gone; without `follow` until it has no more for now.
    async fn live(&mut self, view: &Arc<View>, agent_id: &str) -> Result<Live, Status> {
        if let Some(ended) = self.attached(agent_id).await? {
            return Ok(ended);
        }
        let Some(node) = view.agent(agent_id).map(|agent| agent.node_id) else {
            return Ok(Live::Away);
        };
        let status = self.services.store.status();
        let address = status
            .members
            .iter()
            .find(|member| member.node.id == node && node != self.services.store.node_id())
            .map(|member| member.node.api_address.clone());
        let Some(address) = address else {
            return Ok(Live::Away);
        };
        // Its end says nothing about why: if the run is over, its record says so.
        if let Err(why) = self.proxied(&address).await? {
            tracing::debug!(node = address, why = why.message(), "a log was not reached");
        }
        Ok(Live::Away)
    }

    /// `None` when the agent is not attached to this node.
    async fn attached(&mut self, agent_id: &str) -> Result<Option<Live>, Status> {
        let attachments = self.services.attachments.clone();
        let Some(mut tail) = attachments.tail(agent_id, &self.id) else {
            return Ok(None);
        };
        while let Some(segment) = tail.next(self.offset).await {
            let skip = self.offset.saturating_sub(segment.offset);
            if segment.offset <= self.offset && skip < segment.data.len() as u64 {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                self.send(segment.data.slice(skip..)).await?;
            }
            // An empty segment says that there is no more for now.
            if segment.end || (!self.follow && segment.data.is_empty()) {
                return Ok(Some(Live::Ended));
            }
        }
        Ok(Some(Live::Away))
    }

    /// From the node that the agent is attached to; the inner error is that node's.
    async fn proxied(&mut self, address: &str) -> Result<Result<(), Status>, Status> {
        let host = self.services.store.host().clone();
        let client = match Client::connect_from(&host, address).await {
            Ok(client) => client,
            Err(why) => return Ok(Err(Status::unavailable(why.to_string()))),
        };
        let mut request = Request::new(ReadLogRequest {
            id: self.id.clone(),
            offset: self.offset,
            follow: self.follow,
        });
        request
            .metadata_mut()
            .insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
        let mut stream = match client.jobs().read_log(request).await {
            Ok(stream) => stream.into_inner(),
            Err(why) => return Ok(Err(why)),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) if message.offset == self.offset => {
                    self.send(message.data).await?;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Ok(())),
                Err(why) => return Ok(Err(why)),
            }
        }
    }

    /// Waits until the job's record changes.
    async fn changed(&self, seen: &Job, revision: u64) {
        let mut watch = self.services.store.watch(Some(revision));
        loop {
            if watch.next().await.is_err() {
                // Compacted: the record may have changed meanwhile; look at it.
                return;
            }
            let view = self.services.store.view();
            if view
                .job(&self.id)
                .is_none_or(|job| job.version != seen.version)
            {
                return;
            }
        }
    }
}
