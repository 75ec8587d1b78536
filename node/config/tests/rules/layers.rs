//! Layered defaults (section 5).

use serde_json::{Value, json};
use trireme_config::prow::plank;

use crate::stage::{DECORATION, POD, accepted, decoration, errors, json, judge_main, presubmit};

fn decorated(fields: &str) -> String {
    presubmit(&format!("name: a, decorate: true, {fields}, {POD}"))
}

/// Entries of decoration defaults before a job that has some of its own.
fn merged(entries: &[&str], own: &str) -> Value {
    let entries: String = entries
        .iter()
        .map(|entry| format!("  - {{{entry}}}\n"))
        .collect();
    let main = format!(
        "plank:\n  default_decoration_config_entries:\n  - config: {{utility_images: {{clonerefs: c, initupload: i, entrypoint: e, sidecar: s}}, gcs_configuration: {{bucket: b, path_strategy: explicit}}}}\n{entries}"
    );
    let jobs = decorated(&format!("decoration_config: {{{own}}}"));
    decoration(&[("config.yaml", &main), ("jobs/a.yaml", &jobs)])
}

/// CFG-060: both forms, and how the older one becomes the newer.
#[test]
fn cfg_060_two_forms_of_decoration_defaults() {
    let both = "plank: {default_decoration_configs: {'*': {timeout: 1h}}, default_decoration_config_entries: [{config: {timeout: 1h}}]}";
    judge_main(&[(both, "mutually exclusive")]);
    let older = "plank: {default_decoration_configs: {z/r: {timeout: 1h}, a: {timeout: 1h}, '*': {timeout: 1h}, a/b: {timeout: 1h}, z: {timeout: 1h}}}";
    let config = accepted(&[("config.yaml", older)]);
    let keys: Vec<_> = config
        .prow
        .plank
        .decoration_defaults
        .iter()
        .map(|e| e.repo.as_str())
        .collect();
    assert_eq!(keys, ["*", "a", "z", "a/b", "z/r"]);
}

/// CFG-061: which entries are meant for a repository and a cluster.
#[test]
fn cfg_061_entries_match_by_equality() {
    for (entry_repo, entry_cluster, repo, cluster, expected) in [
        ("", "", "o/r", "c", true),
        ("*", "*", "o/r", "c", true),
        ("o", "", "o/r", "c", true),
        ("o/r", "c", "o/r", "c", true),
        ("o/r", "d", "o/r", "c", false),
        ("o/s", "", "o/r", "c", false),
        ("o/.*", "", "o/r", "c", false),
        (".*", "", "o/r", "c", false),
        ("O", "", "o/r", "c", false),
        ("", "*", "", "c", true),
        ("o", "", "", "c", false),
        (
            "host.example/r",
            "",
            "https://host-review.example/r",
            "c",
            true,
        ),
        (
            "host.example",
            "",
            "http://host-review.example/r",
            "c",
            true,
        ),
        (
            "https://host-review.example/r",
            "",
            "https://host-review.example/r",
            "c",
            true,
        ),
    ] {
        assert_eq!(
            plank::matches(entry_repo, entry_cluster, repo, cluster),
            expected,
            "{entry_repo} {entry_cluster} {repo} {cluster}"
        );
    }
}

/// CFG-062: which repository and which cluster a job has when its defaults are looked for.
#[test]
fn cfg_062_what_defaults_are_looked_up_by() {
    let main = "plank:\n  default_decoration_config_entries:\n  - config: {utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}, gcs_configuration: {bucket: b, path_strategy: explicit}, timeout: 1h}\n  - {repo: o/r, config: {timeout: 2h}}\n  - {repo: e/x, config: {timeout: 3h}}\n  - {cluster: build, config: {grace_period: 9s}}\n";
    let jobs = format!(
        "postsubmits: {{o/r: [{{name: p, decorate: true, extra_refs: [{{org: e, repo: x, base_ref: m}}], {POD}}}]}}\n\
         periodics:\n- {{name: a, interval: 1h, decorate: true, extra_refs: [{{org: e, repo: x, base_ref: m}}, {{org: o, repo: r, base_ref: m}}], {POD}}}\n- {{name: b, interval: 1h, decorate: true, cluster: build, {POD}}}\n"
    );
    let config = accepted(&[("config.yaml", main), ("jobs/a.yaml", &jobs)]);
    let of = |decoration: Option<&trireme_prowjob::DecorationConfig>| {
        let found = json(decoration);
        [found["timeout"].clone(), found["grace_period"].clone()]
    };
    assert_eq!(
        of(config.jobs.postsubmits["o/r"][0].base.decoration()),
        [json!("2h0m0s"), Value::Null]
    );
    assert_eq!(
        of(config.periodic("a").unwrap().base.decoration()),
        [json!("3h0m0s"), Value::Null]
    );
    assert_eq!(
        of(config.periodic("b").unwrap().base.decoration()),
        [json!("1h0m0s"), json!("9s")]
    );
}

/// CFG-063: later entries over earlier ones, the job over all.
#[test]
fn cfg_063_later_layers_win() {
    let entries = [
        "config: {timeout: 1h, grace_period: 1s}",
        "repo: o, config: {timeout: 2h, run_as_user: 1}",
        "repo: other, config: {timeout: 9h}",
    ];
    let found = merged(&entries, "grace_period: 5s");
    assert_eq!(
        [
            &found["timeout"],
            &found["grace_period"],
            &found["run_as_user"]
        ],
        [&json!("2h0m0s"), &json!("5s"), &json!(1)]
    );
}

/// CFG-064: unset inherits; of texts and lists some count as set when they are empty.
#[test]
fn cfg_064_what_counts_as_set() {
    let entry = "config: {gcs_credentials_secret: g, s3_credentials_secret: s, default_service_account_name: d, cookiefile_secret: c, ssh_key_secrets: [k], ssh_host_fingerprints: [f], github_api_endpoints: [e], github_app_id: i, sparse_checkout_files: [x]}";
    let empty = "gcs_credentials_secret: '', s3_credentials_secret: '', default_service_account_name: '', cookiefile_secret: '', ssh_key_secrets: [], ssh_host_fingerprints: [], github_api_endpoints: [], github_app_id: '', sparse_checkout_files: []";
    let found = merged(&[entry], empty);
    for field in [
        "gcs_credentials_secret",
        "s3_credentials_secret",
        "default_service_account_name",
        "cookiefile_secret",
    ] {
        assert_eq!(found[field], "", "{field}");
    }
    for (field, value) in [
        ("ssh_key_secrets", "k"),
        ("ssh_host_fingerprints", "f"),
        ("github_api_endpoints", "e"),
        ("sparse_checkout_files", "x"),
    ] {
        assert_eq!(found[field], json!([value]), "{field}");
    }
    assert_eq!(found["github_app_id"], "i");
    let found = merged(&[entry], "timeout: 1h");
    assert_eq!(found["gcs_credentials_secret"], "g");
}

/// CFG-065: which fields are merged field by field, and which inherit whole.
#[test]
fn cfg_065_what_is_merged_and_what_inherits_whole() {
    let entry = "config: {utility_images: {sidecar: own}, gcs_configuration: {path_prefix: p}, censoring_options: {minimum_secret_length: 3}, \
                 resources: {sidecar: {requests: {cpu: 1}, limits: {cpu: 2}}, clonerefs: {requests: {cpu: 3}}}, github_app_private_key_secret: {name: app, key: k}, scheduling_options: {tolerations: [{key: t}]}}";
    let own = "utility_images: {clonerefs: mine}, gcs_configuration: {bucket: mine}, censoring_options: {censoring_concurrency: 4}, \
               resources: {sidecar: {requests: {cpu: 9}}}, github_app_private_key_secret: {name: mine}, scheduling_options: {affinity: {}}";
    let found = merged(&[entry], own);
    assert_eq!(
        found["utility_images"],
        json!({"clonerefs": "mine", "initupload": "i", "entrypoint": "e", "sidecar": "own"})
    );
    assert_eq!(
        found["gcs_configuration"],
        json!({"bucket": "mine", "path_prefix": "p", "path_strategy": "explicit"})
    );
    assert_eq!(
        found["censoring_options"],
        json!({"censoring_concurrency": 4, "minimum_secret_length": 3})
    );
    assert_eq!(
        found["resources"],
        json!({"sidecar": {"requests": {"cpu": "9"}}, "clonerefs": {"requests": {"cpu": "3"}}})
    );
    assert_eq!(
        found["github_app_private_key_secret"],
        json!({"name": "mine"})
    );
    assert_eq!(
        found["scheduling_options"]["tolerations"],
        json!([{"key": "t"}])
    );
}

/// CFG-066, CFG-067: media types are a union in which the job's own win; empty lists that are set inherit nothing.
#[test]
fn cfg_066_unions_and_empty_lists() {
    let entry = "config: {gcs_configuration: {mediaTypes: {log: text/plain, txt: text/plain}, compress_file_types: [txt]}, censoring_options: {include_directories: [a], exclude_directories: [b]}}";
    let own = "gcs_configuration: {mediaTypes: {log: text/html, svg: image/svg+xml}, compress_file_types: []}, censoring_options: {include_directories: [], exclude_directories: []}";
    let found = merged(&[entry], own);
    assert_eq!(
        found["gcs_configuration"]["mediaTypes"],
        json!({"log": "text/html", "txt": "text/plain", "svg": "image/svg+xml"})
    );
    for list in [
        &found["gcs_configuration"]["compress_file_types"],
        &found["censoring_options"]["include_directories"],
        &found["censoring_options"]["exclude_directories"],
    ] {
        assert!(list.as_array().is_none_or(Vec::is_empty), "{list}");
    }
    let found = merged(&[entry], "timeout: 1h");
    assert_eq!(
        found["gcs_configuration"]["compress_file_types"],
        json!(["txt"])
    );
}

/// CFG-068: what jobs carry along, and whose tenant they are.
#[test]
fn cfg_068_prowjob_defaults() {
    let main = "prowjob_default_entries:\n- config: {tenant_id: all, resultstore_config: {project_id: p}}\n- {repo: o/r, cluster: build, config: {tenant_id: narrow}}\n";
    let jobs = format!(
        "presubmits:\n  o/r:\n  - {{name: a, {POD}}}\n  - {{name: b, cluster: build, {POD}}}\n  - {{name: c, prowjob_defaults: {{tenant_id: own}}, {POD}}}\n"
    );
    let found = |main: &str| {
        let config = accepted(&[("config.yaml", main), ("jobs/a.yaml", &jobs)]);
        let of = |n: usize| {
            serde_json::to_value(&config.jobs.presubmits["o/r"][n].base.prowjob_defaults).unwrap()
        };
        (config.clone(), [of(0), of(1), of(2)])
    };
    let (config, [a, b, c]) = found(main);
    let store = json!({"project_id": "p"});
    assert_eq!(a, json!({"resultstore_config": store, "tenant_id": "all"}));
    assert_eq!(
        b,
        json!({"resultstore_config": store, "tenant_id": "narrow"})
    );
    assert_eq!(c, json!({"resultstore_config": store, "tenant_id": "own"}));
    // Tide asks for any cluster, which an entry for one does not answer.
    assert_eq!(
        config.prow.prowjob_default("o/r", "*", None).tenant_id,
        "all"
    );
    let (_, [a, ..]) = found("");
    assert_eq!(a, json!({"tenant_id": "GlobalDefaultID"}));
}

/// CFG-069: who may rerun.
#[test]
fn cfg_069_rerun_auth() {
    judge_main(&[
        (
            "deck: {rerun_auth_configs: {'*': {allow_anyone: true}}, default_rerun_auth_configs: [{rerun_auth_configs: {allow_anyone: true}}]}",
            "mutually exclusive",
        ),
        (
            "deck: {rerun_auth_configs: {'*': {allow_anyone: true, github_users: [a]}}}",
            "allow anyone is set to true and permitted users or groups are specified",
        ),
        (
            "deck: {rerun_auth_configs: {'*': {allow_anyone: true}}}",
            "",
        ),
    ]);
    let users = |main: &str, repo: &str| {
        let config = accepted(&[("config.yaml", main)]);
        let (org, repo) = repo.split_once('/').unwrap();
        let spec: trireme_prowjob::ProwJobSpec = serde_json::from_value(json!({
            "type": "presubmit", "job": "j", "cluster": "default", "refs": {"org": org, "repo": repo},
        }))
        .unwrap();
        config
            .prow
            .deck
            .rerun_auth_for(&spec)
            .map(|auth| auth.github_users.clone())
            .unwrap_or_default()
    };
    let map = "deck: {rerun_auth_configs: {o/r: {github_users: [repo]}, '*': {github_users: [all]}, o: {github_users: [org], github_orgs: [x]}}}";
    assert_eq!(
        [users(map, "o/r"), users(map, "o/s"), users(map, "x/y")],
        [["repo"], ["org"], ["all"]]
    );
    // The last entry that matches counts as a whole.
    let list = "deck: {default_rerun_auth_configs: [{repo: o/r, rerun_auth_configs: {github_users: [repo]}}, {rerun_auth_configs: {github_users: [all]}}]}";
    assert_eq!(users(list, "o/r"), ["all"]);
}

/// CFG-070, CFG-103: who is decorated, and what stands in the job afterwards.
#[test]
fn cfg_070_cfg_103_decorate() {
    let of = |main: &str, fields: &str| {
        let (main, jobs) = (
            format!("{main}\n{DECORATION}"),
            presubmit(&format!("name: a, {fields}{POD}")),
        );
        let config = accepted(&[("config.yaml", &main), ("jobs/a.yaml", &jobs)]);
        let base = &config.jobs.presubmits["o/r"][0].base;
        (base.utility.decorate, base.decoration().is_some())
    };
    let all = "decorate_all_jobs: true";
    assert_eq!(of("", ""), (Some(false), false));
    assert_eq!(of("", "decorate: true, "), (Some(true), true));
    assert_eq!(of(all, ""), (Some(true), true));
    assert_eq!(of(all, "decorate: false, "), (Some(false), false));
    // A configuration of its own decorates without the word, takes no defaults, and must be whole.
    let own = |decorate: &str| {
        presubmit(&format!(
            "name: a, {decorate}decoration_config: {{timeout: 1h}}, {POD}"
        ))
    };
    for decorate in ["", "decorate: false, "] {
        let found = errors(&[("config.yaml", DECORATION), ("jobs/a.yaml", &own(decorate))]);
        assert!(
            found[0].contains("invalid decoration config: utility image config is not specified"),
            "{found:?}"
        );
    }
    let whole = "decorate: false, decoration_config: {utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}, gcs_configuration: {bucket: own, path_strategy: explicit}}, ";
    assert_eq!(of("", whole), (Some(false), true));
}
