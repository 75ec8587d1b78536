//! The report for people: each finding with its line and a caret under the place, as rustc shows them.

use std::collections::BTreeMap;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use trireme_config::check::Report;
use trireme_config::{Diagnostic, Severity};

use super::lines::{Lines, span};
use super::selection::{Selection, counted, summary};

/// Columns of a report that goes to no terminal.
const USUAL_WIDTH: usize = 140;

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
        if lines.file() != finding.file {
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
