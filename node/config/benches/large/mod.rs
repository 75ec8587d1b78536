//! A configuration as large as the largest that is known, made from nothing: thousands of files, 170 MB, 72,000 jobs, in the
//! shape that generators of jobs give them. The same numbers make the same bytes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) repos: usize,
    pub(crate) branches: usize,
    /// Per repository and branch.
    pub(crate) presubmits: usize,
}

impl Scale {
    /// 18,497 files, 73,731 jobs, 174 MB.
    pub(crate) const WHOLE: Self = Self {
        repos: 1155,
        branches: 7,
        presubmits: 7,
    };
}

/// Where the parts lie.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) config: PathBuf,
    pub(crate) plugins: PathBuf,
    pub(crate) jobs: PathBuf,
    /// Of shards of both.
    pub(crate) shards: PathBuf,
}

impl Paths {
    pub(crate) fn below(root: &Path) -> Self {
        let prow = root.join("prow");
        Self {
            config: prow.join("_config.yaml"),
            plugins: prow.join("_plugins.yaml"),
            jobs: root.join("jobs"),
            shards: prow,
        }
    }
}

const BRANCHES: [&str; 12] = [
    "master",
    "release-4.16",
    "release-4.15",
    "release-4.14",
    "release-4.13",
    "release-4.12",
    "release-4.11",
    "release-4.10",
    "release-4.9",
    "release-4.8",
    "release-4.7",
    "release-4.6",
];
const CLOUDS: [&str; 6] = ["aws", "gcp", "azure4", "vsphere", "metal", "ibmcloud"];
const CLUSTERS: [&str; 5] = ["build01", "build02", "build03", "build04", "build05"];
/// Names of tests differ by this much: with the clouds, some 3,900 expressions.
const VARIANTS: usize = 130;
const PERIODICS: usize = 6_615;
const ORGS: usize = 23;

/// Writes all of it below a directory that is empty.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn write(root: &Path, scale: Scale) -> io::Result<()> {
    let Paths {
        config,
        plugins,
        jobs,
        shards: prow,
    } = Paths::below(root);
    for repo in 0..scale.repos {
        let org = format!("org-{:02}", repo % ORGS);
        let name = format!("component-{repo:04}");
        let home = jobs.join(&org).join(&name);
        fs::create_dir_all(&home)?;
        for branch in &BRANCHES[..scale.branches] {
            let stem = format!("{org}-{name}-{branch}");
            let path = home.join(format!("{stem}-presubmits.yaml"));
            fs::write(
                &path,
                presubmits(&org, &name, branch, repo, scale.presubmits),
            )?;
            fs::write(
                home.join(format!("{stem}-postsubmits.yaml")),
                postsubmits(&org, &name, branch, repo),
            )?;
        }
        let shard = prow.join(&org).join(&name);
        fs::create_dir_all(&shard)?;
        fs::write(shard.join("_prowconfig.yaml"), prow_shard(&org, &name))?;
        fs::write(shard.join("_pluginconfig.yaml"), plugin_shard(&org, &name))?;
    }
    let per_file = PERIODICS * scale.repos / Scale::WHOLE.repos / 15;
    for file in 0..15 {
        let home = jobs.join("periodics");
        fs::create_dir_all(&home)?;
        fs::write(
            home.join(format!("release-{file:02}-periodics.yaml")),
            periodics(file, per_file),
        )?;
    }
    fs::write(config, CONFIG)?;
    fs::write(plugins, PLUGINS)
}

fn presubmits(org: &str, repo: &str, branch: &str, seed: usize, count: usize) -> String {
    let mut text = format!("presubmits:\n  {org}/{repo}:\n");
    for n in 0..count {
        let cloud = CLOUDS[(seed + n) % CLOUDS.len()];
        let test = match n {
            0 => "unit".to_owned(),
            1 => "images".to_owned(),
            n => format!("e2e-{cloud}-{n}-of-{}", seed % VARIANTS),
        };
        let when = match n % 7 {
            5 => "    always_run: false\n    optional: true\n".to_owned(),
            6 => format!(
                "    always_run: false\n    skip_if_only_changed: ^docs/|\\.md$|^(?:.*/)?(?:\\.gitignore|OWNERS|PROJECT{seed}|LICENSE)$\n"
            ),
            _ => "    always_run: true\n".to_owned(),
        };
        let escaped = branch.replace('.', "\\.");
        let _ = write!(
            text,
            "  - agent: kubernetes\n{when}    branches:\n    - ^{escaped}$\n    - ^{escaped}-\n    cluster: {}\n    context: ci/prow/{test}\n    decorate: true\n    labels:\n      ci-operator.openshift.io/cloud: {cloud}\n      ci.openshift.io/generator: prowgen\n      pj-rehearse.openshift.io/can-be-rehearsed: \"true\"\n    name: pull-ci-{org}-{repo}-{branch}-{test}\n    rerun_command: /test {test}\n",
            CLUSTERS[seed % CLUSTERS.len()]
        );
        pod(&mut text, &test, cloud);
        let _ = writeln!(text, "    trigger: (?m)^/test( | .* ){test},?($|\\s.*)");
    }
    text
}

fn postsubmits(org: &str, repo: &str, branch: &str, seed: usize) -> String {
    let mut text = format!("postsubmits:\n  {org}/{repo}:\n");
    let count = if seed % 10 < 3 { 2 } else { 1 };
    for n in 0..count {
        let escaped = branch.replace('.', "\\.");
        let _ = write!(
            text,
            "  - agent: kubernetes\n    always_run: true\n    branches:\n    - ^{escaped}$\n    cluster: {}\n    decorate: true\n    labels:\n      ci-operator.openshift.io/is-promotion: \"true\"\n      ci.openshift.io/generator: prowgen\n    max_concurrency: 1\n    name: branch-ci-{org}-{repo}-{branch}-images-{n}\n",
            CLUSTERS[seed % CLUSTERS.len()]
        );
        pod(&mut text, "images", CLOUDS[seed % CLOUDS.len()]);
    }
    text
}

fn periodics(file: usize, count: usize) -> String {
    let mut text = String::from("periodics:\n");
    for n in 0..count {
        let cloud = CLOUDS[n % CLOUDS.len()];
        let when = if n % 4 == 0 {
            "  interval: 24h\n".to_owned()
        } else {
            format!("  cron: {} {} * * {}\n", n % 60, n % 24, n % 7)
        };
        let _ = write!(
            text,
            "- agent: kubernetes\n  cluster: {}\n{when}  decorate: true\n  extra_refs:\n  - base_ref: master\n    org: org-{:02}\n    repo: component-{:04}\n  labels:\n    ci-operator.openshift.io/cloud: {cloud}\n    ci.openshift.io/generator: prowgen\n  name: periodic-ci-release-{file:02}-nightly-{n:05}-e2e-{cloud}\n",
            CLUSTERS[n % CLUSTERS.len()],
            n % ORGS,
            n % 1155
        );
        let mut spec = String::new();
        pod(&mut spec, "e2e", cloud);
        for line in spec.lines() {
            let _ = writeln!(text, "{}", &line[2..]);
        }
    }
    text
}

/// What such a pod looks like: one container, a few secrets.
fn pod(text: &mut String, test: &str, cloud: &str) {
    let _ = write!(
        text,
        "    spec:
      containers:
      - args:
        - --gcs-upload-secret=/secrets/gcs/service-account.json
        - --image-import-pull-secret=/etc/pull-secret/.dockerconfigjson
        - --lease-server-credentials-file=/etc/boskos/credentials
        - --report-credentials-file=/etc/report/credentials
        - --secret-dir=/secrets/ci-pull-credentials
        - --secret-dir=/usr/local/{test}-cluster-profile
        - --target={test}
        command:
        - ci-operator
        image: ci-operator:latest
        imagePullPolicy: Always
        name: \"\"
        resources:
          requests:
            cpu: 10m
        volumeMounts:
        - mountPath: /etc/boskos
          name: boskos
          readOnly: true
        - mountPath: /secrets/ci-pull-credentials
          name: ci-pull-credentials
          readOnly: true
        - mountPath: /usr/local/{test}-cluster-profile
          name: cluster-profile
        - mountPath: /secrets/gcs
          name: gcs-credentials-of-ci
          readOnly: true
        - mountPath: /etc/pull-secret
          name: pull-secret
          readOnly: true
        - mountPath: /etc/report
          name: result-aggregator
          readOnly: true
      serviceAccountName: ci-operator
      volumes:
      - name: boskos
        secret:
          items:
          - key: credentials
            path: credentials
          secretName: boskos-credentials
      - name: ci-pull-credentials
        secret:
          secretName: ci-pull-credentials
      - name: cluster-profile
        secret:
          secretName: cluster-secrets-{cloud}
      - name: gcs-credentials-of-ci
        secret:
          secretName: gce-sa-credentials-gcs-publisher
      - name: pull-secret
        secret:
          secretName: registry-pull-credentials
      - name: result-aggregator
        secret:
          secretName: result-aggregator
"
    );
}

fn prow_shard(org: &str, repo: &str) -> String {
    format!(
        "branch-protection:
  orgs:
    {org}:
      repos:
        {repo}:
          protect: true
tide:
  merge_method:
    {org}/{repo}: squash
  queries:
  - includedBranches:
    - master
    labels:
    - approved
    - lgtm
    missingLabels:
    - do-not-merge/hold
    - do-not-merge/work-in-progress
    - needs-rebase
    repos:
    - {org}/{repo}
  - includedBranches:
    - release-4.16
    labels:
    - approved
    - lgtm
    - staff-eng-approved
    missingLabels:
    - do-not-merge/hold
    - needs-rebase
    repos:
    - {org}/{repo}
"
    )
}

fn plugin_shard(org: &str, repo: &str) -> String {
    format!(
        "approve:
- commandHelpLink: https://go.k8s.io/bot-commands
  repos:
  - {org}/{repo}
  require_self_approval: false
lgtm:
- repos:
  - {org}/{repo}
  review_acts_as_lgtm: true
plugins:
  {org}/{repo}:
    plugins:
    - approve
"
    )
}

const CONFIG: &str = "prowjob_namespace: ci
pod_namespace: ci
in_repo_config:
  allowed_clusters:
    '*':
    - build01
plank:
  default_decoration_config_entries:
  - config:
      timeout: 4h
      grace_period: 30m
      utility_images:
        clonerefs: clonerefs:latest
        initupload: initupload:latest
        entrypoint: entrypoint:latest
        sidecar: sidecar:latest
      gcs_configuration:
        bucket: ci-results
        path_strategy: single
        default_org: org-00
        default_repo: component-0000
      gcs_credentials_secret: gce-sa-credentials-gcs-publisher
      skip_cloning: true
  - cluster: build02
    config:
      pod_pending_timeout: 20m
  - repo: org-01
    config:
      timeout: 6h
tide:
  sync_period: 1m
  status_update_period: 1m
";

const PLUGINS: &str = "plugins: {}\n";
