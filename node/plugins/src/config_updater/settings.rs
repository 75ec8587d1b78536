//! `config_updater` of `plugins.yaml`: which files feed which ConfigMaps.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use trireme_config::plugins::{Problem, Section};
use trireme_forge::RepoId;

use super::glob::Glob;

pub(super) const SECTION: &str = "config_updater";
/// Prow's name for the cluster that it runs in.
const DEFAULT_CLUSTER: &str = "default";
/// Prow picks a partition by one byte.
const MAX_PARTITIONS: usize = 256;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    cluster_groups: BTreeMap<String, ClusterGroup>,
    /// By the pattern of the files.
    pub(super) maps: BTreeMap<String, Spec>,
    pub(super) gzip: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ClusterGroup {
    clusters: Vec<String>,
    namespaces: Vec<String>,
}

/// What becomes of the files of one pattern.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Spec {
    pub(super) name: String,
    /// Instead of `name`: keys are spread over these.
    pub(super) partitioned_names: Vec<String>,
    pub(super) key: String,
    /// Unset: as for all.
    pub(super) gzip: Option<bool>,
    /// Namespaces by cluster; those of `cluster_groups` are among them once the section was read.
    pub(super) clusters: BTreeMap<String, Vec<String>>,
    cluster_groups: Vec<String>,
    pub(super) use_full_path_as_key: bool,
    /// `org` or `org/repo`; empty = any.
    allowed_repos: Vec<String>,
    denied_repos: Vec<String>,
    #[serde(skip)]
    glob: Option<Glob>,
}

impl Spec {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// PLG-CONFIGUPDATER-003
    pub(super) fn takes_from(&self, repo: &RepoId) -> bool {
        let full = repo.to_string();
        let names = |list: &[String]| list.iter().any(|one| *one == full || *one == repo.org);
        !names(&self.denied_repos) && (self.allowed_repos.is_empty() || names(&self.allowed_repos))
    }
}

impl Settings {
    /// What a file feeds (PLG-CONFIGUPDATER-002, PLG-CONFIGUPDATER-012).
    pub(super) fn spec_of(&self, path: &str) -> Option<&Spec> {
        let matching = self.maps.iter().filter_map(|(pattern, spec)| {
            let glob = spec.glob.as_ref().filter(|glob| glob.is_match(path))?;
            Some((glob.rank(), pattern, spec))
        });
        let best = matching.min_by_key(|(rank, pattern, _)| (*rank, *pattern));
        best.map(|(_, _, spec)| spec)
    }

    /// Whether any file of the repository could feed anything.
    pub(super) fn take_from(&self, repo: &RepoId) -> bool {
        self.maps.values().any(|spec| spec.takes_from(repo))
    }

    /// HOOK-059, HOOK-062, HOOK-074
    fn complete(&mut self) -> Vec<Problem> {
        if self.maps.is_empty() {
            for name in ["config", "plugins"] {
                let file = format!("config/prow/{name}.yaml");
                self.maps.insert(file, Spec::named(name));
            }
        }
        let mut problems = Vec::new();
        let mut keys = BTreeSet::new();
        for (pattern, spec) in &mut self.maps {
            if spec.clusters.is_empty() && spec.cluster_groups.is_empty() {
                let everywhere = (DEFAULT_CLUSTER.to_owned(), vec![String::new()]);
                spec.clusters = BTreeMap::from([everywhere]);
            }
            problems.extend(wrong(pattern, spec, &self.cluster_groups, &mut keys));
            match Glob::new(pattern) {
                Ok(glob) => spec.glob = Some(glob),
                Err(why) => problems.push(Problem::advice(
                    format!("maps.{pattern}"),
                    format!("matches no file: {why}"),
                )),
            }
            for name in std::mem::take(&mut spec.cluster_groups) {
                let Some(group) = self.cluster_groups.get(&name) else {
                    continue;
                };
                for cluster in &group.clusters {
                    let namespaces = spec.clusters.entry(cluster.clone()).or_default();
                    namespaces.extend_from_slice(&group.namespaces);
                }
            }
        }
        problems
    }
}

fn wrong(
    pattern: &str,
    spec: &Spec,
    groups: &BTreeMap<String, ClusterGroup>,
    keys: &mut BTreeSet<(String, String, String, String)>,
) -> Vec<Problem> {
    let at = |field: &str| format!("maps.{pattern}{field}");
    let mut problems = Vec::new();
    if !spec.name.is_empty() && !spec.partitioned_names.is_empty() {
        let why = "'name' and 'partitioned_names' are mutually exclusive in the config_updater plugin configuration";
        problems.push(Problem::error(at(".partitioned_names"), why));
    }
    if spec.partitioned_names.len() > MAX_PARTITIONS {
        let why = format!(
            "the PartitionedNames field in config_updater plugin config currently supports a maximum of {MAX_PARTITIONS} partitions, but you have {} defined",
            spec.partitioned_names.len()
        );
        problems.push(Problem::error(at(".partitioned_names"), why));
    }
    let name = match spec.name.as_str() {
        "" => spec.partitioned_names.join(","),
        name => name.to_owned(),
    };
    let key = match spec.key.as_str() {
        "" => basename(pattern),
        key => key,
    };
    for (cluster, namespaces) in &spec.clusters {
        for namespace in namespaces {
            let used = (name.clone(), namespace.clone(), cluster.clone());
            if !keys.insert((used.0, used.1, used.2, key.to_owned())) {
                let why = format!("key {key} in configmap {name} updated with more than one file");
                problems.push(Problem::error(at(""), why));
            }
        }
    }
    if !spec.clusters.is_empty() && !spec.cluster_groups.is_empty() {
        let why = format!("item maps.{pattern} contains both clusters and cluster_groups");
        problems.push(Problem::error(at(".cluster_groups"), why));
        return problems;
    }
    for (index, group) in spec.cluster_groups.iter().enumerate() {
        if !groups.contains_key(group) {
            let why = format!(
                "item maps.{pattern}.cluster_groups.{index} references inexistent cluster group named {group}"
            );
            problems.push(Problem::error(at(&format!(".cluster_groups.{index}")), why));
        }
    }
    problems
}

/// As Go's `path.Base` for what is no directory.
pub(super) fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub(super) fn section() -> Section {
    Section::new(SECTION, Settings::complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plugins_yaml;

    fn read(section: &str) -> Result<Settings, String> {
        let plugins = plugins_yaml(&format!("config_updater:\n{section}"))?;
        Ok(plugins.section::<Settings>(SECTION).unwrap().clone())
    }

    fn told(problem: Result<Settings, String>) -> String {
        problem
            .map(|_| "accepted".to_owned())
            .unwrap_or_else(|why| why)
    }

    #[test]
    fn hook_059_what_cannot_be_meant_is_refused() {
        let partitions = vec!["a"; 257].join(", ");
        for (section, expected) in [
            ("  maps: {a: {name: b}}", "accepted"),
            (
                "  maps: {a: {name: b, partitioned_names: [c]}}",
                "'name' and 'partitioned_names' are mutually exclusive",
            ),
            (
                &format!("  maps: {{a: {{partitioned_names: [{partitions}]}}}}"),
                "a maximum of 256 partitions, but you have 257 defined",
            ),
            (
                "  maps: {x/a: {name: b}, z/a: {name: b}}",
                "key a in configmap b updated with more than one file",
            ),
            (
                "  maps: {x/a: {name: b, key: k}, z/c: {name: b, key: k}}",
                "key k in configmap b updated with more than one file",
            ),
            (
                "  maps: {x/a: {name: b, clusters: {default: [w]}}, z/a: {name: b}}",
                "accepted",
            ),
            (
                "  maps: {a: {name: b, clusters: {c: [d]}, cluster_groups: [g]}}\n  cluster_groups: {g: {}}",
                "item maps.a contains both clusters and cluster_groups",
            ),
            (
                "  maps: {a: {name: b, cluster_groups: [g, h]}}\n  cluster_groups: {g: {}}",
                "item maps.a.cluster_groups.1 references inexistent cluster group named h",
            ),
        ] {
            let answer = told(read(section));
            assert!(answer.contains(expected), "{section}: {answer}");
        }
    }

    /// HOOK-062: what stands there without a section.
    #[test]
    fn without_maps_prows_own_files_feed_their_config_maps() {
        let settings = read("  gzip: true").unwrap();
        assert!(settings.gzip);
        let spec = settings.spec_of("config/prow/plugins.yaml").unwrap();
        assert_eq!(spec.name, "plugins");
        let everywhere = ("default".to_owned(), vec![String::new()]);
        assert_eq!(spec.clusters, BTreeMap::from([everywhere]));
        assert!(settings.spec_of("config/prow/other.yaml").is_none());
    }

    #[test]
    fn hook_074_clusters_of_groups_come_with_all_fields() {
        let settings = read(
            "  cluster_groups: {builds: {clusters: [a, b], namespaces: [x, w]}, more: {clusters: [b], namespaces: [z]}}\n  maps: {'jobs/*': {name: cm, cluster_groups: [builds, more], use_full_path_as_key: true, allowed_repos: [org], denied_repos: [org/no]}}",
        )
        .unwrap();
        let spec = settings.spec_of("jobs/a").unwrap();
        let clusters: Vec<String> = spec
            .clusters
            .iter()
            .map(|(cluster, namespaces)| format!("{cluster}: {}", namespaces.join(" ")))
            .collect();
        assert_eq!(clusters, ["a: x w", "b: x w z"]);
        assert!(spec.use_full_path_as_key);
        assert!(spec.takes_from(&RepoId::new("org", "yes")));
        assert!(!spec.takes_from(&RepoId::new("org", "no")));
    }

    /// HOOK-050: as Go reads it, a cluster without namespaces is named and gets nothing; nothing else is meant instead.
    #[test]
    fn hook_050_a_cluster_without_namespaces_gets_nothing() {
        let settings = read(
            "  cluster_groups: {g: }\n  maps: {a: {name: b, clusters: {build: }}, c: {name: d, cluster_groups: [g]}, e: , f: {name: g, clusters: {}}}",
        )
        .unwrap();
        let clusters = |path: &str| settings.spec_of(path).unwrap().clusters.clone();
        assert_eq!(
            clusters("a"),
            BTreeMap::from([("build".to_owned(), vec![])])
        );
        assert_eq!(clusters("c"), BTreeMap::new());
        let everywhere = BTreeMap::from([("default".to_owned(), vec![String::new()])]);
        assert_eq!(
            (clusters("e"), clusters("f")),
            (everywhere.clone(), everywhere)
        );
    }

    #[test]
    fn plg_configupdater_003_repositories_are_let_in_and_shut_out() {
        for (lists, expected) in [
            ("", [true, true, true]),
            ("denied_repos: [org]", [false, false, true]),
            ("denied_repos: [org/repo]", [false, true, true]),
            ("allowed_repos: [org/repo]", [true, false, false]),
            (
                "allowed_repos: [org], denied_repos: [org/repo]",
                [false, true, false],
            ),
        ] {
            let settings = read(&format!("  maps: {{a: {{name: b, {lists}}}}}")).unwrap();
            let spec = settings.spec_of("a").unwrap();
            let repos = [("org", "repo"), ("org", "other"), ("else", "repo")];
            let taken = repos.map(|(org, repo)| spec.takes_from(&RepoId::new(org, repo)));
            assert_eq!(taken, expected, "{lists}");
        }
    }

    #[test]
    fn plg_configupdater_012_of_several_patterns_the_closest_is_meant() {
        let settings = read(
            "  maps: {jobs/a/x.yaml: {name: exact}, 'jobs/a/*.yaml': {name: near}, 'jobs/**/*.yaml': {name: wide}, '{jobs,other}/b/*': {name: first}, 'jobs/**/c': {name: second}, 'jobs/*/c': {name: third}}",
        )
        .unwrap();
        let of = |path| settings.spec_of(path).map(|spec| spec.name.as_str());
        assert_eq!(of("jobs/a/x.yaml"), Some("exact"));
        assert_eq!(of("jobs/a/y.yaml"), Some("near"));
        assert_eq!(of("jobs/b/y.yaml"), Some("wide"));
        assert_eq!(of("other/b/y.yaml"), Some("first"));
        assert_eq!(of("jobs/z/c"), Some("second"));
        assert_eq!(of("else"), None);
    }
}
