//! Deterministic simulation: one seed decides everything that happens to a cluster of 3 or 5 nodes.
//!
//! The nodes are the real state, ring, doors, office, scheduler, periodics, sinker and outbox, in one process, on one
//! thread, with simulated time ([`trireme_raft::Host::Simulated`]). Simulated are the network (byte streams under the real gRPC and
//! HTTP: delay, loss, resets, partitions full, one way and bridged), the disks (writes and syncs that fail, no room,
//! sectors torn and lost), the archive (a B-tree that forgets what was not checkpointed), and each node's clock.
//! Clients write and read registers, bring webhooks, create and abort jobs, agents run them, authors open pull requests
//! that are merged on the sandbox's pure core; everything may come twice. Nodes are killed, cut from their power,
//! stopped and started again. In the end all is healed and [`judge`] says whether every promise was kept.
//!
//! sled, git and the pod utilities are not here, so neither are the controllers that need git: [`clerk`] and
//! [`merger`] stand in for plugins and Tide. That is what chaos is for. [`outage`] has the plugins that need no git, and
//! the GitHub client, for one story.
//!
//! # One seed, one run
//!
//! What had to be done: all tasks are on one thread whose clock moves only when nothing else can be done; what would
//! block is done in place after a simulated wait; the writers of log and archive are tasks; the seed feeds libc's
//! `getrandom` (by the crate mad-turmoil, in the simulator's program alone), and with it the keys of std's hash maps,
//! tokio's choice among ready branches and woken watchers, openraft's election timeouts, our own backoffs and all UUIDs;
//! our own dice have a sequence per purpose ([`chance`]); one operating system process runs one seed, since all of that
//! is set once per process. tokio's own seed would need `--cfg tokio_unstable` for everybody.
//!
//! What is still not repeatable: a seed means the same run only for the same build (the order in which random numbers
//! are drawn is part of the code), on systems where the program's `getrandom` takes the place of libc's (Linux and macOS).
//! Nothing else is known; [`program`] compares the traces of two runs of a seed on demand, and a test does.
//!
//! turmoil was tried on paper: it gives each host a runtime of its own and steps all of them every millisecond of
//! simulated time, loses TCP segments for good, and needs the node's code to use its sockets. Here time jumps to the next
//! timer, and a node that ends is cut from the world: what its tasks still do reaches no disk that anybody looks at, no
//! network and no client.

mod agents;
mod chance;
mod chronicle;
mod clerk;
mod clients;
mod clockwork;
mod cluster;
mod forge;
mod furnishing;
mod judge;
mod merger;
mod nemesis;
mod network;
pub mod outage;
pub mod program;
mod reporter;
mod trace;
mod world;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    agents::Agent,
    chance::Chance,
    chronicle::Chronicle,
    clients::Client,
    cluster::Cluster,
    forge::Forge,
    furnishing::Furnishing,
    nemesis::{Faults, Nemesis},
    network::Network,
    trace::Trace,
};

pub use self::{chance::generator, trace::Tail};

const CLIENTS: u64 = 5;
const AGENTS: u64 = 2;
/// A cluster that nothing disturbs is made within this.
const FORMED: Duration = Duration::from_secs(30);
/// Clients finish what they began within this.
const FINISHED: Duration = Duration::from_secs(120);

/// A bug to find: that the simulation finds anything at all must be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// Once the cluster is made, disks say that they synced and do not.
    LyingDisks,
    /// Who watches node 1 is not shown every change.
    SkippedChanges,
    /// The outbox takes some reports for told that nobody was told.
    ForgottenReports,
}

/// What decides a run.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub nodes: u64,
    /// How long it is disturbed, in simulated time.
    pub disturbed: Duration,
    pub trace: Option<PathBuf>,
    pub plant: Option<Plant>,
    /// Where another thread sees how far the run has come.
    pub tail: Tail,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    pub nodes: u64,
    pub broken: Vec<String>,
    /// Lines of the trace, and their SHA-256.
    pub lines: u64,
    pub trace: String,
    pub simulated_ms: u64,
    pub revision: u64,
    /// How often each fault was made, and how much else happened.
    pub counts: BTreeMap<String, u64>,
}

/// Runs one seed. The process must have been prepared for it, see [`program`].
///
/// # Errors
/// When there is no runtime, or the trace cannot be kept.
pub fn run(options: &Options) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(Box::pin(simulate(options)))
}

async fn simulate(options: &Options) -> io::Result<Report> {
    let seed = options.seed;
    let began = Instant::now();
    let trace = Trace::begin(options.trace.as_deref(), options.tail.clone())?;
    let chronicle = Chronicle::new(trace.clone());
    let network = Network::new(Chance::new(seed, "network"), trace.clone());
    let forge = Forge::new(Chance::new(seed, "forge"), trace.clone(), began);
    let forge = forge.map_err(|refusal| io::Error::other(format!("{refusal:?}")))?;
    let (feeder, feed) = tokio::sync::watch::channel(Some(clockwork::wound_up()?));
    let cluster = Cluster::new(
        options.nodes,
        network,
        Chance::new(seed, "nodes"),
        trace.clone(),
        chronicle.clone(),
        Furnishing::small(feed, forge.clone(), options.plant),
    );
    for id in cluster.ids() {
        cluster.start(id).await;
    }
    let faults = Arc::new(Faults::default());
    if formed(&cluster).await {
        if options.plant == Some(Plant::LyingDisks) {
            cluster.let_disks_lie();
        }
        disturb(options, &cluster, &forge, began, &faults).await;
        cluster.heal().await;
        // Otherwise the verdict is known: whoever does not even start never comes to rest.
        if !chronicle.is_broken() {
            if let Err(silent) = clockwork::goes_on(&cluster).await {
                chronicle.broken(silent);
            }
            feeder.send_replace(Some(clockwork::stopped()?));
            match judge::rest(&cluster, &forge).await {
                Ok(rested) => {
                    let reader = client(0, &cluster, &forge, seed, began);
                    reader.read_all().await;
                    for broken in judge::judge(&cluster, &forge, rested).await {
                        chronicle.broken(broken);
                    }
                }
                Err(unrest) => chronicle.broken(unrest),
            }
        }
    } else {
        chronicle.broken(format!("no cluster was made within {} s", FORMED.as_secs()));
    }
    let revision = chronicle.last_revision();
    trace.line("end", format_args!("at {revision}"));
    let simulated_ms = began.elapsed().as_millis();
    let (lines, sum) = trace.end()?;
    let mut counts = chronicle.counts();
    counts.extend(faults.counts());
    counts.push(("merges", forge.all_merged().0.len() as u64));
    counts.push(("reports", forge.all_told().len() as u64));
    Ok(Report {
        seed,
        nodes: options.nodes,
        broken: chronicle.take_broken(),
        lines,
        trace: sum,
        simulated_ms: u64::try_from(simulated_ms).unwrap_or(u64::MAX),
        revision,
        counts: counts
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
    })
}

fn client(number: u64, cluster: &Cluster, forge: &Forge, seed: u64, began: Instant) -> Client {
    Client {
        number,
        cluster: cluster.clone(),
        forge: forge.clone(),
        chance: Chance::new(seed, &format!("client {number}")),
        began,
    }
}

async fn formed(cluster: &Cluster) -> bool {
    let forming = async {
        for id in cluster.ids() {
            if let Some(up) = cluster.up(id) {
                let mut leadership = up.store.leadership();
                // The sender lives as long as the store.
                let _ = leadership.wait_for(|seen| seen.leader.is_some()).await;
            }
        }
    };
    timeout(FORMED, forming).await.is_ok()
}

/// Clients and agents at work while the nemesis is, too; the agents go on afterwards.
async fn disturb(
    options: &Options,
    cluster: &Cluster,
    forge: &Forge,
    began: Instant,
    faults: &Arc<Faults>,
) {
    let seed = options.seed;
    let stop = CancellationToken::new();
    for number in 1..=AGENTS {
        let agent = Agent {
            number,
            cluster: cluster.clone(),
            chance: Chance::new(seed, &format!("agent {number}")),
        };
        // Until the simulation ends.
        tokio::spawn(agent.run(CancellationToken::new()));
    }
    let mut clients = JoinSet::new();
    for number in 1..=CLIENTS {
        let client = client(number, cluster, forge, seed, began);
        clients.spawn(client.run(stop.clone()));
    }
    let author = client(CLIENTS + 1, cluster, forge, seed, began);
    clients.spawn(author.author(stop.clone()));
    let nemesis = Nemesis {
        cluster: cluster.clone(),
        chance: Chance::new(seed, "nemesis"),
        faults: Arc::clone(faults),
        begun: TaskTracker::new(),
    };
    nemesis.run(Instant::now() + options.disturbed).await;
    stop.cancel();
    cluster.heal().await;
    let finished = async { while clients.join_next().await.is_some() {} };
    if cluster.chronicle().is_broken() {
        return;
    }
    if timeout(FINISHED, finished).await.is_err() {
        cluster
            .chronicle()
            .broken("a client got no answer although nothing disturbs any more".to_owned());
    }
}
