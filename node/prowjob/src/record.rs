//! A ProwJob as the replicated state keeps it: what the store indexes or arbitrates as fields, the rest as the JSON it
//! was created with.

use trireme_proto::state::{Job, JobState, JobType, Pull};

use crate::{ProwJob, ProwJobState, ProwJobType, Time, labels::IS_OPTIONAL};

/// Where a new run comes from; see the fields of the same names in [`Job`].
#[derive(Debug, Clone, Default)]
pub struct Source {
    pub origin: String,
    pub config_version: u64,
    pub reporters: Vec<String>,
    pub rerun_of: String,
}

/// The record for a new run; its id is the ProwJob's name.
///
/// # Errors
/// When the ProwJob does not serialise.
pub fn new_record(job: &ProwJob, source: Source) -> Result<Job, serde_json::Error> {
    let spec = &job.spec;
    let refs = spec.refs.as_ref();
    Ok(Job {
        id: job.metadata.name.clone(),
        r#type: job_type(spec.r#type).into(),
        job: spec.job.clone(),
        agent: spec.agent.as_str().to_owned(),
        cluster: job.cluster_alias().to_owned(),
        org: refs.map(|refs| refs.org.clone()).unwrap_or_default(),
        repo: refs.map(|refs| refs.repo.clone()).unwrap_or_default(),
        base_ref: refs.map(|refs| refs.base_ref.clone()).unwrap_or_default(),
        base_sha: refs.map(|refs| refs.base_sha.clone()).unwrap_or_default(),
        pulls: refs
            .map(|refs| {
                refs.pulls
                    .iter()
                    .map(|pull| Pull {
                        number: u64::try_from(pull.number).unwrap_or_default(),
                        author: pull.author.clone(),
                        head_sha: pull.sha.clone(),
                    })
                    .collect()
            })
            .unwrap_or_default(),
        context: spec.context.clone(),
        state: job_state(job.status.state).into(),
        prowjob: serde_json::to_vec(job)?.into(),
        reporters: source.reporters,
        origin: source.origin,
        config_version: source.config_version,
        rerun_of: source.rerun_of,
        max_concurrency: u32::try_from(spec.max_concurrency).unwrap_or_default(),
        queue: spec.job_queue_name.clone(),
        optional: job
            .metadata
            .labels
            .get(IS_OPTIONAL)
            .is_some_and(|value| value == "true"),
        ..Job::default()
    })
}

/// The ProwJob with the status that the record says.
///
/// # Errors
/// When the record's JSON is not a ProwJob.
pub fn prow_job(record: &Job) -> Result<ProwJob, serde_json::Error> {
    let mut job: ProwJob = serde_json::from_slice(&record.prowjob)?;
    job.metadata.name.clone_from(&record.id);
    let status = &mut job.status;
    status.start_time = time(record.created_ms);
    status.pending_time = time(record.pending_ms);
    status.completion_time = time(record.completed_ms);
    status.state = prow_state(record.state());
    status.description.clone_from(&record.description);
    status.url.clone_from(&record.url);
    status.build_id.clone_from(&record.build_id);
    if record.attempt > 0 {
        status.pod_name.clone_from(&record.id);
    }
    status.prev_report_states = record
        .prev_report_states
        .iter()
        .filter_map(|(reporter, state)| Some((reporter.clone(), ProwJobState::from_word(state)?)))
        .collect();
    Ok(job)
}

fn time(millis: i64) -> Option<Time> {
    (millis > 0)
        .then(|| {
            jiff::Timestamp::from_millisecond(millis)
                .ok()
                .map(Time::from)
        })
        .flatten()
}

/// Prow's word for a record's type.
#[must_use]
pub const fn prow_type(kind: JobType) -> ProwJobType {
    match kind {
        JobType::Unspecified => ProwJobType::Unset,
        JobType::Presubmit => ProwJobType::Presubmit,
        JobType::Postsubmit => ProwJobType::Postsubmit,
        JobType::Periodic => ProwJobType::Periodic,
        JobType::Batch => ProwJobType::Batch,
    }
}

/// The record's type for Prow's word.
#[must_use]
pub const fn job_type(kind: ProwJobType) -> JobType {
    match kind {
        ProwJobType::Unset => JobType::Unspecified,
        ProwJobType::Presubmit => JobType::Presubmit,
        ProwJobType::Postsubmit => JobType::Postsubmit,
        ProwJobType::Periodic => JobType::Periodic,
        ProwJobType::Batch => JobType::Batch,
    }
}

/// Prow's word for a record's state.
#[must_use]
pub const fn prow_state(state: JobState) -> ProwJobState {
    match state {
        JobState::Unspecified => ProwJobState::Unset,
        JobState::Scheduling => ProwJobState::Scheduling,
        JobState::Triggered => ProwJobState::Triggered,
        JobState::Pending => ProwJobState::Pending,
        JobState::Success => ProwJobState::Success,
        JobState::Failure => ProwJobState::Failure,
        JobState::Aborted => ProwJobState::Aborted,
        JobState::Error => ProwJobState::Error,
    }
}

/// The record's state for Prow's word.
#[must_use]
pub const fn job_state(state: ProwJobState) -> JobState {
    match state {
        ProwJobState::Unset => JobState::Unspecified,
        ProwJobState::Scheduling => JobState::Scheduling,
        ProwJobState::Triggered => JobState::Triggered,
        ProwJobState::Pending => JobState::Pending,
        ProwJobState::Success => JobState::Success,
        ProwJobState::Failure => JobState::Failure,
        ProwJobState::Aborted => JobState::Aborted,
        ProwJobState::Error => JobState::Error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{ProwJobSpec, Refs, new_prow_job};

    use super::*;

    /// EXE-002: the status comes from the record, everything else as it was created.
    #[test]
    fn a_record_gives_back_its_prowjob_with_its_own_status() {
        let spec = ProwJobSpec {
            r#type: ProwJobType::Presubmit,
            job: "unit".to_owned(),
            refs: Some(Refs {
                org: "org".to_owned(),
                repo: "repo".to_owned(),
                base_ref: "main".to_owned(),
                pulls: vec![crate::Pull {
                    number: 7,
                    sha: "abc".to_owned(),
                    ..crate::Pull::default()
                }],
                ..Refs::default()
            }),
            ..ProwJobSpec::default()
        };
        let job = new_prow_job(
            spec,
            &BTreeMap::new(),
            &BTreeMap::new(),
            "id",
            jiff::Timestamp::UNIX_EPOCH,
        );
        let mut record = new_record(&job, Source::default()).unwrap();
        assert_eq!(
            (
                record.id.as_str(),
                record.repo.as_str(),
                record.pulls[0].number
            ),
            ("id", "repo", 7)
        );
        assert_eq!(record.cluster, "default");
        record.state = JobState::Failure.into();
        record.created_ms = 1_000;
        record.completed_ms = 2_500;
        record.build_id = "12".to_owned();
        record
            .prev_report_states
            .insert("github-reporter".to_owned(), "pending".to_owned());
        let back = prow_job(&record).unwrap();
        assert_eq!(back.spec, job.spec);
        assert_eq!(back.metadata, job.metadata);
        assert!(back.complete());
        assert_eq!(
            serde_json::to_value(&back.status).unwrap(),
            serde_json::json!({
                "startTime": "1970-01-01T00:00:01Z", "completionTime": "1970-01-01T00:00:02Z",
                "state": "failure", "build_id": "12", "prev_report_states": {"github-reporter": "pending"},
            })
        );
    }
}
