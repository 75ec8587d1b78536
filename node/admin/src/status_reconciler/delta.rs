//! What a newer configuration means for the open pull requests of one repository: a pure comparison of presubmits.
//!
//! Jobs are compared by name on the branch that a pull request is based on, where a name stands for one job (ADM-100): a job
//! that is taken off some branches is gone there and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trireme_config::{Config, JobList, job::Presubmit};
use trireme_forge::RepoId;

/// The presubmits of one repository in two versions.
#[derive(Debug, Clone)]
pub(super) struct RepoDelta {
    before: JobList<Presubmit>,
    after: JobList<Presubmit>,
}

/// What it means for pull requests to one branch.
#[derive(Debug, Default)]
pub(super) struct BranchDelta<'a> {
    pub(super) added: Vec<Added<'a>>,
    /// Contexts that nothing reports any more.
    pub(super) retired: BTreeSet<&'a str>,
    /// Contexts that another took the place of.
    pub(super) moved: BTreeMap<&'a str, &'a str>,
}

/// A job that pull requests have no result of and need one (ADM-091).
#[derive(Debug, Clone, Copy)]
pub(super) struct Added<'a> {
    pub(super) job: &'a Presubmit,
    /// It ran before, but told nobody.
    pub(super) was_silent: bool,
}

/// The repositories of a configuration that a newer one may mean something for. Those that the former does not have are not
/// considered (ADM-092), nor what is on no GitHub.
pub(super) fn touched<'a>(
    before: &'a Config,
    after: &'a Config,
) -> impl Iterator<Item = (RepoId, RepoDelta)> + 'a {
    before.jobs.presubmits.keys().filter_map(|key| {
        let repo: RepoId = key.parse().ok()?;
        let delta = RepoDelta::of(before, after, &repo)?;
        delta.may_matter().then_some((repo, delta))
    })
}

fn same_branches(a: &Presubmit, b: &Presubmit) -> bool {
    (&a.brancher.branches, &a.brancher.skip_branches)
        == (&b.brancher.branches, &b.brancher.skip_branches)
}

fn named<'a>(jobs: &[&'a Presubmit], name: &str) -> Option<&'a Presubmit> {
    jobs.iter().find(|job| job.base.name == name).copied()
}

/// ADM-091, of a job that was there; none if it is nothing new.
fn added<'a>(old: Option<&Presubmit>, new: &'a Presubmit) -> Option<Added<'a>> {
    if !new.context_required() || new.needs_explicit_trigger() {
        return None;
    }
    let was_silent = old.is_some_and(|old| old.reporter.skip_report);
    let other_files = old.is_some_and(|old| {
        (
            &old.changes.run_if_changed,
            &old.changes.skip_if_only_changed,
        ) != (
            &new.changes.run_if_changed,
            &new.changes.skip_if_only_changed,
        )
    });
    // It is required, so it reports.
    (old.is_none() || was_silent || other_files).then_some(Added {
        job: new,
        was_silent,
    })
}

impl RepoDelta {
    /// None where the former version has no presubmits of the repository.
    pub(super) fn of(before: &Config, after: &Config, repo: &RepoId) -> Option<Self> {
        let key = repo.to_string();
        let before = before.jobs.presubmits.get(&key)?;
        Some(Self {
            before: Arc::clone(before),
            after: after.jobs.presubmits.get(&key).cloned().unwrap_or_default(),
        })
    }

    /// Whether it may mean something on some branch.
    fn may_matter(&self) -> bool {
        if Arc::ptr_eq(&self.before, &self.after) {
            return false;
        }
        let twin = |jobs: &JobList<Presubmit>, job: &Presubmit| {
            let mut jobs = jobs.iter();
            let twin = jobs.find(|it| it.base.name == job.base.name && same_branches(it, job));
            twin.cloned()
        };
        let comes = self.after.iter().any(|new| {
            let old = twin(&self.before, new);
            let moved = old.as_ref().is_some_and(|old| is_moved(old, new));
            moved || added(old.as_deref(), new).is_some()
        });
        let goes = |old: &Arc<Presubmit>| twin(&self.after, old).is_none();
        comes || self.before.iter().any(goes)
    }

    /// For pull requests to a branch.
    pub(super) fn on(&self, branch: &str) -> BranchDelta<'_> {
        let old = on_branch(&self.before, branch);
        let new = on_branch(&self.after, branch);
        let reported: BTreeSet<&str> = new
            .iter()
            .filter(|job| !job.reporter.skip_report)
            .map(|job| job.reporter.context.as_str())
            .collect();
        let mut delta = BranchDelta {
            added: new
                .iter()
                .filter_map(|job| added(named(&old, &job.base.name), job))
                .collect(),
            ..BranchDelta::default()
        };
        for job in old {
            let context = job.reporter.context.as_str();
            // Another job reports it now: what it says counts.
            if reported.contains(context) {
                continue;
            }
            match named(&new, &job.base.name) {
                None => {
                    delta.retired.insert(context);
                }
                Some(newer) if is_moved(job, newer) => {
                    delta.moved.insert(context, &newer.reporter.context);
                }
                Some(_) => {}
            }
        }
        delta
    }
}

/// ADM-092
fn is_moved(old: &Presubmit, new: &Presubmit) -> bool {
    new.context_required() && old.reporter.context != new.reporter.context
}

fn on_branch<'a>(jobs: &'a [Arc<Presubmit>], branch: &str) -> Vec<&'a Presubmit> {
    let jobs = jobs.iter().map(Arc::as_ref);
    jobs.filter(|job| job.could_run(branch)).collect()
}

impl BranchDelta<'_> {
    /// Whether statuses may have to be written.
    pub(super) fn has_old_contexts(&self) -> bool {
        !self.retired.is_empty() || !self.moved.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use trireme_config::{FileSet, Layout, LoadOptions};

    use super::*;

    fn config(jobs: &str) -> Arc<Config> {
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs.yaml".to_owned()),
            ..Layout::default()
        });
        set.insert("config.yaml", b"".to_vec());
        set.insert("jobs.yaml", jobs.as_bytes().to_vec());
        let loaded = Config::load(&set, LoadOptions::default());
        loaded.accepted().unwrap().0
    }

    fn jobs(jobs: &[&str]) -> String {
        let mut text = "presubmits:\n  org/repo:\n".to_owned();
        for job in jobs {
            text += &format!("  - {{spec: {{containers: [{{image: alpine}}]}}, {job}}}\n");
        }
        text
    }

    /// What two lists of jobs mean on `main`; `-` if the repository is not even looked at.
    fn between(before: &[&str], after: &[&str]) -> String {
        on("main", before, after)
    }

    fn on(branch: &str, before: &[&str], after: &[&str]) -> String {
        let (before, after) = (config(&jobs(before)), config(&jobs(after)));
        let Some((_, delta)) = touched(&before, &after).next() else {
            return "-".to_owned();
        };
        let delta = delta.on(branch);
        let mut said = Vec::new();
        for added in delta.added {
            let silent = if added.was_silent { " was silent" } else { "" };
            said.push(format!("+{}{silent}", added.job.base.name));
        }
        said.extend(delta.retired.iter().map(|context| format!("-{context}")));
        let moved = delta.moved.iter();
        said.extend(moved.map(|(from, to)| format!("{from}->{to}")));
        said.join(" ")
    }

    const UNIT: &str = "name: unit, always_run: true";

    #[test]
    fn adm_091_what_is_added() {
        let docs = "name: docs, run_if_changed: ^docs/";
        assert_eq!(between(&[UNIT], &[UNIT]), "-");
        assert_eq!(between(&[UNIT], &[UNIT, docs]), "+docs");
        assert_eq!(
            between(&[UNIT, docs], &[UNIT, "name: docs, run_if_changed: ^doc/"]),
            "+docs"
        );
        assert_eq!(
            between(
                &[UNIT, docs],
                &[UNIT, "name: docs, skip_if_only_changed: ^docs/"]
            ),
            "+docs"
        );
        assert_eq!(
            between(
                &["name: unit, always_run: true, skip_report: true"],
                &[UNIT]
            ),
            "+unit was silent"
        );
        // Required, but started by hand; automatic, but optional or silent.
        for not in [
            "name: new, always_run: false",
            "name: new, always_run: true, optional: true",
            "name: new, always_run: true, skip_report: true",
        ] {
            assert_eq!(between(&[UNIT], &[UNIT, not]), "-", "{not}");
        }
        assert_eq!(
            between(&["name: unit, always_run: true, optional: true"], &[UNIT]),
            "-",
            "its context is there already"
        );
    }

    #[test]
    fn adm_092_what_is_removed_and_what_is_moved() {
        assert_eq!(
            between(&[UNIT, "name: old, always_run: true"], &[UNIT]),
            "-old"
        );
        assert_eq!(
            between(
                &[
                    UNIT,
                    "name: old, always_run: true, optional: true, context: it"
                ],
                &[UNIT]
            ),
            "-it"
        );
        assert_eq!(
            between(
                &[UNIT, "name: old, always_run: true, skip_report: true"],
                &[UNIT]
            ),
            "-old"
        );
        assert_eq!(
            between(&[UNIT], &["name: unit, always_run: true, context: ci/unit"]),
            "unit->ci/unit"
        );
        assert_eq!(
            between(
                &[UNIT],
                &["name: unit, always_run: true, context: ci/unit, optional: true"]
            ),
            "-"
        );
        assert_eq!(
            between(&[UNIT], &["name: renamed, always_run: true"]),
            "+renamed -unit"
        );
        // A repository without presubmits any more, and one that had none.
        let (some, none) = (config(&jobs(&[UNIT])), config("presubmits: {}\n"));
        let gone = touched(&some, &none).next().unwrap().1;
        assert_eq!(gone.on("main").retired, ["unit"].into());
        assert!(touched(&none, &some).next().is_none());
    }

    /// Upstream would call green what a job that took over the context has yet to say.
    #[test]
    fn a_context_that_another_job_reports_now_is_left_to_it() {
        assert_eq!(
            between(&[UNIT], &["name: fast, always_run: true, context: unit"]),
            "+fast"
        );
        assert_eq!(
            between(
                &[UNIT, "name: lint, always_run: true"],
                &[
                    "name: unit, always_run: true, context: lint",
                    "name: lint, always_run: true, context: unit"
                ]
            ),
            ""
        );
    }

    #[test]
    fn adm_100_jobs_are_compared_where_they_run() {
        let unit = |rest: &str| format!("name: unit, always_run: true, {rest}");
        let (main, both) = (
            unit("branches: [^main$]"),
            unit("branches: [main, release]"),
        );
        assert_eq!(on("release", &[&main], &[&both]), "+unit");
        assert_eq!(on("main", &[&main], &[&both]), "");
        assert_eq!(on("release", &[&both], &[&main]), "-unit");
        assert_eq!(on("main", &[&both], &[&main]), "");
        // One name, two jobs.
        let release = unit("branches: [^release$], context: r");
        let renamed = unit("branches: [^release$], context: s");
        assert_eq!(
            on("release", &[&main, &release], &[&main, &renamed]),
            "r->s"
        );
        assert_eq!(on("main", &[&main, &release], &[&main, &renamed]), "");
        assert_eq!(on("release", &[&main, &release], &[&main]), "-r");
        assert_eq!(on("main", &[&main, &release], &[&main]), "");
    }
}
