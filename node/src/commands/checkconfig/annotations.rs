//! The report as workflow commands: GitHub Actions shows them at their lines.

use trireme_config::check::Report;
use trireme_config::{Diagnostic, Severity};

use super::paths::relative;
use super::selection::{Selection, counted, summary};

/// One command per finding, then a line for people.
pub(super) fn render(report: &Report, max: usize) -> String {
    let selection = Selection::new(report, max);
    let mut text: String = selection
        .shown
        .iter()
        .map(|finding| command(finding))
        .collect();
    if selection.omitted_count() > 0 {
        let omitted = counted(selection.omitted_count(), "finding");
        text += &format!("and {omitted} more, not shown; --max-findings=0 shows all\n");
    }
    text + &summary(report) + "\n"
}

fn command(finding: &Diagnostic) -> String {
    let name = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let mut properties = Vec::new();
    if !finding.file.is_empty() {
        properties.push(format!("file={}", property(&relative(&finding.file))));
        for (key, value) in [("line", finding.line), ("col", finding.column)] {
            if value > 0 {
                properties.push(format!("{key}={value}"));
            }
        }
    }
    properties.push(format!("title={}", property(finding.rule.name())));
    let field = if finding.field.is_empty() {
        String::new()
    } else {
        format!("{}: ", finding.field)
    };
    format!(
        "::{name} {}::{}\n",
        properties.join(","),
        data(&format!("{field}{}", finding.advice()))
    )
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
