//! `plugins.yaml` and its shards: which plugins are on, and what is refused.

use serde::Deserialize;
use trireme_config::plugins::{Problem, Registry, Section};
use trireme_config::{Config, FileSet, Layout, LoadOptions, Loaded, PluginConfig};

use crate::stage::{errors, judge, load};

fn plugins(files: &[(&str, &str)]) -> std::sync::Arc<PluginConfig> {
    load(files).accepted().unwrap().1
}

const SHARD: &str = "plugin-sup/o/a_pluginconfig.yaml";

/// HOOK-053: the present form, and the older one for the whole map; both in one map are refused.
#[test]
fn hook_053_both_forms_of_the_list_are_read() {
    for text in [
        "plugins: {o: {plugins: [hold], excluded_repos: [x]}, o/r: {plugins: [lgtm]}}",
        "plugins: {o: [hold], o/r: [lgtm]}",
    ] {
        let config = plugins(&[("plugins.yaml", text)]);
        assert_eq!(config.enabled_plugins("o", "r"), ["hold", "lgtm"], "{text}");
    }
    judge(
        &[(
            "plugins: {o: [hold], p: {plugins: [hold]}}",
            "cannot use a list as a mapping",
        )],
        |text| errors(&[("plugins.yaml", text)]),
    );
}

/// HOOK-056: twice for an org and its repository, unless the org excludes it; blunderbuss and rifle together.
#[test]
fn hook_056_a_plugin_is_on_once() {
    judge(
        &[
            (
                "plugins: {o: {plugins: [hold]}, o/r: {plugins: [hold]}}",
                "plugins [hold] are duplicated for r and o",
            ),
            (
                "plugins: {o: {plugins: [hold], excluded_repos: [r]}, o/r: {plugins: [hold]}}",
                "",
            ),
            (
                "plugins: {o: {plugins: [blunderbuss, rifle]}}",
                "mutually exclusive",
            ),
            (
                "plugins: {o: {plugins: [blunderbuss]}, o/r: {plugins: [rifle]}}",
                "mutually exclusive",
            ),
            (
                "external_plugins: {o: [{name: a}], o/r: [{name: a}]}",
                "external plugins [a] are duplicated for o/r and o",
            ),
            ("external_plugins: {o: [{name: a}], o/r: [{name: b}]}", ""),
        ],
        |text| errors(&[("plugins.yaml", text)]),
    );
}

/// HOOK-070, HOOK-071, HOOK-072: what shards may say, and what they may not say again.
#[test]
fn hook_071_shards_say_what_can_be_merged_and_say_it_once() {
    const MAIN: &str =
        "plugins: {o: {plugins: [hold]}}\nlabel: {restricted_labels: {o: [{label: a}]}}";
    judge(
        &[
            (
                "plugins: {p: {plugins: [hold]}}\napprove: [{repos: [p]}]\nlgtm: [{repos: [p]}]\ntriggers: [{repos: [p]}]\nexternal_plugins: {p: [{name: x}]}",
                "",
            ),
            (
                "plugins: {o: {plugins: [lgtm]}}",
                "found duplicate config for plugins.o",
            ),
            ("label: {restricted_labels: {p: [{label: a}]}}", ""),
            (
                "label: {restricted_labels: {o: [{label: a}]}}",
                "there are multiple label.restricted_labels configs for label a",
            ),
            ("label: {additional_labels: [b]}", "additional_labels"),
            ("size: {s: 1}", "doesn't support merging: size"),
            (
                "owners: {mdyamlrepos: [o]}",
                "doesn't support merging: owners",
            ),
            // What is the same as nothing where it is a struct, and what is there all the same where it is none.
            (
                "size: {s: 0}\nslack: {}\nblunderbuss: {}\nconfig_updater: {gzip: false, maps: }\nretitle: {allow_closed_issues: false}\nhelp: {help_guidelines_url: ''}\nlabel: {}",
                "",
            ),
            (
                "blunderbuss: {request_count: 0}",
                "doesn't support merging: blunderbuss",
            ),
            (
                "config_updater: {maps: {}}",
                "doesn't support merging: config_updater",
            ),
            ("heart: {adorees: []}", "doesn't support merging: heart"),
            ("jira: {}", "doesn't support merging: jira"),
            (
                "repo_milestone: {}",
                "doesn't support merging: repo_milestone",
            ),
            ("blockades: []", "doesn't support merging: blockades"),
        ],
        |shard| errors(&[("plugins.yaml", MAIN), (SHARD, shard)]),
    );
    // Of mounted volumes' own files nothing is read, nor of files with another ending.
    let config = plugins(&[
        ("plugins.yaml", MAIN),
        (SHARD, "plugins: {p: {plugins: [lgtm]}}"),
        ("plugin-sup/..data/b_pluginconfig.yaml", "size: {s: 1}"),
        ("plugin-sup/o/other.yaml", "size: {s: 1}"),
    ]);
    assert_eq!(config.enabled_plugins("p", "any"), ["lgtm"]);
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sizes {
    s: u32,
    label: String,
}

/// `plugins.yaml` and one shard, read with what one plugin registers, as checkconfig reads them.
fn read_with_section(main: &str, shard: &str, names: &[&str]) -> Loaded {
    read_with_names(main, shard, names, true)
}

fn read_with_names(main: &str, shard: &str, names: &[&str], refuse_unknown: bool) -> Loaded {
    let mut files = FileSet::new(Layout {
        config: "config.yaml".to_owned(),
        plugins: Some("plugins.yaml".to_owned()),
        plugin_supplemental_dirs: vec!["plugin-sup".to_owned()],
        ..Layout::default()
    });
    files.insert("config.yaml", *b"{}");
    files.insert("plugins.yaml", main.as_bytes());
    files.insert(SHARD, shard.as_bytes());
    let section = Section::new("size", |sizes: &mut Sizes| match sizes.s {
        0 => {
            // Completed here, as Prow completes before it checks.
            sizes.s = 10;
            vec![]
        }
        1..=10 => vec![],
        s => vec![Problem::error("s", format!("{s} is too large"))],
    });
    let mut registry = Registry::new().with(section);
    if !names.is_empty() {
        registry = registry.with_names(names.iter().copied());
    }
    let options = LoadOptions {
        plugins: Some(&registry),
        refuse_unknown_plugins: refuse_unknown,
        ..LoadOptions::default()
    };
    Config::load(&files, options)
}

/// HOOK-054, CFG-112: a name that no plugin has is an error for checkconfig alone; who runs it is told, and all else that
/// stands there is on.
#[test]
fn hook_054_an_unknown_plugin_is_refused_by_checkconfig_alone() {
    let main = "plugins: {o: {plugins: [hold, cat-fork]}}";
    let load = |refuse| read_with_names(main, "{}", &["hold", "cat"], refuse);
    let told = |found: &[trireme_config::Diagnostic]| -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    };
    let checked = load(true);
    assert_eq!(
        told(&checked.errors),
        ["plugins.yaml:1:31: plugins: unknown plugin: cat-fork"]
    );
    assert_eq!(checked.warnings, []);
    let runs = load(false);
    assert_eq!(
        told(&runs.warnings),
        ["plugins.yaml:1:31: plugins: unknown plugin: cat-fork: nothing happens where it is on"]
    );
    let (_, plugins) = runs.accepted().unwrap();
    assert!(plugins.is_enabled("hold", "o", "r"));
    let not_built: Vec<&String> = plugins.not_built.iter().collect();
    assert_eq!(not_built, ["cat-fork"]);
}

/// HOOK-050: what nobody knows is told of and does no harm; keys are found however they are spelt; numbers and booleans
/// are texts where texts are wanted.
#[test]
fn hook_050_the_file_is_read_as_go_reads_json() {
    let main = "\
PLUGINS: {o: {Plugins: [hold, 7, true], excluded_Repos: [5]}}
External_Plugins: {o/r: [{NAME: 8, Events: [push]}]}
triggers: [{Repos: [o], trusted_Apps: [9]}]
Size: {S: 3, LABEL: 12, nothing: 1, empty: }
nonsense: {a: 1}
";
    let loaded = read_with_section(main, "{}", &[]);
    let warned: Vec<&str> = loaded.warnings.iter().map(|w| w.field.as_str()).collect();
    for unknown in ["nonsense", "size.nothing", "size.empty"] {
        assert!(
            warned.iter().any(|at| at.eq_ignore_ascii_case(unknown)),
            "{unknown}: {warned:?}"
        );
    }
    let (_, config) = loaded.accepted().unwrap();
    assert_eq!(config.enabled_plugins("o", "r"), ["hold", "7", "true"]);
    assert_eq!(config.enabled_plugins("o", "5"), Vec::<&str>::new());
    let external: Vec<_> = config.external_plugins("o", "r", "push").collect();
    assert_eq!(external[0].name, "8");
    assert_eq!(config.trigger_for("o", "r").trusted_apps, ["9"]);
    let sizes: &Sizes = config.section("size").unwrap();
    assert_eq!((sizes.s, sizes.label.as_str()), (3, "12"));
}

/// HOOK-049: parsed, then shards merged, then defaults, then checked; names of plugins are checked where they are known.
/// What is wrong at one step is told whole.
#[test]
fn hook_049_each_step_of_the_load_sees_what_the_former_made() {
    // What does not parse stands beside what does not either.
    let broken = read_with_section("plugins: [", "triggers: {", &[]);
    let files: Vec<&str> = broken.errors.iter().map(|e| e.file.as_str()).collect();
    assert_eq!(files, [SHARD, "plugins.yaml"]);
    // A shard's entries get their defaults, and are checked against the main file's.
    let main = "plugins: {o: {plugins: [hold]}}";
    let shard = "external_plugins: {p: [{name: x}]}\ntriggers: [{repos: [p], trusted_org: p}]";
    let (_, config) = read_with_section(main, shard, &[]).accepted().unwrap();
    let external: Vec<_> = config.external_plugins("p", "r", "push").collect();
    assert_eq!(external[0].endpoint, "http://x");
    assert_eq!(
        config.trigger_for("p", "r").join_org_url,
        "https://github.com/orgs/p/people"
    );
    let sizes: &Sizes = config.section("size").unwrap();
    assert_eq!(sizes.s, 10, "a section that no file has is completed too");
    let told = |main: &str, shard: &str, names: &[&str]| -> Vec<String> {
        let errors = read_with_section(main, shard, names).errors.into_iter();
        errors.map(|found| found.message).collect()
    };
    let twice = told(main, "plugins: {o/r: {plugins: [hold]}}", &[]);
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert!(
        twice[0].contains("plugins [hold] are duplicated for r and o"),
        "{twice:?}"
    );
    // Sections of plugins are checked as merged, and so are names, if anybody knows them.
    let wrong = told(
        "size: {s: 11}\nplugins: {o: {plugins: [hold]}}",
        "plugins: {p: {plugins: [hodl]}}",
        &["hold"],
    );
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(
        wrong.iter().any(|why| why == "11 is too large"),
        "{wrong:?}"
    );
    assert!(
        wrong.iter().any(|why| why.contains("unknown plugin: hodl")),
        "{wrong:?}"
    );
    assert_eq!(
        told(
            "plugins: {o: {plugins: [hold]}}",
            "plugins: {p: {plugins: [hodl]}}",
            &[]
        ),
        Vec::<String>::new()
    );
}
