//! One file by itself: unpacked, parsed, decoded, with the place of everything in it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::JobConfig;
use crate::decode::{Cx, Decode, decode_object};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::unpacked;
use crate::job::{JobBase, Source};
use crate::yaml::{self, Node, NodeValue, Position};

/// Jobs of one file; the largest known have some thousand.
const MAX_JOBS: usize = 100_000;

/// A job file as it is written, before any default.
#[derive(Clone, Debug, Default)]
pub(super) struct JobFile {
    pub(super) jobs: JobConfig,
    pub(super) found: Vec<Diagnostic>,
}

impl JobFile {
    pub(super) fn parse(path: &str, bytes: &[u8]) -> Self {
        let mut found = Vec::new();
        let Some(root) = document(path, bytes, &mut found) else {
            return Self {
                jobs: JobConfig::default(),
                found,
            };
        };
        if let Some(too_many) = too_many_jobs(path, &root) {
            found.push(too_many);
            return Self {
                jobs: JobConfig::default(),
                found,
            };
        }
        let mut cx = Cx::new(path, true);
        let mut jobs: JobConfig = decode_object(&root, &mut cx);
        found.append(&mut cx.diagnostics);
        place_jobs(&mut jobs, &root, &Arc::from(path));
        Self { jobs, found }
    }
}

/// What is wrong with a file that has more jobs than a file may have. Aliases make many of few bytes, and each is a job of
/// its own.
pub(super) fn too_many_jobs(path: &str, root: &Node) -> Option<Diagnostic> {
    let of_repos = |key| {
        lists(root, key)
            .values()
            .map(|jobs| jobs.len())
            .sum::<usize>()
    };
    let periodics = child(root, "periodics").map_or(0, |node| items(node).len());
    let count = of_repos("presubmits") + of_repos("postsubmits") + periodics;
    (count > MAX_JOBS).then(|| {
        let message = format!(
            "error reading {path}: {count} jobs are more than the {MAX_JOBS} that a file may have; split it"
        );
        Diagnostic::error(Rule::File, path, message)
    })
}

/// `field` is one of the job's own; empty where the whole job is meant.
pub(crate) fn of_job(base: &JobBase, field: &str, message: String) -> Diagnostic {
    let source = &base.source;
    let at = Position {
        line: source.line,
        column: source.column,
    };
    let found = Diagnostic::error(Rule::Invalid, source.file.as_ref(), message);
    found.at(at).field(source.field(field))
}

/// Unpacks (CFG-008) and parses a file.
pub(crate) fn document(path: &str, bytes: &[u8], found: &mut Vec<Diagnostic>) -> Option<Arc<Node>> {
    let bytes = match unpacked(bytes) {
        Ok(bytes) => bytes,
        Err(why) => {
            let message = format!("error reading {path}: {why}");
            found.push(Diagnostic::error(Rule::File, path, message));
            return None;
        }
    };
    match yaml::parse(&bytes) {
        Ok(document) => {
            for notice in document.notices {
                let rule = if notice.message.starts_with("only the first document ") {
                    Rule::ExtraDocument
                } else {
                    Rule::DuplicateKey
                };
                found.push(
                    Diagnostic::error(rule, path, notice.message)
                        .at(notice.at)
                        .warning(),
                );
            }
            Some(document.root)
        }
        Err(e) => {
            let message = format!("error unmarshalling: {e}");
            found.push(Diagnostic::error(Rule::File, path, message).at(e.at));
            None
        }
    }
}

pub(super) fn decoded<T: Decode>(
    path: &str,
    root: Option<&Node>,
    coerce: bool,
    found: &mut Vec<Diagnostic>,
) -> T {
    let Some(root) = root else {
        return T::default();
    };
    let mut cx = Cx::new(path, coerce);
    let value = T::decode(root, &mut cx);
    found.append(&mut cx.diagnostics);
    value
}

/// Tells every job where it stands.
pub(super) fn place_jobs(jobs: &mut JobConfig, root: &Node, file: &Arc<str>) {
    let presubmits = lists(root, "presubmits");
    for (repo, jobs) in &mut jobs.presubmits {
        let list: Arc<str> = format!("presubmits[{repo:?}]").into();
        let nodes = presubmits.get(repo.as_str()).copied().unwrap_or_default();
        for (n, job) in Arc::make_mut(jobs).iter_mut().enumerate() {
            Arc::make_mut(job).base.source = source(file, &list, n, nodes.get(n));
        }
    }
    let postsubmits = lists(root, "postsubmits");
    for (repo, jobs) in &mut jobs.postsubmits {
        let list: Arc<str> = format!("postsubmits[{repo:?}]").into();
        let nodes = postsubmits.get(repo.as_str()).copied().unwrap_or_default();
        for (n, job) in Arc::make_mut(jobs).iter_mut().enumerate() {
            Arc::make_mut(job).base.source = source(file, &list, n, nodes.get(n));
        }
    }
    let list: Arc<str> = "periodics".into();
    let nodes = child(root, "periodics").map_or(&[][..], |node| items(node));
    for (n, job) in jobs.periodics.iter_mut().enumerate() {
        Arc::make_mut(job).base.source = source(file, &list, n, nodes.get(n));
    }
}

/// The lists under a key, by repository: a file may have very many.
fn lists<'n>(root: &'n Node, key: &str) -> HashMap<&'n str, &'n [Arc<Node>]> {
    match child(root, key).map(|node| &node.value) {
        Some(NodeValue::Mapping(entries)) => entries
            .iter()
            .map(|entry| (entry.key.as_str(), items(&entry.value)))
            .collect(),
        _ => HashMap::new(),
    }
}

fn items(node: &Node) -> &[Arc<Node>] {
    match &node.value {
        NodeValue::Sequence(items) => items,
        _ => &[],
    }
}

pub(crate) fn source(
    file: &Arc<str>,
    list: &Arc<str>,
    index: usize,
    node: Option<&Arc<Node>>,
) -> Source {
    let at = node.map_or_else(Position::default, |node| node.at);
    Source {
        file: file.clone(),
        line: at.line,
        column: at.column,
        list: list.clone(),
        index: u32::try_from(index).unwrap_or(u32::MAX),
    }
}

fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Arc<Node>> {
    node.get(key).or_else(|| match &node.value {
        NodeValue::Mapping(entries) => entries
            .iter()
            .find(|entry| entry.key.eq_ignore_ascii_case(key))
            .map(|entry| &entry.value),
        _ => None,
    })
}

/// The place of the deepest part of a dotted path that is present.
pub(super) fn place_of(root: &Node, field: &str) -> Position {
    let mut node = root;
    for key in field.split('.') {
        match child(node, key) {
            Some(next) => node = next,
            None => break,
        }
    }
    if std::ptr::eq(node, root) {
        Position::default()
    } else {
        node.at
    }
}
