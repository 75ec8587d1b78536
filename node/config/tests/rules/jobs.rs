//! Job definitions: their fields, presets and what is refused (section 9).

use serde_json::{Value, json};

use crate::stage::{DECORATION, POD, accepted, errors, judge, load, presubmit};

/// Each body of a presubmit's fields, and a part of its first error. `{POD}` and `{DEC}` stand for a pod and decoration.
fn judge_presubmits(cases: &[(&str, &str)]) {
    judge(cases, |fields| {
        let fields = fields
            .replace("{POD}", POD)
            .replace("{DEC}", "decorate: true");
        let main = format!("{DECORATION}  job_queue_capacities: {{q: 1}}\n");
        errors(&[("config.yaml", &main), ("jobs/a.yaml", &presubmit(&fields))])
    });
}

/// JOB-001: names, limits, queues, and what all kinds of jobs get by default.
#[test]
fn job_001_names_limits_and_defaults() {
    judge_presubmits(&[
        ("name: a-b.c_D9, {POD}", ""),
        ("name: '', {POD}", "name: must match regex"),
        ("name: a/b, {POD}", "name: must match regex"),
        ("name: a/b, agent: jenkins", ""),
        ("name: a/, agent: jenkins", "name: must match regex"),
        ("name: a., agent: jenkins", "name: must match regex"),
        ("name: ., agent: jenkins", ""),
        (
            "name: a, max_concurrency: -1, {POD}",
            "must be a non-negative number",
        ),
        ("name: a, job_queue_name: q, {POD}", ""),
        (
            "name: a, job_queue_name: other, {POD}",
            "invalid job queue name other",
        ),
        ("name: a, agent: something-else", ""),
    ]);
    let jobs = presubmit(&format!(
        "name: a, hidden: true, error_on_eviction: true, {POD}"
    ));
    let base = &accepted(&[("jobs/a.yaml", &jobs)]).jobs.presubmits["o/r"][0].base;
    assert_eq!(
        (
            base.agent.as_str(),
            base.cluster.as_str(),
            base.namespace.as_deref(),
            base.max_concurrency
        ),
        ("kubernetes", "default", Some("default"), 0)
    );
    assert!(base.hidden && base.error_on_eviction);
}

/// JOB-002, JOB-003, JOB-004, JOB-007: the fields of each kind as they are read and printed.
#[test]
fn job_002_003_004_007_fields_of_each_kind() {
    let jobs = format!(
        "presubmits: {{o/r: [{{name: a, run_if_changed: x, optional: true, trigger: '/go', rerun_command: /go, branches: [b], skip_branches: [s], context: c, skip_report: true, run_before_merge: true, jenkins_spec: {{github_branch_source_job: true}}, {POD}}}]}}\n\
         postsubmits: {{o/r: [{{name: b, branches: [b], skip_branches: [s], skip_if_only_changed: z, always_run: false, context: c, skip_report: true, jenkins_spec: {{}}, {POD}}}]}}\n\
         periodics: [{{name: c, cron: '@daily', tags: [1, true, x], retry: {{run_all: true, attempts: 3, interval: 5m}}, {POD}}}]\n"
    );
    let loaded = load(&[("jobs/a.yaml", &jobs)]);
    assert_eq!(
        (loaded.errors.len(), loaded.warnings.len()),
        (0, 0),
        "{:?}",
        loaded.errors
    );
    let jobs = &loaded.config.jobs;
    let printed = |value: Value, fields: &[&str]| -> Vec<Value> {
        fields.iter().map(|field| value[*field].clone()).collect()
    };
    let a = serde_json::to_value(jobs.presubmits["o/r"][0].as_ref()).unwrap();
    assert_eq!(
        printed(
            a,
            &[
                "always_run",
                "run_if_changed",
                "optional",
                "trigger",
                "rerun_command",
                "branches",
                "skip_branches",
                "context",
                "skip_report",
                "run_before_merge",
                "jenkins_spec"
            ]
        ),
        [
            json!(false),
            json!("x"),
            json!(true),
            json!("/go"),
            json!("/go"),
            json!(["b"]),
            json!(["s"]),
            json!("c"),
            json!(true),
            json!(true),
            json!({"github_branch_source_job": true})
        ]
    );
    let b = serde_json::to_value(jobs.postsubmits["o/r"][0].as_ref()).unwrap();
    assert_eq!(
        printed(
            b,
            &[
                "always_run",
                "skip_if_only_changed",
                "branches",
                "skip_branches",
                "context",
                "skip_report"
            ]
        ),
        [
            json!(false),
            json!("z"),
            json!(["b"]),
            json!(["s"]),
            json!("c"),
            json!(true)
        ]
    );
    let c = serde_json::to_value(jobs.periodics[0].as_ref()).unwrap();
    assert_eq!(
        printed(c, &["cron", "tags", "retry"]),
        [
            json!("@daily"),
            json!(["1", "true", "x"]),
            json!({"run_all": true, "attempts": 3, "interval": "5m"})
        ]
    );
}

/// JOB-005, JOB-006: whom a preset is for, and what it adds.
#[test]
fn job_005_006_presets() {
    let presets = "presets:\n- labels: {e: f, c: d}\n  env: [{name: BOTH, value: x}]\n- labels: {a: b}\n  env: [{name: ONE}]\n  volumes: [{name: v, emptyDir: {}}]\n  volumeMounts: [{name: v, mountPath: /v}]\n  tolerations: [{key: t}]\n- env: [{name: ALL}]\n";
    let pod = "spec: {containers: [{name: x, image: i, command: [c], env: [{name: OWN}]}, {name: z, image: i, command: [c]}], tolerations: [{key: own}]}";
    let spec = |labels: &str| {
        let jobs = presubmit(&format!(
            "name: a, decorate: true, labels: {{{labels}}}, {pod}"
        ));
        let config = accepted(&[
            ("config.yaml", &format!("{presets}{DECORATION}")),
            ("jobs/a.yaml", &jobs),
        ]);
        config.jobs.presubmits["o/r"][0]
            .base
            .spec
            .as_ref()
            .unwrap()
            .value()
    };
    let names = |spec: &Value, container: usize| -> Vec<String> {
        let env = spec["containers"][container]["env"].as_array().unwrap();
        env.iter()
            .map(|env| env["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let both = spec("a: b, c: d, e: f");
    assert_eq!(names(&both, 0), ["OWN", "BOTH", "ONE", "ALL"]);
    assert_eq!(names(&both, 1), ["BOTH", "ONE", "ALL"]);
    assert_eq!(
        both["containers"][1]["volumeMounts"],
        json!([{"name": "v", "mountPath": "/v"}])
    );
    assert_eq!(
        (&both["volumes"][0]["name"], &both["tolerations"]),
        (&json!("v"), &json!([{"key": "own"}, {"key": "t"}]))
    );
    assert_eq!(names(&spec("a: b"), 0), ["OWN", "ONE", "ALL"]);
    assert_eq!(names(&spec("a: other"), 0), ["OWN", "ALL"]);
    for (preset, expected) in [
        ("env: [{name: E}]", "env var duplicated in pod spec: E"),
        ("volumes: [{name: V}]", "volume duplicated in pod spec: V"),
        (
            "volumeMounts: [{name: M, mountPath: /m}]",
            "volume mount duplicated in pod spec: M",
        ),
        (
            "tolerations: [{key: T}]",
            "toleration duplicated in pod spec",
        ),
    ] {
        let main = format!("presets: [{{{preset}}}]");
        let jobs = presubmit(
            "name: a, spec: {containers: [{image: i, env: [{name: E}], volumeMounts: [{name: M, mountPath: /m}]}], volumes: [{name: V}, {name: M}], tolerations: [{key: T}]}",
        );
        let found = errors(&[("config.yaml", &main), ("jobs/a.yaml", &jobs)]);
        assert!(found[0].contains(expected), "{preset}: {found:?}");
    }
}

/// JOB-010, JOB-011: triggers and commands.
#[test]
fn job_010_011_triggers() {
    judge_presubmits(&[
        (
            "name: a, trigger: /x, {POD}",
            "rerun command \"\" does not match trigger \"/x\"",
        ),
        (
            "name: a, rerun_command: /x, {POD}",
            "either both of job.Trigger and job.RerunCommand must be set",
        ),
        (
            "name: a, trigger: '/x', rerun_command: '/z', {POD}",
            "rerun command \"/z\" does not match trigger \"/x\"",
        ),
        (
            "name: a, trigger: '[', rerun_command: '/z', {POD}",
            "could not compile trigger regex for a",
        ),
        (
            "name: a, trigger: '(?m)^/x( |$)', rerun_command: /x, {POD}",
            "",
        ),
    ]);
    let job = accepted(&[("jobs/a.yaml", &presubmit(&format!("name: a.b, {POD}")))])
        .jobs
        .presubmits["o/r"][0]
        .clone();
    assert_eq!(job.trigger, r"(?m)^/test( | .* )a.b,?($|\s.*)");
    assert_eq!(job.rerun_command, "/test a.b");
    for (comment, expected) in [
        ("/test a.b", true),
        ("hello\n/test a.b\nbye", true),
        ("/test x a.b, z", true),
        ("/test a.b\r\n", true),
        ("/test axb", true),
        (" /test a.b", false),
        ("/test a.b.c", false),
        ("/TEST a.b", false),
    ] {
        assert_eq!(job.trigger_matches(comment), expected, "{comment:?}");
    }
}

/// JOB-012: what excludes what.
#[test]
fn job_012_exclusions() {
    let cases = [
        (
            "always_run: true, run_if_changed: x",
            "set to always run but also declares run_if_changed",
            true,
        ),
        (
            "always_run: true, skip_if_only_changed: x",
            "set to always run but also declares skip_if_only_changed",
            true,
        ),
        (
            "run_if_changed: x, skip_if_only_changed: x",
            "mutually exclusive",
            true,
        ),
        ("always_run: false, run_if_changed: x", "", true),
        (
            "run_if_changed: '['",
            "could not compile run_if_changed regex",
            true,
        ),
        (
            "skip_if_only_changed: '['",
            "could not compile skip_if_only_changed regex",
            true,
        ),
        (
            "branches: ['[']",
            "could not compile positive branch regex",
            true,
        ),
        (
            "skip_branches: ['(']",
            "could not compile negative branch regex",
            true,
        ),
    ];
    for kind in ["presubmits", "postsubmits"] {
        for (fields, expected, _) in cases {
            let jobs = format!("{kind}: {{o/r: [{{name: a, {fields}, {POD}}}]}}\n");
            judge(&[((), expected)], |()| errors(&[("jobs/a.yaml", &jobs)]));
        }
    }
}

/// JOB-020, JOB-021, JOB-022, JOB-023: when periodics run.
#[test]
fn job_021_022_periodics() {
    let periodic = |fields: &str| format!("periodics: [{{name: a, {fields}, {POD}}}]\n");
    for (fields, expected) in [
        (
            "labels: {}",
            "at least one of cron, interval, or minimum_interval must be set",
        ),
        (
            "cron: '@daily', interval: 1h",
            "mutually exclusive in periodic",
        ),
        (
            "interval: 1h, minimum_interval: 1h",
            "mutually exclusive in periodic",
        ),
        (
            "cron: '* * * *'",
            "invalid cron string * * * * in periodic a",
        ),
        ("cron: '0 0 * * 7'", "invalid cron string"),
        ("cron: '0 0 6-18/2 ? * 1-5'", ""),
        ("cron: '@every 20m'", ""),
        ("cron: 'CRON_TZ=Europe/Berlin 0 5 * * MON'", ""),
        ("interval: 1x", "cannot parse duration for a"),
        ("minimum_interval: x", "cannot parse duration for a"),
        (
            "interval: 1h, retry: {interval: x}",
            "cannot parse Retry duration for a",
        ),
        (
            "interval: 1h, retry: {attempts: 2}",
            "cannot parse Retry duration for a",
        ),
    ] {
        judge(&[((), expected)], |()| {
            errors(&[("jobs/a.yaml", &periodic(fields))])
        });
    }
    let job = accepted(&[(
        "jobs/a.yaml",
        &periodic("interval: 2h, retry: {interval: 5m}"),
    )])
    .jobs
    .periodics[0]
        .clone();
    assert_eq!(
        (
            job.every.to_string(),
            job.retry.as_ref().unwrap().wait.to_string()
        ),
        ("2h0m0s".into(), "5m0s".into())
    );
}

/// JOB-030, JOB-031: equal names and contexts, on branches that meet.
#[test]
fn job_030_031_clashes() {
    let pair = |a: &str, b: &str, branches: [&str; 2]| {
        let job = |fields: &str, branches: &str| {
            let branches = if branches.is_empty() {
                String::new()
            } else {
                format!(", {branches}")
            };
            format!("  - {{{fields}{branches}, {POD}}}\n")
        };
        let list = job(a, branches[0]) + &job(b, branches[1]);
        ["presubmits", "postsubmits"]
            .map(|kind| errors(&[("jobs/a.yaml", &format!("{kind}:\n  o/r:\n{list}"))]))
    };
    let same = ("name: a", "name: a");
    let context = ("name: a, context: c", "name: b, context: c");
    for (branches, meet) in [
        (["", ""], true),
        (["", "branches: [x]"], true),
        (["branches: [x]", "branches: [x, z]"], true),
        (["branches: [x]", "branches: [z]"], false),
        // Lists are compared as they are written.
        (["branches: ['x.*']", "branches: [xz]"], false),
        (["branches: [x]", "skip_branches: [x]"], false),
        (["branches: [x, z]", "skip_branches: [x]"], true),
        (["skip_branches: [x]", "skip_branches: [z]"], true),
    ] {
        for found in pair(same.0, same.1, branches) {
            assert_eq!(!found.is_empty(), meet, "{branches:?}: {found:?}");
            assert!(
                found
                    .iter()
                    .all(|e| e.contains("jobs (consider both inrepo and central config): [a]")),
                "{found:?}"
            );
        }
        for found in pair(context.0, context.1, branches) {
            // Told of both.
            assert_eq!(
                found.len(),
                if meet { 2 } else { 0 },
                "{branches:?}: {found:?}"
            );
            assert!(
                found
                    .iter()
                    .all(|e| e.contains("report to the same GitHub context \"c\"")),
                "{found:?}"
            );
        }
    }
    let [found, _] = pair(
        "name: a, context: c",
        "name: b, context: c, skip_report: true",
        ["", ""],
    );
    assert_eq!(found.len(), 2);
    let twice = format!(
        "periodics: [{{name: a, interval: 1h, {POD}}}, {{name: a, cron: '@daily', {POD}}}]"
    );
    assert_eq!(
        errors(&[("jobs/a.yaml", &twice)]),
        ["duplicated periodic job: a"]
    );
}

/// JOB-032: reporting.
#[test]
fn job_032_reporting() {
    judge_presubmits(&[
        (
            "name: a, skip_report: true, labels: {prow.k8s.io/gerrit-report-label: Verified}, {POD}",
            "is configured to skip reporting",
        ),
        (
            "name: a, skip_report: true, labels: {prow.k8s.io/gerrit-report-label: ''}, {POD}",
            "",
        ),
        (
            "name: a, labels: {prow.k8s.io/gerrit-report-label: Verified}, {POD}",
            "",
        ),
    ]);
    // A context that is unset is the name, so that it takes a job without a name to have none.
    let found = errors(&[("jobs/a.yaml", &presubmit(&format!("name: '', {POD}")))]);
    assert!(
        found
            .iter()
            .any(|e| e.contains("set to report but has no context configured")),
        "{found:?}"
    );
}

/// JOB-033: which agent wants what.
#[test]
fn job_033_agents() {
    judge_presubmits(&[
        (
            "name: a, agent: jenkins, {POD}",
            "job specs require agent: kubernetes",
        ),
        (
            "name: a, agent: kubernetes",
            "kubernetes jobs require a spec",
        ),
        (
            "name: a, pipeline_run_spec: {}, {POD}",
            "pipeline_run_spec require agent: tekton-pipeline",
        ),
        (
            "name: a, agent: tekton-pipeline",
            "jobs require a pipeline_run_spec",
        ),
        ("name: a, agent: tekton-pipeline, pipeline_run_spec: {}", ""),
        (
            "name: a, agent: tekton-pipeline, tekton_pipeline_run_spec: {v1beta1: {}}",
            "",
        ),
        (
            "name: a, agent: jenkins, {DEC}",
            "decoration requires agent: kubernetes",
        ),
        (
            "name: a, agent: jenkins, error_on_eviction: true",
            "error_on_eviction only applies to agent: kubernetes",
        ),
        (
            "name: a, namespace: other, {POD}",
            "namespace customization requires agent: tekton-pipeline",
        ),
        ("name: a, namespace: default, {POD}", ""),
        (
            "name: a, agent: tekton-pipeline, namespace: other, pipeline_run_spec: {}",
            "",
        ),
    ]);
}

/// JOB-034, JOB-035, JOB-036, JOB-037, JOB-038: pods.
#[test]
fn job_034_to_038_pods() {
    let two = |a: &str, b: &str| {
        format!(
            "name: a, {{DEC}}, spec: {{containers: [{{image: i, command: [c], {a}}}, {{image: i, command: [c], {b}}}]}}"
        )
    };
    let one = |container: &str, pod: &str| {
        format!("name: a, spec: {{containers: [{{image: i, command: [c]{container}}}]{pod}}}")
    };
    let env = |name: &str| one(&format!(", env: [{{name: {name}}}]"), "");
    let volume = |name: &str| one("", &format!(", volumes: [{{name: {name}}}]"));
    let mount = |name: &str, path: &str| {
        one(
            &format!(", volumeMounts: [{{name: {name}, mountPath: {path}}}]"),
            ", volumes: [{name: vol}]",
        )
    };
    let secret = |field: &str| {
        format!(
            "name: a, {{DEC}}, decoration_config: {{{field}}}, spec: {{containers: [{{image: i, command: [c]}}], volumes: [{{name: secret}}]}}"
        )
    };
    let word =
        |command: &str| format!("name: a, {{DEC}}, spec: {{containers: [{{image: i{command}}}]}}");
    let cases = [
        (
            "name: a, spec: {containers: []}".into(),
            "at least 1 container",
        ),
        (
            "name: a, spec: {containers: [{image: i}, {image: j}]}".into(),
            "decoration must be enabled to use multiple containers",
        ),
        (two("name: a", "name: b"), ""),
        (
            two("name: a", "name: a"),
            "container named \"a\" is defined more than once",
        ),
        (two("name: a", "args: []"), "container does not have name"),
        (
            two("name: a", "name: sidecar"),
            "container name sidecar is a reserved for decoration",
        ),
        (
            two("name: a", "name: place-entrypoint"),
            "is a reserved for decoration",
        ),
        (
            one("", ", initContainers: [{name: x, image: i}]"),
            "may not use init containers",
        ),
        (
            one(
                "",
                ", initContainers: [{name: x, image: i, restartPolicy: Always}]",
            ),
            "",
        ),
        (
            one(", env: [{name: A}, {name: A}]", ""),
            "env var named \"A\" is defined more than once",
        ),
        (env("JOB_SPEC"), "env JOB_SPEC is reserved"),
        (env("REPO_OWNER"), "env REPO_OWNER is reserved"),
        (env("PULL_HEAD_REF"), "env PULL_HEAD_REF is reserved"),
        (env("GOPATH"), ""),
        (
            one("", ", volumes: [{name: v}, {name: v}]"),
            "volume named \"v\" is defined more than once",
        ),
        (volume("logs"), "volume logs is a reserved for decoration"),
        (
            volume("s3-credentials"),
            "volume s3-credentials is a reserved for decoration",
        ),
        (volume("clonerefs-tmp"), ""),
        (
            secret("oauth_token_secret: {name: secret, key: k}"),
            "volume secret is a reserved for decoration",
        ),
        (
            secret("ssh_key_secrets: [secret]"),
            "volume secret is a reserved for decoration",
        ),
        (mount("vol", "/x"), ""),
        (
            mount("other", "/x"),
            "volumeMount named \"other\" is undefined",
        ),
        (mount("gcs-credentials", "/x"), ""),
        (
            mount("logs", "/x"),
            "volumeMount name logs is reserved for decoration",
        ),
        (mount("vol", "/logs"), "conflicts with decoration mount"),
        (mount("vol", "/tools"), "conflicts with decoration mount"),
        (mount("vol", "/logs/sub"), ""),
        (mount("vol", "/home/prow"), ""),
        (
            word(""),
            "decorated job containers must specify command and/or args",
        ),
        (word(", command: ['']"), "must specify command and/or args"),
        (word(", args: [x]"), ""),
        ("name: a, spec: {containers: [{image: i}]}".into(), ""),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(fields, expected)| (fields.as_str(), *expected))
        .collect();
    judge_presubmits(&cases);
    // JOB-037: what is reserved depends on the type.
    for (name, post, periodic) in [
        ("PULL_NUMBER", false, false),
        ("PULL_REFS", true, false),
        ("BUILD_ID", true, true),
        ("CI", true, true),
    ] {
        let pod = format!("spec: {{containers: [{{image: i, env: [{{name: {name}}}]}}]}}");
        let refused = |jobs: String| !errors(&[("jobs/a.yaml", &jobs)]).is_empty();
        assert_eq!(
            refused(format!("postsubmits: {{o/r: [{{name: a, {pod}}}]}}")),
            post,
            "{name}"
        );
        assert_eq!(
            refused(format!("periodics: [{{name: a, interval: 1h, {pod}}}]")),
            periodic,
            "{name}"
        );
    }
}

/// JOB-039, JOB-040: labels, annotations, where to clone from.
#[test]
fn job_039_040_labels_and_uris() {
    let oauth = "decoration_config: {oauth_token_secret: {name: s, key: k}}";
    let with_oauth = |uri: &str| format!("name: a, {{DEC}}, clone_uri: '{uri}', {oauth}, {{POD}}");
    let cases = [
        ("name: a, labels: {prow.k8s.io/type: x}, {POD}".to_owned(), "label prow.k8s.io/type is reserved for decoration"),
        ("name: a, labels: {created-by-prow: 'true'}, {POD}".into(), "is reserved for decoration"),
        ("name: a, labels: {prow.k8s.io/id: x}, {POD}".into(), "is reserved for decoration"),
        ("name: a, labels: {prow.k8s.io/refs.org: x}, {POD}".into(), ""),
        ("name: a, labels: {'a b': x}, {POD}".into(), "invalid label a b"),
        ("name: a, labels: {a: 'b c'}, {POD}".into(), "label a has invalid value b c"),
        ("name: a, annotations: {'a b': x}, {POD}".into(), "invalid annotation key \"a b\""),
        ("name: a, annotations: {a.example/b: 'anything at all'}, {POD}".into(), ""),
        ("name: a, clone_uri: '%zz', {POD}".into(), "couldn't parse uri from clone_uri"),
        ("name: a, clone_uri: 'git@github.com:o/r.git', {POD}".into(), ""),
        (with_oauth("https://github.com/o/r.git"), ""),
        (with_oauth("https://user@github.com/o/r.git"), "scheme must be http or https"),
        (with_oauth("ssh://github.com/o/r.git"), "scheme must be http or https"),
        ("name: a, extra_refs: [{org: e, repo: x, clone_uri: '%zz'}], {POD}".into(), ""),
        ("name: a, clone_uri: 'https://a/b', extra_refs: [{org: e, repo: x, clone_uri: '%zz'}], {POD}".into(), "extra_ref[0]"),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(fields, expected)| (fields.as_str(), *expected))
        .collect();
    judge_presubmits(&cases);
}

/// JOB-042: Tekton's tasks use every extra repository.
#[test]
fn job_042_tekton_references() {
    let job = |refs: usize, tasks: &[&str]| {
        let refs = vec!["{org: e, repo: x, base_ref: m}"; refs].join(", ");
        let tasks: Vec<_> = tasks
            .iter()
            .map(|name| format!("{{name: t, taskRef: {{name: {name}}}}}"))
            .collect();
        format!(
            "name: a, agent: tekton-pipeline, extra_refs: [{refs}], pipeline_run_spec: {{pipelineSpec: {{tasks: [{}]}}}}",
            tasks.join(", ")
        )
    };
    let cases = [
        (
            job(1, &["PROW_EXTRA_GIT_REF_0", "PROW_IMPLICIT_GIT_REF"]),
            "",
        ),
        (job(1, &[]), "extra_refs[0] is not used"),
        (
            job(0, &["PROW_EXTRA_GIT_REF_0"]),
            "0 extra_refs are specified",
        ),
        (
            job(1, &["PROW_EXTRA_GIT_REF_00"]),
            "leading zeros are not allowed",
        ),
        (
            job(2, &["PROW_EXTRA_GIT_REF_0", "PROW_EXTRA_GIT_REF_2"]),
            "extra_refs[1] is not used",
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(fields, expected)| (fields.as_str(), *expected))
        .collect();
    judge_presubmits(&cases);
    let periodic = format!(
        "periodics: [{{interval: 1h, {}}}]",
        job(0, &["PROW_IMPLICIT_GIT_REF"])
    );
    assert!(errors(&[("jobs/a.yaml", &periodic)])[0].contains("do not have an implicit git ref"));
}

/// JOB-043, JOB-044, JOB-045, JOB-046: a decoration must be whole, and every field of it is read.
#[test]
fn job_043_to_046_decoration() {
    let gcs = |fields: &str| {
        format!("name: a, {{DEC}}, decoration_config: {{gcs_configuration: {{{fields}}}}}, {{POD}}")
    };
    let cases = [
        (gcs("path_strategy: other"), "gcs_path_strategy must be one of"),
        (gcs("path_strategy: legacy"), "default org and repo must be"),
        (gcs("path_strategy: single, default_org: o"), "default org and repo must be"),
        (gcs("path_strategy: single, default_org: o, default_repo: r"), ""),
        (gcs("bucket: 's3://b/with/path'"), ""),
        (gcs("bucket: 'file:///d'"), ""),
        (gcs("bucket: '%zz'"), "GCS configuration is invalid"),
        (gcs("mediaTypes: {log: x}"), ""),
        (gcs("mediaTypes: {log: 'x/'}"), "invalid extension media type"),
        ("name: a, {DEC}, decoration_config: {oauth_token_secret: {name: s, key: k}, ssh_key_secrets: [t]}, {POD}".into(), "both OAuth token and SSH key secrets are specified"),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(fields, expected)| (fields.as_str(), *expected))
        .collect();
    judge_presubmits(&cases);
    let alone = |config: &str| {
        errors(&[(
            "jobs/a.yaml",
            &presubmit(&format!("name: a, decoration_config: {{{config}}}, {POD}")),
        )])
    };
    assert!(alone("timeout: 1h")[0].contains("utility image config is not specified"));
    assert!(
        alone("utility_images: {clonerefs: c}")[0]
            .contains("the following utility images are not specified")
    );
    assert!(
        alone("utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}")[0]
            .contains("GCS upload configuration is not specified")
    );

    let all = "timeout: 1h0m0s, grace_period: 1m0s, pod_pending_timeout: 2m0s, pod_running_timeout: 3m0s, pod_unscheduled_timeout: 4m0s, \
        utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}, resources: {clonerefs: {requests: {cpu: 100m}}, initupload: {}, place_entrypoint: {}, sidecar: {limits: {memory: 1Gi}}}, \
        gcs_configuration: {bucket: b, path_prefix: p, path_strategy: explicit, default_org: o, default_repo: r, mediaTypes: {log: text/plain}, job_url_prefix: 'https://x', local_output_dir: /o, compress_file_types: [txt]}, \
        gcs_credentials_secret: g, s3_credentials_secret: t, upload_ignores_interrupts: true, ssh_key_secrets: [k], ssh_host_fingerprints: [f], blobless_fetch: true, sparse_checkout_files: [a], skip_cloning: false, \
        cookiefile_secret: cookie, github_api_endpoints: [e], github_app_id: '7', github_app_private_key_secret: {name: app, key: pem}, censor_secrets: true, \
        censoring_options: {censoring_concurrency: 1, censoring_buffer_size: 2, include_directories: [in], exclude_directories: [out], minimum_secret_length: 3}, \
        default_service_account_name: sa, set_limit_equals_memory_request: true, default_memory_request: 1Gi, scheduling_options: {tolerations: [{key: t}], affinity: {}}, run_as_user: 1, run_as_group: 2, fs_group: 3";
    let loaded = load(&[(
        "jobs/a.yaml",
        &presubmit(&format!(
            "name: a, decorate: true, decoration_config: {{{all}}}, {POD}"
        )),
    )]);
    assert_eq!(
        (loaded.errors.len(), loaded.warnings.len()),
        (0, 0),
        "{:?} {:?}",
        loaded.errors,
        loaded.warnings
    );
    let printed =
        serde_json::to_value(loaded.config.jobs.presubmits["o/r"][0].base.decoration()).unwrap();
    let written = trireme_config::yaml::parse(format!("{{{all}}}").as_bytes())
        .unwrap()
        .root
        .to_json()
        .unwrap();
    for (field, value) in written.as_object().unwrap() {
        assert_eq!(&printed[field], value, "{field}");
    }
}

/// JOB-077, JOB-078: what is unknown to our types and what nobody here reads stays as it is.
#[test]
fn job_077_078_nothing_is_lost() {
    let jobs = "presubmits:\n  o/r:\n  - name: a\n    annotations: {testgrid-dashboards: d, description: 'a b', fork-per-release-periodic-interval: '', karpenter.sh/do-not-disrupt: 'true', cluster-autoscaler.kubernetes.io/safe-to-evict: 'false'}\n    spec: {containers: [{image: i, resources: {limits: {cpu: 0.5, memory: 1.5Gi, example.com/gpu: 1}}, future: {x: [1]}}], restartPolicy: Sometimes, newest: true}\n";
    let loaded = load(&[("jobs/a.yaml", jobs)]);
    assert_eq!(loaded.errors, []);
    let base = &loaded.config.jobs.presubmits["o/r"][0].base;
    assert_eq!(base.annotations.len(), 5);
    assert_eq!(base.annotations["description"], "a b");
    let spec = base.spec.as_ref().unwrap().value();
    assert_eq!(
        (&spec["restartPolicy"], &spec["newest"]),
        (&json!("Sometimes"), &json!(true))
    );
    let container = &spec["containers"][0];
    assert_eq!(container["future"], json!({"x": [1]}));
    assert_eq!(
        container["resources"]["limits"],
        json!({"cpu": "500m", "example.com/gpu": "1", "memory": "1536Mi"})
    );
}
