//! A ConfigMap's keys from the files of a merged commit (PLG-CONFIGUPDATER-007, PLG-CONFIGUPDATER-008).

use std::io::Write as _;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use trireme_forge::RepoId;
use trireme_forge::git::GitError;
use trireme_proto::state::{ConfigMapEffect, Delivery};

use super::Session;
use super::effects::subject;
use super::write::{Answer, Failure};
use crate::config_maps::{ClusterError, ConfigMapId, ConfigMaps, Values};

/// Where Prow's components find which commit their configuration is of.
const VERSION: &str = "VERSION";
/// How long a cluster may be away before its ConfigMap is given up, to be redriven by a person: those of other clusters
/// wait behind it.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

impl Session {
    pub(super) async fn update_config_map(
        &self,
        effect: &ConfigMapEffect,
        delivery: &Delivery,
    ) -> Result<Answer, Failure> {
        let Some(clusters) = &self.tools.config_maps else {
            let why =
                "this node has no Kubernetes clusters; name them in [kubernetes] of its settings";
            return Err(Failure::Refused(why.to_owned()));
        };
        let waited_ms = self.office.now_ms().saturating_sub(delivery.received_ms);
        let patient = waited_ms < i64::try_from(PATIENCE.as_millis()).unwrap_or(i64::MAX);
        self.put_config_map(clusters.as_ref(), effect, patient)
            .await?;
        Ok(Answer::default())
    }

    /// Writes the keys, as they are in the commit or in the later one that the ConfigMap is of already. A cluster that is
    /// away is a refusal to who is not patient.
    pub(super) async fn put_config_map(
        &self,
        clusters: &dyn ConfigMaps,
        effect: &ConfigMapEffect,
        patient: bool,
    ) -> Result<(), Failure> {
        let failure = |error: ClusterError| match error {
            ClusterError::Unavailable(why) if patient => Failure::Outage(why, None),
            error => Failure::Refused(error.to_string()),
        };
        let (repo, _) = subject(effect.subject.as_ref());
        let id = ConfigMapId {
            cluster: effect.cluster.clone(),
            namespace: effect.namespace.clone(),
            name: effect.name.clone(),
        };
        // Who reads what is there and then writes does so alone: two lanes and a repair may be at one.
        let cluster = self.cluster_lock(&id.cluster);
        let _alone = cluster.lock().await;
        let version = clusters.value(&id, VERSION).await.map_err(failure)?;
        let sha = self.newest(&repo, &effect.sha, version).await?;
        let mut values = Values::new();
        for key in &effect.keys {
            let value = match key.path.as_str() {
                "" => None,
                path => self.value(&repo, &sha, &effect.sha, path).await?,
            };
            let value = match value {
                Some(bytes) if key.gzip => Some(packed(&bytes).map_err(|error| {
                    Failure::Refused(format!("{} cannot be compressed: {error}", key.path))
                })?),
                value => value,
            };
            values.insert(key.key.clone(), value);
        }
        values.insert(VERSION.to_owned(), Some(sha.into_bytes()));
        self.still_held().await?;
        let bytes = clusters.write(&id, &values).await.map_err(failure)?;
        self.tools
            .metrics
            .config_map(&id.name, &id.namespace, bytes);
        Ok(())
    }

    /// One for each cluster that the configuration names.
    fn cluster_lock(&self, cluster: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(clusters.entry(cluster.to_owned()).or_default())
    }

    /// The commit to read from: what was merged, or what the ConfigMap is of already, if that came after it. An update
    /// that had to wait does not bring back what a later one replaced.
    async fn newest(
        &self,
        repo: &RepoId,
        merged: &str,
        version: Option<String>,
    ) -> Result<String, Failure> {
        let mirrors = &self.tools.mirrors;
        mirrors.ensure(repo, &[merged]).await?;
        let is_commit = |text: &String| {
            text.len() == merged.len() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let Some(version) = version.filter(is_commit) else {
            return Ok(merged.to_owned());
        };
        let base = async {
            mirrors.ensure(repo, &[&version]).await?;
            mirrors.merge_base(repo, merged, &version).await
        };
        match base.await {
            Ok(base) if base.as_deref() == Some(merged) => Ok(version),
            Ok(_) => Ok(merged.to_owned()),
            // Another repository's: several may feed one ConfigMap.
            Err(GitError::NotFound { .. }) => Ok(merged.to_owned()),
            Err(error) => Err(error.into()),
        }
    }

    /// A file; `None` if it was removed after it was merged.
    async fn value(
        &self,
        repo: &RepoId,
        sha: &str,
        merged: &str,
        path: &str,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let file = self.tools.mirrors.read_file(repo, sha, path).await?;
        if file.is_none() && sha == merged {
            let why = format!("get file err: {path} is no file in {sha}");
            return Err(Failure::Refused(why));
        }
        Ok(file)
    }
}

fn packed(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(bytes)?;
    out.finish()
}
