//! The plugins controller: from accepted deliveries to plans, and from plans to writes.
//!
//! A delivery is first taken in (`inbox`): its plugins are fixed, those that it does not concern are recorded as idle,
//! and the mirror is written, all in one command. For each plugin that remains, the delivery then stands in that
//! plugin's lane for the issue, pull request or ref (`lanes`): decided once (`planning`), then carried out (`effects`),
//! one delivery after the other in the order of arrival. Lanes do not wait for each other.

mod chores;
mod config_map;
mod desired_maps;
mod effects;
mod forward;
mod inbox;
mod lanes;
mod meanwhile;
mod observed;
mod pause;
mod pick;
mod planning;
mod pulls;
mod rebase;
mod redelivery;
mod services;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use trireme_forge::Forge;
use trireme_forge::git::Mirrors;
use trireme_forge::github::{AsOf, GitHub, Pause};
use trireme_forge::owners::OwnersLoader;
use trireme_in_repo::InRepo;
use trireme_office::{
    Backoff, ConfigFeed, Controller, ControllerError, KeyedQueue, Office, OfficeError,
    RunningConfig, Work,
};
use trireme_outside::jira::Jira;
use trireme_outside::slack::Slack;
use trireme_outside::{NoClient, Outside};
use trireme_proto::state::{Delivery, DeliveryState, Rejection};
use trireme_raft::{View, WatchError};
use trireme_state::{Change, arrival, limits::MAX_DELIVERIES};

use crate::config_maps::ConfigMaps;
use crate::enablement::Enablement;
use crate::jira::JiraDirectory;
use crate::metrics::PluginMetrics;
use crate::needs_rebase::Checked;
use crate::options::PluginOptions;
use crate::registry::Plugins;
use chores::Chore;
use inbox::{Events, Subject};
use lanes::{Lane, Waiting};

pub use chores::REPAIR_EVERY;
pub use redelivery::{OurHooks, ROUND, SETTLE};

/// Issues, pull requests and refs whose deliveries are taken in at once.
const INTAKE_WORKERS: usize = 32;
/// Lanes that decide or act at once.
const LANE_WORKERS: usize = 64;
/// Of these the lanes of one plugin: what it asks may hang.
const LANES_OF_PLUGIN: usize = 16;
/// The lanes of one repository: they may all wait for its mirror.
const LANES_OF_REPO: usize = 32;
/// The lanes of all plugins elsewhere.
const LANES_ELSEWHERE: usize = 16;
/// Deliveries that are listed before others have their turn.
const LISTED_AT_ONCE: usize = 256;
/// Repairs under way at once: they must not eat up the forge's budget.
const CHORE_WORKERS: usize = 2;
/// Tries of a decision that fails, and of a write that is refused, before they are given up.
pub const MAX_TRIES: u32 = 5;

/// Gives every plugin its own way to the forge, so that it can be told what each asks there.
pub trait ForgeOfPlugin: Send + Sync {
    fn of_plugin(&self, plugin: &str) -> Arc<dyn Forge>;
    /// For deciding about an event: with answers that are as new as it.
    fn of_decision(&self, plugin: &str, as_of: &AsOf) -> Arc<dyn Forge>;

    /// Why the forge of this org is not to be asked anything at present.
    fn pause(&self, org: &str) -> Option<Pause>;

    /// Changes when a forge that was away is there again.
    fn returns(&self) -> watch::Receiver<u64>;
}

impl ForgeOfPlugin for GitHub {
    fn of_plugin(&self, plugin: &str) -> Arc<dyn Forge> {
        Arc::new(self.for_plugin(plugin))
    }

    fn of_decision(&self, plugin: &str, as_of: &AsOf) -> Arc<dyn Forge> {
        Arc::new(self.for_plugin(plugin).as_of(as_of))
    }

    fn pause(&self, org: &str) -> Option<Pause> {
        self.pause(org)
    }

    fn returns(&self) -> watch::Receiver<u64> {
        self.returns()
    }
}

/// What the controller works with.
#[derive(Clone)]
pub struct Equipment {
    pub plugins: Plugins,
    pub forge: Arc<dyn Forge>,
    /// The same forge, as each plugin reaches it.
    pub forges: Arc<dyn ForgeOfPlugin>,
    pub owners: OwnersLoader,
    pub in_repo: InRepo,
    pub mirrors: Mirrors,
    pub config: ConfigFeed,
    pub hooks: OurHooks,
    pub options: PluginOptions,
    /// Where ConfigMaps are written; `None`: nowhere.
    pub config_maps: Option<Arc<dyn ConfigMaps>>,
    pub metrics: PluginMetrics,
}

/// Takes deliveries in, has plugins decide, and carries their plans out.
pub struct PluginsController {
    tools: Arc<Tools>,
}

#[derive(Clone)]
struct Tools {
    equipment: Equipment,
    outside: Outside,
    slack: Option<Slack>,
    jira: Option<Arc<JiraDirectory>>,
    checked: Arc<Checked>,
    every: Duration,
    settle: Duration,
    round: Duration,
    enablement: Enablement,
}

impl std::ops::Deref for Tools {
    type Target = Equipment;

    fn deref(&self) -> &Equipment {
        &self.equipment
    }
}

impl PluginsController {
    /// # Errors
    /// [`NoClient`] if the system lacks what HTTPS needs.
    pub fn new(equipment: Equipment) -> Result<Self, NoClient> {
        let outside = Outside::new()?;
        let options = &equipment.options;
        let slack = options.slack.as_ref();
        let slack = slack.map(|to| Slack::new(outside.clone(), &to.api, to.token.clone()));
        let jira = options.jira.as_ref().map(|at| {
            let client = Jira::new(outside.clone(), &at.url, at.auth.clone());
            Arc::new(JiraDirectory::new(client))
        });
        Ok(Self {
            tools: Arc::new(Tools {
                equipment,
                outside,
                slack,
                jira,
                checked: Arc::default(),
                every: REPAIR_EVERY,
                settle: SETTLE,
                round: ROUND,
                enablement: Enablement::default(),
            }),
        })
    }

    /// Looks for what webhooks missed this often instead of every [`REPAIR_EVERY`].
    #[must_use]
    pub fn repairing_every(mut self, every: Duration) -> Self {
        Arc::make_mut(&mut self.tools).every = every;
        self
    }
}

impl PluginsController {
    /// Handles only what is of these orgs and repositories (HOOK-013).
    #[must_use]
    pub fn only(mut self, enablement: Enablement) -> Self {
        Arc::make_mut(&mut self.tools).enablement = enablement;
        self
    }

    /// Waits so long for what was lost with a webhook, instead of [`ROUND`].
    #[must_use]
    pub fn rounds_within(mut self, round: Duration) -> Self {
        Arc::make_mut(&mut self.tools).round = round;
        self
    }

    /// Takes a webhook for lost when it was not accepted for this long instead of [`SETTLE`].
    #[must_use]
    pub fn settling_after(mut self, settle: Duration) -> Self {
        Arc::make_mut(&mut self.tools).settle = settle;
        self
    }
}

/// One stay in office.
struct Session {
    office: Office,
    tools: Arc<Tools>,
    events: Events,
    waiting: Mutex<Waiting>,
    intake: KeyedQueue<Subject>,
    lanes: KeyedQueue<Lane>,
    chores: KeyedQueue<Chore>,
    /// How often a write was refused; forgotten when it is settled. By (guid, plugin, ordinal).
    refusals: Mutex<BTreeMap<(String, String, u32), u32>>,
    asked_again: redelivery::Asked,
    /// Held by who writes to a cluster.
    clusters: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[async_trait]
impl Controller for PluginsController {
    fn name(&self) -> &'static str {
        "plugins"
    }

    async fn run(&self, office: Office) -> Result<(), ControllerError> {
        let session = Arc::new(Session {
            office: office.clone(),
            tools: Arc::clone(&self.tools),
            events: Events::default(),
            waiting: Mutex::default(),
            intake: KeyedQueue::new("plugins_intake", INTAKE_WORKERS, Backoff::default()),
            lanes: KeyedQueue::new("plugins_lanes", LANE_WORKERS, Backoff::default())
                .sharing(Lane::shares),
            chores: KeyedQueue::new("plugins_chores", CHORE_WORKERS, Backoff::default()),
            refusals: Mutex::default(),
            asked_again: redelivery::Asked::default(),
            clusters: Mutex::default(),
        });
        let queues = office.queues();
        let _gauges = (
            session.intake.gauge(queues, MAX_DELIVERIES),
            session.lanes.gauge(queues, MAX_DELIVERIES),
            session.chores.gauge(queues, chores::MAX_CHORES),
        );
        let resigned = office.resigned();
        let (intake, lanes, chores) = (
            session.intake.clone(),
            session.lanes.clone(),
            session.chores.clone(),
        );
        let (takes, works, repairs) = (
            Arc::clone(&session),
            Arc::clone(&session),
            Arc::clone(&session),
        );
        let working = futures::future::join3(
            intake.run(resigned.clone(), move |subject, _| {
                let session = Arc::clone(&takes);
                async move { session.take_in(subject).await }
            }),
            lanes.run(resigned.clone(), move |lane, _| {
                let session = Arc::clone(&works);
                async move { session.work(lane).await }
            }),
            chores.run(resigned.clone(), move |chore, _| {
                let session = Arc::clone(&repairs);
                async move { session.repair(chore).await }
            }),
        );
        tokio::select! {
            followed = session.follow() => followed,
            () = session.follow_config() => Ok(()),
            () = session.follow_forges() => Ok(()),
            () = session.schedule_chores() => Ok(()),
            _ = working => Ok(()),
        }
    }
}

impl Session {
    /// Lists what is open, then follows the changes.
    async fn follow(&self) -> Result<(), ControllerError> {
        let resigned = self.office.resigned();
        loop {
            let view = self.office.view();
            let mut watch = self.office.watch(view.revision);
            for (n, delivery) in view.open_deliveries().enumerate() {
                self.note(delivery);
                if n % LISTED_AT_ONCE == LISTED_AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
            loop {
                let changes = tokio::select! {
                    () = resigned.cancelled() => return Ok(()),
                    changes = watch.next() => changes,
                };
                match changes {
                    Ok(batch) => {
                        for change in &batch.changes {
                            if let Change::Delivery(delivery) = change {
                                self.note(delivery);
                            }
                        }
                    }
                    Err(WatchError::Compacted | WatchError::Lagging) => break,
                    Err(closed @ WatchError::Closed) => {
                        return Err(ControllerError::Failed(Box::new(closed)));
                    }
                }
            }
        }
    }

    /// What waited for a configuration goes on when there is one.
    async fn follow_config(&self) {
        let mut config = self.tools.config.clone();
        while config.changed().await.is_ok() {
            let (subjects, lanes) = self.waiting().keys();
            subjects
                .into_iter()
                .for_each(|subject| self.intake.add(subject));
            lanes.into_iter().for_each(|lane| self.lanes.add(lane));
        }
        // The node is going down; so will the office.
        self.office.resigned().cancelled().await;
    }

    /// Puts a delivery where it waits for what it needs next.
    fn note(&self, delivery: &Delivery) {
        let subject = Subject::of(delivery);
        match delivery.state() {
            DeliveryState::Received => {
                self.waiting()
                    .add_received(&subject, arrival(delivery), &delivery.guid);
                self.intake.add(subject);
            }
            DeliveryState::Planned => {
                for plugin in &delivery.plugins {
                    if delivery.settled.contains(plugin) {
                        continue;
                    }
                    let lane = Lane {
                        plugin: plugin.clone(),
                        subject: subject.clone(),
                    };
                    self.waiting()
                        .add_planned(&lane, arrival(delivery), &delivery.guid);
                    self.lanes.add(lane);
                }
            }
            DeliveryState::Handled | DeliveryState::Unspecified => {
                self.events.forget(&delivery.guid);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration that the newest view names, if this node has parsed it, and that view.
    fn running(&self) -> (Option<Arc<RunningConfig>>, Arc<View>) {
        // In this order: a configuration is parsed from a view that names it.
        let running = self.tools.config.borrow().clone();
        let view = self.office.view();
        let named = view.config().map(|config| config.number);
        (
            running.filter(|running| Some(running.version) == named),
            view,
        )
    }
}

/// What becomes of the work when a command could not be recorded.
fn not_recorded(error: OfficeError) -> Work {
    match error {
        // Whoever is in office now goes on from the state.
        OfficeError::Left { .. } => Work::Done,
        // It passes when something leaves; an alarm tells of the quota.
        OfficeError::Rejected {
            code: Rejection::ResourceExhausted,
            ..
        } => Work::Outage(error.to_string(), None),
        OfficeError::Rejected { .. } => Work::Retry(error.to_string()),
        OfficeError::Store(_) | OfficeError::Unknown(_) => Work::Outage(error.to_string(), None),
    }
}
