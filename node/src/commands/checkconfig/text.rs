//! The report for people: each finding with its line and a caret under the place, as rustc shows them.

use std::collections::BTreeMap;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use trireme_config::check::Report;
use trireme_config::files::unpacked;
use trireme_config::{Diagnostic, Severity};

use super::selection::{Selection, counted, summary};

/// Columns of a report that goes to no terminal.
const USUAL_WIDTH: usize = 140;
/// Longer lines are not shown.
const MAX_LINE_BYTES: usize = 20_000;

/// How the report looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) colours: bool,
    /// Columns.
    pub(super) width: usize,
}

impl Look {
    /// Colours on a terminal only, and never where NO_COLOR asks for none.
    pub(super) fn of_this_terminal() -> Self {
        use std::io::IsTerminal as _;
        let is_terminal = std::io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Self {
            colours: is_terminal && !refused,
            width: columns.unwrap_or(USUAL_WIDTH),
        }
    }
}

/// Writes everything; `bytes` gives the files.
pub(super) fn render<'f>(
    report: &Report,
    max: usize,
    look: Look,
    bytes: impl Fn(&str) -> Option<&'f [u8]>,
) -> String {
    let selection = Selection::new(report, max);
    let renderer = if look.colours {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let renderer = renderer
        .term_width(look.width)
        .decor_style(DecorStyle::Ascii);
    let mut lines = Lines::default();
    let mut text = String::new();
    for finding in &selection.shown {
        if lines.file != finding.file {
            lines = Lines::of(&finding.file, bytes(&finding.file));
        }
        text += &rendered(finding, &lines, &renderer);
        text += "\n\n";
    }
    if !selection.omitted.is_empty() {
        let mut by_severity: BTreeMap<Severity, Vec<String>> = BTreeMap::new();
        for ((severity, rule), n) in &selection.omitted {
            by_severity
                .entry(*severity)
                .or_default()
                .push(format!("{n} {rule}"));
        }
        let told: Vec<String> = by_severity
            .into_values()
            .map(|rules| rules.join(", "))
            .collect();
        text += &format!(
            "and {} more, not shown: {}; --max-findings=0 shows all\n\n",
            counted(selection.omitted_count(), "finding"),
            told.join("; ")
        );
    }
    text + &summary(report) + "\n"
}

fn rendered(finding: &Diagnostic, lines: &Lines, renderer: &Renderer) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    // A message of several lines would tear the frame.
    let message = annotate_snippets::normalize_untrusted_str(&finding.message).replace('\n', " ");
    let title = level.primary_title(message).id(finding.rule.name());
    let mut group: Group<'_> = Group::with_title(title);
    if let Some(line) = lines.get(finding.line) {
        let span = span(line, finding.column);
        let label = Some(finding.field.as_str()).filter(|field| !field.is_empty());
        let snippet = Snippet::source(line)
            .path(finding.file.as_str())
            .line_start(usize::try_from(finding.line).unwrap_or(1))
            .annotation(AnnotationKind::Primary.span(span).label(label));
        group = group.element(snippet);
    } else {
        if !finding.file.is_empty() {
            let mut origin = Origin::path(finding.file.as_str());
            if finding.line > 0 {
                origin = origin
                    .line(usize::try_from(finding.line).unwrap_or(1))
                    .char_column(usize::try_from(finding.column).unwrap_or(1));
            }
            group = group.element(origin);
        }
        if !finding.field.is_empty() {
            group = group.element(Level::NOTE.message(format!("the field is {}", finding.field)));
        }
    }
    if !finding.help.is_empty() {
        group = group.element(Level::HELP.message(finding.help.as_str()));
    }
    renderer.render(&[group])
}

/// The lines of one file.
#[derive(Default)]
struct Lines {
    file: String,
    lines: Vec<String>,
}

impl Lines {
    fn of(file: &str, bytes: Option<&[u8]>) -> Self {
        // What cannot be unpacked is reported as that; there is no line to show.
        let bytes = unpacked(bytes.unwrap_or_default()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Self {
            file: file.to_owned(),
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    fn get(&self, line: u32) -> Option<&str> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let line = self.lines.get(index)?;
        (line.len() <= MAX_LINE_BYTES).then_some(line)
    }
}

/// The bytes of a line that a finding is about: the word, quoted text or key that begins at a column.
fn span(line: &str, column: u32) -> std::ops::Range<usize> {
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
