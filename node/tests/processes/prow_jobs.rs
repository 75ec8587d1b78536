//! `mkpj` and `mkpod`: from a job of the configuration to a ProwJob, to a pod, to a run that has ended.

use serde_json::{Value, json};
use trireme_config::yaml;
use trireme_sandbox::world::World;

use crate::{
    command::{Answer, run, text},
    scene::{BOUND, Scene},
};

const CONFIG: &str = r"
prowjob_namespace: default
plank:
  default_decoration_config_entries:
  - config:
      timeout: 1m
      gcs_configuration: {bucket: artifacts, path_strategy: explicit}
      gcs_credentials_secret: storage
      utility_images: {clonerefs: u/clonerefs, initupload: u/initupload, entrypoint: u/entrypoint, sidecar: u/sidecar}
";

const JOBS: &str = r"
presubmits:
  acme/widget:
  - name: unit
    branches: [release-1]
    spec: {containers: [{image: old, command: [make]}]}
  - name: unit
    branches: [main]
    decorate: true
    labels: {answer: 'yes'}
    spec:
      future_field: {kept: true}
      containers: [{image: new, command: [make], args: ['0400']}]
      volumes: [{name: keys, secret: {secretName: keys}}]
postsubmits:
  acme/widget:
  - name: publish
    spec: {containers: [{image: a, command: [make]}]}
periodics:
- name: nightly
  interval: 24h
  spec: {containers: [{image: a, command: [date]}]}
";

fn value(text: &str) -> Value {
    yaml::parse(text.as_bytes())
        .unwrap()
        .root
        .to_json()
        .unwrap()
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("config.yaml", CONFIG);
        files.write("jobs.yaml", JOBS);
        files
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        text(&path).to_owned()
    }

    async fn mkpj(&self, more: &[&str]) -> Answer {
        let at = |name: &str| text(&self.0.path().join(name)).to_owned();
        let (config, jobs) = (at("config.yaml"), at("jobs.yaml"));
        let mut arguments = vec!["mkpj", "--config-path", &config, "--job-config-path", &jobs];
        arguments.extend(more);
        run("", &arguments).await
    }
}

/// ADM-182, ADM-183, ADM-187: everything is asked of GitHub, anonymously; of two jobs of a name the branch decides.
#[tokio::test(flavor = "multi_thread")]
async fn adm_183_what_is_not_said_is_asked_of_github() {
    let world = World::builder()
        .member("author")
        .bound(BOUND)
        .start()
        .await
        .unwrap();
    let pr = world.pr("fix").file("a.txt", "a").opened_by("author").await;
    let files = Files::new();
    let (endpoint, number) = (world.sandbox().url().to_owned(), pr.number.to_string());
    let made = files
        .mkpj(&[
            "--job",
            "unit",
            "--pull-number",
            &number,
            "--github-endpoint",
            &endpoint,
        ])
        .await
        .done();
    let job = value(&made.out);
    let refs = &job["spec"]["refs"];
    assert_eq!(
        (&refs["org"], &refs["repo"], &refs["base_ref"]),
        (&json!("acme"), &json!("widget"), &json!("main"))
    );
    assert_eq!(refs["pulls"][0]["author"], "author");
    assert_eq!(
        refs["pulls"][0]["sha"].as_str().map(str::len),
        Some(40),
        "{refs}"
    );
    assert_eq!(refs["base_sha"].as_str().map(str::len), Some(40), "{refs}");
    assert_eq!(job["spec"]["pod_spec"]["containers"][0]["image"], "new");
    assert_eq!(
        (&job["kind"], &job["status"]["state"]),
        (&json!("ProwJob"), &json!("triggered"))
    );

    // The first address that is there answers, as where a cache stands before GitHub.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("-github-endpoint=http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let mut publish = vec!["-job=publish", "-base-ref=main", &dead];
    publish.extend(["-github-client.max-retries=0", "--github-hourly-tokens=0"]);
    let unreachable = files.mkpj(&publish).await;
    assert_eq!(unreachable.code, 1, "{unreachable:?}");
    assert!(
        unreachable.err.contains("look at --github-endpoint"),
        "{unreachable:?}"
    );
    publish.extend(["--github-endpoint", &endpoint]);
    let branch = files.mkpj(&publish).await.done();
    assert_eq!(
        value(&branch.out)["spec"]["refs"]["base_sha"],
        refs["base_sha"]
    );
    world.sandbox().stop();
}

/// ADM-187: flags answer everything; without a terminal the flag that is missing is named.
#[tokio::test(flavor = "multi_thread")]
async fn adm_187_flags_answer_what_a_terminal_would() {
    let files = Files::new();
    let all = [
        "--job",
        "unit",
        "--base-ref",
        "main",
        "--base-sha",
        "abc",
        "--pull-number",
        "7",
        "--pull-sha",
        "def",
        "--pull-author",
        "somebody",
        "--pull-head-ref",
        "fix",
    ];
    let made = value(&files.mkpj(&all).await.done().out);
    assert_eq!(
        made["spec"]["refs"]["pulls"],
        json!([{"number": 7, "author": "somebody", "sha": "def", "head_ref": "fix"}])
    );
    // JOB-077, and what would be something else without quotes.
    let spec = &made["spec"]["pod_spec"];
    assert_eq!(spec["future_field"], json!({"kept": true}));
    assert_eq!(spec["containers"][0]["args"], json!(["0400"]));
    assert_eq!(made["metadata"]["labels"]["answer"], "yes");
    let mut old = all;
    old[3] = "release-1";
    let old = value(&files.mkpj(&old).await.done().out);
    assert_eq!(old["spec"]["pod_spec"]["containers"][0]["image"], "old");

    let unsaid = files.mkpj(&["--job", "unit"]).await;
    assert_eq!(
        (unsaid.code, unsaid.err.as_str()),
        (
            2,
            "trireme: PR Number: nobody is here to be asked; give it with --pull-number\n"
        ),
        "{unsaid:?}"
    );
    let unset = files.mkpj(&["-job="]).await;
    assert_eq!(
        (unset.code, unset.err.as_str()),
        (2, "trireme: --job is mandatory: it names the job\n")
    );
    // Flags that contradict each other are told before anything is read or asked.
    let half = files.mkpj(&["-job=unit", "-github-app-id=1"]).await;
    assert_eq!(
        (half.code, half.err.as_str()),
        (
            2,
            "trireme: --github-app-id and --github-app-private-key-path must be set together\n"
        )
    );
    // Errors of the configuration are told up to a bound; checkconfig tells all.
    let many: String = (0..12)
        .map(|n| {
            format!("- {{name: p{n}, interval: soon, spec: {{containers: [{{image: a}}]}}}}\n")
        })
        .collect();
    let broken = files.write("broken.yaml", &format!("periodics:\n{many}"));
    let broken = files.mkpj(&["-job=p1", "-job-config-path", &broken]).await;
    assert_eq!((broken.code, broken.err.lines().count()), (5, 11));
    let last = "and 2 more; `trireme checkconfig` shows all, with their lines\n";
    assert!(broken.err.ends_with(last), "{broken:?}");
    let unknown = files.mkpj(&["--job", "nightli"]).await;
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (4, "trireme: Job nightli not found. Did you mean nightly?\n"),
        "{unknown:?}"
    );
    let nightly = files
        .mkpj(&["--job", "nightly", "-o", "json", "--kubeconfig", "/x"])
        .await
        .done();
    assert_eq!(nightly.json()["spec"]["refs"], Value::Null);
    assert!(
        nightly.err.contains("flags about Kubernetes are not used"),
        "{nightly:?}"
    );

    files.write(
        "widget/.prow.yaml",
        "presubmits: [{name: own, spec: {containers: [{image: a, command: [make]}]}}]",
    );
    let checkout = text(&files.0.path().join("widget")).to_owned();
    let own = [
        "--job",
        "own",
        "--repo",
        "acme/widget",
        "--in-repo-checkout",
        &checkout,
    ];
    let own = [&own[..], &all[2..]].concat();
    assert_eq!(
        value(&files.mkpj(&own).await.done().out)["spec"]["job"],
        "own"
    );
}

/// ADM-185, ADM-186.
#[tokio::test(flavor = "multi_thread")]
async fn adm_185_a_printed_prowjob_becomes_a_pod() {
    let files = Files::new();
    let job = files
        .mkpj(&[
            "--job",
            "unit",
            "--base-ref",
            "main",
            "--base-sha",
            "abc",
            "--pull-number",
            "7",
            "--pull-sha",
            "def",
            "--pull-author",
            "somebody",
        ])
        .await
        .done();
    let job = files.write("pj.yaml", &job.out);
    let made = run("", &["mkpod", "--prow-job", &job]).await.done();
    assert!(made.err.contains("has no build id"), "{made:?}");
    let pod = value(&made.out);
    assert_eq!(
        (&pod["kind"], &pod["apiVersion"]),
        (&json!("Pod"), &json!("v1"))
    );
    assert_eq!(pod["metadata"]["labels"].get("created-by-prow"), None);
    assert_eq!(pod["spec"]["future_field"], json!({"kept": true}));
    let names = |pod: &Value, list: &str| -> Vec<String> {
        let items = pod["spec"][list].as_array().unwrap();
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&pod, "containers"), ["test", "sidecar"]);
    assert_eq!(
        names(&pod, "initContainers"),
        ["clonerefs", "initupload", "place-entrypoint"]
    );

    let made = run(
        "",
        &[
            "mkpod",
            "--prow-job",
            &job,
            "--build-id",
            "snowflake",
            "-o",
            "json",
        ],
    )
    .await
    .done();
    let id = made.json()["metadata"]["labels"]["prow.k8s.io/build-id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(id.parse::<u64>().unwrap() > 1 << 60, "{id}");

    let out = text(files.0.path()).to_owned();
    let local = [
        "mkpod",
        "--prow-job",
        &job,
        "--build-id",
        "5",
        "--local",
        "--out-dir",
        &out,
        "--volume",
        "keys=empty",
        "-o",
        "json",
    ];
    let pod = run("", &local).await.done().json();
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert_eq!(volumes[0], json!({"name": "keys", "emptyDir": {}}));
    assert!(
        volumes.contains(&json!({"name": "output", "hostPath": {"path": format!("{out}/5")}})),
        "{volumes:?}"
    );

    let alone = [
        "mkpod",
        "-prow-job",
        &job,
        "-local",
        "-local=false",
        "-out-dir",
        &out,
    ];
    let alone = run("", &alone).await;
    assert_eq!(
        (alone.code, alone.err.as_str()),
        (
            2,
            "trireme: --out-dir may only be given with --local: otherwise files are uploaded\n"
        )
    );
    let other = files.write("other.yaml", JOBS);
    let other = run("", &["mkpod", "--prow-job", &other]).await;
    assert_eq!(other.code, 5, "{other:?}");
    let told = "other.yaml: this is no ProwJob, its spec has neither a job nor a pod_spec; `trireme mkpj` prints one\n";
    assert!(other.err.ends_with(told), "{other:?}");
    let wrong = files.write("wrong.yaml", "spec: {pod_spec: {containers: 3}}");
    let wrong = run("", &["mkpod", "--prow-job", &wrong]).await;
    assert_eq!(wrong.code, 5, "{wrong:?}");
    assert!(
        wrong
            .err
            .contains("wrong.yaml:1:31: spec.pod_spec.containers: cannot use a number as a list"),
        "{wrong:?}"
    );
}

const RUNNING: &str = r"
periodics:
- name: good
  interval: 24h
  spec: {containers: [{image: a, command: [true]}]}
- name: bad
  interval: 24h
  spec: {containers: [{image: a, command: [false]}]}
";

/// ADM-184: the configuration in force, a run in the cluster, and how it ended.
#[tokio::test(flavor = "multi_thread")]
async fn adm_184_a_triggered_job_is_waited_for() {
    let jobs = RUNNING
        .replace("[true]", "['true']")
        .replace("[false]", "['false']");
    let scene = Scene::start(World::builder(), &jobs).await;
    let trigger = async |job: &str, more: &[&str]| {
        scene
            .nodes
            .run(&[&["mkpj", "--job", job, "--trigger-job"], more].concat())
            .await
    };
    let good = trigger("good", &["--fail-with-job"]).await.done();
    let status = value(&good.out);
    assert_eq!(status["state"], "success", "{good:?}");
    assert!(status["completionTime"].is_string(), "{good:?}");

    let bad = trigger("bad", &["-o", "json"]).await.done();
    assert_eq!(bad.json()["state"], "failure", "{bad:?}");
    let bad = trigger("bad", &["--fail-with-job"]).await;
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.err.ends_with(" ended with failure\n"), "{bad:?}");
    let ids: Vec<_> = scene
        .runs()
        .await
        .iter()
        .map(|run| run["metadata"]["name"].clone())
        .collect();
    assert!(ids.len() >= 3, "{ids:?}");
    scene.stop().await;
}
