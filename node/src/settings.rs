//! The settings of one node: a TOML file, which `TRIREME_*` variables and flags override. Every key is explained in
//! `deploy/trireme.example.toml`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

/// Where nodes and agents of one host keep artifacts unless told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:8888";
const DEFAULT_PEER_LISTEN: &str = "127.0.0.1:8889";

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Never used again in this cluster once its disk is lost.
    pub node_id: u64,
    pub data_dir: PathBuf,
    #[serde(default = "default_listen")]
    pub listen: String,
    /// What other nodes and agents call the door; `listen` when absent.
    #[serde(default)]
    pub advertise: Option<String>,
    #[serde(default)]
    pub peer: PeerSettings,
    #[serde(default)]
    pub cluster: ClusterSettings,
    #[serde(default)]
    pub raft: RaftSettings,
    #[serde(default)]
    pub github: Option<GitHubSettings>,
    #[serde(default)]
    pub webhook: WebhookSettings,
    #[serde(default)]
    pub storage: StorageSettings,
    #[serde(default)]
    pub tide: TideSettings,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeerSettings {
    pub listen: String,
    pub advertise: Option<String>,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            listen: DEFAULT_PEER_LISTEN.to_owned(),
            advertise: None,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSettings {
    /// All first members, the same list on each; used on the very first start alone.
    pub bootstrap: Vec<BootstrapNode>,
    /// Peer addresses of members, for a node that joins later with an empty directory.
    pub join: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapNode {
    pub id: u64,
    pub peer: String,
    pub api: String,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftSettings {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 75,
            election_min_ms: 300,
            election_max_ms: 500,
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GitHubSettings {
    #[serde(default = "default_github")]
    pub endpoint: String,
    /// Where repositories are cloned from.
    #[serde(default = "default_github_url")]
    pub url: String,
    /// A personal or bot token, one line.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Or a GitHub App.
    #[serde(default)]
    pub app_id: Option<u64>,
    #[serde(default)]
    pub app_private_key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    pub path: String,
    pub hmac_secret_file: Option<PathBuf>,
    /// The address that the forge sends to, as it is written there.
    pub url: Option<String>,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            path: "/hook".to_owned(),
            hmac_secret_file: None,
            url: None,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// A directory; empty = `artifacts` beside the data directory.
    pub url: String,
    /// Says that every node and agent sees the same directory.
    pub shared: bool,
}

/// Prow's `tide` and `horologium` periods are in config.yaml; this is what only a node knows.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TideSettings {
    /// Overrides `tide.sync_period`, in milliseconds; for tests and demos.
    pub sync_period_ms: Option<u64>,
}

fn default_listen() -> String {
    DEFAULT_LISTEN.to_owned()
}

fn default_github() -> String {
    "https://api.github.com".to_owned()
}

fn default_github_url() -> String {
    "https://github.com".to_owned()
}

impl Settings {
    /// # Errors
    /// Naming the file, the line and what to do.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "{}: cannot be read; deploy/trireme.example.toml explains every key",
                path.display()
            )
        })?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// # Errors
    /// See [`Self::load`].
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let settings: Self = toml::from_str(text)?;
        settings.check()?;
        Ok(settings)
    }

    /// # Errors
    /// Naming the key and what to do.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.node_id > 0, "node_id: must be 1 or more");
        let raft = self.raft;
        ensure!(
            raft.heartbeat_ms >= 10
                && raft.election_min_ms >= 2 * raft.heartbeat_ms
                && raft.election_max_ms > raft.election_min_ms,
            "raft: heartbeat_ms must be at least 10, election_min_ms at least twice that, election_max_ms above \
             election_min_ms"
        );
        for (key, address) in [("listen", &self.listen), ("peer.listen", &self.peer.listen)] {
            let address: SocketAddr = address
                .parse()
                .with_context(|| format!("{key}: {address:?} is no ip:port"))?;
            if !address.ip().is_loopback() {
                bail!(
                    "{key}: {address} is not a loopback address, and this version has neither TLS nor tokens; put a \
                     TLS-terminating proxy in front and keep the listener on 127.0.0.1"
                );
            }
        }
        ensure!(
            self.webhook.path.starts_with('/'),
            "webhook.path: {:?} must start with /",
            self.webhook.path
        );
        if let Some(github) = &self.github {
            let app = github.app_id.is_some() && github.app_private_key_file.is_some();
            ensure!(
                app != github.token_file.is_some(),
                "github: give either token_file, or app_id with app_private_key_file"
            );
            ensure!(
                self.webhook.hmac_secret_file.is_some(),
                "webhook.hmac_secret_file: needed when github is set; webhooks are only taken signed"
            );
        }
        ensure!(
            self.cluster.bootstrap.is_empty() || self.cluster.join.is_empty(),
            "cluster: a node either bootstraps a new cluster or joins one, not both"
        );
        if !self.cluster.bootstrap.is_empty() {
            ensure!(
                self.cluster
                    .bootstrap
                    .iter()
                    .any(|node| node.id == self.node_id),
                "cluster.bootstrap: does not name this node ({})",
                self.node_id
            );
        }
        Ok(())
    }

    #[must_use]
    pub fn api_address(&self) -> &str {
        self.advertise.as_deref().unwrap_or(&self.listen)
    }

    #[must_use]
    pub fn peer_address(&self) -> &str {
        self.peer.advertise.as_deref().unwrap_or(&self.peer.listen)
    }

    /// Where artifacts are.
    #[must_use]
    pub fn storage(&self) -> String {
        if self.storage.url.is_empty() {
            self.data_dir
                .with_file_name("artifacts")
                .display()
                .to_string()
        } else {
            self.storage.url.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "node_id = 1\ndata_dir = \"/d\"\n";

    #[test]
    fn a_small_file_is_enough() {
        let settings = Settings::parse(SMALL).unwrap();
        assert_eq!(settings.api_address(), "127.0.0.1:8888");
        assert_eq!(settings.storage(), "/artifacts");
    }

    /// DESIGN §8: nothing listens beyond loopback without TLS and tokens.
    #[test]
    fn what_is_wrong_is_named() {
        let refused = |more: &str| {
            format!(
                "{:#}",
                Settings::parse(&format!("{SMALL}{more}")).unwrap_err()
            )
        };
        assert!(
            refused("listen = \"0.0.0.0:80\"")
                .contains("listen: 0.0.0.0:80 is not a loopback address")
        );
        assert!(refused("[raft]\nheartbeat_ms = 400").contains("election_min_ms at least twice"));
        assert!(refused("[github]").contains("github: give either token_file"));
        assert!(refused("lisen = \"x\"").contains("unknown field `lisen`"));
        assert!(
            refused("[[cluster.bootstrap]]\nid = 2\npeer = \"a\"\napi = \"b\"")
                .contains("does not name this node (1)")
        );
    }

    #[test]
    fn the_example_file_is_good_and_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/trireme.example.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        Settings::parse(&text).unwrap();
        for key in [
            "node_id",
            "data_dir",
            "listen",
            "advertise",
            "[peer]",
            "bootstrap",
            "join",
            "heartbeat_ms",
            "election_min_ms",
            "election_max_ms",
            "[github]",
            "endpoint",
            "token_file",
            "app_id",
            "app_private_key_file",
            "path",
            "hmac_secret_file",
            "url",
            "shared",
            "sync_period_ms",
        ] {
            assert!(text.contains(key), "{key} is not explained");
        }
    }
}
