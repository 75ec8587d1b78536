//! What happens to jobs: the legal transitions, leases and their fences, and the sweep into the archive.
//!
//! scheduling → triggered → pending → success | failure | error; any incomplete one → aborted. A lost lease leads
//! back to triggered. A job is final once `completed_ms` is set; an aborted one that is leased completes when its
//! agent confirms or its lease is released.
//!
//! `attempt` counts the leases that may have started something; `retries_left` how many more may be lost before the job
//! ends in error. A lease given back before its `StartJob` uses up neither.

use std::{fmt::Arguments, sync::Arc};

use trireme_proto::state::{
    AbortJob, AbortJobs, Done, FinishJob, Job, JobState, Lease, LeaseJob, ReleaseLease, SetJobUrl,
    StartJob, SweepJobs, TriggerJob,
};

use super::{is_complete, is_terminal, seq_of};
use crate::{
    State,
    apply::Entry,
    archive,
    change::{Change, RecordKey},
    digest::id_hash,
    limits::{MAX_JOBS_PER_COMMAND, MAX_SWEEP},
    reject::{Verdict, at_most, conflict, cut, fenced, invalid, not_found, optional_name},
};

/// Milliseconds that Prow's build ids (snowflake ids) count from, so that ours sort after those of a former Prow.
const BUILD_ID_EPOCH_MS: i64 = 1_288_834_974_657;
/// Bits below the milliseconds in a build id.
const BUILD_ID_SHIFT: u32 = 22;

pub(crate) fn trigger_job(state: &mut State, entry: &mut Entry, command: &TriggerJob) -> Verdict {
    let job = state.incomplete_job(&command.id)?;
    optional_name("cluster", &command.cluster)?;
    if job.state() != JobState::Scheduling {
        return Err(illegal(&job, "triggered"));
    }
    let mut next = (*job).clone();
    next.set_state(JobState::Triggered);
    if !command.cluster.is_empty() {
        next.cluster.clone_from(&command.cluster);
    }
    let cause = match next.cluster.as_str() {
        "" => "may start".to_owned(),
        cluster => format!("cluster {cluster} chosen"),
    };
    state.settle_job_change(entry, next, None, format_args!("{cause}"));
    Ok(Done::default())
}

/// Stands for the build id in the URL of a `LeaseJob`: whoever leases knows the rest of the run's place, but the id is
/// given here.
pub const BUILD_ID_MARK: &str = "$BUILD_ID$";

/// What Prow says of a run whose workload was made (EXE-050).
const TRIGGERED_DESCRIPTION: &str = "Job triggered.";

pub(crate) fn lease_job(state: &mut State, entry: &mut Entry, command: &LeaseJob) -> Verdict {
    let job = state.incomplete_job(&command.id)?;
    if job.state() != JobState::Triggered || job.lease.is_some() {
        return Err(illegal(&job, "pending"));
    }
    // The fence of a lease is its log index, so one entry may not lease a job twice.
    if !job.build_id.is_empty() && job.version == entry.index {
        return Err(conflict(format!(
            "job {:?} changed in the same log entry",
            job.id
        )));
    }
    if job.deadline_ms != 0 && entry.stamp_ms >= job.deadline_ms {
        return Err(conflict(format!("job {:?} is past its deadline", job.id)));
    }
    state.check_lease_holder(&command.agent_id, command.incarnation)?;
    state.check_concurrency(&job, command)?;
    optional_name("url", &command.url)?;

    let mut next = (*job).clone();
    next.set_state(JobState::Pending);
    next.pending_ms = entry.stamp_ms;
    TRIGGERED_DESCRIPTION.clone_into(&mut next.description);
    next.attempt = next.attempt.saturating_add(1);
    if next.build_id.is_empty() {
        next.build_id = state.next_build_id(entry.stamp_ms).to_string();
    }
    if !command.url.is_empty() {
        next.url = command.url.replace(BUILD_ID_MARK, &next.build_id);
    }
    next.lease = Some(Box::new(Lease {
        agent_id: command.agent_id.clone(),
        fence: entry.index,
        granted_ms: entry.stamp_ms,
        attempt: next.attempt,
        started_ms: 0,
    }));
    let build_id = next.build_id.clone();
    let attempt = next.attempt;
    let agent = state.agent_words(&command.agent_id);
    let cause = format_args!("attempt {attempt} leased to agent {agent}");
    state.settle_job_change(entry, next, None, cause);
    Ok(Done {
        token: entry.index,
        build_id,
        ..Done::default()
    })
}

pub(crate) fn start_job(state: &mut State, entry: &mut Entry, command: &StartJob) -> Verdict {
    let (job, lease) = state.leased_job(&command.id, command.fence)?;
    if lease.started_ms != 0 {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    let mut next = (*job).clone();
    next.lease = Some(Box::new(Lease {
        started_ms: entry.stamp_ms,
        ..lease
    }));
    let cause = format_args!("attempt {}: the first process runs", job.attempt);
    state.note(entry, &mut next, cause);
    state.put_job(entry, next);
    Ok(Done::default())
}

/// With fence 0 a controller fails a job that nobody holds and that can never start (EXE-052).
pub(crate) fn finish_job(state: &mut State, entry: &mut Entry, command: &FinishJob) -> Verdict {
    let result = command.state();
    if !is_terminal(result) {
        return Err(invalid(
            "a job finishes with success, failure, aborted or error",
        ));
    }
    optional_name("url", &command.url)?;
    let job = if command.fence == 0 && entry.epoch != 0 {
        let job = state.incomplete_job(&command.id)?;
        if job.lease.is_some() {
            return Err(fenced(format!("job {:?} is held under a lease", job.id)));
        }
        if result != JobState::Error {
            return Err(conflict(format!(
                "job {:?} never ran: it can only end in error",
                job.id
            )));
        }
        job
    } else {
        state.leased_job(&command.id, command.fence)?.0
    };
    let mut next = (*job).clone();
    let cause = finish_cause(state, &job, command);
    // Aborted stays aborted, whatever the workload made of it.
    if job.state() != JobState::Aborted {
        next.set_state(result);
        if !command.description.is_empty() {
            next.description = cut(&command.description);
        }
    }
    if !command.url.is_empty() {
        next.url.clone_from(&command.url);
    }
    complete(&mut next, entry);
    state.settle_job_change(entry, next, None, format_args!("{cause}"));
    Ok(Done::default())
}

fn finish_cause(state: &State, job: &Job, command: &FinishJob) -> String {
    let told = match command.description.as_str() {
        "" => "ended",
        told => told,
    };
    let attempt = job.attempt;
    if job.state() == JobState::Aborted {
        match command.state() {
            JobState::Aborted => format!("attempt {attempt} is stopped: {told}"),
            result => {
                let result = state_name(result);
                format!("attempt {attempt} ended with {result} before it was stopped: {told}")
            }
        }
    } else if command.fence == 0 {
        match state.config() {
            Some(config) => format!("{told} (under configuration {})", config.number),
            None => told.to_owned(),
        }
    } else {
        format!("attempt {attempt}: {told}")
    }
}

pub(crate) fn release_lease(
    state: &mut State,
    entry: &mut Entry,
    command: &ReleaseLease,
) -> Verdict {
    let (job, _) = state.leased_job(&command.id, command.fence)?;
    state.release(entry, &job, command.unstarted, &command.reason);
    Ok(Done::default())
}

pub(crate) fn abort_jobs(state: &mut State, entry: &mut Entry, command: &AbortJobs) -> Verdict {
    at_most("jobs to abort", command.jobs.len(), MAX_JOBS_PER_COMMAND)?;
    if let [only] = command.jobs.as_slice()
        && state.job(&only.id).is_none()
    {
        return Err(not_found("job", &only.id));
    }
    let aborted = state.abort_all(entry, &command.jobs, None);
    Ok(Done {
        duplicate: aborted.is_empty(),
        aborted,
        ..Done::default()
    })
}

pub(crate) fn set_job_url(state: &mut State, entry: &mut Entry, command: &SetJobUrl) -> Verdict {
    let job = state.incomplete_job(&command.id)?;
    optional_name("url", &command.url)?;
    if job.url == command.url {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    state.put_job(
        entry,
        Job {
            url: command.url.clone(),
            ..(*job).clone()
        },
    );
    Ok(Done::default())
}

/// Takes complete, reported jobs out of memory; others stay.
pub(crate) fn sweep_jobs(state: &mut State, entry: &mut Entry, command: &SweepJobs) -> Verdict {
    at_most("jobs to sweep", command.ids.len(), MAX_SWEEP)?;
    let mut swept = false;
    for id in &command.ids {
        let Some(job) = state.job(id).cloned() else {
            continue;
        };
        if !state.is_sweepable(&job) {
            continue;
        }
        state.drop_reports(entry, &job);
        state.jobs.remove(&mut state.digest, id);
        archive::job(entry, &job);
        entry.changed(Change::Removed(RecordKey::Job { id: id.clone() }));
        swept = true;
    }
    Ok(Done {
        duplicate: !swept,
        ..Done::default()
    })
}

fn complete(job: &mut Job, entry: &Entry) {
    // Zero means incomplete, so a clock at the epoch must not be taken for it.
    job.completed_ms = entry.stamp_ms.max(1);
    job.lease = None;
}

fn illegal(job: &Job, to: &str) -> trireme_proto::state::Rejected {
    conflict(format!(
        "job {:?} is {}: it cannot become {to}",
        job.id,
        state_name(job.state())
    ))
}

/// Prow's word for a state.
pub fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "",
        JobState::Scheduling => "scheduling",
        JobState::Triggered => "triggered",
        JobState::Pending => "pending",
        JobState::Success => "success",
        JobState::Failure => "failure",
        JobState::Aborted => "aborted",
        JobState::Error => "error",
    }
}

impl State {
    fn incomplete_job(&self, id: &str) -> Verdict<Arc<Job>> {
        let job = self.job(id).ok_or_else(|| not_found("job", id))?;
        if is_complete(job) {
            return Err(conflict(format!(
                "job {id:?} is complete ({})",
                state_name(job.state())
            )));
        }
        Ok(job.clone())
    }

    /// The job and its lease, if the fence is that of the present lease.
    fn leased_job(&self, id: &str, fence: u64) -> Verdict<(Arc<Job>, Lease)> {
        let job = self.job(id).ok_or_else(|| not_found("job", id))?;
        match &job.lease {
            Some(lease) if lease.fence == fence => Ok((job.clone(), Lease::clone(lease))),
            Some(lease) => Err(fenced(format!(
                "job {id:?} is held under fence {}, not {fence}",
                lease.fence
            ))),
            None => Err(fenced(format!(
                "nobody holds job {id:?}: fence {fence} is void"
            ))),
        }
    }

    /// EXE-040 to EXE-042: over all, per job and per queue; first come, first served.
    fn check_concurrency(&self, job: &Job, command: &LeaseJob) -> Verdict<()> {
        if command.max_running != 0 && self.state_count(JobState::Pending) >= command.max_running {
            return Err(conflict(format!(
                "{} jobs are running: the limit over all",
                command.max_running
            )));
        }
        let place = (job.created_ms, seq_of(job));
        if job.max_concurrency != 0 {
            let limit = job.max_concurrency;
            let ahead = self.jobs.waiting.of(id_hash(&[&job.job]));
            if is_blocked(limit, self.running_count(&job.job), ahead, place.0) {
                return Err(conflict(format!(
                    "job {:?} may run {limit} at a time",
                    job.job
                )));
            }
        }
        if let Some(capacity) = command.queue_capacity
            && !job.queue.is_empty()
        {
            let ahead = self.jobs.queue_waiting.of(id_hash(&[&job.queue]));
            if is_blocked(capacity, self.queue_counts(&job.queue).0, ahead, place.0) {
                return Err(conflict(format!(
                    "queue {:?} may run {capacity} at a time",
                    job.queue
                )));
            }
        }
        Ok(())
    }

    /// Prow's snowflake layout, made strictly increasing (EXE-065).
    fn next_build_id(&mut self, stamp_ms: i64) -> u64 {
        let elapsed = u64::try_from(stamp_ms.saturating_sub(BUILD_ID_EPOCH_MS)).unwrap_or(0);
        let by_clock = elapsed.checked_shl(BUILD_ID_SHIFT).unwrap_or(0);
        self.build_id = by_clock.max(self.build_id.saturating_add(1));
        self.build_id
    }

    /// Aborts what is incomplete and not aborted yet; returns the ids. `event` is what led to it, where the reasons do not
    /// say.
    pub(crate) fn abort_all(
        &mut self,
        entry: &mut Entry,
        jobs: &[AbortJob],
        event: Option<&str>,
    ) -> Vec<String> {
        let mut aborted = Vec::new();
        for AbortJob { id, reason } in jobs {
            let Some(job) = self.job(id).cloned() else {
                continue;
            };
            if is_complete(&job) || job.state() == JobState::Aborted {
                continue;
            }
            let cause = match event {
                None if reason.is_empty() => "no reason was given".to_owned(),
                None => reason.clone(),
                Some(event) => format!("{reason} ({event})"),
            };
            self.abort(entry, &job, reason, None, format_args!("{cause}"));
            aborted.push(id.clone());
        }
        aborted
    }

    /// `silent` names a reporter that is not to be told.
    pub(super) fn abort(
        &mut self,
        entry: &mut Entry,
        job: &Job,
        reason: &str,
        silent: Option<&str>,
        cause: Arguments<'_>,
    ) {
        let mut next = job.clone();
        next.set_state(JobState::Aborted);
        next.abort_reason = cut(reason);
        // Prow leaves the description of a replaced run as it was.
        if silent.is_none() && !reason.is_empty() {
            next.description = cut(reason);
        }
        if next.lease.is_none() {
            complete(&mut next, entry);
        }
        self.settle_job_change(entry, next, silent, cause);
    }

    /// Ends a lease without a result: the next attempt waits, unless none is left or the deadline has passed.
    pub(crate) fn release(&mut self, entry: &mut Entry, job: &Job, unstarted: bool, reason: &str) {
        let mut next = job.clone();
        let started = job
            .lease
            .as_ref()
            .is_some_and(|lease| lease.started_ms != 0);
        let free = unstarted && !started;
        let in_time = job.deadline_ms == 0 || entry.stamp_ms < job.deadline_ms;
        next.lease = None;
        let attempt = job.attempt;
        let what_next;
        if job.state() == JobState::Aborted {
            what_next = "it was being stopped".to_owned();
            complete(&mut next, entry);
        } else if in_time && (free || job.retries_left > 0) {
            next.set_state(JobState::Triggered);
            next.pending_ms = 0;
            next.description = cut(reason);
            if free {
                what_next = "nothing had started, waits to be leased again".to_owned();
                next.attempt = next.attempt.saturating_sub(1);
            } else {
                next.retries_left = next.retries_left.saturating_sub(1);
                let left = next.retries_left;
                what_next = format!("waits to be leased again, {left} more may be lost");
            }
        } else {
            what_next = match in_time {
                true => "no more may be lost".to_owned(),
                false => "past its deadline".to_owned(),
            };
            next.set_state(JobState::Error);
            next.description = cut(reason);
            complete(&mut next, entry);
        }
        let agent = job.lease.as_ref().map_or_else(String::new, |lease| {
            format!(" on agent {}", self.agent_words(&lease.agent_id))
        });
        let cause = format_args!("lost attempt {attempt}{agent}, {what_next}: {reason}");
        self.settle_job_change(entry, next, None, cause);
    }

    /// An agent's name and id.
    fn agent_words(&self, id: &str) -> String {
        match self.agent(id) {
            Some(agent) if !agent.name.is_empty() && agent.name != id => {
                format!("{} ({id})", agent.name)
            }
            _ => id.to_owned(),
        }
    }

    /// Puts a job whose state may have changed, with the cause, and books what its reporters are owed, in the same entry.
    pub(super) fn settle_job_change(
        &mut self,
        entry: &mut Entry,
        mut job: Job,
        silent: Option<&str>,
        cause: Arguments<'_>,
    ) {
        self.note(entry, &mut job, cause);
        if let Some(reporter) = silent
            && job.reporters.iter().any(|name| name == reporter)
        {
            job.prev_report_states
                .insert(reporter.to_owned(), state_name(job.state()).to_owned());
        }
        let moved = self
            .job(&job.id)
            .is_none_or(|former| former.state != job.state);
        if moved {
            self.owe_reports(entry, &job, silent);
        }
        self.put_job(entry, job);
    }

    pub(crate) fn put_job(&mut self, entry: &mut Entry, mut job: Job) {
        job.version = entry.index;
        let job = self.jobs.put(&mut self.digest, job);
        entry.changed(Change::Job(job));
    }
}

/// EXE-041: pending ones plus waiting ones created strictly earlier reach the limit.
fn is_blocked<'a>(
    limit: u32,
    running: u32,
    waiting: impl Iterator<Item = &'a (i64, crate::table::Seq)>,
    created_ms: i64,
) -> bool {
    let Some(free) = limit.checked_sub(running).filter(|free| *free > 0) else {
        return true;
    };
    let earlier = waiting
        .take_while(|(created, _)| *created < created_ms)
        .take(free as usize)
        .count();
    earlier >= free as usize
}
