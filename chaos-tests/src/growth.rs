//! What a cluster of a large instance's size costs: memory, starts, snapshots, watches, writes.
//!
//! One node is filled while it is down, through the same store that it opens; then it is a process again, and what
//! operators and clients feel is measured from outside. History is what makes numbers large: finished runs leave memory
//! for the archive.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use trireme_api::client::Client;
use trireme_harness::{Cluster, ClusterSettings, Executable, Ground};
use trireme_proto::{
    api::{NodeRequest, SaveSnapshotRequest, WatchRequest},
    state::{
        AbortJob, AbortJobs, Command, CreateJobs, Job, JobState, JobType, NewJob, SweepJobs,
        change::Record, command::Body, outcome,
    },
};
use trireme_raft::{Store, StoreConfig};
use uuid::Uuid;

use crate::{
    archive::each_page,
    load::{self, Latency, Operation, Target},
};

/// Jobs of one command.
const PER_COMMAND: u64 = 500;
/// Commands on their way at once.
const FILLERS: u64 = 4;
/// The longest that a start, or the transfer of the whole state to a new node, may take.
const LONG: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(20);
/// Clients of the closed loops.
const CLIENTS: u64 = 64;
/// Bytes of a ProwJob.
const VALUE: usize = 512;
/// Writes that watchers wait for, and the time between two.
const SEEN: usize = 50;
const BEAT: Duration = Duration::from_millis(100);
/// Watchers that share a connection.
const PER_CONNECTION: u64 = 50;
/// Between the last write and the end of the watches.
const LATE: Duration = Duration::from_secs(10);
const LONGEST_US: u64 = 60_000_000;

/// How large.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Jobs that wait, in memory.
    pub live: u64,
    /// Finished runs, in the archive.
    pub summaries: u64,
    pub watchers: u64,
    /// Of each closed loop.
    pub seconds: u64,
}

/// One closed loop of writes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Puts {
    pub per_second: f64,
    pub latency_us: Latency,
    pub errors: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Growth {
    pub live_jobs: u64,
    pub run_summaries: u64,
    pub fill_seconds: f64,
    pub directory_bytes: u64,
    pub archive_bytes: u64,
    /// Of the node's process, right after its start.
    pub empty_resident_bytes: u64,
    pub grown_resident_bytes: u64,
    pub bytes_per_live_job: u64,
    /// SIGKILL, start, `/readyz`.
    pub restart_ready_millis: u64,
    pub snapshot_write_millis: u64,
    /// An empty node from its start until it has all of state and archive.
    pub join_millis: u64,
    /// Of the first node's archive; those that joined have as many, or the measurement fails.
    pub archived_rows: u64,
    pub alone_empty: Puts,
    pub alone_grown: Puts,
    pub three_quiet: Puts,
    /// While snapshots of state and archive are saved from the leader without a pause.
    pub three_beside_snapshots: Puts,
    pub snapshots_saved: u64,
    pub watchers: u64,
    /// From the call of a write to each watcher's having it.
    pub watch_latency_us: Latency,
    pub watch_lost: u64,
}

impl fmt::Display for Growth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1024.0 * 1024.0;
        let mib = |bytes: u64| bytes as f64 / MIB;
        let millis = |micros: u64| micros as f64 / 1000.0;
        writeln!(
            out,
            "{} live jobs, {} run summaries; filled in {:.0} s; on disk {:.0} MiB, {:.0} MiB of them archive",
            self.live_jobs,
            self.run_summaries,
            self.fill_seconds,
            mib(self.directory_bytes),
            mib(self.archive_bytes)
        )?;
        writeln!(
            out,
            "memory            {:.0} MiB, empty {:.0} MiB: {} bytes for a live job of {VALUE} bytes",
            mib(self.grown_resident_bytes),
            mib(self.empty_resident_bytes),
            self.bytes_per_live_job
        )?;
        writeln!(
            out,
            "restart           {} ms from start to ready",
            self.restart_ready_millis
        )?;
        writeln!(
            out,
            "snapshot          written in {} ms; a new node has everything after {} ms",
            self.snapshot_write_millis, self.join_millis
        )?;
        for (name, puts) in [
            ("alone, empty", &self.alone_empty),
            ("alone, grown", &self.alone_grown),
            ("three", &self.three_quiet),
            ("three, saving", &self.three_beside_snapshots),
        ] {
            writeln!(
                out,
                "{name:<17} {:.0} puts/s, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms, {} errors",
                puts.per_second,
                millis(puts.latency_us.p50),
                millis(puts.latency_us.p99),
                millis(puts.latency_us.max),
                puts.errors
            )?;
        }
        writeln!(
            out,
            "{} watchers     p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms from call to change, {} lost",
            self.watchers,
            millis(self.watch_latency_us.p50),
            millis(self.watch_latency_us.p99),
            millis(self.watch_latency_us.max),
            self.watch_lost
        )
    }
}

fn job() -> Job {
    let spec = serde_json::json!({
        "apiVersion": "prow.k8s.io/v1", "kind": "ProwJob",
        "spec": {
            "type": "periodic", "agent": "kubernetes", "cluster": "nowhere", "job": "growth",
            "pod_spec": {"containers": [{"args": ["x".repeat(VALUE - 160)]}]},
        },
    });
    Job {
        id: Uuid::new_v4().to_string(),
        r#type: JobType::Periodic.into(),
        job: "growth".to_owned(),
        agent: "kubernetes".to_owned(),
        cluster: "nowhere".to_owned(),
        state: JobState::Triggered.into(),
        prowjob: spec.to_string().into_bytes().into(),
        ..Job::default()
    }
}

async fn propose(store: &Store, body: Body) -> anyhow::Result<()> {
    let command = Command {
        min_level: 1,
        principal: "growth".to_owned(),
        body: Some(body),
        ..Command::default()
    };
    match store.propose(command).await?.outcome.result {
        Some(outcome::Result::Rejected(why)) => bail!("{}", why.message),
        _ => Ok(()),
    }
}

async fn create(store: &Store, count: u64) -> anyhow::Result<Vec<String>> {
    let jobs: Vec<Job> = (0..count).map(|_| job()).collect();
    let ids = jobs.iter().map(|job| job.id.clone()).collect();
    let jobs = jobs.into_iter().map(|job| NewJob {
        job: Some(Box::new(job)),
        ..NewJob::default()
    });
    let create = CreateJobs {
        jobs: jobs.collect(),
        cursors: Vec::new(),
    };
    propose(store, Body::CreateJobs(create)).await?;
    Ok(ids)
}

/// Lets runs end and leave memory.
async fn finish(store: &Store, ids: Vec<String>) -> anyhow::Result<()> {
    let jobs = ids.iter().map(|id| AbortJob {
        id: id.clone(),
        reason: "measured".to_owned(),
    });
    let abort = AbortJobs {
        jobs: jobs.collect(),
    };
    propose(store, Body::AbortJobs(abort)).await?;
    propose(store, Body::SweepJobs(SweepJobs { ids })).await
}

/// Commands of so many jobs each, from several fillers.
async fn fill(store: &Store, jobs: u64, finished: bool) -> anyhow::Result<()> {
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let store = store.clone();
        let mine = jobs / FILLERS + u64::from(filler < jobs % FILLERS);
        fillers.spawn(async move {
            let mut left = mine;
            while left > 0 {
                let count = left.min(PER_COMMAND);
                let ids = create(&store, count).await?;
                if finished {
                    finish(&store, ids).await?;
                }
                left -= count;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filler) = fillers.join_next().await {
        filler??;
    }
    Ok(())
}

/// Counts what lies in the archive of a node that does not run.
async fn archived_rows(cluster: &Cluster, id: u64) -> anyhow::Result<u64> {
    let member = cluster.member(id)?;
    let config = StoreConfig::new(member.data(), id, member.peer.as_str().parse()?);
    let store = Store::open(config).await?;
    let mut rows = 0;
    each_page(&store, |page| rows += page.len() as u64).await?;
    store.shutdown().await;
    Ok(rows)
}

fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .context("/proc names no resident size")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

fn bytes_below(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() {
            bytes_below(&entry.path())?
        } else {
            about.len()
        };
    }
    Ok(bytes)
}

/// Waits until a node says that it serves.
async fn ready(cluster: &mut Cluster, id: u64) -> anyhow::Result<()> {
    let url = format!("{}/readyz", cluster.member(id)?.url());
    let client = reqwest::Client::new();
    let deadline = Instant::now() + LONG;
    while Instant::now() < deadline {
        cluster.check_alive()?;
        let answer = client
            .get(&url)
            .timeout(Duration::from_secs(1))
            .send()
            .await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    bail!("node {id} is not ready within {LONG:?}")
}

fn pid(cluster: &Cluster, id: u64) -> anyhow::Result<u32> {
    cluster.member(id)?.pid().context("the node does not run")
}

async fn puts(cluster: &Cluster, seconds: u64) -> anyhow::Result<Puts> {
    let target = Target {
        system: load::System::Trireme,
        endpoints: cluster.addresses(),
    };
    let plan = load::Plan {
        clients: CLIENTS,
        value_bytes: VALUE,
        warm_up: Duration::from_secs(1),
        measured: Duration::from_secs(seconds),
        operation: Operation::Put,
    };
    let figures = load::run(&target, &plan).await?;
    Ok(Puts {
        per_second: figures.per_second(),
        latency_us: figures.latency(),
        errors: figures.errors,
    })
}

/// Saves snapshots one after the other until told to stop; how many were whole.
async fn save_all_the_time(client: Client, stop: CancellationToken) -> anyhow::Result<u64> {
    let mut saved = 0;
    while !stop.is_cancelled() {
        let call = client
            .cluster()
            .save_snapshot(SaveSnapshotRequest {})
            .await?;
        let mut pieces = call.into_inner();
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return Ok(saved),
                next = pieces.message() => next?,
            };
            if next.is_none() {
                break;
            }
        }
        saved += 1;
    }
    Ok(saved)
}

/// When writes were called, by the job's id.
type Calls = Arc<Mutex<BTreeMap<String, Instant>>>;

async fn watch(
    client: Client,
    calls: Calls,
    ready: tokio::sync::mpsc::Sender<()>,
    stop: CancellationToken,
) -> anyhow::Result<Histogram<u64>> {
    let request = WatchRequest {
        kinds: vec!["job".to_owned()],
        ..WatchRequest::default()
    };
    let mut changes = client.watch().watch(request).await?.into_inner();
    // Nobody listens any more when the measurement was given up.
    let _told = ready.send(()).await;
    let mut seen = Histogram::new_with_max(LONGEST_US, 3)?;
    while seen.len() < SEEN as u64 {
        let next = tokio::select! {
            () = stop.cancelled() => break,
            next = changes.message() => next?.context("the watch ended")?,
        };
        let now = Instant::now();
        let records = next.batch.into_iter().flat_map(|batch| batch.changes);
        for record in records {
            let Some(Record::Job(job)) = record.record else {
                continue;
            };
            let called = calls.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = called.get(&job.job) {
                let micros = u64::try_from(now.duration_since(*at).as_micros())?;
                seen.record(micros.min(LONGEST_US))?;
            }
        }
    }
    Ok(seen)
}

/// Latencies and how many changes did not arrive.
async fn watches(cluster: &Cluster, watchers: u64) -> anyhow::Result<(Latency, u64)> {
    let addresses = cluster.addresses();
    let (calls, stop) = (Calls::default(), CancellationToken::new());
    let (ready, mut all_ready) = tokio::sync::mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let mut client = None;
    for watcher in 0..watchers {
        if watcher % PER_CONNECTION == 0 {
            let place = (watcher / PER_CONNECTION) as usize % addresses.len();
            client = Some(Client::connect(&addresses[place]).await?);
        }
        let client = client.clone().context("there is a client")?;
        tasks.spawn(watch(
            client,
            Arc::clone(&calls),
            ready.clone(),
            stop.clone(),
        ));
    }
    drop(ready);
    for _ in 0..watchers {
        let one = timeout(LONG, all_ready.recv()).await?;
        one.context("a watcher ended before it began")?;
    }
    let writer = cluster.client().await?;
    let mut beat = interval(BEAT);
    for number in 0..SEEN {
        beat.tick().await;
        let name = format!("seen-{number}");
        let spec = serde_json::json!({
            "apiVersion": "prow.k8s.io/v1", "kind": "ProwJob",
            "spec": {"type": "periodic", "agent": "kubernetes", "cluster": "nowhere", "job": name},
        });
        let request = trireme_proto::api::CreateJobRequest {
            request_id: Uuid::new_v4().to_string(),
            what: Some(trireme_proto::api::create_job_request::What::Prowjob(
                spec.to_string().into_bytes().into(),
            )),
        };
        calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, Instant::now());
        writer.jobs().create_job(request).await?;
    }
    let mut seen = Histogram::<u64>::new_with_max(LONGEST_US, 3)?;
    let late = {
        let stop = stop.clone();
        tokio::spawn(async move {
            sleep(LATE).await;
            stop.cancel();
        })
    };
    while let Some(watcher) = tasks.join_next().await {
        seen.add(watcher??)?;
    }
    late.abort();
    Ok((Latency::of(&seen), watchers * SEEN as u64 - seen.len()))
}

/// Fills a cluster and measures it.
///
/// # Errors
/// When a node does not start, ends, or does not get ready in 15 minutes.
pub async fn grow(
    executable: Executable,
    directory: &Path,
    size: Size,
    tell: impl Fn(&str),
) -> anyhow::Result<Growth> {
    ensure!(size.seconds > 0, "a measurement takes some time");
    let storage = directory.join("artifacts");
    std::fs::create_dir_all(&storage)?;
    let settings = ClusterSettings {
        directory: directory.to_owned(),
        nodes: 1,
        github: None,
        hmac_secret_file: None,
        storage,
        ground: Ground::default(),
    };
    let mut cluster = Cluster::start(executable, settings).await?;
    let empty_resident_bytes = resident(pid(&cluster, 1)?)?;
    let alone_empty = puts(&cluster, size.seconds).await?;
    tell(&format!(
        "one empty node: {:.0} puts/s",
        alone_empty.per_second
    ));
    cluster.terminate(1).await?;

    let member = cluster.member(1)?;
    let (data, peer) = (member.data(), member.peer.as_str().parse()?);
    let api = member.api.to_string();
    let mut config = StoreConfig::new(data.clone(), 1, peer);
    config.api_address = api;
    let store = Store::open(config).await?;
    let began = Instant::now();
    timeout(LONG, store.linearize()).await??;
    fill(&store, size.summaries, true).await?;
    tell(&format!(
        "{} run summaries are in the archive",
        size.summaries
    ));
    let before = store.view().counts().jobs as u64;
    fill(&store, size.live.saturating_sub(before), false).await?;
    let fill_seconds = began.elapsed().as_secs_f64();
    let live_jobs = store.view().counts().jobs as u64;
    let began = Instant::now();
    store.trigger_snapshot().await?;
    let snapshot_write_millis = u64::try_from(began.elapsed().as_millis())?;
    tell(&format!(
        "{live_jobs} live jobs; a snapshot is written in {snapshot_write_millis} ms"
    ));
    // Its files are closed before the process opens them.
    store.shutdown().await;

    cluster.restart(1)?;
    ready(&mut cluster, 1).await?;
    cluster.kill(1).await?;
    let began = Instant::now();
    cluster.restart(1)?;
    ready(&mut cluster, 1).await?;
    let restart_ready_millis = u64::try_from(began.elapsed().as_millis())?;
    let grown_resident_bytes = resident(pid(&cluster, 1)?)?;
    tell(&format!(
        "killed and started again: ready after {restart_ready_millis} ms"
    ));
    let directory_bytes = bytes_below(&data)?;
    let archive_bytes = bytes_below(&data.join("archive"))?;
    cluster.wait_for_leader().await?;
    let alone_grown = puts(&cluster, size.seconds).await?;
    tell(&format!(
        "one grown node: {:.0} puts/s",
        alone_grown.per_second
    ));

    let mut join_millis = 0;
    for _ in 0..2 {
        let began = Instant::now();
        let id = cluster.join()?;
        ready(&mut cluster, id).await?;
        let client = cluster.client().await?;
        let promoted = async {
            // Refused until it has caught up.
            while let Err(why) = client
                .cluster()
                .promote_node(NodeRequest { node_id: id })
                .await
            {
                if why.code() == tonic::Code::InvalidArgument {
                    return Err(why);
                }
                sleep(LOOK * 10).await;
            }
            Ok(())
        };
        timeout(LONG, promoted).await??;
        join_millis = u64::try_from(began.elapsed().as_millis())?;
        tell(&format!(
            "node {id} has everything and votes after {join_millis} ms"
        ));
    }
    let three_quiet = puts(&cluster, size.seconds).await?;
    tell(&format!(
        "three nodes: {:.0} puts/s",
        three_quiet.per_second
    ));
    let leader = cluster.wait_for_leader().await?;
    let leader = Client::connect(&cluster.member(leader)?.url()).await?;
    let stop = CancellationToken::new();
    let saving = tokio::spawn(save_all_the_time(leader, stop.clone()));
    let three_beside_snapshots = puts(&cluster, size.seconds).await?;
    stop.cancel();
    let snapshots_saved = saving.await??;
    tell(&format!(
        "three nodes beside snapshots being saved: {:.0} puts/s",
        three_beside_snapshots.per_second
    ));
    let (watch_latency_us, watch_lost) = watches(&cluster, size.watchers).await?;
    cluster.stop().await?;
    let mut archived = BTreeMap::new();
    for id in 1..=3 {
        archived.insert(id, archived_rows(&cluster, id).await?);
    }
    tell(&format!("rows in the archives, by node: {archived:?}"));
    let archived_rows = archived.get(&1).copied().unwrap_or_default();
    ensure!(
        archived_rows >= size.summaries && archived.values().all(|rows| *rows == archived_rows),
        "the nodes' archives have different numbers of rows, or too few: {archived:?}"
    );
    let grown = grown_resident_bytes.saturating_sub(empty_resident_bytes);
    Ok(Growth {
        live_jobs,
        run_summaries: size.summaries,
        fill_seconds,
        directory_bytes,
        archive_bytes,
        empty_resident_bytes,
        grown_resident_bytes,
        bytes_per_live_job: grown / live_jobs.max(1),
        restart_ready_millis,
        snapshot_write_millis,
        join_millis,
        archived_rows,
        alone_empty,
        alone_grown,
        three_quiet,
        three_beside_snapshots,
        snapshots_saved,
        watchers: size.watchers,
        watch_latency_us,
        watch_lost,
    })
}
