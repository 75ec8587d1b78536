//! checkconfig's flags, as Prow names them (CFG-111, CFG-118).

use clap::{Args, ValueEnum};

use crate::commands::files::FileArgs;
use crate::exit::{USAGE, coded};
use crate::go_flags::{duration, switch};

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
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub include_default_warnings: bool,
    /// With the default warnings, look for all others as well; some ask GitHub.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub expensive_checks: bool,
    /// Fail when there are warnings.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub strict: bool,
    /// An annotation that every job must have; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub required_job_annotations: Vec<String>,
    /// Refuse two job files of one name in different directories, as Prow does.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_parser = switch, action = clap::ArgAction::Set, value_name = "BOOL")]
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

/// Who we are to GitHub, and how patient. Only the checks that ask GitHub need it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "GitHub, for the checks that ask it")]
pub struct GitHubArgs {
    /// Taken as Prow takes it; --github-endpoint says where GitHub is.
    #[arg(
        long,
        value_name = "HOST",
        default_value = "github.com",
        hide_short_help = true
    )]
    pub github_host: String,
    /// Where its API is; of several the first that answers.
    #[arg(long, value_name = "URL")]
    pub github_endpoint: Vec<String>,
    /// Taken as Prow takes it and not needed by these checks.
    #[arg(
        long,
        value_name = "URL",
        default_value = "https://api.github.com/graphql",
        hide_short_help = true
    )]
    pub github_graphql_endpoint: String,
    /// A file with a token.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub github_token_path: String,
    /// The id of a GitHub app; needs its key, and no token.
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub github_app_id: String,
    /// A file with the app's private key.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub github_app_private_key_path: String,
    /// Requests per hour, at most; 0 = no limit.
    #[arg(long, value_name = "N", default_value_t = 3000, hide_short_help = true)]
    pub github_hourly_tokens: u32,
    /// Of these at once, at most.
    #[arg(long, value_name = "N", default_value_t = 100, hide_short_help = true)]
    pub github_allowed_burst: u32,
    /// The same for one org of an app: ORG:PER_HOUR:BURST.
    #[arg(long, value_name = "LIMIT", hide_short_help = true)]
    pub github_throttle_org: Vec<String>,
    /// Taken as Prow takes it; a request has half a minute.
    #[arg(long = "github-client.request-timeout", value_name = "DURATION", default_value = "2m", value_parser = duration, hide_short_help = true)]
    pub request_timeout: std::time::Duration,
    /// Tries after the first one.
    #[arg(
        long = "github-client.max-retries",
        value_name = "N",
        default_value_t = 8,
        hide_short_help = true
    )]
    pub max_retries: u32,
    /// The same for what GitHub does not find; these checks never ask for such a thing twice.
    #[arg(
        long = "github-client.max-404-retries",
        value_name = "N",
        default_value_t = 2,
        hide_short_help = true
    )]
    pub max_404_retries: u32,
    /// The longest wait between tries.
    #[arg(long = "github-client.backoff-timeout", value_name = "DURATION", default_value = "2m", value_parser = duration, hide_short_help = true)]
    pub backoff_timeout: std::time::Duration,
    /// The first wait between tries.
    #[arg(long = "github-client.initial-delay", value_name = "DURATION", default_value = "2s", value_parser = duration, hide_short_help = true)]
    pub initial_delay: std::time::Duration,
    /// Taken as Prow takes it; nothing is signed here.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub git_signing_key_path: String,
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

impl GitHubArgs {
    pub(super) fn is_app(&self) -> bool {
        !self.github_app_id.is_empty() && !self.github_app_private_key_path.is_empty()
    }

    fn check(&self) -> anyhow::Result<()> {
        let half_an_app =
            self.github_app_id.is_empty() != self.github_app_private_key_path.is_empty();
        let any_of_app =
            !self.github_app_id.is_empty() || !self.github_app_private_key_path.is_empty();
        if !self.github_token_path.is_empty() && any_of_app {
            return Err(usage(
                "--github-token-path is mutually exclusive with --github-app-id and --github-app-private-key-path",
            ));
        }
        if half_an_app {
            return Err(usage(
                "--github-app-id and --github-app-private-key-path must be set together",
            ));
        }
        let (hourly, burst) = (self.github_hourly_tokens, self.github_allowed_burst);
        if hourly > 0 && (burst == 0 || burst > hourly) {
            return Err(usage(
                "--github-allowed-burst must be above zero and not larger than --github-hourly-tokens",
            ));
        }
        if !self.github_throttle_org.is_empty() && !any_of_app {
            return Err(usage(
                "--github-throttle-org was passed, but client doesn't use apps auth",
            ));
        }
        for limit in &self.github_throttle_org {
            throttle(limit)
                .map_err(|why| usage(format!("--github-throttle-org={limit}: {why}")))?;
        }
        Ok(())
    }
}

/// `org:per_hour:burst`.
pub(super) fn throttle(limit: &str) -> Result<(&str, u32, u32), String> {
    let parts: Vec<&str> = limit.split(':').collect();
    let [org, hourly, burst] = parts[..] else {
        return Err("it is not in org:hourlyTokens:burst format".to_owned());
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0);
    match (number(hourly), number(burst)) {
        (Some(hourly), Some(burst)) if burst <= hourly => Ok((org, hourly, burst)),
        (Some(_), Some(_)) => Err("burst must not be greater than hourlyTokens".to_owned()),
        _ => Err("hourlyTokens and burst must be numbers > 0".to_owned()),
    }
}

fn usage(message: impl Into<String>) -> anyhow::Error {
    coded(USAGE, message)
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
            "--config-path=c --github-endpoint=http://ghproxy --github-endpoint=https://api.github.com --github-host=github.com \
             --github-graphql-endpoint=http://ghproxy/graphql --github-app-id=7 --github-app-private-key-path=k \
             --github-throttle-org=o:100:10 --github-client.request-timeout=1m --github-client.max-retries=2 \
             --github-client.max-404-retries=0 --github-client.backoff-timeout=10s --github-client.initial-delay=1s \
             --git-signing-key-path=s --gcs-credentials-file=g --s3-credentials-file=s",
        )
        .unwrap();
        assert_eq!(
            (
                args.github.github_hourly_tokens,
                args.github.github_allowed_burst
            ),
            (3000, 100)
        );
        assert_eq!(args.github.github_endpoint.len(), 2);
        assert!(args.github.is_app());
        assert!(parse("--config-path=c --github-hourly-tokens=0").is_ok());
        let refused = |flags: &str| parse(&format!("--config-path=c {flags}")).unwrap_err();
        insta::assert_snapshot!(refused("--github-token-path=t --github-app-id=1"), @"--github-token-path is mutually exclusive with --github-app-id and --github-app-private-key-path");
        insta::assert_snapshot!(refused("--github-app-id=1"), @"--github-app-id and --github-app-private-key-path must be set together");
        insta::assert_snapshot!(refused("--github-hourly-tokens=10"), @"--github-allowed-burst must be above zero and not larger than --github-hourly-tokens");
        insta::assert_snapshot!(refused("--github-throttle-org=o:1:1"), @"--github-throttle-org was passed, but client doesn't use apps auth");
        insta::assert_snapshot!(refused("--github-app-id=1 --github-app-private-key-path=k --github-throttle-org=o:1:5"), @"--github-throttle-org=o:1:5: burst must not be greater than hourlyTokens");
    }
}
