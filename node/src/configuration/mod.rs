//! Configuration between its three forms: files on disk, blobs in the state, and what controllers plan with.

mod check;
mod feeder;
#[cfg(test)]
mod testing;
mod versions;

use std::path::{Component, Path, PathBuf};

use trireme_config::{Config, FileSet, Layout, LoadOptions, Loaded, plugins::Registry};

pub use check::Check;
pub use feeder::{Feed, Feeder};
pub use versions::Versions;

const MAIN: &str = "main";
const PLUGINS: &str = "plugins";
const JOB: &str = "job";
const SUPPLEMENTAL: &str = "supplemental";

/// The part a file has in its set.
#[must_use]
pub fn role(layout: &Layout, path: &str) -> &'static str {
    if path == layout.config {
        MAIN
    } else if layout.plugins.as_deref() == Some(path) {
        PLUGINS
    } else if layout
        .jobs
        .as_deref()
        .is_some_and(|root| Path::new(path).starts_with(root))
    {
        JOB
    } else {
        SUPPLEMENTAL
    }
}

/// The directory that all of the paths share; a single file stands for itself.
fn root_of<'a>(paths: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut paths = paths.peekable();
    let first = paths.next()?;
    if paths.peek().is_none() {
        return Some(first.to_owned());
    }
    let mut shared: Vec<Component<'_>> = Path::new(first).parent()?.components().collect();
    for path in paths {
        let same = shared
            .iter()
            .zip(Path::new(path).components())
            .take_while(|(a, b)| **a == *b)
            .count();
        shared.truncate(same);
    }
    Some(shared.iter().collect::<PathBuf>().display().to_string())
}

/// The same, but a single file's directory.
fn dir_of<'a>(paths: impl Iterator<Item = &'a str>) -> Option<String> {
    let paths: Vec<&str> = paths.collect();
    match paths[..] {
        [only] => {
            let dir = Path::new(only).parent()?;
            Some(dir.display().to_string())
        }
        _ => root_of(paths.into_iter()),
    }
}

/// What is what, from the parts that files have.
fn layout<'a>(files: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Layout {
    let with = |wanted: &'static str| {
        files
            .clone()
            .filter(move |(role, _)| *role == wanted)
            .map(|(_, path)| path)
    };
    let supplemental: Vec<String> = dir_of(with(SUPPLEMENTAL)).into_iter().collect();
    Layout {
        config: with(MAIN).next().unwrap_or_default().to_owned(),
        plugins: with(PLUGINS).next().map(str::to_owned),
        jobs: root_of(with(JOB)),
        supplemental_dirs: supplemental.clone(),
        plugin_supplemental_dirs: supplemental,
        ..Layout::default()
    }
}

/// Files with their parts, as the loader wants them.
#[must_use]
pub fn file_set<'a>(files: impl Iterator<Item = (&'a str, &'a str, &'a [u8])> + Clone) -> FileSet {
    let names = files.clone().map(|(role, path, _)| (role, path));
    let mut set = FileSet::new(layout(names));
    for (_, path, content) in files {
        set.insert(path, content);
    }
    set
}

/// With the sections of all plugins that this binary has.
fn options(registry: &Registry) -> LoadOptions<'_> {
    LoadOptions {
        now: Some(jiff::Timestamp::now()),
        plugins: Some(registry),
        // Files are kept by their whole path; checkconfig warns of what Prow would refuse (CFG-007).
        allow_duplicate_basenames: true,
        ..LoadOptions::default()
    }
}

/// Loads with the sections of all plugins that this binary has.
#[must_use]
pub fn load(files: &FileSet, registry: &Registry) -> Loaded {
    Config::load(files, options(registry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_the_job_tree_is_what_its_files_share() {
        let root = |paths: &[&str]| root_of(paths.iter().copied());
        assert_eq!(root(&["a/jobs/x.yaml"]).as_deref(), Some("a/jobs/x.yaml"));
        assert_eq!(
            root(&["a/jobs/o/x.yaml", "a/jobs/p/y.yaml"]).as_deref(),
            Some("a/jobs")
        );
        assert_eq!(root(&["x.yaml", "y.yaml"]).as_deref(), Some(""));
        assert_eq!(root(&[]), None);
    }

    #[test]
    fn files_have_the_part_their_path_says() {
        let layout = Layout {
            config: "c.yaml".into(),
            plugins: Some("p.yaml".into()),
            jobs: Some("jobs".into()),
            ..Layout::default()
        };
        assert_eq!(
            ["c.yaml", "p.yaml", "jobs/a.yaml", "x_prowconfig.yaml"]
                .map(|path| role(&layout, path)),
            ["main", "plugins", "job", "supplemental"]
        );
    }
}
