//! Where in a main file or its supplements a key stands. Only files that hold the text are parsed, each once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::files::{Content, FileSet, is_packed};
use crate::load::document;
use crate::yaml::{Entry, Node, NodeValue, Position};

/// A field of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) field: String,
    pub(super) at: Position,
}

/// A main file with its supplements, in their order.
pub(super) struct Sources<'a> {
    files: Vec<(&'a str, &'a Arc<[u8]>)>,
    parsed: RefCell<BTreeMap<usize, Option<Arc<Node>>>>,
}

impl<'a> Sources<'a> {
    pub(super) fn of_config(files: &'a FileSet) -> Self {
        Self::new(files, Some(&files.layout.config), files.supplementals())
    }

    pub(super) fn of_plugins(files: &'a FileSet) -> Self {
        let main = files.layout.plugins.as_deref();
        Self::new(files, main, files.plugin_supplementals())
    }

    fn new(
        files: &'a FileSet,
        main: Option<&'a str>,
        supplements: Vec<(&'a str, &'a Content)>,
    ) -> Self {
        let main = main.and_then(|path| Some((path, files.content(path)?)));
        let with_bytes = |(path, content): (&'a str, &'a Content)| Some((path, content.bytes()?));
        Self {
            files: main
                .into_iter()
                .chain(supplements)
                .filter_map(with_bytes)
                .collect(),
            parsed: RefCell::default(),
        }
    }

    /// Whether a file is one of these.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.iter().any(|(file, _)| *file == path)
    }

    fn root(&self, file: usize) -> Option<Arc<Node>> {
        let mut parsed = self.parsed.borrow_mut();
        let root = parsed.entry(file).or_insert_with(|| {
            let (path, bytes) = self.files.get(file)?;
            // What is wrong with the file was found when it was loaded.
            document(path, bytes, &mut Vec::new())
        });
        root.clone()
    }

    /// Files that may hold a word; packed ones always may.
    fn holding<'s>(&'s self, word: &'s str) -> impl Iterator<Item = (&'a str, Arc<Node>)> + 's {
        let holds = move |bytes: &[u8]| {
            is_packed(bytes) || std::str::from_utf8(bytes).is_ok_and(|text| text.contains(word))
        };
        self.files
            .iter()
            .enumerate()
            .filter(move |(_, (_, bytes))| holds(bytes))
            .filter_map(|(n, (path, _))| Some((*path, self.root(n)?)))
    }

    /// The key at the end of a path of keys, in the first file that has all of them.
    pub(super) fn place(&self, path: &[&str]) -> Option<Place> {
        let word = path.last()?;
        self.holding(word).find_map(|(file, root)| {
            let (mut node, mut at) = (&root, Position::default());
            for key in path {
                let entry = entry(node, key)?;
                (node, at) = (&entry.value, entry.key_at);
            }
            Some(Place {
                file: file.to_owned(),
                field: field(path),
                at,
            })
        })
    }

    /// The first Tide query that names an org or repository.
    pub(super) fn tide_query(&self, key: &str) -> Option<Place> {
        self.holding(key).find_map(|(file, root)| {
            let queries = &entry(&entry(&root, "tide")?.value, "queries")?.value;
            items(queries).iter().enumerate().find_map(|(n, query)| {
                ["orgs", "repos"].into_iter().find_map(|list| {
                    let names = items(&entry(query, list)?.value);
                    let m = names
                        .iter()
                        .position(|name| matches!(&name.value, NodeValue::String(s) if s == key))?;
                    Some(Place {
                        file: file.to_owned(),
                        field: format!("tide.queries[{n}].{list}[{m}]"),
                        at: names[m].at,
                    })
                })
            })
        })
    }

    /// Branch protection of an org or repository; of the org where the repository is not named.
    pub(super) fn protection(&self, key: &str) -> Option<Place> {
        let (org, repo) = key.split_once('/').unwrap_or((key, ""));
        let of_repo = self.place(&["branch-protection", "orgs", org, "repos", repo]);
        of_repo.or_else(|| self.place(&["branch-protection", "orgs", org]))
    }

    /// The plugins of an org or repository.
    pub(super) fn plugins(&self, key: &str) -> Option<Place> {
        self.place(&["plugins", key])
    }
}

fn items(node: &Node) -> &[Arc<Node>] {
    match &node.value {
        NodeValue::Sequence(items) => items,
        _ => &[],
    }
}

pub(super) fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Entry> {
    let NodeValue::Mapping(entries) = &node.value else {
        return None;
    };
    let exact = entries.iter().find(|entry| entry.key == key);
    exact.or_else(|| {
        entries
            .iter()
            .find(|entry| entry.key.eq_ignore_ascii_case(key))
    })
}

/// A path of keys as findings write it.
pub(super) fn field(path: &[&str]) -> String {
    let mut text = String::new();
    for key in path {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if !key.is_empty() && key.bytes().all(plain) {
            if !text.is_empty() {
                text.push('.');
            }
            text += key;
        } else {
            text += &format!("[{key:?}]");
        }
    }
    text
}
