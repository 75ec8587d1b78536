//! What time it is, for what GitHub says in wall time: when a budget is new again, until when a token is good.

use jiff::Timestamp;
use tokio::time::Instant;

/// Where the client reads the time of day.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// It was `at` at `since` and goes on with Tokio's clock, paused or not: a simulation's.
    Simulated { at: Timestamp, since: Instant },
}

impl Clock {
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match *self {
            Self::System => Timestamp::now(),
            Self::Simulated { at, since } => at.saturating_add(since.elapsed()).unwrap_or(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_goes_with_tokios() {
        let clock = Clock::Simulated {
            at: Timestamp::UNIX_EPOCH,
            since: Instant::now(),
        };
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now().as_millisecond(), 1500);
    }
}
