//! Jobs that wait for an agent, sorted so that a look at them costs as much as is granted, however many wait.
//!
//! Kept by the scheduler from the changes of the state, and made anew from it whenever it lost track; the state itself
//! stays the judge of every grant.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use trireme_proto::state::{Job, JobState};
use trireme_prowjob::ProwJobAgent;
use trireme_state::{Seq, State, seq_of};

/// Jobs of which, when the oldest must wait for a limit, all must.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    name: String,
    queue: String,
    max_concurrency: u32,
}

impl Group {
    fn of(job: &Job) -> Self {
        Self {
            name: job.job.clone(),
            queue: job.queue.clone(),
            max_concurrency: job.max_concurrency,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Waiting {
    jobs: BTreeMap<Seq, Arc<Job>>,
    by_cluster: BTreeMap<String, BTreeMap<Group, BTreeSet<Seq>>>,
    by_name: BTreeMap<String, BTreeSet<Seq>>,
    by_queue: BTreeMap<String, BTreeSet<Seq>>,
}

/// EXE-033: agents stand in for Kubernetes.
fn waits(job: &Job) -> bool {
    job.state() == JobState::Triggered
        && job.completed_ms == 0
        && (job.agent.is_empty() || job.agent == ProwJobAgent::Kubernetes.as_str())
}

fn take<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<Seq>>, key: &K, seq: Seq) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&seq);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

impl Waiting {
    pub(crate) fn of(state: &State) -> Self {
        let mut waiting = Self::default();
        for job in state.live_jobs_in(JobState::Triggered) {
            waiting.update(job);
        }
        waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// What is now known of a job; the newest counts.
    pub(crate) fn update(&mut self, job: &Arc<Job>) {
        let seq = seq_of(job);
        if let Some(former) = self.jobs.remove(&seq) {
            if let Some(groups) = self.by_cluster.get_mut(&former.cluster) {
                take(groups, &Group::of(&former), seq);
                if groups.is_empty() {
                    self.by_cluster.remove(&former.cluster);
                }
            }
            take(&mut self.by_name, &former.job, seq);
            take(&mut self.by_queue, &former.queue, seq);
        }
        if !waits(job) {
            return;
        }
        let groups = self.by_cluster.entry(job.cluster.clone()).or_default();
        groups.entry(Group::of(job)).or_default().insert(seq);
        let name = self.by_name.entry(job.job.clone()).or_default();
        name.insert(seq);
        if !job.queue.is_empty() {
            let queue = self.by_queue.entry(job.queue.clone()).or_default();
            queue.insert(seq);
        }
        self.jobs.insert(seq, Arc::clone(job));
    }

    /// Clusters that jobs wait for.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &str> {
        self.by_cluster.keys().map(String::as_str)
    }

    /// Those that wait for a cluster, kind by kind.
    pub(crate) fn of_cluster(&self, cluster: &str) -> impl Iterator<Item = &Arc<Job>> {
        let groups = self.by_cluster.get(cluster).into_iter();
        let seqs = groups.flat_map(BTreeMap::values).flatten();
        seqs.filter_map(|seq| self.jobs.get(seq))
    }

    /// Queues that jobs wait in.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &str> {
        self.by_queue.keys().map(String::as_str)
    }

    /// Those that wait in a queue, oldest first.
    pub(crate) fn of_queue(&self, queue: &str) -> impl Iterator<Item = &Arc<Job>> {
        let seqs = self.by_queue.get(queue).into_iter().flatten();
        seqs.filter_map(|seq| self.jobs.get(seq))
    }

    /// Offers the jobs of these clusters, oldest first, until `offer` has had enough.
    ///
    /// A job is offered with how many of its name, and of its queue, came before it (EXE-041: one that still waits takes
    /// a place as one that runs does), counted no further than `limits` says it matters.
    pub(crate) fn offer<'c>(
        &self,
        clusters: impl Iterator<Item = &'c str>,
        limits: impl Fn(&Job) -> Limits,
        mut offer: impl FnMut(&Arc<Job>, Ahead) -> Answer,
    ) {
        let groups = clusters
            .filter_map(|cluster| self.by_cluster.get(cluster))
            .flat_map(BTreeMap::values);
        let mut heads: BinaryHeap<Reverse<(Seq, &BTreeSet<Seq>)>> = groups
            .filter_map(|group| Some(Reverse((*group.first()?, group))))
            .collect();
        while let Some(Reverse((seq, group))) = heads.pop() {
            let Some(job) = self.jobs.get(&seq) else {
                continue;
            };
            let limits = limits(job);
            let ahead = Ahead {
                of_name: before(self.by_name.get(&job.job), seq, limits.of_name),
                of_queue: before(self.by_queue.get(&job.queue), seq, limits.of_queue),
            };
            match offer(job, ahead) {
                Answer::Next => {}
                Answer::SkipGroup => continue,
                Answer::Enough => return,
            }
            let after = (std::ops::Bound::Excluded(seq), std::ops::Bound::Unbounded);
            if let Some(next) = group.range(after).next() {
                heads.push(Reverse((*next, group)));
            }
        }
    }
}

fn before(line: Option<&BTreeSet<Seq>>, seq: Seq, most: Option<u32>) -> u32 {
    let (Some(line), Some(most)) = (line, most) else {
        return 0;
    };
    let count = line.range(..seq).take(most as usize).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How many may run at once; None: any number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) of_name: Option<u32>,
    pub(crate) of_queue: Option<u32>,
}

/// Who came before a job and waits as it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) of_name: u32,
    pub(crate) of_queue: u32,
}

/// What becomes of a job that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was taken, or is left for reasons of its own.
    Next,
    /// A limit holds it up, and so all behind it that are of its kind.
    SkipGroup,
    /// No more are wanted.
    Enough,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(revision: u64, name: &str, cluster: &str) -> Arc<Job> {
        Arc::new(Job {
            id: revision.to_string(),
            job: name.to_owned(),
            cluster: cluster.to_owned(),
            state: JobState::Triggered.into(),
            created_revision: revision,
            ..Job::default()
        })
    }

    fn offered(waiting: &Waiting, clusters: &[&str], answer: impl Fn(&Job) -> Answer) -> Vec<u64> {
        let mut offered = Vec::new();
        let limits = |_: &Job| Limits {
            of_name: Some(2),
            of_queue: None,
        };
        waiting.offer(clusters.iter().copied(), limits, |job, _| {
            offered.push(job.created_revision);
            answer(job)
        });
        offered
    }

    #[test]
    fn the_oldest_of_all_wanted_clusters_comes_first() {
        let mut waiting = Waiting::default();
        for (revision, name, cluster) in [
            (5, "x", "a"),
            (1, "y", "b"),
            (3, "x", "a"),
            (2, "z", "a"),
            (4, "x", "c"),
        ] {
            waiting.update(&job(revision, name, cluster));
        }
        assert_eq!(
            offered(&waiting, &["a", "b"], |_| Answer::Next),
            [1, 2, 3, 5]
        );
        let stops = |job: &Job| match job.created_revision {
            2 => Answer::Enough,
            _ => Answer::Next,
        };
        assert_eq!(offered(&waiting, &["a", "b"], stops), [1, 2]);
        assert_eq!(offered(&waiting, &["nowhere"], |_| Answer::Next), [0; 0]);
    }

    /// Ten thousand that wait for the limit of their name cost one look.
    #[test]
    fn what_a_limit_holds_up_is_not_looked_at_one_by_one() {
        let mut waiting = Waiting::default();
        for revision in 0..10_000 {
            waiting.update(&job(revision, "x", "a"));
        }
        waiting.update(&job(10_000, "y", "a"));
        let limited = |job: &Job| match job.job.as_str() {
            "x" => Answer::SkipGroup,
            _ => Answer::Next,
        };
        assert_eq!(offered(&waiting, &["a"], limited), [0, 10_000]);
    }

    #[test]
    fn a_job_that_was_leased_waits_no_longer_and_one_given_back_does_again() {
        let mut waiting = Waiting::default();
        let first = job(1, "x", "a");
        waiting.update(&first);
        let mut leased = Job::clone(&first);
        leased.set_state(JobState::Pending);
        waiting.update(&Arc::new(leased));
        assert!(waiting.is_empty() && waiting.by_cluster.is_empty() && waiting.by_name.is_empty());
        waiting.update(&first);
        let mut elsewhere = Job::clone(&first);
        elsewhere.cluster = "b".to_owned();
        waiting.update(&Arc::new(elsewhere));
        assert_eq!(offered(&waiting, &["a"], |_| Answer::Next), [0; 0]);
        assert_eq!(offered(&waiting, &["b"], |_| Answer::Next), [1]);
    }
}
