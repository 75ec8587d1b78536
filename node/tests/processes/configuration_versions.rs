//! Configuration as state: versions, what differs between them, what they may take away, and how little is uploaded.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    command::{Answer, text},
    scene::Nodes,
};

/// Of the command line (`trireme --help`).
const WRONG_COMMAND_LINE: i32 = 2;
const NOT_FOUND: i32 = 4;
const REFUSED: i32 = 5;

/// A checkout with files in the customary places.
struct Checkout {
    directory: TempDir,
}

fn presubmit(name: &str) -> String {
    format!(
        "  - name: {name}\n    always_run: true\n    spec:\n      containers:\n      - image: debian:stable\n        command: [sh, {name}.sh]\n"
    )
}

fn presubmits(repo: &str, names: &[&str]) -> String {
    let jobs: String = names.iter().map(|name| presubmit(name)).collect();
    format!("presubmits:\n  {repo}:\n{jobs}")
}

impl Checkout {
    fn new() -> Self {
        let checkout = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        checkout.write("config/prow/config.yaml", "prowjob_namespace: default\n");
        checkout.write("config/prow/plugins.yaml", "plugins: {}\n");
        checkout
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let output = Command::new("git")
            .arg("-C")
            .arg(self.root())
            .args(identity)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    async fn apply(&self, nodes: &Nodes, more: &[&str]) -> Answer {
        let apply = ["config", "apply", text(self.root())];
        nodes.run(&[&apply, more].concat()).await
    }
}

async fn json_of(nodes: &Nodes, arguments: &[&str]) -> Value {
    let json = [arguments, &["-o", "json"]].concat();
    nodes.run(&json).await.done().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_applied_from_the_customary_places_and_not_twice() {
    let mut nodes = Nodes::start(1).await;
    let checkout = Checkout::new();
    checkout.write(
        "config/jobs/acme/widget.yaml",
        &presubmits("acme/widget", &["unit"]),
    );
    let applied = checkout.apply(&nodes, &["-m", "first"]).await.done();
    assert_eq!(
        applied.out,
        "version 1 is in force: 1 presubmits, 0 postsubmits, 0 periodics\n"
    );
    let root = checkout.root().display();
    assert_eq!(
        applied.err,
        format!(
            "config.yaml: {root}/config/prow/config.yaml\nplugins.yaml: {root}/config/prow/plugins.yaml\njobs: \
             {root}/config/jobs, 1 files\n"
        )
    );
    let again = checkout.apply(&nodes, &[]).await.done();
    assert_eq!(
        again.out,
        "version 1 has the same files and stays in force: 1 presubmits, 0 postsubmits, 0 periodics\n"
    );
    let history = json_of(&nodes, &["config", "history"]).await;
    assert_eq!(history["items"].as_array().unwrap().len(), 1);

    // Where a checkout lies does not matter, nor by which way its files are named.
    let (config, plugins, jobs) = (
        checkout.at("config/prow/config.yaml"),
        checkout.at("config/prow/plugins.yaml"),
        checkout.at("config/jobs"),
    );
    let flags = [
        "config",
        "apply",
        "--config-path",
        text(&config),
        "--plugin-config",
        text(&plugins),
        "--job-config-path",
        text(&jobs),
    ];
    let by_flags = nodes.run(&flags).await.done();
    assert!(by_flags.out.starts_with("version 2 "), "{by_flags:?}");
    let listed = json_of(&nodes, &["config", "show"]).await;
    let paths: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "jobs/acme/widget.yaml",
            "prow/config.yaml",
            "prow/plugins.yaml"
        ]
    );

    // Two of a kind: a person has to say.
    checkout.write("config.yaml", "prowjob_namespace: other\n");
    let ambiguous = checkout.apply(&nodes, &[]).await;
    assert_eq!(ambiguous.code, WRONG_COMMAND_LINE, "{ambiguous:?}");
    assert!(
        ambiguous.err.contains(
            "config.yaml is in several places (config.yaml, config/prow/config.yaml): say which with --config-path"
        ),
        "{ambiguous:?}"
    );
    let stale = nodes.run(&[&flags[..], &["--expect", "1"]].concat()).await;
    assert!(
        stale
            .err
            .contains("configuration 2 is current, not 1: look at it and apply again"),
        "{stale:?}"
    );
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_applied_without_a_checkout_and_its_id_is_kept() {
    let mut nodes = Nodes::start(1).await;
    let checkout = Checkout::new();
    checkout.git(&["init", "-q", "-b", "main"]);
    checkout.write(
        "config/jobs/acme/widget.yaml",
        &presubmits("acme/widget", &["unit"]),
    );
    let first = checkout.commit("first");
    checkout.write(
        "config/jobs/acme/widget.yaml",
        &presubmits("acme/widget", &["unit", "lint"]),
    );
    let second = checkout.commit("second");
    // What is not committed does not count.
    checkout.write("config/jobs/acme/widget.yaml", "no jobs at all");

    let git = ["config", "apply", "--git", text(checkout.root())];
    let applied = nodes.run(&[&git[..], &["--ref", "main~1"]].concat()).await;
    assert!(
        applied
            .out
            .starts_with("version 1 is in force: 1 presubmits"),
        "{applied:?}"
    );
    let applied = nodes.run(&git).await;
    assert!(
        applied
            .out
            .starts_with("version 2 is in force: 2 presubmits"),
        "{applied:?}"
    );
    let history = json_of(&nodes, &["config", "history"]).await;
    let sources: Vec<_> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["source"].as_str().unwrap())
        .collect();
    assert_eq!(sources, [second.as_str(), first.as_str()]);

    let show = ["config", "show", "1", "config/jobs/acme/widget.yaml"];
    let content = nodes.run(&show).await.done();
    assert_eq!(content.out, presubmits("acme/widget", &["unit"]));
    let nowhere = nodes.run(&[&git[..], &["--ref", "nowhere"]].concat()).await;
    assert_eq!(nowhere.code, NOT_FOUND, "{nowhere:?}");
    assert!(nowhere.err.contains("no commit \"nowhere\""), "{nowhere:?}");
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_retires_much_needs_to_be_told_so() {
    let mut nodes = Nodes::start(1).await;
    let checkout = Checkout::new();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let jobs = "config/jobs/acme/widget.yaml";
    checkout.write(jobs, &presubmits("acme/widget", &names));
    checkout.apply(&nodes, &[]).await.done();

    checkout.write(jobs, &presubmits("acme/widget", &names[..7]));
    for more in [&[][..], &["--dry-run"]] {
        let refused = checkout.apply(&nodes, more).await;
        assert_eq!(refused.code, REFUSED, "{refused:?}");
        assert_eq!(
            refused.out,
            "refused: it would retire 3 of 10 contexts and 3 of 10 jobs, and no more than 20 % of either unless told to\n  \
             context acme/widget: h\n  context acme/widget: i\n  context acme/widget: j\n  job presubmit acme/widget h\n  job \
             presubmit acme/widget i\n  job presubmit acme/widget j\n"
        );
    }
    checkout
        .apply(&nodes, &["--max-retired", "30"])
        .await
        .done();
    // A fifth is not much.
    checkout.write(jobs, &presubmits("acme/widget", &names[..6]));
    checkout.apply(&nodes, &[]).await.done();
    checkout.write(jobs, "periodics: []\n");
    let json = checkout.apply(&nodes, &["-o", "json"]).await;
    let retired = &json.json()["retired"];
    assert_eq!(
        (&retired["contexts"], &retired["refused"]),
        (&json!(6), &json!(true))
    );
    checkout.apply(&nodes, &["--yes"]).await.done();
    // So with a rollback.
    checkout.write(jobs, &presubmits("acme/widget", &names));
    checkout.apply(&nodes, &[]).await.done();
    let refused = nodes.run(&["config", "rollback", "4"]).await;
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    nodes
        .run(&["config", "rollback", "4", "--yes"])
        .await
        .done();
    nodes.cluster.stop().await.unwrap();
}

/// More versions than are kept in memory: the first ones are in the archive, and can still be read and brought back.
#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_listed_compared_and_brought_back_from_the_archive() {
    const VERSIONS: u64 = 27;
    let mut nodes = Nodes::start(1).await;
    let checkout = Checkout::new();
    let jobs = "config/jobs/acme/widget.yaml";
    let content = |number: u64| presubmits("acme/widget", &["unit", &format!("lint-{number}")]);
    for number in 1..=VERSIONS {
        checkout.write(jobs, &content(number));
        let message = format!("number {number}");
        checkout
            .apply(&nodes, &["--yes", "-m", &message])
            .await
            .done();
    }
    let history = json_of(&nodes, &["config", "history"]).await;
    let numbers: Vec<_> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=VERSIONS).rev().collect::<Vec<_>>());
    let page = ["config", "history", "--limit", "3", "--before", "5"];
    let page = json_of(&nodes, &page).await;
    let first = &page["items"][0];
    assert_eq!(
        (&first["message"], &first["files"], &page["before"]),
        (&json!("number 4"), &json!(3), &json!(2))
    );

    let diff = nodes.run(&["config", "diff", "2", "27"]).await.done();
    assert_eq!(
        diff.out,
        "from version 2 to version 27\njobs added: 1\n  presubmit acme/widget lint-27\njobs removed: 1\n  presubmit \
         acme/widget lint-2\ncontexts retired: 1\n  acme/widget: lint-2\nfiles: 1\n  changed \
         config/jobs/acme/widget.yaml\n\n--- a/config/jobs/acme/widget.yaml\n+++ b/config/jobs/acme/widget.yaml\n@@ -6,9 +6,9 \
         @@\n       containers:\n       - image: debian:stable\n         command: [sh, unit.sh]\n-  - name: lint-2\n+  - name: \
         lint-27\n     always_run: true\n     spec:\n       containers:\n       - image: debian:stable\n-        command: [sh, \
         lint-2.sh]\n+        command: [sh, lint-27.sh]\n"
    );
    let same = nodes.run(&["config", "diff", "2", "2"]).await.done();
    assert_eq!(same.out, "version 2 and version 2 have the same files\n");

    let show = ["config", "show", "1", jobs];
    assert_eq!(nodes.run(&show).await.done().out, content(1));
    let back = nodes
        .run(&["config", "rollback", "1", "--yes"])
        .await
        .done();
    assert!(back.out.starts_with("version 28 is in force"), "{back:?}");
    let now = json_of(&nodes, &["config", "show"]).await;
    assert_eq!(
        (&now["rollback_of"], &now["message"]),
        (&json!(1), &json!("rollback to version 1"))
    );
    let show = ["config", "show", "0", jobs];
    assert_eq!(nodes.run(&show).await.done().out, content(1));

    // Files on disk against the version in force, and what a section holds.
    checkout.write(
        "config/prow/config.yaml",
        "prowjob_namespace: other\ntide: {sync_period: 2m}\n",
    );
    let diff = ["config", "diff", "--dir", text(checkout.root())];
    let diff = json_of(&nodes, &diff).await;
    assert_eq!(
        diff["sections"]["config"],
        json!(["prowjob_namespace", "tide"])
    );
    assert_eq!(
        diff["jobs"]["added"],
        json!([{"kind": "presubmit", "repo": "acme/widget", "name": "lint-27"}])
    );

    // Another node's archive has them as well after a restart.
    nodes.cluster.kill(1).await.unwrap();
    nodes.cluster.restart(1).unwrap();
    nodes.cluster.wait_for_leader().await.unwrap();
    let show = ["config", "show", "3", jobs];
    assert_eq!(nodes.run(&show).await.done().out, content(3));
    nodes.cluster.stop().await.unwrap();
}

/// Thousands of files go up, and of a changed one nothing but itself and the page that names it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_file_among_thousands_uploads_one_content_and_one_page() {
    const REPOS: usize = 3000;
    let mut nodes = Nodes::start(3).await;
    let checkout = Checkout::new();
    let path = |repo: usize| format!("config/jobs/org-{}/repo-{repo}.yaml", repo % 37);
    let write = |repo: usize, name: &str| {
        checkout.write(
            &path(repo),
            &presubmits(&format!("org/repo-{repo}"), &[name]),
        );
    };
    for repo in 0..REPOS {
        write(repo, "unit");
    }
    let first = checkout.apply(&nodes, &["-o", "json"]).await.done().json();
    assert_eq!(first["presubmits"], json!(REPOS));
    let uploaded = &first["uploaded"];
    assert_eq!(uploaded["files"], json!(REPOS + 2), "{uploaded}");
    assert!(uploaded["pages"].as_u64().unwrap() > 20, "{uploaded}");

    write(1234, "unit-2");
    // Whichever node is asked.
    let apply = ["config", "apply", text(checkout.root()), "-o", "json"];
    let second = nodes.run_at(2, &apply).await.done().json();
    let size = std::fs::metadata(checkout.at(&path(1234))).unwrap().len();
    assert_eq!(
        second["uploaded"],
        json!({"files": 1, "bytes": size, "pages": 1})
    );
    assert_eq!(second["version"], json!(2));
    let same = nodes.run_at(3, &apply).await.done().json();
    assert_eq!(
        (&same["unchanged"], &same["version"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(same["uploaded"]["files"], json!(0));
    nodes.cluster.stop().await.unwrap();
}
