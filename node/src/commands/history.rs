//! What happened to a job, as people and programs read it (JOB-075).

use serde_json::{Value, json};
use trireme_proto::state::{Job, JobEvent, JobState};
use trireme_prowjob::record;
use trireme_state::limits::FIRST_JOB_EVENTS;

use crate::output::table;

fn state(event: &JobEvent) -> String {
    match event.state() {
        JobState::Unspecified => "-".to_owned(),
        state => record::prow_state(state).to_string(),
    }
}

fn instant(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default()
}

/// Causes come from agents and forges: nothing in them may move a terminal's cursor.
fn line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A row a line, oldest first; empty where there is none.
pub(super) fn timeline(job: &Job) -> String {
    if job.history.is_empty() {
        return String::new();
    }
    let mut rows: Vec<Vec<String>> = job
        .history
        .iter()
        .map(|event| {
            vec![
                instant(event.at_ms),
                state(event),
                line(&event.actor),
                line(&event.cause),
            ]
        })
        .collect();
    if job.history_dropped > 0 {
        let left_out = format!("({} rows were not kept)", job.history_dropped);
        let place = FIRST_JOB_EVENTS.min(rows.len());
        rows.insert(place, vec!["...".to_owned(), left_out]);
    }
    table(&["AT", "STATE", "BY", "CAUSE"], &rows)
}

/// For programs: next to the ProwJob, which has no place for it.
pub(super) fn rows(job: &Job) -> Value {
    let rows = job.history.iter().map(|event| {
        json!({
            "time": instant(event.at_ms), "state": state(event), "actor": event.actor, "cause": event.cause,
            "revision": event.revision,
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(rows: &[(JobState, &str, &str)]) -> Job {
        let event = |(at, (state, actor, cause)): (usize, &(JobState, &str, &str))| JobEvent {
            state: (*state).into(),
            at_ms: 1_767_225_600_000 + 1500 * i64::try_from(at).unwrap(),
            revision: 7 + at as u64,
            cause: (*cause).to_owned(),
            actor: (*actor).to_owned(),
        };
        Job {
            history: rows.iter().enumerate().map(event).collect(),
            ..Job::default()
        }
    }

    const ROWS: [(JobState, &str, &str); 3] = [
        (JobState::Triggered, "controller:plugins@1", "/test all"),
        (
            JobState::Pending,
            "controller:scheduler@1",
            "attempt 1 leased to agent builder-1 (a)",
        ),
        (
            JobState::Aborted,
            "token:alice",
            "Aborted\u{1b}[2J\nby alice.",
        ),
    ];

    #[test]
    fn job_075_a_timeline() {
        insta::assert_snapshot!(timeline(&job(&ROWS)), @r"
        AT                        STATE      BY                      CAUSE
        2026-01-01T00:00:00.000Z  triggered  controller:plugins@1    /test all
        2026-01-01T00:00:01.500Z  pending    controller:scheduler@1  attempt 1 leased to agent builder-1 (a)
        2026-01-01T00:00:03.000Z  aborted    token:alice             Aborted [2J by alice.
        ");
        assert_eq!(timeline(&Job::default()), "");
    }

    #[test]
    fn job_075_what_was_not_kept_is_told_where_it_was() {
        let mut long = job(&[ROWS[1]; 10]);
        long.history_dropped = 12;
        let told = timeline(&long);
        let place = told
            .lines()
            .position(|line| line.starts_with("..."))
            .unwrap();
        assert_eq!(place, 1 + FIRST_JOB_EVENTS);
        assert!(told.contains("(12 rows were not kept)"), "{told}");
    }

    #[test]
    fn job_075_rows_for_programs() {
        insta::assert_snapshot!(rows(&job(&ROWS[..1])), @r#"[{"time":"2026-01-01T00:00:00.000Z","state":"triggered","actor":"controller:plugins@1","cause":"/test all","revision":7}]"#);
    }
}
