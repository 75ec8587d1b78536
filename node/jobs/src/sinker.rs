//! Takes what is finished out of memory: complete runs that are reported, and handled deliveries, after the ages that
//! Prow's sinker has as defaults (SNK-*).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::sleep;
use trireme_office::{Controller, ControllerError, Office, OfficeError};
use trireme_proto::state::{JobType, SweepDeliveries, SweepJobs, command::Body};
use trireme_state::{JobFilter, State};

/// Prow's `resync_period`.
const PERIOD: Duration = Duration::from_secs(3600);
/// Prow's `max_prowjob_age`.
const MAX_PROWJOB_AGE_MS: i64 = 7 * 24 * 3600 * 1000;
/// Handled deliveries stay long enough to be looked at.
const MAX_DELIVERY_AGE_MS: i64 = 24 * 3600 * 1000;
/// Records in one command.
const MAX_SWEEP: usize = 500;

/// Runs on the leader every hour and when it takes office.
#[derive(Debug, Default)]
pub struct Sinker;

fn old_jobs(state: &State, now_ms: i64) -> Vec<String> {
    let newest = newest_periodics(state);
    state
        .jobs_finished_before(now_ms)
        .filter(|job| now_ms - job.created_ms > MAX_PROWJOB_AGE_MS)
        .filter(|job| state.is_sweepable(job) && !newest.contains(job.id.as_str()))
        .map(|job| job.id.clone())
        .collect()
}

/// SNK-001: the newest run of each periodic stays, because the next start depends on it.
fn newest_periodics(state: &State) -> BTreeSet<&str> {
    let filter = JobFilter {
        job_type: Some(JobType::Periodic),
        ..JobFilter::default()
    };
    let mut newest = BTreeMap::new();
    for job in state.jobs_newest_first(filter) {
        newest.entry(job.job.as_str()).or_insert(job.id.as_str());
    }
    newest.into_values().collect()
}

fn old_deliveries(state: &State, now_ms: i64) -> Vec<String> {
    state
        .deliveries_handled_before(now_ms - MAX_DELIVERY_AGE_MS)
        .map(|delivery| delivery.guid.clone())
        .collect()
}

#[async_trait]
impl Controller for Sinker {
    fn name(&self) -> &'static str {
        "sinker"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let resigned = office.resigned();
        while !resigned.is_cancelled() {
            sweep(&office).await?;
            tokio::select! {
                () = resigned.cancelled() => {}
                () = sleep(PERIOD) => {}
            }
        }
        Ok(())
    }
}

async fn sweep(office: &Office) -> Result<(), OfficeError> {
    let (view, now) = (office.view(), office.now_ms());
    for ids in old_jobs(&view, now).chunks(MAX_SWEEP) {
        office
            .propose(Body::SweepJobs(SweepJobs { ids: ids.to_vec() }))
            .await?;
    }
    for guids in old_deliveries(&view, now).chunks(MAX_SWEEP) {
        office
            .propose(Body::SweepDeliveries(SweepDeliveries {
                guids: guids.to_vec(),
            }))
            .await?;
    }
    Ok(())
}
