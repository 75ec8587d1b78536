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
use trireme_proto::state::{
    Delivery, JobType, SweepBlobs, SweepDeliveries, SweepJobs, command::Body,
};
use trireme_prowjob::MetaDuration;
use trireme_state::{
    JobFilter, State,
    limits::{BLOB_GRACE_MS, REQUEST_MEMORY_MS},
};

/// Prow's defaults of `resync_period` and `max_prowjob_age`.
const PERIOD: Duration = Duration::from_secs(3600);
const MAX_PROWJOB_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A run stays this long after it was made, whatever the configuration says: a client that asks again for it, with the same
/// request id, must find it, or it would be made twice.
const LEAST_AGE: Duration = Duration::from_millis(REQUEST_MEMORY_MS.unsigned_abs());
const MIN_PERIOD: Duration = Duration::from_secs(1);
/// How often deliveries are looked at: many come in an hour.
const DELIVERIES_EVERY: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3600 * 1000;
/// Handled deliveries stay long enough to be looked at; then they are read from the archive.
const MAX_DELIVERY_AGE_MS: i64 = 24 * HOUR_MS;
/// What was given up can be redriven until somebody is back from a weekend.
const MAX_DEAD_AGE_MS: i64 = 7 * 24 * HOUR_MS;
/// Plans with something given up whose deliveries stay for [`MAX_DEAD_AGE_MS`], the newest.
const MAX_DEAD_KEPT: usize = 10_000;
/// Above this much of a quota, in percent, handled deliveries leave before their time: doors must not refuse new ones
/// for the sake of those that are only remembered.
const MAX_DELIVERY_PERCENT: u64 = 50;
/// The quotas that handled deliveries take from.
const DELIVERY_QUOTAS: [&str; 4] = ["delivery", "delivery_bytes", "plan_bytes", "blob_bytes"];
/// Records in one command.
const MAX_SWEEP: usize = 500;
/// Bytes of the payloads of the deliveries in one command.
const MAX_SWEEP_BYTES: u64 = 2 << 20;

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

/// Handled deliveries that leave now, handled longest ago first; before their time while they take `most_percent` of a quota
/// or more. At most [`MAX_SWEEP`], and [`MAX_SWEEP_BYTES`] of payloads but for the first: the archive takes them in one go.
fn old_deliveries(state: &State, now_ms: i64, most_percent: u64) -> Vec<String> {
    let dead = state.dead_plans().rev().take(MAX_DEAD_KEPT);
    let dead: BTreeSet<&str> = dead.map(|plan| plan.guid.as_str()).collect();
    let quotas = state.quotas();
    let is_pressed = quotas
        .iter()
        .any(|quota| DELIVERY_QUOTAS.contains(&quota.kind) && quota.percent() >= most_percent);
    let age_ms = if is_pressed { 0 } else { MAX_DELIVERY_AGE_MS };
    state
        .deliveries_handled_before(now_ms - age_ms)
        .filter(|delivery| {
            delivery.handled_ms < now_ms - MAX_DEAD_AGE_MS || !dead.contains(&*delivery.guid)
        })
        // Plugins look up what was pushed when (few and small).
        .filter(|delivery| !is_push(delivery) || delivery.handled_ms < now_ms - MAX_DELIVERY_AGE_MS)
        // What has contents apart frees nothing before these may go.
        .filter(|delivery| delivery.blob.is_none() || delivery.received_ms < now_ms - BLOB_GRACE_MS)
        .take(MAX_SWEEP)
        .scan(0, |bytes, delivery| {
            let is_first = *bytes == 0;
            *bytes += (delivery.payload_zstd.len() as u64).max(1);
            *bytes += delivery.blob.as_ref().map_or(0, |blob| blob.size);
            (is_first || *bytes <= MAX_SWEEP_BYTES).then_some(delivery)
        })
        .map(|delivery| delivery.guid.clone())
        .collect()
}

/// Whether it tells of a push to a pull request.
fn is_push(delivery: &Delivery) -> bool {
    delivery.event == "pull_request" && delivery.action == "synchronize"
}

#[async_trait]
impl Controller for Sinker {
    fn name(&self) -> &'static str {
        "sinker"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        tokio::try_join!(self.sink_jobs(&office), sink_deliveries(&office))?;
        Ok(())
    }
}

/// Until the office is resigned.
async fn sink_deliveries(office: &Office) -> Result<(), ControllerError> {
    let resigned = office.resigned();
    while !resigned.is_cancelled() {
        sweep_deliveries(office).await?;
        tokio::select! {
            () = resigned.cancelled() => {}
            () = sleep(DELIVERIES_EVERY) => {}
        }
    }
    Ok(())
}

impl Sinker {
    /// Until the office is resigned.
    async fn sink_jobs(&self, office: &Office) -> Result<(), ControllerError> {
        let resigned = office.resigned();
        let mut feed = self.config.clone();
        while !resigned.is_cancelled() {
            let running = feed.borrow_and_update().clone();
            sweep_blobs(office).await?;
            let mut period = PERIOD;
            // How long runs stay is not known before there is a configuration.
            if let Some(running) = &running {
                self.sweep_jobs(office, &running.config).await?;
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
    loop {
        let guids = old_deliveries(&office.view(), office.now_ms(), MAX_DELIVERY_PERCENT);
        if guids.is_empty() {
            return Ok(());
        }
        // What was swept is not found again; more may have to go.
        office
            .propose(Body::SweepDeliveries(SweepDeliveries { guids }))
            .await?;
        // Their contents have been there for as long as such must be.
        sweep_blobs(office).await?;
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{
        AcceptDelivery, Batch, Command, CommitPlans, Delivery, SettlePlan, outcome,
    };

    use super::*;

    const DAY_MS: i64 = 24 * HOUR_MS;
    const NOW_MS: i64 = 1_800_000_000_000;

    fn apply(state: &mut State, stamp_ms: i64, body: Body) {
        let command = Command {
            principal: "node:1".to_owned(),
            body: Some(body),
            ..Command::default()
        };
        let batch = Batch {
            stamp_ms,
            commands: vec![command],
        };
        let applied = state.apply(state.last_index() + 1, batch);
        for outcome in applied.outcomes {
            assert!(
                matches!(outcome.result, Some(outcome::Result::Done(_))),
                "{outcome:?}"
            );
        }
    }

    /// Handled at once, or given up by its plugin.
    fn take(state: &mut State, stamp_ms: i64, guid: &str, dead: bool) {
        take_of(state, stamp_ms, guid, dead, 4);
    }

    fn take_of(state: &mut State, stamp_ms: i64, guid: &str, dead: bool, bytes: usize) {
        let guid = guid.to_owned();
        let delivery = Delivery {
            guid: guid.clone(),
            event: "ping".to_owned(),
            payload_zstd: vec![0; bytes].into(),
            ..Delivery::default()
        };
        let delivery = Some(delivery);
        apply(
            state,
            stamp_ms,
            Body::AcceptDelivery(AcceptDelivery { delivery }),
        );
        let plugins = vec!["hold".to_owned()];
        let idle = if dead { vec![] } else { plugins.clone() };
        let commit = CommitPlans {
            guid: guid.clone(),
            plugins,
            idle,
            ..CommitPlans::default()
        };
        apply(state, stamp_ms, Body::CommitPlans(commit));
        if dead {
            let settle = SettlePlan {
                guid,
                plugin: "hold".to_owned(),
                error: "404".to_owned(),
                dead,
            };
            apply(state, stamp_ms, Body::SettlePlan(settle));
        }
    }

    /// What can be redriven outlasts a weekend; what is only remembered gives way before doors have to refuse new ones.
    #[test]
    fn deliveries_leave_after_a_day_dead_ones_after_a_week_and_the_oldest_earlier_under_pressure() {
        let mut state = State::new();
        take(&mut state, NOW_MS - 8 * DAY_MS, "dead-8-days", true);
        take(&mut state, NOW_MS - 3 * DAY_MS, "dead-3-days", true);
        take(&mut state, NOW_MS - 2 * DAY_MS, "handled-2-days", false);
        take(&mut state, NOW_MS - HOUR_MS, "handled-1-hour", false);
        assert_eq!(
            old_deliveries(&state, NOW_MS, MAX_DELIVERY_PERCENT),
            ["dead-8-days", "handled-2-days"]
        );
        let pressed = old_deliveries(&state, NOW_MS, 0);
        assert_eq!(pressed, ["dead-8-days", "handled-2-days", "handled-1-hour"]);
    }

    #[test]
    fn what_leaves_at_once_is_bounded_in_bytes() {
        let mut state = State::new();
        for n in 0..12 {
            let guid = format!("{n:02}");
            take_of(&mut state, NOW_MS - 2 * DAY_MS, &guid, false, 200 << 10);
        }
        let first = old_deliveries(&state, NOW_MS, MAX_DELIVERY_PERCENT);
        assert_eq!((first.len(), first[0].as_str()), (10, "00"));
    }

    #[test]
    fn the_quotas_of_deliveries_are_there() {
        let quotas = State::new().quotas();
        for kind in DELIVERY_QUOTAS {
            assert!(quotas.iter().any(|quota| quota.kind == kind), "{kind}");
        }
    }
}
