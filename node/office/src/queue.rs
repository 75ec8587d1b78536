//! Work keyed by what it is about: one key runs once at a time, different keys run side by side.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt as _;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use trireme_raft::{QueueGauge, Queues};

/// How long to wait after a failure: `base` doubled per consecutive failure up to `max`, times a random factor
/// between 1 and 1 + `jitter`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
    pub jitter: f64,
}

impl Default for Backoff {
    /// 200 ms to 60 s, up to a quarter more.
    fn default() -> Self {
        Self {
            base: Duration::from_millis(200),
            max: Duration::from_secs(60),
            jitter: 0.25,
        }
    }
}

impl Backoff {
    /// The wait after the `failures`-th consecutive failure, counted from 1.
    #[must_use]
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let wait = self.base.saturating_mul(1 << doublings).min(self.max);
        wait.mul_f64(1.0 + rand::rng().random_range(0.0..=self.jitter.max(0.0)))
    }
}

/// An outage lasts longer than a failure: its first wait is the base doubled so often.
const FIRST_OUTAGE_DOUBLINGS: u32 = 2;

/// What became of one run of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Nothing is left to do until the key is added again.
    Done,
    /// Nothing failed; look again after this long, or sooner when the key is added.
    After(Duration),
    /// Nothing failed; do not look again before, whatever is added.
    NotBefore(Duration),
    /// Failed; tried again after a backoff, and counted.
    Retry(String),
    /// What it needs is away (forge down, rate limit, no quorum); tried again after the time given or a backoff that grows
    /// with every outage in a row, and not counted against it. What is added meanwhile does not end it, [`KeyedQueue::wake`]
    /// does.
    Outage(String, Option<Duration>),
}

/// Something beside a worker that keys need, and how many of them may have it at once: a key that has to wait for it keeps
/// no worker from the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    pub of: String,
    pub most: usize,
}

/// A level-triggered queue of keys. Cheap to clone; all clones are one queue.
///
/// Its length is bounded by the number of distinct keys, which controllers derive from records of the state; a key
/// is held once however often it is added.
pub struct KeyedQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for KeyedQueue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<K> {
    name: &'static str,
    workers: usize,
    backoff: Backoff,
    shares: fn(&K) -> Vec<Share>,
    inner: Mutex<Inner<K>>,
    changed: Notify,
}

struct Inner<K> {
    ready: Ready<K>,
    running: BTreeSet<K>,
    /// Added while running: run again afterwards.
    again: BTreeSet<K>,
    delayed: BTreeMap<K, Instant>,
    /// The same, the earliest first: tens of thousands wait while a forge is away.
    due: BTreeSet<(Instant, K)>,
    /// Of the delayed ones those that an addition does not hasten.
    held: BTreeSet<K>,
    failures: BTreeMap<K, u32>,
    /// Outages in a row.
    outages: BTreeMap<K, u32>,
}

/// Keys that may run: those with the same shares in order of arrival, each kind of them in its turn.
struct Ready<K> {
    kinds: BTreeMap<Vec<Share>, VecDeque<K>>,
    /// The kinds that have keys.
    turns: VecDeque<Vec<Share>>,
    queued: BTreeSet<K>,
    /// How many that run have a share, by what it is of.
    taken: BTreeMap<String, usize>,
}

impl<K: Ord + Clone> Ready<K> {
    fn push(&mut self, key: K, shares: Vec<Share>) {
        if !self.queued.insert(key.clone()) {
            return;
        }
        let keys = self.kinds.entry(shares.clone()).or_default();
        if keys.is_empty() {
            self.turns.push_back(shares);
        }
        keys.push_back(key);
    }

    /// The first key of the first kind of which another may run.
    fn take(&mut self) -> Option<K> {
        for _ in 0..self.turns.len() {
            let kind = self.turns.pop_front()?;
            let is_free = |share: &Share| {
                self.taken
                    .get(&share.of)
                    .is_none_or(|taken| *taken < share.most)
            };
            if !kind.iter().all(is_free) {
                self.turns.push_back(kind);
                continue;
            }
            let keys = self.kinds.get_mut(&kind)?;
            let key = keys.pop_front()?;
            for share in &kind {
                *self.taken.entry(share.of.clone()).or_insert(0) += 1;
            }
            match keys.is_empty() {
                true => drop(self.kinds.remove(&kind)),
                false => self.turns.push_back(kind),
            }
            self.queued.remove(&key);
            return Some(key);
        }
        None
    }

    fn give_back(&mut self, shares: &[Share]) {
        for share in shares {
            if let Some(taken) = self.taken.get_mut(&share.of) {
                *taken -= 1;
                if *taken == 0 {
                    self.taken.remove(&share.of);
                }
            }
        }
    }
}

impl<K: Ord + Clone> Inner<K> {
    /// Lets the key run, unless it is held.
    fn enqueue(&mut self, key: K, shares: fn(&K) -> Vec<Share>) {
        if self.held.contains(&key) {
            return;
        }
        self.no_longer_delayed(&key);
        if self.running.contains(&key) {
            self.again.insert(key);
        } else {
            let shares = shares(&key);
            self.ready.push(key, shares);
        }
    }

    fn enqueue_due(&mut self, now: Instant, shares: fn(&K) -> Vec<Share>) {
        while self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.due.pop_first()
        {
            self.no_longer_delayed(&key);
            self.enqueue(key, shares);
        }
    }

    fn no_longer_delayed(&mut self, key: &K) {
        self.held.remove(key);
        if let Some(at) = self.delayed.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.take()?;
        self.running.insert(key.clone());
        Some(key)
    }

    fn delay(&mut self, key: K, at: Instant) {
        if self.ready.queued.contains(&key)
            || self.running.contains(&key)
            || self.held.contains(&key)
        {
            return;
        }
        let earliest = self.delayed.get(&key).map_or(at, |was| at.min(*was));
        self.no_longer_delayed(&key);
        self.due.insert((earliest, key.clone()));
        self.delayed.insert(key, earliest);
    }

    /// As [`Self::delay`], whatever is added meanwhile.
    fn hold(&mut self, key: K, at: Instant) {
        self.delay(key.clone(), at);
        if self.delayed.contains_key(&key) {
            self.held.insert(key);
        }
    }
}

impl<K: Ord + Clone + Send + Sync + Debug + 'static> KeyedQueue<K> {
    /// `workers` keys at most run at once.
    #[must_use]
    pub fn new(name: &'static str, workers: usize, backoff: Backoff) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                workers: workers.max(1),
                backoff,
                shares: |_| Vec::new(),
                inner: Mutex::new(Inner {
                    ready: Ready {
                        kinds: BTreeMap::new(),
                        turns: VecDeque::new(),
                        queued: BTreeSet::new(),
                        taken: BTreeMap::new(),
                    },
                    running: BTreeSet::new(),
                    again: BTreeSet::new(),
                    delayed: BTreeMap::new(),
                    due: BTreeSet::new(),
                    held: BTreeSet::new(),
                    failures: BTreeMap::new(),
                    outages: BTreeMap::new(),
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Bounds how many keys that share something run at once, and takes kinds of keys in turn. Does nothing to a queue that
    /// was cloned already.
    #[must_use]
    pub fn sharing(mut self, shares: fn(&K) -> Vec<Share>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.shares = shares;
        }
        self
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K>> {
        // A panicking worker holds no lock while it works, so the sets are whole even then.
        self.shared
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the key soon; once more after its present run if it is running. One that is held back by an outage runs when
    /// that is over.
    pub fn add(&self, key: K) {
        self.inner().enqueue(key, self.shared.shares);
        self.shared.changed.notify_one();
    }

    /// As [`Self::add`], and ends an outage that holds the key back: for whoever knows that it is over.
    pub fn wake(&self, key: K) {
        let mut inner = self.inner();
        inner.held.remove(&key);
        inner.outages.remove(&key);
        inner.enqueue(key, self.shared.shares);
        drop(inner);
        self.shared.changed.notify_one();
    }

    /// Runs the key after `delay` unless something adds it earlier.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.inner().delay(key, Instant::now() + delay);
        self.shared.changed.notify_one();
    }

    /// Keys waiting or delayed, and keys running.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        let inner = self.inner();
        (
            inner.ready.queued.len() + inner.delayed.len(),
            inner.running.len(),
        )
    }

    /// Shows the queue in the node's metrics while the answer is kept. `capacity` is the bound of the records that keys are
    /// derived from.
    pub fn gauge(&self, queues: &Queues, capacity: usize) -> QueueGauge {
        let shared = Arc::downgrade(&self.shared);
        queues.register(self.shared.name, capacity, move || {
            let Some(shared) = shared.upgrade() else {
                return 0;
            };
            let queue = Self { shared };
            let (waiting, running) = queue.depth();
            (waiting + running) as u64
        })
    }

    /// Works until `resigned`, then waits for what is running; `work` gets the key and how often in a row it failed.
    pub async fn run<F, Fut>(&self, resigned: CancellationToken, work: F)
    where
        F: Fn(K, u32) -> Fut,
        Fut: Future<Output = Work> + Send + 'static,
    {
        let mut tasks: JoinSet<()> = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            if resigned.is_cancelled() {
                break;
            }
            let next = {
                let mut inner = self.inner();
                inner.enqueue_due(Instant::now(), self.shared.shares);
                if inner.running.len() < self.shared.workers {
                    inner.take()
                } else {
                    None
                }
            };
            if let Some(key) = next {
                let failures = self.inner().failures.get(&key).copied().unwrap_or(0);
                let running = Running {
                    queue: self.clone(),
                    key: Some(key.clone()),
                };
                let job = work(key, failures);
                tasks.spawn(async move {
                    let outcome = job.await;
                    running.finish(outcome);
                });
                continue;
            }
            let wake = self.inner().next_due();
            tokio::select! {
                () = resigned.cancelled() => {}
                () = self.shared.changed.notified() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Puts the key back in order however its run ends: a panic counts as a failure.
struct Running<K: Ord + Clone + Send + Sync + Debug + 'static> {
    queue: KeyedQueue<K>,
    key: Option<K>,
}

impl<K: Ord + Clone + Send + Sync + Debug + 'static> Running<K> {
    fn finish(mut self, outcome: Work) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Work) {
        let Some(key) = self.key.take() else { return };
        let shared = &self.queue.shared;
        let mut inner = self.queue.inner();
        inner.running.remove(&key);
        inner.ready.give_back(&(shared.shares)(&key));
        let again = inner.again.remove(&key);
        if !matches!(outcome, Work::Outage(..)) {
            inner.outages.remove(&key);
        }
        let delay = match outcome {
            Work::Done => {
                inner.failures.remove(&key);
                None
            }
            Work::After(delay) => {
                inner.failures.remove(&key);
                Some(delay)
            }
            Work::NotBefore(delay) => {
                inner.failures.remove(&key);
                inner.hold(key, Instant::now() + delay);
                drop(inner);
                shared.changed.notify_one();
                return;
            }
            Work::Retry(why) => {
                let failures = inner.failures.entry(key.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                let delay = shared.backoff.after(*failures);
                tracing::warn!(queue = shared.name, ?key, failures = *failures, ?delay, %why, "failed, will be tried again");
                Some(delay)
            }
            Work::Outage(why, wait) => {
                let outages = inner.outages.entry(key.clone()).or_insert(0);
                *outages = outages.saturating_add(1);
                let delay = wait.unwrap_or_else(|| {
                    shared
                        .backoff
                        .after(outages.saturating_add(FIRST_OUTAGE_DOUBLINGS))
                });
                tracing::warn!(queue = shared.name, ?key, ?delay, %why, "paused by an outage");
                // A change does not end an outage: the wait holds even if the key is added meanwhile.
                inner.hold(key, Instant::now() + delay);
                drop(inner);
                shared.changed.notify_one();
                return;
            }
        };
        match delay {
            _ if again => inner.enqueue(key, shared.shares),
            Some(delay) => inner.delay(key, Instant::now() + delay),
            None => {}
        }
        drop(inner);
        shared.changed.notify_one();
    }
}

impl<K: Ord + Clone + Send + Sync + Debug + 'static> Drop for Running<K> {
    fn drop(&mut self) {
        self.settle(Work::Retry(
            "the worker panicked or was cancelled".to_owned(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc;

    use super::*;

    fn quick() -> Backoff {
        Backoff {
            base: Duration::from_millis(1),
            max: Duration::from_millis(4),
            jitter: 0.0,
        }
    }

    fn quick_to(max: Duration) -> Backoff {
        Backoff {
            base: Duration::from_secs(1),
            max,
            jitter: 0.0,
        }
    }

    async fn run_until<Fut>(
        queue: &KeyedQueue<u32>,
        work: impl Fn(u32, u32) -> Fut + Send + 'static,
    ) -> (CancellationToken, tokio::task::JoinHandle<()>)
    where
        Fut: Future<Output = Work> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (token, queue) = (stop.clone(), queue.clone());
        // `work` is not Sync, so the queue runs on a task of its own through a local wrapper.
        let work = Arc::new(std::sync::Mutex::new(work));
        let handle = tokio::spawn(async move {
            queue
                .run(token, move |key, failures| {
                    work.lock().unwrap()(key, failures)
                })
                .await;
        });
        (stop, handle)
    }

    #[tokio::test]
    async fn one_key_never_runs_twice_at_once_and_runs_again_when_added_meanwhile() {
        let queue = KeyedQueue::new("test", 8, quick());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let at_once = Arc::new(AtomicUsize::new(0));
        let (gate2, at_once2) = (Arc::clone(&gate), Arc::clone(&at_once));
        let (stop, handle) = run_until(&queue, move |key, _| {
            let (sender, gate, at_once) =
                (sender.clone(), Arc::clone(&gate2), Arc::clone(&at_once2));
            async move {
                assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
                sender.send(key).unwrap();
                gate.acquire().await.unwrap().forget();
                at_once.fetch_sub(1, Ordering::SeqCst);
                Work::Done
            }
        })
        .await;
        queue.add(7);
        assert_eq!(seen.recv().await, Some(7));
        queue.add(7);
        queue.add(7);
        gate.add_permits(2);
        assert_eq!(seen.recv().await, Some(7));
        stop.cancel();
        handle.await.unwrap();
        assert!(seen.try_recv().is_err());
    }

    #[tokio::test]
    async fn failures_are_counted_and_a_panic_is_one() {
        let queue = KeyedQueue::new("test", 1, quick());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let (stop, handle) = run_until(&queue, move |_, failures| {
            sender.send(failures).unwrap();
            async move {
                match failures {
                    0 => Work::Retry("no".to_owned()),
                    1 => panic!("planned"),
                    2 => Work::Outage("away".to_owned(), Some(Duration::from_millis(1))),
                    _ => Work::Done,
                }
            }
        })
        .await;
        queue.add(1);
        for expected in [0, 1, 2, 2] {
            assert_eq!(seen.recv().await, Some(expected));
        }
        stop.cancel();
        handle.await.unwrap();
    }

    #[tokio::test]
    async fn keys_run_side_by_side_up_to_the_bound() {
        let queue = KeyedQueue::new("test", 2, quick());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let gate2 = Arc::clone(&gate);
        let (stop, handle) = run_until(&queue, move |key, _| {
            let (sender, gate) = (sender.clone(), Arc::clone(&gate2));
            async move {
                sender.send(key).unwrap();
                gate.acquire().await.unwrap().forget();
                Work::Done
            }
        })
        .await;
        for key in 1..=3 {
            queue.add(key);
        }
        assert_eq!(seen.recv().await, Some(1));
        assert_eq!(seen.recv().await, Some(2));
        assert_eq!(queue.depth(), (1, 2));
        gate.add_permits(3);
        assert_eq!(seen.recv().await, Some(3));
        stop.cancel();
        handle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_run_when_they_are_due_the_earliest_first_and_at_once_when_added() {
        let queue = KeyedQueue::new("test", 1, quick());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let began = Instant::now();
        for key in 1_u32..=10_000 {
            queue.add_after(key, Duration::from_secs(20_000 - u64::from(key)));
        }
        queue.add_after(7, Duration::from_secs(30_000));
        queue.add_after(8, Duration::from_secs(1));
        queue.add(9);
        let (stop, handle) = run_until(&queue, move |key, _| {
            let sender = sender.clone();
            async move {
                sender.send((key, began.elapsed().as_secs())).unwrap();
                Work::Done
            }
        })
        .await;
        assert_eq!(seen.recv().await, Some((9, 0)));
        assert_eq!(seen.recv().await, Some((8, 1)));
        for key in (1..=10_000).rev().filter(|key| ![8, 9].contains(key)) {
            assert_eq!(seen.recv().await, Some((key, 20_000 - u64::from(key))));
        }
        assert_eq!(queue.depth(), (0, 0));
        stop.cancel();
        handle.await.unwrap();
        assert!(seen.try_recv().is_err());
    }

    /// Whoever waits for something that hangs keeps only so many workers, and the others go on in turn.
    #[tokio::test]
    async fn keys_that_share_something_leave_room_for_others() {
        let queue = KeyedQueue::new("test", 4, quick()).sharing(|key| {
            let share = |of: u32, most| Share {
                of: of.to_string(),
                most,
            };
            vec![share(key % 10, 2)]
        });
        let (sender, mut seen) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let gate2 = Arc::clone(&gate);
        for key in [11, 21, 31, 41, 12, 22] {
            queue.add(key);
        }
        let (stop, handle) = run_until(&queue, move |key, _| {
            let (sender, gate) = (sender.clone(), Arc::clone(&gate2));
            async move {
                sender.send(key).unwrap();
                if key % 10 == 1 {
                    gate.acquire().await.unwrap().forget();
                }
                Work::Done
            }
        })
        .await;
        let mut first = Vec::new();
        for _ in 0..4 {
            first.push(seen.recv().await.unwrap());
        }
        first.sort_unstable();
        assert_eq!(first, [11, 12, 21, 22]);
        queue.add(32);
        assert_eq!(seen.recv().await, Some(32));
        gate.add_permits(4);
        assert_eq!(seen.recv().await, Some(31));
        assert_eq!(seen.recv().await, Some(41));
        stop.cancel();
        handle.await.unwrap();
        assert!(queue.inner().ready.taken.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_holds_a_key_longer_each_time_until_somebody_knows_that_it_is_over() {
        let queue = KeyedQueue::new("test", 1, quick_to(Duration::from_secs(60)));
        let (sender, mut seen) = mpsc::unbounded_channel();
        let began = Instant::now();
        let (stop, handle) = run_until(&queue, move |key: u32, _| {
            let sender = sender.clone();
            async move {
                sender.send(began.elapsed().as_secs()).unwrap();
                match key {
                    1 => Work::Outage("away".to_owned(), None),
                    _ => Work::NotBefore(Duration::from_secs(100)),
                }
            }
        })
        .await;
        queue.add(1);
        assert_eq!(seen.recv().await, Some(0));
        for at in [4, 12, 28, 60, 120, 180] {
            queue.add(1);
            queue.add_after(1, Duration::from_secs(1));
            assert_eq!(seen.recv().await, Some(at));
        }
        queue.wake(1);
        assert_eq!(seen.recv().await, Some(180));
        assert_eq!(seen.recv().await, Some(184), "counted anew");
        stop.cancel();
        handle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_to_be_looked_at_before_is_not_hastened() {
        let queue = KeyedQueue::new("test", 1, quick());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let began = Instant::now();
        let (stop, handle) = run_until(&queue, move |_, _| {
            let sender = sender.clone();
            async move {
                sender.send(began.elapsed().as_secs()).unwrap();
                Work::NotBefore(Duration::from_secs(100))
            }
        })
        .await;
        queue.add(1);
        assert_eq!(seen.recv().await, Some(0));
        queue.add(1);
        assert_eq!(seen.recv().await, Some(100));
        stop.cancel();
        handle.await.unwrap();
    }

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let backoff = quick();
        let waits: Vec<u128> = (1..=5).map(|n| backoff.after(n).as_millis()).collect();
        assert_eq!(waits, [1, 2, 4, 4, 4]);
    }
}
