//! Accepting peers.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, sync::oneshot};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming};
use trireme_proto::raft::raft_transport_server::{RaftTransport, RaftTransportServer};

use super::{MAX_MESSAGE_BYTES, WINDOW_BYTES};
use crate::config::{PeerListener, PeerTls};

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
#[derive(Debug)]
pub(crate) struct Listener {
    listener: std::net::TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(listen: PeerListener, tls: bool) -> Result<Self, ListenError> {
        let listener = match listen {
            PeerListener::Address(address) => std::net::TcpListener::bind(address)
                .map_err(|source| ListenError::Bind { address, source })?,
            PeerListener::Bound(listener) => listener,
        };
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let bind = |source| ListenError::Bind {
            address: unknown,
            source,
        };
        let address = listener.local_addr().map_err(bind)?;
        if !tls && !address.ip().is_loopback() {
            return Err(ListenError::PlainBeyondLoopback { address });
        }
        listener.set_nonblocking(true).map_err(bind)?;
        Ok(Self { listener, address })
    }
}

/// Serves peers on the present runtime until `stop` is sent or dropped.
pub(crate) fn serve(
    listener: Listener,
    tls: Option<&PeerTls>,
    service: impl RaftTransport,
    stop: oneshot::Receiver<()>,
) -> Result<(), ListenError> {
    let address = listener.address;
    let listener = TcpListener::from_std(listener.listener)
        .map_err(|source| ListenError::Bind { address, source })?;
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
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(async move {
        let stopped = async {
            // Dropping the sender stops it as well.
            let _ = stop.await;
        };
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(%error, %address, "the peer listener ended");
        }
    });
    Ok(())
}
