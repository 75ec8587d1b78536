//! Reading jobs.

use std::sync::Arc;

use trireme_proto::state::{Job, JobState, JobType};

use super::{Jobs, head_key, is_complete, pull_key};
use crate::{State, digest::id_hash, table::Seq};

/// Which jobs a listing wants; what is empty or zero does not restrict it.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    pub org: String,
    pub repo: String,
    pub job_type: Option<JobType>,
    pub state: Option<JobState>,
    /// Author of one of its pull requests.
    pub author: String,
    /// The job's configured name.
    pub job: String,
    pub pull: u64,
    /// Only jobs created before this one: where the page before ended.
    pub before: Option<Seq>,
}

impl JobFilter {
    fn matches(&self, job: &Job) -> bool {
        let is = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        is(&self.org, &job.org)
            && is(&self.repo, &job.repo)
            && is(&self.job, &job.job)
            && self.job_type.is_none_or(|wanted| wanted == job.r#type())
            && self.state.is_none_or(|wanted| wanted == job.state())
            && (self.author.is_empty() || job.pulls.iter().any(|pull| pull.author == self.author))
            && (self.pull == 0 || job.pulls.iter().any(|pull| pull.number == self.pull))
            && self.before.is_none_or(|before| seq_of(job) < before)
    }
}

/// The job's place in the order of creation.
pub fn seq_of(job: &Job) -> Seq {
    Seq {
        revision: job.created_revision,
        ordinal: job.created_ordinal,
    }
}

impl Jobs {
    pub(crate) fn at(&self, seq: &Seq) -> Option<&Arc<Job>> {
        self.rows.get(seq)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn live_len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        self.rows.iter()
    }
}

impl State {
    pub fn job(&self, id: &str) -> Option<&Arc<Job>> {
        self.jobs.get(id)
    }

    /// Newest first. With org, repo and pull set it reads that pull request's jobs alone, else it walks all jobs.
    pub fn jobs_newest_first(&self, filter: JobFilter) -> impl Iterator<Item = &Arc<Job>> {
        let jobs = &self.jobs;
        let one_pull = !filter.org.is_empty() && !filter.repo.is_empty() && filter.pull != 0;
        let before = filter.before.unwrap_or(Seq::MAX);
        let found: Box<dyn Iterator<Item = &Arc<Job>>> = if one_pull {
            let pull = pull_key(&filter.org, &filter.repo, filter.pull);
            Box::new(jobs.of_pull.of(pull).rev().filter_map(|seq| jobs.at(seq)))
        } else {
            Box::new(jobs.rows.range(..=before).rev())
        };
        found.filter(move |job| filter.matches(job))
    }

    /// Incomplete jobs: by state, oldest first.
    pub fn live_jobs(&self) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        self.jobs.live.iter().filter_map(|seq| self.jobs.at(seq))
    }

    /// Incomplete jobs in this state, oldest first.
    pub fn live_jobs_in(&self, state: JobState) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        self.jobs
            .live
            .of(state.into())
            .filter_map(|seq| self.jobs.at(seq))
    }

    /// Aborted jobs whose agent has not yet confirmed: what is still to be killed.
    pub fn aborting_jobs(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.live_jobs_in(JobState::Aborted)
    }

    /// Jobs on a pull request, batches included, oldest first.
    pub fn jobs_of_pull(
        &self,
        org: &str,
        repo: &str,
        number: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        self.jobs
            .of_pull
            .of(pull_key(org, repo, number))
            .filter_map(|seq| self.jobs.at(seq))
    }

    /// Jobs on a pull request's head that report to this context, batches included, oldest first.
    pub fn jobs_of_head(
        &self,
        org: &str,
        repo: &str,
        number: u64,
        head_sha: &str,
        context: &str,
    ) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        let head = head_key(org, repo, number, head_sha, context);
        self.jobs
            .of_head
            .of(head)
            .filter_map(|seq| self.jobs.at(seq))
    }

    /// Pending jobs of this name: what `max_concurrency` counts.
    pub fn running_count(&self, job: &str) -> u32 {
        self.jobs.running.get(&id_hash(&[job]))
    }

    /// Jobs in this state, complete or not.
    pub fn state_count(&self, state: JobState) -> u32 {
        self.jobs.states.get(&i32::from(state))
    }

    /// (pending, triggered) jobs of a queue.
    pub fn queue_counts(&self, queue: &str) -> (u32, u32) {
        let queue = id_hash(&[queue]);
        (
            self.jobs.queue_running.get(&queue),
            self.jobs.queue_depth.get(&queue),
        )
    }

    /// Triggered jobs of this name, first come first.
    pub fn waiting_of_job(&self, job: &str) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs
            .waiting
            .of(id_hash(&[job]))
            .filter_map(|(_, seq)| self.jobs.at(seq))
    }

    /// Jobs that an agent holds, oldest first; aborted ones until it confirms.
    pub fn leases_of_agent(&self, agent_id: &str) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs
            .leases
            .of(id_hash(&[agent_id]))
            .filter_map(|seq| self.jobs.at(seq))
    }

    /// How many jobs an agent holds.
    pub fn lease_count(&self, agent_id: &str) -> u32 {
        self.jobs.leases_of.get(&id_hash(&[agent_id]))
    }

    /// Incomplete jobs whose deadline is not after `now_ms`.
    pub fn jobs_past_deadline(&self, now_ms: i64) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs
            .deadlines
            .range(..=(now_ms, Seq::MAX))
            .filter_map(|(_, seq)| self.jobs.at(seq))
    }

    /// The earliest deadline of an incomplete job.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.jobs.deadlines.get_min().map(|(due, _)| *due)
    }

    /// Complete jobs that ended before `before_ms`, longest ago first: for the sinker.
    pub fn jobs_finished_before(&self, before_ms: i64) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs
            .finished
            .range(..(before_ms, Seq::MIN))
            .filter_map(|(_, seq)| self.jobs.at(seq))
    }

    /// Whether `SweepJobs` would take this job: complete, and no reporter is still owed its result.
    pub fn is_sweepable(&self, job: &Job) -> bool {
        is_complete(job)
            && self
                .reports_of(&job.id)
                .all(|report| !crate::reports::is_owed(report))
    }
}
