//! `plugins.yaml` and its shards: which plugins are on, and what is refused.

use trireme_config::PluginConfig;

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
