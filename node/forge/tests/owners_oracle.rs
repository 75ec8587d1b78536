//! What upstream answers about real and made-up OWNERS trees, we answer too.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by unwrap and say what they skip"
)]

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use trireme_forge::owners::{Aliases, LayeredSet, OwnersOptions, RepoOwners};

/// All files below a directory that have a say, by path.
fn files_in(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_in(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            files.insert(name.to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

fn strings(value: &Value) -> BTreeSet<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

fn layers(value: &Value) -> Vec<BTreeSet<String>> {
    let list = value.as_array().unwrap();
    list.iter()
        .map(|layer| layer.as_object().unwrap().keys().cloned().collect())
        .collect()
}

fn aliases_as_json(aliases: &Aliases) -> Value {
    aliases
        .iter()
        .map(|(name, members)| (name.to_owned(), Value::from_iter(members.iter().cloned())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// OWN-002, OWN-003, OWN-004, OWN-005, OWN-006, OWN-007, OWN-008, OWN-009, OWN-011, OWN-013, OWN-014, OWN-015, OWN-016
#[test]
fn owners_are_upstreams() {
    let Some(lines) = shared::oracle("owners.jsonl.gz") else {
        return;
    };
    let mut trees: BTreeMap<(String, bool), RepoOwners> = BTreeMap::new();
    let (mut repos, mut paths, mut aliases) = (0, 0, 0);
    for line in lines {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        match line["kind"].as_str().unwrap() {
            "repo" => {
                let name = format!("{}/{}", text("org"), text("repo"));
                let mut files = BTreeMap::new();
                match line["files"].as_object() {
                    Some(inline) => {
                        files.extend(inline.iter().map(|(path, content)| {
                            (path.clone(), content.as_str().unwrap().into())
                        }))
                    }
                    None => {
                        let root = shared::dir().unwrap().join("corpus/owners").join(&name);
                        files_in(&root, &root, &mut files);
                    }
                }
                let options = OwnersOptions {
                    md_yaml: line["md_yaml"].as_bool().unwrap(),
                    dir_denylist: line["denylist"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|p| p.as_str().unwrap().to_owned())
                        .collect(),
                    ..Default::default()
                };
                let files = files
                    .iter()
                    .map(|(path, bytes)| (path.as_str(), bytes.as_slice()));
                let owners = RepoOwners::from_files(files, &options);
                assert_eq!(aliases_as_json(owners.aliases()), line["aliases"], "{name}");
                assert_eq!(
                    owners.all_approvers(),
                    strings(&line["all_approvers"]),
                    "{name}"
                );
                assert_eq!(
                    owners.all_reviewers(),
                    strings(&line["all_reviewers"]),
                    "{name}"
                );
                assert_eq!(owners.all_owners(), strings(&line["all_owners"]), "{name}");
                assert_eq!(
                    owners.top_level_approvers(),
                    strings(&line["top_level_approvers"]),
                    "{name}"
                );
                trees.insert((name, options.md_yaml), owners);
                repos += 1;
            }
            "path" => {
                let key = (
                    format!("{}/{}", text("org"), text("repo")),
                    line["md_yaml"].as_bool().unwrap(),
                );
                let owners = &trees[&key];
                let path = text("path");
                let say = format!("{key:?} {path}");
                let same_layers = |ours: LayeredSet, theirs: &str, flat: &str| {
                    assert_eq!(ours.layers(), layers(&line[theirs]), "{say} {theirs}");
                    assert_eq!(ours.to_set(), strings(&line[flat]), "{say} {flat}");
                };
                same_layers(owners.approvers(&path), "approvers_layers", "approvers");
                same_layers(owners.reviewers(&path), "reviewers_layers", "reviewers");
                assert_eq!(
                    owners.leaf_approvers(&path),
                    strings(&line["leaf_approvers"]),
                    "{say}"
                );
                assert_eq!(
                    owners.leaf_reviewers(&path),
                    strings(&line["leaf_reviewers"]),
                    "{say}"
                );
                assert_eq!(
                    owners.required_reviewers(&path),
                    strings(&line["required_reviewers"]),
                    "{say}"
                );
                assert_eq!(owners.labels(&path), strings(&line["labels"]), "{say}");
                assert_eq!(
                    owners.find_approver_owners_for_file(&path),
                    text("approver_owners_file_dir"),
                    "{say}"
                );
                assert_eq!(
                    owners.find_reviewer_owners_for_file(&path),
                    text("reviewer_owners_file_dir"),
                    "{say}"
                );
                assert_eq!(
                    owners.is_no_parent_owners(&path),
                    line["no_parent_owners"].as_bool().unwrap(),
                    "{say}"
                );
                assert_eq!(
                    owners.is_auto_approve_unowned_subfolders(&path),
                    line["auto_approve_unowned_subfolders"].as_bool().unwrap(),
                    "{say}"
                );
                paths += 1;
            }
            "aliases" => {
                let ours = Aliases::parse(text("text").as_bytes());
                match (&ours, line["error"].as_str()) {
                    (Ok((ours, _)), None) => {
                        assert_eq!(aliases_as_json(ours), line["aliases"], "{}", text("text"))
                    }
                    (Err(_), Some(_)) => {}
                    (ours, theirs) => panic!("{}: {ours:?} but {theirs:?}", text("text")),
                }
                aliases += 1;
            }
            other => panic!("unknown kind {other}"),
        }
    }
    println!("{repos} trees, {paths} paths, {aliases} alias files");
    assert!(repos > 0 && paths > 0 && aliases > 0);
}
