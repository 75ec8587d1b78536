//! `overlapping-branches` (JOB-076): two jobs of one name or context that run on the same branch. The loader compares
//! branch lists as texts; here every branch that some file names is tried.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Warning, of_job};
use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::go_regex::GoRegex;
use crate::job::{AnyJob, Brancher, JobBase, Reporter};

/// Branches of a repository that are tried; more are not looked at.
const MAX_BRANCHES: usize = 200;
/// Jobs of one name or context that run on a branch, with rules of their own, with which a later one is compared.
const MAX_COMPARED: usize = 20;

struct Job<'a> {
    base: &'a JobBase,
    brancher: &'a Brancher,
    reporter: &'a Reporter,
}

impl<'a> Job<'a> {
    fn rules(&self) -> Rules<'a> {
        (&self.brancher.branches, &self.brancher.skip_branches)
    }
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

/// How much was compared.
#[derive(Debug, Default)]
struct Work {
    /// Branches that were tried on the rules of a job.
    tried: usize,
    /// Pairs of jobs.
    compared: usize,
}

/// What decides on which branches a job runs.
type Rules<'a> = (&'a [String], &'a [String]);

/// Each job is told of once, with the first that it meets: pairs would be as many as the square of the jobs.
fn alike<'a>(
    config: &'a Config,
    repo: &'a str,
    jobs: &[Job<'a>],
    branchers: impl Iterator<Item = &'a Brancher>,
    found: &mut Vec<Diagnostic>,
) -> Work {
    let mut work = Work::default();
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
        return work;
    }
    let branches = branches(config, repo, branchers);
    // By their rules: the branches, by position, on which such a job runs.
    let mut runs: HashMap<Rules<'a>, Vec<usize>> = HashMap::new();
    for ((_, by_name), group) in groups {
        let mut earlier: Vec<Vec<usize>> = vec![Vec::new(); branches.len()];
        for n in group {
            let job = &jobs[n];
            let on = &*runs.entry(job.rules()).or_insert_with(|| {
                work.tried += branches.len();
                let all = branches.iter().enumerate();
                let on = all.filter(|(_, branch)| job.brancher.should_run(branch));
                on.map(|(at, _)| at).collect()
            });
            let met = on.iter().find_map(|at| {
                let met = earlier[*at].iter().find(|m| {
                    let other = &jobs[**m];
                    work.compared += 1;
                    (by_name || job.base.name != other.base.name)
                        // A pair that the loader refuses.
                        && !other.brancher.intersects(job.brancher)
                });
                met.map(|m| (&jobs[*m], &branches[*at]))
            });
            if let Some((other, branch)) = met {
                found.push(overlap(job, other, branch, by_name));
            }
            for at in on {
                let earlier = &mut earlier[*at];
                let alike = |m: &usize| {
                    let other = &jobs[*m];
                    other.rules() == job.rules() && (by_name || other.base.name == job.base.name)
                };
                if earlier.len() < MAX_COMPARED && !earlier.iter().any(alike) {
                    earlier.push(n);
                }
            }
        }
    }
    work
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

/// Branches that the configuration names. Those that are surely there come first.
fn branches<'a>(
    config: &'a Config,
    repo: &'a str,
    branchers: impl Iterator<Item = &'a Brancher>,
) -> Vec<String> {
    let mut known = BTreeSet::from(["main".to_owned(), "master".to_owned()]);
    let mut add = |branch: String| {
        if known.len() < MAX_BRANCHES {
            known.insert(branch);
        }
        known.len() < MAX_BRANCHES
    };
    if let Some((org, name)) = repo.split_once('/') {
        let protection = &config.prow.branch_protection;
        let protected = protection.orgs.get(org).and_then(|org| org.repos.get(name));
        let protected = protected.into_iter().flat_map(|repo| repo.branches.keys());
        let queries = config.prow.tide.queries_for(org, name);
        let named = queries.into_iter().flat_map(|query| {
            let included = query.included_branches.iter();
            included.chain(&query.excluded_branches)
        });
        let _ = protected.chain(named).cloned().all(&mut add);
    }
    let listed = branchers.flat_map(|of| of.branches.iter().chain(&of.skip_branches));
    let listed: BTreeSet<&String> = listed.collect();
    let _ = listed.into_iter().flat_map(|of| texts(of)).all(&mut add);
    known.into_iter().collect()
}

/// The names of branches that an expression says: `release-1.1` where `release-1.1` or `^release-1\.1$` is written.
fn texts(expression: &str) -> Vec<String> {
    let plain = expression.trim_start_matches('^').trim_end_matches('$');
    if is_name(plain) {
        return vec![plain.to_owned()];
    }
    // What is none was refused by the loader.
    let texts = GoRegex::new(expression).map(|of| of.texts());
    let mut texts = texts.unwrap_or_default();
    texts.retain(|text| is_name(text));
    texts
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    !text.is_empty() && text.bytes().all(plain) && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, told};
    use super::*;
    use crate::job::Shared;

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

    #[test]
    fn job_076_names_that_are_escaped_or_put_together_are_names_too() {
        let check = |one: &str, other: &str| {
            let job = |branches: &str| {
                format!(
                    "  - {{name: unit, spec: {{containers: [{{image: i}}]}}, branches: ['{branches}']}}\n"
                )
            };
            let text = format!("presubmits:\n  o/r:\n{}{}", job(one), job(other));
            let found = told(
                Files::default().job_file("jobs/a.yaml", &text),
                &["overlapping-branches"],
            );
            found
                .split_once("both run on branch ")
                .map(|(_, rest)| rest.split('"').nth(1).unwrap_or_default().to_owned())
        };
        let on = |branch: &str| Some(branch.to_owned());
        assert_eq!(check(r"release\.1", "release.1"), on("release.1"));
        assert_eq!(
            check(r"^release-4\.1$", r"^release-4\.1"),
            on("release-4.1")
        );
        assert_eq!(check(r"^release-4\.1$", r"^release-4\.10$"), None);
        assert_eq!(
            check(r"release-4\.1", r"^release-4\.10$"),
            on("release-4.10")
        );
        assert_eq!(check(r"^v1\.(2|3)$", r"^v(1.3|4)$"), on("v1.3"));
        assert_eq!(check("^v[12]$", "^v[23]$"), on("v2"));
        assert_eq!(check("(?i)^dev$", "^DEV$"), on("DEV"));
        assert_eq!(check("^v[12]$", "^v[34]$"), None);
        assert_eq!(check(r"^\d+-x$", r"^\d+-y$"), None);
    }

    #[test]
    fn job_076_what_is_compared_grows_with_the_jobs() {
        const JOBS: usize = 1000;
        for branch in [
            |n: usize| format!(r"^release\.{n}$"),
            |n: usize| format!("main|x{n}"),
            |_: usize| "main".to_owned(),
        ] {
            let all: Vec<_> = (0..JOBS)
                .map(|n| {
                    let mut brancher = Brancher {
                        branches: vec![branch(n)],
                        ..Brancher::default()
                    };
                    brancher.compile("unit", &Shared::default()).unwrap();
                    brancher
                })
                .collect();
            let base = JobBase {
                name: "unit".to_owned(),
                ..JobBase::default()
            };
            let reporter = Reporter {
                skip_report: true,
                ..Reporter::default()
            };
            let jobs: Vec<_> = (all.iter())
                .map(|brancher| Job {
                    base: &base,
                    brancher,
                    reporter: &reporter,
                })
                .collect();
            let mut found = Vec::new();
            let work = alike(&Config::default(), "o/r", &jobs, all.iter(), &mut found);
            assert!(found.len() < JOBS);
            assert!(work.tried <= JOBS * MAX_BRANCHES, "{work:?}");
            assert!(work.compared <= JOBS * MAX_COMPARED, "{work:?}");
        }
    }
}
