//! More than a node can take: it refuses in the right words, its memory stays bounded, and afterwards all is well.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;
use tonic::Code;
use trireme_api::client::Client;
use trireme_proto::api::{CreateJobRequest, create_job_request::What};
use trireme_sandbox::world::WEBHOOK_SECRET;

use crate::{
    doors::sign,
    scene::{Nodes, http, until},
};

const MIB: u64 = 1 << 20;
/// What is sent at least: several times what may be kept.
const OFFERED: u64 = 1536 * MIB;
const CONNECTIONS: usize = 12;
/// Requests at once on each.
const AT_ONCE: usize = 48;
const BODY: usize = 180 << 10;
/// A node's memory is looked at this often.
const LOOK: Duration = Duration::from_millis(50);

/// What the bounds of queues add up to, each as often as the same bytes exist at once:
/// commands waiting (32 MiB: on the wire, decoded, encoded), entries in flight (16 MiB, also to each follower), the
/// log's memory (64 MiB), bodies of webhooks (64 MiB: read, parsed, compressed), requests being read.
const BOUND: u64 =
    (3 * 32 + 4 * 16 + 64 + 4 * 64 + (CONNECTIONS * AT_ONCE * BODY) as u64 / MIB * 2 + 128) * MIB;

/// Text that does not compress.
fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    })
    .take(bytes / 16)
    .collect()
}

fn job(name: &str, padding: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "apiVersion": "prow.k8s.io/v1",
        "kind": "ProwJob",
        "metadata": {"annotations": {"padding": padding}},
        "spec": {"type": "periodic", "job": name, "agent": "kubernetes", "cluster": "default"},
    }))
    .unwrap()
}

async fn create(client: &Client, id: &str, padding: &str) -> Result<(), tonic::Status> {
    let request = CreateJobRequest {
        request_id: id.to_owned(),
        what: Some(What::Prowjob(job("flood", padding).into())),
    };
    client.jobs().create_job(request).await.map(drop)
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn signal(nodes: &Nodes, id: u64, signal: Signal) {
    let pid = nodes.cluster.member(id).unwrap().pid().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// What came back, by kind, and how much was sent.
#[derive(Default)]
struct Tally {
    answers: Mutex<BTreeMap<String, u64>>,
    sent: AtomicU64,
}

impl Tally {
    fn count(&self, answer: String) {
        *self.answers.lock().unwrap().entry(answer).or_default() += 1;
    }
}

async fn creates(url: String, seed: u64, tally: Arc<Tally>) {
    let client = Client::connect(&url).await.unwrap();
    let padding = noise(seed, BODY);
    let mut flying = JoinSet::new();
    let mut number = 0;
    while tally.sent.load(Ordering::Relaxed) < OFFERED {
        while flying.len() < AT_ONCE {
            number += 1;
            let (client, padding, tally) = (client.clone(), padding.clone(), Arc::clone(&tally));
            flying.spawn(async move {
                tally.sent.fetch_add(BODY as u64, Ordering::Relaxed);
                let answer = create(&client, &format!("flood-{seed}-{number}"), &padding).await;
                if let Err(why) = &answer
                    && why.code() == Code::ResourceExhausted
                {
                    assert_eq!(why.metadata().get("retry-after").unwrap(), "1", "{why:?}");
                }
                tally.count(match answer {
                    Ok(()) => "created".to_owned(),
                    Err(why) => format!("{:?}", why.code()),
                });
            });
        }
        flying.join_next().await.unwrap().unwrap();
    }
    flying.abort_all();
    while flying.join_next().await.is_some() {}
}

async fn webhooks(url: String, seed: u64, tally: Arc<Tally>) {
    let body = format!("{{\"zen\": \"{}\"}}", noise(seed, BODY));
    let signature = sign(body.as_bytes(), WEBHOOK_SECRET);
    let client = http();
    let mut flying = JoinSet::new();
    let mut number = 0;
    while tally.sent.load(Ordering::Relaxed) < OFFERED {
        while flying.len() < AT_ONCE {
            number += 1;
            let request = client
                .post(format!("{url}/hook"))
                .header("x-github-event", "ping")
                .header("x-github-delivery", format!("flood-{seed}-{number}"))
                .header("x-hub-signature-256", &signature)
                .header("content-type", "application/json")
                .body(body.clone());
            let tally = Arc::clone(&tally);
            flying.spawn(async move {
                tally.sent.fetch_add(BODY as u64, Ordering::Relaxed);
                let Ok(answer) = request.send().await else {
                    return;
                };
                if answer.status() == 503 {
                    assert_eq!(answer.headers()["retry-after"], "1");
                }
                tally.count(answer.status().as_u16().to_string());
            });
        }
        flying.join_next().await.unwrap().unwrap();
    }
    flying.abort_all();
    while flying.join_next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_node_refuses_keeps_its_memory_bounded_and_recovers() {
    let mut nodes = Nodes::start(3).await;
    let leader = nodes.cluster.wait_for_leader().await.unwrap();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let url = nodes.url(leader);
    let client = Client::connect(&url).await.unwrap();
    create(&client, "before", "").await.unwrap();

    let pid = nodes.cluster.member(leader).unwrap().pid().unwrap();
    let before = resident(pid);
    for id in &others {
        signal(&nodes, *id, Signal::STOP);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let watching = {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = most.max(resident(pid));
                tokio::time::sleep(LOOK).await;
            }
            most
        })
    };
    let tally = Arc::new(Tally::default());
    let mut flood = JoinSet::new();
    for seed in 0..CONNECTIONS as u64 {
        let tally = Arc::clone(&tally);
        match seed % 3 {
            0 => flood.spawn(webhooks(url.clone(), seed + 1, tally)),
            _ => flood.spawn(creates(url.clone(), seed + 1, tally)),
        };
    }
    while let Some(done) = flood.join_next().await {
        done.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let most = watching.await.unwrap();
    let answers = tally.answers.lock().unwrap().clone();
    println!(
        "sent {} MiB; resident {} MiB before, {} MiB at most, bound {} MiB more; {answers:?}",
        tally.sent.load(Ordering::Relaxed) / MIB,
        before / MIB,
        most / MIB,
        BOUND / MIB
    );
    assert!(
        most < before + BOUND,
        "{most} bytes resident, {before} before"
    );
    assert!(
        answers
            .get("ResourceExhausted")
            .is_some_and(|count| *count > 100),
        "{answers:?}"
    );
    assert!(
        answers.get("503").is_some_and(|count| *count > 20),
        "{answers:?}"
    );
    for answer in answers.keys() {
        assert!(
            ["ResourceExhausted", "Unavailable", "503", "created", "200"]
                .contains(&answer.as_str()),
            "{answers:?}"
        );
    }
    let metrics = http().get(format!("{url}/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("trireme_queue_depth{queue=\"propose_bytes\"}"),
        "{metrics}"
    );

    for id in &others {
        signal(&nodes, *id, Signal::CONT);
    }
    nodes.cluster.wait_for_leader().await.unwrap();
    until("new work to be taken", async || {
        let client = nodes.cluster.client().await.ok()?;
        create(&client, "after", "").await.ok()
    })
    .await;
    let hook = http()
        .post(format!("{url}/hook"))
        .header("x-github-event", "ping")
        .header("x-github-delivery", "after")
        .header("x-hub-signature-256", sign(b"{}", WEBHOOK_SECRET))
        .header("content-type", "application/json")
        .body("{}");
    assert_eq!(hook.send().await.unwrap().status(), 200);
    until("empty queues", async || {
        let metrics = http().get(format!("{url}/metrics")).send().await.ok()?;
        let metrics = metrics.text().await.ok()?;
        let empty = ["propose_bytes", "webhooks", "entries_in_flight"]
            .iter()
            .all(|queue| {
                metrics.contains(&format!("trireme_queue_depth{{queue=\"{queue}\"}} 0\n"))
            });
        empty.then_some(())
    })
    .await;
    nodes.cluster.stop().await.unwrap();
}
