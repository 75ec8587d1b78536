//! Jobs of one repository that get in each other's way: one name twice on a branch, or one context for two names (JOB-030).
//!
//! Upstream compares all with all. A repository may have thousands of jobs of one name, one for each branch: here each is
//! looked up by its branches, and what is compared grows with the jobs and with what is wrong, not with the square.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::validate::Finding;
use super::{Brancher, Postsubmit, Presubmit};

/// Pairs of jobs with one context that are told of a repository: their number grows with the square of its jobs.
const MAX_CLASHES: usize = 1000;
/// Names of branches that are tried on `skip_branches` of jobs with the same context, per repository. Only these are not
/// looked up: a test for each pair of a name and a job.
const MAX_TRIED: usize = 1_000_000;

/// What a job is compared by.
#[derive(Clone, Copy)]
struct Listed<'a> {
    name: &'a str,
    context: &'a str,
    brancher: &'a Brancher,
}

/// JOB-030 for the presubmits of one repository.
pub(crate) fn presubmit_clashes(jobs: &[&Presubmit]) -> Vec<Finding> {
    let jobs = jobs.iter().map(|job| Listed {
        name: &job.base.name,
        context: &job.reporter.context,
        brancher: &job.brancher,
    });
    clashes("presubmit", &jobs.collect::<Vec<_>>()).0
}

/// As [`presubmit_clashes`].
pub(crate) fn postsubmit_clashes(jobs: &[&Postsubmit]) -> Vec<Finding> {
    let jobs = jobs.iter().map(|job| Listed {
        name: &job.base.name,
        context: &job.reporter.context,
        brancher: &job.brancher,
    });
    clashes("postsubmit", &jobs.collect::<Vec<_>>()).0
}

/// How much was compared.
#[derive(Debug, Default)]
struct Work {
    /// Branches that were looked up, and jobs that were found so.
    looked_up: usize,
    /// Branches that were tried on expressions.
    tried: usize,
}

fn clashes(kind: &str, jobs: &[Listed<'_>]) -> (Vec<Finding>, Work) {
    let mut work = Work::default();
    let mut wrong = contexts(jobs, &mut work);
    let doubled = names(jobs, &mut work);
    if let Some(last) = doubled.values().max() {
        let names: Vec<_> = doubled.keys().copied().collect();
        let message = format!(
            "duplicated {kind} jobs (consider both inrepo and central config): [{}]",
            names.join(" ")
        );
        wrong.push(Finding::of(*last, message).in_field("name"));
    }
    (wrong, work)
}

/// Names that two jobs have on one branch, with the first job that has another's.
fn names<'a>(jobs: &[Listed<'a>], work: &mut Work) -> BTreeMap<&'a str, usize> {
    let mut seen: HashMap<&str, Seen<'_>> = HashMap::with_capacity(jobs.len());
    let mut doubled = BTreeMap::new();
    for (n, job) in jobs.iter().enumerate() {
        if !doubled.contains_key(job.name)
            && seen.entry(job.name).or_default().meets(job.brancher, work)
        {
            doubled.insert(job.name, n);
        }
    }
    doubled
}

/// Jobs of one name of which no two meet.
#[derive(Default)]
struct Seen<'a> {
    any: bool,
    everywhere: bool,
    branches: HashSet<&'a str>,
    /// There is no second one: they would meet.
    skipping: Option<&'a Brancher>,
}

impl<'a> Seen<'a> {
    /// Adds a job, unless it meets one of them (JOB-031).
    fn meets(&mut self, job: &'a Brancher, work: &mut Work) -> bool {
        let mut tried = |of: &Brancher, branch: &str| {
            work.tried += 1;
            of.should_run(branch)
        };
        work.looked_up += 1 + job.branches.len();
        let meets = if job.runs_on_all_branches() {
            self.any
        } else if self.everywhere {
            true
        } else if job.branches.is_empty() {
            self.skipping.is_some() || self.branches.iter().any(|branch| tried(job, branch))
        } else {
            let mut branches = job.branches.iter();
            branches.any(|branch| {
                self.branches.contains(branch.as_str())
                    || self.skipping.is_some_and(|other| tried(other, branch))
            })
        };
        self.any = true;
        if job.runs_on_all_branches() {
            self.everywhere = true;
        } else if job.branches.is_empty() {
            self.skipping = Some(job);
        } else {
            self.branches
                .extend(job.branches.iter().map(String::as_str));
        }
        meets
    }
}

/// Pairs of jobs that report to one context from one branch, under two names; both ways, as upstream tells them.
fn contexts(jobs: &[Listed<'_>], work: &mut Work) -> Vec<Finding> {
    let mut by_context: HashMap<&str, OneContext<'_>> = HashMap::with_capacity(jobs.len());
    for (n, job) in jobs.iter().enumerate() {
        let of = by_context.entry(job.context).or_default();
        of.all.add(job.name, n);
    }
    // Almost always there is one name, as the context is the name where nobody says otherwise.
    by_context.retain(|_, of| of.all.0.len() > 1);
    for (n, job) in jobs.iter().enumerate() {
        if let Some(of) = by_context.get_mut(job.context) {
            of.add(n, job);
        }
    }
    let mut wrong = Vec::new();
    for (n, job) in jobs.iter().enumerate() {
        let Some(of) = by_context.get(job.context) else {
            continue;
        };
        let met = of.met_by(jobs, job, work);
        if work.tried > MAX_TRIED {
            let message = format!(
                "the repository's jobs have too many branches to see which of them report to one GitHub context: more than \
                 {MAX_TRIED} would have to be tried on skip_branches of other jobs with the same context; give each of them \
                 a context of its own"
            );
            wrong.push(Finding::of(n, message).in_field("context"));
            break;
        }
        for m in met {
            if wrong.len() == MAX_CLASHES {
                let message = format!(
                    "more than {MAX_CLASHES} jobs report to a GitHub context of another one; the rest is not told"
                );
                wrong.push(Finding::of(n, message).in_field("context"));
                return wrong;
            }
            let message = format!(
                "jobs {} and {} report to the same GitHub context {:?}",
                jobs[m].name, job.name, job.context
            );
            wrong.push(Finding::of(n, message).in_field("context"));
        }
    }
    wrong
}

/// Positions of jobs by their names.
#[derive(Default)]
struct ByName<'a>(BTreeMap<&'a str, Vec<usize>>);

impl<'a> ByName<'a> {
    fn add(&mut self, name: &'a str, n: usize) {
        self.0.entry(name).or_default().push(n);
    }

    fn others(&self, name: &str) -> impl Iterator<Item = usize> {
        let others = self.0.iter().filter(move |(other, _)| **other != name);
        others.flat_map(|(_, jobs)| jobs.iter().copied())
    }
}

/// The jobs of one context.
#[derive(Default)]
struct OneContext<'a> {
    all: ByName<'a>,
    everywhere: ByName<'a>,
    branches: HashMap<&'a str, ByName<'a>>,
    skipping: ByName<'a>,
}

impl<'a> OneContext<'a> {
    fn add(&mut self, n: usize, job: &Listed<'a>) {
        if job.brancher.runs_on_all_branches() {
            self.everywhere.add(job.name, n);
        } else if job.brancher.branches.is_empty() {
            self.skipping.add(job.name, n);
        }
        let branches: BTreeSet<_> = job.brancher.branches.iter().map(String::as_str).collect();
        for branch in branches {
            self.branches.entry(branch).or_default().add(job.name, n);
        }
    }

    /// Those of another name that the job meets (JOB-031), in their order.
    fn met_by(&self, jobs: &[Listed<'_>], job: &Listed<'_>, work: &mut Work) -> BTreeSet<usize> {
        let brancher = job.brancher;
        if brancher.runs_on_all_branches() {
            let met: BTreeSet<usize> = self.all.others(job.name).collect();
            work.looked_up += met.len();
            return met;
        }
        let mut met: BTreeSet<usize> = self.everywhere.others(job.name).collect();
        if brancher.branches.is_empty() {
            met.extend(self.skipping.others(job.name));
            for (branch, listing) in &self.branches {
                work.tried += 1;
                if brancher.should_run(branch) {
                    met.extend(listing.others(job.name));
                }
            }
        }
        for branch in &brancher.branches {
            met.extend(
                self.branches
                    .get(branch.as_str())
                    .into_iter()
                    .flat_map(|listing| listing.others(job.name)),
            );
            for m in self.skipping.others(job.name) {
                if work.tried > MAX_TRIED {
                    break;
                }
                work.tried += 1;
                if jobs[m].brancher.should_run(branch) {
                    met.insert(m);
                }
            }
        }
        work.looked_up += met.len() + brancher.branches.len();
        met
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::Shared;

    /// Name, context, branches and what is skipped.
    type Written = (String, String, Vec<String>, Vec<String>);

    fn brancher(branches: &[String], skip: &[String]) -> Brancher {
        let mut brancher = Brancher {
            branches: branches.to_vec(),
            skip_branches: skip.to_vec(),
            ..Brancher::default()
        };
        brancher.compile("job", &Shared::default()).unwrap();
        brancher
    }

    fn told(jobs: &[Written]) -> (Vec<(usize, String)>, Work) {
        let branchers: Vec<_> = jobs.iter().map(|job| brancher(&job.2, &job.3)).collect();
        let listed: Vec<_> = (jobs.iter().zip(&branchers))
            .map(|((name, context, ..), brancher)| Listed {
                name,
                context,
                brancher,
            })
            .collect();
        let (found, work) = clashes("presubmit", &listed);
        let found = found.into_iter().map(|found| (found.index, found.message));
        (found.collect(), work)
    }

    /// Upstream's loops, all with all.
    fn all_with_all(jobs: &[Written]) -> Vec<String> {
        let branchers: Vec<_> = jobs.iter().map(|job| brancher(&job.2, &job.3)).collect();
        let mut wrong = Vec::new();
        let mut doubled = BTreeSet::new();
        for (n, (name, context, ..)) in jobs.iter().enumerate() {
            for (m, (other, of, ..)) in jobs.iter().enumerate() {
                if !branchers[m].intersects(&branchers[n]) {
                    continue;
                }
                if m < n && other == name {
                    doubled.insert(name.as_str());
                }
                if other != name && of == context {
                    wrong.push(format!(
                        "jobs {other} and {name} report to the same GitHub context {context:?}"
                    ));
                }
            }
        }
        if !doubled.is_empty() {
            let names: Vec<_> = doubled.into_iter().collect();
            wrong.push(format!(
                "duplicated presubmit jobs (consider both inrepo and central config): [{}]",
                names.join(" ")
            ));
        }
        wrong
    }

    proptest! {
        /// JOB-030, JOB-031.
        #[test]
        fn job_030_what_is_looked_up_is_what_comparing_all_finds(jobs in prop::collection::vec((
            "[ab]", "[cd]",
            prop::collection::vec("m(ain)?|r[12]|\\^r|r\\\\\\.1", 0..3),
            prop::collection::vec("m|r|r1", 0..2),
        ), 0..12)) {
            let (told, _) = told(&jobs);
            let told: Vec<_> = told.into_iter().map(|(_, message)| message).collect();
            prop_assert_eq!(told, all_with_all(&jobs));
        }
    }

    #[test]
    fn job_030_what_is_compared_grows_with_the_jobs() {
        const JOBS: usize = 10_000;
        let jobs = |job: &dyn Fn(usize) -> Written| (0..JOBS).map(job).collect::<Vec<_>>();
        let one = |text: String| vec![text];
        let job = |name: &str, context: &str, branches, skip| {
            (name.to_owned(), context.to_owned(), branches, skip)
        };
        let cases = [
            // A job of one name for each branch, and the same with a context for all.
            jobs(&|n| job("a", "a", one(format!("b{n}")), vec![])),
            jobs(&|n| job(&format!("a{}", n % 2), "c", one(format!("b{n}")), vec![])),
            jobs(&|n| job(&format!("a{n}"), "c", one(format!("b{n}")), vec![])),
            // What clashes with all is told once, or as often as is told at all.
            jobs(&|_| job("a", "a", vec![], vec![])),
            jobs(&|n| job(&format!("a{n}"), "c", vec![], vec![])),
            jobs(&|n| job("a", "a", vec![], one(format!("b{n}")))),
            jobs(&|n| job(&format!("a{}", n % 2), "c", one("b".to_owned()), vec![])),
        ];
        for (case, jobs) in cases.iter().enumerate() {
            let (found, work) = told(jobs);
            assert!(found.len() <= MAX_CLASHES + 2, "{case}");
            assert!(
                work.looked_up <= 5 * JOBS && work.tried <= JOBS,
                "{case}: {work:?}"
            );
        }
        // Branches that others skip are tried on each of them, up to a bound.
        let jobs = jobs(&|n| match n % 2 {
            0 => job("a", "c", one(format!("b{n}")), vec![]),
            _ => job("s", "c", vec![], vec!["b".to_owned(), format!("x{n}")]),
        });
        let (found, work) = told(&jobs);
        assert!(work.tried <= MAX_TRIED + JOBS, "{work:?}");
        assert!(
            found
                .iter()
                .any(|(_, message)| message.contains("would have to be tried")),
            "{found:?}"
        );
    }
}
