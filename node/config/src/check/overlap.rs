//! `overlapping-branches` (JOB-076): two jobs of one name or context that run on the same branch. The loader compares
//! branch lists as texts; here every branch that some file names is tried.

use std::collections::{BTreeMap, BTreeSet};

use super::{Warning, of_job};
use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::job::{AnyJob, Brancher, JobBase, Reporter};

/// Branches of a repository that are tried; more are not looked at.
const MAX_BRANCHES: usize = 200;
/// Jobs of one name or context that are compared with each other; more are not looked at.
const MAX_ALIKE: usize = 200;

struct Job<'a> {
    base: &'a JobBase,
    brancher: &'a Brancher,
    reporter: &'a Reporter,
}

pub(super) fn check(config: &Config) -> Vec<Diagnostic> {
    type ByRepo<'a> = BTreeMap<&'a str, Vec<Job<'a>>>;
    let (mut presubmits, mut postsubmits) = (ByRepo::new(), ByRepo::new());
    for (repo, job) in config.all_jobs() {
        let (Some(repo), base) = (repo, job.base()) else {
            continue;
        };
        match job {
            AnyJob::Presubmit(job) => presubmits.entry(repo).or_default().push(Job {
                base,
                brancher: &job.brancher,
                reporter: &job.reporter,
            }),
            AnyJob::Postsubmit(job) => postsubmits.entry(repo).or_default().push(Job {
                base,
                brancher: &job.brancher,
                reporter: &job.reporter,
            }),
            AnyJob::Periodic(_) => {}
        }
    }
    let mut found = Vec::new();
    for jobs in [&presubmits, &postsubmits] {
        for (repo, list) in jobs {
            let of_repo = [presubmits.get(repo), postsubmits.get(repo)];
            let of_repo = of_repo.into_iter().flatten().flatten();
            alike(
                config,
                repo,
                list,
                of_repo.map(|job| job.brancher),
                &mut found,
            );
        }
    }
    found
}

fn alike<'a>(
    config: &'a Config,
    repo: &'a str,
    jobs: &[Job<'a>],
    branchers: impl Iterator<Item = &'a Brancher>,
    found: &mut Vec<Diagnostic>,
) {
    let mut groups: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
    for (n, job) in jobs.iter().enumerate() {
        groups.entry((&job.base.name, true)).or_default().push(n);
        if !job.reporter.skip_report {
            groups
                .entry((&job.reporter.context, false))
                .or_default()
                .push(n);
        }
    }
    groups.retain(|_, group| group.len() > 1);
    if groups.is_empty() {
        return;
    }
    let branches = branches(config, repo, branchers);
    let mut told = BTreeSet::new();
    for ((_, by_name), group) in groups {
        for (at, &n) in group.iter().enumerate().take(MAX_ALIKE) {
            for &m in group[..at].iter() {
                let (job, other) = (&jobs[n], &jobs[m]);
                // A pair that the loader refuses, or that was told of by its name.
                if other.brancher.intersects(job.brancher) || told.contains(&(m, n)) {
                    continue;
                }
                if !by_name && job.base.name == other.base.name {
                    continue;
                }
                let Some(branch) = branches.iter().find(|branch| {
                    job.brancher.should_run(branch) && other.brancher.should_run(branch)
                }) else {
                    continue;
                };
                told.insert((m, n));
                found.push(overlap(job, other, branch, by_name));
            }
        }
    }
}

fn overlap(job: &Job<'_>, other: &Job<'_>, branch: &str, by_name: bool) -> Diagnostic {
    let name = &job.base.name;
    let source = &other.base.source;
    let place = format!("{}:{}", source.file, source.line);
    let message = if by_name {
        format!("two jobs named {name:?} both run on branch {branch:?}; the other is at {place}")
    } else {
        format!(
            "jobs {:?} (at {place}) and {name:?} both run on branch {branch:?} and report to the same context {:?}",
            other.base.name, job.reporter.context
        )
    };
    of_job(job.base, "branches", Warning::OverlappingBranches, message).help(
        "branches are regular expressions that match anywhere in a name: anchor them, as in ^release-1$",
    )
}

/// Branches that the configuration names, as far as they are plain names.
fn branches<'a>(
    config: &'a Config,
    repo: &'a str,
    branchers: impl Iterator<Item = &'a Brancher>,
) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::from(["main", "master"]);
    let lists =
        branchers.flat_map(|brancher| brancher.branches.iter().chain(&brancher.skip_branches));
    let plain = lists.map(|branch| branch.trim_start_matches('^').trim_end_matches('$'));
    known.extend(plain.filter(|branch| is_name(branch)));
    if let Some((org, name)) = repo.split_once('/') {
        for query in config.prow.tide.queries_for(org, name) {
            let named = query
                .included_branches
                .iter()
                .chain(&query.excluded_branches);
            known.extend(named.map(String::as_str));
        }
        let protection = &config.prow.branch_protection;
        let protected = protection.orgs.get(org).and_then(|org| org.repos.get(name));
        known.extend(
            protected
                .into_iter()
                .flat_map(|repo| repo.branches.keys().map(String::as_str)),
        );
    }
    while known.len() > MAX_BRANCHES {
        known.pop_last();
    }
    known
}

/// Whether an expression is a name that it matches. A dot stands for itself in names of branches.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    !text.is_empty() && text.bytes().all(plain) && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, told};

    #[test]
    fn job_076_names_and_contexts_that_meet_on_a_known_branch() {
        let job = |name: &str, rest: &str| {
            format!("  - {{name: {name}, spec: {{containers: [{{image: i}}]}}, {rest}}}\n")
        };
        let check = |config: &str, jobs: &[String]| {
            let text = format!("presubmits:\n  o/r:\n{}", jobs.concat());
            told(
                Files::default()
                    .config(config)
                    .job_file("jobs/a.yaml", &text),
                &["overlapping-branches"],
            )
        };
        let anchored = [
            job("unit", "branches: [^release-1$]"),
            job("unit", "branches: [^release-1.1$]"),
        ];
        assert_eq!(check("", &anchored), "");
        let loose = [
            job("unit", "branches: [release-1]"),
            job("unit", "branches: [release-1.1]"),
        ];
        insta::assert_snapshot!(check("", &loose), @r#"jobs/a.yaml:4:52: presubmits["o/r"][1].branches: two jobs named "unit" both run on branch "release-1.1"; the other is at jobs/a.yaml:3; branches are regular expressions that match anywhere in a name: anchor them, as in ^release-1$"#);
        let contexts = [
            job("one", "context: ci, branches: [main]"),
            job("two", "context: ci, branches: ['^ma']"),
        ];
        insta::assert_snapshot!(check("", &contexts), @r#"jobs/a.yaml:4:64: presubmits["o/r"][1].branches: jobs "one" (at jobs/a.yaml:3) and "two" both run on branch "main" and report to the same context "ci"; branches are regular expressions that match anywhere in a name: anchor them, as in ^release-1$"#);
        let unknown = [
            job("unit", "branches: ['^v1\\d$']"),
            job("unit", "branches: ['^v\\d2$']"),
        ];
        assert_eq!(check("", &unknown), "");
        let protected =
            "branch-protection: {orgs: {o: {repos: {r: {branches: {v12: {protect: true}}}}}}}\n";
        assert!(check(protected, &unknown).contains("both run on branch \"v12\""));
    }
}
