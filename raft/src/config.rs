//! What a store is opened with.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

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
    pub timing: Timing,
    pub limits: Limits,
    /// File access of log and snapshots; the operating system's unless a test says otherwise.
    pub disk: Arc<dyn Disk>,
    /// The archive's place; sled in `data_dir` when None.
    pub archive: Option<Arc<dyn ArchiveHome>>,
    /// The machine, unless this is a simulation.
    pub host: Host,
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
            timing: Timing::default(),
            limits: Limits::default(),
            disk: Arc::new(RealDisk),
            archive: None,
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

/// PEM texts for mutual TLS between nodes.
///
/// Both sides must hold a certificate of `ca`; the server's must carry the DNS name `server_name`. Whether the client's
/// names the very node that it speaks for is not checked yet: any certificate of `ca` is a peer.
#[derive(Clone)]
pub struct PeerTls {
    pub ca: String,
    pub certificate: String,
    pub key: String,
    pub server_name: String,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
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
    /// A snapshot is due after this much log.
    pub compact_bytes: u64,
    /// A snapshot is due after this many entries.
    pub compact_entries: u64,
    /// Entries kept behind the newest snapshot, for followers that lag a little.
    pub keep_entries: u64,
    /// Commands waiting for the leader's proposer.
    pub queue_commands: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Packed entries on their way through the log.
    pub entries_in_flight: usize,
    /// Worker threads of the ring's own runtime.
    pub ring_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wal: WalOptions::default(),
            archive: ArchiveOptions::default(),
            feed: FeedOptions::default(),
            compact_bytes: 256 << 20,
            compact_entries: 100_000,
            keep_entries: 5000,
            queue_commands: 16_384,
            queue_bytes: 32 << 20,
            entries_in_flight: 64,
            ring_threads: 2,
        }
    }
}
