//! The client library: one connection to whichever node of a cluster answers.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use trireme_proto::api::{
    agent_service_client::AgentServiceClient, auth_service_client::AuthServiceClient,
    cluster_service_client::ClusterServiceClient, config_service_client::ConfigServiceClient,
    delivery_service_client::DeliveryServiceClient, job_service_client::JobServiceClient,
    pool_service_client::PoolServiceClient, watch_service_client::WatchServiceClient,
};

/// Largest message taken from a node. What is given to one it bounds itself, in words; a bound here would end as a broken
/// stream that says nothing.
const MAX_MESSAGE_BYTES: usize = 72 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that answers nothing for this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why no node could be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "{address:?} is no address of a node (http://host:port or https://host:port): {source}"
    )]
    Address {
        address: String,
        source: tonic::transport::Error,
    },
    #[error(
        "{address}: TLS cannot be set up: {what}; give the authority of the nodes' certificates with --ca"
    )]
    Tls { address: String, what: String },
    #[error("no node answers at {addresses}: {last}")]
    Unreachable { addresses: String, last: String },
    #[error("no address of a node was given")]
    NoAddress,
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {what}", path.display())]
    Content { path: PathBuf, what: &'static str },
    #[error("the token cannot be sent: it holds characters that no header may")]
    Token,
    #[error(
        "{address} is not on this host and not https: the token would go over the network in the clear; say https://host:port"
    )]
    TokenInTheClear { address: String },
}

/// How to prove oneself to a node, and how it proves itself.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// Authorities (PEM) that signed the nodes' certificates; the system's without.
    pub ca: Option<PathBuf>,
    pub token: Token,
}

/// Where the token is; read at each connection.
#[derive(Clone, Default)]
pub enum Token {
    #[default]
    None,
    Text(String),
    File(PathBuf),
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(path).map_err(|source| ConnectError::File {
        path: path.to_owned(),
        source,
    })
}

impl ConnectOptions {
    fn bearer(&self) -> Result<Bearer, ConnectError> {
        let token = match &self.token {
            Token::None => return Ok(Bearer(None)),
            Token::Text(text) => text.trim().to_owned(),
            Token::File(path) => {
                let text = read(path)?.trim().to_owned();
                if text.is_empty() {
                    return Err(ConnectError::Content {
                        path: path.clone(),
                        what: "holds no token",
                    });
                }
                text
            }
        };
        let mut value: AsciiMetadataValue =
            MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| ConnectError::Token)?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    /// An address without a scheme is https where an authority is given.
    fn url(&self, address: &str) -> String {
        match (address.contains("://"), &self.ca) {
            (true, _) => address.to_owned(),
            (false, Some(_)) => format!("https://{address}"),
            (false, None) => format!("http://{address}"),
        }
    }

    fn endpoint(&self, url: &str, has_token: bool) -> Result<Endpoint, ConnectError> {
        let wrong = |source| ConnectError::Address {
            address: url.to_owned(),
            source,
        };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(wrong)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .tcp_nodelay(true);
        if endpoint.uri().scheme_str() == Some("https") {
            let mut tls = ClientTlsConfig::new();
            tls = match &self.ca {
                Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
                None => tls.with_native_roots(),
            };
            return endpoint.tls_config(tls).map_err(|why| ConnectError::Tls {
                address: url.to_owned(),
                what: reason(&why),
            });
        }
        if has_token && !is_this_host(endpoint.uri().host().unwrap_or_default()) {
            return Err(ConnectError::TokenInTheClear {
                address: url.to_owned(),
            });
        }
        Ok(endpoint)
    }
}

fn is_this_host(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Shows the token with every call.
#[derive(Clone)]
pub struct Bearer(Option<AsciiMetadataValue>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What calls go through.
pub type Connection = InterceptedService<Channel, Bearer>;

/// Connected to one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Connection,
    address: String,
}

impl Client {
    /// [`Self::connect_with`] nothing to show, and the system's authorities.
    ///
    /// # Errors
    /// See there.
    pub async fn connect(addresses: &str) -> Result<Self, ConnectError> {
        Self::connect_with(addresses, &ConnectOptions::default()).await
    }

    /// Connects to the first that answers of a comma-separated list of addresses.
    ///
    /// # Errors
    /// When none answers within 2 s each, or the options cannot be used.
    pub async fn connect_with(
        addresses: &str,
        options: &ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let bearer = options.bearer()?;
        let mut last = ConnectError::NoAddress;
        for address in addresses
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
        {
            let url = options.url(address);
            let endpoint = options.endpoint(&url, bearer.0.is_some())?;
            match endpoint.connect().await {
                Ok(channel) => {
                    return Ok(Self {
                        channel: InterceptedService::new(channel, bearer),
                        address: url,
                    });
                }
                Err(why) => {
                    last = ConnectError::Unreachable {
                        addresses: addresses.to_owned(),
                        last: reason(&why),
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
    pub fn jobs(&self) -> JobServiceClient<Connection> {
        JobServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn pools(&self) -> PoolServiceClient<Connection> {
        PoolServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn config(&self) -> ConfigServiceClient<Connection> {
        ConfigServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn deliveries(&self) -> DeliveryServiceClient<Connection> {
        DeliveryServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn cluster(&self) -> ClusterServiceClient<Connection> {
        ClusterServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn watch(&self) -> WatchServiceClient<Connection> {
        WatchServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    #[must_use]
    pub fn auth(&self) -> AuthServiceClient<Connection> {
        AuthServiceClient::new(self.channel.clone())
    }

    #[must_use]
    pub fn agents(&self) -> AgentServiceClient<Connection> {
        AgentServiceClient::new(self.channel.clone())
    }
}

/// The innermost cause says what to mend: a refused connection, a certificate of an unknown authority.
fn reason(why: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = why;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let (outer, inner) = (why.to_string(), cause.to_string());
    if outer == inner {
        outer
    } else {
        format!("{outer}: {inner}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_this_host_encrypted_or_not_at_all() {
        let options = ConnectOptions::default();
        for url in [
            "http://127.0.0.1:1",
            "http://localhost:1",
            "http://[::1]:1",
            "https://ci.example.com",
        ] {
            assert!(options.endpoint(url, true).is_ok(), "{url}");
        }
        for url in ["http://ci.example.com:8888", "http://10.0.0.1:8888"] {
            assert!(options.endpoint(url, false).is_ok());
            let why = options.endpoint(url, true).unwrap_err();
            assert!(matches!(why, ConnectError::TokenInTheClear { .. }), "{why}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let options = ConnectOptions {
            token: Token::File(path.clone()),
            ..ConnectOptions::default()
        };
        assert!(matches!(options.bearer(), Err(ConnectError::File { .. })));
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(
            options.bearer(),
            Err(ConnectError::Content { .. })
        ));
        std::fs::write(&path, "secret\n").unwrap();
        let value = options.bearer().unwrap().0.unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer secret");
        assert!(value.is_sensitive());
    }
}
