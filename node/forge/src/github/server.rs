//! One GitHub: the addresses at which it can be asked, who we are to it, and which of its links lead back to it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tokio::time::Instant;
use url::Url;

use super::credentials::{Behalf, Credentials};
use super::installations::Installations;
use super::presence::Presence;
use super::throttle::{Rate, Throttles};
use super::{HostOptions, SetupError};
use crate::types::BotUser;

#[derive(Debug)]
pub(super) struct Server {
    /// Its place among all.
    pub(super) index: usize,
    /// As people know it: `github.com`.
    pub(super) host: String,
    /// Roots of the REST API, without a slash at the end; never empty. One is asked when those before it do not answer.
    endpoints: Vec<Url>,
    graphql: Vec<Url>,
    pub(super) credentials: Credentials,
    pub(super) installations: Installations,
    pub(super) throttles: Throttles,
    pub(super) presence: Presence,
    /// Asked for once.
    pub(super) bot: OnceLock<BotUser>,
    pub(super) clone_from: Option<Url>,
}

/// The GraphQL endpoint that belongs to a REST root: `…/api/v3` (Enterprise) has it at `…/api/graphql`, anything else at
/// `…/graphql`.
pub(super) fn graphql_beside(api: &Url) -> Url {
    let path = api.path().trim_end_matches('/');
    let mut graphql = api.clone();
    graphql.set_path(&format!(
        "{}/graphql",
        path.strip_suffix("/v3").unwrap_or(path)
    ));
    graphql
}

/// The name under which people know the GitHub that has this API: `github.com`, `ghe.example`.
pub(super) fn host_of(api: &Url) -> String {
    let host = api.host_str().unwrap_or_default();
    let host = host.strip_prefix("api.").unwrap_or(host);
    match api.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

impl Server {
    pub(super) fn new(index: usize, options: HostOptions) -> Result<Self, SetupError> {
        let HostOptions {
            host,
            api,
            fallbacks,
            graphql,
            credentials,
            rate,
            org_rates,
            orgs: _,
            clone_from,
        } = options;
        let endpoints: Vec<Url> = std::iter::once(api).chain(fallbacks).collect();
        let mut queries = vec![graphql];
        for beside in endpoints.iter().skip(1).map(graphql_beside) {
            if !queries.contains(&beside) {
                queries.push(beside);
            }
        }
        for url in endpoints.iter().chain(&queries) {
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                return Err(SetupError::BadUrl(url.to_string()));
            }
        }
        Ok(Self {
            index,
            host,
            endpoints,
            graphql: queries,
            credentials,
            installations: Installations::default(),
            throttles: throttles(rate, &org_rates),
            presence: Presence::default(),
            bot: OnceLock::new(),
            clone_from,
        })
    }

    pub(super) fn is_app(&self) -> bool {
        matches!(self.credentials, Credentials::App { .. })
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &Url> {
        self.endpoints.iter().chain(&self.graphql)
    }

    /// How many addresses there are to ask at.
    pub(super) fn addresses(&self, graphql: bool) -> usize {
        if graphql {
            self.graphql.len()
        } else {
            self.endpoints.len()
        }
    }

    /// Where to ask for a path below the API's root.
    pub(super) fn url(&self, address: usize, path: &str) -> Result<Url, url::ParseError> {
        let root = self.endpoints.get(address).or(self.endpoints.first());
        let root = root.map_or("", Url::as_str).trim_end_matches('/');
        Url::parse(&format!("{root}{path}"))
    }

    pub(super) fn graphql_url(&self, address: usize) -> Result<Url, url::ParseError> {
        let url = self.graphql.get(address).or(self.graphql.first());
        url.cloned().ok_or(url::ParseError::EmptyHost)
    }

    /// The path of a link that GitHub gave us in an answer from `from`, if it leads back to this GitHub. A proxy hands
    /// through links to what is behind it: they are followed on the way on which we came (GHC-009). Credentials go to
    /// none but the addresses that we were given.
    pub(super) fn below_api(&self, from: &Url, link: &str) -> Option<String> {
        /// Where Enterprise has its REST API. No path of the API itself begins so.
        const ENTERPRISE: &str = "/api/v3";
        let link = from.join(link).ok()?;
        let path = match link.query() {
            Some(query) => format!("{}?{query}", link.path()),
            None => link.path().to_owned(),
        };
        let below = self
            .endpoints
            .iter()
            .filter(|root| root.origin() == link.origin())
            .find_map(|root| path.strip_prefix(root.path().trim_end_matches('/')));
        let below = below.or_else(|| self.is_behind_proxy(&link).then_some(path.as_str()))?;
        let below = below.strip_prefix(ENTERPRISE).unwrap_or(below);
        below.starts_with('/').then(|| below.to_owned())
    }

    fn is_behind_proxy(&self, link: &Url) -> bool {
        let told = link.host_str().unwrap_or_default();
        let told = match link.port() {
            Some(port) => format!("{told}:{port}"),
            None => told.to_owned(),
        };
        link.scheme() == "https" && told.strip_prefix("api.").unwrap_or(&told) == self.host
    }

    /// Whose budget and view of the world a call has. Not a token's: those change every hour (GHC-049).
    pub(super) fn identity(&self, behalf: Behalf<'_>) -> String {
        match (&self.credentials, behalf) {
            (Credentials::App { .. }, Behalf::Org(org)) => org.to_lowercase(),
            (Credentials::App { .. }, Behalf::Ourselves) => "/app".to_owned(),
            _ => String::new(),
        }
    }

    /// The other way round than [`Self::identity`].
    pub(super) fn name_of_identity(&self, identity: &str) -> String {
        match identity {
            "" | "/app" => self.budget_name(Behalf::Ourselves, ""),
            org => self.budget_name(Behalf::Org(org), ""),
        }
    }

    /// How a budget is called for people and for ghproxy (GHC-013).
    pub(super) fn budget_name(&self, behalf: Behalf<'_>, path: &str) -> String {
        let Credentials::App { id, .. } = self.credentials else {
            return self.host.clone();
        };
        let slug = self.bot.get().map(|bot| bot.login.clone());
        let slug = slug.or_else(|| self.installations.slug());
        match (slug, behalf) {
            (Some(slug), Behalf::Org(org)) => format!("{slug} - {org}"),
            (None, Behalf::Org(org)) => format!("{id} - {org}"),
            (Some(slug), Behalf::Ourselves) if path != "/app" => slug,
            (_, Behalf::Ourselves) => id.to_string(),
        }
    }
}

fn throttles(rate: Option<Rate>, orgs: &BTreeMap<String, Rate>) -> Throttles {
    Throttles::new(rate, orgs, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::GitHubOptions;

    fn server(host: &str, endpoints: &[&str]) -> Server {
        let mut urls = endpoints.iter().map(|url| url.parse().unwrap());
        let api = urls.next().unwrap();
        let options = GitHubOptions {
            host: host.to_owned(),
            fallbacks: urls.collect(),
            ..GitHubOptions::new(api, Credentials::Anonymous)
        };
        Server::new(0, options.primary()).unwrap()
    }

    #[test]
    fn ghc_026_a_host_is_known_by_its_api() {
        let host = |api: &str| host_of(&api.parse().unwrap());
        assert_eq!(host("https://api.github.com"), "github.com");
        assert_eq!(host("https://ghe.example/api/v3"), "ghe.example");
        assert_eq!(host("https://api.ghe.example"), "ghe.example");
        assert_eq!(host("http://127.0.0.1:99"), "127.0.0.1:99");
        let beside = |api: &str| graphql_beside(&api.parse().unwrap()).to_string();
        assert_eq!(
            beside("https://api.github.com"),
            "https://api.github.com/graphql"
        );
        assert_eq!(
            beside("https://ghe.example/api/v3/"),
            "https://ghe.example/api/graphql"
        );
        assert_eq!(beside("http://ghproxy"), "http://ghproxy/graphql");
    }

    /// GHC-009: prefixes of Enterprise, links behind a proxy, ids instead of names; and nowhere else.
    #[test]
    fn ghc_009_links_lead_back_to_where_we_ask() {
        let follow = |server: &Server, link: &str| {
            let from = server.url(0, "/repos/o/r/labels").unwrap();
            server.below_api(&from, link)
        };
        let next = "/repositories/1/labels?page=2";
        let direct = server("github.com", &["https://api.github.com"]);
        assert_eq!(
            follow(&direct, &format!("https://api.github.com{next}")).as_deref(),
            Some(next)
        );
        assert_eq!(follow(&direct, next).as_deref(), Some(next));

        let enterprise = server("ghe.example", &["https://ghe.example/api/v3"]);
        let link = format!("https://ghe.example/api/v3{next}");
        assert_eq!(follow(&enterprise, &link).as_deref(), Some(next));

        let proxied = server(
            "ghe.example",
            &["http://ghproxy", "https://ghe.example/api/v3"],
        );
        assert_eq!(follow(&proxied, &link).as_deref(), Some(next));
        let proxied = server("github.com", &["http://ghproxy"]);
        assert_eq!(
            follow(&proxied, &format!("https://api.github.com{next}")).as_deref(),
            Some(next)
        );

        for elsewhere in [
            "https://evil.example/x",
            "http://api.github.com/x",
            "https://api.github.com:444/x",
            "https://api.github.com.evil.example/x",
        ] {
            assert_eq!(follow(&proxied, elsewhere), None, "{elsewhere}");
        }
    }
}
