//! What one entry changed, and the keys of what left the state.

use std::{collections::BTreeSet, sync::Arc};

use trireme_proto::state as pb;

/// A record's new value, or the key of a record that left the state: also of one that came and went within the entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Job(Arc<pb::Job>),
    PullRequest(Arc<pb::PullRequest>),
    Pool(Arc<pb::MergePool>),
    Intent(Arc<pb::MergeIntent>),
    Delivery(Arc<pb::Delivery>),
    Plan(Arc<pb::Plan>),
    Report(Arc<pb::Report>),
    Config(Arc<pb::ConfigVersion>),
    Agent(Arc<pb::Agent>),
    Office(Arc<pb::Office>),
    Timer(Arc<pb::Timer>),
    Cursor(Arc<pb::Cursor>),
    Alarm(Arc<pb::Alarm>),
    Audit(Arc<pb::Audit>),
    Token(Arc<pb::ApiToken>),
    FeatureLevel(u32),
    Removed(RecordKey),
}

/// Names one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    Job {
        id: String,
    },
    PullRequest {
        org: String,
        repo: String,
        number: u64,
    },
    Pool {
        org: String,
        repo: String,
        branch: String,
    },
    Intent {
        id: String,
    },
    Delivery {
        guid: String,
    },
    Plan {
        guid: String,
        plugin: String,
    },
    Report {
        job_id: String,
        reporter: String,
    },
    Config {
        number: u64,
    },
    Agent {
        id: String,
    },
    Office,
    Timer {
        key: String,
    },
    Cursor {
        key: String,
    },
    Alarm {
        key: String,
    },
    Audit {
        index: u64,
    },
    Token {
        id: String,
    },
    FeatureLevel,
}

impl Change {
    pub fn key(&self) -> RecordKey {
        Named::from(self).into()
    }
}

/// Keeps the last change of each record: what a record was within an entry is nobody's business.
pub(crate) fn coalesce(mut changes: Vec<Change>) -> Vec<Change> {
    if changes.len() < 2 {
        return changes;
    }
    let mut seen = BTreeSet::new();
    // From the last to the first.
    let mut stays: Vec<bool> = changes
        .iter()
        .rev()
        .map(|change| seen.insert(Named::from(change)))
        .collect();
    if stays.iter().any(|stays| !stays) {
        changes.retain(|_| stays.pop().unwrap_or(true));
    }
    changes
}

/// A [`RecordKey`] that borrows: an entry with hundreds of new jobs names each.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Named<'a> {
    Job(&'a str),
    PullRequest(&'a str, &'a str, u64),
    Pool(&'a str, &'a str, &'a str),
    Intent(&'a str),
    Delivery(&'a str),
    Plan(&'a str, &'a str),
    Report(&'a str, &'a str),
    Config(u64),
    Agent(&'a str),
    Office,
    Timer(&'a str),
    Cursor(&'a str),
    Alarm(&'a str),
    Audit(u64),
    Token(&'a str),
    FeatureLevel,
}

impl<'a> From<&'a Change> for Named<'a> {
    fn from(change: &'a Change) -> Self {
        match change {
            Change::Job(job) => Self::Job(&job.id),
            Change::PullRequest(pr) => Self::PullRequest(&pr.org, &pr.repo, pr.number),
            Change::Pool(pool) => Self::Pool(&pool.org, &pool.repo, &pool.branch),
            Change::Intent(intent) => Self::Intent(&intent.id),
            Change::Delivery(delivery) => Self::Delivery(&delivery.guid),
            Change::Plan(plan) => Self::Plan(&plan.guid, &plan.plugin),
            Change::Report(report) => Self::Report(&report.job_id, &report.reporter),
            Change::Config(config) => Self::Config(config.number),
            Change::Agent(agent) => Self::Agent(&agent.id),
            Change::Office(_) => Self::Office,
            Change::Timer(timer) => Self::Timer(&timer.key),
            Change::Cursor(cursor) => Self::Cursor(&cursor.key),
            Change::Alarm(alarm) => Self::Alarm(&alarm.key),
            Change::Audit(audit) => Self::Audit(audit.index),
            Change::Token(token) => Self::Token(&token.id),
            Change::FeatureLevel(_) => Self::FeatureLevel,
            Change::Removed(key) => Self::from(key),
        }
    }
}

impl<'a> From<&'a RecordKey> for Named<'a> {
    fn from(key: &'a RecordKey) -> Self {
        match key {
            RecordKey::Job { id } => Self::Job(id),
            RecordKey::PullRequest { org, repo, number } => Self::PullRequest(org, repo, *number),
            RecordKey::Pool { org, repo, branch } => Self::Pool(org, repo, branch),
            RecordKey::Intent { id } => Self::Intent(id),
            RecordKey::Delivery { guid } => Self::Delivery(guid),
            RecordKey::Plan { guid, plugin } => Self::Plan(guid, plugin),
            RecordKey::Report { job_id, reporter } => Self::Report(job_id, reporter),
            RecordKey::Config { number } => Self::Config(*number),
            RecordKey::Agent { id } => Self::Agent(id),
            RecordKey::Office => Self::Office,
            RecordKey::Timer { key } => Self::Timer(key),
            RecordKey::Cursor { key } => Self::Cursor(key),
            RecordKey::Alarm { key } => Self::Alarm(key),
            RecordKey::Audit { index } => Self::Audit(*index),
            RecordKey::Token { id } => Self::Token(id),
            RecordKey::FeatureLevel => Self::FeatureLevel,
        }
    }
}

impl From<Named<'_>> for RecordKey {
    fn from(named: Named<'_>) -> Self {
        let own = str::to_owned;
        match named {
            Named::Job(id) => Self::Job { id: own(id) },
            Named::PullRequest(org, repo, number) => Self::PullRequest {
                org: own(org),
                repo: own(repo),
                number,
            },
            Named::Pool(org, repo, branch) => Self::Pool {
                org: own(org),
                repo: own(repo),
                branch: own(branch),
            },
            Named::Intent(id) => Self::Intent { id: own(id) },
            Named::Delivery(guid) => Self::Delivery { guid: own(guid) },
            Named::Plan(guid, plugin) => Self::Plan {
                guid: own(guid),
                plugin: own(plugin),
            },
            Named::Report(job_id, reporter) => Self::Report {
                job_id: own(job_id),
                reporter: own(reporter),
            },
            Named::Config(number) => Self::Config { number },
            Named::Agent(id) => Self::Agent { id: own(id) },
            Named::Office => Self::Office,
            Named::Timer(key) => Self::Timer { key: own(key) },
            Named::Cursor(key) => Self::Cursor { key: own(key) },
            Named::Alarm(key) => Self::Alarm { key: own(key) },
            Named::Audit(index) => Self::Audit { index },
            Named::Token(id) => Self::Token { id: own(id) },
            Named::FeatureLevel => Self::FeatureLevel,
        }
    }
}

impl From<&Change> for pb::Change {
    fn from(change: &Change) -> Self {
        use pb::change::Record;
        let record = match change {
            Change::Job(job) => Record::Job((**job).clone()),
            Change::PullRequest(pr) => Record::PullRequest((**pr).clone()),
            Change::Pool(pool) => Record::Pool((**pool).clone()),
            Change::Intent(intent) => Record::Intent((**intent).clone()),
            Change::Delivery(delivery) => Record::Delivery((**delivery).clone()),
            Change::Plan(plan) => Record::Plan((**plan).clone()),
            Change::Report(report) => Record::Report((**report).clone()),
            Change::Config(config) => Record::Config((**config).clone()),
            Change::Agent(agent) => Record::Agent((**agent).clone()),
            Change::Office(office) => Record::Office(**office),
            Change::Timer(timer) => Record::Timer((**timer).clone()),
            Change::Cursor(cursor) => Record::Cursor((**cursor).clone()),
            Change::Alarm(alarm) => Record::Alarm((**alarm).clone()),
            Change::Audit(audit) => Record::Audit((**audit).clone()),
            Change::Token(token) => Record::Token((**token).clone()),
            Change::FeatureLevel(level) => Record::FeatureLevel(pb::FeatureLevel { level: *level }),
            Change::Removed(key) => {
                return Self {
                    record: Some(key.clone().into()),
                    removed: true,
                };
            }
        };
        Self {
            record: Some(record),
            removed: false,
        }
    }
}

impl From<RecordKey> for pb::change::Record {
    fn from(key: RecordKey) -> Self {
        match key {
            RecordKey::Job { id } => Self::Job(pb::Job {
                id,
                ..Default::default()
            }),
            RecordKey::PullRequest { org, repo, number } => Self::PullRequest(pb::PullRequest {
                org,
                repo,
                number,
                ..Default::default()
            }),
            RecordKey::Pool { org, repo, branch } => Self::Pool(pb::MergePool {
                org,
                repo,
                branch,
                ..Default::default()
            }),
            RecordKey::Intent { id } => Self::Intent(pb::MergeIntent {
                id,
                ..Default::default()
            }),
            RecordKey::Delivery { guid } => Self::Delivery(pb::Delivery {
                guid,
                ..Default::default()
            }),
            RecordKey::Plan { guid, plugin } => Self::Plan(pb::Plan {
                guid,
                plugin,
                ..Default::default()
            }),
            RecordKey::Report { job_id, reporter } => Self::Report(pb::Report {
                job_id,
                reporter,
                ..Default::default()
            }),
            RecordKey::Config { number } => Self::Config(pb::ConfigVersion {
                number,
                ..Default::default()
            }),
            RecordKey::Agent { id } => Self::Agent(pb::Agent {
                id,
                ..Default::default()
            }),
            RecordKey::Office => Self::Office(pb::Office::default()),
            RecordKey::Timer { key } => Self::Timer(pb::Timer {
                key,
                ..Default::default()
            }),
            RecordKey::Cursor { key } => Self::Cursor(pb::Cursor {
                key,
                ..Default::default()
            }),
            RecordKey::Alarm { key } => Self::Alarm(pb::Alarm {
                key,
                ..Default::default()
            }),
            RecordKey::Audit { index } => Self::Audit(pb::Audit {
                index,
                ..Default::default()
            }),
            RecordKey::Token { id } => Self::Token(pb::ApiToken {
                id,
                ..Default::default()
            }),
            RecordKey::FeatureLevel => Self::FeatureLevel(pb::FeatureLevel::default()),
        }
    }
}

/// The changes of one entry as they cross a wire.
pub fn change_batch(revision: u64, stamp_ms: i64, changes: &[Change]) -> pb::ChangeBatch {
    pb::ChangeBatch {
        revision,
        stamp_ms,
        changes: changes.iter().map(Into::into).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_of_each_record_stays_in_order() {
        let timer = |key: &str, due_ms| {
            Change::Timer(Arc::new(pb::Timer {
                key: key.into(),
                due_ms,
                version: 0,
            }))
        };
        let removed = Change::Removed(RecordKey::Timer { key: "b".into() });
        let changes = vec![timer("a", 1), timer("b", 1), timer("a", 2), removed.clone()];
        assert_eq!(coalesce(changes), [timer("a", 2), removed]);
    }
}
