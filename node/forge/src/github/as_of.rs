//! From when on an answer is new enough for a decision: since the event came that it is about.
//!
//! Many plugins decide about one event and ask the same; what GitHub tells the first of them is as true for the others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whatever the event, an older answer is asked for again.
pub const AS_OF_FOR: Duration = Duration::from_secs(5);

/// A moment that whoever decides can move on. Clones are the same.
#[derive(Debug, Clone)]
pub struct AsOf(Arc<Mutex<Instant>>);

impl AsOf {
    /// When it came to be known what is decided about.
    #[must_use]
    pub fn new(at: std::time::Instant) -> Self {
        Self(Arc::new(Mutex::new(at.into())))
    }

    /// From here on only what is asked for from now on is new enough: what was waited for may have changed everything.
    pub fn settle(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn since(&self, now: Instant) -> Instant {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.checked_sub(AS_OF_FOR)
            .map_or(at, |oldest| at.max(oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghc_050_an_answer_is_as_new_as_the_event_and_never_older_than_a_bound() {
        let now = Instant::now();
        let later = now + AS_OF_FOR * 3;
        let as_of = AsOf::new(now.into_std());
        let at = as_of.since(now);
        assert_eq!(at, now);
        assert_eq!(as_of.since(later), later - AS_OF_FOR);
        as_of.clone().settle();
        assert!(as_of.since(now) >= at);
    }
}
