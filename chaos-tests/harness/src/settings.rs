//! What the processes are told: the same TOML file that an operator writes.

use std::path::PathBuf;

use serde::Serialize;

use crate::{hub::Hub, links::Links};

/// Where the forge is and as whom to speak to it.
#[derive(Debug, Clone, Serialize)]
pub struct GitHub {
    pub endpoint: String,
    /// Where repositories are cloned from.
    pub url: String,
    pub token_file: PathBuf,
}

/// Common to all nodes of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// Everything of the cluster lies below; each node in a directory of its own.
    pub directory: PathBuf,
    pub nodes: u64,
    /// Absent: no controllers that talk to a forge.
    pub github: Option<GitHub>,
    pub hmac_secret_file: Option<PathBuf>,
    /// Shared by nodes and agents of one host.
    pub storage: PathBuf,
    pub ground: Ground,
}

/// What lies between and under the nodes, so that they can be disturbed. The default is nothing: they listen and write
/// as they are told.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    /// Everything that reaches a node passes through these.
    pub links: Option<Links>,
    /// Each node has a network of its own; needs links.
    pub hub: Option<Hub>,
    /// Debian's `libfaketime`: clocks can be set while nodes run.
    pub clock_library: Option<PathBuf>,
    pub small_disk: Option<SmallDisk>,
}

/// One node's data directory lies on a file system of its own, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallDisk {
    pub node: u64,
    pub bytes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct NodeFile<'a> {
    pub(crate) node_id: u64,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<&'a str>,
    pub(crate) peer: PeerTable<'a>,
    pub(crate) cluster: ClusterTable<'a>,
    pub(crate) storage: StorageTable,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) github: Option<&'a GitHub>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook: Option<WebhookTable>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PeerTable<'a> {
    pub(crate) listen: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ClusterTable<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) bootstrap: Vec<BootstrapNode<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) join: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BootstrapNode<'a> {
    pub(crate) id: u64,
    pub(crate) peer: &'a str,
    pub(crate) api: &'a str,
}

#[derive(Debug, Serialize)]
pub(crate) struct StorageTable {
    pub(crate) url: String,
    /// All nodes and agents are on this host.
    pub(crate) shared: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct WebhookTable {
    /// As the forge knows it: the first node's door.
    pub(crate) url: String,
    pub(crate) hmac_secret_file: PathBuf,
}
