//! Jobs: the records, their indexes and queries. What changes them is in [`create`] and [`lifecycle`], what
//! is remembered of that in [`history`].

pub(crate) mod create;
mod history;
pub(crate) mod lifecycle;
mod query;

use std::sync::Arc;

use imbl::OrdSet;
use trireme_proto::state::{Job, JobState, JobType};

use crate::{
    digest::{IdHash, IdHasher, Sum, id_hash},
    id_index::IdIndex,
    table::{Bulk, Groups, Record, Seq, Table, Tally},
};

pub use lifecycle::{BUILD_ID_MARK, state_name};
pub use query::{JobFilter, seq_of};

/// Name of Prow's GitHub reporter, which is not told of runs that a newer one replaced (EXE-066).
pub const GITHUB_REPORTER: &str = "github-reporter";

impl Record for Job {
    const KIND: u8 = 1;
    type Key = Seq;

    fn key(&self) -> Seq {
        seq_of(self)
    }

    const BULK: Option<Bulk<Self>> = Some(Bulk {
        read: |job| &job.prowjob,
        write: |job| &mut job.prowjob,
    });
}

/// Hash of what makes two jobs the same to a rule.
type Alike = IdHash;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Jobs {
    rows: Table<Job>,
    by_id: IdIndex,
    /// By [`pull_key`].
    of_pull: Groups<IdHash, Seq>,
    /// By [`head_key`].
    of_head: Groups<IdHash, Seq>,

    // The rest follows the job's phase.
    /// Incomplete jobs by state.
    live: Groups<i32, Seq>,
    states: Tally<i32>,
    /// Pending jobs by name, and by queue.
    running: Tally<IdHash>,
    queue_running: Tally<IdHash>,
    /// Triggered jobs by name, and by queue: first come, first served.
    waiting: Groups<IdHash, (i64, Seq)>,
    queue_waiting: Groups<IdHash, (i64, Seq)>,
    queue_depth: Tally<IdHash>,
    /// Incomplete or successful jobs, for `unless_exists`.
    twins: Groups<Alike, Seq>,
    /// Incomplete presubmits, for `supersede`.
    rivals: Groups<Alike, Seq>,
    /// Leased jobs by agent.
    leases: Groups<IdHash, Seq>,
    leases_of: Tally<IdHash>,
    /// Incomplete jobs by deadline.
    deadlines: OrdSet<(i64, Seq)>,
    /// Complete jobs by completion.
    finished: OrdSet<(i64, Seq)>,
}

/// What of a job its moving indexes see.
#[derive(PartialEq)]
struct Phase<'a> {
    state: i32,
    completed_ms: i64,
    agent: Option<&'a str>,
}

fn phase(job: &Job) -> Phase<'_> {
    Phase {
        state: job.state,
        completed_ms: job.completed_ms,
        agent: job.lease.as_ref().map(|lease| lease.agent_id.as_str()),
    }
}

/// Complete when its completion is set, whatever the state says (EXE-001).
pub fn is_complete(job: &Job) -> bool {
    job.completed_ms != 0
}

/// Whether nothing follows this state.
pub(crate) const fn is_terminal(state: JobState) -> bool {
    matches!(
        state,
        JobState::Success | JobState::Failure | JobState::Aborted | JobState::Error
    )
}

impl Jobs {
    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Job>> {
        self.rows.get(&self.by_id.get(id_hash(&[id]))?)
    }

    pub(crate) fn has(&self, id: IdHash) -> bool {
        self.by_id.get(id).is_some()
    }

    /// Replaces the record of a job that is there; returns it as it is kept.
    pub(crate) fn put(&mut self, digest: &mut Sum, job: Job) -> Arc<Job> {
        let seq = seq_of(&job);
        let (job, former) = self.rows.put_shared(digest, Arc::new(job));
        debug_assert!(former.is_some(), "a new job is added");
        if let Some(former) = &former
            && phase(former) != phase(&job)
        {
            self.index_phase(former, seq, false);
            self.index_phase(&job, seq, true);
        }
        job
    }

    /// Adds a job whose id, of which the hash is `id`, and place are new; returns it as it is kept.
    pub(crate) fn add(&mut self, digest: &mut Sum, job: Job, id: IdHash) -> Arc<Job> {
        let seq = seq_of(&job);
        let job = self.rows.add(digest, Arc::new(job));
        self.by_id.insert(id, seq);
        self.index_constant(&job, seq, true);
        self.index_phase(&job, seq, true);
        job
    }

    pub(crate) fn remove(&mut self, digest: &mut Sum, id: &str) -> Option<Arc<Job>> {
        let seq = self.by_id.remove(id_hash(&[id]))?;
        let former = self.rows.remove(digest, &seq)?;
        self.index_constant(&former, seq, false);
        self.index_phase(&former, seq, false);
        Some(former)
    }

    fn index_constant(&mut self, job: &Job, seq: Seq, add: bool) {
        for pull in &job.pulls {
            let on = pull_key(&job.org, &job.repo, pull.number);
            let head = head_key(
                &job.org,
                &job.repo,
                pull.number,
                &pull.head_sha,
                &job.context,
            );
            if add {
                self.of_pull.insert(on, seq);
                self.of_head.insert(head, seq);
            } else {
                self.of_pull.remove(on, seq);
                self.of_head.remove(head, seq);
            }
        }
    }

    fn index_phase(&mut self, job: &Job, seq: Seq, add: bool) {
        fn flip<G, M>(groups: &mut Groups<G, M>, group: G, member: M, add: bool)
        where
            G: Ord + Clone,
            M: Ord + Clone + crate::table::Ends,
        {
            if add {
                groups.insert(group, member);
            } else {
                groups.remove(group, member);
            }
        }
        fn flip_set<M: Ord + Clone>(set: &mut OrdSet<M>, member: M, add: bool) {
            if add {
                set.insert(member);
            } else {
                set.remove(&member);
            }
        }
        fn count<K: Ord + Clone>(tally: &mut Tally<K>, key: K, add: bool) {
            if add {
                tally.up(key);
            } else {
                tally.down(&key);
            }
        }

        count(&mut self.states, job.state, add);
        if let Some(lease) = &job.lease {
            let agent = id_hash(&[&lease.agent_id]);
            flip(&mut self.leases, agent, seq, add);
            count(&mut self.leases_of, agent, add);
        }
        let complete = is_complete(job);
        if complete {
            flip_set(&mut self.finished, (job.completed_ms, seq), add);
        } else {
            flip(&mut self.live, job.state, seq, add);
            if job.deadline_ms != 0 {
                flip_set(&mut self.deadlines, (job.deadline_ms, seq), add);
            }
            if job.r#type() == JobType::Presubmit && job.state() != JobState::Aborted {
                flip(&mut self.rivals, rivalry(job), seq, add);
            }
            let place = (job.created_ms, seq);
            let name = id_hash(&[&job.job]);
            let queue = (!job.queue.is_empty()).then(|| id_hash(&[&job.queue]));
            match job.state() {
                JobState::Pending => {
                    count(&mut self.running, name, add);
                    if let Some(queue) = queue {
                        count(&mut self.queue_running, queue, add);
                    }
                }
                JobState::Triggered => {
                    flip(&mut self.waiting, name, place, add);
                    if let Some(queue) = queue {
                        flip(&mut self.queue_waiting, queue, place, add);
                        count(&mut self.queue_depth, queue, add);
                    }
                }
                _ => {}
            }
        }
        // An aborted run is no reason not to start another, even while its workload is still being killed.
        let counts = if complete {
            job.state() == JobState::Success
        } else {
            job.state() != JobState::Aborted
        };
        if counts {
            flip(&mut self.twins, twinship(job), seq, add);
        }
    }
}

/// A pull request's jobs.
fn pull_key(org: &str, repo: &str, number: u64) -> IdHash {
    let mut hasher = IdHasher::default();
    hasher.text(org);
    hasher.text(repo);
    hasher.number(number);
    hasher.finish()
}

/// Jobs on a pull request's head that report to one context.
fn head_key(org: &str, repo: &str, number: u64, head_sha: &str, context: &str) -> IdHash {
    let mut hasher = IdHasher::default();
    for text in [org, repo, head_sha, context] {
        hasher.text(text);
    }
    hasher.number(number);
    hasher.finish()
}

/// Jobs with the same value do the same work: (type, org, repo, base ref, pulls with heads, context or name), and the
/// base's sha where the base is what is tested.
fn twinship(job: &Job) -> Alike {
    let (of, work) = match job.context.as_str() {
        "" => ("job", &job.job),
        _ => ("context", &job.context),
    };
    let (base_sha, name) = match job.r#type() {
        JobType::Presubmit => ("", ""),
        _ => (job.base_sha.as_str(), job.job.as_str()),
    };
    let mut pulls: Vec<(u64, &str)> = job
        .pulls
        .iter()
        .map(|pull| (pull.number, pull.head_sha.as_str()))
        .collect();
    pulls.sort_unstable();
    let mut hasher = IdHasher::default();
    hasher.number(job.r#type.unsigned_abs().into());
    for text in [&job.org, &job.repo, &job.base_ref, of, work, base_sha, name] {
        hasher.text(text);
    }
    for (number, sha) in pulls {
        hasher.number(number);
        hasher.text(sha);
    }
    hasher.finish()
}

/// Presubmits with the same value replace each other (EXE-060): shas do not count, the order of pulls does not either.
fn rivalry(job: &Job) -> Alike {
    let mut numbers: Vec<u64> = job.pulls.iter().map(|pull| pull.number).collect();
    numbers.sort_unstable();
    let mut hasher = IdHasher::default();
    for text in [&job.job, &job.org, &job.repo, &job.base_ref] {
        hasher.text(text);
    }
    for number in numbers {
        hasher.number(number);
    }
    hasher.finish()
}
