//! The Kubernetes clusters of this node's settings, as the plugins want them.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use trireme_kubernetes::{Clusters, ConfigMapRef, KubernetesError};
use trireme_plugins::{ClusterError, ConfigMapId, ConfigMaps, Values};

use crate::settings::Settings;

/// Those that the settings name; `None` without `[kubernetes]`.
///
/// # Errors
/// Naming the file or context that is wrong.
pub(crate) async fn config_maps(
    settings: &Settings,
) -> anyhow::Result<Option<Arc<dyn ConfigMaps>>> {
    let Some(kubernetes) = &settings.kubernetes else {
        return Ok(None);
    };
    let clusters = Clusters::load(&kubernetes.kubeconfigs())
        .await
        .context("kubernetes")?;
    // Prow has no Kubernetes client in a dry run either.
    if settings
        .github
        .as_ref()
        .is_some_and(|github| github.dry_run)
    {
        tracing::info!(?clusters, "a dry run: no ConfigMap will be written");
        return Ok(None);
    }
    tracing::info!(?clusters, "config-updater writes to Kubernetes");
    Ok(Some(Arc::new(Written(clusters))))
}

struct Written(Clusters);

#[async_trait]
impl ConfigMaps for Written {
    async fn value(&self, of: &ConfigMapId, key: &str) -> Result<Option<String>, ClusterError> {
        let value = self.0.config_map_text(named(of), key).await;
        value.map_err(cluster_error)
    }

    async fn write(&self, to: &ConfigMapId, values: &Values) -> Result<u64, ClusterError> {
        let bytes = self.0.write_config_map(named(to), values).await;
        bytes.map_err(cluster_error)
    }
}

fn named(id: &ConfigMapId) -> ConfigMapRef<'_> {
    ConfigMapRef {
        cluster: &id.cluster,
        namespace: &id.namespace,
        name: &id.name,
    }
}

fn cluster_error(error: KubernetesError) -> ClusterError {
    match error.is_outage() {
        true => ClusterError::Unavailable(error.to_string()),
        false => ClusterError::Refused(error.to_string()),
    }
}
