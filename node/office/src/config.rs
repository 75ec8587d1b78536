//! The configuration that controllers plan with.

use std::sync::Arc;

use trireme_config::{Config, PluginConfig};

/// One committed version, parsed.
#[derive(Debug)]
pub struct RunningConfig {
    /// Number of the version in the state; plans carry it.
    pub version: u64,
    pub config: Arc<Config>,
    pub plugins: Arc<PluginConfig>,
}

/// The newest version that this node has parsed; `None` until there is one. The node feeds it.
pub type ConfigFeed = tokio::sync::watch::Receiver<Option<Arc<RunningConfig>>>;
