//! GitHub behind the capabilities: one [`GitHub`] does them all, through octocrab.
//!
//! One file per capability says which of GitHub's calls it takes; `client` says how a call gets there.

mod actions;
mod answer;
mod as_of;
mod attempt;
mod branches;
mod call;
mod client;
mod clock;
mod credentials;
mod deliveries;
mod dry_run;
mod etag;
mod flights;
mod forks;
mod freshness;
mod graphql;
mod hooks;
mod installations;
mod issues;
mod limits;
mod listings;
mod metrics;
mod milestones;
mod moves;
mod people;
mod presence;
mod priority;
mod probe;
mod pulls;
mod reactions;
mod repositories;
mod retry;
mod search;
mod server;
mod statuses;
mod teams;
mod text_search;
mod throttle;
mod transport;
mod verdict;
pub(crate) mod wire;

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use url::Url;

pub use as_of::{AS_OF_FOR, AsOf};
pub use client::MAX_IN_FLIGHT;
use client::{Client, Shared};
pub use clock::Clock;
pub use credentials::{Credentials, SecretSource, TokenObserver, check_app_key, fixed_secret};
pub use etag::CACHE_BYTES;
use etag::EtagCache;
use flights::Flights;
pub use installations::InstallationGap;
pub use limits::BudgetLeft;
use limits::Gate;
pub use metrics::GitHubMetrics;
/// The body of a request, as a [`Transport`] gets it.
pub use octocrab::OctoBody;
pub use priority::{BACKGROUND_IN_FLIGHT, BACKGROUND_LEAVES_PERCENT, Priority};
pub use probe::Pause;
pub use retry::{MUTATION_TIMEOUT, RetryPolicy};
use server::Server;
pub use throttle::Rate;
pub use transport::Transport;

use crate::error::Result;
use crate::forge::Identity as _;
use crate::types::RepoId;

/// Where GitHub is and who we are to it.
#[derive(Debug, Clone)]
pub struct GitHubOptions {
    /// The REST API's root: `https://api.github.com`, `https://ghe.example/api/v3`, `http://ghproxy`.
    pub api: Url,
    /// `https://api.github.com/graphql`, `https://ghe.example/api/graphql`.
    pub graphql: Url,
    pub credentials: Credentials,
    pub retry: RetryPolicy,
    /// Further roots of the same GitHub's REST API: asked in turn, and around, when those before are not there. Their
    /// GraphQL endpoints are beside them.
    pub fallbacks: Vec<Url>,
    /// The name under which people know it: `github.com`. Links of a proxy to it are followed through the proxy.
    pub host: String,
    /// How fast it may be asked; orgs that have a rate of their own do not count.
    pub rate: Option<Rate>,
    pub org_rates: BTreeMap<String, Rate>,
    /// Other GitHubs and the orgs that live there; all other orgs live here.
    pub others: Vec<HostOptions>,
    /// How many bytes of answers are kept.
    pub cache_bytes: usize,
    /// Nothing is sent that changes anything (GHC-010).
    pub dry_run: bool,
    /// What we call ourselves: `User-Agent: <component>[.<plugin>]/<version>`.
    pub component: String,
    pub metrics: GitHubMetrics,
    /// What carries the requests; `None` for connections of our own.
    pub transport: Option<Transport>,
    pub clock: Clock,
}

/// A GitHub beside the first one: an Enterprise server, or github.com (GHC-026).
#[derive(Debug, Clone)]
pub struct HostOptions {
    pub host: String,
    pub api: Url,
    pub fallbacks: Vec<Url>,
    pub graphql: Url,
    pub credentials: Credentials,
    pub rate: Option<Rate>,
    pub org_rates: BTreeMap<String, Rate>,
    /// The orgs that live there.
    pub orgs: Vec<String>,
    /// Where their repositories are cloned from; `None` for where all others are.
    pub clone_from: Option<Url>,
}

impl HostOptions {
    /// At this REST root, with what follows from it. Repositories are cloned from where all others are.
    #[must_use]
    pub fn new(api: Url, credentials: Credentials, orgs: Vec<String>) -> Self {
        Self {
            clone_from: None,
            host: server::host_of(&api),
            graphql: server::graphql_beside(&api),
            api,
            fallbacks: Vec::new(),
            credentials,
            rate: None,
            org_rates: BTreeMap::new(),
            orgs,
        }
    }
}

impl GitHubOptions {
    /// The GraphQL endpoint that belongs to a REST root: `…/api/v3` (Enterprise) has it at `…/api/graphql`, anything
    /// else at `…/graphql`.
    #[must_use]
    pub fn new(api: Url, credentials: Credentials) -> Self {
        Self {
            host: server::host_of(&api),
            graphql: server::graphql_beside(&api),
            api,
            credentials,
            retry: RetryPolicy::default(),
            fallbacks: Vec::new(),
            rate: None,
            org_rates: BTreeMap::new(),
            others: Vec::new(),
            cache_bytes: CACHE_BYTES,
            dry_run: false,
            component: "trireme".to_owned(),
            metrics: GitHubMetrics::default(),
            transport: None,
            clock: Clock::System,
        }
    }

    fn primary(&self) -> HostOptions {
        HostOptions {
            host: self.host.clone(),
            api: self.api.clone(),
            fallbacks: self.fallbacks.clone(),
            graphql: self.graphql.clone(),
            credentials: self.credentials.clone(),
            rate: self.rate,
            org_rates: self.org_rates.clone(),
            orgs: Vec::new(),
            clone_from: None,
        }
    }
}

/// Why a client for GitHub could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{0}: not a URL that GitHub's API can be at: expected http:// or https:// and a host")]
    BadUrl(String),
    #[error("the org {org} cannot live on both {first} and {second}: name it once")]
    OrgTwice {
        org: String,
        first: String,
        second: String,
    },
    #[error("two GitHubs are called {0}: give each its own host")]
    HostTwice(String),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// A client for one GitHub, or for several that have different orgs. A clone is cheap and shares everything: connections,
/// the cache, budgets, tokens.
#[derive(Debug, Clone)]
pub struct GitHub {
    client: Client,
}

impl GitHub {
    /// Requests under way, and how many may be.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        self.client.in_flight()
    }

    /// Connects to nothing yet. Must be called within a Tokio runtime, which then drives the connections.
    ///
    /// # Errors
    /// A URL is unusable, an org lives in two places, or the machine has no root certificates while some URL is `https`.
    pub fn new(options: GitHubOptions) -> std::result::Result<Self, SetupError> {
        let hosts = std::iter::once(options.primary()).chain(options.others);
        let mut servers: Vec<Server> = Vec::new();
        let mut orgs = BTreeMap::new();
        for (index, host) in hosts.enumerate() {
            if servers.iter().any(|server| server.host == host.host) {
                return Err(SetupError::HostTwice(host.host));
            }
            for org in &host.orgs {
                if let Some(first) = orgs.insert(org.to_lowercase(), index) {
                    let first = servers.get(first).unwrap_or(&servers[0]);
                    return Err(SetupError::OrgTwice {
                        org: org.clone(),
                        first: first.host.clone(),
                        second: host.host.clone(),
                    });
                }
            }
            servers.push(Server::new(index, host)?);
        }
        let tls = servers
            .iter()
            .flat_map(Server::urls)
            .any(|url| url.scheme() == "https");
        let transport = match options.transport {
            Some(transport) => transport,
            None => Transport::new(tls).map_err(|why| SetupError::Tls(why.to_string()))?,
        };
        let client = Client::new(Shared {
            servers,
            orgs,
            retry: options.retry,
            transport,
            cache: EtagCache::new(options.cache_bytes),
            flights: Flights::default(),
            gate: Gate::default(),
            observer: std::sync::Mutex::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            background: Semaphore::new(BACKGROUND_IN_FLIGHT),
            metrics: options.metrics,
            dry_run: options.dry_run,
            component: options.component,
            clock: options.clock,
            returns: watch::Sender::new(0),
        });
        Ok(Self { client })
    }

    /// Tells of every short-lived token that this client is given.
    #[must_use]
    pub fn telling(self, observer: TokenObserver) -> Self {
        self.client.tell(observer);
        self
    }

    /// The same client, whose requests are counted and named as this plugin's.
    #[must_use]
    pub fn for_plugin(&self, name: &str) -> Self {
        Self {
            client: self.client.for_plugin(name),
        }
    }

    /// The same client, whose requests are so urgent.
    #[must_use]
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self {
            client: self.client.with_priority(priority),
        }
    }

    /// The same client, for a decision: what was asked for since then serves it, unless the plugin itself has changed
    /// it.
    #[must_use]
    pub fn as_of(&self, as_of: &AsOf) -> Self {
        Self {
            client: self.client.as_of(as_of.clone()),
        }
    }

    /// The GitHubs on which we are an app, as people know them.
    #[must_use]
    pub fn app_hosts(&self) -> Vec<String> {
        let servers = self.client.servers().iter();
        let apps = servers.filter(|server| server.is_app());
        apps.map(|server| server.host.clone()).collect()
    }

    /// The GitHub on which this org lives, as people know it: `github.com`.
    #[must_use]
    pub fn host(&self, org: &str) -> &str {
        &self.client.server_of(org).host
    }

    /// What is left of each budget of which GitHub has told this process (GHC-050), in order of hosts and organisations.
    #[must_use]
    pub fn budgets(&self) -> Vec<BudgetLeft> {
        let servers = self.client.servers();
        let quotas = self.client.shared.gate.quotas().into_iter();
        quotas
            .filter_map(|(budget, quota)| {
                Some(BudgetLeft {
                    name: servers
                        .get(budget.server)?
                        .name_of_identity(&budget.identity),
                    resource: budget.api.resource(),
                    remaining: quota.remaining,
                    limit: quota.limit,
                    reset: quota.reset,
                })
            })
            .collect()
    }

    /// How many requests have left through this handle: of the plugin, if it is one's. What was answered from the cache
    /// does not count; what was confirmed by GitHub for free does.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.client.sent()
    }

    /// Why the GitHub of this org is not to be asked anything at present. A call is refused then without being sent.
    #[must_use]
    pub fn pause(&self, org: &str) -> Option<Pause> {
        self.client.pause(org)
    }

    /// Changes when a GitHub that was away is there again.
    #[must_use]
    pub fn returns(&self) -> watch::Receiver<u64> {
        self.client.shared.returns.subscribe()
    }

    /// Something changed in a repository, or of one issue or pull request in it: what is kept of it stands in for nothing
    /// any more, and nobody joins a question that was asked before. Our own changes do that by themselves (GHC-050).
    pub fn invalidate(&self, repo: &RepoId, number: Option<u64>) {
        self.client.invalidate(repo, number);
    }

    /// The same for everything: changes were missed.
    pub fn invalidate_all(&self) {
        self.client.invalidate_all();
    }
}

#[async_trait]
impl crate::git::GitCredentials for GitHub {
    /// GitHub takes any user name with a token; what looks at the requests on the way may not (GHC-014).
    async fn secret(&self, repo: &RepoId) -> Result<Option<crate::git::GitSecret>> {
        let Some(password) = self.client.git_secret(&repo.org).await? else {
            return Ok(None);
        };
        let username = if self.client.server_of(&repo.org).is_app() {
            "x-access-token".to_owned()
        } else {
            self.bot_user(&repo.org).await?.login
        };
        Ok(Some(crate::git::GitSecret { username, password }))
    }

    fn may_push(&self) -> bool {
        !self.client.shared.dry_run
    }

    fn remote(&self, repo: &RepoId) -> Option<&Url> {
        self.client.server_of(&repo.org).clone_from.as_ref()
    }
}

/// One segment of a path, percent-encoded: a label may hold a slash, a login a bracket.
fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// A path of several segments: the slashes stay.
fn segments(path: &str) -> String {
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// `/repos/org/repo` and what follows.
fn at(repo: &RepoId, rest: &str) -> String {
    format!(
        "/repos/{}/{}{rest}",
        segment(&repo.org),
        segment(&repo.repo)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_are_encoded() {
        assert_eq!(segment("do-not-merge/hold"), "do-not-merge%2Fhold");
        assert_eq!(segments("docs/über.md"), "docs/%C3%BCber.md");
        assert_eq!(
            at(&RepoId::new("a b", "c"), "/pulls"),
            "/repos/a%20b/c/pulls"
        );
    }

    /// GHC-001, GHC-026
    #[tokio::test]
    async fn ghc_026_what_makes_no_sense_is_refused_at_once() {
        let api = |url: &str| url.parse::<Url>().unwrap();
        let refuse = |options: GitHubOptions| GitHub::new(options).unwrap_err().to_string();
        let at = |url: &str| GitHubOptions::new(api(url), Credentials::Anonymous);
        insta::assert_snapshot!(
            refuse(at("file:///x")),
            @"file:///x: not a URL that GitHub's API can be at: expected http:// or https:// and a host"
        );
        let other = |url: &str, org: &str| {
            HostOptions::new(api(url), Credentials::Anonymous, vec![org.to_owned()])
        };
        let with = |others: Vec<HostOptions>| GitHubOptions {
            others,
            ..at("http://api.one")
        };
        insta::assert_snapshot!(
            refuse(with(vec![other("http://two", "Org"), other("http://three", "org")])),
            @"the org org cannot live on both two and three: name it once"
        );
        insta::assert_snapshot!(
            refuse(with(vec![other("http://one", "org")])),
            @"two GitHubs are called one: give each its own host"
        );
        let github = GitHub::new(with(vec![other("http://two", "Org")])).unwrap();
        assert_eq!(
            (github.host("oRG"), github.host("elsewhere")),
            ("two", "one")
        );
    }
}
