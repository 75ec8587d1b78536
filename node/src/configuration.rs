//! Configuration between its three forms: files on disk, blobs in the state, and what controllers plan with.

use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_api::{Checked, ConfigCheck, blob};
use trireme_config::{Config, Diagnostic, FileSet, Layout, LoadOptions, Loaded, plugins::Registry};
use trireme_office::{ConfigFeed, RunningConfig};
use trireme_proto::{
    api::{self, ConfigUpload},
    state::ConfigVersion,
};
use trireme_raft::Store;
use trireme_state::{Change, State};

/// The largest number of findings a check answers with.
const MAX_DIAGNOSTICS: usize = 1000;
/// Between two tries to parse a version that this node could not.
const PARSE_AGAIN: Duration = Duration::from_secs(30);

const MAIN: &str = "main";
const PLUGINS: &str = "plugins";
const JOB: &str = "job";
const SUPPLEMENTAL: &str = "supplemental";

/// The part a file has in its set.
#[must_use]
pub fn role(layout: &Layout, path: &str) -> &'static str {
    if path == layout.config {
        MAIN
    } else if layout.plugins.as_deref() == Some(path) {
        PLUGINS
    } else if layout
        .jobs
        .as_deref()
        .is_some_and(|root| Path::new(path).starts_with(root))
    {
        JOB
    } else {
        SUPPLEMENTAL
    }
}

/// The directory that all of the paths share; a single file stands for itself.
fn root_of<'a>(paths: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut paths = paths.peekable();
    let first = paths.next()?;
    if paths.peek().is_none() {
        return Some(first.to_owned());
    }
    let mut shared: Vec<Component<'_>> = Path::new(first).parent()?.components().collect();
    for path in paths {
        let same = shared
            .iter()
            .zip(Path::new(path).components())
            .take_while(|(a, b)| **a == *b)
            .count();
        shared.truncate(same);
    }
    Some(shared.iter().collect::<PathBuf>().display().to_string())
}

/// Files with their parts, as the loader wants them.
#[must_use]
pub fn file_set<'a>(files: impl Iterator<Item = (&'a str, &'a str, &'a [u8])> + Clone) -> FileSet {
    let with = |wanted: &'static str| {
        files
            .clone()
            .filter(move |(role, _, _)| *role == wanted)
            .map(|(_, path, _)| path)
    };
    let mut set = FileSet::new(Layout {
        config: with(MAIN).next().unwrap_or_default().to_owned(),
        plugins: with(PLUGINS).next().map(str::to_owned),
        jobs: root_of(with(JOB)),
        supplemental_dirs: root_of(with(SUPPLEMENTAL)).into_iter().collect(),
        plugin_supplemental_dirs: root_of(with(SUPPLEMENTAL)).into_iter().collect(),
        ..Layout::default()
    });
    for (_, path, content) in files {
        set.insert(path, content);
    }
    set
}

/// Loads with the sections of all plugins that this binary has.
#[must_use]
pub fn load(files: &FileSet, registry: &Registry) -> Loaded {
    Config::load(
        files,
        LoadOptions {
            now: Some(jiff::Timestamp::now()),
            plugins: Some(registry),
            ..LoadOptions::default()
        },
    )
}

fn finding(found: &Diagnostic) -> api::Diagnostic {
    api::Diagnostic {
        severity: match found.severity {
            trireme_config::Severity::Error => "error".to_owned(),
            trireme_config::Severity::Warning => "warning".to_owned(),
        },
        file: found.file.clone(),
        line: found.line,
        column: found.column,
        field: found.field.clone(),
        message: found.message.clone(),
    }
}

/// Checks uploads as controllers will read them.
pub struct Check {
    pub registry: Arc<Registry>,
}

#[async_trait]
impl ConfigCheck for Check {
    async fn check(&self, files: Vec<ConfigUpload>) -> Checked {
        let registry = Arc::clone(&self.registry);
        // A large configuration takes seconds; other requests go on meanwhile.
        let checked = tokio::task::spawn_blocking(move || {
            let set = file_set(
                files
                    .iter()
                    .map(|file| (file.role.as_str(), file.path.as_str(), &file.content[..])),
            );
            let loaded = load(&set, &registry);
            let (presubmits, postsubmits, periodics) = loaded.config.job_counts();
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            Checked {
                accepted: loaded.errors.is_empty(),
                presubmits: count(presubmits),
                postsubmits: count(postsubmits),
                periodics: count(periodics),
                diagnostics: loaded
                    .errors
                    .iter()
                    .chain(&loaded.warnings)
                    .take(MAX_DIAGNOSTICS)
                    .map(finding)
                    .collect(),
            }
        })
        .await;
        checked.unwrap_or_else(|why| Checked {
            accepted: false,
            diagnostics: vec![api::Diagnostic {
                severity: "error".to_owned(),
                message: format!("the check itself failed: {why}"),
                ..api::Diagnostic::default()
            }],
            ..Checked::default()
        })
    }
}

fn parse(
    state: &State,
    version: &ConfigVersion,
    registry: &Registry,
) -> anyhow::Result<RunningConfig> {
    let mut files = Vec::with_capacity(version.files.len());
    for file in &version.files {
        let name = file
            .blob
            .as_ref()
            .with_context(|| format!("{}: the version names no content", file.path))?;
        files.push((
            file.role.as_str(),
            file.path.as_str(),
            blob::read(state, name)?,
        ));
    }
    let set = file_set(
        files
            .iter()
            .map(|(role, path, content)| (*role, *path, &content[..])),
    );
    let loaded = load(&set, registry);
    let (config, plugins) = loaded.accepted().map_err(|errors| {
        anyhow!(
            "{} errors, the first: {}",
            errors.len(),
            errors.first().map(ToString::to_string).unwrap_or_default()
        )
    })?;
    Ok(RunningConfig {
        version: version.number,
        config,
        plugins,
    })
}

/// Keeps what controllers plan with at the version that the state names.
pub struct Feeder {
    store: Store,
    registry: Arc<Registry>,
    sender: watch::Sender<Option<Arc<RunningConfig>>>,
}

impl Feeder {
    #[must_use]
    pub fn new(store: Store, registry: Arc<Registry>) -> (Self, ConfigFeed) {
        let (sender, feed) = watch::channel(None);
        let feeder = Self {
            store,
            registry,
            sender,
        };
        (feeder, feed)
    }

    /// Runs until `stop`. A version that does not parse here is logged and tried again; the former one stays in force.
    pub async fn run(self, stop: CancellationToken) {
        let mut serving = 0;
        let mut watch = self.store.watch(None);
        loop {
            let view = self.store.view();
            let newest = view.config().cloned();
            let wanted = newest.as_ref().map_or(0, |version| version.number);
            let mut again = None;
            if let Some(version) = newest
                && wanted != serving
            {
                let registry = Arc::clone(&self.registry);
                let parsed =
                    tokio::task::spawn_blocking(move || parse(&view, &version, &registry)).await;
                match parsed
                    .map_err(anyhow::Error::from)
                    .and_then(|parsed| parsed)
                {
                    Ok(running) => {
                        tracing::info!(version = wanted, "configuration in force");
                        serving = wanted;
                        self.sender.send_replace(Some(Arc::new(running)));
                    }
                    Err(why) => {
                        tracing::error!(
                            version = wanted,
                            why = format!("{why:#}"),
                            "this node cannot parse the configuration; version {serving} stays in force here"
                        );
                        again = Some(tokio::time::Instant::now() + PARSE_AGAIN);
                    }
                }
            } else {
                // Held on, it would keep alive what is replaced in the state meanwhile.
                drop(view);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                new = new_config(&mut watch) => match new {
                    Ok(()) => {}
                    Err(trireme_raft::WatchError::Closed) => return,
                    Err(_) => watch = self.store.watch(None),
                },
                () = async { tokio::time::sleep_until(again.unwrap_or_else(tokio::time::Instant::now)).await }, if again.is_some() => {}
            }
        }
    }
}

/// Waits until a configuration was put.
async fn new_config(watch: &mut trireme_raft::Watch) -> Result<(), trireme_raft::WatchError> {
    loop {
        let batch = watch.next().await?;
        let is_config = |change: &Change| matches!(change, Change::Config(_));
        if batch.changes.iter().any(is_config) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_the_job_tree_is_what_its_files_share() {
        let root = |paths: &[&str]| root_of(paths.iter().copied());
        assert_eq!(root(&["a/jobs/x.yaml"]).as_deref(), Some("a/jobs/x.yaml"));
        assert_eq!(
            root(&["a/jobs/o/x.yaml", "a/jobs/p/y.yaml"]).as_deref(),
            Some("a/jobs")
        );
        assert_eq!(root(&["x.yaml", "y.yaml"]).as_deref(), Some(""));
        assert_eq!(root(&[]), None);
    }

    #[test]
    fn files_have_the_part_their_path_says() {
        let layout = Layout {
            config: "c.yaml".into(),
            plugins: Some("p.yaml".into()),
            jobs: Some("jobs".into()),
            ..Layout::default()
        };
        assert_eq!(
            ["c.yaml", "p.yaml", "jobs/a.yaml", "x_prowconfig.yaml"]
                .map(|path| role(&layout, path)),
            ["main", "plugins", "job", "supplemental"]
        );
    }
}
