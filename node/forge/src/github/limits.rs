//! GitHub's rate limits: reading them off an answer, and keeping quiet until they are over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};

/// How long GitHub asks one to wait after a secondary limit that names no time.
const SECONDARY_WAIT: SignedDuration = SignedDuration::from_secs(60);

/// A reset further away than this is not believed: GitHub's windows are an hour.
const LONGEST_WINDOW: SignedDuration = SignedDuration::from_secs(3600 + 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) until: Timestamp,
    pub(super) secondary: bool,
}

/// Whether an answer says that a limit was hit. One second is added to what GitHub says, as Prow does.
pub(super) fn limited(
    status: StatusCode,
    headers: &HeaderMap,
    message: &str,
    now: Timestamp,
) -> Option<Limited> {
    if status != StatusCode::FORBIDDEN && status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    if let Some(seconds) = number("retry-after").filter(|seconds| *seconds > 0) {
        let wait = SignedDuration::from_secs(seconds.saturating_add(1)).min(LONGEST_WINDOW);
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
    /// Empty for a token, the organisation for an installation.
    pub(super) identity: String,
    pub(super) graphql: bool,
}

/// Budgets that are spent: asking on only makes GitHub angrier.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: Mutex<BTreeMap<Budget, Limited>>,
}

impl Gate {
    pub(super) fn closed(&self, budget: &Budget, now: Timestamp) -> Option<Limited> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed
            .get(budget)
            .copied()
            .filter(|limited| limited.until > now)
    }

    pub(super) fn close(&self, budget: Budget, limited: Limited, now: Timestamp) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded by the number of identities that are limited right now.
        closed.retain(|_, limited| limited.until > now);
        closed.insert(budget, limited);
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

    #[test]
    fn the_gate_opens_by_itself() {
        let gate = Gate::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let budget = Budget {
            identity: "org".into(),
            graphql: false,
        };
        let limited = Limited {
            until: at(10),
            secondary: true,
        };
        gate.close(budget.clone(), limited, at(0));
        assert_eq!(gate.closed(&budget, at(9)), Some(limited));
        assert_eq!(gate.closed(&budget, at(10)), None);
        assert_eq!(
            gate.closed(
                &Budget {
                    graphql: true,
                    ..budget
                },
                at(5)
            ),
            None
        );
    }
}
