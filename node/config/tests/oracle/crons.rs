//! JOB-020 against robfig/cron's own schedules.

use jiff::Timestamp;
use trireme_config::{CronError, CronSchedule};

use crate::answers;

fn first_three(schedule: &CronSchedule) -> Vec<String> {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    std::iter::successors(schedule.next_after(start), |t| schedule.next_after(*t))
        .take(3)
        .map(|t| t.to_string())
        .collect()
}

#[test]
fn job_020_schedules_are_those_of_upstream() {
    let Some(cases) = answers::lines("crons.jsonl.gz") else {
        return;
    };
    let mut wrong = Vec::new();
    for case in cases {
        let text = case["cron"].as_str().unwrap();
        let mut check = |valid: &str, next: &str, found: Result<CronSchedule, CronError>| {
            if found.is_ok() != case[valid].as_bool().unwrap() {
                wrong.push(format!("{text:?}: {valid} {}, got {found:?}", case[valid]));
            }
            let Ok(found) = found else { return };
            let expected: Vec<&str> = case[next]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t.as_str().unwrap())
                .collect();
            let found = first_three(&found);
            if found != expected {
                wrong.push(format!("{text:?}: {next} {expected:?}, got {found:?}"));
            }
        };
        check("valid", "next", CronSchedule::parse(text));
        check(
            "run_valid",
            "run_next",
            CronSchedule::parse_for_scheduler(text),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
