//! Runs that the clock starts.

use std::{collections::BTreeSet, sync::Arc};

use trireme_jobs::Periodics;
use trireme_proto::state::{Job, JobState, JobType};
use trireme_state::{JobFilter, State};

use crate::stage::Stage;

const EVERY_SECOND: &str = r#"
- name: bell
  cron: "* * * * * *"
  spec: {containers: [{image: alpine, command: ["true"]}]}
"#;
const ONCE_AN_HOUR: &str = r#"
- name: watch
  interval: 1h
  spec: {containers: [{image: alpine, command: ["true"]}]}
"#;
const SENTINEL: &str = r#"
- name: sentinel
  interval: 1h
  spec: {containers: [{image: alpine, command: ["true"]}]}
"#;
const SHORT: &str = r#"
- name: short
  minimum_interval: 100ms
  spec: {containers: [{image: alpine, command: ["true"]}]}
"#;

fn runs(state: &State, name: &str) -> Vec<Job> {
    let filter = JobFilter {
        job: name.to_owned(),
        job_type: Some(JobType::Periodic),
        ..JobFilter::default()
    };
    state
        .jobs_newest_first(filter)
        .map(|job| Job::clone(job))
        .collect()
}

fn configure(stage: &Stage, periodics: &[&str]) {
    stage.configure("{}", &format!("periodics:{}", periodics.concat()));
}

async fn begin(stage: &mut Stage) {
    stage.end_term().await;
    let periodics = Arc::new(Periodics::new(stage.feed.clone()));
    let scheduler = stage.scheduler();
    stage.begin_term(vec![scheduler, periodics]);
}

async fn complete_runs(stage: &Stage, name: &str, count: usize) -> Vec<Job> {
    stage
        .until(&format!("{count} runs of {name}"), |state| {
            let mut runs = runs(state, name);
            runs.retain(|job| job.completed_ms > 0);
            (runs.len() >= count).then_some(runs)
        })
        .await
}

/// HOR-002, HOR-006
#[tokio::test]
async fn an_interval_starts_at_once_and_again_when_it_is_over() {
    let mut stage = Stage::new().await;
    configure(&stage, &[SHORT]);
    let agent = stage.agent("agent");
    begin(&mut stage).await;
    let runs = complete_runs(&stage, "short", 2).await;
    let (newer, older) = (&runs[runs.len() - 2], &runs[runs.len() - 1]);
    assert_eq!(older.state(), JobState::Success);
    assert!(newer.created_ms > older.completed_ms + 100);
    assert_eq!((older.retries_left, older.config_version), (3, 2));
    agent.stop().await;
}

/// HOR-003, HOR-007
#[tokio::test]
async fn each_tick_of_a_cron_line_makes_one_run_over_restarts() {
    let mut stage = Stage::new().await;
    configure(&stage, &[EVERY_SECOND]);
    let agent = stage.agent("agent");
    begin(&mut stage).await;
    let before = complete_runs(&stage, "bell", 1).await;
    stage.restart().await;
    begin(&mut stage).await;
    let runs = complete_runs(&stage, "bell", before.len() + 1).await;
    let ticks: BTreeSet<&str> = runs.iter().map(|job| job.origin.as_str()).collect();
    assert_eq!(ticks.len(), runs.len());
    let cursor = stage.store.view().cursor("periodic/bell").unwrap().at_ms;
    assert!(runs[0].origin.starts_with("periodic bell due "));
    assert_eq!(cursor % 1000, 0, "ticks are whole seconds");
    agent.stop().await;
}

/// HOR-007
#[tokio::test]
async fn a_new_office_repeats_nothing() {
    let mut stage = Stage::new().await;
    configure(&stage, &[ONCE_AN_HOUR]);
    let agent = stage.agent("agent");
    begin(&mut stage).await;
    complete_runs(&stage, "watch", 1).await;
    stage.restart().await;
    configure(&stage, &[ONCE_AN_HOUR, SENTINEL]);
    begin(&mut stage).await;
    // Both are looked at together.
    complete_runs(&stage, "sentinel", 1).await;
    assert_eq!(runs(&stage.store.view(), "watch").len(), 1);
    agent.stop().await;
}

/// HOR-004
#[tokio::test]
async fn a_cron_line_that_is_gone_is_forgotten() {
    let mut stage = Stage::new().await;
    configure(&stage, &[EVERY_SECOND]);
    begin(&mut stage).await;
    stage
        .until("the cursor", |state| {
            state.cursor("periodic/bell").map(|cursor| cursor.at_ms)
        })
        .await;
    configure(&stage, &[SENTINEL]);
    stage
        .until("its end", |state| {
            state.cursor("periodic/bell").is_none().then_some(())
        })
        .await;
}
