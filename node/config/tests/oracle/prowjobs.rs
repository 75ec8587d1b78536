//! ProwJobs made from jobs, and the links to their pages, against upstream's (JOB-051, JOB-057…065).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use trireme_config::{
    Config, batch_spec, new_presubmit, periodic_spec, postsubmit_spec, presubmit_spec,
};
use trireme_prowjob::new_job::GitHubPull;
use trireme_prowjob::{ProwJob, Refs, go_json, new_prow_job};

use crate::answers;
use crate::waived;

fn map(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value::<Option<_>>(value.clone())
        .unwrap()
        .unwrap_or_default()
}

fn make(config: &Config, input: &Value, name: &str, start: Timestamp) -> ProwJob {
    let index = input["index"].as_u64().unwrap() as usize;
    let repo = input["repo"].as_str().unwrap_or_default();
    let refs = || serde_json::from_value::<Refs>(input["refs"].clone()).unwrap();
    let labels = map(&input["extra_labels"]);
    let how = input["how"].as_str().unwrap();
    if how.starts_with("NewPresubmit(") {
        let job = &config.jobs.presubmits[repo][index];
        let pr = &input["pr"];
        let text = |key: &str| pr[key].as_str().unwrap();
        let pull = GitHubPull {
            org: text("org"),
            repo: text("repo"),
            repo_html_url: text("repo_html_url"),
            base_ref: text("base_ref"),
            number: pr["number"].as_i64().unwrap(),
            author: text("user"),
            author_html_url: text("user_html_url"),
            head_sha: text("head_sha"),
            head_ref: text("head_ref"),
            title: text("title"),
            html_url: text("html_url"),
        };
        let (sha, guid) = (
            input["base_sha"].as_str().unwrap(),
            input["event_guid"].as_str().unwrap(),
        );
        return new_presubmit(job, pull, sha, guid, &labels, name, start)
            .requiring_scheduling(input["require_scheduling"].as_bool().unwrap_or(false));
    }
    let (spec, labels, annotations) = if how.contains("PresubmitSpec") {
        let job = &config.jobs.presubmits[repo][index];
        (
            presubmit_spec(job, refs()),
            labels,
            map(&input["extra_annotations"]),
        )
    } else if how.contains("PostsubmitSpec") {
        let job = &config.jobs.postsubmits[repo][index];
        (
            postsubmit_spec(job, refs()),
            labels,
            job.base.annotations.clone(),
        )
    } else if how.contains("BatchSpec") {
        let job = &config.jobs.presubmits[repo][index];
        let own = how.ends_with("job annotations)");
        let annotations = if own {
            job.base.annotations.clone()
        } else {
            map(&input["extra_annotations"])
        };
        (batch_spec(job, refs()), labels, annotations)
    } else {
        let job = &config.jobs.periodics[index];
        (
            periodic_spec(job),
            job.base.labels.clone(),
            job.base.annotations.clone(),
        )
    };
    new_prow_job(spec, &labels, &annotations, name, start)
}

#[test]
fn job_051_prowjobs_are_those_of_upstream() {
    let Some(cases) = answers::lines("prowjobs.jsonl.gz") else {
        return;
    };
    let mut wrong = Vec::new();
    let mut links = 0;
    for case in &cases {
        let input = &case["input"];
        let loaded = answers::loaded(input["instance"].as_str().unwrap()).unwrap();
        let mut expected = case["prowjob"].clone();
        let name = expected["metadata"]["name"].as_str().unwrap().to_owned();
        let start = expected["status"]["startTime"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let mut job = make(&loaded.config, input, &name, start);
        let mut found = serde_json::to_value(&job).unwrap();
        answers::without(&mut expected, &[waived::ZERO_TIME]);
        answers::without(&mut found, &[waived::ZERO_TIME]);
        // Pod specs keep fields that upstream's types do not know (JOB-077); this instance has some.
        let unknown: &[&str] = match input["instance"].as_str() {
            Some("kubesphere") => &["priviledged", "securityContext"],
            _ => &[],
        };
        if let Some(difference) = answers::difference_but(&expected, &found, "", unknown) {
            wrong.push(format!(
                "{name} {}: {}",
                input["job"],
                difference.chars().take(500).collect::<String>()
            ));
        } else if unknown.is_empty()
            && go_json::to_string(&expected).unwrap() != go_json::to_string(&found).unwrap()
        {
            let (e, f) = (
                go_json::to_string(&expected).unwrap(),
                go_json::to_string(&found).unwrap(),
            );
            let at = e
                .bytes()
                .zip(f.bytes())
                .take_while(|(a, b)| a == b)
                .count()
                .saturating_sub(60);
            let cut = |text: &str| text.chars().skip(at).take(160).collect::<String>();
            wrong.push(format!(
                "{name} {}: order {} against {}",
                input["job"],
                cut(&e),
                cut(&f)
            ));
        }
        if let Some(link) = case["job_url"].as_str() {
            job.status.build_id = case["build_id"].as_str().unwrap().to_owned();
            links += 1;
            match loaded.config.prow.plank.job_link(&job) {
                Ok(found) if found == link => {}
                found => wrong.push(format!(
                    "{name} {}: link {link}, got {found:?}",
                    input["job"]
                )),
            }
        }
    }
    println!("{} jobs, {links} links", cases.len());
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}
