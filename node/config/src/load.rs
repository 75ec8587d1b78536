//! Files → configuration (CFG-001…017): parse, merge, default, check. Every problem of a phase is reported, with its
//! place; a phase with errors ends the load.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::config::{Config, JobConfig};
use crate::decode::{Cx, Decode, decode_object};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::FileSet;
use crate::job::{self, AnyJob, JobBase, Source};
use crate::plugins::{PluginConfig, Registry};
use crate::prow::ProwConfig;
use crate::tide;
use crate::yaml::{self, Node, NodeValue, Position};

/// A packed file may not grow beyond this.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// What a load depends on besides the files.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// Instants in the configuration that may not lie ahead are compared with this; without it they are not.
    pub now: Option<Timestamp>,
    /// Two job files of one name in different directories are a warning instead of an error (CFG-007).
    pub allow_duplicate_basenames: bool,
    /// The plugins whose sections are checked; without them every section is carried as it is.
    pub plugins: Option<&'a Registry>,
}

/// A configuration and what was found in it. With errors it is incomplete and not to be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Arc<Config>,
    /// Empty if the layout names no file for plugins.
    pub plugins: Arc<PluginConfig>,
    /// Sorted by file and place.
    pub errors: Vec<Diagnostic>,
    /// Sorted by file and place.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// # Errors
    /// The errors, if there are any.
    pub fn accepted(self) -> Result<(Arc<Config>, Arc<PluginConfig>), Vec<Diagnostic>> {
        if self.errors.is_empty() {
            Ok((self.config, self.plugins))
        } else {
            Err(self.errors)
        }
    }
}

impl Config {
    /// Loads a configuration from files in memory.
    #[must_use]
    pub fn load(files: &FileSet, options: LoadOptions<'_>) -> Loaded {
        let mut loader = Loader {
            options,
            found: Vec::new(),
        };
        let config = loader.config(files);
        let plugins = loader.plugins(files);
        loader.found.sort();
        // Aliases bring the same place up more than once.
        loader.found.dedup();
        let (errors, warnings) = loader.found.into_iter().partition(Diagnostic::is_error);
        Loaded {
            config: Arc::new(config),
            plugins: Arc::new(plugins),
            errors,
            warnings,
        }
    }
}

struct Loader<'a> {
    options: LoadOptions<'a>,
    found: Vec<Diagnostic>,
}

impl Loader<'_> {
    fn failed(&self) -> bool {
        self.found.iter().any(Diagnostic::is_error)
    }

    fn error(&mut self, file: &str, message: impl Into<String>) {
        self.found
            .push(Diagnostic::error(Rule::Invalid, file, message));
    }

    fn config(&mut self, files: &FileSet) -> Config {
        let main = &files.layout.config;
        let root = match files.get(main) {
            None => {
                self.found.push(Diagnostic::error(
                    Rule::File,
                    main,
                    format!("error reading {main}: no such file"),
                ));
                return Config::default();
            }
            Some(bytes) => document(main, bytes, &mut self.found),
        };
        let mut config: Config = decoded(main, root.as_deref(), false, &mut self.found);
        if let Some(root) = &root {
            place_jobs(&mut config.jobs, root, &Arc::from(main.as_str()));
        }
        self.supplementals(files, &mut config.prow);
        let jobs = self.job_files(files);
        if self.failed() {
            return config;
        }

        for finding in config.prow.default_and_check() {
            self.component(main, root.as_deref(), finding);
        }
        if let Some(version) = files.version() {
            config.prow.config_version_sha = String::from_utf8_lossy(version).into_owned();
        }
        config.jobs.all_repos = config
            .prow
            .tide
            .queries
            .iter()
            .flat_map(|query| query.repos.clone())
            .collect();
        let queries = std::mem::take(&mut config.prow.tide.queries);
        config.prow.tide.queries =
            tide::fold_queries(queries, |query| tenants(&config.prow, query));
        if files.layout.jobs.is_some() {
            self.merge_jobs(&mut config.jobs, jobs);
        }
        if let Err(e) = config.prow.plank.finalize_decoration_defaults() {
            self.error(main, e);
        }
        self.default_jobs(&mut config);
        for finding in config.prow.check_components(self.options.now) {
            self.component(main, root.as_deref(), finding);
        }
        self.validate_jobs(&mut config);
        config.prow.deck.known_buckets = known_buckets(&config);
        config
    }

    fn component(&mut self, main: &str, root: Option<&Node>, finding: crate::prow::Finding) {
        let at = root
            .map(|root| place_of(root, finding.field))
            .unwrap_or_default();
        let found = Diagnostic::error(Rule::Invalid, main, finding.message)
            .at(at)
            .field(finding.field);
        self.found.push(found);
    }

    fn supplementals(&mut self, files: &FileSet, prow: &mut ProwConfig) {
        for (path, bytes) in files.supplementals() {
            let Some(root) = document(path, bytes, &mut self.found) else {
                continue;
            };
            let additional: ProwConfig = decoded(path, Some(&root), false, &mut self.found);
            for e in prow.merge(additional) {
                self.error(path, format!("failed to merge in config from {path}: {e}"));
            }
        }
    }

    fn job_files(&mut self, files: &FileSet) -> Vec<JobConfig> {
        let Some(paths) = files.job_files() else {
            let jobs = files.layout.jobs.clone().unwrap_or_default();
            self.found.push(Diagnostic::error(
                Rule::File,
                &jobs,
                format!("error reading {jobs}: no such file or directory"),
            ));
            return Vec::new();
        };
        let mut names = BTreeSet::new();
        let mut unique = Vec::new();
        for (path, bytes) in paths {
            let name = path.rsplit('/').next().unwrap_or(path);
            let doubled = !names.insert(name);
            if doubled {
                let found = Diagnostic::error(
                    Rule::File,
                    path,
                    format!("duplicated basename is not allowed: {name}"),
                );
                if !self.options.allow_duplicate_basenames {
                    self.found.push(found);
                    continue;
                }
                self.found.push(found.warning());
            }
            unique.push((path, bytes));
        }
        let (jobs, found) = parse_in_parallel(&unique);
        self.found.extend(found);
        jobs
    }

    /// CFG-009, CFG-011.
    fn merge_jobs(&mut self, into: &mut JobConfig, from: Vec<JobConfig>) {
        for jobs in from {
            into.presets.extend(jobs.presets);
            into.periodics.extend(jobs.periodics);
            for (repo, jobs) in jobs.presubmits {
                into.presubmits.entry(repo).or_default().extend(jobs);
            }
            for (repo, jobs) in jobs.postsubmits {
                into.postsubmits.entry(repo).or_default().extend(jobs);
            }
        }
        let mut pairs = BTreeSet::new();
        for (label, value) in into
            .presets
            .iter()
            .flat_map(|preset| preset.labels.iter().flatten())
        {
            let pair = format!("{label}:{value}");
            if pairs.contains(&pair) {
                self.error("", format!("duplicated preset 'label:value' pair : {pair}"));
            }
            pairs.insert(pair);
        }
    }

    fn default_jobs(&mut self, config: &mut Config) {
        let Config { jobs, prow } = config;
        let defaults = job::Defaults {
            prow,
            decorate_all_jobs: jobs.decorate_all_jobs,
            presets: jobs.presets.iter().collect(),
        };
        for (repo, jobs) in &mut jobs.presubmits {
            for job in jobs {
                let wrong = defaults.presubmit(job, repo);
                self.found
                    .extend(wrong.into_iter().map(|e| of_job(&job.base, "", e)));
            }
        }
        for (repo, jobs) in &mut jobs.postsubmits {
            for job in jobs {
                let wrong = defaults.postsubmit(job, repo);
                self.found
                    .extend(wrong.into_iter().map(|e| of_job(&job.base, "", e)));
            }
        }
        for job in &mut jobs.periodics {
            let wrong = defaults.periodic(job);
            self.found
                .extend(wrong.into_iter().map(|e| of_job(&job.base, "", e)));
        }
        jobs.all_repos.extend(
            jobs.presubmits
                .keys()
                .chain(jobs.postsubmits.keys())
                .cloned(),
        );
    }

    fn validate_jobs(&mut self, config: &mut Config) {
        for jobs in config.jobs.presubmits.values() {
            let jobs: Vec<_> = jobs.iter().collect();
            for finding in job::validate::presubmits(&config.prow, &jobs) {
                self.found.push(of_job(
                    &jobs[finding.index].base,
                    finding.field,
                    finding.message,
                ));
            }
        }
        for jobs in config.jobs.postsubmits.values() {
            let jobs: Vec<_> = jobs.iter().collect();
            for finding in job::validate::postsubmits(&config.prow, &jobs) {
                self.found.push(of_job(
                    &jobs[finding.index].base,
                    finding.field,
                    finding.message,
                ));
            }
        }
        for finding in job::validate::periodics(&config.prow, &mut config.jobs.periodics) {
            self.found.push(of_job(
                &config.jobs.periodics[finding.index].base,
                finding.field,
                finding.message,
            ));
        }
    }

    fn plugins(&mut self, files: &FileSet) -> PluginConfig {
        let Some(path) = &files.layout.plugins else {
            return PluginConfig::default();
        };
        let Some(bytes) = files.get(path) else {
            self.found.push(Diagnostic::error(
                Rule::File,
                path,
                format!("error reading {path}: no such file"),
            ));
            return PluginConfig::default();
        };
        let main = document(path, bytes, &mut self.found).map(|root| (path.clone(), root));
        let mut sources: Vec<(String, Arc<Node>)> = main.into_iter().collect();
        for (path, bytes) in files.plugin_supplementals() {
            sources
                .extend(document(path, bytes, &mut self.found).map(|root| (path.to_owned(), root)));
        }
        PluginConfig::build(&sources, self.options.plugins, &mut self.found)
    }
}

/// `field` is one of the job's own; empty where the whole job is meant.
pub(crate) fn of_job(base: &JobBase, field: &str, message: String) -> Diagnostic {
    let source = &base.source;
    let at = Position {
        line: source.line,
        column: source.column,
    };
    let found = Diagnostic::error(Rule::Invalid, source.file.as_ref(), message);
    found.at(at).field(source.field(field))
}

/// Unpacks (CFG-008) and parses a file.
pub(crate) fn document(path: &str, bytes: &[u8], found: &mut Vec<Diagnostic>) -> Option<Arc<Node>> {
    let mut unpacked = Vec::new();
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut packed = flate2::read::GzDecoder::new(bytes).take(MAX_UNPACKED_BYTES + 1);
        let read = packed.read_to_end(&mut unpacked);
        if unpacked.len() as u64 > MAX_UNPACKED_BYTES {
            let message =
                format!("error reading {path}: unpacks to more than {MAX_UNPACKED_BYTES} bytes");
            found.push(Diagnostic::error(Rule::File, path, message));
            return None;
        }
        if let Err(e) = read {
            found.push(Diagnostic::error(
                Rule::File,
                path,
                format!("error reading {path}: {e}"),
            ));
            return None;
        }
        &unpacked
    } else {
        bytes
    };
    match yaml::parse(bytes) {
        Ok(document) => {
            for notice in document.notices {
                let rule = if notice.message.starts_with("key ") {
                    Rule::DuplicateKey
                } else {
                    Rule::ExtraDocument
                };
                found.push(
                    Diagnostic::error(rule, path, notice.message)
                        .at(notice.at)
                        .warning(),
                );
            }
            Some(document.root)
        }
        Err(e) => {
            let message = format!("error unmarshalling: {e}");
            found.push(Diagnostic::error(Rule::File, path, message).at(e.at));
            None
        }
    }
}

fn decoded<T: Decode>(
    path: &str,
    root: Option<&Node>,
    coerce: bool,
    found: &mut Vec<Diagnostic>,
) -> T {
    let Some(root) = root else {
        return T::default();
    };
    let mut cx = Cx::new(path, coerce);
    let value = T::decode(root, &mut cx);
    found.append(&mut cx.diagnostics);
    value
}

/// Job files are independent of each other, and the parser is where the time goes.
fn parse_in_parallel(files: &[(&str, &Arc<[u8]>)]) -> (Vec<JobConfig>, Vec<Diagnostic>) {
    type Parsed = (usize, JobConfig, Vec<Diagnostic>);
    let next = AtomicUsize::new(0);
    let parsed: Mutex<Vec<Parsed>> = Mutex::new(Vec::with_capacity(files.len()));
    let work = || {
        while let Some((path, bytes)) = files.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
            let index = files
                .iter()
                .position(|(other, _)| *other == path)
                .unwrap_or_default();
            let mut found = Vec::new();
            let jobs = job_file(path, bytes, &mut found);
            parsed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((index, jobs, found));
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(files.len().max(1));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut parsed = parsed.into_inner().unwrap_or_else(PoisonError::into_inner);
    parsed.sort_by_key(|(index, ..)| *index);
    let mut found = Vec::new();
    let jobs = parsed
        .into_iter()
        .map(|(_, jobs, mut more)| {
            found.append(&mut more);
            jobs
        })
        .collect();
    (jobs, found)
}

fn job_file(path: &str, bytes: &[u8], found: &mut Vec<Diagnostic>) -> JobConfig {
    let Some(root) = document(path, bytes, found) else {
        return JobConfig::default();
    };
    let mut cx = Cx::new(path, true);
    let mut jobs: JobConfig = decode_object(&root, &mut cx);
    found.append(&mut cx.diagnostics);
    place_jobs(&mut jobs, &root, &Arc::from(path));
    jobs
}

/// Tells every job where it stands.
fn place_jobs(jobs: &mut JobConfig, root: &Node, file: &Arc<str>) {
    let items = |node: Option<&Arc<Node>>| match node.map(|node| &node.value) {
        Some(NodeValue::Sequence(items)) => items.clone(),
        _ => Vec::new(),
    };
    let by_repo = |key: &str, repo: &str| {
        let name: Arc<str> = format!("{key}[{repo:?}]").into();
        (
            name,
            items(child(root, key).and_then(|node| child(node, repo))),
        )
    };
    for (repo, jobs) in &mut jobs.presubmits {
        let (list, nodes) = by_repo("presubmits", repo);
        for (n, job) in jobs.iter_mut().enumerate() {
            job.base.source = source(file, &list, n, nodes.get(n));
        }
    }
    for (repo, jobs) in &mut jobs.postsubmits {
        let (list, nodes) = by_repo("postsubmits", repo);
        for (n, job) in jobs.iter_mut().enumerate() {
            job.base.source = source(file, &list, n, nodes.get(n));
        }
    }
    let (list, nodes): (Arc<str>, _) = ("periodics".into(), items(child(root, "periodics")));
    for (n, job) in jobs.periodics.iter_mut().enumerate() {
        job.base.source = source(file, &list, n, nodes.get(n));
    }
}

pub(crate) fn source(
    file: &Arc<str>,
    list: &Arc<str>,
    index: usize,
    node: Option<&Arc<Node>>,
) -> Source {
    let at = node.map_or_else(Position::default, |node| node.at);
    Source {
        file: file.clone(),
        line: at.line,
        column: at.column,
        list: list.clone(),
        index: u32::try_from(index).unwrap_or(u32::MAX),
    }
}

fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Arc<Node>> {
    node.get(key).or_else(|| match &node.value {
        NodeValue::Mapping(entries) => entries
            .iter()
            .find(|entry| entry.key.eq_ignore_ascii_case(key))
            .map(|entry| &entry.value),
        _ => None,
    })
}

/// The place of the deepest part of a dotted path that is present.
fn place_of(root: &Node, field: &str) -> Position {
    let mut node = root;
    for key in field.split('.') {
        match child(node, key) {
            Some(next) => node = next,
            None => break,
        }
    }
    if std::ptr::eq(node, root) {
        Position::default()
    } else {
        node.at
    }
}

/// The tenants of a query's repositories; queries of different tenants are not folded.
fn tenants(prow: &ProwConfig, query: &tide::TideQuery) -> Vec<String> {
    let all = query.orgs.iter().chain(&query.repos);
    let tenants: BTreeSet<_> = all
        .map(|name| prow.prowjob_default(name, "*", None).tenant_id)
        .collect();
    tenants.into_iter().collect()
}

/// CFG-101.
fn known_buckets(config: &Config) -> BTreeSet<String> {
    let plain = |bucket: &str| match bucket.split("://").collect::<Vec<_>>()[..] {
        [_, name] => name.to_owned(),
        _ => bucket.to_owned(),
    };
    let bucket = |decoration: &trireme_prowjob::DecorationConfig| {
        decoration
            .gcs_configuration
            .as_ref()
            .map(|gcs| plain(&gcs.bucket))
    };
    let defaults = config
        .prow
        .plank
        .decoration_defaults
        .iter()
        .filter_map(|entry| bucket(entry.config.as_ref()?));
    let defaults = defaults.filter(|bucket| !bucket.is_empty());
    let jobs = config
        .all_jobs()
        .filter_map(|(_, job): (_, AnyJob<'_>)| bucket(job.base().decoration()?));
    let additional = config.prow.deck.additional_allowed_buckets.iter().cloned();
    additional.chain(defaults).chain(jobs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Layout;

    /// What is only found when all is put together says where it stands as well as what the decoder finds.
    #[test]
    fn every_finding_names_file_line_column_and_field() {
        let mut files = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs".to_owned()),
            plugins: Some("plugins.yaml".to_owned()),
            ..Layout::default()
        });
        let config =
            "tide:\n  queries:\n  - labels: [lgtm]\n  merge_method:\n    org/repo: quash\n";
        let plugins = "plugins:\n  org/repo:\n    plugins: [trigger, nonsense]\n";
        let jobs = "\
presubmits:
  org/repo:
  - name: unit
    always_run: true
    run_if_changed: x
    spec: {containers: [{image: a}]}
  - name: unit
    spec: {containers: [{image: a}]}
  - name: a name
    context: unit
    branches: [main]
    spec: {containers: [{image: a}]}
periodics:
- name: nightly
  cron: '* * *'
  spec: {containers: [{image: a}]}
- name: weekly
  interval: a week
  spec: {containers: [{image: a}]}
";
        for (path, text) in [
            ("config.yaml", config),
            ("plugins.yaml", plugins),
            ("jobs/a.yaml", jobs),
        ] {
            files.insert(path, text.as_bytes().to_vec());
        }
        let found = Config::load(&files, LoadOptions::default()).errors;
        for finding in &found {
            let places = [&finding.file, &finding.field].map(String::is_empty);
            assert_eq!(
                (places, finding.line.min(1), finding.column.min(1)),
                ([false; 2], 1, 1),
                "{finding}"
            );
        }
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        config.yaml:3:5: tide.queries: tide query (index 0) is invalid: 'orgs' and 'repos' cannot both be empty
        config.yaml:5:5: tide.merge_method: tide merge type: merge type "quash" for org/repo is not a valid type
        jobs/a.yaml:3:5: presubmits["org/repo"][0]: job unit is set to always run but also declares run_if_changed targets, which are mutually exclusive
        jobs/a.yaml:3:5: presubmits["org/repo"][0].context: jobs a name and unit report to the same GitHub context "unit"
        jobs/a.yaml:7:5: presubmits["org/repo"][1].context: jobs a name and unit report to the same GitHub context "unit"
        jobs/a.yaml:7:5: presubmits["org/repo"][1].name: duplicated presubmit jobs (consider both inrepo and central config): [unit]
        jobs/a.yaml:9:5: presubmits["org/repo"][2]: invalid presubmit job a name: name: must match regex "^[A-Za-z0-9-._]+$"
        jobs/a.yaml:9:5: presubmits["org/repo"][2].context: jobs unit and a name report to the same GitHub context "unit"
        jobs/a.yaml:14:3: periodics[0].cron: invalid cron string * * * in periodic nightly: expected 5 to 6 fields, found 3: [* * *]
        jobs/a.yaml:17:3: periodics[1].interval: cannot parse duration for weekly: time: invalid duration "a week"
        "#);
    }
}
