//! `/prowjobs.js`: the runs as Prow's ProwJobs (DECK-008, DECK-009, DECK-021).

use axum::{
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trireme_proto::state::Job;
use trireme_prowjob::record;
use trireme_state::JobFilter;

use crate::Deck;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    var: String,
    omit: String,
    org: String,
    repo: String,
    owner: String,
}

/// DECK-009: nothing but an identifier goes into the script.
fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$';
    name.len() <= 64
        && name.starts_with(letter)
        && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// DECK-021: leaves out what was asked to be; a pod spec keeps the number of its containers.
fn omit(job: &mut Value, what: &str) {
    let fields: Vec<&str> = what.split(',').collect();
    let has = |name: &str| fields.contains(&name);
    if let Some(metadata) = job.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in ["annotations", "labels"] {
            if has(name) {
                metadata.remove(name);
            }
        }
    }
    if let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) {
        if has("decoration_config") {
            spec.remove("decoration_config");
        }
        if has("pod_spec") && spec.contains_key("pod_spec") {
            let containers = spec["pod_spec"]["containers"]
                .as_array()
                .map_or(0, Vec::len);
            let empty = vec![Value::Object(Map::new()); containers];
            spec.insert("pod_spec".to_owned(), json!({ "containers": empty }));
        }
    }
}

fn wanted(asked: &Asked, job: &Job) -> bool {
    let same = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
    same(&asked.org, &job.org) && same(&asked.repo, &job.repo) && same(&asked.owner, &job.org)
}

pub(crate) async fn list(State(deck): State<Deck>, Query(asked): Query<Asked>) -> Response {
    if !asked.var.is_empty() && !is_identifier(&asked.var) {
        return (
            StatusCode::BAD_REQUEST,
            "var: must be a JavaScript identifier of at most 64 characters",
        )
            .into_response();
    }
    let view = deck.store.view();
    let mut jobs: Vec<&std::sync::Arc<Job>> = view
        .jobs_newest_first(JobFilter::default())
        .filter(|job| wanted(&asked, job))
        .collect();
    // Newest start first, then by name.
    jobs.sort_by(|a, b| (b.created_ms / 1000, &a.job).cmp(&(a.created_ms / 1000, &b.job)));
    let items: Vec<Value> = jobs
        .iter()
        .filter_map(|job| {
            let prow_job = record::prow_job(job).ok()?;
            let mut value = serde_json::to_value(prow_job).ok()?;
            omit(&mut value, &asked.omit);
            Some(value)
        })
        .collect();
    let body = json!({ "items": items }).to_string();
    let (kind, body) = if asked.var.is_empty() {
        ("application/json", body)
    } else {
        (
            "application/javascript",
            format!("var {} = {body};", asked.var),
        )
    };
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-store, must-revalidate"),
            (header::EXPIRES, "0"),
        ],
        body,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DECK-009
    #[test]
    fn only_identifiers_become_variables() {
        assert!(is_identifier("allBuilds") && is_identifier("$_1"));
        assert!(
            !is_identifier("1a") && !is_identifier("a;alert(1)") && !is_identifier(&"a".repeat(65))
        );
    }

    /// DECK-021
    #[test]
    fn omitted_fields_are_gone_and_containers_counted() {
        let mut job = json!({
            "metadata": {"name": "n", "labels": {"a": "b"}, "annotations": {}},
            "spec": {"pod_spec": {"containers": [{"image": "i"}, {}], "volumes": []}, "decoration_config": {}},
        });
        omit(&mut job, "annotations,labels,decoration_config,pod_spec");
        assert_eq!(
            job,
            json!({"metadata": {"name": "n"}, "spec": {"pod_spec": {"containers": [{}, {}]}}})
        );
        let mut without = json!({"spec": {}});
        omit(&mut without, "pod_spec");
        assert_eq!(without, json!({"spec": {}}));
    }
}
