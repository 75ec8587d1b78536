//! What is wrong with a job, in upstream's words (JOB-012, JOB-021, JOB-030…046).

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;
use trireme_prowjob::{DecorationConfig, GoDuration, ProwJobType, Refs, labels};

use super::pod::{ContainerView, PodView};
use super::{JobBase, Periodic, Postsubmit, Presubmit, Reporter, UtilityConfig};
use crate::cron::CronSchedule;
use crate::go_url;
use crate::kube_names;
use crate::prow::ProwConfig;

/// Environment of every job.
const BASE_ENV: [&str; 7] = [
    "CI",
    "JOB_NAME",
    "JOB_SPEC",
    "JOB_TYPE",
    "PROW_JOB_ID",
    "BUILD_ID",
    "BUILD_NUMBER",
];
/// Environment of jobs with refs.
const REFS_ENV: [&str; 7] = [
    "REPO_OWNER",
    "REPO_NAME",
    "SRC_BASE",
    "SRC_HOST",
    "PULL_BASE_REF",
    "PULL_BASE_SHA",
    "PULL_REFS",
];
/// Environment of jobs for one pull request.
const PULL_ENV: [&str; 4] = [
    "PULL_NUMBER",
    "PULL_PULL_SHA",
    "PULL_HEAD_REF",
    "PULL_TITLE",
];
/// Containers of the pod utilities.
const UTILITY_CONTAINERS: [&str; 4] = ["clonerefs", "initupload", "place-entrypoint", "sidecar"];
/// Volumes that the pod utilities mount into the test container.
const TEST_MOUNTS: [&str; 3] = ["logs", "code", "tools"];
const TEST_MOUNT_PATHS: [&str; 3] = ["/logs", "/home/prow/go", "/tools"];
/// Volumes that hold credentials for uploads.
const CREDENTIAL_MOUNTS: [&str; 2] = ["gcs-credentials", "s3-credentials"];

/// A problem of one job of a list.
pub(crate) struct Finding {
    /// Position in the list; of a later one if it concerns several.
    pub(crate) index: usize,
    /// The field of the job that is wrong; empty where it is not one alone.
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

impl Finding {
    pub(super) fn of(index: usize, message: impl Into<String>) -> Self {
        Self {
            index,
            field: "",
            message: message.into(),
        }
    }

    pub(super) fn in_field(self, field: &'static str) -> Self {
        Self { field, ..self }
    }
}

/// A problem of a job by itself: the field that is wrong, empty where it is not one alone, and the message.
pub(crate) type Problem = (&'static str, String);

pub(crate) fn presubmit(prow: &ProwConfig, job: &Presubmit) -> Vec<Problem> {
    let name = &job.base.name;
    let invalid = |e: String| ("", format!("invalid presubmit job {name}: {e}"));
    let base = base(prow, &job.base, ProwJobType::Presubmit).err();
    let triggering = triggering(job).err().map(|e| ("", e));
    let reporting = reporting(&job.base, &job.reporter).err();
    let base = base.map(invalid).into_iter();
    base.chain(triggering)
        .chain(reporting.map(invalid))
        .collect()
}

pub(crate) fn postsubmit(prow: &ProwConfig, job: &Postsubmit) -> Vec<Problem> {
    let name = &job.base.name;
    let invalid = |e: String| ("", format!("invalid postsubmit job {name}: {e}"));
    let base = base(prow, &job.base, ProwJobType::Postsubmit).err();
    let (run_if, skip_if) = (
        &job.changes.run_if_changed,
        &job.changes.skip_if_only_changed,
    );
    let exclusions = exclusions(name, job.always_run == Some(true), run_if, skip_if).err();
    let reporting = reporting(&job.base, &job.reporter).err();
    let base = base.map(invalid).into_iter();
    base.chain(exclusions.map(|e| ("", e)))
        .chain(reporting.map(invalid))
        .collect()
}

/// JOB-020…022; durations are parsed on the way.
pub(crate) fn periodic(prow: &ProwConfig, job: &mut Periodic) -> Vec<Problem> {
    let name = &job.base.name;
    let mut wrong: Vec<Problem> = Vec::new();
    if let Err(e) = base(prow, &job.base, ProwJobType::Periodic) {
        wrong.push(("", format!("invalid periodic job {name}: {e}")));
    }
    let set = [&job.cron, &job.interval, &job.minimum_interval]
        .into_iter()
        .filter(|s| !s.is_empty())
        .count();
    if set > 1 {
        let message = format!(
            "cron, interval, and minimum_interval are mutually exclusive in periodic {name}"
        );
        wrong.push(("", message));
        return wrong;
    }
    if set == 0 {
        let message = format!(
            "at least one of cron, interval, or minimum_interval must be set in periodic {name}"
        );
        wrong.push(("", message));
        return wrong;
    }
    if !job.cron.is_empty()
        && let Err(e) = CronSchedule::parse(&job.cron)
    {
        let message = format!("invalid cron string {} in periodic {name}: {e}", job.cron);
        wrong.push(("cron", message));
    }
    let mut parse = |text: &str, what: &str, field| match text.parse::<GoDuration>() {
        Ok(duration) => duration,
        Err(e) => {
            wrong.push((field, format!("cannot parse {what} for {name}: {e}")));
            GoDuration::default()
        }
    };
    if !job.interval.is_empty() {
        job.every = parse(&job.interval, "duration", "interval");
    }
    if let Some(retry) = &mut job.retry {
        retry.wait = parse(&retry.interval, "Retry duration", "retry.interval");
    }
    if !job.minimum_interval.is_empty() {
        job.at_least_every = parse(&job.minimum_interval, "duration", "minimum_interval");
    }
    wrong
}

/// JOB-030: names of periodics are unique.
pub(crate) fn periodic_clashes<'a>(jobs: impl Iterator<Item = &'a Periodic>) -> Vec<Finding> {
    let mut names = HashSet::new();
    jobs.enumerate()
        .filter(|(_, job)| !names.insert(job.base.name.as_str()))
        .map(|(n, job)| {
            let found = Finding::of(n, format!("duplicated periodic job: {}", job.base.name));
            found.in_field("name")
        })
        .collect()
}

fn exclusions(
    name: &str,
    always: bool,
    run_if_changed: &str,
    skip_if_only_changed: &str,
) -> Result<(), String> {
    for (field, value) in [
        ("run_if_changed", run_if_changed),
        ("skip_if_only_changed", skip_if_only_changed),
    ] {
        if always && !value.is_empty() {
            return Err(format!(
                "job {name} is set to always run but also declares {field} targets, which are mutually exclusive"
            ));
        }
    }
    if !run_if_changed.is_empty() && !skip_if_only_changed.is_empty() {
        return Err(format!(
            "job {name} declares run_if_changed and skip_if_only_changed, which are mutually exclusive"
        ));
    }
    Ok(())
}

fn triggering(job: &Presubmit) -> Result<(), String> {
    let name = &job.base.name;
    exclusions(
        name,
        job.always_run,
        &job.changes.run_if_changed,
        &job.changes.skip_if_only_changed,
    )?;
    if job.trigger.is_empty() != job.rerun_command.is_empty() {
        return Err(format!(
            "either both of job.Trigger and job.RerunCommand must be set, wasnt the case for job {name:?}"
        ));
    }
    Ok(())
}

/// JOB-032.
fn reporting(base: &JobBase, reporter: &Reporter) -> Result<(), String> {
    if !reporter.skip_report {
        if reporter.context.is_empty() {
            return Err("job is set to report but has no context configured".to_owned());
        }
        return Ok(());
    }
    match base.labels.get(labels::GERRIT_REPORT_LABEL) {
        Some(value) if !value.is_empty() => Err(format!(
            "gerrit report label {} set to non-empty string but job is configured to skip reporting.",
            labels::GERRIT_REPORT_LABEL
        )),
        _ => Ok(()),
    }
}

fn name(base: &JobBase) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let bytes = base.name.as_bytes();
    if base.agent != "jenkins" {
        if bytes.is_empty() || !bytes.iter().all(|b| plain(*b)) {
            return Err("name: must match regex \"^[A-Za-z0-9-._]+$\"".to_owned());
        }
        return Ok(());
    }
    let valid = match bytes {
        [] => false,
        [only] => plain(*only),
        [first, middle @ .., last] => {
            plain(*first)
                && middle.iter().all(|b| plain(*b) || *b == b'/')
                && (last.is_ascii_alphanumeric() || matches!(last, b'-' | b'_'))
        }
    };
    if valid {
        return Ok(());
    }
    Err("name: must match regex \"^[A-Za-z0-9-._]([A-Za-z0-9-._/]*[A-Za-z0-9-_])?$\"".to_owned())
}

/// What holds for jobs of all types. Upstream stops at the first problem of a job, but for its pod.
fn base(prow: &ProwConfig, job: &JobBase, job_type: ProwJobType) -> Result<(), String> {
    name(job)?;
    if job.max_concurrency < 0 {
        return Err(format!(
            "max_concurrency: {} must be a non-negative number",
            job.max_concurrency
        ));
    }
    agent(job, &prow.pod_namespace)?;
    let pod = match &job.spec {
        Some(spec) => Some(spec.view().map_err(|e| format!("pod spec: {e}"))?),
        None => None,
    };
    if let Some(pod) = &pod {
        let wrong = pod_spec(job_type, pod, job.decoration());
        if !wrong.is_empty() {
            return Err(wrong.join(", "));
        }
    }
    if job.agent == "tekton-pipeline" {
        let spec = job.tekton_spec().ok_or("pipeline run spec not found")?;
        tekton(job_type, &job.utility.extra_refs, spec)?;
    }
    job_labels(job)?;
    if !job.job_queue_name.is_empty()
        && !prow
            .plank
            .job_queue_capacities
            .contains_key(&job.job_queue_name)
    {
        return Err(format!("invalid job queue name {}", job.job_queue_name));
    }
    let containers = pod.as_ref().map(PodView::containers).unwrap_or_default();
    if containers.is_empty() {
        return Ok(());
    }
    if let Some(auth) = &job.rerun_auth_config {
        auth.validate().map_err(|e| e.to_string())?;
    }
    clone_uris(&job.utility)?;
    if let Some(decoration) = job.decoration() {
        decoration
            .validate()
            .map_err(|e| format!("invalid decoration config: {e}"))?;
        for container in containers {
            if container.first_word().is_empty() {
                return Err("decorated job containers must specify command and/or args".to_owned());
            }
        }
    }
    Ok(())
}

/// JOB-033.
fn agent(job: &JobBase, pod_namespace: &str) -> Result<(), String> {
    const K: &str = "kubernetes";
    const P: &str = "tekton-pipeline";
    let agent = job.agent.as_str();
    let pipeline = job.tekton_spec().is_some();
    let namespace = job.namespace.as_deref().unwrap_or_default();
    if !matches!(agent, K | "jenkins" | P) {
        tracing::warn!(
            agent,
            job = job.name,
            "agent is unknown and cannot be validated: use at your own risk"
        );
        return Ok(());
    }
    let message = if job.spec.is_some() && agent != K {
        format!("job specs require agent: {K} (found {agent:?})")
    } else if agent == K && job.spec.is_none() {
        "kubernetes jobs require a spec".to_owned()
    } else if pipeline && agent != P {
        format!("job pipeline_run_spec require agent: {P} (found {agent:?})")
    } else if agent == P && !pipeline {
        format!("agent: {P} jobs require a pipeline_run_spec")
    } else if job.decoration().is_some() && agent != K {
        format!("decoration requires agent: {K} (found {agent:?})")
    } else if job.error_on_eviction && agent != K {
        format!("error_on_eviction only applies to agent: {K} (found {agent:?})")
    } else if namespace.is_empty() {
        "failed to default namespace".to_owned()
    } else if namespace != pod_namespace && agent != P {
        format!("namespace customization requires agent: {P} (found {agent:?})")
    } else {
        return Ok(());
    };
    Err(message)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// JOB-034…037. Upstream puts the problems of a pod together.
fn pod_spec(
    job_type: ProwJobType,
    pod: &PodView<'_>,
    decoration: Option<&DecorationConfig>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let unsupported: Vec<&str> = pod
        .init_containers()
        .iter()
        .filter(|container| container.restart_policy != "Always")
        .map(|container| container.name.as_ref())
        .collect();
    if !unsupported.is_empty() {
        wrong.push(format!(
            "pod spec may not use init containers(sidecar container is supported): [{}]",
            unsupported.join(" ")
        ));
    }
    let containers = pod.containers();
    if containers.is_empty() {
        wrong.push("pod spec must specify at least 1 container, found: 0".to_owned());
        return wrong;
    }
    if containers.len() > 1 && decoration.is_none() {
        wrong.push(format!(
            "pod utility decoration must be enabled to use multiple containers: {}",
            containers.len()
        ));
        return wrong;
    }
    if containers.len() > 1 {
        container_names(containers, &mut wrong);
    }
    for container in containers {
        env_names(job_type, container, &mut wrong);
    }
    volumes(pod, decoration, &mut wrong);
    wrong
}

fn container_names(containers: &[ContainerView<'_>], wrong: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for container in containers {
        let name = container.name.as_ref();
        if name.is_empty() {
            wrong.push(
                "container does not have name. all containers must have names when defining multiple containers"
                    .to_owned(),
            );
        }
        if !names.insert(name) {
            wrong.push(format!(
                "container named {name:?} is defined more than once"
            ));
        }
        if UTILITY_CONTAINERS.contains(&name) {
            wrong.push(format!(
                "container name {name} is a reserved for decoration. please specify a different container name that \
                 does not conflict with pod utility container names"
            ));
        }
    }
}

fn env_names(job_type: ProwJobType, container: &ContainerView<'_>, wrong: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for env in container.env() {
        let name = env.name.as_ref();
        if !names.insert(name) {
            wrong.push(format!("env var named {name:?} is defined more than once"));
        }
        let refs = matches!(
            job_type,
            ProwJobType::Postsubmit | ProwJobType::Batch | ProwJobType::Presubmit
        );
        let reserved = BASE_ENV.contains(&name)
            || (refs && REFS_ENV.contains(&name))
            || (job_type == ProwJobType::Presubmit && PULL_ENV.contains(&name));
        if reserved {
            wrong.push(format!("env {name} is reserved"));
        }
    }
}

fn volumes(pod: &PodView<'_>, decoration: Option<&DecorationConfig>, wrong: &mut Vec<String>) {
    let reserved = |name: &str| {
        TEST_MOUNTS.contains(&name)
            || CREDENTIAL_MOUNTS.contains(&name)
            || decoration.is_some_and(|d| {
                d.oauth_token_secret
                    .as_ref()
                    .is_some_and(|secret| secret.name == name)
                    || d.ssh_key_secrets.iter().any(|secret| secret == name)
            })
    };
    let mut names = BTreeSet::new();
    for volume in pod.volumes() {
        let name = volume.name.as_ref();
        if !names.insert(name) {
            wrong.push(format!("volume named {name:?} is defined more than once"));
        }
        if reserved(name) {
            wrong.push(format!("volume {name} is a reserved for decoration"));
        }
    }
    for mount in pod.containers().iter().flat_map(ContainerView::mounts) {
        let (name, path) = (mount.name.as_ref(), mount.mount_path.as_ref());
        if !names.contains(name) && !reserved(name) {
            wrong.push(format!("volumeMount named {name:?} is undefined"));
        }
        if TEST_MOUNTS.contains(&name) {
            wrong.push(format!(
                "volumeMount name {name} is reserved for decoration"
            ));
        }
        if TEST_MOUNT_PATHS.contains(&path) {
            wrong.push(format!(
                "mount {name} at {path} conflicts with decoration mount"
            ));
        }
    }
}

/// JOB-039.
fn job_labels(job: &JobBase) -> Result<(), String> {
    for (label, value) in &job.labels {
        if labels::RESERVED.contains(&label.as_str()) {
            return Err(format!("label {label} is reserved for decoration"));
        }
        if let Some(reason) = kube_names::qualified_name_problem(label) {
            return Err(format!("invalid label {label}: [{reason}]"));
        }
        if !labels::is_valid_label_value(value) {
            return Err(format!(
                "label {label} has invalid value {value}: [{}]",
                kube_names::LABEL_VALUE_RULE
            ));
        }
    }
    for annotation in job.annotations.keys() {
        if let Some(reason) = kube_names::qualified_name_problem(annotation) {
            return Err(format!("invalid annotation key {annotation:?}: [{reason}]"));
        }
    }
    Ok(())
}

/// JOB-040: extra refs are looked at only if the job itself has a URI.
fn clone_uris(utility: &UtilityConfig) -> Result<(), String> {
    if utility.clone_uri.is_empty() {
        return Ok(());
    }
    let oauth = utility
        .decoration_config
        .as_ref()
        .is_some_and(|d| d.oauth_token_secret.is_some());
    let check = |uri: &str| clone_uri_problem(uri, oauth).map_or(Ok(()), Err);
    check(&utility.clone_uri)?;
    for (n, refs) in utility.extra_refs.iter().enumerate() {
        check(&refs.clone_uri).map_err(|e| format!("extra_ref[{n}]: {e}"))?;
    }
    Ok(())
}

/// What is wrong with a URI to clone from.
pub(crate) fn clone_uri_problem(uri: &str, oauth: bool) -> Option<String> {
    let uri = uri.split_once('@').map_or(uri, |(_, rest)| rest);
    match go_url::scheme(uri) {
        Err(e) => Some(format!("couldn't parse uri from clone_uri: {e}")),
        Ok(scheme) if oauth && !matches!(scheme.as_str(), "http" | "https") => Some(format!(
            "scheme must be http or https when OAuth secret is specified: {uri}"
        )),
        Ok(_) => None,
    }
}

/// Whether the job runs a pod; upstream ends its checks early where it does not.
pub(crate) fn has_containers(job: &JobBase) -> bool {
    let pod = job.spec.as_ref().and_then(|spec| spec.view().ok());
    pod.is_some_and(|pod| !pod.containers().is_empty())
}

/// JOB-042.
fn tekton(job_type: ProwJobType, extra_refs: &[Refs], spec: &Value) -> Result<(), String> {
    const IMPLICIT: &str = "PROW_IMPLICIT_GIT_REF";
    const EXTRA: &str = "PROW_EXTRA_GIT_REF_";
    let mut used = BTreeSet::new();
    for task in spec
        .get("pipelineSpec")
        .map(|spec| items(spec, "tasks"))
        .unwrap_or_default()
    {
        let reference = task
            .get("taskRef")
            .map(|r| text(r, "name"))
            .unwrap_or_default();
        if job_type == ProwJobType::Periodic && reference == IMPLICIT {
            return Err(format!(
                "periodic jobs do not have an implicit git ref to replace {IMPLICIT}"
            ));
        }
        let Some((_, rest)) = reference.split_once(EXTRA) else {
            continue;
        };
        let digits = &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()];
        if digits.is_empty() {
            continue;
        }
        if digits.len() > 1 && digits.starts_with('0') {
            let task = text(task, "name");
            return Err(format!(
                "task {task:?}: leading zeros are not allowed in PROW_EXTRA_GIT_REF_* indexes"
            ));
        }
        used.insert(digits.parse::<usize>().unwrap_or(usize::MAX));
    }
    for n in 0..extra_refs.len() {
        if !used.contains(&n) {
            return Err(format!(
                "extra_refs[{n}] is not used; some task must reference {EXTRA}{n}"
            ));
        }
    }
    if used.len() != extra_refs.len() {
        let used: Vec<_> = used.iter().map(usize::to_string).collect();
        return Err(format!(
            "{} extra_refs are specified, but the following PROW_EXTRA_GIT_REF_* indexes are used: {}",
            extra_refs.len(),
            used.join(", ")
        ));
    }
    Ok(())
}
