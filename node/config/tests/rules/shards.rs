//! Supplemental files (CFG-056…059, CFG-102).

use std::collections::BTreeSet;

use crate::stage::{accepted, errors, judge};

const SHARD: &str = "sup/o/a_prowconfig.yaml";

/// CFG-056: what shards may set, and what they may not.
#[test]
fn cfg_056_shards_set_what_can_be_merged() {
    judge(
        &[
            (
                "tide: {queries: [{orgs: [a]}], merge_method: {o: squash}}\nslack_reporter_configs: {o: {channel: c}}\nbranch-protection: {orgs: {o: {protect: true}}}",
                "",
            ),
            (
                "log_level: debug",
                "all other fields have no merging logic yet",
            ),
            (
                "tide: {sync_period: 1m}",
                "all other fields have no merging logic yet",
            ),
            (
                "presubmits: {o/r: [{name: a}]}\nperiodics: [{name: x}]\nprow_ignored: 1",
                "",
            ),
            ("", ""),
        ],
        |shard| errors(&[(SHARD, shard)]),
    );
    let config = accepted(&[
        (
            SHARD,
            "tide: {merge_method: {o: squash}}\npresubmits: {o/r: [{name: a}]}",
        ),
        ("sup/p/_prowconfig.yaml", "tide: {queries: [{orgs: [p]}]}"),
        ("sup/p/other.yaml", "log_level: debug"),
        ("sup/..data/b_prowconfig.yaml", "log_level: debug"),
    ]);
    assert_eq!(
        (config.job_counts(), config.prow.log_level.as_str()),
        ((0, 0, 0), "info")
    );
    assert_eq!(
        (
            config.prow.tide.queries.len(),
            config.prow.tide.merge_methods.len()
        ),
        (1, 1)
    );
}

/// CFG-057, CFG-102: what both say is an error; what only seems so is not.
#[test]
fn cfg_057_cfg_102_conflicts() {
    let org = |policy: &str| format!("branch-protection: {{orgs: {{o: {policy}}}}}");
    let conflict = "both branchprotection configs define a policy for";
    let cases = [
        (
            "tide: {merge_method: {o: squash}}".to_owned(),
            "tide: {merge_method: {o: merge}}".to_owned(),
            "passed more than once",
        ),
        (
            "slack_reporter_configs: {'*': {channel: c}}".into(),
            "slack_reporter_configs: {'*': {channel: c}}".into(),
            "passed more than once",
        ),
        (org("{protect: true}"), org("{protect: true}"), conflict),
        (
            org("{repos: {r: {protect: true}}}"),
            org("{repos: {r: {unmanaged: true}}}"),
            conflict,
        ),
        (
            org("{repos: {r: {branches: {b: {protect: true}}}}}"),
            org("{repos: {r: {branches: {b: {protect: false}}}}}"),
            conflict,
        ),
        (
            org("{protect: true}"),
            org("{repos: {r: {protect: true}}}"),
            "",
        ),
        (
            org("{repos: {r: {protect: true}}}"),
            org("{repos: {s: {protect: true}, r: {branches: {b: {protect: true}}}}}"),
            "",
        ),
        (
            "branch-protection: {protect: true}".into(),
            "branch-protection: {enforce_admins: true}".into(),
            "both brachprotection configs set a top-level policy",
        ),
        (
            "branch-protection: {allow_disabled_policies: true}".into(),
            "branch-protection: {allow_disabled_policies: false}".into(),
            "both branchprotection configs set allow_disabled_policies",
        ),
        (
            "branch-protection: {protect: true}".into(),
            "branch-protection: {protect-tested-repos: false}".into(),
            "",
        ),
        (
            "tide: {queries: [{orgs: [a]}]}".into(),
            "tide: {queries: [{orgs: [b]}]}".into(),
            "",
        ),
    ];
    for (main, shard, expected) in &cases {
        judge(
            &[((main.as_str(), shard.as_str()), *expected)],
            |(main, shard)| errors(&[("config.yaml", main), (SHARD, shard)]),
        );
    }
}

/// CFG-058: a shard into nothing is the shard, nothing changes nothing, and the same twice fails, but for queries.
#[test]
fn cfg_058_laws_of_merging() {
    let shard = "tide: {merge_method: {o: squash}}\nbranch-protection: {orgs: {o: {protect: true}}}\nslack_reporter_configs: {o: {channel: c}}\n";
    let queries = "tide: {queries: [{orgs: [a]}]}\n";
    let printed = |files: &[(&str, &str)]| serde_json::to_value(accepted(files).as_ref()).unwrap();
    assert_eq!(
        printed(&[(SHARD, shard)]),
        printed(&[("config.yaml", shard)])
    );
    assert_eq!(
        printed(&[("config.yaml", shard), (SHARD, "")]),
        printed(&[("config.yaml", shard)])
    );
    let twice = [(SHARD, shard), ("sup/p/b_prowconfig.yaml", shard)];
    assert_eq!(errors(&twice).len(), 3, "{:?}", errors(&twice));
    let twice = accepted(&[(SHARD, queries), ("sup/p/b_prowconfig.yaml", queries)]);
    assert_eq!(twice.prow.tide.queries[0].orgs, ["a", "a"]);
}

/// CFG-059: what the settings of a file reach.
#[test]
fn cfg_059_reach_of_a_file() {
    // Defaults hold for all, and so hide whether the file itself does: what it names is looked at here.
    let main = "tide: {merge_method: {a: squash, b/c: merge}, queries: [{orgs: [d], repos: [e/f]}]}\n\
                branch-protection: {orgs: {g: {protect: true, repos: {h: {}}}, i: {repos: {j: {protect: true}}}}}\n\
                slack_reporter_configs: {k: {channel: c}, l/m: {channel: c}, '*': {channel: c}}\n";
    let scope = accepted(&[("config.yaml", main)]).prow.scope();
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert!(scope.global);
    assert_eq!(scope.orgs, set(&["a", "d", "g", "k"]));
    assert_eq!(scope.repos, set(&["b/c", "e/f", "g/h", "i/j", "l/m"]));
}
