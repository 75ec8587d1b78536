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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Layout;
    use crate::plugins::{PROW_PLUGINS, Problem, Registry, Section};

    fn report(files: &[(&str, &str)], registry: Option<&Registry>) -> Report {
        let mut set = FileSet::new(Layout {
            config: "config.yaml".to_owned(),
            jobs: Some("jobs".to_owned()),
            plugins: files
                .iter()
                .any(|(path, _)| *path == "plugins.yaml")
                .then(|| "plugins.yaml".to_owned()),
            ..Layout::default()
        });
        set.insert("jobs/.prowignore", Vec::new());
        set.insert("config.yaml", Vec::new());
        for (path, text) in files {
            set.insert(*path, text.as_bytes());
        }
        checkconfig(
            &set,
            LoadOptions {
                plugins: registry,
                ..LoadOptions::default()
            },
        )
    }

    fn told(report: &Report) -> String {
        report
            .errors
            .iter()
            .chain(&report.warnings)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn cfg_016_every_problem_names_file_line_and_field() {
        let jobs = "presubmits:\n  org/repo:\n  - name: a\n    decorat: true\n    max_concurrency: many\n    spec:\n      containers:\n      - image: x\n        env:\n        - {name: A, value: 1}\n";
        let config = "tide:\n  queries:\n  - orgs: [a/b]\nlog_level: loud\n";
        let both = [("jobs/a.yaml", jobs), ("jobs/b.yaml", "a: [")];
        insta::assert_snapshot!(told(&report(&both, None)), @r#"
        jobs/a.yaml:5:22: presubmits["org/repo"][0].max_concurrency: cannot use a string as an integer
        jobs/a.yaml:10:28: presubmits["org/repo"][0].spec.containers[0].env[0].value: cannot use a number as a string; put it in quotes
        jobs/b.yaml:2:1: error unmarshalling: yaml: line 2: while parsing a node, did not find expected node content
        jobs/a.yaml:4:5: presubmits["org/repo"][0].decorat: unknown field "decorat"; did you mean "decorate"?
        "#);
        insta::assert_snapshot!(told(&report(&[("config.yaml", config)], None)), @r#"
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
              "rule": "unknown-field",
              "field": "periodics[0].colour",
              "message": "unknown field \"colour\""
            }
          ]
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

    #[test]
    fn cfg_112_a_plugin_reads_its_own_section() {
        let text = "plugins:\n  org: {plugins: [size, nope]}\nsize:\n  s: 40\n  colour: red\n  names: null\nfoo: 1\n";
        insta::assert_snapshot!(told(&report(&[("plugins.yaml", text)], Some(&registry()))), @r#"
        plugins.yaml:2:25: plugins: unknown plugin: nope
        plugins.yaml:4:6: size.s: one of the smaller sizes is bigger than a larger one
        plugins.yaml:5:11: size.colour: unknown field "colour"
        plugins.yaml:7:1: foo: unknown field "foo"
        "#);
        let text = "size:\n  names: [a, {b: c}]\n";
        insta::assert_snapshot!(told(&report(&[("plugins.yaml", text)], Some(&registry()))), @"plugins.yaml:2:14: size.names.1: invalid type: map, expected a string");

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
