//! Where the files of a configuration come from: Prow's flags, a directory, or a commit of a git repository.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use trireme_api::configs::LocalFile;
use trireme_config::{FileSet, Layout, files};

use super::super::files::FileArgs;
use super::{
    find::{Tree, find},
    git::Commit,
};
use crate::{
    configuration::{has_part, role},
    exit::{CONFIG, USAGE, coded},
};

/// Where files come from, beside a directory.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    #[command(flatten)]
    pub files: FileArgs,
    /// A git repository on this machine: files are read from a commit, without a checkout. With --config-path and the other
    /// flags, those are paths in the repository.
    #[arg(long, value_name = "REPO")]
    pub git: Option<PathBuf>,
    /// Commit, branch or tag.
    #[arg(
        long = "ref",
        value_name = "REF",
        default_value = "HEAD",
        requires = "git"
    )]
    pub git_ref: String,
}

/// Files as they go into a version.
pub(super) struct Taken {
    pub(super) files: Vec<LocalFile>,
    /// What stands before their paths on this machine.
    pub(super) prefix: String,
    /// The commit they come from, if any.
    pub(super) source: String,
    /// What was taken as what, where that was found and not said.
    pub(super) found: Option<String>,
}

impl SourceArgs {
    fn names_files(&self) -> bool {
        !self.files.config_path.is_empty()
    }

    /// Whether any place is named.
    pub(super) fn names_something(&self, dir: Option<&PathBuf>) -> bool {
        dir.is_some() || self.names_files() || self.git.is_some()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When it is not clear which, or they cannot be read.
    pub(super) async fn read(&self, dir: Option<&PathBuf>) -> anyhow::Result<Taken> {
        match (dir, &self.git) {
            (Some(_), Some(_)) => Err(coded(
                USAGE,
                "name a directory or a git repository, not both",
            )),
            (Some(_), None) if self.names_files() => Err(coded(
                USAGE,
                "name a directory, or the files with --config-path and the other flags, not both",
            )),
            (Some(dir), None) => read_dir(dir),
            (None, Some(repo)) => self.read_commit(repo).await,
            (None, None) if self.names_files() => {
                let set = files::read(self.files.layout()).map_err(refused)?;
                Ok(named_by_place(&set))
            }
            (None, None) => Err(coded(
                USAGE,
                "which files? Give a directory, --git REPO, or --config-path FILE with Prow's other flags",
            )),
        }
    }

    async fn read_commit(&self, repo: &Path) -> anyhow::Result<Taken> {
        let commit = Commit::open(repo, &self.git_ref).await?;
        let (layout, said) = match self.names_files() {
            true => (self.files.layout(), true),
            false => {
                let found = find(&commit).map_err(|why| {
                    coded(
                        USAGE,
                        format!("{} at {}: {why}", repo.display(), commit.id()),
                    )
                })?;
                (found, false)
            }
        };
        let set = commit.read(layout).await?;
        let found = (!said).then(|| describe(&set));
        Ok(Taken {
            files: named(&set, |path| path.to_owned()),
            prefix: String::new(),
            source: commit.id().to_owned(),
            found,
        })
    }
}

fn refused(found: Vec<trireme_config::Diagnostic>) -> anyhow::Error {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    coded(CONFIG, lines.join("\n"))
}

struct Directory<'a>(&'a Path);

impl Tree for Directory<'_> {
    fn is_file(&self, path: &str) -> bool {
        self.0.join(path).is_file()
    }

    fn is_dir(&self, path: &str) -> bool {
        self.0.join(path).is_dir()
    }
}

fn read_dir(dir: &Path) -> anyhow::Result<Taken> {
    anyhow::ensure!(
        dir.is_dir(),
        coded(USAGE, format!("{}: no such directory", dir.display()))
    );
    let found =
        find(&Directory(dir)).map_err(|why| coded(USAGE, format!("{}: {why}", dir.display())))?;
    let at = |path: String| dir.join(path).display().to_string();
    let all = |paths: Vec<String>| paths.into_iter().map(at).collect();
    let layout = Layout {
        config: at(found.config),
        jobs: found.jobs.map(at),
        plugins: found.plugins.map(at),
        supplemental_dirs: all(found.supplemental_dirs),
        plugin_supplemental_dirs: all(found.plugin_supplemental_dirs),
        ..Layout::default()
    };
    let set = files::read(layout).map_err(refused)?;
    let relative = |path: &str| {
        let below = Path::new(path).strip_prefix(dir);
        below.map_or_else(|_| path.to_owned(), |below| below.display().to_string())
    };
    Ok(Taken {
        files: named(&set, relative),
        prefix: format!("{}/", dir.display().to_string().trim_end_matches('/')),
        source: String::new(),
        found: Some(describe(&set)),
    })
}

fn describe(set: &FileSet) -> String {
    let layout = &set.layout;
    let (mut jobs, mut more) = (0, 0);
    for (path, _) in set.iter() {
        let is_job = has_part(&role(layout, path), "job");
        let is_more = layout.is_supplemental(path) || layout.is_plugin_supplemental(path);
        jobs += usize::from(is_job);
        more += usize::from(is_more);
    }
    let mut text = format!("config.yaml: {}\n", layout.config);
    match &layout.plugins {
        Some(path) => text.push_str(&format!("plugins.yaml: {path}\n")),
        None => text.push_str("plugins.yaml: none\n"),
    }
    match &layout.jobs {
        Some(path) => text.push_str(&format!("jobs: {path}, {jobs} files\n")),
        None => text.push_str("jobs: no tree\n"),
    }
    if more > 0 {
        text.push_str(&format!("further parts: {more} files\n"));
    }
    text
}

fn named(set: &FileSet, name: impl Fn(&str) -> String) -> Vec<LocalFile> {
    set.iter()
        .map(|(path, content)| LocalFile {
            role: role(&set.layout, path),
            path: name(path),
            content: Bytes::from_owner(content.clone()),
        })
        .collect()
}

/// Names files from the directory that all of them share, so that a version is the same from wherever it is applied.
fn named_by_place(set: &FileSet) -> Taken {
    let places: Vec<PathBuf> = set.iter().map(|(path, _)| whole(path)).collect();
    let mut shared: Option<PathBuf> = None;
    for place in &places {
        let parent = place.parent().unwrap_or(Path::new("/"));
        shared = Some(match shared {
            None => parent.to_owned(),
            Some(shared) => shared
                .components()
                .zip(parent.components())
                .take_while(|(a, b)| a == b)
                .map(|(a, _)| a)
                .collect(),
        });
    }
    let shared = shared.unwrap_or_default();
    let relative = |path: &str| {
        let place = whole(path);
        let below = place.strip_prefix(&shared).unwrap_or(&place);
        below.display().to_string()
    };
    Taken {
        files: named(set, relative),
        prefix: format!("{}/", shared.display().to_string().trim_end_matches('/')),
        source: String::new(),
        found: None,
    }
}

/// From the root, without `.` and `..`: only a name, nothing is read there.
fn whole(path: &str) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let mut whole = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            component => whole.push(component),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_from_what_they_share() {
        let mut set = FileSet::new(Layout {
            config: "/etc/prow/../prow/config.yaml".into(),
            jobs: Some("/etc/prow/jobs".into()),
            ..Layout::default()
        });
        set.insert("/etc/prow/../prow/config.yaml", b"".as_slice());
        set.insert("/etc/prow/jobs/a/b.yaml", b"".as_slice());
        let taken = named_by_place(&set);
        assert_eq!(taken.prefix, "/etc/prow/");
        let names: Vec<_> = taken
            .files
            .iter()
            .map(|file| (file.role.as_str(), file.path.as_str()))
            .collect();
        assert_eq!(names, [("main", "config.yaml"), ("job", "jobs/a/b.yaml")]);
    }
}
