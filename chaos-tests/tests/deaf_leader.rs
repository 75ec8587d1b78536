//! A leader whose heartbeats are heard but who hears nobody: found by `chaos --nemesis one-way`.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use trireme_api::client::Client;
use trireme_harness::{Cluster, ClusterSettings, Executable, Ground, Links, Party};
use trireme_proto::api::{CreateJobRequest, create_job_request::What};

/// Its silence, an election, and a busy machine.
const BOUND: Duration = Duration::from_secs(10);
const PROWJOB: &str = r#"{"apiVersion": "prow.k8s.io/v1", "kind": "ProwJob",
    "spec": {"type": "periodic", "agent": "kubernetes", "cluster": "nowhere", "job": "deaf"}}"#;

async fn write(door: &str) -> bool {
    let Ok(client) = Client::connect(door).await else {
        return false;
    };
    let request = CreateJobRequest {
        request_id: "deaf".to_owned(),
        what: Some(What::Prowjob(PROWJOB.into())),
    };
    client.jobs().create_job(request).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_nobody_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let links = Links::on_loopback(1);
    let settings = ClusterSettings {
        directory: directory.path().to_owned(),
        nodes: 3,
        github: None,
        hmac_secret_file: None,
        storage: directory.path().join("artifacts"),
        ground: Ground {
            links: Some(links.clone()),
            ..Ground::default()
        },
    };
    let executable = Executable {
        program: env!("CARGO_BIN_EXE_chaos").into(),
        prefix: vec!["trireme".to_owned()],
        variables: Vec::new(),
    };
    let mut cluster = Cluster::start(executable, settings).await.unwrap();
    let deaf = cluster.wait_for_leader().await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|id| *id != deaf).collect();
    let to_it = others
        .iter()
        .map(|other| (Party::Node(*other), Party::Node(deaf)));
    links.hold(to_it);
    let began = Instant::now();
    let door = cluster.member(others[0]).unwrap().url();
    let written = async {
        while !timeout(Duration::from_secs(3), write(&door))
            .await
            .unwrap_or(false)
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(BOUND, written)
        .await
        .expect("the others elect a leader that hears them");
    println!("a write is acknowledged after {:?}", began.elapsed());
    links.release();
    cluster.wait_until_caught_up(deaf).await.unwrap();
    cluster.stop().await.unwrap();
}
