//! The components' sections, Tide's and the plugins' answers by repository and branch, against upstream. Every field of
//! an answer is compared, or named in [`waived`] with the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use trireme_config::job::Requirements;
use trireme_config::prow::Scope;
use trireme_config::tide::OrgExceptions;
use trireme_config::{Config, Loaded, PluginConfig, ProwConfig};
use trireme_prowjob::{ProwJobSpec, Refs};

use crate::answers;
use crate::waived;

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
        "tide_queries_for_repo": prow.tide.queries_for(org, repo).map(|q| terms(&q.search())).collect::<Vec<_>>(),
        "tide_query_indexes": covering,
        "tide_target_url": prow.tide.target_url(org, repo),
    })
}

pub(crate) fn queries(prow: &ProwConfig, expected: &Value) -> Option<String> {
    let queries = &prow.tide.queries;
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    if expected.len() != queries.len() {
        return Some(format!("{} queries, got {}", expected.len(), queries.len()));
    }
    expected.iter().zip(queries).find_map(|(expected, query)| {
        let names = query.orgs.iter().chain(&query.repos);
        let tenants: BTreeSet<_> = names
            .map(|name| prow.prowjob_default(name, "*", None).tenant_id)
            .collect();
        let found = json!({
            "common": query.conditions(), "org_queries": query.org_searches(), "tenant_ids": tenants,
        });
        let text = expected["query"].as_str().unwrap();
        if terms(text) != terms(&query.search()) {
            return Some(format!("query {text}, got {}", query.search()));
        }
        let mut keys = expected.as_object().unwrap().keys();
        // Upstream's answers about made-up configurations leave some out.
        keys.find_map(|key| match key.as_str() {
            "query" => None,
            key => answers::difference(&expected[key], &found[key], key),
        })
    })
}

/// No list and an empty one are the same answer.
fn same_but_empty(expected: &Value, found: &Value, key: &str) -> Option<String> {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if empty(expected) && empty(found) {
        return None;
    }
    answers::difference(expected, found, key)
}

fn scope(scope: &Scope) -> Value {
    json!({"global": scope.global, "orgs": scope.orgs, "repos": scope.repos})
}

/// The plugin file: what is read by the loader itself in full, the sections of plugins as they were written.
fn plugin_sections(plugins: &PluginConfig) -> BTreeMap<String, Value> {
    let core = serde_json::to_value(&plugins.core).unwrap();
    let core = core.as_object().unwrap().clone().into_iter();
    core.chain(plugins.sections.clone()).collect()
}

/// What was written must stand in upstream's answer; what a plugin adds to its section is its own business.
fn written(section: &str, expected: &Value, found: &Value, path: &str) -> Option<String> {
    let default = |key: &str| {
        let mut all = waived::defaults_of_plugins().into_iter();
        all.find(|(of, field, _)| (*of, *field) == (section, key))
            .map(|(.., value)| value)
    };
    match (expected, found) {
        (Value::Object(expected), Value::Null) => {
            let mut rest = expected.iter();
            rest.find(|(key, value)| default(key).as_ref() != Some(*value))
                .map(|(key, value)| format!("{path}.{key}: {value} is missing"))
        }
        (Value::Object(expected), Value::Object(found)) => {
            let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
            keys.into_iter().find_map(|key| {
                let path = format!("{path}.{key}");
                let found = found.get(key).unwrap_or(&Value::Null);
                let expected = expected.get(key).unwrap_or(&Value::Null);
                if found.is_null() && default(key).as_ref() == Some(expected) {
                    return None;
                }
                written(section, expected, found, &path)
            })
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => expected
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(n, (a, b))| written(section, a, b, &format!("{path}[{n}]"))),
        // What Go leaves out when it is empty.
        (Value::Null, Value::Bool(false)) => None,
        (Value::Null, Value::String(text)) if text.is_empty() => None,
        // Written as a number, and read as a text.
        (Value::String(text), Value::Number(n)) if *text == n.to_string() => None,
        (expected, found) => same_but_empty(expected, found, path),
    }
}

fn compare(name: &str, expected: &Value, loaded: &Loaded, wrong: &mut Vec<String>) {
    let config = &loaded.config;
    let mut say = |what: &str, difference: Option<String>| {
        wrong.extend(
            difference
                .map(|d| format!("{name} {what}: {}", d.chars().take(700).collect::<String>())),
        );
    };
    let exceptions = OrgExceptions::of(&config.prow.tide.queries);
    let plugin_scope = loaded.plugins.scope();
    for (key, expected) in expected.as_object().unwrap() {
        let found = match key.as_str() {
            "prow_config" => serde_json::to_value(&config.prow).unwrap(),
            "presets" => serde_json::to_value(&config.jobs.presets).unwrap(),
            "all_repos" => json!(config.jobs.all_repos),
            "has_config_for" => scope(&config.prow.scope()),
            "plugins_has_config_for" => json!({
                "global": waived::SCOPE_OF_DEFAULTED_PLUGINS,
                "orgs": plugin_scope.orgs, "repos": plugin_scope.repos,
            }),
            "tide_org_exceptions" => json!(exceptions.orgs),
            "tide_query_repos" => json!(exceptions.repos),
            "tide_queries" => {
                say(key, queries(&config.prow, expected));
                continue;
            }
            "repos" => {
                for case in expected.as_array().unwrap() {
                    compare_repository(loaded, case, &mut say);
                }
                continue;
            }
            "plugins_config" => {
                let mut found = plugin_sections(&loaded.plugins);
                let sections_of_plugins = found.values_mut();
                sections_of_plugins.for_each(|section| {
                    answers::without(section, waived::FORMER_FIELDS_OF_PLUGINS)
                });
                let sections = expected.as_object().unwrap();
                let keys: BTreeSet<_> = sections.keys().chain(found.keys()).collect();
                for key in keys {
                    let found = found.get(key).unwrap_or(&Value::Null);
                    say("plugins", written(key, &expected[key], found, key));
                }
                continue;
            }
            "enabled_repos_for_plugin" => {
                for (plugin, expected) in expected.as_object().unwrap() {
                    let enabled = loaded.plugins.enabled_repos(plugin);
                    let orgs: Vec<_> = enabled.orgs.keys().cloned().collect();
                    let found = json!({
                        "orgs": list(&orgs), "repos": list(&enabled.repos), "org_exceptions": enabled.orgs,
                    });
                    say(plugin, answers::difference(expected, &found, ""));
                }
                continue;
            }
            // What was asked, not what was answered.
            "instance" | "repos_total" => continue,
            other => panic!("nothing is known about {other}"),
        };
        say(key, same_but_empty(expected, &found, ""));
    }
}

fn compare_repository(
    loaded: &Loaded,
    expected: &Value,
    say: &mut impl FnMut(&str, Option<String>),
) {
    let config = &loaded.config;
    let full = expected["repo"].as_str().unwrap();
    let found = repository(config, &loaded.plugins, full);
    for (key, expected) in expected.as_object().unwrap() {
        let found = &found[key];
        match key.as_str() {
            "plugins" => {
                for (key, expected) in expected.as_object().into_iter().flatten() {
                    if !waived::ANSWERS_OF_PLUGINS.contains(&key.as_str()) {
                        say(full, same_but_empty(expected, &found[key], key));
                    }
                }
            }
            "tide_queries_for_repo" => {
                let texts = expected.as_array().into_iter().flatten();
                let expected: Vec<_> = texts.map(|text| terms(text.as_str().unwrap())).collect();
                say(full, answers::difference(&json!(expected), found, key));
            }
            "branches" => {
                let (org, repo) = split(full);
                for case in expected.as_array().unwrap() {
                    let found = branch(config, &org, &repo, case["branch"].as_str().unwrap());
                    let mut case = case.clone();
                    if case.get("context_policy_error").is_some() {
                        case.as_object_mut().unwrap().remove("context_policy");
                    }
                    say(full, answers::difference(&case, &found, ""));
                }
            }
            _ => say(full, same_but_empty(expected, found, key)),
        }
    }
}

/// CFG-035, CFG-036, CFG-059: the defaulted sections, what is looked up in them by repository and branch, their reach.
#[test]
fn cfg_035_sections_and_lookups_are_those_of_upstream() {
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for name in answers::INSTANCES {
        if waived::REFUSED_INSTANCES.contains(&name) {
            continue;
        }
        let Some(expected) = answers::json(&format!("config-{name}.json.gz")) else {
            return;
        };
        let Some(loaded) = answers::loaded(name) else {
            return;
        };
        compare(name, &expected, &loaded, &mut wrong);
        compared += 1;
    }
    assert_eq!(compared, 20);
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}
