//! `[config.follow]`: Prow's files, where the cluster takes them from a directory, or from a repository on the forge, by
//! itself.

use std::path::{Component, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use trireme_api::configs::MAX_RETIRED_PERCENT;
use trireme_config::{
    Layout,
    files::{DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX, DEFAULT_SUPPLEMENTAL_SUFFIX},
};
use trireme_forge::RepoId;

/// Files that the leader follows. The keys are Prow's flags.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FollowSettings {
    /// `org/repo`: the files are those of this repository, by their paths in it.
    #[serde(default)]
    pub repo: Option<String>,
    /// Of the repository; its default one when absent.
    #[serde(default)]
    pub branch: Option<String>,
    pub config_path: PathBuf,
    /// A job file or the root of the job tree.
    #[serde(default)]
    pub job_config_path: Option<PathBuf>,
    #[serde(default)]
    pub plugin_config: Option<PathBuf>,
    #[serde(default)]
    pub supplemental_prow_config_dir: Vec<PathBuf>,
    #[serde(default = "default_supplemental_suffix")]
    pub supplemental_prow_configs_filename_suffix: String,
    #[serde(default)]
    pub supplemental_plugin_config_dir: Vec<PathBuf>,
    #[serde(default = "default_plugin_supplemental_suffix")]
    pub supplemental_plugin_configs_filename_suffix: String,
    /// As `config apply --max-retired`.
    #[serde(default = "default_max_retired_percent")]
    pub max_retired_percent: u32,
}

impl FollowSettings {
    /// The same as the loader wants it.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let text = |path: &PathBuf| path.display().to_string();
        Layout {
            config: text(&self.config_path),
            jobs: self.job_config_path.as_ref().map(text),
            supplemental_dirs: self.supplemental_prow_config_dir.iter().map(text).collect(),
            supplemental_suffix: self.supplemental_prow_configs_filename_suffix.clone(),
            plugins: self.plugin_config.as_ref().map(text),
            plugin_supplemental_dirs: self
                .supplemental_plugin_config_dir
                .iter()
                .map(text)
                .collect(),
            plugin_supplemental_suffix: self.supplemental_plugin_configs_filename_suffix.clone(),
            ..Layout::default()
        }
    }

    /// What can be told without looking at any file.
    ///
    /// # Errors
    /// Naming the key.
    pub(super) fn check(&self, has_github: bool) -> anyhow::Result<()> {
        let Some(repo) = &self.repo else {
            ensure!(
                self.branch.is_none(),
                "config.follow.branch: of which repository? Set config.follow.repo, or leave it out"
            );
            return Ok(());
        };
        ensure!(
            repo.parse::<RepoId>().is_ok(),
            "config.follow.repo: {repo:?} is not in org/repo format"
        );
        ensure!(
            has_github,
            "config.follow.repo: {repo} is on a forge: set [github], too"
        );
        let single = [
            ("config_path", Some(&self.config_path)),
            ("job_config_path", self.job_config_path.as_ref()),
            ("plugin_config", self.plugin_config.as_ref()),
        ];
        let single = single
            .into_iter()
            .filter_map(|(key, path)| Some((key, path?)));
        let dirs = &self.supplemental_prow_config_dir;
        let dirs = dirs
            .iter()
            .map(|path| ("supplemental_prow_config_dir", path));
        let more = &self.supplemental_plugin_config_dir;
        let more = more
            .iter()
            .map(|path| ("supplemental_plugin_config_dir", path));
        for (key, path) in single.chain(dirs).chain(more) {
            ensure!(
                path.components()
                    .all(|part| matches!(part, Component::Normal(_))),
                "config.follow.{key}: {} is no path in a repository: with config.follow.repo, begin at its root, without a \
                 leading / and without ..",
                path.display()
            );
        }
        Ok(())
    }

    /// CFG-090: a node whose files are not there from the beginning is not started. What stands in them may be wrong: the
    /// cluster goes on with the version that it has.
    ///
    /// # Errors
    /// Naming the key.
    pub fn check_paths(&self) -> anyhow::Result<()> {
        if self.repo.is_some() {
            return Ok(());
        }
        let single = [
            ("config_path", Some(&self.config_path)),
            ("job_config_path", self.job_config_path.as_ref()),
            ("plugin_config", self.plugin_config.as_ref()),
        ];
        let of_dirs = [
            (
                "supplemental_prow_config_dir",
                &self.supplemental_prow_config_dir,
            ),
            (
                "supplemental_plugin_config_dir",
                &self.supplemental_plugin_config_dir,
            ),
        ];
        let dirs = of_dirs
            .into_iter()
            .flat_map(|(key, paths)| paths.iter().map(move |path| (key, path)));
        let single = single
            .into_iter()
            .filter_map(|(key, path)| Some((key, path?)));
        for (key, path) in single.chain(dirs) {
            std::fs::metadata(path).with_context(|| {
                format!(
                    "config.follow.{key}: {} is not there; mount it on every node, or leave config.follow out and use \
                     `trireme config apply`",
                    path.display()
                )
            })?;
        }
        ensure!(
            !self.config_path.is_dir(),
            "config.follow.config_path: {} is a directory; name the file config.yaml in it",
            self.config_path.display()
        );
        Ok(())
    }
}

fn default_max_retired_percent() -> u32 {
    MAX_RETIRED_PERCENT
}

fn default_supplemental_suffix() -> String {
    DEFAULT_SUPPLEMENTAL_SUFFIX.to_owned()
}

fn default_plugin_supplemental_suffix() -> String {
    DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX.to_owned()
}
