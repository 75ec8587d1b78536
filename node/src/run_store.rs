//! What runs left in a local directory, in Prow's layout.

use std::{
    io::{self, SeekFrom},
    path::{Component, Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use trireme_api::{Artifact, RunStore};
use trireme_proto::state::Job;
use trireme_prowjob::{GcsConfiguration, JobSpec, gcs_paths, record};

/// Files listed of one run.
const MAX_FILES: usize = 1000;
/// Directories below a run that are looked into.
const MAX_DEPTH: usize = 16;

/// A directory that agents upload to.
#[derive(Debug, Clone)]
pub struct LocalRuns {
    root: PathBuf,
}

impl LocalRuns {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The run's own directory; none before it has a build id.
    fn directory(&self, job: &Job) -> io::Result<Option<PathBuf>> {
        if job.build_id.is_empty() {
            return Ok(None);
        }
        let prow_job = record::prow_job(job)?;
        let decoration = prow_job.spec.decoration_config.as_ref();
        let config = decoration
            .and_then(|decoration| decoration.gcs_configuration.clone())
            .unwrap_or_else(|| GcsConfiguration {
                path_strategy: "explicit".to_owned(),
                ..GcsConfiguration::default()
            });
        let run = gcs_paths::for_job(&config, &JobSpec::from(&prow_job), "")
            .map_err(io::Error::other)?
            .run;
        below(&self.root, &run).map(Some)
    }
}

/// A path that does not leave its root.
fn below(root: &Path, path: &str) -> io::Result<PathBuf> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if plain {
        Ok(root.join(path))
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path:?} is no path below a run"),
        ))
    }
}

#[async_trait]
impl RunStore for LocalRuns {
    async fn read(
        &self,
        job: &Job,
        path: &str,
        offset: u64,
        max: usize,
    ) -> io::Result<Option<Bytes>> {
        let Some(directory) = self.directory(job)? else {
            return Ok(None);
        };
        let mut file = match tokio::fs::File::open(below(&directory, path)?).await {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why),
        };
        file.seek(SeekFrom::Start(offset)).await?;
        let mut data = Vec::new();
        file.take(max as u64).read_to_end(&mut data).await?;
        Ok(Some(data.into()))
    }

    async fn list(&self, job: &Job) -> io::Result<Vec<Artifact>> {
        match self.directory(job)? {
            Some(directory) => tokio::task::spawn_blocking(move || walk(&directory)).await?,
            None => Ok(Vec::new()),
        }
    }
}

fn walk(root: &Path) -> io::Result<Vec<Artifact>> {
    let mut found = Vec::new();
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = open.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            Err(why) => return Err(why),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && depth < MAX_DEPTH {
                open.push((entry.path(), depth + 1));
            } else if kind.is_file() && found.len() < MAX_FILES {
                let path = entry.path();
                if let Ok(name) = path.strip_prefix(root) {
                    found.push(Artifact {
                        path: name.display().to_string(),
                        size: entry.metadata()?.len(),
                    });
                }
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_run() {
        let root = Path::new("/r");
        assert_eq!(
            below(root, "artifacts/a.xml").unwrap(),
            Path::new("/r/artifacts/a.xml")
        );
        for bad in ["../x", "/etc/passwd", "a/../../b"] {
            assert!(below(root, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_files_of_a_run_are_listed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("artifacts/deep")).unwrap();
        std::fs::write(root.path().join("artifacts/deep/junit.xml"), "<x/>").unwrap();
        std::fs::write(root.path().join("build-log.txt"), "").unwrap();
        let paths: Vec<String> = walk(root.path())
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(paths, ["artifacts/deep/junit.xml", "build-log.txt"]);
        assert_eq!(walk(&root.path().join("none")).unwrap(), []);
    }
}
