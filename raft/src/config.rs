//! What a store is opened with.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use trireme_proto::state::Batch;
use trireme_state::FEATURE_LEVEL;

use crate::{
    archive::{ArchiveHome, ArchiveOptions},
    disk::{Disk, RealDisk},
    feed::FeedOptions,
    host::Host,
    wal::WalOptions,
};

/// Everything that a node's store needs to know.
#[derive(Debug)]
pub struct StoreConfig {
    pub data_dir: PathBuf,
    /// This node's id, at least 1. Never reused in the life of a cluster.
    pub node_id: u64,
    pub peer_listener: PeerListener,
    /// host:port under which other nodes reach the peer listener.
    pub peer_address: String,
    /// host:port of this node's client door, for the others' information.
    pub api_address: String,
    /// None is allowed on loopback only.
    pub tls: Option<PeerTls>,
    /// Whether this node, where it leads, raises the cluster's feature level as soon as every member knows a higher one.
    /// From then on no member can go back to an older build.
    pub raises_feature_level: bool,
    /// The highest feature level that this node tells the others it knows: this build's. A test plays an older build.
    pub knows_level: u32,
    pub timing: Timing,
    pub limits: Limits,
    /// File access of log and snapshots; the operating system's unless a test says otherwise.
    pub disk: Arc<dyn Disk>,
    /// The archive's place; sled in `data_dir` when None.
    pub archive: Option<Arc<dyn ArchiveHome>>,
    /// Changes what this node applies: how a test makes a replica that differs from the others.
    pub tamper: Option<Tamper>,
    /// The machine, unless this is a simulation.
    pub host: Host,
}

type Change = dyn Fn(u64, &mut Batch) + Send + Sync;

/// Is handed each entry with its log index before this node applies it.
#[derive(Clone)]
pub struct Tamper(pub Arc<Change>);

impl std::fmt::Debug for Tamper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tamper").finish_non_exhaustive()
    }
}

impl StoreConfig {
    /// Defaults for everything but what only the caller can know. Advertises the listener's own address.
    pub fn new(data_dir: PathBuf, node_id: u64, listen: SocketAddr) -> Self {
        Self {
            data_dir,
            node_id,
            peer_listener: PeerListener::Address(listen),
            peer_address: listen.to_string(),
            api_address: String::new(),
            tls: None,
            raises_feature_level: true,
            knows_level: FEATURE_LEVEL,
            timing: Timing::default(),
            limits: Limits::default(),
            disk: Arc::new(RealDisk),
            archive: None,
            tamper: None,
            host: Host::Machine,
        }
    }
}

/// Where peers connect to.
#[derive(Debug)]
pub enum PeerListener {
    Address(SocketAddr),
    /// Bound already: how a test gets a free port.
    Bound(std::net::TcpListener),
    /// The one of the simulated world.
    World,
}

/// Files (PEM) for mutual TLS between nodes; read again whenever they change.
///
/// A node's certificate carries the URI `trireme-peer://<cluster>/<node id>`, is signed by one of the authorities in
/// `ca`, and serves both ends of a connection.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// The cluster's name in certificates: lowercase letters, digits and `-`.
    pub cluster: String,
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Timeouts of consensus. A leader that is gone is replaced after about `election_max` + `election_max`.
#[derive(Debug, Clone)]
pub struct Timing {
    pub heartbeat: Duration,
    /// A follower campaigns after a random time between the two, counted from the end of the leader's lease.
    pub election_min: Duration,
    pub election_max: Duration,
    /// One chunk of a snapshot, sent or received.
    pub snapshot_chunk: Duration,
    /// A received snapshot's installation.
    pub snapshot_install: Duration,
    /// An append request without an answer.
    pub append_stall: Duration,
    /// A proposal, from the call to its answer.
    pub propose: Duration,
    /// How often the other members are asked for clock and version.
    pub hello_interval: Duration,
}

impl Timing {
    /// A leader that was not heard of for so long is not named as one any more. Longer than an undisturbed cluster
    /// takes to lose one leader and follow the next.
    pub fn leader_silence(&self) -> Duration {
        self.election_max * 2 + self.heartbeat * 2
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(75),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(500),
            snapshot_chunk: Duration::from_secs(10),
            snapshot_install: Duration::from_secs(120),
            append_stall: Duration::from_secs(2),
            propose: Duration::from_secs(10),
            hello_interval: Duration::from_secs(5),
        }
    }
}

/// Sizes, in bytes or counts.
#[derive(Debug, Clone)]
pub struct Limits {
    pub wal: WalOptions,
    pub archive: ArchiveOptions,
    pub feed: FeedOptions,
    /// A snapshot is due after this much log, on a disk with little room after less.
    pub compact_bytes: u64,
    /// A snapshot is due after this many entries.
    pub compact_entries: u64,
    /// A snapshot is due after this time if anything was appended.
    pub compact_after: Duration,
    /// Entries kept behind the newest snapshot, for followers that lag a little.
    pub keep_entries: u64,
    /// Their bytes at most.
    pub keep_bytes: u64,
    /// Commands waiting for the leader's proposer.
    pub queue_commands: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Packed entries on their way through the log.
    pub entries_in_flight: usize,
    /// Worker threads of the ring's own runtime.
    pub ring_threads: usize,
    pub space: SpaceOptions,
    /// How long finished history stays in the archive.
    pub history: Duration,
    /// How often the leader has all nodes compare their states.
    pub audit_every: Duration,
    /// How often snapshots and old segments of the log are read again to find what has rotted.
    pub scrub_every: Duration,
    /// How fast they are read.
    pub scrub_bytes_per_second: u64,
}

/// When a disk counts as full, and what is then done about it.
#[derive(Debug, Clone)]
pub struct SpaceOptions {
    /// What the data directory may take; the whole file system when None.
    pub budget_bytes: Option<u64>,
    /// Space set aside for the moment when there is none left; 0 = none.
    pub reserve_bytes: u64,
    /// An alarm is raised from this share on, in thousandths ...
    pub alarm_permille: u32,
    /// ... and lowered below this one.
    pub clear_permille: u32,
    /// From this share on nothing new is taken ...
    pub refuse_permille: u32,
    /// ... until it is below this one.
    pub resume_permille: u32,
    /// How often it is looked at.
    pub look: Duration,
}

impl Default for SpaceOptions {
    fn default() -> Self {
        Self {
            budget_bytes: None,
            reserve_bytes: 0,
            alarm_permille: 850,
            clear_permille: 800,
            refuse_permille: 950,
            resume_permille: 930,
            look: Duration::from_secs(5),
        }
    }
}

/// One for four processors, up to four: most of what the ring does is one step after the other, and a second thread on a
/// small machine costs more to wake than it takes over.
fn ring_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(1, |processors| processors.get().div_ceil(4))
        .min(4)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wal: WalOptions::default(),
            archive: ArchiveOptions::default(),
            feed: FeedOptions::default(),
            compact_bytes: 256 << 20,
            compact_entries: 100_000,
            compact_after: Duration::from_secs(24 * 60 * 60),
            keep_entries: 5000,
            keep_bytes: 64 << 20,
            queue_commands: 16_384,
            queue_bytes: 32 << 20,
            entries_in_flight: 64,
            ring_threads: ring_threads(),
            space: SpaceOptions::default(),
            history: Duration::from_secs(365 * 24 * 60 * 60),
            audit_every: Duration::from_secs(10 * 60),
            scrub_every: Duration::from_secs(6 * 60 * 60),
            scrub_bytes_per_second: 16 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the README promises is what the defaults say.
    #[test]
    fn the_readme_says_how_long_the_log_is_kept() {
        let readme = include_str!("../../README.md");
        let limits = Limits::default();
        let log = format!(
            "| the log | when a snapshot covers it: after {} MiB, {} entries or {} hours, the newest {} entries or {} MiB aside; \
             on a disk with less than {} GiB of room after a quarter of that |",
            limits.compact_bytes >> 20,
            limits.compact_entries,
            limits.compact_after.as_secs() / 3600,
            limits.keep_entries,
            limits.keep_bytes >> 20,
            (4 * limits.compact_bytes) >> 30
        );
        assert!(readme.contains(&log), "{log}");
        let history = format!(
            "after `disk.history_days`, {} days |",
            limits.history.as_secs() / 86_400
        );
        assert!(readme.contains(&history), "{history}");
        let kept = crate::snapshot::SNAPSHOTS_KEPT;
        assert!(readme.contains(&format!("| snapshots | all but the newest {kept}; ")));
    }
}
