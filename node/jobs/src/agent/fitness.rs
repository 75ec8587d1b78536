//! What a pod spec asks for that a plain process cannot give (XPL-031).
//!
//! What decides where a run is, with whose rights and on which devices is refused: elsewhere, or without them, it is
//! another run. What only shuts a run in is left out, and said. Of `hostNetwork` a plain process has no lack; resources
//! are the agent's capacity, and tolerations and priorities ask for nothing. Volumes and variables from elsewhere are
//! refused by the run itself.

use serde_json::Value;
use trireme_podutils::local::LocalError;
use trireme_prowjob::ProwJob;

const REFUSED_OF_POD: [&str; 4] = ["nodeSelector", "nodeName", "affinity", "resourceClaims"];
const LEFT_OUT_OF_POD: [&str; 6] = [
    "securityContext",
    "runtimeClassName",
    "hostAliases",
    "dnsConfig",
    "hostPID",
    "hostIPC",
];
const LEFT_OUT_OF_CONTAINER: [&str; 2] = ["securityContext", "lifecycle"];

/// The fields that are left out.
///
/// # Errors
/// The first field that cannot be.
pub(super) fn check(job: &ProwJob) -> Result<Vec<String>, LocalError> {
    let Some(pod) = &job.spec.pod_spec else {
        return Ok(Vec::new());
    };
    match refused(pod) {
        Some(field) => Err(LocalError::Unsupported(field)),
        None => Ok(left_out(pod)),
    }
}

/// Null and the empty value are no wish, as in Kubernetes.
fn asked<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    })
}

fn items<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    object
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn refused(pod: &Value) -> Option<String> {
    let of_pod = REFUSED_OF_POD
        .iter()
        .find(|name| asked(pod, name).is_some());
    if let Some(name) = of_pod {
        return Some((*name).to_owned());
    }
    // Every pod has the account of this name.
    let account = ["serviceAccountName", "serviceAccount"]
        .into_iter()
        .find(|name| asked(pod, name).is_some_and(|account| account != "default"));
    if let Some(name) = account {
        return Some(name.to_owned());
    }
    let claimed = items(pod, "volumes").find(|volume| {
        asked(volume, "persistentVolumeClaim").is_some() || asked(volume, "ephemeral").is_some()
    });
    if let Some(volume) = claimed {
        let name = volume.get("name").and_then(Value::as_str);
        return Some(format!("volumes ({})", name.unwrap_or_default()));
    }
    items(pod, "containers")
        .enumerate()
        .find_map(|(i, container)| Some(format!("containers[{i}].{}", refused_of(container)?)))
}

fn refused_of(container: &Value) -> Option<String> {
    if asked(container, "volumeDevices").is_some() {
        return Some("volumeDevices".to_owned());
    }
    if items(container, "ports").any(|port| port["hostPort"].as_i64().unwrap_or_default() != 0) {
        return Some("ports.hostPort".to_owned());
    }
    let resources = container.get("resources")?;
    ["limits", "requests"].into_iter().find_map(|kind| {
        let device = resources
            .get(kind)?
            .as_object()?
            .keys()
            // Kubernetes' own resources have no domain; huge pages are the host's.
            .find(|name| name.contains('/') || name.starts_with("hugepages-"))?;
        Some(format!("resources.{kind}[{device}]"))
    })
}

fn left_out(pod: &Value) -> Vec<String> {
    let of_pod = LEFT_OUT_OF_POD
        .iter()
        .filter(|name| asked(pod, name).is_some())
        .map(|name| (*name).to_owned());
    let of_containers = items(pod, "containers")
        .enumerate()
        .flat_map(|(i, container)| {
            LEFT_OUT_OF_CONTAINER
                .iter()
                .filter(|name| asked(container, name).is_some())
                .map(move |name| format!("containers[{i}].{name}"))
        });
    of_pod.chain(of_containers).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(pod: Value) -> Result<Vec<String>, String> {
        let mut job = ProwJob::default();
        job.spec.pod_spec = Some(pod);
        check(&job).map_err(|why| why.to_string())
    }

    #[test]
    fn xpl_031_what_makes_it_another_run_is_refused_by_name() {
        let container = |fields: Value| json!({"containers": [fields]});
        let refusals: Vec<String> = [
            json!({"nodeSelector": {"disk": "ssd"}}),
            json!({"nodeName": "n1"}),
            json!({"affinity": {"nodeAffinity": {}}}),
            json!({"serviceAccountName": "pusher"}),
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            container(json!({"ports": [{"containerPort": 80}, {"hostPort": 80}]})),
            container(json!({"volumeDevices": [{"name": "d"}]})),
            container(json!({"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": 1}}})),
        ]
        .into_iter()
        .map(|pod| checked(pod).unwrap_err())
        .collect();
        insta::assert_snapshot!(refusals.join("\n"), @r"
        pod_spec.nodeSelector cannot be honoured by a plain process
        pod_spec.nodeName cannot be honoured by a plain process
        pod_spec.affinity cannot be honoured by a plain process
        pod_spec.serviceAccountName cannot be honoured by a plain process
        pod_spec.volumes (v) cannot be honoured by a plain process
        pod_spec.containers[0].ports.hostPort cannot be honoured by a plain process
        pod_spec.containers[0].volumeDevices cannot be honoured by a plain process
        pod_spec.containers[0].resources.limits[nvidia.com/gpu] cannot be honoured by a plain process
        ");
    }

    #[test]
    fn xpl_031_what_only_shuts_a_run_in_is_left_out_by_name() {
        let left_out = checked(json!({
            "securityContext": {"runAsUser": 1000},
            "hostPID": true,
            "containers": [{"securityContext": {"privileged": true}}],
        }));
        assert_eq!(
            left_out.unwrap(),
            [
                "securityContext",
                "hostPID",
                "containers[0].securityContext"
            ]
        );
    }

    #[test]
    fn xpl_031_an_ordinary_pod_spec_asks_for_nothing_special() {
        let pod = json!({
            "serviceAccountName": "default",
            "nodeSelector": {},
            "affinity": null,
            "hostNetwork": true,
            "hostPID": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "image": "i", "command": ["c"],
                "resources": {"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}, "limits": null},
            }],
        });
        assert_eq!(checked(pod).unwrap(), Vec::<String>::new());
    }
}
