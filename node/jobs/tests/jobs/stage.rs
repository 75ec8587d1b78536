//! A cluster of one node with its doors, and what plays before it.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use trireme_api::{
    Artifact, Candidate, Checked, ConfigCheck, DebugSource, DoorConfig, Doors, HookSecrets,
    RunLogs, RunStore,
    client::{Client, ConnectOptions},
};
use trireme_config::{Config, FileSet, Layout, LoadOptions};
use trireme_jobs::{
    Leases, Scheduler,
    agent::{self, AgentError, AgentOptions, Utility},
};
use trireme_office::{ConfigFeed, Controller, Keeper, RunningConfig};
use trireme_proto::{
    api::DebugFile,
    state::{Command, CreateJobs, Done, Job, NewJob, command::Body, outcome},
};
use trireme_prowjob::{JobSpec, ProwJob, gcs_paths, record};
use trireme_raft::{Node, PeerListener, Store, StoreConfig};
use trireme_state::{Change, State, state_name};
use uuid::Uuid;

/// How long anything is waited for.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) store: Store,
    pub(crate) door: SocketAddr,
    /// Stays over restarts: somebody else could take the port meanwhile.
    listener: TcpListener,
    pub(crate) leases: Leases,
    pub(crate) feed: ConfigFeed,
    pub(crate) logs: RunLogs,
    sender: watch::Sender<Option<Arc<RunningConfig>>>,
    closing: CancellationToken,
    serving: JoinHandle<()>,
    term: Option<(CancellationToken, JoinHandle<()>)>,
    dir: tempfile::TempDir,
}

/// An agent in this process.
pub(crate) struct Agent {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), AgentError>>,
}

impl Agent {
    /// As when its process is killed, but for what it runs: that dies with it.
    pub(crate) async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(BOUND, self.task).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) fn agent_options(directory: PathBuf, node: String, capacity: u32) -> AgentOptions {
    AgentOptions {
        connect: ConnectOptions::default(),
        nodes: vec![node],
        name: "rower".to_owned(),
        clusters: vec!["default".to_owned()],
        capacity,
        directory,
        utility: Utility {
            program: std::env::current_exe().unwrap(),
            prefix: ["--exact", "pod_utility", "--nocapture"]
                .map(Into::into)
                .to_vec(),
        },
        version: "test".to_owned(),
    }
}

impl Stage {
    /// With a scheduler in office.
    pub(crate) async fn new() -> Self {
        Self::with(Leases::default()).await
    }

    pub(crate) async fn with_period(period: Duration) -> Self {
        Self::with(Leases::with_period(period)).await
    }

    async fn with(leases: Leases) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let door = listener.local_addr().unwrap();
        let kept = listener.try_clone().unwrap();
        let store = open(dir.path().join("node"), door).await;
        let (sender, feed) = watch::channel(None);
        let closing = CancellationToken::new();
        let (logs, serving) = serve(
            &store,
            listener,
            leases.clone(),
            dir.path().join("store"),
            closing.clone(),
        )
        .await;
        let mut stage = Self {
            store,
            door,
            listener: kept,
            leases,
            feed,
            logs,
            sender,
            closing,
            serving,
            term: None,
            dir,
        };
        stage.configure("{}", "{}");
        let scheduler = stage.scheduler();
        stage.begin_term(vec![scheduler]);
        stage
    }

    pub(crate) fn scheduler(&self) -> Arc<dyn Controller> {
        Arc::new(Scheduler::new(self.leases.clone(), self.feed.clone()))
    }

    /// Makes this the configuration that controllers plan with.
    pub(crate) fn configure(&self, main: &str, jobs: &str) {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs.yaml".to_owned()),
            ..Layout::default()
        });
        files.insert("config.yaml", main.as_bytes().to_vec());
        files.insert("jobs.yaml", jobs.as_bytes().to_vec());
        let (config, plugins) = Config::load(&files, LoadOptions::default())
            .accepted()
            .unwrap();
        let former = self.feed.borrow().as_ref().map_or(0, |feed| feed.version);
        let running = RunningConfig {
            version: former + 1,
            config,
            plugins,
        };
        self.sender.send_replace(Some(Arc::new(running)));
    }

    pub(crate) fn begin_term(&mut self, controllers: Vec<Arc<dyn Controller>>) {
        let stop = CancellationToken::new();
        let keeper = Keeper::new(self.store.clone(), controllers);
        let stopping = stop.clone();
        let task = tokio::spawn(async move { keeper.run(stopping).await });
        self.term = Some((stop, task));
    }

    pub(crate) async fn end_term(&mut self) {
        if let Some((stop, keeper)) = self.term.take() {
            stop.cancel();
            keeper.await.unwrap();
        }
    }

    /// Stops the node and starts it again from its directory, without controllers.
    pub(crate) async fn restart(&mut self) {
        self.end_term().await;
        self.closing.cancel();
        (&mut self.serving).await.unwrap();
        self.store.shutdown().await;
        self.store = open(self.dir.path().join("node"), self.door).await;
        let listener = self.listener.try_clone().unwrap();
        self.closing = CancellationToken::new();
        (self.logs, self.serving) = serve(
            &self.store,
            listener,
            self.leases.clone(),
            self.dir.path().join("store"),
            self.closing.clone(),
        )
        .await;
    }

    /// A directory of its own.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// An agent with this directory, for four runs at once.
    pub(crate) fn agent(&self, directory: &str) -> Agent {
        self.agent_at(directory, self.door, 4)
    }

    pub(crate) fn agent_at(&self, directory: &str, node: SocketAddr, capacity: u32) -> Agent {
        let options = agent_options(self.directory(directory), node.to_string(), capacity);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        Agent {
            stop,
            task: tokio::spawn(agent::run(options, stopping)),
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.door.to_string()).await.unwrap()
    }

    pub(crate) async fn propose(&self, body: Body) -> Done {
        let command = Command {
            min_level: 1,
            principal: "test".to_owned(),
            body: Some(body),
            ..Command::default()
        };
        match self.store.propose(command).await.unwrap().outcome.result {
            Some(outcome::Result::Done(done)) => done,
            other => panic!("not done: {other:?}"),
        }
    }

    /// Creates a run of this ProwJob; gives its id.
    pub(crate) async fn create(&self, prow_job: Value) -> String {
        self.create_with(prow_job, |_| {}).await
    }

    pub(crate) async fn create_with(
        &self,
        prow_job: Value,
        change: impl FnOnce(&mut Job),
    ) -> String {
        let mut prow_job: ProwJob = serde_json::from_value(prow_job).unwrap();
        prow_job.metadata.name = Uuid::new_v4().to_string();
        prow_job.status.state = trireme_prowjob::ProwJobState::Triggered;
        let mut job = record::new_record(&prow_job, record::Source::default()).unwrap();
        change(&mut job);
        let id = job.id.clone();
        self.propose(Body::CreateJobs(CreateJobs {
            jobs: vec![NewJob {
                job: Some(Box::new(job)),
                ..NewJob::default()
            }],
            cursors: Vec::new(),
        }))
        .await;
        id
    }

    /// Waits until the state gives a value.
    pub(crate) async fn until<R>(
        &self,
        what: &str,
        mut look: impl FnMut(&State) -> Option<R>,
    ) -> R {
        let waiting = async {
            loop {
                let view = self.store.view();
                if let Some(found) = look(&view) {
                    return found;
                }
                let mut watch = self.store.watch(Some(view.revision));
                let _ = watch.next().await;
            }
        };
        match timeout(BOUND, waiting).await {
            Ok(found) => found,
            Err(_) => panic!(
                "waited in vain for {what}; jobs: {:#?}",
                self.store
                    .view()
                    .jobs_newest_first(trireme_state::JobFilter::default())
                    .map(|job| (&job.job, job.state(), &job.description, &job.lease))
                    .collect::<Vec<_>>()
            ),
        }
    }

    /// The run when it is complete.
    pub(crate) async fn complete(&self, id: &str) -> Job {
        self.until(&format!("the end of {id}"), |state| {
            let job = state.job(id)?;
            (job.completed_ms > 0).then(|| Job::clone(job))
        })
        .await
    }

    /// The run when its first process was recorded as started.
    pub(crate) async fn started(&self, id: &str) -> Job {
        self.until(&format!("the start of {id}"), |state| {
            let job = state.job(id)?;
            let started = job.lease.as_ref()?.started_ms > 0;
            started.then(|| Job::clone(job))
        })
        .await
    }

    /// What became of the run, change by change: state, attempt, and whether it is complete.
    pub(crate) fn history(&self, id: &str) -> Vec<String> {
        let mut watch = self.store.watch(Some(1));
        let mut history = Vec::new();
        while let Some(Ok(batch)) = watch.next().now_or_never() {
            for change in &batch.changes {
                if let Change::Job(job) = change
                    && job.id == id
                {
                    let complete = if job.completed_ms > 0 { "!" } else { "" };
                    let state = state_name(job.state());
                    history.push(format!("{state}{complete} {}", job.attempt));
                }
            }
        }
        history.dedup();
        history
    }

    /// A file that the run left in storage.
    pub(crate) fn stored(&self, job: &Job, name: &str) -> String {
        let path = run_directory(&self.dir.path().join("store"), job)
            .unwrap()
            .join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }
}

async fn open(dir: PathBuf, door: SocketAddr) -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = StoreConfig::new(dir, 1, address);
    config.peer_listener = PeerListener::Bound(listener);
    config.api_address = door.to_string();
    let store = Store::open(config).await.unwrap();
    if !store.is_member() {
        let me = Node {
            id: 1,
            peer_address: address.to_string(),
            api_address: door.to_string(),
            ..Node::default()
        };
        store.bootstrap(vec![me]).await.unwrap();
    }
    let mut leadership = store.leadership();
    timeout(BOUND, leadership.wait_for(|now| now.is_me && now.confirmed))
        .await
        .expect("a leader in time")
        .unwrap();
    store
}

async fn serve(
    store: &Store,
    listener: TcpListener,
    leases: Leases,
    storage: PathBuf,
    closing: CancellationToken,
) -> (RunLogs, JoinHandle<()>) {
    // With RUST_LOG set a failed story tells what went on.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let (hand_out, given) = oneshot::channel();
    let config = DoorConfig {
        auth: trireme_api::AuthConfig::default(),
        tls: None,
        webhook_path: "/hook".to_owned(),
        secrets: HookSecrets::default(),
        storage: storage.display().to_string(),
        config: Arc::new(NoCheck),
        config_health: trireme_api::ConfigHealth::default(),
        runs: Arc::new(Stored { root: storage }),
        leases: Arc::new(leases),
        debug: Arc::new(NoDebug),
        metrics: Box::new(|_| ()),
        pages: Box::new(move |logs| {
            assert!(hand_out.send(logs).is_ok());
            Default::default()
        }),
    };
    let doors = Doors::new(store.clone(), config).await.unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let serving = tokio::spawn(async move { doors.serve(listener, closing).await.unwrap() });
    (given.await.unwrap(), serving)
}

struct NoDebug;

impl DebugSource for NoDebug {
    fn files(&self) -> Vec<DebugFile> {
        Vec::new()
    }
}

struct NoCheck;

#[async_trait]
impl ConfigCheck for NoCheck {
    async fn check(&self, _: Candidate) -> Checked {
        Checked::default()
    }
}

struct Stored {
    root: PathBuf,
}

fn run_directory(root: &Path, job: &Job) -> io::Result<PathBuf> {
    let prow_job = record::prow_job(job)?;
    let decoration = prow_job.spec.decoration_config.as_ref();
    let config = decoration.and_then(|decoration| decoration.gcs_configuration.clone());
    let Some(config) = config else {
        return Ok(root.join("none"));
    };
    let paths = gcs_paths::for_job(&config, &JobSpec::from(&prow_job), "");
    Ok(root.join(paths.map_err(io::Error::other)?.run))
}

#[async_trait]
impl RunStore for Stored {
    async fn read(
        &self,
        job: &Job,
        path: &str,
        offset: u64,
        max: usize,
    ) -> io::Result<Option<Bytes>> {
        match std::fs::read(run_directory(&self.root, job)?.join(path)) {
            Ok(data) => {
                let from = data.len().min(usize::try_from(offset).unwrap());
                let to = data.len().min(from + max);
                Ok(Some(Bytes::from(data).slice(from..to)))
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
        }
    }

    async fn list(&self, _: &Job) -> io::Result<Vec<Artifact>> {
        Ok(Vec::new())
    }
}

/// A run without decoration.
pub(crate) fn plain(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "prow.k8s.io/v1", "kind": "ProwJob",
        "spec": {
            "type": "periodic", "agent": "kubernetes", "cluster": "default", "job": name,
            "pod_spec": {"containers": [{"command": ["sh", "-c"], "args": [script]}]},
        },
    })
}

/// A decorated postsubmit on the newest commit of a repository.
pub(crate) fn decorated(name: &str, script: &str, repository: &Repository) -> Value {
    let mut job = plain(name, script);
    job["spec"]["type"] = "postsubmit".into();
    job["spec"]["refs"] = json!({
        "org": "fleet", "repo": "harbor", "base_ref": "main", "base_sha": repository.sha,
        "clone_uri": repository.path,
    });
    job["spec"]["decoration_config"] = json!({
        "timeout": "1m", "grace_period": "5s",
        "gcs_configuration": {"bucket": "gs://artifacts", "path_strategy": "explicit"},
        "gcs_credentials_secret": "unused",
    });
    job
}

pub(crate) struct Repository {
    pub(crate) path: PathBuf,
    pub(crate) sha: String,
}

impl Repository {
    /// One commit with one file.
    pub(crate) fn new(stage: &Stage) -> Self {
        let path = stage.directory("repository");
        std::fs::write(path.join("cargo.txt"), "grain\n").unwrap();
        git(&path, &["init", "-q", "-b", "main"]);
        git(&path, &["add", "."]);
        git(&path, &["commit", "-q", "-m", "Load grain"]);
        let sha = git(&path, &["rev-parse", "HEAD"]);
        Self { path, sha }
    }
}

fn git(directory: &Path, args: &[&str]) -> String {
    let who = ["AUTHOR", "COMMITTER"].into_iter().flat_map(|who| {
        [
            (format!("GIT_{who}_NAME"), "abc"),
            (format!("GIT_{who}_EMAIL"), "d@e.f"),
        ]
    });
    let output = Process::new("git")
        .current_dir(directory)
        .args(args)
        .envs(who.collect::<BTreeMap<_, _>>())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Something that a run waits for, and something that it says.
#[derive(Clone)]
pub(crate) struct Gate {
    path: PathBuf,
}

impl Gate {
    pub(crate) fn new(stage: &Stage, name: &str) -> Self {
        Self {
            path: stage.directory("gates").join(name),
        }
    }

    /// A shell command that waits for it.
    pub(crate) fn wait(&self) -> String {
        format!("until [ -e {} ]; do sleep 0.02; done", self.path.display())
    }

    /// A shell command that writes something there.
    pub(crate) fn say(&self, what: &str) -> String {
        let path = self.path.display();
        format!("echo {what} > {path}.new; mv {path}.new {path}")
    }

    pub(crate) fn open(&self) {
        std::fs::write(&self.path, "").unwrap();
    }

    /// What a run said. A file tells nobody when it comes, so it is looked for.
    pub(crate) async fn said(&self) -> String {
        let look = async {
            loop {
                match std::fs::read_to_string(&self.path) {
                    Ok(text) => return text.trim().to_owned(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(BOUND, look)
            .await
            .unwrap_or_else(|_| panic!("{} was never said", self.path.display()))
    }
}

/// Gone, or dead and not yet collected by its parent.
pub(crate) fn is_gone(pid: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X')),
        Err(_) => true,
    }
}
