//! From a decorated ProwJob to the options of its utilities. Pods are made in `pod`; this is what they carry.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use trireme_prowjob::gcs_paths::join;
use trireme_prowjob::go_json::null_as_zero;
use trireme_prowjob::job_spec::JobSpecError;
use trireme_prowjob::{DecorationConfig, GoDuration, JobSpec, ProwJob, Refs};

use crate::blob_upload::GcsUploadOptions;
use crate::clonerefs::{self, CloneRefsOptions, DEFAULT_GIT_USER_EMAIL, DEFAULT_GIT_USER_NAME};
use crate::entrypoint::EntrypointOptions;
use crate::initupload::InitUploadOptions;
use crate::sidecar::{SidecarCensoringOptions, SidecarOptions};
use crate::wrapper::WrapperOptions;

/// Name of the only container of a pod.
pub const TEST_CONTAINER: &str = "test";
const GITHUB_API: &str = "https://api.github.com";

/// Where the utilities and the test find each other's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Logs, markers, artifacts.
    pub logs: String,
    /// Clones lie below it.
    pub code: String,
    /// Files are copied here instead of uploaded.
    pub output: Option<String>,
}

impl Default for Layout {
    /// The mount points inside a pod.
    fn default() -> Self {
        Self {
            logs: "/logs".to_owned(),
            code: "/home/prow/go".to_owned(),
            output: None,
        }
    }
}

impl Layout {
    /// The clone records.
    pub fn clone_log(&self) -> String {
        join(&[&self.logs, "clone.json"])
    }

    /// What the test leaves here is uploaded.
    pub fn artifacts(&self) -> String {
        join(&[&self.logs, "artifacts"])
    }

    /// Files of one container; the only one of a pod has no name in them (POD-006).
    pub(crate) fn wrapper(&self, container: &Container, only: bool) -> WrapperOptions {
        let name = &container.name;
        let (log, marker, metadata) = if only {
            (
                "process-log.txt".to_owned(),
                "marker-file.txt".to_owned(),
                "metadata.json".to_owned(),
            )
        } else {
            (
                format!("{name}-log.txt"),
                format!("{name}-marker.txt"),
                format!("{name}-metadata.json"),
            )
        };
        WrapperOptions {
            args: container
                .command
                .iter()
                .chain(&container.args)
                .cloned()
                .collect(),
            container_name: if only {
                TEST_CONTAINER.to_owned()
            } else {
                name.clone()
            },
            process_log: join(&[&self.logs, &log]),
            marker_file: join(&[&self.logs, &marker]),
            metadata_file: join(&[&self.artifacts(), &metadata]),
        }
    }
}

/// The parts of a PodSpec that decoration looks at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodParts {
    /// The test containers.
    #[serde(deserialize_with = "null_as_zero")]
    pub containers: Vec<Container>,
    /// The user's own.
    #[serde(deserialize_with = "null_as_zero")]
    pub init_containers: Vec<Container>,
    #[serde(deserialize_with = "null_as_zero")]
    volumes: Vec<Volume>,
}

/// The parts of a container that decoration looks at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "null_as_zero")]
    pub name: String,
    /// What runs.
    #[serde(deserialize_with = "null_as_zero")]
    pub command: Vec<String>,
    /// Arguments after the command.
    #[serde(deserialize_with = "null_as_zero")]
    pub args: Vec<String>,
    /// Variables, later ones over earlier ones.
    #[serde(deserialize_with = "null_as_zero")]
    pub env: Vec<EnvVar>,
    /// Sources of further variables.
    #[serde(deserialize_with = "null_as_zero")]
    pub env_from: Vec<Value>,
    /// Where it starts, unless something is cloned.
    #[serde(deserialize_with = "null_as_zero")]
    pub working_dir: String,
    /// Mounted volumes.
    #[serde(deserialize_with = "null_as_zero")]
    pub volume_mounts: Vec<VolumeMount>,
}

/// A variable of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value; may refer to others as `$(NAME)`.
    #[serde(deserialize_with = "null_as_zero")]
    pub value: String,
    /// A value from elsewhere.
    pub value_from: Option<Value>,
}

/// A mount of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeMount {
    /// Name of the volume.
    pub name: String,
    /// Where in the container.
    pub mount_path: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Volume {
    name: String,
    secret: Option<Value>,
}

/// Why a job cannot be decorated.
#[derive(Debug, thiserror::Error)]
pub enum DecorateError {
    /// There is nothing to run.
    #[error("prowjob {0:?} lacks a pod spec")]
    NoPodSpec(String),
    /// The pod spec is not of Kubernetes' form.
    #[error("pod spec of prowjob {0:?}: {1}")]
    PodSpec(String, #[source] serde_json::Error),
    /// Its variables cannot be made.
    #[error(transparent)]
    JobSpec(#[from] JobSpecError),
    /// A decorated pod has nothing to run its utilities from.
    #[error("decoration_config of prowjob {0:?} lacks utility_images")]
    NoUtilityImages(String),
    /// Options of a utility could not be written as JSON.
    #[error("failed to marshal the options of a pod utility: {0}")]
    Options(#[source] serde_json::Error),
}

/// Options of all utilities for one job.
#[derive(Debug, Clone, PartialEq)]
pub struct UtilityOptions {
    /// `None` when nothing is cloned (POD-011).
    pub clonerefs: Option<CloneRefsOptions>,
    /// Where the test starts when something is cloned.
    pub work_dir: Option<String>,
    /// For `initupload`.
    pub initupload: InitUploadOptions,
    /// For `entrypoint`, one per container in their order.
    pub entrypoints: Vec<EntrypointOptions>,
    /// For `sidecar`.
    pub sidecar: SidecarOptions,
    /// Variables of every test container beside its own, with those that decoration adds (POD-005).
    pub env: BTreeMap<String, String>,
}

impl PodParts {
    /// Reads the pod spec of a job.
    ///
    /// # Errors
    /// When there is none or it is malformed.
    pub fn of(job: &ProwJob) -> Result<Self, DecorateError> {
        let name = || job.metadata.name.clone();
        let spec = job
            .spec
            .pod_spec
            .as_ref()
            .ok_or_else(|| DecorateError::NoPodSpec(name()))?;
        Self::deserialize(spec).map_err(|e| DecorateError::PodSpec(name(), e))
    }

    /// Where the containers mount secrets, in order.
    fn secret_mounts(&self) -> Vec<String> {
        let secret: BTreeSet<&str> = self
            .volumes
            .iter()
            .filter(|v| v.secret.is_some())
            .map(|v| v.name.as_str())
            .collect();
        let mounts = self.containers.iter().flat_map(|c| &c.volume_mounts);
        mounts
            .filter(|m| secret.contains(m.name.as_str()))
            .map(|m| m.mount_path.clone())
            .collect()
    }
}

/// Options for a decorated job; `None` when it is not decorated.
///
/// # Errors
/// When the job has no usable pod spec or lacks the refs its type needs.
pub fn utility_options(
    job: &ProwJob,
    layout: &Layout,
) -> Result<Option<UtilityOptions>, DecorateError> {
    let Some(decoration) = &job.spec.decoration_config else {
        return Ok(None);
    };
    let pod = PodParts::of(job)?;
    let only = pod.containers.len() == 1;

    let mut env = JobSpec::from(job).env(&job.spec.agent)?;
    env.insert("ARTIFACTS".to_owned(), layout.artifacts());
    env.insert("GOPATH".to_owned(), layout.code.clone());

    let refs = refs_to_clone(job, decoration);
    let clonerefs = clonerefs_options(&refs, decoration, layout);
    let upload = upload_options(decoration, layout);
    let log = if clonerefs.is_some() {
        layout.clone_log()
    } else {
        String::new()
    };
    let wrappers: Vec<WrapperOptions> = pod
        .containers
        .iter()
        .map(|c| layout.wrapper(c, only))
        .collect();
    let nanos = |d: Option<GoDuration>| d.map_or(0, GoDuration::as_nanos);
    let entrypoints = wrappers
        .iter()
        .map(|wrapper| EntrypointOptions {
            timeout: nanos(decoration.timeout),
            grace_period: nanos(decoration.grace_period),
            artifact_dir: layout.artifacts(),
            wrapper: wrapper.clone(),
            ..EntrypointOptions::default()
        })
        .collect();
    Ok(Some(UtilityOptions {
        clonerefs,
        work_dir: clonerefs::work_dir(&layout.code, &refs),
        initupload: InitUploadOptions {
            upload: upload.clone(),
            log,
        },
        entrypoints,
        sidecar: sidecar_options(decoration, upload, &pod, wrappers, layout),
        env,
    }))
}

/// Seconds a pod gets to end: the grace period of the test and a quarter more for the upload (POD-008).
pub fn termination_grace_seconds(decoration: &DecorationConfig) -> Option<i64> {
    decoration
        .grace_period
        .map(|d| d.as_nanos() / 1_000_000_000 * 5 / 4)
}

fn refs_to_clone(job: &ProwJob, decoration: &DecorationConfig) -> Vec<Refs> {
    if decoration.skip_cloning == Some(true) {
        return Vec::new();
    }
    job.spec
        .refs
        .iter()
        .chain(&job.spec.extra_refs)
        .cloned()
        .collect()
}

fn clonerefs_options(
    refs: &[Refs],
    decoration: &DecorationConfig,
    layout: &Layout,
) -> Option<CloneRefsOptions> {
    if refs.is_empty() {
        return None;
    }
    let cookie_path = match decoration.cookiefile_secret.as_deref().unwrap_or_default() {
        "" => String::new(),
        secret => join(&[
            "/secrets/cookiefile",
            secret.split_once('/').map_or(secret, |(_, key)| key),
        ]),
    };
    let mut github_api_endpoints = decoration.github_api_endpoints.clone();
    if github_api_endpoints.is_empty() {
        github_api_endpoints.push(GITHUB_API.to_owned());
    }
    let key = |secret: &Option<trireme_prowjob::SecretKey>, dir: &str| {
        secret
            .as_ref()
            .map(|s| join(&[dir, &s.key]))
            .unwrap_or_default()
    };
    Some(CloneRefsOptions {
        src_root: layout.code.clone(),
        log: layout.clone_log(),
        git_user_name: DEFAULT_GIT_USER_NAME.to_owned(),
        git_user_email: DEFAULT_GIT_USER_EMAIL.to_owned(),
        refs: refs.to_vec(),
        key_files: decoration
            .ssh_key_secrets
            .iter()
            .map(|s| join(&["/secrets/ssh", s]))
            .collect(),
        oauth_token_file: key(&decoration.oauth_token_secret, "/secrets/oauth"),
        host_fingerprints: decoration.ssh_host_fingerprints.clone(),
        cookie_path,
        github_api_endpoints,
        github_app_id: decoration.github_app_id.clone(),
        github_app_private_key_file: key(
            &decoration.github_app_private_key_secret,
            "/secrets/github-app",
        ),
        ..CloneRefsOptions::default()
    })
}

fn upload_options(decoration: &DecorationConfig, layout: &Layout) -> GcsUploadOptions {
    let mut options = GcsUploadOptions {
        gcs: decoration.gcs_configuration.clone().unwrap_or_default(),
        ..GcsUploadOptions::default()
    };
    if let Some(output) = &layout.output {
        options.gcs.local_output_dir.clone_from(output);
        return options;
    }
    let file = |secret: &Option<String>, dir: &str| match secret.as_deref().unwrap_or_default() {
        "" => String::new(),
        _ => format!("{dir}/service-account.json"),
    };
    options.gcs_credentials_file = file(&decoration.gcs_credentials_secret, "/secrets/gcs");
    options.s3_credentials_file = file(&decoration.s3_credentials_secret, "/secrets/s3-storage");
    options
}

fn sidecar_options(
    decoration: &DecorationConfig,
    mut upload: GcsUploadOptions,
    pod: &PodParts,
    entries: Vec<WrapperOptions>,
    layout: &Layout,
) -> SidecarOptions {
    upload.items.push(layout.artifacts());
    let secrets = if decoration.censor_secrets == Some(true) {
        pod.secret_mounts()
    } else {
        Vec::new()
    };
    let own = decoration.censoring_options.clone().unwrap_or_default();
    let censoring = SidecarCensoringOptions {
        secret_directories: Some(secrets),
        censoring_concurrency: own.censoring_concurrency,
        censoring_buffer_size: own.censoring_buffer_size,
        include_directories: own.include_directories,
        exclude_directories: own.exclude_directories,
        ini_filenames: None,
        minimum_secret_length: own.minimum_secret_length,
    };
    SidecarOptions {
        gcs_options: upload,
        entries,
        ignore_interrupts: decoration.upload_ignores_interrupts == Some(true),
        censoring_options: Some(censoring),
        ..SidecarOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use trireme_prowjob::go_json;

    use super::*;
    use crate::oracle::lines as oracle;

    /// Value of a variable in a container of a list.
    fn env<'a>(pod: &'a Value, list: &str, container: usize, name: &str) -> Option<&'a str> {
        let env = pod["spec"][list][container]["env"].as_array()?;
        env.iter()
            .rfind(|e| e["name"] == name)?
            .get("value")
            .map_or(Some(""), Value::as_str)
    }

    fn find(pod: &Value, list: &str, name: &str) -> Option<usize> {
        pod["spec"][list]
            .as_array()?
            .iter()
            .position(|c| c["name"] == name)
    }

    fn check(job: &ProwJob, pod: &Value, output: Option<&str>) {
        let layout = Layout {
            output: output.map(str::to_owned),
            ..Layout::default()
        };
        let Some(options) = utility_options(job, &layout).unwrap() else {
            assert_eq!(find(pod, "containers", "sidecar"), None);
            return;
        };
        let cloner = find(pod, "initContainers", "clonerefs");
        assert_eq!(cloner.is_some(), options.clonerefs.is_some());
        if let (Some(at), Some(options)) = (cloner, &options.clonerefs) {
            let text = go_json::to_string(options).unwrap();
            assert_eq!(
                env(pod, "initContainers", at, "CLONEREFS_OPTIONS"),
                Some(text.as_str())
            );
            let back: CloneRefsOptions = serde_json::from_str(&text).unwrap();
            assert_eq!(&back, options);
        }
        let at = find(pod, "initContainers", "initupload").unwrap();
        let text = go_json::to_string(&options.initupload).unwrap();
        assert_eq!(
            env(pod, "initContainers", at, "INITUPLOAD_OPTIONS"),
            Some(text.as_str())
        );
        assert_eq!(
            env(pod, "initContainers", at, "JOB_SPEC"),
            options.env.get("JOB_SPEC").map(String::as_str)
        );

        for (i, entrypoint) in options.entrypoints.iter().enumerate() {
            let text = go_json::to_string(entrypoint).unwrap();
            assert_eq!(
                env(pod, "containers", i, "ENTRYPOINT_OPTIONS"),
                Some(text.as_str())
            );
            for (name, value) in &options.env {
                assert_eq!(
                    env(pod, "containers", i, name),
                    Some(value.as_str()),
                    "{name}"
                );
            }
            if let Some(dir) = &options.work_dir {
                assert_eq!(pod["spec"]["containers"][i]["workingDir"], dir.as_str());
            }
        }
        let at = find(pod, "containers", "sidecar").unwrap();
        let text = go_json::to_string(&options.sidecar).unwrap();
        assert_eq!(
            env(pod, "containers", at, "SIDECAR_OPTIONS"),
            Some(text.as_str())
        );

        let decoration = job.spec.decoration_config.as_ref().unwrap();
        if job.spec.pod_spec.as_ref().unwrap()["terminationGracePeriodSeconds"].is_null() {
            let seconds = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
            assert_eq!(seconds, termination_grace_seconds(decoration));
        }
    }

    #[test]
    fn pod_003_to_013_options_text_for_text() {
        let jobs: BTreeMap<u64, Value> = oracle("prowjobs.jsonl.gz")
            .into_iter()
            .map(|row| (row["n"].as_u64().unwrap(), row))
            .collect();
        let mut decorated = 0;
        for row in oracle("pods.jsonl.gz") {
            let input = &jobs[&row["n"].as_u64().unwrap()];
            let mut job: ProwJob = serde_json::from_value(input["prowjob"].clone()).unwrap();
            job.status.build_id = input["build_id"].as_str().unwrap().to_owned();
            decorated += usize::from(job.spec.decoration_config.is_some());
            check(&job, &row["pod"], None);
            if let Some(local) = row.get("pod_local_output_dir_/tmp/out") {
                check(&job, local, Some("/output"));
            }
        }
        assert!(
            decorated > 300 || jobs.is_empty(),
            "only {decorated} decorated jobs"
        );
    }

    #[test]
    fn pod_012_secrets_that_tests_mount_are_censored() {
        let job: ProwJob = serde_json::from_value(serde_json::json!({"spec": {
            "type": "periodic", "job": "j", "decoration_config": {"censor_secrets": true},
            "pod_spec": {
                "containers": [{"name": "a", "command": ["x"], "volumeMounts": [{"name": "s", "mountPath": "/s"}, {"name": "e", "mountPath": "/e"}]}],
                "volumes": [{"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}}],
            },
        }}))
        .unwrap();
        let options = utility_options(&job, &Layout::default()).unwrap().unwrap();
        assert_eq!(
            options
                .sidecar
                .censoring_options
                .unwrap()
                .secret_directories,
            Some(vec!["/s".to_owned()])
        );
        assert_eq!(options.clonerefs, None);
        assert_eq!(options.initupload.log, "");
    }
}
