//! The state as rows of a snapshot, and back. Only records travel: indexes and the digest are made anew, and the
//! digest is compared.

use std::sync::Arc;

use bytes::Bytes;
use trireme_proto::state::{self as pb, change::Record, snapshot_row::Row};

use crate::{
    State,
    change::Change,
    digest::{Digest, id_hash},
    jobs::seq_of,
};

/// Rows that do not make a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the snapshot has no counters: it was cut off or is no snapshot")]
    NoCounters,
    #[error("the snapshot has counters twice")]
    CountersTwice,
    #[error("snapshot row {at} is empty, or of a kind that this version does not know")]
    UnknownRow { at: usize },
    #[error("snapshot row {at} is there twice or does not fit the ones before")]
    Misplaced { at: usize },
    #[error("the snapshot's digest is {}, its rows have {}: a row was lost or changed", hex(.expected), hex(.found))]
    Digest { expected: Bytes, found: Digest },
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn record_row(change: Change) -> pb::SnapshotRow {
    pb::SnapshotRow {
        row: Some(Row::Record((&change).into())),
    }
}

impl State {
    /// The counters first, then the records by kind and key.
    pub fn snapshot_rows(&self) -> impl Iterator<Item = pb::SnapshotRow> + '_ {
        let counters = pb::Counters {
            last_index: self.last_index,
            last_stamp_ms: self.last_stamp_ms,
            build_id: self.build_id,
            config_version: self.configs.last_number(),
            digest: Bytes::copy_from_slice(&self.digest()),
        };
        let office = (self.office.epoch != 0).then(|| Change::Office(self.office.clone()));
        let level = (self.feature_level != 0).then_some(Change::FeatureLevel(self.feature_level));
        let records = office
            .into_iter()
            .chain(level)
            .chain(self.jobs.iter().cloned().map(Change::Job))
            .chain(self.reports.iter().cloned().map(Change::Report))
            .chain(self.deliveries.iter().cloned().map(Change::Delivery))
            .chain(self.plans.iter().cloned().map(Change::Plan))
            .chain(self.pulls.iter().cloned().map(Change::PullRequest))
            .chain(self.pools.iter().cloned().map(Change::Pool))
            .chain(self.intents.iter().cloned().map(Change::Intent))
            .chain(self.configs.iter().cloned().map(Change::Config))
            .chain(self.agents.iter().cloned().map(Change::Agent))
            .chain(self.cursors.iter().cloned().map(Change::Cursor))
            .chain(self.timers.iter().map(Arc::clone).map(Change::Timer))
            .chain(self.alarms.iter().cloned().map(Change::Alarm))
            .chain(self.audits.iter().cloned().map(Change::Audit))
            .chain(self.tokens.iter().cloned().map(Change::Token));
        let chunks = self.blobs.chunk_rows().map(Row::BlobChunk);
        let pages = self
            .config_pages
            .iter()
            .map(|page| Row::ConfigPage((**page).clone()));
        let requests = self
            .requests
            .iter()
            .map(|request| Row::Remembered((**request).clone()));
        let seen = self.deliveries.seen().map(Row::Seen);
        std::iter::once(pb::SnapshotRow {
            row: Some(Row::Counters(counters)),
        })
        .chain(records.map(record_row))
        .chain(
            chunks
                .chain(pages)
                .chain(requests)
                .chain(seen)
                .map(|row| pb::SnapshotRow { row: Some(row) }),
        )
    }

    /// Rows may come in any order.
    ///
    /// # Errors
    /// If a row is missing, doubled, changed or unknown.
    pub fn from_snapshot_rows(
        rows: impl IntoIterator<Item = pb::SnapshotRow>,
    ) -> Result<Self, SnapshotError> {
        let mut state = Self::new();
        let mut counters: Option<pb::Counters> = None;
        for (at, row) in rows.into_iter().enumerate() {
            let fits = match row.row {
                Some(Row::Counters(row)) => {
                    if counters.replace(row).is_some() {
                        return Err(SnapshotError::CountersTwice);
                    }
                    true
                }
                Some(Row::Record(pb::Change {
                    record: Some(record),
                    removed: false,
                })) => state.restore(record),
                Some(Row::BlobChunk(row)) => state.blobs.restore(&mut state.digest, row),
                Some(Row::ConfigPage(page)) => state.restore_config_page(page),
                Some(Row::Remembered(row)) => {
                    let unknown = state.request(&row.principal, &row.request_id).is_none();
                    state.requests.put(&mut state.digest, Arc::new(row));
                    unknown
                }
                Some(Row::Seen(row)) => {
                    let unknown = !state.deliveries.is_seen(&row.guid);
                    state
                        .deliveries
                        .see(&mut state.digest, &row.guid, row.at_ms, row.revision);
                    unknown
                }
                Some(Row::Record(_)) | None => return Err(SnapshotError::UnknownRow { at }),
            };
            if !fits {
                return Err(SnapshotError::Misplaced { at });
            }
        }
        let counters = counters.ok_or(SnapshotError::NoCounters)?;
        state.last_index = counters.last_index;
        state.last_stamp_ms = counters.last_stamp_ms;
        state.build_id = counters.build_id;
        let found = state.digest();
        if counters.digest != found.as_slice() {
            return Err(SnapshotError::Digest {
                expected: counters.digest,
                found,
            });
        }
        Ok(state)
    }

    /// Puts one record back. False if it is there already.
    fn restore(&mut self, record: Record) -> bool {
        let digest = &mut self.digest;
        match record {
            Record::Job(job) => {
                let id = id_hash(&[&job.id]);
                let known = self.jobs.has(id) || self.jobs.at(&seq_of(&job)).is_some();
                if !known {
                    self.jobs.add(digest, job, id);
                }
                !known
            }
            Record::Delivery(delivery) => {
                let known = self.deliveries.get(&delivery.guid).is_some();
                if let Some(blob) = &delivery.blob {
                    self.blobs.refer(&blob.sha256);
                }
                !known && self.deliveries.put(digest, delivery).1.is_none()
            }
            Record::Config(config) => {
                for blob in config.files.iter().filter_map(|file| file.blob.as_ref()) {
                    self.blobs.refer(&blob.sha256);
                }
                for page in &config.pages {
                    self.config_pages.refer(page);
                }
                self.configs.put(digest, Arc::new(config)).is_none()
            }
            Record::Report(report) => self.reports.put(digest, Arc::new(report)).is_none(),
            Record::Plan(plan) => self.plans.put(digest, Arc::new(plan)).is_none(),
            Record::PullRequest(pull) => self.pulls.put(digest, Arc::new(pull)).is_none(),
            Record::Pool(pool) => self.pools.put(digest, Arc::new(pool)).is_none(),
            Record::Intent(intent) => self.intents.put(digest, Arc::new(intent)).is_none(),
            Record::Agent(agent) => self.agents.put(digest, Arc::new(agent)).is_none(),
            Record::Cursor(cursor) => self.cursors.put(digest, Arc::new(cursor)).is_none(),
            Record::Timer(timer) => self.timers.put(digest, Arc::new(timer)).is_none(),
            Record::Alarm(alarm) => self.alarms.put(digest, Arc::new(alarm)).is_none(),
            Record::Audit(audit) => self.audits.put(digest, Arc::new(audit)).is_none(),
            Record::Token(token) => self.tokens.put(digest, Arc::new(token)),
            Record::Office(office) => {
                let unknown = self.office.epoch == 0;
                self.set_office(office);
                unknown
            }
            Record::FeatureLevel(level) => {
                let unknown = self.feature_level == 0;
                self.set_feature_level(level.level);
                unknown
            }
        }
    }
}
