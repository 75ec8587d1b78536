//! Trireme and etcd side by side: the same disk, the same number of nodes, the same client, in turns.
//!
//! Every cell is measured on a fresh cluster of its own, so that none pays for what a former one left. Beside the two
//! runs the same Trireme on a file system in memory: its log is written there as well, but fdatasync costs nothing. The
//! gap to it is what the disk takes. The disk's own rate of syncs is measured in every round.

mod disk;
mod etcd_cluster;
mod failover;
mod stages;
mod table;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;
use trireme_harness::{Cluster, ClusterSettings, Executable};

pub use failover::{Failovers, failovers};
pub use stages::StageTime;
pub use table::Report;

use self::{
    disk::{processor_time, syncs_per_second},
    etcd_cluster::EtcdCluster,
};
use crate::load::{self, Figures, Latency, Operation, Plan, System, Target};

/// How long the disk alone is measured in each round.
const DISK: Duration = Duration::from_secs(2);

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contestant {
    Etcd,
    Trireme,
    /// Trireme with its log in memory, without a disk below it.
    Ceiling,
}

impl Contestant {
    pub const ALL: [Self; 3] = [Self::Etcd, Self::Trireme, Self::Ceiling];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Trireme => "trireme",
            Self::Ceiling => "ceiling",
        }
    }
}

/// How much is measured, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    pub executable: Executable,
    /// On the disk that is compared.
    pub directory: PathBuf,
    /// In memory.
    pub ceiling_directory: PathBuf,
    pub rounds: u32,
    pub nodes: u64,
    pub cells: Vec<(Operation, u64)>,
    pub value_bytes: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// One cell of one round.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub contestant: Contestant,
    pub op: &'static str,
    pub clients: u64,
    pub round: u32,
    pub per_second: f64,
    pub latency_us: Latency,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Processor time of all nodes together for one operation, in microseconds; of what was counted and the warm-up.
    pub processor_us: f64,
    /// Where the leader's ring spent its time, for one operation; of Trireme alone.
    pub stages: Vec<StageTime>,
}

/// A running cluster of either kind.
enum Running {
    Trireme(Box<Cluster>),
    Etcd(EtcdCluster),
}

impl Running {
    async fn start(
        contestant: Contestant,
        executable: &Executable,
        directory: &Path,
        nodes: u64,
    ) -> anyhow::Result<Self> {
        if contestant == Contestant::Etcd {
            return Ok(Self::Etcd(EtcdCluster::start(directory, nodes).await?));
        }
        let storage = directory.join("artifacts");
        std::fs::create_dir_all(&storage)?;
        let settings = ClusterSettings {
            directory: directory.to_owned(),
            nodes,
            github: None,
            hmac_secret_file: None,
            storage,
            ground: trireme_harness::Ground::default(),
        };
        let cluster = Cluster::start(executable.clone(), settings).await?;
        Ok(Self::Trireme(Box::new(cluster)))
    }

    /// The nodes that run.
    fn target(&self) -> Target {
        match self {
            Self::Trireme(cluster) => Target {
                system: System::Trireme,
                endpoints: cluster
                    .members()
                    .iter()
                    .filter(|member| member.is_running())
                    .map(|member| member.api.to_string())
                    .collect(),
            },
            Self::Etcd(cluster) => cluster.target(),
        }
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Trireme(cluster) => cluster
                .members()
                .iter()
                .filter_map(trireme_harness::Member::pid)
                .collect(),
            Self::Etcd(cluster) => cluster.pids(),
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Trireme(mut cluster) => Ok(cluster.stop().await?),
            Self::Etcd(cluster) => cluster.stop().await,
        }
    }
}

/// Measures every cell in every round, the contestants in turn.
///
/// # Errors
/// When a cluster does not start or cannot be measured.
pub async fn compare(settings: &Settings, tell: impl Fn(&str)) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for round in 1..=settings.rounds {
        std::fs::create_dir_all(&settings.directory)?;
        let directory = settings.directory.clone();
        let syncs = tokio::task::spawn_blocking(move || syncs_per_second(&directory, DISK));
        let syncs = syncs.await?.context("the disk cannot be measured")?;
        tell(&format!(
            "round {round}: the disk syncs {syncs:.0} times a second"
        ));
        report.syncs_per_second.push(syncs);
        for (operation, clients) in &settings.cells {
            for contestant in Contestant::ALL {
                let measured = cell(settings, contestant, *operation, *clients, round).await?;
                tell(&format!("round {round}: {measured}"));
                report.measured.push(measured);
            }
        }
    }
    Ok(report)
}

async fn cell(
    settings: &Settings,
    contestant: Contestant,
    operation: Operation,
    clients: u64,
    round: u32,
) -> anyhow::Result<Measured> {
    let home = match contestant {
        Contestant::Ceiling => &settings.ceiling_directory,
        Contestant::Etcd | Contestant::Trireme => &settings.directory,
    };
    std::fs::create_dir_all(home)?;
    let directory = tempfile::Builder::new()
        .prefix(contestant.name())
        .tempdir_in(home)?;
    let running = Running::start(
        contestant,
        &settings.executable,
        directory.path(),
        settings.nodes,
    )
    .await?;
    let plan = Plan {
        clients,
        value_bytes: settings.value_bytes,
        warm_up: settings.warm_up,
        measured: settings.measured,
        operation,
    };
    let figures = load::run(&running.target(), &plan).await?;
    let used = used(&running.pids())?;
    let stages = match contestant {
        Contestant::Etcd => Vec::new(),
        Contestant::Trireme | Contestant::Ceiling => {
            let leader = running.target().leader().await?;
            stages::of_leader(&leader, figures.all).await?
        }
    };
    running.stop().await?;
    Ok(measured(contestant, &plan, round, figures, used, stages))
}

/// Processor time of the nodes since they started: a cell has a cluster of its own.
fn used(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut all = Duration::ZERO;
    for pid in pids {
        all += processor_time(*pid)?;
    }
    Ok(all)
}

fn measured(
    contestant: Contestant,
    plan: &Plan,
    round: u32,
    figures: Figures,
    used: Duration,
    stages: Vec<StageTime>,
) -> Measured {
    Measured {
        contestant,
        op: plan.operation.name(),
        clients: plan.clients,
        round,
        per_second: figures.per_second(),
        latency_us: figures.latency(),
        errors: figures.errors,
        processor_us: used.as_secs_f64() * 1e6 / figures.all.max(1) as f64,
        first_error: figures.first_error,
        stages,
    }
}
