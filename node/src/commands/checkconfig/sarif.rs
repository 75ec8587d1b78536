//! The report as SARIF 2.1.0.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trireme_config::check::{Report, Warning};
use trireme_config::{Diagnostic, Severity};

use super::paths::{Place, place};
use super::selection::Selection;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The name that code scanning gives the root of the checkout.
const ROOT: &str = "%SRCROOT%";

/// One run with all findings, up to a bound. `unmade` says why checks could not be made.
pub(super) fn render(report: &Report, unmade: &[Diagnostic], max: usize) -> Value {
    let selection = Selection::new(report, max);
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in &selection.shown {
        let next = rules.len();
        rules.entry(finding.rule.name()).or_insert(next);
    }
    let mut described: Vec<(usize, Value)> =
        rules.iter().map(|(name, n)| (*n, rule(name))).collect();
    described.sort_by_key(|(n, _)| *n);
    let described: Vec<Value> = described.into_iter().map(|(_, rule)| rule).collect();
    let results: Vec<Value> = selection
        .shown
        .iter()
        .map(|finding| result(finding, rules.get(finding.rule.name()).copied()))
        .collect();
    let notifications: Vec<Value> = unmade
        .iter()
        .map(|finding| {
            json!({
                "level": "warning",
                "message": {"text": finding.advice()},
                "associatedRule": {"id": finding.rule.name()},
            })
        })
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "trireme checkconfig",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": described,
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": unmade.is_empty(),
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
            "properties": {"omitted": selection.omitted_count()},
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn rule(name: &str) -> Value {
    let about = Warning::from_name(name).map_or_else(|| general(name), Warning::about);
    json!({"id": name, "shortDescription": {"text": about}})
}

fn general(name: &str) -> &'static str {
    match name {
        "file" => "a file that cannot be read",
        "type" => "a value of the wrong type",
        _ => "a value that is refused",
    }
}

fn result(finding: &Diagnostic, rule: Option<usize>) -> Value {
    let mut result = json!({
        "ruleId": finding.rule.name(),
        "level": level(finding.severity),
        "message": {"text": finding.advice()},
    });
    if let Some(rule) = rule {
        result["ruleIndex"] = rule.into();
    }
    if finding.file.is_empty() {
        return result;
    }
    let artifact = match place(&finding.file) {
        Place::Below(uri) => json!({"uri": uri, "uriBaseId": ROOT}),
        Place::Elsewhere(uri) => json!({"uri": uri}),
    };
    let mut physical = json!({"artifactLocation": artifact});
    if finding.line > 0 {
        physical["region"] = json!({"startLine": finding.line});
        if finding.column > 0 {
            physical["region"]["startColumn"] = finding.column.into();
        }
    }
    let mut location = json!({"physicalLocation": physical});
    if !finding.field.is_empty() {
        location["logicalLocations"] = json!([{"fullyQualifiedName": finding.field}]);
    }
    result["locations"] = json!([location]);
    result
}
