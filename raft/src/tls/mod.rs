//! TLS of a node's listeners: certificates in files that may change while it runs, and handshakes that keep nobody
//! waiting.

mod accept;
mod peer;
mod reload;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use accept::{Accepted, Handshakes};
pub(crate) use peer::PeerIdentity;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};

pub use reload::{Reloading, TlsHealth};

/// A PEM file larger than this is none.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Why certificates or keys cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {what}", path.display())]
    Content { path: PathBuf, what: String },
    #[error(
        "{} does not belong to the key in {}: put both from one `trireme certs` run, or wait until both are replaced",
        certificate.display(), key.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{}: {source}", certificate.display())]
    Unusable {
        certificate: PathBuf,
        source: rustls::Error,
    },
    #[error(
        "{} names {found}, but this is node {node} of cluster {cluster:?}: make one with `trireme certs node --cluster \
         {cluster} --id {node}`",
        path.display()
    )]
    Name {
        path: PathBuf,
        found: String,
        cluster: String,
        node: u64,
    },
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_PEM_BYTES {
        return Err(TlsError::Content {
            path: path.to_owned(),
            what: format!("{size} bytes are no PEM file"),
        });
    }
    std::fs::read(path).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = |what: String| TlsError::Content {
        path: path.to_owned(),
        what,
    };
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| content(format!("not PEM: {why}")))?;
    if found.is_empty() {
        return Err(content(
            "holds no certificate (BEGIN CERTIFICATE)".to_owned(),
        ));
    }
    Ok(found)
}

fn certified(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|why| TlsError::Content {
        path: key.to_owned(),
        what: format!("holds no private key in PEM: {why}"),
    })?;
    CertifiedKey::from_der(chain, private, &provider())
        .map(Arc::new)
        .map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
            source => TlsError::Unusable {
                certificate: certificate.to_owned(),
                source,
            },
        })
}

fn roots(ca: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|why| TlsError::Content {
            path: ca.to_owned(),
            what: format!("holds no usable authority: {why}"),
        })?;
    }
    Ok(Arc::new(roots))
}

/// When the first certificate of a chain ends, in seconds since the Unix epoch.
fn expires(path: &Path, chain: &[CertificateDer<'_>]) -> Result<i64, TlsError> {
    let content = |what: String| TlsError::Content {
        path: path.to_owned(),
        what,
    };
    let first = chain
        .first()
        .ok_or_else(|| content("holds no certificate".to_owned()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(first)
        .map_err(|why| content(format!("is no X.509 certificate: {why}")))?;
    Ok(parsed.validity().not_after.timestamp())
}

/// No sessions are resumed: a certificate that is no longer good must not live on in a ticket.
fn forget_sessions(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

/// Files of a listener that asks its clients for no certificate.
#[derive(Debug, Clone)]
pub struct DoorTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a listener was told by its files.
#[derive(Debug)]
pub struct DoorIdentity {
    pub(crate) server: Arc<ServerConfig>,
    expires: i64,
}

impl DoorTls {
    /// Reads the files now, and again whenever they change.
    ///
    /// # Errors
    /// When they cannot be used as they are.
    pub fn open(self) -> Result<Reloading<DoorIdentity>, TlsError> {
        let files = vec![self.certificate.clone(), self.key.clone()];
        Reloading::open(files, move || self.load(), |identity| identity.expires)
    }

    fn load(&self) -> Result<DoorIdentity, TlsError> {
        let certified = certified(&self.certificate, &self.key)?;
        let expires = expires(&self.certificate, &certified.cert)?;
        let unusable = |source| TlsError::Unusable {
            certificate: self.certificate.clone(),
            source,
        };
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        forget_sessions(&mut server);
        Ok(DoorIdentity {
            server: Arc::new(server),
            expires,
        })
    }
}

impl accept::ServerTls for Reloading<DoorIdentity> {
    fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().server)
    }
}
