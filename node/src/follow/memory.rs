//! What the cluster remembers of watched directories: which states of them it took, and which one it refused.
//!
//! Nodes have their files from mounts of their own, which may lag behind each other and lie at other paths.

use std::path::Path;

use trireme_config::Layout;

/// States that are remembered.
const MAX_TAKEN: usize = 64;
/// What versions from a directory have in front of the node as their author.
pub(super) const AUTHORS: &str = "follow:";

/// The states that were taken, the newest first, as the cursor holds them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TakenBefore<'a>(Vec<&'a str>);

impl<'a> TakenBefore<'a> {
    pub(super) fn parse(cursor: &'a str) -> Self {
        Self(cursor.split_ascii_whitespace().collect())
    }

    /// The cursor once this one is the newest.
    pub(super) fn with(&self, digest: &str) -> String {
        let others = self.0.iter().copied().filter(|other| *other != digest);
        let all: Vec<&str> = std::iter::once(digest)
            .chain(others)
            .take(MAX_TAKEN)
            .collect();
        all.join(" ")
    }
}

/// What a state of the files is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// The one that was taken last.
    Newest,
    /// One that was taken before others, and that this node did not see come: its files lag behind.
    Older,
    /// To be taken.
    New,
}

/// What one office saw of its files.
#[derive(Debug, Default)]
pub(super) struct Seen {
    first: Option<String>,
    /// Whether they were others since: then what was there before has come back on purpose.
    changed: bool,
}

impl Seen {
    /// Of files that are the same for all nodes: what is there is meant, also if it was there before.
    pub(super) fn everywhere() -> Self {
        Self {
            changed: true,
            ..Self::default()
        }
    }

    pub(super) fn judge(&mut self, digest: &str, taken: &TakenBefore<'_>) -> Judged {
        let first = self.first.get_or_insert_with(|| digest.to_owned());
        self.changed |= first != digest;
        match taken.0.iter().position(|known| *known == digest) {
            Some(0) => Judged::Newest,
            Some(_) if !self.changed => Judged::Older,
            _ => Judged::New,
        }
    }
}

/// The state that was last refused, as its cursor holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) digest: String,
    /// The version in force then, 0 = none.
    pub(super) version: u64,
}

impl Refused {
    pub(super) fn parse(cursor: &str) -> Option<Self> {
        let (digest, version) = cursor.split_once(' ')?;
        let version = version.parse().ok()?;
        Some(Self {
            digest: digest.to_owned(),
            version,
        })
    }

    pub(super) fn cursor(&self) -> String {
        format!("{} {}", self.digest, self.version)
    }

    /// Why these files are not tried again: what somebody applied since is not to be overridden by files that were there
    /// before it.
    pub(super) fn holds_back(&self, digest: &str, version: u64, author: &str) -> Option<String> {
        let is_held =
            self.digest == digest && version != self.version && !author.starts_with(AUTHORS);
        is_held.then(|| {
            format!(
                "these files were refused while version {} was in force, and {author} has applied version {version} since, \
                 which stays until the files change",
                self.version
            )
        })
    }
}

/// A file's path by the part of the layout that it lies in, wherever that is mounted.
pub(super) fn relative(layout: &Layout, path: &str) -> String {
    if path == layout.config {
        return "config".to_owned();
    }
    if layout.plugins.as_deref() == Some(path) {
        return "plugins".to_owned();
    }
    let beside = |file: &'_ str| Path::new(file).parent().map(Path::to_path_buf);
    let mut roots = vec![("config".to_owned(), beside(&layout.config))];
    roots.extend(
        layout
            .jobs
            .iter()
            .map(|jobs| ("jobs".to_owned(), Some(jobs.into()))),
    );
    roots.extend(
        layout
            .plugins
            .iter()
            .map(|file| ("plugins".to_owned(), beside(file))),
    );
    for (name, dirs) in [
        ("supplemental", &layout.supplemental_dirs),
        ("plugin-supplemental", &layout.plugin_supplemental_dirs),
    ] {
        let dirs = dirs.iter().enumerate();
        roots.extend(dirs.map(|(number, dir)| (format!("{name}-{number}"), Some(dir.into()))));
    }
    let below = roots.iter().filter_map(|(name, root)| {
        let rest = Path::new(path).strip_prefix(root.as_ref()?).ok()?;
        Some((rest.as_os_str().len(), format!("{name}/{}", rest.display())))
    });
    // The innermost.
    below
        .min_by_key(|(length, _)| *length)
        .map_or_else(|| path.to_owned(), |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_bounded_and_the_newest_comes_first() {
        let mut cursor = String::new();
        for number in 0..MAX_TAKEN + 6 {
            cursor = TakenBefore::parse(&cursor).with(&number.to_string());
        }
        let taken = TakenBefore::parse(&cursor);
        assert_eq!(taken.0.len(), MAX_TAKEN);
        assert_eq!(taken.0.first(), Some(&"69"));
        assert_eq!(taken.0.last(), Some(&"6"));
        let again = taken.with("68");
        assert!(again.starts_with("68 69 67 "), "{again}");
        assert_eq!(TakenBefore::parse(&again).0.len(), MAX_TAKEN);
    }

    #[test]
    fn what_was_refused_does_not_override_what_somebody_applied_since() {
        let refused = Refused {
            digest: "d".to_owned(),
            version: 5,
        };
        assert_eq!(Refused::parse(&refused.cursor()), Some(refused.clone()));
        assert_eq!(Refused::parse(""), None);
        assert_eq!(
            refused.holds_back("d", 5, "somebody"),
            None,
            "still the same version"
        );
        assert_eq!(refused.holds_back("d", 6, "follow:node-2"), None);
        assert_eq!(refused.holds_back("e", 6, "somebody"), None, "other files");
        insta::assert_snapshot!(
            refused.holds_back("d", 6, "somebody").unwrap(),
            @"these files were refused while version 5 was in force, and somebody has applied version 6 since, which stays until the files change"
        );
    }
}
