//! Configuration between its three forms: files on disk, blobs in the state, and what controllers plan with.

mod admission;
mod check;
mod commit;
mod feeder;
mod stored;
#[cfg(test)]
mod testing;
mod versions;

use std::path::{Component, Path, PathBuf};

use trireme_config::{
    Config, FileSet, Layout, LoadOptions, Loaded,
    files::{DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX, DEFAULT_SUPPLEMENTAL_SUFFIX},
    plugins::Registry,
};

pub use check::Check;
pub(crate) use commit::Listing;
pub use feeder::{Feed, Feeder};
pub use stored::StoredVersions;
pub use versions::Versions;

const MAIN: &str = "main";
const PLUGINS: &str = "plugins";
const JOB: &str = "job";
const SUPPLEMENTAL: &str = "supplemental";
const PROW_SUPPLEMENTAL: &str = "prow_supplemental";
const PLUGIN_SUPPLEMENTAL: &str = "plugin_supplemental";

/// The part a file has in its set, as [`trireme_state::is_config_role`] describes it: what every build knows where that is
/// enough.
#[must_use]
pub fn role(layout: &Layout, path: &str) -> String {
    if path == layout.config {
        return MAIN.to_owned();
    }
    if layout.plugins.as_deref() == Some(path) {
        return PLUGINS.to_owned();
    }
    let jobs = layout.jobs.as_deref();
    let mut parts = Vec::new();
    parts.extend(
        jobs.is_some_and(|root| Path::new(path).starts_with(root))
            .then_some(JOB),
    );
    let is = (
        layout.is_supplemental(path),
        layout.is_plugin_supplemental(path),
    );
    match is {
        // What only stands beside them: VERSION.
        (false, false) if parts.is_empty() => parts.push(SUPPLEMENTAL),
        (false, false) => {}
        is if is == told_by_name(path) => parts.push(SUPPLEMENTAL),
        (of_prow, of_plugins) => {
            parts.extend(of_prow.then_some(PROW_SUPPLEMENTAL));
            parts.extend(of_plugins.then_some(PLUGIN_SUPPLEMENTAL));
        }
    }
    parts.join("+")
}

/// Whether a role says so, among others.
#[must_use]
pub fn has_part(role: &str, part: &str) -> bool {
    role.split('+').any(|known| known == part)
}

/// Of which configuration a supplemental file is by its name alone: the main one's, the plugins'.
fn told_by_name(path: &str) -> (bool, bool) {
    (
        path.ends_with(DEFAULT_SUPPLEMENTAL_SUFFIX),
        path.ends_with(DEFAULT_PLUGIN_SUPPLEMENTAL_SUFFIX),
    )
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

/// What is what, from the parts that files have.
fn layout<'a>(files: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Layout {
    let with = |wanted: &'static str| {
        files
            .clone()
            .filter(move |(role, _)| has_part(role, wanted))
            .map(|(_, path)| path)
    };
    let by_name = |told: fn((bool, bool)) -> bool| {
        with(SUPPLEMENTAL).filter(move |path| told(told_by_name(path)))
    };
    let of_prow = by_name(|(of_prow, _)| of_prow).chain(with(PROW_SUPPLEMENTAL));
    let of_plugins = by_name(|(_, of_plugins)| of_plugins).chain(with(PLUGIN_SUPPLEMENTAL));
    Layout {
        config: with(MAIN).next().unwrap_or_default().to_owned(),
        plugins: with(PLUGINS).next().map(str::to_owned),
        jobs: root_of(with(JOB)),
        supplemental_files: Some(of_prow.map(str::to_owned).collect()),
        plugin_supplemental_files: Some(of_plugins.map(str::to_owned).collect()),
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
            supplemental_dirs: vec!["more".into()],
            supplemental_suffix: "-prow.yaml".into(),
            plugin_supplemental_dirs: vec!["more".into(), "jobs".into()],
            ..Layout::default()
        };
        let parts = [
            ("c.yaml", "main"),
            ("p.yaml", "plugins"),
            ("VERSION", "supplemental"),
            ("jobs/a.yaml", "job"),
            ("jobs/b_pluginconfig.yaml", "job+supplemental"),
            ("more/o_pluginconfig.yaml", "supplemental"),
            ("more/o-prow.yaml", "prow_supplemental"),
        ];
        for (path, part) in parts {
            assert_eq!(role(&layout, path), part, "{path}");
            assert!(trireme_state::is_config_role(part), "{part}");
        }
        let alike = Layout {
            supplemental_suffix: ".yaml".into(),
            plugin_supplemental_suffix: ".yaml".into(),
            plugin_supplemental_dirs: vec!["more".into()],
            ..layout.clone()
        };
        let both = "prow_supplemental+plugin_supplemental";
        assert_eq!(role(&alike, "more/x.yaml"), both);
        assert!(trireme_state::is_config_role(both));
    }

    /// CFG-002, CFG-012: a version is read as the files were on disk, wherever they lie and whatever they are called.
    #[test]
    fn cfg_002_a_version_knows_supplemental_files_by_their_part() {
        let layout = Layout {
            config: "c.yaml".into(),
            plugins: Some("p.yaml".into()),
            jobs: Some("jobs".into()),
            supplemental_dirs: vec!["".into()],
            supplemental_suffix: "-prow.yaml".into(),
            plugin_supplemental_dirs: vec!["jobs".into()],
            ..Layout::default()
        };
        let files: [(&str, &[u8]); 6] = [
            ("c.yaml", b"prowjob_namespace: here\n"),
            ("p.yaml", b"plugins: {acme: {plugins: [wip]}}\n"),
            (
                "jobs/a_pluginconfig.yaml",
                b"plugins: {other: {plugins: [hold]}}\n",
            ),
            (
                "jobs/a.yaml",
                b"periodics: [{name: nightly, cron: '@daily', agent: jenkins}]\n",
            ),
            (
                "more/acme-prow.yaml",
                b"tide: {queries: [{orgs: [acme], labels: [lgtm]}]}\n",
            ),
            (
                "jobs/b_prowconfig.yaml",
                b"tide: {queries: [{orgs: [other]}]}\n",
            ),
        ];
        let mut on_disk = FileSet::new(layout.clone());
        let mut with_roles = Vec::new();
        for (path, content) in files {
            on_disk.insert(path, content);
            with_roles.push((role(&layout, path), path, content));
        }
        let of_version = file_set(
            with_roles
                .iter()
                .map(|(role, path, content)| (role.as_str(), *path, *content)),
        );
        for set in [on_disk, of_version] {
            let loaded = load(&set, &Registry::default());
            assert_eq!(loaded.errors, [], "{:?}", set.layout);
            // The suffix in force is another than that of `jobs/b_prowconfig.yaml`, a job file then.
            assert_eq!(loaded.config.prow.tide.queries.len(), 1);
            assert_eq!(loaded.config.jobs.periodics.len(), 1);
            assert_eq!(loaded.plugins.core.plugins.0.len(), 2);
        }
    }
}
