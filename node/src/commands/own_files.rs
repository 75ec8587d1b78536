//! A repository's own job files, from a checkout on this disk (CFG-078, CFG-113).

use std::fs;
use std::io;
use std::path::Path;

use trireme_config::in_repo::{DIR, OwnFile, OwnFiles, wants};
use trireme_config::{Diagnostic, Rule};

/// More files below `.prow` are refused.
const MAX_FILES: usize = 10_000;
/// Larger files are refused; in-repo configuration is never larger.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads `.prow.yaml`, everything below `.prow`, and what hides some of it. Either may be absent.
///
/// # Errors
/// What cannot be read, or is too much.
pub(super) fn read(checkout: &Path) -> Result<OwnFiles, Diagnostic> {
    if !fs::metadata(checkout)
        .map_err(|why| unreadable(checkout, why))?
        .is_dir()
    {
        return Err(unreadable(checkout, "it is no directory"));
    }
    let mut own = OwnFiles {
        has_dir: checkout.join(DIR).is_dir(),
        ..OwnFiles::default()
    };
    for name in [".prow.yaml", DIR, ".prowignore"] {
        add(checkout, name, &mut own)?;
    }
    Ok(own)
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(Rule::File, path.display().to_string(), why.to_string())
}

fn add(root: &Path, name: &str, own: &mut OwnFiles) -> Result<(), Diagnostic> {
    let path = root.join(name);
    let failed = |why: io::Error| unreadable(&path, why);
    let entry = match fs::symlink_metadata(&path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    // A link to a directory is not entered, as in job trees.
    if entry.is_dir() {
        for below in fs::read_dir(&path).map_err(failed)? {
            let below = below.map_err(failed)?.file_name();
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
        return Err(unreadable(root, format!("more than {MAX_FILES} files")));
    }
    let file = match fs::metadata(&path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            OwnFile::Dangling("it is a link to something that is not there".to_owned())
        }
        Err(why) => return Err(failed(why)),
        Ok(meta) if meta.is_dir() => OwnFile::NoFile("it is a link to a directory".to_owned()),
        // To open one would be to wait for whoever writes into it.
        Ok(meta) if !meta.is_file() => {
            OwnFile::NoFile("it is a pipe, a socket or a device".to_owned())
        }
        Ok(meta) if meta.len() > MAX_FILE_BYTES => {
            return Err(unreadable(
                &path,
                format!("more than {MAX_FILE_BYTES} bytes"),
            ));
        }
        Ok(_) => OwnFile::Bytes(fs::read(&path).map_err(failed)?.into()),
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

    #[test]
    fn cfg_113_what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".prow")).unwrap();
        let socket = dir.path().join(".prow/a.yaml");
        let _open = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let own = read(dir.path()).unwrap();
        let found = &own.files[".prow/a.yaml"];
        assert!(matches!(found, OwnFile::NoFile(why) if why.contains("socket")));
    }

    #[test]
    fn cfg_113_what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let told = |path: &Path| read(path).unwrap_err().to_string();
        let gone = dir.path().join("gone");
        assert_eq!(
            told(&gone),
            format!("{}: No such file or directory (os error 2)", gone.display())
        );
        let file = dir.path().join(".prow.yaml");
        fs::write(
            &file,
            vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1],
        )
        .unwrap();
        assert_eq!(
            told(&file),
            format!("{}: it is no directory", file.display())
        );
        assert_eq!(
            told(dir.path()),
            format!("{}: more than 16777216 bytes", file.display())
        );
    }
}
