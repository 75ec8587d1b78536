//! What followers of changes are shown.

use std::collections::BTreeMap;

use prost::Message as _;
use trireme_proto::state::{ChangeBatch, change::Record};

use crate::History;

/// So many changes never fall into one millisecond: a disk is slower.
const MAX_AT_ONE_STAMP: usize = 30;
/// No pause in a story is as long; clocks that jump do so by an hour.
const MAX_STEP_MS: i64 = 20 * 60 * 1000;

/// Revisions only rise; followers that went through different nodes were shown the same; what is read in the end was
/// shown as it is. Entries that change no record have no revision in a watch, so a gap shows in these ways only.
pub(super) fn no_gap(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let Some(first) = history.watched.first() else {
        return vec!["nobody watched".to_owned()];
    };
    for watched in &history.watched {
        for (before, after) in watched.batches.iter().zip(watched.batches.iter().skip(1)) {
            if after.revision <= before.revision {
                found.push(format!(
                    "follower {}: {} came after {}",
                    watched.name, after.revision, before.revision
                ));
            }
        }
    }
    let shown = |batches: &[ChangeBatch]| -> BTreeMap<u64, Vec<u8>> {
        let encode = |batch: &ChangeBatch| (batch.revision, batch.encode_to_vec());
        batches.iter().map(encode).collect()
    };
    let reference = shown(&first.batches);
    for other in history.watched.iter().skip(1) {
        let batches = shown(&other.batches);
        let ends = (reference.last_key_value(), batches.last_key_value());
        let (Some((a, _)), Some((b, _))) = ends else {
            found.push(format!(
                "followers {} and {}: one was shown nothing",
                first.name, other.name
            ));
            continue;
        };
        let end = *a.min(b);
        for revision in reference
            .keys()
            .chain(batches.keys())
            .filter(|at| **at <= end)
        {
            match (reference.get(revision), batches.get(revision)) {
                (Some(here), Some(there)) if here == there => {}
                (Some(_), Some(_)) => found.push(format!(
                    "followers {} and {} were shown different changes at {revision}",
                    first.name, other.name
                )),
                (Some(_), None) => {
                    found.push(format!("follower {} was not shown {revision}", other.name));
                }
                (None, _) => {
                    found.push(format!("follower {} was not shown {revision}", first.name));
                }
            }
        }
    }
    found.extend(last_is_as_shown(history));
    found.sort();
    found.dedup();
    found
}

/// Stamps are the leader's monotonic time: they never go back nor stand still, and however clocks jump, no stamp is long
/// after the one before, since something is written all the time.
pub(super) fn stamps_are_steady(history: &History) -> Vec<String> {
    let Some(first) = history.watched.first() else {
        // That nobody watched is said elsewhere.
        return Vec::new();
    };
    let standing = first
        .batches
        .chunk_by(|one, other| one.stamp_ms == other.stamp_ms)
        .filter(|same| same.len() > MAX_AT_ONE_STAMP)
        .map(|same| {
            let (from, to) = (same[0].revision, same[same.len() - 1].revision);
            format!("the stamp stands still from {from} to {to}")
        });
    let after = first.batches.iter().skip(1);
    let pairs = first.batches.iter().zip(after);
    pairs
        .filter_map(|(before, after)| {
            let step = after.stamp_ms - before.stamp_ms;
            let what = match step {
                ..0 => "before",
                MAX_STEP_MS.. => "after",
                _ => return None,
            };
            Some(format!(
                "the stamp of {} is {} s {what} that of {}",
                after.revision,
                step.abs() / 1000,
                before.revision
            ))
        })
        .chain(standing)
        .collect()
}

fn last_is_as_shown(history: &History) -> Vec<String> {
    let mut jobs = BTreeMap::new();
    let mut deliveries = BTreeMap::new();
    let mut intents = BTreeMap::new();
    for (_, record, removed) in history.changes() {
        if removed {
            continue;
        }
        match record {
            Record::Job(job) => {
                jobs.insert(job.id.as_str(), job);
            }
            Record::Delivery(delivery) => {
                deliveries.insert(delivery.guid.as_str(), delivery);
            }
            Record::Intent(intent) => {
                intents.insert(intent.id.as_str(), intent);
            }
            _ => {}
        }
    }
    let last = &history.last;
    let mut found = Vec::new();
    let mut say = |what: &str, id: &str| {
        found.push(format!(
            "{what} {id} is in the end not as it was last shown"
        ));
    };
    for job in &last.jobs {
        if jobs.get(job.id.as_str()) != Some(&job) {
            say("job", &job.id);
        }
    }
    for delivery in &last.deliveries {
        if deliveries.get(delivery.guid.as_str()) != Some(&delivery) {
            say("delivery", &delivery.guid);
        }
    }
    for intent in &last.intents {
        if intents.get(intent.id.as_str()) != Some(&intent) {
            say("intent", &intent.id);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{good, judged};

    #[test]
    fn a_revision_that_comes_twice_is_caught() {
        let mut history = good();
        let again = history.watched[0].batches[1].clone();
        history.watched[0].batches.insert(2, again);
        assert!(judged(&history).contains("follower 1: 3 came after 3"));
    }

    #[test]
    fn a_change_that_one_follower_was_not_shown_is_caught() {
        let mut history = good();
        history.watched[1].batches.remove(2);
        assert!(judged(&history).contains("follower 2 was not shown 4"));
    }

    #[test]
    fn different_changes_at_one_revision_are_caught() {
        let mut history = good();
        history.watched[1].batches[2].stamp_ms += 1;
        assert!(judged(&history).contains("followers 1 and 2 were shown different changes at 4"));
    }

    #[test]
    fn a_change_that_nobody_was_shown_is_caught() {
        let mut history = good();
        for watched in &mut history.watched {
            watched.batches.pop();
        }
        assert!(judged(&history).contains("is in the end not as it was last shown"));
    }

    #[test]
    fn a_stamp_that_goes_back_or_jumps_is_caught() {
        for (by_ms, what) in [(-3_600_000, "before"), (3_600_000, "after")] {
            let mut history = good();
            for watched in &mut history.watched {
                for batch in &mut watched.batches[3..] {
                    batch.stamp_ms += by_ms;
                }
            }
            let judged = judged(&history);
            assert!(
                judged.contains("stamps are steady: the stamp of 5 is"),
                "{judged}"
            );
            assert!(judged.contains(&format!("s {what} that of 4")), "{judged}");
        }
    }

    #[test]
    fn a_stamp_that_stands_still_is_caught() {
        let mut history = good();
        for watched in &mut history.watched {
            let last = watched.batches[watched.batches.len() - 1].clone();
            watched.batches.extend(
                (100..140).map(|revision| trireme_proto::state::ChangeBatch {
                    revision,
                    ..last.clone()
                }),
            );
        }
        assert!(
            judged(&history).contains("stamps are steady: the stamp stands still from 8 to 139")
        );
    }
}
