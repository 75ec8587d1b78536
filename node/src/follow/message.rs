//! What a version that was taken from a directory says of itself in the history.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use trireme_config::FileSet;
use trireme_raft::View;

/// Characters of the file `VERSION` that are shown.
const MAX_VERSION: usize = 80;
/// Paths that are named.
const MAX_PATHS: usize = 3;

/// Role and content by path, the latter as its sum.
pub(super) type Sums = BTreeMap<String, (String, Bytes)>;

/// Those of the version in force.
pub(super) fn in_force(view: &View) -> Sums {
    let version = view.config();
    let files = version.and_then(|version| view.config_files(version));
    let files = files.unwrap_or_default().into_iter();
    files
        .filter_map(|file| Some((file.path, (file.role, file.blob?.sha256))))
        .collect()
}

/// The same by role, and by paths that begin where those of one role part.
pub(super) fn placeless(sums: &Sums) -> BTreeSet<(&str, PathBuf, &Bytes)> {
    let mut roots: BTreeMap<&str, PathBuf> = BTreeMap::new();
    for (path, (role, _)) in sums {
        let dir = Path::new(path).parent().unwrap_or(Path::new(""));
        let root = roots.entry(role).or_insert_with(|| dir.to_owned());
        while !dir.starts_with(&*root) && root.pop() {}
    }
    let placeless = |path: &str, role: &str| {
        let path = Path::new(path);
        let root = roots.get(role);
        let rest = root.and_then(|root| path.strip_prefix(root).ok());
        rest.unwrap_or(path).to_owned()
    };
    sums.iter()
        .map(|(path, (role, sum))| (role.as_str(), placeless(path, role), sum))
        .collect()
}

/// The content of `VERSION` beside the main file, without what surrounds it.
pub(super) fn version(files: &FileSet) -> Option<String> {
    let path = std::path::Path::new(&files.layout.config).with_file_name("VERSION");
    let content = files.get(path.to_str()?)?;
    let text = String::from_utf8_lossy(content);
    let text: String = text.trim().chars().take(MAX_VERSION).collect();
    (!text.is_empty()).then_some(text)
}

/// What `VERSION` says (CFG-013), and what changed against the version in force.
pub(super) fn words(version: Option<String>, before: &Sums, now: &Sums) -> String {
    let is_version = |path: &str| path == "VERSION" || path.ends_with("/VERSION");
    let changed: Vec<&str> = now
        .iter()
        .filter(|(path, sum)| !is_version(path) && before.get(*path) != Some(sum))
        .map(|(path, _)| path.as_str())
        .collect();
    let new = changed
        .iter()
        .filter(|path| !before.contains_key(**path))
        .count();
    let removed: Vec<&str> = before
        .keys()
        .filter(|path| !is_version(path) && !now.contains_key(*path))
        .map(String::as_str)
        .collect();
    let mut words = Vec::new();
    if let Some(version) = version {
        words.push(format!("VERSION {version}"));
    }
    if before.is_empty() {
        words.push(format!("{} files, the first from there", now.len()));
        return words.join("; ");
    }
    let counts: Vec<String> = [
        (changed.len() - new, "changed"),
        (new, "new"),
        (removed.len(), "removed"),
    ]
    .iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{number} {what}"))
    .collect();
    if counts.is_empty() {
        words.push("the same files".to_owned());
    } else {
        let paths: Vec<&str> = changed.iter().chain(&removed).copied().collect();
        let more = if paths.len() > MAX_PATHS { ", ..." } else { "" };
        words.push(format!(
            "{}: {}{more}",
            counts.join(", "),
            paths[..paths.len().min(MAX_PATHS)].join(", ")
        ));
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(files: &[(&str, &'static str)]) -> Sums {
        files
            .iter()
            .map(|(path, sum)| {
                let sum = Bytes::from_static(sum.as_bytes());
                ((*path).to_owned(), ("job".to_owned(), sum))
            })
            .collect()
    }

    #[test]
    fn the_same_files_elsewhere_are_the_same() {
        let here = sums(&[("/etc/jobs/a.yaml", "1"), ("/etc/jobs/b/c.yaml", "2")]);
        let there = sums(&[("a.yaml", "1"), ("b/c.yaml", "2")]);
        assert_eq!(placeless(&here), placeless(&there));
        let other = sums(&[("a.yaml", "1"), ("c.yaml", "2")]);
        assert_ne!(placeless(&here), placeless(&other));
        let mut role = there.clone();
        role.get_mut("a.yaml").unwrap().0 = "main".to_owned();
        assert_ne!(placeless(&here), placeless(&role));
    }

    /// CFG-013: the version that the files name is told with each change.
    #[test]
    fn cfg_013_the_history_tells_the_version_and_what_changed() {
        let before = sums(&[
            ("c.yaml", "1"),
            ("j/a.yaml", "1"),
            ("j/b.yaml", "1"),
            ("VERSION", "1"),
        ]);
        let told =
            |now: &[(&str, &'static str)]| words(Some("abc".to_owned()), &before, &sums(now));
        insta::assert_snapshot!(
            told(&[("c.yaml", "1"), ("j/a.yaml", "2"), ("j/c.yaml", "1"), ("VERSION", "2")]),
            @"VERSION abc; 1 changed, 1 new, 1 removed: j/a.yaml, j/c.yaml, j/b.yaml"
        );
        insta::assert_snapshot!(
            told(&[("c.yaml", "2"), ("j/a.yaml", "2"), ("j/b.yaml", "2"), ("j/c.yaml", "2")]),
            @"VERSION abc; 3 changed, 1 new: c.yaml, j/a.yaml, j/b.yaml, ..."
        );
        insta::assert_snapshot!(
            told(&[("c.yaml", "1"), ("j/a.yaml", "1"), ("j/b.yaml", "1"), ("VERSION", "2")]),
            @"VERSION abc; the same files"
        );
        insta::assert_snapshot!(words(None, &Sums::new(), &before), @"4 files, the first from there");
    }
}
