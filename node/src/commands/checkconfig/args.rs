//! checkconfig's flags, as Prow names them (CFG-111, CFG-118).

use clap::{Arg, Args, ValueEnum};

use crate::commands::{
    files::FileArgs,
    github::{GitHubArgs, usage},
};
use crate::go_flags::with_values;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ReportFormat {
    /// Each finding with its line of the file.
    #[default]
    Text,
    /// One JSON document; the README describes it.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Workflow commands, which GitHub Actions turns into annotations.
    Github,
}

/// How findings are called, shown and counted.
#[derive(Debug, Clone, Args)]
pub struct CheckconfigArgs {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub warnings: WarningArgs,
    #[command(flatten)]
    pub github: GitHubArgs,
    #[command(flatten)]
    pub storage: StorageArgs,
    /// The form of the report.
    #[arg(short, long, value_enum, default_value_t, help_heading = "Report")]
    pub output: ReportFormat,
    /// Show at most this many findings, errors first; 0 shows all. The default is 100 for people, 25000 for programs.
    #[arg(long, value_name = "N", help_heading = "Report")]
    pub max_findings: Option<usize>,
}

/// What is looked for.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is looked for")]
pub struct WarningArgs {
    /// Look for this warning; may be given several times. Without it, for the default ones; see --help for all.
    #[arg(long, value_name = "NAME")]
    pub warnings: Vec<String>,
    /// Do not look for this warning; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub exclude_warning: Vec<String>,
    /// Look for the default warnings, too, when others are named.
    #[arg(long)]
    pub include_default_warnings: bool,
    /// With the default warnings, look for all others as well; some ask GitHub.
    #[arg(long)]
    pub expensive_checks: bool,
    /// Fail when there are warnings.
    #[arg(long)]
    pub strict: bool,
    /// An annotation that every job must have; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub required_job_annotations: Vec<String>,
    /// Refuse two job files of one name in different directories, as Prow does.
    #[arg(long)]
    pub forbid_duplicate_basenames: bool,
    /// Also check the jobs that stand in this repository itself: org/repo.
    #[arg(
        long,
        value_name = "REPO",
        default_value = "",
        hide_default_value = true
    )]
    pub prow_yaml_repo_name: String,
    /// A file in the directory that holds them; without it, the working directory. Needs --prow-yaml-repo-name.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub prow_yaml_path: String,
}

/// How to read plank.build_cluster_status_file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage, for the status of build clusters")]
pub struct StorageArgs {
    /// Credentials for GCS. Taken as Prow takes it; only local status files are read yet.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub gcs_credentials_file: String,
    /// Credentials for S3. Taken as Prow takes it; only local status files are read yet.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub s3_credentials_file: String,
}

/// The flags as Prow's checkconfig has them, its own limits on asking GitHub included: for [`clap::Command::mut_args`].
pub(crate) fn as_prows(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "github_hourly_tokens" => argument.default_value("3000"),
        "github_allowed_burst" => argument.default_value("100"),
        _ => with_values(argument),
    }
}

impl CheckconfigArgs {
    /// Refuses what Prow refuses before it looks at any file.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.files.config_path.is_empty() {
            return Err(usage(
                "--config-path is mandatory: it names Prow's config.yaml",
            ));
        }
        if !self.warnings.prow_yaml_path.is_empty() && self.warnings.prow_yaml_repo_name.is_empty()
        {
            return Err(usage(
                "--prow-yaml-path requires --prow-yaml-repo-name to be set: it says whose jobs these are",
            ));
        }
        self.github.check()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<CheckconfigArgs, String> {
        let words = std::iter::once("trireme checkconfig").flat_map(|verb| verb.split(' '));
        match Cli::try_parse_from(words.chain(line.split_whitespace())) {
            Ok(Cli {
                command: Command::Checkconfig(args),
            }) => args.check().map(|()| *args).map_err(|why| why.to_string()),
            Ok(_) => unreachable!("the verb is checkconfig"),
            Err(why) => Err(why.to_string()),
        }
    }

    #[test]
    fn cfg_111_flags_as_scripts_have_them() {
        let args = parse(
            "--config-path=c --strict=false --strict --warnings=a --warnings b --exclude-warning=c --expensive-checks=1 \
             --include-default-warnings=F --required-job-annotations x --required-job-annotations=y --prow-yaml-repo-name=o/r",
        );
        let warnings = args.unwrap().warnings;
        assert!(warnings.strict && warnings.expensive_checks && !warnings.include_default_warnings);
        assert_eq!(warnings.warnings, ["a", "b"]);
        assert_eq!(warnings.exclude_warning, ["c"]);
        assert_eq!(warnings.required_job_annotations, ["x", "y"]);
    }

    #[test]
    fn cfg_111_what_is_refused_before_any_file_is_read() {
        insta::assert_snapshot!(parse("").unwrap_err(), @"--config-path is mandatory: it names Prow's config.yaml");
        insta::assert_snapshot!(parse("--config-path=c --prow-yaml-path=x/.prow.yaml").unwrap_err(), @"--prow-yaml-path requires --prow-yaml-repo-name to be set: it says whose jobs these are");
        assert!(
            parse("--config-path=c --strict=maybe")
                .unwrap_err()
                .contains("true or false")
        );
    }

    /// The flags of Prow's GitHub and storage groups, with its defaults and its checks.
    #[test]
    fn cfg_118_github_and_storage_flags() {
        let args = parse(
            "--config-path=c --github-endpoint=http://ghproxy --github-app-id=7 --github-app-private-key-path=k \
             --gcs-credentials-file=g --s3-credentials-file=s",
        );
        let args = args.unwrap();
        let limits = (
            args.github.github_hourly_tokens,
            args.github.github_allowed_burst,
        );
        assert_eq!(limits, (3000, 100));
        assert!(args.github.is_app());
        assert!(parse("--config-path=c --github-hourly-tokens=0").is_ok());
        let refused = |flags: &str| parse(&format!("--config-path=c {flags}")).unwrap_err();
        insta::assert_snapshot!(refused("--github-app-id=1"), @"--github-app-id and --github-app-private-key-path must be set together");
        insta::assert_snapshot!(refused("--github-hourly-tokens=10"), @"--github-allowed-burst must be above zero and not larger than --github-hourly-tokens");
    }
}
