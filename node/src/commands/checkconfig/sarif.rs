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

    /// The part of SARIF's own schema that is used here, as strict as there: <https://docs.oasis-open.org/sarif/>.
    fn schema() -> Value {
        let object = |required: &[&str], properties: Value| {
            json!({
                "type": "object", "additionalProperties": false, "required": required, "properties": properties,
            })
        };
        let list = |of: Value| json!({"type": "array", "items": of});
        let message = object(
            &["text"],
            json!({"text": {"type": "string", "minLength": 1}}),
        );
        let one = json!({"type": "integer", "minimum": 1});
        let level = json!({"enum": ["none", "note", "warning", "error"]});
        let artifact = object(
            &["uri"],
            json!({"uri": {"type": "string", "format": "uri-reference", "minLength": 1}, "uriBaseId": {"type": "string"}}),
        );
        let region = object(
            &["startLine", "startColumn", "endLine", "endColumn"],
            json!({"startLine": one, "startColumn": one, "endLine": one, "endColumn": one}),
        );
        let physical = object(
            &["artifactLocation", "region"],
            json!({"artifactLocation": artifact, "region": region}),
        );
        let logical = object(&[], json!({"fullyQualifiedName": {"type": "string"}}));
        let location = object(
            &["physicalLocation"],
            json!({"physicalLocation": physical, "logicalLocations": list(logical)}),
        );
        let mut locations = list(location);
        locations["minItems"] = 1.into();
        let result = object(
            &["ruleId", "ruleIndex", "level", "message", "locations"],
            json!({
                "ruleId": {"type": "string"}, "ruleIndex": {"type": "integer", "minimum": 0}, "level": level,
                "message": message, "locations": locations,
                "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
            }),
        );
        let rule = object(
            &["id", "shortDescription", "fullDescription", "help"],
            json!({"id": {"type": "string"}, "shortDescription": message, "fullDescription": message, "help": message}),
        );
        let text = json!({"type": "string"});
        let driver = object(
            &["name", "rules"],
            json!({"name": text, "version": text, "rules": list(rule)}),
        );
        let notification = object(
            &["message"],
            json!({
                "level": level, "message": message, "associatedRule": object(&["id"], json!({"id": text})),
            }),
        );
        let invocation = object(
            &["executionSuccessful"],
            json!({"executionSuccessful": {"type": "boolean"}, "toolExecutionNotifications": list(notification)}),
        );
        let run = object(
            &["tool", "results"],
            json!({
                "tool": object(&["driver"], json!({"driver": driver})), "results": list(result),
                "invocations": list(invocation), "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                "properties": {"type": "object"},
            }),
        );
        object(
            &["version", "runs"],
            json!({"$schema": text, "version": {"const": "2.1.0"}, "runs": list(run)}),
        )
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
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema())
            .unwrap();
        let wrong: Vec<String> = validator
            .iter_errors(&sarif)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let run = &sarif["runs"][0];
        let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
        let results = run["results"].as_array().unwrap();
        for result in results {
            let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[rule]["id"], result["ruleId"]);
        }
        let places: Vec<String> = results
            .iter()
            .map(|result| {
                let place = &result["locations"][0]["physicalLocation"];
                let print = &result["partialFingerprints"]["primaryLocationLineHash"];
                let numbers = ["startLine", "startColumn", "endLine", "endColumn"];
                let numbers = numbers.map(|name| place["region"][name].to_string());
                let uri = place["artifactLocation"]["uri"].as_str().unwrap();
                format!("{uri} {} {print}", numbers.join(" "))
            })
            .collect();
        insta::assert_snapshot!(places.join("\n"), @r#"
        file:///elsewhere/x.yaml 7 3 7 3 null
        c%20d.yaml 1 4 1 7 "8c8d9cc617ddde03:1"
        c%20d.yaml 2 3 2 12 "66b1db9b919429a8:1"
        packed.gz 1 1 1 1 null
        config.yaml 1 1 1 1 "a4c38b753c83b8f8:1"
        config.yaml 1 1 1 1 "a4c38b753c83b8f8:1"
        "#);
        // The schema says no to what is missing.
        let mut without = sarif.clone();
        without["runs"][0]["results"][0]
            .as_object_mut()
            .unwrap()
            .remove("locations");
        assert!(!validator.is_valid(&without));
    }
}
