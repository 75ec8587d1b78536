//! Accepting peers.

use std::{io, net::SocketAddr, time::Duration};

use futures::{FutureExt as _, stream::BoxStream};
use tokio::{net::TcpListener, sync::oneshot};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming};
use trireme_proto::raft::raft_transport_server::{RaftTransport, RaftTransportServer};

use super::{MAX_MESSAGE_BYTES, WINDOW_BYTES};
use crate::{
    config::{PeerListener, PeerTls},
    host::{Host, Pipe},
};

const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

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
    Tls(tonic::transport::Error),
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
    tls: Option<&PeerTls>,
    service: impl RaftTransport,
    stop: oneshot::Receiver<()>,
) -> Result<(), ListenError> {
    let Listener { source, address } = listener;
    let mut server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    if let Some(tls) = tls {
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&tls.certificate, &tls.key))
            .client_ca_root(Certificate::from_pem(&tls.ca));
        server = server.tls_config(config).map_err(ListenError::Tls)?;
    }
    let router = server.add_service(
        RaftTransportServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
    );
    let stopped = async {
        // Dropping the sender stops it as well.
        let _ = stop.await;
    };
    let serving = match source {
        Source::Sockets(listener) => {
            let listener = TcpListener::from_std(listener)
                .map_err(|source| ListenError::Bind { address, source })?;
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router
                .serve_with_incoming_shutdown(incoming, stopped)
                .boxed()
        }
        Source::World(incoming) => router
            .serve_with_incoming_shutdown(incoming, stopped)
            .boxed(),
    };
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, %address, "the peer listener ended");
        }
    });
    Ok(())
}
