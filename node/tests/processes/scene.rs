//! Processes on loopback with a forge beside them, and what tests wait for.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use trireme_harness::{AgentProcess, AgentSettings, Cluster, ClusterSettings, GitHub};
use trireme_proto::{
    api::WatchRequest,
    state::{Job, change::Record},
};
use trireme_sandbox::world::{BOT, WEBHOOK_SECRET, World, WorldBuilder};
use trireme_state::FEATURE_LEVEL;

use crate::command::{Answer, executable, run, text};

/// The longest that anything here is waited for.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// Nodes without a forge.
pub(crate) struct Nodes {
    pub(crate) cluster: Cluster,
    pub(crate) directory: TempDir,
}

pub(crate) fn settings(directory: &Path, nodes: u64) -> ClusterSettings {
    let secret = directory.join("hmac");
    std::fs::write(&secret, WEBHOOK_SECRET).unwrap();
    let storage = directory.join("artifacts");
    std::fs::create_dir_all(&storage).unwrap();
    ClusterSettings {
        directory: directory.to_owned(),
        nodes,
        github: None,
        hmac_secret_file: Some(secret),
        storage,
        ground: trireme_harness::Ground::default(),
    }
}

impl Nodes {
    pub(crate) async fn start(nodes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path(), nodes);
        let cluster = Cluster::start(executable(), settings).await.unwrap();
        // The last thing that a new cluster writes by itself.
        until("the newest feature level", async || {
            let status = cluster.status(1).await.ok()?;
            (status.feature_level == FEATURE_LEVEL).then_some(())
        })
        .await;
        Self { cluster, directory }
    }

    pub(crate) fn server(&self) -> String {
        self.cluster.addresses().join(",")
    }

    pub(crate) fn url(&self, id: u64) -> String {
        self.cluster.member(id).unwrap().url()
    }

    /// Asks through whichever node answers.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Answer {
        run(&self.server(), arguments).await
    }

    /// Asks one node.
    pub(crate) async fn run_at(&self, id: u64, arguments: &[&str]) -> Answer {
        run(self.cluster.member(id).unwrap().api.as_str(), arguments).await
    }
}

/// One node, one agent, one forge.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) nodes: Nodes,
    pub(crate) agent: AgentProcess,
}

const CONFIG: &str = r#"
prowjob_namespace: default
pod_namespace: test-pods
github:
  link_url: FORGE
plank:
  job_url_prefix_config:
    "*": http://DECK/view/
  default_decoration_config_entries:
  - config:
      timeout: 1m
      grace_period: 5s
      gcs_configuration:
        bucket: artifacts
        path_strategy: explicit
      utility_images:
        clonerefs: trireme/clonerefs
        initupload: trireme/initupload
        entrypoint: trireme/entrypoint
        sidecar: trireme/sidecar
tide:
  sync_period: 5s
  status_update_period: 1s
  queries:
  - repos: [acme/widget]
    labels: [lgtm, approved]
    missingLabels: [do-not-merge/hold, do-not-merge/work-in-progress, needs-ok-to-test]
"#;

const PLUGINS: &str = r"
plugins:
  acme:
    plugins: [approve, hold, lgtm, trigger, wip]
approve:
- repos: [acme]
  require_self_approval: true
triggers:
- repos: [acme]
";

impl Scene {
    /// `jobs` is a job file of Prow's; `GATES` in it stands for [`Scene::gates`].
    pub(crate) async fn start(world: WorldBuilder, jobs: &str) -> Self {
        let world = world.bound(BOUND).start().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let token = root.join("token");
        std::fs::write(&token, world.sandbox().token_for(BOT)).unwrap();
        std::fs::create_dir(root.join("gates")).unwrap();
        let forge = world.sandbox().url().to_owned();
        let mut settings = settings(root, 1);
        settings.github = Some(GitHub {
            endpoint: forge.clone(),
            url: forge.clone(),
            token_file: token,
        });
        let cluster = Cluster::start(executable(), settings).await.unwrap();
        let deck = cluster.addresses().join(",");
        world.hook_to(&[format!("http://{deck}/hook")]);
        for (name, content) in [
            ("config.yaml", CONFIG),
            ("plugins.yaml", PLUGINS),
            ("jobs.yaml", jobs),
        ] {
            let content = content
                .replace("FORGE", &forge)
                .replace("DECK", &deck)
                .replace("GATES", text(&root.join("gates")));
            std::fs::write(root.join(name), content).unwrap();
        }
        let agent = AgentSettings {
            name: "agent-1".to_owned(),
            nodes: cluster.addresses(),
            capacity: 6,
            directory: root.join("agent-1"),
        };
        let agent = AgentProcess::start(&executable(), agent).unwrap();
        let scene = Self {
            world,
            nodes: Nodes { cluster, directory },
            agent,
        };
        scene.apply().await;
        scene
    }

    /// Applies the configuration's files as they are, whatever they take away.
    pub(crate) async fn apply(&self) {
        let at = |name| self.nodes.directory.path().join(name);
        let (config, plugins, jobs) = (at("config.yaml"), at("plugins.yaml"), at("jobs.yaml"));
        let apply = [
            "config",
            "apply",
            "--config-path",
            text(&config),
            "--plugin-config",
            text(&plugins),
            "--job-config-path",
            text(&jobs),
            "--yes",
        ];
        self.nodes.run(&apply).await.done();
    }

    /// Changes one of the configuration's files; it is in force once it is applied.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&str) -> String) {
        let path = self.nodes.directory.path().join(name);
        let content = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, change(&content)).unwrap();
    }

    pub(crate) fn storage(&self) -> PathBuf {
        self.nodes.directory.path().join("artifacts")
    }

    /// Lets jobs that wait for this file go on.
    pub(crate) fn open_gate(&self, name: &str) {
        std::fs::write(self.nodes.directory.path().join("gates").join(name), "").unwrap();
    }

    /// Waits for a run that fits, from the first that ever was.
    pub(crate) async fn until_run(&self, what: &str, fits: impl Fn(&Job) -> bool) -> Job {
        until_record(&self.nodes.cluster, what, |record| match record {
            Record::Job(job) if fits(job) => Some(job.clone()),
            _ => None,
        })
        .await
    }

    /// Every run there is.
    pub(crate) async fn runs(&self) -> Vec<serde_json::Value> {
        let listed = self
            .nodes
            .run(&["get", "jobs", "-o", "json"])
            .await
            .done()
            .json();
        listed["items"].as_array().unwrap().clone()
    }

    pub(crate) async fn stop(mut self) {
        self.agent.stop().await.unwrap();
        self.nodes.cluster.stop().await.unwrap();
        self.world.sandbox().stop();
    }
}

/// Waits for a record as it once was or becomes, from the first revision on.
pub(crate) async fn until_record<R>(
    cluster: &Cluster,
    what: &str,
    find: impl Fn(&Record) -> Option<R>,
) -> R {
    let client = cluster.client().await.unwrap();
    let request = WatchRequest {
        after_revision: 1,
        ..WatchRequest::default()
    };
    let mut stream = client.watch().watch(request).await.unwrap().into_inner();
    let search = async {
        while let Some(message) = stream.message().await.unwrap() {
            let changes = message.batch.unwrap_or_default().changes;
            let found = changes
                .iter()
                .filter_map(|change| change.record.as_ref())
                .find_map(&find);
            if found.is_some() {
                return found;
            }
        }
        None
    };
    timeout(BOUND, search)
        .await
        .unwrap_or_else(|_| panic!("waited {BOUND:?} in vain for {what}"))
        .expect("the watch goes on")
}

/// For what a process only tells when asked.
pub(crate) async fn until<R>(what: &str, mut ask: impl AsyncFnMut() -> Option<R>) -> R {
    const PERIOD: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + BOUND;
    while Instant::now() < deadline {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(PERIOD).await;
    }
    panic!("waited {BOUND:?} in vain for {what}");
}

/// A client that uses no proxy and follows no redirect.
pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}
