use trireme_config::{Config, PluginConfig};

/// One committed version, parsed.
#[derive(Debug)]
pub struct RunningConfig {
    /// Number of the version in the state; plans carry it.
    pub version: u64,
    pub config: Config,
    pub plugins: PluginConfig,
}
