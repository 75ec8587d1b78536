//! A ProwJob that somebody keeps in a file, as Prow's tools read it: YAML or JSON, its pod spec in the form that Kubernetes'
//! own types give it.

use serde_json::Value;
use trireme_prowjob::ProwJob;

use crate::decode::Cx;
use crate::diagnostic::{Diagnostic, Rule};
use crate::load::document;

/// Reads one; what is odd about it comes along. Fields that no type of ours knows stay in its pod spec (JOB-077).
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn read_prow_job(
    file: &str,
    bytes: &[u8],
) -> Result<(ProwJob, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut found = Vec::new();
    let Some(root) = document(file, bytes, &mut found) else {
        return Err(found);
    };
    let mut cx = Cx::new(file, false);
    let mut json = cx.json(&root);
    if let Some(spec) = root.get("spec") {
        for (field, of) in [
            ("pod_spec", "PodSpec"),
            ("decoration_config", "DecorationConfig"),
        ] {
            let Some(node) = spec.get(field).filter(|node| !node.is_null()) else {
                continue;
            };
            let value = cx.under("spec", |cx| cx.under(field, |cx| cx.object(of, node)));
            if let Some(slot) = json.pointer_mut("/spec").and_then(Value::as_object_mut) {
                slot.insert(field.to_owned(), value);
            }
        }
    }
    found.append(&mut cx.diagnostics);
    let job = serde_json::from_value::<ProwJob>(json)
        .inspect_err(|e| {
            let message = format!("this is no ProwJob: {e}");
            found.push(Diagnostic::error(Rule::Type, file, message).at(root.at));
        })
        .ok();
    match job {
        Some(job) if !found.iter().any(Diagnostic::is_error) => Ok((job, found)),
        _ => Err(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ADM-185, JOB-077.
    #[test]
    fn adm_185_a_prowjob_is_read_as_kubernetes_types_read_it() {
        let text = "\
kind: ProwJob
metadata: {name: run, labels: {a: 'yes'}}
spec:
  type: periodic
  job: nightly
  decoration_config: {timeout: 1h}
  pod_spec:
    future: true
    containers:
    - image: x
      resources: {limits: {cpu: 0.5}}
    volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]
";
        let (job, found) = read_prow_job("pj.yaml", text.as_bytes()).unwrap();
        insta::assert_snapshot!(serde_json::to_string(&job.spec.pod_spec).unwrap(), @r#"{"volumes":[{"name":"v","secret":{"secretName":"s","defaultMode":256}}],"containers":[{"name":"","image":"x","resources":{"limits":{"cpu":"500m"}}}],"future":true}"#);
        insta::assert_snapshot!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), @r#"pj.yaml:8:5: spec.pod_spec.future: unknown field "future""#);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let told = |text: &str| {
            let found = read_prow_job("pj.yaml", text.as_bytes()).unwrap_err();
            let told: Vec<String> = found.iter().map(ToString::to_string).collect();
            told.join("\n")
        };
        insta::assert_snapshot!(told("spec: {pod_spec: {containers: [{image: 3}]}}"), @"pj.yaml:1:40: spec.pod_spec.containers[0].image: cannot use a number as a string; put it in quotes");
        insta::assert_snapshot!(told("spec: {type: hourly}"), @"pj.yaml:1:1: this is no ProwJob: unknown variant `hourly`, expected one of ``, `presubmit`, `postsubmit`, `periodic`, `batch`");
        insta::assert_snapshot!(told("a: ["), @"pj.yaml:1:4: error unmarshalling: yaml: line 1: unclosed bracket '['");
    }
}
