//! What became of an attempt: the translation of what came back, or did not, into what to do next.

use std::time::Duration;

use http::StatusCode;

use super::answer::{complaint, hidden_members, scopes, unreadable};
use super::call::{Call, Effect};
use super::client::Client;
use super::credentials::Behalf;
use super::graphql;
use super::installations::LACKS_RIGHT;
use super::limits::{Budget, Limited, limited};
use super::metrics::CacheMode;
use super::server::Server;
use super::transport::{Answer, Lost};
use crate::error::ForgeError;

/// What to do after an attempt.
pub(super) enum Verdict {
    Done(Answer),
    /// Try again after the backoff, or fail like this.
    Again(ForgeError),
    /// Nobody was there, or went away: try the next address, or fail like this.
    Elsewhere(ForgeError),
    /// Try again no sooner than `Limited::until`, or fail like this.
    Wait(Limited, ForgeError),
    /// Nobody is asked anything at present: fail like this.
    Away(ForgeError),
    /// The token was not accepted.
    Unauthorized(ForgeError, String),
    Fail(ForgeError),
}

impl Client {
    pub(super) fn judge(
        &self,
        server: &Server,
        call: &Call<'_>,
        answer: &Answer,
        budget: Budget,
        token: String,
    ) -> Verdict {
        let (message, errors) = complaint(&answer.body);
        let now = self.now();
        if let Some(limited) = limited(answer.status, &answer.headers, &message, now) {
            // Refused before anything was done, so that even a comment may be sent again.
            return self.closed(call, budget, limited);
        }
        self.shared.gate.answered(&budget, now);
        if let Some(hidden) = hidden_members(call, answer.status) {
            return Verdict::Fail(hidden);
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
        self.shared.gate.close(budget, limited, self.now());
        Verdict::Wait(limited, self.rate_limited(call, limited))
    }

    pub(super) fn rate_limited(&self, call: &Call<'_>, limited: Limited) -> ForgeError {
        let wait = limited.until.duration_since(self.now());
        ForgeError::RateLimited {
            request: call.name(),
            until: limited.until,
            wait: Duration::try_from(wait).unwrap_or_default(),
            secondary: limited.secondary,
        }
    }

    /// GraphQL complains with a status that says "fine".
    pub(super) fn judge_graphql(
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
                let now = self.now();
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
}

pub(super) fn judge_lost(call: &Call<'_>, lost: Lost) -> Verdict {
    if lost.too_large {
        return Verdict::Fail(unreadable(call, lost.reason));
    }
    let maybe_sent = lost.maybe_sent && call.effect == Effect::Once;
    let error = unavailable(call, &lost.reason, maybe_sent);
    if maybe_sent {
        Verdict::Fail(error)
    } else {
        Verdict::Elsewhere(error)
    }
}

pub(super) fn no_url(call: &Call<'_>, error: url::ParseError) -> ForgeError {
    ForgeError::Decode {
        request: call.name(),
        reason: error.to_string(),
    }
}

pub(super) fn away(call: &Call<'_>) -> ForgeError {
    let reason = "it has not answered for a while, and is asked again once it answers a probe";
    unavailable(call, reason, false)
}

pub(super) fn unavailable(call: &Call<'_>, reason: &str, maybe_sent: bool) -> ForgeError {
    ForgeError::Unavailable {
        request: call.name(),
        reason: reason.to_owned(),
        maybe_sent,
    }
}

pub(super) fn refused(
    call: &Call<'_>,
    answer: &Answer,
    message: String,
    errors: Vec<String>,
) -> ForgeError {
    ForgeError::Refused {
        request: call.name(),
        status: answer.status.as_u16(),
        message,
        errors,
    }
}
