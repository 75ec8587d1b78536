//! What stands at the watched paths, without its content: cheap enough to ask every few seconds, and precise enough to
//! tell whether anything was changed while the content was being read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use trireme_config::Layout;

/// More entries than this are refused, as the reader of the content does.
const MAX_ENTRIES: usize = 1_000_000;
/// The link of a volume of Kubernetes that names the directory with its present content.
const DATA: &str = "..data";
/// The name of the file beside the main one that tells the version (CFG-013).
const VERSION: &str = "VERSION";
/// The name of files that hide others in a job tree (CFG-005).
const IGNORE: &str = ".prowignore";

/// What tells two states of a path apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    /// Of the file itself, behind all links. The change time tells what a copied modification time hides.
    File {
        device: u64,
        inode: u64,
        size: u64,
        modified: (i64, i64),
        changed: (i64, i64),
    },
    Link(PathBuf),
    Missing,
}

/// One look at all paths of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Look {
    stamps: BTreeMap<PathBuf, Stamp>,
    /// Where changes of the stamps happen.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Volumes whose writer is in the middle of an update, in words.
    pub(super) half: Vec<String>,
}

impl Look {
    /// # Errors
    /// When there are more entries than anybody means to have.
    pub(super) fn take(layout: &Layout) -> Result<Self, String> {
        let mut look = Self::default();
        let config = Path::new(&layout.config);
        look.file(config)?;
        look.stamp(&config.with_file_name(VERSION));
        if let Some(plugins) = &layout.plugins {
            look.file(Path::new(plugins))?;
        }
        let is_job_file =
            |name: &str| name.ends_with(".yaml") || name.ends_with(".yml") || name == IGNORE;
        if let Some(root) = &layout.jobs {
            look.root(Path::new(root), &is_job_file)?;
        }
        for (roots, suffix) in [
            (&layout.supplemental_dirs, &layout.supplemental_suffix),
            (
                &layout.plugin_supplemental_dirs,
                &layout.plugin_supplemental_suffix,
            ),
        ] {
            for root in roots {
                let wanted = |name: &str| suffix.contains('/') || name.ends_with(suffix.as_str());
                look.root(Path::new(root), &wanted)?;
            }
        }
        Ok(look)
    }

    fn root(&mut self, root: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
        if !root.is_dir() {
            return self.file(root);
        }
        self.way_to(root);
        self.tree(root, wanted)
    }

    fn stamp(&mut self, path: &Path) {
        let stamp = match fs::metadata(path) {
            Ok(meta) => Stamp::File {
                device: meta.dev(),
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            },
            // Whatever it is, the read of the content says it in words.
            Err(_) => Stamp::Missing,
        };
        self.stamps.insert(path.to_owned(), stamp);
    }

    /// A file that a flag names, with the directory that it is in.
    fn file(&mut self, path: &Path) -> Result<(), String> {
        self.way_to(path);
        self.stamp(path);
        self.behind(path);
        match path.parent() {
            Some(parent) => self.volume(parent),
            None => Ok(()),
        }
    }

    /// Links among the directories above, as `git-sync` swaps them, and the directory in which the path would appear.
    fn way_to(&mut self, path: &Path) {
        let mut nearest = None;
        for above in path.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() {
                Path::new(".")
            } else {
                above
            };
            if nearest.is_none() && above.is_dir() {
                nearest = Some(above.to_owned());
            }
            self.link(above);
        }
        self.link(path);
        self.directories.extend(nearest);
    }

    fn link(&mut self, path: &Path) {
        if let Ok(target) = fs::read_link(path) {
            self.stamps.insert(link_key(path), Stamp::Link(target));
            self.directories.extend(path.parent().map(Path::to_owned));
        }
    }

    /// The directory of what a link leads to: it may be changed in place there.
    fn behind(&mut self, path: &Path) {
        let Ok(target) = fs::read_link(path) else {
            return;
        };
        // Never changed in place; the link that is swapped is watched.
        if target.starts_with(DATA) {
            return;
        }
        let real = fs::canonicalize(path).ok();
        let parent = real.as_deref().and_then(Path::parent);
        self.directories.extend(parent.map(Path::to_owned));
    }

    /// A directory that may be a volume of Kubernetes: its links must be those of its present content, all of them, or
    /// its writer is between the steps of an update (or was ended there).
    fn volume(&mut self, directory: &Path) -> Result<(), String> {
        if !directory.is_dir() {
            return Ok(());
        }
        self.directories.insert(directory.to_owned());
        let data = directory.join(DATA);
        let Ok(target) = fs::read_link(&data) else {
            return Ok(());
        };
        self.stamps.insert(link_key(&data), Stamp::Link(target));
        let unreadable = |why: io::Error| format!("{}: {why}", directory.display());
        let present = match names(&data) {
            Ok(names) => names,
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                self.half
                    .push(format!("{}: its content is gone", data.display()));
                return Ok(());
            }
            Err(why) => return Err(unreadable(why)),
        };
        let mut shown = BTreeSet::new();
        for name in names(directory).map_err(unreadable)? {
            let target = fs::read_link(directory.join(&name));
            if target.is_ok_and(|target| target.starts_with(DATA)) {
                shown.insert(name);
            }
        }
        for name in present.difference(&shown) {
            self.half
                .push(format!("{}: {name} is not linked yet", directory.display()));
        }
        for name in shown.difference(&present) {
            self.half.push(format!(
                "{}: {name} is linked but gone",
                directory.display()
            ));
        }
        Ok(())
    }

    fn tree(&mut self, directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
        self.volume(directory)?;
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // Gone since its parent was listed: the next look has other stamps.
            Err(_) => {
                self.stamps.insert(directory.to_owned(), Stamp::Missing);
                return Ok(());
            }
        };
        for entry in entries.flatten() {
            if self.stamps.len() > MAX_ENTRIES {
                return Err(format!(
                    "{}: more than {MAX_ENTRIES} files and directories",
                    directory.display()
                ));
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("..") {
                continue;
            }
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.tree(&path, wanted)?,
                Ok(_) if !wanted(&name) => {}
                Ok(kind) => {
                    self.stamp(&path);
                    if kind.is_symlink() {
                        self.behind(&path);
                    }
                }
                Err(_) => {
                    self.stamps.insert(path, Stamp::Missing);
                }
            }
        }
        Ok(())
    }
}

/// A link and what is behind it have a stamp each.
fn link_key(path: &Path) -> PathBuf {
    path.join("@")
}

/// Names in a directory that do not begin with two dots.
fn names(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") {
            names.insert(name);
        }
    }
    Ok(names)
}
