//! Lines of files, and which part of a line a finding is about.

use trireme_config::files::unpacked;

/// Longer lines are not shown.
const MAX_LINE_BYTES: usize = 20_000;

/// The lines of one file.
#[derive(Default)]
pub(super) struct Lines {
    file: String,
    lines: Vec<String>,
}

impl Lines {
    pub(super) fn of(file: &str, bytes: Option<&[u8]>) -> Self {
        // What cannot be unpacked is reported as that; there is no line to show.
        let bytes = unpacked(bytes.unwrap_or_default()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Self {
            file: file.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn get(&self, line: u32) -> Option<&str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let line = self.lines.get(index)?;
        (line.len() <= MAX_LINE_BYTES).then_some(line)
    }
}

/// The bytes of a line that a finding is about: the word, quoted text or key that begins at a column.
pub(super) fn span(line: &str, column: u32) -> std::ops::Range<usize> {
    let column = usize::try_from(column).unwrap_or(usize::MAX);
    if column == 0 {
        let indented = line.len() - line.trim_start().len();
        return indented..line.trim_end().len().max(indented);
    }
    let start = line
        .char_indices()
        .nth(column - 1)
        .map_or(line.len(), |(at, _)| at);
    let rest = &line[start..];
    let length = match rest.chars().next() {
        None => 0,
        Some(quote @ ('"' | '\'')) => quoted(rest, quote),
        Some('[' | '{') => 1,
        Some(_) => plain(rest),
    };
    start..start + length
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && quote == '"' {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    text.trim_end().len()
}

/// A plain scalar or key ends before `: `, ` #` and what closes a flow collection.
fn plain(text: &str) -> usize {
    let ends = |(at, c): (usize, char)| {
        let rest = &text[at..];
        match c {
            ':' => rest.len() == 1 || rest[1..].starts_with(' '),
            ' ' => rest[1..].starts_with('#'),
            ',' | ']' | '}' => true,
            _ => false,
        }
    };
    let end = text
        .char_indices()
        .skip(1)
        .find(|at| ends(*at))
        .map_or(text.len(), |(at, _)| at);
    text[..end].trim_end().len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_word() {
        let under = |line: &str, column: u32| line[span(line, column)].to_owned();
        assert_eq!(under("  name: a b # x", 9), "a b");
        assert_eq!(under("  name: a", 3), "name");
        assert_eq!(under("- {a: b, c: d}", 7), "b");
        assert_eq!(under("x: \"a: \\\"b\" # y", 4), "\"a: \\\"b\"");
        assert_eq!(under("ü: 'ä'", 4), "'ä'");
        assert_eq!(under("  key:", 3), "key");
        assert_eq!(under("  http://x/y: z", 3), "http://x/y");
        assert_eq!(under("  whole line ", 0), "whole line");
        assert_eq!(under("short", 99), "");
    }
}
