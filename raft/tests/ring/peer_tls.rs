//! Nodes speak mutual TLS: a certificate names its node, and what that node may do follows from the membership.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures::stream;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use trireme_proto::raft::{
    AppendRequest, ChangeMembershipRequest, FetchArchiveRequest, HelloRequest, LeaderId,
    SnapshotChunk, Vote, VoteRequest, change_membership_request::Change,
    raft_transport_client::RaftTransportClient,
};

use crate::support::{Cluster, PATIENCE, eventually, read, write};
use trireme_raft::{JoinError, Node, PeerListener, PeerTls, Store, StoreConfig};

const CLUSTER: &str = "blue";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key.
    fn issue(&self, cluster: &str, id: u64) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        // The DNS name is for the plain client of these tests alone.
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let name = format!("trireme-peer://{cluster}/{id}");
        params
            .subject_alt_names
            .push(SanType::URI(name.as_str().try_into().unwrap()));
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate for one node, beside its data.
    fn write(&self, dir: &Path, cluster: &str, id: u64) -> PeerTls {
        let tls = tls(dir, id);
        fs::create_dir_all(tls.ca.parent().unwrap()).unwrap();
        replace(&tls.ca, &self.0.pem());
        let (certificate, key) = self.issue(cluster, id);
        replace(&tls.certificate, &certificate);
        replace(&tls.key, &key);
        tls
    }
}

fn tls(dir: &Path, id: u64) -> PeerTls {
    let dir = dir.join(format!("certs-{id}"));
    PeerTls {
        cluster: CLUSTER.to_owned(),
        ca: dir.join("ca.pem"),
        certificate: dir.join("node.pem"),
        key: dir.join("node-key.pem"),
    }
}

/// As careful writers do.
fn replace(file: &Path, text: &str) {
    let new: PathBuf = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

fn beside_the_data(config: &mut StoreConfig) {
    let dir = config.data_dir.parent().unwrap();
    config.tls = Some(tls(dir, config.node_id));
}

async fn open(dir: &Path, id: u64, tls: Option<PeerTls>) -> (Store, Node) {
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

/// Somebody with the certificate of a node who says what he likes.
async fn speaker(address: &str, authority: &Authority, id: u64) -> RaftTransportClient<Channel> {
    let (certificate, key) = authority.issue(CLUSTER, id);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.0.pem()))
        .identity(Identity::from_pem(certificate, key))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    RaftTransportClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap())
}

fn vote_of(cluster_id: &str, candidate: u64, target: u64) -> VoteRequest {
    VoteRequest {
        vote: Some(Vote {
            leader: Some(LeaderId {
                term: 1,
                node_id: candidate,
            }),
            committed: false,
        }),
        cluster_id: cluster_id.to_owned(),
        target,
        ..VoteRequest::default()
    }
}

fn learner(cluster_id: &str, id: u64) -> ChangeMembershipRequest {
    ChangeMembershipRequest {
        cluster_id: cluster_id.to_owned(),
        change: Some(Change::AddLearner(Node {
            id,
            // Refused by consensus, after the door.
            peer_address: String::new(),
            ..Node::default()
        })),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_one_authority_and_name_make_a_cluster_and_others_do_not_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new();
    let (one, node) = open(dir.path(), 1, Some(ours.write(dir.path(), CLUSTER, 1))).await;
    one.bootstrap(vec![node.clone()]).await.unwrap();
    let (two, _) = open(dir.path(), 2, Some(ours.write(dir.path(), CLUSTER, 2))).await;
    let seeds = [node.peer_address.clone()];
    two.join(&seeds).await.unwrap();
    let applied = write(&two, "a", "1").await;
    one.at_least(applied.revision).await;
    assert_eq!(read(&one, "a").as_deref(), Some("1"));

    let foreign = Authority::new().write(&dir.path().join("foreign"), CLUSTER, 3);
    let mut green = ours.write(&dir.path().join("green"), "green", 3);
    green.cluster = "green".to_owned();
    for tls in [Some(foreign), Some(green), None] {
        let (stranger, _) = open(dir.path(), 3, tls).await;
        let refused = one.status().peer_tls.unwrap().refused;
        let joining = tokio::time::timeout(PATIENCE / 10, stranger.join(&seeds));
        match joining.await {
            Err(_) | Ok(Err(JoinError::Unreachable { .. })) => {}
            other => panic!("{other:?}"),
        }
        assert!(!stranger.is_member());
        assert!(one.status().peer_tls.unwrap().refused > refused);
        stranger.stop().await;
    }
    assert_eq!(one.status().members.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_with_the_certificate_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let told = async |tls: PeerTls| {
        let address = "127.0.0.1:0".parse().unwrap();
        let mut config = StoreConfig::new(dir.path().join("data"), 4, address);
        config.tls = Some(tls);
        let told = Store::open(config).await.unwrap_err().to_string();
        told.replace(dir.path().to_str().unwrap(), "DIR")
    };
    insta::assert_snapshot!(
        told(authority.write(dir.path(), CLUSTER, 3)).await,
        @r#"the peer certificates are unusable: DIR/certs-3/node.pem names node 3, but this is node 4 of cluster "blue": make one with `trireme certs node --cluster blue --id 4`"#
    );
    let green = authority.write(dir.path(), "green", 4);
    insta::assert_snapshot!(
        told(green).await,
        @r#"the peer certificates are unusable: DIR/certs-4/node.pem names no node of it (the certificate names trireme-peer://green/4, this is cluster "blue"), but this is node 4 of cluster "blue": make one with `trireme certs node --cluster blue --id 4`"#
    );
    let mixed = authority.write(dir.path(), CLUSTER, 4);
    replace(&mixed.key, &KeyPair::generate().unwrap().serialize_pem());
    insta::assert_snapshot!(
        told(mixed.clone()).await,
        @"the peer certificates are unusable: DIR/certs-4/node.pem does not belong to the key in DIR/certs-4/node-key.pem: put both from one `trireme certs` run, or wait until both are replaced"
    );
    fs::remove_file(&mixed.ca).unwrap();
    insta::assert_snapshot!(
        told(mixed).await,
        @"the peer certificates are unusable: DIR/certs-4/ca.pem: cannot be read: No such file or directory (os error 2)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_only_for_itself_and_a_former_member_not_at_all() {
    let authority = Authority::new();
    let cluster = Cluster::prepared(3, beside_the_data, |dir| {
        for id in 1..=3 {
            authority.write(dir, CLUSTER, id);
        }
    })
    .await;
    let leader = cluster.leader().await;
    let store = &cluster.stores[&leader];
    let cluster_id = store.cluster_id().unwrap().to_owned();
    let address = cluster.node(leader).peer_address;
    let other = leader % 3 + 1;

    // One that this node never heard of.
    let mut stranger = speaker(&address, &authority, 9).await;
    let hello = |node_id| HelloRequest {
        node_id,
        ..HelloRequest::default()
    };
    assert_eq!(
        stranger.hello(hello(9)).await.unwrap().into_inner().node_id,
        leader
    );
    let denied = stranger.hello(hello(2)).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(
        denied.message(),
        "the certificate is node 9's, the request is in the name of node 2"
    );
    // Members are asked about it meanwhile, and know nothing of it.
    for _ in 0..20 {
        let denied = stranger.vote(vote_of(&cluster_id, 9, leader)).await;
        let denied = denied.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        insta::allow_duplicates! {
            insta::assert_snapshot!(denied.message(), @"node 9 is no member of this cluster as far as is known here; if it is, members say so in a moment");
        }
    }
    let asked = HelloRequest {
        about: 9,
        ..hello(9)
    };
    assert!(
        !stranger
            .hello(asked)
            .await
            .unwrap()
            .into_inner()
            .about_is_member
    );
    let asked = HelloRequest {
        about: other,
        ..hello(9)
    };
    assert!(
        stranger
            .hello(asked)
            .await
            .unwrap()
            .into_inner()
            .about_is_member
    );
    let vote = vote_of(&cluster_id, 9, leader);
    let denied = stranger.pre_vote(vote.clone()).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let append = AppendRequest {
        vote: vote.vote,
        cluster_id: cluster_id.clone(),
        target: leader,
        ..AppendRequest::default()
    };
    let denied = stranger.append(append.clone()).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let answers = stranger
        .stream_append(stream::iter([append]))
        .await
        .unwrap();
    let denied = answers.into_inner().message().await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let snapshot = SnapshotChunk {
        vote: vote.vote,
        cluster_id: cluster_id.clone(),
        target: leader,
        ..SnapshotChunk::default()
    };
    let denied = stranger.install_snapshot(stream::iter([snapshot])).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let denied = stranger.vote(vote_of(&cluster_id, other, leader)).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let joined = stranger.change_membership(learner(&cluster_id, 9)).await;
    assert!(
        joined
            .unwrap()
            .into_inner()
            .refused
            .contains("a peer address")
    );
    let denied = stranger.change_membership(learner(&cluster_id, 8)).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let archive = FetchArchiveRequest {
        cluster_id: cluster_id.clone(),
        ..FetchArchiveRequest::default()
    };
    let denied = stranger.fetch_archive(archive.clone()).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.message()),
        (
            Code::PermissionDenied,
            "node 9 is no member of this cluster"
        )
    );

    // A member may all that, in its own name.
    let mut member = speaker(&address, &authority, other).await;
    member.fetch_archive(archive.clone()).await.unwrap();
    let denied = member.vote(vote_of(&cluster_id, leader, leader)).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);

    store.remove(other).await.unwrap();
    // It is told so, and nothing else.
    let told = eventually("the removal is applied", async || {
        let hello = HelloRequest {
            cluster_id: cluster_id.clone(),
            ..hello(other)
        };
        let said = member.hello(hello).await.unwrap().into_inner();
        Some(said.refused).filter(|refused| !refused.is_empty())
    })
    .await;
    assert!(
        told.starts_with(&format!("node {other} was removed from the cluster")),
        "{told}"
    );
    let vote = member.vote(vote_of(&cluster_id, other, leader)).await;
    let denied = vote.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(
        denied.message().contains(&format!(
            "node {other} is no member of this cluster any more"
        )),
        "{denied}"
    );
    assert!(store.status().peer_calls_refused >= 6);
    // The two others go on.
    write(store, "after", "1").await;
}

/// It asks those it knows about the one it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_follows_a_leader_that_it_never_heard_of() {
    let authority = Authority::new();
    let mut cluster = Cluster::prepared(3, beside_the_data, |dir| {
        for id in 1..=4 {
            authority.write(dir, CLUSTER, id);
        }
    })
    .await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    cluster.kill(away).await;
    let seeds = [cluster.node(leader).peer_address];
    cluster.start(4).await.clone().join(&seeds).await.unwrap();
    let store = cluster.stores[&leader].clone();
    eventually("a promoted learner", async || store.promote(4).await.ok()).await;
    eventually("the lead was handed over", async || {
        store.transfer_leader(4).await.ok()
    })
    .await;
    write(&store, "meanwhile", "1").await;
    cluster.start(away).await.recovered().await;
    cluster.converged().await;
    assert_eq!(
        read(&cluster.stores[&away], "meanwhile").as_deref(),
        Some("1")
    );
    assert_eq!(cluster.leader().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn authority_and_certificates_are_changed_under_running_nodes() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut cluster = Cluster::prepared(3, beside_the_data, |dir| {
        for id in 1..=3 {
            old.write(dir, CLUSTER, id);
        }
    })
    .await;
    let dir = cluster.dir.path().to_owned();
    write(&cluster.stores[&1], "before", "1").await;
    let leader = cluster.leader().await;
    eventually("the lead was handed over", async || {
        let next = leader % 3 + 1;
        cluster.stores[&leader].transfer_leader(next).await.ok()
    })
    .await;
    let follower = cluster.follower().await;
    let running: Vec<u64> = (1..=3).filter(|id| *id != follower).collect();

    // Both authorities are good, then the new certificates are put in place, then the old authority goes.
    for id in 1..=3 {
        replace(&tls(&dir, id).ca, &(old.0.pem() + &new.0.pem()));
    }
    for id in 1..=3 {
        let (certificate, key) = new.issue(CLUSTER, id);
        replace(&tls(&dir, id).certificate, &certificate);
        // Between the two, certificate and key do not fit, and the old ones stay.
        if id != follower {
            let health = cluster.stores[&id].status().peer_tls.unwrap();
            assert_eq!(health.failed_reloads, 1, "node {id}");
        }
        replace(&tls(&dir, id).key, &key);
    }
    for id in 1..=3 {
        replace(&tls(&dir, id).ca, &new.0.pem());
    }
    // A node that knows the new authority alone talks to those that were never restarted.
    cluster.kill(follower).await;
    cluster.start(follower).await;
    let applied = write(&cluster.stores[&follower], "after", "1").await;
    cluster.stores[&running[0]].at_least(applied.revision).await;
    cluster.converged().await;
    let health = cluster.stores[&running[0]].status().peer_tls.unwrap();
    assert!(health.reloads >= 1, "{health:?}");

    // What is unusable is not taken.
    replace(&tls(&dir, running[0]).certificate, "no certificate");
    cluster.kill(follower).await;
    cluster.start(follower).await;
    write(&cluster.stores[&follower], "still", "1").await;
    cluster.converged().await;
    let health = cluster.stores[&running[0]].status().peer_tls.unwrap();
    assert_eq!(health.failed_reloads, 2, "{health:?}");
}
