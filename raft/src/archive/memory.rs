//! An archive in memory, for tests and simulation.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use trireme_state::ArchiveOp;

use super::{ArchiveHome, ArchiveStore, Opened, Row};

/// Keeps its store as long as it lives, so that a node can be reopened.
#[derive(Debug, Default)]
pub struct MemoryHome {
    present: Mutex<Arc<MemoryStore>>,
    next: Mutex<Option<Arc<MemoryStore>>>,
}

#[derive(Debug, Default)]
struct MemoryStore(Mutex<(BTreeMap<Bytes, Bytes>, u64)>, Mutex<Option<String>>);

impl MemoryStore {
    fn with<T>(&self, run: impl FnOnce(&mut (BTreeMap<Bytes, Bytes>, u64)) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ArchiveHome for MemoryHome {
    fn open(&self) -> io::Result<Opened> {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Opened {
            store: Arc::clone(&present) as Arc<dyn ArchiveStore>,
            lost: None,
        })
    }

    fn begin(&self) -> io::Result<Arc<dyn ArchiveStore>> {
        let store = Arc::new(MemoryStore::default());
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&store));
        Ok(store)
    }

    fn finish(&self) -> io::Result<()> {
        let next = self
            .next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(next) = next {
            *self.present.lock().unwrap_or_else(PoisonError::into_inner) = next;
        }
        Ok(())
    }
}

impl ArchiveStore for MemoryStore {
    fn applied(&self) -> io::Result<u64> {
        Ok(self.with(|(_, applied)| *applied))
    }

    fn owner(&self) -> io::Result<Option<String>> {
        let owner = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(owner.clone())
    }

    fn set_owner(&self, cluster_id: &str) -> io::Result<()> {
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster_id.to_owned());
        Ok(())
    }

    fn write(&self, ops: &[ArchiveOp], reached: u64) -> io::Result<()> {
        self.with(|(rows, applied)| {
            for op in ops {
                match op {
                    ArchiveOp::Put { key, value } => {
                        rows.insert(key.clone(), value.clone());
                    }
                    ArchiveOp::Delete { key } => {
                        rows.remove(key);
                    }
                }
            }
            *applied = reached;
        });
        Ok(())
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.with(|(rows, _)| rows.get(key).cloned()))
    }

    fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        Ok(self.with(|(rows, _)| {
            let within = rows
                .range::<[u8], _>(range)
                .map(|(key, value)| (key.clone(), value.clone()));
            if reverse {
                within.rev().take(limit).collect()
            } else {
                within.take(limit).collect()
            }
        }))
    }

    fn checkpoint(&self) -> io::Result<()> {
        Ok(())
    }
}
