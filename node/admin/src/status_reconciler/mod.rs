//! Prow's `status-reconciler`: keeps open pull requests unstuck when the configuration changes. Newly required presubmits are
//! started, contexts of removed ones retired, contexts of renamed ones moved (ADM-090).
//!
//! Two positions lie in the log (ADM-098, ADM-099). The cursor of the configuration's deltas says up to which version
//! repositories were compared; beside it, each repository that is not in line yet has a cursor of its own, the version from
//! which it is behind. Comparing moves the first and makes the others in one command; a pass over a repository's pull
//! requests moves or ends its own. So each change is worked off once, whoever holds the office, and one repository's trouble
//! keeps no other back. Several versions may be one step: what is in line with the newest needs none of those between.

mod delta;
mod metrics;
mod pass;
mod settings;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;
use trireme_forge::{Forge, RepoId};
use trireme_in_repo::{InRepo, InRepoError};
use trireme_office::{
    Backoff, ConfigDeltas, ConfigFeed, ConfigVersions, Controller, ControllerError, DeltaError,
    KeyedQueue, Office, OfficeError, Pace, VersionError, Work,
};
use trireme_proto::state::{Alarm, Cursor, PutCursor, SetAlarm, command::Body};
use trireme_state::limits::{MAX_CURSORS, MAX_CURSORS_PER_COMMAND};

use delta::RepoDelta;
use pass::{Pass, Progress, Trouble};

pub use metrics::Metrics;
pub use settings::Options;

/// Names the controller and its cursors.
const NAME: &str = "status-reconciler";
/// Repositories at once: they must not eat up the forge's budget.
const WORKERS: usize = 2;
/// Failures in a row until an alarm tells, and the repository waits.
const MAX_TRIES: u32 = 5;
/// From giving up to the next tries; a newer version or a new holder of the office tries at once.
const REDRIVE: Duration = Duration::from_secs(3600);
/// Between looks whether runs whose jobs are gone have said their last.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// See the module.
pub struct StatusReconciler {
    forge: Arc<dyn Forge>,
    in_repo: InRepo,
    feed: ConfigFeed,
    versions: Arc<dyn ConfigVersions>,
    options: Options,
    metrics: Metrics,
    look_again: Duration,
}

impl StatusReconciler {
    #[must_use]
    pub fn new(
        forge: Arc<dyn Forge>,
        in_repo: InRepo,
        feed: ConfigFeed,
        versions: Arc<dyn ConfigVersions>,
        options: Options,
        metrics: Metrics,
    ) -> Self {
        Self {
            forge,
            in_repo,
            feed,
            versions,
            options,
            metrics,
            look_again: LOOK_AGAIN,
        }
    }

    /// Looks this often whether runs whose jobs are gone have ended.
    #[must_use]
    pub fn looking_again_after(mut self, wait: Duration) -> Self {
        self.look_again = wait;
        self
    }
}

/// One term of office.
struct Session {
    office: Office,
    forge: Arc<dyn Forge>,
    in_repo: InRepo,
    deltas: ConfigDeltas,
    options: Options,
    metrics: Metrics,
    look_again: Duration,
    queue: KeyedQueue<RepoId>,
    /// Held by whoever moves cursors, from the look at them on.
    ledger: tokio::sync::Mutex<()>,
    /// Of repositories that are being worked on.
    progress: Mutex<BTreeMap<RepoId, Progress>>,
}

#[async_trait]
impl Controller for StatusReconciler {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let deltas = ConfigDeltas::new(
            office.clone(),
            self.feed.clone(),
            Arc::clone(&self.versions),
            NAME,
            Pace::Newest,
        );
        let session = Arc::new(Session {
            forge: Arc::clone(&self.forge),
            in_repo: self.in_repo.clone(),
            deltas,
            options: self.options.clone(),
            metrics: self.metrics.clone(),
            look_again: self.look_again,
            queue: KeyedQueue::new("status_reconciler", WORKERS, Backoff::default()),
            ledger: tokio::sync::Mutex::default(),
            progress: Mutex::default(),
            office,
        });
        let _gauge = session.queue.gauge(session.office.queues(), MAX_CURSORS);
        session.show();
        for repo in session.behind().into_keys() {
            session.queue.add(repo);
        }
        let resigned = session.office.resigned();
        let works = session.queue.run(resigned, |repo: RepoId, failures| {
            let session = Arc::clone(&session);
            async move { session.work(repo, failures).await }
        });
        tokio::pin!(works);
        tokio::select! {
            compared = session.compare() => compared?,
            () = &mut works => return Ok(()),
        }
        // The office is over; passes under way are given the grace that the keeper gives.
        works.await;
        // Whoever is in office shows it.
        self.metrics.stands(0, 0);
        Ok(())
    }
}

fn row(repo: &RepoId) -> String {
    format!("{NAME}/{repo}")
}

impl Session {
    /// Repositories that are not in line yet, with the version from which each is behind.
    fn behind(&self) -> BTreeMap<RepoId, String> {
        let prefix = format!("{NAME}/");
        let view = self.office.view();
        let rows = view.cursors_with_prefix(&prefix).filter_map(|cursor| {
            let repo = cursor.key.strip_prefix(&prefix)?.parse().ok()?;
            Some((repo, cursor.value.clone()))
        });
        rows.collect()
    }

    fn show(&self) {
        let compared = self.deltas.handled().ok().flatten();
        self.metrics
            .stands(self.behind().len(), compared.unwrap_or_default());
    }

    /// Finds out for each newer version which repositories it may concern.
    async fn compare(&self) -> Result<(), ControllerError> {
        let backoff = Backoff::default();
        let resigned = self.office.resigned();
        let mut failures = 0;
        loop {
            let compared = match self.deltas.next().await {
                Ok(delta) => self.split(&delta).await,
                Err(why) => Err(why),
            };
            match compared {
                Ok(()) => failures = 0,
                Err(DeltaError::Office(OfficeError::Left { .. })) => return Ok(()),
                Err(
                    why @ (DeltaError::Away(_)
                    | DeltaError::Office(OfficeError::Store(_) | OfficeError::Unknown(_))),
                ) => {
                    failures += 1;
                    let wait = backoff.after(failures);
                    tracing::warn!(?wait, %why, "the configuration cannot be compared now");
                    tokio::select! {
                        () = resigned.cancelled() => return Ok(()),
                        () = sleep(wait) => {}
                    }
                }
                Err(DeltaError::Office(why)) => return Err(why.into()),
                Err(why @ DeltaError::Cursor { .. }) => {
                    return Err(ControllerError::Failed(why.into()));
                }
            }
        }
    }

    async fn split(&self, delta: &trireme_office::ConfigDelta) -> Result<(), DeltaError> {
        let _one = self.ledger.lock().await;
        let behind = self.behind();
        let (mut repos, mut cursors) = (Vec::new(), Vec::new());
        if let Some(before) = &delta.before {
            for (repo, _) in delta::touched(&before.config, &delta.after.config) {
                if self.options.leaves_alone(&repo) {
                    continue;
                }
                if !behind.contains_key(&repo) {
                    cursors.push(self.row_at(&repo, before.version));
                }
                repos.push(repo);
            }
        }
        let from = delta.before.as_ref().map(|before| before.version);
        let to = delta.after.version;
        tracing::info!(
            ?from,
            to,
            repositories = repos.len(),
            dry_run = self.options.dry_run,
            "compared configurations"
        );
        // The cursor comes last: until then all of it is done again.
        cursors.push(self.deltas.cursor(delta));
        for cursors in cursors.chunks(MAX_CURSORS_PER_COMMAND) {
            let cursors = cursors.to_vec();
            let put = Body::PutCursor(PutCursor { cursors });
            self.office.propose(put).await?;
        }
        self.show();
        for repo in repos {
            self.queue.add(repo);
        }
        Ok(())
    }

    fn row_at(&self, repo: &RepoId, version: u64) -> Cursor {
        Cursor {
            key: row(repo),
            at_ms: self.office.now_ms(),
            value: version.to_string(),
            ..Cursor::default()
        }
    }

    async fn work(&self, repo: RepoId, failures: u32) -> Work {
        match self.bring_in_line(&repo).await {
            Ok(true) => Work::Done,
            Ok(false) => Work::After(self.look_again),
            Err(troubles) => {
                // Whoever is in office now goes on from the state.
                let left = |why: &Trouble| matches!(why, Trouble::Office(OfficeError::Left { .. }));
                if troubles.iter().any(left) {
                    return Work::Done;
                }
                self.metrics.failed();
                let texts: Vec<String> = troubles.iter().map(ToString::to_string).collect();
                let why = texts.join("; ");
                if troubles.iter().any(is_outage) {
                    let until = troubles.iter().filter_map(retry_after).max();
                    return Work::Outage(why, until);
                }
                if failures + 1 < MAX_TRIES {
                    return Work::Retry(why);
                }
                self.give_up(&repo, &why).await
            }
        }
    }

    async fn give_up(&self, repo: &RepoId, why: &str) -> Work {
        let message = format!(
            "pull requests of {repo} are not in line with the configuration: {why}. Tried {MAX_TRIES} times, and again in \
             {} minutes, with the next version that concerns them, or by another leader",
            REDRIVE.as_secs() / 60
        );
        tracing::error!(%repo, why, "given up for now");
        match self.tell(repo, Some(message)).await {
            // Where no more alarms are taken there are enough to look at.
            Ok(()) | Err(OfficeError::Rejected { .. }) => Work::After(REDRIVE),
            Err(OfficeError::Left { .. }) => Work::Done,
            Err(why) => Work::Outage(why.to_string(), None),
        }
    }

    /// Raises the repository's alarm, or lowers it.
    async fn tell(&self, repo: &RepoId, message: Option<String>) -> Result<(), OfficeError> {
        let key = row(repo);
        let clear = message.is_none();
        if clear && self.office.view().alarm(&key).is_none() {
            return Ok(());
        }
        let alarm = Alarm {
            key,
            message: message.unwrap_or_default(),
            node_id: self.office.node_id(),
            ..Alarm::default()
        };
        let set = Body::SetAlarm(SetAlarm {
            alarm: Some(alarm),
            clear,
        });
        self.office.propose(set).await.map(drop)
    }

    /// Whether nothing is left to do. The step from the version that the repository stands at to the one in force.
    async fn bring_in_line(&self, repo: &RepoId) -> Result<bool, Vec<Trouble>> {
        let one = |why: Trouble| vec![why];
        let after = self.deltas.current().await.map_err(|why| one(why.into()))?;
        let Some(from) = self.behind().remove(repo) else {
            return Ok(true);
        };
        let number = from.parse().unwrap_or_default();
        let before = match self.deltas.version(number).await {
            Ok(before) => before,
            Err(VersionError::Away(why)) => return Err(one(Trouble::Away(why))),
            Err(VersionError::Lost(why)) => {
                let message = format!(
                    "pull requests of {repo} stood at configuration {from}, which cannot be read any more ({why}): look at them, \
                     and comment `/test all` or `/override` where a context is in the way"
                );
                tracing::error!(%repo, %message, "given up");
                self.advance(repo, after.version).await.map_err(one)?;
                let told = self.tell(repo, Some(message)).await;
                return told.map(|()| true).map_err(|why| one(why.into()));
            }
        };
        let versions = (before.version, after.version);
        let delta = RepoDelta::of(&before.config, &after.config, repo);
        // It may be large, and is not needed any more.
        drop(before);
        if let Some(delta) = delta
            && !self.options.leaves_alone(repo)
        {
            let mut progress = self.take_progress(repo, versions);
            let pass = Pass {
                office: &self.office,
                forge: &self.forge,
                in_repo: &self.in_repo,
                options: &self.options,
                metrics: &self.metrics,
                repo,
                after: &after,
                delta: &delta,
            };
            let passed = pass.run(&mut progress).await;
            if !matches!(passed, Ok(true)) {
                let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(repo.clone(), progress);
                return passed;
            }
        }
        self.advance(repo, after.version).await.map_err(one)?;
        self.tell(repo, None).await.map_err(|why| one(why.into()))?;
        Ok(true)
    }

    fn take_progress(&self, repo: &RepoId, versions: (u64, u64)) -> Progress {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.remove(repo);
        known
            .filter(|progress| progress.is_between(versions))
            .unwrap_or_else(|| Progress::between(versions))
    }

    /// The repository stands at this version now.
    async fn advance(&self, repo: &RepoId, version: u64) -> Result<(), Trouble> {
        let _one = self.ledger.lock().await;
        let compared = self.deltas.handled()?.unwrap_or_default();
        // What came meanwhile may concern it.
        let cursor = if version < compared {
            self.queue.add(repo.clone());
            self.row_at(repo, version)
        } else {
            Cursor {
                key: row(repo),
                ..Cursor::default()
            }
        };
        let cursors = vec![cursor];
        let put = Body::PutCursor(PutCursor { cursors });
        self.office.propose(put).await?;
        self.show();
        Ok(())
    }
}

fn is_outage(why: &Trouble) -> bool {
    match why {
        Trouble::Forge(why) => why.is_outage(),
        Trouble::InRepo(InRepoError::Git(why)) => why.is_outage(),
        Trouble::Office(OfficeError::Store(_) | OfficeError::Unknown(_)) | Trouble::Away(_) => true,
        Trouble::Office(_) | Trouble::Record(_) | Trouble::InRepo(_) | Trouble::Delta(_) => false,
    }
}

fn retry_after(why: &Trouble) -> Option<Duration> {
    match why {
        Trouble::Forge(why) => why.retry_after(),
        _ => None,
    }
}
