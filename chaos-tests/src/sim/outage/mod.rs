//! The forge away for an hour, in simulated time: webhooks come on at a fixed rate while nobody answers their plugins,
//! leaders are killed meanwhile and while the backlog is worked off, and in the end every delivery must have been handled,
//! once, in order, without a try used up by it.
//!
//! Real are the doors, the state, the ring, the plugins' controller with its plugins, the GitHub client with its budgets,
//! retries and probes, and the sandbox's REST skin over its pure core ([`github`]): payloads and signatures are what it
//! sends, lost webhooks are asked for again through its API. Simulated are the network, the disks, and the clocks.

mod account;
mod github;
mod judge;
mod moods;
mod people;
pub mod program;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use trireme_forge::git::Mirrors;
use trireme_office::{ConfigFeed, Controller, RunningConfig};
use trireme_proto::state::{
    BlobRef, Command, ConfigFile, ConfigVersion, Done, PutBlobChunk, PutConfig, command::Body,
    outcome,
};
use trireme_raft::{Store, StoreConfig};
use trireme_state::FEATURE_LEVEL;

pub use self::account::Account;
use self::{github::GitHubHere, moods::outage, people::People};
use super::{
    FORMED,
    chance::Chance,
    chronicle::Chronicle,
    clockwork::loaded,
    cluster::{Cluster, End},
    formed,
    furnishing::{Furnishing, timing},
    network::Network,
    trace::{Tail, Trace},
    world::true_ms,
};

/// A leader that was killed is started again after this.
const RESTART: Duration = Duration::from_secs(5);
/// Between two looks at how much is open.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks at whether every event has come home: each is looked up on each node.
const WHOLE_LOOK: Duration = Duration::from_secs(2);
/// Everything is handled so long after the forge's return, webhooks that have to be asked for again included.
const DRAINED: Duration = Duration::from_secs(2 * 3600);
/// A node that was asked something while nothing disturbs answers within this.
const ANSWERED: Duration = Duration::from_secs(60);
/// Seldom: most of what happens in an hour without webhooks is that leaders say they are there.
const HEARTBEAT: Duration = Duration::from_millis(500);
const SEGMENT_BYTES: u64 = 256 << 10;
/// Between two looks at whether a state holds together: it is large here.
const STATE_LOOK: Duration = Duration::from_secs(600);

/// What is told and when.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub nodes: u64,
    /// Webhooks a second that people cause.
    pub rate: u64,
    /// How long they do.
    pub lasting: Duration,
    /// Pull requests that they are about.
    pub pulls: u64,
    /// From when on, and for how long, the forge is away.
    pub away_after: Duration,
    pub away_for: Duration,
    pub trace: Option<PathBuf>,
    /// Where another thread sees how far the run has come.
    pub tail: Tail,
}

/// Runs it once. The process must have been prepared for the seed, see [`program`]. `mirrors` are never asked for anything.
///
/// # Errors
/// When there is no runtime, the trace cannot be kept, or no cluster is made.
pub fn run(options: &Options, mirrors: Mirrors) -> io::Result<Account> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(Box::pin(simulate(options, mirrors)))
}

async fn simulate(options: &Options, mirrors: Mirrors) -> io::Result<Account> {
    let (seed, began) = (options.seed, Instant::now());
    let trace = Trace::begin(options.trace.as_deref(), options.tail.clone())?;
    let chronicle = Chronicle::new(trace.clone());
    let network = Network::new(Chance::new(seed, "network"), trace.clone());
    let (feeder, feed) = watch::channel(None);
    let github = GitHubHere::new(options, network.clone(), trace.clone(), began)?;
    let cluster = Cluster::new(
        options.nodes,
        network,
        Chance::new(seed, "nodes"),
        trace.clone(),
        chronicle.clone(),
        Furnishing {
            crew: Box::new({
                let github = github.clone();
                move |life, _| crew(&github, life, &mirrors, &feed)
            }),
            tune: large,
            look: STATE_LOOK,
            keeps_changes: false,
            plant: None,
        },
    );
    for id in cluster.ids() {
        cluster.start(id).await;
    }
    if !formed(&cluster).await {
        let what = format!("no cluster was made within {} s", FORMED.as_secs());
        return Err(io::Error::other(what));
    }
    let configured = timeout(ANSWERED, configure(&cluster, &feeder)).await;
    configured.map_err(|_| io::Error::other("no node takes a configuration"))??;
    let pulls = github.open_pulls(options.pulls)?;
    github.hook_to(options.nodes)?;

    let told = tell(options, &cluster, &github, &pulls).await;
    let judged = judge::judge(&cluster, &github, &pulls, &chronicle, told.drained);
    let (lines, sum) = trace.end()?;
    Ok(account::close(
        options,
        &github,
        told,
        judged,
        (lines, sum),
        true_ms(began),
    ))
}

/// How the story went.
struct Told {
    kills: u64,
    largest_backlog: u64,
    backlog_at_return: u64,
    /// Entries of the log that the last tenth of the time away took, when nobody wrote any more.
    entries_while_quiet: u64,
    returned: Instant,
    /// When the last delivery that had come by the forge's return was handled, and the last of all.
    worked_off: Option<Instant>,
    drained: Option<Instant>,
}

async fn tell(
    options: &Options,
    cluster: &Cluster,
    github: &GitHubHere,
    pulls: &people::Pulls,
) -> Told {
    let begins = Instant::now();
    let (leaves, returns) = (
        begins + options.away_after,
        begins + options.away_after + options.away_for,
    );
    let people = People {
        github: github.clone(),
        pulls: pulls.clone(),
        chance: Chance::new(options.seed, "people"),
    };
    let acting = tokio::spawn(people.act(options.rate, options.lasting));
    let backlog = Backlog::watched(cluster.clone());
    let moods = github.moods().clone();
    let sky = tokio::spawn(moods.go_through(outage(options.away_for), leaves));
    // In the middle of what comes while it is away.
    let late = options.lasting.saturating_sub(options.away_after) / 2;
    tokio::time::sleep_until(leaves + late).await;
    let mut kills = u64::from(kill_leader(cluster).await);

    tokio::time::sleep_until(returns - options.away_for / 10).await;
    let quiet_from = revision(cluster);
    tokio::time::sleep_until(returns).await;
    let entries_while_quiet = revision(cluster).saturating_sub(quiet_from);
    let backlog_at_return = open(cluster);
    // Nobody counts on its end: it sets the last mood.
    let _ended = sky.await;
    let deadline = returns + DRAINED;
    until(deadline, || open(cluster) <= backlog_at_return / 2).await;
    kills += u64::from(kill_leader(cluster).await);
    let worked_off = until(deadline, || open(cluster) == 0).await;
    let _acted = acting.await;
    let drained = every(WHOLE_LOOK, deadline, || is_drained(cluster, github)).await;
    Told {
        kills,
        largest_backlog: backlog.largest(),
        backlog_at_return,
        entries_while_quiet,
        returned: returns,
        worked_off,
        drained,
    }
}

/// When something came true, if it did in time.
async fn until(deadline: Instant, is_so: impl Fn() -> bool) -> Option<Instant> {
    every(LOOK, deadline, is_so).await
}

async fn every(look: Duration, deadline: Instant, is_so: impl Fn() -> bool) -> Option<Instant> {
    while !is_so() {
        if Instant::now() >= deadline {
            return None;
        }
        sleep(look).await;
    }
    Some(Instant::now())
}

/// Everything that the forge sent is home and handled, on every node.
fn is_drained(cluster: &Cluster, github: &GitHubHere) -> bool {
    github.all_answered()
        && cluster.ids().into_iter().all(|id| {
            cluster.up(id).is_some_and(|up| {
                let view = up.store.view();
                view.open_deliveries().next().is_none()
                    && github.all_sent(|guid| view.delivery(guid).is_some())
            })
        })
}

/// The most that any node knows to be open.
fn open(cluster: &Cluster) -> u64 {
    let up = cluster.ids().into_iter().filter_map(|id| cluster.up(id));
    let open = up.map(|up| up.store.view().open_deliveries().count() as u64);
    open.max().unwrap_or(u64::MAX)
}

fn revision(cluster: &Cluster) -> u64 {
    let up = cluster.ids().into_iter().filter_map(|id| cluster.up(id));
    up.map(|up| up.store.view().revision).max().unwrap_or(0)
}

/// Whether there was one. It is started again.
async fn kill_leader(cluster: &Cluster) -> bool {
    let leads = |id: &u64| {
        let up = cluster.up(*id);
        up.is_some_and(|up| up.store.leadership().borrow().is_me)
    };
    let Some(leader) = cluster.ids().into_iter().find(leads) else {
        return false;
    };
    let killed = cluster.end(leader, End::Killed);
    let cluster = cluster.clone();
    tokio::spawn(async move {
        sleep(RESTART).await;
        cluster.start(leader).await;
    });
    killed
}

/// How many deliveries were open at most.
struct Backlog {
    largest: watch::Receiver<u64>,
    looking: JoinHandle<()>,
}

impl Backlog {
    fn watched(cluster: Cluster) -> Self {
        let (tell, largest) = watch::channel(0);
        let looking = tokio::spawn(async move {
            loop {
                let now = open(&cluster);
                tell.send_if_modified(|largest| {
                    let is_more = now > *largest && now != u64::MAX;
                    if is_more {
                        *largest = now;
                    }
                    is_more
                });
                sleep(Duration::from_secs(1)).await;
            }
        });
        Self { largest, looking }
    }

    fn largest(&self) -> u64 {
        self.looking.abort();
        *self.largest.borrow()
    }
}

/// The plugins' controller of one life of a node, with a client of its own.
fn crew(
    github: &GitHubHere,
    life: &Arc<super::world::Life>,
    mirrors: &Mirrors,
    feed: &ConfigFeed,
) -> Vec<Arc<dyn Controller>> {
    match github.controller(life, mirrors, feed) {
        Ok(controller) => vec![controller],
        Err(why) => {
            tracing::error!(%why, "a node without plugins");
            Vec::new()
        }
    }
}

/// Sizes of a real node, but for what a disk in memory copies at each sync.
fn large(config: &mut StoreConfig) {
    config.timing = timing(HEARTBEAT);
    config.limits.wal.segment_bytes = SEGMENT_BYTES;
}

const CONFIG: &str = "prowjob_namespace: default\npod_namespace: test-pods\n";

fn running(version: u64) -> io::Result<Arc<RunningConfig>> {
    let plugins = people::configuration();
    let files = [
        ("main", "config.yaml", CONFIG.as_bytes()),
        ("plugins", "plugins.yaml", plugins.as_bytes()),
    ];
    loaded(version, &files)
}

/// Puts a configuration in force. What the state carries nobody reads: the nodes are told what it says.
async fn configure(
    cluster: &Cluster,
    feeder: &watch::Sender<Option<Arc<RunningConfig>>>,
) -> io::Result<()> {
    // Before the newest level, deliveries with headers are refused.
    let is_new = |id: u64| {
        let up = cluster.up(id);
        up.is_some_and(|up| up.store.view().feature_level() == FEATURE_LEVEL)
    };
    while !cluster.ids().into_iter().all(is_new) {
        sleep(LOOK).await;
    }
    let up = cluster.up(1).ok_or(io::ErrorKind::NotConnected)?;
    let blob = BlobRef {
        sha256: vec![1; 32].into(),
        size: 2,
    };
    let chunk = PutBlobChunk {
        blob: Some(blob.clone()),
        index: 0,
        count: 1,
        data: Bytes::from_static(b"{}"),
    };
    propose(&up.store, Body::PutBlobChunk(chunk)).await?;
    let file = ConfigFile {
        role: "main".to_owned(),
        path: "config.yaml".to_owned(),
        blob: Some(blob),
    };
    let put = PutConfig {
        config: Some(ConfigVersion {
            files: vec![file],
            ..ConfigVersion::default()
        }),
        expected_current: 0,
    };
    let done = propose(&up.store, Body::PutConfig(put)).await?;
    feeder.send_replace(Some(running(done.config_version)?));
    Ok(())
}

async fn propose(store: &Store, body: Body) -> io::Result<Done> {
    let command = Command {
        min_level: 1,
        principal: "simulation".to_owned(),
        body: Some(body),
        ..Command::default()
    };
    let applied = store.propose(command).await.map_err(io::Error::other)?;
    match applied.outcome.result {
        Some(outcome::Result::Done(done)) => Ok(done),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}
