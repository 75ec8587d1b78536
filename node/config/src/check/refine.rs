//! Findings that know their field and not its place get line and column from the file; those of a job get the field's
//! own place instead of the job's. A file is parsed for that once, and forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Warning;
use super::follow_up::job_of;
use super::sources::entry;
use crate::diagnostic::{Diagnostic, Rule};
use crate::load::document;
use crate::parallel::in_parallel;
use crate::yaml::{Node, NodeValue, Position};

/// Looks up the fields of all findings that came without the place of their own field.
pub(super) fn refine<'f>(
    found: &mut [Diagnostic],
    file: impl Fn(&str) -> Option<&'f Arc<[u8]>> + Sync,
) {
    let mut by_file: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (n, finding) in found.iter().enumerate() {
        let is_placed = finding.line > 0 && job_of(&finding.field).is_none();
        if !is_placed && !is_of_decoder(finding.rule) && !finding.file.is_empty() {
            by_file.entry(finding.file.clone()).or_default().push(n);
        }
    }
    let by_file: Vec<(String, Vec<usize>)> = by_file.into_iter().collect();
    let size = |(path, _): &(String, Vec<usize>)| file(path).map_or(0, |bytes| bytes.len());
    let places = in_parallel(&by_file, size, |(path, findings)| {
        let root = file(path).and_then(|bytes| document(path, bytes, &mut Vec::new()));
        let place = |n: &usize| {
            let steps = steps(&found[*n].field)?;
            Some((*n, deepest(root.as_deref()?, &steps)?))
        };
        findings.iter().filter_map(place).collect::<Vec<_>>()
    });
    for (n, at) in places.into_iter().flatten() {
        (found[n].line, found[n].column) = (at.line, at.column);
    }
}

/// The decoder's own findings point at what it read.
fn is_of_decoder(rule: Rule) -> bool {
    use Warning::{DuplicateKey, ExtraDocument, UnknownFields, UnknownFieldsAll};
    match rule {
        Rule::File | Rule::Type | Rule::UnknownField | Rule::DuplicateKey | Rule::ExtraDocument => {
            true
        }
        Rule::Invalid => false,
        Rule::Warning(warning) => {
            matches!(
                warning,
                UnknownFields | UnknownFieldsAll | DuplicateKey | ExtraDocument
            )
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Reads a path as the decoder writes it.
fn steps(field: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            if bracket.starts_with('"') {
                let mut texts = serde_json::Deserializer::from_str(bracket).into_iter::<String>();
                let key = texts.next()?.ok()?;
                rest = bracket.get(texts.byte_offset()..)?.strip_prefix(']')?;
                steps.push(Step::Key(key));
            } else {
                let (index, after) = bracket.split_once(']')?;
                steps.push(Step::Index(index.parse().ok()?));
                rest = after;
            }
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Key(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    Some(steps)
}

/// The place of the deepest part of a path that is there: of a scalar itself, of the key of anything larger.
fn deepest(root: &Node, path: &[Step]) -> Option<Position> {
    let mut node = root;
    let mut at = None;
    for step in path {
        match step {
            Step::Key(key) => {
                let Some(entry) = entry(node, key) else { break };
                node = &entry.value;
                let is_whole = matches!(
                    node.value,
                    NodeValue::Mapping(_) | NodeValue::Sequence(_) | NodeValue::Null
                );
                at = Some(if is_whole { entry.key_at } else { node.at });
            }
            Step::Index(n) => {
                let NodeValue::Sequence(items) = &node.value else {
                    break;
                };
                let Some(item) = items.get(*n) else { break };
                node = item;
                at = Some(node.at);
            }
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cfg_116_fields_are_found_again_in_their_file() {
        let text = "presubmits:\n  org/repo:\n  - name: a\n    labels:\n      x/y: 'v'\n    spec: {containers: [{image: i}]}\n";
        let root = crate::yaml::parse(text.as_bytes()).unwrap().root;
        let at =
            |field: &str| deepest(&root, &steps(field).unwrap()).map(|at| (at.line, at.column));
        assert_eq!(at("presubmits[\"org/repo\"][0]"), Some((3, 5)));
        assert_eq!(at("presubmits[\"org/repo\"][0].name"), Some((3, 11)));
        assert_eq!(
            at("presubmits[\"org/repo\"][0].labels[\"x/y\"]"),
            Some((5, 12))
        );
        assert_eq!(at("presubmits[\"org/repo\"][0].labels"), Some((4, 5)));
        // What is not there stands where it would.
        assert_eq!(at("presubmits[\"org/repo\"][0].context"), Some((3, 5)));
        assert_eq!(at("presubmits[\"org/repo\"][7]"), Some((2, 3)));
        assert_eq!(at("tide"), None);
        assert_eq!(
            steps("a[\"b\\\"]c\"].d"),
            Some(vec![
                Step::Key("a".into()),
                Step::Key("b\"]c".into()),
                Step::Key("d".into())
            ])
        );
    }
}
