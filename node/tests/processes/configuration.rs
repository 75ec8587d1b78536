//! `checkconfig` and `config`: whole or not at all, with the place of every error.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    command::{run, text},
    scene::Nodes,
};

/// Of the command line (`trireme --help`).
const CONFIG_HAS_ERRORS: i32 = 5;
const STRICT_WARNINGS: i32 = 7;

const GOOD: &str = r"presubmits:
  acme/widget:
  - name: unit
    always_run: true
    spec:
      containers:
      - image: debian:stable
        command: [sh, test/unit.sh]
periodics:
- name: nightly
  interval: 24h
  spec:
    containers:
    - image: debian:stable
      command: [date]
";

/// A wrong type on line 4.
const BAD: &str = r"presubmits:
  acme/widget:
  - name: unit
    always_run: perhaps
";
const NO_DURATION: &str = r"periodics:
- name: nightly
  interval: a fortnight
  spec:
    containers:
    - image: debian:stable
      command: [date]
";

/// A configuration on disk.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new(jobs: &str) -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::write(files.at("config.yaml"), "prowjob_namespace: default\n").unwrap();
        files.jobs(jobs);
        files
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn jobs(&self, content: &str) {
        std::fs::write(self.at("jobs.yaml"), content).unwrap();
    }

    fn flags(&self) -> Vec<String> {
        let (config, jobs) = (self.at("config.yaml"), self.at("jobs.yaml"));
        [
            "--config-path",
            text(&config),
            "--job-config-path",
            text(&jobs),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

fn command<'a>(verb: &[&'a str], flags: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let flags = flags.iter().map(String::as_str);
    verb.iter()
        .copied()
        .chain(flags)
        .chain(more.iter().copied())
        .collect()
}

/// The number in force, and of every version where it came from, newest first.
async fn history(nodes: &Nodes) -> (u64, Vec<(u64, String)>) {
    let history = nodes
        .run(&["config", "history", "-o", "json"])
        .await
        .done()
        .json();
    let versions = history["items"].as_array().unwrap().iter().map(|version| {
        (
            version["version"].as_u64().unwrap(),
            version["message"].as_str().unwrap().to_owned(),
        )
    });
    (history["current"].as_u64().unwrap(), versions.collect())
}

/// CFG-002: files that are supplemental only because flags say so are it in the version, too.
#[tokio::test(flavor = "multi_thread")]
async fn cfg_002_supplemental_files_may_be_called_anything() {
    let nodes = Nodes::start(1).await;
    let files = Files::new("");
    let shards = files.at("shards");
    std::fs::create_dir_all(&shards).unwrap();
    let shard = |name: &str, content: &str| std::fs::write(shards.join(name), content).unwrap();
    let query = "tide: {queries: [{orgs: [acme], labels: [lgtm]}]}\n";
    shard("acme.prow.yaml", query);
    let mut flags = files.flags();
    flags.extend([
        format!("--supplemental-prow-config-dir={}", shards.display()),
        "--supplemental-prow-configs-filename-suffix=.prow.yaml".to_owned(),
    ]);
    let apply = command(&["config", "apply"], &flags, &[]);
    let applied = nodes.run(&apply).await.done();
    assert_eq!(
        applied.out,
        "version 1 is in force: 0 presubmits, 0 postsubmits, 0 periodics\n"
    );
    let shown = ["config", "show", "-o", "json"];
    let shown = nodes.run(&shown).await.done().json();
    let roles = shown["items"].as_array().unwrap().iter();
    let roles: Vec<_> = roles
        .map(|file| {
            (
                file["path"].as_str().unwrap(),
                file["role"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(
        roles.contains(&("shards/acme.prow.yaml", "prow_supplemental")),
        "{roles:?}"
    );
    // It is read: what it may not say is refused.
    shard("acme.prow.yaml", "prowjob_namespace: elsewhere\n");
    let refused = nodes.run(&apply).await;
    assert_eq!(refused.code, CONFIG_HAS_ERRORS, "{refused:?}");
    let place = shards.join("acme.prow.yaml").display().to_string();
    assert!(refused.out.contains(&place), "{}", refused.out);
}

/// Quality bar of configuration: refused whole, with file, line and field, while the old version stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_whole_and_the_old_version_stays_in_force() {
    let mut nodes = Nodes::start(1).await;
    let files = Files::new(GOOD);
    let flags = files.flags();
    let dry = nodes
        .run(&command(&["config", "apply"], &flags, &["--dry-run"]))
        .await
        .done();
    assert_eq!(
        dry.out,
        "good: 1 presubmits, 0 postsubmits, 1 periodics; nothing was changed\n"
    );
    assert_eq!(history(&nodes).await, (0, vec![]));

    let applied = nodes
        .run(&command(&["config", "apply"], &flags, &["-m", "the first"]))
        .await
        .done();
    assert_eq!(
        applied.out,
        "version 1 is in force: 1 presubmits, 0 postsubmits, 1 periodics\n"
    );
    let first = vec![(1, "the first".to_owned())];
    assert_eq!(history(&nodes).await, (1, first.clone()));

    files.jobs(BAD);
    for more in [
        &[][..],
        &["--dry-run"],
        &["--dry-run=false", "--dry-run=true"],
    ] {
        let refused = nodes
            .run(&command(&["config", "apply"], &flags, more))
            .await;
        assert_eq!(refused.code, CONFIG_HAS_ERRORS, "{refused:?}");
        let place = format!(
            "error: {}:4:17: presubmits[\"acme/widget\"][0].always_run: cannot use a string as a boolean\n",
            files.at("jobs.yaml").display()
        );
        assert!(refused.out.contains(&place), "{}\n{place}", refused.out);
        assert_eq!(
            refused.err,
            "trireme: the configuration was refused whole; the version in force stays\n"
        );
    }
    assert_eq!(history(&nodes).await, (1, first));

    files.jobs(NO_DURATION);
    let refused = nodes.run(&command(&["config", "apply"], &flags, &[])).await;
    let place = format!(
        "error: {}:2:3: periodics[0].interval: cannot parse duration for nightly: ",
        files.at("jobs.yaml").display()
    );
    assert!(refused.out.starts_with(&place), "{}", refused.out);

    files.jobs("periodics: []\n");
    let second = nodes
        .run(&command(
            &["config", "apply"],
            &flags,
            &["-o", "json", "--yes"],
        ))
        .await
        .done()
        .json();
    assert_eq!(
        (&second["accepted"], &second["version"]),
        (&json!(true), &json!(2))
    );
    let back = nodes.run(&["config", "rollback", "1"]).await.done();
    assert_eq!(
        back.out,
        "version 3 is in force: 1 presubmits, 0 postsubmits, 1 periodics\n"
    );
    let (current, versions) = history(&nodes).await;
    assert_eq!(current, 3);
    assert_eq!(versions[0], (3, "rollback to version 1".to_owned()));
    let missing = nodes.run(&["config", "rollback", "99"]).await;
    assert_eq!(missing.code, 4, "{missing:?}");
    assert_eq!(
        missing.err,
        "trireme: no configuration version 99; `trireme config history` lists them\n"
    );
    nodes.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn checkconfig_tells_places_as_text_and_as_json_by_its_exit_code() {
    let files = Files::new(GOOD);
    let flags = files.flags();
    let good = run("", &command(&["checkconfig"], &flags, &[]))
        .await
        .done();
    // Both jobs run without the pod utilities, of which Prow's checkconfig warns as well.
    let last = "\n2 warnings (1 presubmit, 0 postsubmits, 1 periodic)\n";
    assert!(good.out.ends_with(last), "{}", good.out);

    files.jobs(BAD);
    let bad = run("", &command(&["checkconfig"], &flags, &[])).await;
    assert_eq!(
        (bad.code, bad.err.as_str()),
        (
            CONFIG_HAS_ERRORS,
            "trireme: the configuration has 1 error\n"
        ),
        "{bad:?}"
    );
    let place = format!(" --> {}:4:17\n", files.at("jobs.yaml").display());
    assert!(bad.out.contains(&place), "{}", bad.out);
    let told = "presubmits[\"acme/widget\"][0].always_run";
    assert!(bad.out.contains(told), "{}", bad.out);
    let bad = run("", &command(&["checkconfig"], &flags, &["-o", "json"])).await;
    assert_eq!(bad.code, CONFIG_HAS_ERRORS, "{bad:?}");
    let bad = bad.json();
    let error = &bad["errors"][0];
    assert_eq!(
        (&error["file"], &error["line"], &error["field"]),
        (
            &json!(files.at("jobs.yaml")),
            &json!(4),
            &json!("presubmits[\"acme/widget\"][0].always_run")
        )
    );

    // What is only found when all is put together is shown where the field is.
    files.jobs(NO_DURATION);
    let bad = run("", &command(&["checkconfig"], &flags, &[])).await;
    let place = format!(" --> {}:3:13\n", files.at("jobs.yaml").display());
    assert!(bad.out.contains(&place), "{}", bad.out);
    let told = "cannot parse duration for nightly: ";
    assert!(bad.out.contains(told), "{}", bad.out);

    // A field that nothing reads is told; it is an error only when asked to be.
    files.jobs(&format!("{GOOD}unheard_of: true\n"));
    let unknown = ["--warnings", "unknown-fields-all", "-o", "json"];
    let warned = run("", &command(&["checkconfig"], &flags, &unknown))
        .await
        .done()
        .json();
    assert_eq!(warned["errors"], json!([]));
    let only = ["--warnings", "unknown-fields-all"];
    let warnings = warned["warnings"].as_array().unwrap().iter();
    let fields: Vec<_> = warnings
        .filter(|found| found["field"] == "unheard_of")
        .collect();
    assert_eq!(fields.len(), 1, "{warned}");
    let strict = command(&["checkconfig", "--strict"], &flags, &only);
    let strict = run("", &strict).await;
    assert_eq!(strict.code, STRICT_WARNINGS, "{strict:?}");

    let missing = ["checkconfig", "--config-path", "/nowhere/config.yaml"];
    let missing = run("", &missing).await;
    assert_eq!(missing.code, CONFIG_HAS_ERRORS, "{missing:?}");
    assert!(missing.out.contains("/nowhere/config.yaml"), "{missing:?}");
}

/// CFG-110: Kubernetes' own configuration is good, and a running cluster takes it.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_of_kubernetes_is_good_and_can_be_applied() {
    let root = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/corpus/kubernetes/test-infra/config"
    ));
    if !root.is_dir() {
        println!("skipped: {} is not there", root.display());
        return;
    }
    let at = |path: &str| text(&root.join(path)).to_owned();
    let flags = [
        "--config-path".to_owned(),
        at("prow/config.yaml"),
        "--job-config-path".to_owned(),
        at("jobs"),
        "--plugin-config".to_owned(),
        at("prow/plugins.yaml"),
    ];
    let checked = run("", &command(&["checkconfig"], &flags, &["-o", "json"]))
        .await
        .done()
        .json();
    let counts = |found: &Value| {
        ["presubmits", "postsubmits", "periodics"].map(|kind| found[kind].as_u64().unwrap())
    };
    assert_eq!(
        (counts(&checked), &checked["errors"]),
        ([2261, 253, 3565], &json!([]))
    );

    let mut nodes = Nodes::start(1).await;
    let applied = nodes
        .run(&command(&["config", "apply"], &flags, &["-o", "json"]))
        .await
        .done()
        .json();
    assert_eq!(counts(&applied), [2261, 253, 3565]);
    assert_eq!(history(&nodes).await.0, 1);
    nodes.cluster.kill(1).await.unwrap();
    nodes.cluster.restart(1).unwrap();
    nodes.cluster.wait_for_leader().await.unwrap();
    assert_eq!(history(&nodes).await.0, 1);
    nodes.cluster.stop().await.unwrap();
}
