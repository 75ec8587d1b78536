//! Prow's horologium: runs that the clock starts.
//!
//! The last cron tick of a periodic is a cursor in the state, written by the same command that creates the run, and
//! the run's id derives from the tick: a new leader neither repeats nor forgets one (HOR-007).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use trireme_config::{CronSchedule, Periodic, job::periodic_spec};
use trireme_office::{ConfigFeed, Controller, ControllerError, Office, OfficeError, RunningConfig};
use trireme_proto::state::{CreateJobs, Cursor, Job, JobType, NewJob, PutCursor, command::Body};
use trireme_prowjob::{GoDuration, new_prow_job, record};
use trireme_state::{JobFilter, State, ids};

/// Runs started in one pass; the rest follows in the next (HOR-011).
const MAX_STARTS: usize = 50;
/// Cron ticks looked through after a long downtime; the last one found is run.
const MAX_MISSED: usize = 10_000;
/// The loop looks at the clock at least this often: Prow's default `tick_interval`.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Starts periodics while this node holds the office.
pub struct Periodics {
    config: ConfigFeed,
}

impl Periodics {
    #[must_use]
    pub fn new(config: ConfigFeed) -> Self {
        Self { config }
    }
}

/// The last run of a periodic, however it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LastRun {
    started_ms: i64,
    /// 0 while it runs.
    completed_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Start a run for the tick of this time.
    Start(i64),
    /// The tick of this time is lost: the run before still goes on (HOR-003).
    Skip(i64),
    /// A cron line seen for the first time: count ticks from now on.
    Register,
    /// Nothing before this time.
    At(i64),
    /// Nothing until something else changes.
    Wait,
}

fn next(job: &Periodic, last: Option<LastRun>, cursor: Option<&Cursor>, now_ms: i64) -> Next {
    if !job.cron.is_empty() {
        return match cursor {
            Some(cursor) if cursor.value == job.cron => {
                next_cron(&job.cron, cursor.at_ms, last, now_ms)
            }
            // HOR-004: a changed line is registered again.
            _ => Next::Register,
        };
    }
    let due = match last {
        // HOR-002: no run before, start at once.
        None => return Next::Start(0),
        Some(LastRun {
            completed_ms: 0, ..
        }) => return Next::Wait,
        Some(last) if millis(job.every) > 0 => last.started_ms.saturating_add(millis(job.every)),
        Some(last) if millis(job.at_least_every) > 0 => {
            last.completed_ms.saturating_add(millis(job.at_least_every))
        }
        Some(_) => return Next::Wait,
    };
    if now_ms > due {
        Next::Start(due)
    } else {
        Next::At(due + 1)
    }
}

fn millis(duration: GoDuration) -> i64 {
    duration.as_nanos() / 1_000_000
}

/// HOR-003, HOR-007: ticks missed while nobody held the office are run once, as the last of them.
fn next_cron(cron: &str, seen_ms: i64, last: Option<LastRun>, now_ms: i64) -> Next {
    let Ok(schedule) = CronSchedule::parse(cron) else {
        return Next::Wait;
    };
    let after = |ms: i64| {
        let instant = Timestamp::from_millisecond(ms).ok()?;
        Some(schedule.next_after(instant)?.as_millisecond())
    };
    let Some(mut tick) = after(seen_ms) else {
        return Next::Wait;
    };
    if tick > now_ms {
        return Next::At(tick);
    }
    for _ in 0..MAX_MISSED {
        match after(tick) {
            Some(later) if later <= now_ms => tick = later,
            _ => break,
        }
    }
    match last {
        Some(LastRun {
            completed_ms: 0, ..
        }) => Next::Skip(tick),
        _ => Next::Start(tick),
    }
}

fn last_run(state: &State, name: &str) -> Option<LastRun> {
    let filter = JobFilter {
        job: name.to_owned(),
        job_type: Some(JobType::Periodic),
        ..JobFilter::default()
    };
    state.jobs_newest_first(filter).next().map(|job| LastRun {
        started_ms: job.created_ms,
        completed_ms: job.completed_ms,
    })
}

fn cursor_key(name: &str) -> String {
    format!("periodic/{name}")
}

fn record_for(
    job: &Periodic,
    tick_ms: i64,
    config_version: u64,
    now_ms: i64,
) -> Result<Job, String> {
    let origin = format!("periodic {} due {tick_ms}", job.base.name);
    let id = ids::job_id(&origin, "horologium", 0);
    let start = Timestamp::from_millisecond(now_ms).map_err(|why| why.to_string())?;
    let prow_job = new_prow_job(
        periodic_spec(job),
        &job.base.labels,
        &job.base.annotations,
        id,
        start,
    );
    let source = record::Source {
        origin,
        config_version,
        ..record::Source::default()
    };
    record::new_record(&prow_job, source).map_err(|why| why.to_string())
}

#[async_trait]
impl Controller for Periodics {
    fn name(&self) -> &'static str {
        "horologium"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let resigned = office.resigned();
        let mut feed = self.config.clone();
        let mut watch = office.watch(office.view().revision);
        loop {
            let config: Option<Arc<RunningConfig>> = feed.borrow_and_update().clone();
            let wake = match &config {
                Some(config) => pass(&office, config).await?,
                None => Instant::now() + MAX_WAIT,
            };
            loop {
                tokio::select! {
                    () = resigned.cancelled() => return Ok(()),
                    changed = feed.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                        break;
                    }
                    batch = watch.next() => match batch {
                        // An interval counts from a run's end.
                        Ok(batch) if !batch.changes.iter().any(is_periodic) => {}
                        Ok(_) => break,
                        Err(_) => {
                            watch = office.watch(office.view().revision);
                            break;
                        }
                    },
                    () = sleep_until(wake) => break,
                }
            }
        }
    }
}

fn is_periodic(change: &trireme_state::Change) -> bool {
    matches!(change, trireme_state::Change::Job(job) if job.r#type() == JobType::Periodic)
}

/// Starts what is due; returns when to look again.
async fn pass(office: &Office, config: &RunningConfig) -> Result<Instant, OfficeError> {
    let (view, now_ms) = (office.view(), office.now_ms());
    let mut wake_ms = now_ms + i64::try_from(MAX_WAIT.as_millis()).unwrap_or(i64::MAX);
    let (mut jobs, mut cursors, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for job in &config.config.jobs.periodics {
        let name = &job.base.name;
        let cursor = |at_ms| Cursor {
            key: cursor_key(name),
            at_ms,
            value: job.cron.clone(),
            version: 0,
        };
        let known = view.cursor(&cursor_key(name)).map(|cursor| &**cursor);
        match next(job, last_run(&view, name), known, now_ms) {
            Next::At(at_ms) => wake_ms = wake_ms.min(at_ms),
            Next::Wait => {}
            Next::Register => {
                seen.push(cursor(now_ms));
                wake_ms = now_ms;
            }
            Next::Skip(tick_ms) => {
                tracing::info!(
                    periodic = name,
                    tick_ms,
                    "the run before still goes on, this tick is lost"
                );
                seen.push(cursor(tick_ms));
                wake_ms = now_ms;
            }
            Next::Start(_) if jobs.len() == MAX_STARTS => wake_ms = now_ms,
            Next::Start(tick_ms) => match record_for(job, tick_ms, config.version, now_ms) {
                Ok(record) => {
                    tracing::info!(periodic = name, id = record.id, "due");
                    jobs.push(NewJob {
                        job: Some(record),
                        ..NewJob::default()
                    });
                    if !job.cron.is_empty() {
                        cursors.push(cursor(tick_ms));
                    }
                }
                // One broken entry does not stop the others.
                Err(why) => tracing::error!(periodic = name, %why, "cannot be started"),
            },
        }
    }
    if !seen.is_empty() {
        office
            .propose(Body::PutCursor(PutCursor { cursors: seen }))
            .await?;
    }
    if !jobs.is_empty() {
        office
            .propose(Body::CreateJobs(CreateJobs { jobs, cursors }))
            .await?;
    }
    let wait = u64::try_from(wake_ms - now_ms).unwrap_or_default();
    Ok(Instant::now() + Duration::from_millis(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn interval(minutes: i64) -> Periodic {
        Periodic {
            every: GoDuration::from_secs(minutes * 60),
            ..Periodic::default()
        }
    }

    fn ran(started_ms: i64, completed_ms: i64) -> Option<LastRun> {
        Some(LastRun {
            started_ms,
            completed_ms,
        })
    }

    /// HOR-002
    #[test]
    fn intervals_count_from_the_start_of_a_complete_run() {
        let job = interval(10);
        assert_eq!(next(&job, None, None, 5), Next::Start(0));
        assert_eq!(next(&job, ran(0, 0), None, 99 * MINUTE), Next::Wait);
        assert_eq!(
            next(&job, ran(0, MINUTE), None, 10 * MINUTE),
            Next::At(10 * MINUTE + 1)
        );
        assert_eq!(
            next(&job, ran(0, MINUTE), None, 10 * MINUTE + 1),
            Next::Start(10 * MINUTE)
        );
        let job = Periodic {
            at_least_every: interval(10).every,
            every: GoDuration::default(),
            ..Periodic::default()
        };
        assert_eq!(
            next(&job, ran(0, 5 * MINUTE), None, 12 * MINUTE),
            Next::At(15 * MINUTE + 1)
        );
    }

    /// HOR-003, HOR-004, HOR-007
    #[test]
    fn missed_ticks_run_once_and_a_running_run_loses_its_tick() {
        let job = Periodic {
            cron: "*/5 * * * *".to_owned(),
            ..Periodic::default()
        };
        let cursor = |at_ms, value: &str| Cursor {
            at_ms,
            value: value.to_owned(),
            ..Cursor::default()
        };
        let seen = cursor(0, "*/5 * * * *");
        assert_eq!(next(&job, None, None, MINUTE), Next::Register);
        assert_eq!(
            next(&job, None, Some(&cursor(0, "* * * * *")), MINUTE),
            Next::Register
        );
        assert_eq!(next(&job, None, Some(&seen), MINUTE), Next::At(5 * MINUTE));
        assert_eq!(
            next(&job, None, Some(&seen), 17 * MINUTE),
            Next::Start(15 * MINUTE)
        );
        assert_eq!(
            next(&job, ran(1, 0), Some(&seen), 17 * MINUTE),
            Next::Skip(15 * MINUTE)
        );
    }

    /// HOR-007: the same tick makes the same run.
    #[test]
    fn a_runs_id_derives_from_its_tick() {
        let mut job = interval(1);
        job.base.name = "nightly".to_owned();
        let id = |tick, now| record_for(&job, tick, 1, now).unwrap().id;
        assert_eq!(id(5, 1_000), id(5, 2_000));
        assert_ne!(id(5, 1_000), id(6, 1_000));
    }
}
