//! Presets: parts of pod specs for jobs with certain labels (JOB-005, JOB-006).

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::{EnvVar, Toleration, Volume, VolumeMount};

object! {
    /// Additions to the pod of every job that has all its labels with these values.
    pub struct Preset {
        [always "labels"] labels: Option<BTreeMap<String, String>>,
        [always "env"] env: Option<Vec<EnvVar>>,
        [always "volumes"] volumes: Option<Vec<Volume>>,
        [always "volumeMounts"] volume_mounts: Option<Vec<VolumeMount>>,
        [omit "tolerations"] tolerations: Vec<Toleration>,
    }
}

impl Preset {
    /// Whether the preset is meant for a job with these labels.
    #[must_use]
    pub fn applies_to(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .iter()
            .flatten()
            .all(|(label, value)| labels.get(label) == Some(value))
    }

    /// JOB-006: env and mounts go to every container, volumes and tolerations to the pod.
    ///
    /// # Errors
    /// What the pod already has; it may be changed in part then.
    pub(crate) fn merge_into(&self, spec: &mut Value) -> Result<(), String> {
        let env = self.env.iter().flatten().map(|env| &env.0);
        add_to_containers(spec, "env", env, "env var")?;
        if let Some(more) = self.volumes.as_ref().filter(|more| !more.is_empty()) {
            let volumes = list(spec, "volumes");
            let mut names = named(volumes);
            for volume in more {
                let name = volume.text("name");
                if !names.insert(name.to_owned()) {
                    return Err(format!("volume duplicated in pod spec: {name}"));
                }
                volumes.push(volume.0.clone());
            }
        }
        let mounts = self.volume_mounts.iter().flatten().map(|mount| &mount.0);
        add_to_containers(spec, "volumeMounts", mounts, "volume mount")?;
        if self.tolerations.is_empty() {
            return Ok(());
        }
        let tolerations = list(spec, "tolerations");
        let mut known: HashSet<String> = tolerations.iter().map(Value::to_string).collect();
        for toleration in &self.tolerations {
            if !known.insert(toleration.0.to_string()) {
                return Err(format!(
                    "toleration duplicated in pod spec: {}",
                    toleration.0
                ));
            }
            tolerations.push(toleration.0.clone());
        }
        Ok(())
    }
}

fn named(items: &[Value]) -> HashSet<String> {
    items
        .iter()
        .map(|item| text(item, "name").to_owned())
        .collect()
}

/// Each item goes to every container before the next one does.
fn add_to_containers<'a>(
    spec: &mut Value,
    field: &str,
    items: impl Iterator<Item = &'a Value>,
    what: &str,
) -> Result<(), String> {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    let mut lists: Vec<_> = containers
        .into_iter()
        .flatten()
        .map(|container| {
            let known = list(container, field);
            (named(known), known)
        })
        .collect();
    for item in items {
        let name = text(item, "name");
        for (names, list) in &mut lists {
            if !names.insert(name.to_owned()) {
                return Err(format!("{what} duplicated in pod spec: {name}"));
            }
            list.push(item.clone());
        }
    }
    Ok(())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The list under a field of an object, made if it is absent.
fn list<'a>(object: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    // A decoded spec is an object; anything else would have been refused.
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    let slot = &mut object[field];
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("just made an array"),
    }
}
