//! The pod of a run, whole: what an executor creates for a ProwJob, and what `trireme mkpod` prints.
//!
//! A pod spec is carried as JSON: fields that nobody here knows stay in it (JOB-077). Pods are in the form that Kubernetes'
//! own types write.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use trireme_prowjob::gcs_paths::join;
use trireme_prowjob::{DecorationConfig, JobSpec, ProwJob, UtilityImages, go_json, labels};

use crate::decorate::{
    DecorateError, Layout, PodParts, TEST_CONTAINER, UtilityOptions, termination_grace_seconds,
    utility_options,
};

const LOGS: &str = "logs";
const CODE: &str = "code";
const TOOLS: &str = "tools";
const TOOLS_PATH: &str = "/tools";
const OUTPUT: &str = "output";
const OUTPUT_PATH: &str = "/output";
const CLONEREFS: &str = "clonerefs";
const INITUPLOAD: &str = "initupload";
const PLACE_ENTRYPOINT: &str = "place-entrypoint";
const SIDECAR: &str = "sidecar";
const JOB_SPEC: &str = "JOB_SPEC";
/// `u+r`, for keys that ssh and git refuse to share.
const OWNER_READS: i64 = 0o400;
/// The end of the log stands in for a message where the container leaves none.
const FALLBACK_TO_LOGS: &str = "FallbackToLogsOnError";

/// The pod of a run (POD-001…013). With `output_dir`, a directory of the host, a decorated pod copies its files there
/// instead of uploading them, and needs no credentials for storage (ADM-186).
///
/// # Errors
/// When the job has no usable pod spec, or lacks what its type or its decoration needs.
pub fn pod(job: &ProwJob, output_dir: Option<&str>) -> Result<Value, DecorateError> {
    // What follows relies on the forms that this checks.
    PodParts::of(job)?;
    let mut spec = match &job.spec.pod_spec {
        Some(Value::Object(spec)) => spec.clone(),
        _ => Map::new(),
    };
    spec.insert("restartPolicy".to_owned(), "Never".into());
    if let [only] = objects(&mut spec, "containers").as_mut_slice() {
        only.insert("name".to_owned(), TEST_CONTAINER.into());
    }
    // Kubernetes would mount the token where nothing is said.
    if is_null(&spec, "automountServiceAccountToken") && is_empty(&spec, "serviceAccountName") {
        spec.insert("automountServiceAccountToken".to_owned(), false.into());
    }
    match &job.spec.decoration_config {
        Some(decoration) => decorate(&mut spec, job, decoration, output_dir)?,
        None => {
            let env = JobSpec::from(job).env(&job.spec.agent)?;
            for container in objects(&mut spec, "containers") {
                list(container, "env").extend(variables(&env));
            }
        }
    }
    for name in ["initContainers", "containers"] {
        for container in objects(&mut spec, name) {
            if is_empty(container, "terminationMessagePolicy") {
                container.insert(
                    "terminationMessagePolicy".to_owned(),
                    FALLBACK_TO_LOGS.into(),
                );
            }
        }
    }
    let (labels, annotations) = labels::for_workload(job);
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": job.metadata.name, "labels": labels, "annotations": annotations},
        "spec": spec,
        "status": {},
    }))
}

/// Storage of one decorated pod: its volumes, and where the utilities mount them.
#[derive(Default)]
struct Storage {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
}

impl Storage {
    fn of(decoration: &DecorationConfig) -> Self {
        let mut storage = Self::default();
        for (name, path, secret) in [
            (
                "gcs-credentials",
                "/secrets/gcs",
                &decoration.gcs_credentials_secret,
            ),
            (
                "s3-credentials",
                "/secrets/s3-storage",
                &decoration.s3_credentials_secret,
            ),
        ] {
            if let Some(secret) = secret.as_deref().filter(|secret| !secret.is_empty()) {
                let volume = json!({"name": name, "secret": {"secretName": secret}});
                storage.volumes.push(volume);
                storage.mounts.push(mount(name, path));
            }
        }
        storage
    }
}

fn decorate(
    spec: &mut Map<String, Value>,
    job: &ProwJob,
    decoration: &DecorationConfig,
    output_dir: Option<&str>,
) -> Result<(), DecorateError> {
    let layout = Layout {
        output: output_dir.map(|_| OUTPUT_PATH.to_owned()),
        ..Layout::default()
    };
    let Some(options) = utility_options(job, &layout)? else {
        return Ok(());
    };
    let images = decoration
        .utility_images
        .as_ref()
        .ok_or_else(|| DecorateError::NoUtilityImages(job.metadata.name.clone()))?;
    let storage = match output_dir {
        None => Storage::of(decoration),
        Some(_) => Storage::default(),
    };
    let clone = options
        .clonerefs
        .is_some()
        .then(|| Cloning::of(decoration, &layout));

    let init = list(spec, "initContainers");
    if let Some(clone) = &clone {
        init.insert(0, clonerefs(decoration, images, &options, clone)?);
    }
    init.push(initupload(
        decoration,
        images,
        &options,
        &storage,
        &layout,
        clone.is_some(),
    )?);
    init.push(place_entrypoint(decoration, images));

    let censored = if decoration.censor_secrets == Some(true) {
        secret_mounts(spec)
    } else {
        Vec::new()
    };
    for (container, entrypoint) in objects(spec, "containers")
        .into_iter()
        .zip(&options.entrypoints)
    {
        let env = list(container, "env");
        env.extend(variables(&options.env));
        env.push(json!({"name": "ENTRYPOINT_OPTIONS", "value": encoded(entrypoint)?}));
        container.insert(
            "command".to_owned(),
            json!([join(&[TOOLS_PATH, "entrypoint"])]),
        );
        container.remove("args");
        let mounts = list(container, "volumeMounts");
        mounts.push(mount(LOGS, &layout.logs));
        mounts.push(mount(TOOLS, TOOLS_PATH));
        if let Some(dir) = options.work_dir.as_ref().filter(|_| clone.is_some()) {
            mounts.push(mount(CODE, &layout.code));
            container.insert("workingDir".to_owned(), dir.as_str().into());
        }
    }

    let volumes = list(spec, "volumes");
    volumes.push(empty_dir(LOGS));
    volumes.push(empty_dir(TOOLS));
    volumes.extend(storage.volumes.iter().cloned());
    if let Some(dir) = output_dir {
        volumes.push(json!({"name": OUTPUT, "hostPath": {"path": dir}}));
    }
    if let Some(clone) = clone {
        volumes.extend(clone.volumes);
        volumes.push(empty_dir(CODE));
    }

    memory(spec, decoration);
    security(spec, decoration);
    scheduling(spec, decoration);
    let sidecar = sidecar(decoration, images, &options, &storage, censored, &layout)?;
    list(spec, "containers").push(sidecar);

    if is_null(spec, "terminationGracePeriodSeconds")
        && let Some(seconds) = termination_grace_seconds(decoration)
    {
        spec.insert("terminationGracePeriodSeconds".to_owned(), seconds.into());
    }
    if is_empty(spec, "serviceAccountName")
        && let Some(name) = decoration
            .default_service_account_name
            .as_deref()
            .filter(|name| !name.is_empty())
    {
        spec.insert("serviceAccountName".to_owned(), name.into());
    }
    Ok(())
}

/// What clonerefs mounts beside logs and code.
struct Cloning {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
}

impl Cloning {
    fn of(decoration: &DecorationConfig, layout: &Layout) -> Self {
        let mut cloning = Self {
            volumes: Vec::new(),
            mounts: vec![mount(LOGS, &layout.logs), mount(CODE, &layout.code)],
        };
        for secret in &decoration.ssh_key_secrets {
            cloning.add(
                &format!("ssh-keys-{secret}"),
                &join(&["/secrets/ssh", secret]),
                json!({"secretName": secret, "defaultMode": OWNER_READS}),
            );
        }
        for (secret, path) in [
            (&decoration.oauth_token_secret, "/secrets/oauth"),
            (
                &decoration.github_app_private_key_secret,
                "/secrets/github-app",
            ),
        ] {
            if let Some(secret) = secret {
                let key = &secret.key;
                let items = json!([{"key": key, "path": format!("./{key}")}]);
                cloning.add(
                    &secret.name,
                    path,
                    json!({"secretName": secret.name, "items": items}),
                );
            }
        }
        // Known hosts are written to a temporary directory.
        let temporary = "clonerefs-tmp";
        cloning.volumes.push(empty_dir(temporary));
        cloning.mounts.push(mount(temporary, "/tmp"));
        let cookies = decoration.cookiefile_secret.as_deref().unwrap_or_default();
        if !cookies.is_empty() {
            let secret = cookies
                .split_once('/')
                .map_or(cookies, |(secret, _)| secret);
            cloning.add(
                "cookiefile",
                "/secrets/cookiefile",
                json!({"secretName": secret, "defaultMode": OWNER_READS}),
            );
        }
        cloning
    }

    fn add(&mut self, name: &str, path: &str, secret: Value) {
        self.volumes.push(json!({"name": name, "secret": secret}));
        self.mounts
            .push(json!({"name": name, "readOnly": true, "mountPath": path}));
    }
}

fn clonerefs(
    decoration: &DecorationConfig,
    images: &UtilityImages,
    options: &UtilityOptions,
    cloning: &Cloning,
) -> Result<Value, DecorateError> {
    let own = options.clonerefs.as_ref();
    let cookies = own.map_or("", |own| own.cookie_path.as_str());
    let args = (!cookies.is_empty()).then(|| format!("--cookiefile={cookies}"));
    let env = json!([{"name": "CLONEREFS_OPTIONS", "value": encoded(&own)?}]);
    let resources = decoration.resources.as_ref();
    Ok(Utility {
        name: CLONEREFS,
        image: &images.clonerefs,
        args: args.into_iter().collect(),
        env,
        resources: resources.and_then(|all| all.clonerefs.as_ref()),
        mounts: cloning.mounts.clone(),
    }
    .container())
}

fn initupload(
    decoration: &DecorationConfig,
    images: &UtilityImages,
    options: &UtilityOptions,
    storage: &Storage,
    layout: &Layout,
    cloned: bool,
) -> Result<Value, DecorateError> {
    let mut mounts = Vec::new();
    if cloned {
        mounts.push(mount(LOGS, &layout.logs));
    }
    mounts.extend(storage.mounts.iter().cloned());
    mounts.extend(output_mount(layout));
    let env = json!([
        {"name": "INITUPLOAD_OPTIONS", "value": encoded(&options.initupload)?},
        job_spec(options),
    ]);
    let resources = decoration.resources.as_ref();
    Ok(Utility {
        name: INITUPLOAD,
        image: &images.initupload,
        args: Vec::new(),
        env,
        resources: resources.and_then(|all| all.initupload.as_ref()),
        mounts,
    }
    .container())
}

fn place_entrypoint(decoration: &DecorationConfig, images: &UtilityImages) -> Value {
    let resources = decoration.resources.as_ref();
    Utility {
        name: PLACE_ENTRYPOINT,
        image: &images.entrypoint,
        args: vec!["--copy-mode-only".to_owned()],
        env: Value::Null,
        resources: resources.and_then(|all| all.place_entrypoint.as_ref()),
        mounts: vec![mount(TOOLS, TOOLS_PATH)],
    }
    .container()
}

fn sidecar(
    decoration: &DecorationConfig,
    images: &UtilityImages,
    options: &UtilityOptions,
    storage: &Storage,
    censored: Vec<Value>,
    layout: &Layout,
) -> Result<Value, DecorateError> {
    let mut mounts = vec![mount(LOGS, &layout.logs)];
    mounts.extend(storage.mounts.iter().cloned());
    mounts.extend(censored);
    mounts.extend(output_mount(layout));
    let env = json!([
        job_spec(options),
        {"name": "SIDECAR_OPTIONS", "value": encoded(&options.sidecar)?},
    ]);
    let resources = decoration.resources.as_ref();
    Ok(Utility {
        name: SIDECAR,
        image: &images.sidecar,
        args: Vec::new(),
        env,
        resources: resources.and_then(|all| all.sidecar.as_ref()),
        mounts,
    }
    .container())
}

/// A container of ours.
struct Utility<'a> {
    name: &'static str,
    image: &'a str,
    args: Vec<String>,
    /// A list, or null.
    env: Value,
    resources: Option<&'a Value>,
    mounts: Vec<Value>,
}

impl Utility<'_> {
    /// In the order in which Kubernetes' types write it; empty lists are left out.
    fn container(self) -> Value {
        let mut container = Map::new();
        container.insert("name".to_owned(), self.name.into());
        if !self.image.is_empty() {
            container.insert("image".to_owned(), self.image.into());
        }
        if !self.args.is_empty() {
            container.insert("args".to_owned(), self.args.into());
        }
        if !self.env.is_null() {
            container.insert("env".to_owned(), self.env);
        }
        let resources = self.resources.cloned().unwrap_or_else(|| json!({}));
        container.insert("resources".to_owned(), resources);
        if !self.mounts.is_empty() {
            container.insert("volumeMounts".to_owned(), self.mounts.into());
        }
        Value::Object(container)
    }
}

fn job_spec(options: &UtilityOptions) -> Value {
    let value = options.env.get(JOB_SPEC).map_or("", String::as_str);
    json!({"name": JOB_SPEC, "value": value})
}

fn output_mount(layout: &Layout) -> Option<Value> {
    layout.output.as_deref().map(|path| mount(OUTPUT, path))
}

/// Mounts of secrets in the test containers: what the sidecar must read to censor it (POD-012).
fn secret_mounts(spec: &mut Map<String, Value>) -> Vec<Value> {
    let secrets: Vec<String> = objects(spec, "volumes")
        .iter()
        .filter(|volume| !is_null(volume, "secret"))
        .map(|volume| text(volume, "name").to_owned())
        .collect();
    let mut found = Vec::new();
    for container in objects(spec, "containers") {
        for mount in objects(container, "volumeMounts") {
            if secrets.iter().any(|name| name == text(mount, "name")) {
                found.push(Value::Object(mount.clone()));
            }
        }
    }
    found
}

/// The default request for memory, and a limit that equals the request (POD-009).
fn memory(spec: &mut Map<String, Value>, decoration: &DecorationConfig) {
    for container in objects(spec, "containers") {
        let resources = object(container, "resources");
        if let Some(default) = &decoration.default_memory_request
            && resources
                .get("requests")
                .is_none_or(|requests| requests.get("memory").is_none())
        {
            object(resources, "requests").insert("memory".to_owned(), default.clone());
        }
        if decoration.set_limit_equals_memory_request == Some(true)
            && let Some(memory) = resources.get("requests").and_then(|all| all.get("memory"))
        {
            let memory = memory.clone();
            object(resources, "limits").insert("memory".to_owned(), memory);
        }
    }
}

fn security(spec: &mut Map<String, Value>, decoration: &DecorationConfig) {
    let context = object(spec, "securityContext");
    for (field, id) in [
        ("runAsUser", decoration.run_as_user),
        ("runAsGroup", decoration.run_as_group),
        ("fsGroup", decoration.fs_group),
    ] {
        if let Some(id) = id
            && is_null(context, field)
        {
            context.insert(field.to_owned(), id.into());
        }
    }
}

fn scheduling(spec: &mut Map<String, Value>, decoration: &DecorationConfig) {
    let Some(options) = &decoration.scheduling_options else {
        return;
    };
    if let Some(affinity) = &options.affinity
        && is_null(spec, "affinity")
    {
        spec.insert("affinity".to_owned(), affinity.clone());
    }
    if let Some(tolerations) = &options.tolerations
        && !tolerations.is_empty()
        && is_null(spec, "tolerations")
    {
        spec.insert("tolerations".to_owned(), tolerations.clone().into());
    }
}

/// Sorted by name.
fn variables(env: &BTreeMap<String, String>) -> impl Iterator<Item = Value> {
    env.iter().map(|(name, value)| {
        let mut variable = Map::new();
        variable.insert("name".to_owned(), name.as_str().into());
        if !value.is_empty() {
            variable.insert("value".to_owned(), value.as_str().into());
        }
        Value::Object(variable)
    })
}

fn encoded<T: Serialize>(options: &T) -> Result<String, DecorateError> {
    go_json::to_string(options).map_err(DecorateError::Options)
}

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

fn empty_dir(name: &str) -> Value {
    json!({"name": name, "emptyDir": {}})
}

fn is_null(object: &Map<String, Value>, field: &str) -> bool {
    object.get(field).is_none_or(Value::is_null)
}

fn text<'a>(object: &'a Map<String, Value>, field: &str) -> &'a str {
    object
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn is_empty(object: &Map<String, Value>, field: &str) -> bool {
    text(object, field).is_empty()
}

/// The list under a field, made where there is none.
fn list<'a>(object: &'a mut Map<String, Value>, field: &str) -> &'a mut Vec<Value> {
    let slot = object.entry(field).or_insert(Value::Null);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("just made a list"),
    }
}

/// The object under a field, made where there is none.
fn object<'a>(of: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let slot = of.entry(field).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("just made an object"),
    }
}

/// The objects of a list; nothing is made where there is none.
fn objects<'a>(object: &'a mut Map<String, Value>, field: &str) -> Vec<&'a mut Map<String, Value>> {
    let items = object.get_mut(field).and_then(Value::as_array_mut);
    items
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::lines as oracle;

    /// The first difference, by path.
    fn difference(expected: &Value, found: &Value, path: &str) -> Option<String> {
        match (expected, found) {
            (Value::Object(a), Value::Object(b)) => a
                .iter()
                .find_map(|(key, value)| {
                    let found = b.get(key).unwrap_or(&Value::Null);
                    difference(value, found, &format!("{path}.{key}"))
                })
                .or_else(|| {
                    let extra = b.keys().find(|key| !a.contains_key(*key))?;
                    Some(format!("{path}.{extra}: not expected: {}", b[extra]))
                }),
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
                .iter()
                .zip(b)
                .enumerate()
                .find_map(|(n, (a, b))| difference(a, b, &format!("{path}[{n}]"))),
            (a, b) if a == b => None,
            (a, b) => Some(format!("{path}: expected {a}, found {b}")),
        }
    }

    /// ADM-185, POD-001…013: whole pods, the options of the utilities and `JOB_SPEC` letter for letter.
    #[test]
    fn adm_185_pods_are_those_of_upstream() {
        let jobs: BTreeMap<u64, Value> = oracle("prowjobs.jsonl.gz")
            .into_iter()
            .map(|row| (row["n"].as_u64().unwrap(), row))
            .collect();
        let rows = oracle("pods.jsonl.gz");
        let (mut wrong, mut compared) = (Vec::new(), 0);
        for row in &rows {
            let input = &jobs[&row["n"].as_u64().unwrap()];
            let mut job: ProwJob = serde_json::from_value(input["prowjob"].clone()).unwrap();
            job.status.build_id = input["build_id"].as_str().unwrap().to_owned();
            for (key, output) in [
                ("pod", None),
                ("pod_local_output_dir_/tmp/out", Some("/tmp/out")),
            ] {
                let Some(expected) = row.get(key) else {
                    continue;
                };
                // The expectation's older library writes one field more and leaves the kind to the command.
                let mut expected = expected.clone();
                expected["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("creationTimestamp");
                expected["apiVersion"] = "v1".into();
                expected["kind"] = "Pod".into();
                let found = pod(&job, output).unwrap();
                compared += 1;
                wrong.extend(
                    difference(&expected, &found, "")
                        .map(|told| format!("{} {}: {told}", row["n"], row["job"])),
                );
            }
        }
        println!("{compared} pods");
        assert!(
            wrong.is_empty(),
            "{} of {compared} differ:\n{}",
            wrong.len(),
            wrong[..wrong.len().min(20)].join("\n")
        );
        assert!(
            compared > 700 || rows.is_empty(),
            "only {compared} compared"
        );
    }

    fn job(spec: Value) -> ProwJob {
        serde_json::from_value(json!({
            "metadata": {"name": "run", "labels": {"created-by-prow": "true"}},
            "spec": spec, "status": {"build_id": "7"},
        }))
        .unwrap()
    }

    #[test]
    fn job_077_what_nobody_here_knows_stays_in_the_pod() {
        let pod = pod(
            &job(json!({
                "type": "periodic", "job": "j", "agent": "kubernetes",
                "pod_spec": {"future": {"a": 1}, "containers": [{"name": "x", "sooner": true}]},
            })),
            None,
        )
        .unwrap();
        assert_eq!(pod["spec"]["future"], json!({"a": 1}));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(
            (&container["sooner"], &container["name"]),
            (&json!(true), &json!("test"))
        );
    }

    #[test]
    fn what_cannot_become_a_pod_is_refused_by_name() {
        let refused = |spec| pod(&job(spec), None).unwrap_err().to_string();
        insta::assert_snapshot!(refused(json!({"type": "periodic"})), @r#"prowjob "run" lacks a pod spec"#);
        insta::assert_snapshot!(refused(json!({"type": "periodic", "pod_spec": {"containers": 3}})), @r#"pod spec of prowjob "run": invalid type: integer `3`, expected a sequence"#);
        let undressed =
            json!({"type": "periodic", "decoration_config": {}, "pod_spec": {"containers": [{}]}});
        insta::assert_snapshot!(refused(undressed), @r#"decoration_config of prowjob "run" lacks utility_images"#);
    }

    /// ADM-186: a directory of the host takes the place of the storage and of its credentials.
    #[test]
    fn adm_186_local_pods_copy_to_the_host() {
        let decorated = job(json!({
            "type": "periodic", "job": "j", "agent": "kubernetes",
            "decoration_config": {"utility_images": {"sidecar": "s"}, "gcs_credentials_secret": "key",
                "gcs_configuration": {"bucket": "b", "path_strategy": "explicit"}},
            "pod_spec": {"containers": [{"command": ["x"]}]},
        }));
        let local = pod(&decorated, Some("/out")).unwrap();
        let volumes = &local["spec"]["volumes"];
        assert_eq!(
            volumes[2],
            json!({"name": "output", "hostPath": {"path": "/out"}})
        );
        assert!(!local.to_string().contains("gcs-credentials"), "{local}");
        let remote = pod(&decorated, None).unwrap();
        assert_eq!(remote["spec"]["volumes"][2]["secret"]["secretName"], "key");
    }
}
