//! An archive in memory, for tests and simulation. It forgets on demand what was not yet made durable.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use trireme_state::ArchiveOp;

use super::{ArchiveHome, ArchiveStore, Opened, Row};

/// Keeps its store as long as it lives, so that a node can be reopened.
#[derive(Debug, Default)]
pub struct MemoryHome {
    present: Mutex<Arc<MemoryStore>>,
    /// Begun and not finished, by number.
    next: Mutex<BTreeMap<u64, Arc<MemoryStore>>>,
    /// Of the last that was begun.
    last: AtomicU64,
}

impl MemoryHome {
    /// What is found after the power went. Writes since the last checkpoint survive in their order, as long as
    /// `survives` says so; a replacement that was not finished is gone.
    pub fn after_power_cut(&self, mut survives: impl FnMut() -> bool) -> Self {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let found = present.with(|content| {
            let mut found = content.durable.clone();
            for (ops, applied) in &content.since {
                if !survives() {
                    break;
                }
                found.perform(ops, *applied);
            }
            found
        });
        Self {
            present: Mutex::new(Arc::new(MemoryStore(Mutex::new(Content {
                now: found.clone(),
                durable: found,
                since: Vec::new(),
            })))),
            ..Self::default()
        }
    }
}

#[derive(Debug, Default)]
struct MemoryStore(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    now: Rows,
    /// As of the last checkpoint.
    durable: Rows,
    /// Writes since then.
    since: Vec<(Vec<ArchiveOp>, u64)>,
}

#[derive(Debug, Default, Clone)]
struct Rows {
    rows: BTreeMap<Bytes, Bytes>,
    applied: u64,
    owner: Option<String>,
    missing: Option<u64>,
}

impl Rows {
    fn perform(&mut self, ops: &[ArchiveOp], applied: u64) {
        for op in ops {
            match op {
                ArchiveOp::Put { key, value } => {
                    self.rows.insert(key.clone(), value.clone());
                }
                ArchiveOp::Delete { key } => {
                    self.rows.remove(key);
                }
            }
        }
        self.applied = applied;
    }
}

impl MemoryStore {
    fn with<T>(&self, run: impl FnOnce(&mut Content) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MemoryHome {
    fn next(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<MemoryStore>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn begin(&self) -> io::Result<(u64, Arc<dyn ArchiveStore>)> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let store = Arc::<MemoryStore>::default();
        self.next().insert(number, Arc::clone(&store));
        Ok((number, store))
    }

    fn finish(&self, number: u64) -> io::Result<u64> {
        let next = self.next().remove(&number);
        let next = next.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = next;
        // Goes with its last handle.
        Ok(0)
    }

    fn discard(&self, number: u64) {
        self.next().remove(&number);
    }
}

impl ArchiveStore for MemoryStore {
    fn applied(&self) -> io::Result<u64> {
        Ok(self.with(|content| content.now.applied))
    }

    fn owner(&self) -> io::Result<Option<String>> {
        Ok(self.with(|content| content.now.owner.clone()))
    }

    fn set_owner(&self, cluster_id: &str) -> io::Result<()> {
        self.with(|content| {
            content.now.owner = Some(cluster_id.to_owned());
            content.durable.owner = content.now.owner.clone();
        });
        Ok(())
    }

    fn missing(&self) -> io::Result<Option<u64>> {
        Ok(self.with(|content| content.now.missing))
    }

    fn set_missing(&self, upto: Option<u64>) -> io::Result<()> {
        self.with(|content| content.now.missing = upto);
        self.checkpoint()
    }

    fn write(&self, ops: &[ArchiveOp], reached: u64) -> io::Result<()> {
        self.with(|content| {
            content.now.perform(ops, reached);
            content.since.push((ops.to_vec(), reached));
        });
        Ok(())
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.with(|content| content.now.rows.get(key).cloned()))
    }

    fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> io::Result<Vec<Row>> {
        Ok(self.with(|content| {
            let within = content
                .now
                .rows
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
        self.with(|content| {
            content.durable = content.now.clone();
            content.since.clear();
        });
        Ok(())
    }
}
