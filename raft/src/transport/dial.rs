//! Connecting to peers.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use trireme_proto::raft::raft_transport_client::RaftTransportClient;

use super::{MAX_MESSAGE_BYTES, WINDOW_BYTES};
use crate::{
    host::Host,
    tls::{PeerIdentity, Reloading},
};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection that answers no ping for this long is given up.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections kept for forwarded calls; more than any cluster has members.
const MAX_SHARED: usize = 64;

pub(crate) type Client = RaftTransportClient<Channel>;

/// An address, and the node that must answer there; None = any of the cluster.
type Target = (String, Option<u64>);

/// Makes connections; they are established when first used, and again after they broke.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    tls: Option<Arc<Reloading<PeerIdentity>>>,
    host: Host,
    shared: Arc<Mutex<BTreeMap<Target, Client>>>,
}

impl Dialer {
    pub(crate) fn new(tls: Option<Arc<Reloading<PeerIdentity>>>, host: Host) -> Self {
        Self {
            tls,
            host,
            shared: Arc::default(),
        }
    }

    /// A connection of its own: what is sent elsewhere does not delay it. Must be called on a runtime.
    pub(crate) fn connect(
        &self,
        address: &str,
        expected: Option<u64>,
    ) -> Result<Client, tonic::transport::Error> {
        // What encrypts is the connector: to tonic it is plain HTTP/2.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = match &self.tls {
            None => self.host.dial_lazy(&endpoint),
            Some(tls) => endpoint.connect_with_connector_lazy(Connector {
                tls: Arc::clone(tls),
                address: address.to_owned(),
                expected,
            }),
        };
        Ok(RaftTransportClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// One connection per target for calls that may share it.
    pub(crate) fn shared(
        &self,
        address: &str,
        expected: Option<u64>,
    ) -> Result<Client, tonic::transport::Error> {
        let target = (address.to_owned(), expected);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = shared.get(&target) {
            return Ok(client.clone());
        }
        if shared.len() >= MAX_SHARED {
            shared.clear();
        }
        let client = self.connect(address, expected)?;
        shared.insert(target, client.clone());
        Ok(client)
    }
}

/// Connects with the certificates of the moment.
struct Connector {
    tls: Arc<Reloading<PeerIdentity>>,
    address: String,
    expected: Option<u64>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (tls, address, expected) = (Arc::clone(&self.tls), self.address.clone(), self.expected);
        Box::pin(async move {
            let config = tls
                .current()
                .client(expected)
                .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            // Not looked at by our verifier; something must stand there.
            let name = ServerName::try_from("trireme-peer")
                .map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
            let stream = TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await?;
            Ok(TokioIo::new(stream))
        })
    }
}

/// Whether the request certainly never left this node.
pub(crate) fn never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
