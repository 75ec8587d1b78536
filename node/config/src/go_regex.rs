//! Regular expressions as Go's `regexp` reads them (CFG-028), on the `regex` crate, which is of the same family: RE2's
//! syntax, leftmost-first, linear time. The few differences in syntax are translated.

use std::sync::{Arc, OnceLock};

use regex::Regex;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Dot, Hir, HirKind};

/// Go's bound on the count of a repetition.
const MAX_REPEAT: u32 = 1000;
/// Ranges of characters in all classes, and characters, after repetition: what a compiled program grows with. Go's own bound
/// is of this size (a program of 128 MB), on other units; the largest known expression has some thousands.
const MAX_SIZE: u64 = 1_000_000;
/// Bytes that a compiled expression takes, however small; 6 to 21 KB were measured, with what matching adds.
const BYTES_OF_ANY: u64 = 16 << 10;
/// Bytes that it takes for each unit of its size; 105 were measured.
const BYTES_OF_SIZE: u64 = 128;
/// Bytes of an expression; the largest known has some thousands.
const MAX_SOURCE: usize = 1 << 20;
/// Classes of Unicode (`\pL`) in an expression: each has hundreds of ranges before anything is compiled.
const MAX_PROPERTIES: usize = 1000;
/// Go's bound on nested groups.
const MAX_NESTING: u32 = 1000;

/// Texts that are told of an expression; of one with more, none.
const MAX_TEXTS: usize = 64;
/// Characters of a class (`[12]`) that somebody names one by one; more (`\d`) are any.
const MAX_CHOICES: usize = 4;

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// A regular expression of a configuration. Cheap to clone; compiled when it is first used.
#[derive(Clone)]
pub struct GoRegex(Arc<Inner>);

struct Inner {
    source: String,
    translated: String,
    size: u64,
    compiled: OnceLock<Option<Regex>>,
}

/// Why a text is no regular expression; the wording is close to Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {reason}: `{fragment}`")]
pub struct RegexError {
    pub reason: String,
    pub fragment: String,
}

impl GoRegex {
    /// # Errors
    /// When Go would not compile the text.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        if source.len() > MAX_SOURCE {
            let reason = format!(
                "expression of {} bytes is longer than {MAX_SOURCE}",
                source.len()
            );
            return Err(error(&reason, &beginning(source)));
        }
        let translated = Translator::new(source).run()?;
        let parsed = parse(&translated).map_err(|reason| RegexError {
            reason,
            fragment: source.to_owned(),
        })?;
        let size = size(&parsed);
        if size > MAX_SIZE {
            let reason = format!("expression of size {size} is larger than {MAX_SIZE}");
            return Err(error(&reason, &beginning(source)));
        }
        Ok(Self(Arc::new(Inner {
            source: source.to_owned(),
            translated,
            size,
            compiled: OnceLock::new(),
        })))
    }

    /// Whether somebody else holds the same expression.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// See [`MAX_SIZE`].
    pub(crate) fn size(&self) -> u64 {
        self.0.size
    }

    /// Bytes of memory that the expression takes once it is compiled; an estimate, rather too high.
    #[must_use]
    pub fn weight(&self) -> u64 {
        BYTES_OF_ANY + BYTES_OF_SIZE * self.0.size
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.source
    }

    /// Whether the expression matches anywhere in the text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled().is_some_and(|regex| regex.is_match(text))
    }

    /// Every match from left to right, as the texts of its groups; the first is the whole.
    #[must_use]
    pub fn captures(&self, text: &str) -> Vec<Vec<Option<String>>> {
        let found = self.compiled().into_iter();
        let found = found.flat_map(|regex| regex.captures_iter(text));
        let texts = |groups: regex::Captures<'_>| {
            let groups = groups.iter();
            groups
                .map(|group| group.map(|group| group.as_str().to_owned()))
                .collect()
        };
        found.map(texts).collect()
    }

    /// Bytes of the leftmost match.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<std::ops::Range<usize>> {
        self.compiled()?.find(text).map(|found| found.range())
    }

    /// The texts that the expression is made of, without its anchors, if these are few: `release-1.1` and `release-1.2` of
    /// `^release-1\.[12]$`. A dot that stands alone is one, as people mean it in names.
    #[must_use]
    pub(crate) fn texts(&self) -> Vec<String> {
        let Ok(parsed) = parse(&self.0.translated) else {
            return Vec::new();
        };
        let found = Extractor::new()
            .limit_total(MAX_TEXTS)
            .limit_class(MAX_CHOICES)
            .extract(&with_plain_dots(parsed));
        let exact = found.literals().into_iter().flatten();
        let exact = exact.filter(|text| text.is_exact());
        exact
            .filter_map(|text| String::from_utf8(text.as_bytes().to_vec()).ok())
            .collect()
    }

    fn compiled(&self) -> Option<&Regex> {
        let compile = || {
            let mut builder = regex::RegexBuilder::new(&self.0.translated);
            // The syntax is already accepted, and the size by a bound of ours, so that neither may fail here.
            let built = builder
                .nest_limit(MAX_NESTING * 2)
                .size_limit(usize::MAX)
                .build();
            built
                .inspect_err(
                    |e| tracing::error!(regex = self.0.source, error = %e, "cannot compile"),
                )
                .ok()
        };
        self.0.compiled.get_or_init(compile).as_ref()
    }
}

/// The reason, if it is none.
fn parse(translated: &str) -> Result<Hir, String> {
    let mut parser = regex_syntax::ParserBuilder::new();
    let parsed = parser.nest_limit(MAX_NESTING * 2).build().parse(translated);
    parsed.map_err(|e| match &e {
        regex_syntax::Error::Parse(e) => e.kind().to_string(),
        e => e.to_string(),
    })
}

/// The parser bounds the nesting, and so the recursion.
fn with_plain_dots(of: Hir) -> Hir {
    if of == Hir::dot(Dot::AnyCharExceptLF) || of == Hir::dot(Dot::AnyChar) {
        return Hir::literal(*b".");
    }
    let all = |parts: Vec<Hir>| parts.into_iter().map(with_plain_dots).collect();
    match of.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(repetition) => Hir::repetition(repetition),
        HirKind::Capture(capture) => with_plain_dots(*capture.sub),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}

fn beginning(source: &str) -> String {
    source.chars().take(40).collect()
}

/// See [`MAX_SIZE`]. The parser bounds the nesting, and so the recursion.
fn size(of: &Hir) -> u64 {
    match of.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Unicode(class)) => class.ranges().len() as u64,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u64,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1);
            size(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Capture(capture) => size(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(size).fold(0, u64::saturating_add)
        }
    }
}

impl std::fmt::Debug for GoRegex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}/", self.0.source)
    }
}

impl PartialEq for GoRegex {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    depth: u32,
    /// What a repetition operator here would repeat.
    before: Before,
    /// Repetition counts of the open groups and of what was repeated inside, for Go's bound on nested ones.
    counts: Vec<u32>,
    last_count: u32,
    /// Whether a `:]` may still come; looked for once.
    closes_named_class: bool,
    properties: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Item,
    Repetition,
}

impl<'a> Translator<'a> {
    fn new(source: &'a str) -> Self {
        Self {
            rest: source,
            out: String::with_capacity(source.len() + 16),
            depth: 0,
            before: Before::Nothing,
            counts: vec![1],
            last_count: 1,
            closes_named_class: true,
            properties: 0,
        }
    }

    /// Where the name of a class ends that starts here.
    fn named_class(&mut self) -> Option<usize> {
        // Behind the opening: the two of `[:]` are no name.
        let end = self.rest[2..].find(":]").map(|end| end + 2);
        self.closes_named_class = end.is_some();
        end
    }

    fn run(mut self) -> Result<String, RegexError> {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.take(1);
                    self.out.push('|');
                    self.before = Before::Nothing;
                    self.last_count = 1;
                }
                '[' => {
                    self.class()?;
                    self.item();
                }
                '*' | '+' | '?' => self.repeat(1, 1)?,
                '{' => match counted(self.rest) {
                    Some((length, min, max)) => {
                        if min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT || max < min)
                        {
                            return Err(error("invalid repeat count", &self.rest[..length]));
                        }
                        self.repeat(length, max.unwrap_or(min).max(1))?;
                    }
                    None => {
                        self.take(1);
                        self.out.push_str(r"\{");
                        self.item();
                    }
                },
                '\\' => self.escape()?,
                c => {
                    self.take(c.len_utf8());
                    match c {
                        '^' | '$' | '.' => self.out.push(c),
                        c => push_literal(&mut self.out, c),
                    }
                    self.item();
                }
            }
        }
        if self.depth > 0 {
            return Err(error("missing closing )", &self.out));
        }
        Ok(self.out)
    }

    fn property(&mut self, text: &str) -> Result<(), RegexError> {
        self.properties += 1;
        if self.properties > MAX_PROPERTIES {
            let reason = format!("more than {MAX_PROPERTIES} classes of Unicode");
            return Err(error(&reason, text));
        }
        push_property(&mut self.out, text);
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    fn item(&mut self) {
        self.before = Before::Item;
        self.last_count = 1;
    }

    fn open(&mut self) -> Result<(), RegexError> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(error("expression nests too deeply", self.rest));
        }
        let Some(after) = self.rest.strip_prefix("(?") else {
            self.take(1);
            self.out.push('(');
            return self.opened();
        };
        if after.starts_with("P<") || after.starts_with('<') {
            let invalid = || error("invalid named capture", self.rest);
            let start = self.rest.find('<').ok_or_else(invalid)? + 1;
            let end = self.rest.find('>').ok_or_else(invalid)?;
            let name = self.rest.get(start..end).unwrap_or_default();
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(invalid());
            }
            // Nobody asks for captures here, and Go allows a name to occur twice.
            self.take(end + 1);
            self.out.push('(');
            return self.opened();
        }
        // Flags, alone or before a group. `regex` knows more of them than Go.
        let end = after
            .find([':', ')'])
            .ok_or_else(|| error("missing argument to repetition operator", self.rest))?;
        let flags = &after[..end];
        let valid = flags
            .chars()
            .all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-'))
            && flags.matches('-').count() <= 1
            && !flags.ends_with('-');
        if !valid {
            return Err(error(
                "invalid or unsupported Perl syntax",
                &self.rest[..self.rest.len().min(end + 3)],
            ));
        }
        let group = after[end..].starts_with(':');
        let taken = self.take(end + 3);
        if group {
            self.out.push_str(taken);
            return self.opened();
        }
        if !flags.is_empty() {
            self.out.push_str(taken);
        }
        self.depth -= 1;
        self.before = Before::Nothing;
        Ok(())
    }

    fn opened(&mut self) -> Result<(), RegexError> {
        self.counts.push(1);
        self.before = Before::Nothing;
        Ok(())
    }

    fn close(&mut self) -> Result<(), RegexError> {
        if self.depth == 0 {
            return Err(error("unexpected )", self.rest));
        }
        self.depth -= 1;
        self.take(1);
        self.out.push(')');
        self.before = Before::Item;
        self.last_count = self.counts.pop().unwrap_or(1);
        self.raise(self.last_count);
        Ok(())
    }

    fn raise(&mut self, count: u32) {
        if let Some(open) = self.counts.last_mut() {
            *open = (*open).max(count);
        }
    }

    fn repeat(&mut self, length: usize, count: u32) -> Result<(), RegexError> {
        let operator = &self.rest[..length];
        match self.before {
            Before::Nothing => {
                return Err(error("missing argument to repetition operator", operator));
            }
            Before::Repetition => {
                return Err(error("invalid nested repetition operator", operator));
            }
            Before::Item => {}
        }
        let total = self.last_count.saturating_mul(count);
        if total > MAX_REPEAT {
            return Err(error("invalid repeat count", operator));
        }
        self.last_count = total;
        self.raise(total);
        self.take(length);
        self.out.push_str(operator);
        if self.rest.starts_with('?') {
            self.take(1);
            self.out.push('?');
        }
        self.before = Before::Repetition;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), RegexError> {
        if self.rest.starts_with(r"\Q") {
            self.take(2);
            let (literal, length) = match self.rest.split_once(r"\E") {
                Some((literal, _)) => (literal, literal.len() + 2),
                None => (self.rest, self.rest.len()),
            };
            self.take(length);
            if !literal.is_empty() {
                literal.chars().for_each(|c| push_literal(&mut self.out, c));
                self.item();
            }
            return Ok(());
        }
        if self.rest.starts_with(r"\E") {
            // An end without a beginning is nothing to Go's parser.
            return Err(error("invalid escape sequence", r"\E"));
        }
        let assertion = match self.rest.as_bytes().get(1) {
            Some(b'A') => Some(r"\A"),
            Some(b'z') => Some(r"\z"),
            Some(b'b') => Some(r"(?-u:\b)"),
            Some(b'B') => Some(r"(?-u:\B)"),
            _ => None,
        };
        if let Some(assertion) = assertion {
            self.take(2);
            self.out.push_str(assertion);
        } else {
            match escaped(self.rest)? {
                (length, Escaped::Class { items, negated }) => {
                    self.take(length);
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(items);
                    self.out.push(']');
                }
                (length, Escaped::Property) => {
                    let taken = self.take(length);
                    self.property(taken)?;
                }
                (length, Escaped::Char(c)) => {
                    self.take(length);
                    push_literal(&mut self.out, c);
                }
            }
        }
        self.item();
        Ok(())
    }

    /// A bracketed class. In it, Go knows neither nested classes nor set operations.
    fn class(&mut self) -> Result<(), RegexError> {
        let whole = self.rest;
        self.take(1);
        self.out.push('[');
        if self.rest.starts_with('^') {
            self.take(1);
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(c) = self.rest.chars().next() else {
                return Err(error("missing closing ]", whole));
            };
            if c == ']' && !first {
                self.take(1);
                self.out.push(']');
                return Ok(());
            }
            // A hyphen is literal at either end, and Go refuses it between other items.
            if c == '-' && !first && !self.rest.starts_with("-]") {
                let range: String = self.rest.chars().take(2).collect();
                return Err(error("invalid character class range", &range));
            }
            first = false;
            if self.rest.starts_with("[:")
                && self.closes_named_class
                && let Some(end) = self.named_class()
            {
                let name = self.rest[2..end].trim_start_matches('^');
                if !POSIX_CLASSES.contains(&name) {
                    return Err(error(
                        "invalid character class range",
                        &self.rest[..end + 2],
                    ));
                }
                let taken = self.take(end + 2);
                self.out.push_str(taken);
                continue;
            }
            if c == '\\' {
                match escaped(self.rest)? {
                    (length, Escaped::Class { items, negated }) => {
                        self.take(length);
                        if negated {
                            self.out.push_str("[^");
                            self.out.push_str(items);
                            self.out.push(']');
                        } else {
                            self.out.push_str(items);
                        }
                        continue;
                    }
                    (length, Escaped::Property) => {
                        let taken = self.take(length);
                        self.property(taken)?;
                        continue;
                    }
                    (_, Escaped::Char(_)) => {}
                }
            }
            let low = self.class_char(whole)?;
            push_class_literal(&mut self.out, low);
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.take(1);
                let high = self.class_char(whole)?;
                if high < low {
                    return Err(error(
                        "invalid character class range",
                        &format!("{low}-{high}"),
                    ));
                }
                self.out.push('-');
                push_class_literal(&mut self.out, high);
            }
        }
    }

    fn class_char(&mut self, whole: &str) -> Result<char, RegexError> {
        let Some(c) = self.rest.chars().next() else {
            return Err(error("missing closing ]", whole));
        };
        if c != '\\' {
            self.take(c.len_utf8());
            return Ok(c);
        }
        match escaped(self.rest)? {
            (length, Escaped::Char(c)) => {
                self.take(length);
                Ok(c)
            }
            (length, _) => Err(error("invalid character class range", &self.rest[..length])),
        }
    }
}

enum Escaped {
    Char(char),
    /// Items of an ASCII class, as they stand between brackets.
    Class {
        items: &'static str,
        negated: bool,
    },
    /// `\pN` or `\p{Name}`, negated or not.
    Property,
}

/// The escape at the start of a text, and its length in bytes.
fn escaped(text: &str) -> Result<(usize, Escaped), RegexError> {
    let invalid = || {
        error(
            "invalid escape sequence",
            &text.chars().take(2).collect::<String>(),
        )
    };
    let Some(c) = text[1..].chars().next() else {
        return Err(error("trailing backslash at end of expression", ""));
    };
    let class = |items, negated| Ok((2, Escaped::Class { items, negated }));
    let char = |c| Ok((2, Escaped::Char(c)));
    match c {
        'd' => class("0-9", false),
        'D' => class("0-9", true),
        's' => class(r"\t\n\f\r ", false),
        'S' => class(r"\t\n\f\r ", true),
        'w' => class("0-9A-Za-z_", false),
        'W' => class("0-9A-Za-z_", true),
        'p' | 'P' => {
            let after = &text[2..];
            match after.chars().next() {
                Some('{') => match after.find('}') {
                    Some(end) => Ok((2 + end + 1, Escaped::Property)),
                    None => Err(error("invalid character class range", text)),
                },
                Some(name) => Ok((2 + name.len_utf8(), Escaped::Property)),
                None => Err(error("invalid character class range", text)),
            }
        }
        'a' => char('\x07'),
        'f' => char('\x0c'),
        't' => char('\t'),
        'n' => char('\n'),
        'r' => char('\r'),
        'v' => char('\x0b'),
        'x' => hexadecimal(text).ok_or_else(invalid),
        '0'..='7' => {
            let digits = text[1..]
                .bytes()
                .take(3)
                .take_while(|b| (b'0'..=b'7').contains(b))
                .count();
            // A single digit other than zero is a reference back, which Go does not know.
            if c != '0' && digits == 1 {
                return Err(invalid());
            }
            let code = u32::from_str_radix(&text[1..=digits], 8)
                .ok()
                .and_then(char::from_u32);
            code.map(|c| (1 + digits, Escaped::Char(c)))
                .ok_or_else(invalid)
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => char(c),
        _ => Err(invalid()),
    }
}

fn hexadecimal(text: &str) -> Option<(usize, Escaped)> {
    let after = &text[2..];
    let (digits, length) = match after.strip_prefix('{') {
        Some(braced) => {
            let end = braced.find('}')?;
            (&braced[..end], 2 + end + 2)
        }
        None => (after.get(..2)?, 4),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some((
        length,
        Escaped::Char(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?),
    ))
}

/// `{n}`, `{n,}` or `{n,m}` at the start of a text: its length in bytes and its bounds. Anything else is literal.
fn counted(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let end = 1 + text[1..].find(|c: char| !c.is_ascii_digit() && c != ',')?;
    if !text[end..].starts_with('}') {
        return None;
    }
    let number = |digits: &str| {
        let plain = !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && (digits.len() == 1 || !digits.starts_with('0'));
        plain.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (min, max) = match text[1..end].split_once(',') {
        None => {
            let count = number(&text[1..end])?;
            (count, Some(count))
        }
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    Some((end + 1, min, max))
}

fn push_literal(out: &mut String, c: char) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

fn push_class_literal(out: &mut String, c: char) {
    if c.is_ascii() && !c.is_ascii_alphanumeric() && !c.is_ascii_control() && c != ' ' {
        out.push_str(&format!(r"\x{:02x}", u32::from(c)));
    } else {
        out.push(c);
    }
}

/// `\p{^Name}` is Go's other spelling of `\P{Name}`.
fn push_property(out: &mut String, text: &str) {
    match text.find("{^") {
        Some(at) => {
            out.push_str(if text.starts_with(r"\p") {
                r"\P{"
            } else {
                r"\p{"
            });
            out.push_str(&text[at + 2..]);
        }
        None => out.push_str(text),
    }
}

fn error(reason: &str, fragment: &str) -> RegexError {
    RegexError {
        reason: reason.to_owned(),
        fragment: fragment.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CFG-028: what Go reads differently from the crate.
    #[test]
    fn cfg_028_go_syntax() {
        let found = |regex: &str, text: &str| GoRegex::new(regex).unwrap().find(text);
        assert_eq!(found(r"a{,2}", "a{,2}"), Some(0..5));
        assert_eq!(found(r"[[&&]", "&"), Some(0..1));
        assert_eq!(found("[[:]", ":"), Some(0..1));
        assert_eq!(found("[[:]{", "[{"), Some(0..2));
        assert_eq!(found(r"\d", "٣"), None);
        assert_eq!(found(r"\bé", "é"), None);
        assert_eq!(found(r"\Qa.b\E", "axb a.b"), Some(4..7));
        assert_eq!(found(r"\<x\>", "<x>"), Some(0..3));
        assert_eq!(found(r"[\d\-_]+", "1-_"), Some(0..3));
        assert_eq!(found(r"\p{^Greek}", "α"), None);
        for refused in [
            "(?x)a",
            "a**",
            "(?=a)",
            r"\1",
            "a{1001}",
            "(a{500}){3}",
            "*",
            "[z-a]",
            "[a-c-e]",
            "[a-c-é]",
            "(",
            ")",
            r"\",
        ] {
            assert!(GoRegex::new(refused).is_err(), "{refused}");
        }
    }
}
