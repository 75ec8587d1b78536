//! Jobs that stand in the tested repository itself: `.prow.yaml` or the files of `.prow/` (CFG-078…081). Which commits
//! are read, and when, is decided elsewhere; files come in, jobs come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::config::Config;
use crate::decode::{Cx, Decode};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::{FileSet, IGNORE_FILE, Layout, is_packed};
use crate::job::{self, Postsubmit, Preset, Presubmit};
use crate::load::{document, of_job, source};
use crate::yaml::{Node, NodeValue};

/// The one file at the top level.
pub const FILE: &str = ".prow.yaml";
/// The directory that counts instead of the file, where there is one.
pub const DIR: &str = ".prow";
/// Jobs that a repository may have of its own: whoever opens a pull request writes as many as he likes.
const MAX_JOBS: usize = 10_000;
/// Stands for the repository's root in paths, which a set wants.
const ROOT: &str = "repository";
/// Contexts that Trireme itself reports on heads: about a repository's own files, and Tide's.
const OUR_CONTEXTS: [&str; 2] = ["in-repo-config", "tide"];

object! {
    /// The content of a repository's own files, before defaulting.
    pub struct ProwYaml {
        [always "presets"] presets: Vec<Preset>,
        [always "presubmits"] presubmits: Vec<Presubmit>,
        [always "postsubmits"] postsubmits: Vec<Postsubmit>,
        [omit "prow_ignored"] prow_ignored: Option<Value>,
    }
}

/// What stands in a repository where its own jobs can stand.
#[derive(Clone, Debug, Default)]
pub struct OwnFiles {
    /// Whether [`DIR`] is a directory, even an empty one.
    pub has_dir: bool,
    /// By path in the repository; [`wants`] says which.
    pub files: BTreeMap<String, OwnFile>,
}

impl OwnFiles {
    /// Files of a checkout, by their paths in it; what is no file was left out.
    #[must_use]
    pub fn checked_out(files: &BTreeMap<String, Arc<[u8]>>) -> Self {
        let has_dir = files.keys().any(|path| path.starts_with(".prow/"));
        let files = files.iter();
        Self {
            has_dir,
            files: files
                .map(|(path, bytes)| (path.clone(), OwnFile::Bytes(bytes.clone())))
                .collect(),
        }
    }

    /// The content of a file; none where there is nothing to read.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<&Arc<[u8]>> {
        match self.files.get(path)? {
            OwnFile::Bytes(bytes) => Some(bytes),
            OwnFile::Dangling(_) | OwnFile::NoFile(_) => None,
        }
    }
}

/// One of these files.
#[derive(Clone, Debug)]
pub enum OwnFile {
    Bytes(Arc<[u8]>),
    /// It is a link to nothing that is read; says to what.
    Dangling(String),
    /// It is no file; says what instead.
    NoFile(String),
}

/// Whether the content of a path in a repository is looked at (CFG-078).
#[must_use]
pub fn wants(path: &str) -> bool {
    match path.strip_prefix(".prow/") {
        Some(below) => {
            let name = below.rsplit('/').next().unwrap_or(below);
            name.ends_with(".yaml") || name.ends_with(".yml") || name == IGNORE_FILE
        }
        None => path == FILE || path == IGNORE_FILE,
    }
}

/// A repository's own jobs, defaulted and found good together with those of the configuration, which come before them
/// (CFG-081).
#[derive(Clone, Debug, Default)]
pub struct InRepoJobs {
    pub presubmits: Vec<Presubmit>,
    pub postsubmits: Vec<Postsubmit>,
}

/// The items under a key as they are decoded: in any case.
fn list<'n>(root: &'n Node, key: &str) -> &'n [Arc<Node>] {
    let NodeValue::Mapping(entries) = &root.value else {
        return &[];
    };
    let mut entries = entries.iter();
    let entry = entries.find(|entry| entry.key.eq_ignore_ascii_case(key));
    match entry.map(|entry| &entry.value.value) {
        Some(NodeValue::Sequence(items)) => items,
        _ => &[],
    }
}

/// CFG-087: whether a change may touch a repository's own jobs.
pub fn is_touched_by<S: AsRef<str>>(changed: &[S]) -> bool {
    changed
        .iter()
        .map(AsRef::as_ref)
        .any(|path| path == FILE || path.starts_with(".prow/"))
}

impl ProwYaml {
    /// Reads the files of a repository. A directory `.prow` wins over `.prow.yaml`; without either there are no jobs.
    /// Problems are added to `found`; with an error among them what is returned is incomplete.
    #[must_use]
    pub fn read(own: &OwnFiles, found: &mut Vec<Diagnostic>) -> Self {
        let mut all = Self::default();
        let problem = |path: &str, why: &str| Diagnostic::error(Rule::File, path, why.to_owned());
        if !own.has_dir {
            if own.files.contains_key(DIR) {
                found.push(problem(
                    DIR,
                    "reading \".prow\": it is a file and not a directory",
                ));
                return all;
            }
            match own.files.get(FILE) {
                None => {}
                Some(OwnFile::Bytes(bytes)) => all.add(FILE, bytes, found),
                // As if it were not there, which it is not in a sparse checkout.
                Some(OwnFile::Dangling(why)) => found.push(problem(FILE, why).warning()),
                Some(OwnFile::NoFile(why)) => found.push(problem(FILE, why)),
            }
            return all;
        }
        let mut set = FileSet::new(Layout {
            jobs: Some(ROOT.to_owned()),
            ..Layout::default()
        });
        for (path, file) in &own.files {
            let bytes = match file {
                OwnFile::Bytes(bytes) => bytes.clone(),
                // Hides nothing, as one that is not there.
                _ if path.ends_with(IGNORE_FILE) => continue,
                _ => Arc::default(),
            };
            set.insert(format!("{ROOT}/{path}"), bytes);
        }
        for (path, content) in set.job_files().unwrap_or_default() {
            let Some(bytes) = content.bytes() else {
                continue;
            };
            let path = path
                .strip_prefix(ROOT)
                .and_then(|path| path.strip_prefix('/'))
                .unwrap_or(path);
            if !path.starts_with(".prow/") {
                continue;
            }
            match own.files.get(path) {
                Some(OwnFile::Dangling(why) | OwnFile::NoFile(why)) => {
                    found.push(problem(path, why));
                }
                _ => all.add(path, bytes, found),
            }
        }
        all
    }

    /// CFG-079: leniently, and never unpacked.
    fn add(&mut self, path: &str, bytes: &[u8], found: &mut Vec<Diagnostic>) {
        if is_packed(bytes) {
            found.push(Diagnostic::error(
                Rule::File,
                path,
                "it is packed by gzip, which is not unpacked in a repository",
            ));
            return;
        }
        let Some(root) = document(path, bytes, found) else {
            return;
        };
        let jobs = list(&root, "presubmits").len() + list(&root, "postsubmits").len();
        let all = self.presubmits.len() + self.postsubmits.len() + jobs;
        if all > MAX_JOBS {
            let message = format!(
                "with its {jobs} jobs the repository has {all} of its own, more than the {MAX_JOBS} that it may have"
            );
            found.push(Diagnostic::error(Rule::File, path, message));
            return;
        }
        let mut cx = Cx::new(path, true);
        let mut part = Self::decode(&root, &mut cx);
        found.append(&mut cx.diagnostics);
        part.place(&root, &Arc::from(path));
        self.presets.append(&mut part.presets);
        self.presubmits.append(&mut part.presubmits);
        self.postsubmits.append(&mut part.postsubmits);
    }

    fn place(&mut self, root: &Node, file: &Arc<str>) {
        let items = |key: &str| list(root, key).to_vec();
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
    /// Defaults and checks a repository's own jobs together with those of the configuration (CFG-080). `identifier` is
    /// `org/repo`, or a Gerrit repository with its scheme.
    ///
    /// # Errors
    /// Everything that is wrong; then none of them may run.
    pub fn in_repo_jobs(
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
        let shared = job::Shared::of_repository();
        let defaults = job::Defaults::new(
            &self.prow,
            self.jobs.decorate_all_jobs,
            self.jobs.presets.iter().chain(&presets),
            &shared,
        );
        for job in &mut presubmits {
            let wrong = defaults.presubmit(job, identifier);
            found.extend(wrong.into_iter().map(|e| of_job(&job.base, "", e)));
        }
        for job in &mut postsubmits {
            let wrong = defaults.postsubmit(job, identifier);
            found.extend(wrong.into_iter().map(|e| of_job(&job.base, "", e)));
        }
        if let Some(wrong) = shared.layers_problem() {
            let last = presubmits.last().map(|job| &job.base);
            let last = last.or(postsubmits.last().map(|job| &job.base));
            found.extend(last.map(|job| of_job(job, "decoration_config", wrong)));
        }
        for job in &presubmits {
            let wrong = job::validate::presubmit(&self.prow, job).into_iter();
            found.extend(wrong.map(|(field, e)| of_job(&job.base, field, e)));
        }
        for job in &postsubmits {
            let wrong = job::validate::postsubmit(&self.prow, job).into_iter();
            found.extend(wrong.map(|(field, e)| of_job(&job.base, field, e)));
        }
        let reporting = presubmits
            .iter()
            .map(|job| (&job.base, &job.reporter))
            .chain(postsubmits.iter().map(|job| (&job.base, &job.reporter)));
        // Who may write the configuration itself may have his reasons; upstream refuses neither.
        for (base, reporter) in reporting {
            if !reporter.skip_report && OUR_CONTEXTS.contains(&reporter.context.as_str()) {
                let message = format!(
                    "context {:?} is what this system itself reports about a pull request: give the job another `context`, or \
                     another name if it has none",
                    reporter.context
                );
                found.push(of_job(base, "context", message));
            }
        }
        // Those of the configuration were found good when it was loaded. They come first: of two that clash it is the
        // later one that is named, and people see its file.
        let all: Vec<_> = self.presubmits(identifier).chain(&presubmits).collect();
        let wrong = job::clashes::presubmit_clashes(&all).into_iter();
        found.extend(wrong.map(|clash| of_job(&all[clash.index].base, clash.field, clash.message)));
        let all: Vec<_> = self.postsubmits(identifier).chain(&postsubmits).collect();
        let wrong = job::clashes::postsubmit_clashes(&all).into_iter();
        found.extend(wrong.map(|clash| of_job(&all[clash.index].base, clash.field, clash.message)));
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
            presubmits,
            postsubmits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadOptions;

    fn files(list: &[(&str, &str)]) -> OwnFiles {
        let files = list.iter().map(|(path, text)| {
            let file = match text.strip_prefix("->") {
                Some(to) => {
                    OwnFile::Dangling(format!("it is a link to {to:?}, which is not there"))
                }
                None => OwnFile::Bytes(Arc::from(text.as_bytes())),
            };
            ((*path).to_owned(), file)
        });
        OwnFiles {
            has_dir: list.iter().any(|(path, _)| path.starts_with(".prow/")),
            files: files.collect(),
        }
    }

    fn config(more: &str) -> Arc<Config> {
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        let text = format!(
            "presubmits:\n  org/repo:\n  - name: central\n    spec: {{containers: [{{image: a}}]}}\n{more}"
        );
        set.insert("config.yaml", text.as_bytes());
        Config::load(&set, LoadOptions::default())
            .accepted()
            .unwrap()
            .0
    }

    fn told_with(more: &str, own: &OwnFiles) -> String {
        let mut found = Vec::new();
        let own = ProwYaml::read(own, &mut found);
        if !found.iter().any(Diagnostic::is_error) {
            match config(more).in_repo_jobs(own, "org/repo") {
                Ok(jobs) => {
                    let presubmits = jobs.presubmits.iter().map(|job| &job.base);
                    let postsubmits = jobs.postsubmits.iter().map(|job| &job.base);
                    found.extend(presubmits.chain(postsubmits).map(|base| {
                        Diagnostic::error(Rule::Invalid, base.source.file.as_ref(), &base.name)
                    }));
                }
                Err(wrong) => found.extend(wrong),
            }
        }
        found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn told(own: &[(&str, &str)]) -> String {
        told_with("", &files(own))
    }

    const OWN: &str = "presubmits: [{name: own, spec: {containers: [{image: a}]}}]";
    const OTHER: &str = "presubmits: [{name: other, spec: {containers: [{image: a}]}}]";

    #[test]
    fn cfg_078_the_directory_wins_over_the_file() {
        assert_eq!(told(&[(".prow.yaml", OWN)]), ".prow.yaml: own");
        let both = [
            (".prow.yaml", OWN),
            (".prow/b/c.yaml", OTHER),
            (".prow/a.txt", "x"),
            (".prowignore", "*.yml"),
            (".prow/d.yml", OWN),
        ];
        assert_eq!(told(&both), ".prow/b/c.yaml: other");
        assert_eq!(told(&[]), "");
        // Without a file that counts it wins, too.
        assert_eq!(told(&[(".prow.yaml", OWN), (".prow/a.txt", "x")]), "");
        // Only what is in the directory can be ignored.
        let ignored = [(".prow.yaml", OWN), (".prowignore", "*")];
        assert_eq!(told(&ignored), ".prow.yaml: own");
        insta::assert_snapshot!(told(&[(".prow", "x"), (".prow.yaml", OWN)]), @r#".prow: reading ".prow": it is a file and not a directory"#);
    }

    #[test]
    fn cfg_104_a_link_to_nothing_fails_the_directory_unless_it_is_ignored() {
        let link = [(".prow/a.yaml", "->../ci/a.yaml"), (".prow/b.yaml", OWN)];
        insta::assert_snapshot!(told(&link), @r#".prow/a.yaml: it is a link to "../ci/a.yaml", which is not there"#);
        let ignored = [link[0], link[1], (".prow/.prowignore", "a.yaml")];
        assert_eq!(told(&ignored), ".prow/b.yaml: own");
        // Upstream finds no file there, and no jobs.
        insta::assert_snapshot!(told(&[(".prow.yaml", "->ci/a.yaml")]), @r#".prow.yaml: it is a link to "ci/a.yaml", which is not there"#);
        let mut found = Vec::new();
        let _ = ProwYaml::read(&files(&[(".prow.yaml", "->ci/a.yaml")]), &mut found);
        assert!(!found[0].is_error());
    }

    #[test]
    fn cfg_079_reading_is_lenient_and_unpacks_nothing() {
        let lenient = format!("periodics: [{{name: x}}]\nprow_ignored: {{a: [b]}}\n{OWN}");
        insta::assert_snapshot!(told(&[(".prow.yaml", &lenient)]), @r#"
        .prow.yaml:1:1: periodics: unknown field "periodics"
        .prow.yaml: own
        "#);
        let packed = OwnFiles {
            has_dir: false,
            files: [(
                FILE.to_owned(),
                OwnFile::Bytes(Arc::from(&[0x1f, 0x8b, 8, 0][..])),
            )]
            .into(),
        };
        insta::assert_snapshot!(told_with("", &packed), @".prow.yaml: it is packed by gzip, which is not unpacked in a repository");
    }

    #[test]
    fn cfg_080_own_and_central_jobs_are_checked_together() {
        let text = "presubmits:\n- name: central\n  spec: {containers: [{image: a}]}\n- name: far\n  cluster: build\n  spec: {containers: [{image: a}]}\n";
        insta::assert_snapshot!(told(&[(".prow.yaml", text)]), @r#"
        .prow.yaml:2:3: presubmits[0].name: duplicated presubmit jobs (consider both inrepo and central config): [central]
        .prow.yaml:4:3: presubmits[1].cluster: cluster "build" is not allowed for repository "org/repo"
        "#);
    }

    /// CFG-088: what a job reports as `in-repo-config` or `tide` would be taken for ours, and ours for the job's.
    #[test]
    fn cfg_088_own_jobs_do_not_take_contexts_that_are_ours() {
        let text = "presubmits:\n- name: unit\n  context: tide\n  spec: {containers: [{image: a}]}\n- name: in-repo-config\n  skip_report: true\n  spec: {containers: [{image: a}]}\npostsubmits:\n- name: in-repo-config\n  spec: {containers: [{image: a}]}\n";
        insta::assert_snapshot!(told(&[(".prow.yaml", text)]), @r#"
        .prow.yaml:2:3: presubmits[0].context: context "tide" is what this system itself reports about a pull request: give the job another `context`, or another name if it has none
        .prow.yaml:9:3: postsubmits[0].context: context "in-repo-config" is what this system itself reports about a pull request: give the job another `context`, or another name if it has none
        "#);
        let ours = "- name: mine\n    context: tide\n    spec: {containers: [{image: a}]}\n";
        assert_eq!(
            told_with(&format!("  {ours}"), &files(&[(".prow.yaml", OWN)])),
            ".prow.yaml: own"
        );
    }

    /// Keys are read in any case, and places are found under them.
    #[test]
    fn cfg_080_a_place_is_found_under_a_key_of_any_case() {
        let text =
            "PreSubmits:\n- name: far\n  cluster: build\n  spec: {containers: [{image: a}]}\n";
        insta::assert_snapshot!(told(&[(".prow.yaml", text)]), @r#".prow.yaml:2:3: presubmits[0].cluster: cluster "build" is not allowed for repository "org/repo""#);
    }

    #[test]
    fn cfg_076_clusters_that_own_jobs_may_use() {
        let text = "presubmits: [{name: far, cluster: build, spec: {containers: [{image: a}]}}]\npostsubmits: [{name: near, spec: {containers: [{image: a}]}}]";
        let with = |allowed: &str| {
            let more = format!("in_repo_config: {{allowed_clusters: {allowed}}}\n");
            told_with(&more, &files(&[(".prow.yaml", text)]))
        };
        insta::assert_snapshot!(with("{org: [build]}"), @r"
        .prow.yaml: far
        .prow.yaml: near
        ");
        insta::assert_snapshot!(with("{'*': [], org/repo: [build]}"), @r#".prow.yaml:2:15: postsubmits[0].cluster: cluster "default" is not allowed for repository "org/repo""#);
    }

    /// CFG-080: presets of the file and of the configuration apply, and those of the file to its own jobs alone.
    #[test]
    fn cfg_080_own_presets_reach_own_jobs_alone() {
        let own = "presets: [{labels: {mine: 'y'}, env: [{name: MINE, value: '1'}]}]\npresubmits: [{name: own, labels: {mine: 'y', ours: 'y'}, spec: {containers: [{image: a}]}}]";
        let config = config(
            "  - name: second\n    labels: {mine: 'y'}\n    spec: {containers: [{image: a}]}\npresets: [{labels: {ours: 'y'}, env: [{name: OURS, value: '2'}]}]\n",
        );
        let mut found = Vec::new();
        let own = ProwYaml::read(&files(&[(".prow.yaml", own)]), &mut found);
        let own = config.in_repo_jobs(own, "org/repo").unwrap();
        let pod = |job: &Presubmit| serde_json::to_string(&job.base.spec).unwrap();
        let own = pod(&own.presubmits[0]);
        assert!(own.contains("MINE") && own.contains("OURS"), "{own}");
        assert!(
            config
                .presubmits("org/repo")
                .all(|job| !pod(job).contains("MINE"))
        );
    }

    #[test]
    fn cfg_087_changes_that_may_touch_own_jobs() {
        assert!(is_touched_by(&["a", ".prow/x.yaml"]));
        assert!(is_touched_by(&[".prow.yaml"]));
        assert!(!is_touched_by(&[".prowx", "a/.prow.yaml"]));
    }

    #[test]
    fn cfg_078_what_is_looked_at() {
        for path in [
            ".prow.yaml",
            ".prowignore",
            ".prow/a.yml",
            ".prow/b/.prowignore",
        ] {
            assert!(wants(path), "{path}");
        }
        for path in ["a.yaml", ".prow/a.json", "b/.prow.yaml"] {
            assert!(!wants(path), "{path}");
        }
    }
}
