//! Merge pools: what Tide last decided for each branch.

use std::sync::Arc;

use trireme_proto::state::{Done, MergePool, PutPool};

use crate::{
    State,
    apply::Entry,
    change::{Change, RecordKey},
    digest::Sum,
    limits::MAX_POOLS,
    reject::{Verdict, exhausted, invalid, name, record_size},
    table::{Record, Table},
};

/// (org, repo, branch)
type Key = (String, String, String);

impl Record for MergePool {
    const KIND: u8 = 7;
    type Key = Key;

    fn key(&self) -> Key {
        (self.org.clone(), self.repo.clone(), self.branch.clone())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pools {
    rows: Table<MergePool>,
}

impl Pools {
    pub(crate) fn put(&mut self, digest: &mut Sum, pool: Arc<MergePool>) -> Option<Arc<MergePool>> {
        self.rows.put(digest, pool)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<MergePool>> {
        self.rows.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}

pub(crate) fn put(state: &mut State, entry: &mut Entry, command: &PutPool) -> Verdict {
    let Some(asked) = &command.pool else {
        return Err(invalid("no pool"));
    };
    name("org", &asked.org)?;
    name("repo", &asked.repo)?;
    name("branch", &asked.branch)?;
    let former = state.pools.rows.get(&asked.key()).cloned();
    if command.remove {
        if former.is_none() {
            return Ok(Done {
                duplicate: true,
                ..Done::default()
            });
        }
        state.pools.rows.remove(&mut state.digest, &asked.key());
        let (org, repo, branch) = asked.key();
        entry.changed(Change::Removed(RecordKey::Pool { org, repo, branch }));
        return Ok(Done::default());
    }
    record_size("the pool", asked)?;
    if former.is_none() && state.pools.len() >= MAX_POOLS {
        return Err(exhausted("pools", MAX_POOLS));
    }
    let mut next = asked.clone();
    if let Some(former) = &former {
        // Batch ids derive from it: going back would name a new batch like an old one.
        next.batches = next.batches.max(former.batches);
        next.version = former.version;
        next.updated_ms = former.updated_ms;
        if next == **former {
            return Ok(Done {
                duplicate: true,
                ..Done::default()
            });
        }
    }
    next.version = entry.index;
    next.updated_ms = entry.stamp_ms;
    let pool = Arc::new(next);
    state.pools.put(&mut state.digest, pool.clone());
    entry.changed(Change::Pool(pool));
    Ok(Done::default())
}

impl State {
    /// All pools, by (org, repo, branch).
    pub fn pools(&self) -> impl Iterator<Item = &Arc<MergePool>> {
        self.pools.iter()
    }

    pub fn pool(&self, org: &str, repo: &str, branch: &str) -> Option<&Arc<MergePool>> {
        self.pools
            .rows
            .get(&(org.to_owned(), repo.to_owned(), branch.to_owned()))
    }
}
