//! The JSON Schemas for editors: what the loader takes without a word fits them, planted mistakes do not.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::Value;
use trireme_config::json_schema::{Kind, schema};
use trireme_config::plugins::{PROW_PLUGINS, Registry};
use trireme_config::{Config, Diagnostic, FileSet, Layout, LoadOptions, check, yaml};

use crate::answers;

fn validators() -> BTreeMap<&'static str, Validator> {
    [
        ("config", Kind::Config),
        ("plugins", Kind::Plugins),
        ("jobs", Kind::Jobs),
        ("prow-yaml", Kind::ProwYaml),
    ]
    .into_iter()
    .map(|(name, kind)| {
        let validator = jsonschema::draft202012::new(&schema(kind, None)).unwrap();
        (name, validator)
    })
    .collect()
}

fn json(text: &[u8]) -> Option<Value> {
    yaml::parse(text).ok()?.root.to_json().ok()
}

/// What a schema says of a value, the first few complaints.
fn complaints(validator: &Validator, value: &Value) -> Vec<String> {
    validator
        .iter_errors(value)
        .take(3)
        .map(|e| {
            format!(
                "{}: {}",
                e.instance_path(),
                e.to_string().chars().take(200).collect::<String>()
            )
        })
        .collect()
}

#[test]
fn every_file_that_loads_without_a_word_fits_its_schema() {
    if answers::corpus().is_none() {
        return;
    }
    let validators = validators();
    // Names of plugins that Prow has no more are errors only where the names are known (CFG-112).
    let registry = Registry::new().with_names(PROW_PLUGINS);
    let (mut fit, mut silent, mut wrong) = (0, 0, Vec::new());
    for name in answers::INSTANCES {
        let Some(files) = answers::instance(name) else {
            continue;
        };
        let options = LoadOptions {
            plugins: Some(&registry),
            ..LoadOptions::default()
        };
        let loaded = Config::load(&files, options);
        let jobs = files.layout.jobs.clone().unwrap_or_default();
        for (path, content) in files.iter() {
            let kind = if path == files.layout.config {
                "config"
            } else if files.layout.plugins.as_deref() == Some(path) {
                "plugins"
            } else if path == jobs || path.starts_with(&format!("{jobs}/")) {
                "jobs"
            } else {
                continue;
            };
            if !(path.ends_with(".yaml") || path.ends_with(".yml")) {
                continue;
            }
            let found = loaded.errors.iter().chain(&loaded.warnings);
            if found.clone().any(|found| found.file == path) {
                continue;
            }
            let Some(value) = json(content) else {
                continue;
            };
            silent += 1;
            let told = complaints(&validators[kind], &value);
            if told.is_empty() {
                fit += 1;
            } else {
                wrong.push(format!("{name} {path}: {}", told.join("; ")));
            }
        }
    }
    println!("{fit} of {silent} files fit");
    assert!(
        wrong.is_empty(),
        "{} do not fit:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(25)].join("\n")
    );
    assert!(silent > 1000, "only {silent} files");
}

/// One mistake each, and the same file without it.
#[test]
fn planted_mistakes_are_refused() {
    let validators = validators();
    let cases = [
        (
            "config",
            "plank: {pod_pending_timeout: 10m}",
            "plank: {pod_pending_timeout: ten minutes}",
        ),
        (
            "config",
            "tide: {merge_method: {org/repo: squash}}",
            "tide: {merge_method: {org/repo: quash}}",
        ),
        (
            "config",
            "tide: {merge_method: {org: {repo: {main: rebase}}}}",
            "tide: {merge_method: {org: {repo: {main: rebased}}}}",
        ),
        (
            "config",
            "tide: {queries: [{orgs: [o], labels: [lgtm]}]}",
            "tide: {queries: [{orgs: [o], label: [lgtm]}]}",
        ),
        ("config", "log_level: debug", "log_level: chatty"),
        (
            "config",
            "github_reporter: {job_types_to_report: [presubmit]}",
            "github_reporter: {job_types_to_report: [presubmits]}",
        ),
        ("config", "prowjob_namespace: '1'", "prowjob_namespace: 1"),
        (
            "config",
            "plank: {default_decoration_configs: {'*': {gcs_configuration: {path_strategy: legacy}}}}",
            "plank: {default_decoration_configs: {'*': {gcs_configuration: {path_strategy: old}}}}",
        ),
        (
            "plugins",
            "plugins: {org: {plugins: [lgtm]}}",
            "plugins: {org: {plugins: [lgtn]}}",
        ),
        ("plugins", "plugins: {org: [lgtm]}", "plugins: [lgtm]"),
        (
            "plugins",
            "triggers: [{repos: [o]}]",
            "triggers: [{repo: [o]}]",
        ),
        ("plugins", "welcome: [{anything: 1}]", "wellcome: []"),
        (
            "jobs",
            "periodics: [{name: a, interval: 1h30m}]",
            "periodics: [{name: a, interval: hourly}]",
        ),
        (
            "jobs",
            "periodics: [{name: a, agent: kubernetes}]",
            "periodics: [{name: a, agent: kubernets}]",
        ),
        (
            "jobs",
            "periodics: [{name: a}]",
            "periodics: [{interval: 1h}]",
        ),
        (
            "jobs",
            "periodics: [{name: a}]",
            "periodics: [{name: a name}]",
        ),
        (
            "jobs",
            "presubmits: {o/r: [{name: a, always_run: true}]}",
            "presubmits: {o/r: [{name: a, always_run: 'true'}]}",
        ),
        (
            "jobs",
            "presubmits: {o/r: [{name: a, spec: {containers: [{image: '3'}]}}]}",
            "presubmits: {o/r: [{name: a, spec: {containers: [{image: 3}]}}]}",
        ),
        (
            "jobs",
            "presubmits: {o/r: [{name: a, spec: {containers: [{command: [x]}]}}]}",
            "presubmits: {o/r: [{name: a, spec: {containers: [{comand: [x]}]}}]}",
        ),
        (
            "jobs",
            "periodics: [{name: a, spec: {containers: [{resources: {limits: {cpu: 500m, memory: 1Gi}}}]}}]",
            "periodics: [{name: a, spec: {containers: [{resources: {limits: {cpu: 500 m}}}]}}]",
        ),
        (
            "jobs",
            "periodics: [{name: a, decoration_config: {timeout: 1h}}]",
            "periodics: [{name: a, decoration_config: {timeout: 1 h}}]",
        ),
        (
            "jobs",
            "presets: [{labels: {a: true}}]",
            "presets: [{labels: {a: [true]}}]",
        ),
        (
            "prow-yaml",
            "presubmits: [{name: a, branches: ['(?i)main']}]",
            "presubmits: {o/r: [{name: a}]}",
        ),
        (
            "prow-yaml",
            "postsubmits: [{name: a, max_concurrency: 1}]",
            "postsubmits: [{name: a, max_concurrency: one}]",
        ),
    ];
    for (kind, good, bad) in cases {
        let told = |text: &str| complaints(&validators[kind], &json(text.as_bytes()).unwrap());
        assert_eq!(told(good), [""; 0], "{kind}: {good}");
        assert!(!told(bad).is_empty(), "{kind}: {bad}");
    }
}

/// Words that one of the enumerations has, and some that none has.
const WORDS: [&str; 32] = [
    "",
    "panic",
    "fatal",
    "error",
    "warn",
    "warning",
    "info",
    "debug",
    "trace",
    "presubmit",
    "postsubmit",
    "periodic",
    "batch",
    "scheduling",
    "triggered",
    "pending",
    "success",
    "failure",
    "aborted",
    "merge",
    "rebase",
    "squash",
    "if-necessary",
    "ignore",
    "permit",
    "block",
    "kubernetes",
    "jenkins",
    "tekton-pipeline",
    "legacy",
    "single",
    "explicit",
];

const DEFAULTS: &str = "plank: {default_decoration_config_entries: [{config: {gcs_configuration: {path_strategy: explicit}}}]}";

/// What the loader says of a word, in the place of which a text has `WORD`.
fn is_taken(kind: &str, text: &str, field: &str) -> bool {
    let mut files = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        jobs: Some("jobs".to_owned()),
        ..Layout::default()
    });
    let (config, jobs) = if kind == "config" {
        (text, "")
    } else {
        (DEFAULTS, text)
    };
    files.insert("config.yaml", config.as_bytes());
    files.insert("jobs/a.yaml", jobs.as_bytes());
    let named = ["unknown-agent", "unknown-state"].map(str::to_owned);
    let options = check::CheckOptions {
        enabled: check::Enabled::new(&named, &[], false, false, false).unwrap(),
        ..check::CheckOptions::default()
    };
    let loaded = check::load(&files, LoadOptions::default());
    let report = check::check(&files, &loaded, &options);
    // Others may be about what does not go with the word.
    let is_about = |found: &&Diagnostic| match field {
        "agent" => found.rule.name() == "unknown-agent",
        "path_strategy" => found.message.contains("gcs_path_strategy"),
        _ => found.field.contains(field),
    };
    let found = report.errors.iter().chain(&report.warnings);
    found.filter(is_about).count() == 0
}

/// Every enumeration allows the words that the loader takes, in the cases in which it takes them, and no others.
#[test]
fn enumerations_allow_what_the_loader_takes() {
    let decorated = "periodics: [{name: a, interval: 1h, decorate: true, spec: {containers: [{image: i, command: [x]}]}, \
                     decoration_config: {gcs_configuration: {bucket: b, default_org: o, default_repo: r, path_strategy: 'WORD'}, \
                     gcs_credentials_secret: s, utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}}}]";
    let cases = [
        ("config", "log_level", "log_level: 'WORD'"),
        (
            "config",
            "job_types_to_report",
            "github_reporter: {job_types_to_report: ['WORD']}",
        ),
        (
            "config",
            "job_types_to_report",
            "slack_reporter_configs: {'*': {channel: c, job_types_to_report: ['WORD']}}",
        ),
        (
            "config",
            "job_states_to_report",
            "slack_reporter_configs: {'*': {channel: c, job_states_to_report: ['WORD']}}",
        ),
        (
            "jobs",
            "job_states_to_report",
            "periodics: [{name: a, interval: 1h, agent: jenkins, reporter_config: {slack: {job_states_to_report: ['WORD']}}}]",
        ),
        ("config", "merge", "tide: {merge_method: {o/r: 'WORD'}}"),
        ("config", "merge", "tide: {merge_method: {o: {r: 'WORD'}}}"),
        (
            "config",
            "merge",
            "tide: {merge_method: {o: {r: {main: 'WORD'}}}}",
        ),
        (
            "config",
            "github_merge_blocks_policy",
            "tide: {github_merge_blocks_policy: {o/r: 'WORD'}}",
        ),
        (
            "jobs",
            "agent",
            "periodics: [{name: a, interval: 1h, agent: 'WORD'}]",
        ),
        ("jobs", "path_strategy", decorated),
    ];
    let validators = validators();
    let mut wrong = Vec::new();
    for (kind, field, text) in cases {
        let mut taken = 0;
        let capital = WORDS.map(|word| {
            word[..word.len().min(1)].to_uppercase() + word.get(1..).unwrap_or_default()
        });
        let upper = WORDS.map(str::to_uppercase);
        let words = WORDS
            .map(str::to_owned)
            .into_iter()
            .chain(capital)
            .chain(upper);
        for word in words.chain(["nonsense".to_owned()]) {
            let text = text.replace("WORD", &word);
            let is_taken = is_taken(kind, &text, field);
            let told = complaints(&validators[kind], &json(text.as_bytes()).unwrap());
            taken += usize::from(is_taken);
            if is_taken != told.is_empty() {
                let verb = if is_taken { "takes" } else { "refuses" };
                wrong.push(format!("the loader {verb} {text}: {told:?}"));
            }
        }
        assert!(taken > 1, "{text}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Descriptions are the doc comments, and nothing outside is referred to.
#[test]
fn schemas_stand_alone_and_describe_their_fields() {
    for kind in Kind::ALL {
        let text = schema(kind, None).to_string();
        let refs = text.matches("\"$ref\":").count();
        assert_eq!(refs, text.matches("\"$ref\":\"#/$defs/").count());
    }
    let jobs = schema(Kind::Jobs, None);
    let presubmit = &jobs["$defs"]["Presubmit-lenient"]["properties"];
    assert_eq!(presubmit["max_concurrency"]["description"], "0 = no limit.");
    let decoration = &jobs["$defs"]["DecorationConfig"];
    assert_eq!(
        decoration["properties"]["timeout"]["description"],
        "From start to SIGINT; unset or 0 = 2h."
    );
}
