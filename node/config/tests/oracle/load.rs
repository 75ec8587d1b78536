//! Whole configurations against upstream's loader: verdicts, counts, every job, the defaulted sections.

use std::collections::BTreeMap;

use serde_json::Value;
use trireme_config::job::MAX_EXPRESSIONS;
use trireme_config::{Loaded, Rule};
use trireme_prowjob::GoDuration;

use crate::answers;
use crate::waived;

/// CFG-110: the whole of Kubernetes' own configuration.
#[test]
fn cfg_110_kubernetes_loads_without_an_error() {
    let Some(loaded) = answers::loaded("kubernetes") else {
        return;
    };
    let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
    assert!(
        errors.is_empty(),
        "{} errors:\n{}",
        errors.len(),
        errors.join("\n")
    );
    assert_eq!(loaded.config.job_counts(), (2261, 253, 3565));
    let bytes = loaded.config.bytes_of_expressions();
    println!("{bytes} bytes of expressions");
    assert!(bytes > 0 && bytes * 10 < MAX_EXPRESSIONS, "{bytes}");
    for warning in &loaded.warnings {
        println!("{warning}");
    }
}

#[test]
fn cfg_014_verdicts_and_counts() {
    let Some(cases) = answers::json("load-errors.json") else {
        return;
    };
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let name = case["instance"].as_str().unwrap();
        let Some(loaded) = answers::loaded(name) else {
            return;
        };
        let plugins = case["plugins"].as_str().unwrap_or("-");
        let of_plugins = |file: &str| file == plugins;
        let errors: Vec<_> = loaded
            .errors
            .iter()
            .filter(|e| !of_plugins(&e.file))
            .collect();
        let ok = case["load_ok"].as_bool().unwrap_or(false);
        if errors.is_empty() != ok {
            let first: Vec<_> = errors.iter().take(5).map(ToString::to_string).collect();
            wrong.push(format!(
                "{name}: load_ok {ok}, got {} errors: {first:#?}",
                errors.len()
            ));
        }
        if let Some(expected) = case["load_errors"].as_array() {
            let mut found: Vec<String> = errors.iter().map(|e| e.message.clone()).collect();
            found.sort();
            let expected: Vec<&str> = expected.iter().map(|e| e.as_str().unwrap()).collect();
            if found != expected {
                let missing: Vec<_> = expected
                    .iter()
                    .filter(|e| !found.iter().any(|f| f == *e))
                    .take(5)
                    .collect();
                let extra: Vec<_> = found
                    .iter()
                    .filter(|f| !expected.contains(&f.as_str()))
                    .take(5)
                    .collect();
                wrong.push(format!(
                    "{name}: {} errors, got {}; missing {missing:#?}, extra {extra:#?}",
                    expected.len(),
                    found.len()
                ));
            }
        }
        if case["plugins_ok"].as_bool() == Some(true) {
            let errors: Vec<_> = loaded
                .errors
                .iter()
                .filter(|e| of_plugins(&e.file))
                .map(ToString::to_string)
                .collect();
            if !errors.is_empty() {
                wrong.push(format!("{name}: plugins: {errors:?}"));
            }
        }
        if !ok {
            continue;
        }
        let count = |key: &str| usize::try_from(case[key].as_u64().unwrap()).unwrap();
        let expected = (
            count("presubmits"),
            count("postsubmits"),
            count("periodics"),
        );
        if loaded.config.job_counts() != expected {
            wrong.push(format!(
                "{name}: {expected:?} jobs, got {:?}",
                loaded.config.job_counts()
            ));
        }
        let jobs = &loaded.config.jobs;
        for (key, found) in [
            ("presets", jobs.presets.len()),
            ("repos_with_presubmits", jobs.presubmits.len()),
            ("repos_with_postsubmits", jobs.postsubmits.len()),
        ] {
            if count(key) != found {
                wrong.push(format!("{name}: {} {key}, got {found}", count(key)));
            }
        }
        let strict_ok = case["load_strict_ok"].as_bool().unwrap();
        let unknown: Vec<_> = loaded
            .warnings
            .iter()
            .filter(|w| w.rule == Rule::UnknownField && !of_plugins(&w.file))
            .collect();
        if unknown.is_empty() != strict_ok {
            wrong.push(format!(
                "{name}: strict {strict_ok}, unknown {:#?}",
                &unknown[..unknown.len().min(8)]
            ));
        }
        // `error unmarshalling FILE: …: unknown field "NAME"`; the same file and name are warned about.
        for e in case["load_strict_errors"].as_array().into_iter().flatten() {
            let told = e.as_str().unwrap();
            let (file, rest) = (told.strip_prefix("error unmarshalling "))
                .and_then(|e| e.split_once(": "))
                .unwrap();
            let field = rest.split_once("json: ").unwrap().1;
            if !unknown.iter().any(|w| w.file == file && w.message == field) {
                wrong.push(format!("{name}: {told} is not told"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Kind, repository and index of a job.
type Key = (String, String, u64);
/// Its JSON, the intervals of a periodic in ns, its file.
type Job = (Value, Option<(i64, i64)>, String);

fn jobs_of(loaded: &Loaded) -> BTreeMap<Key, Job> {
    let mut jobs = BTreeMap::new();
    for (repo, list) in &loaded.config.jobs.presubmits {
        for (n, job) in list.iter().enumerate() {
            let value = serde_json::to_value(job).unwrap();
            jobs.insert(
                ("presubmit".to_owned(), repo.clone(), n as u64),
                (value, None, job.base.source.file.to_string()),
            );
        }
    }
    for (repo, list) in &loaded.config.jobs.postsubmits {
        for (n, job) in list.iter().enumerate() {
            let value = serde_json::to_value(job).unwrap();
            jobs.insert(
                ("postsubmit".to_owned(), repo.clone(), n as u64),
                (value, None, job.base.source.file.to_string()),
            );
        }
    }
    for (n, job) in loaded.config.jobs.periodics.iter().enumerate() {
        let value = serde_json::to_value(job).unwrap();
        let times = Some((job.every.as_nanos(), job.at_least_every.as_nanos()));
        jobs.insert(
            ("periodic".to_owned(), String::new(), n as u64),
            (value, times, job.base.source.file.to_string()),
        );
    }
    jobs
}

#[test]
fn job_001_every_job_is_as_upstream_has_it() {
    let mut wrong = Vec::new();
    for name in answers::INSTANCES {
        if waived::REFUSED_INSTANCES.contains(&name) {
            continue;
        }
        let Some(expected) = answers::lines(&format!("jobs-{name}.jsonl.gz")) else {
            return;
        };
        let Some(loaded) = answers::loaded(name) else {
            return;
        };
        let jobs = jobs_of(&loaded);
        // Pod specs keep fields that upstream's types do not know (JOB-077).
        let unknown: Vec<&str> = loaded
            .warnings
            .iter()
            .filter(|w| w.rule == Rule::UnknownField && w.field.contains(".spec"))
            .filter_map(|w| {
                w.message
                    .strip_prefix("unknown field \"")?
                    .strip_suffix('"')
            })
            .collect();
        if jobs.len() != expected.len() {
            wrong.push(format!(
                "{name}: {} jobs, got {}",
                expected.len(),
                jobs.len()
            ));
        }
        let mut differ = 0;
        for case in &expected {
            let kind = case["type"]
                .as_str()
                .or(case["kind"].as_str())
                .unwrap_or_default()
                .to_owned();
            let key = (
                kind,
                case["repo"].as_str().unwrap_or_default().to_owned(),
                case["index"].as_u64().unwrap(),
            );
            let Some((job, times, file)) = jobs.get(&key) else {
                wrong.push(format!("{name}: no {key:?} {}", case));
                continue;
            };
            let (mut expected, mut found) = (case["job"].clone(), job.clone());
            answers::without(&mut expected, &[waived::ZERO_TIME]);
            answers::without(&mut found, &[waived::ZERO_TIME]);
            let mut found = answers::difference_but(&expected, &found, "", &unknown);
            if name != "tidb-ci-unique" && case["file"].as_str() != Some(file) {
                found = found
                    .or_else(|| Some(format!("file: expected {}, found {file}", case["file"])));
            }
            if let Some((every, at_least)) = times {
                for (field, found_ns) in [("interval_ns", every), ("minimum_interval_ns", at_least)]
                {
                    let expected = if waived::is_overwritten_by_retry(&case["job"], field) {
                        case["job"]["interval"]
                            .as_str()
                            .map_or(0, |text| text.parse::<GoDuration>().unwrap().as_nanos())
                    } else {
                        case[field].as_i64().unwrap()
                    };
                    if expected != *found_ns {
                        found = found.or_else(|| {
                            Some(format!("{field}: expected {expected}, found {found_ns}"))
                        });
                    }
                }
            }
            if let Some(found) = found {
                differ += 1;
                if differ <= 3 {
                    wrong.push(format!(
                        "{name} {key:?}: {}",
                        found.chars().take(600).collect::<String>()
                    ));
                }
            }
        }
        if differ > 0 {
            wrong.push(format!(
                "{name}: {differ} of {} jobs differ",
                expected.len()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
