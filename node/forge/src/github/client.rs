//! How a call becomes requests: the cache before it, flights that are shared, bounded retries, addresses in turn, and
//! pages. What happens in one of its attempts stands in `attempt`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Method;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};
use url::Url;

use super::answer::{decode, next_page};
use super::as_of::AsOf;
use super::attempt::Address;
use super::call::JSON;
pub(super) use super::call::{Call, Effect};
use super::clock::Clock;
use super::credentials::{Behalf, Credentials, TokenObserver};
use super::dry_run;
use super::etag::{EtagCache, Key};
use super::flights::{Boarding, FlightKey, Flights, Pilot};
use super::freshness::{Outdated, normal};
use super::limits::Gate;
use super::metrics::{Asker, CacheMode, GitHubMetrics};
use super::priority::Priority;
use super::retry::{MUTATION_TIMEOUT, RetryPolicy};
use super::server::Server;
use super::transport::{Answer, Transport};
use super::verdict::{Verdict, no_url};
use crate::error::{ForgeError, Result};
use crate::types::RepoId;

/// Requests under way at once, to all servers together; GitHub's own limit is 100.
pub const MAX_IN_FLIGHT: usize = 50;

/// Pages of a list that are followed: 100 entries each.
const MAX_PAGES: usize = 300;

/// What all handles of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The first is where all orgs live that are named by none of the others.
    pub(super) servers: Vec<Server>,
    /// By org in lower case.
    pub(super) orgs: BTreeMap<String, usize>,
    pub(super) retry: RetryPolicy,
    pub(super) transport: Transport,
    pub(super) cache: EtagCache,
    pub(super) flights: Flights,
    pub(super) gate: Gate,
    pub(super) observer: Mutex<TokenObserver>,
    pub(super) in_flight: Semaphore,
    pub(super) background: Semaphore,
    pub(super) metrics: GitHubMetrics,
    pub(super) dry_run: bool,
    pub(super) component: String,
    pub(super) clock: Clock,
    /// How often somebody who was away returned.
    pub(super) returns: watch::Sender<u64>,
}

/// A handle: who asks, and how urgently.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    /// Where those calls go that are about no org.
    home: usize,
    plugin: Arc<str>,
    pub(super) agent: Arc<str>,
    pub(super) priority: Priority,
    pub(super) sent: Arc<AtomicU64>,
    as_of: Option<AsOf>,
}

pub(super) fn agent(component: &str, plugin: &str) -> Arc<str> {
    let version = env!("CARGO_PKG_VERSION");
    let name = if plugin.is_empty() {
        format!("{component}/{version}")
    } else {
        format!("{component}.{plugin}/{version}")
    };
    // A header's value.
    name.replace(|c: char| !c.is_ascii_graphic(), "-").into()
}

/// Whether a segment of the path is one of dots, which a URL resolves: a person whom a file calls `..` would be asked for
/// as the list of all.
fn leads_elsewhere(path: &str) -> bool {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

impl Client {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            home: 0,
            plugin: "".into(),
            agent: agent(&shared.component, ""),
            priority: Priority::default(),
            sent: Arc::default(),
            as_of: None,
            shared: Arc::new(shared),
        }
    }

    /// Requests under way, and how many may be.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        let free = self.shared.in_flight.available_permits();
        (MAX_IN_FLIGHT.saturating_sub(free), MAX_IN_FLIGHT)
    }

    /// Requests that left through this handle and its clones.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn for_plugin(&self, name: &str) -> Self {
        Self {
            plugin: name.into(),
            agent: agent(&self.shared.component, name),
            sent: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn with_priority(&self, priority: Priority) -> Self {
        Self {
            priority,
            ..self.clone()
        }
    }

    /// What was asked for since then is new enough for whoever has this handle.
    pub(super) fn as_of(&self, as_of: AsOf) -> Self {
        Self {
            as_of: Some(as_of),
            ..self.clone()
        }
    }

    /// The same handle for what may have changed a moment ago: nothing that was asked for before will do.
    pub(super) fn anew(&self) -> Self {
        Self {
            as_of: None,
            ..self.clone()
        }
    }

    /// Asks this server whatever is about no org.
    pub(super) fn at(&self, home: usize) -> Self {
        Self {
            home,
            ..self.clone()
        }
    }

    pub(super) fn servers(&self) -> &[Server] {
        &self.shared.servers
    }

    pub(super) fn server_of(&self, org: &str) -> &Server {
        self.server(Behalf::Org(org))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub(super) fn metrics(&self) -> &GitHubMetrics {
        &self.shared.metrics
    }

    pub(super) fn tell(&self, observer: TokenObserver) {
        let told = &self.shared.observer;
        *told.lock().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    pub(super) fn observe(&self, token: &str, expires_at: Timestamp) {
        let told = &self.shared.observer;
        let observer = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        observer.tell(token, expires_at);
    }

    pub(super) fn server(&self, behalf: Behalf<'_>) -> &Server {
        let index = match behalf {
            Behalf::Org(org) => self
                .shared
                .orgs
                .get(&org.to_lowercase())
                .copied()
                .unwrap_or(0),
            Behalf::Ourselves => self.home,
        };
        // There is always one, and every index is that of one.
        &self.shared.servers[index]
    }

    /// A call whose answer is JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T> {
        let answer = self.call(call).await?;
        decode(call, &answer)
    }

    /// All pages of a list.
    pub(super) async fn all<T: DeserializeOwned>(&self, first: Call<'_>) -> Result<Vec<T>> {
        self.pages(first, |page: Vec<T>| page).await
    }

    /// All pages of a list that is wrapped in an object.
    pub(super) async fn pages<P: DeserializeOwned, T>(
        &self,
        first: Call<'_>,
        mut unwrap: impl FnMut(P) -> Vec<T>,
    ) -> Result<Vec<T>> {
        let mut call = first;
        let separator = if call.path.contains('?') { '&' } else { '?' };
        call.path = format!("{}{separator}per_page=100", call.path);
        let server = self.server(call.behalf);
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.call(&call).await?;
            all.extend(unwrap(decode(&call, &answer)?));
            let Some(next) = next_page(&answer.headers) else {
                return Ok(all);
            };
            let from = self.url(server, &call, 0)?;
            call.path = server
                .below_api(&from, &next)
                .ok_or_else(|| ForgeError::Decode {
                    request: call.name(),
                    reason: format!("the next page is on another server: {next}"),
                })?;
        }
        Err(ForgeError::Decode {
            request: call.name(),
            reason: format!("the list has more than {MAX_PAGES} pages"),
        })
    }

    /// Sends a call, again if need be; answers only with a 2xx.
    pub(super) fn call<'a>(&'a self, call: &'a Call<'_>) -> BoxFuture<'a, Result<Answer>> {
        // Boxed: finding the credentials of an installation is itself a call.
        Box::pin(async move {
            if leads_elsewhere(&call.path) {
                return Err(ForgeError::NotFound {
                    request: call.name(),
                    message: "nothing has such a name".to_owned(),
                });
            }
            if call.method == Method::GET {
                return self.read(call).await;
            }
            if self.shared.dry_run && !dry_run::lets_out(call) {
                tracing::info!(request = call.name(), "dry run: not sent");
                return Ok(dry_run::answer(call));
            }
            let server = self.server(call.behalf);
            let outcome = self.call_with_retries(server, call, None).await;
            let may_have_changed = match &outcome {
                Ok(_) => true,
                Err(error) => error.is_outage(),
            };
            if let Some(outdated) = Outdated::by(call).filter(|_| may_have_changed) {
                self.doubt(server.index, &outdated, Some(&self.plugin));
            }
            outcome
        })
    }

    /// A question, answered from what is known where that will do.
    async fn read(&self, call: &Call<'_>) -> Result<Answer> {
        let server = self.server(call.behalf);
        let key = Key {
            server: server.index,
            path: normal(&call.path),
            identity: server.identity(call.behalf),
            accept: JSON,
        };
        loop {
            if let Some(answer) = self.known(&key, Instant::now()) {
                self.cached(server, call, CacheMode::Hit);
                return Ok(answer);
            }
            let flight = FlightKey {
                key: key.clone(),
                effect: call.effect,
                priority: self.priority,
            };
            match self.shared.flights.board(flight) {
                Boarding::Passenger(passenger) => {
                    if let Some(outcome) = passenger.outcome().await {
                        self.cached(server, call, CacheMode::Coalesced);
                        return outcome;
                    }
                }
                Boarding::Pilot(pilot) => {
                    let asked = Some((&key, &pilot));
                    let outcome = self.call_with_retries(server, call, asked).await;
                    pilot.land(&outcome);
                    return outcome;
                }
            }
        }
    }

    /// An answer that needs no question.
    fn known(&self, key: &Key, now: Instant) -> Option<Answer> {
        let cache = &self.shared.cache;
        cache.unchanging(key, now).or_else(|| {
            let since = self.as_of.as_ref()?.since(now);
            cache.as_new_as(key, since, &self.plugin)
        })
    }

    /// What is told of a repository may have changed; with a number, what is told of that issue or pull request.
    pub(super) fn invalidate(&self, repo: &RepoId, number: Option<u64>) {
        let server = self.server_of(&repo.org).index;
        self.doubt(server, &Outdated::repo(&repo.org, &repo.repo, number), None);
    }

    /// `by`: the plugin that has changed something; `None` for others.
    fn doubt(&self, server: usize, outdated: &Outdated, by: Option<&Arc<str>>) {
        let shared = &self.shared;
        shared
            .flights
            .ground(|key| key.server == server && outdated.covers(&key.path));
        shared.cache.doubt(server, outdated, by);
    }

    pub(super) fn invalidate_all(&self) {
        self.shared.flights.ground(|_| true);
        self.shared.cache.doubt_all();
    }

    async fn call_with_retries(
        &self,
        server: &Server,
        call: &Call<'_>,
        asked: Option<(&Key, &Pilot<'_>)>,
    ) -> Result<Answer> {
        let retry = &self.shared.retry;
        let within = if call.changes() {
            retry.mutation_timeout.min(MUTATION_TIMEOUT)
        } else {
            retry.read_deadline
        };
        let mut deadline = Instant::now() + within;
        let mut renewed = false;
        let mut attempt = 1;
        let addresses = server.addresses(call.graphql);
        let (mut address, mut untried) = (0, addresses.saturating_sub(1));
        loop {
            let at = Address {
                index: address,
                is_last: untried == 0,
            };
            let verdict = self.attempt(server, call, at, &mut deadline, asked).await?;
            let tries_left = !matches!(verdict, Verdict::Away(_));
            let (error, wait, why) = match verdict {
                Verdict::Done(answer) => return Ok(answer),
                Verdict::Unauthorized(error, token) => {
                    // An installation token can be revoked before it expires: once, get another.
                    if let Behalf::Org(org) = call.behalf
                        && server.is_app()
                        && !renewed
                    {
                        server.installations.refused(org, &token);
                        renewed = true;
                        continue;
                    }
                    return Err(error);
                }
                Verdict::Fail(error) => return Err(error),
                Verdict::Elsewhere(error) => {
                    address = (address + 1) % addresses.max(1);
                    if untried > 0 && Instant::now() < deadline {
                        untried -= 1;
                        tracing::debug!(request = call.name(), address, %error, "trying the next address");
                        continue;
                    }
                    (error, retry.backoff(attempt), "retry")
                }
                Verdict::Again(error) => (error, retry.backoff(attempt), "retry"),
                Verdict::Away(error) => (error, Duration::ZERO, "retry"),
                Verdict::Wait(limited, error) => {
                    let wait = limited.until.duration_since(self.now()).unsigned_abs();
                    if wait > retry.longest_wait {
                        return Err(error);
                    }
                    (error, wait, "limit")
                }
            };
            if let (Some((key, _)), ForgeError::Unavailable { .. }) = (asked, &error)
                && let Some(answer) = self.shared.cache.stale(key, Instant::now())
            {
                tracing::warn!(request = call.name(), %error, "GitHub is broken: an old answer stands in");
                self.cached(server, call, CacheMode::Stale);
                return Ok(answer);
            }
            let tries = if error.is_not_found() {
                retry.tries_not_found
            } else {
                retry.tries
            };
            if !tries_left || attempt >= tries || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(request = call.name(), attempt, ?wait, %error, "trying again");
            self.metrics().waited(why, wait);
            sleep(wait).await;
            attempt += 1;
        }
    }

    pub(super) fn asker<'a>(&'a self, server: &'a Server, budget: &'a str) -> Asker<'a> {
        Asker {
            host: &server.host,
            plugin: &self.plugin,
            agent: &self.agent,
            budget,
        }
    }

    pub(super) fn cached(&self, server: &Server, call: &Call<'_>, mode: CacheMode) {
        let name = server.budget_name(call.behalf, &call.path);
        self.metrics()
            .cached(self.asker(server, &name), &call.path, mode);
    }

    pub(super) fn url(&self, server: &Server, call: &Call<'_>, address: usize) -> Result<Url> {
        let url = if call.graphql {
            server.graphql_url(address)
        } else {
            server.url(address, &call.path)
        };
        url.map_err(|error| no_url(call, error))
    }

    /// A secret with which git may read and write the organisation's repositories; `None` if we are anonymous.
    pub(super) async fn git_secret(&self, org: &str) -> Result<Option<String>> {
        let server = self.server_of(org);
        match &server.credentials {
            Credentials::Anonymous => Ok(None),
            Credentials::Token(token) => Ok(Some(token().trim().to_owned())),
            Credentials::App { .. } => {
                let token = self.installation_token(server, org).await?;
                Ok(Some(token.token))
            }
        }
    }
}
