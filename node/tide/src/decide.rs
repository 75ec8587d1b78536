//! The one action that a pool takes next (section 8 of the checklist).

use crate::pool::{Batches, Buckets, Member, Pool, Required};

/// What the configuration says about choosing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Sets of labels, most urgent first (`tide.priority`).
    pub priority: Vec<Vec<String>>,
    /// 0 = any size, negative = no batches.
    pub batch_size_limit: i64,
    pub prioritize_existing_batches: bool,
}

/// What to do next; one per pool and sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Wait,
    Merge(u64),
    MergeBatch(Vec<u64>),
    /// Find out which of these, in this order, merge cleanly one after the other, at most `limit` (0 = all); then
    /// decide again with what was found.
    FormBatch {
        candidates: Vec<u64>,
        limit: usize,
    },
    TriggerBatch(Vec<u64>),
    Trigger {
        number: u64,
        tests: Vec<Required>,
    },
}

/// `formed` is what became of [`Decision::FormBatch`], once it was asked for.
#[must_use]
pub fn decide(
    pool: &Pool,
    buckets: &Buckets,
    batches: &Batches,
    settings: &Settings,
    formed: Option<&[u64]>,
) -> Decision {
    let free = |numbers: &[u64]| -> Vec<&Member> {
        let members = numbers.iter().filter_map(|number| pool.member(*number));
        members.filter(|member| member.held.is_none()).collect()
    };
    if !batches.success.is_empty() {
        return Decision::MergeBatch(batches.success.clone());
    }
    let batch_pending = !batches.pending.is_empty();
    let success = free(&buckets.success);
    // A single merge moves the base and would make a batch under way useless.
    if !batch_pending && let Some(number) = pick(&success, &settings.priority, Member::passes) {
        return Decision::Merge(number);
    }
    if pool.members.iter().all(|member| member.required.is_empty()) {
        return Decision::Wait;
    }
    let members = pool
        .members
        .iter()
        .filter(|member| member.held.is_none())
        .count();
    if let Ok(limit) = usize::try_from(settings.batch_size_limit)
        && members > 1
        && !batch_pending
    {
        match formed {
            Some(batch) if batch.len() > 1 => return Decision::TriggerBatch(batch.to_vec()),
            Some(_) => {}
            None => {
                let candidates = pool.batch_candidates();
                let tested = settings
                    .prioritize_existing_batches
                    .then(|| pool.tested_batch(&candidates, limit))
                    .flatten();
                match tested {
                    Some(batch) if batch.len() > 1 => return Decision::TriggerBatch(batch),
                    Some(_) => {}
                    None if candidates.len() > 1 => {
                        return Decision::FormBatch { candidates, limit };
                    }
                    None => {}
                }
            }
        }
    }
    let missing = free(&buckets.missing);
    if free(&buckets.pending).is_empty()
        && success.is_empty()
        && let Some(number) = pick(&missing, &settings.priority, |member| {
            pool.retest_eligible(member)
        })
    {
        let tests = buckets
            .missing_tests
            .get(&number)
            .cloned()
            .unwrap_or_default();
        return Decision::Trigger { number, tests };
    }
    Decision::Wait
}

/// The lowest number of the most urgent that passes the check (TIDE-063).
fn pick(
    members: &[&Member],
    priority: &[Vec<String>],
    check: impl Fn(&Member) -> bool,
) -> Option<u64> {
    let everyone = Vec::new();
    priority.iter().chain([&everyone]).find_map(|labels| {
        members
            .iter()
            .filter(|member| labels.iter().all(|any| member.pull.has_one_of(any)))
            .filter(|member| check(member))
            .map(|member| member.number())
            .min()
    })
}
