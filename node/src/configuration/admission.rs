//! ProwJobs that somebody makes by hand: what the configuration adds to them, and which are refused (JOB-056). Upstream has a
//! webhook of the Kubernetes API for it.

use std::collections::BTreeSet;

use trireme_config::{Config, job::DEFAULT_CLUSTER};
use trireme_prowjob::{ProwJob, ProwJobAgent, ProwJobSpec, ProwJobType};

/// `served` are the clusters that agents named; `None` where nobody is to be asked.
///
/// # Errors
/// Why it is refused, in upstream's words where it has some.
pub(super) fn admit(
    config: Option<&Config>,
    served: Option<&BTreeSet<&str>>,
    job: &mut ProwJob,
) -> Result<(), String> {
    let spec = &mut job.spec;
    if spec.agent == ProwJobAgent::Jenkins && !matches!(&*spec.cluster, "" | DEFAULT_CLUSTER) {
        return Err(format!(
            "{}: cannot set cluster field if agent is jenkins",
            spec.job
        ));
    }
    if spec.agent == ProwJobAgent::Kubernetes
        && let Some(served) = served
    {
        is_known(config, served, spec)?;
    }
    match config {
        Some(config) => decorate(config, spec),
        None => Ok(()),
    }
}

fn cluster(spec: &ProwJobSpec) -> &str {
    match spec.cluster.as_str() {
        "" => DEFAULT_CLUSTER,
        named => named,
    }
}

fn is_known(
    config: Option<&Config>,
    served: &BTreeSet<&str>,
    spec: &ProwJobSpec,
) -> Result<(), String> {
    let cluster = cluster(spec);
    let disabled = config.is_some_and(|config| {
        let disabled = &config.prow.disabled_clusters;
        disabled.iter().any(|name| name == cluster)
    });
    let why = if disabled {
        "the configuration disables it".to_owned()
    } else if served.is_empty() || served.contains(cluster) {
        // Without any agent nothing is known.
        return Ok(());
    } else {
        let served: Vec<&str> = served.iter().copied().collect();
        format!("agents serve {}", served.join(", "))
    };
    Err(format!(
        "job configuration for {:?} specifies unknown 'cluster' value {cluster:?}: {why}",
        spec.job
    ))
}

/// The defaults of its repository and cluster, as for a configured job. Upstream looks the repository up without its
/// organisation, which no default names, and decorates what did not ask for it.
fn decorate(config: &Config, spec: &mut ProwJobSpec) -> Result<(), String> {
    let Some(own) = &spec.decoration_config else {
        return Ok(());
    };
    let refs = match spec.r#type {
        ProwJobType::Periodic => spec.extra_refs.first(),
        _ => spec.refs.as_ref(),
    };
    let repo = refs.map_or_else(String::new, |refs| format!("{}/{}", refs.org, refs.repo));
    let plank = &config.prow.plank;
    let filled = plank.decoration_for(&repo, cluster(spec), Some(own));
    filled.validate().map_err(|why| {
        format!(
            "invalid decoration config: {why}; say it in spec.decoration_config, or for all jobs in \
             plank.default_decoration_config_entries of config.yaml"
        )
    })?;
    spec.decoration_config = Some(filled);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use trireme_config::{FileSet, Layout, LoadOptions};

    use super::*;

    const CONFIG: &str = r#"
disabled_clusters: [old]
plank:
  default_decoration_config_entries:
  - config:
      timeout: 1h
      utility_images: {clonerefs: c, initupload: i, entrypoint: e, sidecar: s}
      gcs_configuration: {bucket: all, path_strategy: explicit}
  - repo: org/repo
    config: {gcs_configuration: {bucket: narrow}}
  - cluster: arm
    config: {timeout: 3h}
"#;

    fn config(text: &str) -> Arc<Config> {
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        set.insert("config.yaml", text.as_bytes());
        let loaded = Config::load(&set, LoadOptions::default());
        loaded.accepted().unwrap().0
    }

    fn made(spec: Value, served: Option<&[&str]>, text: Option<&str>) -> Result<ProwJob, String> {
        let mut job: ProwJob = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let served: Option<BTreeSet<&str>> = served.map(|names| names.iter().copied().collect());
        let config = text.map(config);
        admit(config.as_deref(), served.as_ref(), &mut job).map(|()| job)
    }

    fn on(agent: &str, cluster: &str) -> Value {
        json!({"type": "periodic", "job": "unit", "agent": agent, "cluster": cluster})
    }

    #[test]
    fn job_056_a_kubernetes_job_names_a_cluster_that_is_there() {
        let known = Some(&["arm", "default", "old"][..]);
        let told = |agent: &str, cluster: &str, served| {
            let made = made(on(agent, cluster), served, Some(CONFIG));
            made.err().unwrap_or_default()
        };
        for cluster in ["", "default", "arm"] {
            assert_eq!(told("kubernetes", cluster, known), "");
        }
        insta::assert_snapshot!(told("kubernetes", "build", known), @r#"job configuration for "unit" specifies unknown 'cluster' value "build": agents serve arm, default, old"#);
        insta::assert_snapshot!(told("kubernetes", "old", known), @r#"job configuration for "unit" specifies unknown 'cluster' value "old": the configuration disables it"#);
        insta::assert_snapshot!(told("kubernetes", "", Some(&["arm"])), @r#"job configuration for "unit" specifies unknown 'cluster' value "default": agents serve arm"#);
        // Nobody else is asked, nor anybody before there are agents, nor where it is not wanted.
        assert_eq!(told("tekton-pipeline", "build", known), "");
        assert_eq!(told("kubernetes", "build", Some(&[])), "");
        assert_eq!(told("kubernetes", "build", None), "");
    }

    #[test]
    fn job_056_a_jenkins_job_names_no_cluster() {
        let told = |cluster: &str| made(on("jenkins", cluster), None, None).err();
        assert_eq!([told(""), told("default")], [None, None]);
        assert_eq!(
            told("arm").unwrap(),
            "unit: cannot set cluster field if agent is jenkins"
        );
    }

    #[test]
    fn job_056_decoration_defaults_are_those_of_repository_and_cluster() {
        let spec = |more: Value| {
            let mut spec = json!({
                "type": "presubmit", "job": "unit", "agent": "kubernetes", "refs": {"org": "org", "repo": "repo"},
            });
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            spec
        };
        let decoration = |spec: Value| {
            let job = made(spec, None, Some(CONFIG)).unwrap();
            let decoration = job.spec.decoration_config?;
            let bucket = decoration.gcs_configuration.unwrap().bucket;
            let images = decoration.utility_images.unwrap();
            Some((
                bucket,
                decoration.timeout.unwrap().to_string(),
                images.sidecar,
            ))
        };
        let expect = |bucket: &str, timeout: &str, sidecar: &str| {
            Some((bucket.to_owned(), timeout.to_owned(), sidecar.to_owned()))
        };
        assert_eq!(
            decoration(spec(json!({"decoration_config": {}}))),
            expect("narrow", "1h0m0s", "s")
        );
        let own =
            json!({"cluster": "arm", "decoration_config": {"utility_images": {"sidecar": "mine"}}});
        assert_eq!(decoration(spec(own)), expect("narrow", "3h0m0s", "mine"));
        let own = json!({"cluster": "arm", "decoration_config": {"timeout": "5m"}});
        assert_eq!(decoration(spec(own)), expect("narrow", "5m0s", "s"));
        let periodic = json!({
            "type": "periodic", "refs": null, "extra_refs": [{"org": "org", "repo": "repo"}], "decoration_config": {},
        });
        assert_eq!(decoration(spec(periodic)), expect("narrow", "1h0m0s", "s"));
        // What is not decorated stays so.
        assert_eq!(decoration(spec(json!({}))), None);
        let refused = made(spec(json!({"decoration_config": {}})), None, Some("{}"));
        insta::assert_snapshot!(refused.unwrap_err(), @"invalid decoration config: utility image config is not specified; say it in spec.decoration_config, or for all jobs in plank.default_decoration_config_entries of config.yaml");
        let kept = made(spec(json!({"decoration_config": {}})), None, None).unwrap();
        assert!(kept.spec.decoration_config.is_some());
    }
}
