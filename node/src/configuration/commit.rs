//! What of a commit is configuration, told by paths alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use trireme_config::{FileSet, Layout};

use crate::exit::{NOT_FOUND, coded};

/// Beside config.yaml it tells the version; in a job tree it hides files.
const VERSION: &str = "VERSION";
const IGNORE: &str = ".prowignore";

/// The files of a commit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// Of the commit.
    pub(crate) id: String,
    /// Regular files: path to object.
    pub(crate) files: BTreeMap<String, String>,
    /// Symbolic links, which are not followed.
    pub(crate) links: BTreeSet<String>,
}

impl Listing {
    pub(crate) fn is_file(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub(crate) fn is_dir(&self, path: &str) -> bool {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let first = self.files.range::<str, _>(from).next();
        first.is_some_and(|(path, _)| path.starts_with(&prefix))
    }

    /// The paths that a layout names; none of them may be a link, of which a commit has only the name.
    pub(crate) fn wanted(&self, layout: &Layout) -> anyhow::Result<Vec<&str>> {
        if let Some(link) = self.links.iter().find(|path| is_wanted(layout, path)) {
            anyhow::bail!(
                "commit {}: {link:?} is a symbolic link (mode 120000), and links of a commit are not followed: commit the file \
                 itself in its place, or check the commit out and apply the checkout",
                self.id
            );
        }
        let named = [Some(&layout.config), layout.plugins.as_ref()];
        for path in named.into_iter().flatten() {
            anyhow::ensure!(
                self.is_file(path),
                coded(
                    NOT_FOUND,
                    format!("commit {} has no file {path:?}", self.id)
                )
            );
        }
        if let Some(jobs) = &layout.jobs {
            anyhow::ensure!(
                self.is_file(jobs) || self.is_dir(jobs),
                coded(
                    NOT_FOUND,
                    format!("commit {} has no file or directory {jobs:?}", self.id)
                )
            );
        }
        let paths = self.files.keys().map(String::as_str);
        Ok(paths.filter(|path| is_wanted(layout, path)).collect())
    }

    /// An empty job tree is valid, and a set knows directories by their files only.
    pub(crate) fn keep_empty_tree(&self, layout: &Layout, set: &mut FileSet) {
        if let Some(jobs) = layout.jobs.as_ref().filter(|jobs| self.is_dir(jobs)) {
            let prefix = format!("{jobs}/");
            if !set.iter().any(|(path, _)| path.starts_with(&prefix)) {
                set.insert(format!("{jobs}/{IGNORE}"), Vec::new());
            }
        }
    }
}

fn is_wanted(layout: &Layout, path: &str) -> bool {
    let dir = layout.config.rsplit_once('/').map(|(dir, _)| dir);
    let version = dir.map_or_else(|| VERSION.to_owned(), |dir| format!("{dir}/{VERSION}"));
    let ends = |suffix: &str| path.ends_with(suffix);
    let is_job = layout.jobs.as_deref().is_some_and(|root| {
        let name = path.rsplit('/').next().unwrap_or(path);
        path == root || below(path, root) && (ends(".yaml") || ends(".yml") || name == IGNORE)
    });
    is_job
        || path == layout.config
        || layout.plugins.as_deref() == Some(path)
        || path == version
        || layout.is_supplemental(path)
        || layout.is_plugin_supplemental(path)
}

fn below(path: &str, dir: &str) -> bool {
    dir.is_empty()
        || path
            .strip_prefix(dir.trim_end_matches('/'))
            .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left out without a word, the jobs of a linked file would be retired.
    #[test]
    fn a_link_in_the_place_of_a_wanted_file_is_refused_by_its_path() {
        let object = |path: &str| (path.to_owned(), "object".to_owned());
        let commit = |links: &[&str]| Listing {
            id: "c0ffee".to_owned(),
            files: ["config.yaml", "jobs/a.yaml"].map(object).into(),
            links: links.iter().map(|path| (*path).to_owned()).collect(),
        };
        let layout = Layout {
            config: "config.yaml".into(),
            jobs: Some("jobs".into()),
            ..Layout::default()
        };
        let elsewhere = commit(&["README.md", "jobs/OWNERS"]);
        assert_eq!(
            elsewhere.wanted(&layout).unwrap(),
            ["config.yaml", "jobs/a.yaml"]
        );
        let linked = commit(&["jobs/b.yaml"]);
        insta::assert_snapshot!(linked.wanted(&layout).unwrap_err(), @r#"commit c0ffee: "jobs/b.yaml" is a symbolic link (mode 120000), and links of a commit are not followed: commit the file itself in its place, or check the commit out and apply the checkout"#);
    }
}
