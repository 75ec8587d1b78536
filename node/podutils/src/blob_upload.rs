//! Bringing a run's files to their places in storage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use trireme_prowjob::gcs_paths::{self, PathError, join};
use trireme_prowjob::go_json::null_as_zero;
use trireme_prowjob::{GcsConfiguration, JobSpec};

use crate::censor::Censored;
use crate::storage::{Storage, StorageError};
use crate::utility_log::UtilityLog;

/// Uploads at once (POD-103).
const PARALLEL: usize = 4;
/// Waits between the tries of one upload (POD-103).
const RETRY_WAITS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(9),
];
/// Depth of directories followed below an item.
const MAX_DEPTH: usize = 128;

/// Options shared by everything that uploads (POD-101, POD-106).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GcsUploadOptions {
    /// Files and directories to upload.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub items: Vec<String>,
    /// Appended to the run's directory.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub sub_dir: String,
    /// Where the run's directory is.
    #[serde(flatten)]
    pub gcs: GcsConfiguration,
    /// Service account for `gs://`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub gcs_credentials_file: String,
    /// Credentials for `s3://`.
    #[serde(
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_zero"
    )]
    pub s3_credentials_file: String,
    /// Say what would be uploaded.
    #[serde(deserialize_with = "null_as_zero")]
    pub dry_run: bool,
}

/// What to store: a file as it is then, or these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// Path in storage to content.
pub(crate) type Targets = BTreeMap<String, Content>;

/// Why an upload failed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Storage is not there or not usable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The run has no place in storage.
    #[error(transparent)]
    Place(#[from] PathError),
    /// Some files could not be stored; the others were.
    #[error("encountered errors during upload: [{}]", .0.join(" "))]
    Files(Vec<String>),
}

impl GcsUploadOptions {
    /// # Errors
    /// The first thing that is missing or wrong.
    pub fn validate(&self) -> Result<(), String> {
        if !self.gcs.local_output_dir.is_empty() {
            return Ok(());
        }
        if !self.dry_run && self.gcs.bucket.is_empty() {
            return Err("GCS upload was requested no GCS bucket was provided".to_owned());
        }
        self.gcs.validate().map_err(|e| e.to_string())
    }

    /// Stores the items, then `extra` (paths below the run's directory): who sees those may rely on the items.
    pub(crate) async fn run(
        &self,
        spec: &JobSpec,
        extra: Targets,
        censored: &Censored,
        log: &UtilityLog,
    ) -> Result<(), UploadError> {
        let local = &self.gcs.local_output_dir;
        let storage = match (self.dry_run, local.is_empty()) {
            (true, _) => None,
            (false, true) => Some(Storage::open(&self.gcs.bucket)?),
            (false, false) => Some(Storage::local(Path::new(local))?),
        };
        let targets = self.targets(spec, storage.as_ref(), censored, log).await?;
        let extra = extra
            .into_iter()
            .map(|(to, content)| (join(&[&targets.run, &to]), content))
            .collect();
        let Some(storage) = storage else {
            for to in targets.items.keys().chain(Targets::keys(&extra)) {
                log.info("Would upload", &[("dest", to.as_str().into())]);
            }
            return Ok(());
        };
        let mut failures = upload_all(&storage, targets.items, &RETRY_WAITS, log).await;
        failures.extend(upload_all(&storage, extra, &RETRY_WAITS, log).await);
        log.info("Finished upload to blob storage", &[]);
        if failures.is_empty() {
            Ok(())
        } else {
            Err(UploadError::Files(failures))
        }
    }

    async fn targets(
        &self,
        spec: &JobSpec,
        storage: Option<&Storage>,
        censored: &Censored,
        log: &UtilityLog,
    ) -> Result<RunTargets, UploadError> {
        let mut items = Targets::new();
        let run = if self.gcs.local_output_dir.is_empty() {
            let paths = gcs_paths::for_job(&self.gcs, spec, &self.sub_dir)?;
            if let Some(alias) = gcs_paths::alias(spec) {
                items.insert(
                    alias,
                    Content::Bytes(self.run_url(&paths.base).into_bytes()),
                );
            }
            for latest in gcs_paths::latest_build(spec, Some(&paths.repo_path))? {
                if !names_newer_build(storage, &latest, &spec.build_id).await? {
                    items.insert(latest, Content::Bytes(spec.build_id.clone().into_bytes()));
                }
            }
            paths.run
        } else {
            String::new()
        };
        for item in &self.items {
            gather(Path::new(item), &run, censored, &mut items, log);
        }
        Ok(RunTargets { run, items })
    }

    /// Full URL of the run's directory, which the alias holds.
    fn run_url(&self, base: &str) -> String {
        let bucket = &self.gcs.bucket;
        if bucket.contains("://") {
            format!("{bucket}/{base}")
        } else if bucket.starts_with('/') {
            format!("file://{}", join(&[bucket, base]))
        } else {
            format!("gs://{}", join(&[bucket, base]))
        }
    }
}

struct RunTargets {
    run: String,
    items: Targets,
}

/// True when the stored id is the larger number: a late upload must not turn the latest build back (POD-108).
async fn names_newer_build(
    storage: Option<&Storage>,
    path: &str,
    build_id: &str,
) -> Result<bool, StorageError> {
    let Some(storage) = storage else {
        return Ok(false);
    };
    let stored = storage
        .get(path)
        .await?
        .and_then(|b| String::from_utf8(b).ok()?.trim().parse::<u128>().ok());
    Ok(matches!((stored, build_id.parse::<u128>()), (Some(stored), Ok(own)) if stored > own))
}

/// Adds an item: a file under its own name, a directory's files below its name.
fn gather(item: &Path, run: &str, censored: &Censored, targets: &mut Targets, log: &UtilityLog) {
    let name = item
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let kind = match fs::metadata(item) {
        Ok(kind) => kind,
        Err(error) => {
            let fields = [
                ("item", item.display().to_string().into()),
                ("error", error.to_string().into()),
            ];
            log.warn("Encountered error in resolving items to upload", &fields);
            return;
        }
    };
    if kind.is_file() {
        add_file(item, run, &name, censored, targets, log);
        return;
    }
    log.info(
        &format!(
            "Gathering artifacts from artifact directory: {}",
            item.display()
        ),
        &[],
    );
    for file in files_inside(item, log) {
        let Ok(below) = file.strip_prefix(item) else {
            continue;
        };
        let below = join(&[&name, &below.to_string_lossy()]);
        let (dir, file_name) = below.rsplit_once('/').unwrap_or(("", &below));
        add_file(&file, &join(&[run, dir]), file_name, censored, targets, log);
    }
}

fn add_file(
    file: &Path,
    dir: &str,
    name: &str,
    censored: &Censored,
    targets: &mut Targets,
    log: &UtilityLog,
) {
    let source = match censored.source(file) {
        Ok(source) => source,
        Err(why) => {
            let fields = [
                ("path", file.display().to_string().into()),
                ("reason", why.into()),
            ];
            log.warn(
                "Not uploaded because secrets in it could not be censored",
                &fields,
            );
            return;
        }
    };
    let place = |name: &str| join(&[dir, &name.replace('#', "%23")]);
    // Both `x` and `x.gz` may exist: then the second keeps its whole name (POD-108).
    let wanted = [place(stored_name(name)), place(name)];
    let Some(destination) = wanted.into_iter().find(|to| !targets.contains_key(to)) else {
        log.warn(
            &format!(
                "Encountered duplicate upload of {}, skipping...",
                place(name)
            ),
            &[],
        );
        return;
    };
    targets.insert(destination, Content::File(source));
}

/// A compressed file is stored under the name of its content (POD-104).
fn stored_name(name: &str) -> &str {
    let stripped = name
        .strip_suffix(".gz")
        .or_else(|| name.strip_suffix(".gzip"));
    stripped.filter(|n| !n.is_empty()).unwrap_or(name)
}

/// Regular files below a directory, sorted. A link counts as its target if that is a file inside the directory;
/// everything else is left out with a warning (POD-092).
pub(crate) fn files_inside(dir: &Path, log: &UtilityLog) -> Vec<PathBuf> {
    let root = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mut found = Vec::new();
    let mut open = vec![(dir.to_owned(), 0)];
    let skip = |path: &Path, why: &str| {
        log.warn(
            "Not uploaded",
            &[
                ("path", path.display().to_string().into()),
                ("reason", why.into()),
            ],
        );
    };
    while let Some((path, depth)) = open.pop() {
        let kind = match fs::symlink_metadata(&path) {
            Ok(kind) => kind.file_type(),
            Err(error) => {
                skip(&path, &error.to_string());
                continue;
            }
        };
        if kind.is_dir() {
            match fs::read_dir(&path) {
                _ if depth >= MAX_DEPTH => skip(&path, "nested too deeply"),
                Err(error) => skip(&path, &error.to_string()),
                Ok(entries) => open.extend(entries.flatten().map(|e| (e.path(), depth + 1))),
            }
        } else if kind.is_file() {
            found.push(path);
        } else if kind.is_symlink() {
            match fs::canonicalize(&path) {
                Ok(target) if target.starts_with(&root) && target.is_file() => found.push(path),
                _ => skip(
                    &path,
                    "the link does not lead to a file inside the directory",
                ),
            }
        } else {
            skip(&path, "neither file nor directory");
        }
    }
    found.sort();
    found
}

/// Returns what failed, after all tries.
async fn upload_all(
    storage: &Storage,
    targets: Targets,
    waits: &[Duration],
    log: &UtilityLog,
) -> Vec<String> {
    let outcomes = futures::stream::iter(targets)
        .map(|(to, content)| async move {
            let fields = [("dest", storage.url(&to).into())];
            log.info("Queued for upload", &fields);
            let outcome = upload_one(storage, &to, content, waits, log).await;
            log.info(
                if outcome.is_ok() {
                    "Finished upload"
                } else {
                    "Failed upload"
                },
                &fields,
            );
            outcome
        })
        .buffer_unordered(PARALLEL)
        .collect::<Vec<_>>()
        .await;
    outcomes
        .into_iter()
        .filter_map(|o| o.err().map(|e| e.to_string()))
        .collect()
}

async fn upload_one(
    storage: &Storage,
    to: &str,
    content: Content,
    waits: &[Duration],
    log: &UtilityLog,
) -> Result<(), StorageError> {
    let mut waits = waits.iter();
    loop {
        let outcome = match &content {
            Content::File(file) => storage.put_file(to, file).await,
            Content::Bytes(bytes) => storage.put(to, bytes.clone()).await,
        };
        match outcome {
            Err(error) if !matches!(error, StorageError::Source { .. }) => {
                let Some(wait) = waits.next() else {
                    return Err(error);
                };
                log.debug(
                    "Retrying upload",
                    &[("dest", to.into()), ("error", error.to_string().into())],
                );
                tokio::time::sleep(*wait).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> UtilityLog {
        UtilityLog::new("test", Vec::new())
    }

    #[test]
    fn pod_104_names() {
        for (name, stored) in [
            ("a.txt.gz", "a.txt"),
            ("a.gzip", "a"),
            (".gz", ".gz"),
            ("gz", "gz"),
            ("a.txt", "a.txt"),
        ] {
            assert_eq!(stored_name(name), stored);
        }
    }

    #[test]
    fn pod_092_108_what_is_gathered() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = dir.path().join("artifacts");
        fs::create_dir_all(artifacts.join("sub/empty")).unwrap();
        for name in ["a#1.txt", "b.log", "b.log.gz", "sub/c"] {
            fs::write(artifacts.join(name), name).unwrap();
        }
        fs::write(dir.path().join("secret"), "s").unwrap();
        for (target, name) in [
            ("sub/c", "inside"),
            ("../secret", "outside"),
            ("sub", "directory"),
            ("gone", "dangling"),
        ] {
            std::os::unix::fs::symlink(target, artifacts.join(name)).unwrap();
        }
        let mut targets = Targets::new();
        gather(
            &artifacts,
            "logs/j/1",
            &Censored::nothing(),
            &mut targets,
            &silent(),
        );
        let names: Vec<&str> = targets.keys().map(String::as_str).collect();
        insta::assert_snapshot!(names.join("\n"), @r"
        logs/j/1/artifacts/a%231.txt
        logs/j/1/artifacts/b.log
        logs/j/1/artifacts/b.log.gz
        logs/j/1/artifacts/inside
        logs/j/1/artifacts/sub/c
        ");
    }

    #[tokio::test]
    async fn pod_108_the_latest_build_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("logs/j/latest-build.txt");
        let options = GcsUploadOptions {
            gcs: GcsConfiguration {
                bucket: dir.path().display().to_string(),
                path_strategy: "explicit".into(),
                ..GcsConfiguration::default()
            },
            ..GcsUploadOptions::default()
        };
        for (build, want) in [("9", "9"), ("10", "10"), ("9", "10")] {
            let spec = serde_json::from_value(
                serde_json::json!({"type": "periodic", "job": "j", "buildid": build}),
            );
            options
                .run(
                    &spec.unwrap(),
                    Targets::new(),
                    &Censored::nothing(),
                    &silent(),
                )
                .await
                .unwrap();
            assert_eq!(fs::read_to_string(&latest).unwrap(), want);
        }
    }

    #[tokio::test]
    async fn pod_103_one_failure_does_not_stop_the_others() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("taken/x")).unwrap();
        let storage = Storage::local(dir.path()).unwrap();
        let targets = Targets::from([
            ("a".to_owned(), Content::Bytes(b"a".to_vec())),
            ("gone".to_owned(), Content::File("/no/such/file".into())),
            ("taken".to_owned(), Content::Bytes(b"t".to_vec())),
        ]);
        let failures = upload_all(&storage, targets, &[Duration::ZERO; 3], &silent()).await;
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"a");
    }
}
