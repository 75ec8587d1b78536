//! What a pool does next, told by what its pull requests and runs look like.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

use std::{collections::BTreeSet, sync::Arc};

use trireme_forge::{
    StatusState,
    search::{MergeState, Mergeable},
};
use trireme_proto::state::JobState;
use trireme_tide::{
    decide::{Decision, Settings, decide},
    policy::ContextPolicy,
    pool::{Member, Pool, PoolKey, Required, Run, choose_batches, judge},
    pull::{Context, Pull},
};

/// These must succeed; nothing else is optional.
struct Needs(&'static [&'static str]);

impl ContextPolicy for Needs {
    fn is_optional(&self, _: &str) -> bool {
        false
    }
    fn missing_required(&self, present: &BTreeSet<&str>) -> Vec<String> {
        let missing = self.0.iter().filter(|context| !present.contains(*context));
        missing.map(|&context| context.to_owned()).collect()
    }
}

fn required(context: &str) -> Required {
    Required {
        job: format!("job-{context}"),
        context: context.to_owned(),
    }
}

/// A pull request that needs `unit`, which is green on an older base.
fn pr(number: u64) -> Member {
    Member {
        pull: Pull {
            org: "o".into(),
            repo: "r".into(),
            number,
            title: String::new(),
            body: String::new(),
            author: "alice".into(),
            author_is_bot: false,
            base_ref: "main".into(),
            head_ref: "fix".into(),
            head_sha: format!("head{number}"),
            labels: Vec::new(),
            milestone: None,
            draft: false,
            mergeable: Mergeable::Mergeable,
            merge_state: MergeState::Clean,
            can_be_rebased: true,
            review: None,
            contexts: vec![context("unit", StatusState::Success, "")],
        },
        required: vec![required("unit")],
        policy: Arc::new(Needs(&["unit"])),
        held: None,
    }
}

fn context(name: &str, state: StatusState, description: &str) -> Context {
    Context {
        name: name.into(),
        state,
        description: description.into(),
    }
}

trait With: Sized {
    fn with(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl<T> With for T {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn run(state: JobState, numbers: &[u64]) -> Run {
    Run {
        batch: numbers.len() > 1,
        job: "job-unit".into(),
        context: "unit".into(),
        state,
        base_sha: "base".into(),
        pulls: numbers.iter().map(|n| (*n, format!("head{n}"))).collect(),
        created_by_tide: false,
    }
}

fn pool(members: Vec<Member>, runs: Vec<Run>) -> Pool {
    Pool {
        key: PoolKey {
            org: "o".into(),
            repo: "r".into(),
            branch: "main".into(),
        },
        base_sha: "base".into(),
        members,
        runs,
    }
}

fn next(pool: &Pool, settings: &Settings, formed: Option<&[u64]>) -> Decision {
    let judged = pool
        .batch_groups()
        .into_iter()
        .map(|group| {
            let verdict = judge(&group, &[required("unit")]);
            (group, verdict)
        })
        .collect();
    decide(
        pool,
        &pool.accumulate(),
        &choose_batches(judged),
        settings,
        formed,
    )
}

fn next_of(members: Vec<Member>, runs: Vec<Run>) -> Decision {
    let settings = Settings {
        prioritize_existing_batches: true,
        ..Settings::default()
    };
    next(&pool(members, runs), &settings, None)
}

#[test]
fn tide_060_the_best_result_on_this_base_and_head_counts() {
    let elsewhere = [
        run(JobState::Success, &[1]).with(|run| run.base_sha = "old".into()),
        run(JobState::Success, &[1]).with(|run| run.pulls[0].1 = "former head".into()),
    ];
    for (runs, expected) in [
        (vec![], "missing"),
        (vec![JobState::Failure], "missing"),
        (vec![JobState::Error, JobState::Pending], "pending"),
        (vec![JobState::Scheduling], "pending"),
        (vec![JobState::Success, JobState::Aborted], "success"),
    ] {
        let runs = runs.into_iter().map(|state| run(state, &[1]));
        let buckets = pool(vec![pr(1)], runs.chain(elsewhere.clone()).collect()).accumulate();
        let bucket = match expected {
            "missing" => &buckets.missing,
            "pending" => &buckets.pending,
            _ => &buckets.success,
        };
        assert_eq!(bucket, &[1], "{expected}");
    }
}

#[test]
fn tide_061_a_status_vouches_for_its_base_when_the_run_is_gone() {
    let base = "1".repeat(40);
    let with = |description: &str| {
        let member = pr(1)
            .with(|pr| pr.pull.contexts = vec![context("unit", StatusState::Success, description)]);
        pool(vec![member], vec![]).with(|pool| pool.base_sha.clone_from(&base))
    };
    let for_base = with(&format!("Job succeeded. BaseSHA:{base}"));
    assert_eq!(for_base.accumulate().success, [1]);
    let for_any = with("Overridden by bob [prow:skip-retest]");
    assert_eq!(for_any.accumulate().success, [1]);
    let for_other = with(&format!("Job succeeded. BaseSHA:{}", "2".repeat(40)));
    assert_eq!(for_other.accumulate().missing, [1]);
}

#[test]
fn tide_062_without_required_tests_it_is_ready() {
    let member = pr(1).with(|pr| pr.required.clear());
    assert_eq!(next_of(vec![member], vec![]), Decision::Merge(1));
}

#[test]
fn tide_063_urgent_ones_go_first_then_the_lowest_number() {
    let settings = Settings {
        priority: vec![vec!["urgent,hot".into(), "reviewed".into()]],
        ..Settings::default()
    };
    let label = |number, labels: &[&str]| {
        pr(number).with(|pr| pr.pull.labels = labels.iter().map(|&l| l.to_owned()).collect())
    };
    let members = vec![
        label(1, &[]),
        label(2, &["hot"]),
        label(5, &["reviewed", "urgent"]),
        label(4, &["hot", "reviewed"]),
    ];
    let runs: Vec<Run> = [1, 2, 4, 5].map(|n| run(JobState::Success, &[n])).into();
    let pool = pool(members, runs);
    assert_eq!(next(&pool, &settings, None), Decision::Merge(4));
    assert_eq!(next(&pool, &Settings::default(), None), Decision::Merge(1));
}

#[test]
fn tide_064_what_tide_tests_is_still_eligible_what_others_test_is_not() {
    let pending =
        || pr(1).with(|pr| pr.pull.contexts = vec![context("unit", StatusState::Pending, "")]);
    let by_tide = run(JobState::Pending, &[1])
        .with(|run| (run.created_by_tide, run.base_sha) = (true, "old".into()));
    let eligible = |member: Member, runs: Vec<Run>| pool(vec![member], runs).batch_candidates();
    assert_eq!(eligible(pending(), vec![by_tide.clone()]), [1]);
    let by_other = by_tide.with(|run| run.created_by_tide = false);
    assert!(eligible(pending(), vec![by_other]).is_empty());
    assert!(eligible(pr(1).with(|pr| pr.pull.contexts.clear()), vec![]).is_empty());
}

#[test]
fn tide_025_only_tests_of_ours_may_be_under_way() {
    let with = |name: &str, state| {
        let extra = context(name, state, "");
        pr(1).with(|pr| pr.pull.contexts = vec![context("unit", StatusState::Success, ""), extra])
    };
    assert!(with("tide", StatusState::Error).contexts_allow());
    assert!(!with("cla", StatusState::Pending).contexts_allow());
    assert!(!with("cla", StatusState::Failure).contexts_allow());
    let ours = pr(1).with(|pr| pr.pull.contexts[0].state = StatusState::Pending);
    assert!(ours.contexts_allow() && !ours.passes());
    assert!(!pr(1).with(|pr| pr.pull.contexts.clear()).contexts_allow());
}

#[test]
fn tide_080_a_green_batch_merges_before_all_else() {
    let runs = vec![
        run(JobState::Success, &[2, 3]),
        run(JobState::Success, &[1]),
    ];
    let members = vec![pr(1), pr(2), pr(3)];
    assert_eq!(next_of(members, runs), Decision::MergeBatch(vec![2, 3]));
}

#[test]
fn tide_070_a_batch_counts_only_with_the_heads_it_was_tested_with() {
    let moved = pr(3).with(|pr| pr.pull.head_sha = "new".into());
    let runs = vec![run(JobState::Success, &[2, 3])];
    let formed = next_of(vec![pr(2), moved], runs.clone());
    assert!(matches!(formed, Decision::FormBatch { .. }), "{formed:?}");
    let left = next_of(vec![pr(2)], runs);
    assert!(
        matches!(left, Decision::Trigger { number: 2, .. }),
        "{left:?}"
    );
}

#[test]
fn tide_078_of_several_green_batches_the_largest_merges() {
    let runs = vec![
        run(JobState::Success, &[1, 2]),
        run(JobState::Success, &[1, 2, 3]),
        run(JobState::Success, &[2, 3]),
    ];
    let members = vec![pr(1), pr(2), pr(3)];
    assert_eq!(next_of(members, runs), Decision::MergeBatch(vec![1, 2, 3]));
}

#[test]
fn tide_080_single_merges_wait_for_a_batch_and_a_serial_test_runs_beside_it() {
    let batch = run(JobState::Triggered, &[1, 2]);
    let ready = vec![run(JobState::Success, &[3]), batch.clone()];
    assert_eq!(next_of(vec![pr(1), pr(2), pr(3)], ready), Decision::Wait);
    let serial = next_of(vec![pr(1), pr(2), pr(3)], vec![batch]);
    let tests = vec![required("unit")];
    assert_eq!(serial, Decision::Trigger { number: 1, tests });
}

#[test]
fn tide_073_a_batch_is_formed_of_all_that_may_be_tested_again() {
    let bad = pr(2).with(|pr| pr.pull.contexts[0].state = StatusState::Failure);
    let members = vec![pr(3), bad, pr(1)];
    let candidates = vec![1, 3];
    let limit = 0;
    assert_eq!(
        next_of(members.clone(), vec![]),
        Decision::FormBatch { candidates, limit }
    );
    let none = Settings {
        batch_size_limit: -1,
        ..Settings::default()
    };
    let pool = pool(members, vec![]);
    assert!(matches!(
        next(&pool, &none, None),
        Decision::Trigger { number: 1, .. }
    ));
    let some = Settings::default();
    assert_eq!(
        next(&pool, &some, Some(&[1, 3])),
        Decision::TriggerBatch(vec![1, 3])
    );
    assert!(matches!(
        next(&pool, &some, Some(&[1])),
        Decision::Trigger { number: 1, .. }
    ));
}

#[test]
fn tide_074_a_set_that_was_tested_already_is_preferred() {
    let other = |run: Run| run.with(|run| run.context = "e2e".into());
    let runs = vec![
        other(run(JobState::Success, &[1, 2])),
        run(JobState::Failure, &[1, 2]),
        other(run(JobState::Pending, &[1, 2, 3])),
    ];
    let members = || vec![pr(1), pr(2), pr(3)];
    assert_eq!(
        next_of(members(), runs.clone()),
        Decision::TriggerBatch(vec![1, 2])
    );
    let decision = next(&pool(members(), runs), &Settings::default(), None);
    assert!(
        matches!(decision, Decision::FormBatch { .. }),
        "{decision:?}"
    );
}

#[test]
fn tide_072_a_batch_with_a_missing_or_failed_test_is_of_no_use() {
    let pool = pool(vec![pr(1), pr(2)], vec![run(JobState::Success, &[1, 2])]);
    let groups = pool.batch_groups();
    let both = [required("unit"), required("e2e")];
    assert_eq!(judge(&groups[0], &both), None);
    assert!(judge(&groups[0], &both[..1]).is_some());
}

#[test]
fn one_serial_test_at_a_time() {
    let settings = Settings {
        batch_size_limit: -1,
        ..Settings::default()
    };
    let next = |runs| next(&pool(vec![pr(1), pr(2)], runs), &settings, None);
    assert_eq!(next(vec![run(JobState::Pending, &[2])]), Decision::Wait);
    let red = next(vec![run(JobState::Failure, &[2])]);
    assert!(
        matches!(red, Decision::Trigger { number: 1, .. }),
        "{red:?}"
    );
}

#[test]
fn a_pull_request_whose_merge_was_refused_does_not_hold_up_the_others() {
    let held = |number| pr(number).with(|pr| pr.held = Some("refused".into()));
    let ready: Vec<Run> = [1, 2].map(|n| run(JobState::Success, &[n])).into();
    assert_eq!(
        next_of(vec![held(1), pr(2)], ready.clone()),
        Decision::Merge(2)
    );
    assert_eq!(next_of(vec![held(1), held(2)], ready), Decision::Wait);
    let next_in_line = next_of(vec![held(1), pr(2)], vec![run(JobState::Success, &[1])]);
    assert!(
        matches!(next_in_line, Decision::Trigger { number: 2, .. }),
        "{next_in_line:?}"
    );
    let batch = next_of(vec![held(1), pr(2)], vec![run(JobState::Success, &[1, 2])]);
    assert!(
        matches!(batch, Decision::Trigger { number: 2, .. }),
        "{batch:?}"
    );
}
