//! What nodes and clients have shown: what must not contradict itself is compared as it comes, the rest is judged in the
//! end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use trireme_proto::state::{ChangeBatch, change::Record};
use trireme_raft::FatalKind;
use trireme_state::Digest;

use super::trace::Trace;
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
        if kind != FatalKind::Disk {
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
    pub(crate) fn audits(&self) -> usize {
        let book = self.held();
        let changes = book.batches.values().flat_map(|batch| &batch.changes);
        let answered = changes.filter_map(|change| match &change.record {
            Some(Record::Audit(audit)) if !audit.agreed.is_empty() => Some(audit.index),
            _ => None,
        });
        answered.collect::<BTreeSet<u64>>().len()
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
