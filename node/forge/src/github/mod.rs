//! GitHub behind the capabilities: one [`GitHub`] does them all, through octocrab.
//!
//! One file per capability says which of GitHub's calls it takes; `client` says how a call gets there.

mod actions;
mod answer;
mod branches;
mod client;
mod credentials;
mod deliveries;
mod etag;
mod forks;
mod hooks;
mod issues;
mod limits;
mod listings;
mod milestones;
mod moves;
mod people;
mod pulls;
mod reactions;
mod repositories;
mod search;
mod statuses;
mod teams;
mod text_search;
mod transport;
pub(crate) mod wire;

use std::sync::OnceLock;

use async_trait::async_trait;
use url::Url;

use client::Client;
pub use client::{MUTATION_TIMEOUT, RetryPolicy};
pub use credentials::{Credentials, SecretSource, TokenObserver, check_app_key, fixed_secret};
use transport::Transport;

use crate::error::Result;
use crate::types::{BotUser, RepoId};

/// Where GitHub is and who we are to it.
#[derive(Debug, Clone)]
pub struct GitHubOptions {
    /// The REST API's root: `https://api.github.com`, `https://ghe.example/api/v3`, `http://127.0.0.1:8080`.
    pub api: Url,
    /// `https://api.github.com/graphql`, `https://ghe.example/api/graphql`. Must be on the API's server.
    pub graphql: Url,
    pub credentials: Credentials,
    pub retry: RetryPolicy,
}

impl GitHubOptions {
    /// The GraphQL endpoint that belongs to a REST root: `…/api/v3` (Enterprise) has it at `…/api/graphql`, anything
    /// else at `…/graphql`.
    #[must_use]
    pub fn new(api: Url, credentials: Credentials) -> Self {
        let path = api.path().trim_end_matches('/');
        let mut graphql = api.clone();
        graphql.set_path(&format!(
            "{}/graphql",
            path.strip_suffix("/v3").unwrap_or(path)
        ));
        Self {
            api,
            graphql,
            credentials,
            retry: RetryPolicy::default(),
        }
    }
}

/// Why a client for GitHub could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("{0}: not a URL that GitHub's API can be at: expected http:// or https:// and a host")]
    BadUrl(String),
    #[error("the GraphQL endpoint {graphql} is not on the same server as the API {api}")]
    TwoServers { api: String, graphql: String },
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// A client for one GitHub, as one identity. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct GitHub {
    client: Client,
    /// Asked for once.
    bot: OnceLock<BotUser>,
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
    /// A URL is unusable, or the machine has no root certificates while `api` is `https`.
    pub fn new(options: GitHubOptions) -> std::result::Result<Self, SetupError> {
        let GitHubOptions {
            api,
            graphql,
            credentials,
            retry,
        } = options;
        if !matches!(api.scheme(), "http" | "https") || !api.has_host() {
            return Err(SetupError::BadUrl(api.into()));
        }
        if graphql.origin() != api.origin() {
            return Err(SetupError::TwoServers {
                api: api.into(),
                graphql: graphql.into(),
            });
        }
        let transport =
            Transport::new(&api).map_err(|error| SetupError::Tls(transport::deepest(&error)))?;
        Ok(Self {
            client: Client::new(api, graphql, credentials, retry, transport),
            bot: OnceLock::new(),
        })
    }

    /// Tells of every short-lived token that this client is given.
    #[must_use]
    pub fn telling(mut self, observer: TokenObserver) -> Self {
        self.client.observer = observer;
        self
    }
}

#[async_trait]
impl crate::git::GitCredentials for GitHub {
    /// GitHub takes any user name with a token.
    async fn secret(&self, repo: &RepoId) -> Result<Option<crate::git::GitSecret>> {
        let secret = self.client.git_secret(&repo.org).await?;
        Ok(secret.map(|password| crate::git::GitSecret {
            username: "x-access-token".to_owned(),
            password,
        }))
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
    fn graphql_is_found_beside_rest() {
        let graphql = |api: &str| {
            GitHubOptions::new(api.parse().unwrap(), Credentials::Anonymous)
                .graphql
                .to_string()
        };
        assert_eq!(
            graphql("https://api.github.com"),
            "https://api.github.com/graphql"
        );
        assert_eq!(
            graphql("https://ghe.example/api/v3/"),
            "https://ghe.example/api/graphql"
        );
        assert_eq!(
            graphql("http://127.0.0.1:99"),
            "http://127.0.0.1:99/graphql"
        );
    }

    #[test]
    fn names_in_paths_are_encoded() {
        assert_eq!(segment("do-not-merge/hold"), "do-not-merge%2Fhold");
        assert_eq!(segments("docs/über.md"), "docs/%C3%BCber.md");
        assert_eq!(
            at(&RepoId::new("a b", "c"), "/pulls"),
            "/repos/a%20b/c/pulls"
        );
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_refused_at_once() {
        let refuse = |api: &str, graphql: &str| {
            let mut options = GitHubOptions::new(api.parse().unwrap(), Credentials::Anonymous);
            options.graphql = graphql.parse().unwrap();
            GitHub::new(options).unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            refuse("file:///x", "file:///x"),
            @"file:///x: not a URL that GitHub's API can be at: expected http:// or https:// and a host"
        );
        insta::assert_snapshot!(
            refuse("http://a/", "http://b/graphql"),
            @"the GraphQL endpoint http://b/graphql is not on the same server as the API http://a/"
        );
    }
}
