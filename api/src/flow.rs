//! How much a node takes on at once. What is over a bound is refused at once, with a hint when to come back; nothing
//! piles up in memory. Every bound has a name here and a gauge in /metrics.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    serve::Listener,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};
use tonic::Status;
use trireme_raft::{QueueGauge, Queues};

use crate::{entrance::is_grpc, refusal::exhausted};

/// Connections of one node; more wait in the operating system's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Requests being answered, streams not counted once they have begun.
const MAX_REQUESTS: usize = 1024;
/// Configurations being validated: manifests come in, and each may keep a core busy for seconds.
const MAX_UPLOADS: usize = 2;
/// Calls that bring contents of configurations, each of which keeps one content and what is on its way to the log.
const MAX_CONTENT_UPLOADS: usize = 8;
/// Followers of the change feed.
const MAX_WATCHERS: usize = 1000;
/// Build logs being read.
const MAX_LOG_READERS: usize = 500;
/// Versions and contents of configurations on their way out: each keeps a manifest or a content in memory.
const MAX_CONFIG_READERS: usize = 64;
/// Agents attached.
const MAX_AGENTS: usize = 2000;
/// Deliveries being read or committed.
const MAX_WEBHOOKS: usize = 256;
/// Bytes of their bodies: at least one of the largest.
const MAX_WEBHOOK_BYTES: usize = 64 << 20;
/// One slot of `webhook_bytes`.
const WEBHOOK_UNIT: usize = 1024;

/// Between two messages of an upload, which holds a slot meanwhile.
const MAX_UPLOAD_PAUSE: Duration = Duration::from_secs(30);
/// A whole manifest, coming in.
pub(crate) const MANIFEST_TIME: Duration = Duration::from_secs(120);
/// A call with contents, coming in and committed.
pub(crate) const CONTENTS_TIME: Duration = Duration::from_secs(600);

/// Answered whatever else goes on: they tell that it does.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
const UPLOAD: &str = "/trireme.api.v1.ConfigService/Apply";
const ROLLBACK: &str = "/trireme.api.v1.ConfigService/Rollback";
const CONTENTS: &str = "/trireme.api.v1.ConfigService/PutContents";

/// Something of which there is a bounded number.
pub(crate) struct Slots {
    semaphore: Arc<Semaphore>,
    unit: usize,
    _gauge: QueueGauge,
}

/// Held as long as it is used.
pub(crate) type Slot = OwnedSemaphorePermit;

impl Slots {
    fn new(queues: &Queues, name: &'static str, capacity: usize, unit: usize) -> Self {
        let all = (capacity / unit).max(1);
        let semaphore = Arc::new(Semaphore::new(all));
        let seen = Arc::clone(&semaphore);
        let gauge = queues.register(name, capacity, move || {
            (all.saturating_sub(seen.available_permits()) * unit) as u64
        });
        Self {
            semaphore,
            unit,
            _gauge: gauge,
        }
    }

    /// None when all are taken.
    pub(crate) fn take(&self) -> Option<Slot> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }

    /// Room for `bytes`; None when there is not so much.
    pub(crate) fn take_bytes(&self, bytes: usize) -> Option<Slot> {
        let units = u32::try_from(bytes.div_ceil(self.unit).max(1)).ok()?;
        Arc::clone(&self.semaphore)
            .try_acquire_many_owned(units)
            .ok()
    }
}

/// All bounds of one node's doors.
pub(crate) struct Flow {
    queues: Queues,
    connections: Slots,
    requests: Slots,
    uploads: Slots,
    content_uploads: Slots,
    pub(crate) watchers: Slots,
    pub(crate) log_readers: Slots,
    pub(crate) config_readers: Slots,
    pub(crate) agents: Slots,
    pub(crate) webhooks: Slots,
    pub(crate) webhook_bytes: Slots,
}

impl Flow {
    pub(crate) fn new(queues: &Queues) -> Self {
        let slots = |name, capacity| Slots::new(queues, name, capacity, 1);
        Self {
            queues: queues.clone(),
            connections: slots("connections", MAX_CONNECTIONS),
            requests: slots("requests", MAX_REQUESTS),
            uploads: slots("uploads", MAX_UPLOADS),
            content_uploads: slots("content_uploads", MAX_CONTENT_UPLOADS),
            watchers: slots("watchers", MAX_WATCHERS),
            log_readers: slots("log_readers", MAX_LOG_READERS),
            config_readers: slots("config_readers", MAX_CONFIG_READERS),
            agents: slots("attached_agents", MAX_AGENTS),
            webhooks: slots("webhooks", MAX_WEBHOOKS),
            webhook_bytes: Slots::new(queues, "webhook_bytes", MAX_WEBHOOK_BYTES, WEBHOOK_UNIT),
        }
    }

    /// Shows a stream's queue among the others while the answer is kept.
    pub(crate) fn gauge<T: Send + 'static>(
        &self,
        name: &'static str,
        sender: &mpsc::Sender<T>,
    ) -> QueueGauge {
        let weak = sender.downgrade();
        self.queues.register(name, sender.max_capacity(), move || {
            weak.upgrade().map_or(0, |sender| {
                (sender.max_capacity() - sender.capacity()) as u64
            })
        })
    }
}

/// The reason of a refusal for want of slots.
pub(crate) fn too_many(what: &str) -> Status {
    exhausted(format!(
        "too many {what} on this node: try again later, or another node"
    ))
}

/// How long an upload may take: a client that stops sending must not keep a slot.
pub(crate) struct Patience {
    pause: Duration,
    whole: Duration,
    end: Instant,
}

impl Patience {
    /// From now on.
    pub(crate) fn of(whole: Duration) -> Self {
        Self {
            pause: MAX_UPLOAD_PAUSE,
            whole,
            end: Instant::now() + whole,
        }
    }

    /// The next message, unless it comes too late.
    ///
    /// # Errors
    /// Those of the stream, or `DEADLINE_EXCEEDED`.
    pub(crate) async fn next<T>(
        &self,
        message: impl Future<Output = Result<Option<T>, Status>>,
    ) -> Result<Option<T>, Status> {
        let next = Instant::now() + self.pause;
        match timeout_at(next.min(self.end), message).await {
            Ok(message) => message,
            Err(_) if next < self.end => Err(Status::deadline_exceeded(format!(
                "no part of the upload came for {} s, so that it was given up: send it again",
                self.pause.as_secs()
            ))),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the upload was not whole after {} s, so that it was given up: send it again over a faster connection",
                self.whole.as_secs()
            ))),
        }
    }
}

/// What a request holds while it is answered.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    _request: Option<Slot>,
    _upload: Option<Slot>,
}

impl Flow {
    /// Lets a request in, or refuses it in the words of its protocol.
    pub(crate) fn admit(&self, request: &Request) -> Result<Admitted, Box<Response>> {
        let path = request.uri().path();
        if PROBES.contains(&path) {
            return Ok(Admitted::default());
        }
        let take = |slots: &Slots, what| {
            let slot = slots.take();
            slot.ok_or_else(|| Box::new(refuse(request, what)))
        };
        let taken = take(&self.requests, "requests")?;
        let upload = match path {
            UPLOAD | ROLLBACK => Some(take(&self.uploads, "uploads of configurations")?),
            CONTENTS => Some(take(&self.content_uploads, "uploads of contents")?),
            _ => None,
        };
        Ok(Admitted {
            _request: Some(taken),
            _upload: upload,
        })
    }
}

fn refuse(request: &Request, what: &str) -> Response {
    let status = too_many(what);
    if is_grpc(request) {
        return status.into_http();
    }
    let text = format!("503 Service Unavailable: {}\n", status.message());
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Accepts only as many connections as there are slots.
pub(crate) struct Counted<L> {
    listener: L,
    flow: Arc<Flow>,
}

impl<L> Counted<L> {
    pub(crate) fn new(listener: L, flow: Arc<Flow>) -> Self {
        Self { listener, flow }
    }
}

impl<L: Listener> Listener for Counted<L> {
    type Io = CountedStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (CountedStream<L::Io>, L::Addr) {
        let slots = Arc::clone(&self.flow.connections.semaphore);
        let slot = match slots.acquire_owned().await {
            Ok(slot) => slot,
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        };
        let (stream, address) = self.listener.accept().await;
        let stream = CountedStream {
            stream,
            _slot: slot,
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A connection and its slot.
pub(crate) struct CountedStream<S> {
    stream: S,
    _slot: Slot,
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn what_is_over_the_bound_is_refused_in_its_own_protocol() {
        let queues = Queues::default();
        let flow = Arc::new(Flow::new(&queues));
        let ask = |path: &str, kind: &str| {
            let request = Request::builder()
                .uri(path)
                .header(header::CONTENT_TYPE, kind)
                .body(Body::empty())
                .unwrap();
            match flow.admit(&request) {
                Ok(_) => StatusCode::OK.into_response(),
                Err(refused) => *refused,
            }
        };
        assert_eq!(ask("/x", "text/plain").status(), StatusCode::OK);
        let taken: Vec<Slot> = std::iter::from_fn(|| flow.requests.take()).collect();
        assert_eq!(taken.len(), MAX_REQUESTS);
        let plain = ask("/x", "text/plain");
        assert_eq!(plain.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(plain.headers()[header::RETRY_AFTER], "1");
        let grpc = ask("/trireme.api.v1.JobService/Create", "application/grpc");
        assert_eq!(grpc.headers()["grpc-status"], "8");
        assert_eq!(grpc.headers()["retry-after"], "1");
        assert_eq!(ask("/metrics", "text/plain").status(), StatusCode::OK);
        let full = queues.depths();
        let full = full.iter().find(|queue| queue.name == "requests").unwrap();
        assert_eq!((full.depth, full.capacity), (1024, 1024));
        drop(taken);
        assert_eq!(ask("/x", "text/plain").status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn an_upload_that_stops_or_drags_on_is_given_up() {
        let patience = |pause, whole| Patience {
            pause: Duration::from_millis(pause),
            whole: Duration::from_millis(whole),
            end: Instant::now() + Duration::from_millis(whole),
        };
        let patient = patience(60_000, 60_000);
        let came = patient.next(std::future::ready(Ok(Some(1)))).await;
        assert_eq!(came.unwrap(), Some(1));
        let never = std::future::pending::<Result<Option<()>, Status>>;
        let stopped = patience(1, 60_000).next(never()).await.unwrap_err();
        assert_eq!(stopped.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(
            stopped.message(),
            "no part of the upload came for 0 s, so that it was given up: send it again"
        );
        let slow = patience(60_000, 1).next(never()).await.unwrap_err();
        assert_eq!(
            slow.message(),
            "the upload was not whole after 0 s, so that it was given up: send it again over a faster connection"
        );
    }

    #[test]
    fn bytes_are_counted_in_units() {
        let queues = Queues::default();
        let flow = Flow::new(&queues);
        let _largest = flow
            .webhook_bytes
            .take_bytes(crate::MAX_WEBHOOK_BYTES)
            .unwrap();
        let _second = flow
            .webhook_bytes
            .take_bytes(crate::MAX_WEBHOOK_BYTES)
            .unwrap();
        assert!(
            flow.webhook_bytes
                .take_bytes(crate::MAX_WEBHOOK_BYTES)
                .is_none()
        );
        assert!(flow.webhook_bytes.take_bytes(10).is_some());
    }
}
