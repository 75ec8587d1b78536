//! Answers to client requests, kept so that a retry gets the same one. Refusals are not kept: they changed nothing, so
//! asking again is safe.

use std::sync::Arc;

use imbl::OrdMap;
use trireme_proto::state::{Command, Outcome, RememberedRequest, outcome};

use crate::{
    State,
    apply::Entry,
    digest::{IdHash, Sum, id_hash},
    limits::{MAX_REQUEST_ID_BYTES, PRUNE_PER_ENTRY, REQUEST_MEMORY, REQUEST_MEMORY_MS},
    reject::{Verdict, invalid},
    table::{Record, Seq, Table},
};

impl Record for RememberedRequest {
    const KIND: u8 = 17;
    type Key = Seq;

    fn key(&self) -> Seq {
        Seq {
            revision: self.revision,
            ordinal: self.ordinal,
        }
    }
}

/// In the order of arrival, which is the order of forgetting.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Requests {
    rows: Table<RememberedRequest>,
    by_id: OrdMap<IdHash, Seq>,
}

impl Requests {
    pub(crate) fn put(&mut self, digest: &mut Sum, request: Arc<RememberedRequest>) {
        let id = id_hash(&[&request.principal, &request.request_id]);
        if let Some(former) = self.by_id.insert(id, request.key())
            && former != request.key()
        {
            self.rows.remove(digest, &former);
        }
        self.rows.put(digest, request);
    }

    fn get(&self, principal: &str, request_id: &str) -> Option<&Arc<RememberedRequest>> {
        self.rows
            .get(self.by_id.get(&id_hash(&[principal, request_id]))?)
    }

    fn oldest(&self) -> Option<&Arc<RememberedRequest>> {
        self.rows.iter().next()
    }

    fn forget_oldest(&mut self, digest: &mut Sum) {
        let Some(oldest) = self.oldest() else {
            return;
        };
        let (place, id) = (
            oldest.key(),
            id_hash(&[&oldest.principal, &oldest.request_id]),
        );
        self.rows.remove(digest, &place);
        self.by_id.remove(&id);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<RememberedRequest>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl State {
    pub(crate) fn check_request_id(&self, id: &str) -> Verdict<()> {
        if id.len() > MAX_REQUEST_ID_BYTES {
            return Err(invalid(format!(
                "a request id has at most {MAX_REQUEST_ID_BYTES} bytes"
            )));
        }
        Ok(())
    }

    pub(crate) fn remembered_answer(&self, command: &Command) -> Option<Outcome> {
        if command.request_id.is_empty() {
            return None;
        }
        let mut outcome = self
            .request(&command.principal, &command.request_id)?
            .outcome
            .clone()?;
        if let Some(outcome::Result::Done(done)) = &mut outcome.result {
            done.duplicate = true;
        }
        Some(outcome)
    }

    pub(crate) fn remember(&mut self, entry: &Entry, command: Command, outcome: &Outcome) {
        if command.request_id.is_empty() {
            return;
        }
        let request = RememberedRequest {
            request_id: command.request_id,
            revision: entry.index,
            at_ms: entry.stamp_ms,
            outcome: Some(outcome.clone()),
            principal: command.principal,
            ordinal: entry.position,
        };
        self.requests.put(&mut self.digest, Arc::new(request));
        if self.requests.len() > REQUEST_MEMORY {
            self.requests.forget_oldest(&mut self.digest);
        }
    }

    pub(crate) fn forget_requests(&mut self, now_ms: i64) {
        let before = now_ms.saturating_sub(REQUEST_MEMORY_MS);
        for _ in 0..PRUNE_PER_ENTRY {
            match self.requests.oldest() {
                Some(oldest) if oldest.at_ms < before => {
                    self.requests.forget_oldest(&mut self.digest);
                }
                _ => break,
            }
        }
    }

    /// The remembered answer to a principal's request.
    pub fn request(&self, principal: &str, request_id: &str) -> Option<&Arc<RememberedRequest>> {
        self.requests.get(principal, request_id)
    }
}
