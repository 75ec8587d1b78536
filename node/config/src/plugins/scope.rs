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

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> (bool, String) {
        let root = crate::yaml::parse(text.as_bytes()).unwrap().root;
        let scope = PluginConfig::read_alone("shard.yaml", &root).scope();
        let all: Vec<String> = scope.orgs.into_iter().chain(scope.repos).collect();
        (scope.global, all.join(" "))
    }

    /// HOOK-073: whom a file is about; what cannot stand in a shard, or is for all, is global.
    #[test]
    fn hook_073_a_file_tells_which_orgs_and_repositories_it_is_about() {
        for (text, global, all) in [
            ("{}", false, ""),
            (
                "plugins: {o: {plugins: [hold]}, o/r: {plugins: [lgtm]}}",
                false,
                "o o/r",
            ),
            (
                "external_plugins: {o/r: [{name: x}], p: [{name: x}]}",
                false,
                "p o/r",
            ),
            (
                "approve: [{repos: [a, a/b]}]\nlgtm: [{repos: [c]}]\ntriggers: [{repos: [d/e]}]",
                false,
                "a c a/b d/e",
            ),
            ("welcome: [{repos: [o/r]}]", false, "o/r"),
            (
                "bugzilla: {orgs: {o: {default: {main: {}}, repos: {r: {branches: {}}}}}}",
                false,
                "o o/r",
            ),
            ("bugzilla: {default: {main: {}}}", true, ""),
            (
                "label: {restricted_labels: {o: [{label: x}], o/r: [{label: y}]}}",
                false,
                "o o/r",
            ),
            (
                "label: {restricted_labels: {'*': [{label: x}], o: [{label: y}]}}",
                true,
                "o",
            ),
            ("label: {additional_labels: [x]}", true, ""),
            ("owners: {mdyamlrepos: [o]}", true, ""),
            ("size: {s: 1}", true, ""),
            ("size: {s: 0}\nplugins: {o: {plugins: [hold]}}", false, "o"),
        ] {
            assert_eq!(reach(text), (global, all.to_owned()), "{text}");
        }
    }
}
