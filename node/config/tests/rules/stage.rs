//! Files on a stage: what is loaded of them, what is told.

use std::sync::Arc;

use serde_json::Value;
use trireme_config::{Config, FileSet, Layout, LoadOptions, Loaded};
use trireme_prowjob::DecorationConfig;

/// Paths: `config.yaml`, `jobs/…`, `sup/…_prowconfig.yaml`, `plugins.yaml`, `plugin-sup/…_pluginconfig.yaml`. What is absent is not part of the layout.
pub(crate) fn load(files: &[(&str, &str)]) -> Loaded {
    let has = |prefix: &str| files.iter().any(|(path, _)| path.starts_with(prefix));
    let mut set = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        jobs: has("jobs/").then(|| "jobs".to_owned()),
        supplemental_dirs: if has("sup/") {
            vec!["sup".to_owned()]
        } else {
            Vec::new()
        },
        plugins: has("plugins.yaml").then(|| "plugins.yaml".to_owned()),
        plugin_supplemental_dirs: if has("plugin-sup/") {
            vec!["plugin-sup".to_owned()]
        } else {
            Vec::new()
        },
        ..Layout::default()
    });
    set.insert("config.yaml", Vec::new());
    for (path, text) in files {
        set.insert(*path, text.as_bytes());
    }
    let now = Some("2026-08-21T00:00:00Z".parse().unwrap());
    let options = LoadOptions {
        now,
        ..LoadOptions::default()
    };
    Config::load(&set, options)
}

/// Messages of the errors, by place.
pub(crate) fn errors(files: &[(&str, &str)]) -> Vec<String> {
    let told = load(files).errors.into_iter();
    told.map(|found| found.message).collect()
}

pub(crate) fn accepted(files: &[(&str, &str)]) -> Arc<Config> {
    let loaded = load(files);
    loaded
        .accepted()
        .unwrap_or_else(|e| panic!("{files:?}: {e:#?}"))
        .0
}

/// Each main file, and a part of its first error; an empty part where it is accepted.
pub(crate) fn judge_main(cases: &[(&str, &str)]) {
    judge(cases, |text| errors(&[("config.yaml", text)]));
}

pub(crate) fn judge<T: Copy + std::fmt::Debug>(
    cases: &[(T, &str)],
    errors: impl Fn(T) -> Vec<String>,
) {
    let mut wrong = Vec::new();
    for (case, expected) in cases {
        let found = errors(*case);
        let as_expected = match *expected {
            "" => found.is_empty(),
            expected => found.iter().any(|e| e.contains(expected)),
        };
        if !as_expected {
            wrong.push(format!(
                "{case:?}\n  expected {expected:?}\n  got {found:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pod with a command.
pub(crate) const POD: &str = "spec: {containers: [{image: i, command: [c]}]}";

/// Decoration defaults that decorate completely.
pub(crate) const DECORATION: &str = "\
plank:
  default_decoration_config_entries:
  - config:
      utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}
      gcs_configuration: {bucket: b, path_strategy: explicit}
";

/// The fields of one presubmit in flow style: `name: a, always_run: true`.
pub(crate) fn presubmit(fields: &str) -> String {
    format!("presubmits:\n  o/r:\n  - {{{fields}}}\n")
}

/// The decoration of the first presubmit of `o/r`, as JSON.
pub(crate) fn decoration(files: &[(&str, &str)]) -> Value {
    let config = accepted(files);
    let job = &config.jobs.presubmits["o/r"][0];
    json(job.base.decoration())
}

pub(crate) fn json(decoration: Option<&DecorationConfig>) -> Value {
    serde_json::to_value(decoration).unwrap()
}
