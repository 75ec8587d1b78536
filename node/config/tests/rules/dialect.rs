//! The text dialect (section 2), and the traps that real files hold.

use serde_json::{Value, json};
use trireme_config::{Rule, Template, yaml};
use trireme_prowjob::ProwJob;

use crate::stage::{POD, accepted, errors, judge, judge_main, load, presubmit};

fn read(text: &str) -> Value {
    match yaml::parse(text.as_bytes()) {
        Ok(document) => document.root.to_json().unwrap(),
        Err(e) => json!(e.to_string()),
    }
}

/// CFG-020: what YAML 1.1 reads differently from 1.2, as real files have it.
#[test]
fn cfg_020_traps_of_yaml_1_1() {
    let cases = [
        ("a: 0400", json!({"a": 256})),
        ("a: 0o17", json!({"a": 15})),
        ("a: 08", json!({"a": 8})),
        ("a: 0x10", json!({"a": 16})),
        ("a: 1_000", json!({"a": 1000})),
        ("a: yes", json!({"a": true})),
        ("a: Off", json!({"a": false})),
        ("a: n", json!({"a": false})),
        ("a: 'yes'", json!({"a": "yes"})),
        ("a: yEs", json!({"a": "yEs"})),
        ("a: 12:30", json!({"a": "12:30"})),
        ("a: 2026-01-01", json!({"a": "2026-01-01"})),
        (
            "a: 2001-12-14t21:59:43.10-05:00",
            json!({"a": "2001-12-14t21:59:43.10-05:00"}),
        ),
        ("a: 1.10", json!({"a": 1.1})),
        ("a: ~\nb:", json!({"a": null, "b": null})),
        ("a: !!str 1", json!({"a": "1"})),
        (
            "1: a\ntrue: b\n1.5: c",
            json!({"1": "a", "true": "b", "1.5": "c"}),
        ),
        (
            "a: {b: [c, 'd'], \"e\": |\n  x\n}",
            json!("yaml: line 1: while parsing a flow mapping, did not find expected ',' or '}'"),
        ),
        (
            "a: |\n  x\n\n  y\nb: >-\n  x\n  y\n\n  z\n",
            json!({"a": "x\n\ny\n", "b": "x y\nz"}),
        ),
        ("a: |2-\n    x\n", json!({"a": "  x"})),
    ];
    for (text, expected) in cases.iter().filter(|(text, _)| !text.contains("\"e\"")) {
        assert_eq!(&read(text), expected, "{text}");
    }
}

/// CFG-020: what the traps mean where they stand: modes of files, quantities, keys that are no texts, quotes, patterns.
#[test]
fn cfg_020_traps_in_their_places() {
    let jobs = "presubmits:\n  o/r:\n  - name: a\n    spec:\n      containers:\n      - image: i\n        args: [\"a\\tb\\u00e9\", 'it''s', \"yes\", '0400', \"{{x}}\"]\n        resources: {requests: {cpu: 4, memory: 0.5}, limits: {cpu: 500m}}\n      volumes:\n      - {name: v, secret: {secretName: s, defaultMode: 0400, items: [{key: k, path: p, mode: 0555}]}}\n      - {name: w, configMap: {name: c, defaultMode: 256}}\n";
    let loaded = load(&[("jobs/a.yaml", jobs)]);
    assert_eq!((&loaded.errors, loaded.warnings.len()), (&vec![], 0));
    let spec = loaded.config.jobs.presubmits["o/r"][0]
        .base
        .spec
        .as_ref()
        .unwrap()
        .value();
    assert_eq!(
        spec["volumes"][0]["secret"],
        json!({"secretName": "s", "items": [{"key": "k", "path": "p", "mode": 365}], "defaultMode": 256})
    );
    assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 256);
    assert_eq!(
        spec["containers"][0]["args"],
        json!(["a\tbé", "it's", "yes", "0400", "{{x}}"])
    );
    assert_eq!(
        spec["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "4", "memory": "500m"}})
    );
    // A pattern that was not filled is no YAML, and says where.
    let pattern = "presubmits:\n{{range .}}\n  o/r: []\n{{end}}\n";
    let found = errors(&[("jobs/a.yaml", pattern)]);
    assert!(
        found[0].starts_with("error unmarshalling: yaml: line "),
        "{found:?}"
    );
    // What Prow no longer reads is unknown; an agent that it does not know runs nowhere.
    let former = format!(
        "presubmits: {{o/r: [{{name: a, agent: knative-build, build_spec: {{}}, timeout: 1h, decorate_config: {{}}, karpenter.sh/do-not-disrupt: 'true'}}, {{name: b, {POD}}}]}}"
    );
    let loaded = load(&[
        ("jobs/a.yaml", &former),
        (
            "config.yaml",
            "plank: {allow_cancellations: true}\nowners_dir_blacklist: {}\n",
        ),
    ]);
    assert_eq!((loaded.errors.len(), loaded.warnings.len()), (0, 6));
}

/// CFG-020: anchors, aliases and merge keys; a merge gives way to what is written.
#[test]
fn cfg_020_anchors_aliases_and_merge_keys() {
    let text = "base: &base {a: 1, b: [x]}\none: *base\ntwo:\n  <<: *base\n  a: 2\nthree:\n  <<: [{a: 3}, *base]\n";
    let found = read(text);
    assert_eq!(found["one"], json!({"a": 1, "b": ["x"]}));
    assert_eq!(found["two"], json!({"a": 2, "b": ["x"]}));
    assert_eq!(found["three"], json!({"a": 3, "b": ["x"]}));
    assert_eq!(
        read("a: &a x\nb: &a z\nc: *a"),
        json!({"a": "x", "b": "z", "c": "z"})
    );
    assert!(
        read("a: *b").as_str().unwrap().contains("unknown anchor"),
        "{}",
        read("a: *b")
    );
    // Scratch keys that only hold anchors are unknown, and no more than that.
    let main = ".global: &g {orgs: [a]}\ntide: {queries: [*g]}\n";
    let loaded = load(&[("config.yaml", main)]);
    assert_eq!((loaded.errors.len(), loaded.warnings.len()), (0, 1));
    assert_eq!(loaded.config.prow.tide.queries[0].orgs, ["a"]);
}

/// CFG-020: how lines end, how a file begins and ends, and what stands between.
#[test]
fn cfg_020_lines_tabs_marks_and_several_documents() {
    for (text, expected) in [
        ("a: 1\r\nb:\r\n- c\r\n", json!({"a": 1, "b": ["c"]})),
        ("a: |\r\n  x\r\n  y\r\n", json!({"a": "x\ny\n"})),
        ("\u{feff}a: 1", json!({"a": 1})),
        ("", json!(null)),
        ("# only a comment", json!(null)),
        ("---\n", json!(null)),
        ("---\na: 1\n---\nb: [\n", json!({"a": 1})),
        ("---\na: 1\n...\nb: 2\n", json!({"a": 1})),
        ("a: 1\t\nb: 2 \t# x\n", json!({"a": 1, "b": 2})),
        ("a: 'x\ty'", json!({"a": "x\ty"})),
        ("a: größe # ✓\nb: 日本", json!({"a": "größe", "b": "日本"})),
        ("a: 1   \n\n\n", json!({"a": 1})),
    ] {
        assert_eq!(read(text), expected, "{text:?}");
    }
    assert!(read("a:\n\tb: 1").is_string());
    assert!(read("\ta: 1").is_string());
    assert!(read("a: \u{1}").is_string());
    assert!(read("a: b: c").is_string());
    // An empty file is a file of its kind.
    assert_eq!(
        accepted(&[("config.yaml", ""), ("jobs/a.yaml", "\u{feff}")]).job_counts(),
        (0, 0, 0)
    );
}

/// CFG-022: integral floats are integers, quoted ones are not; null is nothing, and an empty list is a list.
#[test]
fn cfg_022_numbers_nulls_and_empty_lists() {
    let size = |text: &str| {
        let main = format!("deck: {{spyglass: {{size_limit: {text}}}}}");
        load(&[("config.yaml", &main)])
            .accepted()
            .map(|(config, _)| config.prow.deck.spyglass.size_limit)
    };
    assert_eq!(size("500e+6").unwrap(), 500_000_000);
    assert_eq!(size("1.5e3").unwrap(), 1500);
    assert_eq!(size("null").unwrap(), 100_000_000);
    assert!(size("1.5").is_err() && size("'5'").is_err() && size("true").is_err());
    judge_main(&[
        (
            "decorate_all_jobs: 'true'",
            "cannot use a string as a boolean",
        ),
        ("decorate_all_jobs: 1", "cannot use a number as a boolean"),
        (
            "plank: {max_concurrency: 99999999999999999999}",
            "is no integer of 64 bits",
        ),
        (
            "tide: {queries: null, merge_method: null}\npresubmits: {o/r: null}\nperiodics: null",
            "",
        ),
    ]);
    // CFG-066, JOB-074: an empty list blocks what would be inherited.
    let slack = |list: &str| {
        let main = format!("slack_reporter_configs: {{'*': {{channel: c, {list}}}}}");
        accepted(&[("config.yaml", &main)])
            .prow
            .slack_reporter_configs["*"]
            .job_states_to_report
            .clone()
    };
    assert_eq!(slack("host: h"), None);
    assert_eq!(slack("job_states_to_report: null"), None);
    assert_eq!(slack("job_states_to_report: []"), Some(Vec::new()));
}

/// CFG-023: names without case, an exact one first; also in the environment and in the pod.
#[test]
fn cfg_023_names_match_without_case() {
    let main = "plank: {jobURLPrefixDisableAppendStorageProvider: true}\nLOG_LEVEL: debug\nTide: {Queries: [{Orgs: [a]}]}\n";
    let config = accepted(&[("config.yaml", main)]);
    assert!(
        config
            .prow
            .plank
            .job_url_prefix_disable_append_storage_provider
    );
    assert_eq!(
        (
            config.prow.log_level.as_str(),
            config.prow.tide.queries.len()
        ),
        ("debug", 1)
    );
    let jobs = "presubmits:\n  o/r:\n  - NAME: a\n    always_Run: true\n    spec:\n      serviceaccountName: s\n      containers: [{image: i, env: [{NAME: A, value: b}]}]\n";
    let loaded = load(&[("jobs/a.yaml", jobs)]);
    assert_eq!((loaded.errors.len(), loaded.warnings.len()), (0, 0));
    let job = &loaded.config.jobs.presubmits["o/r"][0];
    assert!(job.always_run);
    let spec = job.base.spec.as_ref().unwrap().value();
    assert_eq!(spec["serviceAccountName"], "s");
    assert_eq!(
        spec["containers"][0]["env"],
        json!([{"name": "A", "value": "b"}])
    );
    // Keys of maps are no names of fields.
    let labels = accepted(&[(
        "jobs/a.yaml",
        &presubmit(&format!("name: a, labels: {{X: a, x: b}}, {POD}")),
    )]);
    assert_eq!(labels.jobs.presubmits["o/r"][0].base.labels.len(), 2);
}

/// CFG-024: nobody reads unknown fields, and that is told; what is decoded by hand is not looked into.
#[test]
fn cfg_024_unknown_fields_are_warnings() {
    let main = "nonsense: 1\ntide: {merge_method: {o: {r: {main: squash}}}, querys: []}\nbranch-protection: {orgs: {o: {protectt: true}}}\n";
    let loaded = load(&[
        ("config.yaml", main),
        ("sup/a_prowconfig.yaml", "tide: {querys: []}"),
        (
            "plugins.yaml",
            "config_updater: {maps: {a: {name: b, anything: 1}}}\nnothing: 1\n",
        ),
    ]);
    assert_eq!(loaded.errors, []);
    let unknown: Vec<_> = loaded
        .warnings
        .iter()
        .map(|w| (w.rule, w.file.as_str(), w.field.as_str()))
        .collect();
    let of = |file, field| (Rule::UnknownField, file, field);
    assert_eq!(
        unknown,
        [
            of("config.yaml", "nonsense"),
            of("config.yaml", "tide.querys"),
            of("config.yaml", "branch-protection.orgs.o.protectt"),
            of("plugins.yaml", "nothing"),
            of("sup/a_prowconfig.yaml", "tide.querys"),
        ]
    );
}

/// CFG-025: the last of equal keys counts. CFG-026: that there is another is told.
#[test]
fn cfg_025_the_last_of_equal_keys_counts() {
    let loaded = load(&[("config.yaml", "log_level: info\nlog_level: debug\n")]);
    assert_eq!(
        (loaded.errors.len(), loaded.config.prow.log_level.as_str()),
        (0, "debug")
    );
    assert_eq!(loaded.warnings[0].rule, Rule::DuplicateKey);
}

/// CFG-027: integers are nanoseconds for two fields, and nothing for the others.
#[test]
fn cfg_027_integers_as_durations() {
    let decorated = |fields: &str| {
        presubmit(&format!(
            "name: a, decorate: true, decoration_config: {{{fields}}}, {POD}"
        ))
    };
    let timeout = |fields: &str| {
        let jobs = decorated(fields);
        let config = load(&[
            ("config.yaml", crate::stage::DECORATION),
            ("jobs/a.yaml", &jobs),
        ])
        .config;
        let own = config.jobs.presubmits["o/r"][0]
            .base
            .decoration()
            .unwrap()
            .clone();
        (
            own.timeout.map(|d| d.to_string()),
            own.grace_period.map(|d| d.to_string()),
        )
    };
    assert_eq!(
        timeout("timeout: 1, grace_period: 14400000000000"),
        (Some("1ns".into()), Some("4h0m0s".into()))
    );
    assert_eq!(
        timeout("timeout: 24h, grace_period: 1m30s"),
        (Some("24h0m0s".into()), Some("1m30s".into()))
    );
    judge_main(&[
        (
            "sinker: {resync_period: 5}",
            "cannot use a number as a duration",
        ),
        ("sinker: {resync_period: 5x}", "unknown unit"),
        ("sinker: {resync_period: '5'}", "missing unit"),
        ("sinker: {resync_period: 1h2m3s4ms5us6ns}", ""),
    ]);
    judge(
        &[(
            "pod_pending_timeout: 5",
            "cannot use a number as a duration",
        )],
        |fields| errors(&[("jobs/a.yaml", &decorated(fields))]),
    );
}

/// CFG-030: anything at all, wherever it may stand.
#[test]
fn cfg_030_prow_ignored_holds_anything() {
    let text = "prow_ignored:\n  a: &x [1, {b: c}]\n  b: *x\n";
    let loaded = load(&[("config.yaml", text), ("jobs/a.yaml", text)]);
    assert_eq!((loaded.errors, loaded.warnings), (vec![], vec![]));
}

/// CFG-031: an empty file prints as its defaults and nothing else.
#[test]
fn cfg_031_an_empty_configuration_prints_its_defaults() {
    let value = serde_json::to_value(accepted(&[]).as_ref()).unwrap();
    // By their names, as YAML is written.
    let sorted: std::collections::BTreeMap<String, Value> = serde_json::from_value(value).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&sorted).unwrap(), @r#"
    {
      "branch-protection": {},
      "deck": {
        "spyglass": {
          "size_limit": 100000000,
          "gcs_browser_prefixes": {
            "*": ""
          },
          "gcs_browser_prefixes_by_bucket": {
            "*": ""
          }
        },
        "tide_update_period": "10s"
      },
      "default_job_timeout": "24h0m0s",
      "gangway": {},
      "gerrit": {
        "tick_interval": "1m0s",
        "ratelimit": 5
      },
      "github": {
        "link_url": "https://github.com"
      },
      "github_reporter": {
        "job_types_to_report": [
          "presubmit",
          "postsubmit"
        ]
      },
      "horologium": {},
      "in_repo_config": {
        "allowed_clusters": {
          "*": [
            "default"
          ]
        }
      },
      "log_level": "info",
      "managed_webhooks": {
        "respect_legacy_global_token": false,
        "auto_accept_invitation": false
      },
      "moonraker": {
        "client_timeout": "10m0s"
      },
      "pipeline": {},
      "plank": {
        "max_goroutines": 20,
        "pod_pending_timeout": "10m0s",
        "pod_running_timeout": "48h0m0s",
        "pod_unscheduled_timeout": "5m0s",
        "max_revivals": 3
      },
      "pod_namespace": "default",
      "prowjob_namespace": "default",
      "push_gateway": {
        "interval": "1m0s",
        "serve_metrics": false
      },
      "scheduler": {},
      "sinker": {
        "resync_period": "1h0m0s",
        "max_prowjob_age": "168h0m0s",
        "max_pod_age": "24h0m0s",
        "terminated_pod_ttl": "24h0m0s"
      },
      "status_error_link": "https://github.com/kubernetes/test-infra/issues",
      "tide": {
        "sync_period": "1m0s",
        "max_goroutines": 20,
        "status_update_period": "1m0s",
        "context_options": {}
      }
    }
    "#);
}

/// CFG-029: what text/template has and links use; what is unset is no failure where Go has none.
#[test]
fn cfg_029_templates_as_go_executes_them() {
    let job: ProwJob = serde_json::from_value(json!({
        "spec": {"type": "periodic", "job": "j", "extra_refs": [{"org": "o", "repo": "r"}]}, "status": {"state": "success"},
    }))
    .unwrap();
    let render =
        |text: &str| match Template::parse(text).and_then(|template| template.for_job(&job)) {
            Ok(text) => text,
            Err(e) => format!("! {e}"),
        };
    for (text, expected) in [
        ("{{.Spec.Job}}-{{.Status.State}}", "j-success"),
        (
            "{{if .Spec.Refs}}a{{else if eq .Spec.Type \"periodic\" \"batch\"}}b{{else}}c{{end}}",
            "b",
        ),
        ("{{with .Spec.Refs}}{{.Org}}{{else}}none{{end}}", "none"),
        (
            "{{range $n, $r := .Spec.ExtraRefs}}{{$n}}:{{$r.Org}}/{{.Repo}}{{end}}",
            "0:o/r",
        ),
        ("{{(index .Spec.ExtraRefs 0).Org}}", "o"),
        (
            "{{printf \"%s-%05d|%-4s|%q\" .Spec.Job 42 \"x\" \"y\"}}",
            "j-00042|x   |\"y\"",
        ),
        (
            "{{and .Spec.Job (or .Spec.Cluster \"d\") | print \"x\"}}",
            "xd",
        ),
        ("{{- /* c */ -}} a {{- \"b\" }}", "ab"),
        (
            "{{ne .Spec.Job \"k\"}}{{not true}}{{len .Spec.ExtraRefs}}",
            "truefalse1",
        ),
        ("{{.Spec.Refs.Org}}", "! nil pointer evaluating Refs.Org"),
        (
            "{{.Spec.Nope}}",
            "! can't evaluate field Nope in type ProwJobSpec",
        ),
        ("{{template \"x\"}}", "! template \"x\" not defined"),
    ] {
        assert_eq!(render(text), expected, "{text}");
    }
}
