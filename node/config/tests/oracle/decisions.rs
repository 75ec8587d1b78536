//! Which job runs when, against upstream's own decisions (JOB-010…018).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use trireme_config::Config;
use trireme_config::job::{AvailableTests, Command, Contexts, Filter};

use crate::answers;

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| v.as_str().unwrap())
        .collect()
}

fn set(value: &Value) -> BTreeSet<String> {
    strings(value).into_iter().map(str::to_owned).collect()
}

fn presubmit(config: &Config, case: &Value) -> Value {
    let (branch, files) = (case["branch"].as_str().unwrap(), strings(&case["files"]));
    let job = &config.jobs.presubmits[case["repo"].as_str().unwrap()]
        [case["index"].as_u64().unwrap() as usize];
    let mut should_run = BTreeMap::new();
    for (forced, default) in [(false, false), (false, true), (true, false), (true, true)] {
        let answer = job.should_run(branch, &files, forced, default);
        should_run.insert(format!("forced={forced},default={default}"), answer);
    }
    json!({
        "job": job.base.name,
        "could_run": job.could_run(branch),
        "should_run": should_run,
        "context_required": job.context_required(),
        "matcher_could_run": job.changes.is_set(),
        "needs_explicit_trigger": job.needs_explicit_trigger(),
        "runs_against_changes": job.changes.matches(&files),
        "triggers_conditionally": job.triggers_conditionally(),
    })
}

fn postsubmit(config: &Config, case: &Value) -> Value {
    let (branch, files) = (case["branch"].as_str().unwrap(), strings(&case["files"]));
    let job = &config.jobs.postsubmits[case["repo"].as_str().unwrap()]
        [case["index"].as_u64().unwrap() as usize];
    json!({
        "job": job.base.name,
        "could_run": job.could_run(branch),
        "should_run": job.should_run(branch, &files),
    })
}

fn trigger(config: &Config, case: &Value) -> Value {
    let job = &config.jobs.presubmits[case["repo"].as_str().unwrap()]
        [case["index"].as_u64().unwrap() as usize];
    let bodies = case["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result[0].as_str().unwrap());
    let results: Vec<_> = bodies
        .map(|body| json!([body, job.trigger_matches(body)]))
        .collect();
    json!({
        "job": job.base.name, "rerun_command": job.rerun_command, "trigger": job.trigger, "results": results,
    })
}

fn filter(config: &Config, case: &Value) -> Value {
    let (branch, files) = (case["branch"].as_str().unwrap(), strings(&case["files"]));
    let contexts = Contexts {
        failed: set(&case["failed_contexts"]),
        all: set(&case["all_contexts"]),
    };
    let honor = case["honor_ok_to_test"].as_bool().unwrap();
    let jobs: Vec<_> = config.presubmits(case["repo"].as_str().unwrap()).collect();
    let filter = Filter::for_comment(case["body"].as_str().unwrap(), honor, &contexts);
    let selected = filter.select(branch, &files, jobs.iter().copied());
    let names: Vec<_> = selected.iter().map(|job| job.base.name.as_str()).collect();
    let mut answer = json!({"selected": names});
    if case.get("available").is_some() {
        let available = AvailableTests::of(branch, &files, &jobs);
        answer["available"] = json!({
            "run_with_test_all": available.run_with_test_all,
            "optional_commands": available.optional_commands,
            "required_commands": available.required_commands,
        });
    }
    answer
}

fn command(case: &Value) -> Value {
    let body = case["body"].as_str().unwrap();
    json!({
        "empty_test": Command::EmptyTest.is_in(body),
        "ok_to_test": Command::OkToTest.is_in(body),
        "ok_to_test_cancel": Command::OkToTestCancel.is_in(body),
        "retest": Command::Retest.is_in(body),
        "retest_required": Command::RetestRequired.is_in(body),
        "retest_with_target": Command::RetestWithTarget.is_in(body),
        "test_all": Command::TestAll.is_in(body),
        "test_help": Command::TestHelp.is_in(body),
        "test_manual_required": Command::TestManualRequired.is_in(body),
        "test_with_any_target": Command::TestWithAnyTarget.is_in(body),
    })
}

#[test]
fn job_018_decisions_are_those_of_upstream() {
    let Some(cases) = answers::lines("decisions.jsonl.gz") else {
        return;
    };
    let mut wrong = Vec::new();
    for case in &cases {
        let kind = case["kind"].as_str().unwrap();
        let found = if kind == "command" {
            command(case)
        } else {
            let name = case["instance"].as_str().unwrap();
            let loaded = answers::loaded(name).unwrap();
            let config = &loaded.config;
            match kind {
                "presubmit" => presubmit(config, case),
                "postsubmit" => postsubmit(config, case),
                "trigger" => trigger(config, case),
                "filter" => filter(config, case),
                other => panic!("unknown kind {other}"),
            }
        };
        // Every answer is compared; the rest is what was asked.
        let asked = [
            "kind",
            "instance",
            "repo",
            "index",
            "branch",
            "files",
            "body",
            "honor_ok_to_test",
            "failed_contexts",
            "all_contexts",
        ];
        for (key, expected) in case.as_object().unwrap() {
            if asked.contains(&key.as_str()) {
                continue;
            }
            if let Some(difference) = answers::difference(expected, &found[key], key) {
                wrong.push(format!("{kind} {}: {difference}", case["job"]));
            }
        }
    }
    println!("{} decisions", cases.len());
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}
