//! When a failed request is sent again, and how long that may take.

use std::time::Duration;

/// Everything about a mutation, retries included, happens within this time of the call: who commits an intent before it
/// calls must be able to say when the call can no longer take effect.
pub const MUTATION_TIMEOUT: Duration = Duration::from_secs(10);

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

impl RetryPolicy {
    /// The wait before the attempt after this one.
    pub(super) fn backoff(&self, attempt: u32) -> Duration {
        let doubled = self
            .first_wait
            .saturating_mul(1 << attempt.saturating_sub(1).min(16));
        doubled
            .min(self.longest_wait)
            .mul_f64(rand::random_range(0.75..=1.25))
    }
}
