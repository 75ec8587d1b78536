//! A repository's own job files, from a checkout on this disk (CFG-078, CFG-113).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};

/// More files below `.prow` are refused.
const MAX_FILES: usize = 10_000;
/// Larger files are refused; in-repo configuration is never larger.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// By their paths in the repository.
pub(super) type Own = BTreeMap<String, Arc<[u8]>>;

/// Reads `.prow.yaml`, everything below `.prow`, and what hides some of it. Either may be absent.
///
/// # Errors
/// What cannot be read, or is too much.
pub(super) fn read(checkout: &Path) -> anyhow::Result<Own> {
    let mut files = Own::new();
    for name in [".prow.yaml", ".prow", ".prowignore"] {
        add(checkout, name, &mut files)?;
    }
    Ok(files)
}

fn add(root: &Path, name: &str, files: &mut Own) -> anyhow::Result<()> {
    let path = root.join(name);
    let meta = match fs::metadata(&path) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("{}", path.display()))?,
    };
    if !meta.is_dir() {
        if meta.len() > MAX_FILE_BYTES {
            bail!("{}: more than {MAX_FILE_BYTES} bytes", path.display());
        }
        if files.len() >= MAX_FILES {
            bail!("{}: more than {MAX_FILES} files", root.display());
        }
        let bytes = fs::read(&path).with_context(|| format!("{}", path.display()))?;
        files.insert(name.to_owned(), bytes.into());
        return Ok(());
    }
    for entry in fs::read_dir(&path).with_context(|| format!("{}", path.display()))? {
        let entry = entry?;
        // A link to a directory is not entered, as in job trees.
        let is_linked_dir = entry.file_type()?.is_symlink() && entry.path().is_dir();
        let below = entry.file_name().to_string_lossy().into_owned();
        if !is_linked_dir && !below.starts_with("..") {
            add(root, &format!("{name}/{below}"), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_113_files_of_the_directory_that_a_path_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at(".prow/sub")).unwrap();
        for name in [
            ".prow/sub/a.yaml",
            ".prow/b.yaml",
            ".prowignore",
            "other.yaml",
        ] {
            fs::write(at(name), "x").unwrap();
        }
        let own = read(dir.path()).unwrap();
        let names: Vec<_> = own.keys().map(String::as_str).collect();
        assert_eq!(names, [".prow/b.yaml", ".prow/sub/a.yaml", ".prowignore"]);
    }
}
