//! What a cluster of a large instance's size costs: memory, starts, snapshots, watches, writes.
//!
//! One node is filled while it is down, through the same store that it opens; then it is a process again, and what
//! operators and clients feel is measured from outside. History is what makes numbers large: finished runs leave memory
//! for the archive.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    api::{ClusterStatusResponse, NodeRequest, SaveSnapshotRequest, WatchRequest},
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
/// The same where nodes are to compact their logs. Nothing asks them to from outside; each does so by itself after so
/// many bytes, and those are few enough jobs of this size.
const LARGE: usize = 16 << 10;
/// The longest loop.
const MAX_SECONDS: u64 = 600;
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
#[derive(Debug, Clone, Serialize)]
pub struct Puts {
    pub per_second: f64,
    pub latency_us: Latency,
    pub errors: u64,
    /// Nodes that compacted their logs: they wrote a snapshot of their own of what was applied meanwhile.
    pub compacted: BTreeSet<u64>,
}

impl fmt::Display for Puts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |micros: u64| micros as f64 / 1000.0;
        write!(
            out,
            "{:.0} puts/s, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms, {} errors",
            self.per_second,
            millis(self.latency_us.p50),
            millis(self.latency_us.p99),
            millis(self.latency_us.max),
            self.errors
        )?;
        if !self.compacted.is_empty() {
            write!(out, ", compacted by {:?}", self.compacted)?;
        }
        Ok(())
    }
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
    /// Of large values, and the same in a loop so long that the nodes compact their logs.
    pub three_large: Puts,
    pub three_compacting: Puts,
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
            ("three, large", &self.three_large),
            ("three, compacting", &self.three_compacting),
        ] {
            writeln!(out, "{name:<17} {puts}")?;
        }
        writeln!(
            out,
            "saving: {} whole snapshots meanwhile; large, compacting: jobs of {LARGE} bytes",
            self.snapshots_saved
        )?;
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

/// Of every node that runs.
async fn statuses(cluster: &Cluster) -> anyhow::Result<BTreeMap<u64, ClusterStatusResponse>> {
    let mut statuses = BTreeMap::new();
    for member in cluster.members().iter().filter(|one| one.is_running()) {
        statuses.insert(member.id, crate::nemesis::status(&member.url()).await?);
    }
    Ok(statuses)
}

/// Nodes whose newest snapshot is of what they had not applied before.
fn compacted(
    before: &BTreeMap<u64, ClusterStatusResponse>,
    after: &BTreeMap<u64, ClusterStatusResponse>,
) -> BTreeSet<u64> {
    let is_newer = |id: &u64, after: &ClusterStatusResponse| {
        let before = before.get(id);
        before.is_some_and(|before| after.snapshot_index > before.applied_index)
    };
    let newer = after.iter().filter(|(id, after)| is_newer(id, after));
    newer.map(|(id, _)| *id).collect()
}

async fn puts(cluster: &Cluster, value_bytes: usize, seconds: u64) -> anyhow::Result<Puts> {
    let before = statuses(cluster).await?;
    let target = Target {
        system: load::System::Trireme,
        endpoints: cluster.addresses(),
    };
    let plan = load::Plan {
        clients: CLIENTS,
        value_bytes,
        warm_up: Duration::from_secs(1),
        measured: Duration::from_secs(seconds),
        operation: Operation::Put,
    };
    let figures = load::run(&target, &plan).await?;
    Ok(Puts {
        per_second: figures.per_second(),
        latency_us: figures.latency(),
        errors: figures.errors,
        compacted: compacted(&before, &statuses(cluster).await?),
    })
}

/// Large writes: a loop, then one so long that each node's log grows by half more than what makes it be compacted.
async fn beside_compaction(
    cluster: &mut Cluster,
    compact_bytes: u64,
    seconds: u64,
    tell: impl Fn(&str),
) -> anyhow::Result<(Puts, Puts)> {
    let quiet = puts(cluster, LARGE, seconds).await?;
    tell(&format!(
        "three nodes, large values: {:.0} puts/s",
        quiet.per_second
    ));
    let grows = quiet.per_second.max(1.0) * LARGE as f64;
    let long = (1.5 * compact_bytes as f64 / grows).ceil() as u64;
    let compacting = puts(cluster, LARGE, long.clamp(seconds, MAX_SECONDS)).await?;
    tell(&format!(
        "three nodes that compact their logs: {:.0} puts/s",
        compacting.per_second
    ));
    let leader = cluster.wait_for_leader().await?;
    ensure!(
        compacting.compacted.contains(&leader),
        "the leader, node {leader}, did not compact its log in {long} s: {compacting}"
    );
    Ok((quiet, compacting))
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
    let alone_empty = puts(&cluster, VALUE, size.seconds).await?;
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
    let compact_bytes = config.limits.compact_bytes;
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
    let alone_grown = puts(&cluster, VALUE, size.seconds).await?;
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
    let three_quiet = puts(&cluster, VALUE, size.seconds).await?;
    tell(&format!(
        "three nodes: {:.0} puts/s",
        three_quiet.per_second
    ));
    let leader = cluster.wait_for_leader().await?;
    let leader = Client::connect(&cluster.member(leader)?.url()).await?;
    let stop = CancellationToken::new();
    let saving = tokio::spawn(save_all_the_time(leader, stop.clone()));
    let three_beside_snapshots = puts(&cluster, VALUE, size.seconds).await?;
    stop.cancel();
    let snapshots_saved = saving.await??;
    tell(&format!(
        "three nodes beside snapshots being saved: {:.0} puts/s",
        three_beside_snapshots.per_second
    ));
    let (three_large, three_compacting) =
        beside_compaction(&mut cluster, compact_bytes, size.seconds, &tell).await?;
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
        three_large,
        three_compacting,
        watchers: size.watchers,
        watch_latency_us,
        watch_lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(applied_index: u64, snapshot_index: u64) -> ClusterStatusResponse {
        ClusterStatusResponse {
            applied_index,
            snapshot_index,
            ..ClusterStatusResponse::default()
        }
    }

    #[test]
    fn who_compacted_has_a_snapshot_of_what_came_meanwhile() {
        let before = BTreeMap::from([
            (1, status(100, 40)),
            (2, status(100, 40)),
            (3, status(100, 40)),
        ]);
        // 2 had begun before; 4 was not asked before.
        let after = BTreeMap::from([
            (1, status(200, 40)),
            (2, status(200, 100)),
            (3, status(200, 150)),
            (4, status(200, 150)),
        ]);
        assert_eq!(compacted(&before, &after), BTreeSet::from([3]));
    }
}
