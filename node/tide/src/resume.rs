//! A batch whose merging was interrupted is finished, not tested again: what was tested together is what the branch gets
//! when the rest follows on top of the members that are merged already. (Upstream forgets the batch and retests.)

use trireme_proto::state::{IntentState, JobType, MergeIntent};
use trireme_state::{JobFilter, State};

use crate::pool::{Pool, PoolKey};

/// Settled intents looked through, newest first.
const MAX_INTENTS: usize = 100;

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interrupted {
    /// Members to merge, in the batch's order.
    pub(crate) rest: Vec<u64>,
    pub(crate) batch: Vec<u64>,
}

/// The batch that the branch's tip is a part of, if all of its members that are not merged still stand as tested and
/// nothing else reached the branch since it began.
pub(crate) fn interrupted(state: &State, pool: &Pool) -> Option<Interrupted> {
    rest_of(state, &pool.key, &pool.base_sha, |number, head_sha| {
        pool.member(number)
            .is_some_and(|member| member.held.is_none() && member.pull.head_sha == head_sha)
    })
}

/// `stands`: whether a pull request is still in the pool with this head.
fn rest_of(
    state: &State,
    key: &PoolKey,
    tip: &str,
    stands: impl Fn(u64, &str) -> bool,
) -> Option<Interrupted> {
    let merged: Vec<&MergeIntent> = state
        .settled_intents_newest_first()
        .take(MAX_INTENTS)
        .map(AsRef::as_ref)
        .filter(|intent| {
            (&intent.org, &intent.repo, &intent.branch) == (&key.org, &key.repo, &key.branch)
                && matches!(intent.state(), IntentState::Merged | IntentState::Observed)
        })
        .collect();
    let batch = &merged.iter().find(|intent| intent.merge_sha == tip)?.batch;
    if batch.len() < 2 {
        return None;
    }
    // Back from the tip to the base that the batch was tested on.
    let (mut base, mut done) = (tip, Vec::new());
    while let Some(intent) = merged
        .iter()
        .find(|intent| intent.merge_sha == base && intent.batch == *batch)
    {
        if done.contains(&intent.number) {
            return None;
        }
        done.push(intent.number);
        base = &intent.base_sha;
    }
    let rest: Vec<u64> = batch
        .iter()
        .filter(|number| !done.contains(number))
        .copied()
        .collect();
    if rest.is_empty() {
        return None;
    }
    let tested = state
        .jobs_newest_first(JobFilter {
            org: key.org.clone(),
            repo: key.repo.clone(),
            job_type: Some(JobType::Batch),
            pull: *batch.first()?,
            ..JobFilter::default()
        })
        .find(|job| {
            job.base_sha == base
                && job
                    .pulls
                    .iter()
                    .map(|pull| pull.number)
                    .eq(batch.iter().copied())
        })?;
    let as_tested = |number: &u64| {
        let pull = tested.pulls.iter().find(|pull| pull.number == *number);
        pull.is_some_and(|pull| stands(*number, &pull.head_sha))
    };
    rest.iter().all(as_tested).then(|| Interrupted {
        rest: rest.clone(),
        batch: batch.clone(),
    })
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{
        Batch, Command, CreateJobs, Job, JobState, NewJob, OpenIntent, Pull, SettleIntent,
        TakeOffice, command::Body, outcome,
    };

    use super::*;

    struct Book(State);

    impl Book {
        fn apply(&mut self, epoch: u64, body: Body) {
            let index = self.0.last_index() + 1;
            let batch = Batch {
                stamp_ms: i64::try_from(index).unwrap() * 1000,
                commands: vec![Command {
                    min_level: 1,
                    principal: "test".to_owned(),
                    epoch,
                    body: Some(body),
                    ..Command::default()
                }],
            };
            for outcome in self.0.apply(index, batch).outcomes {
                assert!(
                    matches!(outcome.result, Some(outcome::Result::Done(_))),
                    "{outcome:?}"
                );
            }
        }

        fn merged(&mut self, number: u64, base: &str, tip: &str, batch: &[u64]) {
            let id = format!("{number}-{base}");
            self.apply(
                1,
                Body::OpenIntent(OpenIntent {
                    intent: Some(MergeIntent {
                        id: id.clone(),
                        org: "o".to_owned(),
                        repo: "r".to_owned(),
                        branch: "main".to_owned(),
                        number,
                        head_sha: format!("head{number}"),
                        base_sha: base.to_owned(),
                        method: "merge".to_owned(),
                        batch: batch.to_vec(),
                        ..MergeIntent::default()
                    }),
                }),
            );
            self.apply(
                1,
                Body::SettleIntent(SettleIntent {
                    id,
                    state: IntentState::Observed.into(),
                    merge_sha: tip.to_owned(),
                    ..SettleIntent::default()
                }),
            );
        }

        fn rest(&self, tip: &str, stands: impl Fn(u64, &str) -> bool) -> Option<Vec<u64>> {
            let key = PoolKey {
                org: "o".to_owned(),
                repo: "r".to_owned(),
                branch: "main".to_owned(),
            };
            rest_of(&self.0, &key, tip, stands).map(|interrupted| interrupted.rest)
        }
    }

    /// #2, #3 and #4 were tested together on `base`.
    fn tested() -> Book {
        let mut book = Book(State::new());
        book.apply(
            0,
            Body::TakeOffice(TakeOffice {
                node_id: 1,
                term: 1,
            }),
        );
        let pull = |number: u64| Pull {
            number,
            author: "a".to_owned(),
            head_sha: format!("head{number}"),
        };
        let job = Job {
            id: "3e2bd4d2-6a5c-4b3c-9d4a-3a35b0d7d6a1".to_owned(),
            job: "unit".to_owned(),
            r#type: JobType::Batch.into(),
            agent: "kubernetes".to_owned(),
            cluster: "default".to_owned(),
            org: "o".to_owned(),
            repo: "r".to_owned(),
            base_ref: "main".to_owned(),
            base_sha: "base".to_owned(),
            pulls: vec![pull(2), pull(3), pull(4)],
            state: JobState::Triggered.into(),
            prowjob: b"{}".to_vec().into(),
            ..Job::default()
        };
        book.apply(
            1,
            Body::CreateJobs(CreateJobs {
                jobs: vec![NewJob {
                    job: Some(Box::new(job)),
                    ..NewJob::default()
                }],
                cursors: Vec::new(),
            }),
        );
        book
    }

    fn as_tested(number: u64, head: &str) -> bool {
        head == format!("head{number}")
    }

    /// TIDE-158: the batch goes on where it stopped.
    #[test]
    fn the_rest_of_a_batch_follows_its_merged_members() {
        let mut book = tested();
        assert_eq!(book.rest("base", as_tested), None, "nothing is merged yet");
        book.merged(2, "base", "tip2", &[2, 3, 4]);
        assert_eq!(book.rest("tip2", as_tested), Some(vec![3, 4]));
        book.merged(3, "tip2", "tip3", &[2, 3, 4]);
        assert_eq!(book.rest("tip3", as_tested), Some(vec![4]));
        book.merged(4, "tip3", "tip4", &[2, 3, 4]);
        assert_eq!(book.rest("tip4", as_tested), None, "it is done");
    }

    #[test]
    fn a_batch_is_over_when_something_else_changed() {
        let mut book = tested();
        book.merged(2, "base", "tip2", &[2, 3, 4]);
        assert_eq!(
            book.rest("pushed", as_tested),
            None,
            "somebody pushed to the branch"
        );
        assert_eq!(
            book.rest("tip2", |number, _| number != 4),
            None,
            "#4 has a new head or left the pool"
        );
        let mut book = tested();
        book.merged(2, "elsewhere", "tip2", &[2, 3, 4]);
        assert_eq!(
            book.rest("tip2", as_tested),
            None,
            "the batch was tested on another base"
        );
        let mut book = tested();
        book.merged(2, "base", "tip2", &[]);
        assert_eq!(book.rest("tip2", as_tested), None, "it was no batch");
    }
}
