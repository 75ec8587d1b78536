//! What came of it: counted on both sides, the cluster's and the forge's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use trireme_proto::state::{DeliveryState, IntentState, JobState};
use trireme_prowjob::record;
use trireme_sandbox::{Logged, Sandbox};

use super::{
    stage::Stage,
    story::{Rest, Told},
    timeline::{Kind, Timeline},
};

/// DESIGN's promises, as the demo measured them.
#[derive(Debug)]
pub(super) struct Summary {
    /// Deliveries that some node acknowledged, and of those the handled ones.
    acknowledged: usize,
    handled: usize,
    duplicates: usize,
    jobs: usize,
    results: BTreeMap<&'static str, usize>,
    attempts: u32,
    merges: usize,
    observed: usize,
    office_changes: usize,
    /// Milliseconds from a webhook's commit, just before its 200, to the first process of each job it caused, both by the
    /// leader's stamps.
    starts: Vec<i64>,
    failovers: Vec<u64>,
    problems: Vec<String>,
}

/// How often each delivery was answered with 200.
pub(super) fn acknowledged(sandbox: &Sandbox) -> BTreeMap<String, usize> {
    let mut acknowledged: BTreeMap<String, usize> = BTreeMap::new();
    for entry in sandbox.log_after(0) {
        if let Logged::Delivered {
            guid,
            status_code: 200,
            ..
        } = entry.what
        {
            *acknowledged.entry(guid).or_default() += 1;
        }
    }
    acknowledged
}

impl Summary {
    pub(super) fn of(stage: &Stage, told: &Told) -> Self {
        let Rest {
            facts,
            acknowledged,
        } = &told.rest;
        let mut problems = facts.problems.clone();
        let duplicates = acknowledged.values().filter(|times| **times > 1).count();
        let mut handled = 0;
        for guid in acknowledged.keys() {
            match facts.deliveries.get(guid) {
                Some(DeliveryState::Handled) => handled += 1,
                Some(state) => {
                    problems.push(format!("delivery {guid} was acknowledged but is {state:?}"))
                }
                None => problems.push(format!("delivery {guid} was acknowledged and is lost")),
            }
        }
        let mut results: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut starts = Vec::new();
        for seen in facts.jobs.values() {
            *results
                .entry(record::prow_state(seen.record.state()).as_str())
                .or_default() += 1;
            if seen.results.len() != 1 {
                problems.push(format!(
                    "job {} has {} results",
                    seen.record.id,
                    seen.results.len()
                ));
            }
            if seen.record.state() == JobState::Error {
                problems.push(format!(
                    "{} ended in error: {}",
                    seen.record.job, seen.record.description
                ));
            }
            if let Some(at) = facts.committed_ms.get(&seen.record.origin)
                && *at > 0
                && seen.started_ms > 0
            {
                starts.push(seen.started_ms - at);
            }
        }
        starts.sort_unstable();
        for (head, times) in stage.sandbox().merges() {
            if times != 1 {
                problems.push(format!("head {head} was merged {times} times"));
            }
        }
        for number in &told.pulls {
            if !stage.world.is_merged(&stage.world.pr_number(*number)) {
                problems.push(format!("#{number} is not merged"));
            }
        }
        let merged = |intent: &&trireme_proto::state::MergeIntent| {
            matches!(intent.state(), IntentState::Merged | IntentState::Observed)
        };
        let batch = facts
            .intents
            .values()
            .filter(merged)
            .filter(|intent| intent.batch.len() > 1)
            .count();
        if batch < told.pulls.len() - 1 {
            problems.push(format!(
                "{batch} pull requests were merged as a batch, not {}",
                told.pulls.len() - 1
            ));
        }
        Self {
            handled,
            duplicates,
            acknowledged: acknowledged.len(),
            jobs: facts.jobs.len(),
            results,
            attempts: facts.jobs.values().map(|seen| seen.record.attempt).sum(),
            merges: stage.sandbox().merges().len(),
            observed: facts
                .intents
                .values()
                .filter(|intent| intent.state() == IntentState::Observed)
                .count(),
            office_changes: facts.offices.len().saturating_sub(1),
            starts,
            failovers: told
                .failovers
                .iter()
                .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
                .collect(),
            problems,
        }
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    fn median_start(&self) -> Option<i64> {
        self.starts.get(self.starts.len() / 2).copied()
    }

    pub(super) fn print(&self, timeline: &Timeline) {
        let results: Vec<String> = self
            .results
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let lines = [
            format!(
                "deliveries: {} acknowledged, {} handled, each once ({} sent twice)",
                self.acknowledged, self.handled, self.duplicates
            ),
            format!(
                "jobs: {} records, {} results, each once: {}; {} attempts",
                self.jobs,
                self.results.values().sum::<usize>(),
                results.join(", "),
                self.attempts
            ),
            format!(
                "merges: {}, each head once; {} observed after a failover instead of sent again",
                self.merges, self.observed
            ),
            format!("leader changes: {}", self.office_changes),
            match self.median_start() {
                Some(median) => format!(
                    "webhook committed to first process: median {median} ms over {} jobs (bar: 500 ms)",
                    self.starts.len()
                ),
                None => "webhook committed to first process: not measured".to_owned(),
            },
        ];
        for line in lines {
            timeline.say(Kind::Summary, line);
        }
        if !self.failovers.is_empty() {
            let times: Vec<String> = self.failovers.iter().map(|ms| format!("{ms} ms")).collect();
            timeline.say(
                Kind::Summary,
                format!(
                    "leader killed to next acknowledged write: {} (bar: 2000 ms)",
                    times.join(", ")
                ),
            );
        }
        for problem in &self.problems {
            timeline.say(Kind::Fault, problem);
        }
        timeline.tell(
            Kind::Summary,
            if self.problems.is_empty() {
                "nothing was lost, nothing was doubled"
            } else {
                "the story did not end well"
            },
            self.fields(),
        );
    }

    fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        for (key, value) in [
            ("acknowledged", json!(self.acknowledged)),
            ("handled", json!(self.handled)),
            ("jobs", json!(self.jobs)),
            ("results", json!(self.results)),
            ("attempts", json!(self.attempts)),
            ("merges", json!(self.merges)),
            ("observed", json!(self.observed)),
            ("leader_changes", json!(self.office_changes)),
            ("start_median_ms", json!(self.median_start())),
            ("failover_ms", json!(self.failovers)),
            ("problems", json!(self.problems)),
        ] {
            fields.insert(key.to_owned(), value);
        }
        fields
    }
}
