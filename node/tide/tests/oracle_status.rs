//! The answers of upstream's own status controller: `reports.jsonl.gz`, kind `tide_status`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _},
};

use serde_json::Value;
use trireme_config::tide::TideQuery;
use trireme_forge::{
    CheckRun, MergeMethod, StatusState,
    search::{MergeState, Mergeable, ReviewDecision},
};
use trireme_tide::{
    explain::{self, Standing},
    merging::{self, AllowedMethods, MergeBlocks, MethodLabels},
    policy::ContextPolicy,
    pull::{Context, Pull, check_run_contexts},
};

const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/oracle");

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    serde_json::from_value(value[key].clone()).unwrap_or_default()
}

struct Policy {
    required: Vec<String>,
    if_present: Vec<String>,
    optional: Vec<String>,
    skip_unknown: bool,
}

impl ContextPolicy for Policy {
    fn is_optional(&self, context: &str) -> bool {
        let has = |list: &[String]| list.iter().any(|listed| listed == context);
        has(&self.optional) || (self.skip_unknown && !has(&self.required) && !has(&self.if_present))
    }
    fn missing_required(&self, present: &BTreeSet<&str>) -> Vec<String> {
        let mut missing = self.required.clone();
        missing.retain(|context| !present.contains(context.as_str()));
        missing.sort();
        missing
    }
}

fn pull(pr: &Value) -> Pull {
    let state = |word: &str| serde_json::from_value(Value::from(word.to_lowercase())).unwrap();
    let mut contexts: Vec<Context> = pr["contexts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|context| Context {
            name: text(context, "context").to_owned(),
            state: state(text(context, "state")),
            description: String::new(),
        })
        .collect();
    let runs: Vec<CheckRun> = serde_json::from_value(pr["check_runs"].clone()).unwrap();
    contexts.extend(check_run_contexts(&runs));
    Pull {
        org: text(pr, "org").to_owned(),
        repo: text(pr, "repo").to_owned(),
        number: pr["number"].as_u64().unwrap(),
        title: String::new(),
        body: String::new(),
        author: text(pr, "author").to_owned(),
        author_is_bot: pr["author_is_bot"] == true,
        base_ref: text(pr, "base_branch").to_owned(),
        head_ref: text(pr, "head_branch").to_owned(),
        head_sha: "head".to_owned(),
        labels: texts(pr, "labels"),
        milestone: Some(text(pr, "milestone").to_owned()).filter(|title| !title.is_empty()),
        draft: false,
        mergeable: serde_json::from_value::<Mergeable>(pr["mergeable"].clone()).unwrap(),
        merge_state: serde_json::from_value::<MergeState>(pr["merge_state_status"].clone())
            .unwrap(),
        can_be_rebased: pr["can_be_rebased"] == true,
        review: serde_json::from_value::<ReviewDecision>(pr["review_decision"].clone())
            .ok()
            .filter(|_| !text(pr, "review_decision").is_empty()),
        contexts,
    }
}

fn query(value: &Value) -> TideQuery {
    TideQuery {
        author: text(value, "author").to_owned(),
        labels: texts(value, "labels"),
        missing_labels: texts(value, "missingLabels"),
        excluded_branches: texts(value, "excludedBranches"),
        included_branches: texts(value, "includedBranches"),
        milestone: text(value, "milestone").to_owned(),
        review_approved_required: value["reviewApprovedRequired"] == true,
        orgs: texts(value, "orgs"),
        repos: texts(value, "repos"),
        excluded_repos: texts(value, "excludedRepos"),
    }
}

/// `prow_config.tide` of an instance.
fn tide_config(instance: &str) -> Value {
    let file = std::fs::File::open(format!("{ORACLE}/config-{instance}.json.gz")).unwrap();
    let mut json = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut json)
        .unwrap();
    let mut config: Value = serde_json::from_str(&json).unwrap();
    config["prow_config"]["tide"].take()
}

fn configured_method(tide: &Value, pull: &Pull) -> MergeMethod {
    let methods = &tide["merge_method"];
    let word = methods[pull.full_repo()]
        .as_str()
        .or(methods[&pull.org].as_str())
        .or(methods[&pull.org][&pull.repo].as_str())
        .or(methods[&pull.org]["*"].as_str())
        .unwrap_or("merge");
    serde_json::from_value(Value::from(word)).unwrap()
}

fn for_repo<'a>(map: &'a Value, pull: &Pull) -> &'a str {
    [pull.full_repo().as_str(), &pull.org, "*"]
        .iter()
        .find_map(|key| map[*key].as_str())
        .unwrap_or_default()
}

/// TIDE-050, TIDE-052, TIDE-100, TIDE-112 … TIDE-118, TIDE-135, TIDE-136
#[test]
fn tide_statuses() {
    let Ok(file) = std::fs::File::open(format!("{ORACLE}/reports.jsonl.gz")) else {
        println!("skipped: {ORACLE} is absent");
        return;
    };
    let mut configs: BTreeMap<String, Value> = BTreeMap::new();
    let mut checked = 0;
    for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines() {
        let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if answer["kind"] != "tide_status" {
            continue;
        }
        checked += 1;
        let instance = text(&answer, "instance").to_owned();
        let tide = configs
            .entry(instance.clone())
            .or_insert_with(|| tide_config(&instance));
        let pull = pull(&answer["pr"]);
        let policy = &answer["context_policy"];
        let policy = Policy {
            required: texts(policy, "required-contexts"),
            if_present: texts(policy, "required-if-present-contexts"),
            optional: texts(policy, "optional-contexts"),
            skip_unknown: policy["skip-unknown-contexts"] == true,
        };
        let blocks = match text(&answer, "github_merge_blocks_policy") {
            "ignore" => MergeBlocks::Ignore,
            "block" => MergeBlocks::Block,
            _ => MergeBlocks::Permit,
        };
        let queries: Vec<TideQuery> = answer["queries"]
            .as_array()
            .into_iter()
            .flatten()
            .map(query)
            .collect();
        for (query, expected) in queries
            .iter()
            .zip(answer["requirement_diffs"].as_array().into_iter().flatten())
        {
            assert!(query.covers(&pull.org, &pull.repo), "{answer}");
            let difference = explain::requirement_difference(&pull, query, &policy, blocks);
            assert_eq!(difference.text, text(expected, "text"), "{answer}");
            assert_eq!(u64::from(difference.weight), expected["count"], "{answer}");
        }

        let labels = MethodLabels {
            merge: text(tide, "merge_label").to_owned(),
            squash: text(tide, "squash_label").to_owned(),
            rebase: text(tide, "rebase_label").to_owned(),
        };
        let allowed = &answer["repo_allowed_merge_methods"];
        let allowed = AllowedMethods {
            merge: allowed["merge"] == true,
            squash: allowed["squash"] == true,
            rebase: allowed["rebase"] == true,
        };
        let method = merging::method(&pull, configured_method(tide, &pull), &labels);
        let mut blockers: Vec<u64> =
            serde_json::from_value(answer["blocking_issues"].clone()).unwrap_or_default();
        blockers.sort_unstable();
        let passing = texts(&answer, "passing_contexts_for_base");
        let (state, description) = explain::expected_status(&Standing {
            pull: &pull,
            forbidden: merging::forbidden(&pull, method, allowed, blocks),
            in_pool: answer["in_pool"] == true,
            blockers: &blockers,
            queries: &queries.iter().collect::<Vec<_>>(),
            policy: &policy,
            blocks,
            display_all_queries: answer["display_all_queries_in_status"] == true,
            up_to_date: passing.iter().map(String::as_str).collect(),
        });
        assert_eq!(description, text(&answer, "description"), "{answer}");
        assert_eq!(state.as_str(), text(&answer, "state"), "{answer}");
        assert_ne!(state, StatusState::Failure);
        assert_eq!(
            explain::target_url(
                &pull,
                for_repo(&tide["target_urls"], &pull),
                for_repo(&tide["pr_status_base_urls"], &pull)
            ),
            text(&answer, "target_url"),
            "{answer}"
        );
    }
    assert!(checked > 500, "only {checked} answers");
}
