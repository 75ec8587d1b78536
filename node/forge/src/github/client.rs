//! How a request reaches GitHub and what is done when it does not: the cache before it, bounded retries, limits, addresses
//! in turn, redirects, pages, and the translation of refusals into [`ForgeError`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use url::Url;

use super::answer::{complaint, decode, next_page, redirect, scopes};
use super::call::JSON;
pub(super) use super::call::{Call, Effect};
use super::credentials::{Behalf, Credentials, TokenObserver, app_jwt, bearer};
use super::etag::{EtagCache, Key};
use super::flights::{Boarding, FlightKey, Flights, Pilot};
use super::freshness::{Outdated, normal};
use super::installations::LACKS_RIGHT;
use super::limits::{Budget, Gate, Limited, Quota, limited};
use super::metrics::{Asker, CacheMode, GitHubMetrics};
use super::priority::{BACKGROUND_IN_FLIGHT, Priority};
use super::server::Server;
use super::transport::{Answer, Lost, Transport};
use super::{dry_run, graphql};
use crate::error::{ForgeError, Result};
use crate::types::RepoId;

/// Everything about a mutation, retries included, happens within this time of the call: who commits an intent before it
/// calls must be able to say when the call can no longer take effect.
pub const MUTATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests under way at once, to all servers together; GitHub's own limit is 100.
pub const MAX_IN_FLIGHT: usize = 50;

/// Pages of a list that are followed: 100 entries each.
const MAX_PAGES: usize = 300;

const MAX_REDIRECTS: usize = 3;

/// When a failed request is sent again, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts at most, the first included. That the next address is asked instead of one that is not there counts
    /// only once all were asked.
    pub tries: u32,
    /// Attempts at most while GitHub says "not found" about something it just told us of.
    pub tries_not_found: u32,
    /// The wait before the second attempt; doubled for each further one, with ±25 % jitter.
    pub first_wait: Duration,
    /// The longest wait. A rate limit that ends later is reported instead of waited for.
    pub longest_wait: Duration,
    /// How long a mutation may take with all its attempts; never more than [`MUTATION_TIMEOUT`].
    pub mutation_timeout: Duration,
    /// How long one attempt at reading may take.
    pub request_timeout: Duration,
    /// How long reading may take with all its attempts and waits, but for those of a throttle.
    pub read_deadline: Duration,
    /// How long reading may wait for a throttle. What would wait longer is told so, with the time when it may ask.
    pub throttle_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            tries_not_found: 3,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(10),
            mutation_timeout: MUTATION_TIMEOUT,
            request_timeout: Duration::from_secs(30),
            read_deadline: Duration::from_secs(90),
            throttle_wait: Duration::from_secs(10),
        }
    }
}

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
}

/// A handle: who asks, and how urgently.
#[derive(Debug, Clone)]
pub(super) struct Client {
    shared: Arc<Shared>,
    /// Where those calls go that are about no org.
    home: usize,
    plugin: Arc<str>,
    agent: Arc<str>,
    priority: Priority,
    sent: Arc<AtomicU64>,
}

/// What to do after an attempt.
pub(super) enum Verdict {
    Done(Answer),
    /// Try again after the backoff, or fail like this.
    Again(ForgeError),
    /// Nobody was there, or went away: try the next address, or fail like this.
    Elsewhere(ForgeError),
    /// Try again no sooner than `Limited::until`, or fail like this.
    Wait(Limited, ForgeError),
    /// The token was not accepted.
    Unauthorized(ForgeError, String),
    Fail(ForgeError),
}

/// With what a request proves whose it is.
struct Proof {
    headers: HeaderMap,
    /// The installation's token, if it is one.
    token: String,
}

fn agent(component: &str, plugin: &str) -> Arc<str> {
    let version = env!("CARGO_PKG_VERSION");
    let name = if plugin.is_empty() {
        format!("{component}/{version}")
    } else {
        format!("{component}.{plugin}/{version}")
    };
    // A header's value.
    name.replace(|c: char| !c.is_ascii_graphic(), "-").into()
}

impl Client {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            home: 0,
            plugin: "".into(),
            agent: agent(&shared.component, ""),
            priority: Priority::default(),
            sent: Arc::default(),
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

    pub(super) fn is_app(&self) -> bool {
        self.server(Behalf::Ourselves).is_app()
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

    fn server(&self, behalf: Behalf<'_>) -> &Server {
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
                self.doubt(server.index, &outdated);
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
            if let Some(answer) = self.shared.cache.unchanging(&key, Instant::now()) {
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

    /// What is told of a repository may have changed; with a number, what is told of that issue or pull request.
    pub(super) fn invalidate(&self, repo: &RepoId, number: Option<u64>) {
        let server = self.server_of(&repo.org).index;
        self.doubt(server, &Outdated::repo(&repo.org, &repo.repo, number));
    }

    fn doubt(&self, server: usize, outdated: &Outdated) {
        let shared = &self.shared;
        shared
            .flights
            .ground(|key| key.server == server && outdated.covers(&key.path));
        shared.cache.doubt(server, outdated);
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
            let verdict = self
                .attempt(server, call, address, &mut deadline, asked)
                .await?;
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
                    (error, self.backoff(attempt), "retry")
                }
                Verdict::Again(error) => (error, self.backoff(attempt), "retry"),
                Verdict::Wait(limited, error) => {
                    let wait = limited
                        .until
                        .duration_since(Timestamp::now())
                        .unsigned_abs();
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
            if attempt >= tries || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(request = call.name(), attempt, ?wait, %error, "trying again");
            self.metrics().waited(why, wait);
            sleep(wait).await;
            attempt += 1;
        }
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let retry = &self.shared.retry;
        let doubled = retry
            .first_wait
            .saturating_mul(1 << attempt.saturating_sub(1).min(16));
        doubled
            .min(retry.longest_wait)
            .mul_f64(rand::random_range(0.75..=1.25))
    }

    /// One attempt, redirects included. An error ends the call.
    async fn attempt(
        &self,
        server: &Server,
        call: &Call<'_>,
        address: usize,
        deadline: &mut Instant,
        asked: Option<(&Key, &Pilot<'_>)>,
    ) -> Result<Verdict> {
        let shared = &self.shared;
        let budget = Budget {
            server: server.index,
            identity: server.identity(call.behalf),
            api: call.api(),
        };
        if let Some(limited) = shared.gate.closed(&budget, self.priority, Timestamp::now()) {
            return Ok(Verdict::Wait(limited, rate_limited(call, limited)));
        }
        let org = match call.behalf {
            Behalf::Org(org) => org,
            Behalf::Ourselves => "",
        };
        let throttle = server.throttles.of(org);
        let token = throttle.map(|throttle| throttle.take(Instant::now()));
        if let Some(token) = &token {
            let wait = token.at.saturating_duration_since(Instant::now());
            let too_long = if call.changes() {
                token.at >= *deadline
            } else {
                wait > shared.retry.throttle_wait
            };
            if too_long {
                let until = Timestamp::now().saturating_add(wait);
                let limited = Limited {
                    until: until.unwrap_or(Timestamp::MAX),
                    secondary: false,
                };
                return Ok(Verdict::Fail(rate_limited(call, limited)));
            }
            if !wait.is_zero() {
                shared.metrics.waited("throttle", wait);
                sleep_until(token.at).await;
                // A change has its time from when it was asked for.
                if !call.changes() {
                    *deadline += wait;
                }
            }
        }
        let deadline = *deadline;
        // Before a slot is taken: a token may have to be asked for, which takes one.
        let proof = self.proof(server, call).await?;
        let _background = match self.priority {
            Priority::Background => {
                Some(slot(&shared.background, BACKGROUND_IN_FLIGHT, call, deadline).await?)
            }
            Priority::Prompt => None,
        };
        let _slot = slot(&shared.in_flight, MAX_IN_FLIGHT, call, deadline).await?;
        let mut headers = proof.headers;
        headers.insert(header::ACCEPT, call.accept());
        let condition = asked.and_then(|(key, _)| shared.cache.condition(key));
        let is_conditional = condition.is_some();
        if let Some(condition) = condition {
            condition.put(&mut headers);
        }
        let mut url = self.url(server, call, address)?;
        for _ in 0..=MAX_REDIRECTS {
            // Whoever counts on the end of a change must find that nothing is sent after it.
            if Instant::now() >= deadline {
                let error = unavailable(call, "no time was left to ask", false);
                return Ok(Verdict::Fail(error));
            }
            let answer = match self
                .send(server, call, &url, &headers, &budget, deadline)
                .await
            {
                Ok(answer) => answer,
                Err(lost) => {
                    // It may have cost something.
                    if let Some(token) = token {
                        token.spend();
                    }
                    return Ok(judge_lost(call, lost));
                }
            };
            if answer.status == StatusCode::NOT_MODIFIED {
                // Only what was asked for conditionally is answered so; if it fell out of the cache meanwhile, ask anew.
                let known = asked.and_then(|(key, _)| shared.cache.confirmed(key, Instant::now()));
                let Some(answer) = known else {
                    headers.remove(header::IF_NONE_MATCH);
                    headers.remove(header::IF_MODIFIED_SINCE);
                    continue;
                };
                // It was free, so that the throttle gets its token back.
                self.cached(server, call, CacheMode::Revalidated);
                return Ok(Verdict::Done(answer));
            }
            if let Some(target) = redirect(call, &answer) {
                let below = server.below_api(&url, &target);
                let path = below.filter(|_| !call.graphql).ok_or_else(|| {
                    let message = format!("redirected to another server: {target}");
                    refused(call, &answer, message, vec![])
                })?;
                let to = server.url(address, &path);
                url = to.map_err(|error| no_url(call, error))?;
                continue;
            }
            if let Some(token) = token
                && !was_free(&answer)
            {
                token.spend();
            }
            if !answer.status.is_success() {
                return Ok(self.judge(server, call, &answer, budget, proof.token));
            }
            if call.graphql {
                return Ok(self.judge_graphql(server, call, answer, budget));
            }
            self.keep(server, call, &answer, is_conditional, asked);
            return Ok(Verdict::Done(answer));
        }
        Err(ForgeError::Decode {
            request: call.name(),
            reason: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    fn keep(
        &self,
        server: &Server,
        call: &Call<'_>,
        answer: &Answer,
        is_conditional: bool,
        asked: Option<(&Key, &Pilot<'_>)>,
    ) {
        let Some((key, pilot)) = asked else {
            self.cached(server, call, CacheMode::Skip);
            return;
        };
        let shared = &self.shared;
        // What was asked before a change may be what was before it.
        if pilot.is_current() {
            shared.cache.put(key.clone(), answer, Instant::now());
            shared.metrics.cache_is(shared.cache.bytes());
        }
        let has_condition = answer.headers.contains_key(header::ETAG)
            || answer.headers.contains_key(header::LAST_MODIFIED);
        let mode = match (is_conditional, has_condition) {
            (true, _) => CacheMode::Changed,
            (false, true) => CacheMode::Miss,
            (false, false) => CacheMode::NoStore,
        };
        self.cached(server, call, mode);
    }

    /// One request and its answer, written down.
    async fn send(
        &self,
        server: &Server,
        call: &Call<'_>,
        url: &Url,
        headers: &HeaderMap,
        budget: &Budget,
        deadline: Instant,
    ) -> std::result::Result<Answer, Lost> {
        let shared = &self.shared;
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began);
        let within = if call.changes() {
            left
        } else {
            left.min(shared.retry.request_timeout)
        };
        self.sent.fetch_add(1, Ordering::Relaxed);
        let body = call.body.as_deref();
        let outcome = shared
            .transport
            .send(&call.method, url, headers, &self.agent, body, within)
            .await;
        let name = server.budget_name(call.behalf, &call.path);
        let asker = self.asker(server, &name);
        let status = outcome.as_ref().map_or(0, |answer| answer.status.as_u16());
        let api = call.api();
        shared.metrics.sent(
            asker,
            api.version(),
            &call.method,
            &call.path,
            status,
            began.elapsed(),
        );
        if let Ok(answer) = &outcome
            && let Some(told) = Quota::of(&answer.headers, api)
        {
            let quota = shared.gate.tell(budget, told);
            shared.metrics.quota(&name, api, quota);
        }
        outcome
    }

    fn asker<'a>(&'a self, server: &'a Server, budget: &'a str) -> Asker<'a> {
        Asker {
            host: &server.host,
            plugin: &self.plugin,
            agent: &self.agent,
            budget,
        }
    }

    fn cached(&self, server: &Server, call: &Call<'_>, mode: CacheMode) {
        let name = server.budget_name(call.behalf, &call.path);
        self.metrics()
            .cached(self.asker(server, &name), &call.path, mode);
    }

    fn judge(
        &self,
        server: &Server,
        call: &Call<'_>,
        answer: &Answer,
        budget: Budget,
        token: String,
    ) -> Verdict {
        let (message, errors) = complaint(&answer.body);
        let now = Timestamp::now();
        if let Some(limited) = limited(answer.status, &answer.headers, &message, now) {
            // Refused before anything was done, so that even a comment may be sent again.
            return self.closed(call, budget, limited);
        }
        let request = call.name();
        match answer.status {
            StatusCode::UNAUTHORIZED => {
                Verdict::Unauthorized(ForgeError::Unauthorized { request, message }, token)
            }
            StatusCode::FORBIDDEN => {
                if let Behalf::Org(org) = call.behalf
                    && server.is_app()
                    && message.contains("Resource not accessible by integration")
                {
                    self.note_failing(server, org, LACKS_RIGHT);
                }
                let message = scopes(&answer.headers).unwrap_or(message);
                Verdict::Fail(ForgeError::Forbidden { request, message })
            }
            StatusCode::NOT_FOUND => {
                let error = ForgeError::NotFound { request, message };
                if call.effect == Effect::ReadNew {
                    Verdict::Again(error)
                } else {
                    Verdict::Fail(error)
                }
            }
            status if status.is_server_error() => {
                let once = call.effect == Effect::Once;
                let reason = if message.is_empty() {
                    format!("status {status}")
                } else {
                    format!("status {status}: {message}")
                };
                let error = unavailable(call, &reason, once);
                if once {
                    Verdict::Fail(error)
                } else {
                    Verdict::Again(error)
                }
            }
            _ => Verdict::Fail(refused(call, answer, message, errors)),
        }
    }

    /// Nothing more is sent on this budget until the limit is over.
    fn closed(&self, call: &Call<'_>, budget: Budget, limited: Limited) -> Verdict {
        self.shared.gate.close(budget, limited, Timestamp::now());
        Verdict::Wait(limited, rate_limited(call, limited))
    }

    /// GraphQL complains with a status that says "fine".
    fn judge_graphql(
        &self,
        server: &Server,
        call: &Call<'_>,
        answer: Answer,
        budget: Budget,
    ) -> Verdict {
        let told = graphql::peek(&answer);
        if let Some(cost) = told.cost {
            let name = server.budget_name(call.behalf, &call.path);
            self.metrics().cost(self.asker(server, &name), cost);
        }
        self.cached(server, call, CacheMode::NoStore);
        match told.refusal {
            None => Verdict::Done(answer),
            Some(graphql::Refusal::RateLimited) => {
                // The headers say until when.
                let now = Timestamp::now();
                let limited = limited(StatusCode::TOO_MANY_REQUESTS, &answer.headers, "", now);
                let limited = limited.unwrap_or(Limited {
                    until: now,
                    secondary: false,
                });
                self.closed(call, budget, limited)
            }
            Some(graphql::Refusal::GaveUp(message)) => {
                let once = call.effect == Effect::Once;
                let error = unavailable(call, &message, once);
                if once {
                    Verdict::Fail(error)
                } else {
                    Verdict::Again(error)
                }
            }
        }
    }

    fn url(&self, server: &Server, call: &Call<'_>, address: usize) -> Result<Url> {
        let url = if call.graphql {
            server.graphql_url(address)
        } else {
            server.url(address, &call.path)
        };
        url.map_err(|error| no_url(call, error))
    }

    async fn proof(&self, server: &Server, call: &Call<'_>) -> Result<Proof> {
        let mut expires = None;
        let mut proof = Proof {
            headers: HeaderMap::new(),
            token: String::new(),
        };
        let secret = match (&server.credentials, call.behalf) {
            (Credentials::Anonymous, _) => return Ok(proof),
            (Credentials::Token(token), _) => token(),
            (Credentials::App { id, key }, Behalf::Ourselves) => {
                app_jwt(*id, key).map_err(|message| ForgeError::Unauthorized {
                    request: call.name(),
                    message,
                })?
            }
            (Credentials::App { .. }, Behalf::Org(org)) => {
                let token = self.installation_token(server, org).await?;
                expires = Some(token.expires_at);
                proof.token.clone_from(&token.token);
                token.token
            }
        };
        if secret.trim().is_empty() {
            return Ok(proof);
        }
        let authorization = bearer(&secret).ok_or_else(|| ForgeError::Unauthorized {
            request: call.name(),
            message: "our token has characters that no header can carry".to_owned(),
        })?;
        proof.headers.insert(header::AUTHORIZATION, authorization);
        if server.is_app() {
            let name = server.budget_name(call.behalf, &call.path);
            for_ghproxy(&mut proof.headers, &name, expires);
        }
        Ok(proof)
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

/// GHC-013: a ghproxy on the way keeps its books by these.
fn for_ghproxy(headers: &mut HeaderMap, budget: &str, expires: Option<Timestamp>) {
    /// The proof that we are the app is good for so long.
    const JWT: Duration = Duration::from_secs(9 * 60);
    let expires = expires.or_else(|| Timestamp::now().checked_add(JWT).ok());
    let expires = expires.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    for (name, value) in [
        (
            "x-prow-ghcache-token-budget-identifier",
            Some(budget.to_owned()),
        ),
        ("x-prow-token-expires-at", expires),
    ] {
        if let Some(Ok(value)) = value.map(http::HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
}

/// GHC-011: a ghproxy on the way says that it cost nothing.
fn was_free(answer: &Answer) -> bool {
    let mode = answer.headers.get("x-cache-mode");
    mode.is_some_and(|mode| mode == "COALESCED" || mode == "REVALIDATED")
}

async fn slot<'a>(
    of: &'a Semaphore,
    most: usize,
    call: &Call<'_>,
    deadline: Instant,
) -> Result<SemaphorePermit<'a>> {
    match timeout_at(deadline, of.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(unavailable(call, "shutting down", false)),
        Err(_) => {
            let reason = format!("{most} requests are under way already, and none of them ends");
            Err(unavailable(call, &reason, false))
        }
    }
}

fn judge_lost(call: &Call<'_>, lost: Lost) -> Verdict {
    if lost.too_large {
        return Verdict::Fail(ForgeError::Decode {
            request: call.name(),
            reason: lost.reason,
        });
    }
    let maybe_sent = lost.maybe_sent && call.effect == Effect::Once;
    let error = unavailable(call, &lost.reason, maybe_sent);
    if maybe_sent {
        Verdict::Fail(error)
    } else {
        Verdict::Elsewhere(error)
    }
}

fn no_url(call: &Call<'_>, error: url::ParseError) -> ForgeError {
    ForgeError::Decode {
        request: call.name(),
        reason: error.to_string(),
    }
}

fn rate_limited(call: &Call<'_>, limited: Limited) -> ForgeError {
    ForgeError::RateLimited {
        request: call.name(),
        until: limited.until,
        secondary: limited.secondary,
    }
}

pub(super) fn unavailable(call: &Call<'_>, reason: &str, maybe_sent: bool) -> ForgeError {
    ForgeError::Unavailable {
        request: call.name(),
        reason: reason.to_owned(),
        maybe_sent,
    }
}

fn refused(call: &Call<'_>, answer: &Answer, message: String, errors: Vec<String>) -> ForgeError {
    ForgeError::Refused {
        request: call.name(),
        status: answer.status.as_u16(),
        message,
        errors,
    }
}
