//! Prow's flags for GitHub on the command line of `serve`: each overrides a key of `[github]` (GHC-001 to GHC-003).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::GitHubSettings;
use crate::go_flags::duration;

/// Each overrides the key of [github] that has its name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "GitHub")]
pub struct GitHubFlags {
    /// Where its API is; may be given several times: an address is asked when those before it are not there.
    #[arg(long, value_name = "URL")]
    pub github_endpoint: Vec<String>,
    /// Where its GraphQL API is; beside the first endpoint unless given.
    #[arg(long, value_name = "URL")]
    pub github_graphql_endpoint: Option<String>,
    /// As people know it; repositories are cloned from there.
    #[arg(long, value_name = "HOST")]
    pub github_host: Option<String>,
    /// A file with a token.
    #[arg(long, value_name = "FILE")]
    pub github_token_path: Option<PathBuf>,
    /// The id of a GitHub app.
    #[arg(long, value_name = "ID")]
    pub github_app_id: Option<u64>,
    /// A file with the app's private key (PEM).
    #[arg(long, value_name = "FILE")]
    pub github_app_private_key_path: Option<PathBuf>,
    /// Requests per hour, at most; 0 = no limit.
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub github_hourly_tokens: Option<u32>,
    /// Of these at once, at most.
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub github_allowed_burst: Option<u32>,
    /// The same for one org of an app: ORG:PER_HOUR:BURST; may be given several times.
    #[arg(long, value_name = "LIMIT", hide_short_help = true)]
    pub github_throttle_org: Vec<String>,
    /// How long one attempt at reading may take.
    #[arg(long = "github-client.request-timeout", value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    pub request_timeout: Option<Duration>,
    /// Attempts, the first included.
    #[arg(
        long = "github-client.max-retries",
        value_name = "N",
        hide_short_help = true
    )]
    pub max_retries: Option<u32>,
    /// Further attempts where GitHub does not find what it just told us of.
    #[arg(
        long = "github-client.max-404-retries",
        value_name = "N",
        hide_short_help = true
    )]
    pub max_404_retries: Option<u32>,
    /// The wait before the second attempt.
    #[arg(long = "github-client.initial-delay", value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    pub initial_delay: Option<Duration>,
    /// The longest wait for a rate limit; one that ends later is an error.
    #[arg(long = "github-client.backoff-timeout", value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    pub backoff_timeout: Option<Duration>,
    /// Only webhooks of this org, and of others named so, are handled; may be given several times.
    #[arg(long, value_name = "ORG", hide_short_help = true)]
    pub github_enabled_org: Vec<String>,
    /// The same for a repository.
    #[arg(long, value_name = "ORG/REPO", hide_short_help = true)]
    pub github_enabled_repo: Vec<String>,
    /// Webhooks of this org are not handled; may be given several times.
    #[arg(long, value_name = "ORG", hide_short_help = true)]
    pub github_disabled_org: Vec<String>,
    /// The same for a repository.
    #[arg(long, value_name = "ORG/REPO", hide_short_help = true)]
    pub github_disabled_repo: Vec<String>,
}

impl GitHubFlags {
    /// Puts the flags that were given in place of the keys; makes a `[github]` if there is none.
    pub fn put(self, settings: &mut Option<GitHubSettings>) {
        let Self {
            github_endpoint,
            github_graphql_endpoint,
            github_host,
            github_token_path,
            github_app_id,
            github_app_private_key_path,
            github_hourly_tokens,
            github_allowed_burst,
            github_throttle_org,
            request_timeout,
            max_retries,
            max_404_retries,
            initial_delay,
            backoff_timeout,
            github_enabled_org,
            github_enabled_repo,
            github_disabled_org,
            github_disabled_repo,
        } = self;
        let mut github = settings.clone().unwrap_or_default();
        let mut is_given = false;
        let mut given = || is_given = true;
        // Go's duration counts nanoseconds, a key whole seconds: less than one is one.
        let seconds = |duration: Duration| duration.as_secs_f64().ceil() as u64;
        if let Some((first, others)) = github_endpoint.split_first() {
            given();
            first.clone_into(&mut github.endpoint);
            github.fallback_endpoints = others.to_vec();
        }
        if let Some(url) = github_graphql_endpoint {
            given();
            github.graphql_endpoint = Some(url);
        }
        if let Some(host) = github_host {
            given();
            github.url = format!("https://{host}");
            github.host = Some(host);
        }
        // Who we are is one decision: a token in place of an app, or the other way round.
        if let Some(path) = github_token_path {
            given();
            github.token_file = Some(path);
            github.app_id = None;
            github.app_private_key_file = None;
        }
        if github_app_id.is_some() || github_app_private_key_path.is_some() {
            given();
            if github_app_id.is_some() && github_app_private_key_path.is_some() {
                github.token_file = None;
            }
            github.app_id = github_app_id.or(github.app_id);
            github.app_private_key_file =
                github_app_private_key_path.or(github.app_private_key_file.take());
        }
        if let Some(tokens) = github_hourly_tokens {
            given();
            github.hourly_tokens = tokens;
        }
        if let Some(burst) = github_allowed_burst {
            given();
            github.allowed_burst = burst;
        }
        if !github_throttle_org.is_empty() {
            given();
            github.throttle_org = github_throttle_org;
        }
        for (names, key) in [
            (github_enabled_org, &mut github.enabled_orgs),
            (github_enabled_repo, &mut github.enabled_repos),
            (github_disabled_org, &mut github.disabled_orgs),
            (github_disabled_repo, &mut github.disabled_repos),
        ] {
            if !names.is_empty() {
                given();
                *key = names;
            }
        }
        if let Some(timeout) = request_timeout {
            given();
            github.request_timeout_seconds = Some(seconds(timeout));
        }
        if let Some(tries) = max_retries {
            given();
            github.max_retries = Some(tries);
        }
        if let Some(tries) = max_404_retries {
            given();
            github.max_404_retries = Some(tries);
        }
        if let Some(delay) = initial_delay {
            given();
            let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            github.initial_delay_ms = Some(ms.max(1));
        }
        if let Some(timeout) = backoff_timeout {
            given();
            github.backoff_timeout_seconds = Some(seconds(timeout));
        }
        if is_given {
            *settings = Some(github);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        github: GitHubFlags,
    }

    fn put(line: &str, settings: Option<GitHubSettings>) -> Option<GitHubSettings> {
        let words = std::iter::once("program").chain(line.split_whitespace());
        let mut settings = settings;
        Program::try_parse_from(words)
            .unwrap()
            .github
            .put(&mut settings);
        settings
    }

    #[test]
    fn ghc_001_flags_override_keys() {
        assert!(put("", None).is_none());
        let file = GitHubSettings {
            token_file: Some("t".into()),
            max_retries: Some(3),
            ..GitHubSettings::default()
        };
        let same = put("", Some(file.clone())).unwrap();
        assert_eq!(
            (same.token_file, same.max_retries),
            (Some("t".into()), Some(3))
        );
        let all = put(
            "--github-endpoint=http://ghproxy --github-endpoint=https://api.github.com --github-host=ghe.example \
             --github-graphql-endpoint=http://ghproxy/graphql --github-app-id=7 --github-app-private-key-path=k \
             --github-hourly-tokens=10 --github-allowed-burst=5 --github-throttle-org=o:100:10 \
             --github-client.request-timeout=90s --github-client.max-404-retries=0 --github-client.backoff-timeout=1m \
             --github-client.initial-delay=250ms",
            Some(file),
        )
        .unwrap();
        assert_eq!(all.endpoint, "http://ghproxy");
        assert_eq!(all.fallback_endpoints, ["https://api.github.com"]);
        assert_eq!(
            (all.url.as_str(), all.host.as_deref()),
            ("https://ghe.example", Some("ghe.example"))
        );
        assert_eq!((all.token_file.as_ref(), all.app_id), (None, Some(7)));
        assert_eq!((all.hourly_tokens, all.allowed_burst), (10, 5));
        assert_eq!((all.max_retries, all.max_404_retries), (Some(3), Some(0)));
        assert_eq!(all.request_timeout_seconds, Some(90));
        assert_eq!(
            (all.initial_delay_ms, all.backoff_timeout_seconds),
            (Some(250), Some(60))
        );
        all.check().unwrap();
    }

    /// HOOK-013
    #[test]
    fn hook_013_flags_say_what_is_handled() {
        let github = put(
            "--github-token-path=t --github-enabled-org=a --github-enabled-org=b --github-disabled-repo=a/x",
            None,
        );
        let enablement = github.unwrap().enablement().unwrap();
        let allowed = [("a", "x"), ("a", "y"), ("b", "x"), ("c", "x")];
        let allowed = allowed.map(|(org, repo)| enablement.allows(org, repo));
        assert_eq!(allowed, [false, true, true, false]);
        let both = put(
            "--github-token-path=t --github-enabled-org=a --github-disabled-org=a",
            None,
        );
        assert!(both.unwrap().check().is_err());
    }

    /// GHC-001: half an app beside a token is refused as in a file.
    #[test]
    fn ghc_001_half_an_app_is_no_identity() {
        let half = put("--github-token-path=t --github-app-id=1", None).unwrap();
        assert!(half.check().is_err());
        let token = put("--github-token-path=t", None).unwrap();
        token.check().unwrap();
    }
}
