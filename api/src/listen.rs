//! The client door's listener: with certificates or without, one kind of connection.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use trireme_raft::tls::{DoorIdentity, Handshakes, Reloading};

use crate::{auth::Remote, flow::Counted};

/// Certificates of the door, read again when their files change.
pub type DoorCertificates = Arc<Reloading<DoorIdentity>>;

pub(crate) struct DoorListener {
    kind: Kind,
    address: SocketAddr,
}

enum Kind {
    Plain(TcpListener),
    Tls(Handshakes),
}

impl DoorListener {
    pub(crate) fn new(listener: TcpListener, tls: Option<DoorCertificates>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let kind = match tls {
            None => Kind::Plain(listener),
            Some(tls) => Kind::Tls(Handshakes::at_door(listener, tls)),
        };
        Ok(Self { kind, address })
    }
}

impl Listener for DoorListener {
    type Io = DoorStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DoorStream, SocketAddr) {
        match &mut self.kind {
            Kind::Plain(listener) => {
                // axum's own waits out what a busy host cannot give.
                let (stream, address) = Listener::accept(listener).await;
                // An answer must not wait for the client's acknowledgement of the one before.
                if let Err(why) = stream.set_nodelay(true) {
                    tracing::debug!(%why, "a connection keeps Nagle's algorithm");
                }
                (DoorStream::Plain(stream), address)
            }
            Kind::Tls(handshakes) => match handshakes.next().await {
                Some((stream, address)) => (DoorStream::Tls(Box::new(stream)), address),
                // Its task ends only with the runtime.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl<L> Connected<IncomingStream<'_, Counted<L>>> for Remote
where
    L: Listener<Addr = SocketAddr>,
{
    fn connect_info(stream: IncomingStream<'_, Counted<L>>) -> Self {
        Self(*stream.remote_addr())
    }
}

pub(crate) enum DoorStream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl AsyncRead for DoorStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for DoorStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
