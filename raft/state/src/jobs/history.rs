//! What happened to a job: rows that `apply` adds and nothing ever changes (JOB-075). Upstream keeps the last state alone.

use std::fmt::Arguments;

use trireme_proto::state::{Job, JobEvent};

use crate::{
    State,
    apply::Entry,
    level::HISTORY_LEVEL,
    limits::{FIRST_JOB_EVENTS, MAX_ACTOR_BYTES, MAX_CAUSE_BYTES, MAX_JOB_EVENTS},
    reject::cut_to,
};

impl State {
    /// Adds what this entry does to a job, whose state is the one that it has from now on.
    pub(super) fn note(&self, entry: &Entry, job: &mut Job, cause: Arguments<'_>) {
        if self.feature_level() < HISTORY_LEVEL {
            return;
        }
        let event = JobEvent {
            state: job.state,
            at_ms: entry.stamp_ms,
            revision: entry.index,
            cause: cut_to(&cause.to_string(), MAX_CAUSE_BYTES),
            actor: cut_to(&entry.principal, MAX_ACTOR_BYTES),
        };
        add(job, event);
    }
}

fn add(job: &mut Job, event: JobEvent) {
    if job.history.len() >= MAX_JOB_EVENTS {
        job.history.remove(FIRST_JOB_EVENTS);
        job.history_dropped = job.history_dropped.saturating_add(1);
    }
    // Jobs are many and their rows few: room to grow would be most of it.
    job.history.reserve_exact(1);
    job.history.push(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_newest_rows_stay_and_the_others_are_counted() {
        let mut job = Job::default();
        for revision in 1..=100 {
            let event = JobEvent {
                revision,
                ..JobEvent::default()
            };
            add(&mut job, event);
        }
        let kept: Vec<u64> = job.history.iter().map(|event| event.revision).collect();
        let expected: Vec<u64> = (1..=8).chain(77..=100).collect();
        assert_eq!(kept, expected);
        assert_eq!(kept.len() + job.history_dropped as usize, 100);
    }
}
