//! What the settings of a plugin file reach (CFG-059).

use serde_json::Value;

use super::PluginConfig;
use crate::prow::Scope;

impl PluginConfig {
    /// CFG-059. Meant for a file as it was read: defaulting sets what holds for all.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let core = &self.core;
        let mut scope = Scope {
            global: !core.owners.is_unset(),
            ..Scope::default()
        };
        let lists = (core.approve.iter().map(|approve| &approve.repos))
            .chain(core.lgtm.iter().map(|lgtm| &lgtm.repos))
            .chain(core.triggers.iter().map(|trigger| &trigger.repos));
        let keys = core.plugins.0.keys().chain(core.external_plugins.keys());
        lists.flatten().chain(keys).for_each(|key| scope.add(key));
        for (name, section) in &self.sections {
            match name.as_str() {
                "welcome" => names(section, &mut scope),
                "label" => labels(section, &mut scope),
                "bugzilla" => bugzilla(section, &mut scope),
                _ => scope.global |= sets_something(section),
            }
        }
        scope
    }
}

fn names(welcome: &Value, scope: &mut Scope) {
    let lists = welcome.as_array().into_iter().flatten();
    lists
        .filter_map(|item| item.get("repos")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .for_each(|key| scope.add(key));
}

fn labels(section: &Value, scope: &mut Scope) {
    for (key, value) in section.as_object().into_iter().flatten() {
        match (key.as_str(), value.as_object()) {
            ("restricted_labels", Some(restricted)) => {
                for key in restricted.keys() {
                    if key == "*" {
                        scope.global = true;
                    } else {
                        scope.add(key);
                    }
                }
            }
            _ => scope.global |= sets_something(value),
        }
    }
}

fn bugzilla(section: &Value, scope: &mut Scope) {
    scope.global |= section.get("default").is_some_and(|value| !value.is_null());
    let orgs = section.get("orgs").and_then(Value::as_object);
    for (org, of_org) in orgs.into_iter().flatten() {
        if of_org.get("default").is_some_and(|value| !value.is_null()) {
            scope.orgs.insert(org.clone());
        }
        let repos = of_org.get("repos").and_then(Value::as_object);
        let repos = repos.into_iter().flatten();
        scope
            .repos
            .extend(repos.map(|(repo, _)| format!("{org}/{repo}")));
    }
}

/// Whether a value is more than zero values.
fn sets_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(_) => true,
        Value::Object(map) => map.values().any(sets_something),
    }
}
