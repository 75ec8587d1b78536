//! What a forge that is away does with those who ask, and how often they did.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    /// As it should.
    Well,
    /// What it is asked takes effect; nobody hears of that.
    LosesAnswers,
    /// With 503.
    Unavailable,
    /// Nobody takes the connection.
    Refuses,
    /// Not at all: the connection is taken, and nothing comes.
    Silent,
    /// With 403, and the wish to be asked again after a minute.
    Limits,
    /// It is back.
    Back,
}

impl Mood {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Well => "before",
            Self::LosesAnswers => "answers lost",
            Self::Unavailable => "503",
            Self::Refuses => "connections refused",
            Self::Silent => "silent",
            Self::Limits => "403, Retry-After 60",
            Self::Back => "after",
        }
    }

    pub(super) fn is_away(self) -> bool {
        !matches!(self, Self::Well | Self::Back)
    }
}

/// What the time away consists of, in hundredths.
const PARTS: [(Mood, u32); 6] = [
    (Mood::LosesAnswers, 1),
    (Mood::Unavailable, 39),
    (Mood::Refuses, 20),
    (Mood::Silent, 10),
    (Mood::Limits, 20),
    (Mood::Unavailable, 10),
];
/// Answers are lost no longer than this: what took effect is found by who looks for it soon.
const LOSING: Duration = Duration::from_secs(5);

/// The moods of an absence, and how long each lasts.
pub(super) fn outage(lasting: Duration) -> Vec<(Mood, Duration)> {
    let mut parts: Vec<(Mood, Duration)> = PARTS
        .iter()
        .map(|(mood, hundredths)| (*mood, lasting * *hundredths / 100))
        .collect();
    let saved = parts[0].1.saturating_sub(LOSING);
    parts[0].1 -= saved;
    parts[1].1 += saved;
    parts
}

/// Calls in one mood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) all: u64,
    /// Of these, the client's questions whether anybody is there.
    pub(super) probes: u64,
}

/// Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Moods(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    now: Mood,
    calls: BTreeMap<Mood, Calls>,
    /// The present second of the absence, its calls, and the most of any second.
    second: (u64, u64, u64),
    began: Instant,
    first_after: Option<Instant>,
}

impl Moods {
    pub(super) fn new(began: Instant) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now: Mood::Well,
            calls: BTreeMap::new(),
            second: (0, 0, 0),
            began,
            first_after: None,
        })))
    }

    fn held(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From `from` on, then it is back.
    pub(super) async fn go_through(self, parts: Vec<(Mood, Duration)>, from: Instant) {
        let mut at = from;
        for (mood, lasting) in parts {
            sleep_until(at).await;
            self.held().now = mood;
            at += lasting;
        }
        sleep_until(at).await;
        self.held().now = Mood::Back;
    }

    /// A call arrives: how it is met.
    pub(super) fn meet(&self, is_probe: bool) -> Mood {
        let mut inner = self.held();
        let mood = inner.now;
        let calls = inner.calls.entry(mood).or_default();
        calls.all += 1;
        calls.probes += u64::from(is_probe);
        if mood.is_away() {
            let now = inner.began.elapsed().as_secs();
            let (second, count, most) = inner.second;
            let count = if second == now { count + 1 } else { 1 };
            inner.second = (now, count, most.max(count));
        }
        if mood == Mood::Back && !is_probe {
            inner.first_after.get_or_insert_with(Instant::now);
        }
        mood
    }

    pub(super) fn calls(&self) -> BTreeMap<Mood, Calls> {
        self.held().calls.clone()
    }

    /// The most in one second while it was away.
    pub(super) fn most_in_a_second(&self) -> u64 {
        self.held().second.2
    }

    /// The first call, probes apart, that it met once it was back.
    pub(super) fn first_after(&self) -> Option<Instant> {
        self.held().first_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absence_is_made_of_all_moods_and_as_long_as_was_asked() {
        for seconds in [60, 600, 3600] {
            let lasting = Duration::from_secs(seconds);
            let parts = outage(lasting);
            assert_eq!(
                parts.iter().map(|(_, part)| *part).sum::<Duration>(),
                lasting
            );
            assert!(parts[0].1 <= LOSING);
            assert!(parts.iter().all(|(mood, _)| mood.is_away()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_counted_by_mood_and_second() {
        let began = Instant::now();
        let moods = Moods::new(began);
        let parts = vec![(Mood::Unavailable, Duration::from_secs(2))];
        let going = tokio::spawn(moods.clone().go_through(parts, began));
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..3 {
            assert_eq!(moods.meet(false), Mood::Unavailable);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        moods.meet(true);
        going.await.unwrap();
        assert_eq!(moods.meet(false), Mood::Back);
        let away = Calls { all: 4, probes: 1 };
        assert_eq!(moods.calls()[&Mood::Unavailable], away);
        assert_eq!(moods.most_in_a_second(), 3);
        assert_eq!(moods.first_after(), Some(began + Duration::from_secs(2)));
    }
}
