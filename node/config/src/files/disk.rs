//! The one place that touches a disk: reads the files of a layout into a set.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use super::{FileSet, IGNORE_FILE, Layout, VERSION_FILE};
use crate::diagnostic::{Diagnostic, Rule};
use crate::parallel::in_parallel;

/// Larger files are refused; the largest known job file has 6 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// More entries than this in the trees of one configuration are refused; the largest known has 20,000.
const MAX_ENTRIES: usize = 1_000_000;

/// Reads everything that a layout names. Symbolic links to files are followed, those to directories are not (CFG-004).
///
/// # Errors
/// Every path that cannot be read; then there is no set.
pub fn read(layout: Layout) -> Result<FileSet, Vec<Diagnostic>> {
    let mut reader = Reader {
        files: FileSet::new(layout.clone()),
        paths: Vec::new(),
        entries: 0,
        wrong: Vec::new(),
    };
    if layout.config.is_empty() {
        reader.wrong.push(Diagnostic::error(
            Rule::File,
            "",
            "--config-path is mandatory",
        ));
    } else if Path::new(&layout.config).is_dir() {
        let message = format!("prowConfig cannot be a dir - {}", layout.config);
        reader
            .wrong
            .push(Diagnostic::error(Rule::File, &layout.config, message));
    } else {
        reader.file(&layout.config);
        let version = Path::new(&layout.config).with_file_name(VERSION_FILE);
        if version.is_file() {
            reader.file(&path_text(&version));
        }
    }
    if let Some(jobs) = &layout.jobs {
        let wanted =
            |name: &str| name.ends_with(".yaml") || name.ends_with(".yml") || name == IGNORE_FILE;
        reader.file_or_tree(jobs, &wanted);
    }
    let suffix = layout.supplemental_suffix.clone();
    for dir in &layout.supplemental_dirs {
        reader.tree(Path::new(dir), &|name| {
            suffix.contains('/') || name.ends_with(&suffix)
        });
    }
    if let Some(plugins) = &layout.plugins {
        reader.file(plugins);
    }
    let suffix = layout.plugin_supplemental_suffix.clone();
    for dir in &layout.plugin_supplemental_dirs {
        reader.tree(Path::new(dir), &|name| {
            suffix.contains('/') || name.ends_with(&suffix)
        });
    }
    reader.contents();
    if reader.wrong.is_empty() {
        Ok(reader.files)
    } else {
        Err(reader.wrong)
    }
}

struct Reader {
    files: FileSet,
    /// What is to be read.
    paths: Vec<String>,
    entries: usize,
    wrong: Vec<Diagnostic>,
}

impl Reader {
    fn refuse(&mut self, path: &str, error: impl std::fmt::Display) {
        self.wrong.push(Diagnostic::error(
            Rule::File,
            path,
            format!("error reading {path}: {error}"),
        ));
    }

    fn file(&mut self, path: &str) {
        self.paths.push(path.to_owned());
    }

    fn contents(&mut self) {
        let paths = std::mem::take(&mut self.paths);
        let contents = in_parallel(&paths, |_| 0, |path| read_file(path));
        for (path, content) in paths.into_iter().zip(contents) {
            match content {
                Ok(bytes) => self.files.insert(path, bytes),
                Err(e) => self.refuse(&path, e),
            }
        }
    }

    fn file_or_tree(&mut self, path: &str, wanted: &dyn Fn(&str) -> bool) {
        if Path::new(path).is_dir() {
            let before = self.paths.len();
            self.tree(Path::new(path), wanted);
            // An empty tree is valid, and a set knows directories by their files only.
            if self.paths.len() == before && self.wrong.is_empty() {
                self.files.insert(
                    format!("{}/{IGNORE_FILE}", path.trim_end_matches('/')),
                    Vec::new(),
                );
            }
        } else {
            self.file(path);
        }
    }

    fn tree(&mut self, dir: &Path, wanted: &dyn Fn(&str) -> bool) {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) => return self.refuse(&path_text(dir), e),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => return self.refuse(&path_text(dir), e),
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return self.refuse(
                    &path_text(dir),
                    format!("more than {MAX_ENTRIES} files and directories"),
                );
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("..") {
                continue;
            }
            let path = entry.path();
            // The entry's own type: a link to a directory is no directory here.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.tree(&path, wanted),
                Ok(_) if wanted(&name) && !path.is_dir() => self.file(&path_text(&path)),
                Ok(_) => {}
                Err(e) => self.refuse(&path_text(&path), e),
            }
        }
    }
}

/// Follows links to a regular file. Anything else is not even opened: a pipe would keep the reader waiting, and some devices
/// never end.
fn read_file(path: &str) -> Result<Arc<[u8]>, FileError> {
    FileError::check(&fs::metadata(path)?)?;
    let file = open(path)?;
    // It may be another one by now, and grow while it is read.
    let meta = file.metadata()?;
    FileError::check(&meta)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1);
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        length if length > MAX_FILE_BYTES => Err(FileError::TooLarge(length)),
        _ => Ok(bytes.into()),
    }
}

fn open(path: &str) -> io::Result<File> {
    // Opening a pipe waits for its writer otherwise.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let mut options = File::options();
    options.read(true).custom_flags(flags.cast_signed());
    options.open(path)
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0} bytes are more than the {MAX_FILE_BYTES} allowed")]
    TooLarge(u64),
    #[error("it is {0}, not a regular file or a link to one; remove it, or put a file there")]
    NotRegular(&'static str),
}

impl FileError {
    fn check(meta: &Metadata) -> Result<(), Self> {
        if !meta.is_file() {
            return Err(Self::NotRegular(kind(meta)));
        }
        match meta.len() {
            length if length > MAX_FILE_BYTES => Err(Self::TooLarge(length)),
            _ => Ok(()),
        }
    }
}

fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_004_linked_files_are_read_and_linked_directories_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("jobs/real")).unwrap();
        fs::create_dir_all(at("jobs/..data")).unwrap();
        fs::write(at("config.yaml"), "").unwrap();
        fs::write(at("VERSION"), "abc\n").unwrap();
        fs::write(at("jobs/real/a.yaml"), "").unwrap();
        fs::write(at("jobs/..data/b.yaml"), "").unwrap();
        std::os::unix::fs::symlink(at("jobs/real/a.yaml"), at("jobs/link.yaml")).unwrap();
        std::os::unix::fs::symlink(at("jobs/real"), at("jobs/linked")).unwrap();
        let layout = Layout {
            config: path_text(&at("config.yaml")),
            jobs: Some(path_text(&at("jobs"))),
            ..Layout::default()
        };
        let files = read(layout).unwrap();
        let prefix = path_text(dir.path());
        let names: Vec<_> = files
            .iter()
            .map(|(path, _)| path.strip_prefix(&prefix).unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "/VERSION",
                "/config.yaml",
                "/jobs/link.yaml",
                "/jobs/real/a.yaml"
            ]
        );
    }

    /// CFG-004: what a link leads to is read only if it is a file. Nobody writes into the pipe: to open it would be to wait.
    #[test]
    fn cfg_004_pipes_devices_and_sockets_are_refused() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("jobs")).unwrap();
        fs::write(at("config.yaml"), "").unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let pipe = at("jobs/a.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        symlink(at("jobs/a.yaml"), at("jobs/b.yaml")).unwrap();
        symlink("/dev/zero", at("jobs/c.yaml")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("jobs/.prowignore")).unwrap();
        symlink("nowhere", at("jobs/d.yaml")).unwrap();
        let layout = |config: &str| Layout {
            config: path_text(&at(config)),
            jobs: Some(path_text(&at("jobs"))),
            ..Layout::default()
        };
        let told = |layout| {
            let prefix = format!("{}/", path_text(dir.path()));
            let wrong = read(layout).unwrap_err();
            let mut told: Vec<_> = wrong
                .iter()
                .map(|e| e.message.replace(&prefix, ""))
                .collect();
            told.sort();
            told.join("\n")
        };
        insta::assert_snapshot!(told(layout("config.yaml")), @r"
        error reading jobs/.prowignore: it is a socket, not a regular file or a link to one; remove it, or put a file there
        error reading jobs/a.yaml: it is a pipe, not a regular file or a link to one; remove it, or put a file there
        error reading jobs/b.yaml: it is a pipe, not a regular file or a link to one; remove it, or put a file there
        error reading jobs/c.yaml: it is a device, not a regular file or a link to one; remove it, or put a file there
        error reading jobs/d.yaml: No such file or directory (os error 2)
        ");
        let only = Layout {
            jobs: None,
            ..layout("jobs/b.yaml")
        };
        assert!(told(only).contains("it is a pipe"));
    }

    /// CFG-001.
    #[test]
    fn cfg_001_the_main_file_must_be_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let wrong = read(Layout {
            config: path_text(dir.path()),
            ..Layout::default()
        })
        .unwrap_err();
        assert!(
            wrong[0]
                .message
                .starts_with("prowConfig cannot be a dir - "),
            "{}",
            wrong[0]
        );
    }
}
