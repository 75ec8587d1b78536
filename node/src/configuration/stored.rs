//! Versions that are not in force, for those who ask what has changed since.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tonic::{Code, Status};
use trireme_api::configs::Stored;
use trireme_office::{ConfigVersions, RunningConfig, VersionError};
use trireme_raft::Store;

use super::{Versions, feeder::running};

/// How often contents are fetched anew because another configuration was loaded meanwhile, from which less is known.
const ROUNDS: usize = 5;

/// Loads versions from the state or from this node's archive. What they share with what was loaded last is not read again.
pub struct StoredVersions {
    store: Store,
    versions: Arc<Versions>,
}

impl StoredVersions {
    #[must_use]
    pub fn new(store: Store, versions: Arc<Versions>) -> Self {
        Self { store, versions }
    }
}

fn not_read(why: &Status) -> VersionError {
    match why.code() {
        Code::NotFound | Code::DataLoss => VersionError::Lost(why.message().to_owned()),
        _ => VersionError::Away(why.message().to_owned()),
    }
}

#[async_trait]
impl ConfigVersions for StoredVersions {
    async fn version(&self, number: u64) -> Result<Arc<RunningConfig>, VersionError> {
        let stored = Stored::new(self.store.view(), self.store.archive());
        let version = stored.version(number).await.map_err(|why| not_read(&why))?;
        let version = version.ok_or_else(|| {
            VersionError::Lost("it is neither in memory nor in this node's archive".to_owned())
        })?;
        let files = stored.files(&version).await.map_err(|why| not_read(&why))?;
        let files = Arc::new(files);
        let mut contents: HashMap<Bytes, Bytes> = HashMap::new();
        for _ in 0..ROUNDS {
            let (versions, named) = (Arc::clone(&self.versions), Arc::clone(&files));
            let loading = tokio::task::spawn_blocking(move || {
                let loaded = versions.load_from(&contents, &named);
                (loaded, contents)
            });
            let (loaded, had) = loading
                .await
                .map_err(|why| VersionError::Away(why.to_string()))?;
            contents = had;
            match loaded.map_err(|why| VersionError::Lost(format!("{why:#}")))? {
                Ok(loaded) => {
                    let running = running(number, loaded);
                    return running
                        .map(Arc::new)
                        .map_err(|why| VersionError::Lost(format!("{why:#}")));
                }
                Err(lacking) => {
                    for name in lacking {
                        let content = stored.content(&name, self.store.host()).await;
                        let content = content.map_err(|why| not_read(&why))?;
                        contents.insert(name.sha256, content);
                    }
                }
            }
        }
        Err(VersionError::Away(
            "other configurations were loaded all the while".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use trireme_state::limits::CONFIG_MEMORY;

    use super::*;
    use crate::{
        configuration::testing::{alone, put},
        serve::registry,
    };

    /// CFG-094: a consumer that was away for many versions still learns what it stood at.
    #[tokio::test(flavor = "multi_thread")]
    async fn cfg_094_a_version_that_has_left_memory_is_loaded_from_the_archive() {
        let store = alone().await;
        let newest = u64::try_from(CONFIG_MEMORY).unwrap() + 2;
        for number in 1..=newest {
            put(&store, &format!("prowjob_namespace: n{number}\n")).await;
        }
        assert!(store.view().config_version(1).is_none());
        let versions = Arc::new(Versions::new(Arc::new(registry())));
        let stored = StoredVersions::new(store.clone(), versions);
        for number in [1, newest, 2] {
            let loaded = stored.version(number).await.unwrap();
            assert_eq!(loaded.version, number);
            assert_eq!(
                loaded.config.prow.prowjob_namespace,
                format!("n{number}"),
                "{number}"
            );
        }
        // What another build let in may be what this one does not read.
        put(&store, "tide: {sync_period: never}\n").await;
        let broken = stored.version(newest + 1).await.unwrap_err();
        assert!(
            matches!(&broken, VersionError::Lost(why) if why.starts_with("1 errors, the first: ")),
            "{broken:?}"
        );
        let never = stored.version(newest + 2).await.unwrap_err();
        assert!(matches!(never, VersionError::Lost(_)), "{never:?}");
        store.shutdown().await;
    }
}
