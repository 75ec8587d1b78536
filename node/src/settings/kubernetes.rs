//! `[kubernetes]`: which clusters this node writes to. The keys are Prow's flags.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use trireme_kubernetes::Kubeconfigs;

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSettings {
    pub kubeconfig: Option<PathBuf>,
    pub kubeconfig_dir: Option<PathBuf>,
    /// How names of files in `kubeconfig_dir` end; others are left out.
    pub kubeconfig_suffix: String,
    /// In place of the service account's own token.
    pub projected_token_file: Option<PathBuf>,
    /// The cluster that the node is in is not used.
    pub no_in_cluster_config: bool,
}

impl KubernetesSettings {
    pub(crate) fn kubeconfigs(&self) -> Kubeconfigs {
        Kubeconfigs {
            kubeconfig: self.kubeconfig.clone(),
            kubeconfig_dir: self.kubeconfig_dir.clone(),
            kubeconfig_suffix: self.kubeconfig_suffix.clone(),
            projected_token_file: self.projected_token_file.clone(),
            no_in_cluster_config: self.no_in_cluster_config,
        }
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.kubeconfig_suffix.is_empty() || self.kubeconfig_dir.is_some(),
            "kubernetes.kubeconfig_suffix: says which files of kubernetes.kubeconfig_dir count; set that too"
        );
        if let Some(path) = &self.kubeconfig {
            std::fs::metadata(path).with_context(|| {
                format!("kubernetes.kubeconfig: {} is not there", path.display())
            })?;
        }
        if let Some(path) = &self.kubeconfig_dir {
            ensure!(
                path.is_dir(),
                "kubernetes.kubeconfig_dir: {} is no directory",
                path.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let told = |settings: &str| {
            let settings: KubernetesSettings = toml::from_str(settings).unwrap();
            settings.check().map_err(|error| format!("{error:#}"))
        };
        assert_eq!(told(""), Ok(()));
        for (settings, expected) in [
            (
                "kubeconfig_suffix = '.yaml'",
                "kubernetes.kubeconfig_suffix: says which files",
            ),
            (
                "kubeconfig = '/none'",
                "kubernetes.kubeconfig: /none is not there",
            ),
            (
                "kubeconfig_dir = '/none'",
                "kubernetes.kubeconfig_dir: /none is no directory",
            ),
        ] {
            let refused = told(settings).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }
}
