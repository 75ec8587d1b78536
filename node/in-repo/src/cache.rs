//! What was read, by the commits that it was read from (CFG-083): bounded in number, bytes and age, the least recently
//! used goes first. Who asks for what somebody is just reading waits for that one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;
use trireme_forge::{MergeMethod, RepoId};

use crate::CacheLimits;
use crate::metrics::{CacheEvent, InRepoMetrics};

/// Names a state of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) repo: RepoId,
    pub(crate) base: String,
    /// In the order in which they are merged.
    pub(crate) heads: Vec<String>,
    /// Rebased heads may come to something else than merged ones.
    pub(crate) method: MergeMethod,
}

type Work<V, E> = BoxFuture<'static, Result<V, E>>;

pub(crate) struct Cache<V: Clone, E: Clone> {
    limits: CacheLimits,
    weigh: fn(&V) -> u64,
    metrics: InRepoMetrics,
    state: Mutex<State<V, E>>,
}

struct State<V: Clone, E: Clone> {
    kept: BTreeMap<Key, Kept<V>>,
    /// Least recent first.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: u64,
    /// Held by those who wait alone: when nobody does any more, the work is dropped with its child processes.
    under_way: BTreeMap<Key, (u64, WeakShared<Work<V, E>>)>,
}

struct Kept<V> {
    value: V,
    bytes: u64,
    /// In `by_use`.
    used: u64,
    at: Instant,
}

impl<V: Clone, E: Clone> fmt::Debug for Cache<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl<V: Clone, E: Clone> Cache<V, E> {
    pub(crate) fn new(limits: CacheLimits, weigh: fn(&V) -> u64, metrics: InRepoMetrics) -> Self {
        Self {
            limits,
            weigh,
            metrics,
            state: Mutex::new(State {
                kept: BTreeMap::new(),
                by_use: BTreeMap::new(),
                uses: 0,
                bytes: 0,
                under_way: BTreeMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<V, E>> {
        // Each change is made whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, from memory, from somebody who is at it, or made now. A failure reaches all who wait, and is not kept.
    pub(crate) async fn get(&self, key: &Key, make: impl FnOnce() -> Work<V, E>) -> Result<V, E> {
        let (id, work) = match self.find(key, make) {
            Ok(value) => return Ok(value),
            Err(work) => work,
        };
        let made = work.await;
        self.settle(key, id, &made);
        made
    }

    fn find(
        &self,
        key: &Key,
        make: impl FnOnce() -> Work<V, E>,
    ) -> Result<V, (u64, Shared<Work<V, E>>)> {
        let mut state = self.state();
        self.drop_old(&mut state);
        if let Some(value) = state.touch(key) {
            self.metrics.count(&key.repo, CacheEvent::Hit);
            return Ok(value);
        }
        if let Some((id, work)) = state.under_way.get(key)
            && let Some(work) = work.upgrade()
        {
            self.metrics.count(&key.repo, CacheEvent::Hit);
            return Err((*id, work));
        }
        self.metrics.count(&key.repo, CacheEvent::Miss);
        let work = make().shared();
        state.uses += 1;
        let id = state.uses;
        // What was abandoned is found again here at the latest.
        state
            .under_way
            .retain(|_, (_, work)| work.upgrade().is_some());
        if let Some(weak) = work.downgrade() {
            state.under_way.insert(key.clone(), (id, weak));
        }
        Err((id, work))
    }

    /// The first of those who waited puts the value in.
    fn settle(&self, key: &Key, id: u64, made: &Result<V, E>) {
        let mut state = self.state();
        match state.under_way.get(key) {
            Some((current, _)) if *current == id => state.under_way.remove(key),
            _ => return,
        };
        let Ok(value) = made else {
            self.metrics.count(&key.repo, CacheEvent::Failed);
            return;
        };
        let bytes = (self.weigh)(value);
        state.uses += 1;
        let used = state.uses;
        state.by_use.insert(used, key.clone());
        state.bytes += bytes;
        let kept = Kept {
            value: value.clone(),
            bytes,
            used,
            at: Instant::now(),
        };
        state.kept.insert(key.clone(), kept);
        self.metrics.count(&key.repo, CacheEvent::Kept);
        while state.kept.len() > self.limits.entries || state.bytes > self.limits.bytes {
            if !self.drop_first(&mut state) {
                break;
            }
        }
    }

    fn drop_old(&self, state: &mut State<V, E>) {
        while let Some((_, key)) = state.by_use.first_key_value()
            && state
                .kept
                .get(key)
                .is_none_or(|kept| kept.at.elapsed() > self.limits.age)
        {
            self.drop_first(state);
        }
    }

    fn drop_first(&self, state: &mut State<V, E>) -> bool {
        let Some((_, key)) = state.by_use.pop_first() else {
            return false;
        };
        if let Some(kept) = state.kept.remove(&key) {
            state.bytes -= kept.bytes;
            self.metrics.count(&key.repo, CacheEvent::Evicted);
        }
        true
    }

    /// Whether it is there or soon will be.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        let state = self.state();
        let under_way = state.under_way.get(key);
        state.kept.contains_key(key) || under_way.is_some_and(|(_, work)| work.upgrade().is_some())
    }

    /// What is made of the most recently used value whose key is wanted and that something can be made of. Counts as no
    /// use.
    pub(crate) fn peek<T>(
        &self,
        wanted: impl Fn(&Key) -> bool,
        make: impl Fn(&V) -> Option<T>,
    ) -> Option<T> {
        let state = self.state();
        let keys = state.by_use.values().rev().filter(|key| wanted(key));
        keys.filter_map(|key| state.kept.get(key))
            .find_map(|kept| make(&kept.value))
    }
}

impl<V: Clone, E: Clone> State<V, E> {
    fn touch(&mut self, key: &Key) -> Option<V> {
        let kept = self.kept.get_mut(key)?;
        self.uses += 1;
        self.by_use.remove(&kept.used);
        self.by_use.insert(self.uses, key.clone());
        (kept.used, kept.at) = (self.uses, Instant::now());
        Some(kept.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Barrier;

    use super::*;

    fn key(base: &str, heads: &[&str]) -> Key {
        Key {
            repo: RepoId::new("org", "repo"),
            base: base.to_owned(),
            heads: heads.iter().map(|head| (*head).to_owned()).collect(),
            method: MergeMethod::Merge,
        }
    }

    struct Shelf {
        cache: Cache<&'static str, &'static str>,
        made: Arc<AtomicUsize>,
    }

    impl Shelf {
        fn new(limits: CacheLimits) -> Self {
            Self {
                cache: Cache::new(limits, |text| text.len() as u64, InRepoMetrics::default()),
                made: Arc::default(),
            }
        }

        async fn get(
            &self,
            key: &Key,
            result: Result<&'static str, &'static str>,
        ) -> Result<&'static str, &'static str> {
            let make = || {
                let made = Arc::clone(&self.made);
                async move {
                    made.fetch_add(1, Ordering::SeqCst);
                    result
                }
                .boxed()
            };
            self.cache.get(key, make).await
        }

        fn made(&self) -> usize {
            self.made.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn cfg_083_the_key_is_repository_base_and_heads_in_order() {
        let shelf = Shelf::new(CacheLimits::default());
        for (key, made) in [
            (key("b", &["1", "2"]), 1),
            (key("b", &["1", "2"]), 1),
            (key("b", &["2", "1"]), 2),
            (key("c", &["1", "2"]), 3),
            (key("b", &[]), 4),
        ] {
            assert_eq!(shelf.get(&key, Ok("x")).await, Ok("x"));
            assert_eq!(shelf.made(), made, "{key:?}");
        }
        let other = Key {
            repo: RepoId::new("org", "other"),
            ..key("b", &[])
        };
        shelf.get(&other, Ok("x")).await.unwrap();
        assert_eq!(shelf.made(), 5);
    }

    #[tokio::test]
    async fn cfg_083_failures_are_not_kept() {
        let shelf = Shelf::new(CacheLimits::default());
        let key = key("b", &[]);
        assert_eq!(shelf.get(&key, Err("down")).await, Err("down"));
        assert!(!shelf.cache.holds(&key));
        assert_eq!(shelf.get(&key, Ok("x")).await, Ok("x"));
        assert_eq!(shelf.made(), 2);
    }

    #[tokio::test]
    async fn cfg_083_who_asks_meanwhile_shares_the_work_and_its_failure() {
        let shelf = Arc::new(Shelf::new(CacheLimits::default()));
        for result in [Err("down"), Ok("x")] {
            let before = shelf.made();
            let gate = Arc::new(Barrier::new(2));
            let asking: Vec<_> = (0..5)
                .map(|_| {
                    let (shelf, gate) = (Arc::clone(&shelf), Arc::clone(&gate));
                    tokio::spawn(async move {
                        let make = || {
                            shelf.made.fetch_add(1, Ordering::SeqCst);
                            async move {
                                gate.wait().await;
                                result
                            }
                            .boxed()
                        };
                        shelf.cache.get(&key("b", &["h"]), make).await
                    })
                })
                .collect();
            // All of them have asked before the work goes on: the runtime has one thread.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            gate.wait().await;
            for asked in asking {
                assert_eq!(asked.await.unwrap(), result);
            }
            assert_eq!(shelf.made() - before, 1, "{result:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_dropped_and_made_anew() {
        let shelf = Shelf::new(CacheLimits::default());
        let key = key("b", &[]);
        let never = || futures::future::pending().boxed();
        let mut waiting = Box::pin(shelf.cache.get(&key, never));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(shelf.cache.holds(&key));
        drop(waiting);
        assert!(!shelf.cache.holds(&key));
        assert_eq!(shelf.get(&key, Ok("x")).await, Ok("x"));
    }

    #[tokio::test(start_paused = true)]
    async fn cfg_086_bounded_by_number_bytes_and_age() {
        let shelf = Shelf::new(CacheLimits {
            entries: 2,
            bytes: 10,
            age: Duration::from_secs(60),
        });
        let (a, b, c) = (key("a", &[]), key("b", &[]), key("c", &[]));
        shelf.get(&a, Ok("1")).await.unwrap();
        shelf.get(&b, Ok("2")).await.unwrap();
        shelf.get(&a, Ok("1")).await.unwrap();
        shelf.get(&c, Ok("3")).await.unwrap();
        let held = |shelf: &Shelf| [&a, &b, &c].map(|key| shelf.cache.holds(key));
        assert_eq!(held(&shelf), [true, false, true]);

        shelf.get(&b, Ok("123456789")).await.unwrap();
        assert_eq!(held(&shelf), [false, true, true]);
        shelf.get(&a, Ok("12345678901")).await.unwrap();
        assert_eq!(held(&shelf), [false; 3], "larger than the whole");

        shelf.get(&a, Ok("1")).await.unwrap();
        tokio::time::advance(Duration::from_secs(50)).await;
        shelf.get(&b, Ok("2")).await.unwrap();
        shelf.get(&a, Ok("1")).await.unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        shelf.get(&a, Ok("1")).await.unwrap();
        assert_eq!(held(&shelf), [true, true, false]);
        tokio::time::advance(Duration::from_secs(2)).await;
        shelf.get(&a, Ok("1")).await.unwrap();
        assert_eq!(held(&shelf), [true, false, false]);
    }

    #[tokio::test]
    async fn a_state_on_another_base_is_found_by_its_heads() {
        let shelf = Shelf::new(CacheLimits::default());
        shelf.get(&key("old", &["h"]), Ok("old")).await.unwrap();
        shelf.get(&key("new", &["h"]), Ok("new")).await.unwrap();
        shelf.get(&key("new", &["i"]), Ok("other")).await.unwrap();
        let heads = |head: &'static str| {
            let made = |value: &&'static str| (*value != "other").then_some(*value);
            shelf.cache.peek(move |key| key.heads == [head], made)
        };
        assert_eq!(heads("h"), Some("new"));
        assert_eq!(heads("none"), None);
        assert_eq!(heads("i"), None, "nothing can be made of it");
    }
}
