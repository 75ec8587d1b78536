//! What a store runs on.
//!
//! A node has a runtime of its own, threads that read and write its disk, sockets, and the system's clock. In a
//! simulation ([`Host::Simulated`]) all of it happens on the one thread that opened the store: work on the disk is done in
//! place after a wait that the [`World`] chooses, peers are reached through pipes that it hands out, and it says how late
//! it is. Everything else of a store is the same in both; nothing but this module and who is handed a `Host` knows.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt as _, TryFutureExt as _, future::BoxFuture, stream::BoxStream};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint};
use tower::{Service, service_fn};

/// What surrounds a simulated node.
pub trait World: fmt::Debug + Send + Sync + 'static {
    /// This node's clock: milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;

    /// How long the next piece of work on the disk takes.
    fn disk_wait(&self) -> Duration;

    /// Connects to a listener of a node.
    fn connect(&self, address: &str) -> BoxFuture<'static, io::Result<Pipe>>;

    /// Whether the network brings the next vote or heartbeat twice.
    fn repeats(&self) -> bool {
        false
    }

    /// What arrives at this node's own peer listener, until the node stops.
    fn listen(&self) -> BoxStream<'static, io::Result<Pipe>>;
}

/// Where a store's work is done.
#[derive(Debug, Clone, Default)]
pub enum Host {
    /// The machine: a runtime and threads of the store's own, sockets, the system's clock.
    #[default]
    Machine,
    /// The runtime on which the store is opened, which must have one thread.
    Simulated(Arc<dyn World>),
}

impl Host {
    /// Does what blocks where it holds up nobody.
    ///
    /// # Errors
    /// When the work panicked, or the runtime ends.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Machine => tokio::task::spawn_blocking(work)
                .await
                .map_err(io::Error::other),
            Self::Simulated(world) => {
                tokio::time::sleep(world.disk_wait()).await;
                Ok(work())
            }
        }
    }

    /// [`Host::blocking`] for work that fails by itself.
    pub(crate) async fn io<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.blocking(work).await?
    }

    /// Milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> i64 {
        match self {
            Self::Machine => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
                Err(_) => 0,
            },
            Self::Simulated(world) => world.wall_ms(),
        }
    }

    /// Connects when the channel is used.
    pub(crate) fn dial_lazy(&self, endpoint: &Endpoint) -> Channel {
        match self {
            Self::Machine => endpoint.connect_lazy(),
            Self::Simulated(world) => endpoint.connect_with_connector_lazy(connector(world)),
        }
    }

    pub(crate) fn repeats(&self) -> bool {
        self.world().is_some_and(|world| world.repeats())
    }

    pub(crate) fn world(&self) -> Option<&Arc<dyn World>> {
        match self {
            Self::Machine => None,
            Self::Simulated(world) => Some(world),
        }
    }
}

/// Through the simulated network instead of sockets.
fn connector(
    world: &Arc<dyn World>,
) -> impl Service<
    Uri,
    Response = TokioIo<Pipe>,
    Error = io::Error,
    Future = BoxFuture<'static, io::Result<TokioIo<Pipe>>>,
> + Send
+ use<> {
    let world = Arc::clone(world);
    service_fn(move |uri: Uri| {
        let address = uri.authority().map_or("", |address| address.as_str());
        world.connect(address).map_ok(TokioIo::new).boxed()
    })
}

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One end of a connection in a simulated network.
pub struct Pipe(Pin<Box<dyn Duplex>>);

impl Pipe {
    pub fn new(end: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        Self(Box::pin(end))
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}
