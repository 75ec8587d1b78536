//! `[github]`: where GitHub is, who we are there, how fast and how patiently it is asked, and which orgs live elsewhere.
//! The keys are Prow's flags (GHC-001 to GHC-003) without their `github-`, and those of Enterprise servers beside it
//! (GHC-026).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use trireme_forge::github::{
    CACHE_BYTES, Credentials, GitHubMetrics, GitHubOptions, HostOptions, Rate, RetryPolicy,
};
use trireme_plugins::{Enablement, EnablementError};
use url::Url;

/// Fewer bytes would not hold what one pull request is told by.
const MIN_CACHE_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GitHubSettings {
    /// The API's root.
    pub endpoint: String,
    /// Asked in turn, and around, when those before are not there.
    pub fallback_endpoints: Vec<String>,
    /// Beside `endpoint` when absent.
    pub graphql_endpoint: Option<String>,
    /// As people know it; follows from `endpoint` when absent.
    pub host: Option<String>,
    /// Where repositories are cloned from.
    pub url: String,
    /// A personal or bot token, one line.
    pub token_file: Option<PathBuf>,
    /// Or a GitHub App.
    pub app_id: Option<u64>,
    pub app_private_key_file: Option<PathBuf>,
    /// A private SSH key without passphrase, with which commits are signed that we make and push.
    pub git_signing_key_file: Option<PathBuf>,
    /// Requests per hour, at most; 0 = as many as GitHub lets us.
    pub hourly_tokens: u32,
    /// Of these at once.
    pub allowed_burst: u32,
    /// `org:hourly_tokens:allowed_burst`, for an app.
    pub throttle_org: Vec<String>,
    /// One attempt at reading.
    pub request_timeout_seconds: Option<u64>,
    /// Attempts, the first included.
    pub max_retries: Option<u32>,
    /// Further attempts where GitHub does not find what it just told us of.
    pub max_404_retries: Option<u32>,
    /// The wait before the second attempt.
    pub initial_delay_ms: Option<u64>,
    /// The longest wait for a limit; one that ends later is an error.
    pub backoff_timeout_seconds: Option<u64>,
    /// Of answers that are kept.
    pub cache_bytes: u64,
    /// Nothing is sent that changes anything.
    pub dry_run: bool,
    /// Orgs; if these or repositories are named, only their webhooks are handled (HOOK-013).
    pub enabled_orgs: Vec<String>,
    /// As `org/repo`.
    pub enabled_repos: Vec<String>,
    /// Their webhooks are taken, and nothing is done about them.
    pub disabled_orgs: Vec<String>,
    /// As `org/repo`.
    pub disabled_repos: Vec<String>,
    /// Other GitHubs.
    pub enterprise: Vec<EnterpriseSettings>,
}

/// Another GitHub and the orgs that live there.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EnterpriseSettings {
    pub host: String,
    pub orgs: Vec<String>,
    /// `https://HOST/api/v3` when absent.
    #[serde(default)]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub fallback_endpoints: Vec<String>,
    #[serde(default)]
    pub graphql_endpoint: Option<String>,
    /// `https://HOST` when absent.
    #[serde(default)]
    pub url: Option<String>,
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    #[serde(default)]
    pub app_id: Option<u64>,
    #[serde(default)]
    pub app_private_key_file: Option<PathBuf>,
    #[serde(default)]
    pub hourly_tokens: u32,
    #[serde(default)]
    pub allowed_burst: u32,
    #[serde(default)]
    pub throttle_org: Vec<String>,
}

impl Default for GitHubSettings {
    fn default() -> Self {
        Self {
            endpoint: "https://api.github.com".to_owned(),
            fallback_endpoints: Vec::new(),
            graphql_endpoint: None,
            host: None,
            url: "https://github.com".to_owned(),
            token_file: None,
            app_id: None,
            app_private_key_file: None,
            git_signing_key_file: None,
            hourly_tokens: 0,
            allowed_burst: 0,
            throttle_org: Vec::new(),
            request_timeout_seconds: None,
            max_retries: None,
            max_404_retries: None,
            initial_delay_ms: None,
            backoff_timeout_seconds: None,
            cache_bytes: CACHE_BYTES as u64,
            dry_run: false,
            enabled_orgs: Vec::new(),
            enabled_repos: Vec::new(),
            disabled_orgs: Vec::new(),
            disabled_repos: Vec::new(),
            enterprise: Vec::new(),
        }
    }
}

/// What any GitHub has, with the key under which it stands.
#[derive(Debug)]
pub struct Place<'a> {
    pub key: String,
    endpoint: String,
    fallback_endpoints: &'a [String],
    graphql_endpoint: Option<&'a str>,
    pub token_file: Option<&'a PathBuf>,
    pub app: Option<(u64, &'a PathBuf)>,
    is_half_app: bool,
    hourly_tokens: u32,
    allowed_burst: u32,
    throttle_org: &'a [String],
}

impl Place<'_> {
    fn url(&self, name: &str, text: &str) -> anyhow::Result<Url> {
        let key = &self.key;
        let url: Url = text
            .parse()
            .with_context(|| format!("{key}.{name}: {text:?}"))?;
        ensure!(
            matches!(url.scheme(), "http" | "https") && url.has_host(),
            "{key}.{name}: {text:?}: expected http:// or https:// and a host"
        );
        Ok(url)
    }

    fn check_credentials(&self) -> anyhow::Result<()> {
        ensure!(
            self.app.is_some() != self.token_file.is_some() && !self.is_half_app,
            "{}: give either token_file, or app_id with app_private_key_file",
            self.key
        );
        Ok(())
    }

    fn rate(&self) -> anyhow::Result<Option<Rate>> {
        // Prow takes a burst alone for none.
        if self.hourly_tokens == 0 {
            return Ok(None);
        }
        let rate = Rate::new(self.hourly_tokens, self.allowed_burst);
        let rate = rate.map_err(|_| {
            anyhow::anyhow!(
                "{}.allowed_burst: must be above zero and not above hourly_tokens ({})",
                self.key,
                self.hourly_tokens
            )
        })?;
        Ok(Some(rate))
    }

    fn org_rates(&self) -> anyhow::Result<BTreeMap<String, Rate>> {
        let key = format!("{}.throttle_org", self.key);
        ensure!(
            self.throttle_org.is_empty() || self.app.is_some(),
            "{key}: only an app has a budget per org; leave it out, or use app_id"
        );
        let mut rates = BTreeMap::new();
        for limit in self.throttle_org {
            let (org, rate) =
                Rate::of_org(limit).map_err(|why| anyhow::anyhow!("{key}: {limit:?}: {why}"))?;
            ensure!(
                rates.insert(org.to_lowercase(), rate).is_none(),
                "{key}: {limit:?}: the org {org} was given before"
            );
        }
        Ok(rates)
    }

    fn options(
        &self,
        credentials: Credentials,
        orgs: Vec<String>,
        host: Option<&str>,
    ) -> anyhow::Result<HostOptions> {
        let api = self.url("endpoint", &self.endpoint)?;
        let mut options = HostOptions::new(api, credentials, orgs);
        if let Some(host) = host {
            host.clone_into(&mut options.host);
        }
        if let Some(graphql) = self.graphql_endpoint {
            options.graphql = self.url("graphql_endpoint", graphql)?;
        }
        for fallback in self.fallback_endpoints {
            let fallback = self.url("fallback_endpoints", fallback)?;
            options.fallbacks.push(fallback);
        }
        options.rate = self.rate()?;
        options.org_rates = self.org_rates()?;
        Ok(options)
    }
}

impl EnterpriseSettings {
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        let endpoint = self.endpoint.clone();
        Place {
            key: format!("github.enterprise {:?}", self.host),
            endpoint: endpoint.unwrap_or_else(|| format!("https://{}/api/v3", self.host)),
            fallback_endpoints: &self.fallback_endpoints,
            graphql_endpoint: self.graphql_endpoint.as_deref(),
            token_file: self.token_file.as_ref(),
            app: self.app_id.zip(self.app_private_key_file.as_ref()),
            is_half_app: self.app_id.is_some() != self.app_private_key_file.is_some(),
            hourly_tokens: self.hourly_tokens,
            allowed_burst: self.allowed_burst,
            throttle_org: &self.throttle_org,
        }
    }
}

impl GitHubSettings {
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place {
            key: "github".to_owned(),
            endpoint: self.endpoint.clone(),
            fallback_endpoints: &self.fallback_endpoints,
            graphql_endpoint: self.graphql_endpoint.as_deref(),
            token_file: self.token_file.as_ref(),
            app: self.app_id.zip(self.app_private_key_file.as_ref()),
            is_half_app: self.app_id.is_some() != self.app_private_key_file.is_some(),
            hourly_tokens: self.hourly_tokens,
            allowed_burst: self.allowed_burst,
            throttle_org: &self.throttle_org,
        }
    }

    /// HOOK-013.
    ///
    /// # Errors
    /// What contradicts itself or names nothing.
    pub fn enablement(&self) -> Result<Enablement, EnablementError> {
        Enablement::new(
            &self.enabled_orgs,
            &self.enabled_repos,
            &self.disabled_orgs,
            &self.disabled_repos,
        )
    }

    /// # Errors
    /// Naming the key and what to do.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.enablement().context("github")?;
        let places = self.enterprise.iter().map(EnterpriseSettings::place);
        for place in std::iter::once(self.place()).chain(places) {
            place.check_credentials()?;
        }
        let mut orgs = BTreeSet::new();
        for other in &self.enterprise {
            let key = other.place().key;
            let plain = |text: &str| !text.trim().is_empty() && !text.contains('/');
            ensure!(
                plain(&other.host),
                "{key}: host is a name, as in \"ghe.example.com\""
            );
            ensure!(
                !other.orgs.is_empty() && other.orgs.iter().all(|org| plain(org)),
                "{key}.orgs: name the orgs that live there; all others live on the first GitHub"
            );
            for org in &other.orgs {
                ensure!(
                    orgs.insert(org.to_lowercase()),
                    "{key}.orgs: {org:?} cannot live in two places: name it once"
                );
            }
        }
        ensure!(
            self.cache_bytes >= MIN_CACHE_BYTES,
            "github.cache_bytes: must be at least {MIN_CACHE_BYTES}"
        );
        for (key, value) in [
            ("request_timeout_seconds", self.request_timeout_seconds),
            ("max_retries", self.max_retries.map(u64::from)),
            ("initial_delay_ms", self.initial_delay_ms),
            ("backoff_timeout_seconds", self.backoff_timeout_seconds),
        ] {
            ensure!(
                value != Some(0),
                "github.{key}: must be at least 1; leave it out for the default"
            );
        }
        self.options(GitHubMetrics::default(), |_| Ok(Credentials::Anonymous))?;
        Ok(())
    }

    fn retry(&self) -> RetryPolicy {
        let mut retry = RetryPolicy::default();
        if let Some(seconds) = self.request_timeout_seconds {
            retry.request_timeout = Duration::from_secs(seconds);
        }
        if let Some(tries) = self.max_retries {
            retry.tries = tries;
        }
        if let Some(further) = self.max_404_retries {
            retry.tries_not_found = further.saturating_add(1);
        }
        if let Some(ms) = self.initial_delay_ms {
            retry.first_wait = Duration::from_millis(ms);
        }
        if let Some(seconds) = self.backoff_timeout_seconds {
            retry.longest_wait = Duration::from_secs(seconds);
        }
        // Else a long wait or a slow answer could never be had.
        let one = retry.request_timeout.max(retry.longest_wait);
        retry.read_deadline = retry.read_deadline.max(one.saturating_mul(2));
        retry
    }

    /// What the client is made from; `credentials` opens what a place names.
    ///
    /// # Errors
    /// Naming the key.
    pub fn options(
        &self,
        metrics: GitHubMetrics,
        credentials: impl Fn(&Place<'_>) -> anyhow::Result<Credentials>,
    ) -> anyhow::Result<GitHubOptions> {
        let mut others = Vec::new();
        for other in &self.enterprise {
            let place = other.place();
            let orgs = other.orgs.clone();
            let mut options = place.options(credentials(&place)?, orgs, Some(&other.host))?;
            let url = other.url.clone();
            let url = url.unwrap_or_else(|| format!("https://{}", other.host));
            options.clone_from = Some(place.url("url", &url)?);
            others.push(options);
        }
        let place = self.place();
        let HostOptions {
            host,
            api,
            fallbacks,
            graphql,
            credentials,
            rate,
            org_rates,
            ..
        } = place.options(credentials(&place)?, Vec::new(), self.host.as_deref())?;
        Ok(GitHubOptions {
            host,
            fallbacks,
            graphql,
            rate,
            org_rates,
            others,
            retry: self.retry(),
            cache_bytes: usize::try_from(self.cache_bytes).unwrap_or(usize::MAX),
            dry_run: self.dry_run,
            metrics,
            ..GitHubOptions::new(api, credentials)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<GitHubSettings> {
        let settings: GitHubSettings = toml::from_str(text)?;
        settings.check()?;
        Ok(settings)
    }

    fn options(text: &str) -> GitHubOptions {
        let settings = parse(text).unwrap();
        settings
            .options(GitHubMetrics::default(), |_| Ok(Credentials::Anonymous))
            .unwrap()
    }

    /// GHC-001, GHC-002: each of Prow's flags has a key that takes effect.
    #[test]
    fn ghc_001_every_flag_has_a_key_with_an_effect() {
        let plain = options("token_file = 't'");
        assert_eq!(plain.api.as_str(), "https://api.github.com/");
        assert_eq!(plain.graphql.as_str(), "https://api.github.com/graphql");
        assert_eq!((plain.host.as_str(), plain.dry_run), ("github.com", false));
        assert_eq!(plain.retry, RetryPolicy::default());
        let all = options(
            "token_file = 't'\nendpoint = 'http://ghproxy'\nfallback_endpoints = ['https://api.github.com']\n\
             graphql_endpoint = 'http://ghproxy:8888/graphql'\nhost = 'github.com'\nhourly_tokens = 100\nallowed_burst = 10\n\
             request_timeout_seconds = 120\nmax_retries = 8\nmax_404_retries = 2\ninitial_delay_ms = 2000\n\
             backoff_timeout_seconds = 120\ncache_bytes = 1048576\ndry_run = true",
        );
        assert_eq!(all.graphql.as_str(), "http://ghproxy:8888/graphql");
        assert_eq!(all.fallbacks[0].as_str(), "https://api.github.com/");
        assert_eq!(all.rate, Rate::new(100, 10).ok());
        assert!(all.dry_run && all.cache_bytes == 1 << 20);
        let retry = all.retry;
        assert_eq!((retry.tries, retry.tries_not_found), (8, 3));
        let seconds = [
            retry.request_timeout,
            retry.first_wait,
            retry.longest_wait,
            retry.read_deadline,
        ]
        .map(|duration| duration.as_secs());
        assert_eq!(seconds, [120, 2, 120, 240]);
    }

    /// GHC-026: an Enterprise server beside github.com, with credentials, limits and clones of its own.
    #[test]
    fn ghc_026_enterprise_servers_stand_beside_github() {
        let options = options(
            "app_id = 1\napp_private_key_file = 'k'\nthrottle_org = ['O:100:10']\n\
             [[enterprise]]\nhost = 'ghe.example'\norgs = ['Team']\ntoken_file = 't'\n\
             [[enterprise]]\nhost = 'other.example'\norgs = ['x']\ntoken_file = 't'\nendpoint = 'https://api.other.example'\n\
             url = 'https://git.other.example'\nhourly_tokens = 10\nallowed_burst = 5",
        );
        assert!(options.org_rates.contains_key("o"));
        let [ghe, other] = &options.others[..] else {
            panic!("two");
        };
        assert_eq!(ghe.api.as_str(), "https://ghe.example/api/v3");
        assert_eq!(ghe.graphql.as_str(), "https://ghe.example/api/graphql");
        assert_eq!(
            ghe.clone_from.as_ref().unwrap().as_str(),
            "https://ghe.example/"
        );
        assert_eq!(
            (ghe.host.as_str(), &ghe.orgs[..]),
            ("ghe.example", &["Team".to_owned()][..])
        );
        assert_eq!(other.graphql.as_str(), "https://api.other.example/graphql");
        assert_eq!(
            other.clone_from.as_ref().unwrap().as_str(),
            "https://git.other.example/"
        );
        assert_eq!(other.rate, Rate::new(10, 5).ok());
    }

    #[test]
    fn ghc_001_what_makes_no_sense_is_named() {
        let told = |text: &str| format!("{:#}", parse(text).unwrap_err());
        let token = |more: &str| told(&format!("token_file = 't'\n{more}"));
        insta::assert_snapshot!(told(""), @"github: give either token_file, or app_id with app_private_key_file");
        insta::assert_snapshot!(token("app_id = 1"), @"github: give either token_file, or app_id with app_private_key_file");
        insta::assert_snapshot!(token("endpoint = 'ghproxy'"), @r#"github.endpoint: "ghproxy": relative URL without a base"#);
        insta::assert_snapshot!(token("fallback_endpoints = ['ghproxy:80']"), @r#"github.fallback_endpoints: "ghproxy:80": expected http:// or https:// and a host"#);
        insta::assert_snapshot!(token("hourly_tokens = 5\nallowed_burst = 6"), @"github.allowed_burst: must be above zero and not above hourly_tokens (5)");
        insta::assert_snapshot!(token("throttle_org = ['o:1:1']"), @"github.throttle_org: only an app has a budget per org; leave it out, or use app_id");
        insta::assert_snapshot!(token("cache_bytes = 1"), @"github.cache_bytes: must be at least 1048576");
        insta::assert_snapshot!(token("max_retries = 0"), @"github.max_retries: must be at least 1; leave it out for the default");
        let app = "app_id = 1\napp_private_key_file = 'k'\n";
        insta::assert_snapshot!(told(&format!("{app}throttle_org = ['o:1:1', 'O:2:1']")), @r#"github.throttle_org: "O:2:1": the org O was given before"#);
        insta::assert_snapshot!(told(&format!("{app}throttle_org = ['o:1']")), @r#"github.throttle_org: "o:1": it is not in org:hourlyTokens:burst format"#);
        let other = "[[enterprise]]\nhost = 'ghe.example'\n";
        insta::assert_snapshot!(token(&format!("{other}orgs = ['x']")), @r#"github.enterprise "ghe.example": give either token_file, or app_id with app_private_key_file"#);
        insta::assert_snapshot!(token(&format!("{other}token_file = 't'\norgs = []")), @r#"github.enterprise "ghe.example".orgs: name the orgs that live there; all others live on the first GitHub"#);
        insta::assert_snapshot!(token(&format!("{other}token_file = 't'\norgs = ['x', 'X']")), @r#"github.enterprise "ghe.example".orgs: "X" cannot live in two places: name it once"#);
    }
}
