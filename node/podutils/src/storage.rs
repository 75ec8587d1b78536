//! Where runs' files are kept: a directory on this host. Buckets of GCS and S3 are recognised and refused for now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trireme_prowjob::gcs_paths::{self, BucketError, PathError, StoragePath};
use trireme_prowjob::run_files::PROW_JOB_FILE;
use trireme_prowjob::{JobSpec, ProwJob, go_json};

/// Bytes held in memory of a file on its way into the store.
const WRITE_BUFFER: usize = 1024 * 1024;

/// Why files cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The provider is known but not built in.
    #[error(
        "UNIMPLEMENTED: storage {bucket:?} needs provider {provider:?}, which is not built in yet: use a local directory (/dir or file:///dir) or Prow's own utility images"
    )]
    Unsupported {
        /// `gs`, `s3`, ...
        provider: String,
        /// As configured.
        bucket: String,
    },
    /// The bucket is no path.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The run has no place in storage.
    #[error(transparent)]
    Place(#[from] PathError),
    /// The directory cannot be made or used.
    #[error("storage directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file to be stored cannot be read.
    #[error("read {}: {source}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store refused.
    #[error("store {path}: {source}")]
    Store {
        /// Path in the store.
        path: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// The store failed while writing.
    #[error("write {path}: {source}")]
    Write {
        /// Path in the store.
        path: String,
        /// What the store said.
        source: io::Error,
    },
    /// A value cannot be written as JSON.
    #[error("encode {0}: {1}")]
    Encode(&'static str, serde_json::Error),
}

/// An open store. Clones share it.
#[derive(Debug, Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    url: String,
}

impl Storage {
    /// Opens `/dir` or `file:///dir`; the directory is made if it is not there.
    ///
    /// # Errors
    /// For other providers, and when the directory cannot be made.
    pub fn open(bucket: &str) -> Result<Self, StorageError> {
        if bucket.starts_with('/') {
            return Self::local(Path::new(bucket));
        }
        let place = StoragePath::parse(bucket)?;
        if place.provider == "file" && place.bucket.is_empty() && !place.path.is_empty() {
            return Self::local(Path::new(&place.path));
        }
        Err(StorageError::Unsupported {
            provider: place.provider,
            bucket: bucket.to_owned(),
        })
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn local(dir: &Path) -> Result<Self, StorageError> {
        fs::create_dir_all(dir).map_err(|source| StorageError::Directory {
            path: dir.to_owned(),
            source,
        })?;
        let store =
            LocalFileSystem::new_with_prefix(dir).map_err(|source| StorageError::Store {
                path: dir.display().to_string(),
                source,
            })?;
        Ok(Self {
            store: Arc::new(store),
            url: format!("file://{}", dir.display()),
        })
    }

    /// URL of a path in this store.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.url.trim_end_matches('/'))
    }

    /// Writes a whole object; readers see the old or the new one.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
        let location = location(path)?;
        let put = self.store.put(&location, PutPayload::from(bytes)).await;
        put.map(|_| ()).map_err(|source| StorageError::Store {
            path: path.to_owned(),
            source,
        })
    }

    /// Copies a file, up to its length when it is opened or a little more if it grows.
    ///
    /// # Errors
    /// When the file cannot be read or the store refuses.
    pub async fn put_file(&self, path: &str, file: &Path) -> Result<(), StorageError> {
        let unreadable = |source| StorageError::Source {
            path: file.to_owned(),
            source,
        };
        let unwritable = |source| StorageError::Write {
            path: path.to_owned(),
            source,
        };
        let mut input = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let mut output =
            BufWriter::with_capacity(Arc::clone(&self.store), location(path)?, WRITE_BUFFER);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = input.read(&mut buffer).await.map_err(unreadable)?;
            if n == 0 {
                break;
            }
            output.write_all(&buffer[..n]).await.map_err(unwritable)?;
        }
        output.shutdown().await.map_err(unwritable)
    }

    /// Reads a whole object, `None` if there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let failed = |source| StorageError::Store {
            path: path.to_owned(),
            source,
        };
        match self.store.get(&location(path)?).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(failed)?.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }

    /// Writes `prowjob.json` of a run, as Prow's reporter does on every change of it (CRI-061). False when the run has
    /// no build id or no storage configuration yet, hence no place.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn put_prow_job(&self, job: &ProwJob) -> Result<bool, StorageError> {
        let decoration = job.spec.decoration_config.as_ref();
        let Some(config) = decoration.and_then(|d| d.gcs_configuration.as_ref()) else {
            return Ok(false);
        };
        if job.status.build_id.is_empty() {
            return Ok(false);
        }
        let run = gcs_paths::for_job(config, &JobSpec::from(job), "")?.run;
        let json =
            go_json::to_string_tabs(job).map_err(|e| StorageError::Encode(PROW_JOB_FILE, e))?;
        self.put(&gcs_paths::join(&[&run, PROW_JOB_FILE]), json.into_bytes())
            .await?;
        Ok(true)
    }
}

fn location(path: &str) -> Result<ObjectPath, StorageError> {
    ObjectPath::parse(path).map_err(|e| StorageError::Store {
        path: path.to_owned(),
        source: e.into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_102_other_providers_are_refused_by_name() {
        for bucket in ["gs://b", "b", "s3://b/c"] {
            assert!(
                matches!(Storage::open(bucket), Err(StorageError::Unsupported { .. })),
                "{bucket}"
            );
        }
        insta::assert_snapshot!(Storage::open("s3://b").unwrap_err(), @r#"UNIMPLEMENTED: storage "s3://b" needs provider "s3", which is not built in yet: use a local directory (/dir or file:///dir) or Prow's own utility images"#);
    }

    #[tokio::test]
    async fn pod_103_names_stand_on_disk_as_given_and_empty_files_exist() {
        let dir = tempfile::tempdir().unwrap();
        let storage =
            Storage::open(&format!("file://{}", dir.path().join("store").display())).unwrap();
        let name = "logs/a b/c%23d é ~[x].txt";
        storage.put(name, b"one".to_vec()).await.unwrap();
        assert_eq!(
            fs::read(dir.path().join("store").join(name)).unwrap(),
            b"one"
        );
        assert_eq!(
            storage.get(name).await.unwrap().as_deref(),
            Some(&b"one"[..])
        );
        assert_eq!(storage.get("logs/none").await.unwrap(), None);

        for size in [0, 10, WRITE_BUFFER, 3 * WRITE_BUFFER + 7] {
            let source = dir.path().join("source");
            fs::write(&source, vec![b'x'; size]).unwrap();
            storage.put_file("copy", &source).await.unwrap();
            assert_eq!(
                fs::metadata(dir.path().join("store/copy")).unwrap().len(),
                size as u64
            );
        }
        assert!(storage.put("../escape", Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn cri_061_prowjob_json_is_tab_indented() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::local(dir.path()).unwrap();
        let mut job: ProwJob = serde_json::from_value(json!({
            "spec": {"type": "periodic", "job": "j", "decoration_config": {"gcs_configuration": {"path_strategy": "explicit", "path_prefix": "p"}}},
        }))
        .unwrap();
        assert!(!storage.put_prow_job(&job).await.unwrap());
        job.status.build_id = "7".into();
        assert!(storage.put_prow_job(&job).await.unwrap());
        let text = fs::read_to_string(dir.path().join("p/logs/j/7/prowjob.json")).unwrap();
        assert!(
            text.starts_with(
                "{\n\t\"metadata\": {},\n\t\"spec\": {\n\t\t\"type\": \"periodic\",\n"
            ),
            "{text}"
        );
    }
}
