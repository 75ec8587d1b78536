//! Audits: do all replicas have the same state? Every node hashes its state as it was before a BeginAudit and reports
//! the digest through the log. What a majority of the voters has is right; whoever has another state has diverged, which
//! raises an alarm, and has to fetch the state anew. The records alone say so, on every node alike.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use trireme_proto::state::{Alarm, Audit, AuditReport, BeginAudit, Done, ReportDigest};

use crate::{
    State, alarms,
    apply::Entry,
    change::{Change, RecordKey},
    digest::{Digest, Sum},
    limits::{AUDIT_MEMORY, MAX_AUDIT_REPORTS},
    reject::{Verdict, at_most, conflict, exhausted, invalid, not_found},
    table::{Record, Table},
};

/// Raised when the voters' states differ and none has a majority.
const UNDECIDED: &str = "diverged/cluster";

impl Record for Audit {
    const KIND: u8 = 26;
    type Key = u64;

    fn key(&self) -> u64 {
        self.index
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Audits {
    rows: Table<Audit>,
}

impl Audits {
    pub(crate) fn put(&mut self, digest: &mut Sum, audit: Arc<Audit>) -> Option<Arc<Audit>> {
        self.rows.put(digest, audit)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Audit>> {
        self.rows.iter()
    }
}

pub(crate) fn begin(state: &mut State, entry: &mut Entry, command: &BeginAudit) -> Verdict {
    let voters = &command.voters;
    at_most("voters", voters.len(), MAX_AUDIT_REPORTS)?;
    if voters.is_empty() || voters.contains(&0) {
        return Err(invalid("an audit needs the ids of the voters"));
    }
    let mut distinct = voters.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() != voters.len() {
        return Err(invalid("a voter is named twice"));
    }
    // The audit's id is the log index, so one entry begins one.
    if state.audit(entry.index).is_some() {
        return Err(conflict("an audit began in the same log entry"));
    }
    let audit = Audit {
        index: entry.index,
        begun_ms: entry.stamp_ms,
        voters: distinct,
        ..Audit::default()
    };
    state.put_audit(entry, audit);
    let indexes: Vec<u64> = state.audits().map(|audit| audit.index).collect();
    for old in indexes.iter().rev().skip(AUDIT_MEMORY) {
        state.audits.rows.remove(&mut state.digest, old);
        entry.changed(Change::Removed(RecordKey::Audit { index: *old }));
    }
    Ok(Done {
        token: entry.index,
        ..Done::default()
    })
}

pub(crate) fn report(state: &mut State, entry: &mut Entry, command: &ReportDigest) -> Verdict {
    if command.node_id == 0 || command.digest.len() != size_of::<Digest>() {
        return Err(invalid("a report names a node and a digest of 32 bytes"));
    }
    let index = command.audit_index;
    let audit = state.audit(index);
    let mut audit = (**audit.ok_or_else(|| not_found("audit", &index.to_string()))?).clone();
    let known = audit
        .reports
        .iter()
        .find(|report| report.node_id == command.node_id);
    if let Some(known) = known {
        // The first counts: a node that was restarted may have computed it again.
        return match known.digest == command.digest {
            true => Ok(Done {
                duplicate: true,
                ..Done::default()
            }),
            false => Err(conflict(format!(
                "node {} reported another digest before",
                command.node_id
            ))),
        };
    }
    if audit.reports.len() >= MAX_AUDIT_REPORTS {
        return Err(exhausted("reports of one audit", MAX_AUDIT_REPORTS));
    }
    audit.reports.push(AuditReport {
        node_id: command.node_id,
        digest: command.digest.clone(),
    });
    judge(&mut audit);
    state.tell(entry, &audit);
    state.put_audit(entry, audit);
    Ok(Done::default())
}

/// What the reports so far say.
fn judge(audit: &mut Audit) {
    let mut votes: BTreeMap<&Bytes, usize> = BTreeMap::new();
    for report in &audit.reports {
        if audit.voters.contains(&report.node_id) {
            let count = votes.entry(&report.digest).or_insert(0);
            *count = count.saturating_add(1);
        }
    }
    let majority = votes
        .into_iter()
        .find(|(_, count)| *count > audit.voters.len() / 2)
        .map(|(digest, _)| digest.clone());
    let Some(agreed) = majority else {
        return;
    };
    audit.diverged = audit
        .reports
        .iter()
        .filter(|report| report.digest != agreed)
        .map(|report| report.node_id)
        .collect();
    audit.agreed = agreed;
}

fn is_undecided(audit: &Audit) -> bool {
    let reported = |voter: &u64| audit.reports.iter().any(|report| report.node_id == *voter);
    audit.agreed.is_empty() && audit.voters.iter().all(reported)
}

impl State {
    /// Raises and lowers alarms by what an audit found.
    fn tell(&mut self, entry: &mut Entry, audit: &Audit) {
        if is_undecided(audit) {
            let alarm = Alarm {
                key: UNDECIDED.to_owned(),
                message: format!(
                    "the voters' states differ at entry {} and no majority has the same: stop taking changes, compare \
                     `trireme cluster status` of all nodes, and restore the cluster from the backup of one",
                    audit.index
                ),
                ..Alarm::default()
            };
            alarms::raise(self, entry, &alarm);
        }
        if audit.agreed.is_empty() {
            return;
        }
        alarms::lower(self, entry, UNDECIDED);
        for report in &audit.reports {
            let key = diverged_key(report.node_id);
            if report.digest == audit.agreed {
                alarms::lower(self, entry, &key);
                continue;
            }
            let alarm = Alarm {
                key,
                message: format!(
                    "node {}'s state differed from the majority's at entry {}. It stops, and fetches the state from \
                     another node when it is started again; the alarm goes when a later audit finds it equal. If it \
                     comes back, suspect the machine's memory and replace the node",
                    report.node_id, audit.index
                ),
                node_id: report.node_id,
                ..Alarm::default()
            };
            alarms::raise(self, entry, &alarm);
        }
    }

    fn put_audit(&mut self, entry: &mut Entry, audit: Audit) {
        let audit = Arc::new(audit);
        self.audits.put(&mut self.digest, audit.clone());
        entry.changed(Change::Audit(audit));
    }

    /// The audit that began with this log index.
    pub fn audit(&self, index: u64) -> Option<&Arc<Audit>> {
        self.audits.rows.get(&index)
    }

    /// The audits that are remembered, the oldest first.
    pub fn audits(&self) -> impl DoubleEndedIterator<Item = &Arc<Audit>> {
        self.audits.iter()
    }
}

fn diverged_key(node: u64) -> String {
    format!("diverged/node-{node}")
}
