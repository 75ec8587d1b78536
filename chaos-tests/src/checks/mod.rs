//! What must hold of every history, whatever was killed. Each check names what it found; none found is a pass.

mod deliveries;
mod jobs;
pub mod linearizable;
mod merges;
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
pub const CHECKS: [(&str, Check); 9] = [
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
    ("merges take effect once per head", merges::once_per_head),
    ("replicas agree", replicas::agree),
];

/// Runs all checks.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    CHECKS
        .iter()
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

    /// A checker that is shown nothing must not say that all is well.
    #[test]
    fn an_empty_history_does_not_pass() {
        assert!(!judge(&History::default()).is_empty());
    }
}
