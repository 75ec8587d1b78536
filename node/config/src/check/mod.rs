//! checkconfig: a load in all its phases, and what can be said about a configuration that loads (CFG-110…119). Pure:
//! what must be asked of others, GitHub and the build clusters, is given.
//!
//! One module per group of warnings; `refine` finds the places of fields, `sources` those of keys in the main files.

pub(crate) mod follow_up;
mod hierarchy;
mod jobs;
mod org_repos;
mod overlap;
mod plugins;
mod protection;
mod refine;
mod sources;
mod tide;
mod warning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

pub use org_repos::OrgRepos;
pub use plugins::{about_owners, missing_installations, missing_owners, repos_using_owners};
pub use warning::{Enabled, Set, UnknownWarning, Warning};

use crate::config::Config;
use crate::diagnostic::{Diagnostic, Rule, Severity};
use crate::files::FileSet;
use crate::in_repo::{OwnFiles, ProwYaml};
use crate::job::{AnyJob, JobBase};
use crate::load::{LoadOptions, Loaded};
use follow_up::{Broken, job_of};
use sources::{Place, Sources};

/// A repository on this disk that has jobs of its own.
#[derive(Clone, Debug, Default)]
pub struct Checkout {
    /// `org/repo`, or a Gerrit repository with its scheme.
    pub identifier: String,
    /// Where it is, for reports.
    pub dir: String,
    pub own: OwnFiles,
}

impl Checkout {
    /// The path of a file as reports name it.
    #[must_use]
    pub fn told(&self, path: &str) -> String {
        match self.dir.trim_end_matches('/') {
            "" if self.dir.is_empty() => path.to_owned(),
            dir => format!("{dir}/{path}"),
        }
    }

    /// The content of a file that reports name so.
    #[must_use]
    pub fn bytes(&self, told: &str) -> Option<&Arc<[u8]>> {
        let mut paths = self.own.files.keys();
        self.own.bytes(paths.find(|path| self.told(path) == told)?)
    }

    fn has(&self, path: &str) -> bool {
        self.own.files.contains_key(path)
    }
}

/// What a check looks for, and what it must be told.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    pub enabled: Enabled,
    /// Annotations that every job must have.
    pub required_job_annotations: Vec<String>,
    /// What plank wrote about the build clusters, by alias; none if it wrote nothing yet.
    pub cluster_statuses: Option<BTreeMap<String, String>>,
    pub checkout: Option<Checkout>,
}

/// What checkconfig found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub presubmits: usize,
    pub postsubmits: usize,
    pub periodics: usize,
    /// Any of these makes the configuration unusable.
    pub errors: Vec<Diagnostic>,
    /// By file and place, as all of these.
    pub warnings: Vec<Diagnostic>,
    /// Good to know; they count for nothing.
    pub notes: Vec<Diagnostic>,
    /// How many of the warnings `--strict` does not mind ([`Enabled::counts`]).
    #[serde(skip)]
    pub unminded: usize,
}

impl Report {
    /// Whether the configuration may be used; with `strict`, whether there is nothing to say about it either.
    #[must_use]
    pub fn passes(&self, strict: bool) -> bool {
        self.errors.is_empty() && (!strict || self.warnings.len() == self.unminded)
    }

    /// Adds findings and sorts them in.
    pub fn add(&mut self, found: Vec<Diagnostic>) {
        for finding in found {
            match finding.severity {
                Severity::Error => self.errors.push(finding),
                Severity::Warning => self.warnings.push(finding),
                Severity::Note => self.notes.push(finding),
            }
        }
        for list in [&mut self.errors, &mut self.warnings, &mut self.notes] {
            list.sort();
            list.dedup();
        }
    }
}

/// Loads a configuration in all phases, so that everything wrong is found at once (CFG-016).
#[must_use]
pub fn load(files: &FileSet, options: LoadOptions<'_>) -> Loaded {
    let options = LoadOptions {
        all_phases: true,
        ..options
    };
    Config::load(files, options)
}

/// Says everything about what [`load`] made of files. Warnings about what could not be read are left out.
#[must_use]
pub fn check(files: &FileSet, loaded: &Loaded, options: &CheckOptions) -> Report {
    let (presubmits, postsubmits, periodics) = loaded.config.job_counts();
    let mut report = Report {
        presubmits,
        postsubmits,
        periodics,
        ..Report::default()
    };
    let mut found = loaded.errors.clone();
    found.extend(of_load(files, &loaded.warnings, &options.enabled));
    let errors: Vec<_> = loaded.errors.iter().collect();
    let broken = Broken::new(&errors);
    let of_jobs_without_errors = |finding: &Diagnostic| {
        job_of(&finding.field).is_none_or(|job| !broken.has(&finding.file, job))
    };
    found.extend(
        warnings(files, loaded, options)
            .into_iter()
            .filter(of_jobs_without_errors),
    );
    refine::refine(&mut found, |path| files.get(path));
    report.add(found);
    if let Some(checkout) = &options.checkout {
        let mut found = in_repo(loaded, checkout, &options.enabled);
        refine::refine(&mut found, |path| {
            checkout.own.bytes(path).or_else(|| files.get(path))
        });
        for finding in &mut found {
            if checkout.has(&finding.file) {
                finding.file = checkout.told(&finding.file);
            }
        }
        report.add(found);
    }
    let is_minded = |found: &Diagnostic| match found.rule {
        Rule::Warning(warning) => options.enabled.counts(warning),
        _ => true,
    };
    let warnings = report.warnings.iter();
    report.unminded = warnings.filter(|found| !is_minded(found)).count();
    report
}

/// What the load warned of, under the names of the warnings that are asked for.
fn of_load(files: &FileSet, warnings: &[Diagnostic], enabled: &Enabled) -> Vec<Diagnostic> {
    let layout = &files.layout;
    let shards: BTreeSet<&str> = files
        .supplementals()
        .into_iter()
        .chain(files.plugin_supplementals())
        .map(|(path, _)| path)
        .collect();
    let name = |found: &Diagnostic| match found.rule {
        Rule::UnknownField => {
            let file = found.file.as_str();
            let of_main = file == layout.config || layout.plugins.as_deref() == Some(file);
            if enabled.has(Warning::UnknownFieldsAll) {
                Some(Warning::UnknownFieldsAll)
            } else {
                (of_main || shards.contains(file)).then_some(Warning::UnknownFields)
            }
        }
        Rule::DuplicateKey => Some(Warning::DuplicateKey),
        Rule::ExtraDocument => Some(Warning::ExtraDocument),
        Rule::Warning(warning) => Some(warning),
        Rule::File | Rule::Type | Rule::Invalid => None,
    };
    warnings
        .iter()
        .filter_map(|found| {
            let warning = name(found).filter(|warning| enabled.has(*warning))?;
            let found = found.clone().rule(Rule::Warning(warning));
            let is_unread = matches!(warning, Warning::UnknownFields | Warning::UnknownFieldsAll);
            let is_manifest = is_unread && found.field == "apiVersion";
            Some(if is_manifest {
                found.help(
                    "this is a Kubernetes manifest: give the file that stands in its data instead",
                )
            } else {
                found
            })
        })
        .collect()
}

fn warnings(files: &FileSet, loaded: &Loaded, options: &CheckOptions) -> Vec<Diagnostic> {
    let (config, plugin_config) = (&*loaded.config, &*loaded.plugins);
    let prow = &config.prow;
    let enabled = &options.enabled;
    let of_config = Sources::of_config(files);
    let of_plugins = Sources::of_plugins(files);
    let unread = |of: &Sources<'_>| {
        let is_unread = |found: &Diagnostic| {
            matches!(found.rule, Rule::File | Rule::Type) && of.has(&found.file)
        };
        loaded.errors.iter().any(is_unread)
    };
    let config_read = !unread(&of_config);
    let plugins_read = files.layout.plugins.is_some() && !unread(&of_plugins);
    let both_read = config_read && plugins_read;
    let wanted = |warning: Warning, judged: bool| enabled.has(warning) && judged;
    let mut found = Vec::new();

    let tide =
        |lenient| tide::requirements(config, plugin_config, lenient, &of_config, &of_plugins);
    if wanted(Warning::MismatchedTide, both_read) {
        found.extend(tide(false));
    } else if wanted(Warning::MismatchedTideLenient, both_read) {
        found.extend(tide(true));
    }
    if wanted(Warning::NonDecoratedJobs, config_read) {
        found.extend(jobs::non_decorated(config));
    }
    if wanted(Warning::ValidDecorationConfig, config_read) {
        found.extend(jobs::decoration(config));
    }
    if wanted(Warning::LongJobNames, true) {
        found.extend(jobs::long_names(config));
    }
    if wanted(Warning::DuplicateJobRefs, true) {
        found.extend(jobs::duplicate_refs(config));
    }
    if wanted(Warning::PeriodicDefaultCloneConfig, true) {
        found.extend(jobs::periodic_clone(config));
    }
    if wanted(Warning::NeedsOkToTest, config_read) {
        found.extend(tide::needs_ok_to_test(prow, &of_config));
    }
    if wanted(Warning::ManagedWebhooks, config_read) {
        found.extend(protection::webhooks(prow, &of_config));
    }
    if wanted(Warning::ValidateOwners, plugins_read) {
        found.extend(plugins::owners(plugin_config, &of_plugins));
    }
    if wanted(Warning::MissingTrigger, plugins_read) {
        found.extend(plugins::missing_trigger(config, plugin_config));
    }
    if wanted(Warning::ValidateUrls, both_read) {
        found.extend(protection::urls(prow, &of_config));
    }
    if wanted(Warning::TideStrictBranch, config_read) {
        found.extend(tide::strict_branches(prow, &of_config));
    }
    if wanted(Warning::TideContextPolicy, config_read) {
        found.extend(tide::context_policy(config, &of_config));
    }
    if wanted(Warning::ValidateClusterField, true) {
        found.extend(jobs::cluster(config, options.cluster_statuses.as_ref()));
    }
    if wanted(Warning::ValidateSupplementalProwConfigHierarchy, true) {
        let is_broken = |file: &str| loaded.errors.iter().any(|error| error.file == file);
        let misplaced = hierarchy::check(files).into_iter();
        found.extend(misplaced.filter(|finding| !is_broken(&finding.file)));
    }
    if wanted(
        Warning::ValidateUnmanagedBranchconfigHasNoSubconfig,
        config_read,
    ) {
        found.extend(protection::unmanaged(prow, &of_config));
    }
    if wanted(Warning::ValidateLabel, plugins_read) {
        found.extend(plugins::labels(plugin_config, &of_plugins));
    }
    if wanted(Warning::ValidateConfigUpdaterAcls, plugins_read) {
        found.extend(plugins::config_updater(plugin_config, &of_plugins));
    }
    if wanted(Warning::RequiredJobAnnotations, true) {
        found.extend(jobs::annotations(config, &options.required_job_annotations));
    }
    if wanted(Warning::ExtraRefsCloneUri, true) {
        found.extend(jobs::extra_refs(config));
    }
    if wanted(Warning::PodlessJobs, true) {
        found.extend(jobs::podless(config));
    }
    if wanted(Warning::UnknownAgent, true) {
        found.extend(jobs::agents(config));
    }
    if wanted(Warning::UnknownState, config_read) {
        found.extend(jobs::states(config));
        found.extend(protection::states(prow, &of_config));
    }
    if wanted(Warning::OverlappingBranches, true) {
        found.extend(overlap::check(config));
    }
    if config_read {
        for (_, job) in config.all_jobs() {
            if let AnyJob::Presubmit(job) = job
                && let Some(message) = jobs::rerun_command_problem(config, job)
            {
                found.push(about_job(
                    &job.base,
                    "rerun_command",
                    Rule::Invalid,
                    message,
                ));
            }
        }
    }
    found
}

/// CFG-113: the repository's own files together with the configuration. All of it is an error.
fn in_repo(loaded: &Loaded, checkout: &Checkout, enabled: &Enabled) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let read = ProwYaml::read(&checkout.own, &mut found);
    let strict = enabled.has(Warning::UnknownFieldsAll);
    found.retain(|finding| {
        finding.is_error()
            || match finding.rule {
                Rule::UnknownField => strict,
                Rule::DuplicateKey => enabled.has(Warning::DuplicateKey),
                Rule::ExtraDocument => enabled.has(Warning::ExtraDocument),
                _ => true,
            }
    });
    for finding in &mut found {
        if finding.rule == Rule::UnknownField {
            finding.severity = Severity::Error;
        }
        if finding.is_error() {
            finding.message = format!("failed to read Prow YAML: {}", finding.message);
        }
    }
    // Judged with defaults that could not be read, they would only follow.
    if found.iter().any(Diagnostic::is_error) || !loaded.errors.is_empty() {
        return found;
    }
    match loaded.config.in_repo_jobs(read, &checkout.identifier) {
        Ok(jobs) => {
            for job in &jobs.presubmits {
                if let Some(message) = jobs::rerun_command_problem(&loaded.config, job) {
                    found.push(crate::load::of_job(&job.base, "rerun_command", message));
                }
            }
        }
        Err(wrong) => found.extend(wrong.into_iter().map(|finding| Diagnostic {
            message: format!("failed to validate Prow YAML: {}", finding.message),
            ..finding
        })),
    }
    found
}

fn warning(rule: Warning, message: impl Into<String>, place: Option<Place>) -> Diagnostic {
    let Place { file, field, at } = place.unwrap_or(Place {
        file: String::new(),
        field: String::new(),
        at: crate::yaml::Position::default(),
    });
    Diagnostic::error(Rule::Warning(rule), file, message)
        .at(at)
        .field(field)
        .warning()
}

fn of_job(job: &JobBase, field: &str, rule: Warning, message: String) -> Diagnostic {
    about_job(job, field, Rule::Warning(rule), message)
}

fn about_job(job: &JobBase, field: &str, rule: Rule, message: String) -> Diagnostic {
    crate::load::of_job(job, field, message)
        .rule(rule)
        .warning()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Layout;
    use crate::plugins::{PROW_PLUGINS, Problem, Registry, Section};

    /// Files of a test, and what is looked for in them.
    pub(super) struct Files {
        set: FileSet,
        options: CheckOptions,
    }

    impl Default for Files {
        fn default() -> Self {
            let mut set = FileSet::new(Layout {
                config: "config.yaml".to_owned(),
                jobs: Some("jobs".to_owned()),
                ..Layout::default()
            });
            set.insert("jobs/.prowignore", Vec::new());
            set.insert("config.yaml", Vec::new());
            Self {
                set,
                options: CheckOptions::default(),
            }
        }
    }

    impl Files {
        pub(super) fn file(mut self, path: &str, text: &str) -> Self {
            self.set.insert(path, text.as_bytes());
            self
        }

        pub(super) fn config(self, text: &str) -> Self {
            self.file("config.yaml", text)
        }

        pub(super) fn job_file(self, path: &str, text: &str) -> Self {
            self.file(path, text)
        }

        pub(super) fn plugins(mut self, text: &str) -> Self {
            self.set.layout.plugins = Some("plugins.yaml".to_owned());
            self.file("plugins.yaml", text)
        }

        pub(super) fn supplements(mut self, dir: &str, suffix: &str, plugin_suffix: &str) -> Self {
            let layout = &mut self.set.layout;
            layout.supplemental_dirs = vec![dir.to_owned()];
            layout.supplemental_suffix = suffix.to_owned();
            layout.plugin_supplemental_dirs = vec![dir.to_owned()];
            layout.plugin_supplemental_suffix = plugin_suffix.to_owned();
            self
        }

        pub(super) fn annotations(mut self, names: &[&str]) -> Self {
            self.options.required_job_annotations =
                names.iter().map(|name| (*name).to_owned()).collect();
            self
        }

        pub(super) fn clusters(mut self, statuses: &[(&str, &str)]) -> Self {
            let owned = statuses
                .iter()
                .map(|(alias, status)| ((*alias).to_owned(), (*status).to_owned()));
            self.options.cluster_statuses = Some(owned.collect());
            self
        }

        fn own(mut self, files: &[(&str, &str)]) -> Self {
            let file = |(path, text): &(&str, &str)| {
                (
                    (*path).to_owned(),
                    crate::in_repo::OwnFile::Bytes(Arc::from(text.as_bytes())),
                )
            };
            self.options.checkout = Some(Checkout {
                identifier: "o/r".to_owned(),
                dir: "here".to_owned(),
                own: OwnFiles {
                    has_dir: false,
                    files: files.iter().map(file).collect(),
                },
            });
            self
        }

        fn report(mut self, named: &[&str], registry: Option<&Registry>) -> Report {
            let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
            self.options.enabled = Enabled::new(&named, &[], false, false, false).unwrap();
            let options = LoadOptions {
                plugins: registry,
                allow_duplicate_basenames: true,
                refuse_unknown_plugins: true,
                ..LoadOptions::default()
            };
            let loaded = load(&self.set, options);
            check(&self.set, &loaded, &self.options)
        }
    }

    /// Everything that was found, in the order of the report.
    pub(super) fn told(files: Files, warnings: &[&str]) -> String {
        lines(&files.report(warnings, None))
    }

    fn lines(report: &Report) -> String {
        let found = report
            .errors
            .iter()
            .chain(&report.warnings)
            .map(ToString::to_string);
        let notes = report.notes.iter().map(|note| format!("note: {note}"));
        found.chain(notes).collect::<Vec<_>>().join("\n")
    }

    fn report(files: &[(&str, &str)], registry: Option<&Registry>) -> Report {
        let all = files.iter().fold(Files::default(), |all, (path, text)| {
            if *path == "plugins.yaml" {
                all.plugins(text)
            } else {
                all.file(path, text)
            }
        });
        all.report(&["unknown-fields-all"], registry)
    }

    #[test]
    fn cfg_024_unknown_fields_by_the_file_that_they_stand_in() {
        let files = || {
            Files::default()
                .config("tide: {sync_perod: 1m}\n")
                .plugins("plugin: {}\n")
                .job_file("jobs/a.yaml", "presubmits:\n  o/r:\n  - {name: a, alwaysrun: true, spec: {containers: [{image: i, evn: []}]}}\n")
                .supplements("sup", "_prowconfig.yaml", "_pluginconfig.yaml")
                .file("sup/x_prowconfig.yaml", "tide: {querys: []}\n")
        };
        insta::assert_snapshot!(told(files(), &["unknown-fields"]), @r#"
        config.yaml:1:8: tide.sync_perod: unknown field "sync_perod"; did you mean "sync_period"?
        plugins.yaml:1:1: plugin: unknown field "plugin"; did you mean "plugins"?
        sup/x_prowconfig.yaml:1:8: tide.querys: unknown field "querys"; did you mean "queries"?
        "#);
        let all = told(files(), &["unknown-fields-all", "unknown-fields"]);
        let of_jobs: Vec<_> = all
            .lines()
            .filter(|line| line.starts_with("jobs/"))
            .collect();
        insta::assert_snapshot!(of_jobs.join("\n"), @r#"
        jobs/a.yaml:3:15: presubmits["o/r"][0].alwaysrun: unknown field "alwaysrun"; did you mean "always_run"?
        jobs/a.yaml:3:63: presubmits["o/r"][0].spec.containers[0].evn: unknown field "evn"; did you mean "env"?
        "#);
        assert_eq!(all.lines().count(), 5, "{all}");
        assert_eq!(told(files(), &["long-job-names"]), "");
        let manifest = told(
            Files::default().config("apiVersion: v1\nkind: ConfigMap\n"),
            &["unknown-fields"],
        );
        assert!(
            manifest.contains("this is a Kubernetes manifest"),
            "{manifest}"
        );
        let section = report(
            &[("plugins.yaml", "size: {nams: [a]}\n")],
            Some(&registry()),
        );
        insta::assert_snapshot!(lines(&section), @r#"plugins.yaml:1:8: size.nams: unknown field "nams"; did you mean "names"?"#);
        // What is there already was not meant.
        let files = [(
            "plugins.yaml",
            "size: {Names: [a], nams: [a]}\nplugins: {}\nplugin: {}\n",
        )];
        insta::assert_snapshot!(lines(&report(&files, Some(&registry()))), @r#"
        plugins.yaml:1:20: size.nams: unknown field "nams"
        plugins.yaml:3:1: plugin: unknown field "plugin"
        "#);
    }

    #[test]
    fn cfg_026_doubled_keys_and_second_documents() {
        let config = "log_level: info\nlog_level: debug\n---\na: 1\n";
        let files = || Files::default().config(config);
        insta::assert_snapshot!(told(files(), &[]), @r#"
        config.yaml:2:1: key "log_level" is already set in line 1; the last one counts
        config.yaml:3:1: only the first document of a file is read; this one is ignored
        "#);
        assert_eq!(told(files(), &["unknown-fields"]), "");
    }

    #[test]
    fn cfg_007_two_job_files_of_one_name_are_a_warning() {
        let files = || {
            Files::default()
                .job_file("jobs/a/x.yaml", "")
                .job_file("jobs/b/x.yaml", "")
        };
        insta::assert_snapshot!(told(files(), &["duplicate-basename"]), @"jobs/b/x.yaml: duplicated basename is not allowed: x.yaml; Prow refuses a second file of this name; the first is jobs/a/x.yaml");
        let refused = Config::load(&files().set, LoadOptions::default());
        assert_eq!(refused.errors.len(), 1);
    }

    /// What the load of the running system tells is upstream's: it ends with the phase that fails.
    #[test]
    fn cfg_016_problems_of_all_phases_come_at_once_without_what_follows_from_them() {
        let spec = "spec: {containers: [{image: i}]}";
        let config = "tide: {queries: [{labels: [x]}], sync_period: soon}\nlog_level: loud\n";
        let jobs = format!(
            "presubmits:\n  o/r:\n  - {{name: a, max_concurrency: many, trigger: x, {spec}}}\n  - {{name: b b, {spec}}}\n"
        );
        let files = || {
            Files::default()
                .config(config)
                .job_file("jobs/a.yaml", &jobs)
                .job_file("jobs/b.yaml", "a: [")
                .job_file("jobs/c.yaml", &format!("periodics:\n- {{name: p, {spec}}}\n- {{name: q, labels: {{preset-x: 'true'}}, {spec}}}\n"))
        };
        insta::assert_snapshot!(told(files(), &["long-job-names"]), @r#"
        config.yaml:1:17: tide.queries: tide query (index 0) is invalid: 'orgs' and 'repos' cannot both be empty
        config.yaml:1:47: tide.sync_period: time: invalid duration "soon"
        config.yaml:2:12: log_level: not a valid logrus Level: "loud"
        jobs/a.yaml:3:32: presubmits["o/r"][0].max_concurrency: cannot use a string as an integer
        jobs/a.yaml:4:5: presubmits["o/r"][1]: invalid presubmit job b b: name: must match regex "^[A-Za-z0-9-._]+$"
        jobs/b.yaml:1:4: error unmarshalling: yaml: line 1: unclosed bracket '['
        jobs/c.yaml:2:3: periodics[0]: at least one of cron, interval, or minimum_interval must be set in periodic p
        "#);
        let upstream = Config::load(&files().set, LoadOptions::default());
        let first: Vec<_> = upstream
            .errors
            .iter()
            .map(|e| (e.file.as_str(), e.line))
            .collect();
        assert_eq!(
            first,
            [("config.yaml", 1), ("jobs/a.yaml", 3), ("jobs/b.yaml", 1)]
        );
    }

    /// Jobs take their defaults from the main file: where that is not read, they are not judged.
    #[test]
    fn cfg_016_jobs_are_not_judged_by_defaults_that_were_not_read() {
        let jobs = "presubmits:\n  o/r:\n  - {name: a, decorate: true, spec: {containers: [{image: i, command: [x]}]}}\n";
        let check = |config: &str| {
            told(
                Files::default()
                    .config(config)
                    .job_file("jobs/a.yaml", jobs),
                &["long-job-names"],
            )
        };
        assert_eq!(check("a: [").lines().count(), 1);
        assert_eq!(
            check("plank: {default_decoration_configs: 7}\n")
                .lines()
                .count(),
            1
        );
        assert_eq!(check("").lines().count(), 1);
    }

    #[test]
    fn cfg_112_without_plugins_their_warnings_are_skipped() {
        let jobs = "presubmits:\n  o/r:\n  - {name: a, spec: {containers: [{image: i}]}}\n";
        let files = || Files::default().job_file("jobs/a.yaml", jobs);
        let found = |files: Files| told(files, &["missing-trigger"]);
        assert_eq!(found(files()), "");
        let without_trigger = found(files().plugins("plugins: {}\n"));
        assert!(without_trigger.contains("do not have the trigger plugin enabled: repo: o/r"));
        // A file that does not parse has one error, and no repository without trigger.
        let unread = found(files().plugins("plugins: [\n"));
        assert_eq!(unread.lines().count(), 1, "{unread}");
    }

    #[test]
    fn cfg_113_a_repository_with_its_own_jobs() {
        let central = "presubmits:\n  o/r:\n  - {name: a, spec: {containers: [{image: i}]}}\n";
        let check = |own: &str, warnings: &[&str]| {
            let config = "gerrit: {allowed_presubmit_trigger_re: '^/test'}\n";
            told(
                Files::default()
                    .config(config)
                    .job_file("jobs/a.yaml", central)
                    .own(&[(".prow.yaml", own)]),
                warnings,
            )
        };
        let good = "presubmits: [{name: b, extra: 1, spec: {containers: [{image: i}]}}]\n";
        assert_eq!(check(good, &["long-job-names"]), "");
        insta::assert_snapshot!(check(good, &["unknown-fields-all"]), @r#"here/.prow.yaml:1:24: presubmits[0].extra: failed to read Prow YAML: unknown field "extra""#);
        insta::assert_snapshot!(check("presubmits: [\n", &["long-job-names"]), @"here/.prow.yaml:1:13: failed to read Prow YAML: error unmarshalling: yaml: line 1: unclosed bracket '['");
        insta::assert_snapshot!(check("presubmits:\n- name: a b\n  spec: {containers: [{image: i}]}\n", &["long-job-names"]), @r#"here/.prow.yaml:2:3: presubmits[0]: failed to validate Prow YAML: invalid presubmit job a b: name: must match regex "^[A-Za-z0-9-._]+$""#);
        insta::assert_snapshot!(check("presubmits:\n- {name: c, trigger: /check c, rerun_command: /check c, spec: {containers: [{image: i}]}}\n", &["long-job-names"]), @"here/.prow.yaml:2:47: presubmits[0].rerun_command: rerun command /check c in job c does not conform to test command requirements,please make sure the trigger regex is a subset of ^/test and the rerun command matches the trigger regex");
    }

    #[test]
    fn cfg_016_every_problem_names_file_line_and_field() {
        let jobs = "presubmits:\n  org/repo:\n  - name: a\n    decorat: true\n    max_concurrency: many\n    spec:\n      containers:\n      - image: x\n        env:\n        - {name: A, value: 1}\n";
        let config = "tide:\n  queries:\n  - orgs: [a/b]\nlog_level: loud\n";
        let both = [("jobs/a.yaml", jobs), ("jobs/b.yaml", "a: [")];
        insta::assert_snapshot!(lines(&report(&both, None)), @r#"
        jobs/a.yaml:5:22: presubmits["org/repo"][0].max_concurrency: cannot use a string as an integer
        jobs/a.yaml:10:28: presubmits["org/repo"][0].spec.containers[0].env[0].value: cannot use a number as a string; put it in quotes
        jobs/b.yaml:1:4: error unmarshalling: yaml: line 1: unclosed bracket '['
        jobs/a.yaml:4:5: presubmits["org/repo"][0].decorat: unknown field "decorat"; did you mean "decorate"?
        "#);
        insta::assert_snapshot!(lines(&report(&[("config.yaml", config)], None)), @r#"
        config.yaml:3:5: tide.queries: tide query (index 0) is invalid: orgs[0]: "a/b" contains a '/' which is not valid
        config.yaml:4:12: log_level: not a valid logrus Level: "loud"
        "#);
    }

    #[test]
    fn cfg_110_the_report_as_json() {
        let jobs = "periodics:\n- name: a\n  interval: 1h\n  spec: {containers: [{image: x}]}\n  colour: red\n";
        let report = report(&[("jobs/a.yaml", jobs)], None);
        assert!(report.passes(false) && !report.passes(true));
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
        {
          "presubmits": 0,
          "postsubmits": 0,
          "periodics": 1,
          "errors": [],
          "warnings": [
            {
              "file": "jobs/a.yaml",
              "line": 5,
              "column": 3,
              "severity": "warning",
              "rule": "unknown-fields-all",
              "field": "periodics[0].colour",
              "message": "unknown field \"colour\""
            }
          ],
          "notes": []
        }
        "#);
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Size {
        s: i64,
        m: i64,
        names: Vec<String>,
    }

    fn registry() -> Registry {
        Registry::new()
            .with_names(PROW_PLUGINS)
            .with(Section::new("size", |size: &mut Size| {
                if size.m == 0 {
                    size.m = 30;
                }
                if size.s > size.m {
                    vec![Problem::error(
                        "s",
                        "one of the smaller sizes is bigger than a larger one",
                    )]
                } else {
                    Vec::new()
                }
            }))
    }

    /// HOOK-054: what is a plugin of Prow's and not one here is told of, and refused by nobody.
    #[test]
    fn hook_054_a_plugin_that_is_not_built_is_a_warning() {
        let registry = registry().with_built(["size"]);
        let text = "plugins:\n  org: {plugins: [size, cat]}\n  org/a: {plugins: [dog]}\n";
        let files = Files::default().plugins(text);
        let report = files.report(&["not-built"], Some(&registry));
        assert_eq!(report.errors, []);
        insta::assert_snapshot!(lines(&report), @r"
        plugins.yaml:2:25: plugins: the plugin cat is not built yet: nothing happens where it is on; leave it on for when it is, or turn it off to be rid of this warning
        plugins.yaml:3:21: plugins: the plugin dog is not built yet: nothing happens where it is on; leave it on for when it is, or turn it off to be rid of this warning
        ");
    }

    /// CFG-112: whoever names what is no plugin there is told what was meant.
    #[test]
    fn cfg_112_an_unknown_plugin_is_told_with_what_to_do() {
        let registry = registry().with_external([("needs-rebase", String::new())]);
        let text = "plugins: {o: {plugins: [needs-rebase, lgmt]}}";
        let report = Files::default().plugins(text).report(&[], Some(&registry));
        assert!(!report.passes(false));
        insta::assert_snapshot!(lines(&report), @r#"
        plugins.yaml:1:25: plugins: unknown plugin: needs-rebase; it is turned on in external_plugins
        plugins.yaml:1:39: plugins: unknown plugin: lgmt; did you mean "lgtm"?
        "#);
    }

    /// CFG-112, HOOK-050: what is read and only odd is no unknown field, and Prow's `--strict` does not mind it.
    #[test]
    fn cfg_112_advice_about_a_plugins_setting_is_no_unknown_field() {
        let section = Section::new("size", |size: &mut Size| match size.s {
            7 => vec![Problem {
                help: "write 8".to_owned(),
                ..Problem::advice("s", "7 is deprecated")
            }],
            _ => vec![],
        });
        let registry = Registry::new().with(section);
        let files = || Files::default().plugins("size: {s: 7}\n");
        let usual = files().report(&[], Some(&registry));
        insta::assert_snapshot!(lines(&usual), @"plugins.yaml:1:8: size.s: 7 is deprecated; write 8");
        assert_eq!(usual.warnings[0].rule.name(), "plugin-advice");
        assert!(usual.passes(true), "told, and no more");
        let unknown = files().report(&["unknown-fields-all"], Some(&registry));
        assert_eq!(lines(&unknown), "");
        let asked = files().report(&["plugin-advice"], Some(&registry));
        assert!(asked.passes(false) && !asked.passes(true));
        let unread = Files::default().plugins("size: {z: 7}\n");
        assert!(!unread.report(&[], Some(&registry)).passes(true));
    }

    #[test]
    fn cfg_112_a_plugin_reads_its_own_section() {
        let text = "plugins:\n  org: {plugins: [size, nope]}\nsize:\n  s: 40\n  colour: red\n  names: null\nfoo: 1\n";
        insta::assert_snapshot!(lines(&report(&[("plugins.yaml", text)], Some(&registry()))), @r#"
        plugins.yaml:2:25: plugins: unknown plugin: nope
        plugins.yaml:4:6: size.s: one of the smaller sizes is bigger than a larger one
        plugins.yaml:5:3: size.colour: unknown field "colour"
        plugins.yaml:7:1: foo: unknown field "foo"
        "#);
        let text = "size:\n  names: [a, {b: c}]\n";
        insta::assert_snapshot!(lines(&report(&[("plugins.yaml", text)], Some(&registry()))), @"plugins.yaml:2:14: size.names.1: invalid type: map, expected a string");

        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            plugins: Some("plugins.yaml".to_owned()),
            ..Layout::default()
        });
        set.insert("config.yaml", Vec::new());
        set.insert(
            "plugins.yaml",
            &b"plugins:\n  org: [size]\nsize: {s: 5}\n"[..],
        );
        let registry = registry();
        let loaded = Config::load(
            &set,
            LoadOptions {
                plugins: Some(&registry),
                ..LoadOptions::default()
            },
        );
        let (_, plugins) = loaded.accepted().unwrap();
        let size: &Size = plugins.section("size").unwrap();
        assert_eq!((size.s, size.m, size.names.len()), (5, 30, 0));
        assert!(
            plugins.is_enabled("size", "org", "repo") && !plugins.is_enabled("lgtm", "org", "repo")
        );
    }
}
