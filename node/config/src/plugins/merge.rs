//! Supplemental files of the plugins' configuration: what may stand in them and what they may not say twice.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Core, PluginConfig};
use crate::diagnostic::{Diagnostic, Rule};
use crate::prow::insert_new;

pub(super) fn merge(
    into: &mut PluginConfig,
    core: Core,
    sections: BTreeMap<String, Value>,
    path: &str,
) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    let mut refuse = |message: String| {
        wrong.push(Diagnostic::error(Rule::Invalid, path, message));
    };
    if !core.owners.is_unset() {
        refuse(
            "supplemental plugin configuration has config that doesn't support merging: owners"
                .to_owned(),
        );
    }
    for (key, plugins) in core.plugins.0 {
        if let Some(key) = insert_new(&mut into.core.plugins.0, key, plugins) {
            refuse(format!(
                "failed to merge .plugins from supplemental config: found duplicate config for plugins.{key}"
            ));
        }
    }
    for (key, plugins) in core.external_plugins {
        if let Some(key) = insert_new(&mut into.core.external_plugins, key, plugins) {
            refuse(format!(
                "failed to merge .external-plugins from supplemental config: found duplicate config for \
                 external-plugins.{key}"
            ));
        }
    }
    into.core.approve.extend(core.approve);
    into.core.lgtm.extend(core.lgtm);
    into.core.triggers.extend(core.triggers);
    for (key, value) in sections {
        match (key.as_str(), value) {
            ("welcome", Value::Array(more)) => {
                append(into.sections.entry(key).or_insert(Value::Null), more)
            }
            ("label", Value::Object(label)) => merge_label(&mut into.sections, label, &mut refuse),
            ("bugzilla", Value::Object(more)) => {
                let known = into.sections.entry(key).or_insert(Value::Null);
                merge_bugzilla(known, more, &mut refuse);
            }
            (_, Value::Null) => {}
            (section, Value::Object(fields)) if is_zero(section, &fields) => {}
            _ => refuse(format!(
                "supplemental plugin configuration has config that doesn't support merging: {key}"
            )),
        }
    }
    wrong
}

/// Sections of Prow's that are mappings and no structs: they are something even if they are empty.
const NO_STRUCTS: [&str; 4] = ["dco", "jira", "milestone_applier", "repo_milestone"];
/// Fields of the others that Prow points to, so that zero is not the same as unset.
const POINTERS: [&str; 2] = ["request_count", "minimum_confidence"];

/// Whether a section is what it would be if it were not there: upstream compares what it read.
fn is_zero(section: &str, fields: &Map<String, Value>) -> bool {
    !NO_STRUCTS.contains(&section)
        && fields.iter().all(|(field, value)| match value {
            Value::Null => true,
            _ if POINTERS.iter().any(|it| it.eq_ignore_ascii_case(field)) => false,
            Value::Bool(b) => !b,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::String(s) => s.is_empty(),
            Value::Array(_) | Value::Object(_) => false,
        })
}

fn append(into: &mut Value, more: Vec<Value>) {
    match into {
        Value::Array(items) => items.extend(more),
        _ => *into = Value::Array(more),
    }
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("just made an object"),
    }
}

fn merge_label(
    sections: &mut BTreeMap<String, Value>,
    label: Map<String, Value>,
    refuse: &mut dyn FnMut(String),
) {
    let into = object(sections.entry("label".to_owned()).or_insert(Value::Null));
    for (field, value) in label {
        match (field.as_str(), value) {
            ("restricted_labels", Value::Object(by_repo)) => {
                let known = object(into.entry(field).or_insert(Value::Null));
                for (repo, labels) in by_repo {
                    let Value::Array(labels) = labels else {
                        continue;
                    };
                    let known = known.entry(repo).or_insert(Value::Array(Vec::new()));
                    for label in &labels {
                        let same = |other: &Value| other.get("label") == label.get("label");
                        if known.as_array().is_some_and(|known| known.iter().any(same)) {
                            refuse(format!(
                                "failed to merge .label from supplemental config: there are multiple \
                                 label.restricted_labels configs for label {}",
                                label
                                    .get("label")
                                    .and_then(Value::as_str)
                                    .unwrap_or_default()
                            ));
                        }
                    }
                    append(known, labels);
                }
            }
            (_, Value::Null) => {}
            _ => refuse(format!(
                "supplemental plugin configuration has config that doesn't support merging: label.{field}"
            )),
        }
    }
}

fn merge_bugzilla(into: &mut Value, more: Map<String, Value>, refuse: &mut dyn FnMut(String)) {
    let into = object(into);
    let failed = |what: &str| format!("failed to merge .bugzilla from supplemental config: {what}");
    for (field, value) in more {
        match (field.as_str(), value) {
            ("default", value) => {
                if into.contains_key("default") {
                    refuse(failed(
                        "configuration of global default defined in multiple places",
                    ));
                } else {
                    into.insert(field, value);
                }
            }
            ("orgs", Value::Object(orgs)) => {
                let known = object(into.entry(field).or_insert(Value::Null));
                for (org, options) in orgs {
                    let Value::Object(options) = options else {
                        continue;
                    };
                    let known = object(known.entry(org.clone()).or_insert(Value::Null));
                    for (part, value) in options {
                        match value {
                            Value::Object(repos) if part == "repos" => {
                                let known = object(known.entry(part).or_insert(Value::Null));
                                for (repo, options) in repos {
                                    if known.contains_key(&repo) {
                                        refuse(failed(&format!(
                                            "found duplicate repository config for bugzilla.{org}/{repo}"
                                        )));
                                    } else {
                                        known.insert(repo, options);
                                    }
                                }
                            }
                            value if known.contains_key(&part) => {
                                let _ = value;
                                refuse(failed(&format!(
                                    "found duplicate organization config for bugzilla.{org}"
                                )));
                            }
                            value => {
                                known.insert(part, value);
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
}
