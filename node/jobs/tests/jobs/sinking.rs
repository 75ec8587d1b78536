//! What is over leaves memory.

use std::{sync::Arc, time::Duration};

use trireme_jobs::Sinker;

use crate::stage::{Gate, Stage, plain};

/// SNK-001
#[tokio::test]
async fn complete_runs_of_age_leave_but_for_the_newest_of_each_periodic() {
    let mut stage = Stage::new().await;
    let agent = stage.agent("agent");
    let gate = Gate::new(&stage, "gate");
    let ran = async |name: &str| {
        let id = stage.create(plain(name, "true")).await;
        stage.complete(&id).await;
        id
    };
    let older = ran("kept").await;
    let newest = ran("kept").await;
    let gone = ran("no-longer-configured").await;
    let running = stage.create(plain("kept", &gate.wait())).await;
    stage.started(&running).await;
    stage.end_term().await;
    stage.configure(
        "sinker: {max_prowjob_age: 1ms}",
        "periodics: [{name: kept, interval: 1h, spec: {containers: [{image: i, command: [c]}]}}]",
    );
    let sinker = Arc::new(Sinker::new(stage.feed.clone()).with_least_age(Duration::ZERO));
    stage.begin_term(vec![sinker]);
    stage
        .until("the sweep", |state| {
            let left = |id: &str| state.job(id).is_none();
            (left(&older) && left(&gone) && left(&newest)).then_some(())
        })
        .await;
    assert!(stage.store.view().job(&running).is_some(), "it runs");
    gate.open();
    agent.stop().await;
}

#[tokio::test]
async fn the_newest_complete_run_of_a_configured_periodic_stays() {
    let mut stage = Stage::new().await;
    let agent = stage.agent("agent");
    let ran = async |name: &str| {
        let id = stage.create(plain(name, "true")).await;
        stage.complete(&id).await;
        id
    };
    let older = ran("kept").await;
    let newest = ran("kept").await;
    stage.end_term().await;
    stage.configure(
        "sinker: {max_prowjob_age: 1ms}",
        "periodics: [{name: kept, interval: 1h, spec: {containers: [{image: i, command: [c]}]}}]",
    );
    let sinker = Arc::new(Sinker::new(stage.feed.clone()).with_least_age(Duration::ZERO));
    stage.begin_term(vec![sinker]);
    stage
        .until("the sweep", |state| {
            state.job(&older).is_none().then_some(())
        })
        .await;
    assert!(stage.store.view().job(&newest).is_some());
    agent.stop().await;
}

/// However short the age: whoever asks again for a run, as clients do that got no answer, must not get a second one.
#[tokio::test]
async fn a_run_that_may_be_asked_for_again_stays() {
    let mut stage = Stage::new().await;
    let agent = stage.agent("agent");
    let id = stage.create(plain("just-made", "true")).await;
    stage.complete(&id).await;
    stage.end_term().await;
    stage.configure("sinker: {max_prowjob_age: 1ms, resync_period: 1s}", "");
    let sinker = Sinker::new(stage.feed.clone()).with_least_age(Duration::from_secs(2));
    stage.begin_term(vec![Arc::new(sinker)]);
    let made_ms = stage.store.view().job(&id).unwrap().created_ms;
    stage
        .until("the sweep", |state| state.job(&id).is_none().then_some(()))
        .await;
    let stayed_ms = stage.store.now_ms() - made_ms;
    assert!(stayed_ms > 2000, "{stayed_ms}");
    agent.stop().await;
}
