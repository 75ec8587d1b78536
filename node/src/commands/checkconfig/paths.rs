//! Paths of files as other programs want them: relative to the working directory, as URIs.

use std::path::{Component, Path, PathBuf};

/// Where a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A relative URI, below the working directory.
    Below(String),
    /// An absolute URI.
    Elsewhere(String),
}

/// The place of a path that may be relative to the working directory.
pub(super) fn place(path: &str) -> Place {
    let here = std::env::current_dir().unwrap_or_default();
    place_from(&here, path)
}

fn place_from(here: &Path, path: &str) -> Place {
    let whole = without_dots(&here.join(path));
    match whole.strip_prefix(here) {
        Ok(below) => Place::Below(encoded(below)),
        Err(_) => Place::Elsewhere(format!("file://{}", encoded(&whole))),
    }
}

/// The path for a person or a tool that does not want a URI.
pub(super) fn relative(path: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let whole = without_dots(&here.join(path));
    whole
        .strip_prefix(&here)
        .unwrap_or(&whole)
        .display()
        .to_string()
}

fn without_dots(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    whole
}

fn encoded(path: &Path) -> String {
    let mut uri = String::new();
    for byte in path.display().to_string().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                uri.push(char::from(byte))
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        let at = |path: &str| place_from(Path::new("/src/repo"), path);
        assert_eq!(
            at("./jobs/a b.yaml"),
            Place::Below("jobs/a%20b.yaml".to_owned())
        );
        assert_eq!(
            at("/src/repo/x/../c.yaml"),
            Place::Below("c.yaml".to_owned())
        );
        assert_eq!(
            at("../other/c.yaml"),
            Place::Elsewhere("file:///src/other/c.yaml".to_owned())
        );
    }
}
