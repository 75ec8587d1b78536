//! Which findings a report shows: all of them, or the most important up to a bound, by file and place.

use std::collections::BTreeMap;

use trireme_config::check::Report;
use trireme_config::{Diagnostic, Severity};

/// Findings that a person is shown unless another number is asked for.
pub(super) const MAX_FOR_PEOPLE: usize = 100;
/// Findings in a document for programs; GitHub takes no more of a SARIF file.
pub(super) const MAX_FOR_PROGRAMS: usize = 25_000;

/// Some findings of a report.
pub(super) struct Selection<'a> {
    /// By file and place; those without a file last.
    pub(super) shown: Vec<&'a Diagnostic>,
    /// How many of each rule are left out.
    pub(super) omitted: BTreeMap<(Severity, &'static str), usize>,
}

impl<'a> Selection<'a> {
    /// Errors come first, then warnings, then notes; no rule hides the others.
    pub(super) fn new(report: &'a Report, max: usize) -> Self {
        let all = report
            .errors
            .iter()
            .chain(&report.warnings)
            .chain(&report.notes);
        let mut of_rule: BTreeMap<(Severity, &'static str), Vec<&Diagnostic>> = BTreeMap::new();
        for finding in all {
            let rule = (finding.severity, finding.rule.name());
            of_rule.entry(rule).or_default().push(finding);
        }
        let mut omitted = BTreeMap::new();
        let mut shown: Vec<&Diagnostic> = Vec::new();
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let mut rules: Vec<_> = of_rule
                .iter()
                .filter(|((of, _), _)| *of == severity)
                .collect();
            // Rules with few findings are shown whole; those with many share what is left.
            rules.sort_by_key(|(_, findings)| findings.len());
            let count = rules.len();
            for (n, (rule, findings)) in rules.into_iter().enumerate() {
                let share = (max - shown.len()).div_ceil(count - n).min(findings.len());
                shown.extend(&findings[..share]);
                if share < findings.len() {
                    omitted.insert(*rule, findings.len() - share);
                }
            }
        }
        shown.sort_by_key(|finding| (finding.file.is_empty(), *finding));
        Self { shown, omitted }
    }

    pub(super) fn omitted_count(&self) -> usize {
        self.omitted.values().sum()
    }
}

/// `1 error`, `2 errors`.
pub(super) fn counted(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

/// The last line of a report for people. Prow's own where there is nothing to say.
pub(super) fn summary(report: &Report) -> String {
    let jobs = format!(
        "{}, {}, {}",
        counted(report.presubmits, "presubmit"),
        counted(report.postsubmits, "postsubmit"),
        counted(report.periodics, "periodic")
    );
    match (report.errors.len(), report.warnings.len()) {
        (0, 0) => format!("checkconfig passes without any error! ({jobs})"),
        (0, warnings) => format!("{} ({jobs})", counted(warnings, "warning")),
        (errors, warnings) => {
            format!(
                "{}, {} ({jobs})",
                counted(errors, "error"),
                counted(warnings, "warning")
            )
        }
    }
}
