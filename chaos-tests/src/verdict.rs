//! What came of a scenario.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::Serialize;
use trireme_proto::state::{IntentState, JobState};

use crate::{History, checks::Violation};

/// How much happened.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Webhooks that were sent, by distinct GUID acknowledged, and of those sent again on request.
    pub sent: usize,
    pub acknowledged: usize,
    pub redelivered: usize,
    /// Attempts that were not acknowledged, by status; 0, 502 and 504 are the sender's own words for no answer.
    pub turned_away: BTreeMap<u16, usize>,
    pub jobs: usize,
    pub succeeded: usize,
    /// Attempts beyond the first of each job.
    pub again: u32,
    pub merges: usize,
    pub merge_calls: u64,
    pub observed: usize,
    pub changes: usize,
    /// SIGKILL of a leader to the next acknowledged write, in milliseconds.
    pub failover_ms: Vec<u128>,
}

impl Counts {
    pub(crate) fn of(history: &History, failovers: &[Duration]) -> Self {
        let jobs = &history.last.jobs;
        let mut turned_away = BTreeMap::new();
        for sent in history.sent.iter().filter(|sent| sent.status != 200) {
            *turned_away.entry(sent.status).or_default() += 1;
        }
        Self {
            sent: history.sent.len(),
            acknowledged: history.acknowledged().len(),
            redelivered: history.sent.iter().filter(|sent| sent.redelivery).count(),
            turned_away,
            jobs: jobs.len(),
            succeeded: jobs
                .iter()
                .filter(|job| job.state() == JobState::Success)
                .count(),
            again: jobs.iter().map(|job| job.attempt.saturating_sub(1)).sum(),
            merges: history.merged.len(),
            merge_calls: history.merge_calls,
            observed: history
                .last
                .intents
                .iter()
                .filter(|intent| intent.state() == IntentState::Observed)
                .count(),
            changes: history.changes().count(),
            failover_ms: failovers.iter().map(Duration::as_millis).collect(),
        }
    }
}

/// Passed when nothing failed and nothing is violated.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub scenario: &'static str,
    pub passed: bool,
    pub seconds: f64,
    pub counts: Counts,
    /// A step that did not come about.
    pub failure: Option<String>,
    pub violations: Vec<Violation>,
    /// Where the history, logs and data of a failed scenario are kept.
    pub kept: Option<PathBuf>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let word = if self.passed { "passed" } else { "FAILED" };
        writeln!(out, "{word}  {} in {:.1} s", self.scenario, self.seconds)?;
        writeln!(
            out,
            "        {} webhooks sent, {} acknowledged, {} redelivered",
            counts.sent, counts.acknowledged, counts.redelivered
        )?;
        if !counts.turned_away.is_empty() {
            let times = counts.turned_away.iter();
            let times: Vec<String> = times.map(|(code, n)| format!("{n} with {code}")).collect();
            writeln!(out, "        not acknowledged: {}", times.join(", "))?;
        }
        writeln!(
            out,
            "        {} jobs, {} succeeded, {} attempts beyond the first",
            counts.jobs, counts.succeeded, counts.again
        )?;
        writeln!(
            out,
            "        {} merges by {} calls, {} observed instead of sent again; {} changes seen",
            counts.merges, counts.merge_calls, counts.observed, counts.changes
        )?;
        if !counts.failover_ms.is_empty() {
            let times = &counts.failover_ms;
            writeln!(
                out,
                "        leader killed to next acknowledged write: {times:?} ms"
            )?;
        }
        if let Some(failure) = &self.failure {
            writeln!(out, "        failed: {failure}")?;
        }
        for violation in &self.violations {
            writeln!(out, "        violated: {violation}")?;
        }
        if let Some(kept) = &self.kept {
            writeln!(out, "        kept in {}", kept.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_reads_well() {
        let verdict = Verdict {
            scenario: "some-scenario",
            passed: false,
            seconds: 12.34,
            counts: Counts {
                sent: 9,
                acknowledged: 8,
                turned_away: BTreeMap::from([(503, 1)]),
                jobs: 2,
                succeeded: 2,
                failover_ms: vec![700],
                ..Counts::default()
            },
            failure: None,
            violations: vec![Violation {
                check: "jobs have one result",
                found: "job x ended in success and in failure".to_owned(),
            }],
            kept: Some("/somewhere".into()),
        };
        insta::assert_snapshot!(verdict, @r"
        FAILED  some-scenario in 12.3 s
                9 webhooks sent, 8 acknowledged, 0 redelivered
                not acknowledged: 1 with 503
                2 jobs, 2 succeeded, 0 attempts beyond the first
                0 merges by 0 calls, 0 observed instead of sent again; 0 changes seen
                leader killed to next acknowledged write: [700] ms
                violated: jobs have one result: job x ended in success and in failure
                kept in /somewhere
        ");
    }
}
