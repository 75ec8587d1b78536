//! What is small by itself and too much with all the rest.

use std::sync::Arc;

use trireme_config::in_repo::{OwnFiles, ProwYaml};
use trireme_config::{Config, ConfigCache, FileSet, Layout, LoadOptions};

use super::{POD, lines, load, told};

/// JOB-012, JOB-013: each expression is small enough, all together are not. Which job has one too many does not depend on
/// what was loaded before.
#[test]
fn job_012_expressions_of_all_jobs_together_are_bounded() {
    let files = |each: usize| {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs".to_owned()),
            ..Layout::default()
        });
        files.insert("config.yaml", Vec::new());
        for file in 0..5 {
            let job = |n: usize| {
                let large = format!(r"\pL{{1000}}{file}x{n}");
                format!("  - {{name: j{file}-{n}, run_if_changed: '{large}', {POD}}}\n")
            };
            let jobs = format!("presubmits:\n  a/b:\n{}", lines(each, job));
            files.insert(format!("jobs/{file}.yaml"), jobs.into_bytes());
        }
        files
    };
    let alone = told(&Config::load(&files(40), LoadOptions::default()));
    assert!(alone.starts_with("jobs/0.yaml:"), "{alone}");
    assert!(
        alone.contains(".run_if_changed: could not set regex for j0-")
            && alone.contains(
                "the expressions of all jobs together take more than 2147483648 bytes of memory once they are compiled"
            ),
        "{alone}"
    );
    assert_eq!(alone.lines().count(), 1, "{alone}");
    let mut cache = ConfigCache::new();
    for each in [4, 40, 40, 3, 40, 4] {
        let files = files(each);
        let alone = told(&Config::load(&files, LoadOptions::default()));
        assert_eq!(told(&cache.load(&files, LoadOptions::default())), alone);
        assert_eq!(alone == "ok", each < 10);
    }
    // A repository's own jobs have bounds of their own.
    let many = format!("presubmits:\n{}", "- {}\n".repeat(20_000));
    let many = [(".prow.yaml".to_owned(), Arc::from(many.as_bytes()))].into();
    let mut found = Vec::new();
    let read = ProwYaml::read(&OwnFiles::checked_out(&many), &mut found);
    assert!(read.presubmits.is_empty());
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            ".prow.yaml: with its 20000 jobs the repository has 20000 of its own, more than the 10000 that it may have"
        ]
    );
    let own = |n| {
        let job = |n| format!("- {{name: j{n}, run_if_changed: '\\pL{{300}}{n}', {POD}}}\n");
        let text = format!("presubmits:\n{}", lines(n, job));
        let own = [(".prow.yaml".to_owned(), Arc::from(text.as_bytes()))].into();
        let own = ProwYaml::read(&OwnFiles::checked_out(&own), &mut Vec::new());
        let jobs = load(b"", b"").config.in_repo_jobs(own, "a/b");
        jobs.map_or_else(|found| found[0].to_string(), |_| "ok".to_owned())
    };
    assert_eq!(own(2), "ok");
    let found = own(5);
    assert!(
        found.contains("take more than 67108864 bytes of memory"),
        "{found}"
    );
}

/// JOB-006, CFG-062: presets multiply with jobs, decorations with repositories; neither is made beyond its bound.
#[test]
fn job_006_cfg_062_defaults_of_all_jobs_together_are_bounded() {
    let preset = |bytes: usize| {
        let value = "x".repeat(bytes);
        format!("presets: [{{labels: {{p: q}}, env: [{{name: A, value: {value}}}]}}]\n")
    };
    let jobs = |count: usize| {
        let job = |n| format!("- {{name: j{n}, interval: 1h, labels: {{p: q}}, {POD}}}\n");
        format!("periodics:\n{}", lines(count, job))
    };
    let (large, small) = (preset(4 << 20), preset(100));
    let refused = told(&load(large.as_bytes(), jobs(300).as_bytes()));
    // 255 of them come to just under a gigabyte.
    assert_eq!(
        refused,
        "jobs/a.yaml:257:3: periodics[255].spec: job j255 failed to merge presets for podspec: what presets add to the pods of all \
         jobs together is more than 1073741824 bytes; use smaller presets, or for fewer jobs"
    );
    assert_eq!(told(&load(large.as_bytes(), jobs(2).as_bytes())), "ok");
    assert_eq!(told(&load(small.as_bytes(), jobs(300).as_bytes())), "ok");

    let plank = |bytes: usize| {
        format!(
            "plank:\n  default_decoration_config_entries:\n  - config: {{timeout: 1h, utility_images: {{clonerefs: a, initupload: b, \
             entrypoint: c, sidecar: d}}, gcs_configuration: {{bucket: b, path_strategy: explicit}}, gcs_credentials_secret: {}}}\n",
            "x".repeat(bytes)
        )
    };
    let decorated = |repos: usize| {
        let pod = "spec: {containers: [{image: x, command: [x]}]}";
        let job = |n| format!("  a/b{n}: [{{name: j, decorate: true, {pod}}}]\n");
        format!("postsubmits:\n{}", lines(repos, job))
    };
    let refused = told(&load(plank(1 << 20).as_bytes(), decorated(262).as_bytes()));
    assert_eq!(
        refused,
        "config.yaml: plank.default_decoration_config_entries: what the default decorations and prowjob defaults of all jobs together \
         come to is more than 268435456 bytes; use smaller defaults, or for fewer repositories"
    );
    assert_eq!(
        told(&load(plank(1 << 20).as_bytes(), decorated(3).as_bytes())),
        "ok"
    );
    assert_eq!(
        told(&load(plank(9).as_bytes(), decorated(262).as_bytes())),
        "ok"
    );
    // What was refused is not taken for what was made.
    let mut files = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        jobs: Some("jobs".to_owned()),
        ..Layout::default()
    });
    let mut cache = ConfigCache::new();
    for (main, repos) in [
        (plank(1 << 20), 3),
        (plank(1 << 20), 262),
        (plank(1 << 20), 3),
    ] {
        files.insert("config.yaml", main.into_bytes());
        files.insert("jobs/a.yaml", decorated(repos).into_bytes());
        let loaded = cache.load(&files, LoadOptions::default());
        assert_eq!(loaded.errors.is_empty(), repos == 3);
        if repos == 3 {
            let jobs = loaded
                .config
                .jobs
                .postsubmits
                .values()
                .flat_map(|jobs| jobs.iter());
            for job in jobs {
                assert!(
                    job.base
                        .decoration()
                        .unwrap()
                        .gcs_credentials_secret
                        .is_some()
                );
            }
        }
    }
}
