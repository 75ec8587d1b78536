//! What stands where in one pool: each member judged by its tests, batches judged as wholes (sections 3, 6 and 7 of
//! the checklist). Pure: facts in, judgement out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use trireme_forge::StatusState;
use trireme_proto::state::JobState;

use crate::{
    description,
    policy::ContextPolicy,
    pull::{Pull, TIDE_CONTEXT},
};

/// `org/repo:branch`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    pub org: String,
    pub repo: String,
    pub branch: String,
}

impl std::fmt::Display for PoolKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.org, self.repo, self.branch)
    }
}

/// A presubmit that must succeed before a merge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Required {
    pub job: String,
    pub context: String,
}

/// A pull request that meets a query.
#[derive(Clone)]
pub struct Member {
    pub pull: Pull,
    pub required: Vec<Required>,
    pub policy: Arc<dyn ContextPolicy>,
    /// Why it is passed over although it may be ready: a refused merge that nothing has changed since.
    pub held: Option<String>,
}

/// What a run says, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Failure,
    Pending,
    Success,
}

/// TIDE-060; a run that still waits for its cluster is pending (TIDE-065).
#[must_use]
pub fn verdict(state: JobState) -> Verdict {
    match state {
        JobState::Scheduling | JobState::Triggered | JobState::Pending => Verdict::Pending,
        JobState::Success => Verdict::Success,
        JobState::Failure | JobState::Aborted | JobState::Error | JobState::Unspecified => {
            Verdict::Failure
        }
    }
}

/// A presubmit or batch run on the pool's branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub batch: bool,
    pub job: String,
    pub context: String,
    pub state: JobState,
    pub base_sha: String,
    /// Number and head, in the order in which they are merged.
    pub pulls: Vec<(u64, String)>,
    pub created_by_tide: bool,
}

/// One `org/repo:branch` at one base commit.
pub struct Pool {
    pub key: PoolKey,
    pub base_sha: String,
    pub members: Vec<Member>,
    /// On any base.
    pub runs: Vec<Run>,
}

/// Numbers of members by the worst of the best results of their required presubmits (TIDE-062).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buckets {
    pub success: Vec<u64>,
    pub pending: Vec<u64>,
    pub missing: Vec<u64>,
    /// Of those in `missing`: what must run.
    pub missing_tests: BTreeMap<u64, Vec<Required>>,
}

/// The runs of one set of pull requests on the pool's base, all heads still as tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchGroup {
    pub numbers: Vec<u64>,
    /// Best verdict of each context.
    pub verdicts: BTreeMap<String, Verdict>,
}

/// At most one of each counts (TIDE-072).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batches {
    pub success: Vec<u64>,
    pub pending: Vec<u64>,
}

impl Member {
    #[must_use]
    pub fn number(&self) -> u64 {
        self.pull.number
    }

    /// Whether it belongs into the pool as far as its contexts tell: all good, or only tests of ours still under way
    /// (TIDE-025).
    #[must_use]
    pub fn contexts_allow(&self) -> bool {
        self.pull
            .unsuccessful(self.policy.as_ref())
            .iter()
            .all(|context| {
                context.state == StatusState::Pending
                    && self
                        .required
                        .iter()
                        .any(|test| test.context == context.name)
            })
    }

    /// Whether every context that counts is good.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.pull.unsuccessful(self.policy.as_ref()).is_empty()
    }
}

impl Pool {
    #[must_use]
    pub fn member(&self, number: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.number() == number)
    }

    /// Runs that count: those on the pool's base (TIDE-021).
    fn current_runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.base_sha == self.base_sha)
    }

    /// Contexts of a member with a good result on this base: from a run, or from a status that says so and outlives
    /// the run (TIDE-061).
    #[must_use]
    pub fn verdicts<'a>(&'a self, pull: &'a Pull) -> BTreeMap<&'a str, Verdict> {
        let mut best = BTreeMap::new();
        let mut see = |context, verdict: Verdict| {
            let entry = best.entry(context).or_insert(verdict);
            *entry = verdict.max(*entry);
        };
        for context in &pull.contexts {
            let vouched = description::skips_retest(&context.description)
                || description::base_sha_of(&context.description) == Some(&self.base_sha);
            if context.state == StatusState::Success && vouched {
                see(context.name.as_str(), Verdict::Success);
            }
        }
        for run in self.current_runs().filter(|run| !run.batch) {
            if run
                .pulls
                .first()
                .is_some_and(|(number, sha)| (*number, sha) == (pull.number, &pull.head_sha))
            {
                see(run.context.as_str(), verdict(run.state));
            }
        }
        best
    }

    /// TIDE-060 … TIDE-062
    #[must_use]
    pub fn accumulate(&self) -> Buckets {
        let mut buckets = Buckets::default();
        for member in &self.members {
            let number = member.number();
            let verdicts = self.verdicts(&member.pull);
            let of = |test: &&Required| verdicts.get(test.context.as_str()).copied();
            let missing: Vec<Required> = member
                .required
                .iter()
                .filter(|test| of(test).is_none_or(|verdict| verdict == Verdict::Failure))
                .cloned()
                .collect();
            let pending = member
                .required
                .iter()
                .any(|test| of(&test) == Some(Verdict::Pending));
            if !missing.is_empty() {
                buckets.missing.push(number);
                buckets.missing_tests.insert(number, missing);
            } else if pending {
                buckets.pending.push(number);
            } else {
                buckets.success.push(number);
            }
        }
        buckets
    }

    /// Groups whose pull requests are all still in the pool, at the tested heads, and not held (TIDE-070).
    #[must_use]
    pub fn batch_groups(&self) -> Vec<BatchGroup> {
        let mut groups: BTreeMap<&[(u64, String)], BTreeMap<String, Verdict>> = BTreeMap::new();
        for run in self.current_runs().filter(|run| run.batch) {
            let verdicts = groups.entry(&run.pulls).or_default();
            let verdict = verdict(run.state);
            let best = verdicts.entry(run.context.clone()).or_insert(verdict);
            *best = verdict.max(*best);
        }
        groups
            .into_iter()
            .filter(|(pulls, _)| {
                pulls.iter().all(|(number, sha)| {
                    self.member(*number)
                        .is_some_and(|member| member.pull.head_sha == *sha && member.held.is_none())
                })
            })
            .map(|(pulls, verdicts)| BatchGroup {
                numbers: pulls.iter().map(|(number, _)| *number).collect(),
                verdicts,
            })
            .collect()
    }

    /// Whether a pull request may be tested again on a new base: nothing is wrong with it but tests under way that
    /// Tide itself started, because it had passed then (TIDE-064).
    #[must_use]
    pub fn retest_eligible(&self, member: &Member) -> bool {
        let pull = &member.pull;
        let policy = member.policy.as_ref();
        policy.missing_required(&pull.context_names()).is_empty()
            && pull.contexts.iter().all(|context| {
                context.name == TIDE_CONTEXT
                    || context.state == StatusState::Success
                    || policy.is_optional(&context.name)
                    || (context.state == StatusState::Pending
                        && self.tide_tests(pull, &context.name))
            })
    }

    fn tide_tests(&self, pull: &Pull, context: &str) -> bool {
        self.runs.iter().any(|run| {
            !run.batch
                && run.created_by_tide
                && run.context == context
                && matches!(run.pulls.as_slice(), [(number, sha)] if (*number, sha) == (pull.number, &pull.head_sha))
        })
    }

    /// Of those that may be tested again, lowest number first (TIDE-073).
    #[must_use]
    pub fn batch_candidates(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self
            .members
            .iter()
            .filter(|member| member.held.is_none() && self.retest_eligible(member))
            .map(Member::number)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// The set of candidates that batch runs on this base speak for already: most successes, else most under way
    /// (TIDE-074); of several the largest, then the oldest (TIDE-078).
    #[must_use]
    pub fn tested_batch(&self, candidates: &[u64], limit: usize) -> Option<Vec<u64>> {
        let mut successes: BTreeMap<Vec<u64>, usize> = BTreeMap::new();
        let mut pending: BTreeMap<Vec<u64>, usize> = BTreeMap::new();
        for run in self.current_runs().filter(|run| run.batch) {
            let counts = match run.state {
                JobState::Success => &mut successes,
                JobState::Pending => &mut pending,
                _ => continue,
            };
            let usable = run.pulls.iter().all(|(number, sha)| {
                candidates.contains(number)
                    && self
                        .member(*number)
                        .is_some_and(|member| member.pull.head_sha == *sha)
            });
            if usable && (limit == 0 || run.pulls.len() <= limit) {
                let numbers = run.pulls.iter().map(|(number, _)| *number).collect();
                *counts.entry(numbers).or_default() += 1;
            }
        }
        let most = |counts: BTreeMap<Vec<u64>, usize>| {
            // Ascending by set, so that of equals the first one found stays.
            counts
                .into_iter()
                .rev()
                .max_by_key(|(numbers, count)| (*count, numbers.len()))
                .map(|(numbers, _)| numbers)
        };
        most(successes).or_else(|| most(pending))
    }

    /// How often this batch was tried on this base with this job.
    pub fn batch_runs(&self, job: &str, pulls: &[(u64, String)]) -> impl Iterator<Item = &Run> {
        let wanted: BTreeSet<&(u64, String)> = pulls.iter().collect();
        self.current_runs().filter(move |run| {
            run.batch && run.job == job && run.pulls.iter().collect::<BTreeSet<_>>() == wanted
        })
    }
}

/// A group against what it must pass; `None` = of no use any more, a new batch may be made (TIDE-072).
#[must_use]
pub fn judge(group: &BatchGroup, required: &[Required]) -> Option<Verdict> {
    let verdicts = required
        .iter()
        .map(|test| group.verdicts.get(&test.context).copied());
    let worst = verdicts
        .map(|verdict| verdict.unwrap_or(Verdict::Failure))
        .min()
        .unwrap_or(Verdict::Success);
    (worst != Verdict::Failure).then_some(worst)
}

/// Of several groups the largest counts, then the one with the lowest numbers (TIDE-078).
#[must_use]
pub fn choose_batches(judged: Vec<(BatchGroup, Option<Verdict>)>) -> Batches {
    let best = |wanted: Verdict| {
        judged
            .iter()
            .filter(|(_, verdict)| *verdict == Some(wanted))
            .map(|(group, _)| &group.numbers)
            .min_by_key(|numbers| (usize::MAX - numbers.len(), numbers.as_slice()))
            .cloned()
            .unwrap_or_default()
    };
    Batches {
        success: best(Verdict::Success),
        pending: best(Verdict::Pending),
    }
}
