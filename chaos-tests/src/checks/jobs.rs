//! Jobs: their creation, their way and their result.

use std::collections::{BTreeMap, BTreeSet};

use trireme_proto::state::{Job, JobState, change::Record};
use trireme_state::state_name;

use crate::History;

fn jobs(history: &History) -> impl Iterator<Item = (u64, &Job, bool)> {
    history
        .changes()
        .filter_map(|(revision, record, removed)| match record {
            Record::Job(job) => Some((revision, job, removed)),
            _ => None,
        })
}

fn is_complete(job: &Job) -> bool {
    job.completed_ms > 0
}

/// Each id appears once and in the entry that it says, and is there in the end unless it was swept.
pub(super) fn created_once(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut created: BTreeMap<&str, u64> = BTreeMap::new();
    let mut swept = BTreeSet::new();
    for (revision, job, removed) in jobs(history) {
        let id = job.id.as_str();
        if removed {
            swept.insert(id);
            continue;
        }
        match created.get(id) {
            None if job.created_revision != revision => found.push(format!(
                "job {id} is first seen at {revision}, but was created at {}",
                job.created_revision
            )),
            Some(at) if *at != job.created_revision => found.push(format!(
                "job {id} was created at {at} and again at {}",
                job.created_revision
            )),
            _ if swept.contains(id) => {
                found.push(format!("job {id} is back at {revision} after it was swept"));
            }
            _ => {}
        }
        created.entry(id).or_insert(job.created_revision);
    }
    let last: BTreeSet<&str> = history
        .last
        .jobs
        .iter()
        .map(|job| job.id.as_str())
        .collect();
    if last.len() != history.last.jobs.len() {
        found.push("the list of jobs names one twice".to_owned());
    }
    for id in created.keys() {
        if !last.contains(id) && !swept.contains(id) {
            found.push(format!("job {id} was created and is lost"));
        }
    }
    for id in last {
        if !created.contains_key(id) {
            found.push(format!("nobody saw job {id} being created"));
        }
    }
    found
}

/// A webhook taken in twice, or a plan carried out twice, would make a job's record twice under two ids.
pub(super) fn a_delivery_creates_each_job_once(history: &History) -> Vec<String> {
    let guids: BTreeSet<&str> = history
        .last
        .deliveries
        .iter()
        .map(|delivery| delivery.guid.as_str())
        .collect();
    let mut found = Vec::new();
    let mut first: BTreeMap<(&str, &str, Vec<u64>), &str> = BTreeMap::new();
    for job in &history.last.jobs {
        if !guids.contains(job.origin.as_str()) {
            continue;
        }
        let pulls = job.pulls.iter().map(|pull| pull.number).collect();
        let key = (job.origin.as_str(), job.job.as_str(), pulls);
        if let Some(other) = first.insert(key, &job.id) {
            found.push(format!(
                "delivery {} created {} as {other} and as {}",
                job.origin, job.job, job.id
            ));
        }
    }
    found
}

/// Everything is complete in the end, and was never complete with anything else.
pub(super) fn one_result(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut results: BTreeMap<&str, (JobState, i64)> = BTreeMap::new();
    for (revision, job, removed) in jobs(history) {
        if removed || !is_complete(job) {
            continue;
        }
        let result = (job.state(), job.completed_ms);
        let before = results.entry(&job.id).or_insert(result);
        if *before != result {
            found.push(format!(
                "job {} ended in {} and in {} at {revision}",
                job.id,
                state_name(before.0),
                state_name(result.0)
            ));
        }
    }
    for job in &history.last.jobs {
        match results.get(job.id.as_str()) {
            _ if !is_complete(job) => found.push(format!(
                "job {} ({}) has no result: it is {}",
                job.id,
                job.job,
                state_name(job.state())
            )),
            Some(result) if *result != (job.state(), job.completed_ms) => found.push(format!(
                "job {} ended in {}, but is {} in the end",
                job.id,
                state_name(result.0),
                state_name(job.state())
            )),
            _ => {}
        }
    }
    found
}

/// Where a job may be after `before`; none is before its creation. Aborted comes before complete while an agent still
/// has to let go.
fn is_legal(before: Option<&Job>, now: &Job) -> bool {
    use JobState::{Aborted, Error, Failure, Pending, Scheduling, Success, Triggered};
    let complete = is_complete(now);
    let Some(before) = before else {
        return !complete && matches!(now.state(), Scheduling | Triggered);
    };
    if is_complete(before) {
        return complete && before.state == now.state;
    }
    match (before.state(), now.state()) {
        (Scheduling, Scheduling | Triggered)
        | (Triggered, Triggered | Pending)
        // Back to triggered: the lease was lost.
        | (Pending, Pending | Triggered) => !complete,
        (Scheduling | Triggered, Error) => complete,
        (Pending, Success | Failure | Error) => complete,
        (Scheduling | Triggered | Pending | Aborted, Aborted) => true,
        _ => false,
    }
}

pub(super) fn transitions_are_legal(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for watched in &history.watched {
        let mut seen: BTreeMap<&str, &Job> = BTreeMap::new();
        for batch in &watched.batches {
            for change in &batch.changes {
                let Some(Record::Job(job)) = &change.record else {
                    continue;
                };
                let id = job.id.as_str();
                if change.removed {
                    if let Some(before) = seen.remove(id)
                        && !is_complete(before)
                    {
                        found.push(format!("job {id} was swept before it was complete"));
                    }
                    continue;
                }
                let before = seen.insert(id, job);
                if !is_legal(before, job) {
                    let word = |job: &Job| {
                        let end = if is_complete(job) { " (complete)" } else { "" };
                        format!("{}{end}", state_name(job.state()))
                    };
                    found.push(format!(
                        "follower {}: job {id} went from {} to {} at {}",
                        watched.name,
                        before.map_or("nothing".to_owned(), word),
                        word(job),
                        batch.revision
                    ));
                }
                if let Some(before) = before
                    && !before.build_id.is_empty()
                    && before.build_id != job.build_id
                {
                    found.push(format!(
                        "follower {}: job {id} changed its build id from {} to {}",
                        watched.name, before.build_id, job.build_id
                    ));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{batch, good, judged, show};
    use super::*;

    #[test]
    fn a_job_created_twice_is_caught() {
        let mut history = good();
        let mut again = history.last.jobs[0].clone();
        again.created_revision = 90;
        show(&mut history, batch(90, [Record::Job(again)]));
        assert!(judged(&history).contains("job j1 was created at 4 and again at 90"));
    }

    #[test]
    fn a_job_that_vanishes_is_caught() {
        let mut history = good();
        history.last.jobs.clear();
        assert!(judged(&history).contains("job j1 was created and is lost"));
    }

    #[test]
    fn a_delivery_that_makes_a_job_twice_is_caught() {
        let mut history = good();
        let mut twin = history.last.jobs[0].clone();
        twin.id = "j2".to_owned();
        history.last.jobs.push(twin);
        assert!(judged(&history).contains("delivery g1 created unit as j1 and as j2"));
    }

    #[test]
    fn a_second_result_is_caught() {
        let mut history = good();
        let mut other = history.last.jobs[0].clone();
        other.set_state(JobState::Failure);
        show(&mut history, batch(90, [Record::Job(other)]));
        let judged = judged(&history);
        assert!(judged.contains("job j1 ended in success and in failure at 90"));
        assert!(judged.contains("went from success (complete) to failure (complete) at 90"));
    }

    #[test]
    fn a_job_without_a_result_is_caught() {
        let mut history = good();
        history.last.jobs[0].completed_ms = 0;
        history.last.jobs[0].set_state(JobState::Pending);
        assert!(judged(&history).contains("job j1 (unit) has no result: it is pending"));
    }

    #[test]
    fn a_result_that_no_lease_led_to_is_caught() {
        let mut history = good();
        for watched in &mut history.watched {
            // The lease is not shown.
            watched.batches.retain(|batch| batch.revision != 5);
        }
        assert!(judged(&history).contains("job j1 went from triggered to success (complete) at 6"));
    }

    #[test]
    fn another_build_id_is_caught() {
        let mut history = good();
        let mut other = history.last.jobs[0].clone();
        other.build_id = "8".to_owned();
        show(&mut history, batch(90, [Record::Job(other)]));
        assert!(judged(&history).contains("job j1 changed its build id from 7 to 8"));
    }

    #[test]
    fn a_job_that_goes_on_after_its_end_is_caught() {
        for state in [JobState::Pending, JobState::Triggered, JobState::Aborted] {
            let mut history = good();
            let mut again = history.last.jobs[0].clone();
            again.set_state(state);
            show(&mut history, batch(90, [Record::Job(again)]));
            let judged = judged(&history);
            let went = format!(
                "went from success (complete) to {} (complete) at 90",
                state_name(state)
            );
            assert!(judged.contains(&went), "{judged}");
        }
    }
}
