//! Which errors of later phases only follow from errors of earlier ones (CFG-016): what could not be read is missing
//! elsewhere, and nobody wants to read about that too.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::FileSet;

/// Fields of the main file that jobs take their defaults from.
const DEFAULTS: [&str; 5] = [
    "plank",
    "pod_namespace",
    "decorate_all_jobs",
    "prowjob_default_entries",
    "presets",
];

/// What is left of `later` without what follows from `first`.
pub(crate) fn without(
    config: &Config,
    files: &FileSet,
    first: &[Diagnostic],
    later: Vec<Diagnostic>,
) -> Vec<Diagnostic> {
    let main = &files.layout.config;
    let errors: Vec<_> = first.iter().filter(|found| found.is_error()).collect();
    let broken = Broken::new(&errors);
    let unsure_defaults = errors.iter().any(|found| {
        found.file == *main && (found.rule == Rule::File || DEFAULTS.contains(&top(&found.field)))
    });
    // Presets may stand in any job file.
    let unsure_presets = errors.iter().any(|found| {
        found.file != *main && (found.rule == Rule::File || top(&found.field) == "presets")
    });
    let labelled: BTreeSet<(&str, String)> = if unsure_presets {
        let labelled = config
            .all_jobs()
            .map(|(_, job)| job.base())
            .filter(|job| !job.labels.is_empty());
        labelled
            .map(|job| (job.source.file.as_ref(), job.source.field("")))
            .collect()
    } else {
        BTreeSet::new()
    };
    let follows = |found: &Diagnostic| {
        if let Some(job) = job_of(&found.field) {
            return unsure_defaults
                || broken.has(&found.file, job)
                || labelled.contains(&(found.file.as_str(), job.to_owned()));
        }
        errors.iter().any(|error| {
            error.file == found.file
                && !found.field.is_empty()
                && within(&error.field, &found.field)
        })
    };
    later
        .into_iter()
        .filter(|found| !found.is_error() || !follows(found))
        .collect()
}

/// Jobs that have an error already.
pub(super) struct Broken<'a>(BTreeSet<(&'a str, &'a str)>);

impl<'a> Broken<'a> {
    pub(super) fn new(errors: &[&'a Diagnostic]) -> Self {
        let jobs = errors
            .iter()
            .filter_map(|error| Some((error.file.as_str(), job_of(&error.field)?)));
        Self(jobs.collect())
    }

    pub(super) fn has(&self, file: &str, job: &str) -> bool {
        self.0.contains(&(file, job))
    }
}

fn top(field: &str) -> &str {
    field.split(['.', '[']).next().unwrap_or_default()
}

/// Whether `field` is `of` or a part of it.
fn within(field: &str, of: &str) -> bool {
    field
        .strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The part of a field's path that names a job: `presubmits["org/repo"][3]`, `periodics[0]`.
pub(super) fn job_of(field: &str) -> Option<&str> {
    let list = top(field);
    let mut at = list.len();
    match list {
        "presubmits" | "postsubmits" => {
            // A repository's own files have plain lists.
            if field[at..].starts_with("[\"") {
                at += field[at..].find("\"][")? + 2;
            }
        }
        "periodics" => {}
        _ => return None,
    }
    let index = field[at..].strip_prefix('[')?;
    let end = index.find(']')?;
    Some(&field[..at + end + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_that_a_field_belongs_to() {
        assert_eq!(
            job_of("presubmits[\"org/repo\"][12].spec.containers[0]"),
            Some("presubmits[\"org/repo\"][12]")
        );
        assert_eq!(job_of("periodics[3]"), Some("periodics[3]"));
        assert_eq!(job_of("postsubmits[0].name"), Some("postsubmits[0]"));
        for none in [
            "presubmits",
            "presubmits[\"org/repo\"]",
            "tide.queries[0]",
            "",
        ] {
            assert_eq!(job_of(none), None, "{none}");
        }
    }
}
