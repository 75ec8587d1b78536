//! What came of a run.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use super::Settings;
use crate::{checks::Violation, nemesis::Skipped, registers::Tally, verdict::Counts};

/// One nemesis, or two at once, from its beginning until every node acknowledges writes again.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    pub nemeses: Vec<&'static str>,
    pub began_ns: u64,
    pub ended_ns: u64,
    /// From the heal to the first write that the last node acknowledged.
    pub serves_again_ms: u64,
    /// The longest time in which no node acknowledged a write.
    pub longest_unavailable_ms: u64,
}

/// Of one nemesis.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Told {
    pub times: usize,
    pub longest_unavailable_ms: u64,
    pub serves_again_ms: u64,
}

/// The verdict of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub verdict: &'static str,
    pub nodes: u64,
    pub seed: u64,
    pub seconds: f64,
    /// Where the nodes listen.
    pub network: String,
    pub nemeses: BTreeMap<&'static str, Told>,
    /// Asked for, and not done.
    pub skipped: Vec<Skipped>,
    pub operations: BTreeMap<&'static str, Tally>,
    /// Pull requests that were brought to their end.
    pub stories: usize,
    /// Samples of nodes' digests.
    pub digests: usize,
    pub counts: Counts,
    pub failure: Option<String>,
    pub violations: Vec<Violation>,
    pub kept: PathBuf,
    pub rounds: Vec<Round>,
}

const MAX_TOLD: usize = 20;

impl Report {
    pub(super) fn new(settings: &Settings, skipped: Vec<Skipped>) -> Self {
        let network = match &settings.machine.hub {
            Ok(_) => "a network namespace for each node".to_owned(),
            Err(why) => format!("loopback ({why})"),
        };
        Self {
            verdict: "",
            nodes: settings.nodes,
            seed: settings.seed,
            seconds: 0.0,
            network,
            nemeses: BTreeMap::new(),
            skipped,
            operations: BTreeMap::new(),
            stories: 0,
            digests: 0,
            counts: Counts::default(),
            failure: None,
            violations: Vec::new(),
            kept: settings.directory.clone(),
            rounds: Vec::new(),
        }
    }

    /// Nothing failed and nothing is violated, as far as it went.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failure.is_none() && self.violations.is_empty()
    }

    /// passed, INCOMPLETE or FAILED: what was not done did not pass.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.is_whole(), self.skipped.is_empty()) {
            (false, _) => "FAILED",
            (true, false) => "INCOMPLETE",
            (true, true) => "passed",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            out,
            "{}  {} nodes in {:.1} s, seed {}, on {}",
            self.word(),
            self.nodes,
            self.seconds,
            self.seed,
            self.network
        )?;
        for (name, told) in self.nemeses.iter().filter(|(_, told)| told.times > 0) {
            writeln!(
                out,
                "        {name:<16} {:>3} times, at most {:>6} ms without an acknowledged write, all nodes serve {} ms after the heal",
                told.times, told.longest_unavailable_ms, told.serves_again_ms
            )?;
        }
        for Skipped { nemesis, why } in &self.skipped {
            writeln!(out, "        {nemesis:<16} SKIPPED: {why}")?;
        }
        for (verb, tally) in &self.operations {
            writeln!(
                out,
                "        {verb:<16} {:>6} done, {} refused, {} of unknown outcome",
                tally.done, tally.refused, tally.unknown
            )?;
        }
        writeln!(
            out,
            "        {} webhooks sent, {} acknowledged, {} redelivered; {} pull requests merged by {} calls, {} jobs, {} changes, \
             {} digests",
            counts.sent,
            counts.acknowledged,
            counts.redelivered,
            counts.merges,
            counts.merge_calls,
            counts.jobs,
            counts.changes,
            self.digests
        )?;
        if let Some(failure) = &self.failure {
            writeln!(out, "        failed: {failure}")?;
        }
        for violation in self.violations.iter().take(MAX_TOLD) {
            writeln!(out, "        violated: {violation}")?;
        }
        if self.violations.len() > MAX_TOLD {
            let more = self.violations.len() - MAX_TOLD;
            writeln!(out, "        and {more} more violations")?;
        }
        writeln!(out, "        kept in {}", self.kept.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            verdict: "",
            nodes: 3,
            seed: 7,
            seconds: 61.25,
            network: "a network namespace for each node".to_owned(),
            nemeses: BTreeMap::from([(
                "kill",
                Told {
                    times: 4,
                    longest_unavailable_ms: 812,
                    serves_again_ms: 1204,
                },
            )]),
            skipped: Vec::new(),
            operations: BTreeMap::from([(
                "create",
                Tally {
                    done: 100,
                    refused: 2,
                    unknown: 3,
                },
            )]),
            stories: 5,
            digests: 60,
            counts: Counts::default(),
            failure: None,
            violations: Vec::new(),
            kept: "/somewhere".into(),
            rounds: Vec::new(),
        }
    }

    #[test]
    fn a_report_reads_well() {
        insta::assert_snapshot!(report(), @r"
        passed  3 nodes in 61.2 s, seed 7, on a network namespace for each node
                kill               4 times, at most    812 ms without an acknowledged write, all nodes serve 1204 ms after the heal
                create              100 done, 2 refused, 3 of unknown outcome
                0 webhooks sent, 0 acknowledged, 0 redelivered; 0 pull requests merged by 0 calls, 0 jobs, 0 changes, 60 digests
                kept in /somewhere
        ");
    }

    #[test]
    fn what_was_skipped_is_no_pass_and_a_violation_is_a_failure() {
        let mut report = report();
        report.skipped.push(Skipped {
            nemesis: "clock",
            why: "libfaketime is not installed".to_owned(),
        });
        assert_eq!(report.word(), "INCOMPLETE");
        assert!(
            report
                .to_string()
                .contains("clock            SKIPPED: libfaketime is not installed")
        );
        report.violations.push(Violation {
            check: "replicas agree",
            found: "they do not".to_owned(),
        });
        assert_eq!(report.word(), "FAILED");
    }
}
