//! GitHub's rate limits: reading them off an answer, keeping quiet until they are over, and leaving the last of an hour's
//! quota to what is urgent.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};

use super::call::Api;
use super::priority::{BACKGROUND_LEAVES_PERCENT, Priority};

/// How long GitHub asks one to wait after a secondary limit that names no time.
const SECONDARY_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// Once a limit should be over one call tries whether it is; whoever would ask meanwhile is asked to come back after this.
const ON_TRIAL: SignedDuration = SignedDuration::from_secs(1);
/// A try that has not ended by now will not: the next call is one.
const TRIAL_ENDS: SignedDuration = SignedDuration::from_secs(30);

/// A reset further away than this is not believed: GitHub's windows are an hour.
const LONGEST_WINDOW: SignedDuration = SignedDuration::from_secs(3600 + 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) until: Timestamp,
    pub(super) secondary: bool,
}

fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Seconds, or a date as HTTP writes it.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let told = headers.get("retry-after")?.to_str().ok()?.trim();
    let wait = match told.parse::<i64>() {
        Ok(seconds) => SignedDuration::from_secs(seconds),
        Err(_) => match jiff::fmt::rfc2822::parse(told) {
            Ok(at) => at.timestamp().duration_since(now),
            // It wants us to wait, and nobody knows how long.
            Err(_) => SECONDARY_WAIT,
        },
    };
    wait.is_positive().then_some(wait)
}

/// Whether an answer says that a limit was hit (GHC-006, GHC-021). One second is added to what GitHub says, as Prow does.
/// A time that cannot be read counts as the longest that it may be.
pub(super) fn limited(
    status: StatusCode,
    headers: &HeaderMap,
    message: &str,
    now: Timestamp,
) -> Option<Limited> {
    if status != StatusCode::FORBIDDEN && status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let number = |name: &str| number(headers, name);
    if let Some(wait) = retry_after(headers, now) {
        let wait = wait
            .saturating_add(SignedDuration::from_secs(1))
            .min(LONGEST_WINDOW);
        return Some(Limited {
            until: now.saturating_add(wait).unwrap_or(now),
            secondary: true,
        });
    }
    if number("x-ratelimit-remaining") == Some(0) {
        let reset = number("x-ratelimit-reset")
            .and_then(|reset| Timestamp::from_second(reset.saturating_add(1)).ok());
        let latest = now.saturating_add(LONGEST_WINDOW).unwrap_or(now);
        let until = reset.unwrap_or(latest).clamp(now, latest);
        return Some(Limited {
            until,
            secondary: false,
        });
    }
    let told = message.to_ascii_lowercase();
    if status == StatusCode::TOO_MANY_REQUESTS
        || told.contains("secondary rate limit")
        || told.contains("abuse detection")
    {
        return Some(Limited {
            until: now.saturating_add(SECONDARY_WAIT).unwrap_or(now),
            secondary: true,
        });
    }
    None
}

/// Whose budget a request is counted against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Budget {
    pub(super) server: usize,
    /// Empty for a token, the organisation for an installation.
    pub(super) identity: String,
    pub(super) api: Api,
}

/// A budget and what is left of it, as GitHub told it last (GHC-050).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLeft {
    /// The host, or the app and the organisation that it acts in; never a token.
    pub name: String,
    /// GitHub's own word: `core`, `graphql`, `search`.
    pub resource: &'static str,
    pub remaining: u64,
    pub limit: u64,
    /// When the count begins anew.
    pub reset: Timestamp,
}

/// What is left of an hour's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) reset: Timestamp,
}

impl Quota {
    /// As the headers of any answer tell it; `None` if they speak of another API's budget.
    pub(super) fn of(headers: &HeaderMap, api: Api) -> Option<Self> {
        let resource = headers.get("x-ratelimit-resource");
        if resource.is_some_and(|resource| resource.as_bytes() != api.resource().as_bytes()) {
            return None;
        }
        let count = |name: &str| number(headers, name).and_then(|count| u64::try_from(count).ok());
        Some(Self {
            limit: count("x-ratelimit-limit")?,
            remaining: count("x-ratelimit-remaining")?,
            reset: Timestamp::from_second(number(headers, "x-ratelimit-reset")?).ok()?,
        })
    }

    /// So little is left that background work leaves it to others.
    fn is_low(&self) -> bool {
        self.remaining.saturating_mul(100) <= self.limit.saturating_mul(BACKGROUND_LEAVES_PERCENT)
    }
}

/// What is known of each budget: those that are spent, where asking on only makes GitHub angrier, and how much the others
/// have. Bounded by the number of identities, which are the accounts that an app is installed in.
#[derive(Debug, Default)]
pub(super) struct Gate {
    inner: Mutex<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Closed {
    limited: Limited,
    /// When the call left that tries whether it is over.
    tried: Option<Timestamp>,
}

impl Closed {
    fn at(&self, now: Timestamp) -> Option<Limited> {
        if self.limited.until > now {
            return Some(self.limited);
        }
        let ends = self.tried?.saturating_add(TRIAL_ENDS).ok()?;
        (ends > now).then(|| Limited {
            until: now.saturating_add(ON_TRIAL).unwrap_or(now),
            ..self.limited
        })
    }
}

#[derive(Debug, Default)]
struct Known {
    closed: BTreeMap<Budget, Closed>,
    quotas: BTreeMap<Budget, Quota>,
}

impl Known {
    fn limited(&self, budget: &Budget, priority: Priority, now: Timestamp) -> Option<Limited> {
        let closed = self.closed.get(budget).and_then(|closed| closed.at(now));
        if closed.is_some() {
            return closed;
        }
        let quota = self.quotas.get(budget)?;
        let leaves = priority == Priority::Background && quota.is_low() && quota.reset > now;
        leaves.then(|| Limited {
            until: quota
                .reset
                .saturating_add(SignedDuration::from_secs(1))
                .unwrap_or(quota.reset),
            secondary: false,
        })
    }
}

impl Gate {
    /// Whether such a request may not be sent now. One that may is sent: after a limit it is the one that tries.
    pub(super) fn closed(
        &self,
        budget: &Budget,
        priority: Priority,
        now: Timestamp,
    ) -> Option<Limited> {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limited) = known.limited(budget, priority, now) {
            return Some(limited);
        }
        if let Some(closed) = known.closed.get_mut(budget) {
            closed.tried = Some(now);
        }
        None
    }

    /// The same for who only wants to know.
    pub(super) fn would_be_closed(
        &self,
        budget: &Budget,
        priority: Priority,
        now: Timestamp,
    ) -> Option<Limited> {
        let known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        known.limited(budget, priority, now)
    }

    /// GitHub answered as if there were no limit.
    pub(super) fn answered(&self, budget: &Budget, now: Timestamp) {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = known.closed.get(budget);
        if closed.is_some_and(|closed| closed.limited.until <= now) {
            known.closed.remove(budget);
        }
    }

    pub(super) fn close(&self, budget: Budget, limited: Limited, now: Timestamp) {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever does not ask again needs no try.
        known.closed.retain(|_, closed| {
            closed
                .limited
                .until
                .saturating_add(LONGEST_WINDOW)
                .is_ok_and(|end| end > now)
        });
        let tried = None;
        known.closed.insert(budget, Closed { limited, tried });
    }

    /// What is known of all that GitHub has told of.
    pub(super) fn quotas(&self) -> Vec<(Budget, Quota)> {
        let known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let quotas = known.quotas.iter();
        quotas
            .map(|(budget, quota)| (budget.clone(), *quota))
            .collect()
    }

    /// Takes down what is left. Answers overtake each other: of one hour the least counts.
    pub(super) fn tell(&self, budget: &Budget, mut told: Quota) -> Quota {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = known.quotas.get(budget)
            && before.reset == told.reset
        {
            told.remaining = told.remaining.min(before.remaining);
        }
        known.quotas.insert(budget.clone(), told);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn limits_are_told_from_other_refusals() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let forbidden = StatusCode::FORBIDDEN;

        let spent = headers(&[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1000100"),
        ]);
        assert_eq!(
            limited(forbidden, &spent, "", now),
            Some(Limited {
                until: at(1_000_101),
                secondary: false
            })
        );

        let far = headers(&[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "9999999999"),
        ]);
        assert_eq!(
            limited(forbidden, &far, "", now).map(|l| l.until),
            Some(at(1_003_660))
        );

        let abused = headers(&[("retry-after", "30"), ("x-ratelimit-remaining", "4000")]);
        assert_eq!(
            limited(forbidden, &abused, "", now),
            Some(Limited {
                until: at(1_000_031),
                secondary: true
            })
        );
        assert_eq!(
            limited(
                forbidden,
                &headers(&[]),
                "You have exceeded a secondary rate limit.",
                now
            ),
            Some(Limited {
                until: at(1_000_060),
                secondary: true
            })
        );
        assert_eq!(
            limited(StatusCode::TOO_MANY_REQUESTS, &headers(&[]), "", now).map(|l| l.secondary),
            Some(true)
        );

        let plain = headers(&[("x-ratelimit-remaining", "4000"), ("retry-after", "0")]);
        assert_eq!(
            limited(
                forbidden,
                &plain,
                "Resource not accessible by integration",
                now
            ),
            None
        );
        assert_eq!(limited(StatusCode::NOT_FOUND, &spent, "", now), None);
    }

    /// GHC-006: a date is a time, too, and a time that cannot be read is no reason to go on.
    #[test]
    fn ghc_006_times_that_are_no_numbers() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let until = |pairs: &[(&'static str, &str)]| {
            let limited = limited(StatusCode::FORBIDDEN, &headers(pairs), "", now);
            limited.map(|limited| limited.until.as_second() - 1_000_000)
        };
        assert_eq!(
            until(&[("retry-after", "Mon, 12 Jan 1970 13:47:10 GMT")]),
            Some(31)
        );
        assert_eq!(until(&[("retry-after", "soon")]), Some(61));
        assert_eq!(
            until(&[
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "soon")
            ]),
            Some(3660)
        );
    }

    fn budget(identity: &str, api: Api) -> Budget {
        Budget {
            server: 0,
            identity: identity.into(),
            api,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// GHC-021: a limit is that of one budget.
    #[test]
    fn ghc_021_the_gate_opens_by_itself_and_is_one_of_many() {
        let gate = Gate::default();
        let limited = Limited {
            until: at(10),
            secondary: true,
        };
        gate.close(budget("org", Api::Rest), limited, at(0));
        let closed = |identity: &str, api: Api, now: i64| {
            gate.closed(&budget(identity, api), Priority::Prompt, at(now))
        };
        assert_eq!(closed("org", Api::Rest, 9), Some(limited));
        assert_eq!(closed("org", Api::Rest, 10), None);
        assert_eq!(closed("org", Api::GraphQl, 5), None);
        assert_eq!(closed("other", Api::Rest, 5), None);
    }

    /// GHC-021: one call finds out whether a limit is over.
    #[test]
    fn ghc_021_after_a_limit_one_call_goes_first() {
        let gate = Gate::default();
        let org = budget("org", Api::Rest);
        let limited = Limited {
            until: at(10),
            secondary: true,
        };
        gate.close(org.clone(), limited, at(0));
        let until = |now: i64| {
            let closed = gate.closed(&org, Priority::Prompt, at(now));
            closed.map(|limited| limited.until.as_second())
        };
        let would = |now: i64| {
            gate.would_be_closed(&org, Priority::Prompt, at(now))
                .is_some()
        };
        assert!(would(9) && !would(10));
        // The first of them goes, the others come back.
        assert_eq!(
            (until(10), until(10), until(12)),
            (None, Some(11), Some(13))
        );
        assert!(would(12));
        // It never came back.
        assert_eq!((until(40), until(41)), (None, Some(42)));
        gate.answered(&org, at(41));
        assert_eq!((until(41), until(41)), (None, None));
        gate.close(
            org.clone(),
            Limited {
                until: at(60),
                ..limited
            },
            at(50),
        );
        // Sent before.
        gate.answered(&org, at(51));
        assert_eq!(until(52), Some(60));
    }

    #[test]
    fn background_work_leaves_the_last_of_an_hour_to_others() {
        let gate = Gate::default();
        let org = budget("org", Api::Rest);
        let told = |remaining: &str| {
            let headers = headers(&[
                ("x-ratelimit-limit", "5000"),
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-reset", "100"),
                ("x-ratelimit-resource", "core"),
            ]);
            assert_eq!(Quota::of(&headers, Api::GraphQl), None);
            gate.tell(&org, Quota::of(&headers, Api::Rest).unwrap())
                .remaining
        };
        let until = |priority: Priority, now: i64| {
            let closed = gate.closed(&org, priority, at(now));
            closed.map(|limited| limited.until.as_second())
        };
        assert_eq!(told("1001"), 1001);
        assert_eq!(until(Priority::Background, 50), None);
        assert_eq!(told("1000"), 1000);
        // An older answer that comes later.
        assert_eq!(told("1100"), 1000);
        assert_eq!(until(Priority::Background, 50), Some(101));
        assert_eq!(until(Priority::Prompt, 50), None);
        assert_eq!(until(Priority::Background, 100), None);
    }
}
