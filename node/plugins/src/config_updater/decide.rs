//! Which keys of which ConfigMaps a merged pull request changes, and what is said about it.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use trireme_forge::{ChangedFile, FileStatus, PullRequest, RepoId};
use trireme_proto::state::effect::Action;
use trireme_proto::state::{ConfigMapEffect, ConfigMapKey, Subject};

use super::settings::{Settings, Spec, basename};
use crate::decision::{Counted, Decision, Target, Text};
use crate::respond::answer_to;

/// One ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConfigMapId {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) cluster: String,
}

/// In the order of their names; of each its keys in the order of the files.
pub(crate) type Updates = BTreeMap<ConfigMapId, Vec<ConfigMapKey>>;

/// PLG-CONFIGUPDATER-002 … 007
pub(super) fn updates(
    settings: &Settings,
    repo: &RepoId,
    files: &[ChangedFile],
    prowjob_namespace: &str,
) -> Updates {
    let mut updates = Updates::new();
    for file in files {
        let spec = settings.spec_of(&file.path);
        let Some(spec) = spec.filter(|spec| spec.takes_from(repo)) else {
            continue;
        };
        for key in keys(settings, spec, file) {
            let name = name(spec, &key.key);
            for (cluster, namespace) in targets(spec, prowjob_namespace) {
                let id = id(name, cluster, namespace);
                updates.entry(id).or_default().push(key.clone());
            }
        }
    }
    updates
}

/// What all of these files make of every ConfigMap that they feed, whatever it held before: a key is in its own partition
/// and in none of the others, so that one that was emptied is among them (PLG-CONFIGUPDATER-010).
pub(super) fn whole<'p>(
    settings: &Settings,
    repo: &RepoId,
    paths: impl Iterator<Item = &'p str>,
    prowjob_namespace: &str,
) -> Updates {
    let mut updates = Updates::new();
    for path in paths {
        let spec = settings.spec_of(path);
        let Some(spec) = spec.filter(|spec| spec.takes_from(repo)) else {
            continue;
        };
        let file = added(path);
        for key in keys(settings, spec, &file) {
            let name = name(spec, &key.key);
            for (cluster, namespace) in targets(spec, prowjob_namespace) {
                let other = spec.partitioned_names.iter().filter(|other| *other != name);
                for other in other {
                    let id = id(other, cluster, namespace);
                    updates.entry(id).or_default().push(gone(key.key.clone()));
                }
                let id = id(name, cluster, namespace);
                updates.entry(id).or_default().push(key.clone());
            }
        }
    }
    updates
}

fn id(name: &str, cluster: &str, namespace: &str) -> ConfigMapId {
    ConfigMapId {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        cluster: cluster.to_owned(),
    }
}

/// The clusters and namespaces of an entry (PLG-CONFIGUPDATER-005).
fn targets<'s>(
    spec: &'s Spec,
    prowjob_namespace: &'s str,
) -> impl Iterator<Item = (&'s str, &'s str)> {
    spec.clusters.iter().flat_map(move |(cluster, namespaces)| {
        let namespace = move |namespace: &'s String| match namespace.as_str() {
            "" => prowjob_namespace,
            namespace => namespace,
        };
        let namespaces = namespaces.iter().map(namespace);
        namespaces.map(|namespace| (cluster.as_str(), namespace))
    })
}

fn added(path: &str) -> ChangedFile {
    ChangedFile {
        path: path.to_owned(),
        previous_path: None,
        status: FileStatus::Added,
        additions: 0,
        deletions: 0,
        patch: None,
        blob_url: String::new(),
    }
}

fn gone(key: String) -> ConfigMapKey {
    ConfigMapKey {
        key,
        ..ConfigMapKey::default()
    }
}

/// PLG-CONFIGUPDATER-006
fn name<'s>(spec: &'s Spec, key: &str) -> &'s str {
    let names = &spec.partitioned_names;
    let first = Sha256::digest(key.as_bytes())[0];
    let partition = usize::from(first).checked_rem(names.len());
    partition
        .and_then(|partition| names.get(partition))
        .unwrap_or(&spec.name)
}

/// PLG-CONFIGUPDATER-004: what a file changes in each of its targets.
fn keys(settings: &Settings, spec: &Spec, file: &ChangedFile) -> Vec<ConfigMapKey> {
    let key_of = |path: &str| match spec.use_full_path_as_key {
        true => path.replace('/', "-"),
        false => basename(path).to_owned(),
    };
    let mut keys = Vec::new();
    let key = if spec.key.is_empty() {
        if let (FileStatus::Renamed, Some(previous)) = (file.status, &file.previous_path) {
            keys.push(gone(key_of(previous)));
        }
        key_of(&file.path)
    } else {
        spec.key.clone()
    };
    keys.push(match file.status {
        FileStatus::Removed => gone(key),
        _ => ConfigMapKey {
            key,
            path: file.path.clone(),
            gzip: spec.gzip.unwrap_or(settings.gzip),
        },
    });
    keys
}

/// One write for each ConfigMap, then one reply about those that were updated (PLG-CONFIGUPDATER-009). `sha` is what was
/// merged.
pub(super) fn decide(
    settings: &Settings,
    pr: &PullRequest,
    sha: &str,
    files: &[ChangedFile],
    prowjob_namespace: &str,
) -> Decision {
    let updates = updates(settings, &pr.repo, files, prowjob_namespace);
    let indent = if updates.len() > 1 { "   " } else { " " };
    let mut decision = Decision::nothing();
    let mut told = Vec::new();
    for (id, keys) in updates {
        let text = tell(&id, &keys, indent);
        let update = decision.push(Action::ConfigMap(ConfigMapEffect {
            subject: Some(Subject {
                org: pr.repo.org.clone(),
                repo: pr.repo.repo.clone(),
                number: pr.number,
            }),
            sha: sha.to_owned(),
            cluster: id.cluster,
            namespace: id.namespace,
            name: id.name,
            keys,
        }));
        told.push((update, text));
    }
    if told.is_empty() {
        return decision;
    }
    let counted = Counted {
        one: "Updated the {done}",
        many: "Updated the following {count} configmaps:\n * {done}\n",
        separator: "\n * ",
    };
    let message = Text::default().and_counted(told, &counted);
    let on = Target::new(&pr.repo, pr.number);
    let (body, url, login) = (&pr.body, &pr.html_url, &pr.author.login);
    decision.push(answer_to(&on, body, url, login, message));
    decision
}

fn tell(id: &ConfigMapId, keys: &[ConfigMapKey], indent: &str) -> String {
    let ConfigMapId {
        name,
        namespace,
        cluster,
    } = id;
    let mut text = format!("`{name}` configmap");
    if !namespace.is_empty() {
        text.push_str(&format!(" in namespace `{namespace}`"));
    }
    if !cluster.is_empty() {
        text.push_str(&format!(" at cluster `{cluster}`"));
    }
    text.push_str(" using the following files:");
    for ConfigMapKey { key, path, .. } in keys {
        text.push_str(&format!("\n{indent}- key `{key}` using file `{path}`"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::settings::SECTION;
    use super::*;
    use crate::testing::{plugins_yaml, pull_request};

    fn file(status: FileStatus, path: &str) -> ChangedFile {
        ChangedFile {
            path: path.to_owned(),
            previous_path: None,
            status,
            additions: 1,
            deletions: 0,
            patch: None,
            blob_url: String::new(),
        }
    }

    fn renamed(from: &str, to: &str) -> ChangedFile {
        ChangedFile {
            previous_path: Some(from.to_owned()),
            ..file(FileStatus::Renamed, to)
        }
    }

    fn decided(maps: &str, files: &[ChangedFile]) -> String {
        let plugins = plugins_yaml(&format!("config_updater:\n{maps}")).unwrap();
        let settings = plugins.section::<Settings>(SECTION).unwrap();
        decide(settings, &pull_request(), "m1", files, "prow").to_string()
    }

    /// The writes alone.
    fn writes(maps: &str, files: &[ChangedFile]) -> String {
        let decided = decided(maps, files);
        let end = decided.find("\ncomment: ").unwrap_or(decided.len());
        decided[..end].to_owned()
    }

    #[test]
    fn plg_configupdater_004_keys_are_names_of_files_unless_told_otherwise() {
        let changes = [
            file(FileStatus::Modified, "jobs/a/b.yaml"),
            file(FileStatus::Removed, "jobs/a/c.yaml"),
            renamed("jobs/d.yaml", "jobs/e.yaml"),
            file(FileStatus::Added, "other.yaml"),
        ];
        insta::assert_snapshot!(writes("  maps: {'jobs/**/*.yaml': {name: jobs}}", &changes), @r"
        config map prow/jobs in default
        b.yaml=jobs/a/b.yaml
        -c.yaml
        -d.yaml
        e.yaml=jobs/e.yaml
        ");
        let full = "  maps: {'jobs/**/*.yaml': {name: jobs, use_full_path_as_key: true}}";
        insta::assert_snapshot!(writes(full, &changes), @r"
        config map prow/jobs in default
        jobs-a-b.yaml=jobs/a/b.yaml
        -jobs-a-c.yaml
        -jobs-d.yaml
        jobs-e.yaml=jobs/e.yaml
        ");
        // With a key of its own a file that moves keeps it.
        let named = "  maps: {'jobs/*.yaml': {name: jobs, key: all}}";
        insta::assert_snapshot!(writes(named, &changes), @r"
        config map prow/jobs in default
        all=jobs/e.yaml
        ");
    }

    #[test]
    fn plg_configupdater_005_each_cluster_and_namespace_is_a_target() {
        let maps =
            "  maps: {a: {name: cm, clusters: {default: ['', x], build: [z]}}, b: {name: cm}}";
        let changes = [
            file(FileStatus::Modified, "a"),
            file(FileStatus::Modified, "b"),
        ];
        insta::assert_snapshot!(writes(maps, &changes), @r"
        config map prow/cm in default
        a=a
        b=b
        config map x/cm in default
        a=a
        config map z/cm in build
        a=a
        ");
    }

    #[test]
    fn plg_configupdater_006_keys_choose_their_partition() {
        let maps = "  maps: {'jobs/*': {partitioned_names: [p0, p1, p2]}}";
        let changes = ["a", "b", "c", "d"].map(|name| {
            let path = format!("jobs/{name}");
            file(FileStatus::Modified, &path)
        });
        // The first bytes of their hashes are 0xca, 0x3e, 0x2e and 0x18.
        insta::assert_snapshot!(writes(maps, &changes), @r"
        config map prow/p0 in default
        d=jobs/d
        config map prow/p1 in default
        a=jobs/a
        c=jobs/c
        config map prow/p2 in default
        b=jobs/b
        ");
    }

    /// What all files come to: a key that moved to another partition, or out of one that is empty now, is taken away there.
    #[test]
    fn plg_configupdater_010_all_files_leave_a_key_in_one_partition() {
        let maps = "  maps: {'jobs/*': {partitioned_names: [p0, p1, p2]}, a: {name: cm, denied_repos: [org]}}";
        let plugins = plugins_yaml(&format!("config_updater:\n{maps}")).unwrap();
        let settings = plugins.section::<Settings>(SECTION).unwrap();
        let repo = pull_request().repo;
        let told = |paths: &[&str]| -> Vec<String> {
            let updates = whole(settings, &repo, paths.iter().copied(), "prow");
            let told = updates.iter().map(|(id, keys)| {
                let keys = keys.iter().map(|key| match key.path.as_str() {
                    "" => format!("-{}", key.key),
                    path => format!("{}={path}", key.key),
                });
                format!("{}: {}", id.name, keys.collect::<Vec<_>>().join(" "))
            });
            told.collect()
        };
        // The first bytes of their hashes are 0xca and 0x18.
        assert_eq!(
            told(&["a", "jobs/a", "jobs/d", "other"]),
            ["p0: -a d=jobs/d", "p1: a=jobs/a -d", "p2: -a -d"]
        );
        assert_eq!(told(&["other"]), [""; 0], "no file, no change");
    }

    #[test]
    fn plg_configupdater_007_an_entry_says_for_itself_whether_it_is_packed() {
        let maps = "  gzip: true\n  maps: {a: {name: cm}, b: {name: cm, gzip: false}}";
        let plugins = plugins_yaml(&format!("config_updater:\n{maps}")).unwrap();
        let settings = plugins.section::<Settings>(SECTION).unwrap();
        let changes = [
            file(FileStatus::Modified, "a"),
            file(FileStatus::Modified, "b"),
        ];
        let updates = updates(settings, &pull_request().repo, &changes, "prow");
        let packed = updates.values().flatten().map(|key| key.gzip);
        assert_eq!(packed.collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn plg_configupdater_009_one_reply_tells_what_was_updated() {
        let maps =
            "  maps: {a: {name: cm, clusters: {default: [x], build: [z]}}, b: {name: other}}";
        assert_eq!(decided(maps, &[file(FileStatus::Modified, "c")]), "nothing");
        insta::assert_snapshot!(decided(maps, &[file(FileStatus::Removed, "b")]), @r"
        config map prow/other in default
        -b
        comment: @author: Updated the {`other` configmap in namespace `prow` at cluster `default` using the following files:
         - key `b` using file `` if 0 is done}

        <details>

        In response to [this](https://github.com/org/repo/pull/5):

        >Fixes #77


        Instructions for interacting with me using PR comments are available [here](https://git.k8s.io/community/contributors/guide/pull-requests.md).  If you have questions or suggestions related to my behavior, please file an issue against the [kubernetes-sigs/prow](https://github.com/kubernetes-sigs/prow/issues/new?title=Prow%20issue:) repository.
        </details>
        ");
        let both = decided(maps, &[file(FileStatus::Modified, "a")]);
        let (_, said) = both.split_once("comment: ").unwrap();
        let (said, _) = said.split_once("\n\n<details>").unwrap();
        insta::assert_snapshot!(said, @r"
        @author: Updated the following 2 configmaps:
         * {`cm` configmap in namespace `x` at cluster `default` using the following files:
           - key `a` using file `a` if 0 is done}
         * {`cm` configmap in namespace `z` at cluster `build` using the following files:
           - key `a` using file `a` if 1 is done}
        ");
    }
}
