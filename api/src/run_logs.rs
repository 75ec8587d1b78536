//! A run's build log, wherever it is: with its agent while it runs, in storage when it is over.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trireme_proto::{api::ReadLogRequest, state::Job};
use trireme_raft::View;

use crate::{client::Client, services::Services};

/// The build log's name in a run's folder.
pub const BUILD_LOG: &str = "build-log.txt";
/// Chunks of one reader on their way to it.
const QUEUE: usize = 16;
/// Bytes of one chunk.
const CHUNK: usize = 256 * 1024;

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

    /// The log from `offset`; with `follow`, until the run is complete.
    #[must_use]
    pub fn read(
        &self,
        id: String,
        offset: u64,
        follow: bool,
    ) -> ReceiverStream<Result<LogChunk, Status>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let closing = self.services.attachments.closing();
        let reader = Reader {
            services: self.services.clone(),
            offset,
            sender: sender.clone(),
            id,
            follow,
        };
        tokio::spawn(async move {
            let result = tokio::select! {
                result = reader.run() => result,
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
    sender: mpsc::Sender<Result<LogChunk, Status>>,
}

impl Reader {
    async fn run(mut self) -> Result<(), Status> {
        loop {
            let view = self.services.store.view();
            let job = view
                .job(&self.id)
                .cloned()
                .ok_or_else(|| Status::not_found(format!("no job {:?} in memory", self.id)))?;
            if job.completed_ms > 0 {
                return self.stored(&job).await;
            }
            if let Some(lease) = &job.lease {
                self.live(&view, &lease.agent_id).await?;
            }
            if !self.follow {
                return Ok(());
            }
            self.changed(&job, view.revision).await;
        }
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

    /// Until the agent says that the log ends, or is gone.
    async fn live(&mut self, view: &Arc<View>, agent_id: &str) -> Result<(), Status> {
        let attachments = self.services.attachments.clone();
        if let Some(mut tail) = attachments.tail(agent_id, &self.id, self.offset) {
            while let Some(segment) = tail.segments.recv().await {
                let skip = self.offset.saturating_sub(segment.offset);
                if segment.offset <= self.offset && skip < segment.data.len() as u64 {
                    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                    self.send(segment.data.slice(skip..)).await?;
                }
                // An empty segment says that there is no more for now.
                if segment.end || (!self.follow && segment.data.is_empty()) {
                    break;
                }
            }
            return Ok(());
        }
        let Some(node) = view.agent(agent_id).map(|agent| agent.node_id) else {
            return Ok(());
        };
        let status = self.services.store.status();
        let address = status
            .members
            .iter()
            .find(|member| member.node.id == node && node != self.services.store.node_id())
            .map(|member| member.node.api_address.clone());
        match address {
            Some(address) => self.proxied(&address).await,
            None => Ok(()),
        }
    }

    /// From the node that the agent is attached to.
    async fn proxied(&mut self, address: &str) -> Result<(), Status> {
        let client = Client::connect(address)
            .await
            .map_err(|why| Status::unavailable(why.to_string()))?;
        let mut stream = client
            .jobs()
            .read_log(ReadLogRequest {
                id: self.id.clone(),
                offset: self.offset,
                follow: self.follow,
            })
            .await?
            .into_inner();
        while let Some(message) = stream.message().await? {
            if message.offset == self.offset {
                self.send(message.data).await?;
            }
        }
        Ok(())
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
