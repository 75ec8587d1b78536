//! Cursors: positions that controllers remember.

use std::sync::Arc;

use trireme_proto::state::{Cursor, Done, PutCursor};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    limits::{MAX_CURSORS, MAX_CURSORS_PER_COMMAND},
    reject::{Verdict, at_most, exhausted, name, record_size},
    table::{Record, Table},
};

impl Record for Cursor {
    const KIND: u8 = 14;
    type Key = String;

    fn key(&self) -> String {
        self.key.clone()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cursors {
    rows: Table<Cursor>,
}

impl Cursors {
    pub(crate) fn put(&mut self, digest: &mut Sum, cursor: Arc<Cursor>) -> Option<Arc<Cursor>> {
        self.rows.put(digest, cursor)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Cursor>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}

/// A cursor without time and value is forgotten.
pub(crate) fn put(state: &mut State, entry: &mut Entry, command: &PutCursor) -> Verdict {
    state.check_cursors(&command.cursors)?;
    let changed = state.put_cursors(entry, &command.cursors);
    Ok(Done {
        duplicate: !changed,
        ..Done::default()
    })
}

impl State {
    pub(crate) fn check_cursors(&self, cursors: &[Cursor]) -> Verdict<()> {
        at_most("cursors", cursors.len(), MAX_CURSORS_PER_COMMAND)?;
        for cursor in cursors {
            name("cursor.key", &cursor.key)?;
            record_size("the cursor", cursor)?;
        }
        if self.cursors.len().saturating_add(cursors.len()) > MAX_CURSORS {
            return Err(exhausted("cursors", MAX_CURSORS));
        }
        Ok(())
    }

    /// Whether any cursor moved.
    pub(crate) fn put_cursors(&mut self, entry: &mut Entry, cursors: &[Cursor]) -> bool {
        let mut changed = false;
        for cursor in cursors {
            let former = self.cursors.rows.get(cursor.key.as_str());
            if cursor.at_ms == 0 && cursor.value.is_empty() {
                if former.is_some() {
                    self.cursors.rows.remove(&mut self.digest, &cursor.key);
                    entry.changed(Change::Removed(RecordKey::Cursor {
                        key: cursor.key.clone(),
                    }));
                    changed = true;
                }
                continue;
            }
            if former
                .is_some_and(|former| former.at_ms == cursor.at_ms && former.value == cursor.value)
            {
                continue;
            }
            let cursor = Arc::new(Cursor {
                version: entry.index,
                ..cursor.clone()
            });
            self.cursors.put(&mut self.digest, cursor.clone());
            entry.changed(Change::Cursor(cursor));
            changed = true;
        }
        changed
    }

    pub fn cursor(&self, key: &str) -> Option<&Arc<Cursor>> {
        self.cursors.rows.get(key)
    }

    /// All cursors, by key.
    pub fn cursors(&self) -> impl Iterator<Item = &Arc<Cursor>> {
        self.cursors.iter()
    }

    /// Cursors whose key begins so, by key.
    pub fn cursors_with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Cursor>> {
        self.cursors
            .rows
            .range(prefix.to_owned()..)
            .take_while(move |cursor| cursor.key.starts_with(prefix))
    }
}
