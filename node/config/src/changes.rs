//! What one configuration has that another has not: for people who look at a change, and for the guard before it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::yaml;

/// What a new configuration takes away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retirement {
    /// `(org/repo, context)` of presubmits that report, which no presubmit reports any more.
    pub contexts: Vec<(String, String)>,
    /// How many there were.
    pub contexts_before: usize,
    /// Jobs that are there no more: a job that moves to another repository is another.
    pub jobs: Vec<JobName>,
    /// How many there were, by name.
    pub jobs_before: usize,
}

/// Names all jobs of one kind, repository and name: there may be one per branch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct JobName {
    /// presubmit, postsubmit or periodic.
    pub kind: &'static str,
    /// Empty for periodics.
    pub repo: String,
    pub name: String,
}

impl std::fmt::Display for JobName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.repo.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            repo => write!(f, "{} {repo} {}", self.kind, self.name),
        }
    }
}

/// Compares what two configurations report and run; what stands in repositories themselves is known to neither.
#[must_use]
pub fn retired(before: &Config, after: &Config) -> Retirement {
    let (old_contexts, new_contexts) = (contexts(before), contexts(after));
    let (old_jobs, new_jobs) = (names(before), names(after));
    let owned = |(repo, context): &(&str, &str)| ((*repo).to_owned(), (*context).to_owned());
    Retirement {
        contexts: old_contexts.difference(&new_contexts).map(owned).collect(),
        contexts_before: old_contexts.len(),
        jobs: old_jobs.difference(&new_jobs).map(Name::owned).collect(),
        jobs_before: old_jobs.len(),
    }
}

fn contexts(config: &Config) -> BTreeSet<(&str, &str)> {
    let mut found = BTreeSet::new();
    for (repo, jobs) in &config.jobs.presubmits {
        for job in jobs.iter().filter(|job| !job.reporter.skip_report) {
            found.insert((repo.as_str(), job.reporter.context.as_str()));
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a> {
    kind: &'static str,
    repo: &'a str,
    name: &'a str,
}

impl Name<'_> {
    fn owned(&self) -> JobName {
        JobName {
            kind: self.kind,
            repo: self.repo.to_owned(),
            name: self.name.to_owned(),
        }
    }
}

fn names(config: &Config) -> BTreeSet<Name<'_>> {
    let mut found = BTreeSet::new();
    each(config, |name, _| {
        found.insert(name);
    });
    found
}

/// Every job with its name and what stands in it.
fn each<'a>(config: &'a Config, mut see: impl FnMut(Name<'a>, &dyn Fn() -> Option<Value>)) {
    for (repo, jobs) in &config.jobs.presubmits {
        for job in jobs.iter() {
            let name = Name {
                kind: "presubmit",
                repo,
                name: &job.base.name,
            };
            see(name, &|| serde_json::to_value(job).ok());
        }
    }
    for (repo, jobs) in &config.jobs.postsubmits {
        for job in jobs.iter() {
            let name = Name {
                kind: "postsubmit",
                repo,
                name: &job.base.name,
            };
            see(name, &|| serde_json::to_value(job).ok());
        }
    }
    for job in &config.jobs.periodics {
        let name = Name {
            kind: "periodic",
            repo: "",
            name: &job.base.name,
        };
        see(name, &|| serde_json::to_value(job).ok());
    }
}

/// What differs between two configurations, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobChanges {
    pub added: Vec<JobName>,
    pub removed: Vec<JobName>,
    /// There before and after, with another definition; where it stands does not matter.
    pub changed: Vec<JobName>,
}

/// Compares all jobs, defaults included.
#[must_use]
pub fn jobs(before: &Config, after: &Config) -> JobChanges {
    let (old, new) = (definitions(before), definitions(after));
    let mut changes = JobChanges::default();
    for (name, definition) in &new {
        match old.get(name) {
            None => changes.added.push(name.owned()),
            Some(former) if former != definition => changes.changed.push(name.owned()),
            Some(_) => {}
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(name));
    changes.removed.extend(gone.map(Name::owned));
    changes
}

/// The definitions under each name, in an order of their own: which comes first in a file is no difference.
fn definitions(config: &Config) -> BTreeMap<Name<'_>, Vec<String>> {
    let mut found: BTreeMap<Name<'_>, Vec<String>> = BTreeMap::new();
    each(config, |name, definition| {
        let text = definition().map(|value| value.to_string());
        found
            .entry(name)
            .or_default()
            .push(text.unwrap_or_default());
    });
    for definitions in found.values_mut() {
        definitions.sort();
    }
    found
}

/// Top-level keys of a file that differ, jobs aside. A file that is no YAML has all keys of the other changed.
#[must_use]
pub fn sections(before: &[u8], after: &[u8]) -> Vec<String> {
    const JOBS: [&str; 3] = ["presubmits", "postsubmits", "periodics"];
    let (old, new) = (top_level(before), top_level(after));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| !JOBS.contains(&key.as_str()) && old.get(*key) != new.get(*key))
        .cloned()
        .collect()
}

fn top_level(text: &[u8]) -> BTreeMap<String, Value> {
    let value = yaml::parse(text)
        .ok()
        .and_then(|document| document.root.to_json().ok());
    match value {
        Some(Value::Object(map)) => map.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileSet, Layout, LoadOptions};

    fn config(jobs: &str) -> Config {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".into(),
            jobs: Some("jobs.yaml".into()),
            ..Layout::default()
        });
        files.insert("config.yaml", b"prowjob_namespace: default\n".as_slice());
        files.insert("jobs.yaml", jobs.as_bytes());
        let loaded = Config::load(&files, LoadOptions::default());
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        (*loaded.config).clone()
    }

    fn presubmit(name: &str, more: &str) -> String {
        format!(
            "  - name: {name}\n    always_run: true\n{more}    spec: {{containers: [{{image: x}}]}}\n"
        )
    }

    fn presubmits(jobs: &[String]) -> Config {
        config(&format!("presubmits:\n  acme/widget:\n{}", jobs.concat()))
    }

    #[test]
    fn a_context_is_retired_when_no_presubmit_reports_it_any_more() {
        let before = presubmits(&[
            presubmit("unit", ""),
            presubmit("lint", "    context: ci/lint\n"),
            presubmit("quiet", "    skip_report: true\n"),
        ]);
        let after = presubmits(&[
            // Another job may report the same.
            presubmit("fast-unit", "    context: unit\n"),
            presubmit("lint", "    skip_report: true\n    context: ci/lint\n"),
        ]);
        let found = retired(&before, &after);
        assert_eq!(found.contexts_before, 2);
        assert_eq!(
            found.contexts,
            [("acme/widget".to_owned(), "ci/lint".to_owned())]
        );
        assert_eq!(found.jobs_before, 3);
        let jobs: Vec<_> = found.jobs.iter().map(ToString::to_string).collect();
        assert_eq!(
            jobs,
            ["presubmit acme/widget quiet", "presubmit acme/widget unit"]
        );
        assert_eq!(retired(&before, &before).jobs, []);
    }

    #[test]
    fn jobs_differ_by_what_they_do_and_not_by_where_they_stand() {
        let before = presubmits(&[presubmit("a", ""), presubmit("b", ""), presubmit("c", "")]);
        let after = presubmits(&[
            presubmit("d", ""),
            presubmit("c", "    optional: true\n"),
            presubmit("a", ""),
        ]);
        let found = jobs(&before, &after);
        let names = |names: &[JobName]| {
            names
                .iter()
                .map(|name| name.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&found.added), ["d"]);
        assert_eq!(names(&found.removed), ["b"]);
        assert_eq!(names(&found.changed), ["c"]);
    }

    #[test]
    fn sections_are_compared_by_value() {
        let before = b"tide: {sync_period: 1m}\nplank: {}\nperiodics: []\n";
        let after = b"plank: {}\ntide:\n  sync_period: 2m\ndeck: {}\n";
        assert_eq!(sections(before, after), ["deck", "tide"]);
        assert_eq!(sections(before, before), Vec::<String>::new());
        assert_eq!(sections(b"tide: {}", b"a: b: c"), ["tide"]);
    }
}
