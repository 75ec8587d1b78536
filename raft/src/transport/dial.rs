//! Connecting to peers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use trireme_proto::raft::raft_transport_client::RaftTransportClient;

use super::{MAX_MESSAGE_BYTES, WINDOW_BYTES};
use crate::{config::PeerTls, host::Host};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection that answers no ping for this long is given up.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections kept for forwarded calls; more than any cluster has members.
const MAX_SHARED: usize = 64;

pub(crate) type Client = RaftTransportClient<Channel>;

/// Makes connections; they are established when first used, and again after they broke.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    tls: Option<Arc<PeerTls>>,
    host: Host,
    shared: Arc<Mutex<BTreeMap<String, Client>>>,
}

impl Dialer {
    pub(crate) fn new(tls: Option<PeerTls>, host: Host) -> Self {
        Self {
            tls: tls.map(Arc::new),
            host,
            shared: Arc::default(),
        }
    }

    /// A connection of its own: what is sent elsewhere does not delay it. Must be called on a runtime.
    pub(crate) fn connect(&self, address: &str) -> Result<Client, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(
                ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(&tls.ca))
                    .identity(Identity::from_pem(&tls.certificate, &tls.key))
                    .domain_name(&tls.server_name),
            )?;
        }
        let channel = self.host.dial_lazy(&endpoint);
        Ok(RaftTransportClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// One connection per address for calls that may share it.
    pub(crate) fn shared(&self, address: &str) -> Result<Client, tonic::transport::Error> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = shared.get(address) {
            return Ok(client.clone());
        }
        if shared.len() >= MAX_SHARED {
            shared.clear();
        }
        let client = self.connect(address)?;
        shared.insert(address.to_owned(), client.clone());
        Ok(client)
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
