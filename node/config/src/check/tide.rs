//! Warnings about Tide: its queries against the plugins and branch protection, its contexts against each other.

use std::collections::{BTreeMap, BTreeSet};

use super::org_repos::OrgRepos;
use super::sources::Sources;
use super::{Warning, warning};
use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::job::Presubmit;
use crate::plugins::PluginConfig;
use crate::prow::ProwConfig;
use crate::prow::branch_protection::Policy;
use crate::tide::TideQuery;

/// Where Prow's documentation explains both.
const BEST_PRACTICES: &str =
    "https://docs.prow.k8s.io/docs/components/core/tide/maintainers/#best-practices";

/// Whether a query wants a label or wants it away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Require,
    Forbid,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::Forbid => "forbid",
        }
    }

    fn matches(self, label: &str, query: &TideQuery) -> bool {
        let labels = match self {
            Self::Require => &query.labels,
            Self::Forbid => &query.missing_labels,
        };
        labels.iter().any(|l| l == label)
    }
}

/// CFG-117, CFG-119: plugins with the labels that queries should honour.
const LABELS: [(&str, &str, Verb); 9] = [
    ("lgtm", "lgtm", Verb::Require),
    ("approve", "approved", Verb::Require),
    ("hold", "do-not-merge/hold", Verb::Forbid),
    ("wip", "do-not-merge/work-in-progress", Verb::Forbid),
    ("bugzilla", "bugzilla/invalid-bug", Verb::Forbid),
    (
        "verify-owners",
        "do-not-merge/invalid-owners-file",
        Verb::Forbid,
    ),
    (
        "release-note",
        "do-not-merge/release-note-label-needed",
        Verb::Forbid,
    ),
    (
        "cherry-pick-unapproved",
        "do-not-merge/cherry-pick-not-approved",
        Verb::Forbid,
    ),
    ("blockade", "do-not-merge/blocked-paths", Verb::Forbid),
];

/// `mismatched-tide`, or `mismatched-tide-lenient` for required labels only.
pub(super) fn requirements(
    config: &Config,
    plugins: &PluginConfig,
    lenient: bool,
    of_config: &Sources<'_>,
    of_plugins: &Sources<'_>,
) -> Vec<Diagnostic> {
    let rule = if lenient {
        Warning::MismatchedTideLenient
    } else {
        Warning::MismatchedTide
    };
    let queries = &config.prow.tide.queries;
    let all = OrgRepos::of_queries(queries);
    let mut found = Vec::new();
    let mut not_enabled = |plugin: &str,
                           label: &str,
                           verb: Verb,
                           honoured: &OrgRepos,
                           enabled: &OrgRepos| {
        for item in honoured.difference(enabled).items() {
            let message = format!(
                "the following orgs or repos {} the {label} label for merging but do not enable the {plugin} plugin: [{}]",
                verb.word(),
                item.text
            );
            let place = of_config.tide_query(&item.key);
            found.push(warning(rule, message, place).help(format!(
                "enable {plugin} for {} in the plugins' configuration, or take the label out of the query",
                item.key
            )));
        }
    };
    let honouring = |label: &str, verb: Verb| {
        OrgRepos::of_queries(queries.iter().filter(|query| verb.matches(label, query)))
    };
    let mut ignored = Vec::new();
    for (plugin, label, verb) in LABELS {
        if lenient && verb == Verb::Forbid {
            continue;
        }
        let honoured = honouring(label, verb);
        let enabled = OrgRepos::of_plugin(plugins.enabled_repos(plugin));
        not_enabled(plugin, label, verb, &honoured, &enabled);
        for item in enabled.intersection(&all).difference(&honoured).items() {
            let message = format!(
                "the following orgs or repos enable the {plugin} plugin but do not {} the {label} label for merging: [{}]",
                verb.word(),
                item.text
            );
            let place = of_config
                .tide_query(&item.key)
                .or_else(|| of_plugins.plugins(&item.key));
            let list = match verb {
                Verb::Require => "labels",
                Verb::Forbid => "missingLabels",
            };
            let help = format!(
                "add {label:?} to {list} of the Tide queries for {}",
                item.key
            );
            ignored.push(warning(rule, message, place).help(help));
        }
    }
    if !lenient {
        // One direction only: Tide refuses conflicts by itself.
        let honoured = honouring("needs-rebase", Verb::Forbid);
        let external = external(plugins, "needs-rebase");
        not_enabled(
            "needs-rebase",
            "needs-rebase",
            Verb::Forbid,
            &honoured,
            &external,
        );
    }
    found.append(&mut ignored);
    found
}

fn external(plugins: &PluginConfig, name: &str) -> OrgRepos {
    let mut on = OrgRepos::default();
    for (key, list) in &plugins.core.external_plugins {
        if !list.iter().any(|plugin| plugin.name == name) {
            continue;
        }
        if key.contains('/') {
            on.repos.insert(key.clone());
        } else {
            on.orgs.insert(key.clone(), BTreeSet::new());
        }
    }
    on
}

/// `needs-ok-to-test`.
pub(super) fn needs_ok_to_test(prow: &ProwConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (n, query) in prow.tide.queries.iter().enumerate() {
        let forbids = query
            .missing_labels
            .iter()
            .any(|label| label == "needs-ok-to-test");
        if !forbids || !query.labels.iter().any(|label| label == "lgtm") {
            continue;
        }
        let message = format!(
            "the tide query at position {n} forbids the \"needs-ok-to-test\" label and requires the \"lgtm\" label, which is \
             not recommended; see {BEST_PRACTICES} for more information"
        );
        let key = query.orgs.first().or(query.repos.first());
        let place = key.and_then(|key| sources.tide_query(key));
        found.push(warning(Warning::NeedsOkToTest, message, place));
    }
    found
}

fn is_strict(policy: &Policy) -> bool {
    policy.protect == Some(true)
        && policy
            .required_status_checks
            .as_ref()
            .is_some_and(|checks| checks.strict == Some(true))
}

/// `tide-strict-branch`. One strict branch makes the repository strict, one managed branch makes it Tide's.
pub(super) fn strict_branches(prow: &ProwConfig, sources: &Sources<'_>) -> Vec<Diagnostic> {
    const RULE: Warning = Warning::TideStrictBranch;
    let explanation = format!(
        "See #5: {BEST_PRACTICES} Also note that this validation is imperfect, see the check-config code for details"
    );
    if prow.tide.queries.is_empty() {
        return Vec::new();
    }
    let protection = &prow.branch_protection;
    if is_strict(&protection.policy) {
        let message = format!(
            "strict branchprotection context requirements cannot be globally enabled when Tide is configured for use. \
             {explanation}"
        );
        let place = sources.place(&["branch-protection", "required_status_checks", "strict"]);
        return vec![warning(RULE, message, place)];
    }
    let mut strict = OrgRepos::default();
    for (org_name, org) in &protection.orgs {
        let of_org = protection.policy.with(&org.policy);
        let (mut strict_repos, mut lax_repos) = (BTreeSet::new(), BTreeSet::new());
        for (repo_name, repo) in &org.repos {
            let of_repo = of_org.with(&repo.policy);
            let by_branch = repo
                .branches
                .values()
                .any(|branch| is_strict(&of_repo.with(&branch.policy)));
            let full = format!("{org_name}/{repo_name}");
            if is_strict(&of_repo) || by_branch {
                strict_repos.insert(full);
            } else {
                lax_repos.insert(full);
            }
        }
        if is_strict(&of_org) {
            strict.orgs.insert(org_name.clone(), lax_repos);
        } else {
            strict.repos.append(&mut strict_repos);
        }
    }
    let conflicts = OrgRepos::of_queries(&prow.tide.queries).intersection(&strict);
    let told = conflicts.items().into_iter().map(|item| {
        let message = format!(
            "the following enable strict branchprotection context requirements even though Tide handles merges: [{}]. \
             {explanation}",
            item.text
        );
        let place = sources.protection(&item.key).or_else(|| sources.tide_query(&item.key));
        warning(RULE, message, place)
    });
    told.collect()
}

/// `tide-context-policy`: on every branch that jobs, branch protection or context options name; on `master` where none
/// do. In-repo jobs do not count, and neither do Gerrit's repositories.
pub(super) fn context_policy(config: &Config, sources: &Sources<'_>) -> Vec<Diagnostic> {
    let mut known: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (repo, job) in config.all_jobs() {
        if let (Some(repo), crate::job::AnyJob::Presubmit(job)) = (repo, job) {
            let branches = known.entry(repo.to_owned()).or_default();
            branches.extend(job.brancher.branches.iter().map(String::as_str));
        }
    }
    for (org, of_org) in &config.prow.branch_protection.orgs {
        for (repo, of_repo) in &of_org.repos {
            let branches = known.entry(format!("{org}/{repo}")).or_default();
            branches.extend(of_repo.branches.keys().map(String::as_str));
        }
    }
    for (org, of_org) in &config.prow.tide.context_options.orgs {
        for (repo, of_repo) in &of_org.repos {
            let branches = known.entry(format!("{org}/{repo}")).or_default();
            branches.extend(of_repo.branches.keys().map(String::as_str));
        }
    }
    let mut found = Vec::new();
    for (key, mut branches) in known {
        let Some((org, repo)) = key.split_once('/').filter(|(_, repo)| !repo.contains('/')) else {
            continue;
        };
        if branches.is_empty() {
            branches.insert("master");
        }
        for branch in branches {
            if let Err(why) = config.context_policy(org, repo, branch) {
                let message =
                    format!("context policy for {branch} branch in {key} is invalid: {why}");
                let place = sources
                    .place(&[
                        "tide",
                        "context_options",
                        "orgs",
                        org,
                        "repos",
                        repo,
                        "branches",
                        branch,
                    ])
                    .or_else(|| {
                        sources.place(&["tide", "context_options", "orgs", org, "repos", repo])
                    });
                let found_here = match (place, first_job(config, &key, branch)) {
                    (None, Some(job)) => {
                        super::of_job(&job.base, "", Warning::TideContextPolicy, message)
                    }
                    (place, _) => warning(Warning::TideContextPolicy, message, place),
                };
                found.push(found_here);
            }
        }
    }
    found
}

fn first_job<'a>(config: &'a Config, repo: &str, branch: &str) -> Option<&'a Presubmit> {
    config.presubmits(repo).find(|job| job.could_run(branch))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, told};

    fn mismatches(tide: &str, plugins: &str, warnings: &[&str]) -> String {
        told(Files::default().config(tide).plugins(plugins), warnings)
    }

    /// The cases are upstream's, one label for each direction.
    #[test]
    fn cfg_117_plugins_and_the_queries_that_honour_their_labels() {
        let tide = |queries: &str| format!("tide:\n  queries:\n{queries}");
        let on = |key: &str| format!("plugins:\n  {key}:\n    plugins: [lgtm]\n");
        let query = |what: &str, labels: &str| format!("  - {what}\n    labels: [{labels}]\n");
        let check = |queries: &str, plugins: &str| {
            mismatches(&tide(queries), plugins, &["mismatched-tide-lenient"])
        };
        // Nothing to say: no Tide there, or both.
        for (queries, plugins) in [
            (query("orgs: [other]", ""), on("org")),
            (query("repos: [org/repo]", "lgtm"), on("org/repo")),
            (query("repos: [org/repo]", "lgtm"), on("org")),
            (query("orgs: [org]", "lgtm"), on("org")),
            (query("orgs: [org]", ""), "plugins: {}\n".to_owned()),
            (
                query("orgs: [org]\n    excludedRepos: [org/repo]", ""),
                on("org/repo"),
            ),
        ] {
            assert_eq!(check(&queries, &plugins), "", "{queries}{plugins}");
        }
        insta::assert_snapshot!(check(&query("orgs: [org]", "lgtm"), &on("org/repo")), @"config.yaml:3:12: tide.queries[0].orgs[0]: the following orgs or repos require the lgtm label for merging but do not enable the lgtm plugin: [org: org without repo(s) org/repo]; enable lgtm for org in the plugins' configuration, or take the label out of the query");
        insta::assert_snapshot!(check(&query("repos: [org/repo]", "lgtm, approved"), &on("org/repo")), @"config.yaml:3:13: tide.queries[0].repos[0]: the following orgs or repos require the approved label for merging but do not enable the approve plugin: [repo: org/repo]; enable approve for org/repo in the plugins' configuration, or take the label out of the query");
        insta::assert_snapshot!(check(&query("orgs: [org]\n    excludedRepos: [org/repo]", ""), &on("org")), @r#"config.yaml:3:12: tide.queries[0].orgs[0]: the following orgs or repos enable the lgtm plugin but do not require the lgtm label for merging: [org: org without repo(s) org/repo]; add "lgtm" to labels of the Tide queries for org"#);
        insta::assert_snapshot!(check(&query("orgs: [org]", ""), &on("org/repo")), @r#"plugins.yaml:2:3: plugins["org/repo"]: the following orgs or repos enable the lgtm plugin but do not require the lgtm label for merging: [repo: org/repo]; add "lgtm" to labels of the Tide queries for org/repo"#);
    }

    #[test]
    fn cfg_117_forbidden_labels_of_each_plugin() {
        let tide = "tide:\n  queries:\n  - repos: [a/b]\n";
        let plugins = "plugins:\n  a/b:\n    plugins: [hold, wip, bugzilla, verify-owners, release-note, cherry-pick-unapproved, blockade]\n";
        assert_eq!(mismatches(tide, plugins, &["mismatched-tide-lenient"]), "");
        let all = mismatches(
            tide,
            plugins,
            &["mismatched-tide", "mismatched-tide-lenient"],
        );
        let labels: Vec<_> = all
            .lines()
            .filter_map(|line| Some(line.split_once("forbid the ")?.1.split_once(" label")?.0))
            .collect();
        insta::assert_snapshot!(labels.join(" "), @"do-not-merge/blocked-paths bugzilla/invalid-bug do-not-merge/cherry-pick-not-approved do-not-merge/hold do-not-merge/release-note-label-needed do-not-merge/invalid-owners-file do-not-merge/work-in-progress");
        assert!(!all.contains("lenient"));
    }

    /// needs-rebase is looked at in one direction only.
    #[test]
    fn cfg_119_needs_rebase_is_external_and_one_sided() {
        let tide = "tide:\n  queries:\n  - repos: [a/b]\n    missingLabels: [needs-rebase]\n";
        let off = mismatches(tide, "plugins: {}\n", &["mismatched-tide"]);
        assert!(off.contains("forbid the needs-rebase label for merging but do not enable the needs-rebase plugin: [repo: a/b]"), "{off}");
        let on = "external_plugins:\n  a: [{name: needs-rebase}]\n";
        assert_eq!(mismatches(tide, on, &["mismatched-tide"]), "");
        assert_eq!(
            mismatches(
                "tide:\n  queries:\n  - repos: [a/b]\n",
                on,
                &["mismatched-tide"]
            ),
            ""
        );
        assert_eq!(
            mismatches(tide, "plugins: {}\n", &["mismatched-tide-lenient"]),
            ""
        );
    }

    #[test]
    fn cfg_115_needs_ok_to_test() {
        let tide = "tide:\n  queries:\n  - repos: [a/b]\n    labels: [lgtm]\n    missingLabels: [needs-ok-to-test]\n  - repos: [a/c]\n    missingLabels: [needs-ok-to-test]\n";
        insta::assert_snapshot!(mismatches(tide, "", &["needs-ok-to-test"]), @r#"config.yaml:3:13: tide.queries[0].repos[0]: the tide query at position 0 forbids the "needs-ok-to-test" label and requires the "lgtm" label, which is not recommended; see https://docs.prow.k8s.io/docs/components/core/tide/maintainers/#best-practices for more information"#);
    }

    #[test]
    fn cfg_115_tide_strict_branch() {
        let check = |text: &str| {
            let told = told(Files::default().config(text), &["tide-strict-branch"]);
            let items = told.lines().map(|line| {
                let place = line.split(": ").take(2).collect::<Vec<_>>().join(" ");
                let what = line
                    .split_once("merges: [")
                    .and_then(|(_, rest)| rest.split_once(']'));
                format!("{place}: {}", what.map_or("global", |(what, _)| what))
            });
            items.collect::<Vec<_>>().join("\n")
        };
        let strict = "{protect: true, required_status_checks: {strict: true}}";
        let tide = "tide: {queries: [{repos: [k/t]}]}\n";
        assert_eq!(check("tide: {queries: [{orgs: [k]}]}\n"), "");
        // Tide is not in use, or not there, or protection is off there.
        assert_eq!(check(&format!("branch-protection: {strict}\n")), "");
        assert_eq!(
            check(&format!(
                "tide: {{queries: [{{orgs: [k], excludedRepos: [k/t]}}]}}\nbranch-protection: {{orgs: {{k: {{protect: false, repos: {{t: {strict}}}}}}}}}\n"
            )),
            ""
        );
        assert_eq!(
            check(&format!(
                "{tide}branch-protection: {{orgs: {{k: {{protect: true, required_status_checks: {{strict: true}}, repos: {{t: {{protect: false}}}}}}}}}}\n"
            )),
            ""
        );
        insta::assert_snapshot!(check(&format!("{tide}branch-protection: {strict}\n")), @"config.yaml:2:61 branch-protection.required_status_checks.strict: global");
        insta::assert_snapshot!(check(&format!("tide: {{queries: [{{orgs: [k]}}]}}\nbranch-protection: {{orgs: {{k: {{repos: {{t: {strict}}}}}}}}}\n")), @"config.yaml:2:40 branch-protection.orgs.k.repos.t: repo: k/t");
        insta::assert_snapshot!(check(&format!("{tide}branch-protection: {{protect: true, orgs: {{k: {{required_status_checks: {{strict: true}}}}}}}}\n")), @"config.yaml:2:43 branch-protection.orgs.k: repo: k/t");
        insta::assert_snapshot!(check(&format!("{tide}branch-protection: {{protect: true, orgs: {{k: {{repos: {{t: {{branches: {{m: {{required_status_checks: {{strict: true}}}}}}}}}}}}}}}}\n")), @"config.yaml:2:55 branch-protection.orgs.k.repos.t: repo: k/t");
        insta::assert_snapshot!(check(&format!("tide: {{queries: [{{orgs: [k, l]}}]}}\nbranch-protection: {{orgs: {{k: {strict}}}}}\n")), @"config.yaml:2:28 branch-protection.orgs.k: org: k");
    }

    #[test]
    fn cfg_115_tide_context_policy() {
        let check = |config: &str, jobs: &str| {
            told(
                Files::default()
                    .config(config)
                    .job_file("jobs/a.yaml", jobs),
                &["tide-context-policy"],
            )
        };
        let job = |rest: &str| format!("  - {{spec: {{containers: [{{image: x}}]}}, {rest}}}\n");
        let of = |repo: &str, jobs: &[String]| format!("presubmits:\n  {repo}:\n{}", jobs.concat());
        let skipped = |context: &str, more: &str| {
            job(&format!(
                "name: one, context: {context}, skip_if_only_changed: md, {more}"
            ))
        };
        let protection = "tide: {context_options: {from-branch-protection: true}}\nbranch-protection: {orgs: {a: {repos: {b: {branches: {master: {protect: true, required_status_checks: {contexts: [ci/test]}}}}}}}}\n";
        insta::assert_snapshot!(check(protection, &of("a/b", &[skipped("ci/test", "branches: [^master$]")])), @r#"jobs/a.yaml:3:5: presubmits["a/b"][0]: context policy for master branch in a/b is invalid: contexts ci/test are defined as required and required if present"#);
        let options = "tide: {context_options: {orgs: {a: {repos: {b: {branches: {master: {required-if-present-contexts: [ci/coverage]}}}}}}}}\n";
        insta::assert_snapshot!(check(options, &of("a/b", &[skipped("ci/coverage", "optional: true, branches: [^master$]")])), @"config.yaml:1:60: tide.context_options.orgs.a.repos.b.branches.master: context policy for master branch in a/b is invalid: contexts ci/coverage are defined as optional and required if present");
        let fine = [
            job("name: one, context: a, branches: [a]"),
            job("name: two, always_run: true, context: a, branches: [b]"),
        ];
        assert_eq!(check("", &of("a/b", &fine)), "");
        assert_eq!(
            check(
                protection,
                &of(
                    "https://x.googlesource.com/linux",
                    &[skipped("ci/test", "")]
                )
            ),
            ""
        );
    }
}
