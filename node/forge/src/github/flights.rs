//! Equal questions that are asked at the same time: one goes to GitHub, all share what it brings, errors too (GHC-042,
//! GHC-049).
//!
//! Nothing is bounded here: there are no more flights than callers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::call::Effect;
use super::etag::Key;
use super::priority::Priority;
use super::transport::Answer;
use crate::error::Result;

/// Only those share an answer that would ask in the same way: whoever waits for something new tries longer, and whoever
/// may not spend the last of a budget gives up sooner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlightKey {
    pub(super) key: Key,
    pub(super) effect: Effect,
    pub(super) priority: Priority,
}

type Outcome = Option<Result<Answer>>;

#[derive(Debug, Default)]
pub(super) struct Flights {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    under_way: BTreeMap<FlightKey, (u64, watch::Receiver<Outcome>)>,
}

pub(super) enum Boarding<'a> {
    /// Nobody asks this yet: ask, and tell the others.
    Pilot(Pilot<'a>),
    Passenger(Passenger),
}

/// Whoever asks. Dropped without an outcome, one of the passengers asks instead.
pub(super) struct Pilot<'a> {
    flights: &'a Flights,
    key: FlightKey,
    id: u64,
    tell: watch::Sender<Outcome>,
}

pub(super) struct Passenger(watch::Receiver<Outcome>);

impl Flights {
    pub(super) fn board(&self, key: FlightKey) -> Boarding<'_> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, outcome)) = inner.under_way.get(&key) {
            return Boarding::Passenger(Passenger(outcome.clone()));
        }
        let (tell, outcome) = watch::channel(None);
        let id = inner.next;
        inner.next += 1;
        inner.under_way.insert(key.clone(), (id, outcome));
        Boarding::Pilot(Pilot {
            flights: self,
            key,
            id,
            tell,
        })
    }

    /// What was asked before this may be answered as it was before: nobody joins it from now on, and it is not kept.
    pub(super) fn ground(&self, stale: impl Fn(&Key) -> bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.under_way.retain(|flight, _| !stale(&flight.key));
    }
}

impl Pilot<'_> {
    /// Nothing has changed since it was asked, as far as we know.
    pub(super) fn is_current(&self) -> bool {
        let inner = self
            .flights
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let flight = inner.under_way.get(&self.key);
        flight.is_some_and(|(id, _)| *id == self.id)
    }

    pub(super) fn land(self, outcome: &Result<Answer>) {
        self.tell.send_replace(Some(outcome.clone()));
    }
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        let mut inner = self
            .flights
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let flight = inner.under_way.get(&self.key);
        if flight.is_some_and(|(id, _)| *id == self.id) {
            inner.under_way.remove(&self.key);
        }
    }
}

impl Passenger {
    /// `None` if whoever asked gave up.
    pub(super) async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> FlightKey {
        FlightKey {
            key: Key {
                server: 0,
                path: path.to_owned(),
                identity: String::new(),
                accept: "",
            },
            effect: Effect::Read,
            priority: Priority::Prompt,
        }
    }

    #[tokio::test]
    async fn ghc_049_one_asks_and_when_it_gives_up_another_does() {
        let flights = Flights::default();
        let Boarding::Pilot(first) = flights.board(key("/a")) else {
            panic!("somebody else asks");
        };
        let Boarding::Passenger(second) = flights.board(key("/a")) else {
            panic!("asked twice");
        };
        let waiting = FlightKey {
            effect: Effect::ReadNew,
            ..key("/a")
        };
        assert!(matches!(flights.board(waiting), Boarding::Pilot(_)));
        drop(first);
        assert!(second.outcome().await.is_none());
        assert!(matches!(flights.board(key("/a")), Boarding::Pilot(_)));
    }

    #[test]
    fn ghc_050_nobody_joins_what_was_asked_before_a_change() {
        let flights = Flights::default();
        let Boarding::Pilot(old) = flights.board(key("/a")) else {
            panic!("somebody else asks");
        };
        flights.ground(|key| key.path == "/b");
        assert!(old.is_current());
        flights.ground(|key| key.path == "/a");
        assert!(!old.is_current());
        let Boarding::Pilot(new) = flights.board(key("/a")) else {
            panic!("joined an old answer");
        };
        drop(old);
        assert!(new.is_current());
    }
}
