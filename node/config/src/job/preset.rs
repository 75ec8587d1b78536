//! Presets: parts of pod specs for jobs with certain labels (JOB-005, JOB-006).

use std::collections::BTreeMap;

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
        for env in self.env.iter().flatten() {
            add_to_containers(spec, "env", &env.0, "env var")?;
        }
        for volume in self.volumes.iter().flatten() {
            let name = volume.text("name");
            let volumes = list(spec, "volumes");
            if volumes.iter().any(|other| text(other, "name") == name) {
                return Err(format!("volume duplicated in pod spec: {name}"));
            }
            volumes.push(volume.0.clone());
        }
        for mount in self.volume_mounts.iter().flatten() {
            add_to_containers(spec, "volumeMounts", &mount.0, "volume mount")?;
        }
        for toleration in &self.tolerations {
            let tolerations = list(spec, "tolerations");
            if tolerations.contains(&toleration.0) {
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

fn add_to_containers(
    spec: &mut Value,
    field: &str,
    item: &Value,
    what: &str,
) -> Result<(), String> {
    let name = text(item, "name");
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let items = list(container, field);
        if items.iter().any(|other| text(other, "name") == name) {
            return Err(format!("{what} duplicated in pod spec: {name}"));
        }
        items.push(item.clone());
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
