//! Nodes speak mutual TLS.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{PATIENCE, read, write};
use trireme_raft::{JoinError, Node, PeerListener, PeerTls, Store, StoreConfig};

const NAME: &str = "trireme-peer";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(authority: &Authority) -> PeerTls {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    PeerTls {
        ca: authority.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        server_name: NAME.to_owned(),
    }
}

async fn open(dir: &std::path::Path, id: u64, tls: Option<PeerTls>) -> (Store, Node) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = StoreConfig::new(dir.join(id.to_string()), id, address);
    config.peer_listener = PeerListener::Bound(listener);
    config.tls = tls;
    let store = Store::open(config).await.unwrap();
    let node = Node {
        id,
        peer_address: address.to_string(),
        ..Node::default()
    };
    (store, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_of_one_authority_make_a_cluster_and_others_do_not_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let ours = authority();
    let (one, node) = open(dir.path(), 1, Some(certificate(&ours))).await;
    one.bootstrap(vec![node.clone()]).await.unwrap();
    let (two, _) = open(dir.path(), 2, Some(certificate(&ours))).await;
    let seeds = [node.peer_address.clone()];
    two.join(&seeds).await.unwrap();
    let applied = write(&two, "a", "1").await;
    one.at_least(applied.revision).await;
    assert_eq!(read(&one, "a").as_deref(), Some("1"));

    for tls in [Some(certificate(&authority())), None] {
        let (stranger, _) = open(dir.path(), 3, tls).await;
        let joining = tokio::time::timeout(PATIENCE / 10, stranger.join(&seeds));
        match joining.await {
            Err(_) | Ok(Err(JoinError::Unreachable { .. })) => {}
            other => panic!("{other:?}"),
        }
        assert!(!stranger.is_member());
        stranger.stop().await;
    }
    assert_eq!(one.status().members.len(), 2);
}
