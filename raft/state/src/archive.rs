//! What goes into the archive when a record leaves memory.

use bytes::Bytes;
use prost::Message as _;
use trireme_proto::state::{
    ConfigPage, ConfigVersion, Delivery, Job, MergeIntent, Plan, RunSummary,
};

use crate::{
    apply::Entry,
    archive_keys::{self as keys, Key},
    deliveries::arrival,
    jobs::seq_of,
};

fn put(entry: &mut Entry, key: &Key, record: &[u8]) {
    for (key, value) in keys::chunked(key, record) {
        entry.archive_put(key, value);
    }
}

pub(crate) fn job(entry: &mut Entry, job: &Job) {
    put(entry, &keys::job(&job.id), &job.encode_to_vec());
    let summary = run_summary(job).encode_to_vec();
    put(entry, &keys::run(seq_of(job)), &summary);
    put(entry, &keys::run_of_job(job), &summary);
    for pull in &job.pulls {
        let key = keys::runs_of_pull(&job.org, &job.repo, pull.number).latest_first(seq_of(job));
        put(entry, &key, &summary);
    }
}

/// A run as history keeps it.
pub fn run_summary(job: &Job) -> RunSummary {
    RunSummary {
        job_id: job.id.clone(),
        r#type: job.r#type,
        job: job.job.clone(),
        org: job.org.clone(),
        repo: job.repo.clone(),
        base_ref: job.base_ref.clone(),
        pulls: job.pulls.clone(),
        state: job.state,
        created_ms: job.created_ms,
        pending_ms: job.pending_ms,
        completed_ms: job.completed_ms,
        build_id: job.build_id.clone(),
        url: job.url.clone(),
        attempts: job.attempt,
        context: job.context.clone(),
    }
}

pub(crate) fn delivery(entry: &mut Entry, delivery: &Delivery) {
    put(
        entry,
        &keys::delivery(&delivery.guid),
        &delivery.encode_to_vec(),
    );
    let brief = Delivery {
        payload_zstd: Bytes::new(),
        ..delivery.clone()
    };
    put(
        entry,
        &keys::delivery_in_order(arrival(delivery)),
        &brief.encode_to_vec(),
    );
}

pub(crate) fn plan(entry: &mut Entry, plan: &Plan) {
    put(
        entry,
        &keys::plans_of(&plan.guid).name(&plan.plugin),
        &plan.encode_to_vec(),
    );
}

pub(crate) fn intent(entry: &mut Entry, intent: &MergeIntent) {
    let opened = u64::try_from(intent.opened_ms).unwrap_or(0);
    let key = keys::intents_of(&intent.org, &intent.repo, intent.number)
        .newest_first(opened)
        .name(&intent.id);
    put(entry, &key, &intent.encode_to_vec());
}

pub(crate) fn config(entry: &mut Entry, config: &ConfigVersion) {
    put(entry, &keys::config(config.number), &config.encode_to_vec());
}

pub(crate) fn config_page(entry: &mut Entry, page: &ConfigPage) {
    put(
        entry,
        &keys::config_page(&page.sha256),
        &page.encode_to_vec(),
    );
}

pub(crate) fn blob(entry: &mut Entry, sha256: &[u8], chunks: &[Bytes]) {
    put(entry, &keys::blob(sha256), &chunks.concat());
}
