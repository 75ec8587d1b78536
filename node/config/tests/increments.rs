//! A configuration that is loaded after others is the one that is loaded alone.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Arc;

use proptest::prelude::*;
use trireme_config::plugins::Registry;
use trireme_config::{Config, ConfigCache, FileSet, Layout, LoadOptions, Loaded};

/// What a file may hold.
const VARIANTS: &[(&str, &[&str])] = &[
    (
        "config.yaml",
        &[
            "",
            "decorate_all_jobs: true\nplank: {default_decoration_config_entries: [{config: {timeout: 1h, utility_images: {clonerefs: a, initupload: b, entrypoint: c, sidecar: d}, gcs_configuration: {bucket: b, path_strategy: explicit}}}]}\n",
            "pod_namespace: other\ntide: {queries: [{repos: [org/a], labels: [lgtm]}]}\n",
            "presubmits: {org/a: [{name: central, spec: {containers: [{image: i}]}}]}\n",
            "tide: {queries: [{orgs: [a/b]}]}\n",
            "log_level: [",
        ],
    ),
    (
        "sup/a_prowconfig.yaml",
        &[
            "",
            "tide: {merge_method: {org/a: squash}}\n",
            "tide: {merge_method: {org/a: rebase}, queries: [{repos: [org/b], labels: [lgtm]}]}\n",
            "plank: {}\nsinker: {max_pod_age: 1h}\n",
        ],
    ),
    (
        "sup/b_prowconfig.yaml",
        &["", "tide: {merge_method: {org/a: merge}}\n"],
    ),
    (
        "jobs/a.yaml",
        &[
            "",
            "presubmits: {org/a: [{name: one, labels: {p: q}, spec: {containers: [{image: i}]}}]}\n",
            "presubmits: {org/a: [{name: two, context: one, spec: {containers: [{image: i}]}}, {name: three, branches: [main], spec: {containers: [{image: i}]}}]}\n",
            "presubmits: {org/a: [{name: one, trigger: x, rerun_command: y, spec: {containers: [{image: i}]}}]}\n",
        ],
    ),
    (
        "jobs/b.yaml",
        &[
            "",
            "presets: [{labels: {p: q}, env: [{name: A, value: b}]}]\n",
            "presubmits: {org/a: [{name: one, spec: {containers: [{image: i}]}}]}\npostsubmits: {org/a: [{name: one, spec: {containers: [{image: i}]}}]}\n",
            "periodics: [{name: p, interval: 1h, spec: {containers: [{image: i}]}}]\n",
            "nonsense: true\nperiodics: [{name: p, cron: '@daily', spec: {containers: [{image: i}]}}]\n",
        ],
    ),
    (
        "jobs/sub/c.yaml",
        &[
            "",
            "periodics: [{name: p, minimum_interval: 1h, spec: {containers: [{image: i}]}}]\n",
            "postsubmits: {org/a: [{name: one, spec: {containers: [{image: i}]}}], org/b: [{name: x, agent: what}]}\n",
        ],
    ),
    ("jobs/.prowignore", &["", "sub/\n"]),
    (
        "plugins.yaml",
        &[
            "",
            "plugins: {org: {plugins: [trigger]}}\n",
            "plugins: {org: {plugins: [trigger, trigger]}}\n",
        ],
    ),
    (
        "psup/a_pluginconfig.yaml",
        &["", "plugins: {org/a: {plugins: [lgtm]}}\n"],
    ),
    ("VERSION", &["", "abc"]),
];

fn set(choice: &[usize]) -> FileSet {
    let mut files = FileSet::new(Layout {
        config: "config.yaml".into(),
        jobs: Some("jobs".into()),
        supplemental_dirs: vec!["sup".into()],
        plugins: Some("plugins.yaml".into()),
        plugin_supplemental_dirs: vec!["psup".into()],
        ..Layout::default()
    });
    // One more than there are: no such file.
    for ((path, variants), n) in VARIANTS.iter().zip(choice) {
        if let Some(text) = variants.get(n % (variants.len() + 1)) {
            files.insert(*path, text.as_bytes());
        }
    }
    files
}

/// The same files as a version names them: bytes only of those that the cache does not know.
fn named(files: &FileSet, cache: &ConfigCache) -> FileSet {
    let mut named = FileSet::new(files.layout.clone());
    for (path, _) in files.iter() {
        named.insert_known(path, *files.content(path).unwrap().id(), None);
    }
    for path in cache.missing(&named) {
        let bytes = files.get(&path).unwrap().clone();
        named.insert(path, bytes);
    }
    named
}

fn told(loaded: &Loaded) -> String {
    let found = loaded.errors.iter().chain(&loaded.warnings);
    let mut text: Vec<_> = found.map(ToString::to_string).collect();
    if loaded.errors.is_empty() {
        text.push(serde_json::to_string_pretty(&*loaded.config).unwrap());
        text.push(format!("{:?}", loaded.config.jobs.all_repos));
        text.push(format!("{:?}", loaded.config.jobs.known_buckets));
        text.push(format!("{:?}", loaded.plugins));
    }
    text.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn what_was_loaded_before_makes_no_difference(
        versions in prop::collection::vec(
            (prop::collection::vec(0usize..12, VARIANTS.len()), any::<[bool; 2]>(), any::<[bool; 4]>()), 1..6)
    ) {
        let mut cache = ConfigCache::new();
        let registries = [Registry::new(), Registry::new().with_names(["trigger"])];
        for (version, swapped, [all_phases, allow_duplicate_basenames, refuse_unknown_plugins, named_only]) in versions {
            let options = LoadOptions {
                all_phases,
                allow_duplicate_basenames,
                refuse_unknown_plugins,
                plugins: Some(&registries[usize::from(named_only)]),
                ..LoadOptions::default()
            };
            let mut files = set(&version);
            // The same file may be something else in the next version.
            if swapped[0] {
                files.layout.jobs = Some("sup".into());
                files.layout.supplemental_dirs = vec!["jobs".into()];
                files.layout.supplemental_suffix = ".yaml".into();
            }
            if swapped[1] {
                files.layout.plugins = Some("sup/a_prowconfig.yaml".into());
            }
            let alone = Config::load(&files, options);
            let after = cache.load(&named(&files, &cache), options);
            prop_assert_eq!(told(&after), told(&alone));
        }
    }
}

/// One file of many: the jobs of all others are the very same.
#[test]
fn jobs_of_unchanged_files_are_shared() {
    let text = |name: &str| {
        format!("presubmits: {{org/a: [{{name: {name}, spec: {{containers: [{{image: i}}]}}}}]}}\n")
    };
    let mut cache = ConfigCache::new();
    let load = |cache: &mut ConfigCache, second: &str| {
        let mut files = set(&[]);
        files.insert("config.yaml", Vec::new());
        files.insert("plugins.yaml", Vec::new());
        files.insert("jobs/a.yaml", text("a").into_bytes());
        files.insert("jobs/b.yaml", text(second).into_bytes());
        let loaded = cache.load(&files, LoadOptions::default());
        loaded.accepted().unwrap().0
    };
    let (one, two) = (load(&mut cache, "b"), load(&mut cache, "c"));
    let job = |config: &Config, n: usize| Arc::as_ptr(&config.jobs.presubmits["org/a"][n]);
    assert_eq!(job(&one, 0), job(&two, 0));
    assert_ne!(job(&one, 1), job(&two, 1));
    assert!(Arc::ptr_eq(&one.prow, &two.prow));
}

/// What was good is read as fast again, whatever came between.
#[test]
fn what_was_good_is_remembered_over_what_is_refused_or_unrelated() {
    let job = |name: &str| {
        format!("presubmits: {{org/a: [{{name: {name}, spec: {{containers: [{{image: i}}]}}}}]}}\n")
    };
    let good = |main: &str| {
        let mut files = set(&[]);
        files.insert("config.yaml", main.as_bytes());
        files.insert("plugins.yaml", Vec::new());
        for n in 0..3 {
            files.insert(format!("jobs/{n}.yaml"), job(&format!("j{n}")).into_bytes());
        }
        files
    };
    let first = good("pod_namespace: one\n");
    let mut unreadable = good("pod_namespace: [\n");
    unreadable.insert("jobs/1.yaml", &b"[\n"[..]);
    let mut other_defaults = good("pod_namespace: two\n");
    other_defaults.insert("jobs/2.yaml", job("j 2").into_bytes());
    let mut nothing = set(&[]);
    nothing.layout.jobs = Some("nowhere".to_owned());
    let mut unrelated = FileSet::new(Layout {
        config: "other.yaml".to_owned(),
        jobs: Some("other".to_owned()),
        ..Layout::default()
    });
    unrelated.insert("other.yaml", Vec::new());
    unrelated.insert("other/a.yaml", job("other").into_bytes());
    for between in [
        vec![&unreadable],
        vec![&other_defaults],
        vec![&nothing],
        vec![&unreadable, &nothing, &other_defaults],
        vec![&unrelated],
        // A door checks it, and it is committed: twice the same.
        vec![&unrelated, &unrelated],
        vec![&unreadable, &unrelated],
    ] {
        let mut cache = ConfigCache::new();
        let jobs = |cache: &mut ConfigCache| {
            let loaded = cache.load(&named(&first, cache), LoadOptions::default());
            let (config, _) = loaded.accepted().unwrap();
            config.jobs.presubmits["org/a"].clone()
        };
        let before = jobs(&mut cache);
        for files in between {
            let _ = cache.load(&named(files, &cache), LoadOptions::default());
        }
        let mut bare = FileSet::new(first.layout.clone());
        for (path, _) in first.iter() {
            bare.insert_known(path, *first.content(path).unwrap().id(), None);
        }
        assert_eq!(cache.missing(&bare), [""; 0]);
        // The list itself: nothing was defaulted or compared again.
        assert!(Arc::ptr_eq(&before, &jobs(&mut cache)));
    }
}

/// A file that is only named and was never read is an error, not an empty file.
#[test]
fn what_was_never_read_is_not_taken_for_empty() {
    let mut files = set(&[]);
    files.insert("config.yaml", Vec::new());
    files.insert("plugins.yaml", Vec::new());
    files.insert_known("jobs/a.yaml", [7; 32], None);
    files.insert_known("sup/a_prowconfig.yaml", [7; 32], None);
    let found = ConfigCache::new()
        .load(&files, LoadOptions::default())
        .errors;
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(found.join("\n"), @r"
    jobs/a.yaml: error reading jobs/a.yaml: its content is not at hand
    sup/a_prowconfig.yaml: error reading sup/a_prowconfig.yaml: its content is not at hand
    ");
}

/// CFG-005: what hides files is read, though only its name is known.
#[test]
fn cfg_005_an_ignore_file_is_asked_for() {
    let hidden = "presubmits: {org/a: [{name: hidden, spec: {containers: [{image: i}]}}]}\n";
    let mut files = set(&[]);
    for path in ["config.yaml", "plugins.yaml"] {
        files.insert(path, Vec::new());
    }
    files.insert("jobs/sub/a.yaml", hidden.as_bytes());
    files.insert("jobs/sub/.prowignore", &b"a.yaml\n"[..]);
    let mut cache = ConfigCache::new();
    // As often as it is asked, and though the job file is known.
    for _ in 0..2 {
        let mut bare = files.clone();
        let id = *files.content("jobs/sub/.prowignore").unwrap().id();
        bare.insert_known("jobs/sub/.prowignore", id, None);
        assert_eq!(cache.missing(&bare), ["jobs/sub/.prowignore"]);
        let refused = cache.load(&bare, LoadOptions::default());
        let found: Vec<_> = refused.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "jobs/sub/.prowignore: error reading jobs/sub/.prowignore: its content is not at hand"
            ]
        );
        let loaded = cache.load(&files, LoadOptions::default());
        assert_eq!(loaded.accepted().unwrap().0.job_counts().0, 0);
    }
}

/// A main file among the job files is read as both, every time.
#[test]
fn a_main_file_in_the_job_tree_is_two_files() {
    let mut files = FileSet::new(Layout {
        config: "jobs/config.yaml".into(),
        jobs: Some("jobs".into()),
        ..Layout::default()
    });
    let text = "presubmits: {org/a: [{name: main, context: CONTEXT, branches: [x], spec: {containers: [{image: i}]}}]}\n";
    files.insert("jobs/config.yaml", text.as_bytes());
    let mut cache = ConfigCache::new();
    for context in ["one", "two", "three"] {
        let other = text.replace("main", "other").replace("CONTEXT", context);
        files.insert("jobs/b.yaml", other.into_bytes());
        let alone = Config::load(&files, LoadOptions::default());
        let after = cache.load(&files, LoadOptions::default());
        assert_eq!(told(&after), told(&alone));
        assert_eq!(after.config.job_counts().0, 3);
    }
}

/// CFG-011: who has two presets for the same label must find them.
#[test]
fn cfg_011_clashing_presets_are_told_with_their_files() {
    let mut files = set(&[]);
    for path in ["config.yaml", "plugins.yaml"] {
        files.insert(path, Vec::new());
    }
    for path in ["jobs/a.yaml", "jobs/b.yaml"] {
        files.insert(path, &b"presets: [{labels: {p: q}}]\n"[..]);
    }
    let found = Config::load(&files, LoadOptions::default()).errors;
    let [clash] = &found[..] else {
        panic!("{found:?}")
    };
    insta::assert_snapshot!(clash, @"jobs/b.yaml: presets: duplicated preset 'label:value' pair : p:q; the other one is in jobs/a.yaml");
}
