//! Which presubmits a comment asks for (JOB-018), and what `/test ?` may list.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{Decision, Presubmit};
use crate::go_regex::GoRegex;

/// A command that concerns many jobs at once, or the help for such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    TestAll,
    Retest,
    RetestRequired,
    TestManualRequired,
    OkToTest,
    OkToTestCancel,
    /// `/test ?`
    TestHelp,
    /// `/test` without a target.
    EmptyTest,
    /// `/retest` with a target, which it does not take.
    RetestWithTarget,
    TestWithAnyTarget,
    /// Any `/test` or `/retest`, after which old help comments may go.
    AnyTest,
}

static COMMANDS: LazyLock<Vec<(Command, GoRegex)>> = LazyLock::new(|| {
    let commands = [
        (Command::TestAll, r"(?m)^/test all,?($|\s.*)"),
        (Command::Retest, r"(?m)^/retest\s*$"),
        (Command::RetestRequired, r"(?m)^/retest-required\s*$"),
        (
            Command::TestManualRequired,
            r"(?m)^/test-manual-required\s*$",
        ),
        (Command::OkToTest, r"(?m)^/ok-to-test\s*$"),
        (Command::OkToTestCancel, r"(?m)^/ok-to-test\s+cancel\s*$"),
        (Command::TestHelp, r"(?m)^/test[ \t]*\?\s*$"),
        (Command::EmptyTest, r"(?m)^/test\s*$"),
        (Command::RetestWithTarget, r"(?m)^/retest[ \t]+\S+"),
        (Command::TestWithAnyTarget, r"(?m)^/test[ \t]+\S+"),
        (Command::AnyTest, r"(?m)^/(?:re)?test\b"),
    ];
    // The tests compile every one of them.
    commands
        .into_iter()
        .filter_map(|(command, re)| Some((command, GoRegex::new(re).ok()?)))
        .collect()
});

impl Command {
    /// Whether some line of a comment is this command.
    #[must_use]
    pub fn is_in(self, body: &str) -> bool {
        COMMANDS
            .iter()
            .any(|(command, re)| *command == self && re.is_match(body))
    }
}

/// Status contexts of a pull request's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    pub failed: BTreeSet<String>,
    pub all: BTreeSet<String>,
}

/// Picks presubmits, and says how firmly they are wanted.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Jobs whose own trigger matches a comment: they run whatever changed.
    Command(String),
    /// Jobs that run by themselves, where they apply.
    TestAll,
    /// Failed jobs, and automatic ones without a status.
    Retest(Contexts),
    /// The same, without optional ones.
    RetestRequired(Contexts),
    /// Required jobs that wait for a command.
    TestManualRequired,
    /// The first that wants a job decides how.
    FirstOf(Vec<Self>),
}

/// How a filter wants a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    by: Asked,
    forced: bool,
    default: bool,
}

/// What asks for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A comment that the job's trigger matches.
    Trigger,
    /// `/test all` and the like, or an event of the pull request: all that runs by itself.
    TestAll,
    /// `/retest`: it failed.
    RetestFailed,
    /// `/retest`: it runs by itself and has no status.
    RetestMissing,
    /// `/test-manual-required`.
    TestManualRequired,
}

/// Whether a filter picks a job, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing asks for it.
    NotAsked,
    /// It is asked for; the job's own rules decide.
    Asked(Asked, Decision),
}

impl Choice {
    #[must_use]
    pub fn runs(self) -> bool {
        match self {
            Self::NotAsked => false,
            Self::Asked(_, decision) => decision.runs(),
        }
    }
}

impl Filter {
    /// Whether a comment has a command that depends on the statuses of the head, so that callers fetch them only then.
    #[must_use]
    pub fn wants_contexts(body: &str) -> bool {
        Command::Retest.is_in(body) || Command::RetestRequired.is_in(body)
    }

    /// The filter for a comment (JOB-018). `/ok-to-test` counts as `/test all` only if it is honoured here.
    #[must_use]
    pub fn for_comment(body: &str, honor_ok_to_test: bool, contexts: &Contexts) -> Self {
        let mut filters = vec![Self::Command(body.to_owned())];
        if Command::Retest.is_in(body) {
            filters.push(Self::Retest(contexts.clone()));
        }
        if Command::RetestRequired.is_in(body) {
            filters.push(Self::RetestRequired(contexts.clone()));
        }
        if Command::TestManualRequired.is_in(body) {
            filters.push(Self::TestManualRequired);
        }
        if (honor_ok_to_test && Command::OkToTest.is_in(body)) || Command::TestAll.is_in(body) {
            filters.push(Self::TestAll);
        }
        Self::FirstOf(filters)
    }

    fn wanted(&self, job: &Presubmit) -> Option<Wanted> {
        let retest = |contexts: &Contexts| {
            let context = &job.reporter.context;
            let failed = contexts.failed.contains(context);
            let missing = !job.needs_explicit_trigger() && !contexts.all.contains(context);
            (failed || missing).then_some(Wanted {
                by: if failed {
                    Asked::RetestFailed
                } else {
                    Asked::RetestMissing
                },
                forced: false,
                default: failed,
            })
        };
        match self {
            Self::Command(body) => job.trigger_matches(body).then_some(Wanted {
                by: Asked::Trigger,
                forced: true,
                default: true,
            }),
            Self::TestAll => (!job.needs_explicit_trigger()).then_some(Wanted {
                by: Asked::TestAll,
                forced: false,
                default: false,
            }),
            Self::Retest(contexts) => retest(contexts),
            Self::RetestRequired(contexts) => (!job.optional).then(|| retest(contexts)).flatten(),
            Self::TestManualRequired => {
                (!job.optional && job.needs_explicit_trigger()).then_some(Wanted {
                    by: Asked::TestManualRequired,
                    forced: true,
                    default: false,
                })
            }
            Self::FirstOf(filters) => filters.iter().find_map(|filter| filter.wanted(job)),
        }
    }

    /// Whether [`Self::select`] will look at the changed files.
    #[must_use]
    pub fn wants_changed_files<'a>(
        &self,
        branch: &str,
        jobs: impl IntoIterator<Item = &'a Presubmit>,
    ) -> bool {
        jobs.into_iter().any(|job| {
            self.wanted(job)
                .is_some_and(|w| job.wants_changed_files(branch, w.forced))
        })
    }

    /// Whether a job is picked, and by which rule.
    #[must_use]
    pub fn decide<S: AsRef<str>>(&self, branch: &str, files: &[S], job: &Presubmit) -> Choice {
        self.wanted(job).map_or(Choice::NotAsked, |w| {
            Choice::Asked(w.by, job.decide(branch, files, w.forced, w.default))
        })
    }

    /// The jobs to run, in their order.
    pub fn select<'a, S: AsRef<str>>(
        &self,
        branch: &str,
        files: &[S],
        jobs: impl IntoIterator<Item = &'a Presubmit>,
    ) -> Vec<&'a Presubmit> {
        jobs.into_iter()
            .filter(|job| self.decide(branch, files, job).runs())
            .collect()
    }
}

/// What `/test ?` lists for a branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AvailableTests {
    /// Names of the jobs that `/test all` would run.
    pub run_with_test_all: BTreeSet<String>,
    pub optional_commands: BTreeSet<String>,
    pub required_commands: BTreeSet<String>,
}

impl AvailableTests {
    pub fn of<S: AsRef<str>>(branch: &str, files: &[S], jobs: &[&Presubmit]) -> Self {
        let test_all = Filter::TestAll.select(branch, files, jobs.iter().copied());
        let mut found = Self {
            run_with_test_all: test_all.iter().map(|job| job.base.name.clone()).collect(),
            ..Self::default()
        };
        // A job counts if the rerun command of any job triggers it.
        let triggered = |job: &Presubmit| {
            jobs.iter()
                .any(|other| job.trigger_matches(&other.rerun_command))
        };
        for job in jobs
            .iter()
            .filter(|job| job.could_run(branch) && triggered(job))
        {
            let commands = if job.optional {
                &mut found.optional_commands
            } else {
                &mut found.required_commands
            };
            commands.insert(job.rerun_command.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_expression() {
        assert_eq!(COMMANDS.len(), 11);
        assert!(Command::TestHelp.is_in("hello\n/test ?\r\n"));
        assert!(!Command::Retest.is_in("/retest foo"));
    }
}
