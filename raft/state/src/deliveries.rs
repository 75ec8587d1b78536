//! The inbox: webhook deliveries, and the guids seen in the last day.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use trireme_proto::state::{
    AcceptDelivery, Delivery, DeliveryState, Done, SeenDelivery, SweepDeliveries,
};

use crate::{
    State,
    apply::Entry,
    archive,
    change::{Change, RecordKey},
    digest::Sum,
    limits::{
        DELIVERY_MEMORY, DELIVERY_MEMORY_MS, MAX_DELIVERIES, MAX_DELIVERY, MAX_HEADER_BYTES,
        MAX_HEADERS, MAX_INLINE_PAYLOAD, MAX_SWEEP, PRUNE_PER_ENTRY,
    },
    reject::{Verdict, at_most, exhausted, invalid, name, optional_name, record_size},
    table::{Bulk, Name, Record, Seq, Table},
};

impl Record for Delivery {
    const KIND: u8 = 3;
    type Key = Seq;

    fn key(&self) -> Seq {
        arrival(self)
    }

    const BULK: Option<Bulk<Self>> = Some(Bulk {
        read: |delivery| &delivery.payload_zstd,
        write: |delivery| &mut delivery.payload_zstd,
    });
}

/// The delivery's place in the order of arrival.
pub fn arrival(delivery: &Delivery) -> Seq {
    Seq {
        revision: delivery.revision,
        ordinal: delivery.ordinal,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    at_ms: i64,
    revision: u64,
}

/// A guid's hash as part of the digest.
const SEEN_KIND: u8 = 4;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Deliveries {
    rows: Table<Delivery>,
    by_guid: OrdMap<Name, Seq>,
    /// Not handled yet.
    open: OrdSet<Seq>,
    handled: OrdSet<(i64, Seq)>,
    seen: OrdMap<Name, Seen>,
    seen_in_order: OrdSet<(i64, u64, Name)>,
}

impl Deliveries {
    pub(crate) fn get(&self, guid: &str) -> Option<&Arc<Delivery>> {
        self.rows.get(self.by_guid.get(guid)?)
    }

    /// Returns the record as it is kept, and the one that it replaced.
    pub(crate) fn put(
        &mut self,
        digest: &mut Sum,
        delivery: Delivery,
    ) -> (Arc<Delivery>, Option<Arc<Delivery>>) {
        let seq = arrival(&delivery);
        let (delivery, former) = self.rows.put_shared(digest, Arc::new(delivery));
        match &former {
            Some(former) => self.index(former, seq, false),
            None => {
                self.by_guid.insert(delivery.guid.as_str().into(), seq);
            }
        }
        self.index(&delivery, seq, true);
        (delivery, former)
    }

    fn remove(&mut self, digest: &mut Sum, guid: &str) {
        let Some(seq) = self.by_guid.remove(guid) else {
            return;
        };
        if let Some(former) = self.rows.remove(digest, &seq) {
            self.index(&former, seq, false);
        }
    }

    fn index(&mut self, delivery: &Delivery, seq: Seq, add: bool) {
        if delivery.state() == DeliveryState::Handled {
            let handled = (delivery.handled_ms, seq);
            if add {
                self.handled.insert(handled);
            } else {
                self.handled.remove(&handled);
            }
        } else if add {
            self.open.insert(seq);
        } else {
            self.open.remove(&seq);
        }
    }

    pub(crate) fn see(&mut self, digest: &mut Sum, guid: &str, at_ms: i64, revision: u64) {
        let guid: Name = guid.into();
        self.unsee(digest, &guid);
        digest.add(&seen_hash(&guid, at_ms, revision));
        self.seen_in_order.insert((at_ms, revision, guid.clone()));
        self.seen.insert(guid, Seen { at_ms, revision });
    }

    fn unsee(&mut self, digest: &mut Sum, guid: &str) {
        if let Some((guid, seen)) = self.seen.remove_with_key(guid) {
            digest.sub(&seen_hash(&guid, seen.at_ms, seen.revision));
            self.seen_in_order
                .remove(&(seen.at_ms, seen.revision, guid));
        }
    }

    pub(crate) fn is_seen(&self, guid: &str) -> bool {
        self.seen.contains_key(guid)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Delivery>> {
        self.rows.iter()
    }

    pub(crate) fn seen(&self) -> impl Iterator<Item = SeenDelivery> {
        self.seen.iter().map(|(guid, seen)| SeenDelivery {
            guid: guid.to_string(),
            at_ms: seen.at_ms,
            revision: seen.revision,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }

    pub(crate) fn open_len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn seen_len(&self) -> usize {
        self.seen.len()
    }
}

fn seen_hash(guid: &str, at_ms: i64, revision: u64) -> Sum {
    Sum::of(
        SEEN_KIND,
        &[
            guid.as_bytes(),
            &at_ms.to_be_bytes(),
            &revision.to_be_bytes(),
        ],
    )
}

pub(crate) fn accept(state: &mut State, entry: &mut Entry, command: &AcceptDelivery) -> Verdict {
    let Some(asked) = &command.delivery else {
        return Err(invalid("no delivery"));
    };
    name("guid", &asked.guid)?;
    if state.deliveries.is_seen(&asked.guid) || state.deliveries.get(&asked.guid).is_some() {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    name("event", &asked.event)?;
    for (field, value) in [
        ("action", &asked.action),
        ("org", &asked.org),
        ("repo", &asked.repo),
        ("ref", &asked.r#ref),
        ("sender", &asked.sender),
    ] {
        optional_name(field, value)?;
    }
    if asked.payload_zstd.len() > MAX_INLINE_PAYLOAD {
        return Err(invalid(format!(
            "a payload of more than {MAX_INLINE_PAYLOAD} bytes must be put as a blob"
        )));
    }
    if let Some(blob) = &asked.blob {
        if !asked.payload_zstd.is_empty() {
            return Err(invalid("a payload and a blob"));
        }
        if blob.size > MAX_DELIVERY {
            return Err(invalid(format!(
                "a delivery of more than {MAX_DELIVERY} bytes"
            )));
        }
        state.check_blob(blob)?;
    }
    at_most("headers", asked.headers.len(), MAX_HEADERS)?;
    let headers = asked.headers.iter();
    let bytes = headers.map(|header| header.name.len() + header.value.len());
    at_most("bytes of headers", bytes.sum(), MAX_HEADER_BYTES)?;
    record_size("the delivery", asked)?;
    if state.deliveries.seen_len() >= DELIVERY_MEMORY {
        return Err(exhausted("remembered deliveries", DELIVERY_MEMORY));
    }
    if state.deliveries.len() >= MAX_DELIVERIES {
        return Err(exhausted("deliveries in memory", MAX_DELIVERIES));
    }

    let delivery = Delivery {
        received_ms: entry.stamp_ms,
        revision: entry.index,
        ordinal: entry.position,
        plugins: Vec::new(),
        settled: Vec::new(),
        handled_ms: 0,
        state: DeliveryState::Received.into(),
        ..asked.clone()
    };
    if let Some(blob) = &delivery.blob {
        state.blobs.refer(&blob.sha256);
    }
    state.deliveries.see(
        &mut state.digest,
        &delivery.guid,
        entry.stamp_ms,
        entry.index,
    );
    state.put_delivery(entry, delivery);
    Ok(Done::default())
}

/// Takes handled deliveries and their plans out of memory; others stay.
pub(crate) fn sweep(state: &mut State, entry: &mut Entry, command: &SweepDeliveries) -> Verdict {
    at_most("deliveries to sweep", command.guids.len(), MAX_SWEEP)?;
    let mut swept = false;
    for guid in &command.guids {
        let Some(delivery) = state.delivery(guid).cloned() else {
            continue;
        };
        if delivery.state() != DeliveryState::Handled {
            continue;
        }
        archive::delivery(entry, &delivery);
        state.drop_plans(entry, guid);
        state.deliveries.remove(&mut state.digest, guid);
        entry.changed(Change::Removed(RecordKey::Delivery { guid: guid.clone() }));
        if let Some(blob) = &delivery.blob {
            state.release_blob(entry, &blob.sha256);
        }
        swept = true;
    }
    Ok(Done {
        duplicate: !swept,
        ..Done::default()
    })
}

impl State {
    pub(crate) fn put_delivery(&mut self, entry: &mut Entry, mut delivery: Delivery) {
        delivery.version = entry.index;
        let (delivery, _) = self.deliveries.put(&mut self.digest, delivery);
        entry.changed(Change::Delivery(delivery));
    }

    /// A plugin is settled, or (redriven) is so no longer; the delivery is handled when none is left.
    pub(crate) fn settle_plugins(
        &mut self,
        entry: &mut Entry,
        delivery: &Delivery,
        settled: Vec<String>,
    ) {
        let done = settled.len() >= delivery.plugins.len();
        let state = if done {
            DeliveryState::Handled
        } else {
            DeliveryState::Planned
        };
        let handled_ms = if done { entry.stamp_ms } else { 0 };
        self.put_delivery(
            entry,
            Delivery {
                settled,
                state: state.into(),
                handled_ms,
                ..delivery.clone()
            },
        );
    }

    pub(crate) fn forget_deliveries(&mut self, now_ms: i64) {
        let before = now_ms.saturating_sub(DELIVERY_MEMORY_MS);
        for _ in 0..PRUNE_PER_ENTRY {
            match self.deliveries.seen_in_order.get_min() {
                Some((at_ms, _, guid)) if *at_ms < before => {
                    let guid = guid.clone();
                    self.deliveries.unsee(&mut self.digest, &guid);
                }
                _ => break,
            }
        }
    }

    pub fn delivery(&self, guid: &str) -> Option<&Arc<Delivery>> {
        self.deliveries.get(guid)
    }

    /// Whether this guid was accepted in the last 24 hours.
    pub fn is_delivery_seen(&self, guid: &str) -> bool {
        self.deliveries.is_seen(guid)
    }

    /// Deliveries that are not handled yet, in order of arrival.
    pub fn open_deliveries(&self) -> impl DoubleEndedIterator<Item = &Arc<Delivery>> {
        self.deliveries
            .open
            .iter()
            .filter_map(|seq| self.deliveries.rows.get(seq))
    }

    /// All deliveries in memory, newest first; `before` is where the page before ended.
    pub fn deliveries_newest_first(
        &self,
        before: Option<Seq>,
    ) -> impl Iterator<Item = &Arc<Delivery>> {
        self.deliveries
            .rows
            .range(..before.unwrap_or(Seq::MAX))
            .rev()
    }

    /// Deliveries handled before `before_ms`, longest ago first.
    pub fn deliveries_handled_before(
        &self,
        before_ms: i64,
    ) -> impl Iterator<Item = &Arc<Delivery>> {
        self.deliveries
            .handled
            .range(..(before_ms, Seq::MIN))
            .filter_map(|(_, seq)| self.deliveries.rows.get(seq))
    }
}
