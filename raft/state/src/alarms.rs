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
    let former = state.alarm(&asked.key).cloned();
    if command.clear {
        if former.is_none() {
            return Ok(Done {
                duplicate: true,
                ..Done::default()
            });
        }
        state.alarms.rows.remove(&mut state.digest, &asked.key);
        entry.changed(Change::Removed(RecordKey::Alarm {
            key: asked.key.clone(),
        }));
        return Ok(Done::default());
    }
    if former.is_none() && state.alarms.len() >= MAX_ALARMS {
        return Err(exhausted("alarms", MAX_ALARMS));
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
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    }
    let alarm = Arc::new(alarm);
    state.alarms.put(&mut state.digest, alarm.clone());
    entry.changed(Change::Alarm(alarm));
    Ok(Done::default())
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
