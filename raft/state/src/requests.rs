//! Answers to client requests, kept so that a retry gets the same one. Refusals are not kept: they changed nothing, so
//! asking again is safe.

use std::sync::Arc;

use imbl::OrdSet;
use trireme_proto::state::{Command, Outcome, RememberedRequest, outcome};

use crate::{
    State,
    apply::Entry,
    digest::Sum,
    limits::{MAX_REQUEST_ID_BYTES, PRUNE_PER_ENTRY, REQUEST_MEMORY, REQUEST_MEMORY_MS},
    reject::{Verdict, invalid},
    table::{Record, Table},
};

/// (principal, request id)
type Key = (String, String);

impl Record for RememberedRequest {
    const KIND: u8 = 17;
    type Key = Key;

    fn key(&self) -> Key {
        (self.principal.clone(), self.request_id.clone())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Requests {
    rows: Table<RememberedRequest>,
    in_order: OrdSet<(i64, u64, Key)>,
}

impl Requests {
    pub(crate) fn put(&mut self, digest: &mut Sum, request: Arc<RememberedRequest>) {
        self.in_order.insert(place(&request));
        if let Some(former) = self.rows.put(digest, request.clone()) {
            let former = place(&former);
            if former != place(&request) {
                self.in_order.remove(&former);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<RememberedRequest>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn place(request: &RememberedRequest) -> (i64, u64, Key) {
    (request.at_ms, request.revision, request.key())
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

    pub(crate) fn remember(&mut self, entry: &Entry, command: &Command, outcome: &Outcome) {
        if command.request_id.is_empty() {
            return;
        }
        let request = RememberedRequest {
            request_id: command.request_id.clone(),
            revision: entry.index,
            at_ms: entry.stamp_ms,
            outcome: Some(outcome.clone()),
            principal: command.principal.clone(),
        };
        self.requests.put(&mut self.digest, Arc::new(request));
        if self.requests.len() > REQUEST_MEMORY {
            self.forget_oldest_request();
        }
    }

    pub(crate) fn forget_requests(&mut self, now_ms: i64) {
        let before = now_ms.saturating_sub(REQUEST_MEMORY_MS);
        for _ in 0..PRUNE_PER_ENTRY {
            match self.requests.in_order.get_min() {
                Some((at_ms, _, _)) if *at_ms < before => self.forget_oldest_request(),
                _ => break,
            }
        }
    }

    fn forget_oldest_request(&mut self) {
        if let Some(oldest) = self.requests.in_order.get_min().cloned() {
            self.requests.rows.remove(&mut self.digest, &oldest.2);
            self.requests.in_order.remove(&oldest);
        }
    }

    /// The remembered answer to a principal's request.
    pub fn request(&self, principal: &str, request_id: &str) -> Option<&Arc<RememberedRequest>> {
        self.requests
            .rows
            .get(&(principal.to_owned(), request_id.to_owned()))
    }
}
