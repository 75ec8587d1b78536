//! Parser events → nodes: anchors, merge keys, tags and map keys as go-yaml v2 treats them, and what libyaml refuses
//! but a YAML 1.2 parser accepts.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::scalar::{self, Number};
use super::{Entry, Node, NodeValue, Position};

/// How the tags of YAML itself begin (`!!int`).
const YAML_TAGS: &str = "tag:yaml.org,2002:";
/// Nesting beyond this is refused, so that a hostile file cannot overflow the stack of a thread (2 MiB, without optimisation).
const MAX_DEPTH: usize = 200;
/// Below this many expanded nodes a document may consist of aliases alone; go-yaml's bound.
const ALIAS_FREE_NODES: u64 = 400_000;
/// Above this many expanded nodes at most a tenth may come from aliases; go-yaml's bound.
const ALIAS_STRICT_NODES: u64 = 4_000_000;
/// Values in one document, aliases not expanded; the largest known job file, of 6 MB, has some hundred thousand.
const MAX_NODES: usize = 2_000_000;
/// Bytes of all texts and keys of a document, aliases expanded: each may be copied where it is used. Far beyond the bytes
/// that a file may have.
const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Notices of one document.
const MAX_NOTICES: usize = 1000;
/// Bytes of a key: libyaml itself takes no more than 1024 characters where no question mark announces it.
const MAX_KEY_BYTES: usize = 4096;
/// Mappings with more keys than this get an index for finding doubles.
const INDEXED_MAPPING: usize = 16;

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("yaml: line {}: {message}", .at.line)]
pub struct YamlError {
    pub at: Position,
    pub message: String,
}

/// What upstream accepts in silence and a person would like to know (CFG-026).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub at: Position,
    pub message: String,
}

/// The first document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Null if the file is empty.
    pub root: Arc<Node>,
    pub notices: Vec<Notice>,
}

/// Reads the first document of a file.
///
/// # Errors
/// The first thing that go-yaml would refuse, with its line.
pub fn parse(bytes: &[u8]) -> Result<Document, YamlError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        error(line, 1, "invalid UTF-8 octet")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    refuse_control_characters(text)?;
    refuse_unread_prefixes(text)?;
    let mut composer = Composer {
        parser: Parser::new_from_str_with_options(text, as_libyaml()),
        text,
        nodes: 0,
        merged: 0,
        anchors: HashMap::new(),
        notices: Vec::new(),
    };
    let root = composer.document()?;
    Ok(Document {
        root,
        notices: composer.notices,
    })
}

/// Where the parser can be told to read as libyaml does. It does by itself where YAML 1.2 wants the lines of flow
/// collections and quoted scalars indented like their block, and libyaml does not care.
fn as_libyaml() -> Options {
    let mut options = granit_parser::options! {
        strict_indentation: false,
        block_scalar_eof_without_line_feed: true,
    };
    options.set_emit_comments(false);
    options
}

fn error(line: usize, column: usize, message: impl Into<String>) -> YamlError {
    let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    YamlError {
        at: Position {
            line: clamp(line),
            column: clamp(column),
        },
        message: message.into(),
    }
}

/// libyaml's reader accepts the printable characters of YAML 1.1 only.
fn refuse_control_characters(text: &str) -> Result<(), YamlError> {
    let refused = |c: char| {
        !matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
            || c == '\u{feff}'
    };
    // Almost every file is plain ASCII: look at bytes first.
    if text
        .bytes()
        .all(|b| matches!(b, b'\t' | b'\n' | b'\r' | b' '..=b'~'))
    {
        return Ok(());
    }
    match text.char_indices().find(|(_, c)| refused(*c)) {
        None => Ok(()),
        Some((at, _)) => {
            let line = text[..at].matches('\n').count() + 1;
            Err(error(line, 1, "control characters are not allowed"))
        }
    }
}

/// Directives of another YAML version, and tabs where the first token of the document could stand.
fn refuse_unread_prefixes(text: &str) -> Result<(), YamlError> {
    for (number, line) in text.lines().enumerate() {
        let blank = line.trim_start_matches(' ');
        if blank.starts_with('\t') {
            return Err(error(
                number + 1,
                line.len() - blank.len() + 1,
                "found character that cannot start any token",
            ));
        }
        match line.strip_prefix("%YAML") {
            Some(version) if version.split_whitespace().next() != Some("1.1") => {
                return Err(error(number + 1, 1, "found incompatible YAML document"));
            }
            Some(_) => {}
            // Directives stand before the first document.
            None if blank.is_empty() || blank.starts_with('#') || line.starts_with('%') => {}
            None => break,
        }
    }
    Ok(())
}

/// A node with the number of nodes that it expands to, how many of them come from aliases, how many levels they have, and
/// how many bytes their texts and keys.
#[derive(Clone)]
struct Composed {
    node: Arc<Node>,
    nodes: u64,
    aliased: u64,
    height: usize,
    bytes: u64,
}

/// What a collection is made of, counted.
struct Collected {
    value: NodeValue,
    nodes: u64,
    aliased: u64,
    height: usize,
    bytes: u64,
}

impl Collected {
    fn new(value: NodeValue) -> Self {
        let bytes = match &value {
            NodeValue::String(text) => text.len() as u64,
            _ => 0,
        };
        Self {
            value,
            nodes: 1,
            aliased: 0,
            height: 0,
            bytes,
        }
    }

    fn count(&mut self, child: &Composed) {
        self.bytes = self.bytes.saturating_add(child.bytes);
        self.nodes = self.nodes.saturating_add(child.nodes);
        self.aliased = self.aliased.saturating_add(child.aliased);
        self.height = self.height.max(child.height + 1);
    }
}

impl Collected {
    /// Before anything of it is copied.
    fn refuse_expansion(&self, span: Span) -> Result<(), YamlError> {
        if self.bytes <= MAX_TEXT_BYTES {
            return Ok(());
        }
        let message = format!(
            "document contains excessive aliasing: the texts expand to more than {MAX_TEXT_BYTES} bytes"
        );
        Err(at_span(span, message))
    }
}

struct Composer<'input> {
    parser: Parser<'input, StrInput<'input>>,
    text: &'input str,
    nodes: usize,
    /// Nodes that merge keys brought, each time.
    merged: u64,
    /// By the parser's number; none while the anchored node is not complete: an alias there would contain itself.
    anchors: HashMap<usize, Option<Composed>>,
    notices: Vec<Notice>,
}

impl<'input> Composer<'input> {
    fn next(&mut self) -> Result<(Event<'input>, Span), YamlError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => Err(scan_error(&e)),
            None => Err(error(0, 0, "unexpected end of document")),
        }
    }

    fn document(&mut self) -> Result<Arc<Node>, YamlError> {
        let root = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, _) => {
                    return Ok(Arc::new(Node {
                        value: NodeValue::Null,
                        at: Position { line: 1, column: 1 },
                    }));
                }
                (event, span) => break self.node(event, span, 0)?,
            }
        };
        refuse_excessive_aliases(&root)?;
        match self.next()? {
            (Event::DocumentEnd, _) => {}
            (_, span) => return Err(at_span(span, "did not find expected <document start>")),
        }
        // Later documents are ignored, and so are their errors (CFG-020); CFG-026 makes them known.
        if let Some(Ok((Event::DocumentStart(..), span))) = self.parser.next_event() {
            self.notice(position(span), || {
                "only the first document of a file is read; this one is ignored".to_owned()
            });
        }
        Ok(root.node)
    }

    /// Counts a value, unless it is one too many or too deep.
    fn one_more(&mut self, span: Span, depth: usize) -> Result<(), YamlError> {
        if depth > MAX_DEPTH {
            return Err(at_span(
                span,
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(at_span(
                span,
                format!("more than {MAX_NODES} values in one document; split the file"),
            ));
        }
        Ok(())
    }

    fn node(
        &mut self,
        event: Event<'input>,
        span: Span,
        depth: usize,
    ) -> Result<Composed, YamlError> {
        self.one_more(span, depth)?;
        let (anchor, collected) = match event {
            Event::Alias(id) => {
                return match self.anchors.get(&id) {
                    // What it stands for counts as if it stood here: a chain of aliases is no way around the bound.
                    Some(Some(anchored)) if depth + anchored.height > MAX_DEPTH => Err(at_span(
                        span,
                        format!("nested deeper than {MAX_DEPTH} levels"),
                    )),
                    Some(Some(anchored)) => Ok(Composed {
                        aliased: anchored.nodes,
                        ..anchored.clone()
                    }),
                    _ => Err(at_span(span, "anchor value contains itself")),
                };
            }
            Event::Scalar(text, style, anchor, tag) => {
                if style == ScalarStyle::DoubleQuoted {
                    self.refuse_odd_escapes(span)?;
                }
                let value = meaning(text, style, tag.as_deref(), span)?;
                (anchor, Collected::new(value))
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(anchor);
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(_, anchor, _) => {
                self.open(anchor);
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(at_span(span, "did not find expected node content")),
        };
        let composed = Composed {
            node: Arc::new(Node {
                value: collected.value,
                at: position(span),
            }),
            nodes: collected.nodes,
            aliased: collected.aliased,
            height: collected.height,
            bytes: collected.bytes,
        };
        if anchor != 0 {
            self.anchors.insert(anchor, Some(composed.clone()));
        }
        Ok(composed)
    }

    fn notice(&mut self, at: Position, message: impl FnOnce() -> String) {
        if self.notices.len() > MAX_NOTICES {
            return;
        }
        let message = if self.notices.len() == MAX_NOTICES {
            format!("more than {MAX_NOTICES} doubled keys in this file; the rest is not told")
        } else {
            message()
        };
        self.notices.push(Notice { at, message });
    }

    /// What has an anchor, if it is one, is not complete yet.
    fn open(&mut self, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Collected, YamlError> {
        let mut items = Vec::new();
        let mut all = Collected::new(NodeValue::Null);
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => {
                    all.value = NodeValue::Sequence(items);
                    return Ok(all);
                }
                (event, span) => {
                    let item = self.node(event, span, depth + 1)?;
                    all.count(&item);
                    all.refuse_expansion(span)?;
                    items.push(item.node);
                }
            }
        }
    }

    /// A key's value. Almost every key is a text that nothing refers to, and needs no node.
    fn key(
        &mut self,
        event: Event<'input>,
        span: Span,
        depth: usize,
    ) -> Result<NodeValue, YamlError> {
        match event {
            Event::Scalar(text, ScalarStyle::Plain, 0, None) => {
                self.one_more(span, depth)?;
                Ok(scalar::resolve_plain(text))
            }
            event => {
                let key = self.node(event, span, depth)?.node;
                Ok(Arc::unwrap_or_clone(key).value)
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Collected, YamlError> {
        let mut building = Building::default();
        let mut all = Collected::new(NodeValue::Null);
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => {
                    all.value = NodeValue::Mapping(building.entries);
                    return Ok(all);
                }
                key => key,
            };
            let is_merge = is_merge_key(&event);
            let key_at = position(span);
            let key = self.key(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            all.count(&value);
            all.refuse_expansion(span)?;
            all.nodes = all.nodes.saturating_add(1);
            if is_merge {
                self.merged = self.merged.saturating_add(value.nodes);
                if self.merged > MAX_NODES as u64 {
                    return Err(at_span(
                        span,
                        format!(
                            "document contains excessive aliasing: more than {MAX_NODES} values are merged into others"
                        ),
                    ));
                }
                building.merge(&value.node)?;
                continue;
            }
            let name = key_text(key, key_at)?;
            all.bytes = all.bytes.saturating_add(name.len() as u64);
            if let Some(first) = building.written(&name) {
                self.notice(key_at, || {
                    format!(
                        "key {name:?} is already set in line {}; the last one counts",
                        first.line
                    )
                });
            }
            building.set(
                Entry {
                    key: name,
                    key_at,
                    value: value.node,
                },
                true,
            );
        }
    }

    /// Escapes that YAML 1.2 took over from JSON, and halves of UTF-16 pairs.
    fn refuse_odd_escapes(&self, span: Span) -> Result<(), YamlError> {
        let bytes = (span.start.byte_offset().zip(span.end.byte_offset()))
            .map_or(0..0, |(from, to)| from..to);
        let raw = self.text.get(bytes).unwrap_or_default();
        let mut rest = raw.chars();
        while let Some(c) = rest.next() {
            if c != '\\' {
                continue;
            }
            match rest.next() {
                Some('/') => return Err(at_span(span, "found unknown escape character")),
                Some('u') => {
                    let digits: String = rest.clone().take(4).collect();
                    if u32::from_str_radix(&digits, 16)
                        .is_ok_and(|code| char::from_u32(code).is_none())
                    {
                        return Err(at_span(span, "found invalid Unicode character escape code"));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A mapping under construction.
#[derive(Default)]
struct Building {
    entries: Vec<Entry>,
    /// For each entry: whether the mapping itself wrote it, or a merge key brought it.
    own: Vec<bool>,
    index: HashMap<String, usize>,
}

impl Building {
    fn find(&mut self, key: &str) -> Option<usize> {
        if self.entries.len() <= INDEXED_MAPPING {
            return self.entries.iter().position(|e| e.key == key);
        }
        for at in self.index.len()..self.entries.len() {
            self.index.insert(self.entries[at].key.clone(), at);
        }
        self.index.get(key).copied()
    }

    fn written(&mut self, key: &str) -> Option<Position> {
        self.find(key)
            .filter(|at| self.own[*at])
            .map(|at| self.entries[at].key_at)
    }

    fn set(&mut self, entry: Entry, own: bool) {
        if let Some(at) = self.find(&entry.key) {
            self.entries[at] = entry;
            self.own[at] = own;
        } else {
            self.entries.push(entry);
            self.own.push(own);
        }
    }

    /// go-yaml v2 merges where it meets the key: keys above lose, keys below win. Of several mappings the first wins.
    fn merge(&mut self, value: &Node) -> Result<(), YamlError> {
        let refused = |node: &Node| YamlError {
            at: node.at,
            message: "map merge requires map or sequence of maps as the value".to_owned(),
        };
        match &value.value {
            NodeValue::Mapping(entries) => entries.iter().for_each(|e| self.set(e.clone(), false)),
            NodeValue::Sequence(items) => {
                for item in items.iter().rev() {
                    let NodeValue::Mapping(entries) = &item.value else {
                        return Err(refused(item));
                    };
                    entries.iter().for_each(|e| self.set(e.clone(), false));
                }
            }
            _ => return Err(refused(value)),
        }
        Ok(())
    }
}

fn is_merge_key(event: &Event<'_>) -> bool {
    match event {
        Event::Scalar(text, style, _, tag) => {
            text == "<<"
                && match tag {
                    None => *style == ScalarStyle::Plain,
                    Some(tag) => tag.suffix_in_namespace(YAML_TAGS).as_deref() == Some("merge"),
                }
        }
        _ => false,
    }
}

/// The text of a key, as upstream turns keys of other kinds into JSON names.
fn key_text(key: NodeValue, at: Position) -> Result<String, YamlError> {
    let refused = |message: String| Err(YamlError { at, message });
    match key {
        NodeValue::String(s) if s.len() > MAX_KEY_BYTES => refused(format!(
            "a key of {} bytes is longer than {MAX_KEY_BYTES}",
            s.len()
        )),
        NodeValue::String(s) => Ok(s),
        NodeValue::Bool(b) => Ok(b.to_string()),
        NodeValue::Number(Number::Int(i)) => Ok(i.to_string()),
        NodeValue::Number(n @ Number::Float(_)) => Ok(match n.as_string().as_str() {
            "+Inf" => ".inf".to_owned(),
            "-Inf" => "-.inf".to_owned(),
            "NaN" => ".nan".to_owned(),
            digits => digits.to_owned(),
        }),
        NodeValue::Number(Number::Uint(_)) => {
            refused("unsupported map key of type: uint64".to_owned())
        }
        NodeValue::Null => refused("unsupported map key of type: null".to_owned()),
        value @ (NodeValue::Sequence(_) | NodeValue::Mapping(_)) => {
            let key = Node { value, at };
            refused(format!("invalid map key: {}", key.kind()))
        }
    }
}

fn meaning(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: Span,
) -> Result<NodeValue, YamlError> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain {
            scalar::resolve_plain(text)
        } else {
            NodeValue::String(text.into_owned())
        });
    };
    let Some(tag) = tag.suffix_in_namespace(YAML_TAGS) else {
        return Ok(NodeValue::String(text.into_owned()));
    };
    let wrong = |text: &str| {
        Err(at_span(
            span,
            format!("cannot decode `{text}` as a !!{tag}"),
        ))
    };
    match tag.as_ref() {
        "binary" => match decode_base64(&text) {
            Some(decoded) => Ok(NodeValue::String(decoded)),
            None => Err(at_span(span, "!!binary value contains invalid base64 data")),
        },
        "bool" | "int" | "float" | "null" => {
            let value = scalar::resolve_plain(&*text);
            match (tag.as_ref(), &value) {
                ("bool", NodeValue::Bool(_)) | ("null", NodeValue::Null) => Ok(value),
                ("int", NodeValue::Number(Number::Int(_) | Number::Uint(_))) => Ok(value),
                ("float", NodeValue::Number(Number::Float(_))) => Ok(value),
                ("float", NodeValue::Number(Number::Int(i))) => {
                    Ok(NodeValue::Number(Number::Float(*i as f64)))
                }
                _ => wrong(&text),
            }
        }
        _ => Ok(NodeValue::String(text.into_owned())),
    }
}

/// Standard base64 with padding; line breaks are ignored, as Go ignores them.
fn decode_base64(text: &str) -> Option<String> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => Some(u32::from(b - b'A')),
        b'a'..=b'z' => Some(u32::from(b - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(b - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bytes: Vec<u8> = text
        .bytes()
        .filter(|b| !matches!(b, b'\r' | b'\n'))
        .collect();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    let groups = bytes.len() / 4;
    for (at, group) in bytes.chunks_exact(4).enumerate() {
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        if padding > 2 || (padding > 0 && at + 1 != groups) {
            return None;
        }
        let mut word = 0;
        for b in &group[..4 - padding] {
            word = word << 6 | digit(*b)?;
        }
        word <<= 6 * padding;
        decoded.extend_from_slice(&word.to_be_bytes()[1..4 - padding]);
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

/// go-yaml's defence against a small file that expands to a huge one.
fn refuse_excessive_aliases(root: &Composed) -> Result<(), YamlError> {
    let allowed = if root.nodes <= ALIAS_FREE_NODES {
        0.99
    } else if root.nodes >= ALIAS_STRICT_NODES {
        0.10
    } else {
        let above =
            (root.nodes - ALIAS_FREE_NODES) as f64 / (ALIAS_STRICT_NODES - ALIAS_FREE_NODES) as f64;
        0.99 - 0.89 * above
    };
    if root.aliased > 100 && root.nodes > 1000 && root.aliased as f64 / root.nodes as f64 > allowed
    {
        return Err(YamlError {
            at: root.node.at,
            message: "document contains excessive aliasing".to_owned(),
        });
    }
    Ok(())
}

fn position(span: Span) -> Position {
    let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position {
        line: clamp(span.start.line()),
        column: clamp(span.start.col() + 1),
    }
}

fn at_span(span: Span, message: impl Into<String>) -> YamlError {
    YamlError {
        at: position(span),
        message: message.into(),
    }
}

fn scan_error(e: &ScanError) -> YamlError {
    error(e.marker().line(), e.marker().col() + 1, e.info())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(document) => document.root.to_json().unwrap().to_string(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn cfg_020_aliases_that_expand_without_end_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            text += &format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 10].join(", ")
            );
        }
        insta::assert_snapshot!(json(&text), @"yaml: line 9: document contains excessive aliasing: the texts expand to more than 268435456 bytes");
        insta::assert_snapshot!(json("a: &a [*a]"), @"yaml: line 1: anchor value contains itself");
        let deep = "[".repeat(600) + &"]".repeat(600);
        insta::assert_snapshot!(json(&deep), @"yaml: line 1: recursion limit exceeded");
        let deep: String = (0..600).map(|n| format!("{}-\n", "  ".repeat(n))).collect();
        insta::assert_snapshot!(json(&deep), @"yaml: line 202: nested deeper than 200 levels");
    }

    #[test]
    fn cfg_026_doubled_keys_and_later_documents_are_noticed() {
        let document = parse(b"a: 1\nb: 2\na: 3\n---\nc: 1\n").unwrap();
        assert_eq!(
            document.root.to_json().unwrap().to_string(),
            r#"{"a":3,"b":2}"#
        );
        let notices: Vec<_> = document
            .notices
            .iter()
            .map(|n| format!("{}: {}", n.at.line, n.message))
            .collect();
        insta::assert_snapshot!(notices.join("\n"), @r#"
        3: key "a" is already set in line 1; the last one counts
        4: only the first document of a file is read; this one is ignored
        "#);
    }

    #[test]
    fn cfg_020_continuation_lines_need_no_indentation() {
        assert_eq!(
            json("a:\n  b: [\n1,\n  2\n]\n  c: \"x\n y\""),
            r#"{"a":{"b":[1,2],"c":"x y"}}"#
        );
        insta::assert_snapshot!(json("a:\n  b: [\n1\n  c: }"), @"yaml: line 4: illegal placement of ':' indicator");
        // These end the document, wherever they stand.
        insta::assert_snapshot!(json("a:\n  b: \"x\n--- y\""), @"yaml: line 2: while scanning a quoted scalar, found unexpected document indicator");
    }

    /// What a last line without a line break is.
    #[test]
    fn cfg_020_a_block_ends_as_the_file_ends() {
        assert_eq!(json("a: |\n  x"), r#"{"a":"x"}"#);
        assert_eq!(json("a: |\n  x\n"), r#"{"a":"x\n"}"#);
    }

    /// A scalar of several lines in some style, below a key or in a list, each line with so many blanks before it.
    fn scattered() -> impl Strategy<Value = (&'static str, Vec<String>, Vec<usize>)> {
        let style = prop::sample::select(vec!["'", "\"", "["]);
        let line = prop_oneof![
            4 => "[a-z0-9][a-z0-9.é=/-]{0,6}( [a-z0-9]{1,5}){0,3}",
            1 => Just(String::new()),
        ];
        let lines = prop::collection::vec(line, 1..250);
        (style, lines).prop_flat_map(|(style, lines)| {
            let blanks = prop::collection::vec(0..6usize, lines.len());
            (Just(style), Just(lines), blanks)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Indentation is no part of the value, and what stands behind it has its own place.
        #[test]
        fn cfg_020_a_scalar_is_the_same_however_its_lines_are_indented((style, lines, blanks) in scattered(), depth in 0..4usize) {
            let close = if style == "[" { "]" } else { style };
            let write = |blanks: &dyn Fn(usize) -> usize| {
                let levels: String = (0..depth).map(|n| format!("{:1$}k:\n", "", n * 2)).collect();
                let indent = depth * 2;
                let mut text = format!("{levels}{:indent$}v: {style}begin\n", "");
                for (n, line) in lines.iter().enumerate() {
                    text += &format!("{:1$}{line}\n", "", blanks(n));
                }
                text + &format!("{0:1$}end{close}\n{0:indent$}w: &here 1\n", "", blanks(0))
            };
            let (loose, proper) = (write(&|n| blanks[n]), write(&|_| 12));
            let (loose, proper) = (parse(loose.as_bytes()), parse(proper.as_bytes()));
            let (loose, proper) = (loose.unwrap().root, proper.unwrap().root);
            prop_assert_eq!(loose.to_json(), proper.to_json());
            let mut at = &loose;
            for _ in 0..depth {
                at = at.get("k").unwrap();
            }
            let last = at.get("w").unwrap().at;
            let expected = (depth + lines.len() + 3, depth * 2 + "w: &here ".len() + 1);
            prop_assert_eq!((last.line as usize, last.column as usize), expected);
        }
    }

    #[test]
    fn a_merge_is_no_doubled_key() {
        let document = parse(b"d: &d {x: 1}\ne:\n  <<: *d\n  x: 2\n").unwrap();
        assert!(document.notices.is_empty());
    }
}
