//! `[config.follow]`: Prow's files, where the cluster takes them from a directory by itself.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use trireme_api::configs::MAX_RETIRED_PERCENT;
use trireme_config::{
    Layout,
    files::{DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX, DEFAULT_SUPPLEMENTAL_SUFFIX},
};

/// Files that the leader follows. The keys are Prow's flags.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FollowSettings {
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

    /// CFG-090: a node whose files are not there from the beginning is not started. What stands in them may be wrong: the
    /// cluster goes on with the version that it has.
    ///
    /// # Errors
    /// Naming the key.
    pub fn check_paths(&self) -> anyhow::Result<()> {
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
