//! A stage for controllers: the sandbox forge behind the real client, and a cluster of one node with a configuration.
//! Tide's stories are told on it too.

#![allow(dead_code, reason = "each test program uses its part")]

use std::{net::TcpListener, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use trireme_config::{Config, FileSet, Layout, LoadOptions};
use trireme_forge::{
    Forge,
    git::{MirrorLimits, Mirrors, MirrorsOptions},
    github::{Credentials, GitHub, GitHubOptions, RetryPolicy, fixed_secret},
};
use trireme_office::{ConfigFeed, Controller, Keeper, RunningConfig};
use trireme_proto::state::{
    Agent, BlobRef, Command, ConfigFile, ConfigVersion, Done, FinishJob, JobState, LeaseJob,
    PutBlobChunk, PutConfig, RegisterAgent, command::Body, outcome,
};
use trireme_raft::{Node, PeerListener, Store, StoreConfig};
use trireme_sandbox::world::{BOT, World};
use trireme_state::State;

/// How long anything is waited for.
const BOUND: Duration = Duration::from_secs(20);
const AGENT: &str = "agent";

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) forge: Arc<dyn Forge>,
    pub(crate) github: Arc<GitHub>,
    pub(crate) store: Store,
    pub(crate) feed: ConfigFeed,
    sender: watch::Sender<Option<Arc<RunningConfig>>>,
    /// The agent's, given when it registered.
    incarnation: u64,
    term: Option<Term>,
    dir: tempfile::TempDir,
}

/// Controllers at work.
struct Term {
    stop: CancellationToken,
    keeper: JoinHandle<()>,
}

impl Scene {
    pub(crate) async fn new(config: &str, jobs: &str) -> Self {
        // With RUST_LOG set a failed story tells what went on.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let world = World::start().await;
        let sandbox = world.sandbox();
        let token = fixed_secret(sandbox.token_for(BOT));
        let retry = RetryPolicy {
            first_wait: Duration::from_millis(5),
            ..RetryPolicy::default()
        };
        let options = GitHubOptions {
            retry,
            ..GitHubOptions::new(sandbox.url().parse().unwrap(), Credentials::Token(token))
        };
        let github = Arc::new(GitHub::new(options).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path().join("node")).await;
        let (sender, feed) = watch::channel(None);
        let mut scene = Self {
            world,
            forge: Arc::clone(&github) as _,
            github,
            store,
            feed,
            sender,
            incarnation: 0,
            term: None,
            dir,
        };
        scene.configure(config, jobs).await;
        let agent = Agent {
            id: AGENT.to_owned(),
            capacity: 100,
            ..Agent::default()
        };
        let registered = scene
            .propose(Body::RegisterAgent(RegisterAgent { agent: Some(agent) }))
            .await;
        scene.incarnation = registered.token;
        scene
    }

    pub(crate) async fn mirrors(&self) -> Mirrors {
        Mirrors::open(MirrorsOptions {
            dir: self.dir.path().join("mirrors"),
            remote: self.world.sandbox().url().parse().unwrap(),
            credentials: Some(Arc::clone(&self.github) as _),
            limits: MirrorLimits::default(),
        })
        .await
        .unwrap()
    }

    /// Makes this the configuration of cluster and node.
    pub(crate) async fn configure(&self, main: &str, jobs: &str) {
        let files = [("main", "config.yaml", main), ("job", "jobs.yaml", jobs)];
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs.yaml".to_owned()),
            ..Layout::default()
        });
        let mut named = Vec::new();
        for (role, path, text) in files {
            set.insert(path, text.as_bytes().to_vec());
            let blob = BlobRef {
                sha256: Bytes::copy_from_slice(&Sha256::digest(text)),
                size: text.len() as u64,
            };
            self.propose(Body::PutBlobChunk(PutBlobChunk {
                blob: Some(blob.clone()),
                index: 0,
                count: 1,
                data: Bytes::copy_from_slice(text.as_bytes()),
            }))
            .await;
            named.push(ConfigFile {
                role: role.to_owned(),
                path: path.to_owned(),
                blob: Some(blob),
            });
        }
        let (config, plugins) = Config::load(&set, LoadOptions::default())
            .accepted()
            .unwrap();
        let put = PutConfig {
            config: Some(ConfigVersion {
                files: named,
                ..ConfigVersion::default()
            }),
            expected_current: 0,
        };
        let done = self.propose(Body::PutConfig(put)).await;
        let running = RunningConfig {
            version: done.config_version,
            config,
            plugins,
        };
        self.sender.send_replace(Some(Arc::new(running)));
    }

    pub(crate) async fn propose(&self, body: Body) -> Done {
        let command = Command {
            min_level: 1,
            principal: "test".to_owned(),
            body: Some(body),
            ..Command::default()
        };
        let applied = self.store.propose(command).await.unwrap();
        match applied.outcome.result {
            Some(outcome::Result::Done(done)) => done,
            other => panic!("not done: {other:?}"),
        }
    }

    /// Lets these controllers work until [`Self::end_term`]; returns once they hold the office.
    pub(crate) async fn begin_term(&mut self, controllers: Vec<Arc<dyn Controller>>) {
        let stop = CancellationToken::new();
        let keeper = Keeper::new(self.store.clone(), controllers);
        let token = stop.clone();
        let keeper = tokio::spawn(async move { keeper.run(token).await });
        self.term = Some(Term { stop, keeper });
        let term = self.store.leadership().borrow().term;
        self.until("the office", |state| {
            (state.office().term == term).then_some(())
        })
        .await;
    }

    /// Leaves office.
    pub(crate) async fn end_term(&mut self) {
        if let Some(term) = self.term.take() {
            term.stop.cancel();
            term.keeper.await.unwrap();
        }
    }

    /// Leaves office and starts the node again: who works next holds a new office.
    pub(crate) async fn restart(&mut self) {
        self.end_term().await;
        self.store.shutdown().await;
        self.store = open(self.dir.path().join("node")).await;
    }

    /// Waits until the state gives a value.
    pub(crate) async fn until<R>(
        &self,
        what: &str,
        mut look: impl FnMut(&State) -> Option<R>,
    ) -> R {
        let waited = timeout(BOUND, async {
            loop {
                let view = self.store.view();
                if let Some(found) = look(&view) {
                    return found;
                }
                let mut watch = self.store.watch(Some(view.revision));
                let _ = watch.next().await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// The agent takes the job; gives the fence.
    pub(crate) async fn lease(&self, id: &str) -> u64 {
        let lease = LeaseJob {
            id: id.to_owned(),
            agent_id: AGENT.to_owned(),
            incarnation: self.incarnation,
            url: format!("https://prow.example.com/view/{id}"),
            ..LeaseJob::default()
        };
        self.propose(Body::LeaseJob(lease)).await.token
    }

    /// The agent runs the job to this end.
    pub(crate) async fn run_job(&self, id: &str, state: JobState) {
        let fence = self.lease(id).await;
        let finish = FinishJob {
            id: id.to_owned(),
            fence,
            state: state.into(),
            description: "Job done.".to_owned(),
            url: String::new(),
        };
        self.propose(Body::FinishJob(finish)).await;
    }
}

async fn open(dir: PathBuf) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = StoreConfig::new(dir, 1, address);
    config.peer_listener = PeerListener::Bound(listener);
    // Nobody answers a node that is alone, so its lead is confirmed once, by its election.
    config.timing.election_min = Duration::from_secs(600);
    config.timing.election_max = Duration::from_secs(601);
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
    store.recovered().await;
    store
}
