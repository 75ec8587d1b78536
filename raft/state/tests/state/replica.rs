//! A replica that judges every entry it applies: a second one computes the same, a refusal changes nothing, the
//! changes replayed on a copy give the same records, indexes and digest follow from the records, jobs only move as
//! they may and finished ones stay.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use trireme_proto::state::{self as pb, command::Body, outcome, snapshot_row::Row};
use trireme_state::{
    Applied, ArchiveOp, Change, HISTORY_LEVEL, RecordKey, State, is_complete,
    limits::FIRST_JOB_EVENTS, state_name,
};

pub(crate) const START_MS: i64 = 1_800_000_000_000;
pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

pub(crate) type Answer = Result<pb::Done, (pb::Rejection, String)>;

#[derive(Default)]
pub(crate) struct Replica {
    pub(crate) state: State,
    pub(crate) now_ms: i64,
    pub(crate) archive: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) last: Applied,
    other: State,
    copy: BTreeMap<RecordKey, Change>,
    index: u64,
}

pub(crate) fn command(body: impl Into<Body>) -> pb::Command {
    pb::Command {
        principal: "node:1".into(),
        body: Some(body.into()),
        ..pb::Command::default()
    }
}

pub(crate) fn answer(outcome: &pb::Outcome) -> Answer {
    match outcome.result.clone() {
        Some(outcome::Result::Done(done)) => Ok(done),
        Some(outcome::Result::Rejected(refused)) => Err((refused.code(), refused.message)),
        None => panic!("an outcome without a result"),
    }
}

pub(crate) fn code(answer: Answer) -> pb::Rejection {
    answer.expect_err("was not refused").0
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            now_ms: START_MS,
            // So that the first entry is not number one.
            index: 10,
            ..Self::default()
        }
    }

    /// One entry with one command.
    pub(crate) fn run(&mut self, body: impl Into<Body>) -> Answer {
        self.run_command(command(body))
    }

    pub(crate) fn run_at(&mut self, epoch: u64, body: impl Into<Body>) -> Answer {
        self.run_command(pb::Command {
            epoch,
            ..command(body)
        })
    }

    pub(crate) fn run_command(&mut self, command: pb::Command) -> Answer {
        answer(&self.entry(vec![command])[0])
    }

    pub(crate) fn done(&mut self, body: impl Into<Body>) -> pb::Done {
        self.run(body).expect("was refused")
    }

    pub(crate) fn refused(&mut self, body: impl Into<Body>) -> pb::Rejection {
        code(self.run(body))
    }

    pub(crate) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Applies one entry, and checks what must hold of every entry.
    pub(crate) fn entry(&mut self, commands: Vec<pb::Command>) -> Vec<pb::Outcome> {
        self.index += 1;
        let batch = pb::Batch {
            stamp_ms: self.now_ms,
            commands,
        };
        let before = self.state.clone();
        let before_digest = before.digest();
        let applied = self.state.apply(self.index, batch.clone());

        assert_eq!(before.digest(), before_digest, "a view changed");
        assert_eq!(applied, self.other.apply(self.index, batch.clone()));
        assert_eq!(self.state.digest(), self.other.digest());
        if let Err(broken) = self.state.check_invariants() {
            panic!("{broken} after {batch:?}");
        }
        if applied
            .outcomes
            .iter()
            .all(|outcome| answer(outcome).is_err())
        {
            let mut untouched = before.clone();
            untouched.apply(
                self.index,
                pb::Batch {
                    commands: vec![],
                    ..batch
                },
            );
            assert_eq!(untouched, self.state, "a refusal changed something");
        }
        self.replay(&applied);
        judge_jobs(&before, &self.state);
        self.last = applied.clone();
        applied.outcomes
    }

    fn replay(&mut self, applied: &Applied) {
        let mut seen = BTreeSet::new();
        for change in &applied.changes {
            assert!(
                seen.insert(change.key()),
                "{:?} changed twice",
                change.key()
            );
            match change {
                Change::Removed(key) => {
                    self.copy.remove(key);
                }
                change => {
                    self.copy.insert(change.key(), change.clone());
                }
            }
        }
        let copied: BTreeSet<_> = self
            .copy
            .values()
            .map(|change| pb::Change::from(change).encode_to_vec())
            .collect();
        assert_eq!(copied, records(&self.state));
        for op in &applied.archive {
            match op {
                ArchiveOp::Put { key, value } => {
                    assert!(value.len() <= trireme_state::limits::MAX_ARCHIVE_VALUE);
                    self.archive.insert(key.to_vec(), value.to_vec());
                }
                ArchiveOp::Delete { key } => {
                    self.archive.remove(&key[..]);
                }
            }
        }
    }

    pub(crate) fn job(&self, id: &str) -> &pb::Job {
        self.state.job(id).expect("no such job")
    }

    pub(crate) fn fence(&self, id: &str) -> u64 {
        self.job(id).lease.as_ref().expect("not leased").fence
    }
}

/// All records, encoded.
pub(crate) fn records(state: &State) -> BTreeSet<Vec<u8>> {
    state
        .snapshot_rows()
        .filter_map(|row| match row.row {
            Some(Row::Record(change)) => Some(change.encode_to_vec()),
            _ => None,
        })
        .collect()
}

/// Only legal transitions, seen across a whole entry; a complete job keeps its result.
fn judge_jobs(before: &State, after: &State) {
    use pb::JobState::{Aborted, Failure, Pending, Scheduling, Success, Triggered};
    for former in before.jobs_newest_first(Default::default()) {
        let Some(job) = after.job(&former.id) else {
            assert!(is_complete(former), "an incomplete job was removed");
            continue;
        };
        judge_history(former, job, before.feature_level());
        if is_complete(former) {
            let told = pb::Job {
                version: former.version,
                prev_report_states: former.prev_report_states.clone(),
                ..(**job).clone()
            };
            assert_eq!(told, **former, "a complete job changed");
            continue;
        }
        let legal = match former.state() {
            Scheduling => !matches!(job.state(), Success | Failure),
            Triggered | Pending => job.state() != Scheduling,
            Aborted => job.state() == Aborted,
            _ => false,
        };
        assert!(
            legal,
            "{} became {}",
            state_name(former.state()),
            state_name(job.state())
        );
        assert!(job.retries_left <= former.retries_left);
        assert!(former.build_id.is_empty() || former.build_id == job.build_id);
    }
}

/// JOB-075: rows are added and never changed, one at least for every change of state from the level on that knows them.
fn judge_history(former: &pb::Job, job: &pb::Job, level: u32) {
    let dropped = (job.history_dropped - former.history_dropped) as usize;
    let (first, rest) = former
        .history
        .split_at(former.history.len().min(FIRST_JOB_EVENTS));
    let kept: Vec<_> = first.iter().chain(rest.iter().skip(dropped)).collect();
    let there: Vec<_> = job.history.iter().take(kept.len()).collect();
    assert_eq!(there, kept, "history was rewritten");
    let added = job.history.len() - kept.len();
    let lease = |job: &pb::Job| {
        job.lease
            .as_ref()
            .map(|lease| (lease.fence, lease.started_ms))
    };
    let moved = former.state != job.state || lease(former) != lease(job);
    assert!(
        added > 0 || !moved || level < HISTORY_LEVEL,
        "a change has no row"
    );
}

/// A presubmit on org/repo#`pull` at `head`.
pub(crate) fn presubmit(id: &str, job: &str, pull: u64, head: &str) -> pb::Job {
    pb::Job {
        id: id.into(),
        r#type: pb::JobType::Presubmit.into(),
        job: job.into(),
        agent: "kubernetes".into(),
        cluster: "default".into(),
        org: "org".into(),
        repo: "repo".into(),
        base_ref: "main".into(),
        base_sha: "base".into(),
        pulls: vec![pb::Pull {
            number: pull,
            author: "author".into(),
            head_sha: head.into(),
        }],
        context: format!("ci/{job}"),
        reporters: vec!["github-reporter".into()],
        prowjob: format!("{{\"spec\":{{\"job\":\"{job}\"}}}}").into(),
        ..pb::Job::default()
    }
}

pub(crate) fn periodic(id: &str, job: &str) -> pb::Job {
    pb::Job {
        id: id.into(),
        r#type: pb::JobType::Periodic.into(),
        job: job.into(),
        ..pb::Job::default()
    }
}

pub(crate) fn create(jobs: impl IntoIterator<Item = pb::Job>) -> Body {
    Body::CreateJobs(pb::CreateJobs {
        jobs: jobs
            .into_iter()
            .map(|job| pb::NewJob {
                job: Some(Box::new(job)),
                ..pb::NewJob::default()
            })
            .collect(),
        cursors: vec![],
    })
}

pub(crate) fn lease(id: &str, agent: &str, incarnation: u64) -> pb::LeaseJob {
    pb::LeaseJob {
        id: id.into(),
        agent_id: agent.into(),
        incarnation,
        ..pb::LeaseJob::default()
    }
}

pub(crate) fn register(agent: &str, capacity: u32) -> Body {
    Body::RegisterAgent(pb::RegisterAgent {
        agent: Some(pb::Agent {
            id: agent.into(),
            capacity,
            ..pb::Agent::default()
        }),
    })
}

pub(crate) fn start(id: &str, fence: u64) -> Body {
    Body::StartJob(pb::StartJob {
        id: id.into(),
        fence,
    })
}

pub(crate) fn finish(id: &str, fence: u64, state: pb::JobState) -> Body {
    Body::FinishJob(pb::FinishJob {
        id: id.into(),
        fence,
        state: state.into(),
        description: "Job done.".into(),
        url: String::new(),
    })
}

pub(crate) fn release(id: &str, fence: u64, unstarted: bool) -> Body {
    Body::ReleaseLease(pb::ReleaseLease {
        id: id.into(),
        fence,
        reason: "lease expired".into(),
        unstarted,
    })
}

pub(crate) fn abort(ids: &[&str]) -> Body {
    Body::AbortJobs(pb::AbortJobs {
        jobs: ids
            .iter()
            .map(|id| pb::AbortJob {
                id: (*id).into(),
                reason: "Aborted by trigger plugin.".into(),
            })
            .collect(),
    })
}

pub(crate) fn settle_report(job: &str, reporter: &str, state: pb::JobState) -> pb::SettleReport {
    pb::SettleReport {
        job_id: job.into(),
        reporter: reporter.into(),
        state: state.into(),
        ..pb::SettleReport::default()
    }
}

pub(crate) fn delivery(guid: &str) -> pb::Delivery {
    pb::Delivery {
        guid: guid.into(),
        event: "issue_comment".into(),
        action: "created".into(),
        org: "org".into(),
        repo: "repo".into(),
        number: 1,
        payload_zstd: vec![0x28, 0xb5, 0x2f, 0xfd].into(),
        ..pb::Delivery::default()
    }
}

pub(crate) fn accept(guid: &str) -> Body {
    Body::AcceptDelivery(pb::AcceptDelivery {
        delivery: Some(delivery(guid)),
    })
}

pub(crate) fn comment(body: &str) -> pb::Effect {
    pb::Effect {
        action: Some(pb::effect::Action::Comment(pb::CommentEffect {
            subject: None,
            body: body.into(),
            ..pb::CommentEffect::default()
        })),
        ..pb::Effect::default()
    }
}

pub(crate) fn plan(plugin: &str, effects: Vec<pb::Effect>) -> pb::PlanBody {
    pb::PlanBody {
        plugin: plugin.into(),
        effects,
        ..pb::PlanBody::default()
    }
}

pub(crate) fn commit(
    guid: &str,
    plugins: &[&str],
    plans: Vec<pb::PlanBody>,
    idle: &[&str],
) -> pb::CommitPlans {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    pb::CommitPlans {
        guid: guid.into(),
        config_version: 1,
        plugins: owned(plugins),
        plans,
        idle: owned(idle),
    }
}

pub(crate) fn settle_effect(
    guid: &str,
    plugin: &str,
    ordinal: u32,
    state: pb::EffectState,
) -> Body {
    Body::SettleEffect(pb::SettleEffect {
        guid: guid.into(),
        plugin: plugin.into(),
        ordinal,
        state: state.into(),
        ..pb::SettleEffect::default()
    })
}

pub(crate) fn start_effect(guid: &str, plugin: &str, ordinal: u32) -> Body {
    Body::StartEffect(pb::StartEffect {
        guid: guid.into(),
        plugin: plugin.into(),
        ordinal,
    })
}

pub(crate) fn pull_request(number: u64, head: &str, updated_ms: i64) -> pb::PullRequest {
    pb::PullRequest {
        org: "org".into(),
        repo: "repo".into(),
        number,
        open: true,
        base_ref: "main".into(),
        head_sha: head.into(),
        updated_ms,
        ..pb::PullRequest::default()
    }
}

pub(crate) fn put_pulls(pulls: impl IntoIterator<Item = pb::PullRequest>) -> Body {
    Body::PutPullRequests(pb::PutPullRequests {
        pull_requests: pulls.into_iter().collect(),
        contexts: vec![],
    })
}

pub(crate) fn intent(id: &str, number: u64, head: &str) -> pb::MergeIntent {
    pb::MergeIntent {
        id: id.into(),
        org: "org".into(),
        repo: "repo".into(),
        branch: "main".into(),
        number,
        head_sha: head.into(),
        ..pb::MergeIntent::default()
    }
}

pub(crate) fn open(intent: pb::MergeIntent) -> Body {
    Body::OpenIntent(pb::OpenIntent {
        intent: Some(intent),
    })
}

pub(crate) fn settle_intent(id: &str, state: pb::IntentState) -> Body {
    Body::SettleIntent(pb::SettleIntent {
        id: id.into(),
        state: state.into(),
        ..pb::SettleIntent::default()
    })
}

pub(crate) fn blob(name: u8, size: u64) -> pb::BlobRef {
    pb::BlobRef {
        sha256: vec![name; 32].into(),
        size,
    }
}

pub(crate) fn chunk(name: u8, index: u32, count: u32, data: &[u8]) -> Body {
    Body::PutBlobChunk(pb::PutBlobChunk {
        blob: Some(blob(name, 1000)),
        index,
        count,
        data: data.to_vec().into(),
    })
}

/// One job file whose blob has this name.
pub(crate) fn config(name: u8) -> pb::PutConfig {
    pb::PutConfig {
        config: Some(pb::ConfigVersion {
            files: vec![pb::ConfigFile {
                role: "main".into(),
                path: "config.yaml".into(),
                blob: Some(blob(name, 1000)),
            }],
            author: "operator".into(),
            ..pb::ConfigVersion::default()
        }),
        expected_current: 0,
    }
}

pub(crate) fn take_office(node_id: u64, term: u64) -> Body {
    Body::TakeOffice(pb::TakeOffice { node_id, term })
}
