//! Prow's files, from the flags that Prow itself has.

use clap::Args;
use trireme_config::{Diagnostic, FileSet, Layout, files};

/// The loader's flags of all of Prow's components. An empty value is as good as none.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub struct FileArgs {
    /// Prow's config.yaml; mandatory.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub config_path: String,
    /// A job file or the root of the job tree.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    pub job_config_path: String,
    /// A directory with supplements of config.yaml; may be given several times.
    #[arg(long = "supplemental-prow-config-dir", value_name = "DIR")]
    pub supplemental_prow_config_dirs: Vec<String>,
    /// Which files in there count: those whose path ends so.
    #[arg(
        long,
        alias = "supplemental-prow-configs-filename",
        value_name = "SUFFIX",
        default_value = files::DEFAULT_SUPPLEMENTAL_SUFFIX
    )]
    pub supplemental_prow_configs_filename_suffix: String,
    /// Prow's plugins.yaml.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub plugin_config: String,
    /// A directory with supplements of plugins.yaml; may be given several times.
    #[arg(long = "supplemental-plugin-config-dir", value_name = "DIR")]
    pub supplemental_plugin_config_dirs: Vec<String>,
    /// Which files in there count: those whose path ends so.
    #[arg(
        long,
        value_name = "SUFFIX",
        default_value = files::DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX
    )]
    pub supplemental_plugin_configs_filename_suffix: String,
    /// Taken as Prow takes it and not needed here: jobs of repositories are read from git objects.
    #[arg(long, value_name = "N", default_value_t = 200, hide_short_help = true)]
    pub in_repo_config_cache_size: u32,
    /// Taken as Prow takes it and not needed here: there are no clones.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub cache_dir_base: String,
    /// Taken as Prow takes it and not needed here: every node reads jobs of repositories itself.
    #[arg(
        long,
        value_name = "URL",
        default_value = "",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub moonraker_address: String,
}

impl FileArgs {
    /// Which of the files is what.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let given = |path: &String| (!path.is_empty()).then(|| path.clone());
        Layout {
            config: self.config_path.clone(),
            jobs: given(&self.job_config_path),
            supplemental_dirs: self.supplemental_prow_config_dirs.clone(),
            supplemental_suffix: self.supplemental_prow_configs_filename_suffix.clone(),
            plugins: given(&self.plugin_config),
            plugin_supplemental_dirs: self.supplemental_plugin_config_dirs.clone(),
            plugin_supplemental_suffix: self.supplemental_plugin_configs_filename_suffix.clone(),
            ..Layout::default()
        }
    }
}

/// Reads all of them.
///
/// # Errors
/// What is missing or cannot be read.
pub fn read(args: &FileArgs) -> Result<FileSet, Vec<Diagnostic>> {
    files::read(args.layout())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    #[command(args_override_self = true)]
    struct Program {
        #[command(flatten)]
        files: FileArgs,
    }

    fn layout(line: &str) -> Layout {
        Program::parse_from(line.split(' ')).files.layout()
    }

    /// CFG-056: the loader's flags, each as Prow names it.
    #[test]
    fn cfg_056_the_loaders_flags_say_which_file_is_what() {
        let usual = layout(
            "p --config-path=c.yaml --in-repo-config-cache-size=7 --cache-dir-base=/x --moonraker-address=http://m",
        );
        assert_eq!(
            usual,
            Layout {
                config: "c.yaml".into(),
                ..Layout::default()
            }
        );
        let all = layout(
            "p --config-path a --config-path c --job-config-path= --plugin-config p --supplemental-prow-config-dir x \
             --supplemental-prow-config-dir=y --supplemental-prow-configs-filename _c.yaml \
             --supplemental-plugin-config-dir z --supplemental-plugin-configs-filename-suffix=_p.yaml"
                .replace("  ", " ")
                .trim(),
        );
        assert_eq!(
            all,
            Layout {
                config: "c".into(),
                jobs: None,
                supplemental_dirs: vec!["x".into(), "y".into()],
                supplemental_suffix: "_c.yaml".into(),
                plugins: Some("p".into()),
                plugin_supplemental_dirs: vec!["z".into()],
                plugin_supplemental_suffix: "_p.yaml".into(),
                ..Layout::default()
            }
        );
    }

    #[test]
    fn cfg_001_the_main_file_is_mandatory() {
        let wrong = files::read(layout("p")).unwrap_err();
        insta::assert_snapshot!(wrong[0], @"--config-path is mandatory");
    }
}
