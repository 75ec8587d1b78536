//! Where the fields of a job come from, after all defaulting: its own file, presets, layers of decoration defaults, or what
//! Prow gives every job. Found by looking at the files again, so that a load need not remember it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::files::{FileSet, is_packed};
use crate::job::{AnyJob, JobBase, Preset};
use crate::load::document;
use crate::prow::plank;
use crate::yaml::{Node, NodeValue};

/// A field with the place it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// As in `decoration_config.timeout` or `spec.containers[0].image`.
    pub field: String,
    /// For people: `jobs/a.yaml:12`, `config.yaml:3: plank.default_decoration_config_entries[0]`, …
    pub from: String,
    /// Whether the job itself says so.
    pub own: bool,
}

/// One origin for every scalar and every empty list or mapping of the job as it is written, but for what only Kubernetes'
/// form adds. `repo` is what the job stands under; `job` one of the configuration that was loaded from the files.
///
/// # Errors
/// When the job does not serialise.
pub fn origins(
    files: &FileSet,
    config: &Config,
    repo: Option<&str>,
    job: AnyJob<'_>,
) -> Result<Vec<Origin>, serde_json::Error> {
    let base = job.base();
    let written = match job {
        AnyJob::Presubmit(job) => serde_json::to_value(job)?,
        AnyJob::Postsubmit(job) => serde_json::to_value(job)?,
        AnyJob::Periodic(job) => serde_json::to_value(job)?,
    };
    let mut documents = Documents {
        files,
        read: BTreeMap::new(),
    };
    let repo = match (repo, job) {
        (Some(repo), _) => repo.to_owned(),
        (None, _) => base.first_extra_repo().unwrap_or_default(),
    };
    let finder = Finder {
        own: documents.job(base),
        layers: Layers::decoration(&mut documents, config, &repo, &base.cluster)?,
        ride_along: Layers::prowjob_defaults(&mut documents, config, &repo, &base.cluster)?,
        presets: documents.presets(config, base),
        base,
        main: files.layout.config.as_str(),
    };
    let mut found = Vec::new();
    leaves(&written, &mut Vec::new(), &mut |path| {
        if let Some((from, own)) = finder.origin(path, &written) {
            let field = told(path);
            found.push(Origin { field, from, own });
        }
    });
    Ok(found)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

fn told(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text += key,
            Step::Key(key) => text += &format!(".{key}"),
            Step::Index(n) => text += &format!("[{n}]"),
        }
    }
    text
}

/// Visits scalars and empty lists and mappings.
fn leaves(value: &Value, path: &mut Vec<Step>, visit: &mut dyn FnMut(&[Step])) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(Step::Key(key.clone()));
                leaves(value, path, visit);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (n, value) in items.iter().enumerate() {
                path.push(Step::Index(n));
                leaves(value, path, visit);
                path.pop();
            }
        }
        _ => visit(path),
    }
}

/// What stands at a path of a file, as far as it goes.
fn at<'n>(node: &'n Node, path: &[Step]) -> Option<&'n Node> {
    let mut node = node;
    for step in path {
        node = match (step, &node.value) {
            (Step::Key(key), NodeValue::Mapping(entries)) => {
                let exact = entries.iter().find(|entry| entry.key == *key);
                let entry = exact.or_else(|| {
                    entries
                        .iter()
                        .find(|entry| entry.key.eq_ignore_ascii_case(key))
                })?;
                &entry.value
            }
            (Step::Index(n), NodeValue::Sequence(items)) => items.get(*n)?,
            _ => return None,
        };
    }
    (!node.is_null()).then_some(node)
}

fn within<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(n) => value.get(n),
    })
}

struct Finder<'a> {
    /// The job as it is written in its file.
    own: Option<Arc<Node>>,
    layers: Layers,
    ride_along: Layers,
    presets: Vec<(String, &'a Preset)>,
    base: &'a JobBase,
    main: &'a str,
}

impl Finder<'_> {
    /// Where it comes from, and whether the job itself says so.
    fn origin(&self, path: &[Step], written: &Value) -> Option<(String, bool)> {
        let own = self.own.as_deref().and_then(|own| at(own, path));
        let own = own.map(|node| (format!("{}:{}", self.base.source.file, node.at.line), true));
        let Some((Step::Key(first), rest)) = path.split_first() else {
            return own;
        };
        let layers = match first.as_str() {
            "decoration_config" => Some(&self.layers),
            "prowjob_defaults" => Some(&self.ride_along),
            _ => None,
        };
        if let Some(layers) = layers {
            let layer = layers.last(rest);
            return own.or(layer.map(|from| (from, false)));
        }
        own.or_else(|| {
            let from = if first == "spec" {
                self.preset(rest, written)
            } else {
                self.default_of(first)
            };
            from.map(|from| (from, false))
        })
    }

    /// The preset that brought an item of a pod's list.
    fn preset(&self, path: &[Step], written: &Value) -> Option<String> {
        // `containers[0].env[1].…`, `containers[0].volumeMounts[1].…`, `volumes[1].…`, `tolerations[1].…`
        let (list, length) = match path {
            [
                Step::Key(containers),
                Step::Index(_),
                Step::Key(list),
                Step::Index(_),
                ..,
            ] if containers == "containers" => (list, 4),
            [Step::Key(list), Step::Index(_), ..] => (list, 2),
            _ => return None,
        };
        let item = within(written.get("spec")?, &path[..length])?;
        let named = |known: &Value| known.get("name") == item.get("name");
        let brought = |preset: &Preset| match list.as_str() {
            "env" => has(&preset.env, named),
            "volumes" => has(&preset.volumes, named),
            "volumeMounts" => has(&preset.volume_mounts, named),
            "tolerations" => has(&Some(&preset.tolerations), |known| known == item),
            _ => false,
        };
        let (place, _) = self.presets.iter().find(|(_, preset)| brought(preset))?;
        Some(place.clone())
    }

    fn default_of(&self, field: &str) -> Option<String> {
        let name = "from the job's name";
        Some(match field {
            "context" | "trigger" | "rerun_command" => name.to_owned(),
            "namespace" => format!("{}: pod_namespace", self.main),
            "decorate" => "decorate_all_jobs".to_owned(),
            "agent" | "cluster" | "always_run" => "default".to_owned(),
            _ => return None,
        })
    }
}

/// Whether a list of a preset has an item.
fn has<L: Serialize>(list: &Option<L>, is: impl Fn(&Value) -> bool) -> bool {
    let items = serde_json::to_value(list).ok();
    items
        .as_ref()
        .and_then(Value::as_array)
        .is_some_and(|items| items.iter().any(is))
}

/// Defaults that apply to a job, from general to narrow: a place in words, and what it sets.
#[derive(Default)]
struct Layers {
    layers: Vec<(String, Value)>,
    /// What is there without any.
    built_in: BTreeMap<&'static str, &'static str>,
}

impl Layers {
    fn decoration(
        documents: &mut Documents<'_>,
        config: &Config,
        repo: &str,
        cluster: &str,
    ) -> Result<Self, serde_json::Error> {
        let plank = &config.prow.plank;
        let mut layers = Self::default();
        let by_key = !plank.default_decoration_configs.is_empty();
        for (n, entry) in plank.decoration_defaults.iter().enumerate() {
            if !plank::matches(&entry.repo, &entry.cluster, repo, cluster) {
                continue;
            }
            let place = if by_key {
                let field = "plank.default_decoration_configs";
                let at = documents.place(&format!("{field}.{}", entry.repo));
                format!("{at}{field}[{:?}]", entry.repo)
            } else {
                let field = "plank.default_decoration_config_entries";
                let at = documents.place_of_entry(field, n);
                format!("{at}{field}[{n}]")
            };
            let config = serde_json::to_value(&entry.config)?;
            layers.layers.push((place, config));
        }
        Ok(layers)
    }

    fn prowjob_defaults(
        documents: &mut Documents<'_>,
        config: &Config,
        repo: &str,
        cluster: &str,
    ) -> Result<Self, serde_json::Error> {
        let field = "prowjob_default_entries";
        let mut layers = Self {
            built_in: BTreeMap::from([("tenant_id", "default")]),
            ..Self::default()
        };
        let entries = config.prow.prowjob_default_entries.iter().flatten();
        for (n, entry) in entries.enumerate() {
            if plank::matches(&entry.repo, &entry.cluster, repo, cluster) {
                let at = documents.place_of_entry(field, n);
                let config = serde_json::to_value(&entry.config)?;
                layers.layers.push((format!("{at}{field}[{n}]"), config));
            }
        }
        Ok(layers)
    }

    /// The narrowest that sets a field.
    fn last(&self, path: &[Step]) -> Option<String> {
        let set = |(_, config): &&(String, Value)| within(config, path).is_some();
        let place = self
            .layers
            .iter()
            .rev()
            .find(set)
            .map(|(place, _)| place.clone());
        place.or_else(|| match path {
            [Step::Key(key)] => self.built_in.get(key.as_str()).map(|&from| from.to_owned()),
            _ => None,
        })
    }
}

/// Files that were read again.
struct Documents<'a> {
    files: &'a FileSet,
    read: BTreeMap<String, Option<Arc<Node>>>,
}

impl Documents<'_> {
    fn get(&mut self, path: &str) -> Option<Arc<Node>> {
        if let Some(known) = self.read.get(path) {
            return known.clone();
        }
        // What it would find was found when the configuration was loaded.
        let root = self
            .files
            .get(path)
            .and_then(|bytes| document(path, bytes, &mut Vec::new()));
        self.read.insert(path.to_owned(), root.clone());
        root
    }

    /// The job as its file has it.
    fn job(&mut self, base: &JobBase) -> Option<Arc<Node>> {
        let source = &base.source;
        let root = self.get(&source.file)?;
        let (kind, repo) = match source.list.split_once('[') {
            Some((kind, repo)) => {
                let repo = serde_json::from_str::<String>(repo.strip_suffix(']')?).ok()?;
                (kind, Some(Step::Key(repo)))
            }
            None => (&*source.list, None),
        };
        let list: Vec<Step> = std::iter::once(Step::Key(kind.to_owned()))
            .chain(repo)
            .collect();
        match &at(&root, &list)?.value {
            NodeValue::Sequence(items) => items.get(source.index as usize).cloned(),
            _ => None,
        }
    }

    /// `file:line: ` of a dotted path of the main configuration or of what supplements it; empty if it is nowhere.
    fn place(&mut self, path: &str) -> String {
        // Only the last part of a path may hold dots.
        let steps: Vec<Step> = path
            .splitn(3, '.')
            .map(|key| Step::Key(key.to_owned()))
            .collect();
        for file in self.prow_files() {
            if let Some(root) = self.get(&file)
                && let Some(node) = at(&root, &steps)
            {
                return format!("{file}:{}: ", node.at.line);
            }
        }
        String::new()
    }

    /// The same of an entry of a list that all files make together.
    fn place_of_entry(&mut self, path: &str, index: usize) -> String {
        let steps: Vec<Step> = path
            .split('.')
            .map(|key| Step::Key(key.to_owned()))
            .collect();
        let mut before = 0;
        for file in self.prow_files() {
            let Some(root) = self.get(&file) else {
                continue;
            };
            let Some(NodeValue::Sequence(items)) = at(&root, &steps).map(|node| &node.value) else {
                continue;
            };
            let entries: Vec<_> = items.iter().filter(|item| !item.is_null()).collect();
            if let Some(entry) = entries.get(index - before) {
                return format!("{file}:{}: ", entry.at.line);
            }
            before += entries.len();
        }
        String::new()
    }

    fn prow_files(&self) -> Vec<String> {
        let main = std::iter::once(self.files.layout.config.clone());
        let more = self.files.supplementals();
        main.chain(more.into_iter().map(|(path, _)| path.to_owned()))
            .collect()
    }

    /// The presets of the configuration that are meant for a job, with their places.
    fn presets<'c>(&mut self, config: &'c Config, base: &JobBase) -> Vec<(String, &'c Preset)> {
        let presets = &config.jobs.presets;
        let meant: Vec<usize> = (0..presets.len())
            .filter(|n| presets[*n].applies_to(&base.labels))
            .collect();
        if meant.is_empty() || base.spec.is_none() {
            return Vec::new();
        }
        let mut places = Vec::with_capacity(presets.len());
        let jobs = self.files.job_files().unwrap_or_default();
        let jobs = jobs
            .into_iter()
            // Most files have none, and parsing takes the time.
            .filter(|(_, content)| content.bytes().is_some_and(|bytes| mentions_presets(bytes)))
            .map(|(path, _)| path.to_owned());
        let all: Vec<String> = std::iter::once(self.files.layout.config.clone())
            .chain(jobs)
            .collect();
        for file in all {
            let root = self.get(&file);
            let list = root
                .as_deref()
                .and_then(|root| at(root, &[Step::Key("presets".to_owned())]));
            if let Some(NodeValue::Sequence(items)) = list.map(|node| &node.value) {
                places.extend(
                    items
                        .iter()
                        .map(|item| format!("{file}:{}: ", item.at.line)),
                );
            }
        }
        let told = |n: usize| {
            let preset = &presets[n];
            let labels: Vec<String> = preset
                .labels
                .iter()
                .flatten()
                .map(|(label, value)| format!("{label}={value}"))
                .collect();
            // If the files were counted wrongly, no place is better than a wrong one.
            let place = if places.len() == presets.len() {
                places[n].as_str()
            } else {
                ""
            };
            let of = if labels.is_empty() {
                "of every job".to_owned()
            } else {
                labels.join(", ")
            };
            (format!("{place}preset {of}"), preset)
        };
        meant.into_iter().map(told).collect()
    }
}

fn mentions_presets(bytes: &[u8]) -> bool {
    const KEY: &[u8] = b"presets";
    is_packed(bytes)
        || bytes
            .windows(KEY.len())
            .any(|window| window.eq_ignore_ascii_case(KEY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Layout;
    use crate::load::LoadOptions;

    const CONFIG: &str = r#"
pod_namespace: test-pods
plank:
  default_decoration_config_entries:
  - config:
      timeout: 2h
      grace_period: 15m
      gcs_configuration: {bucket: b, path_strategy: explicit, mediaTypes: {log: text/plain}}
      utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}
  - repo: other
    config: {timeout: 3h}
  - repo: org
    cluster: build
    config: {grace_period: 1m}
prowjob_default_entries:
- config: {tenant_id: us}
presets:
- labels: {preset-dind: "true"}
  env: [{name: DIND, value: "1"}]
"#;

    const JOBS: &str = r#"
presets:
- labels: {preset-key: "true"}
  volumes: [{name: key, secret: {secretName: key}}]
  volumeMounts: [{name: key, mountPath: /key}]
presubmits:
  org/repo:
  - name: first
    spec: {containers: [{image: a}]}
  - name: unit
    cluster: build
    decorate: true
    labels: {preset-dind: "true", preset-key: "true"}
    decoration_config:
      gcs_configuration:
        mediaTypes: {log: text/html, junit: text/xml}
    spec:
      containers:
      - image: a
        command: [make]
        env:
        - {name: OWN, value: x}
"#;

    #[test]
    fn every_field_says_where_it_comes_from() {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs".to_owned()),
            ..Layout::default()
        });
        files.insert("config.yaml", CONFIG.as_bytes());
        files.insert("jobs/a.yaml", JOBS.as_bytes());
        let (config, _) = Config::load(&files, LoadOptions::default())
            .accepted()
            .unwrap();
        let job = config
            .presubmits("org/repo")
            .find(|job| job.base.name == "unit")
            .unwrap();
        let found = origins(&files, &config, Some("org/repo"), AnyJob::Presubmit(job)).unwrap();
        let told: Vec<String> = found
            .iter()
            .map(|origin| format!("{}: {}", origin.field, origin.from))
            .collect();
        insta::assert_snapshot!(told.join("\n"), @"
        name: jobs/a.yaml:10
        labels.preset-dind: jobs/a.yaml:13
        labels.preset-key: jobs/a.yaml:13
        agent: default
        cluster: jobs/a.yaml:11
        namespace: config.yaml: pod_namespace
        spec.volumes[0].name: jobs/a.yaml:3: preset preset-key=true
        spec.volumes[0].secret.secretName: jobs/a.yaml:3: preset preset-key=true
        spec.containers[0].image: jobs/a.yaml:19
        spec.containers[0].command[0]: jobs/a.yaml:20
        spec.containers[0].env[0].name: jobs/a.yaml:22
        spec.containers[0].env[0].value: jobs/a.yaml:22
        spec.containers[0].env[1].name: config.yaml:18: preset preset-dind=true
        spec.containers[0].env[1].value: config.yaml:18: preset preset-dind=true
        spec.containers[0].volumeMounts[0].name: jobs/a.yaml:3: preset preset-key=true
        spec.containers[0].volumeMounts[0].mountPath: jobs/a.yaml:3: preset preset-key=true
        prowjob_defaults.tenant_id: config.yaml:16: prowjob_default_entries[0]
        decorate: jobs/a.yaml:12
        decoration_config.timeout: config.yaml:5: plank.default_decoration_config_entries[0]
        decoration_config.grace_period: config.yaml:12: plank.default_decoration_config_entries[2]
        decoration_config.utility_images.clonerefs: config.yaml:5: plank.default_decoration_config_entries[0]
        decoration_config.utility_images.initupload: config.yaml:5: plank.default_decoration_config_entries[0]
        decoration_config.utility_images.entrypoint: config.yaml:5: plank.default_decoration_config_entries[0]
        decoration_config.utility_images.sidecar: config.yaml:5: plank.default_decoration_config_entries[0]
        decoration_config.gcs_configuration.bucket: config.yaml:5: plank.default_decoration_config_entries[0]
        decoration_config.gcs_configuration.path_strategy: config.yaml:5: plank.default_decoration_config_entries[0]
        decoration_config.gcs_configuration.mediaTypes.junit: jobs/a.yaml:16
        decoration_config.gcs_configuration.mediaTypes.log: jobs/a.yaml:16
        always_run: default
        trigger: from the job's name
        rerun_command: from the job's name
        context: from the job's name
        ");
    }
}
