//! The office: in whose name controllers speak. And the cluster's feature level.

use std::sync::Arc;

use prost::Message as _;
use trireme_proto::state::{Done, Office, RaiseFeatureLevel, TakeOffice};

use crate::{
    State,
    apply::Entry,
    change::Change,
    digest::Sum,
    reject::{Verdict, conflict, invalid},
};

const OFFICE_KIND: u8 = 12;
const LEVEL_KIND: u8 = 13;

/// The epoch is the log index. Only a later term takes over; the holder's own repetition gets the same epoch.
pub(crate) fn take(state: &mut State, entry: &mut Entry, command: &TakeOffice) -> Verdict {
    let office = &state.office;
    if command.node_id == 0 || command.term == 0 {
        return Err(invalid("an office is taken by a node in a term"));
    }
    if office.epoch != 0 && office.node_id == command.node_id && office.term == command.term {
        return Ok(Done {
            token: office.epoch,
            duplicate: true,
            ..Done::default()
        });
    }
    if command.term <= office.term {
        return Err(conflict(format!(
            "term {} is not after {}",
            command.term, office.term
        )));
    }
    // The epoch is the log index, so one entry begins one.
    if office.epoch == entry.index {
        return Err(conflict("the office was taken in the same log entry"));
    }
    let changed_hands = office.epoch != 0 && office.node_id != command.node_id;
    let next = Office {
        epoch: entry.index,
        node_id: command.node_id,
        since_ms: entry.stamp_ms,
        changes: office.changes.saturating_add(u64::from(changed_hands)),
        term: command.term,
    };
    state.set_office(next);
    entry.changed(Change::Office(state.office.clone()));
    Ok(Done {
        token: entry.index,
        ..Done::default()
    })
}

pub(crate) fn raise_level(
    state: &mut State,
    entry: &mut Entry,
    command: RaiseFeatureLevel,
) -> Verdict {
    let present = state.feature_level();
    if command.level < present {
        return Err(conflict(format!(
            "the feature level is {present} and never falls"
        )));
    }
    if command.level == present {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    state.set_feature_level(command.level);
    entry.changed(Change::FeatureLevel(command.level));
    Ok(Done::default())
}

pub(crate) fn office_hash(office: &Office) -> Sum {
    Sum::of(OFFICE_KIND, &[&office.encode_to_vec()])
}

fn level_hash(level: u32) -> Sum {
    Sum::of(LEVEL_KIND, &[&level.to_be_bytes()])
}

impl State {
    pub(crate) fn set_office(&mut self, office: Office) {
        if self.office.epoch != 0 {
            self.digest.sub(&office_hash(&self.office));
        }
        self.digest.add(&office_hash(&office));
        self.office = Arc::new(office);
    }

    pub(crate) fn set_feature_level(&mut self, level: u32) {
        if self.feature_level != 0 {
            self.digest.sub(&level_hash(self.feature_level));
        }
        self.digest.add(&level_hash(level));
        self.feature_level = level;
    }

    /// The present office; epoch 0 until somebody takes it.
    pub fn office(&self) -> &Arc<Office> {
        &self.office
    }
}
