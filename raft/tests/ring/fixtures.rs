//! Data directories and saved snapshots of released versions are kept and still open.
//!
//! `tests/fixtures/<version>/` holds `data.tar.gz`, the data directory of a node that was killed; `saved.snapshot`, what
//! it saved before; `expected.txt`, revision and digest of both. A directory is made once, when a version is released,
//! by
//!
//! ```sh
//! cargo test -p trireme-raft --test ring make_the_fixture -- --ignored
//! ```
//!
//! and never again: that this test reads it is the promise.

use std::{fs, path::PathBuf};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use trireme_proto::state::{
    AcceptDelivery, Agent, BlobRef, CommitPlans, ConfigFile, ConfigVersion, CreateJobs, Delivery,
    Done, FinishJob, Job, JobState, JobType, LeaseJob, NewJob, Pull, PutBlobChunk, PutConfig,
    RegisterAgent, StartJob, SweepJobs, TakeOffice, command::Body, outcome,
};
use trireme_raft::{
    Store, StoreConfig,
    offline::{self, Recovery, RestoreOptions},
};

use crate::support::{Cluster, archive, eventually, is_archived, put, read, write};

fn fixtures(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(version)
}

async fn done(store: &Store, body: Body) -> Done {
    let mut command = put("", "");
    command.body = Some(body);
    let applied = store.propose(command).await.unwrap();
    match applied.outcome.result {
        Some(outcome::Result::Done(done)) => done,
        other => panic!("{other:?}"),
    }
}

fn job(id: &str, kind: JobType) -> NewJob {
    NewJob {
        job: Some(Box::new(Job {
            id: id.to_owned(),
            r#type: kind.into(),
            job: "unit".to_owned(),
            agent: "kubernetes".to_owned(),
            cluster: "default".to_owned(),
            org: "org".to_owned(),
            repo: "repo".to_owned(),
            base_ref: "main".to_owned(),
            pulls: vec![Pull {
                number: 7,
                author: "author".to_owned(),
                head_sha: "head".to_owned(),
            }],
            prowjob: "{\"spec\":{\"job\":\"unit\"}}".into(),
            ..Job::default()
        })),
        ..NewJob::default()
    }
}

/// A few of everything: finished and live jobs, configuration with its blob, deliveries, history.
async fn furnish(store: &Store) {
    done(
        store,
        Body::TakeOffice(TakeOffice {
            node_id: 1,
            term: 1,
        }),
    )
    .await;
    let name = BlobRef {
        sha256: vec![7; 32].into(),
        size: 12,
    };
    done(
        store,
        Body::PutBlobChunk(PutBlobChunk {
            blob: Some(name.clone()),
            index: 0,
            count: 1,
            data: "pod_size: 1\n".into(),
        }),
    )
    .await;
    done(
        store,
        Body::PutConfig(PutConfig {
            config: Some(ConfigVersion {
                files: vec![ConfigFile {
                    role: "main".to_owned(),
                    path: "config.yaml".to_owned(),
                    blob: Some(name),
                }],
                author: "operator".to_owned(),
                message: "first".to_owned(),
                ..ConfigVersion::default()
            }),
            expected_current: 0,
        }),
    )
    .await;
    let jobs = ["finished", "running", "waiting"].map(|id| job(id, JobType::Presubmit));
    done(
        store,
        Body::CreateJobs(CreateJobs {
            jobs: jobs.into(),
            cursors: Vec::new(),
        }),
    )
    .await;
    let agent = Agent {
        id: "agent".to_owned(),
        name: "agent-1".to_owned(),
        capacity: 4,
        ..Agent::default()
    };
    let registered = done(
        store,
        Body::RegisterAgent(RegisterAgent { agent: Some(agent) }),
    )
    .await;
    for id in ["finished", "running"] {
        let lease = LeaseJob {
            id: id.to_owned(),
            agent_id: "agent".to_owned(),
            incarnation: registered.token,
            ..LeaseJob::default()
        };
        let fence = done(store, Body::LeaseJob(lease)).await.token;
        done(
            store,
            Body::StartJob(StartJob {
                id: id.to_owned(),
                fence,
            }),
        )
        .await;
        if id == "finished" {
            let finish = FinishJob {
                id: id.to_owned(),
                fence,
                state: JobState::Success.into(),
                description: "Job succeeded.".to_owned(),
                url: String::new(),
            };
            done(store, Body::FinishJob(finish)).await;
        }
    }
    let sweep = SweepJobs {
        ids: vec!["finished".to_owned()],
    };
    done(store, Body::SweepJobs(sweep)).await;
    archive(store, "handled").await;
    let delivery = |guid: &str| Delivery {
        guid: guid.to_owned(),
        event: "issue_comment".to_owned(),
        org: "org".to_owned(),
        repo: "repo".to_owned(),
        number: 7,
        ..Delivery::default()
    };
    for guid in ["planned", "received"] {
        let accept = AcceptDelivery {
            delivery: Some(delivery(guid)),
        };
        done(store, Body::AcceptDelivery(accept)).await;
    }
    let plans = CommitPlans {
        guid: "planned".to_owned(),
        plugins: vec!["lgtm".to_owned()],
        ..CommitPlans::default()
    };
    done(store, Body::CommitPlans(plans)).await;
}

fn check(store: &Store) {
    let view = store.view();
    assert_eq!(view.job("running").unwrap().state(), JobState::Pending);
    assert_eq!(view.job("waiting").unwrap().state(), JobState::Triggered);
    assert!(view.job("finished").is_none());
    let config = view.config().unwrap();
    assert_eq!((config.number, config.message.as_str()), (1, "first"));
    assert!(view.has_blob(&[7; 32]));
    assert!(view.delivery("received").is_some());
    assert_eq!(view.agent("agent").unwrap().name, "agent-1");
    assert_eq!(read(store, "last").as_deref(), Some("word"));
}

async fn check_history(store: &Store) {
    assert!(is_archived(store, "handled").await);
    let prefix = trireme_state::archive_keys::job("finished").prefix();
    let from = (
        std::ops::Bound::Included(prefix.clone()),
        std::ops::Bound::Unbounded,
    );
    let rows = store.archive().range(from, false, 1).await.unwrap();
    assert!(rows[0].0.starts_with(&prefix));
}

async fn start(data_dir: PathBuf, id: u64) -> Store {
    let listen = "127.0.0.1:0".parse().unwrap();
    let store = Store::open(StoreConfig::new(data_dir, id, listen))
        .await
        .unwrap();
    eventually("a leader", async || store.holds_lease().then_some(())).await;
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_of_version_0_1_0_opens() {
    let fixture = fixtures("0.1.0");
    let expected = fs::read_to_string(fixture.join("expected.txt")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let packed = fs::File::open(fixture.join("data.tar.gz")).unwrap();
    tar::Archive::new(GzDecoder::new(packed))
        .unpack(home.path())
        .unwrap();
    let dir = home.path().join("data");
    let found = Recovery::open(&dir).unwrap().found().clone();
    assert!(found.snapshot.is_some_and(|at| at < found.revision));
    let data = format!("data {} {}\n", found.revision, found.digest);
    assert!(expected.contains(&data), "{data}");

    let store = start(dir, 1).await;
    check(&store);
    check_history(&store).await;
    write(&store, "new", "1").await;
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_saved_by_version_0_1_0_is_restored() {
    let fixture = fixtures("0.1.0");
    let expected = fs::read_to_string(fixture.join("expected.txt")).unwrap();
    let file = fixture.join("saved.snapshot");
    let found = offline::inspect(&file).unwrap();
    let saved = format!("saved {} {}\n", found.revision, found.digest);
    assert!(expected.contains(&saved), "{saved}");
    let home = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        file,
        data_dir: home.path().join("data"),
        node_id: 2,
        peer_address: "127.0.0.1:1".to_owned(),
        api_address: String::new(),
    };
    let dir = options.data_dir.clone();
    tokio::task::spawn_blocking(move || offline::restore(&options).unwrap())
        .await
        .unwrap();
    let store = start(dir, 2).await;
    check(&store);
    check_history(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the fixture of the present version, once per release"]
async fn make_the_fixture() {
    let fixture = fixtures(env!("CARGO_PKG_VERSION"));
    assert!(!fixture.exists(), "a fixture is never made again");
    let mut cluster = Cluster::tuned(1, |config| config.limits.wal.segment_bytes = 16 << 10).await;
    let store = &cluster.stores[&1];
    furnish(store).await;
    store.trigger_snapshot().await.unwrap();
    write(store, "last", "word").await;
    let mut saving = store.save_snapshot().await.unwrap();
    let mut saved = Vec::new();
    while let Some(piece) = saving.pieces.recv().await {
        saved.extend_from_slice(&piece.unwrap());
    }
    cluster.kill(1).await;

    fs::create_dir_all(&fixture).unwrap();
    let snapshot = fixture.join("saved.snapshot");
    fs::write(&snapshot, saved).unwrap();
    let dir = cluster.data_dir(1);
    let mut archive = tar::Builder::new(GzEncoder::new(
        fs::File::create(fixture.join("data.tar.gz")).unwrap(),
        Compression::best(),
    ));
    archive.append_dir_all("data", &dir).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    let data = Recovery::open(&dir).unwrap().found().clone();
    let saved = offline::inspect(&snapshot).unwrap();
    let text = format!(
        "data {} {}\nsaved {} {}\n",
        data.revision, data.digest, saved.revision, saved.digest
    );
    fs::write(fixture.join("expected.txt"), text).unwrap();
}
