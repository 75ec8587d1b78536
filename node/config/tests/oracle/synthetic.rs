//! Small made-up configurations: verdicts, errors and results against upstream.

use std::collections::BTreeSet;

use serde_json::Value;
use trireme_config::{Config, FileSet, Layout, LoadOptions, Loaded, Rule};

use crate::answers;
use crate::sections::queries;
use crate::waived;

fn files(case: &Value) -> FileSet {
    let files = case["files"].as_object().unwrap();
    let jobs = files
        .keys()
        .find(|path| path.starts_with("jobs"))
        .map(|path| path.split('/').next().unwrap().to_owned());
    let supplemental_dirs = if files.keys().any(|path| path.starts_with("sup/")) {
        vec!["sup".to_owned()]
    } else {
        vec![]
    };
    let mut set = FileSet::new(Layout {
        config: "main.yaml".to_owned(),
        jobs,
        supplemental_dirs,
        ..Layout::default()
    });
    for (path, text) in files {
        set.insert(path.clone(), text.as_str().unwrap().as_bytes());
    }
    set
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.map(|text| text.as_str().unwrap()).collect()
}

/// Errors are upstream's own, none is missing, and none is told that upstream does not tell.
fn errors(case: &Value, loaded: &Loaded) -> Option<String> {
    let expected = texts(&case["load_errors"]);
    let foreign = |e: &&str| waived::OWN_TEXTS.iter().any(|own| e.contains(own));
    let found: BTreeSet<&str> = loaded.errors.iter().map(|e| e.message.as_str()).collect();
    if expected.is_empty() != found.is_empty() {
        return Some(format!("errors {expected:?}, got {found:?}"));
    }
    let own: BTreeSet<&str> = expected.iter().copied().filter(|e| !foreign(e)).collect();
    if let Some(missing) = own.difference(&found).next() {
        return Some(format!("{missing:?} is not told, but {found:?}"));
    }
    let of_libraries = expected.len() - expected.iter().filter(|e| !foreign(e)).count();
    let more: Vec<_> = found.difference(&own).collect();
    let name = case["name"].as_str().unwrap();
    (more.len() > of_libraries && !waived::MORE_ERRORS.contains(&name))
        .then(|| format!("told, but not by upstream: {more:?}, of {expected:?}"))
}

/// Strict reading stops at a file's first unknown field; the warnings here name it among the others.
fn strict(case: &Value, loaded: &Loaded) -> Option<String> {
    let unknown: BTreeSet<&str> = loaded
        .warnings
        .iter()
        .filter(|w| w.rule == Rule::UnknownField && !w.file.starts_with("sup/"))
        .map(|w| w.message.as_str())
        .collect();
    let expected: BTreeSet<String> = texts(&case["load_strict_errors"])
        .iter()
        .filter_map(|e| e.split_once("json: unknown field "))
        .map(|(_, name)| format!("unknown field {name}"))
        .collect();
    if let Some(missing) = expected.iter().find(|e| !unknown.contains(e.as_str())) {
        return Some(format!("strict: {missing} is not told, but {unknown:?}"));
    }
    let passes = case["load_ok"] == true && unknown.is_empty();
    (passes != (case["load_strict_ok"] == true))
        .then(|| format!("strict {}, unknown {unknown:?}", case["load_strict_ok"]))
}

fn results(case: &Value, loaded: &Loaded) -> Option<String> {
    let name = case["name"].as_str().unwrap();
    let config = &loaded.config;
    let jobs = &config.jobs;
    let parts = [
        ("prow_config", serde_json::to_value(&config.prow).unwrap()),
        ("presets", serde_json::to_value(&jobs.presets).unwrap()),
        (
            "presubmits",
            serde_json::to_value(&jobs.presubmits).unwrap(),
        ),
        (
            "postsubmits",
            serde_json::to_value(&jobs.postsubmits).unwrap(),
        ),
        ("periodics", serde_json::to_value(&jobs.periodics).unwrap()),
    ];
    for (key, mut found) in parts {
        let mut expected = case[key].clone();
        let empty = |v: &Value| {
            v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(|o| o.is_empty())
        };
        if expected.is_null() && empty(&found) {
            continue;
        }
        if let Some((_, _, own)) = waived::OWN_RESULTS
            .iter()
            .find(|(of, part, _)| (*of, *part) == (name, key))
        {
            own(&mut expected);
        }
        answers::without(&mut expected, &[waived::ZERO_TIME]);
        answers::without(&mut found, &[waived::ZERO_TIME]);
        let difference = answers::difference_but(&expected, &found, key, waived::UNKNOWN_IN_PODS);
        if difference.is_some() {
            return difference;
        }
    }
    queries(&config.prow, case.get("tide_queries")?)
}

/// CFG-014, CFG-015, CFG-024: each of them is accepted, or refused with upstream's words, and means the same.
#[test]
fn cfg_014_small_configurations_are_judged_as_upstream_judges_them() {
    let Some(cases) = answers::lines("synthetic-configs.jsonl.gz") else {
        return;
    };
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let now = Some("2026-08-21T00:00:00Z".parse().unwrap());
        let loaded = Config::load(
            &files(case),
            LoadOptions {
                now,
                ..LoadOptions::default()
            },
        );
        let mut found = vec![errors(case, &loaded), strict(case, &loaded)];
        if case["load_ok"] == true {
            found.push(results(case, &loaded));
        }
        wrong.extend(
            found
                .into_iter()
                .flatten()
                .map(|e| format!("{name}: {}", e.chars().take(600).collect::<String>())),
        );
        let known = [
            "files",
            "name",
            "load_ok",
            "load_errors",
            "load_strict_ok",
            "load_strict_errors",
            "prow_config",
            "presets",
            "presubmits",
            "postsubmits",
            "periodics",
            "tide_queries",
        ];
        let more = case.as_object().unwrap().keys();
        wrong.extend(
            more.filter(|key| !known.contains(&key.as_str()))
                .map(|key| format!("{name}: nothing is known about {key}")),
        );
    }
    println!("{} configurations", cases.len());
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
