//! `checkconfig`: Prow's files checked as a compiler checks a program, with Prow's own flags.

mod annotations;
mod args;
mod fingerprint;
mod lines;
mod paths;
mod remote;
mod sarif;
mod selection;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use trireme_config::check::{self, CheckOptions, Checkout, Enabled, Report, Set, Warning};
use trireme_config::{Diagnostic, FileSet, LoadOptions, Rule, Severity};

pub(crate) use args::as_prows;
pub use args::{CheckconfigArgs, ReportFormat, StorageArgs, WarningArgs};
use selection::{MAX_FOR_PEOPLE, MAX_FOR_PROGRAMS, Selection, counted};

use super::{files, own_files};
use crate::exit::{CONFIG, USAGE, WARNINGS, coded};
use crate::output::{print, print_json};
use crate::serve::registry;

/// Version of the JSON report's shape; it grows when something in it changes its meaning or goes.
const JSON_VERSION: u32 = 1;
/// A larger file of cluster statuses is refused; one cluster takes some 30 bytes.
const MAX_STATUS_BYTES: u64 = 1 << 20;

/// # Errors
/// When the configuration has errors, or warnings with `--strict`; when a check that was asked for by name, or any with
/// `--strict`, could not be made; when the flags contradict each other.
pub async fn run(args: CheckconfigArgs) -> anyhow::Result<()> {
    args.check()?;
    let wanted = &args.warnings;
    let enabled = Enabled::new(
        &wanted.warnings,
        &wanted.exclude_warning,
        wanted.include_default_warnings,
        wanted.expensive_checks,
        args.github.is_app(),
    )
    .map_err(|why| coded(USAGE, why.to_string()))?;
    let github = remote::Asked::new(&args, &enabled)?;
    let checked = match files::read(&args.files) {
        Ok(set) => Checked::of(&args, set, &enabled, github).await,
        Err(errors) => Checked::unread(errors),
    };
    let missed = checked.missed(|warning| wanted.strict || enabled.is_named(warning));
    show(&args, &checked, missed.is_empty())?;
    let report = &checked.report;
    if !report.errors.is_empty() {
        let errors = counted(report.errors.len(), "error");
        return Err(coded(CONFIG, format!("the configuration has {errors}")));
    }
    if !missed.is_empty() {
        return Err(anyhow::anyhow!(
            "what was to be checked could not be: {}; the report says why",
            missed.join(", ")
        ));
    }
    if !report.passes(wanted.strict) {
        return Err(coded(WARNINGS, "Strict is set and there were warnings"));
    }
    Ok(())
}

/// A report, and what it is about.
#[derive(Default)]
struct Checked {
    files: FileSet,
    checkout: Option<Checkout>,
    report: Report,
    /// Why checks could not be made; the report has these, too.
    unmade: Vec<Diagnostic>,
}

impl Checked {
    fn unread(errors: Vec<Diagnostic>) -> Self {
        let mut report = Report::default();
        report.add(errors);
        Self {
            report,
            ..Self::default()
        }
    }

    async fn of(
        args: &CheckconfigArgs,
        files: FileSet,
        enabled: &Enabled,
        github: remote::Asked,
    ) -> Self {
        let registry = registry();
        let options = LoadOptions {
            now: Some(jiff::Timestamp::now()),
            plugins: Some(&registry),
            allow_duplicate_basenames: !args.warnings.forbid_duplicate_basenames,
            refuse_unknown_plugins: true,
            ..LoadOptions::default()
        };
        let loaded = check::load(&files, options);
        let mut found = Vec::new();
        let checkout = match args.warnings.prow_yaml_repo_name.as_str() {
            "" => None,
            repo => match checkout(repo, &args.warnings.prow_yaml_path) {
                Ok((checkout, note)) => {
                    found.extend(note);
                    Some(checkout)
                }
                Err(unreadable) => {
                    found.push(unreadable);
                    None
                }
            },
        };
        let clusters = if enabled.has(Warning::ValidateClusterField) {
            let location = &loaded.config.prow.plank.build_cluster_status_file;
            let is_named = enabled.is_named(Warning::ValidateClusterField);
            Clusters::of(location, is_named)
        } else {
            Clusters::default()
        };
        let options = CheckOptions {
            enabled: enabled.clone(),
            required_job_annotations: args.warnings.required_job_annotations.clone(),
            cluster_statuses: clusters.statuses,
            checkout,
        };
        let mut report = check::check(&files, &loaded, &options);
        let answers = github.answers(&files, &loaded).await;
        let mut unmade = answers.unmade;
        unmade.extend(clusters.unmade);
        found.extend(clusters.note);
        found.extend(answers.found);
        found.extend(unmade.iter().cloned());
        report.add(found);
        Self {
            files,
            checkout: options.checkout,
            report,
            unmade,
        }
    }

    /// Names of the checks that could not be made and that `counts` says matter.
    fn missed(&self, counts: impl Fn(Warning) -> bool) -> Vec<&'static str> {
        let rules = self.unmade.iter().filter_map(|finding| match finding.rule {
            Rule::Warning(warning) if counts(warning) => Some(warning.name()),
            _ => None,
        });
        let names: BTreeSet<&str> = rules.collect();
        names.into_iter().collect()
    }

    fn bytes(&self, path: &str) -> Option<&[u8]> {
        let own = || self.checkout.as_ref()?.bytes(path);
        self.files.get(path).or_else(own).map(|bytes| &bytes[..])
    }
}

/// The jobs in the directory of a file; without one, in the working directory. A note where there are none, as Prow
/// accepts that.
fn checkout(repo: &str, file: &str) -> Result<(Checkout, Option<Diagnostic>), Diagnostic> {
    let dir = Path::new(file).parent().unwrap_or(Path::new(""));
    let root = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let own = own_files::read(root).map_err(|found| Diagnostic {
        message: format!("failed to read Prow YAML of {repo}: {}", found.message),
        ..found
    })?;
    let note = (own.files.is_empty() && !own.has_dir).then(|| Diagnostic {
        severity: Severity::Note,
        ..Diagnostic::error(
            Rule::File,
            "",
            format!(
                "no jobs of {repo} itself were checked: neither .prow.yaml nor .prow is in {}",
                root.display()
            ),
        )
    });
    let checkout = Checkout {
        identifier: repo.to_owned(),
        dir: dir.display().to_string(),
        own,
    };
    Ok((checkout, note))
}

/// What plank wrote about the build clusters, or why it is not known.
#[derive(Debug, Default)]
struct Clusters {
    statuses: Option<BTreeMap<String, String>>,
    note: Option<Diagnostic>,
    unmade: Option<Diagnostic>,
}

impl Clusters {
    /// A file that is not there yet is a note; so is one that this program cannot fetch, unless the check was asked for
    /// by name.
    fn of(location: &str, is_named: bool) -> Self {
        if location.is_empty() {
            return Self::default();
        }
        let finding = |message: String| {
            let rule = Rule::Warning(Warning::ValidateClusterField);
            Diagnostic::error(rule, "", message)
                .field("plank.build_cluster_status_file")
                .warning()
        };
        let note = |message: String| Self {
            note: Some(Diagnostic {
                severity: Severity::Note,
                ..finding(message)
            }),
            ..Self::default()
        };
        let unmade = |message: String| Self {
            unmade: Some(finding(message)),
            ..Self::default()
        };
        let path = location.strip_prefix("file://").unwrap_or(location);
        if path.contains("://") {
            let message = format!(
                "clusters of jobs are not compared with {location}: only local status files are read yet; copy it and name \
                 the copy in plank.build_cluster_status_file to have them compared"
            );
            return if is_named {
                unmade(message)
            } else {
                note(message)
            };
        }
        match status_file(path) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => note(format!(
                "Build cluster status file location was specified, but could not be found: {path}. This is expected when \
                 the location is first configured, before plank creates the file."
            )),
            Err(why) => unmade(format!(
                "error opening build cluster status file for reading: {path}: {why}"
            )),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(statuses) => Self {
                    statuses: Some(statuses),
                    ..Self::default()
                },
                Err(why) => unmade(format!(
                    "error unmarshalling build cluster status file: {path}: {why}"
                )),
            },
        }
    }
}

fn status_file(path: &str) -> std::io::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_STATUS_BYTES {
        let message = format!("{size} bytes are more than the {MAX_STATUS_BYTES} allowed");
        return Err(std::io::Error::other(message));
    }
    std::fs::read(path)
}

fn show(args: &CheckconfigArgs, checked: &Checked, all_checked: bool) -> anyhow::Result<()> {
    let max = |usual: usize| match args.max_findings {
        None => usual,
        Some(0) => usize::MAX,
        Some(n) => n,
    };
    let report = &checked.report;
    match args.output {
        ReportFormat::Text => {
            let look = text::Look::of_this_terminal();
            let max = max(MAX_FOR_PEOPLE);
            print(&text::render(report, max, look, |path| checked.bytes(path)))?;
        }
        ReportFormat::Json => {
            let passes = all_checked && report.passes(args.warnings.strict);
            let unmade = checked.missed(|_| true);
            print_json(&json_report(report, passes, &unmade, max(MAX_FOR_PROGRAMS)))?;
        }
        ReportFormat::Sarif => {
            let max = max(MAX_FOR_PROGRAMS);
            print_json(&sarif::render(
                &sarif::Input {
                    report,
                    unmade: &checked.unmade,
                    main_file: &args.files.config_path,
                    bytes: &|path| checked.bytes(path),
                },
                max,
            ))?;
        }
        ReportFormat::Github => print(&annotations::render(report, max(MAX_FOR_PROGRAMS)))?,
    }
    Ok(())
}

/// The shape that the README describes.
fn json_report(report: &Report, passes: bool, unmade: &[&str], max: usize) -> Value {
    let selection = Selection::new(report, max);
    let of = |severity: Severity| -> Vec<&Diagnostic> {
        let all = selection.shown.iter().copied();
        all.filter(|finding| finding.severity == severity).collect()
    };
    json!({
        "version": JSON_VERSION,
        "passes": passes,
        "not_checked": unmade,
        "presubmits": report.presubmits,
        "postsubmits": report.postsubmits,
        "periodics": report.periodics,
        "errors": of(Severity::Error),
        "warnings": of(Severity::Warning),
        "notes": of(Severity::Note),
        "omitted": selection.omitted_count(),
    })
}

/// For `--help`: every warning with what it complains about.
#[must_use]
pub fn table_of_warnings() -> String {
    let mut text = "Warnings (P: only with --plugin-config):\n".to_owned();
    let sets = [
        (Set::Default, "default"),
        (Set::Expensive, "expensive"),
        (Set::Optional, "optional"),
    ];
    for (set, name) in sets {
        text += &format!("\n  {name}\n");
        for warning in Warning::ALL.iter().filter(|warning| warning.set() == set) {
            let mark = if warning.needs_plugins() { " (P)" } else { "" };
            text += &format!("    {}{mark}: {}\n", warning.name(), warning.about());
        }
    }
    text + "\nWhat Prow accepts in silence is told, but --strict minds it only where --warnings names it.\n\
            \nExit codes: 0 nothing wrong; 1 a check could not be made, with --strict or where --warnings names it; 2 wrong flags;\n\
            5 errors; 7 warnings with --strict.\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use trireme_config::Layout;

    fn set() -> FileSet {
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs".to_owned()),
            ..Layout::default()
        });
        set.insert("config.yaml", &b"log_level: loud\n"[..]);
        let jobs = "presubmits:\n  org/repo:\n  - name: unit\n    alwaysrun: true\n    decorate: true\n    max_concurrency: 'many'\n    spec:\n      containers:\n      - image: x\nperiodics:\n- name: nightly\n  interval: 1h\n  spec: {containers: [{image: i}]}\n";
        set.insert("jobs/a.yaml", jobs.as_bytes());
        set
    }

    fn report(set: &FileSet, named: &[&str]) -> Report {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        let loaded = check::load(set, LoadOptions::default());
        let options = CheckOptions {
            enabled: Enabled::new(&named, &[], false, false, false).unwrap(),
            ..CheckOptions::default()
        };
        check::check(set, &loaded, &options)
    }

    fn text(set: &FileSet, named: &[&str], max: usize, colours: bool) -> String {
        let look = text::Look {
            colours,
            width: 120,
        };
        text::render(&report(set, named), max, look, |path| {
            set.get(path).map(|bytes| &bytes[..])
        })
    }

    #[test]
    fn cfg_116_each_finding_with_its_line() {
        insta::assert_snapshot!(text(&set(), &["unknown-fields-all", "non-decorated-jobs"], 100, false), @r#"
        error[invalid]: not a valid logrus Level: "loud"
         --> config.yaml:1:12
          |
        1 | log_level: loud
          |            ^^^^ log_level

        warning[unknown-fields-all]: unknown field "alwaysrun"
         --> jobs/a.yaml:4:5
          |
        4 |     alwaysrun: true
          |     ^^^^^^^^^ presubmits["org/repo"][0].alwaysrun
          |
          = help: did you mean "always_run"?

        error[type]: cannot use a string as an integer
         --> jobs/a.yaml:6:22
          |
        6 |     max_concurrency: 'many'
          |                      ^^^^^^ presubmits["org/repo"][0].max_concurrency

        warning[non-decorated-jobs]: the following jobs use the kubernetes provider but do not use the pod utilities: [nightly]
          --> jobs/a.yaml:11:3
           |
        11 | - name: nightly
           |   ^^^^ periodics[0].decorate
           |
           = help: set decorate: true, or decorate_all_jobs in the main file

        2 errors, 2 warnings (1 presubmit, 0 postsubmits, 1 periodic)
        "#);
    }

    #[test]
    fn cfg_110_a_clean_run_says_what_prow_says() {
        let mut clean = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            ..Layout::default()
        });
        clean.insert("config.yaml", Vec::new());
        insta::assert_snapshot!(text(&clean, &[], 100, false), @"checkconfig passes without any error! (0 presubmits, 0 postsubmits, 0 periodics)");
    }

    #[test]
    fn errors_are_shown_before_warnings_and_what_is_left_out_is_counted() {
        let all = text(
            &set(),
            &["unknown-fields-all", "non-decorated-jobs"],
            2,
            false,
        );
        assert_eq!(all.matches("error[").count(), 2, "{all}");
        assert_eq!(all.matches("warning[").count(), 0, "{all}");
        assert!(all.contains("and 2 findings more, not shown: 1 non-decorated-jobs, 1 unknown-fields-all; --max-findings=0 shows all"), "{all}");
    }

    #[test]
    fn colours_are_escape_sequences_and_nothing_else() {
        let plain = text(&set(), &["unknown-fields-all"], 100, false);
        let coloured = text(&set(), &["unknown-fields-all"], 100, true);
        assert!(coloured.contains("\u{1b}[") && !plain.contains('\u{1b}'));
        let escapes = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
        assert_eq!(escapes.replace_all(&coloured, ""), plain);
    }

    /// CFG-116: the shape that the README describes.
    #[test]
    fn cfg_116_the_report_as_json() {
        let report = report(&set(), &["unknown-fields-all"]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&json_report(&report, false, &["validate-owners"], 2)).unwrap(), @r#"
        {
          "version": 1,
          "passes": false,
          "not_checked": [
            "validate-owners"
          ],
          "presubmits": 1,
          "postsubmits": 0,
          "periodics": 1,
          "errors": [
            {
              "file": "config.yaml",
              "line": 1,
              "column": 12,
              "severity": "error",
              "rule": "invalid",
              "field": "log_level",
              "message": "not a valid logrus Level: \"loud\""
            },
            {
              "file": "jobs/a.yaml",
              "line": 6,
              "column": 22,
              "severity": "error",
              "rule": "type",
              "field": "presubmits[\"org/repo\"][0].max_concurrency",
              "message": "cannot use a string as an integer"
            }
          ],
          "warnings": [],
          "notes": [],
          "omitted": 1
        }
        "#);
    }

    #[test]
    fn cfg_116_the_report_as_sarif() {
        let (set, main_file) = (set(), "config.yaml");
        let input = sarif::Input {
            report: &report(&set, &["unknown-fields-all"]),
            unmade: &[],
            main_file,
            bytes: &|path| set.get(path).map(|bytes| &bytes[..]),
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&sarif::render(&input, 2)).unwrap(), @r#"
        {
          "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
          "version": "2.1.0",
          "runs": [
            {
              "tool": {
                "driver": {
                  "name": "trireme checkconfig",
                  "version": "0.1.0",
                  "rules": [
                    {
                      "id": "invalid",
                      "shortDescription": {
                        "text": "a value that is refused"
                      },
                      "fullDescription": {
                        "text": "a value that is refused"
                      },
                      "help": {
                        "text": "a value that is refused. `trireme checkconfig --help` lists all warnings and says how to leave one out."
                      }
                    },
                    {
                      "id": "type",
                      "shortDescription": {
                        "text": "a value of the wrong type"
                      },
                      "fullDescription": {
                        "text": "a value of the wrong type"
                      },
                      "help": {
                        "text": "a value of the wrong type. `trireme checkconfig --help` lists all warnings and says how to leave one out."
                      }
                    }
                  ]
                }
              },
              "columnKind": "unicodeCodePoints",
              "invocations": [
                {
                  "executionSuccessful": true,
                  "toolExecutionNotifications": []
                }
              ],
              "results": [
                {
                  "ruleId": "invalid",
                  "level": "error",
                  "message": {
                    "text": "not a valid logrus Level: \"loud\""
                  },
                  "locations": [
                    {
                      "physicalLocation": {
                        "artifactLocation": {
                          "uri": "config.yaml",
                          "uriBaseId": "%SRCROOT%"
                        },
                        "region": {
                          "startLine": 1,
                          "startColumn": 12,
                          "endLine": 1,
                          "endColumn": 16
                        }
                      },
                      "logicalLocations": [
                        {
                          "fullyQualifiedName": "log_level"
                        }
                      ]
                    }
                  ],
                  "ruleIndex": 0,
                  "partialFingerprints": {
                    "primaryLocationLineHash": "b981b0c1e37ed288:1"
                  }
                },
                {
                  "ruleId": "type",
                  "level": "error",
                  "message": {
                    "text": "cannot use a string as an integer"
                  },
                  "locations": [
                    {
                      "physicalLocation": {
                        "artifactLocation": {
                          "uri": "jobs/a.yaml",
                          "uriBaseId": "%SRCROOT%"
                        },
                        "region": {
                          "startLine": 6,
                          "startColumn": 22,
                          "endLine": 6,
                          "endColumn": 28
                        }
                      },
                      "logicalLocations": [
                        {
                          "fullyQualifiedName": "presubmits[\"org/repo\"][0].max_concurrency"
                        }
                      ]
                    }
                  ],
                  "ruleIndex": 1,
                  "partialFingerprints": {
                    "primaryLocationLineHash": "2bb90d8739136849:1"
                  }
                }
              ],
              "properties": {
                "omitted": 1
              }
            }
          ]
        }
        "#);
    }

    #[test]
    fn cfg_116_the_report_as_workflow_commands() {
        let report = report(&set(), &["unknown-fields-all", "non-decorated-jobs"]);
        insta::assert_snapshot!(annotations::render(&report, 100), @r#"
        ::error file=config.yaml,line=1,col=12,title=invalid::log_level: not a valid logrus Level: "loud"
        ::warning file=jobs/a.yaml,line=4,col=5,title=unknown-fields-all::presubmits["org/repo"][0].alwaysrun: unknown field "alwaysrun"; did you mean "always_run"?
        ::error file=jobs/a.yaml,line=6,col=22,title=type::presubmits["org/repo"][0].max_concurrency: cannot use a string as an integer
        ::warning file=jobs/a.yaml,line=11,col=3,title=non-decorated-jobs::periodics[0].decorate: the following jobs use the kubernetes provider but do not use the pod utilities: [nightly]; set decorate: true, or decorate_all_jobs in the main file
        2 errors, 2 warnings (1 presubmit, 0 postsubmits, 1 periodic)
        "#);
    }

    #[test]
    fn cfg_115_the_status_of_build_clusters_is_read_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("status.json");
        let location = format!("file://{}", file.display());
        let told = |location: &str, is_named: bool| {
            let Clusters {
                statuses,
                note,
                unmade,
            } = Clusters::of(location, is_named);
            let notices = note.iter().chain(&unmade);
            let notices =
                notices.map(|notice| format!("{:?}: {}", notice.severity, notice.message));
            format!(
                "{} {}",
                statuses.map_or(0, |all| all.len()),
                notices.collect::<String>()
            )
        };
        let absent = "0 Note: Build cluster status file location was specified";
        assert!(told(&location, true).starts_with(absent));
        std::fs::write(&file, r#"{"default": "Reachable", "a": "Error"}"#).unwrap();
        assert_eq!(told(&location, false), "2 ");
        std::fs::write(&file, "[]").unwrap();
        let wrong = "0 Warning: error unmarshalling build cluster status file";
        assert!(told(&location, false).starts_with(wrong));
        let elsewhere = |is_named| told("gs://bucket/x.json", is_named);
        let message = "clusters of jobs are not compared with gs://bucket/x.json";
        assert!(elsewhere(false).starts_with(&format!("0 Note: {message}")));
        assert!(elsewhere(true).starts_with(&format!("0 Warning: {message}")));
    }

    #[test]
    fn cfg_112_help_names_every_warning() {
        let table = table_of_warnings();
        for warning in Warning::ALL {
            assert!(table.contains(warning.name()), "{}", warning.name());
        }
    }
}
