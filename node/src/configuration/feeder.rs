//! Keeps what controllers plan with at the version that the state names.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_api::ConfigHealth;
use trireme_config::{Loaded, plugins::Registry};
use trireme_office::{ConfigFeed, RunningConfig};
use trireme_proto::state::{Alarm, Command, ConfigVersion, SetAlarm, command::Body};
use trireme_raft::Store;
use trireme_state::{Change, State};

use super::Versions;

/// Between two tries to parse a version that this node could not.
const PARSE_AGAIN: Duration = Duration::from_secs(30);

/// What a feeder tells.
#[derive(Clone)]
pub struct Feed {
    /// The newest version that this node has parsed.
    pub config: ConfigFeed,
    /// Whether this node may take office: it has parsed the version in force, or there is none. A version that it cannot
    /// parse makes it unfit until it can.
    pub fit: watch::Receiver<bool>,
    pub versions: Arc<Versions>,
}

/// See the module.
pub struct Feeder {
    store: Store,
    versions: Arc<Versions>,
    health: ConfigHealth,
    sender: watch::Sender<Option<Arc<RunningConfig>>>,
    fit: watch::Sender<bool>,
}

fn parse(
    state: &State,
    version: &ConfigVersion,
    versions: &Versions,
) -> anyhow::Result<RunningConfig> {
    let files = state
        .config_files(version)
        .context("a page of it is not in the state")?;
    running(version.number, versions.load(state, &files)?)
}

/// What was loaded, as what controllers plan with.
pub(super) fn running(number: u64, loaded: Loaded) -> anyhow::Result<RunningConfig> {
    let (config, plugins) = loaded.accepted().map_err(|errors| {
        anyhow!(
            "{} errors, the first: {}",
            errors.len(),
            errors.first().map(ToString::to_string).unwrap_or_default()
        )
    })?;
    Ok(RunningConfig {
        version: number,
        config,
        plugins,
    })
}

impl Feeder {
    #[must_use]
    pub fn new(store: Store, registry: Arc<Registry>, health: ConfigHealth) -> (Self, Feed) {
        let (sender, config) = watch::channel(None);
        let (fit, is_fit) = watch::channel(false);
        let versions = Arc::new(Versions::new(registry));
        let feed = Feed {
            config,
            fit: is_fit,
            versions: Arc::clone(&versions),
        };
        let feeder = Self {
            store,
            versions,
            health,
            sender,
            fit,
        };
        (feeder, feed)
    }

    /// Runs until `stop`. A version that does not parse here raises an alarm and is tried again; the former one stays in
    /// force.
    pub async fn run(self, stop: CancellationToken) {
        let mut serving = 0;
        let mut watch = self.store.watch(None);
        loop {
            let view = self.store.view();
            let newest = view.config().cloned();
            let wanted = newest.as_ref().map_or(0, |version| version.number);
            let mut again = None;
            if let Some(version) = newest
                && wanted != serving
            {
                let versions = Arc::clone(&self.versions);
                let began = tokio::time::Instant::now();
                let parsed =
                    tokio::task::spawn_blocking(move || parse(&view, &version, &versions)).await;
                match parsed
                    .map_err(anyhow::Error::from)
                    .and_then(|parsed| parsed)
                {
                    Ok(running) => {
                        let millis = began.elapsed().as_millis();
                        // CFG-013
                        let sha = &running.config.prow.config_version_sha;
                        tracing::info!(
                            version = wanted,
                            config_version_sha = sha.trim(),
                            millis,
                            "configuration in force"
                        );
                        self.health.in_force(wanted, sha, began.elapsed());
                        serving = wanted;
                        self.sender.send_replace(Some(Arc::new(running)));
                        self.fit.send_replace(true);
                    }
                    Err(why) => {
                        let why = format!("{why:#}");
                        self.health.not_parsed(&why, began.elapsed());
                        tracing::error!(
                            version = wanted,
                            why,
                            "this node cannot parse the configuration; version {serving} stays in force here"
                        );
                        self.fit.send_replace(false);
                        self.tell(Some(trouble(self.store.node_id(), wanted, serving, &why)))
                            .await;
                        again = Some(tokio::time::Instant::now() + PARSE_AGAIN);
                    }
                }
            } else {
                // Held on, it would keep alive what is replaced in the state meanwhile.
                drop(view);
                // Nothing to parse.
                self.fit.send_replace(true);
            }
            if again.is_none() && !self.tell(None).await {
                again = Some(tokio::time::Instant::now() + PARSE_AGAIN);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                new = new_config(&mut watch) => match new {
                    Ok(()) => {}
                    Err(trireme_raft::WatchError::Closed) => return,
                    Err(_) => watch = self.store.watch(None),
                },
                () = async { tokio::time::sleep_until(again.unwrap_or_else(tokio::time::Instant::now)).await }, if again.is_some() => {}
            }
        }
    }

    /// Raises this node's alarm, or lowers it if it is raised; whether the log has it.
    async fn tell(&self, message: Option<String>) -> bool {
        let key = alarm_key(self.store.node_id());
        let raised = self.store.view().alarm(&key).cloned();
        let clear = message.is_none();
        let message = message.unwrap_or_default();
        if raised.is_none() && clear
            || raised.is_some_and(|alarm| !clear && alarm.message == message)
        {
            return true;
        }
        let command = Command {
            principal: format!("node:{}", self.store.node_id()),
            body: Some(Body::SetAlarm(SetAlarm {
                alarm: Some(Alarm {
                    key,
                    message,
                    node_id: self.store.node_id(),
                    ..Alarm::default()
                }),
                clear,
            })),
            ..Command::default()
        };
        match self.store.propose(command).await {
            Ok(_) => true,
            Err(why) => {
                tracing::info!(%why, "an alarm cannot be told now");
                false
            }
        }
    }
}

/// The alarm of a node that cannot parse the version in force.
fn alarm_key(node_id: u64) -> String {
    trireme_office::unfit_alarm(node_id)
}

fn trouble(node_id: u64, wanted: u64, serving: u64, why: &str) -> String {
    let stays = match serving {
        0 => "it plans with none".to_owned(),
        serving => format!("it keeps version {serving}"),
    };
    format!(
        "node {node_id} cannot parse configuration {wanted}: {why}. It must not take office meanwhile; {stays}. Compare its \
         version with the others', or apply a configuration that it can parse"
    )
}

/// Waits until a configuration was put.
async fn new_config(watch: &mut trireme_raft::Watch) -> Result<(), trireme_raft::WatchError> {
    loop {
        let batch = watch.next().await?;
        let is_config = |change: &Change| matches!(change, Change::Config(_));
        if batch.changes.iter().any(is_config) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        configuration::testing::{alone, put, put_files},
        serve::registry,
    };

    const BOUND: Duration = Duration::from_secs(20);

    /// CFG-090: the last good one stays active. A version that another build let in may be one that this one cannot parse.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_that_does_not_parse_raises_an_alarm_and_the_former_one_stays() {
        let store = alone().await;
        let (feeder, mut feed) =
            Feeder::new(store.clone(), Arc::new(registry()), ConfigHealth::default());
        assert!(!*feed.fit.borrow(), "nothing is parsed yet");
        let stop = CancellationToken::new();
        let feeding = tokio::spawn(feeder.run(stop.clone()));
        let fit = feed.fit.wait_for(|fit| *fit);
        tokio::time::timeout(BOUND, fit).await.unwrap().unwrap();
        assert!(feed.config.borrow().is_none(), "there is none");
        put(&store, "prowjob_namespace: first\n").await;
        let first = feed.config.wait_for(Option::is_some);
        tokio::time::timeout(BOUND, first).await.unwrap().unwrap();

        put(&store, "tide: {sync_period: never}\n").await;
        let unfit = feed.fit.wait_for(|fit| !fit);
        tokio::time::timeout(BOUND, unfit).await.unwrap().unwrap();
        let mut leadership = store.watch(Some(0));
        let alarm = loop {
            if let Some(alarm) = store.view().alarm(&alarm_key(1)) {
                break alarm.clone();
            }
            let next = tokio::time::timeout(BOUND, leadership.next());
            next.await.unwrap().unwrap();
        };
        assert!(
            alarm
                .message
                .starts_with("node 1 cannot parse configuration 2: 1 errors, the first: "),
            "{}",
            alarm.message
        );
        let serving = feed.config.borrow().clone().unwrap();
        assert_eq!(serving.version, 1);

        put(&store, "prowjob_namespace: third\n").await;
        let fit = feed.fit.wait_for(|fit| *fit);
        tokio::time::timeout(BOUND, fit).await.unwrap().unwrap();
        assert_eq!(feed.config.borrow().as_ref().unwrap().version, 3);
        while store.view().alarm(&alarm_key(1)).is_some() {
            let next = tokio::time::timeout(BOUND, leadership.next());
            next.await.unwrap().unwrap();
        }
        stop.cancel();
        feeding.await.unwrap();
        store.shutdown().await;
    }

    /// HOOK-051, HOOK-052: until a first load is good there is nothing to plan with; then a bad plugins.yaml leaves the
    /// whole of the former version in force, and a good one takes its place at once.
    #[tokio::test(flavor = "multi_thread")]
    async fn hook_051_a_plugins_yaml_that_does_not_load_leaves_the_former_one_in_force() {
        let store = alone().await;
        let health = ConfigHealth::default();
        let (feeder, mut feed) = Feeder::new(store.clone(), Arc::new(registry()), health.clone());
        let stop = CancellationToken::new();
        let feeding = tokio::spawn(feeder.run(stop.clone()));
        let files = async |config: &str, plugins: &str| {
            let files = [
                ("main", "config.yaml", config),
                ("plugins", "plugins.yaml", plugins),
            ];
            put_files(&store, &files).await;
        };
        let broken = "plugins: {o: {plugins: [hold]}, o/r: {plugins: [hold]}}";
        files("prowjob_namespace: first", broken).await;
        let unfit = async |feed: &mut Feed, failures: u64| {
            let failed = async {
                loop {
                    let parsed = health.get().parsed;
                    if parsed.is_some_and(|load| load.error.is_some() && load.failures == failures)
                    {
                        return;
                    }
                    feed.fit.changed().await.unwrap();
                }
            };
            tokio::time::timeout(BOUND, failed).await.unwrap();
        };
        unfit(&mut feed, 1).await;
        assert!(feed.config.borrow().is_none(), "nothing to plan with");

        files(
            "prowjob_namespace: second",
            "plugins: {o: {plugins: [hold]}}",
        )
        .await;
        let second = feed.config.wait_for(Option::is_some);
        let second = tokio::time::timeout(BOUND, second).await.unwrap();
        let second = second.unwrap().clone().unwrap();
        assert_eq!(second.plugins.enabled_plugins("o", "r"), ["hold"]);
        let good = health.get().parsed.unwrap();
        assert_eq!((good.good_ms, good.failures), (good.at_ms, 1));

        files("prowjob_namespace: third", broken).await;
        unfit(&mut feed, 2).await;
        // Nothing of the third is taken: not the file that is good either.
        let serving = feed.config.borrow().clone().unwrap();
        assert_eq!(serving.config.prow.prowjob_namespace, "second");
        assert_eq!(health.get().parsed.unwrap().good_ms, good.good_ms);

        files(
            "prowjob_namespace: fourth",
            "plugins: {o: {plugins: [lgtm]}}",
        )
        .await;
        let fourth = feed
            .config
            .wait_for(|now| now.as_ref().is_some_and(|now| now.version == 4));
        let fourth = tokio::time::timeout(BOUND, fourth).await.unwrap();
        let fourth = fourth.unwrap().clone().unwrap();
        assert_eq!(fourth.config.prow.prowjob_namespace, "fourth");
        assert_eq!(fourth.plugins.enabled_plugins("o", "r"), ["lgtm"]);
        stop.cancel();
        feeding.await.unwrap();
        store.shutdown().await;
    }
}
