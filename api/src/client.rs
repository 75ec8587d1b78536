//! The client library: one connection to whichever node of a cluster answers.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use trireme_proto::api::{
    agent_service_client::AgentServiceClient, cluster_service_client::ClusterServiceClient,
    config_service_client::ConfigServiceClient, delivery_service_client::DeliveryServiceClient,
    job_service_client::JobServiceClient, pool_service_client::PoolServiceClient,
    watch_service_client::WatchServiceClient,
};
use trireme_raft::Host;

/// Largest message taken from or given to a node.
const MAX_MESSAGE_BYTES: usize = 72 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that answers nothing for this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why no node could be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{address:?} is no address of a node (http://host:port): {source}")]
    Address {
        address: String,
        source: tonic::transport::Error,
    },
    #[error("no node answers at {addresses}: {last}")]
    Unreachable { addresses: String, last: String },
    #[error("no address of a node was given")]
    NoAddress,
}

/// Connected to one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    address: String,
}

impl Client {
    /// Connects to the first that answers of a comma-separated list of addresses.
    ///
    /// # Errors
    /// When none answers within 2 s each.
    pub async fn connect(addresses: &str) -> Result<Self, ConnectError> {
        Self::connect_from(&Host::Machine, addresses).await
    }

    /// [`Client::connect`] from a node to others.
    pub(crate) async fn connect_from(host: &Host, addresses: &str) -> Result<Self, ConnectError> {
        let mut last = ConnectError::NoAddress;
        for address in addresses
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
        {
            let url = if address.contains("://") {
                address.to_owned()
            } else {
                format!("http://{address}")
            };
            let endpoint = Endpoint::from_shared(url.clone())
                .map_err(|source| ConnectError::Address {
                    address: address.to_owned(),
                    source,
                })?
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .tcp_nodelay(true);
            match host.dial(&endpoint).await {
                Ok(channel) => {
                    return Ok(Self {
                        channel,
                        address: url,
                    });
                }
                Err(why) => {
                    last = ConnectError::Unreachable {
                        addresses: addresses.to_owned(),
                        last: why.to_string(),
                    };
                }
            }
        }
        Err(last)
    }

    /// The node that answered.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    #[must_use]
    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn pools(&self) -> PoolServiceClient<Channel> {
        PoolServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn config(&self) -> ConfigServiceClient<Channel> {
        ConfigServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn deliveries(&self) -> DeliveryServiceClient<Channel> {
        DeliveryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    #[must_use]
    pub fn watch(&self) -> WatchServiceClient<Channel> {
        WatchServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone())
    }
}
