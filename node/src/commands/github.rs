//! GitHub's flags, as all of Prow's programs have them: where it is, who asks, how fast and how patiently.

mod client;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use trireme_forge::github::Rate;
use url::Url;

pub use client::Client;

use crate::exit::{USAGE, coded};
use crate::go_flags::duration;

/// Where GitHub is unless told otherwise.
const GITHUB: &str = "https://api.github.com";
const GITHUB_GRAPHQL: &str = "https://api.github.com/graphql";
const GITHUB_HOST: &str = "github.com";

/// Where GitHub is, who asks, and how patiently; an empty value is as good as none.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "GitHub")]
pub struct GitHubArgs {
    /// Where its API is; may be given several times: an address is asked when those before it do not answer.
    #[arg(long, value_name = "URL", default_value = GITHUB)]
    pub github_endpoint: Vec<String>,
    /// A file with a token. Without one, and without an app, GitHub is asked anonymously.
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
    /// A file with the app's private key (PEM).
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub github_app_private_key_path: String,
    /// Questions per hour, at most; 0 = no limit.
    #[arg(long, value_name = "N", default_value_t = 0, hide_short_help = true)]
    pub github_hourly_tokens: u32,
    /// Of these at once, at most.
    #[arg(long, value_name = "N", default_value_t = 0, hide_short_help = true)]
    pub github_allowed_burst: u32,
    /// The same for one org of an app: ORG:PER_HOUR:BURST; may be given several times.
    #[arg(long, value_name = "LIMIT", hide_short_help = true)]
    pub github_throttle_org: Vec<String>,
    /// Tries, the first one included, as far as they fit into the request timeout and the backoff timeout together.
    #[arg(
        long = "github-client.max-retries",
        value_name = "N",
        default_value_t = 8,
        hide_short_help = true
    )]
    pub max_retries: u32,
    /// Further tries where GitHub does not find yet what it has just told of.
    #[arg(
        long = "github-client.max-404-retries",
        value_name = "N",
        default_value_t = 2,
        hide_short_help = true
    )]
    pub max_404_retries: u32,
    /// The first wait between tries.
    #[arg(long = "github-client.initial-delay", value_name = "DURATION", default_value = "2s", value_parser = duration, hide_short_help = true)]
    pub initial_delay: Duration,
    /// The longest wait between tries; a rate limit that ends later is an error.
    #[arg(long = "github-client.backoff-timeout", value_name = "DURATION", default_value = "2m", value_parser = duration, hide_short_help = true)]
    pub backoff_timeout: Duration,
    /// How long a try may take.
    #[arg(long = "github-client.request-timeout", value_name = "DURATION", default_value = "2m", value_parser = duration, hide_short_help = true)]
    pub request_timeout: Duration,
    /// Where its GraphQL API is; beside the first endpoint unless given.
    #[arg(
        long,
        value_name = "URL",
        default_value = GITHUB_GRAPHQL,
        hide_short_help = true
    )]
    pub github_graphql_endpoint: String,
    /// As people know it: behind a proxy, whose links are followed through the proxy.
    #[arg(
        long,
        value_name = "HOST",
        default_value = GITHUB_HOST,
        hide_short_help = true
    )]
    pub github_host: String,
    /// Has no effect: this command signs nothing.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        hide_short_help = true
    )]
    pub git_signing_key_path: String,
}

impl GitHubArgs {
    /// Whether a GitHub app asks.
    #[must_use]
    pub fn is_app(&self) -> bool {
        !self.github_app_id.is_empty() && !self.github_app_private_key_path.is_empty()
    }

    /// Whether nobody in particular asks.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        !self.is_app() && self.github_token_path.is_empty()
    }

    /// Refuses what Prow refuses, without looking at any file or asking anything.
    ///
    /// # Errors
    /// Flags that contradict each other or make no sense.
    pub fn check(&self) -> anyhow::Result<()> {
        self.addresses()?;
        self.graphql()?;
        let (id, key) = (&self.github_app_id, &self.github_app_private_key_path);
        let any_of_app = !id.is_empty() || !key.is_empty();
        if !self.github_token_path.is_empty() && any_of_app {
            return Err(usage(
                "--github-token-path is mutually exclusive with --github-app-id and --github-app-private-key-path",
            ));
        }
        if id.is_empty() != key.is_empty() {
            return Err(usage(
                "--github-app-id and --github-app-private-key-path must be set together",
            ));
        }
        if any_of_app && id.parse::<u64>().is_err() {
            return Err(usage(format!("--github-app-id={id}: it is a number")));
        }
        self.rate()?;
        self.org_rates()?;
        Ok(())
    }

    /// `None` where it is beside the first endpoint.
    fn graphql(&self) -> anyhow::Result<Option<Url>> {
        let given = &self.github_graphql_endpoint;
        // Prow's default, whatever the endpoint is, would show an Enterprise server's token to github.com.
        if given.is_empty() || given == GITHUB_GRAPHQL {
            return Ok(None);
        }
        address("--github-graphql-endpoint", given).map(Some)
    }

    fn host(&self) -> String {
        let host = &self.github_host;
        if host.is_empty() { GITHUB_HOST } else { host }.to_owned()
    }

    fn rate(&self) -> anyhow::Result<Option<Rate>> {
        let (hourly, burst) = (self.github_hourly_tokens, self.github_allowed_burst);
        if hourly == 0 {
            return Ok(None);
        }
        let rate = Rate::new(hourly, burst).map_err(|_| {
            usage(
                "--github-allowed-burst must be above zero and not larger than --github-hourly-tokens",
            )
        })?;
        Ok(Some(rate))
    }

    fn org_rates(&self) -> anyhow::Result<BTreeMap<String, Rate>> {
        if !self.github_throttle_org.is_empty() && !self.is_app() {
            return Err(usage(
                "--github-throttle-org was passed, but client doesn't use apps auth",
            ));
        }
        let mut rates = BTreeMap::new();
        for limit in &self.github_throttle_org {
            let wrong = |why: &str| usage(format!("--github-throttle-org={limit}: {why}"));
            let (org, rate) = Rate::of_org(limit).map_err(wrong)?;
            if rates.insert(org.to_owned(), rate).is_some() {
                return Err(wrong(&format!("the org {org} was given before")));
            }
        }
        Ok(rates)
    }

    /// A client; asks nothing yet. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// What [`check`](Self::check) refuses, and files that cannot be read.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.check()?;
        Client::new(self)
    }

    /// Never empty.
    fn addresses(&self) -> anyhow::Result<Vec<Url>> {
        let given = self.github_endpoint.iter().map(String::as_str);
        given
            .map(|url| if url.is_empty() { GITHUB } else { url })
            .map(|url| address("--github-endpoint", url))
            .collect()
    }
}

fn address(flag: &str, text: &str) -> anyhow::Result<Url> {
    let wrong = |why: &str| usage(format!("invalid {flag} URI: {text:?}: {why}"));
    let url: Url = text.parse().map_err(|why| wrong(&format!("{why}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("expected http:// or https:// and a host"));
    }
    Ok(url)
}

/// A mistake on the command line.
pub(super) fn usage(message: impl Into<String>) -> anyhow::Error {
    coded(USAGE, message)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    #[command(args_override_self = true)]
    struct Program {
        #[command(flatten)]
        usual: GitHubArgs,
    }

    fn parse(line: &str) -> GitHubArgs {
        let words = std::iter::once("program").chain(line.split_whitespace());
        Program::try_parse_from(words).unwrap().usual
    }

    /// The flags of Prow's GitHub group, with its defaults.
    #[test]
    fn cfg_118_every_flag_has_prows_name_and_default() {
        let usual = parse("");
        assert_eq!(usual.github_endpoint, [GITHUB]);
        assert_eq!(
            (usual.github_hourly_tokens, usual.github_allowed_burst),
            (0, 0)
        );
        assert_eq!((usual.max_retries, usual.max_404_retries), (8, 2));
        let seconds = [
            usual.request_timeout,
            usual.backoff_timeout,
            usual.initial_delay,
        ]
        .map(|duration| duration.as_secs());
        assert_eq!(seconds, [120, 120, 2]);
        assert!(usual.is_anonymous() && usual.check().is_ok());
        let all = parse(
            "--github-endpoint=http://ghproxy --github-endpoint= --github-host=github.com \
             --github-graphql-endpoint=http://ghproxy/graphql --github-app-id=7 --github-app-private-key-path=k \
             --github-throttle-org=o:100:10 --github-throttle-org=p:100:10 --github-client.request-timeout=1m \
             --github-client.max-retries=2 --github-client.max-404-retries=0 --github-client.backoff-timeout=10s \
             --github-client.initial-delay=1s --git-signing-key-path=s --github-hourly-tokens=10 --github-allowed-burst=5",
        );
        let addresses = all.addresses().unwrap();
        let addresses: Vec<&str> = addresses.iter().map(Url::as_str).collect();
        assert_eq!(addresses, ["http://ghproxy/", "https://api.github.com/"]);
        assert!(all.is_app() && all.check().is_ok());
    }

    #[test]
    fn cfg_118_what_prow_refuses_is_refused() {
        let told = |line: &str| {
            parse(line)
                .check()
                .map_or_else(|why| why.to_string(), |()| String::new())
        };
        for fine in [
            "--github-token-path=t",
            "--github-token-path=t --github-app-id= --github-app-private-key-path=",
            "--github-hourly-tokens=0 --github-allowed-burst=5",
            "--github-graphql-endpoint=",
        ] {
            assert_eq!(told(fine), "", "{fine}");
        }
        insta::assert_snapshot!(told("--github-token-path=t --github-app-id=1"), @"--github-token-path is mutually exclusive with --github-app-id and --github-app-private-key-path");
        insta::assert_snapshot!(told("--github-app-id=1"), @"--github-app-id and --github-app-private-key-path must be set together");
        insta::assert_snapshot!(told("--github-app-id=x --github-app-private-key-path=k"), @"--github-app-id=x: it is a number");
        insta::assert_snapshot!(told("--github-hourly-tokens=10"), @"--github-allowed-burst must be above zero and not larger than --github-hourly-tokens");
        insta::assert_snapshot!(told("--github-hourly-tokens=10 --github-allowed-burst=11"), @"--github-allowed-burst must be above zero and not larger than --github-hourly-tokens");
        insta::assert_snapshot!(told("--github-throttle-org=o:1:1"), @"--github-throttle-org was passed, but client doesn't use apps auth");
        insta::assert_snapshot!(told("--github-endpoint=ghproxy"), @r#"invalid --github-endpoint URI: "ghproxy": relative URL without a base"#);
        insta::assert_snapshot!(told("--github-endpoint=ghproxy:8888"), @r#"invalid --github-endpoint URI: "ghproxy:8888": expected http:// or https:// and a host"#);
        insta::assert_snapshot!(told("--github-graphql-endpoint=/graphql"), @r#"invalid --github-graphql-endpoint URI: "/graphql": relative URL without a base"#);
        let app = "--github-app-id=1 --github-app-private-key-path=k";
        let throttled = |limits: &str| told(&format!("{app} {limits}"));
        insta::assert_snapshot!(throttled("--github-throttle-org=o:1:5"), @"--github-throttle-org=o:1:5: burst must not be greater than hourlyTokens");
        insta::assert_snapshot!(throttled("--github-throttle-org=o:1"), @"--github-throttle-org=o:1: it is not in org:hourlyTokens:burst format");
        insta::assert_snapshot!(throttled("--github-throttle-org=o:0:0"), @"--github-throttle-org=o:0:0: hourlyTokens and burst must be numbers > 0");
        insta::assert_snapshot!(throttled("--github-throttle-org=o:2:1 --github-throttle-org=o:3:1"), @"--github-throttle-org=o:3:1: the org o was given before");
    }
}
