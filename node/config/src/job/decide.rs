//! Which job runs when (JOB-011…019). Changed files are given: callers that must fetch them ask first whether anybody
//! wants them.

use super::{Brancher, ChangeMatcher, Postsubmit, Presubmit};

/// What a job's branch rules say of a branch (JOB-013).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchRule {
    /// One of `skip_branches` matches: no.
    Skipped,
    /// There are no `branches`, and none is skipped that matches: yes.
    Any,
    /// One of `branches` matches: yes.
    Listed,
    /// There are `branches`, and none matches: no.
    Unlisted,
}

impl BranchRule {
    #[must_use]
    pub fn allows(self) -> bool {
        matches!(self, Self::Any | Self::Listed)
    }
}

/// What the changed files say (JOB-014).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRule {
    /// The file of this index wants a run, the first that does.
    Wanted(usize),
    /// None does.
    Unwanted,
}

/// The rule of a job that decides whether it runs, and how (JOB-015, JOB-016). Each is reached only if those before it do
/// not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not on this branch.
    Branch(BranchRule),
    /// `always_run`; a postsubmit's default.
    AlwaysRun,
    /// Somebody asked for this very job.
    Forced,
    /// Somebody asked in a way that runs the job whatever changed.
    Default,
    /// `run_if_changed` or `skip_if_only_changed`.
    Changes(ChangeRule),
    /// Nothing makes it run by itself.
    OnDemand,
}

impl Decision {
    #[must_use]
    pub fn runs(self) -> bool {
        match self {
            Self::Branch(rule) => rule.allows(),
            Self::AlwaysRun | Self::Forced | Self::Default => true,
            Self::Changes(rule) => matches!(rule, ChangeRule::Wanted(_)),
            Self::OnDemand => false,
        }
    }
}

impl Brancher {
    #[must_use]
    pub fn runs_on_all_branches(&self) -> bool {
        self.skip_branches.is_empty() && self.branches.is_empty()
    }

    /// JOB-013: a skipped branch loses, then an empty list or a match wins.
    #[must_use]
    pub fn decide(&self, branch: &str) -> BranchRule {
        if !self.skip_branches.is_empty()
            && self.re_skip.as_ref().is_some_and(|re| re.is_match(branch))
        {
            return BranchRule::Skipped;
        }
        if self.branches.is_empty() {
            return BranchRule::Any;
        }
        if self.re.as_ref().is_some_and(|re| re.is_match(branch)) {
            BranchRule::Listed
        } else {
            BranchRule::Unlisted
        }
    }

    #[must_use]
    pub fn should_run(&self, branch: &str) -> bool {
        self.decide(branch).allows()
    }

    /// JOB-031: whether two jobs meet on some branch, as far as the lists tell without knowing the branches.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        if self.runs_on_all_branches() || other.runs_on_all_branches() {
            return true;
        }
        match (self.branches.is_empty(), other.branches.is_empty()) {
            (false, false) => self
                .branches
                .iter()
                .any(|branch| other.branches.contains(branch)),
            (false, true) => self.branches.iter().any(|branch| other.should_run(branch)),
            (true, false) => other.branches.iter().any(|branch| self.should_run(branch)),
            (true, true) => true,
        }
    }
}

impl ChangeMatcher {
    /// Whether the changed files have a say.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.run_if_changed.is_empty() || !self.skip_if_only_changed.is_empty()
    }

    /// JOB-014: no changes, no run.
    #[must_use]
    pub fn decide<S: AsRef<str>>(&self, files: &[S]) -> ChangeRule {
        let Some(re) = &self.re else {
            return ChangeRule::Unwanted;
        };
        // With both set (which is refused at load) either may win.
        let wanted = files.iter().position(|file| {
            let found = re.is_match(file.as_ref());
            (!self.run_if_changed.is_empty() && found)
                || (!self.skip_if_only_changed.is_empty() && !found)
        });
        wanted.map_or(ChangeRule::Unwanted, ChangeRule::Wanted)
    }

    #[must_use]
    pub fn matches<S: AsRef<str>>(&self, files: &[S]) -> bool {
        self.decide(files) != ChangeRule::Unwanted
    }
}

impl Presubmit {
    #[must_use]
    pub fn could_run(&self, branch: &str) -> bool {
        self.brancher.should_run(branch)
    }

    /// Whether [`Self::should_run`] will look at the changed files.
    #[must_use]
    pub fn wants_changed_files(&self, branch: &str, forced: bool) -> bool {
        self.could_run(branch) && !self.always_run && !forced && self.changes.is_set()
    }

    /// JOB-015: which rule decides.
    #[must_use]
    pub fn decide<S: AsRef<str>>(
        &self,
        branch: &str,
        files: &[S],
        forced: bool,
        default: bool,
    ) -> Decision {
        let rule = self.brancher.decide(branch);
        if !rule.allows() {
            Decision::Branch(rule)
        } else if self.always_run {
            Decision::AlwaysRun
        } else if forced {
            Decision::Forced
        } else if default {
            Decision::Default
        } else if self.changes.is_set() {
            Decision::Changes(self.changes.decide(files))
        } else {
            Decision::OnDemand
        }
    }

    /// JOB-015.
    #[must_use]
    pub fn should_run<S: AsRef<str>>(
        &self,
        branch: &str,
        files: &[S],
        forced: bool,
        default: bool,
    ) -> bool {
        self.decide(branch, files, forced, default).runs()
    }

    /// JOB-011: whether a comment asks for this very job.
    #[must_use]
    pub fn trigger_matches(&self, body: &str) -> bool {
        !self.trigger.is_empty() && self.trigger_re.as_ref().is_some_and(|re| re.is_match(body))
    }

    /// JOB-017: neither always nor for some changes.
    #[must_use]
    pub fn needs_explicit_trigger(&self) -> bool {
        !self.always_run && !self.changes.is_set()
    }

    /// JOB-017.
    #[must_use]
    pub fn triggers_conditionally(&self) -> bool {
        self.needs_explicit_trigger() || self.changes.is_set()
    }

    /// JOB-017: whether its failure keeps a pull request from merging.
    #[must_use]
    pub fn context_required(&self) -> bool {
        !self.optional && !self.reporter.skip_report
    }
}

impl Postsubmit {
    #[must_use]
    pub fn could_run(&self, branch: &str) -> bool {
        self.brancher.should_run(branch)
    }

    /// Whether [`Self::should_run`] will look at the changed files.
    #[must_use]
    pub fn wants_changed_files(&self, branch: &str) -> bool {
        self.could_run(branch) && self.changes.is_set()
    }

    /// JOB-016: which rule decides.
    #[must_use]
    pub fn decide<S: AsRef<str>>(&self, branch: &str, files: &[S]) -> Decision {
        let rule = self.brancher.decide(branch);
        if !rule.allows() {
            Decision::Branch(rule)
        } else if self.changes.is_set() {
            Decision::Changes(self.changes.decide(files))
        } else if self.always_run.unwrap_or(true) {
            Decision::AlwaysRun
        } else {
            Decision::OnDemand
        }
    }

    /// JOB-016.
    #[must_use]
    pub fn should_run<S: AsRef<str>>(&self, branch: &str, files: &[S]) -> bool {
        self.decide(branch, files).runs()
    }
}

/// The contexts of a branch, in the order of its jobs (JOB-019).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    pub required: Vec<String>,
    pub required_if_present: Vec<String>,
    pub optional: Vec<String>,
}

impl Requirements {
    /// JOB-019. `manual` makes jobs that wait for a command required too.
    pub fn of<'a>(
        branch: &str,
        jobs: impl IntoIterator<Item = &'a Presubmit>,
        manual: bool,
    ) -> Self {
        let mut found = Self::default();
        for job in jobs.into_iter().filter(|job| job.could_run(branch)) {
            let list = if !job.context_required() {
                &mut found.optional
            } else if manual && job.needs_explicit_trigger() {
                &mut found.required
            } else if job.triggers_conditionally() {
                &mut found.required_if_present
            } else {
                &mut found.required
            };
            list.push(job.reporter.context.clone());
        }
        found
    }
}
