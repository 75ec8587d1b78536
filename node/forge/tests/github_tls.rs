//! HTTP/2 over TLS, as GitHub speaks it: one connection carries all requests (GHC-021).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap, and say what the child said"
)]

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use trireme_forge::github::{Credentials, GitHub, GitHubOptions, fixed_secret};
use trireme_forge::{Labels, RepoId};

/// Where the child finds the certificate of its server.
const DIR: &str = "TRIREME_TEST_TLS_DIR";

/// What one connection carried: the protocol that was agreed on, and the version and path of each request.
#[derive(Debug, Default)]
struct Connection {
    protocol: String,
    requests: Vec<(Version, String)>,
}

type Seen = Arc<Mutex<Vec<Connection>>>;

/// A GitHub with a certificate for `localhost` that speaks HTTP/2 alone.
async fn serve(dir: &Path) -> (u16, Seen) {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let protocol = stream.get_ref().1.alpn_protocol().unwrap_or_default();
            let protocol = String::from_utf8_lossy(protocol).into_owned();
            let number = {
                let mut noted = noted.lock().unwrap();
                noted.push(Connection {
                    protocol,
                    requests: Vec::new(),
                });
                noted.len() - 1
            };
            let noted = Arc::clone(&noted);
            let service = service_fn(move |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                let mut noted = noted.lock().unwrap();
                noted[number].requests.push((request.version(), path));
                let body = Full::new(Bytes::from_static(br#"[{"name":"lgtm"}]"#));
                std::future::ready(Ok::<_, Infallible>(Response::new(body)))
            });
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(served);
        }
    });
    (port, seen)
}

async fn story(dir: &Path) {
    let (port, seen) = serve(dir).await;
    let api = format!("https://localhost:{port}").parse().unwrap();
    let token = Credentials::Token(fixed_secret("t"));
    let github = GitHub::new(GitHubOptions::new(api, token)).unwrap();
    let repo = RepoId::new("org", "repo");
    for number in 1..=3 {
        assert_eq!(github.labels(&repo, number).await.unwrap().len(), 1);
    }
    // At the same time, too.
    let ask = |number| github.labels(&repo, number);
    let (four, five, six) = tokio::join!(ask(4), ask(5), ask(6));
    assert!([four, five, six].iter().all(Result::is_ok));
    let seen = seen.lock().unwrap();
    let [only] = &seen[..] else {
        panic!("more than one connection: {seen:?}");
    };
    assert_eq!(only.protocol, "h2");
    assert_eq!(only.requests.len(), 6);
    let versions = only.requests.iter().map(|(version, _)| *version);
    assert!(
        versions
            .into_iter()
            .all(|version| version == Version::HTTP_2)
    );
}

/// The client believes the machine's root certificates, which a process reads from where its environment says: a child
/// of this test is told to believe the test's own.
#[tokio::test]
async fn ghc_021_requests_over_tls_share_one_connection_of_http_2() {
    if let Some(dir) = std::env::var_os(DIR) {
        return story(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = dir.path().join("cert.pem");
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("ghc_021_requests_over_tls_share_one_connection_of_http_2")
        .env(DIR, dir.path())
        .env("SSL_CERT_FILE", &certificate)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"));
}
