//! Where plugins' stories are told: the sandbox forge behind the real client, its webhooks, and a cluster of one node.

#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State as Shared,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use trireme_config::{Config, FileSet, Layout, LoadOptions};
use trireme_forge::{
    Forge,
    git::{MirrorLimits, Mirrors, MirrorsOptions},
    github::{Credentials, GitHub, GitHubMetrics, GitHubOptions, RetryPolicy, fixed_secret},
    owners::OwnersLoader,
};
use trireme_in_repo::{CacheLimits, InRepo, InRepoMetrics};
use trireme_office::{Keeper, RunningConfig};
use trireme_plugins::{
    ConfigMaps, Enablement, Equipment, OurHooks, PluginMetrics, PluginOptions, Plugins,
    PluginsController,
};
use trireme_proto::state::{
    AcceptDelivery, BlobRef, Command, ConfigFile, ConfigVersion, Delivery, Done, Header, Job, Plan,
    PutBlobChunk, PutConfig, command::Body, outcome,
};
use trireme_raft::{Node, PeerListener, Store, StoreConfig};
use trireme_sandbox::world::{BOT, ORG, Pr, REPO, World, WorldBuilder};
use trireme_state::{FEATURE_LEVEL, State, is_complete};

/// How long anything is waited for.
const BOUND: Duration = Duration::from_secs(20);

/// How a story begins.
pub(crate) struct Setup {
    pub(crate) world: WorldBuilder,
    pub(crate) config: &'static str,
    pub(crate) plugins: String,
    pub(crate) built_in: Plugins,
    pub(crate) options: PluginOptions,
    pub(crate) repairing_every: Duration,
    /// Whether lost webhooks are asked for again.
    pub(crate) redelivery: bool,
    /// After how long a webhook that was not taken is lost.
    pub(crate) settling_after: Duration,
    /// What is handled at all.
    pub(crate) only: Enablement,
    pub(crate) config_maps: Option<Arc<dyn ConfigMaps>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            world: World::builder(),
            config: "{}",
            plugins: "{}".to_owned(),
            built_in: Plugins::built_in(),
            options: PluginOptions::default(),
            repairing_every: Duration::from_secs(3600),
            redelivery: false,
            settling_after: trireme_plugins::SETTLE,
            only: Enablement::default(),
            config_maps: None,
        }
    }
}

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) door: Arc<Door>,
    hook_url: String,
    setup: Setup,
    github: Arc<GitHub>,
    mirrors: Mirrors,
    in_repo: InRepo,
    pub(crate) metrics: InRepoMetrics,
    pub(crate) plugin_metrics: PluginMetrics,
    pub(crate) github_metrics: GitHubMetrics,
    feed: watch::Sender<Option<Arc<RunningConfig>>>,
    term: Option<(CancellationToken, JoinHandle<()>)>,
    dir: tempfile::TempDir,
}

/// Takes webhooks as a node's door does, unless it is shut.
pub(crate) struct Door {
    store: watch::Sender<Store>,
    shut: AtomicBool,
    turned_away: watch::Sender<u32>,
}

impl Door {
    pub(crate) fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
    }

    /// How many webhooks found it shut.
    pub(crate) fn turned_away(&self) -> u32 {
        *self.turned_away.borrow()
    }

    pub(crate) async fn until_turned_away(&self, count: u32) {
        let mut turned_away = self.turned_away.subscribe();
        let waiting = turned_away.wait_for(|turned_away| *turned_away >= count);
        timeout(BOUND, waiting).await.unwrap().unwrap();
    }

    fn store(&self) -> Store {
        self.store.borrow().clone()
    }
}

async fn receive(Shared(door): Shared<Arc<Door>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if door.shut.load(Ordering::SeqCst) {
        door.turned_away.send_modify(|count| *count += 1);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let payload: Value = serde_json::from_slice(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = [
        &payload["pull_request"]["number"],
        &payload["issue"]["number"],
    ];
    let accept = AcceptDelivery {
        delivery: Some(Delivery {
            guid: header("x-github-delivery"),
            event: header("x-github-event"),
            action: text(&payload["action"]),
            payload_zstd: zstd::bulk::compress(&body, 1).unwrap().into(),
            org: text(&payload["repository"]["owner"]["login"]),
            repo: text(&payload["repository"]["name"]),
            number: number.iter().find_map(|n| n.as_u64()).unwrap_or(0),
            r#ref: text(&payload["ref"]),
            headers: headers
                .iter()
                .map(|(name, value)| Header {
                    name: name.as_str().to_owned(),
                    value: Bytes::copy_from_slice(value.as_bytes()),
                })
                .collect(),
            ..Delivery::default()
        }),
    };
    let store = door.store();
    match propose(&store, Body::AcceptDelivery(accept)).await {
        Some(_) => StatusCode::OK,
        None => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn propose(store: &Store, body: Body) -> Option<Done> {
    let command = Command {
        min_level: 1,
        principal: "test".to_owned(),
        body: Some(body),
        ..Command::default()
    };
    match store.propose(command).await.ok()?.outcome.result? {
        outcome::Result::Done(done) => Some(done),
        outcome::Result::Rejected(why) => panic!("rejected: {why:?}"),
    }
}

impl Stage {
    pub(crate) async fn new(setup: Setup) -> Self {
        // With RUST_LOG set a failed story tells what went on.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let world = setup.world.clone().start().await.unwrap();
        let sandbox = world.sandbox();
        let token = fixed_secret(sandbox.token_for(BOT));
        let retry = RetryPolicy {
            tries: 1,
            first_wait: Duration::from_millis(5),
            ..RetryPolicy::default()
        };
        let github_metrics = GitHubMetrics::default();
        let options = GitHubOptions {
            retry,
            metrics: github_metrics.clone(),
            ..GitHubOptions::new(sandbox.url().parse().unwrap(), Credentials::Token(token))
        };
        let github = Arc::new(GitHub::new(options).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::open(MirrorsOptions {
            dir: dir.path().join("mirrors"),
            remote: sandbox.url().parse().unwrap(),
            credentials: Some(Arc::clone(&github) as _),
            limits: MirrorLimits::default(),
        })
        .await
        .unwrap();
        let metrics = InRepoMetrics::default();
        let in_repo = InRepo::new(mirrors.clone(), CacheLimits::default(), metrics.clone());
        let store = open(dir.path().join("node")).await;
        let door = Arc::new(Door {
            store: watch::Sender::new(store),
            shut: AtomicBool::new(false),
            turned_away: watch::Sender::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook_url = format!("http://{}/hook", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(Arc::clone(&door));
        tokio::spawn(async move { axum::serve(listener, router).await });
        world.hook_to(&[&hook_url]);
        let mut stage = Self {
            world,
            door,
            hook_url,
            setup,
            github,
            mirrors,
            in_repo,
            metrics,
            plugin_metrics: PluginMetrics::default(),
            github_metrics,
            feed: watch::Sender::new(None),
            term: None,
            dir,
        };
        // The last thing that a new cluster writes by itself: before it, deliveries with headers are refused.
        stage
            .until("the newest feature level", |state| {
                (state.feature_level() == FEATURE_LEVEL).then_some(())
            })
            .await;
        stage.configure().await;
        stage.begin_term();
        stage
    }

    pub(crate) fn hook_url(&self) -> &str {
        &self.hook_url
    }

    pub(crate) fn store(&self) -> Store {
        self.door.store()
    }

    pub(crate) async fn propose(&self, body: Body) -> Done {
        propose(&self.store(), body).await.unwrap()
    }

    async fn configure(&self) {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            plugins: Some("plugins.yaml".to_owned()),
            ..Layout::default()
        });
        files.insert("config.yaml", self.setup.config.as_bytes());
        files.insert("plugins.yaml", self.setup.plugins.as_bytes());
        let registry = self.setup.built_in.config_registry();
        let options = LoadOptions {
            plugins: Some(&registry),
            ..LoadOptions::default()
        };
        let (config, plugins) = Config::load(&files, options).accepted().unwrap();
        // The state carries a file that nobody here reads: the feed is told what it says.
        let blob = BlobRef {
            sha256: vec![1; 32].into(),
            size: 2,
        };
        self.propose(Body::PutBlobChunk(PutBlobChunk {
            blob: Some(blob.clone()),
            index: 0,
            count: 1,
            data: Bytes::from_static(b"{}"),
        }))
        .await;
        let file = ConfigFile {
            role: "main".to_owned(),
            path: "config.yaml".to_owned(),
            blob: Some(blob),
        };
        let put = PutConfig {
            config: Some(ConfigVersion {
                files: vec![file],
                ..ConfigVersion::default()
            }),
            expected_current: 0,
        };
        let done = self.propose(Body::PutConfig(put)).await;
        self.feed.send_replace(Some(Arc::new(RunningConfig {
            version: done.config_version,
            config,
            plugins,
        })));
    }

    pub(crate) fn begin_term(&mut self) {
        let hooks = if self.setup.redelivery {
            OurHooks::At(self.hook_url.clone())
        } else {
            OurHooks::Unknown
        };
        let controller = PluginsController::new(Equipment {
            plugins: self.setup.built_in.clone(),
            forge: Arc::clone(&self.github) as Arc<dyn Forge>,
            forges: Arc::clone(&self.github) as _,
            owners: OwnersLoader::new(self.mirrors.clone()),
            in_repo: self.in_repo.clone(),
            mirrors: self.mirrors.clone(),
            config: self.feed.subscribe(),
            hooks,
            options: self.setup.options.clone(),
            config_maps: self.setup.config_maps.clone(),
            metrics: self.plugin_metrics.clone(),
        })
        .unwrap()
        .repairing_every(self.setup.repairing_every)
        .settling_after(self.setup.settling_after)
        .rounds_within(Duration::from_secs(2))
        .only(self.setup.only.clone());
        let stop = CancellationToken::new();
        let keeper = Keeper::new(self.store(), vec![Arc::new(controller)]);
        let token = stop.clone();
        let running = tokio::spawn(async move { keeper.run(token).await });
        self.term = Some((stop, running));
    }

    pub(crate) async fn end_term(&mut self) {
        if let Some((stop, running)) = self.term.take() {
            stop.cancel();
            running.await.unwrap();
        }
    }

    /// Leaves office, starts the node again and works on under a new office.
    pub(crate) async fn restart(&mut self) {
        self.end_term().await;
        self.store().shutdown().await;
        let store = open(self.dir.path().join("node")).await;
        self.door.store.send_replace(store);
        self.begin_term();
    }

    /// Waits until the state gives a value.
    pub(crate) async fn until<R>(
        &self,
        what: &str,
        mut look: impl FnMut(&State) -> Option<R>,
    ) -> R {
        let store = self.store();
        let waited = timeout(BOUND, async {
            loop {
                let view = store.view();
                if let Some(found) = look(&view) {
                    return found;
                }
                let _ = store.watch(Some(view.revision)).next().await;
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}; open are {:#?}", self.open()),
        }
    }

    /// What is not handled yet, and by whom.
    fn open(&self) -> Vec<String> {
        let view = self.store().view();
        let open = view.open_deliveries().map(|delivery| {
            let plugins = delivery.plugins.iter();
            let waiting = plugins.filter(|plugin| !delivery.settled.contains(plugin));
            let waiting: Vec<String> = waiting
                .map(|plugin| match view.plan(&delivery.guid, plugin) {
                    Some(plan) => format!("{plugin}: {:?} {}", plan.effects, plan.error),
                    None => plugin.clone(),
                })
                .collect();
            format!(
                "{} {} {}: {}",
                delivery.guid,
                delivery.event,
                delivery.action,
                waiting.join(", ")
            )
        });
        open.collect()
    }

    /// Waits until every webhook is delivered and handled.
    pub(crate) async fn settled(&self) {
        self.world.expect_delivered().await;
        self.until("all deliveries to be handled", |state| {
            state.open_deliveries().next().is_none().then_some(())
        })
        .await;
    }

    /// Names of the pull request's jobs, `name state`, oldest first.
    pub(crate) fn jobs(&self, pr: &Pr) -> Vec<String> {
        let view = self.store().view();
        let jobs = view.jobs_of_pull(ORG, REPO, pr.number);
        jobs.map(|job| describe(job)).collect()
    }

    /// What the bot said, oldest first.
    pub(crate) fn said(&self, pr: &Pr) -> Vec<String> {
        let comments = self.world.comments(pr).into_iter();
        let by_bot = comments.filter(|comment| comment.author == BOT);
        by_bot.map(|comment| comment.body).collect()
    }

    /// Plans that were given up in part or whole.
    pub(crate) fn dead(&self) -> Vec<Plan> {
        let view = self.store().view();
        view.dead_plans().map(|plan| (**plan).clone()).collect()
    }
}

pub(crate) fn describe(job: &Job) -> String {
    let state = trireme_state::state_name(job.state());
    let complete = if is_complete(job) { ", complete" } else { "" };
    format!("{} {state}{complete}", job.job)
}

async fn open(dir: PathBuf) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = StoreConfig::new(dir, 1, address);
    config.peer_listener = PeerListener::Bound(listener);
    // A node alone is elected at once. What confirms it as leader is its election, for as long as this.
    config.timing.election_min = Duration::from_secs(600);
    config.timing.election_max = Duration::from_secs(700);
    let store = Store::open(config).await.unwrap();
    if !store.is_member() {
        let me = Node {
            id: 1,
            peer_address: address.to_string(),
            ..Node::default()
        };
        store.bootstrap(vec![me]).await.unwrap();
    }
    let mut leadership = store.leadership();
    timeout(BOUND, leadership.wait_for(|now| now.is_me))
        .await
        .expect("a leader in time")
        .unwrap();
    store
}
