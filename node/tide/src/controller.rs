//! The controller: what wakes a pool, and the loops of one term of office.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, sleep_until};
use trireme_forge::{Forge, git::Mirrors};
use trireme_in_repo::InRepo;
use trireme_office::{
    Backoff, ConfigFeed, Controller, ControllerError, KeyedQueue, Office, RunningConfig,
};
use trireme_proto::state::{JobType, PullRequest};
use trireme_state::{
    Change, State,
    limits::{MAX_POOLS, MAX_PULL_REQUESTS},
};

use crate::{
    pool::PoolKey,
    session::{Memory, PullKey, Session},
    sweep::Progress,
};

/// Statuses that are written at once.
const STATUS_WORKERS: usize = 4;
/// Before following again after changes were missed.
const REWATCH: Duration = Duration::from_millis(100);
/// `tide.sync_period` if it is not set.
const SYNC_PERIOD: Duration = Duration::from_secs(60);
/// `tide.max_goroutines` if it is not set.
const POOL_WORKERS: usize = 20;

/// The waits of Tide. The defaults suit GitHub.
#[derive(Debug, Clone)]
pub struct Timing {
    /// From a change to the look at its pool, so that what comes together is looked at once.
    pub debounce: Duration,
    /// Between two merges of a batch: the forge computes mergeability anew (TIDE-091).
    pub merge_pause: Duration,
    /// Before asking again while the forge says that the base was just changed.
    pub base_changed: Vec<Duration>,
    /// Between two looks at a branch that does not show our last merge yet.
    pub base_look: Duration,
    /// How long a merge is waited for.
    pub call: Duration,
    /// A merge whose answer is lost may still happen for this long.
    pub in_flight: Duration,
    /// Between two looks at such a merge.
    pub observe: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(100),
            merge_pause: Duration::from_secs(5),
            base_changed: vec![Duration::from_secs(4), Duration::from_secs(8)],
            base_look: Duration::from_secs(1),
            call: Duration::from_secs(10),
            in_flight: Duration::from_secs(15),
            observe: Duration::from_secs(2),
        }
    }
}

/// Tests what is ready against the newest base, alone or in batches, and merges it.
pub struct Tide {
    forge: Arc<dyn Forge>,
    mirrors: Mirrors,
    in_repo: InRepo,
    feed: ConfigFeed,
    timing: Timing,
}

impl Tide {
    #[must_use]
    pub fn new(forge: Arc<dyn Forge>, mirrors: Mirrors, in_repo: InRepo, feed: ConfigFeed) -> Self {
        Self {
            forge,
            mirrors,
            in_repo,
            feed,
            timing: Timing::default(),
        }
    }

    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }
}

#[async_trait]
impl Controller for Tide {
    fn name(&self) -> &'static str {
        "tide"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let mut feed = self.feed.clone();
        let resigned = office.resigned();
        let first = tokio::select! {
            () = resigned.cancelled() => return Ok(()),
            first = feed.wait_for(Option::is_some) => match first {
                Ok(first) => first.clone(),
                Err(why) => return Err(ControllerError::Failed(why.into())),
            },
        };
        let workers = first.map_or(POOL_WORKERS, |running| pool_workers(&running));
        let session = Arc::new(Session {
            forge: Arc::clone(&self.forge),
            mirrors: self.mirrors.clone(),
            in_repo: self.in_repo.clone(),
            feed: self.feed.clone(),
            timing: self.timing.clone(),
            memory: Memory::default(),
            pools: KeyedQueue::new("tide_pools", workers, Backoff::default()),
            statuses: KeyedQueue::new("tide_statuses", STATUS_WORKERS, Backoff::default()),
            office,
        });
        let _gauges = (
            session.pools.gauge(session.office.queues(), MAX_POOLS),
            session
                .statuses
                .gauge(session.office.queues(), MAX_PULL_REQUESTS),
        );
        // Each ends when the office does; merges under way are given the grace that the keeper gives.
        tokio::join!(
            session.work_pools(),
            session.work_statuses(),
            session.repair(feed),
            session.follow(),
        );
        Ok(())
    }
}

fn pool_workers(running: &RunningConfig) -> usize {
    let configured = running.config.prow.tide.max_goroutines;
    usize::try_from(configured)
        .ok()
        .filter(|workers| *workers > 0)
        .unwrap_or(POOL_WORKERS)
}

fn sync_period(running: &RunningConfig) -> Duration {
    let configured = running.config.prow.tide.sync_period;
    configured
        .map(|period| period.get().to_std())
        .filter(|period| !period.is_zero())
        .unwrap_or(SYNC_PERIOD)
}

impl Session {
    async fn work_pools(self: &Arc<Self>) {
        self.pools
            .run(self.office.resigned(), |key: PoolKey, _| {
                let session = Arc::clone(self);
                async move { session.sync_pool(&key).await }
            })
            .await;
    }

    async fn work_statuses(self: &Arc<Self>) {
        self.statuses
            .run(self.office.resigned(), |key: PullKey, _| {
                let session = Arc::clone(self);
                async move { session.send_status(&key).await }
            })
            .await;
    }

    /// On taking office, after each period and with each configuration: searches, then a look at every pool.
    async fn repair(&self, mut feed: ConfigFeed) {
        let resigned = self.office.resigned();
        let mut progress = Progress::default();
        while !resigned.is_cancelled() {
            let running = feed.borrow_and_update().clone();
            let mut period = SYNC_PERIOD;
            if let Some(running) = running {
                period = sync_period(&running);
                // Pools whose intents are open need no search to settle them.
                self.wake_all();
                if let Err(trouble) = self.sweep(&running.config.prow.tide, &mut progress).await {
                    tracing::warn!(why = %trouble, "the repair of the mirror is incomplete, the next one is in {period:?}");
                }
                self.wake_all();
            }
            let next = Instant::now() + period;
            tokio::select! {
                () = resigned.cancelled() => return,
                () = sleep_until(next) => {}
                changed = feed.changed() => if changed.is_err() {
                    // The node is going down; so will the office.
                    return resigned.cancelled().await;
                },
            }
        }
    }

    /// Queues what each change of the state concerns.
    async fn follow(&self) {
        let resigned = self.office.resigned();
        loop {
            let mut watch = self.office.watch(self.office.view().revision);
            self.wake_all();
            loop {
                let batch = tokio::select! {
                    () = resigned.cancelled() => return,
                    batch = watch.next() => batch,
                };
                match batch {
                    Ok(batch) => batch
                        .changes
                        .iter()
                        .for_each(|change| self.wake_for(change)),
                    Err(why) => {
                        tracing::info!(%why, "changes were missed, looking at every pool");
                        break;
                    }
                }
            }
            tokio::select! {
                () = resigned.cancelled() => return,
                () = sleep(REWATCH) => {}
            }
        }
    }

    fn wake(&self, key: PoolKey) {
        self.pools.add_after(key, self.timing.debounce);
    }

    fn wake_all(&self) {
        for key in all_pools(&self.office.view()) {
            self.wake(key);
        }
    }

    fn wake_for(&self, change: &Change) {
        let key = |org: &str, repo: &str, branch: &str| PoolKey {
            org: org.to_owned(),
            repo: repo.to_owned(),
            branch: branch.to_owned(),
        };
        match change {
            Change::PullRequest(pull) => {
                self.wake(of_pull(pull));
                self.wake_former_pools(pull);
            }
            Change::Job(job) if matches!(job.r#type(), JobType::Presubmit | JobType::Batch) => {
                self.wake(key(&job.org, &job.repo, &job.base_ref));
            }
            // A status that is told counts differently from one that is owed.
            Change::Report(report) => {
                if let Some(job) = self.office.view().job(&report.job_id) {
                    self.wake(key(&job.org, &job.repo, &job.base_ref));
                }
            }
            Change::Delivery(delivery) if delivery.event == "push" => {
                let branch = delivery.r#ref.strip_prefix("refs/heads/");
                let branch = branch.unwrap_or(&delivery.r#ref);
                let view = self.office.view();
                if view.pool(&delivery.org, &delivery.repo, branch).is_some() {
                    self.wake(key(&delivery.org, &delivery.repo, branch));
                }
            }
            Change::Config(_) => self.wake_all(),
            _ => {}
        }
    }

    /// A pull request may have been moved to another branch: the pool that still lists it is looked at too.
    fn wake_former_pools(&self, pull: &PullRequest) {
        let view = self.office.view();
        for pool in view.pools() {
            let listed = (&pool.org, &pool.repo) == (&pull.org, &pull.repo)
                && pool.branch != pull.base_ref
                && [&pool.success, &pool.pending, &pool.missing]
                    .iter()
                    .any(|list| list.iter().any(|member| member.number == pull.number));
            if listed {
                self.wake(PoolKey {
                    org: pool.org.clone(),
                    repo: pool.repo.clone(),
                    branch: pool.branch.clone(),
                });
            }
        }
    }
}

fn of_pull(pull: &PullRequest) -> PoolKey {
    PoolKey {
        org: pull.org.clone(),
        repo: pull.repo.clone(),
        branch: pull.base_ref.clone(),
    }
}

/// Every branch with an open pull request, a recorded pool, or a merge that is not settled.
fn all_pools(state: &State) -> BTreeSet<PoolKey> {
    let pools = state.pools().map(|pool| PoolKey {
        org: pool.org.clone(),
        repo: pool.repo.clone(),
        branch: pool.branch.clone(),
    });
    let intents = state.open_intents().map(|intent| PoolKey {
        org: intent.org.clone(),
        repo: intent.repo.clone(),
        branch: intent.branch.clone(),
    });
    let open = state.open_pull_requests().map(|pull| of_pull(pull));
    open.chain(pools).chain(intents).collect()
}
