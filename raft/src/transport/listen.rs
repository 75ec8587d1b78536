//! Accepting peers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::{
    Server,
    server::{Connected, TcpIncoming},
};
use trireme_proto::raft::raft_transport_server::{RaftTransport, RaftTransportServer};

use super::{MAX_MESSAGE_BYTES, WINDOW_BYTES};
use crate::{
    config::PeerListener,
    host::{Host, Pipe},
    tls::{Handshakes, PeerIdentity, Reloading, TlsError},
};

const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// An entry arrives in one frame: those of 16 KiB, HTTP/2's default, cost both sides as much each.
const FRAME_BYTES: u32 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen for peers on {address}: {source}")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "the peer listener {address} is reachable from other machines, but no peer certificates are configured: set them, \
         or listen on loopback"
    )]
    PlainBeyondLoopback { address: SocketAddr },
    #[error("the peer certificates are unusable: {0}")]
    Tls(#[from] TlsError),
}

/// A bound listener that may be used as configured.
pub(crate) struct Listener {
    source: Source,
    pub(crate) address: SocketAddr,
}

enum Source {
    Sockets(std::net::TcpListener),
    World(BoxStream<'static, io::Result<Pipe>>),
}

impl Listener {
    pub(crate) fn bind(listen: PeerListener, tls: bool, host: &Host) -> Result<Self, ListenError> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let bind = |source| ListenError::Bind {
            address: unknown,
            source,
        };
        let listener = match listen {
            PeerListener::Address(address) => std::net::TcpListener::bind(address)
                .map_err(|source| ListenError::Bind { address, source })?,
            PeerListener::Bound(listener) => listener,
            PeerListener::World => {
                let world = host.world().ok_or_else(|| {
                    bind(io::Error::other("only a simulated world hands out pipes"))
                })?;
                return Ok(Self {
                    source: Source::World(world.listen()),
                    address: unknown,
                });
            }
        };
        let address = listener.local_addr().map_err(bind)?;
        if !tls && !address.ip().is_loopback() {
            return Err(ListenError::PlainBeyondLoopback { address });
        }
        listener.set_nonblocking(true).map_err(bind)?;
        Ok(Self {
            source: Source::Sockets(listener),
            address,
        })
    }
}

/// Serves peers on the present runtime until `stop` is sent or dropped.
pub(crate) fn serve(
    listener: Listener,
    tls: Option<Arc<Reloading<PeerIdentity>>>,
    service: impl RaftTransport,
    stop: oneshot::Receiver<()>,
) -> Result<(), ListenError> {
    let Listener { source, address } = listener;
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .add_service(
            RaftTransportServer::new(service)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        );
    let incoming = match source {
        Source::Sockets(listener) => {
            let listener = TcpListener::from_std(listener)
                .map_err(|source| ListenError::Bind { address, source })?;
            arriving(listener, tls)
        }
        Source::World(pipes) => pipes
            .map(|accepted| accepted.map(PeerStream::Simulated))
            .boxed(),
    };
    tokio::spawn(async move {
        let stopped = async {
            // Dropping the sender stops it as well.
            let _ = stop.await;
        };
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, %address, "the peer listener ended");
        }
    });
    Ok(())
}

/// What arrives through sockets.
fn arriving(
    listener: TcpListener,
    tls: Option<Arc<Reloading<PeerIdentity>>>,
) -> BoxStream<'static, io::Result<PeerStream>> {
    let Some(tls) = tls else {
        return TcpIncoming::from(listener)
            .with_nodelay(Some(true))
            .map(|accepted| accepted.map(PeerStream::Plain))
            .boxed();
    };
    let handshakes = Handshakes::start(listener, Arc::clone(&tls));
    stream::unfold((handshakes, tls), |(mut handshakes, tls)| async move {
        loop {
            let (stream, address) = handshakes.next().await?;
            match tls.current().caller(stream.get_ref().1.peer_certificates()) {
                Ok(node) => {
                    let stream = PeerStream::Tls(Box::new(stream), node);
                    return Some((Ok(stream), (handshakes, tls)));
                }
                // The handshake has looked at it already.
                Err(why) => tracing::warn!(%address, %why, "a connection was refused"),
            }
        }
    })
    .boxed()
}

/// Who calls; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody on this host: there are no certificates, and the listener is on loopback.
    Local,
    /// The node that the certificate names.
    Node(u64),
}

enum PeerStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, u64),
    Simulated(Pipe),
}

impl Connected for PeerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        match self {
            Self::Plain(_) | Self::Simulated(_) => Caller::Local,
            Self::Tls(_, node) => Caller::Node(*node),
        }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, into),
            Self::Simulated(pipe) => Pin::new(pipe).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Simulated(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Simulated(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Simulated(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Simulated(pipe) => Pin::new(pipe).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream, _) => stream.is_write_vectored(),
            Self::Simulated(pipe) => pipe.is_write_vectored(),
        }
    }
}
