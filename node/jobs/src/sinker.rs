//! Takes what is finished out of memory: complete runs that are reported, after the age that Prow's sinker is given
//! (SNK-*), and handled deliveries.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::sleep;
use trireme_config::Config;
use trireme_office::{ConfigFeed, Controller, ControllerError, Office, OfficeError};
use trireme_proto::state::{JobType, SweepBlobs, SweepDeliveries, SweepJobs, command::Body};
use trireme_prowjob::MetaDuration;
use trireme_state::{JobFilter, State, limits::REQUEST_MEMORY_MS};

/// Prow's defaults of `resync_period` and `max_prowjob_age`.
const PERIOD: Duration = Duration::from_secs(3600);
const MAX_PROWJOB_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A run stays this long after it was made, whatever the configuration says: a client that asks again for it, with the same
/// request id, must find it, or it would be made twice.
const LEAST_AGE: Duration = Duration::from_millis(REQUEST_MEMORY_MS.unsigned_abs());
const MIN_PERIOD: Duration = Duration::from_secs(1);
/// Handled deliveries stay long enough to be looked at.
const MAX_DELIVERY_AGE_MS: i64 = 24 * 3600 * 1000;
/// Records in one command.
const MAX_SWEEP: usize = 500;

/// Runs on the leader once per period and when it takes office.
pub struct Sinker {
    config: ConfigFeed,
    least_age: Duration,
}

impl Sinker {
    #[must_use]
    pub fn new(config: ConfigFeed) -> Self {
        Self {
            config,
            least_age: LEAST_AGE,
        }
    }

    /// In a simulation, whose clients ask again for seconds, not minutes.
    #[must_use]
    pub fn with_least_age(mut self, least_age: Duration) -> Self {
        self.least_age = least_age;
        self
    }
}

fn std_or(duration: Option<MetaDuration>, default: Duration) -> Duration {
    duration.map_or(default, |duration| duration.get().to_std())
}

fn old_jobs(state: &State, config: &Config, least_age: Duration, now_ms: i64) -> Vec<String> {
    let age = std_or(config.prow.sinker.max_prowjob_age, MAX_PROWJOB_AGE).max(least_age);
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let newest = newest_periodics(state, config);
    state
        .jobs_finished_before(now_ms)
        .filter(|job| now_ms - job.created_ms > age_ms)
        .filter(|job| state.is_sweepable(job) && !newest.contains(job.id.as_str()))
        .map(|job| job.id.clone())
        .collect()
}

/// SNK-001: the newest run of each periodic that is configured stays, because the next start depends on it.
fn newest_periodics<'a>(state: &'a State, config: &Config) -> BTreeSet<&'a str> {
    let periodics = config.jobs.periodics.iter();
    let configured: BTreeSet<&str> = periodics.map(|job| job.base.name.as_str()).collect();
    let filter = JobFilter {
        job_type: Some(JobType::Periodic),
        ..JobFilter::default()
    };
    let mut newest = BTreeMap::new();
    for job in state.jobs_newest_first(filter) {
        let name = job.job.as_str();
        if configured.contains(name) {
            newest.entry(name).or_insert(job.id.as_str());
        }
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
        let mut feed = self.config.clone();
        while !resigned.is_cancelled() {
            let running = feed.borrow_and_update().clone();
            sweep_deliveries(&office).await?;
            sweep_blobs(&office).await?;
            let mut period = PERIOD;
            // How long runs stay is not known before there is a configuration.
            if let Some(running) = &running {
                self.sweep_jobs(&office, &running.config).await?;
                period = std_or(running.config.prow.sinker.resync_period, PERIOD);
            }
            tokio::select! {
                () = resigned.cancelled() => {}
                Ok(()) = feed.changed(), if running.is_none() => {}
                () = sleep(period.max(MIN_PERIOD)) => {}
            }
        }
        Ok(())
    }
}

impl Sinker {
    async fn sweep_jobs(&self, office: &Office, config: &Config) -> Result<(), OfficeError> {
        let (view, now) = (office.view(), office.now_ms());
        for ids in old_jobs(&view, config, self.least_age, now).chunks(MAX_SWEEP) {
            office
                .propose(Body::SweepJobs(SweepJobs { ids: ids.to_vec() }))
                .await?;
        }
        Ok(())
    }
}

/// What was put for a command that never came, and what only old configurations had.
async fn sweep_blobs(office: &Office) -> Result<(), OfficeError> {
    let (view, now) = (office.view(), office.now_ms());
    let pages: Vec<_> = view.expired_config_pages(now).cloned().collect();
    for config_pages in pages.chunks(MAX_SWEEP) {
        office
            .propose(Body::SweepBlobs(SweepBlobs {
                config_pages: config_pages.to_vec(),
                ..SweepBlobs::default()
            }))
            .await?;
    }
    let blobs: Vec<_> = view
        .expired_blobs(now)
        .map(|sha256| bytes::Bytes::copy_from_slice(sha256))
        .collect();
    for sha256 in blobs.chunks(MAX_SWEEP) {
        office
            .propose(Body::SweepBlobs(SweepBlobs {
                sha256: sha256.to_vec(),
                ..SweepBlobs::default()
            }))
            .await?;
    }
    Ok(())
}

async fn sweep_deliveries(office: &Office) -> Result<(), OfficeError> {
    let (view, now) = (office.view(), office.now_ms());
    for guids in old_deliveries(&view, now).chunks(MAX_SWEEP) {
        office
            .propose(Body::SweepDeliveries(SweepDeliveries {
                guids: guids.to_vec(),
            }))
            .await?;
    }
    Ok(())
}
