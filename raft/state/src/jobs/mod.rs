//! Jobs: the records, their indexes and queries. What changes them is in [`create`] and [`lifecycle`].

pub(crate) mod create;
pub(crate) mod lifecycle;
mod query;

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use trireme_proto::state::{Job, JobState, JobType};

use crate::{
    digest::{IdHash, IdHasher, Sum, id_hash},
    table::{Groups, Name, Record, Seq, Table, Tally},
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

    const BULK: Option<fn(&mut Self) -> &mut Bytes> = Some(|job| &mut job.prowjob);
}

/// (org, repo, number)
type PullKey = (Name, Name, u64);
/// A pull request's head and a context on it.
type HeadKey = (PullKey, Name, Name);
/// Hash of what makes two jobs the same to a rule.
type Alike = IdHash;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Jobs {
    rows: Table<Job>,
    by_id: OrdMap<IdHash, Seq>,
    of_pull: Groups<PullKey, Seq>,
    of_head: Groups<HeadKey, Seq>,

    // The rest follows the job's phase.
    live: OrdSet<Seq>,
    in_state: Groups<i32, Seq>,
    states: Tally<i32>,
    /// Pending jobs by name, and by queue.
    running: Tally<Name>,
    queue_running: Tally<Name>,
    /// Triggered jobs by name, and by queue: first come, first served.
    waiting: Groups<Name, (i64, Seq)>,
    queue_waiting: Groups<Name, (i64, Seq)>,
    queue_depth: Tally<Name>,
    /// Incomplete or successful jobs, for `unless_exists`.
    twins: Groups<Alike, Seq>,
    /// Incomplete presubmits, for `supersede`.
    rivals: Groups<Alike, Seq>,
    leases: Groups<Name, Seq>,
    leases_of: Tally<Name>,
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

impl Jobs {
    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Job>> {
        self.rows.get(self.by_id.get(&id_hash(&[id]))?)
    }

    /// Returns the record as it is kept, and the one that it replaced.
    pub(crate) fn put(&mut self, digest: &mut Sum, job: Job) -> (Arc<Job>, Option<Arc<Job>>) {
        let seq = seq_of(&job);
        let (job, former) = self.rows.put_shared(digest, Arc::new(job));
        match &former {
            Some(former) if phase(former) == phase(&job) => {}
            Some(former) => {
                self.index_phase(former, seq, false);
                self.index_phase(&job, seq, true);
            }
            None => {
                self.by_id.insert(id_hash(&[&job.id]), seq);
                self.index_constant(&job, seq, true);
                self.index_phase(&job, seq, true);
            }
        }
        (job, former)
    }

    pub(crate) fn remove(&mut self, digest: &mut Sum, id: &str) -> Option<Arc<Job>> {
        let seq = self.by_id.remove(&id_hash(&[id]))?;
        let former = self.rows.remove(digest, &seq)?;
        self.index_constant(&former, seq, false);
        self.index_phase(&former, seq, false);
        Some(former)
    }

    fn index_constant(&mut self, job: &Job, seq: Seq, add: bool) {
        for pull in &job.pulls {
            let key: PullKey = (
                job.org.as_str().into(),
                job.repo.as_str().into(),
                pull.number,
            );
            let head: HeadKey = (
                key.clone(),
                pull.head_sha.as_str().into(),
                job.context.as_str().into(),
            );
            if add {
                self.of_pull.insert(key, seq);
                self.of_head.insert(head, seq);
            } else {
                self.of_pull.remove(key, seq);
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

        flip(&mut self.in_state, job.state, seq, add);
        count(&mut self.states, job.state, add);
        if let Some(lease) = &job.lease {
            let agent: Name = lease.agent_id.as_str().into();
            flip(&mut self.leases, agent.clone(), seq, add);
            count(&mut self.leases_of, agent, add);
        }
        let complete = is_complete(job);
        if complete {
            flip_set(&mut self.finished, (job.completed_ms, seq), add);
        } else {
            flip_set(&mut self.live, seq, add);
            if job.deadline_ms != 0 {
                flip_set(&mut self.deadlines, (job.deadline_ms, seq), add);
            }
            if job.r#type() == JobType::Presubmit && job.state() != JobState::Aborted {
                flip(&mut self.rivals, rivalry(job), seq, add);
            }
            let place = (job.created_ms, seq);
            let name: Name = job.job.as_str().into();
            let queue: Option<Name> = (!job.queue.is_empty()).then(|| job.queue.as_str().into());
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
                        flip(&mut self.queue_waiting, queue.clone(), place, add);
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
