//! `apply`: one log entry into the state. A flat match from command to one small function per kind, which checks
//! everything before it changes anything.

use bytes::Bytes;
use trireme_proto::state::{self as pb, command::Body};

use crate::{
    State, agents, alarms, audits, blobs, change,
    change::Change,
    config_pages, configs, cursors, deliveries, effects, intents,
    jobs::{create, lifecycle},
    level::min_level_of,
    office, plans, pools, pulls,
    reject::{Verdict, conflict, invalid, not_in_office},
    reports, timers, tokens,
};

/// What one entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One per command, in order.
    pub outcomes: Vec<pb::Outcome>,
    /// One per record that changed: its last value, or that it left.
    pub changes: Vec<Change>,
    /// Idempotent, to be performed in order.
    pub archive: Vec<ArchiveOp>,
}

/// A write to the archive. Keys are made and read in [`crate::archive_keys`]; values have at most
/// [`crate::limits::MAX_ARCHIVE_VALUE`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveOp {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
}

/// One entry while it is applied.
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) stamp_ms: i64,
    /// Office in whose name the present command speaks.
    pub(crate) epoch: u64,
    /// Who asks for the present command.
    pub(crate) principal: String,
    /// Place of the present command in the entry.
    pub(crate) position: u32,
    jobs: u32,
    changes: Vec<Change>,
    archive: Vec<ArchiveOp>,
}

impl Entry {
    fn new(index: u64, stamp_ms: i64) -> Self {
        Self {
            index,
            stamp_ms,
            epoch: 0,
            principal: String::new(),
            position: 0,
            jobs: 0,
            changes: Vec::new(),
            archive: Vec::new(),
        }
    }

    pub(crate) fn changed(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(crate) fn archive_put(&mut self, key: Bytes, value: Bytes) {
        self.archive.push(ArchiveOp::Put { key, value });
    }

    /// The place of the next new job in this entry.
    pub(crate) fn next_job(&mut self) -> u32 {
        let ordinal = self.jobs;
        self.jobs = self.jobs.saturating_add(1);
        ordinal
    }
}

impl State {
    /// Applies one log entry. Total: a bad command gets a rejected outcome and changes nothing. Entries come in log
    /// order; one that was applied before is rejected as a whole.
    pub fn apply(&mut self, index: u64, batch: pb::Batch) -> Applied {
        if index <= self.last_index {
            let refused = invalid(format!("entry {index} is not after {}", self.last_index));
            let outcomes = batch
                .commands
                .iter()
                .map(|_| rejection(refused.clone()))
                .collect();
            return Applied {
                outcomes,
                ..Applied::default()
            };
        }
        self.last_index = index;
        self.last_stamp_ms = self.last_stamp_ms.max(batch.stamp_ms);
        let mut entry = Entry::new(index, self.last_stamp_ms);
        self.forget_expired(&mut entry);
        let mut outcomes = Vec::with_capacity(batch.commands.len());
        for (position, command) in batch.commands.into_iter().enumerate() {
            entry.position = u32::try_from(position).unwrap_or(u32::MAX);
            entry.epoch = command.epoch;
            entry.principal.clone_from(&command.principal);
            outcomes.push(self.apply_command(&mut entry, command));
        }
        Applied {
            outcomes,
            changes: change::coalesce(entry.changes),
            archive: entry.archive,
        }
    }

    /// An entry without commands: a membership change, or a leader's first.
    pub fn apply_blank(&mut self, index: u64) {
        self.last_index = self.last_index.max(index);
    }

    /// What only time removes; a bounded number of rows per entry.
    fn forget_expired(&mut self, entry: &mut Entry) {
        self.forget_requests(entry.stamp_ms);
        self.forget_deliveries(entry.stamp_ms);
        self.forget_closed_pulls(entry);
        self.forget_intents(entry);
        self.forget_agents(entry);
        self.forget_tokens(entry);
    }

    fn apply_command(&mut self, entry: &mut Entry, mut command: pb::Command) -> pb::Outcome {
        if let Err(refused) = self.admit(&command) {
            return rejection(refused);
        }
        if let Some(answer) = self.remembered_answer(&command) {
            return answer;
        }
        match self.dispatch(entry, command.body.take()) {
            Ok(done) => {
                let outcome = pb::Outcome {
                    result: Some(pb::outcome::Result::Done(done)),
                };
                self.remember(entry, command, &outcome);
                outcome
            }
            Err(refused) => rejection(refused),
        }
    }

    fn admit(&self, command: &pb::Command) -> Verdict<()> {
        let level = min_level_of(command);
        if level > self.feature_level() {
            return Err(conflict(format!(
                "needs feature level {level}, the cluster is at {}",
                self.feature_level()
            )));
        }
        let present = self.office().epoch;
        if command.epoch != 0 && command.epoch != present {
            return Err(not_in_office(format!(
                "office {} has ended, {present} is present",
                command.epoch
            )));
        }
        self.check_request_id(&command.request_id)
    }

    fn dispatch(&mut self, entry: &mut Entry, body: Option<Body>) -> Verdict {
        let Some(body) = body else {
            return Err(invalid(
                "no command, or one that this version does not know",
            ));
        };
        self.check_quotas(&body)?;
        match body {
            Body::PutBlobChunk(body) => blobs::put_chunk(self, entry, &body),
            Body::SweepBlobs(body) => blobs::sweep(self, entry, &body),
            Body::AcceptDelivery(body) => deliveries::accept(self, entry, &body),
            Body::SweepDeliveries(body) => deliveries::sweep(self, entry, &body),
            Body::CommitPlans(body) => plans::commit(self, entry, &body),
            Body::SettlePlan(body) => plans::settle(self, entry, &body),
            Body::StartEffect(body) => effects::start(self, entry, &body),
            Body::SettleEffect(body) => effects::settle(self, entry, &body),
            Body::CreateJobs(body) => create::create_jobs(self, entry, body),
            Body::TriggerJob(body) => lifecycle::trigger_job(self, entry, &body),
            Body::LeaseJob(body) => lifecycle::lease_job(self, entry, &body),
            Body::StartJob(body) => lifecycle::start_job(self, entry, &body),
            Body::FinishJob(body) => lifecycle::finish_job(self, entry, &body),
            Body::ReleaseLease(body) => lifecycle::release_lease(self, entry, &body),
            Body::AbortJobs(body) => lifecycle::abort_jobs(self, entry, &body),
            Body::SetJobUrl(body) => lifecycle::set_job_url(self, entry, &body),
            Body::SweepJobs(body) => lifecycle::sweep_jobs(self, entry, &body),
            Body::SettleReport(body) => reports::settle_report(self, entry, &body),
            Body::PutPullRequests(body) => pulls::put(self, entry, &body),
            Body::PutPool(body) => pools::put(self, entry, &body),
            Body::OpenIntent(body) => intents::open(self, entry, &body),
            Body::SettleIntent(body) => intents::settle(self, entry, &body),
            Body::PutConfig(body) => configs::put(self, entry, &body),
            Body::PutConfigPage(body) => config_pages::put(self, entry, body),
            Body::TakeOffice(body) => office::take(self, entry, &body),
            Body::RaiseFeatureLevel(body) => office::raise_level(self, entry, body),
            Body::RegisterAgent(body) => agents::register(self, entry, &body),
            Body::SetAgent(body) => agents::set(self, entry, &body),
            Body::PutCursor(body) => cursors::put(self, entry, &body),
            Body::PutTimer(body) => timers::put(self, entry, &body),
            Body::DropTimer(body) => timers::drop(self, entry, &body),
            Body::SetAlarm(body) => alarms::set(self, entry, &body),
            Body::BeginAudit(body) => audits::begin(self, entry, &body),
            Body::ReportDigest(body) => audits::report(self, entry, &body),
            Body::PutToken(body) => tokens::put(self, entry, &body),
            Body::RevokeToken(body) => tokens::revoke(self, entry, &body),
            // One command for three kinds of dead letter: a report has a job, a plan or effect a delivery.
            Body::Redrive(body) if !body.job_id.is_empty() => {
                reports::redrive_report(self, entry, &body)
            }
            Body::Redrive(body) => effects::redrive(self, entry, &body),
        }
    }
}

fn rejection(refused: pb::Rejected) -> pb::Outcome {
    pb::Outcome {
        result: Some(pb::outcome::Result::Rejected(refused)),
    }
}
