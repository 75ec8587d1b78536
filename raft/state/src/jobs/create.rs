//! Making jobs, also such as are finished from the start: what a new one may look like, `unless_exists`, and the older presubmits that it replaces.

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::state::{CreateJobs, Done, Job, JobState, JobType, NewJob};

use super::{GITHUB_REPORTER, is_complete, is_terminal, rivalry, seq_of, twinship};
use crate::{
    State,
    apply::Entry,
    change::Change,
    digest::{IdHash, id_hash},
    level::{EFFECTS_LEVEL, HISTORY_LEVEL},
    limits::{
        MAX_JOB_EVENT_BYTES, MAX_JOB_EVENTS, MAX_JOBS, MAX_JOBS_PER_COMMAND, MAX_PROWJOB_BYTES,
        MAX_PULLS_PER_JOB, MAX_RECORD_BYTES, MAX_REPORTERS,
    },
    reject::{Verdict, at_most, exhausted, invalid, name, optional_name, record_size},
};

/// What became of new jobs.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) created: Vec<String>,
    pub(crate) existing: Vec<String>,
    pub(crate) aborted: Vec<String>,
}

pub(crate) fn create_jobs(state: &mut State, entry: &mut Entry, command: CreateJobs) -> Verdict {
    state.check_new_jobs(entry, command.jobs.iter())?;
    state.check_cursors(&command.cursors)?;
    let made = state.make_jobs(entry, command.jobs, None);
    let moved = state.put_cursors(entry, &command.cursors);
    let duplicate = made.created.is_empty() && made.aborted.is_empty() && !moved;
    Ok(Done {
        created: made.created,
        existing: made.existing,
        aborted: made.aborted,
        duplicate,
        ..Done::default()
    })
}

fn check_new_job(entry: &Entry, new: &NewJob) -> Verdict<()> {
    let Some(job) = &new.job else {
        return Err(invalid("a new job without its record"));
    };
    name("job.id", &job.id)?;
    name("job.job", &job.job)?;
    let named = |what: &str| format!("job {:?}: {what}", job.job);
    for (field, value) in [
        ("org", &job.org),
        ("repo", &job.repo),
        ("base_ref", &job.base_ref),
        ("base_sha", &job.base_sha),
        ("context", &job.context),
        ("cluster", &job.cluster),
        ("agent", &job.agent),
        ("queue", &job.queue),
    ] {
        optional_name(field, value)?;
    }
    match job.r#type() {
        JobType::Unspecified => return Err(invalid(named("no known type"))),
        JobType::Presubmit | JobType::Batch if job.pulls.is_empty() => {
            return Err(invalid(named("a presubmit or batch without pull requests")));
        }
        JobType::Presubmit | JobType::Batch | JobType::Postsubmit => {
            name("org", &job.org)?;
            name("repo", &job.repo)?;
        }
        JobType::Periodic => {}
    }
    match job.state() {
        JobState::Unspecified | JobState::Scheduling | JobState::Triggered => {}
        // Only who is in office may vouch for a result that no run had (PLG-OVERRIDE-005).
        state if is_terminal(state) && entry.epoch != 0 => optional_name("url", &job.url)?,
        _ => return Err(invalid(named("a new job is scheduling or triggered"))),
    }
    at_most(
        "pull requests of one job",
        job.pulls.len(),
        MAX_PULLS_PER_JOB,
    )?;
    for pull in &job.pulls {
        optional_name("head_sha", &pull.head_sha)?;
        optional_name("author", &pull.author)?;
    }
    at_most("reporters of one job", job.reporters.len(), MAX_REPORTERS)?;
    for (at, reporter) in job.reporters.iter().enumerate() {
        name("reporter", reporter)?;
        if job.reporters.iter().take(at).any(|other| other == reporter) {
            return Err(invalid(named(&format!("reporter {reporter:?} twice"))));
        }
    }
    if job.prowjob.len() > MAX_PROWJOB_BYTES {
        return Err(invalid(named(&format!(
            "a ProwJob of more than {MAX_PROWJOB_BYTES} bytes"
        ))));
    }
    record_size("the job", job)
}

/// What will happen to a job must fit into its record, too.
fn check_room_for_history(job: &Job) -> Verdict<()> {
    let bound = MAX_RECORD_BYTES - MAX_JOB_EVENTS * MAX_JOB_EVENT_BYTES;
    let size = job.encoded_len();
    if size > bound {
        return Err(invalid(format!(
            "the job {:?} has {size} bytes, with room for its history at most {bound} are allowed",
            job.job
        )));
    }
    Ok(())
}

/// Why a job is made: in its creator's words, else what it was run before as, else its origin.
fn cause_of(job: &Job, told: String, event: Option<&str>) -> String {
    let told = match (told.is_empty(), job.rerun_of.is_empty()) {
        (false, _) => told,
        (true, false) => format!("rerun of {}", job.rerun_of),
        (true, true) if event.is_none() => job.origin.clone(),
        (true, true) => String::new(),
    };
    match event {
        None => told,
        Some(event) if told.is_empty() => event.to_owned(),
        Some(event) => format!("{told} ({event})"),
    }
}

impl State {
    pub(crate) fn check_new_jobs<'a>(
        &self,
        entry: &Entry,
        jobs: impl Iterator<Item = &'a NewJob> + Clone,
    ) -> Verdict<()> {
        let count = jobs.clone().count();
        at_most("new jobs", count, MAX_JOBS_PER_COMMAND)?;
        if self.jobs.len().saturating_add(count) > MAX_JOBS {
            return Err(exhausted("jobs", MAX_JOBS));
        }
        jobs.clone().try_for_each(|new| check_new_job(entry, new))?;
        if self.feature_level() < HISTORY_LEVEL {
            return Ok(());
        }
        jobs.filter_map(|new| new.job.as_ref())
            .try_for_each(|job| check_room_for_history(job))
    }

    /// Creates checked jobs in their order; those that are there already are only named. `event` is what they are made for,
    /// where their origin says less.
    pub(crate) fn make_jobs(
        &mut self,
        entry: &mut Entry,
        jobs: impl IntoIterator<Item = NewJob>,
        event: Option<&str>,
    ) -> Made {
        let mut made = Made::default();
        for new in jobs {
            let Some(job) = new.job else { continue };
            let id = id_hash(&[&job.id]);
            if self.jobs.has(id) {
                made.existing.push(job.id);
            } else if let Some(twin) = new.unless_exists.then(|| self.twin_of(&job)).flatten() {
                made.existing.push(twin);
            } else {
                if new.supersede {
                    self.supersede_older(entry, &job, &mut made);
                }
                made.created.push(job.id.clone());
                let cause = cause_of(&job, new.cause, event);
                self.make_job(entry, *job, id, &cause);
            }
        }
        made
    }

    /// The newest incomplete or successful job that does the same work. A periodic does its work again each time, so
    /// of those only an incomplete one counts; what a presubmit found on another base does not count either.
    fn twin_of(&self, job: &Job) -> Option<String> {
        let periodic = job.r#type() == JobType::Periodic;
        let by_base = self.feature_level() >= EFFECTS_LEVEL;
        self.jobs
            .twins
            .of(twinship(job))
            .rev()
            .filter_map(|seq| self.jobs.at(seq))
            .find(|twin| {
                !is_complete(twin) || !periodic && (!by_base || twin.base_sha == job.base_sha)
            })
            .map(|twin| twin.id.clone())
    }

    /// EXE-060, EXE-066: older incomplete presubmits of the same job on the same pull request are aborted, and GitHub,
    /// which will show the newer run, is not told.
    fn supersede_older(&mut self, entry: &mut Entry, job: &Job, made: &mut Made) {
        if job.r#type() != JobType::Presubmit {
            return;
        }
        let older: Vec<_> = self
            .jobs
            .rivals
            .of(rivalry(job))
            .filter_map(|seq| self.jobs.at(seq))
            .cloned()
            .collect();
        for rival in older {
            let reason = format!("Superseded by run {}.", job.id);
            made.aborted.push(rival.id.clone());
            let cause = format_args!(
                "newer run of the same job on the same pull request: {}",
                job.id
            );
            self.abort(entry, &rival, &reason, Some(GITHUB_REPORTER), cause);
        }
    }

    fn make_job(&mut self, entry: &mut Entry, mut job: Job, id: IdHash, cause: &str) {
        if job.state() == JobState::Unspecified {
            job.set_state(JobState::Triggered);
        }
        // A slice would keep the whole entry in memory for as long as the job stays.
        job.prowjob = Bytes::copy_from_slice(&job.prowjob);
        job.created_revision = entry.index;
        job.created_ordinal = entry.next_job();
        job.created_ms = entry.stamp_ms;
        job.pending_ms = 0;
        job.completed_ms = match is_terminal(job.state()) {
            true => entry.stamp_ms.max(1),
            false => 0,
        };
        job.build_id.clear();
        job.attempt = 0;
        job.lease = None;
        job.abort_reason.clear();
        job.prev_report_states.clear();
        job.history = Vec::new();
        job.history_dropped = 0;
        self.note(entry, &mut job, format_args!("{cause}"));
        debug_assert!(self.jobs.at(&seq_of(&job)).is_none());
        self.owe_reports(entry, &job, None);
        job.version = entry.index;
        let job = self.jobs.add(&mut self.digest, job, id);
        entry.changed(Change::Job(job));
    }
}
