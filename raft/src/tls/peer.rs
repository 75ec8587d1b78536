//! Who a peer is: its certificate names the cluster and the node, as `trireme-peer://<cluster>/<node id>`.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{
    Reloading, TlsError, accept::ServerTls, certified, expires, forget_sessions, provider, roots,
};
use crate::config::PeerTls;

/// Scheme of the URI in a node's certificate.
const PEER_SCHEME: &str = "trireme-peer";

/// Why a certificate that the authority signed is no peer's all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPeer {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate names no node: it has no URI {PEER_SCHEME}://{0}/<node id>")]
    Nameless(String),
    #[error("the certificate names {found}, this is cluster {cluster:?}")]
    OtherCluster { found: String, cluster: String },
    #[error("the certificate names several nodes")]
    Several,
    #[error("node {expected} was meant to answer, the certificate is node {found}'s")]
    OtherNode { expected: u64, found: u64 },
}

impl From<NoPeer> for Error {
    fn from(why: NoPeer) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
    }
}

/// The node of `cluster` that a certificate names. Says nothing about who signed it.
fn peer_of(certificate: &CertificateDer<'_>, cluster: &str) -> Result<u64, NoPeer> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| NoPeer::Unreadable)?;
    let scheme = format!("{PEER_SCHEME}://");
    let mut names = parsed
        .valid_uri_names()
        .filter(|name| name.starts_with(&scheme));
    let Some(name) = names.next() else {
        return Err(NoPeer::Nameless(cluster.to_owned()));
    };
    if names.next().is_some() {
        return Err(NoPeer::Several);
    }
    let other = || NoPeer::OtherCluster {
        found: name.to_owned(),
        cluster: cluster.to_owned(),
    };
    let (named, id) = name[scheme.len()..].split_once('/').ok_or_else(other)?;
    let id: u64 = id.parse().map_err(|_| other())?;
    if named != cluster || id == 0 {
        return Err(other());
    }
    Ok(id)
}

/// What a node proves itself with, and what it asks of others.
#[derive(Debug)]
pub(crate) struct PeerIdentity {
    server: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
    certified: Arc<CertifiedKey>,
    cluster: String,
    expires: i64,
}

impl PeerTls {
    /// Reads the files now, and again whenever they change.
    pub(crate) fn open(self, node: u64) -> Result<Reloading<PeerIdentity>, TlsError> {
        let files = vec![self.ca.clone(), self.certificate.clone(), self.key.clone()];
        Reloading::open(files, move || self.load(node), |identity| identity.expires)
    }

    fn load(&self, node: u64) -> Result<PeerIdentity, TlsError> {
        let roots = roots(&self.ca)?;
        let certified = certified(&self.certificate, &self.key)?;
        let expires = expires(&self.certificate, &certified.cert)?;
        let name = |found: String| TlsError::Name {
            path: self.certificate.clone(),
            found,
            cluster: self.cluster.clone(),
            node,
        };
        match peer_of(
            certified
                .end_entity_cert()
                .map_err(|source| self.unusable(source))?,
            &self.cluster,
        ) {
            Ok(id) if id == node => {}
            Ok(id) => return Err(name(format!("node {id}"))),
            Err(why) => return Err(name(format!("no node of it ({why})"))),
        }
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|why| TlsError::Content {
                path: self.ca.clone(),
                what: why.to_string(),
            })?;
        let verifier = ClientVerifier {
            chain,
            cluster: self.cluster.clone(),
        };
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| self.unusable(source))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&certified))));
        server.alpn_protocols = vec![b"h2".to_vec()];
        forget_sessions(&mut server);
        Ok(PeerIdentity {
            server: Arc::new(server),
            roots,
            certified,
            cluster: self.cluster.clone(),
            expires,
        })
    }

    fn unusable(&self, source: Error) -> TlsError {
        TlsError::Unusable {
            certificate: self.certificate.clone(),
            source,
        }
    }
}

impl PeerIdentity {
    /// For a connection to `expected`, or to whichever node of the cluster answers.
    pub(crate) fn client(&self, expected: Option<u64>) -> Result<ClientConfig, Error> {
        let verifier = ServerVerifier {
            roots: Arc::clone(&self.roots),
            algorithms: provider().signature_verification_algorithms,
            cluster: self.cluster.clone(),
            expected,
        };
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
                &self.certified,
            ))));
        client.alpn_protocols = vec![b"h2".to_vec()];
        client.resumption = Resumption::disabled();
        Ok(client)
    }

    /// Whose certificate a connection was opened with.
    pub(crate) fn caller(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<u64, NoPeer> {
        let first = chain.and_then(<[_]>::first).ok_or(NoPeer::Unreadable)?;
        peer_of(first, &self.cluster)
    }
}

impl ServerTls for Reloading<PeerIdentity> {
    fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().server)
    }
}

/// A client must be some node of this cluster.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: String,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        peer_of(end_entity, &self.cluster)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// A server must be the node that was meant. Its address is not asked for: it may change, and a certificate for an
/// address would let any node answer for any other behind it.
#[derive(Debug)]
struct ServerVerifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    cluster: String,
    expected: Option<u64>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let found = peer_of(end_entity, &self.cluster)?;
        match self.expected {
            Some(expected) if expected != found => {
                Err(NoPeer::OtherNode { expected, found }.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into().unwrap()));
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_one_node_of_one_cluster() {
        let named = |uris: &[&str]| peer_of(&certificate(uris), "blue");
        assert_eq!(named(&["trireme-peer://blue/7"]), Ok(7));
        assert_eq!(
            named(&["https://example.com", "trireme-peer://blue/7"]),
            Ok(7)
        );
        assert_eq!(named(&[]), Err(NoPeer::Nameless("blue".to_owned())));
        assert_eq!(
            named(&["trireme-peer://blue/7", "trireme-peer://blue/8"]),
            Err(NoPeer::Several)
        );
        for other in [
            "trireme-peer://green/7",
            "trireme-peer://blue/0",
            "trireme-peer://blue/7/8",
            "trireme-peer://blue/seven",
            "trireme-peer://blue",
            "trireme-peer://blue.green/7",
        ] {
            assert!(
                matches!(named(&[other]), Err(NoPeer::OtherCluster { .. })),
                "{other}"
            );
        }
    }
}
