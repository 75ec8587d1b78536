//! The client door's listener: with certificates or without, one kind of connection.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
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
                (Either::Left(stream), address)
            }
            Kind::Tls(handshakes) => match handshakes.next().await {
                Some((stream, address)) => (Either::Right(Box::new(stream)), address),
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

/// In the clear, or not.
type DoorStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
