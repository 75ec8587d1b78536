//! Nodes that follow directories, updated as a kubelet does.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use trireme_harness::Address;
use trireme_sandbox::{
    MergeSpec,
    forge::Permission,
    world::{BOT, WEBHOOK_SECRET, World},
};

use crate::{
    command::run,
    scene::{BOUND, http, until},
    security::{Served, serve},
};

#[path = "../../src/follow/kubelet.rs"]
#[allow(dead_code, reason = "the tests under the code use more of it")]
mod kubelet;

use kubelet::Volume;

const CONFIG: &[u8] = b"prowjob_namespace: default\n";

fn periodic(name: &str) -> Vec<u8> {
    format!(
        "periodics:\n- name: {name}\n  cron: 0 0 1 1 *\n  spec: {{containers: [{{image: i, command: [date]}}]}}\n"
    )
    .into_bytes()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// Nodes of one cluster that all have the same mounts.
struct Following {
    directory: TempDir,
    addresses: Vec<(Address, Address)>,
    nodes: Vec<Option<Served>>,
    /// What their settings say of it.
    follow: String,
}

impl Following {
    /// Node ids count from 1. The mounts must be there.
    fn new(nodes: usize) -> Self {
        let address = || Address::claim().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let follow = format!(
            "[config.follow]\nconfig_path = {:?}\njob_config_path = {:?}\n",
            directory.path().join("config/config.yaml"),
            directory.path().join("jobs"),
        );
        Self {
            directory,
            follow,
            addresses: (0..nodes).map(|_| (address(), address())).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self, id: usize) {
        let (door, peer) = &self.addresses[id - 1];
        let mut settings = format!(
            "node_id = {id}\ndata_dir = {:?}\nlisten = \"{door}\"\n[peer]\nlisten = \"{peer}\"\n{}",
            self.at(&format!("node-{id}/data")),
            self.follow,
        );
        for (index, (door, peer)) in self.addresses.iter().enumerate() {
            settings.push_str(&format!(
                "[[cluster.bootstrap]]\nid = {}\npeer = \"{peer}\"\napi = \"{door}\"\n",
                index + 1
            ));
        }
        let name = format!("node-{id}");
        std::fs::create_dir_all(self.at(&name)).unwrap();
        let (served, _log) = serve(self.directory.path(), &name, &settings);
        self.nodes[id - 1] = Some(served);
    }

    fn kill(&mut self, id: usize) {
        self.nodes[id - 1] = None;
    }

    fn server(&self) -> String {
        let doors = self.addresses.iter().map(|(door, _)| door.to_string());
        doors.collect::<Vec<_>>().join(",")
    }

    async fn ask(&self, arguments: &[&str]) -> Option<Value> {
        let answer = run(&self.server(), arguments).await;
        (answer.code == 0).then(|| answer.json())
    }

    async fn status(&self) -> Option<Value> {
        self.ask(&["cluster", "status", "-o", "json"]).await
    }

    /// The version in force, once it has this number; and that no other comes is seen by the next that is waited for.
    async fn until_version(&self, number: u64) -> Value {
        until(&format!("version {number}"), async || {
            let history = self.ask(&["config", "history", "-o", "json"]).await?;
            assert!(history["current"].as_u64()? <= number, "{history}");
            let newest = history["items"].get(0)?.clone();
            (newest["version"] == number).then_some(newest)
        })
        .await
    }

    async fn metrics(&self, id: usize) -> String {
        let url = format!("http://{}/metrics", self.addresses[id - 1].0);
        let answer = http().get(url).send().await.unwrap();
        answer.text().await.unwrap()
    }
}

fn alarm(status: &Value) -> Option<Value> {
    let mut alarms = status["alarms"].as_array()?.iter();
    alarms
        .find(|alarm| alarm["key"] == "config/followed")
        .cloned()
}

fn message(version: &Value) -> &str {
    version["message"].as_str().unwrap()
}

fn mount(following: &Following, jobs: &str, content: &[(&str, &[u8])]) -> Volume {
    Volume::mount(following.at(jobs), content)
}

fn below(root: &Path, path: &str) -> String {
    root.join(path).display().to_string()
}

/// CFG-004, CFG-008, CFG-013, CFG-090, CFG-092, CFG-095
#[tokio::test(flavor = "multi_thread")]
async fn cfg_092_a_node_makes_a_version_of_every_change_of_its_mounts() {
    let mut node = Following::new(1);
    let root = node.directory.path().to_owned();
    let mut config = mount(
        &node,
        "config",
        &[("config.yaml", CONFIG), ("VERSION", b"v1\n")],
    );
    let (a, b) = (gzipped(&periodic("a")), periodic("b"));
    mount(&node, "jobs/part-0", &[("a.yaml", &a)]);
    let mut part = mount(&node, "jobs/part-1", &[("b.yaml", &b)]);
    node.start(1);
    let first = node.until_version(1).await;
    assert_eq!(first["author"], "follow:node-1");
    assert_eq!(message(&first), "VERSION v1; 4 files, the first from there");
    assert_eq!(first["periodics"], 2);
    until("the version in force", async || {
        let status = node.status().await?;
        let config = &status["config"];
        (config["version"] == 1 && config["version_sha"] == "v1\n" && !config["followed"].is_null())
            .then_some(())
    })
    .await;

    config.update(&[("config.yaml", CONFIG), ("VERSION", b"v2")]);
    let second = node.until_version(2).await;
    assert_eq!(message(&second), "VERSION v2; the same files");
    let c = periodic("c");
    part.update(&[("b.yaml", &b), ("c.yaml", &c)]);
    let third = node.until_version(3).await;
    assert_eq!(
        message(&third),
        format!("VERSION v2; 1 new: {}", below(&root, "jobs/part-1/c.yaml"))
    );
    assert_eq!(third["periodics"], 3);

    // What is broken is told, and changes nothing.
    let broken = String::from_utf8(periodic("b")).unwrap();
    let broken = broken
        .replace("cron: 0 0 1 1 *", "interval: a fortnight")
        .into_bytes();
    part.update(&[("b.yaml", &broken), ("c.yaml", &c)]);
    let raised = until("the alarm", async || alarm(&node.status().await?)).await;
    let told = raised["message"].as_str().unwrap();
    let place = below(&root, "jobs/part-1/b.yaml");
    assert!(told.contains(&format!("{place}:2:3: ")), "{told}");
    assert!(told.contains("cannot parse duration for b"), "{told}");
    let metrics = node.metrics(1).await;
    for line in [
        "trireme_config_load_good{source=\"directory\"} 0",
        "trireme_config_load_good{source=\"version\"} 1",
        "trireme_config_version 3",
        "trireme_config_info{config_version_sha=\"v2\"} 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
    assert!(metrics.contains("trireme_config_load_error{source=\"directory\",error=\""));
    let status = run(&node.server(), &["cluster", "status"]).await.done();
    assert!(
        status
            .out
            .contains("the watched directory is not taken, the former configuration stays: "),
        "{}",
        status.out
    );
    node.until_version(3).await;

    // What stood there before is no new version.
    part.update(&[("b.yaml", &b), ("c.yaml", &c)]);
    until("the alarm to go", async || {
        let status = node.status().await?;
        let good = status["config"]["followed"]["error"].is_null();
        (good && alarm(&status).is_none()).then_some(())
    })
    .await;
    node.until_version(3).await;

    // What somebody brings back by hand stays until the files change, also when the node is started again.
    run(&node.server(), &["config", "rollback", "1", "--yes"])
        .await
        .done();
    node.until_version(4).await;
    node.kill(1);
    node.start(1);
    until("the look of the node that was started again", async || {
        let status = node.status().await?;
        (status["config"]["version"] == 4 && !status["config"]["followed"].is_null()).then_some(())
    })
    .await;
    node.until_version(4).await;
    part.update(&[("b.yaml", &b)]);
    let fifth = node.until_version(5).await;
    assert_eq!(
        (&fifth["periodics"], &fifth["author"]),
        (&json!(2), &json!("follow:node-1"))
    );

    // What takes away too much is for a person to decide.
    part.update(&[("README", b"no jobs here any more")]);
    let told = until("the alarm", async || alarm(&node.status().await?)).await;
    let told = told["message"].as_str().unwrap();
    let wanted = "it would retire 0 of 0 contexts and 1 of 2 jobs, more than the 20 % that config.follow.max_retired_percent allows: ";
    assert!(told.contains(wanted), "{told}");
    node.until_version(5).await;
    let (files, jobs) = (below(&root, "config/config.yaml"), below(&root, "jobs"));
    let apply = [
        "config",
        "apply",
        "--config-path",
        &files,
        "--job-config-path",
        &jobs,
        "--yes",
    ];
    run(&node.server(), &apply).await.done();
    node.until_version(6).await;
    config.update(&[("config.yaml", CONFIG), ("VERSION", b"v3")]);
    let seventh = node.until_version(7).await;
    // Where the paths begin is the command line's own affair.
    assert!(message(&seventh).starts_with("VERSION v3; "), "{seventh}");
    assert_eq!(seventh["periodics"], 1);
    until("the alarm to go", async || {
        alarm(&node.status().await?).is_none().then_some(())
    })
    .await;
}

/// What was taken is remembered by the cluster, so a new leader takes only what is new.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_goes_on_where_the_last_one_was() {
    let mut nodes = Following::new(3);
    let mut config = mount(&nodes, "config", &[("config.yaml", CONFIG)]);
    let a = periodic("a");
    mount(&nodes, "jobs", &[("a.yaml", &a)]);
    (1..=3).for_each(|id| nodes.start(id));
    let first = nodes.until_version(1).await;
    let author = first["author"].as_str().unwrap().to_owned();
    let leader: usize = author
        .strip_prefix("follow:node-")
        .unwrap()
        .parse()
        .unwrap();
    nodes.kill(leader);
    let next = until("the next leader's look", async || {
        let all = nodes
            .ask(&["cluster", "status", "--all", "-o", "json"])
            .await?;
        let follows = |node: &Value| {
            let reachable = node["reachable"] == true;
            (reachable && !node["config"]["followed"].is_null()).then(|| node["id"].as_u64())?
        };
        all["nodes"].as_array()?.iter().find_map(follows)
    })
    .await;
    nodes.until_version(1).await;
    config.update(&[("config.yaml", CONFIG), ("VERSION", b"v2")]);
    let second = nodes.until_version(2).await;
    assert_eq!(second["author"], format!("follow:node-{next}"));
    assert_ne!(second["author"], author);
}

/// CFG-090: files that are not there at the start are a mistake in the settings.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_090_a_node_without_its_files_does_not_start() {
    let mut node = Following::new(1);
    std::fs::create_dir_all(node.at("jobs")).unwrap();
    node.start(1);
    let log = node.at("node-1.log");
    let told = until("the end", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("trireme: ").then_some(text)
    })
    .await;
    let wanted = format!(
        "trireme: config.follow.config_path: {} is not there; mount it on every node",
        node.at("config/config.yaml").display()
    );
    assert!(told.contains(&wanted), "{told}");
}

/// A node that follows a branch of a forge beside it.
struct OfBranch {
    world: World,
    node: Following,
}

impl OfBranch {
    async fn start() -> Self {
        let config = String::from_utf8(CONFIG.to_vec()).unwrap();
        let world = World::builder()
            .file("prow/config.yaml", config)
            .file("prow/plugins.yaml", "plugins: {acme: {plugins: [hold]}}\n")
            .file("prow/jobs/a.yaml", periodic("a"))
            .file("README.md", "no configuration\n");
        let world = world.bound(BOUND).start().await.unwrap();
        world.grant("author", Permission::Write);
        let mut node = Following::new(1);
        let (token, secret) = (node.at("token"), node.at("hmac"));
        std::fs::write(&token, world.sandbox().token_for(BOT)).unwrap();
        std::fs::write(&secret, WEBHOOK_SECRET).unwrap();
        let forge = world.sandbox().url();
        node.follow = format!(
            "[webhook]\nhmac_secret_file = {secret:?}\n[github]\nendpoint = {forge:?}\nurl = {forge:?}\ntoken_file = {token:?}\n\
             [config.follow]\nrepo = \"acme/widget\"\nconfig_path = \"prow/config.yaml\"\n\
             job_config_path = \"prow/jobs\"\nplugin_config = \"prow/plugins.yaml\"\n"
        );
        node.start(1);
        let door = format!("http://{}/hook", node.addresses[0].0);
        world.hook_to(&[&door]);
        Self { world, node }
    }

    /// What the merge of these files made.
    async fn merge(&self, name: &str, files: &[(&str, Vec<u8>)]) -> String {
        let mut pr = self.world.pr(name);
        for (path, content) in files {
            pr = pr.file(path, content.clone());
        }
        let pr = pr.opened_by("author").await;
        let author = self.world.user("author");
        let merged = author.merge(self.world.repo(), pr.number, MergeSpec::default());
        merged.await.unwrap()
    }
}

/// PLG-CONFIGUPDATER-011: a merge to the branch is one version, checked as a whole; one that is broken changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn plg_configupdater_011_a_merge_to_the_followed_branch_is_one_version() {
    let scene = OfBranch::start().await;
    let node = &scene.node;
    let first = node.until_version(1).await;
    assert_eq!(first["author"], "follow:node-1");
    assert_eq!(message(&first), "3 files, the first from there");
    assert_eq!(first["source"].as_str().unwrap().len(), 40);

    let later = String::from_utf8(periodic("a")).unwrap();
    let later = later.replace("0 0 1 1 *", "0 0 2 1 *").into_bytes();
    let files = [
        ("prow/jobs/a.yaml", later),
        ("prow/jobs/b.yaml", periodic("b")),
        ("prow/config.yaml", b"prowjob_namespace: other\n".to_vec()),
    ];
    let merged = scene.merge("change", &files).await;
    let second = node.until_version(2).await;
    assert_eq!(second["source"], merged);
    assert_eq!(second["periodics"], 2);
    assert_eq!(
        message(&second),
        "2 changed, 1 new: prow/config.yaml, prow/jobs/a.yaml, prow/jobs/b.yaml"
    );

    // Other files are no configuration, and half of a broken merge is not taken.
    scene
        .merge("docs", &[("README.md", b"words\n".to_vec())])
        .await;
    let broken = [
        ("prow/config.yaml", b"prowjob_namespace: third\n".to_vec()),
        (
            "prow/plugins.yaml",
            b"plugins: {acme: {plugins: hold}}\n".to_vec(),
        ),
    ];
    scene.merge("broken", &broken).await;
    let raised = until("the alarm", async || alarm(&node.status().await?)).await;
    let told = raised["message"].as_str().unwrap();
    assert!(
        told.starts_with("the followed branch is not taken, the former configuration stays: "),
        "{told}"
    );
    assert!(told.contains("cannot use a string as a list"), "{told}");

    let mended = [(
        "prow/plugins.yaml",
        b"plugins: {acme: {plugins: [wip]}}\n".to_vec(),
    )];
    let merged = scene.merge("mended", &mended).await;
    let third = node.until_version(3).await;
    assert_eq!(third["source"], merged);
    assert_eq!(
        message(&third),
        "2 changed: prow/config.yaml, prow/plugins.yaml"
    );
    until("the alarm to be lowered", async || {
        alarm(&node.status().await?).is_none().then_some(())
    })
    .await;
}
