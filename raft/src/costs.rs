//! Where the ring's time goes: how long each stage was at it, and how often.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What an entry goes through, in about this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// On a leader: a command waits to be packed.
    Queue,
    /// On a leader: commands become an entry.
    Encode,
    /// Records are framed and given to the operating system.
    LogWrite,
    /// fdatasync.
    LogSync,
    /// On a leader: from a request on its way to a follower to the answer that it is on disk there.
    Replicate,
    /// Commands change the state.
    Apply,
    /// The new view is shown, watchers are woken, callers answered.
    Publish,
}

impl Stage {
    pub const ALL: [Self; 7] = [
        Self::Queue,
        Self::Encode,
        Self::LogWrite,
        Self::LogSync,
        Self::Replicate,
        Self::Apply,
        Self::Publish,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Encode => "encode",
            Self::LogWrite => "log_write",
            Self::LogSync => "log_sync",
            Self::Replicate => "replicate",
            Self::Apply => "apply",
            Self::Publish => "publish",
        }
    }
}

/// Of one stage, since the node started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Together; stages that run side by side count each.
    pub time: Duration,
    /// Pieces of work: commands queued, entries encoded, writes, syncs, requests, entries applied, views shown.
    pub count: u64,
}

#[derive(Debug, Default)]
struct Counter {
    nanos: AtomicU64,
    count: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Costs([Counter; Stage::ALL.len()]);

impl Costs {
    pub(crate) fn add(&self, stage: Stage, time: Duration) {
        let counter = &self.0[stage as usize];
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        counter.nanos.fetch_add(nanos, Ordering::Relaxed);
        counter.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn timed<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.add(stage, started.elapsed());
        done
    }

    pub(crate) fn of(&self, stage: Stage) -> Cost {
        let counter = &self.0[stage as usize];
        Cost {
            time: Duration::from_nanos(counter.nanos.load(Ordering::Relaxed)),
            count: counter.count.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_counted_apart() {
        let costs = Costs::default();
        costs.add(Stage::Apply, Duration::from_micros(3));
        costs.add(Stage::Apply, Duration::from_micros(4));
        assert_eq!(
            costs.of(Stage::Apply),
            Cost {
                time: Duration::from_micros(7),
                count: 2
            }
        );
        assert_eq!(costs.timed(Stage::Encode, || 5), 5);
        assert_eq!(costs.of(Stage::Encode).count, 1);
        assert_eq!(costs.of(Stage::Queue), Cost::default());
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, at);
        }
    }
}
