//! Files → configuration (CFG-001…017): parse, merge, default, check. Every problem of a phase is reported, with its
//! place; a phase with errors ends the load.
//!
//! `file` is one file by itself, `sections` all that is no job, `jobs` the jobs of a file with their defaults, `cache`
//! what stays the same from one configuration to the next.

mod cache;
mod file;
mod jobs;
mod sections;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use jiff::Timestamp;

pub use cache::ConfigCache;
pub(crate) use file::{document, of_job, source};

use self::cache::{
    KnownDefaults, KnownPlugins, KnownSections, Memory, Reading, Small, Sources, Unchanged,
};
use self::file::JobFile;
use self::jobs::{DefaultedFile, Known};
use self::sections::Sections;
use crate::check::{Warning, follow_up};
use crate::config::{Config, JobConfig};
use crate::diagnostic::{Diagnostic, Rule};
use crate::files::{Content, FileSet, Files};
use crate::job::shared::{MAX_EXPRESSIONS, MAX_GROWTH, MAX_LAYERS, is_too_many, layers_too_large};
use crate::job::{self, Preset};
use crate::parallel::in_parallel;
use crate::plugins::{PluginConfig, Registry};
use crate::prow::ProwConfig;

/// What a load depends on besides the files.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// Instants in the configuration that may not lie ahead are compared with this; without it they are not.
    pub now: Option<Timestamp>,
    /// Two job files of one name in different directories are a warning instead of an error (CFG-007).
    pub allow_duplicate_basenames: bool,
    /// A name in `plugins` that no plugin has is an error instead of a warning: for checkconfig, while a hook that runs
    /// leaves it alone (HOOK-054).
    pub refuse_unknown_plugins: bool,
    /// Judge later phases in spite of the errors of earlier ones, without what only follows from those (CFG-016). Then
    /// there are more errors than upstream tells; whether there are any is the same.
    pub all_phases: bool,
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
        let nothing = ConfigCache::default();
        Loader::new(&nothing, options, false).load(files).0
    }
}

impl ConfigCache {
    /// Loads a configuration; the set need hold only the bytes of what [`Self::missing`] names. Without these there is
    /// nothing but an error for each of them, and the cache stays as it is.
    #[must_use]
    pub fn load(&mut self, files: &FileSet, options: LoadOptions<'_>) -> Loaded {
        let (loaded, next) = Loader::new(self, options, true).load(files);
        if let Some(next) = next {
            self.generation = self.generation.max(next.defaults.generation);
            self.remember(next);
        }
        loaded
    }
}

struct Loader<'a> {
    cache: &'a ConfigCache,
    options: LoadOptions<'a>,
    /// Whether there will be another configuration after this one.
    keep: bool,
    /// What that one will need.
    next: Memory,
    found: Vec<Diagnostic>,
}

impl<'a> Loader<'a> {
    fn new(cache: &'a ConfigCache, options: LoadOptions<'a>, keep: bool) -> Self {
        Self {
            cache,
            options,
            keep,
            next: Memory::default(),
            found: Vec::new(),
        }
    }

    /// Nothing is to be remembered of a load that could not be one.
    fn load(mut self, files: &FileSet) -> (Loaded, Option<Memory>) {
        let reading = Reading::of(files);
        let missing = self.cache.lacking(files, &reading);
        let is_whole = missing.is_empty();
        let (config, plugins) = if is_whole {
            let Reading {
                sections,
                plugins,
                jobs,
            } = reading;
            let sources = sections.iter().chain(&plugins);
            self.next.small = Small::of(self.cache, files, sources);
            (
                self.config(files, sections, jobs),
                self.plugins(files, plugins),
            )
        } else {
            let missing = missing.iter();
            self.found.extend(missing.map(|path| cache::absent(path)));
            Default::default()
        };
        self.found.sort();
        // Aliases bring the same place up more than once.
        self.found.dedup();
        let (errors, warnings): (Vec<_>, _) =
            self.found.into_iter().partition(Diagnostic::is_error);
        let mut next = self.next;
        next.good = errors.is_empty();
        let loaded = Loaded {
            config,
            plugins,
            errors,
            warnings,
        };
        (loaded, is_whole.then_some(next))
    }

    fn failed(&self) -> bool {
        self.found.iter().any(Diagnostic::is_error)
    }

    fn config<'f>(
        &mut self,
        files: &'f FileSet,
        sources: Sources,
        jobs: Option<Files<'f>>,
    ) -> Arc<Config> {
        let main = &files.layout.config;
        if files.content(main).is_none() {
            let message = format!("error reading {main}: no such file");
            self.found
                .push(Diagnostic::error(Rule::File, main, message));
            return Arc::default();
        }
        let sections = self.sections(files, sources);
        self.found.extend(sections.read.iter().cloned());
        let parsed = self.job_files(files, jobs);
        let decorate_all_jobs = sections.jobs.decorate_all_jobs;
        let mut jobs = JobConfig {
            presets: sections.jobs.presets.clone(),
            decorate_all_jobs,
            prow_ignored: sections.jobs.prow_ignored.clone(),
            ..JobConfig::default()
        };
        let first = self.failed().then_some(self.found.len());
        if first.is_some() && !self.options.all_phases {
            return Arc::new(Config {
                jobs,
                prow: sections.prow,
            });
        }

        self.found.extend(sections.checked.iter().cloned());
        let mut origins = vec![main.as_str(); jobs.presets.len()];
        for (path, known) in &parsed {
            let presets = &known.written.jobs.presets;
            jobs.presets.extend(presets.iter().cloned());
            origins.resize(jobs.presets.len(), *path);
        }
        if files.layout.jobs.is_some() {
            self.preset_clashes(&jobs.presets, &origins);
        }
        let main_jobs = Known {
            written: Arc::new(JobFile {
                jobs: sections.jobs,
                found: Vec::new(),
            }),
            defaulted: None,
            bytes: 0,
        };
        let parsed = parsed.into_iter().map(|(path, known)| (Some(path), known));
        // The main file may lie among the job files, and is one of them then as well.
        let parsed = std::iter::once((None, main_jobs)).chain(parsed).collect();
        let defaulted = self.defaulted(main, &sections.prow, &jobs, parsed);
        for file in &defaulted {
            // What is too much together is told once, before.
            let own = file
                .found
                .iter()
                .filter(|found| !is_too_many(&found.message));
            self.found.extend(own.cloned());
            jobs.periodics.extend(file.periodics.iter().cloned());
        }
        let former: Vec<_> = self.cache.memories().collect();
        jobs.presubmits = self.next.presubmits.merge(
            &former.iter().map(|of| &of.presubmits).collect::<Vec<_>>(),
            defaulted.iter().map(|file| &file.presubmits),
            jobs::presubmit_clashes,
            &mut self.found,
        );
        jobs.postsubmits = self.next.postsubmits.merge(
            &former.iter().map(|of| &of.postsubmits).collect::<Vec<_>>(),
            defaulted.iter().map(|file| &file.postsubmits),
            jobs::postsubmit_clashes,
            &mut self.found,
        );
        self.found.extend(jobs::periodic_clashes(&jobs.periodics));

        let queries = &sections.prow.tide.queries;
        jobs.all_repos = queries
            .iter()
            .flat_map(|query| &query.repos)
            .chain(jobs.presubmits.keys())
            .chain(jobs.postsubmits.keys())
            .cloned()
            .collect();
        jobs.known_buckets = known_buckets(&sections.prow, &defaulted);
        if self.keep {
            self.next.defaults.shared.prune();
        }
        let config = Config {
            jobs,
            prow: sections.prow,
        };
        if let Some(first) = first {
            let later = self.found.split_off(first);
            let later = follow_up::without(&config, files, &self.found, later);
            self.found.extend(later);
        }
        Arc::new(config)
    }

    fn sections(&mut self, files: &FileSet, sources: Sources) -> Sections {
        let all_phases = self.options.all_phases;
        let known = || self.cache.memories().filter_map(|of| of.sections.as_ref());
        let same = known().find(|known| {
            known.sources == sources
                && known.all_phases == all_phases
                // What is wrong may be right later: an instant that lay ahead.
                && known.sections.checked.is_empty()
        });
        if let Some(same) = same {
            self.next.sections = Some(same.clone());
            return same.sections.clone();
        }
        let mut shards = Unchanged::default();
        let former: Vec<_> = known().map(|known| &known.shards).collect();
        let sections = Sections::load(files, &self.next.small, &mut shards, &former, self.options);
        self.next.sections = Some(Arc::new(KnownSections {
            sources,
            all_phases,
            shards,
            sections: sections.clone(),
        }));
        sections
    }

    /// The job files in their order, each as it is written.
    fn job_files<'f>(
        &mut self,
        files: &'f FileSet,
        paths: Option<Files<'f>>,
    ) -> Vec<(&'f str, Known)> {
        let Some(paths) = paths else {
            let jobs = files.layout.jobs.clone().unwrap_or_default();
            let message = format!("error reading {jobs}: no such file or directory");
            self.found
                .push(Diagnostic::error(Rule::File, &jobs, message));
            return Vec::new();
        };
        let unique = self.unique(paths);
        let size = |(_, content): &(&str, &Content)| content.bytes().map_or(0, |bytes| bytes.len());
        let cache = self.cache;
        let parsed = in_parallel(&unique, size, |(path, content)| {
            let mut known = cache
                .memories()
                .filter_map(|of| of.job_file(path, content.id()));
            if let Some(known) = known.next() {
                return known.clone();
            }
            // Bytes that are not there were told before.
            let bytes = content.bytes().map_or(&[][..], |bytes| bytes);
            Known {
                written: Arc::new(JobFile::parse(path, bytes)),
                defaulted: None,
                bytes: bytes.len(),
            }
        });
        for known in &parsed {
            self.found.extend(known.written.found.iter().cloned());
        }
        if self.keep {
            self.next.job_files = unique
                .iter()
                .zip(&parsed)
                .map(|((path, content), known)| {
                    ((*path).to_owned(), (*content.id(), known.clone()))
                })
                .collect();
        }
        unique
            .into_iter()
            .map(|(path, _)| path)
            .zip(parsed)
            .collect()
    }

    /// CFG-006, CFG-007.
    fn unique<'f>(&mut self, paths: Vec<(&'f str, &'f Content)>) -> Vec<(&'f str, &'f Content)> {
        let mut names = HashMap::with_capacity_and_hasher(paths.len(), RandomState::default());
        let mut unique = Vec::with_capacity(paths.len());
        for (path, content) in paths {
            let name = path.rsplit('/').next().unwrap_or(path);
            if let Some(first) = names.get(name) {
                let message = format!("duplicated basename is not allowed: {name}");
                let rule = Rule::Warning(Warning::DuplicateBasename);
                let found = Diagnostic::error(rule, path, message).help(format!(
                    "Prow refuses a second file of this name; the first is {first}"
                ));
                if self.options.allow_duplicate_basenames {
                    self.found.push(found.warning());
                } else {
                    self.found.push(found);
                    if !self.options.all_phases {
                        continue;
                    }
                }
            } else {
                names.insert(name, path);
            }
            unique.push((path, content));
        }
        unique
    }

    /// CFG-011. `origins` are the files that the presets stand in.
    fn preset_clashes(&mut self, presets: &[Preset], origins: &[&str]) {
        let mut pairs = HashMap::new();
        for (preset, file) in presets.iter().zip(origins) {
            for pair in preset.labels.iter().flatten() {
                let Some(first) = pairs.insert(pair, file) else {
                    continue;
                };
                let (label, value) = pair;
                let message = format!("duplicated preset 'label:value' pair : {label}:{value}");
                let found = Diagnostic::error(Rule::Invalid, *file, message).field("presets");
                self.found
                    .push(found.help(format!("the other one is in {first}")));
            }
        }
    }

    /// Every file with its defaults, in the same order.
    fn defaulted(
        &mut self,
        main: &str,
        prow: &ProwConfig,
        jobs: &JobConfig,
        files: Vec<(Option<&str>, Known)>,
    ) -> Vec<Arc<DefaultedFile>> {
        let depends_on = Some(looked_at(prow, jobs));
        let cache = self.cache;
        let mut known = cache.memories().map(|of| &of.defaults);
        let known = known.find(|known| known.depends_on == depends_on && known.shared.has_room());
        let known = known.cloned();
        self.next.defaults = known.unwrap_or_else(|| KnownDefaults {
            depends_on,
            generation: cache.generation + 1,
            shared: Arc::default(),
        });
        let generation = self.next.defaults.generation;
        let shared = self.next.defaults.shared.clone();
        let presets = jobs.presets.iter();
        let defaults = job::Defaults::new(prow, jobs.decorate_all_jobs, presets, &shared);
        let growths = in_parallel(
            &files,
            |_| 0,
            |(_, known)| known.growth(&defaults, generation),
        );
        let growth = growths.iter().sum();
        shared.begin(growth);
        // Each is taken by the one thread that works on it: what nobody else holds is changed in place.
        let files: Vec<_> = files
            .into_iter()
            .zip(growths)
            .map(|((path, known), growth)| {
                let is_done = known.with_defaults(generation).is_some();
                let jobs = if is_done {
                    0
                } else {
                    known.written.jobs.count()
                };
                (path, jobs, growth, Mutex::new(Some(known)))
            })
            .collect();
        let remembered = &self.next.job_files;
        let done = in_parallel(
            &files,
            |(_, count, ..)| *count,
            |(path, _, growth, known)| {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner).take();
                let known = known?;
                if let Some(defaulted) = known.with_defaults(generation) {
                    return Some((None, defaulted));
                }
                // The newest has the file with other defaults; an older one may have it with these.
                let id = path.and_then(|path| Some((path, &remembered.get(path)?.0)));
                let older = id.and_then(|(path, id)| {
                    let mut known = cache.memories().filter_map(|of| of.job_file(path, id));
                    known.find_map(|known| known.with_defaults(generation))
                });
                if let Some(defaulted) = older {
                    return Some((*path, defaulted));
                }
                let written = Arc::unwrap_or_clone(known.written);
                let defaulted = Arc::new(DefaultedFile::new(written.jobs, *growth, &defaults));
                Some((*path, defaulted))
            },
        );
        let mut defaulted = Vec::with_capacity(done.len());
        for (new, file) in done.into_iter().flatten() {
            if let Some(path) = new
                && let Some((_, known)) = self.next.job_files.get_mut(path)
            {
                known.defaulted = Some((generation, file.clone()));
            }
            defaulted.push(file);
        }
        self.too_much_together(main, &defaulted, &defaults, growth);
        defaulted
    }

    /// What is refused because of all the rest while the files are read by several threads is chance; which job is one too
    /// many is not.
    fn too_much_together(
        &mut self,
        main: &str,
        files: &[Arc<DefaultedFile>],
        defaults: &job::Defaults<'_>,
        growth: u64,
    ) {
        let shared = &self.next.defaults.shared;
        if shared.has_room() && growth <= MAX_GROWTH {
            return;
        }
        if shared.weight() > MAX_EXPRESSIONS {
            self.found.extend(jobs::too_many_expressions(files));
        }
        if shared.layers() > MAX_LAYERS && jobs::bytes_of_layers(files) > MAX_LAYERS {
            let message = layers_too_large(MAX_LAYERS);
            let found = Diagnostic::error(Rule::Invalid, main, message);
            self.found
                .push(found.field("plank.default_decoration_config_entries"));
        }
        if growth > MAX_GROWTH {
            self.found.extend(jobs::too_large_presets(files, defaults));
        }
        // Jobs to which something was refused are looked at again in another configuration.
        self.next.defaults.depends_on = None;
    }

    fn plugins(&mut self, files: &FileSet, sources: Sources) -> Arc<PluginConfig> {
        let Some(path) = &files.layout.plugins else {
            return Arc::default();
        };
        if files.content(path).is_none() {
            let message = format!("error reading {path}: no such file");
            self.found
                .push(Diagnostic::error(Rule::File, path, message));
            return Arc::default();
        }
        let registry = self
            .options
            .plugins
            .map(|registry| registry.identity().clone());
        let known = || self.cache.memories().filter_map(|of| of.plugins.as_ref());
        let refuse_unknown = self.options.refuse_unknown_plugins;
        let same = known().find(|known| {
            known.sources == sources
                && known.registry == registry
                && known.refuse_unknown == refuse_unknown
        });
        if let Some(same) = same {
            self.next.plugins = Some(same.clone());
            self.found.extend(same.found.iter().cloned());
            return same.plugins.clone();
        }
        let mut found = Vec::new();
        let mut unchanged = Unchanged::default();
        let mut roots = Vec::with_capacity(sources.len());
        for (path, id) in &sources {
            let former = known().map(|known| &known.roots);
            let root = unchanged.get(former, path, id, || {
                let mut found = Vec::new();
                let bytes = self.next.small.bytes(files, path, &mut found);
                let root = bytes.and_then(|bytes| document(path, &bytes, &mut found));
                (root, found)
            });
            found.extend(root.1.iter().cloned());
            roots.extend(root.0.clone().map(|root| (path.clone(), root)));
        }
        let plugins = PluginConfig::build(&roots, self.options, &mut found);
        let plugins = Arc::new(plugins);
        self.found.extend(found.iter().cloned());
        self.next.plugins = Some(Arc::new(KnownPlugins {
            sources,
            registry,
            refuse_unknown,
            roots: unchanged,
            plugins: plugins.clone(),
            found,
        }));
        plugins
    }
}

/// The files for plugins, in the order in which they are merged.
fn plugin_sources(files: &FileSet) -> Sources {
    let Some(main) = files.layout.plugins.as_deref() else {
        return Vec::new();
    };
    let main = files.content(main).map(|content| (main, content));
    main.into_iter()
        .chain(files.plugin_supplementals())
        .map(|(path, content)| (path.to_owned(), *content.id()))
        .collect()
}

/// All that the defaulting and checking of a job looks at besides the job itself, as text.
fn looked_at(prow: &ProwConfig, jobs: &JobConfig) -> String {
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        prow.pod_namespace,
        prow.plank.decoration_defaults,
        prow.plank.job_queue_capacities,
        prow.prowjob_default_entries,
        jobs.decorate_all_jobs,
        jobs.presets,
    )
}

/// CFG-101.
fn known_buckets(prow: &ProwConfig, files: &[Arc<DefaultedFile>]) -> BTreeSet<String> {
    let defaults = prow.plank.decoration_defaults.iter();
    let defaults = defaults
        .filter_map(|entry| jobs::bucket(entry.config.as_ref()?))
        .filter(|bucket| !bucket.is_empty());
    let jobs = files.iter().flat_map(|file| &file.buckets);
    let additional = &prow.deck.additional_allowed_buckets;
    let mut all: BTreeSet<&str> = additional.iter().map(String::as_str).collect();
    all.extend(defaults.chain(jobs.map(String::as_str)));
    all.into_iter().map(str::to_owned).collect()
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
