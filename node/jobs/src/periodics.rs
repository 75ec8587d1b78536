//! Prow's horologium: runs that the clock starts.
//!
//! The last cron tick of a periodic is a cursor in the state, written by the same command that creates the run, and
//! the run's id derives from the tick: a new leader neither repeats nor forgets one (HOR-007).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use trireme_config::{Config, CronSchedule, Periodic, job::periodic_spec};
use trireme_office::{ConfigFeed, Controller, ControllerError, Office, OfficeError, RunningConfig};
use trireme_proto::state::{CreateJobs, Cursor, Job, JobType, NewJob, PutCursor, command::Body};
use trireme_prowjob::{GoDuration, new_prow_job, record};
use trireme_raft::Changes;
use trireme_state::{Change, JobFilter, RecordKey, Seq, State, ids, seq_of};

/// Runs started in one pass; the rest follows in the next (HOR-011).
const MAX_STARTS: usize = 50;
/// Bytes of ProwJobs in one command; the entry that holds them may have 1 MiB.
const MAX_START_BYTES: usize = 512 * 1024;
/// What else a record holds, roughly.
const RECORD_OVERHEAD: usize = 1024;
/// Cursors of one command.
const MAX_CURSORS: usize = 500;
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

impl LastRun {
    fn is_complete(self) -> bool {
        self.completed_ms != 0
    }
}

/// The tick of an interval that never ran.
const FIRST: i64 = 0;

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
            // HOR-003: this form also starts when it is seen first.
            _ if job.cron.starts_with("@every") && last.is_none_or(LastRun::is_complete) => {
                Next::Start(now_ms)
            }
            // HOR-004: a changed line is registered again.
            _ => Next::Register,
        };
    }
    let due = match last {
        // HOR-002: no run before, start at once.
        None => return Next::Start(FIRST),
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

/// The newest run of each periodic, kept from the changes of the state.
#[derive(Debug, Default)]
struct LastRuns {
    by_name: BTreeMap<String, Newest>,
    /// Name by id, of the same runs.
    ids: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Newest {
    seq: Seq,
    id: String,
    run: LastRun,
}

impl LastRuns {
    fn of(state: &State) -> Self {
        let filter = JobFilter {
            job_type: Some(JobType::Periodic),
            ..JobFilter::default()
        };
        let mut runs = Self::default();
        for job in state.jobs_newest_first(filter) {
            runs.update(job);
        }
        runs
    }

    fn update(&mut self, job: &Job) {
        let now = Newest {
            seq: seq_of(job),
            id: job.id.clone(),
            run: LastRun {
                started_ms: job.created_ms,
                completed_ms: job.completed_ms,
            },
        };
        if let Some(newest) = self.by_name.get(&job.job) {
            if newest.seq > now.seq {
                return;
            }
            self.ids.remove(&newest.id);
        }
        self.ids.insert(job.id.clone(), job.job.clone());
        self.by_name.insert(job.job.clone(), now);
    }

    /// The newest of a periodic leaves the state last, and only when it is no longer configured.
    fn forget(&mut self, id: &str) {
        if let Some(name) = self.ids.remove(id) {
            self.by_name.remove(&name);
        }
    }

    fn get(&self, name: &str) -> Option<LastRun> {
        self.by_name.get(name).map(|newest| newest.run)
    }
}

/// Begins the keys of all cursors of periodics.
const CURSOR_PREFIX: &str = "periodic/";

fn cursor(name: &str, at_ms: i64, cron: &str) -> Cursor {
    Cursor {
        key: format!("{CURSOR_PREFIX}{name}"),
        at_ms,
        value: cron.to_owned(),
        version: 0,
    }
}

/// HOR-004: cron lines that are no longer configured. Should one come back, it counts from then on.
fn forgotten(state: &State, config: &Config) -> Vec<Cursor> {
    let periodics = &config.jobs.periodics;
    let known: BTreeMap<&str, &str> = periodics
        .iter()
        .map(|job| (job.base.name.as_str(), job.cron.as_str()))
        .collect();
    state
        .cursors_with_prefix(CURSOR_PREFIX)
        .filter_map(|found| found.key.strip_prefix(CURSOR_PREFIX))
        .filter(|name| known.get(name).is_none_or(|cron| cron.is_empty()))
        .map(|name| cursor(name, 0, ""))
        .collect()
}

fn record_for(
    job: &Periodic,
    tick_ms: i64,
    running: &RunningConfig,
    now_ms: i64,
) -> Result<Job, String> {
    let name = &job.base.name;
    let origin = if tick_ms == FIRST {
        // Once it is no longer configured its runs are swept, and the ids of those must not come again.
        format!("periodic {name} new in configuration {}", running.version)
    } else {
        format!("periodic {name} due {tick_ms}")
    };
    let id = ids::job_id(&origin, "horologium", 0);
    let start = Timestamp::from_millisecond(now_ms).map_err(|why| why.to_string())?;
    let prow = &running.config.prow;
    let prow_job = new_prow_job(
        periodic_spec(job),
        &job.base.labels,
        &job.base.annotations,
        id,
        start,
    )
    .requiring_scheduling(prow.scheduler.enabled);
    let source = record::Source {
        origin,
        config_version: running.version,
        ..record::Source::default()
    };
    let mut record = record::new_record(&prow_job, source).map_err(|why| why.to_string())?;
    let revivals = prow.plank.max_revivals;
    record.retries_left = revivals
        .and_then(|revivals| u32::try_from(revivals).ok())
        .unwrap_or_default();
    Ok(record)
}

#[async_trait]
impl Controller for Periodics {
    fn name(&self) -> &'static str {
        "horologium"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let resigned = office.resigned();
        let mut feed = self.config.clone();
        let view = office.view();
        let mut watch = office.watch(view.revision);
        let mut last_runs = LastRuns::of(&view);
        drop(view);
        loop {
            let config: Option<Arc<RunningConfig>> = feed.borrow_and_update().clone();
            let names = names(config.as_deref());
            // What a pass has started it must know of before the next.
            let mut lost = false;
            while let Some(batch) = watch.next().now_or_never() {
                match batch {
                    Ok(batch) => heed(&batch, &mut last_runs, &names),
                    Err(_) => {
                        lost = true;
                        break;
                    }
                };
            }
            if lost {
                let view = office.view();
                watch = office.watch(view.revision);
                last_runs = LastRuns::of(&view);
            }
            let wake = match &config {
                Some(config) => pass(&office, config, &last_runs).await?,
                None => Instant::now() + MAX_WAIT,
            };
            loop {
                tokio::select! {
                    () = resigned.cancelled() => return Ok(()),
                    changed = feed.changed() => {
                        if changed.is_err() {
                            // The node is going down; so will the office.
                            resigned.cancelled().await;
                            return Ok(());
                        }
                        break;
                    }
                    batch = watch.next() => match batch {
                        Ok(batch) => if heed(&batch, &mut last_runs, &names) {
                            break;
                        },
                        Err(_) => {
                            let view = office.view();
                            watch = office.watch(view.revision);
                            last_runs = LastRuns::of(&view);
                            break;
                        }
                    },
                    () = sleep_until(wake) => break,
                }
            }
        }
    }
}

/// Takes in what became of periodics; true if one of those that are configured was among them. An interval counts from
/// a run's end.
fn heed(batch: &Changes, last_runs: &mut LastRuns, names: &BTreeSet<String>) -> bool {
    let mut configured = false;
    for change in &batch.changes {
        match change {
            Change::Job(job) if job.r#type() == JobType::Periodic => {
                last_runs.update(job);
                configured |= names.contains(&job.job);
            }
            Change::Removed(RecordKey::Job { id }) => last_runs.forget(id),
            _ => {}
        }
    }
    configured
}

fn names(running: Option<&RunningConfig>) -> BTreeSet<String> {
    let periodics = running
        .into_iter()
        .flat_map(|running| &running.config.jobs.periodics);
    periodics.map(|job| job.base.name.clone()).collect()
}

/// A run to be created, with the tick that it is for.
struct Due {
    job: Job,
    cursor: Option<Cursor>,
}

/// Starts what is due; returns when to look again.
async fn pass(
    office: &Office,
    running: &RunningConfig,
    last_runs: &LastRuns,
) -> Result<Instant, OfficeError> {
    let (view, now_ms) = (office.view(), office.now_ms());
    let mut wake_ms = now_ms + i64::try_from(MAX_WAIT.as_millis()).unwrap_or(i64::MAX);
    let mut seen = forgotten(&view, &running.config);
    let mut due = Vec::new();
    for job in &running.config.jobs.periodics {
        let name = job.base.name.as_str();
        let last = last_runs.get(name);
        let known = view.cursor(&cursor(name, 0, "").key).map(|known| &**known);
        match next(job, last, known, now_ms) {
            Next::At(at_ms) => wake_ms = wake_ms.min(at_ms),
            Next::Wait => {}
            Next::Register => {
                seen.push(cursor(name, now_ms, &job.cron));
                wake_ms = now_ms;
            }
            Next::Skip(tick_ms) => {
                tracing::info!(
                    periodic = name,
                    tick_ms,
                    "the run before still goes on, this tick is lost"
                );
                seen.push(cursor(name, tick_ms, &job.cron));
                wake_ms = now_ms;
            }
            Next::Start(_) if due.len() == MAX_STARTS => wake_ms = now_ms,
            Next::Start(tick_ms) => match record_for(job, tick_ms, running, now_ms) {
                Ok(record) => due.push(Due {
                    job: record,
                    cursor: (!job.cron.is_empty()).then(|| cursor(name, tick_ms, &job.cron)),
                }),
                // One broken entry does not stop the others.
                Err(why) => tracing::error!(periodic = name, why, "cannot be started"),
            },
        }
    }
    for cursors in seen.chunks(MAX_CURSORS) {
        let cursors = cursors.to_vec();
        office
            .propose(Body::PutCursor(PutCursor { cursors }))
            .await?;
    }
    start_all(office, due).await?;
    let wait = u64::try_from(wake_ms - now_ms).unwrap_or_default();
    Ok(Instant::now() + Duration::from_millis(wait))
}

async fn start_all(office: &Office, due: Vec<Due>) -> Result<(), OfficeError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    for one in due {
        let more = one.job.prowjob.len() + RECORD_OVERHEAD;
        if bytes + more > MAX_START_BYTES && !batch.is_empty() {
            start(office, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes += more;
        batch.push(one);
    }
    start(office, batch).await
}

/// All in one command; were that refused, each in its own, so that a broken one stops no other.
async fn start(office: &Office, batch: Vec<Due>) -> Result<(), OfficeError> {
    if batch.is_empty() {
        return Ok(());
    }
    let create = |batch: &[Due]| {
        let new = |due: &Due| NewJob {
            job: Some(Box::new(due.job.clone())),
            ..NewJob::default()
        };
        Body::CreateJobs(CreateJobs {
            jobs: batch.iter().map(new).collect(),
            cursors: batch.iter().filter_map(|due| due.cursor.clone()).collect(),
        })
    };
    match office.propose(create(&batch)).await {
        Ok(done) => {
            tracing::info!(created = ?done.created, "due");
            return Ok(());
        }
        Err(OfficeError::Rejected { .. }) => {}
        Err(why) => return Err(why),
    }
    for due in batch.chunks(1) {
        match office.propose(create(due)).await {
            Ok(done) => tracing::info!(created = ?done.created, "due"),
            Err(why @ OfficeError::Rejected { .. }) => {
                let periodic = due.first().map(|due| due.job.job.as_str());
                tracing::error!(periodic, %why, "cannot be started");
            }
            Err(why) => return Err(why),
        }
    }
    Ok(())
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

    /// HOR-002, JOB-021
    #[test]
    fn intervals_count_from_the_start_of_a_complete_run() {
        let job = interval(10);
        assert_eq!(next(&job, None, None, 5), Next::Start(FIRST));
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

    /// HOR-003
    #[test]
    fn an_interval_as_a_cron_line_starts_when_it_is_seen_first() {
        let job = Periodic {
            cron: "@every 1h".to_owned(),
            ..Periodic::default()
        };
        assert_eq!(next(&job, None, None, 5), Next::Start(5));
        assert_eq!(next(&job, ran(1, 2), None, 5), Next::Start(5));
        assert_eq!(next(&job, ran(1, 0), None, 5), Next::Register);
    }

    /// JOB-068
    #[test]
    fn the_newest_run_counts_until_it_is_swept() {
        let run = |revision: u64, created_ms, completed_ms| Job {
            id: revision.to_string(),
            job: "nightly".to_owned(),
            r#type: JobType::Periodic.into(),
            created_revision: revision,
            created_ms,
            completed_ms,
            ..Job::default()
        };
        let mut runs = LastRuns::default();
        runs.update(&run(2, 20, 0));
        runs.update(&run(1, 10, 15));
        assert_eq!(runs.get("nightly"), ran(20, 0));
        runs.update(&run(2, 20, 25));
        assert_eq!(runs.get("nightly"), ran(20, 25));
        runs.update(&run(3, 30, 0));
        runs.forget("2");
        assert_eq!(runs.get("nightly"), ran(30, 0));
        runs.forget("3");
        assert_eq!(runs.get("nightly"), None);
        assert!(runs.ids.is_empty());
    }

    /// HOR-007: the same tick makes the same run.
    #[test]
    fn a_runs_id_derives_from_its_tick() {
        let mut job = interval(1);
        job.base.name = "nightly".to_owned();
        let running = RunningConfig {
            version: 1,
            config: Arc::default(),
            plugins: Arc::default(),
        };
        let id = |tick, now| record_for(&job, tick, &running, now).unwrap().id;
        assert_eq!(id(5, 1_000), id(5, 2_000));
        assert_ne!(id(5, 1_000), id(6, 1_000));
    }
}
