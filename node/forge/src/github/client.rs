//! How a request reaches GitHub and what is done when it does not: credentials, conditional requests, bounded retries,
//! rate limits, redirects, pages, and the translation of refusals into [`ForgeError`].

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use url::Url;

use super::answer::{complaint, decode, next_page, redirect, scopes};
use super::credentials::{
    Behalf, Credentials, InstallationToken, Installations, TokenObserver, WireInstallation,
    app_jwt, bearer,
};
use super::etag::{EtagCache, Key};
use super::limits::{Budget, Gate, Limited, limited};
use super::transport::{Answer, Lost, Transport};
use crate::error::{ForgeError, Result};

/// Everything about a mutation, retries included, happens within this time of the call: who commits an intent before it
/// calls must be able to say when the call can no longer take effect.
pub const MUTATION_TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt at reading.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reading with all its attempts.
const READ_DEADLINE: Duration = Duration::from_secs(90);

/// Requests under way at once; GitHub's own limit is 100.
const MAX_IN_FLIGHT: usize = 50;

/// Pages of a list that are followed: 100 entries each.
const MAX_PAGES: usize = 300;

const MAX_REDIRECTS: usize = 3;

pub(super) const JSON: &str = "application/vnd.github+json";

/// When a failed request is sent again, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts at most, the first included.
    pub tries: u32,
    /// Attempts at most while GitHub says "not found" about something it just told us of.
    pub tries_not_found: u32,
    /// The wait before the second attempt; doubled for each further one, with ±25 % jitter.
    pub first_wait: Duration,
    /// The longest wait. A rate limit that ends later is reported instead of waited for.
    pub longest_wait: Duration,
    /// How long a mutation may take with all its attempts; never more than [`MUTATION_TIMEOUT`].
    pub mutation_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            tries: 5,
            tries_not_found: 3,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(10),
            mutation_timeout: MUTATION_TIMEOUT,
        }
    }
}

/// What may happen if a request is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: it only reads.
    Read,
    /// Nothing: it only reads, and what it reads about is so new that GitHub may not find it yet.
    ReadNew,
    /// The same as if it is sent once.
    Idempotent,
    /// Something else: never sent again unless it certainly did nothing.
    Once,
}

#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Below the API's root, with query: `/repos/o/r/pulls/1?x=y`.
    pub(super) path: String,
    pub(super) body: Option<String>,
    pub(super) behalf: Behalf<'a>,
    pub(super) effect: Effect,
    pub(super) graphql: bool,
}

impl<'a> Call<'a> {
    pub(super) fn read(path: String, behalf: Behalf<'a>) -> Self {
        Self {
            method: Method::GET,
            path,
            body: None,
            behalf,
            effect: Effect::Read,
            graphql: false,
        }
    }

    pub(super) fn read_new(path: String, behalf: Behalf<'a>) -> Self {
        Self {
            effect: Effect::ReadNew,
            ..Self::read(path, behalf)
        }
    }

    pub(super) fn change(
        method: Method,
        path: String,
        behalf: Behalf<'a>,
        effect: Effect,
        body: Option<&serde_json::Value>,
    ) -> Self {
        Self {
            method,
            body: body.map(ToString::to_string),
            effect,
            ..Self::read(path, behalf)
        }
    }

    /// How the call is named in errors and logs.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn changes(&self) -> bool {
        matches!(self.effect, Effect::Idempotent | Effect::Once)
    }
}

#[derive(Debug)]
pub(super) struct Client {
    api: Url,
    graphql: Url,
    credentials: Credentials,
    retry: RetryPolicy,
    transport: Transport,
    etags: EtagCache,
    gate: Gate,
    installations: Installations,
    pub(super) observer: TokenObserver,
    in_flight: Arc<Semaphore>,
}

/// What to do after an attempt.
enum Verdict {
    Done(Answer),
    /// Try again after the backoff, or fail like this.
    Again(ForgeError),
    /// Try again no sooner than `Limited::until`, or fail like this.
    Wait(Limited, ForgeError),
    Fail(ForgeError),
}

impl Client {
    pub(super) fn new(
        api: Url,
        graphql: Url,
        credentials: Credentials,
        retry: RetryPolicy,
        transport: Transport,
    ) -> Self {
        Self {
            api,
            graphql,
            credentials,
            retry,
            transport,
            etags: EtagCache::default(),
            gate: Gate::default(),
            installations: Installations::default(),
            observer: TokenObserver::default(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// Requests under way, and how many may be.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        let free = self.in_flight.available_permits();
        (MAX_IN_FLIGHT.saturating_sub(free), MAX_IN_FLIGHT)
    }

    pub(super) fn is_app(&self) -> bool {
        matches!(self.credentials, Credentials::App { .. })
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
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.call(&call).await?;
            all.extend(unwrap(decode(&call, &answer)?));
            let Some(next) = next_page(&answer.headers) else {
                return Ok(all);
            };
            call.path = self.below_api(&next).ok_or_else(|| ForgeError::Decode {
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
        Box::pin(self.call_with_retries(call))
    }

    async fn call_with_retries(&self, call: &Call<'_>) -> Result<Answer> {
        let within = if call.changes() {
            self.retry.mutation_timeout.min(MUTATION_TIMEOUT)
        } else {
            READ_DEADLINE
        };
        let deadline = Instant::now() + within;
        let mut renewed = false;
        let mut attempt = 1;
        loop {
            let verdict = self.attempt(call, deadline).await?;
            let (error, wait) = match verdict {
                Verdict::Done(answer) => return Ok(answer),
                // An installation token can be revoked before it expires: once, get another.
                Verdict::Fail(ForgeError::Unauthorized { .. })
                    if self.is_app() && !renewed && matches!(call.behalf, Behalf::Org(_)) =>
                {
                    if let Behalf::Org(org) = call.behalf {
                        self.installations.forget(org);
                    }
                    renewed = true;
                    continue;
                }
                Verdict::Fail(error) => return Err(error),
                Verdict::Again(error) => {
                    let tries = if error.is_not_found() {
                        self.retry.tries_not_found
                    } else {
                        self.retry.tries
                    };
                    if attempt >= tries {
                        return Err(error);
                    }
                    (error, self.backoff(attempt))
                }
                Verdict::Wait(limited, error) => {
                    let wait = limited
                        .until
                        .duration_since(Timestamp::now())
                        .unsigned_abs();
                    if attempt >= self.retry.tries || wait > self.retry.longest_wait {
                        return Err(error);
                    }
                    (error, wait)
                }
            };
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(request = call.name(), attempt, ?wait, %error, "trying again");
            sleep(wait).await;
            attempt += 1;
        }
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let doubled = self
            .retry
            .first_wait
            .saturating_mul(1 << attempt.saturating_sub(1).min(16));
        doubled
            .min(self.retry.longest_wait)
            .mul_f64(rand::random_range(0.75..=1.25))
    }

    /// One attempt, redirects included. An error ends the call.
    async fn attempt(&self, call: &Call<'_>, deadline: Instant) -> Result<Verdict> {
        let identity = self.identity(call.behalf);
        let budget = Budget {
            identity: identity.clone(),
            graphql: call.graphql,
        };
        if let Some(limited) = self.gate.closed(&budget, Timestamp::now()) {
            let error = ForgeError::RateLimited {
                request: call.name(),
                until: limited.until,
                secondary: limited.secondary,
            };
            return Ok(Verdict::Wait(limited, error));
        }
        let Ok(_permit) = self.in_flight.acquire().await else {
            return Err(unavailable(call, "shutting down", false));
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(JSON));
        if let Some(authorization) = self.authorization(call).await? {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let mut url = self.url(call)?;
        let key = (call.method == Method::GET).then(|| Key {
            identity,
            accept: JSON,
            url: url.to_string(),
        });
        if let Some(etag) = key.as_ref().and_then(|key| self.etags.etag(key)) {
            headers.insert(header::IF_NONE_MATCH, etag);
        }
        for _ in 0..=MAX_REDIRECTS {
            let left = deadline.saturating_duration_since(Instant::now());
            let within = if call.changes() {
                left
            } else {
                left.min(READ_TIMEOUT)
            };
            let answer = match self
                .transport
                .send(&call.method, &url, &headers, call.body.as_deref(), within)
                .await
            {
                Ok(answer) => answer,
                Err(lost) => return Ok(judge_lost(call, lost)),
            };
            if answer.status == StatusCode::NOT_MODIFIED {
                // Only what was asked for conditionally is answered so; if it fell out of the cache meanwhile, ask anew.
                let Some(answer) = key.as_ref().and_then(|key| self.etags.get(key)) else {
                    headers.remove(header::IF_NONE_MATCH);
                    continue;
                };
                return Ok(Verdict::Done(answer));
            }
            if let Some(target) = redirect(call, &answer) {
                url = self.same_server(&url, &target).ok_or_else(|| {
                    refused(
                        call,
                        &answer,
                        format!("redirected to another server: {target}"),
                        vec![],
                    )
                })?;
                continue;
            }
            if answer.status.is_success() {
                if let Some(key) = key {
                    self.etags.put(key, &answer);
                }
                return Ok(Verdict::Done(answer));
            }
            return Ok(self.judge(call, &answer, budget));
        }
        Err(ForgeError::Decode {
            request: call.name(),
            reason: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    fn judge(&self, call: &Call<'_>, answer: &Answer, budget: Budget) -> Verdict {
        let (message, errors) = complaint(&answer.body);
        let now = Timestamp::now();
        if let Some(limited) = limited(answer.status, &answer.headers, &message, now) {
            self.gate.close(budget, limited, now);
            let error = ForgeError::RateLimited {
                request: call.name(),
                until: limited.until,
                secondary: limited.secondary,
            };
            // Refused before anything was done, so that even a comment may be sent again.
            return Verdict::Wait(limited, error);
        }
        let request = call.name();
        match answer.status {
            StatusCode::UNAUTHORIZED => {
                Verdict::Fail(ForgeError::Unauthorized { request, message })
            }
            StatusCode::FORBIDDEN => Verdict::Fail(ForgeError::Forbidden {
                request,
                message: scopes(&answer.headers).unwrap_or(message),
            }),
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

    fn url(&self, call: &Call<'_>) -> Result<Url> {
        if call.graphql {
            return Ok(self.graphql.clone());
        }
        let url = format!("{}{}", self.api.as_str().trim_end_matches('/'), call.path);
        Url::parse(&url).map_err(|error| ForgeError::Decode {
            request: call.name(),
            reason: error.to_string(),
        })
    }

    /// The path of a link, if it points below our API's root.
    fn below_api(&self, link: &str) -> Option<String> {
        let url = self.same_server(&self.api, link)?;
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let root = self.api.path().trim_end_matches('/');
        path.strip_prefix(root).map(str::to_owned)
    }

    /// A link as a URL, if credentials may go there.
    fn same_server(&self, from: &Url, link: &str) -> Option<Url> {
        let url = from.join(link).ok()?;
        (url.origin() == self.api.origin()).then_some(url)
    }

    /// Whose budget and view of the world a call has.
    fn identity(&self, behalf: Behalf<'_>) -> String {
        match (&self.credentials, behalf) {
            (Credentials::App { .. }, Behalf::Org(org)) => org.to_lowercase(),
            (Credentials::App { .. }, Behalf::Ourselves) => "/app".to_owned(),
            _ => String::new(),
        }
    }

    async fn authorization(&self, call: &Call<'_>) -> Result<Option<HeaderValue>> {
        let not_a_header = || ForgeError::Unauthorized {
            request: call.name(),
            message: "our token has characters that no header can carry".to_owned(),
        };
        let secret = match (&self.credentials, call.behalf) {
            (Credentials::Anonymous, _) => return Ok(None),
            (Credentials::Token(token), _) => token(),
            (Credentials::App { id, key }, Behalf::Ourselves) => {
                app_jwt(*id, key).map_err(|message| ForgeError::Unauthorized {
                    request: call.name(),
                    message,
                })?
            }
            (Credentials::App { .. }, Behalf::Org(org)) => self.installation_token(org).await?,
        };
        if secret.trim().is_empty() {
            return Ok(None);
        }
        bearer(&secret).map(Some).ok_or_else(not_a_header)
    }

    /// A secret with which git may read and write the organisation's repositories; `None` if we are anonymous.
    pub(super) async fn git_secret(&self, org: &str) -> Result<Option<String>> {
        match &self.credentials {
            Credentials::Anonymous => Ok(None),
            Credentials::Token(token) => Ok(Some(token().trim().to_owned())),
            Credentials::App { .. } => self.installation_token(org).await.map(Some),
        }
    }

    async fn installation_token(&self, org: &str) -> Result<String> {
        if let Some(token) = self.installations.token(org, Timestamp::now()) {
            return Ok(token);
        }
        let _asking = self.installations.asking.lock().await;
        if let Some(token) = self.installations.token(org, Timestamp::now()) {
            return Ok(token);
        }
        if self.installations.id(org).is_none() && self.installations.may_list() {
            let list = Call::read("/app/installations".to_owned(), Behalf::Ourselves);
            let found: Vec<WireInstallation> = self.all(list).await?;
            self.installations.listed(found);
        }
        let Some(id) = self.installations.id(org) else {
            return Err(ForgeError::Forbidden {
                request: "GET /app/installations".to_owned(),
                message: format!("the GitHub App is not installed in {org}"),
            });
        };
        let call = Call::change(
            Method::POST,
            format!("/app/installations/{id}/access_tokens"),
            Behalf::Ourselves,
            Effect::Idempotent,
            None,
        );
        let token: InstallationToken = self.json(&call).await?;
        self.observer.tell(&token);
        let secret = token.token.clone();
        self.installations.got_token(id, token);
        Ok(secret)
    }

    /// A GraphQL query. The data, and GitHub's complaints if it made any beside it.
    pub(super) async fn graphql<T: DeserializeOwned>(
        &self,
        name: &str,
        org: Option<&str>,
        query: &str,
        variables: &serde_json::Value,
    ) -> Result<(T, Option<String>)> {
        self.graphql_as(Effect::Read, name, org, query, variables)
            .await
    }

    /// A GraphQL query or mutation.
    pub(super) async fn graphql_as<T: DeserializeOwned>(
        &self,
        effect: Effect,
        name: &str,
        org: Option<&str>,
        query: &str,
        variables: &serde_json::Value,
    ) -> Result<(T, Option<String>)> {
        #[derive(Deserialize)]
        struct GraphQl<T> {
            #[serde(default = "none")]
            data: Option<T>,
            #[serde(default)]
            errors: Vec<GraphQlError>,
        }
        #[derive(Deserialize)]
        struct GraphQlError {
            #[serde(rename = "type", default)]
            kind: Option<String>,
            #[serde(default)]
            message: String,
        }
        fn none<T>() -> Option<T> {
            None
        }

        let behalf = org.map_or(Behalf::Ourselves, Behalf::Org);
        let call = Call {
            method: Method::POST,
            path: format!("/graphql ({name})"),
            body: Some(serde_json::json!({ "query": query, "variables": variables }).to_string()),
            behalf,
            effect,
            graphql: true,
        };
        let raw = self.call(&call).await?;
        let answer: GraphQl<T> = decode(&call, &raw)?;
        let complaints = answer
            .errors
            .iter()
            .map(|error| error.message.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        if let Some(data) = answer.data {
            return Ok((data, (!complaints.is_empty()).then_some(complaints)));
        }
        let request = call.name();
        let kind = answer.errors.iter().find_map(|error| error.kind.as_deref());
        Err(match kind {
            Some("RATE_LIMITED") => {
                // The status says "fine", the headers say until when.
                let now = Timestamp::now();
                let limited = limited(StatusCode::TOO_MANY_REQUESTS, &raw.headers, "", now)
                    .unwrap_or(Limited {
                        until: now,
                        secondary: false,
                    });
                let budget = Budget {
                    identity: self.identity(behalf),
                    graphql: true,
                };
                self.gate.close(budget, limited, now);
                ForgeError::RateLimited {
                    request,
                    until: limited.until,
                    secondary: limited.secondary,
                }
            }
            Some("NOT_FOUND") => ForgeError::NotFound {
                request,
                message: complaints,
            },
            Some("FORBIDDEN" | "INSUFFICIENT_SCOPES") => ForgeError::Forbidden {
                request,
                message: complaints,
            },
            // GitHub's words for a query that its servers gave up on.
            _ if complaints.contains("Something went wrong while executing your query") => {
                unavailable(&call, &complaints, effect == Effect::Once)
            }
            _ => ForgeError::Refused {
                request,
                status: 200,
                message: complaints,
                errors: vec![],
            },
        })
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
        Verdict::Again(error)
    }
}

fn unavailable(call: &Call<'_>, reason: &str, maybe_sent: bool) -> ForgeError {
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
