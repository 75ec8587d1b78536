//! Which clusters there are, as Prow finds them with `--kubeconfig` and its companions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::KubernetesError;

/// Prow's name for the cluster that it is in.
const DEFAULT_CLUSTER: &str = "default";
/// How long a call may take, reading the answer included.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where clusters are named. The fields are Prow's flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubeconfigs {
    pub kubeconfig: Option<PathBuf>,
    /// Files of a directory, as a mounted Secret: directories and names that begin with `..` are left out.
    pub kubeconfig_dir: Option<PathBuf>,
    /// How the names of those files end.
    pub kubeconfig_suffix: String,
    /// In place of the service account's own token.
    pub projected_token_file: Option<PathBuf>,
    /// The cluster that we are in, if any, is not among them.
    pub no_in_cluster_config: bool,
}

/// Why there are no clusters.
#[derive(Debug, thiserror::Error)]
pub enum ClustersError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{}: context {context} occurred more than once in the kubeconfig files; rename one of them", path.display())]
    Twice { path: PathBuf, context: String },
    #[error("context {context}: {reason}")]
    Context { context: String, reason: String },
    #[error("the cluster that this process is in: {0}")]
    InCluster(String),
    #[error(
        "no cluster to call {DEFAULT_CLUSTER}: this process is in none and no kubeconfig file has a current-context; set one \
         with `kubectl config use-context`"
    )]
    NoDefault,
}

/// Clusters by name. Clones share their connections.
#[derive(Clone)]
pub struct Clusters {
    by_context: BTreeMap<String, Client>,
    own: Option<Client>,
}

impl fmt::Debug for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Clusters {
    /// Reads what is named there, and without any `$KUBECONFIG` or `~/.kube/config`. Nothing is asked of the clusters.
    ///
    /// # Errors
    /// For a file that cannot be read, a context that is incomplete or named twice, or if no cluster is the default.
    pub async fn load(from: &Kubeconfigs) -> Result<Self, ClustersError> {
        let mut by_context = BTreeMap::new();
        let mut current = None;
        for (path, file) in files(from)? {
            for context in file.contexts.iter().map(|context| &context.name) {
                let options = KubeConfigOptions {
                    context: Some(context.clone()),
                    ..KubeConfigOptions::default()
                };
                let config = Config::from_custom_kubeconfig(file.clone(), &options).await;
                let config = config.map_err(|error| ClustersError::Context {
                    context: context.clone(),
                    reason: error.to_string(),
                })?;
                let client = client(config).map_err(|reason| ClustersError::Context {
                    context: context.clone(),
                    reason,
                })?;
                if by_context.insert(context.clone(), client).is_some() {
                    return Err(ClustersError::Twice {
                        path,
                        context: context.clone(),
                    });
                }
            }
            let named = file.current_context.filter(|context| !context.is_empty());
            current = named.or(current);
        }
        let own = match in_cluster(from)? {
            Some(own) => Some(own),
            None => current.and_then(|current| by_context.get(&current).cloned()),
        };
        if own.is_none() && !from.no_in_cluster_config {
            return Err(ClustersError::NoDefault);
        }
        Ok(Self { by_context, own })
    }

    /// Names that [`Self::client`] knows.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.own.iter().map(|_| DEFAULT_CLUSTER);
        let others = self.by_context.keys().map(String::as_str);
        own.chain(others.filter(|name| *name != DEFAULT_CLUSTER || self.own.is_none()))
    }

    /// `default` is the cluster that we are in, else the current context, whatever else bears the name.
    pub(crate) fn client(&self, cluster: &str) -> Result<&Client, KubernetesError> {
        let own = self.own.as_ref();
        let own = own.filter(|_| cluster.is_empty() || cluster == DEFAULT_CLUSTER);
        own.or_else(|| self.by_context.get(cluster)).ok_or_else(|| {
            KubernetesError::UnknownCluster {
                cluster: cluster.to_owned(),
                known: self.names().collect::<Vec<_>>().join(", "),
            }
        })
    }
}

fn client(mut config: Config) -> Result<Client, String> {
    // Whoever calls repeats what failed, where it can be seen.
    config.default_retry = false;
    config.read_timeout = Some(CALL_TIMEOUT);
    Client::try_from(config).map_err(|error| error.to_string())
}

fn in_cluster(from: &Kubeconfigs) -> Result<Option<Client>, ClustersError> {
    if from.no_in_cluster_config || std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        return Ok(None);
    }
    let config = Config::incluster_env();
    let mut config = config.map_err(|error| ClustersError::InCluster(error.to_string()))?;
    if let Some(token) = &from.projected_token_file {
        config.auth_info.token_file = Some(token.display().to_string());
    }
    client(config).map(Some).map_err(ClustersError::InCluster)
}

type File = (PathBuf, Kubeconfig);

fn files(from: &Kubeconfigs) -> Result<Vec<File>, ClustersError> {
    let mut paths: Vec<PathBuf> = from.kubeconfig.iter().cloned().collect();
    if let Some(dir) = &from.kubeconfig_dir {
        paths.extend(files_of(dir, &from.kubeconfig_suffix)?);
    }
    if paths.is_empty() {
        // As kubectl: the first of those that are there says what is current.
        return match Kubeconfig::read() {
            Ok(file) => Ok(vec![(PathBuf::from("$KUBECONFIG"), file)]),
            Err(error) => {
                tracing::info!(%error, "no kubeconfig file is used");
                Ok(Vec::new())
            }
        };
    }
    let read = |path: PathBuf| match Kubeconfig::read_from(&path) {
        Ok(file) => Ok((path, file)),
        Err(error) => Err(ClustersError::File {
            path,
            reason: error.to_string(),
        }),
    };
    paths.into_iter().map(read).collect()
}

fn files_of(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>, ClustersError> {
    let failed = |error: std::io::Error| ClustersError::File {
        path: dir.to_owned(),
        reason: error.to_string(),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_dir = entry.file_type().map_err(failed)?.is_dir();
        if !is_dir && !name.starts_with("..") && name.ends_with(suffix) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
