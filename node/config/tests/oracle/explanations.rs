//! What is told about a decision is what was decided, for everything that upstream was asked (JOB-013…018).

use std::collections::BTreeSet;

use serde_json::Value;
use trireme_config::job::explain::{self, Explanation};
use trireme_config::job::{Contexts, Filter};

use crate::answers;

fn strings(value: &Value) -> Vec<&str> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap()).collect()
}

fn set(value: &Value) -> BTreeSet<String> {
    strings(value).into_iter().map(str::to_owned).collect()
}

/// One rule decides, and as the explanation says.
fn is_consistent(explained: &Explanation) -> bool {
    let deciding: Vec<_> = explained.rules.iter().filter(|rule| rule.decides).collect();
    match deciding.as_slice() {
        [rule] => (rule.says == explain::Says::Runs) == explained.runs,
        _ => false,
    }
}

#[test]
fn job_018_explanations_agree_with_decisions() {
    let Some(cases) = answers::lines("decisions.jsonl.gz") else {
        return;
    };
    let (mut wrong, mut told) = (Vec::new(), 0);
    for case in &cases {
        let kind = case["kind"].as_str().unwrap();
        if !matches!(kind, "filter" | "presubmit" | "postsubmit") {
            continue;
        }
        let loaded = answers::loaded(case["instance"].as_str().unwrap()).unwrap();
        let config = &loaded.config;
        let (repo, branch) = (
            case["repo"].as_str().unwrap(),
            case["branch"].as_str().unwrap(),
        );
        let files = strings(&case["files"]);
        let mut check =
            |wrong: &mut Vec<String>, name: &str, explained: &Explanation, expected: bool| {
                told += 1;
                if explained.runs != expected || !is_consistent(explained) {
                    wrong.push(format!("{kind} {name}: expected {expected}: {explained:?}"));
                }
            };
        match kind {
            "filter" => {
                let contexts = Contexts {
                    failed: set(&case["failed_contexts"]),
                    all: set(&case["all_contexts"]),
                };
                let honor = case["honor_ok_to_test"].as_bool().unwrap();
                let body = case["body"].as_str().unwrap();
                let filter = Filter::for_comment(body, honor, &contexts);
                // Jobs of one name differ by branch: upstream names those that it picked, in order.
                let mut selected = strings(&case["selected"]).into_iter().peekable();
                for (n, job) in config.presubmits(repo).enumerate() {
                    let runs = filter.decide(branch, &files, job).runs();
                    let expected = runs && selected.next_if_eq(&job.base.name.as_str()).is_some();
                    if runs != expected {
                        wrong.push(format!("filter {}: expected {expected}", job.base.name));
                    }
                    // To tell them all takes a minute; those that are not picked are told now and then.
                    if runs || n % 16 == 0 {
                        let explained = explain::presubmit(job, &filter, branch, &files);
                        check(&mut wrong, &job.base.name, &explained, expected);
                    }
                }
                assert_eq!(selected.next(), None, "{case}");
            }
            "presubmit" => {
                let index = case["index"].as_u64().unwrap() as usize;
                let job = &config.jobs.presubmits[repo][index];
                let forms = [
                    (Filter::TestAll, "forced=false,default=false"),
                    (
                        Filter::Command(job.rerun_command.clone()),
                        "forced=true,default=true",
                    ),
                ];
                for (filter, form) in forms {
                    let explained = explain::presubmit(job, &filter, branch, &files);
                    let expected = case["should_run"][form].as_bool().unwrap();
                    check(&mut wrong, &job.base.name, &explained, expected);
                }
            }
            _ => {
                let index = case["index"].as_u64().unwrap() as usize;
                let job = &config.jobs.postsubmits[repo][index];
                let explained = explain::postsubmit(job, branch, &files);
                check(
                    &mut wrong,
                    &job.base.name,
                    &explained,
                    case["should_run"].as_bool().unwrap(),
                );
            }
        }
    }
    println!("{told} explanations");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(10)].join("\n")
    );
    assert!(told > 1000);
}
