//! How full the node's queues are. Whoever owns a bounded queue registers it under a name; metrics read them all.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Queues of one name, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    pub name: &'static str,
    /// What waits: entries or bytes, as the name says.
    pub depth: u64,
    /// How much may.
    pub capacity: u64,
}

struct Entry {
    name: &'static str,
    capacity: u64,
    depth: Box<dyn Fn() -> u64 + Send + Sync>,
}

#[derive(Default)]
struct Entries {
    next: u64,
    by_id: BTreeMap<u64, Entry>,
}

/// The queues of one node. Clones share them.
#[derive(Clone, Default)]
pub struct Queues(Arc<Mutex<Entries>>);

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.depths()).finish()
    }
}

/// Keeps a queue in the list.
#[derive(Debug)]
#[must_use]
pub struct QueueGauge {
    id: u64,
    queues: Queues,
}

impl Drop for QueueGauge {
    fn drop(&mut self) {
        self.queues.held().by_id.remove(&self.id);
    }
}

impl Queues {
    /// `depth` is called when metrics are read; it must neither block nor keep the queue alive.
    pub fn register(
        &self,
        name: &'static str,
        capacity: usize,
        depth: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> QueueGauge {
        let mut entries = self.held();
        let id = entries.next;
        entries.next += 1;
        let entry = Entry {
            name,
            capacity: capacity as u64,
            depth: Box::new(depth),
        };
        entries.by_id.insert(id, entry);
        QueueGauge {
            id,
            queues: self.clone(),
        }
    }

    /// All queues by name; several of one name are added up.
    pub fn depths(&self) -> Vec<QueueDepth> {
        let mut sums: BTreeMap<&'static str, QueueDepth> = BTreeMap::new();
        for entry in self.held().by_id.values() {
            let sum = sums.entry(entry.name).or_insert(QueueDepth {
                name: entry.name,
                depth: 0,
                capacity: 0,
            });
            sum.depth = sum.depth.saturating_add((entry.depth)());
            sum.capacity = sum.capacity.saturating_add(entry.capacity);
        }
        sums.into_values().collect()
    }

    fn held(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_one_name_are_added_up_and_leave_with_their_owner() {
        let queues = Queues::default();
        let first = queues.register("watchers", 10, || 3);
        let second = queues.register("watchers", 10, || 4);
        let both = [QueueDepth {
            name: "watchers",
            depth: 7,
            capacity: 20,
        }];
        assert_eq!(queues.depths(), both);
        drop(first);
        assert_eq!(queues.depths()[0].depth, 4);
        drop(second);
        assert!(queues.depths().is_empty());
    }
}
