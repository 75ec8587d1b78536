//! Asking no faster than one was told to (GHC-002, GHC-011).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How fast GitHub may be asked: so many requests an hour, of which so many at once.
///
/// The first ones are not refilled before the time is over that they would have taken one by one, so that the first hour
/// has no more than any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    hourly: u32,
    burst: u32,
}

impl Rate {
    /// # Errors
    /// One of them is zero, or `burst` is above `hourly`.
    pub fn new(hourly: u32, burst: u32) -> Result<Self, &'static str> {
        if hourly == 0 || burst == 0 {
            return Err("hourlyTokens and burst must be numbers > 0");
        }
        if burst > hourly {
            return Err("burst must not be greater than hourlyTokens");
        }
        Ok(Self { hourly, burst })
    }

    /// Prow's `org:hourlyTokens:burst` (GHC-003).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_org(text: &str) -> Result<(&str, Self), &'static str> {
        let parts: Vec<&str> = text.split(':').collect();
        let (org, hourly, burst) = match parts[..] {
            [org, hourly, burst] if !org.is_empty() => (org, hourly, burst),
            _ => return Err("it is not in org:hourlyTokens:burst format"),
        };
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok((org, Self::new(number(hourly), number(burst))?))
    }
}

/// The throttles of one server: of single orgs, and of all others together.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    everyone: Option<Throttle>,
    /// By org in lower case; as many as were configured.
    orgs: BTreeMap<String, Throttle>,
}

impl Throttles {
    pub(super) fn new(everyone: Option<Rate>, orgs: &BTreeMap<String, Rate>, now: Instant) -> Self {
        Self {
            everyone: everyone.map(|rate| Throttle::new(rate, now)),
            orgs: orgs
                .iter()
                .map(|(org, rate)| (org.to_lowercase(), Throttle::new(*rate, now)))
                .collect(),
        }
    }

    /// Whose throttle a call of this org has; `org` is empty where none is asked about.
    pub(super) fn of(&self, org: &str) -> Option<&Throttle> {
        self.orgs
            .get(&org.to_lowercase())
            .or(self.everyone.as_ref())
    }
}

#[derive(Debug)]
pub(super) struct Throttle {
    every: Duration,
    burst: i64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Below zero: so many wait for theirs.
    tokens: i64,
    /// When the next token comes.
    next: Instant,
}

/// A token that was taken. What turns out to be free gives it back.
#[derive(Debug)]
pub(super) struct Token<'a> {
    throttle: &'a Throttle,
    /// When it may be used.
    pub(super) at: Instant,
    spent: bool,
}

impl Throttle {
    fn new(rate: Rate, now: Instant) -> Self {
        let every = Duration::from_secs(3600) / rate.hourly.max(1);
        Self {
            every,
            burst: i64::from(rate.burst),
            bucket: Mutex::new(Bucket {
                tokens: i64::from(rate.burst),
                next: now + every * rate.burst.saturating_add(1),
            }),
        }
    }

    pub(super) fn take(&self, now: Instant) -> Token<'_> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(late) = now.checked_duration_since(bucket.next) {
            let come = late.as_nanos() / self.every.as_nanos().max(1) + 1;
            let come = u32::try_from(come).unwrap_or(u32::MAX);
            bucket.tokens = bucket.tokens.saturating_add(come.into()).min(self.burst);
            bucket.next += self.every.saturating_mul(come);
        }
        bucket.tokens -= 1;
        let waiting = u32::try_from(-bucket.tokens).unwrap_or(0);
        let at = match waiting.checked_sub(1) {
            Some(before) => bucket.next + self.every.saturating_mul(before),
            None => now,
        };
        Token {
            throttle: self,
            at,
            spent: false,
        }
    }
}

impl Token<'_> {
    /// It cost something.
    pub(super) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Token<'_> {
    fn drop(&mut self) {
        if !self.spent {
            let bucket = &self.throttle.bucket;
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.tokens = (bucket.tokens + 1).min(self.throttle.burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghc_011_a_burst_is_made_at_once_and_refilled_no_sooner_than_it_would_have_taken() {
        let begin = Instant::now();
        let throttle = Throttle::new(Rate::new(3600, 3).unwrap(), begin);
        let take = |after: u64| {
            let token = throttle.take(begin + Duration::from_secs(after));
            let at = (token.at - begin).as_secs();
            token.spend();
            at
        };
        assert_eq!([(); 5].map(|()| take(0)), [0, 0, 0, 4, 5]);
        // Two were taken in advance, the third of the rest comes at 6.
        assert_eq!(take(5), 6);
        assert_eq!([(); 4].map(|()| take(60)), [60, 60, 60, 61]);
    }

    #[test]
    fn ghc_011_what_was_free_gives_its_token_back() {
        let begin = Instant::now();
        let throttle = Throttle::new(Rate::new(60, 1).unwrap(), begin);
        drop(throttle.take(begin));
        let token = throttle.take(begin);
        assert_eq!(token.at, begin);
        token.spend();
        let waits = throttle.take(begin);
        assert_eq!(waits.at, begin + Duration::from_secs(120));
        drop(waits);
        assert_eq!(throttle.take(begin).at, begin + Duration::from_secs(120));
    }

    #[test]
    fn ghc_003_limits_of_an_org_are_three_parts() {
        assert_eq!(
            Rate::of_org("o:100:10"),
            Ok(("o", Rate::new(100, 10).unwrap()))
        );
        for bad in ["o:1", ":1:1", "o:0:0", "o:x:1", "o:1:5", "o:-1:1"] {
            assert!(Rate::of_org(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ghc_011_an_org_has_its_own_bucket_or_shares_that_of_all() {
        let now = Instant::now();
        let rate = Rate::new(10, 1).unwrap();
        let throttles = Throttles::new(Some(rate), &[("Org".to_owned(), rate)].into(), now);
        throttles.of("org").unwrap().take(now).spend();
        assert!(throttles.of("ORG").unwrap().take(now).at > now);
        assert_eq!(throttles.of("other").unwrap().take(now).at, now);
        assert!(Throttles::default().of("").is_none());
    }
}
