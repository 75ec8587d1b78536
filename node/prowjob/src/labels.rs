//! Labels and annotations that tie runs, pods and reports together.

use std::collections::BTreeMap;

use crate::job::{ProwJob, ProwJobSpec};

/// On everything made for a run.
pub const CREATED_BY_PROW: &str = "created-by-prow";
/// On runs that Tide wanted.
pub const CREATED_BY_TIDE: &str = "created-by-tide";
/// Job type.
pub const TYPE: &str = "prow.k8s.io/type";
/// Name of the run, on its workload.
pub const ID: &str = "prow.k8s.io/id";
/// Build id, on the workload.
pub const BUILD_ID: &str = "prow.k8s.io/build-id";
/// Job name; whole as annotation, cut as label.
pub const JOB: &str = "prow.k8s.io/job";
/// Status context; whole as annotation, cut as label.
pub const CONTEXT: &str = "prow.k8s.io/context";
/// Version of the executor, on pods.
pub const PLANK_VERSION: &str = "prow.k8s.io/plank-version";
/// Org of the refs.
pub const ORG: &str = "prow.k8s.io/refs.org";
/// Repo of the refs.
pub const REPO: &str = "prow.k8s.io/refs.repo";
/// Base branch of the refs.
pub const BASE_REF: &str = "prow.k8s.io/refs.base_ref";
/// Number of the first pull request.
pub const PULL: &str = "prow.k8s.io/refs.pull";
/// `true` on runs made by a retest comment.
pub const RETEST: &str = "prow.k8s.io/retest";
/// `true` or `false` on presubmits.
pub const IS_OPTIONAL: &str = "prow.k8s.io/is-optional";
/// Number of the retry, on periodics.
pub const RE_RUN: &str = "prow.k8s.io/re-run";
/// GUID of the webhook delivery.
pub const EVENT_GUID: &str = "event-GUID";
/// Gerrit change.
pub const GERRIT_ID: &str = "prow.k8s.io/gerrit-id";
/// Gerrit host.
pub const GERRIT_INSTANCE: &str = "prow.k8s.io/gerrit-instance";
/// Commit of the patch set.
pub const GERRIT_REVISION: &str = "prow.k8s.io/gerrit-revision";
/// Number of the patch set.
pub const GERRIT_PATCHSET: &str = "prow.k8s.io/gerrit-patchset";
/// Gerrit label to vote on.
pub const GERRIT_REPORT_LABEL: &str = "prow.k8s.io/gerrit-report-label";

/// Longest label value, in bytes.
pub const MAX_LABEL_VALUE: usize = 63;

/// Labels that a job may not set itself (EXE-016).
pub const RESERVED: [&str; 3] = [TYPE, CREATED_BY_PROW, ID];

/// Text keys and values.
pub type Map = BTreeMap<String, String>;

/// Labels and annotations of a run with this spec (EXE-015). Extra ones win over those made here; label values that
/// are none are replaced by the last element of the path they may be, else dropped.
pub fn for_spec(spec: &ProwJobSpec, extra_labels: &Map, extra_annotations: &Map) -> (Map, Map) {
    let mut labels = Map::new();
    let mut annotations = Map::new();
    let mut label = |key: &str, value: String| labels.insert(key.to_owned(), value);

    label(CREATED_BY_PROW, "true".to_owned());
    label(TYPE, spec.r#type.as_str().to_owned());
    for (key, value) in [(JOB, &spec.job), (CONTEXT, &spec.context)] {
        label(key, cut_to_label(value));
        annotations.insert(key.to_owned(), value.clone());
    }
    if let Some(refs) = spec.refs_or_first_extra() {
        label(ORG, refs.org.clone());
        label(REPO, refs.repo.clone());
        label(BASE_REF, refs.base_ref.clone());
        if let Some(pull) = refs.pulls.first() {
            label(PULL, pull.number.to_string());
        }
    }
    labels.extend(extra_labels.clone());
    annotations.extend(extra_annotations.clone());

    let labels = labels
        .into_iter()
        .filter_map(|(key, value)| valid_or_basename(value).map(|v| (key, v)))
        .collect();
    (labels, annotations)
}

/// Labels and annotations of the workload of a run: its own plus name and build id.
pub fn for_workload(job: &ProwJob) -> (Map, Map) {
    let mut labels = job.metadata.labels.clone();
    labels.insert(ID.to_owned(), job.metadata.name.clone());
    labels.insert(BUILD_ID.to_owned(), job.status.build_id.clone());
    for_spec(&job.spec, &labels, &job.metadata.annotations)
}

/// Kubernetes' rule for label values: empty, or up to 63 of `[A-Za-z0-9._-]` with a letter or digit at both ends.
pub fn is_valid_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return true;
    };
    bytes.len() <= MAX_LABEL_VALUE
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn cut_to_label(value: &str) -> String {
    if value.len() <= MAX_LABEL_VALUE {
        return value.to_owned();
    }
    // A cut inside a character leaves a replacement character here, invalid as Prow's broken byte is.
    let cut = String::from_utf8_lossy(&value.as_bytes()[..MAX_LABEL_VALUE]);
    cut.trim_end_matches(['.', '_', '-']).to_owned()
}

fn valid_or_basename(value: String) -> Option<String> {
    if is_valid_label_value(&value) {
        return Some(value);
    }
    let base = value
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    // All slashes have the base name `/`, which is no label value; an empty one would wrongly be.
    (!base.is_empty() && is_valid_label_value(base)).then(|| base.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exe_015_cutting_and_dropping() {
        assert_eq!(
            cut_to_label(&format!("{}-._x", "a".repeat(60))),
            "a".repeat(60)
        );
        assert_eq!(
            valid_or_basename("https://host/a/b/".into()).as_deref(),
            Some("b")
        );
        assert_eq!(valid_or_basename("not valid!".into()), None);
        assert_eq!(valid_or_basename("//".into()), None);
        assert_eq!(
            valid_or_basename(cut_to_label(&format!("{}é", "a".repeat(62)))),
            None
        );
        assert_eq!(valid_or_basename(String::new()).as_deref(), Some(""));
    }

    #[test]
    fn exe_015_own_labels_win_and_refs_of_periodics_come_from_the_first_extra() {
        let spec: ProwJobSpec = serde_json::from_value(serde_json::json!({
            "type": "periodic", "job": "nightly", "extra_refs": [{"org": "o", "repo": "r", "base_ref": "main"}],
        }))
        .unwrap();
        let own = Map::from([(TYPE.to_owned(), "mine".to_owned())]);
        let (labels, annotations) = for_spec(&spec, &own, &own);
        insta::assert_snapshot!(serde_json::to_string(&labels).unwrap(), @r#"{"created-by-prow":"true","prow.k8s.io/context":"","prow.k8s.io/job":"nightly","prow.k8s.io/refs.base_ref":"main","prow.k8s.io/refs.org":"o","prow.k8s.io/refs.repo":"r","prow.k8s.io/type":"mine"}"#);
        insta::assert_snapshot!(serde_json::to_string(&annotations).unwrap(), @r#"{"prow.k8s.io/context":"","prow.k8s.io/job":"nightly","prow.k8s.io/type":"mine"}"#);
    }
}
