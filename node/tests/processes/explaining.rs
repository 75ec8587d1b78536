//! `config expand` and `config why`: what a job is after all defaulting, and why it runs.

use serde_json::{Value, json};
use trireme_config::yaml;
use trireme_sandbox::world::World;

use crate::{
    command::{Answer, run, text},
    scene::{BOUND, Nodes},
};

const CONFIG: &str = r#"
prowjob_namespace: default
plank:
  default_decoration_configs:
    "*":
      timeout: 2h
      gcs_configuration: {bucket: artifacts, path_strategy: explicit}
      utility_images: {clonerefs: u/c, initupload: u/i, entrypoint: u/e, sidecar: u/s}
"#;

const PLUGINS: &str = "plugins:\n  acme:\n    plugins: [trigger]\n";

const JOBS: &str = r"
presubmits:
  acme/widget:
  - name: unit
    branches: [main]
    run_if_changed: \.go$
    decorate: true
    spec: {containers: [{image: a, command: [make]}]}
  - name: manual
    spec: {containers: [{image: a, command: [make]}]}
  acme/other:
  - name: manual
    always_run: true
    spec: {containers: [{image: a, command: [make]}]}
periodics:
- name: nightly
  cron: '@daily'
  spec: {containers: [{image: a, command: [date]}]}
";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for (name, content) in [
            ("config.yaml", CONFIG),
            ("plugins.yaml", PLUGINS),
            ("jobs.yaml", JOBS),
        ] {
            std::fs::write(files.0.path().join(name), content).unwrap();
        }
        files
    }

    fn flags(&self) -> Vec<String> {
        [
            ("--config-path", "config.yaml"),
            ("--plugin-config", "plugins.yaml"),
            ("--job-config-path", "jobs.yaml"),
        ]
        .into_iter()
        .flat_map(|(flag, name)| [flag.to_owned(), text(&self.0.path().join(name)).to_owned()])
        .collect()
    }

    async fn config(&self, verb: &str, more: &[&str]) -> Answer {
        let flags = self.flags();
        let mut arguments = vec!["config", verb];
        arguments.extend(more);
        arguments.extend(flags.iter().map(String::as_str));
        run("", &arguments).await
    }

    /// Without the directory, which differs each time.
    fn plain(&self, told: &str) -> String {
        told.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// CFG-106: a job after all defaulting, from files and from the version in force alike.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_with_the_places_that_its_fields_come_from() {
    let files = Files::new();
    let shown = files.config("expand", &["unit"]).await.done();
    insta::assert_snapshot!(files.plain(&shown.out), @r#"
    # unit, presubmit of acme/widget (jobs.yaml:4); config.yaml
    agent: kubernetes # default
    always_run: false # default
    branches:
    - main
    cluster: default # default
    context: unit # from the job's name
    decorate: true
    decoration_config:
      gcs_configuration:
        bucket: artifacts # config.yaml:6: plank.default_decoration_configs["*"]
        path_strategy: explicit # config.yaml:6: plank.default_decoration_configs["*"]
      timeout: 2h0m0s # config.yaml:6: plank.default_decoration_configs["*"]
      utility_images:
        clonerefs: u/c # config.yaml:6: plank.default_decoration_configs["*"]
        entrypoint: u/e # config.yaml:6: plank.default_decoration_configs["*"]
        initupload: u/i # config.yaml:6: plank.default_decoration_configs["*"]
        sidecar: u/s # config.yaml:6: plank.default_decoration_configs["*"]
    name: unit
    namespace: default # config.yaml: pod_namespace
    prowjob_defaults:
      tenant_id: GlobalDefaultID # default
    rerun_command: /test unit # from the job's name
    run_if_changed: \.go$
    spec:
      containers:
      - command:
        - make
        image: a
        name: ""
        resources: {}
    trigger: (?m)^/test( | .* )unit,?($|\s.*) # from the job's name
    "#);
    let value = |text: &str| {
        yaml::parse(text.as_bytes())
            .unwrap()
            .root
            .to_json()
            .unwrap()
    };
    let json = files
        .config("expand", &["unit", "-o", "json"])
        .await
        .done()
        .json();
    assert_eq!(value(&shown.out), json["job"]);
    let own = json!({"field": "run_if_changed", "from": format!("{}:6", text(&files.0.path().join("jobs.yaml"))), "own": true});
    assert!(json["origins"].as_array().unwrap().contains(&own), "{json}");

    let two = files.config("expand", &["manual"]).await;
    assert_eq!(two.code, 2, "{two:?}");
    insta::assert_snapshot!(files.plain(&two.err), @"
    trireme: 2 jobs are called manual; say which with --repo:
      presubmit of acme/other (jobs.yaml:12)
      presubmit of acme/widget (jobs.yaml:9)
    ");
    let one = files
        .config("expand", &["manual", "--repo", "acme/other"])
        .await
        .done();
    assert_eq!(value(&one.out)["always_run"], true);
    let elsewhere = files
        .config("expand", &["unit", "--type", "periodic"])
        .await;
    assert_eq!(elsewhere.code, 4, "{elsewhere:?}");
    insta::assert_snapshot!(files.plain(&elsewhere.err), @"trireme: Job unit not found. There is one of that name: presubmit of acme/widget (jobs.yaml:4).");

    let mut nodes = Nodes::start(1).await;
    let none = nodes.run(&["config", "expand", "unit"]).await;
    assert_eq!(none.code, 4, "{none:?}");
    let flags = files.flags();
    let apply = ["config", "apply"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    nodes.run(&apply.collect::<Vec<_>>()).await.done();
    let of_cluster = nodes.run(&["config", "expand", "unit"]).await.done();
    let head = of_cluster.out.lines().next().unwrap();
    assert!(head.ends_with("; version 1 of the cluster"), "{head}");
    assert_eq!(value(&of_cluster.out), value(&shown.out));
    nodes.cluster.stop().await.unwrap();
}

/// JOB-013…019, as somebody asks for them before there is a pull request.
#[tokio::test(flavor = "multi_thread")]
async fn why_names_the_rule_that_decides() {
    let files = Files::new();
    let why = async |more: &[&str]| {
        let told = files.config("why", more).await.done();
        files.plain(&told.out)
    };
    insta::assert_snapshot!(why(&["unit", "--base", "main", "--changed", "a.md", "b.go"]).await, @r#"
    unit, presubmit of acme/widget (jobs.yaml:4): runs for a pull request (main, 2 changed files)
       in_repo_config  in the configuration, jobs.yaml:4; in_repo_config is not enabled for acme/widget
       plugin          the plugin trigger is on for acme/widget
       draft           it is no draft, and no conflict is known
       trust           no label says that the author is not trusted
       asked           everything that runs by itself is asked for
       branch          branches: 'main' matches the branch "main"
       always_run      false
    => run_if_changed  '\.go$' matches the changed file "b.go"
       tide            Tide wants the context "unit" to succeed if it is there
    "#);
    insta::assert_snapshot!(why(&["unit", "--base", "release", "--changed", "b.go"]).await, @r#"
    unit, presubmit of acme/widget (jobs.yaml:4): does not run for a pull request (release, 1 changed file)
       in_repo_config  in the configuration, jobs.yaml:4; in_repo_config is not enabled for acme/widget
       plugin          the plugin trigger is on for acme/widget
       draft           it is no draft, and no conflict is known
       trust           no label says that the author is not trusted
       asked           everything that runs by itself is asked for
    => branch          branches: none of ['main'] matches the branch "release"
       always_run      false
       run_if_changed  '\.go$' matches the changed file "b.go"
       tide            Tide wants the context "unit" to succeed if it is there
    "#);
    insta::assert_snapshot!(why(&["unit", "--base", "main", "--changed", "b.go", "--draft"]).await, @r#"
    unit, presubmit of acme/widget (jobs.yaml:4): does not run for a pull request (main, 1 changed file)
       in_repo_config  in the configuration, jobs.yaml:4; in_repo_config is not enabled for acme/widget
       plugin          the plugin trigger is on for acme/widget
    => draft           it is a draft: nothing starts by itself
       trust           no label says that the author is not trusted
       asked           everything that runs by itself is asked for
       branch          branches: 'main' matches the branch "main"
       always_run      false
       run_if_changed  '\.go$' matches the changed file "b.go"
       tide            Tide wants the context "unit" to succeed if it is there
    "#);
    insta::assert_snapshot!(why(&["unit", "--base", "main", "--changed", "b.go", "--labels", "lgtm,needs-ok-to-test"]).await, @r#"
    unit, presubmit of acme/widget (jobs.yaml:4): does not run for a pull request (main, 1 changed file)
       in_repo_config  in the configuration, jobs.yaml:4; in_repo_config is not enabled for acme/widget
       plugin          the plugin trigger is on for acme/widget
       draft           it is no draft, and no conflict is known
    => trust           the label needs-ok-to-test is set: nothing starts by itself until somebody trusted says /ok-to-test
       asked           everything that runs by itself is asked for
       branch          branches: 'main' matches the branch "main"
       always_run      false
       run_if_changed  '\.go$' matches the changed file "b.go"
       tide            Tide wants the context "unit" to succeed if it is there
    "#);
    insta::assert_snapshot!(why(&["manual", "--repo", "acme/widget", "--base", "main", "--comment", "/test manual"]).await, @r#"
    manual, presubmit of acme/widget (jobs.yaml:9): runs for a pull request of acme/widget (main, 0 changed files)
       in_repo_config  in the configuration, jobs.yaml:9; in_repo_config is not enabled for acme/widget
       plugin          the plugin trigger is on for acme/widget
       draft           it is no draft, and no conflict is known
       trust           whoever comments, or the author, has to be trusted
       asked           the comment matches the job's trigger '(?m)^/test( | .* )manual,?($|\s.*)'
       branch          any branch, so "main" too
       always_run      false
    => forced          asked for so firmly that it does not matter what changed
       tide            Tide wants the context "manual" to succeed if it is there
    "#);
    insta::assert_snapshot!(why(&["nightly", "--base", "main"]).await, @"
    nightly, periodic (jobs.yaml:16): does not run for a pull request (main, 0 changed files)
    => type  a periodic is started by the clock (cron @daily), never by a pull request
    ");
    let json = files
        .config(
            "why",
            &["unit", "--base", "main", "--changed", "x", "-o", "json"],
        )
        .await
        .done()
        .json();
    let job = &json["jobs"][0];
    let deciding: Vec<&Value> = job["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["decides"] == true)
        .collect();
    assert_eq!((&job["runs"], deciding.len()), (&json!(false), 1), "{json}");
    assert_eq!(deciding[0]["rule"], "run_if_changed");
    let nothing = files.config("why", &["unit"]).await;
    assert_eq!(nothing.code, 2, "{nothing:?}");
    insta::assert_snapshot!(nothing.err, @"trireme: say for which pull request: one on GitHub with --pr ORG/REPO#N, or describe one with --base BRANCH");
}

/// Schemas are printed one by one, all at once, or written where an editor looks for them.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_printed_or_written() {
    let jobs = run("", &["schema", "jobs"]).await.done().json();
    assert_eq!(
        (&jobs["$schema"], &jobs["title"]),
        (
            &json!("https://json-schema.org/draft/2020-12/schema"),
            &json!("A file of Prow jobs")
        )
    );
    let all = run("", &["schema"]).await.done().json();
    let names: Vec<&String> = all.as_object().unwrap().keys().collect();
    assert_eq!(names, ["config", "plugins", "jobs", "prow-yaml"]);
    assert_eq!(all["jobs"], jobs);
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("a/b");
    run("", &["schema", "--directory", text(&inside)])
        .await
        .done();
    let written = std::fs::read(inside.join("jobs.schema.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), jobs);
    let unknown = run("", &["schema", "job"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_asks_github_about_a_pull_request() {
    let world = World::builder()
        .member("author")
        .bound(BOUND)
        .start()
        .await
        .unwrap();
    let pr = world
        .pr("fix")
        .file("main.go", "package main")
        .opened_by("author")
        .await;
    let files = Files::new();
    let (number, endpoint) = (
        format!("acme/widget#{}", pr.number),
        world.sandbox().url().to_owned(),
    );
    let why = async |more: &[&str]| {
        let known = [
            "unit",
            "--pr",
            &number,
            "--github-endpoint",
            &endpoint,
            "-o",
            "json",
        ];
        let told = files
            .config("why", &[&known[..], more].concat())
            .await
            .done()
            .json();
        assert_eq!(told["pull_request"]["changed_files"], 1, "{told}");
        told["jobs"][0]["runs"].as_bool().unwrap()
    };
    assert!(why(&[]).await);
    assert!(why(&["--comment", "/retest"]).await);
    assert!(!why(&["--comment", "/test other"]).await);
    world.sandbox().stop();
}
