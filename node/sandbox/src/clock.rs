//! The sandbox's only source of wall time: the system's clock, one that a test sets and advances, or a simulation's.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Where the sandbox reads the time. Clones of a manual clock share its hand.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// Stands still until [`Clock::advance`]d: commit ids, ids in payloads and timestamps are then the same in every run.
    Manual(Arc<Mutex<Timestamp>>),
    /// It was `at` at `since` and goes on with Tokio's clock, paused or not.
    Simulated { at: Timestamp, since: Instant },
}

impl Clock {
    /// A clock that stands at `at` until advanced.
    pub fn manual(at: Timestamp) -> Self {
        Self::Manual(Arc::new(Mutex::new(at)))
    }

    /// Now, in whole seconds as GitHub shows time.
    pub fn now(&self) -> Timestamp {
        let now = match self {
            Self::System => Timestamp::now(),
            Self::Manual(hand) => *hand.lock().unwrap_or_else(PoisonError::into_inner),
            Self::Simulated { at, since } => at.saturating_add(since.elapsed()).unwrap_or(*at),
        };
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// Moves a manual clock forward; the system's clock cannot be moved and is left alone.
    pub fn advance(&self, by: SignedDuration) {
        if let Self::Manual(hand) = self {
            let mut hand = hand.lock().unwrap_or_else(PoisonError::into_inner);
            *hand = hand.saturating_add(by).unwrap_or(*hand);
        }
    }
}
