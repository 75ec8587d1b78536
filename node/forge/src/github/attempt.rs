//! One attempt at a call: the limits before it, what it proves itself with, redirects, and what is kept of its answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;

use super::answer::redirect;
use super::call::Call;
use super::client::{Client, MAX_IN_FLIGHT};
use super::credentials::{Behalf, Credentials, app_jwt, bearer};
use super::etag::Key;
use super::flights::Pilot;
use super::limits::{Budget, Limited, Quota};
use super::metrics::CacheMode;
use super::priority::{BACKGROUND_IN_FLIGHT, Priority};
use super::server::Server;
use super::transport::{Answer, Lost};
use super::verdict::{Verdict, away, judge_lost, no_url, refused, unavailable};
use crate::error::{ForgeError, Result};

const MAX_REDIRECTS: usize = 3;

/// The proof that we are the app is good for so long.
const JWT: Duration = Duration::from_secs(9 * 60);

/// Which of a server's addresses is tried, and whether all others were.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) index: usize,
    pub(super) is_last: bool,
}

/// With what a request proves whose it is.
struct Proof {
    headers: HeaderMap,
    /// The installation's token, if it is one.
    token: String,
}

impl Client {
    /// One attempt, redirects included. An error ends the call.
    pub(super) async fn attempt(
        &self,
        server: &Server,
        call: &Call<'_>,
        address: Address,
        deadline: &mut Instant,
        asked: Option<(&Key, &Pilot<'_>)>,
    ) -> Result<Verdict> {
        let shared = &self.shared;
        if server.presence.is_away() {
            return Ok(Verdict::Away(away(call)));
        }
        let budget = Budget {
            server: server.index,
            identity: server.identity(call.behalf),
            api: call.api(),
        };
        if let Some(limited) = shared.gate.closed(&budget, self.priority, self.now()) {
            return Ok(Verdict::Wait(limited, self.rate_limited(call, limited)));
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
                let until = self.now().saturating_add(wait);
                let limited = Limited {
                    until: until.unwrap_or(Timestamp::MAX),
                    secondary: false,
                };
                return Ok(Verdict::Fail(self.rate_limited(call, limited)));
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
        let mut url = self.url(server, call, address.index)?;
        for _ in 0..=MAX_REDIRECTS {
            // It may have gone while this call waited.
            if server.presence.is_away() {
                return Ok(Verdict::Away(away(call)));
            }
            // Whoever counts on the end of a change must find that nothing is sent after it.
            if Instant::now() >= deadline {
                let error = unavailable(call, "no time was left to ask", false);
                return Ok(Verdict::Fail(error));
            }
            let asked_at = Instant::now();
            let answer = match self
                .send(server, call, &url, &headers, &budget, deadline)
                .await
            {
                Ok(answer) => {
                    let answered = !answer.status.is_server_error();
                    self.saw(server, answered, address.is_last);
                    let may_be_limit = matches!(
                        answer.status,
                        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
                    );
                    if !may_be_limit {
                        shared.gate.answered(&budget, self.now());
                    }
                    answer
                }
                Err(lost) => {
                    self.saw(server, lost.too_large, address.is_last);
                    // It may have cost something.
                    if let Some(token) = token {
                        token.spend();
                    }
                    return Ok(judge_lost(call, lost));
                }
            };
            if answer.status == StatusCode::NOT_MODIFIED {
                // Only what was asked for conditionally is answered so; if it fell out of the cache meanwhile, ask anew.
                let known = asked.and_then(|(key, pilot)| match pilot.is_current() {
                    true => shared.cache.confirmed(key, asked_at, Instant::now()),
                    // What was asked before a change may be what was before it.
                    false => shared.cache.former(key),
                });
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
                let to = server.url(address.index, &path);
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
            self.keep(server, call, (&answer, asked_at), is_conditional, asked);
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
        (answer, asked_at): (&Answer, Instant),
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
            let now = Instant::now();
            shared.cache.put(key.clone(), answer, asked_at, now);
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
            shared.metrics.quota(&name, api, quota, self.now());
        }
        outcome
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
            let expires = expires.or_else(|| self.now().checked_add(JWT).ok());
            for_ghproxy(&mut proof.headers, &name, expires);
        }
        Ok(proof)
    }
}

/// GHC-013: a ghproxy on the way keeps its books by these.
fn for_ghproxy(headers: &mut HeaderMap, budget: &str, expires: Option<Timestamp>) {
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
