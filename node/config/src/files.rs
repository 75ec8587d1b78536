//! The files of a configuration, in memory: what is loaded from a disk and what is loaded from a replicated version are
//! the same set of paths and bytes.

mod disk;
mod ignore;
mod packed;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use disk::read;
pub use packed::{is_packed, unpacked};

use self::ignore::Ignored;

/// Suffix of supplemental files for the main configuration, unless told otherwise.
pub const DEFAULT_SUPPLEMENTAL_SUFFIX: &str = "_prowconfig.yaml";
/// Suffix of supplemental files for the plugins' configuration, unless told otherwise.
pub const DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX: &str = "_pluginconfig.yaml";
/// The name of files that hide others in a job tree (CFG-005).
pub(crate) const IGNORE_FILE: &str = ".prowignore";
/// The name of the file beside the main one that tells the version (CFG-013).
pub(crate) const VERSION_FILE: &str = "VERSION";

/// Which of the files is what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layout {
    /// Path of `config.yaml`.
    pub config: String,
    /// Path of a job file, or of a directory of them.
    pub jobs: Option<String>,
    pub supplemental_dirs: Vec<String>,
    /// A plain suffix of the path.
    pub supplemental_suffix: String,
    /// Path of `plugins.yaml`.
    pub plugins: Option<String>,
    pub plugin_supplemental_dirs: Vec<String>,
    /// A plain suffix of the path.
    pub plugin_supplemental_suffix: String,
    /// The supplemental files themselves, where it is known which they are; directories and suffix are not asked then.
    pub supplemental_files: Option<Vec<String>>,
    /// The same for those of the plugins.
    pub plugin_supplemental_files: Option<Vec<String>>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            config: String::new(),
            jobs: None,
            supplemental_dirs: Vec::new(),
            supplemental_suffix: DEFAULT_SUPPLEMENTAL_SUFFIX.to_owned(),
            plugins: None,
            plugin_supplemental_dirs: Vec::new(),
            plugin_supplemental_suffix: DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX.to_owned(),
            supplemental_files: None,
            plugin_supplemental_files: None,
        }
    }
}

impl Layout {
    /// Whether a path lies where supplemental files are looked for, and is named like them.
    #[must_use]
    pub fn is_supplemental(&self, path: &str) -> bool {
        lies_in(path, &self.supplemental_dirs, &self.supplemental_suffix)
    }

    /// The same for those of the plugins.
    #[must_use]
    pub fn is_plugin_supplemental(&self, path: &str) -> bool {
        lies_in(
            path,
            &self.plugin_supplemental_dirs,
            &self.plugin_supplemental_suffix,
        )
    }
}

fn lies_in(path: &str, dirs: &[String], suffix: &str) -> bool {
    let below = |dir: &String| {
        let rest = match dir.as_str() {
            "" => Some(path),
            dir => path
                .strip_prefix(dir.trim_end_matches('/'))
                .and_then(|rest| rest.strip_prefix('/')),
        };
        rest.is_some_and(|rest| !hidden(rest))
    };
    path.ends_with(suffix) && dirs.iter().any(below)
}

/// The sha256 of a file as it lies there, packed or not.
pub type ContentId = [u8; 32];

/// What stands in a file, or only what it is called: a loader that has read it before needs no more.
#[derive(Clone, Debug, Default)]
pub struct Content {
    bytes: Option<Arc<[u8]>>,
    /// Of the bytes; taken when first asked for.
    id: OnceLock<ContentId>,
}

impl Content {
    /// The bytes, unless only their name was given.
    #[must_use]
    pub fn bytes(&self) -> Option<&Arc<[u8]>> {
        self.bytes.as_ref()
    }

    #[must_use]
    pub fn id(&self) -> &ContentId {
        self.id.get_or_init(|| {
            let bytes = self.bytes.as_deref().unwrap_or_default();
            Sha256::digest(bytes).into()
        })
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (&self.bytes, &other.bytes) {
            (Some(a), Some(b)) => a == b,
            _ => self.id() == other.id(),
        }
    }
}

impl Eq for Content {}

/// Some files of a set, in an order.
pub(crate) type Files<'a> = Vec<(&'a str, &'a Content)>;

/// Files by path, with slashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSet {
    pub layout: Layout,
    files: BTreeMap<String, Content>,
}

impl FileSet {
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            files: BTreeMap::new(),
        }
    }

    /// Adds a file, or replaces it.
    pub fn insert(&mut self, path: impl Into<String>, bytes: impl Into<Arc<[u8]>>) {
        let content = Content {
            bytes: Some(bytes.into()),
            id: OnceLock::new(),
        };
        self.files.insert(path.into(), content);
    }

    /// Adds a file whose sha256 is known, without its bytes if the loader has them ([`crate::ConfigCache::missing`]).
    pub fn insert_known(
        &mut self,
        path: impl Into<String>,
        id: ContentId,
        bytes: Option<Arc<[u8]>>,
    ) {
        let content = Content {
            bytes,
            id: OnceLock::from(id),
        };
        self.files.insert(path.into(), content);
    }

    /// The bytes of a file, if they are in the set.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Arc<[u8]>> {
        self.content(path)?.bytes()
    }

    #[must_use]
    pub fn content(&self, path: &str) -> Option<&Content> {
        self.files.get(path)
    }

    /// All files, by path.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Content)> {
        self.files
            .iter()
            .map(|(path, content)| (path.as_str(), content))
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// All files whose bytes are in the set, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.files
            .iter()
            .filter_map(|(path, content)| Some((path.as_str(), content.bytes()?)))
    }

    /// Files below a directory in the order of a walk: names of one directory sorted, directories entered on the way.
    /// What a configuration map holds twice, under names that begin with two dots, is left out (CFG-004).
    fn walk(&self, dir: &str) -> Files<'_> {
        let prefix = match dir {
            // Paths that begin where the set begins.
            "" => String::new(),
            dir => format!("{}/", dir.trim_end_matches('/')),
        };
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let mut found: Vec<_> = self
            .files
            .range::<str, _>(from)
            .map(|(path, content)| (path.as_str(), content))
            .take_while(|(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| !hidden(&path[prefix.len()..]))
            .collect();
        // Nearly in order already: only names that begin alike differ.
        found.sort_by(|(a, _), (b, _)| walk_order(a).cmp(walk_order(b)));
        found
    }

    /// The job files in the order in which they are merged; none if the path is neither file nor directory.
    pub(crate) fn job_files(&self) -> Option<Files<'_>> {
        let Some(root) = &self.layout.jobs else {
            return Some(Vec::new());
        };
        if let Some((path, content)) = self.files.get_key_value(root.as_str()) {
            return Some(vec![(path, content)]);
        }
        let all = self.walk(root);
        if all.is_empty() {
            return None;
        }
        let ignored = Ignored::new(root, &all);
        let is_job_file = |path: &str| path.ends_with(".yaml") || path.ends_with(".yml");
        Some(
            all.into_iter()
                .filter(|(path, _)| is_job_file(path) && !ignored.hides(path))
                .collect(),
        )
    }

    /// Supplemental files of the main configuration, directory by directory.
    pub(crate) fn supplementals(&self) -> Files<'_> {
        match &self.layout.supplemental_files {
            Some(paths) => self.these(paths),
            None => self.with_suffix(
                &self.layout.supplemental_dirs,
                &self.layout.supplemental_suffix,
            ),
        }
    }

    /// Supplemental files of the plugins' configuration, directory by directory.
    pub(crate) fn plugin_supplementals(&self) -> Files<'_> {
        match &self.layout.plugin_supplemental_files {
            Some(paths) => self.these(paths),
            None => self.with_suffix(
                &self.layout.plugin_supplemental_dirs,
                &self.layout.plugin_supplemental_suffix,
            ),
        }
    }

    fn these(&self, paths: &[String]) -> Files<'_> {
        let mut found: Vec<_> = paths
            .iter()
            .filter_map(|path| self.files.get_key_value(path))
            .map(|(path, content)| (path.as_str(), content))
            .collect();
        found.sort_by(|(a, _), (b, _)| walk_order(a).cmp(walk_order(b)));
        found
    }

    fn with_suffix(&self, dirs: &[String], suffix: &str) -> Files<'_> {
        let mut found = Vec::new();
        for dir in dirs {
            found.extend(
                self.walk(dir)
                    .into_iter()
                    .filter(|(path, _)| path.ends_with(suffix)),
            );
        }
        found
    }

    /// The version file beside the main one.
    pub(crate) fn version(&self) -> Option<(&str, &Content)> {
        let dir = self.layout.config.rsplit_once('/').map(|(dir, _)| dir);
        let path = dir.map_or_else(
            || VERSION_FILE.to_owned(),
            |dir| format!("{dir}/{VERSION_FILE}"),
        );
        let (path, content) = self.files.get_key_value(&path)?;
        Some((path, content))
    }
}

/// A path as a walk compares it: a slash sorts before everything else.
fn walk_order(path: &str) -> impl Iterator<Item = u8> {
    path.bytes().map(|byte| if byte == b'/' { 0 } else { byte })
}

/// Whether some name on a relative path begins with two dots.
fn hidden(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with(".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job_files(paths: &[(&str, &str)]) -> Vec<String> {
        let mut files = FileSet::new(Layout {
            jobs: Some("jobs".to_owned()),
            ..Layout::default()
        });
        for (path, text) in paths {
            files.insert(*path, text.as_bytes());
        }
        files
            .job_files()
            .unwrap()
            .into_iter()
            .map(|(path, _)| path.to_owned())
            .collect()
    }

    /// CFG-003, CFG-004, CFG-009: the order of a walk, without what begins with two dots.
    #[test]
    fn cfg_003_job_files_come_in_the_order_of_a_walk() {
        let found = job_files(&[
            ("jobs/a-b/x.yaml", ""),
            ("jobs/a/y.yml", ""),
            ("jobs/..data/z.yaml", ""),
            ("jobs/README.md", ""),
            ("other/b.yaml", ""),
            ("jobs/a.yaml", ""),
        ]);
        assert_eq!(found, ["jobs/a/y.yml", "jobs/a-b/x.yaml", "jobs/a.yaml"]);
    }

    #[test]
    fn cfg_005_prowignore_hides_files_below_it() {
        let found = job_files(&[
            ("jobs/.prowignore", "old/\n*-draft.yaml\n!keep-draft.yaml\n"),
            ("jobs/a.yaml", ""),
            ("jobs/b-draft.yaml", ""),
            ("jobs/keep-draft.yaml", ""),
            ("jobs/old/c.yaml", ""),
            ("jobs/sub/.prowignore", "/d.yaml\n"),
            ("jobs/sub/d.yaml", ""),
            ("jobs/sub/deep/d.yaml", ""),
        ]);
        assert_eq!(
            found,
            [
                "jobs/a.yaml",
                "jobs/keep-draft.yaml",
                "jobs/sub/deep/d.yaml"
            ]
        );
    }
}
