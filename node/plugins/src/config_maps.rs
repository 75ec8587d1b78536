//! What the plugins want of Kubernetes: ConfigMaps of some clusters, written key by key.

use std::collections::BTreeMap;

use async_trait::async_trait;

/// One ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigMapId {
    /// As Prow calls clusters: a context of a kubeconfig, or `default` for the one that Prow itself is in.
    pub cluster: String,
    pub namespace: String,
    pub name: String,
}

/// By key; `None`: the key goes.
pub type Values = BTreeMap<String, Option<Vec<u8>>>;

/// Clusters whose ConfigMaps can be written.
#[async_trait]
pub trait ConfigMaps: Send + Sync + 'static {
    /// The text under a key; `None` if the ConfigMap or the key is not there.
    async fn value(&self, of: &ConfigMapId, key: &str) -> Result<Option<String>, ClusterError>;

    /// Sets and removes keys, all or none of them; others stay. Makes the ConfigMap if it is not there. What is UTF-8
    /// becomes text, anything else binary (PLG-CONFIGUPDATER-007, PLG-CONFIGUPDATER-008). Answers the bytes of all values
    /// then.
    async fn write(&self, to: &ConfigMapId, values: &Values) -> Result<u64, ClusterError>;
}

/// Why a cluster did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Passes by itself.
    #[error("{0}")]
    Unavailable(String),
    /// For good: no such cluster, no right, no namespace, too large.
    #[error("{0}")]
    Refused(String),
}
