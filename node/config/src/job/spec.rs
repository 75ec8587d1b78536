//! Specs of ProwJobs from jobs (JOB-051, JOB-057…062).

use std::collections::BTreeMap;

use jiff::Timestamp;
use trireme_prowjob::new_job::{
    CloneOverrides, GitHubPull, complete_primary_refs, decorate_refs, github_refs,
};
use trireme_prowjob::{
    ProwJob, ProwJobAgent, ProwJobSpec, ProwJobType, Refs, labels, new_prow_job,
};

use super::{JobBase, Periodic, PodSpec, Postsubmit, Presubmit};

/// A run of a presubmit for the pull request of the refs.
#[must_use]
pub fn presubmit_spec(job: &Presubmit, refs: Refs) -> ProwJobSpec {
    ProwJobSpec {
        r#type: ProwJobType::Presubmit,
        context: job.reporter.context.clone(),
        report: !job.reporter.skip_report,
        rerun_command: job.rerun_command.clone(),
        jenkins_spec: job.jenkins_spec.clone(),
        refs: Some(primary_refs(refs, &job.base)),
        ..from_base(&job.base)
    }
}

/// A run of a postsubmit for the commit of the refs.
#[must_use]
pub fn postsubmit_spec(job: &Postsubmit, refs: Refs) -> ProwJobSpec {
    ProwJobSpec {
        r#type: ProwJobType::Postsubmit,
        context: job.reporter.context.clone(),
        report: !job.reporter.skip_report,
        jenkins_spec: job.jenkins_spec.clone(),
        refs: Some(primary_refs(refs, &job.base)),
        ..from_base(&job.base)
    }
}

/// A run of a periodic. It always reports.
#[must_use]
pub fn periodic_spec(job: &Periodic) -> ProwJobSpec {
    ProwJobSpec {
        r#type: ProwJobType::Periodic,
        report: true,
        ..from_base(&job.base)
    }
}

/// A run of a presubmit for several pull requests together. It never reports.
#[must_use]
pub fn batch_spec(job: &Presubmit, refs: Refs) -> ProwJobSpec {
    ProwJobSpec {
        r#type: ProwJobType::Batch,
        context: job.reporter.context.clone(),
        refs: Some(primary_refs(refs, &job.base)),
        ..from_base(&job.base)
    }
}

/// The ProwJob for a presubmit of a GitHub pull request. Name and time are given, so that the same event makes the
/// same job. `event_guid` is that of the delivery.
#[must_use]
pub fn new_presubmit(
    job: &Presubmit,
    pull: GitHubPull<'_>,
    base_sha: &str,
    event_guid: &str,
    additional_labels: &BTreeMap<String, String>,
    name: impl Into<String>,
    start_time: Timestamp,
) -> ProwJob {
    let mut own = job.base.labels.clone();
    own.extend(additional_labels.clone());
    own.insert(labels::EVENT_GUID.to_owned(), event_guid.to_owned());
    own.insert(labels::IS_OPTIONAL.to_owned(), job.optional.to_string());
    let spec = presubmit_spec(job, github_refs(pull, base_sha));
    new_prow_job(spec, &own, &job.base.annotations, name, start_time)
}

fn primary_refs(refs: Refs, base: &JobBase) -> Refs {
    let own = CloneOverrides {
        path_alias: &base.utility.path_alias,
        clone_uri: &base.utility.clone_uri,
        skip_submodules: base.utility.skip_submodules,
        clone_depth: base.utility.clone_depth,
        skip_fetch_head: base.utility.skip_fetch_head,
    };
    complete_primary_refs(refs, own, base.decoration())
}

fn from_base(base: &JobBase) -> ProwJobSpec {
    ProwJobSpec {
        job: base.name.clone(),
        agent: ProwJobAgent::from(base.agent.as_str()),
        cluster: base.cluster.clone(),
        namespace: base.namespace.clone().unwrap_or_default(),
        max_concurrency: base.max_concurrency,
        error_on_eviction: base.error_on_eviction,
        extra_refs: base
            .utility
            .extra_refs
            .iter()
            .map(|r| decorate_refs(r.clone(), base.decoration()))
            .collect(),
        decoration_config: base.decoration().cloned(),
        pod_spec: base.spec.as_ref().map(PodSpec::value),
        pipeline_run_spec: base.pipeline_run_spec.clone(),
        tekton_pipeline_run_spec: base.tekton_pipeline_run_spec.clone(),
        reporter_config: base.reporter_config.clone(),
        rerun_auth_config: base.rerun_auth_config.clone(),
        hidden: base.hidden,
        prowjob_defaults: base.prowjob_defaults.as_deref().cloned(),
        job_queue_name: base.job_queue_name.clone(),
        ..ProwJobSpec::default()
    }
}
