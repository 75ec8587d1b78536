//! The report as SARIF 2.1.0.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trireme_config::check::{Report, Warning};
use trireme_config::files::is_packed;
use trireme_config::{Diagnostic, Severity};

use super::fingerprint;
use super::lines::{Lines, span};
use super::paths::{Place, place};
use super::selection::Selection;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The name that code scanning gives the root of the checkout.
const ROOT: &str = "%SRCROOT%";

/// What a run is made of.
pub(super) struct Input<'a> {
    pub(super) report: &'a Report,
    /// Why checks could not be made.
    pub(super) unmade: &'a [Diagnostic],
    /// Where findings stand that are about no file: code scanning refuses a report in which one stands nowhere.
    pub(super) main_file: &'a str,
    /// The files.
    pub(super) bytes: &'a dyn Fn(&str) -> Option<&'a [u8]>,
}

/// One run with all findings, up to a bound.
pub(super) fn render(input: &Input<'_>, max: usize) -> Value {
    let selection = Selection::new(input.report, max);
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in &selection.shown {
        let next = rules.len();
        rules.entry(finding.rule.name()).or_insert(next);
    }
    let mut described: Vec<(usize, Value)> =
        rules.iter().map(|(name, n)| (*n, rule(name))).collect();
    described.sort_by_key(|(n, _)| *n);
    let described: Vec<Value> = described.into_iter().map(|(_, rule)| rule).collect();
    let mut file = File::default();
    let results: Vec<Value> = selection
        .shown
        .iter()
        .map(|finding| {
            let path = if finding.file.is_empty() {
                input.main_file
            } else {
                &finding.file
            };
            if file.lines.file() != path {
                file = File::of(path, (input.bytes)(path));
            }
            result(finding, rules.get(finding.rule.name()).copied(), &file)
        })
        .collect();
    let notifications: Vec<Value> = input
        .unmade
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
                "executionSuccessful": input.unmade.is_empty(),
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
            "properties": {"omitted": selection.omitted_count()},
        }],
    })
}

/// The lines of a file, and their fingerprints.
#[derive(Default)]
struct File {
    lines: Lines,
    /// Empty for packed files: code scanning does not unpack them.
    fingerprints: Vec<String>,
}

impl File {
    fn of(path: &str, bytes: Option<&[u8]>) -> Self {
        let plain = bytes.filter(|bytes| !is_packed(bytes));
        Self {
            lines: Lines::of(path, bytes),
            fingerprints: plain.map_or_else(Vec::new, |bytes| {
                fingerprint::of_lines(&String::from_utf8_lossy(bytes))
            }),
        }
    }
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
    json!({
        "id": name,
        "shortDescription": {"text": about},
        "fullDescription": {"text": about},
        "help": {"text": format!("{about}. `trireme checkconfig --help` lists all warnings and says how to leave one out.")},
    })
}

fn general(name: &str) -> &'static str {
    match name {
        "file" => "a file that cannot be read",
        "type" => "a value of the wrong type",
        _ => "a value that is refused",
    }
}

fn result(finding: &Diagnostic, rule: Option<usize>, file: &File) -> Value {
    let artifact = match place(file.lines.file()) {
        Place::Below(uri) => json!({"uri": uri, "uriBaseId": ROOT}),
        Place::Elsewhere(uri) => json!({"uri": uri}),
    };
    let mut location = json!({
        "physicalLocation": {"artifactLocation": artifact, "region": region(finding, &file.lines)},
    });
    if !finding.field.is_empty() {
        location["logicalLocations"] = json!([{"fullyQualifiedName": finding.field}]);
    }
    let mut result = json!({
        "ruleId": finding.rule.name(),
        "level": level(finding.severity),
        "message": {"text": finding.advice()},
        "locations": [location],
    });
    if let Some(rule) = rule {
        result["ruleIndex"] = rule.into();
    }
    let line = usize::try_from(finding.line.max(1)).unwrap_or(usize::MAX);
    if let Some(fingerprint) = file.fingerprints.get(line - 1) {
        result["partialFingerprints"] = json!({"primaryLocationLineHash": fingerprint});
    }
    result
}

/// The beginning of the file where no line is known: code scanning wants all four numbers.
fn region(finding: &Diagnostic, lines: &Lines) -> Value {
    let line = finding.line.max(1);
    let (start, end) = match lines.get(finding.line) {
        Some(text) => {
            let span = span(text, finding.column);
            let column = |at: usize| text[..at].chars().count() + 1;
            (column(span.start), column(span.end))
        }
        None => {
            let column = usize::try_from(finding.column.max(1)).unwrap_or(1);
            (column, column)
        }
    };
    json!({"startLine": line, "startColumn": start, "endLine": line, "endColumn": end})
}

#[cfg(test)]
mod tests {
    use trireme_config::{Rule, yaml::Position};

    use super::*;

    /// The part of SARIF's own schema that is used here, as strict as there: <https://docs.oasis-open.org/sarif/>. What
    /// code scanning wants is required.
    mod schema {
        use std::collections::BTreeMap;
        use std::num::NonZeroU32;

        macro_rules! closed {
            ($($name:ident { $($field:ident $key:literal: $type:ty,)* })*) => {$(
                #[derive(Debug, serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                pub(super) struct $name {
                    $(#[serde(rename = $key)] pub(super) $field: $type,)*
                }
            )*};
        }

        #[derive(Debug, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub(super) enum Level {
            Note,
            Warning,
            Error,
        }

        closed! {
            Log { schema "$schema": String, version "version": String, runs "runs": Vec<Run>, }
            Run {
                tool "tool": Tool, column_kind "columnKind": String, invocations "invocations": Vec<Invocation>,
                results "results": Vec<Found>, properties "properties": BTreeMap<String, serde_json::Value>,
            }
            Tool { driver "driver": Driver, }
            Driver { name "name": String, version "version": String, rules "rules": Vec<Rule>, }
            Rule {
                id "id": String, short "shortDescription": Message, full "fullDescription": Message, help "help": Message,
            }
            Message { text "text": String, }
            Invocation { successful "executionSuccessful": bool, notifications "toolExecutionNotifications": Vec<Notification>, }
            Notification { level "level": Level, message "message": Message, rule "associatedRule": Reference, }
            Reference { id "id": String, }
            Found {
                rule "ruleId": String, index "ruleIndex": usize, level "level": Level, message "message": Message,
                locations "locations": Vec<Location>, prints "partialFingerprints": Option<BTreeMap<String, String>>,
            }
            Location { physical "physicalLocation": Physical, logical "logicalLocations": Option<Vec<Logical>>, }
            Physical { artifact "artifactLocation": Artifact, region "region": Region, }
            Artifact { uri "uri": String, base "uriBaseId": Option<String>, }
            Region {
                start_line "startLine": NonZeroU32, start_column "startColumn": NonZeroU32, end_line "endLine": NonZeroU32,
                end_column "endColumn": NonZeroU32,
            }
            Logical { name "fullyQualifiedName": String, }
        }
    }

    /// CFG-116: what the schema wants, and what GitHub's code scanning wants beyond it: each result stands in a file, with
    /// four numbers, and names a rule that is described.
    #[test]
    fn cfg_116_sarif_is_as_its_schema_and_code_scanning_want_it() {
        let finding = |file: &str, line: u32, column: u32, rule: Rule| {
            Diagnostic::error(rule, file, "what \"it\" is")
                .at(Position { line, column })
                .field("a.b")
        };
        let long = Rule::Warning(Warning::LongJobNames);
        let unmade = finding("", 0, 0, Rule::Warning(Warning::VerifyOwnersPresence)).warning();
        let mut report = Report::default();
        report.add(vec![
            finding("", 0, 0, Rule::Invalid),
            finding("c d.yaml", 1, 4, Rule::Type).help("do this"),
            finding("c d.yaml", 2, 0, long).warning(),
            finding("/elsewhere/x.yaml", 7, 3, long),
            finding("packed.gz", 1, 1, Rule::File),
            unmade.clone(),
        ]);
        let bytes = |path: &str| -> Option<&[u8]> {
            match path {
                "c d.yaml" => Some("ü: \"ä\" # x\n  second: 1\n".as_bytes()),
                "config.yaml" => Some(b"log_level: info\n"),
                "packed.gz" => Some(&[0x1f, 0x8b, 8]),
                _ => None,
            }
        };
        let input = Input {
            report: &report,
            unmade: &[unmade],
            main_file: "config.yaml",
            bytes: &bytes,
        };
        let sarif = render(&input, usize::MAX);
        let log: schema::Log = serde_json::from_value(sarif).unwrap();
        assert_eq!(
            (log.schema.as_str(), log.version.as_str()),
            (SCHEMA, "2.1.0")
        );
        let run = &log.runs[0];
        assert_eq!(run.column_kind, "unicodeCodePoints");
        assert_eq!(run.properties["omitted"], 0);
        let driver = &run.tool.driver;
        assert!(!driver.name.is_empty() && !driver.version.is_empty());
        for rule in &driver.rules {
            for message in [&rule.short, &rule.full, &rule.help] {
                assert!(!message.text.is_empty(), "{rule:?}");
            }
        }
        let invocation = &run.invocations[0];
        let notification = &invocation.notifications[0];
        assert!(!invocation.successful && !notification.message.text.is_empty());
        assert_eq!(
            (&notification.level, notification.rule.id.as_str()),
            (&schema::Level::Warning, "verify-owners-presence")
        );
        let places: Vec<String> = run
            .results
            .iter()
            .map(|found| {
                assert_eq!(driver.rules[found.index].id, found.rule);
                assert_eq!(found.locations.len(), 1);
                let schema::Location { physical, logical } = &found.locations[0];
                assert_eq!(logical.as_ref().map(|all| all[0].name.as_str()), Some("a.b"));
                let schema::Region {
                    start_line,
                    start_column,
                    end_line,
                    end_column,
                } = &physical.region;
                let schema::Artifact { uri, base } = &physical.artifact;
                assert_eq!(base.as_deref() == Some(ROOT), !uri.contains("://"), "{uri}");
                let prints = found.prints.as_ref();
                let print = prints.map_or("none", |prints| &prints["primaryLocationLineHash"]);
                let (level, text) = (&found.level, &found.message.text);
                format!("{uri} {start_line}:{start_column}-{end_line}:{end_column} {print} {level:?}: {text}")
            })
            .collect();
        insta::assert_snapshot!(places.join("\n"), @r#"
        file:///elsewhere/x.yaml 7:3-7:3 none Error: what "it" is
        c%20d.yaml 1:4-1:7 8c8d9cc617ddde03:1 Error: what "it" is; do this
        c%20d.yaml 2:3-2:12 66b1db9b919429a8:1 Warning: what "it" is
        packed.gz 1:1-1:1 none Error: what "it" is
        config.yaml 1:1-1:1 a4c38b753c83b8f8:1 Error: what "it" is
        config.yaml 1:1-1:1 a4c38b753c83b8f8:1 Warning: what "it" is
        "#);
    }
}
