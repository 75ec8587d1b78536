//! A repository's own job files, from a checkout on this disk (CFG-078, CFG-113).

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use trireme_config::in_repo::{DIR, OwnFile, OwnFiles, wants};

/// More files below `.prow` are refused.
const MAX_FILES: usize = 10_000;
/// Larger files are refused; in-repo configuration is never larger.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads `.prow.yaml`, everything below `.prow`, and what hides some of it. Either may be absent.
///
/// # Errors
/// What cannot be read, or is too much.
pub(super) fn read(checkout: &Path) -> anyhow::Result<OwnFiles> {
    let mut own = OwnFiles {
        has_dir: checkout.join(DIR).is_dir(),
        ..OwnFiles::default()
    };
    for name in [".prow.yaml", DIR, ".prowignore"] {
        add(checkout, name, &mut own)?;
    }
    Ok(own)
}

fn add(root: &Path, name: &str, own: &mut OwnFiles) -> anyhow::Result<()> {
    let path = root.join(name);
    let at = || path.display().to_string();
    let entry = match fs::symlink_metadata(&path) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(at)?,
    };
    // A link to a directory is not entered, as in job trees.
    if entry.is_dir() {
        for below in fs::read_dir(&path).with_context(at)? {
            let below = below.with_context(at)?.file_name();
            let below = below.to_string_lossy();
            if !below.starts_with("..") {
                add(root, &format!("{name}/{below}"), own)?;
            }
        }
        return Ok(());
    }
    if !wants(name) && name != DIR {
        return Ok(());
    }
    if own.files.len() >= MAX_FILES {
        bail!("{}: more than {MAX_FILES} files", root.display());
    }
    let file = match fs::metadata(&path) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            OwnFile::Dangling("it is a link to something that is not there".to_owned())
        }
        Err(why) => return Err(why).with_context(at),
        Ok(meta) if meta.is_dir() => OwnFile::NoFile("it is a link to a directory".to_owned()),
        Ok(meta) if meta.len() > MAX_FILE_BYTES => {
            bail!("{}: more than {MAX_FILE_BYTES} bytes", at());
        }
        Ok(_) => OwnFile::Bytes(fs::read(&path).with_context(at)?.into()),
    };
    own.files.insert(name.to_owned(), file);
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
        assert!(own.has_dir);
        let names: Vec<_> = own.files.keys().map(String::as_str).collect();
        assert_eq!(names, [".prow/b.yaml", ".prow/sub/a.yaml", ".prowignore"]);
    }
}
