//! Finding, reading and merging files (section 1 of the checklist).

use trireme_config::Rule;

use crate::stage::{DECORATION, POD, accepted, errors, load, presubmit};

/// CFG-002: the main file may carry jobs; job files carry only jobs, and what else they say is only told.
#[test]
fn cfg_002_jobs_stand_in_the_main_file_or_in_job_files() {
    let main = format!(
        "log_level: debug\ndecorate_all_jobs: false\nprow_ignored: {{a: [1]}}\npresets: [{{labels: {{a: b}}}}]\n\
         presubmits: {{o/r: [{{name: a, {POD}}}]}}\npostsubmits: {{o/r: [{{name: b, {POD}}}]}}\n\
         periodics: [{{name: c, interval: 1h, {POD}}}]\n"
    );
    let job_file =
        format!("log_level: error\ntide: {{}}\nperiodics: [{{name: d, interval: 1h, {POD}}}]\n");
    let loaded = load(&[("config.yaml", &main), ("jobs/a.yaml", &job_file)]);
    assert_eq!(loaded.errors, []);
    assert_eq!(loaded.config.job_counts(), (1, 1, 2));
    assert_eq!(
        (
            loaded.config.jobs.presets.len(),
            loaded.config.prow.log_level.as_str()
        ),
        (1, "debug")
    );
    let unknown = loaded.warnings.iter().map(|w| (w.rule, w.field.as_str()));
    let unknown: Vec<_> = unknown.collect();
    assert_eq!(
        unknown,
        [
            (Rule::UnknownField, "log_level"),
            (Rule::UnknownField, "tide")
        ]
    );
}

/// CFG-006: clashes of names and files that do not parse are told together.
#[test]
fn cfg_006_two_files_of_one_name_are_refused_with_all_other_problems() {
    let found = errors(&[
        ("jobs/a/x.yaml", "a: ["),
        ("jobs/b/x.yaml", ""),
        ("jobs/b/y.yaml", "presubmits: []"),
        ("jobs/c/x.yml", ""),
    ]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("error unmarshalling: yaml: line "),
        "{found:?}"
    );
    assert_eq!(found[1], "duplicated basename is not allowed: x.yaml");
    assert!(
        found[2].starts_with("cannot use a list as a mapping"),
        "{found:?}"
    );
}

/// CFG-010: what decorates all jobs is said in the main file alone.
#[test]
fn cfg_010_a_job_file_does_not_decorate_all_jobs() {
    let decorated = |main: &str, jobs: &str| {
        let (main, jobs) = (
            format!("{main}\n{DECORATION}"),
            format!(
                "{jobs}\nprow_ignored: x\n{}",
                presubmit(&format!("name: a, {POD}"))
            ),
        );
        let config = accepted(&[("config.yaml", &main), ("jobs/a.yaml", &jobs)]);
        assert_eq!(config.jobs.prow_ignored, None);
        config.jobs.presubmits["o/r"][0].base.decoration().is_some()
    };
    assert!(decorated("decorate_all_jobs: true", ""));
    assert!(!decorated("", "decorate_all_jobs: true"));
}

/// CFG-012: a job knows its file, and does not tell it in JSON.
#[test]
fn cfg_012_a_job_knows_where_it_is_written() {
    let jobs = presubmit(&format!("name: a, {POD}"));
    let config = accepted(&[("jobs/sub/a.yaml", &jobs)]);
    let base = &config.jobs.presubmits["o/r"][0].base;
    assert_eq!(
        (base.source.file.as_ref(), base.source.line),
        ("jobs/sub/a.yaml", 3)
    );
    let text = serde_json::to_string(config.jobs.presubmits["o/r"][0].as_ref()).unwrap();
    assert!(!text.contains("a.yaml"), "{text}");
}

/// CFG-009: main file first, then job files in the order of the walk; nothing is folded.
#[test]
fn cfg_009_lists_are_put_together_in_order() {
    let job = |name: &str| presubmit(&format!("name: {name}, {POD}"));
    let config = accepted(&[
        ("jobs/b.yaml", &job("third")),
        ("config.yaml", &job("first")),
        ("jobs/a/z.yaml", &job("second")),
    ]);
    let names: Vec<_> = config
        .presubmits("o/r")
        .map(|job| job.base.name.as_str())
        .collect();
    assert_eq!(names, ["first", "second", "third"]);
}

/// CFG-011: a pair of label and value selects one preset, once there are job files.
#[test]
fn cfg_011_two_presets_of_one_pair_clash() {
    let two = "presets:\n- labels: {a: b}\n- labels: {a: b}\n- {env: []}\n- {env: []}\n";
    assert_eq!(errors(&[("config.yaml", two)]), Vec::<String>::new());
    assert_eq!(
        errors(&[("config.yaml", two), ("jobs/a.yaml", "")]),
        ["duplicated preset 'label:value' pair : a:b"]
    );
}

/// CFG-015: every job is looked at, and each problem told.
#[test]
fn cfg_015_all_problems_of_jobs_are_told() {
    let jobs = format!(
        "presubmits:\n  o/r:\n  - {{name: a b, {POD}}}\n  - {{name: c}}\n  o/s:\n  - {{name: d, max_concurrency: -1, {POD}}}\n\
         periodics:\n- {{name: e, cron: x, {POD}}}\n"
    );
    let found = errors(&[("jobs/a.yaml", &jobs)]);
    let parts = [
        "invalid presubmit job a b",
        "kubernetes jobs require a spec",
        "non-negative",
        "invalid cron string x",
    ];
    for part in parts {
        assert!(found.iter().any(|e| e.contains(part)), "{part}: {found:?}");
    }
}

/// CFG-017: what Tide's queries name, and what has jobs; orgs are not expanded.
#[test]
fn cfg_017_known_repositories() {
    let main = format!(
        "tide: {{queries: [{{repos: [a/b]}}, {{orgs: [c]}}]}}\npostsubmits: {{d/e: [{{name: x, {POD}}}]}}\n"
    );
    let config = accepted(&[
        ("config.yaml", &main),
        ("jobs/a.yaml", &presubmit(&format!("name: a, {POD}"))),
    ]);
    let all: Vec<_> = config.jobs.all_repos.iter().map(String::as_str).collect();
    assert_eq!(all, ["a/b", "d/e", "o/r"]);
    assert!(accepted(&[]).jobs.all_repos.is_empty());
}
