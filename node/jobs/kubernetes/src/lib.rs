//! Kubernetes: the clusters that a node is given, and what is done in them.
//!
//! Here stand the clusters, found by the contexts of kubeconfig files as Prow finds them ([`Clusters`]), and their
//! ConfigMaps, which `config-updater` writes. Pods are not run here yet: jobs are run by agents.
//!
//! Here never stand GitHub, the store, or what should be in a ConfigMap.

mod clusters;
mod config_maps;
mod error;

pub use clusters::{Clusters, ClustersError, Kubeconfigs};
pub use config_maps::{ConfigMapRef, Values};
pub use error::KubernetesError;
