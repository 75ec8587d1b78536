//! The components' sections, Tide's and the plugins' answers by repository and branch, and small made-up
//! configurations, all against upstream.

use serde_json::{Value, json};
use trireme_config::job::Requirements;
use trireme_config::tide::{OrgExceptions, TideQuery};
use trireme_config::{Config, FileSet, Layout, LoadOptions, Loaded, PluginConfig, Rule};
use trireme_prowjob::{ProwJobSpec, Refs};

use crate::answers;

fn split(repo: &str) -> (String, String) {
    trireme_config::gerrit::split_repo(repo).unwrap()
}

/// A search with its terms in one order: upstream joins those of orgs at random.
fn terms(query: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let (mut term, mut quoted) = (String::new(), false);
    for c in query.chars() {
        quoted ^= c == '"';
        if c == ' ' && !quoted {
            terms.push(std::mem::take(&mut term));
        } else {
            term.push(c);
        }
    }
    terms.push(term);
    terms.sort();
    terms
}

fn list(values: &[String]) -> Value {
    if values.is_empty() {
        Value::Null
    } else {
        json!(values)
    }
}

fn branch(config: &Config, org: &str, repo: &str, branch: &str) -> Value {
    let presubmits: Vec<_> = config.presubmits(&format!("{org}/{repo}")).collect();
    let protection = match config
        .prow
        .branch_protection
        .for_branch(org, repo, branch, &presubmits)
    {
        Ok(policy) => serde_json::to_value(policy).unwrap(),
        Err(e) => json!({"error": e}),
    };
    // Upstream returns the contradictory policy beside its error; nobody uses it.
    let policy = config
        .context_policy(org, repo, branch)
        .map(|policy| serde_json::to_value(policy).unwrap());
    let (key, policy) = match policy {
        Ok(policy) => ("context_policy", policy),
        Err(e) => ("context_policy_error", json!(e)),
    };
    let jobs = Requirements::of(branch, presubmits.iter().copied(), false);
    json!({
        "branch": branch,
        "branch_protection": protection,
        key: policy,
        "merge_method": config.prow.tide.merge_method(org, repo, branch).as_str(),
        "requirements": {
            "required": list(&jobs.required),
            "required_if_present": list(&jobs.required_if_present),
            "optional": list(&jobs.optional),
        },
    })
}

fn repository(config: &Config, plugins: &PluginConfig, full: &str) -> Value {
    let (org, repo) = split(full);
    let (org, repo) = (org.as_str(), repo.as_str());
    let prow = &config.prow;
    let refs = Refs {
        org: org.to_owned(),
        repo: repo.to_owned(),
        ..Refs::default()
    };
    let spec = ProwJobSpec {
        refs: Some(refs.clone()),
        cluster: "default".to_owned(),
        ..ProwJobSpec::default()
    };
    let allows = |cluster: &str| prow.in_repo_config_allows_cluster(cluster, full);
    let template = prow.tide.merge_commit_template(org, repo);
    let covering: Vec<_> = prow
        .tide
        .queries
        .iter()
        .enumerate()
        .filter(|(_, query)| query.covers(org, repo))
        .map(|(n, _)| n)
        .collect();
    json!({
        "repo": full,
        "batch_size_limit": prow.tide.batch_size_limit(org, repo),
        "default_decoration_config": prow.plank.decoration_for(full, "default", None),
        "gcs_browser_prefix": prow.deck.spyglass.gcs_browser_prefix_for(org, repo, ""),
        "github_merge_blocks_policy": prow.tide.merge_blocks_policy(org, repo).as_str(),
        "in_repo_config_allows_cluster": {
            "default": allows("default"), "prow-build": allows("prow-build"), "trusted": allows("trusted"),
        },
        "in_repo_config_enabled": prow.in_repo_config_enabled(full),
        "job_url_prefix": prow.plank.job_url_prefix(&spec),
        "merge_commit_template": {
            "title": template.map_or("", |t| t.title.as_str()), "body": template.map_or("", |t| t.body.as_str()),
        },
        "merge_method": prow.tide.merge_method(org, repo, "").as_str(),
        "owners_ignored_dirs": prow.owners_dir_denylist.clone().unwrap_or_default().ignored_dirs(org, repo),
        "plugins": {
            "approve": plugins.approve_for(org, repo),
            "enabled": plugins.enabled_plugins(org, repo),
            "lgtm": plugins.lgtm_for(org, repo),
            "md_yaml_enabled": plugins.md_yaml_enabled(org, repo),
            "owners_filenames": plugins.owners_filenames(org, repo),
            "skip_collaborators": plugins.skip_collaborators(org, repo),
            "trigger": plugins.trigger_for(org, repo),
        },
        "pr_status_base_url": prow.tide.pr_status_base_url(org, repo),
        "prioritize_existing_batches": prow.tide.prioritizes_existing_batches(org, repo),
        "prowjob_default": prow.prowjob_default(full, "default", None),
        "report_template": prow.plank.controller.report_template_for(Some((org, repo))),
        "rerun_auth_config": prow.deck.rerun_auth_for(&spec),
        "slack_reporter": prow.slack_reporter(Some(&refs)).cloned().unwrap_or_default(),
        "tide_query_indexes": covering,
        "tide_target_url": prow.tide.target_url(org, repo),
    })
}

fn queries(queries: &[TideQuery], expected: &Value) -> Option<String> {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    if expected.len() != queries.len() {
        return Some(format!("{} queries, got {}", expected.len(), queries.len()));
    }
    expected.iter().zip(queries).find_map(|(expected, query)| {
        let found = json!({"common": query.conditions(), "org_queries": query.org_searches()});
        let text = expected["query"].as_str().unwrap();
        if terms(text) != terms(&query.search()) {
            return Some(format!("query {text}, got {}", query.search()));
        }
        let keys = ["common", "org_queries"]
            .into_iter()
            .filter(|key| expected.get(key).is_some());
        keys.into_iter()
            .find_map(|key| answers::difference(&expected[key], &found[key], key))
    })
}

fn compare(name: &str, expected: &Value, loaded: &Loaded, wrong: &mut Vec<String>) {
    let config = &loaded.config;
    let mut say = |what: &str, difference: Option<String>| {
        wrong.extend(
            difference
                .map(|d| format!("{name} {what}: {}", d.chars().take(700).collect::<String>())),
        );
    };
    let prow = serde_json::to_value(&config.prow).unwrap();
    say(
        "prow_config",
        answers::difference(&expected["prow_config"], &prow, ""),
    );
    let presets = serde_json::to_value(&config.jobs.presets).unwrap();
    if !(expected["presets"].is_null() && config.jobs.presets.is_empty()) {
        say(
            "presets",
            answers::difference(&expected["presets"], &presets, ""),
        );
    }
    say(
        "all_repos",
        answers::difference(&expected["all_repos"], &json!(config.jobs.all_repos), ""),
    );
    say(
        "tide_queries",
        queries(&config.prow.tide.queries, &expected["tide_queries"]),
    );
    let exceptions = OrgExceptions::of(&config.prow.tide.queries);
    say(
        "exceptions",
        answers::difference(
            &expected["tide_org_exceptions"],
            &json!(exceptions.orgs),
            "",
        ),
    );
    let repos: Vec<_> = exceptions.repos.iter().cloned().collect();
    if !(expected["tide_query_repos"]
        .as_array()
        .is_none_or(Vec::is_empty)
        && repos.is_empty())
    {
        say(
            "tide_query_repos",
            answers::difference(&expected["tide_query_repos"], &json!(repos), ""),
        );
    }
    for case in expected["repos"].as_array().unwrap() {
        let full = case["repo"].as_str().unwrap();
        let found = repository(config, &loaded.plugins, full);
        let has_plugins = !case["plugins"].is_null();
        for (key, value) in found.as_object().unwrap() {
            if key == "plugins" {
                for (key, value) in value.as_object().unwrap().iter().filter(|_| has_plugins) {
                    let expected = &case["plugins"][key];
                    if !(expected.is_null() && value.as_array().is_some_and(Vec::is_empty)) {
                        say(full, answers::difference(expected, value, key));
                    }
                }
            } else if !(case[key].is_null() && value.as_array().is_some_and(Vec::is_empty)) {
                say(full, answers::difference(&case[key], value, key));
            }
        }
        let (org, repo) = split(full);
        for case in case["branches"].as_array().unwrap() {
            let found = branch(config, &org, &repo, case["branch"].as_str().unwrap());
            let mut case = case.clone();
            if case.get("context_policy_error").is_some() {
                case.as_object_mut().unwrap().remove("context_policy");
            }
            say(full, answers::difference(&case, &found, ""));
        }
    }
    let Some(by_plugin) = expected["enabled_repos_for_plugin"].as_object() else {
        return;
    };
    for (plugin, expected) in by_plugin {
        let enabled = loaded.plugins.enabled_repos(plugin);
        let orgs: Vec<_> = enabled.orgs.keys().cloned().collect();
        say(
            plugin,
            answers::difference(&expected["orgs"], &list(&orgs), "orgs"),
        );
        say(
            plugin,
            answers::difference(&expected["repos"], &list(&enabled.repos), "repos"),
        );
        say(
            plugin,
            answers::difference(
                &expected["org_exceptions"],
                &json!(enabled.orgs),
                "exceptions",
            ),
        );
    }
    for section in [
        "plugins",
        "external_plugins",
        "approve",
        "lgtm",
        "triggers",
        "owners",
    ] {
        let found = serde_json::to_value(&loaded.plugins.core).unwrap();
        let expected = &expected["plugins_config"][section];
        say(
            section,
            answers::difference(expected, found.get(section).unwrap_or(&Value::Null), ""),
        );
    }
}

#[test]
fn cfg_035_sections_and_lookups_are_those_of_upstream() {
    let mut wrong = Vec::new();
    for name in answers::INSTANCES {
        if matches!(name, "tidb-ci" | "eks-distro" | "eks-anywhere") {
            continue;
        }
        let Some(expected) = answers::json(&format!("config-{name}.json.gz")) else {
            return;
        };
        let Some(loaded) = answers::loaded(name) else {
            return;
        };
        compare(name, &expected, &loaded, &mut wrong);
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

/// Errors that come from Go's libraries: their verdict counts, not their text.
const OWN_TEXTS: [&str; 6] = [
    "error unmarshalling",
    "template",
    "mime:",
    "panic loading config",
    "Diff:",
    "token_created_after",
];

fn synthetic(case: &Value) -> FileSet {
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

#[test]
fn cfg_014_small_configurations_are_judged_as_upstream_judges_them() {
    let Some(cases) = answers::lines("synthetic-configs.jsonl.gz") else {
        return;
    };
    let (mut wrong, total) = (Vec::new(), cases.len());
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let now = Some("2026-08-21T00:00:00Z".parse().unwrap());
        let loaded = Config::load(
            &synthetic(case),
            LoadOptions {
                now,
                ..LoadOptions::default()
            },
        );
        let errors: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        let ok = case["load_ok"].as_bool().unwrap();
        if ok != errors.is_empty() {
            wrong.push(format!(
                "{name}: load_ok {ok} ({}), got {errors:?}",
                case["load_errors"]
            ));
            continue;
        }
        if !ok {
            let expected = case["load_errors"].as_array().unwrap();
            let told = |e: &Value| {
                let e = e.as_str().unwrap();
                // Decoding, regexes, templates and the like have texts of their own here.
                let foreign = OWN_TEXTS.iter().any(|own| e.contains(own));
                foreign || loaded.errors.iter().any(|found| found.message == e)
            };
            if let Some(missing) = expected.iter().find(|e| !told(e)) {
                wrong.push(format!("{name}: {missing} is not told, but {errors:?}"));
            }
            continue;
        }
        let unknown = |w: &&trireme_config::Diagnostic| {
            w.rule == Rule::UnknownField && !w.file.starts_with("sup/")
        };
        let strict = loaded.warnings.iter().find(unknown);
        if case["load_strict_ok"].as_bool().unwrap() != strict.is_none() {
            wrong.push(format!(
                "{name}: strict {}, got {strict:?}",
                case["load_strict_errors"]
            ));
        }
        let config = &loaded.config;
        let mut parts = vec![("prow_config", serde_json::to_value(&config.prow).unwrap())];
        parts.push((
            "presets",
            serde_json::to_value(&config.jobs.presets).unwrap(),
        ));
        parts.push((
            "presubmits",
            serde_json::to_value(&config.jobs.presubmits).unwrap(),
        ));
        parts.push((
            "postsubmits",
            serde_json::to_value(&config.jobs.postsubmits).unwrap(),
        ));
        parts.push((
            "periodics",
            serde_json::to_value(&config.jobs.periodics).unwrap(),
        ));
        for (key, mut found) in parts {
            let mut expected = case[key].clone();
            let empty = |v: &Value| {
                v.as_array().is_some_and(Vec::is_empty)
                    || v.as_object().is_some_and(|o| o.is_empty())
            };
            if expected.is_null() && empty(&found) {
                continue;
            }
            if name == "repo-key-null" && key == "presubmits" {
                // No jobs are no jobs, with a list or without.
                expected = json!({"org/repo": []});
            }
            if name == "spyglass-viewers" && key == "prow_config" {
                // Old names of viewers are renamed in the lenses too (CFG-036).
                expected["deck"]["spyglass"]["lenses"] =
                    found["deck"]["spyglass"]["lenses"].clone();
            }
            answers::without(&mut expected, &["creationTimestamp"]);
            answers::without(&mut found, &["creationTimestamp"]);
            if let Some(difference) = answers::difference_but(&expected, &found, key, &["comand"]) {
                wrong.push(format!(
                    "{name}: {}",
                    difference.chars().take(500).collect::<String>()
                ));
            }
        }
        if case.get("tide_queries").is_some()
            && let Some(difference) = queries(&config.prow.tide.queries, &case["tide_queries"])
        {
            wrong.push(format!("{name}: {difference}"));
        }
    }
    println!("{total} configurations");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
