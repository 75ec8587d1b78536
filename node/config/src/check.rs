//! checkconfig: a load, told as a report.

use serde::Serialize;

use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::files::FileSet;
use crate::load::LoadOptions;

/// What checkconfig found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub presubmits: usize,
    pub postsubmits: usize,
    pub periodics: usize,
    /// Any of these makes the configuration unusable.
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

impl Report {
    /// Whether the configuration may be used; with `strict`, whether there is nothing to say about it.
    #[must_use]
    pub fn passes(&self, strict: bool) -> bool {
        self.errors.is_empty() && (!strict || self.warnings.is_empty())
    }
}

/// Loads a configuration and reports (CFG-110, CFG-116).
#[must_use]
pub fn checkconfig(files: &FileSet, options: LoadOptions<'_>) -> Report {
    let loaded = Config::load(files, options);
    let (presubmits, postsubmits, periodics) = loaded.config.job_counts();
    Report {
        presubmits,
        postsubmits,
        periodics,
        errors: loaded.errors,
        warnings: loaded.warnings,
    }
}
