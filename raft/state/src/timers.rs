//! Timers: what controllers want to be woken for, surviving a change of leader.

use std::sync::Arc;

use imbl::OrdSet;
use trireme_proto::state::{Done, DropTimer, PutTimer, Timer};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    limits::MAX_TIMERS,
    reject::{Verdict, exhausted, invalid, name},
    table::{Record, Table},
};

impl Record for Timer {
    const KIND: u8 = 15;
    type Key = String;

    fn key(&self) -> String {
        self.key.clone()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Timers {
    rows: Table<Timer>,
    due: OrdSet<(i64, String)>,
}

impl Timers {
    pub(crate) fn put(&mut self, digest: &mut Sum, timer: Arc<Timer>) -> Option<Arc<Timer>> {
        let former = self.rows.put(digest, timer.clone());
        if let Some(former) = &former {
            self.due.remove(&(former.due_ms, former.key.clone()));
        }
        self.due.insert((timer.due_ms, timer.key.clone()));
        former
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Timer>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}

pub(crate) fn put(state: &mut State, entry: &mut Entry, command: &PutTimer) -> Verdict {
    let Some(asked) = &command.timer else {
        return Err(invalid("no timer"));
    };
    name("timer.key", &asked.key)?;
    match state.timer(&asked.key) {
        Some(former) if former.due_ms == asked.due_ms => {
            return Ok(Done {
                duplicate: true,
                ..Done::default()
            });
        }
        None if state.timers.len() >= MAX_TIMERS => return Err(exhausted("timers", MAX_TIMERS)),
        _ => {}
    }
    let timer = Arc::new(Timer {
        version: entry.index,
        ..asked.clone()
    });
    state.timers.put(&mut state.digest, timer.clone());
    entry.changed(Change::Timer(timer));
    Ok(Done::default())
}

pub(crate) fn drop(state: &mut State, entry: &mut Entry, command: &DropTimer) -> Verdict {
    let Some(former) = state.timers.rows.remove(&mut state.digest, &command.key) else {
        return Ok(Done {
            duplicate: true,
            ..Done::default()
        });
    };
    state
        .timers
        .due
        .remove(&(former.due_ms, former.key.clone()));
    entry.changed(Change::Removed(RecordKey::Timer {
        key: command.key.clone(),
    }));
    Ok(Done::default())
}

impl State {
    pub fn timer(&self, key: &str) -> Option<&Arc<Timer>> {
        self.timers.rows.get(key)
    }

    /// All timers, due first first.
    pub fn timers(&self) -> impl Iterator<Item = &Arc<Timer>> {
        self.timers
            .due
            .iter()
            .filter_map(|(_, key)| self.timers.rows.get(key))
    }

    /// Timers due at this time, due first first.
    pub fn timers_due(&self, now_ms: i64) -> impl Iterator<Item = &Arc<Timer>> {
        self.timers()
            .take_while(move |timer| timer.due_ms <= now_ms)
    }
}
