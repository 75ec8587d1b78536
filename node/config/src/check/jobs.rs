//! Warnings about single jobs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Warning, of_job};
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Severity};
use crate::job::validate::{clone_uri_problem, has_containers};
use crate::job::{AnyJob, DEFAULT_CLUSTER, JobBase};
use crate::suggest;

/// Names of kubernetes jobs become values of labels.
const MAX_NAME: usize = 63;
const KUBERNETES: &str = "kubernetes";
/// What plank says of a cluster that it can use.
const REACHABLE: &str = "Reachable";

/// A job, and the repository whose list it stands in.
type Listed<'a> = (Option<&'a str>, AnyJob<'a>);

fn all<'a>(
    config: &'a Config,
    check: impl Fn(Listed<'a>) -> Option<Diagnostic>,
) -> Vec<Diagnostic> {
    config.all_jobs().filter_map(check).collect()
}

fn is_decorated(job: &JobBase) -> bool {
    job.utility.decorate == Some(true)
}

/// `non-decorated-jobs`.
pub(super) fn non_decorated(config: &Config) -> Vec<Diagnostic> {
    all(config, |(_, job)| {
        let job = job.base();
        (job.agent == KUBERNETES && !is_decorated(job)).then(|| {
            let message = format!(
                "the following jobs use the kubernetes provider but do not use the pod utilities: [{}]",
                job.name
            );
            of_job(job, "decorate", Warning::NonDecoratedJobs, message)
                .help("set decorate: true, or decorate_all_jobs in the main file")
        })
    })
}

/// `valid-decoration-config`.
pub(super) fn decoration(config: &Config) -> Vec<Diagnostic> {
    all(config, |(_, job)| {
        let job = job.base();
        let decoration = job
            .decoration()
            .filter(|_| job.agent == KUBERNETES && is_decorated(job))?;
        let why = decoration.validate().err()?;
        Some(of_job(
            job,
            "decoration_config",
            Warning::ValidDecorationConfig,
            why.to_string(),
        ))
    })
}

/// `long-job-names`.
pub(super) fn long_names(config: &Config) -> Vec<Diagnostic> {
    all(config, |(repo, job)| {
        let kind = match job {
            AnyJob::Presubmit(_) => "Presubmit",
            AnyJob::Postsubmit(_) => "Postsubmit",
            AnyJob::Periodic(_) => "Periodic",
        };
        let job = job.base();
        (job.agent == KUBERNETES && job.name.len() > MAX_NAME).then(|| {
            let of_repo = repo.map_or_else(String::new, |repo| format!(" (for repo {repo:?})"));
            let message = format!(
                "name of {kind} job {:?}{of_repo} too long (should be at most {MAX_NAME} characters)",
                job.name
            );
            of_job(job, "name", Warning::LongJobNames, message)
                .help(format!("it has {} characters", job.name.len()))
        })
    })
}

/// `duplicate-job-refs`.
pub(super) fn duplicate_refs(config: &Config) -> Vec<Diagnostic> {
    all(config, |(repo, job)| {
        let (Some(repo), AnyJob::Presubmit(job)) = (repo, job) else {
            return None;
        };
        let mut seen = BTreeSet::from([repo.to_owned()]);
        let extra = job.base.utility.extra_refs.iter();
        let doubled: BTreeSet<String> = extra
            .map(|refs| format!("{}/{}", refs.org, refs.repo))
            .filter(|name| !seen.insert(name.clone()))
            .collect();
        (!doubled.is_empty()).then(|| {
            let doubled: Vec<_> = doubled.into_iter().collect();
            let message = format!(
                "invalid job {} on repo {repo}: the following refs specified more than once: {}",
                job.base.name,
                doubled.join(",")
            );
            of_job(&job.base, "extra_refs", Warning::DuplicateJobRefs, message)
        })
    })
}

/// `periodic-default-clone-config`.
pub(super) fn periodic_clone(config: &Config) -> Vec<Diagnostic> {
    all(config, |(_, job)| {
        let AnyJob::Periodic(job) = job else {
            return None;
        };
        let utility = &job.base.utility;
        let field = if utility.clone_depth != 0 {
            "clone_depth"
        } else if !utility.clone_uri.is_empty() {
            "clone_uri"
        } else if !utility.path_alias.is_empty() {
            "path_alias"
        } else {
            return None;
        };
        let message = format!(
            "periodic jobs might clone 0, 1, or more repos, top level `clone_depth`, `clone_uri`, and `path_alias` don't \
             have any effect. Name: {:?}",
            job.base.name
        );
        Some(
            of_job(
                &job.base,
                field,
                Warning::PeriodicDefaultCloneConfig,
                message,
            )
            .help("set it in extra_refs"),
        )
    })
}

/// `required-job-annotations`.
pub(super) fn annotations(config: &Config, required: &[String]) -> Vec<Diagnostic> {
    if required.is_empty() {
        return Vec::new();
    }
    all(config, |(_, job)| {
        let job = job.base();
        let missing: Vec<_> = required
            .iter()
            .filter(|name| !job.annotations.contains_key(*name))
            .map(String::as_str)
            .collect();
        // Upstream puts several into brackets.
        let list = match missing[..] {
            [] => return None,
            [one] => one.to_owned(),
            _ => format!("[{}]", missing.join(", ")),
        };
        let message = format!("job '{}' is missing required annotations: {list}", job.name);
        Some(of_job(
            job,
            "annotations",
            Warning::RequiredJobAnnotations,
            message,
        ))
    })
}

/// `validate-cluster-field`; `statuses` are the build clusters that plank wrote down, by alias. A cluster that it cannot
/// reach is a note.
pub(super) fn cluster(
    config: &Config,
    statuses: Option<&BTreeMap<String, String>>,
) -> Vec<Diagnostic> {
    const RULE: Warning = Warning::ValidateClusterField;
    all(config, |(repo, job)| {
        let job = job.base();
        let place = repo.unwrap_or("invalid periodic job");
        let cluster = &job.cluster;
        if !cluster.is_empty() && cluster != DEFAULT_CLUSTER && job.agent == "jenkins" {
            let message = format!(
                "{place}: {}: cannot set cluster field if agent is {}",
                job.name, job.agent
            );
            return Some(of_job(job, "cluster", RULE, message));
        }
        let statuses = statuses?;
        let Some(status) = statuses.get(cluster) else {
            let message = format!(
                "{place}: job configuration for {:?} specifies unknown 'cluster' value {cluster:?}",
                job.name
            );
            let help = suggest::did_you_mean(cluster, statuses.keys().map(String::as_str));
            return Some(of_job(job, "cluster", RULE, message).help(help));
        };
        (status != REACHABLE).then(|| {
            let message = format!(
                "Job configuration for {:?} specifies cluster {cluster:?} which cannot be reached from Plank. Status: {status:?}",
                job.name
            );
            Diagnostic {
                severity: Severity::Note,
                ..of_job(job, "cluster", RULE, message)
            }
        })
    })
}

/// CFG-114; upstream looks whatever warnings are asked for.
pub(super) fn rerun_command_problem(
    config: &Config,
    job: &crate::job::Presubmit,
) -> Option<String> {
    let gerrit = &config.prow.gerrit;
    let allowed = gerrit.allowed_presubmit_trigger.as_ref()?;
    (!allowed.is_match(&job.rerun_command)).then(|| {
        format!(
            "rerun command {} in job {} does not conform to test command requirements,please make sure the trigger regex is \
             a subset of {} and the rerun command matches the trigger regex",
            job.rerun_command, job.base.name, gerrit.allowed_presubmit_trigger_re
        )
    })
}

/// JOB-041: each extra ref for itself, also where the job has no URI of its own.
pub(super) fn extra_refs(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (_, job) in config.all_jobs() {
        let job = job.base();
        let oauth = job
            .decoration()
            .is_some_and(|d| d.oauth_token_secret.is_some());
        for (n, refs) in job.utility.extra_refs.iter().enumerate() {
            if refs.clone_uri.is_empty() {
                continue;
            }
            if let Some(why) = clone_uri_problem(&refs.clone_uri, oauth) {
                let message = format!("job {}: extra_ref[{n}]: {why}", job.name);
                let field = format!("extra_refs[{n}].clone_uri");
                found.push(of_job(job, &field, Warning::ExtraRefsCloneUri, message));
            }
        }
    }
    found
}

/// Agents that run jobs. Others are taken, with a line in a log that nobody reads.
const AGENTS: [&str; 3] = [KUBERNETES, "jenkins", "tekton-pipeline"];

/// `unknown-agent`.
pub(super) fn agents(config: &Config) -> Vec<Diagnostic> {
    all(config, |(_, job)| {
        let job = job.base();
        (!AGENTS.contains(&job.agent.as_str())).then(|| {
            let message = format!(
                "job {}: nobody runs jobs of agent {:?}",
                job.name, job.agent
            );
            of_job(job, "agent", Warning::UnknownAgent, message)
                .help(suggest::did_you_mean(&job.agent, AGENTS))
        })
    })
}

/// States that jobs have.
const STATES: [&str; 7] = [
    "scheduling",
    "triggered",
    "pending",
    "success",
    "failure",
    "aborted",
    "error",
];

/// What somebody who wrote a state that no job has should know; none if it is one.
pub(super) fn unknown_state(state: &str) -> Option<(String, String)> {
    (!STATES.contains(&state)).then(|| {
        let message = format!("no job is ever in state {state:?}");
        let meant = suggest::closest(state, STATES).map_or_else(
            || format!("states are {}", STATES.join(", ")),
            |state| format!("did you mean {state:?}?"),
        );
        (message, meant)
    })
}

/// `unknown-state`, as jobs have it.
pub(super) fn states(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (_, job) in config.all_jobs() {
        let job = job.base();
        let slack = job
            .reporter_config
            .as_ref()
            .and_then(|reporter| reporter.slack.as_ref());
        let states = slack.and_then(|slack| slack.job_states_to_report.as_ref());
        for (n, state) in states.into_iter().flatten().enumerate() {
            if let Some((message, help)) = unknown_state(state) {
                let field = format!("reporter_config.slack.job_states_to_report[{n}]");
                let message = format!("job {}: {message}", job.name);
                found.push(of_job(job, &field, Warning::UnknownState, message).help(help));
            }
        }
    }
    found
}

/// JOB-041: what the loader checks in jobs with a pod only.
pub(super) fn podless(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (_, job) in config.all_jobs() {
        let job = job.base();
        if has_containers(job) {
            continue;
        }
        let mut add = |field: &str, why: String| {
            let message = format!("job {}: {why}", job.name);
            found.push(of_job(job, field, Warning::PodlessJobs, message));
        };
        if let Some(Err(why)) = job.rerun_auth_config.as_ref().map(|auth| auth.validate()) {
            add("rerun_auth_config", why.to_string());
        }
        let uri = &job.utility.clone_uri;
        let oauth = job
            .decoration()
            .is_some_and(|d| d.oauth_token_secret.is_some());
        if !uri.is_empty()
            && let Some(why) = clone_uri_problem(uri, oauth)
        {
            add("clone_uri", why);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, told};

    fn check(jobs: &str, warnings: &[&str]) -> String {
        told(Files::default().job_file("jobs/a.yaml", jobs), warnings)
    }

    #[test]
    fn cfg_115_non_decorated_jobs() {
        let text = "presubmits:\n  o/r:\n  - name: bare\n    spec: {containers: [{image: i}]}\n  - name: foreign\n    agent: jenkins\nperiodics:\n- name: nightly\n  interval: 1h\n  decorate: false\n  spec: {containers: [{image: i}]}\n";
        insta::assert_snapshot!(check(text, &["non-decorated-jobs"]), @r#"
        jobs/a.yaml:3:5: presubmits["o/r"][0].decorate: the following jobs use the kubernetes provider but do not use the pod utilities: [bare]; set decorate: true, or decorate_all_jobs in the main file
        jobs/a.yaml:10:13: periodics[0].decorate: the following jobs use the kubernetes provider but do not use the pod utilities: [nightly]; set decorate: true, or decorate_all_jobs in the main file
        "#);
    }

    #[test]
    fn cfg_115_long_job_names() {
        let name = "x".repeat(63);
        let text = format!(
            "postsubmits:\n  o/r:\n  - name: {name}\n    spec: {{containers: [{{image: i}}]}}\n  - name: {name}y\n    spec: {{containers: [{{image: i}}]}}\n  - name: {name}z\n    agent: jenkins\nperiodics:\n- {{name: p{name}, interval: 1h, spec: {{containers: [{{image: i}}]}}}}\n"
        );
        insta::assert_snapshot!(check(&text, &["long-job-names"]), @r#"
        jobs/a.yaml:5:11: postsubmits["o/r"][1].name: name of Postsubmit job "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy" (for repo "o/r") too long (should be at most 63 characters); it has 64 characters
        jobs/a.yaml:10:10: periodics[0].name: name of Periodic job "pxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" too long (should be at most 63 characters); it has 64 characters
        "#);
    }

    #[test]
    fn cfg_115_duplicate_job_refs() {
        let spec = "spec: {containers: [{image: i}]}";
        let text = format!(
            "presubmits:\n  o/r:\n  - name: a\n    {spec}\n    extra_refs: [{{org: o, repo: r}}, {{org: o, repo: x}}, {{org: o, repo: x}}]\n  - name: b\n    {spec}\n    extra_refs: [{{org: o, repo: x}}]\npostsubmits:\n  o/r:\n  - name: c\n    {spec}\n    extra_refs: [{{org: o, repo: r}}]\n"
        );
        insta::assert_snapshot!(check(&text, &["duplicate-job-refs"]), @r#"jobs/a.yaml:5:5: presubmits["o/r"][0].extra_refs: invalid job a on repo o/r: the following refs specified more than once: o/r,o/x"#);
    }

    #[test]
    fn cfg_115_periodic_default_clone_config() {
        let text = "periodics:\n- {name: a, interval: 1h, clone_depth: 1, spec: {containers: [{image: i}]}}\n- {name: b, interval: 1h, path_alias: x, spec: {containers: [{image: i}]}}\n- {name: c, interval: 1h, extra_refs: [{org: o, repo: r, clone_depth: 1}], spec: {containers: [{image: i}]}}\n";
        insta::assert_snapshot!(check(text, &["periodic-default-clone-config"]), @r#"
        jobs/a.yaml:2:40: periodics[0].clone_depth: periodic jobs might clone 0, 1, or more repos, top level `clone_depth`, `clone_uri`, and `path_alias` don't have any effect. Name: "a"; set it in extra_refs
        jobs/a.yaml:3:39: periodics[1].path_alias: periodic jobs might clone 0, 1, or more repos, top level `clone_depth`, `clone_uri`, and `path_alias` don't have any effect. Name: "b"; set it in extra_refs
        "#);
    }

    #[test]
    fn cfg_115_required_job_annotations() {
        let text = "periodics:\n- {name: a, interval: 1h, annotations: {x: v}, spec: {containers: [{image: i}]}}\n- {name: b, interval: 1h, spec: {containers: [{image: i}]}}\n";
        let files = || Files::default().job_file("jobs/a.yaml", text);
        assert_eq!(told(files(), &["required-job-annotations"]), "");
        insta::assert_snapshot!(told(files().annotations(&["x", "owner"]), &["required-job-annotations"]), @r"
        jobs/a.yaml:2:27: periodics[0].annotations: job 'a' is missing required annotations: owner
        jobs/a.yaml:3:3: periodics[1].annotations: job 'b' is missing required annotations: [x, owner]
        ");
    }

    /// The cases are upstream's.
    #[test]
    fn cfg_115_validate_cluster_field() {
        let jenkins = |cluster: &str| {
            format!(
                "presubmits:\n  o/r:\n  - {{name: some-job, agent: jenkins, cluster: {cluster}}}\n"
            )
        };
        assert_eq!(check(&jenkins("''"), &["validate-cluster-field"]), "");
        assert_eq!(check(&jenkins("default"), &["validate-cluster-field"]), "");
        insta::assert_snapshot!(check(&jenkins("build1"), &["validate-cluster-field"]), @r#"jobs/a.yaml:3:47: presubmits["o/r"][0].cluster: o/r: some-job: cannot set cluster field if agent is jenkins"#);
        let kubernetes = |cluster: &str| {
            let text = format!(
                "presubmits:\n  o/r:\n  - {{name: my-job, cluster: {cluster}, spec: {{containers: [{{image: i}}]}}}}\n"
            );
            let statuses = [
                ("default", "Reachable"),
                ("build1", "Reachable"),
                ("build2", "Error"),
            ];
            told(
                Files::default()
                    .job_file("jobs/a.yaml", &text)
                    .clusters(&statuses),
                &["validate-cluster-field"],
            )
        };
        assert_eq!(kubernetes("build1"), "");
        assert_eq!(kubernetes("default"), "");
        insta::assert_snapshot!(kubernetes("build3"), @r#"jobs/a.yaml:3:29: presubmits["o/r"][0].cluster: o/r: job configuration for "my-job" specifies unknown 'cluster' value "build3"; did you mean "build1"?"#);
        insta::assert_snapshot!(kubernetes("build2"), @r#"note: jobs/a.yaml:3:29: presubmits["o/r"][0].cluster: Job configuration for "my-job" specifies cluster "build2" which cannot be reached from Plank. Status: "Error""#);
    }

    #[test]
    fn cfg_115_valid_decoration_config() {
        let text = "presubmits:\n  o/r:\n  - name: a\n    decorate: true\n    spec: {containers: [{image: i, command: [x]}]}\n";
        // The loader refuses such a job with containers, so that the warning never comes alone; as upstream's.
        let all = check(text, &["valid-decoration-config"]);
        assert!(all.contains("invalid decoration config: "), "{all}");
        assert_eq!(all.lines().count(), 1, "{all}");
    }

    #[test]
    fn cfg_114_rerun_commands_that_gerrit_does_not_allow() {
        let config = "gerrit: {allowed_presubmit_trigger_re: '^/(test|retest)'}\n";
        let text = "presubmits:\n  o/r:\n  - name: a\n    spec: {containers: [{image: i}]}\n  - name: b\n    trigger: /check b\n    rerun_command: /check b\n    spec: {containers: [{image: i}]}\n";
        let files = Files::default()
            .config(config)
            .job_file("jobs/a.yaml", text);
        insta::assert_snapshot!(told(files, &["long-job-names"]), @r#"jobs/a.yaml:7:20: presubmits["o/r"][1].rerun_command: rerun command /check b in job b does not conform to test command requirements,please make sure the trigger regex is a subset of ^/(test|retest) and the rerun command matches the trigger regex"#);
    }

    #[test]
    fn agents_and_states_that_there_are_not() {
        let text = "periodics:\n- name: a\n  agent: kuberntes\n  interval: 1h\n- name: b\n  interval: 1h\n  spec: {containers: [{image: i}]}\n  reporter_config: {slack: {job_states_to_report: [failed, success, odd]}}\n";
        let files = Files::default()
            .config("slack_reporter_configs: {'*': {channel: c, job_states_to_report: [failure, errors]}}\n")
            .job_file("jobs/a.yaml", text);
        insta::assert_snapshot!(told(files, &["unknown-agent", "unknown-state"]), @r#"
        config.yaml:1:44: slack_reporter_configs["*"].job_states_to_report: no job is ever in state "errors"; did you mean "error"?
        jobs/a.yaml:3:10: periodics[0].agent: job a: nobody runs jobs of agent "kuberntes"; did you mean "kubernetes"?
        jobs/a.yaml:8:52: periodics[1].reporter_config.slack.job_states_to_report[0]: job b: no job is ever in state "failed"; states are scheduling, triggered, pending, success, failure, aborted, error
        jobs/a.yaml:8:69: periodics[1].reporter_config.slack.job_states_to_report[2]: job b: no job is ever in state "odd"; states are scheduling, triggered, pending, success, failure, aborted, error
        "#);
    }

    #[test]
    fn job_041_each_bad_clone_uri_of_extra_refs() {
        let text = "periodics:\n- name: a\n  interval: 1h\n  spec: {containers: [{image: i}]}\n  extra_refs:\n  - {org: o, repo: r, clone_uri: 'https://x/%zz'}\n  - {org: o, repo: s, clone_uri: 'https://x/y'}\n  - {org: o, repo: t, clone_uri: '://x'}\n";
        insta::assert_snapshot!(check(text, &["extra-refs-clone-uri"]), @r#"
        jobs/a.yaml:6:34: periodics[0].extra_refs[0].clone_uri: job a: extra_ref[0]: couldn't parse uri from clone_uri: parse "https://x/%zz": invalid URL escape "%zz"
        jobs/a.yaml:8:34: periodics[0].extra_refs[2].clone_uri: job a: extra_ref[2]: couldn't parse uri from clone_uri: parse "://x": missing protocol scheme
        "#);
    }

    #[test]
    fn job_041_jobs_without_a_pod_are_checked_too() {
        let text = "presubmits:\n  o/r:\n  - name: a\n    agent: jenkins\n    clone_uri: '://x'\n    rerun_auth_config: {allow_anyone: true, github_users: [u]}\n";
        insta::assert_snapshot!(check(text, &["podless-jobs"]), @r#"
        jobs/a.yaml:5:16: presubmits["o/r"][0].clone_uri: job a: couldn't parse uri from clone_uri: parse "://x": missing protocol scheme
        jobs/a.yaml:6:5: presubmits["o/r"][0].rerun_auth_config: job a: allow anyone is set to true and permitted users or groups are specified
        "#);
    }
}
