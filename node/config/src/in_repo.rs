//! Jobs that stand in the tested repository itself: `.prow.yaml` or the files of `.prow/` (CFG-078…081). What to check
//! out, and when, is decided elsewhere; files come in, jobs come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::config::Config;
use crate::decode::{Cx, Decode};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::{FileSet, Layout};
use crate::job::{self, Postsubmit, Preset, Presubmit};
use crate::load::{document, of_job, source};
use crate::yaml::{Node, NodeValue};

const FILE: &str = ".prow.yaml";
const DIR: &str = ".prow";
/// Stands for the repository's root in paths, which a set wants.
const ROOT: &str = "repository";

object! {
    /// The content of a repository's own files, before defaulting.
    pub struct ProwYaml {
        [always "presets"] presets: Vec<Preset>,
        [always "presubmits"] presubmits: Vec<Presubmit>,
        [always "postsubmits"] postsubmits: Vec<Postsubmit>,
        [omit "prow_ignored"] prow_ignored: Option<Value>,
    }
}

/// The jobs of a repository, its own after those of the configuration.
#[derive(Clone, Debug, Default)]
pub struct InRepoJobs {
    pub presubmits: Vec<Presubmit>,
    pub postsubmits: Vec<Postsubmit>,
}

/// CFG-087: whether a change may touch a repository's own jobs.
pub fn is_touched_by<S: AsRef<str>>(changed: &[S]) -> bool {
    changed
        .iter()
        .map(AsRef::as_ref)
        .any(|path| path == FILE || path.starts_with(".prow/"))
}

impl ProwYaml {
    /// Reads the files of a repository, by their paths in it. A directory `.prow` wins over `.prow.yaml`; without either
    /// there are no jobs. Problems are added to `found`.
    #[must_use]
    pub fn read(files: &BTreeMap<String, Arc<[u8]>>, found: &mut Vec<Diagnostic>) -> Self {
        if files.contains_key(DIR) {
            found.push(Diagnostic::error(
                Rule::File,
                DIR,
                "reading \".prow\": it is a file and not a directory",
            ));
            return Self::default();
        }
        let mut set = FileSet::new(Layout {
            jobs: Some(ROOT.to_owned()),
            ..Layout::default()
        });
        for (path, bytes) in files {
            set.insert(format!("{ROOT}/{path}"), bytes.clone());
        }
        let in_dir = files.keys().any(|path| path.starts_with(".prow/"));
        let wanted = |path: &str| {
            if in_dir {
                path.starts_with(".prow/")
            } else {
                path == FILE
            }
        };
        let mut all = Self::default();
        for (path, content) in set.job_files().unwrap_or_default() {
            let Some(bytes) = content.bytes() else {
                continue;
            };
            let path = path
                .strip_prefix(ROOT)
                .and_then(|path| path.strip_prefix('/'))
                .unwrap_or(path);
            if !wanted(path) {
                continue;
            }
            let Some(root) = document(path, bytes, found) else {
                continue;
            };
            let mut cx = Cx::new(path, true);
            let mut part = Self::decode(&root, &mut cx);
            found.append(&mut cx.diagnostics);
            part.place(&root, &Arc::from(path));
            all.presets.append(&mut part.presets);
            all.presubmits.append(&mut part.presubmits);
            all.postsubmits.append(&mut part.postsubmits);
        }
        all
    }

    fn place(&mut self, root: &Node, file: &Arc<str>) {
        let items = |key: &str| match root.get(key).map(|node| &node.value) {
            Some(NodeValue::Sequence(items)) => items.clone(),
            _ => Vec::new(),
        };
        let (list, nodes): (Arc<str>, _) = ("presubmits".into(), items("presubmits"));
        for (n, job) in self.presubmits.iter_mut().enumerate() {
            job.base.source = source(file, &list, n, nodes.get(n));
        }
        let (list, nodes): (Arc<str>, _) = ("postsubmits".into(), items("postsubmits"));
        for (n, job) in self.postsubmits.iter_mut().enumerate() {
            job.base.source = source(file, &list, n, nodes.get(n));
        }
    }
}

impl Config {
    /// Defaults and checks a repository's own jobs together with those of the configuration (CFG-080), and puts them after
    /// those. `identifier` is `org/repo`, or a Gerrit repository with its scheme.
    ///
    /// # Errors
    /// Everything that is wrong; then none of them may run.
    pub fn with_in_repo_jobs(
        &self,
        own: ProwYaml,
        identifier: &str,
    ) -> Result<InRepoJobs, Vec<Diagnostic>> {
        let ProwYaml {
            presets,
            mut presubmits,
            mut postsubmits,
            ..
        } = own;
        let mut found = Vec::new();
        let shared = job::Shared::default();
        let defaults = job::Defaults {
            shared: &shared,
            prow: &self.prow,
            decorate_all_jobs: self.jobs.decorate_all_jobs,
            presets: self.jobs.presets.iter().chain(&presets).collect(),
        };
        for job in &mut presubmits {
            let wrong = defaults.presubmit(job, identifier);
            found.extend(wrong.into_iter().map(|e| of_job(&job.base, "", e)));
        }
        for job in &mut postsubmits {
            let wrong = defaults.postsubmit(job, identifier);
            found.extend(wrong.into_iter().map(|e| of_job(&job.base, "", e)));
        }
        let all: Vec<_> = presubmits
            .iter()
            .chain(self.presubmits(identifier))
            .collect();
        let wrong = job::validate::presubmits(&self.prow, &all);
        found.extend(
            wrong
                .into_iter()
                .map(|finding| of_job(&all[finding.index].base, finding.field, finding.message)),
        );
        let all: Vec<_> = postsubmits
            .iter()
            .chain(self.postsubmits(identifier))
            .collect();
        let wrong = job::validate::postsubmits(&self.prow, &all);
        found.extend(
            wrong
                .into_iter()
                .map(|finding| of_job(&all[finding.index].base, finding.field, finding.message)),
        );
        for base in presubmits
            .iter()
            .map(|job| &job.base)
            .chain(postsubmits.iter().map(|job| &job.base))
        {
            if !self
                .prow
                .in_repo_config_allows_cluster(&base.cluster, identifier)
            {
                let message = format!(
                    "cluster {:?} is not allowed for repository {identifier:?}",
                    base.cluster
                );
                found.push(of_job(base, "cluster", message));
            }
        }
        if !found.is_empty() {
            return Err(found);
        }
        Ok(InRepoJobs {
            presubmits: self
                .presubmits(identifier)
                .cloned()
                .chain(presubmits)
                .collect(),
            postsubmits: self
                .postsubmits(identifier)
                .cloned()
                .chain(postsubmits)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadOptions;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, Arc<[u8]>> {
        list.iter()
            .map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes())))
            .collect()
    }

    fn config() -> Arc<Config> {
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        let text =
            "presubmits:\n  org/repo:\n  - name: central\n    spec: {containers: [{image: a}]}\n";
        set.insert("config.yaml", text.as_bytes());
        Config::load(&set, LoadOptions::default())
            .accepted()
            .unwrap()
            .0
    }

    fn told(own: &[(&str, &str)]) -> String {
        let mut found = Vec::new();
        let own = ProwYaml::read(&files(own), &mut found);
        match config().with_in_repo_jobs(own, "org/repo") {
            Ok(jobs) => found.extend(jobs.presubmits.iter().map(|job| {
                Diagnostic::error(
                    Rule::Invalid,
                    job.base.source.file.as_ref(),
                    job.base.name.clone(),
                )
            })),
            Err(wrong) => found.extend(wrong),
        }
        found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn cfg_078_the_directory_wins_and_081_central_jobs_come_first() {
        let own = "presubmits: [{name: own, spec: {containers: [{image: a}]}}]";
        let other = "presubmits: [{name: other, spec: {containers: [{image: a}]}}]";
        insta::assert_snapshot!(told(&[(".prow.yaml", own)]), @r"
        config.yaml: central
        .prow.yaml: own
        ");
        let both = [
            (".prow.yaml", own),
            (".prow/b/c.yaml", other),
            (".prow/a.txt", "x"),
            (".prowignore", "*.yml"),
            (".prow/d.yml", own),
        ];
        insta::assert_snapshot!(told(&both), @r"
        config.yaml: central
        .prow/b/c.yaml: other
        ");
        insta::assert_snapshot!(told(&[]), @"config.yaml: central");
    }

    #[test]
    fn cfg_080_own_and_central_jobs_are_checked_together() {
        let text = "presubmits:\n- name: central\n  spec: {containers: [{image: a}]}\n- name: far\n  cluster: build\n  spec: {containers: [{image: a}]}\n";
        insta::assert_snapshot!(told(&[(".prow.yaml", text)]), @r#"
        config.yaml:3:5: presubmits["org/repo"][0].name: duplicated presubmit jobs (consider both inrepo and central config): [central]
        .prow.yaml:4:3: presubmits[1].cluster: cluster "build" is not allowed for repository "org/repo"
        "#);
    }

    #[test]
    fn cfg_087_changes_that_may_touch_own_jobs() {
        assert!(is_touched_by(&["a", ".prow/x.yaml"]));
        assert!(is_touched_by(&[".prow.yaml"]));
        assert!(!is_touched_by(&[".prowx", "a/.prow.yaml"]));
    }
}
