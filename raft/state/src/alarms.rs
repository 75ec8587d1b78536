//! Alarms: conditions that an operator has to look at.

use std::sync::Arc;

use trireme_proto::state::{Alarm, Done, SetAlarm};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    limits::MAX_ALARMS,
    reject::{Verdict, cut, exhausted, invalid, name},
    table::{Record, Table},
};

impl Record for Alarm {
    const KIND: u8 = 16;
    type Key = String;

    fn key(&self) -> String {
        self.key.clone()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alarms {
    rows: Table<Alarm>,
}

impl Alarms {
    pub(crate) fn put(&mut self, digest: &mut Sum, alarm: Arc<Alarm>) -> Option<Arc<Alarm>> {
        self.rows.put(digest, alarm)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.rows.iter()
    }

    pub(crate) fn forget(&mut self, digest: &mut Sum, key: &String) {
        self.rows.remove(digest, key);
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// An alarm that is raised again keeps the time of the first.
pub(crate) fn set(state: &mut State, entry: &mut Entry, command: &SetAlarm) -> Verdict {
    let Some(asked) = &command.alarm else {
        return Err(invalid("no alarm"));
    };
    name("alarm.key", &asked.key)?;
    if command.clear {
        return Ok(Done {
            duplicate: !lower(state, entry, &asked.key),
            ..Done::default()
        });
    }
    if state.alarm(&asked.key).is_none() && state.alarms.len() >= MAX_ALARMS {
        return Err(exhausted("alarms", MAX_ALARMS));
    }
    Ok(Done {
        duplicate: !raise(state, entry, asked),
        ..Done::default()
    })
}

/// Whether anything changed. At the bound a new alarm is not raised: there are enough to look at.
pub(crate) fn raise(state: &mut State, entry: &mut Entry, asked: &Alarm) -> bool {
    let former = state.alarm(&asked.key).cloned();
    if former.is_none() && state.alarms.len() >= MAX_ALARMS {
        return false;
    }
    let raised_ms = former
        .as_ref()
        .map_or(entry.stamp_ms, |alarm| alarm.raised_ms);
    let alarm = Alarm {
        message: cut(&asked.message),
        raised_ms,
        ..asked.clone()
    };
    if former.is_some_and(|former| *former == alarm) {
        return false;
    }
    let alarm = Arc::new(alarm);
    state.alarms.put(&mut state.digest, alarm.clone());
    entry.changed(Change::Alarm(alarm));
    true
}

/// Whether there was one.
pub(crate) fn lower(state: &mut State, entry: &mut Entry, key: &str) -> bool {
    let key = key.to_owned();
    if state.alarms.rows.remove(&mut state.digest, &key).is_none() {
        return false;
    }
    entry.changed(Change::Removed(RecordKey::Alarm { key }));
    true
}

impl State {
    pub fn alarm(&self, key: &str) -> Option<&Arc<Alarm>> {
        self.alarms.rows.get(key)
    }

    /// All alarms, by key.
    pub fn alarms(&self) -> impl Iterator<Item = &Arc<Alarm>> {
        self.alarms.iter()
    }
}
