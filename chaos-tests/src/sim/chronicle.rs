//! What nodes and clients have shown: what must not contradict itself is compared as it comes, the rest is judged in the
//! end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use trireme_proto::state::{Change, ChangeBatch, Job, change::Record};
use trireme_raft::FatalKind;
use trireme_state::Digest;

use super::{clockwork, trace::Trace};
use crate::{
    Sent,
    checks::linearizable::Operation,
    history::{Watched, strip},
};

/// Broken promises that are told; the first says most.
const MAX_TOLD: usize = 20;

#[derive(Debug, Clone)]
pub(crate) struct Chronicle {
    trace: Trace,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    digests: BTreeMap<u64, (u64, Digest)>,
    batches: BTreeMap<u64, ChangeBatch>,
    /// Node, revision before, revision: the node showed nothing in between.
    steps: Vec<(u64, u64, u64)>,
    operations: Vec<Operation>,
    sent: Vec<Sent>,
    broken: Vec<String>,
    disk_stops: u64,
}

impl Book {
    /// How many different things the changes that were shown say.
    fn distinct<'a, T: Ord>(&'a self, what: impl Fn(&'a Change) -> Option<T>) -> u64 {
        let changes = self.batches.values().flat_map(|batch| &batch.changes);
        changes.filter_map(what).collect::<BTreeSet<T>>().len() as u64
    }
}

impl Chronicle {
    pub(crate) fn new(trace: Trace) -> Self {
        Self {
            trace,
            book: Arc::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A promise was broken.
    pub(crate) fn broken(&self, what: String) {
        self.trace.line("BROKEN", &what);
        let mut book = self.held();
        if book.broken.len() < MAX_TOLD {
            book.broken.push(what);
        }
    }

    pub(crate) fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut self.held().broken)
    }

    pub(crate) fn is_broken(&self) -> bool {
        !self.held().broken.is_empty()
    }

    /// The last revision that any node showed.
    pub(crate) fn last_revision(&self) -> u64 {
        let book = self.held();
        book.digests.last_key_value().map_or(0, |(last, _)| *last)
    }

    pub(crate) fn digest(&self, node: u64, revision: u64, digest: &Digest) {
        self.trace.line(
            node,
            format_args!("shows {revision} {}", hex::encode(&digest[..4])),
        );
        let known = *self
            .held()
            .digests
            .entry(revision)
            .or_insert((node, *digest));
        if known.1 != *digest {
            self.broken(format!("nodes {} and {node} differ at {revision}", known.0));
        }
    }

    /// A node showed a batch of changes, and nothing between it and `after`.
    pub(crate) fn shown(&self, node: u64, after: u64, mut batch: ChangeBatch) {
        strip(&mut batch);
        let revision = batch.revision;
        let differs = {
            let mut book = self.held();
            book.steps.push((node, after, revision));
            let known = book
                .batches
                .entry(revision)
                .or_insert_with(|| batch.clone());
            *known != batch
        };
        if differs {
            self.broken(format!(
                "node {node} showed other changes at {revision} than another node"
            ));
        }
        if revision <= after {
            self.broken(format!("node {node} showed {revision} after {after}"));
        }
    }

    pub(crate) fn operation(&self, operation: Operation) {
        self.held().operations.push(operation);
    }

    pub(crate) fn sent(&self, sent: Sent) {
        self.held().sent.push(sent);
    }

    /// Only a broken disk is a reason for a node to stop by itself.
    pub(crate) fn stopped_itself(&self, node: u64, kind: FatalKind, why: &str) {
        if kind == FatalKind::Disk {
            self.held().disk_stops += 1;
        } else {
            self.broken(format!("node {node} stopped itself ({kind:?}): {why}"));
        }
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.held().operations.clone()
    }

    pub(crate) fn all_sent(&self) -> Vec<Sent> {
        self.held().sent.clone()
    }

    /// Every change that any node showed.
    pub(crate) fn all(&self) -> Watched {
        Watched {
            name: "all".to_owned(),
            batches: self.held().batches.values().cloned().collect(),
            breaks: Vec::new(),
        }
    }

    /// Comparisons of the replicas that a majority answered.
    pub(crate) fn audits(&self) -> u64 {
        self.held().distinct(|change| match &change.record {
            Some(Record::Audit(audit)) if !audit.agreed.is_empty() => Some(audit.index),
            _ => None,
        })
    }

    /// How much happened, by the names of what did.
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let audits = self.audits();
        let book = self.held();
        let jobs = |wanted: fn(&Job, bool) -> bool| {
            book.distinct(move |change| match &change.record {
                Some(Record::Job(job)) if wanted(job, change.removed) => Some(job.id.as_str()),
                _ => None,
            })
        };
        let swept_deliveries = book.distinct(|change| match &change.record {
            Some(Record::Delivery(delivery)) if change.removed => Some(delivery.guid.as_str()),
            _ => None,
        });
        let offices = book.distinct(|change| match &change.record {
            Some(Record::Office(office)) => Some(office.epoch),
            _ => None,
        });
        vec![
            ("operations", book.operations.len() as u64),
            ("webhooks", book.sent.len() as u64),
            ("disk stops", book.disk_stops),
            ("offices taken", offices),
            ("audits", audits),
            ("jobs", jobs(|_, removed| !removed)),
            ("periodic runs", jobs(|job, _| clockwork::is_run(job))),
            ("swept jobs", jobs(|_, removed| removed)),
            ("swept deliveries", swept_deliveries),
        ]
    }

    /// Batches that a node passed over.
    pub(crate) fn gaps(&self) -> Vec<String> {
        use std::ops::Bound::Excluded;
        let book = self.held();
        let missed = book.steps.iter().filter_map(|(node, after, revision)| {
            let between = (Excluded(*after), Excluded(*revision));
            let (missed, _) = (after < revision)
                .then(|| book.batches.range(between).next())
                .flatten()?;
            Some(format!(
                "node {node} went from {after} to {revision} and did not show {missed}"
            ))
        });
        missed.take(MAX_TOLD).collect()
    }
}

#[cfg(test)]
mod tests {
    use trireme_proto::state::{Audit, Cursor};

    use super::{super::trace::Tail, *};

    fn batch(revision: u64) -> ChangeBatch {
        let cursor = Cursor {
            key: "register/1".to_owned(),
            at_ms: 7,
            version: revision,
            ..Cursor::default()
        };
        ChangeBatch {
            revision,
            stamp_ms: 1000,
            changes: vec![Change {
                removed: false,
                record: Some(Record::Cursor(cursor)),
            }],
        }
    }

    fn digest(revision: u8) -> Digest {
        [revision; std::mem::size_of::<Digest>()]
    }

    fn empty() -> Chronicle {
        Chronicle::new(Trace::begin(None, Tail::default()).unwrap())
    }

    fn show(chronicle: &Chronicle, node: u64, revisions: &[u64]) {
        for pair in revisions.windows(2) {
            chronicle.shown(node, pair[0], batch(pair[1]));
        }
    }

    /// Nodes 1 and 2 showed all, in their states and to those who watch; 4 made no change.
    fn good() -> Chronicle {
        let chronicle = empty();
        for node in [1, 2] {
            show(&chronicle, node, &[1, 2, 3, 5]);
            for revision in 1..=5 {
                chronicle.digest(node, revision.into(), &digest(revision));
            }
        }
        chronicle
    }

    fn told(chronicle: &Chronicle) -> Vec<String> {
        let mut told = chronicle.take_broken();
        told.extend(chronicle.gaps());
        told
    }

    #[test]
    fn what_all_nodes_show_alike_is_fine() {
        let chronicle = good();
        // One that was started later, from a snapshot at 3.
        show(&chronicle, 3, &[3, 5]);
        assert!(!chronicle.is_broken());
        assert_eq!(told(&chronicle), Vec::<String>::new());
        assert_eq!(chronicle.last_revision(), 5);
        let shown = chronicle.all().batches;
        assert_eq!(shown, [2, 3, 5].map(batch));
    }

    #[test]
    fn a_batch_that_one_node_skips_is_told() {
        let chronicle = good();
        show(&chronicle, 3, &[1, 2, 5]);
        assert_eq!(
            told(&chronicle),
            ["node 3 went from 2 to 5 and did not show 3"]
        );
    }

    #[test]
    fn a_gap_is_told_whoever_fills_it_later() {
        let chronicle = empty();
        show(&chronicle, 1, &[1, 5]);
        assert_eq!(told(&chronicle), Vec::<String>::new());
        show(&chronicle, 2, &[1, 2, 3, 5]);
        assert_eq!(
            told(&chronicle),
            ["node 1 went from 1 to 5 and did not show 2"]
        );
    }

    #[test]
    fn another_batch_at_the_same_revision_is_told() {
        let chronicle = good();
        let mut other = batch(5);
        other.stamp_ms += 1;
        chronicle.shown(3, 3, other);
        assert!(chronicle.is_broken());
        assert_eq!(
            told(&chronicle),
            ["node 3 showed other changes at 5 than another node"]
        );
    }

    #[test]
    fn a_change_that_is_missing_from_a_batch_is_told() {
        let chronicle = good();
        let mut other = batch(5);
        other.changes.clear();
        chronicle.shown(3, 3, other);
        assert_eq!(
            told(&chronicle),
            ["node 3 showed other changes at 5 than another node"]
        );
    }

    #[test]
    fn a_batch_that_comes_again_is_told() {
        let chronicle = good();
        show(&chronicle, 2, &[5, 5]);
        show(&chronicle, 2, &[5, 3]);
        assert_eq!(
            told(&chronicle),
            ["node 2 showed 5 after 5", "node 2 showed 3 after 5"]
        );
    }

    #[test]
    fn another_digest_at_the_same_revision_is_told() {
        let chronicle = good();
        chronicle.digest(3, 4, &digest(9));
        assert_eq!(told(&chronicle), ["nodes 1 and 3 differ at 4"]);
    }

    #[test]
    fn a_node_that_stops_itself_is_told_unless_its_disk_broke() {
        let chronicle = good();
        chronicle.stopped_itself(1, FatalKind::Disk, "no room");
        assert!(!chronicle.is_broken());
        chronicle.stopped_itself(2, FatalKind::Diverged, "another digest");
        assert_eq!(
            told(&chronicle),
            ["node 2 stopped itself (Diverged): another digest"]
        );
    }

    #[test]
    fn an_audit_counts_once_and_if_a_majority_answered() {
        let chronicle = empty();
        let audit = |index, agreed: &'static [u8]| {
            Record::Audit(Audit {
                index,
                agreed: agreed.into(),
                ..Audit::default()
            })
        };
        let records = [
            audit(1, b""),
            audit(1, b"digest"),
            audit(1, b"digest"),
            audit(4, b""),
        ];
        for (revision, record) in (2..).zip(records) {
            let mut batch = batch(revision);
            batch.changes[0].record = Some(record);
            chronicle.shown(1, revision - 1, batch);
        }
        assert_eq!(chronicle.audits(), 1);
    }

    #[test]
    fn the_first_of_many_broken_promises_are_kept() {
        let chronicle = empty();
        for number in 0..2 * MAX_TOLD {
            chronicle.broken(number.to_string());
        }
        let told = chronicle.take_broken();
        assert_eq!((told.len(), told[0].as_str()), (MAX_TOLD, "0"));
    }
}
