//! `.prowignore` files: gitignore's syntax, each for its directory and what is below (CFG-005).

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{Content, IGNORE_FILE};

/// The ignore files of a tree, the deepest first.
pub(super) struct Ignored(Vec<(String, Gitignore)>);

impl Ignored {
    pub(super) fn new(root: &str, files: &[(&str, &Content)]) -> Self {
        let root = root.trim_end_matches('/');
        let mut found: Vec<_> = files
            .iter()
            .filter_map(|(path, content)| {
                let dir = path.strip_suffix(IGNORE_FILE)?.strip_suffix('/')?;
                let bytes = content.bytes()?;
                dir.starts_with(root)
                    .then(|| (dir.to_owned(), patterns(dir, bytes)))
            })
            .collect();
        found.sort_by_key(|(dir, _)| std::cmp::Reverse(dir.matches('/').count()));
        Self(found)
    }

    /// The deepest file with an opinion decides.
    pub(super) fn hides(&self, path: &str) -> bool {
        let below = self.0.iter().filter(|(dir, _)| {
            path.strip_prefix(dir.as_str())
                .is_some_and(|r| r.starts_with('/'))
        });
        for (_, patterns) in below {
            match patterns.matched_path_or_any_parents(path, false) {
                Match::None => {}
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
            }
        }
        false
    }
}

fn patterns(dir: &str, bytes: &[u8]) -> Gitignore {
    let mut builder = GitignoreBuilder::new(dir);
    for line in String::from_utf8_lossy(bytes).lines() {
        // A pattern that is none hides nothing, as in git.
        if let Err(error) = builder.add_line(None, line) {
            tracing::warn!(dir, line, %error, "cannot read a pattern");
        }
    }
    builder.build().unwrap_or_else(|error| {
        tracing::warn!(dir, %error, "cannot read the patterns");
        Gitignore::empty()
    })
}
