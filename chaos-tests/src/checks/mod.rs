//! What must hold of every history, whatever was killed. Each check names what it found; none found is a pass.

mod deliveries;
mod jobs;
pub mod linearizable;
mod merges;
mod registers;
mod replicas;
#[cfg(test)]
mod testing;
mod watches;

use std::fmt;

use serde::Serialize;

use crate::History;

/// One promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub check: &'static str,
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.check, self.found)
    }
}

type Check = fn(&History) -> Vec<String>;

/// Every check with its name.
pub const CHECKS: [(&str, Check); 12] = [
    (
        "every acknowledged delivery is handled once",
        deliveries::acknowledged_are_handled_once,
    ),
    (
        "plans are made and carried out once",
        deliveries::plans_are_made_once,
    ),
    (
        "a delivery creates each job once",
        jobs::a_delivery_creates_each_job_once,
    ),
    ("jobs are created once", jobs::created_once),
    ("jobs have one result", jobs::one_result),
    ("job transitions are legal", jobs::transitions_are_legal),
    ("watches have no gap", watches::no_gap),
    ("stamps are steady", watches::stamps_are_steady),
    ("merges take effect once per head", merges::once_per_head),
    ("replicas agree", replicas::agree),
    ("registers are linearizable", registers::are_linearizable),
    (
        "reads are as new as asked for",
        registers::are_as_new_as_asked,
    ),
];

/// Those that hold at any moment: the others ask whether all came to its end.
const AT_ANY_MOMENT: [&str; 4] = [
    "stamps are steady",
    "job transitions are legal",
    "registers are linearizable",
    "reads are as new as asked for",
];

/// Runs all checks.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    judge_by(history, |_| true)
}

/// Of a history that did not come to rest: what is under way is no violation.
#[must_use]
pub fn judge_unfinished(history: &History) -> Vec<Violation> {
    judge_by(history, |check| AT_ANY_MOMENT.contains(&check))
}

fn judge_by(history: &History, wanted: impl Fn(&str) -> bool) -> Vec<Violation> {
    CHECKS
        .iter()
        .filter(|(check, _)| wanted(check))
        .flat_map(|(check, run)| {
            run(history)
                .into_iter()
                .map(|found| Violation { check, found })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{testing::good, *};

    #[test]
    fn a_good_history_passes() {
        assert_eq!(judge(&good()), []);
    }

    #[test]
    fn what_is_judged_at_any_moment_are_checks() {
        for name in AT_ANY_MOMENT {
            assert!(CHECKS.iter().any(|(check, _)| *check == name), "{name}");
        }
        assert_eq!(judge_unfinished(&History::default()), []);
    }

    /// A checker that is shown nothing must not say that all is well.
    #[test]
    fn an_empty_history_does_not_pass() {
        assert!(!judge(&History::default()).is_empty());
    }
}
